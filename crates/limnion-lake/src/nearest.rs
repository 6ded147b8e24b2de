//! Vector search in a store: what is nearest, each with the record that it belongs to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use limnion_store::{AsOf, At, Column, Moment, Record, Store};
use limnion_types::{Error, ErrorKind, Filter, Job, Result};

use crate::backend::{Backend, Generation, Ids};
use crate::bundle::LakeBundle;
use crate::entry::Options;
use crate::executor::Executor;
use crate::history::History;
use crate::lake::{Lake, LakeHit, Ready, Settings};
use crate::shelf::{Folder, OpenFile};
use crate::slot::Target;
use crate::store::StoreBackend;

/// How often a search begins anew because the store has moved on while it went.
const ATTEMPTS: usize = 16;
/// ... and so often before it looks at one state that is held still.
const MOVING: usize = 3;
/// An index of so many rows is built sooner than anybody notices: it is not worth a file.
const WORTH: usize = 4096;
/// So many selections of filters are remembered for a collection.
const FILTERS: usize = 4;
/// A saved index is saved anew once more than this part of its rows, and `WORTH` of them, have changed.
const STALE: usize = 16;

/// What is searched for.
#[derive(Debug, Clone)]
pub struct Sought {
    /// The namespace.
    pub namespace: String,
    /// The name of the vectors; the empty one for those without.
    pub name: String,
    /// What the vectors are to be near to.
    pub query: Vec<f32>,
    /// How many, and how sure.
    pub options: Options,
    /// The least score of a hit.
    pub threshold: Option<f32>,
    /// Which records are meant.
    pub filter: Option<Filter>,
    /// When; now unless told.
    pub as_of: Option<AsOf>,
}

/// A hit: a record, and how near its vector is.
#[derive(Debug, Clone)]
pub struct Near {
    /// The version whose vector it is.
    pub record: Arc<Record>,
    /// Higher is better.
    pub score: f32,
    /// Lower is nearer.
    pub distance: f32,
}

/// The search in the vectors of a store, by cosine: fresh after each write, and at any point in history.
///
/// Indexes are made when they are first needed, and follow the store from then on. Those of a store in a folder are kept in
/// its `cache`, for the next time it is opened; with an encryption key they are not, as they lie open.
pub struct Nearest {
    store: Store,
    backend: Arc<StoreBackend>,
    lake: Lake,
    executor: Arc<dyn Executor>,
    shelf: Option<Folder>,
    places: Mutex<HashMap<Box<str>, Arc<Place>>>,
}

/// The vectors of a name in a namespace.
struct Place {
    target: Target,
    column: Column,
    history: OnceLock<Arc<History>>,
    /// Whether the saved index was looked for.
    warmed: OnceLock<()>,
    /// The bundle on the shelf.
    saved: Mutex<Option<LakeBundle>>,
    /// What filters have selected of a generation, the last one last.
    selected: Mutex<Vec<(Filter, Generation, Arc<Ids>)>>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Nearest {
    /// The search in a store. Arithmetic runs on `executor`; saved indexes are opened by `open`.
    ///
    /// # Errors
    /// Those of [`Lake::new`].
    pub fn new(store: Store, executor: Arc<dyn Executor>, open: OpenFile) -> Result<Self> {
        let backend = Arc::new(StoreBackend::own(store.clone()));
        let lake = Lake::new(Settings::default(), executor.clone())?;
        lake.register(backend.clone())?;
        let is_open = store.options().key.is_none();
        let folder = store.path().filter(|_| is_open).map(|path| path.join("cache"));
        let shelf = folder.map(|folder| Folder::new(folder).with(open));
        Ok(Self { store, backend, lake, executor, shelf, places: Mutex::default() })
    }

    /// The records that are nearest, best first; ties go to the lower key. As many as are asked for, where as many match.
    /// Blocks: not to be called on a thread of the executor.
    ///
    /// # Errors
    /// `DimensionMismatch`, `InvalidArgument`; those of [`Store::get`] and [`Store::resolve`]; `Cancelled`.
    pub fn search(&self, sought: &Sought, job: &Job) -> Result<Vec<Near>> {
        for attempt in 0..ATTEMPTS {
            job.check()?;
            let Some(place) = self.place(sought)? else { return self.nothing(sought) };
            self.warm(&place);
            let found = self.attempt(&place, sought, attempt >= MOVING, job);
            match found {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::UnknownCollection => return self.nothing(sought),
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::NoValueAtTime, "what was found is dropped by retention before it is read")
            .suggest("keep versions for longer, or search again"))
    }

    /// The collection that is searched, where its index is all that is needed: [`Nearest::lake`] makes it ready, and
    /// [`Nearest::search_in`] takes it. `None` where [`Nearest::search`] has more to do. Reads no file.
    ///
    /// # Errors
    /// Those of [`Nearest::search`].
    pub fn target(&self, sought: &Sought) -> Result<Option<Target>> {
        if sought.filter.is_some() || sought.as_of.is_some() {
            return Ok(None);
        }
        let place = self.place(sought)?.filter(|place| place.warmed.get().is_some());
        Ok(place.map(|place| place.target.clone()))
    }

    /// The indexes of now.
    pub fn lake(&self) -> &Lake {
        &self.lake
    }

    /// The hits in an index that is at hand; `None` where the store has moved on meanwhile, and the search has to begin anew.
    ///
    /// # Errors
    /// Those of [`Nearest::search`].
    pub fn search_in(&self, ready: &Ready, sought: &Sought) -> Result<Option<Vec<Near>>> {
        let (hits, generation) = ready.search_told(&sought.query, &sought.options, None)?;
        self.records(hits, &generation, sought)
    }

    /// Saves the indexes that it would take long to build again, and says how many.
    ///
    /// # Errors
    /// `Cancelled`. What cannot be written is not saved.
    pub fn save(&self, job: &Job) -> Result<usize> {
        let Some(shelf) = self.shelf.as_ref().filter(|_| !self.store.options().read_only) else {
            return Ok(0);
        };
        let places: Vec<Arc<Place>> = held(&self.places).values().cloned().collect();
        let mut count = 0;
        for place in places {
            job.check()?;
            let mut saved = held(&place.saved);
            let rows = self.lake.rows(&place.target);
            if rows < WORTH {
                if saved.take().is_some() {
                    Lake::clear(&place.target, shelf, None);
                }
            } else if !saved.as_ref().is_some_and(|saved| self.is_recent(&place, saved, rows))
                && let Ok(Some(bundle)) = self.lake.save(&place.target, shelf)
            {
                Lake::clear(&place.target, shelf, Some(&bundle));
                *saved = Some(bundle);
                count += 1;
            }
        }
        Ok(count)
    }

    /// Bytes of the indexes in memory, about.
    pub fn memory_bytes(&self) -> u64 {
        let places: Vec<Arc<Place>> = held(&self.places).values().cloned().collect();
        let histories = places.iter().filter_map(|place| place.history.get());
        self.lake.stats().bytes + histories.map(|history| history.memory_bytes() as u64).sum::<u64>()
    }

    /// Where vectors of this name lie in this namespace; `None` where there never were any.
    fn place(&self, sought: &Sought) -> Result<Option<Arc<Place>>> {
        let collection = match sought.name.as_str() {
            "" => sought.namespace.clone(),
            name => format!("{}/{name}", sought.namespace),
        };
        if let Some(place) = held(&self.places).get(&*collection) {
            return Ok(Some(place.clone()));
        }
        let Some(column) = self.backend.column(&collection)? else { return Ok(None) };
        let place = Place {
            target: Target::new(self.backend.name(), &collection),
            column,
            history: OnceLock::new(),
            warmed: OnceLock::new(),
            saved: Mutex::default(),
            selected: Mutex::default(),
        };
        Ok(Some(held(&self.places).entry(collection.into()).or_insert(Arc::new(place)).clone()))
    }

    /// The answer where there are no vectors: the point in history must be one even so.
    fn nothing(&self, sought: &Sought) -> Result<Vec<Near>> {
        if let Some(as_of) = &sought.as_of {
            self.backend.moment(as_of)?;
        }
        Ok(Vec::new())
    }

    /// Takes the saved index, the first time.
    fn warm(&self, place: &Place) {
        place.warmed.get_or_init(|| {
            if let Some(shelf) = &self.shelf {
                // Where it is of no use, the index is built.
                *held(&place.saved) = self.lake.warm(&place.target, shelf).unwrap_or_default();
            }
        });
    }

    /// Whether few rows have changed since an index was saved.
    fn is_recent(&self, place: &Place, saved: &LakeBundle, rows: usize) -> bool {
        let Some(then) = StoreBackend::moment_of(&Generation::from(&saved.generation)) else { return false };
        let Ok((newest, _)) = self.store.head() else { return true };
        let most = WORTH.max(rows / STALE);
        let written = place.column.written(then.seq, newest, most.saturating_mul(4));
        matches!(written, Ok(Some(written)) if written.len() <= most)
    }

    fn attempt(&self, place: &Place, sought: &Sought, hold: bool, job: &Job) -> Result<Option<Vec<Near>>> {
        let target = &place.target;
        let Some(as_of) = &sought.as_of else {
            let ready = self.lake.prepare(target, None, job)?;
            return match &sought.filter {
                None => self.search_in(&ready, sought),
                Some(filter) => self.search_among(place, &ready, filter, sought, hold, job),
            };
        };
        let moment = self.backend.moment(as_of)?;
        if sought.filter.is_none() && self.is_now(place, moment)? {
            let ready = self.lake.prepare(target, None, job)?;
            let (hits, generation) = ready.search_told(&sought.query, &sought.options, None)?;
            if self.is_now(place, moment)? && self.covers(&generation, moment) {
                return self.records(hits, &generation, sought);
            }
        }
        let history = place.history.get_or_init(|| {
            let params = self.lake.settings().params.clone();
            let (backend, executor) = (self.backend.clone(), self.executor.clone());
            Arc::new(History::new(backend, &target.collection, params, executor))
        });
        let select = |filter| place.column.select_at(filter, moment, job);
        let among = sought.filter.as_ref().map(select).transpose()?;
        let hits = history.search_at(&sought.query, moment, &sought.options, among.as_deref(), job)?;
        self.resolve(hits, sought, |key| self.store.get_at(&sought.namespace, key, moment))
    }

    /// A search among the records that match a filter in the very state that is searched.
    fn search_among(
        &self,
        place: &Place,
        ready: &Ready,
        filter: &Filter,
        sought: &Sought,
        hold: bool,
        job: &Job,
    ) -> Result<Option<Vec<Near>>> {
        if !hold {
            let (keys, selected) = self.select(place, filter, &ready.generation())?;
            let (hits, searched) = ready.search_told(&sought.query, &sought.options, Some(&keys))?;
            return if searched == selected { self.records(hits, &searched, sought) } else { Ok(None) };
        }
        // Somebody writes all the time: so this state stays as it is, and is asked what matches.
        let body = ready.body();
        let generation = body.origin.generation.clone();
        let Some(moment) = StoreBackend::moment_of(&generation) else { return Ok(None) };
        let keys = match place.column.select_at(filter, moment, job) {
            Err(error) if error.kind() == ErrorKind::NoValueAtTime => return Ok(None),
            keys => Ids::Names(keys?),
        };
        let hits = body.search(&sought.query, &sought.options, Some(&keys))?;
        self.records(ready.label(&body, hits), &generation, sought)
    }

    /// The rows that match a filter, and of which generation that is: this one, where that is known already.
    fn select(&self, place: &Place, filter: &Filter, of: &Generation) -> Result<(Arc<Ids>, Generation)> {
        let known =
            |(kept, generation, _): &&(Filter, Generation, Arc<Ids>)| kept == filter && generation == of;
        if let Some((_, generation, keys)) = held(&place.selected).iter().find(known) {
            return Ok((keys.clone(), generation.clone()));
        }
        let found = self.backend.select(&place.target.collection, filter)?;
        let (keys, generation) = found.unwrap_or((Ids::Names(Vec::new()), of.clone()));
        let keys = Arc::new(keys);
        let mut selected = held(&place.selected);
        selected.retain(|(kept, ..)| kept != filter);
        if selected.len() == FILTERS {
            selected.remove(0);
        }
        selected.push((filter.clone(), generation.clone(), keys.clone()));
        Ok((keys, generation))
    }

    /// Whether a moment is that of the newest write, so that an index of now will do.
    fn is_now(&self, place: &Place, moment: Moment) -> Result<bool> {
        let state = place.column.state()?;
        Ok(state.commit.seq <= moment.seq && state.ran_out.is_none() && !place.column.runs_out())
    }

    fn covers(&self, generation: &Generation, moment: Moment) -> bool {
        StoreBackend::moment_of(generation).is_some_and(|of| of.seq <= moment.seq && of.time == 0)
    }

    /// The records of hits, as they were in the generation that was searched.
    fn records(
        &self,
        hits: Vec<LakeHit>,
        generation: &Generation,
        sought: &Sought,
    ) -> Result<Option<Vec<Near>>> {
        let Some(moment) = StoreBackend::moment_of(generation) else { return Ok(None) };
        let namespace = &sought.namespace;
        let read = |key: &str| match self.store.get(namespace, key, At::Latest)? {
            // Nothing newer had been written by then, and nothing has since.
            Some(record) if record.version <= moment.seq => Ok(Some(record)),
            _ => Ok(self.store.get_at(namespace, key, moment)?.map(Arc::new)),
        };
        self.resolve(hits, sought, read)
    }

    /// Hits with their records; `None` where one of them is not to be had any more.
    fn resolve<R: Into<Arc<Record>>>(
        &self,
        hits: Vec<LakeHit>,
        sought: &Sought,
        read: impl Fn(&str) -> Result<Option<R>>,
    ) -> Result<Option<Vec<Near>>> {
        let mut found = Vec::with_capacity(hits.len());
        for LakeHit { id, score, distance, .. } in hits {
            if sought.threshold.is_some_and(|threshold| score < threshold) {
                break;
            }
            match read(&id.to_string()) {
                Ok(Some(record)) => found.push(Near { record: record.into(), score, distance }),
                Ok(None) => return Ok(None),
                Err(error) if error.kind() == ErrorKind::NoValueAtTime => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(found))
    }
}
