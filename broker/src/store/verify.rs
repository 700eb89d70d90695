//! Checks a database that no broker has open, for `peerctl daemon verify`.
//!
//! Knows the invariants between the tables. Changes nothing on the disk.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use peer_core::record::{
    DeliveryRecord, KeptRecord, LinkRecord, MessageRecord, PausesRecord, PeerRecord, SettingsRecord,
};
use peer_core::shared::{
    ChannelRecord, NoteRecord, QuestionRecord, SharedKey, SharedRecord, TaskRecord,
};
use peer_proto::ids::{BrokerId, MessageId, PeerId, TaskId};
use redb::{
    Database, Key, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition,
};
use serde::de::DeserializeOwned;

use super::error::{Doing, OpenError, READ, RecordName, StoreError};
use super::file::Access;
use super::witness::{self, Head};
use super::{
    CHECKED_AT_OPEN_BYTES_MAX, SCHEMA_VERSION, file, links, migrate, open_checked, record, salvage,
    schema, shared,
};

/// Problems that a report names. More are only counted.
const PROBLEMS_NAMED_MAX: usize = 100;

/// The contents of a database, and its problems.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Its schema.
    pub schema: u64,
    /// The size of the file.
    pub file_bytes: u64,
    /// Whether the last broker closed it. Otherwise it was killed.
    pub closed_cleanly: bool,
    /// Retained peers.
    pub peers: u64,
    /// Messages.
    pub messages: u64,
    /// Pending deliveries: stored, offered, held.
    pub pending: u64,
    /// Dead letters.
    pub dead: u64,
    /// Expired deliveries.
    pub expired: u64,
    /// Settled deliveries.
    pub settled: u64,
    /// Idempotency keys.
    pub idempotency_keys: u64,
    /// Channels and groups.
    pub channels: u64,
    /// Questions.
    pub questions: u64,
    /// Tasks.
    pub tasks: u64,
    /// Notes.
    pub notes: u64,
    /// The first hundred problems.
    pub problems: Vec<Problem>,
    /// How many problems there are.
    pub problems_total: u64,
}

impl VerifyReport {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems_total == 0
    }

    pub(super) fn add(&mut self, problem: Problem) {
        self.problems_total += 1;
        if self.problems.len() < PROBLEMS_NAMED_MAX {
            self.problems.push(problem);
        }
    }
}

/// Something wrong in a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A record that cannot be read.
    Unreadable(RecordName),
    /// A record under another key than its own, or in the table of another stage.
    Misplaced(RecordName),
    /// A delivery of a message that does not exist.
    NoMessage(RecordName),
    /// A pending delivery for a peer that does not exist.
    NoPeer(RecordName),
    /// An idempotency key of this sender names a message that does not exist.
    KeyWithoutMessage(PeerId, MessageId),
    /// An idempotency key of this sender names a message that was sent under another key.
    KeyOfAnother(PeerId, MessageId),
    /// This peer's id would be given to another one.
    PeerIdNotReserved(PeerId),
    /// This task's id would be given to another one.
    TaskIdNotReserved(TaskId),
    /// The commit that was recorded beside the file is missing: an earlier commit is in force.
    TakenBack,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(row) => write!(f, "the {row} cannot be read"),
            Self::Misplaced(row) => write!(f, "the {row} is stored under the wrong key"),
            Self::NoMessage(row) => write!(f, "the {row} has no message"),
            Self::NoPeer(row) => write!(f, "the {row} waits for a peer that does not exist"),
            Self::KeyWithoutMessage(sender, message) => {
                write!(f, "an idempotency key of {sender} names {message}, which does not exist")
            }
            Self::KeyOfAnother(sender, message) => {
                write!(
                    f,
                    "an idempotency key of {sender} names {message}, which was sent under another key"
                )
            }
            Self::PeerIdNotReserved(peer) => {
                write!(f, "the id of {peer} would be given to another peer")
            }
            Self::TakenBack => {
                f.write_str("the last commit is missing: its page or the file's head is damaged")
            }
            Self::TaskIdNotReserved(task) => {
                write!(f, "the id of {task} would be given to another task")
            }
        }
    }
}

/// See [`Store::verify`](super::Store::verify).
pub(super) fn verify(path: &Path, access: Access) -> Result<VerifyReport, OpenError> {
    let file = match file::open_existing(path) {
        // A large file may still be ours, with its first bytes damaged.
        Err(refused @ OpenError::NoDatabase { .. }) => {
            let file = file::open_users(path)?;
            let large = file.filter(|file| {
                file.metadata().is_ok_and(|found| found.len() > CHECKED_AT_OPEN_BYTES_MAX)
            });
            let report = large.and_then(|file| verify_remains(path, &file, &[0; file::HEAD_BYTES]));
            return report.unwrap_or(Err(refused));
        }
        opened => opened?.ok_or_else(|| OpenError::Missing { path: path.into() })?,
    };
    let file_bytes = file.metadata().map_err(|source| OpenError::io(path, source))?.len();
    let mut before = [0; file::HEAD_BYTES];
    file.read_exact_at(&mut before, 0)
        .map_err(|source| OpenError::of(path, redb::Error::Io(source)))?;
    let same_file = file.try_clone().map_err(|source| OpenError::io(path, source))?;
    let (database, opened, closed_cleanly) = match open_checked(path, file, access) {
        Err(OpenError::Damaged { source, .. }) if file_bytes > CHECKED_AT_OPEN_BYTES_MAX => {
            return verify_remains(path, &same_file, &before)
                .unwrap_or(Err(OpenError::Damaged { path: path.into(), source }));
        }
        checked => checked?,
    };
    let origin = migrate::origin(path, &database)?;
    super::refuse_newer(path, &origin, SCHEMA_VERSION)?;
    // Records of an older schema are checked as the migration would make them.
    let database = if origin.schema < SCHEMA_VERSION {
        migrate::migrated_copy(path, &origin)?
    } else {
        database
    };
    let mut report =
        VerifyReport { schema: origin.schema, file_bytes, closed_cleanly, ..Default::default() };
    if witness::noted(path).is_some_and(|noted| witness::is_behind(&noted, &before, &opened)) {
        report.add(Problem::TakenBack);
    }
    examine(&database, &mut report)
        .map_err(|source| OpenError::Unreadable { path: path.into(), source: Box::new(source) })?;
    Ok(report)
}

/// Checks the remains of a large file with damaged pages. `None`: nothing is left.
fn verify_remains(
    path: &Path,
    file: &File,
    head: &Head,
) -> Option<Result<VerifyReport, OpenError>> {
    let (database, lost) = match salvage::rehearse(path, file) {
        Ok(remains) => remains?,
        Err(error) => return Some(Err(error)),
    };
    let file_bytes = file.metadata().map_or(0, |metadata| metadata.len());
    let closed_cleanly = file::is_closed(head);
    let mut report =
        VerifyReport { schema: SCHEMA_VERSION, file_bytes, closed_cleanly, ..Default::default() };
    for row in lost {
        report.add(if row == RecordName::LastCommit {
            Problem::TakenBack
        } else {
            Problem::Unreadable(row)
        });
    }
    let unreadable = |source| OpenError::Unreadable { path: path.into(), source: Box::new(source) };
    Some(examine(&database, &mut report).map(|()| report).map_err(unreadable))
}

fn examine(database: &Database, report: &mut VerifyReport) -> Result<(), StoreError> {
    let reading = database.begin_read().doing(READ)?;
    let peers = examine_peers(&reading, report)?;
    examine_messages(&reading, report)?;
    for table in 0..schema::DELIVERIES.len() {
        let count = examine_deliveries(&reading, table, &peers, report)?;
        *[&mut report.pending, &mut report.dead, &mut report.expired, &mut report.settled][table] =
            count;
    }
    examine_idempotency_keys(&reading, report)?;
    examine_settings(&reading, report)?;
    examine_links(&reading, report)?;
    examine_shared(&reading, report)
}

fn examine_links(reading: &ReadTransaction, report: &mut VerifyReport) -> Result<(), StoreError> {
    for row in reading.open_table(schema::LINKS).doing(READ)?.iter().doing(READ)? {
        let (key, bytes) = row.doing(READ)?;
        let name = RecordName::Link(links::broker(key.value()));
        match record::decode::<LinkRecord>(&name, bytes.value()) {
            Err(_) => report.add(Problem::Unreadable(name)),
            Ok(link) if links::number(link.broker) != key.value() => {
                report.add(Problem::Misplaced(name))
            }
            Ok(_) => {}
        }
    }
    for row in reading.open_table(schema::RECEIPTS).doing(READ)?.iter().doing(READ)? {
        let (key, _) = row.doing(READ)?;
        if links::receipt_of(key.value()).is_none() {
            report.add(Problem::Unreadable(RecordName::Due));
        }
    }
    for row in reading.open_table(schema::WITHDRAWN).doing(READ)?.iter().doing(READ)? {
        let (key, _) = row.doing(READ)?;
        if links::withdrawn_of(key.value()).is_none() {
            report.add(Problem::Unreadable(RecordName::Due));
        }
    }
    let meta = reading.open_table(schema::META).doing(READ)?;
    let own = meta.get(schema::META_BROKER).doing(READ)?;
    let is_bad = |bytes: &[u8]| record::decode::<BrokerId>(&RecordName::Broker, bytes).is_err();
    if own.is_some_and(|bytes| is_bad(bytes.value())) {
        report.add(Problem::Unreadable(RecordName::Broker));
    }
    Ok(())
}

fn examine_shared(reading: &ReadTransaction, report: &mut VerifyReport) -> Result<(), StoreError> {
    let channel = |name: &[u8]| Ok(SharedKey::Channel(shared::text(name)));
    report.channels = examine_table(
        reading,
        schema::CHANNELS,
        channel,
        |record: ChannelRecord| SharedRecord::Channel(record),
        report,
    )?;
    let question = |id: u128| {
        MessageId::try_from(id).map(SharedKey::Question).map_err(|_| RecordName::Key(id))
    };
    report.questions = examine_table(
        reading,
        schema::QUESTIONS,
        question,
        |record: QuestionRecord| SharedRecord::Question(record),
        report,
    )?;
    let task = |id: u64| Ok(SharedKey::Task(TaskId(id)));
    report.tasks = examine_table(
        reading,
        schema::TASKS,
        task,
        |record: TaskRecord| SharedRecord::Task(record),
        report,
    )?;
    let note = |key: &[u8]| Ok(SharedKey::Note(shared::text(key)));
    report.notes = examine_table(
        reading,
        schema::NOTES,
        note,
        |record: NoteRecord| SharedRecord::Note(record),
        report,
    )?;
    let next_task = match reading
        .open_table(schema::META)
        .doing(READ)?
        .get(schema::META_NEXT_TASK)
        .doing(READ)?
    {
        Some(bytes) => record::decode(&RecordName::NextTask, bytes.value()).ok(),
        None => Some(0),
    };
    let last_task = reading
        .open_table(schema::TASKS)
        .doing(READ)?
        .last()
        .doing(READ)?
        .map(|(key, _)| TaskId(key.value()));
    match (next_task, last_task) {
        (None, _) => report.add(Problem::Unreadable(RecordName::NextTask)),
        (Some(next), Some(last)) if last.0 >= next => report.add(Problem::TaskIdNotReserved(last)),
        _ => {}
    }
    Ok(())
}

/// Reads all of one table, and returns how many rows it has.
fn examine_table<K: Key + 'static, T: DeserializeOwned>(
    reading: &ReadTransaction,
    table: TableDefinition<'_, K, &'static [u8]>,
    key_of: impl for<'a> Fn(K::SelfType<'a>) -> Result<SharedKey, RecordName>,
    shared: impl Fn(T) -> SharedRecord,
    report: &mut VerifyReport,
) -> Result<u64, StoreError> {
    let table = reading.open_table(table).doing(READ)?;
    for row in table.iter().doing(READ)? {
        let (key, bytes) = row.doing(READ)?;
        let key = match key_of(key.value()) {
            Ok(key) => key,
            Err(row) => {
                report.add(Problem::Unreadable(row));
                continue;
            }
        };
        let row = RecordName::SharedRecord(key.clone());
        match record::decode::<T>(&row, bytes.value()).map(&shared) {
            Err(_) => report.add(Problem::Unreadable(row)),
            Ok(shared) if stands_under(shared.key()) != key => report.add(Problem::Misplaced(row)),
            Ok(_) => {}
        }
    }
    table.len().doing(READ)
}

/// Returns the key of a row: names of channels are in lower case.
fn stands_under(key: SharedKey) -> SharedKey {
    match key {
        SharedKey::Channel(name) => SharedKey::Channel(name.to_ascii_lowercase()),
        other => other,
    }
}

fn examine_settings(
    reading: &ReadTransaction,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    let meta = reading.open_table(schema::META).doing(READ)?;
    let settings = meta.get(schema::META_SETTINGS).doing(READ)?;
    if settings.is_some_and(|bytes| {
        record::decode::<SettingsRecord>(&RecordName::Settings, bytes.value()).is_err()
    }) {
        report.add(Problem::Unreadable(RecordName::Settings));
    }
    let kept = meta.get(schema::META_KEPT).doing(READ)?;
    if kept.is_some_and(|bytes| {
        record::decode::<KeptRecord>(&RecordName::Kept, bytes.value()).is_err()
    }) {
        report.add(Problem::Unreadable(RecordName::Kept));
    }
    let pauses = meta.get(schema::META_PAUSES).doing(READ)?;
    if pauses.is_some_and(|bytes| {
        record::decode::<PausesRecord>(&RecordName::Pauses, bytes.value()).is_err()
    }) {
        report.add(Problem::Unreadable(RecordName::Pauses));
    }
    Ok(())
}

fn examine_peers(
    reading: &ReadTransaction,
    report: &mut VerifyReport,
) -> Result<BTreeSet<u64>, StoreError> {
    let next_peer = match reading
        .open_table(schema::META)
        .doing(READ)?
        .get(schema::META_NEXT_PEER)
        .doing(READ)?
    {
        Some(bytes) => record::decode(&RecordName::NextPeer, bytes.value()).ok(),
        None => Some(PeerId::FIRST.0),
    };
    if next_peer.is_none() {
        report.add(Problem::Unreadable(RecordName::NextPeer));
    }
    let table = reading.open_table(schema::PEERS).doing(READ)?;
    // The person has a mailbox before there is a record of them.
    let mut peers = BTreeSet::from([PeerId::HUMAN.0]);
    for row in table.iter().doing(READ)? {
        let (key, bytes) = row.doing(READ)?;
        let id = PeerId(key.value());
        match record::decode::<PeerRecord>(&RecordName::Peer(id), bytes.value()) {
            Err(_) => report.add(Problem::Unreadable(RecordName::Peer(id))),
            Ok(peer) if peer.id != id => report.add(Problem::Misplaced(RecordName::Peer(id))),
            Ok(_) => {}
        }
        if next_peer.is_some_and(|next| id.0 >= next) {
            report.add(Problem::PeerIdNotReserved(id));
        }
        peers.insert(id.0);
    }
    report.peers = table.len().doing(READ)?;
    Ok(peers)
}

fn examine_messages(
    reading: &ReadTransaction,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    let table = reading.open_table(schema::MESSAGES).doing(READ)?;
    for row in table.iter().doing(READ)? {
        let (key, bytes) = row.doing(READ)?;
        let Ok(id) = MessageId::try_from(key.value()) else {
            report.add(Problem::Unreadable(RecordName::Key(key.value())));
            continue;
        };
        match record::decode::<MessageRecord>(&RecordName::Message(id), bytes.value()) {
            Err(_) => report.add(Problem::Unreadable(RecordName::Message(id))),
            Ok(message) if message.head.id != id => {
                report.add(Problem::Misplaced(RecordName::Message(id)))
            }
            Ok(_) => {}
        }
    }
    report.messages = table.len().doing(READ)?;
    Ok(())
}

fn examine_deliveries(
    reading: &ReadTransaction,
    table: usize,
    peers: &BTreeSet<u64>,
    report: &mut VerifyReport,
) -> Result<u64, StoreError> {
    let messages = reading.open_table(schema::MESSAGES).doing(READ)?;
    let deliveries = reading.open_table(schema::DELIVERIES[table]).doing(READ)?;
    for row in deliveries.iter().doing(READ)? {
        let (key, bytes) = row.doing(READ)?;
        let (message, peer) = key.value();
        let Ok(id) = MessageId::try_from(message) else {
            report.add(Problem::Unreadable(RecordName::Key(message)));
            continue;
        };
        let row = RecordName::Delivery(id, PeerId(peer));
        match record::decode::<DeliveryRecord>(&row, bytes.value()) {
            Err(_) => report.add(Problem::Unreadable(row.clone())),
            Ok(delivery) => {
                if schema::key_of(&delivery) != (message, peer)
                    || schema::table_of(delivery.stage) != Some(table)
                {
                    report.add(Problem::Misplaced(row.clone()));
                }
                if delivery.stage.is_pending() && !peers.contains(&peer) {
                    report.add(Problem::NoPeer(row.clone()));
                }
            }
        }
        if messages.get(message).doing(READ)?.is_none() {
            report.add(Problem::NoMessage(row));
        }
    }
    deliveries.len().doing(READ)
}

fn examine_idempotency_keys(
    reading: &ReadTransaction,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    let messages = reading.open_table(schema::MESSAGES).doing(READ)?;
    let keys = reading.open_table(schema::IDEMPOTENCY).doing(READ)?;
    for row in keys.iter().doing(READ)? {
        let (key, message) = row.doing(READ)?;
        let (sender, number) = (PeerId(key.value().0), message.value());
        let Ok(id) = MessageId::try_from(number) else {
            report.add(Problem::Unreadable(RecordName::Key(number)));
            continue;
        };
        match messages.get(number).doing(READ)? {
            None => report.add(Problem::KeyWithoutMessage(sender, id)),
            // A message that cannot be read was reported already.
            Some(bytes) => match record::decode_head(&RecordName::Message(id), bytes.value()) {
                Ok((_, said)) if said.as_deref().map(str::as_bytes) != Some(key.value().1) => {
                    report.add(Problem::KeyOfAnother(sender, id));
                }
                _ => {}
            },
        }
    }
    report.idempotency_keys = keys.len().doing(READ)?;
    Ok(())
}
