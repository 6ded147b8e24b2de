//! The words of filters, and the nearest one to a word that is none.

use serde_json::Value;
use strsim::osa_distance;

use super::{Members, Test};

/// What a record has beside its fields.
pub(super) const SPECIAL: [&str; 3] = ["$key", "$namespace", "$version"];

/// The operators that put filters together.
pub(super) const LOGICAL: [&str; 4] = ["$and", "$or", "$nor", "$not"];

/// The operators of one field.
pub(super) const COMPARISONS: [&str; 13] = [
    "$eq",
    "$ne",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$in",
    "$nin",
    "$exists",
    "$contains",
    "$startswith",
    "$endswith",
    "$not",
];

/// The words of the text form that are not names of fields.
pub(super) const KEYWORDS: [&str; 12] = [
    "AND",
    "OR",
    "NOT",
    "ALL",
    "IN",
    "CONTAINS",
    "STARTSWITH",
    "ENDSWITH",
    "EXISTS",
    "TRUE",
    "FALSE",
    "NULL",
];

/// A test in the words of both forms: the word of the dict, that of the text, and the operand.
pub(super) fn words(test: &Test) -> (&'static str, &'static str, Operand<'_>) {
    match test {
        Test::Exists => ("$exists", "EXISTS", Operand::None),
        Test::Eq(value) => ("$eq", "=", Operand::Value(value)),
        Test::Ne(value) => ("$ne", "!=", Operand::Value(value)),
        Test::Gt(value) => ("$gt", ">", Operand::Value(value)),
        Test::Gte(value) => ("$gte", ">=", Operand::Value(value)),
        Test::Lt(value) => ("$lt", "<", Operand::Value(value)),
        Test::Lte(value) => ("$lte", "<=", Operand::Value(value)),
        Test::In(members) => ("$in", "IN", Operand::List(members)),
        Test::Nin(members) => ("$nin", "NOT IN", Operand::List(members)),
        Test::Contains(value) => ("$contains", "CONTAINS", Operand::Value(value)),
        Test::StartsWith(text) => ("$startswith", "STARTSWITH", Operand::Text(text)),
        Test::EndsWith(text) => ("$endswith", "ENDSWITH", Operand::Text(text)),
    }
}

/// What stands behind an operator.
pub(super) enum Operand<'a> {
    None,
    Value(&'a Value),
    List(&'a Members),
    Text(&'a str),
}

/// The candidate that `word` was most likely meant to be, if any is near.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    // `$startsWith`, `starts_with` and `$StartsWith` are all one letter-perfect operator.
    let plain = |word: &str| -> String {
        let letters = word.chars().filter(|char| !matches!(char, '$' | '_' | '-'));
        letters.flat_map(char::to_lowercase).take(24).collect()
    };
    let word = plain(word);
    let far = |candidate: &&str| osa_distance(&word, &plain(candidate));
    let best = candidates.iter().map(|candidate| (far(candidate), *candidate)).min_by_key(|(far, _)| *far)?;
    let (far, candidate) = best;
    // Short words are all alike: of one or two letters, only the whole word is near.
    (far <= word.chars().count() / 3).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_word() {
        for (word, expected) in [
            ("$gtee", Some("$gte")),
            ("gte", Some("$gte")),
            ("$startsWith", Some("$startswith")),
            ("$starts_with", Some("$startswith")),
            ("$contians", Some("$contains")),
            ("$exist", Some("$exists")),
            ("$inn", Some("$in")),
            ("$regex", None),
            ("$", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &COMPARISONS), expected, "{word}");
        }
        assert_eq!(nearest("adn", &KEYWORDS), Some("AND"));
    }
}
