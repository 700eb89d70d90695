//! The failure of a command, with its exit code and its JSON form.
//!
//! Knows the exit codes of all failures. Does not know how a failure is printed. Invariants: a
//! message states the attempt, its object and the obstacle, and the next step is a field of its
//! own. No text is taken apart, so texts of the system and names of files stay whole.

use std::error::Error;
use std::io;
use std::path::Path;

use peer_client::start::{Said, what_helps};
use peer_client::{ConnectError, RequestError};
use peer_proto::refusal::{ErrorCode, Refusal};
use serde::Serialize;
use serde_json::Value;

/// Exit code: something failed.
pub(crate) const FAILED: u8 = 1;
/// Exit code: the arguments do not fit together.
pub(crate) const USAGE: u8 = 2;
/// Exit code: no broker can be reached.
pub(crate) const UNREACHABLE: u8 = 3;
/// Exit code: no such peer, message or shared record.
pub(crate) const NOT_FOUND: u8 = 4;
/// Exit code: a wait timed out.
pub(crate) const TIMED_OUT: u8 = 5;
/// Exit code: refused by a policy, a send limit or a missing right.
pub(crate) const REFUSED: u8 = 6;
/// Exit code: the doctor found problems.
pub(crate) const UNWELL: u8 = 7;
/// Exit code of a detached broker if another broker has the lock.
pub(crate) const ALREADY_RUNNING: u8 = 75;

/// The exit code for a refusal: a missing object, a refused act, or a failure.
pub(crate) fn exit_for(code: ErrorCode) -> u8 {
    match code {
        ErrorCode::UnknownPeer
        | ErrorCode::UnknownMessage
        | ErrorCode::UnknownChannel
        | ErrorCode::UnknownTask
        | ErrorCode::UnknownNote
        | ErrorCode::UnknownLink => NOT_FOUND,
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
        | ErrorCode::VersionConflict
        | ErrorCode::IdentityConflict => FAILED,
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    /// The attempt, its object, and the obstacle.
    pub(crate) message: String,
    /// The next step; empty if none is known.
    pub(crate) hint: String,
    /// The part of the result that the command reached, if any. `--json` prints it in one object
    /// with the error.
    pub(crate) data: Option<Box<Value>>,
}

/// The kind of a failure, which decides the exit code and the name for programs.
#[derive(Debug)]
pub(crate) enum Kind {
    /// No connection to the broker.
    Connect(Box<ConnectError>),
    /// The broker refused the request.
    Refused { code: ErrorCode, retry_after_ms: Option<u64> },
    /// The connection ended before the answer.
    Lost,
    /// The request does not fit into a frame.
    TooLarge,
    /// The broker or this program violates the protocol.
    Unexpected,
    /// The arguments are well-formed but do not fit together.
    Usage,
    /// The object does not exist.
    NotFound(&'static str),
    /// A client could not be set up, or is not set up; the code tells which.
    Setup(&'static str),
    /// Doctor found problems.
    Unwell,
    /// A wait timed out.
    TimedOut,
    /// The broker ended, or closed the connection, during a watch.
    WatchEnded,
    /// A broker is running, but cannot be reached.
    Unreachable,
    /// Another broker has the lock. Only `daemon start` gets this.
    AlreadyRunning,
    /// A file could not be read or written.
    File,
    /// Something other than a file or a broker failed: a process, a signal, a pipe.
    System,
    /// Standard output cannot be written.
    Output(io::ErrorKind),
    /// The broker could not be started or stopped, or ended with an error.
    Broker,
    /// `demo`, `bench` or `daemon verify` found a wrong result.
    Wrong,
}

impl Failure {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: String::new(), data: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound(code), message)
    }

    pub(crate) fn setup(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Setup(code), message)
    }

    pub(crate) fn unwell(message: impl Into<String>) -> Self {
        Self::new(Kind::Unwell, message)
    }

    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self::new(Kind::TimedOut, message)
    }

    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unreachable, message)
    }

    pub(crate) fn broker(message: impl Into<String>) -> Self {
        Self::new(Kind::Broker, message)
    }

    pub(crate) fn wrong(message: impl Into<String>) -> Self {
        Self::new(Kind::Wrong, message)
    }

    pub(crate) fn watch_ended() -> Self {
        Self::new(Kind::WatchEnded, "the broker ended during the command")
            .hint("run the command again")
    }

    /// A refusal by this program itself, as the broker would refuse.
    pub(crate) fn refused(code: ErrorCode, message: impl Into<String>) -> Self {
        Self::new(Kind::Refused { code, retry_after_ms: None }, message)
    }

    pub(crate) fn file(attempt: &str, path: impl AsRef<Path>, source: io::Error) -> Self {
        let message = format!("{attempt} {} failed: {source}", path.as_ref().display());
        Self::new(Kind::File, message).hint("check the path and its permissions")
    }

    pub(crate) fn system(attempt: &str, source: io::Error) -> Self {
        Self::new(Kind::System, format!("{attempt} failed: {source}"))
    }

    pub(crate) fn output(source: io::Error) -> Self {
        Self::new(
            Kind::Output(source.kind()),
            format!("writing to standard output failed: {source}"),
        )
    }

    /// A value that cannot be written as JSON. None of our types should allow one.
    pub(crate) fn unwritable(source: serde_json::Error) -> Self {
        Self::wrong(format!("writing the output as JSON failed: {source}"))
    }

    /// The failure for an error of the broker's crate. The message also has the causes that its own
    /// text does not name. Without a `hint`, the next step is the one against the system's error,
    /// if any.
    pub(crate) fn of_broker(error: &dyn Error, hint: String) -> Self {
        let (mut message, mut hint) = (error.to_string(), hint);
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !message.contains(&cause_text) {
                message = format!("{message}: {cause_text}");
            }
            if hint.is_empty() {
                hint = cause
                    .downcast_ref::<io::Error>()
                    .and_then(helps)
                    .unwrap_or_default()
                    .to_owned();
            }
            source = cause.source();
        }
        Self::broker(message).hint(hint)
    }

    /// The failure that another `peerctl` printed.
    pub(crate) fn said_by_broker(said: Said) -> Self {
        Self::broker(said.message).hint(said.hint)
    }

    /// Sets the next step.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Adds the part of the result that the command reached: an object.
    pub(crate) fn with(mut self, data: impl Serialize) -> Self {
        self.data = serde_json::to_value(data).ok().map(Box::new);
        self
    }

    /// The exit code of the process.
    pub(crate) fn exit(&self) -> u8 {
        match &self.kind {
            Kind::Refused { code, .. } => exit_for(*code),
            Kind::Connect(error) => match &**error {
                ConnectError::Refused(refusal) => exit_for(refusal.code),
                ConnectError::Location(_)
                | ConnectError::ForeignHome { .. }
                | ConnectError::Executable { .. } => FAILED,
                _ => UNREACHABLE,
            },
            Kind::Lost | Kind::WatchEnded | Kind::Unreachable => UNREACHABLE,
            Kind::Usage => USAGE,
            Kind::NotFound(_) => NOT_FOUND,
            Kind::TimedOut => TIMED_OUT,
            Kind::Unwell => UNWELL,
            Kind::AlreadyRunning => ALREADY_RUNNING,
            Kind::Setup(_)
            | Kind::TooLarge
            | Kind::Unexpected
            | Kind::File
            | Kind::System
            | Kind::Output(_)
            | Kind::Broker
            | Kind::Wrong => FAILED,
        }
    }

    /// The failure's name for programs; the broker's own code if the broker refused.
    pub(crate) fn code(&self) -> &'static str {
        match &self.kind {
            Kind::Connect(error) => match &**error {
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
            Kind::Refused { code, .. } => code.as_str(),
            Kind::Lost | Kind::WatchEnded => "connection_lost",
            Kind::TooLarge => ErrorCode::TextTooLarge.as_str(),
            Kind::Unexpected => "unexpected",
            Kind::Usage => "usage",
            Kind::NotFound(code) | Kind::Setup(code) => code,
            Kind::TimedOut => "timed_out",
            Kind::Unwell => "unwell",
            Kind::Unreachable => "unreachable",
            Kind::AlreadyRunning => "already_running",
            Kind::File => "file",
            Kind::System | Kind::Output(_) => "system",
            Kind::Broker => "broker",
            Kind::Wrong => "wrong",
        }
    }

    /// The reason why there is no connection, if that is the failure.
    pub(crate) fn connect(&self) -> Option<&ConnectError> {
        match &self.kind {
            Kind::Connect(error) => Some(error),
            _ => None,
        }
    }

    /// Whether the failure is that no broker is running.
    pub(crate) fn is_not_running(&self) -> bool {
        matches!(self.connect(), Some(ConnectError::NotRunning { .. }))
    }

    /// Whether the broker refused with this code.
    pub(crate) fn is_refused(&self, wanted: ErrorCode) -> bool {
        matches!(&self.kind, Kind::Refused { code, .. } if *code == wanted)
    }

    /// The broker's refusal, if that is the failure.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        let Kind::Refused { code, retry_after_ms } = self.kind else { return None };
        Some(Refusal {
            code,
            message: self.message.clone(),
            hint: self.hint.clone(),
            retry_after_ms,
        })
    }

    /// Whether the broker is gone and a later attempt may find one: it ended, or none is running
    /// yet.
    pub(crate) fn is_lost(&self) -> bool {
        match &self.kind {
            Kind::WatchEnded | Kind::Lost => true,
            Kind::Connect(error) => matches!(
                **error,
                ConnectError::NotRunning { .. }
                    | ConnectError::NoWelcome { .. }
                    | ConnectError::Io { .. }
                    | ConnectError::SentAway(_)
            ),
            _ => false,
        }
    }

    /// Whether the failure is only that nobody reads the output any more.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self.kind, Kind::Output(io::ErrorKind::BrokenPipe))
    }

    /// The failure for a text that is not a message id.
    pub(crate) fn no_such_message(given: &str) -> Self {
        let given = peer_proto::text::single_line(given);
        let message =
            format!("{given:?} is not the id of a message, which is m- and 16 letters or digits");
        Self::not_found(ErrorCode::UnknownMessage.as_str(), message)
            .hint("`peerctl history` lists recent ones")
    }
}

/// The next step against a system's error in the broker, which reads and writes its own files.
fn helps(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Some("check its owner and its mode: this user must be able to read and write it")
        }
        _ => what_helps(error),
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let (message, hint) = (error.to_string(), error.hint());
        Self::new(Kind::Connect(Box::new(error)), message).hint(hint)
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        let (message, hint) = (error.to_string(), error.hint());
        let kind = match error {
            RequestError::Refused(refusal) => {
                Kind::Refused { code: refusal.code, retry_after_ms: refusal.retry_after_ms }
            }
            RequestError::Lost => Kind::Lost,
            RequestError::TooLarge { .. } => Kind::TooLarge,
            RequestError::NotEncodable | RequestError::Unexpected => Kind::Unexpected,
        };
        Self::new(kind, message).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Error as IoError;

    use super::*;

    /// A text with semicolons, as a file's name, a disk or a parser may have one.
    const ODD: &str = "the disk said no; twice; and then it was gone";

    #[test]
    fn what_a_system_says_comes_out_whole() {
        let failure = Failure::file("reading", "/a; b/c", IoError::other(ODD));
        assert_eq!(failure.message, format!("reading /a; b/c failed: {ODD}"));
        assert_eq!(failure.hint, "check the path and its permissions");
        let failure = Failure::system("waiting for the broker", IoError::other(ODD));
        assert_eq!(
            (failure.message, failure.hint),
            (format!("waiting for the broker failed: {ODD}"), String::new())
        );
        let socket = std::path::PathBuf::from("/a; b/broker.sock");
        let failure = Failure::from(ConnectError::Io {
            attempt: "connecting to",
            socket,
            source: IoError::other(ODD),
        });
        assert_eq!(failure.message, format!("connecting to /a; b/broker.sock failed: {ODD}"));
        assert_eq!(failure.hint, "`peerctl daemon status` shows whether a broker is running");
    }

    #[test]
    fn an_error_of_the_broker_is_told_with_what_it_rests_on_and_one_next_step() {
        let error = peer_broker::RunError::Runtime(IoError::other(ODD));
        let failure = Failure::of_broker(&error, error.hint());
        assert_eq!(
            (failure.message, failure.hint),
            (format!("cannot start the broker's threads: {ODD}"), String::new())
        );
        let error = peer_broker::RunError::Runtime(IoError::from_raw_os_error(nix::libc::EMFILE));
        assert!(Failure::of_broker(&error, error.hint()).hint.contains("`ulimit -n`"));
        let error = peer_broker::store::OpenError::Backup {
            path: "/a; b".into(),
            source: IoError::other(ODD),
        };
        let failure = Failure::of_broker(&error, error.hint());
        assert_eq!(
            failure.message,
            format!("cannot copy the database to /a; b before its migration: {ODD}")
        );
        assert_eq!(failure.hint, "make room there, then start again");
    }

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
        let exits: Vec<String> =
            ErrorCode::ALL.iter().map(|code| exit_for(*code).to_string()).collect();
        let known: Vec<(&str, &str)> = ErrorCode::ALL
            .iter()
            .map(|code| code.as_str())
            .zip(exits.iter().map(String::as_str))
            .collect();
        assert_eq!(listed, known, "docs/errors.md (left) and the code (right) differ");
    }
}
