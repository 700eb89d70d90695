//! All mailboxes, and the indexes and counters over their deliveries.
//!
//! Knows mailboxes. Does not know rules, nor the store. Invariant: an index has a delivery exactly
//! while its mailbox has it with that time. Every change of an entry goes through this file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

use peer_proto::ids::{BrokerId, MessageId, PeerId, Timestamp};
use peer_proto::limits::{LINK_CLOCK_MS, LINK_DAYS_MS};
use peer_proto::message::Stage;

use crate::record::DeliveryRecord;
use crate::state::mailbox::{Mailbox, MailboxEntry};
use crate::state::outgoing::Outgoing;

/// Returns the time at which this broker may end a delivery to a proxy on its own: the recipient's
/// broker cannot take it any more then.
pub(crate) fn relay_deadline(record: &DeliveryRecord) -> Timestamp {
    let aged = record.message.accepted_at().plus_ms(LINK_DAYS_MS);
    let end = record.brief.expires_at.map_or(aged, |at| at.min(aged));
    end.plus_ms(2 * LINK_CLOCK_MS)
}

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
    /// Proxies, with the brokers of their peers.
    proxies: BTreeMap<PeerId, BrokerId>,
    /// What waits to be sent to other brokers.
    outgoing: BTreeMap<BrokerId, Outgoing>,
    /// Deliveries that links brought, and the bytes of their texts.
    brought: BTreeMap<BrokerId, (usize, usize)>,
}

impl Mailboxes {
    /// Loads the pending deliveries that the store held.
    pub(crate) fn load(
        pending: Vec<DeliveryRecord>,
        dead: u64,
        proxies: BTreeMap<PeerId, BrokerId>,
    ) -> Self {
        let mut mailboxes = Self { dead, proxies, ..Self::default() };
        for record in pending {
            mailboxes.insert(MailboxEntry::new(record));
        }
        mailboxes
    }

    /// Records that this peer is a proxy. It has no mail yet.
    pub(crate) fn set_proxy(&mut self, peer: PeerId, broker: BrokerId) {
        debug_assert!(!self.by_peer.contains_key(&peer), "{peer} has mail already");
        self.proxies.insert(peer, broker);
    }

    /// Forgets that this peer was a proxy. It has no mail any more.
    pub(crate) fn remove_proxy(&mut self, peer: PeerId) {
        self.proxies.remove(&peer);
    }

    /// Returns the broker whose peer this proxy stands for.
    pub(crate) fn broker_of(&self, peer: PeerId) -> Option<BrokerId> {
        self.proxies.get(&peer).copied()
    }

    /// Returns what waits to be sent to this broker.
    pub(crate) fn outgoing(&self, broker: BrokerId) -> Option<&Outgoing> {
        self.outgoing.get(&broker)
    }

    /// Returns the time at which the delivery ends if nothing happens.
    pub(crate) fn deadline(&self, entry: &MailboxEntry) -> Option<Timestamp> {
        let record = &entry.record;
        match self.proxies.contains_key(&record.peer) {
            false => record.brief.expires_at,
            // Its reader's broker decides.
            true if record.stage == Stage::Relayed => None,
            true => Some(relay_deadline(record)),
        }
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
        if let Some(at) = self.deadline(&entry) {
            self.expiries.insert((at, message, peer));
        }
        if let Some(broker) = self.waits_to_leave(&entry) {
            let pair = (entry.record.brief.from, peer);
            let text_bytes = entry.record.brief.text_bytes as usize;
            self.outgoing.entry(broker).or_default().add(
                message,
                pair,
                text_bytes,
                entry.lease.is_some(),
            );
        }
        if let Some(at_ms) = entry.overdue_at_ms() {
            self.overdue.insert((at_ms, message, peer));
        }
        if let Some(broker) = entry.record.brief.origin {
            let (count, bytes) = self.brought.entry(broker).or_default();
            *count += 1;
            *bytes += entry.record.brief.text_bytes as usize;
        }
        self.by_peer.entry(peer).or_default().insert(entry);
    }

    pub(crate) fn remove(&mut self, peer: PeerId, message: MessageId) -> Option<MailboxEntry> {
        let mailbox = self.by_peer.get_mut(&peer)?;
        let entry = mailbox.remove(message)?;
        if mailbox.len() == 0 {
            self.by_peer.remove(&peer);
        }
        if let Some(at) = self.deadline(&entry) {
            self.expiries.remove(&(at, message, peer));
        }
        if let Some(broker) = self.waits_to_leave(&entry)
            && let Some(outgoing) = self.outgoing.get_mut(&broker)
        {
            outgoing.remove(message, (entry.record.brief.from, peer));
            if outgoing.is_empty() {
                self.outgoing.remove(&broker);
            }
        }
        if let Some(at_ms) = entry.overdue_at_ms() {
            self.overdue.remove(&(at_ms, message, peer));
        }
        if let Some(broker) = entry.record.brief.origin
            && let Some((count, bytes)) = self.brought.get_mut(&broker)
        {
            *count -= 1;
            *bytes -= entry.record.brief.text_bytes as usize;
        }
        Some(entry)
    }

    /// Returns the number of pending deliveries that a link brought, and the bytes of their texts.
    pub(crate) fn brought_by(&self, broker: BrokerId) -> (usize, usize) {
        self.brought.get(&broker).copied().unwrap_or_default()
    }

    /// Returns the broker that a delivery waits to be sent to, on its way or not.
    fn waits_to_leave(&self, entry: &MailboxEntry) -> Option<BrokerId> {
        let waits = !matches!(entry.record.stage, Stage::Held | Stage::Relayed);
        self.broker_of(entry.record.peer).filter(|_| waits)
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
