//! The store: what is durable, in one redb file.
//!
//! Knows rows, transactions and the file. Does not know the rules: it is told [`Change`]s and keeps them.
//!
//! Invariants:
//! - A commit that returned is on the disk, whole; one that did not return leaves all or nothing behind.
//! - After a failed write nothing more is read or written: what the disk holds is only known again after reopening.
//! - Starting costs by what is pending, and by one page in eighty of a file above 16 MiB. It reads nothing else that was said.
//!
//! Reading order: `schema` (the tables), `record` (their values), this file, `image`, `damage`, `things`, `retained`, `reindex`
//! and `reader` (the search index's side), `walk`, `file`, `witness` and `opening` (the files on the disk), `pages` and
//! `salvage` (damage of what redb itself writes), `migrate`, `version_1` and `version_2` (older files), `verify` (`peerctl
//! daemon verify`), `error`. `docs/storage.md` tells the same for people who run it.

mod damage;
mod error;
mod file;
mod image;
mod migrate;
mod opening;
mod pages;
mod reader;
mod record;
mod reindex;
mod retained;
mod salvage;
mod schema;
mod things;
mod verify;
mod version_1;
mod version_2;
mod walk;
mod witness;

#[cfg(test)]
pub(crate) mod tests;

use std::fs::File;
use std::ops::{Bound, ControlFlow};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use peer_core::input::StoredMessage;
use peer_core::record::{DeliveryRecord, Image, KeptRecord, MessageRecord};
use peer_core::step::Change;
use peer_core::thing::NoteRecord;
use peer_proto::ids::{MessageId, PeerId, Timestamp};
use peer_proto::message::Stage;
use peer_proto::request::Position;
use redb::{Database, Key, ReadTransaction, ReadableDatabase, Table, TableDefinition, Value, WriteTransaction};

pub use error::{OpenError, Row, StoreError};
pub use migrate::SCHEMA_VERSION;
pub use reader::{Reader, Snapshot};
pub use record::{RECORD_BYTES_MAX, RecordError};
pub use reindex::Reference;
pub use verify::{Problem, VerifyReport};

use damage::Damage;
use error::{Doing, READ, WRITE};
use file::{Access, StagedFile};
use migrate::Step;
use opening::{open_checked, open_database, open_guarded, refuse_newer};
pub(crate) use walk::Walk;
use witness::Witness;

/// Memory for pages, of reads and of the running transaction together. Enough for the inner pages of a million messages;
/// redb's own default is 1 GiB.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// A file up to this size is checked against its checksums at every start, which takes some milliseconds. Of a larger one the
/// pages that lead to others are; its records are read in the idle time after the start, and each page when it is read.
const CHECKED_AT_OPEN_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Bytes of records that one [`Store::scan`] looks at, so that long texts do not stop the engine for long either.
const SCAN_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Which messages, and in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Only those after this one.
    pub after: Option<MessageId>,
    /// Only those before this one.
    pub before: Option<MessageId>,
    /// Only those sent at or after this time.
    pub since: Option<Timestamp>,
    /// In the order of time; else the newest first.
    pub oldest_first: bool,
}

/// The open database.
#[derive(Debug)]
pub struct Store {
    /// Shared with the readers, which never write.
    database: Arc<Database>,
    /// The file would need a walk through all of it if the process died now: something was written after the last
    /// checkpoint.
    needs_checkpoint: bool,
    /// A write failed: see [`StoreError::Failed`].
    failed: bool,
    /// Shared with the readers, which find damage too.
    damage: Damage,
    /// Absent where the last commit cannot be noted, and in tests without a file.
    witness: Option<Witness>,
    /// The file was too large to be checked when it was opened.
    is_unread: bool,
}

impl Store {
    /// Opens the database file, or creates it with mode 0600. An older schema is migrated, after a verified copy of the
    /// file was put into `backups_dir`. The caller holds the broker's lock.
    ///
    /// # Errors
    /// Then the file is as it was, byte for byte, except after [`OpenError::Migration`] (which leaves it at the last
    /// schema that it reached, with the copy beside it) and [`OpenError::Io`].
    pub fn open(database: &Path, backups_dir: &Path) -> Result<Self, OpenError> {
        Self::open_with(database, backups_dir, migrate::STEPS, CHECKED_AT_OPEN_BYTES_MAX)
    }

    /// A file of more than `checked_max` bytes counts as a large one.
    fn open_with(path: &Path, backups_dir: &Path, steps: &[Step], checked_max: u64) -> Result<Self, OpenError> {
        let file = match file::open_existing(path) {
            Ok(Some(file)) => file,
            Ok(None) => return Self::create(path, steps),
            // A large file may be ours all the same, with its first bytes damaged.
            Err(refused @ OpenError::NoDatabase { .. })
                if std::fs::metadata(path).is_ok_and(|found| found.len() > checked_max) =>
            {
                return match Self::open_remains(path, backups_dir, steps, checked_max, &refused) {
                    Err(OpenError::Damaged { .. }) => Err(refused),
                    opened => opened,
                };
            }
            Err(refused) => return Err(refused),
        };
        let file_bytes = file.metadata().map_err(|source| OpenError::io(path, source))?.len();
        let is_large = file_bytes > checked_max;
        if !is_large {
            let same_file = file.try_clone().map_err(|source| OpenError::io(path, source))?;
            drop(open_checked(path, same_file, Access::Alone)?);
        }
        match Self::open_file(path, file, backups_dir, steps, is_large) {
            Err(OpenError::Damaged { source, .. }) if is_large => {
                Self::open_remains(path, backups_dir, steps, checked_max, &*source)
            }
            opened => opened,
        }
    }

    /// Opens what is left of a damaged file.
    fn open_remains(
        path: &Path,
        backups_dir: &Path,
        steps: &[Step],
        checked_max: u64,
        found: &dyn std::error::Error,
    ) -> Result<Self, OpenError> {
        let lost = salvage::salvage(path, backups_dir, found)?;
        let store = Self::open_with(path, backups_dir, steps, checked_max)?;
        lost.into_iter().for_each(|row| store.damage.note(row));
        Ok(store)
    }

    /// Opens a file of the user's. Where it is damaged, it is as it was.
    fn open_file(path: &Path, file: File, backups_dir: &Path, steps: &[Step], is_large: bool) -> Result<Self, OpenError> {
        let damage = Damage::default();
        let noted = witness::noted(path);
        let same_file = file.try_clone().map_err(|source| OpenError::io(path, source))?;
        let mut before = [0; file::HEAD_BYTES];
        let has_head = same_file.read_exact_at(&mut before, 0).is_ok();
        let (staged, stage) = StagedFile::new(file).map_err(|error| OpenError::of(path, error))?;
        let (database, repaired) = open_guarded(path, staged, &stage, &damage)?;
        let origin = migrate::origin(path, &database)?;
        let known = migrate::newest(steps);
        refuse_newer(path, &origin, known)?;
        if origin.schema < known {
            migrate::back_up(path, backups_dir, &origin)?;
        }
        let opened = stage.head().map_err(|source| OpenError::io(path, source))?;
        let is_behind = has_head && noted.is_some_and(|noted| witness::is_behind(&noted, &before, &opened));
        if is_behind && is_large && noted.is_some_and(|noted| salvage::has(&same_file, &noted)) {
            return Err(OpenError::damaged(path, Row::LastCommit.to_string()));
        }
        stage.release().map_err(|source| OpenError::io(path, source))?;
        let migrated = migrate::run(path, &database, &origin, steps)?;
        let mut store = Self { damage, ..Self::over(database, repaired || migrated) };
        if is_behind {
            store.damage.note(Row::LastCommit);
        }
        store.is_unread = is_large;
        store.bear_witness(path, same_file);
        Ok(store)
    }

    /// Creates the file under another name first: whoever is killed meanwhile leaves no half-made database behind.
    fn create(path: &Path, steps: &[Step]) -> Result<Self, OpenError> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".new");
        let unfinished = PathBuf::from(unfinished);
        let file = file::create_new(&unfinished).map_err(|source| OpenError::io(&unfinished, source))?;
        let same_file = file.try_clone().map_err(|source| OpenError::io(&unfinished, source))?;
        let (staged, stage) = StagedFile::new(file).map_err(|error| OpenError::of(&unfinished, error))?;
        let (database, _) = open_database(staged).map_err(|error| OpenError::of(&unfinished, error))?;
        stage.release().map_err(|source| OpenError::io(&unfinished, source))?;
        let mut store = Self::create_in(database, steps)
            .map_err(|source| OpenError::Creation { path: path.into(), source: Box::new(source) })?;
        std::fs::rename(&unfinished, path).map_err(|source| OpenError::io(path, source))?;
        file::sync_directory_of(path).map_err(|source| OpenError::io(path, source))?;
        store.bear_witness(path, same_file);
        Ok(store)
    }

    fn over(database: Database, needs_checkpoint: bool) -> Self {
        Self {
            database: Arc::new(database),
            needs_checkpoint,
            failed: false,
            damage: Damage::default(),
            witness: None,
            is_unread: false,
        }
    }

    /// Notes each commit beside the database at `path` from now on. Where that is not possible, mail goes on without.
    fn bear_witness(&mut self, path: &Path, database: File) {
        match Witness::open(path, database) {
            Ok(witness) => self.witness = Some(witness),
            Err(error) => tracing::warn!(cause = %error, "cannot note the last commit beside the database"),
        }
        self.note_commit();
    }

    fn note_commit(&mut self) {
        if let Some(Err(error)) = self.witness.as_ref().map(Witness::note) {
            tracing::warn!(cause = %error, "cannot note the last commit beside the database any more");
            self.witness = None;
        }
    }

    /// A look at every record that the start did not read, where none was taken yet: see [`Store::look_on`].
    pub(crate) fn walk(&self) -> Option<Walk> {
        self.is_unread.then(Walk::default)
    }

    /// One step of a walk, of less than a millisecond. Says whether there are more.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(crate) fn look_on(&self, walk: &mut Walk) -> Result<bool, StoreError> {
        walk.step(&self.read()?, &self.damage)
    }

    /// Makes the tables in an empty database.
    fn create_in(database: Database, steps: &[Step]) -> Result<Self, StoreError> {
        migrate::create(&database, migrate::newest(steps))?;
        Ok(Self::over(database, true))
    }

    /// Reads the whole file, checks every checksum, decodes every record and checks them against each other. Changes
    /// nothing on the disk, also not in a file that was not closed cleanly. Takes two to three seconds a gigabyte.
    ///
    /// # Errors
    /// Where there is no file, another process has it open, or it cannot be read at all. What is wrong in a file that can
    /// be read is in the report.
    pub fn verify(database: &Path) -> Result<VerifyReport, OpenError> {
        verify::verify(database, Access::Alone)
    }

    /// As [`Store::verify`], and a broker may start meanwhile. Then what is said is worth nothing.
    ///
    /// # Errors
    /// As [`Store::verify`].
    pub fn glance(database: &Path) -> Result<VerifyReport, OpenError> {
        verify::verify(database, Access::Beside)
    }

    /// Opens a database file for reading alone, and changes nothing on the disk. Nobody else may have it open.
    ///
    /// # Errors
    /// As [`Store::verify`].
    pub fn look(path: &Path) -> Result<Reader, OpenError> {
        let Some(file) = file::open_existing(path)? else { return Err(OpenError::Missing { path: path.into() }) };
        // What it would write to the file is held back for good.
        let (staged, never_released) = StagedFile::new(file).map_err(|error| OpenError::of(path, error))?;
        let damage = Damage::default();
        let (database, _) = open_guarded(path, staged, &never_released, &damage)?;
        let origin = migrate::origin(path, &database)?;
        refuse_newer(path, &origin, SCHEMA_VERSION)?;
        let database = if origin.schema < SCHEMA_VERSION { migrate::migrated_copy(path, &origin)? } else { database };
        Ok(Reader::new(Arc::new(database), damage))
    }

    /// What the core keeps in memory. Pending deliveries come in the order of their messages. What is damaged is left out, or
    /// has a stand-in that is held: see `Store::take_damage`.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn load(&self) -> Result<Image, StoreError> {
        image::load(&self.read()?, &self.damage)
    }

    /// Makes all changes durable together, or none: one transaction, one sync.
    ///
    /// # Errors
    /// Then nothing of it counts, and the store is of no use until it is reopened ([`StoreError::Failed`]). After a failed
    /// sync the reopened store may hold this commit after all, whole.
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.is_usable()?;
        if changes.is_empty() {
            return Ok(());
        }
        // Cleared again only by success: whichever step fails, the store is done.
        self.failed = true;
        let writing = self.database.begin_write().doing(WRITE)?;
        apply(&writing, changes)?;
        writing.commit().doing(WRITE)?;
        self.failed = false;
        self.note_commit();
        self.needs_checkpoint = true;
        Ok(())
    }

    /// One commit that also records which pages are free, so that reopening after a kill takes milliseconds instead of a
    /// walk through the file. Costs two syncs: called when the engine goes idle. Writes nothing if nothing was written
    /// since the last one. With it goes down how much is kept, so that opening need not count it.
    ///
    /// # Errors
    /// As [`Store::commit`]. What was committed before stays durable.
    pub fn checkpoint(&mut self, kept: Option<&KeptRecord>) -> Result<(), StoreError> {
        self.is_usable()?;
        if !self.needs_checkpoint {
            return Ok(());
        }
        self.failed = true;
        let mut writing = self.database.begin_write().doing(WRITE)?;
        writing.set_quick_repair(true);
        if let Some(kept) = kept {
            apply(&writing, &[Change::PutKept(*kept)])?;
        }
        writing.commit().doing(WRITE)?;
        self.failed = false;
        self.note_commit();
        self.needs_checkpoint = false;
        Ok(())
    }

    /// Forgets what the search index was to look at again, up to and with row `seen`: it has.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn trim_reindex(&mut self, seen: u64) -> Result<(), StoreError> {
        if !self.reader().snapshot()?.reindex_bounds()?.is_some_and(|bounds| reindex::is_long(bounds, seen)) {
            return Ok(());
        }
        self.is_usable()?;
        self.failed = true;
        let writing = self.database.begin_write().doing(WRITE)?;
        reindex::trim(&writing, seen)?;
        writing.commit().doing(WRITE)?;
        self.failed = false;
        self.note_commit();
        self.needs_checkpoint = true;
        Ok(())
    }

    /// Another way in, for reading beside the engine. The file is closed when the store and all readers are gone.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.database), self.damage.clone())
    }

    /// What was found damaged since this was last asked, by whoever read it: each record once.
    pub(crate) fn take_damage(&self) -> Vec<Row> {
        self.damage.take_news()
    }

    /// How many records were found damaged since the store was opened.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damage.total()
    }

    /// A record was found damaged, or missing.
    pub(crate) fn is_damaged(&self, row: &Row) -> bool {
        self.damage.has(row)
    }

    /// Notes that a record is missing on which others rest.
    pub(crate) fn note_missing(&self, row: Row) {
        self.damage.note(row);
    }

    /// One message with its text, where it exists and can be read.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn message(&self, id: MessageId) -> Result<Option<MessageRecord>, StoreError> {
        let reading = self.read()?;
        let messages = reading.open_table(schema::MESSAGES).doing(READ)?;
        match messages.get(id.to_u128()).doing(READ)? {
            Some(bytes) => Ok(self.damage.read(&Row::Message(id), bytes.value())),
            // Where there are deliveries of it, it is damaged, which is noted.
            None if self.damage.total() > 0 => self.stored(id).map(|_| None),
            None => Ok(None),
        }
    }

    /// One message's head, idempotency key and deliveries, where it exists. Its text is not copied. Deliveries come by
    /// recipient. Of a damaged message the head is what its deliveries still say, and there is no key.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn stored(&self, id: MessageId) -> Result<Option<StoredMessage>, StoreError> {
        let reading = self.read()?;
        let messages = reading.open_table(schema::MESSAGES).doing(READ)?;
        let bytes = messages.get(id.to_u128()).doing(READ)?;
        // Where a page is damaged, the row itself may be missing, and its deliveries are there.
        if bytes.is_none() && self.damage.total() == 0 {
            return Ok(None);
        }
        let read = bytes.as_ref().and_then(|bytes| self.damage.read_head(&Row::Message(id), bytes.value()));
        let (first, last) = schema::keys_of_message(id).into_inner();
        let mut found = Vec::new();
        for table in 0..schema::DELIVERIES.len() {
            let range = (Bound::Included(first), Bound::Included(last));
            found.extend(image::deliveries(&reading, table, range, usize::MAX, &self.damage)?);
        }
        if bytes.is_none() {
            if found.is_empty() {
                return Ok(None);
            }
            self.damage.note(Row::Message(id));
        }
        found.sort_by_key(|delivery| delivery.peer);
        let read = read.or_else(|| damage::head_from(id, &found).map(|head| (head, None)));
        Ok(read.map(|(head, idempotency_key)| StoredMessage { head, idempotency_key, deliveries: found }))
    }

    /// The messages after one, oldest first, at most `rows_max` of them, and the id to go on from; none: there are no more.
    /// A damaged message is there as far as its deliveries say what it was.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn stored_after(
        &self,
        after: Option<MessageId>,
        rows_max: usize,
    ) -> Result<(Vec<StoredMessage>, Option<MessageId>), StoreError> {
        retained::stored_after(&self.read()?, after, rows_max, &self.damage)
    }

    /// One note, whole, where there is one.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn note(&self, key: &str) -> Result<Option<NoteRecord>, StoreError> {
        things::note(&self.read()?, key, &self.damage)
    }

    /// The message that a sender's idempotency key named, where it named one.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn idempotency(&self, sender: PeerId, key: &str) -> Result<Option<MessageId>, StoreError> {
        let keys = self.read()?.open_table(schema::IDEMPOTENCY).doing(READ)?;
        match keys.get((sender.0, key.as_bytes())).doing(READ)? {
            Some(id) => Ok(self.damage.message_id(id.value())),
            None => Ok(None),
        }
    }

    /// Visits the messages of a span in its order. Stops after `rows_max` rows, or some MiB of long ones, or when `visit`
    /// breaks; then it returns the id to go on from, which is the last that was looked at. None: there are no more. What is
    /// damaged is not visited.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn scan(
        &self,
        span: Span,
        rows_max: usize,
        mut visit: impl FnMut(MessageRecord) -> ControlFlow<()>,
    ) -> Result<Option<MessageId>, StoreError> {
        // An id is never older than the clock was when its message was accepted (it may be newer, where the clock went
        // backwards), so no message sent since then has an id below `first_at(since)`.
        let Span { after, before, since, oldest_first } = span;
        let first = since.map_or(MessageId::MIN, MessageId::first_at).to_u128();
        let first = after.map_or(first, |after| first.max(after.to_u128().saturating_add(1)));
        let end = before.map_or(Bound::Unbounded, |id| Bound::Excluded(id.to_u128()));
        if before.is_some_and(|id| id.to_u128() <= first) {
            return Ok(None);
        }
        let messages = self.read()?.open_table(schema::MESSAGES).doing(READ)?;
        let (mut looked_at, mut bytes_looked_at) = (0, 0);
        let mut rows = messages.range::<u128>((Bound::Included(first), end)).doing(READ)?;
        while let Some(row) = if oldest_first { rows.next() } else { rows.next_back() } {
            let (key, bytes) = row.doing(READ)?;
            let Some(id) = self.damage.message_id(key.value()) else { continue };
            let message: Option<MessageRecord> = self.damage.read(&Row::Message(id), bytes.value());
            looked_at += 1;
            bytes_looked_at += bytes.value().len();
            let matching = message.filter(|message| since.is_none_or(|since| message.head.sent_at >= since));
            let is_enough = matching.is_some_and(|message| visit(message).is_break());
            if is_enough || looked_at >= rows_max || bytes_looked_at >= SCAN_BYTES_MAX {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// At most `limit` dead letters and expired deliveries after `after`, by message, then recipient.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn orphans(&self, after: Option<Position>, limit: usize) -> Result<Vec<DeliveryRecord>, StoreError> {
        let reading = self.read()?;
        let start = after.map_or(Bound::Unbounded, |at| Bound::Excluded((at.message.to_u128(), at.peer.0)));
        let mut found = Vec::new();
        for table in [Stage::Dead, Stage::Expired].into_iter().filter_map(schema::table_of) {
            found.extend(image::deliveries(&reading, table, (start, Bound::Unbounded), limit, &self.damage)?);
        }
        found.sort_by_key(schema::key_of);
        found.truncate(limit);
        Ok(found)
    }

    fn read(&self) -> Result<ReadTransaction, StoreError> {
        self.is_usable()?;
        self.database.begin_read().doing(READ)
    }

    fn is_usable(&self) -> Result<(), StoreError> {
        if self.failed { Err(StoreError::Failed) } else { Ok(()) }
    }
}

/// Carries out `changes`, in order. Each table is opened when the first change needs it: a table that is touched costs
/// pages, also where nothing in it changes.
fn apply(writing: &WriteTransaction, changes: &[Change]) -> Result<(), StoreError> {
    let mut messages = Touched::new(writing, schema::MESSAGES);
    let mut peers = Touched::new(writing, schema::PEERS);
    let mut idempotency = Touched::new(writing, schema::IDEMPOTENCY);
    let mut meta = Touched::new(writing, schema::META);
    let mut things = things::Tables::new(writing);
    let mut reindex = reindex::Log::new(writing);
    let mut deliveries = schema::DELIVERIES.map(|table| Touched::new(writing, table));
    for change in changes {
        reindex.see(change)?;
        match change {
            Change::PutMessage(message) => {
                let id = message.head.id;
                let bytes = record::encode(&Row::Message(id), message)?;
                if messages.open()?.insert(id.to_u128(), bytes.as_slice()).doing(WRITE)?.is_some() {
                    return Err(StoreError::MessageExists { message: id });
                }
            }
            Change::PutDelivery { record: delivery, was } => put_delivery(&mut deliveries, delivery, *was)?,
            Change::RemoveDelivery { message, peer, was } => {
                let removed = match schema::table_of(*was) {
                    Some(from) => deliveries[from].open()?.remove((message.to_u128(), peer.0)).doing(WRITE)?.is_some(),
                    None => false,
                };
                if !removed {
                    return Err(StoreError::Contradiction { message: *message, peer: *peer, was: Some(*was) });
                }
            }
            Change::PutPeer(peer) => {
                let bytes = record::encode(&Row::Peer(peer.id), peer)?;
                peers.open()?.insert(peer.id.0, bytes.as_slice()).doing(WRITE)?;
            }
            Change::RemovePeer(peer) => {
                peers.open()?.remove(peer.0).doing(WRITE)?;
            }
            Change::PutIdempotencyKey { sender, key, message } => {
                idempotency.open()?.insert((sender.0, key.as_bytes()), message.to_u128()).doing(WRITE)?;
            }
            Change::PutNextPeer(peer) => {
                let bytes = record::encode(&Row::NextPeer, &peer.0)?;
                meta.open()?.insert(schema::META_NEXT_PEER, bytes.as_slice()).doing(WRITE)?;
            }
            Change::PutThing(thing) => things.put(thing)?,
            Change::RemoveThing(key) => things.remove(key)?,
            Change::PutNextTask(task) => {
                let bytes = record::encode(&Row::NextTask, &task.0)?;
                meta.open()?.insert(schema::META_NEXT_TASK, bytes.as_slice()).doing(WRITE)?;
            }
            Change::RemoveMessage(message) => match remove_message(&mut messages, &mut deliveries, *message)? {
                Removed::Whole { sender, key: Some(key) } => {
                    idempotency.open()?.remove((sender.0, key.as_bytes())).doing(WRITE)?;
                }
                Removed::Damaged => idempotency.open()?.retain(|_, named| named != message.to_u128()).doing(WRITE)?,
                Removed::Whole { key: None, .. } | Removed::Nothing => {}
            },
            Change::PutSettings(settings) => {
                let bytes = record::encode(&Row::Settings, settings)?;
                meta.open()?.insert(schema::META_SETTINGS, bytes.as_slice()).doing(WRITE)?;
            }
            Change::PutKept(kept) => {
                let bytes = record::encode(&Row::Kept, kept)?;
                meta.open()?.insert(schema::META_KEPT, bytes.as_slice()).doing(WRITE)?;
            }
            Change::PutPauses(pauses) => {
                let bytes = record::encode(&Row::Pauses, pauses)?;
                meta.open()?.insert(schema::META_PAUSES, bytes.as_slice()).doing(WRITE)?;
            }
        }
    }
    Ok(())
}

/// Moves a delivery from the table of the stage that it had to that of the stage that it has. A core that is wrong about
/// what is stored must not be believed: then nothing is written.
fn put_delivery(
    tables: &mut [Touched<'_, schema::DeliveryKey, &'static [u8]>],
    delivery: &DeliveryRecord,
    was: Option<Stage>,
) -> Result<(), StoreError> {
    let (message, peer) = (delivery.message, delivery.peer);
    let contradiction = || StoreError::Contradiction { message, peer, was };
    let to = schema::table_of(delivery.stage).ok_or_else(contradiction)?;
    let from = was.map(|stage| schema::table_of(stage).ok_or_else(contradiction)).transpose()?;
    let bytes = record::encode(&Row::Delivery(message, peer), delivery)?;
    let key = schema::key_of(delivery);
    if let Some(from) = from.filter(|from| *from != to)
        && tables[from].open()?.remove(key).doing(WRITE)?.is_none()
    {
        return Err(contradiction());
    }
    let replaced = tables[to].open()?.insert(key, bytes.as_slice()).doing(WRITE)?.is_some();
    if replaced != (from == Some(to)) {
        return Err(contradiction());
    }
    Ok(())
}

/// What a message was that was taken out.
enum Removed {
    /// There was none.
    Nothing,
    /// Its idempotency key can be told.
    Whole { sender: PeerId, key: Option<String> },
    /// Whether a key names it cannot be told from it.
    Damaged,
}

/// Takes a message out, with its deliveries. One that is not settled everywhere must not go: then nothing is written.
fn remove_message(
    messages: &mut Touched<'_, u128, &'static [u8]>,
    deliveries: &mut [Touched<'_, schema::DeliveryKey, &'static [u8]>],
    id: MessageId,
) -> Result<Removed, StoreError> {
    let removed = messages.open()?.remove(id.to_u128()).doing(WRITE)?;
    let Some(bytes) = removed else { return Ok(Removed::Nothing) };
    let removed = match record::decode_head(&Row::Message(id), bytes.value()) {
        Ok((head, key)) => Removed::Whole { sender: head.from.peer, key },
        Err(_) => Removed::Damaged,
    };
    drop(bytes);
    for (place, table) in deliveries.iter_mut().enumerate() {
        let table = table.open()?;
        let mut rows = table.extract_from_if(schema::keys_of_message(id), |_, _| true).doing(WRITE)?;
        if let Some(row) = rows.next() {
            let (key, _) = row.doing(WRITE)?;
            if Some(place) == schema::table_of(Stage::Stored) {
                return Err(StoreError::Contradiction { message: id, peer: PeerId(key.value().1), was: None });
            }
        }
        for row in rows {
            row.doing(WRITE)?;
        }
    }
    Ok(removed)
}

/// A table that a transaction opens once, when it first needs it.
struct Touched<'txn, K: Key + 'static, V: Value + 'static> {
    writing: &'txn WriteTransaction,
    definition: TableDefinition<'static, K, V>,
    table: Option<Table<'txn, K, V>>,
}

impl<'txn, K: Key + 'static, V: Value + 'static> Touched<'txn, K, V> {
    fn new(writing: &'txn WriteTransaction, definition: TableDefinition<'static, K, V>) -> Self {
        Self { writing, definition, table: None }
    }

    fn open(&mut self) -> Result<&mut Table<'txn, K, V>, StoreError> {
        match &mut self.table {
            Some(table) => Ok(table),
            closed => Ok(closed.insert(self.writing.open_table(self.definition).doing(WRITE)?)),
        }
    }
}
