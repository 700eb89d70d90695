//! Starting the broker where none runs.
//!
//! `<executable> daemon start` does it: a process of its own, so that the broker becomes nobody's
//! child and outlives whoever needed it first, and so that one program alone knows how several
//! starts at once end with one broker. This module only runs that program and passes on what it
//! says.

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

/// What the broker's processes keep of the environment; everything else would live on in a process
/// that serves all.
pub const ENVIRONMENT_KEPT: [&str; 3] = ["HOME", "PEERD_LOG", "PATH"];

/// `daemon start` ends by itself within ten seconds; this is for the case that it cannot.
const START_TIMEOUT_MS: u64 = 20_000;

/// How long threads for what blocks are kept: for ever. tokio panics where it has to make another
/// and cannot.
const THREADS_KEPT: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// Descriptors that a runtime, one connection and one child take.
const DESCRIPTORS: usize = 16;

/// Runs `<executable> daemon start` and waits until it has ended.
///
/// # Errors
/// [`ConnectError::StartFailed`] with what it printed.
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
    let needs = || "`peerctl doctor` says what a start needs".to_owned();
    Err(match ended {
        Ok(Ok(output)) if output.status.success() => return Ok(()),
        Ok(Ok(output)) => match said(&output.stdout, &output.stderr) {
            Some(Said { message, hint }) => ConnectError::StartFailed { message, hint },
            None => {
                let message =
                    format!("`{executable} daemon start` ended with {} and no word", output.status);
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

/// What a command said of its failure.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Said {
    /// What was tried, on what and why it failed.
    pub message: String,
    /// The next step; empty where there is none.
    pub hint: String,
}

/// The failure that a `peerctl` ended with that was run with `--json`: the object that it wrote
/// last, or else its standard error whole. None where it wrote nothing.
#[must_use]
pub fn said(stdout: &[u8], stderr: &[u8]) -> Option<Said> {
    let written = String::from_utf8_lossy(stdout);
    let last = written.lines().rev().find(|line| !line.trim().is_empty());
    if let Some(Told { error }) = last.and_then(|line| serde_json::from_str(line).ok()) {
        return Some(error);
    }
    let text = String::from_utf8_lossy(stderr);
    let text = text.trim().trim_start_matches("peerctl: ");
    (!text.is_empty()).then(|| Said { message: text.to_owned(), hint: String::new() })
}

/// The object that `peerctl --json` writes where it fails.
#[derive(Deserialize)]
struct Told {
    error: Said,
}

/// A runtime on this thread.
///
/// # Errors
/// Where the system has too little for it. tokio itself panics over too few descriptors, so they
/// are tried first.
pub fn runtime() -> io::Result<Runtime> {
    let tried: Vec<File> =
        (0..DESCRIPTORS).map(|_| File::open("/dev/null")).collect::<Result<_, _>>()?;
    drop(tried);
    Builder::new_current_thread().enable_all().thread_keep_alive(THREADS_KEPT).build()
}

/// Why a program could not be run, and what helps: a new installation only where the file itself is
/// at fault.
#[must_use]
pub fn not_run(program: &Path, error: &io::Error) -> Said {
    let hint = match error.raw_os_error() {
        Some(libc::ENOENT | libc::EACCES | libc::ENOEXEC | libc::EISDIR) => "reinstall peerctl",
        _ => what_helps(error).unwrap_or("try again; `peerctl doctor` says what a start needs"),
    };
    Said {
        message: format!("`{} daemon start` cannot be run: {error}", program.display()),
        hint: hint.to_owned(),
    }
}

/// What helps where the system has too little of something.
#[must_use]
pub fn what_helps(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => Some(
            "this user has as many processes as it may have: end some and try again (`ulimit -u`)",
        ),
        Some(libc::EMFILE | libc::ENFILE) => {
            Some("too many files are open: close some and try again (`ulimit -n`)")
        }
        Some(libc::ENOMEM) => {
            Some("the machine has no memory left: end some programs and try again")
        }
        Some(libc::EFBIG) => {
            Some("a limit on the size of files is in the way: raise it and try again (`ulimit -f`)")
        }
        Some(libc::ENOSPC) => Some("the disk is full: make some room and try again"),
        Some(libc::EDQUOT) => {
            Some("this user's share of the disk is used up: make some room and try again")
        }
        Some(libc::EROFS) => Some(
            "that file system is read-only: mount it writable, or set PEERD_DIR to another directory",
        ),
        _ => None,
    }
}
