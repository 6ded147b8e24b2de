//! What a published index promises.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use limnion_index::{Params, Precision};
use limnion_lake::{
    Backend, Consistency, Description, Folder, Global, Lake, LakeBundle, LakeHit, LocalBackend, Notes,
    RefreshResult, Search, Settings, Shelf, Sink, StoreBackend, Target,
};
use limnion_store::{Batch, Body, Op, Options, Store, Vector};
use limnion_testkit::Random;
use limnion_types::{Error, ErrorKind, Job, Metric, Result};

const DIM: usize = 12;

fn lake(bits: u8, originals: Option<Precision>) -> (Lake, Arc<LocalBackend>, Target) {
    let backend = Arc::new(LocalBackend::new("hot"));
    let ids: Vec<u64> = (0..200).map(|row| 1000 + row * 13).collect();
    backend.upsert("docs", &ids, &Random::new(1).gaussians(200, DIM), DIM).unwrap();
    (over(backend.clone(), bits, originals), backend, Target::new("hot", "docs"))
}

fn over(backend: Arc<LocalBackend>, bits: u8, originals: Option<Precision>) -> Lake {
    with(backend, bits, originals)
}

fn with(backend: Arc<dyn Backend>, bits: u8, originals: Option<Precision>) -> Lake {
    let params = Params { bits, originals, ..Params::new(Metric::L2) };
    let lake = Lake::new(Settings { params, ..Settings::default() }, Arc::new(Global)).unwrap();
    lake.register(backend).unwrap();
    lake
}

fn find(lake: &Lake, target: &Target) -> Vec<LakeHit> {
    lake.search(target, &[0.3; DIM], &Search::new(10), &Job::new()).unwrap()
}

#[test]
fn a_published_index_is_taken_as_it_is_and_shared_until_the_data_moves_on() {
    for (bits, originals) in
        [(1, Some(Precision::F32)), (0, Some(Precision::F32)), (4, None), (2, Some(Precision::F16))]
    {
        let place = tempfile::tempdir().unwrap();
        let shelf = Folder::new(place.path());
        let (writer, backend, target) = lake(bits, originals);
        assert_eq!(writer.refresh_from(&target, &shelf).unwrap(), RefreshResult::BundleMissing);
        let wanted = find(&writer, &target);
        let notes = Notes { lineage_id: Some("run 7".to_owned()), ..Notes::default() };
        let bundle = writer.publish(&target, &shelf, notes, None, &Job::new()).unwrap();
        assert_eq!(LakeBundle::read(&shelf).unwrap(), Some(bundle.clone()));
        assert_eq!(writer.refresh_from(&target, &shelf).unwrap(), RefreshResult::UpToDate);
        let reader = over(backend.clone(), bits, originals);
        reader.take(&target, &shelf, true).unwrap();
        assert_eq!(find(&reader, &target), wanted);
        assert_eq!(reader.stats().collections[0].primes, 0, "the build was shared");
        // The same rows by another way have the same witness.
        backend.upsert("docs", &[5], &[0.0; DIM], DIM).unwrap();
        find(&writer, &target);
        assert_eq!(reader.refresh_from(&target, &shelf).unwrap(), RefreshResult::UpToDate);
        let next = writer.publish(&target, &shelf, Notes::default(), None, &Job::new()).unwrap();
        assert_ne!(next.witness, bundle.witness);
        assert_eq!(reader.refresh_from(&target, &shelf).unwrap(), RefreshResult::Invalidated);
        assert!(!reader.is_cached(&target));
        assert_eq!(
            reader.refresh_from(&Target::new("local", "docs"), &shelf).unwrap(),
            RefreshResult::UpToDate
        );
        let other = LocalBackend::new("hot");
        other.upsert("docs", &[1], &[1.0; DIM], DIM).unwrap();
        let stranger = over(Arc::new(other), bits, originals);
        find(&stranger, &target);
        let error = stranger.refresh_from(&target, &shelf).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WitnessMismatch);
    }
}

#[test]
fn whatever_is_changed_in_a_bundle_is_noticed() {
    let place = tempfile::tempdir().unwrap();
    let shelf = Folder::new(place.path());
    let (lake, _, target) = lake(1, Some(Precision::F32));
    let wanted = find(&lake, &target);
    lake.publish(&target, &shelf, Notes::default(), None, &Job::new()).unwrap();
    for name in shelf.list().unwrap() {
        let path = place.path().join(&name);
        let whole = std::fs::read(&path).unwrap();
        let step = (whole.len() / 300).max(1);
        for at in (0..whole.len()).step_by(step) {
            for damaged in [[&whole[..at], &[whole[at] ^ 1], &whole[at + 1..]].concat(), whole[..at].to_vec()]
            {
                std::fs::write(&path, &damaged).unwrap();
                match lake.take(&target, &shelf, true) {
                    // What is not covered, such as white space, changes nothing.
                    Ok(_) => assert_eq!(find(&lake, &target), wanted, "{name} byte {at}"),
                    Err(error) => {
                        let kinds = [ErrorKind::WitnessMismatch, ErrorKind::Lake];
                        assert!(kinds.contains(&error.kind()), "{name} byte {at}: {error:?}");
                    }
                }
            }
        }
        std::fs::write(&path, &whole).unwrap();
    }
    for hostile in [
        r#"{"format_version": 99}"#.to_owned(),
        "[".repeat(10_000),
        "{}".to_owned(),
        format!(r#"{{"format_version": 3, "data_ref": "{}"}}"#, "x".repeat(70_000)),
        String::new(),
    ] {
        std::fs::write(place.path().join("bundle.json"), hostile).unwrap();
        assert!(LakeBundle::read(&shelf).is_err());
    }
}

#[test]
fn manifests_of_rulake_are_read() {
    let place = tempfile::tempdir().unwrap();
    let manifest = r#"{"format_version": 2, "data_ref": "gs://bucket/x.parquet", "dim": 128, "rotation_seed": 42,
        "rerank_factor": 20, "generation": 7, "pii_policy": null, "lineage_id": null,
        "rvf_witness": "7eac1775d1f76a4db88672655fc64977287ec60eda47c6df3a19bacfd0c038cd"}"#;
    std::fs::write(place.path().join("table.rulake.json"), manifest).unwrap();
    let bundle = LakeBundle::read(&Folder::new(place.path())).unwrap().unwrap();
    assert_eq!(
        (bundle.dim, bundle.rerank_factor, bundle.data_ref.as_str()),
        (128, 20, "gs://bucket/x.parquet")
    );
    std::fs::write(place.path().join("table.rulake.json"), manifest.replace("128", "129")).unwrap();
    let error = LakeBundle::read(&Folder::new(place.path())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WitnessMismatch);
}

/// A shelf on which everything fails after so many steps.
struct Failing {
    pieces: Mutex<BTreeMap<String, Vec<u8>>>,
    left: AtomicI64,
}

impl Failing {
    fn step(&self) -> Result<()> {
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Lake, "the power is gone"))
    }
}

impl Shelf for Failing {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.step()?;
        self.pieces.lock().unwrap().insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }
    fn get(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        self.step()?;
        let pieces = self.pieces.lock().unwrap();
        Ok(pieces.get(name).map(|bytes| bytes[..bytes.len().min(limit as usize)].to_vec()))
    }
    fn list(&self) -> Result<Vec<String>> {
        self.step()?;
        Ok(self.pieces.lock().unwrap().keys().cloned().collect())
    }
    fn remove(&self, name: &str) -> Result<()> {
        self.step()?;
        self.pieces.lock().unwrap().remove(name);
        Ok(())
    }
    fn place(&self) -> String {
        "nowhere".to_owned()
    }
}

#[test]
fn a_publisher_that_dies_at_any_step_leaves_the_bundle_before_or_the_next_one() {
    let (lake, backend, target) = lake(1, Some(Precision::F32));
    for steps in 0..12 {
        let shelf = Failing { pieces: Mutex::default(), left: AtomicI64::new(i64::MAX) };
        let mut whole = Vec::new();
        for round in 0..3 {
            backend.upsert("docs", &[7], &[round as f32 + steps as f32; DIM], DIM).unwrap();
            if round == 2 {
                shelf.left.store(steps, Ordering::SeqCst);
            }
            let published = lake.publish(&target, &shelf, Notes::default(), None, &Job::new());
            shelf.left.store(i64::MAX, Ordering::SeqCst);
            whole.extend(published.ok().map(|bundle| bundle.witness));
            let reader = over(backend.clone(), 1, Some(Precision::F32));
            let taken = reader.take(&target, &shelf, true).unwrap();
            let last = whole.last().unwrap();
            assert!(taken.witness == *last || whole.len() < round + 1, "after {steps} steps");
            assert_eq!(find(&reader, &target).len(), 10);
        }
    }
}

/// A lake over rows with names, some of which have come and gone.
fn named() -> (Lake, Arc<StoreBackend>, Target) {
    let store = Store::open(Options::memory()).unwrap();
    let put = |key: String, numbers: &[f32]| Op::Put {
        namespace: "docs".into(),
        key: key.into(),
        body: Body {
            vectors: vec![Vector { name: "".into(), numbers: numbers.into() }],
            ..Body::json(*b"{}")
        },
    };
    let numbers = Random::new(2).gaussians(150, DIM);
    let rows = numbers.chunks(DIM).enumerate().map(|(row, numbers)| put(format!("row {row}"), numbers));
    store.write(Batch { ops: rows.collect(), ..Batch::default() }).unwrap();
    let backend = Arc::new(StoreBackend::new("hot", store.clone()));
    let lake = with(backend.clone(), 1, Some(Precision::F32));
    let target = Target::new("hot", "docs");
    find(&lake, &target);
    let ops = (0..150)
        .step_by(3)
        .map(|row| Op::Delete { namespace: "docs".into(), key: format!("row {row}").into() })
        .chain([put("é".to_owned(), &[0.3; DIM])]);
    store.write(Batch { ops: ops.collect(), ..Batch::default() }).unwrap();
    (lake, backend, target)
}

#[test]
fn names_come_back_from_a_shelf() {
    let place = tempfile::tempdir().unwrap();
    let shelf = Folder::new(place.path());
    let (lake, backend, target) = named();
    let wanted = find(&lake, &target);
    assert_eq!(wanted[0].id.to_string(), "é");
    let bundle = lake.publish(&target, &shelf, Notes::default(), None, &Job::new()).unwrap();
    assert_eq!((bundle.has_names, bundle.rows), (true, 101));
    for verify in [true, false] {
        let reader = with(backend.clone(), 1, Some(Precision::F32));
        reader.take(&target, &shelf, verify).unwrap();
        assert_eq!(find(&reader, &target), wanted);
        assert_eq!(reader.stats().collections[0].primes, 0);
    }
    bundle.verify_on(&shelf).unwrap();
    // A name that is changed is noticed, whether all is looked at or not.
    let names = shelf.list().unwrap().into_iter().find(|name| name.starts_with("names-")).unwrap();
    let whole = std::fs::read(place.path().join(&names)).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(place.path().join(&names), &damaged).unwrap();
        let error = lake.take(&target, &shelf, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WitnessMismatch);
        assert_eq!(bundle.verify_on(&shelf).unwrap_err().kind(), ErrorKind::WitnessMismatch);
    }
}

#[test]
fn a_bundle_is_only_taken_for_the_data_and_the_settings_that_it_is_of() {
    let place = tempfile::tempdir().unwrap();
    let shelf = Folder::new(place.path());
    let (writer, backend, target) = lake(1, Some(Precision::F32));
    assert_eq!(writer.take(&target, &shelf, true).unwrap_err().kind(), ErrorKind::CacheMiss);
    let bundle = writer.publish(&target, &shelf, Notes::default(), None, &Job::new()).unwrap();
    let other = LocalBackend::new("hot");
    other.upsert("docs", &[1], &[1.0; DIM], DIM).unwrap();
    let stranger = over(Arc::new(other), 1, Some(Precision::F32));
    // Its generation has the same number, which says nothing.
    assert_eq!(stranger.take(&target, &shelf, true).unwrap_err().kind(), ErrorKind::WitnessMismatch);
    assert_eq!(find(&stranger, &target).len(), 1);
    let finer = over(backend.clone(), 2, Some(Precision::F32));
    let error = finer.take(&target, &shelf, true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("bits=1") && error.message().contains("bits=2"), "{error:?}");
    backend.upsert("docs", &[5], &[0.0; DIM], DIM).unwrap();
    let next = writer.publish(&target, &shelf, Notes::default(), None, &Job::new()).unwrap();
    assert_eq!(bundle.verify_on(&shelf).unwrap_err().kind(), ErrorKind::WitnessMismatch);
    next.verify_on(&shelf).unwrap();
}

#[test]
fn a_lake_that_was_saved_is_warm_again_with_the_ids_it_had() {
    let place = tempfile::tempdir().unwrap();
    let shelf = Folder::new(place.path().join("cache"));
    let (first, backend, target) = lake(1, Some(Precision::F32));
    backend.upsert("other / docs", &[3], &[1.0; DIM], DIM).unwrap();
    let wanted = find(&first, &target);
    let other = Target::new("hot", "other / docs");
    find(&first, &other);
    assert_eq!(first.save_to(&shelf, &Job::new()).unwrap(), [target.clone(), other.clone()]);
    let second = over(backend.clone(), 1, Some(Precision::F32));
    let warmed = second.warm_from(&shelf, &Job::new()).unwrap();
    assert_eq!(warmed.loaded, [target.clone(), other.clone()]);
    assert!(warmed.skipped.is_empty());
    assert_eq!(find(&second, &target), wanted);
    assert_eq!(find(&second, &other).len(), 1);
    assert!(second.stats().collections.iter().all(|collection| collection.primes == 0));
    backend.delete("docs", &[1000]).unwrap();
    assert!(
        find(&second, &target).iter().all(|hit| hit.id.to_string() != "1000"),
        "a warm lake is as fresh as any"
    );
    let damaged = std::fs::read_dir(place.path().join("cache")).unwrap().map(|entry| entry.unwrap().path());
    damaged.for_each(|path: std::path::PathBuf| spoil(&path));
    let third = over(backend, 1, Some(Precision::F32));
    let warmed = third.warm_from(&shelf, &Job::new()).unwrap();
    assert!(warmed.loaded.is_empty());
    assert_eq!(warmed.skipped.len(), 2);
    assert_eq!(find(&third, &other).len(), 1);
}

#[test]
fn whatever_is_changed_in_a_saved_cache_costs_time_and_no_answer() {
    let place = tempfile::tempdir().unwrap();
    let shelf = Folder::new(place.path());
    let (first, backend, target) = lake(1, Some(Precision::F32));
    let wanted = find(&first, &target);
    first.save_to(&shelf, &Job::new()).unwrap();
    let (mut warm, mut built) = (0, 0);
    for name in shelf.list().unwrap() {
        let path = place.path().join(&name);
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by((whole.len() / 200).max(1)) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(&path, &damaged).unwrap();
            let lake = over(backend.clone(), 1, Some(Precision::F32));
            let warmed = lake.warm_from(&shelf, &Job::new()).unwrap();
            assert_eq!(find(&lake, &target), wanted, "{name} byte {at}: {warmed:?}");
            let primes = lake.stats().collections[0].primes;
            assert!(warmed.skipped.is_empty() || primes == 1);
            (warm, built) = (warm + 1 - primes, built + primes);
        }
        std::fs::write(&path, &whole).unwrap();
    }
    assert!(built > 100 && warm > 0, "{built} were built, and {warm} were warm");
}

#[test]
fn a_cache_of_other_data_or_other_settings_is_never_answered_from() {
    let place = tempfile::tempdir().unwrap();
    let shelf = Folder::new(place.path());
    let (first, backend, target) = lake(1, Some(Precision::F32));
    find(&first, &target);
    first.save_to(&shelf, &Job::new()).unwrap();
    for consistency in
        [Consistency::Fresh, Consistency::Frozen, Consistency::Eventual(Duration::from_secs(9))]
    {
        // Another backend of the name, in a generation of the same number.
        let other = LocalBackend::new("hot");
        other.upsert("docs", &[1], &[1.0; DIM], DIM).unwrap();
        let stranger = over(Arc::new(other), 1, Some(Precision::F32));
        stranger.warm_from(&shelf, &Job::new()).unwrap();
        stranger.set_consistency(&target, Some(consistency)).unwrap();
        assert_eq!(find(&stranger, &target).len(), 1);
        let finer = over(backend.clone(), 3, Some(Precision::F32));
        finer.warm_from(&shelf, &Job::new()).unwrap();
        finer.set_consistency(&target, Some(consistency)).unwrap();
        find(&finer, &target);
        assert_eq!(finer.stats().collections[0].primes, 1);
    }
    // One that is in memory already is not put back to what it was.
    backend.upsert("docs", &[5], &[0.3; DIM], DIM).unwrap();
    first.set_consistency(&target, Some(Consistency::Fresh)).unwrap();
    assert_eq!(find(&first, &target)[0].id.to_string(), "5");
    first.warm_from(&shelf, &Job::new()).unwrap();
    first.set_consistency(&target, Some(Consistency::Frozen)).unwrap();
    assert_eq!(find(&first, &target)[0].id.to_string(), "5");
}

/// A backend that is slow to say what it has found out when it was asked.
struct Slow {
    inner: Arc<LocalBackend>,
    asked: Barrier,
    told: Barrier,
    is_slow: AtomicBool,
}

impl Backend for Slow {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn collections(&self) -> Result<Vec<String>> {
        self.inner.collections()
    }
    fn describe(&self, collection: &str) -> Result<Description> {
        let described = self.inner.describe(collection);
        if self.is_slow.swap(false, Ordering::SeqCst) {
            self.asked.wait();
            self.told.wait();
        }
        described
    }
    fn pull(&self, collection: &str, sink: &mut dyn Sink, job: &Job) -> Result<()> {
        self.inner.pull(collection, sink, job)
    }
}

#[test]
fn who_comes_while_a_saved_index_is_looked_at_finds_what_was_written_before() {
    let place = tempfile::tempdir().unwrap();
    let shelf = Folder::new(place.path());
    let (first, backend, target) = lake(1, Some(Precision::F32));
    find(&first, &target);
    first.save_to(&shelf, &Job::new()).unwrap();
    let slow = Arc::new(Slow {
        inner: backend.clone(),
        asked: Barrier::new(2),
        told: Barrier::new(2),
        is_slow: AtomicBool::new(true),
    });
    let lake = with(slow.clone(), 1, Some(Precision::F32));
    lake.warm_from(&shelf, &Job::new()).unwrap();
    std::thread::scope(|scope| {
        let early = scope.spawn(|| find(&lake, &target));
        slow.asked.wait();
        backend.upsert("docs", &[5], &[0.3; DIM], DIM).unwrap();
        let late = scope.spawn(|| find(&lake, &target));
        std::thread::sleep(Duration::from_millis(50));
        slow.told.wait();
        assert_eq!(late.join().unwrap()[0].id.to_string(), "5");
        assert_eq!(early.join().unwrap().len(), 10);
    });
}

fn spoil(path: &Path) {
    let whole = std::fs::read(path).unwrap();
    std::fs::write(path, &whole[..whole.len() / 2]).unwrap();
}

#[cfg(unix)]
#[test]
fn nothing_is_read_or_written_through_a_link() {
    let place = tempfile::tempdir().unwrap();
    let secret = place.path().join("secret");
    std::fs::write(&secret, "{}").unwrap();
    let folder = place.path().join("shelf");
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(&secret, folder.join("bundle.json")).unwrap();
    let shelf = Folder::new(&folder);
    assert_eq!(LakeBundle::read(&shelf).unwrap_err().kind(), ErrorKind::Lake);
    for odd in ["", "..", ".hidden", "a/b", "a\0b", "é"] {
        assert_eq!(shelf.put(odd, b"x").unwrap_err().kind(), ErrorKind::Lake, "{odd:?}");
    }
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "{}");
}
