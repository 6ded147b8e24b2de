//! Which index to take.

use limnion_rabitq::padded_dim;
use limnion_types::Result;

use crate::params::{MAX_DIM, Precision, invalid};

/// What an index is wanted for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// How many vectors.
    pub n: u64,
    /// How many dimensions they have.
    pub dim: usize,
    /// The share of the true neighbours to find, in (0, 1].
    pub recall: f32,
    /// The bytes that the index may take.
    pub memory: Option<u64>,
    /// Whether rows come, change and go often.
    pub changes: bool,
}

/// What [`recommend`] says.
#[derive(Debug, Clone, PartialEq)]
pub struct Recommendation {
    /// The class: `FlatF32Index`, `RabitqPlusIndex`, `RabitqAsymIndex`, `RabitqIndex`, `IvfIndex` or `GraphIndex`.
    pub index: &'static str,
    /// Bits a dimension; 0 for the index without codes.
    pub bits: u8,
    /// How to keep the originals.
    pub originals: Option<Precision>,
    /// Memory that the rows take, in bytes, about.
    pub bytes: u64,
    /// The recall@10 to expect on text embeddings.
    pub recall: f32,
    /// Why, in a sentence or two.
    pub reason: String,
}

/// A flat scan of the originals answers so much data in well under a millisecond.
const SMALL_BYTES: u64 = 4 << 20;
/// From so many rows on, a scan of all takes longer than a look into lists or a walk (`benches/RESULTS.md`).
const MANY_ROWS: u64 = 10_000;
/// What codes of 8 bits alone find of that.
const CODED_RECALL: f32 = 0.99;
/// What lists keep of a row beside its code and its original: which row it is, centres, and places that are free.
const LIST_BYTES: u64 = 40;
/// What lists find when they are asked for it.
const LISTS_RECALL: f32 = 0.99;
/// From so many rows on a walk by codes alone takes less time than a look into lists of such, up to the recall that follows.
const MANY_ROWS_OF_GRAPHS: u64 = 50_000;
const GRAPHS_RECALL: f32 = 0.95;
/// Recall@10 on real text embeddings from codes alone, by bits a dimension (`benches/RESULTS.md` has the figures).
const RECALL_OF_BITS: [(u8, f32); 7] =
    [(1, 0.65), (2, 0.82), (3, 0.90), (4, 0.94), (5, 0.97), (6, 0.98), (8, 0.99)];

/// Says which index and settings to take: the fastest that finds the share `recall` of the true neighbours within `memory`
/// bytes. Up to 10,000 rows that is a flat one, above one of lists;
/// where their originals do not fit, rows stay and a recall of up to 0.95 will do, from 50,000 rows on a graph.
///
/// ```
/// use limnion_index::{Wanted, recommend};
///
/// let wanted = Wanted { n: 10_000, dim: 384, recall: 0.99, memory: Some(1 << 30), changes: true };
/// assert_eq!(recommend(&wanted)?.index, "RabitqPlusIndex");
/// # Ok::<(), limnion_types::Error>(())
/// ```
///
/// # Errors
/// `InvalidArgument` for a dimension outside 1 to 65,536 or a recall outside (0, 1].
pub fn recommend(wanted: &Wanted) -> Result<Recommendation> {
    let &Wanted { n, dim, recall, memory, changes } = wanted;
    if dim == 0 || dim > MAX_DIM {
        return Err(invalid(format!("dim must be 1 to {MAX_DIM}, got {dim}")));
    }
    if !(recall > 0.0 && recall <= 1.0) {
        return Err(invalid(format!("recall must be above 0 and at most 1, got {recall}")));
    }
    let limit = memory.unwrap_or(u64::MAX);
    let candidates = candidates(n, dim, changes);
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
fn candidates(n: u64, dim: usize, changes: bool) -> Vec<Candidate> {
    let candidate = |index, bits, originals, recall, reason| {
        let per_row = row_bytes(dim, bits, originals)
            + match index {
                "GraphIndex" => graph_bytes(dim),
                "IvfIndex" => LIST_BYTES,
                _ => 0,
            };
        Candidate { index, bits, originals, bytes: n.saturating_mul(per_row), recall, reason }
    };
    let exact = candidate(
        "FlatF32Index",
        0,
        Some(Precision::F32),
        1.0,
        "it looks at every vector, so it misses none",
    );
    let mut candidates = Vec::new();
    let lists = |bits, originals, recall| {
        candidate("IvfIndex", bits, originals, recall, "it looks into the lists where neighbours may be")
    };
    if n > MANY_ROWS {
        candidates.push(lists(4, Some(Precision::F16), LISTS_RECALL));
    }
    if n > MANY_ROWS_OF_GRAPHS && !changes {
        let reason = "it walks along links to near rows";
        candidates.push(candidate("GraphIndex", 8, None, GRAPHS_RECALL, reason));
    }
    if n > MANY_ROWS {
        candidates.push(lists(8, None, LISTS_RECALL * CODED_RECALL));
    }
    candidates.extend([
        candidate("RabitqPlusIndex", 1, Some(Precision::F32), 0.999, "codes are scanned, originals decide"),
        candidate(
            "RabitqPlusIndex",
            1,
            Some(Precision::F16),
            0.995,
            "codes are scanned, halved originals decide",
        ),
    ]);
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

/// What a graph keeps of a row beside its code and its original: links, which row it is, and what pads its record.
fn graph_bytes(dim: usize) -> u64 {
    const LINKS: u64 = 48;
    const LINE: u64 = 64;
    let sign = row_bytes(dim, 1, None);
    4 * LINKS + 4 + 4 + sign.next_multiple_of(LINE) - sign
}

#[cfg(test)]
mod tests {
    use limnion_types::Metric;

    use super::*;
    use crate::{GraphIndex, GraphParams, IvfIndex, IvfParams};

    fn advise(n: u64, recall: f32, memory: Option<u64>) -> (&'static str, u8, Option<Precision>) {
        advise_for(&Wanted { n, dim: 384, recall, memory, changes: false })
    }

    fn advise_for(wanted: &Wanted) -> (&'static str, u8, Option<Precision>) {
        let advice = recommend(wanted).expect("good arguments");
        (advice.index, advice.bits, advice.originals)
    }

    const F32: Option<Precision> = Some(Precision::F32);
    const F16: Option<Precision> = Some(Precision::F16);

    #[test]
    fn the_fastest_index_that_reaches_the_recall_within_the_memory_is_advised() {
        assert_eq!(advise(1_000, 0.99, None), ("FlatF32Index", 0, F32));
        assert_eq!(advise(10_000, 0.99, None), ("RabitqPlusIndex", 1, F32));
        assert_eq!(advise(20_000, 0.95, None), ("IvfIndex", 4, F16));
        assert_eq!(advise(1_000_000, 0.95, None), ("IvfIndex", 4, F16));
        assert_eq!(advise(1_000_000, 0.99, None), ("IvfIndex", 4, F16));
        assert_eq!(advise(1_000_000, 0.995, None), ("RabitqPlusIndex", 1, F32));
        assert_eq!(advise(1_000_000, 0.995, Some(1 << 30)), ("RabitqPlusIndex", 1, F16));
        assert_eq!(advise(1_000_000, 0.95, Some(1_050_000_000)), ("IvfIndex", 4, F16));
        assert_eq!(advise(1_000_000, 0.99, Some(900_000_000)), ("RabitqPlusIndex", 1, F16));
        assert_eq!(advise(1_000_000, 0.94, Some(900_000_000)), ("GraphIndex", 8, None));
        assert_eq!(advise(1_000_000, 0.97, Some(460_000_000)), ("IvfIndex", 8, None));
        assert_eq!(advise(1_000_000, 0.99, Some(410_000_000)), ("RabitqAsymIndex", 8, None));
        assert_eq!(advise(1_000_000, 0.90, Some(250_000_000)), ("RabitqAsymIndex", 3, None));
        assert_eq!(advise(1_000_000, 0.95, Some(256_000_000)), ("RabitqAsymIndex", 5, None));
        assert_eq!(advise(1_000_000, 1.0, None), ("FlatF32Index", 0, F32));
    }

    #[test]
    fn what_changes_often_is_not_made_a_graph() {
        let wanted = Wanted { n: 1_000_000, dim: 384, recall: 0.99, memory: None, changes: true };
        assert_eq!(advise_for(&wanted), ("IvfIndex", 4, F16));
        assert_eq!(advise_for(&Wanted { n: 9_000, ..wanted.clone() }), ("RabitqPlusIndex", 1, F32));
        assert_eq!(
            advise_for(&Wanted { recall: 0.9, memory: Some(460_000_000), ..wanted }),
            ("IvfIndex", 8, None)
        );
    }

    #[test]
    fn what_cannot_be_had_is_said() {
        let wanted =
            Wanted { n: 1_000_000, dim: 384, recall: 0.99, memory: Some(120_000_000), changes: false };
        let nearest = recommend(&wanted).expect("good arguments");
        assert_eq!((nearest.index, nearest.bits), ("RabitqAsymIndex", 2));
        assert!(nearest.reason.contains("does not fit"), "{}", nearest.reason);
        let smallest = recommend(&Wanted { memory: Some(1000), ..wanted.clone() }).expect("good arguments");
        assert_eq!(smallest.index, "RabitqIndex");
        assert!(smallest.reason.contains("no index"), "{}", smallest.reason);
        assert!(recommend(&Wanted { dim: 0, ..wanted.clone() }).is_err());
        assert!(recommend(&Wanted { recall: 1.5, ..wanted }).is_err());
    }

    #[test]
    fn the_bytes_are_those_that_an_index_takes() {
        let (n, dim, job) = (3000, 100, limnion_types::Job::new());
        let vectors = limnion_testkit::Random::new(1).gaussians(n, dim);
        let graph = GraphParams::new(Metric::L2);
        let graph = GraphIndex::build(&vectors, dim, None, &graph, &job).expect("good vectors");
        let lists = IvfParams { bits: 4, originals: F16, ..IvfParams::new(Metric::L2) };
        let lists = IvfIndex::build(&vectors, dim, None, &lists, &job).expect("good vectors");
        for (bytes, each) in [
            (graph.memory_bytes(), row_bytes(dim, 5, F16) + graph_bytes(dim)),
            (lists.memory_bytes(), row_bytes(dim, 4, F16) + LIST_BYTES),
        ] {
            let said = each as f64 * n as f64;
            assert!((0.7..1.6).contains(&(bytes as f64 / said)), "{bytes}, said {said}");
        }
    }
}
