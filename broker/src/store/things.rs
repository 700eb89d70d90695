//! Shared records in the store: channels, questions, tasks and notes, one row each.
//!
//! Knows the key of each. Does not know their meaning.

use peer_core::thing::{NoteRecord, Thing, ThingKey, Things};
use peer_proto::ids::TaskId;
use redb::{ReadTransaction, ReadableTable, WriteTransaction};

use super::damage::Damage;
use super::error::{Doing, READ, Row, StoreError, WRITE};
use super::writing::Touched;
use super::{record, schema};

/// The tables of one transaction, each opened when it is first needed.
pub(super) struct Tables<'txn> {
    channels: Touched<'txn, &'static [u8], &'static [u8]>,
    questions: Touched<'txn, u128, &'static [u8]>,
    tasks: Touched<'txn, u64, &'static [u8]>,
    notes: Touched<'txn, &'static [u8], &'static [u8]>,
}

impl<'txn> Tables<'txn> {
    pub(super) fn new(writing: &'txn WriteTransaction) -> Self {
        Self {
            channels: Touched::new(writing, schema::CHANNELS),
            questions: Touched::new(writing, schema::QUESTIONS),
            tasks: Touched::new(writing, schema::TASKS),
            notes: Touched::new(writing, schema::NOTES),
        }
    }

    pub(super) fn put(&mut self, thing: &Thing) -> Result<(), StoreError> {
        let row = Row::Thing(thing.key());
        let bytes = match thing {
            Thing::Channel(channel) => record::encode(&row, channel),
            Thing::Question(question) => record::encode(&row, question),
            Thing::Task(task) => record::encode(&row, task),
            Thing::Note(note) => record::encode(&row, note),
        }?;
        match thing {
            Thing::Channel(channel) => {
                let key = channel.name.to_ascii_lowercase();
                self.channels.open()?.insert(key.as_bytes(), bytes.as_slice()).doing(WRITE)?;
            }
            Thing::Question(question) => {
                self.questions
                    .open()?
                    .insert(question.question.to_u128(), bytes.as_slice())
                    .doing(WRITE)?;
            }
            Thing::Task(task) => {
                self.tasks.open()?.insert(task.id.0, bytes.as_slice()).doing(WRITE)?;
            }
            Thing::Note(note) => {
                self.notes
                    .open()?
                    .insert(note.head.key.as_bytes(), bytes.as_slice())
                    .doing(WRITE)?;
            }
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &ThingKey) -> Result<(), StoreError> {
        match key {
            ThingKey::Channel(name) => drop(
                self.channels.open()?.remove(name.to_ascii_lowercase().as_bytes()).doing(WRITE)?,
            ),
            ThingKey::Question(question) => {
                drop(self.questions.open()?.remove(question.to_u128()).doing(WRITE)?)
            }
            ThingKey::Task(task) => drop(self.tasks.open()?.remove(task.0).doing(WRITE)?),
            ThingKey::Note(key) => drop(self.notes.open()?.remove(key.as_bytes()).doing(WRITE)?),
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
pub(super) fn load(reading: &ReadTransaction, damage: &Damage) -> Result<Things, StoreError> {
    let mut things = Things::default();
    for row in reading.open_table(schema::CHANNELS).doing(READ)?.iter().doing(READ)? {
        let (key, bytes) = row.doing(READ)?;
        things
            .channels
            .extend(damage.read(&Row::Thing(ThingKey::Channel(text(key.value()))), bytes.value()));
    }
    for row in reading.open_table(schema::QUESTIONS).doing(READ)?.iter().doing(READ)? {
        let (key, bytes) = row.doing(READ)?;
        let Some(question) = damage.message_id(key.value()) else { continue };
        things
            .questions
            .extend(damage.read(&Row::Thing(ThingKey::Question(question)), bytes.value()));
    }
    for row in reading.open_table(schema::TASKS).doing(READ)?.iter().doing(READ)? {
        let (key, bytes) = row.doing(READ)?;
        things
            .tasks
            .extend(damage.read(&Row::Thing(ThingKey::Task(TaskId(key.value()))), bytes.value()));
    }
    for row in reading.open_table(schema::NOTES).doing(READ)?.iter().doing(READ)? {
        let (key, bytes) = row.doing(READ)?;
        let note: Option<NoteRecord> =
            damage.read(&Row::Thing(ThingKey::Note(text(key.value()))), bytes.value());
        things.notes.extend(note.map(|note| note.head));
    }
    Ok(things)
}

/// Returns the text of a key. A key that is no UTF-8 was damaged, and no record is under the
/// converted text.
pub(super) fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}
