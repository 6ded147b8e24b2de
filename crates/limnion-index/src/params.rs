//! What an index keeps, and what a search may choose.

use limnion_types::{Error, ErrorKind, Metric, Result};

use crate::Selection;

/// How the original vectors are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Precision {
    /// As they came: 4 bytes a dimension.
    F32 = 1,
    /// Rounded to half precision: 2 bytes a dimension, relative error up to 0.05 %.
    F16 = 2,
}

impl Precision {
    /// `f32` or `f16`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
        }
    }
}

/// What an index keeps of each vector. At least one of `bits` and `originals` is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// How near two vectors are.
    pub metric: Metric,
    /// Bits a dimension of the code: 0 (no codes, exact search) to 8.
    pub bits: u8,
    /// Whether and how the originals are kept.
    pub originals: Option<Precision>,
    /// Chooses the random rotation. The same data, parameters and seed give the same index, byte for byte.
    pub seed: u64,
    /// What searches use that say nothing: see [`SearchOptions::rerank_factor`].
    pub rerank_factor: Option<u32>,
}

/// The largest dimension of vectors.
pub(crate) const MAX_DIM: usize = 65_536;

impl Params {
    /// Exact search over f32 originals under `metric`, seed 42.
    pub fn new(metric: Metric) -> Self {
        Self { metric, bits: 0, originals: Some(Precision::F32), seed: 42, rerank_factor: None }
    }

    pub(crate) fn check(&self, dim: usize) -> Result<()> {
        if dim == 0 || dim > MAX_DIM {
            return Err(invalid(format!("vectors must have 1 to {MAX_DIM} dimensions, got {dim}")));
        }
        if self.bits > 8 {
            return Err(invalid(format!("bits must be 1 to 8, got {}", self.bits)));
        }
        if self.bits == 0 && self.originals.is_none() {
            return Err(invalid("an index without codes must keep the originals".to_owned()));
        }
        if let Some(factor) = self.rerank_factor {
            check_rerank(factor, self)?;
        }
        Ok(())
    }

    /// Whether a search can look at rows more closely than their sign bits.
    pub(crate) fn refines(&self) -> bool {
        self.bits != 1 || self.originals.is_some()
    }
}

/// What one search asks for.
#[derive(Debug, Clone, Copy)]
pub struct SearchOptions<'a> {
    /// How many hits: at least 1. Fewer come back only when fewer rows match.
    pub k: usize,
    /// The share of the true neighbours to find, in (0, 1], by what was found out on the data ([`FlatIndex::calibrate`]).
    /// 1.0 looks at every original. Beyond 0.999, within a radius, and unless told with 0.99, it is the probability that a row
    /// at the very edge of the answer is not ruled out by the bound of its code, which finds more.
    ///
    /// [`FlatIndex::calibrate`]: crate::FlatIndex::calibrate
    pub recall: Option<f32>,
    /// Looks closely at exactly k × this many rows, the best by their sign bits, in place of the bound. Where very few
    /// rows may be found (64 in all, or 2,048 selected) and originals are kept, all of them are measured.
    pub rerank_factor: Option<u32>,
    /// The rows that may be found; all unless told.
    pub selection: Option<&'a Selection>,
    /// How far a hit may be, as [`limnion_types::Hit::distance`]. With it fewer than k come back where fewer are that near, and
    /// a search is the quicker the fewer rows can be: who knows a bound gives it.
    pub radius: Option<f32>,
}

impl SearchOptions<'_> {
    /// The `k` nearest of all rows.
    pub fn new(k: usize) -> Self {
        Self { k, recall: None, rerank_factor: None, selection: None, radius: None }
    }
}

/// How a search goes about it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Plan {
    /// Looks at every original.
    Exact,
    /// Ranks by the estimates of the sign bits; there is nothing better to ask.
    Estimate,
    /// Refines the rows that their bound, at so many standard deviations, does not rule out.
    Bounded(f32),
    /// Refines so many rows, the best by their sign bits.
    Budget(usize),
}

const DEFAULT_RECALL: f32 = 0.99;

impl SearchOptions<'_> {
    pub(crate) fn plan(&self, params: &Params) -> Result<Plan> {
        check_hits(self.k, self.radius)?;
        if let Some(recall) = self.recall {
            check_recall(recall, params)?;
        }
        if let Some(factor) = self.rerank_factor {
            check_rerank(factor, params)?;
            if self.recall.is_some() {
                return Err(invalid(
                    "recall and rerank_factor are two ways to say how much to refine".to_owned(),
                )
                .suggest("give one of them"));
            }
        }
        if params.bits == 0 || self.recall == Some(1.0) {
            return Ok(Plan::Exact);
        }
        if !params.refines() {
            return Ok(Plan::Estimate);
        }
        Ok(match (self.recall, self.rerank_factor.or(params.rerank_factor)) {
            (None, Some(factor)) => Plan::Budget(self.k.saturating_mul(factor as usize)),
            (recall, _) => Plan::Bounded(limnion_rabitq::sureness(recall.unwrap_or(DEFAULT_RECALL))),
        })
    }
}

/// Checks how many hits are asked for, and how far they may be.
pub(crate) fn check_hits(k: usize, radius: Option<f32>) -> Result<()> {
    if k == 0 {
        return Err(invalid("k must be at least 1, got 0".to_owned()));
    }
    match radius.filter(|radius| !radius.is_finite()) {
        Some(radius) => Err(invalid(format!("radius must be a finite number, got {radius}"))),
        None => Ok(()),
    }
}

fn check_recall(recall: f32, params: &Params) -> Result<()> {
    if !params.refines() {
        return Err(invalid(
            "recall cannot be chosen: this index keeps one bit a dimension and nothing to refine with"
                .to_owned(),
        )
        .suggest("build a RabitqPlusIndex, or a RabitqAsymIndex with more bits"));
    }
    check_share(recall, params)
}

/// Checks a recall where one can be chosen.
pub(crate) fn check_share(recall: f32, params: &Params) -> Result<()> {
    if !(recall > 0.0 && recall <= 1.0) {
        return Err(invalid(format!("recall must be above 0 and at most 1, got {recall}")));
    }
    if recall == 1.0 && params.originals.is_none() {
        return Err(invalid(
            "recall=1.0 needs the original vectors, which this index does not keep".to_owned(),
        )
        .suggest("build with originals=\"f32\", or ask for a recall below 1"));
    }
    Ok(())
}

fn check_rerank(factor: u32, params: &Params) -> Result<()> {
    if factor == 0 {
        return Err(invalid("rerank_factor must be at least 1, got 0".to_owned()));
    }
    if !params.refines() {
        return Err(invalid(
            "rerank_factor cannot be used: this index keeps one bit a dimension and nothing to rerank with"
                .to_owned(),
        )
        .suggest("build a RabitqPlusIndex, or a RabitqAsymIndex with more bits"));
    }
    Ok(())
}

pub(crate) fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}
