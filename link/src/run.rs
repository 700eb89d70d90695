//! All links of this machine, kept up: one ssh child each, and one connection for each team.
//!
//! Knows the file of links and the pauses between attempts. Does not print: what happens is told.
//! Invariants: one process serves the links of a state directory. A link that a person must mend is
//! tried only once a minute.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use peer_client::Reconnect;
use peer_client::{ConnectError, Endpoint};
use peer_link_core::{Link, LinkSettings};
use peer_proto::ids::BrokerId;
use peer_proto::policy::Policy;
use peer_proto::request::Role;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::file::{self, FileError, Target, TeamTarget};
use crate::identity::{self, IdentityError};
use crate::serve::{self, Ended, Opened};
use crate::served::{LockError, Serving, State};
use crate::{ssh, wire};

/// The shortest and the longest pause between two attempts.
pub(crate) const PAUSE_MS_MIN: u64 = 1_000;
pub(crate) const PAUSE_MS_MAX: u64 = 60_000;

/// A connection that lasted this long worked: the next pause is the shortest again.
pub(crate) const WORKED_MS: u64 = 10_000;

/// What happens to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It is up.
    Up {
        /// Its name in `links.toml`.
        link: String,
        /// The other broker.
        remote: BrokerId,
        /// What it is called by the broker here.
        alias: String,
        /// What becomes of its mail here.
        policy: Policy,
    },
    /// It is down, and will be tried again.
    Down {
        /// Its name in `links.toml`.
        link: String,
        /// Why.
        why: String,
        /// After how long.
        again_ms: u64,
        /// Whether a person must change something first.
        refused: bool,
    },
    /// Something changed in a team.
    Team {
        /// Its name in `links.toml`.
        team: String,
        /// The member that it is about; absent: the connection to the server.
        member: Option<BrokerId>,
        /// What the member is called here, or calls itself.
        alias: Option<String>,
        /// How the connection, or the link to the member, is now.
        state: State,
        /// Why, or what was refused.
        why: Option<String>,
    },
}

/// Why the links cannot be served.
#[derive(Debug, Error)]
pub enum RunError {
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The file of links cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The links cannot be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The signal cannot be waited for.
    #[error("cannot wait for a signal: {0}")]
    Signal(io::Error),
    /// There is nothing to serve.
    #[error("no links are configured")]
    None,
}

/// What one attempt came to.
#[derive(Debug, Error)]
pub enum AttemptError {
    /// ssh cannot be started.
    #[error("cannot start ssh: {0}")]
    Ssh(io::Error),
    /// The connection ended.
    #[error("{ended}{}", said.as_ref().map(|said| format!(" ({said})")).unwrap_or_default())]
    Ended {
        /// Why.
        ended: Ended,
        /// What ssh or the far side said last.
        said: Option<String>,
    },
}

impl AttemptError {
    fn is_final(&self) -> bool {
        matches!(self, Self::Ended { ended, .. } if ended.is_final())
    }
}

/// Serves all links until the process ends. SIGUSR1 tells it to read the file of links again.
///
/// # Errors
/// See [`RunError`].
pub async fn run(
    endpoint: Endpoint,
    executable: String,
    name: String,
    news: mpsc::UnboundedSender<News>,
) -> Result<(), RunError> {
    let dir = endpoint.location.dir().to_owned();
    let own = identity::own(&dir)?;
    let mut file = file::read(&dir)?;
    if file.is_empty() {
        return Err(RunError::None);
    }
    // Before the lock is taken, because whoever sees it held may send the signal.
    let mut changed = signal(SignalKind::user_defined1()).map_err(RunError::Signal)?;
    let serving = Arc::new(Mutex::new(Serving::take(&endpoint.location)?));
    let caller = Caller { endpoint, own, executable, name };
    let mut running = BTreeMap::<String, (Target, AbortHandle)>::new();
    let mut teams = BTreeMap::<String, ((TeamTarget, BTreeSet<BrokerId>), AbortHandle)>::new();
    // Dropping it ends all links.
    let mut tasks = JoinSet::new();
    loop {
        running.retain(|link, (target, task)| {
            let stays = file.link.get(link) == Some(target);
            if !stays {
                task.abort();
                locked(&serving).forget(link);
            }
            stays
        });
        for (link, target) in &file.link {
            if running.contains_key(link) {
                continue;
            }
            locked(&serving).see(link, State::Connecting, None);
            let told = told(Arc::clone(&serving), news.clone());
            let task = tasks.spawn(keep_up(caller.clone(), link.clone(), target.clone(), told));
            running.insert(link.clone(), (target.clone(), task));
        }
        // Who has a link of their own is not reached over a team as well.
        let elsewhere: BTreeSet<BrokerId> =
            file.link.values().filter_map(|target| target.broker.as_ref()?.parse().ok()).collect();
        let wanted = |team: &String| Some((file.team.get(team)?.clone(), elsewhere.clone()));
        teams.retain(|team, (served, task)| {
            let stays = wanted(team).as_ref() == Some(served);
            if !stays {
                task.abort();
                locked(&serving).forget_team(team);
            }
            stays
        });
        for team in file.team.keys() {
            let Some(served) = wanted(team).filter(|_| !teams.contains_key(team)) else { continue };
            locked(&serving).see_team(team, State::Connecting, None);
            let told = told(Arc::clone(&serving), news.clone());
            let (target, elsewhere) = served.clone();
            let team_served = serve_team(caller.clone(), (team.clone(), target), elsewhere, told);
            let task = tasks.spawn(team_served);
            teams.insert(team.clone(), (served, task));
        }
        if changed.recv().await.is_none() {
            return Ok(());
        }
        // While the file is damaged, the links stay as they are; `peerctl doctor` reports it.
        if let Ok(read) = file::read(&dir) {
            file = read;
        }
    }
}

#[cfg(feature = "nats")]
async fn serve_team(
    caller: Caller,
    team: (String, TeamTarget),
    elsewhere: BTreeSet<BrokerId>,
    told: Tell,
) {
    crate::team::keep_up(caller, team, elsewhere, Arc::new(told)).await;
}

#[cfg(not(feature = "nats"))]
async fn serve_team(_: Caller, (team, _): (String, TeamTarget), _: BTreeSet<BrokerId>, told: Tell) {
    let why = "this peerctl was built without NATS";
    let (member, alias) = (None, None);
    told(News::Team { team, member, alias, state: State::Refused, why: Some(why.to_owned()) });
    std::future::pending::<()>().await;
}

pub(crate) type Tell = Box<dyn Fn(News) + Send + Sync>;

/// Records what happens, and passes it on.
fn told(serving: Arc<Mutex<Serving>>, news: mpsc::UnboundedSender<News>) -> Tell {
    Box::new(move |what| {
        match &what {
            News::Up { link, .. } => locked(&serving).see(link, State::Up, None),
            News::Down { link, why, refused, .. } => {
                let state = if *refused { State::Refused } else { State::Down };
                locked(&serving).see(link, state, Some(why.clone()));
            }
            News::Team { team, member: None, state, why, .. } => {
                locked(&serving).see_team(team, *state, why.clone());
            }
            News::Team { team, member: Some(member), alias, state, why } => {
                let mut serving = locked(&serving);
                serving.see_member(team, *member, alias.clone(), *state, why.clone());
            }
        }
        // Without a reader the links are served all the same.
        let _ = news.send(what);
    })
}

fn locked(serving: &Mutex<Serving>) -> MutexGuard<'_, Serving> {
    serving.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This machine, as it calls another one.
#[derive(Clone, Debug)]
pub struct Caller {
    /// This machine's broker.
    pub endpoint: Endpoint,
    /// Its identity.
    pub own: BrokerId,
    /// This program's file.
    pub executable: String,
    /// What this machine calls itself.
    pub name: String,
}

async fn keep_up(caller: Caller, link: String, target: Target, news: Tell) {
    let mut broker = Reconnect::new(caller.endpoint.clone(), Role::Link);
    let mut pause_ms = PAUSE_MS_MIN;
    loop {
        let began = Instant::now();
        let opened = |Opened { remote, alias, policy, .. }: Opened| {
            news(News::Up { link: link.clone(), remote, alias, policy });
            true
        };
        let Err(error) = call(&caller, &mut broker, (&link, &target), Policy::Hold, opened).await;
        if matches!(
            &error,
            AttemptError::Ended { ended: Ended::Broker(ConnectError::SentAway(_)), .. }
        ) {
            // The link was removed, or another process serves it. Both may be over at the next try.
            broker = Reconnect::new(caller.endpoint.clone(), Role::Link);
        }
        if began.elapsed() >= Duration::from_millis(WORKED_MS) {
            pause_ms = PAUSE_MS_MIN;
        }
        let refused = error.is_final();
        if refused {
            pause_ms = PAUSE_MS_MAX;
        }
        let again_ms = jittered(pause_ms);
        let why = error.to_string();
        news(News::Down { link: link.clone(), why, again_ms, refused });
        tokio::time::sleep(Duration::from_millis(again_ms)).await;
        pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
    }
}

/// Calls another machine once, and serves the link until it ends. A broker here that was stopped on
/// purpose is not started again for a while: `broker` knows that.
///
/// # Errors
/// Always: why it ended.
pub async fn call(
    caller: &Caller,
    broker: &mut Reconnect,
    (link, target): (&str, &Target),
    policy: Policy,
    opened: impl FnMut(Opened) -> bool,
) -> Result<std::convert::Infallible, AttemptError> {
    let ended = |ended: Ended, said: Option<String>| AttemptError::Ended { ended, said };
    // Without this broker there is nothing to carry.
    let broker =
        serve::connect_broker(broker, caller.own).await.map_err(|error| ended(error, None))?;
    let (child, stdout, stdin) =
        ssh::start(&target.ssh, &target.command, &["link", "--stdio", "--as", &caller.name])
            .map_err(AttemptError::Ssh)?;
    let opening = wire::open(stdout, stdin, &caller.executable);
    let open = match tokio::time::timeout(Duration::from_millis(serve::GREETING_MS), opening).await
    {
        Ok(open) => open.map_err(Ended::from),
        Err(_) => Err(Ended::NoGreeting),
    };
    let (incoming, outgoing, _) = match open {
        Ok(open) => open,
        Err(error) => return Err(ended(error, child.end().await)),
    };
    let core = Link::new(LinkSettings {
        own: caller.own,
        expected: target.broker.as_ref().and_then(|broker| broker.parse().ok()),
        alias: Some(link.to_owned()),
        name: caller.name.clone(),
        policy,
        software: env!("CARGO_PKG_VERSION").to_owned(),
    });
    let why = serve::serve(broker, core, (incoming, outgoing), opened).await;
    Err(ended(why, child.end().await))
}

/// Serves the far end of a link: frames on stdin and stdout. `policy` is for a broker that is not
/// known yet. `name` is what this machine calls itself, `alias` what the other is called.
///
/// # Errors
/// Always: why it ended.
pub async fn answer(
    caller: &Caller,
    alias: Option<String>,
    policy: Policy,
) -> Result<std::convert::Infallible, Ended> {
    let mut broker = Reconnect::new(caller.endpoint.clone(), Role::Link);
    let broker = serve::connect_broker(&mut broker, caller.own).await?;
    let (incoming, outgoing, _) =
        wire::open(tokio::io::stdin(), tokio::io::stdout(), &caller.executable).await?;
    let core = Link::new(LinkSettings {
        own: caller.own,
        expected: None,
        alias,
        name: caller.name.clone(),
        policy,
        software: env!("CARGO_PKG_VERSION").to_owned(),
    });
    Err(serve::serve(broker, core, (incoming, outgoing), |_| true).await)
}

/// A fifth more or less, so that many machines do not come back at once.
pub(crate) fn jittered(pause_ms: u64) -> u64 {
    let drawn = getrandom::u32().unwrap_or(u32::MAX / 2);
    let spread = pause_ms * 2 / 5;
    pause_ms - pause_ms / 5 + spread * u64::from(drawn) / u64::from(u32::MAX)
}
