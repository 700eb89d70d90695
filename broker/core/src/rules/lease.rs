//! Leases: decides which session holds which message, from the push to the evidence.
//!
//! A lease has no time limit of its own. It ends with evidence, with a nack, or with its session. A
//! visibility timeout only tells the session to try its next carrier, or that an earlier session's
//! offer proved nothing. So an idle recipient costs nothing and loses nothing.

use std::collections::BTreeSet;

use peer_proto::ids::{BrokerId, MessageId, PeerId};
use peer_proto::limits::{LEASE_WINDOW_BYTES, LEASE_WINDOW_MESSAGES, THREAD_BYTES_MAX};
use peer_proto::message::{Carrier, Cause, Evidence, Intent, Stage};
use peer_proto::request::{DeliveryEvent, Filter, Push, Received, Reply, RequestId};

use crate::broker::Broker;
use crate::check::{check_count, check_length};
use crate::delivery::Transition;
use crate::input::{ConnectionId, Facts, Now};
use crate::record::{Brief, DeliveryRecord, ReceiptKey};
use crate::rejection::{Act, Rejection};
use crate::state::channels::is_of_this_broker;
use crate::state::mailbox::{Lease, MailboxEntry};
use crate::state::presence::{Matcher, Wait};
use crate::step::{Change, Effect};
use crate::turn::Turn;
use crate::who::Caller;

/// Messages that one filtered `Receive` may lease beyond the window.
const FILTERED_MESSAGES_MAX: usize = 16;

/// Messages that the answer to one `Receive` names.
const RECEIVED_MESSAGES_MAX: usize = LEASE_WINDOW_MESSAGES;

/// Pending `Receive`s that one connection may have at once. The limit is below that of unanswered
/// requests, so that a waiting connection can still send requests.
const WAITS_MAX: usize = 32;

/// The reason why a pending delivery is settled as presented.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settlement {
    /// The carrier that the evidence proves. `None`: the carrier that had the message last.
    pub(crate) carrier: Option<Carrier>,
    pub(crate) evidence: Evidence,
    /// The reply that proves it.
    pub(crate) answer: Option<MessageId>,
    /// The session that reported the evidence, and so needs no push about it.
    pub(crate) told: Option<ConnectionId>,
}

impl Broker {
    /// Leases deliveries to the receiving session of a peer until its window is full.
    pub(crate) fn fill_window(&mut self, turn: &mut Turn<'_>, peer: PeerId) {
        let Some(reader) = self.presence.reader(peer) else {
            if let Some(broker) = self.mailboxes.broker_of(peer) {
                self.fill_link(turn, broker);
            }
            return;
        };
        while let Some(mailbox) = self.mailboxes.of(peer) {
            let (messages, bytes) = mailbox.window();
            let Some(message) = mailbox.first_ready() else { return };
            if messages >= LEASE_WINDOW_MESSAGES || bytes >= LEASE_WINDOW_BYTES {
                return;
            }
            self.lease(turn, peer, message, reader);
        }
    }

    fn lease(
        &mut self,
        turn: &mut Turn<'_>,
        peer: PeerId,
        message: MessageId,
        reader: ConnectionId,
    ) {
        let Some(entry) = self.mailboxes.get(peer, message) else { return };
        turn.effect(Effect::Deliver {
            connection: reader,
            message,
            attempts: entry.record.attempts,
            shown_before: entry.shown_before(),
        });
        // The carrier of an earlier session gets its visibility timeout here too.
        let timeout_ms = u64::from(self.config.limits.visibility_timeout_ms);
        let overdue_at_ms =
            entry.record.offered_last_by().map(|_| turn.now.mono_ms.saturating_add(timeout_ms));
        let lease = Lease { holder: reader, at: turn.now.wall, offered: None, overdue_at_ms };
        self.advance(turn, peer, message, &[Transition::Lease(lease)], None);
    }

    pub(crate) fn receive(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        filter: &Filter,
        wait: bool,
    ) -> Result<(), Rejection> {
        let peer = self.session_peer(caller)?;
        check_length("the thread", filter.thread.as_deref().unwrap_or(""), THREAD_BYTES_MAX)?;
        let from = filter
            .from
            .as_deref()
            .map(|name| self.presence.resolve(name, Some(peer)))
            .transpose()?;
        let from = from.map(|from| self.presence.ids_of(from)).unwrap_or_default();
        let matcher = Matcher {
            from,
            thread: filter.thread.clone(),
            kind: filter.kind,
            reply_to: filter.reply_to,
        };
        let waiting =
            self.presence.connections.get(&caller.connection).map_or(0, |open| open.waits.len());
        if wait && waiting >= WAITS_MAX {
            return Err(Rejection::TooManyWaits { waits: waiting });
        }
        let received = self.received(turn, peer, caller.connection, &matcher);
        if wait && received.messages.is_empty() {
            if let Some(open) = self.presence.connections.get_mut(&caller.connection) {
                open.waits.push(Wait { id: caller.id, filter: matcher });
            }
        } else {
            turn.reply(caller, Reply::Received(received));
        }
        Ok(())
    }

    /// Leases the matching deliveries, and returns those that the session on this connection holds.
    /// Returns none if another adapter of the same client is the receiving session.
    fn received(
        &mut self,
        turn: &mut Turn<'_>,
        peer: PeerId,
        connection: ConnectionId,
        matcher: &Matcher,
    ) -> Received {
        let Some(mailbox) = self.mailboxes.of(peer) else {
            return Received { messages: Vec::new(), waiting: 0 };
        };
        let takes_mail = self.presence.reader(peer) == Some(connection);
        // Without a filter, the window is the answer, and nothing beyond it is read.
        if *matcher == Matcher::default() {
            let messages = mailbox
                .in_window()
                .take(if takes_mail { RECEIVED_MESSAGES_MAX } else { 0 })
                .collect();
            return Received { messages, waiting: (mailbox.len() - mailbox.held()) as u64 };
        }
        let matching: Vec<MessageId> = mailbox
            .iter()
            .filter(|entry| {
                entry.record.stage != Stage::Held && matcher.matches(&entry.record.brief)
            })
            .map(|entry| entry.record.message)
            .collect();
        let beyond: Vec<MessageId> = matching
            .iter()
            .copied()
            .filter(|message| mailbox.is_ready(*message))
            .take(FILTERED_MESSAGES_MAX)
            .collect();
        if takes_mail {
            for message in beyond {
                self.lease(turn, peer, message, connection);
            }
        }
        let held = |message: &MessageId| {
            let lease = self.mailboxes.get(peer, *message).and_then(|entry| entry.lease);
            lease.is_some_and(|lease| lease.holder == connection)
        };
        let messages = matching.iter().copied().filter(held).take(RECEIVED_MESSAGES_MAX).collect();
        Received { messages, waiting: matching.len() as u64 }
    }

    /// Answers the pending `Receive`s that a new message completes. A request completes all of
    /// them, so that two sessions that wait for each other do not block.
    pub(crate) fn wake_waits(&mut self, turn: &mut Turn<'_>, peer: PeerId, brief: &Brief) {
        for connection in self.presence.sessions_of(peer).to_vec() {
            let Some(open) = self.presence.connections.get_mut(&connection) else { continue };
            let ends = |wait: &Wait| brief.intent == Intent::Request || wait.filter.matches(brief);
            let (ended, waits) = std::mem::take(&mut open.waits).into_iter().partition(ends);
            open.waits = waits;
            for wait in ended as Vec<Wait> {
                let received = self.received(turn, peer, connection, &wait.filter);
                turn.reply_to(connection, wait.id, Reply::Received(received));
            }
        }
    }

    /// Answers the pending `Receive`s of a new session with mail that was there before.
    pub(crate) fn review_waits(
        &mut self,
        turn: &mut Turn<'_>,
        peer: PeerId,
        connection: ConnectionId,
    ) {
        let Some(open) = self.presence.connections.get_mut(&connection) else { return };
        let mut kept = std::mem::take(&mut open.waits);
        kept.retain(|wait| {
            let received = self.received(turn, peer, connection, &wait.filter);
            let go_on = received.messages.is_empty();
            if !go_on {
                turn.reply_to(connection, wait.id, Reply::Received(received));
            }
            go_on
        });
        if let Some(open) = self.presence.connections.get_mut(&connection) {
            open.waits = kept;
        }
    }

    pub(crate) fn stop_waiting(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        id: RequestId,
    ) -> Result<(), Rejection> {
        self.session_peer(caller)?;
        if let Some(open) = self.presence.connections.get_mut(&caller.connection)
            && let Some(place) = open.waits.iter().position(|wait| wait.id == id)
        {
            open.waits.remove(place);
            turn.reply_to(
                caller.connection,
                id,
                Reply::Received(Received { messages: Vec::new(), waiting: 0 }),
            );
        }
        turn.reply(caller, Reply::Done);
        Ok(())
    }

    pub(crate) fn offered(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        messages: &[MessageId],
        carrier: Carrier,
        last: bool,
    ) -> Result<(), Rejection> {
        let peer = self.session_peer(caller)?;
        check_count(messages)?;
        let timeout_ms = u64::from(self.config.limits.visibility_timeout_ms);
        let overdue_at_ms = (!last).then(|| turn.now.mono_ms.saturating_add(timeout_ms));
        let mut offered_any = false;
        for message in messages {
            // A delivery that was settled meanwhile, or went to another session, is not this
            // session's to offer.
            if !self.holds(caller.connection, peer, *message) {
                self.note_late_offer(turn, peer, *message, carrier);
                continue;
            }
            offered_any = true;
            self.advance(
                turn,
                peer,
                *message,
                &[Transition::Offer { carrier, overdue_at_ms }],
                None,
            );
        }
        if offered_any {
            self.record_carrier(caller.connection, carrier, None);
        }
        turn.reply(caller, Reply::Done);
        self.fill_window(turn, peer);
        Ok(())
    }

    /// Records the offer of a session that no longer holds the message: another adapter of its
    /// client took the message over while the offer was on its way. That adapter is told that the
    /// message is a repeat.
    fn note_late_offer(
        &mut self,
        turn: &mut Turn<'_>,
        peer: PeerId,
        message: MessageId,
        carrier: Carrier,
    ) {
        let is_unseen = |entry: &MailboxEntry| {
            entry.record.stage == Stage::Stored && !entry.record.was_offered()
        };
        if !self.mailboxes.get(peer, message).is_some_and(is_unseen) {
            return;
        }
        let (at, now_ms) = (turn.now.wall, turn.now.mono_ms);
        let overdue_at_ms = now_ms.saturating_add(self.config.limits.visibility_timeout_ms.into());
        let noted = self.mailboxes.update(peer, message, |entry| {
            entry.record.note_offer(carrier, at);
            let holder = entry.lease.as_mut().map(|lease| {
                lease.overdue_at_ms = Some(overdue_at_ms);
                lease.holder
            });
            (entry.record.clone(), holder)
        });
        let Some((record, holder)) = noted else { return };
        self.put_delivery(turn, &record, Some(record.stage));
        self.emit_delivery(turn, DeliveryEvent::Offered { carrier }, &record);
        if let Some(connection) = holder {
            let attempts = record.attempts;
            turn.effect(Effect::Deliver { connection, message, attempts, shown_before: true });
        }
    }

    /// Records that the client showed an event after these messages were offered.
    pub(crate) fn tried(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        messages: &[MessageId],
    ) -> Result<(), Rejection> {
        let peer = self.session_peer(caller)?;
        check_count(messages)?;
        self.record_tried(caller, peer, messages);
        turn.reply(caller, Reply::Done);
        Ok(())
    }

    /// Records that a model may have been asked with these messages. If this session offered them,
    /// its end counts as an attempt.
    pub(crate) fn record_tried(&mut self, caller: Caller, peer: PeerId, messages: &[MessageId]) {
        for message in messages {
            let is_offered = |entry: &MailboxEntry| {
                entry.lease.is_some_and(|lease| {
                    lease.holder == caller.connection && lease.offered.is_some()
                })
            };
            if self.mailboxes.get(peer, *message).is_some_and(is_offered) {
                self.mailboxes.update(peer, *message, |entry| entry.tried = true);
            }
        }
    }

    pub(crate) fn presented(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        messages: &[MessageId],
        carrier: Carrier,
        evidence: Evidence,
    ) -> Result<(), Rejection> {
        let peer = caller.mail_owner(Act::SettlePersonsMail)?;
        check_count(messages)?;
        let mut proved_any = false;
        for message in messages {
            // Evidence needs an offer: a message that never left the broker is not settled by it.
            let offered = |entry: &MailboxEntry| {
                entry.lease.is_some()
                    || entry.record.stage == Stage::Offered
                    || peer == PeerId::HUMAN
            };
            if self.mailboxes.get(peer, *message).is_some_and(offered) {
                let proof = Settlement {
                    carrier: Some(carrier),
                    evidence,
                    answer: None,
                    told: Some(caller.connection),
                };
                self.settle_presented(turn, peer, *message, proof);
                proved_any = true;
            }
        }
        // A delivery that was settled before, or that this session never held, does not prove a
        // carrier.
        if proved_any {
            self.record_carrier(caller.connection, carrier, Some(turn.now));
        }
        turn.reply(caller, Reply::Done);
        self.fill_window(turn, peer);
        Ok(())
    }

    pub(crate) fn ack(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        mut messages: Vec<MessageId>,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        let peer = caller.mail_owner(Act::AckPersonsMail)?;
        check_count(&messages)?;
        // Look up each message once: after its first turn the facts are outdated.
        let mut named = BTreeSet::new();
        messages.retain(|message| named.insert(*message));
        let (mut acked, mut unknown) = (Vec::new(), Vec::new());
        for message in messages {
            let waits = self.mailboxes.get(peer, message).map(|entry| &entry.record);
            let stored = || {
                facts
                    .stored
                    .get(&message)
                    .and_then(|stored| self.delivery_of(&stored.deliveries, peer))
            };
            let known = waits.or_else(stored);
            // The recipient was never shown a message that was held and not released, and must not
            // learn of it.
            let Some(known) = known.filter(|known| !known.is_kept_back()) else {
                unknown.push(message);
                continue;
            };
            if waits.is_some() {
                let proof =
                    Settlement { carrier: None, evidence: Evidence::Ack, answer: None, told: None };
                self.settle_presented(turn, peer, message, proof);
            } else {
                let settled = known.clone();
                if settled.acked_at.is_none() {
                    self.receipt(turn, settled, Evidence::Ack, Transition::Ack);
                }
            }
            acked.push(message);
        }
        turn.reply(caller, Reply::Acked { acked, unknown });
        self.fill_window(turn, peer);
        Ok(())
    }

    /// Records a receipt for a delivery that is no longer pending. A receipt for a dead letter
    /// settles it as presented.
    pub(crate) fn receipt(
        &mut self,
        turn: &mut Turn<'_>,
        mut record: DeliveryRecord,
        evidence: Evidence,
        receipt: Transition,
    ) {
        let was = record.stage;
        if was == Stage::Dead {
            self.apply(turn, &mut record, Transition::Present { carrier: None, evidence });
        }
        self.apply(turn, &mut record, receipt);
        self.put_delivery(turn, &record, Some(was));
    }

    pub(crate) fn nack(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        messages: &[MessageId],
    ) -> Result<(), Rejection> {
        let peer = self.session_peer(caller)?;
        check_count(messages)?;
        if let Some(foreign) =
            messages.iter().find(|message| !self.holds(caller.connection, peer, **message))
        {
            return Err(Rejection::NotLeased(*foreign));
        }
        for message in messages {
            // A message that is named twice is given back once.
            if !self.holds(caller.connection, peer, *message) {
                continue;
            }
            let is_offered = self
                .mailboxes
                .get(peer, *message)
                .is_some_and(|entry| entry.record.stage == Stage::Offered);
            let transition =
                if is_offered { Transition::Return(Cause::Nack) } else { Transition::Unlease };
            self.advance(turn, peer, *message, &[transition], None);
        }
        turn.reply(caller, Reply::Done);
        self.fill_window(turn, peer);
        Ok(())
    }

    /// Settles a pending delivery on evidence.
    pub(crate) fn settle_presented(
        &mut self,
        turn: &mut Turn<'_>,
        peer: PeerId,
        message: MessageId,
        proof: Settlement,
    ) {
        let Some(lease) = self.mailboxes.get(peer, message).map(|entry| entry.lease) else {
            return;
        };
        let carrier = proof.carrier.or_else(|| lease.and_then(|lease| lease.offered));
        if let (Some(lease), Some(carrier)) = (lease, carrier) {
            self.record_carrier(lease.holder, carrier, Some(turn.now));
        }
        let presented = Transition::Present { carrier, evidence: proof.evidence };
        let acked = (proof.evidence == Evidence::Ack).then_some(Transition::Ack);
        let transitions = [Some(presented), acked, proof.answer.map(Transition::Answer)];
        let transitions: Vec<_> = transitions.into_iter().flatten().collect();
        self.advance(turn, peer, message, &transitions, proof.told);
    }

    /// Whether the session on this connection holds this delivery.
    fn holds(&self, connection: ConnectionId, peer: PeerId, message: MessageId) -> bool {
        let lease = self.mailboxes.get(peer, message).and_then(|entry| entry.lease);
        lease.is_some_and(|lease| lease.holder == connection)
    }

    /// Applies transitions to a pending delivery in memory, in the store, and at the watchers.
    /// Returns the entry if they settled it. Notifies the session that holds it, unless `told` is
    /// that session.
    pub(crate) fn advance(
        &mut self,
        turn: &mut Turn<'_>,
        peer: PeerId,
        message: MessageId,
        transitions: &[Transition],
        told: Option<ConnectionId>,
    ) -> Option<MailboxEntry> {
        let mut entry = self.mailboxes.remove(peer, message)?;
        let was = entry.record.stage;
        for transition in transitions {
            if let Some(news) = entry.apply(*transition, turn.now.wall) {
                self.emit_delivery(turn, news, &entry.record);
            }
        }
        if transitions.iter().any(|transition| transition.is_durable()) {
            self.put_delivery(turn, &entry.record, Some(was));
        }
        if entry.record.stage.is_pending() {
            self.mailboxes.insert(entry);
            return None;
        }
        self.withdraw(turn, &entry, told);
        Some(entry)
    }

    /// Applies a transition to a delivery that is in no mailbox. The caller stores it.
    pub(crate) fn apply(
        &self,
        turn: &mut Turn<'_>,
        record: &mut DeliveryRecord,
        transition: Transition,
    ) {
        if let Some(news) = record.apply(transition, turn.now.wall) {
            self.emit_delivery(turn, news, record);
        }
    }

    /// Stores a delivery. `was`: its stage in the store. `None`: the store does not have it.
    pub(crate) fn put_delivery(
        &mut self,
        turn: &mut Turn<'_>,
        record: &DeliveryRecord,
        was: Option<Stage>,
    ) {
        self.mailboxes.count(was, Some(record.stage));
        turn.change(Change::PutDelivery { record: Box::new(record.clone()), was });
        // The answer to the link tells of a new delivery.
        if let (Some(broker), Some(_)) = (receipt_for(record), was) {
            let key = ReceiptKey { broker, message: record.message, peer: record.peer };
            self.put_receipt(turn, key, record.rev);
        }
    }

    /// Removes a delivery from the store. `record` is its state there.
    pub(crate) fn remove_delivery(&mut self, turn: &mut Turn<'_>, record: &DeliveryRecord) {
        self.mailboxes.count(Some(record.stage), None);
        turn.change(Change::RemoveDelivery {
            message: record.message,
            peer: record.peer,
            was: record.stage,
        });
        if let Some(broker) = receipt_for(record) {
            let key = ReceiptKey { broker, message: record.message, peer: record.peer };
            self.put_receipt(turn, key, record.rev.saturating_add(1));
        }
    }

    /// Tells the session that held a delivery that it does not hold it any more. Skips the session
    /// that reported the end.
    fn withdraw(&self, turn: &mut Turn<'_>, entry: &MailboxEntry, told: Option<ConnectionId>) {
        // A holder without a session is ending, and knows already.
        let here = |lease: &Lease| self.presence.session(lease.holder).is_some();
        if let Some(lease) = entry.lease.filter(|lease| Some(lease.holder) != told && here(lease)) {
            turn.push(
                lease.holder,
                Push::Withdrawn { message: entry.record.message, stage: entry.record.stage },
            );
        }
    }

    /// Ends the leases of a session that ended. A delivery that a model may have been asked with
    /// counts an attempt. The others are ready again.
    pub(crate) fn return_leases(
        &mut self,
        turn: &mut Turn<'_>,
        peer: PeerId,
        holder: ConnectionId,
    ) {
        let is_held =
            |entry: &MailboxEntry| entry.lease.is_some_and(|lease| lease.holder == holder);
        let offered = self
            .mailboxes
            .messages(peer, |entry| is_held(entry) && entry.record.stage == Stage::Offered);
        for message in self
            .mailboxes
            .messages(peer, |entry| is_held(entry) && entry.record.stage != Stage::Offered)
        {
            self.advance(turn, peer, message, &[Transition::Unlease], None);
        }
        self.count_attempts(turn, peer, offered);
    }

    /// Counts attempts after a session ended with these messages offered and not proved. It is an
    /// attempt only if a model may have been asked with the message. A session without an event
    /// since the offer, such as one closed at once, proves nothing. Messages with too many attempts
    /// become dead letters last. Their sender gets a notice, and a sender that is also the
    /// recipient gets the other messages first.
    pub(crate) fn count_attempts(
        &mut self,
        turn: &mut Turn<'_>,
        peer: PeerId,
        messages: Vec<MessageId>,
    ) {
        let attempts_max = self.config.limits.attempts_max;
        let (spent, others): (Vec<_>, Vec<_>) = messages.into_iter().partition(|message| {
            let entry = self.mailboxes.get(peer, *message);
            entry.is_some_and(|entry| entry.tried && entry.record.attempts + 1 >= attempts_max)
        });
        for message in others {
            self.advance(turn, peer, message, &[Transition::Return(Cause::SessionEnded)], None);
        }
        for message in spent {
            self.dead_letter(turn, peer, message, Cause::AttemptsExceeded);
        }
    }

    /// Tells sessions to try the next carrier after a visibility timeout. Each is told once per
    /// timeout.
    pub(crate) fn report_overdue(&mut self, turn: &mut Turn<'_>) {
        while let Some((_, message, peer)) =
            self.mailboxes.next_overdue().filter(|(at_ms, ..)| *at_ms <= turn.now.mono_ms)
        {
            let lease = self.mailboxes.update(peer, message, |entry| {
                if let Some(lease) = &mut entry.lease {
                    lease.overdue_at_ms = None;
                }
                entry.lease.map(|lease| {
                    (lease.holder, lease.offered.or_else(|| entry.record.offered_last_by()))
                })
            });
            if let Some((holder, Some(carrier))) = lease.flatten() {
                turn.push(holder, Push::Overdue { message, carrier });
            }
        }
    }

    fn record_carrier(&mut self, connection: ConnectionId, carrier: Carrier, proven: Option<Now>) {
        if let Some(session) =
            self.presence.connections.get_mut(&connection).and_then(|open| open.session.as_mut())
        {
            let proof = session.proofs.entry(carrier).or_insert(None);
            if let Some(now) = proven {
                *proof = Some(now.wall);
            }
        }
    }
}

/// Returns the broker that is told of a delivery. The origin of a post is told that it is in the
/// channel, and not how it fares at each member.
fn receipt_for(record: &DeliveryRecord) -> Option<BrokerId> {
    let in_channel = record.brief.channel.as_deref().is_some_and(is_of_this_broker);
    record.brief.origin.filter(|_| !in_channel || record.peer.is_channel())
}
