//! What push carriers are given: which messages may go by one, how many, and what is on trial.
//!
//! Knows when a message is due to a carrier. Does not know which carriers there are, nor whether one is proved.

use peer_proto::hook::Activity;
use peer_proto::ids::MessageId;
use peer_proto::message::Carrier;

use super::entry::{Entry, Pushed};
use super::{Inbox, Post, Quoted, push_more};
use crate::render::{self, BLOCK_CHARS_MAX, EXCERPT_CHARS_MAX};

/// Messages that a push carrier may have in flight without proof; the rest waits for what the client calls.
pub(super) const PUSH_UNPROVED_MAX: usize = 32;

/// What a message's header takes, about.
const HEADER_CHARS: usize = 120;

impl Inbox {
    /// What this carrier may hand over now, counted as given to it; `None` where nothing may go. A reader that rests is
    /// disturbed only for what may wake it, and then gets everything earlier as well. `one`: one message, without a head.
    pub(crate) fn post(&mut self, carrier: Carrier, activity: Option<Activity>, one: bool, home: &str) -> Option<Post> {
        let in_flight = |entry: &&Entry| entry.is_open() && entry.pushes.iter().any(|push| push.carrier == carrier);
        let room = PUSH_UNPROVED_MAX - self.entries.values().filter(in_flight).take(PUSH_UNPROVED_MAX).count();
        let due = |entry: &Entry| entry.is_due_by(carrier);
        let wakes = |entry: &Entry| due(entry) && entry.may_wake();
        if room == 0 || (activity == Some(Activity::Idle) && !self.entries.values().any(wakes)) {
            return None;
        }
        let quoted = self.quote(due, if one { 1 } else { room }, BLOCK_CHARS_MAX, home);
        self.given(carrier, quoted, one, false)
    }

    /// The one message that a carrier which was not proved is tried with: the oldest, or while the reader rests, the oldest
    /// of whoever may wake it. What the client calls next carries it too.
    pub(crate) fn trial(&mut self, carrier: Carrier, rests: bool, one: bool, home: &str) -> Option<Post> {
        let due = |entry: &&Entry| entry.is_due_by(carrier);
        let first = self.entries.values().filter(due).find(|entry| !rests || entry.may_wake())?;
        let sender = first.message.from.peer;
        let chosen = self.entries.values().filter(due).find(|entry| entry.message.from.peer == sender)?.id();
        let others = self.entries.values().filter(due).count() - 1;
        let mut quoted = self.quote(|entry| entry.id() == chosen, 1, BLOCK_CHARS_MAX, home);
        quoted.left = others;
        self.given(carrier, quoted, one, true)
    }

    /// Whether a push carrier that was not proved has a message, and has time left.
    pub(crate) fn is_any_on_trial(&self) -> bool {
        self.entries.values().any(|entry| entry.is_open() && entry.is_on_trial())
    }

    /// The push carrier that alone was given this message, and so brought it if the model knows it.
    pub(crate) fn brought_by(&self, message: MessageId) -> Option<Carrier> {
        let entry = self.entries.get(&message).filter(|entry| entry.is_pushed_only())?;
        entry.pushes.last().map(|push| push.carrier)
    }

    /// Counts what is about to go as given to this carrier. `one`: one message, without a head.
    fn given(&mut self, carrier: Carrier, quoted: Quoted, one: bool, trial: bool) -> Option<Post> {
        if quoted.shown.is_empty() {
            return None;
        }
        let mut messages = Vec::new();
        for (message, end) in &quoted.shown {
            let Some(entry) = self.entries.get_mut(message) else { continue };
            entry.pushes.push(Pushed { carrier, end: *end, overdue: false, arrived: false, round: self.rounds, trial });
            messages.push(entry.message.clone());
        }
        let mut text = quoted.text;
        if !one {
            text.insert_str(0, &render::block_head(messages.len()));
            push_more(&mut text, quoted.left);
        }
        Some(Post { messages, text })
    }

    /// Whether anything waits that this push carrier may be given.
    pub(crate) fn is_any_due_by(&self, carrier: Carrier) -> bool {
        self.entries.values().any(|entry| entry.is_due_by(carrier))
    }

    /// Whether more waits than one post of this carrier holds.
    pub(crate) fn is_backlog(&self, carrier: Carrier) -> bool {
        let due = self.entries.values().filter(|entry| entry.is_due_by(carrier));
        let chars: usize = due.map(|entry| entry.body.chars().min(EXCERPT_CHARS_MAX) + HEADER_CHARS).sum();
        chars > BLOCK_CHARS_MAX
    }

    /// Whether anything waits that this push carrier may end its reader's rest with.
    pub(crate) fn is_any_waking_by(&self, carrier: Carrier) -> bool {
        self.entries.values().any(|entry| entry.is_due_by(carrier) && entry.may_wake())
    }

    /// What this push carrier was given and nothing that the client calls had, and of which the record has shown nothing.
    pub fn only_with(&self, carrier: Carrier) -> Vec<MessageId> {
        let with = |entry: &&Entry| {
            let pushed = entry.pushes.iter().any(|push| push.carrier == carrier && !push.arrived);
            pushed && entry.is_open() && entry.is_pushed_only() && entry.recorded.is_empty()
        };
        self.entries.values().filter(with).map(Entry::id).collect()
    }

    /// A push carrier could not hand these over: they are as they were before.
    pub(crate) fn take_back(&mut self, messages: &[MessageId], carrier: Carrier) {
        for message in messages {
            if let Some(entry) = self.entries.get_mut(message) {
                entry.pushes.retain(|push| push.carrier != carrier);
            }
        }
    }
}
