//! The socket: only this file binds it, accepts from it and removes it.
//!
//! Only the holder of the lock runs this, so a socket file that is in the way is stale. Invariant:
//! the kernel reports this user's id for every program that is served.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::geteuid;
use peer_core::input::ConnectionId;
use peer_proto::limits::{CONNECTIONS_MAX, OPERATOR_CONNECTIONS};
use thiserror::Error;
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::connection::{self, Place, Shared};
use crate::engine::Arrival;
use crate::shutdown::Signals;
use crate::socket_path::{Changes, SocketPath};

/// Descriptors that are not connections: the store, the log, the runtime's own.
const DESCRIPTORS_RESERVED: u64 = 64;

/// The most connections beyond the limit that get a refusal at the same time. Any more are closed
/// at once. Each takes one of the reserved descriptors until it has read the refusal.
const TURNED_AWAY_MAX: usize = 16;

/// The pause in accepting after the system refused it, so that a lack of descriptors does not
/// become a busy loop.
const ACCEPT_PAUSE_MS: u64 = 1_000;

/// How long all connections together have for their last frames when the broker stops.
const STOP_TIMEOUT_MS: u64 = 2_000;

/// A bound socket, mode 0600, and the path that leads to it.
pub(crate) struct Socket {
    listener: StdListener,
    socket_path: SocketPath,
    dir: PathBuf,
}

impl Socket {
    /// Removes a stale socket at `path` and binds a new one. The caller holds the lock.
    pub(crate) fn bind(path: &Path) -> Result<Self, SocketError> {
        remove_stale(path)?;
        let failed = |source| SocketError::Bind { path: path.into(), source };
        let listener = StdListener::bind(path).map_err(failed)?;
        // Until this line the directory's mode alone keeps others out.
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let found = path.symlink_metadata().map_err(failed)?;
        match found.mode() & 0o777 {
            0o600 if found.file_type().is_socket() => {}
            mode => return Err(SocketError::Mode { path: path.into(), mode }),
        }
        let dir = path.parent().unwrap_or(path).to_path_buf();
        Ok(Self { listener, socket_path: SocketPath::of(path).map_err(failed)?, dir })
    }
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let found = match path.symlink_metadata() {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|source| SocketError::Stale { path: path.into(), source })?,
    };
    if !found.file_type().is_socket() || found.uid() != geteuid().as_raw() {
        return Err(SocketError::NotOurs { path: path.into() });
    }
    std::fs::remove_file(path).map_err(|source| SocketError::Stale { path: path.into(), source })
}

/// Serves connections until a signal, the engine or the loss of the socket's path ends it. Then
/// waits until the last of them is closed or timed out. Returns the engine's result, or an error if
/// it has none.
///
/// `ready` is called once connections are accepted, `ending` before the socket is removed.
pub(crate) async fn serve<E>(
    socket: Socket,
    shared: Shared,
    mut engine: oneshot::Receiver<Result<(), E>>,
    ready: impl FnOnce(),
    ending: impl FnOnce(),
) -> Result<Result<(), E>, ServeError> {
    let Socket { listener, socket_path, dir } = socket;
    let mut changes = Changes::watch(&dir);
    let mut signals = Signals::take().map_err(ServeError::Signals)?;
    let listener = UnixListener::from_std(listener).map_err(ServeError::Listen)?;
    let shared = Arc::new(shared);
    let connections_max = connections_max();
    let for_anybody = connections_max - OPERATOR_CONNECTIONS.min(connections_max / 4);
    let (mut connections, mut turned_away) = (JoinSet::new(), JoinSet::new());
    let mut last_connection = 0;
    // Each problem is logged when it begins, not for each connection that meets it.
    let (mut full, mut failing) = (false, false);
    ready();

    let (outcome, cause) = loop {
        if !socket_path.is_kept() {
            break (None, "the loss of the socket's path");
        }
        tokio::select! {
            outcome = &mut engine => break (Some(outcome), "the engine"),
            signal = signals.next() => break (None, signal),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() >= connections_max => {
                    if !std::mem::replace(&mut full, true)
                        && let Some(unsaid) = shared.warnings.due("full")
                    {
                        let connections = connections.len();
                        tracing::warn!(connections, unsaid, "no room for more connections; turning new ones away");
                    }
                    if turned_away.len() < TURNED_AWAY_MAX && same_user(&stream, &shared).is_some() {
                        let shared = shared.clone();
                        turned_away.spawn(async move { connection::turn_away(stream, connections_max, &shared).await });
                    }
                }
                Ok((stream, _)) => {
                    failing = false;
                    if let Some(them) = same_user(&stream, &shared) {
                        last_connection += 1;
                        let pid = them.pid().and_then(|pid| u32::try_from(pid).ok());
                        let (shared, connection) = (shared.clone(), ConnectionId(last_connection));
                        let place = if connections.len() < for_anybody { Place::Anybodys } else { Place::Operators };
                        connections.spawn(async move { connection::serve(stream, connection, pid, place, &shared).await });
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(cause = %error, "cannot accept connections; trying again after a pause");
                    }
                    tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                }
            },
            Some(_) = connections.join_next() => full &= connections.len() > connections_max / 2,
            Some(_) = turned_away.join_next() => {}
            () = changes.next() => {}
        }
    };

    // No new connections from here on.
    ending();
    if let Err(error) = socket_path.unlink() {
        tracing::warn!(cause = %error, "cannot remove the socket; the next broker will");
    }
    drop(listener);
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => {
            // The engine may have ended by itself just now. Then it has already sent its result.
            let _ = shared.arrivals.push(Arrival::Stop);
            engine.await
        }
    };
    let outcome = outcome.map_err(|_| ServeError::EngineDied)?;
    // The engine has closed them all, and each has its last frames.
    let _ =
        tokio::time::timeout(Duration::from_millis(STOP_TIMEOUT_MS), async { while connections.join_next().await.is_some() {} })
            .await;
    if outcome.is_ok() {
        tracing::info!(cause, "broker down");
    }
    Ok(outcome)
}

/// Returns the credentials of the connected process if it belongs to this user. Another user is
/// logged, and gets no answer.
fn same_user(stream: &UnixStream, shared: &Shared) -> Option<UCred> {
    match stream.peer_cred() {
        Ok(them) if them.uid() == geteuid().as_raw() => Some(them),
        Ok(them) => {
            if let Some(unsaid) = shared.warnings.due("another user") {
                tracing::warn!(uid = them.uid(), pid = them.pid(), unsaid, "refused a connection of another user");
            }
            None
        }
        Err(error) => {
            if let Some(unsaid) = shared.warnings.due("an unknown user") {
                tracing::warn!(cause = %error, unsaid, "refused a connection whose user the kernel does not tell");
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

/// The reason why there is no socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Something else has its name.
    #[error("{} is no socket of this user", path.display())]
    NotOurs {
        /// The socket's path.
        path: PathBuf,
    },
    /// A stale socket cannot be removed.
    #[error("cannot remove the stale socket {}", path.display())]
    Stale {
        /// The socket's path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The socket cannot be bound.
    #[error("cannot bind the socket {}", path.display())]
    Bind {
        /// The socket's path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Its mode is not what was asked for.
    #[error("the socket {} has mode {mode:04o}, and 0600 was set", path.display())]
    Mode {
        /// The socket's path.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

impl SocketError {
    /// The next step. Empty: there is none.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NotOurs { .. } => "move it away".to_owned(),
            Self::Stale { .. } => "remove it by hand".to_owned(),
            Self::Bind { .. } => "check the directory's file system, or set PEERD_DIR to another".to_owned(),
            Self::Mode { .. } => "set PEERD_DIR to a directory on another file system".to_owned(),
        }
    }
}

/// The reason why serving ended by itself.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Signals cannot be taken over.
    #[error("cannot take over SIGTERM, SIGINT and SIGHUP")]
    Signals(#[source] io::Error),
    /// The socket cannot be given to the runtime.
    #[error("cannot wait for connections")]
    Listen(#[source] io::Error),
    /// The engine's thread ended without a result.
    #[error("the engine thread died")]
    EngineDied,
}

impl ServeError {
    /// The next step. Empty: there is none.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::EngineDied => "see broker.log, and start the broker again".to_owned(),
            _ => String::new(),
        }
    }
}
