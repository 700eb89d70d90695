//! The parent of the search process: forked before the broker opens anything.
//!
//! A process inherits its parent's descriptors and filter. At the first search, the broker already
//! has lock, socket and store. So the search process is forked from this process, which was forked
//! first and has one end of a socket pair. It waits there for two commands: fork a process, and end
//! it. When that connection closes, it ends the search process and itself. It runs no code of the
//! index.
//!
//! The broker's filter does not permit passing descriptors. So the parent connects to a socket that
//! the broker opens briefly, and the search process inherits this connection.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{process, wire};
use crate::detach;

/// Connects, and forks a search process with the connection. Answer: its process id, or the
/// system's error below zero.
const FORK: u8 = b'f';
/// Like [`FORK`], but the existing index must not be read.
const FORK_ANEW: u8 = b'a';
/// Ends the search process. Answer: how it ended.
const END: u8 = b'e';

/// The time for an answer of the parent, which otherwise only waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a search process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessEnd {
    /// Another process ended it, the broker included, or the system for lack of memory.
    Killed,
    /// It ended by itself or crashed: with this exit code, or with this signal if negative.
    Broke(i32),
    None,
}

/// The broker's end. Dropping it ends both processes and waits for their end.
#[derive(Debug)]
pub(crate) struct Parent {
    control: UnixStream,
    pid: Pid,
    /// The path of the socket that it connects to. It is beside the broker's own socket, whose path
    /// is as long.
    meeting: PathBuf,
}

impl Parent {
    /// Forks the parent of the search process for the index in `dir`. Must be called before this
    /// process has a thread, a lock, a socket or the store open. All its descriptors are closed in
    /// the parent.
    ///
    /// # Errors
    /// If the system permits no further process or socket.
    #[allow(
        unsafe_code,
        reason = "fork is unsafe: the child of a process with threads may not do everything"
    )]
    pub(crate) fn fork(dir: PathBuf, confined: bool) -> io::Result<Self> {
        let meeting = dir.with_extension("sock");
        let (control, other) = UnixStream::pair()?;
        control.set_read_timeout(Some(PATIENCE))?;
        control.set_write_timeout(Some(PATIENCE))?;
        // SAFETY: the broker has no thread yet. In tests it has threads. There the child only makes
        // system calls and allocates, and the C library prepares its locks for that when it forks.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Self { control, pid: child, meeting }),
            ForkResult::Child => {
                drop(control);
                // A panic here must not unwind into the broker's code.
                let _ = std::panic::catch_unwind(|| {
                    SearchProcess { control: other, dir, meeting, confined, search: None }.run()
                });
                leave()
            }
        }
    }

    /// Forks a search process, and returns the connection to it. Ends an earlier one.
    ///
    /// # Errors
    /// If the parent is gone, or the system permits no further process or socket.
    pub(super) fn start(&self, anew: bool) -> io::Result<UnixStream> {
        // A killed broker may have left it.
        let _ = std::fs::remove_file(&self.meeting);
        let listener = UnixListener::bind(&self.meeting)?;
        let met = self.meet(&listener, anew);
        let _ = std::fs::remove_file(&self.meeting);
        met
    }

    fn meet(&self, listener: &UnixListener, anew: bool) -> io::Result<UnixStream> {
        (&self.control).write_all(&[if anew { FORK_ANEW } else { FORK }])?;
        let answer = answer(&self.control)?;
        if answer <= 0 {
            return Err(io::Error::from_raw_os_error(-answer));
        }
        // The parent connected before it answered. Any other connection is refused.
        listener.set_nonblocking(true)?;
        loop {
            let (line, _) = listener.accept()?;
            if self.is_parent(&line) {
                line.set_nonblocking(false)?;
                return Ok(line);
            }
        }
    }

    /// Whether the parent made this connection.
    fn is_parent(&self, line: &UnixStream) -> bool {
        #[cfg(target_os = "linux")]
        let pid = nix::sys::socket::getsockopt(line, nix::sys::socket::sockopt::PeerCredentials)
            .map(|peer| peer.pid());
        #[cfg(target_os = "macos")]
        let pid = nix::sys::socket::getsockopt(line, nix::sys::socket::sockopt::LocalPeerPid);
        pid == Ok(self.pid.as_raw())
    }

    /// Ends the search process, if there is one, and returns how it ended.
    ///
    /// # Errors
    /// If the parent is gone.
    pub(super) fn end(&self) -> io::Result<ProcessEnd> {
        (&self.control).write_all(&[END])?;
        let code = answer(&self.control)?;
        Ok(match -code {
            _ if code == i32::MAX => ProcessEnd::None,
            signal
                if [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]
                    .iter()
                    .any(|known| *known as i32 == signal) =>
            {
                ProcessEnd::Killed
            }
            _ => ProcessEnd::Broke(code),
        })
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        // Both end when this connection closes, and then the search connection closes. The lock is
        // unlocked only afterwards, so that the next broker does not meet them. Waiting for a child
        // is no permitted call of the broker. The system does it when the broker ends.
        let _ = self.control.shutdown(Shutdown::Write);
        while matches!((&self.control).read(&mut [0; 4]), Ok(1..)) {}
    }
}

fn answer(mut control: &UnixStream) -> io::Result<i32> {
    let mut bytes = [0; 4];
    control.read_exact(&mut bytes)?;
    Ok(i32::from_le_bytes(bytes))
}

/// The state of the parent process.
struct SearchProcess {
    control: UnixStream,
    dir: PathBuf,
    meeting: PathBuf,
    confined: bool,
    search: Option<Pid>,
}

impl SearchProcess {
    fn run(mut self) {
        detach::close_all_but(self.control.as_raw_fd());
        let _ = let_go_of_stdio();
        let _ = nix::unistd::chdir("/");
        process::call_it("peerd-parent");
        let mut word = [0];
        while self.control.read_exact(&mut word).is_ok() {
            let answer = match word[0] {
                word @ (FORK | FORK_ANEW) => self.fork(word == FORK_ANEW),
                _ => self.end(),
            };
            if self.control.write_all(&answer.to_le_bytes()).is_err() {
                break;
            }
        }
        self.end();
    }

    #[allow(
        unsafe_code,
        reason = "fork is unsafe: the child of a process with threads may not do everything"
    )]
    fn fork(&mut self, anew: bool) -> i32 {
        self.end();
        let line = match UnixStream::connect(&self.meeting) {
            Ok(line) => line,
            Err(error) => return -error.raw_os_error().unwrap_or(nix::libc::EIO),
        };
        // SAFETY: this process has one thread.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { child }) => {
                self.search = Some(child);
                child.as_raw()
            }
            Ok(ForkResult::Child) => {
                detach::close_all_but(line.as_raw_fd());
                process::run(line, &self.dir, anew, self.confined)
            }
            Err(errno) => -(errno as i32),
        }
    }

    fn end(&mut self) -> i32 {
        let Some(search) = self.search.take() else { return i32::MAX };
        let _ = kill(search, Signal::SIGKILL);
        match waitpid(search, None) {
            Ok(WaitStatus::Exited(_, code)) => code,
            Ok(WaitStatus::Signaled(_, signal, _)) => -(signal as i32),
            _ => i32::MAX,
        }
    }
}

/// Runs `look` in a child of this process, so that a crash ends only the child. `None`: it crashed.
/// This process must have one thread.
#[allow(
    unsafe_code,
    reason = "fork is unsafe: the child of a process with threads may not do everything"
)]
pub(crate) fn in_a_child<T: Serialize + DeserializeOwned>(
    look: impl FnOnce() -> T,
) -> io::Result<Option<T>> {
    let (mut hearing, mut saying) = UnixStream::pair()?;
    // SAFETY: the caller guarantees that this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop(hearing);
            let _ = let_go_of_stdio();
            let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(look));
            if let Ok(told) = told {
                let _ = wire::write(&mut saying, &told);
            }
            leave()
        }
        ForkResult::Parent { child } => {
            drop(saying);
            let told = wire::read(&mut hearing);
            let _ = waitpid(child, None);
            told
        }
    }
}

/// Closes standard error, because the broker's starter waits for its end.
fn let_go_of_stdio() -> io::Result<()> {
    let nowhere = File::options().read(true).write(true).open(Path::new("/dev/null"))?;
    dup2_stdin(&nowhere)?;
    dup2_stdout(&nowhere)?;
    dup2_stderr(&nowhere)?;
    Ok(())
}

#[allow(unsafe_code, reason = "std's exit runs what the broker registered for its own end")]
fn leave() -> ! {
    // SAFETY: it takes a number and does not return.
    unsafe { nix::libc::_exit(0) }
}
