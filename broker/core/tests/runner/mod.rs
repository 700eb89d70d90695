//! Plays scenarios: text files in which a line is an input, and the indented lines below it are the
//! answer. The rules of the broker and those of the adapter each have a directory of them.
//!
//! A line that begins with `#` is a comment. A file's name says the rule that it shows.
//! `PEERD_WRITE_SCENARIOS=1` writes the answers anew; read the difference before committing it.
//! `PEERD_SCENARIOS=task,note` plays only those whose names have one of these words.

use std::fs;
use std::path::{Path, PathBuf};

/// Plays every scenario of a directory, of which there are at least `least`, and compares. `world`
/// makes a new world: it runs a line and returns the answer.
pub fn check<World: FnMut(&str) -> String>(dir: &Path, least: usize, world: impl Fn() -> World) {
    let files = files(dir);
    let least = if std::env::var_os("PEERD_SCENARIOS").is_some() { 1 } else { least };
    assert!(files.len() >= least, "only {} scenarios were found", files.len());
    let mut wrong = Vec::new();
    for path in &files {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let script = fs::read_to_string(path).expect("readable");
        let played =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play(&script, world())))
                .unwrap_or_else(|_| panic!("{name} broke an invariant or cannot be played"));
        if std::env::var_os("PEERD_WRITE_SCENARIOS").is_some() {
            fs::write(path, &played).expect("writable");
        } else if played != script {
            let first = played
                .lines()
                .zip(script.lines().chain(std::iter::repeat("")))
                .find(|(played, written)| played != written);
            wrong.push(format!("{name}: decided (left), written (right): {first:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn files(dir: &Path) -> Vec<PathBuf> {
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

fn play(script: &str, mut run: impl FnMut(&str) -> String) -> String {
    let mut played = String::new();
    for line in script.lines().filter(|line| !line.starts_with("    ")) {
        played.push_str(line);
        played.push('\n');
        if !line.trim().is_empty() && !line.starts_with('#') {
            played.push_str(&run(line));
        }
    }
    played
}
