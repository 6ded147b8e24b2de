//! Walking a graph towards a query.
//!
//! A pool holds the nearest vertices that were found, as many as the search has effort. The nearest of them whose links were
//! not followed yet is next: its links that are new to the walk are gathered into a block and scanned by their sign bits
//! like the rows of any index; those that the bound does not rule out at the pool's end are looked at more closely, by
//! all bits of their codes or, where there is one bit only, by their originals. So the pool is in a far better order
//! than sign bits give, at hardly more than their cost.

use std::cell::RefCell;

use limnion_rabitq::{Query, Standing};
use limnion_simd::{BlockShape, Bound, Level, Line, Probe, Survivor, Survivors, prefetch, scan};

use crate::exact::Exact;
use crate::graph::index::GraphIndex;
use crate::graph::visited::Visited;

/// Entries from which a walk begins: the nearest of all.
const STARTS: usize = 6;
/// Vertices that are asked for ahead of their turn.
const AHEAD: usize = 2;
/// New vertices that are enough for a scan.
const FULL: usize = 16;

/// Two bits above the slot: whether a vertex was looked at closely, and whether its links were followed.
const REFINED: u64 = 1 << 30;
const FOLLOWED: u64 = 1 << 31;
/// The most vertices of a graph.
pub(crate) const MAX_SLOTS: usize = 1 << 30;

/// A vertex that a walk has found: the key of its row in scaled units (before it is refined, the least that it may be) as a
/// whole number that is ordered as the key is, two flags, and its slot. They are compared and moved as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found(u64);

impl Found {
    fn new(key: f32, flags: u64, slot: u32) -> Self {
        let bits = key.to_bits();
        let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        Self(u64::from(ordered) << 32 | flags | u64::from(slot))
    }

    pub(crate) fn key(self) -> f32 {
        let ordered = (self.0 >> 32) as u32;
        f32::from_bits(if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered })
    }

    pub(crate) fn slot(self) -> u32 {
        (self.0 & (REFINED - 1)) as u32
    }

    pub(crate) fn is_refined(self) -> bool {
        self.is(REFINED)
    }

    fn is(self, flag: u64) -> bool {
        self.0 & flag != 0
    }
}

/// A query on its way through a graph.
pub(crate) struct Walk<'a> {
    index: &'a GraphIndex,
    level: Level,
    query: &'a Query,
    standing: Standing,
    /// Measures vertices whose codes have but one bit.
    exact: Option<&'a Exact<'a>>,
    refines: bool,
    sureness: f32,
    lengths: (f32, f32),
    unit: f32,
}

/// What walks work in: one for each thread, kept from walk to walk.
#[derive(Default)]
struct Scratch {
    visited: Visited,
    pool: Vec<Found>,
    new: Vec<Found>,
    fresh: Vec<u32>,
    blocks: Vec<Line>,
    survivors: Option<Survivors>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What a walk did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Steps {
    pub(crate) followed: usize,
    pub(crate) scanned: usize,
    pub(crate) refined: usize,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(
        index: &'a GraphIndex,
        query: &'a Query,
        exact: Option<&'a Exact<'a>>,
        sureness: f32,
    ) -> Self {
        let bits = index.records.quantizer().bits();
        let squares = index.records.squares();
        let scale = index.records.quantizer().scale();
        Self {
            index,
            level: Level::current(),
            query,
            standing: query.standing(),
            exact: exact.filter(|_| bits == 1),
            refines: bits > 1 || exact.is_some(),
            sureness,
            lengths: (squares.0.sqrt(), squares.1.sqrt()),
            unit: scale * scale,
        }
    }

    /// Estimates are keys times this.
    pub(crate) fn unit(&self) -> f32 {
        self.unit
    }

    /// What an error is to be multiplied by to bound a row at a limit.
    pub(crate) fn reach(&self, limit: f32) -> f32 {
        // What cannot be looked at more closely is taken at its word.
        if self.refines { self.sureness * self.standing.reach(limit, self.lengths) } else { 0.0 }
    }

    /// Finds the nearest vertices, with so much effort, and hands them on, nearest first. `skipped` is as if it were not there.
    pub(crate) fn run<T>(
        &self,
        effort: usize,
        skipped: Option<u32>,
        then: impl FnOnce(&[Found], Steps) -> T,
    ) -> T {
        SCRATCH.with_borrow_mut(|scratch| {
            let steps = self.walk(effort, skipped, scratch);
            let result = then(&scratch.pool, steps);
            scratch.visited.end();
            result
        })
    }

    fn walk(&self, effort: usize, skipped: Option<u32>, scratch: &mut Scratch) -> Steps {
        let Scratch { visited, pool, new, fresh, blocks, survivors } = scratch;
        let room = self.index.entries.slots().len().max(self.index.links.degree()) + BlockShape::ROWS;
        let survivors = match survivors {
            Some(survivors) if survivors.room() >= room => survivors,
            _ => survivors.insert(Survivors::new(room)),
        };
        let mut steps = Steps::default();
        visited.begin(self.index.records.len());
        if let Some(skipped) = skipped {
            visited.insert(skipped);
        }
        pool.clear();
        self.begin(pool, survivors, visited, &mut steps);
        let unrefined = if self.refines { 0 } else { REFINED };
        let mut next = 0;
        fresh.clear();
        loop {
            self.fetch_next(pool, next);
            let full = pool.len() >= effort;
            let limit = if full { pool.last().map_or(f32::MAX, |worst| worst.key()) } else { f32::MAX };
            let reach = self.reach(limit);
            let mut ready = 0;
            let links = match &self.index.blocks {
                Some(neighbours) => {
                    let Some(slot) = self.pick(pool, &mut next, &mut steps) else { return steps };
                    let count = self.index.params.blocks();
                    let neighbours = limnion_simd::bytes(neighbours);
                    self.scan(neighbours, slot as usize * count, count, limit, reach, survivors);
                    let links = self.index.links.places(slot);
                    steps.scanned += links.len();
                    links
                }
                None => {
                    // What is scanned now was found a step ago: memory has had time to bring it. One vertex leads to few new
                    // ones late in the walk: then several are followed at once, for a full block.
                    ready = fresh.len();
                    while fresh.len() < ready + FULL
                        && let Some(slot) = self.pick(pool, &mut next, &mut steps)
                    {
                        let before = fresh.len();
                        visited.sift(self.index.links.places(slot), fresh);
                        let new = fresh.get(before..).unwrap_or_default();
                        new.iter().for_each(|&slot| self.index.records.fetch(slot));
                    }
                    if fresh.is_empty() {
                        return steps;
                    }
                    if ready == 0 {
                        ready = fresh.len();
                    }
                    ready = ready.min(BlockShape::ROWS);
                    let now = fresh.get(..ready).unwrap_or_default();
                    steps.scanned += now.len();
                    self.scan(self.index.records.gathered(now, blocks), 0, 1, limit, reach, survivors);
                    now
                }
            };
            new.clear();
            for &Survivor { row, estimate, error } in survivors.as_slice() {
                let Some(&slot) = links.get(row as usize) else { continue };
                if self.index.blocks.is_none() || visited.insert(slot) {
                    new.push(Found::new(estimate - error * reach, unrefined, slot));
                }
            }
            if let Some(at) = merge(pool, new, effort) {
                next = next.min(at);
            }
            survivors.clear();
            fresh.drain(..ready);
        }
    }

    /// Has fetched from memory what the next vertices need.
    fn fetch_next(&self, pool: &[Found], next: usize) {
        let waiting = pool.get(next..).unwrap_or_default().iter().filter(|found| !found.is(FOLLOWED));
        for (at, found) in waiting.take(AHEAD).enumerate() {
            match &self.index.blocks {
                None => self.index.links.fetch(found.slot()),
                Some(blocks) if at == 0 => {
                    let size = self.index.lines_of_neighbours();
                    let start = found.slot() as usize * size;
                    prefetch(limnion_simd::bytes(blocks.get(start..start + size).unwrap_or_default()));
                    self.index.links.fetch(found.slot());
                }
                Some(_) => {}
            }
            if !found.is(REFINED) {
                self.fetch(found.slot());
            }
        }
    }

    /// The nearest vertex that was not followed yet, which is followed from now on.
    fn pick(&self, pool: &mut [Found], next: &mut usize, steps: &mut Steps) -> Option<u32> {
        loop {
            let found = *pool.get(*next)?;
            if found.is(FOLLOWED) {
                *next += 1;
                continue;
            }
            if found.is(REFINED) {
                if let Some(found) = pool.get_mut(*next) {
                    found.0 |= FOLLOWED;
                }
                *next += 1;
                steps.followed += 1;
                return Some(found.slot());
            }
            // Only now it is worth a closer look; another may turn out to be nearer.
            steps.refined += 1;
            let found = Found::new(self.refined(found.slot()).0, REFINED, found.slot());
            let later = pool.get_mut(*next..).unwrap_or_default();
            let at = later.get(1..).unwrap_or_default().partition_point(|other| *other < found);
            if let Some(moved) = later.get_mut(..=at) {
                moved.rotate_left(1);
            }
            if let Some(place) = later.get_mut(at) {
                *place = found;
            }
        }
    }

    /// Puts the nearest entries into the pool.
    fn begin(
        &self,
        pool: &mut Vec<Found>,
        survivors: &mut Survivors,
        visited: &mut Visited,
        steps: &mut Steps,
    ) {
        let entries = &self.index.entries;
        let count = entries.slots().len().div_ceil(BlockShape::ROWS);
        self.scan(entries.blocks(), 0, count, f32::MAX, 0.0, survivors);
        let mut starts: Vec<(f32, u32)> = Vec::with_capacity(STARTS + 1);
        for &Survivor { row, estimate, .. } in survivors.as_slice() {
            if starts.len() == STARTS && starts.last().is_some_and(|(worst, _)| *worst <= estimate) {
                continue;
            }
            let Some(&slot) = entries.slots().get(row as usize) else { continue };
            let at = starts.partition_point(|(better, _)| *better <= estimate);
            starts.insert(at, (estimate, slot));
            starts.truncate(STARTS);
        }
        survivors.clear();
        for (estimate, slot) in starts {
            if visited.insert(slot) {
                let key = if self.refines { self.refined(slot).0 } else { estimate };
                steps.refined += 1;
                merge(pool, &mut [Found::new(key, REFINED, slot)], usize::MAX);
            }
        }
    }

    /// Scans `count` blocks from the `first` on for vertices that may be within the limit, numbered from the first.
    pub(crate) fn scan(
        &self,
        blocks: &[u8],
        first: usize,
        count: usize,
        limit: f32,
        reach: f32,
        survivors: &mut Survivors,
    ) {
        let query = self.query;
        let bound = Bound {
            scale: query.lut().step(),
            bias: query.bias(),
            g_add: self.standing.g_add(),
            g_error: reach,
            threshold: limit,
        };
        let shape = *self.index.records.shape();
        let size = shape.block_bytes();
        let blocks = blocks.get(first * size..(first + count) * size).unwrap_or_default();
        scan(self.level, shape, blocks, 0, 0..count, &mut [Probe { lut: query.lut(), bound, survivors }]);
    }

    pub(crate) fn fetch(&self, slot: u32) {
        match self.exact {
            Some(exact) => exact.prefetch(self.index.places.row(slot)),
            None => prefetch(self.index.records.extra_row(slot)),
        }
    }

    /// Whether vertices can be looked at more closely than their sign bits.
    pub(crate) fn refines(&self) -> bool {
        self.refines
    }

    /// The best estimate of a vertex' row that its code can give (or its original, where that has one bit only), and its
    /// error.
    pub(crate) fn refined(&self, slot: u32) -> (f32, f32) {
        if let Some(exact) = self.exact {
            return (exact.key(self.index.places.row(slot)) * self.unit, 0.0);
        }
        let records = &self.index.records;
        let record = records.record(slot);
        let [_, _, error] = records.shape().record_factors(record);
        let signs = records.shape().record_signs(record);
        self.query.estimate(self.level, &self.standing, signs, records.extra_row(slot), error.to_f32())
    }

    /// The error of [`Walk::refined`].
    pub(crate) fn error(&self, slot: u32) -> f32 {
        let [_, _, error] = self.index.records.shape().record_factors(self.index.records.record(slot));
        self.query.error(error.to_f32())
    }
}

/// Adds vertices to the pool where they are near enough, and says where the first of them is.
fn merge(pool: &mut Vec<Found>, new: &mut [Found], effort: usize) -> Option<usize> {
    new.sort_unstable();
    let (&first, old) = (new.first()?, pool.len());
    let at = pool.partition_point(|other| *other < first);
    if at >= effort {
        return None;
    }
    pool.extend_from_slice(new);
    // From the back, so that what lies between two new ones is moved once, as a whole.
    let mut end = old;
    for (rest, &found) in new.iter().enumerate().rev() {
        let to = pool.get(..end).unwrap_or_default().partition_point(|other| *other < found);
        pool.copy_within(to..end, to + rest + 1);
        if let Some(place) = pool.get_mut(to + rest) {
            *place = found;
        }
        end = to;
    }
    pool.truncate(effort);
    Some(at)
}
