//! The errors of the store, and their next steps.
//!
//! Each text states the attempt, its object, and the next step. The reason is the error's source.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use peer_core::input::Stopped;
use peer_core::shared::SharedKey;
use peer_proto::ids::{BrokerId, MessageId, PeerId};
use peer_proto::message::Stage;
use thiserror::Error;

use super::record::RecordError;

/// The item of a record, for errors.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordName {
    /// A peer.
    Peer(PeerId),
    /// A message.
    Message(MessageId),
    /// The delivery of a message to a recipient.
    Delivery(MessageId, PeerId),
    /// The identity that the next new peer gets.
    NextPeer,
    /// The person's settings for all peers.
    Settings,
    /// The person's pauses.
    Pauses,
    /// The totals.
    Kept,
    /// A shared record.
    SharedRecord(SharedKey),
    /// The identity that the next new task gets.
    NextTask,
    /// A link to another broker.
    Link(BrokerId),
    /// This broker's identity on links.
    Broker,
    /// A row of what is due to another broker, under a key that names no delivery.
    Due,
    /// A row under this key, which names no message.
    Key(u128),
    /// The changes of the last commit: the database was found at an earlier one.
    LastCommit,
    /// A page of redb's, at this byte of the file. Records in it may be damaged or missing.
    Page(u64),
}

impl RecordName {
    /// Returns the pending deliveries that cannot be given out without it.
    pub(crate) fn stops(&self) -> Option<Stopped> {
        match self {
            Self::Message(message) => Some(Stopped::Message(*message)),
            Self::Delivery(message, peer) => Some(Stopped::Delivery(*message, *peer)),
            Self::Peer(peer) => Some(Stopped::Peer(*peer)),
            _ => None,
        }
    }

    pub(super) fn unreadable(self, source: RecordError) -> StoreError {
        StoreError::Unreadable { row: self, source }
    }

    pub(super) fn unwritable(self, source: RecordError) -> StoreError {
        StoreError::Unwritable { row: self, source }
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(peer) => write!(f, "peer {peer}"),
            Self::Message(message) => write!(f, "message {message}"),
            Self::Delivery(message, peer) => write!(f, "delivery of {message} to {peer}"),
            Self::Link(broker) => write!(f, "link to {broker}"),
            Self::Broker => f.write_str("this broker's identity"),
            Self::Due => f.write_str("row of what is due on a link"),
            Self::NextPeer => f.write_str("next peer's id"),
            Self::Settings => f.write_str("settings"),
            Self::Pauses => f.write_str("pauses"),
            Self::Kept => f.write_str("size of the retained messages"),
            Self::SharedRecord(SharedKey::Channel(name)) => write!(f, "channel {name:?}"),
            Self::SharedRecord(SharedKey::Question(question)) => write!(f, "question {question}"),
            Self::SharedRecord(SharedKey::Task(task)) => write!(f, "task {task}"),
            Self::SharedRecord(SharedKey::Note(key)) => write!(f, "note {key:?}"),
            Self::NextTask => f.write_str("next task's id"),
            Self::LastCommit => f.write_str("last commit, which is missing"),
            Self::Page(at) => write!(f, "page at byte {at} of the file"),
            Self::Key(number) => write!(f, "row under the key {number:#x}"),
        }
    }
}

/// The reason why a store operation failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database or the disk under it failed.
    #[error("cannot {doing}")]
    Database {
        /// What was attempted.
        doing: &'static str,
        /// The reason.
        #[source]
        source: Box<redb::Error>,
    },
    /// An earlier write failed: the content of the disk is known only after reopening.
    #[error("an earlier write to the database failed, and it was not reopened since")]
    Failed,
    /// A stored record cannot be decoded.
    #[error("cannot read the {row}")]
    Unreadable {
        /// What it is of.
        row: RecordName,
        /// The reason.
        source: RecordError,
    },
    /// A record cannot be stored.
    #[error("cannot store the {row}")]
    Unwritable {
        /// What it is of.
        row: RecordName,
        /// The reason.
        source: RecordError,
    },
    /// A new message has the id of a stored one.
    #[error("cannot store message {message} a second time")]
    MessageExists {
        /// The message.
        message: MessageId,
    },
    /// The change contradicts the stored data: the core and the store differ.
    #[error("the change of the delivery of {message} to {peer}, from {}, contradicts what is stored", stage_name(*.was))]
    Contradiction {
        /// The message.
        message: MessageId,
        /// The recipient.
        peer: PeerId,
        /// The stage that the change replaces.
        was: Option<Stage>,
    },
}

impl StoreError {
    /// The next step. Empty: there is none.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Database { .. } => "check the disk, then start the broker again".to_owned(),
            Self::Unreadable { .. } => "stop the broker and run `peerctl daemon verify`".to_owned(),
            _ => String::new(),
        }
    }
}

impl StoreError {
    /// Whether the disk, or the user's quota of it, was full. Then the store can be reopened once
    /// there is space.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        let Self::Database { source, .. } = self else { return false };
        let redb::Error::Io(error) = &**source else { return false };
        matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

fn stage_name(stage: Option<Stage>) -> &'static str {
    stage.map_or("nothing", Stage::as_str)
}

pub(super) const READ: &str = "read the database";
pub(super) const WRITE: &str = "write to the database";

/// Adds the attempt to an error of redb.
pub(super) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError>;
}

impl<T, E: Into<redb::Error>> Doing<T> for Result<T, E> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::Database { doing, source: Box::new(error.into()) })
    }
}

/// The reason why the database was not opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Written by a newer version.
    #[error(
        "{} has schema {found} (written by peerctl {written_by}), and this is peerctl {software}, which knows schemas up to \
         {known}, so the file was not changed",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
        /// Version and executable that wrote it.
        written_by: String,
        /// The newest schema that this build knows.
        known: u64,
        /// This version and executable.
        software: String,
    },
    /// Its bytes are not what was written.
    #[error("{} is damaged, and was not changed", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        #[source]
        source: Box<redb::Error>,
    },
    /// It does not begin as a redb database does: it is another program's file, or damaged there.
    #[error("{} is not a database of peerd, or its beginning is damaged; it was not changed", path.display())]
    NoDatabase {
        /// The file.
        path: PathBuf,
    },
    /// It is empty: cut off, or created by another program.
    #[error("{} is empty, and a database of peerd never is", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A redb database, but not peerd's.
    #[error("{} is a database of another program", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error("{} is open in another process", path.display())]
    AlreadyOpen {
        /// The file.
        path: PathBuf,
    },
    /// There is no such file; only from [`Store::verify`](super::Store::verify).
    #[error("{} does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A symlink.
    #[error("{} is a symlink, and peerd follows none", path.display())]
    Symlink {
        /// The path.
        path: PathBuf,
    },
    /// A directory, FIFO, socket or device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// It belongs to another user.
    #[error("{} belongs to user {found}, and this is user {expected}", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        found: u32,
        /// This process's user.
        expected: u32,
    },
    /// Other users can open it.
    #[error("{} has mode {mode:04o}, so that other users can read the mail in it", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The copy before a migration could not be made or does not open. Nothing was migrated.
    #[error("cannot copy the database to {} before its migration", path.display())]
    Backup {
        /// The copy.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The copy before a migration differs from the original. Nothing was migrated.
    #[error("the copy of the database at {} has errors, so the database was not migrated", path.display())]
    BackupUnsound {
        /// The copy.
        path: PathBuf,
        /// What was found.
        #[source]
        source: Box<OpenError>,
    },
    /// A migration failed. The database is at schema `from`.
    #[error("cannot migrate {} from schema {from}", path.display())]
    Migration {
        /// The file.
        path: PathBuf,
        /// The schema at which it stays.
        from: u64,
        /// The reason.
        #[source]
        source: Box<StoreError>,
    },
    /// It opens, but cannot be read completely. Only from [`Store::verify`](super::Store::verify).
    #[error("cannot read all of {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: Box<StoreError>,
    },
    /// A new database could not be made.
    #[error("cannot create {}", path.display())]
    Creation {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: Box<StoreError>,
    },
    /// A damaged database could not be replaced by its remains. It is unchanged.
    #[error("{} is damaged, and what is left of it could not be written to a new file", path.display())]
    Salvage {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The system refused.
    #[error("cannot open {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl OpenError {
    /// The next step. Empty: there is none.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Newer { .. } => "install that version of peerctl or a newer one".to_owned(),
            Self::Damaged { .. } | Self::NoDatabase { .. } => {
                "put a good copy in its place, or move it away to start without its mail".to_owned()
            }
            Self::Empty { .. } => {
                "put a copy from the backups directory in its place, or remove it if it had no mail"
                    .to_owned()
            }
            Self::Foreign { .. } => {
                "move it away, or set PEERD_DIR to another directory".to_owned()
            }
            Self::AlreadyOpen { .. } => {
                "stop the broker first with `peerctl daemon stop`".to_owned()
            }
            Self::Missing { .. } => "the broker creates it when it first starts".to_owned(),
            Self::Symlink { .. } => "put the file itself there".to_owned(),
            Self::NotAFile { .. } => "move it away".to_owned(),
            Self::Owner { found, .. } => format!("run it as user {found}"),
            Self::Mode { .. } => "run `chmod 600` on it".to_owned(),
            Self::Backup { .. } => "make room there, then start again".to_owned(),
            Self::Migration { .. } => "a copy from before is in the backups directory".to_owned(),
            Self::Unreadable { .. } => "the file was not changed".to_owned(),
            Self::BackupUnsound { source, .. } => source.hint(),
            Self::Creation { source, .. } => source.hint(),
            Self::Salvage { .. } => "check the disk, then start again".to_owned(),
            Self::Io { .. } => String::new(),
        }
    }
}

impl OpenError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// The file at `path` is damaged, as `found` says.
    pub(super) fn damaged(path: &Path, found: String) -> Self {
        Self::Damaged { path: path.into(), source: Box::new(redb::Error::Corrupted(found)) }
    }

    /// Converts redb's error for the file at `path`.
    pub(super) fn of(path: &Path, error: impl Into<redb::Error>) -> Self {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => Self::AlreadyOpen { path: path.into() },
            redb::Error::Io(source)
                if !matches!(source.kind(), InvalidData | InvalidInput | UnexpectedEof) =>
            {
                Self::io(path, source)
            }
            error => Self::Damaged { path: path.into(), source: Box::new(error) },
        }
    }
}
