//! Files of vectors, and folders of them: what is promised, and what hostile files cannot do.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop at what it did not expect")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow_array::types::{Float32Type, Int32Type};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, FixedSizeListArray, Int64Array, ListArray, RecordBatch,
    RecordBatchIterator, StringArray,
};
use arrow_schema::ArrowError;
use limnion_lake::{
    Backend, Columns, Description, FsBackend, FsOptions, Generation, Ids, Rows, Sink, rows_of_batches,
    write_rows,
};
use limnion_types::{Error, ErrorKind, Job, Result};
use proptest::prelude::*;
use tempfile::TempDir;

/// Keeps what it is given, and looks after the order of calls.
#[derive(Default)]
struct Kept {
    description: Option<Description>,
    ids: Vec<String>,
    vectors: Vec<f32>,
    pieces: usize,
    /// Called once, when the first rows have come.
    meanwhile: Option<Box<dyn FnOnce()>>,
}

impl Sink for Kept {
    fn begin(&mut self, description: &Description) -> Result<()> {
        assert!(self.description.is_none(), "begun twice");
        self.description = Some(description.clone());
        Ok(())
    }

    fn push(&mut self, rows: Rows) -> Result<()> {
        let dim = self.description.as_ref().expect("rows before begin").dim;
        assert_eq!(rows.ids.len() * dim, rows.vectors.len());
        match rows.ids {
            Ids::Numbers(ids) => self.ids.extend(ids.iter().map(u64::to_string)),
            Ids::Names(ids) => self.ids.extend(ids.iter().map(|id| id.to_string())),
        }
        self.vectors.extend(rows.vectors);
        self.pieces += 1;
        if let Some(meanwhile) = self.meanwhile.take() {
            meanwhile();
        }
        Ok(())
    }
}

fn backend(folder: &Path) -> FsBackend {
    FsBackend::new("disk", folder, FsOptions::default()).unwrap()
}

fn digesting(folder: &Path) -> FsBackend {
    FsBackend::new("disk", folder, FsOptions { digest: true, ..FsOptions::default() }).unwrap()
}

fn pulled(backend: &FsBackend, collection: &str) -> Result<Kept> {
    let mut kept = Kept::default();
    backend.pull(collection, &mut kept, &Job::new())?;
    let described = backend.describe(collection)?;
    assert_eq!(kept.description.as_ref(), Some(&described));
    assert_eq!(backend.generation(collection)?, described.generation);
    assert_eq!(described.rows, kept.ids.len());
    Ok(kept)
}

fn refused(backend: &FsBackend, collection: &str) -> String {
    let error = pulled(backend, collection).err().expect("an error");
    assert_eq!(error.kind(), ErrorKind::Backend, "{error}");
    assert!(error.to_string().contains("\"disk\""), "{error}");
    error.to_string()
}

fn made(dim: usize, ids: impl IntoIterator<Item = u64>) -> Rows {
    let ids: Vec<u64> = ids.into_iter().collect();
    let vectors = ids.iter().flat_map(|&id| (0..dim).map(move |j| id as f32 + j as f32 / 8.0)).collect();
    Rows { ids: Ids::Numbers(ids), vectors }
}

/// The folder of files that numpy and pyarrow have made.
fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// The vectors of `tests/data/make.py`.
fn expected() -> Vec<f32> {
    (0..20).flat_map(|i| (0..4).map(move |j| i as f32 + j as f32 / 8.0)).collect()
}

fn numbers(first: u64) -> Vec<String> {
    (first..first + 20).map(|id| id.to_string()).collect()
}

fn row_names() -> Vec<String> {
    (0..20).map(|id| format!("row-{id}")).collect()
}

// Arrays

#[test]
fn arrays_of_numpy_come_as_they_were_saved() {
    let backend = backend(&data());
    for (name, first) in [("plain", 0), ("version2", 0), ("version3", 0), ("half", 100), ("named", 100)] {
        let kept = pulled(&backend, name).unwrap();
        assert_eq!(kept.vectors, expected(), "{name}");
        assert_eq!(kept.ids, numbers(first), "{name}");
    }
    let empty = backend.describe("empty").unwrap();
    assert_eq!((empty.rows, empty.dim), (0, 4));
}

#[test]
fn an_array_that_cannot_be_used_says_how_to_save_it() {
    let backend = backend(&data());
    for (name, words) in [
        (
            "double",
            "float64, float32 or float16 is needed; save it with np.save(path, array.astype(np.float32))",
        ),
        ("integer", "dtype is \"<i4\""),
        ("big", "big-endian"),
        ("fortran", "np.ascontiguousarray(array)"),
        ("flat", "shape is (80,)"),
        ("cube", "shape is (2, 10, 4)"),
        ("records", "records of several fields"),
        ("negative", "\"negative.ids.npy\": ids must be 0 or more, got a negative one in row 0"),
        ("few", "\"few.ids.npy\" has 19 ids, and \"few.npy\" has 20 rows"),
    ] {
        let told = refused(&backend, name);
        assert!(told.contains(words) && told.contains(".npy"), "{told}");
    }
}

#[test]
fn ids_beside_an_array_belong_to_its_generation() {
    let folder = TempDir::new().unwrap();
    for name in ["named.npy", "named.ids.npy"] {
        fs::copy(data().join(name), folder.path().join(name)).unwrap();
    }
    let backend = backend(folder.path());
    assert_eq!(backend.collections().unwrap(), ["named"]);
    assert_eq!(backend.describe("named.ids").unwrap_err().kind(), ErrorKind::UnknownCollection);
    let with = backend.generation("named").unwrap();
    fs::remove_file(folder.path().join("named.ids.npy")).unwrap();
    assert_ne!(backend.generation("named").unwrap(), with);
    assert_eq!(pulled(&backend, "named").unwrap().ids, numbers(0));
}

/// An .npy file with this header.
fn npy(header: &str, numbers: usize) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + numbers * 4, 0);
    bytes
}

#[test]
fn hostile_headers_of_arrays_are_errors() {
    let folder = TempDir::new().unwrap();
    let backend = backend(folder.path());
    let plain = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
    fs::write(folder.path().join("a.npy"), npy(plain, 6)).unwrap();
    assert_eq!(pulled(&backend, "a").unwrap().ids.len(), 2);
    for header in [
        "",
        "{",
        "{}",
        "{'descr': '<f4'}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } x",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'more': 1}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, -3), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551615, 4611686018427387904), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 1), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 6000000), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 0), }",
        "{'descr': '<f', 'fortran_order': False, 'shape': (2, 3), }",
        "{'descr': '<é', 'fortran_order': False, 'shape': (2, 3), }",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (2, 3), }",
        "__import__('os').system('true')",
        &"(".repeat(60_000),
        &format!("{{'descr': {}'<f4'{}}}", "[".repeat(9000), "]".repeat(9000)),
    ] {
        fs::write(folder.path().join("a.npy"), npy(header, 6)).unwrap();
        refused(&backend, "a");
    }
    for length in 0..npy(plain, 6).len() {
        fs::write(folder.path().join("a.npy"), &npy(plain, 6)[..length]).unwrap();
        refused(&backend, "a");
    }
    fs::write(folder.path().join("a.npy"), b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}").unwrap();
    refused(&backend, "a");
    fs::write(folder.path().join("a.npy"), b"\x93NUMPY\x04\x00\xff\xff\xff\xff{}").unwrap();
    assert!(refused(&backend, "a").contains("version 4"));
}

// .fvecs and .ruvec

fn fvecs(dim: usize, vectors: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in vectors.chunks_exact(dim) {
        bytes.extend_from_slice(&(dim as i32).to_le_bytes());
        row.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
    }
    bytes
}

fn finite() -> impl Strategy<Value = f32> {
    prop::num::f32::NORMAL | prop::num::f32::ZERO | prop::num::f32::SUBNORMAL | prop::num::f32::NEGATIVE
}

fn vectors() -> impl Strategy<Value = (usize, Vec<f32>)> {
    (1..40_usize, 0..50_usize).prop_flat_map(|(dim, rows)| {
        (Just(dim), prop::collection::vec(finite().prop_filter("finite", |x| x.is_finite()), rows * dim))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fvecs_come_as_they_were_written((dim, vectors) in vectors()) {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("a.fvecs"), fvecs(dim, &vectors)).unwrap();
        let kept = pulled(&backend(folder.path()), "a").unwrap();
        prop_assert_eq!(kept.ids, (0..vectors.len() / dim).map(|row| row.to_string()).collect::<Vec<_>>());
        prop_assert_eq!(kept.description.unwrap().dim, if vectors.is_empty() { 0 } else { dim });
        prop_assert_eq!(kept.vectors, vectors);
    }

    #[test]
    fn rows_of_any_kind_come_as_they_were_written(
        (dim, vectors) in vectors(), named in any::<bool>(), cut in 1..20_usize, salt in "\\PC{0,9}",
    ) {
        let folder = TempDir::new().unwrap();
        let count = vectors.len() / dim;
        let names: Vec<String> =
            (0..count).map(|row| if named { format!("{salt}{row}") } else { (u64::MAX - row as u64).to_string() }).collect();
        let pieces = (0..count).step_by(cut).map(|start| {
            let rows = start..count.min(start + cut);
            let ids = if named {
                Ids::Names(names[rows.clone()].iter().map(|name| name.as_str().into()).collect())
            } else {
                Ids::Numbers(rows.clone().map(|row| u64::MAX - row as u64).collect())
            };
            Ok(Rows { ids, vectors: vectors[rows.start * dim..rows.end * dim].to_vec() })
        });
        prop_assert_eq!(write_rows(&folder.path().join("a.rows"), dim, pieces).unwrap(), count);
        let kept = pulled(&backend(folder.path()), "a").unwrap();
        prop_assert_eq!(kept.ids, names);
        prop_assert_eq!(kept.description.unwrap().dim, dim);
        prop_assert_eq!(kept.vectors, vectors);
    }

    #[test]
    fn any_bytes_are_an_error_or_rows_in_every_format(bytes in prop::collection::vec(any::<u8>(), 0..200), magic in 0..5_usize) {
        let folder = TempDir::new().unwrap();
        let start: [&[u8]; 5] = [b"\x93NUMPY\x01\x00", b"limnrow\n\x01\0\0\0", b"ruvec1\0\0", b"PAR1", b"\x02\0\0\0"];
        let bytes = [start[magic], &bytes].concat();
        let backend = backend(folder.path());
        for ending in ["npy", "fvecs", "rows", "ruvec", "parquet"] {
            fs::write(folder.path().join(format!("{ending}.{ending}")), &bytes).unwrap();
            let _ = pulled(&backend, ending);
        }
    }

    #[test]
    fn a_folder_is_what_was_done_to_it(
        steps in prop::collection::vec((any::<bool>(), prop::collection::btree_set(0..30_u64, 0..12), 0..9_u8), 1..12),
    ) {
        let folder = TempDir::new().unwrap();
        let backend = backend(folder.path());
        let mut model = BTreeMap::new();
        let mut generations = vec![];
        for (step, (put, ids, salt)) in steps.into_iter().enumerate() {
            let ids: Vec<u64> = ids.into_iter().collect();
            if put || step == 0 {
                let vectors: Vec<f32> = ids.iter().flat_map(|&id| [id as f32, f32::from(salt)]).collect();
                backend.upsert("docs", &ids, &vectors, 2).unwrap();
                model.extend(ids.into_iter().zip(vectors.chunks_exact(2).map(<[f32]>::to_vec)));
            } else {
                let gone = ids.iter().filter(|id| model.remove(id).is_some()).count();
                prop_assert_eq!(backend.delete("docs", &ids).unwrap(), gone);
                if gone == 0 {
                    continue;
                }
            }
            let kept = pulled(&backend, "docs").unwrap();
            let there: BTreeMap<u64, Vec<f32>> =
                kept.ids.iter().map(|id| id.parse().unwrap()).zip(kept.vectors.chunks_exact(2).map(<[f32]>::to_vec)).collect();
            prop_assert_eq!(there.len(), kept.ids.len());
            prop_assert_eq!(&there, &model);
            let generation = backend.generation("docs").unwrap();
            prop_assert!(!generations.contains(&generation));
            generations.push(generation);
        }
    }
}

#[test]
fn fvecs_that_do_not_fit_are_errors() {
    let folder = TempDir::new().unwrap();
    let backend = backend(folder.path());
    let path = folder.path().join("a.fvecs");
    let whole = fvecs(3, &[1.0; 9]);
    for length in 1..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        if length % 16 != 0 {
            refused(&backend, "a");
        }
    }
    let mut other = whole.clone();
    other[16] = 4;
    fs::write(&path, other).unwrap();
    assert!(refused(&backend, "a").contains("row 1 says it has 4 dimensions, the first row has 3"));
    for dim in [0, -1, i32::MAX, 65_537] {
        fs::write(&path, [&dim.to_le_bytes()[..], &[0; 64]].concat()).unwrap();
        assert!(refused(&backend, "a").contains("1 to 65536 dimensions"));
    }
    fs::write(&path, fvecs(3, &[1.0, 2.0, 3.0, 4.0, f32::NAN, 6.0])).unwrap();
    assert!(refused(&backend, "a").contains("got NaN in row 1, column 1"));
}

#[test]
fn the_vectors_of_another_lake_are_read() {
    let folder = TempDir::new().unwrap();
    let backend = backend(folder.path());
    let path = folder.path().join("a.ruvec");
    let file = |rows: u64, dim: u32| {
        let mut bytes = b"ruvec1\0\0".to_vec();
        bytes.extend_from_slice(&rows.to_le_bytes());
        bytes.extend_from_slice(&dim.to_le_bytes());
        bytes.extend_from_slice(&7_u32.to_le_bytes());
        for id in [9_u64, u64::MAX] {
            bytes.extend_from_slice(&id.to_le_bytes());
            [0.5_f32, -2.0, id as f32]
                .iter()
                .for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        }
        bytes
    };
    fs::write(&path, file(2, 3)).unwrap();
    let kept = pulled(&backend, "a").unwrap();
    assert_eq!(kept.ids, ["9".to_owned(), u64::MAX.to_string()]);
    assert_eq!(kept.vectors, [0.5, -2.0, 9.0, 0.5, -2.0, u64::MAX as f32]);
    for (rows, dim) in [(3, 3), (2, 2), (u64::MAX, 3), (2, u32::MAX), (1 << 61, 3), (2, 0), (0, 3)] {
        fs::write(&path, file(rows, dim)).unwrap();
        refused(&backend, "a");
    }
    for length in 0..file(2, 3).len() {
        fs::write(&path, &file(2, 3)[..length]).unwrap();
        refused(&backend, "a");
    }
}

// .rows

/// A small file of rows, and what is in it.
fn small(named: bool) -> (Vec<u8>, Vec<String>, Vec<f32>) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.rows");
    let mut rows = made(3, [5, 1, 9]);
    if named {
        rows.ids = Ids::Names(["a", "", "ünï"].map(Arc::from).to_vec());
    }
    write_rows(&path, 3, [Ok(rows)]).unwrap();
    let kept = pulled(&backend(folder.path()), "a").unwrap();
    (fs::read(path).unwrap(), kept.ids, kept.vectors)
}

#[test]
fn no_cut_and_no_flipped_bit_of_a_rows_file_gives_wrong_rows() {
    let folder = TempDir::new().unwrap();
    let backend = backend(folder.path());
    let path = folder.path().join("a.rows");
    for named in [false, true] {
        let (whole, ids, vectors) = small(named);
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            refused(&backend, "a");
        }
        fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
        refused(&backend, "a");
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, damaged).unwrap();
            let mut kept = Kept::default();
            let pulled = backend.pull("a", &mut kept, &Job::new());
            assert!(pulled.is_err() || (kept.ids == ids && kept.vectors == vectors), "bit {bit}");
            assert!(kept.ids.is_empty() || kept.ids == ids, "bit {bit}: wrong rows before the error");
        }
    }
}

/// The file with another number in its header, which has its checksum.
fn with_header(whole: &[u8], offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut forged = whole.to_vec();
    forged[offset..offset + bytes.len()].copy_from_slice(bytes);
    let checksum = crc32fast::hash(&forged[..60]);
    forged[60..64].copy_from_slice(&checksum.to_le_bytes());
    forged
}

#[test]
fn forged_headers_of_rows_files_are_errors() {
    let folder = TempDir::new().unwrap();
    let backend = backend(folder.path());
    let path = folder.path().join("a.rows");
    let whole = small(false).0;
    for (offset, bytes) in [
        (8, 0_u32.to_le_bytes().to_vec()),
        (12, 0_u32.to_le_bytes().to_vec()),
        (12, 2_u32.to_le_bytes().to_vec()),
        (12, 65_537_u32.to_le_bytes().to_vec()),
        (12, u32::MAX.to_le_bytes().to_vec()),
        (16, 2_u64.to_le_bytes().to_vec()),
        (16, 0_u64.to_le_bytes().to_vec()),
        (16, 4_u64.to_le_bytes().to_vec()),
        (16, u64::MAX.to_le_bytes().to_vec()),
        (16, (1_u64 << 60).to_le_bytes().to_vec()),
        (24, u64::MAX.to_le_bytes().to_vec()),
        (48, 1_u32.to_le_bytes().to_vec()),
        (48, 2_u32.to_le_bytes().to_vec()),
        (52, 0_u32.to_le_bytes().to_vec()),
        (52, 1_u32.to_le_bytes().to_vec()),
        (56, 0_u32.to_le_bytes().to_vec()),
    ] {
        fs::write(&path, with_header(&whole, offset, &bytes)).unwrap();
        refused(&backend, "a");
    }
    fs::write(&path, with_header(&whole, 8, &2_u32.to_le_bytes())).unwrap();
    let told = refused(&backend, "a");
    assert!(told.contains("version 2 of .rows") && told.contains("update limnion"), "{told}");

    // A table with its checksum, of a block that cannot be.
    for length in [0, 1, u64::MAX, u64::MAX - 63, 1 << 40] {
        let mut forged = whole.clone();
        let table = forged.len() - 16;
        forged[table..table + 8].copy_from_slice(&length.to_le_bytes());
        let checksum = crc32fast::hash(&forged[table..]);
        fs::write(&path, with_header(&forged, 56, &checksum.to_le_bytes())).unwrap();
        refused(&backend, "a");
    }
    // Names with their checksum that reach beyond the block, or are not text.
    let whole = small(true).0;
    for (offset, bytes) in [(64, u32::MAX.to_le_bytes()), (64, 60_u32.to_le_bytes()), (76, [0xff; 4])] {
        let mut forged = whole.clone();
        forged[offset..offset + 4].copy_from_slice(&bytes);
        let table = forged.len() - 16;
        let checksum = crc32fast::hash(&forged[64..table]);
        forged[table + 8..table + 12].copy_from_slice(&checksum.to_le_bytes());
        let checksum = crc32fast::hash(&forged[table..]);
        fs::write(&path, with_header(&forged, 56, &checksum.to_le_bytes())).unwrap();
        assert!(refused(&backend, "a").contains("is not one"));
    }
}

#[test]
fn a_rows_file_is_as_its_documentation_draws_it() {
    let (bytes, ..) = small(false);
    assert_eq!(&bytes[..8], b"limnrow\n");
    assert_eq!(bytes[8..12], 1_u32.to_le_bytes());
    assert_eq!(bytes[12..16], 3_u32.to_le_bytes());
    assert_eq!(bytes[16..24], 3_u64.to_le_bytes());
    assert_eq!(bytes[24..32], (bytes.len() as u64).to_le_bytes());
    assert_eq!(bytes[48..56], [0, 0, 0, 0, 0, 32, 0, 0]);
    assert_eq!(bytes[64..72], 5_u64.to_le_bytes());
    assert_eq!(bytes[88..92], 5_f32.to_le_bytes());
    assert_eq!(bytes.len(), 64 + 64 + 16);
    assert_eq!(bytes[128..136], 64_u64.to_le_bytes());
    let named = small(true).0;
    assert_eq!(named[64..76], [1, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0]);
    assert_eq!(&named[76..84], "aünï\0\0".as_bytes());
    assert_eq!(named[84..88], 5_f32.to_le_bytes());
}

#[test]
fn many_rows_come_in_pieces() {
    let folder = TempDir::new().unwrap();
    let backend = backend(folder.path());
    let rows = made(2, 0..20_000);
    let Ids::Numbers(ids) = &rows.ids else { unreachable!() };
    backend.upsert("docs", ids, &rows.vectors, 2).unwrap();
    backend.upsert("docs", &[30_000, 9_000], &[1.0, 2.0, 3.0, 4.0], 2).unwrap();
    let kept = pulled(&backend, "docs").unwrap();
    assert_eq!((kept.ids.len(), kept.pieces), (20_001, 3));
    assert_eq!(kept.vectors[18_000..18_002], [3.0, 4.0]);
    assert_eq!(kept.vectors[40_000..], [1.0, 2.0]);
}

#[test]
fn what_cannot_be_written_leaves_the_old_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("docs.rows");
    write_rows(&path, 3, [Ok(made(3, [1]))]).unwrap();
    let before = fs::read(&path).unwrap();
    let named = Rows { ids: Ids::Names(vec!["a".into()]), vectors: vec![0.0; 3] };
    let nan = Rows { ids: Ids::Numbers(vec![4]), vectors: vec![0.0, f32::NAN, 0.0] };
    for (rows, kind) in [
        (Ok(made(3, [2])), ErrorKind::DuplicateId),
        (Ok(named), ErrorKind::InvalidType),
        (Ok(nan), ErrorKind::InvalidArgument),
        (Ok(made(4, [7])), ErrorKind::DimensionMismatch),
        (Err(Error::new(ErrorKind::Lake, "no more")), ErrorKind::Lake),
    ] {
        let error = write_rows(&path, 3, [Ok(made(3, [2])), rows]).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    assert_eq!(write_rows(&path, 0, []).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let nowhere = write_rows(&folder.path().join("no/where.rows"), 3, []).unwrap_err();
    assert_eq!(nowhere.kind(), ErrorKind::Io);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "the file and the lock");
}

// Parquet

#[test]
fn columns_of_pyarrow_come_as_they_were_saved() {
    let backend = backend(&data());
    for (name, ids) in [
        ("fixed", numbers(100)),
        ("fixed16", numbers(100)),
        ("fixed64", numbers(100)),
        ("list", numbers(100)),
        ("list64", row_names()),
        ("large", row_names()),
        ("dictionary", row_names()),
        ("view", row_names()),
        ("groups", numbers(100)),
        ("checked", numbers(100)),
        ("bare", numbers(100)),
        ("noids", numbers(0)),
        ("parts", numbers(0)),
    ] {
        let kept = pulled(&backend, name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(kept.vectors, expected(), "{name}");
        assert_eq!(kept.ids, ids, "{name}");
    }
    let none = pulled(&backend, "none").unwrap().description.unwrap();
    assert_eq!((none.rows, none.dim), (0, 4));
}

#[test]
fn columns_can_have_other_names() {
    let columns = Columns { id: "key".to_owned(), vector: "embedding".to_owned() };
    let backend = FsBackend::new("disk", data(), FsOptions { columns, digest: false }).unwrap();
    let kept = pulled(&backend, "renamed").unwrap();
    assert_eq!((kept.ids, kept.vectors), (numbers(100), expected()));
}

#[test]
fn a_column_that_cannot_be_used_is_named_with_its_row() {
    let backend = backend(&data());
    for (name, words) in [
        ("renamed", "no column \"vector\" of vectors among \"key\", \"embedding\", \"nested\""),
        ("nullvector", "column \"vector\": must have no nulls, got one in row 17"),
        ("nullnumber", "column \"vector\": must have no nulls, got one in row 19, column 2"),
        ("nullid", "column \"id\": must have no nulls, got one in row 19"),
        ("minus", "column \"id\": ids must be 0 or more, got -1 in row 19"),
        ("lengths", "column \"vector\" must have vectors of one length, got 1 in row 19 after 4"),
        ("infinite", "column \"vector\": vectors must have finite numbers, got inf in row 7, column 2"),
        ("toolarge", "column \"vector\": vectors must have finite numbers, got inf in row 7, column 2"),
        ("integers", "column \"vector\" must have lists of float32, float64 or float16, got"),
        ("scalar", "column \"vector\" must have lists of float32, float64 or float16, got Int64"),
        ("blobs", "column \"id\" must have ids that are integers or strings, got Binary"),
        ("gzip", "packed in a way that limnion does not unpack; save it with zstd"),
    ] {
        let told = refused(&backend, name);
        assert!(told.contains(words) && told.contains(&format!("\"{name}.parquet\"")), "{told}");
    }
}

#[test]
fn a_damaged_parquet_file_is_an_error_and_never_a_crash() {
    let folder = TempDir::new().unwrap();
    let backend = backend(folder.path());
    let path = folder.path().join("a.parquet");
    let whole = fs::read(data().join("checked.parquet")).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        refused(&backend, "a");
    }
    for name in ["checked", "list64", "dictionary", "fixed16"] {
        let whole = fs::read(data().join(format!("{name}.parquet"))).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= if at % 2 == 0 { 0xff } else { 1 };
            fs::write(&path, damaged).unwrap();
            let mut kept = Kept::default();
            let _ = backend.pull("a", &mut kept, &Job::new());
        }
    }
    // What pages hold is under their checksum, where they have one.
    let mut damaged = whole;
    let at = damaged.windows(4).position(|four| four == 7.25_f32.to_le_bytes()).unwrap();
    damaged[at] ^= 1;
    fs::write(&path, damaged).unwrap();
    assert!(refused(&backend, "a").contains("CRC"));
}

#[test]
fn parts_must_agree_and_a_change_of_one_is_a_change_of_all() {
    let folder = TempDir::new().unwrap();
    let backend = backend(folder.path());
    let parts = folder.path().join("docs");
    fs::create_dir(&parts).unwrap();
    assert_eq!(backend.collections().unwrap(), Vec::<String>::new());
    assert_eq!(backend.describe("docs").unwrap_err().kind(), ErrorKind::UnknownCollection);
    fs::copy(data().join("parts/part-0.parquet"), parts.join("b.parquet")).unwrap();
    fs::write(parts.join("_SUCCESS"), b"").unwrap();
    fs::write(parts.join(".b.parquet.crc"), b"").unwrap();
    assert_eq!(backend.collections().unwrap(), ["docs"]);
    let one = backend.generation("docs").unwrap();
    assert_eq!(pulled(&backend, "docs").unwrap().ids.len(), 7);
    fs::copy(data().join("parts/part-2.parquet"), parts.join("c.parquet")).unwrap();
    assert_ne!(backend.generation("docs").unwrap(), one);
    assert_eq!(pulled(&backend, "docs").unwrap().ids, numbers(0));
    let two = backend.generation("docs").unwrap();
    fs::rename(parts.join("c.parquet"), parts.join("a.parquet")).unwrap();
    assert_ne!(backend.generation("docs").unwrap(), two);
    assert_eq!(pulled(&backend, "docs").unwrap().vectors[0], 7.0);
    fs::write(parts.join("z.parquet"), b"PAR1").unwrap();
    assert!(refused(&backend, "docs").contains("z.parquet"));
}

// Arrow

fn stream(id: ArrayRef, vector: ArrayRef) -> Result<Vec<Rows>> {
    let batch = RecordBatch::try_from_iter([("id", id), ("vector", vector)]).unwrap();
    let schema = batch.schema();
    // A slice, as other programs hand them over.
    let half = batch.num_rows() / 2;
    let parts = [batch.slice(0, half), batch.slice(half, batch.num_rows() - half)];
    rows_of_batches(RecordBatchIterator::new(parts.map(Ok), schema), &Columns::default())?.collect()
}

#[test]
fn batches_of_arrow_become_rows() {
    let lists =
        |rows: std::ops::Range<i64>| rows.map(|i| Some(vec![Some(i as f32), Some(0.5)])).collect::<Vec<_>>();
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..6));
    let fixed: ArrayRef =
        Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(lists(0..6), 2));
    let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(lists(0..6)));
    for vectors in [fixed.clone(), list] {
        let rows = stream(ids.clone(), vectors).unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1].ids, Ids::Numbers(vec![3, 4, 5]));
        assert_eq!(rows[1].vectors, [3.0, 0.5, 4.0, 0.5, 5.0, 0.5]);
    }
    let names: DictionaryArray<Int32Type> = ["a", "b", "c", "d", "e", "f"].into_iter().collect();
    let rows = stream(Arc::new(names), fixed.clone()).unwrap();
    assert_eq!(rows[1].ids, Ids::Names(["d", "e", "f"].map(Arc::from).to_vec()));

    let uneven = vec![Some(vec![Some(1.0)]), Some(vec![Some(1.0)]), Some(vec![Some(1.0), Some(2.0)])];
    let uneven = Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(uneven));
    let error = stream(ids.slice(0, 3), uneven).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DimensionMismatch);
    assert!(error.message().contains("got 2 in row 2 after 1"), "{error}");
    let error = stream(ids.clone(), ids.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidType);
    let error = stream(fixed.clone(), fixed.clone()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidType);

    let batch =
        RecordBatch::try_from_iter([("text", Arc::new(StringArray::from(vec!["x"])) as ArrayRef)]).unwrap();
    let schema = batch.schema();
    let error =
        rows_of_batches(RecordBatchIterator::new([Ok(batch)], schema), &Columns::default()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("no column \"vector\" of vectors among \"text\""), "{error}");

    let batch = RecordBatch::try_from_iter([("vector", fixed)]).unwrap();
    let broken = [Ok(batch.clone()), Err(ArrowError::ComputeError("gone".to_owned())), Ok(batch.clone())];
    let reader = RecordBatchIterator::new(broken, batch.schema());
    let rows: Vec<_> = rows_of_batches(reader, &Columns::default()).unwrap().collect();
    assert_eq!(rows[0].as_ref().unwrap().ids, Ids::Numbers((0..6).collect()));
    assert!(rows[1].as_ref().unwrap_err().message().contains("gone"));
    assert_eq!(rows.len(), 2);
}

// Folders

#[test]
fn a_folder_that_is_not_there_is_an_error_that_says_so() {
    let folder = TempDir::new().unwrap();
    let error = FsBackend::new("disk", folder.path().join("no"), FsOptions::default()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Backend);
    assert!(error.to_string().contains("make it first"), "{error}");
    fs::write(folder.path().join("file"), b"").unwrap();
    assert!(FsBackend::new("disk", folder.path().join("file"), FsOptions::default()).is_err());
    assert!(FsBackend::new("", folder.path(), FsOptions::default()).is_err());
}

#[test]
fn collections_have_any_name_and_never_leave_the_folder() {
    let root = TempDir::new().unwrap();
    let folder = root.path().join("inner");
    fs::create_dir(&folder).unwrap();
    fs::write(root.path().join("secret.fvecs"), fvecs(1, &[1.0])).unwrap();
    let backend = backend(&folder);
    let names = [
        "a/b",
        "..",
        ".",
        "../secret",
        "ünï cödé",
        "%41",
        "x.npy",
        "-",
        "a\\b",
        "C:",
        "~",
        " ",
        "docs.rows",
        "a.ids",
    ];
    for (number, name) in names.iter().enumerate() {
        backend.upsert(name, &[number as u64], &[1.0], 1).unwrap();
    }
    let mut sorted: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    sorted.sort();
    assert_eq!(backend.collections().unwrap(), sorted);
    for (number, name) in names.iter().enumerate() {
        assert_eq!(pulled(&backend, name).unwrap().ids, [number.to_string()]);
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
    for name in ["", "a\0b", "line\nbreak", &"x".repeat(256), &"ü".repeat(120)] {
        assert_eq!(
            backend.upsert(name, &[1], &[1.0], 1).unwrap_err().kind(),
            ErrorKind::InvalidArgument,
            "{name}"
        );
        assert_eq!(backend.describe(name).unwrap_err().kind(), ErrorKind::UnknownCollection, "{name}");
        assert_eq!(backend.generation(name).unwrap_err().kind(), ErrorKind::UnknownCollection, "{name}");
    }
    // Names that nothing is encoded as are not looked at.
    for odd in
        ["%4.rows", "%41.rows", "a b.rows", "%00.rows", ".hidden.rows", "readme.txt", "noending", "%ff.rows"]
    {
        fs::write(folder.join(odd), b"").unwrap();
    }
    assert_eq!(backend.collections().unwrap(), sorted);
    let error = backend.describe("../secret.fvecs").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownCollection);
    assert!(error.suggestion().unwrap().contains("..."), "{error}");
}

#[cfg(unix)]
#[test]
fn no_link_is_followed() {
    use std::os::unix::fs::symlink;
    let root = TempDir::new().unwrap();
    let folder = root.path().join("inner");
    let outside = root.path().join("outside");
    for made in [&folder, &outside] {
        fs::create_dir(made).unwrap();
    }
    fs::write(outside.join("a.fvecs"), fvecs(1, &[1.0])).unwrap();
    fs::copy(data().join("noids.parquet"), outside.join("part.parquet")).unwrap();
    symlink(outside.join("a.fvecs"), folder.join("file.fvecs")).unwrap();
    symlink(&outside, folder.join("parts")).unwrap();
    symlink(outside.join("nothing"), folder.join("nowhere.rows")).unwrap();
    fs::create_dir(folder.join("inside")).unwrap();
    symlink(outside.join("part.parquet"), folder.join("inside/part.parquet")).unwrap();
    fs::create_dir(folder.join("odd.rows")).unwrap();
    let backend = backend(&folder);
    for name in ["file", "parts", "nowhere", "inside"] {
        assert!(refused(&backend, name).contains("links are not followed"), "{name}");
        assert!(backend.generation(name).is_err());
        assert!(backend.upsert(name, &[1], &[1.0], 1).is_err(), "{name}");
    }
    assert_eq!(backend.describe("odd").unwrap_err().kind(), ErrorKind::UnknownCollection);
    assert_eq!(backend.collections().unwrap(), ["inside"]);
    // A link that comes in the place of a file that has been read is not followed either.
    fs::write(folder.join("real.fvecs"), fvecs(1, &[1.0])).unwrap();
    pulled(&backend, "real").unwrap();
    fs::remove_file(folder.join("real.fvecs")).unwrap();
    symlink(outside.join("a.fvecs"), folder.join("real.fvecs")).unwrap();
    assert!(backend.generation("real").is_err());
    assert!(refused(&backend, "real").contains("links are not followed"));
    // Nor is one in the place of the lock.
    fs::remove_file(folder.join(".limnion-lock")).ok();
    symlink(outside.join("lock"), folder.join(".limnion-lock")).unwrap();
    assert!(backend.upsert("docs", &[1], &[1.0], 1).is_err());
    assert!(!outside.join("lock").exists());
    // The folder itself may be reached by a link: it is looked up once.
    symlink(&outside, root.path().join("way")).unwrap();
    let by_link = FsBackend::new("disk", root.path().join("way"), FsOptions::default()).unwrap();
    let source = by_link.describe("a").unwrap().source;
    assert!(source.ends_with("/outside/a.fvecs") && source.starts_with("file:///"), "{source}");
}

#[test]
fn the_source_is_a_uri() {
    let root = TempDir::new().unwrap();
    let folder = root.path().join("my files");
    fs::create_dir(&folder).unwrap();
    let backend = backend(&folder);
    backend.upsert("a b", &[1], &[1.0], 1).unwrap();
    let source = backend.describe("a b").unwrap().source;
    assert!(source.starts_with("file:///") && source.ends_with("/my%20files/a%2520b.rows"), "{source}");
}

#[test]
fn two_files_of_one_name_are_an_error() {
    let folder = TempDir::new().unwrap();
    let backend = backend(folder.path());
    backend.upsert("docs", &[1], &[1.0], 1).unwrap();
    fs::write(folder.path().join("docs.fvecs"), fvecs(1, &[1.0])).unwrap();
    let told = refused(&backend, "docs");
    assert!(told.contains("\"docs.fvecs\" and \"docs.rows\""), "{told}");
    assert!(backend.upsert("docs", &[1], &[1.0], 1).is_err());
    assert_eq!(backend.collections().unwrap(), ["docs"]);
    fs::remove_file(folder.path().join("docs.rows")).unwrap();
    assert_eq!(pulled(&backend, "docs").unwrap().ids, ["0"]);
}

#[test]
fn only_rows_files_are_written() {
    let folder = TempDir::new().unwrap();
    let backend = backend(folder.path());
    fs::write(folder.path().join("docs.fvecs"), fvecs(1, &[1.0])).unwrap();
    for error in [
        backend.upsert("docs", &[1], &[1.0], 1).unwrap_err(),
        backend.delete("docs", &[1]).unwrap_err(),
        backend.drop_collection("docs").unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Backend);
        assert!(
            error.message().contains("lies in \"docs.fvecs\", and only .rows files are written"),
            "{error}"
        );
    }
    assert_eq!(backend.delete("none", &[1]).unwrap_err().kind(), ErrorKind::UnknownCollection);
    assert!(!backend.drop_collection("none").unwrap());
    backend.upsert("mine", &[1], &[1.0], 1).unwrap();
    assert!(backend.drop_collection("mine").unwrap());
    assert_eq!(backend.generation("mine").unwrap_err().kind(), ErrorKind::UnknownCollection);
}

#[test]
fn rows_that_cannot_be_are_refused_and_change_nothing() {
    let folder = TempDir::new().unwrap();
    let backend = backend(folder.path());
    backend.upsert("docs", &[1, 2], &[1.0, 2.0, 3.0, 4.0], 2).unwrap();
    let before = backend.generation("docs").unwrap();
    for (ids, vectors, dim, kind) in [
        (&[1_u64][..], &[1.0_f32][..], 1, ErrorKind::DimensionMismatch),
        (&[1], &[1.0], 2, ErrorKind::InvalidArgument),
        (&[1], &[], 0, ErrorKind::InvalidArgument),
        (&[1, 1], &[1.0; 4], 2, ErrorKind::DuplicateId),
        (&[1], &[1.0, f32::INFINITY], 2, ErrorKind::InvalidArgument),
    ] {
        assert_eq!(backend.upsert("docs", ids, vectors, dim).unwrap_err().kind(), kind);
    }
    let named = |names: &[&str]| Rows {
        ids: Ids::Names(names.iter().map(|name| Arc::from(*name)).collect()),
        vectors: vec![1.0; 2 * names.len()],
    };
    assert_eq!(backend.upsert_rows("docs", &named(&["a"]), 2).unwrap_err().kind(), ErrorKind::InvalidType);
    assert_eq!(
        backend.upsert_rows("other", &named(&["a", "a"]), 2).unwrap_err().kind(),
        ErrorKind::DuplicateId
    );
    let huge = vec![0.0; 65_537];
    assert_eq!(backend.upsert("other", &[1], &huge, 65_537).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(backend.delete("docs", &[7]).unwrap(), 0);
    assert_eq!(backend.generation("docs").unwrap(), before);
    assert_eq!(backend.collections().unwrap(), ["docs"]);

    backend.upsert_rows("named", &named(&["a", "b"]), 2).unwrap();
    let more = Rows { ids: Ids::Names(vec!["b".into(), "".into()]), vectors: vec![5.0; 4] };
    backend.upsert_rows("named", &more, 2).unwrap();
    assert_eq!(backend.delete_rows("named", &Ids::Names(vec!["a".into(), "z".into()])).unwrap(), 1);
    assert_eq!(backend.delete("named", &[1]).unwrap(), 0);
    let kept = pulled(&backend, "named").unwrap();
    assert_eq!((kept.ids, kept.vectors), (vec!["b".to_owned(), String::new()], vec![5.0; 4]));
    // Where there are no rows, ids are of no kind yet.
    backend.delete("docs", &[1, 2]).unwrap();
    assert_eq!(backend.describe("docs").unwrap().rows, 0);
    backend.upsert_rows("docs", &named(&["a"]), 2).unwrap();
}

// Change

#[test]
fn two_writes_in_one_tick_of_the_clock_are_two_generations() {
    let folder = TempDir::new().unwrap();
    let backend = backend(folder.path());
    let path = folder.path().join("docs.rows");
    let tick = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let write = |number: f32| {
        backend.upsert("docs", &[1], &[number], 1).unwrap();
        fs::read(&path).unwrap()
    };
    let versions = [write(1.0), write(2.0), write(2.0)];
    let mut generations = Vec::new();
    for version in versions {
        // The same file, size and time: only what is in it tells.
        let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(&version).unwrap();
        file.set_modified(tick).unwrap();
        generations.push(backend.generation("docs").unwrap());
        assert_eq!(
            pulled(&backend, "docs").unwrap().description.unwrap().generation,
            generations[generations.len() - 1]
        );
    }
    assert!(
        generations[0] != generations[1]
            && generations[1] != generations[2]
            && generations[0] != generations[2]
    );
}

#[test]
fn a_digest_tells_contents_apart_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let (plain, digest) = (backend(folder.path()), digesting(folder.path()));
    let path = folder.path().join("docs.fvecs");
    let tick = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let write = |number: f32, time: SystemTime| {
        let mut file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path).unwrap();
        file.write_all(&fvecs(1, &[number])).unwrap();
        file.set_modified(time).unwrap();
        (plain.generation("docs").unwrap(), digest.generation("docs").unwrap())
    };
    let first = write(1.0, tick);
    let second = write(2.0, tick);
    assert_eq!(first.0, second.0, "this is what the digest is for");
    assert_ne!(first.1, second.1);
    let third = write(1.0, tick + Duration::from_nanos(100));
    assert_ne!(first.0, third.0);
    assert_eq!(first.1, third.1);
    assert!(matches!(&first.1, Generation::Name(name) if name.starts_with("blake3:")));
    pulled(&digest, "docs").unwrap();
    // In two files, and in many, too.
    for name in ["named.npy", "named.ids.npy"] {
        fs::copy(data().join(name), folder.path().join(name)).unwrap();
    }
    fs::create_dir(folder.path().join("parts")).unwrap();
    fs::copy(data().join("noids.parquet"), folder.path().join("parts/0.parquet")).unwrap();
    assert_eq!(pulled(&digest, "named").unwrap().ids, numbers(100));
    assert_eq!(pulled(&digest, "parts").unwrap().ids, numbers(0));
}

/// Pulls, and does something when the first rows have come.
fn pulled_while(backend: &FsBackend, collection: &str, meanwhile: impl FnOnce() + 'static) -> Result<Kept> {
    let mut kept = Kept { meanwhile: Some(Box::new(meanwhile)), ..Kept::default() };
    backend.pull(collection, &mut kept, &Job::new())?;
    assert!(kept.meanwhile.is_none());
    Ok(kept)
}

#[test]
fn a_file_that_is_replaced_meanwhile_is_read_as_it_was() {
    let folder = TempDir::new().unwrap();
    let many = 20_000;
    for digest in [false, true] {
        let backend = if digest { digesting(folder.path()) } else { backend(folder.path()) };
        let rows = made(2, 0..many);
        let Ids::Numbers(ids) = &rows.ids else { unreachable!() };
        backend.upsert("docs", ids, &rows.vectors, 2).unwrap();
        let before = backend.generation("docs").unwrap();
        let path = folder.path().to_owned();
        let kept = pulled_while(&backend, "docs", move || {
            let other = FsBackend::new("other", &path, FsOptions::default()).unwrap();
            other.upsert("docs", &[many - 1], &[-1.0, -1.0], 2).unwrap();
        })
        .unwrap();
        assert_eq!(kept.vectors, rows.vectors);
        assert_eq!(kept.description.unwrap().generation, before);
        assert_ne!(backend.generation("docs").unwrap(), before);
        assert_eq!(pulled(&backend, "docs").unwrap().vectors[2 * many as usize - 1], -1.0);
    }
}

#[test]
fn a_file_that_is_written_over_meanwhile_is_an_error() {
    let folder = TempDir::new().unwrap();
    let many = 20_000;
    let path = folder.path().join("docs.fvecs");
    let whole = fvecs(2, &vec![1.0; 2 * many]);
    let changes: [fn(&Path, &[u8]); 4] = [
        |path, whole| fs::write(path, whole.iter().map(|byte| byte ^ 1).collect::<Vec<_>>()).unwrap(),
        |path, whole| fs::write(path, &whole[..whole.len() - 12]).unwrap(),
        |path, _| fs::write(path, b"").unwrap(),
        |path, whole| fs::write(path, [whole, whole].concat()).unwrap(),
    ];
    for digest in [false, true] {
        let backend = if digest { digesting(folder.path()) } else { backend(folder.path()) };
        for change in changes {
            fs::write(&path, &whole).unwrap();
            let (path, whole) = (path.clone(), whole.clone());
            let error = pulled_while(&backend, "docs", move || change(&path, &whole)).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Backend);
            assert!(error.message().contains("changed while it was read"), "{error}");
        }
    }
    // One of two files that belong together, even where it is replaced.
    let backend = backend(folder.path());
    for name in ["named.npy", "named.ids.npy"] {
        fs::copy(data().join(name), folder.path().join(name)).unwrap();
    }
    let inside = folder.path().to_owned();
    let error = pulled_while(&backend, "named", move || {
        fs::copy(data().join("half.ids.npy"), inside.join("new")).unwrap();
        fs::rename(inside.join("new"), inside.join("named.ids.npy")).unwrap();
    });
    assert!(error.err().unwrap().message().contains("changed while it was read"));
    // A part that is added.
    fs::create_dir(folder.path().join("parts")).unwrap();
    let part = folder.path().join("parts/0.parquet");
    fs::copy(data().join("noids.parquet"), &part).unwrap();
    let error = pulled_while(&backend, "parts", move || {
        fs::copy(&part, part.with_file_name("1.parquet")).unwrap();
    });
    assert!(error.err().unwrap().message().contains("changed while it was read"));
}

#[test]
fn what_the_sink_says_is_what_the_caller_hears() {
    struct Full(usize);
    impl Sink for Full {
        fn begin(&mut self, _: &Description) -> Result<()> {
            if self.0 == 0 { Err(Error::new(ErrorKind::Lake, "no room at all")) } else { Ok(()) }
        }
        fn push(&mut self, _: Rows) -> Result<()> {
            Err(Error::new(ErrorKind::Lake, "no room"))
        }
    }
    let backend = backend(&data());
    for name in ["plain", "half", "fixed", "list", "groups", "parts"] {
        for (rows, message) in [(0, "no room at all"), (1, "no room")] {
            let error = backend.pull(name, &mut Full(rows), &Job::new()).unwrap_err();
            assert_eq!((error.kind(), error.message()), (ErrorKind::Lake, message));
        }
        let job = Job::new();
        job.cancel();
        let error = backend.pull(name, &mut Kept::default(), &job).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{name}");
    }
}

#[test]
fn threads_that_write_at_once_lose_nothing() {
    let folder = TempDir::new().unwrap();
    let shared = backend(folder.path());
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (path, shared) = (folder.path(), &shared);
            scope.spawn(move || {
                let own = backend(path);
                for number in 0..20 {
                    let writer = if thread % 2 == 0 { shared } else { &own };
                    let id = thread * 100 + number;
                    writer.upsert("docs", &[id], &[id as f32], 1).unwrap();
                    if number % 5 == 4 {
                        assert_eq!(writer.delete("docs", &[id]).unwrap(), 1);
                    }
                    // A reader between writers sees whole files.
                    let mut kept = Kept::default();
                    writer.pull("docs", &mut kept, &Job::new()).unwrap();
                    assert_eq!(
                        kept.ids,
                        kept.vectors.iter().map(|number| number.to_string()).collect::<Vec<_>>()
                    );
                }
            });
        }
    });
    assert_eq!(pulled(&shared, "docs").unwrap().ids.len(), 4 * 16);
}

/// Run by the test below, in processes of its own.
#[test]
#[ignore = "is run by another test"]
fn writes_from_a_process() {
    let (Ok(folder), Ok(first)) = (std::env::var("FILES_FOLDER"), std::env::var("FILES_FIRST")) else {
        return;
    };
    let backend = backend(Path::new(&folder));
    let first: u64 = first.parse().unwrap();
    for id in first..first + 25 {
        backend.upsert("docs", &[id], &[id as f32], 1).unwrap();
    }
}

#[test]
fn processes_that_write_at_once_lose_nothing() {
    let folder = TempDir::new().unwrap();
    let writers: Vec<_> = [0, 1000, 2000]
        .map(|first| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "writes_from_a_process", "--ignored"])
                .env("FILES_FOLDER", folder.path())
                .env("FILES_FIRST", first.to_string())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .into();
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    assert_eq!(pulled(&backend(folder.path()), "docs").unwrap().ids.len(), 75);
}

#[test]
fn what_a_crash_leaves_is_ignored_and_goes_with_the_next_write() {
    let folder = TempDir::new().unwrap();
    let backend = backend(folder.path());
    backend.upsert("docs", &[1], &[1.0], 1).unwrap();
    let before = backend.generation("docs").unwrap();
    let whole = fs::read(folder.path().join("docs.rows")).unwrap();
    // Before the header, in the middle, and when only the renaming was left to do.
    for (number, left) in [vec![], vec![0; 64], whole[..70].to_vec(), whole.clone()].into_iter().enumerate() {
        fs::write(folder.path().join(format!(".limnion-{number:032x}.tmp")), left).unwrap();
    }
    assert_eq!(backend.collections().unwrap(), ["docs"]);
    assert_eq!(backend.generation("docs").unwrap(), before);
    assert_eq!(pulled(&backend, "docs").unwrap().vectors, [1.0]);
    // A file of somebody else stays.
    fs::write(folder.path().join(".other.tmp"), b"").unwrap();
    backend.upsert("docs", &[2], &[2.0], 1).unwrap();
    let mut left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [".limnion-lock", ".other.tmp", "docs.rows"]);
}

#[test]
fn a_damaged_file_is_not_written_to_and_can_be_dropped() {
    let folder = TempDir::new().unwrap();
    let backend = backend(folder.path());
    let path = folder.path().join("docs.rows");
    backend.upsert("docs", &[1], &[1.0], 1).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[64] ^= 1;
    fs::write(&path, &bytes).unwrap();
    for error in
        [backend.upsert("docs", &[2], &[2.0], 1).unwrap_err(), backend.delete("docs", &[1]).unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::Backend);
        assert!(error.message().contains("damaged"), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    assert!(backend.drop_collection("docs").unwrap());
}
