//! Binary vectors, against a naive count of bits.

use std::sync::Arc;

use limnion_index::{FlatIndex, HammingIndex, HammingOptions, Params, Source, Verify};
use limnion_testkit::Random;
use limnion_types::{ErrorKind, Hit, Job, Metric};
use proptest::prelude::*;

fn random_bytes(random: &mut Random, count: usize) -> Vec<u8> {
    (0..count).map(|_| random.bits() as u8).collect()
}

fn differing(a: &[u8], b: &[u8]) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

/// The nearest of some rows, by a sort of all of them.
fn nearest(rows: &[(u64, Vec<u8>)], query: &[u8], k: usize) -> Vec<(u64, f32)> {
    let mut all: Vec<_> = rows.iter().map(|(id, row)| (differing(row, query), *id)).collect();
    all.sort_unstable();
    all.into_iter().take(k).map(|(bits, id)| (id, bits as f32)).collect()
}

fn found(hits: &[Hit]) -> Vec<(u64, f32)> {
    hits.iter().map(|hit| (hit.id, hit.distance)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_run_of_changes_leaves_an_index_that_agrees_with_a_naive_count(
        seed in any::<u64>(), width in 1_usize..70, rows in 0_usize..600, k in 1_usize..20,
    ) {
        let mut random = Random::new(seed);
        let first = random_bytes(&mut random, rows * width);
        let mut index = HammingIndex::build(&first, width, None, &Job::new()).expect("good rows");
        let mut oracle: Vec<(u64, Vec<u8>)> =
            (0..).zip(first.chunks_exact(width).map(<[u8]>::to_vec)).collect();
        for step in 0..40_u64 {
            let vector = random_bytes(&mut random, width);
            match random.below(3) {
                0 => {
                    index.add(Some(&[10_000 + step]), &vector, &Job::new()).expect("a new id");
                    oracle.push((10_000 + step, vector));
                }
                1 if !oracle.is_empty() => {
                    let row = random.below(oracle.len());
                    index.remove(&[oracle.swap_remove(row).0]).expect("an id that is there");
                }
                _ if !oracle.is_empty() => {
                    let row = random.below(oracle.len());
                    index.update(&[oracle[row].0], &vector).expect("an id that is there");
                    oracle[row].1 = vector;
                }
                _ => {}
            }
        }
        prop_assert_eq!(index.ids(), oracle.iter().map(|row| row.0).collect::<Vec<_>>());
        if oracle.is_empty() {
            return Ok(());
        }
        let queries = random_bytes(&mut random, 37 * width);
        let batch = index.search_batch(&queries, &HammingOptions::new(k), &Job::new()).expect("queries");
        for (query, hits) in queries.chunks_exact(width).zip(batch) {
            prop_assert_eq!(found(&hits), nearest(&oracle, query, k));
            prop_assert_eq!(&index.search(query, &HammingOptions::new(k)).expect("a query"), &hits);
        }
        let query = &queries[..width];
        let allowed: Vec<(u64, Vec<u8>)> = oracle.iter().filter(|(id, _)| id % 3 == 0).cloned().collect();
        let selection = index.select_ids(&allowed.iter().map(|row| row.0).collect::<Vec<_>>());
        let options = HammingOptions { selection: Some(&selection), ..HammingOptions::new(k) };
        prop_assert_eq!(found(&index.search(query, &options).expect("a query")), nearest(&allowed, query, k));
        let radius = 4.0 * width as f32;
        let options = HammingOptions { radius: Some(radius), ..HammingOptions::new(usize::MAX) };
        let mut within = nearest(&oracle, query, usize::MAX);
        within.retain(|(_, distance)| *distance <= radius);
        prop_assert_eq!(found(&index.search(query, &options).expect("a query")), within);

        let source: Source = Arc::new(index.to_bytes().expect("bytes"));
        for verify in [Verify::Now, Verify::OnFirstUse] {
            prop_assert!(HammingIndex::from_bytes(&source, verify).expect("what was saved") == index);
        }
    }
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let kind = |result: Result<Vec<Hit>, limnion_types::Error>| result.expect_err("a mistake").kind();
    let mut index = HammingIndex::build(&[1, 2, 3, 4], 2, None, &Job::new()).expect("good rows");
    assert_eq!(kind(index.search(&[1], &HammingOptions::new(1))), ErrorKind::DimensionMismatch);
    assert_eq!(kind(index.search(&[1, 2], &HammingOptions::new(0))), ErrorKind::InvalidArgument);
    assert_eq!(
        index.add(Some(&[0]), &[1, 2], &Job::new()).expect_err("a used id").kind(),
        ErrorKind::DuplicateId
    );
    assert_eq!(index.remove(&[1, 7]).expect_err("no such id").kind(), ErrorKind::IdNotFound);
    let wide = HammingIndex::build(&[1, 2, 3], 3, Some(&[9]), &Job::new()).expect("good rows");
    assert_eq!(index.merge(&wide, &Job::new()).expect_err("wider").kind(), ErrorKind::DimensionMismatch);
    assert_eq!(index.ids(), [0, 1]);
    let other = HammingIndex::build(&[9, 9], 2, Some(&[9]), &Job::new()).expect("good rows");
    index.merge(&other, &Job::new()).expect("new ids");
    assert_eq!(index.vector(9).expect("a row"), [9, 9]);
    index.remove(&[0, 1, 9]).expect("all of them");
    assert_eq!(kind(index.search(&[1, 2], &HammingOptions::new(1))), ErrorKind::EmptyIndex);
    for width in [0, 8193] {
        let error = HammingIndex::build(&[], width, None, &Job::new()).expect_err("no width");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}

#[test]
fn damage_in_a_file_is_an_error_wherever_it_is() {
    let rows = random_bytes(&mut Random::new(3), 40 * 6);
    let ids: Vec<u64> = (100..140).collect();
    let index = HammingIndex::build(&rows, 6, Some(&ids), &Job::new()).expect("good rows");
    let bytes = index.to_bytes().expect("bytes");
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x41;
        let source: Source = Arc::new(damaged);
        // Between sections lie zeros, which nobody reads.
        let opened = HammingIndex::from_bytes(&source, Verify::Now);
        assert!(opened.is_err() || opened.is_ok_and(|opened| opened == index), "byte {at}");
        let source: Source = Arc::new(bytes[..at].to_vec());
        assert!(HammingIndex::from_bytes(&source, Verify::OnFirstUse).is_err(), "{at} bytes");
    }
    let flat = FlatIndex::build(&[0.0; 8], 4, None, &Params::new(Metric::L2), &Job::new()).expect("rows");
    let source: Source = Arc::new(flat.to_bytes().expect("bytes"));
    let error = HammingIndex::from_bytes(&source, Verify::Now).expect_err("another index");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let error = FlatIndex::from_bytes(&(Arc::new(bytes) as Source), Verify::Now).expect_err("another index");
    assert!(error.suggestion().is_some_and(|hint| hint.contains("HammingIndex")));
}
