//! The client's hooks: the events that they report, the evidence in them, and the mail in their
//! output.
//!
//! The sequence of a hook that may carry mail:
//!
//! 1. [`Event::HookCame`](crate::event::Event::HookCame) leads to [`Action::Receive`].
//! 2. [`Event::HookReady`](crate::event::Event::HookReady) leads to a request to the broker, and
//!    then to [`Action::Print`].
//! 3. [`Event::HookAnswered`](crate::event::Event::HookAnswered) reports the outcome.
//!
//! Knows which events may carry mail. Does not know how a client reads the output. The invariants:
//!
//! - Events of subagents do not reach this file.
//! - The broker is told of an offer before the output can leave.
//! - If the hook did not wait for its output, its messages count as never offered.

use peer_proto::hook::{Activity, HookEvent, Mode};
use peer_proto::ids::MessageId;
use peer_proto::limits::MESSAGES_PER_REQUEST_MAX;
use peer_proto::message::Carrier;
use peer_proto::request::Request;

use crate::ClientKind;
use crate::adapter::Adapter;
use crate::event::{Action, HookOutcome};
use crate::inbox::Block;
use crate::render::BLOCK_CHARS_MAX;

/// The largest number of characters of mail in the output of a Codex hook. Codex allows 2,500
/// tokens of four bytes, and no character has more.
const CODEX_CHARS_MAX: usize = 2_400;

impl Adapter {
    pub(crate) fn hook_came(
        &mut self,
        event: HookEvent,
        turn: Option<&str>,
        mode: Option<Mode>,
        prolonged: bool,
    ) {
        self.facts.hooks_come = true;
        // The model of a session that only begins and ends was never asked.
        if !matches!(event, HookEvent::SessionStart | HookEvent::SessionEnd) {
            self.tried(None);
        }
        self.facts.mode = mode.or(self.facts.mode);
        // A session that begins has nothing to do yet; one that was compacted goes on as before.
        if !matches!(event, HookEvent::SessionStart | HookEvent::Stop | HookEvent::SessionEnd) {
            self.facts.activity = Some(Activity::Working);
        }
        let proved = self.inbox.event(event, turn);
        self.prove_all(&proved);
        let is_hook_off = self.settings.carriers_off.contains(&Carrier::Hook);
        if shows_mail(event, prolonged) && self.is_connected && !is_hook_off && self.waits == 0 {
            self.replies.push(Action::Receive { event });
        } else {
            self.print(event, Block::default());
        }
    }

    pub(crate) fn hook_ready(&mut self, event: HookEvent, received: bool) {
        if received && self.is_connected {
            self.inbox.mark_all_held();
        }
        // Codex puts a hook's text before the output of the call.
        let is_before =
            self.carriers.client == ClientKind::Codex && event == HookEvent::PostToolUse;
        let is_blocked = is_before && self.inbox.is_result_under_way();
        if !received || !self.is_connected || self.is_closing || is_blocked {
            return self.print(event, Block::default());
        }
        let budget = if self.carriers.client == ClientKind::Codex {
            CODEX_CHARS_MAX
        } else {
            BLOCK_CHARS_MAX
        };
        let block = self.inbox.hook_block(event, budget, &self.settings.home);
        for messages in block.offered.chunks(MESSAGES_PER_REQUEST_MAX) {
            self.tell(Request::Offered {
                messages: messages.to_vec(),
                carrier: Carrier::Hook,
                last: false,
            });
        }
        if !block.offered.is_empty() {
            self.actions.push(Action::Watch);
        }
        self.print(event, block);
    }

    fn print(&mut self, event: HookEvent, block: Block) {
        let rests = match event {
            HookEvent::Stop => block.offered.is_empty(),
            HookEvent::SessionEnd => true,
            _ => false,
        };
        // The model is asked next with the output of any hook, except one that only begins the
        // session.
        let asks = !block.offered.is_empty() && event != HookEvent::SessionStart;
        self.replies.push(Action::Print { block, asks });
        if rests {
            self.set_activity(Activity::Idle);
        }
    }

    pub(crate) fn hook_answered(
        &mut self,
        messages: &[MessageId],
        asks: bool,
        outcome: HookOutcome,
    ) {
        self.facts.hooks_are_relayed = outcome != HookOutcome::Handed;
        match outcome {
            HookOutcome::Handed if asks => self.tried(Some(messages)),
            HookOutcome::Relayed if asks => drop(self.inbox.newly_tried(Some(messages), &[])),
            HookOutcome::Handed | HookOutcome::Relayed => {}
            HookOutcome::Unknown => {
                self.inbox.doubt_hook(messages);
                self.inbox.lose_order();
                self.search_carriers();
            }
            HookOutcome::Gone => {
                self.inbox.take_back_hook(messages);
                self.inbox.lose_order();
                self.search_carriers();
            }
        }
    }
}

/// Whether the client shows its model the output of a hook for this event. A stop hook that already
/// prolonged its turn shows nothing.
fn shows_mail(event: HookEvent, prolonged: bool) -> bool {
    match event {
        HookEvent::SessionStart
        | HookEvent::UserPromptSubmit
        | HookEvent::PostToolUse
        | HookEvent::PostToolBatch => true,
        HookEvent::Stop => !prolonged,
        HookEvent::PreToolUse | HookEvent::SessionEnd => false,
    }
}
