//! Searching: scan, refine, answer.
//!
//! One query after the other goes through the same steps, alone or with up to seven others that share each pass over
//! the codes:
//!
//! 1. The scan estimates every row from its sign bits and lets those survive whose lower bound is not above the worst
//!    of the best k so far ([`limnion_simd::scan`]).
//! 2. Whenever the survivors fill their buffer, they are drained: the k most promising first, so that the limit falls
//!    at once, then the rest as far as their bound still reaches it.
//! 3. A drained row is refined from all its bits, if it has more than one, and then from its original, if that is kept.
//!
//! What one query finds does not depend on which others run beside it, nor on the CPU.

use limnion_rabitq::Query;
use limnion_simd::{Bound, Level, Probe, Survivor, Survivors, prefetch, scan, scan_selected};
use limnion_types::{Hit, Job, Result};
use rayon::prelude::*;

use crate::codes::Codes;
use crate::exact::{Exact, hit, key_within, query_factor};
use crate::flat::FlatIndex;
use crate::params::{Plan, SearchOptions};
use crate::selection::Selection;
use crate::top::Top;

/// Survivors between two drains: few enough that the limit falls early, enough to find the most promising among.
const SURVIVORS: usize = 384;
/// Rows that are asked for ahead of their turn.
const AHEAD: usize = 3;
/// Rows of an exact scan that stay in cache while several queries look at them.
const TILE_ROWS: usize = 64;
/// Tables of the queries that share a pass stay within this, so that they fit the first-level cache.
const TABLE_BYTES: usize = 24 << 10;
const MAX_GROUP: usize = 8;
/// With so few rows allowed, their originals are looked at without asking the codes.
const FEW_ROWS: usize = 512;
/// So many rows in a run are measured in the time that it takes to prepare a query for codes.
const PREPARATION_ROWS: usize = 64;

impl FlatIndex {
    /// The nearest rows to `query`, best first; ties go to the lower id. On the calling thread.
    ///
    /// Cost: about 0.8 ns a row at 384 dimensions while the codes fit the cache, 1.5 ns beyond, and some 20 to 60 µs of
    /// refinement. Memory: a few tens of KiB, whatever the number of rows.
    ///
    /// # Errors
    /// `EmptyIndex`, `DimensionMismatch`, and `InvalidArgument` for a query or options that cannot be used.
    pub fn search(&self, query: &[f32], options: &SearchOptions<'_>) -> Result<Vec<Hit>> {
        let plan = self.plan(options)?;
        self.check_query(query)?;
        self.verify_for(plan)?;
        let mut searches = [Search::new(self, query, options, plan)];
        self.run(&mut searches, plan, options.selection);
        let [search] = searches;
        Ok(search.finish())
    }

    /// [`FlatIndex::search`] for each row of `queries`, parallel, with several queries a pass over the codes.
    ///
    /// # Errors
    /// As [`FlatIndex::search`], and `Cancelled`.
    pub fn search_batch(
        &self,
        queries: &[f32],
        options: &SearchOptions<'_>,
        job: &Job,
    ) -> Result<Vec<Vec<Hit>>> {
        let plan = self.plan(options)?;
        let rows = self.check_queries(queries)?;
        self.verify_for(plan)?;
        let by_cache = (TABLE_BYTES / (4 * self.dim.next_multiple_of(64))).clamp(1, MAX_GROUP);
        let group = rows.len().div_ceil(rayon::current_num_threads()).clamp(1, by_cache);
        let groups: Vec<Vec<Vec<Hit>>> = queries
            .par_chunks(group * self.dim)
            .map(|group| {
                job.check()?;
                let mut searches: Vec<_> = group
                    .chunks_exact(self.dim)
                    .map(|query| Search::new(self, query, options, plan))
                    .collect();
                self.run(&mut searches, plan, options.selection);
                job.advance(searches.len() as u64);
                Ok(searches.into_iter().map(Search::finish).collect())
            })
            .collect::<Result<_>>()?;
        Ok(groups.into_iter().flatten().collect())
    }

    fn plan(&self, options: &SearchOptions<'_>) -> Result<Plan> {
        let plan = options.plan(&self.params)?;
        let few = match options.selection {
            Some(selection) => selection.len() <= FEW_ROWS.max(options.k.saturating_mul(4)),
            None => self.len() <= PREPARATION_ROWS,
        };
        Ok(if few && self.originals.is_some() { Plan::Exact } else { plan })
    }

    fn verify_for(&self, plan: Plan) -> Result<()> {
        if let (Some(codes), true) = (&self.codes, plan != Plan::Exact) {
            codes.verify()?;
        }
        if let (Some(originals), true) = (&self.originals, plan != Plan::Estimate) {
            originals.verify()?;
        }
        self.inverse_lengths.as_ref().map_or(Ok(()), |kept| kept.verify("lengths"))?;
        self.ids.list().map_or(Ok(()), |list| list.verify("ids"))
    }

    /// Runs searches with one plan and one selection.
    fn run(&self, searches: &mut [Search<'_>], plan: Plan, selection: Option<&Selection>) {
        match (plan, &self.codes) {
            (Plan::Exact, _) | (_, None) => match selection {
                None => self.scan_originals(searches),
                Some(selection) => searches.iter_mut().for_each(|search| search.measure(selection.rows())),
            },
            (_, Some(codes)) => scan_codes(codes, searches, selection),
        }
    }

    fn scan_originals(&self, searches: &mut [Search<'_>]) {
        let mut keys = [0.0; TILE_ROWS];
        for first in (0..self.len()).step_by(TILE_ROWS) {
            let Some(keys) = keys.get_mut(..TILE_ROWS.min(self.len() - first)) else { return };
            for search in searches.iter_mut() {
                let Some(exact) = &search.exact else { continue };
                exact.keys(first as u32, keys);
                for (row, &mut key) in (first as u32..).zip(&mut *keys) {
                    search.top.offer(key, || self.ids.id(row));
                }
            }
        }
    }
}

fn scan_codes(codes: &Codes, searches: &mut [Search<'_>], selection: Option<&Selection>) {
    let (level, shape, blocks) = (Level::current(), *codes.shape(), codes.block_bytes());
    let end = selection.map_or(codes.block_count(), |selection| selection.blocks.len());
    let mut next = 0;
    while next < end {
        let mut probes: Vec<Probe<'_>> = searches.iter_mut().filter_map(Search::probe).collect();
        next = match selection {
            None => scan(level, shape, blocks, 0, next..end, &mut probes),
            Some(selection) => {
                let rest = selection.blocks.get(next..).unwrap_or_default();
                next + scan_selected(level, shape, blocks, 0, rest, &mut probes)
            }
        };
        for search in searches.iter_mut() {
            search.drain(next == end);
        }
    }
}

/// One query on its way.
struct Search<'a> {
    index: &'a FlatIndex,
    plan: Plan,
    radius: Option<f32>,
    top: Top,
    exact: Option<Exact<'a>>,
    coded: Option<Coded<'a>>,
}

/// What a query needs for the codes.
struct Coded<'a> {
    codes: &'a Codes,
    query: Query,
    lengths: (f32, f32),
    /// Estimates are keys in scaled units: keys times this.
    unit: f32,
    survivors: Survivors,
    /// Survivors in the order in which they are refined; under [`Plan::Budget`] all that may still be.
    pending: Vec<Survivor>,
    /// The worst estimate that [`Plan::Budget`] still takes.
    budget_limit: f32,
}

impl<'a> Search<'a> {
    fn new(index: &'a FlatIndex, query: &'a [f32], options: &SearchOptions<'_>, plan: Plan) -> Self {
        let SearchOptions { k, radius, .. } = *options;
        let coded = match (plan, &index.codes) {
            (Plan::Exact, _) | (_, None) => None,
            (_, Some(codes)) => Some(Coded::new(codes, index, query, k)),
        };
        let limit = radius.map_or(f32::MAX, |radius| key_within(index.params.metric, radius));
        Self { index, plan, radius, top: Top::new(k, limit), exact: Exact::new(index, query), coded }
    }

    /// The query's part of the next pass over the codes.
    fn probe(&mut self) -> Option<Probe<'_>> {
        let coded = self.coded.as_mut()?;
        let (threshold, g_error) = match self.plan {
            Plan::Bounded(sureness) => {
                let bound = coded.bound(&self.top, Some(sureness));
                (bound.limit, bound.reach)
            }
            Plan::Budget(_) => (coded.budget_limit, 0.0),
            Plan::Estimate | Plan::Exact => (coded.limit(&self.top), 0.0),
        };
        let Coded { query, survivors, .. } = coded;
        let bound =
            Bound { scale: query.lut().step(), bias: query.bias(), g_add: query.g_add(), g_error, threshold };
        Some(Probe { lut: query.lut(), bound, survivors })
    }

    /// Works off the survivors once there is no room for more, or at the end.
    fn drain(&mut self, end: bool) {
        let Self { index, plan, top, exact, coded: Some(coded), .. } = self else { return };
        if !end && !coded.survivors.is_full() {
            return;
        }
        let survivors = coded.survivors.as_slice();
        match *plan {
            Plan::Estimate | Plan::Exact => {
                for survivor in survivors {
                    top.offer(survivor.estimate / coded.unit, || index.ids.id(survivor.row));
                }
            }
            Plan::Bounded(sureness) => {
                let refine = Refine { index, exact: exact.as_ref(), sureness: Some(sureness) };
                let mut pending = std::mem::take(&mut coded.pending);
                pending.extend_from_slice(survivors);
                if pending.len() > top.k().saturating_mul(2) {
                    pending.select_nth_unstable_by(top.k() - 1, most_promising);
                    let rest = pending.split_off(top.k());
                    refine.rows(&pending, coded, top);
                    pending = rest;
                }
                // Only now that the limit has fallen is it worth asking memory for the others.
                let bound = coded.bound(top, Some(sureness));
                pending.retain(|survivor| bound.admits(survivor.estimate, survivor.error));
                refine.rows(&pending, coded, top);
                pending.clear();
                coded.pending = pending;
            }
            Plan::Budget(rows) => {
                coded.pending.extend_from_slice(survivors);
                if end || coded.pending.len() >= rows.saturating_mul(2).max(SURVIVORS) {
                    coded.keep_best(rows);
                }
                if end {
                    let refine = Refine { index, exact: exact.as_ref(), sureness: None };
                    refine.rows(&coded.pending, coded, top);
                }
            }
        }
        coded.survivors.clear();
    }

    /// Measures rows against their originals.
    fn measure(&mut self, rows: impl Iterator<Item = u32>) {
        let Some(exact) = &self.exact else { return };
        // A selection may be older than the index, and name rows that are gone.
        let rows: Vec<u32> = rows.filter(|&row| (row as usize) < self.index.len()).collect();
        for (at, &row) in rows.iter().enumerate() {
            if let Some(&later) = rows.get(at + AHEAD) {
                exact.prefetch(later);
            }
            self.top.offer(exact.key(row), || self.index.ids.id(row));
        }
    }

    fn finish(self) -> Vec<Hit> {
        let metric = self.index.params.metric;
        let hits = self.top.into_sorted().into_iter().map(|ranked| hit(metric, ranked));
        hits.filter(|hit| self.radius.is_none_or(|radius| hit.distance <= radius)).collect()
    }
}

fn most_promising(a: &Survivor, b: &Survivor) -> std::cmp::Ordering {
    a.estimate.total_cmp(&b.estimate).then(a.row.cmp(&b.row))
}

impl<'a> Coded<'a> {
    fn new(codes: &'a Codes, index: &FlatIndex, query: &[f32], k: usize) -> Self {
        let level = Level::current();
        let factor = query_factor(index.params.metric, level, query);
        let scale = codes.quantizer().scale();
        Self {
            codes,
            query: Query::new(codes.quantizer(), level, query, factor),
            lengths: codes.lengths(),
            unit: scale * scale,
            survivors: Survivors::new(SURVIVORS.max(k.saturating_mul(4)).min(index.len())),
            pending: Vec::new(),
            budget_limit: f32::MAX,
        }
    }

    fn limit(&self, top: &Top) -> f32 {
        (top.limit() * self.unit).min(f32::MAX)
    }

    /// What rules rows out while `top` is as it is; nothing does without a sureness.
    fn bound(&self, top: &Top, sureness: Option<f32>) -> Refinable {
        match sureness {
            None => Refinable { limit: f32::INFINITY, reach: 0.0 },
            Some(sureness) => {
                let limit = self.limit(top);
                Refinable { limit, reach: sureness * self.query.reach(limit, self.lengths) }
            }
        }
    }

    /// Keeps the most promising rows.
    fn keep_best(&mut self, rows: usize) {
        if let Some(last) = rows.checked_sub(1).filter(|&last| last < self.pending.len()) {
            let (_, worst, _) = self.pending.select_nth_unstable_by(last, most_promising);
            self.budget_limit = worst.estimate;
            self.pending.truncate(rows);
        }
    }
}

/// Which estimates still deserve a closer look.
struct Refinable {
    limit: f32,
    reach: f32,
}

impl Refinable {
    fn admits(&self, estimate: f32, error: f32) -> bool {
        estimate - error * self.reach <= self.limit
    }
}

/// Looks more closely at rows; with a sureness, only at those that their bound does not rule out.
struct Refine<'a> {
    index: &'a FlatIndex,
    exact: Option<&'a Exact<'a>>,
    sureness: Option<f32>,
}

impl Refine<'_> {
    fn rows(&self, rows: &[Survivor], coded: &Coded<'_>, top: &mut Top) {
        let level = Level::current();
        let several_bits = coded.codes.quantizer().bits() > 1;
        let mut signs = vec![0; if several_bits { coded.codes.shape().code_bytes() } else { 0 }];
        let mut limit = top.limit();
        let mut bound = coded.bound(top, self.sureness);
        let fetch = |survivor: &Survivor| match self.exact {
            Some(exact) if !several_bits => exact.prefetch(survivor.row),
            _ => prefetch(coded.codes.extra_row(survivor.row)),
        };
        rows.iter().take(AHEAD).for_each(fetch);
        for (at, survivor) in rows.iter().enumerate() {
            rows.get(at + AHEAD).into_iter().for_each(fetch);
            if limit != top.limit() {
                limit = top.limit();
                bound = coded.bound(top, self.sureness);
            }
            if !bound.admits(survivor.estimate, survivor.error) {
                continue;
            }
            let id = || self.index.ids.id(survivor.row);
            if several_bits {
                coded.codes.read_signs(survivor.row, &mut signs);
                let extra = coded.codes.extra_row(survivor.row);
                let (estimate, error) = coded.query.estimate(level, &signs, extra, survivor.error);
                if self.exact.is_none() {
                    top.offer(estimate / coded.unit, id);
                }
                if !bound.admits(estimate, error) {
                    continue;
                }
            }
            if let Some(exact) = self.exact {
                top.offer(exact.key(survivor.row), id);
            }
        }
    }
}
