//! A minimal MCP client over the adapter's standard streams: one JSON value a line.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::home::{Home, signal};
use crate::{Outcome, PATIENCE};

/// How to start an adapter: who its client says it is, and what is in its environment.
#[derive(Debug)]
pub struct Adapter<'home> {
    home: &'home Home,
    command: Command,
    client: (String, String),
    thread_id: Option<String>,
    reading: bool,
}

impl Home {
    /// An adapter whose client calls itself `client`.
    #[must_use]
    pub fn adapter(&self, client: &str) -> Adapter<'_> {
        Adapter {
            home: self,
            command: self.command(&["mcp"]),
            client: (client.to_owned(), "1.0.0".to_owned()),
            thread_id: None,
            reading: true,
        }
    }

    /// A running, initialized adapter of Claude Code, whose person chose `name`.
    #[must_use]
    pub fn claude(&self, name: &str) -> Mcp {
        self.adapter("claude-code").env("PEER_NAME", name).start()
    }

    /// A running, initialized adapter of Codex, whose person chose `name`. Its calls carry a thread
    /// id.
    #[must_use]
    pub fn codex(&self, name: &str) -> Mcp {
        self.adapter("codex-mcp-client")
            .env("PEER_NAME", name)
            .thread_id(&format!("thread-of-{name}"))
            .start()
    }

    /// A registered session of `client`, whose person chose `name`, and which has the tools of the
    /// full profile.
    #[must_use]
    #[track_caller]
    pub fn session(&self, client: &str, name: &str) -> Mcp {
        self.adapter(client).env("PEER_NAME", name).env("PEERD_PROFILE", "full").registered()
    }

    /// Two registered sessions: luna of Claude Code, orion of Codex.
    #[must_use]
    #[track_caller]
    pub fn two_sessions(&self) -> (Mcp, Mcp) {
        let (luna, orion) = (self.claude("luna"), self.codex("orion"));
        luna.register();
        orion.register();
        (luna, orion)
    }
}

impl Adapter<'_> {
    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.command.env(key, value);
        self
    }

    /// Removes a variable from its environment.
    #[must_use]
    pub fn env_remove(mut self, key: &str) -> Self {
        self.command.env_remove(key);
        self
    }

    /// Where it works.
    #[must_use]
    pub fn cwd(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// It is started by `launcher`, which gets the adapter's command line as its last arguments.
    #[must_use]
    pub fn through(mut self, launcher: &[&str]) -> Self {
        let (program, arguments) = launcher.split_first().expect("a launcher has a name");
        let mut command = Command::new(program);
        command
            .args(arguments)
            .arg(self.command.get_program())
            .args(self.command.get_args())
            .env_clear();
        command.envs(self.command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        if let Some(dir) = self.command.get_current_dir() {
            command.current_dir(dir);
        }
        self.command = command;
        self
    }

    /// Every tool call carries `_meta.threadId`, as Codex sends it.
    #[must_use]
    pub fn thread_id(mut self, thread_id: &str) -> Self {
        self.thread_id = Some(thread_id.to_owned());
        self
    }

    /// The client does not read what the adapter writes, until [`Mcp::read_on`].
    #[must_use]
    pub fn not_reading(mut self) -> Self {
        self.reading = false;
        self
    }

    /// Starts it and says nothing to it.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn spawn(self) -> Mcp {
        Mcp::spawn(self)
    }

    /// Starts it and initializes it.
    ///
    /// # Panics
    /// Where it cannot be started or does not answer.
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Mcp {
        let mcp = self.spawn();
        mcp.initialize();
        mcp
    }

    /// Starts it, initializes it and makes its first call: from then on it is a peer.
    ///
    /// # Panics
    /// Where it cannot be started or the call fails.
    #[must_use]
    #[track_caller]
    pub fn registered(self) -> Mcp {
        let mcp = self.start();
        mcp.register();
        mcp
    }

    /// The home it lives in.
    #[must_use]
    pub fn home(&self) -> &Home {
        self.home
    }
}

/// A running adapter and the client's end of its pipes. Dropping it kills the process.
#[derive(Debug)]
pub struct Mcp {
    /// Its process.
    pub pid: u32,
    client: (String, String),
    thread_id: Option<String>,
    stdin: Mutex<Option<ChildStdin>>,
    shared: Arc<Shared>,
    next_id: AtomicU64,
}

#[derive(Debug, Default)]
struct Shared {
    heard: Mutex<Heard>,
    changed: Condvar,
}

/// What the adapter has said so far.
#[derive(Debug, Default)]
struct Heard {
    reading: bool,
    replies: BTreeMap<u64, (Instant, Value)>,
    /// Notifications and requests of the server, in order.
    others: Vec<(Instant, Value)>,
    /// Notifications before this place were handed out by `wait_notification`.
    taken: Vec<bool>,
    garbage: Vec<String>,
    stderr: String,
    stdout_ended: bool,
    ended: Option<ExitStatus>,
}

/// What a tool call gave.
#[derive(Clone, Debug)]
pub struct ToolResult {
    /// The result's text, its parts joined by newlines; of a protocol error, its message.
    pub text: String,
    /// The call failed: `isError`, or a protocol error.
    pub is_error: bool,
    /// The whole reply.
    pub raw: Value,
    /// When it was read.
    pub at: Instant,
}

impl ToolResult {
    /// The first message id in the text.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    #[track_caller]
    pub fn message_id(&self) -> String {
        let Some(id) = self.message_ids().into_iter().next() else {
            panic!("no message id in {:?}", self.text)
        };
        id
    }

    /// All message ids in the text, in order, repeats included.
    #[must_use]
    pub fn message_ids(&self) -> Vec<String> {
        let words = self.text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        words
            .filter(|word| word.parse::<peer_proto::ids::MessageId>().is_ok())
            .map(str::to_owned)
            .collect()
    }

    /// The same result, if the call succeeded.
    ///
    /// # Panics
    /// Where it failed.
    #[must_use]
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(!self.is_error, "the call failed: {}", self.text);
        self
    }
}

impl Mcp {
    fn spawn(adapter: Adapter<'_>) -> Self {
        let Adapter { mut command, client, thread_id, reading, .. } = adapter;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the adapter");
        let shared = Arc::new(Shared::default());
        shared.lock().reading = reading;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (stdout, stderr) = (stdout.expect("stdout is piped"), stderr.expect("stderr is piped"));
        let pid = child.id();

        let heard = Arc::clone(&shared);
        std::thread::spawn(move || {
            let reader = BufReader::new(stdout);
            // Dropping the client reads on, so this ends.
            let _ = heard.wait(Instant::now() + Duration::from_secs(3_600), |heard| {
                heard.reading.then_some(())
            });
            for line in reader.lines().map_while(Result::ok) {
                heard.hear(&line);
            }
            heard.lock().stdout_ended = true;
            heard.changed.notify_all();
        });
        let heard = Arc::clone(&shared);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                heard.lock().stderr.push_str(&(line + "\n"));
            }
        });
        let heard = Arc::clone(&shared);
        std::thread::spawn(move || {
            let status = child.wait().expect("wait for the adapter");
            heard.lock().ended = Some(status);
            heard.changed.notify_all();
        });
        Self {
            pid,
            client,
            thread_id,
            stdin: Mutex::new(stdin),
            shared,
            next_id: AtomicU64::new(1),
        }
    }

    /// Says `initialize` and `notifications/initialized`; returns the server's answer.
    ///
    /// # Panics
    /// Where it does not answer with a result.
    #[track_caller]
    pub fn initialize(&self) -> Value {
        let (name, version) = &self.client;
        let reply = self.request(
            "initialize",
            json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": name, "version": version}}),
        );
        let Some(result) = reply.get("result").cloned() else {
            panic!("initialize was refused: {reply}")
        };
        self.notify("notifications/initialized", json!({}));
        result
    }

    /// Writes one line, whatever it says. That the adapter is gone is no failure.
    pub fn write_line(&self, line: &str) {
        if let Some(stdin) = self.stdin.lock().expect("no writer panicked").as_mut() {
            let _ = stdin.write_all(format!("{line}\n").as_bytes());
            let _ = stdin.flush();
        }
    }

    /// Sends a notification.
    pub fn notify(&self, method: &str, params: Value) {
        self.write_line(&json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string());
    }

    /// Sends a request and returns its id without waiting.
    pub fn submit(&self, method: &str, params: Value) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.write_line(
            &json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string(),
        );
        id
    }

    /// Sends a request and waits for the whole reply.
    ///
    /// # Panics
    /// Where none comes within [`PATIENCE`].
    #[track_caller]
    pub fn request(&self, method: &str, params: Value) -> Value {
        let id = self.submit(method, params);
        // A closure would hide from the failure's text which test called.
        let Some((_, reply)) = self.reply(id, PATIENCE) else {
            panic!("no answer to {method}; {}", self.story())
        };
        reply
    }

    /// The reply to the request of that id, once it has come; none after `patience`.
    #[must_use]
    pub fn reply(&self, id: u64, patience: Duration) -> Option<(Instant, Value)> {
        self.shared.wait(Instant::now() + patience, |heard| heard.replies.get(&id).cloned())
    }

    /// Calls a tool and waits for its result.
    ///
    /// # Panics
    /// Where none comes within [`PATIENCE`].
    #[track_caller]
    pub fn call(&self, tool: &str, arguments: Value) -> ToolResult {
        let id = self.submit_call(tool, arguments, json!({}));
        self.result(id, PATIENCE)
    }

    /// Makes the call by which an adapter that was only initialized becomes a peer.
    ///
    /// # Panics
    /// Where it fails.
    #[track_caller]
    pub fn register(&self) {
        let _ = self.call("list_peers", json!({})).success();
    }

    /// What a call says that succeeds.
    ///
    /// # Panics
    /// Where it fails.
    #[must_use]
    #[track_caller]
    pub fn says(&self, tool: &str, arguments: Value) -> String {
        self.call(tool, arguments).success().text
    }

    /// What a call says that fails.
    ///
    /// # Panics
    /// Where it succeeds.
    #[must_use]
    #[track_caller]
    pub fn refused(&self, tool: &str, arguments: Value) -> String {
        let result = self.call(tool, arguments);
        assert!(result.is_error, "{tool} was not refused: {}", result.text);
        result.text
    }

    /// Reads messages until one result contains `words`.
    ///
    /// # Panics
    /// Where twenty results, each of which may wait for mail, do not.
    #[track_caller]
    pub fn hears(&self, words: &str) {
        let mut all = String::new();
        for _ in 0..20 {
            let text = self.says("check_messages", json!({"wait_s": 5}));
            if text.contains(words) {
                return;
            }
            all.push_str(&text);
        }
        panic!("never told {words:?}: {all}");
    }

    /// Calls a tool with `_meta` besides what this client always sends, and waits for its result.
    ///
    /// # Panics
    /// Where none comes within [`PATIENCE`].
    #[track_caller]
    pub fn call_with_meta(&self, tool: &str, arguments: Value, meta: Value) -> ToolResult {
        let id = self.submit_call(tool, arguments, meta);
        self.result(id, PATIENCE)
    }

    /// Calls a tool without waiting; [`Mcp::result`] waits. An empty `meta` is left out.
    #[must_use]
    pub fn submit_call(&self, tool: &str, arguments: Value, mut meta: Value) -> u64 {
        if let Some(thread_id) = &self.thread_id
            && meta.get("threadId").is_none()
        {
            meta["threadId"] = json!(thread_id);
        }
        let mut params = json!({"name": tool, "arguments": arguments});
        if meta.as_object().is_some_and(|meta| !meta.is_empty()) {
            params["_meta"] = meta;
        }
        self.submit("tools/call", params)
    }

    /// The result of a call made with [`Mcp::submit_call`].
    ///
    /// # Panics
    /// Where none comes within `patience`.
    #[track_caller]
    pub fn result(&self, id: u64, patience: Duration) -> ToolResult {
        let Some((at, raw)) = self.reply(id, patience) else {
            panic!("no result of call {id}; {}", self.story())
        };
        let text = match raw.get("error") {
            Some(error) => error["message"].as_str().unwrap_or_default().to_owned(),
            None => {
                let parts =
                    raw["result"]["content"].as_array().map(Vec::as_slice).unwrap_or_default();
                parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n")
            }
        };
        let is_error =
            raw.get("error").is_some() || raw["result"]["isError"].as_bool().unwrap_or(false);
        ToolResult { text, is_error, raw, at }
    }

    /// The first notification that was not handed out before and that `matches`, with the time at
    /// which it was read.
    ///
    /// # Panics
    /// Where none comes within [`PATIENCE`].
    #[track_caller]
    pub fn wait_notification(&self, matches: impl Fn(&Value) -> bool) -> (Instant, Value) {
        let Some(found) = self.notification_within(PATIENCE, matches) else {
            panic!("no such notification; {}", self.story())
        };
        found
    }

    /// The same within `patience`, or none.
    #[must_use]
    pub fn notification_within(
        &self,
        patience: Duration,
        matches: impl Fn(&Value) -> bool,
    ) -> Option<(Instant, Value)> {
        self.shared.wait(Instant::now() + patience, |heard| {
            let place = (0..heard.others.len())
                .find(|place| !heard.taken[*place] && matches(&heard.others[*place].1))?;
            heard.taken[place] = true;
            Some(heard.others[place].clone())
        })
    }

    /// The first channel notification, not handed out before, that carries the message `id`.
    ///
    /// # Panics
    /// Where none comes within [`PATIENCE`].
    #[track_caller]
    pub fn wait_channel(&self, id: &str) -> (Instant, Value) {
        self.wait_notification(|note| {
            is_channel(note) && note["params"]["meta"]["message_id"] == id
        })
    }

    /// All notifications so far, in order.
    #[must_use]
    pub fn notifications(&self) -> Vec<Value> {
        self.shared.lock().others.iter().map(|(_, value)| value.clone()).collect()
    }

    /// Lines on standard output that are not JSON; there must never be one.
    #[must_use]
    pub fn garbage(&self) -> Vec<String> {
        self.shared.lock().garbage.clone()
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.shared.lock().stderr.clone()
    }

    /// Begins to read what the adapter writes; see [`Adapter::not_reading`].
    pub fn read_on(&self) {
        self.shared.lock().reading = true;
        self.shared.changed.notify_all();
    }

    /// Closes the adapter's standard input, as a client that ends does.
    pub fn close_stdin(&self) {
        self.stdin.lock().expect("no writer panicked").take();
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends it a signal.
    pub fn signal(&self, which: Signal) {
        if self.shared.lock().ended.is_none() {
            signal(self.pid, which);
        }
    }

    /// Kills it with SIGKILL and waits until it is gone.
    ///
    /// # Panics
    /// Where it does not go.
    #[track_caller]
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
        let _ = self.wait_exit(PATIENCE);
    }

    /// Waits for its end, and says how it ended; its `stdout` is empty, as it was read line by
    /// line.
    ///
    /// # Panics
    /// Where it lives on after `patience`.
    #[track_caller]
    pub fn wait_exit(&self, patience: Duration) -> Outcome {
        let status = self.shared.wait(Instant::now() + patience, |heard| heard.ended);
        let Some(status) = status else { panic!("the adapter does not end; {}", self.story()) };
        Outcome { code: exit_code(status), stdout: String::new(), stderr: self.stderr() }
    }

    /// What was heard, for the text of a failure.
    fn story(&self) -> String {
        let heard = self.shared.lock();
        format!(
            "adapter {} ended {:?}, stderr {:?}, notifications {:?}, garbage {:?}",
            self.pid, heard.ended, heard.stderr, heard.others, heard.garbage
        )
    }
}

impl Drop for Mcp {
    fn drop(&mut self) {
        self.read_on();
        self.signal(Signal::SIGKILL);
        let _ = self.shared.wait(Instant::now() + PATIENCE, |heard| heard.ended);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits until `found` finds something; none at `deadline`, or once the process has ended and
    /// said its last word.
    fn wait<T>(
        &self,
        deadline: Instant,
        mut found: impl FnMut(&mut Heard) -> Option<T>,
    ) -> Option<T> {
        let mut heard = self.lock();
        loop {
            if let Some(value) = found(&mut heard) {
                return Some(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || (heard.stdout_ended && heard.ended.is_some()) {
                return None;
            }
            heard = self
                .changed
                .wait_timeout(heard, left)
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .0;
        }
    }

    fn hear(&self, line: &str) {
        let at = Instant::now();
        let mut heard = self.lock();
        match serde_json::from_str::<Value>(line) {
            Ok(value) if value.get("method").is_none() && value["id"].is_u64() => {
                heard.replies.insert(value["id"].as_u64().unwrap_or_default(), (at, value));
            }
            Ok(value) => {
                heard.others.push((at, value));
                heard.taken.push(false);
            }
            Err(_) => heard.garbage.push(line.to_owned()),
        }
        drop(heard);
        self.changed.notify_all();
    }
}

/// Whether a notification is Claude Code's channel notification.
fn is_channel(notification: &Value) -> bool {
    notification["method"] == "notifications/claude/channel"
}

/// The exit code as a shell says it.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
