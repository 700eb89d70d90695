//! A program in a terminal: a tmux session of its own, on a server of its own.
//!
//! It knows keys and screens. It looks at the screen when the terminal wrote something, never by
//! the clock.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{PATIENCE, Stage};
use crate::home::signal;

/// The size of each terminal: wide enough that what tests look for is not wrapped.
const SIZE: (&str, &str) = ("180", "50");

/// A terminal that writes nothing for so long waits for its person.
const QUIET: Duration = Duration::from_secs(1);

/// A key that had no effect for so long was lost.
const KEY_LOST_AFTER: Duration = Duration::from_secs(2);

/// A program in a terminal. Dropping it kills it.
#[derive(Debug)]
pub struct Terminal {
    /// The program's process.
    pub pid: u32,
    socket: PathBuf,
    session: String,
    output: Arc<(Mutex<Output>, Condvar)>,
}

#[derive(Debug, Default)]
struct Output {
    /// How many times something was written.
    writes: u64,
    raw: Vec<u8>,
    ended: bool,
}

impl Terminal {
    /// Opens `command`, with its environment and nothing else, in a new terminal.
    pub(super) fn open(stage: &Stage, what: &str, command: &Command) -> Self {
        static TERMINALS: AtomicUsize = AtomicUsize::new(0);

        let session = format!("{what}{}", TERMINALS.fetch_add(1, Ordering::Relaxed));
        // A server of its own: one that has lost its last terminal is still there for a moment, and
        // takes no other.
        let socket = stage.home.root().join(format!("{session}.tmux"));
        let fifo = stage.home.root().join(&session);
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)
            .expect("make a pipe for the terminal's output");

        // What the program writes is in the pipe from its first byte: it starts when the pipe is
        // there.
        let mut line = vec!["exec".to_owned(), "env".to_owned(), "-i".to_owned()];
        let mut push = |word: &std::ffi::OsStr| {
            line.push(format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")))
        };
        for (key, value) in command.get_envs() {
            let mut entry = key.to_owned();
            entry.push("=");
            entry.push(value.unwrap_or_default());
            push(&entry);
        }
        push(command.get_program());
        command.get_args().for_each(push);
        let script = stage.home.root().join(format!("{session}.sh"));
        let cwd = command.get_current_dir().expect("a launch says where").to_owned();
        super::write(&script, &format!("cd '{}'\nread -r _\n{}\n", cwd.display(), line.join(" ")));

        let mut tmux = tmux(&socket);
        tmux.envs(stage.environment()).args([
            "new-session",
            "-d",
            "-P",
            "-F",
            "#{pane_pid}",
            "-s",
            &session,
            "-x",
            SIZE.0,
            "-y",
            SIZE.1,
        ]);
        let pid = run(tmux.arg("sh").arg(&script)).trim().parse().expect("tmux tells the process");
        let terminal = Self { pid, socket, session, output: Arc::default() };
        let pipe = format!("exec cat > '{}'", fifo.display());
        run(terminal.tmux("pipe-pane").arg(pipe));
        let output = Arc::clone(&terminal.output);
        let mut fifo = File::open(&fifo).expect("open the terminal's output");
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            loop {
                let count = fifo.read(&mut bytes).unwrap_or(0);
                let mut heard = output.0.lock().unwrap_or_else(PoisonError::into_inner);
                heard.writes += 1;
                heard.raw.extend_from_slice(&bytes[..count]);
                heard.ended = count == 0;
                output.1.notify_all();
                if count == 0 {
                    break;
                }
            }
        });
        terminal.key("Enter");
        terminal
    }

    /// Types a line, waits until the screen shows it, and presses Enter.
    ///
    /// # Panics
    /// Where the screen does not show it.
    #[track_caller]
    pub fn submit(&self, line: &str) {
        self.type_text(line);
        self.wait_for(line);
        self.key("Enter");
    }

    /// Types without Enter.
    ///
    /// # Panics
    /// Where the terminal is gone.
    pub fn type_text(&self, text: &str) {
        run(self.tmux("send-keys").args(["-l", "--", text]));
    }

    /// Presses one key, by tmux's name of it: `Enter`, `Escape`, `C-c`, `Down`.
    ///
    /// # Panics
    /// Where the terminal is gone.
    pub fn key(&self, key: &str) {
        run(self.tmux("send-keys").arg(key));
    }

    /// Presses a key until `look` is satisfied with the screen: a program that is busy drops keys.
    ///
    /// # Panics
    /// Where it is not within [`PATIENCE`].
    #[track_caller]
    pub fn press_until(&self, key: &str, look: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.key(key);
            match self.look_for(KEY_LOST_AFTER, &look) {
                Ok(()) => return,
                Err(screen) => assert!(Instant::now() < deadline, "{key} has no effect:\n{screen}"),
            }
        }
    }

    /// Chooses the entry of a dialog that holds `label`, as a person does: with the arrow keys and
    /// Enter.
    ///
    /// # Panics
    /// Where no dialog with such an entry comes.
    #[track_caller]
    pub fn choose(&self, label: &str) {
        let chosen = |screen: &str| -> Option<String> {
            let chosen = |line: &&str| line.trim_start().starts_with(['›', '❯']);
            screen.lines().filter(chosen).map(str::to_owned).next_back()
        };
        self.wait_for(label);
        self.rest();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = chosen(&self.screen());
            if before.as_ref().is_some_and(|line| line.contains(label)) {
                return self.key("Enter");
            }
            self.key("Down");
            if let Err(screen) = self.look_for(KEY_LOST_AFTER, |screen| chosen(screen) != before) {
                assert!(
                    Instant::now() < deadline,
                    "the dialog does not move to {label:?}:\n{screen}"
                );
            }
        }
    }

    /// What the screen shows now.
    #[must_use]
    pub fn screen(&self) -> String {
        let output = self.tmux("capture-pane").arg("-p").stderr(Stdio::null()).output();
        output
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default()
    }

    /// All that the program wrote to the terminal so far, escape sequences included.
    #[must_use]
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.output.0.lock().unwrap_or_else(PoisonError::into_inner).raw)
            .into_owned()
    }

    /// Waits until the screen shows `text`.
    ///
    /// # Panics
    /// Where it does not within [`PATIENCE`].
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        if let Err(screen) = self.wait_until(|screen| screen.contains(text)) {
            panic!("the screen does not show {text:?}:\n{screen}");
        }
    }

    /// Waits until a line begins with `mark` and is no choice of a dialog, which has a number
    /// there.
    #[track_caller]
    pub(super) fn wait_for_prompt(&self, mark: char) {
        let prompt = |line: &str| {
            line.trim_start()
                .strip_prefix(mark)
                .is_some_and(|rest| !rest.trim_start().starts_with(|c: char| c.is_ascii_digit()))
        };
        if let Err(screen) = self.wait_until(|screen| screen.lines().any(prompt)) {
            panic!("the screen shows no prompt:\n{screen}");
        }
    }

    /// Waits until `look` is satisfied with the screen.
    ///
    /// # Errors
    /// With the last screen, where it is not within [`PATIENCE`] or before the program ends.
    pub fn wait_until(&self, look: impl Fn(&str) -> bool) -> Result<(), String> {
        self.look_for(PATIENCE, look)
    }

    /// Waits until nothing has been written for a moment. Codex throws away what is typed before a
    /// person can have read its question, by nothing that a test could see, and gives up with an
    /// error where more comes all the time.
    fn rest(&self) {
        let mut output = self.output.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !output.ended {
            let writes = output.writes;
            let (next, waited) =
                self.output.1.wait_timeout(output, QUIET).unwrap_or_else(PoisonError::into_inner);
            if waited.timed_out() && next.writes == writes {
                return;
            }
            output = next;
        }
    }

    fn look_for(&self, patience: Duration, look: impl Fn(&str) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        loop {
            let writes = self.lock_writes();
            let screen = self.screen();
            if look(&screen) {
                return Ok(());
            }
            let mut output = self.output.0.lock().unwrap_or_else(PoisonError::into_inner);
            while output.writes == writes {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || output.ended {
                    return Err(screen);
                }
                output = self
                    .output
                    .1
                    .wait_timeout(output, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
        }
    }

    /// Closes the terminal, as a person closes a window, and waits until its output has ended.
    ///
    /// # Panics
    /// Where it does not end within [`PATIENCE`].
    #[track_caller]
    pub fn close(&self) {
        run(&mut self.tmux("kill-session"));
        let output = self.output.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.output.1.wait_timeout_while(output, PATIENCE, |output| !output.ended);
        assert!(
            !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out(),
            "{} does not end",
            self.session
        );
    }

    /// The screen, or what was last written where the terminal is gone.
    fn last_seen(&self) -> String {
        let screen = self.screen();
        if !screen.trim().is_empty() {
            return screen;
        }
        let written = self.written();
        let skipped = written.chars().count().saturating_sub(2_000);
        written.chars().skip(skipped).collect::<String>().replace('\u{1b}', "^[")
    }

    fn lock_writes(&self) -> u64 {
        self.output.0.lock().unwrap_or_else(PoisonError::into_inner).writes
    }

    /// A command of tmux about this terminal.
    fn tmux(&self, command: &str) -> Command {
        let mut tmux = tmux(&self.socket);
        tmux.args([command, "-t", &format!("={}:", self.session)]);
        tmux
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("-- screen of {}:\n{}\n", self.session, self.last_seen()).as_bytes(),
            );
        }
        let ended = self.output.0.lock().unwrap_or_else(PoisonError::into_inner).ended;
        if !ended {
            let _ = self.tmux("kill-session").stderr(Stdio::null()).status();
            signal(self.pid, Signal::SIGKILL);
        }
    }
}

fn tmux(socket: &std::path::Path) -> Command {
    let mut tmux = Command::new("tmux");
    tmux.env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::null());
    tmux.args(["-u", "-f", "/dev/null", "-S"]).arg(socket);
    tmux
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.stderr(Stdio::piped()).output().expect("run tmux");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
