//! One line in the shell's startup file: a short name for the command that starts Claude Code with
//! the channel.
//!
//! Knows the startup files of three shells. Invariant: the line is written only on the person's
//! request, and recognized by the comment at its end.

use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::{Client, Place, claude};
use crate::error::Failure;

pub(crate) const NAME: &str = "peerclaude";

/// The comment by which the line is recognized.
const REMARK: &str = "# peerctl setup";

/// The alias as a line for a shell; fish has the same form.
pub(crate) fn line() -> String {
    format!("alias {NAME}='{}'", claude::LAUNCH)
}

/// The startup file of the person's shell; `None` if the shell is not known.
pub(crate) fn file(place: &Place, shell: Option<&str>) -> Option<PathBuf> {
    match Path::new(shell?).file_name()?.to_str()? {
        "bash" => Some(place.home.join(".bashrc")),
        "zsh" => Some(place.home.join(".zshrc")),
        "fish" => Some(place.home.join(".config/fish/config.fish")),
        _ => None,
    }
}

/// The startup files of all known shells.
pub(crate) fn files(place: &Place) -> Vec<(PathBuf, Vec<PathBuf>)> {
    ["bash", "zsh", "fish"]
        .iter()
        .filter_map(|shell| file(place, Some(shell)))
        .map(|path| (path, Vec::new()))
        .collect()
}

/// Drafts the line.
pub(crate) fn draft(path: &Path, draft: &mut Draft) -> Result<(), Failure> {
    let text = draft.text(Client::Claude, path)?.unwrap_or_default();
    if text.lines().any(is_ours) {
        return Ok(());
    }
    let line = format!("{} {REMARK}", line());
    // A text without a final newline still has none.
    let new = if text.is_empty() || text.ends_with('\n') {
        format!("{text}{line}\n")
    } else {
        format!("{text}\n{line}")
    };
    draft.set(path, Some(new), format!("the alias {NAME}"));
    Ok(())
}

fn is_ours(line: &str) -> bool {
    line.starts_with(&format!("alias {NAME}=")) && line.trim_end().ends_with(REMARK)
}

/// The text of a file without the line.
pub(crate) fn strip(text: &str) -> String {
    let mut kept: String = text.split_inclusive('\n').filter(|line| !is_ours(line)).collect();
    if text.lines().last().is_some_and(is_ours) && !text.ends_with('\n') && kept.ends_with('\n') {
        kept.pop();
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_comes_and_goes_to_the_byte() {
        for before in ["", "a", "a\n", "a\n\n", "a\r\nb"] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(".bashrc");
            std::fs::write(&path, before).unwrap();
            let mut drafted = Draft::default();
            draft(&path, &mut drafted).unwrap();
            let after = drafted.text(Client::Claude, &path).unwrap().unwrap();
            assert!(
                after.contains("alias peerclaude='claude --dangerously-load-development-channels"),
                "{after}"
            );
            assert_eq!(strip(&after), before);
        }
    }
}
