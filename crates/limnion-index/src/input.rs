//! The rules that vectors have to keep before anything is done with them.

use limnion_simd::{Level, dot_f32};
use limnion_types::{Error, ErrorKind, Metric, Result};
use rayon::prelude::*;

use crate::params::invalid;

/// Squared lengths stay below this, so that no distance between two vectors overflows f32.
const LARGEST_SQUARE: f32 = 1e37;

/// Vectors of `dim` dimensions, one after another, that keep the rules.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    values: &'a [f32],
    dim: usize,
}

impl<'a> Rows<'a> {
    /// Checks length, finiteness and, under cosine, that no vector is zero. `name` is the argument's in messages.
    pub(crate) fn check(name: &str, values: &'a [f32], dim: usize, metric: Metric) -> Result<Self> {
        Self::check_part(name, values, dim, metric, 0)
    }

    /// [`Rows::check`] of a part of the caller's rows, of which the first is number `first`.
    pub(crate) fn check_part(
        name: &str,
        values: &'a [f32],
        dim: usize,
        metric: Metric,
        first: usize,
    ) -> Result<Self> {
        if !values.len().is_multiple_of(dim) {
            let message =
                format!("{name} must hold whole vectors of {dim} numbers, got {} numbers", values.len());
            return Err(Error::new(ErrorKind::DimensionMismatch, message));
        }
        let level = Level::current();
        let check_row = |(row, vector): (usize, &[f32])| {
            check_square(dot_f32(level, vector, vector), vector, metric).map_err(|problem| (row, problem))
        };
        let rows = values.chunks_exact(dim);
        let result = if rows.len() < 1024 {
            rows.enumerate().try_for_each(check_row)
        } else {
            // The first offender, whichever thread finds one.
            values
                .par_chunks_exact(dim)
                .enumerate()
                .filter_map(|at| check_row(at).err())
                .min_by_key(|(row, _)| *row)
                .map_or(Ok(()), Err)
        };
        result.map_err(|(row, problem)| invalid(format!("{name} {problem} (row {})", first + row)))?;
        Ok(Self { values, dim })
    }

    /// The rows that keep the rules; nothing is said of the others.
    pub(crate) fn only_good(values: &[f32], dim: usize, metric: Metric) -> Vec<f32> {
        values
            .chunks_exact(dim)
            .filter(|row| Rows::check("", row, dim, metric).is_ok())
            .flatten()
            .copied()
            .collect()
    }

    /// Checks one query.
    pub(crate) fn check_query(query: &'a [f32], dim: usize, metric: Metric) -> Result<()> {
        if query.len() != dim {
            return Err(wrong_dim("query", dim, query.len()));
        }
        check_square(dot_f32(Level::current(), query, query), query, metric)
            .map_err(|problem| invalid(format!("query {problem}")))
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    pub(crate) fn values(&self) -> &'a [f32] {
        self.values
    }

    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &'a [f32]> {
        self.values.chunks_exact(self.dim)
    }

    /// Pieces of at most `rows` rows.
    pub(crate) fn pieces(&self, rows: usize) -> impl Iterator<Item = Rows<'a>> {
        let dim = self.dim;
        self.values.chunks(rows * dim).map(move |values| Rows { values, dim })
    }
}

/// The error for a vector of the wrong length.
pub(crate) fn wrong_dim(name: &str, expected: usize, got: usize) -> Error {
    let message = format!("{name} must have {expected} dimensions like the index, got {got}");
    Error::new(ErrorKind::DimensionMismatch, message)
        .suggest("embed it with the model that made the index's vectors")
}

fn check_square(square: f32, vector: &[f32], metric: Metric) -> std::result::Result<(), String> {
    if square <= LARGEST_SQUARE {
        // A length whose square underflows has no usable direction either.
        if metric == Metric::Cosine && square < f32::MIN_POSITIVE {
            return Err("must not be zero under cosine: a zero vector has no direction".to_owned());
        }
        return Ok(());
    }
    Err(match vector.iter().position(|x| !x.is_finite()) {
        Some(at) => {
            format!("must be finite, got {} at position {at}", vector.get(at).copied().unwrap_or(f32::NAN))
        }
        None => "is too long: its squared length must be below 1e37".to_owned(),
    })
}

/// 1 / length of each row, for cosine.
pub(crate) fn inverse_lengths(rows: Rows<'_>) -> Vec<f32> {
    let level = Level::current();
    rows.iter().map(|row| inverse_length(level, row)).collect()
}

/// 1 / length of a vector that is not zero.
pub(crate) fn inverse_length(level: Level, vector: &[f32]) -> f32 {
    1.0 / dot_f32(level, vector, vector).sqrt()
}
