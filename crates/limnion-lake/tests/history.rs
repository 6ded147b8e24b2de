//! A search in the past is a search in the state that was then.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use limnion_index::{Params, Precision};
use limnion_lake::{Global, History, Options, StoreBackend};
use limnion_store::{AsOf, At, Batch, Body, KeyRange, Op, Options as Opening, Store, Vector};
use limnion_testkit::Random;
use limnion_types::{ErrorKind, Job, Metric};

const DIM: usize = 8;

fn put(store: &Store, key: &str, numbers: Option<Vec<f32>>, ttl: Option<u64>) {
    let vectors = numbers.into_iter().map(|numbers| Vector { name: "".into(), numbers: numbers.into() });
    let expires = ttl.map(|ttl| limnion_store::clock::now() + ttl);
    let body = Body { vectors: vectors.collect(), expires, ..Body::json(*b"1") };
    let op = Op::Put { namespace: "docs".into(), key: key.into(), body };
    store.write(Batch { ops: vec![op], ..Batch::default() }).unwrap();
}

fn delete(store: &Store, key: &str) {
    let op = Op::Delete { namespace: "docs".into(), key: key.into() };
    store.write(Batch { ops: vec![op], ..Batch::default() }).unwrap();
}

fn history(store: &Store) -> History {
    let params = Params { bits: 1, originals: Some(Precision::F32), ..Params::new(Metric::L2) };
    let backend = Arc::new(StoreBackend::new("db", store.clone()));
    History::new(backend, "docs", params, Arc::new(Global))
}

/// What a store says of a version, measured.
fn naive(store: &Store, version: u64, query: &[f32], k: usize) -> Vec<String> {
    let mut all = Vec::new();
    for record in store.scan("docs", &KeyRange::ALL, At::Seq(version), usize::MAX, false, true).unwrap() {
        let vectors = store.vectors(&record).unwrap();
        let Some(vector) = vectors.first().filter(|vector| vector.numbers.len() == query.len()) else {
            continue;
        };
        let square: f64 = vector.numbers.iter().zip(query).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        all.push((square, record.key.to_string()));
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
    all.into_iter().take(k).map(|(_, key)| key).collect()
}

fn found(history: &History, query: &[f32], version: u64, k: usize) -> Vec<String> {
    let options = Options { recall: Some(1.0), ..Options::new(k) };
    let hits = history.search(query, &AsOf::Version(version), &options, &Job::new()).unwrap();
    hits.iter().map(|hit| hit.id.to_string()).collect()
}

#[test]
fn a_search_at_a_version_finds_what_was_there_then() {
    let place = tempfile::tempdir().unwrap();
    for opening in [Opening::memory(), Opening::folder(place.path().join("store"))] {
        let store = Store::open(opening).unwrap();
        let mut random = Random::new(11);
        put(&store, "first", Some(random.gaussians(1, DIM)), None);
        let history = history(&store);
        for round in 0..250 {
            let key = format!("k{}", random.below(25));
            match random.below(8) {
                0 => delete(&store, &key),
                1 => put(&store, &key, None, None),
                2 => put(&store, &key, Some(random.gaussians(1, DIM)), Some(3_600_000_000)),
                3 => put(&store, &key, Some(random.gaussians(1, 4)), None),
                _ => put(&store, &key, Some(random.gaussians(1, DIM)), None),
            }
            if round % 5 == 0 {
                let newest = store.head().unwrap().0;
                for version in [1, newest, 1 + random.below(newest as usize) as u64] {
                    let query = random.gaussians(1, DIM);
                    assert_eq!(
                        found(&history, &query, version, 6),
                        naive(&store, version, &query, 6),
                        "at {version}"
                    );
                }
            }
        }
        let newest = store.head().unwrap().0;
        for version in 1..=newest {
            let query = random.gaussians(1, DIM);
            assert_eq!(
                found(&history, &query, version, 6),
                naive(&store, version, &query, 6),
                "at {version}"
            );
        }
        let beyond = history.search(&[0.0; DIM], &AsOf::Version(newest + 1), &Options::new(1), &Job::new());
        assert_eq!(beyond.unwrap_err().kind(), ErrorKind::Validation);
        let wrong = history.search(&[0.0; 3], &AsOf::Version(newest), &Options::new(1), &Job::new());
        assert_eq!(wrong.unwrap_err().kind(), ErrorKind::DimensionMismatch);
        assert!(history.memory_bytes() > 0);
        store.close().unwrap();
    }
}

#[test]
fn a_search_at_a_tag_stays_what_it_was() {
    let store = Store::open(Opening::memory()).unwrap();
    put(&store, "a", Some(vec![1.0; DIM]), None);
    store.set_tag("then", At::Latest, false).unwrap();
    put(&store, "a", Some(vec![-1.0; DIM]), None);
    put(&store, "b", Some(vec![1.0; DIM]), None);
    let history = history(&store);
    let options = Options::new(1);
    let hits = history.search(&[1.0; DIM], &AsOf::Tag("then".into()), &options, &Job::new()).unwrap();
    assert_eq!((hits.len(), hits[0].id.to_string(), hits[0].distance), (1, "a".to_owned(), 0.0));
    let hits = history.search(&[1.0; DIM], &AsOf::Version(3), &options, &Job::new()).unwrap();
    assert_eq!(hits[0].id.to_string(), "b");
}
