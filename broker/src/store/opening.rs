//! Opens a file with redb.
//!
//! Knows which checks come before redb opens a file. Does not know what happens to a damaged file.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use redb::{Database, StorageBackend};

use super::CACHE_BYTES;
use super::damage::Damage;
use super::error::OpenError;
use super::file::{self, Access, StagedFile};
use super::migrate::{self, Origin};
use super::pages::guard::GuardedFile;
use super::pages::survey::{self, Known};
use super::witness::Head;

/// Opens or initializes redb on `backend`. Also returns whether the whole file had to be read, as
/// after a kill without a checkpoint.
pub(super) fn open_database(
    backend: impl StorageBackend,
) -> Result<(Database, bool), redb::DatabaseError> {
    let repaired = Arc::new(AtomicBool::new(false));
    let saw_repair = Arc::clone(&repaired);
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .set_repair_callback(move |_| saw_repair.store(true, Ordering::Relaxed))
        .create_with_backend(backend)?;
    Ok((database, repaired.load(Ordering::Relaxed)))
}

/// Opens a file once its inner pages were checked. Each page is checked when redb reads it.
pub(super) fn open_guarded(
    path: &Path,
    staged: StagedFile,
    stage: &file::StagedWrites,
    damage: &Damage,
) -> Result<(Database, bool), OpenError> {
    let failed = |source| OpenError::of(path, redb::Error::Io(source));
    let file_bytes = staged.len().map_err(failed)?;
    let read = |at: u64, out: &mut [u8]| stage.read(at, out);
    // If redb is going to read the whole file, a page of the last commit may be half written, which
    // is no damage.
    let is_trusted =
        stage.head().is_ok_and(|head| head[file::FLAGS_OFFSET] & file::FLAG_TWO_PHASE != 0);
    let known = if is_trusted { sound_survey(path, &read, file_bytes)? } else { Known::default() };
    let (guarded, watch) = GuardedFile::new(staged, known, damage.clone());
    let (database, repaired) =
        open_database(guarded).map_err(|error| OpenError::of(path, error))?;
    if !is_trusted {
        watch.set(sound_survey(path, &read, file_bytes)?);
    }
    Ok((database, repaired))
}

/// Surveys the pages. Fails if redb would fail on one of them.
fn sound_survey(
    path: &Path,
    read: survey::ReadAt<'_>,
    file_bytes: u64,
) -> Result<Known, OpenError> {
    let started = Instant::now();
    let survey = survey::survey(read, file_bytes)
        .map_err(|source| OpenError::of(path, redb::Error::Io(source)))?;
    let took_ms = started.elapsed().as_millis() as u64;
    tracing::debug!(pages = survey.pages, took_ms, "checked the inner pages of the database");
    match survey.faults.first() {
        Some(fault) => Err(OpenError::damaged(path, fault.to_string())),
        None => Ok(survey.known),
    }
}

pub(super) fn refuse_newer(path: &Path, origin: &Origin, known: u64) -> Result<(), OpenError> {
    if origin.schema <= known {
        return Ok(());
    }
    let (found, written_by) = (origin.schema, origin.written_by.clone());
    Err(OpenError::Newer {
        path: path.into(),
        found,
        written_by,
        known,
        software: migrate::software(),
    })
}

/// Opens a file after the checksum of every page was checked, and never writes to it. Also returns
/// its head as it was opened, and whether its last user closed it.
pub(super) fn open_checked(
    path: &Path,
    file: File,
    access: Access,
) -> Result<(Database, Head, bool), OpenError> {
    let (distrusted, stage, closed) =
        StagedFile::distrusted(file, access).map_err(|error| OpenError::of(path, error))?;
    let (database, _) = open_database(distrusted).map_err(|error| OpenError::of(path, error))?;
    let opened = stage.head().map_err(|source| OpenError::io(path, source))?;
    Ok((database, opened, closed))
}
