//! Receipts: what other brokers are told of the mail that they sent here.
//!
//! Knows which receipts are due, and where a delivery stands. Does not know how mail is taken.
//! Invariants: a receipt is due until its message's origin confirmed it. It is made from the delivery
//! as it stands when it is sent.

use std::collections::BTreeSet;

use peer_proto::ids::{BrokerId, MessageId, PeerId};
use peer_proto::limits::{
    LINK_CLOCK_MS, LINK_MEMORY_MS, LINK_WITHDRAWN_MAX, MESSAGES_PER_REQUEST_MAX,
};
use peer_proto::link::{DeliveryName, LinkPush, Receipt, There, Told};
use peer_proto::message::Stage;
use peer_proto::request::Push;

use crate::broker::Broker;
use crate::delivery::Transition;
use crate::input::{ConnectionId, Facts};
use crate::record::{DeliveryRecord, ReceiptKey};
use crate::step::Change;
use crate::turn::Turn;

impl Broker {
    /// Returns the receipts that are due to a broker, as the deliveries stand now.
    pub(crate) fn due_receipts(&self, broker: BrokerId, facts: &Facts) -> Vec<Receipt> {
        let due = self.links.due(broker).take(MESSAGES_PER_REQUEST_MAX);
        due.filter_map(|(key, rev)| {
            let stored = facts.stored.get(&key.message)?;
            // Another recipient may have it now, by the person's decision: it is over for this one.
            let over = There { stage: Stage::Dropped, rev, ..withdrawn_there() };
            let there = self.there(key.message, key.peer, facts).unwrap_or(over);
            let named = |id: &PeerId| stored.head.to.iter().any(|(to, _)| to == id);
            let peer = self.presence.ids_of(key.peer).into_iter().find(named);
            Some(Receipt { message: key.message, peer: peer.unwrap_or(key.peer), there })
        })
        .collect()
    }

    /// The messages whose receipts [`LinkRequest::Due`] returns.
    pub(crate) fn due_messages(&self, connection: ConnectionId) -> Vec<MessageId> {
        let Some(broker) = self.link_of(connection) else { return Vec::new() };
        let due = self.links.due(broker).take(MESSAGES_PER_REQUEST_MAX);
        due.map(|(key, _)| key.message).collect()
    }

    pub(crate) fn told(&mut self, turn: &mut Turn<'_>, broker: BrokerId, told: &[Told]) {
        for Told { message, peer, rev } in told {
            // A recipient may have become another peer since it was named.
            let ids = [Some(*peer), self.presence.current(*peer)];
            for peer in ids.into_iter().flatten().collect::<BTreeSet<_>>() {
                let key = ReceiptKey { broker, message: *message, peer };
                if self.links.remove_due(key, *rev) {
                    turn.change(Change::RemoveReceipt(key));
                }
            }
        }
    }

    /// Returns where a delivery stands here, if it is of that broker's mail.
    pub(crate) fn state_here(
        &self,
        broker: BrokerId,
        name: DeliveryName,
        facts: &Facts,
    ) -> Option<There> {
        let cancelled = self.links.is_withdrawn(broker, name.message).then(withdrawn_there);
        let delivery = self.delivery_here(name.message, name.peer, facts);
        let theirs = delivery.filter(|record| record.brief.origin == Some(broker));
        theirs.map(there_of).or(cancelled)
    }

    /// Returns where a delivery stands here.
    pub(crate) fn there(&self, message: MessageId, peer: PeerId, facts: &Facts) -> Option<There> {
        self.delivery_here(message, peer, facts).map(there_of)
    }

    fn delivery_here<'a>(
        &'a self,
        message: MessageId,
        peer: PeerId,
        facts: &'a Facts,
    ) -> Option<&'a DeliveryRecord> {
        let peer = self.presence.current(peer).unwrap_or(peer);
        let pending = self.mailboxes.get(peer, message).map(|entry| &entry.record);
        let stored = || {
            let stored = facts.stored.get(&message)?;
            self.delivery_of(&stored.deliveries, peer)
        };
        pending.or_else(stored)
    }

    /// Withdraws another broker's messages. Returns those that this broker does not have, and will
    /// not take any more.
    pub(crate) fn withdraw_remote(
        &mut self,
        turn: &mut Turn<'_>,
        broker: BrokerId,
        messages: &[MessageId],
        facts: &Facts,
    ) -> Vec<MessageId> {
        for gone in self.links.forget_withdrawn(broker, turn.now.wall) {
            turn.change(Change::RemoveWithdrawn { broker, message: gone });
        }
        let mut unknown = Vec::new();
        for message in messages.iter().copied().collect::<BTreeSet<_>>() {
            let stored = facts.stored.get(&message);
            if let Some(stored) = stored {
                self.withdraw_stored(turn, broker, stored);
                continue;
            }
            let now = turn.now.wall;
            let can_come = message.accepted_at().plus_ms(LINK_MEMORY_MS) >= now
                && message.accepted_at() <= now.plus_ms(LINK_CLOCK_MS);
            if !self.links.is_withdrawn(broker, message) && can_come {
                if self.links.withdrawn_of(broker) >= LINK_WITHDRAWN_MAX {
                    continue;
                }
                self.links.put_withdrawn(broker, message);
                turn.change(Change::PutWithdrawn { broker, message });
            }
            unknown.push(message);
        }
        unknown
    }

    pub(crate) fn withdraw_stored(
        &mut self,
        turn: &mut Turn<'_>,
        broker: BrokerId,
        stored: &crate::input::StoredMessage,
    ) {
        let message = stored.head.id;
        let theirs = |delivery: &&DeliveryRecord| delivery.brief.origin == Some(broker);
        // What was posted stays in the channel.
        let posted = stored.deliveries.iter().find(|delivery| delivery.stage == Stage::Posted);
        if let Some(posted) = posted.filter(theirs) {
            let key = ReceiptKey { broker, message, peer: posted.peer };
            return self.put_receipt(turn, key, posted.rev);
        }
        for delivery in stored.deliveries.iter().filter(theirs) {
            let peer = self.presence.current(delivery.peer).unwrap_or(delivery.peer);
            if self.mailboxes.get(peer, message).is_some() {
                self.end(turn, peer, message, Transition::Cancel(None));
                self.fill_window(turn, peer);
            } else {
                // The origin missed how it ended.
                self.put_receipt(turn, ReceiptKey { broker, message, peer }, delivery.rev);
            }
        }
        let is_theirs = stored.head.origin.is_some_and(|origin| origin.broker == broker);
        if is_theirs && self.questions.is_open(message) {
            let cancelled = peer_proto::question::QuestionState::Cancelled;
            self.close_question(turn, message, cancelled, None);
        }
    }

    /// Records that a receipt is due, and tells the link.
    pub(crate) fn put_receipt(&mut self, turn: &mut Turn<'_>, key: ReceiptKey, rev: u32) {
        if self.links.get(key.broker).is_none() {
            return;
        }
        self.links.put_due(key, rev);
        turn.change(Change::PutReceipt { key, rev });
        self.announce_due(turn, key.broker);
    }

    /// Tells a link once that receipts are due.
    pub(crate) fn announce_due(&mut self, turn: &mut Turn<'_>, broker: BrokerId) {
        let is_due = self.links.due(broker).next().is_some();
        let Some(live) = self.links.live_mut(broker) else { return };
        if is_due && !live.told_due {
            live.told_due = true;
            turn.push(live.connection, Push::Link(LinkPush::ReceiptsDue));
        }
    }
}

/// Returns where a delivery stands here, as another broker is told.
pub(crate) fn there_of(record: &DeliveryRecord) -> There {
    There {
        stage: record.stage,
        at: record.trace.last().map(|entry| entry.at).unwrap_or_default(),
        rev: record.rev,
        carrier: record.trace.iter().rev().find_map(|entry| entry.carrier),
        acked_at: record.acked_at,
    }
}

/// The state of a message that was withdrawn before it came.
pub(crate) fn withdrawn_there() -> There {
    There {
        stage: Stage::Cancelled,
        at: peer_proto::ids::Timestamp(0),
        rev: 0,
        carrier: None,
        acked_at: None,
    }
}
