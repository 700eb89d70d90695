//! The database file: checks its owner, and opens it without writing before the answer is known.
//!
//! Knows files and redb's storage interface. Does not know tables.
//!
//! redb writes to a file as soon as it opens it: it repairs, marks the file as in use, and records
//! its state on closing. So a file that must be refused (damaged, or of a newer schema) would be
//! changed by opening it. [`StagedFile`] holds such writes in memory until
//! [`StagedWrites::carry_out`], which does them in order, syncs included. Without that call, the
//! file stays unchanged, byte for byte.
//!
//! redb also trusts a file that it closed itself: it does not check its checksums, and panics on
//! invalid pages. [`StagedFile::distrusted`] presents the same file as if redb had been killed.
//! Then redb checks every page before it uses it.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::fcntl::OFlag;
use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use super::error::OpenError;

/// The first bytes of every redb file, as its design document states.
const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// The offset of the flags in redb's file format (version 3, as its design document states): one
/// byte after the magic number.
pub(super) const FLAGS_OFFSET: usize = 9;
/// Which of the two commit slots is in force.
pub(super) const FLAG_PRIMARY: u8 = 1;
/// A process has the file open, or was killed.
const FLAG_IN_USE: u8 = 2;
/// The slot in force was synced before it became so, and cannot be half written.
pub(super) const FLAG_TWO_PHASE: u8 = 4;
/// The offsets of the commit slots, and their size.
pub(super) const SLOT_OFFSETS: [usize; 2] = [64, 192];
pub(super) const SLOT_BYTES: usize = 128;
const FORMAT_VERSION: u8 = 3;
/// The end of flags and slots.
pub(super) const HEAD_BYTES: usize = SLOT_OFFSETS[1] + SLOT_BYTES;

/// The mode of every file that holds messages.
const MODE: u32 = 0o600;

/// Whether the last process that had the file with this head open closed it.
pub(super) fn is_closed(head: &[u8; HEAD_BYTES]) -> bool {
    head[FLAGS_OFFSET] & FLAG_IN_USE == 0
}

/// Opens the database file that exists at `path`. `None`: there is no file.
///
/// # Errors
/// If it is no regular file, not the user's own, readable by others, or empty (we never leave an
/// empty one). Also if it does not begin as a database does. A symlink is no regular file.
pub(super) fn open_existing(path: &Path) -> Result<Option<File>, OpenError> {
    let Some(file) = open_users(path)? else { return Ok(None) };
    let mut begins = [0; MAGIC.len()];
    match file.read_exact_at(&mut begins, 0) {
        Ok(()) if begins == *MAGIC => Ok(Some(file)),
        Err(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            Err(OpenError::io(path, source))
        }
        _ => Err(OpenError::NoDatabase { path: path.into() }),
    }
}

/// Like [`open_existing`], without a check of the file's beginning.
pub(super) fn open_users(path: &Path) -> Result<Option<File>, OpenError> {
    // O_NONBLOCK: opening a FIFO must not wait for its other end.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refusal_of(path, error)),
    };
    let metadata = file.metadata().map_err(|source| OpenError::Io { path: path.into(), source })?;
    if !metadata.is_file() {
        return Err(OpenError::NotAFile { path: path.into() });
    }
    let uid = nix::unistd::geteuid().as_raw();
    if metadata.uid() != uid {
        return Err(OpenError::Owner { path: path.into(), found: metadata.uid(), expected: uid });
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(OpenError::Mode { path: path.into(), mode: metadata.mode() & 0o7777 });
    }
    if metadata.len() == 0 {
        return Err(OpenError::Empty { path: path.into() });
    }
    Ok(Some(file))
}

/// Returns the reason why a path could not be opened: its file type, if that explains more than the
/// error.
fn refusal_of(path: &Path, error: io::Error) -> OpenError {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => OpenError::Symlink { path: path.into() },
        Ok(metadata) if !metadata.is_file() => OpenError::NotAFile { path: path.into() },
        _ => OpenError::Io { path: path.into(), source: error },
    }
}

/// Creates an empty file that nobody else can read. Replaces an existing file at `path`.
pub(super) fn create_new(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().read(true).write(true).create_new(true).mode(MODE).open(path)
}

/// Makes the names in `path`'s directory durable.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    File::open(directory)?.sync_all()
}

/// A file whose writes are held until they are carried out.
#[derive(Debug)]
pub(super) struct StagedFile {
    inner: Arc<Inner>,
}

/// The other handle of a [`StagedFile`]: decides what happens to its writes.
#[derive(Debug)]
pub(super) struct StagedWrites {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: FileBackend,
    /// `None`: they were carried out.
    held: Mutex<Option<Held>>,
    /// Whether it locks the file against other processes.
    locks: bool,
}

/// Whether other processes may open the file at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// They may not.
    Alone,
    /// They may.
    Beside,
}

/// The writes that are held.
#[derive(Debug)]
struct Held {
    /// The length that the file would have. `None`: the current one.
    bytes: Option<u64>,
    /// In their order. One opening makes a few dozen.
    operations: Vec<Operation>,
}

#[derive(Debug)]
enum Operation {
    SetLen(u64),
    Write(u64, Vec<u8>),
    Sync,
}

impl StagedFile {
    /// Holds all writes to `file` from now on.
    pub(super) fn new(file: File) -> Result<(Self, StagedWrites), redb::DatabaseError> {
        Self::staging(file, Vec::new(), true)
    }

    /// Presents `file` so that redb checks all of it. Its writes must never be carried out. Also
    /// returns whether the last user closed the file. With `Access::Beside`, a broker may open it
    /// meanwhile, and then the results may be inconsistent.
    ///
    /// redb reads the whole of a file that looks as if its user was killed within a plain commit,
    /// and checks its checksums. If the last commit is incomplete, redb would go back to the one
    /// before. But if the last commit was a two-phase one (and a clean close is), that is damage
    /// and no crash, and would silently lose mail. So the other slot is presented as a copy of the
    /// one in force, and redb has no commit to go back to.
    pub(super) fn distrusted(
        file: File,
        access: Access,
    ) -> Result<(Self, StagedWrites, bool), redb::DatabaseError> {
        let mut head = [0; HEAD_BYTES];
        let whole = file.read_exact_at(&mut head, 0).is_ok();
        let flags = head[FLAGS_OFFSET];
        let (primary, other) = if flags & FLAG_PRIMARY == 0 { (0, 1) } else { (1, 0) };
        let (from, to) = (SLOT_OFFSETS[primary], SLOT_OFFSETS[other]);
        let mut shown = Vec::new();
        if whole && head[from] == FORMAT_VERSION && flags & FLAG_TWO_PHASE != 0 {
            shown.push(Operation::Write(to as u64, head[from..from + SLOT_BYTES].to_vec()));
            shown.push(Operation::Write(
                FLAGS_OFFSET as u64,
                vec![(flags | FLAG_IN_USE) & !FLAG_TWO_PHASE],
            ));
        }
        let (staged, stage) = Self::staging(file, shown, access == Access::Alone)?;
        Ok((staged, stage, flags & FLAG_IN_USE == 0))
    }

    fn staging(
        file: File,
        operations: Vec<Operation>,
        locks: bool,
    ) -> Result<(Self, StagedWrites), redb::DatabaseError> {
        let held = Mutex::new(Some(Held { bytes: None, operations }));
        let inner = Arc::new(Inner { file: FileBackend::new(file)?, held, locks });
        Ok((Self { inner: Arc::clone(&inner) }, StagedWrites { inner }))
    }
}

impl StagedWrites {
    /// Returns the first bytes of the file, as its user sees them.
    pub(super) fn head(&self) -> io::Result<[u8; HEAD_BYTES]> {
        let mut head = [0; HEAD_BYTES];
        self.read(0, &mut head)?;
        Ok(head)
    }

    /// Reads the file at `offset`, as its user sees it.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &*self.inner.held() {
            Some(held) => held.read(&self.inner.file, offset, out),
            None => self.inner.file.read(offset, out),
        }
    }

    /// Carries out the held writes in order, and holds no more writes from now on.
    ///
    /// # Errors
    /// If a write fails. Then a part of the writes may be in the file, as if the machine had
    /// stopped in between. The rest stays held.
    pub(super) fn carry_out(self) -> io::Result<()> {
        let mut held = self.inner.held();
        for operation in held.iter().flat_map(|held| &held.operations) {
            match operation {
                Operation::SetLen(bytes) => self.inner.file.set_len(*bytes)?,
                Operation::Write(offset, data) => self.inner.file.write(*offset, data)?,
                Operation::Sync => self.inner.file.sync_data()?,
            }
        }
        *held = None;
        Ok(())
    }
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        // Each change to it is one push: a panic elsewhere cannot leave it half done.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn read(&self, file: &FileBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let file_bytes = file.len()?;
        let end = offset + out.len() as u64;
        if end > self.bytes.unwrap_or(file_bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let in_file = file_bytes.saturating_sub(offset).min(out.len() as u64) as usize;
        if in_file > 0 {
            file.read(offset, &mut out[..in_file])?;
        }
        out[in_file..].fill(0);
        for operation in &self.operations {
            match operation {
                Operation::SetLen(bytes) => {
                    let kept = bytes.saturating_sub(offset).min(out.len() as u64) as usize;
                    out[kept..].fill(0);
                }
                Operation::Write(at, data) => {
                    let (from, to) = (offset.max(*at), end.min(at + data.len() as u64));
                    if from < to {
                        out[(from - offset) as usize..(to - offset) as usize]
                            .copy_from_slice(&data[(from - at) as usize..(to - at) as usize]);
                    }
                }
                Operation::Sync => {}
            }
        }
        Ok(())
    }
}

impl StorageBackend for StagedFile {
    fn len(&self) -> io::Result<u64> {
        match &*self.inner.held() {
            Some(Held { bytes: Some(bytes), .. }) => Ok(*bytes),
            _ => self.inner.file.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match &*self.inner.held() {
            Some(held) => held.read(&self.inner.file, offset, out),
            None => self.inner.file.read(offset, out),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match &mut *self.inner.held() {
            Some(held) => {
                held.bytes = Some(len);
                held.operations.push(Operation::SetLen(len));
                Ok(())
            }
            None => self.inner.file.set_len(len),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        match &mut *self.inner.held() {
            Some(held) => {
                held.operations.push(Operation::Sync);
                Ok(())
            }
            None => self.inner.file.sync_data(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        match &mut *self.inner.held() {
            Some(held) => {
                let bytes = held.bytes.map_or_else(|| self.inner.file.len(), Ok)?;
                held.bytes = Some(bytes.max(offset + data.len() as u64));
                held.operations.push(Operation::Write(offset, data.to_vec()));
                Ok(())
            }
            None => self.inner.file.write(offset, data),
        }
    }

    fn close(&self) -> io::Result<()> {
        self.inner.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        if self.inner.locks { self.inner.file.try_lock_range(start, end) } else { Ok(true) }
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        if self.inner.locks { self.inner.file.try_lock_shared_range(start, end) } else { Ok(true) }
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        if self.inner.locks { self.inner.file.lock_range(start, end) } else { Ok(()) }
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        if self.inner.locks { self.inner.file.lock_shared_range(start, end) } else { Ok(()) }
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        if self.inner.locks { self.inner.file.unlock_range(start, end) } else { Ok(()) }
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.file.query_lock_range(start, end)
    }
}
