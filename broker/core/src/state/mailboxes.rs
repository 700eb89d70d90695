//! All mailboxes, and every index and counter that follows from the deliveries in them.
//!
//! Knows mailboxes. Does not know rules, nor the store. Invariant: an index has a delivery exactly while its mailbox has it
//! with that time; whoever changes an entry does so through here.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::message::Stage;

use crate::record::DeliveryRecord;
use crate::state::mailbox::{Mailbox, MailboxEntry};

/// All that waits, by reader.
#[derive(Debug, Default)]
pub(crate) struct Mailboxes {
    /// A mailbox that is empty is not kept.
    by_peer: BTreeMap<PeerId, Mailbox>,
    /// Deliveries with a time to live, by its end.
    expiries: BTreeSet<(Timestamp, MessageId, PeerId)>,
    /// Leased deliveries that were offered, by the end of their carrier's time on the monotonic clock, where it has a successor.
    overdue: BTreeSet<(u64, MessageId, PeerId)>,
    /// Dead letters in the store.
    dead: u64,
}

impl Mailboxes {
    /// What the store held.
    pub(crate) fn load(pending: Vec<DeliveryRecord>, dead: u64) -> Self {
        let mut mailboxes = Self { dead, ..Self::default() };
        for record in pending {
            mailboxes.insert(MailboxEntry::new(record));
        }
        mailboxes
    }

    pub(crate) fn of(&self, peer: PeerId) -> Option<&Mailbox> {
        self.by_peer.get(&peer)
    }

    pub(crate) fn get(&self, peer: PeerId, message: MessageId) -> Option<&MailboxEntry> {
        self.by_peer.get(&peer)?.get(message)
    }

    /// In the order of the peers.
    pub(crate) fn range(&self, peers: impl RangeBounds<PeerId>) -> impl Iterator<Item = (PeerId, &Mailbox)> {
        self.by_peer.range(peers).map(|(peer, mailbox)| (*peer, mailbox))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerId, &Mailbox)> {
        self.range(..)
    }

    /// The messages that wait for a peer and that `wanted` names, oldest first.
    pub(crate) fn messages(&self, peer: PeerId, wanted: impl Fn(&MailboxEntry) -> bool) -> Vec<MessageId> {
        let waiting = self.of(peer).into_iter().flat_map(Mailbox::iter);
        waiting.filter(|entry| wanted(entry)).map(|entry| entry.record.message).collect()
    }

    pub(crate) fn insert(&mut self, entry: MailboxEntry) {
        let (peer, message) = (entry.record.peer, entry.record.message);
        if let Some(at) = entry.record.brief.expires_at {
            self.expiries.insert((at, message, peer));
        }
        if let Some(at_ms) = entry.overdue_at_ms() {
            self.overdue.insert((at_ms, message, peer));
        }
        self.by_peer.entry(peer).or_default().insert(entry);
    }

    pub(crate) fn remove(&mut self, peer: PeerId, message: MessageId) -> Option<MailboxEntry> {
        let mailbox = self.by_peer.get_mut(&peer)?;
        let entry = mailbox.remove(message)?;
        if mailbox.len() == 0 {
            self.by_peer.remove(&peer);
        }
        if let Some(at) = entry.record.brief.expires_at {
            self.expiries.remove(&(at, message, peer));
        }
        if let Some(at_ms) = entry.overdue_at_ms() {
            self.overdue.remove(&(at_ms, message, peer));
        }
        Some(entry)
    }

    /// Changes an entry, and keeps all indexes right.
    pub(crate) fn update<T>(
        &mut self,
        peer: PeerId,
        message: MessageId,
        change: impl FnOnce(&mut MailboxEntry) -> T,
    ) -> Option<T> {
        let mut entry = self.remove(peer, message)?;
        let result = change(&mut entry);
        self.insert(entry);
        Some(result)
    }

    /// The next end of a time to live.
    pub(crate) fn next_expiry(&self) -> Option<(Timestamp, MessageId, PeerId)> {
        self.expiries.first().copied()
    }

    /// The next end of a carrier's time.
    pub(crate) fn next_overdue(&self) -> Option<(u64, MessageId, PeerId)> {
        self.overdue.first().copied()
    }

    pub(crate) fn dead(&self) -> u64 {
        self.dead
    }

    /// A delivery of the store changes its stage; none: it is not there.
    pub(crate) fn count(&mut self, was: Option<Stage>, is: Option<Stage>) {
        let one_if_dead = |stage: Option<Stage>| u64::from(stage == Some(Stage::Dead));
        // Not below zero: a dead letter that is damaged may not have been counted.
        self.dead = (self.dead + one_if_dead(is)).saturating_sub(one_if_dead(was));
    }

    /// How many times there are in the two indexes.
    pub(crate) fn indexed(&self) -> (usize, usize) {
        (self.expiries.len(), self.overdue.len())
    }

    pub(crate) fn has_expiry(&self, at: Timestamp, message: MessageId, peer: PeerId) -> bool {
        self.expiries.contains(&(at, message, peer))
    }

    pub(crate) fn has_overdue(&self, at_ms: u64, message: MessageId, peer: PeerId) -> bool {
        self.overdue.contains(&(at_ms, message, peer))
    }
}
