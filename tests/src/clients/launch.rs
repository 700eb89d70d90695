//! Starting Claude Code and Codex: their command lines, the files they want in a home, and their
//! ends.
//!
//! It knows both programs' options and configuration. It does not know what the model will say.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{CLAUDE_VARIABLE, CODEX_VARIABLE, PATIENCE, Stage, Terminal, program, write};
use crate::Outcome;
use crate::home::signal;

/// No key of anybody's: the model server takes any.
const API_KEY: &str = "dummy-key-of-the-tests-0123456789";

/// What both programs' launches have in common.
#[derive(Debug)]
struct Launch<'stage> {
    stage: &'stage Stage,
    environment: BTreeMap<String, String>,
    arguments: Vec<String>,
    cwd: PathBuf,
    wired: bool,
}

/// Claude Code about to be started.
#[derive(Debug)]
pub struct Claude<'stage> {
    launch: Launch<'stage>,
    settings: Value,
    permission_mode: String,
    allowed: &'static str,
}

/// The tools that run without a prompt, by Claude Code's names of them: ours, however they got
/// there, and its own.
const ALLOWED: &str = "mcp__peers,mcp__plugin_peers_peers,Bash,Task,Agent";

/// Codex about to be started.
#[derive(Debug)]
pub struct Codex<'stage> {
    launch: Launch<'stage>,
    model: &'static str,
    deferring: bool,
    config: String,
}

/// A model that calls tools one by one, as older models do. It stands in Codex's own list: for one
/// that does not, Codex cuts tool results at a quarter of the usual length.
const CLASSIC_MODEL: &str = "gpt-5.5";

/// The model that Codex 0.171.0 takes where its person chose none. Its one tool runs a program,
/// which calls the others.
const CODE_MODEL: &str = "gpt-6.1-sol";

impl<'stage> Launch<'stage> {
    fn new(stage: &'stage Stage) -> Self {
        Self {
            stage,
            environment: BTreeMap::new(),
            arguments: Vec::new(),
            cwd: stage.work(),
            wired: true,
        }
    }

    fn command(&self, executable: &Path, arguments: Vec<String>) -> Command {
        let mut command = Command::new(executable);
        command
            .args(arguments)
            .env_clear()
            .envs(self.stage.environment())
            .envs(&self.environment)
            .current_dir(&self.cwd);
        command
    }
}

/// The methods that both have.
macro_rules! common {
    () => {
        /// The name that its person asks for, in `PEER_NAME`.
        #[must_use]
        pub fn name(self, name: &str) -> Self {
            self.env("PEER_NAME", name)
        }

        /// Sets a variable of its environment.
        #[must_use]
        pub fn env(mut self, key: &str, value: &str) -> Self {
            self.launch.environment.insert(key.to_owned(), value.to_owned());
            self
        }

        /// More arguments on its command line.
        #[must_use]
        pub fn args<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
            self.launch.arguments.extend(arguments.into_iter().map(str::to_owned));
            self
        }

        /// Where it works.
        #[must_use]
        pub fn cwd(mut self, dir: &Path) -> Self {
            self.launch.cwd = dir.to_owned();
            self
        }

        /// Our adapter is not put into its configuration: the test did that itself, or wants none.
        #[must_use]
        pub fn unwired(mut self) -> Self {
            self.launch.wired = false;
            self
        }
    };
}

impl<'stage> Claude<'stage> {
    pub(super) fn new(stage: &'stage Stage) -> Self {
        let launch = Launch::new(stage);
        Self {
            launch,
            settings: json!({}),
            permission_mode: "default".to_owned(),
            allowed: ALLOWED,
        }
        .env("ANTHROPIC_BASE_URL", &format!("http://127.0.0.1:{}", stage.model.port()))
        .env("ANTHROPIC_API_KEY", API_KEY)
        .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
        .env("DISABLE_AUTOUPDATER", "1")
    }

    common!();

    /// Settings besides the home's own, such as `{"hooks": {…}}`.
    #[must_use]
    pub fn settings(mut self, settings: Value) -> Self {
        self.settings = settings;
        self
    }

    /// Our hooks, each a command. `peerctl setup` writes others, which save a process where they
    /// can.
    #[must_use]
    pub fn hooked(mut self) -> Self {
        let peerctl = self.launch.stage.peerctl();
        for event in [
            "SessionStart",
            "UserPromptSubmit",
            "PreToolUse",
            "PostToolBatch",
            "Stop",
            "SessionEnd",
        ] {
            let command = format!("{} hook claude {event}", peerctl.display());
            self.settings["hooks"][event] =
                json!([{"hooks": [{"type": "command", "command": command}]}]);
        }
        self
    }

    /// Another hook of the person's, which may refuse a prompt: a command that prints its decision.
    #[must_use]
    pub fn refusing(self, command: &str) -> Self {
        self.also("UserPromptSubmit", command)
    }

    /// Another hook of the person's on that event: a command.
    #[must_use]
    pub fn also(mut self, event: &str, command: &str) -> Self {
        let hook = json!({"hooks": [{"type": "command", "command": command}]});
        match &mut self.settings["hooks"][event] {
            Value::Array(hooks) => hooks.push(hook),
            other => *other = json!([hook]),
        }
        self
    }

    /// Nothing runs without a prompt: neither our tools nor the shell are allowed beforehand.
    #[must_use]
    pub fn asking(mut self) -> Self {
        self.allowed = "";
        self
    }

    /// What `--permission-mode` says: `default` where it is not set. Our tools and the shell are
    /// allowed in each.
    #[must_use]
    pub fn permission_mode(mut self, mode: &str) -> Self {
        mode.clone_into(&mut self.permission_mode);
        // Without it the program refuses this mode to root, as whom tests may run.
        self.env("IS_SANDBOX", "1")
    }

    /// Starts `claude -p PROMPT`.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn print(self, prompt: &str) -> Program {
        let command = self.command(&["-p", prompt]);
        Program::start("claude -p", command)
    }

    /// Opens it in a terminal and waits until it takes a prompt.
    ///
    /// # Panics
    /// Where it does not.
    #[must_use]
    #[track_caller]
    pub fn terminal(self) -> Terminal {
        let terminal = Terminal::open(self.launch.stage, "claude", &self.command(&[]));
        terminal.wait_for_prompt('❯');
        terminal
    }

    fn command(&self, first: &[&str]) -> Command {
        let Launch { stage, cwd, .. } = &self.launch;
        let home = stage.home.home();
        trust_claude(&home.join(".claude.json"), cwd);
        let mut arguments: Vec<String> =
            first.iter().map(|argument| (*argument).to_owned()).collect();
        let mut option =
            |name: &str, value: &str| arguments.extend([name.to_owned(), value.to_owned()]);
        option("--permission-mode", &self.permission_mode);
        if !self.allowed.is_empty() {
            option("--allowedTools", self.allowed);
        }
        option("--settings", &self.settings.to_string());
        if self.launch.wired {
            let peers = json!({"type": "stdio", "command": stage.peerctl(), "args": ["mcp"]});
            option("--mcp-config", &json!({"mcpServers": {"peers": peers}}).to_string());
            arguments.push("--strict-mcp-config".to_owned());
        }
        arguments.extend(self.launch.arguments.iter().cloned());
        self.launch.command(&program(CLAUDE_VARIABLE), arguments)
    }
}

impl<'stage> Codex<'stage> {
    pub(super) fn new(stage: &'stage Stage) -> Self {
        Self {
            launch: Launch::new(stage),
            model: CLASSIC_MODEL,
            deferring: false,
            config: String::new(),
        }
    }

    common!();

    /// With the model that Codex takes of itself: it sees tools only from within programs that it
    /// writes. [`Call`]s become such programs; see [`Call::program`].
    ///
    /// [`Call`]: super::Call
    /// [`Call::program`]: super::Call::program
    #[must_use]
    pub fn in_code_mode(mut self) -> Self {
        self.model = CODE_MODEL;
        self
    }

    /// Our tools are not offered directly: the model searches for them, or calls them from a
    /// program.
    #[must_use]
    pub fn deferring(mut self) -> Self {
        self.deferring = true;
        self
    }

    /// Text at the end of `config.toml`, such as a table of hooks. The file is written when the
    /// first Codex of a stage starts, and never again.
    #[must_use]
    pub fn config(mut self, config: &str) -> Self {
        self.config.push_str(config);
        self
    }

    /// Our hooks, each a command, and trusted without a person's word: that is for programs that
    /// run on their own, and makes a terminal its own server. `peerctl setup` writes others, which
    /// the person trusts.
    #[must_use]
    pub fn hooked(mut self) -> Self {
        let peerctl = self.launch.stage.peerctl();
        for event in ["SessionStart", "UserPromptSubmit", "PostToolUse", "Stop", "SessionEnd"] {
            let command = format!("{} hook codex {event}", peerctl.display());
            let handler = format!("{{ type = \"command\", command = {:?} }}", command);
            self.config.push_str(&format!("[[hooks.{event}]]\nhooks = [{handler}]\n"));
        }
        self.args(["--dangerously-bypass-hook-trust"])
    }

    /// Writes its configuration, as far as it is not there, and starts nothing.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn configure(&self) {
        let config = self.launch.stage.home.home().join(".codex/config.toml");
        if !config.exists() {
            write(&config, &self.config_toml());
        }
    }

    /// Starts `codex exec PROMPT`.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn exec(self, prompt: &str) -> Program {
        let command = self.command(&["exec", "--skip-git-repo-check", "--json", prompt]);
        Program::start("codex exec", command)
    }

    /// Opens it in a terminal and waits until it takes a prompt.
    ///
    /// # Panics
    /// Where it does not.
    #[must_use]
    #[track_caller]
    pub fn terminal(self) -> Terminal {
        let terminal = Terminal::open(self.launch.stage, "codex", &self.command(&[]));
        terminal.wait_for_prompt('›');
        terminal
    }

    fn command(&self, first: &[&str]) -> Command {
        self.configure();
        let mut arguments: Vec<String> =
            first.iter().map(|argument| (*argument).to_owned()).collect();
        arguments.extend(self.launch.arguments.iter().cloned());
        self.launch.command(&program(CODEX_VARIABLE), arguments)
    }

    fn config_toml(&self) -> String {
        let Launch { stage, cwd, wired, .. } = &self.launch;
        // Strings of TOML and of JSON agree for what stands in a path here.
        let quoted = |path: &Path| Value::from(path.to_string_lossy()).to_string();
        let mut config = format!("model = \"{}\"\n", self.model);
        config.push_str(
            "model_provider = \"mock\"\napproval_policy = \"never\"\nsandbox_mode = \"danger-full-access\"\n\
             check_for_update_on_startup = false\n",
        );
        // Without a network its end would wait five seconds for what it cannot send.
        config.push_str("[analytics]\nenabled = false\n");
        // What it asks a person once: whether to go on with this model.
        config.push_str("[notice.model_migrations]\n\"gpt-5.5\" = \"gpt-6-sol\"\n");
        config.push_str(&format!(
            "[model_providers.mock]\nname = \"mock\"\nbase_url = \"http://127.0.0.1:{}/v1\"\nwire_api = \"responses\"\n\
             request_max_retries = 0\nstream_max_retries = 0\nsupports_websockets = false\n",
            stage.model.port()
        ));
        config.push_str(&format!("[projects.{}]\ntrust_level = \"trusted\"\n", quoted(cwd)));
        if *wired {
            config.push_str(&format!(
                "[mcp_servers.peers]\ncommand = {}\nargs = [\"mcp\"]\nenv_vars = [\"PEER_NAME\", \"PEERD_DIR\"]\n\
                 default_tools_approval_mode = \"approve\"\n",
                quoted(&stage.peerctl())
            ));
            if !self.deferring {
                config.push_str("omit_tools_from = [\"code_mode\", \"deferred\"]\n");
            }
        }
        config + &self.config + "\n"
    }
}

/// What Claude Code asks a person once, answered: its first steps, the key, and whether this
/// directory is trusted.
fn trust_claude(path: &Path, cwd: &Path) {
    let text = fs::read_to_string(path).unwrap_or_else(|_| "{}".to_owned());
    let mut state: Value = serde_json::from_str(&text).expect("Claude's own file is JSON");
    let cwd = cwd.to_string_lossy();
    if state["projects"][&*cwd]["hasTrustDialogAccepted"] == true {
        return;
    }
    state["hasCompletedOnboarding"] = json!(true);
    state["bypassPermissionsModeAccepted"] = json!(true);
    state["theme"] = json!("dark");
    let end = &API_KEY[API_KEY.len() - 20..];
    state["customApiKeyResponses"] = json!({"approved": [end], "rejected": []});
    state["projects"][&*cwd]["hasTrustDialogAccepted"] = json!(true);
    state["projects"][&*cwd]["hasCompletedProjectOnboarding"] = json!(true);
    write(path, &state.to_string());
}

/// A program that runs without a terminal. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    /// Its process.
    pub pid: u32,
    what: &'static str,
    heard: Arc<(Mutex<Heard>, Condvar)>,
}

#[derive(Debug, Default)]
struct Heard {
    stdout: String,
    stderr: String,
    streams_ended: usize,
    code: Option<i32>,
}

impl Program {
    fn start(what: &'static str, mut command: Command) -> Self {
        let spawned =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|why| panic!("start {what}: {why}"));
        let heard = Arc::<(Mutex<Heard>, Condvar)>::default();
        let (stdout, stderr) = (
            child.stdout.take().expect("stdout is piped"),
            child.stderr.take().expect("stderr is piped"),
        );
        listen(stdout, &heard, |heard| &mut heard.stdout);
        listen(stderr, &heard, |heard| &mut heard.stderr);
        let pid = child.id();
        await_end(child, &heard);
        Self { pid, what, heard }
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// Where it does not end within [`PATIENCE`].
    #[track_caller]
    pub fn wait(&self) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        let mut heard = self.heard.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(code) = heard.code
                && heard.streams_ended == 2
            {
                return Outcome {
                    code,
                    stdout: heard.stdout.clone(),
                    stderr: heard.stderr.clone(),
                };
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} does not end; so far {heard:?}", self.what);
            heard =
                self.heard.1.wait_timeout(heard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let heard = self.heard.0.lock().unwrap_or_else(PoisonError::into_inner);
        if std::thread::panicking() {
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("{}: {heard:?}\n", self.what).as_bytes(),
            );
        }
        // Its number may be another process's once it was waited for.
        if heard.code.is_none() {
            signal(self.pid, Signal::SIGKILL);
        }
    }
}

fn listen(
    stream: impl Read + Send + 'static,
    heard: &Arc<(Mutex<Heard>, Condvar)>,
    part: fn(&mut Heard) -> &mut String,
) {
    let heard = Arc::clone(heard);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            part(&mut heard.0.lock().unwrap_or_else(PoisonError::into_inner))
                .push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
        heard.0.lock().unwrap_or_else(PoisonError::into_inner).streams_ended += 1;
        heard.1.notify_all();
    });
}

fn await_end(mut child: Child, heard: &Arc<(Mutex<Heard>, Condvar)>) {
    let heard = Arc::clone(heard);
    std::thread::spawn(move || {
        let status = child.wait().expect("wait for a program");
        heard.0.lock().unwrap_or_else(PoisonError::into_inner).code =
            Some(crate::mcp::exit_code(status));
        heard.1.notify_all();
    });
}
