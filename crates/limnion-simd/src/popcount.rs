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

mod scalar {
    pub(super) fn popcount(bits: &[u8]) -> u64 {
        bits.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }

    pub(super) fn hamming(a: &[u8], b: &[u8]) -> u64 {
        a.iter().zip(b).map(|(a, b)| u64::from((a ^ b).count_ones())).sum()
    }
}
