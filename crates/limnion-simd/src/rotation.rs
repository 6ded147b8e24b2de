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

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! kernels {
    ($features:literal, $vector:ident) => {
        use crate::vector::$vector::*;

        /// Vectors that one pass of the transform keeps in registers.
        const MOST: usize = if LANES == 8 { 8 } else { 16 };

        #[target_feature(enable = $features)]
        pub(super) fn fht(x: &mut [f32]) {
            let (vectors, tail) = x.as_chunks_mut::<LANES>();
            if vectors.is_empty() {
                return super::scalar::fht(tail);
            }
            let mut distance = 1;
            loop {
                let radix = (vectors.len() / distance).min(MOST);
                match radix {
                    16 => stages::<16>(vectors, distance),
                    8 => stages::<8>(vectors, distance),
                    4 => stages::<4>(vectors, distance),
                    2 => stages::<2>(vectors, distance),
                    _ => stages::<1>(vectors, distance),
                }
                distance *= radix;
                if distance >= vectors.len() {
                    break;
                }
            }
        }

        /// The stages at distances `distance`, 2 `distance`, ... up to half of `RADIX` times it; before the first
        /// of all, the stages inside of vectors.
        #[inline]
        #[target_feature(enable = $features)]
        fn stages<const RADIX: usize>(vectors: &mut [[f32; LANES]], distance: usize) {
            for block in vectors.chunks_exact_mut(RADIX * distance) {
                for first in 0..distance {
                    let mut x = [splat(0.0); RADIX];
                    for (index, x) in x.iter_mut().enumerate() {
                        *x = load(&block[first + index * distance]);
                        if distance == 1 {
                            *x = hadamard(*x);
                        }
                    }
                    stage::<RADIX, 1>(&mut x);
                    stage::<RADIX, 2>(&mut x);
                    stage::<RADIX, 4>(&mut x);
                    stage::<RADIX, 8>(&mut x);
                    for (index, x) in x.iter().enumerate() {
                        store(&mut block[first + index * distance], *x);
                    }
                }
            }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn stage<const RADIX: usize, const DISTANCE: usize>(x: &mut [Vector; RADIX]) {
            for index in 0..RADIX / 2 {
                if DISTANCE < RADIX {
                    let lower = index / DISTANCE * 2 * DISTANCE + index % DISTANCE;
                    let (a, b) = (x[lower], x[lower + DISTANCE]);
                    (x[lower], x[lower + DISTANCE]) = (add(a, b), sub(a, b));
                }
            }
        }

        #[target_feature(enable = $features)]
        pub(super) fn butterfly(lower: &mut [f32], upper: &mut [f32]) {
            let (lower, lower_tail) = lower.as_chunks_mut::<LANES>();
            let (upper, upper_tail) = upper.as_chunks_mut::<LANES>();
            for (lower, upper) in lower.iter_mut().zip(upper) {
                let (a, b) = (load(lower), load(upper));
                store(lower, add(a, b));
                store(upper, sub(a, b));
            }
            super::scalar::butterfly(lower_tail, upper_tail);
        }

        #[target_feature(enable = $features)]
        pub(super) fn flip_signs(x: &mut [f32], bits: &[u64]) {
            let (words, tail) = x.as_chunks_mut::<64>();
            let tail_bits = bits.get(words.len()..).unwrap_or_default();
            for (values, bits) in words.iter_mut().zip(bits) {
                for (index, part) in values.as_chunks_mut().0.iter_mut().enumerate() {
                    let flipped = flip(load(part), (bits >> (index * LANES)) as u32);
                    store(part, flipped);
                }
            }
            super::scalar::flip_signs(tail, tail_bits);
        }

        #[target_feature(enable = $features)]
        pub(super) fn scale(x: &mut [f32], factor: f32) {
            let (parts, tail) = x.as_chunks_mut::<LANES>();
            for part in parts {
                let scaled = mul(load(part), splat(factor));
                store(part, scaled);
            }
            super::scalar::scale(tail, factor);
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
    use crate::testing::{agree, bits, lengths, value, values};

    proptest! {
        #[test]
        fn levels_agree_on_the_transform(log in 0_u32..13, all in prop::collection::vec(value(), 4_096)) {
            agree(|level| {
                let mut x = all[..1 << log].to_vec();
                fht(level, &mut x);
                bits(&x)
            });
        }

        #[test]
        fn levels_agree_on_single_steps(all in values(208), flips in any::<[u64; 4]>(), words in 0_usize..=4) {
            for range in lengths() {
                let of = |step: &dyn Fn(&mut [f32])| {
                    let mut x = all.clone();
                    step(&mut x[range.clone()]);
                    bits(&x)
                };
                agree(|level| of(&|x| flip_signs(level, x, &flips[..words])));
                agree(|level| of(&|x| kac_walk(level, x)));
                agree(|level| of(&|x| scale(level, x, 0.3)));
            }
        }
    }

    #[test]
    fn twice_the_transform_is_the_length_times_the_vector() {
        for log in 0..14 {
            let x: Vec<f32> = (0..1 << log).map(|i| (i * 7 % 11) as f32 - 5.0).collect();
            let mut twice = x.clone();
            fht(Level::current(), &mut twice);
            fht(Level::current(), &mut twice);
            scale(Level::current(), &mut twice, 1.0 / (1 << log) as f32);
            assert_eq!(twice, x);
        }
    }
}
