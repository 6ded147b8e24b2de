//! Which blocks each list has, and which row lies in each place of them.

use std::sync::OnceLock;

use limnion_simd::BlockShape;

use crate::search::NO_ROW;
use crate::storage::Storage;

const ROWS: usize = BlockShape::ROWS;

/// One list: the rows round one centre.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct List {
    /// Its blocks; all but the last are full.
    pub(crate) blocks: Vec<u32>,
    pub(crate) len: u32,
    /// The least and the largest ‖r‖² of any row it ever held, in scaled units.
    pub(crate) squares: (f32, f32),
}

impl List {
    pub(crate) const EMPTY: Self = Self { blocks: Vec::new(), len: 0, squares: (f32::MAX, 0.0) };

    /// The place of its row number `at`.
    fn place(&self, at: u32) -> u32 {
        self.blocks.get(at as usize / ROWS).map_or(NO_ROW, |block| block * ROWS as u32 + at % ROWS as u32)
    }

    /// Runs of blocks that follow each other.
    pub(crate) fn runs(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        self.blocks.chunk_by(|a, b| a + 1 == *b).filter_map(|run| {
            let (first, last) = (*run.first()? as usize, *run.last()? as usize);
            Some(first..last + 1)
        })
    }

    /// The places of its rows.
    pub(crate) fn places(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.len).map(|at| self.place(at))
    }
}

/// What is known of the lengths in each list.
pub(crate) struct Noted {
    squares: Vec<(f32, f32)>,
    means: Vec<f32>,
}

/// All lists.
#[derive(Debug, Clone)]
pub(crate) struct Lists {
    pub(crate) lists: Vec<List>,
    /// The mean of ‖r‖² of the rows that each list was given: apart, as every search reads it of all lists.
    pub(crate) mean_squares: Vec<f32>,
    /// The row in each place, [`NO_ROW`] where there is none.
    rows: Storage<u32>,
    /// The list that each block is of, [`NO_ROW`] for those that are free.
    owners: Vec<u32>,
    free: Vec<u32>,
    /// The place of each row, made when first asked for: searches have no use for it.
    places: OnceLock<Vec<u32>>,
}

impl Lists {
    /// Lays rows out: those of a list together, in their order.
    pub(crate) fn of(nearest: &[u32], count: usize) -> Self {
        let mut members = vec![Vec::new(); count];
        for (row, &list) in (0..).zip(nearest) {
            if let Some(members) = members.get_mut(list as usize) {
                members.push(row);
            }
        }
        let mut rows = Vec::new();
        let mut lists = Vec::with_capacity(count);
        let mut owners = Vec::new();
        for (list, mut members) in (0..).zip(members) {
            let (first, len) = ((rows.len() / ROWS) as u32, members.len());
            let blocks: Vec<u32> = (first..).take(len.div_ceil(ROWS)).collect();
            members.resize(blocks.len() * ROWS, NO_ROW);
            owners.resize(owners.len() + blocks.len(), list);
            rows.append(&mut members);
            lists.push(List { blocks, len: len as u32, ..List::EMPTY });
        }
        Self { mean_squares: vec![0.0; count], ..Self::with_owners(lists, Storage::new(rows), owners) }
    }

    /// Lists as a file has them: their blocks follow each other.
    pub(crate) fn from_parts(lists: Vec<List>, mean_squares: Vec<f32>, rows: Storage<u32>) -> Self {
        let owners = (0..).zip(&lists).flat_map(|(number, list)| list.blocks.iter().map(move |_| number));
        let owners = owners.collect();
        Self { mean_squares, ..Self::with_owners(lists, rows, owners) }
    }

    fn with_owners(lists: Vec<List>, rows: Storage<u32>, owners: Vec<u32>) -> Self {
        let (mean_squares, free, places) = (Vec::new(), Vec::new(), OnceLock::new());
        Self { lists, mean_squares, rows, owners, free, places }
    }

    /// Takes note of the least, the largest and the sum of so many rows' ‖r‖², the rows being counted already.
    pub(crate) fn note_all(&mut self, list: usize, squares: (f32, f32), sum: f32, rows: u32) {
        if let (Some(list), Some(mean)) = (self.lists.get_mut(list), self.mean_squares.get_mut(list)) {
            list.squares = (list.squares.0.min(squares.0), list.squares.1.max(squares.1));
            *mean += (sum - *mean * rows as f32) / list.len.max(1) as f32;
        }
    }

    /// What was noted of all lists, to be taken back by [`Lists::note_again`].
    pub(crate) fn noted(&self) -> Noted {
        Noted {
            squares: self.lists.iter().map(|list| list.squares).collect(),
            means: self.mean_squares.clone(),
        }
    }

    pub(crate) fn note_again(&mut self, noted: Noted) {
        for (list, squares) in self.lists.iter_mut().zip(noted.squares) {
            list.squares = squares;
        }
        self.mean_squares = noted.means;
    }

    /// Forgets what was noted of a list that has no rows any more.
    pub(crate) fn forget(&mut self, list: usize) {
        if let (Some(list), Some(mean)) = (self.lists.get_mut(list), self.mean_squares.get_mut(list)) {
            (list.squares, *mean) = (List::EMPTY.squares, 0.0);
        }
    }

    /// Whether the blocks of each list lie together, in the order of the lists, and none is free.
    pub(crate) fn is_compact(&self) -> bool {
        let blocks = self.lists.iter().flat_map(|list| &list.blocks);
        self.free.is_empty() && blocks.zip(0..).all(|(&block, next)| block == next)
    }

    /// Whether every row has exactly one place, and no place that should be empty has a row.
    pub(crate) fn are_whole(&self, count: usize) -> bool {
        let mut seen = vec![false; count];
        let mut held = 0;
        for list in &self.lists {
            for place in list.places() {
                match seen.get_mut(self.row(place) as usize) {
                    Some(seen) if !*seen => *seen = true,
                    _ => return false,
                }
                held += 1;
            }
        }
        held == count && self.rows.iter().filter(|&&row| row != NO_ROW).count() == count
    }

    pub(crate) fn len(&self) -> usize {
        self.lists.len()
    }

    /// Squared lengths are in another unit now.
    pub(crate) fn rescale(&mut self, factor: f32) {
        self.mean_squares.iter_mut().for_each(|square| *square *= factor);
        for list in &mut self.lists {
            list.squares.1 *= factor;
            if list.squares.0 < f32::MAX {
                list.squares.0 *= factor;
            }
        }
    }

    pub(crate) fn block_count(&self) -> usize {
        self.owners.len()
    }

    /// The row in each place.
    pub(crate) fn rows(&self) -> &Storage<u32> {
        &self.rows
    }

    pub(crate) fn row(&self, place: u32) -> u32 {
        self.rows.get(place as usize).copied().unwrap_or(NO_ROW)
    }

    /// The list that a block is of.
    pub(crate) fn owner(&self, block: usize) -> Option<usize> {
        self.owners.get(block).copied().filter(|&list| list != NO_ROW).map(|list| list as usize)
    }

    /// The list that a place is of.
    pub(crate) fn list_of(&self, place: u32) -> Option<usize> {
        self.owner(place as usize / ROWS)
    }

    pub(crate) fn place(&self, row: u32) -> u32 {
        self.places().get(row as usize).copied().unwrap_or(NO_ROW)
    }

    fn places(&self) -> &Vec<u32> {
        self.places.get_or_init(|| {
            let count = self.lists.iter().map(|list| list.len as usize).sum();
            let mut places = vec![NO_ROW; count];
            for (place, &row) in (0..).zip(self.rows.iter()) {
                if let Some(entry) = places.get_mut(row as usize) {
                    *entry = place;
                }
            }
            places
        })
    }

    /// Puts a row at the end of a list and returns its place. A row beyond the last is a new one.
    pub(crate) fn push(&mut self, list: usize, row: u32) -> u32 {
        self.places();
        let Self { lists, rows, owners, free, places, .. } = self;
        let Some(entry) = lists.get_mut(list) else { return NO_ROW };
        if entry.len as usize == entry.blocks.len() * ROWS {
            let block = free.pop().unwrap_or_else(|| {
                owners.push(NO_ROW);
                (owners.len() - 1) as u32
            });
            entry.blocks.push(block);
            if let Some(owner) = owners.get_mut(block as usize) {
                *owner = list as u32;
            }
            rows.to_mut().resize(owners.len() * ROWS, NO_ROW);
        }
        let place = entry.place(entry.len);
        entry.len += 1;
        if let Some(entry) = rows.to_mut().get_mut(place as usize) {
            *entry = row;
        }
        if let Some(places) = places.get_mut() {
            if places.len() <= row as usize {
                places.resize(row as usize + 1, NO_ROW);
            }
            if let Some(entry) = places.get_mut(row as usize) {
                *entry = place;
            }
        }
        place
    }

    /// Takes the row out of a place; the last one of its list takes it, if it is another. Returns the place that is
    /// empty now.
    pub(crate) fn take(&mut self, place: u32) -> u32 {
        self.places();
        let Some(list) = self.list_of(place) else { return NO_ROW };
        let Some(entry) = self.lists.get_mut(list).filter(|entry| entry.len > 0) else { return NO_ROW };
        entry.len -= 1;
        let last = entry.place(entry.len);
        if entry.len as usize <= (entry.blocks.len() - 1) * ROWS
            && let Some(block) = entry.blocks.pop()
        {
            if let Some(owner) = self.owners.get_mut(block as usize) {
                *owner = NO_ROW;
            }
            self.free.push(block);
        }
        let (gone, moved) = (self.row(place), self.row(last));
        let rows = self.rows.to_mut();
        if let Some(entry) = rows.get_mut(place as usize) {
            *entry = moved;
        }
        if let Some(entry) = rows.get_mut(last as usize) {
            *entry = NO_ROW;
        }
        if let Some(places) = self.places.get_mut() {
            if let Some(entry) = places.get_mut(moved as usize) {
                *entry = place;
            }
            if let Some(entry) = places.get_mut(gone as usize) {
                *entry = NO_ROW;
            }
        }
        last
    }

    /// Row `from`, the last one, is called `to` from now on.
    pub(crate) fn rename(&mut self, from: u32, to: u32) {
        let place = self.place(from);
        if let Some(entry) = self.rows.to_mut().get_mut(place as usize) {
            *entry = to;
        }
        if let Some(places) = self.places.get_mut() {
            if let Some(entry) = places.get_mut(to as usize) {
                *entry = place;
            }
            places.truncate(from as usize);
        }
    }

    /// A further list, without rows.
    pub(crate) fn add(&mut self) -> usize {
        self.lists.push(List::EMPTY);
        self.mean_squares.push(0.0);
        self.lists.len() - 1
    }

    /// Removes a list without rows; the last one takes its number.
    pub(crate) fn remove(&mut self, list: usize) {
        self.lists.swap_remove(list);
        self.mean_squares.swap_remove(list);
        for block in self.lists.get(list).map_or(&[][..], |moved| &moved.blocks) {
            if let Some(owner) = self.owners.get_mut(*block as usize) {
                *owner = list as u32;
            }
        }
    }

    /// Whether so many blocks are free that it is worth to move the others together.
    pub(crate) fn is_sparse(&self) -> bool {
        self.free.len() > 16 && self.free.len() > self.owners.len() / 4
    }

    /// Moves the blocks of each list together, without gaps, and returns the old number of each new block.
    pub(crate) fn compact(&mut self) -> Vec<u32> {
        let order: Vec<u32> = self.lists.iter().flat_map(|list| list.blocks.iter().copied()).collect();
        let mut next = 0;
        for list in &mut self.lists {
            for block in &mut list.blocks {
                *block = next;
                next += 1;
            }
        }
        self.owners =
            (0..).zip(&self.lists).flat_map(|(n, list)| list.blocks.iter().map(move |_| n)).collect();
        let old = std::mem::replace(&mut self.rows, Storage::new(Vec::new()));
        let run = |block: &u32| old.get(*block as usize * ROWS..(*block as usize + 1) * ROWS);
        self.rows = Storage::new(order.iter().filter_map(run).flatten().copied().collect());
        self.free = Vec::new();
        self.places = OnceLock::new();
        order
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let lists: usize = self.lists.iter().map(|list| 4 * list.blocks.capacity()).sum();
        lists
            + self.lists.capacity() * (size_of::<List>() + size_of::<f32>())
            + self.rows.heap_bytes()
            + 4 * (self.owners.capacity() + self.free.capacity())
            + self.places.get().map_or(0, |places| 4 * places.capacity())
    }
}
