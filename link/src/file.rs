//! `links.toml`: how each link is reached. What holds for a link is in the broker.
//!
//! Knows the form of the file. A person may edit it: what is not changed stays as it is. Invariant:
//! an unknown key is an error, so that a mistyped one is not ignored.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;
use toml_edit::{DocumentMut, Table, TableLike, TomlError, value};

/// The file's name in the state directory.
const FILE: &str = "links.toml";

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinksFile {
    /// The links, by name.
    #[serde(default)]
    pub link: BTreeMap<String, Target>,
    /// The teams, by name.
    #[serde(default)]
    pub team: BTreeMap<String, TeamTarget>,
}

impl LinksFile {
    /// Whether there is nothing to serve.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.link.is_empty() && self.team.is_empty()
    }
}

/// How a team is reached. Paths that are not absolute begin in the state directory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeamTarget {
    /// The NATS server, or the servers of one cluster.
    pub nats: Vec<String>,
    /// The file with the team's key: 32 bytes.
    pub key: PathBuf,
    /// The file with a former key that still counts, while members change to the present one.
    pub former_key: Option<PathBuf>,
    /// The file with what proves the right to use the server.
    pub creds: Option<PathBuf>,
    /// The file with the certificate of the authority that signed the server's.
    pub ca: Option<PathBuf>,
    /// Connections without TLS are allowed, also to other machines.
    #[serde(default)]
    pub insecure: bool,
    /// Mail of members that are met for the first time is delivered, and not held.
    #[serde(default)]
    pub accept: bool,
}

/// How a link is reached.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The host, as `ssh` takes it.
    pub ssh: String,
    /// The path of `peerctl` there.
    #[serde(default = "default_command")]
    pub command: String,
    /// The broker there, known since the first contact.
    pub broker: Option<String>,
}

fn default_command() -> String {
    "peerctl".to_owned()
}

/// Why the file cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// It has not the form of the file.
    #[error("{} is not valid: {}", path.display(), reason.trim())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Reads the file. A missing one has no links.
///
/// # Errors
/// See [`FileError`].
pub fn read(dir: &Path) -> Result<LinksFile, FileError> {
    let path = dir.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(LinksFile::default()),
        Err(source) => return Err(FileError::Io { path, source }),
    };
    toml::from_str(&text).map_err(|error| FileError::Invalid { path, reason: error.to_string() })
}

/// Adds a link, or changes how it is reached. The rest of the file stays as it is.
///
/// # Errors
/// See [`FileError`].
pub fn put(dir: &Path, name: &str, target: &Target) -> Result<(), FileError> {
    edit(dir, LINKS, |links| {
        let Target { ssh, command, broker } = target;
        let known = links.entry(name).or_insert_with(toml_edit::table);
        known["ssh"] = value(ssh);
        known["command"] = value(command);
        if let Some(broker) = broker {
            known["broker"] = value(broker);
        }
    })
}

/// Gives a link another name, if the file has it. The rest of the file stays as it is.
///
/// # Errors
/// See [`FileError`].
pub fn rename(dir: &Path, name: &str, new_name: &str) -> Result<(), FileError> {
    edit(dir, LINKS, |links| {
        if let Some(known) = links.remove(name) {
            links.insert(new_name, known);
        }
    })
}

/// Removes a link. The rest of the file stays as it is.
///
/// # Errors
/// See [`FileError`].
pub fn remove(dir: &Path, name: &str) -> Result<(), FileError> {
    edit(dir, LINKS, |links| drop(links.remove(name)))
}

/// Adds a team, or changes how it is reached. The rest of the file stays as it is.
///
/// # Errors
/// See [`FileError`].
pub fn put_team(dir: &Path, name: &str, target: &TeamTarget) -> Result<(), FileError> {
    let text = |path: &PathBuf| path.display().to_string();
    edit(dir, TEAMS, |teams| {
        let known = teams.entry(name).or_insert_with(toml_edit::table);
        known["nats"] = value(target.nats.iter().collect::<toml_edit::Array>());
        known["key"] = value(text(&target.key));
        let optional = [
            ("former_key", target.former_key.as_ref().map(text).map(value)),
            ("creds", target.creds.as_ref().map(text).map(value)),
            ("ca", target.ca.as_ref().map(text).map(value)),
            ("insecure", target.insecure.then(|| value(true))),
            ("accept", target.accept.then(|| value(true))),
        ];
        for (key, setting) in optional {
            if let Some(table) = known.as_table_like_mut() {
                drop(table.remove(key));
                if let Some(setting) = setting {
                    table.insert(key, setting);
                }
            }
        }
    })
}

/// Removes a team. The rest of the file stays as it is.
///
/// # Errors
/// See [`FileError`].
pub fn remove_team(dir: &Path, name: &str) -> Result<(), FileError> {
    edit(dir, TEAMS, |teams| drop(teams.remove(name)))
}

const LINKS: &str = "link";
const TEAMS: &str = "team";

/// Changes the table of links or of teams. A file that is not valid is not changed, and none is made for nothing.
/// A comment above a link goes with it, but the comment at the head of the file stays.
fn edit(dir: &Path, table: &str, change: impl FnOnce(&mut dyn TableLike)) -> Result<(), FileError> {
    read(dir)?;
    let path = dir.join(FILE);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let mut file: DocumentMut = text
        .parse()
        .map_err(|error: TomlError| FileError::Invalid { path, reason: error.to_string() })?;
    let links = file.entry(table).or_insert_with(|| {
        let mut links = Table::new();
        links.set_implicit(true);
        links.into()
    });
    if let Some(links) = links.as_table_like_mut() {
        change(links);
    }
    let mut changed = file.to_string();
    let is_comment = |line: &&str| line.trim().is_empty() || line.starts_with('#');
    let head: String = text.split_inclusive('\n').take_while(is_comment).collect();
    if !changed.starts_with(&head) {
        changed.insert_str(0, &head);
    }
    if changed == text { Ok(()) } else { write(dir, &changed) }
}

/// Writes the file under another name first, so that a reader never sees half of it.
fn write(dir: &Path, text: &str) -> Result<(), FileError> {
    let path = dir.join(FILE);
    let io = |source| FileError::Io { path: path.clone(), source };
    // Two commands may write at the same time.
    let new = dir.join(format!("{FILE}.{}.new", std::process::id()));
    let _ = std::fs::remove_file(&new);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(io)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io)?;
    std::fs::rename(&new, &path).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_added_changed_and_removed_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), LinksFile::default());
        let target = |ssh: &str| Target {
            ssh: ssh.to_owned(),
            command: "~/bin/peer \"ctl\"".to_owned(),
            broker: Some("b-1".to_owned()),
        };
        put(dir.path(), "desk", &target("desk.example")).unwrap();
        let path = dir.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("# mine\n{text}")).unwrap();
        put(dir.path(), "attic", &target("me@attic")).unwrap();
        put(dir.path(), "desk", &target("desk.other")).unwrap();
        let links = read(dir.path()).unwrap().link;
        assert_eq!(links.keys().collect::<Vec<_>>(), ["attic", "desk"]);
        assert_eq!(links["desk"], target("desk.other"));
        rename(dir.path(), "attic", "loft").unwrap();
        assert_eq!(read(dir.path()).unwrap().link["loft"], target("me@attic"));
        remove(dir.path(), "desk").unwrap();
        assert_eq!(read(dir.path()).unwrap().link.len(), 1);
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("# mine\n"));
    }

    #[test]
    fn what_a_person_wrote_in_another_form_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let forms = [
            "[link.\"desk\"] # mine\nssh = \"desk\"\n",
            "[link]\ndesk = { ssh = \"desk\" }\n",
            "link.desk.ssh = \"desk\"\n",
            "link = { desk = { ssh = \"desk\" } }\n",
        ];
        for form in forms {
            std::fs::write(&path, form).unwrap();
            let mut target = read(dir.path()).unwrap().link.remove("desk").unwrap();
            target.ssh = "me@desk".to_owned();
            put(dir.path(), "desk", &target).unwrap();
            assert_eq!(read(dir.path()).unwrap().link["desk"], target, "{form}");
            remove(dir.path(), "desk").unwrap();
            assert_eq!(read(dir.path()).unwrap(), LinksFile::default(), "{form}");
        }
    }

    #[test]
    fn teams_are_added_changed_and_removed_and_links_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        std::fs::write(&path, "[link.desk]\nssh = \"desk\"\n").unwrap();
        let mut target = TeamTarget {
            nats: vec!["tls://one:4222".to_owned(), "tls://two:4222".to_owned()],
            key: "team-blue.key".into(),
            former_key: Some("team-blue.former.key".into()),
            creds: Some("/etc/blue.creds".into()),
            ca: None,
            insecure: false,
            accept: true,
        };
        put_team(dir.path(), "blue", &target).unwrap();
        assert_eq!(read(dir.path()).unwrap().team["blue"], target);
        (target.former_key, target.accept, target.ca) = (None, false, Some("ca.pem".into()));
        put_team(dir.path(), "blue", &target).unwrap();
        let file = read(dir.path()).unwrap();
        assert_eq!((&file.team["blue"], file.link.len()), (&target, 1));
        remove_team(dir.path(), "blue").unwrap();
        let file = read(dir.path()).unwrap();
        assert!(file.team.is_empty() && file.link.contains_key("desk"));
    }

    #[test]
    fn an_unknown_key_is_an_error_and_the_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        std::fs::write(&path, "[link.desk]\nssh = \"desk\"\nport = 22\n").unwrap();
        assert!(matches!(read(dir.path()), Err(FileError::Invalid { .. })));
        assert!(remove(dir.path(), "desk").is_err());
        assert!(std::fs::read_to_string(&path).unwrap().contains("port"));
    }
}
