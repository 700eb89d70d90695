//! Starts the broker if none is running.
//!
//! Runs `<executable> daemon start` and returns its result. That is a separate process, so that the
//! broker is no child of this one and outlives it. Knows the output of that program. Does not know
//! how several starts at once end with one broker: only that program does.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::libc;
use serde::Deserialize;
use tokio::process::Command;
use tokio::runtime::{Builder, Runtime};

use crate::{ConnectError, Endpoint};

/// The environment variables that the broker's processes inherit. No other may, because the broker
/// serves all sessions.
pub const ENVIRONMENT_KEPT: [&str; 3] = ["HOME", "PEERD_LOG", "PATH"];

/// Milliseconds after which the start is given up. `daemon start` itself ends within ten seconds.
const START_TIMEOUT_MS: u64 = 20_000;

/// How long tokio keeps its threads for blocking calls: practically forever, because it panics if
/// it cannot start a new one.
const THREADS_KEPT: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// File descriptors that a runtime, a connection and a child process need.
const DESCRIPTORS: usize = 16;

/// Runs `<executable> daemon start` and waits until it has ended.
///
/// # Errors
/// [`ConnectError::StartFailed`] with the failure that it printed.
pub async fn start_broker(endpoint: &Endpoint) -> Result<(), ConnectError> {
    let program = endpoint.program()?;
    let executable = program.display();
    let mut command = Command::new(&program);
    command
        .args(["daemon", "start", "--json"])
        .env_clear()
        .env("PEERD_DIR", endpoint.location.dir())
        .current_dir("/");
    for name in ENVIRONMENT_KEPT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let ended =
        tokio::time::timeout(Duration::from_millis(START_TIMEOUT_MS), command.output()).await;
    let needs = || "`peerctl doctor` checks what a start needs".to_owned();
    Err(match ended {
        Ok(Ok(output)) if output.status.success() => return Ok(()),
        Ok(Ok(output)) => match said(&output.stdout, &output.stderr) {
            Some(Said { message, hint }) => ConnectError::StartFailed { message, hint },
            None => {
                let message = format!(
                    "`{executable} daemon start` ended with {} and without any output",
                    output.status
                );
                ConnectError::StartFailed { message, hint: needs() }
            }
        },
        Ok(Err(error)) => {
            let Said { message, hint } = not_run(&program, &error);
            ConnectError::StartFailed { message, hint }
        }
        Err(_) => {
            let message =
                format!("`{executable} daemon start` did not end within {START_TIMEOUT_MS} ms");
            ConnectError::StartFailed { message, hint: needs() }
        }
    })
}

/// The failure that a command reported.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Said {
    /// The attempt, its object and the obstacle.
    pub message: String,
    /// The next step; empty if none is known.
    pub hint: String,
}

/// The failure of a `peerctl` that was run with `--json`: from the last object that it wrote, else
/// its whole standard error. `None`: it wrote nothing.
#[must_use]
pub fn said(stdout: &[u8], stderr: &[u8]) -> Option<Said> {
    let written = String::from_utf8_lossy(stdout);
    let last = written.lines().rev().find(|line| !line.trim().is_empty());
    if let Some(PrintedFailure { error }) = last.and_then(|line| serde_json::from_str(line).ok()) {
        return Some(error);
    }
    let text = String::from_utf8_lossy(stderr);
    let text = text.trim().trim_start_matches("peerctl: ");
    (!text.is_empty()).then(|| Said { message: text.to_owned(), hint: String::new() })
}

/// The object that `peerctl --json` prints after a failure.
#[derive(Deserialize)]
struct PrintedFailure {
    error: Said,
}

/// Makes a runtime on this thread.
///
/// # Errors
/// The system has too few resources. tokio panics if it lacks file descriptors, so this function
/// tries them first.
pub fn runtime() -> io::Result<Runtime> {
    let tried: Vec<File> =
        (0..DESCRIPTORS).map(|_| File::open("/dev/null")).collect::<Result<_, _>>()?;
    drop(tried);
    Builder::new_current_thread().enable_all().thread_keep_alive(THREADS_KEPT).build()
}

/// Why a program could not be run, with the next step. A new installation helps only if the file
/// itself is at fault.
#[must_use]
pub fn not_run(program: &Path, error: &io::Error) -> Said {
    let hint = match error.raw_os_error() {
        Some(libc::ENOENT | libc::EACCES | libc::ENOEXEC | libc::EISDIR) => "reinstall peerctl",
        _ => what_helps(error).unwrap_or("try again; `peerctl doctor` checks what a start needs"),
    };
    Said {
        message: format!("`{} daemon start` cannot be run: {error}", program.display()),
        hint: hint.to_owned(),
    }
}

/// The next step if the system lacks a resource; `None` for other errors.
#[must_use]
pub fn what_helps(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => Some(
            "this user has reached the limit of processes: end some and try again (`ulimit -u`)",
        ),
        Some(libc::EMFILE | libc::ENFILE) => {
            Some("too many files are open: close some and try again (`ulimit -n`)")
        }
        Some(libc::ENOMEM) => {
            Some("the machine has no free memory: end some programs and try again")
        }
        Some(libc::EFBIG) => {
            Some("the limit on the size of files is too low: raise it and try again (`ulimit -f`)")
        }
        Some(libc::ENOSPC) => Some("the disk is full: free some space and try again"),
        Some(libc::EDQUOT) => {
            Some("this user's disk quota is used up: free some space and try again")
        }
        Some(libc::EROFS) => Some(
            "that file system is read-only: mount it writable, or set PEERD_DIR to another directory",
        ),
        _ => None,
    }
}
