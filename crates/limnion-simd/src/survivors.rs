//! The rows that survive a scan: collected block by block, handed out as a list.

use crate::block::BlockShape;

/// A row that survived a scan.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Survivor {
    /// The number of the row.
    pub row: u32,
    /// The estimate of its distance.
    pub estimate: f32,
    /// The row's `f_error`, without the query's `g_error`.
    pub error: f32,
}

/// The rows that survived a scan, in ascending order of row, in memory that is allocated once.
///
/// ```
/// use limnion_simd::Survivors;
/// let survivors = Survivors::new(1_024);
/// assert!(survivors.is_empty() && !survivors.is_full());
/// ```
#[derive(Clone, Debug)]
pub struct Survivors {
    entries: Vec<Survivor>,
    capacity: usize,
    /// The blocks that are scanned but not yet searched for survivors.
    pub(crate) batch: Box<[BlockRows; BATCH]>,
    /// The lanes of each that survived.
    pub(crate) hits: [u32; BATCH],
}

impl Survivors {
    /// Makes room for `capacity` survivors, rounded up to a multiple of 32 of at least 64.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(2 * BlockShape::ROWS).next_multiple_of(BlockShape::ROWS);
        let batch = Box::new([BlockRows::NONE; BATCH]);
        Self { entries: Vec::with_capacity(capacity), capacity, batch, hits: [0; BATCH] }
    }

    /// The survivors so far.
    #[must_use]
    pub fn as_slice(&self) -> &[Survivor] {
        &self.entries
    }

    /// Forgets the survivors and keeps the memory.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// How many there is room for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.capacity
    }

    /// How many survivors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a block more might not fit: fewer than 32 places are free.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.free_blocks() == 0
    }

    /// How many blocks fit, whatever survives of them.
    pub(crate) fn free_blocks(&self) -> usize {
        (self.capacity - self.entries.len()) / BlockShape::ROWS
    }

    /// Adds the survivors among the rows of the batch, and empties it.
    pub(crate) fn settle(&mut self) {
        let hits = std::mem::take(&mut self.hits);
        // Of most batches nothing survives, and all of their hits are one comparison.
        if hits == [0; BATCH] {
            return;
        }
        for (rows, mut hits) in self.batch.iter().zip(hits) {
            while hits != 0 {
                let lane = hits.trailing_zeros();
                let (estimate, error) = (rows.estimates[lane as usize], rows.errors[lane as usize]);
                self.entries.push(Survivor { row: rows.first_row.wrapping_add(lane), estimate, error });
                hits &= hits - 1;
            }
        }
    }
}

/// Blocks that are scanned before any of them is searched for survivors. Whether a row survives is hard to foresee for
/// a CPU: had it to know after each block, it would often wait for the end of a long chain of additions. It also
/// keeps half of the first cache free.
pub(crate) const BATCH: usize = 8;

/// The rows of a scanned block.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct BlockRows {
    pub(crate) estimates: [f32; BlockShape::ROWS],
    pub(crate) errors: [f32; BlockShape::ROWS],
    /// The number of the row in lane 0.
    pub(crate) first_row: u32,
}

impl BlockRows {
    pub(crate) const NONE: Self =
        Self { estimates: [0.0; BlockShape::ROWS], errors: [0.0; BlockShape::ROWS], first_row: 0 };
}
