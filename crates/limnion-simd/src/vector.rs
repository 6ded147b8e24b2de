//! Vectors of f32 at each level of CPU: the words in which kernels that differ by nothing but the width are written.
//!
//! Each submodule has the same names: `LANES`, `Vector`, and the functions on it. A kernel is a macro that is
//! expanded once for each of them.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;

/// The last, incomplete chunk of a slice, filled up with zeros.
pub(crate) fn padded<T: Copy + Default, const N: usize>(tail: &[T]) -> [T; N] {
    let mut chunk = [T::default(); N];
    for (place, &value) in chunk.iter_mut().zip(tail) {
        *place = value;
    }
    chunk
}
