//! Full text: what a word is, what a query says, and how well a text matches.
//!
//! Both engines use what is here, so that a search gives the same records in the same order whatever lies below. An engine
//! keeps the words of a text ([`words`]) and not the text: what [`normalized`] gives is words with a space between them,
//! which any tokenizer that splits at spaces takes apart in the same way.

use limnion_types::{Error, ErrorKind, Result};

mod index;
mod rank;
mod words;

pub use index::TextIndex;
pub use rank::{Ranking, clause_score, idf};
pub use words::{each_word, normalized, sum, word_sum, words};

/// A full-text query, parsed.
///
/// ```text
/// query   = clause { space clause } ; all of them must match
/// clause  = [ "-" ] ( word | '"' words '"' ) [ "*" ]
/// ```
///
/// `-` asks for texts that do not match the clause; `*` makes its last word a prefix. Words in quotes must stand together,
/// in order, and so must the parts of a bare word that is split, such as `e-mail`. Upper case, lower case and diacritics
/// make no difference.
///
/// ```
/// use limnion_store::text::TextQuery;
///
/// let query = TextQuery::parse(r#"Café "old town" -bar* e-mail"#)?;
/// let words: Vec<&[String]> = query.clauses().iter().map(|clause| clause.words.as_slice()).collect();
/// assert_eq!(words, [&["cafe"][..], &["old", "town"], &["bar"], &["e", "mail"]]);
/// assert!(query.clauses()[2].negated && query.clauses()[2].prefix);
/// # Ok::<(), limnion_types::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextQuery {
    clauses: Vec<Clause>,
}

/// A part of a query that a text matches or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    /// Words that follow each other; at least one.
    pub words: Vec<String>,
    /// Whether the last word is the beginning of a word.
    pub prefix: bool,
    /// Whether the text must not match.
    pub negated: bool,
}

impl TextQuery {
    /// Reads a query.
    ///
    /// # Errors
    /// `Validation` where a quote is not closed, or no word is left that a text should have.
    pub fn parse(query: &str) -> Result<Self> {
        let mut clauses = Vec::new();
        let mut rest = query.trim_start();
        while !rest.is_empty() {
            let (negated, unsigned) = match rest.strip_prefix('-') {
                Some(unsigned) => (true, unsigned),
                None => (false, rest),
            };
            let (text, prefix, after) = match unsigned.strip_prefix('"') {
                Some(quoted) => {
                    let (text, after) = quoted.split_once('"').ok_or_else(|| unclosed(query))?;
                    let unstarred = after.trim_start_matches('*');
                    (text, unstarred.len() < after.len(), unstarred)
                }
                None => {
                    let end =
                        unsigned.find(|c: char| c == '"' || c.is_whitespace()).unwrap_or(unsigned.len());
                    let (word, after) = unsigned.split_at(end);
                    (word, word.ends_with('*'), after)
                }
            };
            let words = words(text);
            // What has no word in it, such as a lone dash, asks for nothing.
            if !words.is_empty() {
                clauses.push(Clause { words, prefix, negated });
            }
            rest = after.trim_start();
        }
        if clauses.iter().all(|clause| clause.negated) {
            let what = if clauses.is_empty() { "has no words" } else { "says only what is not wanted" };
            return Err(Error::new(ErrorKind::Validation, format!("the text query {query:?} {what}"))
                .suggest("give at least one word to search for, such as `lake` or `lak*`"));
        }
        Ok(Self { clauses })
    }

    /// The clauses, in the order in which they were written. At least one is not negated.
    pub fn clauses(&self) -> &[Clause] {
        &self.clauses
    }
}

fn unclosed(query: &str) -> Error {
    Error::new(ErrorKind::Validation, format!("a quote in the text query {query:?} is not closed"))
        .suggest("close it, or leave it out: \"old town\" in quotes finds the words side by side")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn clause(words: &[&str], prefix: bool, negated: bool) -> Clause {
        Clause { words: words.iter().map(|word| (*word).to_owned()).collect(), prefix, negated }
    }

    #[test]
    fn a_query_says_what_its_grammar_says() {
        for (query, clauses) in [
            ("lake", vec![clause(&["lake"], false, false)]),
            ("  Lake  ÉTÉ ", vec![clause(&["lake"], false, false), clause(&["ete"], false, false)]),
            ("lak* -sea*", vec![clause(&["lak"], true, false), clause(&["sea"], true, true)]),
            ("e-mail", vec![clause(&["e", "mail"], false, false)]),
            ("\"old town\"", vec![clause(&["old", "town"], false, false)]),
            (
                "a-\"old town\"*b",
                vec![
                    clause(&["a"], false, false),
                    clause(&["old", "town"], true, false),
                    clause(&["b"], false, false),
                ],
            ),
            ("a -\"old town\"", vec![clause(&["a"], false, false), clause(&["old", "town"], false, true)]),
            ("a - * ! \"\" -\"\"", vec![clause(&["a"], false, false)]),
            (
                "AND or not",
                vec![
                    clause(&["and"], false, false),
                    clause(&["or"], false, false),
                    clause(&["not"], false, false),
                ],
            ),
        ] {
            assert_eq!(TextQuery::parse(query).unwrap().clauses(), clauses, "{query}");
        }
    }

    #[test]
    fn a_query_that_asks_for_nothing_is_refused_with_what_to_do() {
        for query in ["", "  ", "-", "!?", "\"\"", "-a", "-a -\"b c\"", "\"a", "a \"b c", "a \""] {
            let error = TextQuery::parse(query).expect_err(query);
            assert_eq!(error.kind(), ErrorKind::Validation);
            assert!(error.suggestion().is_some() && error.message().contains(&format!("{query:?}")));
        }
    }

    proptest! {
        #[test]
        fn any_query_is_read_or_refused(query in "[a-c\"*\\- é🦀]{0,20}") {
            if let Ok(query) = TextQuery::parse(&query) {
                prop_assert!(query.clauses().iter().any(|clause| !clause.negated));
                prop_assert!(query.clauses().iter().all(|clause| !clause.words.is_empty()));
            }
        }
    }
}
