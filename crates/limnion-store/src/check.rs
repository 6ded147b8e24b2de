//! Reading everything, and saying what is wrong with it.

use std::collections::HashMap;
use std::sync::Arc;

use limnion_types::{ErrorKind, Job, Result};

use crate::engine::{Dumped, Row};
use crate::hash;
use crate::model::{At, Kind, Record};
use crate::read::Reading;
use crate::store::CheckReport;
use crate::text;

/// Records and commits looked at in one go.
const CHUNK: usize = 256;
/// More problems are counted, not told.
const TOLD: usize = 1000;

/// Verifies every version, every link, every part in a segment, the chain of commits, and the engine's own structures.
pub(crate) fn check(reading: &Reading, job: &Job) -> Result<CheckReport> {
    let mut check = Check { reading, job, report: CheckReport::default(), untold: 0, texts: HashMap::new() };
    let problems = check.reading.engine.integrity(job);
    match problems {
        Ok(problems) => problems.into_iter().for_each(|problem| check.tell(problem)),
        Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
        Err(error) => check.tell(format!("the database cannot be examined: {error}")),
    }
    check.rest();
    // Commits of the meantime are not looked at.
    match reading.engine.head() {
        Ok(head) => {
            let logged = check.commits(head.seq)?;
            check.texts();
            check.records(head.seq, &logged)?;
        }
        Err(error) => check.tell(format!("the newest commit cannot be read: {error}")),
    }
    if check.untold > 0 {
        let more = format!("... and {} more problems", check.untold);
        check.report.problems.push(more);
    }
    Ok(check.report)
}

/// How many versions the log tells of, and since when.
struct Logged {
    first: u64,
    kept: u64,
}

struct Check<'a> {
    reading: &'a Reading,
    job: &'a Job,
    report: CheckReport,
    untold: u64,
    /// By namespace and key: what full text finds a record by, until the record has been compared with it.
    texts: HashMap<Arc<str>, HashMap<String, u64>>,
}

impl Check<'_> {
    fn tell(&mut self, problem: String) {
        if self.report.problems.len() < TOLD {
            self.report.problems.push(problem);
        } else {
            self.untold += 1;
        }
    }

    /// Asks the full-text index for all that it has.
    fn texts(&mut self) {
        if self.reading.cipher.is_some() {
            return;
        }
        let Ok(stats) = self.reading.engine.stats() else { return }; // that is told of already
        for namespace in stats.namespaces.into_keys() {
            match self.reading.engine.text_sums(&namespace) {
                Ok(Some(sums)) => drop(self.texts.insert(namespace.into(), sums.into_iter().collect())),
                Ok(None) => {}
                Err(error) => self.tell(format!("full text of {namespace}: {}", error.message())),
            }
        }
    }

    /// What full text finds a record by has to be its text.
    fn text(&mut self, newest: &Record) {
        let Some(sums) = self.texts.get_mut(&newest.namespace) else { return };
        let found = sums.remove(&*newest.key).unwrap_or(0);
        if found != newest.payload.text().map_or(0, text::sum) {
            self.tell(format!(
                "{}/{}: the full-text index does not find it by its text",
                newest.namespace, newest.key
            ));
        }
    }

    /// What is neither a version nor a commit.
    fn rest(&mut self) {
        let engine = &self.reading.engine;
        let failures = [
            engine.namespaces().err(),
            engine.tags().err(),
            engine.field_indexes().err(),
            match engine.segments() {
                Ok(segments) => {
                    let verified = segments.iter().filter(|segment| segment.length > 0);
                    verified.filter_map(|segment| self.reading.segments.verify(segment).err()).next()
                }
                Err(error) => Some(error),
            },
        ];
        failures.into_iter().flatten().for_each(|error| self.tell(error.message().to_owned()));
    }

    /// Every commit up to `last`: numbers without gaps, times that grow, the chain, and each version that it wrote.
    fn commits(&mut self, last: u64) -> Result<Logged> {
        let engine = &self.reading.engine;
        let first = match engine.first_commit() {
            Ok(first) => first,
            Err(error) => {
                self.tell(format!("the oldest commit of the log cannot be read: {error}"));
                return Ok(Logged { first: 0, kept: 0 });
            }
        };
        let mut logged = Logged { first: first.seq, kept: 0 };
        if last == 0 {
            return Ok(logged);
        }
        let mut before = match first.seq {
            0 | 1 => crate::engine::Head::default(),
            // The log was folded: its first commit is taken as it is.
            _ => first,
        };
        if first.seq > 1 {
            logged.first += 1;
        }
        while before.seq < last {
            self.job.check()?;
            let commits = match engine.commits(before.seq, CHUNK) {
                Ok(commits) => commits,
                Err(error) => {
                    self.tell(format!("the log cannot be read after commit {}: {error}", before.seq));
                    return Ok(logged);
                }
            };
            if commits.is_empty() {
                self.tell(format!("the log ends at commit {}, and the newest is {last}", before.seq));
                return Ok(logged);
            }
            for commit in commits {
                let (seq, time) = (commit.head.seq, commit.head.time);
                if seq > last {
                    break;
                }
                if seq != before.seq + 1 {
                    self.tell(format!("the log goes from commit {} to {seq}", before.seq));
                } else {
                    let hashes: Vec<[u8; 32]> = commit.writes.iter().map(|write| write.hash).collect();
                    if hash::chain(&before.chain, seq, time, hashes.into_iter()) != commit.head.chain {
                        self.tell(format!("commit {seq} does not follow from the one before it"));
                    }
                }
                if time <= before.time {
                    self.tell(format!("commit {seq} is not later than the one before it"));
                }
                for write in &commit.writes {
                    logged.kept += u64::from(self.version(&write.namespace, &write.key, seq, &write.hash)?);
                }
                self.report.commits += 1;
                self.job.advance(1);
                before = commit.head;
            }
        }
        Ok(logged)
    }

    /// A version that the log tells of: whether it is there.
    fn version(&mut self, namespace: &str, key: &str, seq: u64, hash: &[u8; 32]) -> Result<bool> {
        match self.reading.engine.get(namespace, key, At::Seq(seq)) {
            Ok(Some(found)) if found.row.seq == seq => {
                if hash::row(namespace, key, &found.row) != *hash {
                    self.tell(format!(
                        "{namespace}/{key}: version {seq} is not the one that the log tells of"
                    ));
                }
                Ok(true)
            }
            Ok(_) => {
                if !matches!(self.reading.engine.retired(namespace, key, seq), Ok(Some(_))) {
                    self.tell(format!("{namespace}/{key}: version {seq} is missing"));
                }
                Ok(false)
            }
            Err(error) => {
                self.tell(format!("{namespace}/{key}: version {seq} cannot be read: {error}"));
                Ok(true)
            }
        }
    }

    /// Every record with all of its versions up to commit `last`.
    fn records(&mut self, last: u64, logged: &Logged) -> Result<()> {
        let (mut after, mut kept) = (0, 0);
        loop {
            self.job.check()?;
            let records = match self.reading.engine.dump(after, CHUNK) {
                Ok(records) => records,
                Err(error) => {
                    self.tell(format!("records after number {after} cannot be read: {error}"));
                    return Ok(());
                }
            };
            let Some(end) = records.last() else { break };
            after = match end {
                Ok(record) => record.id,
                Err((id, _)) => *id,
            };
            for record in records {
                match record {
                    Ok(record) => {
                        let rows = record.rows.iter().filter(|row| row.seq <= last);
                        kept += rows.filter(|row| row.seq >= logged.first).count() as u64;
                        self.record(record, last);
                    }
                    Err((id, error)) => self.tell(format!("record number {id} cannot be read: {error}")),
                }
                self.job.advance(1);
            }
        }
        let left: Vec<String> = self
            .texts
            .iter()
            .flat_map(|(namespace, sums)| sums.keys().map(move |key| format!("{namespace}/{key}")))
            .collect();
        if self.report.problems.is_empty() {
            for name in left {
                self.tell(format!("{name}: the full-text index finds it, and it is not there"));
            }
        }
        if kept != logged.kept && self.report.problems.is_empty() {
            self.tell(format!(
                "the log tells of {} versions that are kept, and there are {kept}",
                logged.kept
            ));
        }
        Ok(())
    }

    fn record(&mut self, record: Dumped, last: u64) {
        let Dumped { namespace, key, rows, retired, .. } = record;
        self.report.records += 1;
        let is_retired = |seq: u64| retired.iter().any(|&(first, last)| first <= seq && seq <= last);
        let mut before = 0;
        let newest = rows.last().map_or(0, |row| row.seq);
        if newest > last {
            // Written meanwhile: the index may have what it was or what it is.
            self.texts.get_mut(&namespace).and_then(|sums| sums.remove(&*key));
        }
        for row in rows {
            let Row { seq, previous, .. } = row;
            if seq > last {
                break;
            }
            self.report.versions += 1;
            if previous != before && !is_retired(previous) {
                self.tell(format!("{namespace}/{key}: version {previous} is missing before {seq}"));
            }
            before = seq;
            let whole = self.reading.record(namespace.clone(), key.clone(), row).and_then(|mut read| {
                let seen = self.reading.fetch_vectors(&mut read);
                seen.map(|()| read)
            });
            match whole {
                Ok(read) if read.kind != Kind::Put && !read.payload.bytes().is_empty() => {
                    self.tell(format!("{namespace}/{key}: version {seq} is a deletion with a value"));
                }
                Ok(read) if seq == newest => self.text(&read),
                Ok(_) => {}
                Err(error) => self.tell(error.message().to_owned()),
            }
        }
        match self.reading.engine.get(&namespace, &key, At::Latest) {
            Ok(Some(_)) => {}
            Ok(None) => self.tell(format!("{namespace}/{key}: cannot be found by its key")),
            Err(error) => self.tell(error.message().to_owned()),
        }
    }
}
