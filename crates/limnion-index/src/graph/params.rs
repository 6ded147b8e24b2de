//! What a graph keeps, and what a search in it may choose.

use limnion_simd::BlockShape;
use limnion_types::{Metric, Result};

use crate::Selection;
use crate::params::{Params, Precision, invalid};

/// The fewest and the most links of a row.
const DEGREES: std::ops::RangeInclusive<u32> = 4..=128;

/// Where a graph has the codes that a step of a walk scans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Layout {
    /// Once for each row; a step gathers those of the neighbours that are new to it. Least memory.
    #[default]
    Compact = 0,
    /// Beside each row once more, those of all its neighbours: a step reads one run of memory. Faster where the index
    /// is far larger than the caches, in several times the memory.
    Inline = 1,
}

impl Layout {
    /// `compact` or `inline`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Layout::Compact => "compact",
            Layout::Inline => "inline",
        }
    }
}

/// What a [`GraphIndex`](crate::GraphIndex) keeps of each vector, and how many links.
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
    /// The most links of a row: 4 to 128. More find more, in more memory and time.
    pub degree: u32,
    /// Where the codes of neighbours lie.
    pub layout: Layout,
}

impl GraphParams {
    /// Five bits a dimension over f16 originals under `metric`, 48 links, compact, seed 42.
    pub fn new(metric: Metric) -> Self {
        let (originals, layout) = (Some(Precision::F16), Layout::Compact);
        Self { metric, bits: 5, originals, seed: 42, degree: 48, layout }
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
        if !DEGREES.contains(&self.degree) {
            let (least, most) = (DEGREES.start(), DEGREES.end());
            return Err(invalid(format!("degree must be {least} to {most}, got {}", self.degree)));
        }
        self.flat().check(dim)
    }

    /// Blocks that the neighbours of one row take.
    pub(crate) fn blocks(&self) -> usize {
        (self.degree as usize).div_ceil(BlockShape::ROWS)
    }
}

/// What one search in a [`GraphIndex`](crate::GraphIndex) asks for.
#[derive(Debug, Clone, Copy)]
pub struct GraphOptions<'a> {
    /// How many hits: at least 1. Fewer come back only when fewer rows match.
    pub k: usize,
    /// The share of the true neighbours to find, in (0, 1]: 0.95 unless told. 1.0 looks at every original. Where none are
    /// kept, the neighbours are those that a scan of all codes would find.
    pub recall: Option<f32>,
    /// How many vertices a walk holds, at least `k`, in place of a recall.
    pub ef: Option<u32>,
    /// The rows that may be found; all unless told.
    pub selection: Option<&'a Selection>,
    /// How far a hit may be, as [`limnion_types::Hit::distance`].
    pub radius: Option<f32>,
}

impl GraphOptions<'_> {
    /// The `k` nearest of all rows.
    pub fn new(k: usize) -> Self {
        Self { k, recall: None, ef: None, selection: None, radius: None }
    }
}
