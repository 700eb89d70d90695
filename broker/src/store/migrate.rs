//! Schema versions: the version of a file, and the steps from an older one to the current one.
//!
//! Knows the `meta` table and the steps. Does not know the tables' meaning, except inside a step.
//!
//! Invariants: a step is one transaction, which also raises the version, so a file is always at a
//! version that some build knows. A file is changed only after a copy of it was made and opened. A
//! newer file is never changed.
//!
//! To change the schema or a record: append a [`Migration`] to [`STEPS`], and move the old record types
//! and table definitions into a file of their own like `version_1.rs`. That file never changes
//! again: shipped types are never edited.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase, TableError, WriteTransaction};

use super::error::{Doing, OpenError, StoreError, WRITE};
use super::file::Access;
use super::{
    file, links, open_checked, open_database, record, schema, shared, version_1, version_2,
    version_3,
};

/// The steps from each schema to the next: the first leads from 1 to 2.
pub(super) const STEPS: &[Migration] =
    &[version_1::to_version_2, version_2::to_version_3, version_3::to_version_4];

/// The schema that this build writes.
pub const SCHEMA_VERSION: u64 = newest(STEPS);

/// Rewrites the rows that differ in the next schema, in the given transaction.
pub(super) type Migration = fn(&WriteTransaction) -> Result<(), StoreError>;

/// The schema that `steps` lead to.
pub(super) const fn newest(steps: &[Migration]) -> u64 {
    1 + steps.len() as u64
}

/// The origin that a database states.
#[derive(Debug)]
pub(super) struct Origin {
    /// Its schema.
    pub(super) schema: u64,
    /// Version and executable of the program that last raised the schema.
    pub(super) written_by: String,
}

/// Version and executable of this program.
pub(super) fn software() -> String {
    let executable = std::env::current_exe().unwrap_or_default();
    format!("{} ({})", env!("CARGO_PKG_VERSION"), executable.display())
}

/// Makes the tables of `schema_version` in an empty database.
pub(super) fn create(database: &Database, schema_version: u64) -> Result<(), StoreError> {
    let writing = database.begin_write().doing(WRITE)?;
    writing.open_table(schema::PEERS).doing(WRITE)?;
    writing.open_table(schema::MESSAGES).doing(WRITE)?;
    writing.open_table(schema::IDEMPOTENCY).doing(WRITE)?;
    shared::create(&writing)?;
    links::create(&writing)?;
    writing.open_table(schema::REINDEX).doing(WRITE)?;
    for table in schema::DELIVERIES {
        writing.open_table(table).doing(WRITE)?;
    }
    stamp(&writing, schema_version)?;
    writing.commit().doing(WRITE)
}

/// Reads the origin of the database at `path`.
pub(super) fn origin(path: &Path, database: &Database) -> Result<Origin, OpenError> {
    let damaged = |error: redb::Error| OpenError::of(path, error);
    let reading = database.begin_read().map_err(|error| damaged(error.into()))?;
    let meta = match reading.open_table(schema::META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => {
            return Err(OpenError::Foreign { path: path.into() });
        }
        Err(error) => return Err(damaged(error.into())),
    };
    let schema = match meta.get(schema::META_SCHEMA).map_err(|error| damaged(error.into()))? {
        Some(bytes) => record::decode_number(bytes.value())
            .map_err(|_| OpenError::Foreign { path: path.into() })?,
        None => return Err(OpenError::Foreign { path: path.into() }),
    };
    let written_by =
        match meta.get(schema::META_WRITTEN_BY).map_err(|error| damaged(error.into()))? {
            Some(bytes) => String::from_utf8_lossy(bytes.value()).into_owned(),
            None => String::new(),
        };
    Ok(Origin { schema, written_by })
}

/// Copies the closed-off file at `path` into `backups_dir` and checks the copy.
pub(super) fn back_up(path: &Path, backups_dir: &Path, origin: &Origin) -> Result<(), OpenError> {
    let now_ms =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis());
    let copy = backups_dir.join(format!("peers-v{}-{now_ms}.redb", origin.schema));
    if let Err(source) = copy_file(path, backups_dir, &copy) {
        // Remove the partial copy. If that fails as well, the first error is the one to report.
        let _ = std::fs::remove_file(&copy);
        return Err(OpenError::Backup { path: copy, source });
    }
    check_copy(&copy, origin)
        .map_err(|source| OpenError::BackupUnsound { path: copy, source: Box::new(source) })
}

pub(super) fn copy_file(path: &Path, backups_dir: &Path, copy: &Path) -> io::Result<()> {
    std::fs::create_dir_all(backups_dir)?;
    let mut from = OpenOptions::new().read(true).open(path)?;
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(copy)?;
    io::copy(&mut from, &mut to)?;
    to.sync_all()?;
    file::sync_directory_of(copy)
}

/// Opens the copy, without changing it, and checks all of it.
fn check_copy(copy: &Path, origin: &Origin) -> Result<(), OpenError> {
    let Some(file) = file::open_existing(copy)? else {
        return Err(OpenError::Missing { path: copy.into() });
    };
    let (database, ..) = open_checked(copy, file, Access::Alone)?;
    if self::origin(copy, &database)?.schema != origin.schema {
        return Err(OpenError::Foreign { path: copy.into() });
    }
    Ok(())
}

/// Takes the steps that the database lacks, one transaction each. Returns whether there were any.
pub(super) fn run(
    path: &Path,
    database: &Database,
    origin: &Origin,
    steps: &[Migration],
) -> Result<bool, OpenError> {
    let taken = usize::try_from(origin.schema - 1).unwrap_or(usize::MAX).min(steps.len());
    for (from, step) in (origin.schema..).zip(&steps[taken..]) {
        migrate(database, from, *step).map_err(|source| OpenError::Migration {
            path: path.into(),
            from,
            source: Box::new(source),
        })?;
    }
    Ok(taken < steps.len())
}

/// Returns an older database at `path` as the steps would make it, for reading. It is a copy beside
/// the database, and has no name once this returns.
pub(super) fn migrated_copy(path: &Path, origin: &Origin) -> Result<Database, OpenError> {
    let mut copy = path.as_os_str().to_owned();
    copy.push(".read");
    let copy = PathBuf::from(copy);
    let failed = |source| OpenError::io(&copy, source);
    let mut file = file::create_new(&copy).map_err(failed)?;
    std::fs::remove_file(&copy).map_err(failed)?;
    let mut from =
        OpenOptions::new().read(true).open(path).map_err(|source| OpenError::io(path, source))?;
    io::copy(&mut from, &mut file).map_err(failed)?;
    let backend = FileBackend::new(file).map_err(|error| OpenError::of(&copy, error))?;
    let (database, _) = open_database(backend).map_err(|error| OpenError::of(&copy, error))?;
    run(&copy, &database, origin, STEPS)?;
    Ok(database)
}

fn migrate(database: &Database, from: u64, step: Migration) -> Result<(), StoreError> {
    let writing = database.begin_write().doing(WRITE)?;
    step(&writing)?;
    stamp(&writing, from + 1)?;
    writing.commit().doing(WRITE)
}

fn stamp(writing: &WriteTransaction, schema_version: u64) -> Result<(), StoreError> {
    let mut meta = writing.open_table(schema::META).doing(WRITE)?;
    meta.insert(schema::META_SCHEMA, record::encode_number(schema_version).as_slice())
        .doing(WRITE)?;
    meta.insert(schema::META_WRITTEN_BY, software().as_bytes()).doing(WRITE)?;
    Ok(())
}
