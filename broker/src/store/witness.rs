//! Records the last commit beside the database.
//!
//! redb keeps two commits, and goes back to the older one if the newer is incomplete. That is right
//! after a crash, but after damage it silently drops acknowledged mail. So each commit writes its
//! number and the root of its tables to a small file. The file is written without a sync. So it
//! costs a commit nothing and outlives the process. It may be lost in a power cut, and then counts
//! as absent. Nothing else depends on it.
//!
//! The file also has a copy of the page that names the tables: if that page is damaged, no other
//! page tells where they are.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::file::{FLAG_PRIMARY, FLAGS_OFFSET, HEAD_BYTES, SLOT_OFFSETS};
use super::pages::format::{PAGE_BYTES, Root};

/// The offset of the tables' root in a commit slot: page, checksum, number of rows.
const ROOT_OFFSET: usize = 8;
const ROOT_BYTES: usize = 32;
/// The offset of its number in a commit slot.
const NUMBER_OFFSET: usize = 104;
/// Number, root, checksum.
const NOTE_BYTES: usize = 8 + ROOT_BYTES + 4;

/// A commit, as redb's head names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    number: u64,
    root: [u8; ROOT_BYTES],
}

impl Commit {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the root of our tables, as redb writes it.
    pub(super) fn root(&self) -> &[u8; ROOT_BYTES] {
        &self.root
    }
}

/// The first bytes of a database file.
pub(super) type Head = [u8; HEAD_BYTES];

/// Records the last commit of an open database.
#[derive(Debug)]
pub(super) struct Witness {
    database: File,
    note: File,
}

/// Returns the path of the file beside the database at `path`.
pub(super) fn path_of(path: &Path) -> PathBuf {
    let mut note = path.as_os_str().to_owned();
    note.push(".last");
    PathBuf::from(note)
}

/// Returns the commit that is in force.
pub(super) fn current(head: &Head) -> Commit {
    commits(head)[usize::from(head[FLAGS_OFFSET] & FLAG_PRIMARY != 0)]
}

fn commits(head: &Head) -> [Commit; 2] {
    SLOT_OFFSETS.map(|slot| {
        let (mut number, mut root) = ([0; 8], [0; ROOT_BYTES]);
        number.copy_from_slice(&head[slot + NUMBER_OFFSET..][..8]);
        root.copy_from_slice(&head[slot + ROOT_OFFSET..][..ROOT_BYTES]);
        Commit { number: u64::from_le_bytes(number), root }
    })
}

/// Returns the commit that was recorded for the database at `path`. `None`: nothing was recorded.
pub(super) fn noted(path: &Path) -> Option<Commit> {
    let mut note = [0; NOTE_BYTES];
    open(&path_of(path)).ok()?.read_exact_at(&mut note, 0).ok()?;
    let (said, checksum) = note.split_at(NOTE_BYTES - 4);
    if crc32fast::hash(said).to_le_bytes() != checksum {
        return None;
    }
    let (number, root) = said.split_first_chunk()?;
    Some(Commit { number: u64::from_le_bytes(*number), root: root.try_into().ok()? })
}

/// Returns the page that names our tables, as it was recorded with the commit for the database at
/// `path`. The commit states its checksum.
pub(super) fn noted_page(path: &Path) -> Option<Vec<u8>> {
    let mut page = vec![0; PAGE_BYTES];
    open(&path_of(path)).ok()?.read_exact_at(&mut page, NOTE_BYTES as u64).ok()?;
    Some(page)
}

/// Whether a database lacks the recorded commit, because an earlier commit is in force. `before` is
/// its head when it was opened, and `opened` the head that its user sees.
pub(super) fn is_behind(noted: &Commit, before: &Head, opened: &Head) -> bool {
    let counts = current(opened);
    let found = commits(before)
        .into_iter()
        .filter(|commit| commit.root == counts.root)
        .map(|commit| commit.number)
        .max();
    counts.root != noted.root && found.is_some_and(|number| number < noted.number)
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

impl Witness {
    /// Opens the file for the database at `path`, which is open as `database`.
    pub(super) fn open(path: &Path, database: File) -> io::Result<Self> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags.bits());
        let note = options.open(path_of(path))?;
        if !note.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self { database, note })
    }

    /// Records the commit that is in force.
    pub(super) fn record(&self) -> io::Result<()> {
        let mut head = [0; HEAD_BYTES];
        self.database.read_exact_at(&mut head, 0)?;
        let commit = current(&head);
        let mut note = [0; NOTE_BYTES];
        note[..8].copy_from_slice(&commit.number.to_le_bytes());
        note[8..8 + ROOT_BYTES].copy_from_slice(&commit.root);
        let checksum = crc32fast::hash(&note[..NOTE_BYTES - 4]);
        note[NOTE_BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
        let mut note = note.to_vec();
        note.extend(self.tables_page(&commit).unwrap_or_default());
        self.note.write_all_at(&note, 0)
    }

    fn tables_page(&self, commit: &Commit) -> Option<Vec<u8>> {
        let (at, bytes) = Root::from_bytes(&commit.root).page.place()?;
        let mut page = vec![0; bytes];
        if bytes != PAGE_BYTES {
            return None;
        }
        self.database.read_exact_at(&mut page, at).ok()?;
        Some(page)
    }
}
