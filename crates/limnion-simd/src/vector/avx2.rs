//! Vectors of eight f32.

use std::arch::x86_64::*;

use half::f16;

pub(crate) const LANES: usize = 8;
pub(crate) type Vector = __m256;

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(crate) fn splat(x: f32) -> Vector {
    _mm256_set1_ps(x)
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(crate) fn load(from: &[f32; LANES]) -> Vector {
    // SAFETY: the array has the 32 bytes that are read; the load needs no alignment.
    unsafe { _mm256_loadu_ps(from.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(crate) fn load_f16(from: &[f16; LANES]) -> Vector {
    // SAFETY: the array has the 16 bytes that are read (f16 is a transparent u16); the load needs no alignment.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(from.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(crate) fn store(to: &mut [f32; LANES], x: Vector) {
    // SAFETY: the array has the 32 bytes that are written; the store needs no alignment.
    unsafe { _mm256_storeu_ps(to.as_mut_ptr(), x) }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(crate) fn add(a: Vector, b: Vector) -> Vector {
    _mm256_add_ps(a, b)
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(crate) fn sub(a: Vector, b: Vector) -> Vector {
    _mm256_sub_ps(a, b)
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(crate) fn mul(a: Vector, b: Vector) -> Vector {
    _mm256_mul_ps(a, b)
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(crate) fn abs(x: Vector) -> Vector {
    _mm256_andnot_ps(_mm256_set1_ps(-0.0), x)
}

/// Negates lane `i` where bit `i` of `bits` is set.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(crate) fn flip(x: Vector, bits: u32) -> Vector {
    // Bit `i` is brought to the sign bit of lane `i`.
    let bits =
        _mm256_sllv_epi32(_mm256_set1_epi32(bits as i32), _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24));
    _mm256_xor_ps(x, _mm256_and_ps(_mm256_castsi256_ps(bits), _mm256_set1_ps(-0.0)))
}

/// Sets bit `i` where lane `i` is greater than zero.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(crate) fn positive(x: Vector) -> u32 {
    _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(x, _mm256_setzero_ps())) as u32
}

/// Adds the upper half of the lanes to the lower half until one is left.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(crate) fn sum(x: Vector) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// The Walsh-Hadamard transform of the lanes.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(crate) fn hadamard(x: Vector) -> Vector {
    let x = butterfly(x, _mm256_permute_ps::<0b10_11_00_01>(x), 0b1010_1010);
    let x = butterfly(x, _mm256_permute_ps::<0b01_00_11_10>(x), 0b1100_1100);
    butterfly(x, _mm256_permute2f128_ps::<1>(x, x), 0b1111_0000)
}

/// Adds to each lane its partner; the lanes of `upper` are negated first.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn butterfly(x: Vector, partner: Vector, upper: u32) -> Vector {
    add(partner, flip(x, upper))
}
