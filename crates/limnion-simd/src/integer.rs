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
