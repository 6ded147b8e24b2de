//! Measuring a query against the originals.

use limnion_simd::{
    Level, dot_f32, dot_f32_f16, dot_f32_rows, l2sq_f32, l2sq_f32_f16, l2sq_f32_rows, prefetch,
};
use limnion_types::{Hit, Metric};

use crate::digest::{Digest, Guesses};
use crate::input::inverse_length;
use crate::originals::Originals;
use crate::table::Table;
use crate::top::Ranked;

/// Rows are ordered by a key, lower is better: squared distance, negative inner product, or, under cosine, the squared
/// distance of the unit vectors.
pub(crate) struct Exact<'a> {
    level: Level,
    metric: Metric,
    query: &'a [f32],
    /// 1 / length of the query under cosine, else 1.
    factor: f32,
    originals: &'a Originals,
    inverse_lengths: &'a [f32],
}

impl<'a> Exact<'a> {
    /// `None` where the index keeps no originals.
    pub(crate) fn new(table: &'a Table, query: &'a [f32]) -> Option<Self> {
        let level = Level::current();
        Some(Self {
            level,
            metric: table.metric,
            query,
            factor: query_factor(table.metric, level, query),
            originals: table.originals.as_ref()?,
            inverse_lengths: table.inverse_lengths.as_deref().unwrap_or_default(),
        })
    }

    /// The key of one row.
    pub(crate) fn key(&self, row: u32) -> f32 {
        let product = match (self.originals, self.metric) {
            (Originals::F32(matrix), Metric::L2) => return l2sq_f32(self.level, self.query, matrix.row(row)),
            (Originals::F16(matrix), Metric::L2) => {
                return l2sq_f32_f16(self.level, self.query, matrix.row(row));
            }
            (Originals::F32(matrix), _) => dot_f32(self.level, self.query, matrix.row(row)),
            (Originals::F16(matrix), _) => dot_f32_f16(self.level, self.query, matrix.row(row)),
        };
        self.key_of_product(row, product)
    }

    /// The keys of the rows from `first` on, as many as `keys` has places.
    pub(crate) fn keys(&self, first: u32, keys: &mut [f32]) {
        let Originals::F32(matrix) = self.originals else {
            for (row, key) in (first..).zip(keys) {
                *key = self.key(row);
            }
            return;
        };
        let start = first as usize * self.query.len();
        let rows = matrix.get(start..start + keys.len() * self.query.len()).unwrap_or_default();
        if self.metric == Metric::L2 {
            l2sq_f32_rows(self.level, self.query, rows, keys);
            return;
        }
        dot_f32_rows(self.level, self.query, rows, keys);
        for (row, key) in (first..).zip(keys) {
            *key = self.key_of_product(row, *key);
        }
    }

    fn key_of_product(&self, row: u32, product: f32) -> f32 {
        match self.metric {
            Metric::Cosine => {
                let inverse = self.inverse_lengths.get(row as usize).copied().unwrap_or(1.0);
                2.0 - 2.0 * (product * (inverse * self.factor))
            }
            Metric::L2 | Metric::InnerProduct => -product,
        }
    }

    /// What the bytes of rows say of their keys.
    pub(crate) fn guess(&self, digest: &Digest) -> Guesses {
        digest.guess(self.metric, self.query, self.factor)
    }

    /// Has the row fetched from memory while other work is done.
    pub(crate) fn prefetch(&self, row: u32) {
        match self.originals {
            Originals::F32(matrix) => prefetch(bytemuck::cast_slice(matrix.row(row))),
            Originals::F16(matrix) => prefetch(bytemuck::cast_slice(matrix.row(row))),
        }
        let row = row as usize;
        prefetch(bytemuck::cast_slice(self.inverse_lengths.get(row..=row).unwrap_or_default()));
    }
}

/// What a query is multiplied by before it is encoded: 1 / length under cosine.
pub(crate) fn query_factor(metric: Metric, level: Level, query: &[f32]) -> f32 {
    if metric == Metric::Cosine { inverse_length(level, query) } else { 1.0 }
}

/// The largest key of a row within a distance; a little more than that where rounding could hide one.
pub(crate) fn key_within(metric: Metric, radius: f32) -> f32 {
    match metric {
        Metric::L2 if radius < 0.0 => f32::MIN,
        Metric::L2 => (radius * radius * (1.0 + 4.0 * f32::EPSILON)).clamp(f32::MIN_POSITIVE, f32::MAX),
        Metric::InnerProduct => radius,
        Metric::Cosine if radius < 0.0 => f32::MIN,
        Metric::Cosine => 2.0 * radius.min(2.0),
    }
}

/// The hit that a key stands for.
pub(crate) fn hit(metric: Metric, Ranked { key, id }: Ranked) -> Hit {
    let (score, distance) = match metric {
        Metric::L2 => {
            let distance = key.max(0.0).sqrt();
            (1.0 / (1.0 + distance), distance)
        }
        Metric::InnerProduct => (-key, key),
        Metric::Cosine => {
            let distance = (0.5 * key).clamp(0.0, 2.0);
            (1.0 - distance, distance)
        }
    };
    Hit { id, score, distance }
}
