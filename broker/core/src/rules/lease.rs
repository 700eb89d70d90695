//! Leases: which session holds which message, from the push to the evidence.
//!
//! A lease has no time of its own. It ends with evidence, with a nack, or with its session; a visibility timeout only
//! tells the session to try its next carrier, or that what an earlier session offered proved nothing. So an idle reader
//! costs nothing and kills nothing.

use std::collections::BTreeSet;

use peer_proto::ids::{MessageId, PeerId};
use peer_proto::limits::{LEASE_WINDOW_BYTES, LEASE_WINDOW_MESSAGES, THREAD_BYTES_MAX};
use peer_proto::message::{Carrier, Cause, Evidence, Intent, Stage};
use peer_proto::request::{Filter, Push, Received, Reply, RequestId};

use crate::broker::Broker;
use crate::check::{check_count, check_length};
use crate::delivery::Transition;
use crate::input::{ConnectionId, Facts, Now};
use crate::record::{Brief, DeliveryRecord};
use crate::rejection::Rejection;
use crate::state::mailbox::{Entry, Lease};
use crate::state::presence::{Matcher, Wait};
use crate::step::{Change, Effect, Step};
use crate::who::Caller;

/// Messages that one filtered `Receive` may lease beyond the window.
const FILTERED_MESSAGES_MAX: usize = 16;

/// Messages that the answer to one `Receive` names.
const RECEIVED_MESSAGES_MAX: usize = LEASE_WINDOW_MESSAGES;

/// `Receive`s of one connection whose answers may be kept back at once: fewer than the requests that may be unanswered,
/// so that a connection that waits can still ask.
const WAITS_MAX: usize = 32;

/// Why a pending delivery is settled as presented.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proof {
    /// The carrier that is proved by it; absent: the one that had the message last.
    pub(crate) carrier: Option<Carrier>,
    pub(crate) evidence: Evidence,
    /// The reply that proves it.
    pub(crate) answer: Option<MessageId>,
    /// The session that said so, and need not be told.
    pub(crate) told: Option<ConnectionId>,
}

impl Broker {
    /// Pushes what waits for a peer to the session that takes its mail, as far as the window goes.
    pub(crate) fn pump(&mut self, now: Now, peer: PeerId, step: &mut Step) {
        let Some(reader) = self.presence.reader(peer) else { return };
        while let Some(mailbox) = self.mailboxes.of(peer) {
            let (messages, bytes) = mailbox.window();
            let Some(message) = mailbox.first_ready() else { return };
            if messages >= LEASE_WINDOW_MESSAGES || bytes >= LEASE_WINDOW_BYTES {
                return;
            }
            self.lease(now, peer, message, reader, step);
        }
    }

    fn lease(&mut self, now: Now, peer: PeerId, message: MessageId, reader: ConnectionId, step: &mut Step) {
        let Some(entry) = self.mailboxes.get(peer, message) else { return };
        step.effects.push(Effect::Deliver {
            connection: reader,
            message,
            attempts: entry.record.attempts,
            shown_before: entry.shown_before(),
        });
        // What a carrier of an earlier session may have brought has its time here too.
        let timeout_ms = u64::from(self.config.limits.visibility_timeout_ms);
        let overdue_at_ms = entry.record.offered_last_by().map(|_| now.mono_ms.saturating_add(timeout_ms));
        let lease = Lease { holder: reader, at: now.wall, offered: None, overdue_at_ms };
        self.advance(now, peer, message, &[Transition::Lease(lease)], None, step);
    }

    pub(crate) fn receive(
        &mut self,
        now: Now,
        caller: Caller,
        filter: &Filter,
        wait: bool,
        step: &mut Step,
    ) -> Result<(), Rejection> {
        let peer = self.session_peer(caller)?;
        check_length("the thread", filter.thread.as_deref().unwrap_or(""), THREAD_BYTES_MAX)?;
        let from = filter.from.as_deref().map(|name| self.presence.resolve(name, Some(peer))).transpose()?;
        let from = from.map(|from| self.presence.ids_of(from)).unwrap_or_default();
        let matcher = Matcher { from, thread: filter.thread.clone(), kind: filter.kind, reply_to: filter.reply_to };
        let waiting = self.presence.connections.get(&caller.connection).map_or(0, |open| open.waits.len());
        if wait && waiting >= WAITS_MAX {
            return Err(Rejection::TooManyWaits { waits: waiting });
        }
        let received = self.received(now, peer, caller.connection, &matcher, step);
        if wait && received.messages.is_empty() {
            if let Some(open) = self.presence.connections.get_mut(&caller.connection) {
                open.waits.push(Wait { id: caller.id, filter: matcher });
            }
        } else {
            step.reply(caller.connection, caller.id, Reply::Received(received));
        }
        Ok(())
    }

    /// Leases what matches, and says what of it the session on this connection holds: nothing, where another adapter of
    /// the same client takes the mail.
    fn received(&mut self, now: Now, peer: PeerId, connection: ConnectionId, matcher: &Matcher, step: &mut Step) -> Received {
        let Some(mailbox) = self.mailboxes.of(peer) else { return Received { messages: Vec::new(), waiting: 0 } };
        let takes_mail = self.presence.reader(peer) == Some(connection);
        // Without a filter the window is the answer: nothing is looked at beyond it.
        if *matcher == Matcher::default() {
            let messages = mailbox.in_window().take(if takes_mail { RECEIVED_MESSAGES_MAX } else { 0 }).collect();
            return Received { messages, waiting: (mailbox.len() - mailbox.held()) as u64 };
        }
        let matching: Vec<MessageId> = mailbox
            .iter()
            .filter(|entry| entry.record.stage != Stage::Held && matcher.matches(&entry.record.brief))
            .map(|entry| entry.record.message)
            .collect();
        let beyond: Vec<MessageId> =
            matching.iter().copied().filter(|message| mailbox.is_ready(*message)).take(FILTERED_MESSAGES_MAX).collect();
        if takes_mail {
            for message in beyond {
                self.lease(now, peer, message, connection, step);
            }
        }
        let held = |message: &MessageId| {
            let lease = self.mailboxes.get(peer, *message).and_then(|entry| entry.lease);
            lease.is_some_and(|lease| lease.holder == connection)
        };
        let messages = matching.iter().copied().filter(held).take(RECEIVED_MESSAGES_MAX).collect();
        Received { messages, waiting: matching.len() as u64 }
    }

    /// Answers the kept-back `Receive`s that a new message is the end of: those that it matches, and, if it is a request,
    /// all of them, so that two sessions that wait for each other do not starve.
    pub(crate) fn wake_waits(&mut self, now: Now, peer: PeerId, brief: &Brief, step: &mut Step) {
        for connection in self.presence.sessions_of(peer).to_vec() {
            let Some(open) = self.presence.connections.get_mut(&connection) else { continue };
            let ends = |wait: &Wait| brief.intent == Intent::Request || wait.filter.matches(brief);
            let (ended, waits) = std::mem::take(&mut open.waits).into_iter().partition(ends);
            open.waits = waits;
            for wait in ended as Vec<Wait> {
                let received = self.received(now, peer, connection, &wait.filter, step);
                step.reply(connection, wait.id, Reply::Received(received));
            }
        }
    }

    /// Answers the kept-back `Receive`s of a session that has come by mail which was there before.
    pub(crate) fn review_waits(&mut self, now: Now, peer: PeerId, connection: ConnectionId, step: &mut Step) {
        let Some(open) = self.presence.connections.get_mut(&connection) else { return };
        let mut kept = std::mem::take(&mut open.waits);
        kept.retain(|wait| {
            let received = self.received(now, peer, connection, &wait.filter, step);
            let go_on = received.messages.is_empty();
            if !go_on {
                step.reply(connection, wait.id, Reply::Received(received));
            }
            go_on
        });
        if let Some(open) = self.presence.connections.get_mut(&connection) {
            open.waits = kept;
        }
    }

    pub(crate) fn stop_waiting(&mut self, caller: Caller, id: RequestId, step: &mut Step) -> Result<(), Rejection> {
        self.session_peer(caller)?;
        if let Some(open) = self.presence.connections.get_mut(&caller.connection)
            && let Some(place) = open.waits.iter().position(|wait| wait.id == id)
        {
            open.waits.remove(place);
            step.reply(caller.connection, id, Reply::Received(Received { messages: Vec::new(), waiting: 0 }));
        }
        step.reply(caller.connection, caller.id, Reply::Done);
        Ok(())
    }

    pub(crate) fn offered(
        &mut self,
        now: Now,
        caller: Caller,
        messages: &[MessageId],
        carrier: Carrier,
        last: bool,
        step: &mut Step,
    ) -> Result<(), Rejection> {
        let peer = self.session_peer(caller)?;
        check_count(messages)?;
        let timeout_ms = u64::from(self.config.limits.visibility_timeout_ms);
        let overdue_at_ms = (!last).then(|| now.mono_ms.saturating_add(timeout_ms));
        let mut offered_any = false;
        for message in messages {
            // What was settled meanwhile, or is another session's, is no longer this session's to offer.
            if !self.holds(caller.connection, peer, *message) {
                continue;
            }
            offered_any = true;
            self.advance(now, peer, *message, &[Transition::Offer { carrier, overdue_at_ms }], None, step);
        }
        if offered_any {
            self.note_carrier(caller.connection, carrier, None);
        }
        step.reply(caller.connection, caller.id, Reply::Done);
        self.pump(now, peer, step);
        Ok(())
    }

    /// The client showed an event after these were offered.
    pub(crate) fn tried(&mut self, caller: Caller, messages: &[MessageId], step: &mut Step) -> Result<(), Rejection> {
        let peer = self.session_peer(caller)?;
        check_count(messages)?;
        self.note_tried(caller, peer, messages);
        step.reply(caller.connection, caller.id, Reply::Done);
        Ok(())
    }

    /// A model may have been asked with these: of each that this session offered, its end is an attempt.
    pub(crate) fn note_tried(&mut self, caller: Caller, peer: PeerId, messages: &[MessageId]) {
        for message in messages {
            let is_offered =
                |entry: &Entry| entry.lease.is_some_and(|lease| lease.holder == caller.connection && lease.offered.is_some());
            if self.mailboxes.get(peer, *message).is_some_and(is_offered) {
                self.mailboxes.update(peer, *message, |entry| entry.tried = true);
            }
        }
    }

    pub(crate) fn presented(
        &mut self,
        now: Now,
        caller: Caller,
        messages: &[MessageId],
        carrier: Carrier,
        evidence: Evidence,
        step: &mut Step,
    ) -> Result<(), Rejection> {
        let peer = caller.mail_owner("settling the person's mail")?;
        check_count(messages)?;
        let mut proved_any = false;
        for message in messages {
            // Evidence needs something that was shown: a message that never left the broker is not settled by it.
            let offered = |entry: &Entry| entry.lease.is_some() || entry.record.stage == Stage::Offered || peer == PeerId::HUMAN;
            if self.mailboxes.get(peer, *message).is_some_and(offered) {
                let proof = Proof { carrier: Some(carrier), evidence, answer: None, told: Some(caller.connection) };
                self.settle_presented(now, peer, *message, proof, step);
                proved_any = true;
            }
        }
        // What was settled before, or never was this session's, proves nothing of a carrier.
        if proved_any {
            self.note_carrier(caller.connection, carrier, Some(now));
        }
        step.reply(caller.connection, caller.id, Reply::Done);
        self.pump(now, peer, step);
        Ok(())
    }

    pub(crate) fn ack(
        &mut self,
        now: Now,
        caller: Caller,
        mut messages: Vec<MessageId>,
        facts: &Facts,
        step: &mut Step,
    ) -> Result<(), Rejection> {
        let peer = caller.mail_owner("acknowledging the person's mail")?;
        check_count(&messages)?;
        // What is named twice must not be looked up a second time: the facts are older than its first turn.
        let mut named = BTreeSet::new();
        messages.retain(|message| named.insert(*message));
        let (mut acked, mut unknown) = (Vec::new(), Vec::new());
        for message in messages {
            let waits = self.mailboxes.get(peer, message).map(|entry| &entry.record);
            let stored = || facts.stored.get(&message).and_then(|stored| self.delivery_of(&stored.deliveries, peer));
            let known = waits.or_else(stored);
            // What was held and not let go, its reader was not shown and does not know.
            let Some(known) = known.filter(|known| !known.is_kept_back()) else {
                unknown.push(message);
                continue;
            };
            if waits.is_some() {
                let proof = Proof { carrier: None, evidence: Evidence::Ack, answer: None, told: None };
                self.settle_presented(now, peer, message, proof, step);
            } else {
                let settled = known.clone();
                if settled.acked_at.is_none() {
                    self.receipt(now, settled, Evidence::Ack, Transition::Ack, step);
                }
            }
            acked.push(message);
        }
        step.reply(caller.connection, caller.id, Reply::Acked { acked, unknown });
        self.pump(now, peer, step);
        Ok(())
    }

    /// A receipt for what is no longer pending. A dead letter whose reader did see it is settled by that.
    pub(crate) fn receipt(
        &mut self,
        now: Now,
        mut record: DeliveryRecord,
        evidence: Evidence,
        receipt: Transition,
        step: &mut Step,
    ) {
        let was = record.stage;
        if was == Stage::Dead {
            self.apply(now, &mut record, Transition::Present { carrier: None, evidence }, step);
        }
        self.apply(now, &mut record, receipt, step);
        self.put_delivery(&record, Some(was), step);
    }

    pub(crate) fn nack(&mut self, now: Now, caller: Caller, messages: &[MessageId], step: &mut Step) -> Result<(), Rejection> {
        let peer = self.session_peer(caller)?;
        check_count(messages)?;
        if let Some(foreign) = messages.iter().find(|message| !self.holds(caller.connection, peer, **message)) {
            return Err(Rejection::NotLeased(*foreign));
        }
        for message in messages {
            // A message that is named twice is given back once.
            if !self.holds(caller.connection, peer, *message) {
                continue;
            }
            let is_offered = self.mailboxes.get(peer, *message).is_some_and(|entry| entry.record.stage == Stage::Offered);
            let transition = if is_offered { Transition::Return(Cause::Nack) } else { Transition::Unlease };
            self.advance(now, peer, *message, &[transition], None, step);
        }
        step.reply(caller.connection, caller.id, Reply::Done);
        self.pump(now, peer, step);
        Ok(())
    }

    /// Settles a pending delivery on evidence.
    pub(crate) fn settle_presented(&mut self, now: Now, peer: PeerId, message: MessageId, proof: Proof, step: &mut Step) {
        let Some(lease) = self.mailboxes.get(peer, message).map(|entry| entry.lease) else { return };
        let carrier = proof.carrier.or_else(|| lease.and_then(|lease| lease.offered));
        if let (Some(lease), Some(carrier)) = (lease, carrier) {
            self.note_carrier(lease.holder, carrier, Some(now));
        }
        let presented = Transition::Present { carrier, evidence: proof.evidence };
        let acked = (proof.evidence == Evidence::Ack).then_some(Transition::Ack);
        let transitions = [Some(presented), acked, proof.answer.map(Transition::Answer)];
        let transitions: Vec<_> = transitions.into_iter().flatten().collect();
        self.advance(now, peer, message, &transitions, proof.told, step);
    }

    /// Whether the session on this connection holds this delivery.
    fn holds(&self, connection: ConnectionId, peer: PeerId, message: MessageId) -> bool {
        let lease = self.mailboxes.get(peer, message).and_then(|entry| entry.lease);
        lease.is_some_and(|lease| lease.holder == connection)
    }

    /// Carries out transitions of a pending delivery: in memory, in the store, and at the watchers. Returns the entry where
    /// they settled it. Then whoever holds it is told, unless that is `told`, which said so.
    pub(crate) fn advance(
        &mut self,
        now: Now,
        peer: PeerId,
        message: MessageId,
        transitions: &[Transition],
        told: Option<ConnectionId>,
        step: &mut Step,
    ) -> Option<Entry> {
        let mut entry = self.mailboxes.remove(peer, message)?;
        let was = entry.record.stage;
        for transition in transitions {
            if let Some(news) = entry.apply(*transition, now.wall) {
                self.tell(now.wall, news, &entry.record, step);
            }
        }
        if transitions.iter().any(|transition| transition.is_durable()) {
            self.put_delivery(&entry.record, Some(was), step);
        }
        if entry.record.stage.is_pending() {
            self.mailboxes.insert(entry);
            return None;
        }
        self.withdraw(&entry, told, step);
        Some(entry)
    }

    /// Carries out a transition of a delivery that is in no mailbox. The caller stores it.
    pub(crate) fn apply(&self, now: Now, record: &mut DeliveryRecord, transition: Transition, step: &mut Step) {
        if let Some(news) = record.apply(transition, now.wall) {
            self.tell(now.wall, news, record, step);
        }
    }

    /// Stores a delivery. `was`: its stage in the store; none where it is not there.
    pub(crate) fn put_delivery(&mut self, record: &DeliveryRecord, was: Option<Stage>, step: &mut Step) {
        self.mailboxes.count(was, Some(record.stage));
        step.change(Change::PutDelivery { record: Box::new(record.clone()), was });
    }

    /// Takes a delivery out of the store; `record` is what the store has.
    pub(crate) fn remove_delivery(&mut self, record: &DeliveryRecord, step: &mut Step) {
        self.mailboxes.count(Some(record.stage), None);
        step.change(Change::RemoveDelivery { message: record.message, peer: record.peer, was: record.stage });
    }

    /// Tells the session that held a delivery that it holds it no longer, unless it was the one who said so.
    fn withdraw(&self, entry: &Entry, told: Option<ConnectionId>, step: &mut Step) {
        // A holder that is no session any more is ending: it knows.
        let here = |lease: &Lease| self.presence.session(lease.holder).is_some();
        if let Some(lease) = entry.lease.filter(|lease| Some(lease.holder) != told && here(lease)) {
            step.push(lease.holder, Push::Withdrawn { message: entry.record.message, stage: entry.record.stage });
        }
    }

    /// A session of this peer ended: what a model may have been asked with counts an attempt, the rest is ready again.
    pub(crate) fn return_leases(&mut self, now: Now, peer: PeerId, holder: ConnectionId, step: &mut Step) {
        let is_held = |entry: &Entry| entry.lease.is_some_and(|lease| lease.holder == holder);
        let offered = self.mailboxes.messages(peer, |entry| is_held(entry) && entry.record.stage == Stage::Offered);
        for message in self.mailboxes.messages(peer, |entry| is_held(entry) && entry.record.stage != Stage::Offered) {
            self.advance(now, peer, message, &[Transition::Unlease], None, step);
        }
        self.count_attempts(now, peer, offered, step);
    }

    /// A session ended with these messages offered and unproved. It was an attempt only where a model may have been asked:
    /// a session that showed no event since, such as one that was closed at once, says nothing about the message. Those that
    /// have had their attempts are buried last: their sender hears of it, and if that is the reader itself, it gets the
    /// others first.
    pub(crate) fn count_attempts(&mut self, now: Now, peer: PeerId, messages: Vec<MessageId>, step: &mut Step) {
        let attempts_max = self.config.limits.attempts_max;
        let (spent, others): (Vec<_>, Vec<_>) = messages.into_iter().partition(|message| {
            let entry = self.mailboxes.get(peer, *message);
            entry.is_some_and(|entry| entry.tried && entry.record.attempts + 1 >= attempts_max)
        });
        for message in others {
            self.advance(now, peer, message, &[Transition::Return(Cause::SessionEnded)], None, step);
        }
        for message in spent {
            self.bury(now, peer, message, Cause::AttemptsExceeded, step);
        }
    }

    /// Tells sessions whose carrier had its time to try the next one. Each is told once.
    pub(crate) fn report_overdue(&mut self, now: Now, step: &mut Step) {
        while let Some((_, message, peer)) = self.mailboxes.next_overdue().filter(|(at_ms, ..)| *at_ms <= now.mono_ms) {
            let lease = self.mailboxes.update(peer, message, |entry| {
                if let Some(lease) = &mut entry.lease {
                    lease.overdue_at_ms = None;
                }
                entry.lease.map(|lease| (lease.holder, lease.offered.or_else(|| entry.record.offered_last_by())))
            });
            if let Some((holder, Some(carrier))) = lease.flatten() {
                step.push(holder, Push::Overdue { message, carrier });
            }
        }
    }

    fn note_carrier(&mut self, connection: ConnectionId, carrier: Carrier, proven: Option<Now>) {
        if let Some(session) = self.presence.connections.get_mut(&connection).and_then(|open| open.session.as_mut()) {
            let proof = session.proofs.entry(carrier).or_insert(None);
            if let Some(now) = proven {
                *proof = Some(now.wall);
            }
        }
    }
}
