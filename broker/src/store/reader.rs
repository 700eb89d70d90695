//! What the search index reads: snapshots of the store, beside the engine and without waiting for it.
//!
//! Knows rows. Does not know the index. A snapshot keeps the file from reusing pages: it is held for moments only.

use std::cell::OnceCell;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use peer_core::record::{DeliveryRecord, MessageRecord, PeerRecord};
use peer_core::thing::{NoteRecord, TaskRecord, ThingKey};
use peer_proto::ids::{MessageId, PeerId, TaskId};
use redb::{
    Database, Key, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, Value,
};
use serde::Deserialize;

use super::damage::{Damage, stand_in};
use super::error::{Doing, READ, Row, StoreError};
use super::image::STAND_IN_STAGES;
use super::{Reference, reindex, schema, things};

/// Another way into an open store, for reading.
#[derive(Clone, Debug)]
pub struct Reader {
    database: Arc<Database>,
    damage: Damage,
}

/// The store as it was at one moment. Tables are opened when they are first needed.
#[derive(Debug)]
pub struct Snapshot {
    reading: ReadTransaction,
    damage: Damage,
    messages: OnceCell<ReadOnlyTable<u128, &'static [u8]>>,
    deliveries: [OnceCell<ReadOnlyTable<schema::DeliveryKey, &'static [u8]>>; 4],
    notes: OnceCell<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    tasks: OnceCell<ReadOnlyTable<u64, &'static [u8]>>,
    peers: OnceCell<ReadOnlyTable<u64, &'static [u8]>>,
    reindex: OnceCell<ReadOnlyTable<u64, reindex::Row<'static>>>,
    /// redb closes a database when its last owner goes, whoever reads: pages that are not in the cache by then are refused.
    _database: Arc<Database>,
}

impl Reader {
    pub(super) fn new(database: Arc<Database>, damage: Damage) -> Self {
        Self { database, damage }
    }

    /// The store as it is now: everything that was committed.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot {
            reading: self.database.begin_read().doing(READ)?,
            damage: self.damage.clone(),
            messages: OnceCell::new(),
            deliveries: Default::default(),
            notes: OnceCell::new(),
            tasks: OnceCell::new(),
            peers: OnceCell::new(),
            reindex: OnceCell::new(),
            _database: Arc::clone(&self.database),
        })
    }
}

impl Snapshot {
    fn open<'s, K: Key + 'static, V: Value + 'static>(
        &self,
        place: &'s OnceCell<ReadOnlyTable<K, V>>,
        definition: TableDefinition<'static, K, V>,
    ) -> Result<&'s ReadOnlyTable<K, V>, StoreError> {
        if let Some(table) = place.get() {
            return Ok(table);
        }
        let table = self.reading.open_table(definition).doing(READ)?;
        Ok(place.get_or_init(|| table))
    }

    fn messages(&self) -> Result<&ReadOnlyTable<u128, &'static [u8]>, StoreError> {
        self.open(&self.messages, schema::MESSAGES)
    }

    fn notes(&self) -> Result<&ReadOnlyTable<&'static [u8], &'static [u8]>, StoreError> {
        self.open(&self.notes, schema::NOTES)
    }

    fn tasks(&self) -> Result<&ReadOnlyTable<u64, &'static [u8]>, StoreError> {
        self.open(&self.tasks, schema::TASKS)
    }

    fn reindex(&self) -> Result<&ReadOnlyTable<u64, reindex::Row<'static>>, StoreError> {
        self.open(&self.reindex, schema::REINDEX)
    }

    /// How many messages, notes and tasks there are.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn entries(&self) -> Result<u64, StoreError> {
        Ok(self.messages()?.len().doing(READ)? + self.notes()?.len().doing(READ)? + self.tasks()?.len().doing(READ)?)
    }

    /// One message, where it exists and can be read.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn message(&self, id: MessageId) -> Result<Option<MessageRecord>, StoreError> {
        self.get(self.messages()?, id.to_u128(), &Row::Message(id))
    }

    /// The deliveries of one message. One that cannot be read has a stand-in, which was held and not let go.
    ///
    /// # Errors
    /// As [`Snapshot::message`].
    pub fn deliveries(&self, id: MessageId) -> Result<Vec<DeliveryRecord>, StoreError> {
        let mut found = Vec::new();
        for ((place, definition), stage) in self.deliveries.iter().zip(schema::DELIVERIES).zip(STAND_IN_STAGES) {
            for row in self.open(place, definition)?.range(schema::keys_of_message(id)).doing(READ)? {
                let (key, bytes) = row.doing(READ)?;
                let peer = PeerId(key.value().1);
                let read = self.damage.read(&Row::Delivery(id, peer), bytes.value());
                found.push(read.unwrap_or_else(|| stand_in(id, peer, stage, None)));
            }
        }
        Ok(found)
    }

    /// Visits the messages after one, oldest first, until `visit` breaks. What is damaged is not visited.
    ///
    /// # Errors
    /// As [`Snapshot::message`].
    pub fn messages_after(
        &self,
        after: Option<MessageId>,
        mut visit: impl FnMut(MessageRecord) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let start = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.to_u128()));
        for row in self.messages()?.range::<u128>((start, Bound::Unbounded)).doing(READ)? {
            let (key, bytes) = row.doing(READ)?;
            let Some(id) = self.damage.message_id(key.value()) else { continue };
            let Some(message) = self.damage.read(&Row::Message(id), bytes.value()) else { continue };
            if visit(message).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// One note, where it exists.
    ///
    /// # Errors
    /// As [`Snapshot::message`].
    pub fn note(&self, key: &str) -> Result<Option<NoteRecord>, StoreError> {
        self.get(self.notes()?, key.as_bytes(), &Row::Thing(ThingKey::Note(key.to_owned())))
    }

    /// One task, where it exists.
    ///
    /// # Errors
    /// As [`Snapshot::message`].
    pub fn task(&self, id: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        self.get(self.tasks()?, id.0, &Row::Thing(ThingKey::Task(id)))
    }

    /// Visits all notes and tasks by what refers to them.
    ///
    /// # Errors
    /// As [`Snapshot::message`], or what `visit` returns.
    pub fn things<E: From<StoreError>>(&self, mut visit: impl FnMut(Reference) -> Result<(), E>) -> Result<(), E> {
        for row in self.notes()?.iter().doing(READ)? {
            let (key, _) = row.doing(READ)?;
            visit(Reference::Note(things::text(key.value())))?;
        }
        for row in self.tasks()?.iter().doing(READ)? {
            let (key, _) = row.doing(READ)?;
            visit(Reference::Task(TaskId(key.value())))?;
        }
        Ok(())
    }

    /// The name of a retained peer.
    ///
    /// # Errors
    /// As [`Snapshot::message`].
    pub fn peer_name(&self, peer: PeerId) -> Result<Option<String>, StoreError> {
        let record: Option<PeerRecord> = self.get(self.open(&self.peers, schema::PEERS)?, peer.0, &Row::Peer(peer))?;
        Ok(record.map(|record| record.name))
    }

    /// The numbers of the first and last row of what the index must look at again.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn reindex_bounds(&self) -> Result<Option<(u64, u64)>, StoreError> {
        let first = self.reindex()?.first().doing(READ)?.map(|(number, _)| number.value());
        let last = self.reindex()?.last().doing(READ)?.map(|(number, _)| number.value());
        Ok(first.zip(last))
    }

    /// What the index must look at again: at most `rows_max` rows after number `after`.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn reindex_after(&self, after: u64, rows_max: usize) -> Result<Vec<(u64, Option<Reference>)>, StoreError> {
        let mut found = Vec::new();
        for row in self.reindex()?.range::<u64>((Bound::Excluded(after), Bound::Unbounded)).doing(READ)?.take(rows_max) {
            let (number, row) = row.doing(READ)?;
            found.push((number.value(), Reference::of(row.value())));
        }
        Ok(found)
    }

    fn get<'k, K, V, T>(
        &self,
        table: &ReadOnlyTable<K, V>,
        key: impl std::borrow::Borrow<K::SelfType<'k>>,
        row: &Row,
    ) -> Result<Option<T>, StoreError>
    where
        K: Key + 'static,
        V: for<'a> Value<SelfType<'a> = &'a [u8]> + 'static,
        T: for<'de> Deserialize<'de>,
    {
        let Some(bytes) = table.get(key).doing(READ)? else { return Ok(None) };
        Ok(self.damage.read(row, bytes.value()))
    }
}
