//! The messages of a push: which ones a carrier may be given, how many, and which one is on trial.
//!
//! Knows when a message is due to a carrier. Does not know which carriers are available, nor
//! whether one is proved. Invariant: a message counts as given before it leaves.

use peer_proto::hook::Activity;
use peer_proto::ids::MessageId;
use peer_proto::message::Carrier;

use super::entry::{InboxEntry, Pushed};
use super::{Inbox, Post, Quoted, push_more};
use crate::render::{self, BLOCK_CHARS_MAX, EXCERPT_CHARS_MAX};

/// The number of unproved messages that a push carrier may have in flight; the rest waits for hooks
/// and tool results.
pub(super) const PUSH_UNPROVED_MAX: usize = 32;

/// The approximate length of a message's header.
const HEADER_CHARS: usize = 120;

impl Inbox {
    /// Returns what this carrier may hand over now, and counts it as given; `None`: nothing may go.
    /// An idle session is woken only for messages that may wake it, and then gets all earlier ones
    /// as well. `one`: one message, without a block head.
    pub(crate) fn post(
        &mut self,
        carrier: Carrier,
        activity: Option<Activity>,
        one: bool,
        home: &str,
    ) -> Option<Post> {
        let in_flight = |entry: &&InboxEntry| {
            entry.is_open() && entry.pushes.iter().any(|push| push.carrier == carrier)
        };
        let room = PUSH_UNPROVED_MAX
            - self.entries.values().filter(in_flight).take(PUSH_UNPROVED_MAX).count();
        let due = |entry: &InboxEntry| entry.is_due_by(carrier);
        let wakes = |entry: &InboxEntry| due(entry) && entry.may_wake();
        if room == 0 || (activity == Some(Activity::Idle) && !self.entries.values().any(wakes)) {
            return None;
        }
        let quoted = self.quote(due, if one { 1 } else { room }, BLOCK_CHARS_MAX, home);
        self.given(carrier, quoted, one, false)
    }

    /// Returns the one message for the trial of an unproved carrier: the oldest one. If the session
    /// is idle, it is the oldest of a sender that has a message that may wake. The next hook or
    /// tool result carries it too.
    pub(crate) fn trial(
        &mut self,
        carrier: Carrier,
        rests: bool,
        one: bool,
        home: &str,
    ) -> Option<Post> {
        let due = |entry: &&InboxEntry| entry.is_due_by(carrier);
        let first = self.entries.values().filter(due).find(|entry| !rests || entry.may_wake())?;
        let sender = first.message.from.peer;
        let chosen =
            self.entries.values().filter(due).find(|entry| entry.message.from.peer == sender)?.id();
        let others = self.entries.values().filter(due).count() - 1;
        let mut quoted = self.quote(|entry| entry.id() == chosen, 1, BLOCK_CHARS_MAX, home);
        quoted.left = others;
        self.given(carrier, quoted, one, true)
    }

    /// Whether an unproved push carrier has a message, and has not timed out.
    pub(crate) fn is_any_on_trial(&self) -> bool {
        self.entries.values().any(|entry| entry.is_open() && entry.is_on_trial())
    }

    /// Returns the push carrier that alone was given this message, and so brought it if the model
    /// knows it.
    pub(crate) fn brought_by(&self, message: MessageId) -> Option<Carrier> {
        let entry = self.entries.get(&message).filter(|entry| entry.is_pushed_only())?;
        entry.pushes.last().map(|push| push.carrier)
    }

    /// Counts the messages that are about to go as given to this carrier. `one`: one message,
    /// without a block head.
    fn given(&mut self, carrier: Carrier, quoted: Quoted, one: bool, trial: bool) -> Option<Post> {
        if quoted.shown.is_empty() {
            return None;
        }
        let mut messages = Vec::new();
        for (message, end) in &quoted.shown {
            let Some(entry) = self.entries.get_mut(message) else { continue };
            entry.pushes.push(Pushed {
                carrier,
                end: *end,
                overdue: false,
                arrived: false,
                round: self.rounds,
                trial,
            });
            messages.push(entry.message.clone());
        }
        let mut text = quoted.text;
        if !one {
            text.insert_str(0, &render::block_head(messages.len()));
            push_more(&mut text, quoted.left);
        }
        Some(Post { messages, text })
    }

    /// Whether a message waits that this push carrier may be given.
    pub(crate) fn is_any_due_by(&self, carrier: Carrier) -> bool {
        self.entries.values().any(|entry| entry.is_due_by(carrier))
    }

    /// Whether more messages wait than one post of this carrier holds.
    pub(crate) fn is_backlog(&self, carrier: Carrier) -> bool {
        let due = self.entries.values().filter(|entry| entry.is_due_by(carrier));
        let chars: usize =
            due.map(|entry| entry.body.chars().min(EXCERPT_CHARS_MAX) + HEADER_CHARS).sum();
        chars > BLOCK_CHARS_MAX
    }

    /// Whether a message waits with which this push carrier may wake an idle session.
    pub(crate) fn is_any_waking_by(&self, carrier: Carrier) -> bool {
        self.entries.values().any(|entry| entry.is_due_by(carrier) && entry.may_wake())
    }

    /// Returns the messages that only this push carrier was given, and of which the record has
    /// shown nothing.
    pub fn only_with(&self, carrier: Carrier) -> Vec<MessageId> {
        let with = |entry: &&InboxEntry| {
            let pushed = entry.pushes.iter().any(|push| push.carrier == carrier && !push.arrived);
            pushed && entry.is_open() && entry.is_pushed_only() && entry.recorded.is_empty()
        };
        self.entries.values().filter(with).map(InboxEntry::id).collect()
    }

    /// Undoes a push that the carrier could not hand over: its messages are as they were before.
    pub(crate) fn take_back(&mut self, messages: &[MessageId], carrier: Carrier) {
        for message in messages {
            if let Some(entry) = self.entries.get_mut(message) {
                entry.pushes.retain(|push| push.carrier != carrier);
            }
        }
    }
}
