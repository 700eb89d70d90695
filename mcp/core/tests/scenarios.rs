//! The scenarios of the adapter's rules, in `tests/scenarios`. `tests/world/mod.rs` has the words of
//! their language, and the runner, which the broker's rules share, says how to write and play them.

#![allow(unreachable_pub, reason = "the modules of one test")]
#![expect(
    clippy::disallowed_methods,
    reason = "the runner reads its scripts; the core knows no files"
)]

#[path = "../../../broker/core/tests/runner/mod.rs"]
mod runner;
mod world;

use std::path::Path;

use world::World;

#[test]
fn every_scenario_goes_as_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    runner::check(&dir, 60, || {
        let mut world = World::default();
        move |line: &str| {
            world.run(line);
            world.take_said()
        }
    });
}
