//! What the engine in memory holds, and how it changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use limnion_types::{Job, Result};

use crate::engine::{
    Commit, Current, Dumped, EngineStats, FieldIndex, Found, Head, Keyed, NamespaceInfo, Place, Row,
    SegmentInfo, Tag, Write,
};
use crate::model::{At, KeyRange, Kind, Micros, Seq};
use crate::text::{TextIndex, TextQuery};

/// One step of a transaction.
#[derive(Debug)]
pub(super) enum Change {
    Write(Write),
    Log(Commit),
    SetTag(Tag),
    RemoveTag(String),
    CreateIndex(FieldIndex),
    DropIndex(u32),
    Index { index: u32, namespace: Arc<str>, key: Arc<str>, entry: Vec<u8> },
    Retire { namespace: Arc<str>, key: Arc<str>, seqs: Vec<Seq>, freed: Vec<(u32, u64)> },
    Fold(Seq),
    SetSegment(SegmentInfo),
    RemoveSegment(u32),
    SetValue([u8; 32], Place),
    SetSetting(String, Vec<u8>),
}

/// Everything that is committed.
#[derive(Debug, Default)]
pub(super) struct State {
    head: Head,
    commits: VecDeque<Commit>,
    namespaces: BTreeMap<Arc<str>, Namespace>,
    /// Namespace and key of each record, in the order in which they came: the number of a record is its place, from 1.
    records: Vec<(Arc<str>, Arc<str>)>,
    /// The records whose newest version runs out, by when.
    expiring: BTreeSet<(Micros, u64)>,
    tags: BTreeMap<String, Tag>,
    indexes: BTreeMap<u32, Index>,
    /// How many indexes were ever declared.
    declared: u32,
    segments: BTreeMap<u32, SegmentInfo>,
    values: HashMap<[u8; 32], Place>,
    settings: BTreeMap<String, Vec<u8>>,
    /// Bytes of rows, keys and the log.
    bytes: u64,
}

#[derive(Debug, Default)]
struct Namespace {
    records: BTreeMap<Arc<str>, Record>,
    texts: TextIndex,
    info: NamespaceInfo,
}

#[derive(Debug)]
struct Record {
    /// Its number.
    id: u64,
    /// Oldest first; never empty.
    rows: Vec<Row>,
    /// First and last of the runs of versions that retention dropped, oldest first. No version that is kept lies inside.
    retired: Vec<(Seq, Seq)>,
    /// Its entries in declared indexes.
    fields: Vec<(u32, Vec<u8>)>,
}

#[derive(Debug)]
struct Index {
    declared: FieldIndex,
    /// Entry and key.
    entries: BTreeSet<(Vec<u8>, Arc<str>)>,
}

impl Record {
    fn newest(&self) -> Option<&Row> {
        self.rows.last()
    }

    /// How many of its versions `at` includes.
    fn count(&self, at: At) -> usize {
        self.rows.partition_point(|row| at.includes(row.seq, row.time))
    }

    fn found(&self, place: usize) -> Option<Found> {
        let next_previous = self.rows.get(place + 1).map(|next| next.previous);
        Some(Found { row: self.rows.get(place)?.clone(), next_previous })
    }

    fn at(&self, at: At) -> Option<Found> {
        self.found(self.count(at).checked_sub(1)?)
    }
}

// Reading.
impl State {
    pub(super) fn head(&self) -> Head {
        self.head
    }

    fn record(&self, namespace: &str, key: &str) -> Option<&Record> {
        self.namespaces.get(namespace)?.records.get(key)
    }

    pub(super) fn current(&self, namespace: &str, key: &str) -> Option<Current> {
        let row = self.record(namespace, key)?.newest()?;
        Some(Current { seq: row.seq, kind: row.kind, expires: row.expires })
    }

    pub(super) fn get(&self, namespace: &str, key: &str, at: At) -> Option<Found> {
        self.record(namespace, key)?.at(at)
    }

    pub(super) fn history(
        &self,
        namespace: &str,
        key: &str,
        after: Option<At>,
        at: At,
        limit: usize,
    ) -> Vec<Found> {
        let Some(record) = self.record(namespace, key) else { return Vec::new() };
        let from = after.map_or(0, |after| record.count(after));
        (from..record.count(at)).rev().take(limit).filter_map(|place| record.found(place)).collect()
    }

    pub(super) fn scan(
        &self,
        namespace: &str,
        range: &KeyRange,
        at: At,
        limit: usize,
        reverse: bool,
        payloads: bool,
    ) -> Vec<Keyed> {
        let Some(namespace) = self.namespaces.get(namespace) else { return Vec::new() };
        // A map does not take a range that ends before it begins.
        if is_void(range) {
            return Vec::new();
        }
        let bounds = (as_str(&range.start), as_str(&range.end));
        let there = namespace.records.range::<str, _>(bounds).filter_map(|(key, record)| {
            let mut found = record.at(at)?;
            if !payloads {
                found.row.payload = Arc::default();
                found.row.places = Vec::new();
            }
            Some(Keyed { key: key.to_string(), found })
        });
        if reverse { there.rev().take(limit).collect() } else { there.take(limit).collect() }
    }

    pub(super) fn retired(&self, namespace: &str, key: &str, seq: Seq) -> Option<(Seq, Seq)> {
        let mut ranges = self.record(namespace, key)?.retired.iter();
        ranges.find(|&&(first, last)| first <= seq && seq <= last).copied()
    }

    pub(super) fn commits(&self, after: Seq, limit: usize) -> Vec<Commit> {
        let from = self.commits.partition_point(|commit| commit.head.seq <= after);
        self.commits.range(from..).take(limit).cloned().collect()
    }

    pub(super) fn commit(&self, seq: Seq) -> Option<Head> {
        let at = self.commits.binary_search_by_key(&seq, |commit| commit.head.seq).ok()?;
        self.commits.get(at).map(|commit| commit.head)
    }

    pub(super) fn first_commit(&self) -> Head {
        self.commits.front().map(|commit| commit.head).unwrap_or_default()
    }

    pub(super) fn commit_at(&self, time: Micros) -> Option<Seq> {
        let until = self.commits.partition_point(|commit| commit.head.time <= time);
        Some(self.commits.get(until.checked_sub(1)?)?.head.seq)
    }

    pub(super) fn namespaces(&self) -> Vec<String> {
        let with_values = self.namespaces.iter().filter(|(_, namespace)| namespace.info.keys > 0);
        with_values.map(|(name, _)| name.to_string()).collect()
    }

    pub(super) fn tag(&self, name: &str) -> Option<&Tag> {
        self.tags.get(name)
    }

    pub(super) fn tags(&self) -> Vec<Tag> {
        self.tags.values().cloned().collect()
    }

    pub(super) fn field_indexes(&self) -> Vec<FieldIndex> {
        self.indexes.values().map(|index| index.declared.clone()).collect()
    }

    /// The number of the next index. Numbers are not used twice.
    pub(super) fn next_index(&self) -> u32 {
        self.declared + 1
    }

    pub(super) fn lookup(&self, index: u32, from: &[u8], to: &[u8], limit: usize) -> Vec<String> {
        let Some(index) = self.indexes.get(&index) else { return Vec::new() };
        let entries = index.entries.range((from.to_vec(), Arc::from(""))..);
        let inside = entries.take_while(|(entry, _)| entry.as_slice() <= to);
        inside.take(limit).map(|(_, key)| key.to_string()).collect()
    }

    pub(super) fn text_search(&self, namespace: &str, query: &TextQuery, limit: usize) -> Vec<(String, f64)> {
        let Some(namespace) = self.namespaces.get(namespace) else { return Vec::new() };
        let hits = namespace.texts.search_by(query, limit, |a, b| self.key(a).cmp(self.key(b)));
        hits.into_iter().map(|(id, score)| (self.key(id).to_owned(), score)).collect()
    }

    pub(super) fn expired(&self, now: Micros, limit: usize) -> Vec<(Arc<str>, Arc<str>)> {
        let expired = self.expiring.range(..=(now, u64::MAX)).take(limit);
        expired.filter_map(|&(_, id)| self.named(id).cloned()).collect()
    }

    pub(super) fn expiries(&self, namespace: &str, now: Micros) -> (Option<Micros>, Micros) {
        let is_of = |id: u64| self.named(id).is_some_and(|(name, _)| **name == *namespace);
        let past = self.expiring.range(..=(now, u64::MAX)).rev();
        let last = past.copied().find(|&(_, id)| is_of(id)).map(|(expires, _)| expires);
        let mut next = Micros::MAX;
        for (looked, &(expires, id)) in self.expiring.range((now.saturating_add(1), 0)..).enumerate() {
            if is_of(id) || looked == LOOKED_AT {
                next = expires;
                break;
            }
        }
        (last, next)
    }

    pub(super) fn run_out(&self, namespace: &str, after: Micros, until: Micros) -> Vec<Arc<str>> {
        let due = self.expiring.range((after.saturating_add(1), 0)..).take_while(|due| due.0 <= until);
        let named = due.filter_map(|&(_, id)| self.named(id));
        named.filter(|(name, _)| **name == *namespace).map(|(_, key)| key.clone()).collect()
    }

    pub(super) fn segments(&self) -> Vec<SegmentInfo> {
        self.segments.values().cloned().collect()
    }

    pub(super) fn value(&self, hash: &[u8; 32]) -> Option<Place> {
        self.values.get(hash).copied()
    }

    pub(super) fn setting(&self, name: &str) -> Option<Vec<u8>> {
        self.settings.get(name).cloned()
    }

    pub(super) fn dump(&self, after: u64, limit: usize) -> Vec<Dumped> {
        let ids = after.saturating_add(1)..=self.records.len() as u64;
        let dumped = ids.filter_map(|id| {
            let (namespace, key) = self.named(id)?;
            let record = self.record(namespace, key)?;
            Some(Dumped {
                id,
                namespace: namespace.clone(),
                key: key.clone(),
                rows: record.rows.clone(),
                retired: record.retired.clone(),
            })
        });
        dumped.take(limit).collect()
    }

    /// Counts again what is counted along the way.
    pub(super) fn integrity(&self, job: &Job) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        for (name, namespace) in &self.namespaces {
            let mut info = NamespaceInfo::default();
            for (key, record) in &namespace.records {
                job.check()?;
                if !record.rows.is_sorted_by(|a, b| a.seq < b.seq && a.time < b.time) {
                    problems.push(format!("the versions of {key:?} in {name:?} are not in order"));
                }
                if self.named(record.id) != Some(&(name.clone(), key.clone())) {
                    problems.push(format!("{key:?} in {name:?} has the number of another record"));
                }
                info.versions += record.rows.len() as u64;
                let bytes = |rows: &[Row]| rows.iter().map(|row| row.payload.len() as u64).sum::<u64>();
                if let Some((newest, older)) = record.rows.split_last() {
                    info.keys += u64::from(newest.kind == Kind::Put);
                    info.bytes += newest.payload.len() as u64;
                    info.history_bytes += bytes(older);
                }
            }
            if info != namespace.info {
                problems.push(format!("the counts of {name:?} are wrong"));
            }
        }
        Ok(problems)
    }

    pub(super) fn stats(&self) -> EngineStats {
        let texts: usize = self.namespaces.values().map(|namespace| namespace.texts.memory_bytes()).sum();
        let entries: usize = self.indexes.values().map(|index| index.entries.len() * ENTRY_BYTES).sum();
        let others = self.expiring.len() * 24 + self.values.len() * 48;
        EngineStats {
            namespaces: self.namespaces.iter().map(|(name, n)| (name.to_string(), n.info.clone())).collect(),
            memory_bytes: self.bytes + (texts + entries + others) as u64,
            ..EngineStats::default()
        }
    }

    fn named(&self, id: u64) -> Option<&(Arc<str>, Arc<str>)> {
        self.records.get(usize::try_from(id).ok()?.checked_sub(1)?)
    }

    fn key(&self, id: u64) -> &str {
        self.named(id).map_or("", |(_, key)| key)
    }
}

// Changing.
impl State {
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Write(write) => self.write(write),
            Change::Log(mut commit) => {
                commit.writes.shrink_to_fit();
                self.head = commit.head;
                self.bytes += log_bytes(&commit);
                self.commits.push_back(commit);
            }
            Change::SetTag(tag) => {
                self.tags.insert(tag.name.clone(), tag);
            }
            Change::RemoveTag(name) => {
                self.tags.remove(&name);
            }
            Change::CreateIndex(declared) => {
                self.declared = self.declared.max(declared.id);
                self.indexes.insert(declared.id, Index { declared, entries: BTreeSet::new() });
            }
            Change::DropIndex(id) => {
                self.indexes.remove(&id);
            }
            Change::Index { index, namespace, key, entry } => {
                let record = self.namespaces.get_mut(&namespace).and_then(|n| n.records.get_mut(&key));
                if let (Some(record), Some(index)) = (record, self.indexes.get_mut(&index)) {
                    index.entries.insert((entry.clone(), key));
                    record.fields.push((index.declared.id, entry));
                }
            }
            Change::Retire { namespace, key, seqs, freed } => {
                self.retire(&namespace, &key, &seqs);
                for (id, bytes) in freed {
                    if let Some(segment) = self.segments.get_mut(&id) {
                        segment.live = segment.live.saturating_sub(bytes);
                    }
                }
            }
            Change::Fold(seq) => {
                // The newest commit stays, as the head.
                let before = self.commits.partition_point(|commit| commit.head.seq < seq);
                let dropped = self.commits.drain(..before.min(self.commits.len().saturating_sub(1)));
                self.bytes -= dropped.map(|commit| log_bytes(&commit)).sum::<u64>();
            }
            Change::SetSegment(segment) => {
                self.segments.insert(segment.id, segment);
            }
            Change::RemoveSegment(id) => {
                self.segments.remove(&id);
                self.values.retain(|_, place| place.segment != id);
            }
            Change::SetValue(hash, place) => {
                self.values.insert(hash, place);
            }
            Change::SetSetting(name, value) => {
                self.settings.insert(name, value);
            }
        }
    }

    fn write(&mut self, write: Write) {
        let Write { namespace: name, key, row, text, fields, .. } = write;
        let namespace = self.namespaces.entry(name.clone()).or_default();
        let record = namespace.records.entry(key.clone()).or_insert_with(|| {
            self.records.push((name, key.clone()));
            self.bytes += key.len() as u64 + RECORD_BYTES;
            Record {
                id: self.records.len() as u64,
                // Most records have one version: room for more is made when more come.
                rows: Vec::with_capacity(1),
                retired: Vec::new(),
                fields: Vec::new(),
            }
        });
        let info = &mut namespace.info;
        if let Some(older) = record.newest() {
            info.keys -= u64::from(older.kind == Kind::Put);
            info.bytes -= older.payload.len() as u64;
            info.history_bytes += older.payload.len() as u64;
            if let Some(expires) = older.expires {
                self.expiring.remove(&(expires, record.id));
            }
        }
        info.versions += 1;
        info.keys += u64::from(row.kind == Kind::Put);
        info.bytes += row.payload.len() as u64;
        if let Some(expires) = row.expires.filter(|_| row.kind == Kind::Put) {
            self.expiring.insert((expires, record.id));
        }
        match text {
            Some(text) => namespace.texts.insert(record.id, &text),
            None => {
                namespace.texts.remove(record.id);
            }
        }
        for (index, entry) in std::mem::take(&mut record.fields) {
            if let Some(index) = self.indexes.get_mut(&index) {
                index.entries.remove(&(entry, key.clone()));
            }
        }
        for (index, entry) in fields {
            if let Some(index) = self.indexes.get_mut(&index) {
                index.entries.insert((entry.clone(), key.clone()));
                record.fields.push((index.declared.id, entry));
            }
        }
        self.bytes += row_bytes(&row);
        record.rows.push(row);
    }

    fn retire(&mut self, name: &str, key: &str, seqs: &[Seq]) {
        let Some(namespace) = self.namespaces.get_mut(name) else { return };
        let Some(record) = namespace.records.get_mut(key) else { return };
        let seqs: BTreeSet<Seq> = seqs.iter().copied().collect();
        let mut runs = std::mem::take(&mut record.retired);
        for row in record.rows.extract_if(.., |row| seqs.contains(&row.seq)) {
            namespace.info.versions -= 1;
            namespace.info.history_bytes -= row.payload.len() as u64;
            self.bytes -= row_bytes(&row);
            runs.push((row.seq, row.seq));
        }
        // Runs become one where no version lies between them that is kept.
        runs.sort_unstable();
        for (first, last) in runs {
            let kept = record.rows.partition_point(|row| row.seq < first);
            match record.retired.last_mut() {
                Some(run) if kept == record.rows.partition_point(|row| row.seq < run.0) => run.1 = last,
                _ => record.retired.push((first, last)),
            }
        }
    }
}

/// How many records of other namespaces are looked at for the next one of a namespace that runs out.
pub(super) const LOOKED_AT: usize = 256;
/// A record beside its rows: its place in the map and in the list.
const RECORD_BYTES: u64 = (size_of::<Record>() + 2 * size_of::<(Arc<str>, Arc<str>)>() + 32) as u64;
/// An entry of a declared index, twice: in the index and with its record.
const ENTRY_BYTES: usize = 2 * size_of::<(Vec<u8>, Arc<str>)>() + 32;

fn row_bytes(row: &Row) -> u64 {
    // A payload has two counters before it.
    (size_of::<Row>() + row.payload.len() + 16 + row.places.len() * size_of::<Place>()) as u64
}

fn log_bytes(commit: &Commit) -> u64 {
    (size_of::<Commit>() + size_of_val(commit.writes.as_slice())) as u64
}

fn as_str(bound: &Bound<String>) -> Bound<&str> {
    bound.as_ref().map(String::as_str)
}

fn is_void(range: &KeyRange) -> bool {
    match (&range.start, &range.end) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => {
            start >= end
        }
    }
}
