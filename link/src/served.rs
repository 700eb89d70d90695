//! Who serves the links of a state directory, and how each one is: `link.lock` and `link.state`.
//!
//! Knows both files. Does not know how a link is served. Invariant: what `link.state` says counts
//! only if the process that wrote it holds the lock.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use peer_client::holder;
use peer_proto::ids::{BrokerId, Timestamp};
use peer_proto::location::{Holding, Location, Phase};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock;

/// Most bytes of `link.state`. A larger file is not read.
const STATE_BYTES_MAX: u64 = 1024 * 1024;

/// How a link is, as the process that serves it sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is being tried for the first time.
    Connecting,
    /// It is up.
    Up,
    /// It is down, and tried again by itself.
    Down,
    /// The other side or this broker refuses it. It is tried again once a minute, but a person must
    /// change something.
    Refused,
}

impl State {
    /// The name in text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Up => "up",
            Self::Down => "down",
            Self::Refused => "refused",
        }
    }
}

/// One link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// How it is.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// Why it is down, if it is.
    pub error: Option<String>,
}

/// The process that serves the links, and how they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// Its process id, if the system tells it.
    pub pid: Option<u32>,
    /// The links, by their names in `links.toml`.
    pub links: BTreeMap<String, Seen>,
    /// The connections to the servers of teams, by the teams' names in `links.toml`.
    #[serde(default)]
    pub teams: BTreeMap<String, Seen>,
    /// The links to members of teams, by the other broker.
    #[serde(default)]
    pub members: BTreeMap<String, SeenMember>,
}

/// The link to a member of a team.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenMember {
    /// The team.
    pub team: String,
    /// What the member is called here, or calls itself, if that is known.
    pub alias: Option<String>,
    /// How the link is.
    pub seen: Seen,
}

/// Why the links cannot be taken.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process serves them.
    #[error("another process serves the links of this directory: it holds {}", .0.display())]
    Running(PathBuf),
    /// The lock cannot be taken, or the process's id not written.
    #[error("cannot lock {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// Who serves the links now. `None`: no process does.
#[must_use]
pub fn look(location: &Location) -> Option<Served> {
    let holder = holder::look_at(&location.link_lock())?;
    let said = read(location).filter(|said| holder.pid.is_none() || said.pid == holder.pid);
    Some(Served { pid: holder.pid, ..said.unwrap_or_default() })
}

/// The members of teams, as the process that serves the links told last, also if it has ended.
#[must_use]
pub fn members(location: &Location) -> BTreeMap<String, SeenMember> {
    read(location).map(|said| said.members).unwrap_or_default()
}

fn read(location: &Location) -> Option<Served> {
    let path = location.link_state();
    let found = path.symlink_metadata().ok()?;
    if !found.is_file() || found.len() > STATE_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// The links, taken by this process for the life of the value.
#[derive(Debug)]
pub struct Serving {
    _lock: File,
    location: Location,
    served: Served,
}

impl Serving {
    /// Takes the links of a state directory.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn take(location: &Location) -> Result<Self, LockError> {
        let path = location.link_lock();
        let failed = |source| LockError::Io { path: path.clone(), source };
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LockError::Running(path)),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let pid = std::process::id();
        let holding = Holding { pid, phase: Phase::Serving };
        lock.write_all(holding.line().as_bytes()).map_err(failed)?;
        // Who is reached over which team stays known. How they are is not.
        let mut members = members(location);
        for member in members.values_mut() {
            member.seen = Seen { state: State::Down, since: clock::now(), error: None };
        }
        let served = Served { pid: Some(pid), members, ..Served::default() };
        let serving = Self { _lock: lock, location: location.clone(), served };
        serving.write();
        Ok(serving)
    }

    /// Records how a link is now.
    pub fn see(&mut self, link: &str, state: State, error: Option<String>) {
        let seen = seen(self.served.links.get(link), state, error);
        self.served.links.insert(link.to_owned(), seen);
        self.write();
    }

    /// Records how the connection to a team's server is now.
    pub fn see_team(&mut self, team: &str, state: State, error: Option<String>) {
        let seen = seen(self.served.teams.get(team), state, error);
        self.served.teams.insert(team.to_owned(), seen);
        if state != State::Up {
            // Without the server nobody is reached.
            for member in self.served.members.values_mut().filter(|member| member.team == team) {
                let error = member.seen.error.clone();
                member.seen = self::seen(Some(&member.seen), State::Down, error);
            }
        }
        self.write();
    }

    /// Records how the link to a member of a team is now.
    pub fn see_member(
        &mut self,
        team: &str,
        member: BrokerId,
        alias: Option<String>,
        state: State,
        error: Option<String>,
    ) {
        let before = self.served.members.get(&member.to_string());
        let seen = seen(before.map(|before| &before.seen), state, error);
        let alias =
            before.and_then(|before| before.alias.clone()).filter(|_| state != State::Up).or(alias);
        let member_seen = SeenMember { team: team.to_owned(), alias, seen };
        self.served.members.insert(member.to_string(), member_seen);
        self.write();
    }

    /// Records that a team is served no more.
    pub fn forget_team(&mut self, team: &str) {
        self.served.teams.remove(team);
        self.served.members.retain(|_, member| member.team != team);
        self.write();
    }

    /// Records that a link is served no more.
    pub fn forget(&mut self, link: &str) {
        self.served.links.remove(link);
        self.write();
    }

    /// Writes the file under another name first. A full disk costs the report and not the link.
    fn write(&self) {
        let path = self.location.link_state();
        let new = path.with_extension("state.new");
        let _ = std::fs::remove_file(&new);
        let written = || -> io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(&serde_json::to_vec(&self.served)?)?;
            std::fs::rename(&new, &path)
        };
        if written().is_err() {
            // An old report must not pass for the present one.
            let _ = std::fs::remove_file(&path);
        }
    }
}

/// How something is now. The time stays while the state does.
fn seen(before: Option<&Seen>, state: State, error: Option<String>) -> Seen {
    let since = match before {
        Some(before) if before.state == state => before.since,
        _ => clock::now(),
    };
    Seen { state, since, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_counts_only_while_its_process_serves_the_links() {
        let dir = tempfile::tempdir().unwrap();
        let location = Location::resolve(Some(dir.path()), None).unwrap();
        assert_eq!(look(&location), None);
        let mut serving = Serving::take(&location).unwrap();
        assert!(matches!(Serving::take(&location), Err(LockError::Running(_))));
        serving.see("attic", State::Connecting, None);
        serving.see("desk", State::Refused, Some("no".to_owned()));
        let served = look(&location).unwrap();
        assert_eq!(served.links["desk"].error.as_deref(), Some("no"));
        assert_eq!(served.links["attic"].state, State::Connecting);
        // What another process wrote before is not believed, where the kernel names the holder.
        let before = Served { pid: Some(std::process::id() + 1), ..served.clone() };
        std::fs::write(location.link_state(), serde_json::to_vec(&before).unwrap()).unwrap();
        if served.pid.is_some() {
            assert!(look(&location).unwrap().links.is_empty());
        }
        serving.forget("attic");
        assert_eq!(look(&location).unwrap().links.keys().collect::<Vec<_>>(), ["desk"]);
        drop(serving);
        assert_eq!(look(&location), None);
    }
}
