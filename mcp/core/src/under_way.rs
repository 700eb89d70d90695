//! How far pushing has got: what is being handed over, and what was asked of the hands.
//!
//! Knows no rule: what follows from it stands in [`pushing`](crate::pushing). Invariant: one push is under way at a time.

use std::collections::BTreeSet;

use peer_proto::ids::MessageId;
use peer_proto::message::Carrier;

/// How far pushing has got.
#[derive(Debug, Default)]
pub(crate) struct Pushing {
    /// The hands have told once which ways there are.
    pub(crate) knows_ways: bool,
    /// The hands were asked for the ways, and have not told yet.
    pub(crate) is_looking: bool,
    /// Something happened since the ways were told last: carriers that could do nothing may be able to now.
    pub(crate) is_changed: bool,
    /// What is being handed over.
    pub(crate) under_way: Option<UnderWay>,
    /// Carriers that could do nothing since something happened last.
    pub(crate) unable: BTreeSet<Carrier>,
    /// When the turn that has begun is sure to be under way.
    pub(crate) turn_runs_at: Option<u64>,
}

/// A push that was chosen and is not over.
#[derive(Debug)]
pub(crate) struct UnderWay {
    pub(crate) carrier: Carrier,
    pub(crate) messages: Vec<MessageId>,
    /// The session rested when this was chosen: it is woken by it.
    pub(crate) rests: bool,
    /// Its bytes were let go.
    pub(crate) left: bool,
}

impl Pushing {
    /// What was chosen for a carrier and has not begun to leave: the client has nothing of it.
    pub(crate) fn held_up(&self) -> &[MessageId] {
        self.under_way.as_ref().filter(|under_way| !under_way.left).map_or(&[], |under_way| &under_way.messages)
    }
}
