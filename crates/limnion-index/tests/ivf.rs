//! What an index of lists finds, against naive oracles.
#![expect(clippy::expect_used, reason = "a test may stop at what it did not expect")]

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use limnion_index::{
    FlatIndex, IvfIndex, IvfOptions, IvfParams, Params, Precision, SearchOptions, Source, Verify,
};
use limnion_testkit::{Random, nearest, recall};
use limnion_types::{ErrorKind, Hit, Job, Metric};
use proptest::prelude::*;

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

#[test]
fn a_selection_is_kept_exactly_and_its_recall_does_not_fall_as_it_narrows() {
    let (dim, rows) = (64, 12_000);
    let (vectors, queries) = rows_and_queries(6, rows, 20, dim);
    let mut random = Random::new(7);
    for (bits, originals) in KINDS {
        let index = build(&vectors, dim, &params(Metric::L2, bits, originals));
        // At random, and those of one half of space, where queries may be far from all.
        let masks = [0.5, 0.3, 0.2, 0.05, 0.01, 0.001, 0.0]
            .map(|share| (0..rows).map(|_| random.uniform() < share).collect::<Vec<bool>>())
            .into_iter()
            .chain([vectors.chunks_exact(dim).map(|row| row[0] > 1.2).collect()]);
        for mask in masks {
            let allowed: Vec<u64> =
                (0..).zip(&mask).filter(|(_, allowed)| **allowed).map(|(id, _)| id).collect();
            let by_mask = index.select_mask(&mask).expect("a mask of the right length");
            assert_eq!(by_mask, index.select_ids(&allowed));
            let kept: Vec<f32> = allowed
                .iter()
                .flat_map(|&id| &vectors[id as usize * dim..(id as usize + 1) * dim])
                .copied()
                .collect();
            let mut found = 0.0;
            for query in queries.chunks_exact(dim) {
                let options = IvfOptions { selection: Some(&by_mask), ..IvfOptions::new(10) };
                let hits = index.search(query, &options).expect("a good query");
                assert_eq!(hits.len(), allowed.len().min(10), "{bits} bits, {} allowed", allowed.len());
                assert!(hits.iter().all(|hit| allowed.binary_search(&hit.id).is_ok()));
                let truth: Vec<(u64, f64)> = nearest(Metric::L2, &kept, dim, query, 10)
                    .into_iter()
                    .map(|(row, distance)| (allowed[row as usize], distance))
                    .collect();
                found += if truth.is_empty() { 1.0 } else { recall(&ids(&hits), &truth) };
            }
            if originals == Some(Precision::F32) {
                assert!(found / 20.0 > 0.93, "{bits} bits, {} allowed: {}", allowed.len(), found / 20.0);
            }
        }
        assert!(index.select_mask(&[true]).is_err());
    }
}

#[test]
fn a_selection_finds_the_same_however_often_it_is_used() {
    let (dim, rows) = (72, 9000);
    let (vectors, queries) = rows_and_queries(26, rows, 12, dim);
    let mut random = Random::new(27);
    let anchor = vectors[dim..2 * dim].to_vec();
    let near: Vec<u64> =
        nearest(Metric::L2, &vectors, dim, &anchor, 3200).into_iter().map(|(id, _)| id).collect();
    for (metric, (bits, originals)) in Metric::ALL.into_iter().cycle().zip(KINDS) {
        let index = build(&vectors, dim, &params(metric, bits, originals));
        let flat = Params { bits, originals, ..Params::new(metric) };
        let flat = FlatIndex::build(&vectors, dim, None, &flat, &Job::new()).expect("good vectors");
        for share in [0.8, 0.4, 0.25, 0.1, 0.002, 0.0] {
            let mut allowed: Vec<u64> = (0..rows as u64).filter(|_| random.uniform() < share).collect();
            if share == 0.4 {
                allowed.clone_from(&near);
            }
            for (k, radius) in [(1, None), (10, None), (300, None), (5000, None), (20, Some(1.1))] {
                let selection = index.select_ids(&allowed);
                let options = IvfOptions { selection: Some(&selection), radius, ..IvfOptions::new(k) };
                let find = || -> Vec<Vec<Hit>> {
                    let each = queries.chunks_exact(dim);
                    each.map(|query| index.search(query, &options).expect("a query")).collect()
                };
                let first: Vec<Vec<Hit>> = queries
                    .chunks_exact(dim)
                    .map(|query| {
                        let selection = index.select_ids(&allowed);
                        let options = IvfOptions { selection: Some(&selection), ..options };
                        index.search(query, &options).expect("a query")
                    })
                    .collect();
                assert_eq!(find(), first, "{metric}, {bits} bits, {share}, {k}");
                assert_eq!(find(), first, "{metric}, {bits} bits, {share}, {k}");
                let batch = index.search_batch(&queries, &options, &Job::new()).expect("queries");
                assert_eq!(batch, first, "{metric}, {bits} bits, {share}, {k}");
                for hits in first {
                    assert!(radius.is_some() || hits.len() == k.min(allowed.len()));
                    assert!(hits.iter().all(|hit| allowed.contains(&hit.id)));
                }
            }
            // Few rows are measured exactly, also by a flat index.
            if allowed.len() < 2000 && originals == Some(Precision::F32) {
                let ours = flat.select_ids(&allowed);
                let kept: Vec<f32> = allowed
                    .iter()
                    .flat_map(|&id| &vectors[id as usize * dim..(id as usize + 1) * dim])
                    .copied()
                    .collect();
                for query in queries.chunks_exact(dim) {
                    let truth: Vec<u64> = nearest(metric, &kept, dim, query, 10)
                        .into_iter()
                        .map(|(row, _)| allowed[row as usize])
                        .collect();
                    let options = SearchOptions { selection: Some(&ours), ..SearchOptions::new(10) };
                    assert_eq!(ids(&flat.search(query, &options).expect("a query")), truth);
                }
            }
        }
    }
}

#[test]
fn a_selection_that_is_older_than_the_index_never_answers_from_what_the_rows_were() {
    let (dim, rows) = (40, 6000);
    let (vectors, queries) = rows_and_queries(28, rows, 5, dim);
    for share in [50, 2] {
        let mut index = build(&vectors, dim, &params(Metric::L2, 1, Some(Precision::F32)));
        let allowed: Vec<u64> = (0..rows as u64).filter(|id| id % share == 0).collect();
        let selection = index.select_ids(&allowed);
        let options = IvfOptions { selection: Some(&selection), ..IvfOptions::new(10) };
        for query in queries.chunks_exact(dim) {
            assert_eq!(index.search(query, &options).expect("a query").len(), 10);
        }
        index.remove(&(0..3000).collect::<Vec<_>>()).expect("rows that are there");
        for query in queries.chunks_exact(dim) {
            let hits = index.search(query, &options).expect("a query");
            for hit in hits {
                let row = &vectors[hit.id as usize * dim..(hit.id as usize + 1) * dim];
                let square: f32 = row.iter().zip(query).map(|(x, y)| (x - y) * (x - y)).sum();
                assert!(hit.id >= 3000 && (square.sqrt() - hit.distance).abs() < 1e-3 * hit.distance);
            }
        }
    }
}

/// Asserts that a search among rows of 30,000 finds what it was asked for: 3,000 at random, or round one of them.
fn check_recall_among(round_one: bool) {
    let (dim, rows) = (96, 30_000);
    let (vectors, queries) = rows_and_queries(29, rows, 100, dim);
    let mut random = Random::new(30);
    let index = build(&vectors, dim, &params(Metric::L2, 4, Some(Precision::F32)));
    let anchor = vectors[5 * dim..6 * dim].to_vec();
    let mut allowed: Vec<u64> = if round_one {
        nearest(Metric::L2, &vectors, dim, &anchor, 3000).into_iter().map(|(id, _)| id).collect()
    } else {
        (0..rows as u64).filter(|_| random.uniform() < 0.1).collect()
    };
    allowed.sort_unstable();
    let selection = index.select_ids(&allowed);
    let kept: Vec<f32> = allowed
        .iter()
        .flat_map(|&id| &vectors[id as usize * dim..(id as usize + 1) * dim])
        .copied()
        .collect();
    for wanted in [0.8, 0.95] {
        let options = IvfOptions { selection: Some(&selection), recall: Some(wanted), ..IvfOptions::new(10) };
        let mut found = 0.0;
        for query in queries.chunks_exact(dim) {
            let truth: Vec<(u64, f64)> = nearest(Metric::L2, &kept, dim, query, 10)
                .into_iter()
                .map(|(row, distance)| (allowed[row as usize], distance))
                .collect();
            found += recall(&ids(&index.search(query, &options).expect("a query")), &truth) / 100.0;
        }
        assert!(found > f64::from(wanted) - 0.02, "{} rows, {wanted}: {found}", allowed.len());
    }
}

#[test]
fn who_asks_for_a_recall_among_rows_at_random_gets_it() {
    check_recall_among(false);
}

#[test]
#[ignore = "not true yet: 0.68 is found for 0.8, as the margins of the limit are found among all rows"]
fn who_asks_for_a_recall_among_rows_at_one_side_gets_it() {
    check_recall_among(true);
}

#[test]
fn a_radius_keeps_what_is_beyond_it_out_and_finds_what_is_within() {
    let (dim, rows) = (64, 8000);
    let (vectors, queries) = rows_and_queries(16, rows, 20, dim);
    for metric in Metric::ALL {
        let index = build(&vectors, dim, &params(metric, 1, Some(Precision::F32)));
        let (mut found, mut all) = (0, 0);
        for query in queries.chunks_exact(dim) {
            let truth = nearest(metric, &vectors, dim, query, 60);
            let radius = truth[40].1 as f32;
            let options = IvfOptions { radius: Some(radius), ..IvfOptions::new(1000) };
            let hits = index.search(query, &options).expect("a query");
            assert!(hits.iter().all(|hit| hit.distance <= radius), "{metric}");
            found += hits.len();
            all += 41;
            let nothing = IvfOptions { radius: Some(-1e9), ..IvfOptions::new(3) };
            assert_eq!(index.search(query, &nothing).expect("a query"), []);
        }
        assert!(found * 100 > all * 93, "{metric}: {found} of {all}");
    }
}

/// Does the same with an index of lists and with a plain list of rows.
struct Both {
    index: IvfIndex,
    rows: Vec<(u64, Vec<f32>)>,
    dim: usize,
}

impl Both {
    fn check(&self, step: &str) {
        assert_eq!(self.index.ids(), self.rows.iter().map(|(id, _)| *id).collect::<Vec<_>>(), "{step}");
        assert_eq!(self.index.list_sizes().iter().sum::<usize>(), self.rows.len(), "{step}");
        let Some((_, query)) = self.rows.first() else { return };
        let all = IvfOptions { nprobe: Some(u32::MAX), ..IvfOptions::new(self.rows.len()) };
        let mut hits = ids(&self.index.search(query, &all).expect("a query"));
        hits.sort_unstable();
        let mut expected = self.index.ids();
        expected.sort_unstable();
        assert_eq!(hits, expected, "{step}: every row once");
        let (kept, flat): (Vec<u64>, Vec<f32>) = {
            let flat = self.rows.iter().flat_map(|(_, vector)| vector).copied().collect();
            (self.rows.iter().map(|(id, _)| *id).collect(), flat)
        };
        let truth: Vec<(u64, f64)> = nearest(self.index.metric(), &flat, self.dim, query, 10)
            .into_iter()
            .map(|(row, distance)| (kept[row as usize], distance))
            .collect();
        let options = IvfOptions { nprobe: Some(u32::MAX), ..IvfOptions::new(10) };
        let found = recall(&ids(&self.index.search(query, &options).expect("a query")), &truth);
        assert!(found >= 0.9, "{step}: {found}");
    }
}

#[test]
fn any_run_of_changes_agrees_with_a_plain_list_of_rows() {
    let dim = 24;
    for (seed, metric) in (50..).zip(Metric::ALL) {
        for (bits, originals) in [(1, Some(Precision::F32)), (4, Some(Precision::F16))] {
            let mut random = Random::new(seed);
            let vectors = random.clustered(900, dim, 12);
            let index = build(&vectors, dim, &params(metric, bits, originals));
            let rows = (0..).zip(vectors.chunks_exact(dim).map(<[f32]>::to_vec)).collect();
            let mut both = Both { index, rows, dim };
            both.check("built");
            for step in 0..30 {
                match random.below(3) {
                    0 => {
                        let count = 1 + random.below(if step % 5 == 0 { 700 } else { 40 });
                        // Some come far from all, and much longer.
                        let longer = if step == 17 { 100.0 } else { 1.0 };
                        let new: Vec<f32> =
                            random.clustered(count, dim, 3).iter().map(|x| longer * x).collect();
                        both.index.add(None, &new, &Job::new()).expect("good vectors");
                        let first = both.rows.iter().map(|(id, _)| id + 1).max().unwrap_or(0);
                        both.rows.extend((first..).zip(new.chunks_exact(dim).map(<[f32]>::to_vec)));
                    }
                    1 => {
                        let count = random.below(both.rows.len().min(400));
                        let mut gone: Vec<u64> = both.index.ids();
                        while gone.len() > count {
                            gone.swap_remove(random.below(gone.len()));
                        }
                        both.index.remove(&gone).expect("ids that are there");
                        for id in gone {
                            let at = both.rows.iter().position(|(other, _)| *other == id).expect("a row");
                            both.rows.swap_remove(at);
                        }
                    }
                    _ => {
                        let at = random.below(both.rows.len());
                        let new = random.clustered(1, dim, 1);
                        both.index.update(&[both.rows[at].0], &new).expect("a good vector");
                        both.rows[at].1 = new;
                    }
                }
                both.check(&format!("{metric}, {bits} bits, step {step}"));
            }
            let bytes = both.index.to_bytes().expect("bytes");
            let opened =
                IvfIndex::from_bytes(&(Arc::new(bytes) as Source), Verify::Now).expect("a whole file");
            assert!(opened == both.index);
            both.index.remove(&both.index.ids()).expect("all ids");
            assert!(both.index.is_empty());
            both.index.add(None, &vectors, &Job::new()).expect("good vectors");
            assert_eq!(both.index.len(), 900);
        }
    }
}

#[test]
fn recall_holds_while_a_fifth_of_the_rows_is_replaced_ten_times() {
    let (dim, rows) = (64, 8000);
    let mut random = Random::new(60);
    // What is new comes from elsewhere: clusters that were not there when the lists were made.
    let laws: Vec<Vec<f32>> = (0..11).map(|_| random.clustered(rows, dim, 40)).collect();
    let mut index = build(&laws[0], dim, &params(Metric::L2, 1, Some(Precision::F32)));
    let mut now: Vec<(u64, Vec<f32>)> = (0..).zip(laws[0].chunks_exact(dim).map(<[f32]>::to_vec)).collect();
    for (round, law) in laws[1..].iter().enumerate() {
        let new = &law[..rows / 5 * dim];
        let gone: Vec<u64> = now.drain(..rows / 5).map(|(id, _)| id).collect();
        index.remove(&gone).expect("ids that are there");
        let first = (rows + round * rows / 5) as u64;
        let ids: Vec<u64> = (first..first + (rows / 5) as u64).collect();
        index.add(Some(&ids), new, &Job::new()).expect("good vectors");
        now.extend(ids.into_iter().zip(new.chunks_exact(dim).map(<[f32]>::to_vec)));
    }
    let vectors: Vec<f32> = now.iter().flat_map(|(_, vector)| vector).copied().collect();
    let numbers: Vec<u64> = now.iter().map(|(id, _)| *id).collect();
    let params = params(Metric::L2, 1, Some(Precision::F32));
    let fresh = IvfIndex::build(&vectors, dim, Some(&numbers), &params, &Job::new()).expect("good vectors");
    let found = |index: &IvfIndex| -> f64 {
        let queries = (0..200).map(|i| &laws[1 + i % 10][(rows / 5 + i) * dim..(rows / 5 + i + 1) * dim]);
        let each = queries.map(|query| {
            let truth: Vec<(u64, f64)> = nearest(Metric::L2, &vectors, dim, query, 10)
                .into_iter()
                .map(|(row, distance)| (numbers[row as usize], distance))
                .collect();
            recall(&ids(&index.search(query, &IvfOptions::new(10)).expect("a query")), &truth)
        });
        each.sum::<f64>() / 200.0
    };
    let (old, new) = (found(&index), found(&fresh));
    assert!(old > new - 0.01, "{old} after changes, {new} built anew");
}

#[test]
fn a_change_that_fails_changes_nothing() {
    let dim = 16;
    let vectors = Random::new(22).gaussians(3000, dim);
    let mut index = build(&vectors, dim, &params(Metric::Cosine, 4, Some(Precision::F32)));
    let before = index.clone();
    let mut bad = vectors[..3 * dim].to_vec();
    bad[2 * dim + 5] = f32::NAN;
    let zero = vec![0.0; dim];
    let (stopped, job) = (Job::new(), Job::new());
    stopped.cancel();
    for (kind, word, result) in [
        (ErrorKind::InvalidArgument, "row 2", index.add(None, &bad, &job)),
        (ErrorKind::InvalidArgument, "zero", index.update(&[1], &zero)),
        (ErrorKind::DimensionMismatch, "16", index.add(None, &vectors[..17], &job)),
        (ErrorKind::DuplicateId, "id 3 ", index.add(Some(&[8000, 3]), &vectors[..2 * dim], &job)),
        (ErrorKind::InvalidArgument, "as many", index.add(Some(&[80]), &vectors[..2 * dim], &job)),
        (ErrorKind::IdNotFound, "id 9999", index.remove(&[1, 9999])),
        (ErrorKind::DuplicateId, "1 twice", index.update(&[1, 1], &vectors[..2 * dim])),
        (ErrorKind::Cancelled, "cancelled", index.add(None, &vectors, &stopped)),
    ] {
        let error = result.expect_err("a refusal");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(index == before);
    let long = Random::new(23).gaussians(60_000, dim);
    let job = Arc::new(Job::new());
    let stopper = std::thread::spawn({
        let job = job.clone();
        move || {
            while job.done() == 0 {
                std::thread::yield_now();
            }
            job.cancel();
        }
    });
    let error = index.add(None, &long, &job).expect_err("it was stopped");
    stopper.join().expect("a thread");
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(index == before);
}

#[test]
fn memory_is_given_back() {
    let (dim, rows) = (64, 20_000);
    let vectors = Random::new(23).clustered(rows, dim, 100);
    let mut index = build(&vectors, dim, &params(Metric::L2, 4, Some(Precision::F32)));
    let full = index.memory_bytes();
    index.remove(&(0..15_000).collect::<Vec<_>>()).expect("ids that are there");
    assert!(index.memory_bytes() < full / 2 + 5000 * 32, "{} of {full}", index.memory_bytes());
}

fn small(bits: u8, originals: Option<Precision>, metric: Metric) -> IvfIndex {
    let vectors = Random::new(30).clustered(500, 40, 5);
    let ids: Vec<u64> = (0..500).map(|i| i * 3 + (1 << 40)).collect();
    let params = IvfParams { lists: Some(9), seed: 7, ..params(metric, bits, originals) };
    IvfIndex::build(&vectors, 40, Some(&ids), &params, &Job::new()).expect("good vectors")
}

/// Bytes at an address that is a multiple of 64, as those of a mapped file are.
struct Aligned(Vec<limnion_simd::Line>, usize);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &limnion_simd::bytes(&self.0)[..self.1]
    }
}

fn aligned(bytes: &[u8]) -> Source {
    let mut lines = vec![limnion_simd::Line::default(); bytes.len().div_ceil(64)];
    limnion_simd::bytes_mut(&mut lines)[..bytes.len()].copy_from_slice(bytes);
    Arc::new(Aligned(lines, bytes.len()))
}

#[test]
fn a_saved_index_comes_back_equal_mapped_or_read() {
    let path = std::env::temp_dir().join(format!("limnion-ivf-{}.limn", std::process::id()));
    let query = Random::new(31).clustered(1, 40, 5);
    for metric in Metric::ALL {
        for (bits, originals) in KINDS {
            let index = small(bits, originals, metric);
            index.save(&path).expect("a writable folder");
            let bytes = std::fs::read(&path).expect("a file");
            assert!(IvfIndex::is_file(&bytes));
            let loaded = IvfIndex::load(&path).expect("what was saved");
            let mut mapped =
                IvfIndex::from_bytes(&aligned(&bytes), Verify::OnFirstUse).expect("what was saved");
            assert!(loaded == index && mapped == index);
            let options = IvfOptions::new(8);
            let hits = index.search(&query, &options).expect("a query");
            assert_eq!(loaded.search(&query, &options).expect("a query"), hits);
            assert_eq!(mapped.search(&query, &options).expect("a query"), hits);
            mapped.remove(&[1 << 40]).expect("an id that is there");
            mapped.add(None, &[0.5; 40], &Job::new()).expect("a good vector");
            assert_eq!(mapped.len(), 500);
            let error = FlatIndex::load(&path, &Job::new()).expect_err("another kind");
            assert!(error.to_string().contains("IvfIndex"), "{error}");
        }
    }
    let flat = FlatIndex::build(&query, 40, None, &Params::new(Metric::L2), &Job::new()).expect("a vector");
    flat.save(&path).expect("a writable folder");
    let error = IvfIndex::load(&path).expect_err("another kind");
    assert!(error.to_string().contains("FlatIndex"), "{error}");
    std::fs::remove_file(&path).expect("a file");
    assert_eq!(IvfIndex::load(&path).expect_err("no file").kind(), ErrorKind::FileNotFound);
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let query = Random::new(33).clustered(1, 40, 5);
    for (bits, originals) in KINDS {
        let index = small(bits, originals, Metric::Cosine);
        let bytes = index.to_bytes().expect("bytes");
        let hits = index.search(&query, &IvfOptions::new(5)).expect("a query");
        let mut random = Random::new(32);
        for _ in 0..300 {
            let mut damaged = bytes.clone();
            let at = random.below(bytes.len());
            damaged[at] ^= 1 << random.below(8);
            match IvfIndex::from_bytes(&aligned(&damaged), Verify::Now) {
                // Zeros between sections carry nothing.
                Ok(opened) => assert!(opened == index, "byte {at}"),
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::CorruptFile | ErrorKind::NewerFile),
                    "byte {at}: {error}"
                ),
            }
            if let Ok(opened) = IvfIndex::from_bytes(&aligned(&damaged), Verify::OnFirstUse) {
                match opened.search(&query, &IvfOptions::new(5)) {
                    Ok(found) => assert_eq!(found, hits, "byte {at}"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::CorruptFile, "byte {at}"),
                }
            }
            let cut = aligned(&bytes[..random.below(bytes.len())]);
            let error = IvfIndex::from_bytes(&cut, Verify::Now).expect_err("a cut file");
            assert_eq!(error.kind(), ErrorKind::CorruptFile);
        }
    }
}

#[test]
fn a_file_whose_checksums_were_made_to_fit_its_damage_never_breaks_anything() {
    let query = Random::new(33).clustered(1, 40, 5);
    let bytes = small(4, Some(Precision::F32), Metric::L2).to_bytes().expect("bytes");
    let count = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
    let number =
        |bytes: &[u8], at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i])) as usize;
    let mut random = Random::new(34);
    for _ in 0..2000 {
        let mut damaged = bytes.clone();
        let entry = 32 + 24 * random.below(count);
        let (start, length) = (number(&damaged, entry + 8), number(&damaged, entry + 16));
        for _ in 0..1 + random.below(3) {
            let at = start + random.below(length);
            damaged[at] = [0, 1, 0x7F, 0xFF, random.bits() as u8][random.below(5)];
        }
        let crc = crc32fast::hash(&damaged[start..start + length]);
        damaged[entry + 4..entry + 8].copy_from_slice(&crc.to_le_bytes());
        let table = crc32fast::hash(&damaged[32..32 + 24 * count]);
        damaged[24..28].copy_from_slice(&table.to_le_bytes());
        let header = crc32fast::hash(&damaged[..28]);
        damaged[28..32].copy_from_slice(&header.to_le_bytes());
        for verify in [Verify::Now, Verify::OnFirstUse] {
            let Ok(mut opened) = IvfIndex::from_bytes(&aligned(&damaged), verify) else { continue };
            // Nonsense may be found, and refused; it may not break.
            for options in [IvfOptions::new(5), IvfOptions { nprobe: Some(3), ..IvfOptions::new(700) }] {
                let _ = opened.search(&query, &options);
            }
            let _ = opened.add(None, &query, &Job::new());
            let _ = opened.remove(&[1 << 40, (1 << 40) + 3]);
        }
    }
}

/// The sections of a file: where each one's entry is, and where it lies.
fn sections(bytes: &[u8]) -> Vec<(usize, std::ops::Range<usize>)> {
    let count = u32::from_le_bytes(std::array::from_fn(|i| bytes[12 + i])) as usize;
    let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i])) as usize;
    let entries = (0..count).map(|section| 32 + 24 * section);
    entries.map(|at| (at, number(at + 8)..number(at + 8).saturating_add(number(at + 16)))).collect()
}

/// Makes all checksums fit whatever the file says now, and its length what it is.
fn seal(bytes: &mut [u8]) {
    let length = bytes.len();
    bytes[16..24].copy_from_slice(&(length as u64).to_le_bytes());
    let sections = sections(bytes);
    for (entry, range) in &sections {
        if let Some(section) = bytes.get(range.clone()) {
            let crc = crc32fast::hash(section);
            bytes[entry + 4..entry + 8].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let table = crc32fast::hash(&bytes[32..32 + 24 * sections.len()]);
    bytes[24..28].copy_from_slice(&table.to_le_bytes());
    let header = crc32fast::hash(&bytes[..28]);
    bytes[28..32].copy_from_slice(&header.to_le_bytes());
}

#[derive(Debug, Clone)]
enum Damage {
    /// A byte of a section, at a place in it, becomes another.
    Byte(usize, usize, u8),
    /// A number of four bytes of a section becomes another.
    Number(usize, usize, u32),
    /// A section says that it is so much longer or shorter.
    Length(usize, i64),
    /// A section says that it lies elsewhere.
    Offset(usize, i64),
    /// Two sections change their names.
    Names(usize, usize),
    /// The file ends early: so many bytes are gone from its end.
    Cut(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let number = prop_oneof![
        Just(0_u32),
        Just(1),
        Just(u32::MAX),
        Just(i32::MAX as u32),
        Just(f32::NAN.to_bits()),
        Just(f32::INFINITY.to_bits()),
        Just((-1.0_f32).to_bits()),
        Just(f32::MAX.to_bits()),
        0_u32..2000,
        any::<u32>(),
    ];
    let by =
        prop_oneof![Just(-64_i64), Just(64), Just(-4), Just(4), Just(1 << 40), Just(-1), -5000_i64..5000];
    let (section, at) = (any::<usize>(), any::<usize>());
    prop_oneof![
        3 => (section, at, any::<u8>()).prop_map(|(section, at, byte)| Damage::Byte(section, at, byte)),
        6 => (section, at, number).prop_map(|(section, at, number)| Damage::Number(section, at, number)),
        2 => (section, by.clone()).prop_map(|(section, by)| Damage::Length(section, by)),
        1 => (section, by).prop_map(|(section, by)| Damage::Offset(section, by)),
        1 => (section, at).prop_map(|(one, other)| Damage::Names(one, other)),
        1 => (0_usize..4000).prop_map(Damage::Cut),
    ]
}

fn strike(bytes: &mut Vec<u8>, damage: &Damage) {
    let sections = sections(bytes);
    let pick = |section: usize| sections[section % sections.len()].clone();
    let add = |bytes: &mut Vec<u8>, at: usize, by: i64| {
        let old = u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        bytes[at..at + 8].copy_from_slice(&old.wrapping_add_signed(by).to_le_bytes());
    };
    match *damage {
        Damage::Byte(section, at, byte) => {
            let range = pick(section).1;
            if !range.is_empty() && range.end <= bytes.len() {
                bytes[range.start + at % range.len()] = byte;
            }
        }
        Damage::Number(section, at, number) => {
            let range = pick(section).1;
            if range.len() >= 4 && range.end <= bytes.len() {
                let start = range.start + at % (range.len() / 4) * 4;
                bytes[start..start + 4].copy_from_slice(&number.to_le_bytes());
            }
        }
        Damage::Length(section, by) => add(bytes, pick(section).0 + 16, by),
        Damage::Offset(section, by) => add(bytes, pick(section).0 + 8, by),
        Damage::Names(one, other) => {
            let (one, other) = (pick(one).0, pick(other).0);
            (0..4).for_each(|i| bytes.swap(one + i, other + i));
        }
        Damage::Cut(count) => bytes.truncate(bytes.len().saturating_sub(count).max(32 + 24 * sections.len())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn no_file_breaks_anything_or_makes_an_index_far_larger_than_itself(
        kind in 0_usize..5,
        metric in 0_usize..3,
        damages in prop::collection::vec(damage(), 1..4),
    ) {
        static FILES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
        let files = FILES.get_or_init(|| {
            let kinds = KINDS.iter().flat_map(|&(bits, originals)| {
                Metric::ALL.map(|metric| small(bits, originals, metric))
            });
            kinds.map(|index| index.to_bytes().expect("bytes")).collect()
        });
        let mut bytes = files[kind * 3 + metric].clone();
        for damage in &damages {
            strike(&mut bytes, damage);
            // A length may have become nonsense: then the next strike has nothing to aim at.
            if sections(&bytes).iter().any(|(_, range)| range.end > bytes.len() || range.start > range.end) {
                break;
            }
        }
        seal(&mut bytes);
        let query = Random::new(33).clustered(1, 40, 5);
        for verify in [Verify::Now, Verify::OnFirstUse] {
            let mut opened = match IvfIndex::from_bytes(&aligned(&bytes), verify) {
                Ok(opened) => opened,
                Err(error) => {
                    prop_assert!(matches!(
                        error.kind(),
                        ErrorKind::CorruptFile | ErrorKind::NewerFile | ErrorKind::InvalidArgument
                    ), "{error}");
                    continue;
                }
            };
            prop_assert!(opened.memory_bytes() < 4 * bytes.len() + (1 << 16), "{}", opened.memory_bytes());
            // Nonsense may be found, and refused; it may not break.
            for options in [
                IvfOptions::new(5),
                IvfOptions { nprobe: Some(3), ..IvfOptions::new(700) },
                IvfOptions { radius: Some(0.5), ..IvfOptions::new(9) },
                IvfOptions { selection: Some(&opened.select_ids(&[1 << 40, (1 << 40) + 3])), ..IvfOptions::new(9) },
            ] {
                let _ = opened.search(&query, &options);
            }
            let _ = opened.add(None, &query, &Job::new());
            let _ = opened.remove(&[1 << 40, (1 << 40) + 3]);
            let _ = opened.to_bytes();
        }
    }
}

#[test]
fn an_index_that_was_built_apart_is_merged_and_all_rows_are_found() {
    let dim = 40;
    let mut random = Random::new(80);
    let (mine, theirs) = (random.clustered(1500, dim, 20), random.clustered(2500, dim, 20));
    let their_ids: Vec<u64> = (10_000..12_500).collect();
    for metric in Metric::ALL {
        for precision in [Precision::F32, Precision::F16] {
            let mut index = build(&mine, dim, &params(metric, 4, Some(Precision::F32)));
            let kept = IvfParams { seed: 9, ..params(metric, 1, Some(precision)) };
            let other =
                IvfIndex::build(&theirs, dim, Some(&their_ids), &kept, &Job::new()).expect("good vectors");
            let job = Job::new();
            index.merge(&other, &job).expect("an index of the same kind");
            assert_eq!((index.len(), job.done()), (4000, 2500));
            assert_eq!(index.ids(), (0..1500).chain(their_ids.clone()).collect::<Vec<_>>());
            let mut exact =
                Both { index, rows: (0..).zip(mine.chunks_exact(dim).map(<[f32]>::to_vec)).collect(), dim };
            let rows = their_ids.iter().map(|&id| (id, other.vector(id).expect("an original")));
            exact.rows.extend(rows);
            exact.check(&format!("{metric}, {precision:?}"));
            let all = exact.index.clone();
            exact.index.remove(&all.ids()).expect("all ids");
            exact.index.merge(&all, &Job::new()).expect("an index of the same kind");
            exact.check("into an index without rows");
        }
    }
}

#[test]
fn a_merge_that_cannot_be_changes_nothing() {
    let dim = 16;
    let vectors = Random::new(81).gaussians(3000, dim);
    let mut index = build(&vectors[..1000 * dim], dim, &params(Metric::Cosine, 1, Some(Precision::F32)));
    let before = index.clone();
    let ids: Vec<u64> = (5000..7000).collect();
    let other = |dim, metric, originals, ids: &[u64]| {
        let count = ids.len() * dim;
        IvfIndex::build(&vectors[..count], dim, Some(ids), &params(metric, 2, originals), &Job::new())
            .expect("good vectors")
    };
    let (stopped, job, f32) = (Job::new(), Job::new(), Some(Precision::F32));
    stopped.cancel();
    for (kind, word, other, job) in [
        (ErrorKind::DimensionMismatch, "16", other(8, Metric::Cosine, f32, &ids), &job),
        (ErrorKind::InvalidArgument, "metric", other(dim, Metric::L2, f32, &ids), &job),
        (ErrorKind::DuplicateId, "id 7", other(dim, Metric::Cosine, f32, &[8000, 7]), &job),
        (ErrorKind::NoOriginals, "vectors", other(dim, Metric::Cosine, None, &ids), &job),
        (ErrorKind::Cancelled, "cancelled", other(dim, Metric::Cosine, f32, &ids), &stopped),
    ] {
        let error = index.merge(&other, job).expect_err("a refusal");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(word), "{error}");
        assert!(index == before, "{error}");
    }
    index.merge(&other(dim, Metric::Cosine, None, &[]), &job).expect("nothing to add");
    assert!(index == before);
}

#[test]
fn there_is_room_where_nothing_large_has_to_be_copied() {
    let vectors = Random::new(83).clustered(20_000, 64, 50);
    let mut index = build(&vectors, 64, &params(Metric::L2, 1, Some(Precision::F32)));
    index.add(None, &vectors[..64], &Job::new()).expect("a good vector");
    assert!(index.has_room(1) && !index.has_room(1 << 24));
    let clone = index.clone();
    assert!(!index.has_room(1), "{} rows are shared", clone.len());
}

#[test]
fn a_build_counts_its_rows_once_and_stops_wherever_it_is_told() {
    let (dim, rows) = (64, 30_000);
    let vectors = Random::new(82).clustered(rows, dim, 100);
    let params = params(Metric::L2, 2, Some(Precision::F32));
    let job = Job::new();
    IvfIndex::build(&vectors, dim, None, &params, &job).expect("good vectors");
    assert_eq!(job.done(), rows as u64);
    for percent in [0, 10, 45, 70, 90] {
        let job = Arc::new(Job::new());
        let stopper = std::thread::spawn({
            let job = job.clone();
            move || {
                while job.done() * 100 < rows as u64 * percent {
                    std::thread::yield_now();
                }
                job.cancel();
                Instant::now()
            }
        });
        let error = IvfIndex::build(&vectors, dim, None, &params, &job).expect_err("it was stopped");
        let told = stopper.join().expect("a thread");
        // A tenth of that is usual; the machine may have other work.
        assert!(told.elapsed() < Duration::from_secs(1), "{percent} %: {:?}", told.elapsed());
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(job.done() < rows as u64, "{percent} %");
    }
}
