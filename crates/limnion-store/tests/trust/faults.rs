//! A disk that fails or is full: errors that say so, reads that go on, nothing lost that was acknowledged.
//!
//! A child works in a folder while one call of the system, or every one from there on, fails. What it was told is compared
//! with what is there afterwards. `make campaign-faults` tries every call; everyday runs a sample.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use limnion_store::{At, Batch, Body, KeyRange, Op, Options, Store};
use limnion_types::{ErrorKind, Job};

use crate::workload::{self, Ledger, Manner, child, quick_folder, shim, size, with_fault};

/// What a child does when it is told to work: see [`faulty_child`].
const OPS: u64 = 40;

/// Runs the child with a fault; gives what it said, and whether it ended well.
fn run(shim: &Path, root: &Path, path: &Path, action: &str, at: u64, log: &Path) -> Vec<String> {
    let mut command = child("faults::faulty_child");
    with_fault(&mut command, shim, root, action, at, log);
    let output = command.env("LIMNION_CHILD", path).stderr(Stdio::piped()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{action} {at}: {:?} {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// What the child said of itself, beside what the ledger hears.
fn facts<'a>(lines: &'a [String], what: &str) -> Vec<&'a str> {
    lines.iter().filter_map(|line| line.split_once(what).map(|(_, fact)| fact)).collect()
}

fn campaign(action: &str, everyday: u64) {
    let tools = quick_folder();
    let Some(shim) = shim(tools.path()) else { return };
    let log = tools.path().join("log");
    let try_at = |at: u64| {
        let place = quick_folder();
        let root = place.path().join("all");
        let path = root.join("store");
        std::fs::write(&log, "full").unwrap();
        let lines = run(&shim, &root, &path, action, at, &log);
        let mut ledger = Ledger::default();
        lines.iter().for_each(|line| ledger.hear(line));
        let errors = std::mem::take(&mut ledger.failed);
        let name = root.file_name().unwrap().to_str().unwrap();
        for error in errors.iter().map(String::as_str).chain(facts(&lines, "!error ")) {
            let kind = if action.starts_with("full") { "DiskFull" } else { "StoreIo" };
            assert!(error.contains(kind), "{action} {at}: {error}");
            assert!(error.contains(name) || error.contains("store"), "it names the path: {error}");
        }
        assert_eq!(facts(&lines, "!wrong "), [""; 0], "{action} {at}");
        // Whatever happened, it opens again and has all that was acknowledged.
        let store = Store::open(Manner::Plain.options(&path))
            .unwrap_or_else(|error| panic!("{action} {at}: {error}"));
        ledger.compare(&store, false, false);
        assert!(workload::perform_quietly(&store, workload::id(9, 0, 0), &mut ledger));
        ledger.compare(&store, false, false);
        (errors.len() + facts(&lines, "!error ").len(), facts(&lines, "!resumed").len())
    };
    let place = quick_folder();
    let root = place.path().join("all");
    run(
        &shim,
        &root,
        &root.join("store"),
        if action.ends_with("sync") { "countsync" } else { "count" },
        0,
        &log,
    );
    let calls: u64 = std::fs::read_to_string(&log).unwrap().parse().unwrap();
    let stride = if size("LIMNION_CAMPAIGN", 0) > 0 { 1 } else { (calls / everyday).max(1) };
    let (mut tried, mut told, mut resumed) = (0, 0, 0);
    for at in (1..=calls).step_by(stride as usize) {
        let (errors, resumptions) = try_at(at);
        tried += 1;
        told += u64::from(errors > 0);
        resumed += u64::from(resumptions > 0);
    }
    println!(
        "{action}: {calls} calls, {tried} failed in turn: {told} were told of, {resumed} went on without reopening, \
         nothing acknowledged was lost"
    );
    assert!(told > 0 || action == "short");
}

#[test]
fn a_call_that_fails_is_told_of_and_nothing_acknowledged_is_lost() {
    campaign("eio", 25);
}

#[test]
fn a_sync_that_fails_stops_all_writing_until_the_store_is_opened_anew() {
    campaign("eiosync", 15);
}

#[test]
fn a_disk_that_has_broken_down_is_told_of() {
    campaign("eios", 15);
}

#[test]
fn a_write_that_is_cut_short_is_finished() {
    campaign("short", 15);
}

#[test]
fn a_full_disk_stops_writes_until_there_is_room_again() {
    campaign("full", 25);
}

/// Opens, writes, reads what it wrote whatever happens, and closes. Where a sync has failed, nothing may be acknowledged
/// any more; where the disk was full, writing goes on once there is room.
#[test]
#[ignore = "the child of another test"]
fn faulty_child() {
    let Some(path) = std::env::var_os("LIMNION_CHILD") else { return };
    let action = std::env::var("LIMNION_FAULT").unwrap_or_default();
    let log = std::env::var("LIMNION_FAULT_LOG").unwrap();
    let say = |line: &str| {
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    };
    let store = match Store::open(Manner::Plain.options(Path::new(&path))) {
        Ok(store) => store,
        Err(error) => return say(&format!("!error {error:?}")),
    };
    let mut known = 0;
    let mut failed = false;
    for number in 0..OPS {
        let before = store.head().unwrap().0;
        let done = workload::perform(&store, workload::id(0, number % 2, number));
        if done && failed && action.starts_with("eio") {
            let after = store.head().unwrap().0;
            if after > before {
                say(&format!("!wrong operation {number} was acknowledged after an error of the disk"));
            }
        }
        if done && failed && action == "full" {
            say("!resumed");
        }
        if !done {
            failed = true;
            if action == "full" {
                // Somebody makes room.
                let _ = std::fs::remove_file(&log);
            }
        }
        // Reads go on: whatever was there is there.
        match store.scan(workload::MARKS, &KeyRange::ALL, At::Latest, usize::MAX, false, true) {
            Ok(records) if records.len() < known => say("!wrong a record has gone"),
            Ok(records) => known = records.len(),
            Err(error) => say(&format!("!wrong a read failed: {error:?}")),
        }
    }
    if let Err(error) = store.close() {
        say(&format!("!error {error:?}"));
    }
}

fn put(key: &str, length: usize) -> Batch {
    let body = Body { content: limnion_store::Content::Bytes, ..Body::json(vec![7; length]) };
    Batch { ops: vec![Op::Put { namespace: "n".into(), key: key.into(), body }], conditions: Vec::new() }
}

/// A file system of its own, with little room; `None`, with a word about it, for those who may not make one.
struct Small(tempfile::TempDir);

impl Small {
    fn new(options: &str) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "limnion-test"])
            .arg(place.path())
            .stderr(Stdio::null())
            .status();
        match mounted {
            Ok(status) if status.success() => Some(Self(place)),
            _ => {
                println!("skipped: only root may mount a small file system");
                None
            }
        }
    }

    fn remount(&self, how: &str) {
        let mut command = Command::new("mount");
        let done = command.args(["-o", &format!("remount,{how}")]).arg(self.0.path()).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_file_system_that_is_full_keeps_what_it_has_and_takes_more_when_there_is_room() {
    for (options, filler) in [("size=3m", true), ("size=64m,nr_inodes=12", false)] {
        let Some(small) = Small::new(options) else { return };
        let path = small.0.path().join("store");
        let store = Store::open(Options::folder(&path)).unwrap();
        let ballast = small.0.path().join("ballast");
        std::fs::write(&ballast, vec![0; if filler { 1 << 20 } else { 1 }]).unwrap();
        let mut written = 0;
        let error = loop {
            // Large and small ones: segments and the log run full in turn. Without inodes no new segment can begin.
            let length = if filler { [300, 90_000, 20_000][written % 3] } else { 70_000_000 };
            match store.write(put(&format!("k{written}"), length.min(if filler { length } else { 80_000 }))) {
                Ok(_) => written += 1,
                Err(error) => break Some(error),
            }
            if !filler && written > 40 {
                break None; // there were inodes enough for all that was needed
            }
        };
        if let Some(error) = error {
            assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
            assert!(error.message().contains(&*small.0.path().to_string_lossy()), "{error}");
        }
        for attempt in 0..3 {
            if filler {
                assert_eq!(
                    store.write(put("more", 900_000)).unwrap_err().kind(),
                    ErrorKind::DiskFull,
                    "{attempt}"
                );
            }
        }
        let all = |store: &Store| {
            let found = store.scan("n", &KeyRange::ALL, At::Latest, usize::MAX, false, true).unwrap();
            found.len()
        };
        assert_eq!(all(&store), written);
        std::fs::remove_file(&ballast).unwrap();
        store.write(put("after", 20_000)).unwrap();
        assert_eq!(all(&store), written + 1);
        store.close().unwrap();
        let store = Store::open(Options::folder(&path)).unwrap();
        assert_eq!(all(&store), written + 1);
        assert_eq!(store.check(&Job::new()).unwrap().problems, [""; 0]);
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_read_all_the_same() {
    let Some(small) = Small::new("size=8m") else { return };
    let path = small.0.path().join("store");
    let store = Store::open(Options::folder(&path)).unwrap();
    store.write(put("k", 100)).unwrap();
    store.close().unwrap();
    small.remount("ro");
    let error = Store::open(Options::folder(&path)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    assert!(error.message().contains(&*path.to_string_lossy()), "{error}");
    let store = Store::open(Options { read_only: true, ..Options::folder(&path) }).unwrap();
    assert!(store.get("n", "k", At::Latest).unwrap().is_some());
    assert_eq!(store.write(put("k", 100)).unwrap_err().kind(), ErrorKind::ReadOnly);
    store.close().unwrap();
    small.remount("rw");
    Store::open(Options::folder(&path)).unwrap().write(put("k", 100)).unwrap();
}

#[test]
fn a_folder_that_has_gone_takes_no_writes_and_is_named() {
    let place = quick_folder();
    let (path, elsewhere) = (place.path().join("store"), place.path().join("elsewhere"));
    let store = Store::open(Options::folder(&path)).unwrap();
    store.write(put("k", 100)).unwrap();
    assert_eq!(store.history("n", "k", None, At::Latest, 9).unwrap().len(), 1);
    std::fs::rename(&path, &elsewhere).unwrap();
    for length in [100, 90_000] {
        let error = store.write(put("k", length)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreIo, "{error}");
        assert!(error.message().contains(&*path.to_string_lossy()), "{error}");
    }
    assert_eq!(store.get("n", "k", At::Latest).unwrap().unwrap().payload.value().len(), 100);
    let _ = store.close();
    let store = Store::open(Options::folder(&elsewhere)).unwrap();
    assert_eq!(store.head().unwrap().0, 1);
    assert_eq!(store.check(&Job::new()).unwrap().problems, [""; 0]);
}

/// Runs the limited child with a limit of the shell; gives what it said.
fn with_limit(limit: &str, path: &Path) -> Option<Vec<String>> {
    if !cfg!(unix) {
        println!("skipped: limits are set by a shell");
        return None;
    }
    let program = std::env::current_exe().unwrap();
    let script = format!(
        "trap '' XFSZ; {limit}; exec '{}' --exact faults::limited_child --nocapture --ignored --test-threads=1",
        program.display()
    );
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .env("LIMNION_CHILD", path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).collect();
    child.wait().unwrap();
    Some(lines)
}

#[test]
fn a_process_that_may_open_few_files_or_write_short_ones_is_told_so() {
    let limits = (5..=20).step_by(3).map(|files| format!("ulimit -n {files}"));
    let limits = limits.chain((100..=900).step_by(200).map(|blocks| format!("ulimit -f {blocks}")));
    let mut told = 0;
    for limit in limits {
        let place = quick_folder();
        let path = place.path().join("store");
        let Some(lines) = with_limit(&limit, &path) else { return };
        assert_eq!(facts(&lines, "!wrong "), [""; 0], "{limit}");
        let errors = facts(&lines, "!error ");
        told += errors.len();
        for error in errors {
            assert!(error.contains("StoreIo") || error.contains("DiskFull"), "{limit}: {error}");
            assert!(error.contains("store"), "it names the path: {error}");
        }
        if facts(&lines, "!written ").is_empty() {
            continue; // too few even to start a process
        }
        let written: usize = facts(&lines, "!written ")[0].parse().unwrap();
        let store = Store::open(Options::folder(&path)).unwrap();
        let found = store.scan("n", &KeyRange::ALL, At::Latest, usize::MAX, false, true).unwrap().len();
        assert!(found >= written, "{limit}: {written} were acknowledged, {found} are there");
        assert_eq!(store.check(&Job::new()).unwrap().problems, [""; 0]);
    }
    assert!(told > 100, "the limits were none");
}

#[test]
#[ignore = "the child of another test"]
fn limited_child() {
    let Some(path) = std::env::var_os("LIMNION_CHILD") else { return };
    let say = |line: &str| {
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    };
    let mut written = 0;
    let mut files = Vec::new();
    match Store::open(Options { max_memory: 0, ..Options::folder(Path::new(&path)) }) {
        Ok(store) => {
            for number in 0..200 {
                // The program has files of its own open, more and more.
                files.extend(std::fs::File::open("/dev/null").ok());
                match store.write(put(&format!("k{number}"), if number % 4 == 3 { 80_000 } else { 4_000 })) {
                    Ok(_) => written += 1,
                    Err(error) => say(&format!("!error {error:?}")),
                }
                let read = store.scan("n", &KeyRange::ALL, At::Latest, usize::MAX, false, true);
                match read {
                    Ok(records) if records.len() < written => say("!wrong a record has gone"),
                    Ok(_) => {}
                    Err(error) => say(&format!("!error {error:?}")),
                }
            }
            files.clear();
            if let Err(error) = store.close() {
                say(&format!("!error {error:?}"));
            }
        }
        Err(error) => say(&format!("!error {error:?}")),
    }
    say(&format!("!written {written}"));
}
