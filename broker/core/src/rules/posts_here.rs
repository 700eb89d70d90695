//! Takes posts of channels of other brokers for their members here.
//!
//! Knows who is a member here. Does not know how one becomes a member (`elsewhere`). Invariants: a
//! post reaches members only. A post whose sender is a peer of this broker is delivered as that peer
//! sent it, whatever the channel's broker says of it. A sender of a third broker has no mailbox here:
//! its replies go to the channel.

use peer_proto::ids::{BrokerId, PeerId};
use peer_proto::link::{Mail, Outcome};
use peer_proto::message::{Intent, Sender, Stage, Via};
use peer_proto::policy::Policy;
use peer_proto::refusal::ErrorCode;

use crate::broker::Broker;
use crate::input::{Facts, StoredMessage};
use crate::record::Brief;
use crate::rejection::Rejection;
use crate::rules::receipts::{there_of, withdrawn_there};
use crate::rules::take::{Incoming, card_of_sender, check_times, is_same_mail, outcome_of};
use crate::shared::ChannelRecord;
use crate::turn::Turn;

/// A post, and what the recipients' decisions need.
struct Post<'a> {
    broker: BrokerId,
    sender: Sender,
    channel: &'a ChannelRecord,
    /// The message as it is stored here.
    known: Option<&'a StoredMessage>,
    original: Option<&'a StoredMessage>,
}

impl Broker {
    pub(crate) fn take_post(
        &mut self,
        turn: &mut Turn<'_>,
        (broker, address): (BrokerId, PeerId),
        (mail, digest): (Mail, [u8; 32]),
        facts: &Facts,
    ) -> Result<Vec<(PeerId, Outcome)>, Outcome> {
        let Some((proxy, channel)) = self.channel_of(broker, address) else {
            return Err(not_a_member());
        };
        let channel = channel.clone();
        let known = facts.stored.get(&mail.id);
        let own = known.filter(|known| known.head.origin.is_none());
        let is_it = |known: &StoredMessage| {
            known.head.channel.as_ref() == Some(&channel.name)
                && (own.is_some() || is_same_mail(known, broker, digest))
        };
        if !known.is_none_or(is_it) {
            let text = format!("another message has the id {}", mail.id);
            return Err(Outcome::Refused { code: ErrorCode::IdempotencyConflict, text });
        }
        if known.is_none() {
            check_times(&mail, turn.now.wall)?;
        }
        let sender = match own {
            Some(own) => own.head.from.clone(),
            None => self.author(broker, &mail, proxy),
        };
        facts.check_space().map_err(outcome_of)?;
        if own.is_none() {
            self.check_sender_there(turn, broker, &mail, &sender).map_err(outcome_of)?;
        }
        let original = mail
            .reply_to
            .and_then(|id| facts.stored.get(&id))
            .filter(|original| own.is_none() && self.concerns_remote(original, sender.peer));
        let post = Post { broker, sender, channel: &channel, known, original };
        let (mut outcomes, mut accepted) = (Vec::new(), Vec::<(PeerId, PeerId, Stage)>::new());
        for (peer, name) in &mail.to {
            match self.take_for_member(turn, &post, (*peer, name), (&mail, facts)) {
                // Two identities of one peer get one copy.
                Ok(Some((current, _)))
                    if accepted.iter().any(|(_, other, _)| *other == current) =>
                {
                    outcomes.push((*peer, Outcome::Has(withdrawn_there())));
                }
                Ok(Some((current, stage))) => accepted.push((*peer, current, stage)),
                Ok(None) => {
                    let there = self.there(mail.id, *peer, facts).unwrap_or_else(withdrawn_there);
                    outcomes.push((*peer, Outcome::Has(there)));
                }
                Err(outcome) => outcomes.push((*peer, outcome)),
            }
        }
        let id = mail.id;
        self.store_post(turn, post, (mail, digest), &accepted, facts)?;
        for (peer, current, _) in accepted {
            let entry = self.mailboxes.get(current, id);
            let there = entry.map(|entry| there_of(&entry.record));
            outcomes.push((peer, Outcome::Has(there.unwrap_or_else(withdrawn_there))));
        }
        Ok(outcomes)
    }

    fn store_post(
        &mut self,
        turn: &mut Turn<'_>,
        post: Post<'_>,
        (mail, digest): (Mail, [u8; 32]),
        accepted: &[(PeerId, PeerId, Stage)],
        facts: &Facts,
    ) -> Result<(), Outcome> {
        if accepted.is_empty() {
            return Ok(());
        }
        let Post { broker, sender, channel, known, original } = post;
        let recipients: Vec<(PeerId, Stage)> =
            accepted.iter().map(|(_, current, stage)| (*current, *stage)).collect();
        if let Some(known) = known {
            // Receipts go to the channel's broker, also for a message of a peer of this one.
            let brief = Brief { origin: Some(broker), ..Brief::of(&known.head) };
            self.store_deliveries(turn, mail.id, &recipients, &brief, None);
            return Ok(());
        }
        if self.presence.get(sender.peer).is_none() {
            let card = card_of_sender(&mail);
            self.put_proxy(turn, broker, &card, facts).map_err(outcome_of)?;
        }
        let private = channel.private || original.is_some_and(|original| original.head.private);
        let mail = Mail { intent: Intent::Inform, ..mail };
        let incoming = Incoming { mail, digest, place: Some(channel.name.clone()), private };
        self.store_mail(turn, broker, incoming, sender, &recipients, original);
        Ok(())
    }

    /// Returns the sender of a post: a peer of the channel's broker, or what that broker says of a
    /// peer of a third one.
    fn author(&self, broker: BrokerId, mail: &Mail, proxy: PeerId) -> Sender {
        if !mail.from.name.contains('@') {
            return self.remote_sender(broker, mail);
        }
        let alias = self.links.get(broker).map_or("", |link| link.alias.as_str());
        Sender {
            peer: proxy,
            name: format!("{}@{alias}", mail.from.name),
            client: mail.from.client.clone(),
            cwd: String::new(),
            via: Via::Remote,
        }
    }

    /// Decides whether one recipient gets a post, and as which peer. `None`: it has it.
    fn take_for_member(
        &self,
        turn: &Turn<'_>,
        post: &Post<'_>,
        (peer, name): (PeerId, &str),
        (mail, facts): (&Mail, &Facts),
    ) -> Result<Option<(PeerId, Stage)>, Outcome> {
        let has = post.known.and_then(|_| self.there(mail.id, peer, facts));
        if has.is_some() {
            return Ok(None);
        }
        let unknown =
            || outcome_of(Rejection::UnknownPeer { name: name.to_owned(), nearest: Vec::new() });
        let current = self.presence.current(peer).ok_or_else(unknown)?;
        let record = self.presence.get(current).ok_or_else(unknown)?;
        // An id that was given again after a restore must not reach another peer.
        let mut names = record.aliases.iter().chain([&record.name]);
        if record.home.is_some() || !names.any(|known| known.eq_ignore_ascii_case(name)) {
            return Err(unknown());
        }
        if !post.channel.members.contains(&current) {
            return Err(not_a_member());
        }
        let stage = match post.known.filter(|known| known.head.origin.is_none()) {
            // It was a member under a former identity too.
            Some(own) if self.is_same(current, own.head.from.peer) => return Ok(None),
            Some(_) => self.stage_of_own(post, current),
            None => self.stage_of_remote(turn, post.broker, &post.sender, current, post.original),
        };
        stage.map(|stage| Some((current, stage))).map_err(outcome_of)
    }

    /// Decides on a post of a peer of this broker that comes back for a member here.
    fn stage_of_own(&self, post: &Post<'_>, member: PeerId) -> Result<Stage, Rejection> {
        let name = self.name_of(member);
        let pending = self.mailboxes.of(member).map_or(0, |mailbox| mailbox.len()) as u32;
        if pending >= self.config.limits.pending_per_peer {
            return Err(Rejection::MailboxFull { name, pending });
        }
        match self.rule_on(&post.sender, member, None) {
            Policy::Accept => Ok(Stage::Stored),
            Policy::Hold => Ok(Stage::Held),
            Policy::Refuse => Err(Rejection::RefusedByPolicy { name }),
        }
    }
}

fn not_a_member() -> Outcome {
    let text = "the recipient is not a member of the channel".to_owned();
    Outcome::Refused { code: ErrorCode::UnknownChannel, text }
}
