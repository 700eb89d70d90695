//! Links under a simulator: real rules of brokers and links, and a network, processes and people
//! that do their worst.
//!
//! Two to five brokers, each with links to some of the others. One seed, one clock and one network
//! decide everything, so that a seed replays exactly. The stores are the maps of the rules' own test
//! world, and each request is one commit: a broker is killed between any two, also before it has
//! told anybody. Frames travel as bytes: in a stream that is cut at any byte, with the length before
//! each frame that `peer-link` writes, or through a service that loses, repeats, reorders, loses its
//! tail, loses its place, or brings frames of connections that have ended. Some link processes lie.
//!
//! | | always | at the end, when everything is whole again |
//! |---|---|---|
//! | I1 | what a sender's broker calls stored elsewhere is stored there; what its sender was told is over is not taken any more | each accepted message has ended at its sender's broker, or is a dead letter at the other |
//! | I2 | nothing is pushed after its proof | |
//! | I3 | | per sender and reader, mail was stored in the order in which it was accepted |
//! | I4 | `presented` only if it is presented there, with the same text; withdrawn only by its sender | |
//! | I5 | mail does not come back, and is not passed on | |
//! | I6 | only a link of X brings what X said, to whom it was sent, and hears of it | |
//! | I7 | no rule panics, and no remote clock moves this broker's ids | |
//! | I8 | | both brokers agree, also on acknowledgements |
//! | I9 | | no receipt is due |
//! | I10 | | nothing is under way |
//! | I11 | | whose message ended undelivered was told |
//!
//! Checked in part only:
//!
//! - Of a machine that was put back, what it has forgotten is left out of I1, I2, I4 and I8, and its
//!   senders and readers of I3. A peer that lost its token by it may keep mail that nobody reads.
//! - The later half of I1 is left out where a machine was put back, or somebody sets clocks.
//! - I3 leaves out what a person requeued or dropped, and copies that came after a refusal.
//! - I8 leaves out what had ended here when the other person removed the link, with its receipts. It
//!   takes two different ends without a presentation for agreement.
//! - I11 leaves out questions, whose end has rules of its own, and senders that are forgotten.
//! - The disk never fills. A transport's own frames and the process around the rules are tested with
//!   real ones (`tests/links`).
//!
//! `PEERD_LINK_SEEDS=N` plays so many seeds, from `PEERD_LINK_FROM` on and on `PEERD_LINK_THREADS`
//! threads. `PEERD_LINK_SEED=N` plays only that one, as a failure names it, and `PEERD_LINK_TELL=1`
//! prints its moves. `faults/run` switches each rule off in turn.

#![allow(unreachable_pub, reason = "the modules of one test")]
#![expect(
    clippy::disallowed_methods,
    reason = "the runner reads how much it is to play; the rules know no environment"
)]
#![expect(clippy::print_stdout, reason = "it says how often each move was made")]

mod book;
mod checks;
mod lies;
mod moves;
mod net;
mod node;
#[path = "../../../../mcp/core/tests/both_ends/random.rs"]
mod random;
mod sim;
#[path = "../../../../broker/core/tests/world/mod.rs"]
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sim::Sim;

/// Seeds that the plain test run plays, and moves in each.
const SEEDS: u64 = 10_000;
const MOVES_EACH: u64 = 220;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Returns how often each move was made, and a digest of all that happened.
fn play(seed: u64) -> (BTreeMap<&'static str, u64>, u64) {
    let mut sim = Sim::new(seed);
    for _ in 0..MOVES_EACH {
        sim.step();
    }
    sim.settle();
    (sim.counts, sim.digest)
}

/// Plays every so many seeds, until one fails anywhere.
fn play_some(seeds: impl Iterator<Item = u64>, failed: &AtomicBool) -> BTreeMap<&'static str, u64> {
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in seeds {
        if failed.load(Ordering::Relaxed) {
            break;
        }
        match catch_unwind(AssertUnwindSafe(|| play(seed))) {
            Ok((played, _)) => {
                for (kind, count) in played {
                    *counts.entry(kind).or_default() += count;
                }
            }
            Err(_) => {
                failed.store(true, Ordering::Relaxed);
                println!(
                    "replay with: PEERD_LINK_SEED={seed} cargo test -p peer-link-core --test sim"
                );
            }
        }
    }
    counts
}

#[test]
fn no_message_is_lost_shown_twice_or_out_of_order_across_links() {
    if let Some(seed) = number("PEERD_LINK_SEED") {
        play(seed);
        return;
    }
    let first = number("PEERD_LINK_FROM").unwrap_or(0);
    let seeds = first..first + number("PEERD_LINK_SEEDS").unwrap_or(SEEDS);
    let threads = number("PEERD_LINK_THREADS").map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        |threads| usize::try_from(threads).expect("not so many"),
    );
    let failed = Arc::new(AtomicBool::new(false));
    let parts = (0..threads).map(|part| {
        let (seeds, failed) = (seeds.clone().skip(part).step_by(threads), Arc::clone(&failed));
        std::thread::spawn(move || play_some(seeds, &failed))
    });
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for part in parts.collect::<Vec<_>>() {
        for (kind, count) in part.join().expect("a part ends") {
            *counts.entry(kind).or_default() += count;
        }
    }
    assert!(!failed.load(Ordering::Relaxed), "an invariant was broken: see above");
    for (kind, count) in &counts {
        println!("{count:>9} {kind}");
    }
    if number("PEERD_LINK_SEEDS").is_none() {
        for (kind, count) in counts {
            assert!(count >= 200, "{kind} was played {count} times only");
        }
    }
}

#[test]
fn a_seed_that_is_played_again_gives_the_same() {
    for seed in 0..20 {
        assert_eq!(play(seed), play(seed), "seed {seed}");
    }
}
