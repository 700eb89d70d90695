//! A message, its delivery to one recipient, and the stages of that delivery's life.
//!
//! Knows the values on the wire. Does not know which transitions are legal: the broker's rules do.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr};

use crate::ids::{MessageId, PeerId, Timestamp};

/// Whether a message may wake an idle session.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Intent {
    /// The sender wants an act or an answer. It may wake an idle recipient. The default of a new
    /// message.
    Request,
    /// Information only: it waits for the recipient's next turn. The default of a reply.
    Inform,
}

impl Intent {
    /// `request` or `inform`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The purpose of a message, beyond its text.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Kind {
    /// An ordinary message.
    Message,
    /// A question that its first answer closes.
    Question,
    /// The answer to a question.
    Answer,
    /// A message of the broker itself, such as "your message became a dead letter".
    Notice,
    /// Asks the broker of a channel to make the sender a member. It is for that broker alone.
    Join,
    /// Tells the broker of a channel that the sender leaves it. It is for that broker alone.
    Leave,
}

impl Kind {
    /// The kind's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How a message was sent. The broker sets it; a sender cannot choose it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Via {
    /// The session itself, through its adapter.
    Session,
    /// The person, through `peerctl`.
    Person,
    /// `peerctl`, run from within an agent's process tree. Never the person.
    Shell,
    /// The broker.
    Broker,
    /// A link: a peer of another broker sent it. Never the person.
    Remote,
}

impl Via {
    /// The way's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The sender of a message, as the broker knew it at that moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// The peer whose mailbox gets the replies.
    pub peer: PeerId,
    /// The name that it had then.
    pub name: String,
    /// Its client (`claude`, `codex`, …); empty for the person and the broker.
    pub client: String,
    /// Its working directory; may be empty.
    pub cwd: String,
    /// How it sent the message.
    pub via: Via,
}

/// One message: stored once, with any number of recipients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its identity.
    pub id: MessageId,
    /// Who sent it.
    pub from: Sender,
    /// The names that the recipients had when it was sent.
    pub to: Vec<String>,
    /// Whether it may wake an idle recipient.
    pub intent: Intent,
    /// Its purpose.
    pub kind: Kind,
    /// The conversation that it belongs to. Every message has one.
    pub thread: String,
    /// The channel that it was sent to, with its sign.
    pub channel: Option<String>,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// When the broker accepted it.
    pub sent_at: Timestamp,
    /// When it expires unless it was presented.
    pub expires_at: Option<Timestamp>,
    /// The sources of its claims.
    pub sources: Vec<String>,
    /// The text, exactly as sent. A program that shows it must strip control characters and quote
    /// it.
    pub text: String,
}

/// A message pushed to the session that now holds its lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The message, with its text.
    pub message: Message,
    /// The sessions that ended with this message offered; zero the first time.
    pub attempts: u32,
    /// Whether a model may have seen it already. Then it is shown as a repeat.
    pub shown_before: bool,
}

/// A way into a client's model.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    EnumString,
    IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Carrier {
    /// Claude Code's `notifications/claude/channel`.
    Channel,
    /// The messaging socket of the Claude session itself.
    InboxSocket,
    /// Codex's control socket.
    AppServer,
    /// A hook's output.
    Hook,
    /// The inbox block at the end of a tool result.
    ToolResult,
    /// The person's terminal.
    Peerctl,
}

impl Carrier {
    /// The carrier's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// An observation that proves that a model was shown the whole text.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Evidence {
    /// The recipient acknowledged it.
    Ack,
    /// The recipient replied to it.
    Reply,
    /// The same conversation made a later tool call than the one whose result had it.
    NextCall,
    /// The same conversation got its next user turn.
    NextTurn,
    /// The client's own record has the message's id.
    Transcript,
    /// It was printed for the person.
    Printed,
    /// The recipient's own broker says so, over a link.
    Receipt,
}

impl Evidence {
    /// The evidence's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The stage of one delivery. `docs/delivery.md` shows the transitions.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Stage {
    /// Durable, and waiting for a session.
    Stored,
    /// Pushed to a session. This is in memory only: after the broker ends, the delivery is `Stored`
    /// again.
    Leased,
    /// Handed to a carrier; no evidence yet.
    Offered,
    /// Settled: there is evidence that the model was shown the whole text.
    Presented,
    /// Waiting for the person, by the recipient's policy.
    Held,
    /// Its time to live ended first.
    Expired,
    /// Its sender withdrew it.
    Cancelled,
    /// A dead letter: waits for an operator.
    Dead,
    /// An operator dropped it.
    Dropped,
    /// Stored on the recipient's broker, and not settled there, as far as this broker was told.
    Relayed,
    /// Settled: the channel's broker has taken it, and delivers it to the members.
    Posted,
}

impl Stage {
    /// The stage's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether the delivery still waits for its recipient: stored, leased, offered, held or
    /// relayed.
    #[must_use]
    pub fn is_pending(self) -> bool {
        matches!(self, Self::Stored | Self::Leased | Self::Offered | Self::Held | Self::Relayed)
    }
}

/// One event in the life of a delivery.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum TraceEvent {
    /// Accepted and durable.
    Stored,
    /// Pushed to a session.
    Leased,
    /// Handed to a carrier.
    Offered,
    /// Given back by its session, or because its session ended.
    Returned,
    /// Proved by evidence.
    Presented,
    /// The recipient stated that it dealt with it.
    Acked,
    /// The recipient replied.
    Answered,
    /// Held by the recipient's policy.
    Held,
    /// Released by the person.
    Released,
    /// Its time to live ended.
    Expired,
    /// Withdrawn by its sender.
    Cancelled,
    /// Became a dead letter.
    Dead,
    /// Put back into the mailbox by an operator.
    Requeued,
    /// Given to another peer by an operator.
    Reassigned,
    /// Dropped by an operator.
    Dropped,
    /// Stored on the recipient's broker.
    Relayed,
    /// The recipient's broker does not have it any more: it is sent again.
    Unrelayed,
    /// Its sender asked the recipient's broker to withdraw it.
    Recalled,
    /// Taken by the channel's broker.
    Posted,
}

impl TraceEvent {
    /// The event's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Why an event happened to a delivery.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Cause {
    /// This evidence was observed.
    #[strum(transparent)]
    Evidence(Evidence),
    /// Its session ended.
    SessionEnded,
    /// Its session gave it back.
    Nack,
    /// Too many sessions ended with it offered.
    AttemptsExceeded,
    /// Its recipient was forgotten.
    PeerForgotten,
    /// Its time to live ended.
    TtlEnded,
    /// An operator decided it.
    Operator,
    /// The recipient's policy applied.
    Policy,
    /// The session moved to another peer (`Bind`), with its mail.
    Bound,
    /// The record on disk differs from the one that was written.
    Damaged,
    /// The recipient's broker refused it.
    RefusedThere,
    /// No link reached the recipient's broker in time.
    Unreachable,
}

impl Cause {
    /// The cause's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// One entry of a delivery's trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceEntry {
    /// The event.
    pub event: TraceEvent,
    /// When it happened.
    pub at: Timestamp,
    /// The carrier, if one was involved.
    pub carrier: Option<Carrier>,
    /// The reason, if there is one beyond the event itself.
    pub cause: Option<Cause>,
}
