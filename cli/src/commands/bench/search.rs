//! Measures how much the search index slows a send: the same sends to a broker with an index and to
//! one without.
//!
//! The second broker has a file in the place of its index. Each round begins after a second of
//! silence. In that second, the first broker starts to index the messages of the last round. The
//! speed of searching itself is measured by `cargo bench -p peer-broker --bench search`, against
//! SQLite's FTS5.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use peer_client::Connection;
use peer_proto::request::{Reply, Request, Role};
use peer_proto::search::SearchQuery;

use super::report::{self, Head, Series, us_since};
use super::{CONFIG, Dice, Session, message};
use crate::error::Failure;
use crate::operator::unexpected;
use crate::output::Output;
use crate::throwaway::Throwaway;

/// Milliseconds of silence after which a broker has started to index: a little more than its own
/// limit.
const SILENCE_MS: u64 = 1_010;

/// The recipient. It is offline, so that only sends are measured.
const RECEIVER: &str = "bench-receiver";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Number of rounds; the range of each ratio is taken over the rounds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Sends of each kind in one round
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
}

/// A broker, with the two connections that the bench needs.
struct Side {
    sender: Session,
    searcher: Connection,
}

impl Side {
    async fn open(room: &Throwaway) -> Result<Self, Failure> {
        drop(Session::open(&room.endpoint, RECEIVER).await?);
        let (searcher, _, _) = Connection::open(&room.endpoint, Role::Operator, None).await?;
        Ok(Self { sender: Session::open(&room.endpoint, "bench-sender").await?, searcher })
    }

    async fn send(&self, number: u64) -> Result<f64, Failure> {
        let begun = Instant::now();
        match self.sender.connection.request(Request::Send(message(RECEIVER, number))).await? {
            Reply::Sent(_) => Ok(us_since(begun)),
            _ => Err(unexpected()),
        }
    }

    async fn search(&self) -> Result<(), Failure> {
        let query = SearchQuery { text: "1*".to_owned(), limit: 10, ..SearchQuery::default() };
        match self.searcher.request(Request::Search(query)).await? {
            Reply::Hits { .. } => Ok(()),
            _ => Err(unexpected()),
        }
    }
}

pub(super) async fn run(
    args: &Args,
    output: &Output,
    room: &Throwaway,
    executable: &Path,
) -> Result<(), Failure> {
    let without = Throwaway::start_prepared(executable, CONFIG, |location| {
        fs::write(location.search_index(), [])
    })
    .await?;
    let measured = measure(args, output, room, &without).await;
    let stopped = without.stop().await;
    measured?;
    stopped
}

async fn measure(
    args: &Args,
    output: &Output,
    with: &Throwaway,
    without: &Throwaway,
) -> Result<(), Failure> {
    let (with, without) = (Side::open(with).await?, Side::open(without).await?);
    let mut dice = Dice::seeded();
    let seed = dice.0;
    let mut series = [
        Series::new("without_index", "send without an index", None),
        Series::new("with_index", "send with an index", Some("without_index")),
        Series::new("without_index_again", "send without an index, again", None),
        Series::new(
            "beside_searches",
            "send while a search indexes the send before",
            Some("without_index_again"),
        ),
    ];
    let mut number = 0;
    // The first round only warms up.
    for round in 0..=args.rounds {
        output.remark(&format!("round {round} of {}", args.rounds));
        series.iter_mut().for_each(|series| series.rounds.push(Vec::new()));
        for [base, measured] in [[0, 1], [2, 3]] {
            tokio::time::sleep(Duration::from_millis(SILENCE_MS)).await;
            let mut acts =
                [vec![base; args.samples as usize], vec![measured; args.samples as usize]].concat();
            dice.shuffle(&mut acts);
            for act in acts {
                number += 1;
                let us = match act {
                    0 | 2 => without.send(number).await?,
                    1 => with.send(number).await?,
                    _ => tokio::try_join!(with.send(number), with.search())?.0,
                };
                series[act].push(us);
            }
        }
        if round == 0 {
            series.iter_mut().for_each(|series| series.rounds.clear());
        }
    }
    let head =
        Head { what: "search", rounds: args.rounds, samples: args.samples, text_bytes: None, seed };
    report::print(output, head, &series)
}
