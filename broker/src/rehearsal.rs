//! Tests whether a broker could start here, with everything that it would need, and without
//! becoming one.
//!
//! It runs in a process of its own, because the sandbox cannot be undone. The files that it makes
//! have names that no broker uses, and are removed again.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::chdir;
use peer_proto::location::Location;
use thiserror::Error;

use crate::store::Store;
use crate::{RunError, detach, inherited, sandbox, state_dir};

/// Tries everything that a start needs: the directory and its files, a lock, a socket and a store
/// in it, threads, and optionally the sandbox. An existing store is opened for reading. Call it
/// while no broker runs, in a process that does nothing else: it detaches from its starter, and
/// stays confined.
///
/// # Errors
/// The error that a broker would end with.
pub fn rehearse(location: &Location, with_sandbox: bool) -> Result<(), RunError> {
    inherited::heed_signals();
    detach::leave_starter()?;
    let place = state_dir::place_of(location.dir())?;
    for file in [location.lock(), location.log(), location.database()] {
        can_be_written(&file)?;
    }
    let scratch = Scratch::make(&place)?;
    scratch.try_files()?;
    // A new store is larger than many limits permit, and needs everything from a file system that
    // redb does.
    drop(Store::open(&scratch.dir.join("peers.redb"), &scratch.dir.join("backups"))?);
    drop(scratch);
    if location.database().exists() {
        drop(Store::open_for_reading(&location.database())?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    let thread = std::thread::Builder::new()
        .name("engine".into())
        .spawn(|| {})
        .map_err(RunError::Runtime)?;
    if with_sandbox {
        sandbox::apply()?;
    }
    drop(runtime);
    // An empty thread cannot panic.
    let _ = thread.join();
    Ok(())
}

/// Checks that an existing file can be written by a broker.
fn can_be_written(path: &Path) -> Result<(), RehearsalError> {
    // Opening a pipe without a reader would block.
    let opened =
        File::options().append(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let failed = |source| RehearsalError::Open { path: path.into(), source };
    match opened.and_then(|file| file.metadata()) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(failed(io::Error::other("it is not a regular file"))),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// A directory for the test. Dropping it removes it.
struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    fn make(place: &Path) -> Result<Self, RehearsalError> {
        let dir = place.join(format!(".peerd-rehearsal-{}", std::process::id()));
        let made = DirBuilder::new().mode(0o700).create(&dir);
        made.map_err(|source| RehearsalError::Make { place: place.into(), source })?;
        Ok(Self { dir })
    }

    fn try_files(&self) -> Result<(), RehearsalError> {
        let place = || self.dir.parent().unwrap_or(&self.dir).to_path_buf();
        let file = File::create_new(self.dir.join("file"))
            .map_err(|source| RehearsalError::Make { place: place(), source })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(RehearsalError::Lock { place: place(), source: None });
            }
            Err(fs::TryLockError::Error(source)) => {
                return Err(RehearsalError::Lock { place: place(), source: Some(source) });
            }
        }
        // Use a short path: this directory's name is longer than the socket's.
        let listened = chdir(&self.dir).map_err(io::Error::from).and_then(|()| {
            let listener = UnixListener::bind("s")?;
            UnixStream::connect("s")?;
            listener.accept().map(drop)
        });
        let _ = chdir("/");
        listened.map_err(|source| RehearsalError::Listen { place: place(), source })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It is of no use, and harmless if only half removed.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The reason why a broker would fail here.
#[derive(Debug, Error)]
pub enum RehearsalError {
    /// A file that is there cannot be opened for writing.
    #[error("cannot open {} for writing", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Nothing can be made.
    #[error("cannot create a file in {}", place.display())]
    Make {
        /// The state directory, or what there is of its path.
        place: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Files cannot be locked.
    #[error("cannot lock a file in {}", place.display())]
    Lock {
        /// Where.
        place: PathBuf,
        /// The system's reason, where it gave one.
        source: Option<io::Error>,
    },
    /// No socket can be made.
    #[error("cannot listen on a socket in {}", place.display())]
    Listen {
        /// Where.
        place: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl RehearsalError {
    /// The next step. Empty: there is none.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Open { .. } => {
                "if it is not a regular file of this user, move it away".to_owned()
            }
            Self::Make { .. } => {
                "make that directory writable, or set PEERD_DIR to another".to_owned()
            }
            Self::Lock { .. } | Self::Listen { .. } => {
                "set PEERD_DIR to a directory on a local file system".to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_is_removed_again() {
        let dir = tempfile::tempdir().unwrap();
        Scratch::make(dir.path()).unwrap().try_files().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("broker.log");
        assert!(can_be_written(&log).is_ok(), "one that is missing can be made");
        nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(can_be_written(&log).unwrap_err().to_string().contains("broker.log"));
        fs::remove_file(&log).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &log).unwrap();
        assert!(can_be_written(&log).is_err());
    }
}
