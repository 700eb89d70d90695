//! Tool calls, and the position of each in the byte stream between the client and this adapter.
//!
//! A call is evidence for an earlier result only if it was read after that result had left.
//!
//! Knows ids and positions. Does not know what a tool does.

use std::collections::BTreeMap;

/// Calls without a queued result that are remembered. A client has a few at a time. No message
/// reports when the work on a cancelled call ends.
const CALLS_MAX: usize = 1_024;

/// The id of a tool call of this adapter's client. No two calls have the same id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// The conversation that made a call, and the position of the call.
#[derive(Clone, Debug, Default)]
pub struct CallOrigin {
    /// The call's id.
    pub call: CallId,
    /// Bytes that had left for the client when the call was read.
    pub written_before: u64,
    /// The client's name of the conversation, if the client gives one.
    pub conversation: Option<String>,
    /// Whether a subagent made the call: its results carry no mail.
    pub is_subagent: bool,
}

/// The calls that have no result yet.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    open: BTreeMap<CallId, (CallOrigin, bool)>,
}

impl Calls {
    pub(crate) fn begin(&mut self, caller: CallOrigin) {
        if self.open.len() == CALLS_MAX {
            self.open.pop_first();
        }
        self.open.insert(caller.call, (caller, false));
    }

    /// Returns who made the call, unless the client cancelled it.
    pub(crate) fn caller(&self, call: CallId) -> Option<&CallOrigin> {
        self.open.get(&call).filter(|(_, is_dropped)| !is_dropped).map(|(caller, _)| caller)
    }

    pub(crate) fn drop(&mut self, call: CallId) {
        if let Some((_, is_dropped)) = self.open.get_mut(&call) {
            *is_dropped = true;
        }
    }

    pub(crate) fn end(&mut self, call: CallId) {
        self.open.remove(&call);
    }
}
