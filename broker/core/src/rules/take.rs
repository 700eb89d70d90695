//! Takes mail that a link brings from another broker.
//!
//! Knows the form of such mail, whom it may reach, and what limits it. Does not know how a link is
//! served. Invariants: mail of another broker never passes as this broker's person or peers. A
//! message is taken once per recipient. Nothing that a link says stops the broker.

use std::collections::BTreeSet;

use peer_proto::ids::{BrokerId, MessageId, PeerId, Timestamp, is_well_formed_name};
use peer_proto::limits::{
    LINK_CLOCK_MS, LINK_DAYS_MS, LINK_PENDING_BYTES_MAX, LINK_PENDING_MAX,
    MESSAGES_PER_REQUEST_MAX, NAME_CHARS_MAX, RECIPIENTS_MAX, SOURCE_BYTES_MAX, SOURCES_MAX,
    TEXT_BYTES_MAX,
};
use peer_proto::link::{Card, LinkReply, Mail, Outcome, Share, Taken};
use peer_proto::message::{Intent, Kind, Sender, Stage, Via};
use peer_proto::policy::Policy;
use peer_proto::refusal::ErrorCode;
use peer_proto::request::Reply;
use peer_proto::text::is_blank;

use crate::broker::Broker;
use crate::check::{check_length, check_thread, is_name_there};
use crate::input::{Facts, StoredMessage};
use crate::record::{Brief, MessageHead, MessageRecord, Origin};
use crate::rejection::Rejection;
use crate::rules::receipts::{there_of, withdrawn_there};
use crate::shared::QuestionRecord;
use crate::state::send_limits::SenderClass;
use crate::turn::Turn;
use crate::who::Caller;

/// When a message that cannot be taken for lack of room or time should come again.
const LATER_MS: u64 = 60_000;

/// A message of another broker that will be stored.
pub(crate) struct Incoming {
    pub(crate) mail: Mail,
    pub(crate) digest: [u8; 32],
    /// The channel that it was posted in, by its name here.
    pub(crate) place: Option<String>,
    pub(crate) private: bool,
}

impl Broker {
    pub(crate) fn take(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        broker: BrokerId,
        mails: Vec<Mail>,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        let ids: BTreeSet<MessageId> = mails.iter().map(|mail| mail.id).collect();
        let bounds = 1..=MESSAGES_PER_REQUEST_MAX;
        if !bounds.contains(&mails.len()) || ids.len() != mails.len() {
            let bound = format!("1 to {MESSAGES_PER_REQUEST_MAX}, each once");
            return Err(Rejection::OutOfBounds { what: "the list of messages", bound });
        }
        let digests = facts.mail_digests.iter().copied();
        let taken = mails
            .into_iter()
            .zip(digests)
            .map(|(mail, digest)| self.take_one(turn, broker, mail, digest, facts))
            .collect();
        turn.reply(caller, Reply::Link(LinkReply::Taken(taken)));
        Ok(())
    }

    fn take_one(
        &mut self,
        turn: &mut Turn<'_>,
        broker: BrokerId,
        mail: Mail,
        digest: [u8; 32],
        facts: &Facts,
    ) -> Taken {
        let message = mail.id;
        let to: Vec<PeerId> = mail.to.iter().map(|(peer, _)| *peer).collect();
        let outcomes = match self.take_mail(turn, broker, mail, digest, facts) {
            Ok(outcomes) => outcomes,
            Err(outcome) => to.into_iter().map(|peer| (peer, outcome.clone())).collect(),
        };
        Taken { message, outcomes }
    }

    fn take_mail(
        &mut self,
        turn: &mut Turn<'_>,
        broker: BrokerId,
        mail: Mail,
        digest: [u8; 32],
        facts: &Facts,
    ) -> Result<Vec<(PeerId, Outcome)>, Outcome> {
        check_path(&mail, broker, self.links.own)?;
        check_mail(&mail)?;
        if self.links.is_withdrawn(broker, mail.id) {
            let has = |(peer, _): &(PeerId, String)| (*peer, Outcome::Has(withdrawn_there()));
            return Ok(mail.to.iter().map(has).collect());
        }
        if let Some(channel) = mail.channel {
            return self.take_post(turn, (broker, channel), (mail, digest), facts);
        }
        let known = facts.stored.get(&mail.id);
        if known.is_some_and(|known| !is_same_mail(known, broker, digest)) {
            let text = format!("another message has the id {}", mail.id);
            return Err(Outcome::Refused { code: ErrorCode::IdempotencyConflict, text });
        }
        let mut outcomes = Vec::new();
        let mut wanted = Vec::new();
        for (peer, name) in &mail.to {
            match known.and_then(|_| self.there(mail.id, *peer, facts)) {
                Some(there) => outcomes.push((*peer, Outcome::Has(there))),
                None => wanted.push((*peer, name.clone())),
            }
        }
        if !wanted.is_empty() {
            let refused: Vec<PeerId> = wanted.iter().map(|(peer, _)| *peer).collect();
            match self.take_new(turn, broker, (mail, digest), wanted, facts) {
                Ok(new) => outcomes.extend(new),
                // What is here already is not refused.
                Err(outcome) => {
                    outcomes.extend(refused.into_iter().map(|peer| (peer, outcome.clone())));
                }
            }
        }
        Ok(outcomes)
    }

    /// Takes a message for recipients that do not have it.
    fn take_new(
        &mut self,
        turn: &mut Turn<'_>,
        broker: BrokerId,
        (mail, digest): (Mail, [u8; 32]),
        wanted: Vec<(PeerId, String)>,
        facts: &Facts,
    ) -> Result<Vec<(PeerId, Outcome)>, Outcome> {
        let (id, known) = (mail.id, facts.stored.get(&mail.id));
        check_times(&mail, turn.now.wall)?;
        if wanted.iter().any(|(peer, _)| peer.is_channel()) {
            return self.take_for_channel(turn, broker, (mail, digest), facts);
        }
        facts.check_space().map_err(outcome_of)?;
        let sender = self.remote_sender(broker, &mail);
        self.check_link_limits(turn, broker, &mail, &sender).map_err(outcome_of)?;
        let original = mail
            .reply_to
            .and_then(|id| facts.stored.get(&id))
            .filter(|original| self.concerns_remote(original, sender.peer));
        let (mut accepted, mut outcomes) = (Vec::new(), Vec::new());
        for (peer, name) in wanted {
            match self.check_remote(turn, broker, &sender, (peer, &name), original) {
                Ok((current, stage)) => accepted.push((peer, current, stage)),
                Err(rejection) => outcomes.push((peer, outcome_of(rejection))),
            }
        }
        if accepted.is_empty() {
            return Ok(outcomes);
        }
        if self.presence.get(sender.peer).is_none() {
            let card = card_of_sender(&mail);
            self.put_proxy(turn, broker, &card, facts).map_err(outcome_of)?;
        }
        let recipients: Vec<(PeerId, Stage)> =
            accepted.iter().map(|(_, current, stage)| (*current, *stage)).collect();
        match known {
            Some(known) => {
                let brief = Brief::of(&known.head);
                self.store_deliveries(turn, mail.id, &recipients, &brief, None);
            }
            None => {
                let private = original.is_some_and(|original| original.head.private);
                let incoming = Incoming { mail, digest, place: None, private };
                self.store_mail(turn, broker, incoming, sender, &recipients, original);
            }
        }
        for (peer, current, _) in accepted {
            let entry = self.mailboxes.get(current, id);
            let there = entry.map(|entry| there_of(&entry.record));
            outcomes.push((peer, Outcome::Has(there.unwrap_or_else(withdrawn_there))));
        }
        Ok(outcomes)
    }

    /// Returns the sender of mail that a link brings. A new proxy will get the next identity.
    pub(crate) fn remote_sender(&self, broker: BrokerId, mail: &Mail) -> Sender {
        let proxy = self.presence.proxy_of(broker, mail.from.peer);
        let alias = self.links.get(broker).map_or("", |link| link.alias.as_str());
        let named = || format!("{}@{alias}", mail.from.name);
        Sender {
            peer: proxy.unwrap_or(self.next_peer),
            name: proxy.map_or_else(named, |proxy| self.name_of(proxy)),
            client: mail.from.client.clone(),
            cwd: String::new(),
            via: Via::Remote,
        }
    }

    /// Stores a message that is not known yet.
    pub(crate) fn store_mail(
        &mut self,
        turn: &mut Turn<'_>,
        broker: BrokerId,
        Incoming { mail, digest, place, private }: Incoming,
        sender: Sender,
        recipients: &[(PeerId, Stage)],
        original: Option<&StoredMessage>,
    ) {
        let wakes = self.links.get(broker).is_some_and(|link| link.wake);
        let from = sender.peer;
        let to = recipients.iter().map(|(peer, _)| (*peer, self.name_of(*peer))).collect();
        let head = MessageHead {
            id: mail.id,
            from: sender,
            to,
            intent: if wakes { mail.intent } else { Intent::Inform },
            kind: mail.kind,
            thread: mail.thread,
            channel: place,
            reply_to: mail.reply_to,
            sent_at: mail.sent_at,
            expires_at: mail.expires_at,
            sources: mail.sources,
            text_bytes: mail.text.len() as u32,
            private,
            origin: Some(Origin { broker, via: mail.from.via, digest }),
        };
        let thread = remote_thread(&head.thread, broker);
        self.send_limits.count_send(turn.now.mono_ms, from, SenderClass::Agent, &thread);
        if let Some(live) = self.links.live_mut(broker) {
            live.count(turn.now.mono_ms);
        }
        let brief = Brief::of(&head);
        let question = (mail.kind == Kind::Question).then(|| QuestionRecord::asked(&head));
        let record = MessageRecord { head, idempotency_key: None, text: mail.text };
        self.store_message(turn, record, recipients, &brief);
        if let Some(original) = original {
            self.record_reply(turn, from, mail.id, original);
            if mail.kind == Kind::Answer {
                self.close_answered(turn, original.head.id, (from, mail.id));
            }
        }
        if let Some(question) = question {
            self.open_question(turn, question);
        }
    }

    /// Whether a peer of another broker sent this message, or was sent it.
    pub(crate) fn concerns_remote(&self, original: &StoredMessage, sender: PeerId) -> bool {
        self.is_same(sender, original.head.from.peer)
            || self.delivery_of(&original.deliveries, sender).is_some()
    }

    /// Checks what one link may bring, and what its peers may say in one thread.
    pub(crate) fn check_link_limits(
        &self,
        turn: &Turn<'_>,
        broker: BrokerId,
        mail: &Mail,
        sender: &Sender,
    ) -> Result<(), Rejection> {
        self.check_sender_there(turn, broker, mail, sender)?;
        let thread = remote_thread(&mail.thread, broker);
        self.send_limits.check_thread(&self.config.limits, &thread, sender.peer)
    }

    /// Checks what one link may bring, and how much one sender may say.
    pub(crate) fn check_sender_there(
        &self,
        turn: &Turn<'_>,
        broker: BrokerId,
        mail: &Mail,
        sender: &Sender,
    ) -> Result<(), Rejection> {
        let live = self.links.live(broker);
        if let Some(retry_after_ms) = live.and_then(|live| live.retry_after(turn.now.mono_ms)) {
            return Err(Rejection::RateLimited {
                who: sender.name.clone(),
                to: String::new(),
                per_minute: peer_proto::limits::LINK_PER_MINUTE,
                retry_after_ms,
            });
        }
        let (pending, bytes) = self.mailboxes.brought_by(broker);
        if pending >= LINK_PENDING_MAX || bytes + mail.text.len() > LINK_PENDING_BYTES_MAX {
            let name = sender.name.clone();
            return Err(Rejection::MailboxFull { name, pending: pending as u32 });
        }
        let limits = &self.config.limits;
        self.check_pause(sender, Some(&mail.thread))?;
        self.send_limits.check_sender(limits, turn.now.mono_ms, sender.peer, &sender.name)
    }

    /// Decides whether one recipient gets a message, and as which peer and stage.
    fn check_remote(
        &self,
        turn: &Turn<'_>,
        broker: BrokerId,
        sender: &Sender,
        (peer, name): (PeerId, &str),
        original: Option<&StoredMessage>,
    ) -> Result<(PeerId, Stage), Rejection> {
        let unknown = || Rejection::UnknownPeer { name: name.to_owned(), nearest: Vec::new() };
        let current = self.presence.current(peer).ok_or_else(unknown)?;
        let record = self.presence.get(current).ok_or_else(unknown)?;
        // An id that was given again after a restore must not reach another peer.
        let has_name = record
            .aliases
            .iter()
            .chain([&record.name])
            .any(|known| known.eq_ignore_ascii_case(name));
        let link = self.links.get(broker).ok_or_else(unknown)?;
        let is_reply =
            original.is_some_and(|original| self.is_same(current, original.head.from.peer));
        let is_shared = !record.hidden && (link.share != Share::None || is_reply);
        if !has_name || record.home.is_some() || !is_shared {
            return Err(unknown());
        }
        let stage = self.stage_of_remote(turn, broker, sender, current, original)?;
        Ok((current, stage))
    }

    /// Decides whether a recipient gets a message of another broker's peer at once, or once the
    /// person releases it.
    pub(crate) fn stage_of_remote(
        &self,
        turn: &Turn<'_>,
        broker: BrokerId,
        sender: &Sender,
        recipient: PeerId,
        original: Option<&StoredMessage>,
    ) -> Result<Stage, Rejection> {
        let name = self.name_of(recipient);
        let of_link = self.links.get(broker).map_or(Policy::Refuse, |link| link.policy);
        let ruled = self.rule_on(sender, recipient, original);
        let asked_for =
            original.is_some_and(|original| self.has_asked(recipient, sender.peer, original));
        let of_link =
            if asked_for || recipient == PeerId::HUMAN { Policy::Accept } else { of_link };
        let stage = match ruled.max(of_link) {
            Policy::Accept => Stage::Stored,
            Policy::Hold => Stage::Held,
            Policy::Refuse => return Err(Rejection::RefusedByPolicy { name }),
        };
        let limits = &self.config.limits;
        let pending = self.mailboxes.of(recipient).map_or(0, |mailbox| mailbox.len()) as u32;
        if pending >= limits.pending_per_peer {
            return Err(Rejection::MailboxFull { name, pending });
        }
        self.send_limits.check_pair(
            limits,
            turn.now.mono_ms,
            (sender.peer, &sender.name),
            (recipient, &name),
        )?;
        Ok(stage)
    }
}

/// What a message tells of its sender.
pub(crate) fn card_of_sender(mail: &Mail) -> Card {
    Card {
        peer: mail.from.peer,
        name: mail.from.name.clone(),
        client: mail.from.client.clone(),
        online: true,
        state: String::new(),
        summary: String::new(),
        activity: None,
    }
}

/// The name under which the turns of one link in a thread are counted. No thread of this broker has
/// an `@` in its name.
fn remote_thread(thread: &str, broker: BrokerId) -> String {
    format!("{thread}@{broker}")
}

pub(crate) fn is_same_mail(known: &StoredMessage, broker: BrokerId, digest: [u8; 32]) -> bool {
    known.head.origin.is_some_and(|origin| origin.broker == broker && origin.digest == digest)
}

/// Refuses mail that is not of the link's own broker.
fn check_path(mail: &Mail, broker: BrokerId, own: Option<BrokerId>) -> Result<(), Outcome> {
    let is_direct = mail.origin == broker && mail.path == [broker] && own != Some(broker);
    if is_direct {
        return Ok(());
    }
    let text = "a link carries mail of its own broker alone".to_owned();
    Err(Outcome::Refused { code: ErrorCode::NotPermitted, text })
}

/// Checks that a message may come now. One that is here already may be older.
pub(crate) fn check_times(mail: &Mail, now: Timestamp) -> Result<(), Outcome> {
    let refused = |code: ErrorCode, text: &str| Outcome::Refused { code, text: text.to_owned() };
    let sent_at = mail.id.accepted_at();
    if sent_at > now.plus_ms(LINK_CLOCK_MS) {
        return Err(refused(ErrorCode::OutOfBounds, "its id is of a time to come"));
    }
    if sent_at.plus_ms(LINK_DAYS_MS) < now {
        return Err(refused(ErrorCode::TooLate, "it is older than 7 days"));
    }
    if mail.expires_at.is_some_and(|at| at.plus_ms(LINK_CLOCK_MS) < now) {
        return Err(refused(ErrorCode::TooLate, "its time to live is over"));
    }
    Ok(())
}

/// Checks the form of a message.
fn check_mail(mail: &Mail) -> Result<(), Outcome> {
    let refused = |code: ErrorCode, text: &str| Outcome::Refused { code, text: text.to_owned() };
    let to_channel = mail.to.iter().any(|(peer, _)| peer.is_channel());
    if to_channel && (mail.to.len() > 1 || mail.channel.is_some()) {
        return Err(refused(ErrorCode::OutOfBounds, "a post to a channel has no other recipient"));
    }
    if !to_channel && matches!(mail.kind, Kind::Join | Kind::Leave) {
        return Err(refused(ErrorCode::NotPermitted, "only a channel is joined or left"));
    }
    if mail.kind == Kind::Notice {
        return Err(refused(ErrorCode::NotPermitted, "notices are not taken"));
    }
    if mail.to.is_empty() || mail.to.len() > RECIPIENTS_MAX {
        return Err(refused(ErrorCode::OutOfBounds, "it has no recipient, or too many"));
    }
    let mut named = BTreeSet::new();
    if !mail.to.iter().all(|(peer, _)| named.insert(*peer)) {
        return Err(refused(ErrorCode::OutOfBounds, "it names a recipient twice"));
    }
    if is_blank(&mail.text) {
        return Err(refused(ErrorCode::EmptyText, "its text is empty"));
    }
    if mail.text.len() > TEXT_BYTES_MAX || mail.sources.len() > SOURCES_MAX {
        return Err(refused(ErrorCode::TextTooLarge, "its text or list of sources is too large"));
    }
    let is_name = match mail.channel {
        Some(_) => is_name_there(&mail.from.name),
        None => is_well_formed_name(&mail.from.name),
    };
    if !is_name {
        return Err(refused(ErrorCode::BadName, "its sender has no name"));
    }
    check_thread(&mail.thread)
        .and_then(|()| check_length("the client's name", &mail.from.client, NAME_CHARS_MAX))
        .and_then(|()| {
            mail.sources
                .iter()
                .try_for_each(|source| check_length("a source", source, SOURCE_BYTES_MAX))
        })
        .map_err(outcome_of)
}

/// What the other broker is told of a rejection: to come again, or that it is refused for good.
pub(crate) fn outcome_of(rejection: Rejection) -> Outcome {
    let code = rejection.code();
    match code {
        ErrorCode::RateLimited
        | ErrorCode::MailboxFull
        | ErrorCode::NoSpace
        | ErrorCode::Paused
        | ErrorCode::Overloaded => {
            Outcome::Later { code, retry_after_ms: rejection.retry_after_ms().unwrap_or(LATER_MS) }
        }
        _ => Outcome::Refused { code, text: rejection.to_string() },
    }
}
