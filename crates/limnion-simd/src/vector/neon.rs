//! Vectors of four f32.

use std::arch::aarch64::*;

use half::f16;

pub(crate) const LANES: usize = 4;
pub(crate) type Vector = float32x4_t;

#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn splat(x: f32) -> Vector {
    vdupq_n_f32(x)
}

#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn load(from: &[f32; LANES]) -> Vector {
    // SAFETY: the array has the 16 bytes that are read.
    unsafe { vld1q_f32(from.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn load_f16(from: &[f16; LANES]) -> Vector {
    // SAFETY: the array has the 8 bytes that are read (f16 is a transparent u16).
    widen_f16(unsafe { vld1_u16(from.as_ptr().cast()) })
}

/// Four f16, given by their bits, as f32. In integers, for the instruction is not stable in Rust yet: exponent and
/// fraction are shifted into place and scaled by the difference of the two biases, which is exact.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn widen_f16(bits: uint16x4_t) -> Vector {
    let bits = vmovl_u16(bits);
    let magnitude = vandq_u32(bits, vdupq_n_u32(0x7fff));
    let scaled =
        vmulq_f32(vreinterpretq_f32_u32(vshlq_n_u32::<13>(magnitude)), vdupq_n_f32(2.0_f32.powi(112)));
    let infinite = vandq_u32(vcgtq_u32(magnitude, vdupq_n_u32(0x7bff)), vdupq_n_u32(0x7f80_0000));
    let sign = vshlq_n_u32::<16>(veorq_u32(bits, magnitude));
    vreinterpretq_f32_u32(vorrq_u32(vorrq_u32(vreinterpretq_u32_f32(scaled), infinite), sign))
}

#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn store(to: &mut [f32; LANES], x: Vector) {
    // SAFETY: the array has the 16 bytes that are written.
    unsafe { vst1q_f32(to.as_mut_ptr(), x) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn add(a: Vector, b: Vector) -> Vector {
    vaddq_f32(a, b)
}

#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn sub(a: Vector, b: Vector) -> Vector {
    vsubq_f32(a, b)
}

#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn mul(a: Vector, b: Vector) -> Vector {
    vmulq_f32(a, b)
}

#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn abs(x: Vector) -> Vector {
    vabsq_f32(x)
}

/// Negates lane `i` where bit `i` of `bits` is set.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn flip(x: Vector, bits: u32) -> Vector {
    let signs = vandq_u32(vtstq_u32(vdupq_n_u32(bits), lane_bits()), vdupq_n_u32(1 << 31));
    vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(x), signs))
}

/// Sets bit `i` where lane `i` is greater than zero.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn positive(x: Vector) -> u32 {
    vaddvq_u32(vandq_u32(vcgtzq_f32(x), lane_bits()))
}

/// Bit `i` in lane `i`.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn lane_bits() -> uint32x4_t {
    // SAFETY: the array has the 16 bytes that are read.
    unsafe { vld1q_u32([1, 2, 4, 8].as_ptr()) }
}

/// Adds the upper half of the lanes to the lower half until one is left.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn sum(x: Vector) -> f32 {
    let two = vadd_f32(vget_low_f32(x), vget_high_f32(x));
    vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
}

/// The Walsh-Hadamard transform of the lanes.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn hadamard(x: Vector) -> Vector {
    let x = vaddq_f32(vrev64q_f32(x), flip(x, 0b1010));
    vaddq_f32(vextq_f32::<2>(x, x), flip(x, 0b1100))
}
