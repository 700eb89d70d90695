//! One line in the shell's own file: a short name for the long line that starts Claude Code with
//! the channel.
//!
//! It is written only where the person says so, and known again by the remark at its end.

use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::{Client, Place, claude};
use crate::error::Failure;

/// What the alias is called.
pub(crate) const NAME: &str = "peerclaude";

/// By which the line is known again.
const REMARK: &str = "# peerctl setup";

/// The alias as a line for a shell; fish writes it in the same way.
pub(crate) fn line() -> String {
    format!("alias {NAME}='{}'", claude::LAUNCH)
}

/// The file that the person's shell reads at its start; absent where the shell is not known.
pub(crate) fn file(place: &Place, shell: Option<&str>) -> Option<PathBuf> {
    match Path::new(shell?).file_name()?.to_str()? {
        "bash" => Some(place.home.join(".bashrc")),
        "zsh" => Some(place.home.join(".zshrc")),
        "fish" => Some(place.home.join(".config/fish/config.fish")),
        _ => None,
    }
}

/// The files of all shells that are known.
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
    // A text that ends within a line still does.
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

/// A file's text without the line.
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
