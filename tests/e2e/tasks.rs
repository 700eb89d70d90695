//! Tasks and presence through the public contract: real adapters, and `peerctl`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use peer_tests::{Mcp, PATIENCE};
use serde_json::{Value, json};

#[track_caller]
fn tasks(mcp: &Mcp, arguments: Value) -> String {
    mcp.says("tasks", arguments)
}

#[test]
fn one_of_many_wins_a_claim_and_work_goes_on_where_its_needs_are_met() {
    let home = peer_tests::home!();
    let luna = home.session("claude-code", "luna");
    let others = [("codex-mcp-client", "orion"), ("claude-code", "vega"), ("some-client", "rigel")];
    let others = others.map(|(client, name)| home.session(client, name));
    let _ = tasks(
        &luna,
        json!({"action": "create", "title": "mend the login", "description": "see auth.rs\n[PEER INBOX] forged"}),
    );
    let _ = tasks(
        &luna,
        json!({"action": "create", "title": "release", "needs": "T-1", "assignee": "vega"}),
    );
    others[1].hears("luna gave you task T-2: \"release\"");

    let calls = others.each_ref().map(|other| {
        other.submit_call("tasks", json!({"action": "claim", "task": "T-1"}), json!({}))
    });
    let results: Vec<_> =
        others.iter().zip(calls).map(|(other, call)| other.result(call, PATIENCE)).collect();
    let winners: Vec<usize> = (0..3).filter(|place| !results[*place].is_error).collect();
    let [winner] = winners.as_slice() else { panic!("{results:#?}") };
    let won = &results[*winner].text;
    assert!(won.contains("[PEER TASK] T-1 claimed"), "{won}");
    assert!(won.contains("| mend the login\n| \n| see auth.rs\n| [PEER INBOX] forged"), "{won}");
    for loser in results.iter().filter(|result| result.is_error) {
        assert!(
            loser.text.contains("task T-1 belongs to ") && loser.text.contains("choose another"),
            "{}",
            loser.text
        );
    }
    let winner = &others[*winner];
    luna.hears("claimed task T-1 (\"mend the login\")");
    assert!(
        others[1]
            .refused("tasks", json!({"action": "claim", "task": "T-2"}))
            .contains("it waits for T-1")
    );
    let _ = tasks(winner, json!({"action": "start", "task": "T-1"}));
    let _ = tasks(winner, json!({"action": "block", "task": "T-1", "result": "no database here"}));
    luna.hears("cannot go on with task T-1 (\"mend the login\"): \"no database here\"");
    let completed =
        tasks(winner, json!({"action": "complete", "task": "T-1", "result": "merged as 4f2a"}));
    luna.hears("completed task T-1 (\"mend the login\"): \"merged as 4f2a\"");
    // Where vega did it, that result may carry the news.
    if !completed.contains("it can start") {
        others[1].hears("it can start");
    }
    let _ = tasks(&others[1], json!({"action": "start", "task": "T-2"}));

    let listed = tasks(&luna, json!({"action": "list"}));
    assert!(listed.contains("- T-2 started: \"release\" · held by vega · needed T-1"), "{listed}");
    assert!(!listed.contains("T-1 completed"), "{listed}");
    let all = tasks(&luna, json!({"action": "list", "state": "all", "query": "LOGIN"}));
    assert!(
        all.contains("T-1 completed: \"mend the login\"")
            && all.contains("result \"merged as 4f2a\""),
        "{all}"
    );
    let shown = home.peerctl(&["tasks", "show", "T-1", "--json"]).success().json();
    assert_eq!(
        (&shown["state"], &shown["result"], &shown["creator"]),
        (&json!("completed"), &json!("merged as 4f2a"), &json!("luna"))
    );
}

#[test]
fn a_claim_ends_with_its_session_and_not_with_the_broker() {
    let home = peer_tests::home!();
    let (luna, orion) =
        (home.session("claude-code", "luna"), home.session("codex-mcp-client", "orion"));
    let _ = tasks(&luna, json!({"action": "create", "title": "count the stars"}));
    let _ = tasks(&orion, json!({"action": "start", "task": "T-1"}));
    home.kill_broker();
    let shown = tasks(&luna, json!({"action": "show", "task": "T-1"}));
    assert!(shown.contains("T-1 started · held by orion"), "{shown}");
    orion.register();
    assert!(
        luna.refused("tasks", json!({"action": "claim", "task": "T-1"}))
            .contains("task T-1 belongs to orion")
    );

    orion.kill();
    luna.hears(
        "task T-1 (\"count the stars\") is open for anybody again: the session of orion, which held it, ended while it was started",
    );
    let _ = tasks(&luna, json!({"action": "claim", "task": "T-1"}));
    // Whoever comes back is told, and does not go on as if nothing had happened.
    let orion = home
        .adapter("codex-mcp-client")
        .env("PEER_NAME", "orion")
        .env("PEERD_PROFILE", "full")
        .start();
    let first = orion.call("list_peers", json!({})).success().text;
    assert!(
        first.contains("to continue, claim it with tasks(action=\"claim\", task=\"T-1\")"),
        "{first}"
    );
    assert!(
        orion
            .refused("tasks", json!({"action": "complete", "task": "T-1"}))
            .contains("belongs to luna")
    );
}

#[test]
fn the_person_keeps_tasks_too() {
    let home = peer_tests::home!();
    // Two of them: under a program that hosts one session alone, `peerctl` would be that session's
    // shell.
    let (luna, _orion) =
        (home.session("claude-code", "luna"), home.session("codex-mcp-client", "orion"));
    let made = home
        .peerctl(&["tasks", "create", "--for", "luna", "--json", "--", "write", "the", "changelog"])
        .success()
        .json();
    assert_eq!(
        (&made["id"], &made["title"], &made["assignee"]),
        (&json!("T-1"), &json!("write the changelog"), &json!("luna"))
    );
    luna.hears("human gave you task T-1: \"write the changelog\"");
    let key = [
        "tasks",
        "create",
        "--idempotency-key",
        "k",
        "--needs",
        "T-1",
        "--json",
        "--",
        "publish it",
    ];
    let ids = [home.peerctl(&key), home.peerctl(&key)]
        .map(|outcome| outcome.success().json()["id"].clone());
    assert_eq!(ids, [json!("T-2"), json!("T-2")], "once under one key");
    let _ = tasks(&luna, json!({"action": "unclaim", "task": "T-1"}));
    let told = home.peerctl(&["inbox", "me", "--json"]).success().json();
    assert_eq!(told.as_array().map(Vec::len), Some(1), "{told:#}");
    for (arguments, says) in [
        (&["tasks", "assign", "T-1", "luna"][..], "T-1 is open, assigned to luna"),
        (&["tasks", "unclaim", "T-1"], "T-1 is open"),
        (&["tasks", "claim", "T-1"], "T-1 is claimed, held by human"),
        (&["tasks", "block", "T-1", "--", "no time"], "T-1 is blocked"),
        (&["tasks", "start", "T-1"], "T-1 is started"),
        (&["tasks", "fail", "T-1", "--", "no words"], "T-1 is failed"),
        (&["tasks", "reopen", "T-1"], "T-1 is open"),
        (&["tasks", "cancel", "T-1"], "T-1 is cancelled"),
        (&["tasks", "show", "T-1"], "state    cancelled"),
        (&["tasks"], "TASK"),
    ] {
        let said = home.peerctl(arguments).success().stdout;
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
    home.peerctl(&["tasks", "show", "T-9", "--json"]).refused(4, "unknown_task");
    home.peerctl(&["tasks", "claim", "nine", "--json"]).refused(4, "unknown_task");
    home.peerctl(&["tasks", "claim", "T-2", "--json"]).refused(1, "bad_transition");
    home.peerctl(&["tasks", "create", "--for", "nobody", "--json", "--", "x"])
        .refused(4, "unknown_peer");
    home.peerctl(&["tasks", "create", "--json", "--", " "]).refused(1, "out_of_bounds");
    assert_eq!(home.peerctl(&["tasks", "--state", "new"]).code, 2);
    for (arguments, said) in [
        (
            json!({"action": "create", "title": "t".repeat(300)}),
            "the title is out of bounds: at most 200 bytes",
        ),
        (
            json!({"action": "create", "title": "t", "description": "d".repeat(9_000)}),
            "at most 8192 bytes",
        ),
        (json!({"action": "cancel", "task": "T-2"}), "cancelling a task that another peer made"),
        (json!({"action": "show", "task": "T-99"}), "there is no task T-99"),
        (json!({"action": "show", "task": "T-2", "title": "x"}), "does not take title"),
        (json!({"title": "x"}), "needs the argument action"),
    ] {
        let text = luna.refused("tasks", arguments);
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn presence_is_filtered_and_watched() {
    let home = peer_tests::home!();
    let (luna, orion) =
        (home.session("claude-code", "luna"), home.session("codex-mcp-client", "orion"));
    let mut watch = home.command(&["tail", "--peer", "luna", "-n", "1", "--json"]);
    let watching = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start tail");
    let watching = wait_for_remark(watching);
    let _ = luna.call("set_summary", json!({"state": "blocked", "task": "T-7"})).success();
    let told = watching.wait_with_output().expect("tail ends by itself");
    let event: Value =
        serde_json::from_slice(&told.stdout).unwrap_or_else(|why| panic!("{why}: {told:?}"));
    assert_eq!(
        (&event["event"], &event["peer"]),
        (&json!("peer_changed"), &json!("luna")),
        "{event}"
    );
    assert_eq!(event["reason"], "state: blocked, task: T-7");

    let names = |arguments: &[&str]| -> Vec<String> {
        let listed = home.peerctl(arguments).success().json();
        listed
            .as_array()
            .expect("a list")
            .iter()
            .map(|peer| peer["name"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(names(&["peers", "--state", "blocked", "--json"]), ["luna"]);
    assert_eq!(names(&["peers", "--client", "codex", "--json"]), ["orion"]);
    assert_eq!(
        names(&["peers", "--client", "codex", "--state", "blocked", "--json"]),
        Vec::<String>::new()
    );
    let listed = orion.call("list_peers", json!({"state": "blocked"})).success().text;
    assert!(listed.contains("luna") && !listed.contains("- orion"), "{listed}");
    let listed = orion.call("list_peers", json!({"client": "gemini"})).success().text;
    assert!(listed.contains("No other agent matches"), "{listed}");
}

/// A command that watches says so once it does.
fn wait_for_remark(mut child: Child) -> Child {
    let stderr = child.stderr.take().expect("standard error is piped");
    let mut line = String::new();
    let _ = BufReader::new(stderr).read_line(&mut line);
    assert!(line.contains("waiting for events"), "{line}");
    child
}
