//! What the differential tests share: every level gives the bits of the scalar twin.

use std::fmt::Debug;

use half::f16;
use proptest::prelude::*;

use crate::level::Level;

/// Asserts that `kernel` gives at every level what it gives at the scalar one, and returns that.
pub(crate) fn agree<T: PartialEq + Debug>(kernel: impl Fn(Level) -> T) -> T {
    let levels = Level::available();
    let expected = kernel(levels[0]);
    for &level in &levels[1..] {
        assert_eq!(kernel(level), expected, "at level {level}");
    }
    expected
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Values of all sizes, with both zeros and numbers too small to be normal.
pub(crate) fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -10.0_f32..10.0,
        2 => -1e6_f32..1e6,
        1 => prop_oneof![Just(0.0_f32), Just(-0.0_f32), Just(1e-41_f32), Just(-3e-39_f32), Just(1e-20_f32)],
    ]
}

pub(crate) fn values(length: usize) -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(value(), length)
}

/// Every finite f16.
pub(crate) fn half() -> impl Strategy<Value = f16> {
    any::<u16>().prop_map(f16::from_bits).prop_filter("finite", |value| value.is_finite())
}

/// Every length from 0 to 200, at every alignment in turn: the start and the end in a slice of 208.
pub(crate) fn lengths() -> impl Iterator<Item = std::ops::Range<usize>> {
    (0..=200).map(|length| length % 8..length % 8 + length)
}
