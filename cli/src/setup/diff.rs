//! A unified diff of two small texts, for people to read before they say yes.
//!
//! It knows lines. Values are hidden where their name sounds like a secret, and very long
//! lines are cut to what changes, so that a diff can be shown to others.

use crate::output::beginning;

/// Lines shown around a change.
const CONTEXT_LINES: usize = 3;

/// Longest line that is shown whole.
const LINE_CHARS_MAX: usize = 160;

/// How much of a long line is shown around what changes.
const AROUND_CHARS: usize = 24;

/// Beyond this many changed lines the middle of a text is shown as replaced: the search grows with
/// the square of it.
const CHANGES_MAX: usize = 2_000;

/// What a name contains that stands before something secret.
const SECRET_NAMES: &[&str] =
    &["token", "secret", "password", "key", "auth", "credential", "cookie"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'text> {
    Same(&'text str),
    Gone(&'text str),
    New(&'text str),
}

/// The lines of a unified diff, without the two that name the files. Empty where the texts are the
/// same.
pub(crate) fn unified(before: &str, after: &str) -> Vec<String> {
    let lines = compare(&lines_of(before), &lines_of(after));
    let changed: Vec<usize> =
        (0..lines.len()).filter(|place| !matches!(lines[*place], Line::Same(_))).collect();
    let mut told = Vec::new();
    let mut next = 0;
    while let Some(first) = changed.get(next) {
        // A hunk goes on while the gap to the next change is no longer than the context of both.
        let mut last = next;
        while changed.get(last + 1).is_some_and(|place| place - changed[last] <= 2 * CONTEXT_LINES)
        {
            last += 1;
        }
        let start = first.saturating_sub(CONTEXT_LINES);
        let end = (changed[last] + CONTEXT_LINES + 1).min(lines.len());
        told.push(header(&lines, start, end));
        told.extend(hunk(&lines[start..end]));
        next = last + 1;
    }
    told
}

/// A text's lines with their ends; the mark of the byte order is no part of them.
fn lines_of(text: &str) -> Vec<&str> {
    text.trim_start_matches('\u{feff}').split_inclusive('\n').collect()
}

fn header(lines: &[Line<'_>], start: usize, end: usize) -> String {
    let count = |lines: &[Line<'_>], new: bool| {
        lines
            .iter()
            .filter(|line| !matches!((line, new), (Line::Gone(_), true) | (Line::New(_), false)))
            .count()
    };
    let side = |new| {
        let (skipped, shown) = (count(&lines[..start], new), count(&lines[start..end], new));
        format!("{},{shown}", if shown == 0 { skipped } else { skipped + 1 })
    };
    format!("@@ -{} +{} @@", side(false), side(true))
}

fn hunk(lines: &[Line<'_>]) -> Vec<String> {
    let mut told = Vec::new();
    for (place, line) in lines.iter().enumerate() {
        let (mark, text, other) = match line {
            Line::Same(text) => (' ', *text, None),
            Line::Gone(text) => {
                let counterpart = |line: &Line<'_>| {
                    if let Line::New(new) = line { Some(hidden(bare(new))) } else { None }
                };
                ('-', *text, lines[place + 1..].iter().find_map(counterpart))
            }
            Line::New(text) => {
                let counterpart = |line: &Line<'_>| {
                    if let Line::Gone(gone) = line { Some(hidden(bare(gone))) } else { None }
                };
                ('+', *text, lines[..place].iter().rev().find_map(counterpart))
            }
        };
        let shown = hidden(bare(text));
        told.push(match (mark, other) {
            (' ', _) => format!(" {}", beginning(&shown, LINE_CHARS_MAX)),
            // What is written or goes without a counterpart is shown whole.
            (_, None) => format!("{mark}{shown}"),
            (_, Some(other)) => format!("{mark}{}", cut(&shown, &other)),
        });
        if !text.ends_with('\n') {
            told.push("\\ no newline at the end of the file".to_owned());
        }
    }
    told
}

fn bare(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

/// A line of JSON or TOML without the values that a secret's name announces. What setup writes has
/// no such names.
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

/// Where a quoted text ends, its closing mark included.
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

/// A long line, cut to where it differs from `other`.
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

/// Myers' greedy search for the shortest edit, after what both texts begin and end with is set
/// aside.
fn compare<'text>(before: &[&'text str], after: &[&'text str]) -> Vec<Line<'text>> {
    let head = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let rest = before.len().min(after.len()) - head;
    let tail =
        before.iter().rev().zip(after.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let (old, new) = (&before[head..before.len() - tail], &after[head..after.len() - tail]);
    let mut lines: Vec<Line<'text>> = before[..head].iter().map(|line| Line::Same(line)).collect();
    match shortest(old, new) {
        Some(middle) => lines.extend(middle),
        None => {
            lines.extend(old.iter().map(|line| Line::Gone(line)));
            lines.extend(new.iter().map(|line| Line::New(line)));
        }
    }
    lines.extend(before[before.len() - tail..].iter().map(|line| Line::Same(line)));
    lines
}

fn shortest<'text>(old: &[&'text str], new: &[&'text str]) -> Option<Vec<Line<'text>>> {
    let most = (old.len() + new.len()).min(CHANGES_MAX);
    // `reach[most + k]`: how far into `old` the furthest path on diagonal k has come.
    let mut reach = vec![0usize; 2 * most + 2];
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    let signed = |place: usize| isize::try_from(place).unwrap_or(isize::MAX);
    for round in 0..=most {
        rounds.push(reach.clone());
        for k in (0..=2 * round).step_by(2) {
            let diagonal = most + k - round;
            let down = k == 0 || (k != 2 * round && reach[diagonal - 1] < reach[diagonal + 1]);
            let mut x = if down { reach[diagonal + 1] } else { reach[diagonal - 1] + 1 };
            // On diagonal d the place in `new` is x - d.
            let Some(mut y) = x.checked_add_signed(signed(most) - signed(diagonal)) else {
                continue;
            };
            while x < old.len() && y < new.len() && old[x] == new[y] {
                x += 1;
                y += 1;
            }
            reach[diagonal] = x;
            if x >= old.len() && y >= new.len() {
                return Some(trace(old, new, &rounds, most));
            }
        }
    }
    None
}

/// Walks back from the end through what each round had reached.
fn trace<'text>(
    old: &[&'text str],
    new: &[&'text str],
    rounds: &[Vec<usize>],
    most: usize,
) -> Vec<Line<'text>> {
    let (mut x, mut y) = (old.len(), new.len());
    let mut lines = Vec::new();
    for (round, reach) in rounds.iter().enumerate().rev() {
        let diagonal = most + x - y;
        let low = diagonal == most - round;
        let down = low || (diagonal != most + round && reach[diagonal - 1] < reach[diagonal + 1]);
        let from = if down { diagonal + 1 } else { diagonal - 1 };
        let (start_x, start_y) =
            if round == 0 { (0, 0) } else { (reach[from], reach[from] + most - from) };
        while x > start_x && y > start_y {
            lines.push(Line::Same(old[x - 1]));
            x -= 1;
            y -= 1;
        }
        if round > 0 && down {
            lines.push(Line::New(new[y - 1]));
            y -= 1;
        } else if round > 0 {
            lines.push(Line::Gone(old[x - 1]));
            x -= 1;
        }
    }
    lines.reverse();
    lines
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
            let (old, new): (Vec<&str>, Vec<&str>) = (before.iter().map(String::as_str).collect(), after.iter().map(String::as_str).collect());
            let lines = compare(&old, &new);
            let kept: Vec<&str> = lines.iter().filter_map(|line| match line { Line::Same(text) | Line::Gone(text) => Some(*text), Line::New(_) => None }).collect();
            let made: Vec<&str> = lines.iter().filter_map(|line| match line { Line::Same(text) | Line::New(text) => Some(*text), Line::Gone(_) => None }).collect();
            prop_assert_eq!(kept, old);
            prop_assert_eq!(made, new);
        }
    }
}
