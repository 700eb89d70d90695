//! The events that the adapter's core receives, and the actions that it requests.
//!
//! An [`Event`] is a fact that the adapter found out: a push of the broker, a call of the client,
//! the content of a file. An [`Action`] is an act that only the adapter can perform.
//!
//! Knows the values of both. Does not know what follows from an event, nor how an action is
//! performed. Invariant: neither holds a handle, so that a run can be recorded and repeated.

use std::path::PathBuf;

use peer_proto::hook::{Activity, HookEvent, Mode};
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::Carrier;
use peer_proto::request::{Push, Registered, Request, Seat};

use crate::ClientKind;
use crate::call::CallId;
use crate::inbox::{Block, Post, Seen};
use crate::ways::Ways;

/// An event. The adapter reports events at once, in the order in which they happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The client identified itself.
    Introduced(ClientKind),
    /// The seat of this session and the conversation that gets the mail, as far as both are known
    /// before the session registers at the broker.
    SettledOn {
        /// The client's own name of the session.
        seat: Option<Seat>,
        /// The conversation.
        conversation: Option<String>,
    },
    /// This adapter registered as a session at the broker, on a new connection.
    Registered(Registered),
    /// The broker no longer knows this session: it registers as a new one.
    Forgotten,
    /// The session renamed itself.
    Named(String),
    /// The connection to the broker ended.
    Lost,
    /// The broker pushed this. The adapter itself handles a relayed hook and a goodbye.
    Pushed(Push),
    /// The broker answered an [`Action::Ask`], or the answer will never come.
    Answered {
        /// The number of the action.
        ticket: u64,
        /// Whether the request needs no repeat: it was accepted, or refused because the message no
        /// longer belongs to this session.
        done: bool,
    },
    /// The broker answered an [`Action::Bind`].
    Bound {
        /// The seat.
        seat: Seat,
        /// The broker's answer.
        outcome: BindOutcome,
    },
    /// The client called a tool. The adapter read the client's record just before.
    ToolCalled {
        /// The id of the call.
        call: CallId,
        /// Bytes that had left for the client when the call was read.
        written_before: u64,
        /// The client's name of the calling conversation, if the client gives one.
        conversation: Option<String>,
        /// Whether the client says that a subagent makes the call.
        is_subagent: bool,
        /// The client's name of the call.
        tool_use: Option<String>,
    },
    /// A conversation called a tool, for the first time or again.
    Speaks {
        /// The conversation; for a subagent, its root conversation.
        conversation: String,
    },
    /// The result of the call is complete but for its end: the core decides which mail it carries.
    ResultDue {
        /// The call.
        call: CallId,
        /// The bounds that the result sets.
        due: Due,
    },
    /// The call reads one message from an offset.
    ReadOn {
        /// The call.
        call: CallId,
        /// The message.
        message: MessageId,
        /// The first character.
        offset: usize,
        /// Whether to show the text without offering it.
        peek: bool,
    },
    /// The result of the call is queued for the client, and ends at this byte of the output.
    ResultQueued {
        /// The call.
        call: CallId,
        /// The offset behind its last byte.
        end: u64,
    },
    /// The client cancelled the call.
    CallDropped(CallId),
    /// The client runs calls from a program that its model wrote: no later event proves what a
    /// result carried.
    RecordAlone,
    /// The adapter learned who makes a tool call.
    CallerTold {
        /// The client's name of the call; `None`: the event names no call.
        tool_use: Option<String>,
        /// Whether a subagent makes it.
        is_subagent: bool,
    },
    /// A hook of the main conversation arrived. The adapter read the client's record just before.
    HookCame {
        /// The hook's event.
        event: HookEvent,
        /// The client's name of the turn.
        turn: Option<String>,
        /// The acts that the session may do without asking.
        mode: Option<Mode>,
        /// Whether an earlier hook already prolonged this turn.
        prolonged: bool,
    },
    /// The adapter performed [`Action::Receive`], or ran out of time.
    HookReady {
        /// The hook's event.
        event: HookEvent,
        /// Whether the broker confirmed what this session holds.
        received: bool,
    },
    /// A hook got its output, or did not.
    HookAnswered {
        /// The messages that the output carried.
        messages: Vec<MessageId>,
        /// Whether the client asks its model with the output as soon as it has it.
        asks: bool,
        /// The outcome.
        outcome: HookOutcome,
    },
    /// The client's record of the session is this file from now on.
    RecordAt(PathBuf),
    /// The adapter read the client's record.
    Recorded {
        /// The texts that the model was shown and has answered.
        seen: Vec<Seen>,
        /// The messages that the client removed from the record before the model answered, with the
        /// carrier if it is known.
        withdrawn: Vec<(MessageId, Option<Carrier>)>,
        /// Whether the format of the record is known. If it is, a message that the record lacks was
        /// not shown.
        speaks: bool,
    },
    /// The client's registry reports whether the model works. It may lag behind the hooks.
    RegistrySays {
        /// What it reports.
        activity: Activity,
        /// Whether it reported something else before.
        changed: bool,
    },
    /// The client's host reports whether the model works; `None`: no host reports it any more.
    HostSays(Option<Activity>),
    /// The client reports that its session has a new id. The adapter read the old record just
    /// before.
    GoesBy(Seat),
    /// The client dropped these messages before its model was asked with them.
    Dropped {
        /// The carrier that had brought them.
        carrier: Carrier,
        /// The messages.
        messages: Vec<MessageId>,
    },
    /// The recipient acknowledged or answered these, and the broker has stored that.
    Settled(Vec<MessageId>),
    /// A tool call begins to wait for a message.
    WaitBegins,
    /// A tool call ends its wait.
    WaitEnds,
    /// The available carriers may have changed.
    WaysChanged,
    /// The available carriers, found out beside another task.
    WaysSeen(Ways),
    /// The answer to [`Action::Look`]: the available carriers.
    Ways(Ways),
    /// The bytes of a push are about to leave. See [`Action::Go`].
    Leaving {
        /// The carrier.
        carrier: Carrier,
        /// Whether a turn runs, if the client was asked just now.
        runs: Option<bool>,
    },
    /// A push ended.
    PushedOut {
        /// The carrier.
        carrier: Carrier,
        /// The outcome.
        result: PushResult,
    },
    /// The time that [`next_timeout`](crate::adapter::Adapter::next_timeout) named has come.
    Tick,
    /// The client has ended: nothing may be given to it any more.
    Closing,
}

/// The broker's answer about a seat.
#[derive(Clone, Debug)]
pub enum BindOutcome {
    /// The seat is taken: this session is now this peer.
    Done(Registered),
    /// The broker refused, with this message.
    Refused(String),
    /// The request could not be made.
    Failed,
}

/// The outcome of a hook's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookOutcome {
    /// The client has it. The broker has not been told.
    Handed,
    /// The broker passed it on, and has recorded that.
    Relayed,
    /// The connection was lost: the broker may have passed it on.
    Unknown,
    /// The hook had ended.
    Gone,
}

/// The outcome of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushResult {
    /// The bytes left.
    Left,
    /// The client takes nothing now, or the core did not let it go: no model was shown anything.
    NotNow,
    /// The push failed.
    Failed,
}

/// The bounds of the mail at the end of a tool result.
#[derive(Clone, Debug)]
pub struct Due {
    /// The messages that an explicit filter matched; `None`: all due messages.
    pub among: Option<Vec<MessageId>>,
    /// A message that is shown in any case.
    pub also: Option<MessageId>,
    /// The largest number of messages.
    pub limit: usize,
    /// Whether to show the messages without offering them.
    pub peek: bool,
    /// The largest number of characters of all messages together.
    pub budget: usize,
    /// The number of waiting messages that the broker reports.
    pub waiting: u64,
}

/// An action. Actions are performed in the order in which they are returned.
#[derive(Debug)]
pub enum Action {
    /// Send the broker this request; no answer is needed.
    Tell(Request),
    /// Send the broker this request, and report the answer with [`Event::Answered`].
    Ask {
        /// The number that the answer repeats.
        ticket: u64,
        /// The request.
        request: Request,
    },
    /// Ask the broker for this seat, and report the answer with [`Event::Bound`].
    Bind(Seat),
    /// Find out which carriers are available once no other work is queued, and report them with
    /// [`Event::Ways`].
    Look,
    /// Hand this over. Report [`Event::Leaving`] just before the first byte leaves, and
    /// [`Event::PushedOut`] in any case.
    Push {
        /// The carrier.
        carrier: Carrier,
        /// The messages and their text.
        post: Post,
    },
    /// Let the push that reported [`Event::Leaving`] leave: the broker has been told. Without this
    /// action it must not leave.
    Go,
    /// Append this to the result of a call, or return it as the part of a message that the call
    /// reads. An empty text appends nothing.
    Show {
        /// The call.
        call: CallId,
        /// The block.
        block: Block,
    },
    /// Ask the broker what this session holds, wait until all of it was pushed, and read the
    /// client's record. Then report [`Event::HookReady`].
    Receive {
        /// The hook's event.
        event: HookEvent,
    },
    /// Print the hook's output; nothing if the block is empty.
    Print {
        /// The block.
        block: Block,
        /// Whether the client asks its model with the output as soon as it has it.
        asks: bool,
    },
    /// Show this text to the model with the next result.
    Notice(String),
    /// Show this name in the title of the person's terminal.
    Title(String),
    /// Make a summary for this peer, unless it has one.
    Summarize(PeerId),
    /// The set of watched files may have changed: see
    /// [`record_to_watch`](crate::adapter::Adapter::record_to_watch).
    Watch,
    /// The inbox changed: calls that wait for a message check it again.
    News,
}
