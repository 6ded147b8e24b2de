//! The side that writes. A new record costs one seek and one insert; an overwrite moves the row that was the newest.

use std::collections::HashMap;

use limnion_types::{Error, ErrorKind, Result};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::{Failure, Outcome, damaged, signed};
use super::find::{self, Known};
use super::reader::{brief_of_segment, brief_of_tag};
use super::{SqliteEngine, codec, retire, text};
use crate::engine::{Current, FieldIndex, Head, Place, SegmentInfo, Tag, Transaction, Write};
use crate::model::{Kind, Seq};

/// What the writer knows of a namespace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Namespace {
    pub(super) id: i64,
    /// Whether it has a full-text table.
    pub(super) has_text: bool,
}

/// How the counts of a namespace change with a transaction.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Delta {
    pub(super) keys: i64,
    pub(super) versions: i64,
    pub(super) cold: i64,
    pub(super) bytes: i64,
    pub(super) history_bytes: i64,
}

impl Delta {
    fn add(&mut self, more: Self) {
        self.keys += more.keys;
        self.versions += more.versions;
        self.cold += more.cold;
        self.bytes += more.bytes;
        self.history_bytes += more.history_bytes;
    }

    /// Adds these changes to the counts.
    pub(super) fn apply(&self, connection: &Connection, namespace: i64) -> Outcome<()> {
        let mut statement = connection.prepare_cached(
            "UPDATE namespace SET keys = max(0, keys + ?2), versions = max(0, versions + ?3), cold = max(0, cold + ?4),
             bytes = max(0, bytes + ?5), history_bytes = max(0, history_bytes + ?6) WHERE id = ?1",
        )?;
        let Delta { keys, versions, cold, bytes, history_bytes } = *self;
        statement.execute(params![namespace, keys, versions, cold, bytes, history_bytes])?;
        Ok(())
    }
}

/// Changes that happen together or not at all.
pub(super) struct SqliteTransaction<'a> {
    engine: &'a mut SqliteEngine,
    deltas: HashMap<i64, Delta>,
    /// The record that was looked at last: `current` comes before `write`.
    last: Option<(i64, String, Option<Known>)>,
    /// What the commit that comes next wrote, as the log will have it.
    writes: Vec<u8>,
    /// After a failure SQLite may have ended the transaction: nothing more may be written then, and nothing committed.
    failed: Option<Error>,
    open: bool,
}

impl<'a> SqliteTransaction<'a> {
    pub(super) fn begin(engine: &'a mut SqliteEngine) -> Result<Self> {
        let begun = engine.connection()?.prepare_cached("BEGIN IMMEDIATE").and_then(|mut s| s.execute([]));
        begun.map_err(|error| Failure::from(error).at(engine.path()))?;
        let deltas = HashMap::new();
        Ok(Self { engine, deltas, last: None, writes: Vec::new(), failed: None, open: true })
    }

    /// Runs one step. One that failed makes the transaction unfit for all others.
    fn step<T>(&mut self, step: impl FnOnce(&mut Self) -> Outcome<T>) -> Result<T> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let outcome = step(self).map_err(|failure| failure.at(self.engine.path()));
        if let Err(error) = &outcome {
            self.failed = Some(error.clone());
        }
        outcome
    }

    fn connection(&self) -> Result<&Connection> {
        self.engine.connection()
    }

    fn namespace(&mut self, name: &str) -> Outcome<Option<Namespace>> {
        if let Some(known) = self.engine.namespaces.get(name) {
            return Ok(Some(*known));
        }
        let found = {
            let connection = self.connection()?;
            match find::namespace(connection, name)? {
                Some(id) => Some(Namespace { id, has_text: text::has_text(connection, id)? }),
                None => None,
            }
        };
        if let Some(found) = found {
            self.engine.namespaces.insert(name.into(), found);
        }
        Ok(found)
    }

    fn create_namespace(&mut self, name: &str) -> Outcome<Namespace> {
        if let Some(known) = self.namespace(name)? {
            return Ok(known);
        }
        let connection = self.connection()?;
        connection.prepare_cached("INSERT INTO namespace (name) VALUES (?1)")?.execute([name])?;
        let made = Namespace { id: connection.last_insert_rowid(), has_text: false };
        self.engine.namespaces.insert(name.into(), made);
        Ok(made)
    }

    fn known(&mut self, namespace: i64, key: &str) -> Outcome<Option<Known>> {
        if let Some((in_namespace, last, known)) = &self.last
            && *in_namespace == namespace
            && last == key
        {
            return Ok(*known);
        }
        let known = find::known(self.connection()?, namespace, key)?;
        self.remember(namespace, key, known);
        Ok(known)
    }

    fn remember(&mut self, namespace: i64, key: &str, known: Option<Known>) {
        let mut name = self.last.take().map_or_else(String::new, |(_, name, _)| name);
        name.clear();
        name.push_str(key);
        self.last = Some((namespace, name, known));
    }

    /// A record that must be there.
    fn existing(&mut self, namespace: &str, key: &str) -> Outcome<(i64, Known)> {
        let missing = || {
            Error::new(ErrorKind::Internal, format!("there is no record {key:?} in namespace {namespace:?}"))
        };
        let namespace = self.namespace(namespace)?.ok_or_else(missing)?.id;
        Ok((namespace, self.known(namespace, key)?.ok_or_else(missing)?))
    }

    /// Makes rows the first ones of their records, until a record is there already.
    fn insert_rows(&mut self, writes: &[Write]) -> Outcome<usize> {
        let Some(first) = writes.first() else { return Ok(0) };
        let namespace = self.create_namespace(&first.namespace)?;
        self.last = None;
        let mut delta = Delta::default();
        let mut ids = Vec::with_capacity(writes.len());
        {
            let connection = self.engine.connection()?;
            let mut insert = connection.prepare_cached(
                "INSERT INTO record (namespace, key, seq, time, previous, kind, expires, digest, places, payload)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (namespace, key) DO NOTHING",
            )?;
            for write in writes {
                let Columns { seq, time, previous, kind, expires, places, length } = Columns::of(write)?;
                let (key, row) = (&write.key, &write.row);
                let made = insert.execute(params![
                    namespace.id,
                    key,
                    seq,
                    time,
                    previous,
                    kind,
                    expires,
                    row.check,
                    places,
                    &*row.payload
                ])?;
                if made == 0 {
                    break;
                }
                let id = connection.last_insert_rowid();
                codec::put_write(&mut self.writes, id, &write.hash);
                ids.push(id);
                delta.keys += i64::from(row.kind == Kind::Put);
                delta.versions += 1;
                delta.bytes += length;
            }
        }
        self.deltas.entry(namespace.id).or_default().add(delta);
        for (write, id) in writes.iter().zip(&ids) {
            self.describe(write, *id, false)?;
        }
        Ok(ids.len())
    }

    fn write_row(&mut self, write: &Write) -> Outcome<()> {
        let namespace = self.create_namespace(&write.namespace)?;
        let Some(known) = self.known(namespace.id, &write.key)? else {
            self.insert_rows(std::slice::from_ref(write))?;
            return Ok(());
        };
        let row = &write.row;
        if row.seq <= known.seq {
            let message = format!("commit {} comes after commit {} of {:?}", row.seq, known.seq, write.key);
            return Err(Error::new(ErrorKind::Internal, message).into());
        }
        let columns = Columns::of(write)?;
        let length = columns.length;
        overwrite(self.engine.connection()?, known.id, write, columns)?;
        let delta = Delta {
            keys: i64::from(row.kind == Kind::Put) - i64::from(known.kind == Kind::Put),
            versions: 1,
            cold: 0,
            bytes: length - known.bytes,
            history_bytes: known.bytes,
        };
        self.deltas.entry(namespace.id).or_default().add(delta);
        codec::put_write(&mut self.writes, known.id, &write.hash);
        self.describe(write, known.id, true)?;
        self.engine.loose.grew(known.id);
        let known = Known { seq: row.seq, kind: row.kind, expires: row.expires, bytes: length, ..known };
        self.remember(namespace.id, &write.key, Some(known));
        Ok(())
    }

    /// Has declared indexes and full text find a record by what it says now.
    fn describe(&mut self, write: &Write, id: i64, was_there: bool) -> Outcome<()> {
        if was_there && !self.engine.indexed.is_empty() {
            let connection = self.engine.connection()?;
            connection.prepare_cached("DELETE FROM field WHERE record = ?1")?.execute([id])?;
        }
        for (index, entry) in &write.fields {
            insert_entry(self.engine.connection()?, id, *index, entry, &write.key)?;
        }
        if write.text.is_none() && !was_there {
            return Ok(());
        }
        let namespace = self.create_namespace(&write.namespace)?;
        let connection = self.engine.connection()?;
        match &write.text {
            Some(words) => {
                if !namespace.has_text {
                    text::create(connection, namespace.id)?;
                    let with_text = Namespace { has_text: true, ..namespace };
                    self.engine.namespaces.insert((*write.namespace).into(), with_text);
                }
                text::insert(self.engine.connection()?, namespace.id, id, words, was_there)
            }
            None if namespace.has_text => text::remove(connection, namespace.id, id),
            None => Ok(()),
        }
    }

    fn finish(&mut self) -> Outcome<()> {
        for (namespace, delta) in &self.deltas {
            delta.apply(self.engine.connection()?, *namespace)?;
        }
        self.engine.check_file()?;
        self.connection()?.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }
}

/// The columns of a row, as SQLite takes them.
struct Columns {
    seq: i64,
    time: i64,
    previous: i64,
    kind: u8,
    expires: Option<i64>,
    places: Option<Vec<u8>>,
    length: i64,
}

impl Columns {
    fn of(write: &Write) -> Outcome<Self> {
        let row = &write.row;
        Ok(Self {
            seq: signed(row.seq, "the number of a commit")?,
            time: signed(row.time, "the time of a commit")?,
            previous: signed(row.previous, "the number of a commit")?,
            kind: row.kind as u8,
            expires: row.expires.map(|expires| signed(expires, "an expiry")).transpose()?,
            places: if row.places.is_empty() { None } else { Some(codec::put_places(&row.places)) },
            length: i64::try_from(row.payload.len()).unwrap_or(i64::MAX),
        })
    }
}

/// Moves the row that was the newest to the older ones, and puts another in its place.
fn overwrite(connection: &Connection, record: i64, write: &Write, columns: Columns) -> Outcome<()> {
    let Columns { seq, time, previous, kind, expires, places, .. } = columns;
    let mut keep = connection.prepare_cached(
        "INSERT INTO version SELECT id, seq, time, previous, kind, expires, digest, places, payload
         FROM record WHERE id = ?1",
    )?;
    keep.execute([record])?;
    let mut update = connection.prepare_cached(
        "UPDATE record SET seq = ?2, time = ?3, previous = ?4, kind = ?5, expires = ?6, digest = ?7,
         places = ?8, payload = ?9 WHERE id = ?1",
    )?;
    let (check, payload) = (write.row.check, &*write.row.payload);
    if update.execute(params![record, seq, time, previous, kind, expires, check, places, payload])? != 1 {
        return Err(damaged(format!("the record {:?} cannot be found again", write.key)).into());
    }
    Ok(())
}

fn insert_entry(connection: &Connection, record: i64, index: u32, entry: &[u8], key: &str) -> Outcome<()> {
    let mut insert = connection.prepare_cached(
        "INSERT OR IGNORE INTO field (record, field_index, entry, key) VALUES (?1, ?2, ?3, ?4)",
    )?;
    insert.execute(params![record, index, entry, key])?;
    Ok(())
}

impl Transaction for SqliteTransaction<'_> {
    fn current(&mut self, namespace: &str, key: &str) -> Result<Option<Current>> {
        self.step(|this| {
            let Some(namespace) = this.namespace(namespace)? else { return Ok(None) };
            let known = this.known(namespace.id, key)?;
            Ok(known.map(|known| Current { seq: known.seq, kind: known.kind, expires: known.expires }))
        })
    }

    fn write(&mut self, write: &Write) -> Result<()> {
        self.step(|this| this.write_row(write))
    }

    fn insert(&mut self, writes: &[Write]) -> Result<usize> {
        self.step(|this| this.insert_rows(writes))
    }

    fn log(&mut self, head: &Head) -> Result<()> {
        self.step(|this| {
            let (seq, time) = (signed(head.seq, "the number of a commit")?, signed(head.time, "its time")?);
            let mut insert = this
                .engine
                .connection()?
                .prepare_cached("INSERT INTO log (seq, time, chain, writes) VALUES (?1, ?2, ?3, ?4)")?;
            insert.execute(params![seq, time, find::noted(head), this.writes])?;
            this.writes.clear();
            Ok(())
        })
    }

    fn set_tag(&mut self, tag: &Tag) -> Result<()> {
        self.step(|this| {
            let (seq, time) = (signed(tag.seq, "the number of a commit")?, signed(tag.time, "its time")?);
            this.connection()?
                .prepare_cached(
                    "INSERT OR REPLACE INTO tag (name, seq, time, digest) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![tag.name, seq, time, brief_of_tag(tag)])?;
            Ok(())
        })
    }

    fn remove_tag(&mut self, name: &str) -> Result<bool> {
        self.step(|this| {
            Ok(this.connection()?.prepare_cached("DELETE FROM tag WHERE name = ?1")?.execute([name])? > 0)
        })
    }

    fn create_index(&mut self, namespace: &str, field: &str) -> Result<FieldIndex> {
        self.step(|this| {
            let connection = this.engine.connection()?;
            connection
                .prepare_cached("INSERT OR IGNORE INTO field_index (namespace, field) VALUES (?1, ?2)")?
                .execute([namespace, field])?;
            let id = connection
                .prepare_cached("SELECT id FROM field_index WHERE namespace = ?1 AND field = ?2")?
                .query_row([namespace, field], |row| row.get(0))?;
            this.engine.indexed.insert(id);
            Ok(FieldIndex { id, namespace: namespace.into(), field: field.into() })
        })
    }

    fn drop_index(&mut self, namespace: &str, field: &str) -> Result<bool> {
        self.step(|this| {
            let connection = this.engine.connection()?;
            let id = connection
                .prepare_cached("DELETE FROM field_index WHERE namespace = ?1 AND field = ?2 RETURNING id")?
                .query_row([namespace, field], |row| row.get::<_, u32>(0))
                .optional()?;
            let Some(id) = id else { return Ok(false) };
            connection.prepare_cached("DELETE FROM field WHERE field_index = ?1")?.execute([id])?;
            this.engine.indexed.remove(&id);
            Ok(true)
        })
    }

    fn index(&mut self, index: u32, namespace: &str, key: &str, entry: &[u8]) -> Result<()> {
        self.step(|this| {
            let (_, known) = this.existing(namespace, key)?;
            insert_entry(this.connection()?, known.id, index, entry, key)
        })
    }

    fn retire(&mut self, namespace: &str, key: &str, seqs: &[Seq], freed: &[(u32, u64)]) -> Result<()> {
        self.step(|this| {
            let (namespace, known) = this.existing(namespace, key)?;
            let delta = retire::retire(this.connection()?, known, seqs, freed)?;
            let total = this.deltas.entry(namespace).or_default();
            total.versions += delta.versions;
            total.cold += delta.cold;
            total.history_bytes += delta.history_bytes;
            Ok(())
        })
    }

    fn fold(&mut self, seq: Seq) -> Result<()> {
        self.step(|this| {
            // The newest commit always stays: the next one is chained to it.
            let mut delete = this
                .connection()?
                .prepare_cached("DELETE FROM log WHERE seq < min(?1, (SELECT max(seq) FROM log))")?;
            delete.execute([i64::try_from(seq).unwrap_or(i64::MAX)])?;
            Ok(())
        })
    }

    fn set_segment(&mut self, segment: &SegmentInfo) -> Result<()> {
        self.step(|this| {
            let (length, live) = (signed(segment.length, "a length")?, signed(segment.live, "a length")?);
            let mut statement = this.connection()?.prepare_cached(
                "INSERT OR REPLACE INTO segment (id, dim, namespace, name, length, live, digest)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            statement.execute(params![
                segment.id,
                segment.dim,
                segment.namespace,
                segment.name,
                length,
                live,
                brief_of_segment(segment)
            ])?;
            Ok(())
        })
    }

    fn remove_segment(&mut self, id: u32) -> Result<()> {
        self.step(|this| {
            let connection = this.connection()?;
            connection.prepare_cached("DELETE FROM segment WHERE id = ?1")?.execute([id])?;
            connection.prepare_cached("DELETE FROM value WHERE segment = ?1")?.execute([id])?;
            Ok(())
        })
    }

    fn find_value(&mut self, hash: &[u8; 32]) -> Result<Option<Place>> {
        self.step(|this| {
            let mut statement =
                this.connection()?.prepare_cached("SELECT segment, place FROM value WHERE hash = ?1")?;
            let mut rows = statement.query([hash])?;
            let place = |row: &rusqlite::Row<'_>| -> Outcome<Place> {
                Ok(Place { segment: row.get(0)?, offset: find::unsigned(row, 1)? })
            };
            rows.next()?.map(place).transpose()
        })
    }

    fn set_value(&mut self, hash: &[u8; 32], place: Place) -> Result<()> {
        self.step(|this| {
            let offset = signed(place.offset, "a place in a segment")?;
            this.connection()?
                .prepare_cached("INSERT OR REPLACE INTO value (hash, segment, place) VALUES (?1, ?2, ?3)")?
                .execute(params![hash, place.segment, offset])?;
            Ok(())
        })
    }

    fn set_setting(&mut self, name: &str, value: &[u8]) -> Result<()> {
        self.step(|this| {
            this.connection()?
                .prepare_cached("INSERT OR REPLACE INTO setting (name, value) VALUES (?1, ?2)")?
                .execute(params![name, value])?;
            Ok(())
        })
    }

    fn commit(mut self: Box<Self>) -> Result<()> {
        self.step(Self::finish).inspect_err(|error| {
            // A commit that failed may have reached the disk in part: only what is read from there anew is sure.
            self.engine.poisoned = Some(error.clone());
        })?;
        self.open = false;
        Ok(())
    }
}

impl Drop for SqliteTransaction<'_> {
    fn drop(&mut self) {
        if self.open {
            self.engine.roll_back();
        }
    }
}
