//! What the store promises, whatever engine lies below.
#![expect(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use std::sync::{Arc, Barrier};
use std::time::Duration;

use limnion_store::{
    AsOf, At, Batch, Body, Condition, Content, Expect, KeyRange, Kind, Op, Options, Record, Retention, Store,
    Vector,
};
use limnion_types::{ErrorKind, Job};
use tempfile::TempDir;

/// A store of each kind, and the folder of the one that has one.
fn each(promise: impl Fn(Store)) {
    promise(Store::open(Options::memory()).unwrap());
    let folder = TempDir::new().unwrap();
    promise(Store::open(Options::folder(folder.path())).unwrap());
    let folder = TempDir::new().unwrap();
    promise(Store::open(Options { key: Some([7; 32]), ..Options::folder(folder.path()) }).unwrap());
    let folder = TempDir::new().unwrap();
    promise(Store::open(Options { max_memory: 0, wal: false, ..Options::folder(folder.path()) }).unwrap());
}

fn put(namespace: &str, key: &str, json: &str) -> Op {
    Op::Put { namespace: namespace.into(), key: key.into(), body: Body::json(json.as_bytes()) }
}

fn delete(namespace: &str, key: &str) -> Op {
    Op::Delete { namespace: namespace.into(), key: key.into() }
}

fn batch(ops: impl Into<Vec<Op>>) -> Batch {
    Batch { ops: ops.into(), conditions: Vec::new() }
}

fn text(record: &Record) -> String {
    String::from_utf8(record.payload.value().to_vec()).unwrap()
}

fn get(store: &Store, key: &str, at: At) -> Option<String> {
    store.get("n", key, at).unwrap().map(|record| text(&record))
}

#[test]
fn what_was_written_is_read_and_every_version_stays() {
    each(|store| {
        for number in 1..=5 {
            let receipt = store.write(batch([put("n", "k", &number.to_string())])).unwrap();
            assert_eq!((receipt.version, receipt.written), (number, 1));
        }
        assert_eq!(get(&store, "k", At::Latest).unwrap(), "5");
        for number in 1..=5 {
            assert_eq!(get(&store, "k", At::Seq(number)).unwrap(), number.to_string());
        }
        let history = store.history("n", "k", None, At::Latest, 100).unwrap();
        assert_eq!(history.iter().map(text).collect::<Vec<_>>(), ["1", "2", "3", "4", "5"]);
        assert!(history.windows(2).all(|pair| pair[0].time < pair[1].time));
        for record in &history {
            assert_eq!(get(&store, "k", At::Time(record.time)).unwrap(), text(record));
        }
        let some = store.history("n", "k", Some(At::Seq(1)), At::Seq(4), 2).unwrap();
        assert_eq!(some.iter().map(text).collect::<Vec<_>>(), ["3", "4"]);
        let early = store.get("n", "k", At::Time(history[0].time - 1)).unwrap_err();
        assert_eq!(early.kind(), ErrorKind::NoValueAtTime);
        assert_eq!(store.get("n", "other", At::Latest).unwrap(), None);
        assert!(store.check(&Job::new()).unwrap().problems.is_empty());
    });
}

#[test]
fn deleting_writes_a_version_too() {
    each(|store| {
        store.write(batch([put("n", "k", "1")])).unwrap();
        let gone = store.write(batch([delete("n", "k")])).unwrap();
        assert_eq!((gone.version, gone.written), (2, 1));
        assert_eq!(get(&store, "k", At::Latest), None);
        assert_eq!(get(&store, "k", At::Seq(1)).unwrap(), "1");
        let nothing = store.write(batch([delete("n", "k"), delete("n", "never")])).unwrap();
        assert_eq!((nothing.version, nothing.written), (2, 0), "nothing to delete makes no commit");
        let kinds: Vec<Kind> =
            store.history("n", "k", None, At::Latest, 9).unwrap().iter().map(|record| record.kind).collect();
        assert_eq!(kinds, [Kind::Put, Kind::Deleted]);
        assert!(store.scan("n", &KeyRange::ALL, At::Latest, 9, false, true).unwrap().is_empty());
        assert_eq!(store.scan("n", &KeyRange::ALL, At::Seq(1), 9, false, true).unwrap().len(), 1);
        assert!(store.namespaces().unwrap().is_empty());
    });
}

#[test]
fn a_batch_is_one_commit_and_its_last_word_counts() {
    each(|store| {
        let ops = [
            put("n", "a", "1"),
            put("m", "b", "2"),
            put("n", "a", "3"),
            delete("m", "b"),
            put("n", "c", "4"),
        ];
        let receipt = store.write(batch(ops)).unwrap();
        assert_eq!((receipt.version, receipt.written), (1, 2), "b was never there, and still is not");
        assert_eq!(get(&store, "a", At::Latest).unwrap(), "3");
        let (events, next) = store.changes(None, 0, 100).unwrap();
        assert_eq!(next, 1);
        let names: Vec<&str> = events.iter().map(|event| &*event.key).collect();
        assert_eq!(names, ["a", "c"]);
    });
}

#[test]
fn what_commits_of_one_group_leave_is_what_the_last_of_them_wrote() {
    each(|store| {
        let hand_in = |op: Op| store.submit(batch([op]), |done| assert!(done.is_ok()));
        for round in 0..10 {
            // They come faster than they are written, so that many share a transaction.
            for turn in 0..5 {
                hand_in(put("n", "gone", &turn.to_string()));
                hand_in(delete("n", "gone"));
                hand_in(put("n", "large", &turn.to_string()));
                hand_in(put("n", "large", &format!("\"{round}{}\"", "x".repeat(300_000))));
                hand_in(put("n", "kept", &format!("{round}{turn}")));
            }
            store.flush().unwrap();
            assert_eq!(get(&store, "gone", At::Latest), None);
            assert_eq!(get(&store, "large", At::Latest).unwrap().len(), 300_002 + round.to_string().len());
            assert_eq!(get(&store, "kept", At::Latest), Some(format!("{round}4")));
        }
    });
}

#[test]
fn conditions_hold_at_the_moment_of_the_commit() {
    each(|store| {
        let conditional = |expect, value: &str| Batch {
            ops: vec![put("n", "k", value), put("n", "other", value)],
            conditions: vec![Condition { namespace: "n".into(), key: "k".into(), expect }],
        };
        for expect in [Expect::Present, Expect::Version(1)] {
            assert_eq!(store.write(conditional(expect, "0")).unwrap_err().kind(), ErrorKind::Conflict);
        }
        store.write(conditional(Expect::Absent, "1")).unwrap();
        assert_eq!(store.write(conditional(Expect::Absent, "2")).unwrap_err().kind(), ErrorKind::Conflict);
        store.write(conditional(Expect::Version(1), "3")).unwrap();
        store.write(conditional(Expect::Present, "4")).unwrap();
        assert_eq!(
            store.write(conditional(Expect::Version(2), "5")).unwrap_err().kind(),
            ErrorKind::Conflict
        );
        assert_eq!(get(&store, "other", At::Latest).unwrap(), "4");
        assert_eq!(store.head().unwrap().0, 3);
    });
}

#[test]
fn compare_and_set_from_many_threads_loses_no_step() {
    each(|store| {
        store.write(batch([put("n", "counter", "0")])).unwrap();
        let (threads, steps) = (4, 25);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..steps {
                        loop {
                            let seen = store.get("n", "counter", At::Latest).unwrap().unwrap();
                            let next = text(&seen).parse::<u32>().unwrap() + 1;
                            let step = Batch {
                                ops: vec![put("n", "counter", &next.to_string())],
                                conditions: vec![Condition {
                                    namespace: "n".into(),
                                    key: "counter".into(),
                                    expect: Expect::Version(seen.version),
                                }],
                            };
                            if store.write(step).is_ok() {
                                break;
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(get(&store, "counter", At::Latest).unwrap(), (threads * steps).to_string());
    });
}

#[test]
fn those_who_wait_together_share_a_sync() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(Options::folder(folder.path())).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    for number in 0..2_000 {
        let sender = sender.clone();
        store.submit(batch([put("n", &number.to_string(), "1")]), move |done| sender.send(done).unwrap());
    }
    drop(sender);
    let versions: Vec<u64> = receiver.iter().map(|done| done.unwrap().version).collect();
    assert_eq!(versions, (1..=2_000).collect::<Vec<_>>(), "one commit each, in order");
}

#[test]
fn a_store_comes_back_as_it_was() {
    let folder = TempDir::new().unwrap();
    let body = Body {
        content: Content::Bytes,
        value: vec![9; 200_000].into(),
        metadata: Some(r#"{"a":1}"#.into()),
        text: Some("some words".into()),
        vectors: vec![
            Vector { name: "".into(), numbers: [1.0, 2.0, 3.0].into() },
            Vector { name: "title".into(), numbers: vec![0.5; 384].into() },
        ],
        expires: None,
    };
    for key in [None, Some([3; 32])] {
        let path = folder.path().join(if key.is_some() { "secret" } else { "open" });
        let options = Options { key, ..Options::folder(&path) };
        let store = Store::open(options.clone()).unwrap();
        let op = |name: &str| Op::Put { namespace: "n".into(), key: name.into(), body: body.clone() };
        store.write(batch([op("one")])).unwrap();
        store.write(batch([op("two")])).unwrap();
        store.set_tag("here", At::Latest, false).unwrap();
        store.close().unwrap();
        store.close().unwrap();
        assert_eq!(store.get("n", "one", At::Latest).unwrap_err().kind(), ErrorKind::DatabaseClosed);
        assert_eq!(store.write(batch([op("late")])).unwrap_err().kind(), ErrorKind::DatabaseClosed);

        let store = Store::open(options.clone()).unwrap();
        for name in ["one", "two"] {
            let record = store.get("n", name, At::Latest).unwrap().unwrap();
            assert_eq!(record.payload.to_body(None), body, "{name}");
            let listed = store.scan("n", &KeyRange::prefix(name), At::Latest, 1, false, true).unwrap();
            assert_eq!(store.vectors(&listed[0]).unwrap(), body.vectors);
        }
        assert_eq!(store.resolve(&AsOf::Tag("here".into())).unwrap(), At::Seq(2));
        assert_eq!(store.text_search("n", "words", 9, None, At::Latest, &Job::new()).unwrap().len(), 2);
        assert_eq!(store.text_search("n", "words", 9, None, At::Seq(1), &Job::new()).unwrap().len(), 1);
        let report = store.check(&Job::new()).unwrap();
        assert_eq!((report.problems.len(), report.records, report.versions, report.commits), (0, 2, 2, 2));
        assert!(store.issues().is_empty());
        let bytes: u64 = std::fs::read_dir(path.join("segments"))
            .unwrap()
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum();
        match key {
            None => assert!((200_000..300_000).contains(&bytes), "a value is kept once: {bytes}"),
            Some(_) => assert_eq!(bytes, 0, "segments are not encrypted"),
        }
        store.close().unwrap();
        if key.is_some() {
            for wrong in [None, Some([4; 32])] {
                let error = Store::open(Options { key: wrong, ..options.clone() }).err().unwrap();
                assert_eq!(error.kind(), ErrorKind::Validation);
            }
        } else {
            let error = Store::open(Options { key: Some([4; 32]), ..options.clone() }).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Validation);
        }
    }
}

#[test]
fn a_second_writer_is_told_who_holds_the_folder_and_a_reader_sees_its_commits() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(Options::folder(folder.path())).unwrap();
    store.write(batch([put("n", "k", "1")])).unwrap();
    let error = Store::open(Options::folder(folder.path())).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::DatabaseLocked);
    assert!(error.message().contains(&std::process::id().to_string()), "{error}");

    let reader = Store::open(Options { read_only: true, ..Options::folder(folder.path()) }).unwrap();
    assert_eq!(get(&reader, "k", At::Latest).unwrap(), "1");
    assert_eq!(reader.write(batch([put("n", "k", "2")])).unwrap_err().kind(), ErrorKind::ReadOnly);
    let (sender, receiver) = std::sync::mpsc::channel();
    reader.when_after(1, move || sender.send(()).unwrap());
    store.write(batch([put("n", "k", "2")])).unwrap();
    receiver.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(get(&reader, "k", At::Latest).unwrap(), "2");
    assert_eq!(reader.head().unwrap().0, 2);
    store.close().unwrap();
    assert_eq!(get(&reader, "k", At::Latest).unwrap(), "2");
    reader.close().unwrap();
    Store::open(Options::folder(folder.path())).unwrap();
}

#[test]
fn records_run_out_by_the_wall_clock_and_are_swept() {
    each(|store| {
        let now = limnion_store::clock::now();
        let body = Body { expires: Some(now + 150_000), ..Body::json(&b"1"[..]) };
        store.write(batch([Op::Put { namespace: "n".into(), key: "brief".into(), body }])).unwrap();
        assert_eq!(get(&store, "brief", At::Latest).unwrap(), "1");
        let written = store.head().unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(get(&store, "brief", At::Latest), None);
        assert_eq!(get(&store, "brief", At::Seq(written.0)).unwrap(), "1", "it was there then");
        assert_eq!(get(&store, "brief", At::Time(now + 149_000)).unwrap(), "1");
        assert_eq!(get(&store, "brief", At::Time(now + 150_000)), None);
        let swept = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            let history = store.history("n", "brief", None, At::Latest, 9).unwrap();
            history.last().unwrap().kind == Kind::Expired
        });
        assert!(swept, "its end is a version, in the background");
    });
}

#[test]
fn retention_drops_what_it_may_and_says_so_rather_than_answer_wrongly() {
    for keep in [1, 3] {
        let folder = TempDir::new().unwrap();
        let retention = Retention { keep_last: Some(keep), keep_for: None, keep_tagged: true };
        let options = Options { retention: Some(retention), ..Options::folder(folder.path()) };
        let store = Store::open(options.clone()).unwrap();
        for number in 1..=10 {
            store.write(batch([put("n", "k", &number.to_string())])).unwrap();
            if number == 4 {
                store.set_tag("four", At::Latest, false).unwrap();
            }
        }
        store.vacuum(&Job::new()).unwrap();
        let kept: Vec<String> =
            store.history("n", "k", None, At::Latest, 99).unwrap().iter().map(text).collect();
        assert_eq!(kept, if keep == 1 { vec!["4", "10"] } else { vec!["4", "8", "9", "10"] });
        assert_eq!(get(&store, "k", At::Seq(4)).unwrap(), "4");
        for gone in [1, 3, 5, 7] {
            let error = store.get("n", "k", At::Seq(gone)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoValueAtTime, "{gone}: {error}");
        }
        assert_eq!(store.check(&Job::new()).unwrap().problems, Vec::<String>::new());
    }
}

#[test]
fn what_retention_takes_while_it_is_read_is_no_damage() {
    let folder = TempDir::new().unwrap();
    let retention = Retention { keep_last: Some(1), keep_for: None, keep_tagged: false };
    let store =
        Store::open(Options { retention: Some(retention), ..Options::folder(folder.path()) }).unwrap();
    let write = |number: f32| {
        // Each name is a column in a segment of its own, which goes when nothing refers to it.
        let vectors = vec![Vector { name: number.to_string().into(), numbers: [number; 8].into() }];
        let body = Body { vectors, ..Body::json(&b"1"[..]) };
        store.write(batch([Op::Put { namespace: "n".into(), key: "k".into(), body }])).unwrap();
    };
    write(1.0);
    let record = store.scan("n", &KeyRange::ALL, At::Latest, 1, false, true).unwrap().remove(0);
    assert_eq!(store.vectors(&record).unwrap()[0].numbers[..], [1.0; 8]);
    write(2.0);
    store.vacuum(&Job::new()).unwrap();
    match store.vectors(&record) {
        Ok(vectors) => assert_eq!(vectors[0].numbers[..], [1.0; 8], "the file is there as long as it grows"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::NoValueAtTime, "{error}"),
    }
    assert_eq!(store.get("n", "k", At::Latest).unwrap().unwrap().payload.vectors()[0].numbers[..], [2.0; 8]);
    assert_eq!(store.check(&Job::new()).unwrap().problems, Vec::<String>::new());
}

#[test]
fn old_versions_grow_cold_and_stay_readable() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(Options::folder(folder.path())).unwrap();
    let value = |number: u64| format!(r#"{{"number":{number},"text":"{}"}}"#, "lorem ipsum ".repeat(20));
    for number in 1..=300 {
        store.write(batch([put("n", "k", &value(number))])).unwrap();
    }
    let before = store.stats().unwrap();
    let done = store.vacuum(&Job::new()).unwrap();
    let after = store.stats().unwrap();
    assert!(done.compressed >= 200, "{done:?}");
    assert!(after.cold_versions >= 200 && after.disk_bytes < before.disk_bytes, "{before:?} {after:?}");
    for number in 1..=300 {
        assert_eq!(get(&store, "k", At::Seq(number)).unwrap(), value(number));
    }
    assert_eq!(store.history("n", "k", None, At::Latest, 1000).unwrap().len(), 300);
    assert_eq!(store.check(&Job::new()).unwrap().problems, Vec::<String>::new());
}

#[test]
fn a_watcher_misses_nothing_and_is_woken() {
    each(|store| {
        let total = 200;
        let writer = store.clone();
        let thread = std::thread::spawn(move || {
            for number in 0..total {
                writer.write(batch([put("n", &number.to_string(), "1")])).unwrap();
            }
        });
        let (mut after, mut seen) = (0, Vec::new());
        while seen.len() < total {
            let (events, next) = store.changes(Some("n"), after, 7).unwrap();
            if events.is_empty() {
                let (sender, receiver) = std::sync::mpsc::channel();
                store.when_after(next, move || sender.send(()).unwrap());
                receiver.recv_timeout(Duration::from_secs(10)).unwrap();
            }
            seen.extend(events.into_iter().map(|event| event.key.parse::<usize>().unwrap()));
            after = next;
        }
        thread.join().unwrap();
        assert_eq!(seen, (0..total).collect::<Vec<_>>());
        let (sender, receiver) = std::sync::mpsc::channel();
        store.when_after(after, move || sender.send(()).unwrap());
        store.close().unwrap();
        receiver.recv_timeout(Duration::from_secs(5)).expect("closing wakes who waits");
    });
}

#[test]
fn restoring_brings_back_what_was_and_removes_what_was_not() {
    each(|store| {
        store.write(batch([put("n", "a", "1"), put("n", "b", "2"), put("m", "x", "9")])).unwrap();
        store.set_tag("then", At::Latest, false).unwrap();
        store
            .write(batch([put("n", "a", "5"), delete("n", "b"), put("n", "c", "3"), put("m", "x", "8")]))
            .unwrap();
        let then = store.resolve(&AsOf::Tag("then".into())).unwrap();
        let job = Arc::new(Job::new());
        let one = store.restore(Some("n"), Some("a"), then, &job).unwrap();
        assert_eq!((one.version, one.written), (3, 1));
        let all = store.restore(Some("n"), None, then, &job).unwrap();
        assert_eq!(all.written, 2, "a is what it was already");
        let list = |namespace: &str| -> Vec<(String, String)> {
            let records = store.scan(namespace, &KeyRange::ALL, At::Latest, 99, false, true).unwrap();
            records.iter().map(|record| (record.key.to_string(), text(record))).collect()
        };
        assert_eq!(list("n"), [("a".into(), "1".into()), ("b".into(), "2".into())]);
        assert_eq!(list("m"), [("x".into(), "8".into())]);
        store.restore(None, None, then, &job).unwrap();
        assert_eq!(list("m"), [("x".into(), "9".into())]);
        assert_eq!(store.restore(None, None, then, &job).unwrap().written, 0);
    });
}

#[test]
fn a_backup_and_lines_hold_everything() {
    each(|store| {
        let secret = store.options().key;
        for number in 0..50 {
            let body = Body {
                vectors: vec![Vector { name: "".into(), numbers: [number as f32, 0.25].into() }],
                text: Some(format!("number {number}").into()),
                metadata: Some(format!(r#"{{"n":{number}}}"#).into()),
                ..Body::json(format!(r#"{{"big":123456789012345678901234567890,"n":{number}}}"#).into_bytes())
            };
            let op = Op::Put { namespace: "n".into(), key: (number % 20).to_string().into(), body };
            store.write(batch([op])).unwrap();
        }
        store.write(batch([delete("n", "3")])).unwrap();
        store.set_tag("t", At::Seq(10), false).unwrap();
        let folder = TempDir::new().unwrap();
        let (copy, lines, history) =
            (folder.path().join("copy"), folder.path().join("lines"), folder.path().join("history"));
        let job = Job::new();
        store.backup(&copy, &job).unwrap();
        assert_eq!(
            store.backup(&copy, &job).unwrap_err().kind(),
            ErrorKind::Validation,
            "it is not overwritten"
        );
        assert_eq!(store.export(&lines, None, false, &job).unwrap(), 19);
        assert_eq!(store.export(&history, None, true, &job).unwrap(), 51);

        let copied = Store::open(Options { key: secret, ..Options::folder(&copy) }).unwrap();
        let replayed = Store::open(Options::memory()).unwrap();
        assert_eq!(replayed.import(&history, &job).unwrap(), 51);
        for other in [&copied, &replayed] {
            assert_eq!(other.head().unwrap(), store.head().unwrap());
            for key in 0..20 {
                let key = key.to_string();
                let expected = store.history("n", &key, None, At::Latest, 99).unwrap();
                let found = other.history("n", &key, None, At::Latest, 99).unwrap();
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(&expected) {
                    assert_eq!(text(found), text(expected));
                    assert_eq!(
                        (found.version, found.time, found.kind),
                        (expected.version, expected.time, expected.kind)
                    );
                    assert_eq!(other.vectors(found).unwrap(), store.vectors(expected).unwrap());
                    assert_eq!(found.payload.metadata(), expected.payload.metadata());
                }
            }
            assert_eq!(other.check(&job).unwrap().problems, Vec::<String>::new());
        }
        assert_eq!(copied.resolve(&AsOf::Tag("t".into())).unwrap(), At::Seq(10));
        let fresh = Store::open(Options::memory()).unwrap();
        assert_eq!(fresh.import(&lines, &job).unwrap(), 19);
        assert_eq!(fresh.scan("n", &KeyRange::ALL, At::Latest, 99, false, true).unwrap().len(), 19);
        assert_eq!(fresh.import(&history, &job).unwrap_err().kind(), ErrorKind::Validation);
    });
}

#[test]
fn readers_see_whole_commits_while_somebody_writes() {
    each(|store| {
        let accounts: Vec<Op> = (0..10).map(|at| put("n", &at.to_string(), "100")).collect();
        store.write(batch(accounts)).unwrap();
        let start = Barrier::new(3);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..100 {
                        let records = store.scan("n", &KeyRange::ALL, At::Latest, 99, false, true).unwrap();
                        let sum: i64 =
                            records.iter().map(|record| text(record).parse::<i64>().unwrap()).sum();
                        assert_eq!(sum, 1000);
                    }
                });
            }
            start.wait();
            for step in 0..100i64 {
                let (from, to) = (step % 10, (step * 7 + 3) % 10);
                let value =
                    |at: i64| get(&store, &at.to_string(), At::Latest).unwrap().parse::<i64>().unwrap();
                if from != to {
                    let ops = [
                        put("n", &from.to_string(), &(value(from) - 1).to_string()),
                        put("n", &to.to_string(), &(value(to) + 1).to_string()),
                    ];
                    store.write(batch(ops)).unwrap();
                }
            }
        });
    });
}

#[test]
fn wrong_names_and_vectors_are_refused_before_anything_is_written() {
    each(|store| {
        let vector = |numbers: Vec<f32>| {
            let vectors = vec![Vector { name: "".into(), numbers: numbers.into() }];
            Op::Put {
                namespace: "n".into(),
                key: "v".into(),
                body: Body { vectors, ..Body::json(&b"1"[..]) },
            }
        };
        let long = "k".repeat(5000);
        for wrong in [
            put("", "k", "1"),
            put("a/b", "k", "1"),
            put("n", "", "1"),
            put("n", &long, "1"),
            delete("a/b", "k"),
            vector(vec![]),
            vector(vec![f32::NAN]),
        ] {
            let error = store.write(batch([put("n", "good", "1"), wrong])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Validation);
        }
        assert_eq!(store.head().unwrap().0, 0);
        assert_eq!(store.resolve(&AsOf::Version(1)).unwrap_err().kind(), ErrorKind::Validation);
        assert_eq!(store.resolve(&AsOf::Tag("no".into())).unwrap_err().kind(), ErrorKind::Validation);
        store.write(batch([put("n", "alice", "1"), put("n", "alex", "1"), put("n", "bob", "1")])).unwrap();
        assert_eq!(store.similar_keys("n", "alixe"), ["alice", "alex"]);
    });
}

#[test]
fn lost_commits_are_noticed_at_open() {
    let folder = TempDir::new().unwrap();
    let options = Options::folder(folder.path());
    let store = Store::open(options.clone()).unwrap();
    store.write(batch([put("n", "k", "1")])).unwrap();
    store.close().unwrap();
    let old = std::fs::read(folder.path().join("store.limn")).unwrap();
    let store = Store::open(options.clone()).unwrap();
    for number in 2..=4 {
        store.write(batch([put("n", "k", &number.to_string())])).unwrap();
    }
    store.close().unwrap();
    std::fs::write(folder.path().join("store.limn"), old).unwrap();
    let error = Store::open(options.clone()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.message().contains("3 commits are lost"), "{error}");
    let reader = Options { read_only: true, ..options.clone() };
    assert_eq!(Store::open(reader.clone()).err().unwrap().kind(), ErrorKind::Corruption);
    let reader = Store::open(Options { accept_loss: true, ..reader }).unwrap();
    assert_eq!((get(&reader, "k", At::Latest).unwrap(), reader.issues().len()), ("1".to_owned(), 1));
    reader.close().unwrap();
    let store = Store::open(Options { accept_loss: true, ..options.clone() }).unwrap();
    assert_eq!(get(&store, "k", At::Latest).unwrap(), "1");
    assert_eq!(store.issues().len(), 1);
    store.close().unwrap();
    let store = Store::open(options.clone()).unwrap();
    assert!(store.issues().is_empty(), "what was accepted is not told again");
    store.write(batch([put("n", "k", "5")])).unwrap();
    store.close().unwrap();
    let store = Store::open(options).unwrap();
    assert!(store.issues().is_empty());
}
