//! Leases: which session holds which message, from the push to the evidence.
//!
//! A lease has no time of its own. It ends with evidence, with a nack, or with its session; a visibility timeout only
//! tells the session to try its next carrier. So an idle reader costs nothing and kills nothing.

use std::collections::BTreeSet;

use peer_proto::ids::{MessageId, PeerId};
use peer_proto::limits::{LEASE_WINDOW_BYTES, LEASE_WINDOW_MESSAGES, MESSAGES_PER_REQUEST_MAX, THREAD_BYTES_MAX};
use peer_proto::message::{Carrier, Cause, Evidence, Intent, Stage, TraceEvent};
use peer_proto::request::{EventKind, Filter, Push, Received, Reply, RequestId};

use crate::broker::{Actor, Broker, Caller};
use crate::input::{ConnectionId, Facts, Now};
use crate::mailbox::{Entry, Lease, trace};
use crate::presence::{Matcher, Operator, Wait};
use crate::record::{Brief, DeliveryRecord};
use crate::rejection::Rejection;
use crate::sessions::check_length;
use crate::step::{Change, Effect, Step};

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
        while let Some(mailbox) = self.mailboxes.get(&peer) {
            let (messages, bytes) = mailbox.window();
            let Some(message) = mailbox.first_ready() else { return };
            if messages >= LEASE_WINDOW_MESSAGES || bytes >= LEASE_WINDOW_BYTES {
                return;
            }
            self.lease(now, peer, message, reader, step);
        }
    }

    fn lease(&mut self, now: Now, peer: PeerId, message: MessageId, reader: ConnectionId, step: &mut Step) {
        let lease = Lease { holder: reader, at: now.wall, offered: None, overdue_at_ms: None };
        self.mailboxes.get_mut(&peer).and_then(|mailbox| mailbox.update(message, |entry| entry.lease = Some(lease)));
        let Some(entry) = self.mailbox(peer).and_then(|mailbox| mailbox.get(message)) else { return };
        step.effects.push(Effect::Deliver {
            connection: reader,
            message,
            attempts: entry.record.attempts,
            shown_before: entry.shown_before(),
        });
        let record = &entry.record;
        self.tell(EventKind::Leased, now.wall, record, None, step);
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
        let Some(mailbox) = self.mailboxes.get(&peer) else { return Received { messages: Vec::new(), waiting: 0 } };
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
            let lease = self.mailbox(peer).and_then(|mailbox| mailbox.get(*message)).and_then(|entry| entry.lease);
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
        let mut offered_any = false;
        for message in messages {
            let held = self.mailbox(peer).and_then(|mailbox| mailbox.get(*message)).and_then(|entry| entry.lease);
            // What was settled meanwhile, or is another session's, is no longer this session's to offer.
            let Some(lease) = held.filter(|lease| lease.holder == caller.connection) else { continue };
            if let Some(at_ms) = lease.overdue_at_ms {
                self.overdue.remove(&(at_ms, *message, peer));
            }
            offered_any = true;
            let timeout_ms = u64::from(self.config.limits.visibility_timeout_ms);
            let overdue_at_ms = (!last).then(|| now.mono_ms.saturating_add(timeout_ms));
            if let Some(at_ms) = overdue_at_ms {
                self.overdue.insert((at_ms, *message, peer));
            }
            self.change_delivery(peer, *message, step, |entry| {
                entry.lease = Some(Lease { offered: Some(carrier), overdue_at_ms, ..lease });
                // The client called for it, and asks its model next.
                entry.tried |= carrier == Carrier::ToolResult;
                entry.record.stage = Stage::Offered;
                trace(&mut entry.record, TraceEvent::Offered, now.wall, Some(carrier), None);
            });
            if let Some(entry) = self.mailbox(peer).and_then(|mailbox| mailbox.get(*message)) {
                self.tell(EventKind::Offered, now.wall, &entry.record, None, step);
            }
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
        for message in messages {
            let is_offered =
                |entry: &Entry| entry.lease.is_some_and(|lease| lease.holder == caller.connection && lease.offered.is_some());
            if let Some(mailbox) = self.mailboxes.get_mut(&peer)
                && mailbox.get(*message).is_some_and(is_offered)
            {
                mailbox.update(*message, |entry| entry.tried = true);
            }
        }
        step.reply(caller.connection, caller.id, Reply::Done);
        Ok(())
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
        let peer = self.mail_owner(caller, "settling the person's mail")?;
        check_count(messages)?;
        let mut proved_any = false;
        for message in messages {
            // Evidence needs something that was shown: a message that never left the broker is not settled by it.
            let offered = |entry: &Entry| entry.lease.is_some() || entry.record.stage == Stage::Offered || peer == PeerId::HUMAN;
            if self.mailbox(peer).and_then(|mailbox| mailbox.get(*message)).is_some_and(offered) {
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
        let peer = self.mail_owner(caller, "acknowledging the person's mail")?;
        check_count(&messages)?;
        // What is named twice must not be looked up a second time: the facts are older than its first turn.
        let mut named = BTreeSet::new();
        messages.retain(|message| named.insert(*message));
        let (mut acked, mut unknown) = (Vec::new(), Vec::new());
        for message in messages {
            let waits = self.mailbox(peer).and_then(|mailbox| mailbox.get(message)).map(|entry| &entry.record);
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
                self.ack_settled(now, settled, step);
            }
            acked.push(message);
        }
        step.reply(caller.connection, caller.id, Reply::Acked { acked, unknown });
        self.pump(now, peer, step);
        Ok(())
    }

    /// An ack for what is no longer pending. A dead letter whose reader did see it is settled by that.
    fn ack_settled(&mut self, now: Now, mut record: DeliveryRecord, step: &mut Step) {
        if record.acked_at.is_some() {
            return;
        }
        let was = record.stage;
        record.acked_at = Some(now.wall);
        if was == Stage::Dead {
            self.dead -= 1;
            record.stage = Stage::Presented;
            trace(&mut record, TraceEvent::Presented, now.wall, None, Some(Cause::Evidence(Evidence::Ack)));
        }
        trace(&mut record, TraceEvent::Acked, now.wall, None, None);
        self.tell(EventKind::Acked, now.wall, &record, None, step);
        step.change(Change::PutDelivery { record: Box::new(record), was: Some(was) });
    }

    pub(crate) fn nack(&mut self, now: Now, caller: Caller, messages: &[MessageId], step: &mut Step) -> Result<(), Rejection> {
        let peer = self.session_peer(caller)?;
        check_count(messages)?;
        let holds = |message: &MessageId| {
            let lease = self.mailbox(peer).and_then(|mailbox| mailbox.get(*message)).and_then(|entry| entry.lease);
            lease.is_some_and(|lease| lease.holder == caller.connection)
        };
        if let Some(foreign) = messages.iter().find(|message| !holds(message)) {
            return Err(Rejection::NotLeased(*foreign));
        }
        for message in messages {
            self.release(now, peer, *message, Cause::Nack, step);
        }
        step.reply(caller.connection, caller.id, Reply::Done);
        self.pump(now, peer, step);
        Ok(())
    }

    /// Takes a lease back without counting an attempt.
    pub(crate) fn release(&mut self, now: Now, peer: PeerId, message: MessageId, cause: Cause, step: &mut Step) {
        let Some(entry) = self.mailbox(peer).and_then(|mailbox| mailbox.get(message)) else { return };
        let (Some(lease), stage) = (entry.lease, entry.record.stage) else { return };
        if let Some(at_ms) = lease.overdue_at_ms {
            self.overdue.remove(&(at_ms, message, peer));
        }
        if stage == Stage::Offered && cause == Cause::Nack {
            self.change_delivery(peer, message, step, |entry| {
                entry.lease = None;
                entry.tried = false;
                entry.record.stage = Stage::Stored;
                trace(&mut entry.record, TraceEvent::Returned, now.wall, None, Some(cause));
            });
        } else if let Some(mailbox) = self.mailboxes.get_mut(&peer) {
            mailbox.update(message, |entry| entry.lease = None);
        }
        if let Some(entry) = self.mailbox(peer).and_then(|mailbox| mailbox.get(message)) {
            self.tell(EventKind::Returned, now.wall, &entry.record, None, step);
        }
    }

    /// Settles a pending delivery on evidence.
    pub(crate) fn settle_presented(&mut self, now: Now, peer: PeerId, message: MessageId, proof: Proof, step: &mut Step) {
        let Some(mut entry) = self.dequeue(peer, message) else { return };
        let was = entry.record.stage;
        let carrier = proof.carrier.or_else(|| entry.lease.and_then(|lease| lease.offered));
        if let (Some(lease), Some(carrier)) = (entry.lease, carrier) {
            self.note_carrier(lease.holder, carrier, Some(now));
        }
        entry.record.stage = Stage::Presented;
        trace(&mut entry.record, TraceEvent::Presented, now.wall, carrier, Some(Cause::Evidence(proof.evidence)));
        self.tell(EventKind::Presented, now.wall, &entry.record, None, step);
        if proof.evidence == Evidence::Ack {
            entry.record.acked_at = Some(now.wall);
            trace(&mut entry.record, TraceEvent::Acked, now.wall, None, None);
            self.tell(EventKind::Acked, now.wall, &entry.record, None, step);
        }
        if let Some(answer) = proof.answer {
            entry.record.answered_by = Some(answer);
            trace(&mut entry.record, TraceEvent::Answered, now.wall, None, None);
            self.tell(EventKind::Answered, now.wall, &entry.record, None, step);
        }
        self.withdraw(&entry, Stage::Presented, proof.told, step);
        step.change(Change::PutDelivery { record: Box::new(entry.record), was: Some(was) });
    }

    /// Tells the session that held a delivery that it holds it no longer, unless it was the one who said so.
    pub(crate) fn withdraw(&self, entry: &Entry, stage: Stage, told: Option<ConnectionId>, step: &mut Step) {
        // A holder that is no session any more is ending: it knows.
        let here = |lease: &Lease| self.presence.session(lease.holder).is_some();
        if let Some(lease) = entry.lease.filter(|lease| Some(lease.holder) != told && here(lease)) {
            step.push(lease.holder, Push::Withdrawn { message: entry.record.message, stage });
        }
    }

    /// A session of this peer ended: what a model may have been asked with counts an attempt, the rest is ready again.
    pub(crate) fn return_leases(&mut self, now: Now, peer: PeerId, holder: ConnectionId, step: &mut Step) {
        let held = |entry: &&Entry| entry.lease.is_some_and(|lease| lease.holder == holder);
        let held: Vec<(MessageId, bool)> = self
            .mailbox(peer)
            .map(|mailbox| mailbox.iter().filter(held).map(|e| (e.record.message, e.record.stage == Stage::Offered)).collect())
            .unwrap_or_default();
        let (offered, merely_held): (Vec<_>, Vec<_>) = held.into_iter().partition(|(_, offered)| *offered);
        for (message, _) in merely_held {
            self.release(now, peer, message, Cause::SessionEnded, step);
        }
        self.count_attempts(now, peer, offered.into_iter().map(|(message, _)| message).collect(), step);
    }

    /// A session ended with these messages offered and unproved. It was an attempt only where a model may have been asked:
    /// a session that showed no event since, such as one that was closed at once, says nothing about the message. Those that
    /// have had their attempts are buried last: their sender hears of it, and if that is the reader itself, it gets the
    /// others first.
    pub(crate) fn count_attempts(&mut self, now: Now, peer: PeerId, messages: Vec<MessageId>, step: &mut Step) {
        let attempts_max = self.config.limits.attempts_max;
        let (spent, others): (Vec<_>, Vec<_>) = messages.into_iter().partition(|message| {
            let entry = self.mailbox(peer).and_then(|mailbox| mailbox.get(*message));
            entry.is_some_and(|entry| entry.tried && entry.record.attempts + 1 >= attempts_max)
        });
        for message in others {
            self.end_attempt(now, peer, message, step);
        }
        for message in spent {
            self.bury(now, peer, message, Cause::AttemptsExceeded, step);
        }
    }

    fn end_attempt(&mut self, now: Now, peer: PeerId, message: MessageId, step: &mut Step) {
        let Some(entry) = self.mailbox(peer).and_then(|mailbox| mailbox.get(message)) else { return };
        let attempts = entry.record.attempts + u32::from(entry.tried);
        let overdue_at_ms = entry.lease.and_then(|lease| lease.overdue_at_ms);
        if let Some(at_ms) = overdue_at_ms {
            self.overdue.remove(&(at_ms, message, peer));
        }
        self.change_delivery(peer, message, step, |entry| {
            entry.lease = None;
            entry.tried = false;
            entry.record.stage = Stage::Stored;
            entry.record.attempts = attempts;
            trace(&mut entry.record, TraceEvent::Returned, now.wall, None, Some(Cause::SessionEnded));
        });
        if let Some(entry) = self.mailbox(peer).and_then(|mailbox| mailbox.get(message)) {
            self.tell(EventKind::Returned, now.wall, &entry.record, None, step);
        }
    }

    /// Tells sessions whose carrier had its time to try the next one. Each is told once.
    pub(crate) fn report_overdue(&mut self, now: Now, step: &mut Step) {
        while let Some((at_ms, message, peer)) = self.overdue.first().copied().filter(|(at_ms, ..)| *at_ms <= now.mono_ms) {
            self.overdue.remove(&(at_ms, message, peer));
            let Some(mailbox) = self.mailboxes.get_mut(&peer) else { continue };
            let lease = mailbox.update(message, |entry| {
                if let Some(lease) = &mut entry.lease {
                    lease.overdue_at_ms = None;
                }
                entry.lease
            });
            if let Some(Lease { holder, offered: Some(carrier), .. }) = lease.flatten() {
                step.push(holder, Push::Overdue { message, carrier });
            }
        }
    }

    /// Changes a pending delivery in memory and in the store.
    pub(crate) fn change_delivery(&mut self, peer: PeerId, message: MessageId, step: &mut Step, change: impl FnOnce(&mut Entry)) {
        let Some(mailbox) = self.mailboxes.get_mut(&peer) else { return };
        let changed = mailbox.update(message, |entry| {
            let was = entry.record.stage;
            change(entry);
            (was, entry.record.clone())
        });
        if let Some((was, record)) = changed {
            step.change(Change::PutDelivery { record: Box::new(record), was: Some(was) });
        }
    }

    /// Whose mail the caller may settle: a session its own, the person theirs.
    fn mail_owner(&self, caller: Caller, act: &'static str) -> Result<PeerId, Rejection> {
        match self.actor(caller)? {
            Actor::Session(peer) => Ok(peer),
            Actor::Operator(Operator::Person) => Ok(PeerId::HUMAN),
            Actor::Operator(Operator::Shell(_)) if self.config.allow_operator_from_agents => Ok(PeerId::HUMAN),
            Actor::Operator(Operator::Shell(_)) => Err(Rejection::NotPermitted { act }),
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

fn check_count(messages: &[MessageId]) -> Result<(), Rejection> {
    if (1..=MESSAGES_PER_REQUEST_MAX).contains(&messages.len()) {
        Ok(())
    } else {
        Err(Rejection::OutOfBounds { what: "the list of messages", bound: format!("1 to {MESSAGES_PER_REQUEST_MAX}") })
    }
}

pub(crate) fn delivery_to(deliveries: &[DeliveryRecord], peer: PeerId) -> Option<&DeliveryRecord> {
    deliveries.iter().find(|delivery| delivery.peer == peer)
}
