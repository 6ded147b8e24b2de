//! The rows that a search may find.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::digest::Digest;
use crate::lists::List;
use crate::packed::Packed;
use crate::table::Table;
use crate::{FlatIndex, IvfIndex};

/// The rows that a search may find, compiled for the block scan: made once, used for any number of searches.
///
/// It belongs to the index that made it, as it is: after rows were changed or removed, make it again. The second search makes
/// a copy of what searches need of the rows, which the others find at hand: up to 0.5 KB a row where they are a few
/// thousand, else a code of one bit a dimension.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Ascending block numbers, each with the rows of that block; blocks without any are left out.
    pub(crate) blocks: Vec<(u32, u32)>,
    count: usize,
    kept: Arc<Kept>,
}

/// What was made for searches, each with the revision of the rows that it is of.
#[derive(Debug, Default)]
struct Kept {
    /// Whether there was a search: one alone is done before copies are made.
    used: AtomicBool,
    digest: OnceLock<(u64, Option<Digest>)>,
    packed: OnceLock<(u64, Packed)>,
}

/// With one row in so many, or more, their masks are written without sorting the rows.
const DENSE: usize = 256;
/// Rows a block, as [`limnion_simd::BlockShape::ROWS`].
const ROWS: u32 = limnion_simd::BlockShape::ROWS as u32;

impl Selection {
    fn of(blocks: Vec<(u32, u32)>) -> Self {
        let count = blocks.iter().map(|(_, mask)| mask.count_ones() as usize).sum();
        Self { blocks, count, kept: Arc::default() }
    }

    /// From rows in any order, each any number of times.
    pub(crate) fn from_rows(mut rows: Vec<u32>) -> Self {
        let last = rows.iter().max().map_or(0, |&row| row as usize);
        if last / DENSE < rows.len() {
            return Self::from_many(&rows, last);
        }
        rows.sort_unstable();
        rows.dedup();
        let mut blocks: Vec<(u32, u32)> = Vec::new();
        for row in &rows {
            let (block, bit) = (row / ROWS, 1 << (row % ROWS));
            match blocks.last_mut() {
                Some((last, mask)) if *last == block => *mask |= bit,
                _ => blocks.push((block, bit)),
            }
        }
        Self::of(blocks)
    }

    /// From so many rows that their masks are written at once.
    fn from_many(rows: &[u32], last: usize) -> Self {
        let mut masks = vec![0; last / ROWS as usize + 1];
        for row in rows {
            if let Some(mask) = masks.get_mut((row / ROWS) as usize) {
                *mask |= 1 << (row % ROWS);
            }
        }
        Self::of((0..).zip(masks).filter(|(_, mask)| *mask != 0).collect())
    }

    /// From one bool a row.
    pub(crate) fn from_mask(mask: &[bool]) -> Self {
        let blocks: Vec<(u32, u32)> = mask
            .chunks(ROWS as usize)
            .enumerate()
            .map(|(block, rows)| {
                let bits = rows.iter().enumerate().map(|(row, &allowed)| u32::from(allowed) << row);
                (block as u32, bits.fold(0, |mask, bit| mask | bit))
            })
            .filter(|&(_, mask)| mask != 0)
            .collect();
        Self::of(blocks)
    }

    /// The rows of this selection that are not in another.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut others = other.blocks.iter().peekable();
        let mut blocks = self.blocks.clone();
        blocks.retain_mut(|(block, mask)| {
            while others.next_if(|(other, _)| other < block).is_some() {}
            if let Some((_, out)) = others.next_if(|(other, _)| other == block) {
                *mask &= !out;
            }
            *mask != 0
        });
        Self::of(blocks)
    }

    /// Whether it allows a row.
    pub(crate) fn contains(&self, row: u32) -> bool {
        let at = self.blocks.binary_search_by_key(&(row / ROWS), |&(block, _)| block);
        at.ok().and_then(|at| self.blocks.get(at)).is_some_and(|(_, mask)| mask >> (row % ROWS) & 1 == 1)
    }

    /// How many rows it allows.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it allows none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The rows, ascending.
    pub(crate) fn rows(&self) -> impl Iterator<Item = u32> + '_ {
        self.blocks.iter().flat_map(|&(block, mask)| {
            (0..ROWS).filter(move |lane| mask >> lane & 1 == 1).map(move |lane| block * ROWS + lane)
        })
    }
}

impl Selection {
    /// The rows as bytes, from the second search on; `row_of` names the row in each place.
    pub(crate) fn digest(&self, table: &Table, row_of: impl Fn(u32) -> u32) -> Option<&Digest> {
        if !self.kept.used.swap(true, Ordering::Relaxed) {
            return None;
        }
        let make = || (table.revision, Digest::of(table, self.rows().map(row_of)));
        let (revision, digest) = self.kept.digest.get_or_init(make);
        digest.as_ref().filter(|_| *revision == table.revision)
    }

    /// What a search in lists needs; `then` is called with it. Its copies are made for the second search.
    pub(crate) fn with_packed<R>(&self, index: &IvfIndex, then: impl FnOnce(&Packed) -> R) -> R {
        let revision = index.revision();
        if self.kept.used.swap(true, Ordering::Relaxed) {
            let make = || (revision, Packed::of(index, self, true));
            let (made_at, packed) = self.kept.packed.get_or_init(make);
            if *made_at == revision {
                return then(packed);
            }
        }
        then(&Packed::of(index, self, false))
    }
}

/// Two selections are equal when they allow the same rows.
impl PartialEq for Selection {
    fn eq(&self, other: &Self) -> bool {
        self.blocks == other.blocks
    }
}

impl Eq for Selection {}

/// Hands on the blocks of a list in which rows are selected, with those rows.
pub(crate) fn selected(selection: &Selection, list: &List, mut then: impl FnMut(u32, u32)) {
    for run in list.runs() {
        let from = selection.blocks.partition_point(|&(block, _)| (block as usize) < run.start);
        let rest = selection.blocks.get(from..).unwrap_or_default();
        let within = rest.iter().take_while(|&&(block, _)| (block as usize) < run.end);
        within.for_each(|&(block, mask)| then(block, mask));
    }
}

impl FlatIndex {
    /// A number that is another after each change, and in each index but a clone: a selection that was made at this one is
    /// good as long as it stays.
    pub fn revision(&self) -> u64 {
        self.table.revision
    }

    /// All rows but those with these ids.
    pub fn select_all_but(&self, ids: &[u64]) -> Selection {
        Selection::from_mask(&self.table.all_but(ids))
    }
}

impl IvfIndex {
    /// A number that is another after each change, and in each index but a clone: a selection that was made at this one is
    /// good as long as it stays.
    pub fn revision(&self) -> u64 {
        self.table.revision
    }

    /// All rows but those with these ids. After the index changed, make it again.
    pub fn select_all_but(&self, ids: &[u64]) -> Selection {
        let mask = self.table.all_but(ids);
        let rows = (0..).zip(mask).filter(|(_, allowed)| *allowed);
        Selection::from_rows(rows.map(|(row, _)| self.lists.place(row)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::Selection;

    #[test]
    fn rows_and_masks_give_the_same_selection() {
        let rows = vec![70, 3, 64, 3, 31, 32];
        let mut mask = vec![false; 100];
        rows.iter().for_each(|&row: &u32| mask[row as usize] = true);
        let selection = Selection::from_rows(rows);
        assert_eq!(selection, Selection::from_mask(&mask));
        assert_eq!(selection.rows().collect::<Vec<_>>(), [3, 31, 32, 64, 70]);
        assert_eq!((selection.len(), selection.is_empty()), (5, false));
    }

    #[test]
    fn what_is_in_another_selection_can_be_left_out() {
        let (rows, out) = ([3, 31, 32, 64, 70, 200], [0, 31, 64, 65, 70, 100]);
        let left = Selection::from_rows(rows.to_vec()).without(&Selection::from_rows(out.to_vec()));
        assert_eq!(left, Selection::from_rows(vec![3, 32, 200]));
    }
}
