//! The real Claude Code and Codex, driven by tests against a model server of our own.
//!
//! A test begins with `let stage = peer_tests::stage!();`: a home of its own, a model server, a
//! directory to work in. It writes the model's script with [`Model::talk`], starts programs with
//! [`Stage::claude`] and [`Stage::codex`] (each `print`s one prompt or opens a `terminal`), sends
//! messages with `stage.home.peerctl(…)` or an adapter of its own, and asserts on [`Request`]s:
//! what the model was shown. Everything waits on events.
//!
//! It knows how these programs are installed, configured and ended. It does not know how peerd
//! delivers. Invariant: when a [`Stage`] is dropped no process that it caused is alive, also after
//! a panic, which prints what the model was shown.

mod dialect;
mod hostile;
mod launch;
mod model;
mod terminal;

pub use dialect::{Dialect, Request, Shown};
pub use hostile::hostile_body;
pub use launch::{Claude, Codex, Program};
pub use model::{Call, Gate, Model, Step, Talk, call, calls, fail, given, say};
pub use terminal::Terminal;

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Home;
pub use crate::news::News;

/// How long a test with real programs waits for what must happen. They start slowly, and several
/// run at once.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The environment variable that names the executable of Claude Code.
pub const CLAUDE_VARIABLE: &str = "PEERD_CLAUDE";

/// The environment variable that names the executable of Codex.
pub const CODEX_VARIABLE: &str = "PEERD_CODEX";

/// A home, a model server, and the programs that run there.
#[derive(Debug)]
pub struct Stage {
    /// The home: `PEERD_DIR` is not set in it, so the broker is found from `HOME` alone.
    pub home: Home,
    /// The model server that all programs of this stage ask.
    pub model: Model,
}

/// A fresh [`Stage`]. A macro, because only the test's own package knows where the executable under
/// test is.
#[macro_export]
macro_rules! stage {
    () => {
        $crate::clients::Stage::new(env!("CARGO_BIN_EXE_peerctl-under-test"))
    };
}

impl Stage {
    /// A stage for `executable`, or for the one that `PEERD_PEERCTL` names; see
    /// [`stage!`](crate::stage).
    ///
    /// # Panics
    /// Where its directories cannot be made.
    #[must_use]
    pub fn new(executable: &str) -> Self {
        let executable = std::env::var("PEERD_PEERCTL").unwrap_or_else(|_| executable.to_owned());
        let stage = Self { home: Home::usual(&executable), model: Model::start() };
        for dir in ["bin", "home/work", "run", "tmp"] {
            fs::create_dir(stage.home.root().join(dir)).expect("make a directory");
        }
        symlink(&executable, stage.home.root().join("bin/peerctl")).expect("link peerctl");
        stage
    }

    /// Where programs work unless they are told otherwise.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.home.home().join("work")
    }

    /// The executable under test by the name that a person types. It is in the programs' `PATH`.
    #[must_use]
    pub fn peerctl(&self) -> PathBuf {
        self.home.root().join("bin/peerctl")
    }

    /// Claude Code, with our adapter in its configuration.
    #[must_use]
    pub fn claude(&self) -> Claude<'_> {
        Claude::new(self)
    }

    /// Codex, with our adapter in its configuration.
    #[must_use]
    pub fn codex(&self) -> Codex<'_> {
        Codex::new(self)
    }

    /// What happens from now on.
    #[must_use]
    #[track_caller]
    pub fn news(&self) -> News {
        News::start(&self.home)
    }

    /// Sends as the person; returns the message's id. Waits until the recipient is known: a client
    /// may ask its model before its adapter has registered.
    #[track_caller]
    pub fn send(&self, to: &str, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut sent = self.home.peerctl(&["send", to, "--json", "--", text]);
        while sent.stdout.contains("unknown_peer") && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
            sent = self.home.peerctl(&["send", to, "--json", "--", text]);
        }
        let sent = sent.success().json();
        sent["id"].as_str().expect("a message has an id").to_owned()
    }

    /// What happened to the message's one delivery: stage, and carrier where one is named.
    #[must_use]
    #[track_caller]
    pub fn trace(&self, id: &str) -> Vec<String> {
        let shown = self.home.peerctl(&["show", id, "--json"]).success().json();
        let steps =
            shown["deliveries"][0]["trace"].as_array().expect("a delivery has a trace").iter();
        let word = |step: &serde_json::Value, key: &str| step[key].as_str().map(str::to_owned);
        steps
            .map(|step| {
                [word(step, "stage"), word(step, "carrier")]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect()
    }

    /// Leaves only `carrier`, and tool results, which are always there, for adapters that start
    /// from now on.
    ///
    /// # Panics
    /// Where the configuration cannot be written.
    pub fn leave_only(&self, carrier: &str) {
        let others = ["channel", "inbox_socket", "app_server", "hook"]
            .into_iter()
            .filter(|other| *other != carrier);
        let off: Vec<String> = others.map(|other| format!("{other:?}")).collect();
        self.home.configure(&format!("[adapter]\ncarriers_off = [{}]\n", off.join(", ")));
    }

    /// The environment of a program of this stage, and nothing of the test's own.
    fn environment(&self) -> Vec<(OsString, OsString)> {
        let root = self.home.root();
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", root.join("bin").display());
        let entry = |key: &str, value: OsString| (OsString::from(key), value);
        vec![
            entry("HOME", self.home.home().into_os_string()),
            entry("PATH", path.into()),
            // Where programs put sockets of their own: short, and gone with the stage. Not above
            // the home, because Codex does without some of its parts in a home that is temporary.
            entry("TMPDIR", root.join("tmp").into_os_string()),
            entry("XDG_RUNTIME_DIR", root.join("run").into_os_string()),
            entry("LANG", "C.UTF-8".into()),
            entry("TERM", "xterm-256color".into()),
            entry("SHELL", "/bin/bash".into()),
        ]
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "{}", self.model.story());
        }
    }
}

/// The executable that a variable names.
///
/// # Panics
/// Where it does not: a program that cannot be had is a failure, never a test left out.
fn program(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_file());
    path.unwrap_or_else(|| {
        panic!("{variable} names no executable; run these tests with tests/clients/run")
    })
}

/// Says how long a message took from `sent` to the model, on standard error, whatever becomes of
/// the test's own output.
pub fn latency(client: &str, carrier: &str, sent: Instant, request: &Request) {
    let elapsed_ms = request.at.saturating_duration_since(sent).as_millis();
    let _ =
        writeln!(std::io::stderr(), "latency client={client} carrier={carrier} ms={elapsed_ms}");
}

/// Writes `text` to `path`, with the directories above it.
fn write(path: &Path, text: &str) {
    let parent = path.parent().expect("a file lies in a directory");
    fs::create_dir_all(parent).unwrap_or_else(|why| panic!("make {}: {why}", parent.display()));
    fs::write(path, text).unwrap_or_else(|why| panic!("write {}: {why}", path.display()));
}
