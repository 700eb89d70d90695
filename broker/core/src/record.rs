//! The durable records. The store writes them behind a version byte. A shipped record is frozen: a
//! change needs a new version and a migration.

use std::collections::BTreeSet;

use peer_proto::hook::Mode;
use peer_proto::ids::{BrokerId, MessageId, PeerId, TaskId, Timestamp};
use peer_proto::link::{Share, There};
use peer_proto::message::{
    Cause, Intent, Kind, Message, Sender, Stage, TraceEntry, TraceEvent, Via,
};
use peer_proto::policy::Policy;
use peer_proto::request::Seat;
use serde::{Deserialize, Serialize};

use crate::shared::SharedRecords;

/// The SHA-256 digest of a session token: what is stored instead of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TokenDigest(pub [u8; 32]);

/// A process as the kernel knows it. Process ids are used again; the start tells a process from a
/// later one with its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// What stands for the moment of its start. Only equality means anything.
    pub started: u64,
}

/// A peer: a durable name with a mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRecord {
    /// Its identity.
    pub id: PeerId,
    /// Its name, unique among retained peers.
    pub name: String,
    /// Earlier names that still lead to it, oldest first.
    pub aliases: Vec<String>,
    /// The keys that find it again, oldest first.
    pub seats: Vec<Seat>,
    /// No seat and no chosen name yet: its mail moves when it binds to a known seat.
    pub provisional: bool,
    /// `claude`, `codex`, …
    pub client: String,
    /// The client's version.
    pub client_version: String,
    /// Where it works.
    pub cwd: String,
    /// The top of its git work tree.
    pub git_root: Option<String>,
    /// What all work trees of its repository share.
    pub repo: Option<String>,
    /// Its machine.
    pub host: String,
    /// What it is doing, in its own words.
    pub summary: String,
    /// Its state, in its own words.
    pub state: String,
    /// Its task, in its own words.
    pub task: String,
    /// The digest of its latest session's token; absent once an operator ended that session.
    pub token: Option<TokenDigest>,
    /// The client process of its session, while it has one. A broker that was killed leaves it: the
    /// session will resume.
    pub client_pid: Option<u32>,
    /// When it was last known to be connected.
    pub last_seen: Timestamp,
    /// What the person set for mail to it; absent: what holds for all.
    pub policy: Option<Policy>,
    /// What its latest session was last known to do without asking.
    pub mode: Option<Mode>,
    /// Provisional peers that became it, oldest first: what they sent and were sent is its own.
    pub merged_ids: Vec<PeerId>,
    /// The client process of its session, where the kernel named it, while it has one.
    pub client_process: Option<Process>,
    /// The adapter process that holds the token of its session, where the kernel named it, while it
    /// has one.
    pub adapter_process: Option<Process>,
    /// Where it really is, if it is a peer of another broker: then this is its proxy.
    pub home: Option<Home>,
    /// The person keeps it out of what other brokers are told.
    pub hidden: bool,
}

/// The broker that a proxy's peer, or channel, belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// The broker.
    pub broker: BrokerId,
    /// The peer's identity there.
    pub peer: PeerId,
    /// Its name there.
    pub name: String,
}

impl PeerRecord {
    /// Whether it stands for a channel of another broker.
    #[must_use]
    pub fn is_channel(&self) -> bool {
        self.home.as_ref().is_some_and(|home| home.peer.is_channel())
    }

    /// A peer of which nothing is known yet but its name.
    #[must_use]
    pub fn new(id: PeerId, name: String, last_seen: Timestamp) -> Self {
        Self {
            id,
            name,
            aliases: Vec::new(),
            seats: Vec::new(),
            provisional: false,
            client: String::new(),
            client_version: String::new(),
            cwd: String::new(),
            git_root: None,
            repo: None,
            host: String::new(),
            summary: String::new(),
            state: String::new(),
            task: String::new(),
            token: None,
            client_pid: None,
            last_seen,
            policy: None,
            mode: None,
            merged_ids: Vec::new(),
            client_process: None,
            adapter_process: None,
            home: None,
            hidden: false,
        }
    }
}

/// Everything about a message but its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageHead {
    /// Its identity.
    pub id: MessageId,
    /// Who sent it.
    pub from: Sender,
    /// The recipients: identity, and name when it was sent.
    pub to: Vec<(PeerId, String)>,
    /// Whether it may wake its reader.
    pub intent: Intent,
    /// What it is for.
    pub kind: Kind,
    /// Its conversation.
    pub thread: String,
    /// The channel that it was said in, with its sign.
    pub channel: Option<String>,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// When it was accepted.
    pub sent_at: Timestamp,
    /// When it expires if it was not presented.
    pub expires_at: Option<Timestamp>,
    /// What its claims rest on.
    pub sources: Vec<String>,
    /// The text's size.
    pub text_bytes: u32,
    /// It was said in a private channel, or answers what was said in private.
    pub private: bool,
    /// Where a link brought it from. `None`: this broker accepted it.
    pub origin: Option<Origin>,
}

/// What a link said of a message that it brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The broker that accepted it.
    pub broker: BrokerId,
    /// The door that it came in by there, as the link said.
    pub via: Via,
    /// The SHA-256 digest of what the sender said: a repeat has the same.
    pub digest: [u8; 32],
}

/// A message, whole. Immutable once stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRecord {
    /// Everything but the text.
    pub head: MessageHead,
    /// The sender's idempotency key.
    pub idempotency_key: Option<String>,
    /// The text, exactly as sent.
    pub text: String,
}

impl MessageRecord {
    /// Returns the message as programs read it: the recipients by the names of the time, and no
    /// idempotency key.
    #[must_use]
    pub fn into_message(self) -> Message {
        let Self { head, text, .. } = self;
        Message {
            id: head.id,
            from: head.from,
            to: head.to.into_iter().map(|(_, name)| name).collect(),
            intent: head.intent,
            kind: head.kind,
            thread: head.thread,
            channel: head.channel,
            reply_to: head.reply_to,
            sent_at: head.sent_at,
            expires_at: head.expires_at,
            sources: head.sources,
            text,
        }
    }
}

/// One message's way to one recipient. What the core keeps in memory while it is pending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryRecord {
    /// The message.
    pub message: MessageId,
    /// The recipient.
    pub peer: PeerId,
    /// Where it stands. Never `Leased`: leases live in memory alone.
    pub stage: Stage,
    /// Sessions that ended with it offered.
    pub attempts: u32,
    /// When its reader acknowledged it.
    pub acked_at: Option<Timestamp>,
    /// The first reply.
    pub answered_by: Option<MessageId>,
    /// What happened, oldest first; the first entry is `Stored`.
    pub trace: Vec<TraceEntry>,
    /// What the rules need of the message, so that they need not read it.
    pub brief: Brief,
    /// Counts the durable changes.
    pub rev: u32,
    /// How far it is on its recipient's broker. `None`: the recipient is a peer of this broker, or
    /// that broker has told nothing yet.
    pub relay: Option<Relay>,
}

/// How far a delivery to a proxy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// Where it stands there. `None`: nothing was told.
    pub there: Option<There>,
    /// The run of that broker that told it. `rev` is compared within one run only.
    pub boot: u64,
    /// Its sender wants it withdrawn.
    pub recalled: bool,
}

impl DeliveryRecord {
    /// Whether its sender asked the recipient's broker to withdraw it.
    #[must_use]
    pub fn is_recalled(&self) -> bool {
        self.relay.is_some_and(|relay| relay.recalled)
    }

    /// Whether it was held and never released. Then its recipient has not seen it, even if it has
    /// ended.
    #[must_use]
    pub fn is_kept_back(&self) -> bool {
        is_kept_back(self.stage, &self.trace)
    }
}

/// Whether a delivery of this stage and trace was held and never released. The last decision of
/// a policy or the person counts.
#[must_use]
pub fn is_kept_back(stage: Stage, trace: &[TraceEntry]) -> bool {
    let let_go = |entry: &TraceEntry| match entry.event {
        TraceEvent::Held => Some(false),
        TraceEvent::Released | TraceEvent::Requeued => Some(true),
        TraceEvent::Reassigned if entry.cause == Some(Cause::Operator) => Some(true),
        _ => None,
    };
    stage == Stage::Held || trace.iter().rev().find_map(let_go) == Some(false)
}

/// What the rules need to know of a message that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brief {
    /// The sender.
    pub from: PeerId,
    /// The sender's name when it sent.
    pub from_name: String,
    /// The door it came in by.
    pub via: Via,
    /// Whether it may wake its reader.
    pub intent: Intent,
    /// What it is for.
    pub kind: Kind,
    /// Its conversation.
    pub thread: String,
    /// The channel that it was said in, with its sign.
    pub channel: Option<String>,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// When it was accepted.
    pub sent_at: Timestamp,
    /// When it expires if it was not presented.
    pub expires_at: Option<Timestamp>,
    /// The text's size.
    pub text_bytes: u32,
    /// It was said in a private channel, or answers what was said in private.
    pub private: bool,
    /// The broker that a link brought it from.
    pub origin: Option<BrokerId>,
}

impl Brief {
    /// The brief of a message.
    #[must_use]
    pub fn of(head: &MessageHead) -> Self {
        Self {
            from: head.from.peer,
            from_name: head.from.name.clone(),
            via: head.from.via,
            intent: head.intent,
            kind: head.kind,
            thread: head.thread.clone(),
            channel: head.channel.clone(),
            reply_to: head.reply_to,
            sent_at: head.sent_at,
            expires_at: head.expires_at,
            text_bytes: head.text_bytes,
            private: head.private,
            origin: head.origin.map(|origin| origin.broker),
        }
    }
}

/// A link to another broker: what the person decided of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    /// The other broker.
    pub broker: BrokerId,
    /// What it is called here: what stands behind the `@` of its peers' names.
    pub alias: String,
    /// What becomes of its mail.
    pub policy: Policy,
    /// Whether its requests may wake their recipients.
    pub wake: bool,
    /// What it is told of this broker's peers.
    pub share: Share,
    /// When it was added.
    pub first_seen: Timestamp,
    /// When the other broker was last heard of.
    pub last_heard: Option<Timestamp>,
}

/// A receipt that the origin of a message has not confirmed. It has no content: the receipt is made
/// from the delivery when it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReceiptKey {
    /// The message's origin.
    pub broker: BrokerId,
    /// The message.
    pub message: MessageId,
    /// The recipient here.
    pub peer: PeerId,
}

/// All that the store has about links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinksImage {
    /// This broker's identity. Absent: no link was ever made.
    pub own: Option<BrokerId>,
    /// The links.
    pub links: Vec<LinkRecord>,
    /// Receipts that are due, each with its revision.
    pub receipts: Vec<(ReceiptKey, u32)>,
    /// Messages that were withdrawn before they came.
    pub withdrawn: Vec<(BrokerId, MessageId)>,
}

/// What the person set for all, while a broker ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsRecord {
    /// For every peer that has no policy of its own; absent: what `config.toml` says.
    pub default_policy: Option<Policy>,
    /// The person has said yes to posts into the inbox socket of sessions that bypass permissions,
    /// or may come to.
    pub inbox_socket_in_bypass: bool,
}

/// What the person has paused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausesRecord {
    /// Everything.
    pub all: bool,
    /// What these peers send.
    pub peers: BTreeSet<PeerId>,
    /// What is said in these threads.
    pub threads: BTreeSet<String>,
}

/// How much was stored when this was written, so that it need not be counted when the store is
/// opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptRecord {
    /// All messages up to this one are counted.
    pub through: MessageId,
    /// Bytes of their texts.
    pub text_bytes: u64,
}

/// What the store held when the broker started: all that the core keeps in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// All retained peers.
    pub peers: Vec<PeerRecord>,
    /// All pending deliveries (stored, offered, held).
    pub pending: Vec<DeliveryRecord>,
    /// The newest message's identity.
    pub last_message: Option<MessageId>,
    /// The oldest message's identity.
    pub first_message: Option<MessageId>,
    /// The next peer's identity.
    pub next_peer: Option<PeerId>,
    /// How many dead letters there are.
    pub dead: u64,
    /// How many messages there are.
    pub messages: u64,
    /// Bytes of their texts.
    pub text_bytes: u64,
    /// What the person set.
    pub settings: SettingsRecord,
    /// What the person has paused.
    pub pauses: PausesRecord,
    /// What sessions share.
    pub shared: SharedRecords,
    /// The next task's identity.
    pub next_task: Option<TaskId>,
    /// The links to other brokers.
    pub links: LinksImage,
}

/// The delivery to this very id.
pub(crate) fn delivery_to(deliveries: &[DeliveryRecord], peer: PeerId) -> Option<&DeliveryRecord> {
    deliveries.iter().find(|delivery| delivery.peer == peer)
}
