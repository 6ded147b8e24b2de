//! What a search by vector and text together promises.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use limnion_index::{Params, Precision};
use limnion_lake::{
    Backend, Consistency, Description, Fusion, Generation, Global, Hybrid, Id, Ids, Lake, LakeHit,
    LocalBackend, Rows, Search, Settings, Sink, Target, Where,
};
use limnion_testkit::{Random, distance};
use limnion_types::{ErrorKind, Filter, Job, Metric, Result};
use proptest::prelude::*;

const DIM: usize = 4;

type Row = (Vec<f32>, Option<f32>);

/// Rows by name, each with a vector and with a score that its text has for every query.
#[derive(Default)]
struct Library {
    rows: Mutex<BTreeMap<String, Row>>,
    generation: AtomicUsize,
    asked: Mutex<Vec<usize>>,
}

impl Library {
    fn put(&self, name: &str, vector: &[f32], score: Option<f32>) {
        self.rows.lock().unwrap().insert(name.to_owned(), (vector.to_vec(), score));
        self.generation.fetch_add(1, Ordering::SeqCst);
    }
}

impl Backend for Library {
    fn name(&self) -> &str {
        "library"
    }
    fn collections(&self) -> Result<Vec<String>> {
        Ok(vec!["docs".to_owned()])
    }
    fn describe(&self, _: &str) -> Result<Description> {
        let rows = self.rows.lock().unwrap().len();
        Ok(Description {
            dim: DIM,
            rows,
            generation: Generation::Number(self.generation.load(Ordering::SeqCst) as u64),
            metric: None,
            source: "library:".to_owned(),
        })
    }
    fn pull(&self, collection: &str, sink: &mut dyn Sink, _: &Job) -> Result<()> {
        sink.begin(&self.describe(collection)?)?;
        let rows = self.rows.lock().unwrap();
        let ids = Ids::Names(rows.keys().map(|name| name.as_str().into()).collect());
        sink.push(Rows { ids, vectors: rows.values().flat_map(|(vector, _)| vector.clone()).collect() })
    }
    fn select(&self, _: &str, _: &Filter) -> Result<Option<(Ids, Generation)>> {
        let rows = self.rows.lock().unwrap();
        let even =
            rows.keys().enumerate().filter(|(at, _)| at % 2 == 0).map(|(_, name)| name.as_str().into());
        let generation = Generation::Number(self.generation.load(Ordering::SeqCst) as u64);
        Ok(Some((Ids::Names(even.collect()), generation)))
    }
    fn text_search(&self, _: &str, _: &str, k: usize) -> Result<Option<Vec<(Id, f32)>>> {
        self.asked.lock().unwrap().push(k);
        let rows = self.rows.lock().unwrap();
        let mut found: Vec<(Id, f32)> = rows
            .iter()
            .filter_map(|(name, (_, score))| Some((Id::Name(name.as_str().into()), (*score)?)))
            .collect();
        found.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| b.cmp(a)));
        found.truncate(k);
        Ok(Some(found))
    }
}

fn lake(library: &Arc<Library>) -> (Lake, Target) {
    let params = Params { bits: 0, originals: Some(Precision::F32), ..Params::new(Metric::L2) };
    let lake = Lake::new(Settings { params, ..Settings::default() }, Arc::new(Global)).unwrap();
    lake.register(library.clone()).unwrap();
    (lake, Target::new("library", "docs"))
}

fn ask(lake: &Lake, target: &Target, hybrid: &Hybrid, search: &Search) -> Vec<LakeHit> {
    lake.search_hybrid(target, &[0.0; DIM], hybrid, search, &Job::new()).unwrap()
}

fn names(hits: &[LakeHit]) -> Vec<String> {
    hits.iter().map(|hit| hit.id.to_string()).collect()
}

/// What it should give, by the definition: everything is ranked, looked at to the depth, and added.
fn oracle(rows: &[(String, Vec<f32>, Option<f32>)], hybrid: &Hybrid, k: usize) -> Vec<(String, f64, f64)> {
    let depth = (4 * k).max(60);
    let weight = f64::from(hybrid.weight);
    let apart: BTreeMap<&str, f64> =
        rows.iter().map(|(name, row, _)| (name.as_str(), distance(Metric::L2, row, &[0.0; DIM]))).collect();
    let mut near: Vec<&str> = apart.keys().copied().collect();
    near.sort_by(|a, b| (apart[a] as f32).total_cmp(&(apart[b] as f32)).then(a.cmp(b)));
    near.truncate(depth);
    let scores: BTreeMap<&str, f32> =
        rows.iter().filter_map(|(name, _, score)| Some((name.as_str(), (*score)?))).collect();
    let mut told: Vec<&str> = scores.keys().copied().collect();
    told.sort_by(|a, b| scores[b].total_cmp(&scores[a]).then(a.cmp(b)));
    told.truncate(depth);
    let mut all: Vec<&str> = near.iter().chain(&told).copied().collect();
    all.sort_unstable();
    all.dedup();
    let place = |list: &[&str], name: &str| list.iter().position(|other| *other == name);
    let stretched = |of: &dyn Fn(&str) -> f64, name: &str| {
        let (low, high) = all.iter().fold((f64::MAX, f64::MIN), |(l, h), n| (l.min(of(n)), h.max(of(n))));
        if high > low { (of(name) - low) / (high - low) } else { 0.0 }
    };
    let worst = told.iter().map(|name| scores[name]).fold(0.0, f32::min);
    let near_score = |name: &str| f64::from((1.0 / (1.0 + apart[name])) as f32);
    let told_score = |name: &str| f64::from(if told.contains(&name) { scores[name] } else { worst });
    let mut fused: Vec<(String, f64, f64)> = all
        .iter()
        .map(|name| {
            let score = match hybrid.fusion {
                Fusion::Reciprocal => {
                    place(&near, name).map_or(0.0, |at| 2.0 * weight / (61.0 + at as f64))
                        + place(&told, name).map_or(0.0, |at| 2.0 * (1.0 - weight) / (61.0 + at as f64))
                }
                Fusion::Weighted => {
                    weight * stretched(&near_score, name) + (1.0 - weight) * stretched(&told_score, name)
                }
            };
            ((*name).to_owned(), score, apart[name])
        })
        .collect();
    fused.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    fused.truncate(k);
    fused
}

proptest! {
    #[test]
    fn hits_are_those_of_the_definition(
        seed: u64,
        count in 1_usize..150,
        told in 0_u32..4,
        k in 1_usize..20,
        weight in prop::sample::select(vec![0.0_f32, 0.3, 0.5, 1.0]),
        weighted: bool,
    ) {
        let mut random = Random::new(seed);
        let rows: Vec<(String, Vec<f32>, Option<f32>)> = (0..count)
            .map(|row| {
                let score = (random.below(4) < told as usize).then(|| random.gaussian() as f32);
                (format!("row {row}"), random.gaussians(1, DIM), score)
            })
            .collect();
        let library = Arc::new(Library::default());
        rows.iter().for_each(|(name, vector, score)| library.put(name, vector, *score));
        let (lake, target) = lake(&library);
        let fusion = if weighted { Fusion::Weighted } else { Fusion::Reciprocal };
        let hybrid = Hybrid { weight, fusion, ..Hybrid::new("text") };
        let found = ask(&lake, &target, &hybrid, &Search::new(k));
        let wanted = oracle(&rows, &hybrid, k);
        prop_assert_eq!(found.len(), wanted.len());
        for (hit, (name, score, apart)) in found.iter().zip(&wanted) {
            // Distances are summed in another order, so that scores that nearly tie may change places.
            prop_assert!((f64::from(hit.score) - score).abs() < 1e-5, "{:?} {:?}", hit, wanted);
            if !weighted {
                prop_assert_eq!(&hit.id.to_string(), name);
                prop_assert!((f64::from(hit.distance) - apart).abs() < 1e-4);
            }
        }
        prop_assert_eq!(&ask(&lake, &target, &hybrid, &Search::new(k)), &found);
    }
}

#[test]
fn a_row_that_one_half_finds_counts_and_has_its_distance() {
    let library = Arc::new(Library::default());
    for row in 0..200 {
        library.put(&format!("near {row:03}"), &[row as f32 * 0.01; DIM], None);
    }
    library.put("far", &[100.0; DIM], Some(3.0));
    let (lake, target) = lake(&library);
    let hits = ask(&lake, &target, &Hybrid::new("text"), &Search::new(3));
    assert_eq!(names(&hits), ["far", "near 000", "near 001"]);
    assert!((hits[0].distance - 200.0).abs() < 1e-3);
    assert!((hits[0].score - 1.0 / 61.0).abs() < 1e-7);
    for (weight, first) in [(0.0, "far"), (1.0, "near 000")] {
        for fusion in [Fusion::Reciprocal, Fusion::Weighted] {
            let hybrid = Hybrid { weight, fusion, ..Hybrid::new("text") };
            assert_eq!(names(&ask(&lake, &target, &hybrid, &Search::new(1))), [first]);
        }
    }
}

#[test]
fn both_halves_respect_what_may_be_found() {
    let library = Arc::new(Library::default());
    for row in 0..500 {
        library.put(&format!("{row:03}"), &[row as f32; DIM], Some(row as f32));
    }
    let (lake, target) = lake(&library);
    let among = |among| Search { among: Some(among), ..Search::new(5) };
    let few = Ids::Names(["003", "004", "nobody"].map(Into::into).to_vec());
    let hits = ask(&lake, &target, &Hybrid::new("text"), &among(Where::Ids(few)));
    assert_eq!(names(&hits), ["003", "004"]);
    assert_eq!(*library.asked.lock().unwrap(), [60, 240, 960], "it looks on until there is enough");
    let filter = Filter::from_dict(&serde_json::json!({"even": true})).unwrap();
    for fusion in [Fusion::Reciprocal, Fusion::Weighted] {
        let hybrid = Hybrid { fusion, ..Hybrid::new("text") };
        let hits = ask(&lake, &target, &hybrid, &among(Where::Matching(filter.clone())));
        assert_eq!(hits.len(), 5);
        assert!(hits.iter().all(|hit| hit.id.to_string().parse::<u32>().unwrap() % 2 == 0), "{hits:?}");
    }
}

#[test]
fn a_text_of_a_later_generation_is_found_once_the_index_is() {
    let library = Arc::new(Library::default());
    library.put("old", &[1.0; DIM], Some(1.0));
    let (lake, target) = lake(&library);
    lake.set_consistency(&target, Some(Consistency::Frozen)).unwrap();
    let hybrid = Hybrid::new("text");
    assert_eq!(names(&ask(&lake, &target, &hybrid, &Search::new(5))), ["old"]);
    library.put("new", &[0.0; DIM], Some(2.0));
    assert_eq!(names(&ask(&lake, &target, &hybrid, &Search::new(5))), ["old"]);
    lake.set_consistency(&target, Some(Consistency::Fresh)).unwrap();
    assert_eq!(names(&ask(&lake, &target, &hybrid, &Search::new(5))), ["new", "old"]);
}

#[test]
fn what_cannot_be_used_is_told_of() {
    let library = Arc::new(Library::default());
    library.put("row", &[1.0; DIM], Some(f32::NAN));
    let (lake, target) = lake(&library);
    let refused = |query: &[f32], hybrid: &Hybrid, k| {
        lake.search_hybrid(&target, query, hybrid, &Search::new(k), &Job::new()).unwrap_err().kind()
    };
    let hybrid = Hybrid::new("text");
    assert_eq!(refused(&[0.0; DIM], &hybrid, 0), ErrorKind::InvalidArgument);
    assert_eq!(refused(&[0.0; DIM + 1], &hybrid, 1), ErrorKind::DimensionMismatch);
    assert_eq!(refused(&[0.0; DIM], &Hybrid::new(" "), 1), ErrorKind::InvalidArgument);
    for weight in [-0.1, 1.1, f32::NAN] {
        let odd = Hybrid { weight, ..hybrid.clone() };
        assert_eq!(refused(&[0.0; DIM], &odd, 1), ErrorKind::InvalidArgument);
    }
    assert_eq!(refused(&[0.0; DIM], &hybrid, 1), ErrorKind::Backend, "scores are to be numbers");
    let silent = Arc::new(LocalBackend::new("silent"));
    silent.upsert("docs", &[1], &[1.0; DIM], DIM).unwrap();
    lake.register(silent).unwrap();
    let target = Target::new("silent", "docs");
    let error = lake.search_hybrid(&target, &[0.0; DIM], &hybrid, &Search::new(1), &Job::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("silent"));
}
