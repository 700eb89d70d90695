//! Shared records in the store: channels, questions, tasks and notes, one row each.
//!
//! Knows the key of each. Does not know their meaning.

use peer_core::shared::{NoteRecord, SharedKey, SharedRecord, SharedRecords};
use peer_proto::ids::TaskId;
use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::damage::Damage;
use super::error::{Doing, READ, RecordName, StoreError, WRITE};
use super::touched::Touched;
use super::{record, schema};

/// The tables of one transaction, each opened when it is first needed.
pub(super) struct SharedTables<'txn> {
    channels: Touched<'txn, &'static [u8], &'static [u8]>,
    questions: Touched<'txn, u128, &'static [u8]>,
    tasks: Touched<'txn, u64, &'static [u8]>,
    notes: Touched<'txn, &'static [u8], &'static [u8]>,
}

impl<'txn> SharedTables<'txn> {
    pub(super) fn new(writing: &'txn WriteTransaction) -> Self {
        Self {
            channels: Touched::new(writing, schema::CHANNELS),
            questions: Touched::new(writing, schema::QUESTIONS),
            tasks: Touched::new(writing, schema::TASKS),
            notes: Touched::new(writing, schema::NOTES),
        }
    }

    pub(super) fn put(&mut self, shared: &SharedRecord) -> Result<(), StoreError> {
        let row = RecordName::SharedRecord(shared.key());
        let bytes = match shared {
            SharedRecord::Channel(channel) => record::encode(&row, channel),
            SharedRecord::Question(question) => record::encode(&row, question),
            SharedRecord::Task(task) => record::encode(&row, task),
            SharedRecord::Note(note) => record::encode(&row, note),
        }?;
        match shared {
            SharedRecord::Channel(channel) => {
                let key = channel.name.to_ascii_lowercase();
                self.channels.open()?.insert(key.as_bytes(), bytes.as_slice()).doing(WRITE)?;
            }
            SharedRecord::Question(question) => {
                self.questions
                    .open()?
                    .insert(question.question.to_u128(), bytes.as_slice())
                    .doing(WRITE)?;
            }
            SharedRecord::Task(task) => {
                self.tasks.open()?.insert(task.id.0, bytes.as_slice()).doing(WRITE)?;
            }
            SharedRecord::Note(note) => {
                self.notes
                    .open()?
                    .insert(note.head.key.as_bytes(), bytes.as_slice())
                    .doing(WRITE)?;
            }
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &SharedKey) -> Result<(), StoreError> {
        match key {
            SharedKey::Channel(name) => drop(
                self.channels.open()?.remove(name.to_ascii_lowercase().as_bytes()).doing(WRITE)?,
            ),
            SharedKey::Question(question) => {
                drop(self.questions.open()?.remove(question.to_u128()).doing(WRITE)?)
            }
            SharedKey::Task(task) => drop(self.tasks.open()?.remove(task.0).doing(WRITE)?),
            SharedKey::Note(key) => drop(self.notes.open()?.remove(key.as_bytes()).doing(WRITE)?),
        }
        Ok(())
    }
}

/// Makes the tables in an empty database.
pub(super) fn create(writing: &WriteTransaction) -> Result<(), StoreError> {
    writing.open_table(schema::CHANNELS).doing(WRITE)?;
    writing.open_table(schema::QUESTIONS).doing(WRITE)?;
    writing.open_table(schema::TASKS).doing(WRITE)?;
    writing.open_table(schema::NOTES).doing(WRITE)?;
    Ok(())
}

/// Loads all of them that can be read, notes without their values.
pub(super) fn load(
    reading: &ReadTransaction,
    damage: &Damage,
) -> Result<SharedRecords, StoreError> {
    let mut shared = SharedRecords::default();
    for row in reading.open_table(schema::CHANNELS).doing(READ)?.iter().doing(READ)? {
        let (key, bytes) = row.doing(READ)?;
        shared.channels.extend(
            damage.read(
                &RecordName::SharedRecord(SharedKey::Channel(text(key.value()))),
                bytes.value(),
            ),
        );
    }
    for row in reading.open_table(schema::QUESTIONS).doing(READ)?.iter().doing(READ)? {
        let (key, bytes) = row.doing(READ)?;
        let Some(question) = damage.message_id(key.value()) else { continue };
        shared.questions.extend(
            damage.read(&RecordName::SharedRecord(SharedKey::Question(question)), bytes.value()),
        );
    }
    for row in reading.open_table(schema::TASKS).doing(READ)?.iter().doing(READ)? {
        let (key, bytes) = row.doing(READ)?;
        shared.tasks.extend(
            damage.read(
                &RecordName::SharedRecord(SharedKey::Task(TaskId(key.value()))),
                bytes.value(),
            ),
        );
    }
    for row in reading.open_table(schema::NOTES).doing(READ)?.iter().doing(READ)? {
        let (key, bytes) = row.doing(READ)?;
        let note: Option<NoteRecord> = damage
            .read(&RecordName::SharedRecord(SharedKey::Note(text(key.value()))), bytes.value());
        shared.notes.extend(note.map(|note| note.head));
    }
    Ok(shared)
}

/// Returns the text of a key. A key that is no UTF-8 was damaged, and no record is under the
/// converted text.
pub(super) fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}
