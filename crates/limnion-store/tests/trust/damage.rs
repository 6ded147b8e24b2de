//! Damaged files: whatever byte of a store is not what it was, no read gives a wrong answer without a word.
//!
//! A small store that has everything in it is damaged in one place, opened, and asked everything. Each answer must be the
//! one that the whole store gives, or an error that says that something is damaged; `check` must find whatever changed an
//! answer. What a read cannot notice is counted by what it is, and `docs/trust.md` has the figures.
//!
//! `LIMNION_FLIPS` sets how many bytes have a bit flipped (0: every one), `LIMNION_SEED` which (`make campaign-damage`).

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use limnion_store::{AsOf, At, Batch, Body, KeyRange, Kind, Op, Options, Record, Store, Vector};
use limnion_types::{Error, ErrorKind, Filter, Job, Result};

use crate::workload::{Random, quick_folder, size};

/// All files of a store.
type Image = BTreeMap<PathBuf, Vec<u8>>;

fn load(root: &Path) -> Image {
    let mut image = Image::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("lock") && !path.to_string_lossy().ends_with("-shm") {
                image.insert(path.strip_prefix(root).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    image
}

/// Makes a folder hold just these files.
fn store(image: &Image, root: &Path) {
    std::fs::create_dir_all(root.join("segments")).unwrap();
    for folder in [root.to_owned(), root.join("segments")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && !image.contains_key(path.strip_prefix(root).unwrap()) {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
    for (name, bytes) in image {
        std::fs::write(root.join(name), bytes).unwrap();
    }
}

fn options(path: &Path) -> Options {
    // Nothing is kept in memory: each answer comes from the file.
    Options { max_memory: 0, ..Options::folder(path) }
}

fn put(namespace: &str, key: &str, body: Body) -> Op {
    Op::Put { namespace: namespace.into(), key: key.into(), body }
}

/// A store of about `scale` times a hundred KiB, closed or as a crash leaves it.
fn sample(scale: u64, closed: bool) -> Image {
    let place = quick_folder();
    let path = place.path().join("store");
    let mut random = Random(7);
    let mut body = |namespace: &str, key: u64, length: u64| {
        let filling: String = (0..length).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
        let mut body = Body::json(format!(r#"{{"key":{key},"filling":"{filling}"}}"#).into_bytes());
        if namespace == "b" {
            body.metadata = Some(format!(r#"{{"shade":{}}}"#, key % 5).into());
            body.text = Some(format!("lake {} layer {} of {filling}", key % 3, key % 7).into());
        }
        if key % 9 == 4 {
            body.expires = Some(4_000_000_000_000_000 + key);
        }
        body
    };
    let store = Store::open(options(&path)).unwrap();
    store.create_index("b", "shade", &Arc::new(Job::new())).unwrap();
    for round in 0..3 {
        for key in 0..6 * scale {
            let namespace = if key % 3 == 0 { "b" } else { "a" };
            let ops = [
                put(namespace, &format!("key-{key:03}"), body(namespace, key, 40 + key % 7 * 300)),
                put(namespace, &format!("other-{}-{round}", key * 7919 % 100), body(namespace, key, 90)),
            ];
            store.write(Batch { ops: ops.into(), conditions: Vec::new() }).unwrap();
        }
        store.set_tag(&format!("round-{round}"), At::Latest, false).unwrap();
    }
    // One with many versions, most of them packed; some that are gone.
    for version in 0..60 {
        let ops = [put("a", "many", body("a", version, 60))];
        store.write(Batch { ops: ops.into(), conditions: Vec::new() }).unwrap();
    }
    for key in [1, 4, 9] {
        let namespace = if key % 3 == 0 { "b" } else { "a" };
        let ops = vec![Op::Delete { namespace: namespace.into(), key: format!("key-{key:03}").into() }];
        store.write(Batch { ops, conditions: Vec::new() }).unwrap();
    }
    for key in 0..scale / 3 + 1 {
        let mut large = body("b", key, 66_000);
        large.text = None;
        large.vectors =
            vec![Vector { name: "".into(), numbers: (0..64).map(|at| (key * 64 + at) as f32).collect() }];
        let ops = [put("b", &format!("large-{key}"), large)];
        store.write(Batch { ops: ops.into(), conditions: Vec::new() }).unwrap();
    }
    store.vacuum(&Job::new()).unwrap();
    if closed {
        store.close().unwrap();
        return load(&path);
    }
    for key in 0..4 * scale {
        let ops = [put("a", &format!("key-{key:03}"), body("a", key, 100))];
        store.write(Batch { ops: ops.into(), conditions: Vec::new() }).unwrap();
    }
    load(&path)
}

/// Something that can be asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Get(String, String, At2),
    Absent(String, String),
    History(String, String),
    Scan(String, At2, bool),
    Query(String, u64),
    Text(String, String, At2),
    Tag(String),
    Tags,
    Namespaces,
    Changes,
}

/// `At`, in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum At2 {
    Latest,
    Seq(u64),
    Time(u64),
}

impl At2 {
    fn at(self) -> At {
        match self {
            At2::Latest => At::Latest,
            At2::Seq(seq) => At::Seq(seq),
            At2::Time(time) => At::Time(time),
        }
    }
}

impl Question {
    /// What kind of question it is, for counting.
    fn class(&self) -> &'static str {
        match self {
            Question::Get(_, _, At2::Latest) => "get",
            Question::Get(..) => "get_at",
            Question::Absent(..) => "get of nothing",
            Question::History(..) => "history",
            Question::Scan(_, At2::Latest, true) => "scan",
            Question::Scan(_, At2::Latest, false) => "keys",
            Question::Scan(..) => "scan_at",
            Question::Query(..) => "query by index",
            Question::Text(_, _, At2::Latest) => "text_search",
            Question::Text(..) => "text_search_at",
            Question::Tag(_) => "tag",
            Question::Tags => "tags",
            Question::Namespaces => "namespaces",
            Question::Changes => "changes",
        }
    }

    /// Everything in an answer, in words.
    fn ask(&self, store: &Store) -> Result<Vec<String>> {
        let job = Job::new();
        let all = usize::MAX;
        let records = |records: Vec<Record>, payloads: bool| -> Result<Vec<String>> {
            records.iter().map(|record| told(store, record, payloads)).collect()
        };
        match self {
            Question::Get(namespace, key, at) => match store.get(namespace, key, at.at()) {
                Ok(found) => found.iter().map(|record| told(store, record, true)).collect(),
                Err(error) if error.kind() == ErrorKind::NoValueAtTime => Ok(vec!["none yet".to_owned()]),
                Err(error) => Err(error),
            },
            Question::Absent(namespace, key) => Ok(store
                .get(namespace, key, At::Latest)?
                .iter()
                .map(|record| record.key.to_string())
                .collect()),
            Question::History(namespace, key) => {
                records(store.history(namespace, key, None, At::Latest, all)?, true)
            }
            Question::Scan(namespace, at, payloads) => {
                records(store.scan(namespace, &KeyRange::ALL, at.at(), all, false, *payloads)?, *payloads)
            }
            Question::Query(namespace, shade) => {
                let filter = Filter::from_text(&format!("shade = {shade}"))?;
                records(store.query(namespace, &filter, &[], 0, all, At::Latest, &job)?.records, true)
            }
            Question::Text(namespace, words, at) => store
                .text_search(namespace, words, all, None, at.at(), &job)?
                .iter()
                .map(|hit| Ok(format!("{} {}", hit.score.to_bits(), told(store, &hit.record, true)?)))
                .collect(),
            Question::Tag(name) => match store.resolve(&AsOf::Tag(name.clone())) {
                Ok(at) => Ok(vec![format!("{at:?}")]),
                // A name that is not there is an error, and no wrong answer.
                Err(error) if error.kind() == ErrorKind::Validation => {
                    Err(Error::new(ErrorKind::Corruption, "the tag is not there"))
                }
                Err(error) => Err(error),
            },
            Question::Tags => Ok(store.tags()?.iter().map(|tag| format!("{tag:?}")).collect()),
            Question::Namespaces => store.namespaces(),
            Question::Changes => {
                let mut told_of = Vec::new();
                let changes = match store.changes(None, 0, all) {
                    Err(error) if error.kind() == ErrorKind::NoValueAtTime => return Ok(Vec::new()),
                    changes => changes?.0,
                };
                for event in changes {
                    let record = event.record.as_ref().map(|record| told(store, record, true)).transpose()?;
                    told_of.push(format!("{} {} {record:?}", event.version, event.time));
                }
                Ok(told_of)
            }
        }
    }
}

fn told(store: &Store, record: &Record, payloads: bool) -> Result<String> {
    let Record { namespace, key, version, time, previous, kind, expires, .. } = record;
    let mut told = format!("{namespace}/{key} {version} {time} {previous} {kind:?} {expires:?}");
    if payloads && *kind == Kind::Put {
        let body = record.payload.to_body(None);
        let vectors = store.vectors(record)?;
        let mut hasher = std::hash::DefaultHasher::new();
        std::hash::Hash::hash(&(&body.value, &body.metadata, &body.text), &mut hasher);
        for vector in vectors {
            let numbers: Vec<u32> = vector.numbers.iter().map(|number| number.to_bits()).collect();
            std::hash::Hash::hash(&(&vector.name, numbers), &mut hasher);
        }
        told.push_str(&format!(" {:?} {:x}", body.content, std::hash::Hasher::finish(&hasher)));
    }
    Ok(told)
}

/// Everything that can be asked of a store, with the answers of the whole one.
fn questions(store: &Store) -> Vec<(Question, Vec<String>)> {
    let mut all = vec![Question::Tags, Question::Namespaces, Question::Changes];
    let head = store.head().unwrap().0;
    for namespace in store.namespaces().unwrap() {
        let name = || namespace.clone();
        for at in [At2::Latest, At2::Seq(head / 2), At2::Seq(head / 5)] {
            all.push(Question::Scan(name(), at, true));
            all.push(Question::Text(name(), "lake 1".to_owned(), at));
        }
        all.push(Question::Scan(name(), At2::Latest, false));
        all.push(Question::Query(name(), 2));
        all.push(Question::Text(name(), "lay* -2".to_owned(), At2::Latest));
        let mut keys: Vec<String> = (0..200).map(|key| format!("key-{key:03}")).collect();
        let live = store.scan(&name(), &KeyRange::ALL, At::Latest, usize::MAX, false, false).unwrap();
        keys.extend(live.iter().map(|record| record.key.to_string()));
        keys.sort();
        keys.dedup();
        for key in keys {
            let history = store.history(&name(), &key, None, At::Latest, usize::MAX).unwrap();
            if history.is_empty() {
                if key.ends_with('7') {
                    all.push(Question::Absent(name(), key));
                }
                continue;
            }
            all.push(Question::Get(name(), key.clone(), At2::Latest));
            all.push(Question::History(name(), key.clone()));
            for record in history.iter().rev().take(3) {
                all.push(Question::Get(name(), key.clone(), At2::Seq(record.version)));
                all.push(Question::Get(name(), key.clone(), At2::Seq(record.version - 1)));
                all.push(Question::Get(name(), key.clone(), At2::Time(record.time)));
            }
        }
    }
    for tag in store.tags().unwrap() {
        all.push(Question::Tag(tag.name));
    }
    all.into_iter()
        .map(|question| {
            let answer = question.ask(store).unwrap();
            (question, answer)
        })
        .collect()
}

/// What came of one damage.
#[derive(Debug, Default)]
struct Outcome {
    /// The store could not be opened, or said at once what is wrong.
    told_at_open: bool,
    /// Questions that were answered by an error.
    errors: usize,
    first_error: String,
    /// Questions that were answered wrongly, without a word.
    wrong: Vec<(Question, Vec<String>)>,
    /// Errors that are of none of the kinds that speak of damage.
    odd: Vec<String>,
    /// What `check` found; `None` where it was not asked.
    checked: Option<bool>,
}

fn speaks_of_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corruption | ErrorKind::NewerDatabase)
}

/// `thorough` asks `check` also where every wrong answer was an error.
fn examine(path: &Path, writable: bool, thorough: bool, asked: &[(Question, Vec<String>)]) -> Outcome {
    let mut outcome = Outcome::default();
    let store = match Store::open(Options { read_only: !writable, ..options(path) }) {
        Ok(store) => store,
        Err(error) => {
            outcome.told_at_open = true;
            if !speaks_of_damage(&error) && error.kind() != ErrorKind::Validation {
                outcome.odd.push(format!("open: {error:?}"));
            }
            return outcome;
        }
    };
    outcome.told_at_open = !store.issues().is_empty();
    for (question, wanted) in asked {
        match question.ask(&store) {
            Ok(answer) if answer == *wanted => {}
            Ok(answer) => outcome.wrong.push((question.clone(), answer)),
            Err(error) => {
                outcome.errors += 1;
                if outcome.errors == 1 {
                    outcome.first_error = format!("{question:?}: {error}");
                }
                if !speaks_of_damage(&error) {
                    outcome.odd.push(format!("{question:?}: {error:?}"));
                }
            }
        }
    }
    if !outcome.wrong.is_empty() || (thorough && outcome.errors > 0) {
        let report = store.check(&Job::new());
        outcome.checked = Some(report.map_or(true, |report| !report.problems.is_empty()));
    }
    if let Err(error) = store.close()
        && !speaks_of_damage(&error)
    {
        outcome.odd.push(format!("close: {error:?}"));
    }
    outcome
}

/// What came of many.
#[derive(Default)]
struct Tally {
    trials: u64,
    at_open: u64,
    by_errors: u64,
    silent: BTreeMap<&'static str, u64>,
    unchecked: Vec<String>,
    odd: Vec<String>,
    examples: Vec<String>,
}

impl Tally {
    fn add(&mut self, what: &str, outcome: &Outcome, asked: &[(Question, Vec<String>)]) {
        self.trials += 1;
        self.at_open += u64::from(outcome.told_at_open);
        self.by_errors += u64::from(!outcome.told_at_open && outcome.errors > 0);
        if outcome.checked == Some(false) && !outcome.told_at_open {
            self.unchecked.push(format!("{what}: {outcome:?}"));
        }
        self.odd.extend(outcome.odd.iter().map(|odd| format!("{what}: {odd}")));
        if outcome.told_at_open {
            return; // what is wrong has been said
        }
        let mut classes: Vec<_> = outcome.wrong.iter().map(|(question, _)| question.class()).collect();
        classes.sort_unstable();
        classes.dedup();
        for class in classes {
            *self.silent.entry(class).or_default() += 1;
            if self.silent[class] <= 5 {
                let (question, answer) =
                    outcome.wrong.iter().find(|(question, _)| question.class() == class).unwrap();
                let wanted = &asked.iter().find(|(known, _)| known == question).unwrap().1;
                let short = |answer: &[String]| {
                    let mut text =
                        format!("{} {:?}", answer.len(), answer.iter().take(2).collect::<Vec<_>>());
                    text.truncate(300);
                    text
                };
                self.examples.push(format!(
                    "{what}: {question:?}: {} instead of {}, {} errors",
                    short(answer),
                    short(wanted),
                    outcome.errors
                ));
            }
        }
    }

    fn print(&self, title: &str, began: Instant) {
        println!(
            "{title}: {} trials in {:.0} s; told at open {}, by errors of reads {}; answered wrongly without a word: {:?}; \
             not found by check {}; odd errors {}",
            self.trials,
            began.elapsed().as_secs_f64(),
            self.at_open,
            self.by_errors,
            self.silent,
            self.unchecked.len(),
            self.odd.len()
        );
        for line in self.examples.iter().chain(self.unchecked.iter().take(20)).chain(self.odd.iter().take(20))
        {
            let line: String = line.chars().take(900).collect();
            println!("    {line}");
        }
    }
}

/// Runs trials on two threads; each gives its name, and damages an image.
fn campaign(
    image: &Image,
    asked: &[(Question, Vec<String>)],
    trials: u64,
    damage: impl Fn(u64, &mut Image) -> String + Sync,
) -> Tally {
    let next = AtomicU64::new(0);
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let place = quick_folder();
                let path = place.path().join("store");
                loop {
                    let trial = next.fetch_add(1, Ordering::Relaxed);
                    if trial >= trials {
                        break;
                    }
                    if trial > 0 && trial.is_multiple_of(20_000) {
                        println!("{trial} of {trials}");
                    }
                    let mut damaged = image.clone();
                    let what = damage(trial, &mut damaged);
                    store(&damaged, &path);
                    let began = Instant::now();
                    // Of a hundred thousand, a quarter.
                    let thorough = trials < 100_000 || trial % 8 < 2;
                    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
                        examine(&path, trial.is_multiple_of(2), thorough, asked)
                    }));
                    let took = began.elapsed();
                    let mut tally = tally.lock().unwrap();
                    match outcome {
                        Ok(outcome) => tally.add(&what, &outcome, asked),
                        Err(_) => tally.odd.push(format!("{what}: panicked")),
                    }
                    if took > Duration::from_secs(5) {
                        tally.odd.push(format!("{what}: took {took:?}"));
                    }
                }
            });
        }
    });
    tally.into_inner().unwrap()
}

/// The bytes of all files, one after the other.
fn byte_at(image: &Image, mut at: u64) -> (PathBuf, usize) {
    for (name, bytes) in image {
        if at < bytes.len() as u64 {
            return (name.clone(), at as usize);
        }
        at -= bytes.len() as u64;
    }
    panic!("there is no such byte")
}

fn offset_of_log(image: &Image) -> u64 {
    let before = image.iter().take_while(|(name, _)| !name.ends_with("store.limn-wal"));
    before.map(|(_, bytes)| bytes.len() as u64).sum()
}

fn total(image: &Image) -> u64 {
    image.values().map(|bytes| bytes.len() as u64).sum()
}

fn ask_whole(image: &Image) -> Vec<(Question, Vec<String>)> {
    let place = quick_folder();
    let path = place.path().join("store");
    store(image, &path);
    let store = Store::open(options(&path)).unwrap();
    let asked = questions(&store);
    assert_eq!(store.check(&Job::new()).unwrap().problems, [""; 0]);
    asked
}

#[test]
fn a_flipped_bit_is_never_read_as_if_it_were_right() {
    let (flips, seed) = (size("LIMNION_FLIPS", 400), size("LIMNION_SEED", 1));
    for (title, closed) in [("closed", true), ("crashed", false)] {
        let image = sample(size("LIMNION_SCALE", 2), closed);
        let asked = ask_whole(&image);
        // What has been moved into the file is flipped in the closed one.
        let first = if closed || flips > 0 { 0 } else { offset_of_log(&image) };
        let bytes = total(&image) - first;
        println!("{title}: {bytes} bytes, {} questions", asked.len());
        let began = Instant::now();
        let trials = if flips == 0 { bytes } else { flips / 2 };
        let mut tally = campaign(&image, &asked, trials, |trial, image| {
            let mut random = Random(seed << 32 | trial);
            let at = if flips == 0 { trial } else { random.below(bytes) };
            let (name, at) = byte_at(image, first + at);
            let bit = random.below(8);
            image.get_mut(&name).unwrap()[at] ^= 1 << bit;
            format!("{} byte {at} (page {} + {}) bit {bit}", name.display(), at / 4096 + 1, at % 4096)
        });
        tally.print(title, began);
        assert_eq!(tally.odd, [""; 0], "errors that do not speak of damage, panics, hangs");
        assert_eq!(tally.unchecked, [""; 0], "check finds whatever changes an answer");
        // The full-text index has no hashes: what is damaged in it may hide a match, which check finds.
        tally.silent.remove("text_search");
        assert!(tally.silent.is_empty(), "answered wrongly without a word: {:?}", tally.silent);
    }
}

#[test]
fn a_log_that_is_cut_gives_a_state_there_was_and_says_what_is_lost() {
    // One commit after another, each in the log alone; what every commit left behind is asked of the whole store.
    let place = quick_folder();
    let path = place.path().join("store");
    let whole = Store::open(options(&path)).unwrap();
    let commits = 12;
    for number in 1..=commits {
        let ops = [
            put(
                "n",
                &format!("key-{}", number % 5),
                Body::json(format!("{{\"number\":{number}}}").into_bytes()),
            ),
            put("n", &format!("own-{number}"), Body::json("1".as_bytes().to_vec())),
        ];
        whole.write(Batch { ops: ops.into(), conditions: Vec::new() }).unwrap();
    }
    let image = load(&path);
    let state = |store: &Store, at: At| -> Vec<String> {
        let records = store.scan("n", &KeyRange::ALL, at, usize::MAX, false, true).unwrap();
        records.iter().map(|record| told(store, record, true).unwrap()).collect()
    };
    let mut states = vec![Vec::new()];
    states.extend((1..=commits).map(|seq| state(&whole, At::Seq(seq))));
    whole.close().unwrap();
    let log = image.keys().find(|name| name.ends_with("store.limn-wal")).unwrap().clone();
    let length = image[&log].len() as u64;
    let cuts = match size("LIMNION_CUTS", 150) {
        0 => (0..=length).collect::<Vec<_>>(),
        cuts => {
            let mut random = Random(size("LIMNION_SEED", 1));
            (0..cuts).map(|_| random.below(length + 1)).chain([0, 1, 31, 32, length]).collect()
        }
    };
    let path = place.path().join("cut");
    let (mut reported, mut whole) = (0, 0);
    for &cut in &cuts {
        let mut damaged = image.clone();
        damaged.get_mut(&log).unwrap().truncate(cut as usize);
        store(&damaged, &path);
        let opened = Store::open(options(&path));
        let accepting = Options { accept_loss: true, read_only: true, ..options(&path) };
        let Ok(store) = Store::open(accepting) else {
            // Nothing but the log had the tables.
            let error = opened.err().unwrap();
            assert!(matches!(error.kind(), ErrorKind::Corruption | ErrorKind::Validation), "{cut}: {error}");
            reported += 1;
            continue;
        };
        let head = store.head().unwrap().0;
        assert_eq!(state(&store, At::Latest), states[head as usize], "cut at {cut}: a state there was");
        assert_eq!(head == commits, opened.is_ok(), "cut at {cut}: {head} commits are left");
        if let Err(error) = opened {
            assert_eq!(error.kind(), ErrorKind::Corruption);
            assert!(error.message().contains(&format!("{} commits are lost", commits - head)), "{error}");
            reported += 1;
        } else {
            whole += 1;
        }
    }
    println!(
        "log of {length} bytes, cut at {} places: {reported} losses reported, {whole} without loss",
        cuts.len()
    );
}

#[test]
fn blocks_that_are_zero_elsewhere_or_old_are_noticed() {
    let image = sample(size("LIMNION_SCALE", 2), true);
    // What the same file had in its blocks some commits ago.
    let older: Image = {
        let place = quick_folder();
        let path = place.path().join("store");
        store(&image, &path);
        let store = Store::open(options(&path)).unwrap();
        for key in 0..12 {
            let ops = [put("a", &format!("key-{key:03}"), Body::json("0".as_bytes().to_vec()))];
            store.write(Batch { ops: ops.into(), conditions: Vec::new() }).unwrap();
        }
        store.close().unwrap();
        load(&path)
    };
    // The newer store is damaged with blocks of the older one.
    let (newer, older) = (older, image);
    let asked = ask_whole(&newer);
    let database = PathBuf::from("store.limn");
    let pages = (newer[&database].len() / 4096) as u64;
    let began = Instant::now();
    let tally = campaign(&newer, &asked, size("LIMNION_BLOCKS", 60), |trial, image| {
        let mut random = Random(trial);
        let bytes = image.get_mut(&database).unwrap();
        let (page, other) = (random.below(pages) as usize, random.below(pages) as usize);
        let range = |page: usize| page * 4096..(page + 1) * 4096;
        match trial % 3 {
            0 => bytes[range(page)].fill(0),
            1 => {
                let first = bytes[range(page)].to_vec();
                bytes.copy_within(range(other), page * 4096);
                bytes[range(other)].copy_from_slice(&first);
            }
            _ => {
                let stale = older[&database].get(range(page)).map(<[u8]>::to_vec);
                bytes[range(page)].copy_from_slice(&stale.unwrap_or_else(|| vec![0; 4096]));
            }
        }
        format!("{} page {} (and {})", ["zero", "swapped", "stale"][trial as usize % 3], page + 1, other + 1)
    });
    tally.print("blocks", began);
    assert_eq!(tally.odd, [""; 0]);
    assert_eq!(tally.unchecked, [""; 0]);
}

#[test]
fn what_is_whole_is_saved_from_a_damaged_store() {
    let image = sample(2, true);
    let place = quick_folder();
    let path = place.path().join("store");
    store(&image, &path);
    let whole = Store::open(options(&path)).unwrap();
    let versions = whole.check(&Job::new()).unwrap().versions;
    let mut every = BTreeMap::new();
    for event in whole.changes(None, 0, usize::MAX).unwrap().0 {
        let record = event.record.unwrap();
        every.insert((event.namespace, event.key, event.version), told(&whole, &record, true).unwrap());
    }
    whole.close().unwrap();
    let bytes = total(&image);
    for trial in 0..size("LIMNION_SALVAGES", 25) {
        let mut random = Random(1000 + trial);
        let mut damaged = image.clone();
        let (name, at) = byte_at(&image, random.below(bytes));
        damaged.get_mut(&name).unwrap()[at] ^= 1 << random.below(8);
        store(&damaged, &path);
        let saved = place.path().join(format!("saved-{trial}"));
        let report = match Store::salvage(&path, None, &saved, &Job::new()) {
            Ok(report) => report,
            Err(error) => {
                // Without its first page nobody can say what a file is.
                assert!(at < 4096 && name.ends_with("store.limn"), "{} {at}: {error}", name.display());
                continue;
            }
        };
        let store = Store::open(options(&saved)).unwrap();
        assert_eq!(store.check(&Job::new()).unwrap().problems, [""; 0], "what is saved is whole");
        let mut kept = 0;
        for event in store.changes(None, 0, usize::MAX).unwrap().0 {
            let record = event.record.unwrap();
            let told = told(&store, &record, true).unwrap();
            // Where a version is missing, the one behind it says so by another link: it is compared without.
            let unlinked = |told: &str| {
                let mut words: Vec<&str> = told.split(' ').collect();
                words.remove(3);
                words.join(" ")
            };
            let wanted = every.get(&(event.namespace, event.key, event.version));
            assert!(wanted.is_some_and(|wanted| unlinked(wanted) == unlinked(&told)), "{told}");
            kept += 1;
        }
        let lost = versions - kept;
        // One page holds some dozens of small versions at most, and one pack 64.
        assert!(lost <= 70, "{} byte {at}: {lost} of {versions} lost", name.display());
        let told = !report.problems.is_empty();
        assert!(lost == 0 || told, "{} byte {at}: {lost} of {versions} lost without a word", name.display());
    }
}
