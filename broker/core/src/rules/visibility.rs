//! Who may see what: the one answer, for listings, history, search, watching, reading, refusals and notices.
//!
//! Knows who sent, was sent and is a member. Does not know listings. The person sees everything. Invariants: what an agent
//! may not see does not exist for it; nothing is found by a search that could not be read.

use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::message::{Kind, Stage, Via};
use peer_proto::policy::Policy;
use peer_proto::question::QuestionState;

use crate::broker::Broker;
use crate::input::StoredMessage;
use crate::record::{DeliveryRecord, MessageHead, delivery_to};
use crate::rejection::Rejection;
use crate::state::channels::{began_before, is_group};
use crate::thing::{ChannelRecord, QuestionRecord};
use crate::who::{Actor, Caller};

/// What a search may find of messages. Notes and tasks are there for everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    /// The finder, by all ids that it had: what one of these sent, or was sent without its being held. Absent for the
    /// person, who finds everything.
    pub(crate) seen_by: Option<Vec<PeerId>>,
    /// What was said in no channel (in a group, at most), not in private, and is held for nobody.
    pub(crate) direct: bool,
    /// What was said in one of these, in lower case, since then, and is not held for all: the finder is a member.
    pub(crate) channels: Vec<(String, Timestamp)>,
    /// What was said in one of these, in lower case, since then, and is held for nobody: they are open to all.
    pub(crate) open_channels: Vec<(String, Timestamp)>,
}

/// Where a message was said.
struct Place<'a> {
    channel: Option<&'a str>,
    kind: Kind,
    message: MessageId,
    private: bool,
}

impl<'a> Place<'a> {
    fn of(head: &'a MessageHead) -> Self {
        Self { channel: head.channel.as_deref(), kind: head.kind, message: head.id, private: head.private }
    }

    fn of_delivery(record: &'a DeliveryRecord) -> Self {
        let brief = &record.brief;
        Self { channel: brief.channel.as_deref(), kind: brief.kind, message: record.message, private: brief.private }
    }
}

impl Broker {
    // ---- messages

    /// Whether an actor may see a message, its text included. A session sees what it sent, what it has a delivery of, and what
    /// it could read as a member of the channel; a shell sees also what no channel keeps to itself.
    #[must_use]
    pub fn sees_message(&self, actor: Actor, head: &MessageHead, deliveries: &[DeliveryRecord]) -> bool {
        let was_sent_it = |peer: PeerId| self.delivery_of(deliveries, peer).is_some();
        self.concerns(actor, head.from.peer, &Place::of(head), was_sent_it) && !self.is_kept_back_from(actor, head, deliveries)
    }

    /// A first look without the deliveries, by the recipients that the message was sent to. Where this is false, so is
    /// [`Broker::sees_message`], with one exception: a dead letter that the person reassigned to the actor.
    #[must_use]
    pub fn may_concern(&self, actor: Actor, head: &MessageHead) -> bool {
        let was_sent_it = |peer: PeerId| head.to.iter().any(|(to, _)| self.is_same(peer, *to));
        self.concerns(actor, head.from.peer, &Place::of(head), was_sent_it)
    }

    fn concerns(&self, actor: Actor, from: PeerId, place: &Place<'_>, was_sent_it: impl Fn(PeerId) -> bool) -> bool {
        let concerns = |peer: PeerId| self.is_same(peer, from) || was_sent_it(peer) || self.reads_as_member(peer, place);
        let is_open = || self.is_open_to_all(place);
        actor.is_person() || actor.agent().is_some_and(concerns) || (matches!(actor, Actor::Shell { .. }) && is_open())
    }

    /// Whether the person's decision on a message keeps its text from an actor who may see it otherwise. A text that was held
    /// and not released is read by the person, by its sender and by those recipients for whom it was not held. Members of its
    /// channel without a delivery of their own read it once it has reached one of them; any other agent's shell once nobody's
    /// delivery is held.
    fn is_kept_back_from(&self, actor: Actor, head: &MessageHead, deliveries: &[DeliveryRecord]) -> bool {
        let agent = actor.agent();
        if actor.is_person() || agent.is_some_and(|peer| self.is_same(peer, head.from.peer)) {
            return false;
        }
        if let Some(own) = agent.and_then(|peer| self.delivery_of(deliveries, peer)) {
            return own.is_kept_back();
        }
        if agent.is_some_and(|peer| self.reads_as_member(peer, &Place::of(head))) {
            return !deliveries.is_empty() && deliveries.iter().all(DeliveryRecord::is_kept_back);
        }
        deliveries.iter().any(DeliveryRecord::is_kept_back)
    }

    /// Refuses to read a message that the caller may not see: to it the message does not exist.
    pub(crate) fn check_sees(&self, caller: Caller, stored: &StoredMessage) -> Result<(), Rejection> {
        let StoredMessage { head, deliveries, .. } = stored;
        let sees = self.sees_message(caller.actor()?, head, deliveries);
        if sees { Ok(()) } else { Err(Rejection::UnknownMessage(head.id)) }
    }

    /// Whether an actor may know that this delivery exists. The person, the sender and the recipient may. Members of its channel
    /// may unless it is held, and any other agent may unless it is held or was said in private.
    #[must_use]
    pub fn sees_delivery(&self, actor: Actor, record: &DeliveryRecord) -> bool {
        let is_end = |peer: PeerId| self.is_same(peer, record.brief.from) || self.is_same(peer, record.peer);
        if actor.is_person() || actor.agent().is_some_and(is_end) {
            return true;
        }
        if record.is_kept_back() {
            return false;
        }
        let said_in = record.brief.channel.as_deref().and_then(|name| self.channels.get(name));
        let is_member = |peer: PeerId| {
            said_in.is_some_and(|said_in| said_in.members.contains(&peer) && began_before(said_in, record.message))
        };
        self.is_open_to_all(&Place::of_delivery(record)) || actor.agent().is_some_and(is_member)
    }

    /// Whether a watcher who may know of a delivery that was accepted just now, and is held for nobody, may read its text.
    pub(crate) fn sees_text_of(&self, actor: Actor, record: &DeliveryRecord) -> bool {
        self.concerns(actor, record.brief.from, &Place::of_delivery(record), |peer| self.is_same(peer, record.peer))
    }

    /// What a search of this actor may find.
    pub(crate) fn scope(&self, actor: Actor) -> Scope {
        if actor.is_person() {
            return Scope { direct: true, ..Scope::default() };
        }
        let named = |record: &ChannelRecord| (record.name.to_ascii_lowercase(), record.created_at);
        let is_shell = matches!(actor, Actor::Shell { .. });
        let read_by = |peer: PeerId| self.channels.of(peer).filter(move |_| self.reads_channels(peer));
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

    /// Whether what was said in a channel may be read by way of the channel itself: its members may, for as long as it is
    /// the same channel; the broker's notices to one of them are that one's alone.
    fn reads_as_member(&self, peer: PeerId, place: &Place<'_>) -> bool {
        let Some(record) = place.channel.and_then(|name| self.channels.get(name)) else { return false };
        let said = place.kind != Kind::Notice && began_before(record, place.message);
        said && record.members.contains(&peer) && self.reads_channels(peer)
    }

    /// What the person holds back from an agent does not reach it by way of a channel either.
    fn reads_channels(&self, peer: PeerId) -> bool {
        self.policy_of(peer) == Policy::Accept
    }

    /// Whether a channel of this name is private.
    pub(crate) fn is_private(&self, name: &str) -> bool {
        self.channels.get(name).is_some_and(|record| record.private)
    }

    /// Whether an outsider may see at all that this was said: not what was said in a private channel, nor in one that is
    /// gone and may have been private.
    pub(crate) fn is_public(&self, channel: Option<&str>, message: MessageId) -> bool {
        let is_open = |name: &str| self.channels.get(name).is_some_and(|record| !record.private && began_before(record, message));
        channel.is_none_or(|name| is_group(name) || is_open(name))
    }

    /// Whether it was said where everybody may hear it. What answers something private is private, whoever it goes to.
    fn is_open_to_all(&self, place: &Place<'_>) -> bool {
        !place.private && self.is_public(place.channel, place.message)
    }

    // ---- questions and refusals

    /// Whether an actor may know of a question. A session knows of those that it asked or was asked.
    pub(crate) fn sees_question(&self, actor: Actor, record: &QuestionRecord) -> bool {
        if actor.is_person() {
            return true;
        }
        match actor.agent().filter(|peer| self.is_party(record, *peer)) {
            Some(peer) => self.is_same(peer, record.asker) || !self.is_question_kept_from(record, peer),
            None if matches!(actor, Actor::Session(_)) => false,
            None => {
                let held = |peer: &PeerId| self.holds_question(record, *peer);
                self.is_public(record.channel.as_deref(), record.question) && !record.to.iter().any(held)
            }
        }
    }

    /// Whether an agent asked or was asked.
    pub(crate) fn is_party(&self, record: &QuestionRecord, peer: PeerId) -> bool {
        self.is_same(peer, record.asker) || self.was_asked(record, peer)
    }

    /// Whether the person may have kept a question from one who was asked: it is held, or it ended unanswered, and then it
    /// is not known any more whether it was held.
    fn is_question_kept_from(&self, record: &QuestionRecord, peer: PeerId) -> bool {
        matches!(record.state, QuestionState::Expired | QuestionState::Cancelled) || self.holds_question(record, peer)
    }

    /// Whether a question waits for the person before this peer may be asked it.
    fn holds_question(&self, record: &QuestionRecord, peer: PeerId) -> bool {
        let waiting = self.mailboxes.get(peer, record.question);
        waiting.is_some_and(|entry| entry.record.stage == Stage::Held)
    }

    /// Whether an actor may know of a send that was refused to `by`: a session and its shell know of their own.
    pub(crate) fn sees_refused(&self, actor: Actor, by: PeerId, via: Via) -> bool {
        match actor.agent() {
            _ if actor.is_person() => true,
            Some(peer) => self.is_same(peer, by),
            None => by == PeerId::HUMAN && via == Via::Shell,
        }
    }

    // ---- one peer by several ids

    /// Whether an id is this peer's, now or from before it was bound.
    pub(crate) fn is_same(&self, peer: PeerId, id: PeerId) -> bool {
        peer == id || self.presence.get(peer).is_some_and(|record| record.former.contains(&id))
    }

    /// The delivery to this peer, or to one that became it.
    pub(crate) fn delivery_of<'a>(&self, deliveries: &'a [DeliveryRecord], peer: PeerId) -> Option<&'a DeliveryRecord> {
        self.presence.ids_of(peer).into_iter().find_map(|id| delivery_to(deliveries, id))
    }
}

/// Whether an actor belongs to a channel.
pub(crate) fn is_member(actor: Actor, record: &ChannelRecord) -> bool {
    actor.member().is_some_and(|peer| record.members.contains(&peer))
}
