//! The engine in memory: for stores that need not outlive the process, and as the oracle that the engine on disk is
//! tested against. So it does the plain thing everywhere.
//!
//! Readers and the writer share one [`State`] behind a lock. A transaction keeps its changes to itself, and takes the lock
//! for writing only to apply them at its end; so a reader waits for no longer than that takes.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use limnion_types::{Error, ErrorKind, Job, Result};

use crate::engine::{
    Commit, Current, Dumped, Engine, EngineStats, FieldIndex, Found, Head, Keyed, Logged, Place, Reader,
    SegmentInfo, Tag, Transaction, Write,
};
use crate::model::{At, KeyRange, Micros, Seq};
use crate::text::TextQuery;

mod state;

use state::{Change, State};

/// Rows in memory.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: RwLock<State>,
}

impl MemoryEngine {
    /// An engine without rows.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Shared {
    fn read(&self) -> Result<RwLockReadGuard<'_, State>> {
        self.state.read().map_err(|_| poisoned())
    }
}

impl Engine for MemoryEngine {
    fn reader(&self) -> Arc<dyn Reader> {
        self.shared.clone()
    }

    fn begin(&mut self) -> Result<Box<dyn Transaction + '_>> {
        let state = self.shared.read()?;
        let (head, indexes, next_index) = (state.head(), state.field_indexes(), state.next_index());
        drop(state);
        Ok(Box::new(Staged {
            shared: &self.shared,
            head,
            changes: Vec::new(),
            unlogged: Vec::new(),
            current: HashMap::new(),
            tags: BTreeMap::new(),
            indexes,
            next_index,
            values: HashMap::new(),
            gone_segments: Vec::new(),
        }))
    }

    fn recover(&mut self) -> Result<()> {
        // A transaction that failed has changed nothing.
        Ok(())
    }

    fn checkpoint(&mut self, _truncate: bool) -> Result<()> {
        Ok(())
    }

    /// Compresses nothing. Readers share payloads with the engine; a compressed one would be a copy for each of them, and
    /// whoever has more history than memory has a folder to put it in.
    fn compress(&mut self, _budget: usize) -> Result<usize> {
        Ok(0)
    }

    fn vacuum(&mut self, _pages: usize) -> Result<usize> {
        Ok(0)
    }

    fn close(&mut self) -> Result<()> {
        // The rows go with the last reader.
        Ok(())
    }
}

impl Reader for Shared {
    fn head(&self) -> Result<Head> {
        Ok(self.read()?.head())
    }

    fn get(&self, namespace: &str, key: &str, at: At) -> Result<Option<Found>> {
        Ok(self.read()?.get(namespace, key, at))
    }

    fn history(
        &self,
        namespace: &str,
        key: &str,
        after: Option<At>,
        at: At,
        limit: usize,
    ) -> Result<Vec<Found>> {
        Ok(self.read()?.history(namespace, key, after, at, limit))
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
        Ok(self.read()?.scan(namespace, range, at, limit, reverse, payloads))
    }

    fn retired(&self, namespace: &str, key: &str, seq: Seq) -> Result<Option<(Seq, Seq)>> {
        Ok(self.read()?.retired(namespace, key, seq))
    }

    fn commits(&self, after: Seq, limit: usize) -> Result<Vec<Commit>> {
        Ok(self.read()?.commits(after, limit))
    }

    fn commit(&self, seq: Seq) -> Result<Option<Head>> {
        Ok(self.read()?.commit(seq))
    }

    fn first_commit(&self) -> Result<Head> {
        Ok(self.read()?.first_commit())
    }

    fn commit_at(&self, time: Micros) -> Result<Option<Seq>> {
        Ok(self.read()?.commit_at(time))
    }

    fn namespaces(&self) -> Result<Vec<String>> {
        Ok(self.read()?.namespaces())
    }

    fn tag(&self, name: &str) -> Result<Option<Tag>> {
        Ok(self.read()?.tag(name).cloned())
    }

    fn tags(&self) -> Result<Vec<Tag>> {
        Ok(self.read()?.tags())
    }

    fn field_indexes(&self) -> Result<Vec<FieldIndex>> {
        Ok(self.read()?.field_indexes())
    }

    fn lookup(&self, index: u32, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<String>> {
        Ok(self.read()?.lookup(index, from, to, limit))
    }

    fn text_search(&self, namespace: &str, query: &TextQuery, limit: usize) -> Result<Vec<(String, f64)>> {
        Ok(self.read()?.text_search(namespace, query, limit))
    }

    fn expired(&self, now: Micros, limit: usize) -> Result<Vec<(Arc<str>, Arc<str>)>> {
        Ok(self.read()?.expired(now, limit))
    }

    fn expiries(&self, namespace: &str, now: Micros) -> Result<(Option<Micros>, Micros)> {
        Ok(self.read()?.expiries(namespace, now))
    }

    fn run_out(&self, namespace: &str, after: Micros, until: Micros) -> Result<Vec<Arc<str>>> {
        Ok(self.read()?.run_out(namespace, after, until))
    }

    fn segments(&self) -> Result<Vec<SegmentInfo>> {
        Ok(self.read()?.segments())
    }

    fn setting(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.read()?.setting(name))
    }

    fn dump(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<std::result::Result<Dumped, (u64, limnion_types::Error)>>> {
        Ok(self.read()?.dump(after, limit).into_iter().map(Ok).collect())
    }

    fn integrity(&self, job: &Job) -> Result<Vec<String>> {
        self.read()?.integrity(job)
    }

    fn stats(&self) -> Result<EngineStats> {
        Ok(self.read()?.stats())
    }

    fn backup(&self, _path: &Path, _job: &Job) -> Result<()> {
        Err(Error::new(ErrorKind::Internal, "an engine in memory has no file to copy")
            .suggest("copy its records one by one"))
    }
}

/// A transaction: the changes so far, and what of them it must see itself.
struct Staged<'a> {
    shared: &'a Shared,
    head: Head,
    changes: Vec<Change>,
    /// The writes since the last call of `log`.
    unlogged: Vec<Logged>,
    /// The newest versions of the records it has written, by namespace and key.
    current: HashMap<Arc<str>, HashMap<Arc<str>, Current>>,
    /// The tags it has set, and (`None`) removed.
    tags: BTreeMap<String, Option<Tag>>,
    /// All declared indexes.
    indexes: Vec<FieldIndex>,
    next_index: u32,
    /// The values it has set, and (`None`) those of them whose segment it has removed since.
    values: HashMap<[u8; 32], Option<Place>>,
    gone_segments: Vec<u32>,
}

impl Staged<'_> {
    fn position(&self, namespace: &str, field: &str) -> Option<usize> {
        self.indexes.iter().position(|index| index.namespace == namespace && index.field == field)
    }
}

impl Transaction for Staged<'_> {
    fn current(&mut self, namespace: &str, key: &str) -> Result<Option<Current>> {
        if let Some(current) = self.current.get(namespace).and_then(|keys| keys.get(key)) {
            return Ok(Some(*current));
        }
        Ok(self.shared.read()?.current(namespace, key))
    }

    fn write(&mut self, write: &Write) -> Result<()> {
        let row = &write.row;
        if let Some(current) = self.current(&write.namespace, &write.key)?
            && row.seq <= current.seq
        {
            return Err(defect(format!(
                "version {} of {:?} in {:?} was written after version {}",
                row.seq, write.key, write.namespace, current.seq
            )));
        }
        let current = Current { seq: row.seq, kind: row.kind, expires: row.expires };
        self.current.entry(write.namespace.clone()).or_default().insert(write.key.clone(), current);
        self.unlogged.push(Logged {
            namespace: write.namespace.clone(),
            key: write.key.clone(),
            hash: write.hash,
        });
        self.changes.push(Change::Write(write.clone()));
        Ok(())
    }

    fn log(&mut self, head: &Head) -> Result<()> {
        if head.seq <= self.head.seq || head.time <= self.head.time {
            return Err(defect(format!("commit {} was logged after commit {}", head.seq, self.head.seq)));
        }
        self.head = *head;
        let writes = std::mem::take(&mut self.unlogged);
        self.changes.push(Change::Log(Commit { head: *head, writes }));
        Ok(())
    }

    fn set_tag(&mut self, tag: &Tag) -> Result<()> {
        self.tags.insert(tag.name.clone(), Some(tag.clone()));
        self.changes.push(Change::SetTag(tag.clone()));
        Ok(())
    }

    fn remove_tag(&mut self, name: &str) -> Result<bool> {
        let was_there = match self.tags.get(name) {
            Some(tag) => tag.is_some(),
            None => self.shared.read()?.tag(name).is_some(),
        };
        self.tags.insert(name.to_owned(), None);
        self.changes.push(Change::RemoveTag(name.to_owned()));
        Ok(was_there)
    }

    fn create_index(&mut self, namespace: &str, field: &str) -> Result<FieldIndex> {
        if let Some(index) = self.position(namespace, field).and_then(|at| self.indexes.get(at)) {
            return Ok(index.clone());
        }
        let index =
            FieldIndex { id: self.next_index, namespace: namespace.to_owned(), field: field.to_owned() };
        self.next_index += 1;
        self.indexes.push(index.clone());
        self.changes.push(Change::CreateIndex(index.clone()));
        Ok(index)
    }

    fn drop_index(&mut self, namespace: &str, field: &str) -> Result<bool> {
        let Some(at) = self.position(namespace, field) else { return Ok(false) };
        let index = self.indexes.remove(at);
        self.changes.push(Change::DropIndex(index.id));
        Ok(true)
    }

    fn index(&mut self, index: u32, namespace: &str, key: &str, entry: &[u8]) -> Result<()> {
        if self.current(namespace, key)?.is_none() {
            return Err(defect(format!("an index entry for {key:?} in {namespace:?}, which has no version")));
        }
        self.changes.push(Change::Index {
            index,
            namespace: namespace.into(),
            key: key.into(),
            entry: entry.to_vec(),
        });
        Ok(())
    }

    fn retire(&mut self, namespace: &str, key: &str, seqs: &[Seq], freed: &[(u32, u64)]) -> Result<()> {
        if let Some(current) = self.current(namespace, key)?
            && seqs.contains(&current.seq)
        {
            return Err(defect(format!("the newest version of {key:?} in {namespace:?} was to be retired")));
        }
        self.changes.push(Change::Retire {
            namespace: namespace.into(),
            key: key.into(),
            seqs: seqs.to_vec(),
            freed: freed.to_vec(),
        });
        Ok(())
    }

    fn fold(&mut self, seq: Seq) -> Result<()> {
        self.changes.push(Change::Fold(seq));
        Ok(())
    }

    fn set_segment(&mut self, segment: &SegmentInfo) -> Result<()> {
        self.changes.push(Change::SetSegment(segment.clone()));
        Ok(())
    }

    fn remove_segment(&mut self, id: u32) -> Result<()> {
        for place in self.values.values_mut() {
            *place = place.filter(|place| place.segment != id);
        }
        self.gone_segments.push(id);
        self.changes.push(Change::RemoveSegment(id));
        Ok(())
    }

    fn find_value(&mut self, hash: &[u8; 32]) -> Result<Option<Place>> {
        if let Some(place) = self.values.get(hash) {
            return Ok(*place);
        }
        let place = self.shared.read()?.value(hash);
        Ok(place.filter(|place| !self.gone_segments.contains(&place.segment)))
    }

    fn set_value(&mut self, hash: &[u8; 32], place: Place) -> Result<()> {
        self.values.insert(*hash, Some(place));
        self.changes.push(Change::SetValue(*hash, place));
        Ok(())
    }

    fn set_setting(&mut self, name: &str, value: &[u8]) -> Result<()> {
        self.changes.push(Change::SetSetting(name.to_owned(), value.to_vec()));
        Ok(())
    }

    fn commit(self: Box<Self>) -> Result<()> {
        if let Some(logged) = self.unlogged.first() {
            return Err(defect(format!("the write of {:?} was not logged", logged.key)));
        }
        let mut state = self.shared.state.write().map_err(|_| poisoned())?;
        for change in self.changes {
            state.apply(change);
        }
        Ok(())
    }
}

fn poisoned() -> Error {
    defect("a change to the records in memory was broken off".into())
}

fn defect(message: String) -> Error {
    Error::new(ErrorKind::Internal, message)
}
