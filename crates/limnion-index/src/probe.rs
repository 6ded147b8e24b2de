//! Searching lists: which ones, and in which order.
//!
//! Each list has a score for a query: the squared distance of its centre and half the mean square of its residuals (rows
//! of a wide list are farther on average, yet some of them are near). The base of a search is the mean score of its best
//! lists; a list is looked into where its score is within a margin of the base, and the margin that a recall needs was
//! found out when the index was built ([`crate::recall`]). Where the rows that may be found are few or far, or no farther
//! than a radius, the margin counts from the limit of the search instead.
//!
//! Scores are estimated first, from one-bit codes of the centres by the table that serves the rows' codes too, and then
//! measured for those lists only that may be within the margin. The best lists come first, so that the limit falls early.

use limnion_rabitq::{Query, Standing};
use limnion_simd::{BlockShape, Bound, Level, ListBlock, Probe, Survivors, prefetch, scan, scan_lists};
use limnion_types::{Hit, Job, Result};
use rayon::prelude::*;

use crate::ivf::{IvfIndex, is_euclidean};
use crate::lists::List;
use crate::params::{Plan, check_hits, check_share, invalid};
use crate::recall::{Margin, Tuning};
use crate::search::{PREPARATION_ROWS, Search, scan_originals};
use crate::selection::Selection;

/// What a search finds unless it is told.
const DEFAULT_RECALL: f32 = 0.95;
/// How sure the bounds of codes are where the lists are counted.
const COUNTED_RECALL: f32 = 0.99;
/// Survivors that are worth a drain.
const ENOUGH: usize = 32;
/// The most lists that share a pass.
const MOST_LISTS: usize = 8;
/// The base of a search is the mean score of so many lists, the best.
pub(crate) const BASE_LISTS: usize = 10;
/// The lists that are measured for it.
const FIRST_LISTS: usize = BASE_LISTS + BASE_LISTS / 2;
/// How sure it has to be that a list beyond the margin is not within it, in deviations of its estimate.
const SURE_OF_LISTS: f32 = 1.0;
/// Under inner product, how much nearer the rows of a wide list count, in lengths of query times residual.
const WIDTH: f32 = 0.19;
/// Lists that are measured at a time, once the likely ones were not enough.
const FURTHER_LISTS: usize = 32;
/// With so few rows allowed, their originals are looked at without asking the codes.
const FEW_SELECTED: usize = 2048;

/// What one search in an [`IvfIndex`] asks for.
#[derive(Debug, Clone, Copy)]
pub struct IvfOptions<'a> {
    /// How many hits: at least 1. Fewer come back only when fewer rows match.
    pub k: usize,
    /// The share of the true neighbours to find, in (0, 1]: 0.95 unless told. 1.0 looks at every original. Where none are
    /// kept, the neighbours are those that a scan of all codes would find.
    pub recall: Option<f32>,
    /// Looks into exactly so many lists, the nearest, in place of a recall.
    pub nprobe: Option<u32>,
    /// The rows that may be found; all unless told.
    pub selection: Option<&'a Selection>,
    /// How far a hit may be, as [`limnion_types::Hit::distance`].
    pub radius: Option<f32>,
}

impl IvfOptions<'_> {
    /// The `k` nearest of all rows.
    pub fn new(k: usize) -> Self {
        Self { k, recall: None, nprobe: None, selection: None, radius: None }
    }
}

/// What a search did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Explanation {
    /// Lists it looked into.
    pub lists: usize,
    /// Rows whose codes were scanned, of those that may be found.
    pub scanned: usize,
    /// Rows that were looked at more closely than their sign bits.
    pub refined: usize,
}

/// Which lists to look into.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Aim {
    /// So many, the best.
    Best(usize),
    /// Those within the margins of a recall.
    Recall(f32),
    All,
}

/// A list that may be looked into, with its score.
#[derive(Clone, Copy)]
pub(crate) struct Candidate {
    pub(crate) score: f32,
    pub(crate) number: u32,
    pub(crate) standing: Standing,
}

impl IvfIndex {
    /// The nearest rows to `query`, best first; ties go to the lower id. On the calling thread.
    ///
    /// Cost: at 100,000 rows of 384 dimensions about 50 µs for a recall of 0.95; it grows with the root of the rows.
    ///
    /// # Errors
    /// `EmptyIndex`, `DimensionMismatch`, and `InvalidArgument` for a query or options that cannot be used.
    pub fn search(&self, query: &[f32], options: &IvfOptions<'_>) -> Result<Vec<Hit>> {
        Ok(self.search_explained(query, options)?.0)
    }

    /// [`IvfIndex::search`], and what it did.
    ///
    /// # Errors
    /// As [`IvfIndex::search`].
    pub fn search_explained(
        &self,
        query: &[f32],
        options: &IvfOptions<'_>,
    ) -> Result<(Vec<Hit>, Explanation)> {
        let (plan, aim) = self.plan(options)?;
        self.table.check_query(query)?;
        self.verify_for(plan != Plan::Estimate)?;
        Ok(self.run(query, options, plan, aim))
    }

    /// [`IvfIndex::search`] for each row of `queries`, parallel.
    ///
    /// # Errors
    /// As [`IvfIndex::search`], and `Cancelled`.
    pub fn search_batch(
        &self,
        queries: &[f32],
        options: &IvfOptions<'_>,
        job: &Job,
    ) -> Result<Vec<Vec<Hit>>> {
        let (plan, aim) = self.plan(options)?;
        let rows = self.table.check_queries(queries)?;
        self.verify_for(plan != Plan::Estimate)?;
        let queries: Vec<&[f32]> = rows.iter().collect();
        queries
            .par_iter()
            .map(|query| {
                job.check()?;
                let (hits, _) = self.run(query, options, plan, aim);
                job.advance(1);
                Ok(hits)
            })
            .collect()
    }

    fn plan(&self, options: &IvfOptions<'_>) -> Result<(Plan, Aim)> {
        let flat = self.params.flat();
        if options.nprobe == Some(0) {
            return Err(invalid("nprobe must be at least 1, got 0".to_owned()));
        }
        if options.nprobe.is_some() && options.recall.is_some() {
            return Err(invalid(
                "recall and nprobe are two ways to say how many lists to look into".to_owned(),
            )
            .suggest("give one of them"));
        }
        check_hits(options.k, options.radius)?;
        let recall = options.recall.unwrap_or(DEFAULT_RECALL);
        check_share(recall, &flat)?;
        let (aim, sure) = match options.nprobe {
            Some(nprobe) => (Aim::Best(nprobe as usize), COUNTED_RECALL),
            None => (Aim::Recall(recall), Tuning::bound_recall(recall)),
        };
        let few = match options.selection {
            Some(selection) => selection.len() <= FEW_SELECTED.max(options.k.saturating_mul(4)),
            None => self.len() <= PREPARATION_ROWS,
        };
        let plan = if recall == 1.0 || few && self.table.originals.is_some() {
            Plan::Exact
        } else if flat.refines() {
            Plan::Bounded(limnion_rabitq::sureness(sure))
        } else {
            Plan::Estimate
        };
        Ok((plan, aim))
    }

    /// Runs one search whose query and options are in order.
    pub(crate) fn run(
        &self,
        query: &[f32],
        options: &IvfOptions<'_>,
        plan: Plan,
        aim: Aim,
    ) -> (Vec<Hit>, Explanation) {
        let mut search = Search::new(&self.table, query, options.k, options.radius, plan);
        let mut explanation = Explanation::default();
        match (plan, options.selection) {
            (Plan::Exact, None) => {
                scan_originals(&self.table, std::slice::from_mut(&mut search));
                explanation.refined = self.len();
            }
            (Plan::Exact, Some(selection)) => {
                search.measure(selection.rows().map(|place| self.lists.row(place)));
            }
            (_, selection) => {
                search.use_codes(&self.codes, query, Some(self.lists.rows()));
                self.look_into_lists(&mut search, aim, selection, &mut explanation);
            }
        }
        explanation.refined += search.refined();
        (search.finish(), explanation)
    }

    /// The nearest rows by a look into all lists, with their keys.
    pub(crate) fn find_all(&self, query: &[f32], k: usize, plan: Plan) -> Vec<(u32, f32)> {
        let mut search = Search::new(&self.table, query, k, None, plan);
        search.use_codes(&self.codes, query, Some(self.lists.rows()));
        self.look_into_lists(&mut search, Aim::All, None, &mut Explanation::default());
        let ranked = search.into_ranked().into_iter();
        ranked.filter_map(|ranked| Some((self.table.ids.row(ranked.id)?, ranked.key))).collect()
    }

    fn look_into_lists(
        &self,
        search: &mut Search<'_>,
        aim: Aim,
        selection: Option<&Selection>,
        explanation: &mut Explanation,
    ) {
        let Some(query) = search.query() else { return };
        let allowed = selection.map(|selection| self.allowed(selection));
        let allowed = allowed.as_deref();
        let mut scores = Scores::estimate(self, query, allowed);
        // A search that is bounded from outside goes by its limit too, and by that alone where it is a radius.
        let by_limit = selection.is_some() || search.has_radius();
        let thinness = selection.map_or(1.0, |selection| self.len() as f32 / selection.len().max(1) as f32);
        let scale = self.codes.quantizer().scale();
        let margin = match aim {
            Aim::Recall(recall) => self.tuning.margin(recall, search.k() as f32 * thinness),
            Aim::Best(_) | Aim::All => Margin::ANY,
        };
        let margin =
            Margin { of_base: margin.of_base * scale * scale, of_limit: margin.of_limit * scale * scale };
        let rows_of = |list: u32| match allowed {
            Some(allowed) => allowed.get(list as usize).copied().unwrap_or(0) as usize,
            None => self.lists.lists.get(list as usize).map_or(0, |list| list.len as usize),
        };
        let mut blocks = Vec::new();
        let mut base = f32::MAX;
        let mut part = match aim {
            Aim::All => scores.best(query, usize::MAX),
            Aim::Best(count) => {
                let mut best = scores.best(query, count.saturating_mul(2));
                best.truncate(count);
                best
            }
            Aim::Recall(_) => {
                // Where the limit decides, it has to be known first.
                let (part, mean) = scores.within(query, if by_limit { 0.0 } else { margin.of_base });
                base = mean;
                part
            }
        };
        loop {
            let before = explanation.lists;
            let (mut next, mut pass) = (0, 1);
            while next < part.len() {
                let end = part.len().min(next + pass);
                if let Some(later) = part.get(end) {
                    self.fetch(later.number as usize);
                }
                blocks.clear();
                for candidate in part.get(next..end).unwrap_or_default() {
                    let near_base = !search.has_radius() && candidate.score - base <= margin.of_base;
                    if by_limit && !near_base && candidate.score - search.limit() > margin.of_limit {
                        continue;
                    }
                    let Some(list) = self.lists.lists.get(candidate.number as usize) else { continue };
                    let (g_add, g_error) = search.enter_among(candidate.standing, list.squares);
                    let entered = search.entered() - 1;
                    let mut add = |block, mask| {
                        blocks.push((entered, ListBlock { block, mask, g_add, g_error }));
                    };
                    match selection {
                        Some(selection) => selected(selection, list, add),
                        None => list.blocks.iter().for_each(|&block| add(block, u32::MAX)),
                    }
                    explanation.scanned += rows_of(candidate.number);
                    explanation.lists += 1;
                }
                self.scan_lists(scores.level, search, &blocks);
                // The first lists bring the limit down; then more of them are worth a pass.
                (next, pass) = (end, (2 * pass).min(MOST_LISTS));
            }
            // The further lists are worse; they are looked into while they may help, or hits are missing.
            let in_vain = !by_limit || explanation.lists == before;
            let Some(query) = search.query() else { return };
            let wanted = matches!(aim, Aim::Recall(_)) && !search.has_radius() && !search.has_k();
            if scores.is_empty() || !wanted && (in_vain || !matches!(aim, Aim::Recall(_))) {
                break;
            }
            part = scores.best(query, FURTHER_LISTS);
        }
        search.drain(true);
    }

    /// How many rows of each list may be found.
    fn allowed(&self, selection: &Selection) -> Vec<u32> {
        let mut allowed = vec![0; self.lists.len()];
        for &(block, mask) in &selection.blocks {
            if let Some(count) = self.lists.owner(block as usize).and_then(|list| allowed.get_mut(list)) {
                *count += mask.count_ones();
            }
        }
        allowed
    }

    /// Scans blocks of lists that were entered, of which each has the number.
    fn scan_lists(&self, level: Level, search: &mut Search<'_>, blocks: &[(usize, ListBlock)]) {
        let items: Vec<ListBlock> = blocks.iter().map(|&(_, block)| block).collect();
        let mut next = 0;
        while next < items.len() {
            let Some(probe) = search.probe() else { return };
            let rest = items.get(next..).unwrap_or_default();
            let codes = self.codes.block_bytes();
            let done = scan_lists(level, *self.codes.shape(), codes, 0, rest, &mut [probe]);
            let mut passed = blocks.get(next..next + done).unwrap_or_default();
            let waiting = search.collect_from(|place| {
                while let Some(((list, item), rest)) = passed.split_first() {
                    if item.block == place / BlockShape::ROWS as u32 {
                        return *list;
                    }
                    passed = rest;
                }
                0
            });
            if waiting >= ENOUGH {
                search.drain(false);
            }
            next += done;
        }
    }

    /// Has the first codes of a list fetched from memory while other work is done.
    fn fetch(&self, list: usize) {
        let size = self.codes.shape().block_bytes();
        let first = self.lists.lists.get(list).and_then(|list| list.blocks.first());
        if let Some(&first) = first {
            let start = first as usize * size;
            prefetch(self.codes.block_bytes().get(start..start + size).unwrap_or_default());
        }
    }
}

/// The lists that were not looked into yet, with what is known of their scores.
pub(crate) struct Scores<'a> {
    index: &'a IvfIndex,
    level: Level,
    /// Estimate, what it may be off by, and the list's number.
    left: Vec<(f32, f32, u32)>,
    /// Those of them that were handed out since, and are to be left out.
    gone: Vec<u32>,
    length: f32,
}

impl<'a> Scores<'a> {
    pub(crate) fn estimate(index: &'a IvfIndex, query: &Query, allowed: Option<&[u32]>) -> Self {
        let (level, codes) = (Level::current(), &index.directory.codes);
        let standing = query.standing();
        let mut survivors = Survivors::new(index.lists.len() + BlockShape::ROWS);
        let bound = Bound {
            scale: query.lut().step(),
            bias: query.bias(),
            g_add: standing.g_add(),
            g_error: 0.0,
            threshold: f32::MAX,
        };
        let probe = Probe { lut: query.lut(), bound, survivors: &mut survivors };
        scan(level, *codes.shape(), codes.block_bytes(), 0, 0..codes.block_count(), &mut [probe]);
        let length = standing.length();
        let may_be_off = SURE_OF_LISTS * length;
        let mut scores = Self { index, level, left: Vec::new(), gone: Vec::new(), length };
        let lists = &index.lists.lists;
        scores.left = survivors
            .as_slice()
            .iter()
            .filter_map(|survivor| {
                let (number, list) = (survivor.row, lists.get(survivor.row as usize)?);
                let rows = match allowed {
                    Some(allowed) => allowed.get(number as usize).copied().unwrap_or(0),
                    None => list.len,
                };
                let estimate = survivor.estimate + scores.width(list);
                (rows > 0).then_some((estimate, survivor.error * may_be_off, number))
            })
            .collect();
        scores
    }

    /// [`Scores::estimate`] of all lists, those without rows too.
    pub(crate) fn of_all(index: &'a IvfIndex, query: &Query) -> Self {
        Self::estimate(index, query, Some(&vec![1; index.lists.len()]))
    }

    fn is_empty(&self) -> bool {
        self.left.len() == self.gone.len()
    }

    /// What the width of a list adds to its score.
    fn width(&self, list: &List) -> f32 {
        if is_euclidean(self.index.codes.quantizer()) {
            0.5 * list.mean_square
        } else {
            -WIDTH * self.length * list.mean_square.sqrt()
        }
    }

    /// Takes the best lists by their estimates, and orders them by their scores.
    pub(crate) fn best(&mut self, query: &Query, count: usize) -> Vec<Candidate> {
        if !self.gone.is_empty() {
            self.gone.sort_unstable();
            self.left.retain(|(_, _, number)| self.gone.binary_search(number).is_err());
            self.gone.clear();
        }
        let by_estimate = |a: &(f32, f32, u32), b: &(f32, f32, u32)| a.0.total_cmp(&b.0).then(a.2.cmp(&b.2));
        let rest = if count < self.left.len() {
            self.left.select_nth_unstable_by(count, by_estimate);
            self.left.split_off(count)
        } else {
            Vec::new()
        };
        let taken = std::mem::replace(&mut self.left, rest);
        let mut best: Vec<_> = taken.iter().map(|&(_, _, number)| self.measure(query, number)).collect();
        best.sort_unstable_by(Candidate::order);
        best
    }

    /// The lists whose scores are within a margin of the base, which is returned too.
    fn within(&mut self, query: &Query, margin: f32) -> (Vec<Candidate>, f32) {
        // In order, and few: each of the others is compared with the last.
        let mut first = [(f32::INFINITY, u32::MAX); FIRST_LISTS];
        for &(estimate, _, number) in &self.left {
            if (estimate, number) < first[FIRST_LISTS - 1] {
                let at = first.partition_point(|other| *other < (estimate, number));
                first[at..].rotate_right(1);
                first[at] = (estimate, number);
            }
        }
        let firsts = first.iter().filter(|(_, number)| *number != u32::MAX);
        let mut chosen: Vec<Candidate> = firsts.map(|&(_, number)| self.measure(query, number)).collect();
        chosen.sort_unstable_by(Candidate::order);
        let base = mean_score(&chosen);
        let limit = base + margin;
        for &(estimate, off, number) in &self.left {
            if estimate - off <= limit && (estimate, number) > first[FIRST_LISTS - 1] {
                chosen.push(self.measure(query, number));
            }
        }
        chosen.retain(|candidate| candidate.score <= limit);
        chosen.sort_unstable_by(Candidate::order);
        self.gone.extend(chosen.iter().map(|candidate| candidate.number));
        (chosen, base)
    }

    fn measure(&self, query: &Query, number: u32) -> Candidate {
        let directory = &self.index.directory;
        let standing = query.standing_to(self.level, directory.centre(number as usize));
        let width = self.index.lists.lists.get(number as usize).map_or(0.0, |list| self.width(list));
        Candidate { score: standing.g_add() + directory.shift(number as usize) + width, number, standing }
    }
}

impl Candidate {
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.score.total_cmp(&other.score).then(self.number.cmp(&other.number))
    }
}

/// The mean score of the best lists.
pub(crate) fn mean_score(best: &[Candidate]) -> f32 {
    let best = best.get(..BASE_LISTS.min(best.len())).unwrap_or_default();
    best.iter().map(|candidate| candidate.score).sum::<f32>() / best.len().max(1) as f32
}

/// Hands on the blocks of a list in which rows are selected, with those rows.
fn selected(selection: &Selection, list: &List, mut then: impl FnMut(u32, u32)) {
    for run in list.runs() {
        let from = selection.blocks.partition_point(|&(block, _)| (block as usize) < run.start);
        let rest = selection.blocks.get(from..).unwrap_or_default();
        let within = rest.iter().take_while(|&&(block, _)| (block as usize) < run.end);
        within.for_each(|&(block, mask)| then(block, mask));
    }
}
