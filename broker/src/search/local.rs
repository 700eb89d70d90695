//! An index in this process, over an open store: for rebuilding, checks, tests and measurements.
//!
//! The broker never uses one: its index is in a process of its own.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use peer_core::step::Search;
use peer_proto::ids::Timestamp;
use peer_proto::search::Hit;
use serde::{Deserialize, Serialize};

use super::entry::key_of;
use super::feed::{self, Batch};
use super::index::{COMMIT_BYTES, Index, IndexError, Looked};
use super::wire::Cursor;
use super::{answer, words};
use crate::store::{Reference, Snapshot, Snapshots, Span};

/// The result of catching up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaughtUp {
    /// Everything that the store held is indexed.
    Whole,
    /// It was stopped before.
    Part,
}

/// An index and its position.
pub struct LocalIndex {
    index: Index,
    cursor: Cursor,
}

/// The result of opening a directory.
pub enum LocalLooked {
    /// No index, or one of another store or another format.
    None,
    /// An index with this number of damaged files.
    Damaged(u64),
    /// An index that fits the store.
    Sound(Box<LocalIndex>),
}

impl LocalIndex {
    /// Opens the index in `dir`. Creates a new one if there is none, if it is of another store, or
    /// if it cannot be read.
    ///
    /// # Errors
    /// If the directory cannot be written, or the store cannot be read.
    pub fn open(dir: &Path, store: &Snapshot) -> Result<Self, IndexError> {
        match Self::open_in(dir, store)? {
            LocalLooked::Sound(index) => Ok(*index),
            LocalLooked::None | LocalLooked::Damaged(_) => Self::create(dir),
        }
    }

    /// Opens the index in `dir` for reading.
    ///
    /// # Errors
    /// If the directory or the store cannot be read.
    pub fn open_in(dir: &Path, store: &Snapshot) -> Result<LocalLooked, IndexError> {
        Ok(match Index::open_dir(dir)? {
            Looked::None => LocalLooked::None,
            Looked::Damaged(files) => LocalLooked::Damaged(files),
            Looked::Sound(index) if feed::fits(store, index.cursor())? => {
                let cursor = index.cursor();
                LocalLooked::Sound(Box::new(Self { index: *index, cursor }))
            }
            Looked::Sound(_) => LocalLooked::None,
        })
    }

    /// Deletes the old index and creates a new one.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn create(dir: &Path) -> Result<Self, IndexError> {
        make_private(dir).map_err(|source| IndexError::Directory { path: dir.into(), source })?;
        Ok(Self { index: Index::create(dir)?, cursor: Cursor::default() })
    }

    /// Indexes everything that the store has and the index lacks. Calls `stop` now and then.
    ///
    /// # Errors
    /// [`IndexError::Behind`] if the index must be rebuilt. Otherwise the index cannot be written,
    /// or the store cannot be read.
    pub fn catch_up(
        &mut self,
        store: &Snapshots,
        mut stop: impl FnMut() -> bool,
    ) -> Result<CaughtUp, IndexError> {
        let mut uncommitted_bytes = 0;
        loop {
            let (puts, cursor, bytes) = match feed::batch(&store.take()?, self.cursor)? {
                Batch::Nothing => break,
                Batch::Behind => return Err(IndexError::Behind),
                Batch::Work { puts, cursor, bytes } => (puts, cursor, bytes),
            };
            for put in &puts {
                self.index.put(put)?;
            }
            self.index.through(cursor);
            self.cursor = cursor;
            uncommitted_bytes += bytes;
            let stopped = stop();
            if stopped || uncommitted_bytes >= COMMIT_BYTES {
                self.index.commit()?;
                uncommitted_bytes = 0;
            }
            if stopped {
                return Ok(CaughtUp::Part);
            }
        }
        self.index.commit()?;
        Ok(CaughtUp::Whole)
    }

    /// The number of entries.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.index.entries()
    }

    /// The row up to which the store need not retain changes for the index.
    #[must_use]
    pub fn seen_row(&self) -> u64 {
        self.index.cursor().row
    }

    /// Waits until the commits are merged into as few segments as intended, for measurements.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub fn merge(&mut self) -> Result<(), IndexError> {
        self.index.merge()
    }

    /// Runs a search that the rules permitted. Returns the hits, and their total number.
    ///
    /// # Errors
    /// If the index or the store cannot be read.
    pub fn find(
        &self,
        store: &Snapshot,
        search: &Search,
        now: Timestamp,
    ) -> Result<(Vec<Hit>, u64), IndexError> {
        let parts = words::parts(&search.query.text);
        let found = self.index.views().current().find(search, &parts)?;
        Ok(answer::hits(store, &mut words::analyzer(), &parts, &found, now)?)
    }

    /// Checks the index against the store: there must be one entry for each item that the index has
    /// read.
    ///
    /// # Errors
    /// If the index or the store cannot be read.
    pub fn check(&self, store: &Snapshot) -> Result<IndexReport, IndexError> {
        let view = self.index.views().current();
        let mut report = IndexReport { entries: self.entries(), ..IndexReport::default() };
        let changed = store
            .reindex_after(self.cursor.row, usize::MAX)?
            .into_iter()
            .filter_map(|(_, reference)| reference);
        let mut changed: BTreeSet<String> = changed.map(|reference| key_of(&reference)).collect();
        let mut accounted = 0;
        let mut look =
            |report: &mut IndexReport, key: String, seen: bool| -> Result<(), IndexError> {
                let count = view.count(&key)?;
                accounted += count;
                match seen && !changed.remove(&key) {
                    true => report.missing += u64::from(count != 1),
                    false => report.behind += 1,
                }
                Ok(())
            };
        for reference in store.notes_and_tasks()? {
            look(&mut report, key_of(&reference), true)?;
        }
        let mut ids = Vec::new();
        let mut span = Span { oldest_first: true, ..Span::default() };
        loop {
            let next = store.scan(span, usize::MAX, |message| {
                ids.push(message.head.id);
                ControlFlow::Continue(())
            })?;
            if next.is_none() {
                break;
            }
            span.after = next;
        }
        for id in ids {
            look(&mut report, key_of(&Reference::Message(id)), Some(id) <= self.cursor.message)?;
        }
        // Items that were deleted from the store and not yet from the index.
        for key in std::mem::take(&mut changed) {
            accounted += view.count(&key)?;
            report.behind += 1;
        }
        report.left_over = report.entries.saturating_sub(accounted);
        Ok(report)
    }
}

/// The result of checking the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexReport {
    /// Files whose content is not what was written.
    pub damaged_files: u64,
    /// Entries that can be found.
    pub entries: u64,
    /// Changes since the position of the index. They are indexed before the next search is
    /// answered.
    pub behind: u64,
    /// Items of the store without exactly one entry.
    pub missing: u64,
    /// Entries of items that are not in the store.
    pub left_over: u64,
}

impl IndexReport {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damaged_files == 0 && self.missing == 0 && self.left_over == 0
    }
}

/// A directory that nobody else can read.
pub(super) fn make_private(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).recursive(true).create(dir)
}
