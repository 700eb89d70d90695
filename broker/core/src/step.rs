//! The decisions: [`Change`]s, which must be durable before any [`Effect`] of the same step is
//! visible.

use std::collections::BTreeSet;

use peer_proto::ids::{BrokerId, MessageId, PeerId, TaskId, Timestamp};
use peer_proto::message::Stage;
use peer_proto::refusal::Refusal;
use peer_proto::request::{Authority, Position, Push, Reply, RequestId};

use peer_proto::search::SearchQuery;
use serde::{Deserialize, Serialize};

use crate::input::{ConnectionId, Lookups};
use crate::record::{
    DeliveryRecord, KeptRecord, LinkRecord, MessageHead, MessageRecord, PausesRecord, PeerRecord,
    ReceiptKey, SettingsRecord,
};
use crate::shared::{SharedKey, SharedRecord};
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
    /// Delete a delivery, because it now belongs to another recipient.
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
    /// Record the message that a sender's idempotency key names.
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
    /// Store a shared record, new or in place of its old state.
    PutShared(Box<SharedRecord>),
    /// Delete a shared record.
    RemoveShared(SharedKey),
    /// The identity that the next new task gets.
    PutNextTask(TaskId),
    /// Delete a message, with its deliveries, which are all settled, and its idempotency key.
    RemoveMessage(MessageId),
    /// Store the person's settings in place of the old ones.
    PutSettings(SettingsRecord),
    /// Store the pauses in place of the old ones.
    PutPauses(Box<PausesRecord>),
    /// Store the totals as of this step.
    PutKept(KeptRecord),
    /// Store this broker's identity.
    PutBroker(BrokerId),
    /// Store a link, new or in place of its old state.
    PutLink(Box<LinkRecord>),
    /// Forget a link, with its due receipts and withdrawn messages.
    RemoveLink(BrokerId),
    /// A receipt is due.
    PutReceipt {
        /// For whom, and of what.
        key: ReceiptKey,
        /// The revision of the delivery.
        rev: u32,
    },
    /// A receipt was confirmed.
    RemoveReceipt(ReceiptKey),
    /// A message was withdrawn before it came.
    PutWithdrawn {
        /// Its origin.
        broker: BrokerId,
        /// The message.
        message: MessageId,
    },
    /// Forget that a message was withdrawn.
    RemoveWithdrawn {
        /// Its origin.
        broker: BrokerId,
        /// The message.
        message: MessageId,
    },
}

/// A recipient on another broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteRecipient {
    /// Its proxy here.
    pub proxy: PeerId,
    /// Its identity on its own broker.
    pub peer: PeerId,
    /// Its name there, as far as this broker knows.
    pub name: String,
}

impl RemoteRecipient {
    /// Returns its identity and the name that the sender knew it by. A name that it has now may be
    /// another's: a broker that was restored gives identities again.
    #[must_use]
    pub fn as_sent(self, head: &MessageHead) -> (PeerId, String) {
        let named = head.to.iter().find(|(proxy, _)| *proxy == self.proxy);
        let name = named.and_then(|(_, name)| Some(name.rsplit_once('@')?.0.to_owned()));
        (self.peer, name.unwrap_or(self.name))
    }
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
    /// Answer `Hello` with `Reply::Welcome`. The shell adds the values that only it knows.
    Welcome {
        /// The connection.
        connection: ConnectionId,
        /// The request's id.
        id: RequestId,
        /// What the connection may do.
        authority: Authority,
    },
    /// Answer a request with data from the store.
    Query {
        /// The connection.
        connection: ConnectionId,
        /// The request's id.
        id: RequestId,
        /// What to read.
        query: Query,
    },
    /// Answer a request with search results later: `Reply::Hits`.
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
        /// Whether a model may have been shown it before.
        shown_before: bool,
    },
    /// Push a leased message to a link, with its text from the store.
    Forward {
        /// The link's connection.
        connection: ConnectionId,
        /// The message.
        message: MessageId,
        /// The recipients that it is leased for.
        to: Vec<RemoteRecipient>,
        /// This broker.
        own: BrokerId,
        /// The channel of this broker that it was posted in.
        channel: Option<PeerId>,
    },
    /// Push something else.
    Push {
        /// The connection.
        connection: ConnectionId,
        /// What to push.
        push: Push,
    },
    /// Close a connection once everything that was sent before is written.
    Close {
        /// The connection.
        connection: ConnectionId,
    },
    /// Stop the broker cleanly.
    Stop,
}

/// A query of the store that the rules have permitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// One message, whole: `Reply::Text`.
    Text(MessageId),
    /// One message with its deliveries: `Reply::Shown`.
    Show(MessageId),
    /// Messages of the history: `Reply::History`.
    History {
        /// Only from or to this peer, by all its ids. Empty: any peer.
        peer: Vec<PeerId>,
        /// Only between `peer` and this one, by all its ids. Empty: any peer.
        with: Vec<PeerId>,
        /// Only this thread.
        thread: Option<String>,
        /// Only posts in this channel or group.
        channel: Option<String>,
        /// Only messages sent at or after this time.
        since: Option<Timestamp>,
        /// Only messages before this one.
        before: Option<MessageId>,
        /// Only messages after this one, oldest first.
        after: Option<MessageId>,
        /// At most this many.
        limit: usize,
        /// Only messages that this actor may see:
        /// [`Broker::sees_message`](crate::broker::Broker::sees_message).
        actor: Actor,
    },
    /// Dead letters and expired mail: `Reply::Orphans`.
    Orphans {
        /// Start after this one.
        after: Option<Position>,
        /// Only deliveries that this actor may see:
        /// [`Broker::sees_delivery`](crate::broker::Broker::sees_delivery).
        actor: Actor,
    },
    /// One note, whole: `Reply::Note`.
    Note(String),
    /// The broker's state, with the [`counts`](crate::counts) of the rules: `Reply::Status`.
    Status,
}

/// A search that the rules have permitted. Every actor may find notes and tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// The query. Its channel is in lower case.
    pub query: SearchQuery,
    /// All ids of the actor: the search finds messages that one of them sent, or was sent without
    /// their being held. `None` for the person, who finds all messages.
    pub seen_by: Option<Vec<PeerId>>,
    /// Whether the search finds messages outside of channels (groups included) that are not private
    /// and held for nobody.
    pub direct: bool,
    /// Channels of the actor, in lower case, with the time from which their posts are found. Posts
    /// that are held for all are left out.
    pub channels: Vec<(String, Timestamp)>,
    /// Open channels, in lower case, with the time from which their posts are found. Posts that are
    /// held for anybody are left out.
    pub open_channels: Vec<(String, Timestamp)>,
    /// Only results that concern one of these, if the query names a peer.
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
    touched_shared: BTreeSet<SharedKey>,
}

impl Step {
    /// Whether this step has changed a value that the store would return for one of these lookups.
    /// Then the step must be committed before the request is handled.
    #[must_use]
    pub fn outdates(&self, lookups: &Lookups) -> bool {
        lookups.messages.iter().any(|message| self.touched.contains(message))
            || lookups.idempotency.as_ref().is_some_and(|key| self.touched_keys.contains(key))
            || lookups
                .note
                .as_ref()
                .is_some_and(|key| self.touched_shared.contains(&SharedKey::Note(key.clone())))
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
        self.touched_shared.clear();
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
            Change::PutShared(shared) => {
                self.touched_shared.insert(shared.key());
            }
            Change::RemoveShared(key) => {
                self.touched_shared.insert(key.clone());
            }
            Change::PutPeer(_)
            | Change::RemovePeer(_)
            | Change::PutNextPeer(_)
            | Change::PutSettings(_)
            | Change::PutPauses(_)
            | Change::PutKept(_)
            | Change::PutNextTask(_)
            | Change::PutBroker(_)
            | Change::PutLink(_)
            | Change::RemoveLink(_)
            | Change::PutReceipt { .. }
            | Change::RemoveReceipt(_)
            | Change::PutWithdrawn { .. }
            | Change::RemoveWithdrawn { .. } => {}
        }
        self.changes.push(change);
    }
}
