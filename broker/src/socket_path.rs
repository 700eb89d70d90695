//! Checks that the socket's path still leads to this broker. A broker that no program can reach
//! must give up the lock.
//!
//! On Linux the directory is watched, and a change is noticed at once. Without a watch, as on macOS
//! or when all inotify instances are in use, the path is checked once a minute. If a parent
//! directory was moved, the next closed connection triggers the check.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a lost socket may go unnoticed without a watch, in milliseconds. This is the only
/// wake-up of an idle broker, and only on such systems.
const LOOK_MS: u64 = 60_000;

/// A bound socket and the path that must lead to it.
#[derive(Debug)]
pub(crate) struct SocketPath {
    socket: PathBuf,
    identity: (u64, u64),
}

impl SocketPath {
    /// Records which socket is at the path now.
    pub(crate) fn of(socket: &Path) -> io::Result<Self> {
        let found = socket.symlink_metadata()?;
        Ok(Self { socket: socket.into(), identity: (found.dev(), found.ino()) })
    }

    /// Whether the path still leads to that socket.
    pub(crate) fn is_kept(&self) -> bool {
        self.socket.symlink_metadata().is_ok_and(|found| {
            found.file_type().is_socket() && (found.dev(), found.ino()) == self.identity
        })
    }

    /// Removes the socket, if the path still leads to it.
    pub(crate) fn unlink(&self) -> io::Result<()> {
        if self.is_kept() { std::fs::remove_file(&self.socket) } else { Ok(()) }
    }
}

/// Signals possible changes in a directory.
#[cfg(target_os = "linux")]
pub(crate) struct Changes {
    /// An inotify descriptor is read like a pipe, and tokio has no other safe way to wait for one.
    events: Option<tokio::net::unix::pipe::Receiver>,
}

#[cfg(target_os = "linux")]
impl Changes {
    /// Watches `dir` from now on. Signals nothing if the system has no watch left. Needs a tokio
    /// runtime.
    pub(crate) fn watch(dir: &Path) -> Self {
        let events = Self::events(dir).inspect_err(|error| {
            tracing::warn!(cause = %error, "cannot watch the directory (fs.inotify limits); checking once a minute whether the socket is still there");
        });
        Self { events: events.ok() }
    }

    fn events(dir: &Path) -> io::Result<tokio::net::unix::pipe::Receiver> {
        use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let coming_and_going =
            AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE;
        inotify.add_watch(
            dir,
            coming_and_going | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF,
        )?;
        tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(inotify.into())
    }

    /// Returns after a change, or when the path must be checked. The caller finds out what changed.
    pub(crate) async fn next(&mut self) {
        use tokio::io::AsyncReadExt;

        let Some(events) = &mut self.events else {
            return tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        };
        let mut changes = [0; 4096];
        if let Err(error) = events.read(&mut changes).await {
            tracing::warn!(cause = %error, "the directory's watch failed; checking once a minute whether the socket is still there");
            self.events = None;
        }
    }
}

/// This system has no watch.
#[cfg(not(target_os = "linux"))]
pub(crate) struct Changes;

#[cfg(not(target_os = "linux"))]
impl Changes {
    /// Watches nothing.
    pub(crate) fn watch(_dir: &Path) -> Self {
        Self
    }

    /// Returns when the path must be checked.
    pub(crate) async fn next(&mut self) {
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await
    }
}
