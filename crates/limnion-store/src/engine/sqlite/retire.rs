//! Versions that retention drops, and what is remembered of them.

use std::collections::BTreeSet;

use limnion_types::{Error, ErrorKind};
use rusqlite::{Connection, params};

use super::compress;
use super::error::{Outcome, damaged, signed};
use super::find::{Known, unsigned};
use super::transaction::Delta;
use crate::model::Seq;

/// Drops versions of a record; gives how the counts change.
pub(super) fn retire(
    connection: &Connection,
    known: Known,
    seqs: &[Seq],
    freed: &[(u32, u64)],
) -> Outcome<Delta> {
    let mut delta = Delta::default();
    let mut wanted: BTreeSet<Seq> = seqs.iter().copied().collect();
    if let Some(newest) = wanted.last().filter(|newest| **newest >= known.seq) {
        let message = format!("version {newest} cannot be dropped: the newest one is {}", known.seq);
        return Err(Error::new(ErrorKind::Internal, message).into());
    }
    while let Some(seq) = wanted.pop_first() {
        let number = signed(seq, "the number of a commit")?;
        if let Some((previous, bytes)) = delete_loose(connection, known.id, number)? {
            delta.versions -= 1;
            delta.history_bytes -= bytes;
            remember(connection, known.id, seq, previous)?;
            continue;
        }
        // All that lies in the same pack goes together: it is decoded once.
        let Some(mut rows) = compress::take(connection, known.id, number)? else { continue };
        let mut dropped = Vec::new();
        rows.retain(|row| {
            let drop = row.seq == seq || wanted.remove(&row.seq);
            if drop {
                delta.versions -= 1;
                delta.cold -= 1;
                delta.history_bytes -= i64::try_from(row.payload.len()).unwrap_or(0);
                dropped.push((row.seq, row.previous));
            }
            !drop
        });
        compress::insert(connection, known.id, &rows)?;
        for (seq, previous) in dropped {
            remember(connection, known.id, seq, previous)?;
        }
    }
    for (segment, bytes) in freed {
        let bytes = signed(*bytes, "a length")?;
        connection
            .prepare_cached("UPDATE segment SET live = max(0, live - ?2) WHERE id = ?1")?
            .execute(params![segment, bytes])?;
    }
    Ok(delta)
}

/// Gives the version before it, and the bytes of its payload.
fn delete_loose(connection: &Connection, record: i64, seq: i64) -> Outcome<Option<(Seq, i64)>> {
    let mut delete = connection.prepare_cached(
        "DELETE FROM version WHERE record = ?1 AND seq = ?2 RETURNING previous, length(payload)",
    )?;
    let mut rows = delete.query([record, seq])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let dropped = (unsigned(row, 0)?, row.get(1)?);
    // A statement that is not run to its end may not have done its work.
    if rows.next()?.is_some() {
        return Err(damaged("a version is there twice").into());
    }
    Ok(Some(dropped))
}

/// Remembers that a version was dropped. Ranges that meet become one: the links between versions tell that nothing lies
/// between.
fn remember(connection: &Connection, record: i64, seq: Seq, previous: Seq) -> Outcome<()> {
    let (seq, previous) = (signed(seq, "a commit")?, signed(previous, "a commit")?);
    let (mut first, mut last, mut link) = (seq, seq, previous);
    let before = one(
        connection,
        "SELECT first, last, previous FROM retired WHERE record = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1",
        [record, seq],
    )?;
    if let Some([start, end, before]) = before
        && end == previous
    {
        (first, link) = (start, before);
    }
    let after = one(
        connection,
        "SELECT first, last, previous FROM retired WHERE record = ?1 AND first > ?2 ORDER BY first LIMIT 1",
        [record, seq],
    )?;
    if let Some([start, end, before]) = after
        && before == seq
    {
        last = end;
        connection
            .prepare_cached("DELETE FROM retired WHERE record = ?1 AND first = ?2")?
            .execute([record, start])?;
    }
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO retired (record, first, last, previous) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute([record, first, last, link])?;
    Ok(())
}

fn one(connection: &Connection, sql: &str, parameters: [i64; 2]) -> Outcome<Option<[i64; 3]>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some([row.get(0)?, row.get(1)?, row.get(2)?]))
}
