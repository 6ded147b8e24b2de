//! How sure the bounds of a flat index have to be for a recall: found out on the data itself, when a recall is first asked
//! for.
//!
//! The sureness of a bound is about a row at the very edge of an answer. Most neighbours are nearer than that, and the limit
//! is looser while a search is under way, so that far more of them are found; how many more depends on the data. Some rows
//! serve as queries: searches at a few surenesses are held against one that misses next to nothing.

use limnion_rabitq::{SplitMix64, sureness};
use limnion_types::{Job, Result};
use rayon::prelude::*;

use crate::flat::FlatIndex;
use crate::input::Rows;
use crate::params::{Plan, SearchOptions};

/// The surenesses that are tried, as the recall that each promises of a row at the edge.
const PROMISES: [f32; 6] = [0.5, 0.65, 0.8, 0.9, 0.96, 0.99];
/// How many numbers a calibration has.
pub(crate) const LEVELS: usize = PROMISES.len();
/// What next to nothing is missed with.
const NEARLY_ALL: f32 = 0.9999;
/// Beyond this recall there is no measuring: the promise for the edge is kept instead.
pub(crate) const MEASURED: f32 = 0.999;
/// So many neighbours of each row are looked at.
const DEPTH: usize = 10;
/// The most rows that serve as queries.
const QUERIES: usize = 192;
/// The fewest.
const FEW_QUERIES: usize = 32;
/// Codes that may be scanned for all of it: some tenths of a second.
const SCANS: usize = 1 << 29;
/// So much of what may be missed is not, as the number of queries is not large.
const MARGIN: f32 = 0.06;

/// The shares of neighbours that were found at each of [`PROMISES`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Calibration {
    pub(crate) found: [f32; LEVELS],
}

impl Calibration {
    /// How sure the bounds have to be for a recall.
    pub(crate) fn sureness(&self, recall: f32) -> f32 {
        if recall > MEASURED {
            return sureness(recall);
        }
        let wanted = nines(recall + MARGIN * (1.0 - recall));
        // A line through (promise, found) in numbers of nines, from (0, 0) on.
        let known = PROMISES.iter().zip(&self.found).map(|(&promise, &found)| (nines(promise), nines(found)));
        let (mut before, mut promised) = ((0.0, 0.0), None);
        for (promise, found) in known {
            // What is found never falls with what is promised, but for chance.
            let found = found.max(before.1).max(promise);
            if wanted <= found {
                let share = if found > before.1 { (wanted - before.1) / (found - before.1) } else { 1.0 };
                promised = Some(before.0 + share * (promise - before.0));
                break;
            }
            before = (promise, found);
        }
        let promised = promised.unwrap_or(before.0 + (wanted - before.1));
        sureness((1.0 - (-promised).exp()).min(recall))
    }
}

/// How many nines a share has: 0.9 has ln 10.
fn nines(share: f32) -> f32 {
    -(1.0 - share.min(0.999_95)).ln()
}

impl FlatIndex {
    /// Finds out now what a recall takes on these data, rather than with the first search that names one. Parallel within a
    /// pool of threads.
    ///
    /// Cost: some hundred searches, and never more than some tenths of a second. It is known from then on, and kept in the
    /// file, until a quarter of the rows are others.
    ///
    /// # Errors
    /// `Cancelled`, and `CorruptFile` where a mapped file turns out damaged.
    pub fn calibrate(&self, job: &Job) -> Result<()> {
        if !self.is_calibrated() && !self.is_empty() {
            self.verify()?;
            self.calibration(job)?;
        }
        Ok(())
    }

    /// Whether a search for a recall can begin at once.
    pub fn is_calibrated(&self) -> bool {
        self.calibration.get().is_some() || self.params.bits == 0 || !self.params.refines()
    }

    /// What is known of the bounds on these data, which is found out the first time. Whoever comes at the same time finds out
    /// the same: nobody waits for another, who may be a thread of this very pool.
    pub(crate) fn calibration(&self, job: &Job) -> Result<Calibration> {
        if let Some(known) = self.calibration.get() {
            return Ok(*known);
        }
        let found = self.measure(job)?;
        Ok(*self.calibration.get_or_init(|| found))
    }

    fn measure(&self, job: &Job) -> Result<Calibration> {
        let searches = SCANS / (self.len() * (LEVELS + 1)).max(1);
        let count = searches.clamp(FEW_QUERIES, QUERIES).min(self.len());
        let mut random = SplitMix64::new(self.params.seed);
        let rows: Vec<u32> = (0..count).map(|_| (random.next_u64() % self.len() as u64) as u32).collect();
        let queries = rows
            .iter()
            .map(|&row| self.reconstruct(self.table.ids.id(row)))
            .collect::<Result<Vec<_>>>()?
            .concat();
        // A code may say of a row what no query may be.
        let queries = Rows::only_good(&queries, self.dim(), self.params.metric);
        let groups: Vec<&[f32]> = queries.chunks(crate::flat::MAX_GROUP * self.dim()).collect();
        let count_of_group = |queries: &&[f32]| -> Result<[usize; LEVELS + 1]> {
            job.check()?;
            let truth = self.neighbours(queries, NEARLY_ALL);
            let mut counts = [0; LEVELS + 1];
            counts[LEVELS] = truth.iter().map(Vec::len).sum();
            for (count, promise) in counts.iter_mut().zip(PROMISES) {
                let found = self.neighbours(queries, promise);
                let of_query = |(truth, found): (&Vec<u64>, &Vec<u64>)| {
                    truth.iter().filter(|id| found.contains(id)).count()
                };
                *count = truth.iter().zip(&found).map(of_query).sum();
            }
            Ok(counts)
        };
        // Threads that are not of a pool of ours do the work themselves.
        let counts: Vec<[usize; LEVELS + 1]> = if rayon::current_thread_index().is_some() {
            groups.par_iter().map(count_of_group).collect::<Result<_>>()?
        } else {
            groups.iter().map(count_of_group).collect::<Result<_>>()?
        };
        let total = |at: usize| counts.iter().filter_map(|counts| counts.get(at)).sum::<usize>() as f32;
        let all = total(LEVELS).max(1.0);
        let mut found = [0.0; LEVELS];
        found.iter_mut().enumerate().for_each(|(at, found)| *found = total(at) / all);
        Ok(Calibration { found })
    }

    /// The nearest rows to each query, which is one of them, at a promise.
    fn neighbours(&self, queries: &[f32], promise: f32) -> Vec<Vec<u64>> {
        let (options, plan) = (SearchOptions::new(DEPTH + 1), Plan::Bounded(sureness(promise)));
        let hits = self.search_group(queries, &options, plan);
        hits.into_iter().map(|hits| hits.iter().skip(1).map(|hit| hit.id).collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_recall_is_never_less_sure_and_never_surer_than_at_the_edge() {
        for found in
            [[0.5, 0.65, 0.8, 0.9, 0.96, 0.99], [0.86, 0.91, 0.955, 0.982, 0.995, 0.9988], [1.0; 6], [0.0; 6]]
        {
            let calibration = Calibration { found };
            let mut last = 0.0;
            for step in 1..2000 {
                let recall = step as f32 / 2000.0;
                let sure = calibration.sureness(recall);
                assert!(sure >= last && sure <= sureness(recall) + 1e-4, "{recall}: {sure}");
                last = sure;
            }
        }
    }

    #[test]
    fn what_was_found_is_what_is_asked_for() {
        let calibration = Calibration { found: [0.86, 0.91, 0.955, 0.982, 0.995, 0.9988] };
        for (promise, found) in PROMISES.into_iter().zip(calibration.found).skip(1) {
            let sure = calibration.sureness(found - 0.06 * (1.0 - found));
            assert!((sure - sureness(promise)).abs() < 0.05, "{found}: {sure}");
        }
    }
}
