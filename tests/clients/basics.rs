//! Each client's model calls our tools, and is shown what the adapter says, word for word.

use peer_tests::clients::{Call, call, say};
use serde_json::json;

#[test]
fn claude_print_calls_our_tools() {
    let stage = peer_tests::stage!();
    let arguments = json!({"to": "human", "message": "hello from claude"});
    let talk = stage
        .model
        .talk("go", [call(Call::peers("list_peers", json!({}))), call(Call::peers("send_message", arguments)), say("bye")]);
    let outcome = stage.claude().name("luna").print("go").wait().success();
    assert_eq!(outcome.stdout.trim(), "bye");
    assert_eq!(talk.requests().len(), 3);
}

#[test]
fn codex_exec_calls_our_tools() {
    let stage = peer_tests::stage!();
    let arguments = json!({"to": "human", "message": "hello from codex"});
    let talk = stage.model.talk(
        "go",
        [
            call(Call::peers("list_peers", json!({}))),
            call(Call::peers("send_message", arguments)),
            call(Call::shell("echo x; pwd")),
            say("bye"),
        ],
    );
    stage.codex().name("sol").exec("go").wait().success();
    assert_eq!(talk.requests().len(), 4);
}

#[test]
fn claude_terminal() {
    let stage = peer_tests::stage!();
    let talk = stage.model.talk("go", [call(Call::peers("list_peers", json!({}))), say("bye")]);
    let terminal = stage.claude().name("luna").terminal();
    terminal.submit("go now");
    terminal.wait_for("bye");
    assert_eq!(talk.requests().len(), 2);
}

#[test]
fn codex_terminal() {
    let stage = peer_tests::stage!();
    let talk = stage.model.talk("go", [call(Call::peers("list_peers", json!({}))), say("bye")]);
    let terminal = stage.codex().name("sol").terminal();
    terminal.submit("go now");
    terminal.wait_for("bye");
    assert_eq!(talk.requests().len(), 2);
}
