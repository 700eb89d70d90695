//! The rules together: random runs of the real core, each step held against a naive model of what
//! is promised.
//!
//! The model is a flat list of letters (one message to one reader) with an owner, a stage and a
//! holder. It knows nothing of queues, windows or timers: it is told what was asked and what the
//! core decided, and insists that nothing else became of any letter. The guarantees are those of
//! `docs/delivery.md`, named G1 to G8 where they are checked.
//!
//! A run that fails is made small and printed as a list of operations, with the seed that finds it
//! again: `PROPTEST_RNG_SEED=<seed> PROPTEST_CASES=<cases> cargo test -p peer-core --test model`.
//! Each run draws a new seed.
//!
//! `operations` draws what happens, `model` has the letters, `answers` says what each answer does
//! to them, and `checks` holds the core's decisions against them.

mod answers;
mod checks;
mod model;
mod operations;
#[path = "../world/mod.rs"]
mod world;

use std::cell::Cell;
use std::env;

use peer_proto::limits::EXPIRY_GRACE_MS;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, RngSeed, TestCaseError, TestRunner};

use model::Model;
use operations::{Op, operation};

/// Runs that a plain `cargo test` affords; `PROPTEST_CASES` asks for more.
pub(crate) const CASES: u32 = 512;

/// Operations of one run.
pub(crate) const OPERATIONS: std::ops::Range<usize> = 1..100;

/// Programs that are sessions; the first two are adapters of one client process.
pub(crate) const SESSIONS: usize = 4;
pub(crate) const PIDS: [u32; SESSIONS] = [1_000, 1_000, 1_001, 1_002];
pub(crate) const NAMES: [&str; 3] = ["luna", "orion", "vega"];
pub(crate) const SEATS: [&str; 4] = ["claude:S0", "claude:S1", "codex:T0", "name:orion"];
pub(crate) const THREADS: [&str; 2] = ["x", "y"];

/// The person's terminal, and one within the third program's process tree.
pub(crate) const BOSS: usize = SESSIONS;
pub(crate) const SHELL: usize = SESSIONS + 1;

pub(crate) const ATTEMPTS_MAX: u32 = 2;
pub(crate) const PENDING_MAX: u32 = 150;
pub(crate) const FORGET_MS: u64 = 168 * 3_600_000;
pub(crate) const WAKE_DRIFT_MS: u64 = 5_000;

fn play(ops: &[Op]) {
    let mut model = Model::new();
    for op in ops {
        model.run(op);
    }
    // In the end everything waits or has ended, and a broker that starts anew knows the same.
    model.run(&Op::Pass { millis: EXPIRY_GRACE_MS + 1_000 });
    model.run(&Op::Restart { hold_escalation: false });
    model.run(&Op::Pass { millis: EXPIRY_GRACE_MS + 1_000 });
}

#[test]
fn random_runs_keep_every_promise() {
    let mut config = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    };
    if env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    config.rng_algorithm = RngAlgorithm::ChaCha;
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => TestRunner::default().rng().random(),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    let cases = config.cases;
    let broken = Cell::new(0_u32);
    // While a failing run is made small, its panics are many and the last one is what counts.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result =
        TestRunner::new(config).run(&prop::collection::vec(operation(), OPERATIONS), |ops| {
            std::panic::catch_unwind(|| play(&ops)).map_err(|panic| {
                broken.set(broken.get() + 1);
                let said = panic.downcast_ref::<String>().cloned();
                TestCaseError::fail(
                    said.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                        .unwrap_or_default(),
                )
            })
        });
    std::panic::set_hook(hook);
    if let Err(error) = result {
        panic!(
            "{error}\nto see it again: PROPTEST_RNG_SEED={seed} PROPTEST_CASES={cases} (made small in {} runs)",
            broken.get()
        );
    }
}
