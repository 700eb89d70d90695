//! The broker's log: one file, one line per event, read by people and by `grep`.
//!
//! Field names are fixed: `connection`, `peer`, `message`, `cause`, `uid`, `pid`, `elapsed_us`. Levels: `info` is the
//! broker's own life (one line up, one line down), `warn` what an operator may act on, `error` that the broker stops,
//! `debug` each change and each effect by its kind. Invariant: neither texts nor tokens are ever logged.
//!
//! The log belongs to the broker's two threads and not to the process, so that several brokers in one process (tests)
//! keep their logs apart.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use thiserror::Error;
use tracing::Dispatch;
use tracing_subscriber::EnvFilter;

/// A log larger than this is set aside at the next start; two of them are kept.
const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// Names a filter in `tracing`'s own syntax.
const FILTER_VARIABLE: &str = "PEERD_LOG";

/// Opens the log, for [`tracing::dispatcher::set_default`] on each thread.
pub(crate) fn open(path: &Path) -> Result<Dispatch, LogError> {
    if path.symlink_metadata().is_ok_and(|found| found.len() > LOG_BYTES_MAX) {
        let aside = path.with_extension("log.1");
        std::fs::rename(path, &aside).map_err(|source| LogError::SetAside { path: path.into(), source })?;
    }
    let file = File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .map_err(|source| LogError::Open { path: path.into(), source })?;
    let wanted = std::env::var(FILTER_VARIABLE).unwrap_or_default();
    let (filter, mistake) = match EnvFilter::try_new(if wanted.is_empty() { "info" } else { &wanted }) {
        Ok(filter) => (filter, None),
        Err(mistake) => (EnvFilter::new("info"), Some(mistake)),
    };
    // A line that does not fit on the disk must not go to stderr instead: the starter would take it for why we failed.
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).log_internal_errors(false);
    let log = Dispatch::new(lines.with_writer(file).finish());
    if let Some(mistake) = mistake {
        tracing::dispatcher::with_default(&log, || {
            tracing::warn!(cause = %mistake, "{FILTER_VARIABLE} is no filter; logging at level info");
        });
    }
    Ok(log)
}

/// From now on a broken invariant anywhere in the process says so in the log: a detached broker has no stderr to say it to.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| tracing::error!(cause = %panic, "broker down: an invariant is broken")));
}

/// Why there is no log.
#[derive(Debug, Error)]
pub enum LogError {
    /// The file cannot be opened for appending.
    #[error("cannot open the log {} for appending; it must be a regular file of this user, else move it away", path.display())]
    Open {
        /// The log.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A large log cannot be set aside.
    #[error("cannot rename the log {}, which has grown beyond {LOG_BYTES_MAX} bytes; move it away", path.display())]
    SetAside {
        /// The log.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_log_is_private_and_a_large_one_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.log");
        File::create(&path).unwrap().set_len(LOG_BYTES_MAX + 1).unwrap();
        let log = open(&path).unwrap();
        tracing::dispatcher::with_default(&log, || tracing::info!(peer = "p-2", "hello"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("INFO") && text.contains("hello peer=\"p-2\""), "{text}");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(dir.path().join("broker.log.1").metadata().unwrap().len(), LOG_BYTES_MAX + 1);
    }

    #[test]
    fn a_symbolic_link_is_no_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.log");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        assert!(matches!(open(&path), Err(LogError::Open { .. })));
        assert!(!dir.path().join("elsewhere").exists());
    }
}
