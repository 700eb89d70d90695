//! What can happen, as facts: each [`Input`] carries whatever the rules need to know about it, so that the core never
//! asks anybody.

use std::collections::{BTreeMap, BTreeSet};

use peer_proto::ids::{MessageId, PeerId, Timestamp, Token};
use peer_proto::message::Stage;
use peer_proto::request::{Request, RequestId, Role, Seat};

use crate::record::{DeliveryRecord, MessageHead, Process, TokenDigest};
use crate::rejection::{Obstacle, Rejection};
use crate::thing::NoteRecord;

/// One open connection, named by the broker's shell; never used twice in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// The time of an input, on two clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Wall clock: shown to people, and what `ttl` counts in. May jump.
    pub wall: Timestamp,
    /// Milliseconds on the monotonic clock that stops while the machine sleeps: what visibility timeouts and rates count in.
    pub mono_ms: u64,
    /// Milliseconds that the machine slept, since the same moment as `mono_ms`; 0 where the system does not count them.
    pub slept_ms: u64,
}

/// Something that happened.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "inputs are moved once, and nearly all of them are requests")]
pub enum Input {
    /// A connection said [`Hello`](peer_proto::request::Hello); the shell has checked its uid.
    Connected {
        /// The connection.
        connection: ConnectionId,
        /// The id of its `Hello`, which the core answers.
        id: RequestId,
        /// What it is for.
        role: Role,
        /// The kernel's word on who connected: the process, then its parent, and so on. Empty where it cannot be told.
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
    /// A connection that said hello asks something.
    Asked {
        /// The connection.
        connection: ConnectionId,
        /// The request's id.
        id: RequestId,
        /// The request; never `Hello`.
        request: Request,
        /// What the shell and the store know about it.
        facts: Facts,
    },
}

/// A record of the store that is not what was written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// What it is of, in words.
    pub what: String,
    /// What waits and cannot be given out because of it.
    pub stops: Option<Stopped>,
    /// It was not known before.
    pub is_news: bool,
}

/// Deliveries that cannot be given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// All of this message: its text is lost.
    Message(MessageId),
    /// This one: where it stood is lost.
    Delivery(MessageId, PeerId),
    /// All to this peer: who it was is lost.
    Peer(PeerId),
}

/// What [`Broker::lookups`](crate::broker::Broker::lookups) wants to know from the store before a request is handled.
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

/// What the shell and the store know about one request.
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
    /// The message that the idempotency key named, where it is known, and its text.
    pub prior: Option<(StoredMessage, String)>,
    /// The note that [`Lookups::note`] named, where there is one.
    pub note: Option<NoteRecord>,
    /// Those of [`Lookups::processes`] that have certainly ended.
    pub ended: BTreeSet<Process>,
    /// So little space is left on the disk that nothing new may be accepted.
    pub disk_full: bool,
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
    /// Refuses what would be stored anew on a full disk.
    pub(crate) fn check_space(&self) -> Result<(), Rejection> {
        if self.disk_full { Err(Rejection::NoSpace) } else { Ok(()) }
    }
}

impl StoredMessage {
    /// Where a message stands that waits for nobody.
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
