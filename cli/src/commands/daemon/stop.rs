//! `peerctl daemon stop`: asks the broker to end, and waits until it has released its lock.
//!
//! A broker cannot be asked if its socket is gone, if it is suspended, or if it has no room for a
//! connection. Then the process that holds the lock gets a signal. Only the person may do that: an
//! agent's shell is refused here, as the broker itself would refuse it.

use std::path::Path;
use std::time::Duration;

use peer_broker::config;
use peer_client::holder::{self, Holder};
use peer_client::{ConnectError, Endpoint};
use peer_proto::location::Phase;
use peer_proto::refusal::ErrorCode;
use peer_proto::request::Request;

use crate::agents;
use crate::error::{Failure, Kind};
use crate::operator::Operator;

/// Milliseconds that a broker may take to end after it was told to: it still writes accepted
/// messages.
const STOP_TIMEOUT_MS: u64 = 10_000;

/// Milliseconds that a broker may take to answer before it gets a signal instead.
const ASK_TIMEOUT_MS: u64 = 5_000;

pub(crate) enum Stopped {
    NoneRan,
    Asked,
    /// The broker could not be asked, and got a signal.
    Signalled {
        pid: u32,
        why: String,
    },
}

/// Stops the broker, if one is running, and waits until it has released its lock.
pub(crate) async fn stop(endpoint: &Endpoint) -> Result<Stopped, Failure> {
    let asked = async {
        let operator = Operator::connect(endpoint).await?;
        match operator.ask_done(Request::Shutdown).await {
            // Another command told it to end before.
            Ok(()) | Err(Failure { kind: Kind::Lost, .. }) => Ok(operator),
            Err(failure) => Err(failure),
        }
    };
    let why = match tokio::time::timeout(Duration::from_millis(ASK_TIMEOUT_MS), asked).await {
        Ok(Ok(operator)) => {
            let ended = async {
                operator.closed().await;
                released(endpoint).await;
            };
            return match tokio::time::timeout(Duration::from_millis(STOP_TIMEOUT_MS), ended).await {
                Ok(()) => Ok(Stopped::Asked),
                Err(_) => {
                    Err(still_there(holder::look(&endpoint.location).and_then(|holder| holder.pid)))
                }
            };
        }
        Ok(Err(failure)) if failure.connect().is_some_and(cannot_be_asked) => failure.message,
        Ok(Err(failure)) => return Err(failure),
        Err(_) => format!("it did not answer within {ASK_TIMEOUT_MS} ms"),
    };
    let Some(holder) = holder::look(&endpoint.location) else { return Ok(Stopped::NoneRan) };
    if holder.phase == Some(Phase::Ending) {
        // It accepts connections until its end, and needs no signal.
        return match tokio::time::timeout(
            Duration::from_millis(STOP_TIMEOUT_MS),
            released(endpoint),
        )
        .await
        {
            Ok(()) => Ok(Stopped::Asked),
            Err(_) => Err(still_there(holder.pid)),
        };
    }
    let Some(pid) = holder.pid else {
        let message = format!("{}, and this system does not report its process id", held(holder));
        return Err(Failure::broker(message)
            .hint(format!("`fuser {}` may show it", endpoint.location.lock().display())));
    };
    may_signal(endpoint, pid)?;
    end(endpoint, pid).await?;
    Ok(Stopped::Signalled { pid, why })
}

/// Whether a broker may be running although no request reaches it.
fn cannot_be_asked(error: &ConnectError) -> bool {
    match error {
        ConnectError::NotRunning { .. }
        | ConnectError::NoWelcome { .. }
        | ConnectError::Suspended { .. }
        | ConnectError::Io { .. } => true,
        // The broker has no room for a connection.
        ConnectError::Refused(refusal) => refusal.code == ErrorCode::Overloaded,
        _ => false,
    }
}

/// Ends a broker that cannot be asked, and waits for its end.
pub(super) async fn end(endpoint: &Endpoint, pid: u32) -> Result<(), Failure> {
    match holder::end(&endpoint.location, pid, Duration::from_millis(STOP_TIMEOUT_MS)).await {
        true => Ok(()),
        false => Err(still_there(Some(pid))),
    }
}

/// Refuses the signal to an agent's shell, as the broker would.
fn may_signal(endpoint: &Endpoint, pid: u32) -> Result<(), Failure> {
    let allowed = config::load(&endpoint.location.config())
        .is_ok_and(|settings| settings.operator.allow_from_agents);
    if allowed || !agents::is_agents_shell() {
        return Ok(());
    }
    let message = format!(
        "an agent's shell may not end the broker (pid {pid}), which also serves other sessions"
    );
    Err(Failure::refused(ErrorCode::NotPermitted, message)
        .hint("ask the person to run it in a terminal of their own"))
}

/// Waits until no process holds the lock, which a broker holds for its life.
async fn released(endpoint: &Endpoint) {
    while holder::look(&endpoint.location).is_some() {
        // The end of a process that is not a child is not announced, so this polls.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn still_there(pid: Option<u32>) -> Failure {
    let kill = pid.map_or_else(
        || "`peerctl daemon status` shows its pid; end it with `kill`".to_owned(),
        |pid| format!("`kill -KILL {pid}` ends it; accepted messages are on disk"),
    );
    Failure::broker(format!(
        "the broker still holds its lock {STOP_TIMEOUT_MS} ms after it was told to stop"
    ))
    .hint(kill)
}

/// Which process holds the lock, in words.
pub(super) fn held(holder: Holder) -> String {
    let process =
        holder.pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    match holder.phase {
        Some(Phase::Starting) => format!("{process} holds the broker's lock and is starting"),
        Some(Phase::Serving) => format!("{process} holds the broker's lock and is serving"),
        Some(Phase::Ending) => format!("{process} holds the broker's lock and is ending"),
        None => format!("{process} holds the broker's lock"),
    }
}

/// The failure of `status` for a broker that has the lock and cannot be reached.
pub(crate) fn unreachable(socket: &Path, holder: Holder) -> Failure {
    let step = match holder.phase {
        Some(Phase::Starting | Phase::Ending) => {
            "wait a moment and try again, or end it with `peerctl daemon stop`"
        }
        Some(Phase::Serving) | None => "`peerctl daemon restart` ends it and starts a new one",
    };
    let message =
        format!("no broker can be reached at {}, although {}", socket.display(), held(holder));
    Failure::unreachable(message).hint(step)
}
