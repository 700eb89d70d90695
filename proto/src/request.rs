//! The requests of a program, the broker's replies, and its pushes.
//!
//! Knows the values on the wire. Does not know the rules. Invariants: the variants of an enum are
//! numbered in order, from zero. Within one protocol version no variant is inserted, removed or
//! reordered, and no field is added; a new version gets new types. `proto/golden` has the bytes of
//! every variant.

use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::brake::{RefusedSend, UsedUpThread};
use crate::channel::{ChannelInfo, ChannelRequest};
use crate::hook::{Activity, HookCall, Mode, Report};
use crate::ids::{MessageId, PeerId, TaskId, Timestamp, Token};
use crate::link::{LinkInfo, LinkPush, LinkReply, LinkRequest, LinksRequest, There};
use crate::message::{
    Carrier, Cause, Delivery, Evidence, Intent, Kind, Message, Stage, TraceEntry, Via,
};
use crate::note::{NoteInfo, NoteRequest};
use crate::policy::{Policies, Policy};
use crate::question::{Answer, Ask, QuestionInfo, QuestionsQuery};
use crate::refusal::{ErrorCode, Refusal};
use crate::search::{Hit, SearchQuery};
use crate::task::{TaskInfo, TaskRequest, TaskState};

/// The id of a request within its connection. The program chooses it, and the reply has the same.
pub type RequestId = u64;

/// A frame from a program to the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFrame {
    /// Chosen by the program; no other unanswered request of the connection may have it.
    pub id: RequestId,
    /// The request.
    pub request: Request,
}

/// A frame from the broker to a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerFrame {
    /// The answer to the request with that id. Every change that it reports is durable.
    Reply {
        /// The request's id.
        id: RequestId,
        /// The outcome.
        result: Result<Reply, Refusal>,
    },
    /// A push: the broker sends it without a request.
    Push(Push),
}

/// A request of a program. The first request of a connection is `Hello`. An act as a peer needs
/// `Register` first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Greets the broker. Answer: [`Reply::Welcome`].
    Hello(Hello),
    /// Become a peer, or resume as one. Answer: [`Reply::Registered`].
    Register(Register),
    /// Tell the broker the seat that the client gave this session. Answer: [`Reply::Registered`],
    /// perhaps as another peer.
    Bind(Seat),
    /// Tell others what this session does; absent parts stay unchanged. Answer: [`Reply::Done`].
    Describe {
        /// What it is doing, in a sentence; an empty text clears it.
        summary: Option<String>,
        /// `working`, `idle`, `blocked`, `away` or a few words.
        state: Option<String>,
        /// Its current task.
        task: Option<String>,
    },
    /// Change a name: this session's own, or (operators) that of `peer`. Answer:
    /// [`Reply::Renamed`].
    Rename {
        /// A name or id; absent: the caller.
        peer: Option<String>,
        /// The new name.
        new_name: String,
    },
    /// List peers. Answer: [`Reply::Peers`].
    Peers(PeersQuery),
    /// Send a message. Answer: [`Reply::Sent`], once it is durable.
    Send(Send),
    /// Lease the matching messages, beyond the window if need be. Matching messages that this
    /// session did not have yet are pushed before the answer, [`Reply::Received`], which lists the
    /// messages that this session holds. With `wait`, the answer is delayed until a message matches
    /// or a request for this session arrives.
    Receive {
        /// The messages that match.
        filter: Filter,
        /// Delay the answer until a message matches.
        wait: bool,
    },
    /// Answer the waiting `Receive` of that id now. Answer: [`Reply::Done`].
    StopWaiting(RequestId),
    /// These messages are about to be given to a carrier. Sent before the bytes leave. Answer:
    /// [`Reply::Done`].
    Offered {
        /// Leased messages of this session.
        messages: Vec<MessageId>,
        /// The carrier that gets them.
        carrier: Carrier,
        /// Whether no carrier follows this one: then no visibility timeout starts.
        last: bool,
    },
    /// There is evidence that the model was shown these messages. Answer: [`Reply::Done`]; a
    /// message that is already settled is no error.
    Presented {
        /// Messages of this session.
        messages: Vec<MessageId>,
        /// The carrier that the evidence proves.
        carrier: Carrier,
        /// The evidence.
        evidence: Evidence,
    },
    /// The recipient dealt with these messages. Settles them unless they are settled. Answer:
    /// [`Reply::Acked`].
    Ack {
        /// Messages to the caller.
        messages: Vec<MessageId>,
    },
    /// Give these messages back, so that a session can lease them again. Answer: [`Reply::Done`].
    Nack {
        /// Leased messages of this session.
        messages: Vec<MessageId>,
    },
    /// Read one whole message, as its sender, a recipient or an operator. Answer: [`Reply::Text`].
    Read(MessageId),
    /// List the waiting mail of a peer; leases nothing. Answer: [`Reply::Inbox`].
    Inbox {
        /// A name or id; absent: the caller (for an operator: the person). `*`: all peers
        /// (operators).
        peer: Option<String>,
        /// Only held mail, which a session does not get without this. A held delivery is listed for
        /// the person and for the agents at both ends.
        held: bool,
        /// Start after this one.
        after: Option<Position>,
    },
    /// Read one message with its delivery traces, as its sender, a recipient or an operator.
    /// Answer: [`Reply::Shown`].
    Show(MessageId),
    /// List messages, newest first, or on from one message. Answer: [`Reply::History`].
    History(HistoryQuery),
    /// List dead letters and expired mail, oldest first. Answer: [`Reply::Orphans`].
    Orphans {
        /// Start after this one.
        after: Option<Position>,
    },
    /// Put a dead letter back into its recipient's mailbox (operators). Answer: [`Reply::Settled`].
    Requeue(MessageId),
    /// Give a dead letter to another peer (operators). Answer: [`Reply::Settled`].
    Reassign {
        /// The dead letter.
        message: MessageId,
        /// A name or id.
        to: String,
    },
    /// Drop a dead letter (operators). Answer: [`Reply::Settled`].
    Drop(MessageId),
    /// Withdraw a message of the caller's own (operators: any) that was not presented yet. Answer:
    /// [`Reply::Settled`].
    Cancel(MessageId),
    /// Push [`Push::Event`] for each event from now on (operators). Answer: [`Reply::Done`].
    Watch {
        /// Only events that concern this peer, by name or id.
        peer: Option<String>,
        /// Include texts.
        bodies: bool,
    },
    /// End a peer's session (operators). Its mail stays. Answer: [`Reply::Done`].
    Kick(String),
    /// The broker's state. Answer: [`Reply::Status`].
    Status,
    /// Stop the broker cleanly (the person). Answer: [`Reply::Done`], then the connection closes.
    Shutdown,
    /// Report what this session's adapter knows about it. Only the mode is durable. Answer:
    /// [`Reply::Done`].
    Report(Report),
    /// A client's hook runs (hooks). Answer: [`Reply::Hook`], empty if it belongs to no session.
    Hook(HookCall),
    /// The answer to a [`Push::Hook`]. Answer: [`Reply::Done`]. It is refused if the hook no longer
    /// waits: then no model was shown it.
    HookAnswer {
        /// The id of the call.
        call: u64,
        /// The text that the hook prints; may be empty.
        output: String,
        /// Messages that this session offered in it, and that the client asks its model with next.
        /// For them, the end of the session is an attempt. At most
        /// [`MESSAGES_PER_REQUEST_MAX`](crate::limits::MESSAGES_PER_REQUEST_MAX).
        asks_with: Vec<MessageId>,
    },
    /// The policies in force (operators). Answer: [`Reply::Policies`].
    Policies,
    /// Set a policy (operators). It is durable, and applies to mail sent from now on. Answer:
    /// [`Reply::Policies`].
    SetPolicy {
        /// A name or id; absent: all peers without their own policy.
        peer: Option<String>,
        /// Absent: remove the peer's own policy; for all peers, use the one in `config.toml`.
        policy: Option<Policy>,
    },
    /// Whether the adapter may use the inbox socket in sessions that bypass permissions, or may
    /// begin to (operators). It is durable. Answer: [`Reply::Policies`].
    SetConsent {
        /// Whether it is allowed.
        inbox_socket_in_bypass: bool,
    },
    /// Release a held message (operators). Answer: [`Reply::Settled`].
    Release {
        /// The message.
        message: MessageId,
        /// A recipient's name or id; absent: all for whom it is held.
        to: Option<String>,
    },
    /// A request about channels and groups. Answer: [`Reply::Channels`].
    Channel(ChannelRequest),
    /// Ask a question. Answer: [`Reply::Sent`], once it is durable; the message's id is the
    /// question's.
    Ask(Ask),
    /// Answer a question. Answer: [`Reply::Sent`], once it is durable.
    Answer(Answer),
    /// List questions. Answer: [`Reply::Questions`].
    Questions(QuestionsQuery),
    /// A request about tasks. Answer: [`Reply::Tasks`].
    Task(TaskRequest),
    /// A request about notes. Answer: [`Reply::Note`], or [`Reply::Notes`] for a list.
    Note(NoteRequest),
    /// Search messages, questions, answers, notes and tasks. Answer: [`Reply::Hits`].
    Search(SearchQuery),
    /// Refuse the sends of agents until `Resume` (operators). Answer: [`Reply::Paused`].
    Pause(Pausing),
    /// Accept the sends of agents again (operators). Answer: [`Reply::Paused`].
    Resume(Pausing),
    /// Apply the configured retention now (operators). Answer: [`Reply::Purged`].
    Purge {
        /// Only count what would be deleted.
        dry_run: bool,
    },
    /// List the sends that limits and policies refused lately, newest first: the caller's own, or
    /// all (the person). Answer: [`Reply::Refusals`].
    Refusals,
    /// A model may have been asked with these messages since they were offered: the client made a
    /// request, ran a hook or called a tool. Without this, the end of the session counts no
    /// attempt, except for messages in a tool result. Answer: [`Reply::Done`]; a message that this
    /// session does not hold is no error.
    Tried {
        /// Offered messages of this session.
        messages: Vec<MessageId>,
    },
    /// What a link process asks (links). Answer: [`Reply::Link`], or [`Reply::Done`].
    Link(LinkRequest),
    /// About links (operators). Answer: [`Reply::Links`].
    Links(LinksRequest),
}

/// The scope of a pause: agents' sends in it are refused. The person is never paused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Pausing {
    /// All agents.
    All,
    /// The sends of this peer, by name or id.
    Peer(String),
    /// The sends in this thread. Resuming it also resets the turns of its agents.
    Thread(String),
}

/// The data with which a program greets the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The purpose of the connection.
    pub role: Role,
    /// The program's version.
    pub version: String,
    /// The program's executable, for messages about two installed copies.
    pub executable: String,
    /// The seat that the environment names, if any. It tells an agent's shell from the person's.
    pub seat: Option<Seat>,
}

/// The purpose of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// An agent's session.
    Adapter,
    /// A person or a script, through `peerctl`.
    Operator,
    /// A client's hook.
    Hook,
    /// A link process. Refused below an agent's process, unless `operator.allow_from_agents`.
    Link,
}

/// A stable key for the same session, by which the broker finds its mailbox again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seat {
    /// The issuer of the key.
    pub kind: SeatKind,
    /// The key, at most [`SEAT_KEY_BYTES_MAX`](crate::limits::SEAT_KEY_BYTES_MAX) bytes.
    pub key: String,
}

/// The issuer of a seat's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SeatKind {
    /// The person, as `PEER_NAME`.
    Name,
    /// Claude Code: its session id.
    Claude,
    /// Codex: its thread id.
    Codex,
    /// Another client's session id.
    Other,
}

/// The [`Register::client`] of Claude Code. One of its processes has one session at a time.
pub const CLAUDE_CLIENT: &str = "claude";

/// The data with which a session becomes a peer, or resumes as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The name that the person chose (`PEER_NAME`). A known, offline peer with that name is
    /// resumed, with its mail.
    pub name: Option<String>,
    /// The client's own session id, if it is known already.
    pub seat: Option<Seat>,
    /// `claude`, `codex`, …
    pub client: String,
    /// The client's version.
    pub client_version: String,
    /// The client's process; the broker prefers the one that the kernel reports.
    pub client_pid: u32,
    /// Its working directory, as a text that differs for different directories. Empty if unknown:
    /// it is then equal to no other.
    pub cwd: String,
    /// The top of its git work tree.
    pub git_root: Option<String>,
    /// The canonical path of git's common directory, which all work trees of one repository share.
    pub repo: Option<String>,
    /// This machine's name.
    pub host: String,
    /// The data of an earlier `Registered`: the session continues, also after the broker died.
    pub resume: Option<Resume>,
}

/// Proof of an earlier registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The peer.
    pub peer: PeerId,
    /// Its token.
    pub token: Token,
}

/// The peers that a listing is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersQuery {
    /// Only peers that work in this directory.
    pub cwd: Option<String>,
    /// Only peers of this repository (see [`Register::repo`]).
    pub repo: Option<String>,
    /// Only peers with this text in their name, summary, task, client or directory, in any case.
    pub text: Option<String>,
    /// Only peers in this state (the one that they set, or else the one of their client), in any
    /// case.
    pub state: Option<String>,
    /// Only peers of this client.
    pub client: Option<String>,
    /// Also peers that have long been offline and have no mail.
    pub all: bool,
    /// Also peers of other brokers.
    pub remote: bool,
    /// Start after this one.
    pub after: Option<PeerId>,
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// Names or ids. With `reply_to` it may be empty: the message then goes to the sender of that
    /// message.
    pub to: Vec<String>,
    /// The text: not empty, at most `text_bytes_max` bytes.
    pub text: String,
    /// Absent: `Request`, or `Inform` for a reply.
    pub intent: Option<Intent>,
    /// The message that this one answers.
    pub reply_to: Option<MessageId>,
    /// Absent: the thread of `reply_to`, or a new one.
    pub thread: Option<String>,
    /// Milliseconds after which it expires unless it was presented.
    pub ttl_ms: Option<u64>,
    /// The sources of its claims.
    pub sources: Vec<String>,
    /// The sender's name for this act: a repeat gets the first outcome.
    pub idempotency_key: Option<String>,
}

/// The messages that a `Receive` is about; absent parts match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// A sender's name or id.
    pub from: Option<String>,
    /// A thread.
    pub thread: Option<String>,
    /// A kind.
    pub kind: Option<Kind>,
    /// Only replies to this message.
    pub reply_to: Option<MessageId>,
}

/// A position in a listing of deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The message.
    pub message: MessageId,
    /// The recipient.
    pub peer: PeerId,
}

/// The part of the history that a listing is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryQuery {
    /// Only messages from or to this peer.
    pub peer: Option<String>,
    /// Only messages between `peer` (absent: any peer) and this one.
    pub with: Option<String>,
    /// Only this thread.
    pub thread: Option<String>,
    /// Only messages in this channel.
    pub channel: Option<String>,
    /// Only messages sent at or after this time.
    pub since: Option<Timestamp>,
    /// Only messages after this one, oldest first: the cursor for reading on as messages come.
    pub after: Option<MessageId>,
    /// Only messages before this one: the cursor of the page before.
    pub before: Option<MessageId>,
    /// At most this many, and never more than
    /// [`PAGE_ENTRIES_MAX`](crate::limits::PAGE_ENTRIES_MAX).
    pub limit: u32,
}

/// An answer of the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To `Hello`.
    Welcome(Welcome),
    /// To `Register` and `Bind`.
    Registered(Registered),
    /// Done; durable if it changed anything.
    Done,
    /// To `Rename`: the peer's name now.
    Renamed {
        /// The peer.
        peer: PeerId,
        /// Its name.
        name: String,
    },
    /// To `Peers`.
    Peers {
        /// One page, by id.
        peers: Vec<PeerInfo>,
        /// There are more: ask again after this one.
        next: Option<PeerId>,
    },
    /// To `Send`.
    Sent(Sent),
    /// To `Receive`.
    Received(Received),
    /// To `Ack`: the acknowledged messages, and the ids that the caller does not know.
    Acked {
        /// Acknowledged, now or before.
        acked: Vec<MessageId>,
        /// Ids that no message to the caller has.
        unknown: Vec<MessageId>,
    },
    /// To `Read`.
    Text(Box<Message>),
    /// To `Inbox`.
    Inbox {
        /// One page, oldest first.
        entries: Vec<InboxEntry>,
        /// There are more: ask again after this one.
        next: Option<Position>,
    },
    /// To `Show`.
    Shown(Box<Shown>),
    /// To `History`.
    History {
        /// One page, newest first; with `after` oldest first.
        messages: Vec<Shown>,
        /// There may be more: ask again before or after this one. Also present if a page is empty
        /// because nothing matched yet.
        next: Option<MessageId>,
    },
    /// To `Orphans`.
    Orphans {
        /// One page, oldest first.
        entries: Vec<Orphan>,
        /// There are more: ask again after this one.
        next: Option<Position>,
    },
    /// To `Requeue`, `Reassign`, `Drop`, `Cancel` and `Release`: the deliveries that changed.
    Settled {
        /// The recipient's name, and the new stage.
        deliveries: Vec<(String, Stage)>,
    },
    /// To `Status`.
    Status(Box<Status>),
    /// To `Hook`.
    Hook {
        /// The text that the hook prints; may be empty.
        output: String,
    },
    /// To `Policies`, `SetPolicy` and `SetConsent`.
    Policies(Policies),
    /// To `Channel`.
    Channels(Vec<ChannelInfo>),
    /// To `Questions`.
    Questions {
        /// One page, newest first.
        questions: Vec<QuestionInfo>,
        /// There are more: ask again before this one.
        next: Option<MessageId>,
    },
    /// To `Task`.
    Tasks {
        /// The task of the request, or one page, newest first.
        tasks: Vec<TaskInfo>,
        /// There are more: ask again before this one.
        next: Option<TaskId>,
    },
    /// To `Note`, except for a list.
    Note(NoteInfo),
    /// To a list of notes.
    Notes {
        /// One page, by key.
        notes: Vec<NoteInfo>,
        /// There are more: ask again after this key.
        next: Option<String>,
    },
    /// To `Search`.
    Hits {
        /// The hits, in the requested order.
        hits: Vec<Hit>,
        /// Their total number, as far as they were counted.
        total: u64,
        /// Messages, notes and tasks that were not searched because the index is behind; 0: the
        /// answer is complete.
        behind: u64,
    },
    /// To `Pause` and `Resume`.
    Paused(Vec<Pausing>),
    /// To `Purge`.
    Purged {
        /// The number of records of each kind that were or would be deleted.
        counts: Vec<(String, u64)>,
        /// The bytes of text in them.
        text_bytes: u64,
    },
    /// To `Refusals`: newest first.
    Refusals(Vec<RefusedSend>),
    /// To `Link`.
    Link(LinkReply),
    /// To `Links`: by name.
    Links(Vec<LinkInfo>),
}

/// The broker's data for a new connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Its version.
    pub version: String,
    /// Its executable.
    pub executable: String,
    /// Its process.
    pub pid: u32,
    /// The rights of the caller.
    pub authority: Authority,
}

/// The rights of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Authority {
    /// It may act as the person.
    Person,
    /// `peerctl` within an agent's process tree, with the agent's name if it is known.
    Shell(Option<String>),
    /// It may act as a session, once registered.
    Session,
}

/// The peer of a registered session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The peer.
    pub peer: PeerId,
    /// Its name.
    pub name: String,
    /// The secret that resumes this session.
    pub token: Token,
    /// Whether this session receives the peer's mail. A second adapter of one client does not.
    pub takes_mail: bool,
    /// Information for the session, for example that its name was taken.
    pub notice: Option<String>,
    /// Messages that wait for the peer.
    pub waiting: u64,
    /// See [`Policies::inbox_socket_in_bypass`].
    pub inbox_socket_in_bypass: bool,
}

/// A peer, as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Its identity.
    pub id: PeerId,
    /// Its name.
    pub name: String,
    /// Earlier names, which still lead to this peer.
    pub aliases: Vec<String>,
    /// `claude`, `codex`, …; empty for the person.
    pub client: String,
    /// The client's version.
    pub client_version: String,
    /// The client's process, while online.
    pub client_pid: Option<u32>,
    /// Whether a session that receives its mail is connected.
    pub online: bool,
    /// Its working directory.
    pub cwd: String,
    /// The top of its git work tree.
    pub git_root: Option<String>,
    /// See [`Register::repo`].
    pub repo: Option<String>,
    /// Its machine.
    pub host: String,
    /// What it is doing, in its own words.
    pub summary: String,
    /// Its state, in its own words.
    pub state: String,
    /// Its task, in its own words.
    pub task: String,
    /// Messages that wait for it, leased ones included.
    pub pending: u64,
    /// Messages that its session holds.
    pub leased: u64,
    /// When it was last connected; now, while online.
    pub last_seen: Timestamp,
    /// Its carriers, with the time when evidence last proved each.
    pub carriers: Vec<CarrierProof>,
    /// Whether the model is at work, if that is known.
    pub activity: Option<Activity>,
    /// What the session may do without asking, if that is known.
    pub mode: Option<Mode>,
    /// The policy in force for mail to it.
    pub policy: Policy,
    /// The groups whose labels it carries, with their sign.
    pub groups: Vec<String>,
    /// The waiting messages that are held for the person.
    pub held: u64,
    /// Messages that a carrier of its session had, without evidence that the model saw them.
    pub offered: u64,
    /// Whether its mailbox is full.
    pub full: bool,
    /// Whether the person paused its sends.
    pub paused: bool,
    /// The link that it is reached by, where it is a peer of another broker.
    pub link: Option<PeerLink>,
    /// The person keeps it out of what other brokers are told.
    pub hidden: bool,
}

/// How a peer of another broker is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerLink {
    /// The link's name.
    pub name: String,
    /// The link is up.
    pub up: bool,
    /// When the other broker was last heard of.
    pub heard_at: Option<Timestamp>,
}

/// A carrier of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarrierProof {
    /// The carrier.
    pub carrier: Carrier,
    /// When evidence last proved it in this session; absent: available or tried, but never proved.
    pub proven_at: Option<Timestamp>,
}

/// An accepted message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Its identity; that of the first outcome if the idempotency key was known.
    pub message: MessageId,
    /// Its thread.
    pub thread: String,
    /// Whether the idempotency key was known. Then nothing new was stored.
    pub deduplicated: bool,
    /// One per recipient.
    pub deliveries: Vec<SentDelivery>,
}

/// The outcome of a send for one recipient, at the time of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentDelivery {
    /// The recipient.
    pub peer: PeerId,
    /// Its name.
    pub name: String,
    /// The delivery's stage; absent if the message was refused.
    pub stage: Option<Stage>,
    /// Whether a session that receives its mail is connected.
    pub online: bool,
    /// The carriers to its model, with the time when each was last proved.
    pub carriers: Vec<CarrierProof>,
    /// Whether its model is at work, if that is known.
    pub activity: Option<Activity>,
    /// Why nothing was stored for this recipient.
    pub refusal: Option<Refusal>,
}

/// The messages that a session holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// With a filter: the matching messages that this session holds now. Without one: the messages
    /// that it holds and no carrier has had. Oldest first.
    pub messages: Vec<MessageId>,
    /// The number of pending messages that match, leased or not.
    pub waiting: u64,
}

/// One waiting delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxEntry {
    /// The message.
    pub message: MessageId,
    /// Its sender's name.
    pub from: String,
    /// How its sender sent it.
    pub via: Via,
    /// The recipient.
    pub peer: PeerId,
    /// The recipient's name.
    pub to: String,
    /// Whether it may wake an idle recipient.
    pub intent: Intent,
    /// The stage of the delivery.
    pub stage: Stage,
    /// When it was accepted.
    pub sent_at: Timestamp,
    /// The sessions that ended after their model may have been asked with it.
    pub attempts: u32,
    /// The text's size.
    pub text_bytes: u32,
}

/// A message with its deliveries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The message.
    pub message: Message,
    /// One per recipient.
    pub deliveries: Vec<ShownDelivery>,
}

/// One delivery with its trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownDelivery {
    /// The recipient.
    pub peer: PeerId,
    /// Its current name, or its id if it was forgotten.
    pub name: String,
    /// The stage of the delivery.
    pub stage: Stage,
    /// The sessions that ended after their model may have been asked with it.
    pub attempts: u32,
    /// When the recipient acknowledged it.
    pub acked_at: Option<Timestamp>,
    /// The first reply.
    pub answered_by: Option<MessageId>,
    /// Its events, oldest first.
    pub trace: Vec<TraceEntry>,
    /// Where it stands on the recipient's broker, where that is another one and has told it.
    pub there: Option<There>,
}

/// A dead letter, or a delivery that expired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphan {
    /// The message.
    pub message: MessageId,
    /// Its sender's name.
    pub from: String,
    /// The recipient.
    pub peer: PeerId,
    /// The recipient's name, or its id if it was forgotten.
    pub to: String,
    /// `Dead` or `Expired`.
    pub stage: Stage,
    /// The cause, in a word.
    pub cause: String,
    /// When it became dead or expired.
    pub at: Timestamp,
    /// The text's size.
    pub text_bytes: u32,
}

/// The broker's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// The protocol version of this connection.
    pub protocol: u16,
    /// Its process.
    pub pid: u32,
    /// Milliseconds since the broker started.
    pub uptime_ms: u64,
    /// Its socket.
    pub socket: String,
    /// Its directory.
    pub dir: String,
    /// Its executable.
    pub executable: String,
    /// Whether the kernel keeps it from opening network sockets.
    pub sandbox: bool,
    /// Peers that are online, without the person.
    pub peers_online: u64,
    /// Retained peers that are offline, without the person.
    pub peers_offline: u64,
    /// Deliveries that wait for a session.
    pub stored: u64,
    /// Deliveries that a session holds, offered or not.
    pub leased: u64,
    /// Deliveries that are held for the person.
    pub held: u64,
    /// Dead letters.
    pub dead: u64,
    /// Messages in the store, settled ones included.
    pub messages_total: u64,
    /// When the oldest waiting message was accepted.
    pub oldest_at: Option<Timestamp>,
    /// Median time of the last commits, in microseconds; zero before the first.
    pub commit_us_p50: u64,
    /// Slowest of the last commits, in microseconds.
    pub commit_us_max: u64,
    /// Free bytes on the store's file system.
    pub disk_free_bytes: u64,
    /// The pauses in force.
    pub paused: Vec<Pausing>,
    /// The number of sends that were refused since the broker started, by error code.
    pub refused: Vec<(String, u64)>,
    /// Threads whose turns agents used up, oldest first.
    pub used_up: Vec<UsedUpThread>,
    /// The settings that the broker uses, as table and key with the value.
    pub config: Vec<(String, String)>,
    /// Why the broker does not use `config.toml`: it could not read the file when it started.
    pub config_fault: Option<String>,
    /// Damaged records of the database since the broker started, which it leaves out.
    pub damaged: u64,
}

/// A message that the broker sends without a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Push {
    /// This message is leased to this session.
    Deliver(Box<Delivery>),
    /// The carrier's time ended without evidence: offer the message by the next carrier.
    Overdue {
        /// The message.
        message: MessageId,
        /// The carrier that had it.
        carrier: Carrier,
    },
    /// This session no longer holds the message: it was settled, withdrawn, or leased to another
    /// session.
    Withdrawn {
        /// The message.
        message: MessageId,
        /// Its stage now.
        stage: Stage,
    },
    /// This session's peer has a new name.
    Renamed {
        /// The name.
        name: String,
    },
    /// Information for the session's user or model, in a sentence.
    Notice(String),
    /// An event, for watchers.
    Event {
        /// When it happened.
        at: Timestamp,
        /// The event.
        event: Box<WatchEvent>,
    },
    /// The broker ends this connection, for this reason.
    Goodbye(Goodbye),
    /// A hook of this session's client is running: answer at once with [`Request::HookAnswer`].
    Hook {
        /// The id of the call, for the answer.
        call: u64,
        /// The hook's data.
        hook: Box<HookCall>,
    },
    /// The person changed [`Policies::inbox_socket_in_bypass`].
    Consent {
        /// Its value now.
        inbox_socket_in_bypass: bool,
    },
    /// To a link process.
    Link(LinkPush),
}

/// Why the broker ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goodbye {
    /// The broker is stopping; connect again later.
    Stopping,
    /// An operator ended this session: do not reconnect automatically.
    Kicked,
    /// The same session connected again, or its client has ended and another has its name.
    Replaced,
    /// A watcher did not read its events in time.
    TooSlow,
}

/// An event, for watchers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum WatchEvent {
    /// Something happened to a delivery.
    Delivery {
        /// The delivery.
        delivery: WatchedDelivery,
        /// The event.
        what: DeliveryEvent,
    },
    /// A send was refused, or refused for one of its recipients.
    Refused {
        /// The sender's name.
        from: String,
        /// The recipients, as the sender named them. Absent for a private channel, and if it was
        /// not a message.
        to: Option<String>,
        /// The thread that the send named.
        thread: Option<String>,
        /// The message that it answers.
        reply_to: Option<MessageId>,
        /// Whether it was to wake an idle recipient, if the send set that.
        intent: Option<Intent>,
        /// The reason.
        code: ErrorCode,
    },
    /// A session connected.
    PeerOnline {
        /// The peer's name.
        peer: String,
    },
    /// A session disconnected.
    PeerOffline {
        /// The peer's name.
        peer: String,
    },
    /// A name changed.
    PeerRenamed {
        /// The name before.
        peer: String,
        /// The name now.
        new_name: String,
    },
    /// A peer was forgotten.
    PeerForgotten {
        /// The name that it had.
        peer: String,
    },
    /// A peer's state, task, summary or activity changed.
    PeerChanged {
        /// The peer's name.
        peer: String,
        /// What changed, in words.
        news: String,
    },
    /// A task changed.
    TaskChanged {
        /// The task.
        task: TaskId,
        /// The name of the peer that holds it or that it is assigned to.
        assignee: Option<String>,
        /// Its state now.
        state: TaskState,
    },
    /// A pause began.
    Paused(Pausing),
    /// A pause ended.
    Resumed(Pausing),
    /// Agents used up the turns of a thread: only the person may send in it until it is resumed.
    Loop {
        /// The thread.
        thread: String,
        /// The number of turns.
        turns: u32,
    },
    /// A record in the database cannot be read. Only for the person.
    Damaged {
        /// The kind of the record, in words.
        what: String,
    },
}

/// The delivery that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedDelivery {
    /// The message.
    pub message: MessageId,
    /// The sender's name.
    pub from: String,
    /// The recipient's name.
    pub to: String,
    /// The message's thread.
    pub thread: String,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// Whether it may wake an idle recipient.
    pub intent: Intent,
}

/// An event of a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum DeliveryEvent {
    /// The message is durable, or waits again. One event per recipient.
    Stored {
        /// Why it waits again; absent if it was accepted just now.
        cause: Option<Cause>,
        /// The text, for watchers that asked for texts; absent if it is held for any of the
        /// recipients.
        text: Option<String>,
    },
    /// Pushed to a session.
    Leased,
    /// Handed to a carrier.
    Offered {
        /// The carrier.
        carrier: Carrier,
    },
    /// Given back by its session.
    Returned {
        /// The cause; absent if no carrier had it.
        cause: Option<Cause>,
    },
    /// Proved by evidence.
    Presented {
        /// The carrier that showed it, if that is known.
        carrier: Option<Carrier>,
        /// The evidence.
        evidence: Evidence,
    },
    /// Acknowledged.
    Acked,
    /// Replied to.
    Answered,
    /// Held by policy.
    Held,
    /// Held mail was released by the person.
    Released,
    /// Its time to live ended.
    Expired,
    /// Withdrawn.
    Cancelled {
        /// Who withdrew it, unless it was the sender.
        cause: Option<Cause>,
    },
    /// Became a dead letter.
    Dead {
        /// Why.
        cause: Cause,
    },
    /// Dropped by an operator.
    Dropped,
    /// Stored on the recipient's broker; or news of it there.
    Relayed {
        /// Its stage there.
        stage: Stage,
    },
    /// The recipient's broker does not have it any more.
    Unrelayed,
    /// Its sender asked the recipient's broker to withdraw it.
    Recalled,
    /// Taken by the channel's broker.
    Posted,
}

impl WatchEvent {
    /// The event's name in text.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Delivery { what, .. } => what.as_str(),
            other => other.into(),
        }
    }
}

impl DeliveryEvent {
    /// The event's name in text.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        self.into()
    }

    /// The carrier of the event, if it has one.
    #[must_use]
    pub fn carrier(&self) -> Option<Carrier> {
        match self {
            Self::Offered { carrier } => Some(*carrier),
            Self::Presented { carrier, .. } => *carrier,
            _ => None,
        }
    }

    /// The cause of the event; `None` if the event needs none.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        match self {
            Self::Stored { cause, .. } | Self::Returned { cause } | Self::Cancelled { cause } => {
                *cause
            }
            Self::Dead { cause } => Some(*cause),
            Self::Presented { evidence, .. } => Some(Cause::Evidence(*evidence)),
            Self::Held => Some(Cause::Policy),
            Self::Expired => Some(Cause::TtlEnded),
            Self::Released | Self::Dropped => Some(Cause::Operator),
            Self::Leased
            | Self::Offered { .. }
            | Self::Acked
            | Self::Answered
            | Self::Relayed { .. }
            | Self::Unrelayed
            | Self::Recalled
            | Self::Posted => None,
        }
    }

    /// The text, if this watcher gets it.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Stored { text, .. } => text.as_deref(),
            _ => None,
        }
    }
}
