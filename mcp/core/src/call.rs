//! Tool calls, and where each stands in the stream of bytes between the client and this adapter.
//!
//! A call is evidence for an earlier result only if it was read after that result had left.

use std::collections::BTreeMap;

/// Calls whose results were not queued that are remembered. A client has a few at a time; of what it cancelled nobody says
/// when the work on it ends.
const CALLS_MAX: usize = 1_024;

/// Names a tool call of this adapter's client. No two calls have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// Which conversation made a call, and where the call stands.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The call.
    pub call: CallId,
    /// Bytes that had left for the client when the call was read.
    pub written_before: u64,
    /// The client's name of the conversation, where it gives one.
    pub conversation: Option<String>,
    /// A subagent made the call: no mail rides on it.
    pub is_subagent: bool,
}

/// The calls that have no result yet.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    open: BTreeMap<CallId, (Caller, bool)>,
}

impl Calls {
    pub(crate) fn begin(&mut self, caller: Caller) {
        if self.open.len() == CALLS_MAX {
            self.open.pop_first();
        }
        self.open.insert(caller.call, (caller, false));
    }

    /// Who made the call, unless the client wants no result of it any more.
    pub(crate) fn caller(&self, call: CallId) -> Option<&Caller> {
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
