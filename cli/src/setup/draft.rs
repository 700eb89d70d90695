//! What setup means to change: each file as it is, as it shall be, and why; and what stands in the
//! way.
//!
//! It reads files and writes none. Everything a person is shown before they say yes is here, and
//! nothing is done that is not here.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Client, diff};
use crate::error::Failure;

/// Something of another program that was taken out, so that it can be put back.
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

/// One file with what shall become of it.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// Whose file it is.
    pub(crate) client: Client,
    /// Its path, as the client knows it; it may be a symbolic link.
    pub(crate) path: PathBuf,
    /// What is in it; absent: there is no such file.
    pub(crate) before: Option<String>,
    /// What shall be in it; absent: there shall be no such file.
    pub(crate) after: Option<String>,
    /// What changes, in words.
    pub(crate) what: Vec<String>,
    /// What of another program is taken out.
    pub(crate) retired: Vec<Retired>,
    /// Directories to be removed after the file, if they are empty then, innermost first.
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

/// Something that is not ours to change and stands where ours belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    pub(crate) client: Client,
    pub(crate) path: PathBuf,
    /// What stands there.
    pub(crate) what: String,
    /// What the person can do.
    pub(crate) step: String,
}

/// Something that the person should look at, and what they can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remark {
    /// What is, and where.
    pub(crate) what: String,
    /// What changes it, or what it means.
    pub(crate) step: String,
}

/// All that is to be done and said.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    files: Vec<File>,
    /// What stands in the way; where there is any, nothing is written.
    pub(crate) conflicts: Vec<Conflict>,
    /// What should be looked at, and stops nothing.
    pub(crate) warnings: Vec<Remark>,
    /// Settings of the person's that keep a client from running any of ours.
    pub(crate) switched_off: Vec<Remark>,
    /// What the person does next.
    pub(crate) next: Vec<String>,
}

impl Draft {
    /// A file's text as it shall be so far; absent where there is no such file.
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

    /// What shall be so far in a file that was looked at.
    pub(crate) fn current(&self, path: &Path) -> Option<&str> {
        self.files.iter().find(|file| file.path == path)?.after.as_deref()
    }

    /// Says what shall be in a file that was looked at.
    pub(crate) fn set(&mut self, path: &Path, after: Option<String>, what: impl Into<String>) {
        if let Some(file) = self.files.iter_mut().find(|file| file.path == path)
            && file.after != after
        {
            file.after = after;
            file.what.push(what.into());
        }
    }

    /// Remembers what of another program was taken out of a file.
    pub(crate) fn retire(&mut self, path: &Path, retired: Retired) {
        if let Some(file) = self.files.iter_mut().find(|file| file.path == path) {
            file.retired.push(retired);
        }
    }

    /// Directories that go with a file, innermost first, if they are empty then.
    pub(crate) fn prune(&mut self, path: &Path, dirs: Vec<PathBuf>) {
        if let Some(file) = self.files.iter_mut().find(|file| file.path == path) {
            file.prune = dirs;
        }
    }

    /// Says what stands in the way.
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

    /// All files that were looked at.
    pub(crate) fn all(&self) -> impl Iterator<Item = &File> {
        self.files.iter()
    }

    /// The files that change.
    pub(crate) fn changed(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.changes())
    }
}

/// A file's text; absent where there is no such file.
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

/// A file that cannot be understood is not touched, and neither is any other.
pub(crate) fn unreadable(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::setup("unparsable", format!("reading {} failed: {why}", path.display()))
        .hint("nothing was changed: fix the file, then run the command again")
}
