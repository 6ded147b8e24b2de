//! The rows that a search may find.

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
}
