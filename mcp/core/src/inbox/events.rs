//! Derives from the client's events which messages the model was shown, and which ones the client
//! removed. Pure.
//!
//! Knows the turn of each event, and what each event may have removed. Does not know the client's
//! record. Invariant: if the record shows the model's messages, no event is evidence.

use peer_proto::hook::HookEvent;
use peer_proto::ids::MessageId;
use peer_proto::message::{Carrier, Evidence};

use super::entry::{Hooked, InboxEntry, read_up_to};
use super::{Inbox, Proof};

impl Inbox {
    /// Applies an event of the main conversation, with the client's name of the turn. Returns the
    /// messages that it proves.
    ///
    /// An event proves an earlier hook's output on two conditions: the model must have been asked
    /// in between, and no event can have removed the output. The user's next turn proves a tool
    /// result.
    pub(crate) fn event(
        &mut self,
        event: HookEvent,
        turn: Option<&str>,
    ) -> Vec<(MessageId, Proof)> {
        self.events += 1;
        self.tells_batches |= event == HookEvent::PostToolBatch;
        let (number, round, tells_batches) = (self.events, self.rounds, self.tells_batches);
        // Prompts that a client had queued arrive as prompts too, also between two tools: the model
        // was not asked before them.
        let new_turn = event == HookEvent::UserPromptSubmit && self.runs == Some(false);
        let begins = self.runs != Some(true);
        let (hooks_count, results_count) =
            (!self.record_speaks, new_turn && !self.record_alone && !self.record_speaks);
        let ends_round = match event {
            HookEvent::PostToolBatch | HookEvent::Stop => true,
            HookEvent::UserPromptSubmit => new_turn,
            // Each tool counts as a round of its own if no hook reports rounds.
            HookEvent::PostToolUse => !self.tells_batches,
            _ => false,
        };
        self.rounds += u64::from(ends_round);
        self.runs = match event {
            HookEvent::SessionStart | HookEvent::SessionEnd => self.runs,
            HookEvent::Stop => Some(false),
            _ => Some(true),
        };
        self.move_on(event, turn, begins);
        let now = self.moment.clone();
        let next_turn = matches!(event, HookEvent::Stop | HookEvent::UserPromptSubmit);
        let evidence = if next_turn { Evidence::NextTurn } else { Evidence::NextCall };
        self.prove(|entry| {
            let is_kept = |hook: &Hooked| match hook.event {
                // Its output waits for the first prompt, whichever that is.
                HookEvent::SessionStart => {
                    now.continues(&hook.moment) || now.is_first_since(&hook.moment)
                }
                // Another hook may have refused a prompt that came while a turn ran, and that turn
                // goes on.
                HookEvent::UserPromptSubmit => hook.moment.opens && now.continues(&hook.moment),
                _ => now.continues(&hook.moment),
            };
            let asked_since = |hook: &Hooked| match (hook.event, event) {
                // The conversation begins or ends: no model was asked.
                (_, HookEvent::SessionStart | HookEvent::SessionEnd) => false,
                // A prompt of the user or of the queue came; the model may not have been asked
                // since.
                (_, HookEvent::UserPromptSubmit) => false,
                // Between the tools of one message the model is not asked.
                (
                    HookEvent::PreToolUse | HookEvent::PostToolUse,
                    HookEvent::PreToolUse | HookEvent::PostToolUse,
                ) => tells_batches && round > hook.round,
                (HookEvent::PreToolUse | HookEvent::PostToolUse, HookEvent::PostToolBatch) => {
                    round > hook.round
                }
                _ => true,
            };
            let whole = |hook: &&Hooked| hook.number < number && hook.end >= entry.body.chars();
            if hooks_count
                && entry.hooks.iter().filter(whole).any(|hook| is_kept(hook) && asked_since(hook))
            {
                return Some(Proof { carrier: Carrier::Hook, evidence });
            }
            let past = entry.parts.iter().filter(|part| part.counts() && part.is_past);
            let by_turn =
                results_count && read_up_to(past).is_some_and(|end| end >= entry.body.chars());
            by_turn.then_some(Proof { carrier: Carrier::ToolResult, evidence })
        })
    }

    /// Moves the position in the conversation. A turn that ends by itself has asked the model with
    /// all its results. An interrupted turn, or a compacted conversation, may have lost them.
    fn move_on(&mut self, event: HookEvent, turn: Option<&str>, begins: bool) {
        let named = turn.map(str::to_owned);
        let is_new = named.is_some() && named != self.moment.turn;
        match event {
            HookEvent::SessionStart => self.moment.starts += 1,
            HookEvent::UserPromptSubmit => {
                self.moment.prompts += 1;
                self.moment.opens = if named.is_some() { is_new } else { begins };
            }
            _ => {}
        }
        // An event that names no turn belongs to the current turn; the turn of such a prompt is
        // unknown.
        if named.is_some() || event == HookEvent::UserPromptSubmit {
            self.moment.turn = named;
        }
        if event == HookEvent::Stop {
            for part in self.entries.values_mut().flat_map(|entry| &mut entry.parts) {
                part.is_past |= self.moment.continues(&part.moment);
            }
        }
        // Without a record the fate of the previous prompt is unknown: its messages come again with
        // this one.
        if event == HookEvent::UserPromptSubmit && self.moment.opens && !self.record_speaks {
            let rode = |entry: &&mut InboxEntry| entry.proof.is_none() && entry.rode_on_a_prompt();
            for entry in self.entries.values_mut().filter(rode) {
                entry.withdraw(Some(Carrier::Hook));
            }
        }
    }

    /// Handles the report that the model is idle. If no hook reported the end of the turn, the turn
    /// was broken off. A later turn without a name and a prompt would look like this one.
    pub(crate) fn rests(&mut self) {
        if self.runs.take_if(|runs| *runs).is_some() {
            self.lose_order();
        }
    }

    /// Removes the offers that the client undid before the model answered. Returns whether any
    /// message goes to its carriers once more.
    pub(crate) fn withdraw(&mut self, withdrawn: &[(MessageId, Option<Carrier>)]) -> bool {
        let mut is_any = false;
        for (message, by) in withdrawn {
            let entry = self.entries.get_mut(message).filter(|entry| entry.proof.is_none());
            is_any |= entry.is_some_and(|entry| entry.withdraw(*by));
        }
        is_any
    }
}
