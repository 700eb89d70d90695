//! Tests the client against a broker's end of the socket that the test plays byte by byte.

use std::os::unix::fs::symlink;
use std::path::Path;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use peer_client::{ConnectError, Connection, Endpoint, Pushes, Reconnect, RequestError, Start};
use peer_proto::codec::{self, HEADER_BYTES};
use peer_proto::handshake::{FIXED_BYTES, Preface};
use peer_proto::limits::FRAME_BYTES_MAX;
use peer_proto::location::Location;
use peer_proto::refusal::{ErrorCode, Refusal};
use peer_proto::request::{
    Authority, ClientFrame, Goodbye, Push, Reply, Request, RequestId, Role, ServerFrame, Welcome,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// A state directory with its endpoint. The executable must not be run: it is a file without the
/// permission to execute. A missing file would not do, because a start then looks for another
/// peerctl, and may find the user's.
struct Place {
    endpoint: Endpoint,
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let location = Location::resolve(Some(dir.path()), None).unwrap();
        let executable = dir.path().join("peerctl");
        std::fs::write(&executable, "").unwrap();
        Self { endpoint: Endpoint { location, executable, start: Start::Never }, dir }
    }

    fn listen(&self) -> UnixListener {
        UnixListener::bind(self.endpoint.location.socket()).unwrap()
    }

    async fn open(&self) -> Result<(Connection, Pushes, Welcome), ConnectError> {
        Connection::open(&self.endpoint, Role::Adapter, None).await
    }

    /// Both ends of a greeted connection.
    async fn greeted(&self, listener: &UnixListener) -> (Connection, Pushes, BrokerEnd) {
        let (opened, end) = tokio::join!(self.open(), BrokerEnd::greet(listener));
        let (connection, pushes, welcome) = opened.unwrap();
        assert_eq!(welcome.pid, 7);
        (connection, pushes, end)
    }
}

/// The broker's end of one connection.
struct BrokerEnd {
    frames: Framed<UnixStream, LengthDelimitedCodec>,
}

impl BrokerEnd {
    async fn greet(listener: &UnixListener) -> Self {
        let mut end = Self::exchange_prefaces(listener).await;
        let hello = end.next().await.unwrap();
        assert!(matches!(hello.request, Request::Hello(_)));
        let welcome = Welcome {
            version: "0.0.0".into(),
            executable: "/x".into(),
            pid: 7,
            authority: Authority::Session,
        };
        end.reply(hello.id, Ok(Reply::Welcome(welcome))).await;
        end
    }

    async fn exchange_prefaces(listener: &UnixListener) -> Self {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&Preface::ours("/broker").encode()).await.unwrap();
        let mut fixed = [0; FIXED_BYTES];
        stream.read_exact(&mut fixed).await.unwrap();
        let (_, rest) = Preface::decode_fixed(&fixed).unwrap();
        stream.read_exact(&mut vec![0; rest]).await.unwrap();
        let framing = LengthDelimitedCodec::builder()
            .length_field_length(HEADER_BYTES)
            .little_endian()
            .max_frame_length(FRAME_BYTES_MAX)
            .new_codec();
        Self { frames: Framed::new(stream, framing) }
    }

    /// The next request; `None` once the client has closed the connection.
    async fn next(&mut self) -> Option<ClientFrame> {
        let payload = self.frames.next().await?.unwrap();
        Some(codec::decode(&payload).unwrap())
    }

    async fn reply(&mut self, id: RequestId, result: Result<Reply, Refusal>) {
        self.say(&ServerFrame::Reply { id, result }).await;
    }

    async fn say(&mut self, frame: &ServerFrame) {
        self.frames.send(Bytes::from(codec::encode(frame).unwrap())).await.unwrap();
    }
}

fn no(code: ErrorCode) -> Refusal {
    Refusal { code, message: "no".into(), hint: String::new(), retry_after_ms: None }
}

#[tokio::test]
async fn answers_find_their_requests_whatever_their_order() {
    let place = Place::new();
    let listener = place.listen();
    let (connection, _pushes, mut end) = place.greeted(&listener).await;
    let first = connection.submit(Request::Kick("a".into()));
    let second = connection.submit(Request::Status);
    let (one, two) = (end.next().await.unwrap(), end.next().await.unwrap());
    assert_eq!(
        (one.id, two.id),
        (first.id(), second.id()),
        "requests leave in the order in which they were submitted"
    );
    end.reply(two.id, Ok(Reply::Done)).await;
    end.reply(one.id, Err(no(ErrorCode::UnknownPeer))).await;
    assert_eq!(second.await, Ok(Reply::Done));
    assert_eq!(first.await, Err(RequestError::Refused(no(ErrorCode::UnknownPeer))));
}

#[tokio::test]
async fn what_is_unanswered_when_the_socket_ends_is_lost() {
    let place = Place::new();
    let listener = place.listen();
    let (connection, mut pushes, end) = place.greeted(&listener).await;
    let (one, two) = (connection.submit(Request::Status), connection.submit(Request::Status));
    drop(end);
    assert_eq!(one.await, Err(RequestError::Lost));
    assert_eq!(two.await, Err(RequestError::Lost));
    connection.closed().await;
    assert!(!connection.is_open());
    assert_eq!(
        connection.request(Request::Status).await,
        Err(RequestError::Lost),
        "also what is asked afterwards"
    );
    assert_eq!(pushes.next().await, None);
}

#[tokio::test]
async fn pushes_that_nobody_takes_do_not_hold_back_answers() {
    let place = Place::new();
    let listener = place.listen();
    let (connection, mut pushes, mut end) = place.greeted(&listener).await;
    let answer = connection.submit(Request::Status);
    let request = end.next().await.unwrap();
    // More than any socket buffer takes.
    let notice = "n".repeat(64 * 1024);
    for _ in 0..64 {
        end.say(&ServerFrame::Push(Push::Notice(notice.clone()))).await;
    }
    end.reply(request.id, Ok(Reply::Done)).await;
    assert_eq!(answer.await, Ok(Reply::Done));
    for _ in 0..64 {
        assert_eq!(pushes.next().await, Some(Push::Notice(notice.clone())));
    }
}

#[tokio::test]
async fn a_frame_that_the_broker_cannot_read_fails_with_its_reason() {
    let place = Place::new();
    let listener = place.listen();
    let (connection, _pushes, mut end) = place.greeted(&listener).await;
    let answer = connection.submit(Request::Status);
    end.next().await.unwrap();
    end.reply(0, Err(no(ErrorCode::BadFrame))).await;
    assert_eq!(answer.await, Err(RequestError::Refused(no(ErrorCode::BadFrame))));
}

#[tokio::test]
async fn a_request_too_large_for_a_frame_leaves_the_connection_alone() {
    let place = Place::new();
    let listener = place.listen();
    let (connection, _pushes, _end) = place.greeted(&listener).await;
    let outcome = connection.request(Request::Kick("k".repeat(FRAME_BYTES_MAX))).await;
    assert!(matches!(outcome, Err(RequestError::TooLarge { .. })), "{outcome:?}");
    assert!(connection.is_open());
}

#[tokio::test]
async fn the_socket_closes_with_the_last_handle_but_not_before_the_last_answer() {
    let place = Place::new();
    let listener = place.listen();
    let (connection, _pushes, mut end) = place.greeted(&listener).await;
    let answer = connection.submit(Request::Status);
    drop(connection);
    let request = end.next().await.unwrap();
    end.reply(request.id, Ok(Reply::Done)).await;
    assert_eq!(answer.await, Ok(Reply::Done));
    assert_eq!(end.next().await, None);
}

#[tokio::test]
async fn nobody_there_and_nobody_listening_both_mean_that_no_broker_runs() {
    let place = Place::new();
    assert!(matches!(place.open().await, Err(ConnectError::NotRunning { .. })));
    drop(place.listen());
    assert!(
        matches!(place.open().await, Err(ConnectError::NotRunning { .. })),
        "a socket that nobody listens on"
    );
}

#[tokio::test]
async fn what_is_no_socket_of_a_directory_of_ours_is_refused() {
    let place = Place::new();
    std::fs::write(place.endpoint.location.socket(), "").unwrap();
    assert!(matches!(place.open().await, Err(ConnectError::WrongKind { expected: "socket", .. })));
    std::fs::remove_file(place.endpoint.location.socket()).unwrap();
    let elsewhere = Place::new();
    let _listener = elsewhere.listen();
    symlink(elsewhere.endpoint.location.socket(), place.endpoint.location.socket()).unwrap();
    assert!(matches!(place.open().await, Err(ConnectError::WrongKind { expected: "socket", .. })));
    let link = place.dir.path().join("link");
    symlink(elsewhere.dir.path(), &link).unwrap();
    let endpoint = Endpoint { location: at(&link), ..place.endpoint.clone() };
    let opened = Connection::open(&endpoint, Role::Adapter, None).await;
    assert!(matches!(opened, Err(ConnectError::WrongKind { expected: "directory", .. })));
}

fn at(dir: &Path) -> Location {
    Location::resolve(Some(dir), None).unwrap()
}

#[tokio::test]
async fn a_broker_of_another_version_is_named_with_its_executable() {
    let place = Place::new();
    let listener = place.listen();
    let strange = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let preface =
            Preface { min: 900, max: 901, features: 0, software: "9.0.0 /new/peerctl".into() };
        stream.write_all(&preface.encode()).await.unwrap();
        stream
    };
    let (opened, _stream) = tokio::join!(place.open(), strange);
    let Err(error) = opened else { panic!("the versions do not meet") };
    assert!(error.is_lasting());
    let text = error.to_string();
    assert!(
        text.contains("/new/peerctl") && text.contains(place.endpoint.executable.to_str().unwrap()),
        "{text}"
    );
}

#[tokio::test]
async fn a_broker_that_hangs_up_before_the_welcome_is_told_from_none() {
    let place = Place::new();
    let listener = place.listen();
    let (opened, ()) = tokio::join!(place.open(), async { drop(listener.accept().await.unwrap()) });
    assert!(matches!(opened, Err(ConnectError::NoWelcome { .. })));
    let (opened, ()) =
        tokio::join!(place.open(), async { drop(BrokerEnd::exchange_prefaces(&listener).await) });
    assert!(matches!(opened, Err(ConnectError::NoWelcome { .. })));
}

#[tokio::test]
async fn a_start_that_fails_says_what_was_run() {
    let mut place = Place::new();
    place.endpoint.start = Start::IfNeeded;
    let Err(ConnectError::StartFailed { message, .. }) = place.open().await else {
        panic!("nothing can be started")
    };
    assert!(message.contains(place.endpoint.executable.to_str().unwrap()), "{message}");
}

#[tokio::test]
async fn after_a_loss_there_is_a_next_connection_and_after_a_kick_there_is_none() {
    let place = Place::new();
    let listener = place.listen();
    let mut reconnect = Reconnect::new(place.endpoint.clone(), Role::Adapter);
    let (opened, end) = tokio::join!(reconnect.next(), BrokerEnd::greet(&listener));
    let (connection, _pushes, _) = opened.unwrap();
    drop(end);
    connection.closed().await;
    let (opened, mut end) = tokio::join!(reconnect.next(), BrokerEnd::greet(&listener));
    let (connection, mut pushes, _) = opened.unwrap();
    end.say(&ServerFrame::Push(Push::Goodbye(Goodbye::Kicked))).await;
    drop(end);
    assert_eq!(pushes.next().await, Some(Push::Goodbye(Goodbye::Kicked)));
    connection.closed().await;
    assert_eq!(connection.goodbye(), Some(Goodbye::Kicked));
    for _ in 0..2 {
        assert!(
            matches!(reconnect.next().await, Err(ConnectError::SentAway(Goodbye::Kicked))),
            "again and again"
        );
    }
}

#[tokio::test]
async fn a_broker_that_was_stopped_is_not_started_again_at_once() {
    let mut place = Place::new();
    place.endpoint.start = Start::IfNeeded;
    let listener = place.listen();
    let mut reconnect = Reconnect::new(place.endpoint.clone(), Role::Adapter);
    let (opened, mut end) = tokio::join!(reconnect.next(), BrokerEnd::greet(&listener));
    let (connection, _pushes, _) = opened.unwrap();
    end.say(&ServerFrame::Push(Push::Goodbye(Goodbye::Stopping))).await;
    drop((end, listener));
    connection.closed().await;
    assert!(
        matches!(reconnect.next().await, Err(ConnectError::NotRunning { .. })),
        "nothing was run"
    );
    reconnect.hurry();
    assert!(
        matches!(reconnect.next().await, Err(ConnectError::StartFailed { .. })),
        "whoever needs it starts it"
    );
}
