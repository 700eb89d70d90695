//! `peerctl daemon start`: one broker, whoever starts how many, and a word of why where there is
//! none.
//!
//! One broker wins the lock; who loses waits for the winner, and takes over where the winner dies
//! during its start. A broker that nobody can reach any more, because its socket is gone, is told
//! to end. One that dies twice at its start is not started a third time.

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

/// How long a start may take before it is called a failure, in milliseconds.
const START_TIMEOUT_MS: u64 = 10_000;

/// The pauses between two attempts, in milliseconds, doubling: of a starter that lost against
/// another, and of one whose broker died.
const PAUSE_MS_MIN: u64 = 10;
const PAUSE_MS_MAX: u64 = 320;

/// How many brokers may die at their start before it is called a failure. One may have been killed
/// by somebody; the second death says that the next would die as well.
const DEATHS_MAX: usize = 2;

/// How long a broker that let go of its standard error and does not answer may take to end, in
/// milliseconds.
const END_TIMEOUT_MS: u64 = 1_000;

/// How much is told of what a broker said last: lines, and characters of each.
const LAST_LINES_MAX: usize = 3;
const LAST_LINE_CHARS_MAX: usize = 300;

/// How much of the log's end is read for them, in bytes.
const LOG_END_BYTES: u64 = 4_096;

/// A broker that runs now.
pub(super) struct Started {
    pub(super) welcome: Welcome,
    /// It did not run before.
    pub(super) fresh: bool,
    /// Why it does not go by `config.toml`.
    pub(super) config_fault: Option<String>,
}

/// Starts the broker unless one runs; ends when one answers.
pub(super) async fn start(endpoint: &Endpoint) -> Result<Started, Failure> {
    let deadline = Instant::now() + Duration::from_millis(START_TIMEOUT_MS);
    let mut pause_ms = PAUSE_MS_MIN;
    let mut deaths = 0;
    let mut ours: Option<Born> = None;
    // What the last broker of ours said before it ended; counts only where nobody else came up
    // either.
    let mut said: Option<Said> = None;
    loop {
        match Operator::connect(endpoint).await {
            Ok(operator) => {
                // One that is about to end does not say, and another one will.
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
                // It was there and went while it was greeted: the lock says who is next.
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
                // Another one has the lock and is on its way up, or down. Nothing announces either;
                // hence the pauses.
                tokio::time::sleep_until(
                    deadline.min(Instant::now() + Duration::from_millis(pause_ms)),
                )
                .await;
                pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
            }
        }
    }
}

/// A broker that let go of its standard error: it is ready, or it died without a word, or with
/// these.
struct Born {
    child: Child,
    words: String,
    /// How long the log was before.
    log_bytes: u64,
}

/// What became of one attempt to start a broker.
enum Spawned {
    /// It is ready, or dead.
    Silent(Born),
    /// Another broker has the lock.
    Lost,
    /// It said why it does not run.
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
        // What a dying program says is no sentence for a person: it stands behind how it died.
        return Ok(Spawned::Silent(Born { child, words: words.stderr, log_bytes }));
    }
    Ok(Spawned::Failed(why))
}

/// How a broker that does not answer has died; none where it lives, or ended because it was told
/// to.
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

/// What a process died of.
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

/// What the log's end says that it did not say before.
fn end_of_log(endpoint: &Endpoint, bytes_before: u64) -> String {
    let read = || -> io::Result<String> {
        let path = endpoint.location.log();
        // Anything else than a file is not the broker's, and reading it may take for ever.
        if !path.symlink_metadata()?.is_file() {
            return Ok(String::new());
        }
        let mut log = File::open(path)?;
        let bytes = log.metadata()?.len();
        // A shorter log than before is a new one.
        let from = if bytes < bytes_before { 0 } else { bytes_before };
        log.seek(SeekFrom::Start(from.max(bytes.saturating_sub(LOG_END_BYTES))))?;
        let mut end = Vec::new();
        log.take(LOG_END_BYTES).read_to_end(&mut end)?;
        Ok(String::from_utf8_lossy(&end).into_owned())
    };
    // A log that cannot be read says nothing.
    read().unwrap_or_default()
}

/// Whether the lock was held by a broker that serves and that nobody can reach, because its
/// socket's path leads to it no more. It was told to end then. Everybody may do this: such a broker
/// ends by itself as soon as it notices.
async fn lost_its_socket(endpoint: &Endpoint) -> Result<bool, Failure> {
    let serving =
        || holder::look(&endpoint.location).filter(|holder| holder.phase == Some(Phase::Serving));
    let Some(before) = serving() else { return Ok(false) };
    // Only after this look: a broker notes that it serves once its socket is there, and that it
    // ends before it takes it away.
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

/// The command that becomes a broker. Nothing of the starter's environment lives on in a process
/// that serves everybody.
pub(crate) fn detached_broker(endpoint: &Endpoint, program: &std::path::Path) -> Command {
    inheriting_little(endpoint, program, &["daemon", "run", "--detached", "--json"])
}

/// Tries in a process of its own what a start needs; says what is missing, with the next step.
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

/// This program with `arguments`, a little of this process's environment, and what it writes to
/// read.
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

/// What a program wrote before it let go of its output.
pub(crate) struct Words {
    stdout: Vec<u8>,
    /// For people.
    stderr: String,
}

impl Words {
    /// The failure in it; none where it wrote nothing.
    pub(crate) fn said(&self) -> Option<Said> {
        said(&self.stdout, self.stderr.as_bytes())
    }
}

/// What a detached broker writes before it is ready or dead.
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
