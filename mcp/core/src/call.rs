//! Where a tool call stands in the stream of bytes between the client and this adapter.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where one tool call stands in the stream of bytes.
#[derive(Debug, Default)]
pub struct Call {
    /// Bytes that the output had taken when the call was read.
    written_before: u64,
    /// Where its result ends in the output's stream, once that is queued.
    result_end: OnceLock<u64>,
    /// Its result will never be sent, because the client cancelled the call.
    dropped: AtomicBool,
}

impl Call {
    /// A call read when the output had taken `written_before` bytes.
    pub fn new(written_before: u64) -> Self {
        Self { written_before, ..Self::default() }
    }

    /// Whether `earlier`'s result had left before this call was read. Overlapping calls never follow each other.
    pub fn follows(&self, earlier: &Self) -> bool {
        earlier.result_end.get().is_some_and(|end| *end <= self.written_before)
    }

    /// Whether the result was, or may yet be, sent.
    pub fn counts(&self) -> bool {
        !self.dropped.load(Ordering::Relaxed)
    }

    /// Its result ends at this offset of the output.
    pub fn answered(&self, end: u64) {
        // Only a defective client uses an id twice; the first answer counts then.
        let _ = self.result_end.set(end);
    }

    /// The client wants no result any more.
    pub fn drop_result(&self) {
        self.dropped.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_calls_never_follow_each_other() {
        let first = Call::new(0);
        let overlapping = Call::new(0);
        assert!(!overlapping.follows(&first), "no result yet");
        first.answered(100);
        assert!(!overlapping.follows(&first));
        assert!(!Call::new(99).follows(&first), "its last byte had not left");
        assert!(Call::new(100).follows(&first));
        assert!(!first.follows(&first));
    }
}
