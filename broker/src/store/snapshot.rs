//! Snapshots: the only way to read the store.
//!
//! Knows rows, and the replacement of a damaged one. Does not know the rules, the search index or
//! any writer.
//!
//! Invariants:
//! - All reads of one [`Snapshot`] see the store at one moment: after one commit, before the next.
//! - Only the owner of the store writes. A snapshot keeps the file from reusing pages, so nobody
//!   holds one for long. The engine's ends before the next commit, and the search thread takes one
//!   for each batch.

use std::cell::OnceCell;
use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use peer_core::input::StoredMessage;
use peer_core::record::{DeliveryRecord, Image, MessageHead, MessageRecord, PeerRecord};
use peer_core::shared::{NoteRecord, SharedKey, TaskRecord};
use peer_proto::ids::{MessageId, PeerId, TaskId, Timestamp};
use peer_proto::message::Stage;
use peer_proto::request::Position;
use redb::{
    Database, Key, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable,
    ReadableTableMetadata, TableDefinition, Value,
};
use serde::Deserialize;

use super::damage::{Damage, STAND_IN_STAGES, head_from, stand_in};
use super::error::{Doing, READ, RecordName, StoreError};
use super::{Reference, image, schema, shared};

/// Bytes of records that one [`Snapshot::scan`] reads, so that long texts do not stop the engine
/// for long either.
const SCAN_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Takes snapshots of an open store. Each thread that reads has one.
#[derive(Clone, Debug)]
pub struct Snapshots {
    pub(super) database: Arc<Database>,
    pub(super) damage: Damage,
}

/// The store at one moment. Tables are opened when they are first needed.
pub struct Snapshot {
    reading: ReadTransaction,
    damage: Damage,
    messages: OnceCell<ReadOnlyTable<u128, &'static [u8]>>,
    deliveries:
        [OnceCell<ReadOnlyTable<schema::DeliveryKey, &'static [u8]>>; schema::DELIVERIES.len()],
    idempotency: OnceCell<ReadOnlyTable<(u64, &'static [u8]), u128>>,
    notes: OnceCell<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    tasks: OnceCell<ReadOnlyTable<u64, &'static [u8]>>,
    peers: OnceCell<ReadOnlyTable<u64, &'static [u8]>>,
    reindex: OnceCell<ReadOnlyTable<u64, schema::ReferenceRow<'static>>>,
    /// redb closes a database when its last owner drops it, even if it is being read. Then only
    /// cached pages could be read.
    _database: Arc<Database>,
}

/// The messages to visit, and their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Only those after this one.
    pub after: Option<MessageId>,
    /// Only those before this one.
    pub before: Option<MessageId>,
    /// Only those sent at or after this time.
    pub since: Option<Timestamp>,
    /// Whether the oldest come first. Otherwise the newest do.
    pub oldest_first: bool,
}

impl Snapshots {
    /// Takes a snapshot of everything that was committed.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn take(&self) -> Result<Snapshot, StoreError> {
        Ok(Snapshot {
            reading: self.database.begin_read().doing(READ)?,
            damage: self.damage.clone(),
            messages: OnceCell::new(),
            deliveries: Default::default(),
            idempotency: OnceCell::new(),
            notes: OnceCell::new(),
            tasks: OnceCell::new(),
            peers: OnceCell::new(),
            reindex: OnceCell::new(),
            _database: Arc::clone(&self.database),
        })
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

// ---- tables and rows

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

    pub(super) fn messages(&self) -> Result<&ReadOnlyTable<u128, &'static [u8]>, StoreError> {
        self.open(&self.messages, schema::MESSAGES)
    }

    fn notes(&self) -> Result<&ReadOnlyTable<&'static [u8], &'static [u8]>, StoreError> {
        self.open(&self.notes, schema::NOTES)
    }

    fn tasks(&self) -> Result<&ReadOnlyTable<u64, &'static [u8]>, StoreError> {
        self.open(&self.tasks, schema::TASKS)
    }

    fn reindex(&self) -> Result<&ReadOnlyTable<u64, schema::ReferenceRow<'static>>, StoreError> {
        self.open(&self.reindex, schema::REINDEX)
    }

    /// The transaction, for tables that are read once.
    pub(super) fn reading(&self) -> &ReadTransaction {
        &self.reading
    }

    pub(super) fn damage(&self) -> &Damage {
        &self.damage
    }

    fn get<'k, K, V, T>(
        &self,
        table: &ReadOnlyTable<K, V>,
        key: impl std::borrow::Borrow<K::SelfType<'k>>,
        row: &RecordName,
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

// ---- the core's data

impl Snapshot {
    /// Loads the data that the core keeps in memory. Pending deliveries come in the order of their
    /// messages. A damaged record is left out, or replaced by one that is held: see
    /// `Store::take_damage`.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn image(&self) -> Result<Image, StoreError> {
        image::load(self)
    }

    /// Counts messages, notes and tasks.
    ///
    /// # Errors
    /// Like [`Snapshot::image`].
    pub fn entries(&self) -> Result<u64, StoreError> {
        Ok(self.messages()?.len().doing(READ)?
            + self.notes()?.len().doing(READ)?
            + self.tasks()?.len().doing(READ)?)
    }

    /// Whether any reader found a record damaged or missing since the store was opened.
    pub(crate) fn is_damaged(&self, row: &RecordName) -> bool {
        self.damage.has(row)
    }

    /// Records that a record is missing that others depend on.
    pub(crate) fn record_missing(&self, row: RecordName) {
        self.damage.record(row);
    }
}

// ---- messages and deliveries

impl Snapshot {
    /// Returns one message with its text, if it exists and can be read.
    ///
    /// # Errors
    /// Like [`Snapshot::image`].
    pub fn message(&self, id: MessageId) -> Result<Option<MessageRecord>, StoreError> {
        match self.messages()?.get(id.to_u128()).doing(READ)? {
            Some(bytes) => Ok(self.damage.read(&RecordName::Message(id), bytes.value())),
            // If a message is missing while its deliveries exist, this records the damage.
            None if self.damage.total() > 0 => self.stored(id).map(|_| None),
            None => Ok(None),
        }
    }

    /// Returns the deliveries of one message, by recipient. A damaged one is replaced by one that
    /// is held.
    ///
    /// # Errors
    /// Like [`Snapshot::image`].
    pub fn deliveries(&self, id: MessageId) -> Result<Vec<DeliveryRecord>, StoreError> {
        let (first, last) = schema::keys_of_message(id).into_inner();
        let mut found = Vec::new();
        for table in 0..schema::DELIVERIES.len() {
            found.extend(self.deliveries_in(
                table,
                (Bound::Included(first), Bound::Included(last)),
                usize::MAX,
            )?);
        }
        found.sort_by_key(|delivery| delivery.peer);
        Ok(found)
    }

    /// Returns at most `limit` deliveries of one of [`schema::DELIVERIES`], in its order. A damaged
    /// one is replaced.
    pub(super) fn deliveries_in(
        &self,
        table: usize,
        range: (Bound<schema::DeliveryKey>, Bound<schema::DeliveryKey>),
        limit: usize,
    ) -> Result<Vec<DeliveryRecord>, StoreError> {
        let rows = self.open(&self.deliveries[table], schema::DELIVERIES[table])?;
        let mut found = Vec::new();
        for row in rows.range::<schema::DeliveryKey>(range).doing(READ)? {
            if found.len() == limit {
                break;
            }
            let (key, bytes) = row.doing(READ)?;
            let (message, peer) = (key.value().0, PeerId(key.value().1));
            let Some(message) = self.damage.message_id(message) else { continue };
            let row = RecordName::Delivery(message, peer);
            let readable = self.damage.read(&row, bytes.value());
            found.push(
                match readable.filter(|delivery: &DeliveryRecord| {
                    schema::table_of(delivery.stage) == Some(table)
                }) {
                    Some(delivery) => delivery,
                    None => {
                        self.damage.record(row);
                        stand_in(
                            message,
                            peer,
                            STAND_IN_STAGES[table],
                            self.head(message)?.as_ref(),
                        )
                    }
                },
            );
        }
        Ok(found)
    }

    /// Returns the head of a message that can be read.
    fn head(&self, id: MessageId) -> Result<Option<MessageHead>, StoreError> {
        let Some(bytes) = self.messages()?.get(id.to_u128()).doing(READ)? else { return Ok(None) };
        Ok(self.damage.read_head(&RecordName::Message(id), bytes.value()).map(|(head, _)| head))
    }

    /// Returns one message's head, idempotency key and deliveries, if it exists. Its text is not
    /// copied. For a damaged message the head is rebuilt from its deliveries, and there is no key.
    ///
    /// # Errors
    /// Like [`Snapshot::image`].
    pub fn stored(&self, id: MessageId) -> Result<Option<StoredMessage>, StoreError> {
        let bytes = self.messages()?.get(id.to_u128()).doing(READ)?;
        // If a page is damaged, the row itself may be missing while its deliveries exist.
        if bytes.is_none() && self.damage.total() == 0 {
            return Ok(None);
        }
        let read = bytes
            .as_ref()
            .and_then(|bytes| self.damage.read_head(&RecordName::Message(id), bytes.value()));
        let deliveries = self.deliveries(id)?;
        if bytes.is_none() {
            if deliveries.is_empty() {
                return Ok(None);
            }
            self.damage.record(RecordName::Message(id));
        }
        Ok(stored_of(id, read, deliveries))
    }

    /// Returns the messages after one, oldest first, at most `rows_max`, and the id from which to
    /// continue. `None`: there are no more. A damaged message is rebuilt from its deliveries.
    ///
    /// # Errors
    /// Like [`Snapshot::image`].
    pub fn stored_after(
        &self,
        after: Option<MessageId>,
        rows_max: usize,
    ) -> Result<(Vec<StoredMessage>, Option<MessageId>), StoreError> {
        let start = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.to_u128()));
        let (mut found, mut last, mut rows) = (Vec::new(), None, 0);
        for row in self.messages()?.range::<u128>((start, Bound::Unbounded)).doing(READ)? {
            if rows == rows_max {
                return Ok((found, last));
            }
            rows += 1;
            let (key, bytes) = row.doing(READ)?;
            let Some(id) = self.damage.message_id(key.value()) else { continue };
            last = Some(id);
            let read = self.damage.read_head(&RecordName::Message(id), bytes.value());
            found.extend(stored_of(id, read, self.deliveries(id)?));
        }
        Ok((found, None))
    }

    /// Returns the message that a sender's idempotency key names, and its text. `None` also if the
    /// key or the message is damaged.
    ///
    /// # Errors
    /// Like [`Snapshot::image`].
    pub fn sent_under(
        &self,
        sender: PeerId,
        key: &str,
    ) -> Result<Option<(StoredMessage, String)>, StoreError> {
        let keys = self.open(&self.idempotency, schema::IDEMPOTENCY)?;
        let Some(named) = keys.get((sender.0, key.as_bytes())).doing(READ)? else {
            return Ok(None);
        };
        let Some(id) = self.damage.message_id(named.value()) else { return Ok(None) };
        // A damaged key may name any message.
        let message =
            self.message(id)?.filter(|message| message.idempotency_key.as_deref() == Some(key));
        let Some(MessageRecord { head, idempotency_key, text }) = message else { return Ok(None) };
        Ok(Some((StoredMessage { head, idempotency_key, deliveries: self.deliveries(id)? }, text)))
    }

    /// Visits the messages of a span in its order. Stops after `rows_max` rows, or some MiB of long
    /// ones, or when `visit` breaks. Then it returns the last id that was read, from which to
    /// continue. `None`: there are no more. A damaged message is not visited.
    ///
    /// # Errors
    /// Like [`Snapshot::image`].
    pub fn scan(
        &self,
        span: Span,
        rows_max: usize,
        mut visit: impl FnMut(MessageRecord) -> ControlFlow<()>,
    ) -> Result<Option<MessageId>, StoreError> {
        // An id is never older than the clock at the acceptance of its message, and newer if the
        // clock went backwards. So no message sent since then has an id below `first_at(since)`.
        let Span { after, before, since, oldest_first } = span;
        let first = since.map_or(MessageId::MIN, MessageId::first_at).to_u128();
        let first = after.map_or(first, |after| first.max(after.to_u128().saturating_add(1)));
        let end = before.map_or(Bound::Unbounded, |id| Bound::Excluded(id.to_u128()));
        if before.is_some_and(|id| id.to_u128() <= first) {
            return Ok(None);
        }
        let (mut rows_read, mut bytes_read) = (0, 0);
        let mut rows = self.messages()?.range::<u128>((Bound::Included(first), end)).doing(READ)?;
        while let Some(row) = if oldest_first { rows.next() } else { rows.next_back() } {
            let (key, bytes) = row.doing(READ)?;
            let Some(id) = self.damage.message_id(key.value()) else { continue };
            let message: Option<MessageRecord> =
                self.damage.read(&RecordName::Message(id), bytes.value());
            rows_read += 1;
            bytes_read += bytes.value().len();
            let matching =
                message.filter(|message| since.is_none_or(|since| message.head.sent_at >= since));
            let is_enough = matching.is_some_and(|message| visit(message).is_break());
            if is_enough || rows_read >= rows_max || bytes_read >= SCAN_BYTES_MAX {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Returns at most `limit` dead letters and expired deliveries after `after`, by message, then
    /// recipient.
    ///
    /// # Errors
    /// Like [`Snapshot::image`].
    pub fn orphans(
        &self,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<DeliveryRecord>, StoreError> {
        let start =
            after.map_or(Bound::Unbounded, |at| Bound::Excluded((at.message.to_u128(), at.peer.0)));
        let mut found = Vec::new();
        for table in [Stage::Dead, Stage::Expired].into_iter().filter_map(schema::table_of) {
            found.extend(self.deliveries_in(table, (start, Bound::Unbounded), limit)?);
        }
        found.sort_by_key(schema::key_of);
        found.truncate(limit);
        Ok(found)
    }
}

/// Builds a message for the core. If `read` is `None`, the message is damaged, and is rebuilt from
/// its deliveries.
fn stored_of(
    id: MessageId,
    read: Option<(MessageHead, Option<String>)>,
    deliveries: Vec<DeliveryRecord>,
) -> Option<StoredMessage> {
    let read = read.or_else(|| head_from(id, &deliveries).map(|head| (head, None)));
    read.map(|(head, idempotency_key)| StoredMessage { head, idempotency_key, deliveries })
}

// ---- notes, tasks, peers, and changes for the search index

impl Snapshot {
    /// Returns one note with its value, if it exists and can be read.
    ///
    /// # Errors
    /// Like [`Snapshot::image`].
    pub fn note(&self, key: &str) -> Result<Option<NoteRecord>, StoreError> {
        self.get(
            self.notes()?,
            key.as_bytes(),
            &RecordName::SharedRecord(SharedKey::Note(key.to_owned())),
        )
    }

    /// Returns one task, if it exists and can be read.
    ///
    /// # Errors
    /// Like [`Snapshot::image`].
    pub fn task(&self, id: TaskId) -> Result<Option<TaskRecord>, StoreError> {
        self.get(self.tasks()?, id.0, &RecordName::SharedRecord(SharedKey::Task(id)))
    }

    /// Returns all notes, then all tasks.
    ///
    /// # Errors
    /// Like [`Snapshot::image`].
    pub fn notes_and_tasks(&self) -> Result<Vec<Reference>, StoreError> {
        let mut found = Vec::new();
        for row in self.notes()?.iter().doing(READ)? {
            found.push(Reference::Note(shared::text(row.doing(READ)?.0.value())));
        }
        for row in self.tasks()?.iter().doing(READ)? {
            found.push(Reference::Task(TaskId(row.doing(READ)?.0.value())));
        }
        Ok(found)
    }

    /// Returns the name of a retained peer.
    ///
    /// # Errors
    /// Like [`Snapshot::image`].
    pub fn peer_name(&self, peer: PeerId) -> Result<Option<String>, StoreError> {
        let record: Option<PeerRecord> =
            self.get(self.open(&self.peers, schema::PEERS)?, peer.0, &RecordName::Peer(peer))?;
        Ok(record.map(|record| record.name))
    }

    /// Returns the numbers of the first and last row that the index must read again.
    ///
    /// # Errors
    /// Like [`Snapshot::image`].
    pub fn reindex_bounds(&self) -> Result<Option<(u64, u64)>, StoreError> {
        let first = self.reindex()?.first().doing(READ)?.map(|(number, _)| number.value());
        let last = self.reindex()?.last().doing(READ)?.map(|(number, _)| number.value());
        Ok(first.zip(last))
    }

    /// Returns at most `rows_max` rows after number `after` that the index must read again.
    ///
    /// # Errors
    /// Like [`Snapshot::image`].
    pub fn reindex_after(
        &self,
        after: u64,
        rows_max: usize,
    ) -> Result<Vec<(u64, Option<Reference>)>, StoreError> {
        let mut found = Vec::new();
        for row in self
            .reindex()?
            .range::<u64>((Bound::Excluded(after), Bound::Unbounded))
            .doing(READ)?
            .take(rows_max)
        {
            let (number, row) = row.doing(READ)?;
            found.push((number.value(), Reference::of(row.value())));
        }
        Ok(found)
    }
}
