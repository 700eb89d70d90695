//! The last commit, noted beside the database.
//!
//! redb keeps two commits and goes back to the older one where the newer is not whole. After a crash that is right, and after
//! damage it takes back what was acknowledged without a word. So each commit leaves its number and the root of its tables in
//! a small file. It is written without a sync: that costs no commit anything, outlives the process, and may be lost with the
//! power, which is taken for no note. Nothing else rests on it.
//!
//! Beside it stands a copy of the page that names the tables: where that one is damaged, no other page says where they are.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::file::{FLAG_PRIMARY, FLAGS_OFFSET, HEAD_BYTES, SLOT_OFFSETS};
use super::pages::format::{PAGE_BYTES, Root};

/// Where in a commit slot the root of the tables stands: page, checksum, number of rows.
const ROOT_OFFSET: usize = 8;
const ROOT_BYTES: usize = 32;
/// Where in a commit slot its number stands.
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

    /// The root of our tables, as redb writes it.
    pub(super) fn root(&self) -> &[u8; ROOT_BYTES] {
        &self.root
    }
}

/// The first bytes of a database file.
pub(super) type Head = [u8; HEAD_BYTES];

/// Notes the last commit of an open database.
#[derive(Debug)]
pub(super) struct Witness {
    database: File,
    note: File,
}

/// Where the note of the database at `path` is.
pub(super) fn path_of(path: &Path) -> PathBuf {
    let mut note = path.as_os_str().to_owned();
    note.push(".last");
    PathBuf::from(note)
}

/// The commit that counts.
pub(super) fn present(head: &Head) -> Commit {
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

/// The commit that was noted for the database at `path`; none where there is no note.
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

/// The page that names our tables, as it was noted with the commit for the database at `path`. It has a checksum, which the
/// commit states.
pub(super) fn noted_page(path: &Path) -> Option<Vec<u8>> {
    let mut page = vec![0; PAGE_BYTES];
    open(&path_of(path)).ok()?.read_exact_at(&mut page, NOTE_BYTES as u64).ok()?;
    Some(page)
}

/// Whether a database whose head was `before` when it was opened, and is `opened` to who reads it, lacks the commit that was
/// noted: the one that counts now is an earlier one.
pub(super) fn is_behind(noted: &Commit, before: &Head, opened: &Head) -> bool {
    let counts = present(opened);
    let found = commits(before).into_iter().filter(|commit| commit.root == counts.root).map(|commit| commit.number).max();
    counts.root != noted.root && found.is_some_and(|number| number < noted.number)
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)
}

impl Witness {
    /// For the database at `path`, which `database` is.
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

    /// Notes the commit that counts now.
    pub(super) fn note(&self) -> io::Result<()> {
        let mut head = [0; HEAD_BYTES];
        self.database.read_exact_at(&mut head, 0)?;
        let commit = present(&head);
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
