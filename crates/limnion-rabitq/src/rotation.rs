//! A random rotation of any dimension in O(D log D), without a D × D matrix.
//!
//! Twice: flip signs at random and transform (Walsh-Hadamard) the first coordinates, as many as the largest power of two
//! that fits; flip signs and transform the last ones; turn the two halves of all coordinates against each other by 45°
//! (the last step only where the dimension is no power of two). Each step is orthogonal up to a known factor, so lengths
//! and angles are kept. The state is four sign bits a dimension, drawn from [`SplitMix64`].
//!
//! The construction follows the "FhtKac" rotator described with the RaBitQ library, which turns the halves after each
//! transform. There a coordinate outside of the first transform can dodge the others too and leave a sixteenth of its
//! energy in two places; turning the halves only after both ends have been transformed leaves no such path
//! (`docs/design/002-rotation.md` has the figures).

use limnion_simd::{Level, fht, flip_signs, kac_walk, scale};

use crate::SplitMix64;

const ROUNDS: usize = 4;
/// Codes are packed and scanned in groups of this many dimensions.
const GROUP: usize = 64;

/// The dimension that codes have for vectors of `dim`: the next multiple of 64.
pub fn padded_dim(dim: usize) -> usize {
    dim.next_multiple_of(GROUP)
}

/// A random rotation that depends on nothing but the dimension and the seed.
///
/// ```
/// use limnion_rabitq::Rotation;
/// use limnion_simd::{Level, dot_f32};
///
/// let rotation = Rotation::new(100, 42);
/// let vector: Vec<f32> = (0..100).map(|i| i as f32).collect();
/// let mut rotated = vec![0.0; rotation.padded_dim()];
/// rotation.rotate(Level::current(), &vector, &mut rotated);
/// let length = |v: &[f32]| dot_f32(Level::current(), v, v).sqrt();
/// assert!((length(&rotated) / length(&vector) - 1.0).abs() < 1e-5);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Rotation {
    dim: usize,
    padded_dim: usize,
    /// `ROUNDS` runs of one bit a padded dimension.
    signs: Vec<u64>,
}

impl Rotation {
    /// The rotation of `dim` dimensions that belongs to `seed`.
    pub fn new(dim: usize, seed: u64) -> Self {
        let padded_dim = padded_dim(dim);
        let mut random = SplitMix64::new(seed);
        let signs = (0..ROUNDS * padded_dim / GROUP).map(|_| random.next_u64()).collect();
        Self { dim, padded_dim, signs }
    }

    /// The length of vectors that go in.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The length of vectors that come out.
    pub fn padded_dim(&self) -> usize {
        self.padded_dim
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.signs.capacity() * size_of::<u64>()
    }

    /// Rotates `vector` into `out`, which has the padded length; missing coordinates count as zero.
    pub fn rotate(&self, level: Level, vector: &[f32], out: &mut [f32]) {
        let len = vector.len().min(out.len());
        let (head, tail) = out.split_at_mut(len);
        head.copy_from_slice(vector.get(..len).unwrap_or_default());
        tail.fill(0.0);
        self.rotate_in_place(level, out);
    }

    /// Rotates a vector of the padded length.
    pub fn rotate_in_place(&self, level: Level, vector: &mut [f32]) {
        let len = vector.len();
        if len == 0 {
            return;
        }
        let width = 1 << len.ilog2();
        let whole = width == len;
        for (round, signs) in self.signs.chunks_exact((len / GROUP).max(1)).enumerate() {
            flip_signs(level, vector, signs);
            let last = round % 2 == 1;
            let start = if last { len - width } else { 0 };
            if let Some(part) = vector.get_mut(start..start + width) {
                fht(level, part);
                // Where the transforms reach every coordinate alike, one factor at the end serves for all.
                if !whole {
                    scale(level, part, (1.0 / (width as f64).sqrt()) as f32);
                }
            }
            if last && !whole {
                kac_walk(level, vector);
            }
        }
        // Each of the four transforms lengthens by √width, each of the two turns by √2.
        let factor = if whole { 1.0 / (width as f64).powi(2) } else { 0.5 };
        scale(level, vector, factor as f32);
    }

    /// Undoes [`Rotation::rotate_in_place`]: each step is its own inverse, up to the same factor.
    pub fn unrotate_in_place(&self, level: Level, vector: &mut [f32]) {
        let len = vector.len();
        if len == 0 {
            return;
        }
        let width = 1 << len.ilog2();
        let whole = width == len;
        for (round, signs) in self.signs.chunks_exact((len / GROUP).max(1)).enumerate().rev() {
            let last = round % 2 == 1;
            if last && !whole {
                kac_walk(level, vector);
            }
            let start = if last { len - width } else { 0 };
            if let Some(part) = vector.get_mut(start..start + width) {
                fht(level, part);
                if !whole {
                    scale(level, part, (1.0 / (width as f64).sqrt()) as f32);
                }
            }
            flip_signs(level, vector, signs);
        }
        let factor = if whole { 1.0 / (width as f64).powi(2) } else { 0.5 };
        scale(level, vector, factor as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    }

    fn random_vector(random: &mut SplitMix64, len: usize) -> Vec<f32> {
        (0..len).map(|_| (random.next_u64() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    #[test]
    fn lengths_and_angles_are_kept_in_any_dimension() {
        let mut random = SplitMix64::new(7);
        for dim in [1, 2, 63, 64, 65, 96, 100, 128, 300, 384, 768, 1000, 1024, 1536, 3072] {
            let rotation = Rotation::new(dim, 42);
            let (a, b) = (random_vector(&mut random, dim), random_vector(&mut random, dim));
            let mut rotated_a = vec![0.0; rotation.padded_dim()];
            let mut rotated_b = rotated_a.clone();
            rotation.rotate(Level::current(), &a, &mut rotated_a);
            rotation.rotate(Level::current(), &b, &mut rotated_b);
            let scale = (dot(&a, &a) * dot(&b, &b)).sqrt();
            assert!((dot(&rotated_a, &rotated_a) / dot(&a, &a) - 1.0).abs() < 1e-5, "dim {dim}");
            assert!((dot(&rotated_a, &rotated_b) - dot(&a, &b)).abs() / scale < 1e-5, "dim {dim}");
        }
    }

    #[test]
    fn what_was_rotated_can_be_turned_back() {
        let mut random = SplitMix64::new(9);
        for dim in [1, 64, 100, 192, 256, 384, 1000, 1024] {
            let rotation = Rotation::new(dim, 42);
            let vector = random_vector(&mut random, dim);
            let mut turned = vec![0.0; rotation.padded_dim()];
            rotation.rotate(Level::current(), &vector, &mut turned);
            rotation.unrotate_in_place(Level::current(), &mut turned);
            let (back, padding) = turned.split_at(dim);
            assert!(back.iter().zip(&vector).all(|(a, b)| (a - b).abs() < 1e-5), "dim {dim}");
            assert!(padding.iter().all(|x| x.abs() < 1e-5), "dim {dim}");
        }
    }

    #[test]
    fn a_single_coordinate_spreads_like_a_gaussian() {
        for dim in (64..2048).step_by(64) {
            let rotation = Rotation::new(dim, 42);
            let mut fourth_moments = 0.0;
            for hot in 0..dim {
                let mut vector = vec![0.0; dim];
                vector[hot] = 1.0;
                let mut rotated = vec![0.0; rotation.padded_dim()];
                rotation.rotate(Level::current(), &vector, &mut rotated);
                fourth_moments += rotated.iter().map(|&x| f64::from(x).powi(4)).sum::<f64>();
            }
            // D coordinates of variance 1/D have fourth moments of 3/D² each where they are Gaussian.
            assert!((2.7..3.3).contains(&fourth_moments), "dim {dim}: {fourth_moments}");
        }
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        let mut random = SplitMix64::new(3);
        for dim in [64, 100, 384, 768, 1024] {
            let rotation = Rotation::new(dim, 1);
            let vector = random_vector(&mut random, dim);
            let rotated: Vec<Vec<f32>> = Level::available()
                .into_iter()
                .map(|level| {
                    let mut out = vec![0.0; rotation.padded_dim()];
                    rotation.rotate(level, &vector, &mut out);
                    out
                })
                .collect();
            assert!(rotated.windows(2).all(|pair| pair[0] == pair[1]), "dim {dim}");
        }
    }

    #[test]
    fn seeds_give_different_rotations_and_one_seed_always_the_same() {
        assert_eq!(Rotation::new(384, 5), Rotation::new(384, 5));
        assert_ne!(Rotation::new(384, 5), Rotation::new(384, 6));
    }
}
