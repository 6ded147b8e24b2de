//! The graph: rows that lead to near rows, along which a search walks.

use limnion_rabitq::{Query, SplitMix64};
use limnion_simd::{BlockShape, Level, Line};
use limnion_types::{Hit, Job, Metric, Result};
use rayon::prelude::*;

use crate::exact::{Exact, hit, query_factor};
use crate::flat::{quantizer, sample};
use crate::graph::build::link;
use crate::graph::bytes::Bytes;
use crate::graph::leaves::leaves;
use crate::graph::links::Links;
use crate::graph::records::Records;
use crate::graph::walk::{Steps, Walk};
use crate::input::{Rows, inverse_lengths};
use crate::kmeans::Points;
use crate::params::{Params, Precision, invalid};
use crate::search::NO_ROW;
use crate::storage::Storage;
use crate::table::Table;
use crate::top::Top;

/// Rows between two looks at the job.
const PIECE_ROWS: usize = 8192;

/// What a [`GraphIndex`] keeps of each vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphParams {
    /// How near two vectors are.
    pub metric: Metric,
    /// Bits a dimension of the code: 1 to 8.
    pub bits: u8,
    /// Whether and how the originals are kept.
    pub originals: Option<Precision>,
    /// Chooses the random rotation and where building begins. The same data, parameters and seed give the same index,
    /// byte for byte.
    pub seed: u64,
    /// The most links of a row.
    pub degree: u32,
}

impl GraphParams {
    /// Four bits a dimension over f16 originals under `metric`, seed 42, up to 32 links a row.
    pub fn new(metric: Metric) -> Self {
        Self { metric, bits: 4, originals: Some(Precision::F16), seed: 42, degree: 32 }
    }

    pub(crate) fn flat(&self) -> Params {
        let Self { metric, bits, originals, seed, .. } = *self;
        Params { metric, bits, originals, seed, rerank_factor: None }
    }
}

/// An index of links between near rows.
#[derive(Debug, Clone)]
pub struct GraphIndex {
    pub(crate) params: GraphParams,
    pub(crate) table: Table,
    pub(crate) records: Records,
    pub(crate) links: Links,
    /// The row of each vertex.
    pub(crate) rows: Storage<u32>,
    pub(crate) entries: Vec<u32>,
    pub(crate) entry_blocks: Vec<Line>,
    /// The codes of each vertex' neighbours.
    pub(crate) blocks: Option<Storage<Line>>,
}

/// What one search in a [`GraphIndex`] asks for.
#[derive(Debug, Clone, Copy)]
pub struct GraphOptions {
    pub k: usize,
    pub ef: usize,
    pub sureness: f32,
}

impl GraphIndex {
    pub fn build(
        vectors: &[f32],
        dim: usize,
        ids: Option<&[u64]>,
        params: &GraphParams,
        job: &Job,
    ) -> Result<Self> {
        let flat = params.flat();
        flat.check(dim)?;
        let rows = Rows::check("vectors", vectors, dim, params.metric)?;
        let mut table = Table::new(&flat, dim, rows.len());
        let ids = table.new_ids(ids, rows.len())?;
        let inverse = (params.metric == Metric::Cosine).then(|| inverse_lengths(rows));
        let points = Points { values: vectors, dim, factors: inverse.as_deref() };
        let sample = sample(vectors, dim);
        let (quantizer, shape) = quantizer(&flat, dim, Rows::check("vectors", &sample, dim, params.metric)?)?;
        let mut records = Records::new(quantizer, shape);
        let t = std::time::Instant::now();
        let bytes = Bytes::of(points, records.quantizer(), job)?;
        eprintln!("bytes {:?}", t.elapsed());
        let (mut leaves, order) = leaves(&bytes, params.seed, job)?;
        eprintln!("leaves {:?} {} sum {}", t.elapsed(), leaves.len(), leaves.iter().map(Vec::len).sum::<usize>());
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
        let entries = entries(order.len(), params.seed);
        let links = link(&bytes, &leaves, params.degree as usize, job)?;
        eprintln!("links {:?}", t.elapsed());
        drop(bytes);
        records.resize(order.len());
        records.write(0, points, &order, job)?;
        eprintln!("codes {:?}", t.elapsed());
        for (piece, ids) in rows.pieces(PIECE_ROWS).zip(ids.chunks(PIECE_ROWS)) {
            job.check()?;
            let start = table.len();
            table.append(piece, ids, inverse.as_deref().and_then(|all| all.get(start..start + piece.len())));
        }
        let mut entry_blocks = Vec::new();
        records.gathered(&entries, &mut entry_blocks);
        let used = links.all().iter().filter(|&&l| l != NO_ROW).count();
        eprintln!("mean degree {}", used as f64 / order.len() as f64);
        Ok(Self {
            params: params.clone(),
            table,
            records,
            links,
            rows: Storage::new(order),
            entries,
            entry_blocks,
            blocks: None,
        })
    }

    pub fn make_inline(&mut self) {
        let mut all = Storage::with_capacity(self.rows.len() * self.records.shape().block_bytes() / 64);
        let mut block = Vec::new();
        for slot in 0..self.rows.len() as u32 {
            self.records.gathered(self.links.places(slot), &mut block);
            all.to_mut().extend_from_slice(&block);
        }
        self.blocks = Some(all);
    }

    pub fn memory_bytes(&self) -> usize {
        self.table.heap_bytes() + self.records.heap_bytes() + self.links.heap_bytes() + 4 * self.rows.len()
    }

    pub(crate) fn row(&self, slot: u32) -> u32 {
        self.rows.get(slot as usize).copied().unwrap_or(NO_ROW)
    }

    pub fn search(&self, query: &[f32], options: &GraphOptions) -> Result<Vec<Hit>> {
        Ok(self.search_steps(query, options)?.0)
    }

    pub fn search_steps(&self, query: &[f32], options: &GraphOptions) -> Result<(Vec<Hit>, [usize; 3])> {
        if options.k == 0 {
            return Err(invalid("k must be at least 1, got 0".to_owned()));
        }
        self.table.check_query(query)?;
        let level = Level::current();
        let factor = query_factor(self.table.metric, level, query);
        let coded = Query::new(self.records.quantizer(), level, query, factor);
        let exact = Exact::new(&self.table, query);
        let walk = Walk::new(self, &coded, exact.as_ref(), options.sureness);
        let scale = self.records.quantizer().scale();
        let unit = scale * scale;
        Ok(walk.run(options.ef.max(options.k), None, |found, steps| {
            let mut top = Top::new(options.k, f32::MAX);
            let exact = exact.as_ref().filter(|_| self.params.bits > 1);
            if let Some(exact) = exact {
                found.iter().take(options.k + 4).for_each(|f| exact.prefetch(self.row(f.slot())));
            }
            for f in found {
                let row = self.row(f.slot());
                let limit = (top.limit() * unit).min(f32::MAX);
                let (key, error) = if f.is_refined() { (f.key(), f.error) } else if f.key() <= limit { walk.refined(f.slot(), f.key(), f.error) } else { continue };
                match exact {
                    Some(exact) => {
                        if key - error * walk.reach(limit) > limit {
                            continue;
                        }
                        top.offer(exact.key(row), || self.table.ids.id(row));
                    }
                    None => top.offer(key / unit, || self.table.ids.id(row)),
                }
            }
            let hits = top.into_sorted().into_iter().map(|ranked| hit(self.table.metric, ranked)).collect();
            let Steps { followed, scanned, refined } = steps;
            (hits, [followed, scanned, refined])
        }))
    }
}

/// The vertices that walks may begin at, so many that one of them is near.
fn entries(len: usize, seed: u64) -> Vec<u32> {
    let count = ((len as f64).sqrt() as usize).next_multiple_of(BlockShape::ROWS).min(len);
    let mut random = SplitMix64::new(seed);
    let start = |at: usize| (at as u128 * len as u128 / count.max(1) as u128) as u64;
    (0..count).map(|at| (start(at) + random.next_u64() % (start(at + 1) - start(at)).max(1)) as u32).collect()
}
