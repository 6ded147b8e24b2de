//! Reading: from rows of an engine to records, each verified on its way.

use std::ops::Bound;
use std::sync::Arc;

use limnion_types::{Error, ErrorKind, Result};

use crate::cipher::Cipher;
use crate::clock;
use crate::engine::{Found, Keyed, Place, Reader, Row};
use crate::hash;
use crate::model::{At, KeyRange, Kind, Micros, Moment, Record, Seq, Vector};
use crate::payload::{Elsewhere, Part, Payload};
use crate::segment::Segments;

/// How many rows a scan asks for at a time.
const CHUNK: usize = 512;

/// What reading takes: shared by all who read.
pub(crate) struct Reading {
    pub(crate) engine: Arc<dyn Reader>,
    pub(crate) segments: Arc<Segments>,
    pub(crate) cipher: Option<Arc<Cipher>>,
}

/// A point in history as the engine takes it, and the moment by which records have run out there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    pub(crate) at: At,
    /// `None`: when that commit was made, which is looked up where something can run out.
    now: Option<Micros>,
}

impl Point {
    /// A commit, at which nothing has run out that had not when it was made.
    pub(crate) fn fixed(at: At) -> Self {
        Self { at, now: None }
    }

    /// A commit, at which that has run out which had by a moment of its own.
    pub(crate) fn of(moment: Moment) -> Self {
        Self { at: At::Seq(moment.seq), now: Some(moment.time) }
    }
}

impl Reading {
    /// Finds a point in history.
    pub(crate) fn point(&self, at: At) -> Result<Point> {
        Ok(match at {
            At::Latest => Point { at, now: Some(clock::now()) },
            At::Seq(_) => Point { at, now: None },
            At::Time(time) => {
                let found = self.engine.commit_at(time)?;
                Point { at: found.map_or(at, At::Seq), now: Some(time.min(clock::now())) }
            }
        })
    }

    /// Whether a record has a value at a point.
    pub(crate) fn is_live(&self, record: &Record, point: Point) -> Result<bool> {
        if record.kind != Kind::Put || record.expires.is_none() {
            return Ok(record.kind == Kind::Put);
        }
        let now = match (point.now, point.at) {
            (Some(now), _) => now,
            (None, At::Seq(seq)) => self.time_of(seq)?.unwrap_or(record.time),
            (None, _) => clock::now(),
        };
        Ok(record.is_live(now))
    }

    /// When a commit was made; `None` where the log does not have it.
    pub(crate) fn time_of(&self, seq: Seq) -> Result<Option<Micros>> {
        Ok(self.engine.commit(seq)?.map(|head| head.time))
    }

    /// A version of a record with all of its parts, deletions included.
    pub(crate) fn get(&self, namespace: &str, key: &str, point: Point) -> Result<Option<Record>> {
        loop {
            match self.get_once(namespace, key, point) {
                // What was the newest version has been overwritten and dropped while it was read.
                Err(error) if error.kind() == ErrorKind::NoValueAtTime && point.at == At::Latest => {}
                found => return found,
            }
        }
    }

    fn get_once(&self, namespace: &str, key: &str, point: Point) -> Result<Option<Record>> {
        let Some(found) = self.engine.get(namespace, key, point.at)? else {
            return match point.at {
                At::Latest => Ok(None),
                _ => self.no_value_yet(namespace, key),
            };
        };
        self.check_link(namespace, key, &found, point.at)?;
        let mut record = self.record(namespace.into(), key.into(), found.row)?;
        self.fetch_vectors(&mut record)?;
        Ok(Some(record))
    }

    /// A record of which nothing is found at a point: was it ever there?
    fn no_value_yet(&self, namespace: &str, key: &str) -> Result<Option<Record>> {
        let Some(newest) = self.engine.get(namespace, key, At::Latest)? else { return Ok(None) };
        let oldest = self.engine.history(namespace, key, None, At::Latest, usize::MAX)?.pop();
        let first = oldest.as_ref().map_or(&newest.row, |found| &found.row);
        let told = format!("{namespace}/{key} has no value that early");
        let error = Error::new(ErrorKind::NoValueAtTime, told);
        Err(if first.previous == 0 {
            error.suggest(format!("its first version is {}", first.seq))
        } else {
            error.suggest(format!("retention has kept nothing before version {}", first.seq))
        })
    }

    /// Whether a row is what its record was at a point: the version after it was written on top of it, or what was
    /// between them came later than that point. If not, versions are missing.
    pub(crate) fn check_link(&self, namespace: &str, key: &str, found: &Found, at: At) -> Result<()> {
        let missing = match found.next_previous {
            Some(previous) if previous != found.row.seq => previous,
            _ => return Ok(()),
        };
        match self.engine.retired(namespace, key, missing)? {
            None => Err(corrupt(namespace, key, &format!("version {missing} is missing"))),
            Some((first, _)) if matches!(at, At::Seq(seq) if seq < first) => Ok(()),
            Some(_) => Err(dropped(namespace, key)),
        }
    }

    /// The versions of a record, newest first.
    pub(crate) fn history(
        &self,
        namespace: &str,
        key: &str,
        after: Option<At>,
        until: At,
        limit: usize,
    ) -> Result<Vec<Record>> {
        let (shared, name): (Arc<str>, Arc<str>) = (namespace.into(), key.into());
        self.versions(namespace, key, after, until, limit, |found| {
            self.record(shared.clone(), name.clone(), found.row)
        })
    }

    /// The versions of a record, newest first, as `read` gives them. What it gives as an error of kind no-value-at-time is
    /// left out.
    pub(crate) fn versions<T>(
        &self,
        namespace: &str,
        key: &str,
        after: Option<At>,
        until: At,
        limit: usize,
        read: impl Fn(Found) -> Result<T>,
    ) -> Result<Vec<T>> {
        let engine_at = |at: At| self.point(at).map(|point| point.at);
        let (after, until) = (after.map(engine_at).transpose()?, engine_at(until)?);
        let found = self.engine.history(namespace, key, after, until, limit)?;
        let mut newer: Option<Seq> = found.first().and_then(|first| first.next_previous);
        let mut records = Vec::with_capacity(found.len());
        for found in found {
            let row = &found.row;
            if let Some(previous) = newer.filter(|&previous| previous != row.seq) {
                // A gap that retention has left is no fault of a history.
                if self.engine.retired(namespace, key, previous)?.is_none() {
                    return Err(corrupt(namespace, key, &format!("version {previous} is missing")));
                }
            }
            newer = Some(row.previous);
            match read(found) {
                // Retention is at work.
                Err(error) if error.kind() == ErrorKind::NoValueAtTime => {}
                record => records.push(record?),
            }
        }
        let reached_the_end = records.len() < limit && after.is_none();
        if let (true, Some(previous @ 1..)) = (reached_the_end && !records.is_empty(), newer)
            && self.engine.retired(namespace, key, previous)?.is_none()
        {
            return Err(corrupt(namespace, key, &format!("version {previous} is missing")));
        }
        Ok(records)
    }

    /// A row as a record: verified, decrypted, with its value, without vectors that lie in segments.
    pub(crate) fn record(&self, namespace: Arc<str>, key: Arc<str>, row: Row) -> Result<Record> {
        let payload = self.payload(&namespace, &key, &row)?;
        let mut record = Record {
            namespace,
            key,
            version: row.seq,
            time: row.time,
            previous: row.previous,
            kind: row.kind,
            expires: row.expires,
            payload,
            places: row.places,
        };
        let value = record.payload.elsewhere().iter().position(|(part, _)| *part == Part::Value);
        if let Some(at) = value {
            self.fetch(&mut record, at)?;
        }
        Ok(record)
    }

    /// What a row says: verified, decrypted, without the parts that lie in segments.
    pub(crate) fn payload(&self, namespace: &str, key: &str, row: &Row) -> Result<Payload> {
        if !hash::is_whole(namespace, key, row) {
            return Err(corrupt(namespace, key, &format!("version {} is not what was written", row.seq)));
        }
        let bytes = match &self.cipher {
            Some(cipher) if row.kind == Kind::Put => {
                cipher.open(namespace, key, row.seq, &row.payload)?.into()
            }
            _ => row.payload.clone(),
        };
        Payload::decode(bytes).map_err(|error| error.within(format!("{namespace}/{key}")))
    }

    /// Fetches the vectors of a record that lie in segments.
    pub(crate) fn fetch_vectors(&self, record: &mut Record) -> Result<()> {
        for at in 0..record.payload.elsewhere().len() {
            self.fetch(record, at)?;
        }
        Ok(())
    }

    pub(crate) fn vectors(&self, record: &Record) -> Result<Vec<Vector>> {
        let mut record = record.clone();
        self.fetch_vectors(&mut record)?;
        Ok(record.payload.vectors())
    }

    fn fetch(&self, record: &mut Record, at: usize) -> Result<()> {
        let Some((part, lies)) = record.payload.elsewhere().get(at).cloned() else { return Ok(()) };
        if record.payload.is_missing(part) {
            let Record { namespace, key, version, .. } = &*record;
            let bytes = match self.part(record.places.get(at), &lies) {
                Ok(bytes) => bytes,
                // It was there when its row was read.
                Err(_) if self.engine.retired(namespace, key, *version)?.is_some() => {
                    return Err(dropped(namespace, key));
                }
                Err(error) => return Err(error.within(format!("{namespace}/{key} (version {version})"))),
            };
            record.payload.fetched(part, &bytes);
        }
        Ok(())
    }

    /// The bytes of a part, verified.
    pub(crate) fn part(&self, place: Option<&Place>, lies: &Elsewhere) -> Result<Vec<u8>> {
        let damaged = |what: &str| Error::new(ErrorKind::Corruption, what).suggest(REPAIR);
        let place = place.ok_or_else(|| damaged("it is not said where a part of the record lies"))?;
        let bytes = self.segments.read(*place, lies.length)?;
        if *blake3::hash(&bytes).as_bytes() != lies.hash {
            return Err(damaged("a part of the record is not what was written"));
        }
        Ok(bytes)
    }

    /// The live records of a range, in the order of their keys or in reverse.
    pub(crate) fn scan(
        &self,
        namespace: &str,
        range: KeyRange,
        point: Point,
        reverse: bool,
        payloads: bool,
    ) -> Scan<'_> {
        Scan {
            reading: self,
            namespace: namespace.into(),
            rest: Some(range),
            point,
            reverse,
            payloads,
            chunk: Vec::new().into_iter(),
        }
    }
}

/// What to do about damage.
pub(crate) const REPAIR: &str =
    "check() lists all damage; restore a backup, or copy what is whole with salvage()";

/// Retention has been there.
pub(crate) fn dropped(namespace: &str, key: &str) -> Error {
    Error::new(
        ErrorKind::NoValueAtTime,
        format!("retention has dropped what {namespace}/{key} was at that point"),
    )
    .suggest("history() lists the versions that are kept")
}

pub(crate) fn corrupt(namespace: &str, key: &str, what: &str) -> Error {
    Error::new(ErrorKind::Corruption, format!("{namespace}/{key}: {what}")).suggest(REPAIR)
}

/// Live records, read in chunks.
pub(crate) struct Scan<'a> {
    reading: &'a Reading,
    namespace: Arc<str>,
    rest: Option<KeyRange>,
    point: Point,
    reverse: bool,
    payloads: bool,
    chunk: std::vec::IntoIter<Keyed>,
}

impl Scan<'_> {
    fn refill(&mut self) -> Result<bool> {
        let Some(mut rest) = self.rest.take() else { return Ok(false) };
        let chunk = self.reading.engine.scan(
            &self.namespace,
            &rest,
            self.point.at,
            CHUNK,
            self.reverse,
            self.payloads,
        )?;
        if let (CHUNK, Some(last)) = (chunk.len(), chunk.last()) {
            let bound = Bound::Excluded(last.key.clone());
            *(if self.reverse { &mut rest.end } else { &mut rest.start }) = bound;
            self.rest = Some(rest);
        }
        let some = !chunk.is_empty();
        self.chunk = chunk.into_iter();
        Ok(some)
    }

    fn read(&self, Keyed { key, found }: Keyed) -> Result<Option<Record>> {
        let reading = self.reading;
        match reading.check_link(&self.namespace, &key, &found, self.point.at) {
            // What retention has dropped is not part of the past that is left.
            Err(error) if error.kind() == ErrorKind::NoValueAtTime => return Ok(None),
            checked => checked?,
        }
        let record = if self.payloads {
            reading.record(self.namespace.clone(), key.into(), found.row)?
        } else {
            let row = found.row;
            Record {
                namespace: self.namespace.clone(),
                key: key.into(),
                version: row.seq,
                time: row.time,
                previous: row.previous,
                kind: row.kind,
                expires: row.expires,
                payload: Payload::default(),
                places: Vec::new(),
            }
        };
        Ok(reading.is_live(&record, self.point)?.then_some(record))
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(keyed) = self.chunk.next() {
                match self.read(keyed) {
                    Ok(None) => {}
                    Ok(Some(record)) => return Some(Ok(record)),
                    Err(error) => return Some(Err(error)),
                }
            } else {
                match self.refill() {
                    Ok(true) => {}
                    Ok(false) => return None,
                    Err(error) => {
                        self.rest = None;
                        return Some(Err(error));
                    }
                }
            }
        }
    }
}
