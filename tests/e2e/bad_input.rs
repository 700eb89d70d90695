//! What a client may write that is not as it should be: it gets an answer that says what to do, and
//! nobody else notices.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peer_tests::PATIENCE;
use serde_json::{Value, json};

const TEXT_WITH_HALF_A_PAIR: &str = r#"{"jsonrpc":"2.0","id":9001,"method":"tools/call","params":{"name":"send_message","arguments":{"to":"orion","message":"cut \ud83d"}}}"#;

#[test]
fn a_text_that_was_cut_within_a_character_arrives() {
    let home = peer_tests::home!();
    let (luna, orion) = (home.claude("luna"), home.codex("orion"));
    orion.register();
    luna.write_line(TEXT_WITH_HALF_A_PAIR);
    let _ = luna.result(9001, PATIENCE).success();
    assert!(orion.call("check_messages", json!({})).success().text.contains("| cut \u{fffd}"));
}

#[test]
fn a_call_of_another_form_fails_with_the_form_that_it_should_have() {
    let home = peer_tests::home!();
    let luna = home.claude("luna");
    for params in [
        json!({"name": 5}),
        json!({"name": "list_peers", "arguments": [1]}),
        json!({"name": "list_peers", "arguments": "all"}),
    ] {
        let reply = luna.request("tools/call", params);
        assert_eq!(reply["result"]["isError"], true, "{reply}");
        let text = reply["result"]["content"][0]["text"].as_str().expect("a text");
        assert!(text.contains("arguments (one object)"), "{text}");
        assert!(
            reply["result"]["_meta"]["chars"].is_u64()
                && reply["result"].get("resultType").is_none(),
            "{reply}"
        );
    }
    luna.register();
}

#[test]
fn lines_that_are_no_messages_end_nothing() {
    let home = peer_tests::home!();
    let luna = home.adapter("claude-code").spawn();
    for line in [
        "garbage",
        "[]",
        "",
        "{",
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
    ] {
        luna.write_line(line);
    }
    let _: Value = luna.initialize();
    luna.write_line(&"[".repeat(100_000));
    luna.write_line(r#"{"jsonrpc":"1.0","id":9002,"method":"ping"}"#);
    let (_, refused) = luna.reply(9002, PATIENCE).expect("an answer under its id");
    assert!(
        refused["error"]["message"].as_str().is_some_and(|why| why.contains("JSON-RPC 2.0")),
        "{refused}"
    );
    luna.register();
}

#[test]
fn a_suspended_broker_keeps_no_call_waiting_and_loses_nothing() {
    let home = peer_tests::home!();
    let (luna, orion) = (home.claude("luna"), home.codex("orion"));
    orion.register();
    luna.register();
    let broker = Pid::from_raw(home.broker_pid().expect("a broker").cast_signed());
    kill(broker, Signal::SIGSTOP).expect("suspend the broker");
    let id = luna.submit_call(
        "send_message",
        json!({"to": "orion", "message": "are you there?"}),
        json!({}),
    );
    let failed = luna.result(id, PATIENCE);
    // Whoever comes now finds it suspended, too, and starts no other.
    let status = home.peerctl(&["status", "--json"]);
    let nova = home.claude("nova").call("list_peers", json!({}));
    kill(broker, Signal::SIGCONT).expect("let the broker go on");
    let mends = format!("kill -CONT {broker}");
    assert!(
        failed.is_error && failed.text.contains("may then still be carried out"),
        "{}",
        failed.text
    );
    let asks_for = format!("resume its process, {broker}");
    assert!(failed.text.contains("suspended"), "{}", failed.text);
    assert!(failed.text.contains(&asks_for) && !failed.text.contains('`'), "{}", failed.text);
    assert_eq!(
        (status.code, &status.json()["error"]["code"]),
        (3, &json!("suspended")),
        "{status:?}"
    );
    assert!(status.stderr.contains(&mends), "{status:?}");
    assert!(nova.is_error && nova.text.contains(&asks_for), "{}", nova.text);
    assert_eq!(home.broker_pid().map(u32::cast_signed), Some(broker.as_raw()));
    let shown = orion.call("check_messages", json!({"wait_s": 10})).success().text;
    assert_eq!(shown.matches("| are you there?").count(), 1, "{shown}");
}
