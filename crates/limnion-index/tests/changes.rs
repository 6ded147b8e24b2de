//! Rows that come, change and go.

use limnion_index::{FlatIndex, Params, Precision, SearchOptions};
use limnion_testkit::{Random, nearest};
use limnion_types::{ErrorKind, Job, Metric};

fn params(bits: u8, originals: Option<Precision>, metric: Metric) -> Params {
    Params { bits, originals, ..Params::new(metric) }
}

#[test]
fn any_run_of_changes_leaves_what_a_plain_list_holds() {
    let dim = 48;
    for (bits, metric) in [(0, Metric::L2), (1, Metric::Cosine), (3, Metric::InnerProduct)] {
        let mut random = Random::new(20);
        let params = params(bits, Some(Precision::F32), metric);
        let first = random.gaussians(100, dim);
        let mut index = FlatIndex::build(&first, dim, None, &params, &Job::new()).expect("good vectors");
        let mut rows: Vec<(u64, Vec<f32>)> =
            (0..).zip(first.chunks_exact(dim).map(<[f32]>::to_vec)).collect();
        for step in 0..400_u64 {
            match random.below(4) {
                0 | 1 => {
                    let vector = random.gaussians(1, dim);
                    index.add(Some(&[1000 + step]), &vector, &Job::new()).expect("a new id");
                    rows.push((1000 + step, vector));
                }
                2 if !rows.is_empty() => {
                    let row = random.below(rows.len());
                    index.remove(&[rows[row].0]).expect("an id that is there");
                    rows.swap_remove(row);
                }
                _ if !rows.is_empty() => {
                    let row = random.below(rows.len());
                    rows[row].1 = random.gaussians(1, dim);
                    index.update(&[rows[row].0], &rows[row].1).expect("an id that is there");
                }
                _ => {}
            }
        }
        assert_eq!(index.ids(), rows.iter().map(|row| row.0).collect::<Vec<_>>());
        let flat: Vec<f32> = rows.iter().flat_map(|row| row.1.clone()).collect();
        for _ in 0..20 {
            let query = random.gaussians(1, dim);
            let options = SearchOptions { recall: (bits > 0).then_some(0.9999), ..SearchOptions::new(5) };
            let found: Vec<u64> =
                index.search(&query, &options).expect("a query").iter().map(|hit| hit.id).collect();
            let truth: Vec<u64> =
                nearest(metric, &flat, dim, &query, 5).iter().map(|(row, _)| rows[*row as usize].0).collect();
            assert_eq!(found, truth, "{bits} bits");
        }
        for (id, vector) in &rows {
            assert_eq!(&index.vector(*id).expect("originals"), vector);
        }
    }
}

#[test]
fn codes_after_changes_are_the_codes_of_a_fresh_build() {
    let (dim, n) = (64, 300);
    let vectors = Random::new(21).gaussians(n, dim);
    let params = params(4, None, Metric::L2);
    let whole = FlatIndex::build(&vectors, dim, None, &params, &Job::new()).expect("good vectors");
    // Away and back again: the same rows in the same places.
    let mut changed = whole.clone();
    changed.remove(&[n as u64 - 1, n as u64 - 2]).expect("ids that are there");
    changed.add(None, &vectors[(n - 2) * dim..], &Job::new()).expect("good vectors");
    changed.update(&[7], &vectors[9 * dim..10 * dim]).expect("an id that is there");
    assert!(changed != whole);
    changed.update(&[7], &vectors[7 * dim..8 * dim]).expect("an id that is there");
    assert!(changed == whole);
}

#[test]
fn a_change_that_fails_changes_nothing() {
    let dim = 16;
    let vectors = Random::new(22).gaussians(50, dim);
    let params = params(1, Some(Precision::F32), Metric::Cosine);
    let mut index = FlatIndex::build(&vectors, dim, None, &params, &Job::new()).expect("good vectors");
    let before = index.clone();
    let mut bad = vectors[..3 * dim].to_vec();
    bad[2 * dim + 5] = f32::NAN;
    let zero = vec![0.0; dim];
    let stopped = Job::new();
    stopped.cancel();
    let job = Job::new();
    for (kind, word, result) in [
        (ErrorKind::InvalidArgument, "row 2", index.add(None, &bad, &job)),
        (ErrorKind::InvalidArgument, "zero", index.add(None, &zero, &job)),
        (ErrorKind::InvalidArgument, "zero", index.update(&[1], &zero)),
        (ErrorKind::DimensionMismatch, "16", index.add(None, &vectors[..17], &job)),
        (ErrorKind::DuplicateId, "id 3 ", index.add(Some(&[80, 3]), &vectors[..2 * dim], &job)),
        (ErrorKind::DuplicateId, "80 twice", index.add(Some(&[80, 80]), &vectors[..2 * dim], &job)),
        (ErrorKind::InvalidArgument, "as many", index.add(Some(&[80]), &vectors[..2 * dim], &job)),
        (ErrorKind::IdNotFound, "id 99", index.remove(&[1, 99])),
        (ErrorKind::DuplicateId, "1 twice", index.remove(&[1, 1])),
        (ErrorKind::IdNotFound, "id 99", index.update(&[1, 99], &vectors[..2 * dim])),
        (ErrorKind::Cancelled, "cancelled", index.add(None, &vectors, &stopped)),
    ] {
        let error = result.expect_err("a refusal");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(index == before);
}

#[test]
fn an_add_that_is_stopped_on_its_way_leaves_the_index_as_it_was() {
    let dim = 32;
    let mut random = Random::new(25);
    let vectors = random.gaussians(1000, dim);
    let params = params(4, Some(Precision::F32), Metric::L2);
    let mut index = FlatIndex::build(&vectors, dim, None, &params, &Job::new()).expect("good vectors");
    let (before, memory) = (index.clone(), index.memory_bytes());
    let long: Vec<f32> = random.gaussians(400_000, dim).iter().map(|x| x * 1.5).collect();
    let job = std::sync::Arc::new(Job::new());
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
    assert!(index.memory_bytes() < memory * 2, "{} of {memory}", index.memory_bytes());
}

#[test]
fn an_index_may_start_empty_and_be_emptied() {
    for bits in [0, 1, 4] {
        let params = params(bits, Some(Precision::F32), Metric::L2);
        let mut index = FlatIndex::build(&[], 8, None, &params, &Job::new()).expect("no vectors");
        let query = [1.0; 8];
        let error = index.search(&query, &SearchOptions::new(1)).expect_err("nothing to search");
        assert_eq!(error.kind(), ErrorKind::EmptyIndex);
        index.add(None, &Random::new(1).gaussians(40, 8), &Job::new()).expect("good vectors");
        assert_eq!(index.search(&query, &SearchOptions::new(100)).expect("a query").len(), 40);
        index.remove(&index.ids()).expect("all ids");
        assert!(index.is_empty());
        assert_eq!(
            index.search(&query, &SearchOptions::new(1)).expect_err("empty").kind(),
            ErrorKind::EmptyIndex
        );
    }
}

#[test]
fn memory_is_counted_and_given_back() {
    let (dim, n) = (128, 20_000);
    let vectors = Random::new(23).gaussians(n, dim);
    for (bits, originals, row) in [
        (1, None, 128 / 8 + 6),
        (4, None, 128 / 8 + 6 + 3 * 128 / 8 + 8),
        (1, Some(Precision::F16), 128 / 8 + 6 + 256),
        (0, Some(Precision::F32), 512),
    ] {
        let params = params(bits, originals, Metric::L2);
        let mut index = FlatIndex::build(&vectors, dim, None, &params, &Job::new()).expect("good vectors");
        let full = index.memory_bytes();
        let expected = n * row;
        assert!(
            full >= expected && full < expected + expected / 50 + 8192,
            "{bits} bits: {full}, rows {expected}"
        );
        index.remove(&(0..15_000).collect::<Vec<_>>()).expect("ids that are there");
        // The ids are listed now.
        assert!(
            index.memory_bytes() < full / 2 + 5000 * 24,
            "{bits} bits: {} of {full}",
            index.memory_bytes()
        );
    }
}

#[test]
fn originals_that_somebody_holds_stay_as_they_were() {
    let vectors = Random::new(24).gaussians(10, 8);
    let params = params(0, Some(Precision::F32), Metric::L2);
    let mut index = FlatIndex::build(&vectors, 8, None, &params, &Job::new()).expect("good vectors");
    let limnion_index::Originals::F32(held) = index.originals().expect("originals") else { panic!("f32") };
    index.update(&[0], &[9.0; 8]).expect("an id that is there");
    index.remove(&[5]).expect("an id that is there");
    assert_eq!(&*held, &*vectors);
    assert_eq!((held.rows(), held.dim()), (10, 8));
}
