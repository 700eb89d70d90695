//! The file as redb sees it: each page is checked when it is read from the disk.
//!
//! A sound page is given to redb unchanged. Of a damaged leaf redb sees the plausible rows, so that
//! damage of a page becomes damage of records. If an inner page or one of redb's own pages is
//! damaged, the read fails. Then the broker logs the damage and ends, and the next start makes a
//! new file of the remains.
//!
//! A page without a known checksum is given unchanged. Those are the file's head, and pages that no
//! commit has.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use redb::{BackendError, StorageBackend};

use super::super::damage::Damage;
use super::super::error::RecordName;
use super::super::file::StagedFile;
use super::format::{self, Keys};
use super::repair;
use super::survey::{self, Expected, Known};

/// Damaged pages that are cached in their readable form. Others are made readable at each read.
const READABLE_MAX: usize = 64;

/// A file whose pages are checked.
#[derive(Debug)]
pub(crate) struct GuardedFile {
    file: StagedFile,
    watch: Arc<PageGuard>,
}

/// The known checksums of the pages. Shared with the opener of the file.
#[derive(Debug)]
pub(crate) struct PageGuard {
    known: RwLock<Known>,
    damage: Damage,
    /// Damaged leaves by their place: the checksum of their bytes on the disk, and the page that
    /// redb sees.
    readable: Mutex<BTreeMap<u64, (u128, Vec<u8>)>>,
}

impl GuardedFile {
    /// Creates the file. Damage that is found is recorded in `damage`.
    pub(crate) fn new(file: StagedFile, known: Known, damage: Damage) -> (Self, Arc<PageGuard>) {
        let watch =
            Arc::new(PageGuard { known: RwLock::new(known), damage, readable: Mutex::default() });
        (Self { file, watch: Arc::clone(&watch) }, watch)
    }

    /// Returns the form in which redb may see the page at `at`, which is not the expected one.
    fn without_damage(&self, at: u64, page: &[u8], expected: Expected) -> io::Result<Vec<u8>> {
        let found = format::sum(page);
        if let Some((_, readable)) = self.watch.readable().get(&at).filter(|(of, _)| *of == found) {
            return Ok(readable.clone());
        }
        self.watch.damage.record(RecordName::Page(at));
        let read = |at: u64, out: &mut [u8]| self.file.read(at, out);
        let located = survey::locate(&read, self.file.len()?, at)?;
        let located = located.filter(|located| located.shape.keys != Keys::Guarded);
        let mended = located
            .as_ref()
            .and_then(|located| repair::repaired(page, &located.shape, |page| expected.is(page)));
        let readable = match (mended, located) {
            (Some(mended), _) => mended,
            (None, Some(located)) if located.is_leaf => {
                repair::readable(page, &located.shape, &located.bounds)
            }
            _ => {
                let said = format!("the page at byte {at} of the database is damaged");
                return Err(io::Error::new(io::ErrorKind::InvalidData, said));
            }
        };
        let mut kept = self.watch.readable();
        if kept.len() < READABLE_MAX {
            kept.insert(at, (found, readable.clone()));
        }
        Ok(readable)
    }
}

impl PageGuard {
    /// Replaces the known checksums.
    pub(crate) fn set(&self, known: Known) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    fn expected(&self, at: u64, bytes: usize) -> Option<Expected> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).at(at, bytes)
    }

    fn readable(&self) -> MutexGuard<'_, BTreeMap<u64, (u128, Vec<u8>)>> {
        // Each change to it is one insertion: a panic elsewhere cannot leave it half done.
        self.readable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for GuardedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)?;
        if let Some(expected) = self.watch.expected(offset, out.len())
            && !expected.is(out)
        {
            let readable = self.without_damage(offset, out, expected)?;
            out.copy_from_slice(&readable);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.watch.known.write().unwrap_or_else(PoisonError::into_inner).cut(len);
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // The head has its own checksums, and is written in parts.
        if offset > 0 {
            self.watch.known.write().unwrap_or_else(PoisonError::into_inner).write(offset, data);
        }
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
