//! Why the broker said no, and the next step. `docs/errors.md` lists every code, and a test
//! compares the two.

use std::fmt;

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

/// A refused request. The connection lives on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind of no.
    pub code: ErrorCode,
    /// What was tried, on what, and why it cannot be: lower case, no full stop.
    pub message: String,
    /// The next step; empty where there is none.
    pub hint: String,
    /// When trying again makes sense.
    pub retry_after_ms: Option<u64>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// The kinds of no. Numbered on the wire in this order; a new one is appended.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    IntoStaticStr,
    VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub enum ErrorCode {
    /// The frame is not a request of this protocol version. The connection is closed after it.
    BadFrame,
    /// The request came out of order: `Hello` first, `Register` before acting as a peer.
    OutOfOrder,
    /// No peer has this name or id.
    UnknownPeer,
    /// No message has this id, or it is none of the caller's business.
    UnknownMessage,
    /// The text is empty.
    EmptyText,
    /// The text is larger than allowed.
    TextTooLarge,
    /// The name has the wrong form.
    BadName,
    /// The name means something else.
    ReservedName,
    /// Another peer has the name.
    NameTaken,
    /// A field is too long, too many or otherwise out of bounds.
    OutOfBounds,
    /// Too many messages in the last minute.
    RateLimited,
    /// Too many messages wait for the recipient.
    MailboxFull,
    /// The same text went to the same recipient a moment ago.
    IdenticalText,
    /// Agents went back and forth in this thread long enough without the person.
    ThreadPaused,
    /// The recipient's policy refuses it.
    RefusedByPolicy,
    /// Only the person may do this.
    NotPermitted,
    /// The message was presented, or settled otherwise: it is too late.
    TooLate,
    /// The disk is full: sends are refused, deliveries go on.
    NoSpace,
    /// The broker holds as many connections, peers or requests as it can.
    Overloaded,
    /// The token is not this session's.
    BadToken,
    /// The session does not hold this message.
    NotLeased,
    /// The same idempotency key came with another message.
    IdempotencyConflict,
    /// The broker is stopping.
    Stopping,
    /// No channel or group has this name, or it is none of the caller's business.
    UnknownChannel,
    /// No task has this id.
    UnknownTask,
    /// No note has this key.
    UnknownNote,
    /// The question has its answer already, or its time is over.
    QuestionClosed,
    /// Somebody else holds the task.
    TaskHeld,
    /// The task cannot become that from where it stands.
    BadTransition,
    /// The note has changed since it was read.
    VersionConflict,
    /// The person has paused it.
    Paused,
}

impl ErrorCode {
    /// All codes, in wire order.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The code's name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
