//! Both ends at once: the broker's rules and adapters' cores, over links that lose what is under
//! way. Clients lie, die, come back, empty or compact their conversations, fork them, and have two
//! adapters for a while.
//!
//! Held wherever something is shown or stored:
//!
//! - A message becomes `presented` by evidence only if the model of the client that the evidence
//!   comes from has seen all of it, as the peer that it was sent to.
//! - Nothing is shown unasked after its proof.
//! - The broker is told of an offer before bytes can leave.
//! - What the model has seen is shown again only with a mark, if the same adapter had given it, or
//!   if the broker knew of the offer when it pushed the message.
//!
//! Held at the end, when clients behave for a while: every message was presented to its reader,
//! whatever happened before.
//!
//! Two things no adapter can know, and the test counts them as outcomes. First, a client without a
//! record may lose a hook, or drop a hook's output, and tell nobody. Then a later event may be taken
//! for evidence of what the client forgot. The test allows that for these messages alone, and only
//! for the evidence `next_call` and `next_turn`. Second, an offer may be lost with its adapter before
//! the broker has read it. Then the next showing has no mark.
//!
//! One thing is left out: a second adapter of a client other than Claude Code that registers under an
//! id that the broker does not know yet. It is a peer of its own, because the process of such a client
//! may have many conversations.
//!
//! `PEERD_BOTH_ENDS=WORLDS` plays so many worlds, `PEERD_BOTH_ENDS_SEED=N` only that one, as a
//! failure names it.

#![allow(unreachable_pub, reason = "the modules of one test")]
#![expect(
    clippy::disallowed_methods,
    reason = "the runner reads how much it is to play; the rules know no environment"
)]
#![expect(clippy::print_stdout, reason = "it says how often each move was made")]

mod client;
mod ends;
mod hooks;
mod link;
mod lives;
mod moves;
mod promises;
mod random;
mod settling;
#[path = "../../../../broker/core/tests/world/mod.rs"]
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use peer_mcp_core::ClientKind;

use client::Client;
use ends::Ends;
use moves::MOVES;
use random::Random;

/// Worlds that the plain test run plays, and moves in each.
const WORLDS: u64 = 940;
const MOVES_EACH: u64 = 500;

/// Most draws for the moves of one world: many do not apply where they are drawn.
const DRAWS_MAX: u64 = 60_000;

/// What a client is: each row is one kind of program, or one way to set it up.
fn clients() -> Vec<Client> {
    let claude = |hooks, records, shows_pushes| Client {
        hooks,
        records,
        shows_pushes,
        ..Client::new(ClientKind::Claude, 0)
    };
    let codex = |records| Client { hooks: true, records, ..Client::new(ClientKind::Codex, 0) };
    vec![
        claude(true, true, true),
        claude(true, true, false),
        claude(false, true, true),
        claude(false, true, false),
        claude(false, false, true),
        claude(true, true, false),
        claude(true, true, false),
        claude(false, true, false),
        claude(false, true, false),
        Client { names_turns: false, ..claude(true, false, true) },
        claude(true, false, false),
        Client { takes_pushes: false, ..claude(true, true, true) },
        Client { takes_pushes: false, ..claude(true, true, true) },
        Client { takes_pushes: false, ..codex(true) },
        Client { takes_pushes: false, ..codex(false) },
        Client { takes_pushes: false, ..claude(true, false, true) },
        codex(true),
        codex(false),
        Client { names_turns: false, ..codex(false) },
        Client::new(ClientKind::Other, 0),
    ]
}

fn play(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut random = Random::new(seed);
    let mut kinds = clients();
    let mut chosen = Vec::new();
    for _ in 0..lives::CLIENTS {
        let at = random.below(kinds.len());
        chosen.push(kinds.swap_remove(at));
    }
    let mut ends = Ends::new(random);
    for client in chosen {
        let conversation = ends.new_conversation();
        let client = ends.add(Client { conversation, ..client });
        ends.start(client);
    }
    let (mut made, mut drawn) = (0, 0);
    while made < MOVES_EACH && drawn < DRAWS_MAX {
        drawn += 1;
        made += u64::from(moves::step(&mut ends));
    }
    *ends.counts.entry("moves").or_default() += made;
    settling::settle(&mut ends);
    ends.counts
}

fn play_all(seeds: impl Iterator<Item = u64>) -> BTreeMap<&'static str, u64> {
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in seeds {
        let played = catch_unwind(AssertUnwindSafe(|| play(seed)));
        let played = played.unwrap_or_else(|_| {
            panic!("a promise was broken: PEERD_BOTH_ENDS_SEED={seed} plays it again")
        });
        for (what, times) in played {
            *counts.entry(what).or_default() += times;
        }
    }
    counts
}

#[test]
fn nothing_is_lost_repeated_after_proof_or_called_presented_unseen() {
    let number = |name: &str| {
        std::env::var(name).ok().map(|number| number.parse::<u64>().expect("a number"))
    };
    let seeds = match number("PEERD_BOTH_ENDS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PEERD_BOTH_ENDS").unwrap_or(WORLDS),
    };
    let is_whole = seeds.end - seeds.start >= WORLDS;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let parts = (0..threads).map(|first| {
        let seeds = seeds.clone();
        std::thread::spawn(move || play_all(seeds.skip(first).step_by(threads)))
    });
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    for part in parts.collect::<Vec<_>>() {
        let played = part.join().unwrap_or_else(|_| panic!("a promise was broken: see above"));
        for (what, times) in played {
            *counts.entry(what).or_default() += times;
        }
    }
    for (what, times) in &counts {
        println!("{times:>8}  {what}");
    }
    if is_whole {
        assert!(counts["moves"] >= 100_000, "{} moves", counts["moves"]);
        for (what, _, _) in MOVES {
            let times = counts.get(what).copied().unwrap_or(0);
            assert!(times >= 1_000, "{times} times: {what}");
        }
    }
}
