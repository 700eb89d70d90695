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
    /// Starts to wait for a hook's answer. Returns the number of the call.
    pub(crate) fn begin(&mut self, wait: HookWait) -> u64 {
        self.last += 1;
        self.waiting.insert(self.last, wait);
        self.last
    }

    /// Ends the wait of a hook that the adapter answered. Returns `None` if this adapter has no
    /// such call.
    pub(crate) fn answer(&mut self, call: u64, adapter: ConnectionId) -> Option<HookWait> {
        self.waiting.get(&call).filter(|wait| wait.adapter == adapter)?;
        self.waiting.remove(&call)
    }

    /// Removes the calls of a closed connection. Returns the hooks that wait for it, in the order
    /// of their calls.
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
