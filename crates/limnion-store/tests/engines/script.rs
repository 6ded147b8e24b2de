//! What is done to an engine: drawn at random, and played against it and the model.

use std::sync::Arc;

use limnion_store::engine::{
    Commit, Engine, FieldIndex, Head, Logged, Place, Row, SegmentInfo, Tag, Transaction, Write,
};
use limnion_store::hash;
use limnion_store::model::{Kind, Seq};
use proptest::prelude::*;
use proptest::sample::Index as Choice;

use crate::check::{Effort, check, check_briefly};
use crate::model::{self, Model};

pub(crate) const NAMESPACES: [&str; 4] = ["docs", "", "it's \"so\"; --", "ünï/日本"];
pub(crate) const KEYS: [&str; 14] = [
    "a",
    "",
    "b",
    "a b",
    "A",
    "é",
    "e\u{301}",
    "日本",
    "🦀",
    "a\u{10FFFF}",
    "\u{10FFFF}",
    "\u{FFFF}",
    "a\0b",
    "10",
];
pub(crate) const FIELDS: [&str; 2] = ["year", "a.b"];
pub(crate) const TAGS: [&str; 2] = ["release ü", ""];
pub(crate) const SEGMENTS: u32 = 3;
const TEXTS: [&str; 12] = [
    "A small lake in the hills",
    "lake lake lake",
    "The old town by the sea, the old sea",
    "Lakes and towns",
    "old",
    "town old town",
    "Un café à côté: l'été, E-MAIL und Straße",
    "e mail e-mail email",
    "日本 の 湖, 日本",
    "",
    "!?",
    "x1 x12 x2 \"quoted\" AND or NOT lake*",
];

pub(crate) type Script = Vec<Act>;

#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// A transaction, committed or not.
    Transaction(Vec<Step>, bool),
    Compress(usize),
    Vacuum,
    Checkpoint(bool),
    Recover,
    Reopen,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Commit { pause: u64, puts: Vec<Put> },
    SetTag(usize, Choice),
    RemoveTag(usize),
    CreateIndex(usize, usize),
    DropIndex(usize, usize),
    Index { index: Choice, record: Choice, entry: Vec<u8> },
    Retire { record: Choice, which: u64, segment: u32, freed: u64 },
    Fold(Choice),
    SetSegment { id: u32, dim: u32, length: u64, live: u64 },
    RemoveSegment(u32),
    SetValue(u8, Place),
    SetSetting(bool, Vec<u8>),
}

#[derive(Debug, Clone)]
pub(crate) struct Put {
    namespace: usize,
    key: usize,
    kind: Kind,
    expires: Option<u64>,
    payload: Vec<u8>,
    places: Vec<Place>,
    text: Option<usize>,
    entries: Vec<Option<Vec<u8>>>,
}

fn places() -> impl Strategy<Value = Place> {
    (1..=SEGMENTS, any::<u64>()).prop_map(|(segment, offset)| Place { segment, offset: offset >> 2 })
}

fn puts() -> impl Strategy<Value = Put> {
    let payload = prop_oneof![
        6 => proptest::collection::vec(any::<u8>(), 0..40),
        // What compresses well, and reaches over pages.
        2 => (any::<u8>(), 0..9000usize).prop_map(|(seed, length)| (0..length).map(|at| (at / 7) as u8 ^ seed).collect()),
    ];
    let kind = prop_oneof![6 => Just(Kind::Put), 2 => Just(Kind::Deleted), 1 => Just(Kind::Expired)];
    (
        (0..NAMESPACES.len(), 0..KEYS.len(), kind),
        proptest::option::weighted(0.3, 0..3000u64),
        payload,
        proptest::collection::vec(places(), 0..3),
        proptest::option::of(0..TEXTS.len()),
        proptest::collection::vec(proptest::option::of(entries()), FIELDS.len()),
    )
        .prop_map(|((namespace, key, kind), expires, payload, places, text, entries)| {
            // Most of what happens, happens to few records: histories grow.
            let (namespace, key) =
                if expires.is_none() { (namespace % 2, key % 3) } else { (namespace, key) };
            let put = kind == Kind::Put;
            Put {
                namespace,
                key,
                kind,
                expires: expires.filter(|_| put),
                payload: if put { payload } else { Vec::new() },
                places: if put { places } else { Vec::new() },
                text: text.filter(|_| put),
                entries: if put { entries } else { Vec::new() },
            }
        })
}

pub(crate) fn entries() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![0..4u8, Just(255)], 0..3)
}

fn steps() -> impl Strategy<Value = Step> {
    let tag = || 0..TAGS.len();
    let index = || (0..NAMESPACES.len(), 0..FIELDS.len());
    prop_oneof![
        12 => (1..400u64, proptest::collection::vec(puts(), 1..9)).prop_map(|(pause, puts)| Step::Commit { pause, puts }),
        2 => (tag(), any::<Choice>()).prop_map(|(tag, seq)| Step::SetTag(tag, seq)),
        2 => tag().prop_map(Step::RemoveTag),
        2 => index().prop_map(|(namespace, field)| Step::CreateIndex(namespace, field)),
        1 => index().prop_map(|(namespace, field)| Step::DropIndex(namespace, field)),
        2 => (any::<Choice>(), any::<Choice>(), entries())
            .prop_map(|(index, record, entry)| Step::Index { index, record, entry }),
        3 => (any::<Choice>(), any::<u64>(), 1..=SEGMENTS, 0..500u64)
            .prop_map(|(record, which, segment, freed)| Step::Retire { record, which, segment, freed }),
        1 => any::<Choice>().prop_map(Step::Fold),
        2 => (1..=SEGMENTS, 0..3u32, 4096..u64::MAX >> 1, 0..2000u64)
            .prop_map(|(id, dim, length, live)| Step::SetSegment { id, dim, length, live }),
        1 => (1..=SEGMENTS).prop_map(Step::RemoveSegment),
        2 => (0..3u8, places()).prop_map(|(hash, place)| Step::SetValue(hash, place)),
        1 => (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..9)).prop_map(|(a, v)| Step::SetSetting(a, v)),
    ]
}

pub(crate) fn scripts() -> impl Strategy<Value = Script> {
    let act = prop_oneof![
        12 => (proptest::collection::vec(steps(), 0..7), proptest::bool::weighted(0.8))
            .prop_map(|(steps, commit)| Act::Transaction(steps, commit)),
        2 => (0..50usize).prop_map(Act::Compress),
        1 => Just(Act::Vacuum),
        1 => any::<bool>().prop_map(Act::Checkpoint),
        1 => Just(Act::Recover),
        1 => Just(Act::Reopen),
    ];
    proptest::collection::vec(act, 1..24)
}

/// Opens the engine again after it was closed.
pub(crate) type Opener = Box<dyn Fn() -> Box<dyn Engine>>;

/// An engine and the model, side by side.
pub(crate) struct Run {
    engine: Box<dyn Engine>,
    open: Option<Opener>,
    model: Model,
}

impl Run {
    pub(crate) fn new(engine: Box<dyn Engine>, open: Option<Opener>) -> Self {
        Self { engine, open, model: Model::default() }
    }

    pub(crate) fn play(mut self, script: &[Act]) {
        for (turn, act) in script.iter().enumerate() {
            match act {
                Act::Transaction(steps, commit) => self.transaction(steps, *commit),
                Act::Compress(budget) => {
                    let compressed = self.engine.compress(*budget).expect("compress");
                    assert!(compressed <= *budget);
                }
                Act::Vacuum => drop(self.engine.vacuum(10).expect("vacuum")),
                Act::Checkpoint(truncate) => self.engine.checkpoint(*truncate).expect("checkpoint"),
                Act::Recover => self.engine.recover().expect("recover"),
                Act::Reopen => {
                    if let Some(open) = &self.open {
                        self.engine.close().expect("close");
                        self.engine = open();
                    }
                }
            }
            check(&self.model, &*self.engine.reader(), Effort { questions: 6, turn });
        }
        check(&self.model, &*self.engine.reader(), Effort { questions: 40, turn: 0 });
        self.engine.close().expect("close");
    }

    fn transaction(&mut self, steps: &[Step], commit: bool) {
        let reader = self.engine.reader();
        let mut after = self.model.clone();
        let mut transaction = self.engine.begin().expect("begin");
        for step in steps {
            play(step, &mut after, &mut *transaction);
            for (namespace, key) in [(0, 0), (0, 1), (1, 2), (3, 13)] {
                let (namespace, key) = (NAMESPACES[namespace], KEYS[key]);
                let current = transaction.current(namespace, key).expect("current");
                assert_eq!(current, after.current(namespace, key), "inside: {namespace:?} {key:?}");
            }
            for hash in 0..3 {
                let place = transaction.find_value(&[hash; 32]).expect("find");
                assert_eq!(place, after.values.get(&[hash; 32]).copied(), "inside: value {hash}");
            }
        }
        check_briefly(&self.model, &*reader);
        if commit {
            transaction.commit().expect("commit");
            self.model = after;
        } else {
            drop(transaction);
        }
    }
}

fn play(step: &Step, model: &mut Model, transaction: &mut dyn Transaction) {
    match step {
        Step::Commit { pause, puts } => commit(*pause, puts, model, transaction),
        Step::SetTag(name, choice) => {
            if !model.commits.is_empty() {
                let head = model.commits[choice.index(model.commits.len())].head;
                let tag = Tag { name: TAGS[*name].to_owned(), seq: head.seq, time: head.time };
                transaction.set_tag(&tag).expect("set");
                model.tags.insert(tag.name.clone(), tag);
            }
        }
        Step::RemoveTag(name) => {
            let removed = transaction.remove_tag(TAGS[*name]).expect("remove");
            assert_eq!(removed, model.tags.remove(TAGS[*name]).is_some());
        }
        Step::CreateIndex(namespace, field) => {
            let (namespace, field) = (NAMESPACES[*namespace], FIELDS[*field]);
            let index = declared(transaction, namespace, field);
            assert_eq!((index.namespace.as_str(), index.field.as_str()), (namespace, field));
            if !model.indexes.iter().any(|i| i.namespace == namespace && i.field == field) {
                let (namespace, field) = (namespace.to_owned(), field.to_owned());
                model.indexes.push(model::Index { namespace, field, entries: Default::default() });
            }
        }
        Step::DropIndex(namespace, field) => {
            let (namespace, field) = (NAMESPACES[*namespace], FIELDS[*field]);
            let dropped = transaction.drop_index(namespace, field).expect("drop");
            let before = model.indexes.len();
            model.indexes.retain(|i| i.namespace != namespace || i.field != field);
            assert_eq!(dropped, model.indexes.len() < before);
        }
        Step::Index { index, record, entry } => {
            if model.indexes.is_empty() {
                return;
            }
            let index = index.index(model.indexes.len());
            let (namespace, field) =
                (model.indexes[index].namespace.clone(), model.indexes[index].field.clone());
            let keys: Vec<Arc<str>> = model
                .records()
                .into_iter()
                .filter(|(of, _)| **of == *namespace)
                .map(|(_, key)| key)
                .collect();
            if !keys.is_empty() {
                let key = &keys[record.index(keys.len())];
                let id = declared(transaction, &namespace, &field).id;
                transaction.index(id, &namespace, key, entry).expect("index");
                model.indexes[index].entries.insert((entry.clone(), key.clone()));
            }
        }
        Step::Retire { record, which, segment, freed } => {
            let records: Vec<_> = model.records().into_iter().collect();
            if records.is_empty() {
                return;
            }
            let (namespace, key) = &records[record.index(records.len())];
            let rows = model.rows(namespace, key);
            let older = &rows[..rows.len() - 1];
            let chosen = older.iter().enumerate().filter(|(at, _)| which >> (at % 64) & 1 == 1);
            let seqs: Vec<Seq> = chosen.map(|(_, row)| row.seq).collect();
            transaction.retire(namespace, key, &seqs, &[(*segment, *freed)]).expect("retire");
            model.retire(namespace, key, &seqs, &[(*segment, *freed)]);
        }
        Step::Fold(choice) => {
            if !model.commits.is_empty() {
                let seq = model.commits[choice.index(model.commits.len())].head.seq;
                transaction.fold(seq).expect("fold");
                model.first = model.first.max(seq);
            }
        }
        Step::SetSegment { id, dim, length, live } => {
            let (namespace, name) = if *dim > 0 { (NAMESPACES[3], "image") } else { ("", "") };
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            let info = SegmentInfo { id: *id, dim: *dim, namespace, name, length: *length, live: *live };
            transaction.set_segment(&info).expect("set");
            model.segments.insert(*id, info);
        }
        Step::RemoveSegment(id) => {
            transaction.remove_segment(*id).expect("remove");
            model.segments.remove(id);
            model.values.retain(|_, place| place.segment != *id);
        }
        Step::SetValue(hash, place) => {
            transaction.set_value(&[*hash; 32], *place).expect("set");
            model.values.insert([*hash; 32], *place);
        }
        Step::SetSetting(first, value) => {
            let name = if *first { "format" } else { "ö" };
            transaction.set_setting(name, value).expect("set");
            model.settings.insert(name.to_owned(), value.clone());
        }
    }
}

/// An index that exists is given as it is.
fn declared(transaction: &mut dyn Transaction, namespace: &str, field: &str) -> FieldIndex {
    transaction.create_index(namespace, field).expect("create")
}

fn commit(pause: u64, puts: &[Put], model: &mut Model, transaction: &mut dyn Transaction) {
    let before = model.head();
    let (seq, time) = (before.seq + 1, before.time + pause);
    let mut writes: Vec<Logged> = Vec::new();
    for put in puts {
        let namespace: Arc<str> = NAMESPACES[put.namespace].into();
        let key: Arc<str> = KEYS[put.key].into();
        if writes.iter().any(|logged| logged.namespace == namespace && logged.key == key) {
            continue;
        }
        let previous = model.current(&namespace, &key).map_or(0, |current| current.seq);
        let mut row = Row {
            seq,
            time,
            previous,
            kind: put.kind,
            expires: put.expires,
            check: [0; 16],
            payload: put.payload.as_slice().into(),
            places: put.places.clone(),
        };
        let (hash, check) = hash::digest(&namespace, &key, &row);
        row.check = check;
        let mut fields = Vec::new();
        for (field, entry) in FIELDS.iter().zip(&put.entries) {
            let index = model.indexes.iter().position(|i| *i.namespace == *namespace && i.field == *field);
            fields.extend(index.zip(entry.clone()));
        }
        let numbered = fields.iter().map(|(index, entry)| {
            let index = &model.indexes[*index];
            (declared(transaction, &index.namespace, &index.field).id, entry.clone())
        });
        let write = Write {
            namespace: namespace.clone(),
            key: key.clone(),
            row,
            hash,
            text: put.text.map(|text| TEXTS[text].into()),
            fields: numbered.collect(),
        };
        transaction.write(&write).expect("write");
        model.write(&write, &fields);
        writes.push(Logged { namespace, key, hash });
    }
    let chain = hash::chain(&before.chain, seq, time, writes.iter().map(|logged| logged.hash));
    let head = Head { seq, time, chain };
    transaction.log(&head).expect("log");
    if model.commits.is_empty() {
        model.first = seq;
    }
    model.commits.push(Commit { head, writes });
}
