//! `peerctl daemon start`: starts one broker, however many starters there are, or reports why none
//! runs.
//!
//! Knows the lock, the exit of the child process, and its output. Does not know what the broker
//! needs. One broker gets the lock; a starter that loses waits for the winner. A broker whose
//! socket is gone is told to end. Invariant: a broker that dies twice while it starts is not
//! started a third time.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use peer_client::start::{ENVIRONMENT_KEPT, Said, not_run, said};
use peer_client::{ConnectError, Endpoint, holder};
use peer_proto::location::Phase;
use peer_proto::request::Welcome;
use peer_proto::text::single_line;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::stop;
use crate::commands::status;
use crate::error::{ALREADY_RUNNING, Failure};
use crate::operator::Operator;

/// Milliseconds after which a start has failed.
const START_TIMEOUT_MS: u64 = 10_000;

/// The pauses before a starter that lost tries again, in milliseconds; each pause is twice the one
/// before.
const PAUSE_MS_MIN: u64 = 10;
const PAUSE_MS_MAX: u64 = 320;

/// Deaths of starting brokers after which the start has failed. One may have been killed by a
/// person; after a second death, the next broker would die as well.
const DEATHS_MAX: usize = 2;

/// Milliseconds that a broker may take to end after it closed its standard error without answering.
const END_TIMEOUT_MS: u64 = 1_000;

/// The part of a dead broker's output that is reported: lines, and characters of each.
const LAST_LINES_MAX: usize = 3;
const LAST_LINE_CHARS_MAX: usize = 300;

/// The bytes at the end of the log that are read for this.
const LOG_END_BYTES: u64 = 4_096;

pub(super) struct Started {
    pub(super) welcome: Welcome,
    /// Whether this command started it.
    pub(super) fresh: bool,
    /// Why the broker does not use `config.toml`.
    pub(super) config_fault: Option<String>,
}

/// Starts the broker unless one is running. Returns once a broker answers.
pub(super) async fn start(endpoint: &Endpoint) -> Result<Started, Failure> {
    let deadline = Instant::now() + Duration::from_millis(START_TIMEOUT_MS);
    let mut pause_ms = PAUSE_MS_MIN;
    let mut deaths = 0;
    let mut ours: Option<Born> = None;
    // The output of our last broker before it ended. It is reported only if no other broker came
    // up.
    let mut said: Option<Said> = None;
    loop {
        match Operator::connect(endpoint).await {
            Ok(operator) => {
                // A broker that is about to end does not answer; then another one will.
                let config_fault =
                    status::ask(&operator).await.ok().as_ref().and_then(status::config_fault);
                return Ok(Started {
                    welcome: operator.welcome,
                    fresh: ours.is_some(),
                    config_fault,
                });
            }
            Err(failure) => match failure.connect() {
                Some(ConnectError::NotRunning { .. }) => {}
                // The broker ended while it was greeted. The lock decides which one is next.
                Some(ConnectError::NoWelcome { .. } | ConnectError::Io { .. }) => {}
                _ => return Err(failure),
            },
        }
        if let Some(said) = said.take() {
            return Err(Failure::said_by_broker(said));
        }
        if let Some(death) = match ours.take() {
            Some(born) => death(endpoint, born).await?,
            None => None,
        } {
            deaths += 1;
            if deaths >= DEATHS_MAX {
                let failure = Failure::broker(format!(
                    "the broker died {deaths} times while starting; {death}"
                ));
                return Err(failure.hint("`peerctl doctor` checks what a start needs"));
            }
        }
        if Instant::now() >= deadline {
            return Err(nobody_answered(endpoint));
        }
        match spawn(endpoint, deadline).await? {
            Spawned::Silent(born) => ours = Some(born),
            Spawned::Failed(why) => said = Some(why),
            Spawned::Lost if lost_its_socket(endpoint).await? => {}
            Spawned::Lost => {
                // Another broker has the lock and is starting or ending. Neither is announced, so
                // this waits.
                tokio::time::sleep_until(
                    deadline.min(Instant::now() + Duration::from_millis(pause_ms)),
                )
                .await;
                pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
            }
        }
    }
}

/// A broker that closed its standard error. It is ready, or it died, perhaps with some output.
struct Born {
    child: Child,
    words: String,
    /// The length of the log before the start.
    log_bytes: u64,
}

/// The outcome of one attempt to start a broker.
enum Spawned {
    /// It is ready or dead.
    Silent(Born),
    /// Another broker has the lock.
    Lost,
    /// It reported why it does not run.
    Failed(Said),
}

async fn spawn(endpoint: &Endpoint, deadline: Instant) -> Result<Spawned, Failure> {
    let log_bytes = endpoint.location.log().symlink_metadata().map_or(0, |log| log.len());
    let program = endpoint.program()?;
    let mut child = detached_broker(endpoint, &program)
        .spawn()
        .map_err(|source| Failure::said_by_broker(not_run(&program, &source)))?;
    let Ok(read) = tokio::time::timeout_at(deadline, last_words(&mut child)).await else {
        let pid = child.id().unwrap_or_default();
        return Ok(Spawned::Failed(Said {
            message: format!(
                "the broker (pid {pid}) did not become ready within {START_TIMEOUT_MS} ms"
            ),
            hint: format!("read {}", endpoint.location.log().display()),
        }));
    };
    let words =
        read.map_err(|source| Failure::system("reading the output of the broker", source))?;
    let Some(why) = words.said() else {
        return Ok(Spawned::Silent(Born { child, words: words.stderr, log_bytes }));
    };
    let ended =
        child.wait().await.map_err(|source| Failure::system("waiting for the broker", source))?;
    if ended.code() == Some(i32::from(ALREADY_RUNNING)) {
        return Ok(Spawned::Lost);
    }
    if ended.signal().is_some() {
        // The output of a dying program is not a sentence for a person. It is added to the cause of
        // death.
        return Ok(Spawned::Silent(Born { child, words: words.stderr, log_bytes }));
    }
    Ok(Spawned::Failed(why))
}

/// How a broker that does not answer died. `None`: it lives, or it ended because it was told to.
async fn death(endpoint: &Endpoint, mut born: Born) -> Result<Option<String>, Failure> {
    let Ok(ended) =
        tokio::time::timeout(Duration::from_millis(END_TIMEOUT_MS), born.child.wait()).await
    else {
        return Ok(None);
    };
    let ended = ended.map_err(|source| Failure::system("waiting for the broker", source))?;
    if ended.success() {
        return Ok(None);
    }
    let words =
        if born.words.is_empty() { end_of_log(endpoint, born.log_bytes) } else { born.words };
    let lines: Vec<String> =
        words.lines().filter(|line| !line.trim().is_empty()).map(single_line).collect();
    let told = lines[lines.len().saturating_sub(LAST_LINES_MAX)..].iter();
    let told: Vec<String> =
        told.map(|line| line.chars().take(LAST_LINE_CHARS_MAX).collect()).collect();
    let said = if told.is_empty() {
        "without any output".to_owned()
    } else {
        format!("and its last output was: {}", told.join(" / "))
    };
    Ok(Some(format!("the last time {}, {said}", of_what(ended))))
}

/// The cause of death of a process, in words.
fn of_what(ended: ExitStatus) -> String {
    let Some(number) = ended.signal() else {
        return format!("with exit code {}", ended.code().unwrap_or_default());
    };
    let signal = Signal::try_from(number).ok();
    let name =
        signal.map_or_else(|| "without a common name".to_owned(), |signal| signal.to_string());
    let why = match signal {
        Some(Signal::SIGKILL) => {
            " (a person killed it, or the system did, because of a memory shortage or a limit)"
        }
        Some(Signal::SIGXFSZ) => " (it wrote a larger file than its limit allows: `ulimit -f`)",
        Some(Signal::SIGXCPU) => " (it used up its limit of CPU time: `ulimit -t`)",
        Some(Signal::SIGSYS) => " (a filter refused one of its system calls)",
        Some(Signal::SIGABRT) => " (it aborted on an internal error)",
        Some(Signal::SIGBUS) => " (a file that it had mapped was shortened, or the disk failed)",
        Some(Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP | Signal::SIGQUIT) => {
            " (another process ended it)"
        }
        _ => "",
    };
    format!("by signal {number}, {name}{why}")
}

/// The part of the log that was written after `bytes_before`.
fn end_of_log(endpoint: &Endpoint, bytes_before: u64) -> String {
    let read = || -> io::Result<String> {
        let path = endpoint.location.log();
        // Only a file can be the broker's log; reading anything else may take forever.
        if !path.symlink_metadata()?.is_file() {
            return Ok(String::new());
        }
        let mut log = File::open(path)?;
        let bytes = log.metadata()?.len();
        // A log that is shorter than before is a new one.
        let from = if bytes < bytes_before { 0 } else { bytes_before };
        log.seek(SeekFrom::Start(from.max(bytes.saturating_sub(LOG_END_BYTES))))?;
        let mut end = Vec::new();
        log.take(LOG_END_BYTES).read_to_end(&mut end)?;
        Ok(String::from_utf8_lossy(&end).into_owned())
    };
    // A log that cannot be read has no output to report.
    read().unwrap_or_default()
}

/// Ends a broker that serves although its socket path no longer leads to it. Returns whether it
/// did. Anybody may do this: such a broker also ends by itself once it notices.
async fn lost_its_socket(endpoint: &Endpoint) -> Result<bool, Failure> {
    let serving =
        || holder::look(&endpoint.location).filter(|holder| holder.phase == Some(Phase::Serving));
    let Some(before) = serving() else { return Ok(false) };
    // Connects only after it read the lock. A broker records that it serves after it made its
    // socket, and that it ends before it removes the socket.
    if !matches!(Operator::connect(endpoint).await, Err(failure) if failure.is_not_running()) {
        return Ok(false);
    }
    let Some(pid) = serving().filter(|holder| *holder == before).and_then(|holder| holder.pid)
    else {
        return Ok(false);
    };
    stop::end(endpoint, pid).await?;
    Ok(true)
}

fn nobody_answered(endpoint: &Endpoint) -> Failure {
    let log = endpoint.location.log();
    let message = format!("no broker answered within {START_TIMEOUT_MS} ms");
    match holder::look(&endpoint.location) {
        Some(holder) => Failure::broker(format!("{message}: {}", stop::held(holder))).hint(
            format!("`peerctl daemon stop` ends it, and {} may have the reason", log.display()),
        ),
        None => Failure::broker(message).hint(format!("read {}", log.display())),
    }
}

/// The command that becomes a broker. It inherits almost no environment, because it serves all
/// sessions.
pub(crate) fn detached_broker(endpoint: &Endpoint, program: &std::path::Path) -> Command {
    inheriting_little(endpoint, program, &["daemon", "run", "--detached", "--json"])
}

/// Checks in a separate process what a start needs. Fails with the missing part and the next step.
pub(crate) async fn rehearse(endpoint: &Endpoint) -> Result<(), Failure> {
    let program = endpoint.program()?;
    let mut command = inheriting_little(endpoint, &program, &["daemon", "rehearse", "--json"]);
    let mut child = command
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| Failure::said_by_broker(not_run(&program, &source)))?;
    let tried = async {
        let words = last_words(&mut child).await?;
        Ok::<_, io::Error>((words, child.wait().await?))
    };
    let Ok(tried) = tokio::time::timeout(Duration::from_millis(START_TIMEOUT_MS), tried).await
    else {
        let failure = Failure::broker(format!(
            "checking what a start needs took more than {START_TIMEOUT_MS} ms"
        ));
        return Err(failure.hint("check the disk and the load of this machine"));
    };
    let (words, ended) =
        tried.map_err(|source| Failure::system("checking what a start needs", source))?;
    if ended.success() {
        return Ok(());
    }
    match words.said().filter(|_| ended.signal().is_none()) {
        Some(said) => Err(Failure::said_by_broker(said)),
        None => Err(Failure::broker(format!(
            "the process that checked what a start needs ended {}",
            of_what(ended)
        ))
        .hint("a broker would end the same way")),
    }
}

/// Runs this program with `arguments` and a small part of this process's environment. Its output
/// can be read.
fn inheriting_little(
    endpoint: &Endpoint,
    program: &std::path::Path,
    arguments: &[&str],
) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/");
    command.env_clear().env("PEERD_DIR", endpoint.location.dir());
    for name in ENVIRONMENT_KEPT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The output of a program until it closed its pipes.
pub(crate) struct Words {
    stdout: Vec<u8>,
    /// Text for a person.
    stderr: String,
}

impl Words {
    /// The failure in the output; `None` if it has none.
    pub(crate) fn said(&self) -> Option<Said> {
        said(&self.stdout, self.stderr.as_bytes())
    }
}

/// Reads the output of a detached broker until it is ready or dead.
pub(crate) async fn last_words(child: &mut Child) -> Result<Words, io::Error> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = tokio::try_join!(whole(stdout), whole(stderr))?;
    Ok(Words { stdout, stderr: String::from_utf8_lossy(&stderr).trim().to_owned() })
}

async fn whole(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        pipe.read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}
