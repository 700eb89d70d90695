//! The scenarios of the broker's rules, in `tests/scenarios`. In an answer, `*` is a change and `>` an
//! effect. `tests/runner` says how to write and play them.

#![allow(unreachable_pub, reason = "the modules of one test")]

mod runner;
mod world;

use std::path::Path;

use peer_core::broker::Config;
use world::World;

#[test]
fn every_scenario_goes_as_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    runner::check(&dir, 100, || {
        let mut world = World::new(Config::default());
        move |line: &str| {
            world.run(line);
            std::mem::take(&mut world.said)
        }
    });
}
