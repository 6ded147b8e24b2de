//! Indexes built apart become one; rows are found by their ids, or never.
#![expect(clippy::expect_used, reason = "a test may stop at what it did not expect")]

use limnion_index::{
    Exclusion, FlatIndex, IvfIndex, IvfOptions, IvfParams, Params, Precision, SearchOptions,
};
use limnion_testkit::Random;
use limnion_types::{ErrorKind, Hit, Job, Metric};

const DIM: usize = 48;

fn build(vectors: &[f32], first: u64, params: &Params) -> FlatIndex {
    let ids: Vec<u64> = (first..).take(vectors.len() / DIM).collect();
    FlatIndex::build(vectors, DIM, Some(&ids), params, &Job::new()).expect("good vectors")
}

fn ids(hits: &[Hit]) -> Vec<u64> {
    hits.iter().map(|hit| hit.id).collect()
}

#[test]
fn a_merged_index_holds_the_rows_of_both_and_finds_them() {
    for metric in Metric::ALL {
        for (bits, originals, theirs) in [
            (0, Some(Precision::F32), Some(Precision::F16)),
            (1, Some(Precision::F16), Some(Precision::F32)),
            (4, Some(Precision::F32), Some(Precision::F32)),
            (4, None, Some(Precision::F32)),
        ] {
            let mut random = Random::new(1);
            let (mine, others) = (random.clustered(700, DIM, 9), random.clustered(9000, DIM, 9));
            let params = Params { bits, originals, ..Params::new(metric) };
            let mut index = build(&mine, 0, &params);
            let other =
                build(&others, 5000, &Params { bits: 1, originals: theirs, seed: 9, ..params.clone() });
            let job = Job::new();
            index.merge(&other, &job).expect("new ids");
            assert_eq!((index.len(), job.done()), (9700, 9000));
            let mut added = build(&mine, 0, &params);
            // What was kept in half precision is merged as it was kept.
            let kept: Vec<f32> = other.vectors_of(&other.ids()).expect("originals");
            added.add(Some(&other.ids()), &kept, &Job::new()).expect("new ids");
            assert!(index == added);
        }
    }
}

#[test]
fn codes_without_originals_merge_where_their_quantizers_are_one() {
    for bits in [1, 3] {
        let vectors = Random::new(2).clustered(500, DIM, 9);
        let params = Params { bits, originals: None, ..Params::new(Metric::Cosine) };
        let whole = build(&vectors, 0, &params);
        let (mut one, mut two) = (whole.clone(), whole.clone());
        one.remove(&(300..500).rev().collect::<Vec<_>>()).expect("ids that are there");
        two.remove(&(0..300).collect::<Vec<_>>()).expect("ids that are there");
        one.merge(&two, &Job::new()).expect("the same quantizer");
        // What is found by less sure bounds depends on the order of rows.
        let options = SearchOptions { recall: (bits > 1).then_some(0.999_99), ..SearchOptions::new(20) };
        for query in vectors.chunks_exact(DIM).take(20) {
            let (merged, expected) = (one.search(query, &options), whole.search(query, &options));
            assert_eq!(merged.expect("a query"), expected.expect("a query"));
        }
        let other = build(&vectors[..DIM * 100], 9000, &params);
        let error = one.merge(&other, &Job::new()).expect_err("another mean");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(one.len(), 500);
    }
}

#[test]
fn what_cannot_be_merged_leaves_the_index_as_it_was() {
    let vectors = Random::new(3).gaussians(200, DIM);
    let params = Params { bits: 1, ..Params::new(Metric::L2) };
    let mut index = build(&vectors, 0, &params);
    let before = index.clone();
    let codes = build(&vectors, 1000, &Params { originals: None, ..params.clone() });
    let other_metric = build(&vectors, 1000, &Params::new(Metric::Cosine));
    let cancelled = Job::new();
    cancelled.cancel();
    let cases = [
        (build(&vectors, 100, &params), Job::new(), ErrorKind::DuplicateId),
        (codes, Job::new(), ErrorKind::NoOriginals),
        (other_metric, Job::new(), ErrorKind::InvalidArgument),
        (build(&vectors, 1000, &params), cancelled, ErrorKind::Cancelled),
    ];
    for (other, job, kind) in cases {
        assert_eq!(index.merge(&other, &job).expect_err("a mistake").kind(), kind);
        assert!(index == before, "{kind:?}");
    }
    let thin = FlatIndex::build(&vectors[..8], 4, None, &params, &Job::new()).expect("good vectors");
    assert_eq!(index.merge(&thin, &Job::new()).expect_err("thin").kind(), ErrorKind::DimensionMismatch);
}

#[test]
fn a_row_leads_to_its_neighbours_whether_or_not_its_vector_is_kept() {
    let vectors = Random::new(4).clustered(3000, DIM, 40);
    for metric in Metric::ALL {
        for bits in [1, 4, 8] {
            for originals in [None, Some(Precision::F32)] {
                let params = Params { bits, originals, ..Params::new(metric) };
                let flat = build(&vectors, 0, &params);
                let lists = IvfParams { bits, originals, lists: Some(20), ..IvfParams::new(metric) };
                let lists = IvfIndex::build(&vectors, DIM, None, &lists, &Job::new()).expect("good vectors");
                let mut same = [0.0; 2];
                for id in (0..3000).step_by(100) {
                    let vector = &vectors[id * DIM..(id + 1) * DIM];
                    let truth = ids(&flat.search(vector, &SearchOptions::new(10)).expect("a query"));
                    let told = [flat.reconstruct(id as u64), lists.reconstruct(id as u64)];
                    for (same, told) in same.iter_mut().zip(told) {
                        let told = told.expect("a row");
                        let hits = flat.search(&told, &SearchOptions::new(10)).expect("a query");
                        *same += ids(&hits).iter().filter(|id| truth.contains(id)).count() as f64 / 300.0;
                    }
                }
                let floor = if originals.is_some() {
                    0.9999
                } else {
                    [0.0, 0.45, 0.0, 0.0, 0.8, 0.0, 0.0, 0.0, 0.9][usize::from(bits)]
                };
                assert!(same.iter().all(|same| *same >= floor), "{metric} {bits} {originals:?}: {same:?}");
            }
        }
    }
}

#[test]
fn k_hits_come_though_others_are_excluded_few_or_many() {
    let vectors = Random::new(5).clustered(2000, DIM, 10);
    let params = Params { bits: 1, ..Params::new(Metric::L2) };
    let (flat, lists) = (
        build(&vectors, 0, &params),
        IvfIndex::build(&vectors, DIM, None, &IvfParams::new(Metric::L2), &Job::new()).expect("good vectors"),
    );
    let query = &vectors[..DIM];
    let options = SearchOptions { recall: Some(1.0), ..SearchOptions::new(2000) };
    let all = ids(&flat.search(query, &options).expect("a query"));
    for count in [0, 1, 7, 1990] {
        let exclusion = Exclusion::new(all[..count].iter().copied().chain([1 << 50]).collect());
        let expected = &all[count..count + 10];
        let (one, two) = (flat.select_all_but(exclusion.ids()), lists.select_all_but(exclusion.ids()));
        let wide = exclusion.widened(10);
        let of_flat = [
            flat.search(query, &SearchOptions { k: wide, ..options }),
            flat.search(query, &SearchOptions { k: 10, selection: Some(&one), ..options }),
        ];
        let exact = IvfOptions { recall: Some(1.0), ..IvfOptions::new(wide) };
        let of_lists = [
            lists.search(query, &exact),
            lists.search(query, &IvfOptions { k: 10, selection: Some(&two), ..exact }),
        ];
        for hits in of_flat.into_iter().chain(of_lists) {
            let hits = exclusion.narrowed(hits.expect("a query"), 10);
            assert_eq!(ids(&hits), expected, "{count}");
        }
    }
    assert_eq!(Exclusion::new(vec![1]).widened(0), 0);
}
