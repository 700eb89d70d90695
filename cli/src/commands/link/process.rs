//! `peerctl link run`, `start`, `stop`: the process that serves the links of this state directory.
//!
//! Knows its lock, its log and its end. Does not know what a link carries. Invariant: `start` reports
//! success only if a process holds the lock.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peer_client::start::{Said, not_run, said};
use peer_client::{Endpoint, Start, holder};
use peer_link::run::{self, News};
use peer_link::{file, served};
use peer_proto::location::Location;
use peer_proto::text::single_line;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::caller;
use crate::error::Failure;
use crate::output::{Output, cell};

/// Milliseconds that a process may take to take the links, and to end after it was told to.
const START_TIMEOUT_MS: u64 = 5_000;
const STOP_TIMEOUT_MS: u64 = 5_000;

/// Milliseconds between two checks of the lock. Nothing announces that it is taken.
const LOOK_MS: u64 = 10;

/// The bytes at the end of the log that are read for the reason of a failure.
const LOG_END_BYTES: i64 = 4_096;

/// What happens to a link, for `link run`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LinkNews {
    /// The link; null if it is about the connection to a team's server.
    link: Option<String>,
    /// The team, if it is about one.
    team: Option<String>,
    /// `up`, `connecting`, `down` or `refused`.
    state: &'static str,
    /// The other broker, if it is up.
    broker: Option<String>,
    /// Why it is down.
    error: Option<String>,
    /// After how long it is tried again.
    again_ms: Option<u64>,
}

/// The process that serves the links.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LinkProcess {
    /// Whether a process serves the links now.
    running: bool,
    /// Its process id, if the system tells it.
    pid: Option<u32>,
    /// Whether this command started or ended it.
    changed: bool,
}

impl LinkProcess {
    fn say(&self, output: &Output, text: &str) -> Result<(), Failure> {
        if output.json { output.json(self) } else { output.line(text) }
    }
}

/// Serves all links in the foreground, or as the process that `start` has made.
pub(super) async fn serve(
    output: &Output,
    endpoint: &Endpoint,
    detached: bool,
) -> Result<(), Failure> {
    if detached {
        // Its terminal may go. A process that leads its group already has a session of its own.
        let _ = nix::unistd::setsid();
    }
    let caller = caller(endpoint).await?;
    let (sender, mut news) = mpsc::unbounded_channel();
    let endpoint = Endpoint { start: Start::IfNeeded, ..endpoint.clone() };
    let mut running = std::pin::pin!(run::run(endpoint, caller.executable, caller.name, sender));
    let mut last = std::collections::BTreeMap::new();
    loop {
        let what = tokio::select! {
            done = &mut running => return Ok(done?),
            Some(what) = news.recv() => what,
        };
        let is_team = matches!(what, News::Team { .. });
        let (about, said) = match &what {
            News::Up { link, .. } => (link.clone(), String::new()),
            News::Down { link, why, .. } => (link.clone(), why.clone()),
            News::Team { team, member, state, why, .. } => {
                let why = why.clone().unwrap_or_default();
                (format!("{team} {member:?}"), format!("{} {why}", state.as_str()))
            }
        };
        let again = last.insert(about, said.clone()).as_ref() == Some(&said);
        // The log of a machine that is away for weeks has one line for it. Of a team, many are away.
        if again && (detached || is_team) {
            continue;
        }
        tell(output, what)?;
    }
}

fn tell(output: &Output, news: News) -> Result<(), Failure> {
    if output.json {
        return output.json_line(&match news {
            News::Up { link, remote, .. } => LinkNews {
                link: Some(link),
                team: None,
                state: "up",
                broker: Some(remote.to_string()),
                error: None,
                again_ms: None,
            },
            News::Down { link, why, again_ms, refused } => LinkNews {
                link: Some(link),
                team: None,
                state: if refused { "refused" } else { "down" },
                broker: None,
                error: Some(why),
                again_ms: Some(again_ms),
            },
            News::Team { team, member, alias, state, why } => LinkNews {
                link: alias.or_else(|| member.map(|member| member.to_string())),
                team: Some(team),
                state: state.as_str(),
                broker: member.map(|member| member.to_string()),
                error: why,
                again_ms: None,
            },
        });
    }
    output.line(&match news {
        News::Up { link, remote, policy, .. } => {
            format!("{} is up: {remote}, its mail: {}", cell(&link), policy.as_str())
        }
        News::Down { link, why, again_ms, .. } => format!(
            "{} is down: {}; trying again in {} s",
            cell(&link),
            single_line(&why),
            again_ms.div_ceil(1_000)
        ),
        News::Team { team, member, alias, state, why } => {
            let about = match (alias, member) {
                (_, None) => format!("team {}", cell(&team)),
                (Some(alias), Some(_)) => format!("{} of team {}", cell(&alias), cell(&team)),
                (None, Some(member)) => format!("{member} of team {}", cell(&team)),
            };
            let why = why.map(|why| format!(": {}", single_line(&why))).unwrap_or_default();
            format!("{about} is {}{why}", state.as_str())
        }
    })
}

/// Starts a process that serves the links in the background, unless one is running.
pub(super) async fn start(output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    if let Some(served) = served::look(&endpoint.location) {
        let text = format!("the links are served already{}", by(served.pid));
        return LinkProcess { running: true, pid: served.pid, changed: false }.say(output, &text);
    }
    if file::read(endpoint.location.dir())?.is_empty() {
        return Err(run::RunError::None.into());
    }
    // A broker that cannot start is a failure of this command, and not a line in a log.
    let _ = crate::operator::Operator::connect(endpoint).await?;
    let log = endpoint.location.link_log();
    let program = endpoint.program()?;
    let mut child = spawn(endpoint, &program, &log)?;
    let began = tokio::time::Instant::now();
    loop {
        if let Some(served) = served::look(&endpoint.location) {
            let changed = served.pid.is_none() || served.pid == child.id();
            let text = format!(
                "the links are served{}; `peerctl link ls` shows how they are",
                by(served.pid)
            );
            return LinkProcess { running: true, pid: served.pid, changed }.say(output, &text);
        }
        let ended = child.try_wait().map_err(|error| Failure::system("waiting for it", error))?;
        if ended.is_some() {
            let Said { message, hint } = end_of(&log).unwrap_or_else(|| Said {
                message: "the process of links ended without any output".to_owned(),
                hint: String::new(),
            });
            let hint =
                if hint.is_empty() { "`peerctl link run` shows why".to_owned() } else { hint };
            return Err(Failure::wrong(message).hint(hint));
        }
        if began.elapsed() >= Duration::from_millis(START_TIMEOUT_MS) {
            let _ = child.kill().await;
            let message =
                format!("the process of links did not take them within {START_TIMEOUT_MS} ms");
            return Err(Failure::wrong(message).hint(format!("read {}", log.display())));
        }
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
}

fn spawn(
    endpoint: &Endpoint,
    program: &std::path::Path,
    log: &std::path::Path,
) -> Result<Child, Failure> {
    let file = |source| Failure::file("opening", log, source);
    let _ = std::fs::remove_file(log);
    let out =
        OpenOptions::new().append(true).create_new(true).mode(0o600).open(log).map_err(file)?;
    let err = out.try_clone().map_err(file)?;
    // ssh needs the environment of the person, such as that of their agent of keys.
    Command::new(program)
        .args(["link", "run", "--detached"])
        .env("PEERD_DIR", endpoint.location.dir())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .map_err(|source| Failure::said_by_broker(not_run(program, &source)))
}

fn by(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" by process {pid}")).unwrap_or_default()
}

fn end_of(log: &std::path::Path) -> Option<Said> {
    let mut file = File::open(log).ok()?;
    let bytes = i64::try_from(file.metadata().ok()?.len()).unwrap_or(LOG_END_BYTES);
    file.seek(SeekFrom::End(-bytes.min(LOG_END_BYTES))).ok()?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).ok()?;
    said(&[], &text)
}

/// Ends the process that serves the links, if there is one. Mail waits for the next one.
pub(super) async fn stop(output: &Output, location: &Location) -> Result<(), Failure> {
    match end(location).await? {
        None => LinkProcess { running: false, pid: None, changed: false }
            .say(output, "no process serves the links"),
        Some(pid) => {
            let text = format!("process {pid} no longer serves the links; mail waits");
            LinkProcess { running: false, pid: Some(pid), changed: true }.say(output, &text)
        }
    }
}

/// Ends the process, and returns its id. `None`: there was none.
pub(crate) async fn end(location: &Location) -> Result<Option<u32>, Failure> {
    let Some(served) = served::look(location) else { return Ok(None) };
    let lock = location.link_lock();
    let Some(pid) = served.pid else {
        return Err(Failure::wrong("this system does not tell which process serves the links")
            .hint(format!("`fuser {}` may show it", lock.display())));
    };
    if !holder::end_at(&lock, pid, Duration::from_millis(STOP_TIMEOUT_MS)).await {
        return Err(Failure::timed_out(format!(
            "process {pid} still serves the links after {STOP_TIMEOUT_MS} ms"
        ))
        .hint(format!("`kill -KILL {pid}` ends it; no mail is lost")));
    }
    Ok(Some(pid))
}

/// Tells the process that serves the links, if there is one, to read the file of links again.
pub(super) fn reload(location: &Location) -> bool {
    let pid = served::look(location).and_then(|served| served.pid);
    pid.is_some_and(|pid| kill(Pid::from_raw(pid.cast_signed()), Signal::SIGUSR1).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_failure_is_the_end_of_the_log() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let log = dir.path().join("link.log");
        assert_eq!(end_of(&log), None);
        std::fs::write(&log, "peerctl: cannot use link.key\n")?;
        assert_eq!(end_of(&log).map(|said| said.message), Some("cannot use link.key".to_owned()));
        Ok(())
    }
}
