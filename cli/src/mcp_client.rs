//! A small MCP client over pipes, with which `demo` and `bench` play the clients' part.
//!
//! Knows JSON-RPC in lines, and the few methods that it needs. Does not know the adapter's code: it
//! is written from the protocol, so that a success here means a success for a client.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::error::Failure;

/// Milliseconds after which a step has failed that should take a few.
const PATIENCE_MS: u64 = 15_000;

/// Most bytes of a dead adapter's standard error that are reported.
const STDERR_BYTES_MAX: u64 = 4_096;

/// An adapter process, with our ends of its pipes.
pub(crate) struct McpClient {
    /// The adapter's name in messages for a person.
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    next_id: u64,
    /// Notifications that came before an awaited answer, with the time of each.
    notifications: Vec<(Instant, Value)>,
    /// The `_meta` of each tool call.
    meta: Option<Value>,
}

/// The data with which a client introduces itself.
pub(crate) struct Introduction<'a> {
    /// The name that its session asks for.
    pub(crate) name: &'a str,
    /// `clientInfo.name`.
    pub(crate) client: &'a str,
    /// `_meta.threadId` of its tool calls, if the client sends one.
    pub(crate) thread_id: Option<&'a str>,
}

impl McpClient {
    /// Runs an adapter and initializes it. Returns its answer.
    pub(crate) async fn start(
        mut command: Command,
        who: &Introduction<'_>,
    ) -> Result<(Self, Value), Failure> {
        command
            .env("PEER_NAME", who.name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child =
            command.spawn().map_err(|source| Failure::system("running an adapter", source))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::wrong(format!("the adapter of {} has no pipes", who.name)));
        };
        let mut client = Self {
            name: who.name.to_owned(),
            child,
            stdin: Some(stdin),
            lines: BufReader::new(stdout).lines(),
            next_id: 0,
            notifications: Vec::new(),
            meta: who.thread_id.map(|id| json!({ "threadId": id })),
        };
        let parameters = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": { "name": who.client, "version": env!("CARGO_PKG_VERSION") },
        });
        let answer = client.request("initialize", parameters).await?;
        client.write(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await?;
        Ok((client, answer))
    }

    /// The adapter's process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a request and waits for its result.
    pub(crate) async fn request(&mut self, method: &str, params: Value) -> Result<Value, Failure> {
        let id = self.next_id;
        self.next_id += 1;
        self.write(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
            .await?;
        let deadline = tokio::time::Instant::now() + Duration::from_millis(PATIENCE_MS);
        loop {
            let Ok(line) = tokio::time::timeout_at(deadline, self.read()).await else {
                return Err(self.wrong(format!("did not answer {method} within {PATIENCE_MS} ms")));
            };
            let mut message = line?;
            if message["id"] == json!(id) {
                if let Some(error) = message.get("error") {
                    return Err(self.wrong(format!("answered {method} with {error}")));
                }
                return Ok(message["result"].take());
            }
            self.notifications.push((Instant::now(), message));
        }
    }

    /// Calls a tool and returns its text.
    pub(crate) async fn call(&mut self, tool: &str, arguments: Value) -> Result<String, Failure> {
        let mut params = json!({ "name": tool, "arguments": arguments });
        if let Some(meta) = &self.meta {
            params["_meta"] = meta.clone();
        }
        let result = self.request("tools/call", params).await?;
        let parts = result["content"].as_array().cloned().unwrap_or_default();
        let texts: Vec<_> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
        let text = texts.join("\n");
        if result["isError"] == json!(true) {
            return Err(self.wrong(format!("refused {tool}: {text}")));
        }
        Ok(text)
    }

    /// Waits for a channel notification about this message. Returns it with the time of its
    /// arrival.
    pub(crate) async fn channel(&mut self, message_id: &str) -> Result<(Instant, Value), Failure> {
        let about = |message: &Value| {
            message["method"] == json!("notifications/claude/channel")
                && message["params"]["meta"]["message_id"] == json!(message_id)
        };
        if let Some(place) = self.notifications.iter().position(|(_, message)| about(message)) {
            return Ok(self.notifications.swap_remove(place));
        }
        let deadline = tokio::time::Instant::now() + Duration::from_millis(PATIENCE_MS);
        loop {
            let Ok(line) = tokio::time::timeout_at(deadline, self.read()).await else {
                return Err(self.wrong(format!(
                    "got no channel notification of {message_id} within {PATIENCE_MS} ms"
                )));
            };
            let (at, message) = (Instant::now(), line?);
            if about(&message) {
                return Ok((at, message));
            }
            self.notifications.push((at, message));
        }
    }

    /// Waits for the next channel notification. Returns the time of its arrival and the message's
    /// id.
    pub(crate) async fn next_channel(&mut self) -> Result<(Instant, String), Failure> {
        let deadline = tokio::time::Instant::now() + Duration::from_millis(PATIENCE_MS);
        loop {
            let Ok(line) = tokio::time::timeout_at(deadline, self.read()).await else {
                return Err(
                    self.wrong(format!("got no channel notification within {PATIENCE_MS} ms"))
                );
            };
            let (at, message) = (Instant::now(), line?);
            if message["method"] == json!("notifications/claude/channel") {
                let id =
                    message["params"]["meta"]["message_id"].as_str().unwrap_or_default().to_owned();
                return Ok((at, id));
            }
        }
    }

    /// Closes the adapter's standard input, as an ending client does, and waits for the adapter's
    /// end.
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        drop(self.stdin.take());
        match tokio::time::timeout(Duration::from_millis(PATIENCE_MS), self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => {
                Err(self.wrong(format!("ended with {status} after its input was closed")))
            }
            Ok(Err(source)) => Err(Failure::system("waiting for an adapter", source)),
            Err(_) => Err(self
                .wrong(format!("was still running {PATIENCE_MS} ms after its input was closed"))),
        }
    }

    async fn write(&mut self, message: &Value) -> Result<(), Failure> {
        let line = format!("{message}\n");
        let written = match &mut self.stdin {
            Some(stdin) => stdin.write_all(line.as_bytes()).await,
            None => Ok(()),
        };
        match written {
            Ok(()) => Ok(()),
            Err(_) => Err(self.died().await),
        }
    }

    async fn read(&mut self) -> Result<Value, Failure> {
        match self.lines.next_line().await {
            Ok(Some(line)) => serde_json::from_str(&line)
                .map_err(|_| self.wrong(format!("wrote a line that is not JSON: {line:?}"))),
            Ok(None) | Err(_) => Err(self.died().await),
        }
    }

    /// The failure of an adapter that ended, with its last output.
    async fn died(&mut self) -> Failure {
        let mut words = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            // Output that cannot be read is left out.
            let _ = stderr.take(STDERR_BYTES_MAX).read_to_end(&mut words).await;
        }
        let words = String::from_utf8_lossy(&words);
        let status = self
            .child
            .wait()
            .await
            .map_or_else(|_| "an unknown status".to_owned(), |status| status.to_string());
        self.wrong(format!("ended early, with {status}: {}", words.trim()))
    }

    fn wrong(&self, what: String) -> Failure {
        Failure::wrong(format!("the adapter of {} {what}", self.name))
    }
}

/// The first message id in a tool's text.
pub(crate) fn message_id_in(text: &str) -> Option<String> {
    text.match_indices("m-").find_map(|(place, _)| {
        let id = text.get(place..place + 18)?;
        id.parse::<peer_proto::ids::MessageId>().ok().map(|_| id.to_owned())
    })
}
