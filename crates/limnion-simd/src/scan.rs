//! The scan: estimates of all rows of blocks for one or several queries, and the rows that may matter.

use std::ops::Range;

use crate::block::{BlockShape, FACTOR_BYTES};
use crate::level::Level;
use crate::lut::Lut;

/// What turns the table sums of a query into estimates and lower bounds.
///
/// For a row with table sum `sum` and factors `f_add`, `f_rescale`, `f_error` (f16, widened), each operation
/// rounded to f32:
///
/// ```text
/// ip       = sum * scale + bias
/// estimate = (f_add + g_add) + f_rescale * ip
/// lower    = estimate - f_error * g_error
/// survives when lower <= threshold
/// ```
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bound {
    /// What one count of the table sum stands for: [`Lut::step`], times what the caller folds in.
    pub scale: f32,
    /// What is added to the scaled sum: [`Lut::bias`], plus what the caller folds in.
    pub bias: f32,
    /// The query's part of the estimate.
    pub g_add: f32,
    /// The query's factor of the error bound.
    pub g_error: f32,
    /// The largest lower bound that survives, in units of the estimate; finite.
    pub threshold: f32,
}

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
}

impl Survivors {
    /// Makes room for `capacity` survivors, rounded up to a multiple of 32 of at least 64.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(2 * BlockShape::ROWS).next_multiple_of(BlockShape::ROWS);
        Self { entries: Vec::with_capacity(capacity), capacity }
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
        self.capacity - self.entries.len() < BlockShape::ROWS
    }
}

/// One query of a scan.
#[derive(Debug)]
pub struct Probe<'a> {
    /// The query's look-up tables.
    pub lut: &'a Lut,
    /// What turns table sums into bounds.
    pub bound: Bound,
    /// Where survivors are added.
    pub survivors: &'a mut Survivors,
}

/// Scans the blocks with numbers in `range` for all `probes` in one pass, and returns the number of the next block:
/// `range.end` when done, less when a probe's survivors are full (clear them and call again).
///
/// `blocks` is a run of whole blocks, best on a 64-byte boundary; `first_row` is the number of the row in lane 0 of
/// its first block. Several probes share the loads and the unpacking of codes: up to 8 a pass are cheaper than one
/// after the other. Where the tables and the shape differ in dimension, the smaller counts; block numbers beyond
/// `blocks` have no rows.
///
/// Costs about 0.7 ns a row of 384 dimensions at the best level, as long as the blocks are in the last cache.
///
/// ```
/// use half::f16;
/// use limnion_simd::{BlockShape, Bound, Level, Line, Lut, Probe, Survivors, bytes, bytes_mut, scan};
///
/// let level = Level::current();
/// let shape = BlockShape::new(64).ok_or("no multiple of 64")?;
/// let mut blocks = vec![Line::default(); shape.block_bytes() / 64];
/// shape.empty(bytes_mut(&mut blocks));
/// let (add, rescale, error) = (f16::from_f32(8.0), f16::from_f32(-1.0), f16::ZERO);
/// shape.write_row(bytes_mut(&mut blocks), 5, &[0xff; 8], add, rescale, error);
///
/// let lut = Lut::new(level, &[0.25; 64]);
/// let bound = Bound { scale: lut.step(), bias: lut.bias(), g_add: 0.0, g_error: 0.0, threshold: -7.0 };
/// let mut survivors = Survivors::new(64);
/// let mut probes = [Probe { lut: &lut, bound, survivors: &mut survivors }];
/// assert_eq!(scan(level, shape, bytes(&blocks), 100, 0..1, &mut probes), 1);
/// assert_eq!(survivors.as_slice()[0].row, 105);
/// assert_eq!(survivors.as_slice()[0].estimate, -8.0);
/// # Ok::<(), &str>(())
/// ```
pub fn scan(
    level: Level,
    shape: BlockShape,
    blocks: &[u8],
    first_row: u32,
    range: Range<usize>,
    probes: &mut [Probe<'_>],
) -> usize {
    dispatch!(level, scan(Blocks { shape, bytes: blocks, first_row }, &range, probes))
}

/// Scans only the blocks of `list`, each with a mask of the rows to consider (bit `i` for lane `i`), and returns the
/// next index into `list`: its length when done, less when a probe's survivors are full.
///
/// Otherwise as [`scan`]; a masked row never survives, whatever its bound.
pub fn scan_selected(
    level: Level,
    shape: BlockShape,
    blocks: &[u8],
    first_row: u32,
    list: &[(u32, u32)],
    probes: &mut [Probe<'_>],
) -> usize {
    dispatch!(level, scan(Blocks { shape, bytes: blocks, first_row }, &list, probes))
}

/// A run of blocks.
#[derive(Clone, Copy)]
struct Blocks<'a> {
    shape: BlockShape,
    bytes: &'a [u8],
    first_row: u32,
}

impl<'a> Blocks<'a> {
    /// The codes and the factors of a block, if there is such a block.
    #[inline(always)]
    fn block(&self, number: usize) -> Option<(&'a [u8], &'a [u8; FACTOR_BYTES])> {
        let start = number.checked_mul(self.shape.block_bytes())?;
        let (codes, rest) = self.bytes.get(start..)?.split_at_checked(self.shape.codes_bytes())?;
        Some((codes, rest.first_chunk()?))
    }

    #[inline(always)]
    fn row(&self, number: usize, lane: u32) -> u32 {
        (number as u32).wrapping_mul(BlockShape::ROWS as u32).wrapping_add(self.first_row).wrapping_add(lane)
    }
}

/// Which blocks to scan, in which order, and which of their rows.
trait Items {
    fn positions(&self) -> Range<usize>;
    /// The block's number and its mask of rows.
    fn at(&self, position: usize) -> (usize, u32);
}

impl Items for Range<usize> {
    fn positions(&self) -> Range<usize> {
        self.clone()
    }

    #[inline(always)]
    fn at(&self, position: usize) -> (usize, u32) {
        (position, u32::MAX)
    }
}

impl Items for &[(u32, u32)] {
    fn positions(&self) -> Range<usize> {
        0..self.len()
    }

    #[inline(always)]
    fn at(&self, position: usize) -> (usize, u32) {
        self.get(position).map_or((usize::MAX, 0), |&(number, mask)| (number as usize, mask))
    }
}

mod scalar {
    use half::f16;

    use super::{Blocks, FACTOR_BYTES, Items, Probe, Survivor};
    use crate::lut::UNIT;

    pub(super) fn scan(blocks: Blocks<'_>, items: &impl Items, probes: &mut [Probe<'_>]) -> usize {
        let positions = items.positions();
        for position in positions.clone() {
            if probes.iter().any(|probe| probe.survivors.is_full()) {
                return position;
            }
            let (number, mask) = items.at(position);
            let Some((codes, factors)) = blocks.block(number) else { continue };
            for probe in &mut *probes {
                let sums = sums(codes, probe.lut.tables());
                for lane in (0..32).filter(|lane| mask >> lane & 1 == 1) {
                    let [f_add, f_rescale, f_error] = factors_of(factors, lane);
                    let bound = &probe.bound;
                    let ip = sums[lane] as f32 * bound.scale + bound.bias;
                    let estimate = (f_add + bound.g_add) + f_rescale * ip;
                    if estimate - f_error * bound.g_error <= bound.threshold {
                        let row = blocks.row(number, lane as u32);
                        probe.survivors.entries.push(Survivor { row, estimate, error: f_error });
                    }
                }
            }
        }
        positions.end
    }

    fn sums(codes: &[u8], tables: &[u8]) -> [u32; 32] {
        let mut sums = [0; 32];
        for (codes, tables) in codes.chunks_exact(UNIT).zip(tables.chunks_exact(UNIT)) {
            for (index, &code) in codes.iter().enumerate() {
                let (half, byte, row) = (index / 64, index / 16 % 4, index % 16);
                let low = tables[byte * 16 + usize::from(code & 15)];
                let high = tables[64 + byte * 16 + usize::from(code >> 4)];
                sums[half * 16 + row] += u32::from(low) + u32::from(high);
            }
        }
        sums
    }

    fn factors_of(factors: &[u8; FACTOR_BYTES], lane: usize) -> [f32; 3] {
        [0, 64, 128].map(|start| {
            f16::from_le_bytes([factors[start + 2 * lane], factors[start + 2 * lane + 1]]).to_f32()
        })
    }
}
