//! The client's hooks: what happened in the session, what that proves, and mail in the hook's output.
//!
//! A hook goes so: [`Event::HookCame`](crate::event::Event::HookCame) → [`Action::Receive`], where it may carry mail →
//! [`Event::HookReady`](crate::event::Event::HookReady) → the broker is told, [`Action::Print`] →
//! [`Event::HookAnswered`](crate::event::Event::HookAnswered). Invariants: what happens in a subagent does not come here; the
//! broker is told of an offer before the output can leave; an output that its hook did not wait for counts as never offered.

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

/// Most characters of mail in the output of a Codex hook. It counts 2,500 tokens of four bytes, and no character has more.
const CODEX_CHARS_MAX: usize = 2_400;

impl Adapter {
    pub(crate) fn hook_came(&mut self, event: HookEvent, turn: Option<&str>, mode: Option<Mode>, prolonged: bool) {
        self.facts.hooks_come = true;
        // A session that only begins and ends has not asked its model anything.
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
        // Codex puts a hook's text before the output of the call.
        let is_before = self.carriers.client == ClientKind::Codex && event == HookEvent::PostToolUse;
        let is_blocked = is_before && self.inbox.is_result_under_way();
        if !received || !self.is_connected || self.is_closing || is_blocked {
            return self.print(event, Block::default());
        }
        let budget = if self.carriers.client == ClientKind::Codex { CODEX_CHARS_MAX } else { BLOCK_CHARS_MAX };
        let block = self.inbox.hook_block(event, budget, &self.settings.home);
        for messages in block.offered.chunks(MESSAGES_PER_REQUEST_MAX) {
            self.tell(Request::Offered { messages: messages.to_vec(), carrier: Carrier::Hook, last: false });
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
        // The model is asked next with what any hook carries, but for one that only begins the session.
        let asks = !block.offered.is_empty() && event != HookEvent::SessionStart;
        self.replies.push(Action::Print { block, asks });
        if rests {
            self.set_activity(Activity::Idle);
        }
    }

    pub(crate) fn hook_answered(&mut self, messages: &[MessageId], asks: bool, outcome: HookOutcome) {
        match outcome {
            HookOutcome::Handed if asks => self.tried(Some(messages)),
            HookOutcome::Relayed if asks => drop(self.inbox.newly_tried(Some(messages), &[])),
            HookOutcome::Handed | HookOutcome::Relayed => {}
            HookOutcome::Unknown => {
                self.inbox.doubt_hook(messages);
                self.look();
            }
            HookOutcome::Gone => {
                self.inbox.take_back_hook(messages);
                self.look();
            }
        }
    }
}

/// Whether the client shows its model what a hook of this event says. A turn that a hook has prolonged already ends.
fn shows_mail(event: HookEvent, prolonged: bool) -> bool {
    match event {
        HookEvent::SessionStart | HookEvent::UserPromptSubmit | HookEvent::PostToolUse | HookEvent::PostToolBatch => true,
        HookEvent::Stop => !prolonged,
        HookEvent::PreToolUse | HookEvent::SessionEnd => false,
    }
}
