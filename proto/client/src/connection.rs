//! One connection to the broker: sends requests, and receives replies and pushes.
//!
//! Knows frames and request ids. Does not know what a request means. Two async tasks serve the
//! connection. One writes everything that [`Connection::submit`] queued, in one flush. The other
//! reads frames, matches replies to requests by id, and queues pushes. Neither waits for the other,
//! and the reader waits for no consumer of pushes. The broker's lease window bounds the queue of
//! pushes.
//!
//! Invariant: every request gets exactly one outcome. A request without a reply when the socket
//! ends is [`RequestError::Lost`]: it may or may not have been carried out. A send is then repeated
//! with its idempotency key.
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use peer_proto::codec::{self, EncodeError, HEADER_BYTES};
use peer_proto::handshake::{FIXED_BYTES, Preface};
use peer_proto::limits::{FRAME_BYTES_MAX, HELLO_TIMEOUT_MS};
use peer_proto::refusal::Refusal;
use peer_proto::request::{
    ClientFrame, Goodbye, Hello, Push, Reply, Request, RequestId, Role, Seat, ServerFrame, Welcome,
};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use crate::whose::Barrier;
use crate::{ConnectError, Endpoint, Start, holder, process, start, whose};

/// Milliseconds without an answer after which the client checks whether the broker's process is
/// suspended.
const SUSPICION_MS: u64 = 1_000;

/// The id of the reply to a frame that the broker cannot read: no request has it.
const NO_REQUEST: RequestId = 0;

/// A connection to the broker. Clones share the connection. It closes when all of them and all
/// unanswered [`Answer`]s are dropped.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

/// The pushes of the broker, in order.
pub struct Pushes {
    receiver: mpsc::UnboundedReceiver<Push>,
}

/// The reply to one request, to be awaited.
pub struct Answer {
    id: RequestId,
    outcome: oneshot::Receiver<Result<Reply, RequestError>>,
    /// Keeps the connection open until the reply is there.
    _shared: Arc<Shared>,
}

/// Why a request has no reply: the attempt, its object and the obstacle. The next step is
/// [`RequestError::hint`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The broker refused the request.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The connection ended before the reply. It is not known whether the request was carried out:
    /// repeat a send with its idempotency key.
    #[error("the connection to the broker ended before it answered")]
    Lost,
    /// The request is larger than a frame can be.
    #[error("a request of {bytes} bytes does not fit into a frame of {FRAME_BYTES_MAX}")]
    TooLarge {
        /// The size of the request in bytes.
        bytes: usize,
    },
    /// The encoder refused the request.
    #[error("the request cannot be encoded")]
    NotEncodable,
    /// The reply is of a different kind than the request expects.
    #[error("the broker sent a reply of the wrong kind")]
    Unexpected,
}

impl RequestError {
    /// The next step; empty if none is known.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Lost => "try again, a send with the same idempotency key".to_owned(),
            Self::TooLarge { .. } => "send less at once".to_owned(),
            Self::NotEncodable => "this is a defect of peerctl".to_owned(),
            Self::Unexpected => {
                "`peerctl daemon restart` starts the broker in the version of this peerctl"
                    .to_owned()
            }
            Self::Refused(refusal) => refusal.hint.clone(),
        }
    }

    /// The error as a model reads it: it names no command, because a model calls tools.
    #[must_use]
    pub fn for_model(&self) -> String {
        match self {
            Self::Unexpected => format!("{self}; tell your user to restart the broker"),
            // The broker has worded it for its actor.
            Self::Refused(refusal) => refusal.to_string(),
            Self::Lost | Self::TooLarge { .. } | Self::NotEncodable => {
                format!("{self}; {}", self.hint())
            }
        }
    }
}

struct Shared {
    next_id: AtomicU64,
    outgoing: mpsc::UnboundedSender<Bytes>,
    inbox: Arc<Incoming>,
    ended: watch::Receiver<bool>,
    /// The broker's process, if the kernel reports it.
    broker: Option<u32>,
}

/// The state that the reading task fills, shared with the handles. It does not hold the sending
/// side, so that the reader alone does not keep a connection open.
struct Incoming {
    waiting: Mutex<Waiting>,
    goodbye: Arc<OnceLock<Goodbye>>,
}

/// Requests without a reply.
enum Waiting {
    Open(HashMap<RequestId, oneshot::Sender<Result<Reply, RequestError>>>),
    /// The socket ended. A new request fails at once, with the broker's last refusal if there was
    /// one, because the same frame would fail again.
    Ended(Option<Refusal>),
}

impl Connection {
    /// Connects, exchanges prefaces, and sends `Hello`. First starts the broker if none is running
    /// and the endpoint allows it.
    ///
    /// # Errors
    /// See [`ConnectError`]. A broker is started only if the socket is missing, nothing listens on
    /// it, or the listener does not answer.
    pub async fn open(
        endpoint: &Endpoint,
        role: Role,
        seat: Option<Seat>,
    ) -> Result<(Self, Pushes, Welcome), ConnectError> {
        match reach(endpoint, role, seat.clone()).await {
            // A broker that dies accepts connections until its end, and then closes them without an
            // answer.
            Err(ConnectError::NotRunning { .. } | ConnectError::NoWelcome { .. })
                if endpoint.start == Start::IfNeeded =>
            {
                start::start_broker(endpoint).await?;
                reach(endpoint, role, seat).await
            }
            outcome => outcome,
        }
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn request(&self, request: Request) -> Result<Reply, RequestError> {
        self.submit(request).await
    }

    /// Queues the request for the socket now, in order, and returns the reply to await. Dropping
    /// the reply does not withdraw the request.
    pub fn submit(&self, request: Request) -> Answer {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, outcome) = oneshot::channel();
        let answer = Answer { id, outcome, _shared: Arc::clone(&self.shared) };
        let payload = match codec::encode(&ClientFrame { id, request }) {
            Ok(payload) => payload,
            Err(error) => {
                let _ = sender.send(Err(match error {
                    EncodeError::TooLarge { bytes } => RequestError::TooLarge { bytes },
                    EncodeError::Value(_) => RequestError::NotEncodable,
                }));
                return answer;
            }
        };
        match &mut *self.shared.inbox.lock() {
            Waiting::Open(waiting) => {
                waiting.insert(id, sender);
            }
            Waiting::Ended(last_word) => {
                let _ = sender.send(Err(ended(last_word.clone())));
                return answer;
            }
        }
        // This fails only after the writer has ended. Then the reader ends too, and reports the
        // loss.
        let _ = self.shared.outgoing.send(Bytes::from(payload));
        answer
    }

    /// Whether the socket is open, as far as this end has noticed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !*self.shared.ended.borrow()
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) {
        let mut ended = self.shared.ended.clone();
        // An error means that the reading task has ended, which is an end as well.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// The broker's process, if it is suspended. It then answers nothing until it continues.
    #[must_use]
    pub fn suspended_broker(&self) -> Option<u32> {
        self.shared.broker.filter(|pid| process::is_suspended(*pid))
    }

    /// Why the broker ended the connection, if it sent a goodbye.
    #[must_use]
    pub fn goodbye(&self) -> Option<Goodbye> {
        self.shared.inbox.goodbye.get().copied()
    }

    /// The slot for the goodbye, for a holder that outlives the connection.
    pub(crate) fn goodbye_slot(&self) -> Arc<OnceLock<Goodbye>> {
        Arc::clone(&self.shared.inbox.goodbye)
    }
}

impl Pushes {
    /// Waits for the next push; `None` once the connection has ended and all pushes were taken.
    pub async fn next(&mut self) -> Option<Push> {
        self.receiver.recv().await
    }

    /// The next push, if one has already arrived.
    pub fn try_next(&mut self) -> Option<Push> {
        self.receiver.try_recv().ok()
    }
}

impl Answer {
    /// The request's id within its connection, for [`Request::StopWaiting`].
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.id
    }
}

impl Future for Answer {
    type Output = Result<Reply, RequestError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The sender is dropped unused only if the connection's async tasks ended with their
        // runtime.
        Pin::new(&mut self.outcome)
            .poll(context)
            .map(|outcome| outcome.unwrap_or(Err(RequestError::Lost)))
    }
}

/// Connects to a running broker and greets it, within a time limit.
async fn reach(
    endpoint: &Endpoint,
    role: Role,
    seat: Option<Seat>,
) -> Result<(Connection, Pushes, Welcome), ConnectError> {
    let stream = connect(endpoint).await?;
    let socket = endpoint.location.socket();
    let broker = broker_of(&stream);
    let mut greeting = std::pin::pin!(greet(stream, broker, endpoint, role, seat));
    for patience_ms in [SUSPICION_MS, HELLO_TIMEOUT_MS - SUSPICION_MS] {
        if let Ok(greeted) =
            tokio::time::timeout(Duration::from_millis(patience_ms), &mut greeting).await
        {
            return greeted;
        }
        if let Some(pid) = broker.filter(|pid| process::is_suspended(*pid)) {
            return Err(ConnectError::Suspended { socket, pid });
        }
        // A broker holds its lock for its life. If nothing holds the lock, the listener is not a
        // broker, and waiting is of no use.
        if holder::look(&endpoint.location).is_none() {
            let process = broker.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            let what = format!(
                "is not a broker{process}: it listens there, sends nothing, and does not hold broker.lock"
            );
            return Err(ConnectError::NoWelcome { socket, what });
        }
    }
    Err(ConnectError::NoWelcome {
        socket,
        what: "accepted the connection and then sent nothing".to_owned(),
    })
}

/// Connects to the socket, if the socket and its listener belong to this user.
async fn connect(endpoint: &Endpoint) -> Result<UnixStream, ConnectError> {
    let socket = endpoint.location.socket();
    let ours = nix::unistd::geteuid().as_raw();
    check_owner(endpoint.location.dir(), ours, &socket, Expected::Directory)?;
    check_owner(&socket, ours, &socket, Expected::Socket)?;
    let stream = UnixStream::connect(&socket)
        .await
        .map_err(|source| io_error("connecting to", &socket, source))?;
    let owner = stream
        .peer_cred()
        .map_err(|source| io_error("asking for the owner of the listener at", &socket, source))?
        .uid();
    if owner != ours {
        return Err(ConnectError::WrongOwner { path: socket, owner, ours });
    }
    Ok(stream)
}

/// The listening process. A process of another pid namespace has the number 0 here.
fn broker_of(stream: &UnixStream) -> Option<u32> {
    stream.peer_cred().ok()?.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0)
}

#[derive(Clone, Copy)]
enum Expected {
    Directory,
    Socket,
}

fn check_owner(
    path: &Path,
    ours: u32,
    socket: &Path,
    expected: Expected,
) -> Result<(), ConnectError> {
    let found = std::fs::symlink_metadata(path)
        .map_err(|source| io_error("looking for", socket, source))?;
    let (fits, name) = match expected {
        Expected::Directory => (found.is_dir(), "directory"),
        Expected::Socket => (found.file_type().is_socket(), "socket"),
    };
    if !fits {
        return Err(ConnectError::WrongKind { path: path.to_path_buf(), expected: name });
    }
    if found.uid() != ours {
        return Err(ConnectError::WrongOwner {
            path: path.to_path_buf(),
            owner: found.uid(),
            ours,
        });
    }
    Ok(())
}

/// Only "nothing there" and "nothing listens" mean that no broker is running. "Not permitted" does
/// not: a sandbox that hides the socket would otherwise cause a second broker.
fn io_error(attempt: &'static str, socket: &Path, source: io::Error) -> ConnectError {
    let socket = socket.to_path_buf();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ConnectError::NotRunning { socket }
        }
        // It is a sandbox only if owners and modes would permit the access.
        io::ErrorKind::PermissionDenied => match whose::barrier(&socket) {
            Some(Barrier { path, owner, mode }) => ConnectError::LockedOut {
                path,
                owner,
                mode,
                ours: nix::unistd::geteuid().as_raw(),
                socket,
            },
            None => ConnectError::Sandboxed { socket, source },
        },
        _ => ConnectError::Io { attempt, socket, source },
    }
}

/// Exchanges prefaces and sends `Hello`. On success the two async tasks run.
async fn greet(
    mut stream: UnixStream,
    broker: Option<u32>,
    endpoint: &Endpoint,
    role: Role,
    seat: Option<Seat>,
) -> Result<(Connection, Pushes, Welcome), ConnectError> {
    let socket = endpoint.location.socket();
    let executable = endpoint.executable.to_string_lossy().into_owned();
    let ours = Preface::ours(&executable);
    stream.write_all(&ours.encode()).await.map_err(|source| preface_error(&socket, source))?;
    let mut fixed = [0; FIXED_BYTES];
    stream.read_exact(&mut fixed).await.map_err(|source| preface_error(&socket, source))?;
    let refused = |source| ConnectError::Preface { socket: socket.clone(), source };
    let (mut theirs, software_bytes) = Preface::decode_fixed(&fixed).map_err(refused)?;
    let mut software = vec![0; software_bytes];
    stream.read_exact(&mut software).await.map_err(|source| preface_error(&socket, source))?;
    theirs.software = String::from_utf8_lossy(&software).into_owned();
    ours.agree(&theirs).map_err(refused)?;

    let (connection, pushes) = serve(stream, broker);
    let hello = Hello { role, version: env!("CARGO_PKG_VERSION").to_owned(), executable, seat };
    match connection.request(Request::Hello(hello)).await {
        Ok(Reply::Welcome(welcome)) => Ok((connection, pushes, welcome)),
        Ok(_) => Err(ConnectError::NoWelcome {
            socket,
            what: "answered Hello with a wrong reply".to_owned(),
        }),
        Err(RequestError::Refused(refusal)) => Err(ConnectError::Refused(refusal)),
        Err(_) => Err(ConnectError::NoWelcome {
            socket,
            what: "closed the connection before it answered Hello".to_owned(),
        }),
    }
}

fn preface_error(socket: &Path, source: io::Error) -> ConnectError {
    let socket = socket.to_path_buf();
    match source.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => ConnectError::NoWelcome {
            socket,
            what: "closed the connection before it sent its preface".to_owned(),
        },
        _ => ConnectError::Io { attempt: "greeting the broker at", socket, source },
    }
}

fn serve(stream: UnixStream, broker: Option<u32>) -> (Connection, Pushes) {
    let (reading, writing) = stream.into_split();
    let (outgoing, queued) = mpsc::unbounded_channel();
    let (push_sender, receiver) = mpsc::unbounded_channel();
    let (ended_sender, ended) = watch::channel(false);
    let inbox = Arc::new(Incoming {
        waiting: Mutex::new(Waiting::Open(HashMap::new())),
        goodbye: Arc::default(),
    });
    tokio::spawn(write(writing, queued));
    let incoming = Arc::clone(&inbox);
    tokio::spawn(async move {
        let last_word = read(reading, &incoming, &push_sender).await;
        incoming.end(last_word);
        drop(push_sender);
        let _ = ended_sender.send(true);
    });
    let shared = Arc::new(Shared {
        next_id: AtomicU64::new(NO_REQUEST + 1),
        outgoing,
        inbox,
        ended,
        broker,
    });
    (Connection { shared }, Pushes { receiver })
}

/// The framing of both directions.
fn framing() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .length_field_length(HEADER_BYTES)
        .little_endian()
        .max_frame_length(FRAME_BYTES_MAX)
        .new_codec()
}

/// Writes queued frames until no handle is left or the socket fails. Dropping the write half then
/// tells the broker that this end is done. After a failure, the reader fails the requests, because
/// its half ends with the same socket.
async fn write(writing: OwnedWriteHalf, mut queued: mpsc::UnboundedReceiver<Bytes>) {
    let mut frames = FramedWrite::new(writing, framing());
    while let Some(frame) = queued.recv().await {
        if frames.feed(frame).await.is_err() {
            return;
        }
        while let Ok(frame) = queued.try_recv() {
            if frames.feed(frame).await.is_err() {
                return;
            }
        }
        if SinkExt::<Bytes>::flush(&mut frames).await.is_err() {
            return;
        }
    }
}

/// Reads until the socket ends or a frame is unknown. Returns the refusal that came with the end,
/// if any.
async fn read(
    reading: OwnedReadHalf,
    incoming: &Incoming,
    pushes: &mpsc::UnboundedSender<Push>,
) -> Option<Refusal> {
    let mut frames = FramedRead::new(reading, framing());
    while let Some(Ok(payload)) = frames.next().await {
        let Ok(frame) = codec::decode::<ServerFrame>(&payload) else { return None };
        match frame {
            ServerFrame::Reply { id: NO_REQUEST, result: Err(refusal) } => return Some(refusal),
            ServerFrame::Reply { id, result } => incoming.answer(id, result),
            ServerFrame::Push(push) => {
                if let Push::Goodbye(goodbye) = &push {
                    let _ = incoming.goodbye.set(*goodbye);
                }
                // The receiver is dropped if no pushes are wanted.
                let _ = pushes.send(push);
            }
        }
    }
    None
}

impl Incoming {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing under this lock can leave the map half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, id: RequestId, result: Result<Reply, Refusal>) {
        let sender = match &mut *self.lock() {
            Waiting::Open(waiting) => waiting.remove(&id),
            Waiting::Ended(_) => None,
        };
        if let Some(sender) = sender {
            // The caller may have stopped waiting.
            let _ = sender.send(result.map_err(RequestError::Refused));
        }
    }

    fn end(&self, last_word: Option<Refusal>) {
        let before = std::mem::replace(&mut *self.lock(), Waiting::Ended(last_word.clone()));
        if let Waiting::Open(waiting) = before {
            for sender in waiting.into_values() {
                let _ = sender.send(Err(ended(last_word.clone())));
            }
        }
    }
}

fn ended(last_word: Option<Refusal>) -> RequestError {
    last_word.map_or(RequestError::Lost, RequestError::Refused)
}
