//! The definition of a word, shared by the index, queries and snippets.
//!
//! A word is a run of letters and digits. `snake_case`, `foo::bar` and `src/main.rs` are two or
//! three words each, and are found again as phrases. Case and accents are ignored. Scripts without
//! spaces between words have one word per character. Does not know the indexed fields.

use tantivy::tokenizer::{AsciiFoldingFilter, TextAnalyzer, Token, TokenStream, Tokenizer};

/// Characters of a word that count. Longer words with the same beginning are equal.
const WORD_CHARS_MAX: usize = 64;

/// Returns the analyzer that splits every text into words.
pub(super) fn analyzer() -> TextAnalyzer {
    TextAnalyzer::builder(Words::default()).filter(AsciiFoldingFilter).build()
}

/// Splits a text into words, in one case.
#[derive(Clone, Default)]
struct Words {
    token: Token,
}

struct WordStream<'a> {
    rest: std::iter::Peekable<std::str::CharIndices<'a>>,
    token: &'a mut Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream { rest: text.char_indices().peekable(), token: &mut self.token }
    }
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        self.token.text.clear();
        while self.rest.next_if(|(_, c)| !c.is_alphanumeric()).is_some() {}
        let Some((start, first)) = self.rest.next() else { return false };
        self.token.position = self.token.position.wrapping_add(1);
        self.token.offset_from = start;
        self.token.offset_to = start + first.len_utf8();
        fold(first, &mut self.token.text);
        if stands_alone(first) {
            return true;
        }
        let mut chars = 1;
        while let Some((at, c)) =
            self.rest.next_if(|(_, c)| (c.is_alphanumeric() && !stands_alone(*c)) || is_mark(*c))
        {
            self.token.offset_to = at + c.len_utf8();
            chars += 1;
            if chars <= WORD_CHARS_MAX && !is_mark(c) {
                fold(c, &mut self.token.text);
            }
        }
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

/// Appends a character in a form that ignores case: through upper case, so that ß is ss and ς is σ.
fn fold(c: char, out: &mut String) {
    if c.is_ascii() {
        out.push(c.to_ascii_lowercase());
    } else {
        out.extend(c.to_uppercase().flat_map(char::to_lowercase));
    }
}

/// Whether it is an accent that is written as a character of its own.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}')
}

/// Whether it is a character of a script without spaces between words.
fn stands_alone(c: char) -> bool {
    matches!(c,
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{2e80}'..='\u{2fdf}'
        | '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// A part of a query: words that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The part as it was typed, without quotation marks and star. It may name a message or a task.
    pub(super) typed: String,
    /// At least one.
    pub(super) words: Vec<String>,
    /// Whether the last word is a prefix.
    pub(super) open: bool,
}

/// Splits a query into its parts: `"several words"` are a phrase, and `word*` a prefix. A piece
/// without spaces that has several words, such as `foo::bar`, is also a phrase. All other
/// characters are ignored.
pub(super) fn parts(query: &str) -> Vec<Part> {
    let mut analyzer = analyzer();
    let mut found = Vec::new();
    for (place, piece) in query.split('"').enumerate() {
        // Every second piece is between quotation marks. An open quotation ends with the query.
        let pieces: Vec<&str> =
            if place % 2 == 1 { vec![piece] } else { piece.split_whitespace().collect() };
        for piece in pieces {
            let open = piece.ends_with('*');
            let typed = piece.trim_end_matches('*').trim();
            let mut words = Vec::new();
            analyzer.token_stream(typed).process(&mut |token| words.push(token.text.clone()));
            // A star after a space would match any word, so it is ignored.
            let open = open && typed.ends_with(|c: char| c.is_alphanumeric() || is_mark(c));
            if !words.is_empty() {
                found.push(Part { typed: typed.to_owned(), words, open });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        analyzer().token_stream(text).process(&mut |token| found.push(token.text.clone()));
        found
    }

    #[test]
    fn code_and_paths_fall_into_words() {
        assert_eq!(
            words("Call foo::bar(snake_case) in src/Main.rs!"),
            ["call", "foo", "bar", "snake", "case", "in", "src", "main", "rs"]
        );
        assert_eq!(words("m-01JDK3V7QX8Z2M4T T-12"), ["m", "01jdk3v7qx8z2m4t", "t", "12"]);
    }

    #[test]
    fn case_and_accents_do_not_count() {
        assert_eq!(words("STRASSE Straße ΛΌΓΟΣ λόγος"), ["strasse", "strasse", "λόγοσ", "λόγοσ"]);
        assert_eq!(words("Crème cre\u{300}me CREME"), ["creme", "creme", "creme"]);
    }

    #[test]
    fn scripts_without_spaces_have_a_word_per_character() {
        assert_eq!(words("部署v2完成"), ["部", "署", "v2", "完", "成"]);
    }

    #[test]
    fn a_long_word_is_cut_and_found_again() {
        let long = "x".repeat(500);
        assert_eq!(words(&long), ["x".repeat(WORD_CHARS_MAX)]);
        assert_eq!(words(&format!("{long} y")), ["x".repeat(WORD_CHARS_MAX), "y".into()]);
    }

    #[test]
    fn a_query_is_words_phrases_and_beginnings() {
        let part = |words: &[&str], open| {
            (words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(), open)
        };
        let told = |query: &str| {
            parts(query).into_iter().map(|part| (part.words, part.open)).collect::<Vec<_>>()
        };
        assert_eq!(
            told("Deploy \"blue green\" migr*"),
            [part(&["deploy"], false), part(&["blue", "green"], false), part(&["migr"], true)]
        );
        assert_eq!(
            told("foo::ba* snake_case"),
            [part(&["foo", "ba"], true), part(&["snake", "case"], false)]
        );
        assert_eq!(told("\"not closed"), [part(&["not", "closed"], false)]);
        assert_eq!(
            told("* ** \"\" ?? AND( -x:* \u{0} )"),
            [part(&["and"], false), part(&["x"], false)]
        );
    }
}
