//! Decides who may see what: for listings, history, search, watching, reading, refusals and
//! notices.
//!
//! Knows senders, recipients and members. Does not know listings. The person sees everything.
//! Invariants: to an agent, what it may not see looks exactly like what does not exist. A search
//! finds only what could be read.

use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::message::{Kind, Stage, Via};
use peer_proto::policy::Policy;
use peer_proto::question::QuestionState;

use crate::broker::Broker;
use crate::input::StoredMessage;
use crate::record::{DeliveryRecord, MessageHead, delivery_to};
use crate::rejection::Rejection;
use crate::shared::{ChannelRecord, QuestionRecord};
use crate::state::channels::{began_before, is_group};
use crate::who::{Actor, Caller};

/// The messages that a search may find. Every actor may find notes and tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    /// All ids of the actor: the search finds messages that one of them sent, or was sent without
    /// their being held. `None` for the person, who finds everything.
    pub(crate) seen_by: Option<Vec<PeerId>>,
    /// Whether the search finds messages outside of channels (groups included) that are not private
    /// and held for nobody.
    pub(crate) direct: bool,
    /// Channels of the actor, in lower case, with the time from which their posts are found. Posts
    /// that are held for all are left out.
    pub(crate) channels: Vec<(String, Timestamp)>,
    /// Open channels, in lower case, with the time from which their posts are found. Posts that are
    /// held for anybody are left out.
    pub(crate) open_channels: Vec<(String, Timestamp)>,
}

/// The channel, time and privacy of a message.
struct MessageContext<'a> {
    channel: Option<&'a str>,
    kind: Kind,
    message: MessageId,
    private: bool,
}

impl<'a> MessageContext<'a> {
    fn of(head: &'a MessageHead) -> Self {
        Self {
            channel: head.channel.as_deref(),
            kind: head.kind,
            message: head.id,
            private: head.private,
        }
    }

    fn of_delivery(record: &'a DeliveryRecord) -> Self {
        let brief = &record.brief;
        Self {
            channel: brief.channel.as_deref(),
            kind: brief.kind,
            message: record.message,
            private: brief.private,
        }
    }
}

impl Broker {
    // ---- messages

    /// Whether an actor may see a message, including its text. A session sees the messages that it
    /// sent, those that it has a delivery of, and the posts it can read as a member. A shell also
    /// sees messages that are not private.
    #[must_use]
    pub fn sees_message(
        &self,
        actor: Actor,
        head: &MessageHead,
        deliveries: &[DeliveryRecord],
    ) -> bool {
        let was_sent_it = |peer: PeerId| self.delivery_of(deliveries, peer).is_some();
        self.concerns(actor, head.from.peer, &MessageContext::of(head), was_sent_it)
            && !self.is_kept_back_from(actor, head, deliveries)
    }

    /// Whether an actor may see a message, as far as its named recipients tell. If this is false,
    /// so is [`Broker::sees_message`], except for a dead letter that the person reassigned to the
    /// actor.
    #[must_use]
    pub fn may_concern(&self, actor: Actor, head: &MessageHead) -> bool {
        let was_sent_it = |peer: PeerId| head.to.iter().any(|(to, _)| self.is_same(peer, *to));
        self.concerns(actor, head.from.peer, &MessageContext::of(head), was_sent_it)
    }

    fn concerns(
        &self,
        actor: Actor,
        from: PeerId,
        place: &MessageContext<'_>,
        was_sent_it: impl Fn(PeerId) -> bool,
    ) -> bool {
        let concerns = |peer: PeerId| {
            self.is_same(peer, from) || was_sent_it(peer) || self.reads_as_member(peer, place)
        };
        let is_open = || self.is_open_to_all(place);
        actor.is_person()
            || actor.agent().is_some_and(concerns)
            || (matches!(actor, Actor::Shell { .. }) && is_open())
    }

    /// Whether the person's decision hides a message's text from an actor that may see it
    /// otherwise. A text that was held and not released is visible to the person, its sender, and
    /// recipients for whom it was not held. Members of its channel without a delivery see it once
    /// it has reached one of them. Another agent's shell sees it once no delivery is held.
    fn is_kept_back_from(
        &self,
        actor: Actor,
        head: &MessageHead,
        deliveries: &[DeliveryRecord],
    ) -> bool {
        let agent = actor.agent();
        if actor.is_person() || agent.is_some_and(|peer| self.is_same(peer, head.from.peer)) {
            return false;
        }
        if let Some(own) = agent.and_then(|peer| self.delivery_of(deliveries, peer)) {
            return own.is_kept_back();
        }
        if agent.is_some_and(|peer| self.reads_as_member(peer, &MessageContext::of(head))) {
            return !deliveries.is_empty() && deliveries.iter().all(DeliveryRecord::is_kept_back);
        }
        deliveries.iter().any(DeliveryRecord::is_kept_back)
    }

    /// Refuses a message that the caller may not see, as if the message did not exist.
    pub(crate) fn check_sees(
        &self,
        caller: Caller,
        stored: &StoredMessage,
    ) -> Result<(), Rejection> {
        let StoredMessage { head, deliveries, .. } = stored;
        let sees = self.sees_message(caller.actor()?, head, deliveries);
        if sees { Ok(()) } else { Err(Rejection::UnknownMessage(head.id)) }
    }

    /// Whether an actor may know that this delivery exists. The person, the sender and the
    /// recipient may. Members of its channel may, unless it is held. Other agents may, unless it is
    /// held or private.
    #[must_use]
    pub fn sees_delivery(&self, actor: Actor, record: &DeliveryRecord) -> bool {
        let is_end =
            |peer: PeerId| self.is_same(peer, record.brief.from) || self.is_same(peer, record.peer);
        if actor.is_person() || actor.agent().is_some_and(is_end) {
            return true;
        }
        if record.is_kept_back() {
            return false;
        }
        let said_in = record.brief.channel.as_deref().and_then(|name| self.channels.get(name));
        let is_member = |peer: PeerId| {
            said_in.is_some_and(|said_in| {
                said_in.members.contains(&peer) && began_before(said_in, record.message)
            })
        };
        self.is_open_to_all(&MessageContext::of_delivery(record))
            || actor.agent().is_some_and(is_member)
    }

    /// Whether a watcher may read the text of a delivery that it may know of. The delivery was
    /// accepted just now and is held for nobody.
    pub(crate) fn sees_text_of(&self, actor: Actor, record: &DeliveryRecord) -> bool {
        self.concerns(actor, record.brief.from, &MessageContext::of_delivery(record), |peer| {
            self.is_same(peer, record.peer)
        })
    }

    /// Returns what a search of this actor may find.
    pub(crate) fn scope(&self, actor: Actor) -> Scope {
        if actor.is_person() {
            return Scope { direct: true, ..Scope::default() };
        }
        let named = |record: &ChannelRecord| (record.name.to_ascii_lowercase(), record.created_at);
        let is_shell = matches!(actor, Actor::Shell { .. });
        let read_by =
            |peer: PeerId| self.channels.of(peer).filter(move |_| self.reads_channels(peer));
        let open = self.channels.iter().filter(|record| is_shell && !record.private);
        Scope {
            seen_by: Some(actor.agent().map(|peer| self.presence.ids_of(peer)).unwrap_or_default()),
            direct: is_shell,
            channels: actor.agent().into_iter().flat_map(read_by).map(named).collect(),
            open_channels: open.map(named).collect(),
        }
    }

    // ---- channels

    /// Whether an actor may know of a channel.
    pub(crate) fn sees_channel(&self, actor: Actor, record: &ChannelRecord) -> bool {
        !record.private || actor.is_person() || is_member(actor, record)
    }

    /// Whether a member may read a message because it is in the channel, as long as the channel is
    /// the same. The broker's notices to one member are visible to that member only.
    fn reads_as_member(&self, peer: PeerId, place: &MessageContext<'_>) -> bool {
        let Some(record) = place.channel.and_then(|name| self.channels.get(name)) else {
            return false;
        };
        let said = place.kind != Kind::Notice && began_before(record, place.message);
        said && record.members.contains(&peer) && self.reads_channels(peer)
    }

    /// Whether a peer may read channels at all. Mail that the person holds back from an agent must
    /// not reach it through a channel.
    fn reads_channels(&self, peer: PeerId) -> bool {
        self.policy_of(peer) == Policy::Accept
    }

    /// Whether a channel of this name is private.
    pub(crate) fn is_private(&self, name: &str) -> bool {
        self.channels.get(name).is_some_and(|record| record.private)
    }

    /// Whether a non-member may know that this message exists. Posts to a private channel are
    /// excluded, and posts to a deleted one, which may have been private.
    pub(crate) fn is_public(&self, channel: Option<&str>, message: MessageId) -> bool {
        let is_open = |name: &str| {
            self.channels
                .get(name)
                .is_some_and(|record| !record.private && began_before(record, message))
        };
        channel.is_none_or(|name| is_group(name) || is_open(name))
    }

    /// Whether everybody may read it. A reply to a private message is private, whoever its
    /// recipients are.
    fn is_open_to_all(&self, place: &MessageContext<'_>) -> bool {
        !place.private && self.is_public(place.channel, place.message)
    }

    // ---- questions and refusals

    /// Whether an actor may know of a question. A session knows of the questions that it asked or
    /// was asked.
    pub(crate) fn sees_question(&self, actor: Actor, record: &QuestionRecord) -> bool {
        if actor.is_person() {
            return true;
        }
        match actor.agent().filter(|peer| self.is_party(record, *peer)) {
            Some(peer) => {
                self.is_same(peer, record.asker) || !self.is_question_kept_from(record, peer)
            }
            None if matches!(actor, Actor::Session(_)) => false,
            None => {
                let held = |peer: &PeerId| self.holds_question(record, *peer);
                self.is_public(record.channel.as_deref(), record.question)
                    && !record.to.iter().any(held)
            }
        }
    }

    /// Whether an agent asked or was asked.
    pub(crate) fn is_party(&self, record: &QuestionRecord, peer: PeerId) -> bool {
        self.is_same(peer, record.asker) || self.was_asked(record, peer)
    }

    /// Whether the person may have kept a question from a peer that was asked. True if it is held,
    /// or if it ended unanswered, because then it is unknown whether it was held.
    fn is_question_kept_from(&self, record: &QuestionRecord, peer: PeerId) -> bool {
        matches!(record.state, QuestionState::Expired | QuestionState::Cancelled)
            || self.holds_question(record, peer)
    }

    /// Whether a question is held for the person's decision before this peer gets it.
    fn holds_question(&self, record: &QuestionRecord, peer: PeerId) -> bool {
        let waiting = self.mailboxes.get(peer, record.question);
        waiting.is_some_and(|entry| entry.record.stage == Stage::Held)
    }

    /// Whether an actor may know of a send that was refused to `by`. A session and its shell know
    /// of their own.
    pub(crate) fn sees_refused(&self, actor: Actor, by: PeerId, via: Via) -> bool {
        match actor.agent() {
            _ if actor.is_person() => true,
            Some(peer) => self.is_same(peer, by),
            None => by == PeerId::HUMAN && via == Via::Shell,
        }
    }

    // ---- one peer with several ids

    /// Whether an id belongs to this peer, now or before a merge.
    pub(crate) fn is_same(&self, peer: PeerId, id: PeerId) -> bool {
        peer == id || self.presence.get(peer).is_some_and(|record| record.merged_ids.contains(&id))
    }

    /// Returns the delivery to this peer, or to one that was merged into it.
    pub(crate) fn delivery_of<'a>(
        &self,
        deliveries: &'a [DeliveryRecord],
        peer: PeerId,
    ) -> Option<&'a DeliveryRecord> {
        self.presence.ids_of(peer).into_iter().find_map(|id| delivery_to(deliveries, id))
    }
}

/// Whether an actor is a member of a channel.
pub(crate) fn is_member(actor: Actor, record: &ChannelRecord) -> bool {
    actor.member().is_some_and(|peer| record.members.contains(&peer))
}
