//! The scan: estimates of all rows of blocks for one or several queries, and the rows that may matter.

use std::ops::Range;

use crate::block::{BlockShape, FACTOR_BYTES};
use crate::level::Level;
use crate::lut::{Lut, UNIT};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use crate::memory::prefetch_line;
use crate::survivors::{BATCH, BlockRows, Survivors};

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

/// A block of a list whose rows are encoded around a centre of their own.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ListBlock {
    /// The number of the block.
    pub block: u32,
    /// The rows to consider: bit `i` for lane `i`.
    pub mask: u32,
    /// In place of [`Bound::g_add`].
    pub g_add: f32,
    /// In place of [`Bound::g_error`].
    pub g_error: f32,
}

/// Scans only the blocks of `list`, each with its own summand and factor of the bound, and returns the next index into
/// `list`: its length when done, less when a probe's survivors are full.
///
/// Otherwise as [`scan_selected`]. Many short lists in one pass are cheaper than a pass for each: blocks are fetched from
/// memory across their ends.
pub fn scan_lists(
    level: Level,
    shape: BlockShape,
    blocks: &[u8],
    first_row: u32,
    list: &[ListBlock],
    probes: &mut [Probe<'_>],
) -> usize {
    dispatch!(level, scan(Blocks { shape, bytes: blocks, first_row }, &list, probes))
}

/// Estimates every row of the first blocks, as many as fit in `estimates` and `errors`, which get 32 places a block: the
/// rows' estimates and their `f_error`, as [`scan`] works them out for [`Survivors`].
///
/// For who wants all of a few blocks, such as the codes of centres. Empty lanes have an infinite estimate.
///
/// ```
/// use limnion_simd::{BlockShape, Bound, Level, Lut, estimate_blocks};
/// let (level, shape) = (Level::current(), BlockShape::new(64).ok_or("no multiple of 64")?);
/// let mut block = vec![0; shape.block_bytes()];
/// shape.empty(&mut block);
/// let lut = Lut::new(level, &[0.25; 64]);
/// let bound = Bound { scale: lut.step(), bias: lut.bias(), g_add: 0.0, g_error: 0.0, threshold: 0.0 };
/// let (mut estimates, mut errors) = ([0.0; 32], [0.0; 32]);
/// estimate_blocks(level, shape, &block, &lut, &bound, &mut estimates, &mut errors);
/// assert_eq!(estimates, [f32::INFINITY; 32]);
/// # Ok::<(), &str>(())
/// ```
pub fn estimate_blocks(
    level: Level,
    shape: BlockShape,
    blocks: &[u8],
    lut: &Lut,
    bound: &Bound,
    estimates: &mut [f32],
    errors: &mut [f32],
) {
    let blocks = Blocks { shape, bytes: blocks, first_row: 0 };
    let out = estimates.as_chunks_mut().0.iter_mut().zip(errors.as_chunks_mut().0);
    dispatch!(level, estimates(blocks, lut, bound, out));
}

/// A run of blocks.
#[derive(Clone, Copy)]
struct Blocks<'a> {
    shape: BlockShape,
    bytes: &'a [u8],
    first_row: u32,
}

/// A block taken apart.
struct Block<'a> {
    /// The codes, as many units as are to be summed.
    codes: &'a [[u8; UNIT]],
    factors: &'a [u8; FACTOR_BYTES],
    /// The number of the row in lane 0.
    first_row: u32,
    /// The rows to consider.
    mask: u32,
}

impl<'a> Blocks<'a> {
    /// A block, if there is such a block, with codes of at most `units` units.
    #[inline(always)]
    fn block(&self, (number, mask): (usize, u32), units: usize) -> Option<Block<'a>> {
        let start = number.checked_mul(self.shape.block_bytes())?;
        let (codes, rest) = self.bytes.get(start..)?.split_at_checked(self.shape.codes_bytes())?;
        let first_row = (number as u32).wrapping_mul(BlockShape::ROWS as u32).wrapping_add(self.first_row);
        Some(Block {
            codes: codes.as_chunks().0.get(..units)?,
            factors: rest.first_chunk()?,
            first_row,
            mask,
        })
    }

    /// How many blocks ahead to prefetch: far enough for a block to arrive in time, from the last cache or, when
    /// there are more blocks than a cache holds, from memory.
    fn blocks_ahead(&self) -> usize {
        let bytes: usize = if self.bytes.len() < 32 << 20 { 4_096 } else { 16_384 };
        bytes.div_ceil(self.shape.block_bytes())
    }

    /// How many units the shape and the tables of all probes have.
    fn units(&self, probes: &[Probe<'_>]) -> usize {
        probes.iter().map(|probe| self.units_of(probe.lut)).min().unwrap_or(0)
    }

    /// How many units the shape and the tables of one query have.
    fn units_of(&self, lut: &Lut) -> usize {
        (lut.tables().len() / UNIT).min(self.shape.dim() / 32)
    }
}

/// A block's estimates and errors.
type Estimates<'a> = (&'a mut [f32; BlockShape::ROWS], &'a mut [f32; BlockShape::ROWS]);

/// Which blocks to scan, in which order, and which of their rows.
trait Items {
    fn positions(&self) -> Range<usize>;
    /// The block's number and its mask of rows.
    fn at(&self, position: usize) -> (usize, u32);
    /// The bound for the block's rows.
    #[inline(always)]
    fn bound(&self, _position: usize, bound: &Bound) -> Bound {
        *bound
    }
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

impl Items for &[ListBlock] {
    fn positions(&self) -> Range<usize> {
        0..self.len()
    }

    #[inline(always)]
    fn at(&self, position: usize) -> (usize, u32) {
        self.get(position).map_or((usize::MAX, 0), |item| (item.block as usize, item.mask))
    }

    #[inline(always)]
    fn bound(&self, position: usize, bound: &Bound) -> Bound {
        let Some(&ListBlock { g_add, g_error, .. }) = self.get(position) else { return *bound };
        Bound { g_add, g_error, ..*bound }
    }
}

/// Scans batch after batch by `scan_block`, which leaves its results in the given place of each probe's batch; the
/// loop of all levels.
#[inline(always)]
fn scan_batches(
    items: &impl Items,
    probes: &mut [Probe<'_>],
    mut scan_block: impl FnMut(usize, usize, &mut [Probe<'_>]),
) -> usize {
    let mut positions = items.positions();
    while !positions.is_empty() {
        let free = probes.iter().map(|probe| probe.survivors.free_blocks()).min();
        let batch = free.unwrap_or(BATCH).min(BATCH).min(positions.len());
        if batch == 0 {
            return positions.start;
        }
        for place in 0..batch {
            scan_block(positions.start + place, place, probes);
        }
        for probe in &mut *probes {
            probe.survivors.settle();
        }
        positions.start += batch;
    }
    positions.end
}

mod scalar {
    use half::f16;

    use super::{Block, BlockRows, Blocks, Bound, Estimates, Items, Lut, Probe, UNIT, scan_batches};

    pub(super) fn estimates<'a>(
        blocks: Blocks<'_>,
        lut: &Lut,
        query: &Bound,
        out: impl Iterator<Item = Estimates<'a>>,
    ) {
        let units = blocks.units_of(lut);
        let mut rows = BlockRows::NONE;
        for (number, (estimates, errors)) in out.enumerate() {
            let Some(block) = blocks.block((number, u32::MAX), units) else { return };
            bound(&block, &sums(&block, lut.tables()), query, &mut rows);
            (*estimates, *errors) = (rows.estimates, rows.errors);
        }
    }

    pub(super) fn scan(blocks: Blocks<'_>, items: &impl Items, probes: &mut [Probe<'_>]) -> usize {
        let units = blocks.units(probes);
        scan_batches(items, probes, |position, place, probes| {
            if let Some(block) = blocks.block(items.at(position), units) {
                for probe in probes {
                    let rows = &mut probe.survivors.batch[place];
                    rows.first_row = block.first_row;
                    probe.survivors.hits[place] = bound(
                        &block,
                        &sums(&block, probe.lut.tables()),
                        &items.bound(position, &probe.bound),
                        rows,
                    ) & block.mask;
                }
            }
        })
    }

    fn sums(block: &Block<'_>, tables: &[u8]) -> [u32; 32] {
        let mut sums = [0; 32];
        for (codes, tables) in block.codes.iter().zip(tables.chunks_exact(UNIT)) {
            for (index, &code) in codes.iter().enumerate() {
                let (half, byte, row) = (index / 64, index / 16 % 4, index % 16);
                let low = tables[byte * 16 + usize::from(code & 15)];
                let high = tables[64 + byte * 16 + usize::from(code >> 4)];
                sums[half * 16 + row] += u32::from(low) + u32::from(high);
            }
        }
        sums
    }

    fn bound(block: &Block<'_>, sums: &[u32; 32], bound: &Bound, rows: &mut BlockRows) -> u32 {
        let mut hits = 0;
        for (lane, &sum) in sums.iter().enumerate() {
            let [f_add, f_rescale, f_error] = [0, 64, 128].map(|start| {
                let place = start + 2 * lane;
                f16::from_le_bytes([block.factors[place], block.factors[place + 1]]).to_f32()
            });
            let ip = sum as f32 * bound.scale + bound.bias;
            let estimate = (f_add + bound.g_add) + f_rescale * ip;
            let lower = estimate - f_error * bound.g_error;
            hits |= u32::from(lower <= bound.threshold) << lane;
            (rows.estimates[lane], rows.errors[lane]) = (estimate, f_error);
        }
        hits
    }
}

/// Has one unit of a block that is scanned later fetched from memory.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
fn fetch(later: &[[u8; UNIT]], unit: usize) {
    if let Some(unit) = later.get(unit) {
        prefetch_line(unit.as_ptr());
        prefetch_line(unit[64..].as_ptr());
    }
}

/// The scan of one level, given
/// - `sums::<N>`, which looks up and adds up a block's codes for N probes, N up to `$most`, and calls `fetch` for each unit;
/// - `bound`, which turns sums into estimates, and says which rows survive.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! kernels {
    ($features:literal, $most:literal: $($count:literal)*) => {
        use super::{Block, Blocks, Estimates, Items, Lut, Probe, UNIT, fetch, scan_batches};
        use crate::memory::prefetch_line;

        #[target_feature(enable = $features)]
        pub(super) fn estimates<'a>(
            blocks: Blocks<'_>,
            lut: &Lut,
            query: &super::Bound,
            out: impl Iterator<Item = Estimates<'a>>,
        ) {
            let units = blocks.units_of(lut);
            let mut rows = super::BlockRows::NONE;
            for (number, (estimates, errors)) in out.enumerate() {
                let Some(block) = blocks.block((number, u32::MAX), units) else { return };
                let [sums] = sums(block.codes, [&lut.tables().as_chunks().0[..block.codes.len()]], &[]);
                bound(block.factors, &sums, query, &mut rows);
                (*estimates, *errors) = (rows.estimates, rows.errors);
            }
        }

        #[target_feature(enable = $features)]
        pub(super) fn scan(blocks: Blocks<'_>, items: &impl Items, probes: &mut [Probe<'_>]) -> usize {
            let units = blocks.units(probes);
            let ahead = blocks.blocks_ahead();
            scan_batches(items, probes, |position, place, probes| {
                let Some(block) = blocks.block(items.at(position), units) else { return };
                let later = blocks.block(items.at(position + ahead), units);
                let mut later = later.map_or(&[][..], |later| {
                    later.factors.chunks(64).for_each(|line| prefetch_line(line.as_ptr()));
                    later.codes
                });
                for probes in probes.chunks_mut($most) {
                    match probes.len() {
                        $($count => scan_block::<$count>(&block, later, place, items, position, probes),)*
                        _ => {}
                    }
                    // Once is enough.
                    later = &[];
                }
            })
        }

        /// Scans one block for N probes, and has the units of a later one fetched on the way: between additions there
        /// is room for it, while all at once they would hold up the loads.
        #[inline]
        #[target_feature(enable = $features)]
        fn scan_block<const N: usize>(
            block: &Block<'_>,
            later: &[[u8; UNIT]],
            place: usize,
            items: &impl Items,
            position: usize,
            probes: &mut [Probe<'_>],
        ) {
            let Some(probes) = probes.first_chunk_mut::<N>() else { return };
            let mut tables: [&[[u8; UNIT]]; N] = [&[]; N];
            for (tables, probe) in tables.iter_mut().zip(&*probes) {
                // As many units as the codes have, so that no access to a unit needs a check.
                *tables = &probe.lut.tables().as_chunks().0[..block.codes.len()];
            }
            let sums = sums(block.codes, tables, later);
            for (probe, sums) in probes.iter_mut().zip(&sums) {
                let rows = &mut probe.survivors.batch[place];
                rows.first_row = block.first_row;
                probe.survivors.hits[place] = bound(block.factors, sums, &items.bound(position, &probe.bound), rows) & block.mask;
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{BlockRows, Bound, FACTOR_BYTES};

    kernels!("avx2,f16c", 4: 1 2 3 4);

    /// Units after which a sum of 16 bits could overflow: each adds 4 bytes to it.
    const FLUSH: usize = 64;

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn sums<const N: usize>(
        codes: &[[u8; UNIT]],
        tables: [&[[u8; UNIT]]; N],
        later: &[[u8; UNIT]],
    ) -> [[u32; 32]; N] {
        let nibble = _mm256_set1_epi8(15);
        let mut sums = [[0; 32]; N];
        for start in (0..codes.len()).step_by(FLUSH) {
            for half in 0..2 {
                // All bytes as the low halves of words, and the odd bytes alone: the even ones follow from both.
                let mut all = [_mm256_setzero_si256(); N];
                let mut odd = [_mm256_setzero_si256(); N];
                for (unit, codes) in codes.iter().enumerate().skip(start).take(FLUSH) {
                    if half == 0 {
                        fetch(later, unit);
                    }
                    for pair in 0..2 {
                        let codes = load(codes, half * 64 + pair * 32);
                        let low = _mm256_and_si256(codes, nibble);
                        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), nibble);
                        for probe in 0..N {
                            let tables = &tables[probe][unit];
                            let low = _mm256_shuffle_epi8(load(tables, pair * 32), low);
                            let high = _mm256_shuffle_epi8(load(tables, 64 + pair * 32), high);
                            all[probe] = _mm256_add_epi16(all[probe], _mm256_add_epi16(low, high));
                            let odds =
                                _mm256_add_epi16(_mm256_srli_epi16::<8>(low), _mm256_srli_epi16::<8>(high));
                            odd[probe] = _mm256_add_epi16(odd[probe], odds);
                        }
                    }
                }
                for (sums, (all, odd)) in sums.iter_mut().zip(all.into_iter().zip(odd)) {
                    let even = _mm256_sub_epi16(all, _mm256_slli_epi16::<8>(odd));
                    let words = [_mm256_unpacklo_epi16(even, odd), _mm256_unpackhi_epi16(even, odd)];
                    for (sums, words) in sums[half * 16..].as_chunks_mut::<8>().0.iter_mut().zip(words) {
                        let first = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(words));
                        let second = _mm256_cvtepu16_epi32(_mm256_extracti128_si256::<1>(words));
                        let total = _mm256_add_epi32(_mm256_add_epi32(first, second), load_sums(sums));
                        // SAFETY: the array has the 32 bytes that are written; the store needs no alignment.
                        unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), total) };
                    }
                }
            }
        }
        sums
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn load(unit: &[u8; UNIT], start: usize) -> __m256i {
        let bytes: &[u8; 32] = &unit.as_chunks().0[start / 32];
        // SAFETY: the array has the 32 bytes that are read; the load needs no alignment.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn load_sums(sums: &[u32; 8]) -> __m256i {
        // SAFETY: the array has the 32 bytes that are read; the load needs no alignment.
        unsafe { _mm256_loadu_si256(sums.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn bound(factors: &[u8; FACTOR_BYTES], sums: &[u32; 32], bound: &Bound, rows: &mut BlockRows) -> u32 {
        let (scale, bias) = (_mm256_set1_ps(bound.scale), _mm256_set1_ps(bound.bias));
        let (g_add, g_error) = (_mm256_set1_ps(bound.g_add), _mm256_set1_ps(bound.g_error));
        let threshold = _mm256_set1_ps(bound.threshold);
        let factors: &[[u8; 16]] = factors.as_chunks().0;
        let mut hits = 0;
        for (index, sums) in sums.as_chunks().0.iter().enumerate() {
            let [f_add, f_rescale, f_error] =
                [factor(&factors[index]), factor(&factors[4 + index]), factor(&factors[8 + index])];
            let sums = _mm256_cvtepi32_ps(load_sums(sums));
            let ip = _mm256_add_ps(_mm256_mul_ps(sums, scale), bias);
            let estimate = _mm256_add_ps(_mm256_add_ps(f_add, g_add), _mm256_mul_ps(f_rescale, ip));
            let lower = _mm256_sub_ps(estimate, _mm256_mul_ps(f_error, g_error));
            let passed = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(lower, threshold)) as u32;
            hits |= passed << (index * 8);
            // SAFETY: index is under 4, and the arrays have 4 times the 32 bytes that are written.
            unsafe {
                _mm256_storeu_ps(rows.estimates.as_mut_ptr().add(index * 8), estimate);
                _mm256_storeu_ps(rows.errors.as_mut_ptr().add(index * 8), f_error);
            }
        }
        hits
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn factor(bits: &[u8; 16]) -> __m256 {
        // SAFETY: the array has the 16 bytes that are read; the load needs no alignment.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bits.as_ptr().cast()) })
    }
}

/// What both AVX-512 levels share.
#[cfg(target_arch = "x86_64")]
mod avx512_bound {
    use std::arch::x86_64::*;

    use super::{BlockRows, Bound, FACTOR_BYTES};

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn bound(
        factors: &[u8; FACTOR_BYTES],
        sums: &[u32; 32],
        bound: &Bound,
        rows: &mut BlockRows,
    ) -> u32 {
        let (scale, bias) = (_mm512_set1_ps(bound.scale), _mm512_set1_ps(bound.bias));
        let (g_add, g_error) = (_mm512_set1_ps(bound.g_add), _mm512_set1_ps(bound.g_error));
        let threshold = _mm512_set1_ps(bound.threshold);
        let factors: &[[u8; 32]] = factors.as_chunks().0;
        let mut hits = 0;
        for index in 0..2 {
            let [f_add, f_rescale, f_error] =
                [factor(&factors[index]), factor(&factors[2 + index]), factor(&factors[4 + index])];
            // SAFETY: index is under 2, and the array has 2 times the 64 bytes that are read.
            let sums = unsafe { _mm512_loadu_si512(sums.as_ptr().add(index * 16).cast()) };
            let sums = _mm512_cvtepi32_ps(sums);
            let ip = _mm512_add_ps(_mm512_mul_ps(sums, scale), bias);
            let estimate = _mm512_add_ps(_mm512_add_ps(f_add, g_add), _mm512_mul_ps(f_rescale, ip));
            let lower = _mm512_sub_ps(estimate, _mm512_mul_ps(f_error, g_error));
            hits |= u32::from(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(lower, threshold)) << (index * 16);
            // SAFETY: index is under 2, and the arrays have 2 times the 64 bytes that are written.
            unsafe {
                _mm512_storeu_ps(rows.estimates.as_mut_ptr().add(index * 16), estimate);
                _mm512_storeu_ps(rows.errors.as_mut_ptr().add(index * 16), f_error);
            }
        }
        hits
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn factor(bits: &[u8; 32]) -> __m512 {
        // SAFETY: the array has the 32 bytes that are read; the load needs no alignment.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(bits.as_ptr().cast()) })
    }

    /// Half of a unit.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn load(bytes: &[u8; 64]) -> __m512i {
        // SAFETY: the array has the 64 bytes that are read; the load needs no alignment.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::avx512_bound::{bound, load};

    kernels!("avx512f,avx512bw,avx512dq,avx512vl", 8: 1 2 3 4 5 6 7 8);

    /// Units after which a sum of 16 bits could overflow: each adds 2 bytes to it.
    const FLUSH: usize = 128;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn sums<const N: usize>(
        codes: &[[u8; UNIT]],
        tables: [&[[u8; UNIT]]; N],
        later: &[[u8; UNIT]],
    ) -> [[u32; 32]; N] {
        let nibble = _mm512_set1_epi8(15);
        let mut sums = [[0; 32]; N];
        for start in (0..codes.len()).step_by(FLUSH) {
            for half in 0..2 {
                // All bytes as the low halves of words, and the odd bytes alone: the even ones follow from both.
                let mut all = [_mm512_setzero_si512(); N];
                let mut odd = [_mm512_setzero_si512(); N];
                for (unit, codes) in codes.iter().enumerate().skip(start).take(FLUSH) {
                    if half == 0 {
                        fetch(later, unit);
                    }
                    let codes = load(&codes.as_chunks().0[half]);
                    let low = _mm512_and_si512(codes, nibble);
                    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), nibble);
                    for probe in 0..N {
                        let tables = tables[probe][unit].as_chunks().0;
                        let low = _mm512_shuffle_epi8(load(&tables[0]), low);
                        let high = _mm512_shuffle_epi8(load(&tables[1]), high);
                        all[probe] = _mm512_add_epi16(all[probe], _mm512_add_epi16(low, high));
                        let odds =
                            _mm512_add_epi16(_mm512_srli_epi16::<8>(low), _mm512_srli_epi16::<8>(high));
                        odd[probe] = _mm512_add_epi16(odd[probe], odds);
                    }
                }
                for (sums, (all, odd)) in sums.iter_mut().zip(all.into_iter().zip(odd)) {
                    let even = _mm512_sub_epi16(all, _mm512_slli_epi16::<8>(odd));
                    let words = [_mm512_unpacklo_epi16(even, odd), _mm512_unpackhi_epi16(even, odd)];
                    for (sums, words) in sums[half * 16..].as_chunks_mut::<8>().0.iter_mut().zip(words) {
                        let first = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(words));
                        let second = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(words));
                        let two = _mm512_add_epi32(first, second);
                        let total = _mm256_add_epi32(
                            _mm512_castsi512_si256(two),
                            _mm512_extracti64x4_epi64::<1>(two),
                        );
                        // SAFETY: the array has the 32 bytes that are read and written, at any alignment.
                        unsafe {
                            let before = _mm256_loadu_si256(sums.as_ptr().cast());
                            _mm256_storeu_si256(sums.as_mut_ptr().cast(), _mm256_add_epi32(before, total));
                        }
                    }
                }
            }
        }
        sums
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512vnni {
    use std::arch::x86_64::*;

    use super::avx512_bound::{bound, load};

    kernels!("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni", 8: 1 2 3 4 5 6 7 8);

    /// Half a unit is four bytes of sixteen rows, byte by byte: this brings the bytes of a row together.
    static BY_ROW: [u8; 64] = {
        let mut order = [0; 64];
        let mut index = 0;
        while index < 64 {
            order[index] = (index % 4 * 16 + index / 4) as u8;
            index += 1;
        }
        order
    };

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni")]
    fn sums<const N: usize>(
        codes: &[[u8; UNIT]],
        tables: [&[[u8; UNIT]]; N],
        later: &[[u8; UNIT]],
    ) -> [[u32; 32]; N] {
        let by_row = load(&BY_ROW);
        let nibble = _mm512_set1_epi8(15);
        // Which of the four tables of 16 entries each byte of a row looks in.
        let table = _mm512_set1_epi32(0x3020_1000);
        let ones = _mm512_set1_epi8(1);
        // With few probes two sums for each half keep the additions from waiting for each other.
        let second = usize::from(N <= 4);
        let mut lanes = [[[_mm512_setzero_si512(); 2]; 2]; N];
        for (unit, codes) in codes.iter().enumerate() {
            fetch(later, unit);
            let mut places = [[by_row; 2]; 2];
            for ([low, high], codes) in places.iter_mut().zip(codes.as_chunks().0) {
                let codes = _mm512_permutexvar_epi8(by_row, load(codes));
                // (codes & nibble) | table
                *low = _mm512_ternarylogic_epi32::<0xea>(codes, nibble, table);
                *high = _mm512_ternarylogic_epi32::<0xea>(_mm512_srli_epi32::<4>(codes), nibble, table);
            }
            for probe in 0..N {
                let tables = tables[probe][unit].as_chunks().0;
                let (low_table, high_table) = (load(&tables[0]), load(&tables[1]));
                for (lanes, [low, high]) in lanes[probe].iter_mut().zip(places) {
                    let low = _mm512_permutexvar_epi8(low, low_table);
                    let high = _mm512_permutexvar_epi8(high, high_table);
                    lanes[0] = _mm512_dpbusd_epi32(lanes[0], low, ones);
                    lanes[second] = _mm512_dpbusd_epi32(lanes[second], high, ones);
                }
            }
        }
        let mut sums = [[0; 32]; N];
        for (sums, lanes) in sums.iter_mut().zip(lanes) {
            for (sums, [first, second]) in sums.as_chunks_mut::<16>().0.iter_mut().zip(lanes) {
                // SAFETY: the array has the 64 bytes that are written; the store needs no alignment.
                unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), _mm512_add_epi32(first, second)) };
            }
        }
        sums
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    use super::{BlockRows, Bound, FACTOR_BYTES};
    use crate::vector::neon::widen_f16;

    kernels!("neon", 4: 1 2 3 4);

    /// Units after which a sum of 16 bits could overflow: each adds 8 bytes to it.
    const FLUSH: usize = 32;

    #[inline]
    #[target_feature(enable = "neon")]
    fn sums<const N: usize>(
        codes: &[[u8; UNIT]],
        tables: [&[[u8; UNIT]]; N],
        later: &[[u8; UNIT]],
    ) -> [[u32; 32]; N] {
        let mut sums = [[0; 32]; N];
        for start in (0..codes.len()).step_by(FLUSH) {
            for half in 0..2 {
                let mut words = [[vdupq_n_u16(0); 2]; N];
                for (unit, codes) in codes.iter().enumerate().skip(start).take(FLUSH) {
                    if half == 0 {
                        fetch(later, unit);
                    }
                    for byte in 0..4 {
                        let codes = load(codes, half * 4 + byte);
                        let (low, high) = (vandq_u8(codes, vdupq_n_u8(15)), vshrq_n_u8::<4>(codes));
                        for probe in 0..N {
                            let tables = &tables[probe][unit];
                            let low = vqtbl1q_u8(load(tables, byte), low);
                            let high = vqtbl1q_u8(load(tables, 4 + byte), high);
                            let words = &mut words[probe];
                            words[0] = vaddq_u16(words[0], vaddl_u8(vget_low_u8(low), vget_low_u8(high)));
                            words[1] = vaddq_u16(words[1], vaddl_high_u8(low, high));
                        }
                    }
                }
                for (sums, words) in sums.iter_mut().zip(words) {
                    for (sums, words) in sums[half * 16..].as_chunks_mut::<8>().0.iter_mut().zip(words) {
                        // SAFETY: the array has 8 u32, the 2 times 4 that are read and written.
                        unsafe {
                            let (first, second) = (sums.as_mut_ptr(), sums.as_mut_ptr().add(4));
                            vst1q_u32(first, vaddw_u16(vld1q_u32(first), vget_low_u16(words)));
                            vst1q_u32(second, vaddw_high_u16(vld1q_u32(second), words));
                        }
                    }
                }
            }
        }
        sums
    }

    /// Sixteen bytes of a unit.
    #[inline]
    #[target_feature(enable = "neon")]
    fn load(unit: &[u8; UNIT], index: usize) -> uint8x16_t {
        let bytes: &[u8; 16] = &unit.as_chunks().0[index];
        // SAFETY: the array has the 16 bytes that are read.
        unsafe { vld1q_u8(bytes.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn bound(factors: &[u8; FACTOR_BYTES], sums: &[u32; 32], bound: &Bound, rows: &mut BlockRows) -> u32 {
        let (scale, bias) = (vdupq_n_f32(bound.scale), vdupq_n_f32(bound.bias));
        let (g_add, g_error) = (vdupq_n_f32(bound.g_add), vdupq_n_f32(bound.g_error));
        let threshold = vdupq_n_f32(bound.threshold);
        // SAFETY: the array has the 16 bytes that are read.
        let lane = unsafe { vld1q_u32([1, 2, 4, 8].as_ptr()) };
        let factors: &[[u8; 8]] = factors.as_chunks().0;
        let mut hits = 0;
        for (index, sums) in sums.as_chunks::<4>().0.iter().enumerate() {
            let [f_add, f_rescale, f_error] =
                [factor(&factors[index]), factor(&factors[8 + index]), factor(&factors[16 + index])];
            // SAFETY: the array has the 16 bytes that are read.
            let sums = vcvtq_f32_u32(unsafe { vld1q_u32(sums.as_ptr()) });
            let ip = vaddq_f32(vmulq_f32(sums, scale), bias);
            let estimate = vaddq_f32(vaddq_f32(f_add, g_add), vmulq_f32(f_rescale, ip));
            let lower = vsubq_f32(estimate, vmulq_f32(f_error, g_error));
            hits |= vaddvq_u32(vandq_u32(vcleq_f32(lower, threshold), lane)) << (index * 4);
            // SAFETY: index is under 8, and the arrays have 8 times the 16 bytes that are written.
            unsafe {
                vst1q_f32(rows.estimates.as_mut_ptr().add(index * 4), estimate);
                vst1q_f32(rows.errors.as_mut_ptr().add(index * 4), f_error);
            }
        }
        hits
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn factor(bits: &[u8; 8]) -> float32x4_t {
        // SAFETY: the array has the 8 bytes that are read.
        widen_f16(unsafe { vld1_u16(bits.as_ptr().cast()) })
    }
}

#[cfg(test)]
mod tests {
    use half::f16;
    use proptest::prelude::*;

    use super::*;
    use crate::block::{Line, bytes, bytes_mut};
    use crate::testing::{agree, half, value};

    type Row = (Vec<u8>, [f16; 3]);

    fn blocks(shape: BlockShape, rows: &[Row]) -> Vec<Line> {
        let count = rows.len().div_ceil(BlockShape::ROWS);
        let mut lines = vec![Line::default(); count * shape.block_bytes() / 64];
        for (block, rows) in
            bytes_mut(&mut lines).chunks_mut(shape.block_bytes()).zip(rows.chunks(BlockShape::ROWS))
        {
            shape.empty(block);
            for (lane, (sign, [add, rescale, error])) in rows.iter().enumerate() {
                shape.write_row(block, lane, sign, *add, *rescale, *error);
            }
        }
        lines
    }

    /// The survivors of each probe, after as many calls as it takes.
    fn survivors(
        level: Level,
        luts: &[Lut],
        bounds: &[Bound],
        mut scan: impl FnMut(Level, usize, &mut [Probe<'_>]) -> usize,
        end: usize,
    ) -> Vec<Vec<(u32, u32, u32)>> {
        let mut found = vec![Vec::new(); luts.len()];
        let mut stores = vec![Survivors::new(64); luts.len()];
        let mut next = 0;
        loop {
            let mut probes: Vec<_> = luts
                .iter()
                .zip(bounds)
                .zip(&mut stores)
                .map(|((lut, &bound), survivors)| Probe { lut, bound, survivors })
                .collect();
            let before = next;
            next = scan(level, next, &mut probes);
            for (found, store) in found.iter_mut().zip(&mut stores) {
                let entries = store.as_slice().iter();
                found.extend(entries.map(|s| (s.row, s.estimate.to_bits(), s.error.to_bits())));
                store.clear();
            }
            if next == end {
                return found;
            }
            assert!(next > before, "the scan must move on");
        }
    }

    fn bound(lut: &Lut, threshold: f32) -> Bound {
        Bound { scale: lut.step(), bias: lut.bias(), g_add: 0.75, g_error: 1.5, threshold }
    }

    fn row(shape: BlockShape) -> impl Strategy<Value = Row> {
        (prop::collection::vec(any::<u8>(), shape.code_bytes()), [half(), half(), half()])
    }

    prop_compose! {
        fn case()(units in 1_usize..8, count in 1_usize..150, probes in 1_usize..=10)(
            shape in Just(BlockShape::new(units * 64).unwrap()),
            rows in prop::collection::vec(row(BlockShape::new(units * 64).unwrap()), count),
            queries in prop::collection::vec(prop::collection::vec(value(), units * 64), probes),
            masks in prop::collection::vec(any::<u32>(), count.div_ceil(32)),
            threshold in prop_oneof![Just(f32::MAX), Just(f32::MIN), -1e4_f32..1e4],
        ) -> (BlockShape, Vec<Row>, Vec<Vec<f32>>, Vec<u32>, f32) {
            (shape, rows, queries, masks, threshold)
        }
    }

    proptest! {
        #[test]
        fn levels_agree_on_all_survivors((shape, rows, queries, masks, threshold) in case()) {
            let lines = blocks(shape, &rows);
            let luts: Vec<_> = queries.iter().map(|query| Lut::new(Level::available()[0], query)).collect();
            let bounds: Vec<_> = luts.iter().map(|lut| bound(lut, threshold)).collect();
            let end = masks.len();
            let all = agree(|level| {
                let run = |level, next, probes: &mut [Probe<'_>]| scan(level, shape, bytes(&lines), 1_000, next..end, probes);
                survivors(level, &luts, &bounds, run, end)
            });

            // Backwards and with masks: the same rows, less those that are masked out.
            let list: Vec<_> = masks.iter().enumerate().map(|(block, &mask)| (block as u32, mask)).rev().collect();
            let mut selected = agree(|level| {
                let run = |level, next, probes: &mut [Probe<'_>]| {
                    next + scan_selected(level, shape, bytes(&lines), 1_000, &list[next..], probes)
                };
                survivors(level, &luts, &bounds, run, end)
            });
            for (all, selected) in all.iter().zip(&mut selected) {
                selected.sort_unstable();
                let mut kept: Vec<_> = all.iter().copied().filter(|(row, ..)| {
                    let row = (row - 1_000) as usize;
                    masks[row / 32] >> (row % 32) & 1 == 1
                }).collect();
                kept.sort_unstable();
                prop_assert_eq!(&kept, selected);
            }
        }
    }

    #[test]
    fn sums_stay_exact_where_16_bits_would_overflow() {
        for dim in [2_048, 4_096, 4_160, 8_256] {
            let shape = BlockShape::new(dim).unwrap();
            let one = f16::from_f32(1.0);
            let rows: Vec<Row> =
                (0..40).map(|row| (vec![0xff; dim / 8], [f16::from_f32(row as f32), one, one])).collect();
            let lines = blocks(shape, &rows);
            let lut = Lut::new(Level::available()[0], &vec![1.0; dim]);
            assert!(lut.tables().iter().skip(15).step_by(16).all(|&count| count == 255));
            let bound = Bound { scale: 1.0, bias: 0.0, g_add: 0.0, g_error: 0.0, threshold: f32::MAX };
            let found = agree(|level| {
                let run = |level, next, probes: &mut [Probe<'_>]| {
                    scan(level, shape, bytes(&lines), 0, next..2, probes)
                };
                survivors(level, std::slice::from_ref(&lut), &[bound], run, 2)
            });
            assert_eq!(found[0].len(), 40);
            for (row, &(number, estimate, _)) in found[0].iter().enumerate() {
                assert_eq!(number as usize, row);
                assert_eq!(f32::from_bits(estimate), (dim / 4 * 255 + row) as f32);
            }
        }
    }

    #[test]
    fn an_estimate_is_near_the_true_inner_product() {
        let shape = BlockShape::new(128).unwrap();
        let query: Vec<f32> = (0..128).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
        let sign: Vec<u8> = (0..16).map(|i| (i * 91 % 256) as u8).collect();
        let truth: f32 = (0..128).filter(|i| sign[i / 8] >> (i % 8) & 1 == 1).map(|i| query[i]).sum();
        let one = f16::from_f32(1.0);
        let lines = blocks(shape, &[(sign, [f16::ZERO, one, f16::ZERO])]);
        let lut = Lut::new(Level::available()[0], &query);
        let mut found = Survivors::new(64);
        let bound = Bound { g_add: 0.0, ..bound(&lut, f32::MAX) };
        let mut probes = [Probe { lut: &lut, bound, survivors: &mut found }];
        scan(Level::current(), shape, bytes(&lines), 0, 0..1, &mut probes);
        assert_eq!(found.len(), 1, "empty lanes never survive");
        assert!((found.as_slice()[0].estimate - truth).abs() <= lut.step() * 16.0);
    }

    #[test]
    fn a_pass_over_blocks_with_bounds_of_their_own_finds_what_a_pass_for_each_finds() {
        let shape = BlockShape::new(128).unwrap();
        let rows: Vec<Row> = (0..20 * 32)
            .map(|row: usize| {
                let sign = (0..16).map(|byte| (row * 37 + byte * 11) as u8).collect();
                (sign, [row as f32 / 50.0, -0.5 - row as f32 / 900.0, 0.3].map(f16::from_f32))
            })
            .collect();
        let (lines, query) = (blocks(shape, &rows), [0.25, -0.5, 0.75, 1.0].repeat(32));
        let lut = Lut::new(Level::available()[0], &query);
        let list: Vec<ListBlock> = [3_u32, 17, 4, 0, 9, 12, 11, 10, 19, 1]
            .into_iter()
            .map(|block| {
                let (g_add, g_error) = (block as f32 - 8.0, 1.0 + block as f32 / 4.0);
                ListBlock { block, mask: 0xFFFF_0FF1 ^ block, g_add, g_error }
            })
            .collect();
        agree(|level| {
            let (mut together, mut apart) = (Survivors::new(2_000), Survivors::new(2_000));
            let bound = bound(&lut, 0.0);
            let mut probes = [Probe { lut: &lut, bound, survivors: &mut together }];
            assert_eq!(scan_lists(level, shape, bytes(&lines), 0, &list, &mut probes), list.len());
            for &ListBlock { block, mask, g_add, g_error } in &list {
                let bound = Bound { g_add, g_error, ..bound };
                let mut probes = [Probe { lut: &lut, bound, survivors: &mut apart }];
                assert_eq!(scan_selected(level, shape, bytes(&lines), 0, &[(block, mask)], &mut probes), 1);
            }
            assert!(!together.is_empty() && together.len() < 320);
            assert_eq!(together.as_slice(), apart.as_slice());
        });
    }

    proptest! {
        #[test]
        fn estimates_of_all_rows_are_those_of_the_scan((shape, rows, queries, _, _) in case()) {
            let (lines, blocks) = (blocks(shape, &rows), rows.len().div_ceil(32));
            let lut = Lut::new(Level::available()[0], &queries[0]);
            let bound = bound(&lut, f32::MAX);
            let all = agree(|level| {
                // One block more than there is keeps what it has.
                let mut out = [vec![7.0; 32 * blocks + 32], vec![7.0; 32 * blocks + 32]];
                let [estimates, errors] = &mut out;
                estimate_blocks(level, shape, bytes(&lines), &lut, &bound, estimates, errors);
                out.map(|out| crate::testing::bits(&out))
            });
            let run = |level, next, probes: &mut [Probe<'_>]| {
                scan(level, shape, bytes(&lines), 0, next..blocks, probes)
            };
            let level = Level::available()[0];
            for (row, estimate, error) in survivors(level, std::slice::from_ref(&lut), &[bound], run, blocks)[0].iter().copied() {
                prop_assert_eq!([all[0][row as usize], all[1][row as usize]], [estimate, error]);
            }
            prop_assert_eq!(all[0][32 * blocks..].iter().all(|&bits| bits == 7.0_f32.to_bits()), true);
        }
    }

    #[test]
    fn what_does_not_exist_has_no_rows() {
        let shape = BlockShape::new(64).unwrap();
        let lines = blocks(shape, &[(vec![1; 8], [f16::ZERO; 3])]);
        let (lut, short) =
            (Lut::new(Level::available()[0], &[1.0; 64]), Lut::new(Level::available()[0], &[]));
        agree(|level| {
            let mut found = Survivors::new(64);
            let bound = bound(&lut, f32::MAX);
            let mut probes = [Probe { lut: &lut, bound, survivors: &mut found }];
            assert_eq!(scan(level, shape, bytes(&lines), 0, 1..9, &mut probes), 9);
            assert_eq!(scan(level, shape, &bytes(&lines)[..447], 0, 0..1, &mut probes), 1);
            let list = [(7, u32::MAX), (u32::MAX, u32::MAX), (0, 0)];
            assert_eq!(scan_selected(level, shape, bytes(&lines), 0, &list, &mut probes), 3);
            assert_eq!(scan(level, shape, bytes(&lines), 0, 0..1, &mut []), 1);
            assert!(found.is_empty());
            let mut probes = [Probe { lut: &short, bound, survivors: &mut found }];
            assert_eq!(scan(level, shape, bytes(&lines), 0, 0..1, &mut probes), 1);
            assert_eq!(found.len(), 1, "without tables each sum is zero");
        });
    }
}
