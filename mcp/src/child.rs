//! Runs a program to its end, with a limit of time and of output.
//!
//! Knows processes and pipes. Does not know the purpose of the program. Invariant: no process of
//! the program outlives its time limit, or its caller's wait. It has its own process group, which
//! is killed as a whole.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// Why a program gave no output. The texts follow the program's name.
#[derive(Debug, Error)]
pub(crate) enum ChildError {
    #[error("cannot be run: {0}")]
    Start(std::io::Error),
    #[error("did not end within {} s and was killed", .limit.as_secs())]
    TooLong { limit: Duration },
    #[error("cannot be read: {0}")]
    Read(std::io::Error),
    #[error("ended with {0}")]
    Failed(std::process::ExitStatus),
}

/// The standard output of a program.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ChildOutput {
    pub(crate) bytes: Vec<u8>,
    /// Whether it wrote the limit or more, and its end was not waited for.
    pub(crate) is_cut: bool,
}

/// Runs `command` with `input` on its standard input. Returns its standard output, at most
/// `bytes_max`. A program that writes more is not waited for.
pub(crate) async fn run(
    mut command: Command,
    input: &[u8],
    limit: Duration,
    bytes_max: usize,
) -> Result<ChildOutput, ChildError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let mut group = Group(command.spawn().map_err(ChildError::Start)?);
    let running = async {
        let (stdin, stdout) = (group.0.stdin.take(), group.0.stdout.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // A program need not read its input.
                let _ = stdin.write_all(input).await;
            }
        };
        let mut bytes = Vec::new();
        let read = async {
            match stdout {
                Some(stdout) => stdout
                    .take(bytes_max as u64)
                    .read_to_end(&mut bytes)
                    .await
                    .map_err(ChildError::Read),
                None => Ok(0),
            }
        };
        let (read, ()) = tokio::join!(read, write);
        if read? == bytes_max {
            return Ok(ChildOutput { bytes, is_cut: true });
        }
        let status = group.0.wait().await.map_err(ChildError::Read)?;
        if status.success() {
            Ok(ChildOutput { bytes, is_cut: false })
        } else {
            Err(ChildError::Failed(status))
        }
    };
    tokio::time::timeout(limit, running).await.unwrap_or(Err(ChildError::TooLong { limit }))
}

/// A program and all processes that it started. Dropping this before the program's end was seen
/// kills them.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // Until its end was seen, the kernel does not reuse its number.
        if let Some(pid) = self.0.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_it_prints_is_returned_whatever_becomes_of_its_input() {
        assert_eq!(
            run(shell("cat; echo more"), b"input\n", LIMIT, 100).await.unwrap().bytes,
            b"input\nmore\n"
        );
        let much = vec![b'x'; 1 << 20];
        assert_eq!(
            run(shell("exec <&-; echo deaf"), &much, LIMIT, 100).await.unwrap().bytes,
            b"deaf\n"
        );
        // More than pipes hold, in both directions at once.
        assert_eq!(
            run(shell("cat"), &much, LIMIT, 2 << 20).await.unwrap(),
            ChildOutput { bytes: much.clone(), is_cut: false }
        );
    }

    #[tokio::test]
    async fn a_failure_is_told() {
        let error = run(shell("echo half; exit 3"), b"", LIMIT, 100).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        let error = run(Command::new("/nonexistent/program"), b"", LIMIT, 100)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("cannot be run"), "{error}");
    }

    #[tokio::test]
    async fn one_that_never_stops_writing_is_cut_off() {
        let output = run(shell("while :; do echo yes; done"), b"", LIMIT, 8).await.unwrap();
        assert_eq!(output, ChildOutput { bytes: b"yes\nyes\n".to_vec(), is_cut: true });
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_with_its_children() {
        let scratch = tempfile::tempdir().unwrap();
        let (lock, held) = (scratch.path().join("lock"), scratch.path().join("held"));
        let fifo = |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        fifo(&lock);
        fifo(&held);
        // The grandchild holds the pipe open while it runs, and ignores the polite signals.
        let script =
            format!("(trap '' TERM HUP INT; exec 9<'{}'; sleep 600) & wait", lock.display());
        let reader = std::thread::spawn(move || {
            use std::io::Write;
            let mut pipe = std::fs::OpenOptions::new().write(true).open(lock).unwrap();
            // This fails once no process holds the other end.
            while pipe.write_all(&[0; 4_096]).is_ok() {}
        });
        let began = Instant::now();
        let error = run(shell(&script), b"", Duration::from_millis(200), 100).await.unwrap_err();
        assert!(matches!(error, ChildError::TooLong { .. }), "{error}");
        assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
        reader.join().unwrap();
    }
}
