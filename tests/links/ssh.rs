//! What people do with a link over ssh, and what goes wrong with it.

use peer_tests::home;
use serde_json::json;

use crate::machines::{Machines, stage, wait};

#[test]
fn two_sessions_on_two_machines_hold_a_conversation() {
    let machines = Machines::linked(home!(), home!());
    let _running = machines.run();
    machines.wait_up();
    let luna = machines.laptop.claude("luna");
    let bob = machines.desk.claude("bob");
    let laptop = machines.alias_of_laptop();
    wait("luna knows bob", || {
        luna.says("list_peers", json!({"scope": "all"})).contains("bob@desk")
    });
    let asked = luna
        .call("send_message", json!({"to": "bob@desk", "message": "which bcrypt?"}))
        .success()
        .message_id();
    wait("bob has it", || bob.says("check_messages", json!({})).contains("| which bcrypt?"));
    let header = bob.says("check_messages", json!({"message_id": asked}));
    assert!(header.contains(&format!("from luna@{laptop} (claude, another machine)")), "{header}");
    let _ = bob
        .call(
            "send_message",
            json!({"to": format!("luna@{laptop}"), "reply_to": asked, "message": "5.1"}),
        )
        .success();
    wait("luna has the answer", || luna.says("check_messages", json!({})).contains("| 5.1"));
    wait("the sender is told", || stage(&machines.laptop, &asked) == "presented");
}

#[test]
fn two_developers_ask_each_other_by_a_key_that_may_do_nothing_else() {
    let machines = Machines::new(home!(), home!());
    machines.restrict_key("ann");
    let _ = machines.add(&[]).success();
    assert_eq!(machines.alias_of_laptop(), "ann");
    let _running = machines.run();
    machines.wait_up();
    let backend = machines.desk.session("claude-code", "luna");
    let _other = machines.desk.session("codex-mcp-client", "orion");
    let frontend = machines.laptop.session("claude-code", "frontend");
    let _another = machines.laptop.session("codex-mcp-client", "other");
    wait("frontend knows luna", || {
        frontend.says("list_peers", json!({"scope": "all"})).contains("luna@desk")
    });

    // Neither can run commands for the other, so each person lets the other one's mail through.
    let asked = frontend
        .call("ask_peer", json!({"to": "luna@desk", "question": "which port?", "wait_s": 0}))
        .success()
        .message_id();
    wait("it is held", || machines.desk.peerctl(&["inbox", "luna"]).stdout.contains("held"));
    let _ = machines.desk.peerctl(&["release", &asked]).success();
    wait("backend has it", || backend.says("check_messages", json!({})).contains("which port?"));
    let answer = json!({"question_id": asked, "answer": "8080", "sources": "compose.yaml:3"});
    let _ = backend.call("answer_question", answer).success();
    // An answer to what was asked here passes.
    wait("frontend has the answer", || {
        let text = frontend.says("check_messages", json!({}));
        text.contains("8080") && text.contains("compose.yaml:3")
    });

    let _ = machines.desk.peerctl(&["link", "set", "ann", "accept"]).success();
    let _ = machines.on_laptop(&["link", "set", "desk", "accept"]).success();
    let back = backend
        .call("ask_peer", json!({"to": "frontend@ann", "question": "which path?", "wait_s": 0}))
        .success()
        .message_id();
    wait("frontend has it", || frontend.says("check_messages", json!({})).contains("which path?"));
    let answer = json!({"question_id": back, "answer": "/api", "sources": "routes.ts"});
    let _ = frontend.call("answer_question", answer).success();
    wait("backend has the answer", || backend.says("check_messages", json!({})).contains("/api"));

    // A person on each side.
    let _ = machines.desk.peerctl(&["send", "human@ann", "--", "lunch?"]).success();
    wait("Ann has it", || machines.on_laptop(&["inbox", "me"]).stdout.contains("lunch?"));
}

#[test]
fn mail_of_a_machine_that_is_called_waits_for_the_person() {
    let machines = Machines::new(home!(), home!());
    let told = machines.add(&[]).success().stdout;
    assert!(told.contains("waits until you release it"), "{told}");
    let _running = machines.run();
    machines.wait_up();
    // Of two sessions under one process neither is that process: the test is the person.
    let (luna, _orion) = machines.laptop.two_sessions();
    let laptop = machines.alias_of_laptop();
    let to = format!("luna@{laptop}");
    wait("luna is known", || machines.desk.peerctl(&["send", &to, "--", "do this"]).code == 0);
    wait("it is held", || machines.laptop.peerctl(&["inbox", "luna"]).stdout.contains("held"));
    let sent = machines.desk.peerctl(&["history", "--json"]).success().json()[0].clone();
    let id = sent["id"].as_str().expect("an id").to_owned();
    wait("the sender is told", || {
        machines.desk.peerctl(&["inbox", "me"]).stdout.contains("is held on the other machine")
    });
    let _ = machines.laptop.peerctl(&["release", &id]).success();
    wait("luna has it", || luna.says("check_messages", json!({})).contains("| do this"));
    let _ = luna.call("ack_messages", json!({"message_ids": id})).success();
    wait("it is presented", || stage(&machines.desk, &id) == "presented");
}

#[test]
fn a_shell_that_talks_disturbs_nothing() {
    let machines = Machines::new(home!(), home!());
    let talking = format!("echo Welcome to desk; {}", machines.desk.executable().display());
    let _ = machines.add(&["--accept", "--command", &talking]).success();
}

#[test]
fn what_is_missing_on_the_other_machine_is_told() {
    let machines = Machines::new(home!(), home!());
    let missing = machines.add(&["--command", "/nowhere/peerctl"]);
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.stderr.contains("/nowhere/peerctl"), "{missing:?}");
    let _ = machines.desk.peerctl(&["daemon", "stop"]).success();
    let stopped = machines.add(&[]);
    assert!(stopped.code != 0 && stopped.stderr.contains("no broker is running"), "{stopped:?}");
    let option = machines.on_laptop(&["link", "add", "x", "--ssh=-oProxyCommand=true"]);
    assert_eq!(option.code, 2, "{option:?}");
}

#[test]
fn a_link_is_renamed_hidden_and_removed() {
    let machines = Machines::linked(home!(), home!());
    let running = machines.run();
    machines.wait_up();
    let _sessions = machines.laptop.two_sessions();
    let peers = || machines.desk.peerctl(&["peers", "--remote"]).stdout;
    wait("luna is known", || peers().contains("luna@"));
    let luna = format!("luna@{}", machines.alias_of_laptop());
    for arguments in
        [&["rename", &luna, "moon"][..], &["tasks", "create", "--for", &luna, "--", "review"]]
    {
        let refused = machines.desk.peerctl(arguments);
        assert_eq!(refused.code, 6, "{refused:?}");
        assert!(refused.stderr.contains("another machine"), "{refused:?}");
    }
    let _ = machines.on_laptop(&["link", "hide", "luna"]).success();
    wait("luna is gone", || {
        let rows = machines.desk.peerctl(&["peers", "--remote", "--json"]).success().json();
        rows.as_array().is_some_and(|rows| {
            rows.iter().all(|row| {
                row["online"] != true
                    || !row["name"].as_str().unwrap_or_default().starts_with("luna@")
            })
        })
    });
    drop(running);
    let _ = machines.on_laptop(&["link", "rename", "desk", "tower"]).success();
    let links = machines.on_laptop(&["link", "ls", "--json"]).success().json();
    assert_eq!((&links[0]["name"], &links[0]["kind"]), (&json!("tower"), &json!("ssh")), "{links}");
    let _ = machines.on_laptop(&["link", "rm", "tower"]).success();
    assert_eq!(machines.on_laptop(&["link", "ls", "--json"]).success().json(), json!([]));
    let identity = || machines.on_laptop(&["link", "identity", "--json"]).success().json();
    let before = identity();
    let new = machines.on_laptop(&["link", "identity", "--new", "--json"]).success().json();
    assert_ne!(new["broker"], before["broker"], "{new}");
    assert_eq!(identity(), new);
    // The pinned identity of the laptop is the former one, so the desk meets a machine it does not know.
    let added = machines.add(&["--accept"]).success();
    assert!(added.stdout.contains("desk"), "{added:?}");
    let _ = machines.on_laptop(&["link", "rm", "desk"]).success();
    let none = machines.on_laptop(&["link", "run"]);
    assert!(none.code == 1 && none.stderr.contains("no links are configured"), "{none:?}");
}

#[test]
fn the_process_of_links_starts_follows_the_file_and_ends() {
    let machines = Machines::linked(home!(), home!());
    let of = |arguments: &[&str]| machines.on_laptop(arguments).success().json();
    let state = || of(&["link", "show", "desk", "--json"])["state"].clone();
    assert_eq!(state(), "off");
    let unwell = machines.on_laptop(&["doctor"]);
    assert!(unwell.code == 7 && unwell.stdout.contains("-> peerctl link start"), "{unwell:?}");
    assert_eq!(of(&["link", "stop", "--json"])["changed"], false);

    let started = of(&["link", "start", "--json"]);
    assert_eq!((&started["running"], &started["changed"]), (&json!(true), &json!(true)));
    machines.wait_up();
    let again = of(&["link", "start", "--json"]);
    assert_eq!((&again["pid"], &again["changed"]), (&started["pid"], &json!(false)));
    let shown = of(&["link", "show", "desk", "--json"]);
    assert_eq!((&shown["ssh"], &shown["pid"]), (&json!("desk"), &started["pid"]), "{shown}");
    let well = machines.on_laptop(&["doctor"]).stdout;
    assert!(well.contains("desk is up"), "{well}");
    let second = machines.on_laptop(&["link", "run"]);
    assert!(second.code == 1 && second.stderr.contains("another process serves"), "{second:?}");

    // The process follows a new name at once, and the link comes back under it.
    let _ = machines.on_laptop(&["link", "rename", "desk", "tower"]).success();
    machines.wait_up();
    let tried = of(&["link", "test", "tower", "--json"]);
    assert_eq!(tried["broker"], of(&["link", "show", "tower", "--json"])["broker"]);
    let unknown = machines.on_laptop(&["link", "test", "desk"]);
    assert_eq!(unknown.code, 4, "{unknown:?}");

    // It names why a link is down, and brings it back by itself.
    let _ = machines.desk.peerctl(&["daemon", "stop"]).success();
    wait("the reason is told", || {
        let row = of(&["link", "show", "tower", "--json"]);
        row["error"].as_str().is_some_and(|error| error.contains("no broker is running"))
    });
    let down = machines.on_laptop(&["doctor"]);
    assert!(down.code == 7 && down.stdout.contains("-> peerctl link test tower"), "{down:?}");
    let _ = machines.desk.peerctl(&["daemon", "start"]).success();
    machines.wait_up();

    let _ = machines.on_laptop(&["link", "rm", "tower"]).success();
    wait("the process has let go of the link", || machines.served()["links"] == json!({}));
    assert_eq!(of(&["link", "ls", "--json"]), json!([]), "the process must not bring it back");
    let stopped = of(&["link", "stop", "--json"]);
    assert_eq!((&stopped["pid"], &stopped["running"]), (&started["pid"], &json!(false)));
}

#[test]
fn a_broker_that_the_person_stopped_is_not_started_again_by_the_process_of_links() {
    let machines = Machines::linked(home!(), home!());
    let _ = machines.on_laptop(&["link", "start"]).success();
    machines.wait_up();
    let _ = machines.laptop.peerctl(&["daemon", "stop"]).success();
    wait("the process has tried without a broker", || {
        machines.served()["links"]["desk"]["error"]
            .as_str()
            .is_some_and(|error| error.contains("no broker is running"))
    });
    let verified = machines.laptop.peerctl(&["daemon", "verify"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    // The first command that needs the broker brings both back.
    let _ = machines.laptop.peerctl(&["peers"]).success();
    machines.wait_up();
    let purged = machines.on_laptop(&["uninstall", "--purge", "--yes"]);
    assert_eq!(purged.code, 0, "{purged:?}");
    assert!(!machines.laptop.state().exists(), "{purged:?}");
}

#[test]
fn the_system_starts_the_process_of_links_if_the_person_agrees() {
    let machines = Machines::linked(home!(), home!());
    // This machine may have no systemd for the person: what it would be told is written down.
    let told = machines.laptop.root().join("told");
    let systemctl = machines.laptop.root().join("bin/systemctl");
    let script = format!("#!/bin/sh\necho \"$@\" >> {}\n", told.display());
    std::fs::write(&systemctl, script).expect("write a script");
    std::fs::set_permissions(&systemctl, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("make it executable");
    let of = |arguments: &[&str]| {
        let mut command = machines.command(arguments);
        command.env("SSH_AUTH_SOCK", "/the/agent").env_remove("XDG_CONFIG_HOME");
        machines.laptop.run(command, "")
    };
    let shown = of(&["link", "service", "--json"]).success().json();
    assert_eq!((&shown["installed"], &shown["kind"]), (&json!(false), &json!("systemd")));
    let asked = of(&["link", "service", "install"]);
    assert_eq!(asked.code, 2, "nobody can agree: {asked:?}");
    assert!(!told.exists(), "{shown}");

    let _ = of(&["link", "start"]).success();
    let installed = of(&["link", "service", "install", "--yes", "--json"]).success().json();
    assert_eq!(installed["installed"], true, "{installed}");
    let path = std::path::PathBuf::from(installed["path"].as_str().unwrap_or_default());
    assert!(path.starts_with(machines.laptop.home()), "{installed}");
    let unit = std::fs::read_to_string(&path).expect("it is written");
    assert_eq!(installed["text"], json!(unit));
    for line in
        ["Environment=\"SSH_AUTH_SOCK=/the/agent\"", "\" link run", "Environment=\"PEERD_DIR="]
    {
        assert!(unit.contains(line), "{unit}");
    }
    let state = of(&["link", "show", "desk", "--json"]).success().json()["state"].clone();
    assert_eq!(state, "off", "the process of before made way");
    let lines = || std::fs::read_to_string(&told).expect("it was told");
    assert!(lines().ends_with("--user restart peerd-link.service\n"), "{}", lines());

    let _ = of(&["link", "service", "remove"]).success();
    assert!(
        !path.exists() && lines().ends_with("disable --now peerd-link.service\n"),
        "{}",
        lines()
    );
    assert_eq!(of(&["link", "service", "remove", "--json"]).success().json()["changed"], false);
}
