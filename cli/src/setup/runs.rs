//! The records of earlier runs of setup: one directory per run, with a manifest and a copy of each
//! file before and after.
//!
//! Knows the directory `backups/setup` in the state directory. Does not know the clients.
//! Invariant: a run's directory is on disk before any file is changed. So an interrupted run can be
//! finished or undone.

use std::fs::{self, File as Open};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use peer_proto::location::Location;
use serde::{Deserialize, Serialize};

use super::Client;
use super::draft::{File, Retired, read};
use super::files::examine;
use crate::error::Failure;
use crate::output::{now, rfc3339};

const MANIFEST: &str = "manifest.json";

/// The person's answers, so that each question is asked once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answers {
    /// Whether the message tools may run without a dialog.
    pub(crate) tools: Option<bool>,
    /// Whether the inbox socket may be used in sessions that bypass permissions. The broker stores
    /// the answer that counts.
    #[serde(default)]
    pub(crate) inbox_socket: Option<bool>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    /// The time of the run, in RFC 3339.
    at: String,
    /// The version of this peerctl.
    version: String,
    answers: Answers,
    files: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    client: Client,
    path: PathBuf,
    /// The beginning of the copies' names: `0.before`, `0.after`.
    number: usize,
    existed: bool,
    exists: bool,
    retired: Vec<Retired>,
    /// Directories that were created for it, outermost first.
    dirs: Vec<PathBuf>,
}

#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) client: Client,
    pub(crate) path: PathBuf,
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
    pub(crate) retired: Vec<Retired>,
    pub(crate) dirs: Vec<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct Run {
    dir: PathBuf,
    manifest: Manifest,
    pub(crate) records: Vec<Record>,
}

/// All runs, oldest first. No other command changes them meanwhile.
#[derive(Debug)]
pub(crate) struct Runs {
    dir: PathBuf,
    pub(crate) all: Vec<Run>,
    /// Held until the command ends.
    lock: Option<Open>,
}

impl Runs {
    /// Reads the records of earlier runs. Creates nothing, and waits for no lock.
    pub(crate) fn load(location: &Location) -> Result<Self, Failure> {
        let dir = location.backups().join("setup");
        Ok(Self { all: scan(&dir)?, dir, lock: None })
    }

    /// Does the same with a lock, for a command that writes.
    pub(crate) fn hold(location: &Location) -> Result<Self, Failure> {
        let lock = match Open::open(location.backups().join("setup")) {
            Ok(dir) => Some(locked(dir)?),
            // The first run creates the directory, and locks it then.
            Err(_) => None,
        };
        Ok(Self { lock, ..Self::load(location)? })
    }

    /// Reads the records again, after one was written.
    pub(crate) fn reload(&mut self) -> Result<(), Failure> {
        self.all = scan(&self.dir)?;
        Ok(())
    }

    /// The person's latest answers.
    pub(crate) fn answers(&self) -> Answers {
        let mut answers = Answers::default();
        for run in &self.all {
            answers.tools = run.manifest.answers.tools.or(answers.tools);
            answers.inbox_socket = run.manifest.answers.inbox_socket.or(answers.inbox_socket);
        }
        answers
    }

    /// All records of one file, newest first.
    pub(crate) fn of<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a Record> {
        self.all.iter().rev().flat_map(|run| &run.records).filter(move |record| record.path == path)
    }

    /// Whether a file is as a run left it, or as an interrupted run found it. `None`: no run has a
    /// record of it.
    pub(crate) fn is_as_left(&self, path: &Path, text: &str) -> Option<bool> {
        let mut records = self.of(path).peekable();
        records.peek()?;
        Some(records.any(|record| {
            [&record.after, &record.before].into_iter().any(|known| known.as_deref() == Some(text))
        }))
    }

    /// Records the planned changes. Returns the directory of the record.
    pub(crate) fn begin(&mut self, files: &[&File], answers: Answers) -> Result<PathBuf, Failure> {
        make(&self.dir)?;
        if self.lock.is_none() {
            let open = Open::open(&self.dir);
            let open = open.map_err(|source| Failure::file("opening", self.dir.clone(), source))?;
            self.lock = Some(locked(open)?);
            // Another first run may have been faster.
            self.reload()?;
        }
        let next = self
            .all
            .last()
            .and_then(|run| run.dir.file_name()?.to_str()?.parse::<u32>().ok())
            .unwrap_or(0)
            + 1;
        let dir = self.dir.join(format!("{next:04}"));
        make(&dir)?;
        let mut entries = Vec::new();
        for (number, file) in files.iter().enumerate() {
            for (text, name) in [(&file.before, "before"), (&file.after, "after")] {
                if let Some(text) = text {
                    keep(&dir.join(format!("{number}.{name}")), text)?;
                }
            }
            entries.push(Entry {
                client: file.client,
                path: file.path.clone(),
                number,
                existed: file.before.is_some(),
                exists: file.after.is_some(),
                retired: file.retired.clone(),
                dirs: examine(&file.path)?.dirs,
            });
        }
        let manifest = Manifest {
            at: rfc3339(now()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            answers,
            files: entries,
        };
        let run = Run { dir: dir.clone(), manifest, records: Vec::new() };
        run.write()?;
        Ok(dir)
    }

    /// Deletes the records for which `done` returns true, with their copies.
    pub(crate) fn forget(&mut self, done: impl Fn(&Record) -> bool) -> Result<(), Failure> {
        for run in &mut self.all {
            for (place, record) in run.records.iter().enumerate().rev() {
                if done(record) {
                    let entry = run.manifest.files.remove(place);
                    for name in ["before", "after"] {
                        let _ = fs::remove_file(run.dir.join(format!("{}.{name}", entry.number)));
                    }
                }
            }
            run.records.retain(|record| !done(record));
            if run.records.is_empty() {
                let failed = |source| Failure::file("removing", run.dir.clone(), source);
                fs::remove_dir_all(&run.dir).map_err(failed)?;
            } else {
                run.write()?;
            }
        }
        self.all.retain(|run| !run.records.is_empty());
        // Only empty directories are removed.
        let _ = fs::remove_dir(&self.dir);
        let _ = self.dir.parent().map(fs::remove_dir);
        Ok(())
    }
}

/// The runs in a directory, oldest first.
fn scan(dir: &Path) -> Result<Vec<Run>, Failure> {
    let failed = |source| Failure::file("reading", dir, source);
    let mut names = Vec::new();
    match fs::read_dir(dir) {
        Ok(entries) => {
            for entry in entries {
                names.push(entry.map_err(failed)?.path());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(failed(source)),
    }
    names.sort();
    let mut all = Vec::new();
    for dir in names {
        // A run without a manifest was interrupted before it changed anything.
        if let Some(text) = read(&dir.join(MANIFEST))? {
            all.push(Run::read(dir, &text)?);
        }
    }
    Ok(all)
}

/// Locks a directory, which works as for a file.
fn locked(dir: Open) -> Result<Open, Failure> {
    dir.try_lock().map_err(|_| {
        Failure::setup("busy", "another setup or uninstall is running")
            .hint("finish or stop it, then run the command again")
    })?;
    Ok(dir)
}

impl Run {
    fn read(dir: PathBuf, text: &str) -> Result<Self, Failure> {
        let path = dir.join(MANIFEST);
        let manifest: Manifest =
            serde_json::from_str(text).map_err(|why| super::draft::unreadable(&path, why))?;
        let mut records = Vec::new();
        for entry in &manifest.files {
            let copy = |wanted: bool, name: &str| -> Result<Option<String>, Failure> {
                let path = dir.join(format!("{}.{name}", entry.number));
                let missing = || super::draft::unreadable(&path, "the copy is missing");
                if wanted { read(&path)?.ok_or_else(missing).map(Some) } else { Ok(None) }
            };
            records.push(Record {
                client: entry.client,
                path: entry.path.clone(),
                before: copy(entry.existed, "before")?,
                after: copy(entry.exists, "after")?,
                retired: entry.retired.clone(),
                dirs: entry.dirs.clone(),
            });
        }
        Ok(Self { dir, manifest, records })
    }

    fn write(&self) -> Result<(), Failure> {
        let path = self.dir.join(MANIFEST);
        let failed = |source: io::Error| Failure::file("writing", path.clone(), source);
        let text =
            serde_json::to_string_pretty(&self.manifest).map_err(|error| failed(error.into()))?;
        keep(&path, &text)
    }
}

fn make(dir: &Path) -> Result<(), Failure> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| Failure::file("making the directory", dir, source))
}

/// Writes a file of our own in one step, readable only by this user: it may have content of the
/// clients' files.
fn keep(path: &Path, text: &str) -> Result<(), Failure> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let written = tempfile::NamedTempFile::new_in(dir).and_then(|mut new| {
        io::Write::write_all(&mut new, text.as_bytes())?;
        new.as_file().sync_all()?;
        new.persist(path).map_err(|error| error.error)?;
        Open::open(dir)?.sync_all()
    });
    written.map_err(|source| Failure::file("writing", path, source))
}
