//! Detaches from the starter: a session, a working directory and descriptors of our own.
//!
//! The starter reads our stderr until it is closed. An error text before that means that we failed,
//! and no text that we are ready. So stderr stays open until [`drop_stdio`].

use std::fs::File;
use std::os::fd::RawFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{
    Pid, chdir, close, dup2_stderr, dup2_stdin, dup2_stdout, getpid, getsid, setsid,
};
use thiserror::Error;

use crate::inherited;

/// Lists the descriptors of the process that reads it.
const DESCRIPTORS_DIR: &str = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };

/// The first descriptor that is not stdin, stdout or stderr.
const FIRST_INHERITED: RawFd = 3;

/// The most descriptors that are closed one by one where the system does not list the open ones.
const DESCRIPTORS_TRIED_MAX: RawFd = 65_536;

/// Closes inherited descriptors beyond stdio, starts a session, leaves the working directory, and
/// masks all modes for others. Resets the starter's signals, limits and nice value.
///
/// Must come first in the process: a descriptor opened before by this process is closed as well.
pub(crate) fn leave_starter() -> Result<(), DetachError> {
    for descriptor in inherited() {
        // EBADF: the descriptor that listed the directory. Nothing else can be done about the rest
        // either.
        let _ = close(descriptor);
    }
    inherited::heed_signals();
    inherited::raise_limits();
    match setsid() {
        Ok(_) => {}
        // The starter may have made a session already.
        Err(Errno::EPERM) if getsid(None) == Ok(getpid()) => {}
        Err(source) => return Err(DetachError::Session { pid: getpid(), source }),
    }
    chdir("/").map_err(|source| DetachError::Root { source })?;
    umask(Mode::from_bits_truncate(0o077));
    Ok(())
}

/// Closes everything but `kept` and stdio.
pub(crate) fn close_all_but(kept: RawFd) {
    for descriptor in inherited().into_iter().filter(|descriptor| *descriptor != kept) {
        // EBADF: the descriptor that listed the directory.
        let _ = close(descriptor);
    }
}

/// Closes the starter's stdin, stdout and stderr.
pub(crate) fn drop_stdio() -> Result<(), DetachError> {
    let nowhere = Path::new("/dev/null");
    let file = File::options()
        .read(true)
        .write(true)
        .open(nowhere)
        .map_err(|source| DetachError::Nowhere { source })?;
    for redirect in [dup2_stdin::<&File>, dup2_stdout::<&File>, dup2_stderr::<&File>] {
        redirect(&file).map_err(|errno| DetachError::Nowhere { source: errno.into() })?;
    }
    Ok(())
}

/// Returns the descriptors that may be open: those that the system lists. Without `/proc`, all that
/// may have been opened.
fn inherited() -> Vec<RawFd> {
    let listed = std::fs::read_dir(DESCRIPTORS_DIR).map(|entries| {
        let descriptors =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        descriptors.filter(|descriptor| *descriptor >= FIRST_INHERITED).collect()
    });
    listed.unwrap_or_else(|_| {
        let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(DESCRIPTORS_TRIED_MAX, |(soft, _)| {
            RawFd::try_from(soft).unwrap_or(DESCRIPTORS_TRIED_MAX).min(DESCRIPTORS_TRIED_MAX)
        });
        (FIRST_INHERITED..soft).collect()
    })
}

/// The reason why the broker could not detach.
#[derive(Debug, Error)]
pub enum DetachError {
    /// A process group leader cannot start a session.
    #[error("process {pid} cannot start a session of its own")]
    Session {
        /// This process.
        pid: Pid,
        /// The system's reason.
        source: Errno,
    },
    /// `/` cannot be entered.
    #[error("cannot change the working directory to /")]
    Root {
        /// The system's reason.
        source: Errno,
    },
    /// `/dev/null` cannot be put in the place of stdio.
    #[error("cannot use /dev/null as stdin, stdout and stderr")]
    Nowhere {
        /// The system's reason.
        source: std::io::Error,
    },
}

impl DetachError {
    /// The next step. Empty: there is none.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Session { .. } => "start the broker with `peerctl daemon start`".to_owned(),
            _ => String::new(),
        }
    }
}
