//! The rows of a selection for an index of lists: how many each list has, and their sign codes close together.
//!
//! Where one row in ten may be found, a block of 32 has three of them, and a scan of it does ten times the work that it
//! should. So the codes of the selected rows are copied into blocks of their own, list by list.

use limnion_simd::{BlockShape, Line, ListBlock, bytes, bytes_mut};

use crate::codes::Codes;
use crate::ivf::IvfIndex;
use crate::search::NO_ROW;
use crate::selection::{Selection, selected};

const ROWS: usize = BlockShape::ROWS;
/// Of more than one row in so many the codes are left where they are.
const SHARE: usize = 2;

/// What searches among selected rows need.
#[derive(Debug)]
pub(crate) struct Packed {
    /// How many rows of each list may be found.
    allowed: Vec<u32>,
    /// How many rows each list has.
    sizes: Vec<u32>,
    copies: Option<Copies>,
}

/// The sign codes of the rows.
#[derive(Debug)]
struct Copies {
    lines: Vec<Line>,
    /// The place that each code is copied from.
    places: Vec<u32>,
    /// The first block of each list.
    first: Vec<u32>,
}

impl Packed {
    /// With copies of codes, if they are worth it.
    pub(crate) fn of(index: &IvfIndex, selection: &Selection, copies: bool) -> Self {
        let mut allowed = vec![0; index.lists.len()];
        for &(block, mask) in &selection.blocks {
            if let Some(count) = index.lists.owner(block as usize).and_then(|list| allowed.get_mut(list)) {
                *count += mask.count_ones();
            }
        }
        let copies = copies && selection.len() <= index.len() / SHARE;
        let copies = copies.then(|| Copies::of(index, selection, &allowed));
        let sizes = index.lists.lists.iter().map(|list| list.len).collect();
        Self { allowed, sizes, copies }
    }

    pub(crate) fn allowed(&self) -> &[u32] {
        &self.allowed
    }

    /// The share of all rows that may be found.
    pub(crate) fn share(&self) -> f32 {
        self.allowed.iter().sum::<u32>() as f32 / self.sizes.iter().sum::<u32>().max(1) as f32
    }

    /// How many rows of the lists with such scores may be found, and how many there are.
    pub(crate) fn within(&self, scores: &[f32], limit: f32) -> (u32, u32) {
        let mut sums = (0, 0);
        for (&score, (&allowed, &size)) in scores.iter().zip(self.allowed.iter().zip(&self.sizes)) {
            // Nothing branches on what is hard to foresee.
            let within = u32::from(score <= limit).wrapping_neg();
            sums = (sums.0 + (within & allowed), sums.1 + (within & size));
        }
        sums
    }

    /// The blocks to scan, and the places of their rows where they are copies.
    pub(crate) fn codes<'a>(&'a self, codes: &'a Codes) -> (&'a [u8], Option<&'a [u32]>) {
        match &self.copies {
            Some(copies) => (bytes(&copies.lines), Some(&copies.places)),
            None => (codes.block_bytes(), None),
        }
    }

    /// The first block of a list.
    pub(crate) fn first(&self, list: usize) -> Option<u32> {
        self.copies.as_ref().and_then(|copies| copies.first.get(list)).copied()
    }

    /// Hands on the blocks of a list in which rows are selected.
    pub(crate) fn blocks(
        &self,
        index: &IvfIndex,
        selection: &Selection,
        list: usize,
        (g_add, g_error): (f32, f32),
        mut then: impl FnMut(ListBlock),
    ) {
        if let Some(first) = self.first(list) {
            let count = self.allowed.get(list).map_or(0, |count| count.div_ceil(ROWS as u32));
            (first..first + count)
                .for_each(|block| then(ListBlock { block, mask: u32::MAX, g_add, g_error }));
        } else if let Some(list) = index.lists.lists.get(list) {
            selected(selection, list, |block, mask| then(ListBlock { block, mask, g_add, g_error }));
        }
    }
}

impl Copies {
    fn of(index: &IvfIndex, selection: &Selection, allowed: &[u32]) -> Self {
        let (codes, shape) = (&index.codes, *index.codes.shape());
        let size = shape.block_bytes();
        let count: usize = allowed.iter().map(|&count| (count as usize).div_ceil(ROWS)).sum();
        let mut lines = vec![Line::default(); count * size / size_of::<Line>()];
        let mut places = vec![NO_ROW; count * ROWS];
        let mut first = Vec::with_capacity(allowed.len());
        let (mut next, mut signs) = (0, vec![0; shape.code_bytes()]);
        let copies: &mut [u8] = bytes_mut(&mut lines);
        for list in &index.lists.lists {
            next = usize::next_multiple_of(next, ROWS);
            first.push((next / ROWS) as u32);
            selected(selection, list, |block, mask| {
                let start = block as usize * size;
                let Some(from) = codes.block_bytes().get(start..start + size) else { return };
                let mut left = mask;
                while left != 0 {
                    let (lane, start) = (left.trailing_zeros(), next / ROWS * size);
                    left &= left - 1;
                    let Some(to) = copies.get_mut(start..start + size) else { return };
                    if next.is_multiple_of(ROWS) {
                        if mask == u32::MAX && lane == 0 {
                            to.copy_from_slice(from);
                            let all = block * ROWS as u32..;
                            let own = places.iter_mut().skip(next).take(ROWS);
                            own.zip(all).for_each(|(own, place)| *own = place);
                            next += ROWS;
                            return;
                        }
                        shape.empty(to);
                    }
                    shape.read_signs(from, lane as usize, &mut signs);
                    let [add, rescale, error] = shape.read_factors(from, lane as usize);
                    shape.write_row(to, next % ROWS, &signs, add, rescale, error);
                    if let Some(place) = places.get_mut(next) {
                        *place = block * ROWS as u32 + lane;
                    }
                    next += 1;
                }
            });
        }
        Self { lines, places, first }
    }
}
