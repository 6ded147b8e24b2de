//! The flat index: what it holds, and how rows come, change and go.

use limnion_rabitq::{Form, Quantizer, padded_dim};
use limnion_simd::{BlockShape, Level, dot_f32};
use limnion_types::{Error, ErrorKind, Job, Metric, Result};

use crate::builder::{Builder, sample_rows};
use crate::codes::Codes;
use crate::ids::{Ids, not_found};
use crate::input::{Rows, inverse_length, inverse_lengths, wrong_dim};
use crate::originals::Originals;
use crate::params::{Params, Precision, invalid};
use crate::selection::Selection;
use crate::storage::Storage;

/// Rows are numbered with 32 bits.
const MAX_ROWS: usize = u32::MAX as usize;
/// Rows between two looks at the job.
const PIECE_ROWS: usize = 8192;

/// An index that scans all rows: exactly, or by their codes and then more closely.
///
/// Searches take `&self` and run side by side; changes take `&mut self`. Rows keep the order in which they were added,
/// except that removing one puts the last row in its place.
#[derive(Debug, Clone)]
pub struct FlatIndex {
    pub(crate) params: Params,
    pub(crate) dim: usize,
    pub(crate) ids: Ids,
    pub(crate) codes: Option<Codes>,
    pub(crate) originals: Option<Originals>,
    /// 1 / length of each original, where the metric is cosine.
    pub(crate) inverse_lengths: Option<Storage<f32>>,
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
        index.originals = None;
        index.add(ids, &vectors, job)?;
        index.originals = Some(Originals::of(vectors, dim));
        Ok(index)
    }

    /// An index without rows, centred on the mean of `sample`.
    pub(crate) fn empty(params: &Params, dim: usize, sample: &[f32], capacity: usize) -> Result<Self> {
        params.check(dim)?;
        // A row that breaks the rules is told of when it is added, by its own number and not by that in the sample.
        let good = Rows::only_good(sample, dim, params.metric);
        let sample = Rows::check("sample", &good, dim, params.metric)?;
        let codes = (params.bits > 0).then(|| {
            let (mean, typical_square) = centre(sample, params.metric);
            let quantizer =
                Quantizer::new(mean, params.bits, form(params.metric), params.seed, typical_square);
            let shape = BlockShape::new(padded_dim(dim)).ok_or_else(internal_shape)?;
            Ok(Codes::new(quantizer, shape, capacity))
        });
        let originals = params.originals.map(|precision| Originals::with_capacity(precision, dim, capacity));
        let inverse_lengths = (params.metric == Metric::Cosine && originals.is_some())
            .then(|| Storage::new(Vec::with_capacity(capacity)));
        let ids = Ids::Dense { len: 0 };
        Ok(Self { params: params.clone(), dim, ids, codes: codes.transpose()?, originals, inverse_lengths })
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers a vector.
    pub fn dim(&self) -> usize {
        self.dim
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
        size_of::<Self>()
            + self.ids.heap_bytes()
            + self.codes.as_ref().map_or(0, Codes::heap_bytes)
            + self.originals.as_ref().map_or(0, Originals::heap_bytes)
            + self.inverse_lengths.as_ref().map_or(0, Storage::heap_bytes)
    }

    /// Whether so many rows can be added or changed in a moment. Else all that there is may be copied for it, because it lies
    /// in a file, because a clone shares it, or because it has no room: for those who have others wait meanwhile.
    pub fn has_room(&self, rows: usize) -> bool {
        self.codes.as_ref().is_none_or(|codes| codes.has_room(rows))
            && self.originals.as_ref().is_none_or(|originals| originals.has_room(rows))
    }

    /// The ids, in the order of the rows.
    pub fn ids(&self) -> Vec<u64> {
        self.ids.to_vec()
    }

    /// Whether there is a row with this id.
    pub fn contains(&self, id: u64) -> bool {
        self.ids.row(id).is_some()
    }

    /// The original vector of a row, as f32.
    ///
    /// # Errors
    /// `NoOriginals` where the index keeps none, `IdNotFound`.
    pub fn vector(&self, id: u64) -> Result<Vec<f32>> {
        let originals = self.originals.as_ref().ok_or_else(no_originals)?;
        let row = self.ids.row(id).ok_or_else(|| not_found(id))?;
        originals.verify()?;
        Ok(originals.vector(row))
    }

    /// The original vectors in the order of [`FlatIndex::ids`], without a copy.
    ///
    /// # Errors
    /// `NoOriginals` where the index keeps none.
    pub fn originals(&self) -> Result<Originals> {
        let originals = self.originals.clone().ok_or_else(no_originals)?;
        originals.verify()?;
        Ok(originals)
    }

    /// The rows with these ids; ids that are not in the index select nothing.
    pub fn select_ids(&self, ids: &[u64]) -> Selection {
        Selection::from_rows(ids.iter().filter_map(|&id| self.ids.row(id)).collect())
    }

    /// The rows whose place in `mask`, which is in the order of [`FlatIndex::ids`], says true.
    ///
    /// # Errors
    /// `InvalidArgument` unless there is one bool a row.
    pub fn select_mask(&self, mask: &[bool]) -> Result<Selection> {
        if mask.len() != self.len() {
            let message =
                format!("where must have one bool for each of the {} rows, got {}", self.len(), mask.len());
            return Err(invalid(message).suggest("its order is that of the index's ids"));
        }
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
        let rows = Rows::check_part("vectors", vectors, self.dim, self.params.metric, first)?;
        if self.len() + rows.len() > MAX_ROWS {
            return Err(invalid(format!("an index holds at most {MAX_ROWS} rows"))
                .suggest("split the vectors over several indexes"));
        }
        let numbered;
        let ids = match ids {
            Some(ids) if ids.len() != rows.len() => {
                let message =
                    format!("ids must be as many as the vectors: {} ids, {} vectors", ids.len(), rows.len());
                return Err(invalid(message));
            }
            Some(ids) => {
                self.ids.check_new(ids)?;
                ids
            }
            None => {
                numbered = self.ids.next(rows.len())?;
                &numbered
            }
        };
        self.verify()?;
        let (before, squares) = (self.len(), self.codes.as_ref().map(Codes::squares));
        for (piece, ids) in rows.pieces(PIECE_ROWS).zip(ids.chunks(PIECE_ROWS)) {
            if let Err(error) = self.append(piece, ids, job) {
                self.truncate(before);
                if let (Some(codes), Some(squares)) = (&mut self.codes, squares) {
                    codes.set_squares(squares);
                }
                self.shrink();
                return Err(error);
            }
            job.advance(piece.len() as u64);
        }
        Ok(())
    }

    fn append(&mut self, rows: Rows<'_>, ids: &[u64], job: &Job) -> Result<()> {
        job.check()?;
        let inverse = (self.params.metric == Metric::Cosine).then(|| inverse_lengths(rows));
        if let Some(codes) = &mut self.codes {
            codes.append(rows, inverse.as_deref(), job)?;
        }
        if let Some(originals) = &mut self.originals {
            originals.append(rows);
        }
        if let (Some(kept), Some(inverse)) = (&mut self.inverse_lengths, &inverse) {
            kept.to_mut().extend_from_slice(inverse);
        }
        self.ids.extend(ids);
        Ok(())
    }

    fn truncate(&mut self, len: usize) {
        self.ids.truncate(len);
        if let Some(codes) = &mut self.codes {
            codes.truncate(len);
        }
        if let Some(originals) = &mut self.originals {
            originals.truncate(len);
        }
        if let Some(kept) = &mut self.inverse_lengths {
            kept.to_mut().truncate(len);
        }
    }

    /// Removes rows. All of them, or none on error. The last rows take the free places, and memory is given back once
    /// half of it is unused.
    ///
    /// # Errors
    /// `IdNotFound`, `DuplicateId`.
    pub fn remove(&mut self, ids: &[u64]) -> Result<()> {
        self.ids.find_all(ids)?;
        self.verify()?;
        for &id in ids {
            let Some(row) = self.ids.row(id) else { continue };
            self.ids.swap_remove(row);
            if let Some(codes) = &mut self.codes {
                codes.swap_remove(row);
            }
            if let Some(originals) = &mut self.originals {
                originals.swap_remove(row);
            }
            if let Some(kept) = &mut self.inverse_lengths {
                kept.to_mut().swap_remove(row as usize);
            }
        }
        self.shrink();
        Ok(())
    }

    fn shrink(&mut self) {
        self.ids.shrink();
        if let Some(codes) = &mut self.codes {
            codes.shrink();
        }
        if let Some(originals) = &mut self.originals {
            originals.shrink();
        }
        if let Some(kept) = &mut self.inverse_lengths {
            kept.shrink();
        }
    }

    /// Replaces the vectors of rows that are there. All of them, or none on error.
    ///
    /// # Errors
    /// As [`FlatIndex::build`], and `IdNotFound`.
    pub fn update(&mut self, ids: &[u64], vectors: &[f32]) -> Result<()> {
        let rows = Rows::check("vectors", vectors, self.dim, self.params.metric)?;
        if ids.len() != rows.len() {
            let message =
                format!("ids must be as many as the vectors: {} ids, {} vectors", ids.len(), rows.len());
            return Err(invalid(message));
        }
        let places = self.ids.find_all(ids)?;
        self.verify()?;
        let mut work = self.codes.as_ref().map(|codes| codes.quantizer().workspace());
        for (&row, vector) in places.iter().zip(rows.iter()) {
            let cosine = self.params.metric == Metric::Cosine;
            let factor = if cosine { inverse_length(Level::current(), vector) } else { 1.0 };
            if let (Some(codes), Some(work)) = (&mut self.codes, &mut work) {
                codes.set(row, vector, factor, work);
            }
            if let Some(originals) = &mut self.originals {
                originals.set(row, vector);
            }
            if let Some(place) =
                self.inverse_lengths.as_mut().and_then(|kept| kept.to_mut().get_mut(row as usize))
            {
                *place = factor;
            }
        }
        Ok(())
    }

    /// Checks the checksums of whatever lies in a mapped file and has not been looked at yet.
    ///
    /// # Errors
    /// `CorruptFile`.
    pub fn verify(&self) -> Result<()> {
        self.codes.as_ref().map_or(Ok(()), Codes::verify)?;
        self.originals.as_ref().map_or(Ok(()), Originals::verify)?;
        self.inverse_lengths.as_ref().map_or(Ok(()), |kept| kept.verify("lengths"))?;
        self.ids.list().map_or(Ok(()), |list| list.verify("ids"))
    }

    pub(crate) fn check_query(&self, query: &[f32]) -> Result<()> {
        if self.is_empty() {
            return Err(Error::new(ErrorKind::EmptyIndex, "the index has no rows to search")
                .suggest("add some first"));
        }
        Rows::check_query(query, self.dim, self.params.metric)
    }

    pub(crate) fn check_queries<'a>(&self, queries: &'a [f32]) -> Result<Rows<'a>> {
        if self.is_empty() {
            return Err(Error::new(ErrorKind::EmptyIndex, "the index has no rows to search")
                .suggest("add some first"));
        }
        if !queries.len().is_multiple_of(self.dim) {
            return Err(wrong_dim("queries", self.dim, queries.len()));
        }
        Rows::check("queries", queries, self.dim, self.params.metric)
    }
}

/// Two indexes are equal when they hold the same rows in the same order and would be saved as the same bytes.
impl PartialEq for FlatIndex {
    fn eq(&self, other: &Self) -> bool {
        self.params == other.params
            && self.dim == other.dim
            && self.len() == other.len()
            && self.sections().iter().eq(other.sections().iter())
    }
}

/// The rows whose mean centres the codes.
fn sample(vectors: &[f32], dim: usize) -> Vec<f32> {
    sample_rows(vectors.len() / dim)
        .filter_map(|row| vectors.get(row * dim..(row + 1) * dim))
        .flatten()
        .copied()
        .collect()
}

fn no_originals() -> Error {
    Error::new(ErrorKind::NoOriginals, "this index keeps codes only, not the original vectors")
        .suggest("build a RabitqPlusIndex, or a RabitqAsymIndex with originals=\"f32\"")
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
