//! The client's hooks: how they arrive, and the format of their output.
//!
//! A hook arrives as a call of `peerctl hook`, which the broker relays, or as the client's call of
//! the unlisted tool in [`server`](crate::server).
//!
//! Knows the output format of each client. Does not know what a hook proves, nor what its output
//! carries: the core decides that ([`peer_mcp_core::event::Event::HookCame`]). Invariant: a hook
//! waits for the broker at most a bounded time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use peer_client::RequestError;
use peer_proto::hook::{HookCall, HookEvent};
use peer_proto::ids::MessageId;
use peer_proto::request::{Filter, Request};
use serde_json::json;

use super::tool_result::receive;
use crate::event::{Action, Event, HookOutcome};
use crate::inbox::Block;
use crate::session::{ClientKind, Session};

/// How long a hook waits for the broker, in milliseconds. A working broker answers in a few.
const BROKER_PATIENCE_MS: u64 = 1_000;

/// A hook's output and the messages that it carries.
#[derive(Debug, Default)]
pub(crate) struct HookOutput {
    /// The client's JSON; empty: no output.
    pub(crate) text: String,
    messages: Vec<MessageId>,
    /// Whether the model is asked next, with this in its request.
    asks: bool,
}

impl HookOutput {
    /// Reports whether the output reached its hook.
    pub(crate) fn answered(self, session: &Arc<Session>, outcome: HookOutcome) {
        let Self { messages, asks, .. } = self;
        session.handle(Event::HookAnswered { messages, asks, outcome });
    }
}

/// Handles a hook that the broker relayed.
pub(crate) async fn relayed(session: Arc<Session>, call: u64, hook: HookCall) {
    let _one_at_a_time = session.hooks.lock().await;
    let mut output = answer(&session, &hook).await;
    let Some(connection) = session.connected() else { return };
    // The client asks its model with these as soon as it has the output.
    let asks_with = if output.asks { output.messages.clone() } else { Vec::new() };
    let answer = Request::HookAnswer { call, output: std::mem::take(&mut output.text), asks_with };
    let outcome = match connection.request(answer).await {
        Ok(_) => HookOutcome::Relayed,
        Err(RequestError::Lost) => HookOutcome::Unknown,
        Err(_) => HookOutcome::Gone,
    };
    output.answered(&session, outcome);
}

/// Returns the hook's output.
pub(crate) async fn answer(session: &Arc<Session>, hook: &HookCall) -> HookOutput {
    let is_subagent = hook.agent.is_some();
    let tool_use = hook.tool_use.clone().filter(|_| hook.event == HookEvent::PreToolUse);
    session.see_ways();
    session.handle(Event::CallerTold { tool_use, is_subagent });
    if is_subagent || !in_time(session.follow(hook)).await.unwrap_or(false) {
        return HookOutput::default();
    }
    // Opening a pipe in its place would block.
    let is_file = |path: &&String| Path::new(path).metadata().map_or(true, |found| found.is_file());
    if let Some(path) = hook.transcript.as_ref().filter(is_file) {
        session.handle(Event::RecordAt(path.into()));
    }
    session.read_transcript();
    let (event, turn) = (hook.event, hook.turn.clone());
    let mut actions =
        session.handle(Event::HookCame { event, turn, mode: hook.mode, prolonged: hook.prolonged });
    if actions.iter().any(|action| matches!(action, Action::Receive { .. })) {
        // Each message that was sent before the hook ran must be in its output; without a broker
        // the output is empty.
        let received = matches!(in_time(receive(session, Filter::default())).await, Some(Ok(_)));
        actions = session.handle(Event::HookReady { event, received });
    }
    let printed = actions.into_iter().find_map(|action| match action {
        Action::Print { block, asks } => Some((block, asks)),
        _ => None,
    });
    match printed {
        Some((block, asks)) if !block.offered.is_empty() => HookOutput {
            text: rendered(session.client().kind, event, &block),
            messages: block.offered,
            asks,
        },
        _ => HookOutput::default(),
    }
}

/// Waits for the broker, for less time than a tool call would: the client's next step waits for its
/// hooks.
async fn in_time<T>(asked: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_millis(BROKER_PATIENCE_MS), asked).await.ok()
}

/// Renders the block in the client's format. Claude Code would show a blocked stop's text to the
/// model twice.
fn rendered(client: ClientKind, event: HookEvent, block: &Block) -> String {
    let text = block.text.trim_end_matches('\n');
    let output = match (client, event) {
        (ClientKind::Codex | ClientKind::Other, HookEvent::Stop) => {
            json!({ "decision": "block", "reason": text })
        }
        _ => {
            json!({ "hookSpecificOutput": { "hookEventName": event.as_str(), "additionalContext": text } })
        }
    };
    output.to_string()
}
