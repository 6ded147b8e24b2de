//! The vectors of one name in a namespace, many at a time: for those who build indexes over them.
//!
//! A [`Column`] knows cheaply in which [`State`] it is, reads all vectors of a state in the order in which they lie on the
//! disk, tells which records have changed since an earlier state, and reads every version with the [`Span`] of commits in
//! which it was the newest. Whatever is read is verified, as everywhere.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use limnion_types::{Error, ErrorKind, Filter, Job, Result};

use crate::clock;
use crate::engine::{Commit, Found, Head, Keyed, Place, Row, SegmentInfo};
use crate::hash;
use crate::model::{AsOf, At, KeyRange, Kind, Micros, Moment, Record, Seq};
use crate::payload::{Elsewhere, Lies};
use crate::query::Matcher;
use crate::read::{Point, REPAIR, Reading, corrupt, dropped};
use crate::store::Store;

/// Rows that are asked of the engine at a time.
const CHUNK: usize = 512;
/// Rows whose places are put in order before their vectors are read, and the most that vectors of theirs may take that
/// lie in the rows themselves.
const GATHERED: usize = 65_536;
const GATHERED_BYTES: usize = 8 << 20;
/// Bytes of vectors that are handed over at a time.
const PIECE: usize = 8 << 20;
/// Vectors that lie no further apart are read together, as many bytes at a time.
const GAP: u64 = 4 << 10;
const RUN: u64 = 256 << 10;
/// How often something is looked at again because somebody has written meanwhile.
const PATIENCE: usize = 8;
/// Commits that are taken from the log at a time.
const COMMITS: usize = 64;
/// Writes of a foreign writer that are looked at to learn whether one was here.
const FOREIGN: usize = 4096;

/// The vectors of one name in a namespace of an open store. It may be empty, and the namespace need not be there.
pub struct Column {
    store: Store,
    namespace: Arc<str>,
    name: Arc<str>,
    /// The state that was found last.
    known: Mutex<Option<Known>>,
    /// Beside a foreign writer: the newest commit that was looked at, and the newest one that wrote to the namespace.
    foreign: Mutex<Option<(Head, Head)>>,
}

#[derive(Clone, Copy)]
struct Known {
    state: State,
    /// The state stays while the clock shows less.
    until: Micros,
}

/// What a column is at some moment: two equal ones have the same vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The newest commit that wrote to the namespace; where that was before the store was opened, the newest one then.
    pub commit: Head,
    /// When the last of those records ran out that have run out and have not been deleted for it.
    pub ran_out: Option<Micros>,
}

impl State {
    /// The moment at which the records are as in this state.
    pub fn moment(&self) -> Moment {
        Moment { seq: self.commit.seq, time: self.ran_out.unwrap_or(0) }
    }
}

/// The commits for which a version of a record was the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// The commit that wrote it.
    pub from: Seq,
    /// The commit that wrote the next version, or a deletion: `Seq::MAX` where none has.
    pub to: Seq,
    /// When it runs out: `Micros::MAX` where it does not.
    pub until: Micros,
}

impl Span {
    /// Whether the version has a value at a moment.
    pub fn covers(&self, at: Moment) -> bool {
        self.from <= at.seq && at.seq < self.to && at.time < self.until
    }
}

/// Some vectors, one after the other, all of one dimension.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vectors {
    /// Numbers a vector.
    pub dim: usize,
    /// The key of each.
    pub keys: Vec<Arc<str>>,
    /// The span of each.
    pub spans: Vec<Span>,
    /// Their numbers.
    pub numbers: Vec<f32>,
}

/// Which records of a namespace have changed between two states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Those that were written or deleted, each with the first commit that did.
    pub written: Written,
    /// Those of the others that ran out.
    pub ran_out: Vec<Arc<str>>,
}

/// Keys, each with a commit that wrote it.
pub type Written = Vec<(Arc<str>, Seq)>;

/// What takes vectors as they are read.
pub type Take<'a> = &'a mut dyn FnMut(Vectors) -> Result<()>;

impl Store {
    /// The vectors of a name in a namespace; the vector that needs no name has the empty one.
    pub fn column(&self, namespace: &str, name: &str) -> Column {
        Column {
            store: self.clone(),
            namespace: namespace.into(),
            name: name.into(),
            known: Mutex::default(),
            foreign: Mutex::default(),
        }
    }

    /// The namespaces that have a value and the names of vectors in them, with the dimension of the newest ones. Of an
    /// encrypted store the first records of each namespace are looked at, and names that none of them has are not found.
    pub fn columns(&self) -> Result<BTreeMap<(String, String), usize>> {
        let namespaces = self.namespaces()?;
        let mut columns = BTreeMap::new();
        if self.options().key.is_some() {
            for namespace in namespaces {
                self.column(&namespace, "").look(&mut |name, dim| {
                    columns.insert((namespace.clone(), name.to_owned()), dim);
                })?;
            }
            return Ok(columns);
        }
        for segment in self.reading().engine.segments()? {
            if segment.dim > 0 && segment.live > 0 && namespaces.binary_search(&segment.namespace).is_ok() {
                columns.insert((segment.namespace, segment.name), segment.dim as usize);
            }
        }
        Ok(columns)
    }

    /// The moment that a point in history means: what a record's [`Span`] covers then is what [`Store::get`] gives.
    ///
    /// # Errors
    /// As [`Store::resolve`]; `NoValueAtTime` for a time to which the log does not reach back.
    pub fn moment(&self, as_of: &AsOf) -> Result<Moment> {
        let reading = self.reading();
        match self.resolve(as_of)? {
            // Where the log does not tell when that was, nothing has run out that had not when it was written.
            At::Seq(seq) => Ok(Moment { seq, time: reading.time_of(seq)?.unwrap_or(0) }),
            At::Latest => Ok(Moment { seq: self.shared().head()?.seq, time: clock::now() }),
            At::Time(time) => {
                let seq = match reading.engine.commit_at(time)? {
                    Some(seq) => seq,
                    None if reading.engine.first_commit()?.seq <= 1 => 0,
                    None => {
                        let message = "the log does not reach back to that time";
                        return Err(Error::new(ErrorKind::NoValueAtTime, message));
                    }
                };
                Ok(Moment { seq, time: time.min(clock::now()) })
            }
        }
    }
}

impl Column {
    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name of the vectors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The state now: in less than a microsecond, but right after a write to the namespace, at the moment at which a record
    /// of it runs out, and where the store is open for reading only.
    pub fn state(&self) -> Result<State> {
        self.store.shared().check_open()?;
        let mut patience = PATIENCE;
        loop {
            let commit = self.last_write()?;
            let now = clock::now();
            if let Some(Known { state, until }) = *held(&self.known)
                && state.commit == commit
                && now < until
                && state.ran_out.is_none_or(|ran_out| ran_out <= now)
            {
                return Ok(state);
            }
            let (ran_out, until) = self.reading().engine.expiries(&self.namespace, now)?;
            // Else it may be said of a later commit.
            patience -= 1;
            if patience == 0 || self.last_write()? == commit {
                let state = State { commit, ran_out };
                *held(&self.known) = Some(Known { state, until });
                return Ok(state);
            }
        }
    }

    /// Whether records of the namespace run out in time to come, as far as is known from the last [`Column::state`].
    pub fn runs_out(&self) -> bool {
        held(&self.known).is_some_and(|known| known.until < Micros::MAX)
    }

    /// Calls `wake` once, from another thread, when a commit after `seq` has written to the namespace, or the store
    /// closes; at once, where that is so. Beside a foreign writer it is called after any commit.
    pub fn when_written(&self, seq: Seq, wake: impl FnOnce() + Send + 'static) {
        self.store.when_written(&self.namespace, seq, wake);
    }

    /// The number of records in the namespace, counting those that have run out and not been deleted for it; `None`
    /// where nothing was ever written there.
    pub fn records(&self) -> Result<Option<u64>> {
        self.store.shared().check_open()?;
        Ok(self.reading().engine.stats()?.namespaces.get(&*self.namespace).map(|info| info.keys))
    }

    /// Hands over the vectors of all records that have a value at a moment.
    ///
    /// # Errors
    /// `NoValueAtTime` where retention has dropped some of them; what `take` gives.
    pub fn scan(&self, at: Moment, job: &Job, take: Take<'_>) -> Result<()> {
        let _view = self.store.view(At::Seq(at.seq))?;
        let mut gathered = self.gather(true, job, take);
        self.each(at.seq, job, &mut |key, found| {
            self.reading().check_link(&self.namespace, &key, &found, At::Seq(at.seq))?;
            gathered.add_live(key, &found.row, at)
        })?;
        gathered.flush()?;
        // A record of which nothing is left from that time does not show in a scan.
        if self.last_write()?.seq > at.seq {
            let newest = self.store.shared().head()?.seq;
            let written = self.written(at.seq, newest, usize::MAX)?;
            for (key, _) in written.ok_or_else(|| dropped(&self.namespace, "*"))? {
                self.find(&key, at.seq)?;
            }
        }
        Ok(())
    }

    /// Hands over the vectors of those of these records that have a value and such a vector at a moment.
    ///
    /// # Errors
    /// As [`Column::scan`].
    pub fn get(&self, keys: &[Arc<str>], at: Moment, job: &Job, take: Take<'_>) -> Result<()> {
        let _view = self.store.view(At::Seq(at.seq))?;
        let mut gathered = self.gather(true, job, take);
        for key in keys {
            job.check()?;
            if let Some(Found { row, .. }) = self.find(key, at.seq)? {
                gathered.add_live(key.clone(), &row, at)?;
            }
        }
        gathered.flush()
    }

    /// Which records have changed since a state, and the state now; `None` where the log does not tell: it does not reach
    /// back, it is not the log in which that state was, more than `most` writes have been logged since, or the clock was
    /// set back.
    pub fn changed(&self, since: &State, most: usize) -> Result<Option<(State, Changed)>> {
        let mark = since.commit.chain;
        self.changed_since(since.commit.seq, |chain| *chain == mark, since.ran_out, most)
    }

    /// [`Column::changed`] for those who remember only a part of the chain: `is_it` says whether a commit can be the one.
    pub fn changed_since(
        &self,
        seq: Seq,
        is_it: impl Fn(&[u8; 32]) -> bool,
        ran_out: Option<Micros>,
        most: usize,
    ) -> Result<Option<(State, Changed)>> {
        let run_out = |after: Option<Micros>, until: Micros| {
            self.reading().engine.run_out(&self.namespace, after.unwrap_or(0), until)
        };
        for _ in 0..PATIENCE {
            let state = self.state()?;
            let Some(log) = Log::behind(self.reading(), seq)? else { return Ok(None) };
            if !log.before.is_some_and(|before| is_it(&before.chain)) {
                return Ok(None);
            }
            let Some(written) = self.collect(log, state.commit.seq, most)? else { return Ok(None) };
            let mut changed = Changed { written, ran_out: Vec::new() };
            if ran_out.is_none() && state.ran_out.is_none() {
                return Ok(Some((state, changed)));
            }
            let revived = match ran_out.filter(|_| ran_out > state.ran_out) {
                Some(then) => run_out(state.ran_out, then)?,
                None => Vec::new(),
            };
            if let Some(now) = state.ran_out {
                let written: HashSet<&Arc<str>> = changed.written.iter().map(|(key, _)| key).collect();
                changed.ran_out =
                    run_out(ran_out, now)?.into_iter().filter(|key| !written.contains(key)).collect();
            }
            // What has run out may have been deleted for it meanwhile, and was not shown then.
            if self.last_write()? == state.commit {
                return Ok(revived.is_empty().then_some((state, changed)));
            }
        }
        Ok(None)
    }

    /// The records that commits after `after` and up to `until` wrote or deleted, each with the first commit that did;
    /// `None` where the log does not reach back, or has more than `most` writes since then.
    pub fn written(&self, after: Seq, until: Seq, most: usize) -> Result<Option<Written>> {
        match Log::behind(self.reading(), after)? {
            Some(log) => self.collect(log, until, most),
            None => Ok(None),
        }
    }

    fn collect(&self, mut log: Log<'_>, until: Seq, most: usize) -> Result<Option<Written>> {
        let (mut written, mut seen, mut looked) = (Written::new(), HashSet::new(), 0);
        while let Some(commits) = log.next(until)? {
            for commit in commits {
                looked += commit.writes.len();
                if looked > most {
                    return Ok(None);
                }
                for write in commit.writes {
                    if write.namespace == self.namespace && seen.insert(write.key.clone()) {
                        written.push((write.key, commit.head.seq));
                    }
                }
            }
        }
        Ok(Some(written))
    }

    /// Hands over every version, up to commit `until`, of every vector, with the span in which it was the newest. What
    /// retention has dropped is left out, and spans end where that begins.
    pub fn history(&self, until: Seq, job: &Job, take: Take<'_>) -> Result<()> {
        let _view = self.store.view(At::Seq(until))?;
        let mut gathered = self.gather(false, job, take);
        self.each(until, job, &mut |key, Found { row, next_previous }| match row.previous {
            0 if next_previous.is_none_or(|previous| previous == row.seq) => {
                gathered.add(key, Span::of(&row, Seq::MAX), &row)
            }
            _ => self.add_versions(&mut gathered, &key, None, until),
        })?;
        gathered.flush()
    }

    /// Hands over those versions that commits after `after` and up to `until` wrote to these records, as
    /// [`Column::history`] does.
    pub fn history_of(
        &self,
        keys: &[Arc<str>],
        after: Seq,
        until: Seq,
        job: &Job,
        take: Take<'_>,
    ) -> Result<()> {
        let _view = self.store.view(At::Seq(until))?;
        let mut gathered = self.gather(false, job, take);
        for key in keys {
            job.check()?;
            self.add_versions(&mut gathered, key, Some(At::Seq(after)), until)?;
        }
        gathered.flush()
    }

    /// The keys of the records that match a filter and have such a vector, and the state in which that is so.
    pub fn select(&self, filter: &Filter, job: &Job) -> Result<(Vec<Arc<str>>, State)> {
        let matcher = Matcher::new(filter);
        loop {
            job.check()?;
            let state = self.state()?;
            let mut view = self.store.view(At::Latest)?;
            if self.last_write()? != state.commit {
                continue;
            }
            if let At::Seq(seq) = view.point.at {
                view.point = Point::of(Moment { seq, ..state.moment() });
            }
            let mut keys = Vec::new();
            for record in self.store.matching(&view, &self.namespace, filter, At::Latest)? {
                job.check()?;
                let record = record?;
                if record.payload.find_vector(&self.name).is_some() && matcher.matches(&record)? {
                    keys.push(record.key);
                }
            }
            return Ok((keys, state));
        }
    }

    /// The keys of the records that matched a filter and had such a vector at a moment.
    ///
    /// # Errors
    /// As [`Column::scan`].
    pub fn select_at(&self, filter: &Filter, at: Moment, job: &Job) -> Result<Vec<Arc<str>>> {
        let matcher = Matcher::new(filter);
        let mut view = self.store.view(At::Seq(at.seq))?;
        view.point = Point::of(at);
        let mut keys = Vec::new();
        for record in view.scan(&self.namespace, KeyRange::ALL, false, true) {
            job.check()?;
            let record = record?;
            if record.payload.find_vector(&self.name).is_some() && matcher.matches(&record)? {
                keys.push(record.key);
            }
        }
        Ok(keys)
    }

    /// Any record that has such a vector now, in the order of keys; `None` where there is none.
    pub fn any(&self, job: &Job) -> Result<Option<Record>> {
        let view = self.store.view(At::Latest)?;
        for record in view.scan(&self.namespace, KeyRange::ALL, false, true) {
            job.check()?;
            let record = record?;
            if record.payload.find_vector(&self.name).is_some() {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// About how many vectors there are, at a look: not fewer than there are.
    pub fn rows(&self) -> Result<usize> {
        let records = self.records()?.unwrap_or(0);
        if self.store.options().key.is_some() {
            return Ok(records as usize);
        }
        let segments = self.reading().engine.segments()?;
        let of_column = segments.iter().filter(|segment| self.is_in(segment));
        let versions: u64 = of_column.map(|segment| segment.live / 4 / u64::from(segment.dim.max(1))).sum();
        Ok(records.min(versions) as usize)
    }

    /// The dimension of the newest vectors, as far as can be told at a look; `None` where there are none.
    pub fn dim(&self) -> Result<Option<usize>> {
        self.store.shared().check_open()?;
        if self.store.options().key.is_some() {
            let mut found = None;
            self.look(&mut |name, dim| {
                if *name == *self.name {
                    found = Some(dim);
                }
            })?;
            return Ok(found);
        }
        let segments = self.reading().engine.segments()?;
        let newest = segments.iter().rev().find(|segment| self.is_in(segment));
        Ok(newest.map(|segment| segment.dim as usize))
    }

    /// Whether a segment holds vectors of this column.
    fn is_in(&self, segment: &SegmentInfo) -> bool {
        segment.dim > 0 && *segment.namespace == *self.namespace && *segment.name == *self.name
    }

    fn reading(&self) -> &Reading {
        self.store.reading()
    }

    /// The newest commit that wrote to the namespace.
    fn last_write(&self) -> Result<Head> {
        let shared = self.store.shared();
        if !shared.options.read_only {
            return shared.last_write(&self.namespace);
        }
        let head = shared.head()?;
        let mut foreign = held(&self.foreign);
        let last = match *foreign {
            Some((seen, last)) if seen == head => return Ok(last),
            Some((seen, last)) => self.last_write_since(seen, head)?.unwrap_or(last),
            None => head,
        };
        *foreign = Some((head, last));
        Ok(last)
    }

    /// The newest commit from `seen` to `head` that wrote to the namespace; `head`, where that would be much to look at.
    fn last_write_since(&self, seen: Head, head: Head) -> Result<Option<Head>> {
        let log = Log::behind(self.reading(), seen.seq)?;
        let Some(mut log) = log.filter(|log| log.before == Some(seen)) else { return Ok(Some(head)) };
        let (mut last, mut looked) = (None, 0);
        while let Some(commits) = log.next(head.seq)? {
            for commit in commits {
                looked += commit.writes.len();
                if looked > FOREIGN {
                    return Ok(Some(head));
                }
                if commit.writes.iter().any(|write| write.namespace == self.namespace) {
                    last = Some(commit.head);
                }
            }
        }
        Ok(last)
    }

    /// Shows the newest version at a commit of each record, deletions included.
    fn each(&self, seq: Seq, job: &Job, show: &mut dyn FnMut(Arc<str>, Found) -> Result<()>) -> Result<()> {
        let at = At::Seq(seq);
        let mut range = KeyRange::ALL;
        loop {
            job.check()?;
            let chunk = self.reading().engine.scan(&self.namespace, &range, at, CHUNK, false, true)?;
            let last = chunk.last().filter(|_| chunk.len() == CHUNK).map(|last| last.key.clone());
            for Keyed { key, found } in chunk {
                show(key.into(), found)?;
            }
            match last {
                Some(last) => range.start = Bound::Excluded(last),
                None => return Ok(()),
            }
        }
    }

    /// The newest version at a commit of a record; an error of kind no-value-at-time, where there was one that retention
    /// has dropped.
    fn find(&self, key: &str, seq: Seq) -> Result<Option<Found>> {
        let engine = &self.reading().engine;
        let found = engine.get(&self.namespace, key, At::Seq(seq))?;
        match &found {
            Some(found) => self.reading().check_link(&self.namespace, key, found, At::Seq(seq))?,
            None => {
                let oldest = engine.history(&self.namespace, key, None, At::Latest, usize::MAX)?.pop();
                if oldest.is_some_and(|oldest| oldest.row.previous != 0) {
                    return Err(dropped(&self.namespace, key));
                }
            }
        }
        Ok(found)
    }

    fn add_versions(
        &self,
        gathered: &mut Gathered<'_>,
        key: &Arc<str>,
        after: Option<At>,
        until: Seq,
    ) -> Result<()> {
        let reading = self.reading();
        let found = reading.versions(&self.namespace, key, after, At::Seq(until), usize::MAX, Ok)?;
        // Newest first. Of the one after the newest it is known only what came before it.
        let mut next = Seq::MAX;
        for Found { row, next_previous } in found {
            let to = match next_previous.filter(|&previous| previous != row.seq) {
                None => next,
                // Retention has dropped what came in between.
                Some(previous) => {
                    let gap = reading.engine.retired(&self.namespace, key, previous)?;
                    gap.map(|(first, _)| first).filter(|&first| first <= until).unwrap_or(next)
                }
            };
            next = row.seq;
            gathered.add(key.clone(), Span::of(&row, to), &row)?;
        }
        Ok(())
    }

    /// Shows name and dimension of the vectors of the first records.
    fn look(&self, show: &mut dyn FnMut(&str, usize)) -> Result<()> {
        let found =
            self.reading().engine.scan(&self.namespace, &KeyRange::ALL, At::Latest, CHUNK, false, true)?;
        for Keyed { key, found } in found {
            let payload = self.reading().payload(&self.namespace, &key, &found.row)?;
            for (name, bytes) in payload.vector_shapes() {
                show(name, bytes as usize / 4);
            }
        }
        Ok(())
    }

    fn gather<'a>(&'a self, strict: bool, job: &'a Job, take: Take<'a>) -> Gathered<'a> {
        Gathered { column: self, strict, job, take, vectors: Vec::new(), bytes: 0 }
    }
}

impl Span {
    fn of(row: &Row, to: Seq) -> Self {
        Self { from: row.seq, to, until: row.expires.unwrap_or(Micros::MAX) }
    }
}

/// A vector that is to be read.
struct Vector {
    dim: usize,
    key: Arc<str>,
    span: Span,
    lies: Where,
}

enum Where {
    Here(Vec<f32>),
    There(Place, Elsewhere),
}

impl Vector {
    /// What is read together comes together.
    fn order(&self) -> (usize, Option<(u32, u64)>) {
        let place = match &self.lies {
            Where::Here(_) => None,
            Where::There(place, _) => Some((place.segment, place.offset)),
        };
        (self.dim, place)
    }
}

/// Vectors that are to be read and handed over.
struct Gathered<'a> {
    column: &'a Column,
    /// Whether it is an error that retention has dropped something in the meantime.
    strict: bool,
    job: &'a Job,
    take: Take<'a>,
    vectors: Vec<Vector>,
    bytes: usize,
}

impl Gathered<'_> {
    /// Adds the vector of a version, where it has a value at a moment.
    fn add_live(&mut self, key: Arc<str>, row: &Row, at: Moment) -> Result<()> {
        match Span::of(row, Seq::MAX) {
            span if span.covers(at) => self.add(key, span, row),
            _ => Ok(()),
        }
    }

    /// Adds the vector of a version, where it ever had a value.
    fn add(&mut self, key: Arc<str>, span: Span, row: &Row) -> Result<()> {
        let Column { namespace, name, .. } = self.column;
        let payload = self.column.reading().payload(namespace, &key, row)?;
        if row.kind != Kind::Put || span.until <= row.time {
            return Ok(());
        }
        let lies = match payload.find_vector(name) {
            None => return Ok(()),
            Some(Lies::Here(bytes)) => Where::Here(floats(bytes).collect()),
            Some(Lies::Fetched(numbers)) => Where::Here(numbers.to_vec()),
            Some(Lies::Elsewhere(at, elsewhere)) => match row.places.get(at) {
                Some(place) => Where::There(*place, elsewhere.clone()),
                None => return Err(corrupt(namespace, &key, "it is not said where its vector lies")),
            },
        };
        let dim = match &lies {
            Where::Here(numbers) => {
                self.bytes += numbers.len() * 4;
                numbers.len()
            }
            Where::There(_, elsewhere) => elsewhere.length as usize / 4,
        };
        self.vectors.push(Vector { dim, key, span, lies });
        if self.vectors.len() >= GATHERED || self.bytes >= GATHERED_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Reads what was added, and hands it over.
    fn flush(&mut self) -> Result<()> {
        let mut vectors = std::mem::take(&mut self.vectors);
        self.bytes = 0;
        vectors.sort_by_key(Vector::order);
        let mut rest = vectors.as_slice();
        let mut piece = Vectors::default();
        while let Some(first) = rest.first() {
            self.job.check()?;
            if first.dim != piece.dim || piece.numbers.len() * 4 >= PIECE {
                self.hand_over(&mut piece)?;
                let most = (PIECE + RUN as usize) / 4 / first.dim.max(1) + 1;
                let alike = rest.iter().take(most).take_while(|next| next.dim == first.dim).count();
                piece = Vectors {
                    dim: first.dim,
                    keys: Vec::with_capacity(alike),
                    spans: Vec::with_capacity(alike),
                    numbers: Vec::with_capacity(alike * first.dim),
                };
            }
            let (run, later) = rest.split_at(run(rest));
            rest = later;
            self.read(run, &mut piece)?;
        }
        self.hand_over(&mut piece)?;
        vectors.clear();
        self.vectors = vectors;
        Ok(())
    }

    fn hand_over(&mut self, piece: &mut Vectors) -> Result<()> {
        let piece = std::mem::take(piece);
        if piece.keys.is_empty() {
            return Ok(());
        }
        self.job.advance(piece.keys.len() as u64);
        (self.take)(piece)
    }

    /// Reads vectors that lie side by side.
    fn read(&self, run: &[Vector], piece: &mut Vectors) -> Result<()> {
        let (start, bytes) = match (run.first(), run.last()) {
            (
                Some(Vector { lies: Where::There(first, _), .. }),
                Some(Vector { lies: Where::There(last, lies), .. }),
            ) => {
                let length = last.offset.saturating_add(lies.length) - first.offset;
                // Where not all can be read, it will be told of whom.
                (first.offset, self.column.reading().segments.read(*first, length).unwrap_or_default())
            }
            _ => (0, Vec::new()),
        };
        for vector in run {
            match &vector.lies {
                Where::Here(numbers) => piece.numbers.extend_from_slice(numbers),
                Where::There(place, lies) => {
                    let from = usize::try_from(place.offset - start).unwrap_or(usize::MAX);
                    let part = bytes.get(from..).and_then(|rest| rest.get(..lies.length as usize));
                    match part.filter(|part| *blake3::hash(part).as_bytes() == lies.hash) {
                        Some(part) => piece.numbers.extend(floats(part)),
                        None => match self.read_alone(vector, *place, lies) {
                            Ok(part) => piece.numbers.extend(floats(&part)),
                            Err(error) if error.kind() == ErrorKind::NoValueAtTime && !self.strict => {
                                continue;
                            }
                            Err(error) => return Err(error),
                        },
                    }
                }
            }
            piece.keys.push(vector.key.clone());
            piece.spans.push(vector.span);
        }
        Ok(())
    }

    fn read_alone(&self, vector: &Vector, place: Place, lies: &Elsewhere) -> Result<Vec<u8>> {
        let Column { namespace, .. } = self.column;
        let Vector { key, span, .. } = vector;
        let reading = self.column.reading();
        reading.part(Some(&place), lies).or_else(|error| {
            // It was there when its row was read.
            match reading.engine.retired(namespace, key, span.from)? {
                Some(_) => Err(dropped(namespace, key)),
                None => Err(error.within(format!("{namespace}/{key} (version {})", span.from))),
            }
        })
    }
}

/// How many of the first vectors lie side by side, so that they are read at once.
fn run(vectors: &[Vector]) -> usize {
    let Some(Vector { dim, lies: Where::There(first, _), .. }) = vectors.first() else {
        return vectors.len().min(1);
    };
    let mut end = first.offset;
    let together = vectors.iter().take_while(|vector| match &vector.lies {
        Where::There(place, lies) if vector.dim == *dim && place.segment == first.segment => {
            let near = place.offset <= end.saturating_add(GAP) || place.offset == first.offset;
            end = place.offset.saturating_add(lies.length);
            near && end - first.offset <= RUN.max(lies.length)
        }
        _ => false,
    });
    together.count().max(1)
}

fn floats(bytes: &[u8]) -> impl ExactSizeIterator<Item = f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap_or_default()))
}

/// The commits of the log, each verified by the one before it.
struct Log<'a> {
    reading: &'a Reading,
    after: Seq,
    before: Option<Head>,
}

impl<'a> Log<'a> {
    /// The log behind a commit; `None` where it does not reach back that far.
    fn behind(reading: &'a Reading, after: Seq) -> Result<Option<Self>> {
        let engine = &reading.engine;
        let first = engine.first_commit()?.seq;
        if after.saturating_add(1) < first {
            return Ok(None);
        }
        let before = match after {
            0 => Some(Head::default()),
            _ => engine.commit(after)?,
        };
        Ok(Some(Self { reading, after, before }))
    }

    /// Some commits more, none beyond `until`; `None` where there are no more.
    fn next(&mut self, until: Seq) -> Result<Option<Vec<Commit>>> {
        let most = usize::try_from(until.saturating_sub(self.after)).unwrap_or(COMMITS).min(COMMITS);
        if most == 0 {
            return Ok(None);
        }
        let broken = |what: String| Error::new(ErrorKind::Corruption, what).suggest(REPAIR);
        let commits = self.reading.engine.commits(self.after, most)?;
        for commit in &commits {
            if self.before.is_some_and(|before| !hash::follows(commit, &before)) {
                let seq = commit.head.seq;
                return Err(broken(format!(
                    "commit {seq} in the log does not follow from the one before it"
                )));
            }
            (self.before, self.after) = (Some(commit.head), commit.head.seq);
        }
        if commits.is_empty() {
            return Err(broken(format!(
                "the log ends at commit {}, and commit {until} was made",
                self.after
            )));
        }
        Ok(Some(commits))
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
