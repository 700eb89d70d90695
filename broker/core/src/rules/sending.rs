//! Sends: decides who may send what to whom, and what the store gets.
//!
//! A send is first planned, which changes nothing. It is then committed, which refuses nothing.
//! Knows send limits and policies. Does not know what happens to a stored delivery.

use peer_proto::ids::{MessageId, PeerId};
use peer_proto::limits::{RECIPIENTS_MAX, SOURCE_BYTES_MAX, SOURCES_MAX, TTL_MS_MAX, TTL_MS_MIN};
use peer_proto::message::{Evidence, Intent, Kind, Sender, Stage};
use peer_proto::policy::Policy;
use peer_proto::question::FROM_MEMORY;
use peer_proto::request::{DeliveryEvent, Reply, Send, Sent, SentDelivery};
use peer_proto::text::is_blank;

use crate::broker::Broker;
use crate::check::{check_idempotency_key, check_length, check_thread};
use crate::delivery::Transition;
use crate::input::{Facts, Now, StoredMessage};
use crate::record::{Brief, DeliveryRecord, MessageHead, MessageRecord};
use crate::rejection::Rejection;
use crate::rules::audience::Audience;
use crate::rules::events::RefusedAttempt;
use crate::rules::lease::Settlement;
use crate::shared::QuestionRecord;
use crate::state::channels::is_group;
use crate::state::mailbox::MailboxEntry;
use crate::state::send_limits::{Saying, SenderClass};
use crate::step::Change;
use crate::turn::Turn;
use crate::who::Caller;

/// A message to be sent.
pub(crate) struct Outgoing {
    pub(crate) send: Send,
    pub(crate) kind: Kind,
    /// The audience that the rules chose. `None`: the recipients that the sender named.
    pub(crate) audience: Option<Audience>,
}

/// The plan for a send. Nothing is changed yet.
enum Posting<'a> {
    /// The send was accepted before. It gets the first outcome, in its current state.
    Repeat(Sent),
    New(Box<NewMessage<'a>>),
}

/// A message that will be stored.
struct NewMessage<'a> {
    head: MessageHead,
    class: SenderClass,
    /// The recipients that accept it, each with its stage: stored or held.
    accepted: Vec<(PeerId, Stage)>,
    refused: Vec<(PeerId, Rejection)>,
    /// The message that this reply answers, and that its sender has therefore read.
    answers: Option<&'a StoredMessage>,
    /// The answer to the sender.
    sent: Sent,
}

/// The reason why a send is refused.
enum SendFailure {
    /// A refusal that is not recorded.
    Rejected(Rejection),
    Limited(Box<Limited>),
}

impl From<Rejection> for SendFailure {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// A send that a send limit or all recipients refused. It is recorded for the person.
struct Limited {
    sender: Sender,
    thread: String,
    channel: Option<String>,
    /// The rejection of the send limit, or one of each recipient.
    rejections: Vec<Rejection>,
}

/// A recipient, and its decision: stored, held, or the rejection.
type RecipientVerdict = (PeerId, Result<Stage, Rejection>);

/// One send, with the facts that each recipient's decision needs.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    now: Now,
    send: &'a Send,
    sender: &'a Sender,
    class: SenderClass,
    original: Option<&'a StoredMessage>,
}

impl Broker {
    pub(crate) fn send(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        send: Send,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        self.post(turn, caller, Outgoing { send, kind: Kind::Message, audience: None }, facts)
    }

    /// Plans a message and stores it. If a send limit or all recipients refuse it, answers the
    /// sender here, and records the refusal with the text.
    pub(crate) fn post(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        outgoing: Outgoing,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        match self.plan(turn.now, caller, &outgoing, facts) {
            Ok(Posting::New(message)) => self.commit(turn, caller, outgoing.send, *message),
            Ok(Posting::Repeat(sent)) => turn.reply(caller, Reply::Sent(sent)),
            Err(SendFailure::Rejected(rejection)) => return Err(rejection),
            Err(SendFailure::Limited(limited)) => {
                self.refuse_send(turn, caller, &outgoing.send, &limited)
            }
        }
        Ok(())
    }

    /// Decides on a message. Changes nothing.
    fn plan<'a>(
        &self,
        now: Now,
        caller: Caller,
        outgoing: &Outgoing,
        facts: &'a Facts,
    ) -> Result<Posting<'a>, SendFailure> {
        let send = &outgoing.send;
        let (sender, class) = self.sender(caller)?;
        check_send(send, self.config.limits.text_bytes_max)?;
        let original = send.reply_to.map(|id| self.original(id, caller, facts)).transpose();
        let audience = match &outgoing.audience {
            Some(audience) => Ok(audience.clone()),
            None => {
                self.audience(caller, send, sender.peer, original.as_ref().ok().copied().flatten())
            }
        };
        if let Some(prior) = &facts.prior {
            let recipients = audience.as_ref().ok().map(|audience| audience.peers.as_slice());
            return Ok(Posting::Repeat(self.repeat(caller, outgoing, prior, recipients)?));
        }
        let (original, Audience { peers, channel }) = (original?, audience?);
        facts.check_space()?;
        let id = MessageId::next(self.last_message, now.wall, facts.entropy as u32);
        let thread = thread_of(send, original, id);
        let attempt = Attempt { now, send, sender: &sender, class, original };
        let verdicts = match self.verdicts(&attempt, &thread, peers) {
            Ok(verdicts) => verdicts,
            Err(rejections) => {
                return Err(SendFailure::Limited(Box::new(Limited {
                    sender,
                    thread,
                    channel,
                    rejections,
                })));
            }
        };
        let deliveries = verdicts
            .iter()
            .map(|(peer, verdict)| self.sent_delivery(caller, *peer, verdict.as_ref().copied()));
        let sent = Sent {
            message: id,
            thread: thread.clone(),
            deduplicated: false,
            deliveries: deliveries.collect(),
        };
        let (mut accepted, mut refused) = (Vec::new(), Vec::new());
        for (peer, verdict) in verdicts {
            match verdict {
                Ok(stage) => accepted.push((peer, stage)),
                Err(rejection) => refused.push((peer, rejection)),
            }
        }
        // A reply by an unknown agent's shell does not prove that the person has read the original.
        let answers =
            original.filter(|_| caller.actor.is_some_and(|actor| actor.member().is_some()));
        let is_answer =
            answers.is_some_and(|original| self.is_answer(sender.peer, original, &accepted));
        let kind =
            if outgoing.kind == Kind::Message && is_answer { Kind::Answer } else { outgoing.kind };
        let to = accepted.iter().map(|(peer, _)| (*peer, self.name_of(*peer))).collect();
        let private = self.is_said_in_private(channel.as_deref(), original);
        let head = MessageHead {
            id,
            from: sender,
            to,
            intent: intent_of(send, channel.as_deref()),
            kind,
            thread,
            channel,
            reply_to: send.reply_to,
            sent_at: now.wall,
            expires_at: send.ttl_ms.map(|ttl_ms| now.wall.plus_ms(ttl_ms)),
            sources: sources_of(send, kind),
            text_bytes: send.text.len() as u32,
            private,
            origin: None,
        };
        Ok(Posting::New(Box::new(NewMessage { head, class, accepted, refused, answers, sent })))
    }

    /// Stores a planned message, answers its sender, and settles the message that it answers.
    fn commit(&mut self, turn: &mut Turn<'_>, caller: Caller, send: Send, message: NewMessage<'_>) {
        let NewMessage { head, class, accepted, refused, answers, sent } = message;
        for (peer, rejection) in &refused {
            let refusal = rejection.refusal(caller.addressee());
            self.send_limits.count_refused(refusal.code);
            let refused = RefusedAttempt {
                sender: &head.from,
                send: &send,
                channel: head.channel.as_deref(),
            };
            self.emit_refused_send(turn, &refused, self.name_of(*peer), &refusal);
        }
        let (id, sender, kind) = (head.id, head.from.peer, head.kind);
        if let Some(key) = &send.idempotency_key {
            turn.change(Change::PutIdempotencyKey { sender, key: key.clone(), message: id });
        }
        self.send_limits.count_send(turn.now.mono_ms, sender, class, &head.thread);
        for (recipient, _) in &accepted {
            let saying =
                Saying { sender, recipient: *recipient, reply_to: send.reply_to, text: &send.text };
            self.send_limits.count_delivery(&self.config.limits, turn.now.mono_ms, saying);
        }
        turn.reply(caller, Reply::Sent(sent));
        let brief = Brief::of(&head);
        let question = (kind == Kind::Question).then(|| QuestionRecord::asked(&head));
        let record = MessageRecord { head, idempotency_key: send.idempotency_key, text: send.text };
        self.store_message(turn, record, &accepted, &brief);
        if let Some(original) = answers {
            self.record_reply(turn, sender, id, original);
            if kind == Kind::Answer {
                self.close_answered(turn, original.head.id, (sender, id));
            }
        }
        if let Some(question) = question {
            self.open_question(turn, question);
        }
    }

    /// Refuses a whole send, because a send limit or all recipients refused it. Tells the sender
    /// the reason of each recipient, and tells watchers.
    fn refuse_send(&mut self, turn: &mut Turn<'_>, caller: Caller, send: &Send, limited: &Limited) {
        let Limited { sender, thread, channel, rejections } = limited;
        let Some((first, others)) = rejections.split_first() else { return };
        if matches!(first, Rejection::ThreadPaused { .. }) {
            self.use_up_thread(turn, thread, channel.as_deref());
        }
        let mut refusal = first.refusal(caller.addressee());
        self.send_limits.count_refused(refusal.code);
        for other in others {
            refusal.message += &format!("; {other}");
            self.send_limits.count_refused(other.code());
        }
        let refused = RefusedAttempt { sender, send, channel: channel.as_deref() };
        self.emit_refused_send(turn, &refused, send.to.join(","), &refusal);
        turn.refuse(caller, refusal);
    }

    /// Stores a message with its deliveries. Pushes the deliveries that are not held.
    pub(crate) fn store_message(
        &mut self,
        turn: &mut Turn<'_>,
        record: MessageRecord,
        recipients: &[(PeerId, Stage)],
        brief: &Brief,
    ) {
        let id = record.head.id;
        // A message of another broker may be older than the newest one here.
        let is_late = id < self.last_message;
        self.last_message = self.last_message.max(id);
        self.messages += 1;
        self.record_stored(turn.now, record.text.len());

        // If the message is held for anybody, only the person may read its text, and other actors
        // may be watching.
        let is_told =
            self.presence.is_watched() && recipients.iter().all(|(_, stage)| *stage != Stage::Held);
        let text = is_told.then(|| record.text.clone());
        turn.change(Change::PutMessage(Box::new(record)));
        if is_late {
            self.record_late(turn, id);
        }
        self.store_deliveries(turn, id, recipients, brief, text);
    }

    /// Stores deliveries of a stored message, and pushes those that are not held. `text` is for
    /// watchers.
    pub(crate) fn store_deliveries(
        &mut self,
        turn: &mut Turn<'_>,
        id: MessageId,
        recipients: &[(PeerId, Stage)],
        brief: &Brief,
        text: Option<String>,
    ) {
        for (peer, stage) in recipients {
            let mut delivery = DeliveryRecord::accepted(id, *peer, brief.clone(), turn.now.wall);
            let held = *stage == Stage::Held;
            // Whether it is held decides who may learn of the delivery.
            let held_news =
                if held { delivery.apply(Transition::Hold, turn.now.wall) } else { None };
            self.emit_delivery(
                turn,
                DeliveryEvent::Stored { cause: None, text: text.clone() },
                &delivery,
            );
            if let Some(news) = held_news {
                self.emit_delivery(turn, news, &delivery);
            }
            if *stage == Stage::Posted {
                self.apply(turn, &mut delivery, Transition::Post);
                self.put_delivery(turn, &delivery, None);
                continue;
            }
            self.put_delivery(turn, &delivery, None);
            self.mailboxes.insert(MailboxEntry::new(delivery));
            if held {
                continue;
            }
            self.fill_window(turn, *peer);
            self.wake_waits(turn, *peer, brief);
        }
    }

    /// Records a reply as evidence that its sender read the message that it answers.
    pub(crate) fn record_reply(
        &mut self,
        turn: &mut Turn<'_>,
        reader: PeerId,
        reply: MessageId,
        original: &StoredMessage,
    ) {
        let message = original.head.id;
        if let Some(entry) = self.mailboxes.get(reader, message) {
            // A held message was shown to nobody, even if a reply claims so.
            if entry.record.stage == Stage::Held {
                return;
            }
            let proof = Settlement {
                carrier: None,
                evidence: Evidence::Reply,
                answer: Some(reply),
                told: None,
            };
            self.settle_presented(turn, reader, message, proof);
            self.fill_window(turn, reader);
        } else if let Some(settled) = self
            .delivery_of(&original.deliveries, reader)
            .filter(|settled| settled.answered_by.is_none() && !settled.is_kept_back())
        {
            self.receipt(turn, settled.clone(), Evidence::Reply, Transition::Answer(reply));
        }
    }

    /// Returns the message that is replied to, if it concerns the caller.
    fn original<'a>(
        &self,
        id: MessageId,
        caller: Caller,
        facts: &'a Facts,
    ) -> Result<&'a StoredMessage, Rejection> {
        let stored = facts.stored.get(&id).ok_or(Rejection::UnknownMessage(id))?;
        self.check_sees(caller, stored)?;
        Ok(stored)
    }

    /// Answers a known idempotency key with the first outcome, in its current state. `recipients`
    /// is `None` if the request could not be accepted now, as when a recipient was forgotten. That
    /// does not change the first outcome.
    fn repeat(
        &self,
        caller: Caller,
        outgoing: &Outgoing,
        (prior, text): &(StoredMessage, String),
        recipients: Option<&[PeerId]>,
    ) -> Result<Sent, Rejection> {
        let send = &outgoing.send;
        let head = &prior.head;
        let gone = |peer: &PeerId| self.presence.get(*peer).is_none();
        let names = |wanted: &str| {
            send.to
                .iter()
                .flat_map(|name| name.split(','))
                .any(|name| name.trim().eq_ignore_ascii_case(wanted))
        };
        let same_recipients = match recipients {
            // Members of a channel change, and so does who is online.
            _ if outgoing.audience.is_some() || names("all") => true,
            _ if head.channel.is_some() => head.channel.as_deref().is_some_and(names),
            Some(recipients) => {
                head.to.iter().all(|(peer, _)| recipients.contains(peer) || gone(peer))
            }
            None => head.to.iter().any(|(peer, _)| gone(peer)),
        };
        let same = *text == send.text && head.reply_to == send.reply_to && same_recipients;
        if !same {
            let key = send.idempotency_key.clone().unwrap_or_default();
            return Err(Rejection::IdempotencyConflict { key, message: head.id });
        }
        let deliveries = prior
            .deliveries
            .iter()
            .map(|delivery| {
                let stage = self
                    .pending_delivery(head.id, delivery.peer)
                    .map_or(delivery.stage, |pending| pending.stage);
                self.sent_delivery(caller, delivery.peer, Ok(stage))
            })
            .collect();
        Ok(Sent { message: head.id, thread: head.thread.clone(), deduplicated: true, deliveries })
    }

    /// Returns each recipient's decision on the message. Returns a refusal if a send limit or all
    /// recipients refuse.
    fn verdicts(
        &self,
        attempt: &Attempt<'_>,
        thread: &str,
        peers: Vec<PeerId>,
    ) -> Result<Vec<RecipientVerdict>, Vec<Rejection>> {
        self.check_send_limits(attempt.now, attempt.sender, attempt.class, thread)
            .map_err(|rejection| vec![rejection])?;
        let verdicts: Vec<RecipientVerdict> =
            peers.into_iter().map(|peer| (peer, self.check_delivery(attempt, peer))).collect();
        if verdicts.is_empty() || verdicts.iter().any(|(_, verdict)| verdict.is_ok()) {
            return Ok(verdicts);
        }
        Err(verdicts.into_iter().filter_map(|(_, verdict)| verdict.err()).collect())
    }

    /// Checks whether this sender may send in this thread now.
    fn check_send_limits(
        &self,
        now: Now,
        sender: &Sender,
        class: SenderClass,
        thread: &str,
    ) -> Result<(), Rejection> {
        let limits = &self.config.limits;
        self.check_pause(sender, Some(thread))?;
        self.send_limits.check_sender(limits, now.mono_ms, sender.peer, &sender.name)?;
        if class == SenderClass::Person {
            Ok(())
        } else {
            self.send_limits.check_thread(limits, thread, sender.peer)
        }
    }

    /// Returns how this recipient accepts this message: stored or held. Otherwise returns the
    /// rejection.
    fn check_delivery(&self, attempt: &Attempt<'_>, peer: PeerId) -> Result<Stage, Rejection> {
        let Attempt { now, send, sender, class, original } = *attempt;
        let limits = &self.config.limits;
        let name = self.name_of(peer);
        let stage = match self.rule_on(sender, peer, original) {
            Policy::Accept => Stage::Stored,
            Policy::Hold => Stage::Held,
            Policy::Refuse => return Err(Rejection::RefusedByPolicy { name }),
        };
        let pending = self.mailboxes.of(peer).map_or(0, |mailbox| mailbox.len()) as u32;
        if pending >= limits.pending_per_peer {
            return Err(Rejection::MailboxFull { name, pending });
        }
        if class == SenderClass::Agent && !self.is_first_reply(sender.peer, original) {
            self.send_limits.check_pair(
                limits,
                now.mono_ms,
                (sender.peer, &sender.name),
                (peer, &name),
            )?;
            let saying = Saying {
                sender: sender.peer,
                recipient: peer,
                reply_to: send.reply_to,
                text: &send.text,
            };
            self.send_limits.check_text(limits, now.mono_ms, saying, &name)?;
        }
        Ok(stage)
    }

    /// Whether a message is private. A reply is as private as the message that it answers, whoever
    /// its recipients are.
    fn is_said_in_private(&self, channel: Option<&str>, original: Option<&StoredMessage>) -> bool {
        channel.is_some_and(|name| self.is_private(name))
            || original.is_some_and(|original| original.head.private)
    }

    /// Whether the sender has a delivery of the message that it replies to, and has not replied
    /// before.
    fn is_first_reply(&self, sender: PeerId, original: Option<&StoredMessage>) -> bool {
        let own = original.and_then(|original| self.delivery_of(&original.deliveries, sender));
        own.is_some_and(|delivery| delivery.answered_by.is_none())
    }

    fn sent_delivery(
        &self,
        caller: Caller,
        peer: PeerId,
        verdict: Result<Stage, &Rejection>,
    ) -> SentDelivery {
        SentDelivery {
            peer,
            name: self.name_of(peer),
            stage: verdict.ok(),
            online: self.presence.is_online(peer) || self.links.is_online(peer),
            carriers: self.presence.carriers(peer),
            activity: self
                .presence
                .reader(peer)
                .and_then(|reader| self.presence.session(reader))
                .and_then(|session| session.activity),
            refusal: verdict.err().map(|rejection| rejection.refusal(caller.addressee())),
        }
    }
}

/// Returns the thread that the sender names, or that of the answered message, or a new one.
fn thread_of(send: &Send, original: Option<&StoredMessage>, id: MessageId) -> String {
    match (&send.thread, original) {
        (Some(thread), _) => thread.clone(),
        (None, Some(original)) => original.head.thread.clone(),
        (None, None) => id.default_thread(),
    }
}

/// Returns whether a message may wake its recipients. A post to a channel wakes nobody.
fn intent_of(send: &Send, channel: Option<&str>) -> Intent {
    let usual = if send.reply_to.is_some() { Intent::Inform } else { Intent::Request };
    let is_quiet = channel.is_some_and(|name| !is_group(name));
    if is_quiet { Intent::Inform } else { send.intent.unwrap_or(usual) }
}

/// Returns the sources of a message. An answer must have sources.
fn sources_of(send: &Send, kind: Kind) -> Vec<String> {
    let from_memory = kind == Kind::Answer && send.sources.is_empty();
    if from_memory { vec![FROM_MEMORY.to_owned()] } else { send.sources.clone() }
}

fn check_send(send: &Send, text_bytes_max: u32) -> Result<(), Rejection> {
    if is_blank(&send.text) {
        return Err(Rejection::EmptyText);
    }
    if send.text.len() > text_bytes_max as usize {
        return Err(Rejection::TextTooLarge { bytes: send.text.len(), bytes_max: text_bytes_max });
    }
    if send.to.len() > RECIPIENTS_MAX {
        return Err(Rejection::too_many_recipients());
    }
    if let Some(thread) = &send.thread {
        check_thread(thread)?;
    }
    if send.ttl_ms.is_some_and(|ttl_ms| !(TTL_MS_MIN..=TTL_MS_MAX).contains(&ttl_ms)) {
        return Err(Rejection::OutOfBounds {
            what: "the time to live",
            bound: "1 second to 30 days".to_owned(),
        });
    }
    if send.sources.len() > SOURCES_MAX {
        return Err(Rejection::OutOfBounds {
            what: "the list of sources",
            bound: format!("at most {SOURCES_MAX}"),
        });
    }
    for source in &send.sources {
        check_length("a source", source, SOURCE_BYTES_MAX)?;
    }
    check_idempotency_key(send.idempotency_key.as_deref())
}
