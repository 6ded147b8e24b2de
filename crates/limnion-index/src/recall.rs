//! What a search must do for a recall: found out on the data itself when the index is built.
//!
//! Some hundred rows serve as queries. For each neighbour of theirs, by a look into all lists, it is noted by how much the
//! score of its list was above the base, and above the limit ([`crate::probe`] has the words); the share of neighbours
//! within a margin is the recall of a search that keeps to it.

use limnion_rabitq::{Query, SplitMix64};
use limnion_types::Result;
use rayon::prelude::*;

use crate::ivf::IvfIndex;
use crate::params::Plan;
use crate::probe::{Scores, mean_score};
use crate::stage::Stage;

/// Rows that serve as queries.
const QUERIES: usize = 1024;
/// So many neighbours of each are looked at: a search for more, or among fewer rows, needs a wider margin.
pub(crate) const DEPTHS: [usize; 4] = [1, 10, 100, 1000];
/// One query in so many is asked for the deepest, the others for the one before.
const DEEP: usize = 16;
/// The fewest neighbours that are looked at, of however few rows.
const LEAST_DEPTH: usize = 10;
/// The recalls that are found out; between them the margin is read in a straight line.
pub(crate) const RECALLS: [f32; 12] = [0.5, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999];
/// How many margins there are: for each depth and recall, of the base and of the limit.
pub(crate) const MARGINS: usize = RECALLS.len() * DEPTHS.len() * 2;
/// Of what is not found, the share that is ruled out by the bounds of codes, and the most that ever is, of all. The rest
/// is missed with its list.
const BOUNDS: (f32, f32) = (0.15, 0.0075);
/// The probability that a row at the edge of an answer is ruled out, as a share of what is not found.
const RULED_OUT: f32 = 0.5;

/// The margins for all [`RECALLS`], in units of keys: those of the base for each depth, then those of the limit. Empty where
/// nothing is known: then all lists are looked into.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tuning {
    pub(crate) margins: Vec<f32>,
}

/// By how much the score of a list may exceed the base, or the limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Margin {
    pub(crate) of_base: f32,
    pub(crate) of_limit: f32,
}

impl Margin {
    pub(crate) const ANY: Self = Self { of_base: f32::MAX, of_limit: f32::MAX };

    /// In the units of codes, which are scaled.
    pub(crate) fn in_units(self, unit: f32) -> Self {
        Self { of_base: self.of_base * unit, of_limit: self.of_limit * unit }
    }
}

impl Tuning {
    /// Finds out on rows of the index, whose vectors and factors `point` knows.
    pub(crate) fn find<'a>(
        index: &IvfIndex,
        point: &(impl Fn(u32) -> Option<(&'a [f32], f32)> + Sync),
        stage: &Stage<'_>,
    ) -> Result<Self> {
        let rows = index.sample_rows();
        let stage = &stage.in_units(rows.len() as u64);
        let sureness = limnion_rabitq::sureness(0.999);
        let refines = index.params.flat().refines();
        let plan = if refines { Plan::Bounded(sureness) } else { Plan::Estimate };
        let seen: Vec<Seen> = rows
            .par_iter()
            .enumerate()
            .map(|(at, &row)| {
                stage.check()?;
                let depth = DEPTHS[DEPTHS.len() - if at % DEEP == 0 { 1 } else { 2 }];
                let seen = point(row).map(|point| index.see(point, row, depth, plan)).unwrap_or_default();
                stage.advance(1);
                Ok(seen)
            })
            .collect::<Result<_>>()?;
        let mut margins = Vec::with_capacity(MARGINS);
        for of_limit in [false, true] {
            for depth in DEPTHS {
                let seen = seen.iter().step_by(if depth == DEPTHS[DEPTHS.len() - 1] { DEEP } else { 1 });
                margins.extend(quantiles(seen.flat_map(|seen| seen.margins(depth, of_limit)).collect()));
            }
        }
        Ok(Self { margins })
    }

    /// The margins for a recall of so many neighbours.
    pub(crate) fn margin(&self, recall: f32, depth: f32) -> Margin {
        if self.margins.len() != MARGINS {
            return Margin::ANY;
        }
        let depths = DEPTHS.map(|depth| (depth as f32).ln());
        let depth = depth.max(1.0).ln();
        let low = depths.partition_point(|&known| known <= depth).clamp(1, DEPTHS.len() - 1) - 1;
        // Beyond the last depth the line goes on.
        let share = (depth - depths[low]) / (depths[low + 1] - depths[low]);
        let at = |run: usize| between(self.at(run + low, recall), self.at(run + low + 1, recall), share);
        Margin { of_base: at(0), of_limit: at(DEPTHS.len()) }
    }

    /// A margin of one run of [`RECALLS`].
    fn at(&self, run: usize, recall: f32) -> f32 {
        let run = self.margins.get(run * RECALLS.len()..).unwrap_or_default();
        let above = RECALLS.partition_point(|&known| known < recall).min(RECALLS.len() - 1);
        let below = above.saturating_sub(1);
        let (Some(&low), Some(&high)) = (run.get(below), run.get(above)) else { return f32::MAX };
        let nines = |recall: f32| -(1.0 - recall.min(0.9999)).ln();
        let (from, to) = (nines(RECALLS[below]), nines(RECALLS[above]));
        between(
            low,
            high,
            if to > from { ((nines(recall) - from) / (to - from)).clamp(0.0, 1.0) } else { 0.0 },
        )
    }

    /// How sure the bounds of codes are to be for a recall.
    pub(crate) fn bound_recall(recall: f32) -> f32 {
        1.0 - (1.0 - recall) * RULED_OUT
    }
}

fn between(low: f32, high: f32, share: f32) -> f32 {
    low + (high - low) * share
}

/// The values that the shares of [`RECALLS`] are within.
fn quantiles(mut values: Vec<f32>) -> [f32; RECALLS.len()] {
    values.sort_unstable_by(f32::total_cmp);
    RECALLS.map(|recall| {
        let loss = f64::from(1.0 - recall);
        let covered = 1.0 - (loss - (loss * f64::from(BOUNDS.0)).min(f64::from(BOUNDS.1)));
        let at = (covered * values.len() as f64) as usize;
        values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(f32::MAX)
    })
}

/// The neighbours of a row, nearest first, each with its key and the score of its list, and the base.
#[derive(Default)]
struct Seen {
    base: f32,
    neighbours: Vec<(f32, f32)>,
}

impl Seen {
    /// By how much the lists of so many neighbours exceed the base, or the limit of a search for them.
    fn margins(&self, depth: usize, of_limit: bool) -> impl Iterator<Item = f32> {
        let neighbours = self.neighbours.get(..depth.min(self.neighbours.len())).unwrap_or_default();
        let limit = neighbours.last().map_or(0.0, |(key, _)| *key);
        let from = if of_limit { limit } else { self.base };
        neighbours.iter().map(move |(_, score)| score - from)
    }
}

impl IvfIndex {
    /// The rows that serve as queries.
    pub(crate) fn sample_rows(&self) -> Vec<u32> {
        let mut random = SplitMix64::new(self.params.seed);
        (0..QUERIES.min(self.len())).map(|_| (random.next_u64() % self.len() as u64) as u32).collect()
    }

    fn see(&self, (vector, factor): (&[f32], f32), row: u32, depth: usize, plan: Plan) -> Seen {
        let depth = depth.min(self.len() / 20).max(LEAST_DEPTH);
        let mut others = self.find_all(vector, depth + 1, plan);
        others.retain(|(other, _)| *other != row);
        let scale = self.codes.quantizer().scale();
        let unit = scale * scale;
        let query = Query::new(self.codes.quantizer(), limnion_simd::Level::current(), vector, factor);
        let mut best = Scores::estimate(self, &query, (vector, factor)).best(usize::MAX);
        let base = mean_score(&mut best);
        let mut scores = vec![0.0; self.lists.len()];
        for candidate in &best {
            if let Some(score) = scores.get_mut(candidate.number as usize) {
                *score = candidate.score;
            }
        }
        let score = |row: u32| {
            let list = self.lists.list_of(self.lists.place(row))?;
            scores.get(list).copied()
        };
        let neighbours = others.iter().filter_map(|&(row, key)| Some((key, score(row)? / unit)));
        Seen { base: base / unit, neighbours: neighbours.collect() }
    }
}
