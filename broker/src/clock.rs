//! The one place that reads time.
//!
//! Invariant: what it counts in milliseconds never goes backwards. It stops while the machine sleeps, as `Instant` does
//! on Linux (`CLOCK_MONOTONIC`) and macOS (`CLOCK_UPTIME_RAW`).

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use peer_core::input::Now;
use peer_proto::ids::Timestamp;

/// Both clocks of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    /// A clock whose monotonic side starts at zero now.
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// The time on both clocks. A wall clock before 1970 counts as 1970.
    pub(crate) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        Now { wall: Timestamp(wall), mono_ms: self.started.elapsed().as_millis() as u64 }
    }

    /// Microseconds since the start, for measuring how long something took.
    pub(crate) fn mono_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }
}
