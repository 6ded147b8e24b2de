//! Whole copies of a store: backups, and what can be saved from a damaged one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use limnion_types::{Error, ErrorKind, Job, Result};

use crate::cipher::Cipher;
use crate::clock;
use crate::commit::{Change, Stamper};
use crate::engine::sqlite::{self, Mode, SqliteEngine};
use crate::engine::{Engine, Head, Tag, Transaction};
use crate::folder::{Folder, failed, sync_folder};
use crate::hash;
use crate::model::{At, Kind, Micros, Seq};
use crate::options::{Durability, Options};
use crate::read::Reading;
use crate::segment::{Appender, Segments};
use crate::store::{CIPHER, CheckReport, ID, fresh_id};
use crate::witness::Witness;

/// Records read in one go.
const CHUNK: usize = 256;
/// A copy is synced once, at its end.
const MODE: Mode = Mode { wal: true, durability: Durability::Batched };
/// Changes written in one transaction.
const TRANSACTION: usize = 10_000;

/// Copies an open store to `path`.
pub(crate) fn backup(
    reading: &Reading,
    options: &Options,
    folder: Option<&Folder>,
    path: &Path,
    job: &Job,
) -> Result<()> {
    into_place(path, |fresh| {
        let Some(folder) = folder else {
            // In memory: the history is written anew.
            let mut rebuilt = Rebuilt::create(fresh, options.key.as_ref())?;
            let mut report = CheckReport::default();
            rebuilt.copy(reading, job, &mut report)?;
            return match report.problems.pop() {
                Some(problem) => Err(Error::new(ErrorKind::Corruption, problem)),
                None => rebuilt.finish(),
            };
        };
        let target = Folder::create(fresh)?;
        reading.engine.backup(&target.database(), job)?;
        let mode = Mode { wal: options.wal, durability: Durability::Commit };
        let mut engine = SqliteEngine::open(&target.database(), mode)?;
        let mut transaction = engine.begin()?;
        transaction.set_setting(ID, &fresh_id()?)?;
        transaction.commit()?;
        engine.close()?;
        let copied = sqlite::open_reader(&target.database())?;
        for segment in copied.segments()? {
            job.check()?;
            copy_segment(&folder.segments(), &target.segments(), segment.id, segment.length)?;
        }
        let mut witness = Witness::open(target.witness())?;
        witness.remember(&copied.head()?, Durability::Commit)?;
        copied.close();
        witness.sync()
    })
}

fn copy_segment(from: &Path, to: &Path, id: u32, length: u64) -> Result<()> {
    let paths = |folder: &Path| Segments::new(Some(folder.to_path_buf())).path(id);
    let (Some(from), Some(to)) = (paths(from), paths(to)) else { return Ok(()) };
    let mut source = fs::File::open(&from).map_err(|error| failed("open", &from, &error))?;
    let mut target = fs::File::create_new(&to).map_err(|error| failed("make", &to, &error))?;
    // What lies behind the committed length was never committed.
    let mut whole = std::io::Read::take(&mut source, length);
    let copied = std::io::copy(&mut whole, &mut target).and_then(|_| target.sync_all());
    copied.map_err(|error| failed("write", &to, &error))
}

/// Copies what is whole of the store in `from` into a new one in `to`.
pub(crate) fn salvage(from: &Path, key: Option<[u8; 32]>, to: &Path, job: &Job) -> Result<CheckReport> {
    let source = Folder::create(from)?; // nobody writes meanwhile
    if !source.database().is_file() {
        return Err(Error::new(
            ErrorKind::Validation,
            format!("there is no database in {}", source.root().display()),
        ));
    }
    let engine = sqlite::open_reader(&source.database())?;
    let cipher = key.as_ref().map(|key| Arc::new(Cipher::new(key)));
    if cipher.is_none() && engine.setting(CIPHER).ok().flatten().is_some() {
        return Err(Error::new(ErrorKind::Validation, "the database is encrypted")
            .suggest("pass the encryption_key that it was made with"));
    }
    let segments = Arc::new(Segments::new(Some(source.segments())));
    let reading = Reading { engine, segments, cipher };
    let mut report = CheckReport::default();
    into_place(to, |fresh| {
        let mut rebuilt = Rebuilt::create(fresh, key.as_ref())?;
        rebuilt.copy(&reading, job, &mut report)?;
        rebuilt.finish()
    })?;
    reading.engine.close();
    Ok(report)
}

/// Makes a folder beside `path` and puts it there once `fill` is through: nobody ever sees half a copy.
fn into_place(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let path = std::path::absolute(path).map_err(|error| failed("find", path, &error))?;
    let is_free = match fs::read_dir(&path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(failed("read", &path, &error)),
    };
    if !is_free {
        return Err(Error::new(
            ErrorKind::Validation,
            format!("{} is there already, and is not empty", path.display()),
        )
        .suggest("name a folder that does not exist yet"));
    }
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|error| failed("make", parent, &error))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let fresh: PathBuf = parent.join(name);
    if fresh.exists() {
        // Left by somebody who was stopped, unless it is being filled at this moment: then its lock is held.
        drop(Folder::create(&fresh)?);
        fs::remove_dir_all(&fresh).map_err(|error| failed("remove", &fresh, &error))?;
    }
    let filled = fill(&fresh).and_then(|()| {
        sync_folder(&fresh.join("segments"))?;
        sync_folder(&fresh)?;
        if path.exists() {
            fs::remove_dir(&path).map_err(|error| failed("replace", &path, &error))?;
        }
        fs::rename(&fresh, &path).map_err(|error| failed("rename", &fresh, &error))?;
        sync_folder(parent)
    });
    if let Err(error) = &filled
        && error.kind() != ErrorKind::DatabaseLocked
    {
        // The error is what counts; what cannot be removed has a name that tells what it is, and the next copy to this
        // place removes it.
        let _ = fs::remove_dir_all(&fresh);
    }
    filled
}

/// A store that is written anew, commit by commit, with the numbers and times it had.
struct Rebuilt {
    folder: Folder,
    engine: SqliteEngine,
    stamper: Stamper,
    head: Head,
}

impl Rebuilt {
    fn create(path: &Path, key: Option<&[u8; 32]>) -> Result<Self> {
        let folder = Folder::create(path)?;
        let mut engine = SqliteEngine::open(&folder.database(), MODE)?;
        let cipher = key.map(|key| Arc::new(Cipher::new(key)));
        if let Some(cipher) = &cipher {
            let mut transaction = engine.begin()?;
            transaction.set_setting(CIPHER, &cipher.token()?)?;
            transaction.commit()?;
        }
        let segments = Arc::new(Segments::new(Some(folder.segments())));
        let appender = Appender::open(segments, Vec::new(), false)?;
        Ok(Self { folder, engine, stamper: Stamper::new(appender, cipher, &[]), head: Head::default() })
    }

    /// Copies every version that can be read; what cannot is told in the report.
    fn copy(&mut self, reading: &Reading, job: &Job, report: &mut CheckReport) -> Result<()> {
        self.copy_indexes(reading, report)?;
        let plan = plan(reading, job, report)?;
        let mut due: Vec<(Seq, Micros, Vec<Change>)> = Vec::new();
        let mut size = 0;
        for (seq, (time, versions)) in plan {
            job.check()?;
            let mut changes = Vec::with_capacity(versions.len());
            for (namespace, key) in versions {
                match read_version(reading, &namespace, &key, seq) {
                    Ok(change) => changes.push(change),
                    Err(error) => report.problems.push(error.message().to_owned()),
                }
                job.advance(1);
            }
            size += changes.len() + 1;
            report.versions += changes.len() as u64;
            report.commits += 1;
            due.push((seq, time, changes));
            if size >= TRANSACTION {
                self.write(std::mem::take(&mut due))?;
                size = 0;
            }
        }
        self.write(due)?;
        self.copy_tags(reading, report)
    }

    fn write(&mut self, commits: Vec<(Seq, Micros, Vec<Change>)>) -> Result<()> {
        let Self { engine, stamper, head, .. } = self;
        let mut transaction = engine.begin()?;
        for (seq, time, changes) in commits {
            // Where commits are missing, empty ones take their numbers, so that the others keep theirs.
            while head.seq + 1 < seq {
                empty(&mut *transaction, head, clock::next(head.time, 0))?;
            }
            let time = clock::next(head.time, time);
            if changes.is_empty() {
                empty(&mut *transaction, head, time)?;
            } else {
                stamper.changes(&mut *transaction, head, time, changes)?;
            }
        }
        for segment in stamper.appender.sync()? {
            transaction.set_segment(&segment)?;
        }
        transaction.commit()
    }

    fn copy_indexes(&mut self, reading: &Reading, report: &mut CheckReport) -> Result<()> {
        let indexes = reading.engine.field_indexes().unwrap_or_else(|error| {
            report.problems.push(format!("the declared indexes cannot be read: {error}"));
            Vec::new()
        });
        let mut transaction = self.engine.begin()?;
        let mut copied = Vec::new();
        for index in indexes {
            copied.push(transaction.create_index(&index.namespace, &index.field)?);
        }
        transaction.commit()?;
        self.stamper.set_indexes(&copied);
        Ok(())
    }

    fn copy_tags(&mut self, reading: &Reading, report: &mut CheckReport) -> Result<()> {
        let tags: Vec<Tag> = reading.engine.tags().unwrap_or_else(|error| {
            report.problems.push(format!("the tags cannot be read: {error}"));
            Vec::new()
        });
        let mut transaction = self.engine.begin()?;
        for tag in tags.iter().filter(|tag| tag.seq <= self.head.seq) {
            transaction.set_tag(tag)?;
        }
        transaction.commit()
    }

    fn finish(mut self) -> Result<()> {
        self.stamper.appender.settle()?;
        self.engine.checkpoint(true)?;
        self.engine.close()?;
        let path = self.folder.database();
        let synced = fs::File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(|error| failed("sync", &path, &error))?;
        let mut witness = Witness::open(self.folder.witness())?;
        witness.remember(&self.head, Durability::Commit)?;
        witness.sync()
    }
}

/// A commit that writes nothing.
fn empty(transaction: &mut dyn Transaction, head: &mut Head, time: Micros) -> Result<()> {
    let seq = head.seq + 1;
    let chain = hash::chain(&head.chain, seq, time, std::iter::empty());
    *head = Head { seq, time, chain };
    transaction.log(head)
}

type Plan = BTreeMap<Seq, (Micros, Vec<(Arc<str>, Arc<str>)>)>;

/// Which versions there are, by commit.
fn plan(reading: &Reading, job: &Job, report: &mut CheckReport) -> Result<Plan> {
    let mut plan = Plan::new();
    let (mut after, mut found) = (0, 0);
    loop {
        job.check()?;
        let records = reading.engine.dump(after, CHUNK)?;
        let Some(end) = records.last() else { break };
        after = match end {
            Ok(record) => record.id,
            Err((id, _)) => *id,
        };
        for record in records {
            match record {
                Ok(record) => {
                    report.records += 1;
                    found += record.rows.len() as u64;
                    let mut before = 0;
                    for row in record.rows {
                        let retired = |&(first, last): &(Seq, Seq)| (first..=last).contains(&row.previous);
                        if row.previous != before && !record.retired.iter().any(retired) {
                            let (namespace, key) = (&record.namespace, &record.key);
                            report
                                .problems
                                .push(format!("{namespace}/{key}: version {} is missing", row.previous));
                        }
                        before = row.seq;
                        let (namespace, key) = (record.namespace.clone(), record.key.clone());
                        if hash::is_whole(&namespace, &key, &row) {
                            plan.entry(row.seq)
                                .or_insert_with(|| (row.time, Vec::new()))
                                .1
                                .push((namespace, key));
                        } else {
                            report
                                .problems
                                .push(format!("{namespace}/{key}: version {} is damaged", row.seq));
                        }
                    }
                }
                Err((id, error)) => report.problems.push(format!("record number {id}: {error}")),
            }
        }
    }
    // What has gone as a whole, nothing else tells of.
    match reading.engine.stats() {
        Ok(stats) => {
            let counted: u64 = stats.namespaces.values().map(|namespace| namespace.versions).sum();
            if counted != found {
                report.problems.push(format!("{counted} versions were counted, and {found} were found"));
            }
        }
        Err(error) => report.problems.push(format!("the versions were not counted: {error}")),
    }
    Ok(plan)
}

fn read_version(reading: &Reading, namespace: &Arc<str>, key: &Arc<str>, seq: Seq) -> Result<Change> {
    let found = reading.engine.get(namespace, key, At::Seq(seq))?.filter(|found| found.row.seq == seq);
    let row = found.map(|found| found.row).ok_or_else(|| {
        Error::new(ErrorKind::Corruption, format!("{namespace}/{key}: version {seq} cannot be found"))
    })?;
    let mut record = reading.record(namespace.clone(), key.clone(), row)?;
    reading.fetch_vectors(&mut record)?;
    let body = (record.kind == Kind::Put).then(|| record.payload.to_body(record.expires));
    Ok(Change { namespace: namespace.clone(), key: key.clone(), kind: record.kind, body })
}
