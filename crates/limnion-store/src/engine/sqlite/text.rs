//! Full text: one FTS5 table for each namespace that has texts.
//!
//! A table keeps words and where they stand, not the texts. It is given texts that `crate::text` has normalized, so that
//! words are the same as in memory; its tokenizer has only to split at spaces.
//!
//! FTS5 finds what matches, and tells of each match how often a clause occurs in it, wrapped up in its own BM25: of a query
//! of one clause that is `-idf * g`. Its `idf` follows from counts; `g` is what we weigh with an `idf` of our own, and says,
//! together with the length of the text, how often the clause occurs. So scores are the very numbers that `crate::text`
//! gives in memory.

use std::cmp::Ordering;
use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::{Outcome, damaged};
use super::find::Snapshot;
use crate::text::{Clause, Ranking, TextQuery, idf, normalized, word_sum};

/// What FTS5 has in its formula.
const K1: f64 = 1.2;
const B: f64 = 0.75;
/// The least that FTS5 takes for an `idf`.
const LEAST_IDF: f64 = 1e-6;
/// How far a score by way of FTS5 can be from that of `crate::text`, relatively; much more than roundings come to.
const ROUNDINGS: f64 = 1e-9;

/// Makes the table of a namespace.
pub(super) fn create(connection: &Connection, namespace: i64) -> Outcome<()> {
    connection.execute_batch(&format!(
        "CREATE VIRTUAL TABLE text_{namespace} USING fts5(words, content='', contentless_delete=1, tokenize='ascii');
         UPDATE namespace SET has_text = 1 WHERE id = {namespace};"
    ))?;
    Ok(())
}

/// Whether a namespace has a table of its texts; its row and the schema have to say the same.
pub(super) fn has_text(connection: &Connection, namespace: i64) -> Outcome<bool> {
    let noted: Option<i64> = connection
        .prepare_cached("SELECT has_text FROM namespace WHERE id = ?1")?
        .query_row([namespace], |row| row.get(0))
        .optional()?;
    let there = connection
        .prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = 'text_' || ?1")?
        .exists([namespace])?;
    if there != (noted.unwrap_or(0) != 0) {
        return Err(damaged("a namespace does not say whether it has texts").into());
    }
    Ok(there)
}

/// Sets the text of a record; `replaces` says that it may have had another.
pub(super) fn insert(
    connection: &Connection,
    namespace: i64,
    record: i64,
    text: &str,
    replaces: bool,
) -> Outcome<()> {
    let or = if replaces { "OR REPLACE" } else { "" };
    let mut insert = connection
        .prepare_cached(&format!("INSERT {or} INTO text_{namespace} (rowid, words) VALUES (?1, ?2)"))?;
    insert.execute(params![record, normalized(text)])?;
    Ok(())
}

/// Takes away the text of a record, where it has one.
pub(super) fn remove(connection: &Connection, namespace: i64, record: i64) -> Outcome<()> {
    connection
        .prepare_cached(&format!("DELETE FROM text_{namespace} WHERE rowid = ?1"))?
        .execute([record])?;
    Ok(())
}

/// What the index of a namespace holds, for each key: see `crate::text::sum`.
pub(super) fn sums(connection: &Connection, namespace: i64) -> Outcome<Vec<(String, u64)>> {
    if !has_text(connection, namespace)? {
        return Ok(Vec::new());
    }
    // A table that shows the index is made for this connection alone, which may otherwise write nothing.
    connection.execute_batch(&format!(
        "PRAGMA query_only = OFF;
         CREATE VIRTUAL TABLE temp.words USING fts5vocab('main', 'text_{namespace}', 'instance');"
    ))?;
    let found = sum_up(connection, namespace);
    let dropped = connection.execute_batch("DROP TABLE temp.words; PRAGMA query_only = ON;");
    let found = found?;
    dropped?;
    Ok(found)
}

fn sum_up(connection: &Connection, namespace: i64) -> Outcome<Vec<(String, u64)>> {
    let _snapshot = Snapshot::begin(connection)?;
    let mut sums: HashMap<i64, (u64, u64)> = HashMap::new();
    let mut words = connection.prepare("SELECT doc, term, offset FROM temp.words")?;
    let mut words = words.query([])?;
    while let Some(word) = words.next()? {
        let term = word.get_ref(1)?.as_bytes().unwrap_or_default();
        let (sum, count) = sums.entry(word.get(0)?).or_default();
        *sum = sum.wrapping_add(word_sum(term, word.get::<_, i64>(2)?.cast_unsigned()));
        *count += 1;
    }
    let (texts, all) = totals(connection, namespace)?;
    let mut found = Vec::with_capacity(sums.len());
    let mut counted = 0;
    for (record, (sum, count)) in sums {
        if length(connection, namespace, record)? != count {
            return Err(damaged("the full-text index has a wrong length of a text").into());
        }
        counted += count;
        found.push((key(connection, record)?, sum));
    }
    if counted != all || (found.len() as u64) > texts {
        return Err(damaged("the full-text index has wrong counts").into());
    }
    Ok(found)
}

/// The texts of a namespace that match a query.
struct Matches {
    records: Vec<i64>,
    /// For each record, and in it for each clause that is not negated: see the module.
    gains: Vec<f64>,
    /// For each such clause: how many texts contain it.
    containing: Vec<u64>,
}

/// The best matches: key and score.
pub(super) fn search(
    connection: &Connection,
    namespace: i64,
    query: &TextQuery,
    limit: usize,
) -> Outcome<Vec<(String, f64)>> {
    let _snapshot = Snapshot::begin(connection)?;
    if limit == 0 || !has_text(connection, namespace)? {
        return Ok(Vec::new());
    }
    let (texts, words) = totals(connection, namespace)?;
    if texts == 0 || words == 0 {
        return Ok(Vec::new());
    }
    let matches = matches(connection, namespace, query, texts)?;
    let clauses = matches.containing.len();
    let weights: Vec<f64> = matches.containing.iter().map(|containing| idf(texts, *containing)).collect();
    let roughly = |gains: &[f64]| -> f64 { gains.iter().zip(&weights).map(|(gain, idf)| gain * idf).sum() };
    let mut scores: Vec<f64> = matches.gains.chunks(clauses.max(1)).map(roughly).collect();

    // Only those that may be among the best are scored to the last bit.
    let least = match scores.len().checked_sub(limit) {
        None | Some(0) => f64::NEG_INFINITY,
        Some(_) => {
            let mut sorted = scores.clone();
            let (_, worst, _) = sorted.select_nth_unstable_by(limit - 1, |a, b| b.total_cmp(a));
            *worst * (1.0 - ROUNDINGS)
        }
    };
    let ranking = Ranking::new(texts, words, matches.containing.iter().copied());
    let average = words as f64 / texts as f64;
    let mut hits = Vec::new();
    for ((record, gains), score) in
        matches.records.iter().zip(matches.gains.chunks(clauses.max(1))).zip(&mut scores)
    {
        if *score >= least {
            let length = length(connection, namespace, *record)?;
            let norm = K1 * (1.0 - B + B * length as f64 / average);
            // g = tf * (k1 + 1) / (tf + norm)
            let occurrences =
                gains.iter().map(|gain| (gain * norm / (K1 + 1.0 - gain)).round().max(1.0) as u64);
            hits.push((key(connection, *record)?, ranking.score(length, occurrences)));
        }
    }
    let best_first = |a: &(String, f64), b: &(String, f64)| -> Ordering {
        b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0))
    };
    hits.sort_unstable_by(best_first);
    hits.truncate(limit);
    Ok(hits)
}

fn matches(connection: &Connection, namespace: i64, query: &TextQuery, texts: u64) -> Outcome<Matches> {
    let wanted: Vec<&Clause> = query.clauses().iter().filter(|clause| !clause.negated).collect();
    let whole = expression(query);
    if let [only] = wanted.as_slice() {
        // FTS5 counts the texts with the clause, with or without what is negated.
        let (records, scores) = scored(connection, namespace, &whole, None)?;
        let containing = if query.clauses().len() == 1 || records.is_empty() {
            records.len() as u64
        } else {
            count(connection, namespace, &quoted(only))?
        };
        let unscaled = -1.0 / their_idf(texts, containing);
        let gains = scores.into_iter().map(|score| score * unscaled).collect();
        return Ok(Matches { records, gains, containing: vec![containing] });
    }
    let records: Vec<i64> = connection
        .prepare_cached(&format!("SELECT rowid FROM text_{namespace} WHERE text_{namespace} MATCH ?1"))?
        .query_map([&whole], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut found =
        Matches { gains: vec![0.0; records.len() * wanted.len()], records, containing: Vec::new() };
    let places: HashMap<i64, usize> =
        found.records.iter().enumerate().map(|(at, record)| (*record, at)).collect();
    for (number, clause) in wanted.iter().enumerate() {
        let clause = quoted(clause);
        let containing = count(connection, namespace, &clause)?;
        found.containing.push(containing);
        let unscaled = -1.0 / their_idf(texts, containing);
        let (records, scores) = scored(connection, namespace, &clause, Some(&found.records))?;
        for (record, score) in records.iter().zip(scores) {
            let at = places.get(record).map(|place| place * wanted.len() + number);
            if let Some(gain) = at.and_then(|at| found.gains.get_mut(at)) {
                *gain = score * unscaled;
            }
        }
    }
    Ok(found)
}

/// Records that match an expression of one clause that is not negated, with what FTS5 gives as their score; of `among`,
/// where there are some.
fn scored(
    connection: &Connection,
    namespace: i64,
    expression: &str,
    among: Option<&[i64]>,
) -> Outcome<(Vec<i64>, Vec<f64>)> {
    // The plus keeps FTS5 from being asked for one record after the other: it would count all texts for each.
    let chosen =
        if among.is_some() { "AND +rowid IN (SELECT value FROM json_each(?2))" } else { "AND ?2 IS NULL" };
    let list = among.map(|records| {
        let numbers: Vec<String> = records.iter().map(i64::to_string).collect();
        format!("[{}]", numbers.join(","))
    });
    let mut statement = connection.prepare_cached(&format!(
        "SELECT rowid, bm25(text_{namespace}) FROM text_{namespace} WHERE text_{namespace} MATCH ?1 {chosen}"
    ))?;
    let mut rows = statement.query(params![expression, list])?;
    let (mut records, mut scores) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        records.push(row.get(0)?);
        scores.push(row.get(1)?);
    }
    Ok((records, scores))
}

fn count(connection: &Connection, namespace: i64, expression: &str) -> Outcome<u64> {
    let mut statement = connection
        .prepare_cached(&format!("SELECT count(*) FROM text_{namespace} WHERE text_{namespace} MATCH ?1"))?;
    let count: i64 = statement.query_row([expression], |row| row.get(0))?;
    Ok(count.cast_unsigned())
}

/// The `idf` of FTS5.
fn their_idf(texts: u64, containing: u64) -> f64 {
    let (texts, containing) = (texts as f64, containing as f64);
    let idf = ((texts - containing + 0.5) / (containing + 0.5)).ln();
    if idf <= 0.0 { LEAST_IDF } else { idf }
}

/// How many texts there are, and how many words in all of them. FTS5 keeps it up to date in a row of its own: two varints.
fn totals(connection: &Connection, namespace: i64) -> Outcome<(u64, u64)> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT block FROM text_{namespace}_data WHERE id = 1"))?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else { return Ok((0, 0)) };
    let mut bytes = row.get_ref(0)?.as_blob().unwrap_or_default();
    if bytes.is_empty() {
        return Ok((0, 0));
    }
    let counts = varint(&mut bytes).zip(varint(&mut bytes));
    Ok(counts.ok_or_else(|| damaged("the counts of the full-text index are damaged"))?)
}

/// How many words the text of a record has, as FTS5 keeps it.
fn length(connection: &Connection, namespace: i64, record: i64) -> Outcome<u64> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT sz FROM text_{namespace}_docsize WHERE id = ?1"))?;
    let mut rows = statement.query([record])?;
    let row = rows.next()?;
    let mut bytes = match &row {
        Some(row) => row.get_ref(0)?.as_blob().unwrap_or_default(),
        None => &[],
    };
    Ok(varint(&mut bytes).ok_or_else(|| damaged("the full-text index has lost the length of a text"))?)
}

fn key(connection: &Connection, record: i64) -> Outcome<String> {
    let mut statement = connection.prepare_cached("SELECT key FROM record WHERE id = ?1")?;
    let key = statement.query_row([record], |row| row.get(0)).optional()?;
    Ok(key.ok_or_else(|| damaged("the full-text index knows a record that is not there"))?)
}

/// A number as SQLite writes it: seven bits a byte, most significant first; a ninth byte has eight.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for at in 0..9 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if at == 8 {
            return Some(number << 8 | u64::from(*byte));
        }
        number = number << 7 | u64::from(byte & 0x7F);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// A query in the language of FTS5. Words are quoted, whatever is in them.
fn expression(query: &TextQuery) -> String {
    let join = |negated: bool, between: &str| {
        let clauses = query.clauses().iter().filter(|clause| clause.negated == negated).map(quoted);
        clauses.collect::<Vec<_>>().join(between)
    };
    let (wanted, unwanted) = (join(false, " AND "), join(true, " OR "));
    if unwanted.is_empty() { wanted } else { format!("({wanted}) NOT ({unwanted})") }
}

fn quoted(clause: &Clause) -> String {
    let star = if clause.prefix { "*" } else { "" };
    format!("\"{}\"{star}", clause.words.join(" ").replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_quoted_through_and_through() {
        let query = TextQuery::parse("AND \"old town\" near* -NOT -\"x y\"*").unwrap();
        assert_eq!(expression(&query), r#"("and" AND "old town" AND "near"*) NOT ("not" OR "x y"*)"#);
    }

    #[test]
    fn numbers_of_sqlite_are_read_to_the_last_bit() {
        for (bytes, number) in [
            (&[0x00][..], Some(0)),
            (&[0x7F], Some(127)),
            (&[0x81, 0x00], Some(128)),
            (&[0xFF; 9], Some(u64::MAX)),
            (&[0x81], None),
            (&[], None),
        ] {
            assert_eq!(varint(&mut { bytes }), number, "{bytes:?}");
        }
    }
}
