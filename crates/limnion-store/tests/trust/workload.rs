//! What the tests of trust share: a workload whose every write says which operation made it, a ledger of what was attempted
//! and acknowledged, and the oracle that compares a store with the ledger.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use limnion_store::store::Event;
use limnion_store::{
    At, Batch, Body, Condition, Content, Expect, KeyRange, Kind, Op, Options, Record, Retention, Store,
    Vector,
};
use limnion_types::Job;

/// SplitMix64: the same numbers from the same seed, for ever.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// A size from the environment: `make campaigns` sets it, everyday runs do not.
pub(crate) fn size(name: &str, everyday: u64) -> u64 {
    let given = std::env::var(name).ok().filter(|size| !size.is_empty());
    given.map_or(everyday, |size| size.parse().unwrap())
}

/// A folder in memory where there is one: what is killed is the process, not the machine.
pub(crate) fn quick_folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// This test program again, to run one of its tests as a child that may be killed.
pub(crate) fn child(test: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--ignored", "--test-threads=1"]);
    command
}

/// What every write of the workload goes to beside its own key: who made it.
pub(crate) const MARKS: &str = "marks";
pub(crate) const THREADS: u64 = 8;
const NAMESPACES: [&str; 2] = ["alpha", "beta"];
const KEYS: u64 = 40;

/// The number of an operation says all that it does.
pub(crate) fn id(cycle: u64, thread: u64, number: u64) -> u64 {
    cycle << 40 | thread << 32 | number
}

fn thread_of(id: u64) -> u64 {
    id >> 32 & 0xFF
}

/// One operation of the workload.
pub(crate) struct Plan {
    pub(crate) ops: Vec<Op>,
    /// The record whose version is compared and set.
    pub(crate) compares: Option<(Arc<str>, Arc<str>)>,
}

pub(crate) fn plan(id: u64) -> Plan {
    let mut random = Random(id.wrapping_mul(0xD134_2543_DE82_EF95));
    let name = |random: &mut Random| -> (Arc<str>, Arc<str>) {
        (NAMESPACES[random.below(2) as usize].into(), format!("k{}", random.below(KEYS)).into())
    };
    let mark = Op::Put {
        namespace: MARKS.into(),
        key: format!("t{}", thread_of(id)).into(),
        body: Body::json(id.to_string().into_bytes()),
    };
    let mut ops = vec![mark];
    let mut compares = None;
    let count = match random.below(10) {
        0..5 => 1,
        5..7 => 2 + random.below(8),
        7 => {
            compares = Some(name(&mut random));
            0
        }
        _ => {
            let (namespace, key) = name(&mut random);
            ops.push(Op::Delete { namespace, key });
            random.below(2)
        }
    };
    if let Some((namespace, key)) = compares.clone() {
        let body = body(id, &mut random);
        ops.push(Op::Put { namespace, key, body });
    }
    for _ in 0..count {
        let (namespace, key) = name(&mut random);
        let body = body(id, &mut random);
        ops.push(Op::Put { namespace, key, body });
    }
    Plan { ops, compares }
}

fn body(id: u64, random: &mut Random) -> Body {
    let length = match random.below(40) {
        0 => 65_000 + random.below(30_000),
        1..8 => 1_000 + random.below(7_000),
        _ => random.below(300),
    };
    let mut body = if random.one_in(5) {
        let mut bytes: Vec<u8> = (0..length).map(|at| (id as u8).wrapping_add(at as u8)).collect();
        bytes.extend_from_slice(&id.to_le_bytes());
        Body { content: Content::Bytes, ..Body::json(bytes) }
    } else {
        let padding = "x".repeat(length as usize);
        Body::json(format!(r#"{{"by":{id},"size":{length},"padding":"{padding}"}}"#).into_bytes())
    };
    if random.one_in(4) {
        body.metadata = Some(format!(r#"{{"shade":{}}}"#, random.below(7)).into());
    }
    if random.one_in(4) {
        body.text = Some(format!("lake {} layer {}", random.below(5), random.below(50)).into());
    }
    for vector in 0..[0, 0, 0, 1, 2][random.below(5) as usize] {
        let numbers = (0..8).map(|_| random.below(1 << 20) as f32 / 1024.0).collect();
        body.vectors.push(Vector { name: ["", "title"][vector].into(), numbers });
    }
    if random.one_in(30) {
        // It never runs out in a test; that it is kept is looked at all the same.
        body.expires = Some(4_000_000_000_000_000 + id);
    }
    body
}

/// Namespace and key.
type Name = (Arc<str>, Arc<str>);
/// The versions of each record, oldest first: commit, and what it wrote.
type Model = BTreeMap<Name, Vec<(u64, Option<Body>)>>;

/// What the workload was seen to do.
#[derive(Default)]
pub(crate) struct Ledger {
    attempted: HashSet<u64>,
    refused: HashSet<u64>,
    acknowledged: HashMap<u64, u64>,
    tags_attempted: HashMap<String, u64>,
    tags: HashMap<String, u64>,
    /// What went wrong that is none of the above.
    pub(crate) failed: Vec<String>,
    /// The newest commit that was ever seen.
    seen: u64,
}

impl Ledger {
    /// Takes a line of a child; lines of others are passed by. A line that was cut off says nothing.
    pub(crate) fn hear(&mut self, line: &str) {
        // The test harness writes to the same pipe.
        let told = line.split_once('~').and_then(|(_, told)| told.strip_suffix('.'));
        let Some(told) = told else { return };
        let mut words = told.splitn(3, ' ');
        let (what, first, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or(""));
        let number = || first.parse::<u64>().unwrap();
        match what {
            "attempt" => assert!(self.attempted.insert(number()), "operation {first} was attempted twice"),
            "done" => assert_eq!(self.acknowledged.insert(number(), rest.parse().unwrap()), None),
            "refused" => assert!(self.refused.insert(number())),
            "failed" => self.failed.push(rest.to_owned()),
            "tag" => drop(self.tags_attempted.insert(first.to_owned(), rest.parse().unwrap())),
            "tagged" => drop(self.tags.insert(first.to_owned(), rest.parse().unwrap())),
            _ => panic!("{line}"),
        }
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    pub(crate) fn attempted(&self) -> usize {
        self.attempted.len()
    }

    /// The operation that wrote a commit of a thread, found by what it wrote.
    fn nameless(&self, mark: &str, last_of_thread: &HashMap<u64, u64>, events: &[Event]) -> u64 {
        let written: HashSet<Name> =
            events.iter().map(|event| (event.namespace.clone(), event.key.clone())).collect();
        let mut left = events.iter().filter_map(|event| event.record.as_ref());
        if let Some(record) = left.find(|record| record.kind == Kind::Put) {
            return writer_of(record);
        }
        let mut candidates: Vec<u64> = self
            .attempted
            .iter()
            .copied()
            .filter(|id| !self.acknowledged.contains_key(id) && !self.refused.contains(id))
            .filter(|id| mark == format!("t{}", thread_of(*id)))
            .filter(|id| last_of_thread.get(&(id >> 32)).is_none_or(|last| last < id))
            .collect();
        candidates.sort_unstable();
        let fits = |id: &u64| {
            let mut all = HashSet::new();
            let puts_are_there = plan(*id).ops.into_iter().all(|op| {
                let (name, is_put) = match op {
                    Op::Put { namespace, key, .. } => ((namespace, key), true),
                    Op::Delete { namespace, key } => ((namespace, key), false),
                };
                let there = written.contains(&name);
                all.insert(name);
                there || !is_put
            });
            puts_are_there && written.is_subset(&all)
        };
        candidates.into_iter().find(fits).expect("somebody wrote it")
    }

    /// Compares a store with what was seen: acknowledged ⊆ recovered ⊆ attempted, batches whole, numbers gapless, and
    /// every read what a replay of the recovered operations gives. `dropped` says that retention may have dropped old
    /// versions, `older` that the store may have stopped early (a backup).
    pub(crate) fn compare(&mut self, store: &Store, dropped: bool, older: bool) {
        let (head, _) = store.head().unwrap();
        if !older {
            assert!(head >= self.seen, "commit {} was seen, and the newest is {head}", self.seen);
            self.seen = head;
        }
        let (events, _) = store.changes(None, 0, usize::MAX).unwrap();
        let mut commits: BTreeMap<u64, Vec<_>> = BTreeMap::new();
        for event in events {
            commits.entry(event.version).or_default().push(event);
        }
        let numbers: Vec<u64> = commits.keys().copied().collect();
        assert_eq!(numbers, (1..=head).collect::<Vec<_>>(), "commits are numbered without gaps");

        let mut model = Model::new();
        let mut recovered = HashMap::new();
        let mut last_of_thread = HashMap::new();
        let by_version: HashMap<u64, u64> =
            self.acknowledged.iter().map(|(id, version)| (*version, *id)).collect();
        for (seq, events) in &commits {
            let mark =
                events.iter().find(|event| &*event.namespace == MARKS).expect("a commit of the workload");
            let id = match (&mark.record, by_version.get(seq)) {
                (Some(record), _) => std::str::from_utf8(record.payload.value()).unwrap().parse().unwrap(),
                (None, Some(id)) if dropped => *id,
                // Retention has dropped who it was: it must be one of those that nobody has told the end of.
                (None, None) if dropped => self.nameless(&mark.key, &last_of_thread, events),
                (None, _) => panic!("commit {seq} has lost what it wrote"),
            };
            assert!(self.attempted.contains(&id), "commit {seq} was written by nobody: {id}");
            assert!(!self.refused.contains(&id), "commit {seq} was refused, and is there");
            assert_eq!(recovered.insert(id, *seq), None, "operation {id} is there twice");
            assert!(last_of_thread.insert(id >> 32, id).is_none_or(|last| last < id), "out of order: {id}");
            let mut wanted = BTreeMap::new();
            for op in plan(id).ops {
                let (namespace, key, body) = match op {
                    Op::Put { namespace, key, body } => (namespace, key, Some(body)),
                    Op::Delete { namespace, key } => (namespace, key, None),
                };
                wanted.insert((namespace, key), body);
            }
            wanted.retain(|name, body| {
                // Nothing is deleted that is not there.
                let before = model.get(name).and_then(|versions| versions.last());
                body.is_some() || before.is_some_and(|(_, body)| body.is_some())
            });
            let names: BTreeMap<_, _> =
                events.iter().map(|event| ((event.namespace.clone(), event.key.clone()), event)).collect();
            let keys = |names: Vec<&(Arc<str>, Arc<str>)>| names.into_iter().cloned().collect::<Vec<_>>();
            assert_eq!(keys(names.keys().collect()), keys(wanted.keys().collect()), "commit {seq} is whole");
            for (name, body) in wanted {
                match (&names[&name].record, &body) {
                    (None, _) => assert!(dropped, "commit {seq} has lost {name:?}"),
                    (Some(record), None) => assert_eq!(record.kind, Kind::Deleted),
                    (Some(record), Some(body)) => assert_same(store, record, body),
                }
                model.entry(name).or_default().push((*seq, body));
            }
        }
        for (id, version) in &self.acknowledged {
            match recovered.get(id) {
                Some(seq) => assert_eq!(seq, version, "operation {id}"),
                None => assert!(
                    (older && *version > head) || (dropped && commits.contains_key(version)),
                    "operation {id} was acknowledged as commit {version}, and is lost"
                ),
            }
        }
        compare_reads(store, &model, dropped);
        let tags: HashMap<String, u64> =
            store.tags().unwrap().into_iter().map(|tag| (tag.name, tag.seq)).collect();
        for (name, seq) in &tags {
            assert_eq!(self.tags_attempted.get(name), Some(seq), "tag {name}");
        }
        for (name, seq) in &self.tags {
            assert!(older || tags.get(name) == Some(seq), "tag {name} was acknowledged");
        }
        let report = store.check(&Job::new()).unwrap();
        assert_eq!(report.problems, [""; 0]);
        assert_eq!(report.commits, head);
        // A file that had no name yet when the power was cut is missed, and that is said.
        let told_rightly = |issue: &String| {
            issue.contains("the witness (file head) is gone")
                || (older && issue.contains("with a durability that allows for it"))
        };
        let issues = store.issues().into_iter().filter(|issue| !told_rightly(issue));
        assert_eq!(issues.collect::<Vec<_>>(), [""; 0]);
    }
}

fn compare_reads(store: &Store, model: &Model, dropped: bool) {
    let mut live: BTreeMap<Arc<str>, Vec<(Arc<str>, Body)>> = BTreeMap::new();
    for ((namespace, key), versions) in model {
        let newest = versions.last().unwrap().1.as_ref();
        let found = store.get(namespace, key, At::Latest).unwrap();
        assert_eq!(found.is_some(), newest.is_some(), "{namespace}/{key}");
        if let (Some(found), Some(newest)) = (found, newest) {
            assert_same(store, &found, newest);
            live.entry(namespace.clone()).or_default().push((key.clone(), newest.clone()));
        }
        let history = store.history(namespace, key, None, At::Latest, usize::MAX).unwrap();
        let all: Vec<u64> = versions.iter().map(|(seq, _)| *seq).collect();
        let kept: Vec<u64> = history.iter().map(|record| record.version).collect();
        if dropped {
            assert!(kept.iter().all(|seq| all.contains(seq)) && kept.last() == all.last());
        } else {
            assert_eq!(kept, all, "{namespace}/{key}");
            // At each version, and just before each.
            for pair in versions.windows(2).rev().take(5) {
                let found = store.get(namespace, key, At::Seq(pair[1].0 - 1)).unwrap();
                assert_eq!(found.is_some(), pair[0].1.is_some());
                assert!(found.is_none_or(|found| found.version == pair[0].0));
            }
        }
    }
    for (namespace, wanted) in &live {
        let found = store.scan(namespace, &KeyRange::ALL, At::Latest, usize::MAX, false, true).unwrap();
        let keys: Vec<&Arc<str>> = found.iter().map(|record| &record.key).collect();
        assert_eq!(keys, wanted.iter().map(|(key, _)| key).collect::<Vec<_>>(), "{namespace}");
        let texts = wanted.iter().filter(|(_, body)| body.text.is_some()).count();
        let hits = store.text_search(namespace, "lake", usize::MAX, None, At::Latest, &Job::new()).unwrap();
        assert_eq!(hits.len(), texts, "{namespace}");
    }
    assert_eq!(store.namespaces().unwrap(), live.keys().map(|name| name.to_string()).collect::<Vec<_>>());
}

fn writer_of(record: &Record) -> u64 {
    let value = record.payload.value();
    if record.payload.content() == Content::Bytes {
        return u64::from_le_bytes(value[value.len() - 8..].try_into().unwrap());
    }
    let text = std::str::from_utf8(value).unwrap();
    match text.strip_prefix(r#"{"by":"#) {
        Some(rest) => rest.split(',').next().unwrap().parse().unwrap(),
        None => text.parse().unwrap(),
    }
}

fn with_vectors(store: &Store, record: &Record) -> Body {
    let mut body = record.payload.to_body(record.expires);
    body.vectors = store.vectors(record).unwrap();
    body
}

fn assert_same(store: &Store, record: &Record, wanted: &Body) {
    let found = with_vectors(store, record);
    let mut wanted = wanted.clone();
    wanted.vectors.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(
        record.kind == Kind::Put && found == wanted,
        "{}/{} version {}: {} bytes by {}, and not what was written",
        record.namespace,
        record.key,
        record.version,
        found.value.len(),
        writer_of(record)
    );
}

/// Says something to the parent, in one write.
pub(crate) fn say(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "~{line}."); // whoever has gone need not hear it
}

/// One operation, told to the parent before and after.
pub(crate) fn perform(store: &Store, id: u64) -> bool {
    perform_and(store, id, say)
}

/// One operation, told to the ledger before and after.
pub(crate) fn perform_quietly(store: &Store, id: u64, ledger: &mut Ledger) -> bool {
    perform_and(store, id, |line| ledger.hear(&format!("~{line}.")))
}

fn perform_and(store: &Store, id: u64, mut say: impl FnMut(&str)) -> bool {
    let Plan { ops, compares } = plan(id);
    let condition = |(namespace, key): (Arc<str>, Arc<str>)| {
        let found = store.get(&namespace, &key, At::Latest).unwrap();
        let expect = found.map_or(Expect::Absent, |found| Expect::Version(found.version));
        Condition { namespace, key, expect }
    };
    let conditions = compares.map(condition).into_iter().collect();
    say(&format!("attempt {id}"));
    match store.write(Batch { ops, conditions }) {
        Ok(receipt) => {
            say(&format!("done {id} {}", receipt.version));
            if id.is_multiple_of(23) {
                let name = format!("tag-{id}");
                say(&format!("tag {name} {}", receipt.version));
                match store.set_tag(&name, At::Seq(receipt.version), false) {
                    Ok(_) => say(&format!("tagged {name} {}", receipt.version)),
                    Err(error) => say(&format!("failed {id} {error:?}")),
                }
            }
            true
        }
        Err(error) if error.kind() == limnion_types::ErrorKind::Conflict => {
            say(&format!("refused {id}"));
            true
        }
        Err(error) => {
            say(&format!("failed {id} {error:?}"));
            false
        }
    }
}

/// How a folder is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Plain,
    /// With retention, compression, vacuum and backups all the time.
    Upkeep,
    Rollback,
    Encrypted,
    Batched,
}

pub(crate) const MANNERS: [Manner; 5] =
    [Manner::Plain, Manner::Upkeep, Manner::Rollback, Manner::Encrypted, Manner::Batched];

impl Manner {
    pub(crate) fn options(self, path: &Path) -> Options {
        let mut options = Options { max_memory: 1 << 20, ..Options::folder(path) };
        match self {
            Manner::Plain => {}
            Manner::Upkeep => {
                let keep_for = Some(Duration::from_millis(100));
                options.retention = Some(Retention { keep_last: Some(3), keep_for, keep_tagged: true });
                // The log would be folded with it; it is what the oracle reads.
                options.retention = options.retention.map(|policy| Retention { keep_for: None, ..policy });
            }
            Manner::Rollback => options.wal = false,
            Manner::Encrypted => options.key = Some([5; 32]),
            Manner::Batched => options.durability = limnion_store::Durability::Batched,
        }
        options
    }

    pub(crate) fn drops(self) -> bool {
        self == Manner::Upkeep
    }
}

/// The library that stands between a process and the system (`faults.c`); `None`, with a word about it, where it cannot be
/// built.
pub(crate) fn shim(folder: &Path) -> Option<PathBuf> {
    if !cfg!(target_os = "linux") {
        println!("skipped: faults are injected on Linux only");
        return None;
    }
    let library = folder.join("faults.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/trust/faults.c");
    let built = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .args([source, "-ldl"])
        .status();
    match built {
        Ok(status) if status.success() => Some(library),
        other => {
            println!("skipped: cc cannot build {source}: {other:?}");
            None
        }
    }
}

/// Lets a child run into a fault: the `at`-th call that changes something under `root`.
pub(crate) fn with_fault(
    command: &mut std::process::Command,
    shim: &Path,
    root: &Path,
    action: &str,
    at: u64,
    log: &Path,
) {
    command
        .env("LD_PRELOAD", shim)
        .env("LIMNION_FAULT_ROOT", root)
        .env("LIMNION_FAULT", action)
        .env("LIMNION_FAULT_AT", at.to_string())
        .env("LIMNION_FAULT_LOG", log);
}
