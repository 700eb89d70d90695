//! One connection to the broker: requests out, answers and pushes in.
//!
//! Two tasks serve it. One writes what [`Connection::submit`] queued, everything that is queued in
//! one flush; the other reads frames, matches replies to requests by id and passes pushes on.
//! Neither waits for the other, and the reader never waits for whoever takes the pushes: the broker
//! bounds those by its lease window, so the queue of pushes needs no bound of its own.
//!
//! The invariant: every request gets exactly one outcome. What is unanswered when the socket ends
//! is
//! [`RequestError::Lost`]: it may or may not have been done, and a send is repeated under its idempotency key.

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

/// How long a broker may be silent before it is looked whether its process is suspended, in
/// milliseconds.
const SUSPICION_MS: u64 = 1_000;

/// A frame that cannot be read is answered under this id: no request has it.
const NO_REQUEST: RequestId = 0;

/// A connection to the broker. A handle: clones share the connection, which closes when the last of
/// them and the last unanswered [`Answer`] are dropped.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<Shared>,
}

/// What the broker sends unasked, in order.
pub struct Pushes {
    receiver: mpsc::UnboundedReceiver<Push>,
}

/// The answer to one request, to come.
pub struct Answer {
    id: RequestId,
    outcome: oneshot::Receiver<Result<Reply, RequestError>>,
    /// Keeps the connection open until the answer is there.
    _shared: Arc<Shared>,
}

/// Why a request has no reply: what was tried and why it failed. The next step is
/// [`RequestError::hint`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The broker said no.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The connection ended before the answer. Whether it was done is unknown: repeat a send under
    /// its idempotency key.
    #[error("the connection to the broker ended before it answered")]
    Lost,
    /// Larger than a frame can be.
    #[error("a request of {bytes} bytes does not fit into a frame of {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The encoder refused the request.
    #[error("the request cannot be encoded")]
    NotEncodable,
    /// A reply of another kind than the request has.
    #[error("the broker answered with a reply of another kind")]
    Unexpected,
}

impl RequestError {
    /// The next step; empty where there is none.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Lost => "try again, a send under the same idempotency key".to_owned(),
            Self::TooLarge { .. } => "send less at once".to_owned(),
            Self::NotEncodable => "this is a defect of peerctl".to_owned(),
            Self::Unexpected => {
                "`peerctl daemon restart` makes both ends the same version".to_owned()
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
    /// The broker's process by the kernel's word, where that says anything here.
    broker: Option<u32>,
}

/// What the reading task fills, shared with the handles. It does not hold the sending side, so that
/// the reader alone does not keep a connection open.
struct Incoming {
    waiting: Mutex<Waiting>,
    goodbye: Arc<OnceLock<Goodbye>>,
}

/// Requests without an answer.
enum Waiting {
    Open(HashMap<RequestId, oneshot::Sender<Result<Reply, RequestError>>>),
    /// The socket ended: whoever asks now hears it at once, with the broker's last word where it
    /// had one, because repeating the same frame would not help.
    Ended(Option<Refusal>),
}

impl Connection {
    /// Connects, after starting the broker where none runs and the endpoint allows it; exchanges
    /// prefaces; says `Hello`.
    ///
    /// # Errors
    /// See [`ConnectError`]. Nothing is spawned unless the socket is missing, nobody listens on it,
    /// or whoever does says nothing.
    pub async fn open(
        endpoint: &Endpoint,
        role: Role,
        seat: Option<Seat>,
    ) -> Result<(Self, Pushes, Welcome), ConnectError> {
        match reach(endpoint, role, seat.clone()).await {
            // A broker that dies takes connections until the last moment and then closes them
            // without a word.
            Err(ConnectError::NotRunning { .. } | ConnectError::NoWelcome { .. })
                if endpoint.start == Start::IfNeeded =>
            {
                start::start_broker(endpoint).await?;
                reach(endpoint, role, seat).await
            }
            outcome => outcome,
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn request(&self, request: Request) -> Result<Reply, RequestError> {
        self.submit(request).await
    }

    /// Puts the request into the socket's queue now, in order, and returns the answer to come.
    /// Dropping the answer does not take the request back.
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
        // Fails only once the writer is gone; then the reader ends too and reports the loss.
        let _ = self.shared.outgoing.send(Bytes::from(payload));
        answer
    }

    /// Whether the socket is still open, as far as it was noticed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !*self.shared.ended.borrow()
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) {
        let mut ended = self.shared.ended.clone();
        // An error means that the reading task is gone, which is an end as well.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// The broker's process, if it is suspended: it will answer nothing until it goes on.
    #[must_use]
    pub fn suspended_broker(&self) -> Option<u32> {
        self.shared.broker.filter(|pid| process::is_suspended(*pid))
    }

    /// Why the broker ended the connection, where it said so.
    #[must_use]
    pub fn goodbye(&self) -> Option<Goodbye> {
        self.shared.inbox.goodbye.get().copied()
    }

    /// Where the goodbye will stand, for whoever outlives the connection.
    pub(crate) fn goodbye_slot(&self) -> Arc<OnceLock<Goodbye>> {
        Arc::clone(&self.shared.inbox.goodbye)
    }
}

impl Pushes {
    /// The next push; `None` once the connection has ended and all pushes were taken.
    pub async fn next(&mut self) -> Option<Push> {
        self.receiver.recv().await
    }

    /// The next push, if one has arrived already.
    pub fn try_next(&mut self) -> Option<Push> {
        self.receiver.try_recv().ok()
    }
}

impl Answer {
    /// The request's id within its connection, as [`Request::StopWaiting`] wants it.
    #[must_use]
    pub fn id(&self) -> RequestId {
        self.id
    }
}

impl Future for Answer {
    type Output = Result<Reply, RequestError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The sender is dropped unused only where the connection's tasks were ended with their
        // runtime.
        Pin::new(&mut self.outcome)
            .poll(context)
            .map(|outcome| outcome.unwrap_or(Err(RequestError::Lost)))
    }
}

/// Connects to a broker that runs and greets it, within a time.
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
        // A broker holds its lock for life: where nobody does, it is none that listens here, and
        // waiting is no use.
        if holder::look(&endpoint.location).is_none() {
            let process = broker.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            let what = format!(
                "is no broker{process}: it listens there, says nothing, and does not hold broker.lock"
            );
            return Err(ConnectError::NoWelcome { socket, what });
        }
    }
    Err(ConnectError::NoWelcome {
        socket,
        what: "accepted the connection and then said nothing".to_owned(),
    })
}

/// Connects to the socket, if it and what is behind it are ours.
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
        .map_err(|source| io_error("asking who is behind", &socket, source))?
        .uid();
    if owner != ours {
        return Err(ConnectError::WrongOwner { path: socket, owner, ours });
    }
    Ok(stream)
}

/// The process that listens. One in another pid namespace has the number 0 here.
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

/// Only "nothing there" and "nobody listens" mean that no broker runs. "Not permitted" says nothing
/// about it: a sandbox that hides the socket would otherwise have a second broker started.
fn io_error(attempt: &'static str, socket: &Path, source: io::Error) -> ConnectError {
    let socket = socket.to_path_buf();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ConnectError::NotRunning { socket }
        }
        // A sandbox only where owners and modes would have let us pass.
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

/// Prefaces, then `Hello`; on success the two tasks run.
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
            what: "answered Hello with something else".to_owned(),
        }),
        Err(RequestError::Refused(refusal)) => Err(ConnectError::Refused(refusal)),
        Err(_) => Err(ConnectError::NoWelcome {
            socket,
            what: "closed the connection before it said welcome".to_owned(),
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
            what: "closed the connection before it said who it is".to_owned(),
        },
        _ => ConnectError::Io { attempt: "greeting the broker behind", socket, source },
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

/// Both directions use the same framing.
fn framing() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .length_field_length(HEADER_BYTES)
        .little_endian()
        .max_frame_length(FRAME_BYTES_MAX)
        .new_codec()
}

/// Writes what is queued until nobody can queue more or the socket fails. Dropping the write half
/// then tells the broker that this end is done; a failure is told to the requests by the reader,
/// whose half ends with the same socket.
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

/// Reads until the socket ends or says what nobody understands; returns the refusal that came with
/// the end, if any.
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
                // Whoever wants no pushes has dropped the receiver.
                let _ = pushes.send(push);
            }
        }
    }
    None
}

impl Incoming {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing is done under this lock that could leave the map half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, id: RequestId, result: Result<Reply, Refusal>) {
        let sender = match &mut *self.lock() {
            Waiting::Open(waiting) => waiting.remove(&id),
            Waiting::Ended(_) => None,
        };
        if let Some(sender) = sender {
            // Whoever asked may have stopped waiting.
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
