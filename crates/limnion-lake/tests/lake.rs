//! What a lake promises of its answers, whatever its backends do.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use limnion_index::{FlatIndex, Params, Precision, SearchOptions};
use limnion_lake::{
    Backend, Changes, Consistency, Description, Generation, Global, Id, Ids, Lake, LakeHit, LocalBackend,
    OnError, Options, Rows, Search, Settings, Sink, Target, Where,
};
use limnion_testkit::Random;
use limnion_types::{Error, ErrorKind, Job, Metric, Result};

const DIM: usize = 16;

fn lake(settings: Settings, backends: Vec<Arc<dyn Backend>>) -> Lake {
    let lake = Lake::new(settings, Arc::new(Global)).unwrap();
    for backend in backends {
        lake.register(backend).unwrap();
    }
    lake
}

fn exact(metric: Metric) -> Settings {
    Settings {
        params: Params { bits: 1, originals: Some(Precision::F32), ..Params::new(metric) },
        ..Settings::default()
    }
}

fn filled(
    name: &str,
    collection: &str,
    ids: std::ops::Range<u64>,
    seed: u64,
) -> (Arc<LocalBackend>, Vec<f32>) {
    let backend = Arc::new(LocalBackend::new(name));
    let vectors = Random::new(seed).gaussians((ids.end - ids.start) as usize, DIM);
    backend.upsert(collection, &ids.collect::<Vec<_>>(), &vectors, DIM).unwrap();
    (backend, vectors)
}

fn ids(hits: &[LakeHit]) -> Vec<u64> {
    hits.iter()
        .map(|hit| match hit.id {
            Id::Number(id) => id,
            Id::Name(_) => panic!("a number"),
        })
        .collect()
}

fn find(lake: &Lake, target: &Target, query: &[f32], k: usize) -> Result<Vec<LakeHit>> {
    lake.search(target, query, &Search { options: all(k), ..Search::new(k) }, &Job::new())
}

/// Exact search.
fn all(k: usize) -> Options {
    Options { recall: Some(1.0), ..Options::new(k) }
}

#[test]
fn a_lake_answers_as_the_bare_index_does() {
    for metric in Metric::ALL {
        let (backend, vectors) = filled("hot", "docs", 100..600, 1);
        let settings = exact(metric);
        let names: Vec<u64> = (100..600).collect();
        let index = FlatIndex::build(&vectors, DIM, Some(&names), &settings.params, &Job::new()).unwrap();
        let lake = lake(settings, vec![backend]);
        let target = lake.find(None, "docs").unwrap();
        for seed in 0..20 {
            let query = Random::new(100 + seed).gaussians(1, DIM);
            let wanted = index.search(&query, &SearchOptions::new(10)).unwrap();
            let found = lake.search(&target, &query, &Search::new(10), &Job::new()).unwrap();
            let found: Vec<_> = found.iter().map(|hit| (hit.id.clone(), hit.score, hit.distance)).collect();
            let wanted: Vec<_> =
                wanted.iter().map(|hit| (Id::Number(hit.id), hit.score, hit.distance)).collect();
            assert_eq!(found, wanted);
        }
        assert!(lake.holds(&index));
    }
}

/// The rows of a generation, and when it came to be.
type State = (Instant, BTreeMap<u64, Vec<f32>>);

/// A backend that remembers every generation it ever was in, and when it came to be.
struct Remembering {
    inner: LocalBackend,
    /// The rows of each generation.
    past: Mutex<Vec<State>>,
    /// Whether changes are told of, or everything has to be pulled.
    feeds: bool,
    quick: bool,
}

impl Remembering {
    fn new(feeds: bool, quick: bool) -> Self {
        let inner = LocalBackend::new("past");
        inner.upsert("docs", &[0], &[1.0; DIM], DIM).unwrap();
        let first = BTreeMap::from([(0, vec![1.0; DIM])]);
        Self {
            inner,
            past: Mutex::new(vec![(Instant::now(), BTreeMap::new()), (Instant::now(), first)]),
            feeds,
            quick,
        }
    }

    fn change(&self, random: &mut Random) {
        let mut past = self.past.lock().unwrap();
        let mut rows = past.last().unwrap().1.clone();
        if random.below(4) == 0 && rows.len() > 1 {
            let id = *rows.keys().nth(random.below(rows.len())).unwrap();
            rows.remove(&id);
            self.inner.delete("docs", &[id]).unwrap();
        } else {
            let id = random.below(40) as u64;
            let vector = random.gaussians(1, DIM);
            self.inner.upsert("docs", &[id], &vector, DIM).unwrap();
            rows.insert(id, vector);
        }
        past.push((Instant::now(), rows));
    }

    fn generation_now(&self) -> usize {
        self.past.lock().unwrap().len() - 1
    }

    /// The generations, from `first` to `last`, of which this is the exact answer.
    fn explains(&self, first: usize, last: usize, query: &[f32], found: &[LakeHit], k: usize) -> bool {
        let past = self.past.lock().unwrap();
        (first..=last.min(past.len() - 1)).any(|generation| {
            let rows = &past[generation].1;
            let mut all: Vec<(f64, u64)> = rows
                .iter()
                .map(|(&id, row)| {
                    let square = row.iter().zip(query).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
                    (square.sqrt(), id)
                })
                .collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            all.truncate(k);
            all.len() == found.len()
                && all.iter().zip(found).all(|(&(distance, id), hit)| {
                    hit.id == Id::Number(id) && (f64::from(hit.distance) - distance).abs() < 1e-3
                })
        })
    }
}

impl Backend for Remembering {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn collections(&self) -> Result<Vec<String>> {
        self.inner.collections()
    }
    fn describe(&self, collection: &str) -> Result<Description> {
        self.inner.describe(collection)
    }
    fn is_quick(&self) -> bool {
        self.quick
    }
    fn pull(&self, collection: &str, sink: &mut dyn Sink, job: &Job) -> Result<()> {
        self.inner.pull(collection, sink, job)
    }
    fn changes(&self, collection: &str, since: &Generation) -> Result<Option<Changes>> {
        if self.feeds { self.inner.changes(collection, since) } else { Ok(None) }
    }
}

/// Searches from threads while the backend changes; every answer has to be that of a generation which the mode allows.
fn every_answer_is_of_an_allowed_generation(consistency: Consistency, feeds: bool, quick: bool) {
    let backend = Arc::new(Remembering::new(feeds, quick));
    let settings = Settings { consistency, ..exact(Metric::L2) };
    let lake = lake(settings, vec![backend.clone()]);
    let target = lake.find(None, "docs").unwrap();
    let stop = AtomicBool::new(false);
    let frozen = AtomicUsize::new(usize::MAX);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(7);
            while !stop.load(Ordering::Relaxed) {
                backend.change(&mut random);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let searchers: Vec<_> = (0..3)
            .map(|seed| {
                let (backend, lake, target, frozen) = (&backend, &lake, &target, &frozen);
                scope.spawn(move || {
                    let mut random = Random::new(100 + seed);
                    for _ in 0..150 {
                        let query = random.gaussians(1, DIM);
                        let first = match consistency {
                            Consistency::Fresh => backend.generation_now(),
                            Consistency::Eventual(ttl) => {
                                let oldest = Instant::now() - ttl;
                                let past = backend.past.lock().unwrap();
                                past.iter().rposition(|(since, _)| *since <= oldest).unwrap_or(1)
                            }
                            Consistency::Frozen => 1,
                        };
                        let found = find(lake, target, &query, 5).unwrap();
                        // A change is written down a moment after it can be seen.
                        std::thread::sleep(Duration::from_micros(300));
                        let last = backend.generation_now();
                        assert!(
                            backend.explains(first, last, &query, &found, 5),
                            "{consistency:?} feeds {feeds} quick {quick}: no generation of {first}..={last} explains it"
                        );
                        if consistency == Consistency::Frozen {
                            let Generation::Number(now) =
                                lake.prepare(target, None, &Job::new()).unwrap().generation()
                            else {
                                panic!("a number")
                            };
                            let was = frozen.swap(now as usize, Ordering::SeqCst);
                            assert!(was == usize::MAX || was == now as usize, "frozen at {was}, and at {now}");
                        }
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = searchers.into_iter().map(|searcher| searcher.join()).collect();
        stop.store(true, Ordering::Relaxed);
        outcomes.into_iter().for_each(|outcome| outcome.unwrap());
    });
}

#[test]
fn fresh_answers_are_of_a_generation_that_was_current_during_the_search() {
    for (feeds, quick) in [(true, true), (true, false), (false, true), (false, false)] {
        every_answer_is_of_an_allowed_generation(Consistency::Fresh, feeds, quick);
    }
}

#[test]
fn eventual_answers_are_not_older_than_their_time() {
    for (feeds, quick) in [(true, true), (false, false)] {
        let ttl = Duration::from_millis(20);
        every_answer_is_of_an_allowed_generation(Consistency::Eventual(ttl), feeds, quick);
    }
}

#[test]
fn frozen_answers_stay_as_they_are_until_somebody_says_so() {
    every_answer_is_of_an_allowed_generation(Consistency::Frozen, true, true);
    let (backend, _) = filled("hot", "docs", 0..3, 1);
    let lake =
        lake(Settings { consistency: Consistency::Frozen, ..exact(Metric::L2) }, vec![backend.clone()]);
    let target = lake.find(None, "docs").unwrap();
    assert_eq!(find(&lake, &target, &[0.0; DIM], 9).unwrap().len(), 3);
    backend.delete("docs", &[1]).unwrap();
    assert_eq!(find(&lake, &target, &[0.0; DIM], 9).unwrap().len(), 3);
    lake.refresh(&target, None, &Job::new()).unwrap();
    assert_eq!(find(&lake, &target, &[0.0; DIM], 9).unwrap().len(), 2);
    backend.delete("docs", &[2]).unwrap();
    assert!(lake.invalidate(&target));
    assert!(!lake.is_cached(&target));
    assert_eq!(find(&lake, &target, &[0.0; DIM], 9).unwrap().len(), 1);
}

/// What a test has a backend do, the n-th time.
type Pull = dyn Fn(&mut dyn Sink, u64) -> Result<()> + Send + Sync;

/// A backend that does what a test tells it to.
struct Scripted {
    name: String,
    pulls: AtomicU64,
    pull: Box<Pull>,
}

impl Scripted {
    fn new(name: &str, pull: impl Fn(&mut dyn Sink, u64) -> Result<()> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), pulls: AtomicU64::new(0), pull: Box::new(pull) })
    }
}

fn described(dim: usize, rows: usize) -> Description {
    Description {
        dim,
        rows,
        generation: Generation::Number(1),
        metric: None,
        source: "test://script".to_owned(),
    }
}

fn give(sink: &mut dyn Sink, dim: usize, ids: Ids, vectors: Vec<f32>) -> Result<()> {
    sink.begin(&described(dim, ids.len()))?;
    sink.push(Rows { ids, vectors })
}

impl Backend for Scripted {
    fn name(&self) -> &str {
        &self.name
    }
    fn collections(&self) -> Result<Vec<String>> {
        Ok(vec!["docs".to_owned()])
    }
    fn describe(&self, _: &str) -> Result<Description> {
        Ok(described(2, 1))
    }
    fn pull(&self, _: &str, sink: &mut dyn Sink, _: &Job) -> Result<()> {
        let pull = self.pulls.fetch_add(1, Ordering::SeqCst);
        (self.pull)(sink, pull)
    }
}

#[test]
fn a_first_miss_of_many_builds_once() {
    let backend = Scripted::new("slow", |sink, _| {
        std::thread::sleep(Duration::from_millis(100));
        give(sink, 2, Ids::Numbers(vec![5]), vec![1.0, 0.0])
    });
    let settings = Settings { consistency: Consistency::Frozen, ..exact(Metric::L2) };
    let lake = lake(settings, vec![backend.clone()]);
    let target = lake.find(None, "docs").unwrap();
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                barrier.wait();
                assert_eq!(ids(&find(&lake, &target, &[1.0, 0.0], 3).unwrap()), [5]);
            });
        }
    });
    assert_eq!(backend.pulls.load(Ordering::SeqCst), 1);
}

#[test]
fn what_a_backend_gets_wrong_is_told_and_others_work_on() {
    type Case = (&'static str, ErrorKind, Arc<Scripted>);
    let fails = |name: &'static str, kind, pull: fn(&mut dyn Sink, u64) -> Result<()>| -> Case {
        (name, kind, Scripted::new(name, pull))
    };
    let cases = [
        fails("short-rows", ErrorKind::Backend, |s, _| give(s, 3, Ids::Numbers(vec![1]), vec![0.0; 2])),
        fails("no-begin", ErrorKind::Backend, |s, _| {
            s.push(Rows { ids: Ids::Numbers(vec![1]), vectors: vec![0.0] })
        }),
        fails("silent", ErrorKind::Backend, |_, _| Ok(())),
        fails("nan", ErrorKind::InvalidArgument, |s, _| {
            give(s, 2, Ids::Numbers(vec![1]), vec![0.0, f32::NAN])
        }),
        fails("twice", ErrorKind::DuplicateId, |s, _| give(s, 1, Ids::Numbers(vec![1, 1]), vec![1.0, 2.0])),
        fails("names-twice", ErrorKind::DuplicateId, |s, _| {
            give(s, 1, Ids::Names(vec!["a".into(), "a".into()]), vec![1.0, 2.0])
        }),
        fails("mixed", ErrorKind::Backend, |s, _| {
            give(s, 1, Ids::Numbers(vec![1]), vec![1.0])?;
            s.push(Rows { ids: Ids::Names(vec!["a".into()]), vectors: vec![1.0] })
        }),
        fails("refuses", ErrorKind::Backend, |_, _| Err(Error::new(ErrorKind::Backend, "no"))),
        fails("panics", ErrorKind::Backend, |_, _| panic!("a backend that panics")),
        fails("boasts", ErrorKind::Backend, |s, _| {
            s.begin(&described(usize::MAX / 8, usize::MAX / 8))?;
            s.push(Rows { ids: Ids::Numbers(vec![1]), vectors: vec![1.0] })
        }),
    ];
    let (good, _) = filled("good", "docs", 0..10, 3);
    let mut backends: Vec<Arc<dyn Backend>> = vec![good];
    backends.extend(cases.iter().map(|(_, _, backend)| backend.clone() as Arc<dyn Backend>));
    let lake = lake(exact(Metric::L2), backends);
    for (name, kind, _) in &cases {
        let error = find(&lake, &Target::new(name, "docs"), &[1.0], 3).expect_err(name);
        assert_eq!(error.kind(), *kind, "{name}: {error}");
        assert!(error.to_string().contains(name) || *name == "refuses", "{name}: {error}");
    }
    assert_eq!(find(&lake, &Target::new("good", "docs"), &[1.0; DIM], 3).unwrap().len(), 3);
    let error = find(&lake, &Target::new("good", "dogs"), &[1.0; DIM], 3).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownCollection);
    assert!(error.to_string().contains("docs"), "{error}");
    let error = find(&lake, &Target::new("bad", "docs"), &[1.0; DIM], 3).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownCollection);
}

#[test]
fn a_source_that_changes_while_it_is_read_is_read_again() {
    let backend = Scripted::new("moving", |sink, pull| {
        give(sink, 2, Ids::Numbers(vec![pull]), vec![1.0, 0.0])?;
        if pull < 2 { Err(Error::new(ErrorKind::Backend, "it has changed").passing()) } else { Ok(()) }
    });
    let lake = lake(exact(Metric::L2), vec![backend]);
    assert_eq!(ids(&find(&lake, &Target::new("moving", "docs"), &[1.0, 0.0], 3).unwrap()), [2]);
}

#[test]
fn a_search_ends_at_its_deadline_and_what_it_waited_for_is_not_lost() {
    let backend = Scripted::new("slow", |sink, _| {
        std::thread::sleep(Duration::from_millis(300));
        give(sink, 2, Ids::Numbers(vec![5]), vec![1.0, 0.0])
    });
    let settings = Settings { consistency: Consistency::Frozen, ..exact(Metric::L2) };
    let lake = lake(settings, vec![backend.clone()]);
    let target = Target::new("slow", "docs");
    let began = Instant::now();
    let search = Search { deadline: Some(began + Duration::from_millis(30)), ..Search::new(1) };
    let error = lake.search(&target, &[1.0, 0.0], &search, &Job::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(began.elapsed() < Duration::from_millis(250), "{:?}", began.elapsed());
    assert_eq!(ids(&find(&lake, &target, &[1.0, 0.0], 1).unwrap()), [5]);
    assert_eq!(backend.pulls.load(Ordering::SeqCst), 1);
    let job = Job::new();
    job.cancel();
    lake.invalidate(&target);
    let error = lake.search(&target, &[1.0, 0.0], &Search::new(1), &job).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let search = Search { cached_only: true, ..Search::new(1) };
    lake.invalidate(&target);
    assert_eq!(
        lake.search(&target, &[1.0, 0.0], &search, &Job::new()).unwrap_err().kind(),
        ErrorKind::CacheMiss
    );
}

#[test]
fn the_cache_keeps_to_its_bounds_and_what_was_evicted_is_built_again() {
    let backend = Arc::new(LocalBackend::new("many"));
    for number in 0..20 {
        let vectors = Random::new(number).gaussians(100, DIM);
        let ids: Vec<u64> = (0..100).collect();
        backend.upsert(&format!("c{number}"), &ids, &vectors, DIM).unwrap();
    }
    let bounds = [(Some(60_000), None), (None, Some(3)), (Some(60_000), Some(3))];
    for (max_bytes, max_entries) in bounds {
        let lake = lake(Settings { max_bytes, max_entries, ..exact(Metric::L2) }, vec![backend.clone()]);
        let pinned = Target::new("many", "c7");
        lake.pin(&pinned, true).unwrap();
        for round in 0..60 {
            let target = Target::new("many", &format!("c{}", round * 7 % 20));
            assert_eq!(find(&lake, &target, &[0.1; DIM], 5).unwrap().len(), 5);
            let stats = lake.stats();
            assert!(stats.entries <= 3 || max_entries.is_none(), "{} entries", stats.entries);
            assert!(max_bytes.is_none_or(|most| stats.bytes <= most), "{} bytes", stats.bytes);
        }
        assert!(lake.stats().evictions > 10);
        assert!(lake.is_cached(&pinned), "what is pinned stays");
    }
    let small = lake(Settings { max_bytes: Some(1000), ..exact(Metric::L2) }, vec![backend]);
    let error = find(&small, &Target::new("many", "c1"), &[0.1; DIM], 5).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Lake);
    assert!(error.to_string().contains("max_cache_bytes"), "{error}");
}

#[test]
fn the_same_data_in_two_places_is_kept_once_until_one_of_them_changes() {
    let same = |name: &str| {
        Scripted::new(name, |sink, _| give(sink, 2, Ids::Numbers(vec![1, 2]), vec![1.0, 0.0, 0.0, 1.0]))
    };
    let (one, two) = (same("one"), same("two"));
    let lake = lake(exact(Metric::L2), vec![one.clone(), two.clone()]);
    for name in ["one", "two"] {
        assert_eq!(ids(&find(&lake, &Target::new(name, "docs"), &[1.0, 0.0], 1).unwrap()), [1]);
    }
    assert_eq!(lake.stats().entries, 1);
    assert_eq!(two.pulls.load(Ordering::SeqCst), 0);
    assert!(lake.invalidate(&Target::new("one", "docs")));
    assert_eq!(lake.stats().entries, 1, "the other has it still");
    assert!(lake.invalidate(&Target::new("two", "docs")));
    assert_eq!(lake.stats().entries, 0);
}

#[test]
fn a_federated_answer_is_that_of_one_index_over_all() {
    let mut random = Random::new(5);
    for shards in [1, 2, 4, 7] {
        let mut backends: Vec<Arc<dyn Backend>> = Vec::new();
        let (mut vectors, mut names) = (Vec::new(), Vec::new());
        for shard in 0..shards {
            let range = shard * 1000..shard * 1000 + 300;
            let (backend, rows) = filled(&format!("s{shard}"), "docs", range.clone(), shard);
            backends.push(backend);
            vectors.extend(rows);
            names.extend(range);
        }
        // A replica: what it has is found once.
        let (replica, _) = filled("replica", "docs", 0..300, 0);
        backends.push(replica);
        let settings = exact(Metric::Cosine);
        let whole = FlatIndex::build(&vectors, DIM, Some(&names), &settings.params, &Job::new()).unwrap();
        let count = backends.len();
        let lake = lake(settings, backends);
        let targets = lake.find_all(None, "docs").unwrap();
        assert_eq!(targets.len(), count);
        for _ in 0..10 {
            let query = random.gaussians(1, DIM);
            let search = Search { options: all(10), ..Search::new(10) };
            let found =
                lake.search_federated(&targets, &query, &search, OnError::Raise, &Job::new()).unwrap();
            let options = SearchOptions { recall: Some(1.0), ..SearchOptions::new(10) };
            let wanted = whole.search(&query, &options).unwrap();
            assert_eq!(ids(&found.hits), wanted.iter().map(|hit| hit.id).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_part_that_fails_fails_the_whole_or_is_reported_as_one_wishes() {
    let (good, _) = filled("good", "docs", 0..50, 1);
    let bad =
        Scripted::new("bad", |_, _| Err(Error::new(ErrorKind::Backend, "backend \"bad\": out of order")));
    let slow = Scripted::new("slow", |sink, _| {
        std::thread::sleep(Duration::from_secs(2));
        give(sink, DIM, Ids::Numbers(vec![1]), vec![0.0; DIM])
    });
    let lake = lake(exact(Metric::L2), vec![good, bad, slow]);
    let targets = lake.find_all(None, "docs").unwrap();
    let began = Instant::now();
    let search = Search { deadline: Some(began + Duration::from_millis(200)), ..Search::new(5) };
    let found = lake.search_federated(&targets, &[0.5; DIM], &search, OnError::Partial, &Job::new()).unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(found.hits.len(), 5);
    let kinds: Vec<_> = found
        .report
        .iter()
        .map(|part| (&*part.target.backend, part.error.as_ref().map(Error::kind)))
        .collect();
    let wanted =
        [("bad", Some(ErrorKind::Backend)), ("good", None), ("slow", Some(ErrorKind::DeadlineExceeded))];
    assert_eq!(kinds, wanted);
    let search = Search { deadline: Some(Instant::now() + Duration::from_millis(200)), ..Search::new(5) };
    let error =
        lake.search_federated(&targets, &[0.5; DIM], &search, OnError::Raise, &Job::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backend);
    let wrong =
        lake.search_federated(&targets[1..2], &[f32::NAN; DIM], &search, OnError::Partial, &Job::new());
    assert_eq!(wrong.unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_search_among_ids_finds_all_of_them_and_nothing_else() {
    let (backend, _) = filled("hot", "docs", 0..500, 9);
    let lake = lake(exact(Metric::L2), vec![backend]);
    let target = lake.find(None, "docs").unwrap();
    let among = Where::Ids(Ids::Numbers(vec![3, 77, 400, 9999]));
    let search = Search { among: Some(among), ..Search::new(10) };
    let mut found = ids(&lake.search(&target, &[0.0; DIM], &search, &Job::new()).unwrap());
    found.sort_unstable();
    assert_eq!(found, [3, 77, 400]);
    let among = Where::Matching(limnion_types::Filter::none());
    let search = Search { among: Some(among), ..Search::new(10) };
    let error = lake.search(&target, &[0.0; DIM], &search, &Job::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn rows_with_names_come_go_and_keep_their_names() {
    type All = (u64, BTreeMap<String, Vec<f32>>);
    let state: Arc<Mutex<All>> = Arc::default();
    struct Named(Arc<Mutex<All>>);
    impl Backend for Named {
        fn name(&self) -> &str {
            "named"
        }
        fn collections(&self) -> Result<Vec<String>> {
            Ok(vec!["docs".to_owned()])
        }
        fn describe(&self, _: &str) -> Result<Description> {
            let state = self.0.lock().unwrap();
            let dim = if state.1.is_empty() { 0 } else { DIM };
            let generation = Generation::Number(state.0);
            Ok(Description {
                dim,
                rows: state.1.len(),
                generation,
                metric: None,
                source: "test://named".to_owned(),
            })
        }
        fn is_quick(&self) -> bool {
            true
        }
        fn pull(&self, collection: &str, sink: &mut dyn Sink, _: &Job) -> Result<()> {
            sink.begin(&self.describe(collection)?)?;
            let state = self.0.lock().unwrap();
            let ids = state.1.keys().map(|name| name.as_str().into()).collect();
            sink.push(Rows { ids: Ids::Names(ids), vectors: state.1.values().flatten().copied().collect() })
        }
        fn changes(&self, _: &str, since: &Generation) -> Result<Option<Changes>> {
            // Everything, every time: what is there already is updated.
            let Generation::Number(since) = since else { return Ok(None) };
            let state = self.0.lock().unwrap();
            if since % 5 == 0 {
                return Ok(None);
            }
            let names: Vec<Arc<str>> = state.1.keys().map(|name| name.as_str().into()).collect();
            let all = (0..30).map(|number| Arc::from(format!("n{number}")));
            Ok(Some(Changes {
                generation: Generation::Number(state.0),
                upserts: Rows {
                    vectors: state.1.values().flatten().copied().collect(),
                    ids: Ids::Names(names),
                },
                removed: Ids::Names(all.filter(|name: &Arc<str>| !state.1.contains_key(&**name)).collect()),
            }))
        }
    }
    let lake = lake(exact(Metric::L2), vec![Arc::new(Named(state.clone()))]);
    let target = Target::new("named", "docs");
    assert_eq!(find(&lake, &target, &[0.0; DIM], 3).unwrap(), []);
    let mut random = Random::new(3);
    for _ in 0..300 {
        {
            let mut state = state.lock().unwrap();
            state.0 += 1;
            let name = format!("n{}", random.below(30));
            if random.below(3) == 0 {
                state.1.remove(&name);
            } else {
                state.1.insert(name, random.gaussians(1, DIM));
            }
        }
        let query = random.gaussians(1, DIM);
        let found = find(&lake, &target, &query, 5).unwrap();
        let state = state.lock().unwrap();
        let mut wanted: Vec<(f64, &String)> = state
            .1
            .iter()
            .map(|(name, row)| {
                (row.iter().zip(&query).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>(), name)
            })
            .collect();
        wanted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let found: Vec<String> = found.iter().map(|hit| hit.id.to_string()).collect();
        assert_eq!(found, wanted.iter().take(5).map(|(_, name)| (*name).clone()).collect::<Vec<_>>());
    }
}

#[test]
fn backends_come_and_go() {
    let (one, _) = filled("one", "docs", 0..5, 1);
    let (two, _) = filled("two", "docs", 5..9, 2);
    let lake = lake(exact(Metric::L2), vec![one.clone(), two]);
    assert_eq!(lake.register(one).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let error = lake.find(None, "docs").unwrap_err();
    assert!(error.to_string().contains("search_federated"), "{error}");
    assert_eq!(lake.find(Some("two"), "docs").unwrap(), Target::new("two", "docs"));
    assert_eq!(lake.find(None, "nothing").unwrap_err().kind(), ErrorKind::UnknownCollection);
    find(&lake, &Target::new("one", "docs"), &[0.0; DIM], 1).unwrap();
    assert!(lake.find(None, "docs").is_err(), "to have searched one does not make it the one that is meant");
    lake.unregister("one").unwrap();
    assert_eq!(lake.stats().entries, 0);
    assert_eq!(lake.find(None, "docs").unwrap(), Target::new("two", "docs"));
    assert_eq!(lake.unregister("one").unwrap_err().kind(), ErrorKind::UnknownCollection);
}
