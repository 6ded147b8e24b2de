//! The engine in an SQLite file: what it keeps, what it finds again, and what it says when the file is not as it should be.
#![expect(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use limnion_store::engine::sqlite::{Mode, SqliteEngine, open_reader};
use limnion_store::engine::{Engine, Found, Head, Place, Reader, Row, SegmentInfo, Tag, Write};
use limnion_store::text::TextQuery;
use limnion_store::{At, Durability, KeyRange, Kind, hash};
use limnion_types::{ErrorKind, Job};

const FAST: Mode = Mode { wal: true, durability: Durability::None };

/// An engine, and the commits that go in.
struct Bench {
    engine: SqliteEngine,
    head: Head,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

/// What is to be written: a payload, or a deletion.
#[derive(Debug, Clone, Default)]
struct Step {
    key: String,
    payload: Option<Vec<u8>>,
    text: Option<String>,
    expires: Option<u64>,
    fields: Vec<(u32, Vec<u8>)>,
    places: Vec<Place>,
}

fn put(key: &str, payload: impl Into<Vec<u8>>) -> Step {
    Step { key: key.into(), payload: Some(payload.into()), ..Step::default() }
}

fn delete(key: &str) -> Step {
    Step { key: key.into(), ..Step::default() }
}

/// The time of a commit in these tests.
fn time(seq: u64) -> u64 {
    1_000_000 + seq * 10
}

impl Bench {
    fn new() -> Self {
        Self::with(FAST)
    }

    fn with(mode: Mode) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.limn");
        let engine = SqliteEngine::open(&path, mode).unwrap();
        Self { engine, head: Head::default(), path, _folder: folder }
    }

    fn reader(&self) -> Arc<dyn Reader> {
        self.engine.reader()
    }

    fn commit(&mut self, namespace: &str, steps: &[Step]) -> u64 {
        let seq = self.head.seq + 1;
        let mut transaction = self.engine.begin().unwrap();
        let mut hashes = Vec::new();
        for step in steps {
            let previous =
                transaction.current(namespace, &step.key).unwrap().map_or(0, |current| current.seq);
            let mut row = Row {
                seq,
                time: time(seq),
                previous,
                kind: if step.payload.is_some() { Kind::Put } else { Kind::Deleted },
                expires: step.expires,
                check: [0; 16],
                payload: step.payload.clone().unwrap_or_default().into(),
                places: step.places.clone(),
            };
            let (hash, check) = hash::digest(namespace, &step.key, &row);
            row.check = check;
            hashes.push(hash);
            transaction
                .write(&Write {
                    namespace: namespace.into(),
                    key: step.key.as_str().into(),
                    row,
                    hash,
                    text: step.text.as_deref().map(Arc::from),
                    fields: step.fields.clone(),
                })
                .unwrap();
        }
        let chain = hash::chain(&self.head.chain, seq, time(seq), hashes.into_iter());
        let head = Head { seq, time: time(seq), chain };
        transaction.log(&head).unwrap();
        transaction.commit().unwrap();
        self.head = head;
        seq
    }

    fn reopen(&mut self) {
        self.engine.close().unwrap();
        self.engine = SqliteEngine::open(&self.path, FAST).unwrap();
    }
}

fn payload(found: &Found) -> &[u8] {
    &found.row.payload
}

/// The hash of a row is that of what it says.
fn verified(namespace: &str, key: &str, found: Option<Found>) -> Option<Found> {
    if let Some(found) = &found {
        assert!(hash::is_whole(namespace, key, &found.row), "{key} {found:?}");
    }
    found
}

#[test]
fn what_is_committed_is_found_now_and_at_every_point_before() {
    let mut bench = Bench::new();
    bench.commit("a", &[put("x", "1"), put("y", "2")]);
    bench.commit("a", &[put("x", "3")]);
    bench.commit("a", &[delete("x")]);
    bench.commit("b", &[put("x", "4")]);
    for reopened in [false, true] {
        if reopened {
            bench.reopen();
        }
        let reader = bench.reader();
        assert_eq!(reader.head().unwrap(), bench.head);
        let at = |seq| verified("a", "x", reader.get("a", "x", At::Seq(seq)).unwrap());
        assert_eq!(at(0), None);
        assert_eq!(payload(&at(1).unwrap()), b"1");
        assert_eq!(at(1).unwrap().next_previous, Some(1));
        assert_eq!(payload(&at(2).unwrap()), b"3");
        assert_eq!(at(3).unwrap().row.kind, Kind::Deleted);
        assert_eq!((at(3).unwrap().next_previous, at(u64::MAX)), (None, at(3)));
        assert_eq!(reader.get("a", "x", At::Latest).unwrap(), at(3));
        for seq in 0..5 {
            for late in 0..10 {
                assert_eq!(reader.get("a", "x", At::Time(time(seq) + late)).unwrap(), at(seq));
            }
        }
        assert_eq!(reader.get("a", "z", At::Latest).unwrap(), None);
        assert_eq!(reader.get("c", "x", At::Latest).unwrap(), None);
        assert_eq!(reader.namespaces().unwrap(), ["a", "b"]);
        let commits = reader.commits(1, 2).unwrap();
        assert_eq!(commits.len(), 2);
        assert_eq!((commits[0].head.seq, &*commits[0].writes[0].key), (2, "x"));
        assert_eq!(reader.first_commit().unwrap().seq, 1);
        assert_eq!(reader.commit_at(time(2) + 5).unwrap(), Some(2));
        assert_eq!(reader.commit_at(time(1) - 1).unwrap(), None);
    }
}

/// What a record was after each commit, written down.
#[derive(Default)]
struct Ledger {
    rows: Vec<Row>,
}

impl Ledger {
    fn of(reader: &dyn Reader, namespace: &str, key: &str) -> Self {
        let mut rows: Vec<Row> = reader
            .history(namespace, key, None, At::Latest, usize::MAX)
            .unwrap()
            .into_iter()
            .map(|found| found.row)
            .collect();
        rows.reverse();
        Self { rows }
    }

    fn at(&self, seq: u64) -> Option<Found> {
        let at = self.rows.iter().rposition(|row| row.seq <= seq)?;
        Some(Found {
            row: self.rows[at].clone(),
            next_previous: self.rows.get(at + 1).map(|next| next.previous),
        })
    }

    fn history(&self, after: u64, at: u64, limit: usize) -> Vec<Found> {
        let seqs = self.rows.iter().rev().map(|row| row.seq).filter(|seq| *seq > after && *seq <= at);
        seqs.take(limit).filter_map(|seq| self.at(seq)).collect()
    }

    fn holds(&self, reader: &dyn Reader, namespace: &str, key: &str, head: u64) {
        for seq in 0..=head + 1 {
            assert_eq!(reader.get(namespace, key, At::Seq(seq)).unwrap(), self.at(seq), "at {seq}");
        }
        for (after, at, limit) in
            [(0, head, 7), (3, 50, 1000), (40, 41, 9), (60, 200, 200), (0, 90, 3), (0, 0, 5), (50, 20, 5)]
        {
            let found = reader.history(namespace, key, Some(At::Seq(after)), At::Seq(at), limit).unwrap();
            assert_eq!(found, self.history(after, at, limit), "after {after} at {at} limit {limit}");
        }
        for seq in [0, 1, 5, 33, 64, 65, 100, head] {
            let found = reader.get(namespace, key, At::Time(time(seq) + 3)).unwrap();
            assert_eq!(found, self.at(seq), "time of {seq}");
        }
    }
}

#[test]
fn packed_versions_are_found_as_loose_ones_are() {
    let mut bench = Bench::new();
    for seq in 1..=200u64 {
        let mut steps = vec![put("other", vec![b'o'; 10])];
        if seq % 3 != 0 {
            let places = vec![Place { segment: 1, offset: seq }];
            steps.push(Step {
                places,
                expires: Some(seq << 40),
                ..put("x", format!("value {seq}").repeat(9))
            });
        } else if seq % 9 == 0 {
            steps.push(delete("x"));
        }
        bench.commit("n", &steps);
    }
    let reader = bench.reader();
    let ledger = Ledger::of(&*reader, "n", "x");
    ledger.holds(&*reader, "n", "x", 200);
    let before = reader.stats().unwrap().namespaces["n"].clone();
    assert_eq!((before.keys, before.versions, before.cold), (2, 200 + ledger.rows.len() as u64, 0));
    assert_eq!(before.bytes, 10 + ledger.rows.last().unwrap().payload.len() as u64);

    // In small steps, by a new process that has counted nothing.
    bench.reopen();
    let mut packed = 0;
    for _ in 0..1000 {
        packed += bench.engine.compress(40).unwrap();
    }
    let reader = bench.reader();
    let after = reader.stats().unwrap().namespaces["n"].clone();
    assert_eq!(after.cold, packed as u64);
    assert!(after.cold > 300 && after.cold < after.versions, "{after:?}");
    assert_eq!(after, limnion_store::engine::NamespaceInfo { cold: after.cold, ..before });
    ledger.holds(&*reader, "n", "x", 200);
    assert_eq!(reader.integrity(&Job::new()).unwrap(), [""; 0]);

    // What is overwritten from now on is counted, and packed behind the rest.
    for _ in 0..60 {
        bench.commit("n", &[put("x", "more")]);
    }
    assert!(bench.engine.compress(1000).unwrap() >= 32);
    Ledger::of(&*reader, "n", "x").holds(&*reader, "n", "x", 260);
    assert_eq!(bench.engine.compress(1000).unwrap(), 0);
}

#[test]
fn without_a_log_of_the_time_versions_are_found_by_their_own_time() {
    let mut bench = Bench::new();
    for _ in 0..150 {
        bench.commit("n", &[put("x", "1"), put("y", "2")]);
    }
    bench.engine.compress(1000).unwrap();
    let reader = bench.reader();
    let ledger = Ledger::of(&*reader, "n", "x");
    let mut transaction = bench.engine.begin().unwrap();
    transaction.fold(145).unwrap();
    transaction.commit().unwrap();
    assert_eq!(reader.first_commit().unwrap().seq, 145);
    assert_eq!(reader.commit_at(time(100)).unwrap(), None);
    ledger.holds(&*reader, "n", "x", 150);
    let scanned = reader.scan("n", &KeyRange::ALL, At::Time(time(70)), 9, false, true).unwrap();
    assert_eq!(scanned.iter().map(|keyed| keyed.found.row.seq).collect::<Vec<_>>(), [70, 70]);
    // Folding never takes the newest commit.
    let mut transaction = bench.engine.begin().unwrap();
    transaction.fold(u64::MAX).unwrap();
    transaction.commit().unwrap();
    assert_eq!(reader.head().unwrap(), bench.head);
}

#[test]
fn retired_versions_are_gone_remembered_and_not_counted() {
    let mut bench = Bench::new();
    for seq in 1..=150u64 {
        bench.commit("n", &[put("x", vec![b'x'; seq as usize]), put("y", "1")]);
    }
    let reader = bench.reader();
    let mut transaction = bench.engine.begin().unwrap();
    let segment =
        SegmentInfo { id: 7, dim: 3, namespace: "n".into(), name: "v".into(), length: 100, live: 60 };
    transaction.set_segment(&segment).unwrap();
    transaction.commit().unwrap();
    assert!(bench.engine.compress(100_000).unwrap() > 200);
    let before = reader.stats().unwrap().namespaces["n"].clone();
    let mut kept = Ledger::of(&*reader, "n", "x");
    // From packs and loose ones, in an order that makes ranges meet from both sides; 33 stays for a tag.
    let waves: [Vec<u64>; 4] =
        [(50..=60).collect(), (2..=32).collect(), (34..=49).collect(), (61..=148).collect()];
    for (number, wave) in waves.iter().enumerate() {
        let mut transaction = bench.engine.begin().unwrap();
        transaction.retire("n", "x", wave, &[(7, 25)]).unwrap();
        transaction.commit().unwrap();
        kept.rows.retain(|row| !wave.contains(&row.seq));
        assert_eq!(reader.segments().unwrap()[0].live, 60u64.saturating_sub(25 * (number as u64 + 1)));
    }
    for seq in 0..152 {
        let expected = kept.rows.iter().rev().find(|row| row.seq <= seq);
        let found = reader.get("n", "x", At::Seq(seq)).unwrap();
        assert_eq!(found.as_ref().map(|found| &found.row), expected, "at {seq}");
        let range = [(2, 32), (34, 148)].into_iter().find(|(first, last)| (first..=last).contains(&&seq));
        assert_eq!(reader.retired("n", "x", seq).unwrap(), range, "{seq}");
    }
    // The link of the next version tells that something is missing.
    assert_eq!(reader.get("n", "x", At::Seq(40)).unwrap().unwrap().next_previous, Some(148));
    let after = reader.stats().unwrap().namespaces["n"].clone();
    let dropped: Vec<u64> = waves.concat();
    assert_eq!(after.versions, before.versions - dropped.len() as u64);
    assert_eq!(after.history_bytes, before.history_bytes - dropped.iter().sum::<u64>());
    assert_eq!(reader.integrity(&Job::new()).unwrap(), [""; 0]);
    let dumped = reader.dump(0, 1).unwrap().remove(0).unwrap();
    assert_eq!((dumped.retired, dumped.rows), (vec![(2, 32), (34, 148)], kept.rows));
    // The newest one cannot be dropped.
    let mut transaction = bench.engine.begin().unwrap();
    assert!(transaction.retire("n", "x", &[150], &[]).is_err());
}

#[test]
fn a_scan_gives_a_range_in_order_at_any_point() {
    let mut bench = Bench::new();
    let keys = ["", "a", "ab", "b", "ba", "c\u{10FFFF}", "z", "é"];
    for key in keys {
        bench.commit("n", &[put(key, key)]);
    }
    bench.commit("n", &[delete("b"), put("z", "new")]);
    let reader = bench.reader();
    let scan = |range: &KeyRange, at, limit, reverse| -> Vec<String> {
        let found = reader.scan("n", range, at, limit, reverse, true).unwrap();
        let bare = reader.scan("n", range, at, limit, reverse, false).unwrap();
        for (full, bare) in found.iter().zip(&bare) {
            let mut without = full.clone();
            without.found.row.payload = Arc::default();
            assert_eq!(&without, bare);
            assert_eq!(reader.get("n", &full.key, at).unwrap().as_ref(), Some(&full.found));
        }
        assert_eq!(found.len(), bare.len());
        found.into_iter().map(|keyed| keyed.key).collect()
    };
    assert_eq!(scan(&KeyRange::ALL, At::Latest, 99, false), keys);
    for bounds in 0..27usize {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let bound = |number, key: &str| match number {
            0 => Included(key.to_owned()),
            1 => Excluded(key.to_owned()),
            _ => Unbounded,
        };
        let range = KeyRange { start: bound(bounds % 3, "ab"), end: bound(bounds / 3 % 3, "é") };
        for at in [At::Latest, At::Seq(9), At::Seq(4), At::Seq(0), At::Time(time(6))] {
            let seen = |key: &&&str| {
                let first = keys.iter().position(|other| other == *key).unwrap() as u64 + 1;
                range.contains(key) && at.includes(first, time(first))
            };
            let mut expected: Vec<&str> = keys.iter().filter(seen).copied().collect();
            let limit = [1, 3, 99][bounds / 9];
            let wanted: Vec<&str> = expected.iter().take(limit).copied().collect();
            assert_eq!(scan(&range, at, limit, false), wanted, "{range:?} {at:?}");
            expected.reverse();
            expected.truncate(limit);
            assert_eq!(scan(&range, at, limit, true), expected, "{range:?} {at:?} reverse");
        }
    }
    assert!(reader.scan("none", &KeyRange::ALL, At::Latest, 9, false, true).unwrap().is_empty());
}

#[test]
fn tags_settings_segments_and_values_are_kept() {
    let mut bench = Bench::new();
    bench.commit("n", &[put("x", "1")]);
    let (one, two) = (Tag { name: "one".into(), seq: 1, time: 5 }, Tag { name: "a".into(), seq: 1, time: 6 });
    let segment =
        SegmentInfo { id: 3, dim: 0, namespace: String::new(), name: String::new(), length: 9, live: 4 };
    let place = Place { segment: 3, offset: 77 };
    let mut transaction = bench.engine.begin().unwrap();
    transaction.set_tag(&Tag { seq: 9, ..one.clone() }).unwrap();
    transaction.set_tag(&one).unwrap();
    transaction.set_tag(&two).unwrap();
    transaction.set_setting("s", b"v").unwrap();
    transaction.set_segment(&segment).unwrap();
    transaction.set_value(&[1; 32], place).unwrap();
    assert_eq!(transaction.find_value(&[1; 32]).unwrap(), Some(place));
    transaction.commit().unwrap();
    bench.reopen();
    let reader = bench.reader();
    assert_eq!(reader.tags().unwrap(), [two.clone(), one.clone()]);
    assert_eq!(reader.tag("one").unwrap(), Some(one));
    assert_eq!(reader.tag("none").unwrap(), None);
    assert_eq!(reader.setting("s").unwrap().as_deref(), Some(&b"v"[..]));
    assert_eq!(reader.setting("none").unwrap(), None);
    assert_eq!(reader.segments().unwrap(), [segment]);
    let mut transaction = bench.engine.begin().unwrap();
    assert!(transaction.remove_tag("a").unwrap() && !transaction.remove_tag("a").unwrap());
    transaction.remove_segment(3).unwrap();
    assert_eq!(transaction.find_value(&[1; 32]).unwrap(), None);
    transaction.commit().unwrap();
    assert_eq!((reader.tags().unwrap().len(), reader.segments().unwrap().len()), (1, 0));
}

#[test]
fn an_index_gives_keys_by_entry_and_then_by_key() {
    let mut bench = Bench::new();
    bench.commit("n", &[put("old", "1")]);
    let mut transaction = bench.engine.begin().unwrap();
    let index = transaction.create_index("n", "a.b").unwrap();
    assert_eq!(transaction.create_index("n", "a.b").unwrap(), index);
    transaction.index(index.id, "n", "old", b"m").unwrap();
    assert!(transaction.index(index.id, "n", "not there", b"m").is_err());
    drop(transaction);
    // Dropped: there is no index, and its number does not come again for another one that lives.
    let mut transaction = bench.engine.begin().unwrap();
    let index = transaction.create_index("n", "a.b").unwrap();
    transaction.index(index.id, "n", "old", b"m").unwrap();
    transaction.commit().unwrap();
    bench.reopen();
    let reader = bench.reader();
    assert_eq!(reader.field_indexes().unwrap(), std::slice::from_ref(&index));
    let with = |key: &str, entries: &[&[u8]]| Step {
        fields: entries.iter().map(|entry| (index.id, entry.to_vec())).collect(),
        ..put(key, "v")
    };
    bench
        .commit("n", &[with("z", &[b"a", b"m"]), with("b", &[b"m"]), with("c", &[b"\xFF\xFF", b"\xFF\xFF"])]);
    let reader = bench.reader();
    let lookup = |from: &[u8], to: &[u8], limit| reader.lookup(index.id, from, to, limit).unwrap();
    assert_eq!(lookup(b"", b"\xFF\xFF\xFF", 99), ["z", "b", "old", "z", "c"]);
    assert_eq!(lookup(b"m", b"m", 2), ["b", "old"]);
    assert_eq!(lookup(b"n", b"m", 2), [""; 0]);
    bench.commit("n", &[with("z", &[b"q"]), delete("b")]);
    assert_eq!(lookup(b"", b"\xFF\xFF\xFF", 99), ["old", "z", "c"]);
    let mut transaction = bench.engine.begin().unwrap();
    assert!(transaction.drop_index("n", "a.b").unwrap());
    assert!(!transaction.drop_index("n", "a.b").unwrap());
    transaction.commit().unwrap();
    assert_eq!(lookup(b"", b"\xFF\xFF\xFF", 99), [""; 0]);
    let mut transaction = bench.engine.begin().unwrap();
    assert_ne!(transaction.create_index("n", "c").unwrap().id, index.id);
}

#[test]
fn text_is_found_and_ranked_as_in_memory() {
    let mut random = limnion_testkit::Random::new(7);
    let words = ["lake", "lakes", "sea", "river", "deep", "the", "old", "town", "été", "lac"];
    let mut sentence = |most: usize| -> String {
        let count = random.below(most);
        // Some words are everywhere, some are rare.
        let word = |random: &mut limnion_testkit::Random| words[random.below(10).min(random.below(10))];
        (0..count).map(|_| word(&mut random)).collect::<Vec<_>>().join(" ")
    };
    let mut bench = Bench::new();
    let mut oracle = limnion_store::text::TextIndex::new();
    for round in 0..6 {
        let mut steps = Vec::new();
        for number in 0..60 {
            let (key, id) = (format!("k{number:02}"), number as u64);
            match (number + round * 7) % 5 {
                0 if round > 0 => {
                    oracle.remove(id);
                    steps.push(delete(&key));
                }
                1 => {
                    oracle.remove(id);
                    steps.push(put(&key, "no text"));
                }
                2 | 3 => {
                    let text = sentence(30);
                    oracle.insert(id, &text);
                    steps.push(Step { text: Some(text), ..put(&key, "text") });
                }
                _ => {}
            }
        }
        bench.commit("n", &steps);
        bench.commit("other", &[Step { text: Some("lake lake lake".into()), ..put("x", "") }]);
        if round == 3 {
            bench.reopen();
        }
        let reader = bench.reader();
        for query in [
            "lake",
            "the",
            "lak*",
            "\"old town\"",
            "lake sea",
            "the lake deep",
            "\"the lak\"* -sea",
            "the -lake -\"old town\"",
            "ÉTÉ",
            "nowhere",
            "lake nowhere",
            "the the",
            "l* the river*",
        ] {
            let query = TextQuery::parse(query).unwrap();
            for limit in [1, 3, 1000] {
                let expected: Vec<(String, f64)> = oracle
                    .search(&query, limit)
                    .into_iter()
                    .map(|(id, score)| (format!("k{id:02}"), score))
                    .collect();
                assert_eq!(reader.text_search("n", &query, limit).unwrap(), expected, "{query:?} {limit}");
            }
        }
        assert_eq!(reader.integrity(&Job::new()).unwrap(), [""; 0]);
    }
    let reader = bench.reader();
    assert!(reader.text_search("none", &TextQuery::parse("lake").unwrap(), 9).unwrap().is_empty());
}

#[test]
fn what_has_run_out_is_found_in_the_order_in_which_it_did() {
    let mut bench = Bench::new();
    let expiring = |key: &str, expires| Step { expires: Some(expires), ..put(key, "1") };
    bench.commit("n", &[expiring("a", 30), expiring("b", 10), put("c", "1")]);
    bench.commit("m", &[expiring("d", 20), expiring("e", 40)]);
    let reader = bench.reader();
    let expired = |now, limit| -> Vec<String> {
        reader.expired(now, limit).unwrap().iter().map(|(n, k)| format!("{n}/{k}")).collect()
    };
    assert_eq!(expired(30, 9), ["n/b", "m/d", "n/a"]);
    assert_eq!(expired(30, 1), ["n/b"]);
    assert_eq!(expired(9, 9), [""; 0]);
    bench.commit("n", &[delete("b"), put("a", "2")]);
    assert_eq!(expired(u64::MAX, 9), ["m/d", "m/e"]);
}

#[test]
fn a_transaction_that_is_dropped_changes_nothing() {
    let mut bench = Bench::new();
    bench.commit("n", &[put("x", "1")]);
    let mut transaction = bench.engine.begin().unwrap();
    let row = Row {
        seq: 2,
        time: time(2),
        previous: 1,
        kind: Kind::Put,
        expires: None,
        check: [0; 16],
        payload: b"2"[..].into(),
        places: Vec::new(),
    };
    for namespace in ["n", "new"] {
        let write = Write {
            namespace: namespace.into(),
            key: "x".into(),
            row: row.clone(),
            hash: [0; 32],
            text: Some("words".into()),
            fields: Vec::new(),
        };
        transaction.write(&write).unwrap();
        assert_eq!(transaction.current(namespace, "x").unwrap().unwrap().seq, 2);
    }
    drop(transaction);
    assert_eq!(payload(&bench.reader().get("n", "x", At::Latest).unwrap().unwrap()), b"1");
    assert_eq!(bench.reader().get("new", "x", At::Latest).unwrap(), None);
    // Namespaces and text tables that were not to be are made when they are.
    bench.commit("new", &[Step { text: Some("words".into()), ..put("x", "3") }]);
    let query = TextQuery::parse("words").unwrap();
    assert_eq!(bench.reader().text_search("new", &query, 9).unwrap().len(), 1);
    assert_eq!(bench.reader().text_search("n", &query, 9).unwrap().len(), 0);
    // After an error nothing more is written.
    let mut transaction = bench.engine.begin().unwrap();
    assert!(transaction.retire("n", "x", &[9], &[]).is_err());
    assert!(transaction.set_setting("s", b"1").is_err());
    assert!(transaction.commit().is_err());
    assert!(bench.engine.begin().is_err());
    bench.engine.recover().unwrap();
    bench.commit("n", &[put("x", "4")]);
}

#[test]
fn a_reader_beside_the_writer_sees_each_commit() {
    let mut bench = Bench::with(Mode { durability: Durability::Commit, ..FAST });
    bench.commit("n", &[put("x", "1")]);
    let other = open_reader(&bench.path).unwrap();
    for seq in 2..20 {
        bench.commit("n", &[put("x", seq.to_string())]);
        assert_eq!(other.head().unwrap(), bench.head);
        assert_eq!(other.get("n", "x", At::Latest).unwrap().unwrap().row.seq, seq);
        bench.engine.checkpoint(seq % 2 == 0).unwrap();
    }
    // It goes on when the writer has gone.
    bench.engine.close().unwrap();
    assert_eq!(other.get("n", "x", At::Latest).unwrap().unwrap().row.seq, 19);
    assert_eq!(bench.reader().head().unwrap_err().kind(), ErrorKind::DatabaseClosed);
    assert_eq!(bench.engine.begin().err().unwrap().kind(), ErrorKind::DatabaseClosed);
}

#[test]
fn every_mode_keeps_what_was_committed() {
    for wal in [true, false] {
        for durability in [Durability::Commit, Durability::Batched, Durability::None] {
            let mut bench = Bench::with(Mode { wal, durability });
            for number in 0..20 {
                bench.commit("n", &[put("x", number.to_string()), put(&format!("k{number}"), "1")]);
                assert_eq!(bench.reader().head().unwrap(), bench.head);
            }
            bench.engine.checkpoint(false).unwrap();
            bench.engine.checkpoint(true).unwrap();
            bench.engine.recover().unwrap();
            bench.commit("n", &[put("x", "last")]);
            bench.engine.close().unwrap();
            let mode = Mode { wal: !wal, durability };
            bench.engine = SqliteEngine::open(&bench.path, mode).unwrap();
            assert_eq!(payload(&bench.reader().get("n", "x", At::Latest).unwrap().unwrap()), b"last");
        }
    }
}

#[test]
fn space_that_is_free_is_given_back() {
    let mut bench = Bench::new();
    for number in 0..40 {
        bench.commit("n", &[put("x", vec![number; 60_000])]);
    }
    let all: Vec<u64> = (1..40).collect();
    let mut transaction = bench.engine.begin().unwrap();
    transaction.retire("n", "x", &all, &[]).unwrap();
    transaction.commit().unwrap();
    let before = bench.reader().stats().unwrap();
    assert!(before.free_bytes > 2_000_000, "{before:?}");
    assert_eq!(bench.engine.vacuum(10).unwrap(), 10);
    assert!(bench.engine.vacuum(100_000).unwrap() > 400);
    bench.engine.checkpoint(true).unwrap();
    let after = bench.reader().stats().unwrap();
    assert_eq!((after.free_bytes, after.wal_bytes), (0, 0));
    assert!(std::fs::metadata(&bench.path).unwrap().len() < 200_000);
    assert_eq!(bench.engine.vacuum(10).unwrap(), 0);
}

#[test]
fn a_backup_is_one_state_while_writes_go_on() {
    for wal in [true, false] {
        let mut bench = Bench::with(Mode { wal, ..FAST });
        for number in 0..200 {
            bench.commit("n", &[put(&format!("k{number}"), vec![number as u8; 20_000])]);
        }
        let (reader, copy) = (bench.reader(), bench.path.with_extension("copy"));
        let head = std::thread::scope(|scope| {
            let backup = scope.spawn(|| reader.backup(&copy, &Job::new()).unwrap());
            for _ in 0..50 {
                bench.commit("n", &[put("x", "1"), put("y", "1")]);
            }
            backup.join().unwrap();
            bench.head.seq
        });
        let copied = open_reader(&copy).unwrap();
        let at = copied.head().unwrap().seq;
        assert!((200..=head).contains(&at));
        assert_eq!(copied.integrity(&Job::new()).unwrap(), [""; 0]);
        let seq = |key| copied.get("n", key, At::Latest).unwrap().map(|found| found.row.seq);
        assert_eq!(seq("x"), seq("y"));
        assert_eq!(reader.backup(&copy, &Job::new()).unwrap_err().kind(), ErrorKind::Validation);
        let (cancelled, target) = (Job::new(), bench.path.with_extension("never"));
        cancelled.cancel();
        assert_eq!(reader.backup(&target, &cancelled).unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(!target.exists());
    }
}

fn kind_of(path: &Path) -> ErrorKind {
    SqliteEngine::open(path, FAST).err().unwrap().kind()
}

#[test]
fn files_that_are_not_ours_are_refused_by_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("text"), "not a database at all, but long enough to be looked at".repeat(99))
        .unwrap();
    assert_eq!(kind_of(&path("text")), ErrorKind::Corruption);
    assert_eq!(kind_of(&path("none/store.limn")), ErrorKind::StoreIo);
    std::fs::create_dir(path("folder")).unwrap();
    assert_eq!(kind_of(&path("folder")), ErrorKind::StoreIo);
    for (name, sql, kind) in [
        ("other", "CREATE TABLE t (x)", ErrorKind::Validation),
        (
            "newer",
            "CREATE TABLE t (x); PRAGMA application_id = 1818848622; PRAGMA user_version = 2",
            ErrorKind::NewerDatabase,
        ),
        (
            "odd",
            "CREATE TABLE t (x); PRAGMA application_id = 1818848622; PRAGMA user_version = 0",
            ErrorKind::Corruption,
        ),
        (
            "empty",
            "CREATE TABLE t (x); PRAGMA application_id = 1818848622; PRAGMA user_version = 1",
            ErrorKind::Corruption,
        ),
    ] {
        rusqlite::Connection::open(path(name)).unwrap().execute_batch(sql).unwrap();
        assert_eq!(kind_of(&path(name)), kind, "{name}");
        assert_eq!(open_reader(&path(name)).err().unwrap().kind(), kind, "{name}");
    }
    assert_eq!(open_reader(&path("missing")).err().unwrap().kind(), ErrorKind::StoreIo);
    assert!(!path("missing").exists());
}

#[test]
fn a_second_writer_hears_that_the_file_is_in_use() {
    let mut bench = Bench::new();
    bench.commit("n", &[put("x", "1")]);
    let other = rusqlite::Connection::open(&bench.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(bench.engine.begin().err().unwrap().kind(), ErrorKind::DatabaseLocked);
    other.execute_batch("ROLLBACK").unwrap();
    bench.commit("n", &[put("x", "2")]);
}

#[cfg(unix)]
#[test]
fn a_file_that_has_lost_its_name_takes_no_commits() {
    let mut bench = Bench::new();
    bench.commit("n", &[put("x", "1")]);
    let elsewhere = bench.path.with_extension("moved");
    std::fs::rename(&bench.path, &elsewhere).unwrap();
    let mut transaction = bench.engine.begin().unwrap();
    transaction.set_setting("s", b"1").unwrap();
    assert_eq!(transaction.commit().unwrap_err().kind(), ErrorKind::StoreIo);
    assert!(bench.engine.begin().is_err() && bench.engine.recover().is_err());
    assert!(!bench.path.exists());
    std::fs::rename(&elsewhere, &bench.path).unwrap();
    bench.engine.recover().unwrap();
    bench.commit("n", &[put("x", "2")]);
    assert_eq!(payload(&bench.reader().get("n", "x", At::Seq(1)).unwrap().unwrap()), b"1");
}

#[test]
fn damage_hides_what_it_hit_and_nothing_else() {
    let mut bench = Bench::new();
    for round in 0..60 {
        let steps: Vec<Step> =
            (0..40).map(|key| put(&format!("k{key}"), format!("{round} {key} ").repeat(40))).collect();
        bench.commit("n", &steps);
        if round == 50 {
            bench.engine.compress(1000).unwrap();
        }
    }
    bench.engine.close().unwrap();
    let whole = std::fs::read(&bench.path).unwrap();
    let expected = {
        let reader = open_reader(&bench.path).unwrap();
        reader.dump(0, 1000).unwrap().into_iter().map(|dumped| dumped.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(expected.len(), 40);
    assert!(expected.iter().all(|dumped| dumped.rows.len() == 60));
    let (mut random, mut hit, mut kept) = (limnion_testkit::Random::new(3), 0, 0);
    let pages = whole.len() / 4096;
    for page in 1..pages {
        let mut bytes = whole.clone();
        let at = page * 4096;
        match page % 3 {
            0 => bytes[at..at + 4096].fill(0),
            1 => (at..at + 4096).for_each(|at| bytes[at] = random.bits() as u8),
            // Children, cells and lengths point somewhere else.
            _ => (0..30).for_each(|_| bytes[at + random.below(120)] = random.bits() as u8),
        }
        let path = bench.path.with_extension("damaged");
        std::fs::write(&path, &bytes).unwrap();
        let Ok(reader) = open_reader(&path) else { continue };
        let mut after = 0;
        while let Ok(dumped) = reader.dump(after, 7) {
            if dumped.is_empty() {
                break;
            }
            for dumped in dumped {
                match dumped {
                    Ok(dumped) => {
                        after = dumped.id;
                        let sound = |row: &&Row| hash::is_whole(&dumped.namespace, &dumped.key, row);
                        kept += dumped.rows.iter().filter(sound).count();
                    }
                    Err((id, _)) => {
                        after = id;
                        hit += 1;
                    }
                }
            }
        }
        let job = Job::new();
        reader.integrity(&job).unwrap();
        for key in 0..40 {
            let key = format!("k{key}");
            for at in [At::Latest, At::Seq(30), At::Seq(55)] {
                let _ = reader.get("n", &key, at);
            }
            let _ = reader.history("n", &key, None, At::Latest, 100);
        }
        let _ = (reader.scan("n", &KeyRange::ALL, At::Seq(20), 100, false, true), reader.commits(0, 100));
        let _ = (reader.stats(), reader.expired(9, 9), reader.namespaces(), reader.commit_at(time(30)));
    }
    assert!(hit > 0, "no damage was seen");
    let share = kept as f64 / (pages as f64 * 40.0 * 60.0);
    assert!(share > 0.85, "of what was not damaged {share} was found");
}

#[test]
fn a_long_check_stops_when_told() {
    let mut bench = Bench::new();
    for _ in 0..20 {
        let steps: Vec<Step> = (0..500).map(|key| put(&format!("k{key}"), vec![7; 500])).collect();
        bench.commit("n", &steps);
    }
    let (reader, job) = (bench.reader(), Job::new());
    job.cancel();
    assert_eq!(reader.integrity(&job).unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(reader.integrity(&Job::new()).unwrap(), [""; 0]);
}
