//! Search in the vectors of a store as they were at any point in history.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use limnion_index::{FlatIndex, Params};
use limnion_store::column::{Span, Vectors};
use limnion_store::{AsOf, Moment};
use limnion_types::{Error, ErrorKind, Job, Result};

use crate::backend::{Backend, Generation, Id};
use crate::entry::Options;
use crate::executor::{self, Executor};
use crate::lake::LakeHit;
use crate::store::StoreBackend;

/// An index over every version of every vector in a collection of a store: a row carries the span of commits in which it was
/// current, and a search looks at the rows that were current then.
///
/// It is built at the first search, and follows the store from then on. It takes memory for all versions, so that one is made
/// for a collection only when somebody asks for the past.
pub struct History {
    backend: Arc<StoreBackend>,
    collection: Arc<str>,
    params: Params,
    executor: Arc<dyn Executor>,
    known: RwLock<Option<Known>>,
}

/// History up to a generation. Vectors that were once of another dimension have an index of their own.
struct Known {
    generation: Generation,
    timelines: HashMap<usize, Timeline>,
}

/// Versions of one dimension. A row has the same number in all of them.
struct Timeline {
    index: FlatIndex,
    keys: Vec<Arc<str>>,
    spans: Vec<Span>,
    /// The rows whose spans have no end.
    current: HashMap<Arc<str>, usize>,
}

impl Timeline {
    fn add(&mut self, piece: Vectors, params: &Params, job: &Job) -> Result<()> {
        if self.index.is_empty() {
            self.index = FlatIndex::build(&piece.numbers, piece.dim, None, params, job)?;
        } else {
            self.index.add(None, &piece.numbers, job)?;
        }
        for (key, span) in piece.keys.into_iter().zip(piece.spans) {
            if span.to == u64::MAX {
                self.current.insert(key.clone(), self.keys.len());
            }
            self.keys.push(key);
            self.spans.push(span);
        }
        Ok(())
    }

    fn end(&mut self, key: &Arc<str>, at: u64) {
        if let Some(span) = self.current.remove(key).and_then(|row| self.spans.get_mut(row)) {
            span.to = at;
        }
    }
}

impl Known {
    fn add(&mut self, piece: Vectors, params: &Params, job: &Job) -> Result<()> {
        let timeline = match self.timelines.get_mut(&piece.dim) {
            Some(timeline) => timeline,
            None => {
                let index = FlatIndex::build(&[], piece.dim, None, params, job)?;
                let empty = Timeline { index, keys: Vec::new(), spans: Vec::new(), current: HashMap::new() };
                self.timelines.entry(piece.dim).or_insert(empty)
            }
        };
        timeline.add(piece, params, job)
    }
}

impl History {
    /// The history of a collection of a store.
    pub fn new(
        backend: Arc<StoreBackend>,
        collection: &str,
        params: Params,
        executor: Arc<dyn Executor>,
    ) -> Self {
        Self { backend, collection: collection.into(), params, executor, known: RwLock::default() }
    }

    /// The nearest rows as they were at a point in history, best first; ties go to the lower key. The answer is that of a
    /// search right after that commit, or at that time.
    ///
    /// Cost: that of a search among all versions, and one look at each one's span.
    ///
    /// # Errors
    /// As [`StoreBackend::moment`] and [`StoreBackend::pull_history`], and for a query that cannot be used.
    pub fn search(&self, query: &[f32], as_of: &AsOf, options: &Options, job: &Job) -> Result<Vec<LakeHit>> {
        self.search_at(query, self.backend.moment(as_of)?, options, None, job)
    }

    /// [`History::search`] at a moment, among all rows or those with these keys.
    pub(crate) fn search_at(
        &self,
        query: &[f32],
        moment: Moment,
        options: &Options,
        among: Option<&[Arc<str>]>,
        job: &Job,
    ) -> Result<Vec<LakeHit>> {
        let known = self.up_to(moment, job)?;
        let Some(Known { timelines, .. }) = &*known else { return Ok(Vec::new()) };
        let Some(timeline) = timelines.get(&query.len()) else {
            return match timelines.keys().max() {
                None => Ok(Vec::new()),
                Some(dim) => Err(Error::new(
                    ErrorKind::DimensionMismatch,
                    format!(
                        "query must have {dim} dimensions like the vectors of {:?}, got {}",
                        self.collection,
                        query.len()
                    ),
                )
                .suggest("embed it with the model that made the vectors")),
            };
        };
        let mut mask: Vec<bool> = timeline.spans.iter().map(|span| span.covers(moment)).collect();
        if let Some(among) = among {
            let among: HashSet<&Arc<str>> = among.iter().collect();
            mask.iter_mut().zip(&timeline.keys).for_each(|(is_in, key)| *is_in &= among.contains(key));
        }
        let selection = timeline.index.select_mask(&mask)?;
        let mut hits = timeline.index.search(query, &options.among(Some(&selection)))?;
        hits.sort_by(|a, b| {
            let key = |row: u64| timeline.keys.get(row as usize);
            a.distance.total_cmp(&b.distance).then_with(|| key(a.id).cmp(&key(b.id)))
        });
        let backend: Arc<str> = self.backend.name().into();
        let name = |row: u64| timeline.keys.get(row as usize).cloned().unwrap_or_else(|| "".into());
        Ok(hits
            .into_iter()
            .map(|hit| LakeHit {
                backend: backend.clone(),
                collection: self.collection.clone(),
                id: Id::Name(name(hit.id)),
                score: hit.score,
                distance: hit.distance,
            })
            .collect())
    }

    /// Bytes on the heap, about.
    pub fn memory_bytes(&self) -> usize {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let timelines = known.as_ref().map(|known| known.timelines.values()).into_iter().flatten();
        timelines.map(|timeline| timeline.index.memory_bytes() + timeline.keys.len() * 120).sum()
    }

    /// What is known, up to a moment at least.
    fn up_to(&self, moment: Moment, job: &Job) -> Result<RwLockReadGuard<'_, Option<Known>>> {
        let read = || self.known.read().unwrap_or_else(PoisonError::into_inner);
        let reaches = |known: &Known| {
            StoreBackend::version(&known.generation).is_some_and(|version| version >= moment.seq)
        };
        let known = read();
        if known.as_ref().is_some_and(reaches) {
            return Ok(known);
        }
        drop(known);
        {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            if !known.as_ref().is_some_and(reaches) {
                let followed = match &mut *known {
                    Some(known) => self.follow(known, job),
                    None => Ok(false),
                };
                if !matches!(followed, Ok(true)) {
                    // Half of the changes may be in.
                    *known = None;
                }
                if !followed? {
                    *known = Some(self.pull(job)?);
                }
            }
        }
        Ok(read())
    }

    fn pull(&self, job: &Job) -> Result<Known> {
        let mut known = Known { generation: Generation::Number(0), timelines: HashMap::new() };
        let mut pieces: HashMap<usize, Vectors> = HashMap::new();
        let mut take = |piece: Vectors| {
            let all =
                pieces.entry(piece.dim).or_insert_with(|| Vectors { dim: piece.dim, ..Vectors::default() });
            all.keys.extend(piece.keys);
            all.spans.extend(piece.spans);
            all.numbers.extend(piece.numbers);
            Ok(())
        };
        known.generation = self.backend.pull_history(&self.collection, job, &mut take)?;
        let build = || pieces.into_values().try_for_each(|piece| known.add(piece, &self.params, job));
        executor::install(&*self.executor, build).unwrap_or_else(|| Err(lost()))?;
        Ok(known)
    }

    /// Works in what has been written since; `false` where everything has to be read again.
    fn follow(&self, known: &mut Known, job: &Job) -> Result<bool> {
        let mut pieces = Vec::new();
        let mut take = |piece: Vectors| {
            pieces.push(piece);
            Ok(())
        };
        let changes = self.backend.history_since(&self.collection, &known.generation, job, &mut take)?;
        let Some(changes) = changes else { return Ok(false) };
        for (key, at) in &changes.ended {
            known.timelines.values_mut().for_each(|timeline| timeline.end(key, *at));
        }
        for piece in pieces {
            known.add(piece, &self.params, job)?;
        }
        known.generation = changes.generation;
        Ok(true)
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Internal, "work was lost")
}
