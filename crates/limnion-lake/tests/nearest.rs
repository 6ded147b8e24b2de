//! Search in the vectors of a store: each hit is a record as it was in the state that was searched.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use limnion_index::Source;
use limnion_lake::{Claims, Global, Model, Near, Nearest, Options, Sought};
use limnion_store::{AsOf, Batch, Body, Op, Options as Opening, Retention, Store, Vector};
use limnion_testkit::Random;
use limnion_types::{ErrorKind, Filter, Job, Result};

const DIM: usize = 8;

fn op(key: &str, numbers: &[f32], group: usize) -> Op {
    let vector = Vector { name: "".into(), numbers: numbers.into() };
    let body = Body { vectors: vec![vector], ..Body::json(format!("{{\"group\":{group}}}").into_bytes()) };
    Op::Put { namespace: "docs".into(), key: key.into(), body }
}

fn put(store: &Store, ops: Vec<Op>) {
    store.write(Batch { ops, ..Batch::default() }).unwrap();
}

fn open(path: &Path) -> Result<Source> {
    Ok(Arc::new(std::fs::read(path).unwrap()))
}

fn nearest(store: &Store) -> Nearest {
    Nearest::new(store.clone(), Arc::new(Global), open).unwrap()
}

fn sought(query: &[f32], k: usize) -> Sought {
    Sought {
        namespace: "docs".to_owned(),
        name: String::new(),
        query: query.to_vec(),
        options: Options { recall: Some(1.0), ..Options::new(k) },
        threshold: None,
        filter: None,
        as_of: None,
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn group_of(hit: &Near) -> u64 {
    let value: serde_json::Value = serde_json::from_slice(hit.record.payload.value()).unwrap();
    value.get("group").and_then(serde_json::Value::as_u64).unwrap()
}

/// Under writers that never rest, and with a retention that keeps no version but the newest.
#[test]
fn no_hit_mixes_two_versions_and_no_filter_lets_others_through() {
    let retention = Some(Retention { keep_last: Some(1), keep_for: None, keep_tagged: true });
    let store = Store::open(Opening { retention, ..Opening::memory() }).unwrap();
    let mut random = Random::new(5);
    put(&store, (0..60).map(|at| op(&format!("{at:02}"), &random.gaussians(1, DIM), at % 3)).collect());
    let (nearest, stop) = (nearest(&store), AtomicBool::new(false));
    thread::scope(|scope| {
        for seed in 0..2 {
            let (store, stop) = (&store, &stop);
            scope.spawn(move || {
                let mut random = Random::new(100 + seed);
                while !stop.load(Ordering::Relaxed) {
                    let at = random.below(60);
                    put(store, vec![op(&format!("{at:02}"), &random.gaussians(1, DIM), random.below(3))]);
                }
            });
        }
        let searching = (0..2).map(|seed| {
            let (store, nearest) = (&store, &nearest);
            scope.spawn(move || {
                let mut random = Random::new(200 + seed);
                for turn in 0..150 {
                    let query = random.gaussians(1, DIM);
                    let filter = (turn % 2 == 0).then(|| Filter::from_text("group = 1").unwrap());
                    let wanted = Sought { filter, ..sought(&query, 5) };
                    let hits = nearest.search(&wanted, &Job::new()).unwrap();
                    assert!(wanted.filter.is_some() || hits.len() == 5);
                    for hit in &hits {
                        let vectors = store.vectors(&hit.record).unwrap();
                        let numbers = &vectors.first().unwrap().numbers;
                        assert!((cosine(numbers, &query) - f64::from(hit.score)).abs() < 1e-4);
                        assert!(wanted.filter.is_none() || group_of(hit) == 1);
                    }
                }
            })
        });
        let searching: Vec<_> = searching.collect();
        let done: Vec<bool> = searching.into_iter().map(|search| search.join().is_ok()).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(done.into_iter().all(|done| done));
    });
}

#[test]
fn what_was_saved_is_not_built_again() {
    let place = tempfile::tempdir().unwrap();
    let opening = || Opening::folder(place.path().join("store"));
    let mut random = Random::new(3);
    let rows: Vec<Vec<f32>> = (0..5000).map(|_| random.gaussians(1, DIM)).collect();
    let expected = {
        let store = Store::open(opening()).unwrap();
        put(&store, rows.iter().enumerate().map(|(at, row)| op(&at.to_string(), row, at)).collect());
        let nearest = nearest(&store);
        let hits = nearest.search(&sought(&rows[7], 9), &Job::new()).unwrap();
        assert_eq!(nearest.save(&Job::new()).unwrap(), 1);
        assert_eq!(nearest.save(&Job::new()).unwrap(), 0);
        hits.iter().map(|hit| hit.record.key.to_string()).collect::<Vec<_>>()
    };
    let store = Store::open(opening()).unwrap();
    let nearest = nearest(&store);
    let hits = nearest.search(&sought(&rows[7], 9), &Job::new()).unwrap();
    assert_eq!(hits.iter().map(|hit| hit.record.key.to_string()).collect::<Vec<_>>(), expected);
    let primes = || nearest.lake().stats().collections.iter().map(|each| each.primes).sum::<u64>();
    assert_eq!(primes(), 0);
    // Of now, so that an index over all of history is not needed.
    let then = Sought { as_of: Some(AsOf::Version(store.head().unwrap().0)), ..sought(&rows[7], 9) };
    let before = nearest.memory_bytes();
    assert_eq!(nearest.search(&then, &Job::new()).unwrap().len(), 9);
    assert_eq!(nearest.memory_bytes(), before);
    put(&store, vec![op("new", &rows[7], 0)]);
    let hits = nearest.search(&sought(&rows[7], 2), &Job::new()).unwrap();
    assert!(hits.iter().any(|hit| &*hit.record.key == "new"));
    assert_eq!(primes(), 0);
    assert_eq!(nearest.save(&Job::new()).unwrap(), 0, "a single row is caught up with");
    let then = Sought { as_of: Some(AsOf::Version(1)), ..sought(&rows[7], 2) };
    assert!(nearest.search(&then, &Job::new()).unwrap().iter().all(|hit| &*hit.record.key != "new"));
}

#[test]
fn a_claim_keeps_other_models_away_until_it_is_over() {
    let store = Store::open(Opening::memory()).unwrap();
    let claims = Arc::new(Claims::default());
    let model = |name: &str, dim| Model { name: Some(name.into()), dim };
    let claim = |wanted: &Model| claims.claim(&store, "docs", wanted, &Job::new());
    assert!(claims.claim_now("docs", &model("a", 2)).is_none(), "the store has not been asked");
    let first = claim(&model("a", 2)).unwrap();
    let second = claims.claim_now("docs", &model("a", 2)).unwrap();
    for other in [model("b", 2), model("a", 3), Model { name: None, dim: 3 }] {
        assert_eq!(claim(&other).err().unwrap().kind(), ErrorKind::DimensionMismatch);
    }
    drop(claim(&Model { name: None, dim: 2 }).unwrap());
    drop(first);
    assert!(claim(&model("b", 2)).is_err());
    drop(second);
    // Nothing came of them.
    drop(claim(&model("b", 3)).unwrap());
    put(&store, vec![op("x", &[1.0, 2.0, 3.0], 0)]);
    assert!(claim(&model("b", 2)).is_err());
    drop(claim(&model("c", 3)).unwrap());
}
