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
