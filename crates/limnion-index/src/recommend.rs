//! Which index to take.

use limnion_rabitq::padded_dim;
use limnion_types::Result;

use crate::params::{MAX_DIM, Precision, invalid};

/// What [`recommend`] says.
#[derive(Debug, Clone, PartialEq)]
pub struct Recommendation {
    /// The class: `FlatF32Index`, `RabitqPlusIndex`, `RabitqAsymIndex` or `RabitqIndex`.
    pub index: &'static str,
    /// Bits a dimension; 0 for the index without codes.
    pub bits: u8,
    /// How to keep the originals.
    pub originals: Option<Precision>,
    /// Memory that the rows take, in bytes.
    pub bytes: u64,
    /// The recall@10 to expect on text embeddings.
    pub recall: f32,
    /// Why, in a sentence or two.
    pub reason: String,
}

/// A flat scan of the originals answers so much data in well under a millisecond.
const SMALL_BYTES: u64 = 4 << 20;
/// Recall@10 on real text embeddings from codes alone, by bits a dimension (`benches/RESULTS.md` has the figures).
const RECALL_OF_BITS: [(u8, f32); 7] =
    [(1, 0.65), (2, 0.82), (3, 0.90), (4, 0.94), (5, 0.97), (6, 0.98), (8, 0.99)];

/// Says which index and settings to take for `n` vectors of `dim` dimensions: the fastest flat index that finds the share
/// `recall` of the true neighbours within `memory` bytes.
///
/// ```
/// let advice = limnion_index::recommend(1_000_000, 384, 0.99, Some(1 << 30))?;
/// assert_eq!(advice.index, "RabitqPlusIndex");
/// # Ok::<(), limnion_types::Error>(())
/// ```
///
/// # Errors
/// `InvalidArgument` for a dimension outside 1 to 65,536 or a recall outside (0, 1].
pub fn recommend(n: u64, dim: usize, recall: f32, memory: Option<u64>) -> Result<Recommendation> {
    if dim == 0 || dim > MAX_DIM {
        return Err(invalid(format!("dim must be 1 to {MAX_DIM}, got {dim}")));
    }
    if !(recall > 0.0 && recall <= 1.0) {
        return Err(invalid(format!("recall must be above 0 and at most 1, got {recall}")));
    }
    let limit = memory.unwrap_or(u64::MAX);
    let candidates = candidates(n, dim);
    let fitting = || candidates.iter().filter(|candidate| candidate.bytes <= limit);
    let reaching = fitting().find(|candidate| candidate.recall >= recall);
    let nearest = || fitting().max_by(|a, b| a.recall.total_cmp(&b.recall));
    let smallest = || candidates.iter().min_by_key(|candidate| candidate.bytes);
    let best = reaching
        .or_else(nearest)
        .or_else(smallest)
        .ok_or_else(|| invalid("nothing to choose from".into()))?;
    let shortfall = if best.bytes > limit {
        format!("; no index of {n} x {dim} fits {limit} bytes: this is the smallest")
    } else if best.recall < recall {
        format!("; a recall of {recall} does not fit {limit} bytes: this is the nearest")
    } else {
        String::new()
    };
    Ok(Recommendation {
        index: best.index,
        bits: best.bits,
        originals: best.originals,
        bytes: best.bytes,
        recall: best.recall,
        reason: format!("{}{shortfall}", best.reason),
    })
}

struct Candidate {
    index: &'static str,
    bits: u8,
    originals: Option<Precision>,
    bytes: u64,
    recall: f32,
    reason: &'static str,
}

/// The indexes there are, the fastest first.
fn candidates(n: u64, dim: usize) -> Vec<Candidate> {
    let candidate = |index, bits, originals, recall, reason| {
        let bytes = n.saturating_mul(row_bytes(dim, bits, originals));
        Candidate { index, bits, originals, bytes, recall, reason }
    };
    let exact = candidate(
        "FlatF32Index",
        0,
        Some(Precision::F32),
        1.0,
        "it looks at every vector, so it misses none",
    );
    let mut candidates = vec![
        candidate("RabitqPlusIndex", 1, Some(Precision::F32), 0.999, "codes are scanned, originals decide"),
        candidate(
            "RabitqPlusIndex",
            1,
            Some(Precision::F16),
            0.995,
            "codes are scanned, halved originals decide",
        ),
    ];
    candidates.extend(RECALL_OF_BITS.map(|(bits, recall)| {
        let index = if bits == 1 { "RabitqIndex" } else { "RabitqAsymIndex" };
        candidate(index, bits, None, recall, "codes alone, the originals stay outside")
    }));
    let place = if exact.bytes <= SMALL_BYTES { 0 } else { candidates.len() };
    candidates.insert(place, exact);
    candidates
}

fn row_bytes(dim: usize, bits: u8, originals: Option<Precision>) -> u64 {
    const FACTORS: u64 = 6;
    const MORE_FACTORS: u64 = 8;
    let padded = padded_dim(dim) as u64;
    let codes = match bits {
        0 => 0,
        1 => padded / 8 + FACTORS,
        _ => padded / 8 * u64::from(bits) + FACTORS + MORE_FACTORS,
    };
    codes + dim as u64 * originals.map_or(0, |precision| if precision == Precision::F32 { 4 } else { 2 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advise(n: u64, recall: f32, memory: Option<u64>) -> (&'static str, u8, Option<Precision>) {
        let advice = recommend(n, 384, recall, memory).expect("good arguments");
        (advice.index, advice.bits, advice.originals)
    }

    #[test]
    fn the_fastest_index_that_reaches_the_recall_within_the_memory_is_advised() {
        assert_eq!(advise(1_000, 0.99, None), ("FlatF32Index", 0, Some(Precision::F32)));
        assert_eq!(advise(1_000_000, 0.99, None), ("RabitqPlusIndex", 1, Some(Precision::F32)));
        assert_eq!(advise(1_000_000, 0.99, Some(1 << 30)), ("RabitqPlusIndex", 1, Some(Precision::F16)));
        assert_eq!(advise(1_000_000, 0.99, Some(500_000_000)), ("RabitqAsymIndex", 8, None));
        assert_eq!(advise(1_000_000, 0.90, Some(250_000_000)), ("RabitqAsymIndex", 3, None));
        assert_eq!(advise(1_000_000, 0.95, Some(256_000_000)), ("RabitqAsymIndex", 5, None));
        assert_eq!(advise(1_000_000, 1.0, None), ("FlatF32Index", 0, Some(Precision::F32)));
    }

    #[test]
    fn what_cannot_be_had_is_said() {
        let nearest = recommend(1_000_000, 384, 0.99, Some(120_000_000)).expect("good arguments");
        assert_eq!((nearest.index, nearest.bits), ("RabitqAsymIndex", 2));
        assert!(nearest.reason.contains("does not fit"), "{}", nearest.reason);
        let smallest = recommend(1_000_000, 384, 0.99, Some(1000)).expect("good arguments");
        assert_eq!(smallest.index, "RabitqIndex");
        assert!(smallest.reason.contains("no index"), "{}", smallest.reason);
        assert!(recommend(10, 0, 0.9, None).is_err() && recommend(10, 3, 1.5, None).is_err());
    }
}
