//! The record: one row's sign code and factors in cache lines of its own, and the way from records to a block.
//!
//! A scan wants 32 rows side by side ([`BlockShape`]); whoever follows links wants one row at a time, at random places.
//! A record of dimension `dim` is `dim/8` bytes of sign code, `f_add`, `f_rescale` and `f_error` as f16, and zeros up to
//! the next whole line: one line up to 448 dimensions. [`gather`] brings any rows into blocks, for the scan.

use half::f16;

use crate::block::{BlockShape, Line};
use crate::level::Level;

/// Bytes of the factors in a record, a word of four bytes and one of which half is used.
const FACTORS: usize = 8;

impl BlockShape {
    /// Lines of a record.
    ///
    /// ```
    /// use limnion_simd::BlockShape;
    /// assert_eq!(BlockShape::new(384).map(BlockShape::record_lines), Some(1));
    /// assert_eq!(BlockShape::new(768).map(BlockShape::record_lines), Some(2));
    /// ```
    #[must_use]
    pub fn record_lines(self) -> usize {
        (self.code_bytes() + FACTORS).div_ceil(size_of::<Line>())
    }

    /// Writes a record: a sign code of [`code_bytes`](Self::code_bytes) bytes and the three factors.
    pub fn write_record(self, record: &mut [Line], sign: &[u8], factors: [f16; 3]) {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(record);
        bytes.fill(0);
        if let Some((code, rest)) = bytes.split_at_mut_checked(self.code_bytes()) {
            code.iter_mut().zip(sign).for_each(|(place, &byte)| *place = byte);
            for (place, factor) in rest.chunks_exact_mut(2).zip(factors) {
                place.copy_from_slice(&factor.to_le_bytes());
            }
        }
    }

    /// Makes a record that of no row.
    pub fn empty_record(self, record: &mut [Line]) {
        self.write_record(record, &[], [f16::INFINITY, f16::ZERO, f16::ZERO]);
    }

    /// The sign code of a record.
    #[must_use]
    pub fn record_signs(self, record: &[Line]) -> &[u8] {
        crate::bytes(record).get(..self.code_bytes()).unwrap_or_default()
    }

    /// `[f_add, f_rescale, f_error]` of a record.
    #[must_use]
    pub fn record_factors(self, record: &[Line]) -> [f16; 3] {
        let factors = crate::bytes(record).get(self.code_bytes()..).unwrap_or_default();
        match factors.first_chunk() {
            Some(&[a, b, c, d, e, f]) => [[a, b], [c, d], [e, f]].map(f16::from_le_bytes),
            None => [f16::INFINITY, f16::ZERO, f16::ZERO],
        }
    }
}

/// Writes the rows with these numbers, which are records of `records`, into the lanes of `blocks`, in their order. Lanes that
/// are left over are empty, and so are those of rows that do not exist; rows for which there is no block are left out.
///
/// ```
/// use half::f16;
/// use limnion_simd::{BlockShape, Level, Line, bytes, gather};
///
/// let shape = BlockShape::new(64).ok_or("no multiple of 64")?;
/// let mut records = vec![Line::default(); 3 * shape.record_lines()];
/// shape.write_record(&mut records[2..], &[0xa5; 8], [f16::ONE; 3]);
/// let mut block = vec![Line::default(); shape.block_bytes() / 64];
/// gather(Level::current(), shape, &records, &[7, 2], &mut block);
/// let mut signs = [0; 8];
/// shape.read_signs(bytes(&block), 1, &mut signs);
/// assert_eq!(signs, [0xa5; 8]);
/// assert_eq!(shape.read_factors(bytes(&block), 0)[0], f16::INFINITY);
/// # Ok::<(), &str>(())
/// ```
pub fn gather(level: Level, shape: BlockShape, records: &[Line], rows: &[u32], blocks: &mut [Line]) {
    let lines = shape.record_lines();
    let count = records.len() / lines;
    let blocks = blocks.chunks_exact_mut(shape.block_bytes() / size_of::<Line>());
    for (number, block) in blocks.enumerate() {
        let block: &mut [u8] = bytemuck::cast_slice_mut(block);
        let rows = rows.get(number * BlockShape::ROWS..).unwrap_or_default();
        let mut all = [0; BlockShape::ROWS];
        let mut missing = u32::MAX;
        for (lane, (place, &row)) in all.iter_mut().zip(rows).enumerate() {
            if (row as usize) < count {
                *place = row;
                missing &= !(1 << lane);
            }
        }
        if count == 0 {
            shape.empty(block);
            continue;
        }
        dispatch!(level, gather(shape, Records { lines: records, each: lines }, &all, block));
        while missing != 0 {
            shape.empty_lane(block, missing.trailing_zeros() as usize);
            missing &= missing - 1;
        }
    }
}

/// Records of one shape, of which there is at least one.
#[derive(Clone, Copy)]
struct Records<'a> {
    lines: &'a [Line],
    each: usize,
}

impl Records<'_> {
    /// A line of a record; of the first one where there is no such record.
    #[inline(always)]
    fn line(&self, row: u32, line: usize) -> &[u8; 64] {
        const NONE: &Line = &Line([0; 64]);
        &self.lines.get(row as usize * self.each + line).unwrap_or(NONE).0
    }
}

mod scalar {
    use super::{BlockShape, Records};

    pub(super) fn gather(
        shape: BlockShape,
        records: Records<'_>,
        rows: &[u32; BlockShape::ROWS],
        block: &mut [u8],
    ) {
        for (lane, &row) in rows.iter().enumerate() {
            let start = row as usize * records.each;
            let record = records.lines.get(start..start + records.each).unwrap_or_default();
            let [f_add, f_rescale, f_error] = shape.record_factors(record);
            shape.write_row(block, lane, shape.record_signs(record), f_add, f_rescale, f_error);
        }
    }
}

/// The gather of levels with vectors of 16 bytes, given `zip`, which interleaves the lower and the upper halves of two.
/// Sixteen bytes of sixteen rows become sixteen equal places of those rows by four such rounds.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! kernels {
    ($features:literal) => {
        use super::{BlockShape, Records};

        #[target_feature(enable = $features)]
        pub(super) fn gather(
            shape: BlockShape,
            records: Records<'_>,
            rows: &[u32; BlockShape::ROWS],
            block: &mut [u8],
        ) {
            let units = shape.code_bytes() / 16;
            let mut tail = [0; 16];
            for (half, rows) in rows.as_chunks::<16>().0.iter().enumerate() {
                for unit in 0..shape.code_bytes().div_ceil(16) {
                    let mut places = [load(&tail); 16];
                    for (place, &row) in places.iter_mut().zip(rows) {
                        *place = load(&records.line(row, unit / 4).as_chunks().0[unit % 4]);
                    }
                    for _ in 0..4 {
                        let mut next = places;
                        for (pair, next) in next.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                            *next = zip(places[pair], places[pair + 8]);
                        }
                        places = next;
                    }
                    // The last unit may be half codes and half factors.
                    let bytes = if unit < units { 16 } else { shape.code_bytes() % 16 };
                    for (byte, &place) in places.iter().take(bytes).enumerate() {
                        let index = unit * 16 + byte;
                        let start = index / 4 * 128 + half * 64 + index % 4 * 16;
                        store(&mut tail, place);
                        if let Some(place) = block.get_mut(start..start + 16) {
                            place.copy_from_slice(&tail);
                        }
                    }
                }
            }
            for (lane, &row) in rows.iter().enumerate() {
                let start = row as usize * records.each;
                shape.copy_factors(
                    block,
                    lane,
                    records.lines.get(start..start + records.each).unwrap_or_default(),
                );
            }
        }
    };
}

impl BlockShape {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn copy_factors(self, block: &mut [u8], lane: usize, record: &[Line]) {
        let factors = crate::bytes(record).get(self.code_bytes()..).unwrap_or_default();
        for (index, factor) in factors.chunks_exact(2).take(3).enumerate() {
            let start = self.codes_bytes() + (index * Self::ROWS + lane) * 2;
            if let Some(place) = block.get_mut(start..start + 2) {
                place.copy_from_slice(factor);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    kernels!("avx2,f16c");

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn load(from: &[u8; 16]) -> __m128i {
        // SAFETY: the array has the 16 bytes that are read; the load needs no alignment.
        unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn store(to: &mut [u8; 16], x: __m128i) {
        // SAFETY: the array has the 16 bytes that are written; the store needs no alignment.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), x) }
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn zip(a: __m128i, b: __m128i) -> [__m128i; 2] {
        [_mm_unpacklo_epi8(a, b), _mm_unpackhi_epi8(a, b)]
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{BlockShape, Records};

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn gather(
        shape: BlockShape,
        records: Records<'_>,
        rows: &[u32; BlockShape::ROWS],
        block: &mut [u8],
    ) {
        let words = shape.code_bytes() / 4;
        for (half, rows) in rows.as_chunks::<16>().0.iter().enumerate() {
            for line in 0..records.each {
                let columns = columns(records, rows, line);
                for (at, &column) in columns.iter().enumerate() {
                    let word = line * 16 + at;
                    if word < words {
                        let start = word * 128 + half * 64;
                        if let Some(place) = block.get_mut(start..).and_then(<[u8]>::first_chunk_mut::<64>) {
                            // SAFETY: the array has the 64 bytes that are written; the store needs no alignment.
                            unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), by_place(column)) };
                        }
                    } else if word == words {
                        store_halves(block, words * 128 + half * 32, column);
                        store_halves(block, words * 128 + 64 + half * 32, _mm512_srli_epi32::<16>(column));
                    } else if word == words + 1 {
                        store_halves(block, words * 128 + 128 + half * 32, column);
                    }
                }
            }
        }
    }

    /// The lower halves of sixteen words.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn store_halves(block: &mut [u8], start: usize, words: __m512i) {
        if let Some(place) = block.get_mut(start..).and_then(<[u8]>::first_chunk_mut::<32>) {
            // SAFETY: the array has the 32 bytes that are written; the store needs no alignment.
            unsafe { _mm256_storeu_si256(place.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(words)) };
        }
    }

    /// Words of sixteen rows, as the block has them: byte by byte.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn by_place(words: __m512i) -> __m512i {
        let order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        let within = _mm512_shuffle_epi8(words, _mm512_broadcast_i32x4(order));
        let across = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm512_permutexvar_epi32(across, within)
    }

    /// The sixteen words of one line, each of all sixteen rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn columns(records: Records<'_>, numbers: &[u32; 16], line: usize) -> [__m512i; 16] {
        let mut rows = [_mm512_setzero_si512(); 16];
        for (row, &number) in rows.iter_mut().zip(numbers) {
            let bytes = records.line(number, line);
            // SAFETY: the array has the 64 bytes that are read; the load needs no alignment.
            *row = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
        }
        // Words, then pairs of them, change places within quarters; then the quarters do.
        let mut pairs = rows;
        for (pairs, rows) in pairs.as_chunks_mut::<2>().0.iter_mut().zip(rows.as_chunks::<2>().0) {
            *pairs = [_mm512_unpacklo_epi32(rows[0], rows[1]), _mm512_unpackhi_epi32(rows[0], rows[1])];
        }
        let mut fours = pairs;
        for (fours, &[a, b, c, d]) in fours.as_chunks_mut::<4>().0.iter_mut().zip(pairs.as_chunks::<4>().0) {
            *fours = [
                _mm512_unpacklo_epi64(a, c),
                _mm512_unpackhi_epi64(a, c),
                _mm512_unpacklo_epi64(b, d),
                _mm512_unpackhi_epi64(b, d),
            ];
        }
        let mut columns = fours;
        for word in 0..4 {
            let [a, b, c, d] = [fours[word], fours[4 + word], fours[8 + word], fours[12 + word]];
            let (ab, cd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d));
            let (odd_ab, odd_cd) = (_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(c, d));
            columns[word] = _mm512_shuffle_i32x4::<0x88>(ab, cd);
            columns[4 + word] = _mm512_shuffle_i32x4::<0x88>(odd_ab, odd_cd);
            columns[8 + word] = _mm512_shuffle_i32x4::<0xdd>(ab, cd);
            columns[12 + word] = _mm512_shuffle_i32x4::<0xdd>(odd_ab, odd_cd);
        }
        columns
    }
}

#[cfg(target_arch = "x86_64")]
use avx512 as avx512vnni;

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    kernels!("neon");

    #[inline]
    #[target_feature(enable = "neon")]
    fn load(from: &[u8; 16]) -> uint8x16_t {
        // SAFETY: the array has the 16 bytes that are read.
        unsafe { vld1q_u8(from.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn store(to: &mut [u8; 16], x: uint8x16_t) {
        // SAFETY: the array has the 16 bytes that are written.
        unsafe { vst1q_u8(to.as_mut_ptr(), x) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn zip(a: uint8x16_t, b: uint8x16_t) -> [uint8x16_t; 2] {
        [vzip1q_u8(a, b), vzip2q_u8(a, b)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bytes;
    use crate::testing::agree;

    fn records(shape: BlockShape, count: usize) -> Vec<Line> {
        let mut records = vec![Line::default(); count * shape.record_lines()];
        for (row, record) in records.chunks_exact_mut(shape.record_lines()).enumerate() {
            let sign: Vec<u8> = (0..shape.code_bytes()).map(|at| (row * 37 + at * 11) as u8).collect();
            shape.write_record(record, &sign, [0, 1, 2].map(|at| f16::from_f32((row * 3 + at) as f32)));
        }
        records
    }

    proptest! {
        #[test]
        fn levels_agree_and_rows_are_where_they_belong(
            units in 1_usize..20,
            rows in prop::collection::vec(0_u32..50, 0..70),
        ) {
            let shape = BlockShape::new(units * 64).unwrap();
            let records = records(shape, 40);
            let blocks = agree(|level| {
                let mut blocks = vec![Line([0xcc; 64]); 2 * shape.block_bytes() / 64];
                gather(level, shape, &records, &rows, &mut blocks);
                blocks
            });
            let mut signs = vec![0; shape.code_bytes()];
            for lane in 0..64 {
                let block = &bytes(&blocks)[lane / 32 * shape.block_bytes()..][..shape.block_bytes()];
                let factors = shape.read_factors(block, lane % 32);
                match rows.get(lane).filter(|row| **row < 40) {
                    Some(&row) => {
                        let record = &records[row as usize * shape.record_lines()..][..shape.record_lines()];
                        shape.read_signs(block, lane % 32, &mut signs);
                        prop_assert_eq!(&signs[..], shape.record_signs(record));
                        prop_assert_eq!(factors, shape.record_factors(record));
                    }
                    None => prop_assert_eq!(factors[0], f16::INFINITY),
                }
            }
        }
    }
}
