//! Why a command did not do what it was asked, with its exit code and its JSON form.
//!
//! House rule: a text says what was attempted, on what and why; what follows its last "; " is the next step.

use std::io;
use std::path::PathBuf;

use peer_client::{ConnectError, RequestError};
use peer_proto::refusal::ErrorCode;
use serde_json::Value;
use thiserror::Error;

/// Exit code: something failed.
pub(crate) const FAILED: u8 = 1;
/// Exit code: the command line makes no sense.
pub(crate) const USAGE: u8 = 2;
/// Exit code: no broker can be reached.
pub(crate) const UNREACHABLE: u8 = 3;
/// Exit code: no such peer, message or thing.
pub(crate) const NOT_FOUND: u8 = 4;
/// Exit code: timed out waiting.
pub(crate) const TIMED_OUT: u8 = 5;
/// Exit code: refused by policy, rate, quota or authority.
pub(crate) const REFUSED: u8 = 6;
/// Exit code: doctor found problems.
pub(crate) const UNWELL: u8 = 7;
/// What a detached broker exits with where another one has the lock.
pub(crate) const ALREADY_RUNNING: u8 = 75;

/// The exit code for a refusal: what is not there, what the broker may not do, what it does not do now.
pub(crate) fn exit_for(code: ErrorCode) -> u8 {
    match code {
        ErrorCode::UnknownPeer
        | ErrorCode::UnknownMessage
        | ErrorCode::UnknownChannel
        | ErrorCode::UnknownTask
        | ErrorCode::UnknownNote => NOT_FOUND,
        ErrorCode::RateLimited
        | ErrorCode::MailboxFull
        | ErrorCode::IdenticalText
        | ErrorCode::ThreadPaused
        | ErrorCode::RefusedByPolicy
        | ErrorCode::NotPermitted
        | ErrorCode::QuestionClosed
        | ErrorCode::TaskHeld
        | ErrorCode::Paused => REFUSED,
        ErrorCode::Stopping => UNREACHABLE,
        ErrorCode::BadFrame
        | ErrorCode::OutOfOrder
        | ErrorCode::EmptyText
        | ErrorCode::TextTooLarge
        | ErrorCode::BadName
        | ErrorCode::ReservedName
        | ErrorCode::NameTaken
        | ErrorCode::OutOfBounds
        | ErrorCode::TooLate
        | ErrorCode::NoSpace
        | ErrorCode::Overloaded
        | ErrorCode::BadToken
        | ErrorCode::NotLeased
        | ErrorCode::IdempotencyConflict
        | ErrorCode::BadTransition
        | ErrorCode::VersionConflict => FAILED,
    }
}

/// Why a command failed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// There is no connection to the broker.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The broker did not do it.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The command line is well-formed but makes no sense.
    #[error("{0}")]
    Usage(String),
    /// There is no such thing.
    #[error("{message}")]
    NotFound { code: &'static str, message: String },
    /// A client could not be wired up, or is not; the code says which.
    #[error("{message}")]
    Setup { code: &'static str, message: String },
    /// Doctor found problems.
    #[error("{0}")]
    Unwell(String),
    /// It did not happen in time.
    #[error("{0}")]
    TimedOut(String),
    /// It was done in part or not at all, and `data` says how far it came. With `--json` both are one object.
    #[error("{failure}")]
    Partly { data: Value, failure: Box<Failure> },
    /// The broker ended, or closed the connection, while something was watched.
    #[error("the broker ended while it was watched; run the command again")]
    WatchEnded,
    /// A broker runs and nobody can reach it.
    #[error("{0}")]
    Unreachable(String),
    /// Another broker has the lock. Only `daemon start` sees it.
    #[error("{0}")]
    AlreadyRunning(String),
    /// A file could not be read or written.
    #[error("{attempt} {} failed: {source}; check the path and its permissions", path.display())]
    File { attempt: &'static str, path: PathBuf, source: io::Error },
    /// Something else than a file or a broker failed: a process, a signal, a pipe.
    #[error("{attempt} failed: {source}")]
    System { attempt: &'static str, source: io::Error },
    /// Standard output cannot be written to.
    #[error("writing to standard output failed: {0}")]
    Output(io::Error),
    /// The broker could not be started or stopped, or ended with an error.
    #[error("{0}")]
    Broker(String),
    /// `demo`, `bench` or `daemon verify` saw something that must not be.
    #[error("{0}")]
    Wrong(String),
}

impl Failure {
    /// What the process exits with.
    pub(crate) fn exit(&self) -> u8 {
        match self {
            Self::Connect(ConnectError::Refused(refusal)) | Self::Request(RequestError::Refused(refusal)) => {
                exit_for(refusal.code)
            }
            Self::Connect(ConnectError::Location(_) | ConnectError::ForeignHome { .. } | ConnectError::Executable { .. }) => {
                FAILED
            }
            Self::Connect(_) | Self::Request(RequestError::Lost) | Self::WatchEnded | Self::Unreachable(_) => UNREACHABLE,
            Self::Usage(_) => USAGE,
            Self::NotFound { .. } => NOT_FOUND,
            Self::TimedOut(_) => TIMED_OUT,
            Self::Unwell(_) => UNWELL,
            Self::Partly { failure, .. } => failure.exit(),
            Self::AlreadyRunning(_) => ALREADY_RUNNING,
            Self::Setup { .. }
            | Self::Request(_)
            | Self::File { .. }
            | Self::System { .. }
            | Self::Output(_)
            | Self::Broker(_)
            | Self::Wrong(_) => FAILED,
        }
    }

    /// The failure's name for programs; the broker's own code where the broker refused.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Connect(error) => match error {
                ConnectError::NotRunning { .. } => "not_running",
                ConnectError::Sandboxed { .. } => "sandboxed",
                ConnectError::WrongOwner { .. } | ConnectError::WrongKind { .. } => "unsafe_socket",
                ConnectError::Preface { .. } => "version_mismatch",
                ConnectError::StartFailed { .. } => "start_failed",
                ConnectError::LockedOut { .. } => "locked_out",
                ConnectError::Location(_) | ConnectError::ForeignHome { .. } => "no_directory",
                ConnectError::Refused(refusal) => refusal.code.as_str(),
                ConnectError::Executable { .. }
                | ConnectError::Io { .. }
                | ConnectError::NoWelcome { .. }
                | ConnectError::SentAway(_) => "unreachable",
                ConnectError::Suspended { .. } => "suspended",
            },
            Self::Request(RequestError::Refused(refusal)) => refusal.code.as_str(),
            Self::Request(RequestError::Lost) | Self::WatchEnded => "connection_lost",
            Self::Request(RequestError::TooLarge { .. }) => ErrorCode::TextTooLarge.as_str(),
            Self::Request(_) => "unexpected",
            Self::Usage(_) => "usage",
            Self::NotFound { code, .. } | Self::Setup { code, .. } => code,
            Self::TimedOut(_) => "timed_out",
            Self::Unwell(_) => "unwell",
            Self::Partly { failure, .. } => failure.code(),
            Self::Unreachable(_) => "unreachable",
            Self::AlreadyRunning(_) => "already_running",
            Self::File { .. } => "file",
            Self::System { .. } | Self::Output(_) => "system",
            Self::Broker(_) => "broker",
            Self::Wrong(_) => "wrong",
        }
    }

    /// What went wrong, and the next step where there is one.
    pub(crate) fn parts(&self) -> (String, String) {
        if let Self::Partly { failure, .. } = self {
            return failure.parts();
        }
        if let Self::Connect(ConnectError::Refused(refusal)) | Self::Request(RequestError::Refused(refusal)) = self {
            return (refusal.message.clone(), refusal.hint.clone());
        }
        let text = self.to_string();
        match text.rsplit_once("; ") {
            Some((message, hint)) => (message.to_owned(), hint.to_owned()),
            None => (text, String::new()),
        }
    }

    /// How far it came, where there is more to say than the error.
    pub(crate) fn data(&self) -> Option<&Value> {
        match self {
            Self::Partly { data, .. } => Some(data),
            _ => None,
        }
    }

    /// Whether the broker is gone, and a later attempt may find one: it ended, or none runs yet.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(
            self,
            Self::WatchEnded
                | Self::Request(RequestError::Lost)
                | Self::Connect(
                    ConnectError::NotRunning { .. }
                        | ConnectError::NoWelcome { .. }
                        | ConnectError::Io { .. }
                        | ConnectError::SentAway(_)
                )
        )
    }

    /// Whether it is only that nobody reads the output any more.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// What somebody calls a message id is none.
    pub(crate) fn no_such_message(given: &str) -> Self {
        let given = peer_proto::text::single_line(given);
        let message = format!(
            "no message is called {given:?}: a message id is m- and 16 letters or digits; \
             `peerctl history` lists recent ones"
        );
        Self::NotFound { code: ErrorCode::UnknownMessage.as_str(), message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_of_the_errors_says_the_exit_codes() {
        let document = include_str!("../../docs/errors.md");
        let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
        let listed: Vec<(&str, &str)> = rows
            .map(|row| {
                let (code, rest) = row.split_once("` | ").expect("a code has a column of its own");
                (code, rest.split(" | ").next().unwrap_or_default())
            })
            .collect();
        let known = ErrorCode::ALL.map(|code| (code.as_str(), exit_for(code).to_string()));
        let known: Vec<(&str, &str)> = known.iter().map(|(code, exit)| (*code, exit.as_str())).collect();
        assert_eq!(listed, known, "docs/errors.md (left) and the code (right) differ");
    }
}
