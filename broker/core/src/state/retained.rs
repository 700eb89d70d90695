//! The totals of the store, the time of the next retention pass, and the passes under way.
//!
//! Does not know what a pass deletes. Invariant: the first pass of the queue is the one under way.

use std::collections::VecDeque;

use peer_proto::ids::{MessageId, Timestamp};

use crate::retention::Tally;
use crate::who::Caller;

/// The totals, and the passes.
#[derive(Debug, Default)]
pub(crate) struct Retaining {
    /// Of all messages.
    pub(crate) text_bytes: u64,
    /// The time of the next pass without a request.
    pub(crate) due_at: Option<Timestamp>,
    /// No such pass begins before this time.
    pub(crate) rests_until: Timestamp,
    /// The passes, of which the first is under way.
    pub(crate) passes: VecDeque<Pass>,
}

impl Retaining {
    pub(crate) fn bring_forward(&mut self, at: Timestamp) {
        self.due_at = Some(self.due_at.map_or(at, |due_at| due_at.min(at)));
    }
}

/// One walk through the stored messages, from the oldest on.
#[derive(Debug, Default)]
pub(crate) struct Pass {
    /// The request that waits for it.
    pub(crate) asked_by: Option<Caller>,
    pub(crate) dry_run: bool,
    pub(crate) after: Option<MessageId>,
    pub(crate) tally: Tally,
    /// The number of messages to make room for, if the limit is exceeded.
    pub(crate) messages_max: Option<u64>,
    pub(crate) bytes_max: Option<u64>,
    /// The time at which the first of the messages that stay is due.
    pub(crate) due_at: Option<Timestamp>,
}

impl Pass {
    pub(crate) fn bring_forward(&mut self, at: Timestamp) {
        self.due_at = Some(self.due_at.map_or(at, |due_at| due_at.min(at)));
    }
}
