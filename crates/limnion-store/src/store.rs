//! The store: an engine, a writer, the hot tier, and what holds for every record whatever engine lies below.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use limnion_types::filter::Path as FieldPath;
use limnion_types::{Error, ErrorKind, Filter, Job, Result};

use crate::cipher::Cipher;
use crate::clock;
use crate::commit::{Change, Stamper};
use crate::engine::memory::MemoryEngine;
use crate::engine::sqlite::{self, SqliteEngine};
use crate::engine::{Engine, FieldIndex, Head, Logged, Reader, Tag};
use crate::folder::Folder;
use crate::hot::Hot;
use crate::model::{AsOf, At, Batch, KeyRange, Kind, Micros, Moment, Op, Receipt, Record, Seq, Vector};
use crate::options::{Durability, Options};
use crate::query::{self, Aggregate, Group, Matcher, Sort};
use crate::read::{Point, REPAIR, Reading, Scan, corrupt};
use crate::segment::{Appender, Segments};
use crate::text::{TextIndex, TextQuery};
use crate::witness::{self, Witness};
use crate::writer::{Core, Pin, Shared, Writer};
use crate::{check, copy, hash, lines};

/// A store that is open. Cloning gives another handle to the same one; the last one that goes closes it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    /// None where the store is open for reading.
    writer: Option<Writer>,
    folder: Option<Folder>,
    indexes: RwLock<Vec<FieldIndex>>,
    id: [u8; 16],
}

/// What [`Store::query`] found.
#[derive(Debug, Clone, Default)]
pub struct Queried {
    /// The records on this page, in order.
    pub records: Vec<Record>,
    /// How many records match in all.
    pub total: usize,
}

/// A match of a full-text search.
#[derive(Debug, Clone)]
pub struct TextHit {
    /// The record.
    pub record: Record,
    /// BM25: higher is better.
    pub score: f64,
}

/// A change, in the order of commits.
#[derive(Debug, Clone)]
pub struct Event {
    /// What was written; a deletion has kind `Deleted` or `Expired`. `None` where retention has dropped the version since.
    pub record: Option<Record>,
    /// The namespace.
    pub namespace: Arc<str>,
    /// The key.
    pub key: Arc<str>,
    /// The commit.
    pub version: Seq,
    /// Its time.
    pub time: Micros,
}

/// What a namespace holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NamespaceStats {
    /// The name.
    pub name: String,
    /// Records with a value now.
    pub keys: u64,
    /// Versions that are kept, the newest included.
    pub versions: u64,
    /// Bytes of the newest versions.
    pub bytes: u64,
    /// Bytes of older versions, before compression.
    pub history_bytes: u64,
}

/// Sizes and counts of a store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// The namespaces, by name.
    pub namespaces: Vec<NamespaceStats>,
    /// The newest commit.
    pub head: Seq,
    /// Its time.
    pub time: Micros,
    /// Records in the hot tier.
    pub hot_records: u64,
    /// Bytes in the hot tier.
    pub hot_bytes: u64,
    /// Gets that the hot tier answered.
    pub hits: u64,
    /// Gets that it did not.
    pub misses: u64,
    /// Records whose newest version lies in the engine.
    pub warm_records: u64,
    /// Versions that lie compressed.
    pub cold_versions: u64,
    /// Bytes on disk: database, log, segments.
    pub disk_bytes: u64,
    /// Bytes on disk that are free for reuse.
    pub free_bytes: u64,
    /// Bytes in memory: hot tier, and records where the engine is in memory.
    pub memory_bytes: u64,
}

/// What [`Store::check`] found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CheckReport {
    /// What is wrong, in sentences; empty where all is well.
    pub problems: Vec<String>,
    /// Records looked at.
    pub records: u64,
    /// Versions looked at.
    pub versions: u64,
    /// Commits looked at.
    pub commits: u64,
}

/// What [`Store::vacuum`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vacuumed {
    /// Versions that retention dropped.
    pub dropped: u64,
    /// Versions that were compressed.
    pub compressed: u64,
    /// Bytes given back to the file system.
    pub freed_bytes: u64,
}

/// What is wrong with a store that goes on working, in sentences; empty where all is well.
pub type Issues = Vec<String>;

impl Store {
    /// Opens a store.
    pub fn open(options: Options) -> Result<Self> {
        match (options.path.clone(), options.read_only) {
            (None, false) => {
                let engine = Box::new(MemoryEngine::new());
                Self::assemble(options, engine, None, Vec::new())
            }
            (None, true) => Err(Error::new(
                ErrorKind::Validation,
                "a database in memory cannot be read_only: there is nobody else to write to it",
            )
            .suggest("name a path")),
            (Some(path), false) => {
                let folder = Folder::create(&path)?;
                let mode = sqlite::Mode { wal: options.wal, durability: options.durability };
                let engine = SqliteEngine::open(&folder.database(), mode)?;
                let testimony = witness::read(&folder.witness())?;
                let issues = hear(testimony, &folder, &*engine.reader(), options.accept_loss)?;
                Self::assemble(options, Box::new(engine), Some(folder), issues)
            }
            (Some(path), true) => Self::visit(options, Folder::visit(&path)?),
        }
    }

    fn assemble(
        options: Options,
        mut engine: Box<dyn Engine>,
        folder: Option<Folder>,
        issues: Vec<String>,
    ) -> Result<Self> {
        let reader = engine.reader();
        let head = reader.head()?;
        let cipher = cipher(&options, &*reader, head)?;
        let missing = |setting: &str| reader.setting(setting).map(|found| found.is_none());
        let unmarked = if missing(CIPHER)? { cipher.as_ref() } else { None };
        if unmarked.is_some() || missing(ID)? {
            let mut transaction = engine.begin()?;
            if let Some(cipher) = unmarked {
                transaction.set_setting(CIPHER, &cipher.token()?)?;
            }
            if missing(ID)? {
                transaction.set_setting(ID, &fresh_id()?)?;
            }
            transaction.commit()?;
        }
        let id = id_of(&*reader, folder.as_ref())?;
        let indexes = reader.field_indexes()?;
        let segments = Arc::new(Segments::new(folder.as_ref().map(Folder::segments)));
        // A commit that is batched may reach the disk at any moment, and then what it refers to has to be there.
        let durable = options.durability != Durability::None;
        let mut appender = Appender::open(segments.clone(), reader.segments()?, durable)?;
        appender.sweep()?;
        let mut witness = folder.as_ref().map(|folder| Witness::open(folder.witness())).transpose()?;
        if let (Some(witness), Some(folder)) = (&mut witness, &folder) {
            match witness::read(&folder.witness())? {
                witness::Found::Testimony(told) if told.head.seq > head.seq => {
                    witness.forget_after(&head, options.durability)?;
                }
                _ => witness.remember(&head, options.durability)?,
            }
        }
        let stamper = Stamper::new(appender, cipher.clone(), &indexes);
        let reading = Reading { engine: reader, segments, cipher };
        let hot = Hot::new(options.max_memory);
        let shared = Arc::new(Shared::new(reading, hot, options, head, issues));
        let writer = Writer::start(Core::new(engine, stamper, witness, shared.clone(), head))?;
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                writer: Some(writer),
                folder,
                indexes: RwLock::new(indexes),
                id,
            }),
        })
    }

    fn visit(options: Options, folder: Folder) -> Result<Self> {
        let testimony = witness::read(&folder.witness())?;
        let reader = sqlite::open_reader(&folder.database())?;
        let head = reader.head()?;
        let issues = hear(testimony, &folder, &*reader, options.accept_loss)?;
        let cipher = cipher(&options, &*reader, head)?;
        let segments = Arc::new(Segments::new(Some(folder.segments())));
        let indexes = reader.field_indexes()?;
        let id = id_of(&*reader, Some(&folder))?;
        let reading = Reading { engine: reader, segments, cipher };
        // What another process writes is seen by reading it again: nothing is kept hot.
        let shared = Arc::new(Shared::new(reading, Hot::new(0), options, head, issues));
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                writer: None,
                folder: Some(folder),
                indexes: RwLock::new(indexes),
                id,
            }),
        })
    }

    /// Ends all work: writes that were handed in are finished first. What comes later is an error of kind
    /// database-closed. Calling it again does nothing.
    pub fn close(&self) -> Result<()> {
        self.inner.close()
    }

    /// In a child after `fork`: closes what the child must not hold (the lock), and touches nothing else. Nothing but
    /// this may be called in the child, and the store must be leaked there: its threads are gone, and its files are the
    /// parent's.
    pub fn forked(&self) {
        if let Some(folder) = &self.inner.folder {
            folder.forked();
        }
    }

    /// The folder, absolute.
    pub fn path(&self) -> Option<&Path> {
        self.inner.folder.as_ref().map(Folder::root)
    }

    /// A number that no other store has: it was drawn when this one was made. Backups have their own.
    pub fn id(&self) -> [u8; 16] {
        self.inner.id
    }

    /// How it was opened.
    pub fn options(&self) -> &Options {
        &self.shared().options
    }

    /// The point in history that is meant; an error of kind validation where there is no such tag or commit yet.
    pub fn resolve(&self, as_of: &AsOf) -> Result<At> {
        self.shared().check_open()?;
        match as_of {
            AsOf::Version(version) => {
                let newest = self.shared().head()?.seq;
                if *version > newest {
                    return Err(Error::new(
                        ErrorKind::Validation,
                        format!("there is no version {version} yet: the newest is {newest}"),
                    ));
                }
                Ok(At::Seq(*version))
            }
            AsOf::Tag(name) => match self.reading().engine.tag(name)? {
                Some(tag) => Ok(At::Seq(tag.seq)),
                None => {
                    let names: Vec<String> = self.tags()?.into_iter().map(|tag| tag.name).collect();
                    let error = Error::new(ErrorKind::Validation, format!("there is no tag {name:?}"));
                    Err(if names.is_empty() {
                        error.suggest("tag(name) sets one")
                    } else {
                        error.suggest(format!("the tags are {}", names.join(", ")))
                    })
                }
            },
            AsOf::Time(time) => Ok(At::Time(*time)),
        }
    }

    /// The newest commit that a point in history includes; 0 where it lies before all of them.
    pub fn commit_at(&self, at: At) -> Result<Seq> {
        self.shared().check_open()?;
        match at {
            At::Latest => self.shared().head().map(|head| head.seq),
            At::Seq(seq) => Ok(seq),
            At::Time(time) => Ok(self.reading().engine.commit_at(time)?.unwrap_or(0)),
        }
    }

    /// The newest commit that readers see: number and time.
    pub fn head(&self) -> Result<(Seq, Micros)> {
        self.shared().check_open()?;
        self.shared().head().map(|head| (head.seq, head.time))
    }

    /// A record from memory, where it is there and has a value.
    #[inline]
    pub fn get_hot(&self, namespace: &str, key: &str) -> Option<Arc<Record>> {
        let shared = self.shared();
        if shared.closed.load(Ordering::Acquire) {
            return None;
        }
        let record = shared.hot.get(namespace, key)?;
        (record.expires.is_none() || record.is_live(clock::now())).then_some(record)
    }

    /// A record with its vectors; `None` where it has no value at that point: never written, deleted or run out. An
    /// error of kind no-value-at-time where `at` lies before its first version, or in a stretch that retention has
    /// dropped.
    pub fn get(&self, namespace: &str, key: &str, at: At) -> Result<Option<Arc<Record>>> {
        if at == At::Latest
            && let Some(record) = self.get_hot(namespace, key)
        {
            return Ok(Some(record));
        }
        let shared = self.shared();
        shared.check_open()?;
        let point = self.reading().point(at)?;
        let read = || Ok(self.reading().get(namespace, key, point)?.map(Arc::new));
        let record = if at == At::Latest && !shared.options.read_only {
            shared.hot.get_or_read(namespace, key, || {
                Ok(read()?.filter(|record: &Arc<Record>| record.kind == Kind::Put))
            })?
        } else {
            read()?
        };
        match record {
            Some(record) if self.reading().is_live(&record, point)? => Ok(Some(record)),
            _ => Ok(None),
        }
    }

    /// [`Store::get`] at a moment, past every cache: as it was left by a commit, and if it had not run out by then.
    pub fn get_at(&self, namespace: &str, key: &str, at: Moment) -> Result<Option<Record>> {
        self.shared().check_open()?;
        let point = Point::of(at);
        match self.reading().get(namespace, key, point)? {
            Some(record) if self.reading().is_live(&record, point)? => Ok(Some(record)),
            _ => Ok(None),
        }
    }

    /// The vectors of a record, ordered by name. [`Store::get`] has fetched them already; what comes from elsewhere has
    /// them fetched here, when somebody wants them.
    pub fn vectors(&self, record: &Record) -> Result<Vec<Vector>> {
        self.shared().check_open()?;
        self.reading().vectors(record)
    }

    /// The versions of a record after `since` and up to `until`, oldest first, deletions included; the newest `limit` of
    /// them. Empty where there are none.
    pub fn history(
        &self,
        namespace: &str,
        key: &str,
        since: Option<At>,
        until: At,
        limit: usize,
    ) -> Result<Vec<Record>> {
        self.shared().check_open()?;
        let mut records = self.reading().history(namespace, key, since, until, limit)?;
        records.reverse();
        Ok(records)
    }

    /// Live records in the order of their keys, or in reverse; keys only, where `payloads` is false.
    pub fn scan(
        &self,
        namespace: &str,
        range: &KeyRange,
        at: At,
        limit: usize,
        reverse: bool,
        payloads: bool,
    ) -> Result<Vec<Record>> {
        let view = self.view(at)?;
        view.scan(namespace, range.clone(), reverse, payloads).take(limit).collect()
    }

    /// The namespaces that hold a record, in order.
    pub fn namespaces(&self) -> Result<Vec<String>> {
        self.shared().check_open()?;
        self.reading().engine.namespaces()
    }

    /// The keys that are spelled most like this one: for error messages. At most three.
    pub fn similar_keys(&self, namespace: &str, key: &str) -> Vec<String> {
        let first: String = key.chars().take(1).collect();
        let near = KeyRange::prefix(&first);
        let mut keys: Vec<(f64, String)> = Vec::new();
        for (range, limit) in [(near, 512), (KeyRange::ALL, 256)] {
            let found = self.scan(namespace, &range, At::Latest, limit, false, false);
            for record in found.unwrap_or_default() {
                let likeness = strsim::jaro_winkler(key, &record.key);
                if likeness > 0.7 && !keys.iter().any(|(_, known)| *known == *record.key) {
                    keys.push((likeness, record.key.to_string()));
                }
            }
        }
        keys.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        keys.into_iter().take(3).map(|(_, key)| key).collect()
    }

    /// Hands a batch to the writer. `done` is called from the writer's thread, once the batch is as durable as the store
    /// was opened to be, or has failed; it must be quick. Batches are written in the order in which they are handed in.
    /// Waits only where the queue is full.
    pub fn submit(&self, batch: Batch, done: impl FnOnce(Result<Receipt>) + Send + 'static) {
        match self.writer().and_then(|writer| validate(&batch).map(|()| writer)) {
            Ok(writer) => writer.submit(batch, done),
            Err(error) => done(Err(error)),
        }
    }

    /// [`Store::submit`], and waits.
    pub fn write(&self, batch: Batch) -> Result<Receipt> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.submit(batch, move |answer| {
            let _ = sender.send(answer); // nobody waits any more
        });
        receiver
            .recv()
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "the writer has lost a batch")))
    }

    /// Waits for all batches that were handed in before.
    pub fn flush(&self) -> Result<()> {
        self.writer()?.run(|_| Ok(()))
    }

    /// Names a point in history; an existing tag is an error of kind conflict unless `replace`.
    pub fn set_tag(&self, name: &str, at: At, replace: bool) -> Result<Tag> {
        check_name("the name of a tag", name, 255)?;
        let name = name.to_owned();
        self.writer()?.run(move |core| {
            let reader = core.engine.reader();
            if let (false, Some(tag)) = (replace, reader.tag(&name)?) {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("the tag {name:?} names version {} already", tag.seq),
                )
                .suggest("replace=True moves it"));
            }
            let seq = match core.shared.reading.point(at)?.at {
                At::Seq(seq) => seq,
                At::Latest => core.head.seq,
                At::Time(_) => {
                    return Err(Error::new(
                        ErrorKind::NoValueAtTime,
                        "the log does not reach back to that time",
                    ));
                }
            };
            let before_all = if seq == 0 { 0 } else { core.head.time };
            let time = core.shared.reading.time_of(seq)?.unwrap_or(before_all);
            let tag = Tag { name, seq, time };
            core.commit(|_, transaction, _| transaction.set_tag(&tag).map(|()| ((), Vec::new())))?;
            Ok(tag)
        })
    }

    /// Removes a tag; says whether it was there.
    pub fn remove_tag(&self, name: &str) -> Result<bool> {
        let name = name.to_owned();
        self.writer()?.run(move |core| {
            core.commit(|_, transaction, _| transaction.remove_tag(&name).map(|was| (was, Vec::new())))
        })
    }

    /// All tags by name.
    pub fn tags(&self) -> Result<Vec<Tag>> {
        self.shared().check_open()?;
        self.reading().engine.tags()
    }

    /// Makes a namespace, or one key of it, or everything, what it was: writes new versions where something differs, in
    /// one commit.
    pub fn restore(
        &self,
        namespace: Option<&str>,
        key: Option<&str>,
        at: At,
        job: &Arc<Job>,
    ) -> Result<Receipt> {
        let (namespace, key, job) = (namespace.map(str::to_owned), key.map(str::to_owned), job.clone());
        let view = self.view(at)?; // pins that point
        self.writer()?.run(move |core| {
            let changes = match (&namespace, &key) {
                (Some(namespace), Some(key)) => restore_key(core, namespace, key, at)?,
                (Some(namespace), None) => restore_namespace(core, namespace, view.point, &job)?,
                (None, _) => {
                    let mut changes = Vec::new();
                    for namespace in core.engine.reader().stats()?.namespaces.into_keys() {
                        changes.extend(restore_namespace(core, &namespace, view.point, &job)?);
                    }
                    changes
                }
            };
            core.commit(|stamper, transaction, head| {
                let time = clock::next(head.time, clock::now());
                let stamped = stamper.changes(transaction, head, time, changes)?;
                Ok((stamped.receipt, vec![stamped]))
            })
        })
    }

    /// The changes after commit `after`, oldest first, of one namespace or all; whole commits, at most about `limit`
    /// changes. The second number is the commit to go on after.
    pub fn changes(&self, namespace: Option<&str>, after: Seq, limit: usize) -> Result<(Vec<Event>, Seq)> {
        self.shared().check_open()?;
        let engine = &self.reading().engine;
        let first = engine.first_commit()?.seq;
        if after.saturating_add(1) < first {
            return Err(Error::new(
                ErrorKind::NoValueAtTime,
                format!("the log begins at version {first}: retention has dropped what came after {after}"),
            )
            .suggest("read all records once, and watch from there"));
        }
        let (mut changes, mut after) = (Vec::new(), after);
        // Each commit is verified by the one before it, where the log reaches back that far.
        let mut before = match after.checked_sub(1) {
            Some(earlier) => {
                engine.commits(earlier, 1)?.pop().map(|commit| commit.head).filter(|head| head.seq == after)
            }
            None => (first <= 1).then(Head::default),
        };
        while changes.len() < limit {
            let newest = self.shared().head()?.seq;
            let commits = engine.commits(after, limit.clamp(1, 256))?;
            if commits.is_empty() {
                if after < newest {
                    let message = format!("the log ends at commit {after}, and commit {newest} was made");
                    return Err(Error::new(ErrorKind::Corruption, message).suggest(REPAIR));
                }
                break;
            }
            for commit in commits {
                if before.is_some_and(|before| !hash::follows(&commit, &before)) {
                    return Err(Error::new(
                        ErrorKind::Corruption,
                        format!(
                            "commit {} in the log does not follow from the one before it",
                            commit.head.seq
                        ),
                    )
                    .suggest(REPAIR));
                }
                before = Some(commit.head);
                after = commit.head.seq;
                let writes = commit.writes.into_iter();
                for write in writes.filter(|write| namespace.is_none_or(|wanted| *write.namespace == *wanted))
                {
                    let record = self.version(&write, after)?;
                    changes.push(Event {
                        record,
                        namespace: write.namespace,
                        key: write.key,
                        version: after,
                        time: commit.head.time,
                    });
                }
                if changes.len() >= limit {
                    break;
                }
            }
        }
        Ok((changes, after))
    }

    /// The version that a commit wrote; `None` where retention has dropped it.
    fn version(&self, write: &Logged, seq: Seq) -> Result<Option<Record>> {
        let Logged { namespace, key, hash } = write;
        let reading = self.reading();
        let odd = |what: &str| corrupt(namespace, key, &format!("version {seq} {what}"));
        match reading.engine.get(namespace, key, At::Seq(seq))? {
            Some(found) if found.row.seq == seq && hash::row(namespace, key, &found.row) == *hash => {
                match reading.record(namespace.clone(), key.clone(), found.row) {
                    Err(error) if error.kind() == ErrorKind::NoValueAtTime => Ok(None),
                    record => record.map(Some),
                }
            }
            Some(found) if found.row.seq == seq => Err(odd("is not the one that the log tells of")),
            _ if reading.engine.retired(namespace, key, seq)?.is_some() => Ok(None),
            _ => Err(odd("is missing")),
        }
    }

    /// Calls `wake` once, from another thread, when there is a commit after `seq` (at once, where there is one) or when
    /// the store closes.
    pub fn when_after(&self, seq: Seq, wake: impl FnOnce() + Send + 'static) {
        let shared = self.shared();
        shared.when_after(seq, wake);
        if shared.options.read_only && shared.is_awaited() {
            watch_from_outside(shared);
        }
    }

    /// [`Store::when_after`] for the commits that write to a namespace; beside a foreign writer for all of them.
    pub(crate) fn when_written(&self, namespace: &str, seq: Seq, wake: impl FnOnce() + Send + 'static) {
        let shared = self.shared();
        shared.when_written(namespace, seq, wake);
        if shared.options.read_only && shared.is_awaited() {
            watch_from_outside(shared);
        }
    }

    /// The records that match a filter, sorted, from `offset` on, at most `limit`.
    #[expect(clippy::too_many_arguments, reason = "a query has so many parts")]
    pub fn query(
        &self,
        namespace: &str,
        filter: &Filter,
        sort: &[Sort],
        offset: usize,
        limit: usize,
        at: At,
        job: &Job,
    ) -> Result<Queried> {
        let view = self.view(at)?;
        let records = self.matching(&view, namespace, filter, at)?;
        query::select(records, filter, sort, offset, limit, job)
    }

    /// Aggregates over the records that match, per group or over all.
    pub fn aggregate(
        &self,
        namespace: &str,
        filter: &Filter,
        group_by: Option<&str>,
        aggregates: &[Aggregate],
        at: At,
        job: &Job,
    ) -> Result<Vec<Group>> {
        let view = self.view(at)?;
        let records = self.matching(&view, namespace, filter, at)?;
        query::aggregate(records, filter, group_by, aggregates, job)
    }

    /// The records among which all are that match: those that a declared index names, or the whole namespace.
    pub(crate) fn matching<'a>(
        &'a self,
        view: &'a View,
        namespace: &str,
        filter: &Filter,
        at: At,
    ) -> Result<Box<dyn Iterator<Item = Result<Record>> + 'a>> {
        if at == At::Latest
            && let Some(keys) = self.indexed(view, namespace, filter)?
        {
            let namespace: Arc<str> = namespace.into();
            let records = keys.into_iter().filter_map(move |key| {
                let read = self.reading().get(&namespace, &key, view.point);
                read.and_then(|record| match record {
                    Some(record) => Ok(self.reading().is_live(&record, view.point)?.then_some(record)),
                    None => Err(corrupt(&namespace, &key, "an index names it, and it is not there")),
                })
                .transpose()
            });
            return Ok(Box::new(records));
        }
        Ok(Box::new(view.scan(namespace, KeyRange::ALL, false, true)))
    }

    /// The keys that a declared index names for a filter, where one can and it has not moved on since.
    fn indexed(&self, view: &View, namespace: &str, filter: &Filter) -> Result<Option<Vec<String>>> {
        let reader = &self.reading().engine;
        let declared: Vec<(u32, String)> = {
            let indexes = self.inner.indexes.read().unwrap_or_else(PoisonError::into_inner);
            let of_namespace = indexes.iter().filter(|index| index.namespace == namespace);
            of_namespace.map(|index| (index.id, index.field.clone())).collect()
        };
        let Some((index, ranges)) = query::candidates(filter, &declared) else { return Ok(None) };
        let mut keys = Vec::new();
        for (from, to) in ranges {
            keys.extend(reader.lookup(index, &from, &to, usize::MAX)?);
        }
        keys.sort_unstable();
        keys.dedup();
        // The index speaks of the newest versions: where somebody has written meanwhile, it is not the view's.
        Ok((At::Seq(self.shared().head()?.seq) == view.point.at).then_some(keys))
    }

    /// The records whose text matches best.
    pub fn text_search(
        &self,
        namespace: &str,
        query: &str,
        limit: usize,
        filter: Option<&Filter>,
        at: At,
        job: &Job,
    ) -> Result<Vec<TextHit>> {
        let query = TextQuery::parse(query)?;
        let all = Filter::All;
        let filter = filter.unwrap_or(&all);
        let filter = Matcher::new(filter);
        let view = self.view(at)?;
        if at != At::Latest || self.reading().cipher.is_some() {
            return self.text_scan(&view, namespace, &query, limit, &filter, job);
        }
        let mut wanted = limit;
        loop {
            job.check()?;
            let found = self.reading().engine.text_search(namespace, &query, wanted)?;
            let exhausted = found.len() < wanted;
            let mut hits = Vec::new();
            for (key, score) in found {
                if let Some(record) = self.get(namespace, &key, At::Latest)?
                    && filter.matches(&record)?
                {
                    hits.push(TextHit { record: (*record).clone(), score });
                }
            }
            if exhausted || hits.len() >= limit {
                hits.truncate(limit);
                return Ok(hits);
            }
            // Some do not match, or have run out: look further down.
            wanted = wanted.saturating_mul(4);
        }
    }

    /// Full text where there is no index: in the past, and over encrypted records.
    fn text_scan(
        &self,
        view: &View,
        namespace: &str,
        query: &TextQuery,
        limit: usize,
        filter: &Matcher<'_>,
        job: &Job,
    ) -> Result<Vec<TextHit>> {
        let mut index = TextIndex::default();
        let mut records = Vec::new();
        for record in view.scan(namespace, KeyRange::ALL, false, true) {
            job.check()?;
            let record = record?;
            if let Some(text) = record.payload.text() {
                index.insert(records.len() as u64, text);
                records.push(record);
            }
        }
        let mut hits = Vec::new();
        for (at, score) in index.search(query, usize::MAX) {
            if hits.len() == limit {
                break;
            }
            if let Some(record) = records.get(at as usize)
                && filter.matches(record)?
            {
                hits.push(TextHit { record: record.clone(), score });
            }
        }
        Ok(hits)
    }

    /// Declares an index over a field, which makes filters on it quicker.
    pub fn create_index(&self, namespace: &str, field: &str, job: &Arc<Job>) -> Result<FieldIndex> {
        check_namespace(namespace)?;
        check_name("the field of an index", field, 1024)?;
        if FieldPath::parse(field)?.is_special() {
            return Err(Error::new(
                ErrorKind::Validation,
                format!("an index must be over a field of the records, got {field:?}"),
            )
            .suggest("keys are in order anyway: keys(prefix=...) and items(start=...) find them"));
        }
        if self.shared().options.key.is_some() {
            return Err(Error::new(
                ErrorKind::Validation,
                "an encrypted database has no indexes: they would lay open what is in the fields",
            )
            .suggest("queries work without, by scanning"));
        }
        let (namespace, field, job) = (namespace.to_owned(), field.to_owned(), job.clone());
        let (created, indexes) = self.writer()?.run(move |core| {
            let (shared, head) = (core.shared.clone(), core.head);
            let created = core.commit(|_, transaction, _| {
                let known = shared.reading.engine.field_indexes()?;
                let index = transaction.create_index(&namespace, &field)?;
                if !known.contains(&index) {
                    let point = Point::fixed(At::Seq(head.seq));
                    for record in shared.reading.scan(&namespace, KeyRange::ALL, point, false, true) {
                        job.check()?;
                        let record = record?;
                        if let Some(entry) = query::entry_of(&record, &field) {
                            transaction.index(index.id, &namespace, &record.key, &entry)?;
                        }
                        job.advance(1);
                    }
                }
                Ok((index, Vec::new()))
            })?;
            let indexes = core.engine.reader().field_indexes()?;
            core.stamper.set_indexes(&indexes);
            Ok((created, indexes))
        })?;
        *self.inner.indexes.write().unwrap_or_else(PoisonError::into_inner) = indexes;
        Ok(created)
    }

    /// Forgets an index; says whether it was there.
    pub fn drop_index(&self, namespace: &str, field: &str) -> Result<bool> {
        let (namespace, field) = (namespace.to_owned(), field.to_owned());
        let (was, indexes) = self.writer()?.run(move |core| {
            let was = core.commit(|_, transaction, _| {
                transaction.drop_index(&namespace, &field).map(|was| (was, Vec::new()))
            })?;
            let indexes = core.engine.reader().field_indexes()?;
            core.stamper.set_indexes(&indexes);
            Ok((was, indexes))
        })?;
        *self.inner.indexes.write().unwrap_or_else(PoisonError::into_inner) = indexes;
        Ok(was)
    }

    /// The declared indexes.
    pub fn indexes(&self) -> Result<Vec<FieldIndex>> {
        self.shared().check_open()?;
        self.reading().engine.field_indexes()
    }

    /// Sizes and counts.
    pub fn stats(&self) -> Result<Stats> {
        let shared = self.shared();
        shared.check_open()?;
        let engine = self.reading().engine.stats()?;
        let head = shared.head()?;
        let segments: u64 = self.reading().engine.segments()?.iter().map(|segment| segment.length).sum();
        let (hits, misses) = shared.hot.counts();
        let sum = |of: fn(&crate::engine::NamespaceInfo) -> u64| engine.namespaces.values().map(of).sum();
        let namespaces = engine.namespaces.iter().map(|(name, info)| NamespaceStats {
            name: name.clone(),
            keys: info.keys,
            versions: info.versions,
            bytes: info.bytes,
            history_bytes: info.history_bytes,
        });
        let on_disk = shared.options.path.is_some();
        Ok(Stats {
            namespaces: namespaces.collect(),
            head: head.seq,
            time: head.time,
            hot_records: shared.hot.len(),
            hot_bytes: shared.hot.bytes(),
            hits,
            misses,
            warm_records: sum(|info| info.keys),
            cold_versions: sum(|info| info.cold),
            disk_bytes: if on_disk { engine.file_bytes + engine.wal_bytes + segments } else { 0 },
            free_bytes: engine.free_bytes,
            memory_bytes: engine.memory_bytes + shared.hot.bytes() + if on_disk { 0 } else { segments },
        })
    }

    /// What is wrong, where the store goes on working all the same.
    pub fn issues(&self) -> Issues {
        let shared = self.shared();
        let mut issues = shared.issues();
        let Ok(head) = shared.head() else { return issues };
        let ahead = Duration::from_micros(head.time.saturating_sub(clock::now()));
        if ahead > Duration::from_secs(60) {
            issues.push(format!(
                "the newest commit lies {} s in the future: the clock was set back, and times run on from there",
                ahead.as_secs()
            ));
        }
        match self.reading().engine.stats() {
            Ok(stats) if stats.wal_bytes > WAL_WARNING => issues.push(format!(
                "the write-ahead log has {} MiB: some reader, perhaps in another process, does not end",
                stats.wal_bytes >> 20
            )),
            Ok(_) => {}
            Err(error) => issues.push(format!("the database cannot be read: {error}")),
        }
        issues
    }

    /// Reads and verifies everything.
    pub fn check(&self, job: &Job) -> Result<CheckReport> {
        let view = self.view(At::Latest)?;
        let mut report = check::check(self.reading(), job)?;
        drop(view);
        if let Some(folder) = &self.inner.folder {
            let testimony = witness::read(&folder.witness())?;
            match judge(testimony, &*self.reading().engine, self.reading().engine.head()?)? {
                Verdict::Fine => {}
                Verdict::Odd(problem) | Verdict::Lost(problem) => report.problems.push(problem),
            }
        }
        Ok(report)
    }

    /// Writes a copy of the store, as it is now, into a folder that does not exist yet or is empty; writes go on meanwhile.
    pub fn backup(&self, path: &Path, job: &Job) -> Result<()> {
        let _pinned = self.view(At::Latest)?;
        copy::backup(self.reading(), &self.shared().options, self.inner.folder.as_ref(), path, job)
    }

    /// Applies retention, compresses old versions, and gives free space back.
    pub fn vacuum(&self, job: &Job) -> Result<Vacuumed> {
        let writer = self.writer()?;
        let disk = || self.stats().map(|stats| stats.disk_bytes);
        let before = disk()?;
        let mut done = Vacuumed::default();
        if let Some(policy) = self.shared().options.retention {
            let mut after = Some(0);
            while let Some(from) = after {
                job.check()?;
                let (next, dropped) = writer.run(move |core| core.retain(&policy, from, 256))?;
                after = next;
                done.dropped += dropped;
            }
            writer.run(move |core| core.fold(&policy))?;
        }
        loop {
            job.check()?;
            let compressed = writer.run(|core| core.engine.compress(2_000))?;
            done.compressed += compressed as u64;
            if compressed == 0 {
                break;
            }
        }
        writer.run(|core| {
            core.remove_segments()?;
            core.checkpoint(true)
        })?;
        while writer.run(|core| core.engine.vacuum(1024))? > 0 {
            job.check()?;
        }
        writer.run(|core| core.checkpoint(true))?;
        done.freed_bytes = before.saturating_sub(disk()?);
        Ok(done)
    }

    /// Writes all records, or all versions, as JSON lines; gives their number.
    pub fn export(&self, path: &Path, namespace: Option<&str>, history: bool, job: &Job) -> Result<u64> {
        let view = self.view(At::Latest)?;
        lines::export(self.reading(), view.point, path, namespace, history, job)
    }

    /// Reads what [`Store::export`] wrote; gives the number of versions written. A history can only be read into a store
    /// that has none.
    pub fn import(&self, path: &Path, job: &Job) -> Result<u64> {
        lines::import(self, path, job)
    }

    /// Writes a history anew: whole commits, in their order, with the times they had and numbers of their own where some
    /// are missing.
    pub(crate) fn replay(&self, versions: Vec<(Seq, Micros, Change)>) -> Result<()> {
        self.writer()?.run(move |core| {
            core.commit(|stamper, transaction, head| {
                let mut written = Vec::new();
                let mut versions = versions.into_iter().peekable();
                while let Some((seq, time, change)) = versions.next() {
                    let mut changes = vec![change];
                    while let Some((_, _, change)) = versions.next_if(|next| next.0 == seq) {
                        changes.push(change);
                    }
                    let time = clock::next(head.time, time);
                    written.push(stamper.changes(transaction, head, time, changes)?);
                }
                Ok(((), written))
            })
        })
    }

    /// Copies all that is whole from a damaged store into a new one: versions with their history, tags, indexes. Gives
    /// what was copied, and what was left behind as problems.
    pub fn salvage(from: &Path, key: Option<[u8; 32]>, to: &Path, job: &Job) -> Result<CheckReport> {
        copy::salvage(from, key, to, job)
    }

    /// Keeps a point in history from retention until what this gives is dropped.
    pub fn hold(&self, at: At) -> Result<Hold> {
        self.view(at).map(Hold)
    }

    /// Holds a point in history still, so that several reads see one state, whatever is written or dropped meanwhile.
    pub(crate) fn view(&self, at: At) -> Result<View> {
        let shared = self.shared();
        shared.check_open()?;
        let mut point = self.reading().point(at)?;
        let seq = match point.at {
            At::Seq(seq) => seq,
            _ => shared.head()?.seq,
        };
        if at == At::Latest {
            point.at = At::Seq(seq);
        }
        Ok(View { shared: shared.clone(), point, _pin: shared.pin(seq) })
    }

    pub(crate) fn writer(&self) -> Result<&Writer> {
        self.shared().check_open()?;
        self.inner.writer.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::ReadOnly, "the database is open with read_only=True")
                .suggest("write from the process that has it open for writing, or open it without read_only")
        })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    pub(crate) fn reading(&self) -> &Reading {
        &self.inner.shared.reading
    }
}

/// A point in history that retention leaves alone as long as this lives.
pub struct Hold(#[expect(dead_code, reason = "it is held")] View);

/// A point in history that stays while it is looked at.
pub(crate) struct View {
    shared: Arc<Shared>,
    pub(crate) point: Point,
    _pin: Pin,
}

impl View {
    pub(crate) fn scan(&self, namespace: &str, range: KeyRange, reverse: bool, payloads: bool) -> Scan<'_> {
        self.shared.reading.scan(namespace, range, self.point, reverse, payloads)
    }
}

impl Inner {
    fn close(&self) -> Result<()> {
        self.shared.end();
        let closed = self.writer.as_ref().map_or(Ok(()), Writer::close);
        self.shared.reading.engine.close();
        self.shared.reading.segments.close();
        self.shared.hot.clear();
        if let Some(folder) = &self.folder {
            folder.unlock();
        }
        closed
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Who wants to know how it went calls `close`.
        let _ = self.close();
    }
}

/// The setting that tells a wrong key.
pub(crate) const CIPHER: &str = "cipher";
/// The setting that tells a store from all others.
pub(crate) const ID: &str = "id";
/// A write-ahead log beyond this is worth a word.
const WAL_WARNING: u64 = 256 << 20;

/// A number for a store, or for a copy, which goes ways of its own.
pub(crate) fn fresh_id() -> Result<[u8; 16]> {
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|error| Error::new(ErrorKind::Internal, format!("there are no random numbers: {error}")))?;
    Ok(id)
}

/// The number of a store. One that was made before there were numbers goes by its path until it is opened for writing.
fn id_of(reader: &dyn Reader, folder: Option<&Folder>) -> Result<[u8; 16]> {
    let known = reader.setting(ID)?.and_then(|id| id.try_into().ok());
    Ok(known.unwrap_or_else(|| {
        let path = folder.map(|folder| folder.root().as_os_str().as_encoded_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(path.unwrap_or_default()).as_bytes()[..16]);
        id
    }))
}

fn cipher(options: &Options, reader: &dyn Reader, head: Head) -> Result<Option<Arc<Cipher>>> {
    let token = reader.setting(CIPHER)?;
    match (&options.key, token) {
        (None, None) => Ok(None),
        (Some(key), None) if head.seq == 0 => Ok(Some(Arc::new(Cipher::new(key)))),
        (Some(key), Some(token)) => {
            let cipher = Cipher::new(key);
            cipher.verify_token(&token)?;
            Ok(Some(Arc::new(cipher)))
        }
        (None, Some(_)) => Err(Error::new(ErrorKind::Validation, "the database is encrypted")
            .suggest("pass the encryption_key that it was made with")),
        (Some(_), None) => {
            Err(Error::new(ErrorKind::Validation, "the database was made without an encryption_key")
                .suggest("export it, and import the lines into a new database that has one"))
        }
    }
}

enum Verdict {
    Fine,
    /// Nothing is known to be lost.
    Odd(String),
    Lost(String),
}

/// What the witness says of the newest commit.
fn judge(found: witness::Found, reader: &dyn Reader, head: Head) -> Result<Verdict> {
    let told = match found {
        witness::Found::Testimony(told) => told,
        // It was stopped while it was made.
        witness::Found::Nothing | witness::Found::Damaged if head.seq == 0 => return Ok(Verdict::Fine),
        witness::Found::Nothing => {
            return Ok(Verdict::Odd(
                "the witness (file head) is gone: commits lost now go unnoticed".to_owned(),
            ));
        }
        witness::Found::Damaged => {
            return Ok(Verdict::Odd(
                "the witness (file head) is damaged: lost commits go unnoticed".to_owned(),
            ));
        }
    };
    let seen = told.head.seq;
    if seen > head.seq {
        let lost = seen - head.seq;
        let told_of =
            format!("{lost} commits are lost: the newest is {}, and {seen} had been written", head.seq);
        return Ok(if told.durable {
            Verdict::Lost(told_of)
        } else {
            Verdict::Odd(format!("{told_of}, with a durability that allows for it"))
        });
    }
    let chain = match seen.checked_sub(1) {
        None => None,
        Some(before) => reader.commits(before, 1)?.into_iter().find(|commit| commit.head.seq == seen),
    };
    Ok(match chain {
        Some(commit) if commit.head != told.head => Verdict::Lost(format!(
            "commit {seen} is not the one that had been written: history has been replaced"
        )),
        _ => Verdict::Fine,
    })
}

/// Hears the witness at open: an error where commits are lost, unless that is accepted.
fn hear(
    testimony: witness::Found,
    folder: &Folder,
    reader: &dyn Reader,
    accept_loss: bool,
) -> Result<Vec<String>> {
    match judge(testimony, reader, reader.head()?)? {
        Verdict::Fine => Ok(Vec::new()),
        Verdict::Odd(issue) => Ok(vec![issue]),
        Verdict::Lost(issue) if accept_loss => Ok(vec![issue]),
        Verdict::Lost(issue) => {
            Err(Error::new(ErrorKind::Corruption, format!("{}: {issue}", folder.root().display())).suggest(
                format!(
                    "restore a backup, or open with accept_loss=True to go on from what is left; {REPAIR}"
                ),
            ))
        }
    }
}

/// Looks for the commits of another process, as long as somebody waits for one.
fn watch_from_outside(shared: &Arc<Shared>) {
    let weak = Arc::downgrade(shared);
    let watch = move || {
        while let Some(shared) = weak.upgrade() {
            if shared.closed.load(Ordering::Acquire) || !shared.is_awaited() {
                break;
            }
            match shared.reading.engine.head() {
                Ok(head) => shared.advance(head),
                Err(error) => {
                    shared.tell(format!("the database cannot be read: {error}"));
                    shared.end();
                    break;
                }
            }
            drop(shared);
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    if std::thread::Builder::new().name("limnion-watch".to_owned()).spawn(watch).is_err() {
        shared.tell("no thread can be started to watch for commits".to_owned());
        shared.end();
    }
}

fn restore_key(core: &Core, namespace: &str, key: &str, at: At) -> Result<Vec<Change>> {
    let reading = &core.shared.reading;
    let live = |at: At| -> Result<Option<Record>> {
        let point = reading.point(at)?;
        match reading.get(namespace, key, point)? {
            Some(record) => Ok(reading.is_live(&record, point)?.then_some(record)),
            None => Ok(None),
        }
    };
    Ok(back_to(namespace.into(), key.into(), live(at)?, live(At::Latest)?).into_iter().collect())
}

fn restore_namespace(core: &Core, namespace: &str, point: Point, job: &Job) -> Result<Vec<Change>> {
    let reading = &core.shared.reading;
    let today = reading.point(At::Latest)?;
    let mut then = reading.scan(namespace, KeyRange::ALL, point, false, true).peekable();
    let mut now = reading.scan(namespace, KeyRange::ALL, today, false, true).peekable();
    let namespace: Arc<str> = namespace.into();
    let mut changes = Vec::new();
    loop {
        job.check()?;
        let key = |record: Option<&Result<Record>>| match record {
            Some(Ok(record)) => Some(record.key.clone()),
            _ => None,
        };
        let (left, right) = (key(then.peek()), key(now.peek()));
        let next = match (left, right) {
            (Some(left), Some(right)) => left.min(right),
            (left, right) => match left.or(right) {
                Some(next) => next,
                None => {
                    // At the end, or an error.
                    then.next().transpose()?;
                    now.next().transpose()?;
                    return Ok(changes);
                }
            },
        };
        let take = |side: &mut std::iter::Peekable<Scan<'_>>| -> Result<Option<Record>> {
            let is_next = matches!(side.peek(), Some(Ok(record)) if record.key == next);
            let mut taken = if is_next { side.next().transpose()? } else { None };
            if let Some(record) = &mut taken {
                reading.fetch_vectors(record)?;
            }
            Ok(taken)
        };
        let (past, present) = (take(&mut then)?, take(&mut now)?);
        changes.extend(back_to(namespace.clone(), next.clone(), past, present));
    }
}

/// What makes a record what it was, where it is not.
fn back_to(
    namespace: Arc<str>,
    key: Arc<str>,
    past: Option<Record>,
    present: Option<Record>,
) -> Option<Change> {
    let past = past.filter(|past| past.is_live(clock::now()));
    match (past, present) {
        (None, None) => None,
        (None, Some(_)) => Some(Change { namespace, key, kind: Kind::Deleted, body: None }),
        (Some(past), Some(present)) if past.payload == present.payload && past.expires == present.expires => {
            None
        }
        (Some(past), _) => {
            let body = Some(past.payload.to_body(past.expires));
            Some(Change { namespace, key, kind: Kind::Put, body })
        }
    }
}

/// What every batch must be, whatever is in it.
fn validate(batch: &Batch) -> Result<()> {
    let names = batch.ops.iter().map(|op| match op {
        Op::Put { namespace, key, .. } | Op::Delete { namespace, key } => (namespace, key),
    });
    let conditions = batch.conditions.iter().map(|condition| (&condition.namespace, &condition.key));
    for (namespace, key) in names.chain(conditions) {
        check_namespace(namespace)?;
        check_name("a key", key, 4096)?;
    }
    for op in &batch.ops {
        let Op::Put { namespace, key, body } = op else { continue };
        let wrong =
            |what: String| Err(Error::new(ErrorKind::Validation, format!("{namespace}/{key}: {what}")));
        if body.value.len() > MOST_BYTES {
            return wrong(format!("a value must have at most {MOST_BYTES} bytes, got {}", body.value.len()));
        }
        for (at, vector) in body.vectors.iter().enumerate() {
            if vector.numbers.len() > MOST_DIMENSIONS || vector.numbers.is_empty() {
                let dim = vector.numbers.len();
                return wrong(format!("a vector must have 1 to {MOST_DIMENSIONS} dimensions, got {dim}"));
            }
            if !vector.numbers.iter().all(|number| number.is_finite()) {
                return wrong("a vector must have finite numbers only, got NaN or infinity".to_owned());
            }
            if body.vectors.iter().skip(at + 1).any(|other| other.name == vector.name) {
                return wrong(format!("two vectors have the name {:?}", vector.name));
            }
        }
    }
    Ok(())
}

const MOST_BYTES: usize = 512 << 20;
const MOST_DIMENSIONS: usize = 1 << 16;

fn check_namespace(namespace: &str) -> Result<()> {
    check_name("a namespace", namespace, 255)?;
    if namespace.contains('/') {
        return Err(Error::new(
            ErrorKind::Validation,
            format!("a namespace must not contain '/', got {namespace:?}"),
        )
        .suggest("in 'namespace/key' the first '/' ends the namespace; keys may have more of them"));
    }
    Ok(())
}

fn check_name(what: &str, name: &str, most: usize) -> Result<()> {
    if name.is_empty() || name.len() > most {
        return Err(Error::new(
            ErrorKind::Validation,
            format!("{what} must have 1 to {most} bytes of UTF-8, got {}", name.len()),
        ));
    }
    Ok(())
}
