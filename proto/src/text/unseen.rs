//! Invisible characters: which they are, and where one of them has a function for its neighbours.
//!
//! A joiner or a selector is part of the spelling of Persian, Hindi or a Japanese name, and joins
//! several signs to one picture. A run of them after a Latin letter is a text that only a model
//! reads. Knows Unicode's properties, from the tables of two crates. Single characters are listed
//! here only if no property covers them. Invariant: between two visible characters at most one
//! flag's tags or one variation selector stay, then at most one joiner. Each stays only if its
//! neighbours use it.

use unicode_properties::{GeneralCategory, UnicodeEmoji, UnicodeGeneralCategory};
use unicode_script::{Script, UnicodeScript};

/// The character before the tags of a flag.
const BLACK_FLAG: char = '\u{1f3f4}';

/// The tags of the flags that are in use, each with its end: England, Scotland, Wales.
const FLAGS: [[char; 6]; 3] = [
    ['\u{e0067}', '\u{e0062}', '\u{e0065}', '\u{e006e}', '\u{e0067}', '\u{e007f}'],
    ['\u{e0067}', '\u{e0062}', '\u{e0073}', '\u{e0063}', '\u{e0074}', '\u{e007f}'],
    ['\u{e0067}', '\u{e0062}', '\u{e0077}', '\u{e006c}', '\u{e0073}', '\u{e007f}'],
];

const ZERO_WIDTH_SPACE: char = '\u{200b}';
const ZERO_WIDTH_NON_JOINER: char = '\u{200c}';
const ZERO_WIDTH_JOINER: char = '\u{200d}';
const GRAPHEME_JOINER: char = '\u{34f}';
const MONGOLIAN_VOWEL_SEPARATOR: char = '\u{180e}';

/// Whether a character is invisible: a control, a mark that reorders text, or one that draws
/// nothing.
pub(super) fn is_unseen(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    match character {
        // The grapheme joiner; Hangul fillers; Khmer inherent vowels.
        GRAPHEME_JOINER | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{17b4}' | '\u{17b5}'
        // Selectors of Mongolian, the basic ones, and what is or may become a selector or a tag.
        | '\u{180b}'..='\u{180f}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0000}'..='\u{e0fff}'
        // Kept free by Unicode for more of this kind.
        | '\u{2065}' | '\u{fff0}'..='\u{fff8}'
        // The musical null note head, the Khitan filler.
        | '\u{1d159}' | '\u{16fe4}' => true,
        // Format characters that draw a sign around the number or word behind them.
        '\u{600}'..='\u{605}' | '\u{6dd}' | '\u{70f}' | '\u{890}' | '\u{891}' | '\u{8e2}' | '\u{110bd}' | '\u{110cd}' => false,
        // The last two of each plane, and one block: no characters.
        '\u{fdd0}'..='\u{fdef}' => true,
        character if u32::from(character) & 0xfffe == 0xfffe => true,
        character => matches!(character.general_category(), GeneralCategory::Control | GeneralCategory::Format),
    }
}

/// Whether a character is drawn onto the one before it and takes no column.
pub(super) fn is_mark(character: char) -> bool {
    !character.is_ascii()
        && matches!(
            character.general_category(),
            GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark
        )
}

/// Whether a character takes the script of the one before it.
pub(super) fn is_inherited(character: char) -> bool {
    !character.is_ascii() && character.script() == Script::Inherited
}

/// Whether a character chooses a form of the one before it.
#[cfg(test)]
pub(super) fn is_selector(character: char) -> bool {
    matches!(character, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' | '\u{180b}'..='\u{180d}' | '\u{180f}')
}

/// The part of a run of invisible characters that stays.
pub(super) struct Working<'a> {
    first: &'a [char],
    joiner: Option<char>,
}

impl Working<'_> {
    /// The characters of that part, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = char> {
        self.first.iter().copied().chain(self.joiner)
    }
}

/// Selects the characters of a run that have a function. The run is between the visible character
/// `last` and `next`. `base` is the last character with its own script.
pub(super) fn working(
    run: &[char],
    last: Option<char>,
    base: Option<char>,
    next: Option<char>,
) -> Working<'_> {
    let is_flag = last == Some(BLACK_FLAG) && FLAGS.iter().any(|flag| run.starts_with(flag));
    let taken = match (is_flag, last, run.first()) {
        (true, ..) => FLAGS[0].len(),
        (false, Some(last), Some(&selector)) if takes(last, selector) => 1,
        _ => 0,
    };
    let (first, rest) = run.split_at(taken);
    Working { first, joiner: rest.iter().copied().find(|&joiner| joins(joiner, last, base, next)) }
}

/// Whether `selector` is one of the few that choose a form of `base`.
fn takes(base: char, selector: char) -> bool {
    match selector {
        // The text and the picture form of what is an emoji, digits with a keycap among them.
        '\u{fe0e}' | '\u{fe0f}' => base.is_emoji_char(),
        // Standardised forms: mathematical signs and script capitals, forms of a few scripts, the
        // zero with a stroke, East Asian punctuation and quotation marks.
        '\u{fe00}'..='\u{fe02}' => {
            matches!(
                base,
                '0' | '\u{2018}'
                    | '\u{2019}'
                    | '\u{201c}'
                    | '\u{201d}'
                    | '\u{3001}'
                    | '\u{3002}'
                    | '\u{210b}'
                    | '\u{2110}'
                    | '\u{2112}'
                    | '\u{211b}'
                    | '\u{212c}'
                    | '\u{2130}'
                    | '\u{2131}'
                    | '\u{2133}'
                    | '\u{1d49c}'
                    ..='\u{1d4b5}'
                        | '\u{ff01}'
                        | '\u{ff0c}'
                        | '\u{ff0e}'
                        | '\u{ff1a}'
                        | '\u{ff1b}'
                        | '\u{ff1f}'
            ) || (!base.is_ascii() && base.general_category() == GeneralCategory::MathSymbol)
                || matches!(
                    base.script(),
                    Script::Han | Script::Myanmar | Script::Phags_Pa | Script::Manichaean
                )
                || base.script() == Script::Egyptian_Hieroglyphs
        }
        // Turned hieroglyphs.
        '\u{fe03}'..='\u{fe06}' => base.script() == Script::Egyptian_Hieroglyphs,
        // Forms of an ideograph in names of people and places. The register knows up to 32 of one;
        // the selectors beyond carry a whole byte each.
        '\u{e0100}'..='\u{e011f}' => base.script() == Script::Han,
        '\u{180b}'..='\u{180d}' | '\u{180f}' => base.script() == Script::Mongolian,
        _ => false,
    }
}

/// Whether `joiner` has a function between two visible characters.
fn joins(joiner: char, last: Option<char>, base: Option<char>, next: Option<char>) -> bool {
    let both = |holds: fn(char) -> bool| base.is_some_and(holds) && next.is_some_and(holds);
    match joiner {
        // One neighbour is enough: both joiners also stand at the end of a word.
        ZERO_WIDTH_NON_JOINER
            if [base, next].into_iter().flatten().any(is_spelled_with_joiners) =>
        {
            true
        }
        ZERO_WIDTH_JOINER if [base, next].into_iter().flatten().any(is_spelled_with_joiners) => {
            true
        }
        ZERO_WIDTH_JOINER => last.is_some_and(is_picture) && next.is_some_and(is_picture),
        // A place where a line may break between words without a space.
        ZERO_WIDTH_SPACE => both(is_written_without_spaces),
        MONGOLIAN_VOWEL_SEPARATOR => both(|character| character.script() == Script::Mongolian),
        // Keeps two points of Hebrew in their order.
        GRAPHEME_JOINER => last.is_some_and(is_mark) && next.is_some_and(is_mark),
        _ => false,
    }
}

/// Whether a character can be joined with others to one picture.
fn is_picture(character: char) -> bool {
    !character.is_ascii() && character.is_emoji_char()
}

/// Whether a joiner or a non-joiner changes how the letters of the script are drawn. That holds for
/// scripts with joined letters, as Arabic, and for those of India, whose consonants form conjuncts.
fn is_spelled_with_joiners(character: char) -> bool {
    use Script::*;
    matches!(
        character.script(),
        Arabic
            | Syriac
            | Mandaic
            | Mongolian
            | Nko
            | Phags_Pa
            | Adlam
            | Hanifi_Rohingya
            | Manichaean
            | Psalter_Pahlavi
            | Sogdian
            | Old_Uyghur
            | Chorasmian
            | Devanagari
            | Bengali
            | Gurmukhi
            | Gujarati
            | Oriya
            | Tamil
            | Telugu
            | Kannada
            | Malayalam
            | Sinhala
            | Tibetan
            | Myanmar
            | Khmer
            | Balinese
            | Javanese
            | Sundanese
            | Tai_Tham
            | Cham
            | Meetei_Mayek
            | Syloti_Nagri
            | Saurashtra
            | Lepcha
            | Limbu
            | Batak
            | Brahmi
            | Kharoshthi
            | Kaithi
            | Chakma
            | Sharada
            | Grantha
            | Newa
            | Tirhuta
            | Siddham
            | Modi
            | Takri
            | Khojki
            | Khudawadi
            | Dogra
            | Nandinagari
            | Bhaiksuki
            | Masaram_Gondi
            | Gunjala_Gondi
            | Zanabazar_Square
            | Soyombo
            | Dives_Akuru
            | Tulu_Tigalari
            | Gurung_Khema
            | Kawi
    )
}

/// Whether the script has no space between words.
fn is_written_without_spaces(character: char) -> bool {
    use Script::*;
    matches!(
        character.script(),
        Thai | Lao
            | Khmer
            | Myanmar
            | Tai_Le
            | New_Tai_Lue
            | Tai_Tham
            | Tai_Viet
            | Tibetan
            | Balinese
            | Javanese
            | Sundanese
    )
}
