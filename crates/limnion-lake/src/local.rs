//! Vectors in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use limnion_types::{Error, ErrorKind, Job, Result};

use crate::backend::{Backend, Changes, Description, Generation, Ids, Rows, Sink};
use crate::names;

/// Rows that are handed over at once.
const PIECE: usize = 8192;
/// Changes that are remembered, in rows: who is further behind pulls everything.
const REMEMBERED: usize = 65_536;

/// Collections of vectors in memory, to be changed at any time from any thread.
///
/// ```
/// use limnion_lake::{Backend, LocalBackend};
///
/// let shard = LocalBackend::new("hot-shard");
/// shard.upsert("docs", &[1, 2], &[1.0, 0.0, 0.0, 1.0], 2)?;
/// assert_eq!(shard.describe("docs")?.rows, 2);
/// assert_eq!(shard.delete("docs", &[2, 3])?, 1);
/// # Ok::<(), limnion_types::Error>(())
/// ```
pub struct LocalBackend {
    name: String,
    /// No two backends have the same: what lies in one is never taken for what lies in another.
    instance: u128,
    collections: Mutex<BTreeMap<String, Collection>>,
}

#[derive(Default)]
struct Collection {
    dim: usize,
    generation: u64,
    rows: BTreeMap<u64, Arc<[f32]>>,
    /// Which ids each generation changed, oldest first.
    log: VecDeque<(u64, Vec<u64>)>,
    logged: usize,
}

impl Collection {
    fn note(&mut self, ids: Vec<u64>) {
        self.generation += 1;
        self.logged += ids.len();
        self.log.push_back((self.generation, ids));
        while self.logged > REMEMBERED {
            let Some((_, ids)) = self.log.pop_front() else { break };
            self.logged -= ids.len();
        }
    }
}

impl LocalBackend {
    /// A backend without collections.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), instance: names::unique(), collections: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Collection>> {
        self.collections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts rows into a collection, which is made by that: new ids are added, known ones get another vector. All of
    /// them, or none on error.
    ///
    /// # Errors
    /// `DimensionMismatch` for vectors of another length than those that are there, `InvalidArgument` for vectors that are
    /// not finite or not as many as the ids, `DuplicateId`.
    pub fn upsert(&self, collection: &str, ids: &[u64], vectors: &[f32], dim: usize) -> Result<()> {
        names::check_collection(collection)?;
        names::check_rows(ids, vectors, dim)?;
        let mut collections = self.held();
        let known = collections.get(collection).map(|there| there.dim);
        if let Some(known) = known.filter(|&known| known != dim) {
            return Err(Error::new(
                ErrorKind::DimensionMismatch,
                format!("vectors must have {known} dimensions like collection {collection:?}, got {dim}"),
            ));
        }
        let there = collections.entry(collection.to_owned()).or_default();
        there.dim = dim;
        for (&id, vector) in ids.iter().zip(vectors.chunks_exact(dim)) {
            there.rows.insert(id, vector.into());
        }
        there.note(ids.to_vec());
        Ok(())
    }

    /// Removes the rows with these ids, as far as they are there, and says how many were.
    ///
    /// # Errors
    /// `UnknownCollection`.
    pub fn delete(&self, collection: &str, ids: &[u64]) -> Result<usize> {
        let mut collections = self.held();
        let names = collections.keys().cloned().collect::<Vec<_>>();
        let there = collections
            .get_mut(collection)
            .ok_or_else(|| names::unknown_collection(&self.name, collection, &names))?;
        let gone: Vec<u64> = ids.iter().copied().filter(|id| there.rows.remove(id).is_some()).collect();
        let count = gone.len();
        if count > 0 {
            there.note(gone);
        }
        Ok(count)
    }

    /// Removes a collection, and says whether it was there.
    pub fn drop_collection(&self, collection: &str) -> bool {
        self.held().remove(collection).is_some()
    }

    fn with<R>(&self, collection: &str, look: impl FnOnce(&Collection) -> R) -> Result<R> {
        let collections = self.held();
        match collections.get(collection) {
            Some(there) => Ok(look(there)),
            None => {
                let names = collections.keys().cloned().collect::<Vec<_>>();
                Err(names::unknown_collection(&self.name, collection, &names))
            }
        }
    }

    fn description(&self, collection: &str, there: &Collection) -> Description {
        Description {
            dim: there.dim,
            rows: there.rows.len(),
            generation: Generation::Number(there.generation),
            metric: None,
            source: format!("local://{:032x}/{}", self.instance, names::encode(collection)),
        }
    }
}

impl Backend for LocalBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn collections(&self) -> Result<Vec<String>> {
        Ok(self.held().keys().cloned().collect())
    }

    fn describe(&self, collection: &str) -> Result<Description> {
        self.with(collection, |there| self.description(collection, there))
    }

    fn generation(&self, collection: &str) -> Result<Generation> {
        self.with(collection, |there| Generation::Number(there.generation))
    }

    fn is_quick(&self) -> bool {
        true
    }

    fn pull(&self, collection: &str, sink: &mut dyn Sink, job: &Job) -> Result<()> {
        // The rows are shared, not copied, so that nobody who writes waits for the sink.
        let (description, rows) = self.with(collection, |there| {
            let rows: Vec<(u64, Arc<[f32]>)> =
                there.rows.iter().map(|(&id, row)| (id, row.clone())).collect();
            (self.description(collection, there), rows)
        })?;
        sink.begin(&description)?;
        for piece in rows.chunks(PIECE) {
            job.check()?;
            let ids = piece.iter().map(|(id, _)| *id).collect();
            let vectors = piece.iter().flat_map(|(_, row)| row.iter().copied()).collect();
            sink.push(Rows { ids: Ids::Numbers(ids), vectors })?;
        }
        Ok(())
    }

    fn changes(&self, collection: &str, since: &Generation) -> Result<Option<Changes>> {
        self.few_changes(collection, since, usize::MAX)
    }

    fn few_changes(&self, collection: &str, since: &Generation, rows: usize) -> Result<Option<Changes>> {
        let Generation::Number(since) = *since else { return Ok(None) };
        self.with(collection, |there| {
            let reaches = there.log.front().map_or(there.generation, |(first, _)| first - 1) <= since;
            if since > there.generation || !reaches {
                return None;
            }
            let later = there.log.iter().rev().take_while(|(generation, _)| *generation > since);
            if later.clone().map(|(_, ids)| ids.len()).sum::<usize>() > rows {
                return None;
            }
            let mut ids: Vec<u64> = later.flat_map(|(_, ids)| ids.iter().copied()).collect();
            ids.sort_unstable();
            ids.dedup();
            let (upserted, removed): (Vec<u64>, Vec<u64>) =
                ids.into_iter().partition(|id| there.rows.contains_key(id));
            let vectors =
                upserted.iter().filter_map(|id| there.rows.get(id)).flat_map(|row| row.iter().copied());
            Some(Changes {
                generation: Generation::Number(there.generation),
                upserts: Rows { vectors: vectors.collect(), ids: Ids::Numbers(upserted) },
                removed: Ids::Numbers(removed),
            })
        })
    }
}
