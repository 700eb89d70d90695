//! The shell with real sockets, threads and files: programs that send invalid data, nothing, or too
//! much, and the broker's start and end. The rules have their own tests in the core.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peer_proto::codec;
use peer_proto::handshake::{FIXED_BYTES, MAGIC, Preface};
use peer_proto::ids::{MessageId, PeerId};
use peer_proto::limits::{FRAME_BYTES_MAX, HELLO_BYTES_MAX, REQUESTS_IN_FLIGHT_MAX};
use peer_proto::location::Location;
use peer_proto::refusal::{ErrorCode, Refusal};
use peer_proto::request::{
    ClientFrame, Filter, Goodbye, Hello, HistoryQuery, PeersQuery, Push, Register, Registered,
    Reply, Request, RequestId, Resume, Role, Send, ServerFrame, Status, WatchEvent,
};

use super::*;

mod damage;
mod neighbours;

/// How long a test waits for an expected event before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A broker on a thread of its own, in a directory of its own.
struct Running {
    root: tempfile::TempDir,
    location: Location,
    thread: Option<JoinHandle<Result<(), RunError>>>,
}

impl Running {
    fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), PATIENCE)
    }

    fn start_in(root: tempfile::TempDir, timeout: Duration) -> Self {
        let location = location_in(root.path());
        let options = options(&location);
        let (ready, is_ready) = mpsc::channel();
        let thread =
            std::thread::spawn(move || run_with(options, timeout, || ready.send(()).unwrap()));
        if is_ready.recv_timeout(PATIENCE).is_err() {
            panic!("the broker did not start: {:?}", thread.join());
        }
        Self { root, location, thread: Some(thread) }
    }

    fn stream(&self) -> UnixStream {
        let stream = UnixStream::connect(self.location.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Opens a connection and completes its preface and `Hello`.
    fn connect(&self, role: Role) -> Wire {
        let mut wire = Wire::greeted(self.stream());
        match wire.ask(hello(role)) {
            Ok(Reply::Welcome(welcome)) => {
                assert_eq!((welcome.pid, &*welcome.executable), (std::process::id(), "/x/peerctl"))
            }
            other => panic!("no welcome: {other:?}"),
        }
        wire
    }

    fn session(&self, name: &str) -> (Wire, Registered) {
        let mut wire = self.connect(Role::Adapter);
        match wire.ask(register(name)) {
            Ok(Reply::Registered(registered)) => (wire, registered),
            other => panic!("not registered: {other:?}"),
        }
    }

    /// The session of this registration, on another connection.
    fn resumed(&self, name: &str, registered: &Registered) -> (Wire, Registered) {
        let Request::Register(register) = register(name) else {
            unreachable!("register registers")
        };
        let resume = Some(Resume { peer: registered.peer, token: registered.token });
        let mut wire = self.connect(Role::Adapter);
        match wire.ask(Request::Register(Register { resume, ..register })) {
            Ok(Reply::Registered(registered)) => (wire, registered),
            other => panic!("not resumed: {other:?}"),
        }
    }

    /// Removes the socket's path and waits for the end.
    fn end(mut self) -> tempfile::TempDir {
        let _ = fs::remove_file(self.location.socket());
        self.wait();
        std::mem::replace(&mut self.root, tempfile::tempdir().unwrap())
    }

    fn wait(&mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.location.socket());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One end of a connection, byte by byte.
struct Wire {
    stream: UnixStream,
    last_id: RequestId,
    pushes: Vec<Push>,
}

impl Wire {
    /// After both prefaces.
    fn greeted(mut stream: UnixStream) -> Self {
        stream.write_all(&Preface::ours("/x/client").encode()).unwrap();
        let software = read_preface(&mut stream);
        assert!(software.ends_with(" /x/peerctl"), "{software}");
        Self { stream, last_id: 0, pushes: Vec::new() }
    }

    fn send(&mut self, request: Request) -> RequestId {
        self.last_id += 1;
        let payload = codec::encode(&ClientFrame { id: self.last_id, request }).unwrap();
        self.send_payload(&payload);
        self.last_id
    }

    fn send_payload(&mut self, payload: &[u8]) {
        let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).unwrap();
    }

    /// Returns the next frame. `None`: the end.
    fn next(&mut self) -> Option<ServerFrame> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut payload = vec![0; u32::from_le_bytes(length) as usize];
        self.stream.read_exact(&mut payload).unwrap();
        Some(codec::decode(&payload).unwrap())
    }

    /// Returns the answer to `wanted`. Pushes that arrive meanwhile are saved.
    fn answer(&mut self, wanted: RequestId) -> Result<Reply, Refusal> {
        loop {
            match self.next().expect("the broker closed the connection") {
                ServerFrame::Reply { id, result } if id == wanted => return result,
                ServerFrame::Reply { id, .. } => {
                    panic!("an answer to {id}, and {wanted} was expected")
                }
                ServerFrame::Push(push) => self.pushes.push(push),
            }
        }
    }

    fn ask(&mut self, request: Request) -> Result<Reply, Refusal> {
        let id = self.send(request);
        self.answer(id)
    }

    /// Like [`Wire::ask`]. `None`: the broker closed the connection.
    fn try_ask(&mut self, request: Request) -> Option<Result<Reply, Refusal>> {
        self.last_id += 1;
        let payload = codec::encode(&ClientFrame { id: self.last_id, request }).unwrap();
        self.stream.write_all(&(payload.len() as u32).to_le_bytes()).ok()?;
        self.stream.write_all(&payload).ok()?;
        match self.next()? {
            ServerFrame::Reply { result, .. } => Some(result),
            push => panic!("nothing is pushed to who asks alone: {push:?}"),
        }
    }

    fn status(&mut self) -> Status {
        match self.ask(Request::Status) {
            Ok(Reply::Status(status)) => *status,
            other => panic!("no status: {other:?}"),
        }
    }

    /// Returns the next push, saved or new.
    fn pushed(&mut self) -> Push {
        if !self.pushes.is_empty() {
            return self.pushes.remove(0);
        }
        match self.next() {
            Some(ServerFrame::Push(push)) => push,
            other => panic!("a push was expected: {other:?}"),
        }
    }

    fn assert_ended(&mut self) {
        let mut rest = Vec::new();
        // If unread bytes were left, the kernel ends the connection with an error.
        let _ = self.stream.read_to_end(&mut rest);
        assert_eq!(rest, b"", "the end was expected");
    }

    /// Asserts that the connection is refused with this code, and ends.
    fn assert_refused(&mut self, wanted_id: RequestId, wanted: ErrorCode) {
        match self.next() {
            Some(ServerFrame::Reply { id, result: Err(refusal) }) => {
                assert_eq!((id, refusal.code), (wanted_id, wanted), "{refusal}");
                assert!(!refusal.hint.is_empty());
            }
            other => panic!("a refusal was expected: {other:?}"),
        }
        self.assert_ended();
    }
}

fn location_in(root: &Path) -> Location {
    Location::resolve(Some(&root.join("peerd")), None).unwrap()
}

fn options(location: &Location) -> RunOptions {
    RunOptions {
        location: location.clone(),
        executable: "/x/peerctl".into(),
        sandbox: false,
        detached: false,
    }
}

fn configure(root: &Path, text: &str) {
    let location = location_in(root);
    state_dir::secure(location.dir()).unwrap();
    fs::write(location.config(), text).unwrap();
    fs::set_permissions(location.config(), Permissions::from_mode(0o600)).unwrap();
}

fn read_preface(stream: &mut UnixStream) -> String {
    let mut fixed = [0; FIXED_BYTES];
    stream.read_exact(&mut fixed).unwrap();
    let (_, software_bytes) = Preface::decode_fixed(&fixed).unwrap();
    let mut software = vec![0; software_bytes];
    stream.read_exact(&mut software).unwrap();
    String::from_utf8(software).unwrap()
}

fn hello(role: Role) -> Request {
    Request::Hello(Hello { role, version: "0".into(), executable: "/x/client".into(), seat: None })
}

fn register(name: &str) -> Request {
    Request::Register(Register {
        name: Some(name.into()),
        seat: None,
        client: "test".into(),
        client_version: "1".into(),
        client_pid: std::process::id(),
        cwd: "/w".into(),
        git_root: None,
        repo: None,
        host: "here".into(),
        resume: None,
    })
}

fn send_to(name: &str, text: &str) -> Request {
    Request::Send(Send {
        to: vec![name.into()],
        text: text.into(),
        intent: None,
        reply_to: None,
        thread: None,
        ttl_ms: None,
        sources: Vec::new(),
        idempotency_key: None,
    })
}

fn message_sent(result: Result<Reply, Refusal>) -> MessageId {
    match result {
        Ok(Reply::Sent(sent)) => sent.message,
        other => panic!("not sent: {other:?}"),
    }
}

#[test]
fn a_program_that_connects_and_says_nothing_is_dropped() {
    let broker = Running::start_in(tempfile::tempdir().unwrap(), Duration::from_millis(50));
    let mut silent = broker.stream();
    read_preface(&mut silent);
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);

    let mut half = broker.stream();
    half.write_all(&MAGIC[..3]).unwrap();
    read_preface(&mut half);
    assert_eq!(half.read(&mut [0]).unwrap_or(0), 0);

    Wire::greeted(broker.stream()).assert_ended();
}

#[test]
fn a_program_of_another_protocol_is_dropped_after_it_heard_who_we_are() {
    let broker = Running::start();
    let mut witness = broker.connect(Role::Operator);
    let newer =
        Preface { min: 900, max: 901, features: 0, software: "9.0.0 /x/newer".into() }.encode();
    for said in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), newer] {
        let mut stream = broker.stream();
        stream.write_all(&said).unwrap();
        assert!(read_preface(&mut stream).ends_with(" /x/peerctl"));
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
    witness.status();
    let log = fs::read_to_string(broker.location.log()).unwrap();
    assert!(log.contains("does not speak peerd's protocol") && log.contains("/x/newer"), "{log}");
}

#[test]
fn a_frame_that_is_too_large_is_refused_before_it_is_read() {
    let broker = Running::start();
    let mut stranger = Wire::greeted(broker.stream());
    stranger.stream.write_all(&(HELLO_BYTES_MAX as u32 + 1).to_le_bytes()).unwrap();
    stranger.assert_refused(0, ErrorCode::BadFrame);

    let mut known = broker.connect(Role::Adapter);
    known.stream.write_all(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes()).unwrap();
    known.assert_refused(0, ErrorCode::BadFrame);
}

#[test]
fn a_frame_that_says_nothing_ends_its_own_connection_alone() {
    let broker = Running::start();
    let mut witness = broker.connect(Role::Operator);
    let status = codec::encode(&ClientFrame { id: 7, request: Request::Status }).unwrap();
    let trailing = [&status[..], &[0]].concat();
    let unknown_variant = [7, 250];
    let cut = &status[..status.len() - 1];
    let garbage = [0xff; 40];
    for payload in [&trailing[..], &unknown_variant, cut, &garbage, &[]] {
        let mut wire = broker.connect(Role::Adapter);
        wire.send_payload(payload);
        wire.assert_refused(0, ErrorCode::BadFrame);
    }
    witness.status();
}

#[test]
fn hello_comes_first_and_once() {
    let broker = Running::start();
    let mut hasty = Wire::greeted(broker.stream());
    let id = hasty.send(Request::Status);
    hasty.assert_refused(id, ErrorCode::OutOfOrder);

    let mut wire = broker.connect(Role::Operator);
    assert_eq!(wire.ask(hello(Role::Operator)).unwrap_err().code, ErrorCode::OutOfOrder);
    wire.status();
}

#[test]
fn requests_are_answered_in_order_however_many_are_pipelined() {
    let broker = Running::start();
    let mut wire = broker.connect(Role::Operator);
    let mut writing = Wire {
        stream: wire.stream.try_clone().unwrap(),
        last_id: wire.last_id,
        pushes: Vec::new(),
    };
    // Nobody reads yet. After some hundred requests the broker stops reading, and the rest waits in
    // the socket.
    let writer = std::thread::spawn(move || {
        (0..5_000).map(|_| writing.send(Request::Status)).collect::<Vec<_>>()
    });
    for id in 2..5_002 {
        assert!(wire.answer(id).is_ok());
    }
    assert_eq!(writer.join().unwrap().len(), 5_000);
}

#[test]
fn the_end_of_a_session_is_seen_while_it_is_not_read() {
    let broker = Running::start();
    let mut operator = broker.connect(Role::Operator);
    operator.ask(Request::Watch { peer: None, bodies: false }).unwrap();
    let (mut session, _) = broker.session("luna");
    for _ in 0..=REQUESTS_IN_FLIGHT_MAX {
        session.send(Request::Receive {
            filter: Filter { thread: Some("t-none".into()), ..Filter::default() },
            wait: true,
        });
    }
    drop(session);
    loop {
        match operator.pushed() {
            Push::Event { event, .. } if matches!(*event, WatchEvent::PeerOffline { .. }) => break,
            Push::Event { .. } => {}
            other => panic!("an event was expected: {other:?}"),
        }
    }
}

#[test]
fn a_watcher_that_does_not_read_is_dropped_and_nobody_waits_for_it() {
    let root = tempfile::tempdir().unwrap();
    configure(root.path(), "[limits]\nsender_per_minute = 1000000\n");
    let broker = Running::start_in(root, PATIENCE);
    let (_luna, _) = broker.session("luna");
    let mut watcher = broker.connect(Role::Operator);
    watcher.ask(Request::Watch { peer: None, bodies: true }).unwrap();
    let mut operator = broker.connect(Role::Operator);
    // Slightly more than may wait and the socket holds: its last frames wait for a second only.
    for number in 0..90 {
        message_sent(operator.ask(send_to("luna", &format!("{number} {}", "x".repeat(60_000)))));
    }
    let mut last = None;
    while let Some(frame) = watcher.next() {
        last = Some(frame);
    }
    assert_eq!(last, Some(ServerFrame::Push(Push::Goodbye(Goodbye::TooSlow))));
    operator.status();
}

#[test]
fn a_message_is_pushed_and_shown_and_outlives_the_broker() {
    let broker = Running::start();
    let (mut luna, registered) = broker.session("luna");
    let (mut rex, _) = broker.session("rex");
    let id = message_sent(rex.ask(send_to("luna", "hello")));
    let Push::Deliver(delivery) = luna.pushed() else { panic!("no delivery") };
    assert_eq!(
        (delivery.message.id, &*delivery.message.text, &*delivery.message.from.name),
        (id, "hello", "rex")
    );
    match rex.ask(Request::Read(id)) {
        Ok(Reply::Text(message)) => assert_eq!(message.text, "hello"),
        other => panic!("no text: {other:?}"),
    }
    match rex.ask(Request::Show(id)) {
        Ok(Reply::Shown(shown)) => {
            assert_eq!(
                (&*shown.deliveries[0].name, shown.deliveries[0].stage.as_str()),
                ("luna", "leased")
            )
        }
        other => panic!("not shown: {other:?}"),
    }

    let broker = Running::start_in(broker.end(), PATIENCE);
    // Another session that asks for the name becomes another peer. The one with the token is back.
    let (_other, other) = broker.session("luna");
    assert_eq!(&*other.name, "luna-2");
    let (mut luna, again) = broker.resumed("luna", &registered);
    assert_eq!((again.peer, &*again.name), (registered.peer, "luna"));
    let Push::Deliver(delivery) = luna.pushed() else { panic!("no delivery") };
    assert_eq!((delivery.message.id, &*delivery.message.text), (id, "hello"));
    let mut operator = broker.connect(Role::Operator);
    let query = HistoryQuery { peer: Some("rex".into()), limit: 10, ..HistoryQuery::default() };
    match operator.ask(Request::History(query)) {
        Ok(Reply::History { messages, next: None }) => assert_eq!(messages[0].message.id, id),
        other => panic!("no history: {other:?}"),
    }
    let query =
        HistoryQuery { thread: Some("t-other".into()), limit: 10, ..HistoryQuery::default() };
    match operator.ask(Request::History(query)) {
        Ok(Reply::History { messages, next: None }) => assert!(messages.is_empty()),
        other => panic!("no history: {other:?}"),
    }
}

#[test]
fn history_and_dead_letters_come_in_pages_that_fit_a_frame() {
    let root = tempfile::tempdir().unwrap();
    configure(root.path(), "[limits]\nsender_per_minute = 1000000\n");
    let broker = Running::start_in(root, PATIENCE);
    let (_luna, _) = broker.session("luna");
    let mut operator = broker.connect(Role::Operator);
    let mut sent: Vec<MessageId> = (0..30)
        .map(|number| {
            message_sent(operator.ask(send_to("luna", &format!("{number} {}", "x".repeat(60_000)))))
        })
        .collect();
    sent.reverse();
    let (mut seen, mut before, mut pages) = (Vec::new(), None, 0);
    loop {
        match operator.ask(Request::History(HistoryQuery {
            before,
            limit: 200,
            ..HistoryQuery::default()
        })) {
            Ok(Reply::History { messages, next }) => {
                seen.extend(messages.iter().map(|shown| shown.message.id));
                before = next;
                pages += 1;
            }
            other => panic!("no history: {other:?}"),
        }
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen, sent);
    assert!(pages > 3, "{pages} pages");
    match operator.ask(Request::Orphans { after: None }) {
        Ok(Reply::Orphans { entries, next }) => assert!(entries.is_empty() && next.is_none()),
        other => panic!("no orphans: {other:?}"),
    }
}

#[test]
fn status_says_what_only_the_shell_knows() {
    let broker = Running::start();
    let (_luna, _) = broker.session("luna");
    let mut operator = broker.connect(Role::Operator);
    message_sent(operator.ask(send_to("luna", "hello")));
    let status = operator.status();
    assert_eq!(status.socket, broker.location.socket().display().to_string());
    assert_eq!(status.dir, broker.location.dir().display().to_string());
    assert_eq!((status.pid, status.protocol, status.sandbox), (std::process::id(), 1, false));
    assert_eq!((status.peers_online, status.messages_total), (1, 1));
    assert!(status.commit_us_p50 > 0 && status.commit_us_max >= status.commit_us_p50);
    assert!(status.disk_free_bytes > 0);
}

#[test]
fn all_files_are_for_their_user_alone() {
    let broker = Running::start();
    drop(broker.session("luna"));
    let mode = |path: &Path| path.symlink_metadata().unwrap().mode() & 0o777;
    assert_eq!(mode(broker.location.dir()), 0o700);
    for path in [
        broker.location.socket(),
        broker.location.lock(),
        broker.location.database(),
        broker.location.log(),
    ] {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn the_log_has_no_texts_and_no_tokens() {
    let broker = Running::start();
    let (mut luna, registered) = broker.session("luna");
    let mut operator = broker.connect(Role::Operator);
    message_sent(operator.ask(send_to("luna", "the secret sentence")));
    luna.pushed();
    let log_path = broker.location.log();
    let root = broker.end();
    let log = fs::read_to_string(&log_path).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(
        lines[0].contains("broker up")
            && lines[0].contains("version=")
            && lines[1].contains("broker down"),
        "{log}"
    );
    assert!(
        !log.contains("secret sentence") && !log.contains(&format!("{:?}", registered.token.0))
    );
    drop(root);
}

#[test]
fn a_second_broker_is_refused_and_the_first_goes_on() {
    let broker = Running::start();
    let mut operator = broker.connect(Role::Operator);
    let second = run(options(&broker.location), || panic!("two brokers"));
    assert!(matches!(second, Err(RunError::AlreadyRunning { .. })), "{second:?}");
    operator.status();
    broker.connect(Role::Operator);
}

#[test]
fn a_stale_socket_is_taken_over_and_a_strange_file_is_not() {
    let root = tempfile::tempdir().unwrap();
    let location = location_in(root.path());
    state_dir::secure(location.dir()).unwrap();
    drop(UnixListener::bind(location.socket()).unwrap());
    assert!(location.socket().symlink_metadata().unwrap().file_type().is_socket());
    let root = {
        let broker = Running::start_in(root, PATIENCE);
        broker.connect(Role::Operator);
        broker.end()
    };
    fs::write(location.socket(), "not a socket").unwrap();
    let strange = run(options(&location), || panic!("started"));
    assert!(matches!(strange, Err(RunError::Socket(SocketError::NotOurs { .. }))), "{strange:?}");
    assert_eq!(fs::read_to_string(location.socket()).unwrap(), "not a socket");
    drop(root);
}

#[test]
fn a_directory_that_drifted_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let location = location_in(root.path());
    state_dir::secure(location.dir()).unwrap();
    fs::set_permissions(location.dir(), Permissions::from_mode(0o750)).unwrap();
    let refused = run(options(&location), || panic!("started")).unwrap_err();
    assert!(matches!(refused, RunError::Dir(DirError::Mode { mode: 0o750, .. })), "{refused:?}");
    assert_eq!(fs::read_dir(location.dir()).unwrap().count(), 0, "nothing was created in it");
}

#[test]
fn a_mistake_in_the_configuration_is_told_and_logged_and_stops_nothing() {
    let root = tempfile::tempdir().unwrap();
    configure(root.path(), "[limits]\nattempts_max = 0\n");
    let broker = Running::start_in(root, PATIENCE);
    let fault = broker.connect(Role::Operator).status().config_fault.unwrap();
    assert!(fault.contains("line 2") && fault.contains("uses all defaults"), "{fault}");
    assert!(fs::read_to_string(broker.location.log()).unwrap().contains("limits.attempts_max"));
}

#[test]
fn a_broker_whose_socket_or_directory_is_gone_ends() {
    let mut broker = Running::start();
    fs::remove_file(broker.location.socket()).unwrap();
    broker.wait();

    let mut broker = Running::start();
    let aside = broker.root.path().join("aside");
    fs::rename(broker.location.dir(), &aside).unwrap();
    broker.wait();

    let mut broker = Running::start();
    let other = broker.root.path().join("other.sock");
    let _listener = UnixListener::bind(&other).unwrap();
    fs::rename(&other, broker.location.socket()).unwrap();
    broker.wait();
    assert!(broker.location.socket().exists(), "the socket of somebody else stays");
}

#[test]
fn a_stop_says_goodbye_and_leaves_the_directory_free() {
    let mut broker = Running::start();
    let (mut luna, _) = broker.session("luna");
    // With a single session this process would be an agent's shell. With two it is a launcher.
    let mut operator = broker.connect(Role::Operator);
    let refused = operator.ask(Request::Shutdown).unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotPermitted);
    let (_orion, _) = broker.session("orion");
    assert!(matches!(operator.ask(Request::Shutdown), Ok(Reply::Done)));
    assert_eq!(luna.pushed(), Push::Goodbye(Goodbye::Stopping));
    luna.assert_ended();
    broker.wait();
    assert!(!broker.location.socket().exists());
    let log = fs::read_to_string(broker.location.log()).unwrap();
    assert!(log.contains("broker down"), "{log}");
    let root = std::mem::replace(&mut broker.root, tempfile::tempdir().unwrap());
    drop(broker);
    let broker = Running::start_in(root, PATIENCE);
    let mut operator = broker.connect(Role::Operator);
    match operator.ask(Request::Peers(PeersQuery { all: true, ..PeersQuery::default() })) {
        Ok(Reply::Peers { peers, .. }) => {
            assert!(
                peers
                    .iter()
                    .any(|peer| peer.name == "luna" && !peer.online && peer.id != PeerId::HUMAN)
            );
        }
        other => panic!("no peers: {other:?}"),
    }
}

/// The broker of [`a_detached_broker_leaves_its_starter_and_is_confined`]. It is a process of its
/// own, because detaching and the sandbox hold for a whole process.
#[test]
#[ignore = "run by another test, as a process of its own"]
fn detached_broker_process() {
    let Some(dir) = std::env::var_os("PEERD_TEST_DIR") else { return };
    let location = Location::resolve(Some(Path::new(&dir)), None).unwrap();
    let sandbox = cfg!(target_os = "linux");
    run(RunOptions { sandbox, detached: true, ..options(&location) }, || ()).unwrap();
}

/// Kills the process that a failed test leaves behind.
struct Detached(Child);

impl Drop for Detached {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_detached_broker_leaves_its_starter_and_is_confined() {
    let root = tempfile::tempdir().unwrap();
    let location = location_in(root.path());
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
            "tests::detached_broker_process",
        ])
        .env("PEERD_TEST_DIR", location.dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut broker = Detached(child);
    let mut said = String::new();
    // Ends when the broker is ready, because it closes its stderr then.
    broker.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");

    let stream = UnixStream::connect(location.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut wire = Wire::greeted(stream);
    assert!(matches!(wire.ask(hello(Role::Operator)), Ok(Reply::Welcome(_))));
    let status = wire.status();
    assert_eq!((status.pid, status.sandbox), (broker.0.id(), cfg!(target_os = "linux")));
    let pid = Pid::from_raw(i32::try_from(broker.0.id()).unwrap());
    assert_eq!(nix::unistd::getsid(Some(pid)), Ok(pid));
    #[cfg(target_os = "linux")]
    {
        let of_process = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
        assert!(of_process("status").lines().any(|line| line == "Seccomp:\t2"), "no filter");
        assert!(
            of_process("limits")
                .lines()
                .any(|line| line.starts_with("Max core file size") && line.contains(" 0 "))
        );
        if nix::unistd::geteuid().is_root() {
            assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
            for descriptor in 0..3 {
                assert_eq!(
                    fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).unwrap(),
                    Path::new("/dev/null")
                );
            }
        }
    }

    kill(pid, Signal::SIGHUP).unwrap();
    wire.status();
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(wire.pushed(), Push::Goodbye(Goodbye::Stopping));
    assert!(broker.0.wait().unwrap().success());
    assert!(!location.socket().exists());
}
