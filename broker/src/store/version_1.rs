//! Schema 1, and the step from it to schema 2.
//!
//! In schema 1 a record was a version byte and bincode, without a checksum. The ids of the next
//! peer and task were eight plain bytes. Text keys had redb's text type, which panics over bytes
//! that are no UTF-8. The types here were shipped and never change.

use peer_core::record::{KeptRecord, PausesRecord, SettingsRecord};
use peer_core::shared::{ChannelRecord, NoteRecord, QuestionRecord, SharedKey, TaskRecord};
use peer_proto::ids::{MessageId, PeerId, TaskId};
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use serde::de::DeserializeOwned;

use super::error::{Doing, RecordName, StoreError, WRITE};
use super::version_2::{self, DeliveryRecord, MessageRecord};
use super::version_3::{PeerRecord, rewrite};
use super::{record, schema};

const CHANNELS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("channels");
const NOTES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("notes");
const IDEMPOTENCY: TableDefinition<'_, (u64, &str), u128> = TableDefinition::new("idempotency");
const REINDEX: TableDefinition<'_, u64, (u8, u128, &str)> = TableDefinition::new("reindex");

/// The version byte of its records.
const VERSION: u8 = 1;

/// Fields that were appended to a peer's record while it had this version. All of them are options.
const PEER_FIELDS_APPENDED: usize = 2;

/// Gives every record its checksum, and the tables their new types. A record that cannot be read
/// stays as it is. Its version makes it unreadable in schema 2 as well.
pub(super) fn to_version_2(writing: &WriteTransaction) -> Result<(), StoreError> {
    rewrite(writing, schema::PEERS, schema::PEERS, |key, bytes, insert| {
        insert(key, peer(&RecordName::Peer(PeerId(key)), bytes).as_slice())
    })?;
    rewrite(writing, schema::MESSAGES, schema::MESSAGES, |key, bytes, insert| {
        let sealed =
            row_of(key, RecordName::Message).map(|row| sealed::<MessageRecord>(&row, bytes));
        insert(key, sealed.as_deref().unwrap_or(bytes))
    })?;
    for table in schema::DELIVERIES {
        rewrite(writing, table, table, |key, bytes, insert| {
            let row = row_of(key.0, |message| RecordName::Delivery(message, PeerId(key.1)));
            let sealed = row.map(|row| sealed::<DeliveryRecord>(&row, bytes));
            insert(key, sealed.as_deref().unwrap_or(bytes))
        })?;
    }
    rewrite(writing, schema::QUESTIONS, schema::QUESTIONS, |key, bytes, insert| {
        let row = row_of(key, |question| RecordName::SharedRecord(SharedKey::Question(question)));
        let sealed = row.map(|row| sealed::<QuestionRecord>(&row, bytes));
        insert(key, sealed.as_deref().unwrap_or(bytes))
    })?;
    rewrite(writing, schema::TASKS, schema::TASKS, |key, bytes, insert| {
        insert(
            key,
            sealed::<TaskRecord>(&RecordName::SharedRecord(SharedKey::Task(TaskId(key))), bytes)
                .as_slice(),
        )
    })?;
    rewrite(writing, CHANNELS, schema::CHANNELS, |key, bytes, insert| {
        let row = RecordName::SharedRecord(SharedKey::Channel(key.to_owned()));
        insert(key.as_bytes(), sealed::<ChannelRecord>(&row, bytes).as_slice())
    })?;
    rewrite(writing, NOTES, schema::NOTES, |key, bytes, insert| {
        let row = RecordName::SharedRecord(SharedKey::Note(key.to_owned()));
        insert(key.as_bytes(), sealed::<NoteRecord>(&row, bytes).as_slice())
    })?;
    rewrite(writing, IDEMPOTENCY, schema::IDEMPOTENCY, |(sender, key), message, insert| {
        insert((sender, key.as_bytes()), message)
    })?;
    rewrite(writing, REINDEX, schema::REINDEX, |number, (kind, id, key), insert| {
        insert(number, (kind, id, key.as_bytes()))
    })?;
    single_values(writing)
}

fn single_values(writing: &WriteTransaction) -> Result<(), StoreError> {
    let mut meta = writing.open_table(schema::META).doing(WRITE)?;
    for key in [
        schema::META_NEXT_PEER,
        schema::META_NEXT_TASK,
        schema::META_SETTINGS,
        schema::META_PAUSES,
        schema::META_KEPT,
    ] {
        let Some(bytes) = meta.get(key).doing(WRITE)?.map(|bytes| bytes.value().to_vec()) else {
            continue;
        };
        let rewritten = match key {
            schema::META_NEXT_PEER => number(&RecordName::NextPeer, &bytes)?,
            schema::META_NEXT_TASK => number(&RecordName::NextTask, &bytes)?,
            schema::META_SETTINGS => sealed::<SettingsRecord>(&RecordName::Settings, &bytes),
            schema::META_PAUSES => sealed::<PausesRecord>(&RecordName::Pauses, &bytes),
            _ => sealed::<KeptRecord>(&RecordName::Kept, &bytes),
        };
        meta.insert(key, rewritten.as_slice()).doing(WRITE)?;
    }
    Ok(())
}

/// Converts a plain number to a record. Returns other bytes unchanged.
fn number(row: &RecordName, bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
    match record::decode_number(bytes) {
        Ok(number) => {
            let body =
                record::encode_body(&number).map_err(|source| row.clone().unwritable(source))?;
            Ok(record::seal_version(row, &body, version_2::VERSION))
        }
        Err(_) => Ok(bytes.to_vec()),
    }
}

fn row_of(key: u128, row: impl FnOnce(MessageId) -> RecordName) -> Option<RecordName> {
    MessageId::try_from(key).ok().map(row)
}

/// Converts a record of version 1 to version 2. Returns other bytes unchanged.
fn sealed<T: DeserializeOwned>(row: &RecordName, bytes: &[u8]) -> Vec<u8> {
    match bytes.split_first() {
        Some((&VERSION, body)) if record::decode_body::<T>(body).is_ok() => {
            record::seal_version(row, body, version_2::VERSION)
        }
        _ => bytes.to_vec(),
    }
}

/// Like [`sealed`]. A record from before a field was appended ends without it. An option without a
/// value is a zero.
fn peer(row: &RecordName, bytes: &[u8]) -> Vec<u8> {
    let mut longer = bytes.to_vec();
    for _ in 0..=PEER_FIELDS_APPENDED {
        let sealed = sealed::<PeerRecord>(row, &longer);
        if sealed != longer {
            return sealed;
        }
        longer.push(0);
    }
    bytes.to_vec()
}
