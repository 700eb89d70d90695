//! Builds a new database from the remains of a damaged one.
//!
//! If an inner page is damaged, redb cannot open the file. So everything that can be found is
//! written to a new file, which replaces the old one. The old file is saved unchanged in the
//! backups directory.
//!
//! Rows of a sound page are copied. Rows of a damaged page, or of a page that only a damaged page
//! names, are copied if their own checksum is right. Invariant: no data is invented, except to
//! restrict. If the settings or pauses may be lost, an unreadable record replaces them, so that the
//! strictest values hold.

mod writer;

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::Database;
use redb::backends::FileBackend;

use super::error::{OpenError, RecordName};
use super::file::HEAD_BYTES;
use super::pages::format::{self, Root, TABLES};
use super::pages::remains::Remains;
use super::pages::repair::RowBytes;
use super::witness::{self, Commit};
use super::{SCHEMA_VERSION, file, migrate, open_database, schema};
use writer::Writer;

/// Replaces the damaged database at `path` by its remains. Returns the lost records.
///
/// # Errors
/// [`OpenError::Damaged`], with `found` as the reason, if nothing is left, or if the file has
/// another schema. After each error the file is unchanged.
pub(super) fn salvage(
    path: &Path,
    backups_dir: &Path,
    found: &dyn std::error::Error,
) -> Result<Vec<RecordName>, OpenError> {
    tracing::error!(path = %path.display(), cause = %found, "the database is damaged; a new one is made of what is left of it");
    let Some(file) = file::open_users(path)? else {
        return Err(OpenError::Missing { path: path.into() });
    };
    let mut new = path.as_os_str().to_owned();
    new.push(".salvaged");
    let new = PathBuf::from(new);
    let created = file::create_new(&new).map_err(|source| OpenError::io(&new, source))?;
    let (lost, rows) = match remains_into(path, &file, created) {
        Ok(Some(done)) => done,
        nothing => {
            // Remove the partial file. If that fails as well, the first error is the one to report.
            let _ = std::fs::remove_file(&new);
            nothing?;
            return Err(OpenError::damaged(path, found.to_string()));
        }
    };
    let kept = put_in_place(path, &new, backups_dir).map_err(|source| failed(path, source))?;
    tracing::error!(
        rows, lost = lost.len(), damaged = %kept.display(),
        "the database was damaged, and what was left of it is in use now; the damaged file is kept"
    );
    Ok(lost)
}

/// Whether the page of a commit's tables is in the file.
pub(super) fn has(file: &File, commit: &Commit) -> bool {
    let read = |at: u64, out: &mut [u8]| file.read_exact_at(out, at);
    let file_bytes = file.metadata().map_or(0, |metadata| metadata.len());
    Remains::new(&read, file_bytes).is_sound(Root::from_bytes(commit.root()), &TABLES)
}

/// Returns the database that the next start would make of the damaged one at `path`, and its
/// losses. `None`: nothing can be made of it. The result is a file without a name.
pub(super) fn rehearse(
    path: &Path,
    file: &File,
) -> Result<Option<(Database, Vec<RecordName>)>, OpenError> {
    let mut copy = path.as_os_str().to_owned();
    copy.push(".read");
    let copy = PathBuf::from(copy);
    let created = file::create_new(&copy).map_err(|source| OpenError::io(&copy, source))?;
    std::fs::remove_file(&copy).map_err(|source| OpenError::io(&copy, source))?;
    let same = created.try_clone().map_err(|source| OpenError::io(&copy, source))?;
    let Some((lost, _)) = remains_into(path, file, created)? else { return Ok(None) };
    let backend = FileBackend::new(same).map_err(|error| OpenError::of(&copy, error))?;
    let (database, _) = open_database(backend).map_err(|error| OpenError::of(&copy, error))?;
    Ok(Some((database, lost)))
}

fn failed(path: &Path, source: impl std::error::Error + Send + Sync + 'static) -> OpenError {
    OpenError::Salvage { path: path.into(), source: Box::new(source) }
}

/// Saves the damaged file under another name, and gives its name to the new file. Returns the path
/// of the saved file.
fn put_in_place(path: &Path, new: &Path, backups_dir: &Path) -> io::Result<PathBuf> {
    std::fs::create_dir_all(backups_dir)?;
    let now_ms =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis());
    let kept = backups_dir.join(format!("peers-damaged-{now_ms}.redb"));
    // A second name costs no space, which a failing disk may not have. On another file system it is
    // copied.
    if std::fs::hard_link(path, &kept).is_err() {
        migrate::copy_file(path, backups_dir, &kept)?;
    }
    file::sync_directory_of(&kept)?;
    std::fs::rename(new, path)?;
    file::sync_directory_of(path)?;
    // The record of the last commit belongs to the replaced file.
    match std::fs::remove_file(witness::path_of(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(kept),
    }
}

/// Writes the remains to `into`, synced and closed. Returns the losses and the number of rows.
/// `None`: nothing can be made of it.
fn remains_into(
    path: &Path,
    file: &File,
    into: File,
) -> Result<Option<(Vec<RecordName>, u64)>, OpenError> {
    let file_bytes = file.metadata().map_err(|source| OpenError::io(path, source))?.len();
    let read = |at: u64, out: &mut [u8]| file.read_exact_at(out, at);
    let mut head = [0; HEAD_BYTES];
    if read(0, &mut head).is_err() {
        return Ok(None);
    }
    let mut remains = Remains::new(&read, file_bytes);
    let noted = witness::noted(path);
    remains.tables = witness::noted_page(path);
    let (tables, is_last) = tables_of(&mut remains, &head, noted.as_ref());
    if tables.is_empty() {
        return Ok(None);
    }
    let backend = FileBackend::new(into).map_err(|error| OpenError::of(path, error))?;
    let (database, _) = open_database(backend).map_err(|error| OpenError::of(path, error))?;
    migrate::create(&database, SCHEMA_VERSION).map_err(|source| failed(path, source))?;
    let mut writer = Writer::new(&database).map_err(|source| failed(path, source))?;
    for (name, shape) in schema::SHAPES {
        let Some(table) = tables.iter().find(|table| table.name == name) else {
            writer.has_no_table(name);
            continue;
        };
        let Some(root) = table.root else { continue };
        let mut sink = |rows: &[RowBytes<'_>], is_sound: bool| writer.rows(name, rows, is_sound);
        remains
            .tree(root, table.is_sound, &shape, &mut sink)
            .map_err(|source| failed(path, source))?;
    }
    if !writer.is_ours() {
        return Ok(None);
    }
    let (mut lost, rows) = writer.finish().map_err(|source| failed(path, source))?;
    drop(database);
    lost.extend(remains.damaged.iter().map(|at| RecordName::Page(*at)));
    if !is_last {
        lost.push(RecordName::LastCommit);
    }
    Ok(Some((lost, rows)))
}

/// A table that a tree of tables names.
struct Named {
    name: String,
    root: Option<Root>,
    /// Whether the page that names it is sound.
    is_sound: bool,
}

/// Returns our tables by the newest commit whose tree of tables can be read. Also returns whether
/// that is known to be the last commit.
fn tables_of(
    remains: &mut Remains<'_>,
    head: &[u8; HEAD_BYTES],
    noted: Option<&Commit>,
) -> (Vec<Named>, bool) {
    let slots = format::slots(head);
    let present = witness::current(head);
    let note = noted.map(|noted| Root::from_bytes(noted.root()));
    let is_newer =
        noted.is_some_and(|noted| noted.number() > present.number() || !slots[0].is_sound);
    let first = if is_newer { note } else { None };
    let mut roots: Vec<Root> =
        [first, slots[0].user, note, slots[1].user].into_iter().flatten().collect();
    // If none of them is sound, the first that is left provides as much as it can.
    roots.sort_by_key(|root| !remains.is_sound(*root, &TABLES));
    for root in roots {
        let mut tables = Vec::new();
        let mut sink = |rows: &[RowBytes<'_>], is_sound: bool| -> Result<(), Infallible> {
            for (name, bytes) in rows {
                let Some(definition) = format::definition(bytes) else { continue };
                let name = String::from_utf8_lossy(name).into_owned();
                tables.push(Named { name, root: definition.root, is_sound });
            }
            Ok(())
        };
        let Ok(()) = remains.tree(root, true, &TABLES, &mut sink);
        if tables.iter().any(|table| table.name == "messages" || table.name == "peers") {
            return (
                tables,
                noted.is_none_or(|noted| Root::from_bytes(noted.root()) == root || !is_newer),
            );
        }
    }
    (Vec::new(), false)
}
