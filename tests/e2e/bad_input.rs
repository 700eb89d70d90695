//! What a client may write that is not as it should be: it gets an answer that says what to do, and nobody else notices.

use peer_tests::PATIENCE;
use serde_json::{Value, json};

const TEXT_WITH_HALF_A_PAIR: &str = r#"{"jsonrpc":"2.0","id":9001,"method":"tools/call","params":{"name":"send_message","arguments":{"to":"orion","message":"cut \ud83d"}}}"#;

#[test]
fn a_text_that_was_cut_within_a_character_arrives() {
    let home = peer_tests::home!();
    let (luna, orion) = (home.claude("luna"), home.codex("orion"));
    let _ = orion.call("list_peers", json!({})).success();
    luna.write_line(TEXT_WITH_HALF_A_PAIR);
    let _ = luna.result(9001, PATIENCE).success();
    assert!(orion.call("check_messages", json!({})).success().text.contains("| cut \u{fffd}"));
}

#[test]
fn a_call_of_another_form_fails_with_the_form_that_it_should_have() {
    let home = peer_tests::home!();
    let luna = home.claude("luna");
    for params in
        [json!({"name": 5}), json!({"name": "list_peers", "arguments": [1]}), json!({"name": "list_peers", "arguments": "{}"})]
    {
        let reply = luna.request("tools/call", params);
        assert_eq!(reply["result"]["isError"], true, "{reply}");
        let text = reply["result"]["content"][0]["text"].as_str().expect("a text");
        assert!(text.contains("arguments, which are one object"), "{text}");
        assert!(reply["result"]["_meta"]["chars"].is_u64(), "{reply}");
    }
    let _ = luna.call("list_peers", json!({})).success();
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
    assert!(refused["error"]["message"].as_str().is_some_and(|why| why.contains("JSON-RPC 2.0")), "{refused}");
    let _ = luna.call("list_peers", json!({})).success();
}
