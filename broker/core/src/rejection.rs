//! The reasons why a request is refused, as data. [`wording`](crate::wording) has their texts for
//! each addressee.

use peer_proto::ids::{MessageId, TaskId};
use peer_proto::limits::RECIPIENTS_MAX;
use peer_proto::refusal::ErrorCode;
use peer_proto::task::TaskState;

/// The retry delay for a full mailbox. It is fixed, because nobody knows when its recipient will
/// read.
const MAILBOX_FULL_RETRY_MS: u64 = 60_000;

/// An act that only the person may do, or only the owner of the shared record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is worded in wording.rs, and a comment would repeat it")]
pub enum Act {
    ReadOthersInbox,
    ReadOthersMail,
    ChangeChannels,
    RegisterAsPeer,
    RenameOther,
    RenamePeer,
    RenamePerson,
    EndSession,
    OfferTerminal,
    AnswerForPerson,
    WithdrawOthers,
    Requeue,
    Reassign,
    Drop,
    SpeakAsHook,
    Purge,
    Pause,
    Resume,
    SettlePersonsMail,
    AckPersonsMail,
    ChangeTasksUntold,
    GiveAwayTask,
    CancelTask,
    ReopenTask,
    SetPolicy,
    ConsentToInboxSockets,
    ReleaseHeld,
    StopBroker,
    UsePeerctl,
}

/// The reason why a known name resolves to no mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoMailbox {
    /// It is the broker itself.
    System,
    /// Messages to everybody are off.
    BroadcastOff,
    /// A message to everybody would reach nobody.
    NobodyOnline,
}

/// How a question ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuestionEnd {
    /// This peer answered it, with this message.
    Answered(String, MessageId),
    /// Its asker withdrew it.
    Withdrawn,
    /// Its time ended.
    Expired,
}

/// The reason why a task cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskBar {
    /// It failed or was cancelled, so no task can need it.
    WillNotComplete,
    /// It has ended.
    Ended,
    /// It has ended, and must be reopened first.
    ReopenFirst,
    /// It has not ended.
    NotEnded,
    /// Nobody holds it, and it must be claimed first.
    ClaimFirst,
    /// Nobody has it.
    NobodyHasIt,
    /// These must be complete first.
    WaitsFor(Vec<TaskId>),
}

/// A refused request. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The connection is not registered as a peer.
    NotRegistered,
    /// The connection is registered already.
    AlreadyRegistered,
    /// A second `Hello`.
    HelloTwice,
    /// No such peer; the nearest names.
    UnknownPeer {
        /// What was asked for.
        name: String,
        /// Names like it.
        nearest: Vec<String>,
    },
    /// A name that is understood but leads nowhere.
    NoMailbox {
        /// What was asked for.
        name: String,
        /// Why not.
        why: NoMailbox,
    },
    /// No such message, or not the caller's.
    UnknownMessage(MessageId),
    /// The message's record in the database is damaged.
    DamagedMessage(MessageId),
    /// The text is empty, or nothing in it can be seen.
    EmptyText,
    /// The text is too large.
    TextTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: u32,
    },
    /// Not the form of a name.
    BadName {
        /// What was asked for.
        name: String,
    },
    /// A name with a meaning of its own.
    ReservedName {
        /// What was asked for.
        name: String,
    },
    /// Another peer has it.
    NameTaken {
        /// What was asked for.
        name: String,
    },
    /// A field beyond its bound.
    OutOfBounds {
        /// Which field.
        what: &'static str,
        /// What is allowed.
        bound: String,
    },
    /// A rate is exhausted.
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
    MailboxFull {
        /// The recipient.
        name: String,
        /// What waits.
        pending: u32,
    },
    /// The same text a moment ago.
    IdenticalText {
        /// The recipient.
        name: String,
        /// When.
        ago_ms: u64,
        /// When it may be said again.
        retry_after_ms: u64,
    },
    /// The thread is paused.
    ThreadPaused {
        /// The thread.
        thread: String,
        /// How many turns it had.
        turns: u32,
    },
    /// The person has paused it.
    Paused {
        /// `all`, the sender or the thread.
        what: String,
        /// Whether it is the thread.
        is_thread: bool,
    },
    /// The recipient's policy refuses it.
    RefusedByPolicy {
        /// The recipient.
        name: String,
    },
    /// Only the person may.
    NotPermitted {
        /// What was tried.
        act: Act,
    },
    /// The message is not where it could be acted on.
    TooLate {
        /// The message.
        message: MessageId,
        /// Where it is instead.
        obstacle: Obstacle,
    },
    /// The peer is offline.
    NoSession {
        /// Whose session was to end.
        name: String,
    },
    /// A hook that an adapter answers has been given up by its client.
    HookGone,
    /// The disk is full.
    NoSpace,
    /// Too many peers.
    TooManyPeers {
        /// How many.
        peers: usize,
    },
    /// Too many new peers in a minute.
    TooManyNewPeers {
        /// How many there may be.
        per_minute: u32,
        /// That many of one process, and not of all.
        of_one: bool,
        /// When to try again.
        retry_after_ms: u64,
    },
    /// Too many kept-back answers.
    TooManyWaits {
        /// How many times.
        waits: usize,
    },
    /// The token does not match.
    BadToken,
    /// Not the session's message.
    NotLeased(MessageId),
    /// The key names another message.
    IdempotencyConflict {
        /// The key.
        key: String,
        /// What it names.
        message: MessageId,
    },
    /// No such channel or group, or the caller may not know of it; the nearest names.
    UnknownChannel {
        /// What was asked for.
        name: String,
        /// Names like it that the caller may know of.
        nearest: Vec<String>,
    },
    /// A channel that the caller has not joined.
    NotMember {
        /// The channel or group.
        name: String,
    },
    /// The recipient is no member of the private channel that the message is for.
    OutsideChannel {
        /// The channel.
        channel: String,
        /// Whom else the message was for.
        name: String,
    },
    /// A label that nobody but the sender carries.
    EmptyGroup {
        /// The group.
        name: String,
    },
    /// Not the form of a channel's or group's name.
    BadChannelName {
        /// What was asked for.
        name: String,
    },
    /// The name of a channel cannot be had.
    ChannelTaken {
        /// What was asked for.
        name: String,
    },
    /// `all` means more than the person allows.
    BroadcastTooWide {
        /// How many there are.
        online: usize,
        /// The limit.
        broadcast_max: u32,
    },
    /// No online peer matches a question without recipients.
    NobodyToAsk,
    /// A question to its asker alone, who may not answer it.
    AskedOneself,
    /// No such question, or not the caller's to answer.
    UnknownQuestion(MessageId),
    /// An answer to one's own question.
    OwnQuestion(MessageId),
    /// The question does not wait for an answer any more.
    QuestionClosed {
        /// The question.
        question: MessageId,
        /// How it ended.
        ended: QuestionEnd,
    },
    /// There are as many of them as there may be.
    TooMany {
        /// Of what.
        what: Crowd,
        /// How many.
        count: usize,
    },
    /// No such note.
    UnknownNote {
        /// What was asked for.
        key: String,
    },
    /// The note is not what its writer believes.
    VersionConflict {
        /// The note.
        key: String,
        /// Its present version; 0: it is not there.
        version: u64,
        /// What it says now, or the beginning of that.
        value: String,
    },
    /// No such task.
    UnknownTask(TaskId),
    /// Another holds the task, or is to do it.
    TaskHeld {
        /// The task.
        task: TaskId,
        /// Whose it is.
        holder: String,
    },
    /// The task cannot become that.
    BadTransition {
        /// The task.
        task: TaskId,
        /// Where it stands.
        state: TaskState,
        /// Why not.
        why: TaskBar,
    },
    // ---- what the shell around the rules refuses
    /// The frame is no request of the protocol.
    BadFrame {
        /// What is wrong with it.
        reason: String,
    },
    /// The first request was not `Hello`.
    NoHello,
    /// The connection would be one too many.
    TooManyConnections {
        /// How many there are.
        connections: usize,
        /// When to try again.
        retry_after_ms: u64,
    },
    /// The last places are kept for the person, and the connection is a session's.
    NoPlace {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// A commit failed for want of space: what was asked may or may not have been done.
    NothingStored,
    /// The answer is larger than a frame.
    AnswerTooLarge,
    /// The broker ends before it has an answer.
    Stopping,
    /// The search index cannot be used.
    NoIndex {
        /// Why not.
        reason: String,
    },
    /// The search process died several times, and is not started at once again.
    SearchDied {
        /// How often.
        deaths: u32,
        /// What it said last.
        last_words: String,
        /// When it is started again.
        retry_after_ms: u64,
    },
    /// The search took too long.
    SearchGivenUp {
        /// How long.
        after_ms: u64,
    },
}

/// Where a message is that cannot be acted on as was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It was presented.
    Presented,
    /// It was withdrawn.
    Withdrawn,
    /// It is a dead letter.
    DeadLetter,
    /// It is settled in several ways.
    Settled,
    /// It is a dead letter of a peer that is forgotten.
    Orphaned,
    /// The peer that was named has it.
    There,
    /// It is no dead letter.
    NoDeadLetter,
    /// It is held, and not for the peer that was named.
    HeldForOthers,
    /// It waits for its reader, and is not held.
    NotHeld,
}

/// What there can be too many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crowd {
    /// Threads that the person paused.
    PausedThreads,
    /// Channels and groups.
    Channels,
    /// Members of one channel or group.
    Members,
    /// Questions without an answer.
    OpenQuestions,
    /// Tasks that have not ended.
    OpenTasks,
    /// Notes.
    Notes,
    /// Purges that were asked for and are under way.
    Purges,
}

impl Rejection {
    pub(crate) fn too_many_recipients() -> Self {
        Self::OutOfBounds { what: "the list of recipients", bound: format!("1 to {RECIPIENTS_MAX}") }
    }

    /// Its kind, for programs.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotRegistered | Self::AlreadyRegistered | Self::HelloTwice | Self::NoHello => ErrorCode::OutOfOrder,
            Self::UnknownPeer { .. } | Self::NobodyToAsk | Self::AskedOneself => ErrorCode::UnknownPeer,
            Self::NoMailbox { .. } | Self::ReservedName { .. } => ErrorCode::ReservedName,
            Self::UnknownMessage(_) | Self::DamagedMessage(_) | Self::UnknownQuestion(_) => ErrorCode::UnknownMessage,
            Self::EmptyText => ErrorCode::EmptyText,
            Self::TextTooLarge { .. } => ErrorCode::TextTooLarge,
            Self::BadName { .. } | Self::BadChannelName { .. } => ErrorCode::BadName,
            Self::NameTaken { .. } | Self::ChannelTaken { .. } => ErrorCode::NameTaken,
            Self::OutOfBounds { .. } | Self::BroadcastTooWide { .. } | Self::AnswerTooLarge => ErrorCode::OutOfBounds,
            Self::RateLimited { .. } => ErrorCode::RateLimited,
            Self::MailboxFull { .. } => ErrorCode::MailboxFull,
            Self::IdenticalText { .. } => ErrorCode::IdenticalText,
            Self::ThreadPaused { .. } => ErrorCode::ThreadPaused,
            Self::Paused { .. } => ErrorCode::Paused,
            Self::RefusedByPolicy { .. } => ErrorCode::RefusedByPolicy,
            Self::NotPermitted { .. } | Self::NotMember { .. } | Self::OutsideChannel { .. } | Self::OwnQuestion(_) => {
                ErrorCode::NotPermitted
            }
            Self::TooLate { .. } | Self::NoSession { .. } | Self::HookGone => ErrorCode::TooLate,
            Self::NoSpace | Self::NothingStored => ErrorCode::NoSpace,
            Self::TooManyPeers { .. }
            | Self::TooManyNewPeers { .. }
            | Self::TooManyWaits { .. }
            | Self::TooMany { .. }
            | Self::TooManyConnections { .. }
            | Self::NoPlace { .. }
            | Self::NoIndex { .. }
            | Self::SearchDied { .. }
            | Self::SearchGivenUp { .. } => ErrorCode::Overloaded,
            Self::BadToken => ErrorCode::BadToken,
            Self::NotLeased(_) => ErrorCode::NotLeased,
            Self::IdempotencyConflict { .. } => ErrorCode::IdempotencyConflict,
            Self::UnknownChannel { .. } | Self::EmptyGroup { .. } => ErrorCode::UnknownChannel,
            Self::QuestionClosed { .. } => ErrorCode::QuestionClosed,
            Self::UnknownNote { .. } => ErrorCode::UnknownNote,
            Self::VersionConflict { .. } => ErrorCode::VersionConflict,
            Self::UnknownTask(_) => ErrorCode::UnknownTask,
            Self::TaskHeld { .. } => ErrorCode::TaskHeld,
            Self::BadTransition { .. } => ErrorCode::BadTransition,
            Self::BadFrame { .. } => ErrorCode::BadFrame,
            Self::Stopping => ErrorCode::Stopping,
        }
    }

    /// When trying again makes sense; `None` where time alone changes nothing.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after_ms, .. }
            | Self::IdenticalText { retry_after_ms, .. }
            | Self::TooManyNewPeers { retry_after_ms, .. }
            | Self::TooManyConnections { retry_after_ms, .. }
            | Self::NoPlace { retry_after_ms }
            | Self::SearchDied { retry_after_ms, .. } => Some(*retry_after_ms),
            Self::SearchGivenUp { after_ms } => Some(*after_ms),
            Self::MailboxFull { .. } => Some(MAILBOX_FULL_RETRY_MS),
            _ => None,
        }
    }
}
