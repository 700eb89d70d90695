//! The parent of the search process: forked from the broker before the broker has anything.
//!
//! A process inherits what its parent has open and which filter it is under. So the search process is not forked from the
//! broker, which holds lock, socket and store by the time somebody searches, but from this one, which was forked first and
//! holds one end of a socket pair. It waits there for two words: fork one, end it. At the end of that line it ends the search
//! process and itself. It runs no code of the index.
//!
//! The broker's filter lets no descriptor be passed. So the parent connects to a socket that the broker opens for a moment,
//! and the search process has that connection from it.

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

/// Connect, and fork a search process that has the connection. Answer: its number, or the system's error below zero.
const FORK: u8 = b'f';
/// As [`FORK`]; what is in the directory is not to be read.
const FORK_ANEW: u8 = b'a';
/// End the search process. Answer: how it ended.
const END: u8 = b'e';

/// How long the parent, which only waits, may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a search process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Somebody ended it from outside, the broker included, or the system for want of memory.
    Killed,
    /// By itself, or it broke: with this exit code, or by this signal where it is negative.
    Broke(i32),
    /// There was none.
    None,
}

/// The broker's end. Dropped, it ends both processes and waits for their end.
#[derive(Debug)]
pub(crate) struct Parent {
    control: UnixStream,
    pid: Pid,
    /// Where it connects: beside the broker's own socket, whose path is as long.
    meeting: PathBuf,
}

impl Parent {
    /// Forks the parent of the search process over the index in `dir`. Must be called before this process has a thread, a
    /// lock, a socket or the store open; whatever it has open is closed in the parent.
    ///
    /// # Errors
    /// Where the system permits no further process or socket.
    #[allow(unsafe_code, reason = "fork is unsafe: the child of a process with threads may not do everything")]
    pub(crate) fn fork(dir: PathBuf, confined: bool) -> io::Result<Self> {
        let meeting = dir.with_extension("sock");
        let (control, other) = UnixStream::pair()?;
        control.set_read_timeout(Some(PATIENCE))?;
        control.set_write_timeout(Some(PATIENCE))?;
        // SAFETY: the broker has no thread yet. In tests it has; the child then only makes system calls, and allocates, for
        // which the C library prepares its locks when it forks.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Self { control, pid: child, meeting }),
            ForkResult::Child => {
                drop(control);
                // Whatever happens in here must not unwind into the broker's code.
                let _ = std::panic::catch_unwind(|| Child { control: other, dir, meeting, confined, search: None }.run());
                leave()
            }
        }
    }

    /// Forks a search process: its line. One that is there is ended.
    ///
    /// # Errors
    /// Where the parent is gone, or the system permits no further process or socket.
    pub(super) fn start(&self, anew: bool) -> io::Result<UnixStream> {
        // What a broker left that was killed just then.
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
        // It has connected before it answered. Whoever else did is not let in.
        listener.set_nonblocking(true)?;
        loop {
            let (line, _) = listener.accept()?;
            if self.is_parent(&line) {
                line.set_nonblocking(false)?;
                return Ok(line);
            }
        }
    }

    /// Whether it was the parent that connected.
    fn is_parent(&self, line: &UnixStream) -> bool {
        #[cfg(target_os = "linux")]
        let pid = nix::sys::socket::getsockopt(line, nix::sys::socket::sockopt::PeerCredentials).map(|peer| peer.pid());
        #[cfg(target_os = "macos")]
        let pid = nix::sys::socket::getsockopt(line, nix::sys::socket::sockopt::LocalPeerPid);
        pid == Ok(self.pid.as_raw())
    }

    /// Ends the search process, where one is left, and says how it ended.
    ///
    /// # Errors
    /// Where the parent is gone.
    pub(super) fn end(&self) -> io::Result<Ended> {
        (&self.control).write_all(&[END])?;
        let code = answer(&self.control)?;
        Ok(match -code {
            _ if code == i32::MAX => Ended::None,
            signal
                if [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]
                    .iter()
                    .any(|known| *known as i32 == signal) =>
            {
                Ended::Killed
            }
            _ => Ended::Broke(code),
        })
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        // Both end at the end of this line, and the line ends with them. The lock is let go only afterwards, so that nobody meets
        // what is left of them. Waiting for a child is no call of the broker's; the system does it when the broker ends.
        let _ = self.control.shutdown(Shutdown::Write);
        while matches!((&self.control).read(&mut [0; 4]), Ok(1..)) {}
    }
}

fn answer(mut control: &UnixStream) -> io::Result<i32> {
    let mut bytes = [0; 4];
    control.read_exact(&mut bytes)?;
    Ok(i32::from_le_bytes(bytes))
}

/// The parent's own.
struct Child {
    control: UnixStream,
    dir: PathBuf,
    meeting: PathBuf,
    confined: bool,
    search: Option<Pid>,
}

impl Child {
    fn run(mut self) {
        detach::close_all_but(self.control.as_raw_fd());
        let _ = let_go_of_stdio();
        let _ = nix::unistd::chdir("/");
        call_it("peerd-parent");
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

    #[allow(unsafe_code, reason = "fork is unsafe: the child of a process with threads may not do everything")]
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

/// What `look` says, called in a child of this process, so that it may end there; none where it did. This process must have
/// one thread.
#[allow(unsafe_code, reason = "fork is unsafe: the child of a process with threads may not do everything")]
pub(crate) fn in_a_child<T: Serialize + DeserializeOwned>(look: impl FnOnce() -> T) -> io::Result<Option<T>> {
    let (mut hearing, mut saying) = UnixStream::pair()?;
    // SAFETY: this process has one thread, so says the caller.
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

/// Gives this process a name of its own where processes are listed: its arguments are those of the broker, and one would take
/// it for another one.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the arguments are overwritten in place, as setproctitle does")]
pub(super) fn call_it(name: &str) {
    /// Where the kernel says the arguments begin and end, counted from behind the process's name.
    const ARGUMENTS: [usize; 2] = [45, 46];
    if let Ok(short) = std::ffi::CString::new(name) {
        let _ = nix::sys::prctl::set_name(&short);
    }
    let Ok(told) = std::fs::read_to_string("/proc/self/stat") else { return };
    let Some((_, fields)) = told.rsplit_once(") ") else { return };
    let fields: Vec<&str> = fields.split(' ').collect();
    let place = |field: usize| fields.get(field).and_then(|field| field.trim().parse::<usize>().ok()).unwrap_or(0);
    let [start, end] = ARGUMENTS.map(place);
    if start == 0 || end <= start + 1 {
        return;
    }
    let mut line = vec![0; end - start];
    let bytes = name.as_bytes();
    // The last byte stays zero: without it the kernel goes on into the environment.
    let length = bytes.len().min(line.len() - 1);
    line[..length].copy_from_slice(&bytes[..length]);
    // SAFETY: the kernel laid these bytes, arguments alone, on this process's stack, and said so. Nothing reads the arguments
    // after the fork, which copied them for this process alone.
    unsafe { std::ptr::copy_nonoverlapping(line.as_ptr(), start as *mut u8, line.len()) };
}

#[cfg(not(target_os = "linux"))]
pub(super) fn call_it(_name: &str) {}

/// Whoever started the broker waits for the end of its standard error.
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
