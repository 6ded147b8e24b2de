//! Dot products and squared distances of i8 vectors.

use crate::level::Level;

/// The dot product of two i8 vectors: exact up to 131,071 elements, modulo 2³² beyond. When the lengths differ,
/// the shorter one counts.
///
/// ```
/// use limnion_simd::{Level, dot_i8};
/// assert_eq!(dot_i8(Level::current(), &[1, -2], &[3, 4]), -5);
/// ```
#[must_use]
pub fn dot_i8(level: Level, a: &[i8], b: &[i8]) -> i32 {
    dispatch!(level, dot_i8(a, b))
}

/// The squared Euclidean distance of two i8 vectors: exact up to 33,025 elements, modulo 2³² beyond. When the
/// lengths differ, the shorter one counts.
///
/// ```
/// use limnion_simd::{Level, l2sq_i8};
/// assert_eq!(l2sq_i8(Level::current(), &[1, -2], &[3, 4]), 40);
/// ```
#[must_use]
pub fn l2sq_i8(level: Level, a: &[i8], b: &[i8]) -> i32 {
    dispatch!(level, l2sq_i8(a, b))
}

mod scalar {
    pub(super) fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
        a.iter().zip(b).fold(0, |sum: i32, (&x, &y)| sum.wrapping_add(i32::from(x) * i32::from(y)))
    }

    pub(super) fn l2sq_i8(a: &[i8], b: &[i8]) -> i32 {
        a.iter().zip(b).fold(0, |sum: i32, (&x, &y)| {
            let difference = i32::from(x) - i32::from(y);
            sum.wrapping_add(difference * difference)
        })
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use crate::vector::padded;

    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
        sum(a, b, |a, b| _mm256_madd_epi16(a, b))
    }

    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn l2sq_i8(a: &[i8], b: &[i8]) -> i32 {
        sum(a, b, |a, b| {
            let difference = _mm256_sub_epi16(a, b);
            _mm256_madd_epi16(difference, difference)
        })
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn sum(a: &[i8], b: &[i8], terms: impl Fn(__m256i, __m256i) -> __m256i) -> i32 {
        let length = a.len().min(b.len());
        let (a, a_tail) = a[..length].as_chunks::<16>();
        let (b, b_tail) = b[..length].as_chunks::<16>();
        let mut sums = terms(load(&padded(a_tail)), load(&padded(b_tail)));
        for (a, b) in a.iter().zip(b) {
            sums = _mm256_add_epi32(sums, terms(load(a), load(b)));
        }
        let four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        let two = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
        _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<1>(two)))
    }

    /// Sixteen i8 as i16.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn load(from: &[i8; 16]) -> __m256i {
        // SAFETY: the array has the 16 bytes that are read; the load needs no alignment.
        _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(from.as_ptr().cast()) })
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use crate::vector::padded;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
        sum(a, b, |a, b| _mm512_madd_epi16(a, b))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn l2sq_i8(a: &[i8], b: &[i8]) -> i32 {
        sum(a, b, |a, b| {
            let difference = _mm512_sub_epi16(a, b);
            _mm512_madd_epi16(difference, difference)
        })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn sum(a: &[i8], b: &[i8], terms: impl Fn(__m512i, __m512i) -> __m512i) -> i32 {
        let length = a.len().min(b.len());
        let (a, a_tail) = a[..length].as_chunks::<32>();
        let (b, b_tail) = b[..length].as_chunks::<32>();
        let mut sums = terms(load(&padded(a_tail)), load(&padded(b_tail)));
        for (a, b) in a.iter().zip(b) {
            sums = _mm512_add_epi32(sums, terms(load(a), load(b)));
        }
        _mm512_reduce_add_epi32(sums)
    }

    /// Thirty-two i8 as i16.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn load(from: &[i8; 32]) -> __m512i {
        // SAFETY: the array has the 32 bytes that are read; the load needs no alignment.
        _mm512_cvtepi8_epi16(unsafe { _mm256_loadu_si256(from.as_ptr().cast()) })
    }
}

// A multiply-add with accumulation would save the one addition, which is not what these loops wait for.
#[cfg(target_arch = "x86_64")]
use avx512 as avx512vnni;

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    use crate::vector::padded;

    #[target_feature(enable = "neon")]
    pub(super) fn dot_i8(a: &[i8], b: &[i8]) -> i32 {
        sum(a, b, |sums, a, b| {
            let sums = vmlal_s16(sums, vget_low_s16(a), vget_low_s16(b));
            vmlal_high_s16(sums, a, b)
        })
    }

    #[target_feature(enable = "neon")]
    pub(super) fn l2sq_i8(a: &[i8], b: &[i8]) -> i32 {
        sum(a, b, |sums, a, b| {
            let difference = vsubq_s16(a, b);
            let low = vget_low_s16(difference);
            vmlal_high_s16(vmlal_s16(sums, low, low), difference, difference)
        })
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn sum(a: &[i8], b: &[i8], add: impl Fn(int32x4_t, int16x8_t, int16x8_t) -> int32x4_t) -> i32 {
        let length = a.len().min(b.len());
        let (a, a_tail) = a[..length].as_chunks::<8>();
        let (b, b_tail) = b[..length].as_chunks::<8>();
        let mut sums = add(vdupq_n_s32(0), load(&padded(a_tail)), load(&padded(b_tail)));
        for (a, b) in a.iter().zip(b) {
            sums = add(sums, load(a), load(b));
        }
        vaddvq_s32(sums)
    }

    /// Eight i8 as i16.
    #[inline]
    #[target_feature(enable = "neon")]
    fn load(from: &[i8; 8]) -> int16x8_t {
        // SAFETY: the array has the 8 bytes that are read.
        vmovl_s8(unsafe { vld1_s8(from.as_ptr()) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{agree, lengths};

    proptest! {
        #[test]
        fn levels_agree(a in prop::collection::vec(any::<i8>(), 208), b in prop::collection::vec(any::<i8>(), 208)) {
            for range in lengths() {
                let (a, b) = (&a[range.clone()], &b[range]);
                agree(|level| dot_i8(level, a, b));
                agree(|level| l2sq_i8(level, a, b));
            }
        }
    }

    #[test]
    fn extremes_are_exact() {
        assert_eq!(agree(|level| dot_i8(level, &[-128; 1_001], &[-128; 1_000])), 16_384_000);
        assert_eq!(agree(|level| l2sq_i8(level, &[-128; 1_000], &[127; 1_001])), 65_025_000);
    }
}
