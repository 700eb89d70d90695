//! Hooks that wait for an adapter's answer. In memory only.
//!
//! Does not know which adapter a hook belongs to. Invariant: a call is answered once.

use std::collections::BTreeMap;

use peer_proto::request::RequestId;

use crate::input::ConnectionId;

/// Hooks that wait for an adapter.
#[derive(Debug, Default)]
pub(crate) struct HookCalls {
    waiting: BTreeMap<u64, HookWait>,
    last: u64,
}

/// A hook, and the adapter that it waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HookWait {
    pub(crate) hook: ConnectionId,
    pub(crate) id: RequestId,
    pub(crate) adapter: ConnectionId,
}

impl HookCalls {
    /// A hook begins to wait. Returns the number of its call.
    pub(crate) fn begin(&mut self, wait: HookWait) -> u64 {
        self.last += 1;
        self.waiting.insert(self.last, wait);
        self.last
    }

    /// The adapter answers: the hook does not wait any more. None where this adapter has no such call.
    pub(crate) fn answer(&mut self, call: u64, adapter: ConnectionId) -> Option<HookWait> {
        self.waiting.get(&call).filter(|wait| wait.adapter == adapter)?;
        self.waiting.remove(&call)
    }

    /// A connection is gone, with its own hooks. Returns those that wait for it, in the order of their calls.
    pub(crate) fn hang_up(&mut self, connection: ConnectionId) -> Vec<HookWait> {
        let mut left = Vec::new();
        self.waiting.retain(|_, wait| {
            if wait.adapter == connection {
                left.push(*wait);
            }
            wait.adapter != connection && wait.hook != connection
        });
        left
    }
}
