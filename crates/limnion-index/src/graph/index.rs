//! The index of a graph: what it holds, and how it is built.

use limnion_simd::Line;
use limnion_types::{Job, Metric, Result};
use rayon::prelude::*;

use crate::flat::{quantizer, sample};
use crate::graph::build::link;
use crate::graph::bytes::Bytes;
use crate::graph::effort::Efforts;
use crate::graph::entries::Entries;
use crate::graph::leaves::leaves;
use crate::graph::links::Links;
use crate::graph::params::{GraphParams, Layout};
use crate::graph::places::Places;
use crate::graph::records::Records;
use crate::graph::walk::MAX_SLOTS;
use crate::input::Rows;
use crate::ivf::parallel_inverse_lengths;
use crate::kmeans::Points;
use crate::originals::Originals;
use crate::params::invalid;
use crate::search::NO_ROW;
use crate::stage::Stage;
use crate::storage::Storage;
use crate::table::Table;

/// Rows between two looks at the job.
const PIECE_ROWS: usize = 8192;
/// Vertices whose neighbours one task lays out.
const TASK_ROWS: usize = 1024;

/// An index of links between near rows, along which a search walks: the fastest where recall is to be high or rows are
/// many, and slower to build and to change than an [`IvfIndex`](crate::IvfIndex).
///
/// Searches take `&self` and run side by side; changes take `&mut self`. Rows keep the order in which they were added,
/// except that removing one puts the last row in its place.
///
/// ```
/// use limnion_index::{GraphIndex, GraphOptions, GraphParams};
/// use limnion_types::{Job, Metric};
///
/// let vectors: Vec<f32> = (0..2000 * 64_u32).map(|i| (i.wrapping_mul(2_654_435_769) >> 16) as f32).collect();
/// let index = GraphIndex::build(&vectors, 64, None, &GraphParams::new(Metric::L2), &Job::new())?;
/// let hits = index.search(&vectors[640..704], &GraphOptions::new(3))?;
/// assert_eq!(hits[0].id, 10);
/// # Ok::<(), limnion_types::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct GraphIndex {
    pub(crate) params: GraphParams,
    pub(crate) table: Table,
    pub(crate) records: Records,
    pub(crate) links: Links,
    pub(crate) places: Places,
    pub(crate) entries: Entries,
    /// The codes of each vertex' neighbours, where the layout is inline.
    pub(crate) blocks: Option<Storage<Line>>,
    pub(crate) efforts: Efforts,
    /// Rows that came or changed since the efforts were found.
    pub(crate) fresh_rows: usize,
}

impl GraphIndex {
    /// An index of `vectors` (rows of `dim` numbers) with the given ids, or 0, 1, 2 … without.
    ///
    /// Cost: at 100,000 rows of 384 dimensions about 200 µs a row and core. Memory meanwhile: a byte a number more.
    ///
    /// # Errors
    /// `InvalidArgument` for parameters or values that cannot be used, `DimensionMismatch` for a ragged end,
    /// `DuplicateId`, and `Cancelled` when the job says so.
    pub fn build(
        vectors: &[f32],
        dim: usize,
        ids: Option<&[u64]>,
        params: &GraphParams,
        job: &Job,
    ) -> Result<Self> {
        params.check(dim)?;
        let rows = Rows::check("vectors", vectors, dim, params.metric)?;
        check_rows(rows.len())?;
        let flat = params.flat();
        let mut table = Table::new(&flat, dim, rows.len());
        let ids = table.new_ids(ids, rows.len())?;
        let inverse = (params.metric == Metric::Cosine).then(|| parallel_inverse_lengths(rows));
        let points = Points { values: vectors, dim, factors: inverse.as_deref() };
        let sample = sample(vectors, dim);
        let (quantizer, shape) = quantizer(&flat, dim, Rows::check("vectors", &sample, dim, params.metric)?)?;
        let stage = Stage::new(job, rows.len() as u64, 1);
        let mut records = Records::new(quantizer, shape);
        let (order, links) = link_all(points, &records, params, &stage)?;
        records.resize(order.len());
        records.write(0, points, &order, job)?;
        for (piece, ids) in rows.pieces(PIECE_ROWS).zip(ids.chunks(PIECE_ROWS)) {
            job.check()?;
            let start = table.len();
            table.append(piece, ids, inverse.as_deref().and_then(|all| all.get(start..start + piece.len())));
        }
        let places = Places::new(Storage::new(order));
        let entries = Entries::pick(&places, &records, params.seed);
        let (params, efforts) = (params.clone(), Efforts::default());
        let mut index =
            Self { params, table, records, links, places, entries, blocks: None, efforts, fresh_rows: 0 };
        index.connect();
        index.lay_out();
        index.efforts = Efforts::find(&index, &|row| Some(points.row(row)), job)?;
        Ok(index)
    }

    /// Gives every vertex a way from an entry.
    pub(crate) fn connect(&mut self) {
        let mut reached = vec![false; self.places.len()];
        let mut waiting = self.entries.slots().to_vec();
        let mut unseen = 0_u32;
        loop {
            while let Some(slot) = waiting.pop() {
                let Some(reached) = reached.get_mut(slot as usize).filter(|reached| !**reached) else {
                    continue;
                };
                *reached = true;
                waiting.extend(self.links.of(slot));
            }
            while reached.get(unseen as usize) == Some(&true) {
                unseen += 1;
            }
            if unseen as usize >= reached.len() {
                return;
            }
            // One of those that it leads to leads to it from now on, or else the vertex before it.
            let known = self.links.of(unseen).find(|&link| reached.get(link as usize) == Some(&true));
            self.links.add(known.unwrap_or(unseen.saturating_sub(1)), unseen);
            waiting.push(unseen);
        }
    }

    /// Puts the codes of each vertex' neighbours beside it, where they are to be there.
    pub(crate) fn lay_out(&mut self) {
        if self.params.layout == Layout::Compact {
            self.blocks = None;
            return;
        }
        let lines = self.lines_of_neighbours();
        let mut all: Storage<Line> = Storage::with_capacity(self.places.len() * lines);
        all.to_mut().resize(self.places.len() * lines, Line::default());
        all.to_mut().par_chunks_mut(TASK_ROWS * lines).enumerate().for_each(|(task, neighbours)| {
            for (slot, place) in ((task * TASK_ROWS) as u32..).zip(neighbours.chunks_mut(lines)) {
                self.records.gather_into(self.links.places(slot), place);
            }
        });
        self.blocks = Some(all);
    }

    /// Lines of the codes of one vertex' neighbours.
    pub(crate) fn lines_of_neighbours(&self) -> usize {
        self.params.blocks() * self.records.shape().block_bytes() / size_of::<Line>()
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

    /// What is kept of each vector, and how many links.
    pub fn params(&self) -> &GraphParams {
        &self.params
    }

    /// Puts the codes of neighbours where the layout says: changes how fast searches are, and in what order they walk, so
    /// that they may miss other rows, but as few.
    ///
    /// Cost: from compact to inline some 100 ns a row and core.
    ///
    /// # Errors
    /// `CorruptFile` where the index lies in a mapped file that turns out damaged.
    pub fn set_layout(&mut self, layout: Layout) -> Result<()> {
        self.verify_for(false)?;
        if layout != self.params.layout {
            self.params.layout = layout;
            self.lay_out();
        }
        Ok(())
    }

    /// Bytes on the heap, spare capacity included; what lies in a mapped file does not count.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.table.heap_bytes()
            + self.records.heap_bytes()
            + self.links.heap_bytes()
            + self.places.heap_bytes()
            + self.entries.heap_bytes()
            + self.blocks.as_ref().map_or(0, Storage::heap_bytes)
    }

    /// The mean number of links of a row.
    pub fn mean_degree(&self) -> f64 {
        self.links.count() as f64 / self.places.len().max(1) as f64
    }

    /// A number that is another after each change, and in each index but a clone: a selection that was made at this one is
    /// good as long as it stays.
    pub fn revision(&self) -> u64 {
        self.table.revision
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

    /// The original vectors of rows, one after another.
    ///
    /// # Errors
    /// `NoOriginals` where the index keeps none, `IdNotFound`.
    pub fn vectors_of(&self, ids: &[u64]) -> Result<Vec<f32>> {
        self.table.vectors(ids)
    }

    /// The vector of a row: the original where it is kept, else what its code says, which is unbiased, and under cosine of
    /// about unit length.
    ///
    /// # Errors
    /// `IdNotFound`, and `CorruptFile` where a mapped file turns out damaged.
    pub fn reconstruct(&self, id: u64) -> Result<Vec<f32>> {
        let row = self.table.row(id)?;
        if self.table.originals.is_some() {
            return self.table.vector(id);
        }
        self.verify_for(false)?;
        Ok(self.records.decode(self.places.slot(row)))
    }

    /// The original vectors in the order of [`GraphIndex::ids`], without a copy.
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
        self.records.verify()?;
        self.links.all().verify("links")?;
        self.places.rows().verify("places")?;
        self.blocks.as_ref().map_or(Ok(()), |blocks| blocks.verify("codes of neighbours"))?;
        self.table.verify(originals)
    }
}

/// An error where a graph cannot have so many vertices.
pub(crate) fn check_rows(rows: usize) -> Result<()> {
    if rows <= MAX_SLOTS {
        return Ok(());
    }
    Err(invalid(format!("a graph holds at most {MAX_SLOTS} rows, got {rows}"))
        .suggest("split the vectors over several indexes"))
}

/// An order of the points in which near ones lie close, and the links between them in that order.
fn link_all(
    points: Points<'_>,
    records: &Records,
    params: &GraphParams,
    stage: &Stage<'_>,
) -> Result<(Vec<u32>, Links)> {
    let bytes = Bytes::of(points, records.quantizer(), stage.job())?;
    let (mut leaves, order) = leaves(&bytes, params.seed, stage.job())?;
    let mut slots = vec![NO_ROW; order.len()];
    for (slot, &row) in (0..).zip(&order) {
        if let Some(place) = slots.get_mut(row as usize) {
            *place = slot;
        }
    }
    for member in leaves.iter_mut().flatten() {
        *member = slots.get(*member as usize).copied().unwrap_or(NO_ROW);
    }
    let bytes = bytes.gathered(&order);
    let links = link(&bytes, &leaves, params.degree as usize, stage)?;
    Ok((order, links))
}
