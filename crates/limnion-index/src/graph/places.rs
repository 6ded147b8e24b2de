//! Which row each vertex of a graph is of, and back.

use std::sync::OnceLock;

use crate::search::NO_ROW;
use crate::storage::Storage;

/// Vertices lie in slots in an order in which near ones are close; rows lie in the order in which they came.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The row in each slot, [`NO_ROW`] where it was removed: such a vertex still leads to others.
    rows: Storage<u32>,
    /// How many slots have a row.
    live: usize,
    /// The slot of each row, made when first asked for: searches have no use for it.
    slots: OnceLock<Vec<u32>>,
}

impl Places {
    pub(crate) fn new(rows: Storage<u32>) -> Self {
        let live = rows.iter().filter(|&&row| row != NO_ROW).count();
        Self { rows, live, slots: OnceLock::new() }
    }

    /// Whether every row has exactly one slot.
    pub(crate) fn are_whole(&self, count: usize) -> bool {
        let mut seen = vec![false; count];
        self.live == count
            && self
                .rows
                .iter()
                .filter(|&&row| row != NO_ROW)
                .all(|&row| seen.get_mut(row as usize).is_some_and(|seen| !std::mem::replace(seen, true)))
    }

    pub(crate) fn rows(&self) -> &Storage<u32> {
        &self.rows
    }

    /// How many slots there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// How many of them have no row.
    pub(crate) fn dead(&self) -> usize {
        self.rows.len() - self.live
    }

    /// The row in a slot, [`NO_ROW`] where there is none.
    pub(crate) fn row(&self, slot: u32) -> u32 {
        self.rows.get(slot as usize).copied().unwrap_or(NO_ROW)
    }

    pub(crate) fn is_live(&self, slot: u32) -> bool {
        self.row(slot) != NO_ROW
    }

    /// The slot of a row.
    pub(crate) fn slot(&self, row: u32) -> u32 {
        self.slots().get(row as usize).copied().unwrap_or(NO_ROW)
    }

    fn slots(&self) -> &Vec<u32> {
        self.slots.get_or_init(|| {
            let mut slots = vec![NO_ROW; self.live];
            for (slot, &row) in (0..).zip(self.rows.iter()) {
                if let Some(place) = slots.get_mut(row as usize) {
                    *place = slot;
                }
            }
            slots
        })
    }

    /// A new slot for a row: one beyond the last, or one that has lost its slot.
    pub(crate) fn push(&mut self, row: u32) -> u32 {
        self.slots();
        let slot = self.rows.len() as u32;
        self.rows.to_mut().push(row);
        self.live += 1;
        if let Some(slots) = self.slots.get_mut() {
            if slots.len() <= row as usize {
                slots.resize(row as usize + 1, NO_ROW);
            }
            if let Some(place) = slots.get_mut(row as usize) {
                *place = slot;
            }
        }
        slot
    }

    /// Takes its slot from a row.
    pub(crate) fn take(&mut self, row: u32) {
        let slot = self.slot(row);
        if let Some(place) = self.rows.to_mut().get_mut(slot as usize) {
            *place = NO_ROW;
            self.live -= 1;
        }
        if let Some(place) = self.slots.get_mut().and_then(|slots| slots.get_mut(row as usize)) {
            *place = NO_ROW;
        }
    }

    /// Takes away a row that has no slot; the last row gets its number.
    pub(crate) fn forget(&mut self, row: u32, last: u32) {
        let moved = self.slot(last);
        if let Some(slots) = self.slots.get_mut() {
            slots.swap_remove(row as usize);
        }
        if row != last
            && let Some(place) = self.rows.to_mut().get_mut(moved as usize)
        {
            *place = row;
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.rows.heap_bytes() + self.slots.get().map_or(0, |slots| 4 * slots.capacity())
    }
}
