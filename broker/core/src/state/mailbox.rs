//! A peer's mailbox: its pending deliveries and their leases.
//!
//! Knows deliveries, their stages and their leases. Does not know permissions, nor names.
//! Invariants: a pending delivery is in exactly one mailbox, and a settled one in none. A delivery
//! is in `ready` exactly while it is neither leased, nor held, nor relayed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use peer_proto::ids::{MessageId, Timestamp};
use peer_proto::message::{Carrier, Stage};

use crate::input::ConnectionId;
use crate::record::DeliveryRecord;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MailboxEntry {
    /// The durable part.
    pub(crate) record: DeliveryRecord,
    /// In memory: the session that holds it.
    pub(crate) lease: Option<Lease>,
    /// In memory: whether a model may have been asked with it since it was last stored or returned.
    /// If so, the end of the session that offered it is an attempt.
    pub(crate) tried: bool,
}

/// A session's hold on one message, until evidence, a nack, or the session's end. It has no time
/// limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// The session's connection.
    pub(crate) holder: ConnectionId,
    /// When it was pushed.
    pub(crate) at: Timestamp,
    /// The carrier that this session offered it to last.
    pub(crate) offered: Option<Carrier>,
    /// The time of that carrier's visibility timeout, or of an earlier session's carrier, on the
    /// monotonic clock. `None`: no carrier follows, or it was not offered.
    pub(crate) overdue_at_ms: Option<u64>,
}

impl MailboxEntry {
    /// Creates the entry of a delivery that no session holds. The earlier broker's memory is lost.
    /// A message offered by a tool result or a hook counts as asked with. A pushed one does not.
    pub(crate) fn new(record: DeliveryRecord) -> Self {
        let called_for =
            matches!(record.offered_last_by(), Some(Carrier::ToolResult | Carrier::Hook));
        let tried = record.stage == Stage::Offered && called_for;
        Self { record, lease: None, tried }
    }

    /// Returns its stage, leases included.
    pub(crate) fn stage(&self) -> Stage {
        match (self.record.stage, self.lease) {
            (Stage::Stored, Some(_)) => Stage::Leased,
            (stage, _) => stage,
        }
    }

    /// Whether a model may have seen it.
    pub(crate) fn shown_before(&self) -> bool {
        self.record.attempts > 0 || self.record.was_offered()
    }

    /// Returns the time of its visibility timeout.
    pub(crate) fn overdue_at_ms(&self) -> Option<u64> {
        self.lease.and_then(|lease| lease.overdue_at_ms)
    }

    /// Whether a session or a link could lease it.
    pub(crate) fn is_ready(&self) -> bool {
        self.lease.is_none() && !matches!(self.record.stage, Stage::Held | Stage::Relayed)
    }

    /// Whether its lease counts against its session's window: pushed, and not yet offered.
    pub(crate) fn in_window(&self) -> bool {
        self.lease.is_some_and(|lease| lease.offered.is_none())
    }
}

/// All pending deliveries of one peer.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    entries: BTreeMap<MessageId, MailboxEntry>,
    ready: BTreeSet<MessageId>,
    /// Deliveries that were pushed and not yet offered.
    window: BTreeSet<MessageId>,
    window_bytes: usize,
    held: usize,
    leased: usize,
    relayed: usize,
}

impl Mailbox {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn held(&self) -> usize {
        self.held
    }

    pub(crate) fn leased(&self) -> usize {
        self.leased
    }

    /// Counts the deliveries that are stored on their recipient's broker.
    pub(crate) fn relayed(&self) -> usize {
        self.relayed
    }

    /// Counts the deliveries that were offered by the session that holds them, and not proved.
    pub(crate) fn offered(&self) -> usize {
        self.leased - self.window.len()
    }

    pub(crate) fn window(&self) -> (usize, usize) {
        (self.window.len(), self.window_bytes)
    }

    /// Returns the messages that count against the window, oldest first.
    pub(crate) fn in_window(&self) -> impl Iterator<Item = MessageId> {
        self.window.iter().copied()
    }

    pub(crate) fn get(&self, message: MessageId) -> Option<&MailboxEntry> {
        self.entries.get(&message)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &MailboxEntry> {
        self.entries.values()
    }

    pub(crate) fn after(&self, message: Option<MessageId>) -> impl Iterator<Item = &MailboxEntry> {
        let from = message.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range((from, Bound::Unbounded)).map(|(_, entry)| entry)
    }

    /// Returns the oldest delivery that a session could lease.
    pub(crate) fn first_ready(&self) -> Option<MessageId> {
        self.ready.first().copied()
    }

    pub(crate) fn is_ready(&self, message: MessageId) -> bool {
        self.ready.contains(&message)
    }

    pub(crate) fn insert(&mut self, entry: MailboxEntry) {
        debug_assert!(
            !self.entries.contains_key(&entry.record.message),
            "a delivery stands in its mailbox once"
        );
        self.count(&entry, true);
        self.entries.insert(entry.record.message, entry);
    }

    pub(crate) fn remove(&mut self, message: MessageId) -> Option<MailboxEntry> {
        let entry = self.entries.remove(&message)?;
        self.count(&entry, false);
        Some(entry)
    }

    /// Checks that the counters and indexes match the entries.
    pub(crate) fn assert_invariants(&self) {
        let mut counted = Self::default();
        for entry in self.entries.values() {
            counted.count(entry, true);
        }
        assert_eq!(
            (self.held, self.leased, self.relayed, self.window_bytes),
            (counted.held, counted.leased, counted.relayed, counted.window_bytes)
        );
        assert_eq!((&self.ready, &self.window), (&counted.ready, &counted.window));
        for message in &self.ready {
            let entry = &self.entries[message];
            assert!(entry.is_ready(), "{message} is ready while nothing keeps it from its reader");
        }
    }

    fn count(&mut self, entry: &MailboxEntry, add: bool) {
        let held = entry.record.stage == Stage::Held;
        if entry.is_ready() {
            if add {
                self.ready.insert(entry.record.message);
            } else {
                self.ready.remove(&entry.record.message);
            }
        }
        let adjust = |counter: &mut usize, by: usize| {
            *counter = if add { *counter + by } else { *counter - by }
        };
        adjust(&mut self.held, usize::from(held));
        adjust(&mut self.leased, usize::from(entry.lease.is_some()));
        adjust(&mut self.relayed, usize::from(entry.record.stage == Stage::Relayed));
        if entry.in_window() {
            if add {
                self.window.insert(entry.record.message);
            } else {
                self.window.remove(&entry.record.message);
            }
            adjust(&mut self.window_bytes, entry.record.brief.text_bytes as usize);
        }
    }
}
