//! Packed codes of 1 to 7 bits a dimension, and their dot product with a query.
//!
//! Dimensions come in chunks of 64. A chunk of `bits` bits takes `8 bits` bytes, made of up to three *planes*, one
//! for each power of two in `bits`, widest first, holding the lower bits of the values first:
//!
//! ```text
//! plane   bytes  byte i of the plane, from the lowest bit up
//! 4 bits    32   dimensions i, 32 + i
//! 2 bits    16   dimensions i, 16 + i, 32 + i, 48 + i
//! 1 bit      8   dimensions 8i, 8i + 1, ... 8i + 7
//!
//! bits 7: planes 4, 2, 1 hold value bits 0..4, 4..6, 6      bits 3: planes 2, 1 hold 0..2, 2
//! bits 6: planes 4, 2    hold value bits 0..4, 4..6         bits 2: plane 2
//! bits 5: planes 4, 1    hold value bits 0..4, 4            bits 1: plane 1
//! bits 4: plane 4
//! ```
//!
//! So widening bytes to words, one shift and one mask give dimensions in their natural order.

use crate::level::Level;

/// Dimensions of a chunk.
const CHUNK: usize = 64;

/// Bytes of a packed code of `dim` dimensions, a multiple of 64.
///
/// ```
/// assert_eq!(limnion_simd::code::row_bytes(384, 4), 192);
/// ```
#[must_use]
pub fn row_bytes(dim: usize, bits: u8) -> usize {
    dim / CHUNK * (CHUNK / 8) * usize::from(bits)
}

/// Packs `values`, each under 2 to the power of `bits`, into `out`, of [`row_bytes`] bytes.
///
/// The number of values should be a multiple of 64, and `bits` in 1..=7: whole chunks that fit are written, and
/// with other `bits` nothing is (and debug builds stop).
///
/// ```
/// use limnion_simd::code::{pack, unpack};
/// let values: Vec<u8> = (0..64).map(|i| i % 8).collect();
/// let mut code = [0; 24];
/// pack(&values, 3, &mut code);
/// let mut back = [0; 64];
/// unpack(&code, 3, &mut back);
/// assert_eq!(back[..], values);
/// ```
pub fn pack(values: &[u8], bits: u8, out: &mut [u8]) {
    if !valid(bits) {
        return;
    }
    let chunks = values.chunks_exact(CHUNK).zip(out.chunks_exact_mut(row_bytes(CHUNK, bits)));
    for (values, out) in chunks {
        out.fill(0);
        for plane in Plane::of(bits) {
            for (dim, value) in values.iter().enumerate() {
                let (byte, shift) = plane.place(dim);
                out[byte] |= (value >> plane.lowest & plane.mask()) << shift;
            }
        }
    }
}

/// Unpacks a code made by [`pack`] into `values`.
pub fn unpack(code: &[u8], bits: u8, values: &mut [u8]) {
    if !valid(bits) {
        return;
    }
    let chunks = values.chunks_exact_mut(CHUNK).zip(code.chunks_exact(row_bytes(CHUNK, bits)));
    for (values, code) in chunks {
        values.fill(0);
        for plane in Plane::of(bits) {
            for (dim, value) in values.iter_mut().enumerate() {
                let (byte, shift) = plane.place(dim);
                *value |= (code[byte] >> shift & plane.mask()) << plane.lowest;
            }
        }
    }
}

/// The dot product of a packed code and a query of whole numbers: exact for |query| ≤ 8,191 and up to 65,536
/// dimensions.
///
/// Whole chunks of 64 dimensions count, as many as both have. With `bits` outside of 1..=7 the result is 0 (and
/// debug builds stop).
///
/// ```
/// use limnion_simd::Level;
/// use limnion_simd::code::{dot_code, pack};
/// let mut code = [0; 32];
/// pack(&[3; 64], 4, &mut code);
/// assert_eq!(dot_code(Level::current(), &code, 4, &[-100; 64]), -19_200);
/// ```
#[must_use]
pub fn dot_code(level: Level, code: &[u8], bits: u8, query: &[i16]) -> i64 {
    if !valid(bits) {
        return 0;
    }
    dispatch!(level, dot_code(code, bits, query))
}

fn valid(bits: u8) -> bool {
    let valid = (1..=7).contains(&bits);
    debug_assert!(valid, "codes have 1 to 7 bits a dimension, not {bits}");
    valid
}

/// A plane of a chunk.
#[derive(Clone, Copy)]
struct Plane {
    /// Bits a dimension.
    width: u8,
    /// The lowest bit of a value that the plane holds.
    lowest: u8,
    /// Where the plane begins in the chunk.
    offset: usize,
}

impl Plane {
    fn of(bits: u8) -> impl Iterator<Item = Self> {
        [4, 2, 1].into_iter().filter(move |width| bits & width != 0).map(move |width| {
            let lowest = bits & !(2 * width - 1);
            Self { width, lowest, offset: row_bytes(CHUNK, lowest) }
        })
    }

    /// The byte of the chunk, and the bit in it, where a dimension begins.
    fn place(self, dim: usize) -> (usize, usize) {
        let (byte, shift) = match self.width {
            4 => (dim % 32, dim / 32 * 4),
            2 => (dim % 16, dim / 16 * 2),
            _ => (dim / 8, dim % 8),
        };
        (self.offset + byte, shift)
    }

    fn mask(self) -> u8 {
        (1 << self.width) - 1
    }
}

mod scalar {
    use super::{CHUNK, row_bytes, unpack};

    pub(super) fn dot_code(code: &[u8], bits: u8, query: &[i16]) -> i64 {
        let mut sum = 0;
        let mut values = [0; CHUNK];
        for (code, query) in code.chunks_exact(row_bytes(CHUNK, bits)).zip(query.chunks_exact(CHUNK)) {
            unpack(code, bits, &mut values);
            sum += values.iter().zip(query).map(|(&v, &q)| i64::from(v) * i64::from(q)).sum::<i64>();
        }
        sum
    }
}

/// The most chunks that a kernel adds up in 32 bits: all products of 32 chunks, 2,048 times 127 times 8,191, stay
/// under 2^31.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const FLUSH: usize = 32;

/// The dot product at one width of vector, given `chunk_sums`, which adds the products of one chunk to lanes of 32
/// bits.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! kernels {
    ($features:literal) => {
        use super::{CHUNK, FLUSH};

        #[target_feature(enable = $features)]
        pub(super) fn dot_code(code: &[u8], bits: u8, query: &[i16]) -> i64 {
            match bits {
                1 => dot::<1, 8>(code, query),
                2 => dot::<2, 16>(code, query),
                3 => dot::<3, 24>(code, query),
                4 => dot::<4, 32>(code, query),
                5 => dot::<5, 40>(code, query),
                6 => dot::<6, 48>(code, query),
                _ => dot::<7, 56>(code, query),
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn dot<const BITS: u8, const BYTES: usize>(code: &[u8], query: &[i16]) -> i64 {
            let runs =
                code.as_chunks::<BYTES>().0.chunks(FLUSH).zip(query.as_chunks::<CHUNK>().0.chunks(FLUSH));
            let mut total = 0;
            for (code, query) in runs {
                // Two sums, so that an addition need not wait for the one before it.
                let mut sums = [zero(); 2];
                for (code, query) in code.iter().zip(query) {
                    add_chunk::<BITS, BYTES>(&mut sums, code, query);
                }
                total += i64::from(sum(sums));
            }
            total
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    kernels!("avx2,f16c");

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn zero() -> __m256i {
        _mm256_setzero_si256()
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn sum([first, second]: [__m256i; 2]) -> i32 {
        let sums = _mm256_add_epi32(first, second);
        let four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        let two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
        _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<1>(two)))
    }

    /// Sixteen bytes as words.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn widen(bytes: &[u8], start: usize) -> __m256i {
        let bytes = bytes[start..].first_chunk::<16>().map_or(_mm_setzero_si128(), |bytes| {
            // SAFETY: the array has the 16 bytes that are read; the load needs no alignment.
            unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
        });
        _mm256_cvtepu8_epi16(bytes)
    }

    /// Dimensions 16 `quarter` .. 16 `quarter` + 16 of a chunk, as words.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn values<const BITS: u8, const BYTES: usize>(code: &[u8; BYTES], quarter: usize) -> __m256i {
        let mut values = zero();
        if BITS & 4 != 0 {
            let words = widen(code, quarter % 2 * 16);
            let shifted = if quarter < 2 { words } else { _mm256_srli_epi16::<4>(words) };
            values = _mm256_and_si256(shifted, _mm256_set1_epi16(15));
        }
        if BITS & 2 != 0 {
            let words = widen(code, if BITS & 4 != 0 { 32 } else { 0 });
            let shifted = match quarter {
                0 => words,
                1 => _mm256_srli_epi16::<2>(words),
                2 => _mm256_srli_epi16::<4>(words),
                _ => _mm256_srli_epi16::<6>(words),
            };
            let plane = _mm256_and_si256(shifted, _mm256_set1_epi16(3));
            values =
                _mm256_or_si256(values, if BITS & 4 != 0 { _mm256_slli_epi16::<4>(plane) } else { plane });
        }
        if BITS & 1 != 0 {
            let start = BYTES - 8 + quarter * 2;
            let bits = i16::from_le_bytes([code[start], code[start + 1]]);
            let lane = _mm256_setr_epi16(
                1,
                2,
                4,
                8,
                16,
                32,
                64,
                128,
                256,
                512,
                1024,
                2048,
                4096,
                8192,
                16384,
                i16::MIN,
            );
            let set = _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16(bits), lane), lane);
            let weight = _mm256_set1_epi16(1 << (BITS & 6));
            values = _mm256_or_si256(values, _mm256_and_si256(set, weight));
        }
        values
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn add_chunk<const BITS: u8, const BYTES: usize>(
        sums: &mut [__m256i; 2],
        code: &[u8; BYTES],
        query: &[i16; CHUNK],
    ) {
        for (quarter, query) in query.as_chunks::<16>().0.iter().enumerate() {
            // SAFETY: the array has the 32 bytes that are read; the load needs no alignment.
            let query = unsafe { _mm256_loadu_si256(query.as_ptr().cast()) };
            let products = _mm256_madd_epi16(values::<BITS, BYTES>(code, quarter), query);
            sums[quarter % 2] = _mm256_add_epi32(sums[quarter % 2], products);
        }
    }
}

/// The AVX-512 kernel, with the multiply-add that the level has.
#[cfg(target_arch = "x86_64")]
macro_rules! avx512_kernels {
    ($features:literal) => {
        use std::arch::x86_64::*;

        kernels!($features);

        #[inline]
        #[target_feature(enable = $features)]
        fn zero() -> __m512i {
            _mm512_setzero_si512()
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn sum([first, second]: [__m512i; 2]) -> i32 {
            _mm512_reduce_add_epi32(_mm512_add_epi32(first, second))
        }

        /// Dimensions 0..32 and 32..64 of a chunk, as words.
        #[inline]
        #[target_feature(enable = $features)]
        fn values<const BITS: u8, const BYTES: usize>(code: &[u8; BYTES]) -> [__m512i; 2] {
            let mut values = [zero(); 2];
            if BITS & 4 != 0
                && let Some(plane) = code.first_chunk::<32>()
            {
                // SAFETY: the array has the 32 bytes that are read; the load needs no alignment.
                let words = _mm512_cvtepu8_epi16(unsafe { _mm256_loadu_si256(plane.as_ptr().cast()) });
                values = [_mm512_and_si512(words, _mm512_set1_epi16(15)), _mm512_srli_epi16::<4>(words)];
            }
            let start = if BITS & 4 != 0 { 32 } else { 0 };
            if BITS & 2 != 0
                && let Some(plane) = code[start..].first_chunk::<16>()
            {
                // SAFETY: the array has the 16 bytes that are read; the load needs no alignment.
                let bytes = unsafe { _mm_loadu_si128(plane.as_ptr().cast()) };
                // Both halves hold the same words; the upper half takes the bits two places higher.
                let words = _mm512_cvtepu8_epi16(_mm256_broadcastsi128_si256(bytes));
                let words = if BITS & 4 != 0 { _mm512_slli_epi16::<4>(words) } else { words };
                let mask = _mm512_set1_epi16(if BITS & 4 != 0 { 0x30 } else { 3 });
                let first = _mm512_srlv_epi16(words, _mm512_inserti64x4::<1>(zero(), _mm256_set1_epi16(2)));
                let second = _mm512_srli_epi16::<4>(first);
                values = [
                    _mm512_or_si512(values[0], _mm512_and_si512(first, mask)),
                    _mm512_or_si512(values[1], _mm512_and_si512(second, mask)),
                ];
            }
            if BITS & 1 != 0
                && let Some(&plane) = code.last_chunk::<8>()
            {
                let bits = u64::from_le_bytes(plane);
                let weight = _mm512_set1_epi16(1 << (BITS & 6));
                values = [
                    _mm512_mask_add_epi16(values[0], bits as u32, values[0], weight),
                    _mm512_mask_add_epi16(values[1], (bits >> 32) as u32, values[1], weight),
                ];
            }
            values
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn add_chunk<const BITS: u8, const BYTES: usize>(
            sums: &mut [__m512i; 2],
            code: &[u8; BYTES],
            query: &[i16; CHUNK],
        ) {
            let halves = values::<BITS, BYTES>(code).into_iter().zip(query.as_chunks::<32>().0);
            for (sums, (values, query)) in sums.iter_mut().zip(halves) {
                // SAFETY: the array has the 64 bytes that are read; the load needs no alignment.
                let query = unsafe { _mm512_loadu_si512(query.as_ptr().cast()) };
                *sums = multiply_add(*sums, values, query);
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    avx512_kernels!("avx512f,avx512bw,avx512dq,avx512vl");

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn multiply_add(sums: __m512i, values: __m512i, query: __m512i) -> __m512i {
        _mm512_add_epi32(sums, _mm512_madd_epi16(values, query))
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512vnni {
    avx512_kernels!("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni");

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn multiply_add(sums: __m512i, values: __m512i, query: __m512i) -> __m512i {
        _mm512_dpwssd_epi32(sums, values, query)
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    kernels!("neon");

    #[inline]
    #[target_feature(enable = "neon")]
    fn zero() -> int32x4_t {
        vdupq_n_s32(0)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn sum([first, second]: [int32x4_t; 2]) -> i32 {
        vaddvq_s32(vaddq_s32(first, second))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn load(bytes: &[u8], start: usize) -> uint8x16_t {
        bytes[start..].first_chunk::<16>().map_or(vdupq_n_u8(0), |bytes| {
            // SAFETY: the array has the 16 bytes that are read.
            unsafe { vld1q_u8(bytes.as_ptr()) }
        })
    }

    /// Dimensions 16 `quarter` .. 16 `quarter` + 16 of a chunk.
    #[inline]
    #[target_feature(enable = "neon")]
    fn values<const BITS: u8, const BYTES: usize>(code: &[u8; BYTES], quarter: usize) -> uint8x16_t {
        let mut values = vdupq_n_u8(0);
        if BITS & 4 != 0 {
            let bytes = load(code, quarter % 2 * 16);
            values = if quarter < 2 { vandq_u8(bytes, vdupq_n_u8(15)) } else { vshrq_n_u8::<4>(bytes) };
        }
        if BITS & 2 != 0 {
            let bytes = load(code, if BITS & 4 != 0 { 32 } else { 0 });
            let shifted = match quarter {
                0 => bytes,
                1 => vshrq_n_u8::<2>(bytes),
                2 => vshrq_n_u8::<4>(bytes),
                _ => vshrq_n_u8::<6>(bytes),
            };
            let plane = vandq_u8(shifted, vdupq_n_u8(3));
            values = vorrq_u8(values, if BITS & 4 != 0 { vshlq_n_u8::<4>(plane) } else { plane });
        }
        if BITS & 1 != 0 {
            let start = BYTES - 8 + quarter * 2;
            let bits = vcombine_u8(vdup_n_u8(code[start]), vdup_n_u8(code[start + 1]));
            let lane = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
            values = vorrq_u8(values, vandq_u8(vtstq_u8(bits, lane), vdupq_n_u8(1 << (BITS & 6))));
        }
        values
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn add_chunk<const BITS: u8, const BYTES: usize>(
        sums: &mut [int32x4_t; 2],
        code: &[u8; BYTES],
        query: &[i16; CHUNK],
    ) {
        for (quarter, query) in query.as_chunks::<16>().0.iter().enumerate() {
            let values = values::<BITS, BYTES>(code, quarter);
            let words = [vmovl_u8(vget_low_u8(values)), vmovl_high_u8(values)];
            for (words, query) in words.into_iter().zip(query.as_chunks::<8>().0) {
                let words = vreinterpretq_s16_u16(words);
                // SAFETY: the array has the 16 bytes that are read.
                let query = unsafe { vld1q_s16(query.as_ptr()) };
                sums[0] = vmlal_s16(sums[0], vget_low_s16(words), vget_low_s16(query));
                sums[1] = vmlal_high_s16(sums[1], words, query);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::agree;

    prop_compose! {
        fn case()(bits in 1_u8..=7, chunks in 0_usize..8)(
            bits in Just(bits),
            values in prop::collection::vec(0..1_u8 << bits, chunks * 64),
            query in prop::collection::vec(-8_191_i16..=8_191, chunks * 64),
        ) -> (u8, Vec<u8>, Vec<i16>) {
            (bits, values, query)
        }
    }

    proptest! {
        #[test]
        fn codes_unpack_to_what_was_packed((bits, values, query) in case()) {
            let mut code = vec![0xff; row_bytes(values.len(), bits)];
            pack(&values, bits, &mut code);
            let mut back = vec![0xff; values.len()];
            unpack(&code, bits, &mut back);
            prop_assert_eq!(&back, &values);

            let truth: i64 = values.iter().zip(&query).map(|(&v, &q)| i64::from(v) * i64::from(q)).sum();
            prop_assert_eq!(agree(|level| dot_code(level, &code, bits, &query)), truth);
            // The shorter counts, in whole chunks.
            for length in 0..=query.len().min(200) {
                agree(|level| dot_code(level, &code, bits, &query[..length]));
                agree(|level| dot_code(level, &code[..length.min(code.len())], bits, &query));
            }
        }
    }

    #[test]
    fn the_largest_products_do_not_overflow() {
        for bits in 1..=7 {
            let most = (1 << bits) - 1;
            let mut code = vec![0; row_bytes(65_536, bits)];
            pack(&vec![most; 65_536], bits, &mut code);
            for extreme in [8_191, -8_191] {
                let truth = 65_536 * i64::from(most) * i64::from(extreme);
                assert_eq!(agree(|level| dot_code(level, &code, bits, &vec![extreme; 65_536])), truth);
            }
        }
    }

    #[test]
    fn planes_lie_where_the_drawing_says() {
        let mut values = [0; 64];
        (values[33], values[50], values[9]) = (0b000_1001, 0b010_0000, 0b100_0000);
        let mut code = [0; 56];
        pack(&values, 7, &mut code);
        let mut expected = [0; 56];
        (expected[1], expected[32 + 2], expected[48 + 1]) = (0b1001_0000, 0b1000_0000, 0b10);
        assert_eq!(code, expected);
    }
}
