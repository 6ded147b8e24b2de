//! Dot products of one i8 vector with four others.

use crate::level::Level;

/// The dot products of `a` with each of four vectors: exact up to 65,536 elements, modulo 2³² beyond. Where a length
/// differs from that of `a`, the shortest of all counts.
///
/// ```
/// use limnion_simd::{Level, dot_i8_each};
/// let ones = [1; 8];
/// assert_eq!(dot_i8_each(Level::current(), &ones, [&[1; 8], &[-2; 8], &[3; 8], &[0; 8]]), [8, -16, 24, 0]);
/// ```
#[must_use]
pub fn dot_i8_each(level: Level, a: &[i8], others: [&[i8]; 4]) -> [i32; 4] {
    let length = others.iter().fold(a.len(), |length, other| length.min(other.len()));
    dispatch!(level, dot_i8_each(&a[..length], others.map(|other| &other[..length])))
}

mod scalar {
    pub(super) fn dot_i8_each(a: &[i8], others: [&[i8]; 4]) -> [i32; 4] {
        others.map(|other| {
            a.iter().zip(other).fold(0, |sum: i32, (&x, &y)| sum.wrapping_add(i32::from(x) * i32::from(y)))
        })
    }
}

/// The products at a level, given `load` of `$bytes` elements, `zero`, `add` of the products of two, and `sum`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! kernels {
    ($features:literal, $bytes:literal) => {
        use crate::vector::padded;

        #[target_feature(enable = $features)]
        pub(super) fn dot_i8_each(a: &[i8], others: [&[i8]; 4]) -> [i32; 4] {
            let (whole, tail) = a.as_chunks::<$bytes>();
            let mut sums = [zero(); 4];
            if !tail.is_empty() {
                let a = load(&padded(tail));
                for (sums, other) in sums.iter_mut().zip(others) {
                    *sums = add(*sums, a, load(&padded(other.as_chunks::<$bytes>().1)));
                }
            }
            let [first, second, third, fourth] = others.map(|other| other.as_chunks::<$bytes>().0);
            let pairs = whole.iter().zip(first).zip(second).zip(third).zip(fourth);
            for ((((a, first), second), third), fourth) in pairs {
                let a = load(a);
                for (sums, other) in sums.iter_mut().zip([first, second, third, fourth]) {
                    *sums = add(*sums, a, load(other));
                }
            }
            sum(sums)
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    kernels!("avx2,f16c", 16);

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn zero() -> __m256i {
        _mm256_setzero_si256()
    }

    /// Sixteen i8 as i16.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn load(from: &[i8; 16]) -> __m256i {
        // SAFETY: the array has the 16 bytes that are read; the load needs no alignment.
        _mm256_cvtepi8_epi16(unsafe { _mm_loadu_si128(from.as_ptr().cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn add(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        _mm256_add_epi32(sums, _mm256_madd_epi16(a, b))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn sum([a, b, c, d]: [__m256i; 4]) -> [i32; 4] {
        let four = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
        let sums = _mm_add_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256::<1>(four));
        let mut result = [0; 4];
        // SAFETY: the array has the 16 bytes that are written; the store needs no alignment.
        unsafe { _mm_storeu_si128(result.as_mut_ptr().cast(), sums) };
        result
    }
}

#[cfg(target_arch = "x86_64")]
macro_rules! avx512_sum {
    ($features:literal) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn zero() -> __m512i {
            _mm512_setzero_si512()
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn sum(sums: [__m512i; 4]) -> [i32; 4] {
            let [a, b, c, d] =
                sums.map(|x| _mm256_add_epi32(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64::<1>(x)));
            let four = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
            let sums = _mm_add_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256::<1>(four));
            let mut result = [0; 4];
            // SAFETY: the array has the 16 bytes that are written; the store needs no alignment.
            unsafe { _mm_storeu_si128(result.as_mut_ptr().cast(), sums) };
            result
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    kernels!("avx512f,avx512bw,avx512dq,avx512vl", 32);
    avx512_sum!("avx512f,avx512bw,avx512dq,avx512vl");

    /// Thirty-two i8 as i16.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn load(from: &[i8; 32]) -> __m512i {
        // SAFETY: the array has the 32 bytes that are read; the load needs no alignment.
        _mm512_cvtepi8_epi16(unsafe { _mm256_loadu_si256(from.as_ptr().cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn add(sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        _mm512_add_epi32(sums, _mm512_madd_epi16(a, b))
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512vnni {
    use std::arch::x86_64::*;

    use crate::vector::padded;

    avx512_sum!("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni");

    /// The instruction multiplies whole numbers without a sign by such with one: 128 is added to those of `a`, and 128
    /// times the sum of `a`'s partners is taken off again.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub(super) fn dot_i8_each(a: &[i8], others: [&[i8]; 4]) -> [i32; 4] {
        let (whole, tail) = a.as_chunks::<64>();
        let (sign, less) = (_mm512_set1_epi8(-128), _mm512_set1_epi8(-128));
        let (mut sums, mut excess) = ([zero(); 4], [zero(); 4]);
        if !tail.is_empty() {
            let a = _mm512_xor_si512(load(&padded(tail)), sign);
            for at in 0..4 {
                let other = load(&padded(others[at].as_chunks::<64>().1));
                sums[at] = _mm512_dpbusd_epi32(sums[at], a, other);
                excess[at] = _mm512_dpbusd_epi32(excess[at], less, other);
            }
        }
        let [first, second, third, fourth] = others.map(|other| other.as_chunks::<64>().0);
        let pairs = whole.iter().zip(first).zip(second).zip(third).zip(fourth);
        for ((((a, first), second), third), fourth) in pairs {
            let a = _mm512_xor_si512(load(a), sign);
            for (at, other) in [first, second, third, fourth].into_iter().enumerate() {
                let other = load(other);
                sums[at] = _mm512_dpbusd_epi32(sums[at], a, other);
                excess[at] = _mm512_dpbusd_epi32(excess[at], less, other);
            }
        }
        for at in 0..4 {
            sums[at] = _mm512_sub_epi32(sums[at], excess[at]);
        }
        sum(sums)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn load(from: &[i8; 64]) -> __m512i {
        // SAFETY: the array has the 64 bytes that are read; the load needs no alignment.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    kernels!("neon", 8);

    #[inline]
    #[target_feature(enable = "neon")]
    fn zero() -> int32x4_t {
        vdupq_n_s32(0)
    }

    /// Eight i8 as i16.
    #[inline]
    #[target_feature(enable = "neon")]
    fn load(from: &[i8; 8]) -> int16x8_t {
        // SAFETY: the array has the 8 bytes that are read.
        vmovl_s8(unsafe { vld1_s8(from.as_ptr()) })
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn add(sums: int32x4_t, a: int16x8_t, b: int16x8_t) -> int32x4_t {
        let sums = vmlal_s16(sums, vget_low_s16(a), vget_low_s16(b));
        vmlal_high_s16(sums, a, b)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn sum(sums: [int32x4_t; 4]) -> [i32; 4] {
        sums.map(|sums| vaddvq_s32(sums))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dot_i8;
    use crate::testing::{agree, lengths};

    proptest! {
        #[test]
        fn levels_agree(all in prop::collection::vec(prop::collection::vec(any::<i8>(), 208), 5)) {
            for range in lengths() {
                let [a, b, c, d, e] = std::array::from_fn(|at| &all[at][range.clone()]);
                let dots = agree(|level| dot_i8_each(level, a, [b, c, d, e]));
                prop_assert_eq!(dots, [b, c, d, e].map(|other| dot_i8(Level::current(), a, other)));
            }
        }
    }

    #[test]
    fn extremes_are_exact() {
        let (low, high) = (&[-128; 1_001][..], &[127; 1_000][..]);
        let expected = [16_384_000, -16_256_000, 16_384_000, -16_256_000];
        assert_eq!(agree(|level| dot_i8_each(level, low, [low, high, low, high])), expected);
    }
}
