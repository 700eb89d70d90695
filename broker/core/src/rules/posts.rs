//! Channels of this broker that have members on other brokers.
//!
//! Knows what other brokers are told of a channel, and takes what their peers post in it. Does not
//! know channels of other brokers (`elsewhere`). Invariants: this broker alone decides who is a
//! member. A post is one message, whoever wrote it; each broker with members gets it once. To a
//! broker that may not know of a channel, it looks like one that does not exist.

use peer_proto::ids::{BrokerId, PeerId};
use peer_proto::limits::{CHANNEL_MEMBERS_MAX, LINK_CHANNELS_MAX};
use peer_proto::link::{ChannelCard, LinkPush, Mail, Outcome, Share, There};
use peer_proto::message::{Intent, Kind, Sender, Stage};
use peer_proto::policy::Policy;
use peer_proto::request::Push;

use crate::broker::Broker;
use crate::input::{Facts, StoredMessage};
use crate::rejection::{Crowd, Rejection};
use crate::rules::take::{Incoming, card_of_sender, outcome_of};
use crate::shared::ChannelRecord;
use crate::state::channels::{began_before, is_of_this_broker};
use crate::turn::Turn;

/// The most cards in one push.
const CARDS_PER_PUSH: usize = 16;

impl Broker {
    // ---- what others are told

    /// Tells a link all channels that it may know of.
    pub(crate) fn push_channels(&self, turn: &mut Turn<'_>, broker: BrokerId) {
        let told = self.told_of(broker);
        let cards: Vec<ChannelCard> =
            told.iter().map(|record| self.channel_card(broker, record)).collect();
        let mut pages: Vec<Vec<ChannelCard>> =
            cards.chunks(CARDS_PER_PUSH).map(<[ChannelCard]>::to_vec).collect();
        if pages.is_empty() {
            pages.push(Vec::new());
        }
        for page in pages {
            self.push_channel_cards(turn, broker, page);
        }
    }

    /// Tells the links that may know of a channel, or might before, what it is now. `None`: it is,
    /// or was, not there.
    pub(crate) fn share_channel(
        &self,
        turn: &mut Turn<'_>,
        before: Option<&ChannelRecord>,
        now: Option<&ChannelRecord>,
    ) {
        let brokers: Vec<BrokerId> = self.links.all_live().map(|(broker, _)| broker).collect();
        for broker in brokers {
            let is_told = |record: &&ChannelRecord| self.is_told_of(broker, record);
            let card = now.filter(is_told).map(|record| self.channel_card(broker, record));
            if card.is_some() || before.filter(is_told).is_some() {
                self.push_channel_cards(turn, broker, card.into_iter().collect());
            }
        }
    }

    fn push_channel_cards(&self, turn: &mut Turn<'_>, broker: BrokerId, cards: Vec<ChannelCard>) {
        let Some(live) = self.links.live(broker) else { return };
        let all = self.told_of(broker).into_iter().map(ChannelRecord::address).collect();
        turn.push(live.connection, Push::Link(LinkPush::Channels { all, cards }));
    }

    /// Returns the channels that a broker is told of: those that it has members in first, because
    /// there is a limit.
    fn told_of(&self, broker: BrokerId) -> Vec<&ChannelRecord> {
        let told = || self.channels.iter().filter(|record| self.is_told_of(broker, record));
        let mut all: Vec<&ChannelRecord> =
            told().filter(|record| self.has_members_of(broker, record)).collect();
        all.extend(told().filter(|record| !self.has_members_of(broker, record)));
        all.truncate(LINK_CHANNELS_MAX);
        all
    }

    fn is_told_of(&self, broker: BrokerId, record: &ChannelRecord) -> bool {
        let share = self.links.get(broker).map_or(Share::None, |link| link.share);
        let is_open = !record.private && share != Share::None;
        is_of_this_broker(&record.name) && (is_open || self.has_members_of(broker, record))
    }

    fn has_members_of(&self, broker: BrokerId, record: &ChannelRecord) -> bool {
        record.members.iter().any(|member| self.mailboxes.broker_of(*member) == Some(broker))
    }

    fn channel_card(&self, broker: BrokerId, record: &ChannelRecord) -> ChannelCard {
        let (mut yours, mut others) = (Vec::new(), Vec::new());
        for member in &record.members {
            let home = self.presence.get(*member).and_then(|record| record.home.as_ref());
            match home.filter(|home| home.broker == broker) {
                Some(home) => yours.push(home.peer),
                None => others.push(self.name_of(*member)),
            }
        }
        others.sort();
        ChannelCard {
            channel: record.address(),
            name: record.name.clone(),
            topic: record.topic.clone(),
            private: record.private,
            created_by: record.created_by.clone(),
            created_at: record.created_at,
            yours,
            others,
        }
    }

    // ---- what others post

    /// Takes a post, a join or a leave of another broker's peer. It is settled once it is stored:
    /// the delivery to the channel tells a repeat.
    pub(crate) fn take_for_channel(
        &mut self,
        turn: &mut Turn<'_>,
        broker: BrokerId,
        (mail, digest): (Mail, [u8; 32]),
        facts: &Facts,
    ) -> Result<Vec<(PeerId, Outcome)>, Outcome> {
        let id = mail.id;
        let Some((address, name)) = mail.to.first().cloned() else { return Ok(Vec::new()) };
        if facts.stored.contains_key(&id) {
            return Err(outcome_of(Rejection::UnknownMessage(id)));
        }
        facts.check_space().map_err(outcome_of)?;
        let unknown = || Rejection::UnknownChannel { name: name.clone(), nearest: Vec::new() };
        let named = |record: &&ChannelRecord| record.name.eq_ignore_ascii_case(&name);
        let record = self.channels.addressed(address).filter(named).cloned();
        let record = record.ok_or_else(unknown).map_err(outcome_of)?;
        let sender = self.remote_sender(broker, &mail);
        self.check_link_limits(turn, broker, &mail, &sender).map_err(outcome_of)?;
        let is_member = record.members.contains(&sender.peer);
        match mail.kind {
            Kind::Join if !is_member => self.check_joins(broker, &record).map_err(outcome_of)?,
            Kind::Join | Kind::Leave => {}
            // What is older than the channel may be of an earlier one: no member could read it.
            _ if is_member && !began_before(&record, id) => {
                return Err(outcome_of(Rejection::OlderThanChannel { name }));
            }
            _ if is_member => {}
            _ if record.private => return Err(outcome_of(unknown())),
            _ => return Err(outcome_of(Rejection::NotMember { name })),
        }
        let original = mail
            .reply_to
            .and_then(|id| facts.stored.get(&id))
            .filter(|original| self.concerns_remote(original, sender.peer));
        let mut recipients = vec![(address, Stage::Posted)];
        let is_post = !matches!(mail.kind, Kind::Join | Kind::Leave);
        if is_post {
            let members = self.members_for(turn, broker, &sender, &record, original);
            recipients.extend(members.map_err(outcome_of)?);
        }
        if self.presence.get(sender.peer).is_none() {
            let card = card_of_sender(&mail);
            self.put_proxy(turn, broker, &card, facts).map_err(outcome_of)?;
        }
        let kind = mail.kind;
        let mail = if is_post { Mail { intent: Intent::Inform, ..mail } } else { mail };
        let incoming = Incoming {
            mail,
            digest,
            place: is_post.then(|| record.name.clone()),
            private: record.private || !is_post,
        };
        let peer = sender.peer;
        self.store_mail(turn, broker, incoming, sender, &recipients, original);
        match kind {
            Kind::Join if !is_member => {
                let members = [record.members.clone(), vec![peer]].concat();
                self.put_channel(turn, ChannelRecord { members, ..record });
            }
            Kind::Leave => self.end_membership(turn, &record.name, peer),
            _ => {}
        }
        let at = turn.now.wall;
        let there = There { stage: Stage::Posted, at, rev: 1, carrier: None, acked_at: None };
        Ok(vec![(address, Outcome::Has(there))])
    }

    /// Decides whether a peer of another broker may become a member by its own wish. Where the
    /// person holds the broker's mail, a member or the person must invite it.
    fn check_joins(&self, broker: BrokerId, record: &ChannelRecord) -> Result<(), Rejection> {
        let link = self.links.get(broker).filter(|link| link.share != Share::None);
        let Some(link) = link.filter(|_| !record.private) else {
            let name = record.name.clone();
            return Err(Rejection::UnknownChannel { name, nearest: Vec::new() });
        };
        if link.policy != Policy::Accept {
            return Err(Rejection::NeedsInvitation { name: record.name.clone() });
        }
        if record.members.len() >= CHANNEL_MEMBERS_MAX {
            return Err(Rejection::TooMany { what: Crowd::Members, count: CHANNEL_MEMBERS_MAX });
        }
        Ok(())
    }

    /// Returns the members that get a post, each with its stage. As for a post of this broker, one
    /// who cannot get it misses it; but too many posts of one sender wait.
    fn members_for(
        &self,
        turn: &Turn<'_>,
        broker: BrokerId,
        sender: &Sender,
        record: &ChannelRecord,
        original: Option<&StoredMessage>,
    ) -> Result<Vec<(PeerId, Stage)>, Rejection> {
        let mut members = Vec::new();
        for member in record.members.iter().copied().filter(|member| *member != sender.peer) {
            match self.stage_of_remote(turn, broker, sender, member, original) {
                Ok(stage) => members.push((member, stage)),
                Err(wait @ Rejection::RateLimited { .. }) => return Err(wait),
                Err(_) => {}
            }
        }
        Ok(members)
    }

    /// Ends a peer's membership in a channel, if it is a member.
    pub(crate) fn end_membership(&mut self, turn: &mut Turn<'_>, name: &str, peer: PeerId) {
        if let Some(mut record) = self.channels.get(name).cloned() {
            record.members.retain(|member| *member != peer);
            self.put_channel(turn, record);
        }
    }
}
