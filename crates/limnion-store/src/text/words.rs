//! What a word is.
//!
//! The rules are those of the tokenizer `unicode61` of SQLite's FTS5 with `remove_diacritics 2`, by the current Unicode:
//!
//! - Letters, numbers (general categories L and N) and characters for private use (Co) belong to words; all others
//!   separate them. A combining mark that some Latin letter is composed with does not separate, and is left out.
//! - Letters go to lower case, one for one (simple case folding).
//! - A Latin letter that Unicode composes of a basic one and marks is the basic one: `ế` is `e`. Other scripts keep their
//!   marks.
//!
//! Known differences, all of which a test goes through: SQLite knows the Unicode of 2012. Characters that are newer or not
//! assigned it takes for letters as they are, so newer emoji belong to words there, and newer capitals (Cherokee, Osage,
//! Adlam) are not folded. Some vowels of New Tai Lue were marks then, and separate. And Ǡ keeps its marks. Both engines
//! have their words from here, so none of this makes a difference between them.

use crate::hash::brief;
use unicode_normalization::char::{decompose_canonical, is_combining_mark};

/// Calls `each` with every word of a text, in order.
pub fn each_word(text: &str, mut each: impl FnMut(&str)) {
    let mut word = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            word.push(c.to_ascii_lowercase());
        } else if !c.is_ascii() && belongs(c) {
            word.push(fold(c));
        } else if !word.is_empty() && !is_diacritic(c) {
            each(&word);
            word.clear();
        }
    }
    if !word.is_empty() {
        each(&word);
    }
}

/// The words of a text, in order.
pub fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    each_word(text, |word| words.push(word.to_owned()));
    words
}

/// The words of a text with one space between them. The words of that are the same again.
pub fn normalized(text: &str) -> String {
    let mut normalized = String::with_capacity(text.len());
    each_word(text, |word| {
        if !normalized.is_empty() {
            normalized.push(' ');
        }
        normalized.push_str(word);
    });
    normalized
}

/// A number that tells words and where they stand in a text from other ones; the sum of [`word_sum`] of each. 0: no words.
pub fn sum(text: &str) -> u64 {
    let (mut sum, mut at) = (0u64, 0);
    each_word(text, |word| {
        sum = sum.wrapping_add(word_sum(word.as_bytes(), at));
        at += 1;
    });
    sum
}

/// What a word adds to [`sum`] at its place, which counts from 0.
pub fn word_sum(word: &[u8], at: u64) -> u64 {
    u64::from_le_bytes(brief([word, &at.to_le_bytes()]))
}

/// Whether a character is part of a word: general category L, N or Co.
fn belongs(c: char) -> bool {
    // Alphabetic are letters (L), letter numbers (Nl), some marks and some circled letters (So).
    let letter = c.is_alphabetic() && !is_combining_mark(c) && !is_circled(c);
    letter || c.is_numeric() || is_private(c)
}

fn is_circled(c: char) -> bool {
    matches!(c, '\u{24B6}'..='\u{24E9}' | '\u{1F130}'..='\u{1F149}' | '\u{1F150}'..='\u{1F169}' | '\u{1F170}'..='\u{1F189}')
}

fn is_private(c: char) -> bool {
    matches!(c, '\u{E000}'..='\u{F8FF}' | '\u{F0000}'..='\u{FFFFD}' | '\u{100000}'..='\u{10FFFD}')
}

/// The combining marks that occur in canonical decompositions of Latin letters.
fn is_diacritic(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{304}' | '\u{306}'..='\u{30C}' | '\u{30F}' | '\u{311}' | '\u{31B}'
        | '\u{323}'..='\u{328}' | '\u{32D}' | '\u{32E}' | '\u{330}' | '\u{331}')
}

/// Lower case, without diacritics.
fn fold(c: char) -> char {
    let lower = fold_case(c);
    let mut parts = 0;
    let mut first = lower;
    decompose_canonical(lower, |part| {
        if parts == 0 {
            first = part;
        }
        parts += 1;
    });
    if first.is_ascii_alphabetic() { first.to_ascii_lowercase() } else { lower }
}

/// Simple case folding, as far as the mappings of single letters give it: by way of upper case, so that the forms of one
/// letter meet (ς and σ).
fn fold_case(c: char) -> char {
    // The dotless i is a letter of its own.
    if c == 'ı' {
        return c;
    }
    let lower = |c: char| single(c.to_lowercase()).unwrap_or(c);
    single(c.to_uppercase()).map_or_else(|| lower(c), lower)
}

fn single(mut chars: impl Iterator<Item = char>) -> Option<char> {
    let first = chars.next()?;
    chars.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// The words of each text, as SQLite's own tokenizer has them.
    fn theirs(texts: &[String]) -> Vec<Vec<String>> {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE VIRTUAL TABLE t USING fts5(x, tokenize = 'unicode61 remove_diacritics 2');
                 CREATE VIRTUAL TABLE v USING fts5vocab(t, instance); BEGIN",
            )
            .unwrap();
        let mut insert = connection.prepare("INSERT INTO t (rowid, x) VALUES (?1, ?2)").unwrap();
        for (at, text) in texts.iter().enumerate() {
            insert.execute((at as i64, text)).unwrap();
        }
        let mut words = vec![Vec::new(); texts.len()];
        let mut instances = connection.prepare("SELECT doc, offset, term FROM v").unwrap();
        let mut rows = instances.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let (text, offset): (i64, i64) = (row.get(0).unwrap(), row.get(1).unwrap());
            let of: &mut Vec<(i64, String)> = &mut words[text as usize];
            of.push((offset, row.get(2).unwrap()));
        }
        let ordered = |mut words: Vec<(i64, String)>| {
            words.sort();
            words.into_iter().map(|(_, word)| word).collect()
        };
        words.into_iter().map(ordered).collect()
    }

    #[test]
    fn words_are_those_of_sqlite_but_for_what_it_does_not_know() {
        let chars: Vec<char> = ('\u{1}'..'\u{20000}').chain('\u{E0000}'..'\u{E0200}').collect();
        let texts: Vec<String> = chars.iter().map(|c| format!("a{c}B {c}{c}")).collect();
        let mut unknown = 0;
        for ((c, text), theirs) in chars.iter().zip(&texts).zip(theirs(&texts)) {
            let as_it_is = theirs == [format!("a{c}b"), format!("{c}{c}")];
            let odd = matches!(c, 'Ǡ' | '\u{19B0}'..='\u{19C9}' | '\u{1CF2}' | '\u{1CF3}');
            let known = matches!(c,
                '\u{1}'..='\u{1DF}' | '\u{1E2}'..='\u{36F}' | '\u{38E}'..='\u{3A1}' | '\u{3A3}'..='\u{527}'
                | '\u{5D0}'..='\u{5EA}' | '\u{620}'..='\u{6FF}' | '\u{904}'..='\u{977}' | '\u{E01}'..='\u{E3A}'
                | '\u{1E00}'..='\u{1F15}' | '\u{2010}'..='\u{2064}' | '\u{20A0}'..='\u{20B9}' | '\u{3041}'..='\u{3096}'
                | '\u{4E00}'..='\u{9FCC}' | '\u{AC00}'..='\u{D7A3}' | '\u{E000}'..='\u{F8FF}' | '\u{1F600}'..='\u{1F640}');
            if words(text) != theirs {
                assert!(!known && (as_it_is || odd), "{c:?}: {:?} and {theirs:?}", words(text));
                unknown += 1;
            }
        }
        assert!(unknown > 0, "the comparison sees differences");
    }

    #[test]
    fn words_are_folded_so_that_spellings_meet() {
        for (text, expected) in [
            ("Straße STRASSE", "straße strasse"),
            ("ΣΊΣΥΦΟΣ σίσυφος", "σίσυφοσ σίσυφοσ"),
            ("Ångström A\u{30A}ngstro\u{308}m", "angstrom angstrom"),
            ("ế Ǆ ı İ K µ", "e ǆ ı i k μ"),
            ("it's snake_case, 3.14!", "it s snake case 3 14"),
            ("日本語 テスト", "日本語 テスト"),
            ("\u{301}a \u{301} b\u{301}", "a b"),
            ("  \0\n", ""),
        ] {
            assert_eq!(normalized(text), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn normalized_text_has_the_same_words_whoever_splits_it(text in "(\\PC|[ a-zÉé\u{301}-])*") {
            let normalized = normalized(&text);
            proptest::prop_assert_eq!(normalized.split_terminator(' ').collect::<Vec<_>>(), words(&text));
            proptest::prop_assert_eq!(words(&normalized), words(&text));
        }
    }
}
