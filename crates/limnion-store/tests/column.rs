//! What a column promises, whatever engine lies below.
#![expect(clippy::unwrap_used, reason = "a test may stop at what it did not expect")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use limnion_store::column::{Span, State, Vectors};
use limnion_store::{At, Batch, Body, Column, Moment, Op, Options, Retention, Seq, Store, Vector, clock};
use limnion_types::{ErrorKind, Filter, Job};
use tempfile::TempDir;

fn each(promise: impl Fn(Store)) {
    promise(Store::open(Options::memory()).unwrap());
    let folder = TempDir::new().unwrap();
    promise(Store::open(Options::folder(folder.path())).unwrap());
    let folder = TempDir::new().unwrap();
    promise(Store::open(Options { key: Some([7; 32]), ..Options::folder(folder.path()) }).unwrap());
}

fn body(vectors: &[(&str, &[f32])], expires: Option<u64>) -> Body {
    let vectors =
        vectors.iter().map(|(name, numbers)| Vector { name: (*name).into(), numbers: (*numbers).into() });
    Body { vectors: vectors.collect(), expires, ..Body::json(*b"{}") }
}

fn put(key: &str, vectors: &[(&str, &[f32])]) -> Op {
    Op::Put { namespace: "n".into(), key: key.into(), body: body(vectors, None) }
}

fn delete(key: &str) -> Op {
    Op::Delete { namespace: "n".into(), key: key.into() }
}

fn write(store: &Store, ops: impl Into<Vec<Op>>) -> Seq {
    store.write(Batch { ops: ops.into(), conditions: Vec::new() }).unwrap().version
}

type Rows = BTreeMap<String, Vec<f32>>;

fn rows(read: impl FnOnce(limnion_store::column::Take<'_>) -> limnion_types::Result<()>) -> Rows {
    let mut rows = Rows::new();
    read(&mut |piece: Vectors| {
        assert_eq!(piece.numbers.len(), piece.keys.len() * piece.dim);
        assert_eq!(piece.spans.len(), piece.keys.len());
        for (key, numbers) in piece.keys.iter().zip(piece.numbers.chunks(piece.dim)) {
            assert_eq!(rows.insert(key.to_string(), numbers.to_vec()), None, "{key} comes twice");
        }
        Ok(())
    })
    .unwrap();
    rows
}

fn scan(column: &Column, at: Moment) -> Rows {
    rows(|take| column.scan(at, &Job::new(), take))
}

fn now(column: &Column) -> Rows {
    scan(column, column.state().unwrap().moment())
}

fn row(key: &str, numbers: &[f32]) -> (String, Vec<f32>) {
    (key.to_owned(), numbers.to_vec())
}

fn spans(
    read: impl FnOnce(limnion_store::column::Take<'_>) -> limnion_types::Result<()>,
) -> Vec<(String, Seq, Seq)> {
    let mut spans = Vec::new();
    read(&mut |piece: Vectors| {
        let named = piece.keys.iter().zip(&piece.spans);
        spans.extend(named.map(|(key, span)| (key.to_string(), span.from, span.to)));
        Ok(())
    })
    .unwrap();
    spans.sort();
    spans
}

#[test]
fn a_scan_gives_the_vectors_of_one_name_at_a_moment() {
    each(|store| {
        write(&store, [put("a", &[("", &[1., 2.]), ("title", &[9.])]), put("b", &[("title", &[8.])])]);
        write(&store, [put("c", &[("", &[3., 4., 5.])]), put("d", &[])]);
        write(&store, [put("a", &[("", &[6., 7.])]), delete("b")]);
        let (plain, title) = (store.column("n", ""), store.column("n", "title"));
        let at = |seq| Moment { seq, time: 0 };
        assert_eq!(scan(&plain, at(1)), Rows::from([row("a", &[1., 2.])]));
        assert_eq!(scan(&title, at(1)), Rows::from([row("a", &[9.]), row("b", &[8.])]));
        assert_eq!(now(&plain), Rows::from([row("a", &[6., 7.]), row("c", &[3., 4., 5.])]));
        assert_eq!(now(&title), Rows::new());
        let keys: Vec<Arc<str>> = ["c", "b", "never", "a"].map(Arc::from).to_vec();
        assert_eq!(
            rows(|take| title.get(&keys, at(2), &Job::new(), take)),
            Rows::from([row("a", &[9.]), row("b", &[8.])])
        );
        assert_eq!(now(&store.column("nowhere", "")), Rows::new());
        let names: Vec<(String, String)> = store.columns().unwrap().into_keys().collect();
        assert!(names.contains(&("n".to_owned(), String::new())), "{names:?}");
        assert_eq!((plain.dim().unwrap().is_some(), store.column("n", "x").dim().unwrap()), (true, None));
    });
}

#[test]
fn many_rows_come_in_pieces_and_in_any_order_of_keys() {
    each(|store| {
        let count: usize = 3_000;
        for part in (0..count).collect::<Vec<_>>().chunks(700) {
            // Keys are not in the order in which their vectors lie.
            let ops: Vec<Op> = part
                .iter()
                .map(|&at| put(&format!("{:05}", (at * 7919) % count), &[("", &[at as f32, 0.5])]))
                .collect();
            write(&store, ops);
        }
        let found = now(&store.column("n", ""));
        assert_eq!(found.len(), count);
        for at in 0..count {
            assert_eq!(found[&format!("{:05}", (at * 7919) % count)], [at as f32, 0.5]);
        }
        let job = Job::new();
        job.cancel();
        let column = store.column("n", "");
        let state = column.state().unwrap();
        let error = column.scan(state.moment(), &job, &mut |_| Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    });
}

#[test]
fn the_state_tells_of_writes_to_the_namespace_only() {
    each(|store| {
        let column = store.column("n", "");
        let before = column.state().unwrap();
        let elsewhere = Op::Put { namespace: "m".into(), key: "k".into(), body: body(&[("", &[1.])], None) };
        write(&store, [elsewhere]);
        assert_eq!(column.state().unwrap(), before);
        let seq = write(&store, [put("a", &[("", &[1.])])]);
        let after = column.state().unwrap();
        assert_eq!(after.commit.seq, seq);
        assert_ne!(after, before);
        let (state, changed) = column.changed(&before, 100).unwrap().unwrap();
        assert_eq!((state, changed.written), (after, vec![(Arc::from("a"), seq)]));
        assert_eq!(column.changed(&before, 1).unwrap(), None, "two writes are more than one");
        let other = State { commit: limnion_store::engine::Head { chain: [1; 32], ..after.commit }, ..after };
        assert_eq!(column.changed(&other, 100).unwrap(), None, "another history");
    });
}

#[test]
fn what_runs_out_changes_the_state_whether_it_is_swept_or_not() {
    each(|store| {
        let column = store.column("n", "");
        let expires = clock::now() + 60_000;
        let op =
            Op::Put { namespace: "n".into(), key: "a".into(), body: body(&[("", &[1.])], Some(expires)) };
        write(&store, [op, put("b", &[("", &[2.])])]);
        let before = column.state().unwrap();
        assert_eq!(now(&column).len(), 2);
        assert!(column.runs_out());
        while clock::now() < expires {
            std::thread::sleep(Duration::from_micros(200));
        }
        let after = column.state().unwrap();
        assert_ne!(after, before);
        assert_eq!(scan(&column, after.moment()), Rows::from([row("b", &[2.])]));
        assert_eq!(scan(&column, before.moment()).len(), 2, "that state has not changed");
        let (_, changed) = column.changed(&before, 100).unwrap().unwrap();
        let keys: Vec<_> = changed.written.into_iter().map(|(key, _)| key).chain(changed.ran_out).collect();
        assert_eq!(keys, [Arc::from("a")]);
    });
}

#[test]
fn spans_say_when_a_version_was_the_newest() {
    each(|store| {
        write(&store, [put("a", &[("", &[1.])]), put("b", &[("", &[2.])])]);
        write(&store, [put("a", &[("", &[3.])])]);
        write(&store, [delete("b")]);
        write(&store, [put("a", &[])]);
        write(&store, [put("b", &[("", &[4.])]), put("c", &[("", &[5.])])]);
        let column = store.column("n", "");
        let of = |key: &str, from, to| (key.to_owned(), from, to);
        let job = Job::new();
        assert_eq!(
            spans(|take| column.history(5, &job, take)),
            [of("a", 1, 2), of("a", 2, 4), of("b", 1, 3), of("b", 5, Seq::MAX), of("c", 5, Seq::MAX)]
        );
        assert_eq!(
            spans(|take| column.history(2, &job, take)),
            [of("a", 1, 2), of("a", 2, Seq::MAX), of("b", 1, Seq::MAX)]
        );
        let written = column.written(2, 5, 100).unwrap().unwrap();
        assert_eq!(written, [(Arc::from("b"), 3), (Arc::from("a"), 4), (Arc::from("c"), 5)]);
        let keys: Vec<Arc<str>> = written.into_iter().map(|(key, _)| key).collect();
        assert_eq!(
            spans(|take| column.history_of(&keys, 2, 5, &job, take)),
            [of("b", 5, Seq::MAX), of("c", 5, Seq::MAX)]
        );
        let span = Span { from: 2, to: 4, until: 100 };
        assert!(span.covers(Moment { seq: 3, time: 99 }) && !span.covers(Moment { seq: 3, time: 100 }));
        assert!(!span.covers(Moment { seq: 4, time: 0 }) && !span.covers(Moment { seq: 1, time: 0 }));
    });
}

#[test]
fn spans_end_where_retention_has_dropped_what_came_next() {
    let retention = Retention { keep_last: Some(1), keep_for: None, keep_tagged: true };
    for options in [Options::memory(), Options::folder(TempDir::new().unwrap().path())] {
        let store = Store::open(Options { retention: Some(retention), ..options }).unwrap();
        for number in 1..=6 {
            write(&store, [put("a", &[("", &[number as f32])]), put(&format!("k{number}"), &[])]);
            if number == 2 {
                store.set_tag("kept", At::Latest, false).unwrap();
            }
        }
        store.vacuum(&Job::new()).unwrap();
        let column = store.column("n", "");
        let found = spans(|take| column.history(6, &Job::new(), take));
        assert_eq!(found, [("a".to_owned(), 2, 3), ("a".to_owned(), 6, Seq::MAX)]);
        // At 3 there was a version that is gone: that is told, not passed over. At 1, nothing is left of it at all.
        for seq in [1, 3] {
            let error = column.scan(Moment { seq, time: 0 }, &Job::new(), &mut |_| Ok(())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoValueAtTime);
        }
        assert_eq!(scan(&column, Moment { seq: 2, time: 0 }), Rows::from([row("a", &[2.])]));
        assert_eq!(now(&column), Rows::from([row("a", &[6.])]));
    }
}

#[test]
fn only_writes_to_the_namespace_wake() {
    each(|store| {
        let column = store.column("n", "");
        let seq = column.state().unwrap().commit.seq;
        let (sender, woken) = mpsc::channel();
        let wake = move |sender: mpsc::Sender<()>| move || sender.send(()).unwrap();
        column.when_written(seq, wake(sender.clone()));
        let elsewhere = Op::Put { namespace: "m".into(), key: "k".into(), body: body(&[], None) };
        write(&store, [elsewhere]);
        assert!(woken.recv_timeout(Duration::from_millis(20)).is_err());
        let written = write(&store, [put("a", &[])]);
        woken.recv_timeout(Duration::from_secs(10)).unwrap();
        column.when_written(seq, wake(sender.clone()));
        woken.recv_timeout(Duration::from_secs(10)).unwrap();
        column.when_written(written, wake(sender.clone()));
        store.close().unwrap();
        woken.recv_timeout(Duration::from_secs(10)).unwrap();
    });
}

#[test]
fn keys_are_selected_by_filter_among_those_with_a_vector() {
    each(|store| {
        let with = |key: &str, year: u32, vectors: &[(&str, &[f32])]| Op::Put {
            namespace: "n".into(),
            key: key.into(),
            body: Body {
                vectors: body(vectors, None).vectors,
                ..Body::json(format!("{{\"year\":{year}}}").into_bytes())
            },
        };
        write(&store, [with("a", 1, &[("", &[1.])]), with("b", 2, &[("", &[1.])]), with("c", 2, &[])]);
        let column = store.column("n", "");
        let filter = Filter::from_text("year >= 2").unwrap();
        let (keys, state) = column.select(&filter, &Job::new()).unwrap();
        assert_eq!((keys, state), (vec![Arc::from("b")], column.state().unwrap()));
        if store.options().key.is_none() {
            store.create_index("n", "year", &Arc::new(Job::new())).unwrap();
            assert_eq!(column.select(&filter, &Job::new()).unwrap().0, [Arc::from("b")]);
        }
    });
}

#[test]
fn a_vector_that_is_damaged_is_told_with_its_record() {
    let folder = TempDir::new().unwrap();
    let store = Store::open(Options::folder(folder.path())).unwrap();
    write(&store, [put("a", &[("", &[1., 2.])]), put("b", &[("", &[3., 4.])]), put("c", &[("", &[5., 6.])])]);
    let segment = std::fs::read_dir(folder.path().join("segments")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[4096 + 8 + 1] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let column = store.column("n", "");
    let error = column.scan(Moment { seq: 1, time: 0 }, &Job::new(), &mut |_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.message().contains("n/b (version 1)"), "{error}");
    let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.set_len(4096 + 20).unwrap();
    let error = column.scan(Moment { seq: 1, time: 0 }, &Job::new(), &mut |_| Ok(())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
}

#[test]
fn beside_a_foreign_writer_the_state_follows_what_he_writes_here() {
    let folder = TempDir::new().unwrap();
    let writer = Store::open(Options::folder(folder.path())).unwrap();
    write(&writer, [put("a", &[("", &[1.])])]);
    let reader = Store::open(Options { read_only: true, ..Options::folder(folder.path()) }).unwrap();
    assert_eq!(reader.id(), writer.id());
    let column = reader.column("n", "");
    let before = column.state().unwrap();
    let elsewhere = Op::Put { namespace: "m".into(), key: "k".into(), body: body(&[], None) };
    write(&writer, [elsewhere]);
    assert_eq!(column.state().unwrap(), before);
    let seq = write(&writer, [put("b", &[("", &[2.])])]);
    let after = column.state().unwrap();
    assert_eq!(after.commit.seq, seq);
    assert_eq!(column.changed(&before, 100).unwrap().unwrap().1.written, [(Arc::from("b"), seq)]);
    assert_eq!(now(&column).len(), 2);
}

#[test]
fn a_store_keeps_its_number_and_a_backup_has_its_own() {
    let (folder, copies) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let store = Store::open(Options::folder(folder.path())).unwrap();
    let id = store.id();
    write(&store, [put("a", &[("", &[1.])])]);
    store.backup(&copies.path().join("copy"), &Job::new()).unwrap();
    store.close().unwrap();
    drop(store);
    assert_eq!(Store::open(Options::folder(folder.path())).unwrap().id(), id);
    let copy = Store::open(Options::folder(copies.path().join("copy"))).unwrap();
    assert_ne!(copy.id(), id);
    assert_eq!(now(&copy.column("n", "")).len(), 1);
    assert_ne!(Store::open(Options::memory()).unwrap().id(), Store::open(Options::memory()).unwrap().id());
}

#[test]
fn a_state_that_was_seen_is_never_unseen_while_commits_go_on() {
    each(|store| {
        let stop = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..200 {
                    write(&store, [put("a", &[("", &[number as f32])])]);
                }
                stop.store(1, Ordering::SeqCst);
            });
            let column = store.column("n", "");
            let mut last = 0;
            while stop.load(Ordering::SeqCst) == 0 {
                // Whoever has read a version finds it in the state.
                let read = store.get("n", "a", At::Latest).unwrap().map_or(0, |record| record.version);
                let state = column.state().unwrap();
                assert!(state.commit.seq >= read.max(last));
                last = state.commit.seq;
                let found = scan(&column, state.moment());
                let wanted = store.get("n", "a", At::Seq(last));
                if let Ok(Some(wanted)) = wanted {
                    let numbers = &store.vectors(&wanted).unwrap()[0].numbers;
                    assert_eq!(found["a"], **numbers);
                }
            }
        });
    });
}

/// What this thread has had of a processor: others may be busy, too.
fn busy_seconds() -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    told.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.) / 1e9
}

/// A line of what the system says of this process.
fn kilobytes(name: &str) -> u64 {
    let told = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = told.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[test]
#[ignore = "a measurement"]
fn rows_a_second() {
    let (count, dim) = (100_000_usize, 384);
    let folder = TempDir::new().unwrap();
    for shuffled in [false, true] {
        let path = folder.path().join(shuffled.to_string());
        let store = Store::open(Options::folder(path)).unwrap();
        for part in (0..count).collect::<Vec<_>>().chunks(5_000) {
            let ops: Vec<Op> = part
                .iter()
                .map(|&at| {
                    let number = if shuffled { (at * 7919) % count } else { at };
                    let numbers: Vec<f32> = (0..dim).map(|d| (at * dim + d) as f32).collect();
                    put(&format!("document-{number:08}"), &[("", &numbers)])
                })
                .collect();
            write(&store, ops);
        }
        let column = store.column("n", "");
        for _ in 0..4 {
            // The peak counts from here.
            let _ = std::fs::write("/proc/self/clear_refs", "5");
            let (began, busy, memory) = (Instant::now(), busy_seconds(), kilobytes("VmRSS"));
            let mut rows = 0;
            let at = column.state().unwrap().moment();
            let mut count = |piece: Vectors| {
                rows += piece.keys.len();
                Ok(())
            };
            column.scan(at, &Job::new(), &mut count).unwrap();
            let (spent, busy) = (began.elapsed().as_secs_f64(), busy_seconds() - busy);
            let most = kilobytes("VmHWM").saturating_sub(memory) / 1024;
            println!(
                "shuffled {shuffled}: {rows} rows in {spent:.3} s, {busy:.3} s of this thread, {most} MiB"
            );
        }
        let began = Instant::now();
        for _ in 0..1_000_000 {
            column.state().unwrap();
        }
        println!("state: {:.0} ns", began.elapsed().as_secs_f64() * 1e3);
    }
}
