//! A connection to the broker, for whoever is not the broker.
//!
//! This crate knows the socket, the preface, frames, and how a broker is started where none runs.
//! It knows no MCP, no terminal and no rule of the broker's: requests and pushes pass through it
//! unchanged.
//!
//! - [`connection`]: one connection: requests out, answers and pushes in.
//! - [`reconnect`]: the next connection after a loss.
//! - [`start`]: starting the broker, and with which file.
//! - [`holder`]: who holds the broker's lock, where nobody answers.
//! - [`process`]: what the system says of other processes.
//! - [`whose`]: whose a directory is.

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
    /// Where the broker's files are.
    pub location: Location,
    /// This program, as it was at its start: what starts a broker. Looked up once, because an
    /// update may replace the file while the program runs.
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
    /// The endpoint that the environment names: `PEERD_DIR`, else the default under the home
    /// directory.
    ///
    /// # Errors
    /// Where the environment names no usable directory, or a home directory that is another user's.
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

    /// The file that starts a broker now. It is another one than [`Endpoint::executable`] after an
    /// upgrade that removed that.
    ///
    /// # Errors
    /// [`ConnectError::Executable`] where none is left.
    pub fn program(&self) -> Result<PathBuf, ConnectError> {
        executable::lasting(&self.executable, &executable::Surroundings::from_env())
            .ok_or_else(|| ConnectError::Executable { executable: self.executable.clone() })
    }
}

/// Why there is no connection: what was tried, on what and why it failed. The next step is
/// [`ConnectError::hint`].
#[derive(Debug, Error)]
pub enum ConnectError {
    /// No broker runs, and none may be started.
    #[error("no broker runs behind {}", socket.display())]
    NotRunning {
        /// Its socket would be here.
        socket: PathBuf,
    },
    /// The operating system forbids the connection: a sandbox, as agents' shells have one. A broker
    /// may well run.
    #[error("a sandbox keeps this process from {} ({source})", socket.display())]
    Sandboxed {
        /// What may not be reached.
        socket: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Owners and modes keep this user from the socket: something on the way to it is another
    /// user's, or closed.
    #[error("{} belongs to {} and has mode {mode:04o}, so that {} cannot get to {}", path.display(), whose::user(*owner), whose::user(*ours), socket.display())]
    LockedOut {
        /// What may not be passed.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Its permissions.
        mode: u32,
        /// Who asks.
        ours: u32,
        /// What is behind it.
        socket: PathBuf,
    },
    /// The home directory is another user's: under `sudo`, for example. Nothing is made in it.
    #[error("the home directory {} belongs to {}, and this is {}: nothing is made there", home.display(), whose::user(*owner), whose::user(*ours))]
    ForeignHome {
        /// The home directory.
        home: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        ours: u32,
    },
    /// The socket, its directory or the process behind it belongs to another user.
    #[error("{} belongs to {}, and this is {}: refusing to connect", path.display(), whose::user(*owner), whose::user(*ours))]
    WrongOwner {
        /// What belongs to another.
        path: PathBuf,
        /// To whom.
        owner: u32,
        /// Who asks.
        ours: u32,
    },
    /// Something else stands where the directory or the socket belongs, a symbolic link for
    /// example.
    #[error("{} is no {expected}: refusing to connect", path.display())]
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
        /// Why, by the word of what should have started it.
        message: String,
        /// The next step, by the same word; may be empty.
        hint: String,
    },
    /// The environment names no directory.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// The executable is gone, and nothing took its place.
    #[error("{} is not there, nor is what this program was called by, nor a peerctl on PATH that only you or root could have put there", executable.display())]
    Executable {
        /// What was run at the start of this program.
        executable: PathBuf,
    },
    /// The socket failed.
    #[error("{attempt} {} failed: {source}", socket.display())]
    Io {
        /// What was tried, such as "connecting to".
        attempt: &'static str,
        /// The socket.
        socket: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The broker took the connection and closed it, or said nothing for too long.
    #[error("the broker behind {} {what}", socket.display())]
    NoWelcome {
        /// The socket.
        socket: PathBuf,
        /// What it did instead.
        what: String,
    },
    /// The broker's process is suspended.
    #[error("the broker behind {} is suspended", socket.display())]
    Suspended {
        /// The socket.
        socket: PathBuf,
        /// Its process.
        pid: u32,
    },
    /// The broker refused the connection.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The broker ended the last connection for good: see [`Goodbye::Kicked`] and
    /// [`Goodbye::Replaced`].
    #[error("the broker ended this session ({}) and it must not come back by itself", said(*.0))]
    SentAway(Goodbye),
}

impl ConnectError {
    /// The next step, for whoever types commands; empty where there is none.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::NotRunning { .. } => "start it with `peerctl daemon start`".to_owned(),
            Self::Sandboxed { .. } => {
                "from within an agent's shell use the MCP tools instead".to_owned()
            }
            Self::LockedOut { path, owner, ours, .. } => to_open(path, *owner, *ours),
            Self::ForeignHome { owner, .. } => as_that_user(*owner),
            Self::WrongOwner { path, owner, ours } => to_whom(path, *owner, *ours),
            Self::WrongKind { .. } => {
                "move it away or set PEERD_DIR to another directory".to_owned()
            }
            Self::Preface { source, .. } => source.hint(),
            Self::StartFailed { hint, .. } => hint.clone(),
            Self::Location(error) => error.hint(),
            Self::Executable { .. } => "install peerctl, or call it by an absolute path".to_owned(),
            Self::Io { .. } => "`peerctl daemon status` says whether a broker runs".to_owned(),
            Self::NoWelcome { .. } => "look into broker.log beside it".to_owned(),
            Self::Suspended { pid, .. } => format!("`kill -CONT {pid}` lets it go on"),
            Self::Refused(refusal) => refusal.hint.clone(),
            Self::SentAway(_) => "start the client anew to return".to_owned(),
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

/// The next step where something is another user's. Never one that costs the mail in it.
fn to_whom(path: &Path, owner: u32, ours: u32) -> String {
    match owner {
        0 => to_open(path, owner, ours),
        _ => format!("{}, or set PEERD_DIR to a directory of your own", as_that_user(owner)),
    }
}

/// The next step where a path is closed to us.
fn to_open(path: &Path, owner: u32, ours: u32) -> String {
    let path_text = path.display();
    if owner == ours {
        return format!("`chmod u+rwx '{path_text}'` opens it");
    }
    let in_our_home = whose::home_dir().is_some_and(|home| path.starts_with(&home) && path != home);
    if in_our_home {
        return format!(
            "where it should be yours, `sudo chown -R {ours} '{path_text}'` gives it back with all that is in it"
        );
    }
    format!("{}, or set PEERD_DIR to a directory of your own", as_that_user(owner))
}

fn as_that_user(owner: u32) -> String {
    format!(
        "run it as that user ({}), without sudo where that changed the user",
        whose::user(owner)
    )
}

fn said(goodbye: Goodbye) -> &'static str {
    match goodbye {
        Goodbye::Stopping => "it stops",
        Goodbye::Kicked => "an operator ended it",
        Goodbye::Replaced => "the same session connected again",
        Goodbye::TooSlow => "it read too slowly",
    }
}
