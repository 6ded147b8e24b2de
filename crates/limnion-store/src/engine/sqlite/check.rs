//! What has to work on a damaged file, too: reading all of it, and looking for what is wrong. And copies of it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use limnion_types::{Error, ErrorKind, Job};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, params};

use super::codec;
use super::error::{Failure, Outcome, damaged, translate};
use super::find::{Snapshot, columns, row, unsigned};
use super::reader::Names;
use crate::engine::{Dumped, Row};

/// No more records than this begin on a page of 4 KiB: their rows have at least as many bytes.
const RECORDS_PER_PAGE: i64 = 128;
/// Pages that are copied before the job is asked whether to go on.
const PAGES: i32 = 512;
/// How many problems SQLite tells before it gives up.
const PROBLEMS: usize = 100;

/// See [`crate::engine::Reader::dump`].
///
/// A page that cannot be read hides the records on it. They are asked for one by one, by their numbers, until one can be
/// read again, or there can be no more.
pub(super) fn dump(
    connection: &Connection,
    path: &Path,
    after: u64,
    limit: usize,
) -> Outcome<Vec<Result<Dumped, (u64, Error)>>> {
    let _snapshot = Snapshot::begin(connection)?;
    let (mut dumped, mut names) = (Vec::new(), Names::default());
    let Ok(mut after) = i64::try_from(after) else { return Ok(dumped) };
    let mut most = None;
    while dumped.len() < limit {
        let id = match next(connection, after) {
            Ok(None) => break,
            Ok(Some(id)) => id,
            Err(failure) => {
                let most = *most.get_or_insert_with(|| last(connection));
                if after >= most {
                    break;
                }
                after += 1;
                match alone(connection, after) {
                    Ok(false) => continue,
                    Ok(true) => after,
                    Err(_) => {
                        dumped.push(Err((after.cast_unsigned(), failure.at(path))));
                        continue;
                    }
                }
            }
        };
        after = id;
        one(connection, path, id, &mut names, &mut dumped);
    }
    Ok(dumped)
}

fn next(connection: &Connection, after: i64) -> Outcome<Option<i64>> {
    let mut next = connection.prepare_cached("SELECT id FROM record WHERE id > ?1 ORDER BY id LIMIT 1")?;
    let mut next = next.query([after])?;
    let Some(next) = next.next()? else { return Ok(None) };
    let id: i64 = next.get(0)?;
    // Pages that point in circles must not lead us in circles.
    if id <= after {
        return Err(damaged("the records are out of order").into());
    }
    Ok(Some(id))
}

/// Whether there is a record of this number.
fn alone(connection: &Connection, id: i64) -> Outcome<bool> {
    Ok(connection.prepare_cached("SELECT 1 FROM record WHERE id = ?1")?.exists([id])?)
}

/// The greatest number that a record can have: numbers are given out one by one.
fn last(connection: &Connection) -> i64 {
    let ask = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).ok().flatten();
    let pages = ask("PRAGMA page_count").unwrap_or(0);
    let fitting = pages.saturating_mul(RECORDS_PER_PAGE);
    ask("SELECT max(id) FROM record").map_or(fitting, |last| last.min(fitting))
}

/// A record with what can be read of it; and an error behind it, where that is not all.
fn one(
    connection: &Connection,
    path: &Path,
    id: i64,
    names: &mut Names,
    dumped: &mut Vec<Result<Dumped, (u64, Error)>>,
) {
    let number = id.cast_unsigned();
    let mut failures = Vec::new();
    let mut record = match newest(connection, id, names) {
        Ok(record) => record,
        Err(failure) => {
            dumped.push(Err((number, failure.at(path))));
            return;
        }
    };
    let mut older = Vec::new();
    for part in [packed(connection, id, &mut older), loose(connection, id, &mut older)] {
        failures.extend(part.err());
    }
    failures.extend(retired(connection, id, &mut record).err());
    older.append(&mut record.rows);
    older.sort_by_key(|row| row.seq);
    record.rows = older;
    let place = format!("record {:?} of namespace {:?}", record.key, record.namespace);
    dumped.push(Ok(record));
    if let Some(failure) = failures.into_iter().next() {
        dumped.push(Err((number, failure.at(path).within(place))));
    }
}

fn newest(connection: &Connection, id: i64, names: &mut Names) -> Outcome<Dumped> {
    let mut record = connection.prepare_cached(concat!(
        "SELECT namespace, key, ",
        columns!(),
        " FROM record WHERE id = ?1"
    ))?;
    let mut record = record.query([id])?;
    let Some(record) = record.next()? else { return Err(damaged("a record is there, and is not").into()) };
    let namespace = names.namespace(connection, record.get(0)?)?;
    let namespace = namespace.ok_or_else(|| damaged("a record is in a namespace that is not there"))?;
    let rows = vec![row(record, 2, true)?];
    Ok(Dumped { id: id.cast_unsigned(), namespace, key: record.get(1)?, rows, retired: Vec::new() })
}

fn packed(connection: &Connection, id: i64, rows: &mut Vec<Row>) -> Outcome<()> {
    let mut packs = connection.prepare_cached("SELECT rows FROM pack WHERE record = ?1 ORDER BY first")?;
    let mut packs = packs.query([id])?;
    let mut failed = None;
    while let Some(pack) = packs.next()? {
        // One pack that is damaged does not hide the others.
        match pack.get_ref(0)?.as_blob().map_err(|_| damaged("a pack is damaged")).and_then(codec::unpack) {
            Ok(pack) => rows.extend(pack),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn loose(connection: &Connection, id: i64, rows: &mut Vec<Row>) -> Outcome<()> {
    let sql = concat!("SELECT ", columns!(), " FROM version WHERE record = ?1 AND seq > ?2 ORDER BY seq");
    let backwards =
        concat!("SELECT ", columns!(), " FROM version WHERE record = ?1 AND seq > ?2 ORDER BY seq DESC");
    let (mut last, mut backwards_from) = (0, None);
    let mut read = |sql: &str, rows: &mut Vec<Row>, upwards: bool| -> Outcome<()> {
        let mut loose = connection.prepare_cached(sql)?;
        let mut loose = loose.query(params![id, last])?;
        while let Some(loose) = loose.next()? {
            let row = row(loose, 0, true)?;
            if upwards {
                let seq = i64::try_from(row.seq).unwrap_or(i64::MAX);
                if seq <= last {
                    return Err(damaged("the versions of a record are out of order").into());
                }
                last = seq;
            } else if rows.last().is_some_and(|newer| backwards_from.is_some() && newer.seq <= row.seq) {
                return Err(damaged("the versions of a record are out of order").into());
            } else {
                backwards_from = Some(row.seq);
            }
            rows.push(row);
        }
        Ok(())
    };
    // Behind a page that cannot be read there may be others: they are come at from the other end.
    read(sql, rows, true).inspect_err(|_| {
        // What it cannot read either is told already.
        let _ = read(backwards, rows, false);
    })
}

fn retired(connection: &Connection, id: i64, record: &mut Dumped) -> Outcome<()> {
    let mut retired =
        connection.prepare_cached("SELECT first, last FROM retired WHERE record = ?1 ORDER BY first")?;
    let mut retired = retired.query([id])?;
    while let Some(range) = retired.next()? {
        record.retired.push((unsigned(range, 0)?, unsigned(range, 1)?));
    }
    Ok(())
}

/// See [`crate::engine::Reader::integrity`].
pub(super) fn integrity(connection: &Connection, path: &Path, job: &Job) -> Outcome<Vec<String>> {
    interruptible(connection, job, || {
        let _snapshot = Snapshot::begin(connection)?;
        let mut problems = Vec::new();
        problems.extend(told(path, pages(connection))?);
        if problems.is_empty() {
            // Where pages are damaged, what is counted says nothing; where they point in circles, it never ends.
            problems.extend(told(path, counts(connection))?);
            problems.extend(told(path, log(connection))?);
        }
        Ok(problems)
    })
}

/// A failure is a problem, too, unless somebody wanted it.
fn told(path: &Path, outcome: Outcome<Vec<String>>) -> Outcome<Vec<String>> {
    outcome.or_else(|failure| {
        let error = failure.at(path);
        if error.kind() == ErrorKind::Cancelled {
            Err(error.into())
        } else {
            Ok(vec![error.message().to_owned()])
        }
    })
}

fn pages(connection: &Connection) -> Outcome<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({PROBLEMS})"))?;
    let found = statement.query_map([], |row| row.get::<_, String>(0))?;
    let mut problems = found.collect::<rusqlite::Result<Vec<_>>>()?;
    problems.retain(|problem| problem != "ok");
    Ok(problems)
}

/// The counts of namespaces against what is there.
fn counts(connection: &Connection) -> Outcome<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT name, keys, bytes, versions - cold, real_keys, real_bytes, real_loose FROM namespace JOIN (
             SELECT namespace, sum(kind = 0) AS real_keys, sum(length(payload)) AS real_bytes,
                 count(*) + sum((SELECT count(*) FROM version WHERE version.record = record.id)) AS real_loose
             FROM record GROUP BY namespace
         ) ON namespace = id WHERE (keys, bytes, versions - cold) != (real_keys, real_bytes, real_loose)",
    )?;
    let mut rows = statement.query([])?;
    let mut problems = Vec::new();
    while let Some(row) = rows.next()? {
        let numbers = (1..7).map(|column| row.get(column)).collect::<rusqlite::Result<Vec<i64>>>()?;
        let name: String = row.get(0)?;
        problems.push(format!(
            "the counts of namespace {name:?} are wrong: keys, bytes, loose versions as noted and as there: {numbers:?}"
        ));
    }
    Ok(problems)
}

/// Commits have numbers without gaps.
fn log(connection: &Connection) -> Outcome<Vec<String>> {
    let (count, first, last): (i64, Option<i64>, Option<i64>) =
        connection.query_row("SELECT count(*), min(seq), max(seq) FROM log", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
    let wanted = first.zip(last).map_or(0, |(first, last)| last.saturating_sub(first).saturating_add(1));
    Ok(if count == wanted {
        Vec::new()
    } else {
        vec![format!("the log has {count} commits, and should have {wanted}")]
    })
}

/// Runs what SQLite does in one go; it is interrupted when the job is cancelled.
fn interruptible<T>(connection: &Connection, job: &Job, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let handle = connection.get_interrupt_handle();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                if job.check().is_err() {
                    handle.interrupt();
                }
                std::thread::park_timeout(Duration::from_millis(20));
            }
        });
        let outcome = work();
        done.store(true, Ordering::Release);
        watch.thread().unpark();
        outcome
    })
}

/// See [`crate::engine::Reader::backup`].
pub(super) fn backup(connection: &Connection, path: &Path, job: &Job) -> Outcome<()> {
    if path.exists() {
        let message = format!("the file {} must not exist yet", path.display());
        return Err(Error::new(ErrorKind::Validation, message).suggest("name another one").into());
    }
    let copied = copy(connection, path, job);
    if copied.is_err() {
        // Nobody should take half a copy for a whole one.
        let _ = std::fs::remove_file(path);
    }
    copied
}

fn copy(connection: &Connection, path: &Path, job: &Job) -> Outcome<()> {
    let there = |error| Failure::Ours(translate(path, &error));
    let mut target = Connection::open(path).map_err(there)?;
    // One state is copied, whatever is written meanwhile: with a log, readers and the writer do not wait for each other.
    // Without one the writer would wait all the time, so the copy begins anew when something was written.
    let log: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    let _snapshot = if log == "wal" {
        let snapshot = Snapshot::begin(connection)?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Some(snapshot)
    } else {
        None
    };
    {
        let backup = Backup::new(connection, &mut target).map_err(there)?;
        loop {
            job.check()?;
            match backup.step(PAGES).map_err(there)? {
                StepResult::Done => break,
                StepResult::More => job.advance(PAGES.cast_unsigned().into()),
                // Whoever writes holds the lock for a moment.
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
    target.close().map_err(|(_, error)| there(error))
}
