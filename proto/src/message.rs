//! A message, its delivery to one recipient, and the stages of that delivery's life.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr};

use crate::ids::{MessageId, PeerId, Timestamp};

/// Whether a message may wake an idle session.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Intent {
    /// The sender wants something done or answered; it may wake its reader. The default of a new
    /// message.
    Request,
    /// The reader shall know; it rides on the reader's next turn. The default of a reply.
    Inform,
}

impl Intent {
    /// `request` or `inform`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What a message is for, beyond its text.
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
    /// The broker's own word, such as "your message became a dead letter".
    Notice,
}

impl Kind {
    /// The kind's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// By which door a message came in. The broker stamps it; a sender cannot choose it.
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
}

impl Via {
    /// The door's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Who sent a message, as the broker saw them at that moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    /// The peer whose mailbox gets the replies.
    pub peer: PeerId,
    /// Its name when it sent.
    pub name: String,
    /// Its client (`claude`, `codex`, …); empty for the person and the broker.
    pub client: String,
    /// Its working directory; may be empty.
    pub cwd: String,
    /// The door it came in by.
    pub via: Via,
}

/// One message: stored once, however many recipients it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its identity.
    pub id: MessageId,
    /// Who sent it.
    pub from: Sender,
    /// The recipients' names when it was sent.
    pub to: Vec<String>,
    /// Whether it may wake its reader.
    pub intent: Intent,
    /// What it is for.
    pub kind: Kind,
    /// The conversation it belongs to. Every message has one.
    pub thread: String,
    /// The channel that it was said in, with its sign.
    pub channel: Option<String>,
    /// The message it answers.
    pub reply_to: Option<MessageId>,
    /// When the broker accepted it.
    pub sent_at: Timestamp,
    /// When it expires if it was not presented.
    pub expires_at: Option<Timestamp>,
    /// What its claims rest on.
    pub sources: Vec<String>,
    /// The text, exactly as sent. Whoever shows it strips control characters and quotes it.
    pub text: String,
}

/// A message pushed to the session that now holds its lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The message, with its text.
    pub message: Message,
    /// Sessions that ended with this message offered; zero the first time.
    pub attempts: u32,
    /// A model may have seen it already: whoever shows it again says so.
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
    /// The Claude session's own messaging socket.
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

/// What shows that a model was shown the whole text.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Evidence {
    /// The reader acknowledged it.
    Ack,
    /// The reader replied to it.
    Reply,
    /// The same conversation made a later tool call than the one whose result carried it.
    NextCall,
    /// The same conversation got its next user turn.
    NextTurn,
    /// The message's id stands in the client's own transcript.
    Transcript,
    /// It was printed for the person.
    Printed,
}

impl Evidence {
    /// The evidence's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Where one delivery stands. See `docs/delivery.md` for the picture.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Stage {
    /// Durable, waiting for a session.
    Stored,
    /// Pushed to a session. In memory only: it dies with the broker, and the delivery is `Stored`
    /// again.
    Leased,
    /// Handed to a carrier; no evidence yet.
    Offered,
    /// Settled: there is evidence that the model was shown the whole text.
    Presented,
    /// Waits for the person, by the reader's policy.
    Held,
    /// Its time to live ended first.
    Expired,
    /// Its sender withdrew it.
    Cancelled,
    /// A dead letter: waits for an operator.
    Dead,
    /// An operator dropped it.
    Dropped,
}

impl Stage {
    /// The stage's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether the delivery still waits for its reader: stored, leased, offered or held.
    #[must_use]
    pub fn is_pending(self) -> bool {
        matches!(self, Self::Stored | Self::Leased | Self::Offered | Self::Held)
    }
}

/// One thing that happened to a delivery.
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
    /// Given back: by its session, or because its session ended.
    Returned,
    /// Proved.
    Presented,
    /// The reader said that it dealt with it.
    Acked,
    /// The reader replied.
    Answered,
    /// Held by the reader's policy.
    Held,
    /// Released by the person.
    Released,
    /// Its time to live ended.
    Expired,
    /// Withdrawn by its sender.
    Cancelled,
    /// Became a dead letter.
    Dead,
    /// Put back into the queue by an operator.
    Requeued,
    /// Given to another peer by an operator.
    Reassigned,
    /// Dropped by an operator.
    Dropped,
}

impl TraceEvent {
    /// The event's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Why something happened to a delivery.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Cause {
    /// The named evidence was seen.
    #[strum(transparent)]
    Evidence(Evidence),
    /// Its session ended.
    SessionEnded,
    /// Its session gave it back.
    Nack,
    /// Too many sessions ended with it offered.
    AttemptsExceeded,
    /// Its reader was forgotten.
    PeerForgotten,
    /// Its time to live ended.
    TtlEnded,
    /// An operator did it.
    Operator,
    /// The reader's policy.
    Policy,
    /// The session moved to another peer (`Bind`), and its mail with it.
    Bound,
    /// What the disk holds of it is not what was written there.
    Damaged,
}

impl Cause {
    /// The cause's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// One line of a delivery's trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceEntry {
    /// What happened.
    pub event: TraceEvent,
    /// When.
    pub at: Timestamp,
    /// By which carrier, where one was involved.
    pub carrier: Option<Carrier>,
    /// Why, where there is a reason beyond the event itself.
    pub cause: Option<Cause>,
}
