//! Everything that a reader can be asked, compared with the model.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use limnion_store::engine::{Dumped, NamespaceInfo, Reader};
use limnion_store::model::{At, KeyRange};
use limnion_store::text::TextQuery;
use limnion_types::Job;

use crate::model::Model;
use crate::script::{FIELDS, KEYS, NAMESPACES, TAGS};

const ALL: usize = usize::MAX;

/// What a reader must still see while a transaction is under way.
pub(crate) fn check_briefly(model: &Model, reader: &dyn Reader) {
    assert_eq!(reader.head().expect("head"), model.head());
    for namespace in NAMESPACES {
        let seen = reader.scan(namespace, &KeyRange::ALL, At::Latest, ALL, false, true).expect("scan");
        assert_eq!(seen, model.scan(namespace, &KeyRange::ALL, At::Latest, ALL, false, true));
    }
    let tags: Vec<_> = model.tags.values().cloned().collect();
    assert_eq!(reader.tags().expect("tags"), tags);
}

/// How much of everything is asked.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Of many questions of a kind, about so many.
    pub(crate) questions: usize,
    /// Which ones: another number, others.
    pub(crate) turn: usize,
}

impl Effort {
    /// Some of many, spread over all.
    fn of<T: Copy>(self, all: &[T]) -> Vec<T> {
        let step = all.len() / self.questions + 1;
        all.iter().copied().skip(self.turn % step).step_by(step).collect()
    }
}

pub(crate) fn check(model: &Model, reader: &dyn Reader, effort: Effort) {
    check_briefly(model, reader);
    log(model, reader, effort);
    records(model, reader, effort);
    scans(model, reader, effort);
    text(model, reader, effort);
    names(model, reader, effort);
    dumps(model, reader);
    assert_eq!(reader.integrity(&Job::new()).expect("integrity"), Vec::<String>::new());
}

/// Points in history: now, each commit, and each time at which something changes, one before it and one after.
fn points(model: &Model) -> Vec<At> {
    let mut points =
        vec![At::Latest, At::Seq(0), At::Seq(u64::MAX >> 1), At::Time(0), At::Time(u64::MAX >> 1)];
    for commit in &model.commits {
        points.push(At::Seq(commit.head.seq));
        points.extend([commit.head.time - 1, commit.head.time, commit.head.time + 1].map(At::Time));
    }
    points
}

fn log(model: &Model, reader: &dyn Reader, effort: Effort) {
    let log = model.log();
    assert_eq!(reader.first_commit().expect("first"), log.first().map(|c| c.head).unwrap_or_default());
    for after in effort.of(&(0..=model.head().seq + 1).collect::<Vec<_>>()) {
        for limit in [0, 1, 2, ALL] {
            let expected: Vec<_> =
                log.iter().filter(|commit| commit.head.seq > after).take(limit).cloned().collect();
            assert_eq!(reader.commits(after, limit).expect("commits"), expected, "after {after}");
        }
        let expected = log.iter().map(|commit| commit.head).find(|head| head.seq == after);
        assert_eq!(reader.commit(after).expect("commit"), expected, "{after}");
    }
    for point in effort.of(&points(model)) {
        if let At::Time(time) = point {
            let expected = log.iter().rev().find(|commit| commit.head.time <= time).map(|c| c.head.seq);
            assert_eq!(reader.commit_at(time).expect("commit_at"), expected, "at {time}");
        }
    }
}

fn records(model: &Model, reader: &dyn Reader, effort: Effort) {
    let few = Effort { questions: effort.questions / 8 + 1, ..effort };
    for namespace in NAMESPACES.into_iter().chain(["nowhere"]) {
        for key in KEYS.into_iter().chain(["nothing"]) {
            let whose = || format!("{namespace:?} {key:?}");
            for at in effort.of(&points(model)) {
                let found = reader.get(namespace, key, at).expect("get");
                assert_eq!(found, model.get(namespace, key, at), "{} at {at:?}", whose());
            }
            if model.rows(namespace, key).is_empty() {
                assert_eq!(reader.history(namespace, key, None, At::Latest, ALL).expect("history"), []);
                continue;
            }
            for at in few.of(&points(model)) {
                let turned = Effort { turn: few.turn + 1, ..few };
                for after in turned.of(&points(model)).into_iter().map(Some).chain([None]) {
                    let expected = model.history(namespace, key, after, at);
                    for limit in [0, 1, 2, ALL] {
                        let found = reader.history(namespace, key, after, at, limit).expect("history");
                        let expected = &expected[..limit.min(expected.len())];
                        assert_eq!(found, expected, "{} after {after:?} at {at:?}", whose());
                    }
                }
            }
        }
    }
    for version in &model.versions {
        let (namespace, key, seq) = (&version.namespace, &version.key, version.row.seq);
        let run =
            model.retired(namespace, key).into_iter().find(|&(first, last)| first <= seq && seq <= last);
        let retired = reader.retired(namespace, key, seq).expect("retired");
        assert_eq!(retired, run, "{namespace:?} {key:?} {seq}");
        assert_eq!(retired.is_some(), version.retired);
    }
    assert_eq!(reader.retired("nowhere", "a", 1).expect("retired"), None);
}

fn scans(model: &Model, reader: &dyn Reader, effort: Effort) {
    let bound = |at: usize, inside: bool| {
        let key = KEYS[at % KEYS.len()].to_owned();
        if inside { Bound::Included(key) } else { Bound::Excluded(key) }
    };
    let mut ranges = vec![KeyRange::ALL, KeyRange::prefix("a"), KeyRange::prefix("\u{10FFFF}")];
    for at in 0..KEYS.len() {
        // Among them some that end before they begin, and some that are a point.
        ranges.push(KeyRange { start: bound(at, at % 2 == 0), end: bound(at * 5 + 3, at % 3 == 0) });
        ranges.push(KeyRange { start: bound(at, at % 2 == 0), end: bound(at, at % 3 == 0) });
    }
    ranges.push(KeyRange { start: bound(2, false), end: Bound::Unbounded });
    ranges.push(KeyRange { start: Bound::Unbounded, end: bound(5, false) });
    for namespace in NAMESPACES {
        let few = Effort { questions: effort.questions / 8 + 1, ..effort };
        for at in few.of(&points(model)) {
            for (number, range) in effort.of(&ranges.iter().enumerate().collect::<Vec<_>>()) {
                let (reverse, payloads) = (number % 2 == 0, number % 3 == 0);
                for limit in [0, 1, 3, ALL] {
                    let seen = reader.scan(namespace, range, at, limit, reverse, payloads).expect("scan");
                    let expected = model.scan(namespace, range, at, limit, reverse, payloads);
                    assert_eq!(seen, expected, "{namespace:?} {range:?} {at:?} {limit} {reverse} {payloads}");
                }
            }
        }
    }
}

fn text(model: &Model, reader: &dyn Reader, effort: Effort) {
    let queries = [
        "lake",
        "LAK*",
        "old town",
        "\"old town\"",
        "\"old t\"*",
        "lake -sea",
        "the -\"old sea\"",
        "e-mail",
        "cafe",
        "été",
        "日本",
        "x1",
        "x1*",
        "x* -x12",
        "strasse",
        "straße",
        "lake lake",
        "nothing",
        "and or not",
        "a* o*",
    ];
    for namespace in NAMESPACES.into_iter().chain(["nowhere"]) {
        for query in effort.of(&queries) {
            let parsed = TextQuery::parse(query).expect(query);
            let all = reader.text_search(namespace, &parsed, ALL).expect("search");
            let expected = model.text_search(namespace, &parsed);
            let found: BTreeMap<String, f64> = all.iter().cloned().collect();
            let keys = |scores: &BTreeMap<String, f64>| scores.keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(&found), keys(&expected), "{namespace:?} {query}");
            for (key, score) in &found {
                let relative = (score - expected[key]).abs() / expected[key].max(1e-9);
                assert!(relative < 1e-6, "{namespace:?} {query} {key:?}: {score} and {}", expected[key]);
            }
            let ordered = |a: &(String, f64), b: &(String, f64)| a.1 > b.1 || (a.1 == b.1 && a.0 < b.0);
            assert!(all.is_sorted_by(ordered), "{namespace:?} {query}: {all:?}");
            for limit in [0, 1, 2] {
                let best = reader.text_search(namespace, &parsed, limit).expect("search");
                assert_eq!(best, all[..limit.min(all.len())], "{namespace:?} {query}");
            }
        }
    }
}

fn names(model: &Model, reader: &dyn Reader, effort: Effort) {
    let info = model.info();
    let live: Vec<String> =
        info.iter().filter(|(_, info)| info.keys > 0).map(|(name, _)| name.clone()).collect();
    assert_eq!(reader.namespaces().expect("namespaces"), live);
    let stats = reader.stats().expect("stats");
    let uncompressed =
        stats.namespaces.into_iter().map(|(name, info)| (name, NamespaceInfo { cold: 0, ..info }));
    assert_eq!(uncompressed.collect::<BTreeMap<_, _>>(), info);
    for tag in TAGS {
        assert_eq!(reader.tag(tag).expect("tag"), model.tags.get(tag).cloned());
    }
    let indexes = reader.field_indexes().expect("indexes");
    let declared: BTreeSet<_> = indexes.iter().map(|i| (i.namespace.clone(), i.field.clone())).collect();
    assert_eq!(declared, model.indexes.iter().map(|i| (i.namespace.clone(), i.field.clone())).collect());
    assert_eq!(indexes.len(), model.indexes.len());
    assert_eq!(indexes.iter().map(|index| index.id).collect::<BTreeSet<_>>().len(), indexes.len());
    for index in &indexes {
        assert!(FIELDS.contains(&index.field.as_str()));
        let bounds: [(&[u8], &[u8]); 6] = [
            (&[], &[255, 255, 255]),
            (&[], &[]),
            (&[1], &[2]),
            (&[1], &[1, 255]),
            (&[2], &[1]),
            (&[255], &[255]),
        ];
        for (from, to) in bounds {
            let expected = model.lookup(&index.namespace, &index.field, from, to);
            for limit in [0, 1, 2, ALL] {
                let found = reader.lookup(index.id, from, to, limit).expect("lookup");
                assert_eq!(found, expected[..limit.min(expected.len())], "{index:?} {from:?} {to:?}");
            }
        }
    }
    assert!(reader.lookup(u32::MAX >> 1, &[], &[255], ALL).expect("lookup").is_empty());
    let moments: Vec<u64> = model.versions.iter().filter_map(|version| version.row.expires).collect();
    let moments = effort.of(&moments).into_iter().flat_map(|expires| [expires.saturating_sub(1), expires]);
    for now in moments.chain([0, u64::MAX >> 1]) {
        let expected = model.expired(now);
        let seen = reader.expired(now, ALL).expect("expired");
        assert_eq!(seen.len(), expected.len());
        let expires = |name: &(Arc<str>, Arc<str>)| model.current(&name.0, &name.1).and_then(|c| c.expires);
        assert!(seen.is_sorted_by_key(expires));
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), expected);
        let two = reader.expired(now, 2).expect("expired");
        assert_eq!(two.len(), expected.len().min(2));
        assert!(two.iter().all(|name| expected.contains(name)));
        for namespace in NAMESPACES {
            let of = |until: u64| -> BTreeSet<Arc<str>> {
                let names = model.expired(until).into_iter().filter(|(space, _)| **space == *namespace);
                names.map(|(_, key)| key).collect()
            };
            let when = |key: &Arc<str>| model.current(namespace, key).and_then(|current| current.expires);
            let coming = of(u64::MAX).iter().filter_map(when).filter(|expires| *expires > now).min();
            // A namespace with few records among few: nobody has to look again earlier.
            let expected = (of(now).iter().filter_map(when).max(), coming.unwrap_or(u64::MAX));
            assert_eq!(reader.expiries(namespace, now).expect("expiries"), expected);
            let after = now / 2;
            let seen = reader.run_out(namespace, after, now).expect("run_out");
            assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), &of(now) - &of(after));
        }
    }
    let segments: Vec<_> = model.segments.values().cloned().collect();
    assert_eq!(reader.segments().expect("segments"), segments);
    for name in ["format", "ö", "unknown"] {
        let expected = model.settings.get(name).cloned();
        let seen = reader.setting(name).expect("setting");
        // An engine may keep settings of its own under other names.
        assert_eq!(seen, expected, "{name}");
    }
}

fn dumps(model: &Model, reader: &dyn Reader) {
    let dump = |after, limit| -> Vec<Dumped> {
        let dumped = reader.dump(after, limit).expect("dump");
        dumped.into_iter().map(|record| record.expect("a whole record")).collect()
    };
    let all = dump(0, ALL);
    assert!(all.is_sorted_by(|a, b| a.id < b.id));
    let names: BTreeSet<(Arc<str>, Arc<str>)> =
        all.iter().map(|dumped| (dumped.namespace.clone(), dumped.key.clone())).collect();
    assert_eq!((names, all.len()), (model.records(), model.records().len()));
    for dumped in &all {
        let rows: Vec<_> = model.rows(&dumped.namespace, &dumped.key).into_iter().cloned().collect();
        assert_eq!(dumped.rows, rows);
        assert_eq!(dumped.retired, model.retired(&dumped.namespace, &dumped.key));
    }
    let mut paged = Vec::new();
    while let page @ [_, ..] = &dump(paged.last().map_or(0, |last: &Dumped| last.id), 3)[..] {
        assert!(page.len() <= 3);
        paged.extend_from_slice(page);
    }
    assert_eq!(paged, all);
}
