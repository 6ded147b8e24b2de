//! An index, and what it was built from.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use limnion_index::{FlatIndex, Params, SearchOptions};
use limnion_types::{Error, ErrorKind, Hit, Job, Metric, Result};

use crate::backend::{Changes, Generation, Id, Ids};
use crate::labels::Labels;

/// An index that has grown beyond so many times what it was built from is built anew: its codes are centred on what was
/// there then.
const GROWTH: usize = 4;
const SMALL: usize = 4096;
/// So few rows are worked in while searches wait: it takes less than a millisecond.
pub(crate) const FEW: usize = 64;

/// Which state of which data an index was built from, and how.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Origin {
    pub(crate) source: String,
    pub(crate) generation: Generation,
    pub(crate) params: Params,
}

/// One state of a collection: what is searched.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    pub(crate) origin: Origin,
    /// `None` where there are no rows, nor ever were.
    pub(crate) index: Option<FlatIndex>,
    pub(crate) labels: Labels,
    /// How many rows there were when it was built.
    built: usize,
}

/// An entry of the cache.
pub(crate) struct Entry {
    body: RwLock<Body>,
    /// How many collections have it: one that is shared is not changed.
    pub(crate) users: AtomicUsize,
    pub(crate) pinned: AtomicBool,
    /// Whether it is whole and of the backend's data: what was built here is, what came from a file has yet to be looked at.
    proven: AtomicBool,
    bytes: AtomicUsize,
}

impl Body {
    pub(crate) fn new(origin: Origin, index: Option<FlatIndex>, labels: Labels) -> Self {
        let built = index.as_ref().map_or(0, FlatIndex::len);
        Self { origin, index, labels, built }
    }

    pub(crate) fn len(&self) -> usize {
        self.index.as_ref().map_or(0, FlatIndex::len)
    }

    pub(crate) fn metric(&self) -> Metric {
        self.origin.params.metric
    }

    pub(crate) fn bytes(&self) -> usize {
        self.index.as_ref().map_or(0, FlatIndex::memory_bytes)
            + self.labels.heap_bytes()
            + self.origin.source.len()
    }

    /// The hits for a query among all rows, or among those with these ids.
    pub(crate) fn search(&self, query: &[f32], options: &Options, among: Option<&Ids>) -> Result<Vec<Hit>> {
        let Some(index) = self.index.as_ref().filter(|index| !index.is_empty()) else {
            return match options.k {
                0 => Err(Error::new(ErrorKind::InvalidArgument, "k must be at least 1, got 0")),
                _ => Ok(Vec::new()),
            };
        };
        let selection = match among {
            Some(ids) => Some(index.select_ids(&self.labels.known(ids)?)),
            None => None,
        };
        index.search(query, &options.among(selection.as_ref()))
    }

    /// [`Body::search`] of several queries.
    pub(crate) fn search_batch(
        &self,
        queries: &[f32],
        dim: usize,
        options: &Options,
        among: Option<&Ids>,
        job: &Job,
    ) -> Result<Vec<Vec<Hit>>> {
        let Some(index) = self.index.as_ref().filter(|index| !index.is_empty()) else {
            return Ok(vec![Vec::new(); queries.len() / dim.max(1)]);
        };
        if dim != index.dim() {
            let message = format!("queries must have {} dimensions like the index, got {dim}", index.dim());
            return Err(Error::new(ErrorKind::DimensionMismatch, message)
                .suggest("embed them with the model that made the index's vectors"));
        }
        let selection = match among {
            Some(ids) => Some(index.select_ids(&self.labels.known(ids)?)),
            None => None,
        };
        index.search_batch(queries, &options.among(selection.as_ref()), job)
    }

    /// What a hit's row is called; ties are in the order of that.
    pub(crate) fn label(&self, hits: Vec<Hit>) -> Vec<(Id, Hit)> {
        let mut labelled: Vec<(Id, Hit)> =
            hits.into_iter().map(|hit| (self.labels.id(hit.id), hit)).collect();
        if !matches!(self.labels, Labels::Numbers) {
            labelled.sort_by(|(a, x), (b, y)| x.distance.total_cmp(&y.distance).then_with(|| a.cmp(b)));
        }
        labelled
    }

    /// Whether there is a row of this id; an error for an id of the other kind.
    pub(crate) fn has(&self, id: &Id) -> Result<bool> {
        let ids = match id {
            Id::Number(number) => Ids::Numbers(vec![*number]),
            Id::Name(name) => Ids::Names(vec![name.clone()]),
        };
        let inside = self.labels.known(&ids)?;
        Ok(self.index.as_ref().is_some_and(|index| inside.iter().any(|&id| index.contains(id))))
    }

    /// Whether changes can be worked in.
    pub(crate) fn takes(&self, changes: &Changes) -> bool {
        let upserts = &changes.upserts;
        let after = self.len() + upserts.ids.len();
        // Where nothing of what there was is left, the new rows may have another dimension.
        let fits =
            |index: &FlatIndex| upserts.ids.len().checked_mul(index.dim()) == Some(upserts.vectors.len());
        // Where names stand is found out here, while others search, and in a file two rows may turn out to have one.
        self.index.as_ref().is_some_and(fits)
            && after <= self.built.saturating_mul(GROWTH).max(SMALL)
            && self.labels.are_different()
    }

    /// Whether they can be worked in in a moment, so that others may wait for it.
    pub(crate) fn takes_soon(&self, changes: &Changes) -> bool {
        let (rows, gone) = (changes.upserts.ids.len(), changes.removed.len());
        let has_room = || self.index.as_ref().is_none_or(|index| index.has_room(rows));
        rows + gone == 0 || (rows + gone <= FEW && has_room())
    }

    /// Works changes in. After an error the body is not to be used any more.
    pub(crate) fn apply(&mut self, changes: Changes, job: &Job) -> Result<()> {
        let Changes { generation, upserts, removed } = changes;
        let Some(index) = &mut self.index else {
            return Err(Error::new(ErrorKind::Internal, "there is no index to change"));
        };
        let dim = index.dim();
        if upserts.ids.len().checked_mul(dim) != Some(upserts.vectors.len()) {
            let came = upserts.vectors.len() / upserts.ids.len().max(1);
            let message = format!("the collection has {dim} dimensions, and changes of {came}");
            return Err(Error::new(ErrorKind::DimensionMismatch, message));
        }
        let mut gone = self.labels.known(&removed)?;
        gone.retain(|&id| index.contains(id));
        // Not where there is nothing to do: an array that lies in a file would be copied for it.
        if !gone.is_empty() {
            index.remove(&gone)?;
        }
        self.labels.forget(&removed);
        let ids = self.labels.assign(&upserts.ids)?;
        let (mut new, mut new_vectors, mut old, mut old_vectors) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (id, vector) in ids.into_iter().zip(upserts.vectors.chunks_exact(dim)) {
            let (ids, vectors) = match index.contains(id) {
                true => (&mut old, &mut old_vectors),
                false => (&mut new, &mut new_vectors),
            };
            ids.push(id);
            vectors.extend_from_slice(vector);
        }
        if !old.is_empty() {
            index.update(&old, &old_vectors)?;
        }
        if !new.is_empty() {
            index.add(Some(&new), &new_vectors, job)?;
        }
        self.origin.generation = generation;
        Ok(())
    }
}

impl Entry {
    pub(crate) fn new(body: Body) -> Self {
        let bytes = AtomicUsize::new(body.bytes());
        Self {
            body: RwLock::new(body),
            users: AtomicUsize::new(0),
            pinned: AtomicBool::new(false),
            proven: AtomicBool::new(true),
            bytes,
        }
    }

    /// One that came from a file.
    pub(crate) fn unproven(body: Body) -> Self {
        Self { proven: AtomicBool::new(false), ..Self::new(body) }
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Acquire)
    }

    pub(crate) fn set_proven(&self) {
        self.proven.store(true, Ordering::Release);
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Body> {
        self.body.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body to change; [`Entry::measure`] afterwards.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, Body> {
        self.body.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no more than one collection has it.
    pub(crate) fn is_mine(&self) -> bool {
        self.users.load(Ordering::Acquire) <= 1
    }

    pub(crate) fn measure(&self, body: &Body) {
        self.bytes.store(body.bytes(), Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What a search asks of each index.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// How many hits: at least 1. Fewer come back only where fewer rows match.
    pub k: usize,
    /// The share of the true neighbours to find, in (0, 1]. Unless told, one at the edge of the answer is found with 0.99.
    pub recall: Option<f32>,
    /// Looks closely at exactly k × this many rows, in place of the bound.
    pub rerank_factor: Option<u32>,
    /// How far a hit may be.
    pub radius: Option<f32>,
}

impl Options {
    /// The `k` nearest rows.
    pub fn new(k: usize) -> Self {
        Self { k, recall: None, rerank_factor: None, radius: None }
    }

    pub(crate) fn among<'a>(&self, selection: Option<&'a limnion_index::Selection>) -> SearchOptions<'a> {
        let Self { k, recall, rerank_factor, radius } = *self;
        SearchOptions { k, recall, rerank_factor, selection, radius }
    }
}
