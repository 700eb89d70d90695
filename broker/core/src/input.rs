//! The inputs: events with every fact that the rules need. The core itself asks nothing.

use std::collections::{BTreeMap, BTreeSet};

use peer_proto::ids::{MessageId, PeerId, Timestamp, Token};
use peer_proto::message::Stage;
use peer_proto::request::{Request, RequestId, Role, Seat};

use crate::record::{DeliveryRecord, MessageHead, Process, TokenDigest};
use crate::rejection::{Obstacle, Rejection};
use crate::shared::NoteRecord;

/// One open connection, named by the broker's shell. An id is never used twice in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// The time of an input, on two clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Wall clock: shown to people, and the base of `ttl`. It may jump.
    pub wall: Timestamp,
    /// Milliseconds on the monotonic clock that stops while the machine sleeps: the base of
    /// visibility timeouts and rates.
    pub mono_ms: u64,
    /// Milliseconds that the machine slept, since the same moment as `mono_ms`; 0 where the system
    /// does not count them.
    pub slept_ms: u64,
}

/// An event, with the facts about it.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "inputs are moved once, and nearly all of them are requests"
)]
pub enum Input {
    /// A connection sent [`Hello`](peer_proto::request::Hello). The shell has checked its uid.
    Connected {
        /// The connection.
        connection: ConnectionId,
        /// The id of its `Hello`, which the core answers.
        id: RequestId,
        /// What it is for.
        role: Role,
        /// The processes that connected, as the kernel reports them: the process, then its parent,
        /// and so on. Empty if unknown.
        ancestors: Vec<Process>,
        /// The seat that the program found in its environment.
        seat: Option<Seat>,
    },
    /// A connection ended, in whatever way.
    Disconnected {
        /// The connection.
        connection: ConnectionId,
    },
    /// Records of the store were found damaged.
    Damaged(Vec<Damaged>),
    /// A connection that sent `Hello` makes a request.
    Asked {
        /// The connection.
        connection: ConnectionId,
        /// The request's id.
        id: RequestId,
        /// The request; never `Hello`.
        request: Request,
        /// The facts that the shell and the store provide about it.
        facts: Facts,
    },
}

/// A record of the store that differs from what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// A description of the record.
    pub what: String,
    /// The pending deliveries that cannot be given out because of it.
    pub stops: Option<Stopped>,
    /// Whether it was unknown until now.
    pub is_news: bool,
}

/// Deliveries that cannot be given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// All deliveries of this message: its text is lost.
    Message(MessageId),
    /// This delivery: its state is lost.
    Delivery(MessageId, PeerId),
    /// All deliveries to this peer: its record is lost.
    Peer(PeerId),
}

/// The values that [`Broker::lookups`](crate::broker::Broker::lookups) needs from the store before
/// a request is handled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookups {
    /// Messages whose heads and deliveries the request is about.
    pub messages: Vec<MessageId>,
    /// The sender and idempotency key of a send.
    pub idempotency: Option<(PeerId, String)>,
    /// The note whose value the request needs.
    pub note: Option<String>,
    /// Processes of which the request must know whether they have ended.
    pub processes: Vec<Process>,
}

/// The values that the shell and the store provide about one request.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Fresh random bits.
    pub entropy: u64,
    /// A fresh token and its digest, for `Register` and `Bind`.
    pub token: Option<(Token, TokenDigest)>,
    /// The digest of the token that a `Register` wants to resume with.
    pub resume_digest: Option<TokenDigest>,
    /// The stored messages among [`Lookups::messages`].
    pub stored: BTreeMap<MessageId, StoredMessage>,
    /// The message that the idempotency key names, and its text. `None`: the key is not known.
    pub prior: Option<(StoredMessage, String)>,
    /// The note that [`Lookups::note`] names. `None`: there is no such note.
    pub note: Option<NoteRecord>,
    /// Those of [`Lookups::processes`] that are known to have ended.
    pub ended: BTreeSet<Process>,
    /// Whether the disk has too little space to accept anything new.
    pub disk_full: bool,
    /// The digests of the messages in a [`LinkRequest::Take`](peer_proto::link::LinkRequest::Take).
    pub mail_digests: Vec<[u8; 32]>,
}

/// A message as the store has it, without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its head.
    pub head: MessageHead,
    /// The sender's idempotency key, where it gave one.
    pub idempotency_key: Option<String>,
    /// Its deliveries, pending and settled, by recipient.
    pub deliveries: Vec<DeliveryRecord>,
}

impl Facts {
    /// Refuses to store anything new on a full disk.
    pub(crate) fn check_space(&self) -> Result<(), Rejection> {
        if self.disk_full { Err(Rejection::NoSpace) } else { Ok(()) }
    }
}

impl StoredMessage {
    /// Returns the state of a message that is pending for nobody.
    pub(crate) fn obstacle(&self) -> Obstacle {
        let any = |stage: Stage| self.deliveries.iter().any(|delivery| delivery.stage == stage);
        if any(Stage::Presented) {
            Obstacle::Presented
        } else if any(Stage::Cancelled) {
            Obstacle::Withdrawn
        } else if any(Stage::Dead) {
            Obstacle::DeadLetter
        } else {
            Obstacle::Settled
        }
    }
}
