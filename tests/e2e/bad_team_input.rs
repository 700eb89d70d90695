//! What may be wrong in a call of a tool or a command by which sessions share things: each mistake
//! is named, with the way out, and nothing is changed by it.

use std::collections::BTreeSet;

use peer_tests::Home;
use serde_json::{Value, json};

/// Calls in order; together they use every argument of every tool, and each is wrong only by what a
/// test makes of it.
fn calls() -> Vec<(&'static str, Value)> {
    let message = "m-0000000000000001";
    vec![
        (
            "list_peers",
            json!({"scope": "machine", "query": "x", "state": "idle", "client": "codex"}),
        ),
        (
            "send_message",
            json!({
                "to": "human", "message": "x", "intent": "inform", "reply_to": message, "thread": "t", "ttl_s": 60,
                "wait_s": 0, "sources": "a", "idempotency_key": "k"
            }),
        ),
        (
            "check_messages",
            json!({"from": "human", "thread": "t", "kind": "all", "wait_s": 0, "limit": 1, "peek": true}),
        ),
        ("check_messages", json!({"message_id": message, "offset": 0})),
        ("ack_messages", json!({"message_ids": message})),
        ("set_summary", json!({"summary": "s", "state": "idle", "task": "t"})),
        ("rename_peer", json!({"new_name": "vega"})),
        ("channels", json!({"action": "create", "name": "#x", "topic": "t", "private": true})),
        ("channels", json!({"action": "invite", "name": "#x", "peer": "human"})),
        ("channels", json!({"action": "history", "name": "#x", "limit": 1})),
        ("ask_peer", json!({"question": "q", "to": "human", "context_hint": "h", "wait_s": 0})),
        ("answer_question", json!({"question_id": message, "answer": "a", "sources": "s"})),
        (
            "tasks",
            json!({"action": "create", "title": "t", "description": "d", "needs": "T-1", "assignee": "human"}),
        ),
        ("tasks", json!({"action": "fail", "task": "T-1", "result": "r"})),
        ("tasks", json!({"action": "list", "state": "open", "query": "x"})),
        (
            "memory",
            json!({"action": "set", "key": "k", "value": "v", "tags": "a", "ttl_s": 60, "if_version": 1}),
        ),
        ("memory", json!({"action": "get", "key": "k", "offset": 0})),
        ("memory", json!({"action": "list", "prefix": "p", "tag": "t"})),
        ("memory", json!({"action": "search", "query": "q"})),
        (
            "search",
            json!({
                "query": "q", "kind": "note", "from": "human", "channel": "#x", "thread": "t", "newest": true, "limit": 1
            }),
        ),
    ]
}

/// That nobody said, asked, planned or noted anything.
#[track_caller]
fn nothing_happened(home: &Home) {
    for command in [
        &["history"][..],
        &["questions"],
        &["channels"],
        &["tasks", "--all"],
        &["memory"],
        &["search", "x"],
        &["inbox", "me"],
    ] {
        let printed = home.peerctl(&[command, &["--json"]].concat()).success().json();
        assert_eq!(printed, json!([]), "{command:?}");
    }
}

#[test]
fn every_argument_of_every_tool_is_held_to_its_type() {
    let home = peer_tests::home!();
    let luna = home.session("claude-code", "luna");
    let listed = luna.request("tools/list", json!({}));
    let mut left = BTreeSet::new();
    for tool in listed["result"]["tools"].as_array().expect("tools is a list") {
        for name in
            tool["inputSchema"]["properties"].as_object().expect("properties is an object").keys()
        {
            left.insert(format!("{} {name}", tool["name"].as_str().expect("a name")));
        }
    }
    for (tool, whole) in calls() {
        let schemas = listed["result"]["tools"].as_array().expect("a list").iter();
        let schema =
            schemas.clone().find(|known| known["name"] == tool).expect("the tool is listed");
        for (name, value) in whole.as_object().expect("arguments are an object") {
            left.remove(&format!("{tool} {name}"));
            let mut wrong = vec![json!([["x"]]), json!({"x": 1})];
            match value {
                Value::String(_) => wrong.extend([json!(7), json!(true)]),
                Value::Number(_) => {
                    wrong.extend([json!("seven"), json!("-1"), json!(-1), json!(1.5)])
                }
                _ => wrong.extend([json!("yes"), json!(1)]),
            }
            let of = &schema["inputSchema"]["properties"][name];
            if of.get("enum").is_some() {
                wrong.push(json!("frobnicate"));
            }
            for wrong in wrong {
                let mut arguments = whole.clone();
                arguments[name] = wrong.clone();
                let result = luna.call(tool, arguments);
                let named = format!("{tool}: {name} is ");
                assert!(result.is_error, "{tool} takes {wrong} for {name}: {}", result.text);
                assert!(
                    result.text.starts_with(&named) && result.text.contains(", but must be "),
                    "{tool} {name} {wrong}: {}",
                    result.text
                );
            }
        }
        let mut arguments = whole.clone();
        arguments["colour"] = json!("red");
        let result = luna.call(tool, arguments);
        assert!(
            result.is_error
                && result.text.contains(&format!("{tool} has no argument \"colour\"; it takes ")),
            "{}",
            result.text
        );
    }
    assert!(left.is_empty(), "no call of this test has {left:?}");
    nothing_happened(&home);
}

#[test]
fn what_a_tool_needs_is_named_and_so_is_what_an_action_has_no_use_for() {
    let home = peer_tests::home!();
    let luna = home.session("claude-code", "luna");
    for (tool, arguments, said) in [
        ("channels", json!({}), "channels needs the argument action"),
        ("channels", json!({"action": "topic", "name": "#x"}), "channels needs the argument topic"),
        (
            "channels",
            json!({"action": "leave", "name": "#x", "limit": 2}),
            "this action does not take limit; it takes name",
        ),
        ("channels", json!({"action": "leave", "name": " "}), "channels: name is empty"),
        ("ask_peer", json!({"to": "human"}), "ask_peer needs the argument question"),
        ("ask_peer", json!({"question": "\u{200b}", "to": "human"}), "text"),
        (
            "answer_question",
            json!({"question_id": "m-0000000000000001"}),
            "answer_question needs the argument answer",
        ),
        (
            "answer_question",
            json!({"question_id": "T-1", "answer": "a"}),
            "question_id is \"T-1\", but must be an id such as m-",
        ),
        ("tasks", json!({}), "tasks needs the argument action"),
        ("tasks", json!({"action": "assign", "task": "T-1"}), "tasks needs the argument assignee"),
        ("tasks", json!({"action": "block", "task": "T-1"}), "tasks needs the argument result"),
        (
            "tasks",
            json!({"action": "claim", "task": "T-1", "state": "open"}),
            "this action does not take state; it takes task",
        ),
        ("tasks", json!({"action": "claim", "task": "T-0.5"}), "but must be the id of a task"),
        ("memory", json!({"action": "set", "value": "v"}), "memory needs the argument key"),
        ("memory", json!({"action": "append", "key": "k"}), "memory needs the argument value"),
        (
            "memory",
            json!({"action": "get", "key": "k", "tag": "t"}),
            "this action does not take tag; it takes key, offset",
        ),
        ("search", json!({"kind": "note"}), "search needs the argument query"),
        ("search", json!({"query": null}), "search needs the argument query"),
        ("frobnicate", json!({}), "frobnicate"),
    ] {
        let result = luna.call(tool, arguments.clone());
        assert!(
            result.is_error && result.text.contains(said),
            "{tool} {arguments}: {}",
            result.text
        );
    }
    nothing_happened(&home);
}

#[test]
fn names_sizes_and_counts_have_bounds_that_are_told() {
    let home = peer_tests::home!();
    let luna = home.session("claude-code", "luna");
    let many = |count: usize, each: &str| {
        (0..count).map(|number| format!("{each}{number}")).collect::<Vec<_>>().join(",")
    };
    let note = |key: &str, value: String, tags: String| json!({"action": "set", "key": key, "value": value, "tags": tags});
    let create = |title: String, description: String| json!({"action": "create", "title": title, "description": description});
    let x = |count: usize| "x".repeat(count);
    for (tool, arguments, said) in [
        ("channels", json!({"action": "create", "name": format!("#{}", x(33))}), "1 to 32 letters"),
        ("channels", json!({"action": "create", "name": "#Größe"}), "1 to 32 letters"),
        ("channels", json!({"action": "create", "name": "#"}), "1 to 32 letters"),
        ("channels", json!({"action": "create", "name": "#x", "topic": x(401)}), "the topic"),
        ("ask_peer", json!({"question": x(61_441), "to": "human"}), "61440"),
        (
            "ask_peer",
            json!({"question": x(61_400), "context_hint": x(100), "to": "human"}),
            "61440",
        ),
        ("ask_peer", json!({"question": "q", "to": many(101, "n")}), "the list of recipients"),
        ("ask_peer", json!({"question": "q", "to": "luna"}), "you asked only yourself"),
        ("tasks", create(x(201), String::new()), "the title"),
        ("tasks", create("\u{200b}\u{1b}".into(), String::new()), "the title"),
        ("tasks", create("t".into(), x(8_193)), "the description"),
        (
            "tasks",
            json!({"action": "create", "title": "t", "needs": many(33, "T-1")}),
            "the list of needs",
        ),
        ("tasks", json!({"action": "create", "title": "t", "needs": "T-9"}), "no task T-9"),
        (
            "tasks",
            json!({"action": "create", "title": "t", "assignee": "nobody-here"}),
            "no peer is called",
        ),
        (
            "tasks",
            json!({"action": "claim", "task": "T-18446744073709551615"}),
            "no task T-18446744073709551615",
        ),
        ("tasks", json!({"action": "list", "query": x(201)}), "the search text"),
        ("memory", note(&x(129), "v".into(), String::new()), "the key"),
        ("memory", note("a b", "v".into(), String::new()), "the key"),
        ("memory", note("\u{202e}k", "v".into(), String::new()), "the key"),
        ("memory", note("k", x(61_441), String::new()), "the note"),
        ("memory", note("k", "\u{200b}".into(), String::new()), "the note"),
        ("memory", note("k", "v".into(), many(17, "t")), "the list of tags"),
        ("memory", note("k", "v".into(), x(33)), "the list of tags"),
        (
            "memory",
            json!({"action": "set", "key": "k", "value": "v", "ttl_s": 0}),
            "the time to live",
        ),
        (
            "memory",
            json!({"action": "set", "key": "k", "value": "v", "ttl_s": 2_592_001}),
            "the time to live",
        ),
        (
            "memory",
            json!({"action": "set", "key": "k", "value": "v", "if_version": 3}),
            "if_version=0",
        ),
        ("memory", json!({"action": "get", "key": "nowhere"}), "no note"),
        ("memory", json!({"action": "delete", "key": "nowhere"}), "no note"),
        ("search", json!({"query": x(1_001)}), "at most 1000 bytes"),
    ] {
        let result = luna.call(tool, arguments.clone());
        let told: String = arguments.to_string().chars().take(120).collect();
        assert!(result.is_error && result.text.contains(said), "{tool} {told}: {}", result.text);
    }
    nothing_happened(&home);

    // What is just within its bounds is taken.
    let _ = luna
        .call(
            "channels",
            json!({"action": "create", "name": format!("#{}", x(32)), "topic": x(400)}),
        )
        .success();
    let _ = luna.call("tasks", create(x(200), x(8_192))).success();
    let _ = luna.call("memory", note(&x(128), x(61_440), many(16, "t"))).success();
    let _ = luna.call("search", json!({"query": x(1_000)})).success();
    let full = luna.call("memory", json!({"action": "append", "key": x(128), "value": "y"}));
    assert!(
        full.is_error && full.text.contains("at most 61440 bytes; this would be 61442"),
        "{}",
        full.text
    );
}

#[test]
fn a_command_that_makes_no_sense_says_why_and_exits_so() {
    let home = peer_tests::home!();
    let _luna = home.session("claude-code", "luna");
    let _orion = home.session("claude-code", "orion");
    let (long, message) = ("x".repeat(8_193), "m-0000000000000001");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["channels", "frobnicate"], 2, "usage"),
        (&["channels", "create"], 2, "usage"),
        (&["channels", "create", "ops"], 1, "bad_name"),
        (&["channels", "join", "#nowhere"], 4, "unknown_channel"),
        (&["channels", "leave", "#nowhere"], 4, "unknown_channel"),
        (&["channels", "invite", "#nowhere", "luna"], 4, "unknown_channel"),
        (&["channels", "topic", "#nowhere", "t"], 4, "unknown_channel"),
        (&["channels", "history", "#nowhere", "-n", "0"], 2, "usage"),
        (&["send", "#nowhere", "--", "x"], 4, "unknown_channel"),
        (&["send", "@nobody", "--", "x"], 4, "unknown_channel"),
        (&["questions", "frobnicate"], 2, "usage"),
        (&["questions", "ask", "--", "x"], 2, "usage"),
        (&["questions", "ask", "--to", "nobody-here", "--", "x"], 4, "unknown_peer"),
        (&["questions", "ask", "--to", "luna", "--ttl", "soon", "--", "x"], 2, "usage"),
        (&["questions", "answer", message, "--", "x"], 4, "unknown_message"),
        (&["questions", "answer", "T-1", "--", "x"], 4, "unknown_message"),
        (&["questions", "--peer", "nobody-here"], 4, "unknown_peer"),
        (&["tasks", "frobnicate"], 2, "usage"),
        (&["tasks", "create"], 2, "usage"),
        (&["tasks", "create", "--for", "nobody-here", "--", "t"], 4, "unknown_peer"),
        (&["tasks", "create", "--needs", "one", "--", "t"], 4, "unknown_task"),
        (&["tasks", "create", "--needs", "T-9", "--", "t"], 4, "unknown_task"),
        (&["tasks", "create", "--description", &long, "--", "t"], 1, "out_of_bounds"),
        (&["tasks", "show", "T-9"], 4, "unknown_task"),
        (&["tasks", "claim", "nine"], 4, "unknown_task"),
        (&["tasks", "block", "T-9"], 2, "usage"),
        (&["tasks", "--state", "new"], 2, "usage"),
        (&["tasks", "--state", "open", "--all"], 2, "usage"),
        (&["tasks", "--assignee", "nobody-here"], 4, "unknown_peer"),
        (&["memory", "frobnicate"], 2, "usage"),
        (&["memory", "get"], 2, "usage"),
        (&["memory", "get", "nowhere"], 4, "unknown_note"),
        (&["memory", "get", "a b"], 1, "out_of_bounds"),
        (&["memory", "set", "k"], 2, "usage"),
        (&["memory", "set", "k", "--ttl", "0s", "--", "v"], 1, "out_of_bounds"),
        (&["memory", "set", "k", "--if-version", "-1", "--", "v"], 2, "usage"),
        (&["memory", "set", "k", "--if-version", "4", "--", "v"], 1, "version_conflict"),
        (&["memory", "set", "k", "--tag", "a b", "--", "v"], 1, "out_of_bounds"),
        (&["memory", "delete", "nowhere"], 4, "unknown_note"),
        (&["memory", "search"], 2, "usage"),
        (&["memory", "import", "nowhere.jsonl"], 1, "file"),
        (&["search", "x", "--kind", "memo"], 2, "usage"),
        (&["search", "x", "-n", "0"], 2, "usage"),
        (&["purge", "now"], 2, "usage"),
        (&["pause"], 2, "usage"),
        (&["pause", "nobody-here"], 4, "unknown_peer"),
        (&["resume", "nobody-here"], 4, "unknown_peer"),
        (&["history", "--after", "nine"], 4, "unknown_message"),
        (&["history", "--since", "yesterday"], 2, "usage"),
    ];
    let mut wrong = Vec::new();
    for (command, code, name) in cases {
        // What stands behind -- is text, so the switch goes first.
        let outcome = home.peerctl(&[&["--json"], *command].concat());
        let told: Value = serde_json::from_str(&outcome.stdout).unwrap_or_default();
        if (outcome.code, told["error"]["code"].as_str()) != (*code, Some(*name))
            || outcome.stderr.is_empty()
        {
            wrong.push(format!("{command:?}: not {code} {name}, but {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    nothing_happened(&home);
}
