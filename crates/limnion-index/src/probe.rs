//! Searching lists: which ones, and in which order.
//!
//! Each list has a score for a query: the squared distance of its centre and half the mean square of its residuals (rows
//! of a wide list are farther on average, yet some of them are near). The base of a search is the mean score of its best
//! lists; a list is looked into where its score is within a margin of the base, and the margin that a recall needs was
//! found out when the index was built ([`crate::recall`]). Where only some rows may be found, or none beyond a radius, the
//! margin counts from the limit of the search instead: the key of the worst of its best rows.
//!
//! Scores are estimated first, from one-bit codes of the centres by the table that serves the rows' codes too; those lists
//! that may be within the margin get their scores from the centres as bytes ([`crate::rough`]), and only those that are
//! looked into are measured exactly. The best lists come first, so that the limit falls early.

use limnion_rabitq::{Query, Standing};
use limnion_simd::{BlockShape, Bound, Level, ListBlock, estimate_blocks, prefetch, scan_lists};
use limnion_types::{Hit, Job, Result};
use rayon::prelude::*;

use crate::exact::query_factor;
use crate::ivf::{IvfIndex, is_euclidean};
use crate::packed::Packed;
use crate::params::{Plan, check_hits, check_share, invalid};
use crate::recall::{DEPTHS, Margin, Tuning};
use crate::rough::Rough;
use crate::search::{FEW_ROWS, PREPARATION_ROWS, Search, scan_originals};
use crate::selection::Selection;

/// What a search finds unless it is told.
const DEFAULT_RECALL: f32 = 0.95;
/// How sure the bounds of codes are where the lists are counted.
const COUNTED_RECALL: f32 = 0.99;
/// A share of rows that may be found and grows by more than this towards the edge of what is near is not the same everywhere.
const UNEVEN: f32 = 1.15;
/// Where the share differs by more than this from that of all rows, and most rows do not pass, what passes lies at one side.
const UNUSUAL: f32 = 1.4;
const MOST: f32 = 0.5;
/// Survivors that are worth a drain.
const ENOUGH: usize = 32;
/// The most lists that share a pass, and the most where few rows of each may be found.
const MOST_LISTS: usize = 8;
const MOST_SHORT_LISTS: usize = 24;
/// The base of a search is the mean score of so many lists, the best.
pub(crate) const BASE_LISTS: usize = 10;
/// The lists that are measured for it.
const FIRST_LISTS: usize = BASE_LISTS + BASE_LISTS / 2;
/// How sure it has to be that a list beyond the margin is not within it, in deviations of its estimate.
const SURE_OF_LISTS: f32 = 1.0;
/// Under inner product, how much nearer the rows of a wide list count, in lengths of query times residual.
const WIDTH: f32 = 0.19;
/// The hits that a search within a radius is thought to have.
const RADIUS_DEPTH: f32 = 10.0;
/// Lists that are measured at a time, once the likely ones were not enough.
const FURTHER_LISTS: usize = 32;

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
            Some(selection) => selection.len() <= FEW_ROWS.max(options.k.saturating_mul(4)),
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
                search.measure_selected(selection, |place| self.lists.row(place));
            }
            (_, selection) => {
                search.use_codes(&self.codes, query, Some(self.lists.rows()));
                return match selection {
                    None => self.run_lists(search, query, aim, None),
                    Some(selection) => selection.with_packed(self, |packed| {
                        self.run_lists(search, query, aim, Some((selection, packed)))
                    }),
                };
            }
        }
        explanation.refined += search.refined();
        (search.finish(), explanation)
    }

    /// Looks into lists, and says what was found.
    fn run_lists<'a>(
        &'a self,
        mut search: Search<'a>,
        vector: &[f32],
        aim: Aim,
        among: Option<(&Selection, &'a Packed)>,
    ) -> (Vec<Hit>, Explanation) {
        let mut explanation = Explanation::default();
        self.look_into_lists(&mut search, vector, aim, among, &mut explanation);
        explanation.refined += search.refined();
        (search.finish(), explanation)
    }

    /// The nearest rows by a look into all lists, with their keys.
    pub(crate) fn find_all(&self, query: &[f32], k: usize, plan: Plan) -> Vec<(u32, f32)> {
        let mut search = Search::new(&self.table, query, k, None, plan);
        search.use_codes(&self.codes, query, Some(self.lists.rows()));
        self.look_into_lists(&mut search, query, Aim::All, None, &mut Explanation::default());
        let ranked = search.into_ranked().into_iter();
        ranked.filter_map(|ranked| Some((self.table.ids.row(ranked.id)?, ranked.key))).collect()
    }

    fn look_into_lists<'a>(
        &'a self,
        search: &mut Search<'a>,
        vector: &[f32],
        aim: Aim,
        among: Option<(&Selection, &'a Packed)>,
        explanation: &mut Explanation,
    ) {
        let level = Level::current();
        let (codes, places) =
            among.map_or((self.codes.block_bytes(), None), |(_, packed)| packed.codes(&self.codes));
        search.scan_copies(places);
        let Some(query) = search.query() else { return };
        let factor = query_factor(self.table.metric, level, vector);
        let mut scores = Scores::estimate(self, query, (vector, factor));
        let unit = self.codes.quantizer().scale() * self.codes.quantizer().scale();
        let (k, has_radius) = (search.k() as f32, search.has_radius());
        // How many hits a radius has is not known; so few as that have a wide margin.
        let depth = match (among, aim) {
            _ if has_radius => None,
            (Some((_, packed)), Aim::Recall(recall)) => scores.depth_among(packed, k, recall, unit),
            _ => Some(k),
        };
        // Beyond what the tuning knows a search goes by its limit: what may be found may be far from the best lists.
        let by_limit = depth.is_none();
        let margin = match aim {
            Aim::Recall(recall) => {
                let thinness =
                    among.map_or(1.0, |(selection, _)| self.len() as f32 / selection.len().max(1) as f32);
                let far = if has_radius { RADIUS_DEPTH } else { k * thinness };
                // What lies at one side is harder to find than the tuning knows, which half of the loss makes up for.
                let surer =
                    if by_limit && among.is_some() && !has_radius { 0.5 + 0.5 * recall } else { recall };
                self.tuning.margin(surer, depth.unwrap_or(far)).in_units(unit)
            }
            Aim::Best(_) | Aim::All => Margin::ANY,
        };
        if let Some((_, packed)) = among {
            scores.keep(packed.allowed());
        }
        let rows_of = |list: u32| match among {
            Some((_, packed)) => packed.allowed().get(list as usize).copied().unwrap_or(0) as usize,
            None => self.lists.lists.get(list as usize).map_or(0, |list| list.len as usize),
        };
        let mut pass = Pass::default();
        // The same with copies and without: what is found depends on it.
        let most_lists = if among.is_some() { MOST_SHORT_LISTS } else { MOST_LISTS };
        let mut part = match aim {
            Aim::All => scores.best(usize::MAX),
            Aim::Best(count) => {
                let mut best = scores.best(count.saturating_mul(2));
                best.truncate(count);
                best
            }
            // Where the limit decides, it has to be known first.
            Aim::Recall(_) if by_limit => scores.best(FIRST_LISTS),
            Aim::Recall(_) => scores.within(margin.of_base),
        };
        loop {
            let before = explanation.lists;
            let (mut next, mut count) = (0, 1);
            self.fetch(part.get(..count).unwrap_or_default(), codes, among);
            while next < part.len() {
                let end = part.len().min(next + count);
                // The first lists bring the limit down; then more of them are worth a pass.
                count = (2 * count).min(most_lists);
                self.fetch(part.get(end..part.len().min(end + count)).unwrap_or_default(), codes, among);
                pass.clear();
                for candidate in part.get(next..end).unwrap_or_default() {
                    if by_limit && candidate.score - search.limit() > margin.of_limit {
                        continue;
                    }
                    let number = candidate.number as usize;
                    let (Some(list), Some(query)) = (self.lists.lists.get(number), search.query()) else {
                        continue;
                    };
                    let standing = query.standing_to(level, self.directory.centre(number));
                    let (g_add, g_error) = search.enter_among(standing, list.squares);
                    let entered = (search.entered() - 1) as u32;
                    match among {
                        Some((selection, packed)) => {
                            packed.blocks(self, selection, number, (g_add, g_error), |block| {
                                pass.add(entered, block);
                            });
                        }
                        None => list.blocks.iter().for_each(|&block| {
                            pass.add(entered, ListBlock { block, mask: u32::MAX, g_add, g_error });
                        }),
                    }
                    explanation.scanned += rows_of(candidate.number);
                    explanation.lists += 1;
                }
                self.scan_lists(level, codes, search, &pass);
                next = end;
            }
            // The further lists are worse; they are looked into while they may help, or hits are missing.
            let in_vain = !by_limit || explanation.lists == before;
            let wanted = matches!(aim, Aim::Recall(_)) && !search.has_radius() && !search.has_k();
            if scores.is_empty() || !wanted && (in_vain || !matches!(aim, Aim::Recall(_))) {
                break;
            }
            part = scores.best(FURTHER_LISTS);
        }
        search.drain(true);
    }

    /// Scans blocks of lists that were entered. What survives does not depend on how the rows lie in blocks: the limit
    /// stays until the pass is over.
    fn scan_lists(&self, level: Level, codes: &[u8], search: &mut Search<'_>, pass: &Pass) {
        let (mut next, mut waiting) = (0, 0);
        while next < pass.blocks.len() {
            let Some(probe) = search.probe() else { return };
            let rest = pass.blocks.get(next..).unwrap_or_default();
            let done = scan_lists(level, *self.codes.shape(), codes, 0, rest, &mut [probe]);
            let mut passed = rest.iter().zip(pass.lists.get(next..).unwrap_or_default()).peekable();
            waiting = search.collect_from(|scanned| {
                let block = scanned / BlockShape::ROWS as u32;
                while passed.next_if(|(item, _)| item.block != block).is_some() {}
                passed.peek().map_or(0, |(_, list)| **list as usize)
            });
            next += done;
        }
        if waiting >= ENOUGH {
            search.drain(false);
        }
    }

    /// Has the first codes of lists, and their centres, fetched from memory while other work is done.
    fn fetch(&self, lists: &[Candidate], codes: &[u8], among: Option<(&Selection, &Packed)>) {
        let size = self.codes.shape().block_bytes();
        for candidate in lists {
            let number = candidate.number as usize;
            prefetch(bytemuck::cast_slice(self.directory.centre(number)));
            let own = || self.lists.lists.get(number).and_then(|list| list.blocks.first().copied());
            if let Some(first) = among.and_then(|(_, packed)| packed.first(number)).or_else(own) {
                let start = first as usize * size;
                prefetch(codes.get(start..start + size).unwrap_or_default());
            }
        }
    }
}

/// The blocks of several lists that are scanned together.
#[derive(Default)]
struct Pass {
    blocks: Vec<ListBlock>,
    /// For each block its list, by the order in which they were entered.
    lists: Vec<u32>,
}

impl Pass {
    fn clear(&mut self) {
        self.blocks.clear();
        self.lists.clear();
    }

    fn add(&mut self, list: u32, block: ListBlock) {
        self.blocks.push(block);
        self.lists.push(list);
    }
}

/// What is known of the lists' scores, and which lists were not handed out yet.
pub(crate) struct Scores<'a> {
    index: &'a IvfIndex,
    level: Level,
    standing: Standing,
    /// The query as bytes.
    query: Rough,
    /// The estimated score of each list; infinite for those that are handed out, or have no rows.
    estimates: Vec<f32>,
    /// What each estimate may be off by, per unit of the query's length.
    errors: Vec<f32>,
    /// The base, once it was asked for.
    base: Option<f32>,
    /// How many lists are left.
    left: usize,
}

impl<'a> Scores<'a> {
    pub(crate) fn estimate(index: &'a IvfIndex, query: &Query, (vector, factor): (&[f32], f32)) -> Self {
        let (level, codes) = (Level::current(), &index.directory.codes);
        let standing = query.standing();
        let places = codes.block_count() * BlockShape::ROWS;
        let (mut estimates, mut errors) = (vec![0.0; places], vec![0.0; places]);
        let bound = Bound {
            scale: query.lut().step(),
            bias: query.bias(),
            g_add: standing.g_add(),
            g_error: 0.0,
            threshold: 0.0,
        };
        estimate_blocks(
            level,
            *codes.shape(),
            codes.block_bytes(),
            query.lut(),
            &bound,
            &mut estimates,
            &mut errors,
        );
        estimates.truncate(index.lists.len());
        let mut scaled: Vec<f32> = vector.iter().map(|x| x * factor).collect();
        scaled = index.codes.quantizer().centre(level, &scaled);
        let mut rough = Rough::with_capacity(scaled.len(), 1);
        rough.push(&scaled);
        let mut scores =
            Self { index, level, standing, query: rough, estimates, errors, base: None, left: 0 };
        scores.widen();
        scores.keep(&[]);
        scores
    }

    /// Adds to each estimate what its list's width does.
    fn widen(&mut self) {
        let lists = &self.index.lists;
        let (euclidean, length) = (is_euclidean(self.index.codes.quantizer()), self.standing.length());
        for (estimate, &square) in self.estimates.iter_mut().zip(&lists.mean_squares) {
            // What is no number is the worst of numbers.
            *estimate = (*estimate + width(euclidean, length, square)).min(f32::MAX);
        }
    }

    /// Keeps the lists that have rows, of which so many may be found: all, where there is no such number.
    fn keep(&mut self, allowed: &[u32]) {
        self.left = 0;
        for (at, (estimate, list)) in self.estimates.iter_mut().zip(&self.index.lists.lists).enumerate() {
            if allowed.get(at).copied().unwrap_or(list.len) == 0 {
                *estimate = f32::INFINITY;
            } else {
                self.left += 1;
            }
        }
    }

    /// The base: the mean score of the best lists.
    fn base(&mut self) -> f32 {
        if let Some(base) = self.base {
            return base;
        }
        let mut first: Vec<Candidate> = self.first().iter().map(|&number| self.measure(number)).collect();
        *self.base.insert(mean_score(&mut first))
    }

    /// How many of all rows are as near as the `k` nearest of those that may be found: by the share of rows that may be
    /// found, of the lists that hold the nearest 1, 10 and so on. `None` where too few are near, or where they lie at the edge
    /// of what is near.
    fn depth_among(&mut self, packed: &Packed, k: f32, recall: f32, unit: f32) -> Option<f32> {
        let (base, tuning) = (self.base(), &self.index.tuning);
        let (mut depth_before, mut share_before, mut before) = (1.0_f32, 0.0_f32, 0.0_f32);
        let overall = packed.share();
        for depth in DEPTHS {
            let depth = depth as f32;
            let limit = base + tuning.margin(recall, depth).in_units(unit).of_base;
            let (few, all) = packed.within(&self.estimates, limit);
            let share = few as f32 / all.max(1) as f32;
            if depth <= 1.0 && share >= k {
                return Some(depth);
            }
            // The lists of the nearest hold many others: where these pass more often, the nearest pass less often.
            let found = depth * share.min(share_before * share_before / share.max(f32::MIN_POSITIVE));
            if found >= k {
                let part = (k / before).ln() / (found / before).ln();
                let is_usual =
                    share <= UNUSUAL * overall && overall <= UNUSUAL * share || share_before >= MOST;
                let is_even = before > 0.0 && share <= UNEVEN * share_before && is_usual;
                return is_even.then(|| depth_before * (depth / depth_before).powf(part.clamp(0.0, 1.0)));
            }
            (depth_before, share_before) = (depth, share);
            before = if depth <= 1.0 { share } else { found };
        }
        None
    }

    fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Hands out the best lists by their estimates, in the order of their scores.
    pub(crate) fn best(&mut self, count: usize) -> Vec<Candidate> {
        let left = (0..).zip(&self.estimates).filter(|(_, estimate)| **estimate < f32::INFINITY);
        let mut left: Vec<(f32, u32)> = left.map(|(number, &estimate)| (estimate, number)).collect();
        if count < left.len() {
            left.select_nth_unstable_by(count, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            left.truncate(count);
        }
        let mut best: Vec<_> = left.iter().map(|&(_, number)| self.measure(number)).collect();
        best.sort_unstable_by(Candidate::order);
        self.hand_out(&best);
        best
    }

    /// Hands out the lists whose scores are within a margin of the base.
    fn within(&mut self, margin: f32) -> Vec<Candidate> {
        let mut chosen: Vec<Candidate> = Vec::with_capacity(4 * FIRST_LISTS);
        let mut first = [].into();
        let base = self.base.unwrap_or_else(|| {
            first = self.first();
            chosen.extend(first.iter().map(|&number| self.measure(number)));
            mean_score(&mut chosen)
        });
        let limit = (base + margin).min(f32::MAX);
        let may_be_off = SURE_OF_LISTS * self.standing.length();
        // Whether a list may be near is hard to foresee, so nothing branches on it.
        let (mut near, mut count) = (vec![0; self.estimates.len() + 1], 0);
        for (number, (&estimate, error)) in (0..).zip(self.estimates.iter().zip(&self.errors)) {
            near[count] = number;
            count += usize::from(estimate - error * may_be_off <= limit);
        }
        let near = near.iter().take(count).filter(|number| !first.contains(number));
        chosen.extend(near.map(|&number| self.measure(number)));
        chosen.retain(|candidate| candidate.score <= limit);
        chosen.sort_unstable_by(Candidate::order);
        self.hand_out(&chosen);
        chosen
    }

    /// The best lists by their estimates, as many as are measured for the base.
    fn first(&self) -> Vec<u32> {
        let (mut least, mut numbers) = ([f32::INFINITY; FIRST_LISTS], [u32::MAX; FIRST_LISTS]);
        for (number, &estimate) in (0..).zip(&self.estimates) {
            if estimate < least[FIRST_LISTS - 1] {
                let at = least.iter().filter(|other| **other <= estimate).count();
                least[at..].rotate_right(1);
                numbers[at..].rotate_right(1);
                (least[at], numbers[at]) = (estimate, number);
            }
        }
        numbers.into_iter().filter(|number| *number != u32::MAX).collect()
    }

    fn hand_out(&mut self, lists: &[Candidate]) {
        self.left -= lists.len();
        for list in lists {
            if let Some(estimate) = self.estimates.get_mut(list.number as usize) {
                *estimate = f32::INFINITY;
            }
        }
    }

    fn measure(&self, number: u32) -> Candidate {
        let (directory, at) = (&self.index.directory, number as usize);
        let product = self.query.dot(self.level, &directory.rough, at);
        let square = self.index.lists.mean_squares.get(at).copied().unwrap_or(0.0);
        let score = if is_euclidean(self.index.codes.quantizer()) {
            (self.query.square(0) + directory.rough.square(at) - 2.0 * product) + width(true, 0.0, square)
        } else {
            (self.standing.g_add() - product)
                + directory.shift(at)
                + width(false, self.standing.length(), square)
        };
        Candidate { score, number }
    }
}

/// What the mean square of a list's residuals adds to its score.
fn width(euclidean: bool, length: f32, square: f32) -> f32 {
    if euclidean { 0.5 * square } else { -WIDTH * length * square.sqrt() }
}

impl Candidate {
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.score.total_cmp(&other.score).then(self.number.cmp(&other.number))
    }
}

/// The mean score of the best lists, which come to the front.
pub(crate) fn mean_score(best: &mut [Candidate]) -> f32 {
    best.sort_unstable_by(Candidate::order);
    let best = best.get(..BASE_LISTS.min(best.len())).unwrap_or_default();
    best.iter().map(|candidate| candidate.score).sum::<f32>() / best.len().max(1) as f32
}
