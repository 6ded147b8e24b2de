//! Dot products, squared distances and sums of f32 and f16 vectors.

use half::f16;

use crate::level::Level;

/// The dot product of two vectors.
///
/// The order of additions is fixed, so that every level gives the same bits: product `i` is added to lane
/// `i % 32` of 32 sums, each product rounded before it is added; then the upper half of the lanes is added to the
/// lower half until one is left. When the lengths differ, the shorter one counts.
///
/// ```
/// use limnion_simd::{Level, dot_f32};
/// assert_eq!(dot_f32(Level::current(), &[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]), 32.0);
/// ```
#[must_use]
pub fn dot_f32(level: Level, a: &[f32], b: &[f32]) -> f32 {
    dispatch!(level, dot_f32(a, b))
}

/// The squared Euclidean distance of two vectors, summed in the order of [`dot_f32`].
///
/// ```
/// use limnion_simd::{Level, l2sq_f32};
/// assert_eq!(l2sq_f32(Level::current(), &[1.0, 2.0], &[4.0, 6.0]), 25.0);
/// ```
#[must_use]
pub fn l2sq_f32(level: Level, a: &[f32], b: &[f32]) -> f32 {
    dispatch!(level, l2sq_f32(a, b))
}

/// The dot product of an f32 vector and an f16 vector, which is widened first; summed in the order of [`dot_f32`].
///
/// ```
/// use half::f16;
/// use limnion_simd::{Level, dot_f32_f16};
/// assert_eq!(dot_f32_f16(Level::current(), &[2.0], &[f16::from_f32(1.5)]), 3.0);
/// ```
#[must_use]
pub fn dot_f32_f16(level: Level, a: &[f32], b: &[f16]) -> f32 {
    dispatch!(level, dot_f32_f16(a, b))
}

/// The squared Euclidean distance of an f32 vector and an f16 vector, which is widened first; summed in the order
/// of [`dot_f32`].
///
/// ```
/// use half::f16;
/// use limnion_simd::{Level, l2sq_f32_f16};
/// assert_eq!(l2sq_f32_f16(Level::current(), &[2.0], &[f16::from_f32(1.5)]), 0.25);
/// ```
#[must_use]
pub fn l2sq_f32_f16(level: Level, a: &[f32], b: &[f16]) -> f32 {
    dispatch!(level, l2sq_f32_f16(a, b))
}

/// The dot product of `query` with every row of `rows`, a row-major matrix of `query.len()` columns, into `out`.
///
/// Each result has the bits of [`dot_f32`]. Where `rows` has fewer rows than `out`, the rest of `out` is left as
/// it is.
///
/// ```
/// use limnion_simd::{Level, dot_f32_rows};
/// let mut out = [0.0; 2];
/// dot_f32_rows(Level::current(), &[1.0, 2.0], &[1.0, 0.0, 0.0, 1.0], &mut out);
/// assert_eq!(out, [1.0, 2.0]);
/// ```
pub fn dot_f32_rows(level: Level, query: &[f32], rows: &[f32], out: &mut [f32]) {
    if query.is_empty() {
        out.fill(0.0);
    } else {
        dispatch!(level, dot_f32_rows(query, rows, out));
    }
}

/// The squared Euclidean distance of `query` to every row of `rows`, as [`dot_f32_rows`] does for dot products.
///
/// ```
/// use limnion_simd::{Level, l2sq_f32_rows};
/// let mut out = [0.0; 2];
/// l2sq_f32_rows(Level::current(), &[1.0, 2.0], &[1.0, 0.0, 0.0, 1.0], &mut out);
/// assert_eq!(out, [4.0, 2.0]);
/// ```
pub fn l2sq_f32_rows(level: Level, query: &[f32], rows: &[f32], out: &mut [f32]) {
    if query.is_empty() {
        out.fill(0.0);
    } else {
        dispatch!(level, l2sq_f32_rows(query, rows, out));
    }
}

/// The sum of the absolute values of a vector, in the order of [`dot_f32`].
///
/// ```
/// use limnion_simd::{Level, sum_abs};
/// assert_eq!(sum_abs(Level::current(), &[1.0, -2.0]), 3.0);
/// ```
#[must_use]
pub fn sum_abs(level: Level, x: &[f32]) -> f32 {
    dispatch!(level, sum_abs(x))
}

mod scalar {
    use half::f16;

    fn sum(terms: impl Iterator<Item = f32>) -> f32 {
        let mut lanes = [0.0_f32; 32];
        for (index, term) in terms.enumerate() {
            lanes[index % 32] += term;
        }
        let mut half = 16;
        while half > 0 {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
            half /= 2;
        }
        lanes[0]
    }

    pub(super) fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
        sum(a.iter().zip(b).map(|(x, y)| x * y))
    }

    pub(super) fn l2sq_f32(a: &[f32], b: &[f32]) -> f32 {
        sum(a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)))
    }

    pub(super) fn dot_f32_f16(a: &[f32], b: &[f16]) -> f32 {
        sum(a.iter().zip(b).map(|(x, y)| x * y.to_f32()))
    }

    pub(super) fn l2sq_f32_f16(a: &[f32], b: &[f16]) -> f32 {
        sum(a.iter().zip(b).map(|(x, y)| (x - y.to_f32()) * (x - y.to_f32())))
    }

    pub(super) fn dot_f32_rows(query: &[f32], rows: &[f32], out: &mut [f32]) {
        for (row, out) in rows.chunks_exact(query.len()).zip(out) {
            *out = dot_f32(query, row);
        }
    }

    pub(super) fn l2sq_f32_rows(query: &[f32], rows: &[f32], out: &mut [f32]) {
        for (row, out) in rows.chunks_exact(query.len()).zip(out) {
            *out = l2sq_f32(query, row);
        }
    }

    pub(super) fn sum_abs(x: &[f32]) -> f32 {
        sum(x.iter().map(|x| x.abs()))
    }
}

/// The kernels at one width of vector: 32 lanes of sums lie in 32 / LANES vectors.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! kernels {
    ($features:literal, $vector:ident) => {
        use half::f16;

        use crate::vector::padded;
        use crate::vector::$vector::*;

        const VECTORS: usize = 32 / LANES;

        #[inline]
        #[target_feature(enable = $features)]
        fn sum_pairs<T: Copy + Default>(
            a: &[f32],
            b: &[T],
            load_b: impl Fn(&[T; LANES]) -> Vector,
            term: impl Fn(Vector, Vector) -> Vector,
        ) -> f32 {
            let length = a.len().min(b.len());
            let (a, a_tail) = a[..length].as_chunks::<32>();
            let (b, b_tail) = b[..length].as_chunks::<32>();
            let mut sums = [splat(0.0); VECTORS];
            let add_chunk = |sums: &mut [Vector; VECTORS], a: &[f32; 32], b: &[T; 32]| {
                let parts = a.as_chunks().0.iter().zip(b.as_chunks().0);
                for (sum, (a, b)) in sums.iter_mut().zip(parts) {
                    *sum = add(*sum, term(load(a), load_b(b)));
                }
            };
            for (a, b) in a.iter().zip(b) {
                add_chunk(&mut sums, a, b);
            }
            if !a_tail.is_empty() {
                // Zeros add a zero to a lane, which changes no bit: a lane is never -0.
                add_chunk(&mut sums, &padded(a_tail), &padded(b_tail));
            }
            total(sums)
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn total(mut sums: [Vector; VECTORS]) -> f32 {
            let mut half = VECTORS / 2;
            while half > 0 {
                for index in 0..half {
                    sums[index] = add(sums[index], sums[index + half]);
                }
                half /= 2;
            }
            sum(sums[0])
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn squared_difference(x: Vector, y: Vector) -> Vector {
            let difference = sub(x, y);
            mul(difference, difference)
        }

        #[target_feature(enable = $features)]
        pub(super) fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
            sum_pairs(a, b, |b| load(b), |x, y| mul(x, y))
        }

        #[target_feature(enable = $features)]
        pub(super) fn l2sq_f32(a: &[f32], b: &[f32]) -> f32 {
            sum_pairs(a, b, |b| load(b), |x, y| squared_difference(x, y))
        }

        #[target_feature(enable = $features)]
        pub(super) fn dot_f32_f16(a: &[f32], b: &[f16]) -> f32 {
            sum_pairs(a, b, |b| load_f16(b), |x, y| mul(x, y))
        }

        #[target_feature(enable = $features)]
        pub(super) fn l2sq_f32_f16(a: &[f32], b: &[f16]) -> f32 {
            sum_pairs(a, b, |b| load_f16(b), |x, y| squared_difference(x, y))
        }

        #[target_feature(enable = $features)]
        pub(super) fn dot_f32_rows(query: &[f32], rows: &[f32], out: &mut [f32]) {
            for (row, out) in rows.chunks_exact(query.len()).zip(out) {
                *out = dot_f32(query, row);
            }
        }

        #[target_feature(enable = $features)]
        pub(super) fn l2sq_f32_rows(query: &[f32], rows: &[f32], out: &mut [f32]) {
            for (row, out) in rows.chunks_exact(query.len()).zip(out) {
                *out = l2sq_f32(query, row);
            }
        }

        #[target_feature(enable = $features)]
        pub(super) fn sum_abs(x: &[f32]) -> f32 {
            sum_pairs(x, x, |x| load(x), |x, _| abs(x))
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    kernels!("avx2,f16c", avx2);
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    kernels!("avx512f,avx512bw,avx512dq,avx512vl", avx512);
}

#[cfg(target_arch = "x86_64")]
use avx512 as avx512vnni;

#[cfg(target_arch = "aarch64")]
mod neon {
    kernels!("neon", neon);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{agree, bits, half, lengths, values};

    proptest! {
        #[test]
        fn levels_agree(
            a in values(208),
            b in values(208),
            halves in prop::collection::vec(half(), 208),
        ) {
            for range in lengths() {
                let (a, b, halves) = (&a[range.clone()], &b[range.clone()], &halves[range]);
                agree(|level| dot_f32(level, a, b).to_bits());
                agree(|level| l2sq_f32(level, a, b).to_bits());
                agree(|level| dot_f32_f16(level, a, halves).to_bits());
                agree(|level| l2sq_f32_f16(level, a, halves).to_bits());
                agree(|level| sum_abs(level, a).to_bits());
            }
        }

        #[test]
        fn rows_are_single_results(dim in 1_usize..70, count in 0_usize..6, all in values(7 * 70)) {
            let (query, rows) = (&all[..dim], &all[70..70 + dim * count]);
            let both = |level| {
                let mut out = [vec![0.0; count], vec![0.0; count]];
                dot_f32_rows(level, query, rows, &mut out[0]);
                l2sq_f32_rows(level, query, rows, &mut out[1]);
                out.map(|out| bits(&out))
            };
            let [dots, squares] = agree(both);
            for (index, row) in rows.chunks(dim).enumerate() {
                prop_assert_eq!(dots[index], dot_f32(Level::current(), query, row).to_bits());
                prop_assert_eq!(squares[index], l2sq_f32(Level::current(), query, row).to_bits());
            }
        }
    }

    #[test]
    fn every_f16_is_widened_alike() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            let product = agree(|level| {
                let product = dot_f32_f16(level, &[1.0], &[half]);
                if product.is_nan() { f32::NAN.to_bits() } else { product.to_bits() }
            });
            assert!(half.is_nan() || f32::from_bits(product) == half.to_f32());
        }
    }

    #[test]
    fn the_sum_keeps_its_order() {
        // A large number swallows a small one in its own lane, and keeps one that meets it only after it is gone.
        let mut a = vec![0.0; 64];
        (a[0], a[1], a[32], a[33]) = (1e8, 1.0, -1e8, 1.0);
        assert_eq!(agree(|level| dot_f32(level, &a, &[1.0; 64])), 2.0);
        (a[0], a[1], a[32], a[33]) = (1e8, 0.0, 1.0, -1e8);
        assert_eq!(agree(|level| dot_f32(level, &a, &[1.0; 64])), 0.0);
    }

    #[test]
    fn the_shorter_length_counts() {
        agree(|level| assert_eq!(dot_f32(level, &[1.0; 70], &[1.0; 33]), 33.0));
        agree(|level| assert_eq!(l2sq_f32_f16(level, &[1.0; 33], &[f16::ZERO; 70]), 33.0));
        agree(|level| {
            let mut out = [7.0; 3];
            dot_f32_rows(level, &[1.0; 2], &[1.0; 5], &mut out);
            assert_eq!(out, [2.0, 2.0, 7.0]);
        });
    }
}
