//! The reasons why a request is refused, as data. [`wording`](crate::wording) has their texts for
//! each addressee.

use peer_proto::ids::{BrokerId, MessageId, TaskId};
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
    ServeLink,
    ChangeLinks,
}

/// What cannot be done here to a peer of another machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteBar {
    /// Its name is its own machine's.
    Rename,
    /// A task is kept by one broker.
    GiveTask,
    /// A group is a label on this machine.
    TakeLabel,
    /// A channel is changed where it lives.
    ChangeChannel,
    /// A question to a channel is kept where the channel lives.
    AskChannel,
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
        /// The requested name.
        name: String,
        /// Names like it.
        nearest: Vec<String>,
    },
    /// A known name that resolves to no mailbox.
    NoMailbox {
        /// The requested name.
        name: String,
        /// The reason.
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
        /// The requested name.
        name: String,
    },
    /// A name with a meaning of its own.
    ReservedName {
        /// The requested name.
        name: String,
    },
    /// Another peer has it.
    NameTaken {
        /// The requested name.
        name: String,
    },
    /// A field beyond its bound.
    OutOfBounds {
        /// Which field.
        what: &'static str,
        /// The allowed values.
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
        /// Milliseconds until the next send is allowed.
        retry_after_ms: u64,
    },
    /// The recipient's mailbox is full.
    MailboxFull {
        /// The recipient.
        name: String,
        /// How many deliveries are pending.
        pending: u32,
    },
    /// The same text was sent a short time ago.
    IdenticalText {
        /// The recipient.
        name: String,
        /// Milliseconds since then.
        ago_ms: u64,
        /// Milliseconds until it may be sent again.
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
    /// The actor has no right to this act.
    NotPermitted {
        /// The act.
        act: Act,
    },
    /// The peer is one of another machine, and only mail crosses.
    OnAnotherMachine {
        /// The peer.
        name: String,
        /// What cannot be done.
        bar: RemoteBar,
    },
    /// The state of the message does not permit the act.
    TooLate {
        /// The message.
        message: MessageId,
        /// The state of the message.
        obstacle: Obstacle,
    },
    /// The peer is offline.
    NoSession {
        /// The peer whose session was to end.
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
        /// Whether the limit is that of one process.
        of_one: bool,
        /// Milliseconds until a retry is useful.
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
        /// The message that it names.
        message: MessageId,
    },
    /// No such channel or group, or the caller may not know of it; the nearest names.
    UnknownChannel {
        /// The requested name.
        name: String,
        /// Names like it that the caller may know of.
        nearest: Vec<String>,
    },
    /// A channel that the caller has not joined.
    NotMember {
        /// The channel or group.
        name: String,
    },
    /// A post of another broker has an id from before its channel was made.
    OlderThanChannel {
        /// The channel.
        name: String,
    },
    /// A peer of another broker may join the channel by invitation only.
    NeedsInvitation {
        /// The channel.
        name: String,
    },
    /// The recipient is no member of the private channel that the message is for.
    OutsideChannel {
        /// The channel.
        channel: String,
        /// The recipient outside of the channel.
        name: String,
    },
    /// A group without a member other than the sender.
    EmptyGroup {
        /// The group.
        name: String,
    },
    /// Not the form of a channel's or group's name.
    BadChannelName {
        /// The requested name.
        name: String,
    },
    /// The name of the channel is taken.
    ChannelTaken {
        /// The requested name.
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
    /// The asker cannot answer its own question.
    OwnQuestion(MessageId),
    /// The question is closed.
    QuestionClosed {
        /// The question.
        question: MessageId,
        /// How it ended.
        ended: QuestionEnd,
    },
    /// The limit of their number is reached.
    TooMany {
        /// Of what.
        what: Crowd,
        /// How many.
        count: usize,
    },
    /// No such note.
    UnknownNote {
        /// The requested key.
        key: String,
    },
    /// The version of the note differs from the expected one.
    VersionConflict {
        /// The note.
        key: String,
        /// Its current version. 0: it does not exist.
        version: u64,
        /// Its current value, or the beginning of it.
        value: String,
    },
    /// No such task.
    UnknownTask(TaskId),
    /// Another peer holds the task, or it is assigned to another peer.
    TaskHeld {
        /// The task.
        task: TaskId,
        /// The holder or assignee.
        holder: String,
    },
    /// The task cannot change to that state.
    BadTransition {
        /// The task.
        task: TaskId,
        /// Its current state.
        state: TaskState,
        /// The reason.
        why: TaskBar,
    },
    /// No link of this name.
    UnknownLink {
        /// The requested name.
        name: String,
    },
    /// The person refuses this link.
    LinkRefused {
        /// The link's name.
        alias: String,
    },
    /// A connection for letters was opened to a broker that another connection reaches.
    LinkIsUp {
        /// The link.
        alias: String,
    },
    /// A link whose other end is this broker.
    LinkToItself,
    /// The identity is not the one that this broker has.
    OtherIdentity {
        /// The one that it has.
        known: BrokerId,
        /// The other one.
        own: BrokerId,
    },
    // ---- what the shell around the rules refuses
    /// The frame is no request of the protocol.
    BadFrame {
        /// What is wrong with it.
        reason: String,
    },
    /// The first request was not `Hello`.
    NoHello,
    /// The limit of connections is reached.
    TooManyConnections {
        /// How many there are.
        connections: usize,
        /// Milliseconds until a retry is useful.
        retry_after_ms: u64,
    },
    /// The last places are reserved for the person, and this is a session's connection.
    NoPlace {
        /// Milliseconds until a retry is useful.
        retry_after_ms: u64,
    },
    /// A commit failed for lack of space: the request may or may not have been carried out.
    NothingStored,
    /// The answer is larger than a frame.
    AnswerTooLarge,
    /// The broker ends before it has an answer.
    Stopping,
    /// The search index cannot be used.
    NoIndex {
        /// The reason.
        reason: String,
    },
    /// The search process died several times, and is started again only after a pause.
    SearchDied {
        /// How often.
        deaths: u32,
        /// Its last error.
        last_words: String,
        /// Milliseconds until it is started again.
        retry_after_ms: u64,
    },
    /// The search took too long.
    SearchGivenUp {
        /// Its duration in milliseconds.
        after_ms: u64,
    },
}

/// The state of a message that does not permit the requested act.
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
    /// The named peer has it already.
    There,
    /// It is no dead letter.
    NoDeadLetter,
    /// It is held, but not for the named peer.
    HeldForOthers,
    /// It is pending, and not held.
    NotHeld,
}

/// The limited numbers.
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
    /// Requested purges that are under way.
    Purges,
    /// Links to other brokers.
    Links,
    /// Peers of one link.
    LinkPeers,
}

impl Rejection {
    pub(crate) fn too_many_recipients() -> Self {
        Self::OutOfBounds {
            what: "the list of recipients",
            bound: format!("1 to {RECIPIENTS_MAX}"),
        }
    }

    /// Returns its error code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotRegistered | Self::AlreadyRegistered | Self::HelloTwice | Self::NoHello => {
                ErrorCode::OutOfOrder
            }
            Self::UnknownPeer { .. } | Self::NobodyToAsk | Self::AskedOneself => {
                ErrorCode::UnknownPeer
            }
            Self::NoMailbox { .. } | Self::ReservedName { .. } => ErrorCode::ReservedName,
            Self::UnknownMessage(_) | Self::DamagedMessage(_) | Self::UnknownQuestion(_) => {
                ErrorCode::UnknownMessage
            }
            Self::EmptyText => ErrorCode::EmptyText,
            Self::TextTooLarge { .. } => ErrorCode::TextTooLarge,
            Self::BadName { .. } | Self::BadChannelName { .. } => ErrorCode::BadName,
            Self::NameTaken { .. } | Self::ChannelTaken { .. } => ErrorCode::NameTaken,
            Self::OutOfBounds { .. } | Self::BroadcastTooWide { .. } | Self::AnswerTooLarge => {
                ErrorCode::OutOfBounds
            }
            Self::RateLimited { .. } => ErrorCode::RateLimited,
            Self::MailboxFull { .. } => ErrorCode::MailboxFull,
            Self::IdenticalText { .. } => ErrorCode::IdenticalText,
            Self::ThreadPaused { .. } => ErrorCode::ThreadPaused,
            Self::Paused { .. } => ErrorCode::Paused,
            Self::RefusedByPolicy { .. } => ErrorCode::RefusedByPolicy,
            Self::NotPermitted { .. }
            | Self::OnAnotherMachine { .. }
            | Self::NotMember { .. }
            | Self::NeedsInvitation { .. }
            | Self::OutsideChannel { .. }
            | Self::OwnQuestion(_) => ErrorCode::NotPermitted,
            Self::TooLate { .. }
            | Self::OlderThanChannel { .. }
            | Self::NoSession { .. }
            | Self::HookGone => ErrorCode::TooLate,
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
            Self::UnknownLink { .. } => ErrorCode::UnknownLink,
            Self::LinkRefused { .. } => ErrorCode::RefusedByPolicy,
            Self::LinkIsUp { .. } => ErrorCode::NotPermitted,
            Self::LinkToItself | Self::OtherIdentity { .. } => ErrorCode::IdentityConflict,
            Self::BadFrame { .. } => ErrorCode::BadFrame,
            Self::Stopping => ErrorCode::Stopping,
        }
    }

    /// Milliseconds until a retry is useful. `None`: time alone changes nothing.
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
