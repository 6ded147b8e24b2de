//! The side that reads: connections that are lent out, one call at a time.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use limnion_types::{Error, ErrorKind, Job, Result};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::{Outcome, damaged, rows};
use super::find::{self, Snapshot, Space, head_of, unsigned};
use super::{check, codec, schema, text};
use crate::engine::{
    Commit, Dumped, EngineStats, FieldIndex, Found, Head, Keyed, Logged, NamespaceInfo, Reader, SegmentInfo,
    Tag,
};
use crate::hash;
use crate::model::{At, KeyRange, Micros, Seq};
use crate::text::TextQuery;

/// Idle connections that are kept: each has a file open and some megabytes of pages.
const IDLE: usize = 8;
/// What the pages of a connection may take.
const PAGES: u64 = 4 << 20;

/// Lends connections to whoever reads, and makes more when all are out.
pub(super) struct Pool {
    path: PathBuf,
    /// Whether the file lies where nobody can write it.
    immutable: bool,
    idle: Mutex<Vec<Connection>>,
    /// The numbers of namespaces. A number never changes, so what is known stays true.
    namespaces: RwLock<HashMap<Box<str>, i64>>,
    closed: AtomicBool,
}

impl Pool {
    pub(super) fn new(path: &Path, immutable: bool) -> Self {
        Self {
            path: path.to_owned(),
            immutable,
            idle: Mutex::default(),
            namespaces: RwLock::default(),
            closed: AtomicBool::new(false),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs one look at the database.
    pub(super) fn with<T>(&self, look: impl FnOnce(&Connection) -> Outcome<T>) -> Result<T> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::DatabaseClosed, "the database is closed"));
        }
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => schema::open_reader(&self.path, self.immutable)?,
        };
        let outcome = look(&connection);
        // What is still inside a transaction would read the same old state for ever.
        if connection.is_autocommit() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE && !self.closed.load(Ordering::Acquire) {
                idle.push(connection);
            }
        }
        outcome.map_err(|failure| failure.at(&self.path))
    }

    /// Like [`Pool::with`], for a namespace; `absent` where there is no such one.
    fn within<T>(
        &self,
        namespace: &str,
        absent: T,
        look: impl FnOnce(&Connection, i64) -> Outcome<T>,
    ) -> Result<T> {
        self.with(|connection| match self.namespace(connection, namespace)? {
            Some(number) => look(connection, number),
            None => Ok(absent),
        })
    }

    fn namespace(&self, connection: &Connection, name: &str) -> Outcome<Option<i64>> {
        let known = self.namespaces.read().unwrap_or_else(PoisonError::into_inner).get(name).copied();
        if known.is_some() {
            return Ok(known);
        }
        let number = {
            // It looks twice: the namespace must not come into being in between.
            let _snapshot = Snapshot::begin(connection)?;
            find::namespace(connection, name)?
        };
        if let Some(number) = number {
            let mut namespaces = self.namespaces.write().unwrap_or_else(PoisonError::into_inner);
            namespaces.insert(name.into(), number);
        }
        Ok(number)
    }

    /// Closes the idle connections; those that are out are closed when they come back.
    pub(super) fn drain(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// No connection is lent from now on.
    pub(super) fn shut(&self) {
        self.closed.store(true, Ordering::Release);
        self.drain();
    }
}

/// The names as the table has them, and what the index says of each.
const NAMESPACES: &str =
    "SELECT name, id, (SELECT id FROM namespace AS other WHERE other.name = namespace.name)
     FROM namespace NOT INDEXED WHERE keys > 0 ORDER BY name";

/// The entries of a declared index.
pub(super) const LOOKUP: &str =
    "SELECT key, entry FROM field WHERE field_index = ?1 AND entry >= ?2 AND entry <= ?3
     ORDER BY entry, key LIMIT ?4";
/// The entry before a range, and the first behind what was found: by the index; and whether the table has it, too.
pub(super) const ENTRY_BEFORE: &str =
    "SELECT record, field_index, entry, key FROM field INDEXED BY field_entry
     WHERE (field_index, entry) < (?1, ?2) AND ?3 = '' ORDER BY field_index DESC, entry DESC LIMIT 1";
pub(super) const ENTRY_BEHIND: &str =
    "SELECT record, field_index, entry, key FROM field INDEXED BY field_entry
     WHERE (field_index, entry, key) > (?1, ?2, ?3) ORDER BY field_index, entry, key LIMIT 1";
const ENTRY_THERE: &str = "SELECT 1 FROM field NOT INDEXED
     WHERE record = ?1 AND field_index = ?2 AND entry = ?3 AND key = ?4";

/// An entry that is damaged may end a lookup, or hide where it should have begun.
fn verify_entry(connection: &Connection, which: &str, index: u32, entry: &[u8], key: &str) -> Outcome<()> {
    let mut beside = connection.prepare_cached(which)?;
    let mut beside = beside.query(params![index, entry, key])?;
    let Some(beside) = beside.next()? else { return Ok(()) };
    let found = connection.prepare_cached(ENTRY_THERE)?.exists(params![
        beside.get::<_, i64>(0)?,
        beside.get::<_, i64>(1)?,
        beside.get::<_, Vec<u8>>(2)?,
        beside.get::<_, String>(3)?
    ])?;
    if found { Ok(()) } else { Err(damaged("an index has an entry that is not there").into()) }
}

impl Reader for Pool {
    fn head(&self) -> Result<Head> {
        self.with(find::head)
    }

    fn get(&self, namespace: &str, key: &str, at: At) -> Result<Option<Found>> {
        self.within(namespace, None, |connection, number| {
            find::get(connection, Space { id: number, name: namespace }, key, at)
        })
    }

    fn history(
        &self,
        namespace: &str,
        key: &str,
        after: Option<At>,
        at: At,
        limit: usize,
    ) -> Result<Vec<Found>> {
        self.within(namespace, Vec::new(), |connection, number| {
            find::history(connection, Space { id: number, name: namespace }, key, after, at, limit)
        })
    }

    fn scan(
        &self,
        namespace: &str,
        range: &KeyRange,
        at: At,
        limit: usize,
        reverse: bool,
        payloads: bool,
    ) -> Result<Vec<Keyed>> {
        self.within(namespace, Vec::new(), |connection, number| {
            find::scan(connection, Space { id: number, name: namespace }, range, at, limit, reverse, payloads)
        })
    }

    fn retired(&self, namespace: &str, key: &str, seq: Seq) -> Result<Option<(Seq, Seq)>> {
        let Ok(seq) = i64::try_from(seq) else { return Ok(None) };
        self.within(namespace, None, |connection, number| {
            let mut statement = connection.prepare_cached(
                "SELECT first, last FROM retired
                 WHERE record = (SELECT id FROM record WHERE namespace = ?1 AND key = ?2) AND first <= ?3
                 ORDER BY first DESC LIMIT 1",
            )?;
            let mut ranges = statement.query(params![number, key, seq])?;
            let Some(range) = ranges.next()? else { return Ok(None) };
            let (first, last) = (unsigned(range, 0)?, unsigned(range, 1)?);
            Ok((seq.cast_unsigned() <= last).then_some((first, last)))
        })
    }

    fn commits(&self, after: Seq, limit: usize) -> Result<Vec<Commit>> {
        let Ok(after) = i64::try_from(after) else { return Ok(Vec::new()) };
        self.with(|connection| {
            let _snapshot = Snapshot::begin(connection)?;
            let mut statement = connection.prepare_cached(
                "SELECT seq, time, chain, writes FROM log WHERE seq > ?1 ORDER BY seq LIMIT ?2",
            )?;
            let mut log = statement.query(params![after, rows(limit)])?;
            let (mut commits, mut names) = (Vec::new(), Names::default());
            while let Some(row) = log.next()? {
                let head = head_of(row)?;
                let writes = row.get_ref(3)?.as_blob().ok().and_then(codec::writes);
                let writes = writes
                    .ok_or_else(|| damaged(format!("the log does not say what commit {} wrote", head.seq)))?;
                let mut logged = Vec::with_capacity(writes.len());
                for (record, hash) in writes {
                    let (namespace, key) = names.of(connection, record)?.ok_or_else(|| {
                        damaged(format!("commit {} wrote a record that is not there", head.seq))
                    })?;
                    logged.push(Logged { namespace, key, hash });
                }
                commits.push(Commit { head, writes: logged });
            }
            Ok(commits)
        })
    }

    fn commit(&self, seq: Seq) -> Result<Option<Head>> {
        self.with(|connection| find::commit(connection, seq))
    }

    fn first_commit(&self) -> Result<Head> {
        self.with(find::first_commit)
    }

    fn commit_at(&self, time: Micros) -> Result<Option<Seq>> {
        self.with(|connection| {
            let _snapshot = Snapshot::begin(connection)?;
            find::commit_at(connection, time)
        })
    }

    fn namespaces(&self) -> Result<Vec<String>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(NAMESPACES)?;
            let names = statement.query([])?.and_then(|row| {
                let (name, id, found): (String, i64, Option<i64>) = (row.get(0)?, row.get(1)?, row.get(2)?);
                if found != Some(id) {
                    return Err(damaged(format!("the namespace {name:?} is not in order")).into());
                }
                Ok(name)
            });
            names.collect()
        })
    }

    fn tag(&self, name: &str) -> Result<Option<Tag>> {
        self.with(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT name, seq, time, digest FROM tag WHERE name = ?1")?;
            let mut tags = statement.query([name])?;
            if let Some(tag) = tags.next()? {
                return tag_of(tag).map(Some);
            }
            // There are few: that this one is not among them is worth a look at all.
            all_tags(connection).map(|_| None)
        })
    }

    fn tags(&self) -> Result<Vec<Tag>> {
        self.with(all_tags)
    }

    fn field_indexes(&self) -> Result<Vec<FieldIndex>> {
        self.with(field_indexes)
    }

    fn lookup(&self, index: u32, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<String>> {
        self.with(|connection| {
            let _snapshot = Snapshot::begin(connection)?;
            let mut statement = connection.prepare_cached(LOOKUP)?;
            let mut entries = statement.query(params![index, from, to, rows(limit)])?;
            let (mut keys, mut last) = (Vec::<String>::new(), Vec::new());
            while let Some(entry) = entries.next()? {
                keys.push(entry.get(0)?);
                if keys.len() < limit {
                    last.clear();
                    last.extend_from_slice(entry.get_ref(1)?.as_blob().unwrap_or_default());
                }
            }
            if keys.len() < limit {
                verify_entry(connection, ENTRY_BEFORE, index, from, "")?;
                let (last, key) = keys.last().map_or((from, ""), |key| (last.as_slice(), key.as_str()));
                verify_entry(connection, ENTRY_BEHIND, index, last, key)?;
            }
            Ok(keys)
        })
    }

    fn text_search(&self, namespace: &str, query: &TextQuery, limit: usize) -> Result<Vec<(String, f64)>> {
        self.within(namespace, Vec::new(), |connection, number| {
            text::search(connection, number, query, limit)
        })
    }

    fn text_sums(&self, namespace: &str) -> Result<Option<Vec<(String, u64)>>> {
        self.within(namespace, Vec::new(), text::sums).map(Some)
    }

    fn expired(&self, now: Micros, limit: usize) -> Result<Vec<(Arc<str>, Arc<str>)>> {
        let found = self.with(|connection| find::expired(connection, now, limit))?;
        Ok(found.into_iter().map(|(namespace, key)| (namespace.into(), key.into())).collect())
    }

    fn expiries(&self, namespace: &str, now: Micros) -> Result<(Option<Micros>, Micros)> {
        self.within(namespace, (None, Micros::MAX), |connection, number| {
            find::expiries(connection, Space { id: number, name: namespace }, now)
        })
    }

    fn run_out(&self, namespace: &str, after: Micros, until: Micros) -> Result<Vec<Arc<str>>> {
        self.within(namespace, Vec::new(), |connection, number| {
            find::run_out(connection, Space { id: number, name: namespace }, after, until)
        })
    }

    fn segments(&self) -> Result<Vec<SegmentInfo>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, dim, namespace, name, length, live, digest FROM segment ORDER BY id",
            )?;
            let segments = statement.query([])?.and_then(|row| {
                let segment = SegmentInfo {
                    id: row.get(0)?,
                    dim: row.get(1)?,
                    namespace: row.get(2)?,
                    name: row.get(3)?,
                    length: unsigned(row, 4)?,
                    live: unsigned(row, 5)?,
                };
                if row.get_ref(6)?.as_blob().ok() != Some(&brief_of_segment(&segment)) {
                    return Err(damaged(format!("segment {} is not what was written", segment.id)).into());
                }
                Ok(segment)
            });
            segments.collect()
        })
    }

    fn setting(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.with(|connection| {
            let mut statement = connection.prepare_cached("SELECT value FROM setting WHERE name = ?1")?;
            Ok(statement.query_row([name], |row| row.get(0)).optional()?)
        })
    }

    fn dump(&self, after: u64, limit: usize) -> Result<Vec<std::result::Result<Dumped, (u64, Error)>>> {
        self.with(|connection| check::dump(connection, &self.path, after, limit))
    }

    fn integrity(&self, job: &Job) -> Result<Vec<String>> {
        job.check()?;
        self.with(|connection| check::integrity(connection, &self.path, job))
    }

    fn stats(&self) -> Result<EngineStats> {
        let connections = 1 + self.idle.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
        let mut stats = self.with(|connection| {
            let _snapshot = Snapshot::begin(connection)?;
            let ask = |pragma: &str| -> Outcome<u64> {
                connection.query_row_and_then(pragma, [], |row| unsigned(row, 0))
            };
            let page = ask("PRAGMA page_size")?;
            let mut stats = EngineStats {
                file_bytes: page * ask("PRAGMA page_count")?,
                free_bytes: page * ask("PRAGMA freelist_count")?,
                ..EngineStats::default()
            };
            let mut statement = connection
                .prepare_cached("SELECT name, keys, versions, cold, bytes, history_bytes FROM namespace")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let info = NamespaceInfo {
                    keys: unsigned(row, 1)?,
                    versions: unsigned(row, 2)?,
                    cold: unsigned(row, 3)?,
                    bytes: unsigned(row, 4)?,
                    history_bytes: unsigned(row, 5)?,
                };
                stats.namespaces.insert(row.get(0)?, info);
            }
            Ok(stats)
        })?;
        stats.wal_bytes = std::fs::metadata(schema::log_path(&self.path)).map_or(0, |log| log.len());
        // Not measured, since that would cost a lock on every allocation: what the pages of connections may take.
        stats.memory_bytes = stats.file_bytes.min(PAGES) * connections;
        Ok(stats)
    }

    fn backup(&self, path: &Path, job: &Job) -> Result<()> {
        self.with(|connection| check::backup(connection, path, job))
    }

    fn close(&self) {
        self.shut();
    }
}

/// The declared indexes.
pub(super) fn field_indexes(connection: &Connection) -> Outcome<Vec<FieldIndex>> {
    let mut statement =
        connection.prepare_cached("SELECT id, namespace, field FROM field_index ORDER BY id")?;
    let indexes = statement.query_map([], |row| {
        Ok(FieldIndex { id: row.get(0)?, namespace: row.get(1)?, field: row.get(2)? })
    })?;
    Ok(indexes.collect::<rusqlite::Result<_>>()?)
}

fn all_tags(connection: &Connection) -> Outcome<Vec<Tag>> {
    let mut statement = connection.prepare_cached("SELECT name, seq, time, digest FROM tag ORDER BY name")?;
    statement.query([])?.and_then(tag_of).collect()
}

fn tag_of(row: &rusqlite::Row<'_>) -> Outcome<Tag> {
    let tag = Tag { name: row.get(0)?, seq: unsigned(row, 1)?, time: unsigned(row, 2)? };
    if row.get_ref(3)?.as_blob().ok() != Some(&brief_of_tag(&tag)) {
        return Err(damaged(format!("the tag {:?} is not what was written", tag.name)).into());
    }
    Ok(tag)
}

/// What tells that a tag is what was written: nothing else has it.
pub(super) fn brief_of_tag(tag: &Tag) -> [u8; 8] {
    hash::brief([tag.name.as_bytes(), &tag.seq.to_le_bytes(), &tag.time.to_le_bytes()])
}

/// What tells that a segment is known as it was written. `live` changes with retention, and does no harm.
pub(super) fn brief_of_segment(segment: &SegmentInfo) -> [u8; 8] {
    let SegmentInfo { id, dim, namespace, name, length, live: _ } = segment;
    hash::brief([
        &id.to_le_bytes(),
        &dim.to_le_bytes(),
        namespace.as_bytes(),
        name.as_bytes(),
        &length.to_le_bytes(),
    ])
}

/// The names of records by their numbers, each looked up once.
#[derive(Default)]
pub(super) struct Names {
    records: HashMap<i64, (Arc<str>, Arc<str>)>,
    namespaces: HashMap<i64, Arc<str>>,
}

impl Names {
    /// Namespace and key.
    fn of(&mut self, connection: &Connection, record: i64) -> Outcome<Option<(Arc<str>, Arc<str>)>> {
        if let Some(names) = self.records.get(&record) {
            return Ok(Some(names.clone()));
        }
        let mut statement = connection.prepare_cached("SELECT namespace, key FROM record WHERE id = ?1")?;
        let mut rows = statement.query([record])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let Some(namespace) = self.namespace(connection, row.get(0)?)? else { return Ok(None) };
        let names = (namespace, row.get(1)?);
        self.records.insert(record, names.clone());
        Ok(Some(names))
    }

    /// The name of a namespace.
    pub(super) fn namespace(&mut self, connection: &Connection, number: i64) -> Outcome<Option<Arc<str>>> {
        if let Some(name) = self.namespaces.get(&number) {
            return Ok(Some(name.clone()));
        }
        let mut statement = connection.prepare_cached("SELECT name FROM namespace WHERE id = ?1")?;
        let name: Option<Arc<str>> = statement.query_row([number], |row| row.get(0)).optional()?;
        if let Some(name) = &name {
            self.namespaces.insert(number, name.clone());
        }
        Ok(name)
    }
}
