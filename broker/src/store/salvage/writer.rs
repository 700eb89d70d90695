//! Writes rows into the new database.
//!
//! Knows the rows of each table. Does not know pages.

use peer_core::record::{
    DeliveryRecord, KeptRecord, MessageRecord, PausesRecord, PeerRecord, SettingsRecord,
};
use peer_core::shared::{ChannelRecord, NoteRecord, QuestionRecord, SharedKey, TaskRecord};
use peer_proto::ids::{MessageId, PeerId, TaskId};
use redb::{Database, Key, ReadableTable, TableDefinition, TableHandle, Value, WriteTransaction};
use serde::de::DeserializeOwned;

use super::super::error::{Doing, RecordName, StoreError, WRITE};
use super::super::pages::repair::RowBytes;
use super::super::{SCHEMA_VERSION, record, schema, shared};

/// Bytes of rows that are written with one commit.
const COMMIT_BYTES: usize = 32 * 1024 * 1024;

/// A row that must prove itself, at the end.
struct Doubtful {
    table: String,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// Writes rows to the new database.
pub(super) struct Writer<'a> {
    database: &'a Database,
    /// `None`: a write failed.
    writing: Option<WriteTransaction>,
    bytes: usize,
    rows: u64,
    lost: Vec<RecordName>,
    doubtful: Vec<Doubtful>,
    /// The schema that the file states.
    schema: Option<u64>,
    /// Whether a record was read. Then the schema is ours even if nothing states it.
    has_records: bool,
    /// Whether `meta` may lack a row.
    lacks_meta: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(database: &'a Database) -> Result<Self, StoreError> {
        Ok(Self {
            database,
            writing: Some(database.begin_write().doing(WRITE)?),
            bytes: 0,
            rows: 0,
            lost: Vec::new(),
            doubtful: Vec::new(),
            schema: None,
            has_records: false,
            lacks_meta: false,
        })
    }

    /// Whether the file has the schema that this program writes.
    pub(super) fn is_ours(&self) -> bool {
        let has_records = || {
            self.has_records
                || self.doubtful.iter().any(|row| is_record(&row.table, &row.key, &row.value))
        };
        self.schema.map_or_else(has_records, |schema| schema == SCHEMA_VERSION)
    }

    /// Records that nothing names this table any more.
    pub(super) fn has_no_table(&mut self, name: &str) {
        self.lacks_meta |= name == "meta";
    }

    /// Takes rows of one table. `is_sound`: they are as they were written.
    pub(super) fn rows(
        &mut self,
        table: &str,
        rows: &[RowBytes<'_>],
        is_sound: bool,
    ) -> Result<(), StoreError> {
        self.lacks_meta |= table == "meta" && !is_sound;
        for (key, value) in rows {
            if is_sound {
                self.has_records = self.has_records || is_record(table, key, value);
                self.put(table, key, value)?;
            } else {
                self.doubtful.push(Doubtful {
                    table: table.into(),
                    key: key.to_vec(),
                    value: value.to_vec(),
                });
            }
        }
        if self.bytes >= COMMIT_BYTES {
            self.bytes = 0;
            self.commit()?;
            self.writing = Some(self.database.begin_write().doing(WRITE)?);
        }
        Ok(())
    }

    /// Takes the rows that prove themselves, and ends. Returns the losses and the number of rows.
    pub(super) fn finish(mut self) -> Result<(Vec<RecordName>, u64), StoreError> {
        for Doubtful { table, key, value } in std::mem::take(&mut self.doubtful) {
            if self.proves_itself(&table, &key, &value)? {
                self.put(&table, &key, &value)?;
            } else {
                self.lost.extend(row_of(&table, &key));
            }
        }
        if self.lacks_meta {
            self.withhold()?;
        }
        self.commit()?;
        Ok((self.lost, self.rows))
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.writing.take().ok_or(StoreError::Failed)?.commit().doing(WRITE)
    }

    /// Treats possibly lost rows of `meta` as damaged. Then the strictest settings hold, and ids
    /// are not given again.
    fn withhold(&mut self) -> Result<(), StoreError> {
        let writing = self.writing.as_ref().ok_or(StoreError::Failed)?;
        let mut meta = writing.open_table(schema::META).doing(WRITE)?;
        for name in [
            schema::META_SETTINGS,
            schema::META_PAUSES,
            schema::META_NEXT_PEER,
            schema::META_NEXT_TASK,
        ] {
            if meta.get(name).doing(WRITE)?.is_none() {
                meta.insert(name, [].as_slice()).doing(WRITE)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, table: &str, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let writing = self.writing.as_ref().ok_or(StoreError::Failed)?;
        self.bytes += key.len() + value.len();
        self.rows += 1;
        match table {
            "meta" => self.put_meta(key, value),
            "peers" => insert(writing, schema::PEERS, key, value),
            "messages" => insert(writing, schema::MESSAGES, key, value),
            "pending" => insert(writing, schema::PENDING, key, value),
            "dead" => insert(writing, schema::DEAD, key, value),
            "expired" => insert(writing, schema::EXPIRED, key, value),
            "settled" => insert(writing, schema::SETTLED, key, value),
            "channels" => insert(writing, schema::CHANNELS, key, value),
            "questions" => insert(writing, schema::QUESTIONS, key, value),
            "tasks" => insert(writing, schema::TASKS, key, value),
            "notes" => insert(writing, schema::NOTES, key, value),
            "idempotency" => insert(writing, schema::IDEMPOTENCY, key, value),
            "reindex" => insert(writing, schema::REINDEX, key, value),
            _ => Ok(()),
        }
    }

    fn put_meta(&mut self, name: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let Ok(name) = str::from_utf8(name) else { return Ok(()) };
        match name {
            schema::META_SCHEMA => self.schema = record::decode_number(value).ok(),
            // This program writes the new file.
            schema::META_WRITTEN_BY => {}
            _ => {
                let writing = self.writing.as_ref().ok_or(StoreError::Failed)?;
                writing.open_table(schema::META).doing(WRITE)?.insert(name, value).doing(WRITE)?;
            }
        }
        Ok(())
    }

    /// Whether a row from a damaged page is a record by its own checksum, and not an older version
    /// of an existing one.
    fn proves_itself(&self, table: &str, key: &[u8], value: &[u8]) -> Result<bool, StoreError> {
        let writing = self.writing.as_ref().ok_or(StoreError::Failed)?;
        if table == "meta" && key == schema::META_SCHEMA.as_bytes() {
            return Ok(record::decode_number(value).is_ok_and(|schema| schema == SCHEMA_VERSION));
        }
        if table == "idempotency" {
            return names_its_message(writing, key, value);
        }
        if !is_record(table, key, value) {
            return Ok(false);
        }
        match table {
            "peers" => is_absent(writing, schema::PEERS, key),
            "messages" => is_absent(writing, schema::MESSAGES, key),
            "channels" => is_absent(writing, schema::CHANNELS, key),
            "questions" => is_absent(writing, schema::QUESTIONS, key),
            "tasks" => is_absent(writing, schema::TASKS, key),
            "notes" => is_absent(writing, schema::NOTES, key),
            // A delivery is in exactly one table.
            "pending" | "dead" | "expired" | "settled" => {
                for table in schema::DELIVERIES {
                    if !is_absent(writing, table, key)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            _ => Ok(true),
        }
    }
}

fn insert<K: Key + 'static, V: Value + 'static>(
    writing: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
    key: &[u8],
    value: &[u8],
) -> Result<(), StoreError> {
    writing
        .open_table(table)
        .doing(WRITE)?
        .insert(K::from_bytes(key), V::from_bytes(value))
        .doing(WRITE)?;
    Ok(())
}

fn is_absent<K: Key + 'static, V: Value + 'static>(
    writing: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
    key: &[u8],
) -> Result<bool, StoreError> {
    Ok(writing.open_table(table).doing(WRITE)?.get(K::from_bytes(key)).doing(WRITE)?.is_none())
}

/// An idempotency key has no checksum. The message that it names states which key it had.
fn names_its_message(
    writing: &WriteTransaction,
    key: &[u8],
    value: &[u8],
) -> Result<bool, StoreError> {
    let (Some((sender, key)), Ok(message)) = (key.split_first_chunk(), <[u8; 16]>::try_from(value))
    else {
        return Ok(false);
    };
    let message = u128::from_le_bytes(message);
    let Ok(id) = MessageId::try_from(message) else { return Ok(false) };
    let messages = writing.open_table(schema::MESSAGES).doing(WRITE)?;
    let Some(bytes) = messages.get(message).doing(WRITE)? else { return Ok(false) };
    let Ok((head, said)) = record::decode_head(&RecordName::Message(id), bytes.value()) else {
        return Ok(false);
    };
    Ok(head.from.peer == PeerId(u64::from_le_bytes(*sender))
        && said.is_some_and(|said| said.as_bytes() == key))
}

/// Returns the item of a row, if its key can name one.
fn row_of(table: &str, key: &[u8]) -> Option<RecordName> {
    let message = |bytes: &[u8]| {
        let number = u128::from_le_bytes(*bytes.first_chunk()?);
        Some(MessageId::try_from(number).map_err(|_| RecordName::Key(number)))
    };
    let number = || Some(u64::from_le_bytes(*key.first_chunk()?));
    let row = match table {
        "meta" => match str::from_utf8(key).ok()? {
            schema::META_NEXT_PEER => RecordName::NextPeer,
            schema::META_NEXT_TASK => RecordName::NextTask,
            schema::META_SETTINGS => RecordName::Settings,
            schema::META_PAUSES => RecordName::Pauses,
            schema::META_KEPT => RecordName::Kept,
            _ => return None,
        },
        "peers" => RecordName::Peer(PeerId(number()?)),
        "messages" => message(key)?.map_or_else(|row| row, RecordName::Message),
        "pending" | "dead" | "expired" | "settled" => {
            let peer = PeerId(u64::from_le_bytes(*key.get(16..)?.first_chunk()?));
            message(key)?.map_or_else(|row| row, |id| RecordName::Delivery(id, peer))
        }
        "channels" => RecordName::SharedRecord(SharedKey::Channel(shared::text(key))),
        "questions" => message(key)?
            .map_or_else(|row| row, |id| RecordName::SharedRecord(SharedKey::Question(id))),
        "tasks" => RecordName::SharedRecord(SharedKey::Task(TaskId(number()?))),
        "notes" => RecordName::SharedRecord(SharedKey::Note(shared::text(key))),
        _ => return None,
    };
    Some(row)
}

/// Whether the row is a record with a right checksum.
fn is_record(table: &str, key: &[u8], value: &[u8]) -> bool {
    fn is<T: DeserializeOwned>(row: &RecordName, value: &[u8]) -> bool {
        record::decode::<T>(row, value).is_ok()
    }
    let Some(row) = row_of(table, key) else { return false };
    match (table, &row) {
        (_, RecordName::Key(_)) => false,
        ("meta", RecordName::NextPeer | RecordName::NextTask) => is::<u64>(&row, value),
        ("meta", RecordName::Settings) => is::<SettingsRecord>(&row, value),
        ("meta", RecordName::Pauses) => is::<PausesRecord>(&row, value),
        ("meta", RecordName::Kept) => is::<KeptRecord>(&row, value),
        ("peers", _) => is::<PeerRecord>(&row, value),
        ("messages", _) => is::<MessageRecord>(&row, value),
        ("channels", _) => is::<ChannelRecord>(&row, value),
        ("questions", _) => is::<QuestionRecord>(&row, value),
        ("tasks", _) => is::<TaskRecord>(&row, value),
        ("notes", _) => is::<NoteRecord>(&row, value),
        (_, RecordName::Delivery(..)) => {
            let delivery = record::decode::<DeliveryRecord>(&row, value);
            delivery.is_ok_and(|delivery| {
                schema::table_of(delivery.stage).map(|at| schema::DELIVERIES[at].name())
                    == Some(table)
            })
        }
        _ => false,
    }
}
