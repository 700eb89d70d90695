//! What the brakes did: threads that agents used up, and what was refused lately.

use serde::{Deserialize, Serialize};

use crate::ids::Timestamp;
use crate::refusal::ErrorCode;

/// A thread in which agents may not speak: they had all their turns in it without a word of the
/// person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedUpThread {
    /// The thread.
    pub thread: String,
    /// How many turns it had.
    pub turns: u32,
    /// Who spoke in it, by name.
    pub speakers: Vec<String>,
    /// When the first send in it was refused.
    pub since: Timestamp,
}

/// Something that a session or a shell wanted to say, and that a brake or a policy refused. Nothing
/// of it was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedSend {
    /// When.
    pub at: Timestamp,
    /// Who wanted to say it, by name.
    pub from: String,
    /// For whom it was, as it was written; empty where it was no message.
    pub to: String,
    /// The thread that the sender named.
    pub thread: Option<String>,
    /// What kind of no.
    pub code: ErrorCode,
    /// Why, as the sender heard it.
    pub message: String,
    /// How its text began; empty where it was no message.
    pub beginning: String,
}
