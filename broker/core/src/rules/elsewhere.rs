//! Channels of other brokers, such as `#build@desk`: joining, leaving, posting, and what is known of
//! them here.
//!
//! Knows a proxy for each channel with members here: a mailbox whose mail goes to the channel's
//! broker. Does not know who else is a member, but for what that broker told. Invariants: that broker
//! alone decides who is a member; a join or a leave is mail to it. What is in the channel here are
//! the posts that it sent to members here, and their own.

use std::collections::BTreeSet;

use peer_proto::channel::{ChannelInfo, ChannelRequest};
use peer_proto::ids::{BrokerId, MessageId, PeerId};
use peer_proto::limits::{
    CHANNEL_MEMBERS_MAX, CHANNELS_MAX, LINK_CHANNELS_MAX, PEERS_MAX, TOPIC_BYTES_MAX,
};
use peer_proto::link::ChannelCard;
use peer_proto::message::{Intent, Kind, Sender, Stage};
use peer_proto::refusal::ErrorCode;
use peer_proto::request::Reply;
use peer_proto::text::single_line;

use crate::broker::Broker;
use crate::check::{check_length, is_name_there};
use crate::input::{Facts, Now};
use crate::record::{Brief, Home, MessageHead, MessageRecord, PeerRecord};
use crate::rejection::{Crowd, Rejection, RemoteBar};
use crate::rules::channel::check_channel_name;
use crate::rules::notices::Notice;
use crate::rules::visibility::is_member;
use crate::shared::{ChannelRecord, SharedKey};
use crate::state::channels::is_elsewhere;
use crate::state::mailbox::MailboxEntry;
use crate::state::send_limits::{Saying, SenderClass};
use crate::step::Change;
use crate::turn::Turn;
use crate::who::{Actor, Caller};
use crate::wording::{self, Addressee};

/// A channel of another broker, as it can be reached from here.
#[derive(Clone, Copy)]
enum Way {
    /// It has a proxy.
    Proxy(PeerId),
    /// Its broker told of it, and it has no proxy yet.
    Card(BrokerId, PeerId),
}

impl Broker {
    // ---- asking for it

    pub(crate) fn channel_elsewhere(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        request: ChannelRequest,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        let actor = caller.actor()?;
        let (ChannelRequest::Join(name) | ChannelRequest::Leave(name)) = &request else {
            let (ChannelRequest::Invite { name, .. } | ChannelRequest::SetTopic { name, .. }) =
                request
            else {
                return Err(Rejection::BadChannelName { name: String::new() });
            };
            let (name, ..) = self.find_elsewhere(actor, &name)?;
            return Err(Rejection::OnAnotherMachine { name, bar: RemoteBar::ChangeChannel });
        };
        let joins = matches!(request, ChannelRequest::Join(_));
        let (name, way) = self.find_elsewhere(actor, name)?;
        let (sender, _) = self.sender(caller)?;
        let me = sender.peer;
        let record = self.channels.get(&name).filter(|record| is_member(actor, record)).cloned();
        let proxy = match way {
            Way::Proxy(proxy) => Some(proxy),
            Way::Card(..) => None,
        };
        let asked = proxy.and_then(|proxy| self.asked_home(me, proxy));
        let is_needless = match asked {
            Some(Kind::Join) => joins,
            Some(_) => !joins,
            None => record.is_some() == joins,
        };
        if !is_needless {
            facts.check_space()?;
            self.check_pause(&sender, None)?;
            let limits = &self.config.limits;
            self.send_limits.check_sender(limits, turn.now.mono_ms, me, &sender.name)?;
            let pending = proxy.and_then(|proxy| self.mailboxes.of(proxy));
            let pending = pending.map_or(0, |mailbox| mailbox.len()) as u32;
            if pending >= limits.pending_per_peer {
                return Err(Rejection::MailboxFull { name, pending });
            }
            let proxy = match way {
                Way::Proxy(proxy) => proxy,
                Way::Card(broker, address) => self.put_channel_proxy(turn, broker, address)?,
            };
            if let Some(record) = record.filter(|_| !joins) {
                self.end_membership(turn, &record.name, me);
            }
            self.ask_home(turn, sender, proxy, if joins { Kind::Join } else { Kind::Leave });
        }
        let info = self.info_elsewhere(actor, &name);
        turn.reply(caller, Reply::Channels(info.into_iter().collect()));
        Ok(())
    }

    /// Sends a join or a leave to the channel's broker.
    fn ask_home(&mut self, turn: &mut Turn<'_>, from: Sender, proxy: PeerId, kind: Kind) {
        let id = MessageId::next(self.last_message, turn.now.wall, self.draw());
        let name = self.name_of(proxy);
        let text = match kind {
            Kind::Leave => format!("leaves {name}"),
            _ => format!("asks to join {name}"),
        };
        let class = SenderClass::Agent;
        self.send_limits.count_send(turn.now.mono_ms, from.peer, class, &id.default_thread());
        let head = MessageHead {
            id,
            from,
            to: vec![(proxy, name)],
            intent: Intent::Inform,
            kind,
            thread: id.default_thread(),
            channel: None,
            reply_to: None,
            sent_at: turn.now.wall,
            expires_at: None,
            sources: Vec::new(),
            text_bytes: text.len() as u32,
            // The channel may be private.
            private: true,
            origin: None,
        };
        let brief = Brief::of(&head);
        let record = MessageRecord { head, idempotency_key: None, text };
        self.store_message(turn, record, &[(proxy, Stage::Stored)], &brief);
    }

    /// Asks again for the memberships of a peer that was merged into another: the other brokers know
    /// the former one.
    pub(crate) fn rejoin(&mut self, turn: &mut Turn<'_>, channel: &str, peer: PeerId) {
        let (Some(proxy), Some(record)) = (self.presence.by_name(channel), self.presence.get(peer))
        else {
            return;
        };
        let from = Sender {
            peer,
            name: record.name.clone(),
            client: record.client.clone(),
            cwd: String::new(),
            via: peer_proto::message::Via::Session,
        };
        self.ask_home(turn, from, proxy, Kind::Join);
    }

    /// What a peer asked the channel's broker last, and that broker has not answered.
    fn asked_home(&self, peer: PeerId, proxy: PeerId) -> Option<Kind> {
        let asks = |entry: &&MailboxEntry| {
            let brief = &entry.record.brief;
            self.is_same(peer, brief.from) && matches!(brief.kind, Kind::Join | Kind::Leave)
        };
        let mailbox = self.mailboxes.of(proxy)?;
        mailbox.iter().filter(asks).last().map(|entry| entry.record.brief.kind)
    }

    // ---- finding it

    /// Finds a channel of another broker that the actor may know of. Returns its name here.
    fn find_elsewhere(&self, actor: Actor, name: &str) -> Result<(String, Way), Rejection> {
        let known = self.presence.by_name(name).filter(|proxy| self.knows_of(actor, *proxy));
        let proxy = known.map(|proxy| (self.name_of(proxy), Way::Proxy(proxy)));
        let card = || {
            let named = |(broker, card): &(BrokerId, &ChannelCard)| {
                !card.private && self.name_elsewhere(*broker, &card.name).eq_ignore_ascii_case(name)
            };
            let (broker, card) = self.links.channel_cards().find(named)?;
            let way = match self.presence.proxy_of(broker, card.channel) {
                Some(proxy) => Way::Proxy(proxy),
                None => Way::Card(broker, card.channel),
            };
            Some((self.name_elsewhere(broker, &card.name), way))
        };
        proxy.or_else(card).ok_or_else(|| {
            let asked: String = name.chars().take(64).collect();
            let mut visible: Vec<String> = self.seen_elsewhere(actor).into_iter().collect();
            let here = self.channels.iter().filter(|record| self.sees_channel(actor, record));
            visible.extend(here.map(|record| record.name.clone()));
            let nearest = crate::names::nearest(&asked, visible.iter().map(String::as_str));
            Rejection::UnknownChannel { name: asked, nearest }
        })
    }

    /// Whether an actor may know of the channel that a proxy stands for.
    fn knows_of(&self, actor: Actor, proxy: PeerId) -> bool {
        let record = self.channels.get(&self.name_of(proxy));
        actor.is_person()
            || record.is_some_and(|record| self.sees_channel(actor, record))
            || actor.agent().is_some_and(|peer| self.asked_home(peer, proxy).is_some())
    }

    /// Returns the names of all channels of other brokers that an actor may know of.
    pub(crate) fn seen_elsewhere(&self, actor: Actor) -> BTreeSet<String> {
        let proxies = self.presence.iter().filter(|record| record.is_channel());
        let known = proxies.filter(|record| self.knows_of(actor, record.id));
        let mut names: BTreeSet<String> = known.map(|record| record.name.clone()).collect();
        let cards = self.links.channel_cards().filter(|(_, card)| !card.private);
        names.extend(cards.map(|(broker, card)| self.name_elsewhere(broker, &card.name)));
        names
    }

    fn name_elsewhere(&self, broker: BrokerId, name: &str) -> String {
        let alias = self.links.get(broker).map_or("", |link| link.alias.as_str());
        format!("{name}@{alias}")
    }

    /// Returns the proxy that a post by this sender goes to.
    pub(crate) fn post_elsewhere(
        &self,
        actor: Actor,
        name: &str,
    ) -> Result<(String, Vec<PeerId>), Rejection> {
        let (name, way) = self.find_elsewhere(actor, name)?;
        let joined = self.channels.get(&name).is_some_and(|record| is_member(actor, record));
        match way {
            Way::Proxy(proxy) if joined => Ok((name, vec![proxy])),
            _ => Err(Rejection::NotMember { name }),
        }
    }

    /// Returns what an actor that knows of a channel sees of it.
    pub(crate) fn info_elsewhere(&self, actor: Actor, name: &str) -> Option<ChannelInfo> {
        let proxy = self.presence.by_name(name).and_then(|proxy| self.presence.get(proxy));
        let (broker, address) = match proxy.and_then(|record| record.home.as_ref()) {
            Some(home) => (home.broker, home.peer),
            None => self.links.channel_cards().find_map(|(broker, card)| {
                let is_it = self.name_elsewhere(broker, &card.name).eq_ignore_ascii_case(name);
                is_it.then_some((broker, card.channel))
            })?,
        };
        let record = self.channels.get(name);
        let card = self.links.channel_card(broker, address);
        let here = record.map_or(&[][..], |record| &record.members);
        let mut members: Vec<String> = here.iter().map(|member| self.name_of(*member)).collect();
        members.extend(
            card.iter()
                .flat_map(|card| &card.others)
                .map(|other| self.name_elsewhere(broker, other)),
        );
        members.sort();
        let made_by = card.map(|card| self.name_elsewhere(broker, &card.created_by));
        let home = Home { broker, peer: address, name: String::new() };
        let asked = proxy.zip(actor.member()).and_then(|(proxy, me)| self.asked_home(me, proxy.id));
        Some(ChannelInfo {
            name: name.to_owned(),
            topic: card
                .map(|card| card.topic.clone())
                .or_else(|| record.map(|record| record.topic.clone()))
                .unwrap_or_default(),
            private: record
                .map_or_else(|| card.is_some_and(|card| card.private), |record| record.private),
            members,
            joined: record.is_some_and(|record| is_member(actor, record)),
            created_by: made_by
                .or_else(|| record.map(|record| record.created_by.clone()))
                .unwrap_or_default(),
            created_at: record
                .map(|record| record.created_at)
                .or_else(|| card.map(|card| card.created_at))
                .unwrap_or_default(),
            link: Some(self.peer_link(&home)),
            asked: asked.is_some(),
        })
    }

    /// Whether a peer is the proxy of a channel.
    pub(crate) fn is_channel(&self, peer: PeerId) -> bool {
        self.presence.get(peer).is_some_and(PeerRecord::is_channel)
    }

    // ---- what its broker tells

    /// Takes what another broker tells of its channels. Those that it does not name any more are
    /// gone.
    pub(crate) fn put_channels(
        &mut self,
        turn: &mut Turn<'_>,
        broker: BrokerId,
        all: &[PeerId],
        cards: Vec<ChannelCard>,
    ) -> Result<(), Rejection> {
        if all.len() > LINK_CHANNELS_MAX || cards.len() > LINK_CHANNELS_MAX {
            return Err(Rejection::TooMany { what: Crowd::Channels, count: LINK_CHANNELS_MAX });
        }
        for card in &cards {
            check_channel_card(card)?;
        }
        let all: BTreeSet<PeerId> = all.iter().copied().collect();
        self.links.keep_channel_cards(broker, &all);
        for proxy in self.presence.proxies_of(broker).collect::<Vec<_>>() {
            let record = self.presence.get(proxy).filter(|record| record.is_channel());
            let Some(home) = record.and_then(|record| record.home.clone()) else { continue };
            if all.contains(&home.peer) {
                self.links.set_online(proxy, true);
                self.presence.set_listed(proxy, true, turn.now.wall);
            } else {
                let text = wording::no_channel(&home.name);
                for message in self.mailboxes.messages(proxy, |_| true) {
                    self.is_refused_there(turn, proxy, message, (ErrorCode::UnknownChannel, &text));
                }
                self.forget_peer(turn, proxy);
            }
        }
        for card in cards.into_iter().filter(|card| all.contains(&card.channel)) {
            // A channel stays as private as it was made.
            let known = self.channel_of(broker, card.channel).map(|(_, record)| record.private);
            if known.is_some_and(|private| private != card.private) {
                continue;
            }
            // Two channels of one name cannot both be meant by it.
            if self.links.put_channel_card(broker, card.clone()) {
                self.mirror(turn, broker, &card);
            }
        }
        Ok(())
    }

    /// Brings the members here to what the channel's broker says, but for those who have left and
    /// whose leave it has not seen.
    fn mirror(&mut self, turn: &mut Turn<'_>, broker: BrokerId, card: &ChannelCard) {
        let name = self.name_elsewhere(broker, &card.name);
        let known = self.channels.get(&name).cloned();
        let proxy = self.presence.proxy_of(broker, card.channel);
        let stays = |peer: &PeerId| {
            let here = self.mailboxes.broker_of(*peer).is_none();
            let left = proxy.and_then(|proxy| self.asked_home(*peer, proxy)) == Some(Kind::Leave);
            here && !left
        };
        let current = card.yours.iter().filter_map(|peer| self.presence.current(*peer));
        let wanted: BTreeSet<PeerId> = current.filter(stays).collect();
        let before = known.as_ref().map_or(&[][..], |record| &record.members);
        if wanted.is_empty() && before.is_empty() {
            return;
        }
        if known.is_none() && self.channels.len() >= CHANNELS_MAX {
            return;
        }
        let Ok(proxy) = self.put_channel_proxy(turn, broker, card.channel) else { return };
        let gone: Vec<PeerId> =
            before.iter().copied().filter(|member| !wanted.contains(member)).collect();
        let mut members: Vec<PeerId> =
            before.iter().copied().filter(|member| wanted.contains(member)).collect();
        let new: Vec<PeerId> =
            wanted.iter().copied().filter(|member| !members.contains(member)).collect();
        members.extend(&new);
        let created_at =
            known.as_ref().map_or_else(|| self.begin_channel(turn.now), |known| known.created_at);
        let record = ChannelRecord {
            name: name.clone(),
            topic: single_line(&card.topic).trim().to_owned(),
            private: card.private,
            members,
            created_by: self.name_elsewhere(broker, &card.created_by),
            created_at,
        };
        self.put_channel(turn, record);
        for (peer, is_member) in new
            .into_iter()
            .map(|peer| (peer, true))
            .chain(gone.into_iter().map(|peer| (peer, false)))
        {
            self.tell_membership(turn, proxy, (peer, is_member), card.private);
        }
    }

    /// Tells a peer that it is, or is no longer, a member. A broker that changes this all the time is
    /// limited as a sender is.
    fn tell_membership(
        &mut self,
        turn: &mut Turn<'_>,
        proxy: PeerId,
        (peer, is_member): (PeerId, bool),
        private: bool,
    ) {
        if self.asked_home(peer, proxy).is_some() && !is_member {
            return;
        }
        let name = self.name_of(proxy);
        let limits = &self.config.limits;
        let pair = ((proxy, name.as_str()), (peer, name.as_str()));
        if self.send_limits.check_pair(limits, turn.now.mono_ms, pair.0, pair.1).is_err() {
            return;
        }
        let text = wording::membership(&name, is_member, Addressee::of_mail_to(peer));
        let saying = Saying { sender: proxy, recipient: peer, reply_to: None, text: &text };
        self.send_limits.count_delivery(limits, turn.now.mono_ms, saying);
        let thread = format!("channel-{}", name[1..].replace('@', "-"));
        let channel = is_member.then_some(name);
        self.post_notice(turn, Notice { channel, private, ..Notice::new(peer, thread, text) });
    }

    /// Returns the proxy of a channel that its broker told of. Makes it if there is none.
    fn put_channel_proxy(
        &mut self,
        turn: &mut Turn<'_>,
        broker: BrokerId,
        address: PeerId,
    ) -> Result<PeerId, Rejection> {
        let told = self.links.channel_card(broker, address).map(|card| card.name.clone());
        let unknown = || Rejection::UnknownChannel { name: String::new(), nearest: Vec::new() };
        let there = told.ok_or_else(unknown)?;
        if let Some(proxy) = self.presence.proxy_of(broker, address) {
            return Ok(proxy);
        }
        if self.presence.len() >= PEERS_MAX {
            return Err(Rejection::TooManyPeers { peers: self.presence.len() });
        }
        let name = self.name_elsewhere(broker, &there);
        let alias = self.links.get(broker).map(|link| link.alias.clone()).unwrap_or_default();
        let id = self.new_proxy_id(turn, broker);
        let mut record = PeerRecord::new(id, name, turn.now.wall);
        record.home = Some(Home { broker, peer: address, name: there });
        record.host = alias;
        self.update_peer(turn, record);
        self.links.set_online(id, true);
        self.presence.set_listed(id, true, turn.now.wall);
        Ok(id)
    }

    /// Returns the channel that another broker's post is in, and its proxy.
    pub(crate) fn channel_of(
        &self,
        broker: BrokerId,
        address: PeerId,
    ) -> Option<(PeerId, &ChannelRecord)> {
        let proxy = self.presence.proxy_of(broker, address)?;
        Some((proxy, self.channels.get(self.presence.name(proxy)?)?))
    }

    /// Ends what is known here of a channel whose proxy is being forgotten.
    pub(crate) fn forget_channel(&mut self, turn: &mut Turn<'_>, proxy: PeerId) {
        let record = self.presence.get(proxy).filter(|record| record.is_channel());
        let Some(name) = record.map(|record| record.name.clone()) else { return };
        let Some(record) = self.channels.get(&name).cloned() else { return };
        for member in &record.members {
            self.tell_membership(turn, proxy, (*member, false), record.private);
        }
        self.put_channel(turn, ChannelRecord { members: Vec::new(), ..record });
    }

    /// Follows a link's new name. What was said under the old one stays there: another channel may
    /// have had the new one before.
    pub(crate) fn rename_channel(&mut self, turn: &mut Turn<'_>, old: &str, new: String) {
        let Some(record) = self.channels.get(old).cloned() else { return };
        self.channels.remove(&old.to_ascii_lowercase());
        turn.change(Change::RemoveShared(SharedKey::Channel(record.name.clone())));
        let created_at = self.begin_channel(turn.now);
        self.put_channel(turn, ChannelRecord { name: new, created_at, ..record });
    }

    /// Returns the time at which a new channel begins: after all that was said under its name
    /// before, whatever the clock says.
    pub(crate) fn begin_channel(&mut self, now: Now) -> peer_proto::ids::Timestamp {
        let created_at = now.wall.max(self.last_message.accepted_at().plus_ms(1));
        self.last_message = self.last_message.max(MessageId::first_at(created_at));
        created_at
    }
}

fn check_channel_card(card: &ChannelCard) -> Result<(), Rejection> {
    let bad = || Rejection::BadChannelName { name: card.name.chars().take(64).collect() };
    if !card.channel.is_channel() || !card.name.starts_with('#') || is_elsewhere(&card.name) {
        return Err(bad());
    }
    check_channel_name(&card.name)?;
    if card.yours.len() + card.others.len() > CHANNEL_MEMBERS_MAX {
        return Err(Rejection::TooMany { what: Crowd::Members, count: CHANNEL_MEMBERS_MAX });
    }
    check_length("the topic", &card.topic, TOPIC_BYTES_MAX)?;
    let names = card.others.iter().chain([&card.created_by]);
    for name in names {
        if !is_name_there(name) {
            return Err(Rejection::BadName { name: name.chars().take(64).collect() });
        }
    }
    Ok(())
}
