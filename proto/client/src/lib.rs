//! A connection to the broker, for whoever is not the broker.
//!
//! This crate knows the socket, the preface, frames, and how a broker is started where none runs. It knows no MCP, no
//! terminal and no rule of the broker's: requests and pushes pass through it unchanged.
//!
//! - [`connection`]: one connection: requests out, answers and pushes in.
//! - [`reconnect`]: the next connection after a loss.
//! - [`start`]: starting the broker.

pub mod connection;
pub mod reconnect;
pub mod start;

mod process;

use std::io;
use std::path::PathBuf;

use peer_proto::handshake::PrefaceError;
use peer_proto::location::{Location, LocationError};
use peer_proto::refusal::Refusal;
use peer_proto::request::Goodbye;
use thiserror::Error;

pub use connection::{Answer, Connection, Pushes, RequestError};
pub use reconnect::Reconnect;

/// How to reach the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where the broker's files are.
    pub location: Location,
    /// This program, as it was at its start: what starts a broker. Looked up once, because an update may replace the file
    /// while the program runs.
    pub executable: PathBuf,
    /// Whether a broker may be started.
    pub start: Start,
}

/// Whether a broker may be started where none runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Start one.
    IfNeeded,
    /// Say that none runs.
    Never,
}

impl Endpoint {
    /// The endpoint that the environment names: `PEERD_DIR`, else the default under the home directory.
    ///
    /// # Errors
    /// Where the environment names no usable directory, or this program cannot tell its own path.
    pub fn from_env(start: Start) -> Result<Self, ConnectError> {
        let peerd_dir = std::env::var_os("PEERD_DIR").map(PathBuf::from);
        let location = Location::resolve(peerd_dir.as_deref(), dirs::home_dir().as_deref())?;
        let executable = std::env::current_exe().map_err(|source| ConnectError::Executable { source })?;
        Ok(Self { location, executable: its_file(executable), start })
    }
}

/// The file that a program was started from, also where it was replaced in the very moment of the start: Linux then says
/// that it is deleted, and the path leads to its successor.
fn its_file(executable: PathBuf) -> PathBuf {
    let replaced = executable.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    replaced.filter(|path| path.exists()).unwrap_or(executable)
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// No broker runs, and none may be started.
    #[error("no broker runs behind {}; start it with `peerctl daemon start`", socket.display())]
    NotRunning {
        /// Its socket would be here.
        socket: PathBuf,
    },
    /// The operating system forbids the connection: a sandbox, as agents' shells have one. A broker may well run.
    #[error("a sandbox keeps this process from {} ({source}); from within an agent's shell use the MCP tools instead", socket.display())]
    Sandboxed {
        /// What may not be reached.
        socket: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The socket, its directory or the process behind it belongs to another user.
    #[error("{} belongs to user {owner}, and this is user {ours}: refusing to connect; remove it or set PEERD_DIR to a directory of your own", path.display())]
    WrongOwner {
        /// What belongs to another.
        path: PathBuf,
        /// To whom.
        owner: u32,
        /// Who asks.
        ours: u32,
    },
    /// Something else stands where the directory or the socket belongs, a symbolic link for example.
    #[error("{} is no {expected}: refusing to connect; remove it or set PEERD_DIR to another directory", path.display())]
    WrongKind {
        /// What was looked at.
        path: PathBuf,
        /// What belongs there.
        expected: &'static str,
    },
    /// The two ends do not speak the same protocol.
    #[error("connecting to {}: {source}", socket.display())]
    Preface {
        /// The socket.
        socket: PathBuf,
        /// Both executables are named here.
        source: PrefaceError,
    },
    /// The broker could not be started.
    #[error("{message}")]
    StartFailed {
        /// What its start printed.
        message: String,
    },
    /// The environment names no directory.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// This program does not know its own path.
    #[error("this program cannot tell where its executable is ({source}); call it by an absolute path")]
    Executable {
        /// What the operating system said.
        source: io::Error,
    },
    /// The socket failed.
    #[error("{attempt} {} failed: {source}; `peerctl daemon status` says whether a broker runs", socket.display())]
    Io {
        /// What was tried, such as "connecting to".
        attempt: &'static str,
        /// The socket.
        socket: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The broker took the connection and closed it, or said nothing for too long.
    #[error("the broker behind {} {what}; look into broker.log beside it", socket.display())]
    NoWelcome {
        /// The socket.
        socket: PathBuf,
        /// What it did instead.
        what: &'static str,
    },
    /// The broker's process is suspended.
    #[error("the broker behind {} is suspended; `kill -CONT {pid}` lets it go on", socket.display())]
    Suspended {
        /// The socket.
        socket: PathBuf,
        /// Its process.
        pid: u32,
    },
    /// The broker refused the connection.
    #[error("{0}")]
    Refused(Refusal),
    /// The broker ended the last connection for good: see [`Goodbye::Kicked`] and [`Goodbye::Replaced`].
    #[error("the broker ended this session ({}) and it must not come back by itself; start the client anew to return", said(*.0))]
    SentAway(Goodbye),
}

impl ConnectError {
    /// Whether another attempt is pointless until a person changes something.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Sandboxed { .. }
            | Self::WrongOwner { .. }
            | Self::WrongKind { .. }
            | Self::Preface { .. }
            | Self::Location(_)
            | Self::Executable { .. }
            | Self::SentAway(_) => true,
            Self::NotRunning { .. }
            | Self::StartFailed { .. }
            | Self::Io { .. }
            | Self::NoWelcome { .. }
            | Self::Suspended { .. }
            | Self::Refused(_) => false,
        }
    }
}

fn said(goodbye: Goodbye) -> &'static str {
    match goodbye {
        Goodbye::Stopping => "it stops",
        Goodbye::Kicked => "an operator ended it",
        Goodbye::Replaced => "the same session connected again",
        Goodbye::TooSlow => "it read too slowly",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_replaced_at_its_start_is_its_successor() {
        let here = std::env::current_exe().expect("a test has a file");
        let deleted = PathBuf::from(format!("{} (deleted)", here.display()));
        assert_eq!(its_file(deleted), here);
        assert_eq!(its_file(here.clone()), here);
        assert_eq!(its_file(PathBuf::from("/gone (deleted)")), PathBuf::from("/gone (deleted)"));
    }
}
