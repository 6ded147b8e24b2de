//! What is appended and committed comes back; what is not leaves no trace; what is damaged says so.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, SeekFrom, Write};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A store's view of segments: what the database would know, and what lies where.
struct Store {
    segments: Arc<Segments>,
    appender: Appender,
    known: BTreeMap<u32, SegmentInfo>,
    committed: Vec<(Place, Vec<u8>)>,
    fresh: Vec<(Place, Vec<u8>)>,
    folder: Option<TempDir>,
}

impl Store {
    fn new(folder: Option<TempDir>) -> Self {
        let mut store = Self::over(folder, BTreeMap::new());
        store.appender.max_bytes = 16_384;
        store
    }

    fn over(folder: Option<TempDir>, known: BTreeMap<u32, SegmentInfo>) -> Self {
        let segments = Arc::new(Segments::new(folder.as_ref().map(|folder| folder.path().join("segments"))));
        let appender = Appender::open(segments.clone(), known.values().cloned().collect(), true).unwrap();
        Self { segments, appender, known, committed: Vec::new(), fresh: Vec::new(), folder }
    }

    fn on_disk() -> Self {
        Self::new(Some(tempfile::tempdir().unwrap()))
    }

    fn value(&mut self, bytes: &[u8]) -> Place {
        let place = self.appender.append_value(bytes).unwrap();
        self.fresh.push((place, bytes.to_vec()));
        place
    }

    fn vector(&mut self, namespace: &str, name: &str, numbers: &[f32]) -> Place {
        let place = self.appender.append_vector(namespace, name, numbers).unwrap();
        self.fresh.push((place, numbers.iter().flat_map(|number| number.to_le_bytes()).collect()));
        place
    }

    fn commit(&mut self) {
        for info in self.appender.sync().unwrap() {
            self.known.insert(info.id, info);
        }
        self.committed.append(&mut self.fresh);
    }

    fn rollback(&mut self) {
        self.appender.rollback();
        self.fresh.clear();
    }

    fn reopen(self) -> Self {
        let mut store = Self::over(self.folder, self.known);
        store.appender.max_bytes = self.appender.max_bytes;
        Self { committed: self.committed, ..store }
    }

    fn check(&self) {
        for (place, bytes) in &self.committed {
            assert_eq!(&self.segments.read(*place, bytes.len() as u64).unwrap(), bytes, "{place:?}");
        }
        let mut live = BTreeMap::<u32, u64>::new();
        for (place, bytes) in &self.committed {
            *live.entry(place.segment).or_default() += bytes.len() as u64;
        }
        for info in self.known.values() {
            self.segments.verify(info).unwrap();
            assert_eq!(info.live, live.get(&info.id).copied().unwrap_or(0));
            assert!(info.length == HEADER + info.live, "nothing lies between");
        }
    }

    fn file(&self, id: u32) -> PathBuf {
        self.segments.path(id).unwrap()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Value(usize),
    Vector(usize, usize, usize),
    Commit,
    Rollback,
    Reopen,
    Tail(Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..6000).prop_map(Step::Value),
        8 => (0..3usize, 0..2usize, 1..400usize).prop_map(|(namespace, name, dim)| Step::Vector(namespace, name, dim % 3 * 199 + 1)),
        2 => Just(Step::Commit),
        1 => Just(Step::Rollback),
        1 => Just(Step::Reopen),
        1 => proptest::collection::vec(any::<u8>(), 1..9000).prop_map(Step::Tail),
    ];
    proptest::collection::vec(step, 0..80)
}

fn run(mut store: Store, steps: Vec<Step>) {
    for (at, step) in steps.into_iter().enumerate() {
        match step {
            Step::Value(length) => drop(store.value(&vec![at as u8; length])),
            Step::Vector(namespace, name, dim) => {
                store.vector(["a", "b", ""][namespace], ["", "image"][name], &vec![at as f32; dim]);
            }
            Step::Commit => store.commit(),
            Step::Rollback => store.rollback(),
            // A crash: what was not committed may lie in the files, or not.
            Step::Reopen if store.folder.is_some() => {
                store = store.reopen();
                store.appender.sweep().unwrap();
                let files = fs::read_dir(store.folder.as_ref().unwrap().path().join("segments")).unwrap();
                assert_eq!(files.count(), store.known.len());
            }
            Step::Tail(bytes) if store.folder.is_some() => {
                store.rollback();
                if let Some(info) = store.known.values().next_back() {
                    let mut file = fs::OpenOptions::new().write(true).open(store.file(info.id)).unwrap();
                    file.seek(SeekFrom::Start(info.length)).unwrap();
                    file.write_all(&bytes).unwrap();
                }
            }
            Step::Reopen | Step::Tail(_) => {}
        }
        store.check();
    }
    store.commit();
    store.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_was_committed_comes_back_from_files(steps in steps()) {
        run(Store::on_disk(), steps);
    }

    #[test]
    fn what_was_committed_comes_back_from_memory(steps in steps()) {
        run(Store::new(None), steps);
    }
}

#[test]
fn the_vectors_of_a_column_are_a_matrix_in_one_file() {
    let mut store = Store::on_disk();
    let rows: Vec<Vec<f32>> = (0..100).map(|row| (0..7).map(|at| (row * 7 + at) as f32).collect()).collect();
    for (at, row) in rows.iter().enumerate() {
        let place = store.vector("docs", "title", row);
        store.vector("docs", "body", row);
        store.value(&[at as u8]);
        store.vector("docs", "title", &[1.0; 9]);
        assert_eq!(place.offset, HEADER + at as u64 * 28);
    }
    store.commit();
    let info = store.known.values().find(|info| info.name == "title" && info.dim == 7).unwrap();
    assert_eq!((info.namespace.as_str(), info.length), ("docs", HEADER + 2800));
    let bytes = fs::read(store.file(info.id)).unwrap();
    let numbers: Vec<f32> = bytes[HEADER as usize..]
        .chunks_exact(4)
        .map(|four| f32::from_le_bytes(four.try_into().unwrap()))
        .collect();
    assert_eq!(numbers, rows.concat());
    assert_eq!(store.known.len(), 4);
}

#[test]
fn a_header_lies_as_it_is_drawn() {
    let info =
        SegmentInfo {
            id: 0x0102, dim: 3, namespace: "né".into(), name: "v".into(), length: HEADER, live: 0
        };
    let header = header(&info);
    assert_eq!(header.len(), 4096);
    assert_eq!(&header[..16], b"limnseg\n\x01\0\0\0\x01\x01\0\0");
    assert_eq!(&header[16..32], [3, 0, 0, 0, 2, 1, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(&header[64..69], "név\0".as_bytes());
    let mut plain = header.clone();
    plain[32..64].fill(0);
    assert_eq!(&header[32..64], blake3::hash(&plain).as_bytes());
    let long = SegmentInfo { namespace: "x".repeat(5000), ..info };
    assert!(super::header(&long)[64..].iter().all(|byte| *byte == 0), "the database has the name");
}

#[test]
fn every_damaged_byte_of_a_header_is_noticed() {
    let mut store = Store::on_disk();
    let place = store.vector("docs", "", &[1.0, 2.0]);
    store.commit();
    let path = store.file(place.segment);
    let whole = fs::read(&path).unwrap();
    for at in 0..HEADER as usize {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        // As after a start: a header that was looked at is not looked at again.
        let segments = Segments::new(path.parent().map(Path::to_path_buf));
        let error = segments.read(place, 8).unwrap_err();
        let kind = if (8..12).contains(&at) { ErrorKind::NewerDatabase } else { ErrorKind::Corruption };
        assert_eq!(error.kind(), kind, "byte {at}");
        assert!(error.message().contains("00000001"), "{error}");
    }
}

#[test]
fn a_file_that_is_missing_or_short_or_another_is_named() {
    let mut store = Store::on_disk();
    let place = store.value(&[1; 100]);
    let other = store.vector("docs", "", &[1.0; 50]);
    store.commit();
    let (path, other) = (store.file(place.segment), store.file(other.segment));
    let info = store.known[&place.segment].clone();
    let whole = fs::read(&path).unwrap();
    let check = |what: &str| {
        let segments = Segments::new(path.parent().map(Path::to_path_buf));
        for error in [segments.read(place, 100).unwrap_err(), segments.verify(&info).unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Corruption, "{what}");
            assert!(error.message().contains("00000001") && error.suggestion().is_some(), "{error}");
        }
    };
    for length in [0, 10, 4095, 4096, 4195] {
        fs::write(&path, &whole[..length]).unwrap();
        check("short");
    }
    fs::copy(&other, &path).unwrap();
    check("another");
    fs::remove_file(&path).unwrap();
    check("missing");
}

#[test]
fn a_length_that_nobody_wrote_is_refused_before_it_is_believed() {
    let mut store = Store::on_disk();
    let place = store.value(&[1; 100]);
    store.commit();
    for (offset, length) in [(place.offset, 1 << 60), (u64::MAX, 1), (place.offset, u64::MAX), (1 << 50, 0)] {
        let error = store.segments.read(Place { offset, ..place }, length).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
    }
    let error = Store::new(None).segments.read(place, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[test]
fn nothing_is_appended_to_a_damaged_segment() {
    let mut store = Store::on_disk();
    let place = store.value(&[1; 100]);
    store.commit();
    fs::write(store.file(place.segment), b"nonsense").unwrap();
    let mut store = store.reopen();
    let next = store.value(&[2; 100]);
    store.commit();
    assert_ne!(next.segment, place.segment);
    assert_eq!(fs::read(store.file(place.segment)).unwrap(), b"nonsense");
    assert_eq!(store.segments.read(next, 100).unwrap(), [2; 100]);
}

#[test]
fn a_full_segment_is_left_and_a_removed_one_is_gone() {
    for folder in [None, Some(tempfile::tempdir().unwrap())] {
        let mut store = Store::new(folder);
        let places: Vec<Place> = (0..10).map(|_| store.value(&[3; 5000])).collect();
        store.commit();
        let large = store.value(&[4; 50_000]);
        store.commit();
        assert_eq!(
            places.iter().map(|place| place.segment).collect::<Vec<_>>(),
            [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
        );
        assert_eq!(large, Place { segment: 6, offset: HEADER });
        assert!(store.appender.is_active(6) && !store.appender.is_active(1));
        store.appender.remove(1).unwrap();
        assert!(store.segments.read(places[0], 5000).is_err());
        assert_eq!(store.segments.read(places[2], 5000).unwrap(), [3; 5000]);
    }
}

#[test]
fn references_are_counted_and_given_to_the_database() {
    let mut store = Store::on_disk();
    let place = store.value(&[1; 100]);
    store.commit();
    store.appender.refer(place.segment, 100);
    store.appender.rollback();
    store.appender.refer(place.segment, 100);
    let changed = store.appender.sync().unwrap();
    assert_eq!(
        changed.iter().map(|info| (info.live, info.length)).collect::<Vec<_>>(),
        [(200, HEADER + 100)]
    );
    store.appender.release(place.segment, 150);
    assert!(store.appender.sync().unwrap().is_empty(), "the database knows");
    store.appender.refer(place.segment, 1);
    assert_eq!(store.appender.sync().unwrap()[0].live, 51);
}

#[test]
fn a_bounded_number_of_files_is_open() {
    let mut store = Store::on_disk();
    for column in 0..300 {
        store.vector(&format!("namespace {column}"), "", &[column as f32; 3]);
    }
    store.commit();
    store.check();
    assert_eq!(store.known.len(), 300);
    let Lie::Folder(files) = &store.segments.lie else { panic!("on disk") };
    assert!(files.open_files() <= 64);
    // A small column takes its header and its rows.
    assert_eq!(fs::metadata(store.file(7)).unwrap().len(), HEADER + 12);
}

#[test]
fn readers_read_while_the_writer_appends() {
    for folder in [None, Some(tempfile::tempdir().unwrap())] {
        let mut store = Store::new(folder);
        let (send, receive) = std::sync::mpsc::channel::<(Place, f32)>();
        let segments = store.segments.clone();
        let reader = std::thread::spawn(move || {
            receive
                .into_iter()
                .filter(|(place, number)| {
                    let bytes = segments.read(*place, 400).unwrap();
                    bytes.chunks_exact(4).all(|four| four == number.to_le_bytes())
                })
                .count()
        });
        for commit in 0..50 {
            let places: Vec<(Place, f32)> = (0..20)
                .map(|row| {
                    let number = (commit * 20 + row) as f32;
                    (store.vector("n", "", &[number; 100]), number)
                })
                .collect();
            store.commit();
            places.into_iter().for_each(|place| send.send(place).unwrap());
        }
        drop(send);
        assert_eq!(reader.join().unwrap(), 1000);
    }
}
