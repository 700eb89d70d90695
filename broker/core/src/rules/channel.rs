//! Channels (`#name`) and groups (`@name`): names that stand for several peers.
//!
//! Knows who is a member of what. Does not know how mail travels: a post is one message with one
//! delivery per member. Invariants: every member is a retained peer. Every channel has a member.
//! The posts of a deleted channel stay visible to those who were its members, even if a new channel
//! takes its name.

use peer_proto::channel::{ChannelInfo, ChannelRequest};
use peer_proto::ids::PeerId;
use peer_proto::limits::{
    CHANNEL_MEMBERS_MAX, CHANNEL_NAME_CHARS_MAX, CHANNELS_MAX, TOPIC_BYTES_MAX,
};
use peer_proto::message::Stage;
use peer_proto::policy::Policy;
use peer_proto::request::Reply;
use peer_proto::text::{quoted, single_line};

use crate::broker::Broker;
use crate::check::check_length;
use crate::input::{Facts, Now};
use crate::names;
use crate::rejection::{Act, Crowd, Rejection, RemoteBar};
use crate::rules::notices::Notice;
use crate::rules::visibility::is_member;
use crate::shared::{ChannelRecord, SharedKey, SharedRecord};
use crate::state::channels::{is_elsewhere, is_group};
use crate::step::Change;
use crate::turn::Turn;
use crate::who::{Actor, Caller};
use crate::wording::{self, Addressee};

impl Broker {
    pub(crate) fn channel(
        &mut self,
        turn: &mut Turn<'_>,
        caller: Caller,
        request: ChannelRequest,
        facts: &Facts,
    ) -> Result<(), Rejection> {
        let actor = caller.actor()?;
        if request == ChannelRequest::List {
            let here = self.channels.iter().filter(|record| !is_elsewhere(&record.name));
            let visible = here.filter(|record| self.sees_channel(actor, record));
            let mut channels: Vec<ChannelInfo> =
                visible.map(|record| self.channel_info(actor, record)).collect();
            let elsewhere = self.seen_elsewhere(actor);
            channels.extend(elsewhere.iter().filter_map(|name| self.info_elsewhere(actor, name)));
            channels.sort_by_key(|channel| channel.name.to_ascii_lowercase());
            turn.reply(caller, Reply::Channels(channels));
            return Ok(());
        }
        let Some(me) = actor.member() else {
            return Err(Rejection::NotPermitted { act: Act::ChangeChannels });
        };
        let is_new = matches!(request, ChannelRequest::Create { .. });
        if !is_new && request.name().is_some_and(is_elsewhere) {
            return self.channel_elsewhere(turn, caller, request, facts);
        }
        facts.check_space()?;
        let changed = match request {
            ChannelRequest::List => return Ok(()),
            ChannelRequest::Create { name, topic, private } => {
                self.new_channel(turn.now, me, &name, &topic, private)?
            }
            ChannelRequest::Join(name) => match self.find_channel(actor, &name) {
                Ok(record) => joined(record.clone(), me)?,
                // The first peer that carries a group's label creates the group.
                Err(Rejection::UnknownChannel { .. }) if is_group(&name) => {
                    self.new_channel(turn.now, me, &name, "", false)?
                }
                Err(unknown) => return Err(unknown),
            },
            ChannelRequest::Leave(name) => {
                let mut record = self.find_channel(actor, &name)?.clone();
                record.members.retain(|member| *member != me);
                record
            }
            ChannelRequest::Invite { name, peer } => {
                let record = self.member_channel(actor, &name)?.clone();
                let invited = self.presence.resolve(&peer, Some(me))?;
                if is_group(&record.name) {
                    self.check_is_here(invited, RemoteBar::TakeLabel)?;
                }
                let is_news = !record.members.contains(&invited);
                let record = joined(record, invited)?;
                if is_news {
                    // A peer wrote the topic. An invited peer gets the topic under the same policy
                    // as that peer's mail.
                    let (sender, _) = self.sender(caller)?;
                    self.check_pause(&sender, None)?;
                    let stage = match self.rule_on(&sender, invited, None) {
                        Policy::Accept => Stage::Stored,
                        Policy::Hold => Stage::Held,
                        Policy::Refuse => {
                            return Err(Rejection::RefusedByPolicy { name: self.name_of(invited) });
                        }
                    };
                    self.put_channel(turn, record.clone());
                    self.notify_invited(turn, &sender.name, (invited, stage), &record);
                }
                record
            }
            ChannelRequest::SetTopic { name, topic } => {
                let record = self.member_channel(actor, &name)?.clone();
                ChannelRecord { topic: checked_topic(&topic)?, ..record }
            }
        };
        turn.reply(caller, Reply::Channels(vec![self.channel_info(actor, &changed)]));
        self.put_channel(turn, changed);
        Ok(())
    }

    /// Stores a channel's new state, and deletes a channel without members. Writes nothing if the
    /// state is the same.
    pub(crate) fn put_channel(&mut self, turn: &mut Turn<'_>, record: ChannelRecord) {
        let before = self.channels.get(&record.name).cloned();
        if before.as_ref() == Some(&record) {
            return;
        }
        if record.members.is_empty() {
            if before.is_some() {
                self.channels.remove(&record.name.to_ascii_lowercase());
                turn.change(Change::RemoveShared(SharedKey::Channel(record.name)));
                self.share_channel(turn, before.as_ref(), None);
            }
        } else {
            turn.change(Change::PutShared(Box::new(SharedRecord::Channel(record.clone()))));
            self.channels.put(record.clone());
            self.share_channel(turn, before.as_ref(), Some(&record));
        }
    }

    fn new_channel(
        &mut self,
        now: Now,
        maker: PeerId,
        name: &str,
        topic: &str,
        private: bool,
    ) -> Result<ChannelRecord, Rejection> {
        check_channel_name(name)?;
        if is_group(name) && private {
            return Err(Rejection::OutOfBounds {
                what: "the option private",
                bound: "a group is always public".to_owned(),
            });
        }
        if self.channels.get(name).is_some() {
            return Err(Rejection::ChannelTaken { name: name.to_owned() });
        }
        if self.channels.len() >= CHANNELS_MAX {
            return Err(Rejection::TooMany { what: Crowd::Channels, count: CHANNELS_MAX });
        }
        let topic = checked_topic(topic)?;
        let created_at = self.begin_channel(now);
        Ok(ChannelRecord {
            name: name.to_owned(),
            topic,
            private,
            members: vec![maker],
            created_by: self.name_of(maker),
            created_at,
        })
    }

    fn notify_invited(
        &mut self,
        turn: &mut Turn<'_>,
        by: &str,
        (invited, stage): (PeerId, Stage),
        record: &ChannelRecord,
    ) {
        let topic = if record.topic.is_empty() {
            String::new()
        } else {
            format!(", which is for {}", quoted(&record.topic))
        };
        let name = &record.name;
        let text = wording::invitation(by, name, &topic, Addressee::of_mail_to(invited));
        let thread = format!("channel-{}", &name[1..]);
        let (channel, private) = (Some(name.clone()), record.private);
        self.post_notice(
            turn,
            Notice { stage, channel, private, ..Notice::new(invited, thread, text) },
        );
    }

    // ---- membership

    /// Returns the channel or group of this name, if the actor may know of it.
    pub(crate) fn find_channel(
        &self,
        actor: Actor,
        name: &str,
    ) -> Result<&ChannelRecord, Rejection> {
        let known = self.channels.get(name).filter(|record| self.sees_channel(actor, record));
        known.ok_or_else(|| {
            let mut asked: String = name.chars().take(64).collect();
            if asked.len() < name.len() {
                asked.push('…');
            }
            let visible = self.channels.iter().filter(|record| self.sees_channel(actor, record));
            let nearest = names::nearest(&asked, visible.map(|record| record.name.as_str()));
            Rejection::UnknownChannel { name: asked, nearest }
        })
    }

    /// Returns the channel or group of this name, if the actor is a member or the person.
    pub(crate) fn member_channel(
        &self,
        actor: Actor,
        name: &str,
    ) -> Result<&ChannelRecord, Rejection> {
        let record = self.find_channel(actor, name)?;
        if actor.is_person() || is_member(actor, record) {
            return Ok(record);
        }
        Err(Rejection::NotMember { name: record.name.clone() })
    }

    /// Returns the recipients of a post by this sender: all members but the sender.
    pub(crate) fn audience_of(
        &self,
        actor: Actor,
        sender: PeerId,
        name: &str,
    ) -> Result<(String, Vec<PeerId>), Rejection> {
        if is_elsewhere(name) {
            return self.post_elsewhere(actor, name);
        }
        let record = if is_group(name) {
            self.find_channel(actor, name)?
        } else {
            self.member_channel(actor, name)?
        };
        let others: Vec<PeerId> =
            record.members.iter().copied().filter(|member| *member != sender).collect();
        if is_group(name) && others.is_empty() {
            return Err(Rejection::EmptyGroup { name: record.name.clone() });
        }
        Ok((record.name.clone(), others))
    }

    /// Returns the labels that a peer carries.
    pub(crate) fn groups_of(&self, peer: PeerId) -> Vec<String> {
        self.channels
            .of(peer)
            .filter(|record| is_group(&record.name))
            .map(|record| record.name.clone())
            .collect()
    }

    fn channel_info(&self, actor: Actor, record: &ChannelRecord) -> ChannelInfo {
        let mut members: Vec<String> =
            record.members.iter().map(|member| self.name_of(*member)).collect();
        members.sort();
        ChannelInfo {
            name: record.name.clone(),
            topic: record.topic.clone(),
            private: record.private,
            members,
            joined: is_member(actor, record),
            created_by: record.created_by.clone(),
            created_at: record.created_at,
            link: None,
            asked: false,
        }
    }

    // ---- joining and leaving

    /// Ends the memberships of a peer that is being forgotten.
    pub(crate) fn end_memberships(&mut self, turn: &mut Turn<'_>, peer: PeerId) {
        for mut record in self.channels.of(peer).cloned().collect::<Vec<_>>() {
            record.members.retain(|member| *member != peer);
            self.put_channel(turn, record);
        }
    }
}

fn joined(mut record: ChannelRecord, peer: PeerId) -> Result<ChannelRecord, Rejection> {
    if !record.members.contains(&peer) {
        if record.members.len() >= CHANNEL_MEMBERS_MAX {
            return Err(Rejection::TooMany { what: Crowd::Members, count: CHANNEL_MEMBERS_MAX });
        }
        record.members.push(peer);
    }
    Ok(record)
}

fn checked_topic(topic: &str) -> Result<String, Rejection> {
    let topic = single_line(topic).trim().to_owned();
    check_length("the topic", &topic, TOPIC_BYTES_MAX)?;
    Ok(topic)
}

/// Whether `name` may be given to a channel or a group.
pub(crate) fn check_channel_name(name: &str) -> Result<(), Rejection> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let bare = name.strip_prefix(['#', '@']).unwrap_or("");
    if (1..=CHANNEL_NAME_CHARS_MAX).contains(&bare.len()) && bare.bytes().all(plain) {
        return Ok(());
    }
    Err(Rejection::BadChannelName { name: name.chars().take(64).collect() })
}
