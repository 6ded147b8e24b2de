//! Late interaction: documents of several vectors, measured against queries of several.
//!
//! The vectors of a document are rows like any other; their ids say which document they are of, and where in it they come:
//! `document << 16 | place`, from place 0 on without a gap. A document's score for a query is the sum, over the vectors of
//! the query, of the best inner product (or cosine) with one of its own.

use std::cmp::Ordering;

use half::slice::HalfFloatSliceExt;
use limnion_simd::{Level, dot_f32_rows};
use limnion_types::{Error, ErrorKind, Hit, Job, Metric, Result};
use rayon::prelude::*;

use crate::input::inverse_lengths;
use crate::originals::Originals;
use crate::params::{check_hits, invalid};
use crate::table::{Table, no_originals};
use crate::{FlatIndex, GraphIndex, IvfIndex};

/// Bits of an id that say where in its document a vector comes.
const PLACE_BITS: u32 = 16;

impl FlatIndex {
    /// Of these documents, those with the `k` highest scores for a query of several vectors; ties go to the lower id. Parallel.
    /// Documents that are not there are passed over. The distance of a hit is its score below zero.
    ///
    /// # Errors
    /// `InvalidArgument` for a Euclidean index, for k = 0 or a query that cannot be used, `DimensionMismatch`,
    /// `NoOriginals`, `Cancelled`.
    pub fn max_similar(&self, query: &[f32], documents: &[u64], k: usize, job: &Job) -> Result<Vec<Hit>> {
        self.table.max_similar(query, documents, k, job)
    }
}

impl IvfIndex {
    /// [`FlatIndex::max_similar`] of an index of lists.
    ///
    /// # Errors
    /// As there.
    pub fn max_similar(&self, query: &[f32], documents: &[u64], k: usize, job: &Job) -> Result<Vec<Hit>> {
        self.table.max_similar(query, documents, k, job)
    }
}

impl GraphIndex {
    /// [`FlatIndex::max_similar`] of a graph.
    ///
    /// # Errors
    /// As there.
    pub fn max_similar(&self, query: &[f32], documents: &[u64], k: usize, job: &Job) -> Result<Vec<Hit>> {
        self.table.max_similar(query, documents, k, job)
    }
}

impl Table {
    fn max_similar(&self, query: &[f32], documents: &[u64], k: usize, job: &Job) -> Result<Vec<Hit>> {
        check_hits(k, None)?;
        if self.metric == Metric::L2 {
            return Err(invalid(
                "late interaction needs the metric \"ip\" or \"cosine\", got \"l2\"".to_owned(),
            ));
        }
        let originals = self.originals.as_ref().ok_or_else(no_originals)?;
        let rows = self.check_queries(query)?;
        if rows.len() == 0 {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "query must hold at least one vector, got none",
            ));
        }
        self.verify(true)?;
        let mut query = query.to_vec();
        if self.metric == Metric::Cosine {
            for (vector, inverse) in query.chunks_exact_mut(self.dim).zip(inverse_lengths(rows)) {
                vector.iter_mut().for_each(|x| *x *= inverse);
            }
        }
        let score = |work: &mut Work, &document: &u64| {
            job.check()?;
            Ok(work.score(self, originals, &query, document).map(|score| (document, score)))
        };
        let scored =
            documents.par_iter().map_init(|| Work::new(rows.len()), score).collect::<Result<Vec<_>>>()?;
        let mut scored: Vec<(u64, f32)> = scored.into_iter().flatten().collect();
        let best_first =
            |a: &(u64, f32), b: &(u64, f32)| -> Ordering { b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)) };
        scored.sort_unstable_by(best_first);
        scored.dedup_by_key(|(document, _)| *document);
        scored.truncate(k);
        Ok(scored.into_iter().map(|(id, score)| Hit { id, score, distance: -score }).collect())
    }
}

/// What one thread works in.
struct Work {
    products: Vec<f32>,
    best: Vec<f32>,
    row: Vec<f32>,
}

impl Work {
    fn new(queries: usize) -> Self {
        Self { products: vec![0.0; queries], best: Vec::new(), row: Vec::new() }
    }

    fn score(&mut self, table: &Table, originals: &Originals, query: &[f32], document: u64) -> Option<f32> {
        let level = Level::current();
        self.best.clear();
        self.best.resize(self.products.len(), f32::NEG_INFINITY);
        let first = document.checked_mul(1 << PLACE_BITS)?;
        let rows = (first..=first | ((1 << PLACE_BITS) - 1)).map_while(|id| table.ids.row(id));
        let mut vectors = 0;
        for row in rows {
            let vector = match originals {
                Originals::F32(matrix) => matrix.row(row),
                Originals::F16(matrix) => {
                    self.row.resize(table.dim, 0.0);
                    matrix.row(row).convert_to_f32_slice(&mut self.row);
                    &self.row
                }
            };
            dot_f32_rows(level, vector, query, &mut self.products);
            let lengths = table.inverse_lengths.as_ref();
            let inverse = lengths.and_then(|kept| kept.get(row as usize)).copied().unwrap_or(1.0);
            for (best, product) in self.best.iter_mut().zip(&self.products) {
                *best = best.max(product * inverse);
            }
            vectors += 1;
        }
        (vectors > 0).then(|| self.best.iter().sum())
    }
}
