//! `peerctl bench`: measures a throw-away broker on this machine.
//!
//! Knows the options that all measurements share. Absolute times depend on the disk more than on
//! the broker. So each run also measures a floor, in random order with the rest, and reports the
//! ratio: see [`floor`].

mod adapters;
pub(crate) mod fanout;
mod floor;
mod latency;
pub(crate) mod report;
mod search;
pub(crate) mod throughput;

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use peer_client::{Connection, Endpoint, Pushes};
use peer_proto::request::{Register, Reply, Request, Role, Seat, SeatKind, Send};

use crate::error::Failure;
use crate::operator::unexpected;
use crate::output::Output;
use crate::throwaway::{Interrupts, Throwaway};

const AFTER_HELP: &str = "\
Examples:
  peerctl bench                            latency, 5 rounds of 200
  peerctl bench latency --adapters         also through two adapters
  peerctl bench fanout --members 99
  peerctl bench throughput --producers 8 --window 64
  peerctl bench search                     how much the index slows a send
  peerctl bench latency --json > latency.json

The bench starts its own broker in a temporary directory: set TMPDIR to measure
another disk. It compares the broker with a floor: a relay that only writes,
syncs and forwards.";

/// The send limits are off, because they are not measured.
const CONFIG: &str = "\
[limits]
sender_per_minute = 1000000
pair_per_minute = 1000000
pending_per_peer = 10000000
thread_turns_max = 1000000
identical_text_ms = 0

[operator]
allow_from_agents = true
";

/// The bytes of a measured text. With its frame, it has about the size of a short message.
const TEXT_BYTES: usize = 300;

/// Measure a throw-away broker on this machine
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<BenchCommand>,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Time from a send to its acknowledgement, to the receiver and to its settlement, one message
    /// at a time
    Latency(latency::Args),
    /// Time of one post to a channel with many members, also while one member is stopped
    Fanout(fanout::Args),
    /// How much the search index slows a send
    Search(search::Args),
    /// Messages per second that are durable and delivered, with many under way
    Throughput(throughput::Args),
}

pub(crate) async fn run(args: Args, output: &Output, endpoint: &Endpoint) -> Result<(), Failure> {
    let mut interrupts = Interrupts::listen()?;
    let room = Throwaway::start(&endpoint.executable, CONFIG).await?;
    let measuring = async {
        match args.command {
            None => latency::run(&latency::Args::default(), output, &room).await,
            Some(BenchCommand::Latency(args)) => latency::run(&args, output, &room).await,
            Some(BenchCommand::Fanout(args)) => fanout::run(&args, output, &room).await,
            Some(BenchCommand::Search(args)) => {
                search::run(&args, output, &room, &endpoint.executable).await
            }
            Some(BenchCommand::Throughput(args)) => throughput::run(&args, output, &room).await,
        }
    };
    let measured = tokio::select! {
        measured = measuring => measured,
        interrupted = interrupts.first() => Err(interrupted),
    };
    let stopped = room.stop().await;
    measured?;
    stopped
}

/// A session that uses the wire protocol directly.
struct Session {
    connection: Connection,
    pushes: Pushes,
}

impl Session {
    async fn open(endpoint: &Endpoint, name: &str) -> Result<Self, Failure> {
        let (connection, pushes, _) = Connection::open(endpoint, Role::Adapter, None).await?;
        let register = Register {
            name: Some(name.to_owned()),
            seat: Some(Seat { kind: SeatKind::Name, key: name.to_owned() }),
            client: "bench".to_owned(),
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
            client_pid: std::process::id(),
            cwd: "/".to_owned(),
            git_root: None,
            repo: None,
            host: String::new(),
            resume: None,
        };
        match connection.request(Request::Register(register)).await? {
            Reply::Registered(registered) if registered.takes_mail && registered.name == name => {
                Ok(Self { connection, pushes })
            }
            Reply::Registered(registered) => Err(Failure::wrong(format!(
                "the bench's session {name} was registered as {registered:?}"
            ))),
            _ => Err(unexpected()),
        }
    }
}

/// The measured message: a text of [`TEXT_BYTES`] that differs from all others.
fn message(to: &str, number: u64) -> Send {
    Send {
        to: vec![to.to_owned()],
        text: format!("{number:<TEXT_BYTES$}"),
        intent: None,
        reply_to: None,
        thread: None,
        ttl_ms: None,
        sources: Vec::new(),
        idempotency_key: Some(format!("bench-{number}")),
    }
}

/// Random numbers for the order of the measurements, from a seed that is printed.
struct Dice(u64);

impl Dice {
    fn seeded() -> Self {
        let nanos =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
        Self(nanos ^ (u64::from(std::process::id()) << 32) | 1)
    }

    /// Returns a number below `bound`, by xorshift, which suffices for an order.
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    /// Shuffles the items.
    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
