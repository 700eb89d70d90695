//! How much is stored, when the next pass of retention is due, and the passes under way.
//!
//! Does not know what a pass deletes. Invariant: the first pass of the queue is the one under way.

use std::collections::VecDeque;

use peer_proto::ids::{MessageId, Timestamp};

use crate::retention::Tally;
use crate::who::Caller;

/// How much there is, and the passes.
#[derive(Debug, Default)]
pub(crate) struct Retaining {
    /// Of all messages.
    pub(crate) text_bytes: u64,
    /// When the next pass that nobody asks for is due.
    pub(crate) due_at: Option<Timestamp>,
    /// None before this.
    pub(crate) rests_until: Timestamp,
    /// Passes under way, the first one now.
    pub(crate) passes: VecDeque<Pass>,
}

impl Retaining {
    pub(crate) fn bring_forward(&mut self, at: Timestamp) {
        self.due_at = Some(self.due_at.map_or(at, |due_at| due_at.min(at)));
    }
}

/// One walk through what is stored, from the oldest on.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    /// Who waits for it.
    pub(crate) asked_by: Option<Caller>,
    pub(crate) dry_run: bool,
    pub(crate) after: Option<MessageId>,
    pub(crate) tally: Tally,
    /// What it makes room for, where there is too much.
    pub(crate) messages_max: Option<u64>,
    pub(crate) bytes_max: Option<u64>,
    /// When the first of what was left is due.
    pub(crate) due_at: Option<Timestamp>,
}

impl Pass {
    pub(crate) fn bring_forward(&mut self, at: Timestamp) {
        self.due_at = Some(self.due_at.map_or(at, |due_at| due_at.min(at)));
    }
}
