//! Measures many messages under way: how many per second are durable and delivered.
//!
//! Knows the broker's protocol. Does not know how a ratio is computed.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use peer_proto::limits::{MESSAGES_PER_REQUEST_MAX, REQUESTS_IN_FLIGHT_MAX};
use peer_proto::message::{Carrier, Evidence};
use peer_proto::request::{Push, Reply, Request};
use schemars::JsonSchema;
use serde::Serialize;
use tokio::task::JoinSet;

use super::floor::{ANSWER_BYTES, Floor, Pair, RECORD_BYTES};
use super::report::{Ratios, hundredths, percentile};
use super::{Dice, Session, TEXT_BYTES, message};
use crate::error::Failure;
use crate::operator::unexpected;
use crate::output::Output;
use crate::throwaway::Throwaway;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Number of rounds; the range of the ratio is taken over the rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Sessions that send; each one has its own receiver
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    producers: u32,

    /// Messages that one producer may have unacknowledged
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=REQUESTS_IN_FLIGHT_MAX as i64))]
    window: u32,

    /// Messages of one producer in one round
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,
}

/// A sender with its receiver.
struct Lane {
    sender: Session,
    receiver: Session,
    to: String,
    /// The number of its next message. Texts and keys never repeat.
    next: u64,
}

/// Messages that were durable, acknowledged and delivered, in a second.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Throughput {
    what: &'static str,
    rounds: u32,
    producers: u32,
    /// The messages that each producer may have unacknowledged.
    window: u32,
    /// The messages of each producer in one round.
    messages: u32,
    text_bytes: usize,
    /// The seed of the random order.
    seed: u64,
    per_second: f64,
    /// The rate of a relay that only writes, syncs and forwards.
    floor_per_second: f64,
    /// The ratio of the two rates, taken round by round.
    ratio: Ratios,
}

pub(super) async fn run(args: &Args, output: &Output, room: &Throwaway) -> Result<(), Failure> {
    let mut dice = Dice::seeded();
    let seed = dice.0;
    let mut lanes = Vec::new();
    for number in 0..args.producers {
        let to = format!("bench-{number}-in");
        lanes.push(Lane {
            sender: Session::open(&room.endpoint, &format!("bench-{number}-out")).await?,
            receiver: Session::open(&room.endpoint, &to).await?,
            to,
            next: u64::from(number) << 40,
        });
    }
    let mut floor = Floor::start(room.endpoint.location.dir(), args.producers as usize)?;
    let (mut broker_rates, mut floor_rates) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        output.remark(&format!("round {round} of {}", args.rounds));
        let mut order = [true, false];
        dice.shuffle(&mut order);
        for broker in order {
            if broker {
                let (took, back) = broker_round(lanes, args).await?;
                lanes = back;
                broker_rates.push(rate(args, took));
            } else {
                floor_rates.push(rate(args, floor_round(&mut floor, args)?));
            }
        }
    }
    floor.stop()?;
    let ratios: Vec<_> =
        broker_rates.iter().zip(&floor_rates).map(|(broker, floor)| broker / floor).collect();
    let ratios = Ratios::of(&ratios);
    let (broker, floor) = (percentile(&broker_rates, 0.5), percentile(&floor_rates, 0.5));
    if output.json {
        return output.json(&Throughput {
            what: "throughput",
            rounds: args.rounds,
            producers: args.producers,
            window: args.window,
            messages: args.messages,
            text_bytes: TEXT_BYTES,
            seed,
            per_second: hundredths(broker),
            floor_per_second: hundredths(floor),
            ratio: ratios,
        });
    }
    output.line(&format!(
        "{TEXT_BYTES} bytes, {} producers with up to {} unacknowledged messages each, {} rounds of {} messages per producer (seed {seed})",
        args.producers, args.window, args.rounds, args.messages
    ))?;
    output.facts(&[
        (
            "floor",
            format!("{floor:.0} messages/s synced, answered and forwarded, median of the rounds"),
        ),
        ("peerd", format!("{broker:.0} messages/s durable, acknowledged and delivered")),
        ("peerd / floor", ratios.text()),
    ])
}

fn rate(args: &Args, took: Duration) -> f64 {
    f64::from(args.producers) * f64::from(args.messages) / took.as_secs_f64()
}

/// Runs all lanes at the same time, until every message is acknowledged and delivered.
async fn broker_round(lanes: Vec<Lane>, args: &Args) -> Result<(Duration, Vec<Lane>), Failure> {
    let (messages, window) = (args.messages as usize, args.window as usize);
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for lane in lanes {
        running.spawn(drive(lane, messages, window));
    }
    let mut back = Vec::new();
    let mut took = Duration::ZERO;
    while let Some(ended) = running.join_next().await {
        let (ended_at, lane) =
            ended.map_err(|_| Failure::wrong("a lane of the bench died".to_owned()))??;
        took = took.max(ended_at.duration_since(begun));
        back.push(lane);
    }
    Ok((took, back))
}

/// Sends and receives this many messages. Returns the time of the last one.
async fn drive(mut lane: Lane, messages: usize, window: usize) -> Result<(Instant, Lane), Failure> {
    let Lane { sender, receiver, to, next } = &mut lane;
    let first = *next;
    *next += messages as u64;
    let sending = async {
        let mut answers = VecDeque::with_capacity(window);
        for number in first..first + messages as u64 {
            if answers.len() == window {
                acknowledged(answers.pop_front()).await?;
            }
            answers.push_back(sender.connection.submit(Request::Send(message(to, number))));
        }
        for answer in answers {
            acknowledged(Some(answer)).await?;
        }
        Ok(Instant::now())
    };
    let receiving = receive(receiver, messages);
    let (acknowledged_at, (delivered_at, settled)) = tokio::try_join!(sending, receiving)?;
    // Outside of the measured time, so that the next round begins with nothing under way.
    for answer in settled {
        let Reply::Done = answer.await? else { return Err(unexpected()) };
    }
    Ok((acknowledged_at.max(delivered_at), lane))
}

async fn acknowledged(answer: Option<peer_client::Answer>) -> Result<(), Failure> {
    let Some(answer) = answer else { return Ok(()) };
    match answer.await? {
        Reply::Sent(sent) if sent.deliveries.iter().all(|delivery| delivery.refusal.is_none()) => {
            Ok(())
        }
        reply => Err(Failure::wrong(format!("a send was answered with {reply:?}"))),
    }
}

/// Receives pushed messages and settles them in batches.
async fn receive(
    session: &mut Session,
    messages: usize,
) -> Result<(Instant, Vec<peer_client::Answer>), Failure> {
    let mut received = 0;
    let mut settling: Vec<peer_client::Answer> = Vec::new();
    let mut at = Instant::now();
    while received < messages {
        let mut push = session.pushes.next().await;
        let mut batch = Vec::new();
        loop {
            match push {
                Some(Push::Deliver(delivery)) => batch.push(delivery.message.id),
                Some(_) => {}
                None => return Err(Failure::wrong("a receiver lost its connection".to_owned())),
            }
            if batch.len() == MESSAGES_PER_REQUEST_MAX {
                break;
            }
            match session.pushes.try_next() {
                Some(next) => push = Some(next),
                None => break,
            }
        }
        at = Instant::now();
        received += batch.len();
        if !batch.is_empty() {
            let presented = Request::Presented {
                messages: batch,
                carrier: Carrier::ToolResult,
                evidence: Evidence::NextCall,
            };
            settling.push(session.connection.submit(presented));
        }
    }
    Ok((at, settling))
}

/// Puts the same load on the floor's relay, with two threads per lane.
fn floor_round(floor: &mut Floor, args: &Args) -> Result<Duration, Failure> {
    let (messages, window) = (args.messages as usize, args.window as usize);
    let begun = Instant::now();
    let outcome: io::Result<()> = std::thread::scope(|scope| {
        let mut running = Vec::new();
        for Pair { sender, receiver } in &mut floor.pairs {
            running.push(scope.spawn(move || send_to_floor(sender, messages, window)));
            running.push(scope.spawn(move || {
                let mut record = [0; RECORD_BYTES];
                (0..messages).try_for_each(|_| receiver.read_exact(&mut record))
            }));
        }
        running.into_iter().try_for_each(|lane| {
            lane.join().unwrap_or_else(|_| Err(io::Error::other("a thread died")))
        })
    });
    outcome.map_err(|source| Failure::system("driving the relay of the floor", source))?;
    Ok(begun.elapsed())
}

fn send_to_floor(
    socket: &mut (impl Read + Write),
    messages: usize,
    window: usize,
) -> io::Result<()> {
    let (mut sent, mut answered) = (0, 0);
    let mut answers = vec![0; window * ANSWER_BYTES];
    let mut partial = 0;
    while answered < messages {
        let now = (window - (sent - answered)).min(messages - sent);
        if now > 0 {
            socket.write_all(&vec![1; now * RECORD_BYTES])?;
            sent += now;
        }
        match socket.read(&mut answers)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                partial += read;
                answered += partial / ANSWER_BYTES;
                partial %= ANSWER_BYTES;
            }
        }
    }
    Ok(())
}
