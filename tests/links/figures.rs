//! What a link costs, beside what this machine's brokers and ssh cost without it, in one run.
//!
//! A benchmark, and no test of times: `tests/links/run figures:: --ignored --nocapture`, on an idle
//! machine. It prints the figures F1 and F3 to F7 of `docs/testing.md`.

#![expect(clippy::print_stdout, reason = "it prints figures")]

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use peer_client::{Answer, Connection, Endpoint, Pushes, Start};
use peer_proto::ids::MessageId;
use peer_proto::location::Location;
use peer_proto::message::{Carrier, Evidence};
use peer_proto::request::{
    DeliveryEvent, Push, Register, Reply, Request, Role, Seat, SeatKind, Send, WatchEvent,
};
use peer_tests::{Home, home};

use crate::kills;
use crate::machines::{Machines, wait};

const ROUNDS: usize = 5;
const SAMPLES: usize = 100;
const TEXT_BYTES: usize = 300;

/// Senders, and recipients, of the throughput. One message of each pair is under way at a time. All
/// together are fewer than a link may bring in a minute.
const MANY: usize = 8;
const MESSAGES_PER_PAIR: usize = 8;

const CONFIG: &str = "\
[limits]
sender_per_minute = 1000000
pair_per_minute = 1000000
pending_per_peer = 1000000
thread_turns_max = 1000000
identical_text_ms = 0

[operator]
allow_from_agents = true
";

struct Session {
    connection: Connection,
    pushes: Pushes,
}

fn endpoint(home: &Home) -> Endpoint {
    Endpoint {
        location: Location::resolve(Some(&home.state()), None).expect("a state directory"),
        executable: home.executable().to_owned(),
        start: Start::Never,
    }
}

impl Session {
    async fn open(home: &Home, name: &str) -> Self {
        let (connection, pushes, _) =
            Connection::open(&endpoint(home), Role::Adapter, None).await.expect("a broker");
        let register = Register {
            name: Some(name.to_owned()),
            seat: Some(Seat { kind: SeatKind::Name, key: name.to_owned() }),
            client: "bench".to_owned(),
            client_version: String::new(),
            client_pid: std::process::id(),
            cwd: "/".to_owned(),
            git_root: None,
            repo: None,
            host: String::new(),
            resume: None,
        };
        let registered = connection.request(Request::Register(register)).await.expect("a name");
        assert!(matches!(registered, Reply::Registered(_)), "{registered:?}");
        Self { connection, pushes }
    }

    fn send(&self, to: &str, number: usize) -> Answer {
        self.connection.submit(Request::Send(Send {
            to: vec![to.to_owned()],
            text: format!("{number:<TEXT_BYTES$}"),
            intent: None,
            reply_to: None,
            thread: None,
            ttl_ms: None,
            sources: Vec::new(),
            idempotency_key: None,
        }))
    }

    /// Waits for the next message.
    async fn receive(&mut self) -> MessageId {
        loop {
            match self.pushes.next().await {
                Some(Push::Deliver(delivery)) => return delivery.message.id,
                Some(_) => {}
                None => panic!("the connection was lost"),
            }
        }
    }

    async fn present(&self, message: MessageId) {
        let presented = Request::Presented {
            messages: vec![message],
            carrier: Carrier::ToolResult,
            evidence: Evidence::NextCall,
        };
        let _ = self.connection.request(presented).await.expect("it is presented");
    }
}

/// The milliseconds from a send until its recipient is pushed it.
async fn crosses(from: &Session, to: (&str, &mut Session), number: usize) -> f64 {
    let began = Instant::now();
    let sent = from.send(to.0, number);
    let (reply, message) = tokio::join!(sent, to.1.receive());
    let took = ms(began);
    assert!(matches!(reply, Ok(Reply::Sent(_))), "{reply:?}");
    to.1.present(message).await;
    took
}

/// A raw round trip: `cat` behind the same ssh.
struct Echo {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Echo {
    fn start(machines: &Machines) -> Self {
        let mut child = ssh(machines, &["desk", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start ssh");
        let (input, output) = (child.stdin.take(), child.stdout.take());
        Self { child, input: input.expect("it is piped"), output: output.expect("it is piped") }
    }

    fn round_trip(&mut self) -> f64 {
        let began = Instant::now();
        self.input.write_all(&[b'x'; TEXT_BYTES]).expect("write");
        self.output.read_exact(&mut [0; TEXT_BYTES]).expect("read");
        ms(began)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

fn ssh(machines: &Machines, arguments: &[&str]) -> Command {
    let mut command = Command::new(machines.laptop.root().join("bin/ssh"));
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
    command
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1_000.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "a benchmark, for an idle machine"]
fn what_a_link_costs() {
    let (laptop, desk) = (home!(), home!());
    laptop.configure(CONFIG);
    desk.configure(CONFIG);
    let machines = Machines::linked(laptop, desk);
    let running = machines.run();
    machines.wait_up();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("make a runtime");
    runtime.block_on(async {
        let sender = Session::open(&machines.laptop, "sender").await;
        let mut near = Session::open(&machines.laptop, "near").await;
        let mut far = Session::open(&machines.desk, "far").await;
        known(&machines, "far@desk");
        latency(&machines, &sender, &mut near, &mut far).await;
        // So many a minute may a link bring, and the figures before have brought some.
        tokio::time::sleep(Duration::from_secs(61)).await;
        let throughput = [local(&machines).await, linked(&machines).await];
        let ratio = throughput[1] / throughput[0];
        println!(
            "F4: {:.0} messages/s over the link, {:.0} in one broker: {ratio:.2} (bar: 0.4 or more)",
            throughput[1], throughput[0]
        );
        recovery(&machines, &sender, &mut far).await;
    });
    start_up(&machines);
    rest(running.pid());
}

fn known(machines: &Machines, name: &str) {
    wait("the other machine's peer is known", || {
        machines.laptop.peerctl(&["peers", "--remote"]).stdout.contains(name)
    });
}

/// F1 and F3, interleaved with a local send and a raw round trip.
async fn latency(machines: &Machines, sender: &Session, near: &mut Session, far: &mut Session) {
    let (watcher, mut events, _) =
        Connection::open(&endpoint(&machines.laptop), Role::Operator, None).await.expect("watch");
    let mut echo = Echo::start(machines);
    let (mut ratios, mut stored, mut crossed) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (mut here, mut there, mut raw) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..SAMPLES {
            here.push(crosses(sender, ("near", near), number).await);
            there.push(crosses(sender, ("far@desk", far), number).await);
            raw.push(echo.round_trip());
        }
        // The first round warms up.
        if round > 0 {
            let [here, there, raw] = [here, there, raw].map(median);
            println!(
                "round {round}: local {here:.2} ms, over the link {there:.2} ms, raw {raw:.2} ms"
            );
            ratios.push(there / (2.0 * here + raw / 2.0));
        }
    }
    let watch = Request::Watch { peer: Some("far@desk".to_owned()), bodies: false };
    let _ = watcher.request(watch).await.expect("watch");
    for number in 0..SAMPLES {
        let began = Instant::now();
        let sent = sender.send("far@desk", number);
        let relayed = async {
            loop {
                match events.next().await {
                    Some(Push::Event { event, .. }) => {
                        if let WatchEvent::Delivery {
                            delivery,
                            what: DeliveryEvent::Relayed { .. },
                        } = *event
                        {
                            return (ms(began), delivery.message);
                        }
                    }
                    Some(_) => {}
                    None => panic!("the watcher lost its connection"),
                }
            }
        };
        let pushed = async {
            let message = far.receive().await;
            (ms(began), message)
        };
        let (_, (stored_ms, _), (crossed_ms, message)) = tokio::join!(sent, relayed, pushed);
        stored.push(stored_ms);
        crossed.push(crossed_ms);
        far.present(message).await;
    }
    println!("F1: {:.2} (bar: 1.5 or less)", median(ratios));
    println!("F3: {:.2} (bar: 1.6 or less)", median(stored) / median(crossed));
}

/// Messages a second from many to many.
async fn many(from: &Home, to: &Home, suffix: &str, before: impl FnOnce()) -> f64 {
    let mut senders = Vec::new();
    let mut recipients = Vec::new();
    for number in 0..MANY {
        senders
            .push(Session::open(from, &format!("from{number}{}", suffix.replace('@', "-"))).await);
        recipients.push(Session::open(to, &format!("to{number}")).await);
    }
    before();
    let began = Instant::now();
    let count = MANY * MANY * MESSAGES_PER_PAIR;
    let sends = async {
        for number in 0..MESSAGES_PER_PAIR {
            let mut answers = Vec::new();
            for sender in &senders {
                answers.extend((0..MANY).map(|to| sender.send(&format!("to{to}{suffix}"), number)));
            }
            for answer in answers {
                let reply = answer.await;
                assert!(matches!(reply, Ok(Reply::Sent(_))), "{reply:?}");
            }
        }
    };
    let receives = async {
        let mut tasks = tokio::task::JoinSet::new();
        for mut recipient in recipients.drain(..) {
            tasks.spawn(async move {
                for _ in 0..count / MANY {
                    let message = recipient.receive().await;
                    recipient.present(message).await;
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("all came");
        }
    };
    let ((), ()) = tokio::join!(sends, receives);
    count as f64 / began.elapsed().as_secs_f64()
}

async fn local(machines: &Machines) -> f64 {
    many(&machines.laptop, &machines.laptop, "", || ()).await
}

async fn linked(machines: &Machines) -> f64 {
    let known_all = || (0..MANY).for_each(|number| known(machines, &format!("to{number}@desk")));
    many(&machines.laptop, &machines.desk, "@desk", known_all).await
}

/// F5: the ssh of the link is killed, and mail flows again.
async fn recovery(machines: &Machines, sender: &Session, far: &mut Session) {
    let mut took = Vec::new();
    for number in 0..ROUNDS {
        machines.wait_up();
        // A link that has just come up waits longer before it is tried again.
        tokio::time::sleep(Duration::from_secs(11)).await;
        let began = Instant::now();
        let raw = ssh(machines, &["desk", "true"]).status().expect("run ssh");
        assert!(raw.success());
        let raw = ms(began);
        let pid = kills::found([&machines.laptop, &machines.desk], true).expect("ssh runs");
        kills::signal(pid, nix::sys::signal::Signal::SIGKILL);
        took.push(crosses(sender, ("far@desk", far), number).await - raw);
    }
    println!("F5: {:.0} ms more than `ssh HOST true` (bar: 1300 or less)", median(took));
}

/// F6: the first byte of the far end.
fn start_up(machines: &Machines) {
    let program = machines.desk.executable().display().to_string();
    let (mut ours, mut raw) = (Vec::new(), Vec::new());
    for _ in 0..2 * ROUNDS {
        let began = Instant::now();
        assert!(ssh(machines, &["desk", "true"]).status().expect("run ssh").success());
        raw.push(ms(began));
        let began = Instant::now();
        let mut child = ssh(machines, &["desk", &program, "link", "--stdio", "--as", "probe"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start ssh");
        child.stdout.as_mut().expect("piped").read_exact(&mut [0]).expect("a byte");
        ours.push(ms(began));
        let _ = (child.kill(), child.wait());
    }
    println!("F6: {:.2} (bar: 1.2 or less)", median(ours) / median(raw));
}

/// F7: the process of links, when nothing crosses.
fn rest(pid: u32) {
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let ticks = || {
        let stat = stat();
        let fields: Vec<i64> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        // After the state letter: utime and stime are the fields 14 and 15 of the line.
        fields[10] + fields[11]
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(30));
    let used = ticks() - before;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let resident = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    println!("F7: {used} clock ticks in 30 s, {resident} (bar: 0, 12 MB)");
}
