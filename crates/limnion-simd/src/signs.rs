//! Sign codes: one bit a dimension.

use crate::level::Level;

/// Packs the signs of `x`: bit `j` of byte `i` of `out` is set when `x[8i + j]` is greater than zero.
///
/// The length of `x` should be a multiple of 8, and `out` an eighth of it; the shorter counts, in whole bytes.
///
/// ```
/// use limnion_simd::{Level, pack_signs};
/// let mut out = [0];
/// pack_signs(Level::current(), &[1.0, -1.0, 0.0, 2.0, -0.0, -3.0, 0.5, -0.5], &mut out);
/// assert_eq!(out, [0b0100_1001]);
/// ```
pub fn pack_signs(level: Level, x: &[f32], out: &mut [u8]) {
    dispatch!(level, pack_signs(x, out));
}

mod scalar {
    pub(super) fn pack_signs(x: &[f32], out: &mut [u8]) {
        for (values, byte) in x.chunks_exact(8).zip(out) {
            *byte = (0..8).fold(0, |bits, j| bits | u8::from(values[j] > 0.0) << j);
        }
    }
}
