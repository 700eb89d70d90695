//! The broker's log: one file, one line per event, read by people and by `grep`.
//!
//! Field names are fixed: `connection`, `peer`, `message`, `cause`, `uid`, `pid`, `elapsed_us`,
//! `unsaid`. Levels: `info` is the broker's own life (one line up, one line down), `warn` what an
//! operator may act on, `error` that the broker stops, `debug` each change and each effect by its
//! kind. Invariant: neither texts nor tokens are ever logged.
//!
//! The log belongs to the broker's two threads and not to the process. So several brokers in one
//! process (tests) have separate logs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::libc;
use peer_core::step::{Change, Effect};
use thiserror::Error;
use tracing::Dispatch;
use tracing_subscriber::EnvFilter;

/// A log larger than this is renamed at its next line. Two of them are retained.
const LOG_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// The time between two warnings of one kind.
const WARNINGS_APART: Duration = Duration::from_secs(60);

/// The environment variable with a filter in `tracing`'s own syntax.
const FILTER_VARIABLE: &str = "PEERD_LOG";

/// Opens the log, for [`tracing::dispatcher::set_default`] on each thread.
pub(crate) fn open(path: &Path) -> Result<Dispatch, LogError> {
    let file = LogFile::open(path)?;
    let wanted = std::env::var(FILTER_VARIABLE).unwrap_or_default();
    let (filter, mistake) =
        match EnvFilter::try_new(if wanted.is_empty() { "info" } else { &wanted }) {
            Ok(filter) => (filter, None),
            Err(mistake) => (EnvFilter::new("info"), Some(mistake)),
        };
    // If the disk has no room for a line, the line must not go to stderr instead: the starter would
    // report it as the reason of a failed start.
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .log_internal_errors(false);
    let log = Dispatch::new(lines.with_writer(Mutex::new(file)).finish());
    if let Some(mistake) = mistake {
        tracing::dispatcher::with_default(&log, || {
            tracing::warn!(cause = %mistake, "{FILTER_VARIABLE} is not a valid filter; logging at level info");
        });
    }
    Ok(log)
}

/// The log's file. It is checked before each line: a file that has grown too large is renamed, and
/// one that was removed or moved is created again. So the log stays bounded even if a broker runs
/// for months.
struct LogFile {
    path: PathBuf,
    file: File,
    /// Device and inode of the file.
    identity: (u64, u64),
}

impl LogFile {
    fn open(path: &Path) -> Result<Self, LogError> {
        if path.symlink_metadata().is_ok_and(|found| found.is_file() && found.len() > LOG_BYTES_MAX)
        {
            let aside = path.with_extension("log.1");
            std::fs::rename(path, &aside)
                .map_err(|source| LogError::SetAside { path: path.into(), source })?;
        }
        let failed = |source| LogError::Open { path: path.into(), source };
        // Opening a pipe without a reader would block.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(flags)
            .open(path)
            .map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        if !found.is_file() {
            return Err(failed(io::Error::other("it is not a regular file")));
        }
        Ok(Self { path: path.into(), file, identity: (found.dev(), found.ino()) })
    }

    /// Whether the path still leads to the file, and the file has room.
    fn is_fit(&self) -> bool {
        self.path.symlink_metadata().is_ok_and(|found| {
            (found.dev(), found.ino()) == self.identity && found.len() <= LOG_BYTES_MAX
        })
    }
}

impl Write for LogFile {
    /// Writes one line of the formatter. If no file can be opened, the line is lost: an unbounded
    /// log, or one on stderr, would be worse.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !self.is_fit() {
            *self = Self::open(&self.path).map_err(io::Error::other)?;
        }
        self.file.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Warnings that any program can cause as often as it likes. One per minute and kind is logged,
/// with the number of suppressed ones.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    /// When each kind was logged last, and how many were suppressed since.
    kinds: Mutex<BTreeMap<&'static str, (Instant, u64)>>,
}

impl Throttle {
    /// Returns the number suppressed since the last one, if a warning of this kind is due. `None`:
    /// it is suppressed and counted.
    pub(crate) fn due(&self, kind: &'static str) -> Option<u64> {
        self.due_at(kind, Instant::now())
    }

    fn due_at(&self, kind: &'static str, now: Instant) -> Option<u64> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        match kinds.get_mut(kind) {
            Some((last, unsaid)) if now.saturating_duration_since(*last) < WARNINGS_APART => {
                *unsaid += 1;
                None
            }
            Some((last, unsaid)) => {
                *last = now;
                Some(std::mem::take(unsaid))
            }
            None => {
                kinds.insert(kind, (now, 0));
                Some(0)
            }
        }
    }
}

/// From now on a panic anywhere in the process is logged, because a detached broker has no stderr.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(
        |panic| tracing::error!(cause = %panic, "broker down: an invariant is broken"),
    ));
}

/// The reason why there is no log.
#[derive(Debug, Error)]
pub enum LogError {
    /// The file cannot be opened for appending.
    #[error("cannot open the log {} for appending", path.display())]
    Open {
        /// The log.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A large log cannot be set aside.
    #[error("cannot rename the log {}, which has grown beyond {LOG_BYTES_MAX} bytes", path.display())]
    SetAside {
        /// The log.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl LogError {
    /// The next step. Empty: there is none.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Open { .. } => {
                "if it is not a regular file of this user, move it away".to_owned()
            }
            Self::SetAside { .. } => "move it away".to_owned(),
        }
    }
}

/// Logs a change, in one line for debugging.
pub(crate) fn log_change(change: &Change) {
    match change {
        Change::PutMessage(record) => {
            tracing::debug!(message = %record.head.id, peer = %record.head.from.peer, "put_message");
        }
        Change::PutDelivery { record, was } => {
            let (stage, was) = (record.stage.as_str(), was.map(|was| was.as_str()));
            tracing::debug!(message = %record.message, peer = %record.peer, stage, was, "put_delivery");
        }
        Change::RemoveDelivery { message, peer, .. } => {
            tracing::debug!(%message, %peer, "remove_delivery")
        }
        Change::PutPeer(record) => {
            tracing::debug!(peer = %record.id, name = record.name, "put_peer")
        }
        Change::RemovePeer(peer) => tracing::debug!(%peer, "remove_peer"),
        Change::PutIdempotencyKey { sender, message, .. } => {
            tracing::debug!(peer = %sender, %message, "put_idempotency_key")
        }
        Change::PutNextPeer(peer) => tracing::debug!(%peer, "put_next_peer"),
        Change::PutSettings(_) => tracing::debug!("put_settings"),
        Change::PutPauses(_) => tracing::debug!("put_pauses"),
        Change::PutKept(_) => tracing::debug!("put_kept"),
        Change::PutShared(shared) => tracing::debug!(key = ?shared.key(), "put_thing"),
        Change::RemoveShared(key) => tracing::debug!(?key, "remove_thing"),
        Change::PutNextTask(task) => tracing::debug!(%task, "put_next_task"),
        Change::PutBroker(broker) => tracing::debug!(%broker, "put_broker"),
        Change::PutLink(link) => tracing::debug!(broker = %link.broker, "put_link"),
        Change::RemoveLink(broker) => tracing::debug!(%broker, "remove_link"),
        Change::PutReceipt { key, rev } => {
            tracing::debug!(message = %key.message, peer = %key.peer, rev, "put_receipt");
        }
        Change::RemoveReceipt(key) => {
            tracing::debug!(message = %key.message, peer = %key.peer, "remove_receipt");
        }
        Change::PutWithdrawn { message, .. } => tracing::debug!(%message, "put_withdrawn"),
        Change::RemoveWithdrawn { message, .. } => tracing::debug!(%message, "remove_withdrawn"),
        Change::RemoveMessage(message) => tracing::debug!(%message, "remove_message"),
    }
}

/// Logs an effect, in one line for debugging.
pub(crate) fn log_effect(effect: &Effect) {
    match effect {
        Effect::Reply { connection, id, result: Ok(_) } => {
            tracing::debug!(connection = connection.0, id, "reply")
        }
        Effect::Reply { connection, id, result: Err(refusal) } => {
            tracing::debug!(connection = connection.0, id, cause = %refusal.code, "refuse");
        }
        Effect::Welcome { connection, id, .. } => {
            tracing::debug!(connection = connection.0, id, "welcome")
        }
        Effect::Query { connection, id, .. } => {
            tracing::debug!(connection = connection.0, id, "query")
        }
        Effect::Search { connection, id, .. } => {
            tracing::debug!(connection = connection.0, id, "search")
        }
        Effect::Deliver { connection, message, .. } => {
            tracing::debug!(connection = connection.0, %message, "deliver")
        }
        Effect::Forward { connection, message, .. } => {
            tracing::debug!(connection = connection.0, %message, "forward");
        }
        Effect::Push { connection, .. } => tracing::debug!(connection = connection.0, "push"),
        Effect::Close { connection } => tracing::debug!(connection = connection.0, "close"),
        Effect::Stop => tracing::debug!("stop"),
    }
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
    fn a_log_that_grows_too_large_is_set_aside_while_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("broker.log"), dir.path().join("broker.log.1"));
        let log = open(&path).unwrap();
        let say = |text: &str| tracing::dispatcher::with_default(&log, || tracing::info!("{text}"));
        for (round, line) in ["one", "two", "three"].into_iter().enumerate() {
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(LOG_BYTES_MAX + 1 + round as u64)
                .unwrap();
            say(line);
            assert!(std::fs::read_to_string(&path).unwrap().ends_with(&format!("{line}\n")));
            assert!(path.metadata().unwrap().len() < 200, "it begins anew");
            assert_eq!(
                aside.metadata().unwrap().len(),
                LOG_BYTES_MAX + 1 + round as u64,
                "one earlier log is kept"
            );
        }
    }

    #[test]
    fn a_log_that_was_removed_or_moved_away_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.log");
        let log = open(&path).unwrap();
        let say = |text: &str| tracing::dispatcher::with_default(&log, || tracing::info!("{text}"));
        std::fs::remove_file(&path).unwrap();
        say("after the removal");
        assert!(std::fs::read_to_string(&path).unwrap().contains("after the removal"));
        std::fs::rename(&path, dir.path().join("mine.log")).unwrap();
        say("after the move");
        assert!(std::fs::read_to_string(&path).unwrap().contains("after the move"));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        // The obstacle stays as it is, and nothing is written through it.
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        say("into the link");
        assert!(!dir.path().join("elsewhere").exists());
        std::fs::remove_file(&path).unwrap();
        say("and on");
        assert!(std::fs::read_to_string(&path).unwrap().contains("and on"));
    }

    #[test]
    fn of_many_warnings_of_one_kind_one_a_minute_is_said_with_how_many_were_not() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(throttle.due_at("frame", at(0)), Some(0));
        assert_eq!(throttle.due_at("silent", at(1)), Some(0), "another kind is none of this");
        for _ in 0..200 {
            assert_eq!(throttle.due_at("frame", at(59)), None);
        }
        assert_eq!(throttle.due_at("frame", at(60)), Some(200));
        assert_eq!(throttle.due_at("frame", at(61)), None);
    }

    #[test]
    fn a_symbolic_link_or_a_pipe_is_no_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.log");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(open(&path), Err(LogError::Open { .. })));
        let _reader =
            File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        assert!(matches!(open(&path), Err(LogError::Open { .. })), "somebody reads it");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
        assert!(matches!(open(&path), Err(LogError::Open { .. })));
        assert!(!dir.path().join("elsewhere").exists());
    }
}
