//! Rounding a direction to the grid of codes.
//!
//! A code of B bits stands for a vector y whose coordinates are ±½, ±1½, … ±(2^(B-1) − ½). Of the grid's directions the
//! best is the one with the largest cosine to the residual r; all candidates come from scaling r before rounding, so the
//! question is only which scale. Rotated coordinates are near Gaussian, which makes the best scale nearly the same for
//! all vectors:
//!
//! | bits | rule | excess error over the best scale |
//! |---|---|---|
//! | 1 | signs alone | 0 |
//! | 2-4 | one constant scale | under 2.5 % |
//! | 5-6 | the best of five scales round the constant | under 3 % |
//! | 7-8 | the largest coordinate fills the grid | under 3 % |
//!
//! (On Gaussian vectors of 384 to 3072 dimensions, against the best of all scales for each vector.)

/// The most bits a dimension that a code may have.
pub const MAX_BITS: u8 = 8;

/// Grid steps a standard deviation of the coordinates, for 2 to 6 bits.
const STEPS_PER_DEVIATION: [f32; 5] = [1.00, 1.71, 2.99, 5.4, 10.0];
const ONE_SCALE: &[f32] = &[1.0];
const FIVE_SCALES: &[f32] = &[0.88, 0.94, 1.0, 1.06, 1.12];

/// The deviation of the estimate from B bits as a share of that from one bit, for B = 1 to 8.
///
/// `the_bound_covers_the_share_that_its_sureness_says` checks what comes of them.
const ERROR_SHARE: [f32; MAX_BITS as usize] = [1.0, 0.486, 0.261, 0.142, 0.0773, 0.0412, 0.0203, 0.0102];

/// The error bound of a code of `bits` as a share of the bound of its sign bits.
pub(crate) fn error_share(bits: u8) -> f32 {
    ERROR_SHARE.get(usize::from(bits).wrapping_sub(1)).copied().unwrap_or(1.0)
}

/// Writes the magnitude code k of each coordinate (y = ±(k + ½)) and returns (Σ |r| y, Σ y²).
///
/// `length` is ‖r‖ > 0 and `bits` is 2 to 8.
pub(crate) fn round_to_grid(residual: &[f32], length: f32, bits: u8, magnitudes: &mut [u8]) -> (f32, f32) {
    let top = f32::from(1_u8 << (bits - 1)) - 1.0;
    let deviation = length / (residual.len() as f32).sqrt();
    let (middle, factors) = match STEPS_PER_DEVIATION.get(usize::from(bits).wrapping_sub(2)) {
        Some(&steps) => (steps / deviation, if bits <= 4 { ONE_SCALE } else { FIVE_SCALES }),
        None => ((top + 1.0) / residual.iter().fold(0.0_f32, |largest, x| largest.max(x.abs())), ONE_SCALE),
    };
    let mut best = middle;
    if factors.len() > 1 {
        let mut best_cosine = 0.0;
        for &factor in factors {
            let (product, square) = round(residual, middle * factor, top, magnitudes);
            let cosine = product / square.sqrt();
            if cosine > best_cosine {
                (best, best_cosine) = (middle * factor, cosine);
            }
        }
    }
    round(residual, best, top, magnitudes)
}

/// One rounding; sums run over sixteen lanes, so that their order, and with it every bit, is fixed.
fn round(residual: &[f32], scale: f32, top: f32, magnitudes: &mut [u8]) -> (f32, f32) {
    const LANES: usize = 16;
    let mut products = [0.0_f32; LANES];
    let mut squares = [0.0_f32; LANES];
    for (values, codes) in residual.chunks_exact(LANES).zip(magnitudes.chunks_exact_mut(LANES)) {
        for lane in 0..LANES {
            let size = values[lane].abs();
            let step = (size * scale).min(top) as i32;
            let y = step as f32 + 0.5;
            codes[lane] = step as u8;
            products[lane] += size * y;
            squares[lane] += y * y;
        }
    }
    (products.iter().sum(), squares.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SplitMix64;

    /// The largest cosine that any scale reaches, by trying very many.
    fn best_cosine(residual: &[f32], bits: u8) -> f32 {
        let length = residual.iter().map(|x| x * x).sum::<f32>().sqrt();
        let largest = residual.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let top = f32::from(1_u8 << (bits - 1));
        let mut codes = vec![0; residual.len()];
        (1..4000)
            .map(|i| {
                let scale = 1.2 * top / largest * i as f32 / 1000.0;
                let (product, square) = round(residual, scale, top - 1.0, &mut codes);
                product / square.sqrt() / length
            })
            .fold(0.0, f32::max)
    }

    #[test]
    fn the_rules_come_near_the_best_scale() {
        let mut random = SplitMix64::new(11);
        for bits in 2..=MAX_BITS {
            let (mut excess, trials) = (0.0, 12);
            for _ in 0..trials {
                // A sum of uniform numbers is near Gaussian.
                let residual: Vec<f32> = (0..768)
                    .map(|_| {
                        (0..12).map(|_| (random.next_u64() >> 40) as f32 / (1 << 24) as f32).sum::<f32>()
                            - 6.0
                    })
                    .collect();
                let length = residual.iter().map(|x| x * x).sum::<f32>().sqrt();
                let (product, square) = round_to_grid(&residual, length, bits, &mut vec![0; 768]);
                let error = |cosine: f32| (1.0 / (cosine * cosine) - 1.0).max(0.0).sqrt();
                excess += error(product / square.sqrt() / length) / error(best_cosine(&residual, bits)) - 1.0;
            }
            assert!(excess / trials as f32 <= 0.05, "{bits} bits: {}", excess / trials as f32);
        }
    }
}
