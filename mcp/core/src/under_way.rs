//! The state of pushing: the push that is under way, and the open requests to the adapter.
//!
//! Knows the state only. Does not know the rules, which are in [`pushing`](crate::pushing).
//! Invariant: at most one push is under way.

use std::collections::BTreeSet;

use peer_proto::ids::MessageId;
use peer_proto::message::Carrier;

/// The state of pushing.
#[derive(Debug, Default)]
pub(crate) struct Pushing {
    /// Whether the available carriers were reported at least once.
    pub(crate) knows_ways: bool,
    /// Whether the available carriers were requested and not reported yet.
    pub(crate) is_searching: bool,
    /// Whether an event happened since the last report: carriers that were unable may be able now.
    pub(crate) is_changed: bool,
    /// The push that is under way.
    pub(crate) under_way: Option<UnderWay>,
    /// Carriers that could do nothing since the last event.
    pub(crate) unable: BTreeSet<Carrier>,
    /// The time at which the turn that has begun is certainly under way.
    pub(crate) turn_runs_at: Option<u64>,
}

/// A push that was chosen and has not ended.
#[derive(Debug)]
pub(crate) struct UnderWay {
    pub(crate) carrier: Carrier,
    pub(crate) messages: Vec<MessageId>,
    /// Whether the session was idle when this was chosen: the push wakes it.
    pub(crate) rests: bool,
    /// Whether its bytes were let go.
    pub(crate) left: bool,
}

impl Pushing {
    /// Returns the messages of a push that has not begun to leave: the client has none of them.
    pub(crate) fn held_up(&self) -> &[MessageId] {
        self.under_way
            .as_ref()
            .filter(|under_way| !under_way.left)
            .map_or(&[], |under_way| &under_way.messages)
    }
}
