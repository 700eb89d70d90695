//! Runs the scenarios in `tests/scenarios`: a line is an event, and the indented lines below it
//! what the adapter's core decided.
//!
//! A line that begins with `#` is a comment. A file's name says the rule that it shows.
//! `tests/world/mod.rs` has the words of the language. `PEERD_WRITE_SCENARIOS=1` writes the answers
//! anew; read the difference before committing it. `PEERD_SCENARIOS=trial,hook` plays only those
//! whose names have one of these words.

#![expect(
    clippy::disallowed_methods,
    reason = "the runner reads its scripts; the core knows no files"
)]

mod world;

use std::fs;
use std::path::{Path, PathBuf};

use world::World;

/// Fewer would mean that the files were not found.
const SCENARIOS_MIN: usize = 60;

fn scenario_files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .expect("the scenarios are there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    if let Some(words) = std::env::var_os("PEERD_SCENARIOS") {
        let words = words.to_string_lossy();
        files.retain(|path| {
            words.split(',').any(|word| {
                path.file_name().is_some_and(|name| name.to_string_lossy().contains(word))
            })
        });
    }
    files.sort();
    files
}

fn play(script: &str) -> String {
    let mut world = World::default();
    let mut played = String::new();
    for line in script.lines().filter(|line| !line.starts_with("    ")) {
        played.push_str(line);
        played.push('\n');
        if !line.trim().is_empty() && !line.starts_with('#') {
            world.run(line);
            played.push_str(&world.take_said());
        }
    }
    played
}

#[test]
fn every_scenario_goes_as_written() {
    let files = scenario_files();
    let least = if std::env::var_os("PEERD_SCENARIOS").is_some() { 1 } else { SCENARIOS_MIN };
    assert!(files.len() >= least, "only {} scenarios were found", files.len());
    let mut wrong = Vec::new();
    for path in &files {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let script = fs::read_to_string(path).expect("readable");
        let played = std::panic::catch_unwind(|| play(&script))
            .unwrap_or_else(|_| panic!("{name} cannot be played"));
        if std::env::var_os("PEERD_WRITE_SCENARIOS").is_some() {
            fs::write(path, &played).expect("writable");
        } else if played != script {
            let first = played
                .lines()
                .zip(script.lines().chain(std::iter::repeat("")))
                .find(|(played, written)| played != written);
            wrong.push(format!("{name}: the adapter said (left), written (right): {first:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
