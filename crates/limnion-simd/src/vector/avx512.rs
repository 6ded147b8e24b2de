//! Vectors of sixteen f32.

use std::arch::x86_64::*;

use half::f16;

pub(crate) const LANES: usize = 16;
pub(crate) type Vector = __m512;

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn splat(x: f32) -> Vector {
    _mm512_set1_ps(x)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn load(from: &[f32; LANES]) -> Vector {
    // SAFETY: the array has the 64 bytes that are read; the load needs no alignment.
    unsafe { _mm512_loadu_ps(from.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn load_f16(from: &[f16; LANES]) -> Vector {
    // SAFETY: the array has the 32 bytes that are read (f16 is a transparent u16); the load needs no alignment.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(from.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn store(to: &mut [f32; LANES], x: Vector) {
    // SAFETY: the array has the 64 bytes that are written; the store needs no alignment.
    unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn add(a: Vector, b: Vector) -> Vector {
    _mm512_add_ps(a, b)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn sub(a: Vector, b: Vector) -> Vector {
    _mm512_sub_ps(a, b)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn mul(a: Vector, b: Vector) -> Vector {
    _mm512_mul_ps(a, b)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn abs(x: Vector) -> Vector {
    _mm512_abs_ps(x)
}

/// Negates lane `i` where bit `i` of `bits` is set.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn flip(x: Vector, bits: u32) -> Vector {
    _mm512_mask_xor_ps(x, bits as __mmask16, x, _mm512_set1_ps(-0.0))
}

/// Sets bit `i` where lane `i` is greater than zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn positive(x: Vector) -> u32 {
    u32::from(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(x, _mm512_setzero_ps()))
}

/// Adds the upper half of the lanes to the lower half until one is left.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn sum(x: Vector) -> f32 {
    super::avx2::sum(_mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x)))
}

/// The Walsh-Hadamard transform of the lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) fn hadamard(x: Vector) -> Vector {
    let x = butterfly(x, _mm512_permute_ps::<0b10_11_00_01>(x), 0xaaaa);
    let x = butterfly(x, _mm512_permute_ps::<0b01_00_11_10>(x), 0xcccc);
    let x = butterfly(x, _mm512_shuffle_f32x4::<0b10_11_00_01>(x, x), 0xf0f0);
    butterfly(x, _mm512_shuffle_f32x4::<0b01_00_11_10>(x, x), 0xff00)
}

/// Adds to each lane its partner; the lanes of `upper` are subtracted from it instead.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn butterfly(x: Vector, partner: Vector, upper: __mmask16) -> Vector {
    _mm512_mask_sub_ps(_mm512_add_ps(x, partner), upper, partner, x)
}
