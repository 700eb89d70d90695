//! A unified diff of two small texts, for a person to read before agreeing.
//!
//! Knows lines, and the form of JSON and TOML values. Does not know files. Invariant: a diff can be
//! shown to others. A value is hidden if its name is typical of a secret, and a very long line is
//! cut to the changed part.

use similar::{Algorithm, Change, ChangeTag, DiffOp, capture_diff_slices, group_diff_ops};

use crate::output::beginning;

/// Unchanged lines that are shown before and after a change.
const CONTEXT_LINES: usize = 3;

/// Longest line that is shown whole.
const LINE_CHARS_MAX: usize = 160;

/// Characters of a long line that are shown before and after the changed part.
const AROUND_CHARS: usize = 24;

/// Parts of names whose values are secret.
const SECRET_NAMES: &[&str] =
    &["token", "secret", "password", "key", "auth", "credential", "cookie"];

/// The lines of a unified diff, without the two lines that name the files. Empty if the texts are
/// equal.
pub(crate) fn unified(before: &str, after: &str) -> Vec<String> {
    let (old, new) = (lines_of(before), lines_of(after));
    let hunks = group_diff_ops(capture_diff_slices(Algorithm::Myers, &old, &new), CONTEXT_LINES);
    let mut told = Vec::new();
    for hunk in hunks {
        let changes: Vec<_> = hunk.iter().flat_map(|op| op.iter_changes(&old, &new)).collect();
        told.extend(header(&hunk));
        told.extend(shown(&changes));
    }
    told
}

/// A text's lines with their line ends, without the byte order mark.
fn lines_of(text: &str) -> Vec<&str> {
    text.trim_start_matches('\u{feff}').split_inclusive('\n').collect()
}

fn header(hunk: &[DiffOp]) -> Option<String> {
    let (first, last) = (hunk.first()?, hunk.last()?);
    let side = |start: usize, end: usize| {
        format!("{},{}", if start == end { start } else { start + 1 }, end - start)
    };
    let old = side(first.old_range().start, last.old_range().end);
    let new = side(first.new_range().start, last.new_range().end);
    Some(format!("@@ -{old} +{new} @@"))
}

fn shown(changes: &[Change<&str>]) -> Vec<String> {
    let of = |tag: ChangeTag| {
        move |change: &Change<&str>| (change.tag() == tag).then(|| hidden(bare(change.value())))
    };
    let mut told = Vec::new();
    for (place, change) in changes.iter().enumerate() {
        let (before, after) = (&changes[..place], &changes[place + 1..]);
        let other = match change.tag() {
            ChangeTag::Equal => None,
            ChangeTag::Delete => after.iter().find_map(of(ChangeTag::Insert)),
            ChangeTag::Insert => before.iter().rev().find_map(of(ChangeTag::Delete)),
        };
        let line = hidden(bare(change.value()));
        let line = match (change.tag(), other) {
            (ChangeTag::Equal, _) => beginning(&line, LINE_CHARS_MAX),
            // A line without a counterpart is shown whole.
            (_, None) => line,
            (_, Some(other)) => cut(&line, &other),
        };
        told.push(format!("{}{line}", change.tag()));
        if !change.value().ends_with('\n') {
            told.push("\\ no newline at the end of the file".to_owned());
        }
    }
    told
}

fn bare(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// A line of JSON or TOML without the values of secret names. The entries of setup have no such
/// names.
fn hidden(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    let mut secret = false;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || "_-.".contains(c);
        let (word, inner) = match first {
            '"' | '\'' => {
                let end = closing(rest, first);
                (&rest[..end], rest[1..end].trim_end_matches(first))
            }
            _ if is_word(first) => {
                let word = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
                (word, word)
            }
            _ => {
                secret &= !['}', ']'].contains(&first);
                shown.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            }
        };
        rest = &rest[word.len()..];
        if rest.trim_start().starts_with([':', '=']) {
            let name = inner.to_lowercase();
            secret = SECRET_NAMES.iter().any(|sounds| name.contains(sounds));
            shown.push_str(word);
        } else {
            shown.push_str(if secret && !inner.is_empty() { "…" } else { word });
        }
    }
    shown
}

/// The end of a quoted text, after its closing quotation mark.
fn closing(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (place, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return place + 1,
            _ => {}
        }
    }
    text.len()
}

/// A long line, cut to the part that differs from `other`.
fn cut(line: &str, other: &str) -> String {
    let chars: Vec<char> = line.chars().collect();
    if chars.len() <= LINE_CHARS_MAX {
        return line.to_owned();
    }
    let other: Vec<char> = other.chars().collect();
    let same = chars.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let rest = chars.len().min(other.len()) - same;
    let same_end =
        chars.iter().rev().zip(other.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let start = same.saturating_sub(AROUND_CHARS);
    let end = (chars.len() - same_end + AROUND_CHARS).min(chars.len());
    let before = if start > 0 { "…" } else { "" };
    let after = if end < chars.len() { "…" } else { "" };
    format!("{before}{}{after}", chars[start..end].iter().collect::<String>())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_change_is_shown_with_its_neighbours() {
        let before = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\n";
        let after = "a\nb\nc\nd\ne!\nf\ng\nh\ni\nj\nk\nl\nm";
        let told = unified(before, after);
        assert_eq!(
            told[..8],
            ["@@ -2,7 +2,7 @@", " b", " c", " d", "-e", "+e!", " f", " g"],
            "{told:#?}"
        );
        let end =
            ["@@ -10,3 +10,4 @@", " j", " k", " l", "+m", "\\ no newline at the end of the file"];
        assert_eq!(told[9..], end, "{told:#?}");
        assert_eq!(unified("", "x\n"), ["@@ -0,0 +1,1 @@", "+x"]);
        assert_eq!(unified("same", "same"), Vec::<String>::new());
    }

    #[test]
    fn secrets_around_a_change_and_ends_of_long_lines_are_not_shown() {
        let told = unified("\"API_TOKEN\": \"hush\",\nx\n", "\"API_TOKEN\": \"hush\",\ny\n");
        assert_eq!(told[1], " \"API_TOKEN\": …,");
        for (line, shown) in [
            (
                r#"{"env":{"OPENAI_API_KEY":"sk-\"1","N":"2"}}"#,
                r#"{"env":{"OPENAI_API_KEY":…,"N":"2"}}"#,
            ),
            (
                r#"env = { GH_TOKEN = 'x y', MODE = "a" } # c"#,
                r#"env = { GH_TOKEN = …, MODE = "a" } # c"#,
            ),
            (r#""cookies": ["a", "b"], "plain": ["c"]"#, r#""cookies": […, …], "plain": ["c"]"#),
            (r#"PASSWORD = 12 "#, "PASSWORD = … "),
            (r#"command = "say \"auth\"" "#, r#"command = "say \"auth\"" "#),
            ("\"open", "\"open"),
        ] {
            assert_eq!(hidden(line), shown);
        }
        let long = |middle: &str| format!("{{{}{middle}{}}}", "a".repeat(500), "b".repeat(500));
        let told = unified(&long(""), &long("HERE"));
        assert_eq!(told[1], format!("-…{}{}…", "a".repeat(24), "b".repeat(24)));
        assert!(told[3].contains("aHEREb") && told[3].chars().count() < 60, "{told:#?}");
    }

    proptest! {
        #[test]
        fn a_diff_leads_from_one_text_to_the_other(
            before in prop::collection::vec("[a-d]\n", 0..30),
            after in prop::collection::vec("[a-d]\n", 0..30),
        ) {
            let mut rest = before.iter().map(|line| bare(line));
            let mut made = Vec::new();
            for line in unified(&before.concat(), &after.concat()) {
                if let Some(numbers) = line.strip_prefix("@@ -") {
                    // The lines before the hunk are equal in both texts.
                    let start = numbers.split_once(',').expect("a start").0.parse::<usize>().expect("a number");
                    let nothing = usize::from(numbers.split_once(' ').expect("two sides").0.ends_with(",0"));
                    let same = (start + nothing).saturating_sub(1) - (before.len() - rest.len());
                    made.extend(rest.by_ref().take(same));
                    continue;
                }
                let (mark, text) = line.split_at(1);
                if mark != "+" {
                    prop_assert_eq!(rest.next(), Some(text));
                }
                if mark != "-" {
                    made.push(after[made.len()].trim_end());
                    prop_assert_eq!(made.last(), Some(&text));
                }
            }
            made.extend(rest);
            prop_assert_eq!(made, after.iter().map(|line| bare(line)).collect::<Vec<_>>());
        }
    }
}
