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

/// The dot products of all `rows` with all rows of `others`, a row-major matrix of `dim` columns, into `out`: those of
/// the first row, then those of the second.
///
/// Each is that of [`dot_i8`]. Rows that are shorter than `dim` count as filled up with zeros; what does not fit in `out`
/// is left out.
///
/// Costs about 2.5 ns a product of 384 dimensions at the best level, for dozens of rows and others.
///
/// ```
/// use limnion_simd::{Level, dots_i8};
/// let mut out = [0; 4];
/// dots_i8(Level::current(), 2, &[&[1, 2], &[3, -4]], &[1, 0, 0, 1], &mut out);
/// assert_eq!(out, [1, 2, 3, -4]);
/// ```
pub fn dots_i8(level: Level, dim: usize, rows: &[&[i8]], others: &[i8], out: &mut [i32]) {
    if dim > 0 && others.len() >= dim {
        dispatch!(level, dots_i8(dim, rows, others, out));
    }
}

mod scalar {
    pub(super) fn dots_i8(dim: usize, rows: &[&[i8]], others: &[i8], out: &mut [i32]) {
        for (row, out) in rows.iter().zip(out.chunks_mut(others.len() / dim)) {
            for (other, out) in others.chunks_exact(dim).zip(out) {
                *out = dot_i8(row, other);
            }
        }
    }

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

/// The products of many rows, one after another: each row of `others` is read once for all of them while it is in
/// cache.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! one_by_one {
    ($features:literal) => {
        #[target_feature(enable = $features)]
        pub(super) fn dots_i8(dim: usize, rows: &[&[i8]], others: &[i8], out: &mut [i32]) {
            for (row, out) in rows.iter().zip(out.chunks_mut(others.len() / dim)) {
                for (other, out) in others.chunks_exact(dim).zip(out) {
                    *out = dot_i8(row, other);
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use crate::vector::padded;

    one_by_one!("avx2,f16c");

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

    one_by_one!("avx512f,avx512bw,avx512dq,avx512vl");

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

#[cfg(target_arch = "x86_64")]
mod avx512vnni {
    use std::arch::x86_64::*;

    // A multiply-add with accumulation would save the one addition, which is not what the loops of one product wait for.
    pub(super) use super::avx512::{dot_i8, l2sq_i8};
    use crate::vector::padded;

    /// A tile is so many rows times as many others: their sums stay in registers.
    const SIDE: usize = 4;
    /// Bytes of a register.
    const STEP: usize = 64;

    /// The instruction multiplies unsigned by signed bytes. So 128 is added to each number of a row, and 128 times the
    /// sum of the other is taken off at the end, modulo 2³² like all that is added up.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub(super) fn dots_i8(dim: usize, rows: &[&[i8]], others: &[i8], out: &mut [i32]) {
        let count = others.len() / dim;
        let others: Vec<&[i8]> = others.chunks_exact(dim).collect();
        let extra: Vec<i32> = others.iter().map(|other| 128 * sum(other)).collect();
        for (quad, out) in rows.chunks(SIDE).zip(out.chunks_mut(SIDE * count)) {
            let (filled, quad) = (quad.len(), four(quad));
            for first in (0..count).step_by(SIDE) {
                let places = first..count.min(first + SIDE);
                let sums = tile(dim, quad, four(&others[places.clone()]));
                for (out, sums) in out.chunks_mut(count).zip(sums).take(filled) {
                    let out = out.iter_mut().skip(first);
                    for ((out, sum), extra) in out.zip(sums).zip(&extra[places.clone()]) {
                        *out = sum.wrapping_sub(*extra);
                    }
                }
            }
        }
    }

    /// Up to four; where there are fewer, the last takes the other places.
    fn four<'a>(of: &[&'a [i8]]) -> [&'a [i8]; SIDE] {
        let last = of.len() - 1;
        [of[0], of[last.min(1)], of[last.min(2)], of[last]]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn tile(dim: usize, rows: [&[i8]; SIDE], others: [&[i8]; SIDE]) -> [[i32; SIDE]; SIDE] {
        let mut sums = [[_mm512_setzero_si512(); SIDE]; SIDE];
        // As many whole steps of each, so that no access needs a check.
        let steps = rows.iter().map(|row| row.len() / STEP).min().unwrap_or(0).min(dim / STEP);
        let (mut row_steps, mut other_steps) = ([&[][..]; SIDE], [&[][..]; SIDE]);
        for at in 0..SIDE {
            row_steps[at] = &rows[at].as_chunks().0[..steps];
            other_steps[at] = &others[at].as_chunks().0[..steps];
        }
        for step in 0..steps {
            // Closures would not be inlined here: they do not have the CPU features of their caller.
            let loaded = [
                load(&other_steps[0][step]),
                load(&other_steps[1][step]),
                load(&other_steps[2][step]),
                load(&other_steps[3][step]),
            ];
            for at in 0..SIDE {
                add(&mut sums[at], load(&row_steps[at][step]), &loaded);
            }
        }
        for start in (steps * STEP..dim).step_by(STEP) {
            let mut loaded = [_mm512_setzero_si512(); SIDE];
            for at in 0..SIDE {
                loaded[at] = load(&padded(rest(others[at], start, dim)));
            }
            for at in 0..SIDE {
                add(&mut sums[at], load(&padded(rest(rows[at], start, dim))), &loaded);
            }
        }
        [totals(sums[0]), totals(sums[1]), totals(sums[2]), totals(sums[3])]
    }

    /// What a row has from `start` on, no more than a step.
    #[inline]
    fn rest(row: &[i8], start: usize, dim: usize) -> &[i8] {
        row.get(start..row.len().min(dim).min(start + STEP)).unwrap_or_default()
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn add(sums: &mut [__m512i; SIDE], row: __m512i, others: &[__m512i; SIDE]) {
        let row = _mm512_xor_si512(row, _mm512_set1_epi8(-128));
        for (sum, &other) in sums.iter_mut().zip(others) {
            *sum = _mm512_dpbusd_epi32(*sum, row, other);
        }
    }

    /// The sum of the lanes of each.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn totals([a, b, c, d]: [__m512i; SIDE]) -> [i32; SIDE] {
        let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        let all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
        let two = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64::<1>(all));
        let one = _mm_add_epi32(_mm256_castsi256_si128(two), _mm256_extracti128_si256::<1>(two));
        let mut out = [0; SIDE];
        // SAFETY: the array has the 16 bytes that are written; the store needs no alignment.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), one) };
        out
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn load(from: &[i8; STEP]) -> __m512i {
        // SAFETY: the array has the 64 bytes that are read; the load needs no alignment.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    fn sum(of: &[i8]) -> i32 {
        of.iter().map(|&x| i32::from(x)).sum()
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    use crate::vector::padded;

    one_by_one!("neon");

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

    proptest! {
        #[test]
        fn many_products_are_single_ones(
            dim in 1_usize..200,
            (count, others) in (0_usize..11, 0_usize..11),
            all in prop::collection::vec(any::<i8>(), 22 * 200),
            (short, room) in (0_usize..200, 0_usize..130),
        ) {
            let mut rows: Vec<&[i8]> = all.chunks(dim).take(count).collect();
            if let Some(row) = rows.last_mut() {
                *row = &row[..short.min(dim)];
            }
            let others = &all[11 * 200..11 * 200 + dim * others];
            let found = agree(|level| {
                let mut out = vec![7; room];
                dots_i8(level, dim, &rows, others, &mut out);
                out
            });
            let expected = rows.iter().flat_map(|row| {
                others.chunks(dim).map(|other| dot_i8(Level::available()[0], row, other))
            });
            let expected: Vec<i32> = expected.chain(std::iter::repeat(7)).take(room).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn extremes_are_exact() {
        assert_eq!(
            agree(|level| {
                let mut out = [0; 2];
                dots_i8(level, 1_000, &[&[-128; 1_000], &[127; 1_000]], &[-128; 1_000], &mut out);
                out
            }),
            [16_384_000, -16_256_000]
        );
        assert_eq!(agree(|level| dot_i8(level, &[-128; 1_001], &[-128; 1_000])), 16_384_000);
        assert_eq!(agree(|level| l2sq_i8(level, &[-128; 1_000], &[127; 1_001])), 65_025_000);
    }
}
