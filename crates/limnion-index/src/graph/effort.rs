//! How far a walk has to look for a recall: found out on the data itself when the index is built.
//!
//! Some hundred rows serve as queries, each as if it were not in the graph, and a look at all codes says what their
//! neighbours are. For each recall the smallest pool is sought whose walks find that share of them.

use limnion_rabitq::{Query, SplitMix64};
use limnion_simd::Level;
use limnion_types::{Job, Result};
use rayon::prelude::*;

use crate::exact::Exact;
use crate::graph::index::GraphIndex;
use crate::graph::sieve::Sieve;
use crate::graph::walk::Walk;
use crate::top::Top;

/// The recalls that are found out; between them the pool is read in a straight line.
const RECALLS: [f32; 6] = [0.8, 0.9, 0.95, 0.98, 0.99, 0.995];
/// For so many neighbours, and so many rows that serve as queries.
const DEPTHS: [(usize, usize); 2] = [(10, 400), (100, 64)];
/// How many pools there are.
pub(crate) const EFFORTS: usize = RECALLS.len() * DEPTHS.len();
/// Indexes of fewer rows are not worth a walk.
const FEWEST_ROWS: usize = 2000;
/// The pools that are tried, as a share of the neighbours that are sought: each a quarter more than the one before.
const TRIED: usize = 24;

/// How far one walk looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Effort {
    /// How many vertices it holds.
    pub(crate) pool: usize,
    /// At how many deviations a code rules its row out.
    pub(crate) sureness: f32,
}

/// The pools for all depths and recalls; empty where nothing is known: then all vertices are looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Efforts {
    pub(crate) pools: Vec<f32>,
}

/// At how many deviations codes rule rows out in a walk for a recall: a row may be found by another way later, and one
/// that is only near enough to lead on is not missed.
pub(crate) fn sureness(recall: f32) -> f32 {
    (0.28 * (nines(recall) - 1.0)).max(0.2)
}

fn nines(recall: f32) -> f32 {
    -(1.0 - recall.min(0.9999)).ln()
}

/// The share of the way from one number to another at which a third is; above 1 beyond.
fn share(from: f32, to: f32, at: f32) -> f32 {
    if to > from { ((at - from) / (to - from)).max(0.0) } else { 0.0 }
}

fn tried(depth: usize, at: usize) -> usize {
    (depth as f32 * 1.25_f32.powi(at as i32)) as usize
}

impl Efforts {
    /// How far to look for a recall of so many neighbours.
    pub(crate) fn of(&self, recall: f32, k: usize) -> Effort {
        let sureness = sureness(recall);
        if self.pools.len() != EFFORTS {
            return Effort { pool: usize::MAX, sureness };
        }
        let [(few, _), (many, _)] = DEPTHS;
        let (low, high) = (self.at(0, recall), self.at(1, recall));
        // Beyond the last depth the line goes on.
        let pool = low + (high - low).max(0.0) * share(few as f32, many as f32, k as f32);
        Effort { pool: (pool as usize).max(k), sureness }
    }

    /// A pool of one depth.
    fn at(&self, depth: usize, recall: f32) -> f32 {
        let pools = self.pools.get(depth * RECALLS.len()..).unwrap_or_default();
        let above = RECALLS.partition_point(|&known| known < recall).clamp(1, RECALLS.len() - 1);
        let (Some(&low), Some(&high)) = (pools.get(above - 1), pools.get(above)) else { return f32::MAX };
        low + (high - low).max(0.0)
            * share(nines(RECALLS[above - 1]), nines(RECALLS[above]), nines(recall)).min(4.0)
    }

    /// Finds out on rows of the index, whose vectors and factors `point` knows.
    pub(crate) fn find<'a>(
        index: &GraphIndex,
        point: &(impl Fn(u32) -> Option<(&'a [f32], f32)> + Sync),
        job: &Job,
    ) -> Result<Self> {
        if index.len() < FEWEST_ROWS {
            return Ok(Self::default());
        }
        let mut pools = Vec::with_capacity(EFFORTS);
        for (depth, count) in DEPTHS {
            let depth = depth.min(index.len() / 20);
            let samples: Vec<Sample<'_>> = index
                .sample_rows(count)
                .par_iter()
                .filter_map(|&row| Some((row, point(row)?)))
                .map(|(row, point)| {
                    job.check()?;
                    Ok(Sample::new(index, row, point, depth))
                })
                .collect::<Result<_>>()?;
            let mut least = 0;
            for recall in RECALLS {
                let is_enough = |at: usize| {
                    job.check()?;
                    let effort = Effort { pool: tried(depth, at), sureness: sureness(recall) };
                    let found = |sample: &Sample<'_>| sample.share_found(index, effort);
                    let total: f64 = samples.par_iter().map(found).collect::<Vec<f64>>().iter().sum();
                    Ok::<bool, limnion_types::Error>(total >= f64::from(recall) * samples.len() as f64)
                };
                // Small pools are tried first: a large one costs as much as many of them.
                let (mut low, mut step) = (least, 1);
                let mut high = least;
                while high < TRIED - 1 && !is_enough(high)? {
                    low = high + 1;
                    high = (high + step).min(TRIED - 1);
                    step *= 2;
                }
                while low < high {
                    let middle = usize::midpoint(low, high);
                    if is_enough(middle)? {
                        high = middle;
                    } else {
                        low = middle + 1;
                    }
                }
                least = low;
                pools.push(tried(depth, low) as f32);
            }
        }
        Ok(Self { pools })
    }
}

/// A row that serves as a query.
struct Sample<'a> {
    slot: u32,
    vector: &'a [f32],
    query: Query,
    /// The ids of its neighbours.
    neighbours: Vec<u64>,
}

impl<'a> Sample<'a> {
    fn new(index: &GraphIndex, row: u32, (vector, factor): (&'a [f32], f32), depth: usize) -> Self {
        let query = Query::new(index.records.quantizer(), Level::current(), vector, factor);
        let slot = index.places.slot(row);
        let exact = Exact::new(&index.table, vector);
        let walk = Walk::new(index, &query, exact.as_ref(), limnion_rabitq::sureness(0.999));
        let mut sieve = Sieve::new(index, &walk, exact.as_ref(), Top::new(depth, f32::MAX));
        sieve.scan((0..index.places.len() as u32).filter(|&other| other != slot));
        let neighbours = sieve.into_ranked().into_iter().map(|ranked| ranked.id).collect();
        Self { slot, vector, query, neighbours }
    }

    fn share_found(&self, index: &GraphIndex, effort: Effort) -> f64 {
        let exact = Exact::new(&index.table, self.vector);
        let walk = Walk::new(index, &self.query, exact.as_ref(), effort.sureness);
        let mut sieve = Sieve::new(index, &walk, exact.as_ref(), Top::new(self.neighbours.len(), f32::MAX));
        walk.run(effort.pool, Some(self.slot), |found, _| sieve.take(found));
        let found = sieve.into_ranked().iter().filter(|ranked| self.neighbours.contains(&ranked.id)).count();
        found as f64 / self.neighbours.len().max(1) as f64
    }
}

impl GraphIndex {
    /// So many rows, at random.
    pub(crate) fn sample_rows(&self, count: usize) -> Vec<u32> {
        let mut random = SplitMix64::new(self.params.seed);
        (0..count.min(self.len())).map(|_| (random.next_u64() % self.len() as u64) as u32).collect()
    }
}
