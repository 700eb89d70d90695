//! All mailboxes, and the indexes and counters over their deliveries.
//!
//! Knows mailboxes. Does not know rules, nor the store. Invariant: an index has a delivery exactly
//! while its mailbox has it with that time. Every change of an entry goes through this file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::message::Stage;

use crate::record::DeliveryRecord;
use crate::state::mailbox::{Mailbox, MailboxEntry};

/// All pending deliveries, by recipient.
#[derive(Debug, Default)]
pub(crate) struct Mailboxes {
    /// An empty mailbox is not retained.
    by_peer: BTreeMap<PeerId, Mailbox>,
    /// Deliveries with a time to live, by its end.
    expiries: BTreeSet<(Timestamp, MessageId, PeerId)>,
    /// Leased deliveries that were offered, by the time of their visibility timeout, if there is a
    /// next carrier.
    overdue: BTreeSet<(u64, MessageId, PeerId)>,
    /// Dead letters in the store.
    dead: u64,
}

impl Mailboxes {
    /// Loads the pending deliveries that the store held.
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

    /// Returns mailboxes in the order of the peers.
    pub(crate) fn range(
        &self,
        peers: impl RangeBounds<PeerId>,
    ) -> impl Iterator<Item = (PeerId, &Mailbox)> {
        self.by_peer.range(peers).map(|(peer, mailbox)| (*peer, mailbox))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerId, &Mailbox)> {
        self.range(..)
    }

    /// Returns the pending messages of a peer that `wanted` selects, oldest first.
    pub(crate) fn messages(
        &self,
        peer: PeerId,
        wanted: impl Fn(&MailboxEntry) -> bool,
    ) -> Vec<MessageId> {
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

    /// Changes an entry, and updates all indexes.
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

    /// Returns the next end of a time to live.
    pub(crate) fn next_expiry(&self) -> Option<(Timestamp, MessageId, PeerId)> {
        self.expiries.first().copied()
    }

    /// Returns the next visibility timeout.
    pub(crate) fn next_overdue(&self) -> Option<(u64, MessageId, PeerId)> {
        self.overdue.first().copied()
    }

    pub(crate) fn dead(&self) -> u64 {
        self.dead
    }

    /// Counts a stage change of a delivery in the store. `None`: the store does not have it.
    pub(crate) fn count(&mut self, was: Option<Stage>, is: Option<Stage>) {
        let one_if_dead = |stage: Option<Stage>| u64::from(stage == Some(Stage::Dead));
        // Not below zero: a damaged dead letter may not have been counted.
        self.dead = (self.dead + one_if_dead(is)).saturating_sub(one_if_dead(was));
    }

    /// Returns the number of entries in the two indexes.
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
