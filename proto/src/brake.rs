//! The outcomes of the send limits: threads whose turns are used up, and refused sends.
//!
//! Knows the values on the wire. Does not know the limits themselves.

use serde::{Deserialize, Serialize};

use crate::ids::Timestamp;
use crate::refusal::ErrorCode;

/// A thread in which agents may not send: they used all their turns without a message from the
/// person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedUpThread {
    /// The thread.
    pub thread: String,
    /// The number of turns.
    pub turns: u32,
    /// The names of the agents that sent in it.
    pub speakers: Vec<String>,
    /// When a send in it was first refused.
    pub since: Timestamp,
}

/// A send of a session or a shell that a send limit or a policy refused. Nothing of it was stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedSend {
    /// When it was refused.
    pub at: Timestamp,
    /// The sender's name.
    pub from: String,
    /// The recipients, as the sender gave them; empty if it was not a message.
    pub to: String,
    /// The thread that the sender named.
    pub thread: Option<String>,
    /// The kind of the refusal.
    pub code: ErrorCode,
    /// The reason, as the sender got it.
    pub message: String,
    /// The beginning of its text; empty if it was not a message.
    pub beginning: String,
}
