//! The vectors of a versioned store.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use limnion_store::column::{State, Take, Vectors, Written};
use limnion_store::{AsOf, At, Column, Micros, Moment, Seq, Store};
use limnion_types::{Error, ErrorKind, Filter, Job, Result};

use crate::backend::{Backend, Changes, Description, Generation, Id, Ids, Rows, Sink};
use crate::names;

/// Changes are looked for among so many writes, and some for each record: beyond, all rows are pulled.
const WRITES: usize = 65_536;
/// So many changed rows are handed over even where they are most of the rows.
const FEW: usize = 4096;

/// The vectors of an open [`Store`], by the keys of their records. Whatever is put there is found by the next search.
///
/// A namespace is a collection, of the vectors that have no name; `namespace/name` is the collection of those of a name. The
/// first `/` ends the namespace, which cannot contain one. Records without such a vector are no rows, nor are records that have
/// run out.
///
/// The generation of a collection is the newest commit that wrote to its namespace, with some digits of the hash over all
/// of history, so that what was built from a store is never taken for one of a copy that went ways of its own. While
/// records have run out and have not been deleted for it, it says when the last of them did.
/// [`StoreBackend::version`] gives the number of the commit.
///
/// ```
/// use limnion_lake::{Backend, StoreBackend};
/// use limnion_store::{Batch, Body, Op, Options, Store, Vector};
///
/// let store = Store::open(Options::memory())?;
/// let vector = Vector { name: "".into(), numbers: [0.6, 0.8].into() };
/// let body = Body { vectors: vec![vector], ..Body::json(*b"{}") };
/// store.write(Batch { ops: vec![Op::Put { namespace: "docs".into(), key: "a".into(), body }], ..Batch::default() })?;
///
/// let backend = StoreBackend::new("db", store);
/// assert_eq!(backend.collections()?, ["docs"]);
/// assert_eq!(backend.describe("docs")?.dim, 2);
/// # Ok::<(), limnion_types::Error>(())
/// ```
pub struct StoreBackend {
    name: String,
    store: Store,
    /// Whether errors of the store stay what they are: for those who ask the store itself.
    is_own: bool,
    collections: RwLock<HashMap<Box<str>, Arc<Collection>>>,
}

struct Collection {
    column: Column,
    source: String,
    /// The dimension of the rows that were read last; 0 before.
    dim: AtomicUsize,
    /// The state that was asked for last, and what its generation is called.
    stamp: Mutex<Option<(State, Arc<str>)>>,
}

/// What has changed since a generation, beside versions that are new.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryChanges {
    /// The generation up to which history is known now.
    pub generation: Generation,
    /// The keys that were written, each with the first commit that did: their spans that had no end, end there.
    pub ended: Written,
}

impl StoreBackend {
    /// The vectors of a store. As long as this lives, the store is not closed by dropping other handles to it.
    pub fn new(name: impl Into<String>, store: Store) -> Self {
        Self { name: name.into(), store, is_own: false, collections: RwLock::default() }
    }

    /// The backend of a store's own search: whoever asks knows of the store, and of no backend.
    pub(crate) fn own(store: Store) -> Self {
        Self { is_own: true, ..Self::new("database", store) }
    }

    /// Where the rows of a collection come from; `None` where there is no such collection.
    pub(crate) fn column(&self, collection: &str) -> Result<Option<Column>> {
        let (namespace, name) = collection.split_once('/').unwrap_or((collection, ""));
        match self.known(collection) {
            Ok(_) => Ok(Some(self.store.column(namespace, name))),
            Err(error) if error.kind() == ErrorKind::UnknownCollection => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The moment at which the records were what a generation is of.
    pub(crate) fn moment_of(generation: &Generation) -> Option<Moment> {
        stamp_of(generation).map(|stamp| Moment { seq: stamp.seq, time: stamp.ran_out.unwrap_or(0) })
    }

    /// The commit of a generation that this kind of backend has given: a version, to be read at with `as_of`.
    pub fn version(generation: &Generation) -> Option<Seq> {
        match generation {
            Generation::Name(name) => parse(name).map(|stamp| stamp.seq),
            Generation::Number(_) => None,
        }
    }

    /// What a point in history means for spans: the rows whose span covers the moment are those that were there then.
    ///
    /// # Errors
    /// As [`Store::moment`].
    pub fn moment(&self, as_of: &AsOf) -> Result<Moment> {
        self.store.moment(as_of)
    }

    /// Hands over every version of every vector of a collection, with the span of commits in which it was current, and
    /// gives the generation up to which that is so: an open span lasts until [`StoreBackend::history_since`] ends it. What
    /// retention has dropped is left out; there, [`Store::get`] has an error, and spans have a gap.
    ///
    /// # Errors
    /// `Backend`, `UnknownCollection`; what `take` gives. Vectors of several dimensions are no error here: they were in the
    /// past what they were.
    pub fn pull_history(&self, collection: &str, job: &Job, take: Take<'_>) -> Result<Generation> {
        let known = self.known(collection)?;
        let state = known.column.state().map_err(|error| self.failed(error))?;
        self.read(collection, take, |take| known.column.history(state.commit.seq, job, take))?;
        Ok(known.generation(&state))
    }

    /// Hands over the versions that were written since a generation, and gives the spans that ended; `None` where that
    /// cannot be told, and all of history has to be pulled.
    ///
    /// # Errors
    /// As [`StoreBackend::pull_history`].
    pub fn history_since(
        &self,
        collection: &str,
        since: &Generation,
        job: &Job,
        take: Take<'_>,
    ) -> Result<Option<HistoryChanges>> {
        let known = self.known(collection)?;
        let Some(Stamp { seq, mark, .. }) = stamp_of(since) else { return Ok(None) };
        let column = &known.column;
        let look = || -> Result<_> {
            let most = WRITES.saturating_add(4 * column.records()?.unwrap_or(0) as usize);
            column.changed_since(seq, |chain| chain.starts_with(&mark), None, most)
        };
        let Some((state, changed)) = look().map_err(|error| self.failed(error))? else { return Ok(None) };
        let ended = changed.written;
        let keys: Vec<Arc<str>> = ended.iter().map(|(key, _)| key.clone()).collect();
        self.read(collection, take, |take| column.history_of(&keys, seq, state.commit.seq, job, take))?;
        Ok(Some(HistoryChanges { generation: known.generation(&state), ended }))
    }

    fn known(&self, collection: &str) -> Result<Arc<Collection>> {
        let collections = self.collections.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = collections.get(collection) {
            return Ok(known.clone());
        }
        drop(collections);
        let (namespace, name) = match collection.split_once('/') {
            Some((_, "")) => return Err(self.unknown(collection)),
            Some((namespace, name)) => (namespace, name),
            None => (collection, ""),
        };
        let column = self.store.column(namespace, name);
        let is_there = || -> Result<bool> {
            Ok(column.records()?.is_some() && (name.is_empty() || column.dim()?.is_some()))
        };
        if !is_there().map_err(|error| self.failed(error))? {
            return Err(self.unknown(collection));
        }
        let mut source = format!("limnion://{}/{}", hex(&self.store.id()), names::encode(namespace));
        if !name.is_empty() {
            source.push('/');
            source.push_str(&names::encode(name));
        }
        let known =
            Arc::new(Collection { column, source, dim: AtomicUsize::new(0), stamp: Mutex::default() });
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        Ok(collections.entry(collection.into()).or_insert(known).clone())
    }

    fn unknown(&self, collection: &str) -> Error {
        names::unknown_collection(&self.name, collection, &self.collections().unwrap_or_default())
    }

    fn failed(&self, error: Error) -> Error {
        if self.is_own || error.kind() == ErrorKind::Cancelled {
            return error;
        }
        let failed = names::failed(&self.name, error.message());
        match error.suggestion() {
            Some(suggestion) => failed.suggest(suggestion),
            None => failed,
        }
    }

    /// Reads with `read`. Errors of the store become the backend's; what `take` gives stays as it is.
    fn read(
        &self,
        collection: &str,
        take: Take<'_>,
        read: impl FnOnce(Take<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut theirs = None;
        let done = read(&mut |piece| {
            take(piece).inspect_err(|error| {
                theirs = Some(error.clone());
            })
        });
        match (done, theirs) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(error)) => Err(error),
            // Somebody has overwritten it, and retention has dropped what was there.
            (Err(error), None) if error.kind() == ErrorKind::NoValueAtTime => {
                Err(names::changed(&self.name, format_args!("{collection:?}")))
            }
            (Err(error), None) => Err(self.failed(error)),
        }
    }

    fn mixed(&self, collection: &str, (dim, key): (usize, &str), other: &Vectors) -> Error {
        let (and, came) = (other.keys.first().map_or("", |key| key), other.dim);
        let message = format!(
            "vectors of {collection:?} must all have one dimension: {key:?} has {dim}, and {and:?} has {came}"
        );
        let error = match self.is_own {
            true => Error::new(ErrorKind::DimensionMismatch, message),
            false => names::failed(&self.name, message),
        };
        error.suggest("embed them all with one model, or give vectors of another model another name")
    }
}

impl Collection {
    /// What a state is called.
    fn generation(&self, state: &State) -> Generation {
        let mut stamp = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        match &*stamp {
            Some((known, name)) if known == state => Generation::Name(name.clone()),
            _ => {
                let name: Arc<str> = Stamp::of(state).to_string().into();
                *stamp = Some((*state, name.clone()));
                Generation::Name(name)
            }
        }
    }
}

impl Backend for StoreBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn collections(&self) -> Result<Vec<String>> {
        let columns = self.store.columns().map_err(|error| self.failed(error))?;
        let spelled = columns.into_keys().map(|(namespace, name)| match name.as_str() {
            "" => namespace,
            name => format!("{namespace}/{name}"),
        });
        let mut collections: Vec<String> =
            spelled.filter(|name| names::check_collection(name).is_ok()).collect();
        collections.sort_unstable();
        Ok(collections)
    }

    fn describe(&self, collection: &str) -> Result<Description> {
        let known = self.known(collection)?;
        let look = || -> Result<_> {
            let (state, rows) = (known.column.state()?, known.column.rows()?);
            let dim = match known.dim.load(Ordering::Relaxed) {
                _ if rows == 0 => 0,
                0 => known.column.dim()?.unwrap_or(0),
                dim => dim,
            };
            Ok((state, rows, dim))
        };
        let (state, rows, dim) = look().map_err(|error| self.failed(error))?;
        let (generation, source) = (known.generation(&state), known.source.clone());
        Ok(Description { dim, rows, generation, metric: None, source })
    }

    fn generation(&self, collection: &str) -> Result<Generation> {
        let known = self.known(collection)?;
        let state = known.column.state().map_err(|error| self.failed(error))?;
        Ok(known.generation(&state))
    }

    fn is_quick(&self) -> bool {
        !self.store.options().read_only
    }

    fn pull(&self, collection: &str, sink: &mut dyn Sink, job: &Job) -> Result<()> {
        let known = self.known(collection)?;
        let look = || -> Result<_> { Ok((known.column.state()?, known.column.rows()?)) };
        let (state, rows) = look().map_err(|error| self.failed(error))?;
        let description = |dim, rows| Description {
            dim,
            rows,
            generation: known.generation(&state),
            metric: None,
            source: known.source.clone(),
        };
        let mut first: Option<(usize, Arc<str>)> = None;
        let mut take = |piece: Vectors| {
            match &first {
                Some((dim, key)) if *dim != piece.dim => {
                    return Err(self.mixed(collection, (*dim, key), &piece));
                }
                Some(_) => {}
                None => {
                    sink.begin(&description(piece.dim, rows.max(piece.keys.len())))?;
                    first = piece.keys.first().map(|key| (piece.dim, key.clone()));
                }
            }
            sink.push(Rows { ids: Ids::Names(piece.keys), vectors: piece.numbers })
        };
        self.read(collection, &mut take, |take| known.column.scan(state.moment(), job, take))?;
        match first {
            None => sink.begin(&description(0, 0)),
            Some((dim, _)) => {
                known.dim.store(dim, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    fn changes(&self, collection: &str, since: &Generation) -> Result<Option<Changes>> {
        self.few_changes(collection, since, usize::MAX)
    }

    fn few_changes(&self, collection: &str, since: &Generation, rows: usize) -> Result<Option<Changes>> {
        let known = self.known(collection)?;
        let Some(Stamp { seq, mark, ran_out }) = stamp_of(since) else { return Ok(None) };
        let column = &known.column;
        let look = || -> Result<_> {
            let records = column.records()?.unwrap_or(0) as usize;
            // A row may have been written more than once.
            let most = WRITES.saturating_add(4 * records).min(rows.saturating_mul(4));
            let changed = column.changed_since(seq, |chain| chain.starts_with(&mark), ran_out, most)?;
            Ok(changed.filter(|(_, changed)| changed.written.len() <= FEW.max(records / 2).min(rows)))
        };
        let Some((state, changed)) = look().map_err(|error| self.failed(error))? else { return Ok(None) };
        let mut removed: Vec<Arc<str>> = changed.written.into_iter().map(|(key, _)| key).collect();
        let mut upserts = Vectors::default();
        let mut take = |piece: Vectors| {
            if let Some(first) = upserts.keys.first().filter(|_| upserts.dim != piece.dim) {
                return Err(self.mixed(collection, (upserts.dim, first), &piece));
            }
            if upserts.keys.is_empty() {
                upserts = piece;
            } else {
                upserts.keys.extend(piece.keys);
                upserts.numbers.extend(piece.numbers);
            }
            Ok(())
        };
        let keys = removed.clone();
        let read =
            self.read(collection, &mut take, |take| column.get(&keys, state.moment(), &Job::new(), take));
        match read {
            Err(error) if error.passes() => return Ok(None),
            read => read?,
        }
        if !upserts.keys.is_empty() {
            let before = known.dim.swap(upserts.dim, Ordering::Relaxed);
            if before != 0 && before != upserts.dim {
                return Ok(None);
            }
        }
        let there: std::collections::HashSet<&Arc<str>> = upserts.keys.iter().collect();
        removed.retain(|key| !there.contains(key));
        removed.extend(changed.ran_out);
        Ok(Some(Changes {
            generation: known.generation(&state),
            upserts: Rows { ids: Ids::Names(upserts.keys), vectors: upserts.numbers },
            removed: Ids::Names(removed),
        }))
    }

    fn when_changed(&self, collection: &str, from: &Generation, wake: Box<dyn FnOnce() + Send>) -> bool {
        let Ok(known) = self.known(collection) else { return false };
        let Ok(state) = known.column.state() else { return false };
        if known.generation(&state) != *from {
            wake();
            return true;
        }
        // Nobody writes a commit when something runs out there.
        if self.store.options().read_only && known.column.runs_out() {
            return false;
        }
        known.column.when_written(state.commit.seq, wake);
        true
    }

    fn select(&self, collection: &str, filter: &Filter) -> Result<Option<(Ids, Generation)>> {
        let known = self.known(collection)?;
        let selected = known.column.select(filter, &Job::new());
        let (keys, state) = selected.map_err(|error| self.failed(error))?;
        Ok(Some((Ids::Names(keys), known.generation(&state))))
    }

    fn text_search(&self, collection: &str, query: &str, k: usize) -> Result<Option<Vec<(Id, f32)>>> {
        let known = self.known(collection)?;
        let (namespace, name) = (known.column.namespace(), known.column.name());
        let mut wanted = k;
        loop {
            let found = self.store.text_search(namespace, query, wanted, None, At::Latest, &Job::new());
            let found = found.map_err(|error| self.failed(error))?;
            let exhausted = found.len() < wanted;
            let rows = found.iter().filter(|hit| hit.record.payload.find_vector(name).is_some());
            let mut hits: Vec<(Id, f32)> =
                rows.map(|hit| (Id::Name(hit.record.key.clone()), hit.score as f32)).collect();
            if exhausted || hits.len() >= k {
                hits.truncate(k);
                return Ok(Some(hits));
            }
            // Some have no such vector: look further down.
            wanted = wanted.saturating_mul(4);
        }
    }
}

/// A state, as a generation tells it: `57-0123456789abcdef`, or `57-0123456789abcdef@1770000000000000`.
struct Stamp {
    seq: Seq,
    /// The first bytes of the chain of hashes up to there.
    mark: [u8; 8],
    ran_out: Option<Micros>,
}

impl Stamp {
    fn of(state: &State) -> Self {
        let mut mark = [0; 8];
        for (place, byte) in mark.iter_mut().zip(state.commit.chain) {
            *place = byte;
        }
        Self { seq: state.commit.seq, mark, ran_out: state.ran_out }
    }
}

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.seq, hex(&self.mark))?;
        match self.ran_out {
            Some(ran_out) => write!(f, "@{ran_out}"),
            None => Ok(()),
        }
    }
}

fn stamp_of(generation: &Generation) -> Option<Stamp> {
    match generation {
        Generation::Name(name) => parse(name),
        Generation::Number(_) => None,
    }
}

fn parse(name: &str) -> Option<Stamp> {
    let (state, ran_out) = match name.split_once('@') {
        Some((state, ran_out)) => (state, Some(ran_out.parse().ok()?)),
        None => (name, None),
    };
    let (seq, mark) = state.split_once('-')?;
    let mut bytes = [0; 8];
    for (at, place) in bytes.iter_mut().enumerate() {
        *place = u8::from_str_radix(mark.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    let stamp = Stamp { seq: seq.parse().ok()?, mark: bytes, ran_out };
    (mark.len() == 16).then_some(stamp)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_comes_back_from_its_name() {
        for name in ["0-0000000000000000", "57-0123456789abcdef", "57-ffffffffffffffff@1770000000000000"] {
            assert_eq!(parse(name).map(|stamp| stamp.to_string()).as_deref(), Some(name));
        }
        for odd in ["", "57", "57-", "-1", "x-01", "57-0123@", "57-0123@x", "57-12345678901234567"] {
            assert!(parse(odd).is_none(), "{odd}");
        }
    }
}
