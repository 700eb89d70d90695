//! Measures one post to a channel with many members: the cost of each member, and the effect of one
//! stopped member on the others.
//!
//! Knows the broker's protocol, and the process that it stops. Does not know how the broker orders
//! its writes.

use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use peer_proto::channel::ChannelRequest;
use peer_proto::ids::MessageId;
use peer_proto::limits::CHANNEL_MEMBERS_MAX;
use peer_proto::message::{Carrier, Evidence};
use peer_proto::request::{Push, Reply, Request};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::report::{Ratios, hundredths, percentile, us_since};
use super::{Dice, Session, TEXT_BYTES, message};
use crate::error::Failure;
use crate::mcp_client::{Introduction, McpClient};
use crate::operator::unexpected;
use crate::output::Output;
use crate::throwaway::Throwaway;

const CHANNEL: &str = "#bench";

/// Posts of each kind that warm up the broker before the first round; they are not measured.
const WARM_UP: u32 = 5;

/// The name of the member that is stopped. It is a process of its own.
const STOPPABLE: &str = "bench-stoppable";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Members beside the sender; the last of them is a process that is stopped for half of the
    /// time
    #[arg(long, default_value_t = 99, value_parser = clap::value_parser!(u32).range(2..CHANNEL_MEMBERS_MAX as i64))]
    members: u32,

    /// Number of rounds; the range of each ratio is taken over the rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Messages of each kind in one round
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
}

/// The recipient of one measured message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    One,
    All,
}

/// The times of one round, in microseconds.
#[derive(Debug, Default)]
struct Times {
    acknowledged: Vec<f64>,
    /// Until the last recipient had the message.
    delivered: Vec<f64>,
}

/// The rounds of one kind.
struct Kind {
    name: &'static str,
    label: &'static str,
    rounds: Vec<Times>,
}

struct Bench {
    sender: Session,
    /// Members that read all the time.
    readers: Vec<Session>,
    stoppable: McpClient,
    sent: u64,
}

/// The cost of a post to a channel with many members.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Fanout {
    what: &'static str,
    /// The members beside the sender.
    members: u32,
    rounds: u32,
    /// The messages of each kind in one round.
    samples: u32,
    text_bytes: usize,
    /// The seed of the random order.
    seed: u64,
    series: Vec<KindRow>,
    per_member_us: Parts<f64>,
    /// The ratio of all members with one stopped to all members.
    one_stopped: Parts<Ratios>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct KindRow {
    name: &'static str,
    acknowledged: PartRow,
    delivered: PartRow,
}

#[derive(Debug, Serialize, JsonSchema)]
struct PartRow {
    p50_us: f64,
    p99_us: f64,
}

/// The two times of a send.
#[derive(Debug, Serialize, JsonSchema)]
struct Parts<T> {
    /// Until the acknowledgement.
    acknowledged: T,
    /// Until the last recipient had the message.
    delivered: T,
}

pub(super) async fn run(args: &Args, output: &Output, room: &Throwaway) -> Result<(), Failure> {
    let mut dice = Dice::seeded();
    let seed = dice.0;
    output.remark("connecting the members");
    let mut bench = Bench::prepare(args.members, room).await?;
    let mut kinds = [
        Kind { name: "one", label: "to one", rounds: Vec::new() },
        Kind { name: "all", label: "to the channel", rounds: Vec::new() },
        Kind { name: "one_stopped", label: "to one, a member stopped", rounds: Vec::new() },
        Kind { name: "all_stopped", label: "to the channel, a member stopped", rounds: Vec::new() },
    ];
    for _ in 0..WARM_UP {
        bench.send(To::One).await?;
        bench.send(To::All).await?;
    }
    for round in 1..=args.rounds {
        output.remark(&format!("round {round} of {}", args.rounds));
        for stopped in [false, true] {
            // The stopped member gets new mail only after its window is empty.
            bench.drain().await?;
            let _pause = if stopped { Some(Pause::begin(&bench.stoppable)?) } else { None };
            let mut acts = vec![To::One; args.samples as usize];
            acts.extend(vec![To::All; args.samples as usize]);
            dice.shuffle(&mut acts);
            let first = if stopped { 2 } else { 0 };
            kinds[first..first + 2].iter_mut().for_each(|kind| kind.rounds.push(Times::default()));
            for act in acts {
                let (acknowledged_us, delivered_us) = bench.send(act).await?;
                let kind = &mut kinds[first + usize::from(act == To::All)];
                if let Some(times) = kind.rounds.last_mut() {
                    times.acknowledged.push(acknowledged_us);
                    times.delivered.push(delivered_us);
                }
            }
        }
    }
    bench.stoppable.stop().await?;
    print(args, seed, output, &kinds)
}

/// Keeps a process stopped while it lives.
struct Pause(Pid);

impl Pause {
    fn begin(client: &McpClient) -> Result<Self, Failure> {
        let pid = client.pid().and_then(|pid| i32::try_from(pid).ok());
        let pid = Pid::from_raw(pid.ok_or_else(|| {
            Failure::wrong("the member that the bench stops has ended".to_owned())
        })?);
        let stopped = kill(pid, Signal::SIGSTOP);
        stopped.map_err(|errno| Failure::system("stopping a member", errno.into()))?;
        Ok(Self(pid))
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        // The process may have ended.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

impl Bench {
    async fn prepare(members: u32, room: &Throwaway) -> Result<Self, Failure> {
        let sender = Session::open(&room.endpoint, "bench-sender").await?;
        let create = ChannelRequest::Create {
            name: CHANNEL.to_owned(),
            topic: String::new(),
            private: false,
        };
        channel(&sender, create).await?;
        let mut readers = Vec::new();
        for number in 1..members {
            let reader = Session::open(&room.endpoint, &format!("bench-reader-{number}")).await?;
            channel(&reader, ChannelRequest::Join(CHANNEL.to_owned())).await?;
            readers.push(reader);
        }
        let mut command = room.command(&["mcp"]);
        command.env("PEERD_CLIENT", "codex");
        let who = Introduction { name: STOPPABLE, client: "codex-mcp-client", thread_id: None };
        let (mut stoppable, _): (McpClient, Value) = McpClient::start(command, &who).await?;
        stoppable.call("set_summary", json!({ "summary": "measuring" })).await?;
        channel(
            &sender,
            ChannelRequest::Invite { name: CHANNEL.to_owned(), peer: STOPPABLE.to_owned() },
        )
        .await?;
        Ok(Self { sender, readers, stoppable, sent: 0 })
    }

    /// Lets the process that will be stopped read all its waiting mail.
    async fn drain(&mut self) -> Result<(), Failure> {
        loop {
            let text = self.stoppable.call("check_messages", json!({})).await?;
            if text.starts_with("No new messages.") {
                return Ok(());
            }
        }
    }

    /// Sends one message. Returns the microseconds until the acknowledgement, and until the last
    /// recipient had it.
    async fn send(&mut self, to: To) -> Result<(f64, f64), Failure> {
        self.sent += 1;
        let (name, readers) = match to {
            To::One => ("bench-reader-1", &mut self.readers[..1]),
            To::All => (CHANNEL, &mut self.readers[..]),
        };
        let request = Request::Send(message(name, self.sent));
        let begun = Instant::now();
        let acknowledged = async {
            let reply = self.sender.connection.request(request).await?;
            Ok::<_, Failure>((us_since(begun), reply))
        };
        let delivered = async {
            let mut last = None;
            for reader in readers.iter_mut() {
                last = Some(next_delivery(reader).await?);
            }
            Ok((us_since(begun), last))
        };
        let ((acknowledged_us, reply), (delivered_us, last)) =
            tokio::try_join!(acknowledged, delivered)?;
        let id = match reply {
            Reply::Sent(sent) if Some(sent.message) == last => sent.message,
            reply => return Err(Failure::wrong(format!("the send was answered with {reply:?}"))),
        };
        let presented = || Request::Presented {
            messages: vec![id],
            carrier: Carrier::ToolResult,
            evidence: Evidence::NextCall,
        };
        let answers: Vec<_> =
            readers.iter().map(|reader| reader.connection.submit(presented())).collect();
        for answer in answers {
            match answer.await? {
                Reply::Done => {}
                _ => return Err(unexpected()),
            }
        }
        Ok((acknowledged_us, delivered_us))
    }
}

async fn next_delivery(reader: &mut Session) -> Result<MessageId, Failure> {
    loop {
        match reader.pushes.next().await {
            Some(Push::Deliver(delivery)) => return Ok(delivery.message.id),
            Some(_) => {}
            None => return Err(Failure::wrong("a recipient lost its connection".to_owned())),
        }
    }
}

async fn channel(session: &Session, request: ChannelRequest) -> Result<(), Failure> {
    match session.connection.request(Request::Channel(request)).await? {
        Reply::Channels(_) => Ok(()),
        _ => Err(unexpected()),
    }
}

impl Kind {
    fn all(&self, of: impl Fn(&Times) -> &Vec<f64>) -> Vec<f64> {
        self.rounds.iter().flat_map(|times| of(times).iter().copied()).collect()
    }

    /// The median of each round, divided by the same median of another kind.
    fn against(&self, other: &Self, of: impl Fn(&Times) -> &Vec<f64>) -> Ratios {
        let median = |times: &Times| percentile(of(times), 0.5);
        let ratios: Vec<f64> = self
            .rounds
            .iter()
            .zip(&other.rounds)
            .map(|(own, other)| median(own) / median(other))
            .collect();
        Ratios::of(&ratios)
    }
}

/// Selects one of the two times of a send.
type Part = fn(&Times) -> &Vec<f64>;

fn print(args: &Args, seed: u64, output: &Output, kinds: &[Kind; 4]) -> Result<(), Failure> {
    let [one, all, _, all_stopped] = kinds;
    let median = |kind: &Kind, of: Part| percentile(&kind.all(of), 0.5);
    let (acknowledged, delivered): (Part, Part) =
        (|times| &times.acknowledged, |times| &times.delivered);
    let more = f64::from(args.members - 1);
    let per_member = |of| (median(all, of) - median(one, of)) / more;
    let harm = [acknowledged, delivered].map(|of| all_stopped.against(all, of));
    if output.json {
        let part = |kind: &Kind, of: Part| {
            let all = kind.all(of);
            PartRow {
                p50_us: hundredths(percentile(&all, 0.5)),
                p99_us: hundredths(percentile(&all, 0.99)),
            }
        };
        let row = |kind: &Kind| KindRow {
            name: kind.name,
            acknowledged: part(kind, acknowledged),
            delivered: part(kind, delivered),
        };
        let [stopped_acknowledged, stopped_delivered] = harm;
        return output.json(&Fanout {
            what: "fanout",
            members: args.members,
            rounds: args.rounds,
            samples: args.samples,
            text_bytes: TEXT_BYTES,
            seed,
            series: kinds.iter().map(row).collect(),
            per_member_us: Parts {
                acknowledged: hundredths(per_member(acknowledged)),
                delivered: hundredths(per_member(delivered)),
            },
            one_stopped: Parts { acknowledged: stopped_acknowledged, delivered: stopped_delivered },
        });
    }
    let rounds = format!("{} rounds of {}", args.rounds, args.samples);
    output.line(&format!(
        "{TEXT_BYTES} bytes, {} members beside the sender, {rounds} messages of each kind (seed {seed})",
        args.members
    ))?;
    let ms = |samples: &[f64], share| format!("{:.3}", percentile(samples, share) / 1e3);
    let row = |kind: &Kind| {
        let (acknowledged, delivered) = (kind.all(acknowledged), kind.all(delivered));
        vec![
            kind.label.to_owned(),
            ms(&acknowledged, 0.5),
            ms(&acknowledged, 0.99),
            ms(&delivered, 0.5),
            ms(&delivered, 0.99),
        ]
    };
    let heading = ["IN MS", "ACKNOWLEDGED P50", "P99", "LAST RECIPIENT P50", "P99"];
    output.table(&heading, &kinds.iter().map(row).collect::<Vec<_>>(), "nothing was measured")?;
    let micros = |us: f64| format!("{us:.1} µs");
    output.facts(&[
        ("per member", format!("{} until the acknowledgement", micros(per_member(acknowledged)))),
        ("", format!("{} until the last recipient has it", micros(per_member(delivered)))),
        ("a member stopped", format!("x {} until the acknowledgement", harm[0].text())),
        ("", format!("x {} until the last of the other recipients has it", harm[1].text())),
    ])
}
