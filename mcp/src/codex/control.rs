//! Codex's control socket: JSON-RPC, one object per WebSocket message, over a Unix socket of the
//! user's own.
//!
//! Knows the protocol of requests, answers and notifications. Does not know their meaning. The
//! invariants:
//!
//! - The only server that gets requests is this adapter's own client.
//! - A request waits for its answer at most a bounded time.
//! - A request of the server to its clients, such as an approval, is for the person: it is never
//!   answered here.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// The socket's path below Codex's own directory.
pub(super) const SOCKET: &str = "app-server-control/app-server-control.sock";

/// How long connecting, and each request, may take, in milliseconds. A working server answers
/// within a few.
const PATIENCE_MS: u64 = 3_000;

/// Notifications of no use here, which the server then does not send.
const UNWANTED: [&str; 2] = ["remoteControl/status/changed", "skills/changed"];

/// A connection to the server. Ends with its last clone.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    questions: mpsc::Sender<ControlRequest>,
}

/// The server's notifications: the method and its parameters. Ends with the connection.
pub(super) type Notifications = mpsc::UnboundedReceiver<(String, Value)>;

/// Why the server gave no answer.
#[derive(Debug, Error)]
pub(crate) enum ControlError {
    /// It cannot be reached.
    #[error("reaching codex's control socket: {0}")]
    Io(#[from] std::io::Error),
    /// It does not speak WebSocket, or stopped doing so.
    #[error("exchanging data with codex's control socket: {0}")]
    Socket(Box<tungstenite::Error>),
    /// The process that listens is not the one that started this adapter.
    #[error(
        "codex's control socket belongs to process {found:?}, and this session to process {expected}"
    )]
    Stranger {
        /// The process that listens.
        found: Option<u32>,
        expected: u32,
    },
    /// The connection has ended.
    #[error("codex's control socket was closed")]
    Closed,
    /// No answer came in time.
    #[error("codex's control socket did not answer within {} s", PATIENCE_MS / 1_000)]
    Silent,
    /// The server refused.
    #[error("codex refused {method}: {message}")]
    Refused {
        method: &'static str,
        /// The reason of the refusal.
        message: String,
    },
}

type PendingReply = oneshot::Sender<Result<Value, ControlError>>;

struct ControlRequest {
    method: &'static str,
    params: Value,
    answer: PendingReply,
}

impl Control {
    /// Connects to the server behind `socket`, which must be the process `server`, and initializes
    /// the connection.
    pub(super) async fn open(
        socket: &Path,
        server: u32,
    ) -> Result<(Self, Notifications), ControlError> {
        let opening = async {
            let stream = UnixStream::connect(socket).await?;
            // Otherwise, a process that can put a socket there could get our peers' mail.
            let found = stream.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok());
            if found != Some(server) {
                return Err(ControlError::Stranger { found, expected: server });
            }
            let (socket, _) = client_async("ws://localhost/", stream).await?;
            let (questions, asked) = mpsc::channel(16);
            let (tell, notes) = mpsc::unbounded_channel();
            tokio::spawn(serve(socket, asked, tell));
            let control = Self { questions };
            let about_us = json!({
                "clientInfo": { "name": "peerd", "version": env!("CARGO_PKG_VERSION") },
                "capabilities": { "experimentalApi": true, "optOutNotificationMethods": UNWANTED },
            });
            control.ask("initialize", about_us).await?;
            control.tell("initialized").await?;
            Ok((control, notes))
        };
        within_patience(opening).await
    }

    /// Sends a request, and waits for the answer.
    pub(crate) async fn ask(
        &self,
        method: &'static str,
        params: Value,
    ) -> Result<Value, ControlError> {
        let (answer, answered) = oneshot::channel();
        let asking = async {
            self.questions
                .send(ControlRequest { method, params, answer })
                .await
                .map_err(|_| ControlError::Closed)?;
            answered.await.unwrap_or(Err(ControlError::Closed))
        };
        within_patience(asking).await
    }

    /// Sends a notification.
    async fn tell(&self, method: &'static str) -> Result<(), ControlError> {
        let (answer, _) = oneshot::channel();
        self.questions
            .send(ControlRequest { method, params: Value::Null, answer })
            .await
            .map_err(|_| ControlError::Closed)
    }

    /// Whether the connection is open, as far as known.
    pub(crate) fn is_open(&self) -> bool {
        !self.questions.is_closed()
    }
}

async fn within_patience<T>(
    attempt: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, ControlError> {
    tokio::time::timeout(Duration::from_millis(PATIENCE_MS), attempt)
        .await
        .unwrap_or(Err(ControlError::Silent))
}

/// Forwards requests and sorts incoming messages, until either end closes. Dropping the answers
/// then wakes the waiting callers.
async fn serve(
    mut socket: WebSocketStream<UnixStream>,
    mut asked: mpsc::Receiver<ControlRequest>,
    tell: mpsc::UnboundedSender<(String, Value)>,
) {
    let mut waiting: HashMap<u64, (&'static str, PendingReply)> = HashMap::new();
    let mut last = 0_u64;
    loop {
        tokio::select! {
            question = asked.recv() => {
                let Some(ControlRequest { method, params, answer }) = question else { break };
                let mut request = json!({ "method": method });
                if !params.is_null() {
                    last += 1;
                    request["id"] = last.into();
                    request["params"] = params;
                    waiting.retain(|_, (_, answer)| !answer.is_closed());
                    waiting.insert(last, (method, answer));
                }
                if socket.send(Message::text(request.to_string())).await.is_err() {
                    break;
                }
            }
            message = socket.next() => {
                let text = match message {
                    Some(Ok(Message::Text(text))) => text,
                    // The library answers pings.
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                };
                let Ok(mut message) = serde_json::from_str::<Value>(&text) else { continue };
                match (message["method"].as_str(), message["id"].as_u64()) {
                    (Some(method), None) => {
                        let method = method.to_owned();
                        // A caller without interest in notifications has dropped the receiver.
                        let _ = tell.send((method, message["params"].take()));
                    }
                    (None, Some(id)) => {
                        if let Some((method, answer)) = waiting.remove(&id) {
                            // The caller may have stopped waiting.
                            let _ = answer.send(outcome(method, &mut message));
                        }
                    }
                    // A request to the person, or no valid message.
                    _ => {}
                }
            }
        }
    }
    // The server may have ended already.
    let _ = socket.close(None).await;
}

fn outcome(method: &'static str, message: &mut Value) -> Result<Value, ControlError> {
    match message["error"]["message"].as_str() {
        Some(refusal) => {
            Err(ControlError::Refused { method, message: crate::render::sentence(refusal) })
        }
        None => Ok(message["result"].take()),
    }
}

impl From<tungstenite::Error> for ControlError {
    fn from(error: tungstenite::Error) -> Self {
        Self::Socket(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;
    use tokio_tungstenite::accept_async;

    use super::*;

    fn text(message: Value) -> Message {
        Message::text(message.to_string())
    }

    /// A server that answers `fine` with its parameters, refuses `bad`, and hangs up on `leave`.
    async fn serve_one(listener: UnixListener) {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(said) = message else { continue };
            let asked: Value = serde_json::from_str(&said).unwrap();
            let id = &asked["id"];
            match asked["method"].as_str().unwrap() {
                "initialize" => socket.send(text(json!({ "id": id, "result": {} }))).await.unwrap(),
                "initialized" => {
                    socket
                        .send(text(json!({ "method": "thread/started", "params": { "a": 1 } })))
                        .await
                        .unwrap();
                    // A request to the person: no code here answers it.
                    socket
                        .send(text(json!({ "id": 7, "method": "approve?", "params": {} })))
                        .await
                        .unwrap();
                    socket.send(Message::text("no JSON")).await.unwrap();
                }
                "fine" => {
                    socket.send(text(json!({ "id": id, "result": asked["params"] }))).await.unwrap()
                }
                "bad" => {
                    let error = json!({ "code": -32600, "message": "no active turn to steer" });
                    socket.send(text(json!({ "id": id, "error": error }))).await.unwrap();
                }
                _ => return,
            }
        }
    }

    #[tokio::test]
    async fn questions_are_answered_and_what_comes_unasked_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let server = tokio::spawn(serve_one(UnixListener::bind(&path).unwrap()));
        let (control, mut notes) = Control::open(&path, std::process::id()).await.unwrap();
        assert_eq!(control.ask("fine", json!({ "x": "y" })).await.unwrap(), json!({ "x": "y" }));
        let refused = control.ask("bad", json!({})).await.unwrap_err();
        assert_eq!(refused.to_string(), "codex refused bad: \"no active turn to steer\"");
        assert_eq!(notes.recv().await, Some(("thread/started".to_owned(), json!({ "a": 1 }))));
        assert!(control.is_open());
        assert!(matches!(control.ask("leave", json!({})).await, Err(ControlError::Closed)));
        assert_eq!(notes.recv().await, None);
        assert!(!control.is_open());
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_stranger_behind_the_socket_is_told_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let error = Control::open(&path, std::process::id() + 1).await.unwrap_err();
        assert!(matches!(error, ControlError::Stranger { .. }), "{error}");
        drop(listener);
        assert!(matches!(Control::open(&path, std::process::id()).await, Err(ControlError::Io(_))));
    }
}
