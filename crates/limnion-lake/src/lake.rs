//! The lake: which index answers a search, and whether it is fresh enough.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};
use std::time::{Duration, Instant};

use limnion_index::Params;
use limnion_types::{Error, ErrorKind, Filter, Job, Metric, Result};

use crate::backend::{Backend, Changes, Generation, Id, Ids};
use crate::bundle;
use crate::cache::{EntryCache, Number};
use crate::consistency::Consistency;
use crate::entry::{Body, Entry, FEW, Options};
use crate::executor::{self, Executor};
use crate::flight::{Flight, Landed};
use crate::names;
use crate::prime;
use crate::slot::{Slot, Target};
use crate::stats::{CollectionStats, Stats};

/// How often a filter is evaluated anew because the rows have changed meanwhile.
const ATTEMPTS: usize = 3;
/// How long to wait before a source that changed while it was read is read again; then twice as long, and so on.
const LEAST_PAUSE: Duration = Duration::from_millis(1);
const MOST_PAUSE: Duration = Duration::from_millis(512);
/// A collection that is served while it is looked at in the background is looked at after this part of its time.
const AHEAD: u32 = 2;

/// How a lake builds and keeps indexes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is kept of each vector, and the metric where a backend does not say.
    pub params: Params,
    /// How fresh answers have to be, where a collection has no setting of its own.
    pub consistency: Consistency,
    /// Bytes of all indexes together.
    pub max_bytes: Option<u64>,
    /// How many indexes.
    pub max_entries: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        let params =
            Params { bits: 1, originals: Some(limnion_index::Precision::F32), ..Params::new(Metric::Cosine) };
        Self { params, consistency: Consistency::Fresh, max_bytes: None, max_entries: None }
    }
}

/// One answer of a search in a lake.
#[derive(Debug, Clone, PartialEq)]
pub struct LakeHit {
    /// Where the row lives.
    pub backend: Arc<str>,
    /// In which collection.
    pub collection: Arc<str>,
    /// What it is called there.
    pub id: Id,
    /// Higher is better, as [`limnion_types::Hit::score`].
    pub score: f32,
    /// Lower is nearer, as [`limnion_types::Hit::distance`].
    pub distance: f32,
}

/// The rows that a search may find.
#[derive(Debug, Clone)]
pub enum Where {
    /// Those with these ids.
    Ids(Ids),
    /// Those that match, as the backend has it.
    Matching(Filter),
}

/// What is searched for.
#[derive(Debug, Clone)]
pub struct Search {
    /// How many hits, and how sure.
    pub options: Options,
    /// Among which rows; all unless told.
    pub among: Option<Where>,
    /// By when.
    pub deadline: Option<Instant>,
    /// Whether an index that is missing is an error of kind cache miss, rather than built.
    pub cached_only: bool,
}

impl Search {
    /// The `k` nearest of all rows, however long it takes.
    pub fn new(k: usize) -> Self {
        Self { options: Options::new(k), among: None, deadline: None, cached_only: false }
    }
}

/// A cache of indexes over backends. Clones are one lake.
///
/// ```
/// use std::sync::Arc;
/// use limnion_lake::{Global, Lake, LocalBackend, Search, Settings};
/// use limnion_types::Job;
///
/// let shard = Arc::new(LocalBackend::new("hot-shard"));
/// shard.upsert("docs", &[1, 2, 3], &[1.0, 0.0, 0.0, 1.0, 0.7, 0.7], 2)?;
/// let lake = Lake::new(Settings::default(), Arc::new(Global))?;
/// lake.register(shard.clone())?;
/// let docs = lake.find(None, "docs")?;
/// let hits = lake.search(&docs, &[1.0, 0.1], &Search::new(2), &Job::new())?;
/// assert_eq!(hits.iter().map(|hit| hit.id.to_string()).collect::<Vec<_>>(), ["1", "3"]);
/// shard.delete("docs", &[1])?;
/// let hits = lake.search(&docs, &[1.0, 0.1], &Search::new(2), &Job::new())?;
/// assert_eq!(hits.iter().map(|hit| hit.id.to_string()).collect::<Vec<_>>(), ["3", "2"]);
/// # Ok::<(), limnion_types::Error>(())
/// ```
#[derive(Clone)]
pub struct Lake {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    executor: Arc<dyn Executor>,
    cache: EntryCache,
    backends: RwLock<BTreeMap<String, Arc<dyn Backend>>>,
    slots: RwLock<HashMap<Target, Arc<Slot>>>,
    /// Collections that only one of the backends had, when they were asked.
    found: RwLock<HashMap<String, Target>>,
    /// Which entry was built from which generation of which source.
    origins: RwLock<HashMap<(String, Generation), Number>>,
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// What is at hand for a search.
enum Look {
    /// An index that is fresh enough.
    Ready(Arc<Entry>),
    /// One that is being made so; where it is of an earlier moment than this, one looks again.
    Wait(Arc<Flight>, Instant),
}

/// A collection whose index is at hand: what a search takes without waiting.
pub struct Ready {
    target: Target,
    entry: Arc<Entry>,
}

impl Ready {
    /// The hits of one query.
    pub fn search(&self, query: &[f32], options: &Options, among: Option<&Ids>) -> Result<Vec<LakeHit>> {
        let body = self.entry.read();
        let hits = body.search(query, options, among)?;
        Ok(self.label(&body, hits))
    }

    /// [`Ready::search`], and the generation of the rows that were searched.
    pub(crate) fn search_told(
        &self,
        query: &[f32],
        options: &Options,
        among: Option<&Ids>,
    ) -> Result<(Vec<LakeHit>, Generation)> {
        let body = self.entry.read();
        let hits = body.search(query, options, among)?;
        Ok((self.label(&body, hits), body.origin.generation.clone()))
    }

    /// The hits of several queries, parallel on the current pool.
    pub fn search_batch(
        &self,
        queries: &[f32],
        dim: usize,
        options: &Options,
        among: Option<&Ids>,
        job: &Job,
    ) -> Result<Vec<Vec<LakeHit>>> {
        let body = self.entry.read();
        let batch = body.search_batch(queries, dim, options, among, job)?;
        Ok(batch.into_iter().map(|hits| self.label(&body, hits)).collect())
    }

    pub(crate) fn label(&self, body: &Body, hits: Vec<limnion_types::Hit>) -> Vec<LakeHit> {
        let Target { backend, collection } = &self.target;
        body.label(hits)
            .into_iter()
            .map(|(id, hit)| LakeHit {
                backend: backend.clone(),
                collection: collection.clone(),
                id,
                score: hit.score,
                distance: hit.distance,
            })
            .collect()
    }

    /// About how many bytes a search reads.
    pub fn scan_bytes(&self) -> usize {
        let body = self.entry.read();
        let params = &body.origin.params;
        let dim = body.index.as_ref().map_or(0, limnion_index::FlatIndex::dim);
        body.len() * if params.bits == 0 { dim * 4 } else { dim / 8 + 6 }
    }

    /// How near two vectors are.
    pub fn metric(&self) -> Metric {
        self.entry.read().metric()
    }

    /// How many rows the index has.
    pub fn len(&self) -> usize {
        self.entry.read().len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn entry(&self) -> &Entry {
        &self.entry
    }

    pub(crate) fn body(&self) -> Body {
        self.entry.read().clone()
    }

    /// The index as it is now; it shares its memory with the cache.
    pub fn index(&self) -> Option<limnion_index::FlatIndex> {
        self.entry.read().index.clone()
    }

    /// Which generation of the collection the index is of.
    pub fn generation(&self) -> Generation {
        self.entry.read().origin.generation.clone()
    }
}

impl Lake {
    /// A lake without backends. Builds and batches run on `executor`.
    ///
    /// # Errors
    /// `InvalidArgument` for settings that cannot be.
    pub fn new(settings: Settings, executor: Arc<dyn Executor>) -> Result<Self> {
        let inner = Inner {
            cache: EntryCache::new(settings.max_bytes, settings.max_entries)?,
            settings,
            executor,
            backends: RwLock::default(),
            slots: RwLock::default(),
            found: RwLock::default(),
            origins: RwLock::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn executor(&self) -> &dyn Executor {
        &*self.inner.executor
    }

    /// How it was made.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Adds a backend; its name must be new.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub fn register(&self, backend: Arc<dyn Backend>) -> Result<()> {
        names::check_name("the name of a backend", backend.name())?;
        let name = backend.name().to_owned();
        let mut backends = write(&self.inner.backends);
        if backends.contains_key(&name) {
            let message = format!("a backend with the name {name:?} is registered already");
            return Err(Error::new(ErrorKind::InvalidArgument, message)
                .suggest("unregister it first, or give this one another name"));
        }
        backends.insert(name, backend);
        drop(backends);
        write(&self.inner.found).clear();
        Ok(())
    }

    /// Removes a backend, and the indexes of its collections.
    ///
    /// # Errors
    /// `UnknownCollection` where there is none of this name.
    pub fn unregister(&self, name: &str) -> Result<()> {
        self.backend(name)?;
        write(&self.inner.backends).remove(name);
        write(&self.inner.found).clear();
        let mut slots = write(&self.inner.slots);
        let gone: Vec<Target> = slots.keys().filter(|target| *target.backend == *name).cloned().collect();
        for target in gone {
            if let Some(slot) = slots.remove(&target) {
                slot.begin_epoch();
                self.inner.drop_entry(&slot);
            }
        }
        Ok(())
    }

    /// The backends by name.
    pub fn backends(&self) -> Vec<Arc<dyn Backend>> {
        read(&self.inner.backends).values().cloned().collect()
    }

    /// The backend of a name.
    ///
    /// # Errors
    /// `UnknownCollection`.
    pub fn backend(&self, name: &str) -> Result<Arc<dyn Backend>> {
        self.inner.backend(name)
    }

    /// [`Lake::find`] without asking a backend; `None` where that is needed.
    ///
    /// # Errors
    /// `UnknownCollection` where there is no such backend.
    pub fn known(&self, backend: Option<&str>, collection: &str) -> Result<Option<Target>> {
        if let Some(name) = backend {
            self.backend(name)?;
            return Ok(Some(Target::new(name, collection)));
        }
        let backends = read(&self.inner.backends);
        if backends.len() == 1 {
            return Ok(backends.keys().next().map(|only| Target::new(only, collection)));
        }
        drop(backends);
        Ok(read(&self.inner.found).get(collection).cloned())
    }

    /// The collection that is meant: of the backend that is named, or of the only one that has it.
    ///
    /// # Errors
    /// `UnknownCollection` where no backend has it; `InvalidArgument` where several do; what backends raise.
    pub fn find(&self, backend: Option<&str>, collection: &str) -> Result<Target> {
        if let Some(target) = self.known(backend, collection)? {
            return Ok(target);
        }
        let backends = self.backends();
        let mut having = Vec::new();
        for backend in &backends {
            if backend.collections()?.iter().any(|name| name == collection) {
                having.push(backend.name());
            }
        }
        match having[..] {
            [only] => {
                let target = Target::new(only, collection);
                write(&self.inner.found).insert(collection.to_owned(), target.clone());
                Ok(target)
            }
            [] if backends.is_empty() => {
                Err(Error::new(ErrorKind::UnknownCollection, "the lake has no backends")
                    .suggest("add one with register_backend"))
            }
            [] => Err(Error::new(
                ErrorKind::UnknownCollection,
                format!("none of the {} backends has a collection {collection:?}", backends.len()),
            )),
            _ => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("the collection {collection:?} is in the backends {}", having.join(", ")),
            )
            .suggest("name one with backend=, or search all of them with search_federated")),
        }
    }

    /// [`Lake::find_all`] without asking a backend; `None` where that is needed.
    pub fn known_all(&self, backends: Option<&[String]>, collection: &str) -> Option<Vec<Target>> {
        let slots = read(&self.inner.slots);
        let known = |name: &str| {
            let target = Target::new(name, collection);
            slots.contains_key(&target).then_some(target)
        };
        match backends {
            Some(names) => names.iter().map(|name| known(name)).collect(),
            None => read(&self.inner.backends).keys().map(|name| known(name)).collect(),
        }
    }

    /// The collections of this name in the backends that have it, or in those that are named.
    ///
    /// # Errors
    /// As [`Lake::find`].
    pub fn find_all(&self, backends: Option<&[String]>, collection: &str) -> Result<Vec<Target>> {
        if let Some(names) = backends {
            return names.iter().map(|name| self.find(Some(name), collection)).collect();
        }
        let backends = self.backends();
        let mut found = Vec::new();
        let mut failed = None;
        for backend in &backends {
            let known = read(&self.inner.slots).contains_key(&Target::new(backend.name(), collection));
            match if known {
                Ok(true)
            } else {
                backend.collections().map(|names| names.iter().any(|name| name == collection))
            } {
                Ok(true) => found.push(Target::new(backend.name(), collection)),
                Ok(false) => {}
                // Whether it has the collection cannot be said: the search will.
                Err(error) => {
                    found.push(Target::new(backend.name(), collection));
                    failed = Some(error);
                }
            }
        }
        match (found.is_empty(), failed) {
            (true, Some(error)) => Err(error),
            (true, None) => Err(Error::new(
                ErrorKind::UnknownCollection,
                format!("none of the {} backends has a collection {collection:?}", backends.len()),
            )),
            (false, _) => Ok(found),
        }
    }

    /// Sets how fresh one collection has to be; `None` for as fresh as the lake.
    pub fn set_consistency(&self, target: &Target, consistency: Option<Consistency>) -> Result<()> {
        self.inner.slot(target)?.set_consistency(consistency);
        Ok(())
    }

    /// Keeps a collection's index whatever room others need, or no longer.
    pub fn pin(&self, target: &Target, pinned: bool) -> Result<()> {
        let slot = self.inner.slot(target)?;
        slot.set_pinned(pinned);
        if let Some(entry) = slot.number().and_then(|number| self.inner.cache.peek(number)) {
            entry.pinned.store(pinned, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether an index of the collection is in memory, however old.
    pub fn is_cached(&self, target: &Target) -> bool {
        let slot = read(&self.inner.slots).get(target).cloned();
        slot.and_then(|slot| slot.number()).is_some_and(|number| self.inner.cache.peek(number).is_some())
    }

    /// Whether an index that equals this one is in memory.
    pub fn holds(&self, index: &limnion_index::FlatIndex) -> bool {
        let slots: Vec<Arc<Slot>> = read(&self.inner.slots).values().cloned().collect();
        slots.iter().filter_map(|slot| self.inner.cache.peek(slot.number()?)).any(|entry| {
            let body = entry.read();
            body.index.as_ref().is_some_and(|mine| mine == index)
        })
    }

    /// Forgets the index of a collection, and says whether there was one. The next search builds it anew.
    pub fn invalidate(&self, target: &Target) -> bool {
        let slot = read(&self.inner.slots).get(target).cloned();
        slot.is_some_and(|slot| {
            let was = self.is_cached(target);
            slot.begin_epoch();
            self.inner.drop_entry(&slot);
            slot.counters.invalidations.fetch_add(1, Ordering::Relaxed);
            was
        })
    }

    /// What a search can take at once: `None` where it has to wait for the backend.
    ///
    /// # Errors
    /// `UnknownCollection`, and what the backend raises.
    pub fn ready(&self, target: &Target) -> Result<Option<Ready>> {
        match self.inner.look(target, Instant::now())? {
            Look::Ready(entry) => Ok(Some(Ready { target: target.clone(), entry })),
            Look::Wait(..) => Ok(None),
        }
    }

    /// Waits until the index of a collection is fresh enough.
    ///
    /// # Errors
    /// `UnknownCollection`, `Backend`, `DeadlineExceeded`, `Cancelled`, and what a build raises.
    pub fn prepare(&self, target: &Target, deadline: Option<Instant>, job: &Job) -> Result<Ready> {
        let began = Instant::now();
        loop {
            match self.inner.look(target, began)? {
                Look::Ready(entry) => return Ok(Ready { target: target.clone(), entry }),
                Look::Wait(flight, since) => {
                    let landed = flight.wait(deadline, job)?;
                    if landed.as_of >= since {
                        return Ok(Ready { target: target.clone(), entry: landed.entry });
                    }
                }
            }
        }
    }

    /// [`Lake::prepare`] without a wait: `then` is called with the outcome, from here or from another thread.
    pub fn prepare_then(&self, target: &Target, then: impl FnOnce(Result<Ready>) + Send + 'static) {
        self.prepare_since(target, Instant::now(), Box::new(then));
    }

    fn prepare_since(&self, target: &Target, began: Instant, then: Box<dyn FnOnce(Result<Ready>) + Send>) {
        match self.inner.look(target, began) {
            Err(error) => then(Err(error)),
            Ok(Look::Ready(entry)) => then(Ok(Ready { target: target.clone(), entry })),
            Ok(Look::Wait(flight, since)) => {
                let (lake, target) = (self.clone(), target.clone());
                flight.then(move |landed| match landed {
                    Err(error) => then(Err(error)),
                    Ok(Landed { entry, as_of }) if as_of >= since => then(Ok(Ready { target, entry })),
                    Ok(_) => lake.prepare_since(&target, began, then),
                });
            }
        }
    }

    /// Builds or refreshes the index of a collection now, and gives it.
    ///
    /// # Errors
    /// As [`Lake::prepare`].
    pub fn refresh(&self, target: &Target, deadline: Option<Instant>, job: &Job) -> Result<Ready> {
        let (slot, backend) = (self.inner.slot(target)?, self.backend(&target.backend)?);
        let since = Instant::now();
        loop {
            let landed = self.inner.fly(&slot, backend.clone()).wait(deadline, job)?;
            if landed.as_of >= since {
                return Ok(Ready { target: target.clone(), entry: landed.entry });
            }
        }
    }

    /// The nearest rows of a collection, best first; ties go to the lower id.
    ///
    /// Cost: that of the index, where it is at hand and fresh.
    ///
    /// # Errors
    /// As [`Lake::prepare`], and for a query that cannot be used.
    pub fn search(&self, target: &Target, query: &[f32], search: &Search, job: &Job) -> Result<Vec<LakeHit>> {
        let (ready, among) = self.ready_for(target, search, job)?;
        ready.search(query, &search.options, among.as_ref())
    }

    /// [`Lake::search`] for several queries of `dim` numbers, parallel.
    ///
    /// # Errors
    /// As [`Lake::search`].
    pub fn search_batch(
        &self,
        target: &Target,
        queries: &[f32],
        dim: usize,
        search: &Search,
        job: &Job,
    ) -> Result<Vec<Vec<LakeHit>>> {
        let (ready, among) = self.ready_for(target, search, job)?;
        let work = || ready.search_batch(queries, dim, &search.options, among.as_ref(), job);
        executor::install(&*self.inner.executor, work).unwrap_or_else(|| Err(lost()))
    }

    /// The index that a search takes, and the rows that it may find.
    pub(crate) fn ready_for(
        &self,
        target: &Target,
        search: &Search,
        job: &Job,
    ) -> Result<(Ready, Option<Ids>)> {
        if search.cached_only && !self.is_cached(target) {
            return Err(cache_miss(target));
        }
        let ready = self.prepare(target, search.deadline, job)?;
        self.among(target, ready, search, job)
    }

    /// The rows that a search may find in an index that is at hand, and the index, which may have to be another one.
    pub(crate) fn among(
        &self,
        target: &Target,
        mut ready: Ready,
        search: &Search,
        job: &Job,
    ) -> Result<(Ready, Option<Ids>)> {
        let filter = match &search.among {
            None => return Ok((ready, None)),
            Some(Where::Ids(ids)) => return Ok((ready, Some(ids.clone()))),
            Some(Where::Matching(filter)) => filter,
        };
        let backend = self.backend(&target.backend)?;
        let mut attempt = 1;
        loop {
            let Some((ids, generation)) = backend.select(&target.collection, filter)? else {
                let message = format!("backend {:?} has nothing to filter by", backend.name());
                return Err(
                    Error::new(ErrorKind::InvalidArgument, message).suggest("give the ids that may be found")
                );
            };
            if generation == ready.generation() || attempt == ATTEMPTS {
                return Ok((ready, Some(ids)));
            }
            attempt += 1;
            ready = self.prepare(target, search.deadline, job)?;
        }
    }

    /// The state of a collection in memory, however old; it shares its memory with the cache.
    pub(crate) fn cached(&self, target: &Target) -> Option<Body> {
        let slot = read(&self.inner.slots).get(target).cloned()?;
        let entry = self.inner.cache.peek(slot.number()?)?;
        let body = entry.read().clone();
        Some(body)
    }

    /// How many rows the index of a collection in memory has, however old it is.
    pub(crate) fn rows(&self, target: &Target) -> usize {
        let slot = read(&self.inner.slots).get(target).cloned();
        let entry = slot.and_then(|slot| self.inner.cache.peek(slot.number()?));
        entry.map_or(0, |entry| entry.read().len())
    }

    /// The collections that were ever asked for.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let mut targets: Vec<Target> = read(&self.inner.slots).keys().cloned().collect();
        targets.sort();
        targets
    }

    /// Takes a body that was not built here as the index of a collection.
    pub(crate) fn adopt_body(&self, target: &Target, body: Body) -> Result<()> {
        let slot = self.inner.slot(target)?;
        self.inner.install(&slot, Entry::unproven(body), slot.epoch())?;
        Ok(())
    }

    /// What the lake has, and how it has done.
    pub fn stats(&self) -> Stats {
        let inner = &self.inner;
        let slots: Vec<Arc<Slot>> = read(&inner.slots).values().cloned().collect();
        let mut collections: Vec<CollectionStats> = slots
            .iter()
            .map(|slot| slot.stats(slot.number().and_then(|number| inner.cache.peek(number)).as_deref()))
            .collect();
        collections.sort_by(|a, b| a.target.cmp(&b.target));
        Stats {
            entries: inner.cache.len() as u64,
            bytes: inner.cache.bytes(),
            evictions: inner.cache.evicted(),
            collections,
        }
    }
}

impl Inner {
    fn backend(&self, name: &str) -> Result<Arc<dyn Backend>> {
        let backends = read(&self.backends);
        backends.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = backends.keys().map(String::as_str).collect();
            let error = Error::new(ErrorKind::UnknownCollection, format!("the lake has no backend {name:?}"));
            if known.is_empty() {
                error.suggest("add one with register_backend")
            } else {
                error.suggest(format!("it has {}", known.join(", ")))
            }
        })
    }

    fn slot(&self, target: &Target) -> Result<Arc<Slot>> {
        if let Some(slot) = read(&self.slots).get(target) {
            return Ok(slot.clone());
        }
        self.backend(&target.backend)?;
        names::check_collection(&target.collection)?;
        let mut slots = write(&self.slots);
        Ok(slots.entry(target.clone()).or_insert_with(|| Arc::new(Slot::new(target.clone()))).clone())
    }

    /// What is at hand for a search that began at some moment.
    fn look(self: &Arc<Self>, target: &Target, began: Instant) -> Result<Look> {
        let slot = self.slot(target)?;
        // What came from a file is as good as none until a flight has looked at it.
        let entry = slot.number().and_then(|number| self.cache.get(number)).filter(|entry| entry.is_proven());
        let Some(entry) = entry else {
            slot.counters.misses.fetch_add(1, Ordering::Relaxed);
            let backend = self.backend(&target.backend)?;
            // What is built from now on is fresh enough for everybody, whatever was asked.
            let since = match slot.consistency(self.settings.consistency) {
                Consistency::Fresh => began,
                Consistency::Eventual(ttl) => began.checked_sub(ttl).unwrap_or(began),
                Consistency::Frozen => slot.born(),
            };
            return Ok(Look::Wait(self.fly(&slot, backend), since));
        };
        let since = match slot.consistency(self.settings.consistency) {
            Consistency::Frozen => return Ok(slot.hit(entry)),
            Consistency::Eventual(ttl) => {
                let age = began.saturating_duration_since(slot.checked());
                if age < ttl {
                    if age > ttl / AHEAD {
                        drop(self.fly(&slot, self.backend(&target.backend)?));
                    }
                    return Ok(slot.hit(entry));
                }
                began.checked_sub(ttl).unwrap_or(began)
            }
            Consistency::Fresh => began,
        };
        let backend = self.backend(&target.backend)?;
        let now = Instant::now();
        if backend.is_quick() && backend.generation(&target.collection)? == entry.read().origin.generation {
            slot.set_checked(now);
            return Ok(slot.hit(entry));
        }
        Ok(Look::Wait(self.fly(&slot, backend), since))
    }

    /// The flight that makes the index of a collection current: one at a time.
    fn fly(self: &Arc<Self>, slot: &Arc<Slot>, backend: Arc<dyn Backend>) -> Arc<Flight> {
        let (flight, is_new) = slot.flight();
        if !is_new {
            return flight;
        }
        let pilot = Pilot { slot: slot.clone(), flight: flight.clone() };
        // To wake a thread for a few rows would take several times as long as they do.
        if backend.is_quick()
            && let Ok(Some(landed)) = self.catch_up(slot, &*backend)
        {
            pilot.land(Ok(landed));
            return flight;
        }
        // Who drops the lake does not wait for what is in the air.
        let inner: Weak<Self> = Arc::downgrade(self);
        let work = move || {
            let outcome = match inner.upgrade() {
                Some(inner) => {
                    let renewed = inner.renew_patiently(&pilot.slot, &*backend);
                    if renewed.as_ref().is_err_and(|error| error.kind() == ErrorKind::UnknownCollection) {
                        inner.forget(&pilot.slot);
                    }
                    renewed
                }
                None => Err(Error::new(ErrorKind::Lake, "the lake is gone")),
            };
            pilot.land(outcome);
        };
        let caught = move || {
            // A backend that panics must not take more than its own answer with it.
            drop(std::panic::catch_unwind(AssertUnwindSafe(work)));
        };
        let begun = std::thread::Builder::new().name("limnion-lake".to_owned()).spawn(caught);
        if let Err(error) = begun {
            let message = format!("no thread can be started: {error}");
            slot.land(&flight, Err(Error::new(ErrorKind::Internal, message)));
        }
        flight
    }

    /// Makes the index of a collection current in this thread, where there is little to do.
    fn catch_up(&self, slot: &Slot, backend: &dyn Backend) -> Result<Option<Landed>> {
        let (as_of, epoch) = (Instant::now(), slot.epoch());
        let cached = slot.number().and_then(|number| Some((number, self.cache.peek(number)?)));
        let Some((number, entry)) = cached.filter(|(_, entry)| entry.is_mine() && entry.is_proven()) else {
            return Ok(None);
        };
        let since = entry.read().origin.generation.clone();
        let Some(changes) = backend.few_changes(&slot.target.collection, &since, FEW)? else {
            return Ok(None);
        };
        let takes_soon = entry.read().takes_soon(&changes);
        if !takes_soon || !self.work_in(slot, changes, (number, &entry), epoch)? {
            return Ok(None);
        }
        slot.set_checked(as_of);
        let entry = slot.number().and_then(|number| self.cache.peek(number)).unwrap_or(entry);
        Ok(Some(Landed { entry, as_of }))
    }

    /// [`Inner::renew`], anew while the source changes under it.
    fn renew_patiently(&self, slot: &Slot, backend: &dyn Backend) -> Result<Landed> {
        let mut pause = LEAST_PAUSE;
        loop {
            match self.renew(slot, backend) {
                Err(error) if error.passes() && pause <= MOST_PAUSE => std::thread::sleep(pause),
                renewed => return renewed,
            }
            pause *= 2;
        }
    }

    /// Makes the index of a collection current: by looking, by the changes since, or by pulling all of it.
    fn renew(&self, slot: &Slot, backend: &dyn Backend) -> Result<Landed> {
        let collection = &*slot.target.collection;
        let (as_of, epoch) = (Instant::now(), slot.epoch());
        let cached = slot.number().and_then(|number| Some((number, self.cache.peek(number)?)));
        if let Some((number, entry)) = cached
            && let Some(generation) = self.generation_beside(slot, backend, &entry)?
        {
            let mine = entry.read().origin.generation.clone();
            let is_current = generation == mine
                || match backend.changes(collection, &mine)? {
                    Some(changes) => self.work_in(slot, changes, (number, &entry), epoch)?,
                    None => false,
                };
            if is_current {
                slot.set_checked(as_of);
                let entry = slot.number().and_then(|number| self.cache.peek(number)).unwrap_or(entry);
                return Ok(Landed { entry, as_of });
            }
        }
        if let Some(entry) = self.share(slot, backend, epoch)? {
            slot.set_checked(as_of);
            return Ok(Landed { entry, as_of });
        }
        let began = Instant::now();
        let body = prime::prime(backend, collection, &self.settings.params, &*self.executor, &Job::new())?;
        slot.counters.primed(began.elapsed());
        let entry = self.install(slot, Entry::new(body), epoch)?;
        slot.set_checked(as_of);
        Ok(Landed { entry, as_of })
    }

    /// The generation of the backend now; `None` where an entry that came from a file turns out to be of no use, and is dropped.
    fn generation_beside(
        &self,
        slot: &Slot,
        backend: &dyn Backend,
        entry: &Entry,
    ) -> Result<Option<Generation>> {
        if entry.is_proven() {
            return backend.generation(&slot.target.collection).map(Some);
        }
        let described = backend.describe(&slot.target.collection)?;
        let body = entry.read();
        let (misfit, index) =
            (bundle::misfit(&body.origin, &described, &self.settings.params), body.index.clone());
        // The pool may be busy with somebody who waits for the lock.
        drop(body);
        let verify = || index.as_ref().map_or(Ok(()), limnion_index::FlatIndex::verify);
        let is_of_use =
            misfit.is_none() && matches!(executor::install(&*self.executor, verify), Some(Ok(())));
        if !is_of_use {
            self.drop_entry(slot);
            return Ok(None);
        }
        entry.set_proven();
        Ok(Some(described.generation))
    }

    /// Works in what has changed; `false` where everything has to be pulled.
    fn work_in(
        &self,
        slot: &Slot,
        changes: Changes,
        (number, entry): (Number, &Arc<Entry>),
        epoch: u64,
    ) -> Result<bool> {
        if !entry.read().takes(&changes) {
            return Ok(false);
        }
        let told = |error: Error| error.within(&slot.target);
        let mut origins = write(&self.origins);
        // One that others have stays as it is; and while it would take longer, searches go on in what was.
        if entry.is_mine() && entry.read().takes_soon(&changes) {
            let mut body = entry.write();
            let before = (body.origin.source.clone(), body.origin.generation.clone());
            if let Err(error) = body.apply(changes, &Job::new()) {
                drop((body, origins));
                self.drop_entry(slot);
                return Err(told(error));
            }
            entry.measure(&body);
            let after = (before.0.clone(), body.origin.generation.clone());
            drop(body);
            origins.remove(&before);
            origins.insert(after, number);
            drop(origins);
            self.cache.reweigh(number, entry.clone());
        } else {
            drop(origins);
            let mut body = entry.read().clone();
            let work = || body.apply(changes, &Job::new());
            executor::install(&*self.executor, work).unwrap_or_else(|| Err(lost())).map_err(told)?;
            self.install(slot, Entry::new(body), epoch)?;
        }
        slot.counters.updates.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// An entry of the same data that somebody else had built.
    fn share(&self, slot: &Slot, backend: &dyn Backend, epoch: u64) -> Result<Option<Arc<Entry>>> {
        if read(&self.origins).is_empty() {
            return Ok(None);
        }
        let described = backend.describe(&slot.target.collection)?;
        let wanted = (described.source, described.generation);
        // Whoever would change the entry meanwhile waits for this lock.
        let origins = write(&self.origins);
        let Some(number) = origins.get(&wanted).copied().filter(|number| Some(*number) != slot.number())
        else {
            return Ok(None);
        };
        let Some(entry) = self.cache.get(number).filter(|entry| entry.is_proven()) else { return Ok(None) };
        entry.users.fetch_add(1, Ordering::AcqRel);
        drop(origins);
        self.adopt(slot, number, epoch);
        slot.counters.shared.fetch_add(1, Ordering::Relaxed);
        Ok(Some(entry))
    }

    /// Makes an entry the index of a collection.
    fn install(&self, slot: &Slot, entry: Entry, epoch: u64) -> Result<Arc<Entry>> {
        let origin = {
            let body = entry.read();
            (body.origin.source.clone(), body.origin.generation.clone())
        };
        let entry = Arc::new(entry);
        entry.users.store(1, Ordering::Release);
        entry.pinned.store(slot.pinned(), Ordering::Relaxed);
        let number = self.cache.insert(entry.clone()).map_err(|error| error.within(&slot.target))?;
        let mut origins = write(&self.origins);
        origins.retain(|_, number| self.cache.peek(*number).is_some());
        origins.insert(origin, number);
        drop(origins);
        self.adopt(slot, number, epoch);
        Ok(entry)
    }

    /// Gives a collection an entry, unless it was invalidated since: then only who waits gets it.
    fn adopt(&self, slot: &Slot, number: Number, epoch: u64) {
        self.release(slot.replace_number(number, epoch));
    }

    /// A collection has its entry no longer; the last one takes it along.
    fn drop_entry(&self, slot: &Slot) {
        self.release(slot.take_number());
    }

    /// A collection that is not there leaves nothing behind, unless somebody has set something for it.
    fn forget(&self, slot: &Slot) {
        self.drop_entry(slot);
        if !slot.is_set() {
            write(&self.slots).remove(&slot.target);
        }
    }

    fn release(&self, number: Option<Number>) {
        let Some(number) = number else { return };
        if let Some(entry) = self.cache.peek(number)
            && entry.users.fetch_sub(1, Ordering::AcqRel) <= 1
        {
            self.cache.remove(number);
        }
    }
}

impl Slot {
    fn hit(&self, entry: Arc<Entry>) -> Look {
        self.counters.hits.fetch_add(1, Ordering::Relaxed);
        Look::Ready(entry)
    }
}

/// Lands a flight, whatever happens.
struct Pilot {
    slot: Arc<Slot>,
    flight: Arc<Flight>,
}

impl Pilot {
    fn land(self, outcome: Result<Landed>) {
        self.slot.land(&self.flight, outcome);
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        // Where it has landed already, this is not heard.
        let lost = names::failed(&self.slot.target.backend, "it panicked");
        self.slot.land(&self.flight, Err(lost));
    }
}

pub(crate) fn cache_miss(target: &Target) -> Error {
    Error::new(ErrorKind::CacheMiss, format!("no index of {target} is in memory"))
        .suggest("build it with prime, or search without cached_only")
}

fn lost() -> Error {
    Error::new(ErrorKind::Internal, "work was lost")
}

/// A moment so long ago that whatever was known then is too old.
pub(crate) fn long_ago() -> Instant {
    let now = Instant::now();
    now.checked_sub(Duration::from_secs(365 * 24 * 3600)).unwrap_or(now)
}
