//! The cold tier: runs of old versions of one record, compressed together.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::codec;
use super::error::{Outcome, damaged, signed};
use super::find::{columns, row, unsigned};
use super::transaction::Delta;
use crate::engine::Row;

/// Records with fewer loose old versions are left alone.
const MANY: u32 = 32;
/// The newest of the old versions stay loose: they are asked for most.
const KEPT: i64 = 8;
/// What a pack holds at most, so that a look at one version decodes little.
const PACK_VERSIONS: i64 = 64;
const PACK_BYTES: usize = 256 << 10;
/// Records whose loose versions are counted in memory.
const COUNTED: usize = 100_000;

/// Which records may have many loose old versions.
#[derive(Debug, Default)]
pub(super) struct Loose {
    /// Old versions since the start, by record.
    counts: HashMap<i64, u32>,
    /// Records that have many by these counts.
    ripe: Vec<i64>,
    /// How far the search for what was there before has come; `None` once it is through.
    searched: Searched,
}

#[derive(Debug, Clone, Copy)]
enum Searched {
    UpTo(i64),
    All,
}

impl Default for Searched {
    fn default() -> Self {
        Searched::UpTo(i64::MIN)
    }
}

impl Loose {
    /// A record was overwritten.
    pub(super) fn grew(&mut self, record: i64) {
        let count = self.counts.entry(record).or_default();
        *count += 1;
        if *count == MANY {
            *count = 0;
            self.ripe.push(record);
        }
        if self.counts.len() > COUNTED {
            // Too many to count one by one: they are found by another search through the table.
            self.counts.clear();
            self.searched = Searched::default();
        }
    }
}

/// The next record that has loose versions.
pub(super) const NEXT: &str = "SELECT record FROM version WHERE record > ?1 ORDER BY record LIMIT 1";

/// Compresses until `budget` versions have been looked at; gives how many were compressed.
pub(super) fn compress(connection: &Connection, loose: &mut Loose, budget: usize) -> Outcome<usize> {
    let mut left = i64::try_from(budget).unwrap_or(i64::MAX);
    let mut compressed = 0;
    while left > 0 {
        if let Some(record) = loose.ripe.pop() {
            let packed = pack_record(connection, record, left)?;
            left -= packed + 1;
            compressed += packed;
            if left <= 0 {
                loose.ripe.push(record);
            }
            continue;
        }
        let Searched::UpTo(searched) = loose.searched else { break };
        let mut next = connection.prepare_cached(NEXT)?;
        let mut next = next.query([searched])?;
        let Some(next) = next.next()? else {
            loose.searched = Searched::All;
            break;
        };
        let record: i64 = next.get(0)?;
        loose.searched = Searched::UpTo(record);
        let many = count(connection, record, MANY.into())?;
        left -= many;
        if many >= MANY.into() {
            loose.ripe.push(record);
        }
    }
    Ok(usize::try_from(compressed).unwrap_or(0))
}

/// How many loose versions a record has, counted up to `most`.
fn count(connection: &Connection, record: i64, most: i64) -> Outcome<i64> {
    let mut count = connection
        .prepare_cached("SELECT count(*) FROM (SELECT 1 FROM version WHERE record = ?1 LIMIT ?2)")?;
    Ok(count.query_row([record, most], |row| row.get(0))?)
}

/// Moves the oldest loose versions of a record to packs, about `budget` of them.
fn pack_record(connection: &Connection, record: i64, budget: i64) -> Outcome<i64> {
    let mut packed = 0;
    while packed < budget {
        let loose = count(connection, record, PACK_VERSIONS + KEPT)?;
        if loose < MANY.into() {
            break;
        }
        let mut oldest = connection.prepare_cached(concat!(
            "SELECT ",
            columns!(),
            " FROM version WHERE record = ?1 ORDER BY seq LIMIT ?2"
        ))?;
        let mut oldest = oldest.query([record, loose - KEPT])?;
        let (mut run, mut bytes) = (Vec::new(), 0);
        while bytes < PACK_BYTES
            && let Some(next) = oldest.next()?
        {
            let row = row(next, 0, true)?;
            bytes += row.payload.len();
            run.push(row);
        }
        let number = i64::try_from(run.len()).unwrap_or(i64::MAX);
        insert(connection, record, &run)?;
        let (Some(first), Some(last)) = (run.first(), run.last()) else { break };
        let (first, last) = (signed(first.seq, "a commit")?, signed(last.seq, "a commit")?);
        let mut delete =
            connection.prepare_cached("DELETE FROM version WHERE record = ?1 AND seq BETWEEN ?2 AND ?3")?;
        if delete.execute([record, first, last])? != run.len() {
            return Err(damaged("versions that were compressed cannot be removed").into());
        }
        let namespace = connection
            .prepare_cached("SELECT namespace FROM record WHERE id = ?1")?
            .query_row([record], |row| row.get(0))?;
        Delta { cold: number, ..Delta::default() }.apply(connection, namespace)?;
        packed += number;
    }
    Ok(packed)
}

/// Writes a pack; nothing where there are no rows.
pub(super) fn insert(connection: &Connection, record: i64, rows: &[Row]) -> Outcome<()> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
    let mut insert = connection.prepare_cached(
        "INSERT INTO pack (record, first, last, time, previous, rows) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    insert.execute(params![
        record,
        signed(first.seq, "a commit")?,
        signed(last.seq, "a commit")?,
        signed(first.time, "a time")?,
        signed(first.previous, "a commit")?,
        codec::pack(rows)?
    ])?;
    Ok(())
}

/// The pack that holds a version, taken out of the table.
pub(super) fn take(connection: &Connection, record: i64, seq: i64) -> Outcome<Option<Vec<Row>>> {
    let rows = {
        let mut pack = connection.prepare_cached(
            "SELECT first, last, rows FROM pack WHERE record = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1",
        )?;
        let mut pack = pack.query([record, seq])?;
        let Some(pack) = pack.next()? else { return Ok(None) };
        if unsigned(pack, 1)? < seq.cast_unsigned() {
            return Ok(None);
        }
        let rows = pack.get_ref(2)?.as_blob().map_err(|_| damaged("a pack of old versions is damaged"))?;
        (pack.get::<_, i64>(0)?, codec::unpack(rows)?)
    };
    let (first, rows) = rows;
    connection
        .prepare_cached("DELETE FROM pack WHERE record = ?1 AND first = ?2")?
        .execute([record, first])?;
    Ok(Some(rows))
}
