//! The planned changes of setup: each file as it is and as it will be, the reasons, and the
//! conflicts.
//!
//! Reads files and writes none. Does not know the clients. Invariant: a person sees the whole draft
//! before agreeing, and setup changes nothing else.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Client, diff};
use crate::error::Failure;

/// An entry of another program that was removed, so that it can be restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Retired {
    /// A member of a JSON object.
    Member { path: Vec<String>, key: String, json: String },
    /// An item of a JSON array.
    Item { path: Vec<String>, json: String },
    /// Tables of a TOML file.
    Tables { toml: String },
}

/// A file with its planned change.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// The client that owns the file.
    pub(crate) client: Client,
    /// The path, as the client knows it; it may be a symbolic link.
    pub(crate) path: PathBuf,
    /// The present content; `None`: the file does not exist.
    pub(crate) before: Option<String>,
    /// The planned content; `None`: the file will not exist.
    pub(crate) after: Option<String>,
    /// The changes, in words.
    pub(crate) what: Vec<String>,
    /// Removed entries of another program.
    pub(crate) retired: Vec<Retired>,
    /// Directories to remove after the file, if they are empty then, innermost first.
    pub(crate) prune: Vec<PathBuf>,
}

impl File {
    /// Whether anything changes.
    pub(crate) fn changes(&self) -> bool {
        self.before != self.after
    }

    /// `create`, `change` or `remove`.
    pub(crate) fn action(&self) -> &'static str {
        match (&self.before, &self.after) {
            (None, _) => "create",
            (Some(_), Some(_)) => "change",
            (Some(_), None) => "remove",
        }
    }

    /// The change as the lines of a unified diff.
    pub(crate) fn diff(&self) -> Vec<String> {
        let (before, after) =
            (self.before.as_deref().unwrap_or_default(), self.after.as_deref().unwrap_or_default());
        let name = |text: &Option<String>| {
            if text.is_some() { self.path.display().to_string() } else { "/dev/null".to_owned() }
        };
        let heads = [format!("--- {}", name(&self.before)), format!("+++ {}", name(&self.after))];
        heads.into_iter().chain(diff::unified(before, after)).collect()
    }
}

/// An entry of others at a place where an entry of ours belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) client: Client,
    pub(crate) path: PathBuf,
    /// The obstacle.
    pub(crate) what: String,
    /// The next step for the person.
    pub(crate) step: String,
}

/// A finding for the person, with the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remark {
    /// What was found, and where.
    pub(crate) what: String,
    /// The next step, or the consequence.
    pub(crate) step: String,
}

/// All planned changes, with findings and next steps.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    files: Vec<File>,
    /// The conflicts. With any conflict, nothing is written.
    pub(crate) conflicts: Vec<Conflict>,
    /// Findings that do not prevent the changes.
    pub(crate) warnings: Vec<Remark>,
    /// The person's settings that keep a client from running our entries.
    pub(crate) switched_off: Vec<Remark>,
    /// Steps that are left for the person.
    pub(crate) next: Vec<String>,
}

impl Draft {
    /// The text of a file with the changes so far; `None` if the file does not exist.
    pub(crate) fn text(&mut self, client: Client, path: &Path) -> Result<Option<String>, Failure> {
        if let Some(file) = self.files.iter().find(|file| file.path == path) {
            return Ok(file.after.clone());
        }
        let before = read(path)?;
        let file = File {
            client,
            path: path.to_path_buf(),
            after: before.clone(),
            before,
            what: Vec::new(),
            retired: Vec::new(),
            prune: Vec::new(),
        };
        self.files.push(file);
        Ok(self.files.last().and_then(|file| file.after.clone()))
    }

    /// The planned text of a file that was read.
    pub(crate) fn current(&self, path: &Path) -> Option<&str> {
        self.files.iter().find(|file| file.path == path)?.after.as_deref()
    }

    /// Sets the planned text of a file that was read.
    pub(crate) fn set(&mut self, path: &Path, after: Option<String>, what: impl Into<String>) {
        if let Some(file) = self.files.iter_mut().find(|file| file.path == path)
            && file.after != after
        {
            file.after = after;
            file.what.push(what.into());
        }
    }

    /// Records an entry of another program that was removed from a file.
    pub(crate) fn retire(&mut self, path: &Path, retired: Retired) {
        if let Some(file) = self.files.iter_mut().find(|file| file.path == path) {
            file.retired.push(retired);
        }
    }

    /// Sets the directories that are removed with a file if they are empty, innermost first.
    pub(crate) fn prune(&mut self, path: &Path, dirs: Vec<PathBuf>) {
        if let Some(file) = self.files.iter_mut().find(|file| file.path == path) {
            file.prune = dirs;
        }
    }

    /// Adds a conflict.
    pub(crate) fn conflict(
        &mut self,
        client: Client,
        path: &Path,
        what: impl Into<String>,
        step: impl Into<String>,
    ) {
        self.conflicts.push(Conflict {
            client,
            path: path.to_path_buf(),
            what: what.into(),
            step: step.into(),
        });
    }

    /// All files that were read.
    pub(crate) fn all(&self) -> impl Iterator<Item = &File> {
        self.files.iter()
    }

    /// The files that change.
    pub(crate) fn changed(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.changes())
    }
}

/// The text of a file; `None` if it does not exist.
pub(crate) fn read(path: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(error) => {
                let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
                let column = valid
                    .rsplit(|byte| *byte == b'\n')
                    .next()
                    .map_or(0, |rest| String::from_utf8_lossy(rest).chars().count())
                    + 1;
                Err(unreadable(path, format!("line {line}, column {column}: not UTF-8")))
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Failure::file("reading", path, source)),
    }
}

/// The failure for a file that cannot be understood. Then neither it nor any other file is changed.
pub(crate) fn unreadable(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::setup("unparsable", format!("reading {} failed: {why}", path.display()))
        .hint("nothing was changed: fix the file, then run the command again")
}
