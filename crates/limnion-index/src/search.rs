//! Searching: scan, refine, answer.
//!
//! One query after the other goes through the same steps, alone or with up to seven others that share each pass over
//! the codes:
//!
//! 1. The scan estimates rows from their sign bits and lets those survive whose lower bound is not above the worst
//!    of the best k so far ([`limnion_simd::scan`]).
//! 2. Whenever there are enough survivors, they are drained: the k most promising first, so that the limit falls
//!    at once, then the rest as far as their bound still reaches it.
//! 3. A drained row is refined from all its bits, if it has more than one, and then from its original, if that is kept.
//!
//! The rows lie in one list (a flat index) or in many, each around a centre of its own; a search enters the lists that it
//! looks into one after the other. What one query finds does not depend on which others run beside it, nor on the CPU.

use std::collections::VecDeque;

use limnion_rabitq::{Query, Standing};
use limnion_simd::{Bound, Level, Probe, Survivor, Survivors, prefetch, scan, scan_selected};
use limnion_types::Hit;

use crate::codes::Codes;
use crate::digest::{Digest, Guesses};
use crate::exact::{Exact, hit, key_within, query_factor};
use crate::params::Plan;
use crate::selection::Selection;
use crate::table::Table;
use crate::top::{Ranked, Top};

/// Survivors between two drains: few enough that the limit falls early, enough to find the most promising among.
const SURVIVORS: usize = 384;
/// Rows that are asked for ahead of their turn: originals, which are long, and further bits.
const AHEAD: usize = 3;
const EXTRA_AHEAD: usize = 8;
/// Rows of an exact scan that stay in cache while several queries look at them.
const TILE_ROWS: usize = 64;
/// With so few rows allowed, their originals are looked at without asking the codes.
pub(crate) const FEW_ROWS: usize = 2048;
/// So many rows in a run are measured in the time that it takes to prepare a query for codes.
pub(crate) const PREPARATION_ROWS: usize = 64;
/// The place in the codes of no row.
pub(crate) const NO_ROW: u32 = u32::MAX;

/// Measures all rows against their originals.
pub(crate) fn scan_originals(table: &Table, searches: &mut [Search<'_>]) {
    let mut keys = [0.0; TILE_ROWS];
    for first in (0..table.len()).step_by(TILE_ROWS) {
        let Some(keys) = keys.get_mut(..TILE_ROWS.min(table.len() - first)) else { return };
        for search in searches.iter_mut() {
            let Some(exact) = &search.exact else { continue };
            exact.keys(first as u32, keys);
            for (row, &mut key) in (first as u32..).zip(&mut *keys) {
                search.top.offer(key, || table.ids.id(row));
            }
        }
    }
}

/// Runs searches over all codes, or the selected ones, as one list.
pub(crate) fn scan_codes(codes: &Codes, searches: &mut [Search<'_>], selection: Option<&Selection>) {
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
            if next == end || search.is_full() {
                search.collect();
                search.drain(next == end);
            }
        }
    }
}

/// One query on its way.
pub(crate) struct Search<'a> {
    table: &'a Table,
    plan: Plan,
    radius: Option<f32>,
    top: Top,
    exact: Option<Exact<'a>>,
    coded: Option<Coded<'a>>,
    /// Rows that were looked at more closely than their sign bits.
    refined: usize,
}

/// What a query needs for the codes.
struct Coded<'a> {
    codes: &'a Codes,
    /// The row in each place of the codes; none where the places are the rows' numbers.
    rows: Option<&'a [u32]>,
    /// The place of each row that is scanned, where copies of its codes are.
    places: Option<&'a [u32]>,
    query: Query,
    /// Estimates are keys in scaled units: keys times this.
    unit: f32,
    /// The lists that were entered; the last one is the one that is scanned.
    entered: Vec<Entered>,
    survivors: Survivors,
    /// Survivors in the order in which they are refined; under [`Plan::Budget`] all that may still be.
    pending: Vec<Candidate>,
    /// The worst estimate that [`Plan::Budget`] still takes.
    budget_limit: f32,
    /// Sign bits of the row that is refined.
    signs: Vec<u8>,
    /// Rows whose originals are on their way from memory.
    coming: VecDeque<Candidate>,
}

/// A list that a search looks into.
struct Entered {
    standing: Standing,
    /// The least and the largest ‖r‖ of its rows, in scaled units.
    lengths: (f32, f32),
    /// The reach for the limit that it was last asked for.
    limit: f32,
    reach: f32,
}

/// A survivor, with the list that it is of.
#[derive(Clone, Copy)]
struct Candidate {
    place: u32,
    estimate: f32,
    error: f32,
    list: u32,
}

impl<'a> Search<'a> {
    pub(crate) fn new(table: &'a Table, query: &'a [f32], k: usize, radius: Option<f32>, plan: Plan) -> Self {
        let limit = radius.map_or(f32::MAX, |radius| key_within(table.metric, radius));
        let (top, exact) = (Top::new(k, limit), Exact::new(table, query));
        Self { table, plan, radius, top, exact, coded: None, refined: 0 }
    }

    /// Prepares the query for codes; `rows` are the rows in their places, where those are not the rows' numbers.
    pub(crate) fn use_codes(&mut self, codes: &'a Codes, query: &[f32], rows: Option<&'a [u32]>) {
        let level = Level::current();
        let factor = query_factor(self.table.metric, level, query);
        let scale = codes.quantizer().scale();
        self.coded = Some(Coded {
            codes,
            rows,
            places: None,
            query: Query::new(codes.quantizer(), level, query, factor),
            unit: scale * scale,
            entered: Vec::new(),
            survivors: Survivors::new(SURVIVORS.max(self.top.k().saturating_mul(4)).min(self.table.len())),
            pending: Vec::new(),
            budget_limit: f32::MAX,
            signs: vec![0; if codes.quantizer().bits() > 1 { codes.shape().code_bytes() } else { 0 }],
            coming: VecDeque::new(),
        });
    }

    /// From now on copies of codes are scanned, which come from these places.
    pub(crate) fn scan_copies(&mut self, places: Option<&'a [u32]>) {
        if let Some(coded) = &mut self.coded {
            coded.places = places;
        }
    }

    /// The query as codes want it, where the search is over codes.
    pub(crate) fn query(&self) -> Option<&Query> {
        self.coded.as_ref().map(|coded| &coded.query)
    }

    /// How many hits it is for.
    pub(crate) fn k(&self) -> usize {
        self.top.k()
    }

    /// Whether it has found as many rows, drained ones alone.
    pub(crate) fn has_k(&self) -> bool {
        self.top.is_full()
    }

    /// Whether hits may be no farther than a radius.
    pub(crate) fn has_radius(&self) -> bool {
        self.radius.is_some()
    }

    /// The limit in units of estimates.
    pub(crate) fn limit(&self) -> f32 {
        self.coded.as_ref().map_or(f32::MAX, |coded| coded.limit(&self.top))
    }

    /// How many rows were looked at more closely than their sign bits.
    pub(crate) fn refined(&self) -> usize {
        self.refined
    }

    /// From now on the codes that are scanned are those of another list, whose rows have these least and largest ‖r‖².
    pub(crate) fn enter(&mut self, standing: Standing, squares: (f32, f32)) {
        let lengths = (squares.0.sqrt(), squares.1.sqrt());
        if let Some(coded) = &mut self.coded {
            coded.entered.push(Entered { standing, lengths, limit: f32::NAN, reach: 0.0 });
        }
    }

    /// The query's part of the next pass over the codes of the list that was entered last.
    pub(crate) fn probe(&mut self) -> Option<Probe<'_>> {
        let coded = self.coded.as_mut()?;
        let limit = coded.limit(&self.top);
        let list = coded.entered.last_mut()?;
        let (threshold, g_error) = match self.plan {
            Plan::Bounded(sureness) => (limit, sureness * list.reach(limit)),
            Plan::Budget(_) => (coded.budget_limit, 0.0),
            Plan::Estimate | Plan::Exact => (limit, 0.0),
        };
        let (g_add, query) = (list.standing.g_add(), &coded.query);
        let bound = Bound { scale: query.lut().step(), bias: query.bias(), g_add, g_error, threshold };
        Some(Probe { lut: query.lut(), bound, survivors: &mut coded.survivors })
    }

    /// Enters a list, and says what its rows have in place of the query's part of the bound.
    pub(crate) fn enter_among(&mut self, standing: Standing, squares: (f32, f32)) -> (f32, f32) {
        self.enter(standing, squares);
        let sureness = if let Plan::Bounded(sureness) = self.plan { sureness } else { 0.0 };
        let Some(coded) = &mut self.coded else { return (0.0, 0.0) };
        let limit = coded.limit(&self.top);
        let reach = coded.entered.last_mut().map_or(0.0, |list| list.reach(limit));
        (standing.g_add(), sureness * reach)
    }

    /// How many lists were entered.
    pub(crate) fn entered(&self) -> usize {
        self.coded.as_ref().map_or(0, |coded| coded.entered.len())
    }

    /// [`Search::collect`] after a pass over blocks of several lists: `list_of` names the list of each survivor by the
    /// order in which they were entered. It is asked for rising positions of the pass.
    pub(crate) fn collect_from(&mut self, mut list_of: impl FnMut(u32) -> usize) -> usize {
        let Some(coded) = &mut self.coded else { return 0 };
        for &Survivor { row, estimate, error } in coded.survivors.as_slice() {
            let (list, place) = (list_of(row) as u32, coded.place(row));
            coded.fetch(place);
            coded.pending.push(Candidate { place, estimate, error, list });
        }
        coded.survivors.clear();
        coded.pending.len()
    }

    /// Whether there is no room for further survivors.
    pub(crate) fn is_full(&self) -> bool {
        self.coded.as_ref().is_some_and(|coded| coded.survivors.is_full())
    }

    /// Notes of which list the survivors are, and makes room for others. Returns how many wait to be drained.
    pub(crate) fn collect(&mut self) -> usize {
        let Some(coded) = &mut self.coded else { return 0 };
        let list = coded.entered.len().saturating_sub(1) as u32;
        let candidates = coded
            .survivors
            .as_slice()
            .iter()
            .map(|&Survivor { row, estimate, error }| Candidate { place: row, estimate, error, list });
        coded.pending.extend(candidates);
        coded.survivors.clear();
        coded.pending.len()
    }

    /// Works off what was collected.
    pub(crate) fn drain(&mut self, end: bool) {
        let Self { table, plan, top, exact, coded: Some(coded), refined, .. } = self else { return };
        let mut pending = std::mem::take(&mut coded.pending);
        let mut refine = Refine { table, exact: exact.as_ref(), sureness: None, coded: &mut *coded, refined };
        match *plan {
            Plan::Estimate | Plan::Exact => {
                for candidate in &pending {
                    let row = refine.coded.row(candidate.place);
                    top.offer(candidate.estimate / refine.coded.unit, || table.ids.id(row));
                }
                pending.clear();
            }
            Plan::Bounded(sureness) => {
                refine.sureness = Some(sureness);
                if pending.len() > top.k().saturating_mul(2) {
                    pending.select_nth_unstable_by(top.k() - 1, most_promising);
                    let rest = pending.split_off(top.k());
                    refine.rows(&pending, top);
                    pending = rest;
                }
                // Only now that the limit has fallen is it worth asking memory for the others.
                let limit = refine.coded.limit(top);
                pending.retain(|candidate| refine.coded.admits(candidate, sureness, limit));
                refine.rows(&pending, top);
                pending.clear();
            }
            Plan::Budget(rows) => {
                if end || pending.len() >= rows.saturating_mul(2).max(SURVIVORS) {
                    refine.coded.keep_best(&mut pending, rows);
                }
                if end {
                    refine.rows(&pending, top);
                }
            }
        }
        coded.pending = pending;
    }

    /// Measures rows against their originals.
    pub(crate) fn measure(&mut self, rows: impl Iterator<Item = u32>) {
        let Some(exact) = &self.exact else { return };
        // A selection may be older than the index, and name rows that are gone.
        let rows: Vec<u32> = rows.filter(|&row| (row as usize) < self.table.len()).collect();
        for (at, &row) in rows.iter().enumerate() {
            if let Some(&later) = rows.get(at + AHEAD) {
                exact.prefetch(later);
            }
            self.top.offer(exact.key(row), || self.table.ids.id(row));
        }
        self.refined += rows.len();
    }

    /// Measures the rows of a selection against their originals; `row_of` names the row in each place.
    pub(crate) fn measure_selected(&mut self, selection: &Selection, row_of: impl Fn(u32) -> u32) {
        let few = selection.len() > self.top.k().saturating_mul(2) && selection.len() <= FEW_ROWS;
        match few.then(|| selection.digest(self.table, &row_of)).flatten() {
            Some(digest) => self.measure_among(digest),
            None => self.measure(selection.rows().map(row_of)),
        }
    }

    /// [`Search::measure`] of the rows of a digest: of those alone that may be among the best.
    fn measure_among(&mut self, digest: &Digest) {
        let Some(exact) = &self.exact else { return };
        let Guesses { keys, least } = exact.guess(digest);
        let mut best = Top::new(self.top.k(), f32::MAX);
        for (at, &key) in (0..).zip(&keys) {
            best.offer(key, || at);
        }
        let row = |at: usize| digest.rows().get(at).copied().unwrap_or(NO_ROW);
        let mut first: Vec<usize> = best.into_sorted().iter().map(|ranked| ranked.id as usize).collect();
        self.measure(first.iter().copied().map(row));
        first.sort_unstable();
        let (limit, mut measured) = (self.top.limit(), first.into_iter().peekable());
        let mut left = Vec::new();
        for (at, &least) in least.iter().enumerate() {
            let is_measured = measured.next_if_eq(&at).is_some();
            // What is not a number rules nothing out.
            if !(is_measured || least > limit) {
                left.push(row(at));
            }
        }
        self.measure(left.into_iter());
    }

    /// What was found, by keys.
    pub(crate) fn into_ranked(self) -> Vec<Ranked> {
        self.top.into_sorted()
    }

    pub(crate) fn finish(self) -> Vec<Hit> {
        let metric = self.table.metric;
        let hits = self.top.into_sorted().into_iter().map(|ranked| hit(metric, ranked));
        hits.filter(|hit| self.radius.is_none_or(|radius| hit.distance <= radius)).collect()
    }
}

fn most_promising(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    a.estimate.total_cmp(&b.estimate).then(a.place.cmp(&b.place))
}

impl Entered {
    /// What a row's `f_error` is to be multiplied by, beside the sureness, to bound it at a limit.
    fn reach(&mut self, limit: f32) -> f32 {
        if self.limit != limit {
            (self.limit, self.reach) = (limit, self.standing.reach(limit, self.lengths));
        }
        self.reach
    }
}

impl Coded<'_> {
    fn limit(&self, top: &Top) -> f32 {
        (top.limit() * self.unit).min(f32::MAX)
    }

    /// The place of a row that was scanned.
    fn place(&self, scanned: u32) -> u32 {
        self.places.map_or(scanned, |places| places.get(scanned as usize).copied().unwrap_or(NO_ROW))
    }

    /// Has what tells the row of a place fetched from memory.
    fn fetch(&self, place: u32) {
        let (rows, place) = (self.rows.unwrap_or_default(), place as usize);
        prefetch(bytemuck::cast_slice(rows.get(place..=place).unwrap_or_default()));
    }

    fn row(&self, place: u32) -> u32 {
        self.rows.map_or(place, |rows| rows.get(place as usize).copied().unwrap_or(NO_ROW))
    }

    /// Whether the bound of a candidate does not rule it out.
    fn admits(&mut self, candidate: &Candidate, sureness: f32, limit: f32) -> bool {
        let reach = self.entered.get_mut(candidate.list as usize).map_or(0.0, |list| list.reach(limit));
        candidate.estimate - candidate.error * (sureness * reach) <= limit
    }

    /// Keeps the most promising rows.
    fn keep_best(&mut self, pending: &mut Vec<Candidate>, rows: usize) {
        if let Some(last) = rows.checked_sub(1).filter(|&last| last < pending.len()) {
            let (_, worst, _) = pending.select_nth_unstable_by(last, most_promising);
            self.budget_limit = worst.estimate;
            pending.truncate(rows);
        }
    }
}

/// Looks more closely at rows; with a sureness, only at those that their bound does not rule out.
struct Refine<'a, 'b> {
    table: &'a Table,
    exact: Option<&'a Exact<'a>>,
    sureness: Option<f32>,
    coded: &'a mut Coded<'b>,
    refined: &'a mut usize,
}

impl Refine<'_, '_> {
    fn rows(&mut self, candidates: &[Candidate], top: &mut Top) {
        if self.coded.codes.quantizer().bits() > 1 {
            self.by_all_bits(candidates, top);
        } else if let Some(exact) = self.exact {
            self.by_originals(candidates, exact, top);
        }
    }

    /// Measures rows of one-bit codes.
    fn by_originals(&mut self, candidates: &[Candidate], exact: &Exact<'_>, top: &mut Top) {
        let fetch = |coded: &Coded<'_>, candidate: &Candidate| exact.prefetch(coded.row(candidate.place));
        candidates.iter().take(AHEAD).for_each(|candidate| fetch(self.coded, candidate));
        for (at, candidate) in candidates.iter().enumerate() {
            candidates.get(at + AHEAD).into_iter().for_each(|later| fetch(self.coded, later));
            if self.admits(candidate, top) {
                *self.refined += 1;
                self.offer(candidate, exact, top);
            }
        }
    }

    /// Estimates rows once more from all their bits, and measures those that this does not rule out.
    fn by_all_bits(&mut self, candidates: &[Candidate], top: &mut Top) {
        let (level, codes) = (Level::current(), self.coded.codes);
        let mut signs = std::mem::take(&mut self.coded.signs);
        let mut coming = std::mem::take(&mut self.coded.coming);
        let fetch = |candidate: &Candidate| prefetch(codes.extra_row(candidate.place));
        candidates.iter().take(EXTRA_AHEAD).for_each(fetch);
        for (at, candidate) in candidates.iter().enumerate() {
            candidates.get(at + EXTRA_AHEAD).into_iter().for_each(fetch);
            if !self.admits(candidate, top) {
                continue;
            }
            *self.refined += 1;
            let Some(list) = self.coded.entered.get(candidate.list as usize) else { continue };
            codes.read_signs(candidate.place, &mut signs);
            let extra = codes.extra_row(candidate.place);
            let (estimate, error) =
                self.coded.query.estimate(level, &list.standing, &signs, extra, candidate.error);
            let closer = Candidate { estimate, error, ..*candidate };
            let Some(exact) = self.exact else {
                let row = self.coded.row(candidate.place);
                top.offer(estimate / self.coded.unit, || self.table.ids.id(row));
                continue;
            };
            if self.admits(&closer, top) {
                exact.prefetch(self.coded.row(closer.place));
                coming.push_back(closer);
            }
            if coming.len() > AHEAD
                && let Some(next) = coming.pop_front()
                && self.admits(&next, top)
            {
                self.offer(&next, exact, top);
            }
        }
        if let Some(exact) = self.exact {
            for last in coming.drain(..) {
                if self.admits(&last, top) {
                    self.offer(&last, exact, top);
                }
            }
        }
        (self.coded.signs, self.coded.coming) = (signs, coming);
    }

    /// Whether the bound of a candidate does not rule it out.
    fn admits(&mut self, candidate: &Candidate, top: &Top) -> bool {
        let limit = self.coded.limit(top);
        self.sureness.is_none_or(|sureness| self.coded.admits(candidate, sureness, limit))
    }

    fn offer(&self, candidate: &Candidate, exact: &Exact<'_>, top: &mut Top) {
        let row = self.coded.row(candidate.place);
        top.offer(exact.key(row), || self.table.ids.id(row));
    }
}
