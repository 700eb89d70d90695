//! What the adapter's core is told, and what it wants done.
//!
//! An [`Event`] is a fact that something outside has found out: a push of the broker, a call of the client, what a file says.
//! An [`Action`] is something that only the outside can do. Neither holds a handle, so a run can be written down and repeated.

use std::path::PathBuf;

use peer_proto::hook::{Activity, HookEvent, Mode};
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::message::Carrier;
use peer_proto::request::{Push, Registered, Request, Seat};

use crate::ClientKind;
use crate::call::CallId;
use crate::inbox::{Block, Post, Seen};
use crate::ways::Ways;

/// Something that happened. The hand that found it out tells it at once, in the order in which things happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The client has said which program it is.
    Introduced(ClientKind),
    /// Which session of the client this is, and the conversation that mail rides on, as far as both are known before the
    /// session begins at the broker.
    SettledOn {
        /// The client's own name of the session.
        seat: Option<Seat>,
        /// The conversation.
        conversation: Option<String>,
    },
    /// This adapter is a session at the broker, on a new connection.
    Registered(Registered),
    /// The broker does not know this session any more: it begins anew.
    Forgotten,
    /// The session has renamed itself.
    Named(String),
    /// The connection to the broker has ended.
    Lost,
    /// The broker pushed this. A relayed hook and a goodbye concern the hands alone.
    Pushed(Push),
    /// The broker answered an [`Action::Ask`], or will not.
    Answered {
        /// The number of the action.
        ticket: u64,
        /// Whether what was asked is done for good: accepted, or refused because it is no longer this session's.
        done: bool,
    },
    /// The broker answered an [`Action::Bind`].
    Bound {
        /// The seat.
        seat: Seat,
        /// What it said.
        outcome: BindOutcome,
    },
    /// The client calls a tool. Its record was read just before.
    ToolCalled {
        /// Names the call from now on.
        call: CallId,
        /// Bytes that had left for the client when the call was read.
        written_before: u64,
        /// The client's name of the conversation that calls, where it gives one.
        conversation: Option<String>,
        /// The client says that a subagent calls.
        is_subagent: bool,
        /// The client's name of the call.
        tool_use: Option<String>,
    },
    /// A conversation calls a tool for the first time, or again.
    Speaks {
        /// The conversation, of a subagent the one at its root.
        conversation: String,
    },
    /// The call's result is made: what shall stand at its end?
    ResultDue {
        /// The call.
        call: CallId,
        /// What the result asks for.
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
        /// Show without offering.
        peek: bool,
    },
    /// The call's result is queued for the client, and ends at this byte of all that the client is sent.
    ResultQueued {
        /// The call.
        call: CallId,
        /// The byte behind its last one.
        end: u64,
    },
    /// The client wants no result of the call any more.
    CallDropped(CallId),
    /// The client runs calls from a program that its model wrote: what it does next does not prove what a result carried.
    RecordAlone,
    /// It is known who makes a tool call.
    CallerTold {
        /// The client's name of the call; none where the event names no call.
        tool_use: Option<String>,
        /// A subagent makes it.
        is_subagent: bool,
    },
    /// A hook of the main conversation came. The client's record was read just before.
    HookCame {
        /// What happened.
        event: HookEvent,
        /// The client's name of the turn.
        turn: Option<String>,
        /// What the session may do without asking.
        mode: Option<Mode>,
        /// The turn's end was put off by an earlier hook.
        prolonged: bool,
    },
    /// The hands have done what [`Action::Receive`] asked for, or could not in time.
    HookReady {
        /// What happened in the client.
        event: HookEvent,
        /// The broker has confirmed what this session holds.
        received: bool,
    },
    /// A hook was given its output, or was not.
    HookAnswered {
        /// What the output carried.
        messages: Vec<MessageId>,
        /// The client asks its model with the output as soon as it has it.
        asks: bool,
        /// What became of it.
        outcome: HookOutcome,
    },
    /// The client's record of the session is this file from now on.
    RecordAt(PathBuf),
    /// The client's record was read.
    Recorded {
        /// What the model was shown and has answered.
        seen: Vec<Seen>,
        /// What stood in the record, and the client took back before the model answered; by which carrier, where known.
        withdrawn: Vec<(MessageId, Option<Carrier>)>,
        /// The record is written in a form that is known here: what is not in it was not shown.
        speaks: bool,
    },
    /// The client's own list of sessions says whether the model works.
    RegistrySays(Activity),
    /// The client's host says whether the model works; none: nobody says it any more.
    HostSays(Option<Activity>),
    /// The client says that its session goes by another id now. Its old record was read just before.
    GoesBy(Seat),
    /// The client forgot these before its model was asked with them.
    Dropped {
        /// Which carrier had brought them.
        carrier: Carrier,
        /// The messages.
        messages: Vec<MessageId>,
    },
    /// The reader acknowledged or answered these, and the broker has taken note.
    Settled(Vec<MessageId>),
    /// A tool call waits for a message from now on.
    WaitBegins,
    /// It waits no more.
    WaitEnds,
    /// The ways into the model may have changed.
    WaysChanged,
    /// The ways that are there, found out beside something else.
    WaysSeen(Ways),
    /// The answer to [`Action::Look`]: the ways that are there.
    Ways(Ways),
    /// The next thing that a push does is to let bytes leave. See [`Action::Go`].
    Leaving {
        /// The carrier that hands over.
        carrier: Carrier,
        /// Whether a turn runs, where the client was asked just now.
        runs: Option<bool>,
    },
    /// A push is over.
    PushedOut {
        /// The carrier.
        carrier: Carrier,
        /// What came of it.
        result: PushResult,
    },
    /// The time has come that [`next_timeout`](crate::adapter::Adapter::next_timeout) named.
    Tick,
    /// The client is gone: nothing may be given to it any more.
    Closing,
}

/// What the broker said of a seat.
#[derive(Clone, Debug)]
pub enum BindOutcome {
    /// Who this session is from now on.
    Done(Registered),
    /// It said no, in these words.
    Refused(String),
    /// It could not be asked.
    Failed,
}

/// What became of a hook's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookOutcome {
    /// The client has it, and the broker does not know.
    Handed,
    /// The broker passed it on, and knows.
    Relayed,
    /// The broker was lost, and may have passed it on.
    Unknown,
    /// The hook was gone.
    Gone,
}

/// What came of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushResult {
    /// It left.
    Left,
    /// The client takes nothing now, or it was not let go: nobody was shown anything.
    NotNow,
    /// It could not be done.
    Failed,
}

/// What a tool result asks to be shown at its end.
#[derive(Clone, Debug)]
pub struct Due {
    /// What an explicit question matched; absent: whatever is due.
    pub among: Option<Vec<MessageId>>,
    /// Shown whatever became of it before.
    pub also: Option<MessageId>,
    /// Most messages.
    pub limit: usize,
    /// Show without offering.
    pub peek: bool,
    /// Most characters of all messages together.
    pub budget: usize,
    /// How many messages wait, as the broker says.
    pub waiting: u64,
}

/// Something to do, in the order in which they stand.
#[derive(Debug)]
pub enum Action {
    /// Send the broker this; no answer is needed.
    Tell(Request),
    /// Send the broker this, and answer with [`Event::Answered`].
    Ask {
        /// Names it in the answer.
        ticket: u64,
        /// The request.
        request: Request,
    },
    /// Ask the broker for this seat, and answer with [`Event::Bound`].
    Bind(Seat),
    /// Find out which ways into the model there are, as soon as nothing else is at hand, and answer with [`Event::Ways`].
    Look,
    /// Hand this over. Tell [`Event::Leaving`] just before the first byte leaves, and [`Event::PushedOut`] in any case.
    Push {
        /// By which carrier.
        carrier: Carrier,
        /// What.
        post: Post,
    },
    /// The push that is about to leave may: the broker has been told. Without this answer to [`Event::Leaving`] it must not.
    Go,
    /// The end of a call's result, or the part of a message that it reads. An empty text: nothing.
    Show {
        /// The call.
        call: CallId,
        /// What is shown.
        block: Block,
    },
    /// Ask the broker what this session holds, have all of it pushed, read the client's record; then tell
    /// [`Event::HookReady`].
    Receive {
        /// What happened in the client.
        event: HookEvent,
    },
    /// The hook's output; nothing where the block is empty.
    Print {
        /// What it shows.
        block: Block,
        /// The client asks its model with it as soon as it has it.
        asks: bool,
    },
    /// Tell the model, with the next result.
    Notice(String),
    /// Show this name where the person sees it.
    Title(String),
    /// See that this peer has a summary.
    Summarize(PeerId),
    /// The files that are to be watched may be others now: see [`record_to_watch`](crate::adapter::Adapter::record_to_watch).
    Watch,
    /// The inbox changed: those who wait for a message look again.
    News,
}
