//! The ssh child of a link: `ssh HOST COMMAND link --stdio`.
//!
//! Knows how ssh is called. The person's own configuration of ssh decides everything else. Invariant:
//! a host that begins with `-` is refused, because ssh would read it as an option.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How much of what ssh and the far side say on stderr is kept.
const STDERR_BYTES_KEPT: usize = 4 * 1024;

/// The options of ssh for a link: nobody can answer a question, and a dead connection ends.
const OPTIONS: [&str; 9] = [
    "-T",
    "-o",
    "BatchMode=yes",
    "-o",
    "ServerAliveInterval=15",
    "-o",
    "ServerAliveCountMax=3",
    "-o",
    "ClearAllForwardings=yes",
];

/// A running ssh, with the far side's link process behind it. It ends when this is dropped.
pub struct Ssh {
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
}

/// Whether a host can be given to ssh.
#[must_use]
pub fn is_host(host: &str) -> bool {
    !host.is_empty() && !host.starts_with('-') && !host.chars().any(char::is_control)
}

/// Starts ssh with a command on the other machine.
///
/// # Errors
/// ssh cannot be started.
pub fn start(
    host: &str,
    command: &str,
    arguments: &[&str],
) -> std::io::Result<(Ssh, ChildStdout, ChildStdin)> {
    let mut child = Command::new("ssh")
        .args(OPTIONS)
        .arg("--")
        .arg(host)
        .arg(command)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let missing = || std::io::Error::other("ssh has no pipes");
    let stdout = child.stdout.take().ok_or_else(missing)?;
    let stdin = child.stdin.take().ok_or_else(missing)?;
    let stderr = child.stderr.take().ok_or_else(missing)?;
    let said = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn(keep(stderr, Arc::clone(&said)));
    Ok((Ssh { child, said }, stdout, stdin))
}

/// Keeps the end of what is said on stderr.
async fn keep(mut stderr: tokio::process::ChildStderr, said: Arc<Mutex<Vec<u8>>>) {
    let mut piece = [0; 1024];
    while let Ok(bytes) = stderr.read(&mut piece).await {
        if bytes == 0 {
            return;
        }
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend_from_slice(&piece[..bytes]);
        let surplus = said.len().saturating_sub(STDERR_BYTES_KEPT);
        said.drain(..surplus);
    }
}

impl Ssh {
    /// Ends ssh, and returns the last line that it or the far side said on stderr.
    pub async fn end(mut self) -> Option<String> {
        let _ = self.child.start_kill();
        let _ = self.child.wait().await;
        // What was said last may still be in the pipe.
        tokio::task::yield_now().await;
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&said);
        text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
    }

    /// Waits until ssh has ended, and returns whether the command succeeded and the last line on
    /// stderr.
    pub async fn wait(mut self) -> (bool, Option<String>) {
        let status = self.child.wait().await;
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&said);
        let last = text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned);
        (status.is_ok_and(|status| status.success()), last)
    }
}
