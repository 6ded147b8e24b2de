//! A process that is killed loses nothing that it had acknowledged.
//!
//! A child writes with eight threads and tells its parent of each attempt and each acknowledgement through a pipe, which
//! outlives it. It is killed (SIGKILL) at a random moment, the folder is opened again as it lies, and compared with what
//! was told: see `workload::Ledger::compare`. Then the next child goes on in the same folder. Nothing is removed by hand.
//!
//! `LIMNION_CRASHES` sets how many are killed (`make campaign-crash`).

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::workload::{self as trust, Ledger, MANNERS, Manner, Random, THREADS};
use limnion_store::Store;
use limnion_types::{ErrorKind, Job};

/// Kills that one folder sees before the next one begins.
const CYCLES: u64 = 5;

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let (crashes, seed) = (trust::size("LIMNION_CRASHES", 25), trust::size("LIMNION_SEED", 1));
    let mut random = Random(seed);
    let (mut done, mut acknowledged, mut attempted, mut unborn) = (0, 0, 0, 0);
    for folder in 0.. {
        if done >= crashes {
            break;
        }
        let manner = MANNERS[folder % MANNERS.len()];
        // On a disk, where syncs take time, and in memory, where they take none.
        let place = if folder % 2 == 0 { trust::quick_folder() } else { tempfile::tempdir().unwrap() };
        let path = place.path().join("store");
        let mut ledger = Ledger::default();
        for cycle in 0..CYCLES.min(crashes - done) {
            let before = ledger.acknowledged();
            kill_one(&path, manner, cycle, &mut random, &mut ledger);
            unborn += u64::from(ledger.acknowledged() == before);
            done += 1;
            assert_eq!(ledger.failed, [""; 0], "{manner:?}, seed {seed}, folder {folder}, cycle {cycle}");
            let store = Store::open(manner.options(&path)).unwrap();
            ledger.compare(&store, manner.drops(), false);
            // Every other time the next child finds what this one has closed, else what lies there after another crash.
            if random.one_in(2) {
                store.close().unwrap();
            } else {
                std::mem::forget(store.clone());
                store.close().unwrap();
            }
        }
        check_backups(&place.path().join("backups"), manner, &mut ledger);
        acknowledged += ledger.acknowledged();
        attempted += ledger.attempted();
    }
    println!(
        "{done} kills, seed {seed}: {attempted} batches attempted, {acknowledged} acknowledged, 0 violations \
         ({unborn} killed before the first acknowledgement)"
    );
}

fn kill_one(path: &Path, manner: Manner, cycle: u64, random: &mut Random, ledger: &mut Ledger) {
    let mut child = trust::child("crash::child");
    child.env("LIMNION_CHILD", format!("{};{manner:?};{cycle}", path.display()));
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let deadline = match random.below(8) {
        0 => Duration::from_micros(random.below(12_000)), // while it opens
        1 => Duration::from_millis(random.below(900)),    // while it is idle, too: see the child
        _ => Duration::from_millis(random.below(250)),
    };
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut told = Vec::new();
            for line in lines.by_ref() {
                let line = line.unwrap_or_default();
                if line.contains("~attempt") {
                    let _ = sender.send(());
                }
                told.push(line);
            }
            told
        });
        if deadline > Duration::from_millis(12) {
            // It is well under way when the clock begins to run.
            let _ = receiver.recv_timeout(Duration::from_secs(20));
        }
        std::thread::sleep(deadline);
        child.kill().unwrap();
        child.wait().unwrap();
        reader.join().unwrap().iter().for_each(|line| ledger.hear(line));
    });
}

/// Whatever was killed while it was made, a backup that is there is whole.
fn check_backups(folder: &Path, manner: Manner, ledger: &mut Ledger) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.extension().is_none() {
            ledger.compare(&Store::open(manner.options(&path)).unwrap(), manner.drops(), true);
        }
    }
}

/// Each call that changes a file is the last one of some child: killed before it, or in the middle of it. The workload is
/// small, always the same, and has everything in it: open, write, delete, tags, large values, vectors, text, an index,
/// vacuum with retention, backup, close, and open again.
#[test]
fn every_system_call_may_be_the_last() {
    let tools = trust::quick_folder();
    let Some(shim) = trust::shim(tools.path()) else { return };
    let log = tools.path().join("log");
    for manner in [Manner::Upkeep, Manner::Rollback] {
        let run = |action: &str, at: u64| {
            let place = trust::quick_folder();
            let root = place.path().join("all");
            let path = root.join("store");
            let mut ledger = Ledger::default();
            let mut child = trust::child("crash::small_child");
            trust::with_fault(&mut child, &shim, &root, action, at, &log);
            child.env("LIMNION_CHILD", format!("{};{manner:?}", path.display()));
            let output = child.stderr(Stdio::piped()).stdout(Stdio::piped()).output().unwrap();
            String::from_utf8(output.stdout).unwrap().lines().for_each(|line| ledger.hear(line));
            assert_eq!(ledger.failed, [""; 0], "{manner:?} {action} {at}");
            assert!(
                output.status.success() || output.status.code().is_none(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let store =
                Store::open(manner.options(&path)).unwrap_or_else(|error| panic!("{action} {at}: {error}"));
            ledger.compare(&store, manner.drops(), false);
            // It goes on where it was stopped, the backup too.
            assert!(trust::perform_quietly(&store, trust::id(9, 0, 0), &mut ledger));
            store.vacuum(&Job::new()).unwrap();
            ledger.compare(&store, manner.drops(), false);
            let backup = root.join("backup");
            if backup.exists() {
                ledger.compare(&Store::open(manner.options(&backup)).unwrap(), manner.drops(), true);
                std::fs::remove_dir_all(&backup).unwrap();
            }
            store.backup(&backup, &Job::new()).unwrap();
            let mut left: Vec<_> =
                std::fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            left.sort();
            assert_eq!(left, ["backup", "store"], "nothing is left over");
            let copy = Store::open(manner.options(&backup)).unwrap();
            ledger.compare(&copy, manner.drops(), false);
            output.status.success()
        };
        assert!(run("count", 0));
        let calls: u64 = std::fs::read_to_string(&log).unwrap().parse().unwrap();
        assert!(calls > 100, "{calls}");
        let stride = if trust::size("LIMNION_CAMPAIGN", 0) > 0 { 1 } else { calls / 25 };
        let mut killed = 0;
        // Timers move a few calls about: somewhat more than were counted are tried.
        for at in (1..=calls + 20).step_by(stride as usize) {
            for action in ["kill", "tear"] {
                killed += u64::from(!run(action, at));
            }
        }
        println!("{manner:?}: {calls} calls, every {stride}th was the last: {killed} kills, 0 violations");
    }
}

#[test]
#[ignore = "the child of another test"]
fn small_child() {
    let Ok(told) = std::env::var("LIMNION_CHILD") else { return };
    let (path, manner) = told.split_once(';').unwrap();
    let path = Path::new(path);
    let manner = MANNERS.into_iter().find(|known| format!("{known:?}") == manner).unwrap();
    for cycle in 0..2 {
        let store = Store::open(manner.options(path)).unwrap();
        for number in 0..24 {
            trust::perform(&store, trust::id(cycle, number % 2, number));
        }
        if cycle == 0 {
            store.create_index("alpha", "shade", &std::sync::Arc::new(Job::new())).unwrap();
        } else {
            store.vacuum(&Job::new()).unwrap();
            store.backup(&path.with_file_name("backup"), &Job::new()).unwrap();
        }
        store.close().unwrap();
    }
}

#[test]
#[ignore = "the child of another test"]
fn child() {
    let Ok(told) = std::env::var("LIMNION_CHILD") else { return };
    let mut parts = told.split(';');
    let path = Path::new(parts.next().unwrap());
    let manner = parts.next().unwrap();
    let manner = MANNERS.into_iter().find(|known| format!("{known:?}") == manner).unwrap();
    let cycle: u64 = parts.next().unwrap().parse().unwrap();
    let store = Store::open(manner.options(path)).unwrap();
    let end = Instant::now() + Duration::from_millis(400);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                for number in 0.. {
                    if !trust::perform(store, trust::id(cycle, thread, number)) {
                        break;
                    }
                    if Instant::now() > end {
                        // The writer is left alone for a while, and keeps house.
                        std::thread::sleep(Duration::from_millis(300));
                    } else if manner == Manner::Upkeep {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
        }
        if manner == Manner::Upkeep {
            let store = &store;
            scope.spawn(move || {
                for number in 0.. {
                    store.vacuum(&Job::new()).unwrap();
                    let backups = path.with_file_name("backups");
                    match store.backup(&backups.join(format!("b{}", number % 3)), &Job::new()) {
                        Ok(()) => {}
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Validation, "{error}"),
                    }
                    // The name goes first: half a folder is no backup.
                    let (old, gone) =
                        (backups.join(format!("b{}", (number + 1) % 3)), backups.join("old.gone"));
                    std::fs::remove_dir_all(&gone).ok();
                    std::fs::rename(old, &gone).ok();
                }
            });
        }
    });
}
