//! The client's hooks: what happened in the session, what that proves, and mail in the hook's output.
//!
//! A hook comes in by one of two doors, and both lead here: `peerctl hook`, which the broker relays, or the client's own
//! call of the tool that [`server`](crate::server) has for it and lists nowhere. Invariants: what happens in a subagent
//! neither shows nor proves anything; the broker is told of an offer before the output can leave; an output that its hook
//! did not wait for counts as never offered.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use peer_client::RequestError;
use peer_proto::hook::{Activity, HookCall, HookEvent};
use peer_proto::ids::MessageId;
use peer_proto::message::Carrier;
use peer_proto::request::{Filter, Request};
use serde_json::json;

use super::tool_result::receive;
use crate::inbox::Block;
use crate::render::BLOCK_CHARS_MAX;
use crate::session::{ClientKind, Session};

/// How long a hook waits for the broker, in milliseconds. One that works answers in a few.
const BROKER_PATIENCE_MS: u64 = 1_000;

/// Most characters of mail in the output of a Codex hook. It counts 2,500 tokens of four bytes, and no character has more.
const CODEX_CHARS_MAX: usize = 2_400;

/// A hook's output and the messages that it carries.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// The client's JSON; empty: nothing.
    pub(crate) text: String,
    messages: Vec<MessageId>,
    /// The model is asked next, with this in front of it.
    is_asked_with: bool,
}

impl Output {
    /// What the client asks its model with as soon as it has this.
    pub(crate) fn asks_with(&self) -> &[MessageId] {
        if self.is_asked_with { &self.messages } else { &[] }
    }
}

/// A hook that came through the broker.
pub(crate) async fn relayed(session: Arc<Session>, call: u64, hook: HookCall) {
    let _one_at_a_time = session.hooks.lock().await;
    let output = answer(&session, &hook).await;
    let Some(connection) = session.connected() else { return };
    let asks_with = output.asks_with().to_vec();
    let answer = Request::HookAnswer { call, output: output.text.clone(), asks_with };
    let answered = connection.request(answer).await;
    {
        let mut state = session.state();
        let Err(error) = answered else {
            // The broker noted it with the answer.
            state.inbox.newly_tried(Some(output.asks_with()));
            return;
        };
        match error {
            // The broker may have passed it on before it went.
            RequestError::Lost => state.inbox.doubt_hook(&output.messages),
            // The hook was gone.
            _ => state.inbox.take_back_hook(&output.messages),
        }
    }
    session.offer();
}

/// What the hook prints.
pub(crate) async fn answer(session: &Arc<Session>, hook: &HookCall) -> Output {
    let is_subagent = hook.agent.is_some();
    if let (HookEvent::PreToolUse, Some(tool_use)) = (hook.event, &hook.tool_use) {
        session.state().facts.note_caller(tool_use.clone(), is_subagent);
    }
    if is_subagent || !in_time(session.follow(hook)).await.unwrap_or(false) {
        session.report();
        return Output::default();
    }
    session.state().facts.hooks_come = true;
    // A session that only begins and ends has not asked its model anything.
    let asks = !matches!(hook.event, HookEvent::SessionStart | HookEvent::SessionEnd);
    if asks {
        session.tried(None);
    }
    note(session, hook);
    session.look_into_transcript();
    let proved = session.state().inbox.event(hook.event, hook.turn.as_deref());
    session.prove_all(&proved);
    session.report();
    let output = if shows_mail(hook) { mail(session, hook).await } else { Output::default() };
    let rests = match hook.event {
        HookEvent::Stop => output.text.is_empty(),
        HookEvent::SessionEnd => true,
        _ => false,
    };
    if rests {
        session.set_activity(Activity::Idle);
    }
    output
}

/// Waits for the broker, but not as long as a tool call would: the client's next step waits for its hooks.
async fn in_time<T>(asked: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_millis(BROKER_PATIENCE_MS), asked).await.ok()
}

/// What the event says about the session.
fn note(session: &Session, hook: &HookCall) {
    let mut state = session.state();
    state.facts.mode = hook.mode.or(state.facts.mode);
    // A pipe in its place would be waited for.
    let is_file = |path: &&String| Path::new(path).metadata().map_or(true, |found| found.is_file());
    if let Some(path) = hook.transcript.as_ref().filter(is_file) {
        state.facts.transcript = Some(path.into());
    }
    // A session that begins has nothing to do yet; one that was compacted goes on as before.
    let at_work = !matches!(hook.event, HookEvent::SessionStart | HookEvent::Stop | HookEvent::SessionEnd);
    if at_work {
        state.facts.activity = Some(Activity::Working);
    }
}

/// Whether the client shows its model what a hook of this event says. A turn that a hook has prolonged already ends.
fn shows_mail(hook: &HookCall) -> bool {
    match hook.event {
        HookEvent::SessionStart | HookEvent::UserPromptSubmit | HookEvent::PostToolUse | HookEvent::PostToolBatch => true,
        HookEvent::Stop => !hook.prolonged,
        HookEvent::PreToolUse | HookEvent::SessionEnd => false,
    }
}

async fn mail(session: &Arc<Session>, hook: &HookCall) -> Output {
    // Whatever was sent before the hook ran shall be in its output; without a broker nothing is.
    if session.connected().is_none() || session.is_carrier_off(Carrier::Hook) || session.state().waits > 0 {
        return Output::default();
    }
    let Some(Ok(_)) = in_time(receive(session, Filter::default())).await else { return Output::default() };
    let Some(connection) = session.connected().filter(|_| !session.is_closing()) else { return Output::default() };
    // Codex puts a hook's text before the output of the call.
    let is_before = session.client().kind == ClientKind::Codex && hook.event == HookEvent::PostToolUse;
    if is_before && session.state().inbox.is_result_under_way() {
        return Output::default();
    }
    let budget = match session.client().kind {
        ClientKind::Codex => CODEX_CHARS_MAX,
        ClientKind::Claude | ClientKind::Other => BLOCK_CHARS_MAX,
    };
    let block = session.state().inbox.hook_block(hook.event, budget, &session.surroundings.home);
    if block.offered.is_empty() {
        return Output::default();
    }
    for messages in block.offered.chunks(peer_proto::limits::MESSAGES_PER_REQUEST_MAX) {
        drop(connection.submit(Request::Offered { messages: messages.to_vec(), carrier: Carrier::Hook, last: false }));
    }
    session.given();
    let is_asked_with = hook.event != HookEvent::SessionStart;
    Output { text: rendered(session.client().kind, hook.event, &block), messages: block.offered, is_asked_with }
}

/// The block in the form that the client reads. Claude Code would show what blocks a stop to the model twice.
fn rendered(client: ClientKind, event: HookEvent, block: &Block) -> String {
    let text = block.text.trim_end_matches('\n');
    let output = match (client, event) {
        (ClientKind::Codex | ClientKind::Other, HookEvent::Stop) => json!({ "decision": "block", "reason": text }),
        _ => json!({ "hookSpecificOutput": { "hookEventName": event.as_str(), "additionalContext": text } }),
    };
    output.to_string()
}
