//! What a store as a backend promises.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use limnion_lake::{Backend, Description, Generation, Id, Ids, Rows, Sink, StoreBackend};
use limnion_store::column::{Span, Vectors};
use limnion_store::{
    AsOf, At, Batch, Body, KeyRange, Micros, Moment, Op, Options, Retention, Seq, Store, Vector, clock,
};
use limnion_types::{ErrorKind, Filter, Job, Result};
use proptest::prelude::*;
use tempfile::TempDir;

/// The collections that scripts write to: a namespace and the name of a vector.
const COLLECTIONS: [(&str, &str, &str); 3] = [("n", "n", ""), ("n/title", "n", "title"), ("m", "m", "")];
const DIM: usize = 3;

type Known = BTreeMap<String, Vec<f32>>;

/// What a pull gives.
#[derive(Default)]
struct Pulled {
    description: Option<Description>,
    rows: Known,
}

impl Sink for Pulled {
    fn begin(&mut self, description: &Description) -> Result<()> {
        assert!(self.description.replace(description.clone()).is_none(), "it begins once");
        Ok(())
    }

    fn push(&mut self, rows: Rows) -> Result<()> {
        let description = self.description.as_ref().expect("it begins first");
        add(&mut self.rows, rows, description.dim);
        Ok(())
    }
}

fn add(known: &mut Known, rows: Rows, dim: usize) {
    let Ids::Names(keys) = rows.ids else { panic!("keys are names") };
    assert_eq!(keys.len() * dim, rows.vectors.len());
    for (key, numbers) in keys.iter().zip(rows.vectors.chunks(dim.max(1))) {
        known.insert(key.to_string(), numbers.to_vec());
    }
}

fn pull(backend: &StoreBackend, collection: &str) -> (Known, Generation) {
    let mut pulled = Pulled::default();
    backend.pull(collection, &mut pulled, &Job::new()).unwrap();
    (pulled.rows, pulled.description.unwrap().generation)
}

/// What an index over a collection does: pulls once, and follows the changes.
#[derive(Default)]
struct Follower {
    state: Option<(Known, Generation)>,
    pulls: usize,
}

impl Follower {
    fn follow(&mut self, backend: &StoreBackend, collection: &str) -> &Known {
        let followed = self.state.take().and_then(|(mut known, generation)| {
            if backend.generation(collection).unwrap() == generation {
                return Some((known, generation));
            }
            let changes = backend.changes(collection, &generation).unwrap()?;
            let Ids::Names(removed) = changes.removed else { panic!("keys are names") };
            for key in &removed {
                known.remove(&**key);
            }
            add(&mut known, changes.upserts, DIM);
            Some((known, changes.generation))
        });
        self.pulls += usize::from(followed.is_none());
        let state = followed.unwrap_or_else(|| pull(backend, collection));
        &self.state.insert(state).0
    }
}

#[derive(Debug, Clone)]
struct Step {
    writes: Vec<Write>,
    /// Milliseconds that pass.
    pause: u64,
}

#[derive(Debug, Clone)]
struct Write {
    namespace: usize,
    key: u8,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    /// A vector of no name, one of a name, and how many milliseconds it lives.
    Put(Option<u8>, Option<u8>, Option<u64>),
    Delete,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let vector = || proptest::option::weighted(0.8, any::<u8>());
    let lives = proptest::option::weighted(0.3, prop_oneof![Just(0), Just(2), Just(5), Just(100_000)]);
    let what = prop_oneof![
        4 => (vector(), vector(), lives).prop_map(|(plain, title, lives)| What::Put(plain, title, lives)),
        1 => Just(What::Delete),
    ];
    let write = (0..2_usize, 0..6_u8, what).prop_map(|(namespace, key, what)| Write { namespace, key, what });
    let pause = prop_oneof![4 => Just(0), 1 => Just(3)];
    let step =
        (proptest::collection::vec(write, 1..5), pause).prop_map(|(writes, pause)| Step { writes, pause });
    proptest::collection::vec(step, 1..14)
}

fn numbers(seed: u8) -> Vec<f32> {
    vec![f32::from(seed), 1., -0.5]
}

/// The records as a naive replay has them: the vectors of each, and when it runs out.
type Naive = BTreeMap<(&'static str, String), (BTreeMap<&'static str, u8>, Option<Micros>)>;

fn play(store: &Store, naive: &mut Naive, step: &Step) {
    let mut ops = Vec::new();
    for Write { namespace, key, what } in &step.writes {
        let (namespace, key) = (["n", "m"][*namespace], format!("k{key}"));
        let name = (namespace, key.clone());
        ops.push(match what {
            What::Delete => {
                naive.remove(&name);
                Op::Delete { namespace: namespace.into(), key: key.into() }
            }
            What::Put(plain, title, lives) => {
                let named = [("", plain), ("title", title)];
                let vectors: BTreeMap<&'static str, u8> =
                    named.iter().filter_map(|(name, seed)| Some((*name, (**seed)?))).collect();
                let expires = lives.map(|lives| clock::now() + lives * 1000);
                naive.insert(name, (vectors.clone(), expires));
                let vectors = vectors.into_iter();
                let vectors =
                    vectors.map(|(name, seed)| Vector { name: name.into(), numbers: numbers(seed).into() });
                let body = Body { vectors: vectors.collect(), expires, ..Body::json(*b"{}") };
                Op::Put { namespace: namespace.into(), key: key.into(), body }
            }
        });
    }
    store.write(Batch { ops, conditions: Vec::new() }).unwrap();
    std::thread::sleep(Duration::from_millis(step.pause));
}

/// The rows of a collection, by what has been written, at two moments: between them anything may be true of what runs out.
fn expected(naive: &Naive, namespace: &str, name: &str, now: Micros) -> Known {
    let rows = naive.iter().filter(|((space, _), (_, expires))| {
        *space == namespace && expires.is_none_or(|expires| now < expires)
    });
    rows.filter_map(|((_, key), (vectors, _))| Some((key.clone(), numbers(*vectors.get(name)?)))).collect()
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Memory,
    Folder,
    Encrypted,
    Reopened,
    Retained,
}

fn options(kind: Kind, folder: &TempDir) -> Options {
    let on_disk = Options { durability: limnion_store::Durability::None, ..Options::folder(folder.path()) };
    match kind {
        Kind::Memory => Options::memory(),
        Kind::Folder | Kind::Reopened => on_disk,
        Kind::Encrypted => Options { key: Some([3; 32]), ..on_disk },
        Kind::Retained => Options {
            retention: Some(Retention {
                keep_last: Some(1),
                keep_for: Some(Duration::ZERO),
                keep_tagged: false,
            }),
            ..on_disk
        },
    }
}

/// Every version of every vector that a lake would have, kept current by the feed.
#[derive(Default)]
struct Spans {
    rows: Vec<(String, Span, Vec<f32>)>,
    generation: Option<Generation>,
}

impl Spans {
    fn follow(&mut self, backend: &StoreBackend, collection: &str) {
        let mut fresh = Vec::new();
        let mut take = |piece: Vectors| {
            let named = piece.keys.iter().zip(piece.spans).zip(piece.numbers.chunks(piece.dim));
            fresh.extend(named.map(|((key, span), numbers)| (key.to_string(), span, numbers.to_vec())));
            Ok(())
        };
        let generation = match self.generation.take() {
            None => backend.pull_history(collection, &Job::new(), &mut take).unwrap(),
            Some(since) => {
                let changes =
                    backend.history_since(collection, &since, &Job::new(), &mut take).unwrap().unwrap();
                for (key, to) in changes.ended {
                    for (_, span, _) in
                        self.rows.iter_mut().filter(|row| *row.0 == *key && row.1.to == Seq::MAX)
                    {
                        span.to = to;
                    }
                }
                changes.generation
            }
        };
        self.rows.extend(fresh);
        self.generation = Some(generation);
    }

    fn at(&self, moment: Moment) -> Known {
        let rows = self.rows.iter().filter(|(_, span, _)| span.covers(moment));
        let mut known = Known::new();
        for (key, _, numbers) in rows {
            assert_eq!(known.insert(key.clone(), numbers.clone()), None, "{key} twice at {moment:?}");
        }
        known
    }
}

/// The rows of a collection as the store itself reads them.
fn read(store: &Store, namespace: &str, name: &str, at: At) -> Known {
    let records = store.scan(namespace, &KeyRange::ALL, at, usize::MAX, false, true).unwrap();
    let vector = |record: &limnion_store::Record| {
        store.vectors(record).unwrap().into_iter().find(|vector| *vector.name == *name)
    };
    let rows =
        records.iter().filter_map(|record| Some((record.key.to_string(), vector(record)?.numbers.to_vec())));
    rows.collect()
}

fn check_script(kind: Kind, script: &[Step]) {
    let folder = TempDir::new().unwrap();
    let mut store = Store::open(options(kind, &folder)).unwrap();
    let mut backend = StoreBackend::new("db", store.clone());
    let mut naive = Naive::new();
    let mut followers: Vec<Follower> = (0..COLLECTIONS.len()).map(|_| Follower::default()).collect();
    let mut spans: Vec<Spans> = (0..COLLECTIONS.len()).map(|_| Spans::default()).collect();
    let (mut rare, mut times) = (Follower::default(), Vec::new());
    for (number, step) in script.iter().enumerate() {
        if matches!(kind, Kind::Reopened) && number % 3 == 2 {
            store.close().unwrap();
            drop((backend, store));
            store = Store::open(options(kind, &folder)).unwrap();
            backend = StoreBackend::new("db", store.clone());
        }
        if matches!(kind, Kind::Retained) && number % 4 == 3 {
            store.vacuum(&Job::new()).unwrap();
        }
        play(&store, &mut naive, step);
        times.push(clock::now());
        for ((collection, namespace, name), (follower, spans)) in
            COLLECTIONS.iter().zip(followers.iter_mut().zip(&mut spans))
        {
            if backend.generation(collection).is_err_and(|error| error.kind() == ErrorKind::UnknownCollection)
            {
                continue;
            }
            // What runs out while this is looked at may be there or not.
            loop {
                let before = expected(&naive, namespace, name, clock::now());
                let (followed, (pulled, _)) =
                    (follower.follow(&backend, collection), pull(&backend, collection));
                let selected = backend.select(collection, &Filter::All).unwrap().unwrap().0;
                if before == expected(&naive, namespace, name, clock::now()) {
                    assert_eq!(*followed, before, "{collection} by changes");
                    assert_eq!(pulled, before, "{collection} by pull");
                    let Ids::Names(keys) = selected else { panic!("keys are names") };
                    assert!(
                        keys.iter().map(|key| key.to_string()).eq(before.into_keys()),
                        "{collection} by filter"
                    );
                    break;
                }
            }
            if !matches!(kind, Kind::Retained) {
                spans.follow(&backend, collection);
            }
        }
        if number % 5 == 4 && backend.generation("n").is_ok() {
            loop {
                let before = expected(&naive, "n", "", clock::now());
                let followed = rare.follow(&backend, "n");
                if before == expected(&naive, "n", "", clock::now()) {
                    assert_eq!(*followed, before);
                    break;
                }
            }
        }
    }
    if matches!(kind, Kind::Retained) {
        return;
    }
    let head = store.head().unwrap().0;
    for ((collection, namespace, name), spans) in COLLECTIONS.iter().zip(&mut spans) {
        if backend.generation(collection).is_err() {
            continue;
        }
        let versions = (0..=head).map(|seq| (AsOf::Version(seq), At::Seq(seq)));
        let points = times.iter().flat_map(|&time| [time, time.saturating_sub(1500)]);
        let times = points.map(|time| (AsOf::Time(time), At::Time(time)));
        spans.follow(&backend, collection);
        let mut whole = Spans::default();
        whole.follow(&backend, collection);
        for (as_of, at) in versions.chain(times) {
            let moment = backend.moment(&as_of).unwrap();
            let wanted = read(&store, namespace, name, at);
            assert_eq!(spans.at(moment), wanted, "{collection} at {at:?} by the feed");
            assert_eq!(whole.at(moment), wanted, "{collection} at {at:?} by a pull");
        }
    }
    if matches!(kind, Kind::Memory | Kind::Folder) {
        assert!(followers.iter().all(|follower| follower.pulls <= 1), "changes are told");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn rows_are_those_of_a_naive_replay_and_spans_answer_every_version_in_memory(script in steps()) {
        check_script(Kind::Memory, &script);
    }

    #[test]
    fn rows_are_those_of_a_naive_replay_and_spans_answer_every_version_in_a_folder(script in steps()) {
        check_script(Kind::Folder, &script);
    }

    #[test]
    fn rows_are_those_of_a_naive_replay_and_spans_answer_every_version_encrypted(script in steps()) {
        check_script(Kind::Encrypted, &script);
    }

    #[test]
    fn rows_are_those_of_a_naive_replay_and_spans_answer_every_version_reopened(script in steps()) {
        check_script(Kind::Reopened, &script);
    }

    #[test]
    fn rows_are_those_of_a_naive_replay_where_retention_drops_history_and_log(script in steps()) {
        check_script(Kind::Retained, &script);
    }
}

fn vector(numbers: &[f32]) -> Vec<Vector> {
    vec![Vector { name: "".into(), numbers: numbers.into() }]
}

fn put(key: &str, numbers: &[f32]) -> Op {
    let body = Body { vectors: vector(numbers), ..Body::json(*b"{}") };
    Op::Put { namespace: "n".into(), key: key.into(), body }
}

fn write(store: &Store, ops: impl Into<Vec<Op>>) -> Seq {
    store.write(Batch { ops: ops.into(), conditions: Vec::new() }).unwrap().version
}

fn in_memory() -> (Store, StoreBackend) {
    let store = Store::open(Options::memory()).unwrap();
    (store.clone(), StoreBackend::new("db", store))
}

#[test]
fn collections_are_namespaces_with_vectors_and_their_names() {
    let folder = TempDir::new().unwrap();
    for options in [Options::memory(), Options { key: Some([1; 32]), ..Options::folder(folder.path()) }] {
        let store = Store::open(options).unwrap();
        let backend = StoreBackend::new("db", store.clone());
        assert_eq!(backend.collections().unwrap(), [""; 0]);
        let unknown = backend.describe("n").unwrap_err();
        assert_eq!(unknown.kind(), ErrorKind::UnknownCollection);
        let title = Vector { name: "a/b".into(), numbers: [1., 2., 3.].into() };
        let body = Body { vectors: vec![title], ..Body::json(*b"1") };
        let plain = Op::Put { namespace: "plain".into(), key: "k".into(), body: Body::json(*b"1") };
        write(
            &store,
            [put("a", &[1., 2.]), Op::Put { namespace: "ü ?".into(), key: "k".into(), body }, plain],
        );
        assert_eq!(backend.collections().unwrap(), ["n", "ü ?/a/b"]);
        let named = backend.describe("ü ?/a/b").unwrap();
        assert_eq!((named.dim, named.rows), (3, 1));
        assert!(named.source.ends_with("/%C3%BC%20%3F/a%2Fb"), "{}", named.source);
        assert_eq!(pull(&backend, "ü ?/a/b").0.len(), 1);
        let empty = backend.describe("plain").unwrap();
        assert_eq!((empty.dim, pull(&backend, "plain").0.len()), (0, 0));
        for odd in ["n/", "n/other", "/", "other", ""] {
            let error = backend.generation(odd).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnknownCollection, "{odd}: {error}");
        }
    }
}

#[test]
fn vectors_of_two_dimensions_are_told_with_two_keys() {
    let (store, backend) = in_memory();
    write(&store, [put("a", &[1., 2.])]);
    let generation = pull(&backend, "n").1;
    write(&store, [put("b", &[1., 2., 3.])]);
    assert_eq!(backend.changes("n", &generation).unwrap(), None, "a pull tells what is wrong");
    let error = backend.pull("n", &mut Pulled::default(), &Job::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backend);
    assert!(error.message().contains("\"a\" has 2, and \"b\" has 3"), "{error}");
    write(&store, [put("a", &[1., 2., 3.])]);
    assert_eq!(pull(&backend, "n").0.len(), 2);
}

#[test]
fn what_a_sink_says_stays_as_it_is() {
    struct Full;
    impl Sink for Full {
        fn begin(&mut self, _: &Description) -> Result<()> {
            Ok(())
        }

        fn push(&mut self, _: Rows) -> Result<()> {
            Err(limnion_types::Error::new(ErrorKind::Lake, "the lake is full"))
        }
    }
    let (store, backend) = in_memory();
    write(&store, [put("a", &[1.])]);
    assert_eq!(backend.pull("n", &mut Full, &Job::new()).unwrap_err().kind(), ErrorKind::Lake);
    let job = Job::new();
    job.cancel();
    assert_eq!(backend.pull("n", &mut Pulled::default(), &job).unwrap_err().kind(), ErrorKind::Cancelled);
    store.close().unwrap();
    let error = backend.generation("n").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backend);
    assert!(error.message().contains("db"), "{error}");
}

#[test]
fn who_waits_is_woken_by_a_commit_to_the_collection_alone() {
    let (store, backend) = in_memory();
    write(&store, [put("a", &[1.])]);
    let from = backend.generation("n").unwrap();
    let (sender, woken) = mpsc::channel();
    let bell = |sender: &mpsc::Sender<()>| -> Box<dyn FnOnce() + Send> {
        let sender = sender.clone();
        Box::new(move || sender.send(()).unwrap())
    };
    assert!(backend.when_changed("n", &from, bell(&sender)));
    write(&store, [Op::Put { namespace: "m".into(), key: "k".into(), body: Body::json(*b"1") }]);
    assert!(woken.recv_timeout(Duration::from_millis(30)).is_err());
    write(&store, [put("b", &[2.])]);
    woken.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(backend.when_changed("n", &from, bell(&sender)), "it is not of that generation any more");
    woken.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(!backend.when_changed("unknown", &from, bell(&sender)));
    // A record that runs out changes the collection, too.
    let expires = Some(clock::now() + 20_000);
    let body = Body { vectors: vector(&[3.]), expires, ..Body::json(*b"1") };
    write(&store, [Op::Put { namespace: "n".into(), key: "c".into(), body }]);
    let from = backend.generation("n").unwrap();
    assert!(backend.when_changed("n", &from, bell(&sender)));
    woken.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_ne!(backend.generation("n").unwrap(), from);
    // Nothing keeps the store from being closed by the last who has it.
    let from = backend.generation("n").unwrap();
    assert!(backend.when_changed("n", &from, bell(&sender)));
    drop((store, backend));
    woken.recv_timeout(Duration::from_secs(10)).unwrap();
}

#[test]
fn text_finds_rows_only() {
    let (store, backend) = in_memory();
    let with = |key: &str, text: &str, vectors: Vec<Vector>| Op::Put {
        namespace: "n".into(),
        key: key.into(),
        body: Body { text: Some(text.into()), vectors, ..Body::json(*b"{}") },
    };
    let mut ops: Vec<Op> = (0..30).map(|at| with(&format!("x{at}"), "cold lake", Vec::new())).collect();
    ops.push(with("a", "a cold lake in the hills, far from here", vector(&[1.])));
    ops.push(with("b", "a warm sea", vector(&[1.])));
    write(&store, ops);
    let hits = backend.text_search("n", "lake", 2).unwrap().unwrap();
    assert_eq!(hits.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>(), [Id::Name("a".into())]);
    assert!(hits[0].1 > 0.);
}

#[test]
fn each_pull_is_the_state_at_its_generation_while_others_write() {
    let folder = TempDir::new().unwrap();
    for options in [
        Options::memory(),
        Options { durability: limnion_store::Durability::None, ..Options::folder(folder.path()) },
    ] {
        let store = Store::open(options).unwrap();
        let backend = StoreBackend::new("db", store.clone());
        write(&store, [put("start", &[0., 0.])]);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..2)
                .map(|writer| {
                    let store = &store;
                    scope.spawn(move || {
                        for number in 0..250 {
                            let ops: Vec<Op> = (0..3)
                                .map(|at| {
                                    put(
                                        &format!("{writer}-{}", (number + at * 7) % 40),
                                        &[number as f32, writer as f32],
                                    )
                                })
                                .collect();
                            write(store, ops);
                            if number % 5 == 0 {
                                let key = format!("{writer}-{}", number % 40).into();
                                write(store, [Op::Delete { namespace: "n".into(), key }]);
                            }
                        }
                    })
                })
                .collect();
            let follow = scope.spawn(|| {
                let (mut follower, mut looks) = (Follower::default(), 0);
                while !over.load(Ordering::SeqCst) {
                    let (rows, generation) = pull(&backend, "n");
                    let version = StoreBackend::version(&generation).unwrap();
                    assert_eq!(rows, read(&store, "n", "", At::Seq(version)));
                    let known = follow_two(&mut follower, &backend);
                    let version = StoreBackend::version(&follower.state.as_ref().unwrap().1).unwrap();
                    assert_eq!(known, read(&store, "n", "", At::Seq(version)));
                    looks += 1;
                }
                looks
            });
            for writer in writers {
                writer.join().unwrap();
            }
            over.store(true, Ordering::SeqCst);
            assert!(follow.join().unwrap() > 0);
        });
    }
}

/// [`Follower::follow`] for vectors of two dimensions.
fn follow_two(follower: &mut Follower, backend: &StoreBackend) -> Known {
    let followed = follower.state.take().and_then(|(mut known, generation)| {
        let changes = backend.changes("n", &generation).unwrap()?;
        let Ids::Names(removed) = changes.removed else { panic!("keys are names") };
        for key in &removed {
            known.remove(&**key);
        }
        add(&mut known, changes.upserts, 2);
        Some((known, changes.generation))
    });
    let state = followed.unwrap_or_else(|| pull(backend, "n"));
    follower.state.insert(state).0.clone()
}

#[test]
fn a_reader_beside_a_writer_follows_him_whatever_he_drops() {
    let folder = TempDir::new().unwrap();
    let retention = Some(Retention { keep_last: Some(1), keep_for: None, keep_tagged: false });
    let writer = Store::open(Options { retention, ..Options::folder(folder.path()) }).unwrap();
    write(&writer, [put("a", &[1., 1., 1.]), put("b", &[2., 2., 2.])]);
    let reader = Store::open(Options { read_only: true, ..Options::folder(folder.path()) }).unwrap();
    let backend = StoreBackend::new("db", reader);
    assert!(!backend.is_quick());
    assert_eq!(
        backend.describe("n").unwrap().source,
        StoreBackend::new("other", writer.clone()).describe("n").unwrap().source
    );
    let mut follower = Follower::default();
    assert_eq!(follower.follow(&backend, "n").len(), 2);
    let (sender, woken) = mpsc::channel();
    let from = backend.generation("n").unwrap();
    assert!(backend.when_changed("n", &from, Box::new(move || sender.send(()).unwrap())));
    write(&writer, [put("a", &[3., 3., 3.]), put("c", &[4., 4., 4.])]);
    woken.recv_timeout(Duration::from_secs(10)).unwrap();
    writer.vacuum(&Job::new()).unwrap();
    assert_eq!(follower.follow(&backend, "n")["a"], [3., 3., 3.]);
    assert_eq!((follower.state.as_ref().unwrap().0.len(), follower.pulls), (3, 1));
    // A record that runs out is gone without anybody writing that down.
    let expires = clock::now() + 30_000;
    let body = Body { vectors: vector(&[5., 5., 5.]), expires: Some(expires), ..Body::json(*b"1") };
    write(&writer, [Op::Put { namespace: "n".into(), key: "d".into(), body }]);
    drop(writer);
    if clock::now() < expires {
        let _ = follower.follow(&backend, "n");
    }
    while clock::now() < expires {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(!follower.follow(&backend, "n").contains_key("d"));
}

#[test]
fn a_copy_that_went_its_own_way_is_not_taken_for_the_store() {
    let (first, second) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = Store::open(Options::folder(first.path())).unwrap();
    write(&store, [put("a", &[1.])]);
    store.close().unwrap();
    drop(store);
    // Copied file by file, so that it has the same number.
    for part in ["", "segments"] {
        std::fs::create_dir_all(second.path().join(part)).unwrap();
        for entry in std::fs::read_dir(first.path().join(part)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), second.path().join(part).join(entry.file_name())).unwrap();
            }
        }
    }
    let open =
        |folder: &TempDir| StoreBackend::new("db", Store::open(Options::folder(folder.path())).unwrap());
    let (here, there) = (open(&first), open(&second));
    assert_eq!(here.generation("n").unwrap(), there.generation("n").unwrap(), "they are the same so far");
    assert_eq!(write(here.store(), [put("b", &[2.])]), write(there.store(), [put("c", &[3.])]));
    let generation = here.generation("n").unwrap();
    assert_ne!(there.generation("n").unwrap(), generation);
    assert_eq!(there.changes("n", &generation).unwrap(), None);
    write(there.store(), [put("d", &[4.])]);
    assert_eq!(there.changes("n", &generation).unwrap(), None);
    let odd =
        [Generation::Number(1), Generation::Name("x".into()), Generation::Name("99-0000000000000000".into())];
    for odd in odd {
        assert_eq!(here.changes("n", &odd).unwrap(), None);
        assert_eq!(here.history_since("n", &odd, &Job::new(), &mut |_| Ok(())).unwrap(), None);
    }
}

#[test]
fn what_is_unchanged_is_told_so_after_reopening() {
    let folder = TempDir::new().unwrap();
    let open = || StoreBackend::new("db", Store::open(Options::folder(folder.path())).unwrap());
    let backend = open();
    write(backend.store(), [put("a", &[1.])]);
    let generation = pull(&backend, "n").1;
    write(backend.store(), [Op::Put { namespace: "m".into(), key: "k".into(), body: Body::json(*b"1") }]);
    assert_eq!(backend.generation("n").unwrap(), generation);
    backend.store().close().unwrap();
    drop(backend);
    let backend = open();
    let changes = backend.changes("n", &generation).unwrap().unwrap();
    assert!(changes.upserts.ids.is_empty() && changes.removed.is_empty());
    assert_eq!(changes.generation, backend.generation("n").unwrap());
}

#[test]
#[ignore = "a measurement"]
fn how_quick_it_is() {
    let folder = TempDir::new().unwrap();
    let backend = StoreBackend::new("db", Store::open(Options::folder(folder.path())).unwrap());
    let (count, dim) = (100_000_usize, 384);
    for part in (0..count).collect::<Vec<_>>().chunks(5_000) {
        let row = |at: usize| (0..dim).map(|d| (at * dim + d) as f32).collect::<Vec<_>>();
        let ops: Vec<Op> = part.iter().map(|&at| put(&format!("document-{at:08}"), &row(at))).collect();
        write(backend.store(), ops);
    }
    struct Count(usize);
    impl Sink for Count {
        fn begin(&mut self, _: &Description) -> Result<()> {
            Ok(())
        }

        fn push(&mut self, rows: Rows) -> Result<()> {
            self.0 += rows.ids.len();
            Ok(())
        }
    }
    for _ in 0..5 {
        let (began, mut sink) = (Instant::now(), Count(0));
        backend.pull("n", &mut sink, &Job::new()).unwrap();
        let spent = began.elapsed().as_secs_f64();
        println!("pull: {} rows in {spent:.3} s, {:.0} a second", sink.0, sink.0 as f64 / spent);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    println!("{:?}", status.lines().find(|line| line.starts_with("VmHWM")));
    let began = Instant::now();
    for _ in 0..1_000_000 {
        backend.generation("n").unwrap();
    }
    println!("generation: {:.0} ns", began.elapsed().as_secs_f64() * 1e3);
    let generation = backend.generation("n").unwrap();
    write(backend.store(), [put("one", &vec![0.5; dim])]);
    let began = Instant::now();
    let changes = backend.changes("n", &generation).unwrap().unwrap();
    println!("changes of one row: {:?}", began.elapsed());
    assert_eq!(changes.upserts.ids.len(), 1);
}
