//! What is saved comes back, and what is broken is refused.
#![expect(clippy::expect_used, reason = "a test may stop at what it did not expect")]

use std::path::PathBuf;
use std::sync::Arc;

use limnion_index::{FlatIndex, Params, Precision, SearchOptions, Source, Verify};
use limnion_testkit::Random;
use limnion_types::{ErrorKind, Job, Metric};

fn index(bits: u8, originals: Option<Precision>, metric: Metric) -> FlatIndex {
    let vectors = Random::new(30).clustered(333, 40, 5);
    let ids: Vec<u64> = (0..333).map(|i| i * 3 + (1 << 40)).collect();
    let params = Params { bits, originals, seed: 7, ..Params::new(metric) };
    FlatIndex::build(&vectors, 40, Some(&ids), &params, &Job::new()).expect("good vectors")
}

fn all_kinds() -> Vec<FlatIndex> {
    let mut kinds = Vec::new();
    for metric in Metric::ALL {
        for (bits, originals) in [
            (0, Some(Precision::F32)),
            (1, None),
            (1, Some(Precision::F16)),
            (6, None),
            (3, Some(Precision::F32)),
        ] {
            kinds.push(index(bits, originals, metric));
        }
    }
    kinds
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("limnion-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Bytes at an address that is a multiple of 64, as those of a mapped file are.
struct Aligned(Vec<limnion_simd::Line>, usize);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &limnion_simd::bytes(&self.0)[..self.1]
    }
}

fn aligned(bytes: &[u8]) -> Source {
    let mut lines = vec![limnion_simd::Line::default(); bytes.len().div_ceil(64)];
    limnion_simd::bytes_mut(&mut lines)[..bytes.len()].copy_from_slice(bytes);
    Arc::new(Aligned(lines, bytes.len()))
}

#[test]
fn a_saved_index_comes_back_equal_and_finds_the_same() {
    let folder = folder("round-trip");
    let query = Random::new(31).clustered(1, 40, 5);
    for index in all_kinds() {
        let path = folder.join("index.limn");
        index.save(&path).expect("a writable folder");
        let loaded = FlatIndex::load(&path, &Job::new()).expect("what was saved");
        let mapped =
            FlatIndex::from_bytes(&aligned(&std::fs::read(&path).expect("a file")), Verify::OnFirstUse)
                .expect("what was saved");
        assert!(loaded == index && mapped == index);
        let options = SearchOptions::new(8);
        let hits = index.search(&query, &options).expect("a query");
        assert_eq!(loaded.search(&query, &options).expect("a query"), hits);
        assert_eq!(mapped.search(&query, &options).expect("a query"), hits);
        assert!(mapped.memory_bytes() < 4096, "{}", mapped.memory_bytes());
        assert_eq!(std::fs::read_dir(&folder).expect("a folder").count(), 1, "temporary files stay behind");
    }
    std::fs::remove_dir_all(folder).expect("a folder");
}

#[test]
fn a_mapped_index_can_be_changed_and_saved_over_itself() {
    let folder = folder("change-mapped");
    let path = folder.join("index.limn");
    let index = index(4, Some(Precision::F32), Metric::L2);
    index.save(&path).expect("a writable folder");
    let source = aligned(&std::fs::read(&path).expect("a file"));
    let mut mapped = FlatIndex::from_bytes(&source, Verify::OnFirstUse).expect("what was saved");
    mapped.remove(&[1 << 40]).expect("an id that is there");
    mapped.add(None, &[0.5; 40], &Job::new()).expect("a good vector");
    mapped.save(&path).expect("a writable folder");
    assert!(FlatIndex::load(&path, &Job::new()).expect("what was saved") == mapped);
    std::fs::remove_dir_all(folder).expect("a folder");
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    for index in all_kinds() {
        let bytes = index.to_bytes().expect("bytes");
        let mut random = Random::new(32);
        for _ in 0..300 {
            let mut damaged = bytes.clone();
            let at = random.below(bytes.len());
            damaged[at] ^= 1 << random.below(8);
            let source: Source = Arc::new(damaged);
            match FlatIndex::from_bytes(&source, Verify::Now) {
                // Zeros between sections carry nothing.
                Ok(opened) => assert!(opened == index, "byte {at}"),
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::CorruptFile | ErrorKind::NewerFile),
                    "byte {at}: {error}"
                ),
            }
            let cut: Source = Arc::new(bytes[..random.below(bytes.len())].to_vec());
            let error = FlatIndex::from_bytes(&cut, Verify::Now).expect_err("a cut file");
            assert_eq!(error.kind(), ErrorKind::CorruptFile);
        }
    }
}

#[test]
fn damage_in_a_mapped_file_is_noticed_at_first_use_and_never_breaks_anything() {
    for index in all_kinds() {
        let bytes = index.to_bytes().expect("bytes");
        let query = Random::new(33).clustered(1, 40, 5);
        let mut random = Random::new(34);
        for _ in 0..200 {
            let mut damaged = bytes.clone();
            let at = random.below(bytes.len());
            damaged[at] ^= 1 << random.below(8);
            let Ok(opened) = FlatIndex::from_bytes(&aligned(&damaged), Verify::OnFirstUse) else { continue };
            match opened.search(&query, &SearchOptions::new(5)) {
                Ok(hits) => {
                    assert_eq!(
                        hits,
                        index.search(&query, &SearchOptions::new(5)).expect("a query"),
                        "byte {at}"
                    );
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::CorruptFile, "byte {at}"),
            }
        }
    }
}

#[test]
fn a_newer_version_is_refused_with_a_sentence() {
    let mut bytes = index(1, None, Metric::L2).to_bytes().expect("bytes");
    bytes[8] = 9;
    let crc = crc32fast::hash(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    let source: Source = Arc::new(bytes);
    let error = FlatIndex::from_bytes(&source, Verify::Now).expect_err("a newer file");
    assert_eq!(error.kind(), ErrorKind::NewerFile);
    assert!(error.to_string().contains("upgrade limnion"), "{error}");
}

#[test]
fn missing_files_and_folders_are_told_apart_from_broken_ones() {
    let folder = folder("missing");
    let missing = FlatIndex::load(&folder.join("nothing.limn"), &Job::new()).expect_err("no file");
    assert_eq!(missing.kind(), ErrorKind::FileNotFound);
    let error = index(1, None, Metric::L2).save(&folder.join("no/folder/index.limn")).expect_err("no folder");
    assert_eq!(error.kind(), ErrorKind::FileNotFound);
    let is_folder = FlatIndex::load(&folder, &Job::new()).expect_err("a folder");
    assert_eq!(is_folder.kind(), ErrorKind::Io);
    std::fs::write(folder.join("text"), "not an index").expect("a file");
    let foreign = FlatIndex::load(&folder.join("text"), &Job::new()).expect_err("no index");
    assert_eq!(foreign.kind(), ErrorKind::CorruptFile);
    std::fs::remove_dir_all(folder).expect("a folder");
}

#[test]
fn rbpx_files_are_read() {
    let folder = folder("rbpx");
    let (dim, rows) = (24_u32, 50_u32);
    let vectors = Random::new(35).gaussians(rows as usize, dim as usize);
    let mut bytes = b"rbpx0001".to_vec();
    for number in [1, dim, 42, 0, 20, rows] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for (row, vector) in (0..rows).zip(vectors.chunks_exact(dim as usize)) {
        bytes.extend_from_slice(&(row * 7).to_le_bytes());
        vector.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
    }
    let path = folder.join("old.rbpx");
    std::fs::write(&path, &bytes).expect("a file");
    let index = FlatIndex::load(&path, &Job::new()).expect("a good file");
    assert_eq!((index.len(), index.dim(), index.params().seed), (50, 24, 42));
    assert_eq!((index.params().rerank_factor, index.metric()), (Some(20), Metric::L2));
    let hits = index.search(&vectors[3 * 24..4 * 24], &SearchOptions::new(1)).expect("a query");
    assert_eq!((hits[0].id, hits[0].distance), (21, 0.0));
    for cut in [0, 9, 31, 40, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..cut]).expect("a file");
        assert_eq!(FlatIndex::load(&path, &Job::new()).expect_err("cut").kind(), ErrorKind::CorruptFile);
    }
    // A header that promises a hundred million rows must not make anyone allocate them.
    bytes[28..32].copy_from_slice(&100_000_000_u32.to_le_bytes());
    std::fs::write(&path, &bytes[..32]).expect("a file");
    assert_eq!(FlatIndex::load(&path, &Job::new()).expect_err("hostile").kind(), ErrorKind::CorruptFile);
    std::fs::remove_dir_all(folder).expect("a folder");
}
