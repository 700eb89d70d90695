//! Recent refused sends, oldest first. In memory only.
//!
//! Does not know who may see them. Invariant: their number is bounded.

use std::collections::VecDeque;

use peer_proto::brake::RefusedSend;
use peer_proto::ids::PeerId;
use peer_proto::limits::REFUSALS_KEPT_MAX;
use peer_proto::message::Via;

/// Recent refused sends, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Refusals(VecDeque<RecordedRefusal>);

/// A refused send, and its sender.
#[derive(Debug)]
pub(crate) struct RecordedRefusal {
    pub(crate) by: PeerId,
    pub(crate) via: Via,
    pub(crate) send: RefusedSend,
}

impl Refusals {
    /// Adds one more. The oldest one is dropped if there are too many.
    pub(crate) fn push(&mut self, refused: RecordedRefusal) {
        if self.0.len() >= REFUSALS_KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(refused);
    }

    /// The newest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &RecordedRefusal> {
        self.0.iter().rev()
    }
}
