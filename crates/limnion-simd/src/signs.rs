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

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! kernels {
    ($features:literal, $vector:ident) => {
        use crate::vector::$vector::*;

        #[target_feature(enable = $features)]
        pub(super) fn pack_signs(x: &[f32], out: &mut [u8]) {
            let length = (x.len() / 8).min(out.len());
            let (x, x_tail) = x[..8 * length].as_chunks::<32>();
            let (out, out_tail) = out[..length].as_chunks_mut::<4>();
            for (x, out) in x.iter().zip(out) {
                let mut bits = 0;
                for (index, part) in x.as_chunks().0.iter().enumerate() {
                    bits |= positive(load(part)) << (index * LANES);
                }
                *out = bits.to_le_bytes();
            }
            super::scalar::pack_signs(x_tail, out_tail);
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    kernels!("avx2,f16c", avx2);
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    kernels!("avx512f,avx512bw,avx512dq,avx512vl", avx512);
}

#[cfg(target_arch = "x86_64")]
use avx512 as avx512vnni;

#[cfg(target_arch = "aarch64")]
mod neon {
    kernels!("neon", neon);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{agree, lengths, values};

    proptest! {
        #[test]
        fn levels_agree(x in values(208)) {
            for range in lengths() {
                let x = &x[range];
                for bytes in [x.len() / 8, 3, 30] {
                    agree(|level| {
                        let mut out = vec![0x5a; bytes];
                        pack_signs(level, x, &mut out);
                        out
                    });
                }
            }
        }
    }
}
