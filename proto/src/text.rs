//! Makes text from a peer safe to show to a model or on a terminal.
//!
//! Knows characters and nothing else. Every text that a peer wrote (a body, a name, a summary, a
//! path) passes through [`single_line`], [`quoted`], [`named`] or [`ShownText`] before it is shown.
//! Stored text and JSON stay as they were sent.
//!
//! The invariants:
//!
//! - The result has no character that moves a cursor or changes the reading order. A line ends only
//!   where [`ShownText`] ends one.
//! - An invisible character stays only if the writing of its neighbours needs it (`unseen`): at
//!   most one selector and one joiner after a visible character. So no text can be hidden in them.
//! - An escape sequence loses its escape and stays as plain text: it has no effect, and none of it
//!   is hidden.
//! - A shown text that passes through again is unchanged. The time is linear in the length.

mod unseen;

use unseen::{is_mark, is_unseen};

/// The blanks that replace a tab: enough to keep indented code readable, at any tab stops of the
/// terminal.
const TAB: &str = "    ";

/// Most combining marks in a row. The longest stacks of Tibetan and of pointed Hebrew have nine. A
/// pile of dozens draws over the lines above and below.
pub const MARKS_IN_A_ROW_MAX: usize = 16;

/// The text in one line. Line breaks and tabs become spaces, invisible characters without a
/// function are removed, and the ends are trimmed.
#[must_use]
pub fn single_line(text: &str) -> String {
    let mut sieve = Sieve::new(text.len());
    let mut after_break = false;
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => {
                // A run of breaks is one space: CRLF must not look wider than LF.
                if !after_break {
                    sieve.push(' ');
                }
                after_break = true;
            }
            character if is_unseen(character) => sieve.push(character),
            character => {
                sieve.push(character);
                after_break = false;
            }
        }
    }
    sieve.finish().0.trim().to_owned()
}

/// A peer's text for use inside a sentence of ours: in one line, and in quotation marks that it
/// cannot close.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", single_line(text).replace('"', "'"))
}

/// A peer's name for something, such as a path, a program or a state, in one line. It is in
/// quotation marks if it has characters of which sentences are made.
#[must_use]
pub fn named(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._/~:@#+=%-".contains(&byte);
    let line = single_line(text);
    // A text that was cut off ends in a sign of ours.
    if line.trim_end_matches('…').bytes().all(is_plain) { line } else { quoted(&line) }
}

/// A text of several lines, as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShownText {
    /// Lines separated by `
    /// `; the last one has no line end. LF, CR, CRLF and Unicode's two separators end a line, and a
    /// tab becomes four spaces. A line end at the very end adds no empty line.
    pub text: String,
    /// The number of characters that were left out: invisible ones without a function, and marks
    /// beyond [`MARKS_IN_A_ROW_MAX`]. The output reports this number.
    pub left_out: usize,
}

impl ShownText {
    /// The text without the characters that must not be shown.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut sieve = Sieve::new(text.len());
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '\r' => {
                    characters.next_if_eq(&'\n');
                    sieve.push('\n');
                }
                '\n' | '\u{2028}' | '\u{2029}' => sieve.push('\n'),
                '\t' => TAB.chars().for_each(|blank| sieve.push(blank)),
                character => sieve.push(character),
            }
        }
        let (mut text, left_out) = sieve.finish();
        if text.ends_with('\n') {
            text.pop();
        }
        Self { text, left_out }
    }

    /// Its lines; no lines if the text is empty.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.split('\n').filter(|_| !self.text.is_empty())
    }

    /// The report of the characters that were left out, to be added after a count or a text; `None`
    /// if there are none.
    #[must_use]
    pub fn omission(&self) -> Option<String> {
        match self.left_out {
            0 => None,
            1 => Some("1 invisible character left out".to_owned()),
            count => Some(format!("{count} invisible characters left out")),
        }
    }
}

/// Whether the text has no visible character.
#[must_use]
pub fn is_blank(text: &str) -> bool {
    text.chars().all(|character| {
        is_blank_space(character) || character.is_whitespace() || is_unseen(character)
    })
}

/// Whether a character draws nothing but takes a column.
fn is_blank_space(character: char) -> bool {
    // Unicode's space separators, and the Braille pattern without a dot.
    matches!(
        character,
        ' ' | '\u{a0}' | '\u{1680}' | '\u{2000}'
            ..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' | '\u{2800}'
    )
}

/// The shown text so far, and the invisible characters that the next visible one decides on.
struct Sieve {
    shown: String,
    left_out: usize,
    /// Invisible characters since the last visible one.
    run: Vec<char>,
    /// The last visible character.
    last: Option<char>,
    /// The last visible character that is not a mark shared by scripts.
    base: Option<char>,
    /// Combining marks since the last other character.
    marks: usize,
    /// The start of a run of blanks in `shown`, its first character, and whether another kind
    /// followed.
    blanks: Option<(usize, char, bool)>,
}

impl Sieve {
    fn new(capacity: usize) -> Self {
        Self {
            shown: String::with_capacity(capacity),
            left_out: 0,
            run: Vec::new(),
            last: None,
            base: None,
            marks: 0,
            blanks: None,
        }
    }

    fn push(&mut self, character: char) {
        let is_mark = is_mark(character);
        // A line end is visible, as the next line.
        if (character != '\n' && is_unseen(character))
            || (is_mark && self.marks == MARKS_IN_A_ROW_MAX)
        {
            self.run.push(character);
            return;
        }
        self.settle(Some(character));
        self.marks = if is_mark { self.marks + 1 } else { 0 };
        match &mut self.blanks {
            Some((_, first, mixed)) if is_blank_space(character) => *mixed |= *first != character,
            None if is_blank_space(character) => {
                self.blanks = Some((self.shown.len(), character, false))
            }
            Some(_) => self.end_blanks(),
            None => {}
        }
        self.shown.push(character);
        self.last = Some(character);
        if !unseen::is_inherited(character) {
            self.base = Some(character);
        }
    }

    /// Keeps the characters of the run that its neighbours need.
    fn settle(&mut self, next: Option<char>) {
        if self.run.is_empty() {
            return;
        }
        let kept = unseen::working(&self.run, self.last, self.base, next);
        self.shown.extend(kept.iter());
        self.left_out += self.run.len() - kept.iter().count();
        self.run.clear();
    }

    /// Replaces a run of different blanks, in which a text can be hidden. A run of plain spaces has
    /// only a length.
    fn end_blanks(&mut self) {
        if let Some((start, _, true)) = self.blanks.take() {
            let count = self.shown[start..].chars().count();
            self.shown.truncate(start);
            self.shown.extend(std::iter::repeat_n(' ', count));
        }
    }

    fn finish(mut self) -> (String, usize) {
        self.settle(None);
        self.end_blanks();
        (self.shown, self.left_out)
    }
}

#[cfg(test)]
mod tests;
