//! What the tools cost a model before the first call: the bytes of `tools/list`, in each profile.

use peer_tests::Home;
use serde_json::{Value, json};

/// What is in every profile.
const CORE: [&str; 6] =
    ["list_peers", "send_message", "check_messages", "ack_messages", "set_summary", "rename_peer"];

/// What the full profile adds.
const FULL: [&str; 6] = ["channels", "ask_peer", "answer_question", "tasks", "memory", "search"];

/// The tools of a profile, as the client gets them.
#[track_caller]
fn listed(home: &Home, profile: &str) -> Vec<Value> {
    let adapter =
        home.adapter("claude-code").env("PEER_NAME", profile).env("PEERD_PROFILE", profile).start();
    let reply = adapter.request("tools/list", json!({}));
    reply["result"]["tools"].as_array().expect("tools is a list").clone()
}

fn name(tool: &Value) -> &str {
    tool["name"].as_str().expect("a tool has a name")
}

/// `cargo test -p peer-tests --test schemas -- --nocapture` shows the table.
#[test]
#[expect(clippy::print_stdout, reason = "the table is what whoever changes a schema wants to see")]
fn the_tools_of_both_profiles_are_short() {
    let home = peer_tests::home!();
    let (core, full) = (listed(&home, "core"), listed(&home, "full"));
    let bytes = |tools: &[Value]| Value::from(tools.to_vec()).to_string().len();
    println!("{:<16} {:>6}", "tool", "bytes");
    for tool in &full {
        println!("{:<16} {:>6}", name(tool), tool.to_string().len());
    }
    println!("{:<16} {:>6}\n{:<16} {:>6}", "core, all", bytes(&core), "full, all", bytes(&full));

    assert_eq!(core.iter().map(name).collect::<Vec<_>>(), CORE);
    let mut of_full: Vec<&str> = full.iter().map(name).collect();
    let mut expected: Vec<&str> = CORE.into_iter().chain(FULL).collect();
    of_full.sort_unstable();
    expected.sort_unstable();
    assert_eq!(of_full, expected);
    assert!(bytes(&core) < 5_000, "{} bytes", bytes(&core));
    assert!(bytes(&full) < 9_000, "{} bytes", bytes(&full));
}

#[test]
fn every_schema_is_flat_and_closed() {
    let home = peer_tests::home!();
    for tool in listed(&home, "full") {
        let schema = &tool["inputSchema"];
        assert_eq!(
            (&schema["type"], &schema["additionalProperties"]),
            (&json!("object"), &json!(false)),
            "{tool}"
        );
        for (argument, of) in schema["properties"].as_object().expect("properties is an object") {
            let flat =
                ["string", "integer", "boolean"].contains(&of["type"].as_str().unwrap_or_default());
            assert!(flat, "{}: {argument} is {of}", name(&tool));
        }
        for needed in schema["required"].as_array().map(Vec::as_slice).unwrap_or_default() {
            assert!(
                schema["properties"].get(needed.as_str().unwrap_or_default()).is_some(),
                "{tool}"
            );
        }
    }
}
