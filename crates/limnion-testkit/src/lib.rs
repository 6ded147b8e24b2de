//! Naive oracles and generators for the tests of limnion.
//!
//! Everything here is slow and obviously right: sums in f64, sorting instead of heaps, one generator with a fixed
//! stream. It is a dev-dependency of the other crates and depends on nothing but their types.
#![forbid(unsafe_code)]

use limnion_types::Metric;

/// A random stream for tests: xorshift64*, the same on every machine.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A stream that depends on nothing but `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number in 0..`end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end.max(1) as u64) as usize
    }

    /// A number in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number of the standard normal distribution.
    pub fn gaussian(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// `rows` × `dim` independent normal numbers.
    pub fn gaussians(&mut self, rows: usize, dim: usize) -> Vec<f32> {
        (0..rows * dim).map(|_| self.gaussian() as f32).collect()
    }

    /// `rows` vectors round `clusters` centres, off the origin: what embeddings look like from afar.
    pub fn clustered(&mut self, rows: usize, dim: usize, clusters: usize) -> Vec<f32> {
        let offset = self.gaussians(1, dim);
        let centres = self.gaussians(clusters, dim);
        let mut vectors = Vec::with_capacity(rows * dim);
        for _ in 0..rows {
            let centre = self.below(clusters) * dim;
            for d in 0..dim {
                vectors.push(0.5 * offset[d] + centres[centre + d] + 0.7 * self.gaussian() as f32);
            }
        }
        vectors
    }
}

/// The distance of two vectors under a metric, computed in f64: Euclidean, negative inner product, or 1 − cosine.
pub fn distance(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum() };
    match metric {
        Metric::L2 => {
            a.iter().zip(b).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum::<f64>().sqrt()
        }
        Metric::InnerProduct => -dot(a, b),
        Metric::Cosine => 1.0 - dot(a, b) / (dot(a, a) * dot(b, b)).sqrt(),
    }
}

/// The numbers of the `k` nearest rows to `query` with their distances, best first, ties by number.
pub fn nearest(metric: Metric, vectors: &[f32], dim: usize, query: &[f32], k: usize) -> Vec<(u64, f64)> {
    let mut rows: Vec<(u64, f64)> =
        (0..).zip(vectors.chunks_exact(dim).map(|row| distance(metric, query, row))).collect();
    rows.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    rows.truncate(k);
    rows
}

/// The share of `expected` that is in `found`.
pub fn recall(found: &[u64], expected: &[(u64, f64)]) -> f64 {
    let hits = expected.iter().filter(|(id, _)| found.contains(id)).count();
    hits as f64 / expected.len().max(1) as f64
}
