//! Codex's control socket: JSON-RPC, one object per WebSocket message, over a Unix socket of the user's own.
//!
//! Knows how to ask and how to hear. Does not know what the questions mean. Invariants: only a server that is this
//! adapter's own client is spoken to; a question waits for its answer for a bounded time; what the server asks of its
//! clients, such as an approval, is the person's to answer, and never answered here.

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

/// Under Codex's own directory.
pub(super) const SOCKET: &str = "app-server-control/app-server-control.sock";

/// How long connecting, and each question, may take, in milliseconds. A server that works answers within a few.
const PATIENCE_MS: u64 = 3_000;

/// Notifications of no use here, which the server then does not send.
const UNWANTED: [&str; 2] = ["remoteControl/status/changed", "skills/changed"];

/// A connection to the server. Ends with its last clone.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    questions: mpsc::Sender<Question>,
}

/// What the server tells unasked: the method and its parameters. Ends with the connection.
pub(super) type Notes = mpsc::UnboundedReceiver<(String, Value)>;

/// Why the server gave no answer.
#[derive(Debug, Error)]
pub(crate) enum ControlError {
    /// It cannot be reached.
    #[error("reaching codex's control socket: {0}")]
    Io(#[from] std::io::Error),
    /// It speaks no WebSocket, or stopped speaking it.
    #[error("speaking with codex's control socket: {0}")]
    Socket(Box<tungstenite::Error>),
    /// Another process listens than the one that started this adapter.
    #[error("codex's control socket belongs to process {found:?}, and this session to process {expected}")]
    Stranger {
        /// Who listens.
        found: Option<u32>,
        /// Who should.
        expected: u32,
    },
    /// The connection has ended.
    #[error("codex's control socket was closed")]
    Closed,
    /// Nothing came.
    #[error("codex's control socket did not answer within {} s", PATIENCE_MS / 1_000)]
    Silent,
    /// The server said no.
    #[error("codex refused {method}: {message}")]
    Refused {
        /// What was asked.
        method: &'static str,
        /// Its reason.
        message: String,
    },
}

type Answer = oneshot::Sender<Result<Value, ControlError>>;

struct Question {
    method: &'static str,
    params: Value,
    answer: Answer,
}

impl Control {
    /// Connects to the server behind `socket`, which must be the process `server`, and introduces us.
    pub(super) async fn open(socket: &Path, server: u32) -> Result<(Self, Notes), ControlError> {
        let opening = async {
            let stream = UnixStream::connect(socket).await?;
            // Whoever can put a socket there could otherwise have our peers' mail.
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

    /// Asks, and waits for the answer.
    pub(crate) async fn ask(&self, method: &'static str, params: Value) -> Result<Value, ControlError> {
        let (answer, answered) = oneshot::channel();
        let asking = async {
            self.questions.send(Question { method, params, answer }).await.map_err(|_| ControlError::Closed)?;
            answered.await.unwrap_or(Err(ControlError::Closed))
        };
        within_patience(asking).await
    }

    /// Says something that has no answer.
    async fn tell(&self, method: &'static str) -> Result<(), ControlError> {
        let (answer, _) = oneshot::channel();
        self.questions.send(Question { method, params: Value::Null, answer }).await.map_err(|_| ControlError::Closed)
    }

    /// Whether the connection is there, as far as it was noticed.
    pub(crate) fn is_open(&self) -> bool {
        !self.questions.is_closed()
    }
}

async fn within_patience<T>(attempt: impl Future<Output = Result<T, ControlError>>) -> Result<T, ControlError> {
    tokio::time::timeout(Duration::from_millis(PATIENCE_MS), attempt).await.unwrap_or(Err(ControlError::Silent))
}

/// Passes questions on and sorts what comes, until either end is gone. Dropping the answers then tells those who wait.
async fn serve(
    mut socket: WebSocketStream<UnixStream>,
    mut asked: mpsc::Receiver<Question>,
    tell: mpsc::UnboundedSender<(String, Value)>,
) {
    let mut waiting: HashMap<u64, (&'static str, Answer)> = HashMap::new();
    let mut last = 0_u64;
    loop {
        tokio::select! {
            question = asked.recv() => {
                let Some(Question { method, params, answer }) = question else { break };
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
                    // Pings are answered by the library.
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                };
                let Ok(mut message) = serde_json::from_str::<Value>(&text) else { continue };
                match (message["method"].as_str(), message["id"].as_u64()) {
                    (Some(method), None) => {
                        let method = method.to_owned();
                        // Whoever wants no notifications has dropped the receiver.
                        let _ = tell.send((method, message["params"].take()));
                    }
                    (None, Some(id)) => {
                        if let Some((method, answer)) = waiting.remove(&id) {
                            // Whoever asked may have stopped waiting.
                            let _ = answer.send(outcome(method, &mut message));
                        }
                    }
                    // A question to the person, or nonsense.
                    _ => {}
                }
            }
        }
    }
    // The server may be gone already.
    let _ = socket.close(None).await;
}

fn outcome(method: &'static str, message: &mut Value) -> Result<Value, ControlError> {
    match message["error"]["message"].as_str() {
        Some(refusal) => Err(ControlError::Refused { method, message: crate::render::sentence(refusal) }),
        None => Ok(message["result"].take()),
    }
}

impl From<tungstenite::Error> for ControlError {
    fn from(error: tungstenite::Error) -> Self {
        Self::Socket(Box::new(error))
    }
}
