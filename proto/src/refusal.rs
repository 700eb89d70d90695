//! Why the broker refuses a request, and the next step.
//!
//! Knows the codes. Does not know the texts: the broker's wording does. `docs/errors.md` lists
//! every code, and a test compares the two.

use std::fmt;

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

/// A refused request. The connection stays open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The kind of the refusal.
    pub code: ErrorCode,
    /// The attempt, its object and the obstacle: lower case, no full stop.
    pub message: String,
    /// The next step; empty if none is known.
    pub hint: String,
    /// When another attempt makes sense.
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

/// The kinds of refusals. Their numbers on the wire are in this order; a new kind is appended.
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
    /// The request came out of order: `Hello` must be first, and `Register` before acts as a peer.
    OutOfOrder,
    /// No peer has this name or id.
    UnknownPeer,
    /// No message has this id, or the caller may not see it.
    UnknownMessage,
    /// The text is empty.
    EmptyText,
    /// The text is larger than allowed.
    TextTooLarge,
    /// The name has the wrong form.
    BadName,
    /// The name is reserved.
    ReservedName,
    /// Another peer has the name.
    NameTaken,
    /// A field is too long, has too many entries, or is otherwise out of bounds.
    OutOfBounds,
    /// The sender sent too many messages in the last minute.
    RateLimited,
    /// Too many messages wait for the recipient.
    MailboxFull,
    /// The same text was sent to the same recipient a moment ago.
    IdenticalText,
    /// Agents took as many turns in this thread as they may without the person.
    ThreadPaused,
    /// The recipient's policy refuses it.
    RefusedByPolicy,
    /// Only the person may do this.
    NotPermitted,
    /// The message was already presented, or settled otherwise.
    TooLate,
    /// The disk is full: the broker refuses sends, and continues to deliver.
    NoSpace,
    /// The broker has as many connections, peers or requests as it can hold.
    Overloaded,
    /// The token is not this session's.
    BadToken,
    /// The session does not hold this message.
    NotLeased,
    /// The same idempotency key was used for another message.
    IdempotencyConflict,
    /// The broker is stopping.
    Stopping,
    /// No channel or group has this name, or the caller may not see it.
    UnknownChannel,
    /// No task has this id.
    UnknownTask,
    /// No note has this key.
    UnknownNote,
    /// The question has its answer already, or it expired.
    QuestionClosed,
    /// Another peer holds the task.
    TaskHeld,
    /// The task's state does not allow this change.
    BadTransition,
    /// The note has changed since it was read.
    VersionConflict,
    /// The person has paused this sender or thread.
    Paused,
    /// No link has this name.
    UnknownLink,
    /// The two ends of a link are one broker, or not the brokers that they were.
    IdentityConflict,
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
