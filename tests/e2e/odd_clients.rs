//! Clients that keep to MCP in their own way, at the real adapter: whatever they certainly mean is
//! done, and whatever carries an id is answered.

use std::io::Write;
use std::process::Stdio;

use peer_tests::Home;
use serde_json::{Value, json};

/// What the adapter writes for this input, line by line, and what it says on standard error.
fn spoken(home: &Home, input: &str) -> (Vec<Value>, String) {
    let mut command = home.command(&["mcp"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut adapter = command.spawn().unwrap();
    adapter.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = adapter.wait_with_output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
        .collect();
    (lines, String::from_utf8(output.stderr).unwrap())
}

fn answer(lines: &[Value], id: impl Into<Value>) -> &Value {
    let id = id.into();
    let answers: Vec<_> = lines.iter().filter(|line| line["id"] == id).collect();
    assert_eq!(answers.len(), 1, "{id}: {lines:?}");
    answers[0]
}

#[test]
fn every_odd_handshake_begins_a_session_that_works() {
    let home = peer_tests::home!();
    for initialize in [
        json!({ "method": "initialize" }),
        json!({ "method": "initialize", "params": null }),
        json!({ "method": "initialize", "params": [] }),
        json!({ "method": "initialize", "params": {} }),
        json!({ "method": "initialize", "params": { "protocolVersion": "1999-01-01", "capabilities": {}, "clientInfo": {} } }),
        json!({ "method": "initialize", "params": { "protocolVersion": 2, "capabilities": [], "clientInfo": { "name": "t" } } }),
        json!({ "method": "initialize", "params": { "capabilities": { "sampling": true, "elicitation": true }, "clientInfo": "t" } }),
        json!({ "method": "initialize", "jsonrpc": "1.0", "params": { "clientInfo": { "name": "t", "version": 1, "icons": 5 } } }),
    ] {
        let mut initialize = initialize;
        initialize["id"] = json!(1);
        let input = format!(
            "{initialize}\n{}\n{}\n",
            json!({ "jsonrpc": "2.0", "method": "notifications/initialized", "params": null }),
            json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": [] }),
        );
        let (lines, complaint) = spoken(&home, &input);
        assert!(
            answer(&lines, 1)["result"]["protocolVersion"].is_string(),
            "{initialize}: {lines:?}"
        );
        assert!(
            answer(&lines, 2)["result"]["tools"].as_array().is_some_and(|tools| !tools.is_empty()),
            "{lines:?}"
        );
        assert_eq!(complaint, "", "{initialize}");
    }
}

#[test]
fn what_carries_an_id_is_answered_under_it() {
    let home = peer_tests::home!();
    let initialize = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" },
    } });
    let list = |id: u64| json!({ "jsonrpc": "2.0", "id": id, "method": "tools/list" });
    let call = r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"list_peers","arguments":{"query":"#;
    let input = [
        initialize.to_string(),
        json!({ "jsonrpc": "2.0", "method": "initialized" }).to_string(),
        json!([list(2), { "jsonrpc": "2.0", "id": 3, "method": "ping" }, {}, 7]).to_string(),
        format!("{call}{}{}}}}},\"id\":4}}", "[".repeat(300), "]".repeat(300)),
        format!("{call}\"{}\"}}}},\"id\":5}}", "x".repeat(17 << 20)),
        r#"{"jsonrpc":"2.0","id":6,"method":"ping","params":{"x":Infinity}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":"seven","#.to_owned(),
        // The last line has no end.
        list(8).to_string(),
    ];
    let (lines, complaint) = spoken(&home, &input.join("\n"));
    for id in [2, 8] {
        assert!(answer(&lines, id)["result"]["tools"].is_array(), "{lines:?}");
    }
    assert!(answer(&lines, 3)["result"].is_object());
    for id in [json!(4), json!(6), json!("seven")] {
        assert_eq!(answer(&lines, id)["error"]["code"], -32700);
    }
    assert!(
        answer(&lines, 5)["error"]["message"]
            .as_str()
            .is_some_and(|why| why.contains("was skipped"))
    );
    assert_eq!(
        lines.iter().filter(|line| line.get("id") == Some(&Value::Null)).count(),
        2,
        "{lines:?}"
    );
    assert_eq!(complaint, "", "most of it could be read");
}

#[test]
fn a_client_that_speaks_something_else_is_told_on_standard_error() {
    let home = peer_tests::home!();
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize" }).to_string();
    let framed = format!("Content-Length: {}\r\n\r\n{message}", message.len());
    let (_, complaint) = spoken(&home, &framed.repeat(2));
    assert!(complaint.contains("began with a Content-Length header"), "{complaint}");
    assert_eq!(complaint.lines().count(), 1);
    let (lines, complaint) = spoken(&home, "hello\n{\n  \"id\": 1,\n  \"method\": \"ping\"\n}\n");
    assert!(complaint.contains("one JSON-RPC 2.0 object per line"), "{complaint}");
    assert_eq!(lines.len(), 1, "the object that fills five lines has one answer: {lines:?}");
}

#[test]
fn arguments_may_say_in_texts_what_they_are() {
    let home = peer_tests::home!();
    let (alice, bob) = (home.claude("alice"), home.codex("bob"));
    bob.register();
    for to in [json!("bob"), json!(["bob"]), json!("[\"bob\"]"), json!(" [ \"bob\" ] ")] {
        let sent = json!({ "to": to, "message": format!("to {to}"), "sources": ["a.rs", "b.rs"], "ttl_s": "600" });
        let _ = alice.call("send_message", sent).success();
    }
    let read = bob
        .call(
            "check_messages",
            json!({ "limit": "5", "wait_s": "1", "peek": "false", "offset": "" }),
        )
        .success();
    let ids = read.message_ids();
    assert_eq!(ids.len(), 4, "{read:?}");
    let _ = bob.call("ack_messages", json!({ "message_ids": ids })).success();
    let whole = bob.request(
        "tools/call",
        json!({ "name": "check_messages", "arguments": "{\"peek\":\"True\"}" }),
    );
    assert_ne!(whole["result"]["isError"], true, "{whole}");
    let refused = bob.call("check_messages", json!({ "wait_s": "soon" }));
    assert!(
        refused.is_error
            && refused.text.contains("wait_s is the text \"soon\", but must be a whole number"),
        "{refused:?}"
    );
}
