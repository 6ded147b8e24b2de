//! Counting bits.

use crate::level::Level;

/// How many bits of `bits` are set.
///
/// ```
/// use limnion_simd::{Level, popcount};
/// assert_eq!(popcount(Level::current(), &[0b1011, 0xff]), 11);
/// ```
#[must_use]
pub fn popcount(level: Level, bits: &[u8]) -> u64 {
    dispatch!(level, popcount(bits))
}

/// In how many bits `a` and `b` differ. When the lengths differ, the shorter one counts.
///
/// ```
/// use limnion_simd::{Level, hamming};
/// assert_eq!(hamming(Level::current(), &[0b1011], &[0b0010]), 2);
/// ```
#[must_use]
pub fn hamming(level: Level, a: &[u8], b: &[u8]) -> u64 {
    dispatch!(level, hamming(a, b))
}

/// [`hamming`] of `query` and each of `rows`, which lie one after another and are as long.
///
/// ```
/// use limnion_simd::{Level, hamming_rows};
/// let mut counts = [0; 2];
/// hamming_rows(Level::current(), &[0b1011], &[0b0010, 0b1011], &mut counts);
/// assert_eq!(counts, [2, 0]);
/// ```
pub fn hamming_rows(level: Level, query: &[u8], rows: &[u8], counts: &mut [u32]) {
    if !query.is_empty() {
        dispatch!(level, hamming_rows(query, rows, counts));
    }
}

mod scalar {
    pub(super) fn hamming_rows(query: &[u8], rows: &[u8], counts: &mut [u32]) {
        for (row, count) in rows.chunks_exact(query.len()).zip(counts) {
            *count = hamming(query, row) as u32;
        }
    }

    pub(super) fn popcount(bits: &[u8]) -> u64 {
        bits.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }

    pub(super) fn hamming(a: &[u8], b: &[u8]) -> u64 {
        a.iter().zip(b).map(|(a, b)| u64::from((a ^ b).count_ones())).sum()
    }
}

/// The bits of what is too short for a vector. Inlined, it uses the instruction that a level has for it.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
fn in_words(bits: &[u8]) -> u64 {
    let (words, rest) = bits.as_chunks::<8>();
    let whole: u32 = words.iter().map(|word| u64::from_le_bytes(*word).count_ones()).sum();
    u64::from(whole + rest.iter().map(|byte| byte.count_ones()).sum::<u32>())
}

/// [`in_words`] of the bits in which two slices of one length differ.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[inline(always)]
fn xor_in_words(a: &[u8], b: &[u8]) -> u64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let words = a.iter().zip(b).map(|(a, b)| (u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b)).count_ones());
    let bytes = a_rest.iter().zip(b_rest).map(|(a, b)| (a ^ b).count_ones());
    u64::from(words.sum::<u32>() + bytes.sum::<u32>())
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! kernels {
    ($features:literal, $bytes:literal) => {
        use super::{in_words, xor_in_words};

        #[target_feature(enable = $features)]
        pub(super) fn popcount(bits: &[u8]) -> u64 {
            let (bits, tail) = bits.as_chunks::<$bytes>();
            let Some((first, rest)) = bits.split_first() else { return in_words(tail) };
            let mut counts = count(load(first));
            for bits in rest {
                counts = add(counts, count(load(bits)));
            }
            sum(counts) + in_words(tail)
        }

        #[target_feature(enable = $features)]
        pub(super) fn hamming_rows(query: &[u8], rows: &[u8], counts: &mut [u32]) {
            for (row, count) in rows.chunks_exact(query.len()).zip(counts) {
                *count = hamming(query, row) as u32;
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        pub(super) fn hamming(a: &[u8], b: &[u8]) -> u64 {
            let length = a.len().min(b.len());
            let (a, a_tail) = a[..length].as_chunks::<$bytes>();
            let (b, b_tail) = b[..length].as_chunks::<$bytes>();
            let mut pairs = a.iter().zip(b);
            let Some((first, second)) = pairs.next() else { return xor_in_words(a_tail, b_tail) };
            let mut counts = count(xor(load(first), load(second)));
            for (a, b) in pairs {
                counts = add(counts, count(xor(load(a), load(b))));
            }
            sum(counts) + xor_in_words(a_tail, b_tail)
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    kernels!("avx2,f16c,popcnt", 32);

    #[inline]
    #[target_feature(enable = "avx2,f16c,popcnt")]
    fn load(from: &[u8; 32]) -> __m256i {
        // SAFETY: the array has the 32 bytes that are read; the load needs no alignment.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    /// The number of set bits, in four sums; by a table of the bits in a nibble.
    #[inline]
    #[target_feature(enable = "avx2,f16c,popcnt")]
    fn count(x: __m256i) -> __m256i {
        let bits = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
        let nibble = _mm256_set1_epi8(15);
        let low = _mm256_shuffle_epi8(bits, _mm256_and_si256(x, nibble));
        let high = _mm256_shuffle_epi8(bits, _mm256_and_si256(_mm256_srli_epi16::<4>(x), nibble));
        _mm256_sad_epu8(_mm256_add_epi8(low, high), _mm256_setzero_si256())
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c,popcnt")]
    fn add(a: __m256i, b: __m256i) -> __m256i {
        _mm256_add_epi64(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c,popcnt")]
    fn xor(a: __m256i, b: __m256i) -> __m256i {
        _mm256_xor_si256(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c,popcnt")]
    fn sum(counts: __m256i) -> u64 {
        let two = _mm_add_epi64(_mm256_castsi256_si128(counts), _mm256_extracti128_si256::<1>(counts));
        _mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two))) as u64
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    kernels!("avx512f,avx512bw,avx512dq,avx512vl,popcnt", 64);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
    pub(super) fn load(from: &[u8; 64]) -> __m512i {
        // SAFETY: the array has the 64 bytes that are read; the load needs no alignment.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    /// The number of set bits, in eight sums; by a table of the bits in a nibble.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
    fn count(x: __m512i) -> __m512i {
        let bits = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
        let nibble = _mm512_set1_epi8(15);
        let low = _mm512_shuffle_epi8(bits, _mm512_and_si512(x, nibble));
        let high = _mm512_shuffle_epi8(bits, _mm512_and_si512(_mm512_srli_epi16::<4>(x), nibble));
        _mm512_sad_epu8(_mm512_add_epi8(low, high), _mm512_setzero_si512())
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
    pub(super) fn add(a: __m512i, b: __m512i) -> __m512i {
        _mm512_add_epi64(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
    pub(super) fn xor(a: __m512i, b: __m512i) -> __m512i {
        _mm512_xor_si512(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,popcnt")]
    pub(super) fn sum(counts: __m512i) -> u64 {
        _mm512_reduce_add_epi64(counts) as u64
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512vnni {
    use std::arch::x86_64::*;

    use super::avx512::{add, load, sum, xor};

    kernels!("avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq,popcnt", 64);

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq,popcnt")]
    fn count(x: __m512i) -> __m512i {
        _mm512_popcnt_epi64(x)
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    kernels!("neon", 16);

    #[inline]
    #[target_feature(enable = "neon")]
    fn load(from: &[u8; 16]) -> uint8x16_t {
        // SAFETY: the array has the 16 bytes that are read.
        unsafe { vld1q_u8(from.as_ptr()) }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn count(x: uint8x16_t) -> uint64x2_t {
        vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(vcntq_u8(x))))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn add(a: uint64x2_t, b: uint64x2_t) -> uint64x2_t {
        vaddq_u64(a, b)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn xor(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        veorq_u8(a, b)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn sum(counts: uint64x2_t) -> u64 {
        vaddvq_u64(counts)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{agree, lengths};

    proptest! {
        #[test]
        fn levels_agree(a in prop::collection::vec(any::<u8>(), 208), b in prop::collection::vec(any::<u8>(), 208)) {
            for range in lengths() {
                let (a, b) = (&a[range.clone()], &b[range]);
                agree(|level| popcount(level, a));
                agree(|level| hamming(level, a, b));
            }
            for length in [1, 7, 8, 16, 24, 32, 48, 64, 65, 96, 128] {
                let counts = agree(|level| {
                    let mut counts = vec![0; a.len() / length];
                    hamming_rows(level, &b[..length], &a, &mut counts);
                    counts
                });
                let expected = a.chunks_exact(length).map(|row| hamming(Level::current(), row, &b[..length]) as u32);
                prop_assert!(counts.into_iter().eq(expected));
            }
        }
    }

    #[test]
    fn all_bits_are_counted() {
        assert_eq!(agree(|level| popcount(level, &[0xff; 10_001])), 80_008);
        assert_eq!(agree(|level| hamming(level, &[0xff; 10_001], &[0; 10_000])), 80_000);
    }
}
