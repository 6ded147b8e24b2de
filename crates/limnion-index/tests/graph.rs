//! What a graph finds and keeps, against naive oracles.
#![expect(clippy::expect_used, reason = "a test may stop at what it did not expect")]

use std::sync::{Arc, OnceLock};

use limnion_index::{
    FlatIndex, GraphIndex, GraphOptions, GraphParams, IvfIndex, Layout, Precision, Source, Verify, Walked,
};
use limnion_testkit::{Random, nearest, recall};
use limnion_types::{ErrorKind, Hit, Job, Metric};
use proptest::prelude::*;

const KINDS: [(u8, Option<Precision>); 6] = [
    (4, Some(Precision::F16)),
    (1, Some(Precision::F32)),
    (1, Some(Precision::F16)),
    (1, None),
    (4, Some(Precision::F32)),
    (8, None),
];

fn params(metric: Metric, bits: u8, originals: Option<Precision>) -> GraphParams {
    GraphParams { bits, originals, ..GraphParams::new(metric) }
}

fn build(vectors: &[f32], dim: usize, params: &GraphParams) -> GraphIndex {
    GraphIndex::build(vectors, dim, None, params, &Job::new()).expect("good vectors")
}

fn ids(hits: &[Hit]) -> Vec<u64> {
    hits.iter().map(|hit| hit.id).collect()
}

fn asking(k: usize, recall: f32) -> GraphOptions<'static> {
    GraphOptions { recall: Some(recall), ..GraphOptions::new(k) }
}

/// Rows of one law, and queries of the same.
fn rows_and_queries(seed: u64, rows: usize, queries: usize, dim: usize) -> (Vec<f32>, Vec<f32>) {
    let mut vectors = Random::new(seed).clustered(rows + queries, dim, 60);
    let queries = vectors.split_off(rows * dim);
    (vectors, queries)
}

/// The nearest of rows that have ids.
fn nearest_of(metric: Metric, rows: &[(u64, Vec<f32>)], query: &[f32], k: usize) -> Vec<(u64, f64)> {
    let flat: Vec<f32> = rows.iter().flat_map(|(_, vector)| vector).copied().collect();
    let found = nearest(metric, &flat, query.len(), query, k);
    found.into_iter().map(|(row, distance)| (rows[row as usize].0, distance)).collect()
}

fn mean_recall(
    index: &GraphIndex,
    queries: &[f32],
    truth: &[Vec<(u64, f64)>],
    options: &GraphOptions<'_>,
) -> f64 {
    let each = queries
        .chunks_exact(index.dim())
        .zip(truth)
        .map(|(query, truth)| recall(&ids(&index.search(query, options).expect("a query")), truth));
    each.sum::<f64>() / truth.len() as f64
}

fn truths(metric: Metric, vectors: &[f32], dim: usize, queries: &[f32], k: usize) -> Vec<Vec<(u64, f64)>> {
    queries.chunks_exact(dim).map(|query| nearest(metric, vectors, dim, query, k)).collect()
}

#[test]
fn who_asks_for_a_recall_gets_it_under_every_metric() {
    let (dim, rows) = (96, 20_000);
    let (vectors, queries) = rows_and_queries(1, rows, 200, dim);
    for metric in Metric::ALL {
        let truth = truths(metric, &vectors, dim, &queries, 10);
        for (bits, originals) in [(4, Precision::F16), (1, Precision::F32)] {
            let index = build(&vectors, dim, &params(metric, bits, Some(originals)));
            for wanted in [0.8, 0.9, 0.95, 0.99] {
                let found = mean_recall(&index, &queries, &truth, &asking(10, wanted));
                assert!(found > f64::from(wanted) - 0.02, "{metric}, {bits} bits, {wanted}: {found}");
            }
            let exact = mean_recall(&index, &queries, &truth, &asking(10, 1.0));
            // Neighbours that are as good as equally far change places when they are rounded.
            assert!(exact > 0.99, "{metric}, {bits} bits: {exact}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn whatever_is_kept_a_search_finds_what_it_was_asked_for(
        metric in 0_usize..3,
        bits in 1_u8..=8,
        kept in 0_usize..3,
        degree in 16_u32..=70,
        inline in any::<bool>(),
        seed in 0_u64..1000,
        rows in prop_oneof![Just(300_usize), Just(2500), Just(6000)],
        dim in prop_oneof![Just(7_usize), Just(33), Just(96)],
    ) {
        let metric = Metric::ALL[metric];
        let originals = [None, Some(Precision::F16), Some(Precision::F32)][kept];
        let layout = if inline { Layout::Inline } else { Layout::Compact };
        let params = GraphParams { metric, bits, originals, degree, layout, seed };
        let (vectors, queries) = rows_and_queries(seed, rows, 40, dim);
        let index = build(&vectors, dim, &params);
        prop_assert!(index.mean_degree() <= f64::from(degree));
        let truth = truths(metric, &vectors, dim, &queries, 10);
        let found = mean_recall(&index, &queries, &truth, &asking(10, 0.95));
        // Without originals, what a scan of all codes finds is all there is to find.
        let most = match originals {
            Some(_) => 1.0,
            None => mean_recall(&index, &queries, &truth, &GraphOptions { ef: Some(u32::MAX), ..GraphOptions::new(10) }),
        };
        prop_assert!(found >= most - 0.09, "{found} of {most}");
        for query in queries.chunks_exact(dim).take(5) {
            let (hits, walked) = index.search_explained(query, &GraphOptions::new(10)).expect("a query");
            prop_assert_eq!(hits.len(), 10);
            prop_assert!(hits.windows(2).all(|pair| (pair[0].distance, pair[0].id) < (pair[1].distance, pair[1].id)));
            prop_assert!(walked.scanned <= rows + 1 && walked.refined <= rows);
        }
        let again = GraphIndex::from_bytes(&aligned(&index.to_bytes().expect("bytes")), Verify::OnFirstUse);
        prop_assert!(again.expect("what was saved") == index);
    }
}

#[test]
fn both_layouts_find_as_much_and_can_be_changed_into_each_other() {
    let (dim, rows) = (80, 5000);
    let (vectors, queries) = rows_and_queries(3, rows, 50, dim);
    for (bits, originals) in KINDS {
        let compact = params(Metric::Cosine, bits, originals);
        let one = build(&vectors, dim, &compact);
        let mut two = build(&vectors, dim, &GraphParams { layout: Layout::Inline, ..compact });
        assert!(two.memory_bytes() > one.memory_bytes() && one != two);
        let truth = truths(Metric::Cosine, &vectors, dim, &queries, 10);
        let options = GraphOptions { ef: Some(30), ..GraphOptions::new(10) };
        let [compact, inline] = [&one, &two].map(|index| mean_recall(index, &queries, &truth, &options));
        assert!((compact - inline).abs() < 0.05, "{bits} bits: {compact} and {inline}");
        // How far to look was found with one layout or the other; the rest is the same.
        let (inline, bytes) = (two.clone(), two.memory_bytes());
        two.set_layout(Layout::Compact).expect("a whole index");
        assert!(two != inline && two.memory_bytes() < bytes);
        two.set_layout(Layout::Inline).expect("a whole index");
        assert!(two == inline);
    }
}

#[test]
fn builds_and_batches_are_the_same_on_any_number_of_threads() {
    let (dim, rows) = (40, 3000);
    let (vectors, queries) = rows_and_queries(4, rows, 37, dim);
    for (bits, originals) in KINDS {
        let params = GraphParams { layout: Layout::Inline, ..params(Metric::Cosine, bits, originals) };
        let change = |index: &mut GraphIndex| {
            index.remove(&(0..400).collect::<Vec<_>>()).expect("ids that are there");
            index.add(None, &queries, &Job::new()).expect("good vectors");
            index.update(&[700, 800], &vectors[..2 * dim]).expect("good vectors");
        };
        let index = build(&vectors, dim, &params);
        let bytes = index.to_bytes().expect("bytes");
        let mut changed = index.clone();
        change(&mut changed);
        let options = GraphOptions::new(7);
        let single: Vec<Vec<Hit>> = queries
            .chunks_exact(dim)
            .map(|query| index.search(query, &options).expect("a good query"))
            .collect();
        for threads in [1, 2, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| {
                let mut other = build(&vectors, dim, &params);
                assert!(other.to_bytes().expect("bytes") == bytes, "{bits} bits, {threads} threads");
                let batch = other.search_batch(&queries, &options, &Job::new()).expect("good queries");
                assert_eq!(batch, single, "{bits} bits, {threads} threads");
                change(&mut other);
                assert!(other == changed, "{bits} bits, {threads} threads");
            });
        }
    }
}

#[test]
fn hard_data_is_searched_like_any_other() {
    let mut random = Random::new(9);
    let one_hot: Vec<f32> =
        (0..3000).flat_map(|i| (0..50).map(move |d| f32::from(u8::from(d == i % 50)))).collect();
    let line: Vec<f32> = (1..=3000).map(|i| i as f32).collect();
    let circle: Vec<f32> =
        (0..3000).flat_map(|i| [(i as f32 / 400.0).cos(), (i as f32 / 400.0).sin()]).collect();
    let mut uneven = random.gaussians(50, 16);
    uneven.extend(random.gaussians(4000, 16).iter().map(|x| 0.01 * x + 3.0));
    let few = random.gaussians(10, 24);
    let duplicates = (0..4000).flat_map(|i| few[i % 10 * 24..][..24].to_vec()).collect();
    let mut outlier = random.gaussians(2500, 8);
    outlier.extend([3e4; 8]);
    let cases: [(&str, usize, Vec<f32>); 9] = [
        ("all equal", 24, [0.5, 1.0, 0.25].repeat(8 * 3000)),
        ("ten rows, again and again", 24, duplicates),
        ("one hot", 50, one_hot),
        ("one dimension", 1, line),
        ("two dimensions", 2, circle),
        ("4096 dimensions", 4096, random.gaussians(300, 4096)),
        ("uneven", 16, uneven),
        ("one row", 40, random.gaussians(1, 40)),
        ("an outlier", 8, outlier),
    ];
    for (name, dim, vectors) in cases {
        for (bits, originals) in KINDS {
            let index = build(&vectors, dim, &params(Metric::L2, bits, originals));
            let rows = vectors.len() / dim;
            let (mut same, mut asked) = (0, 0);
            for row in (0..rows).step_by(rows.div_ceil(40)) {
                let query = &vectors[row * dim..(row + 1) * dim];
                let hits = index.search(query, &GraphOptions::new(5)).expect("a query");
                assert_eq!(hits.len(), rows.min(5), "{name}, {bits} bits, {originals:?}");
                asked += 1;
                same += usize::from(hits[0].distance == 0.0);
                if originals == Some(Precision::F32) {
                    let exact = index.search(query, &asking(1, 1.0)).expect("a query");
                    assert_eq!(exact[0].distance, 0.0, "{name}, {bits} bits, row {row}");
                }
            }
            if originals == Some(Precision::F32) {
                assert!(same * 10 >= asked * 9, "{name}, {bits} bits: {same} of {asked}");
            }
            let mut all = ids(&index.search(&vectors[..dim], &GraphOptions::new(rows + 5)).expect("a query"));
            all.sort_unstable();
            assert!(all.into_iter().eq(0..rows as u64), "{name}, {bits} bits, {originals:?}");
        }
    }
}

#[test]
fn queries_of_another_law_than_the_rows_find_most_of_their_neighbours() {
    let (dim, rows) = (64, 12_000);
    let (vectors, _) = rows_and_queries(12, rows, 0, dim);
    let queries = Random::new(13).gaussians(100, dim);
    for metric in Metric::ALL {
        let truth = truths(metric, &vectors, dim, &queries, 10);
        let index = build(&vectors, dim, &params(metric, 4, Some(Precision::F16)));
        let found = mean_recall(&index, &queries, &truth, &asking(10, 0.95));
        assert!(found > 0.6, "{metric}: {found}");
        let wide = GraphOptions { ef: Some(1500), ..GraphOptions::new(10) };
        let found = mean_recall(&index, &queries, &truth, &wide);
        assert!(found > 0.99, "{metric}: {found}");
    }
}

#[test]
fn an_index_without_rows_can_be_made_saved_and_filled() {
    for (bits, originals) in KINDS {
        let mut index = build(&[], 16, &params(Metric::L2, bits, originals));
        assert!(index.is_empty() && index.ids().is_empty());
        let error = index.search(&[1.0; 16], &GraphOptions::new(3)).expect_err("no rows");
        assert_eq!(error.kind(), ErrorKind::EmptyIndex);
        let again = GraphIndex::from_bytes(&aligned(&index.to_bytes().expect("bytes")), Verify::Now);
        assert!(again.expect("what was saved") == index);
        index.remove(&[]).expect("nothing to do");
        index.set_layout(Layout::Inline).expect("a whole index");
        index.add(Some(&[7]), &[1.0; 16], &Job::new()).expect("a good vector");
        assert_eq!(ids(&index.search(&[1.0; 16], &GraphOptions::new(3)).expect("a query")), [7]);
        index.remove(&[7]).expect("an id that is there");
        assert!(index.is_empty());
        let vectors = Random::new(14).clustered(3000, 16, 10);
        index.add(None, &vectors, &Job::new()).expect("good vectors");
        assert_eq!(index.search(&vectors[..16], &GraphOptions::new(3)).expect("a query").len(), 3);
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let vectors = Random::new(3).gaussians(200, 16);
    let good = params(Metric::L2, 1, Some(Precision::F32));
    let index = build(&vectors, 16, &good);
    let codes = build(&vectors, 16, &GraphParams { originals: None, ..good.clone() });
    let job = Job::new();
    let building = |params: GraphParams| GraphIndex::build(&vectors, 16, None, &params, &job).map(|_| vec![]);
    let asking = |options: GraphOptions<'_>| index.search(&vectors[..16], &options);
    let one = || GraphOptions::new(1);
    let stopped = Job::new();
    stopped.cancel();
    use ErrorKind::{Cancelled, DimensionMismatch, DuplicateId, InvalidArgument};
    for (kind, word, result) in [
        (InvalidArgument, "bits", building(GraphParams { bits: 0, ..good.clone() })),
        (InvalidArgument, "bits", building(GraphParams { bits: 9, ..good.clone() })),
        (
            InvalidArgument,
            "degree must be 4 to 128, got 3",
            building(GraphParams { degree: 3, ..good.clone() }),
        ),
        (InvalidArgument, "degree", building(GraphParams { degree: 129, ..good.clone() })),
        (InvalidArgument, "k must", asking(GraphOptions::new(0))),
        (InvalidArgument, "ef must", asking(GraphOptions { ef: Some(0), ..one() })),
        (InvalidArgument, "recall", asking(GraphOptions { recall: Some(1.5), ..one() })),
        (InvalidArgument, "two ways", asking(GraphOptions { recall: Some(0.9), ef: Some(3), ..one() })),
        (InvalidArgument, "radius", asking(GraphOptions { radius: Some(f32::NAN), ..one() })),
        (
            InvalidArgument,
            "recall=1.0",
            codes.search(&vectors[..16], &GraphOptions { recall: Some(1.0), ..one() }),
        ),
        (DimensionMismatch, "16", index.search(&vectors[..15], &one())),
        (InvalidArgument, "finite", index.search(&[f32::NAN; 16], &one())),
        (InvalidArgument, "one bool for each", index.select_mask(&[true]).map(|_| vec![])),
        (Cancelled, "cancelled", GraphIndex::build(&vectors, 16, None, &good, &stopped).map(|_| vec![])),
        (DuplicateId, "twice", GraphIndex::build(&vectors, 16, Some(&[7; 200]), &good, &job).map(|_| vec![])),
    ] {
        let error = result.expect_err("a refusal");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn a_selection_is_kept_exactly_and_its_recall_does_not_fall_as_it_narrows() {
    let (dim, rows) = (64, 12_000);
    let (vectors, queries) = rows_and_queries(6, rows, 60, dim);
    let truth = truths(Metric::L2, &vectors, dim, &queries, 10);
    let mut random = Random::new(7);
    for (bits, originals) in KINDS {
        let index = build(&vectors, dim, &params(Metric::L2, bits, originals));
        let of_all = mean_recall(&index, &queries, &truth, &GraphOptions::new(10));
        // At random, and those of one side of space, where queries may be far from all.
        let masks = [0.9, 0.5, 0.2, 0.1, 0.01, 0.001, 0.0]
            .map(|share| (0..rows).map(|_| random.uniform() < share).collect::<Vec<bool>>())
            .into_iter()
            .chain([0.0, 1.2, 2.5].map(|side| vectors.chunks_exact(dim).map(|row| row[0] > side).collect()));
        for mask in masks {
            let allowed: Vec<u64> =
                (0..).zip(&mask).filter(|(_, allowed)| **allowed).map(|(id, _)| id).collect();
            let others: Vec<u64> =
                (0..).zip(&mask).filter(|(_, allowed)| !**allowed).map(|(id, _)| id).collect();
            let by_mask = index.select_mask(&mask).expect("a mask of the right length");
            assert_eq!(by_mask, index.select_ids(&allowed));
            assert_eq!(by_mask, index.select_all_but(&others));
            let kept: Vec<(u64, Vec<f32>)> = allowed
                .iter()
                .map(|&id| (id, vectors[id as usize * dim..(id as usize + 1) * dim].to_vec()))
                .collect();
            let mut found = 0.0;
            for query in queries.chunks_exact(dim) {
                let options = GraphOptions { selection: Some(&by_mask), ..GraphOptions::new(10) };
                let hits = index.search(query, &options).expect("a good query");
                assert_eq!(hits.len(), allowed.len().min(10), "{bits} bits, {} allowed", allowed.len());
                assert!(hits.iter().all(|hit| allowed.binary_search(&hit.id).is_ok()));
                let truth = nearest_of(Metric::L2, &kept, query, 10);
                found += if truth.is_empty() { 1.0 } else { recall(&ids(&hits), &truth) };
            }
            if originals.is_some() {
                let found = found / 60.0;
                assert!(
                    found > 0.92_f64.min(of_all - 0.02),
                    "{bits} bits, {} allowed: {found}",
                    allowed.len()
                );
            }
        }
    }
}

#[test]
fn a_radius_keeps_what_is_beyond_it_out_and_finds_what_is_within() {
    let (dim, rows) = (64, 8000);
    let (vectors, queries) = rows_and_queries(16, rows, 20, dim);
    for metric in Metric::ALL {
        let index = build(&vectors, dim, &params(metric, 4, Some(Precision::F32)));
        let (mut found, mut all) = (0, 0);
        for query in queries.chunks_exact(dim) {
            let truth = nearest(metric, &vectors, dim, query, 60);
            let radius = truth[40].1 as f32;
            let options = GraphOptions { radius: Some(radius), ..GraphOptions::new(1000) };
            let hits = index.search(query, &options).expect("a query");
            assert!(hits.iter().all(|hit| hit.distance <= radius), "{metric}");
            found += hits.len();
            all += 41;
            let nothing = GraphOptions { radius: Some(-1e9), ..GraphOptions::new(3) };
            assert_eq!(index.search(query, &nothing).expect("a query"), []);
        }
        assert!(found * 100 > all * 93, "{metric}: {found} of {all}");
    }
}

/// Does the same with a graph and with a plain list of rows.
struct Both {
    index: GraphIndex,
    rows: Vec<(u64, Vec<f32>)>,
}

impl Both {
    fn check(&self, step: &str) {
        assert_eq!(self.index.ids(), self.rows.iter().map(|(id, _)| *id).collect::<Vec<_>>(), "{step}");
        let Some((_, query)) = self.rows.first() else { return };
        let all = GraphOptions { ef: Some(u32::MAX), ..GraphOptions::new(self.rows.len()) };
        let mut hits = ids(&self.index.search(query, &all).expect("a query"));
        hits.sort_unstable();
        let mut expected = self.index.ids();
        expected.sort_unstable();
        assert_eq!(hits, expected, "{step}: every row once");
        let truth = nearest_of(self.index.metric(), &self.rows, query, 10);
        for options in [GraphOptions::new(10), GraphOptions { ef: Some(100), ..GraphOptions::new(10) }] {
            let found = recall(&ids(&self.index.search(query, &options).expect("a query")), &truth);
            assert!(found >= 0.7, "{step}: {found}");
        }
        let bytes = self.index.to_bytes().expect("bytes");
        let again = GraphIndex::from_bytes(&aligned(&bytes), Verify::Now).expect("what was saved");
        assert!(again == self.index, "{step}");
    }

    fn remove(&mut self, places: &[usize]) {
        let ids: Vec<u64> = places.iter().map(|&place| self.rows[place].0).collect();
        self.index.remove(&ids).expect("ids that are there");
        for id in ids {
            let place = self.rows.iter().position(|(other, _)| *other == id).expect("a row");
            self.rows.swap_remove(place);
        }
    }
}

#[test]
fn any_run_of_changes_agrees_with_a_plain_list_of_rows() {
    let dim = 24;
    for (seed, metric) in (50..).zip(Metric::ALL) {
        for (bits, originals, layout) in
            [(1, Precision::F32, Layout::Compact), (4, Precision::F16, Layout::Inline)]
        {
            let mut random = Random::new(seed);
            let vectors = random.clustered(2500, dim, 12);
            let index =
                build(&vectors, dim, &GraphParams { layout, ..params(metric, bits, Some(originals)) });
            let rows = (0..).zip(vectors.chunks_exact(dim).map(<[f32]>::to_vec)).collect();
            let mut both = Both { index, rows };
            both.check("built");
            for step in 0..14 {
                let some = |random: &mut Random, both: &Both, count: usize| {
                    let mut places: Vec<usize> = (0..both.rows.len()).collect();
                    for i in (1..places.len()).rev() {
                        places.swap(i, random.below(i + 1));
                    }
                    places.truncate(count);
                    places
                };
                match random.below(3) {
                    0 => {
                        let count = 1 + random.below(if step % 5 == 0 { 2000 } else { 60 });
                        // Some come far from all, and much longer.
                        let longer = if step == 9 { 100.0 } else { 1.0 };
                        let new: Vec<f32> =
                            random.clustered(count, dim, 3).iter().map(|x| longer * x).collect();
                        both.index.add(None, &new, &Job::new()).expect("good vectors");
                        let first = both.rows.iter().map(|(id, _)| id + 1).max().unwrap_or(0);
                        both.rows.extend((first..).zip(new.chunks_exact(dim).map(<[f32]>::to_vec)));
                    }
                    1 => {
                        let count = 1 + random.below(if step % 4 == 0 { 900 } else { 40 });
                        let places = some(&mut random, &both, count);
                        both.remove(&places);
                    }
                    _ => {
                        let places = some(&mut random, &both, 100);
                        let ids: Vec<u64> = places.iter().map(|&place| both.rows[place].0).collect();
                        let new = random.clustered(ids.len(), dim, 4);
                        both.index.update(&ids, &new).expect("good vectors");
                        for (place, vector) in places.into_iter().zip(new.chunks_exact(dim)) {
                            both.rows[place].1 = vector.to_vec();
                        }
                    }
                }
                both.check(&format!("{metric}, {bits} bits, step {step}"));
            }
            let all: Vec<usize> = (0..both.rows.len()).collect();
            both.remove(&all);
            both.check("without rows");
            both.index.add(None, &vectors, &Job::new()).expect("good vectors");
            both.rows = (0..).zip(vectors.chunks_exact(dim).map(<[f32]>::to_vec)).collect();
            both.check("filled again");
        }
    }
}

#[test]
fn recall_holds_while_a_fifth_of_the_rows_is_replaced_ten_times() {
    let (dim, rows) = (64, 8000);
    let mut random = Random::new(60);
    // What is new comes from elsewhere: clusters that were not there when the graph was built.
    let laws: Vec<Vec<f32>> = (0..11).map(|_| random.clustered(rows, dim, 40)).collect();
    for (bits, originals) in [(4, Precision::F16), (1, Precision::F32)] {
        let params = params(Metric::L2, bits, Some(originals));
        let mut index = build(&laws[0], dim, &params);
        let mut now: Vec<(u64, Vec<f32>)> =
            (0..).zip(laws[0].chunks_exact(dim).map(<[f32]>::to_vec)).collect();
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
        let fresh =
            GraphIndex::build(&vectors, dim, Some(&numbers), &params, &Job::new()).expect("good vectors");
        let queries: Vec<f32> =
            (0..200).flat_map(|i| laws[1 + i % 10][(rows / 5 + i) * dim..][..dim].to_vec()).collect();
        let truth: Vec<_> =
            queries.chunks_exact(dim).map(|query| nearest_of(Metric::L2, &now, query, 10)).collect();
        // What a recall takes is found out anew for each, on rows at random: that differs by a step of the pools.
        let at_length = GraphOptions { ef: Some(48), ..GraphOptions::new(10) };
        for (options, least) in [(at_length, 0.01), (GraphOptions::new(10), 0.02)] {
            let old = mean_recall(&index, &queries, &truth, &options);
            let new = mean_recall(&fresh, &queries, &truth, &options);
            assert!(
                old > new - least,
                "{bits} bits, {:?}: {old} after changes, {new} built anew",
                options.ef
            );
        }
    }
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
    // Stopped on the way: as few as are linked one by one, and so many that all is built anew.
    for rows in [1400, 20_000] {
        let long = Random::new(23).gaussians(rows, dim);
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
        assert_eq!(index.ids(), before.ids());
        assert_eq!(index.vectors_of(&[0, 2999]).ok(), before.vectors_of(&[0, 2999]).ok());
        let query = &vectors[..dim];
        let options = asking(10, 1.0);
        assert_eq!(index.search(query, &options).ok(), before.search(query, &options).ok());
        assert_eq!(ids(&index.search(query, &GraphOptions::new(1)).expect("a query")), [0]);
    }
}

#[test]
fn an_index_that_was_built_apart_is_merged_and_all_rows_are_found() {
    let dim = 40;
    let mut random = Random::new(80);
    for (mine, theirs) in [(700, 900), (2500, 600)] {
        let (mine, theirs) = (random.clustered(mine, dim, 20), random.clustered(theirs, dim, 20));
        let their_ids: Vec<u64> = (10_000..10_000 + (theirs.len() / dim) as u64).collect();
        for metric in Metric::ALL {
            let index = build(&mine, dim, &params(metric, 4, Some(Precision::F32)));
            let kept = GraphParams { seed: 9, ..params(metric, 1, Some(Precision::F32)) };
            let other =
                GraphIndex::build(&theirs, dim, Some(&their_ids), &kept, &Job::new()).expect("good vectors");
            let rows = (0..).zip(mine.chunks_exact(dim).map(<[f32]>::to_vec)).collect();
            let mut both = Both { index, rows };
            let job = Job::new();
            both.index.merge(&other, &job).expect("an index of the same kind");
            both.rows.extend(their_ids.iter().copied().zip(theirs.chunks_exact(dim).map(<[f32]>::to_vec)));
            both.check(&format!("{metric}"));
            let before = both.index.clone();
            for (kind, word, other) in [
                (ErrorKind::DuplicateId, "id ", other.clone()),
                (ErrorKind::DimensionMismatch, "40", build(&theirs, dim / 2, &kept)),
                (
                    ErrorKind::InvalidArgument,
                    "metric",
                    build(&theirs, dim, &params(Metric::ALL[usize::from(metric == Metric::ALL[0])], 1, None)),
                ),
                (ErrorKind::NoOriginals, "originals", build(&theirs, dim, &params(metric, 8, None))),
            ] {
                let error = both.index.merge(&other, &Job::new()).expect_err("a refusal");
                assert_eq!(error.kind(), kind, "{error}");
                assert!(error.to_string().contains(word), "{error}");
                assert!(both.index == before, "{error}");
            }
        }
    }
}

#[test]
fn memory_is_given_back() {
    let (dim, rows) = (64, 12_000);
    let vectors = Random::new(23).clustered(rows, dim, 100);
    for layout in [Layout::Compact, Layout::Inline] {
        let params = GraphParams { layout, ..params(Metric::L2, 4, Some(Precision::F32)) };
        let mut index = build(&vectors, dim, &params);
        let full = index.memory_bytes();
        index.remove(&(0..9_000).collect::<Vec<_>>()).expect("ids that are there");
        assert!(index.memory_bytes() < full / 2 + 3000 * 32, "{} of {full}", index.memory_bytes());
    }
}

#[test]
fn a_build_counts_its_rows_once_and_stops_wherever_it_is_told() {
    let (dim, rows) = (64, 20_000);
    let vectors = Random::new(82).clustered(rows, dim, 100);
    let params = params(Metric::L2, 4, Some(Precision::F16));
    let job = Job::new();
    GraphIndex::build(&vectors, dim, None, &params, &job).expect("good vectors");
    assert_eq!(job.done(), rows as u64);
    for percent in [0, 10, 60, 90] {
        let job = Arc::new(Job::new());
        let stopper = std::thread::spawn({
            let job = job.clone();
            move || {
                while job.done() * 100 < rows as u64 * percent {
                    std::thread::yield_now();
                }
                job.cancel();
            }
        });
        let error = GraphIndex::build(&vectors, dim, None, &params, &job).expect_err("it was stopped");
        stopper.join().expect("a thread");
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{percent} %");
    }
}

#[test]
fn a_walk_follows_few_rows_and_tells_how_many() {
    let (dim, rows) = (64, 20_000);
    let (vectors, queries) = rows_and_queries(5, rows, 50, dim);
    let index = build(&vectors, dim, &params(Metric::L2, 4, Some(Precision::F16)));
    let mut before = Walked::default();
    for ef in [10, 40, 120] {
        let mut total = Walked::default();
        for query in queries.chunks_exact(dim) {
            let options = GraphOptions { ef: Some(ef), ..GraphOptions::new(10) };
            let (_, walked) = index.search_explained(query, &options).expect("a query");
            total.followed += walked.followed;
            total.scanned += walked.scanned;
            total.refined += walked.refined;
        }
        assert!(total.followed > before.followed && total.scanned > before.scanned, "ef {ef}");
        assert!(total.scanned < 50 * rows && total.refined <= total.scanned, "ef {ef}: {total:?}");
        before = total;
    }
}

/// Enough rows for efforts, which files keep.
fn small(bits: u8, originals: Option<Precision>, metric: Metric, layout: Layout) -> GraphIndex {
    let vectors = Random::new(30).clustered(2100, 40, 5);
    let ids: Vec<u64> = (0..2100).map(|i| i * 3 + (1 << 40)).collect();
    let params = GraphParams { degree: 12, seed: 7, layout, ..params(metric, bits, originals) };
    let mut index = GraphIndex::build(&vectors, 40, Some(&ids), &params, &Job::new()).expect("good vectors");
    index.remove(&[(1 << 40) + 6]).expect("an id that is there");
    index
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
    let path = std::env::temp_dir().join(format!("limnion-graph-{}.limn", std::process::id()));
    let query = Random::new(31).clustered(1, 40, 5);
    for (number, (bits, originals)) in KINDS.into_iter().enumerate() {
        for layout in [Layout::Compact, Layout::Inline] {
            {
                let metric = Metric::ALL[number % 3];
                let index = small(bits, originals, metric, layout);
                index.save(&path).expect("a writable folder");
                let bytes = std::fs::read(&path).expect("a file");
                assert!(GraphIndex::is_file(&bytes));
                let loaded = GraphIndex::load(&path).expect("what was saved");
                let mut mapped =
                    GraphIndex::from_bytes(&aligned(&bytes), Verify::OnFirstUse).expect("what was saved");
                assert!(loaded == index && mapped == index);
                assert_eq!(loaded.params(), index.params());
                let options = GraphOptions { ef: Some(9), ..GraphOptions::new(8) };
                for options in [GraphOptions::new(8), options] {
                    let hits = index.search(&query, &options).expect("a query");
                    assert_eq!(loaded.search(&query, &options).expect("a query"), hits);
                    assert_eq!(mapped.search(&query, &options).expect("a query"), hits);
                }
                mapped.remove(&[1 << 40]).expect("an id that is there");
                mapped.add(None, &[0.5; 40], &Job::new()).expect("a good vector");
                assert_eq!(mapped.len(), 2099);
                let error = FlatIndex::load(&path, &Job::new()).expect_err("another kind");
                assert!(error.to_string().contains("GraphIndex"), "{error}");
                let error = IvfIndex::load(&path).expect_err("another kind");
                assert!(error.to_string().contains("GraphIndex"), "{error}");
            }
        }
    }
    std::fs::remove_file(&path).expect("a file");
    assert_eq!(GraphIndex::load(&path).expect_err("no file").kind(), ErrorKind::FileNotFound);
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let query = Random::new(33).clustered(1, 40, 5);
    for (bits, originals) in KINDS {
        let index = small(bits, originals, Metric::Cosine, Layout::Inline);
        let bytes = index.to_bytes().expect("bytes");
        let hits = index.search(&query, &GraphOptions::new(5)).expect("a query");
        let mut random = Random::new(32);
        for _ in 0..100 {
            let mut damaged = bytes.clone();
            let at = random.below(bytes.len());
            damaged[at] ^= 1 << random.below(8);
            match GraphIndex::from_bytes(&aligned(&damaged), Verify::Now) {
                // Zeros between sections carry nothing.
                Ok(opened) => assert!(opened == index, "byte {at}"),
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::CorruptFile | ErrorKind::NewerFile),
                    "byte {at}: {error}"
                ),
            }
            if let Ok(opened) = GraphIndex::from_bytes(&aligned(&damaged), Verify::OnFirstUse) {
                match opened.search(&query, &GraphOptions::new(5)) {
                    Ok(found) => assert_eq!(found, hits, "byte {at}"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::CorruptFile, "byte {at}"),
                }
            }
            let cut = aligned(&bytes[..random.below(bytes.len())]);
            let error = GraphIndex::from_bytes(&cut, Verify::Now).expect_err("a cut file");
            assert_eq!(error.kind(), ErrorKind::CorruptFile);
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
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_file_breaks_anything_or_makes_an_index_far_larger_than_itself(
        kind in 0_usize..6,
        inline in any::<bool>(),
        damages in prop::collection::vec(damage(), 1..4),
    ) {
        static FILES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
        let files = FILES.get_or_init(|| {
            let kinds = KINDS.iter().flat_map(|&(bits, originals)| {
                [Layout::Compact, Layout::Inline]
                    .map(|layout| small(bits, originals, Metric::ALL[usize::from(bits) % 3], layout))
            });
            kinds.map(|index| index.to_bytes().expect("bytes")).collect()
        });
        let mut bytes = files[kind * 2 + usize::from(inline)].clone();
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
            let mut opened = match GraphIndex::from_bytes(&aligned(&bytes), verify) {
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
                GraphOptions::new(5),
                GraphOptions { ef: Some(3), ..GraphOptions::new(700) },
                GraphOptions { radius: Some(0.5), ..GraphOptions::new(9) },
                GraphOptions { selection: Some(&opened.select_ids(&[1 << 40, (1 << 40) + 3])), ..GraphOptions::new(9) },
            ] {
                let _ = opened.search(&query, &options);
            }
            let _ = opened.add(None, &query, &Job::new());
            let _ = opened.remove(&[1 << 40, (1 << 40) + 3]);
            let _ = opened.update(&[(1 << 40) + 9], &query);
            let _ = opened.set_layout(Layout::Inline);
            let _ = opened.to_bytes();
        }
    }
}
