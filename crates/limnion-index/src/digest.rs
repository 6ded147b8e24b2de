//! Few rows that a search may find, as bytes side by side: all of them are estimated in one go, and the originals of those
//! that may be among the nearest decide.
//!
//! Rows are taken relative to their mean and rounded to bytes ([`crate::rough`]); how far each is from what the bytes say is
//! known, so that no row that belongs to the answer is ruled out: what is found is what measuring every row finds.

use limnion_simd::{Level, dot_f32, dot_i8_each, l2sq_f32};
use limnion_types::Metric;

use crate::rough::Rough;
use crate::search::NO_ROW;
use crate::table::Table;

/// So much of the lengths at hand is lost by adding up in f32, at most.
const ROUNDING: f32 = 2e-6;

/// The rows of a selection as bytes.
#[derive(Debug)]
pub(crate) struct Digest {
    rows: Vec<u32>,
    /// The mean of the rows.
    mean: Vec<f32>,
    values: Rough,
    /// The length of each row.
    lengths: Vec<f32>,
    /// How far each row is from its bytes, at most.
    errors: Vec<f32>,
}

/// What bytes say of rows.
#[derive(Debug)]
pub(crate) struct Guesses {
    pub(crate) keys: Vec<f32>,
    /// What the true keys are not below.
    pub(crate) least: Vec<f32>,
}

impl Digest {
    /// Of these rows, where originals are kept; rows that are not there are left out.
    pub(crate) fn of(table: &Table, rows: impl Iterator<Item = u32>) -> Option<Self> {
        let originals = table.originals.as_ref()?;
        let rows: Vec<u32> = rows.filter(|&row| row != NO_ROW && (row as usize) < table.len()).collect();
        let mut vectors = Vec::with_capacity(rows.len() * table.dim);
        rows.iter().for_each(|&row| originals.read(row, &mut vectors));
        if let Some(factors) = &table.inverse_lengths {
            for (vector, &row) in vectors.chunks_exact_mut(table.dim).zip(&rows) {
                let factor = factors.get(row as usize).copied().unwrap_or(1.0);
                vector.iter_mut().for_each(|x| *x *= factor);
            }
        }
        let mut mean = vec![0.0; table.dim];
        let share = 1.0 / rows.len().max(1) as f32;
        for vector in vectors.chunks_exact(table.dim) {
            mean.iter_mut().zip(vector).for_each(|(mean, x)| *mean += x * share);
        }
        let mut values = Rough::with_capacity(table.dim, rows.len());
        let (mut lengths, mut errors) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        for vector in vectors.chunks_exact_mut(table.dim) {
            vector.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean);
            lengths.push(dot_f32(Level::current(), vector, vector).sqrt());
            errors.push(values.push_with_error(vector));
        }
        Some(Self { rows, mean, values, lengths, errors })
    }

    pub(crate) fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// What is known of each row for a query, which is times its factor.
    pub(crate) fn guess(&self, metric: Metric, query: &[f32], factor: f32) -> Guesses {
        let level = Level::current();
        let mut scaled: Vec<f32> = query.iter().map(|x| x * factor).collect();
        let of_mean = dot_f32(level, &scaled, &self.mean);
        if metric == Metric::L2 {
            scaled.iter_mut().zip(&self.mean).for_each(|(x, mean)| *x -= mean);
        }
        let square = dot_f32(level, &scaled, &scaled);
        let mut rough = Rough::with_capacity(scaled.len(), 1);
        let error = rough.push_with_error(&scaled);
        // A key is the query's summand, and the row's under L2, less so many times the product.
        let (summand, times, own) = match metric {
            Metric::L2 => (square, 2.0, 1.0),
            Metric::Cosine => (2.0 - 2.0 * of_mean, 2.0, 0.0),
            Metric::InnerProduct => (-of_mean, 1.0, 0.0),
        };
        let mut keys = self.products(level, &rough);
        for (key, &length) in keys.iter_mut().zip(&self.lengths) {
            *key = (summand + own * length * length) - times * *key;
        }
        let (by_length, by_error) = (times * error, times * (square.sqrt() + error));
        let farthest = square.sqrt()
            + dot_f32(level, &self.mean, &self.mean).sqrt()
            + f32::from(u8::from(metric == Metric::Cosine));
        let mut least = keys.clone();
        for (least, (&length, &row_error)) in least.iter_mut().zip(self.lengths.iter().zip(&self.errors)) {
            let lost = ROUNDING * (farthest + length) * (farthest + length);
            *least -= (by_length * length + by_error * row_error) + lost;
        }
        Guesses { keys, least }
    }

    /// The inner product of the query and each row, as bytes.
    fn products(&self, level: Level, query: &Rough) -> Vec<f32> {
        let (bytes, step) = (query.row(0), query.step(0));
        let mut products = Vec::with_capacity(self.rows.len() + 4);
        for first in (0..self.rows.len()).step_by(4) {
            // Beyond the last there are no bytes, and the others count no further than that: it stands in for them.
            let last = self.rows.len() - 1;
            let dots = dot_i8_each(
                level,
                bytes,
                [first, first + 1, first + 2, first + 3].map(|at| self.values.row(at.min(last))),
            );
            products.extend(dots.map(|dot| dot as f32 * step));
        }
        products.truncate(self.rows.len());
        products.iter_mut().zip(self.values.steps()).for_each(|(product, step)| *product *= step);
        products
    }
}

impl Rough {
    /// Adds a vector, and returns how far it is from what its bytes say.
    fn push_with_error(&mut self, vector: &[f32]) -> f32 {
        self.push(vector);
        let (at, step) = (self.len() - 1, self.step(self.len() - 1));
        let said: Vec<f32> = self.row(at).iter().map(|&b| step * f32::from(b)).collect();
        l2sq_f32(Level::current(), vector, &said).sqrt() * (1.0 + ROUNDING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exact::{Exact, query_factor};
    use crate::{FlatIndex, Params, Precision};
    use limnion_testkit::Random;
    use limnion_types::Job;

    #[test]
    fn no_key_is_below_what_it_is_said_to_be_at_least() {
        let (dim, count) = (70, 203);
        for (seed, metric) in (1..).zip(Metric::ALL) {
            for (scale, shift) in [(1.0, 0.0), (1e-3, 5.0), (300.0, -100.0)] {
                for precision in [Precision::F32, Precision::F16] {
                    let mut random = Random::new(seed);
                    let move_all = |x: &f32| x * scale + shift;
                    let vectors: Vec<f32> = random.gaussians(count, dim).iter().map(move_all).collect();
                    let params = Params { originals: Some(precision), bits: 0, ..Params::new(metric) };
                    let index = FlatIndex::build(&vectors, dim, None, &params, &Job::new()).unwrap();
                    let digest = Digest::of(&index.table, 0..count as u32).unwrap();
                    for query in vectors.chunks_exact(dim).take(20) {
                        let exact = Exact::new(&index.table, query).unwrap();
                        let factor = query_factor(metric, Level::current(), query);
                        let Guesses { keys, least } = digest.guess(metric, query, factor);
                        for (row, (guess, least)) in (0..).zip(keys.into_iter().zip(least)) {
                            let key = exact.key(row);
                            assert!(least <= key, "{metric} {scale} {row}: {least} and {guess}, {key}");
                        }
                    }
                }
            }
        }
    }
}
