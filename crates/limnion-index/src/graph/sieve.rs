//! What becomes of the vertices that were found: the best rows of them, measured as closely as the index can.

use limnion_simd::{BlockShape, Line, Survivor, Survivors};

use crate::exact::Exact;
use crate::graph::index::GraphIndex;
use crate::graph::walk::{Found, Walk};
use crate::search::NO_ROW;
use crate::top::{Ranked, Top};

/// Vertices that are scanned between two looks at what survived.
const PIECE: usize = 8 * BlockShape::ROWS;
/// Rows that are asked for ahead of their turn.
const AHEAD: usize = 4;

/// The best rows so far.
pub(crate) struct Sieve<'a> {
    index: &'a GraphIndex,
    walk: &'a Walk<'a>,
    /// Decides among rows whose codes have several bits.
    exact: Option<&'a Exact<'a>>,
    top: Top,
    /// The limit that the search began with.
    first_limit: f32,
    /// The reach at the limit that it was last asked for.
    reach: (f32, f32),
    /// Vertices that were looked at more closely than their sign bits.
    pub(crate) refined: usize,
    /// Vertices whose sign bits were scanned.
    pub(crate) scanned: usize,
}

impl<'a> Sieve<'a> {
    pub(crate) fn new(
        index: &'a GraphIndex,
        walk: &'a Walk<'a>,
        exact: Option<&'a Exact<'a>>,
        top: Top,
    ) -> Self {
        let exact = exact.filter(|_| index.params.bits > 1);
        let first_limit = top.limit();
        Self { index, walk, exact, top, first_limit, reach: (f32::NAN, 0.0), refined: 0, scanned: 0 }
    }

    /// The key that the next row must not exceed, in scaled units.
    fn limit(&self) -> f32 {
        (self.top.limit() * self.walk.unit()).min(f32::MAX)
    }

    /// What an error is to be multiplied by to bound a row at a limit.
    fn reach(&mut self, limit: f32) -> f32 {
        if self.reach.0 != limit {
            self.reach = (limit, self.walk.reach(limit));
        }
        self.reach.1
    }

    /// Takes the best of the vertices that a walk has found, nearest first.
    pub(crate) fn take(&mut self, found: &[Found]) {
        let fetch = |found: &Found| {
            if let Some(exact) = self.exact {
                exact.prefetch(self.index.places.row(found.slot()));
            }
        };
        found.iter().take(self.top.k()).for_each(fetch);
        for found in found {
            let limit = self.limit();
            if found.is_refined() {
                let error = if self.exact.is_some() { self.walk.error(found.slot()) } else { 0.0 };
                self.offer(found.slot(), found.key(), error, limit);
            } else if found.key() <= limit {
                self.refine(found.slot(), limit);
            }
        }
    }

    /// Scans the codes of vertices, and takes the best.
    pub(crate) fn scan(&mut self, slots: impl Iterator<Item = u32>) {
        let mut slots = slots.filter(|&slot| self.index.places.is_live(slot));
        let mut survivors = Survivors::new(PIECE);
        let (mut piece, mut blocks): (Vec<u32>, Vec<Line>) = (Vec::with_capacity(PIECE), Vec::new());
        loop {
            piece.clear();
            piece.extend(slots.by_ref().take(PIECE));
            if piece.is_empty() {
                return;
            }
            self.scanned += piece.len();
            let limit = self.limit();
            let bytes = self.index.records.gathered(&piece, &mut blocks);
            self.walk.scan(
                bytes,
                0,
                piece.len().div_ceil(BlockShape::ROWS),
                limit,
                self.walk.reach(limit),
                &mut survivors,
            );
            let mut waiting = survivors.as_slice().to_vec();
            survivors.clear();
            // The most promising bring the limit down for the others.
            waiting.sort_unstable_by(|a, b| a.estimate.total_cmp(&b.estimate).then(a.row.cmp(&b.row)));
            for (at, &Survivor { row, estimate, error }) in waiting.iter().enumerate() {
                if let Some(slot) = waiting.get(at + AHEAD).and_then(|later| piece.get(later.row as usize)) {
                    self.walk.fetch(*slot);
                }
                let limit = self.limit();
                let Some(&slot) = piece.get(row as usize) else { continue };
                if estimate - error * self.reach(limit) <= limit {
                    if self.walk.refines() {
                        self.refine(slot, limit);
                    } else {
                        self.offer(slot, estimate, error, limit);
                    }
                }
            }
        }
    }

    fn refine(&mut self, slot: u32, limit: f32) {
        let (estimate, error) = self.walk.refined(slot);
        self.refined += 1;
        self.offer(slot, estimate, error, limit);
    }

    fn offer(&mut self, slot: u32, estimate: f32, error: f32, limit: f32) {
        let row = self.index.places.row(slot);
        if row == NO_ROW {
            return;
        }
        let id = || self.index.table.ids.id(row);
        match self.exact {
            Some(exact) => {
                if estimate - error * self.reach(limit) <= limit {
                    self.top.offer(exact.key(row), id);
                }
            }
            None => self.top.offer(estimate / self.walk.unit(), id),
        }
    }

    /// Whether there are as many rows as are wanted.
    pub(crate) fn is_full(&self) -> bool {
        self.top.is_full()
    }

    /// How many rows are wanted.
    pub(crate) fn wanted(&self) -> usize {
        self.top.k()
    }

    /// Forgets what it has taken: a row must not be offered twice.
    pub(crate) fn forget(&mut self) {
        self.top = Top::new(self.top.k(), self.first_limit);
    }

    /// Whether rows may be no farther than a radius.
    pub(crate) fn is_bounded(&self) -> bool {
        self.first_limit < f32::MAX
    }

    /// What was kept, best first.
    pub(crate) fn into_ranked(self) -> Vec<Ranked> {
        self.top.into_sorted()
    }
}
