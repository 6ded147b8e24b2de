//! What searches find, against naive oracles.
#![expect(clippy::expect_used, reason = "a test may stop at what it did not expect")]

use limnion_index::{FlatIndex, Params, Precision, SearchOptions, Source, Verify};
use limnion_testkit::{Random, distance, nearest, recall};
use limnion_types::{ErrorKind, Hit, Job, Metric};
use proptest::prelude::*;

const KINDS: [(u8, Option<Precision>); 8] = [
    (0, Some(Precision::F32)),
    (0, Some(Precision::F16)),
    (1, None),
    (1, Some(Precision::F32)),
    (1, Some(Precision::F16)),
    (4, None),
    (4, Some(Precision::F32)),
    (8, None),
];

fn params(metric: Metric, bits: u8, originals: Option<Precision>) -> Params {
    Params { bits, originals, ..Params::new(metric) }
}

fn build(vectors: &[f32], dim: usize, params: &Params) -> FlatIndex {
    FlatIndex::build(vectors, dim, None, params, &Job::new()).expect("good vectors")
}

fn ids(hits: &[Hit]) -> Vec<u64> {
    hits.iter().map(|hit| hit.id).collect()
}

#[test]
fn exact_plans_agree_with_the_naive_oracle_for_every_metric() {
    let (dim, rows) = (100, 700);
    let mut random = Random::new(1);
    let vectors = random.clustered(rows, dim, 10);
    for metric in Metric::ALL {
        for bits in [0, 1, 4] {
            let index = build(&vectors, dim, &params(metric, bits, Some(Precision::F32)));
            for _ in 0..10 {
                let query = random.clustered(1, dim, 1);
                let options = SearchOptions { recall: (bits > 0).then_some(1.0), ..SearchOptions::new(12) };
                let hits = index.search(&query, &options).expect("a good query");
                let expected = nearest(metric, &vectors, dim, &query, 12);
                assert_eq!(
                    ids(&hits),
                    expected.iter().map(|e| e.0).collect::<Vec<_>>(),
                    "{metric}, {bits} bits"
                );
                for (hit, (_, distance)) in hits.iter().zip(expected) {
                    let scale = distance.abs().max(1.0);
                    assert!((f64::from(hit.distance) - distance).abs() / scale < 1e-5, "{metric}: {hit:?}");
                    let score = match metric {
                        Metric::L2 => 1.0 / (1.0 + distance),
                        Metric::InnerProduct => -distance,
                        Metric::Cosine => 1.0 - distance,
                    };
                    assert!((f64::from(hit.score) - score).abs() / scale < 1e-5, "{metric}: {hit:?}");
                }
            }
        }
    }
}

#[test]
fn the_default_finds_what_it_promises_and_codes_alone_find_what_their_bits_allow() {
    let (dim, rows) = (128, 20_000);
    let mut random = Random::new(2);
    let vectors = random.clustered(rows, dim, 200);
    let queries = random.clustered(40, dim, 200);
    for metric in Metric::ALL {
        // With originals, what the default promises. From codes alone, just under what this data gave when first measured
        // (the least of the three metrics): a floor against regressions, not a promise.
        for (bits, originals, at_least) in [
            (1, Some(Precision::F32), 0.985),
            (1, Some(Precision::F16), 0.975),
            (4, Some(Precision::F32), 0.985),
            (1, None, 0.15),
            (2, None, 0.40),
            (4, None, 0.78),
            (8, None, 0.97),
        ] {
            let index = build(&vectors, dim, &params(metric, bits, originals));
            let found: f64 = queries
                .chunks_exact(dim)
                .map(|query| {
                    let hits = index.search(query, &SearchOptions::new(10)).expect("a good query");
                    assert_eq!(hits.len(), 10);
                    recall(&ids(&hits), &nearest(metric, &vectors, dim, query, 10))
                })
                .sum();
            assert!(found / 40.0 >= at_least, "{metric}, {bits} bits, {originals:?}: {}", found / 40.0);
        }
    }
}

#[test]
fn estimated_distances_are_near_the_true_ones() {
    let (dim, rows) = (256, 2000);
    let mut random = Random::new(3);
    let vectors = random.clustered(rows, dim, 20);
    for metric in Metric::ALL {
        for (bits, tolerance) in [(1, 0.2), (4, 0.03), (8, 0.004)] {
            let index = build(&vectors, dim, &params(metric, bits, None));
            let query = random.clustered(1, dim, 1);
            for hit in index.search(&query, &SearchOptions::new(50)).expect("a good query") {
                let row = hit.id as usize * dim;
                let truth = distance(metric, &query, &vectors[row..row + dim]);
                let scale = match metric {
                    Metric::L2 => truth,
                    Metric::InnerProduct => (distance(Metric::InnerProduct, &query, &query)
                        * distance(Metric::InnerProduct, &vectors[row..row + dim], &vectors[row..row + dim]))
                    .sqrt(),
                    Metric::Cosine => 1.0,
                };
                let error = (f64::from(hit.distance) - truth).abs() / scale;
                assert!(error < tolerance, "{metric}, {bits} bits: {hit:?}, true {truth}");
            }
        }
    }
}

#[test]
fn a_batch_finds_what_single_searches_find_on_any_number_of_threads() {
    let (dim, rows) = (96, 5000);
    let mut random = Random::new(4);
    let vectors = random.clustered(rows, dim, 50);
    let queries = random.clustered(37, dim, 50);
    for (bits, originals) in KINDS {
        let index = build(&vectors, dim, &params(Metric::L2, bits, originals));
        let options = SearchOptions::new(7);
        let single: Vec<Vec<Hit>> = queries
            .chunks_exact(dim)
            .map(|query| index.search(query, &options).expect("a good query"))
            .collect();
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            let batch =
                pool.install(|| index.search_batch(&queries, &options, &Job::new())).expect("good queries");
            assert_eq!(batch, single, "{bits} bits, {threads} threads");
        }
    }
}

#[test]
fn vectors_that_are_given_away_make_the_same_index() {
    let vectors = Random::new(5).gaussians(700, 24);
    let ids: Vec<u64> = (0..700).map(|row| row * 3 + 1).collect();
    for metric in Metric::ALL {
        for (bits, originals) in
            [(0, Some(Precision::F32)), (1, Some(Precision::F32)), (4, None), (2, Some(Precision::F16))]
        {
            let params = Params { bits, originals, ..Params::new(metric) };
            let copied = FlatIndex::build(&vectors, 24, Some(&ids), &params, &Job::new()).unwrap();
            let owned =
                FlatIndex::build_owned(vectors.clone(), 24, Some(&ids), &params, &Job::new()).unwrap();
            assert_eq!(copied, owned, "{metric} {bits} {originals:?}");
        }
    }
}

#[test]
fn builds_are_the_same_on_any_number_of_threads_and_in_any_pieces() {
    let (dim, rows) = (70, 20_000);
    let vectors = Random::new(5).clustered(rows, dim, 10);
    let params = params(Metric::Cosine, 5, Some(Precision::F16));
    let whole = build(&vectors, dim, &params).to_bytes().expect("bytes");
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        assert!(pool.install(|| build(&vectors, dim, &params)).to_bytes().expect("bytes") == whole);
    }
    let sample: Vec<f32> = limnion_index::sample_rows(rows)
        .flat_map(|row| &vectors[row * dim..(row + 1) * dim])
        .copied()
        .collect();
    let mut builder = limnion_index::Builder::new(&params, dim, &sample, rows).expect("good parameters");
    for piece in vectors.chunks(777 * dim) {
        builder.push(piece, None, &Job::new()).expect("good vectors");
    }
    assert!(builder.finish().to_bytes().expect("bytes") == whole);
}

#[test]
fn a_selection_is_kept_exactly_and_gives_k_hits_whenever_k_rows_are_allowed() {
    let (dim, rows) = (64, 6000);
    let mut random = Random::new(6);
    let vectors = random.clustered(rows, dim, 30);
    for (bits, originals) in KINDS {
        let index = build(&vectors, dim, &params(Metric::L2, bits, originals));
        for share in [0.5, 0.1, 0.01, 0.001] {
            let mask: Vec<bool> = (0..rows).map(|_| random.uniform() < share).collect();
            let allowed: Vec<u64> =
                (0..).zip(&mask).filter(|(_, allowed)| **allowed).map(|(id, _)| id).collect();
            let by_mask = index.select_mask(&mask).expect("a mask of the right length");
            let by_id = index.select_ids(&allowed.iter().copied().chain([1 << 40]).collect::<Vec<_>>());
            assert_eq!(by_mask, by_id);
            let query = random.clustered(1, dim, 30);
            let options = SearchOptions { selection: Some(&by_mask), ..SearchOptions::new(10) };
            let hits = index.search(&query, &options).expect("a good query");
            assert_eq!(hits.len(), allowed.len().min(10), "{bits} bits, share {share}");
            assert!(hits.iter().all(|hit| allowed.contains(&hit.id)));
            let batch = index.search_batch(&query, &options, &Job::new()).expect("a good query");
            assert_eq!(batch, std::slice::from_ref(&hits));
            if originals == Some(Precision::F32) {
                let kept: Vec<f32> = allowed
                    .iter()
                    .flat_map(|&id| &vectors[id as usize * dim..(id as usize + 1) * dim])
                    .copied()
                    .collect();
                let expected: Vec<(u64, f64)> = nearest(Metric::L2, &kept, dim, &query, 10)
                    .into_iter()
                    .map(|(row, distance)| (allowed[row as usize], distance))
                    .collect();
                assert!(recall(&ids(&hits), &expected) >= 0.9, "{bits} bits, share {share}");
            }
        }
    }
}

#[test]
fn a_radius_keeps_what_is_beyond_it_out_and_what_is_at_it_in() {
    let (dim, rows) = (64, 3000);
    let mut random = Random::new(16);
    let vectors = random.clustered(rows, dim, 20);
    for metric in [Metric::L2, Metric::Cosine, Metric::InnerProduct] {
        for (bits, originals) in KINDS {
            let index = build(&vectors, dim, &params(metric, bits, originals));
            for _ in 0..20 {
                let query = random.clustered(1, dim, 20);
                // So sure that no bound rules out what another would not.
                let refines = bits > 1 || (bits == 1 && originals.is_some());
                let sure = SearchOptions { recall: refines.then_some(0.99999), ..SearchOptions::new(30) };
                let without = index.search(&query, &sure).expect("a good query");
                for reach in [0, 4, 29] {
                    let radius = without[reach].distance;
                    let options = SearchOptions { radius: Some(radius), ..sure };
                    let hits = index.search(&query, &options).expect("a good query");
                    let expected: Vec<_> =
                        without.iter().filter(|hit| hit.distance <= radius).copied().collect();
                    assert_eq!(hits, expected, "{metric}, {bits} bits, {originals:?}");
                }
                let nothing = SearchOptions { radius: Some(-1e9), ..SearchOptions::new(3) };
                assert_eq!(index.search(&query, &nothing).expect("a good query"), []);
            }
        }
    }
}

#[test]
fn equal_vectors_come_back_in_the_order_of_their_ids() {
    let dim = 64;
    let row: Vec<f32> = (0..dim).map(|i| i as f32).collect();
    let vectors: Vec<f32> = row.iter().copied().cycle().take(dim * 3000).collect();
    let ids_down: Vec<u64> = (0..3000).rev().collect();
    for (bits, originals) in KINDS {
        let params = params(Metric::L2, bits, originals);
        let index =
            FlatIndex::build(&vectors, dim, Some(&ids_down), &params, &Job::new()).expect("good vectors");
        let hits = index.search(&row, &SearchOptions::new(5)).expect("a good query");
        assert_eq!(ids(&hits), [0, 1, 2, 3, 4], "{bits} bits, {originals:?}");
    }
}

#[test]
fn rerank_factor_looks_at_exactly_so_many_rows() {
    let (dim, rows) = (64, 3000);
    let mut random = Random::new(8);
    let vectors = random.gaussians(rows, dim);
    let index = build(&vectors, dim, &params(Metric::L2, 1, Some(Precision::F32)));
    let query = random.gaussians(1, dim);
    let search = |rerank_factor| {
        let options = SearchOptions { rerank_factor, ..SearchOptions::new(10) };
        ids(&index.search(&query, &options).expect("a good query"))
    };
    let truth = nearest(Metric::L2, &vectors, dim, &query, 10);
    let recalls: Vec<f64> = [1, 4, 20, 300].map(|factor| recall(&search(Some(factor)), &truth)).to_vec();
    assert!(recalls.windows(2).all(|pair| pair[0] <= pair[1]), "{recalls:?}");
    assert!(recalls[0] < 1.0 && recalls[3] == 1.0, "{recalls:?}");
    assert_eq!(search(Some(u32::MAX)), truth.iter().map(|t| t.0).collect::<Vec<_>>());
}

#[test]
fn rows_much_longer_or_shorter_than_the_sample_are_found() {
    let dim = 64;
    let mut random = Random::new(10);
    let mut vectors = random.gaussians(500, dim);
    let params = params(Metric::L2, 4, None);
    let mut index = build(&vectors, dim, &params);
    for (id, size) in [(500, 1e3_f32), (501, 1e6), (502, 1e-3), (503, 1e15)] {
        let long: Vec<f32> = random.gaussians(1, dim).iter().map(|x| x * size).collect();
        index.add(Some(&[id]), &long, &Job::new()).expect("good vectors");
        vectors.extend_from_slice(&long);
        let hits = index.search(&long, &SearchOptions::new(1)).expect("a good query");
        let near_zero = distance(Metric::L2, &long, &vectors[..dim]) < 100.0;
        assert!(near_zero || hits[0].id == id, "{id}: {hits:?}");
    }
}

#[test]
fn any_k_is_served_and_an_old_selection_finds_only_rows_that_are_left() {
    let dim = 64;
    let vectors = Random::new(12).gaussians(2000, dim);
    for (bits, originals) in KINDS {
        let mut index = build(&vectors, dim, &params(Metric::L2, bits, originals));
        let all = index.search(&vectors[..dim], &SearchOptions::new(usize::MAX)).expect("a good query");
        assert_eq!(all.len(), 2000, "{bits} bits, {originals:?}");
        let old = index.select_ids(&[3, 1998, 1999]);
        index.remove(&[1998, 1999]).expect("ids that are there");
        let options = SearchOptions { selection: Some(&old), ..SearchOptions::new(usize::MAX) };
        let left = index.search(&vectors[..dim], &options).expect("a good query");
        assert_eq!(ids(&left), [3], "{bits} bits, {originals:?}");
    }
}

#[test]
fn options_that_cannot_be_had_are_refused_with_a_reason() {
    let vectors = Random::new(11).gaussians(100, 16);
    let codes = build(&vectors, 16, &params(Metric::L2, 1, None));
    let more = build(&vectors, 16, &params(Metric::L2, 4, None));
    let plus = build(&vectors, 16, &params(Metric::L2, 1, Some(Precision::F32)));
    let query = &vectors[..16];
    let options = SearchOptions::new(5);
    for (index, options, word) in [
        (&plus, SearchOptions { k: 0, ..options }, "k must"),
        (&plus, SearchOptions { radius: Some(f32::NAN), ..options }, "radius"),
        (&plus, SearchOptions { recall: Some(0.0), ..options }, "recall"),
        (&plus, SearchOptions { recall: Some(f32::NAN), ..options }, "recall"),
        (&plus, SearchOptions { recall: Some(0.9), rerank_factor: Some(2), ..options }, "one of them"),
        (&plus, SearchOptions { rerank_factor: Some(0), ..options }, "rerank_factor"),
        (&codes, SearchOptions { recall: Some(0.9), ..options }, "RabitqPlusIndex"),
        (&codes, SearchOptions { rerank_factor: Some(4), ..options }, "RabitqPlusIndex"),
        (&more, SearchOptions { recall: Some(1.0), ..options }, "originals"),
    ] {
        let error = index.search(query, &options).expect_err("a refusal");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(word), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_small_index_answers_exactly_at_full_recall(
        seed in any::<u64>(), rows in 1_usize..200, dim in 1_usize..90, k in 1_usize..220, metric in 0_usize..3,
    ) {
        let metric = Metric::ALL[metric];
        let mut random = Random::new(seed);
        let vectors = random.gaussians(rows, dim);
        let query = random.gaussians(1, dim);
        let truth = nearest(metric, &vectors, dim, &query, k);
        for bits in [0, 1, 3] {
            let index = build(&vectors, dim, &params(metric, bits, Some(Precision::F32)));
            let options = SearchOptions { recall: (bits > 0).then_some(1.0), ..SearchOptions::new(k) };
            let hits = index.search(&query, &options).expect("a good query");
            prop_assert_eq!(hits.len(), truth.len());
            // Rows so near to each other that f32 cannot tell may come in either order.
            for (hit, (_, expected)) in hits.iter().zip(&truth) {
                let row = hit.id as usize * dim;
                let found = distance(metric, &query, &vectors[row..row + dim]);
                prop_assert!((found - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{hit:?}, {expected}");
            }
            let bounded = index.search(&query, &SearchOptions::new(k)).expect("a good query");
            prop_assert_eq!(bounded.len(), rows.min(k));
        }
    }
}

#[test]
fn a_recall_is_kept_on_queries_that_were_not_seen() {
    let (dim, rows, queries) = (64, 20_000, 400);
    let all = Random::new(60).clustered(rows + queries, dim, 200);
    let (vectors, unseen) = all.split_at(rows * dim);
    for metric in Metric::ALL {
        for (bits, originals) in [(1, Some(Precision::F32)), (4, Some(Precision::F16)), (4, None)] {
            let index = build(vectors, dim, &params(metric, bits, originals));
            let search = |recall| {
                let options = SearchOptions { recall: Some(recall), ..SearchOptions::new(10) };
                index.search_batch(unseen, &options, &Job::new()).expect("queries")
            };
            let truth = search(0.999_99);
            for asked in [0.9, 0.95, 0.99] {
                let pairs = truth.iter().zip(search(asked));
                let found: f64 = pairs
                    .map(|(truth, found)| {
                        ids(truth).iter().filter(|id| ids(&found).contains(id)).count() as f64
                    })
                    .sum();
                let found = found / (10 * queries) as f64;
                // Half of the tolerance is for the 400 queries that this is measured by.
                let within = f64::from(asked) - 0.01..f64::from(asked) + 0.015;
                assert!(within.contains(&found), "{metric} {bits} {originals:?} {asked}: {found}");
            }
        }
    }
}

#[test]
fn what_a_recall_takes_is_kept_in_the_file_and_forgotten_when_rows_are_others() {
    let dim = 32;
    let vectors = Random::new(61).clustered(3000, dim, 20);
    let mut index = build(&vectors, dim, &params(Metric::L2, 1, Some(Precision::F32)));
    let (before, fresh) = (index.to_bytes().expect("bytes"), index.clone());
    assert!(!index.is_calibrated());
    let options = SearchOptions { recall: Some(0.9), ..SearchOptions::new(10) };
    let hits = index.search(&vectors[..dim], &options).expect("a query");
    assert!(index.is_calibrated() && index == fresh);
    // However it was found out, it is the same.
    fresh.calibrate(&Job::new()).expect("a whole index");
    let bytes = index.to_bytes().expect("bytes");
    assert!(bytes == fresh.to_bytes().expect("bytes") && bytes.len() > before.len());
    for verify in [Verify::Now, Verify::OnFirstUse] {
        let source: Source = std::sync::Arc::new(bytes.clone());
        let Ok(again) = FlatIndex::from_bytes(&source, verify) else {
            // Only an array at a multiple of its own width can be mapped.
            assert_eq!(verify, Verify::OnFirstUse);
            continue;
        };
        assert!(again.is_calibrated());
        assert_eq!(again.search(&vectors[..dim], &options).expect("a query"), hits);
    }
    index.update(&[1, 2], &vectors[..2 * dim]).expect("ids that are there");
    assert!(index.is_calibrated());
    index.remove(&(1000..2000).collect::<Vec<_>>()).expect("ids that are there");
    assert!(!index.is_calibrated());
    let cancelled = Job::new();
    cancelled.cancel();
    assert_eq!(index.calibrate(&cancelled).expect_err("stopped").kind(), ErrorKind::Cancelled);
    let none = build(&vectors, dim, &params(Metric::L2, 0, Some(Precision::F32)));
    assert!(none.is_calibrated());
}
