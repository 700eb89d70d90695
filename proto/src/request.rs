//! What a program may ask, what the broker answers, and what it pushes of its own accord.
//!
//! Wire rules: the variants of an enum are numbered in order, from zero. Within one protocol
//! version variants are never inserted, removed or reordered, and no field is added to one; a new
//! version gets new types. `proto/golden` holds the bytes of every variant.

use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use crate::brake::{RefusedSend, UsedUpThread};
use crate::channel::{ChannelInfo, ChannelRequest};
use crate::hook::{Activity, HookCall, Mode, Report};
use crate::ids::{MessageId, PeerId, TaskId, Timestamp, Token};
use crate::message::{
    Carrier, Cause, Delivery, Evidence, Intent, Kind, Message, Stage, TraceEntry, Via,
};
use crate::note::{NoteInfo, NoteRequest};
use crate::policy::{Policies, Policy};
use crate::question::{Answer, Ask, QuestionInfo, QuestionsQuery};
use crate::refusal::{ErrorCode, Refusal};
use crate::search::{Hit, SearchQuery};
use crate::task::{TaskInfo, TaskRequest, TaskState};

/// Names a request within its connection. The program chooses it; the reply carries it back.
pub type RequestId = u64;

/// A frame from a program to the broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFrame {
    /// Chosen by the program, not in use by an unanswered request of the same connection.
    pub id: RequestId,
    /// What it asks.
    pub request: Request,
}

/// A frame from the broker to a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerFrame {
    /// The answer to the request of that id. Whatever it reports is durable.
    Reply {
        /// The request's id.
        id: RequestId,
        /// What came of it.
        result: Result<Reply, Refusal>,
    },
    /// Sent unasked.
    Push(Push),
}

/// What a program may ask. The first request of a connection is `Hello`; acts as a peer need
/// `Register` first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Who is connecting. Answer: [`Reply::Welcome`].
    Hello(Hello),
    /// Become a peer, or resume as one. Answer: [`Reply::Registered`].
    Register(Register),
    /// Tell the seat that the client gave this session. Answer: [`Reply::Registered`], perhaps as
    /// another peer.
    Bind(Seat),
    /// Tell others what this session does; absent parts stay. Answer: [`Reply::Done`].
    Describe {
        /// What it is doing, in a sentence; an empty text clears it.
        summary: Option<String>,
        /// `working`, `idle`, `blocked`, `away` or a few words.
        state: Option<String>,
        /// Its present task.
        task: Option<String>,
    },
    /// Change a name: this session's own, or (operators) that of `peer`. Answer:
    /// [`Reply::Renamed`].
    Rename {
        /// A name or id; absent: the caller.
        peer: Option<String>,
        /// The name it shall have.
        new_name: String,
    },
    /// Who is here. Answer: [`Reply::Peers`].
    Peers(PeersQuery),
    /// Send a message. Answer: [`Reply::Sent`], once it is durable.
    Send(Send),
    /// Lease what matches, beyond the window if need be, and say what this session holds. Matching
    /// messages that it did not have yet are pushed before the answer, [`Reply::Received`]. With
    /// `wait` the answer is kept back until something matches or a request for this session
    /// arrives.
    Receive {
        /// What matches.
        filter: Filter,
        /// Keep the answer back until something does.
        wait: bool,
    },
    /// Answer the waiting `Receive` of that id now. Answer: [`Reply::Done`].
    StopWaiting(RequestId),
    /// These are about to be handed to a carrier. Sent before the bytes leave. Answer:
    /// [`Reply::Done`].
    Offered {
        /// Leased messages of this session.
        messages: Vec<MessageId>,
        /// Which carrier takes them.
        carrier: Carrier,
        /// No carrier follows it: no visibility timeout is started.
        last: bool,
    },
    /// There is evidence that the model was shown these. Answer: [`Reply::Done`]; what is settled
    /// already is no error.
    Presented {
        /// Messages of this session.
        messages: Vec<MessageId>,
        /// The carrier that is proved by it.
        carrier: Carrier,
        /// What was seen.
        evidence: Evidence,
    },
    /// The reader dealt with these. Settles what was not settled. Answer: [`Reply::Acked`].
    Ack {
        /// Messages to the caller.
        messages: Vec<MessageId>,
    },
    /// Give these back: they are ready for a session again. Answer: [`Reply::Done`].
    Nack {
        /// Leased messages of this session.
        messages: Vec<MessageId>,
    },
    /// One message, whole, for its sender, a recipient or an operator. Answer: [`Reply::Text`].
    Read(MessageId),
    /// What waits for a peer; leases nothing. Answer: [`Reply::Inbox`].
    Inbox {
        /// A name or id; absent: the caller (for an operator: the person). `*`: everyone
        /// (operators).
        peer: Option<String>,
        /// Only what is held; without it a session hears nothing of that. A held delivery is listed
        /// for the person and for the agents at both ends.
        held: bool,
        /// Start after this one.
        after: Option<Position>,
    },
    /// One message with its delivery traces, for its sender, a recipient or an operator. Answer:
    /// [`Reply::Shown`].
    Show(MessageId),
    /// What was said, newest first, or on from a message. Answer: [`Reply::History`].
    History(HistoryQuery),
    /// Dead letters and expired mail, oldest first. Answer: [`Reply::Orphans`].
    Orphans {
        /// Start after this one.
        after: Option<Position>,
    },
    /// Put a dead letter back into its reader's queue (operators). Answer: [`Reply::Settled`].
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
    /// Push [`Push::Event`] for what happens from now on (operators). Answer: [`Reply::Done`].
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
    /// What this session's adapter knows of it. Of that the mode is durable. Answer:
    /// [`Reply::Done`].
    Report(Report),
    /// A client's hook runs (hooks). Answer: [`Reply::Hook`], empty where no session is meant.
    Hook(HookCall),
    /// The answer to a [`Push::Hook`]. Answer: [`Reply::Done`]; refused where the
    /// hook waits no more: then nobody was shown it.
    HookAnswer {
        /// Which call is answered.
        call: u64,
        /// What the hook prints; empty: nothing.
        output: String,
        /// Messages that this session offered in it, and that the client asks its model with next:
        /// for them the end of the session is an attempt. At most
        /// [`MESSAGES_PER_REQUEST_MAX`](crate::limits::MESSAGES_PER_REQUEST_MAX).
        asks_with: Vec<MessageId>,
    },
    /// The policies in force (operators). Answer: [`Reply::Policies`].
    Policies,
    /// Set a policy (operators). It is durable, and holds for what is sent from now on. Answer:
    /// [`Reply::Policies`].
    SetPolicy {
        /// A name or id; absent: for all that have none of their own.
        peer: Option<String>,
        /// Absent: the peer has none of its own any more, or, for all, what `config.toml` says.
        policy: Option<Policy>,
    },
    /// Whether mail may be posted into the inbox socket of sessions that bypass permissions, or may
    /// come to (operators). It is durable. Answer: [`Reply::Policies`].
    SetConsent {
        /// Yes, or no again.
        inbox_socket_in_bypass: bool,
    },
    /// Let a held message go on its way (operators). Answer: [`Reply::Settled`].
    Release {
        /// The message.
        message: MessageId,
        /// A recipient's name or id; absent: all for whom it is held.
        to: Option<String>,
    },
    /// About channels and groups. Answer: [`Reply::Channels`].
    Channel(ChannelRequest),
    /// Ask a question. Answer: [`Reply::Sent`], once it is durable; the message's id is the
    /// question's.
    Ask(Ask),
    /// Answer a question. Answer: [`Reply::Sent`], once it is durable.
    Answer(Answer),
    /// Which questions there are. Answer: [`Reply::Questions`].
    Questions(QuestionsQuery),
    /// About tasks. Answer: [`Reply::Tasks`].
    Task(TaskRequest),
    /// About notes. Answer: [`Reply::Note`], or [`Reply::Notes`] to a list.
    Note(NoteRequest),
    /// Look for something that was said, asked, noted or planned. Answer: [`Reply::Hits`].
    Search(SearchQuery),
    /// Refuse what agents send, until it is resumed (operators). Answer: [`Reply::Paused`].
    Pause(Pausing),
    /// Let agents send again (operators). Answer: [`Reply::Paused`].
    Resume(Pausing),
    /// Apply the configured retention now (operators). Answer: [`Reply::Purged`].
    Purge {
        /// Only say what would go.
        dry_run: bool,
    },
    /// What brakes and policies refused lately, newest first: the caller's own, or everybody's (the
    /// person). Answer: [`Reply::Refusals`].
    Refusals,
    /// A model may have been asked with these since they were offered: the client made a request,
    /// ran a hook or called a tool. Only then the end of this session counts an attempt for them;
    /// what a tool result carried counts without it. Answer: [`Reply::Done`]; what this session
    /// does not hold is no error.
    Tried {
        /// Offered messages of this session.
        messages: Vec<MessageId>,
    },
}

/// What is paused: agents' sends in it are refused. The person is never paused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Pausing {
    /// Everything.
    All,
    /// What this peer sends, by name or id.
    Peer(String),
    /// What is said in this thread. Resuming it also counts its agents' turns anew.
    Thread(String),
}

/// Who is connecting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What the connection is for.
    pub role: Role,
    /// The program's version.
    pub version: String,
    /// The program's executable, for messages about two installed copies.
    pub executable: String,
    /// The seat that the environment names, where there is one: tells an agent's shell from the
    /// person's.
    pub seat: Option<Seat>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// An agent's session.
    Adapter,
    /// A person or a script, through `peerctl`.
    Operator,
    /// A client's hook.
    Hook,
}

/// A stable key for "the same session": what finds its mailbox again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seat {
    /// Who issued the key.
    pub kind: SeatKind,
    /// The key, at most [`SEAT_KEY_BYTES_MAX`](crate::limits::SEAT_KEY_BYTES_MAX) bytes.
    pub key: String,
}

/// Who issued a seat's key.
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

/// Become a peer, or resume as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The name the person chose (`PEER_NAME`). A known, offline peer of that name is taken up
    /// again with its mail.
    pub name: Option<String>,
    /// The client's own session id, where it is known already.
    pub seat: Option<Seat>,
    /// `claude`, `codex`, …
    pub client: String,
    /// The client's version.
    pub client_version: String,
    /// The client's process; the broker prefers what the kernel says.
    pub client_pid: u32,
    /// Where it works; another text for another directory. Empty where that is not known: it is
    /// then equal to no other.
    pub cwd: String,
    /// The top of its git work tree.
    pub git_root: Option<String>,
    /// What all work trees of one repository share: the canonical path of git's common directory.
    pub repo: Option<String>,
    /// This machine's name.
    pub host: String,
    /// What an earlier `Registered` gave: the session goes on, also after the broker died.
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

/// Whom a listing is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeersQuery {
    /// Only peers that work in this directory.
    pub cwd: Option<String>,
    /// Only peers of this repository (see [`Register::repo`]).
    pub repo: Option<String>,
    /// Only peers in whose name, summary, task, client or directory this text stands, in any case.
    pub text: Option<String>,
    /// Only peers of this state (their own word, or else what their client does), in any case.
    pub state: Option<String>,
    /// Only peers of this client.
    pub client: Option<String>,
    /// Also peers that are long offline and have no mail.
    pub all: bool,
    /// Start after this one.
    pub after: Option<PeerId>,
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// Names or ids. With `reply_to` it may be empty: then it goes to the sender of that message.
    pub to: Vec<String>,
    /// The text: not empty, at most `text_bytes_max` bytes.
    pub text: String,
    /// Absent: `Request`, or `Inform` for a reply.
    pub intent: Option<Intent>,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// Absent: that of `reply_to`, or a new one.
    pub thread: Option<String>,
    /// Milliseconds after which it expires if it was not presented.
    pub ttl_ms: Option<u64>,
    /// What its claims rest on.
    pub sources: Vec<String>,
    /// The sender's name for this act: a repeat gets the first outcome.
    pub idempotency_key: Option<String>,
}

/// Which messages a `Receive` is about; absent parts match everything.
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

/// A place in a listing of deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The message.
    pub message: MessageId,
    /// The recipient.
    pub peer: PeerId,
}

/// Which part of what was said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryQuery {
    /// Only messages from or to this peer.
    pub peer: Option<String>,
    /// Only messages between `peer` (absent: anyone) and this one.
    pub with: Option<String>,
    /// Only this thread.
    pub thread: Option<String>,
    /// Only what was said in this channel.
    pub channel: Option<String>,
    /// Only messages sent at or after this time.
    pub since: Option<Timestamp>,
    /// Only messages after this one, oldest first: the cursor of who reads on as messages come.
    pub after: Option<MessageId>,
    /// Only messages before this one: the cursor of the page before.
    pub before: Option<MessageId>,
    /// At most this many, and never more than
    /// [`PAGE_ENTRIES_MAX`](crate::limits::PAGE_ENTRIES_MAX).
    pub limit: u32,
}

/// What the broker answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To `Hello`.
    Welcome(Welcome),
    /// To `Register` and `Bind`.
    Registered(Registered),
    /// Done, and durable where it changed something.
    Done,
    /// To `Rename`: the name it has now.
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
    /// To `Ack`: what became acknowledged, and what is unknown to the caller.
    Acked {
        /// Acknowledged, now or before.
        acked: Vec<MessageId>,
        /// No message to the caller has this id.
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
        /// There may be more: ask again before this one, or after it. Present also where a page is
        /// empty because nothing matched yet.
        next: Option<MessageId>,
    },
    /// To `Orphans`.
    Orphans {
        /// One page, oldest first.
        entries: Vec<Orphan>,
        /// There are more: ask again after this one.
        next: Option<Position>,
    },
    /// To `Requeue`, `Reassign`, `Drop`, `Cancel` and `Release`: the deliveries that changed, by
    /// recipient and new stage.
    Settled {
        /// Recipient's name and the stage it has now.
        deliveries: Vec<(String, Stage)>,
    },
    /// To `Status`.
    Status(Box<Status>),
    /// To `Hook`.
    Hook {
        /// What the hook prints; empty: nothing.
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
        /// The task that it is about, or one page, newest first.
        tasks: Vec<TaskInfo>,
        /// There are more: ask again before this one.
        next: Option<TaskId>,
    },
    /// To `Note`, but for a list.
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
        /// What was found, in the order that was asked for.
        hits: Vec<Hit>,
        /// How many there are in all, as far as they were counted.
        total: u64,
        /// How many messages, notes and tasks were not looked at, because the index is behind; 0:
        /// the answer is whole.
        behind: u64,
    },
    /// To `Pause` and `Resume`.
    Paused(Vec<Pausing>),
    /// To `Purge`.
    Purged {
        /// How many of each kind went, or would go.
        counts: Vec<(String, u64)>,
        /// Bytes of text among them.
        text_bytes: u64,
    },
    /// To `Refusals`: newest first.
    Refusals(Vec<RefusedSend>),
}

/// The broker introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Its version.
    pub version: String,
    /// Its executable.
    pub executable: String,
    /// Its process.
    pub pid: u32,
    /// What the caller may do.
    pub authority: Authority,
}

/// What a connection may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Authority {
    /// Act as the person.
    Person,
    /// `peerctl` from within an agent's process tree; with the agent's name where it can be told.
    Shell(Option<String>),
    /// Act as a session, once registered.
    Session,
}

/// The session's peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The peer.
    pub peer: PeerId,
    /// Its name.
    pub name: String,
    /// The secret that resumes this session.
    pub token: Token,
    /// Whether this session takes the peer's mail. A second adapter of one client does not.
    pub takes_mail: bool,
    /// What the session should know, such as that the name it asked for was taken.
    pub notice: Option<String>,
    /// Messages that wait for it.
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
    /// Names that lead to it as well.
    pub aliases: Vec<String>,
    /// `claude`, `codex`, …; empty for the person.
    pub client: String,
    /// The client's version.
    pub client_version: String,
    /// The client's process, while online.
    pub client_pid: Option<u32>,
    /// A session that takes its mail is connected.
    pub online: bool,
    /// Where it works.
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
    /// Carriers, and when evidence last proved each.
    pub carriers: Vec<CarrierProof>,
    /// Whether the model is at work, where that is known.
    pub activity: Option<Activity>,
    /// What the session may do without asking, where that is known.
    pub mode: Option<Mode>,
    /// What becomes of mail to it, for now.
    pub policy: Policy,
    /// The groups whose labels it carries, with their sign.
    pub groups: Vec<String>,
    /// Messages that wait for the person, of those that wait for it.
    pub held: u64,
    /// Messages that a carrier of its session had, and of which nothing proves that the model saw
    /// them.
    pub offered: u64,
    /// Its mailbox takes nothing more: as many wait as may.
    pub full: bool,
    /// The person has paused what it sends.
    pub paused: bool,
}

/// A carrier of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarrierProof {
    /// The carrier.
    pub carrier: Carrier,
    /// When evidence last proved it in this session; absent: there or tried, never proved.
    pub proven_at: Option<Timestamp>,
}

/// An accepted message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Its identity; that of the first outcome where the idempotency key was known.
    pub message: MessageId,
    /// Its thread.
    pub thread: String,
    /// The idempotency key was known: nothing was stored anew.
    pub deduplicated: bool,
    /// One per recipient.
    pub deliveries: Vec<SentDelivery>,
}

/// What became of a message at one recipient, at the time of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentDelivery {
    /// The recipient.
    pub peer: PeerId,
    /// Its name.
    pub name: String,
    /// The delivery's stage; absent where it was refused.
    pub stage: Option<Stage>,
    /// A session that takes its mail is connected.
    pub online: bool,
    /// The ways into its model, and when each was last proved.
    pub carriers: Vec<CarrierProof>,
    /// Whether its model is at work, where that is known.
    pub activity: Option<Activity>,
    /// Why nothing was stored for this recipient.
    pub refusal: Option<Refusal>,
}

/// What a session holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// With a filter: what matches and this session holds now. Without one: what it holds and no
    /// carrier has had. Oldest first.
    pub messages: Vec<MessageId>,
    /// All pending messages of the filter, leased or not.
    pub waiting: u64,
}

/// One delivery that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxEntry {
    /// The message.
    pub message: MessageId,
    /// Its sender's name.
    pub from: String,
    /// The door it came in by.
    pub via: Via,
    /// Its reader.
    pub peer: PeerId,
    /// Its reader's name.
    pub to: String,
    /// Whether it may wake its reader.
    pub intent: Intent,
    /// Where it stands.
    pub stage: Stage,
    /// When it was accepted.
    pub sent_at: Timestamp,
    /// Sessions that ended after a model may have been asked with it.
    pub attempts: u32,
    /// The text's size.
    pub text_bytes: u32,
}

/// A message with the life of each of its deliveries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The message.
    pub message: Message,
    /// One per recipient.
    pub deliveries: Vec<ShownDelivery>,
}

/// The life of one delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownDelivery {
    /// The recipient.
    pub peer: PeerId,
    /// Its name now; its id where it was forgotten.
    pub name: String,
    /// Where the delivery stands.
    pub stage: Stage,
    /// Sessions that ended after a model may have been asked with it.
    pub attempts: u32,
    /// When its reader acknowledged it.
    pub acked_at: Option<Timestamp>,
    /// The first reply.
    pub answered_by: Option<MessageId>,
    /// What happened, oldest first.
    pub trace: Vec<TraceEntry>,
}

/// A dead letter, or a delivery that expired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphan {
    /// The message.
    pub message: MessageId,
    /// Its sender's name.
    pub from: String,
    /// Its reader.
    pub peer: PeerId,
    /// Its reader's name; its id where it was forgotten.
    pub to: String,
    /// `Dead` or `Expired`.
    pub stage: Stage,
    /// Why, in a word.
    pub cause: String,
    /// When it became so.
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
    /// How long it runs.
    pub uptime_ms: u64,
    /// Its socket.
    pub socket: String,
    /// Its directory.
    pub dir: String,
    /// Its executable.
    pub executable: String,
    /// Whether the kernel keeps it from opening network sockets.
    pub sandbox: bool,
    /// Peers that are online, the person not counted.
    pub peers_online: u64,
    /// Retained peers that are offline, the person not counted.
    pub peers_offline: u64,
    /// Deliveries that wait for a session.
    pub stored: u64,
    /// Deliveries that a session holds, offered or not.
    pub leased: u64,
    /// Deliveries that wait for the person.
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
    /// What is paused.
    pub paused: Vec<Pausing>,
    /// How often each brake refused a send since the broker started, by error code.
    pub refused: Vec<(String, u64)>,
    /// Threads that agents used up, oldest first.
    pub used_up: Vec<UsedUpThread>,
    /// What of `config.toml` the broker goes by, as table and key with the value.
    pub config: Vec<(String, String)>,
    /// Why it goes by something else than `config.toml` says: the file could not be read when the
    /// broker started.
    pub config_fault: Option<String>,
    /// Records of the database that were found damaged since the broker started, and are left out.
    pub damaged: u64,
}

/// What the broker sends unasked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Push {
    /// This message is leased to this session.
    Deliver(Box<Delivery>),
    /// The carrier had its time without evidence: offer it by the next one.
    Overdue {
        /// The message.
        message: MessageId,
        /// The carrier that had it.
        carrier: Carrier,
    },
    /// This session no longer holds the message: it was settled, withdrawn, or went elsewhere.
    Withdrawn {
        /// The message.
        message: MessageId,
        /// Where it stands now.
        stage: Stage,
    },
    /// This session's peer has another name now.
    Renamed {
        /// The name.
        name: String,
    },
    /// Something the session should tell its user or model, in a sentence.
    Notice(String),
    /// To watchers.
    Event {
        /// When it happened.
        at: Timestamp,
        /// What happened.
        event: Box<Event>,
    },
    /// The broker ends this connection, and why.
    Goodbye(Goodbye),
    /// A hook of this session's client runs: answer with [`Request::HookAnswer`], at once.
    Hook {
        /// Names the call in the answer.
        call: u64,
        /// What the hook told.
        hook: Box<HookCall>,
    },
    /// The person changed [`Policies::inbox_socket_in_bypass`].
    Consent {
        /// What it is now.
        inbox_socket_in_bypass: bool,
    },
}

/// Why the broker ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goodbye {
    /// The broker stops; connect again later.
    Stopping,
    /// An operator ended this session: do not come back by yourself.
    Kicked,
    /// The same session connected again, or its client has ended and another has its name.
    Replaced,
    /// A watcher did not read what it asked for.
    TooSlow,
}

/// Something that happened, for watchers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Event {
    /// Something happened to a delivery.
    Delivery {
        /// Which delivery.
        delivery: WatchedDelivery,
        /// What.
        what: DeliveryEvent,
    },
    /// A send was refused, or refused for one of its recipients.
    Refused {
        /// The name of who sent it.
        from: String,
        /// Whom it was meant for, as the sender named them; absent for a private channel, and where
        /// it was no message.
        to: Option<String>,
        /// The thread that the send named.
        thread: Option<String>,
        /// The message that it answers.
        reply_to: Option<MessageId>,
        /// Whether it was to wake its reader, where the send said so.
        intent: Option<Intent>,
        /// Why.
        code: ErrorCode,
    },
    /// A session came.
    PeerOnline {
        /// The peer's name.
        peer: String,
    },
    /// A session went.
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
        /// The name of who has it or is to do it.
        assignee: Option<String>,
        /// Where it stands now.
        state: TaskState,
    },
    /// Something was paused.
    Paused(Pausing),
    /// Something was resumed.
    Resumed(Pausing),
    /// Agents used up a thread: nobody but the person may speak in it until it is resumed.
    Loop {
        /// The thread.
        thread: String,
        /// How many turns it had.
        turns: u32,
    },
    /// A record in the database cannot be read. Only to the person.
    Damaged {
        /// What it is of, in words.
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
    /// Whether it may wake its reader.
    pub intent: Intent,
}

/// What happened to a delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum DeliveryEvent {
    /// The message is durable, or waits again. One event per recipient.
    Stored {
        /// Why it waits again; absent where it was accepted just now.
        cause: Option<Cause>,
        /// The text, for watchers who asked for it; not of what is held for any of the recipients.
        text: Option<String>,
    },
    /// Pushed to a session.
    Leased,
    /// Handed to a carrier.
    Offered {
        /// The carrier.
        carrier: Carrier,
    },
    /// Given back.
    Returned {
        /// Why; absent where no carrier had it.
        cause: Option<Cause>,
    },
    /// Proved.
    Presented {
        /// The carrier that showed it, where that is known.
        carrier: Option<Carrier>,
        /// What proved it.
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
        /// By whom, where it was not the sender.
        cause: Option<Cause>,
    },
    /// Became a dead letter.
    Dead {
        /// Why.
        cause: Cause,
    },
    /// Dropped by an operator.
    Dropped,
}

impl Event {
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

    /// The carrier involved.
    #[must_use]
    pub fn carrier(&self) -> Option<Carrier> {
        match self {
            Self::Offered { carrier } => Some(*carrier),
            Self::Presented { carrier, .. } => *carrier,
            _ => None,
        }
    }

    /// Why it happened; absent where the event itself says it.
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
            Self::Leased | Self::Offered { .. } | Self::Acked | Self::Answered => None,
        }
    }

    /// The text, where this watcher gets it.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Stored { text, .. } => text.as_deref(),
            _ => None,
        }
    }
}
