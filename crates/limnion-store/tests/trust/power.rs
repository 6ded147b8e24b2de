//! A power cut loses nothing that was acknowledged, as far as the disk keeps what it was told to sync.
//!
//! A child works in a folder, and every call that changes it is written down, with its bytes (`faults.c`). From that the
//! states are made that a power cut may leave at any moment: what was synced is there; of what was not, any part may be,
//! torn at sectors of 512 bytes, in any order; a name that was made, changed or removed is sure once its folder is synced,
//! and before that any first few of the changes to a folder may be there. Each state is opened and compared with what
//! had been acknowledged by then.
//!
//! `LIMNION_POWER_CUTS` sets how many states are made (`make campaign-crash`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use limnion_store::{Durability, Options, Store};
use limnion_types::Job;

use crate::workload::{self, Ledger, Manner, Random, child, quick_folder, shim, size, with_fault};

const SECTOR: usize = 512;

/// One call, as the child made it.
#[derive(Debug)]
enum Call {
    Write(PathBuf, u64, Vec<u8>),
    Truncate(PathBuf, u64),
    Sync(PathBuf),
    Make(PathBuf),
    MakeFolder(PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
    /// What the child said.
    Said(String),
}

fn parse(mut bytes: &[u8], root: &Path) -> Vec<Call> {
    let mut calls = Vec::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        let line = std::str::from_utf8(&bytes[..end]).unwrap();
        let words: Vec<&str> = line.split('\t').collect();
        let length: usize = words[3].parse().unwrap();
        let (content, rest) = bytes[end + 1..].split_at(length);
        bytes = rest;
        let number = || words[2].parse::<u64>().unwrap();
        let relative = |path: &str| Path::new(path).strip_prefix(root).unwrap().to_owned();
        let path = || relative(words[1]);
        let text = || String::from_utf8(content.to_vec()).unwrap();
        calls.push(match words[0] {
            "W" => Call::Write(path(), number(), content.to_vec()),
            "T" => Call::Truncate(path(), number()),
            "S" => Call::Sync(path()),
            "N" => Call::Make(path()),
            "D" => Call::MakeFolder(path()),
            "U" => Call::Remove(path()),
            "R" => Call::Rename(path(), relative(&text())),
            "A" => Call::Said(text()),
            other => panic!("{other}"),
        });
    }
    calls
}

/// A change of the bytes of a file.
#[derive(Clone)]
enum Change<'a> {
    Write(u64, &'a [u8]),
    Truncate(u64),
}

fn apply(bytes: &mut Vec<u8>, change: &Change<'_>) {
    match *change {
        Change::Write(at, content) => {
            let end = at as usize + content.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[at as usize..end].copy_from_slice(content);
        }
        Change::Truncate(length) => bytes.resize(length as usize, 0),
    }
}

#[derive(Clone, Default)]
struct File<'a> {
    synced: Vec<u8>,
    pending: Vec<Change<'a>>,
}

/// A change of the names in a folder: which file there is under a name from then on. Folders are file 0.
type Naming = (PathBuf, Option<usize>);

/// What the disk has, and what is on its way.
#[derive(Clone, Default)]
struct Disk<'a> {
    files: Vec<File<'a>>,
    /// As the process sees it.
    names: BTreeMap<PathBuf, usize>,
    synced_names: BTreeMap<PathBuf, usize>,
    /// By folder, each a list of what happened together (a rename is two).
    pending_names: BTreeMap<PathBuf, Vec<Vec<Naming>>>,
}

impl<'a> Disk<'a> {
    fn new() -> Self {
        Self { files: vec![File::default()], ..Self::default() }
    }

    fn name(&mut self, namings: Vec<Naming>) {
        for (path, file) in &namings {
            match file {
                Some(file) => drop(self.names.insert(path.clone(), *file)),
                None => drop(self.names.remove(path)),
            }
        }
        let folder = namings[0].0.parent().unwrap_or(Path::new("")).to_owned();
        self.pending_names.entry(folder).or_default().push(namings);
    }

    fn change(&mut self, path: &Path, change: Change<'a>) {
        // What was written to a file that has been removed since is of no use to anybody.
        if let Some(file) = self.names.get(path) {
            self.files[*file].pending.push(change);
        }
    }

    fn call(&mut self, call: &'a Call) {
        match call {
            Call::Write(path, at, bytes) => self.change(path, Change::Write(*at, bytes)),
            Call::Truncate(path, length) => self.change(path, Change::Truncate(*length)),
            Call::Make(path) => {
                self.files.push(File::default());
                let file = self.files.len() - 1;
                self.name(vec![(path.clone(), Some(file))]);
            }
            Call::MakeFolder(path) => self.name(vec![(path.clone(), Some(0))]),
            Call::Remove(path) => self.name(vec![(path.clone(), None)]),
            Call::Rename(from, to) => {
                let inside: Vec<(PathBuf, usize)> = self
                    .names
                    .iter()
                    .filter(|(path, _)| path.starts_with(from))
                    .map(|(p, f)| (p.clone(), *f))
                    .collect();
                let mut namings = Vec::new();
                for (path, file) in inside {
                    let rest = path.strip_prefix(from).unwrap();
                    namings.push((
                        if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) },
                        Some(file),
                    ));
                    namings.push((path, None));
                }
                self.name(namings);
            }
            Call::Sync(path) => {
                let folder = path.as_os_str().is_empty() || self.names.get(path) == Some(&0);
                if folder {
                    for namings in self.pending_names.remove(path).unwrap_or_default() {
                        keep(&mut self.synced_names, &namings);
                    }
                } else if let Some(file) = self.names.get(path) {
                    let file = &mut self.files[*file];
                    for change in std::mem::take(&mut file.pending) {
                        apply(&mut file.synced, &change);
                    }
                }
            }
            Call::Said(_) => {}
        }
    }

    /// Writes a state that a power cut may leave.
    fn cut(&self, random: &mut Random, root: &Path) {
        let mut names = self.synced_names.clone();
        for namings in self.pending_names.values() {
            let count = random.below(namings.len() as u64 + 1) as usize;
            for naming in &namings[..count] {
                keep(&mut names, naming);
            }
        }
        // Nothing lies in a folder that is not there.
        let folders: BTreeSet<PathBuf> =
            names.iter().filter(|(_, file)| **file == 0).map(|(path, _)| path.clone()).collect();
        names.retain(|path, _| {
            path.ancestors().skip(1).all(|above| above.as_os_str().is_empty() || folders.contains(above))
        });
        let chance = [0, 1, 5, 9, 10][random.below(5) as usize];
        for (path, file) in &names {
            if *file == 0 {
                std::fs::create_dir_all(root.join(path)).unwrap();
                continue;
            }
            let file = &self.files[*file];
            let mut bytes = file.synced.clone();
            for change in &file.pending {
                match change {
                    Change::Write(at, content) if random.one_in(3) => {
                        // Torn: sector by sector.
                        let mut start = 0;
                        while start < content.len() {
                            let to_boundary = SECTOR - (*at as usize + start) % SECTOR;
                            let end = (start + to_boundary).min(content.len());
                            if random.below(10) < chance {
                                apply(&mut bytes, &Change::Write(at + start as u64, &content[start..end]));
                            }
                            start = end;
                        }
                    }
                    change if random.below(10) < chance => apply(&mut bytes, change),
                    _ => {}
                }
            }
            std::fs::write(root.join(path), bytes).unwrap();
        }
    }
}

fn keep(names: &mut BTreeMap<PathBuf, usize>, namings: &[Naming]) {
    for (path, file) in namings {
        match file {
            Some(file) => drop(names.insert(path.clone(), *file)),
            None => drop(names.remove(path)),
        }
    }
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let tools = quick_folder();
    let Some(shim) = shim(tools.path()) else { return };
    let (cuts, seed) = (size("LIMNION_POWER_CUTS", 160), size("LIMNION_SEED", 1));
    let manners = [Manner::Plain, Manner::Upkeep, Manner::Rollback, Manner::Batched];
    for manner in manners {
        let place = quick_folder();
        let root = place.path().join("all");
        let log = tools.path().join("trace");
        let mut command = child("power::traced_child");
        with_fault(&mut command, &shim, &root, "trace", 0, &log);
        command.env("LIMNION_CHILD", format!("{};{manner:?}", root.join("store").display()));
        let output = command.stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let calls = parse(&std::fs::read(&log).unwrap(), &root);
        let (mut lost, mut unborn) = (0, 0);
        for trial in 0..cuts / manners.len() as u64 {
            let mut random = Random(seed << 32 | trial);
            let end = random.below(calls.len() as u64 + 1) as usize;
            let (mut disk, mut ledger, mut said) = (Disk::new(), Ledger::default(), String::new());
            for call in &calls[..end] {
                disk.call(call);
                if let Call::Said(text) = call {
                    said.push_str(text);
                }
            }
            said.lines().for_each(|line| ledger.hear(line));
            let after = tools.path().join("after");
            std::fs::create_dir_all(&after).unwrap();
            disk.cut(&mut random, &after);
            let name = format!(
                "{manner:?}, seed {seed}, trial {trial}, after call {end}: {:?}",
                calls.get(end.saturating_sub(1)).map(brief)
            );
            let options = Options { path: Some(after.join("store")), ..manner.options(&after) };
            let batched = options.durability == Durability::Batched;
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let store = match Store::open(options) {
                    Ok(store) => store,
                    Err(error) => panic!("{error}"),
                };
                unborn += u64::from(store.head().unwrap().0 == 0);
                lost += u64::from(store.issues().iter().any(|issue| issue.contains("commits are lost")));
                ledger.compare(&store, manner.drops(), batched);
                assert!(workload::perform_quietly(&store, workload::id(9, 0, 0), &mut ledger));
            }));
            assert!(caught.is_ok(), "{name}");
            std::fs::remove_dir_all(&after).unwrap();
        }
        println!(
            "{manner:?}: {} calls, power cut at {} moments, 0 violations ({unborn} before the first commit, {lost} with a \
             loss that was told of)",
            calls.len(),
            cuts / manners.len() as u64
        );
    }
}

fn brief(call: &Call) -> String {
    match call {
        Call::Write(path, at, bytes) => format!("write {} at {at}, {} bytes", path.display(), bytes.len()),
        other => format!("{other:?}"),
    }
}

#[test]
#[ignore = "the child of another test"]
fn traced_child() {
    let Ok(told) = std::env::var("LIMNION_CHILD") else { return };
    let (path, manner) = told.split_once(';').unwrap();
    let manner = workload::MANNERS.into_iter().find(|known| format!("{known:?}") == manner).unwrap();
    for cycle in 0..3 {
        let store = Store::open(manner.options(Path::new(path))).unwrap();
        for number in 0..16 {
            workload::perform(&store, workload::id(cycle, number % 2, number));
        }
        if cycle == 1 {
            store.vacuum(&Job::new()).unwrap();
            workload::perform(&store, workload::id(cycle, 0, 16));
        }
        store.close().unwrap();
    }
}
