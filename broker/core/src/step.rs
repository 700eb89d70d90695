//! What is decided: [`Change`]s, which must be durable before any [`Effect`] of the same step is seen.

use std::collections::BTreeSet;

use peer_proto::ids::{MessageId, PeerId, TaskId, Timestamp};
use peer_proto::message::Stage;
use peer_proto::refusal::Refusal;
use peer_proto::request::{Authority, Position, Push, Reply, RequestId};

use peer_proto::search::SearchQuery;
use serde::{Deserialize, Serialize};

use crate::input::{ConnectionId, Lookups};
use crate::record::{DeliveryRecord, KeptRecord, MessageRecord, PausesRecord, PeerRecord, SettingsRecord};
use crate::thing::{Thing, ThingKey};
use crate::who::Actor;

/// A storage verb. All changes of a batch become durable together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Store a message; it never changes afterwards.
    PutMessage(Box<MessageRecord>),
    /// Store a delivery's new state in place of its old one.
    PutDelivery {
        /// The new state.
        record: Box<DeliveryRecord>,
        /// The stored stage that it replaces; absent for a new delivery.
        was: Option<Stage>,
    },
    /// Forget a delivery, because it now stands under another recipient.
    RemoveDelivery {
        /// The message.
        message: MessageId,
        /// The recipient that it stood under.
        peer: PeerId,
        /// Its stored stage.
        was: Stage,
    },
    /// Store a peer's new state in place of its old one.
    PutPeer(Box<PeerRecord>),
    /// Forget a peer.
    RemovePeer(PeerId),
    /// Remember which message a sender's idempotency key named.
    PutIdempotencyKey {
        /// The sender.
        sender: PeerId,
        /// Its key.
        key: String,
        /// The message.
        message: MessageId,
    },
    /// The identity that the next new peer gets.
    PutNextPeer(PeerId),
    /// Store what sessions share, new or in place of its old state.
    PutThing(Box<Thing>),
    /// Forget what sessions share.
    RemoveThing(ThingKey),
    /// The identity that the next new task gets.
    PutNextTask(TaskId),
    /// Forget a message, with its deliveries, which are all settled, and its idempotency key.
    RemoveMessage(MessageId),
    /// Store what the person set, in place of what stood there.
    PutSettings(SettingsRecord),
    /// Store what the person has paused, in place of what stood there.
    PutPauses(Box<PausesRecord>),
    /// Store how much there is, as of this step.
    PutKept(KeptRecord),
}

/// An outward verb, released in order after the changes of its batch are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Answer a request.
    Reply {
        /// The connection.
        connection: ConnectionId,
        /// The request's id.
        id: RequestId,
        /// The answer.
        result: Result<Reply, Refusal>,
    },
    /// Answer `Hello`: the shell adds to it what only it knows, `Reply::Welcome`.
    Welcome {
        /// The connection.
        connection: ConnectionId,
        /// The request's id.
        id: RequestId,
        /// What the connection may do.
        authority: Authority,
    },
    /// Answer a request with what the store holds.
    Query {
        /// The connection.
        connection: ConnectionId,
        /// The request's id.
        id: RequestId,
        /// What to read.
        query: Query,
    },
    /// Answer a request with what is found, some time: `Reply::Hits`.
    Search {
        /// The connection.
        connection: ConnectionId,
        /// The request's id.
        id: RequestId,
        /// What to look for.
        search: Box<Search>,
    },
    /// Push a leased message, with its text from the store.
    Deliver {
        /// The session's connection.
        connection: ConnectionId,
        /// The message.
        message: MessageId,
        /// Sessions that ended with it offered.
        attempts: u32,
        /// A model may have seen it already.
        shown_before: bool,
    },
    /// Push something else.
    Push {
        /// The connection.
        connection: ConnectionId,
        /// What to push.
        push: Push,
    },
    /// Close a connection once what was sent to it before is written.
    Close {
        /// The connection.
        connection: ConnectionId,
    },
    /// Stop the broker cleanly.
    Stop,
}

/// A reading of the store, allowed by the rules already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// One message, whole: `Reply::Text`.
    Text(MessageId),
    /// One message with its deliveries: `Reply::Shown`.
    Show(MessageId),
    /// What was said: `Reply::History`.
    History {
        /// Only from or to this peer, by all ids that it had; none: anyone.
        peer: Vec<PeerId>,
        /// Only between `peer` and this one, by all ids that it had; none: anyone.
        with: Vec<PeerId>,
        /// Only this thread.
        thread: Option<String>,
        /// Only what was said in this channel or group.
        channel: Option<String>,
        /// Only messages sent at or after this time.
        since: Option<Timestamp>,
        /// Only messages before this one.
        before: Option<MessageId>,
        /// Only messages after this one, oldest first.
        after: Option<MessageId>,
        /// At most this many.
        limit: usize,
        /// Only what this actor sees: [`Broker::sees_message`](crate::broker::Broker::sees_message).
        actor: Actor,
    },
    /// Dead letters and expired mail: `Reply::Orphans`.
    Orphans {
        /// Start after this one.
        after: Option<Position>,
        /// Only what this actor sees: [`Broker::sees_delivery`](crate::broker::Broker::sees_delivery).
        actor: Actor,
    },
    /// One note, whole: `Reply::Note`.
    Note(String),
    /// The broker's state, of which the rules know the [`counts`](crate::counts): `Reply::Status`.
    Status,
}

/// A search, allowed by the rules already. Notes and tasks are there for everybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// What is looked for. Its channel is in lower case.
    pub query: SearchQuery,
    /// The finder, by all ids that it had: messages may be found that one of these sent, or was sent without their being
    /// held. Absent for the person, who finds all messages.
    pub seen_by: Option<Vec<PeerId>>,
    /// Messages may be found that were said in no channel (in a group, at most), not in private, and are held for nobody.
    pub direct: bool,
    /// Messages may be found that were said in one of these, in lower case, since then, and are not held for all: the
    /// finder is a member.
    pub channels: Vec<(String, Timestamp)>,
    /// Messages may be found that were said in one of these, in lower case, since then, and are held for nobody: they are
    /// open to all.
    pub open_channels: Vec<(String, Timestamp)>,
    /// Only what concerns one of these, where the query names a peer.
    pub peers: Vec<PeerId>,
}

/// The decisions of one batch, in order.
#[derive(Debug, Default)]
pub struct Step {
    /// What must be durable.
    pub changes: Vec<Change>,
    /// What may be seen afterwards.
    pub effects: Vec<Effect>,
    touched: BTreeSet<MessageId>,
    touched_keys: BTreeSet<(PeerId, String)>,
    touched_things: BTreeSet<ThingKey>,
}

impl Step {
    /// Whether the store would answer one of these lookups with a state that this step has already left behind. Then the
    /// step must be committed before the request is handled.
    #[must_use]
    pub fn outdates(&self, lookups: &Lookups) -> bool {
        lookups.messages.iter().any(|message| self.touched.contains(message))
            || lookups.idempotency.as_ref().is_some_and(|key| self.touched_keys.contains(key))
            || lookups.note.as_ref().is_some_and(|key| self.touched_things.contains(&ThingKey::Note(key.clone())))
    }

    /// Nothing was decided.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.effects.is_empty()
    }

    /// Empties the step for the next batch; keeps its memory.
    pub fn clear(&mut self) {
        self.changes.clear();
        self.effects.clear();
        self.touched.clear();
        self.touched_keys.clear();
        self.touched_things.clear();
    }

    pub(crate) fn change(&mut self, change: Change) {
        match &change {
            Change::PutMessage(record) => {
                self.touched.insert(record.head.id);
            }
            Change::PutDelivery { record, .. } => {
                self.touched.insert(record.message);
            }
            Change::RemoveDelivery { message, .. } => {
                self.touched.insert(*message);
            }
            Change::PutIdempotencyKey { sender, key, .. } => {
                self.touched_keys.insert((*sender, key.clone()));
            }
            Change::RemoveMessage(message) => {
                self.touched.insert(*message);
            }
            Change::PutThing(thing) => {
                self.touched_things.insert(thing.key());
            }
            Change::RemoveThing(key) => {
                self.touched_things.insert(key.clone());
            }
            Change::PutPeer(_)
            | Change::RemovePeer(_)
            | Change::PutNextPeer(_)
            | Change::PutSettings(_)
            | Change::PutPauses(_)
            | Change::PutKept(_)
            | Change::PutNextTask(_) => {}
        }
        self.changes.push(change);
    }
}
