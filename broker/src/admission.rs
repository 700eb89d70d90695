//! Decides which accepted connections are served, which get a refusal, and which are closed at
//! once.
//!
//! Knows how many connections fit, and has a task for each one. Does not know how connections are
//! accepted, nor what is sent on them. Invariants: the kernel reports this user's id for every
//! program that is served; some places are for the operator alone; a problem is logged when it
//! begins, not for each connection that meets it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::geteuid;
use peer_core::input::ConnectionId;
use peer_proto::limits::{CONNECTIONS_MAX, OPERATOR_CONNECTIONS};
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::task::JoinSet;

use crate::connection::{self, ConnectionClass, ConnectionContext};

/// Descriptors that are not connections: the store, the log, the runtime's own.
const DESCRIPTORS_RESERVED: u64 = 64;

/// The most connections beyond the limit that get a refusal at the same time. Any more are closed
/// at once. Each takes one of the reserved descriptors until it has read the refusal.
const TURNED_AWAY_MAX: usize = 16;

/// The pause in accepting after the system refused it, so that a lack of descriptors does not
/// become a busy loop.
const ACCEPT_PAUSE_MS: u64 = 1_000;

/// The connections that there are, and whether there is room for another.
pub(crate) struct Admission {
    shared: Arc<ConnectionContext>,
    connections: JoinSet<()>,
    turned_away: JoinSet<()>,
    connections_max: usize,
    /// Connections beyond these are the operator's.
    for_anybody: usize,
    last_connection: u64,
    /// It was logged that there is no room.
    full: bool,
    /// It was logged that accepting fails.
    failing: bool,
}

impl Admission {
    /// No connections yet, and room for as many as there may be descriptors for.
    pub(crate) fn new(shared: Arc<ConnectionContext>) -> Self {
        let connections_max = connections_max();
        Self {
            shared,
            connections: JoinSet::new(),
            turned_away: JoinSet::new(),
            connections_max,
            for_anybody: connections_max - OPERATOR_CONNECTIONS.min(connections_max / 4),
            last_connection: 0,
            full: false,
            failing: false,
        }
    }

    /// Serves a connection that was accepted, or turns it away.
    pub(crate) fn take(&mut self, stream: UnixStream) {
        if self.connections.len() >= self.connections_max {
            return self.turn_away(stream);
        }
        self.failing = false;
        let Some(them) = same_user(&stream, &self.shared) else { return };
        self.last_connection += 1;
        let pid = them.pid().and_then(|pid| u32::try_from(pid).ok());
        let (shared, connection) = (self.shared.clone(), ConnectionId(self.last_connection));
        let place = if self.connections.len() < self.for_anybody {
            ConnectionClass::Anybodys
        } else {
            ConnectionClass::Operators
        };
        self.connections
            .spawn(async move { connection::serve(stream, connection, pid, place, &shared).await });
    }

    /// Says that there is no room, to as many at a time as there are descriptors for.
    fn turn_away(&mut self, stream: UnixStream) {
        if !std::mem::replace(&mut self.full, true)
            && let Some(unsaid) = self.shared.warnings.due("full")
        {
            let connections = self.connections.len();
            tracing::warn!(
                connections,
                unsaid,
                "the limit of connections is reached; refusing new ones"
            );
        }
        if self.turned_away.len() < TURNED_AWAY_MAX && same_user(&stream, &self.shared).is_some() {
            let (shared, connections_max) = (self.shared.clone(), self.connections_max);
            self.turned_away.spawn(async move {
                connection::turn_away(stream, connections_max, &shared).await
            });
        }
    }

    /// Rests after accepting has failed.
    pub(crate) async fn rest(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(cause = %error, "cannot accept connections; trying again after a pause");
        }
        tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
    }

    /// Returns when a connection has ended; never while there is none. Loses nothing where it is
    /// cancelled.
    pub(crate) async fn one_ended(&mut self) {
        tokio::select! {
            Some(_) = self.connections.join_next() => self.full &= self.connections.len() > self.connections_max / 2,
            Some(_) = self.turned_away.join_next() => {}
            else => std::future::pending().await,
        }
    }

    /// Waits until each connection that is served has ended, or `timeout` is over. What is left is
    /// then cut off.
    pub(crate) async fn close(mut self, timeout: Duration) {
        let _ = tokio::time::timeout(timeout, async {
            while self.connections.join_next().await.is_some() {}
        })
        .await;
    }
}

/// Returns the credentials of the connected process if it belongs to this user. Another user is
/// logged, and gets no answer.
fn same_user(stream: &UnixStream, shared: &ConnectionContext) -> Option<UCred> {
    match stream.peer_cred() {
        Ok(them) if them.uid() == geteuid().as_raw() => Some(them),
        Ok(them) => {
            if let Some(unsaid) = shared.warnings.due("another user") {
                tracing::warn!(
                    uid = them.uid(),
                    pid = them.pid(),
                    unsaid,
                    "refused a connection of another user"
                );
            }
            None
        }
        Err(error) => {
            if let Some(unsaid) = shared.warnings.due("an unknown user") {
                tracing::warn!(cause = %error, unsaid, "refused a connection because the kernel did not name its user");
            }
            None
        }
    }
}

/// Returns how many connections fit: [`CONNECTIONS_MAX`], or as many as the limit of descriptors
/// allows.
fn connections_max() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    let wanted = CONNECTIONS_MAX as u64 + DESCRIPTORS_RESERVED;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return CONNECTIONS_MAX };
    let granted = match soft {
        enough if enough >= wanted => wanted,
        little => match setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard) {
            Ok(()) => wanted.min(hard),
            Err(_) => little,
        },
    };
    granted.saturating_sub(DESCRIPTORS_RESERVED).max(1) as usize
}
