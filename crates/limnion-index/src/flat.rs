//! The flat index: what it holds, how rows come, change and go, and how it is searched.

use std::sync::OnceLock;

use limnion_rabitq::{Form, Quantizer, Query, padded_dim};
use limnion_simd::{BlockShape, Level, dot_f32};
use limnion_types::{Error, ErrorKind, Hit, Job, Metric, Result};
use rayon::prelude::*;

use crate::builder::{Builder, sample_rows};
use crate::calibration::{Calibration, MEASURED};
use crate::codes::Codes;
use crate::input::{Rows, inverse_length, inverse_lengths};
use crate::originals::Originals;
use crate::params::{Params, Plan, Precision, SearchOptions};
use crate::search::{FEW_ROWS, PREPARATION_ROWS, Search, scan_codes, scan_originals};
use crate::selection::Selection;
use crate::table::Table;

/// Rows between two looks at the job.
const PIECE_ROWS: usize = 8192;
/// Tables of the queries that share a pass stay within this, so that they fit the first-level cache.
const TABLE_BYTES: usize = 24 << 10;
pub(crate) const MAX_GROUP: usize = 8;
/// Once one row in so many is fresh, what is known of the bounds is found out anew.
const CALIBRATED_SHARE: usize = 4;

/// An index that scans all rows: exactly, or by their codes and then more closely.
///
/// Searches take `&self` and run side by side; changes take `&mut self`. Rows keep the order in which they were added,
/// except that removing one puts the last row in its place.
#[derive(Debug, Clone)]
pub struct FlatIndex {
    pub(crate) params: Params,
    pub(crate) table: Table,
    pub(crate) codes: Option<Codes>,
    /// How sure the bounds have to be for a recall, once one has been asked for.
    pub(crate) calibration: OnceLock<Calibration>,
    /// Rows that came or changed since then, or since the index was opened.
    fresh_rows: usize,
}

impl FlatIndex {
    /// An index of `vectors` (rows of `dim` numbers) with the given ids, or 0, 1, 2 … without.
    ///
    /// Cost: one pass to copy the originals and about 1 to 3 µs a row and core at 384 dimensions to encode.
    ///
    /// # Errors
    /// `InvalidArgument` for parameters or values that cannot be used, `DimensionMismatch` for a ragged end,
    /// `DuplicateId`, and `Cancelled` when the job says so.
    pub fn build(
        vectors: &[f32],
        dim: usize,
        ids: Option<&[u64]>,
        params: &Params,
        job: &Job,
    ) -> Result<Self> {
        params.check(dim)?;
        let mut builder = Builder::new(params, dim, &sample(vectors, dim), vectors.len() / dim)?;
        builder.push(vectors, ids, job)?;
        Ok(builder.finish())
    }

    /// [`FlatIndex::build`] of vectors that are given away: where the originals are kept as f32, these are they, and
    /// nothing is copied.
    ///
    /// # Errors
    /// As [`FlatIndex::build`].
    pub fn build_owned(
        vectors: Vec<f32>,
        dim: usize,
        ids: Option<&[u64]>,
        params: &Params,
        job: &Job,
    ) -> Result<Self> {
        if params.originals != Some(Precision::F32) {
            return Self::build(&vectors, dim, ids, params, job);
        }
        params.check(dim)?;
        let mut index = Self::empty(params, dim, &sample(&vectors, dim), vectors.len() / dim)?;
        index.table.originals = None;
        index.add(ids, &vectors, job)?;
        index.table.originals = Some(Originals::of(vectors, dim));
        Ok(index)
    }

    pub(crate) fn of(params: Params, table: Table, codes: Option<Codes>) -> Self {
        Self { params, table, codes, calibration: OnceLock::new(), fresh_rows: 0 }
    }

    /// An index without rows, centred on the mean of `sample`.
    pub(crate) fn empty(params: &Params, dim: usize, sample: &[f32], capacity: usize) -> Result<Self> {
        params.check(dim)?;
        // A row that breaks the rules is told of when it is added, by its own number and not by that in the sample.
        let good = Rows::only_good(sample, dim, params.metric);
        let sample = Rows::check("sample", &good, dim, params.metric)?;
        let codes = (params.bits > 0).then(|| {
            let (quantizer, shape) = quantizer(params, dim, sample)?;
            Ok(Codes::new(quantizer, shape, capacity))
        });
        let table = Table::new(params, dim, capacity);
        Ok(Self::of(params.clone(), table, codes.transpose()?))
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers a vector.
    pub fn dim(&self) -> usize {
        self.table.dim
    }

    /// How near two vectors are.
    pub fn metric(&self) -> Metric {
        self.params.metric
    }

    /// What is kept of each vector.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Bytes on the heap, spare capacity included; what lies in a mapped file does not count.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.table.heap_bytes() + self.codes.as_ref().map_or(0, Codes::heap_bytes)
    }

    /// Whether so many rows can be added or changed in a moment. Else all that there is may be copied for it, because it lies
    /// in a file, because a clone shares it, or because it has no room: for those who have others wait meanwhile.
    pub fn has_room(&self, rows: usize) -> bool {
        self.codes.as_ref().is_none_or(|codes| codes.has_room(rows))
            && self.table.originals.as_ref().is_none_or(|originals| originals.has_room(rows))
    }

    /// The ids, in the order of the rows.
    pub fn ids(&self) -> Vec<u64> {
        self.table.ids.to_vec()
    }

    /// Whether there is a row with this id.
    pub fn contains(&self, id: u64) -> bool {
        self.table.ids.row(id).is_some()
    }

    /// The original vector of a row, as f32.
    ///
    /// # Errors
    /// `NoOriginals` where the index keeps none, `IdNotFound`.
    pub fn vector(&self, id: u64) -> Result<Vec<f32>> {
        self.table.vector(id)
    }

    /// The original vectors in the order of [`FlatIndex::ids`], without a copy.
    ///
    /// # Errors
    /// `NoOriginals` where the index keeps none.
    pub fn originals(&self) -> Result<Originals> {
        self.table.originals()
    }

    /// The rows with these ids; ids that are not in the index select nothing.
    pub fn select_ids(&self, ids: &[u64]) -> Selection {
        Selection::from_rows(ids.iter().filter_map(|&id| self.table.ids.row(id)).collect())
    }

    /// The rows whose place in `mask`, which is in the order of [`FlatIndex::ids`], says true.
    ///
    /// # Errors
    /// `InvalidArgument` unless there is one bool a row.
    pub fn select_mask(&self, mask: &[bool]) -> Result<Selection> {
        self.table.check_mask(mask)?;
        Ok(Selection::from_mask(mask))
    }

    /// Appends vectors with the given ids, or with the numbers after the largest id. All of them, or none on error.
    ///
    /// # Errors
    /// As [`FlatIndex::build`].
    pub fn add(&mut self, ids: Option<&[u64]>, vectors: &[f32], job: &Job) -> Result<()> {
        self.add_part(ids, vectors, 0, job)
    }

    /// [`FlatIndex::add`] of a part of the caller's vectors, of which the first is number `first`.
    pub(crate) fn add_part(
        &mut self,
        ids: Option<&[u64]>,
        vectors: &[f32],
        first: usize,
        job: &Job,
    ) -> Result<()> {
        let rows = Rows::check_part("vectors", vectors, self.dim(), self.params.metric, first)?;
        let ids = self.table.new_ids(ids, rows.len())?;
        self.verify()?;
        let (before, squares) = (self.len(), self.codes.as_ref().map(Codes::squares));
        for (piece, ids) in rows.pieces(PIECE_ROWS).zip(ids.chunks(PIECE_ROWS)) {
            if let Err(error) = self.append(piece, ids, job) {
                self.withdraw(before, squares);
                return Err(error);
            }
            job.advance(piece.len() as u64);
        }
        self.note_fresh(rows.len());
        Ok(())
    }

    /// Forgets what is known of the bounds once many rows are others.
    pub(crate) fn note_fresh(&mut self, rows: usize) {
        self.fresh_rows += rows;
        if self.fresh_rows > self.len() / CALIBRATED_SHARE {
            self.calibration.take();
            self.fresh_rows = 0;
        }
    }

    fn append(&mut self, rows: Rows<'_>, ids: &[u64], job: &Job) -> Result<()> {
        job.check()?;
        let inverse = (self.params.metric == Metric::Cosine).then(|| inverse_lengths(rows));
        if let Some(codes) = &mut self.codes {
            codes.append(rows, inverse.as_deref(), job)?;
        }
        self.table.append(rows, ids, inverse.as_deref());
        Ok(())
    }

    /// Takes the rows from `len` on back, when the lengths of the others were these.
    pub(crate) fn withdraw(&mut self, len: usize, squares: Option<(f32, f32)>) {
        self.table.truncate(len);
        if let Some(codes) = &mut self.codes {
            codes.truncate(len);
            squares.into_iter().for_each(|squares| codes.set_squares(squares));
        }
        self.shrink();
    }

    /// Removes rows. All of them, or none on error. The last rows take the free places, and memory is given back once
    /// half of it is unused.
    ///
    /// # Errors
    /// `IdNotFound`, `DuplicateId`.
    pub fn remove(&mut self, ids: &[u64]) -> Result<()> {
        self.table.ids.find_all(ids)?;
        self.verify()?;
        for &id in ids {
            let Some(row) = self.table.ids.row(id) else { continue };
            self.table.swap_remove(row);
            if let Some(codes) = &mut self.codes {
                codes.swap_remove(row);
            }
        }
        self.shrink();
        self.note_fresh(ids.len());
        Ok(())
    }

    fn shrink(&mut self) {
        self.table.shrink();
        if let Some(codes) = &mut self.codes {
            codes.shrink();
        }
    }

    /// Replaces the vectors of rows that are there. All of them, or none on error.
    ///
    /// # Errors
    /// As [`FlatIndex::build`], and `IdNotFound`.
    pub fn update(&mut self, ids: &[u64], vectors: &[f32]) -> Result<()> {
        let rows = Rows::check("vectors", vectors, self.dim(), self.params.metric)?;
        let places = self.table.places(ids, rows.len())?;
        self.verify()?;
        let mut work = self.codes.as_ref().map(|codes| codes.quantizer().workspace());
        for (&row, vector) in places.iter().zip(rows.iter()) {
            let cosine = self.params.metric == Metric::Cosine;
            let factor = if cosine { inverse_length(Level::current(), vector) } else { 1.0 };
            if let (Some(codes), Some(work)) = (&mut self.codes, &mut work) {
                codes.set(row, vector, factor, work);
            }
            self.table.set(row, vector, factor);
        }
        self.note_fresh(places.len());
        Ok(())
    }

    /// Checks the checksums of whatever lies in a mapped file and has not been looked at yet.
    ///
    /// # Errors
    /// `CorruptFile`.
    pub fn verify(&self) -> Result<()> {
        self.codes.as_ref().map_or(Ok(()), Codes::verify)?;
        self.table.verify(true)
    }

    /// The nearest rows to `query`, best first; ties go to the lower id. On the calling thread.
    ///
    /// Cost: about 0.8 ns a row at 384 dimensions while the codes fit the cache, 1.5 ns beyond, and some 20 to 60 µs of
    /// refinement. Memory: a few tens of KiB, whatever the number of rows.
    ///
    /// # Errors
    /// `EmptyIndex`, `DimensionMismatch`, and `InvalidArgument` for a query or options that cannot be used.
    pub fn search(&self, query: &[f32], options: &SearchOptions<'_>) -> Result<Vec<Hit>> {
        let plan = self.plan(options)?;
        self.table.check_query(query)?;
        self.verify_for(plan)?;
        let plan = self.calibrated(plan, options, &Job::new())?;
        let mut searches = [self.prepare(query, options, plan)];
        self.run(&mut searches, plan, options.selection);
        let [search] = searches;
        Ok(search.finish())
    }

    /// [`FlatIndex::search`] for each row of `queries`, parallel, with several queries a pass over the codes.
    ///
    /// # Errors
    /// As [`FlatIndex::search`], and `Cancelled`.
    pub fn search_batch(
        &self,
        queries: &[f32],
        options: &SearchOptions<'_>,
        job: &Job,
    ) -> Result<Vec<Vec<Hit>>> {
        let plan = self.plan(options)?;
        let rows = self.table.check_queries(queries)?;
        self.verify_for(plan)?;
        let plan = self.calibrated(plan, options, job)?;
        let by_cache = (TABLE_BYTES / (4 * self.dim().next_multiple_of(64))).clamp(1, MAX_GROUP);
        let group = rows.len().div_ceil(rayon::current_num_threads()).clamp(1, by_cache);
        let groups: Vec<Vec<Vec<Hit>>> = queries
            .par_chunks(group * self.dim())
            .map(|group| {
                job.check()?;
                let hits = self.search_group(group, options, plan);
                job.advance(hits.len() as u64);
                Ok(hits)
            })
            .collect::<Result<_>>()?;
        Ok(groups.into_iter().flatten().collect())
    }

    /// Runs searches that share each pass over the codes.
    pub(crate) fn search_group(
        &self,
        queries: &[f32],
        options: &SearchOptions<'_>,
        plan: Plan,
    ) -> Vec<Vec<Hit>> {
        let mut searches: Vec<_> =
            queries.chunks_exact(self.dim()).map(|query| self.prepare(query, options, plan)).collect();
        self.run(&mut searches, plan, options.selection);
        searches.into_iter().map(Search::finish).collect()
    }

    /// A plan that is as sure as its recall takes on these data. Within a radius most rows are near the edge, and what the
    /// bound promises there is kept.
    fn calibrated(&self, plan: Plan, options: &SearchOptions<'_>, job: &Job) -> Result<Plan> {
        match (plan, options.recall, options.radius) {
            (Plan::Bounded(_), Some(recall), None) if recall <= MEASURED => {
                Ok(Plan::Bounded(self.calibration(job)?.sureness(recall)))
            }
            _ => Ok(plan),
        }
    }

    fn plan(&self, options: &SearchOptions<'_>) -> Result<Plan> {
        let plan = options.plan(&self.params)?;
        let few = match options.selection {
            Some(selection) => selection.len() <= FEW_ROWS.max(options.k.saturating_mul(4)),
            None => self.len() <= PREPARATION_ROWS,
        };
        Ok(if few && self.table.originals.is_some() { Plan::Exact } else { plan })
    }

    fn verify_for(&self, plan: Plan) -> Result<()> {
        if let (Some(codes), true) = (&self.codes, plan != Plan::Exact) {
            codes.verify()?;
        }
        self.table.verify(plan != Plan::Estimate)
    }

    fn prepare<'a>(&'a self, query: &'a [f32], options: &SearchOptions<'_>, plan: Plan) -> Search<'a> {
        let codes = self.codes.as_ref().filter(|_| plan != Plan::Exact);
        let mut search = Search::new(&self.table, query, options.k, options.radius, plan);
        if let Some(codes) = codes {
            search.use_codes(codes, query, None);
            if let Some(standing) = search.query().map(Query::standing) {
                search.enter(standing, codes.squares());
            }
        }
        search
    }

    /// Runs searches with one plan and one selection.
    fn run(&self, searches: &mut [Search<'_>], plan: Plan, selection: Option<&Selection>) {
        match (plan, &self.codes) {
            (Plan::Exact, _) | (_, None) => match selection {
                None => scan_originals(&self.table, searches),
                Some(selection) => {
                    searches.iter_mut().for_each(|search| search.measure_selected(selection, |row| row));
                }
            },
            (_, Some(codes)) => scan_codes(codes, searches, selection),
        }
    }
}

/// Two indexes are equal when they hold the same rows in the same order and would be saved as the same bytes.
impl PartialEq for FlatIndex {
    fn eq(&self, other: &Self) -> bool {
        self.params == other.params
            && self.dim() == other.dim()
            && self.len() == other.len()
            && self.sections().iter().eq(other.sections().iter())
    }
}

/// The rows whose mean centres the codes.
pub(crate) fn sample(vectors: &[f32], dim: usize) -> Vec<f32> {
    sample_rows(vectors.len() / dim)
        .filter_map(|row| vectors.get(row * dim..(row + 1) * dim))
        .flatten()
        .copied()
        .collect()
}

/// The quantizer that is centred on the mean of `sample`, and the shape of its blocks.
pub(crate) fn quantizer(params: &Params, dim: usize, sample: Rows<'_>) -> Result<(Quantizer, BlockShape)> {
    let (mean, typical_square) = centre(sample, params.metric);
    let quantizer = Quantizer::new(mean, params.bits, form(params.metric), params.seed, typical_square);
    let shape = BlockShape::new(padded_dim(dim)).ok_or_else(internal_shape)?;
    Ok((quantizer, shape))
}

fn internal_shape() -> Error {
    Error::new(ErrorKind::Internal, "no block layout for this dimension")
}

/// Cosine is the Euclidean distance of unit vectors.
pub(crate) fn form(metric: Metric) -> Form {
    match metric {
        Metric::L2 | Metric::Cosine => Form::Euclidean,
        Metric::InnerProduct => Form::InnerProduct,
    }
}

/// The mean of the rows (unit length under cosine), and the largest squared distance of one to it.
fn centre(rows: Rows<'_>, metric: Metric) -> (Vec<f32>, f32) {
    let level = Level::current();
    let factor = |row: &[f32]| if metric == Metric::Cosine { inverse_length(level, row) } else { 1.0 };
    let mut sums = vec![0.0_f64; rows.dim()];
    for row in rows.iter() {
        let factor = factor(row);
        for (sum, &x) in sums.iter_mut().zip(row) {
            *sum += f64::from(x * factor);
        }
    }
    let mean: Vec<f32> = sums.iter().map(|sum| (sum / rows.len().max(1) as f64) as f32).collect();
    let mut centred = vec![0.0; rows.dim()];
    let mut largest = 0.0_f32;
    for row in rows.iter() {
        let factor = factor(row);
        for ((out, &x), &mean) in centred.iter_mut().zip(row).zip(&mean) {
            *out = x * factor - mean;
        }
        largest = largest.max(dot_f32(level, &centred, &centred));
    }
    (mean, largest)
}
