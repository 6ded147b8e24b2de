//! BM25: how well a text matches a query. Higher is better, and never below zero.
//!
//! ```text
//! score  = sum over the clauses that are not negated of
//!          idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / average))
//! idf    = ln(1 + (N - n + 0.5) / (n + 0.5))
//! k1 = 1.2, b = 0.75
//!
//! N        the texts there are, those without words too
//! n        those among them that match the clause
//! tf       how often the clause occurs in this text
//! length   the words of this text
//! average  all words / N
//! ```

/// How soon further occurrences stop to matter.
const K1: f64 = 1.2;
/// How much the length of a text matters.
const B: f64 = 0.75;

/// How much a clause that `containing` of all `texts` match says about one that does.
pub fn idf(texts: u64, containing: u64) -> f64 {
    // Never more contain it than there are; should a caller's counts disagree, the result is still a number.
    let others = texts.saturating_sub(containing) as f64;
    (1.0 + (others + 0.5) / (containing as f64 + 0.5)).ln()
}

/// What one clause adds to the score of a text of `length` words in which it occurs `occurrences` times.
pub fn clause_score(idf: f64, occurrences: u64, length: u64, average: f64) -> f64 {
    let (tf, relative) = (occurrences as f64, length as f64 / average);
    idf * (tf * (K1 + 1.0)) / (tf + K1 * (1.0 - B + B * relative))
}

/// The counts that the scores of one query rest on.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    average: f64,
    idfs: Vec<f64>,
}

impl Ranking {
    /// For so many `texts` with so many `words` in all, and how many texts contain each clause that is not negated, in
    /// order.
    pub fn new(texts: u64, words: u64, containing: impl IntoIterator<Item = u64>) -> Self {
        Self {
            average: words as f64 / texts.max(1) as f64,
            idfs: containing.into_iter().map(|containing| idf(texts, containing)).collect(),
        }
    }

    /// The score of a text of `length` words, from how often each clause occurs in it.
    pub fn score(&self, length: u64, occurrences: impl IntoIterator<Item = u64>) -> f64 {
        let scores = self.idfs.iter().zip(occurrences);
        scores.map(|(&idf, occurrences)| clause_score(idf, occurrences, length, self.average)).sum()
    }
}
