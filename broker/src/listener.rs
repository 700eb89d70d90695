//! The socket: only this file binds it, accepts from it and removes it.
//!
//! Only the holder of the lock runs this, so a socket file that is in the way is stale. Knows the
//! socket's path and what ends the broker. Does not know who is served: `admission` decides that.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::geteuid;
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::oneshot;

use crate::admission::Admission;
use crate::connection::ConnectionContext;
use crate::shutdown::StopSignals;
use crate::socket_path::{Changes, SocketPath};
use crate::turns::Arrival;

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

/// Serves connections until a signal, the engine or the loss of the socket file ends it. Then
/// waits until the last of them is closed or timed out. Returns the engine's result, or an error if
/// it has none.
///
/// `ready` is called once connections are accepted, `ending` before the socket is removed.
pub(crate) async fn serve<E>(
    socket: Socket,
    shared: ConnectionContext,
    mut engine: oneshot::Receiver<Result<(), E>>,
    ready: impl FnOnce(),
    ending: impl FnOnce(),
) -> Result<Result<(), E>, ServeError> {
    let Socket { listener, socket_path, dir } = socket;
    let mut changes = Changes::watch(&dir);
    let mut signals = StopSignals::take().map_err(ServeError::Signals)?;
    let listener = UnixListener::from_std(listener).map_err(ServeError::Listen)?;
    let shared = Arc::new(shared);
    let mut admission = Admission::new(shared.clone());
    ready();

    let (outcome, cause) = loop {
        if !socket_path.is_kept() {
            break (None, "the loss of the socket file");
        }
        tokio::select! {
            outcome = &mut engine => break (Some(outcome), "the engine"),
            signal = signals.next() => break (None, signal),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => admission.take(stream),
                Err(error) => admission.rest(&error).await,
            },
            () = admission.one_ended() => {}
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
    admission.close(Duration::from_millis(STOP_TIMEOUT_MS)).await;
    if outcome.is_ok() {
        tracing::info!(cause, "broker down");
    }
    Ok(outcome)
}

/// The reason why there is no socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Something else has its name.
    #[error("{} is not a socket of this user", path.display())]
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
            Self::Bind { .. } => {
                "check the directory's file system, or set PEERD_DIR to another".to_owned()
            }
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
            Self::EngineDied => "read broker.log, and start the broker again".to_owned(),
            _ => String::new(),
        }
    }
}
