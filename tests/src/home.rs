//! A home directory, a state directory and an environment of a test's own.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::PATIENCE;

/// A directory with a home and a state directory in it. Dropping it kills what it caused and
/// removes it.
#[derive(Debug)]
pub struct Home {
    dir: TempDir,
    executable: PathBuf,
    /// `PEERD_DIR` is not set: the state directory lies where it lies for most people.
    usual: bool,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code; 128 and the signal's number where a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Outcome {
    /// The one JSON value on standard output.
    ///
    /// # Panics
    /// Where standard output is not that.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|why| panic!("no JSON on stdout ({why}): {self:?}"))
    }

    /// The JSON values on standard output, one a line.
    ///
    /// # Panics
    /// Where a line is not JSON.
    #[must_use]
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let line = |text| {
            serde_json::from_str(text)
                .unwrap_or_else(|why| panic!("no JSON line ({why}): {self:?}"))
        };
        self.stdout.lines().map(line).collect()
    }

    /// The same outcome, if the command ended with 0.
    ///
    /// # Panics
    /// Where it did not.
    #[must_use]
    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.code, 0, "the command did not succeed: {self:?}");
        self
    }

    /// Checks that the command, given `--json`, ended with the exit code `code` and the error
    /// `name`.
    ///
    /// # Panics
    /// Where it did not.
    #[track_caller]
    pub fn refused(&self, code: i32, name: &str) {
        assert_eq!(
            (self.code, &self.json()["error"]["code"]),
            (code, &Value::from(name)),
            "{self:?}"
        );
    }
}

impl Home {
    /// A fresh home for `executable`; see [`home!`](crate::home).
    ///
    /// # Panics
    /// Where no directory can be made.
    #[must_use]
    pub fn new(executable: &str) -> Self {
        // A socket's path must be short, and some systems' temporary directory is not.
        let temporary = std::env::temp_dir();
        let parent =
            if temporary.as_os_str().len() <= 60 { temporary } else { PathBuf::from("/tmp") };
        let dir = tempfile::Builder::new()
            .prefix("pd")
            .tempdir_in(parent)
            .expect("make a temporary directory");
        fs::create_dir(dir.path().join("home")).expect("make a home directory");
        Self { dir, executable: PathBuf::from(executable), usual: false }
    }

    /// A fresh home in which `PEERD_DIR` is not set, because a client under test does not pass it
    /// on.
    ///
    /// # Panics
    /// Where no directory can be made.
    #[must_use]
    pub fn usual(executable: &str) -> Self {
        let mut home = Self::new(executable);
        home.usual = true;
        home
    }

    /// The directory that holds everything of this home.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// What `HOME` says.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.root().join("home")
    }

    /// The broker's directory; what `PEERD_DIR` says, where it is set. It does not exist before
    /// something makes it.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        if self.usual { self.home().join(".local/share/peerd") } else { self.root().join("state") }
    }

    /// The broker's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.state().join("broker.sock")
    }

    /// The executable under test.
    #[must_use]
    pub fn executable(&self) -> &Path {
        &self.executable
    }

    /// Makes the state directory, mode 0700, and puts `config.toml` into it.
    ///
    /// # Panics
    /// Where that fails.
    pub fn configure(&self, config: &str) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.state())
            .expect("make the state directory");
        fs::write(self.state().join("config.toml"), config).expect("write config.toml");
    }

    /// The executable with `arguments`, this home's environment and nothing else of the test's own.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.executable);
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.home())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(self.home());
        if !self.usual {
            command.env("PEERD_DIR", self.state());
        }
        command
    }

    /// Runs `peerctl` with `arguments` to its end.
    ///
    /// # Panics
    /// Where it cannot be run.
    #[must_use]
    pub fn peerctl(&self, arguments: &[&str]) -> Outcome {
        self.run(self.command(arguments), "")
    }

    /// Runs `peerctl` with `arguments` and `input` on its standard input to its end.
    ///
    /// # Panics
    /// Where it cannot be run.
    #[must_use]
    pub fn peerctl_with_input(&self, arguments: &[&str], input: &str) -> Outcome {
        self.run(self.command(arguments), input)
    }

    /// Runs `command`, made by [`Home::command`] and changed by the test, to its end.
    ///
    /// # Panics
    /// Where it cannot be run.
    #[must_use]
    pub fn run(&self, mut command: Command, input: &str) -> Outcome {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|why| panic!("run {}: {why}", self.executable.display()));
        let mut stdin = child.stdin.take().expect("standard input is piped");
        let input = input.to_owned();
        // A command may end without reading its input: that is no failure of the test.
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().expect("wait for a command");
        let _ = writer.join().expect("the writer does not panic");
        Outcome {
            code: crate::mcp::exit_code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The process that holds the broker's lock or listens on its socket, if one does.
    #[must_use]
    pub fn broker_pid(&self) -> Option<u32> {
        // A test that waits for the lock holds it for a moment, and so does a child of another test
        // between fork and exec.
        let not_us = |pid: &u32| *pid != std::process::id();
        let holder = lock_holder(&self.state().join("broker.lock")).filter(not_us);
        holder.or_else(|| listener(&self.socket()).filter(not_us))
    }

    /// Kills the broker with SIGKILL and waits until it is gone. Adapters may have started another
    /// one by then.
    ///
    /// # Panics
    /// Where none runs, or it does not go.
    pub fn kill_broker(&self) -> u32 {
        let pid = self.broker_pid().expect("a broker runs");
        signal(pid, Signal::SIGKILL);
        let deadline = Instant::now() + PATIENCE;
        while self.broker_pid() == Some(pid) {
            assert!(Instant::now() < deadline, "process {pid} still holds the broker's lock");
            pause();
        }
        pid
    }

    /// Waits until no process holds the broker's lock: for a home in which nobody starts another
    /// broker.
    ///
    /// # Panics
    /// Where one still does after [`PATIENCE`].
    pub fn wait_for_no_broker(&self) {
        let Ok(lock) = File::open(self.state().join("broker.lock")) else { return };
        let (done, waiter) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let result = lock.lock();
            // Closing the file gives the lock back before anybody is told.
            drop(lock);
            let _ = done.send(result);
        });
        match waiter.recv_timeout(PATIENCE) {
            Ok(result) => result.expect("lock the broker's lock"),
            Err(_) => panic!("process {:?} still holds the broker's lock", self.broker_pid()),
        }
    }

    /// The processes that live in this home: those with its directory in their environment, and the
    /// broker.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let mut pids = processes_with_environment(self.root());
        pids.extend(self.broker_pid());
        pids.sort_unstable();
        pids.dedup();
        pids
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let pids = self.processes();
            if pids.is_empty() {
                break;
            }
            for pid in &pids {
                signal(*pid, Signal::SIGKILL);
            }
            if Instant::now() > deadline {
                // A panic while another one unwinds would abort the whole run and hide the first
                // one's text.
                assert!(
                    std::thread::panicking(),
                    "processes {pids:?} of {} cannot be killed",
                    self.root().display()
                );
                break;
            }
            pause();
        }
    }
}

/// The end of a process that is no child of ours is no event that safe code can wait for: look
/// again in a moment.
fn pause() {
    std::thread::sleep(Duration::from_millis(2));
}

/// Sends `signal` to `pid`; that it is gone already is no failure.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}

/// The process that listens on `socket`, by the kernel's word.
fn listener(socket: &Path) -> Option<u32> {
    let stream = UnixStream::connect(socket).ok()?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let pid = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials)
        .ok()?
        .pid();
    #[cfg(target_os = "macos")]
    let pid =
        nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::LocalPeerPid).ok()?;
    u32::try_from(pid).ok().filter(|pid| *pid != 0)
}

/// The process that holds the lock on `path`. A broker that is starting has the lock before it has
/// a socket.
#[cfg(target_os = "linux")]
fn lock_holder(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;

    let file = File::open(path).ok()?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {}
        Ok(()) | Err(TryLockError::Error(_)) => return None,
    }
    // A line reads `1: FLOCK  ADVISORY  WRITE 1234 fe:01:5678 0 EOF`.
    let inode = file.metadata().ok()?.ino().to_string();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let place = fields
            .iter()
            .position(|field| field.rsplit(':').next() == Some(&inode) && field.contains(':'))?;
        fields.get(place.checked_sub(1)?)?.parse().ok().filter(|pid| *pid != 0)
    })
}

#[cfg(not(target_os = "linux"))]
fn lock_holder(_path: &Path) -> Option<u32> {
    None
}

/// Processes in whose environment `root` stands. A process that is being born still has its
/// parent's environment, so this process itself is left out by its number.
#[cfg(target_os = "linux")]
fn processes_with_environment(root: &Path) -> Vec<u32> {
    use std::os::unix::ffi::OsStrExt;

    let needles = [
        [b"PEERD_DIR=", root.as_os_str().as_bytes(), b"/"].concat(),
        [b"HOME=", root.as_os_str().as_bytes(), b"/"].concat(),
    ];
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|entry| needles.iter().any(|needle| entry.starts_with(needle)))
        })
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn processes_with_environment(_root: &Path) -> Vec<u32> {
    Vec::new()
}
