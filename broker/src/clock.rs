//! The clocks of the broker. No other file reads time.
//!
//! Invariant: its milliseconds never go backwards. They stop while the machine sleeps, as `Instant`
//! does on Linux (`CLOCK_MONOTONIC`) and macOS (`CLOCK_UPTIME_RAW`). On Linux another clock
//! (`CLOCK_BOOTTIME`) counts the sleep.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use peer_core::input::Now;
use peer_proto::ids::Timestamp;

/// Both clocks of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    /// How long the machine had slept at the start.
    slept_before: Duration,
}

impl Clock {
    /// A clock whose monotonic side starts at zero now.
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), slept_before: slept_since_boot() }
    }

    /// The time on both clocks. A wall clock before 1970 counts as 1970.
    pub(crate) fn now(&self) -> Now {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        let slept = slept_since_boot().saturating_sub(self.slept_before);
        Now {
            wall: Timestamp(wall),
            mono_ms: self.started.elapsed().as_millis() as u64,
            slept_ms: slept.as_millis() as u64,
        }
    }

    /// Microseconds since the start, for measuring how long something took.
    pub(crate) fn mono_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }
}

/// Returns how long the machine has slept since boot. Zero if the system does not report it.
#[cfg(target_os = "linux")]
fn slept_since_boot() -> Duration {
    use nix::time::{ClockId, clock_gettime};

    let read = |clock: ClockId| clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
    let awake = read(ClockId::CLOCK_MONOTONIC);
    // This clock is read after the other one, so the difference is never negative. Some
    // microseconds of it are not sleep.
    read(ClockId::CLOCK_BOOTTIME).saturating_sub(awake)
}

#[cfg(not(target_os = "linux"))]
fn slept_since_boot() -> Duration {
    Duration::ZERO
}
