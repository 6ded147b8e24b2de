//! Files of every version open for ever, and the newest version is written as it always was.
//!
//! `tests/golden/v1-*.limn` and `v2-*.limn` were written by the first release, on an AVX-512 machine. To add files for a new version, run
//! `LIMNION_WRITE_GOLDEN=1 cargo test -p limnion-index --test golden` once, and keep the old ones.
#![expect(clippy::expect_used, reason = "a test may stop at what it did not expect")]

use std::path::PathBuf;

use limnion_index::{FlatIndex, IvfIndex, IvfOptions, IvfParams, Params, Precision, SearchOptions};
use limnion_testkit::Random;
use limnion_types::{Job, Metric};

const ROWS: usize = 70;
const DIM: usize = 20;

fn kinds() -> [(&'static str, Params); 4] {
    let params = |metric, bits, originals| Params { bits, originals, seed: 7, ..Params::new(metric) };
    [
        ("flat", params(Metric::L2, 0, Some(Precision::F32))),
        ("rabitq", params(Metric::InnerProduct, 1, None)),
        ("asym", params(Metric::L2, 5, None)),
        ("plus", params(Metric::Cosine, 1, Some(Precision::F16))),
    ]
}

fn build(params: &Params) -> FlatIndex {
    // Whole numbers, so that no machine's mathematics library has a say in them.
    let mut random = Random::new(40);
    let vectors: Vec<f32> = (0..ROWS * DIM).map(|_| random.below(2001) as f32 - 1000.0).collect();
    let ids: Vec<u64> = (0..ROWS as u64).map(|row| row * row + 3).collect();
    FlatIndex::build(&vectors, DIM, Some(&ids), params, &Job::new()).expect("good vectors")
}

fn path(version: u32, name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{version}-{name}.limn"))
}

#[test]
fn files_of_version_1_open_and_find_the_same_for_ever() {
    for (name, params) in kinds() {
        let (fresh, path) = (build(&params), path(1, name));
        if std::env::var_os("LIMNION_WRITE_GOLDEN").is_some() {
            fresh.save(&path).expect("a writable folder");
        }
        let golden = FlatIndex::load(&path, &Job::new()).expect("a golden file");
        assert_eq!((golden.len(), golden.dim(), golden.params()), (ROWS, DIM, &params), "{name}");
        let query: Vec<f32> = (0..DIM).map(|i| (i as f32 - 9.0) * 100.0).collect();
        let hits = |index: &FlatIndex| index.search(&query, &SearchOptions::new(10)).expect("a query");
        assert_eq!(hits(&golden), hits(&fresh), "{name}");
    }
}

#[test]
fn version_1_is_written_byte_for_byte_as_before_on_any_machine() {
    for (name, params) in kinds() {
        let golden = std::fs::read(path(1, name)).expect("a golden file");
        assert!(build(&params).to_bytes().expect("bytes") == golden, "{name}");
    }
}

fn kinds_of_lists() -> [(&'static str, IvfParams); 3] {
    let params = |metric, bits, originals| {
        let lists = Some(6);
        IvfParams { bits, originals, seed: 7, lists, ..IvfParams::new(metric) }
    };
    [
        ("lists-l2", params(Metric::L2, 4, None)),
        ("lists-ip", params(Metric::InnerProduct, 2, Some(Precision::F32))),
        ("lists-cosine", params(Metric::Cosine, 1, Some(Precision::F16))),
    ]
}

fn build_lists(params: &IvfParams) -> IvfIndex {
    let mut random = Random::new(41);
    let vectors: Vec<f32> = (0..4 * ROWS * DIM).map(|_| random.below(2001) as f32 - 1000.0).collect();
    let ids: Vec<u64> = (0..4 * ROWS as u64).map(|row| row * row + 3).collect();
    IvfIndex::build(&vectors, DIM, Some(&ids), params, &Job::new()).expect("good vectors")
}

#[test]
fn files_of_version_2_open_and_find_the_same_for_ever() {
    for (name, params) in kinds_of_lists() {
        let (fresh, path) = (build_lists(&params), path(2, name));
        if std::env::var_os("LIMNION_WRITE_GOLDEN").is_some() {
            fresh.save(&path).expect("a writable folder");
        }
        let golden = IvfIndex::load(&path).expect("a golden file");
        assert_eq!((golden.len(), golden.dim(), golden.params()), (4 * ROWS, DIM, &params), "{name}");
        let query: Vec<f32> = (0..DIM).map(|i| (i as f32 - 9.0) * 100.0).collect();
        let hits = |index: &IvfIndex| index.search(&query, &IvfOptions::new(10)).expect("a query");
        assert_eq!(hits(&golden), hits(&fresh), "{name}");
        // What is read is written as it was.
        assert!(golden.to_bytes().expect("bytes") == std::fs::read(path).expect("a golden file"), "{name}");
    }
}

#[test]
fn version_2_is_written_byte_for_byte_as_before_on_any_machine() {
    for (name, params) in kinds_of_lists() {
        let golden = std::fs::read(path(2, name)).expect("a golden file");
        assert!(build_lists(&params).to_bytes().expect("bytes") == golden, "{name}");
    }
}
