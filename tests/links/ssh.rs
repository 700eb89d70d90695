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
    let none = machines.on_laptop(&["link", "run"]);
    assert!(none.code == 1 && none.stderr.contains("no links are configured"), "{none:?}");
}
