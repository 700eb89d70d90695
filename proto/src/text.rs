//! Text from a peer, made fit to be shown to a model or on a terminal.
//!
//! This module knows characters and nothing else. Every text of a peer's making (a body, a name, a summary, a path) passes
//! through one of these two functions before it is shown; what is stored and what JSON carries stays as it was sent.
//!
//! What it keeps: the result holds no character that moves a cursor, changes the reading order, draws nothing, or ends a
//! line other than where [`body_lines`] ends one. An escape sequence thus loses its escape and stands there as plain text:
//! nothing of it is acted on, and nothing is hidden from the reader.

/// How wide a tab is shown: enough to keep indented code readable, whatever the terminal's tab stops are.
const TAB: &str = "    ";

/// The text in one line: line breaks and tabs become spaces, what is invisible goes, the ends are trimmed.
#[must_use]
pub fn single_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    let mut after_break = false;
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => {
                // A run of breaks is one space: CRLF must not look wider than LF.
                if !after_break {
                    line.push(' ');
                }
                after_break = true;
            }
            character if is_unseen(character) => {}
            character => {
                line.push(character);
                after_break = false;
            }
        }
    }
    line.trim().to_owned()
}

/// The text's lines without their ends: LF, CR, CRLF and Unicode's two separators end a line, a tab becomes four spaces,
/// what is invisible goes. A line end at the very end of the text adds no empty line.
pub fn body_lines(text: &str) -> impl Iterator<Item = String> {
    let mut shown = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\r' => {
                characters.next_if_eq(&'\n');
                shown.push('\n');
            }
            '\n' | '\u{2028}' | '\u{2029}' => shown.push('\n'),
            '\t' => shown.push_str(TAB),
            character if is_unseen(character) => {}
            character => shown.push(character),
        }
    }
    shown.lines().map(str::to_owned).collect::<Vec<_>>().into_iter()
}

/// Whether a reader would see nothing of the text.
#[must_use]
pub fn is_blank(text: &str) -> bool {
    text.chars().all(|character| character.is_whitespace() || is_unseen(character) || is_filler(character))
}

/// Whether a character of some script draws nothing by itself. Unlike what is unseen it may be needed by its neighbours.
fn is_filler(character: char) -> bool {
    matches!(
        character,
        // Grapheme joiner, Hangul fillers, Khmer inherent vowels.
        '\u{034f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}' | '\u{ffa0}'
        // The blank Braille pattern, the basic variation selectors.
        | '\u{2800}' | '\u{fe00}'..='\u{fe0f}'
    )
}

/// Whether a character is none that a reader sees: a control, a mark that reorders text, or one that draws nothing.
fn is_unseen(character: char) -> bool {
    // C0, DEL and C1. Line breaks and tabs were looked at before.
    character.is_control()
        || matches!(character,
            // Soft hyphen, Arabic letter mark, Mongolian vowel separator.
            '\u{00ad}' | '\u{061c}' | '\u{180e}'
            // Zero-width space and joiners, left-to-right and right-to-left marks.
            | '\u{200b}'..='\u{200f}'
            // Embeddings and overrides of direction.
            | '\u{202a}'..='\u{202e}'
            // Word joiner, invisible operators, isolates, deprecated format characters.
            | '\u{2060}'..='\u{206f}'
            // Byte order mark, interlinear annotation.
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            // Tags and the variation selectors beyond the basic ones: whole hidden texts have been written in them.
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        body_lines(text).collect()
    }

    #[test]
    fn plain_text_stays_as_it_is() {
        assert_eq!(single_line("bcrypt 5.1, ça va? 日本語 🦀"), "bcrypt 5.1, ça va? 日本語 🦀");
        assert_eq!(lines("one\n\n  two"), ["one", "", "  two"]);
        assert_eq!(lines(""), Vec::<String>::new());
        assert_eq!(lines("one\n"), ["one"]);
    }

    #[test]
    fn every_kind_of_line_end_ends_a_line() {
        assert_eq!(lines("a\r\nb\rc\nd\u{2028}e\u{2029}f\r\r\ng"), ["a", "b", "c", "d", "e", "f", "", "g"]);
        assert_eq!(single_line("a\r\nb\rc\nd\u{2028}e\u{2029}f\n\n\tg"), "a b c d e f g");
    }

    #[test]
    fn an_escape_sequence_loses_its_escape() {
        assert_eq!(single_line("\u{1b}[31mred\u{1b}[0m \u{9b}2J\u{1b}]0;title\u{7}"), "[31mred[0m 2J]0;title");
        assert_eq!(lines("a\u{8}\u{8}b\u{0}\u{7f}\u{85}c"), ["abc"]);
    }

    #[test]
    fn what_reorders_or_draws_nothing_goes() {
        for unseen in [
            '\u{200e}',
            '\u{200f}',
            '\u{061c}',
            '\u{202a}',
            '\u{202e}',
            '\u{2066}',
            '\u{2069}',
            '\u{200b}',
            '\u{200c}',
            '\u{200d}',
            '\u{2060}',
            '\u{feff}',
            '\u{e0001}',
            '\u{e0041}',
            '\u{e007f}',
            '\u{e0100}',
        ] {
            let text = format!("a{unseen}b");
            assert_eq!(single_line(&text), "ab", "{unseen:?}");
            assert_eq!(lines(&text), ["ab"], "{unseen:?}");
        }
    }

    #[test]
    fn a_text_of_which_nothing_is_seen_is_blank() {
        for blank in [
            "",
            " \t\r\n",
            "\u{200b}\u{feff}",
            "\u{1b}\u{7}",
            "\u{3000}\u{2028}",
            "\u{e0041}\u{e007f}",
            "\u{2800}\u{3164}\u{fe0f}",
        ] {
            assert!(is_blank(blank), "{blank:?}");
        }
        for seen in [".", "\u{200b}a", "❤\u{fe0f}", "\u{301}", "0"] {
            assert!(!is_blank(seen), "{seen:?}");
        }
    }

    #[test]
    fn tabs_become_spaces() {
        assert_eq!(lines("\tx\ty"), ["    x    y"]);
        assert_eq!(single_line("\tx\ty\t"), "x y");
    }
}
