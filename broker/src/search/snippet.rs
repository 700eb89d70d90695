//! Snippets: the part of a text that best shows why it was found, in one line.
//!
//! Knows words and parts of a query. Does not know the kind of text. Invariants: a snippet is one
//! line without control characters. The ranges are on its character borders, in order, and do not
//! overlap.

use tantivy::tokenizer::TextAnalyzer;

use super::words::Part;

/// The approximate size of a snippet in bytes.
const SNIPPET_BYTES: usize = 160;

/// Bytes before the first match that are shown with it.
const LEAD_BYTES: usize = 40;

/// A snippet and the ranges of its matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snippet {
    pub(super) text: String,
    pub(super) matches: Vec<(u32, u32)>,
}

/// Returns the snippet of `text` for these parts. If none of them is in it, returns its beginning.
pub(super) fn snippet(analyzer: &mut TextAnalyzer, text: &str, parts: &[Part]) -> Snippet {
    let text = one_line(text);
    let found = matches(analyzer, &text, parts);
    // Choose the stretch with the most different parts, and the first of several.
    let worth = |from: usize| {
        let within = found
            .iter()
            .filter(|at| at.start >= from && at.end <= from + SNIPPET_BYTES - LEAD_BYTES);
        within.fold(0_u64, |seen, at| seen | 1 << (at.part % 64)).count_ones()
    };
    let best = found
        .iter()
        .map(|at| at.start)
        .max_by_key(|start| (worth(*start), std::cmp::Reverse(*start)));
    let wanted_start = best.map_or(0, |at| at.saturating_sub(LEAD_BYTES));
    let start = if wanted_start == 0 || text.len() <= SNIPPET_BYTES {
        0
    } else {
        border_after(&text, wanted_start)
    };
    let end = border_before(&text, (start + SNIPPET_BYTES).min(text.len()));
    let mut shown = String::new();
    if start > 0 {
        shown.push('…');
    }
    let shift = shown.len();
    shown.push_str(&text[start..end]);
    if end < text.len() {
        shown.push('…');
    }
    let mut matches: Vec<(u32, u32)> = Vec::new();
    for at in found.iter().filter(|at| at.start >= start && at.end <= end) {
        let range = ((at.start - start + shift) as u32, (at.end - start + shift) as u32);
        match matches.last_mut() {
            Some(last) if range.0 < last.1 => last.1 = last.1.max(range.1),
            _ => matches.push(range),
        }
    }
    Snippet { text: shown, matches }
}

/// The place of a part in the text, as byte offsets.
struct Match {
    start: usize,
    end: usize,
    part: usize,
}

/// A word of the text: its place, and its end in the text of all folded words.
struct Word {
    start: usize,
    end: usize,
    folded_end: usize,
}

fn matches(analyzer: &mut TextAnalyzer, text: &str, parts: &[Part]) -> Vec<Match> {
    let (mut words, mut folded): (Vec<Word>, String) = (Vec::new(), String::new());
    analyzer.token_stream(text).process(&mut |token| {
        folded.push_str(&token.text);
        words.push(Word {
            start: token.offset_from,
            end: token.offset_to,
            folded_end: folded.len(),
        });
    });
    let folded_at = |place: usize| {
        let start = place.checked_sub(1).map_or(0, |before| words[before].folded_end);
        &folded[start..words[place].folded_end]
    };
    let mut found = Vec::new();
    for (place, part) in parts.iter().enumerate() {
        let Some(last) = part.words.len().checked_sub(1) else { continue };
        for first in 0..words.len().saturating_sub(last) {
            let fits = part.words.iter().enumerate().all(|(at, wanted)| {
                let word = folded_at(first + at);
                word == wanted || (part.open && at == last && word.starts_with(wanted.as_str()))
            });
            if fits {
                found.push(Match {
                    start: words[first].start,
                    end: words[first + last].end,
                    part: place,
                });
            }
        }
    }
    found.sort_by_key(|at| (at.start, at.end));
    found
}

/// Returns a text with one space for any separator, and without characters that control a terminal.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        let acts = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if c.is_whitespace() || c.is_control() || acts {
            if !line.is_empty() && !line.ends_with(' ') {
                line.push(' ');
            }
        } else {
            line.push(c);
        }
    }
    line.truncate(line.trim_end().len());
    line
}

/// Returns the start of a word at `at` or soon after, or else a character's border.
fn border_after(text: &str, at: usize) -> usize {
    let at = (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let near = text[at..].char_indices().take(LEAD_BYTES / 2).find(|(_, c)| *c == ' ');
    near.map_or(at, |(offset, _)| at + offset + 1)
}

fn border_before(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::words::{analyzer, parts};
    use super::*;

    fn shown(text: &str, query: &str) -> (String, Vec<String>) {
        let snippet = snippet(&mut analyzer(), text, &parts(query));
        let marked = snippet
            .matches
            .iter()
            .map(|(from, to)| snippet.text[*from as usize..*to as usize].to_owned());
        let marked = marked.collect();
        (snippet.text, marked)
    }

    #[test]
    fn a_short_text_is_shown_whole_in_one_line() {
        let (text, marked) =
            shown("fix the\n\tParser::new,\u{1b}[2J\u{202e} please", "parser::new pleas*");
        assert_eq!(text, "fix the Parser::new, [2J please");
        assert_eq!(marked, ["Parser::new", "please"]);
    }

    #[test]
    fn a_long_text_is_cut_where_most_is_found() {
        let filler = "lorem ipsum dolor ".repeat(40);
        let (text, marked) = shown(
            &format!("deploy {filler} the deploy needs a migration {filler}"),
            "migration deploy",
        );
        assert!(
            text.starts_with('…') && text.ends_with('…') && text.len() <= SNIPPET_BYTES + 6,
            "{text}"
        );
        assert_eq!(marked, ["deploy", "migration"]);
    }

    #[test]
    fn odd_characters_break_nothing() {
        for text in [
            "",
            "…",
            "🦀".repeat(200).as_str(),
            "é".repeat(300).as_str(),
            "部署完成".repeat(100).as_str(),
        ] {
            for query in ["", "é", "完成", "x*", "\"署完\""] {
                let (text, marked) = shown(text, query);
                assert!(
                    !text.contains('\n') && marked.iter().all(|marked| !marked.is_empty()),
                    "{text} {marked:?}"
                );
            }
        }
        let (text, marked) = shown(&"部署完成".repeat(100), "完成");
        assert!(text.contains("完成") && marked.iter().all(|marked| marked == "完成"), "{text}");
    }
}
