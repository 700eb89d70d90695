//! Measures one message at a time: the time until it is acknowledged, delivered and settled.
//!
//! Knows the broker's protocol. Does not know how the times are printed.

use std::time::Instant;

use peer_proto::message::{Carrier, Evidence};
use peer_proto::request::{Push, Reply, Request};

use super::adapters::Adapters;
use super::floor::{Floor, RECORD_BYTES};
use super::report::{self, Head, Series, us_since};
use super::{Dice, Session, TEXT_BYTES, message};
use crate::error::Failure;
use crate::operator::unexpected;
use crate::output::Output;
use crate::throwaway::Throwaway;

/// Messages that warm up the broker before the first round: caches fill, and files get their first
/// pages. They are not measured.
const WARM_UP: u32 = 50;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Number of rounds; the range of each ratio is taken over the rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Messages of each kind in one round
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,

    /// Also measure the time from a tool call to the channel notification, through two adapter
    /// processes
    #[arg(long)]
    adapters: bool,
}

impl Default for Args {
    fn default() -> Self {
        Self { rounds: 5, samples: 200, adapters: false }
    }
}

/// A measured act. Acts of all kinds run in random order.
#[derive(Clone, Copy)]
enum Act {
    Floor,
    Broker,
    Adapters,
}

struct Bench {
    floor: Floor,
    sender: Session,
    receiver: Session,
    adapters: Option<Adapters>,
    sent: u64,
    floor_answered: Series,
    floor_forwarded: Series,
    acknowledged: Series,
    pushed: Series,
    settled: Series,
    notified: Series,
}

pub(super) async fn run(args: &Args, output: &Output, room: &Throwaway) -> Result<(), Failure> {
    let mut dice = Dice::seeded();
    let seed = dice.0;
    let mut bench = Bench::prepare(args, room).await?;
    output.remark("warming up");
    bench.begin_round();
    for _ in 0..WARM_UP {
        bench.act(Act::Floor).await?;
        bench.act(Act::Broker).await?;
    }
    bench.forget_rounds();
    for round in 1..=args.rounds {
        output.remark(&format!("round {round} of {}", args.rounds));
        bench.begin_round();
        let mut acts = vec![Act::Floor; args.samples as usize];
        acts.extend(vec![Act::Broker; args.samples as usize]);
        if args.adapters {
            acts.extend(vec![Act::Adapters; args.samples as usize]);
        }
        dice.shuffle(&mut acts);
        for act in acts {
            bench.act(act).await?;
        }
    }
    let (rounds, samples) = (args.rounds, args.samples);
    let head = Head { what: "latency", rounds, samples, text_bytes: Some(TEXT_BYTES), seed };
    if !output.json {
        let rounds = format!("{} rounds of {}", args.rounds, args.samples);
        output
            .line(&format!("{TEXT_BYTES} bytes, one message at a time, {rounds} messages of each kind in random order (seed {seed})"))?;
    }
    let series = bench.finish().await?;
    report::print(output, head, &series)
}

impl Bench {
    async fn prepare(args: &Args, room: &Throwaway) -> Result<Self, Failure> {
        Ok(Self {
            floor: Floor::start(room.endpoint.location.dir(), 1)?,
            sender: Session::open(&room.endpoint, "bench-sender").await?,
            receiver: Session::open(&room.endpoint, "bench-receiver").await?,
            adapters: if args.adapters { Some(Adapters::start(room).await?) } else { None },
            sent: 0,
            floor_answered: Series::new("floor_acknowledged", "floor: synced and answered", None),
            floor_forwarded: Series::new("floor_delivered", "floor: synced and forwarded", None),
            acknowledged: Series::new(
                "acknowledged",
                "send to acknowledgement",
                Some("floor_acknowledged"),
            ),
            pushed: Series::new("delivered", "send to receiver", Some("floor_delivered")),
            settled: Series::new(
                "settled",
                "send to confirmed settlement",
                Some("floor_delivered"),
            ),
            notified: Series::new(
                "notified",
                "tool call to channel notification",
                Some("floor_delivered"),
            ),
        })
    }

    fn series(&mut self) -> [&mut Series; 6] {
        [
            &mut self.floor_answered,
            &mut self.floor_forwarded,
            &mut self.acknowledged,
            &mut self.pushed,
            &mut self.settled,
            &mut self.notified,
        ]
    }

    fn begin_round(&mut self) {
        for series in self.series() {
            series.rounds.push(Vec::new());
        }
    }

    fn forget_rounds(&mut self) {
        for series in self.series() {
            series.rounds.clear();
        }
    }

    async fn act(&mut self, act: Act) -> Result<(), Failure> {
        match act {
            Act::Floor => {
                let exchange = self.floor.pairs[0].exchange(&[1; RECORD_BYTES])?;
                self.floor_answered.push(exchange.answered_us);
                self.floor_forwarded.push(exchange.forwarded_us);
                Ok(())
            }
            Act::Broker => self.send().await,
            Act::Adapters => {
                if let Some(adapters) = &mut self.adapters {
                    self.notified.push(adapters.send().await?);
                }
                Ok(())
            }
        }
    }

    async fn send(&mut self) -> Result<(), Failure> {
        self.sent += 1;
        let request = Request::Send(message("bench-receiver", self.sent));
        let (connection, pushes) = (&self.sender.connection, &mut self.receiver.pushes);
        let begun = Instant::now();
        let acknowledged = async {
            let reply = connection.request(request).await?;
            Ok::<_, Failure>((us_since(begun), reply))
        };
        let delivered = async {
            loop {
                match pushes.next().await {
                    Some(Push::Deliver(delivery)) => {
                        return Ok((us_since(begun), delivery.message.id));
                    }
                    Some(_) => {}
                    None => {
                        return Err(Failure::wrong("the receiver lost its connection".to_owned()));
                    }
                }
            }
        };
        let ((acknowledged_us, reply), (pushed_us, id)) =
            tokio::try_join!(acknowledged, delivered)?;
        match reply {
            Reply::Sent(sent) if sent.message == id => {}
            reply => return Err(Failure::wrong(format!("the send was answered with {reply:?}"))),
        }
        let presented = Request::Presented {
            messages: vec![id],
            carrier: Carrier::ToolResult,
            evidence: Evidence::NextCall,
        };
        match self.receiver.connection.request(presented).await? {
            Reply::Done => {}
            _ => return Err(unexpected()),
        }
        self.settled.push(us_since(begun));
        self.acknowledged.push(acknowledged_us);
        self.pushed.push(pushed_us);
        Ok(())
    }

    async fn finish(self) -> Result<Vec<Series>, Failure> {
        self.floor.stop()?;
        let mut series = vec![
            self.floor_answered,
            self.floor_forwarded,
            self.acknowledged,
            self.pushed,
            self.settled,
        ];
        if let Some(adapters) = self.adapters {
            adapters.stop().await?;
            series.push(self.notified);
        }
        Ok(series)
    }
}
