//! The next connection after a loss.
//!
//! Backs off after failures only: the first attempt, and the first after a connection that held,
//! happen at once. It makes one attempt per call and has no timer between calls, so whoever stops
//! asking stops the attempts.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use peer_proto::request::{Goodbye, Role, Seat, Welcome};

use crate::start::Said;
use crate::{ConnectError, Connection, Endpoint, Pushes, Start};

/// The first pause after a failure, in milliseconds: a broker is back within about this long.
const BACKOFF_MS_MIN: u64 = 20;

/// The longest pause, in milliseconds. Also how long a connection must have held for its end not to
/// count as a failure.
const BACKOFF_MS_MAX: u64 = 2_000;

/// After a broker was stopped on purpose nobody starts it again by himself for this long, in
/// milliseconds: time to replace the executable or to verify the store. Whoever needs it sooner
/// starts it, and the others find it.
const STOP_RESPECTED_MS: u64 = 10_000;

/// After a start of the broker failed nobody starts it again by himself for this long, in
/// milliseconds, doubling with each failure. Each start is several processes, and what makes it
/// fail seldom goes away by itself. Looking whether somebody else started one goes on.
const START_AGAIN_MS_MIN: u64 = 2_000;
const START_AGAIN_MS_MAX: u64 = 120_000;

/// An endpoint and what became of the last attempts to reach it.
pub struct Reconnect {
    endpoint: Endpoint,
    role: Role,
    seat: Option<Seat>,
    failures: u32,
    last: Option<Last>,
    stopped_at: Option<Instant>,
    start_failure: Option<StartFailure>,
}

/// A start of the broker failed.
struct StartFailure {
    /// How often in a row.
    count: u32,
    again_at: Instant,
    said: Said,
}

struct Last {
    opened_at: Instant,
    goodbye: Arc<OnceLock<Goodbye>>,
}

impl Reconnect {
    /// Nothing is tried yet.
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

    /// What `Hello` says from now on of the seat that the environment names.
    pub fn set_seat(&mut self, seat: Option<Seat>) {
        self.seat = seat;
    }

    /// One attempt, after a pause where the attempts before it failed. Safe to drop while it waits.
    ///
    /// # Errors
    /// Of this one attempt; [`ConnectError::is_lasting`] says whether to go on.
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
        // Counted before the attempt: a caller that drops it halfway has not succeeded either.
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

    /// Forgets the pauses: something just happened that needs the broker now, so the next attempt
    /// happens at once and may start it.
    pub fn hurry(&mut self) {
        self.failures = 0;
        self.stopped_at = None;
        if let Some(failure) = &mut self.start_failure {
            failure.again_at = Instant::now();
        }
    }

    /// Remembers a start that failed; where none was tried because the last one failed a moment
    /// ago, says what that said.
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

    /// Draws the conclusions from how the last connection went, once.
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

/// Doubles with each failure up to the longest; between half and all of it, so that many sessions
/// that lost the same broker do not come back in the same instant.
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
