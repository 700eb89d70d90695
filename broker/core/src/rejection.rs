//! Why a request is refused, in the core's own terms, and how that reads for whoever asked.

use peer_proto::ids::{MessageId, TaskId};
use peer_proto::limits::{CHANNEL_NAME_CHARS_MAX, NAME_CHARS_MAX, RECIPIENTS_MAX};
use peer_proto::refusal::{ErrorCode, Refusal};
use peer_proto::task::TaskState;
use thiserror::Error;

/// When trying again makes sense where a mailbox is full: nobody knows when its reader will read.
const MAILBOX_FULL_RETRY_MS: u64 = 60_000;

/// A refused request. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rejection {
    /// The connection is not registered as a peer.
    #[error("this connection is no session yet")]
    NotRegistered,
    /// The connection is registered already.
    #[error("this connection is a session already")]
    AlreadyRegistered,
    /// A second `Hello`.
    #[error("this connection has said hello already")]
    HelloTwice,
    /// No such peer; the nearest names.
    #[error("no peer is called {name:?}")]
    UnknownPeer {
        /// What was asked for.
        name: String,
        /// Names like it.
        nearest: Vec<String>,
    },
    /// A name that is understood but leads nowhere.
    #[error("{name:?} cannot be written to: {why}")]
    NoMailbox {
        /// What was asked for.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// No such message, or not the caller's.
    #[error("no message {0} that concerns you")]
    UnknownMessage(MessageId),
    /// The text is empty, or nothing in it can be seen.
    #[error("the message is empty")]
    EmptyText,
    /// The text is too large.
    #[error("the text is {bytes} bytes long, and {bytes_max} is the most")]
    TextTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: u32,
    },
    /// Not the form of a name.
    #[error("{name:?} is not a name")]
    BadName {
        /// What was asked for.
        name: String,
    },
    /// A name with a meaning of its own.
    #[error("the name {name:?} is reserved")]
    ReservedName {
        /// What was asked for.
        name: String,
    },
    /// Another peer has it.
    #[error("the name {name:?} belongs to another peer")]
    NameTaken {
        /// What was asked for.
        name: String,
    },
    /// A field beyond its bound.
    #[error("{what} is out of bounds: {bound}")]
    OutOfBounds {
        /// Which field.
        what: &'static str,
        /// What is allowed.
        bound: String,
    },
    /// A rate is exhausted.
    #[error("{who} reached {per_minute} messages a minute{to}")]
    RateLimited {
        /// The sender.
        who: String,
        /// ` to <recipient>`, or empty.
        to: String,
        /// The limit.
        per_minute: u32,
        /// When there is room again.
        retry_after_ms: u64,
    },
    /// The recipient's mailbox is full.
    #[error("{name} takes no more messages before it has read some; waiting: {pending}")]
    MailboxFull {
        /// The recipient.
        name: String,
        /// What waits.
        pending: u32,
    },
    /// The same text a moment ago.
    #[error("the same text went to {name} {ago_ms} ms ago")]
    IdenticalText {
        /// The recipient.
        name: String,
        /// When.
        ago_ms: u64,
        /// When it may be said again.
        retry_after_ms: u64,
    },
    /// The thread is paused.
    #[error("thread {thread} is paused after {turns} turns between agents without the person")]
    ThreadPaused {
        /// The thread.
        thread: String,
        /// How many turns it had.
        turns: u32,
    },
    /// The person has paused it.
    #[error("the person has paused {what}; nothing was sent")]
    Paused {
        /// `all`, the sender or the thread.
        what: String,
        /// Whether it is the thread.
        is_thread: bool,
    },
    /// The recipient's policy refuses it.
    #[error("{name} takes no mail from other sessions: its inbound policy is refuse")]
    RefusedByPolicy {
        /// The recipient.
        name: String,
    },
    /// Only the person may.
    #[error("{act} is for the person, not for an agent or its shell")]
    NotPermitted {
        /// What was tried.
        act: &'static str,
    },
    /// The message's deliveries are settled.
    #[error("it is too late for {message}: {state}")]
    TooLate {
        /// The message.
        message: MessageId,
        /// What it is.
        state: &'static str,
    },
    /// The peer is offline.
    #[error("{name} has no session that could be ended: it is offline")]
    NoSession {
        /// Whose session was to end.
        name: String,
    },
    /// A hook that an adapter answers has been given up by its client.
    #[error("the hook does not wait for its answer any more")]
    HookGone,
    /// The disk is full.
    #[error("the disk is full; nothing new is accepted, what is stored is still delivered")]
    NoSpace,
    /// Too many peers.
    #[error("{peers} peers are known, and none of them can be forgotten yet")]
    TooManyPeers {
        /// How many.
        peers: usize,
    },
    /// Too many new peers in a minute.
    #[error(
        "more than {per_minute} new peers were registered within a minute{}",
        if *of_one { " by programs of this process" } else { "" }
    )]
    TooManyNewPeers {
        /// How many there may be.
        per_minute: u32,
        /// That many of one process, and not of all.
        of_one: bool,
        /// When to try again.
        retry_after_ms: u64,
    },
    /// Too many kept-back answers.
    #[error("this connection waits for mail {waits} times already")]
    TooManyWaits {
        /// How many times.
        waits: usize,
    },
    /// The token does not match.
    #[error("this token is not that of the peer's latest session")]
    BadToken,
    /// Not the session's message.
    #[error("message {0} does not wait for this session")]
    NotLeased(MessageId),
    /// The key names another message.
    #[error("the idempotency key {key:?} was used for another message, {message}")]
    IdempotencyConflict {
        /// The key.
        key: String,
        /// What it names.
        message: MessageId,
    },
    /// No such channel or group, or the caller may not know of it; the nearest names.
    #[error("there is no channel or group {name:?}")]
    UnknownChannel {
        /// What was asked for.
        name: String,
        /// Names like it that the caller may know of.
        nearest: Vec<String>,
    },
    /// A channel that the caller has not joined.
    #[error("{name} is for its members, and you are none of them")]
    NotMember {
        /// The channel or group.
        name: String,
    },
    /// Somebody who is no member of the private channel that the message is for.
    #[error("{name} is no member of {channel}, which is private")]
    OutsideChannel {
        /// The channel.
        channel: String,
        /// Whom else the message was for.
        name: String,
    },
    /// A label that nobody but the sender carries.
    #[error("nobody else carries {name}")]
    EmptyGroup {
        /// The group.
        name: String,
    },
    /// Not the form of a channel's or group's name.
    #[error("{name:?} is not the name of a channel or group")]
    BadChannelName {
        /// What was asked for.
        name: String,
    },
    /// The name of a channel cannot be had.
    #[error("the name {name:?} cannot be had")]
    ChannelTaken {
        /// What was asked for.
        name: String,
    },
    /// `all` means more than the person allows.
    #[error("{online} other agents are online, and a message to all may go to {broadcast_max}")]
    BroadcastTooWide {
        /// How many there are.
        online: usize,
        /// The limit.
        broadcast_max: u32,
    },
    /// Nobody is there who could be meant by a question to nobody in particular.
    #[error("nobody else is online in this repository or directory")]
    NobodyToAsk,
    /// A question to its asker alone: the only one who may not answer it.
    #[error("a question to yourself alone would stay open, as nobody answers his own")]
    AskedOneself,
    /// No such question, or not the caller's to answer.
    #[error("no question {0} that you were asked")]
    UnknownQuestion(MessageId),
    /// An answer to one's own question.
    #[error("question {0} is your own")]
    OwnQuestion(MessageId),
    /// The question does not wait for an answer any more.
    #[error("question {question} is closed: {why}")]
    QuestionClosed {
        /// The question.
        question: MessageId,
        /// How it ended.
        why: String,
        /// The answer, where it has one.
        answer: Option<MessageId>,
    },
    /// There are as many of them as there may be.
    #[error("there are {count} {what} already")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// What makes room.
        hint: &'static str,
    },
    /// No such note.
    #[error("there is no note {key:?}")]
    UnknownNote {
        /// What was asked for.
        key: String,
    },
    /// The note is not what its writer believes.
    #[error("the note {key:?} has version {version} now: {value:?}")]
    VersionConflict {
        /// The note.
        key: String,
        /// Its present version; 0: it is not there.
        version: u64,
        /// What it says now, or the beginning of that.
        value: String,
    },
    /// No such task.
    #[error("there is no task {0}")]
    UnknownTask(TaskId),
    /// Another holds the task, or is to do it.
    #[error("task {task} is {holder}'s")]
    TaskHeld {
        /// The task.
        task: TaskId,
        /// Whose it is.
        holder: String,
    },
    /// The task cannot become that.
    #[error("task {task} is {}: {why}", state.as_str())]
    BadTransition {
        /// The task.
        task: TaskId,
        /// Where it stands.
        state: TaskState,
        /// Why not.
        why: String,
    },
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        let message = rejection.to_string();
        let (code, hint, retry_after_ms) = match rejection {
            Rejection::NotRegistered => (ErrorCode::OutOfOrder, "send Register first".to_owned(), None),
            Rejection::AlreadyRegistered => (ErrorCode::OutOfOrder, "use Bind or Rename to change who it is".to_owned(), None),
            Rejection::HelloTwice => (ErrorCode::OutOfOrder, "open a new connection instead".to_owned(), None),
            Rejection::UnknownPeer { nearest, .. } => {
                let hint = if nearest.is_empty() {
                    "list the peers: list_peers, or `peerctl peers --all`".to_owned()
                } else {
                    format!("did you mean {}? list_peers, or `peerctl peers --all`, shows everyone", nearest.join(", "))
                };
                (ErrorCode::UnknownPeer, hint, None)
            }
            Rejection::NoMailbox { .. } => (ErrorCode::ReservedName, "name the peers, separated by commas".to_owned(), None),
            Rejection::UnknownMessage(_) => {
                (ErrorCode::UnknownMessage, "check the id: check_messages, or `peerctl history`, shows ids".to_owned(), None)
            }
            Rejection::EmptyText => (ErrorCode::EmptyText, "give the message a text".to_owned(), None),
            Rejection::TextTooLarge { .. } => {
                (ErrorCode::TextTooLarge, "split it, or write it to a file and send the path".to_owned(), None)
            }
            Rejection::BadName { .. } => (
                ErrorCode::BadName,
                format!("a name is 1 to {NAME_CHARS_MAX} letters, digits, - or _, and begins with a letter or digit"),
                None,
            ),
            Rejection::ReservedName { .. } => (
                ErrorCode::ReservedName,
                "human, user, system, all and me have meanings of their own; choose another".to_owned(),
                None,
            ),
            Rejection::NameTaken { .. } => {
                (ErrorCode::NameTaken, "choose another; `peerctl peers --all` shows all names".to_owned(), None)
            }
            Rejection::OutOfBounds { .. } => (ErrorCode::OutOfBounds, "keep to these bounds, and try again".to_owned(), None),
            Rejection::RateLimited { retry_after_ms, .. } => (
                ErrorCode::RateLimited,
                format!("try again in {} s, and say more in one message", retry_after_ms.div_ceil(1_000)),
                Some(retry_after_ms),
            ),
            Rejection::MailboxFull { .. } => (
                ErrorCode::MailboxFull,
                "wait until it reads, or withdraw something: `peerctl inbox` shows what waits".to_owned(),
                Some(MAILBOX_FULL_RETRY_MS),
            ),
            Rejection::IdenticalText { retry_after_ms, .. } => {
                (ErrorCode::IdenticalText, "it is stored already; do not repeat it".to_owned(), Some(retry_after_ms))
            }
            Rejection::ThreadPaused { thread, .. } => (
                ErrorCode::ThreadPaused,
                format!(
                    "no agent can write in it until your user has; a message of theirs in it, or `peerctl resume --thread {thread}`, lets it go on"
                ),
                None,
            ),
            Rejection::Paused { what, is_thread } => {
                let of_thread = if is_thread { "--thread " } else { "" };
                let hint = format!("go on without it; the person resumes it with `peerctl resume {of_thread}{what}`");
                (ErrorCode::Paused, hint, None)
            }
            Rejection::RefusedByPolicy { name } => (
                ErrorCode::RefusedByPolicy,
                format!("do not repeat it; the person set that, and `peerctl policy {name}` changes it"),
                None,
            ),
            Rejection::NotPermitted { .. } => (
                ErrorCode::NotPermitted,
                "ask the person to run it in a terminal of their own, or to set operator.allow_from_agents in config.toml"
                    .to_owned(),
                None,
            ),
            Rejection::TooLate { message, .. } => {
                (ErrorCode::TooLate, format!("`peerctl show {message}` tells what happened to it"), None)
            }
            Rejection::NoSession { .. } => {
                (ErrorCode::TooLate, "its mail waits; `peerctl peers --all` shows who is online".to_owned(), None)
            }
            Rejection::HookGone => {
                (ErrorCode::TooLate, "what the answer carried was shown to nobody: offer it again".to_owned(), None)
            }
            Rejection::NoSpace => (ErrorCode::NoSpace, "free some space; sending works again by itself".to_owned(), None),
            Rejection::TooManyPeers { .. } => (
                ErrorCode::Overloaded,
                "lower limits.forget_offline_hours in config.toml and run `peerctl daemon restart`; `peerctl peers --all` lists them"
                    .to_owned(),
                None,
            ),
            Rejection::TooManyNewPeers { retry_after_ms, .. } => {
                let hint = "resume the sessions that there are, or try again later; `peerctl peers --all` shows who came";
                (ErrorCode::Overloaded, hint.to_owned(), Some(retry_after_ms))
            }
            Rejection::TooManyWaits { .. } => {
                (ErrorCode::Overloaded, "end one of them first: StopWaiting with its request's id".to_owned(), None)
            }
            Rejection::BadToken => (ErrorCode::BadToken, "register anew".to_owned(), None),
            Rejection::NotLeased(_) => {
                (ErrorCode::NotLeased, "only what waits for this session can be given back".to_owned(), None)
            }
            Rejection::UnknownChannel { nearest, .. } => {
                let hint = if nearest.is_empty() {
                    "list them: channels(action=\"list\"), or `peerctl channels`".to_owned()
                } else {
                    format!("did you mean {}? channels(action=\"list\"), or `peerctl channels`, shows all", nearest.join(", "))
                };
                (ErrorCode::UnknownChannel, hint, None)
            }
            Rejection::NotMember { name } => (
                ErrorCode::NotPermitted,
                format!("join it first: channels(action=\"join\", name=\"{name}\"), or ask a member to invite you"),
                None,
            ),
            Rejection::OutsideChannel { channel, name } => (
                ErrorCode::NotPermitted,
                format!("send {name} a message of its own, or let a member of {channel} invite it first"),
                None,
            ),
            Rejection::EmptyGroup { .. } => (
                ErrorCode::UnknownChannel,
                "name a peer instead: list_peers, or `peerctl peers`, shows who carries what".to_owned(),
                None,
            ),
            Rejection::BadChannelName { .. } => (
                ErrorCode::BadName,
                format!("a channel is # and 1 to {CHANNEL_NAME_CHARS_MAX} letters, digits, - or _; a group is @ and the same"),
                None,
            ),
            Rejection::ChannelTaken { .. } => (ErrorCode::NameTaken, "choose another".to_owned(), None),
            Rejection::BroadcastTooWide { .. } => (
                ErrorCode::OutOfBounds,
                "name whom you mean, or a channel or group; the person sets limits.broadcast_max in config.toml".to_owned(),
                None,
            ),
            Rejection::NobodyToAsk | Rejection::AskedOneself => {
                (ErrorCode::UnknownPeer, "name whom you ask: list_peers, or `peerctl peers`, shows everyone".to_owned(), None)
            }
            Rejection::UnknownQuestion(_) => (
                ErrorCode::UnknownMessage,
                "check the id: check_messages(kind=\"questions\"), or `peerctl questions`, shows what is open".to_owned(),
                None,
            ),
            Rejection::OwnQuestion(question) => {
                (ErrorCode::NotPermitted, format!("withdraw it where you need no answer: `peerctl cancel {question}`"), None)
            }
            Rejection::QuestionClosed { answer, .. } => {
                let hint = match answer {
                    Some(_) => "its asker has the answer; if you know better, send a message".to_owned(),
                    None => "nobody waits for it; if it still matters, send a message".to_owned(),
                };
                (ErrorCode::QuestionClosed, hint, None)
            }
            Rejection::TooMany { hint, .. } => (ErrorCode::Overloaded, hint.to_owned(), None),
            Rejection::UnknownNote { .. } => {
                (ErrorCode::UnknownNote, "list the keys: memory(action=\"list\"), or `peerctl memory list`".to_owned(), None)
            }
            Rejection::VersionConflict { version, .. } => (
                ErrorCode::VersionConflict,
                format!("read it again, and write with if_version={version} if what you write still holds"),
                None,
            ),
            Rejection::UnknownTask(_) => {
                (ErrorCode::UnknownTask, "list them: tasks(action=\"list\"), or `peerctl tasks`".to_owned(), None)
            }
            Rejection::TaskHeld { .. } => (ErrorCode::TaskHeld, "ask for it, or choose another".to_owned(), None),
            Rejection::BadTransition { task, .. } => {
                (ErrorCode::BadTransition, format!("look at it: tasks(action=\"show\", task=\"{task}\")"), None)
            }
            Rejection::IdempotencyConflict { .. } => {
                (ErrorCode::IdempotencyConflict, "use a new key for a new message".to_owned(), None)
            }
        };
        Self { code, message, hint, retry_after_ms }
    }
}

impl Rejection {
    pub(crate) fn too_many_recipients() -> Self {
        Self::OutOfBounds { what: "the list of recipients", bound: format!("1 to {RECIPIENTS_MAX}") }
    }
}
