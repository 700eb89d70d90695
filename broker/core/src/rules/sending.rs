//! Sending: who may say what to whom, and what is stored when they do.

use std::collections::BTreeSet;

use peer_proto::ids::{MessageId, PeerId, unquoted};
use peer_proto::limits::{IDEMPOTENCY_KEY_BYTES_MAX, RECIPIENTS_MAX, SOURCE_BYTES_MAX, SOURCES_MAX, TTL_MS_MAX, TTL_MS_MIN};
use peer_proto::message::{Evidence, Intent, Kind, Sender, Stage};
use peer_proto::policy::Policy;
use peer_proto::question::FROM_MEMORY;
use peer_proto::refusal::Refusal;
use peer_proto::request::{DeliveryEvent, Reply, Send, Sent, SentDelivery};
use peer_proto::text::is_blank;

use crate::broker::Broker;
use crate::check::{check_length, check_thread};
use crate::delivery::Transition;
use crate::input::{Facts, Now, StoredMessage};
use crate::names::NEAREST_MAX;
use crate::record::{Brief, DeliveryRecord, MessageHead, MessageRecord};
use crate::rejection::Rejection;
use crate::rules::lease::Proof;
use crate::state::channels::{is_channel_name, is_group};
use crate::state::mailbox::Entry;
use crate::state::quota::Driver;
use crate::step::Change;
use crate::turn::Turn;
use crate::who::Caller;

/// A message that somebody wants to send.
pub(crate) struct Outgoing {
    pub(crate) send: Send,
    pub(crate) kind: Kind,
    /// Chosen by the rules; absent: whom the sender names.
    pub(crate) audience: Option<Audience>,
}

/// Whom a message is for.
pub(crate) struct Audience {
    pub(crate) peers: Vec<PeerId>,
    /// The channel or group that it is said in.
    pub(crate) channel: Option<String>,
}

impl Broker {
    pub(crate) fn send(&mut self, turn: &mut Turn<'_>, caller: Caller, send: Send, facts: &Facts) -> Result<(), Rejection> {
        self.post(turn, caller, Outgoing { send, kind: Kind::Message, audience: None }, facts).map(drop)
    }

    /// Accepts a message, and says what was stored: nothing where all its recipients refused it, or where it is a repeat.
    pub(crate) fn post(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        outgoing: Outgoing,
        facts: &Facts,
    ) -> Result<Option<MessageHead>, Rejection> {
        let Outgoing { mut send, mut kind, audience } = outgoing;
        let (sender, driver) = self.sender(caller)?;
        let limits = self.config.limits.clone();
        check_send(&send, limits.text_bytes_max)?;
        let original = send.reply_to.map(|id| self.original(id, caller, facts)).transpose();
        let chosen = audience.is_some();
        let audience = match audience {
            Some(audience) => Ok(audience),
            None => self.audience(caller, &send, sender.peer, original.as_ref().ok().copied().flatten()),
        };
        if let Some(prior) = &facts.prior {
            let recipients = audience.as_ref().ok().map(|audience| audience.peers.as_slice());
            self.repeat(turn, caller, &send, prior, recipients, chosen)?;
            return Ok(None);
        }
        let (original, Audience { peers: recipients, channel }) = (original?, audience?);
        if facts.disk_full {
            return Err(Rejection::NoSpace);
        }
        let id = MessageId::next(self.last_message, turn.now.wall, facts.entropy as u32);
        let thread = match (&send.thread, original) {
            (Some(thread), _) => thread.clone(),
            (None, Some(original)) => original.head.thread.clone(),
            // The last digits of the message's id: its random part.
            (None, None) => format!("t-{}", &id.to_string()[10..]),
        };
        let mut checked = self.check_pause(&sender, Some(&thread));
        if checked.is_ok() {
            checked = self.quota.check_sender(&limits, turn.now.mono_ms, sender.peer, &sender.name);
        }
        if checked.is_ok() && driver != Driver::Person {
            checked = self.quota.check_thread(&limits, &thread, sender.peer);
        }
        if let Err(rejection) = checked {
            if matches!(rejection, Rejection::ThreadPaused { .. }) {
                self.use_up_thread(turn, &thread, channel.as_deref());
            }
            let refusal = rejection.refusal(caller.addressee());
            self.refuse_send(turn, caller, &sender, &send, channel.as_deref(), refusal);
            return Ok(None);
        }
        let first_reply = original.is_some_and(|original| {
            self.delivery_of(&original.deliveries, sender.peer).is_some_and(|delivery| delivery.answered_by.is_none())
        });
        let braked = driver == Driver::Agent && !first_reply;
        let verdicts: Vec<Result<Stage, Rejection>> =
            recipients.iter().map(|peer| self.check_delivery(turn.now, &send, &sender, *peer, original, braked)).collect();
        let rejections: Vec<&Rejection> = verdicts.iter().filter_map(|verdict| verdict.as_ref().err()).collect();
        if let [first, others @ ..] = rejections.as_slice()
            && rejections.len() == recipients.len()
        {
            // Nobody takes it: one refusal, with every recipient's own reason.
            let mut refusal = first.refusal(caller.addressee());
            for other in others {
                refusal.message += &format!("; {other}");
                self.quota.count_refused(other.code());
            }
            self.refuse_send(turn, caller, &sender, &send, channel.as_deref(), refusal);
            return Ok(None);
        }

        for (peer, rejection) in
            recipients.iter().zip(&verdicts).filter_map(|(peer, verdict)| Some((peer, verdict.as_ref().err()?)))
        {
            let refused = rejection.refusal(caller.addressee());
            self.quota.count_refused(refused.code);
            self.tell_refused_send(turn, &sender, &send, channel.as_deref(), self.name_of(*peer), &refused);
        }
        let taken = recipients.iter().zip(&verdicts).filter_map(|(peer, verdict)| Some((*peer, *verdict.as_ref().ok()?)));
        let accepted: Vec<(PeerId, Stage)> = taken.collect();
        // A reply is as private as what it answers, whoever it goes to.
        let in_private = channel.as_deref().is_some_and(|name| self.is_private(name));
        let private = in_private || original.is_some_and(|original| original.head.private);
        // What an unknown agent's shell says for the person proves nothing of what the person has read.
        let outsider = caller.actor()?.member().is_none();
        let original = original.filter(|_| !outsider);
        if kind == Kind::Message && original.is_some_and(|original| self.is_answer(sender.peer, original, &accepted)) {
            kind = Kind::Answer;
        }
        if kind == Kind::Answer && send.sources.is_empty() {
            send.sources.push(FROM_MEMORY.to_owned());
        }
        let usual = if send.reply_to.is_some() { Intent::Inform } else { Intent::Request };
        // Nobody is woken by what is said in a channel.
        let quiet = channel.as_deref().is_some_and(|name| !is_group(name));
        let head = MessageHead {
            id,
            from: sender.clone(),
            to: accepted.iter().map(|(peer, _)| (*peer, self.name_of(*peer))).collect(),
            intent: if quiet { Intent::Inform } else { send.intent.unwrap_or(usual) },
            kind,
            thread: thread.clone(),
            channel,
            reply_to: send.reply_to,
            sent_at: turn.now.wall,
            expires_at: send.ttl_ms.map(|ttl_ms| turn.now.wall.plus_ms(ttl_ms)),
            sources: send.sources.clone(),
            text_bytes: send.text.len() as u32,
            private,
        };
        let brief = Brief::of(&head);
        if let Some(key) = &send.idempotency_key {
            turn.change(Change::PutIdempotencyKey { sender: sender.peer, key: key.clone(), message: id });
        }
        self.quota.count_send(turn.now.mono_ms, sender.peer, driver, &thread);
        for (peer, _) in &accepted {
            self.quota.count_delivery(&limits, turn.now.mono_ms, sender.peer, *peer, send.reply_to, &send.text);
        }
        let text = send.text;
        let deliveries = recipients
            .iter()
            .zip(&verdicts)
            .map(|(peer, verdict)| self.sent_delivery(caller, *peer, verdict.as_ref().copied()))
            .collect();
        turn.reply(caller, Reply::Sent(Sent { message: id, thread, deduplicated: false, deliveries }));
        let record = MessageRecord { head: head.clone(), idempotency_key: send.idempotency_key, text };
        self.store_message(turn, record, &accepted, &brief);
        if let Some(original) = original {
            self.note_reply(turn, sender.peer, id, original);
            if kind == Kind::Answer {
                self.close_answered(turn, original.head.id, (sender.peer, id));
            }
        }
        Ok(Some(head))
    }

    /// Stores a message with its deliveries, and lets those that are not held go on their way.
    pub(crate) fn store_message(
        &mut self,
        turn: &mut Turn<'_>,
        record: MessageRecord,
        recipients: &[(PeerId, Stage)],
        brief: &Brief,
    ) {
        let id = record.head.id;
        self.last_message = id;
        self.messages += 1;
        self.note_stored(turn.now, record.text.len());
        // The text of what is held for anybody is for the person to read, and others may watch.
        let is_told = self.presence.is_watched() && recipients.iter().all(|(_, stage)| *stage != Stage::Held);
        let text = is_told.then(|| record.text.clone());
        turn.change(Change::PutMessage(Box::new(record)));
        for (peer, stage) in recipients {
            let mut delivery = DeliveryRecord::accepted(id, *peer, brief.clone(), turn.now.wall);
            let held = *stage == Stage::Held;
            // Whether it is held decides who may hear of it at all.
            let held_news = if held { delivery.apply(Transition::Hold, turn.now.wall) } else { None };
            self.tell(turn, DeliveryEvent::Stored { cause: None, text: text.clone() }, &delivery);
            if let Some(news) = held_news {
                self.tell(turn, news, &delivery);
            }
            self.put_delivery(turn, &delivery, None);
            self.mailboxes.insert(Entry::new(delivery));
            if held {
                continue;
            }
            self.pump(turn, *peer);
            self.wake_waits(turn, *peer, brief);
        }
    }

    /// A reply is evidence that its sender read what it answers.
    fn note_reply(&mut self, turn: &mut Turn<'_>, reader: PeerId, reply: MessageId, original: &StoredMessage) {
        let message = original.head.id;
        if let Some(entry) = self.mailboxes.get(reader, message) {
            // What is held was shown to nobody, whatever somebody says.
            if entry.record.stage == Stage::Held {
                return;
            }
            let proof = Proof { carrier: None, evidence: Evidence::Reply, answer: Some(reply), told: None };
            self.settle_presented(turn, reader, message, proof);
            self.pump(turn, reader);
        } else if let Some(settled) = self
            .delivery_of(&original.deliveries, reader)
            .filter(|settled| settled.answered_by.is_none() && !settled.is_kept_back())
        {
            self.receipt(turn, settled.clone(), Evidence::Reply, Transition::Answer(reply));
        }
    }

    /// The message that is replied to, if it concerns the caller.
    fn original<'a>(&self, id: MessageId, caller: Caller, facts: &'a Facts) -> Result<&'a StoredMessage, Rejection> {
        let stored = facts.stored.get(&id).ok_or(Rejection::UnknownMessage(id))?;
        self.check_sees(caller, stored)?;
        Ok(stored)
    }

    fn audience(
        &self,
        caller: Caller,
        send: &Send,
        sender: PeerId,
        original: Option<&StoredMessage>,
    ) -> Result<Audience, Rejection> {
        let mut recipients: Vec<PeerId> = Vec::new();
        let mut channel: Option<(String, Vec<PeerId>)> = None;
        let names = send.to.iter().flat_map(|name| name.split(',')).map(unquoted).filter(|name| !name.is_empty());
        for (count, name) in names.enumerate() {
            // Names count, not peers: the same one a hundred thousand times is as much work.
            if count == RECIPIENTS_MAX {
                return Err(Rejection::too_many_recipients());
            }
            if is_channel_name(name) {
                let found = match self.audience_of(caller.actor()?, sender, name) {
                    Ok(found) => found,
                    Err(unknown) => {
                        recipients.push(self.peer_for_channel(name, sender, unknown)?);
                        continue;
                    }
                };
                match &channel {
                    Some((other, _)) if *other != found.0 => {
                        let bound = "one channel or group, and names".to_owned();
                        return Err(Rejection::OutOfBounds { what: "the list of recipients", bound });
                    }
                    _ => channel = Some(found),
                }
            } else if name.eq_ignore_ascii_case("all") && self.config.limits.broadcast_max > 0 {
                recipients.extend(self.everybody_online(sender)?);
            } else {
                recipients.push(self.presence.resolve(name, Some(sender))?);
            }
        }
        if let Some((name, members)) = channel {
            let is_private = self.is_private(&name);
            let outside = |peer: &&PeerId| is_private && **peer != PeerId::HUMAN && !members.contains(peer) && **peer != sender;
            if let Some(stranger) = recipients.iter().find(outside) {
                return Err(Rejection::OutsideChannel { channel: name, name: self.name_of(*stranger) });
            }
            recipients.extend(members);
            return Ok(Audience { peers: each_once(recipients), channel: Some(name) });
        }
        if recipients.is_empty() {
            let back = original.map(|original| &original.head.from).ok_or_else(Rejection::too_many_recipients)?;
            if back.peer == PeerId::SYSTEM {
                self.presence.resolve("system", None)?;
            }
            recipients.push(
                self.presence
                    .present(back.peer)
                    .ok_or_else(|| Rejection::UnknownPeer { name: back.name.clone(), nearest: Vec::new() })?,
            );
        }
        Ok(Audience { peers: each_once(recipients), channel: None })
    }

    /// The peer that was called as if it were a group, `@bob`; else the refusal, with peers of a like name among its offers.
    fn peer_for_channel(&self, name: &str, sender: PeerId, unknown: Rejection) -> Result<PeerId, Rejection> {
        let Rejection::UnknownChannel { name: asked, mut nearest } = unknown else { return Err(unknown) };
        if is_group(name)
            && let Ok(peer) = self.presence.resolve(name, Some(sender))
        {
            return Ok(peer);
        }
        nearest.extend(self.presence.nearest_names(&name[1..]));
        nearest.truncate(NEAREST_MAX);
        Err(Rejection::UnknownChannel { name: asked, nearest })
    }

    /// Whom a message to `all` goes to: every other agent that is here.
    fn everybody_online(&self, sender: PeerId) -> Result<Vec<PeerId>, Rejection> {
        let here = |peer: &PeerId| *peer != sender && *peer != PeerId::HUMAN && self.presence.is_online(*peer);
        let online: Vec<PeerId> = self.presence.iter().map(|record| record.id).filter(here).collect();
        let broadcast_max = self.config.limits.broadcast_max;
        if online.is_empty() {
            return Err(Rejection::NoMailbox { name: "all".to_owned(), why: "no other agent is online" });
        }
        if online.len() > broadcast_max as usize {
            return Err(Rejection::BroadcastTooWide { online: online.len(), broadcast_max });
        }
        Ok(online)
    }

    /// A known idempotency key: the first outcome, as it stands now. `recipients` is none where the request could not be
    /// accepted any more, such as after a recipient was forgotten: that changes nothing about what it was the first time.
    fn repeat(
        &self,
        turn: &mut Turn<'_>,
        caller: Caller,
        send: &Send,
        prior: &(StoredMessage, String),
        recipients: Option<&[PeerId]>,
        chosen: bool,
    ) -> Result<(), Rejection> {
        let (prior, text) = prior;
        let head = &prior.head;
        let gone = |peer: &PeerId| self.presence.get(*peer).is_none();
        let names =
            |wanted: &str| send.to.iter().flat_map(|name| name.split(',')).any(|name| name.trim().eq_ignore_ascii_case(wanted));
        let same_recipients = match recipients {
            // Members come and go, and so does who is online.
            _ if chosen || names("all") => true,
            _ if head.channel.is_some() => head.channel.as_deref().is_some_and(names),
            Some(recipients) => head.to.iter().all(|(peer, _)| recipients.contains(peer) || gone(peer)),
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
                let stage = self.pending_delivery(head.id, delivery.peer).map_or(delivery.stage, |pending| pending.stage);
                self.sent_delivery(caller, delivery.peer, Ok(stage))
            })
            .collect();
        let sent = Sent { message: head.id, thread: head.thread.clone(), deduplicated: true, deliveries };
        turn.reply(caller, Reply::Sent(sent));
        Ok(())
    }

    /// Whether this recipient takes this message, and as what: stored or held.
    fn check_delivery(
        &self,
        now: Now,
        send: &Send,
        sender: &Sender,
        peer: PeerId,
        original: Option<&StoredMessage>,
        braked: bool,
    ) -> Result<Stage, Rejection> {
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
        if braked {
            self.quota.check_pair(limits, now.mono_ms, (sender.peer, &sender.name), (peer, &name))?;
            self.quota.check_text(limits, now.mono_ms, sender.peer, (peer, &name), send.reply_to, &send.text)?;
        }
        Ok(stage)
    }

    fn sent_delivery(&self, caller: Caller, peer: PeerId, verdict: Result<Stage, &Rejection>) -> SentDelivery {
        SentDelivery {
            peer,
            name: self.name_of(peer),
            stage: verdict.ok(),
            online: self.presence.is_online(peer),
            carriers: self.carriers(peer),
            activity: self
                .presence
                .reader(peer)
                .and_then(|reader| self.presence.session(reader))
                .and_then(|session| session.activity),
            refusal: verdict.err().map(|rejection| rejection.refusal(caller.addressee())),
        }
    }

    /// A brake refused the whole send: the sender hears, and so does whoever watches.
    fn refuse_send(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        sender: &Sender,
        send: &Send,
        channel: Option<&str>,
        refusal: Refusal,
    ) {
        self.quota.count_refused(refusal.code);
        self.tell_refused_send(turn, sender, send, channel, send.to.join(","), &refusal);
        turn.refuse(caller, refusal);
    }
}

fn each_once(mut peers: Vec<PeerId>) -> Vec<PeerId> {
    let mut seen = BTreeSet::new();
    peers.retain(|peer| seen.insert(*peer));
    peers
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
        return Err(Rejection::OutOfBounds { what: "the time to live", bound: "1 second to 30 days".to_owned() });
    }
    if send.sources.len() > SOURCES_MAX {
        return Err(Rejection::OutOfBounds { what: "the list of sources", bound: format!("at most {SOURCES_MAX}") });
    }
    for source in &send.sources {
        check_length("a source", source, SOURCE_BYTES_MAX)?;
    }
    if let Some(key) = &send.idempotency_key
        && !(1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len())
    {
        return Err(Rejection::OutOfBounds {
            what: "the idempotency key",
            bound: format!("1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes"),
        });
    }
    Ok(())
}
