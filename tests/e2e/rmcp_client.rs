//! The official Rust SDK as a client of the real adapter.

use std::time::{Duration, Instant};

use peer_tests::Home;
use rmcp::ServiceExt;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientConfig, CustomNotification, Implementation,
};
use rmcp::service::{NotificationContext, RoleClient, RunningService};
use rmcp::transport::TokioChildProcess;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// A client that passes on the notifications that MCP does not know.
struct Client {
    info: ClientConfig,
    notes: mpsc::UnboundedSender<CustomNotification>,
}

impl rmcp::ClientHandler for Client {
    fn get_info(&self) -> ClientConfig {
        self.info.clone()
    }

    async fn on_custom_notification(
        &self,
        note: CustomNotification,
        _context: NotificationContext<RoleClient>,
    ) {
        let _ = self.notes.send(note);
    }
}

type Session = RunningService<RoleClient, Client>;

/// An initialized session of a client that calls itself `client`, under the name `name`.
async fn session(
    home: &Home,
    client: &str,
    name: &str,
) -> (Session, mpsc::UnboundedReceiver<CustomNotification>) {
    let mut command = home.command(&["mcp"]);
    command.env("PEER_NAME", name);
    let transport =
        TokioChildProcess::new(tokio::process::Command::from(command)).expect("start the adapter");
    let (notes, heard) = mpsc::unbounded_channel();
    let info = ClientConfig::new(Default::default(), Implementation::new(client, "1.0.0"));
    let session = Client { info, notes }.serve(transport).await.expect("initialize the adapter");
    (session, heard)
}

async fn call(session: &Session, tool: &str, arguments: Value) -> CallToolResult {
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    session
        .call_tool(CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments))
        .await
        .unwrap_or_else(|why| panic!("call {tool}: {why}"))
}

fn text(result: &CallToolResult) -> String {
    result
        .content
        .iter()
        .filter_map(|part| part.as_text())
        .map(|part| part.text.clone())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The first message id in a result.
fn message_id(result: &CallToolResult) -> String {
    let text = text(result);
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words
        .find(|word| word.parse::<peer_proto::ids::MessageId>().is_ok())
        .unwrap_or_else(|| panic!("no message id in {text:?}"))
        .to_owned()
}

#[tokio::test]
async fn the_server_introduces_itself() {
    let home = peer_tests::home!();
    let begun = Instant::now();
    let (claude, _heard) = session(&home, "claude-code", "luna").await;
    assert!(begun.elapsed() < Duration::from_secs(5), "initialize took {:?}", begun.elapsed());
    let info = claude.peer_info().expect("the server said who it is").clone();
    assert_eq!(info.server_info.as_ref().map(|server| server.name.as_str()), Some("peers"));
    let experimental = info.capabilities.experimental.clone().unwrap_or_default();
    assert!(experimental.contains_key("claude/channel"), "{experimental:?}");
    let instructions = info.instructions.clone().unwrap_or_default();
    assert!(instructions.contains("[PEER INBOX]") && instructions.len() < 2_048, "{instructions}");

    let tools = claude.list_all_tools().await.expect("list the tools");
    let mut names: Vec<&str> = tools.iter().map(|tool| tool.name.as_ref()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "ack_messages",
            "check_messages",
            "list_peers",
            "rename_peer",
            "send_message",
            "set_summary"
        ]
    );

    let (other, _heard) = session(&home, "some-other-client", "orion").await;
    let experimental =
        other.peer_info().expect("the server said who it is").capabilities.experimental.clone();
    assert!(
        !experimental.unwrap_or_default().contains_key("claude/channel"),
        "only Claude Code has channels"
    );
    for session in [claude, other] {
        session.cancel().await.expect("end the session");
    }
}

#[tokio::test]
async fn messages_arrive_by_channel_and_by_tool_result() {
    let home = peer_tests::home!();
    let (luna, mut heard) = session(&home, "claude-code", "luna").await;
    let (orion, _) = session(&home, "codex-mcp-client", "orion").await;
    let listed = text(&call(&orion, "list_peers", json!({})).await);
    assert!(listed.contains("orion"), "{listed}");
    let listed = text(&call(&luna, "list_peers", json!({})).await);
    assert!(listed.contains("orion"), "{listed}");

    let sent = call(&orion, "send_message", json!({"to": "luna", "message": "ping"})).await;
    assert_eq!(sent.is_error, Some(false), "{}", text(&sent));
    assert!(sent.structured_content.is_none(), "results are plain text");
    let id = message_id(&sent);
    let note = tokio::time::timeout(peer_tests::PATIENCE, heard.recv())
        .await
        .expect("a push")
        .expect("the session lives");
    assert_eq!(note.method, "notifications/claude/channel");
    let params = note.params.expect("a channel notification has params");
    assert_eq!(params["meta"]["message_id"], json!(id), "{params}");

    let answer =
        call(&luna, "send_message", json!({"to": "orion", "message": "pong", "reply_to": id}))
            .await;
    let checked = call(&orion, "check_messages", json!({})).await;
    let checked_text = text(&checked);
    assert!(
        checked_text.contains(&message_id(&answer)) && checked_text.contains("| pong"),
        "{checked_text}"
    );
    let meta = serde_json::to_value(&checked).expect("a result is JSON")["_meta"].clone();
    for key in ["chars", "lines", "ms"] {
        assert!(meta[key].is_number(), "{meta}");
    }
    for session in [luna, orion] {
        session.cancel().await.expect("end the session");
    }
}

#[tokio::test]
async fn a_failed_call_is_a_result_that_says_what_to_do() {
    let home = peer_tests::home!();
    let (luna, _heard) = session(&home, "claude-code", "luna").await;
    let bad = [
        ("send_message", json!({"to": "nobody", "message": "x"}), "nobody"),
        ("send_message", json!({"to": "luna"}), "message"),
        ("send_message", json!({"to": "luna", "message": ""}), "empty"),
        ("send_message", json!({"to": "luna", "message": "x", "colour": "red"}), "colour"),
        ("send_message", json!({"to": 7, "message": "x"}), "to"),
        ("ack_messages", json!({"message_ids": "m-nonsense"}), "m-nonsense"),
        ("rename_peer", json!({"new_name": "human"}), "human"),
        ("rename_peer", json!({"new_name": "a b"}), "a b"),
    ];
    for (tool, arguments, named) in bad {
        let result = call(&luna, tool, arguments.clone()).await;
        let text = text(&result);
        assert_eq!(result.is_error, Some(true), "{tool} {arguments}: {text}");
        assert!(text.contains(named), "{tool} {arguments} does not name {named}: {text}");
    }
    let unknown = luna.call_tool(CallToolRequestParams::new("no_such_tool".to_owned())).await;
    assert!(unknown.is_err(), "{unknown:?}");
    luna.cancel().await.expect("end the session");
}
