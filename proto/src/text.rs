//! Text from a peer, made fit to be shown to a model or on a terminal.
//!
//! This module knows characters and nothing else. Every text of a peer's making (a body, a name, a
//! summary, a path) passes through [`single_line`], [`quoted`], [`named`] or [`Body`] before it is
//! shown; what is stored and what JSON carries stays as it was sent.
//!
//! What it keeps: the result holds no character that moves a cursor, changes the reading order, or
//! ends a line other than where [`Body`] ends one. A character that draws nothing stays only where
//! the writing of its neighbours needs it (`unseen`): at most one selector and one joiner behind a
//! visible character, so that no text can be hidden in them. An escape sequence thus loses its
//! escape and stands there as plain text: nothing of it is acted on, and nothing is hidden from the
//! reader. What is shown once is shown the same when it passes through again. The time is linear in
//! the length.

mod unseen;

use unseen::{is_mark, is_unseen};

/// How wide a tab is shown: enough to keep indented code readable, whatever the terminal's tab
/// stops are.
const TAB: &str = "    ";

/// Most combining marks in a row. The longest stacks of Tibetan and of pointed Hebrew have nine; a
/// pile of dozens draws over the lines above and below.
pub const MARKS_IN_A_ROW_MAX: usize = 16;

/// The text in one line: line breaks and tabs become spaces, what is invisible and does no work
/// goes, the ends are trimmed.
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

/// A peer's words for use inside a sentence of ours: in one line, and in quotation marks that they
/// cannot close.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", single_line(text).replace('"', "'"))
}

/// A peer's name for something, such as a path, a program or a state: in one line, as it is where
/// it has no character that sentences are made of, else in quotation marks.
#[must_use]
pub fn named(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._/~:@#+=%-".contains(&byte);
    let line = single_line(text);
    // What was cut off ends in a sign of ours.
    if line.trim_end_matches('…').bytes().all(is_plain) { line } else { quoted(&line) }
}

/// A text of several lines as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Lines that `\n` alone ends; the last one has no end. LF, CR, CRLF and Unicode's two
    /// separators ended a line, and a tab became four spaces. A line end at the very end of the
    /// text added no empty line.
    pub text: String,
    /// How many characters were left out: those that draw nothing and do no work, and marks beyond
    /// [`MARKS_IN_A_ROW_MAX`]. A reader is told of them.
    pub left_out: usize,
}

impl Body {
    /// The text without what must not be shown.
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

    /// Its lines; none where the text is empty.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.split('\n').filter(|_| !self.text.is_empty())
    }

    /// What a reader is told of what was left out: words for behind a count or a text, none where
    /// nothing was.
    #[must_use]
    pub fn omission(&self) -> Option<String> {
        match self.left_out {
            0 => None,
            1 => Some("1 character left out that cannot be seen".to_owned()),
            count => Some(format!("{count} characters left out that cannot be seen")),
        }
    }
}

/// Whether a reader would see nothing of the text.
#[must_use]
pub fn is_blank(text: &str) -> bool {
    text.chars().all(|character| {
        is_blank_space(character) || character.is_whitespace() || is_unseen(character)
    })
}

/// Whether a character draws nothing but takes a place of its own.
fn is_blank_space(character: char) -> bool {
    // Unicode's space separators, and the Braille pattern without a dot.
    matches!(
        character,
        ' ' | '\u{a0}' | '\u{1680}' | '\u{2000}'
            ..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' | '\u{2800}'
    )
}

/// What is shown of a text so far, and the unseen characters of which the next visible one decides.
struct Sieve {
    shown: String,
    left_out: usize,
    /// Unseen characters since the last visible one.
    run: Vec<char>,
    /// The last visible character.
    last: Option<char>,
    /// The last visible one that is not a mark shared by scripts.
    base: Option<char>,
    /// Combining marks since the last other character.
    marks: usize,
    /// Where a run of blanks began in `shown`, its first character, and whether another kind
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
        // A line end is drawn, as the next line.
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

    /// Keeps of the run what its neighbours need.
    fn settle(&mut self, next: Option<char>) {
        if self.run.is_empty() {
            return;
        }
        let kept = unseen::working(&self.run, self.last, self.base, next);
        self.shown.extend(kept.iter());
        self.left_out += self.run.len() - kept.iter().count();
        self.run.clear();
    }

    /// A run of different blanks can be read as a text; one of plain spaces says only how long it
    /// is.
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
