//! A team on a NATS server: connected, and a link to each member kept up.
//!
//! Knows the team's files and the pauses between attempts. What crosses the server, and how, is in
//! `peer-link-nats`. Invariants: a member has one link at a time. A secret lies in a file that nobody
//! else may read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use peer_client::{ConnectError, Reconnect};
use peer_link_core::{Link, LinkSettings};
pub use peer_link_nats::seal::{DirectoryCard, TeamKey};
use peer_link_nats::session::{SessionIn, SessionOut};
pub use peer_link_nats::stock::permissions;
pub use peer_link_nats::team::{
    Here, MeetError, TeamError, check_address, make, visit, without_password,
};
use peer_link_nats::team::{Member, Team, TeamNews, TeamSettings, connect};
pub use peer_link_nats::token::{NotAToken, TeamToken, is_team_name};
use peer_proto::handshake::Preface;
use peer_proto::ids::{BrokerId, MessageId};
use peer_proto::link::Frame;
use peer_proto::policy::Policy;
use peer_proto::request::Role;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::file::TeamTarget;
use crate::identity::{self, IdentityError};
use crate::letters::Correspondence;
use crate::run::{Caller, News, PAUSE_MS_MAX, PAUSE_MS_MIN, Tell, WORKED_MS, jittered};
use crate::serve::{self, BrokerLine, Ended, Opened};
use crate::served::State;
use crate::wire::{FramesIn, FramesOut, LINK_VERSION, WireError};

/// Why a team's files cannot be used.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The identity or a key.
    #[error(transparent)]
    Key(#[from] IdentityError),
    /// Others may read the credentials.
    #[error("{} has mode {mode:04o}, so others can read it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl SecretError {
    /// The next step.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Key(error) => error.hint(),
            Self::Exposed { path, .. } => format!("run `chmod 600 {}`", path.display()),
            Self::Io { .. } => "check its path, owner and mode".to_owned(),
        }
    }
}

/// The name of the file with a key of a team, in the state directory. Another key has another name,
/// so that whoever reads `links.toml` sees that the key changed.
#[must_use]
pub fn key_file(team: &str, key: &TeamKey) -> PathBuf {
    let digest = Sha256::digest(key.0);
    let mark: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    PathBuf::from(format!("link.team-{team}-{mark}.key"))
}

/// Writes a team's key. The file is never seen half written.
///
/// # Errors
/// [`SecretError::Io`]
pub fn write_key(path: &Path, key: &TeamKey) -> Result<(), SecretError> {
    let io = |source| SecretError::Io { path: path.to_owned(), source };
    let new = path.with_extension(format!("key.{}.new", std::process::id()));
    let _ = std::fs::remove_file(&new);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(io)?;
    file.write_all(&key.0).and_then(|()| file.sync_all()).map_err(io)?;
    std::fs::rename(&new, path).map_err(io)
}

/// Reads a team's key.
///
/// # Errors
/// See [`SecretError`].
pub fn read_key(path: &Path) -> Result<TeamKey, SecretError> {
    Ok(TeamKey(identity::read(path)?))
}

/// Refuses a file of credentials that others may read.
///
/// # Errors
/// See [`SecretError`].
pub fn check_creds(path: &Path) -> Result<(), SecretError> {
    let io = |source| SecretError::Io { path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(io)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}

/// What a connection to a team is made with, from its files.
///
/// # Errors
/// See [`SecretError`].
pub fn settings(
    caller: &Caller,
    team: &str,
    target: &TeamTarget,
) -> Result<TeamSettings, SecretError> {
    let dir = caller.endpoint.location.dir();
    let mut keys = vec![read_key(&dir.join(&target.key))?];
    if let Some(former) = &target.former_key {
        keys.push(read_key(&dir.join(former))?);
    }
    let creds = target.creds.as_ref().map(|creds| dir.join(creds));
    if let Some(creds) = &creds {
        check_creds(creds)?;
    }
    Ok(TeamSettings {
        team: team.to_owned(),
        urls: target.nats.clone(),
        creds,
        ca: target.ca.as_ref().map(|ca| dir.join(ca)),
        insecure: target.insecure,
        secret: identity::secret(dir)?,
        keys,
        name: caller.name.clone(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        preface: Preface {
            min: LINK_VERSION,
            max: LINK_VERSION,
            ..Preface::ours(&caller.executable)
        },
    })
}

impl FramesIn for SessionIn {
    async fn next(&mut self) -> Result<Frame, WireError> {
        SessionIn::next(self).await.map_err(|error| WireError::Session(error.0))
    }
}

impl FramesOut for SessionOut {
    async fn feed(&mut self, frame: &Frame) -> Result<(), WireError> {
        SessionOut::feed(self, frame).await.map_err(|error| WireError::Session(error.0))
    }

    async fn flush(&mut self) -> Result<(), WireError> {
        // The client of the server sends at once.
        Ok(())
    }
}

/// Why a connection to a team ended: in words, and whether a person must change something.
struct Over {
    why: String,
    is_final: bool,
    /// There is a reason to try again now.
    at_once: bool,
}

impl Over {
    fn later(why: String) -> Self {
        Self { why, is_final: false, at_once: false }
    }
}

impl From<SecretError> for Over {
    fn from(error: SecretError) -> Self {
        Self { why: format!("{error}; {}", error.hint()), is_final: true, at_once: false }
    }
}

impl From<&TeamError> for Over {
    fn from(error: &TeamError) -> Self {
        let is_final = error.is_final();
        let why = if is_final { format!("{error}; {}", error.hint()) } else { error.to_string() };
        Self { why, is_final, at_once: false }
    }
}

/// Keeps a team connected, and a link to each of its members.
/// Those that a link of its own leads to are left to that link.
pub(crate) async fn keep_up(
    caller: Caller,
    (name, target): (String, TeamTarget),
    elsewhere: BTreeSet<BrokerId>,
    tell: Arc<Tell>,
) {
    let mut pause_ms = PAUSE_MS_MIN;
    loop {
        let began = Instant::now();
        let over = serve_team(&caller, (&name, &target), &elsewhere, &tell).await;
        if began.elapsed() >= Duration::from_millis(WORKED_MS) {
            pause_ms = PAUSE_MS_MIN;
        }
        if over.is_final {
            pause_ms = PAUSE_MS_MAX;
        }
        let again_ms = jittered(pause_ms);
        tell(News::Team {
            team: name.clone(),
            member: None,
            alias: None,
            state: if over.is_final { State::Refused } else { State::Down },
            why: Some(over.why),
        });
        tokio::time::sleep(Duration::from_millis(again_ms)).await;
        pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
    }
}

/// Connects to a team, and serves its members until the connection ends.
async fn serve_team(
    caller: &Caller,
    (name, target): (&str, &TeamTarget),
    elsewhere: &BTreeSet<BrokerId>,
    tell: &Arc<Tell>,
) -> Over {
    let settings = match settings(caller, name, target) {
        Ok(settings) => settings,
        Err(error) => return error.into(),
    };
    let (team, mut news) = match connect(settings).await {
        Ok(connected) => connected,
        Err(error) => return (&error).into(),
    };
    let of_team =
        |state, why| News::Team { team: name.to_owned(), member: None, alias: None, state, why };
    tell(of_team(State::Up, None));
    let team = Arc::new(team);
    let policy = if target.accept { Policy::Accept } else { Policy::Hold };
    let mut members = JoinSet::new();
    let mut known = BTreeMap::new();
    let mut refused = BTreeMap::new();
    let error = loop {
        tokio::select! {
            error = team.failed() => break error,
            Some(happened) = news.recv() => match happened {
                TeamNews::Member(Member { id, .. }) if elsewhere.contains(&id) => {}
                TeamNews::Member(Member { id, name: called }) => {
                    let member = MemberLink {
                        caller: caller.clone(),
                        team: Arc::clone(&team),
                        team_name: name.to_owned(),
                        id,
                        called,
                        policy,
                        tell: Arc::clone(tell),
                    };
                    known.entry(id).or_insert_with(|| drop(members.spawn(member.keep_up())));
                }
                TeamNews::Refused { id, why } => {
                    let why = format!("what came from {id} is not accepted: {why}");
                    refused.insert(id, why.clone());
                    tell(of_team(State::Up, Some(why)));
                }
                TeamNews::Accepted { id } => {
                    refused.remove(&id);
                    tell(of_team(State::Up, refused.values().next().cloned()));
                }
            },
        }
    };
    // The next connection asks whether another process answers for this broker: none of this one may.
    members.shutdown().await;
    (&*error).into()
}

/// The link to one member.
struct MemberLink {
    caller: Caller,
    team: Arc<Team>,
    team_name: String,
    id: BrokerId,
    called: Option<String>,
    policy: Policy,
    tell: Arc<Tell>,
}

impl MemberLink {
    async fn keep_up(self) {
        let mut broker = Reconnect::new(self.caller.endpoint.clone(), Role::Link);
        let mut pause_ms = PAUSE_MS_MIN;
        // What was left for it over this connection to the server.
        let mut left = BTreeSet::new();
        self.say(None, State::Connecting, None);
        loop {
            let began = Instant::now();
            let over = self.serve(&mut broker, &mut left).await;
            if began.elapsed() >= Duration::from_millis(WORKED_MS) {
                pause_ms = PAUSE_MS_MIN;
            }
            if over.is_final {
                pause_ms = PAUSE_MS_MAX;
            }
            let state = if over.is_final { State::Refused } else { State::Down };
            self.say(None, state, Some(over.why));
            if over.at_once {
                continue;
            }
            // A member that comes back is met at once.
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(jittered(pause_ms))) => {}
                () = self.team.stirred(self.id) => {}
            }
            pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
        }
    }

    fn say(&self, alias: Option<String>, state: State, why: Option<String>) {
        (self.tell)(News::Team {
            team: self.team_name.clone(),
            member: Some(self.id),
            alias: alias.or_else(|| self.called.clone()),
            state,
            why,
        });
    }

    async fn serve(&self, broker: &mut Reconnect, left: &mut BTreeSet<MessageId>) -> Over {
        // Without this broker there is nothing to carry.
        let line = match serve::connect_broker(broker, self.caller.own).await {
            Ok(line) => line,
            Err(ended) => return self.over(&ended, broker),
        };
        let wire = match self.team.meet(self.id).await {
            Ok(wire) => {
                // What it does not take now may have to be left again.
                left.clear();
                wire
            }
            Err(error @ MeetError::Away) => {
                self.say(None, State::Down, Some(error.to_string()));
                let why = self.correspond(line, left).await;
                return match why {
                    Some(ended) => self.over(&ended, broker),
                    None => Over { at_once: true, ..Over::later(error.to_string()) },
                };
            }
            Err(error) => return Over::later(error.to_string()),
        };
        let core = Link::new(LinkSettings {
            own: self.caller.own,
            expected: Some(self.id),
            alias: None,
            name: self.caller.name.clone(),
            policy: self.policy,
            software: env!("CARGO_PKG_VERSION").to_owned(),
        });
        let opened = |Opened { alias, .. }: Opened| {
            self.say(Some(alias), State::Up, None);
            true
        };
        let ended = serve::serve(line, core, wire, opened).await;
        self.over(&ended, broker)
    }

    /// Carries letters until the member shows itself, or may have come back unseen. `Some`: this broker
    /// ended it.
    async fn correspond(&self, line: BrokerLine, left: &mut BTreeSet<MessageId>) -> Option<Ended> {
        let correspondence = Correspondence {
            team: &self.team,
            own: self.caller.own,
            remote: self.id,
            alias: self.called.clone().unwrap_or_else(|| "member".to_owned()),
            policy: self.policy,
        };
        tokio::select! {
            ended = correspondence.serve(line, left) => Some(ended),
            () = self.team.stirred(self.id) => None,
            () = tokio::time::sleep(Duration::from_millis(PAUSE_MS_MAX)) => None,
        }
    }

    fn over(&self, ended: &Ended, broker: &mut Reconnect) -> Over {
        if matches!(ended, Ended::Broker(ConnectError::SentAway(_))) {
            // The link was removed, or the other transport carries it. Both may be over at the next
            // try.
            *broker = Reconnect::new(self.caller.endpoint.clone(), Role::Link);
        }
        Over { is_final: ended.is_final(), ..Over::later(ended.to_string()) }
    }
}
