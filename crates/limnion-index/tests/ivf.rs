//! What an index of lists finds, against naive oracles.
#![expect(clippy::expect_used, reason = "a test may stop at what it did not expect")]

use limnion_index::{IvfIndex, IvfOptions, IvfParams, Precision};
use limnion_testkit::{Random, nearest, recall};
use limnion_types::{ErrorKind, Hit, Job, Metric};

const KINDS: [(u8, Option<Precision>); 5] =
    [(1, Some(Precision::F32)), (1, Some(Precision::F16)), (1, None), (4, Some(Precision::F32)), (6, None)];

fn params(metric: Metric, bits: u8, originals: Option<Precision>) -> IvfParams {
    IvfParams { bits, originals, ..IvfParams::new(metric) }
}

fn build(vectors: &[f32], dim: usize, params: &IvfParams) -> IvfIndex {
    IvfIndex::build(vectors, dim, None, params, &Job::new()).expect("good vectors")
}

fn ids(hits: &[Hit]) -> Vec<u64> {
    hits.iter().map(|hit| hit.id).collect()
}

/// Rows of one law, and queries of the same.
fn rows_and_queries(seed: u64, rows: usize, queries: usize, dim: usize) -> (Vec<f32>, Vec<f32>) {
    let mut vectors = Random::new(seed).clustered(rows + queries, dim, 60);
    let queries = vectors.split_off(rows * dim);
    (vectors, queries)
}

#[test]
fn who_asks_for_a_recall_gets_it_under_every_metric() {
    let (dim, rows) = (96, 20_000);
    let (vectors, queries) = rows_and_queries(1, rows, 200, dim);
    for metric in Metric::ALL {
        let truth: Vec<_> =
            queries.chunks_exact(dim).map(|query| nearest(metric, &vectors, dim, query, 10)).collect();
        for (bits, originals) in [(1, Some(Precision::F32)), (4, Some(Precision::F32))] {
            let index = build(&vectors, dim, &params(metric, bits, originals));
            for wanted in [0.8, 0.9, 0.95, 0.99] {
                let options = IvfOptions { recall: Some(wanted), ..IvfOptions::new(10) };
                let found: f64 = queries
                    .chunks_exact(dim)
                    .zip(&truth)
                    .map(|(query, truth)| {
                        recall(&ids(&index.search(query, &options).expect("a query")), truth)
                    })
                    .sum();
                let found = found / truth.len() as f64;
                assert!(found > f64::from(wanted) - 0.015, "{metric}, {bits} bits, {wanted}: {found}");
            }
        }
    }
}

#[test]
fn a_look_into_all_lists_finds_what_a_scan_of_all_rows_finds() {
    let (dim, rows) = (100, 3000);
    let (vectors, queries) = rows_and_queries(2, rows, 20, dim);
    for metric in Metric::ALL {
        for (bits, originals) in KINDS {
            let index = build(&vectors, dim, &params(metric, bits, originals));
            let exact = originals == Some(Precision::F32);
            let all = IvfOptions { nprobe: Some(u32::MAX), ..IvfOptions::new(12) };
            let mut found = 0.0;
            for query in queries.chunks_exact(dim) {
                let expected = nearest(metric, &vectors, dim, query, 12);
                found += recall(&ids(&index.search(query, &all).expect("a query")), &expected);
                if exact {
                    let options = IvfOptions { recall: Some(1.0), ..IvfOptions::new(12) };
                    let hits = index.search(query, &options).expect("a query");
                    assert_eq!(ids(&hits), expected.iter().map(|e| e.0).collect::<Vec<_>>());
                }
            }
            let floor = match (bits, originals) {
                (1, None) => 0.3,
                (6, None) => 0.9,
                _ => 0.97,
            };
            assert!(found / 20.0 >= floor, "{metric}, {bits} bits, {originals:?}: {}", found / 20.0);
        }
    }
}

#[test]
fn a_batch_finds_what_single_searches_find_and_builds_are_the_same_on_any_number_of_threads() {
    let (dim, rows) = (70, 6000);
    let (vectors, queries) = rows_and_queries(4, rows, 37, dim);
    for (bits, originals) in KINDS {
        let params = params(Metric::Cosine, bits, originals);
        let index = build(&vectors, dim, &params);
        let options = IvfOptions::new(7);
        let single: Vec<Vec<Hit>> = queries
            .chunks_exact(dim)
            .map(|query| index.search(query, &options).expect("a good query"))
            .collect();
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            let other = pool.install(|| build(&vectors, dim, &params));
            let batch =
                pool.install(|| other.search_batch(&queries, &options, &Job::new())).expect("good queries");
            assert_eq!(batch, single, "{bits} bits, {threads} threads");
            assert_eq!(other.list_sizes(), index.list_sizes());
        }
    }
}

#[test]
fn hard_data_is_searched_like_any_other() {
    let mut random = Random::new(9);
    let one_hot: Vec<f32> =
        (0..500).flat_map(|i| (0..50).map(move |d| f32::from(u8::from(d == i % 50)))).collect();
    let line: Vec<f32> = (0..3000).map(|i| i as f32).collect();
    let mut uneven = random.gaussians(50, 16);
    uneven.extend(random.gaussians(4000, 16).iter().map(|x| 0.01 * x + 3.0));
    let mut outlier = random.gaussians(2000, 8);
    outlier.extend([3e4; 8]);
    let cases: [(&str, usize, Vec<f32>); 6] = [
        ("all equal", 24, [0.5, 1.0, 0.25].repeat(8 * 1000)),
        ("one hot", 50, one_hot),
        ("one dimension", 1, line),
        ("uneven", 16, uneven),
        ("one row", 40, random.gaussians(1, 40)),
        ("an outlier", 8, outlier),
    ];
    for (name, dim, vectors) in cases {
        for (bits, originals) in KINDS {
            let index = build(&vectors, dim, &params(Metric::L2, bits, originals));
            let rows = vectors.len() / dim;
            assert_eq!(index.list_sizes().iter().sum::<usize>(), rows, "{name}");
            for row in [0, rows / 3, rows - 1] {
                let query = &vectors[row * dim..(row + 1) * dim];
                let hits = index.search(query, &IvfOptions::new(5)).expect("a query");
                assert_eq!(hits.len(), rows.min(5), "{name}, {bits} bits, {originals:?}");
                if originals == Some(Precision::F32) {
                    assert_eq!(hits[0].distance, 0.0, "{name}, {bits} bits, row {row}: {hits:?}");
                }
            }
            let all = index.search(&vectors[..dim], &IvfOptions::new(rows + 5)).expect("a query");
            let missing = (0..rows as u64).find(|&id| all.iter().all(|hit| hit.id != id));
            assert_eq!(missing, None, "{name}, {bits} bits, {originals:?}: {:?}", index.list_sizes());
        }
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let vectors = Random::new(3).gaussians(200, 16);
    let good = params(Metric::L2, 1, Some(Precision::F32));
    let index = build(&vectors, 16, &good);
    let job = Job::new();
    let building = |params: IvfParams| IvfIndex::build(&vectors, 16, None, &params, &job).map(|_| Vec::new());
    let asking = |options: IvfOptions<'_>| index.search(&vectors[..16], &options);
    let stopped = Job::new();
    stopped.cancel();
    for (kind, word, result) in [
        (ErrorKind::InvalidArgument, "bits", building(IvfParams { bits: 0, ..good.clone() })),
        (ErrorKind::InvalidArgument, "bits", building(IvfParams { bits: 9, ..good.clone() })),
        (ErrorKind::InvalidArgument, "lists", building(IvfParams { lists: Some(0), ..good.clone() })),
        (ErrorKind::InvalidArgument, "k must", asking(IvfOptions::new(0))),
        (ErrorKind::InvalidArgument, "nprobe", asking(IvfOptions { nprobe: Some(0), ..IvfOptions::new(1) })),
        (
            ErrorKind::InvalidArgument,
            "recall",
            asking(IvfOptions { recall: Some(1.5), ..IvfOptions::new(1) }),
        ),
        (
            ErrorKind::InvalidArgument,
            "two ways",
            asking(IvfOptions { recall: Some(0.9), nprobe: Some(3), ..IvfOptions::new(1) }),
        ),
        (
            ErrorKind::InvalidArgument,
            "radius",
            asking(IvfOptions { radius: Some(f32::NAN), ..IvfOptions::new(1) }),
        ),
        (ErrorKind::DimensionMismatch, "16", index.search(&vectors[..15], &IvfOptions::new(1))),
        (ErrorKind::InvalidArgument, "finite", index.search(&[f32::NAN; 16], &IvfOptions::new(1))),
        (
            ErrorKind::Cancelled,
            "cancelled",
            IvfIndex::build(&vectors, 16, None, &good, &stopped).map(|_| Vec::new()),
        ),
        (
            ErrorKind::DuplicateId,
            "twice",
            IvfIndex::build(&vectors, 16, Some(&[7; 200]), &good, &job).map(|_| Vec::new()),
        ),
        (
            ErrorKind::EmptyIndex,
            "no rows",
            IvfIndex::build(&[], 16, None, &good, &job)
                .and_then(|empty| empty.search(&vectors[..16], &IvfOptions::new(1))),
        ),
    ] {
        let error = result.expect_err("a refusal");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}
