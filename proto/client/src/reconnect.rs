//! The next connection after a loss.
//!
//! Knows the outcome of the last attempts. Does not know what the connection is for. It backs off
//! only after failures: the first attempt, and the first one after a stable connection, happen at
//! once. Invariant: one attempt per call, and no timer between calls. So the attempts stop when the
//! caller stops asking.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use peer_proto::request::{Goodbye, Role, Seat, Welcome};

use crate::start::Said;
use crate::{ConnectError, Connection, Endpoint, Pushes, Start};

/// The first pause after a failure, in milliseconds: a broker usually returns within this time.
const BACKOFF_MS_MIN: u64 = 20;

/// The longest pause, in milliseconds. A connection that held this long does not count as a failure
/// when it ends.
const BACKOFF_MS_MAX: u64 = 2_000;

/// Milliseconds during which no session starts a broker again that was stopped on purpose. A person
/// may replace the executable or verify the store in that time. A command that needs the broker
/// earlier starts it.
const STOP_RESPECTED_MS: u64 = 10_000;

/// Milliseconds after a failed start before the next automatic one; they double with each failure.
/// A start takes several processes, and the cause of a failure rarely disappears by itself.
/// Connecting to a broker that another program started goes on.
const START_AGAIN_MS_MIN: u64 = 2_000;
const START_AGAIN_MS_MAX: u64 = 120_000;

/// An endpoint, and the outcome of the last attempts to reach it.
pub struct Reconnect {
    endpoint: Endpoint,
    role: Role,
    seat: Option<Seat>,
    failures: u32,
    last: Option<Last>,
    stopped_at: Option<Instant>,
    start_failure: Option<StartFailure>,
}

/// A failed start of the broker.
struct StartFailure {
    /// The number of failures in a row.
    count: u32,
    again_at: Instant,
    said: Said,
}

struct Last {
    opened_at: Instant,
    goodbye: Arc<OnceLock<Goodbye>>,
}

impl Reconnect {
    /// Nothing was tried yet.
    #[must_use]
    pub fn new(endpoint: Endpoint, role: Role) -> Self {
        Self {
            endpoint,
            role,
            seat: None,
            failures: 0,
            last: None,
            stopped_at: None,
            start_failure: None,
        }
    }

    /// Sets the seat that `Hello` names from now on.
    pub fn set_seat(&mut self, seat: Option<Seat>) {
        self.seat = seat;
    }

    /// Makes one attempt, after a pause if the attempts before failed. It may be dropped while it
    /// waits.
    ///
    /// # Errors
    /// The error of this attempt; [`ConnectError::is_lasting`] tells whether to go on.
    /// [`ConnectError::SentAway`] once the broker has ended the session for good.
    pub async fn next(&mut self) -> Result<(Connection, Pushes, Welcome), ConnectError> {
        self.look_back()?;
        if self.failures > 0 {
            tokio::time::sleep(pause(self.failures)).await;
        }
        let respected = Duration::from_millis(STOP_RESPECTED_MS);
        let failed =
            self.start_failure.as_ref().filter(|failure| Instant::now() < failure.again_at);
        let failed = failed.map(|failure| failure.said.clone());
        let start = match self.stopped_at {
            Some(stopped_at) if stopped_at.elapsed() < respected => Start::Never,
            _ if failed.is_some() => Start::Never,
            _ => self.endpoint.start,
        };
        let endpoint = Endpoint { start, ..self.endpoint.clone() };
        // Counted before the attempt, because an attempt that the caller drops is not a success
        // either.
        self.failures = self.failures.saturating_add(1);
        let (connection, pushes, welcome) =
            Connection::open(&endpoint, self.role, self.seat.clone())
                .await
                .map_err(|error| self.start_failed(error, failed))?;
        self.start_failure = None;
        self.last = Some(Last { opened_at: Instant::now(), goodbye: connection.goodbye_slot() });
        self.stopped_at = None;
        Ok((connection, pushes, welcome))
    }

    /// Removes the pauses, because the broker is needed now: the next attempt happens at once and
    /// may start the broker.
    pub fn hurry(&mut self) {
        self.failures = 0;
        self.stopped_at = None;
        if let Some(failure) = &mut self.start_failure {
            failure.again_at = Instant::now();
        }
    }

    /// Records a failed start. If no start was tried because the last one failed recently, returns
    /// that failure.
    fn start_failed(&mut self, error: ConnectError, failed_before: Option<Said>) -> ConnectError {
        match (error, failed_before) {
            (ConnectError::StartFailed { message, hint }, _) => {
                let count = self
                    .start_failure
                    .as_ref()
                    .map_or(1, |failure| failure.count.saturating_add(1));
                let again_ms = START_AGAIN_MS_MIN
                    .saturating_mul(1 << (count - 1).min(16))
                    .min(START_AGAIN_MS_MAX);
                let again_at = Instant::now() + Duration::from_millis(again_ms);
                let said = Said { message: message.clone(), hint: hint.clone() };
                self.start_failure = Some(StartFailure { count, again_at, said });
                ConnectError::StartFailed { message, hint }
            }
            (ConnectError::NotRunning { .. }, Some(Said { message, hint })) => {
                ConnectError::StartFailed { message, hint }
            }
            (error, _) => error,
        }
    }

    /// Evaluates the end of the last connection, once.
    fn look_back(&mut self) -> Result<(), ConnectError> {
        let Some(last) = &self.last else { return Ok(()) };
        match last.goodbye.get() {
            Some(goodbye @ (Goodbye::Kicked | Goodbye::Replaced)) => {
                return Err(ConnectError::SentAway(*goodbye));
            }
            Some(Goodbye::Stopping) => self.stopped_at = Some(Instant::now()),
            Some(Goodbye::TooSlow) | None => {}
        }
        if last.opened_at.elapsed() >= Duration::from_millis(BACKOFF_MS_MAX) {
            self.failures = 0;
        }
        self.last = None;
        Ok(())
    }
}

/// The pause: it doubles with each failure up to the longest. It is between half and all of that,
/// so that many sessions do not return in the same instant.
fn pause(failures: u32) -> Duration {
    let full_us =
        1_000 * BACKOFF_MS_MIN.saturating_mul(1 << (failures - 1).min(16)).min(BACKOFF_MS_MAX);
    // Jitter needs no good randomness, only different values in different processes.
    let nanos = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |now| u64::from(now.subsec_nanos()));
    let drawn =
        nanos.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(u64::from(std::process::id())) >> 16;
    Duration::from_micros(full_us / 2 + drawn % (full_us / 2))
}
