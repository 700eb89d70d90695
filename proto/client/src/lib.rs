//! The connection to the broker, for all programs except the broker.
//!
//! Knows the socket, the preface, frames, and how a broker is started. Does not know MCP,
//! terminals, or the broker's rules: requests and pushes pass unchanged.
//!
//! - [`connection`]: one connection: requests, replies and pushes.
//! - [`reconnect`]: the next connection after a loss.
//! - [`start`]: starts the broker.
//! - [`holder`]: finds the process that holds the broker's lock.
//! - [`process`]: the system's data about other processes.
//! - [`whose`]: the owners of paths.

pub mod connection;
pub mod holder;
pub mod process;
pub mod reconnect;
pub mod start;
pub mod whose;

mod executable;

use std::io;
use std::path::{Path, PathBuf};

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
    /// The paths of the broker's files.
    pub location: Location,
    /// This program's file at its start, which starts a broker. It is found once, because an update
    /// may replace the file while the program runs.
    pub executable: PathBuf,
    /// Whether a broker may be started.
    pub start: Start,
}

/// Whether a broker may be started if none is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Start one.
    IfNeeded,
    /// Fail if none is running.
    Never,
}

impl Endpoint {
    /// The endpoint that the environment names: `PEERD_DIR`, else the default under the home
    /// directory.
    ///
    /// # Errors
    /// The environment names no usable directory, or the home directory belongs to another user.
    pub fn from_env(start: Start) -> Result<Self, ConnectError> {
        let peerd_dir =
            std::env::var_os("PEERD_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        if peerd_dir.is_none()
            && let Some((home, owner)) = whose::foreign_home()
        {
            return Err(ConnectError::ForeignHome {
                home,
                owner,
                ours: nix::unistd::geteuid().as_raw(),
            });
        }
        let location = Location::resolve(peerd_dir.as_deref(), whose::home_dir().as_deref())?;
        Ok(Self { location, executable: executable::of_this_program(), start })
    }

    /// The file that starts a broker now. It differs from [`Endpoint::executable`] after an upgrade
    /// that removed that file.
    ///
    /// # Errors
    /// [`ConnectError::Executable`] if no such file is left.
    pub fn program(&self) -> Result<PathBuf, ConnectError> {
        executable::lasting(&self.executable, &executable::Surroundings::from_env())
            .ok_or_else(|| ConnectError::Executable { executable: self.executable.clone() })
    }
}

/// Why there is no connection: the attempt, its object and the obstacle. The next step is
/// [`ConnectError::hint`].
#[derive(Debug, Error)]
pub enum ConnectError {
    /// No broker is running, and none may be started.
    #[error("no broker is running at {}", socket.display())]
    NotRunning {
        /// The path of its socket.
        socket: PathBuf,
    },
    /// The operating system forbids the connection, as in the sandbox of an agent's shell. A broker
    /// may be running.
    #[error("a sandbox keeps this process from {} ({source})", socket.display())]
    Sandboxed {
        /// The socket that may not be used.
        socket: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Owners and modes keep this user from the socket: a path on the way belongs to another user,
    /// or is closed.
    #[error("{} belongs to {} and has mode {mode:04o}, so {} cannot reach {}", path.display(), whose::user(*owner), whose::user(*ours), socket.display())]
    LockedOut {
        /// The path that may not be entered or used.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
        /// Its mode.
        mode: u32,
        /// The id of this user.
        ours: u32,
        /// The socket that it leads to.
        socket: PathBuf,
    },
    /// The home directory belongs to another user, for example under `sudo`. Nothing is created in
    /// it.
    #[error("the home directory {} belongs to {}, and this is {}: peerctl creates nothing there", home.display(), whose::user(*owner), whose::user(*ours))]
    ForeignHome {
        /// The home directory.
        home: PathBuf,
        /// The user id of its owner.
        owner: u32,
        /// The id of this user.
        ours: u32,
    },
    /// The socket, its directory or the process behind it belongs to another user.
    #[error("{} belongs to {}, and this is {}: refusing to connect", path.display(), whose::user(*owner), whose::user(*ours))]
    WrongOwner {
        /// The path that belongs to another user.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
        /// The id of this user.
        ours: u32,
    },
    /// The directory or the socket is of another kind, for example a symbolic link.
    #[error("{} is not a {expected}: refusing to connect", path.display())]
    WrongKind {
        /// The path of the wrong kind.
        path: PathBuf,
        /// The expected kind.
        expected: &'static str,
    },
    /// The two ends have no common protocol version.
    #[error("connecting to {}: {source}", socket.display())]
    Preface {
        /// The socket.
        socket: PathBuf,
        /// The reason; it names both executables.
        source: PrefaceError,
    },
    /// The broker could not be started.
    #[error("{message}")]
    StartFailed {
        /// The reason, as the starting program reported it.
        message: String,
        /// The next step, from the same program; may be empty.
        hint: String,
    },
    /// The environment names no usable directory.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// The executable was removed, and no successor was found.
    #[error("{} does not exist any more; neither the path of the call nor PATH leads to a peerctl that only you or root could have put there", executable.display())]
    Executable {
        /// The file of this program at its start.
        executable: PathBuf,
    },
    /// The socket failed.
    #[error("{attempt} {} failed: {source}", socket.display())]
    Io {
        /// The attempt, such as "connecting to".
        attempt: &'static str,
        /// The socket.
        socket: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The broker closed the new connection, or did not answer in time.
    #[error("the broker at {} {what}", socket.display())]
    NoWelcome {
        /// The socket.
        socket: PathBuf,
        /// Its behaviour instead of an answer.
        what: String,
    },
    /// The broker's process is suspended.
    #[error("the broker at {} is suspended", socket.display())]
    Suspended {
        /// The socket.
        socket: PathBuf,
        /// The broker's process id.
        pid: u32,
    },
    /// The broker refused the connection.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The broker ended the last connection for good: see [`Goodbye::Kicked`] and
    /// [`Goodbye::Replaced`].
    #[error("the broker ended this session ({}), and it must not reconnect by itself", said(*.0))]
    SentAway(Goodbye),
}

impl ConnectError {
    /// The next step, for a person who types commands; empty if none is known.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NotRunning { .. } => "start it with `peerctl daemon start`".to_owned(),
            Self::Sandboxed { .. } => "in an agent's shell, use the MCP tools instead".to_owned(),
            Self::LockedOut { path, owner, ours, .. } => to_open(path, *owner, *ours),
            Self::ForeignHome { owner, .. } => as_that_user(*owner),
            Self::WrongOwner { path, owner, ours } => to_whom(path, *owner, *ours),
            Self::WrongKind { .. } => {
                "move it away, or set PEERD_DIR to another directory".to_owned()
            }
            Self::Preface { source, .. } => source.hint(),
            Self::StartFailed { hint, .. } => hint.clone(),
            Self::Location(error) => error.hint(),
            Self::Executable { .. } => "install peerctl, or call it by an absolute path".to_owned(),
            Self::Io { .. } => {
                "`peerctl daemon status` shows whether a broker is running".to_owned()
            }
            Self::NoWelcome { .. } => "read broker.log beside it".to_owned(),
            Self::Suspended { pid, .. } => format!("`kill -CONT {pid}` resumes it"),
            Self::Refused(refusal) => refusal.hint.clone(),
            Self::SentAway(_) => "restart the client to reconnect".to_owned(),
        }
    }

    /// The error as a model reads it. It names no command: the model asks its user in plain words.
    #[must_use]
    pub fn for_model(&self) -> String {
        match (self, self.request_to_user()) {
            // The broker has worded it for its actor.
            (Self::Refused(refusal), _) => refusal.to_string(),
            (_, step) if step.is_empty() => self.to_string(),
            (_, step) => format!("{self}; tell your user to {step}"),
        }
    }

    /// What a model asks its user to do, as an infinitive. Empty: nothing is known to help.
    fn request_to_user(&self) -> String {
        match self {
            Self::NotRunning { .. } => "start the broker".to_owned(),
            Self::Sandboxed { .. } => {
                "start this MCP server outside of the client's sandbox, or to allow it that path"
                    .to_owned()
            }
            Self::LockedOut { ours, .. } => format!(
                "give {} access to it, or to set PEERD_DIR to a directory of their own",
                whose::user(*ours)
            ),
            Self::ForeignHome { owner, .. } => {
                format!("run the client as {}", whose::user(*owner))
            }
            Self::WrongOwner { owner, .. } => format!(
                "run the client as {}, or to set PEERD_DIR to a directory of their own",
                whose::user(*owner)
            ),
            Self::WrongKind { .. } => {
                "move it away, or to set PEERD_DIR to another directory".to_owned()
            }
            Self::Preface { source: PrefaceError::NoCommonVersion { .. }, .. } => {
                "install one version of peerctl, and to restart the broker".to_owned()
            }
            // The hint is for a person and may name commands. The terminal shows it.
            Self::StartFailed { .. } => {
                "start the broker in a terminal, which shows what to fix".to_owned()
            }
            Self::Location(error) => error.hint(),
            Self::Executable { .. } => {
                "install peerctl, or to give the client its absolute path".to_owned()
            }
            Self::Io { .. } => "check that the broker runs".to_owned(),
            Self::NoWelcome { .. } => "restart the broker".to_owned(),
            Self::Suspended { pid, .. } => format!("resume its process, {pid}"),
            Self::SentAway(_) => "restart the client".to_owned(),
            Self::Preface { .. } | Self::Refused(_) => String::new(),
        }
    }

    /// Whether another attempt is pointless until a person changes something.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Sandboxed { .. }
            | Self::LockedOut { .. }
            | Self::ForeignHome { .. }
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

/// The next step for a path of another user. It never costs the mail in that path.
fn to_whom(path: &Path, owner: u32, ours: u32) -> String {
    match owner {
        0 => to_open(path, owner, ours),
        _ => format!("{}, or set PEERD_DIR to a directory of your own", as_that_user(owner)),
    }
}

/// The next step for a path that is closed to this user.
fn to_open(path: &Path, owner: u32, ours: u32) -> String {
    let path_text = path.display();
    if owner == ours {
        return format!("`chmod u+rwx '{path_text}'` gives you access");
    }
    let in_our_home = whose::home_dir().is_some_and(|home| path.starts_with(&home) && path != home);
    if in_our_home {
        return format!(
            "if it should be yours, `sudo chown -R {ours} '{path_text}'` gives it back to you with all its files"
        );
    }
    format!("{}, or set PEERD_DIR to a directory of your own", as_that_user(owner))
}

fn as_that_user(owner: u32) -> String {
    format!("run it as that user ({}), without sudo if that changed the user", whose::user(owner))
}

fn said(goodbye: Goodbye) -> &'static str {
    match goodbye {
        Goodbye::Stopping => "the broker is stopping",
        Goodbye::Kicked => "an operator ended it",
        Goodbye::Replaced => "the same session connected again",
        Goodbye::TooSlow => "it read too slowly",
    }
}
