//! The steps of a fast random rotation, each in place: sign flips, Walsh-Hadamard transform, Kac's walk, scaling.

use crate::level::Level;

/// The unnormalised Walsh-Hadamard transform of `x`, in place: stages h = 1, 2, 4, ... of (a, b) → (a + b, a - b)
/// with b lying h places after a.
///
/// The length must be a power of two; with any other, `x` is left unchanged (and debug builds stop).
///
/// ```
/// use limnion_simd::{Level, fht};
/// let mut x = [1.0, 2.0, 3.0, 4.0];
/// fht(Level::current(), &mut x);
/// assert_eq!(x, [10.0, -2.0, -4.0, 0.0]);
/// ```
pub fn fht(level: Level, x: &mut [f32]) {
    debug_assert!(x.len().is_power_of_two(), "the length of a Hadamard transform is a power of two");
    if x.len().is_power_of_two() {
        dispatch!(level, fht(x));
    }
}

/// Negates `x[i]` where bit `i` of `bits` is set; bit `i` is bit `i % 64` of word `i / 64`. Elements beyond the
/// last bit are left as they are.
///
/// ```
/// use limnion_simd::{Level, flip_signs};
/// let mut x = [1.0, 2.0, 3.0];
/// flip_signs(Level::current(), &mut x, &[0b101]);
/// assert_eq!(x, [-1.0, 2.0, -3.0]);
/// ```
pub fn flip_signs(level: Level, x: &mut [f32], bits: &[u64]) {
    dispatch!(level, flip_signs(x, bits));
}

/// One step of Kac's walk, in place: (`x[i]`, `x[i + n/2]`) becomes their sum and their difference, for each i in
/// 0..n/2. With an odd length the last element is left as it is.
///
/// ```
/// use limnion_simd::{Level, kac_walk};
/// let mut x = [1.0, 2.0, 3.0, 5.0];
/// kac_walk(Level::current(), &mut x);
/// assert_eq!(x, [4.0, 7.0, -2.0, -3.0]);
/// ```
pub fn kac_walk(level: Level, x: &mut [f32]) {
    let half = x.len() / 2;
    let (lower, rest) = x.split_at_mut(half);
    let (upper, _) = rest.split_at_mut(half);
    dispatch!(level, butterfly(lower, upper));
}

/// Multiplies each element of `x` by `factor`.
///
/// ```
/// use limnion_simd::{Level, scale};
/// let mut x = [1.0, 2.0];
/// scale(Level::current(), &mut x, 0.5);
/// assert_eq!(x, [0.5, 1.0]);
/// ```
pub fn scale(level: Level, x: &mut [f32], factor: f32) {
    dispatch!(level, scale(x, factor));
}

mod scalar {
    pub(super) fn fht(x: &mut [f32]) {
        let mut distance = 1;
        while distance < x.len() {
            for block in x.chunks_exact_mut(2 * distance) {
                let (lower, upper) = block.split_at_mut(distance);
                butterfly(lower, upper);
            }
            distance *= 2;
        }
    }

    pub(super) fn butterfly(lower: &mut [f32], upper: &mut [f32]) {
        for (a, b) in lower.iter_mut().zip(upper) {
            (*a, *b) = (*a + *b, *a - *b);
        }
    }

    pub(super) fn flip_signs(x: &mut [f32], bits: &[u64]) {
        for (values, bits) in x.chunks_mut(64).zip(bits) {
            for (place, value) in values.iter_mut().enumerate() {
                *value = f32::from_bits(value.to_bits() ^ (((bits >> place & 1) as u32) << 31));
            }
        }
    }

    pub(super) fn scale(x: &mut [f32], factor: f32) {
        for value in x {
            *value *= factor;
        }
    }
}
