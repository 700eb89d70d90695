//! The store: the durable data, in one redb file.
//!
//! Knows rows, transactions and the file. Does not know the rules: it gets [`Change`]s and stores
//! them. [`Store`] opens the file and commits. A [`Snapshot`] is the only way to read it.
//!
//! Invariants:
//! - A commit that returned is on the disk, whole. A commit that did not return leaves all or
//!   nothing behind.
//! - After a failed write nothing more is read or written, because the content of the disk is known
//!   only after reopening.
//! - The cost of a start grows with pending deliveries, and with one page in eighty of a file above
//!   16 MiB. It reads no other messages.
//!
//! Reading order: `schema` (the tables), `record` (their values), this file, `writing`, `touched`,
//! `shared` and `reindex` (changes become rows), `snapshot` and `image` (rows become records), `damage`,
//! `walk`, `file`, `witness` and `opening` (the files on the disk), `pages` and `salvage` (damage
//! of what redb itself writes), `migrate`, `version_1` and `version_2` (older files), `verify`
//! (`peerctl daemon verify`), `error`. `docs/storage.md` tells the same for people who run it.

mod damage;
mod error;
mod file;
mod image;
mod links;
mod migrate;
mod opening;
mod pages;
mod record;
mod reindex;
mod salvage;
mod schema;
mod shared;
mod snapshot;
mod touched;
mod verify;
mod version_1;
mod version_2;
mod version_3;
mod walk;
mod witness;
mod writing;

#[cfg(test)]
pub(crate) mod tests;

use std::cell::OnceCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use peer_core::record::KeptRecord;
use peer_core::step::Change;
use redb::{Database, WriteTransaction};

pub use error::{OpenError, RecordName, StoreError};
pub use migrate::SCHEMA_VERSION;
pub use record::{RECORD_BYTES_MAX, RecordError};
pub use reindex::Reference;
pub use snapshot::{Snapshot, Snapshots, Span};
pub use verify::{Problem, VerifyReport};

use damage::Damage;
use error::{Doing, WRITE};
use file::{Access, StagedFile};
use migrate::Migration;
use opening::{open_checked, open_database, open_guarded, refuse_newer};
pub(crate) use walk::Walk;
use witness::Witness;

/// Memory for pages, of reads and of the running transaction together. It is enough for the inner
/// pages of a million messages. redb's own default is 1 GiB.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// A file up to this size is checked against its checksums at every start, which takes some
/// milliseconds. Of a larger file only the inner pages are checked. Its records are read in the
/// idle time after the start, and each page is checked when it is read.
const CHECKED_AT_OPEN_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The open database.
#[derive(Debug)]
pub struct Store {
    /// Shared with the readers, which never write and also find damage.
    snapshots: Snapshots,
    /// The snapshot since the last commit.
    current: OnceCell<Snapshot>,
    /// Whether something was written after the last checkpoint. If the process died now, reopening
    /// would have to read the whole file.
    needs_checkpoint: bool,
    /// A write failed: see [`StoreError::Failed`].
    failed: bool,
    /// `None`: the last commit cannot be recorded, or a test has no file.
    witness: Option<Witness>,
    /// Whether the file was too large to be checked when it was opened.
    is_unread: bool,
}

impl Store {
    /// Opens the database file, or creates it with mode 0600. An older schema is migrated, after a
    /// verified copy of the file was put into `backups_dir`. The caller holds the broker's lock.
    ///
    /// # Errors
    /// The file is then unchanged, byte for byte, with two exceptions. [`OpenError::Migration`]
    /// leaves it at the last schema that it reached, with the copy beside it. The other exception
    /// is [`OpenError::Io`].
    pub fn open(database: &Path, backups_dir: &Path) -> Result<Self, OpenError> {
        Self::open_with(database, backups_dir, migrate::STEPS, CHECKED_AT_OPEN_BYTES_MAX)
    }

    /// Opens the database. A file of more than `checked_max` bytes counts as a large one.
    fn open_with(
        path: &Path,
        backups_dir: &Path,
        steps: &[Migration],
        checked_max: u64,
    ) -> Result<Self, OpenError> {
        let file = match file::open_existing(path) {
            Ok(Some(file)) => file,
            Ok(None) => return Self::create(path, steps),
            // A large file may still be ours, with its first bytes damaged.
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

    /// Opens the remains of a damaged file.
    fn open_remains(
        path: &Path,
        backups_dir: &Path,
        steps: &[Migration],
        checked_max: u64,
        found: &dyn std::error::Error,
    ) -> Result<Self, OpenError> {
        let lost = salvage::salvage(path, backups_dir, found)?;
        let store = Self::open_with(path, backups_dir, steps, checked_max)?;
        lost.into_iter().for_each(|row| store.snapshots.damage.record(row));
        Ok(store)
    }

    /// Opens a file of the user's. A damaged file stays unchanged.
    fn open_file(
        path: &Path,
        file: File,
        backups_dir: &Path,
        steps: &[Migration],
        is_large: bool,
    ) -> Result<Self, OpenError> {
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
        let is_behind =
            has_head && noted.is_some_and(|noted| witness::is_behind(&noted, &before, &opened));
        if is_behind && is_large && noted.is_some_and(|noted| salvage::has(&same_file, &noted)) {
            return Err(OpenError::damaged(path, RecordName::LastCommit.to_string()));
        }
        stage.carry_out().map_err(|source| OpenError::io(path, source))?;
        let migrated = migrate::run(path, &database, &origin, steps)?;
        let mut store = Self::over(database, repaired || migrated);
        if is_behind {
            damage.record(RecordName::LastCommit);
        }
        store.snapshots.damage = damage;
        store.is_unread = is_large;
        store.bear_witness(path, same_file);
        Ok(store)
    }

    /// Creates the file under another name first, so that a kill leaves no incomplete database.
    fn create(path: &Path, steps: &[Migration]) -> Result<Self, OpenError> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".new");
        let unfinished = PathBuf::from(unfinished);
        let file =
            file::create_new(&unfinished).map_err(|source| OpenError::io(&unfinished, source))?;
        let same_file = file.try_clone().map_err(|source| OpenError::io(&unfinished, source))?;
        let (staged, stage) =
            StagedFile::new(file).map_err(|error| OpenError::of(&unfinished, error))?;
        let (database, _) =
            open_database(staged).map_err(|error| OpenError::of(&unfinished, error))?;
        stage.carry_out().map_err(|source| OpenError::io(&unfinished, source))?;
        let mut store = Self::create_in(database, steps).map_err(|source| OpenError::Creation {
            path: path.into(),
            source: Box::new(source),
        })?;
        std::fs::rename(&unfinished, path).map_err(|source| OpenError::io(path, source))?;
        file::sync_directory_of(path).map_err(|source| OpenError::io(path, source))?;
        store.bear_witness(path, same_file);
        Ok(store)
    }

    fn over(database: Database, needs_checkpoint: bool) -> Self {
        Self {
            snapshots: Snapshots { database: Arc::new(database), damage: Damage::default() },
            current: OnceCell::new(),
            needs_checkpoint,
            failed: false,
            witness: None,
            is_unread: false,
        }
    }

    /// Records each commit beside the database at `path` from now on. If that is not possible, the
    /// store works without.
    fn bear_witness(&mut self, path: &Path, database: File) {
        match Witness::open(path, database) {
            Ok(witness) => self.witness = Some(witness),
            Err(error) => {
                tracing::warn!(cause = %error, "cannot record the last commit beside the database")
            }
        }
        self.record_commit();
    }

    fn record_commit(&mut self) {
        if let Some(Err(error)) = self.witness.as_ref().map(Witness::record) {
            tracing::warn!(cause = %error, "cannot record the last commit beside the database any more");
            self.witness = None;
        }
    }

    /// Returns a walk over every record that the start did not read, if there was none yet: see
    /// [`Store::read_on`].
    pub(crate) fn walk(&self) -> Option<Walk> {
        self.is_unread.then(Walk::default)
    }

    /// Makes one step of a walk, of less than a millisecond. Returns whether there are more.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn read_on(&self, walk: &mut Walk) -> Result<bool, StoreError> {
        walk.step(self.snapshot()?)
    }

    /// Makes the tables in an empty database.
    fn create_in(database: Database, steps: &[Migration]) -> Result<Self, StoreError> {
        migrate::create(&database, migrate::newest(steps))?;
        Ok(Self::over(database, true))
    }

    /// Reads the whole file, checks every checksum, decodes every record and checks them against
    /// each other. Changes nothing on the disk, even in a file that was not closed cleanly. Takes
    /// two to three seconds per gigabyte.
    ///
    /// # Errors
    /// If there is no file, another process has it open, or it cannot be read at all. Problems of a
    /// readable file are in the report.
    pub fn verify(database: &Path) -> Result<VerifyReport, OpenError> {
        verify::verify(database, Access::Alone)
    }

    /// Like [`Store::verify`], but a broker may start meanwhile. Then the report is void.
    ///
    /// # Errors
    /// Like [`Store::verify`].
    pub fn glance(database: &Path) -> Result<VerifyReport, OpenError> {
        verify::verify(database, Access::Beside)
    }

    /// Opens a database file for reading alone, and changes nothing on the disk. No other process
    /// may have it open.
    ///
    /// # Errors
    /// Like [`Store::verify`].
    pub fn open_for_reading(path: &Path) -> Result<Snapshots, OpenError> {
        let Some(file) = file::open_existing(path)? else {
            return Err(OpenError::Missing { path: path.into() });
        };
        // Its writes to the file are held and never carried out.
        let (staged, never_carried_out) =
            StagedFile::new(file).map_err(|error| OpenError::of(path, error))?;
        let damage = Damage::default();
        let (database, _) = open_guarded(path, staged, &never_carried_out, &damage)?;
        let origin = migrate::origin(path, &database)?;
        refuse_newer(path, &origin, SCHEMA_VERSION)?;
        let database = if origin.schema < SCHEMA_VERSION {
            migrate::migrated_copy(path, &origin)?
        } else {
            database
        };
        Ok(Snapshots { database: Arc::new(database), damage })
    }

    /// Returns the store as of the last commit. All reads until the next commit use this same
    /// snapshot. The borrow ends with the commit, so no code can read older data after it.
    ///
    /// # Errors
    /// If the file cannot be read, or a commit failed.
    pub fn snapshot(&self) -> Result<&Snapshot, StoreError> {
        self.is_usable()?;
        if let Some(snapshot) = self.current.get() {
            return Ok(snapshot);
        }
        let snapshot = self.snapshots.take()?;
        Ok(self.current.get_or_init(|| snapshot))
    }

    /// Returns snapshots for reading on another thread. The file is closed when the store and all
    /// of these are dropped.
    #[must_use]
    pub fn snapshots(&self) -> Snapshots {
        self.snapshots.clone()
    }

    /// Makes all changes durable together, or none: one transaction, one sync.
    ///
    /// # Errors
    /// None of the changes is in force then, and the store is unusable until it is reopened
    /// ([`StoreError::Failed`]). After a failed sync the reopened store may still hold this commit,
    /// whole.
    pub fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.is_usable()?;
        if changes.is_empty() {
            return Ok(());
        }
        self.write(|writing| writing::apply(writing, changes))
    }

    /// Makes one commit that also records which pages are free. Reopening after a kill then takes
    /// milliseconds instead of a read of the whole file. It costs two syncs, and is called when the
    /// engine goes idle. Writes nothing if nothing was written since the last one. It also records
    /// the totals, so that opening need not count them.
    ///
    /// # Errors
    /// Like [`Store::commit`]. Earlier commits stay durable.
    pub fn checkpoint(&mut self, kept: Option<&KeptRecord>) -> Result<(), StoreError> {
        self.is_usable()?;
        if !self.needs_checkpoint {
            return Ok(());
        }
        self.write(|writing| {
            writing.set_quick_repair(true);
            kept.map_or(Ok(()), |kept| writing::apply(writing, &[Change::PutKept(*kept)]))
        })?;
        self.needs_checkpoint = false;
        Ok(())
    }

    /// Deletes the rows that the search index has read again, up to and including row `seen`.
    ///
    /// # Errors
    /// Like [`Store::commit`].
    pub fn trim_reindex(&mut self, seen: u64) -> Result<(), StoreError> {
        if !self.snapshot()?.reindex_bounds()?.is_some_and(|bounds| reindex::is_long(bounds, seen))
        {
            return Ok(());
        }
        self.write(|writing| reindex::trim(writing, seen))
    }

    /// One write transaction: the only way to change the file.
    fn write(
        &mut self,
        work: impl FnOnce(&mut WriteTransaction) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.is_usable()?;
        // It will be out of date, and this commit could not reuse the pages that it holds.
        self.current.take();
        // Only success clears it again: after any failed step, the store is unusable.
        self.failed = true;
        let mut writing = self.snapshots.database.begin_write().doing(WRITE)?;
        work(&mut writing)?;
        writing.commit().doing(WRITE)?;
        self.failed = false;
        self.record_commit();
        self.needs_checkpoint = true;
        Ok(())
    }

    fn is_usable(&self) -> Result<(), StoreError> {
        if self.failed { Err(StoreError::Failed) } else { Ok(()) }
    }

    /// Returns the damage that any reader found since the last call, each record once.
    pub(crate) fn take_damage(&self) -> Vec<RecordName> {
        self.snapshots.damage.take_news()
    }

    /// Counts the records that were found damaged since the store was opened.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.snapshots.damage.total()
    }
}
