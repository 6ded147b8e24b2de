//! What collections in object stores promise, over real requests to a server that speaks S3, and over the stores of the
//! library where no request is needed.
#![cfg(all(feature = "aws", feature = "http"))]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may stop at what it did not expect")]

mod s3;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use limnion_lake::{
    Backend, Description, Generation, Ids, ObjectOptions, ObjectShelf, ObjectStoreBackend, Retry, Rows,
    Shelf, Sink, Timed,
};
use limnion_types::{ErrorKind, Job, Result};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use s3::{SECRET, Server, put};

fn numbered(ids: &[u64], vectors: &[f32]) -> Rows {
    Rows { ids: Ids::Numbers(ids.to_vec()), vectors: vectors.to_vec() }
}

const MILLI: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Taken {
    begun: Option<Description>,
    ids: Vec<u64>,
    vectors: Vec<f32>,
}

impl Sink for Taken {
    fn begin(&mut self, description: &Description) -> Result<()> {
        assert!(self.begun.replace(description.clone()).is_none(), "begun twice");
        Ok(())
    }

    fn push(&mut self, rows: Rows) -> Result<()> {
        assert!(self.begun.is_some(), "rows before the beginning");
        let Ids::Numbers(ids) = rows.ids else { panic!("names") };
        self.ids.extend(ids);
        self.vectors.extend(rows.vectors);
        Ok(())
    }
}

fn pull(backend: &dyn Backend, collection: &str) -> Result<Taken> {
    let mut taken = Taken::default();
    backend.pull(collection, &mut taken, &Job::new())?;
    Ok(taken)
}

fn vectors(rows: usize, dim: usize) -> Vec<f32> {
    (0..rows * dim).map(|number| (number % 1013) as f32).collect()
}

fn fvecs(vectors: &[f32], dim: usize) -> Vec<u8> {
    let row = |row: &[f32]| {
        let numbers = row.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
        [(dim as i32).to_le_bytes().to_vec(), numbers].concat()
    };
    vectors.chunks_exact(dim).flat_map(row).collect()
}

fn npy(header: &str, bytes: &[u8]) -> Vec<u8> {
    let header = format!("{header:<117}\n");
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), bytes].concat()
}

fn options(server: &Server) -> ObjectOptions {
    let silence = Some(Duration::from_secs(5));
    ObjectOptions { settings: server.settings(SECRET), silence, ..ObjectOptions::default() }
}

fn backend(server: &Server) -> ObjectStoreBackend {
    ObjectStoreBackend::new("cloud", "s3://bucket/vectors", &options(server)).unwrap()
}

#[test]
fn collections_are_the_objects_of_the_folder_whatever_else_lies_there() {
    let server = Server::new();
    for key in [
        "vectors/b.fvecs",
        "vectors/a.rows",
        "vectors/my%20docs%2F1.npy",
        "vectors/a.ids.npy",
        "vectors/c.parquet",
        "vectors/notes.txt",
        "vectors/bad name.npy",
        "vectors/below/d.npy",
        "other/e.npy",
        "f.npy",
    ] {
        server.shared.put("bucket", key, Vec::new());
    }
    assert_eq!(backend(&server).collections().unwrap(), ["a", "b", "c", "my docs/1"]);
    let root = ObjectStoreBackend::new("root", "s3://bucket", &options(&server)).unwrap();
    assert_eq!(root.collections().unwrap(), ["f"]);
}

#[test]
fn rows_come_as_they_lie_there_with_few_requests() {
    let server = Server::new();
    let rows = vectors(1000, 8);
    server.shared.put("bucket", "vectors/docs.fvecs", fvecs(&rows, 8));
    let backend = backend(&server);

    let description = backend.describe("docs").unwrap();
    assert_eq!((description.dim, description.rows), (8, 1000));
    let source = format!("s3://bucket/vectors/docs.fvecs?endpoint=http://{}", server.address);
    assert_eq!(description.source, source);
    let taken = pull(&backend, "docs").unwrap();
    assert_eq!(taken.begun, Some(description.clone()));
    assert_eq!((taken.ids, taken.vectors), ((0..1000).collect(), rows));

    // What is known is asked for by one request, of which the object is no part.
    server.shared.asked();
    assert_eq!(backend.generation("docs").unwrap(), description.generation);
    assert_eq!(backend.describe("docs").unwrap(), description);
    assert_eq!(server.shared.asked(), ["HEAD vectors/docs.fvecs", "HEAD vectors/docs.fvecs"]);
}

#[test]
fn a_change_is_another_generation_and_an_unknown_collection_is_told_with_those_that_there_are() {
    let server = Server::new();
    server.shared.put("bucket", "vectors/docs.fvecs", fvecs(&vectors(2, 4), 4));
    let backend = backend(&server);
    let before = backend.generation("docs").unwrap();
    server.shared.put("bucket", "vectors/docs.fvecs", fvecs(&vectors(3, 4), 4));
    assert_ne!(backend.generation("docs").unwrap(), before);
    assert_eq!(backend.describe("docs").unwrap().rows, 3);

    // It comes back in another format.
    server.shared.remove("bucket", "vectors/docs.fvecs");
    let error = backend.generation("docs").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownCollection);
    let numbers: Vec<u8> = vectors(5, 2).into_iter().flat_map(f32::to_le_bytes).collect();
    let array = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (5, 2), }", &numbers);
    server.shared.put("bucket", "vectors/docs.npy", array.clone());
    assert_eq!(backend.describe("docs").unwrap().rows, 5);
    let error = backend.describe("doc").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownCollection);
    assert!(error.to_string().contains("it has docs"), "{error}");

    let both = ObjectStoreBackend::new("cloud", "s3://bucket/vectors", &options(&server)).unwrap();
    server.shared.put("bucket", "vectors/docs.fvecs", Vec::new());
    let error = both.describe("docs").unwrap_err();
    assert!(error.message().contains("lies in \"docs.npy\" and \"docs.fvecs\""), "{error}");
}

#[test]
fn ids_beside_an_array_are_its_ids_and_a_change_of_them_is_another_generation() {
    let server = Server::new();
    let rows = vectors(3, 2);
    let numbers: Vec<u8> = rows.iter().flat_map(|number| number.to_le_bytes()).collect();
    let array = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }", &numbers);
    let ids = |ids: [u64; 3]| {
        let bytes: Vec<u8> = ids.into_iter().flat_map(u64::to_le_bytes).collect();
        npy("{'descr': '<u8', 'fortran_order': False, 'shape': (3,), }", &bytes)
    };
    server.shared.put("bucket", "vectors/docs.npy", array);
    let backend = backend(&server);
    assert_eq!(pull(&backend, "docs").unwrap().ids, [0, 1, 2]);
    let mut generations = vec![backend.generation("docs").unwrap()];
    for wanted in [[7, 8, u64::MAX], [1, 2, 3]] {
        server.shared.put("bucket", "vectors/docs.ids.npy", ids(wanted));
        generations.push(backend.generation("docs").unwrap());
        let taken = pull(&backend, "docs").unwrap();
        assert_eq!((taken.ids, &taken.vectors), (wanted.to_vec(), &rows));
    }
    generations.dedup();
    assert_eq!(generations.len(), 3);
    server.shared.put(
        "bucket",
        "vectors/docs.ids.npy",
        npy("{'descr': '<u8', 'fortran_order': False, 'shape': (1,), }", &[0; 8]),
    );
    let error = pull(&backend, "docs").map(|_| ()).unwrap_err();
    assert!(error.message().contains("has 1 ids, and \"docs.npy\" has 3 rows"), "{error}");
}

/// 40 MB, which are five parts.
fn big(server: &Server) -> (Vec<f32>, Vec<u8>) {
    let rows = vectors(100_000, 100);
    let bytes = fvecs(&rows, 100);
    server.shared.put("bucket", "vectors/big.fvecs", bytes.clone());
    (rows, bytes)
}

#[test]
fn a_big_object_comes_in_several_ranges_in_order_each_of_them_once() {
    let server = Server::new();
    let (rows, bytes) = big(&server);
    let backend = backend(&server);
    let taken = pull(&backend, "big").unwrap();
    assert!(taken.vectors == rows && taken.ids == (0..100_000).collect::<Vec<_>>());
    let asked: Vec<String> =
        server.shared.asked().into_iter().filter(|asked| asked.starts_with("GET")).collect();
    let whole = asked.iter().filter(|asked| asked.contains("Ok(8388608..16777216)")).count();
    assert_eq!(whole, 1, "{asked:?}");
    assert!(asked.len() <= 1 + 1 + bytes.len().div_ceil(8 << 20), "{asked:?}");
}

#[test]
fn a_change_in_the_middle_of_a_pull_is_an_error_and_never_a_mixture() {
    let server = Server::new();
    let (_, bytes) = big(&server);
    let backend = backend(&server);
    backend.describe("big").unwrap();
    server.shared.midway(move |shared| shared.put("bucket", "vectors/big.fvecs", bytes.clone()));
    let error = pull(&backend, "big").map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backend);
    assert!(error.message().contains("changed while it was read"), "{error}");
    assert_eq!(pull(&backend, "big").unwrap().ids.len(), 100_000);

    server.shared.midway(|shared| shared.remove("bucket", "vectors/big.fvecs"));
    let error = pull(&backend, "big").map(|_| ()).unwrap_err();
    assert!(error.message().contains("changed while it was read"), "{error}");
}

#[test]
fn what_breaks_off_goes_on_where_it_ended() {
    let server = Server::new();
    let (rows, bytes) = big(&server);
    let backend = backend(&server);
    backend.describe("big").unwrap();
    server.shared.cut.store(3, Ordering::SeqCst);
    server.shared.unavailable.store(2, Ordering::SeqCst);
    server.shared.asked();
    assert!(pull(&backend, "big").unwrap().vectors == rows);
    assert_eq!(server.shared.cut.load(Ordering::SeqCst), 0);
    let asked = server.shared.asked();
    let starts: Vec<u64> =
        asked.iter().filter_map(|asked| asked.split(['(', '.']).nth(2)?.parse().ok()).collect();
    assert!(starts.iter().any(|start| start % (8 << 20) != 0), "nothing was resumed: {asked:?}");
    assert!(starts.iter().all(|&start| start < bytes.len() as u64));
}

#[test]
fn a_missing_bucket_and_wrong_credentials_are_said_to_be_that() {
    let server = Server::new();
    server.shared.put("bucket", "vectors/docs.fvecs", fvecs(&vectors(2, 4), 4));
    let nowhere = ObjectStoreBackend::new("cloud", "s3://nowhere/vectors", &options(&server)).unwrap();
    for error in
        [nowhere.collections().map(|_| ()).unwrap_err(), nowhere.describe("docs").map(|_| ()).unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::Backend, "{error}");
        assert!(error.message().contains("\"cloud\"") && error.message().contains("NoSuchBucket"), "{error}");
    }

    let wrong = "not-the-secret-key";
    let settings = server.settings(wrong);
    let wrong_options = ObjectOptions { settings, ..ObjectOptions::default() };
    let denied = ObjectStoreBackend::new("cloud", "s3://bucket/vectors", &wrong_options).unwrap();
    for error in [
        denied.collections().map(|_| ()).unwrap_err(),
        denied.describe("docs").map(|_| ()).unwrap_err(),
        pull(&denied, "docs").map(|_| ()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Backend, "{error}");
        assert!(error.message().contains("access denied"), "{error}");
        assert!(error.suggestion().unwrap().contains("credentials"), "{error}");
        assert!(!error.to_string().contains(wrong), "{error}");
    }
}

#[test]
fn without_credentials_requests_go_unsigned_and_nobody_else_is_asked() {
    let server = Server::new();
    server.shared.put("bucket", "vectors/docs.fvecs", fvecs(&vectors(2, 4), 4));
    let settings = server.settings(SECRET).into_iter().filter(|(name, _)| !name.contains("access")).collect();
    let anonymous = ObjectOptions { settings, ..ObjectOptions::default() };
    let backend = ObjectStoreBackend::new("cloud", "s3://bucket/vectors", &anonymous).unwrap();
    let since = Instant::now();
    let error = backend.collections().unwrap_err();
    assert!(error.message().contains("access denied"), "{error}");
    // A metadata service, of which there is none, would be waited for.
    assert!(since.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_server_that_goes_away_is_an_error_and_one_that_comes_back_is_waited_for() {
    let mut server = Server::new();
    server.shared.put("bucket", "vectors/docs.fvecs", fvecs(&vectors(2, 4), 4));
    let once = ObjectOptions { attempts: Some(1), ..options(&server) };
    let backend = ObjectStoreBackend::new("cloud", "s3://bucket/vectors", &once).unwrap();
    backend.describe("docs").unwrap();
    server.stop();
    let error = backend.describe("docs").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backend);

    let retry = Retry::new(Arc::new(backend), 20).pauses(MILLI * 50, MILLI * 200);
    thread::scope(|scope| {
        let asked = scope.spawn(|| retry.describe("docs"));
        thread::sleep(MILLI * 150);
        server.start();
        assert_eq!(asked.join().unwrap().unwrap().rows, 2);
    });
    assert_eq!(pull(&retry, "docs").unwrap().ids, [0, 1]);
}

#[test]
fn a_server_that_hangs_is_given_up_and_asked_again() {
    let server = Server::new();
    server.shared.put("bucket", "vectors/docs.fvecs", fvecs(&vectors(2, 4), 4));
    let short = ObjectOptions { silence: Some(MILLI * 150), attempts: Some(2), ..options(&server) };
    let backend = Arc::new(ObjectStoreBackend::new("cloud", "s3://bucket/vectors", &short).unwrap());
    backend.describe("docs").unwrap();

    server.shared.hang.store(1, Ordering::SeqCst);
    assert_eq!(pull(&*backend, "docs").unwrap().ids, [0, 1]);

    server.shared.hang.store(usize::MAX, Ordering::SeqCst);
    let error = backend.describe("docs").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backend);
    assert!(error.message().contains("no answer for 150ms"), "{error}");
    let timed = Timed::new(backend.clone(), MILLI * 50);
    assert_eq!(timed.describe("docs").unwrap_err().kind(), ErrorKind::DeadlineExceeded);

    let (job, since) = (Job::new(), Instant::now());
    thread::scope(|scope| {
        let patient = ObjectStoreBackend::new("cloud", "s3://bucket/vectors", &options(&server)).unwrap();
        let job = &job;
        let pull = scope.spawn(move || patient.pull("docs", &mut Taken::default(), job));
        thread::sleep(MILLI * 100);
        job.cancel();
        assert_eq!(pull.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    });
    assert!(since.elapsed() < Duration::from_secs(2));
}

#[test]
fn collections_of_odd_names_are_written_read_listed_and_deleted_everywhere() {
    let server = Server::new();
    server.shared.put("bucket", "vectors/.keep", Vec::new());
    let folder = tempfile::tempdir().unwrap();
    let local: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let plain = ObjectOptions::default();
    let file_url = format!("file://{}", folder.path().join("by-url").display());
    let backends = [
        backend(&server),
        ObjectStoreBackend::over("memory", Arc::new(InMemory::new()), "a/b", "memory://1/a/b", &plain)
            .unwrap(),
        ObjectStoreBackend::over("local", local, "", "file:///somewhere", &plain).unwrap(),
        ObjectStoreBackend::new("file", &file_url, &plain).unwrap(),
    ];
    let names = ["docs", "a/b", "..", ".hidden", "ünï çödé", "100%", "%2F", "a b+c&d=e?f#g", "-", "x.npy"];
    let long = "é".repeat(127);
    for backend in &backends {
        for (at, name) in names.into_iter().chain([long.as_str()]).enumerate() {
            if name == long && backend.name() != "memory" {
                // Names of files are not that long, and neither are keys.
                continue;
            }
            let id = at as u64;
            backend.put_rows(name, numbered(&[id, u64::MAX], &[1.0, id as f32, 2.0, 3.0]), 2).unwrap();
            let taken = pull(backend, name).unwrap();
            assert_eq!((taken.ids, taken.vectors), (vec![id, u64::MAX], vec![1.0, id as f32, 2.0, 3.0]));
        }
        let mut wanted: Vec<&str> = names.to_vec();
        wanted.extend((backend.name() == "memory").then_some(long.as_str()));
        wanted.sort_unstable();
        assert_eq!(backend.collections().unwrap(), wanted, "{}", backend.name());
        for name in &wanted {
            assert!(backend.delete(name).unwrap() && !backend.delete(name).unwrap());
        }
        assert!(backend.collections().unwrap().is_empty(), "{}", backend.name());
        for bad in ["", "a\nb", &"x".repeat(256)] {
            assert_eq!(backend.describe(bad).unwrap_err().kind(), ErrorKind::UnknownCollection);
            let error = backend.put_rows(bad, numbered(&[1], &[1.0]), 1).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
    }
    // Nothing of it has left the folder.
    assert!(!folder.path().join("..rows").exists());
    assert_eq!(server.shared.keys("bucket"), ["vectors/.keep"]);
}

#[test]
fn writing_replaces_a_collection_as_a_whole_also_a_big_one() {
    let server = Server::new();
    server.shared.put("bucket", "vectors/other.fvecs", fvecs(&vectors(2, 4), 4));
    let backend = backend(&server);
    let rows = vectors(50_000, 100);
    let ids: Vec<u64> = (0..50_000).map(|id| id * 3).collect();
    server.shared.fail_parts.store(2, Ordering::SeqCst);
    backend.put_rows("docs", numbered(&ids, &rows), 100).unwrap();
    assert_eq!(server.shared.fail_parts.load(Ordering::SeqCst), 0);
    assert!(server.shared.asked().iter().any(|asked| asked == "PART 3"));
    let taken = pull(&backend, "docs").unwrap();
    assert!(taken.ids == ids && taken.vectors == rows);
    let before = backend.generation("docs").unwrap();
    server.shared.unavailable.store(2, Ordering::SeqCst);
    backend.put_rows("docs", numbered(&[1], &[0.5]), 1).unwrap();
    assert_ne!(backend.generation("docs").unwrap(), before);
    assert_eq!(pull(&backend, "docs").unwrap().vectors, [0.5]);

    for (ids, numbers, dim, kind) in [
        (&[1_u64, 1][..], &[1.0_f32, 2.0][..], 1, ErrorKind::DuplicateId),
        (&[1], &[f32::NAN], 1, ErrorKind::InvalidArgument),
        (&[1, 2], &[1.0], 1, ErrorKind::InvalidArgument),
        (&[], &[], 0, ErrorKind::InvalidArgument),
    ] {
        assert_eq!(backend.put_rows("docs", numbered(ids, numbers), dim).unwrap_err().kind(), kind);
    }
    let error = backend.put_rows("other", numbered(&[1], &[0.5]), 1).unwrap_err();
    assert!(error.message().contains("lies in \"other.fvecs\""), "{error}");
}

#[test]
fn hostile_bytes_are_an_error_that_names_the_object() {
    let server = Server::new();
    let backend = backend(&server);
    for (at, bytes) in
        [vec![], vec![1, 2, 3], vec![255; 64], b"PAR1....PAR1".to_vec()].into_iter().enumerate()
    {
        for ending in ["npy", "fvecs", "parquet", "rows", "ruvec"] {
            let name = format!("x{at}-{ending}");
            server.shared.put("bucket", &format!("vectors/{name}.{ending}"), bytes.clone());
            if let Err(error) = pull(&backend, &name) {
                assert_eq!(error.kind(), ErrorKind::Backend, "{error}");
                assert!(error.message().contains(&name) && error.message().contains("\"cloud\""), "{error}");
            } else {
                assert!(bytes.is_empty(), "{name} was read");
            }
        }
    }
}

#[test]
fn stores_without_etags_are_told_apart_by_time_and_size() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    put(&*store, "a/docs.fvecs", fvecs(&vectors(2, 4), 4));
    let plain = ObjectOptions::default();
    let backend = ObjectStoreBackend::over("memory", store.clone(), "/a/", "memory://1/a/", &plain).unwrap();
    let before = backend.describe("docs").unwrap();
    assert_eq!(before.source, "memory://1/a/docs.fvecs");
    assert!(matches!(before.generation, Generation::Name(_)));
    put(&*store, "a/docs.fvecs", fvecs(&vectors(2, 4), 4));
    assert_ne!(backend.generation("docs").unwrap(), before.generation);
}

#[test]
fn one_file_on_a_web_server_is_a_collection_without_any_list() {
    // The bucket is read as a web server would be; it asks for a signature, so that only the way to the answer is seen.
    let server = Server::new();
    let address = format!("http://{}/bucket/vectors/docs.fvecs", server.address);
    let backend = ObjectStoreBackend::new("web", &address, &ObjectOptions::default()).unwrap();
    let error = backend.describe("docs").unwrap_err();
    assert!(error.message().contains("access denied"), "{error}");
    assert_eq!(backend.describe("other").unwrap_err().kind(), ErrorKind::Backend);

    let folder = ObjectStoreBackend::new(
        "web",
        &format!("http://{}/bucket/", server.address),
        &ObjectOptions::default(),
    );
    let error = folder.unwrap().collections().unwrap_err();
    assert!(error.message().contains("does not tell what there is"), "{error}");
}

#[test]
fn a_shelf_in_a_bucket_keeps_pieces_by_name() {
    let server = Server::new();
    server.shared.put("bucket", "shelf/below/x", Vec::new());
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for shelf in [
        ObjectShelf::new("s3://bucket/shelf", &options(&server)).unwrap(),
        ObjectShelf::over(memory, "shelf", "memory://1/shelf", &ObjectOptions::default()).unwrap(),
    ] {
        assert_eq!(shelf.get("a", 9).unwrap(), None);
        shelf.put("b%2F.json", b"second").unwrap();
        shelf.put("a", b"first").unwrap();
        shelf.put("a", b"third").unwrap();
        assert_eq!(shelf.get("a", 9).unwrap().unwrap(), b"third");
        assert_eq!(shelf.get("a", 2).unwrap().unwrap(), b"th");
        assert_eq!(shelf.list().unwrap(), ["a", "b%2F.json"]);
        shelf.remove("a").unwrap();
        shelf.remove("a").unwrap();
        assert_eq!(shelf.list().unwrap(), ["b%2F.json"]);
        for bad in ["", "..", "a/b", ".a", "a\\b", "a\0"] {
            assert_eq!(shelf.put(bad, b"x").unwrap_err().kind(), ErrorKind::Lake);
            assert_eq!(shelf.get(bad, 1).unwrap_err().kind(), ErrorKind::Lake);
        }
    }
}
