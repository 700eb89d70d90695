//! What many programs cost the broker together: it holds a bounded amount for all of them, whatever
//! they send.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use peer_proto::codec;
use peer_proto::handshake::{FIXED_BYTES, Preface};
use peer_proto::limits::FRAME_BYTES_MAX;
use peer_proto::refusal::ErrorCode;
use peer_proto::request::{
    ClientFrame, Hello, Register, Request, RequestId, Role, Send, ServerFrame,
};
use peer_tests::{Home, PATIENCE};

/// A program of its own making, byte by byte.
struct Program {
    stream: UnixStream,
}

impl Program {
    fn connect(home: &Home, role: Role) -> Self {
        let mut program = Self::greeted(home);
        let answer = program.say_hello(role);
        assert!(matches!(answer, Some(ServerFrame::Reply { id: 1, result: Ok(_) })), "{answer:?}");
        program
    }

    fn say_hello(&mut self, role: Role) -> Option<ServerFrame> {
        let hello = Hello { role, version: "0".into(), executable: "/x".into(), seat: None };
        self.send(1, Request::Hello(hello));
        self.next()
    }

    /// After both prefaces.
    fn greeted(home: &Home) -> Self {
        let mut stream = UnixStream::connect(home.socket()).expect("the broker listens");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&Preface::ours("/x/program").encode()).unwrap();
        let mut fixed = [0; FIXED_BYTES];
        stream.read_exact(&mut fixed).unwrap();
        let (_, software_bytes) = Preface::decode_fixed(&fixed).unwrap();
        stream.read_exact(&mut vec![0; software_bytes]).unwrap();
        Self { stream }
    }

    fn send(&mut self, id: RequestId, request: Request) {
        let payload = codec::encode(&ClientFrame { id, request }).unwrap();
        self.stream
            .write_all(&[&(payload.len() as u32).to_le_bytes()[..], &payload].concat())
            .unwrap();
    }

    /// The next frame; none at the end.
    fn next(&mut self) -> Option<ServerFrame> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).ok()?;
        let mut payload = vec![0; u32::from_le_bytes(length) as usize];
        self.stream.read_exact(&mut payload).unwrap();
        Some(codec::decode(&payload).unwrap())
    }

    fn ask(&mut self, wanted: RequestId, request: Request) -> ServerFrame {
        self.send(wanted, request);
        loop {
            match self.next().expect("the broker closed the connection") {
                answer @ ServerFrame::Reply { id, .. } if id == wanted => return answer,
                ServerFrame::Reply { .. } | ServerFrame::Push(_) => {}
            }
        }
    }

    fn registered(home: &Home, name: &str) -> Self {
        let mut program = Self::connect(home, Role::Adapter);
        let register = Register {
            name: Some(name.into()),
            seat: None,
            client: "claude".into(),
            client_version: "1".into(),
            client_pid: std::process::id(),
            cwd: "/w".into(),
            git_root: None,
            repo: None,
            host: "here".into(),
            resume: None,
        };
        let answer = program.ask(2, Request::Register(register));
        assert!(matches!(answer, ServerFrame::Reply { result: Ok(_), .. }), "{answer:?}");
        program
    }
}

/// Resident memory of the broker, in KiB.
#[cfg(target_os = "linux")]
fn memory_kib(home: &Home) -> u64 {
    let pid = home.broker_pid().expect("a broker runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .expect("Linux says how much memory is in use");
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn programs_that_begin_large_frames_and_do_not_end_them_cost_little_memory_and_then_their_connections()
 {
    let _serial = peer_tests::serial();
    let home = peer_tests::home!();
    assert_eq!(home.peerctl(&["daemon", "start"]).code, 0);
    let mut witness = Program::registered(&home, "witness");
    let before = memory_kib(&home);
    let begun =
        [&(FRAME_BYTES_MAX as u32).to_le_bytes()[..], &vec![0; FRAME_BYTES_MAX - 1]].concat();
    let programs: Vec<Program> = (0..150)
        .map(|_| {
            let mut program = Program::connect(&home, Role::Adapter);
            // What the broker does not read stays in the program: it never has more of it than the
            // socket holds.
            program.stream.set_nonblocking(true).unwrap();
            let mut written = 0;
            while written < begun.len()
                && let Ok(count) = program.stream.write(&begun[written..])
            {
                written += count;
            }
            program.stream.set_nonblocking(false).unwrap();
            program
        })
        .collect();
    let during = memory_kib(&home);
    assert!(
        during.saturating_sub(before) < 40 * 1024,
        "{before} KiB before, {during} KiB with 150 frames begun"
    );
    for mut program in programs {
        let mut last = None;
        while let Some(frame) = program.next() {
            last = Some(frame);
        }
        assert!(matches!(last, Some(ServerFrame::Reply { id: 0, result: Err(_) })), "{last:?}");
    }
    witness.ask(3, Request::Status);
}

#[cfg(target_os = "linux")]
#[test]
fn programs_that_send_faster_than_the_broker_stores_wait_and_cost_little_memory() {
    let _serial = peer_tests::serial();
    const SENDS: u64 = 64;
    let home = peer_tests::home!();
    assert_eq!(home.peerctl(&["daemon", "start"]).code, 0);
    let _sink = Program::registered(&home, "sink");
    let senders: Vec<Program> =
        (0..60).map(|number| Program::registered(&home, &format!("sender{number}"))).collect();
    let before = memory_kib(&home);
    let threads: Vec<_> = senders
        .into_iter()
        .map(|mut sender| {
            let mut reading = Program { stream: sender.stream.try_clone().unwrap() };
            let answered = std::thread::spawn(move || {
                let mut answers = 0;
                while answers < SENDS {
                    match reading.next().expect("the broker closed the connection") {
                        ServerFrame::Reply { .. } => answers += 1,
                        ServerFrame::Push(_) => {}
                    }
                }
            });
            std::thread::spawn(move || {
                for id in 0..SENDS {
                    let text = format!("{id} {}", "x".repeat(60_000));
                    let to = vec!["sink".to_owned()];
                    let (intent, reply_to, thread, ttl_ms, idempotency_key) =
                        (None, None, None, None, None);
                    let sources = Vec::new();
                    let send = Send {
                        to,
                        text,
                        intent,
                        reply_to,
                        thread,
                        ttl_ms,
                        sources,
                        idempotency_key,
                    };
                    sender.send(10 + id, Request::Send(send));
                }
                answered.join().unwrap();
            })
        })
        .collect();
    let mut most = 0;
    for thread in threads {
        while !thread.is_finished() {
            most = most.max(memory_kib(&home));
            std::thread::yield_now();
        }
        thread.join().unwrap();
    }
    assert!(most.saturating_sub(before) < 120 * 1024, "{before} KiB before, at most {most} KiB");
}

#[test]
fn the_person_gets_through_when_sessions_took_all_other_connections() {
    let _serial = peer_tests::serial();
    let home = peer_tests::home!();
    let executable = home.executable().to_str().expect("UTF-8");
    let mut start = std::process::Command::new("sh");
    // Sixteen connections, four of them for operators, and the descriptors that are none.
    start.args(["-c", "ulimit -n 80 && exec \"$0\" daemon start", executable]);
    start.env("HOME", home.home()).env("PEERD_DIR", home.state());
    assert!(start.status().expect("run a shell").success());
    let (mut crowd, mut refused) = (Vec::new(), None);
    while refused.is_none() && crowd.len() < 16 {
        let mut program = Program::greeted(&home);
        match program.say_hello(Role::Adapter) {
            Some(ServerFrame::Reply { result: Err(refusal), .. }) => refused = Some(refusal),
            _ => crowd.push(program),
        }
    }
    let refused = refused.expect("the last places are for operators");
    assert_eq!(refused.code, ErrorCode::Overloaded, "{refused}");
    assert!(refused.message.contains("reserved for the person"), "{refused}");
    for _ in 0..3 {
        let _ = home.peerctl(&["status", "--json"]).success();
    }
    let _ = home.peerctl(&["daemon", "stop"]).success();
}

#[test]
fn an_adapter_in_a_repository_of_pipes_is_a_peer_all_the_same() {
    let home = peer_tests::home!();
    for (number, place) in
        [".git", ".git/commondir", ".git/HEAD", ".git/config"].into_iter().enumerate()
    {
        let root = home.root().join(number.to_string());
        let pipe = root.join(place);
        std::fs::create_dir_all(pipe.parent().unwrap()).unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let name = format!("luna{number}");
        let adapter = home.adapter("claude-code").env("PEER_NAME", &name).cwd(&root).start();
        let _ = adapter.call("list_peers", serde_json::json!({})).success();
        let peers = home.peerctl(&["peers", "--json"]).success().json();
        assert!(
            peers.as_array().unwrap().iter().any(|peer| peer["name"] == name.as_str()),
            "{place}: {peers}"
        );
    }
}

#[test]
fn frames_that_say_nothing_do_not_fill_the_log() {
    let home = peer_tests::home!();
    let _ = home.peerctl(&["daemon", "start"]).success();
    for _ in 0..50 {
        let mut program = Program::connect(&home, Role::Adapter);
        program.stream.write_all(&[2, 0, 0, 0, 7, 250]).unwrap();
        assert!(matches!(program.next(), Some(ServerFrame::Reply { id: 0, result: Err(_) })));
    }
    let log = std::fs::read_to_string(home.state().join("broker.log")).unwrap();
    assert!(log.lines().filter(|line| line.contains("WARN")).count() < 5, "{log}");
}
