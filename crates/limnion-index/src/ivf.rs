//! The inverted file: rows in lists round centres, of which a search looks into the nearest.

use limnion_rabitq::{Form, Quantizer};
use limnion_simd::{BlockShape, Level, dot_f32};
use limnion_types::{Job, Metric, Result};
use rayon::prelude::*;

use crate::codes::{COARSER, Codes, Feed, Span};
use crate::flat::{quantizer, sample};
use crate::input::{Rows, inverse_lengths};
use crate::kmeans::{Points, cluster};
use crate::lists::Lists;
use crate::originals::Originals;
use crate::params::{Params, Precision, invalid};
use crate::recall::Tuning;
use crate::rough::Rough;
use crate::search::NO_ROW;
use crate::stage::Stage;
use crate::storage::Storage;
use crate::table::Table;

/// A list with so many times the rows of a typical one is halved.
pub(crate) const LARGE: usize = 4;
/// Rows between two looks at the job.
pub(crate) const PIECE_ROWS: usize = 8192;

/// What an [`IvfIndex`] keeps of each vector, and in how many lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IvfParams {
    /// How near two vectors are.
    pub metric: Metric,
    /// Bits a dimension of the code: 1 to 8.
    pub bits: u8,
    /// Whether and how the originals are kept.
    pub originals: Option<Precision>,
    /// Chooses the random rotation and where clustering begins. The same data, parameters and seed give the same index,
    /// byte for byte.
    pub seed: u64,
    /// How many lists there are, about: lists that grow too large are halved. Unless told, chosen by the number of rows.
    pub lists: Option<u32>,
}

impl IvfParams {
    /// One bit a dimension over f32 originals under `metric`, seed 42.
    pub fn new(metric: Metric) -> Self {
        Self { metric, bits: 1, originals: Some(Precision::F32), seed: 42, lists: None }
    }

    /// What a flat index of the same rows would be given.
    pub(crate) fn flat(&self) -> Params {
        let Self { metric, bits, originals, seed, .. } = *self;
        Params { metric, bits, originals, seed, rerank_factor: None }
    }

    pub(crate) fn check(&self, dim: usize) -> Result<()> {
        if self.bits == 0 {
            return Err(invalid("bits must be 1 to 8, got 0".to_owned())
                .suggest("a FlatIndex searches without codes"));
        }
        if self.lists == Some(0) {
            return Err(invalid("lists must be at least 1, got 0".to_owned()));
        }
        self.flat().check(dim)
    }

    /// How many lists so many rows are to have.
    pub(crate) fn list_count(&self, rows: usize) -> usize {
        // About 800 at 100,000 rows and 3,400 at a million, by roots alone, which every machine computes alike. More
        // centres take longer to rank than they save of the scan; shorter lists than two blocks waste them.
        let root = (rows as f64).sqrt();
        let by_rows = (0.6 * root * root.sqrt().sqrt()) as usize;
        self.lists.map_or(by_rows.min(rows / 64), |lists| lists as usize).clamp(1, rows.max(1))
    }
}

/// An index of lists round centres: a search looks into those that may hold neighbours, by their codes and then more
/// closely.
///
/// Searches take `&self` and run side by side; changes take `&mut self`. Rows keep the order in which they were added,
/// except that removing one puts the last row in its place.
///
/// ```
/// use limnion_index::{IvfIndex, IvfOptions, IvfParams};
/// use limnion_types::{Job, Metric};
///
/// let vectors: Vec<f32> = (0..2000 * 64_u32).map(|i| (i.wrapping_mul(2_654_435_769) >> 16) as f32).collect();
/// let index = IvfIndex::build(&vectors, 64, None, &IvfParams::new(Metric::L2), &Job::new())?;
/// let hits = index.search(&vectors[640..704], &IvfOptions::new(3))?;
/// assert_eq!((hits[0].id, hits[0].distance), (10, 0.0));
/// # Ok::<(), limnion_types::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct IvfIndex {
    pub(crate) params: IvfParams,
    pub(crate) table: Table,
    pub(crate) codes: Codes,
    pub(crate) lists: Lists,
    pub(crate) directory: Directory,
    pub(crate) tuning: Tuning,
    /// Rows that came or changed since the tuning was found.
    pub(crate) fresh_rows: usize,
}

/// The parts of a build, each with its share of the time: together they count the rows once.
struct Parts<'a> {
    training: Stage<'a>,
    assigning: Stage<'a>,
    encoding: Stage<'a>,
    tuning: Stage<'a>,
}

impl<'a> Parts<'a> {
    fn of(job: &'a Job, rows: u64) -> Self {
        let upto = |percent: u64| rows * percent / 100;
        let part = |from: u64, to: u64| Stage::new(job, upto(to) - upto(from), 1);
        Self { training: part(0, 40), assigning: part(40, 60), encoding: part(60, 85), tuning: part(85, 100) }
    }
}

/// Where the centres of the lists are.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    /// The centres as codes are made around them: rotated, in scaled units.
    pub(crate) centres: Storage<f32>,
    /// One bit a dimension of each centre, to find those that may be near.
    pub(crate) codes: Codes,
    /// The centres once more as bytes, to find which of those are near.
    pub(crate) rough: Rough,
    /// For each centre, what its rows' keys have beside what a query stands to it: under inner product −⟨mean, c⟩.
    pub(crate) shifts: Vec<f32>,
    /// The scale that the centres are in.
    pub(crate) scale: f32,
}

impl IvfIndex {
    /// An index of `vectors` (rows of `dim` numbers) with the given ids, or 0, 1, 2 … without.
    ///
    /// Cost: at 100,000 rows of 384 dimensions about 23 µs a row and core, half of it for clustering. The job's steps are
    /// the rows; it stops within some milliseconds of being told.
    ///
    /// # Errors
    /// `InvalidArgument` for parameters or values that cannot be used, `DimensionMismatch` for a ragged end,
    /// `DuplicateId`, and `Cancelled` when the job says so.
    pub fn build(
        vectors: &[f32],
        dim: usize,
        ids: Option<&[u64]>,
        params: &IvfParams,
        job: &Job,
    ) -> Result<Self> {
        params.check(dim)?;
        let rows = Rows::check("vectors", vectors, dim, params.metric)?;
        let flat = params.flat();
        let mut table = Table::new(&flat, dim, rows.len());
        let ids = table.new_ids(ids, rows.len())?;
        let inverse = (params.metric == Metric::Cosine).then(|| parallel_inverse_lengths(rows));
        let points = Points { values: vectors, dim, factors: inverse.as_deref() };
        let sample = sample(vectors, dim);
        let (quantizer, shape) = quantizer(&flat, dim, Rows::check("vectors", &sample, dim, params.metric)?)?;
        // A table of its own: a clone would share the arrays, and the first row would move them to smaller ones.
        let mut index = Self::empty(params, Table::new(&flat, dim, 0), quantizer, shape);
        let parts = Parts::of(job, rows.len() as u64);
        // One thread copies the originals while the others cluster.
        let (filled, copied) = rayon::join(
            || if rows.len() > 0 { index.fill(points, &parts) } else { Ok(()) },
            || {
                for (piece, ids) in rows.pieces(PIECE_ROWS).zip(ids.chunks(PIECE_ROWS)) {
                    job.check()?;
                    let start = table.len();
                    let inverse = inverse.as_deref().and_then(|all| all.get(start..start + piece.len()));
                    table.append(piece, ids, inverse);
                }
                Ok(())
            },
        );
        filled.and(copied)?;
        index.table = table;
        index.tuning = Tuning::find(&index, &|row| Some(points.row(row)), &parts.tuning)?;
        Ok(index)
    }

    fn empty(params: &IvfParams, table: Table, quantizer: Quantizer, shape: BlockShape) -> Self {
        let directory = Directory::new(&quantizer, shape);
        let codes = Codes::new(quantizer, shape, 0);
        let lists = Lists::of(&[], 0);
        Self {
            params: params.clone(),
            table,
            codes,
            lists,
            directory,
            tuning: Tuning::default(),
            fresh_rows: 0,
        }
    }

    /// Clusters all rows, and encodes them.
    fn fill(&mut self, points: Points<'_>, parts: &Parts<'_>) -> Result<()> {
        let count = self.params.list_count(points.len());
        let most = (points.len() / count * LARGE).max(BlockShape::ROWS);
        let Parts { training, assigning, encoding, .. } = parts;
        let clusters = cluster(points, count, most, self.params.seed, training, assigning)?;
        self.lists = Lists::of(&clusters.nearest, clusters.count());
        let quantizer = self.codes.quantizer().clone();
        self.directory = Directory::new(&quantizer, *self.codes.shape());
        clusters.centres().for_each(|centre| self.directory.add(centre));
        self.codes = Codes::with_blocks(quantizer, *self.codes.shape(), self.lists.block_count());
        self.match_scales();
        let rows = self.lists.rows().clone();
        self.write(points, &rows, encoding)
    }

    /// Encodes the points that `rows` names for the places, and takes note of them in the lists.
    pub(crate) fn write(&mut self, points: Points<'_>, rows: &[u32], stage: &Stage<'_>) -> Result<()> {
        let stage = &stage.in_units(self.lists.block_count() as u64);
        loop {
            let Self { codes, lists, directory, .. } = self;
            let spans = codes.write(0, &Placed { points, rows, lists, directory, stage }, stage.job())?;
            if codes.is_coarsest() || spans.iter().all(|span| span.fits) {
                let mut of_lists = vec![Span::EMPTY; lists.len()];
                for (block, span) in spans.into_iter().enumerate() {
                    if let Some(total) = lists.owner(block).and_then(|list| of_lists.get_mut(list)) {
                        *total = total.join(span);
                    }
                }
                for (list, span) in of_lists.into_iter().enumerate() {
                    lists.note_all(list, span.squares, span.sum, span.rows);
                }
                return Ok(());
            }
            self.coarsen();
        }
    }

    /// Makes the unit of length coarser, everywhere.
    pub(crate) fn coarsen(&mut self) {
        self.codes.coarsen();
        self.lists.rescale(COARSER * COARSER);
        self.match_scales();
    }

    /// Brings codes and directory to the coarser of their units: one table of a query serves both.
    pub(crate) fn match_scales(&mut self) {
        while self.codes.quantizer().scale() > self.directory.codes.quantizer().scale() {
            self.codes.coarsen();
            self.lists.rescale(COARSER * COARSER);
        }
        while self.directory.codes.quantizer().scale() > self.codes.quantizer().scale() {
            self.directory.codes.coarsen();
        }
        let scale = self.codes.quantizer().scale();
        let factor = scale / self.directory.scale;
        if factor != 1.0 {
            self.directory.centres.to_mut().iter_mut().for_each(|x| *x *= factor);
            self.directory.shifts.iter_mut().for_each(|x| *x *= factor * factor);
            self.directory.rough.rescale(factor);
            self.directory.scale = scale;
        }
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

    /// What is kept of each vector, and how many lists were asked for.
    pub fn params(&self) -> &IvfParams {
        &self.params
    }

    /// How many lists there are.
    pub fn list_count(&self) -> usize {
        self.lists.len()
    }

    /// How many rows each list has.
    pub fn list_sizes(&self) -> Vec<usize> {
        self.lists.lists.iter().map(|list| list.len as usize).collect()
    }

    /// Bytes on the heap, spare capacity included; what lies in a mapped file does not count.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.table.heap_bytes()
            + self.codes.heap_bytes()
            + self.lists.heap_bytes()
            + self.directory.heap_bytes()
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

    /// The original vectors in the order of [`IvfIndex::ids`], without a copy.
    ///
    /// # Errors
    /// `NoOriginals` where the index keeps none.
    pub fn originals(&self) -> Result<Originals> {
        self.table.originals()
    }

    /// Checks the checksums of whatever lies in a mapped file and has not been looked at yet.
    ///
    /// # Errors
    /// `CorruptFile`.
    pub fn verify(&self) -> Result<()> {
        self.verify_for(true)
    }

    pub(crate) fn verify_for(&self, originals: bool) -> Result<()> {
        self.codes.verify()?;
        self.directory.codes.verify()?;
        self.directory.centres.verify("centres")?;
        self.lists.rows().verify("lists")?;
        self.table.verify(originals)
    }
}

impl Directory {
    /// Without centres.
    fn new(quantizer: &Quantizer, shape: BlockShape) -> Self {
        let codes = Codes::new(signs_only(quantizer), shape, 0);
        let (centres, rough) = (Storage::new(Vec::new()), Rough::new(shape.dim()));
        Self { centres, codes, rough, shifts: Vec::new(), scale: quantizer.scale() }
    }

    /// As a file has it. Lengths have been checked.
    pub(crate) fn from_parts(centres: Storage<f32>, codes: Codes) -> Self {
        let (scale, dim) = (codes.quantizer().scale(), codes.shape().dim());
        let mut rough = Rough::with_capacity(dim, codes.len());
        centres.chunks_exact(dim).for_each(|centre| rough.push(centre));
        let mut directory = Self { centres, codes, rough, shifts: Vec::new(), scale };
        directory.shifts = directory.centres.chunks_exact(dim).map(|c| directory.shift_of(c)).collect();
        directory
    }

    /// Adds a centre, which is given as rows are.
    pub(crate) fn add(&mut self, centre: &[f32]) {
        let rotated = self.rotated(centre);
        self.shifts.push(self.shift_of(&rotated));
        self.rough.push(&rotated);
        self.centres.to_mut().extend_from_slice(&rotated);
        let (list, mut work) = (self.codes.len(), self.codes.quantizer().workspace());
        self.codes.grow(list + 1);
        self.codes.set(list as u32, centre, 1.0, &mut work);
    }

    fn shift_of(&self, rotated: &[f32]) -> f32 {
        if is_euclidean(self.codes.quantizer()) {
            return 0.0;
        }
        let origin = self.rotated(&vec![0.0; self.codes.quantizer().dim()]);
        dot_f32(Level::current(), rotated, &origin)
    }

    pub(crate) fn shift(&self, list: usize) -> f32 {
        self.shifts.get(list).copied().unwrap_or(0.0)
    }

    /// A centre in the units of those that are here, whatever the unit of the codes has become.
    fn rotated(&self, centre: &[f32]) -> Vec<f32> {
        let quantizer = self.codes.quantizer();
        let factor = self.scale / quantizer.scale();
        let mut rotated = quantizer.centre(Level::current(), centre);
        rotated.iter_mut().for_each(|x| *x *= factor);
        rotated
    }

    pub(crate) fn set(&mut self, list: usize, centre: &[f32]) {
        let rotated = self.rotated(centre);
        let mut work = self.codes.quantizer().workspace();
        self.codes.set(list as u32, centre, 1.0, &mut work);
        if let Some(place) = self.centres.to_mut().get_mut(list * rotated.len()..(list + 1) * rotated.len()) {
            place.copy_from_slice(&rotated);
        }
        self.rough.set(list, &rotated);
        let shift = self.shift_of(&rotated);
        if let Some(place) = self.shifts.get_mut(list) {
            *place = shift;
        }
    }

    /// Removes a centre; the last one takes its number.
    pub(crate) fn swap_remove(&mut self, list: usize) {
        let dim = self.codes.shape().dim();
        let centres = self.centres.to_mut();
        let last = centres.len() - dim;
        centres.copy_within(last.., list * dim);
        centres.truncate(last);
        self.shifts.swap_remove(list);
        self.rough.swap_remove(list);
        self.codes.swap_remove(list as u32);
    }

    pub(crate) fn centre(&self, list: usize) -> &[f32] {
        let dim = self.codes.shape().dim();
        self.centres.get(list * dim..(list + 1) * dim).unwrap_or_default()
    }

    fn heap_bytes(&self) -> usize {
        let shifts = 4 * self.shifts.capacity();
        self.centres.heap_bytes() + self.codes.heap_bytes() + self.rough.heap_bytes() + shifts
    }
}

/// The quantizer whose codes have nothing but the signs, for the same queries.
pub(crate) fn signs_only(quantizer: &Quantizer) -> Quantizer {
    let (mean, form, seed) = (quantizer.mean().to_vec(), quantizer.form(), quantizer.seed());
    Quantizer::with_scale(mean, 1, form, seed, quantizer.scale())
}

/// Points in the places that the lists have for them.
struct Placed<'a> {
    points: Points<'a>,
    /// Which point belongs in each place, [`NO_ROW`] for none.
    rows: &'a [u32],
    lists: &'a Lists,
    directory: &'a Directory,
    stage: &'a Stage<'a>,
}

impl Feed for Placed<'_> {
    fn row(&self, place: usize) -> Option<(&[f32], f32)> {
        let row = self.rows.get(place).copied().filter(|&row| row != NO_ROW)?;
        Some(self.points.row(row))
    }

    fn centre(&self, block: usize) -> &[f32] {
        // It is asked for once a block.
        self.stage.advance(1);
        self.lists.owner(block).map_or(&[], |list| self.directory.centre(list))
    }
}

/// [`inverse_lengths`] by all threads of the pool.
pub(crate) fn parallel_inverse_lengths(rows: Rows<'_>) -> Vec<f32> {
    let pieces: Vec<Rows<'_>> = rows.pieces(PIECE_ROWS).collect();
    pieces.into_par_iter().map(inverse_lengths).collect::<Vec<_>>().concat()
}

/// Whether lists are ranked by squared distances.
pub(crate) fn is_euclidean(quantizer: &Quantizer) -> bool {
    quantizer.form() == Form::Euclidean
}
