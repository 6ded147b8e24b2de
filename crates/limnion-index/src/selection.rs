//! The rows that a search may find.

use crate::{FlatIndex, IvfIndex};

/// The rows that a search may find, compiled for the block scan: made once, used for any number of searches.
///
/// It belongs to the index that made it, as it is: after rows were removed, make it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Ascending block numbers, each with the rows of that block; blocks without any are left out.
    pub(crate) blocks: Vec<(u32, u32)>,
    count: usize,
}

/// Rows a block, as [`limnion_simd::BlockShape::ROWS`].
const ROWS: u32 = limnion_simd::BlockShape::ROWS as u32;

impl Selection {
    /// From rows in any order, each any number of times.
    pub(crate) fn from_rows(mut rows: Vec<u32>) -> Self {
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
        Self { blocks, count: rows.len() }
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
        let count = blocks.iter().map(|(_, mask)| mask.count_ones() as usize).sum();
        Self { blocks, count }
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
        let count = blocks.iter().map(|(_, mask)| mask.count_ones() as usize).sum();
        Self { blocks, count }
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
