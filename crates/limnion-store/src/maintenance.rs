//! What the writer does when it has nothing to write: sweeps what has run out, drops what retention does not keep,
//! compresses what is old, and gives space back.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use limnion_types::Result;

use crate::clock;
use crate::commit::{Change, Stamped};
use crate::engine::{Found, SegmentInfo};
use crate::hash;
use crate::model::{At, Kind, Micros, Seq};
use crate::options::{Durability, Retention};
use crate::read::corrupt;
use crate::retention;
use crate::writer::{Core, NEVER};

/// After so many bytes of payload the log is moved into the file, idle or not.
const CHECKPOINT_BYTES: usize = 8 << 20;
/// How long after the last write the writer counts as idle.
const IDLE: Duration = Duration::from_millis(200);
/// How long after the last write space is given back.
const LONG_IDLE: Duration = Duration::from_secs(2);
/// Records swept in one commit.
const SWEEP: usize = 500;
/// Old versions looked at in one go.
const COMPRESS: usize = 2_000;
/// Records remembered for retention; what is beyond waits for the next write, or for `vacuum`.
const REMEMBERED: usize = 20_000;
/// Free pages given back in one go.
const PAGES: usize = 512;

/// What there is to do.
#[derive(Default)]
pub(crate) struct Housekeeping {
    last_write: Option<Instant>,
    /// Bytes written since the log was last moved into the file.
    logged: usize,
    /// Records written since retention was last applied.
    touched: HashSet<(Arc<str>, Arc<str>)>,
    witness: bool,
    old_versions: bool,
    space: bool,
}

impl Housekeeping {
    pub(crate) fn wrote(&mut self, stamped: &Stamped) {
        self.last_write = Some(Instant::now());
        self.logged += stamped.bytes + 128 * stamped.receipt.written;
        (self.witness, self.old_versions, self.space) = (true, true, true);
        if self.touched.len() + stamped.overwritten.len() <= REMEMBERED {
            self.touched.extend(stamped.overwritten.iter().cloned());
        }
    }

    fn is_idle(&self, for_long: Duration) -> bool {
        self.last_write.is_none_or(|last| last.elapsed() >= for_long)
    }
}

impl Core {
    /// How long the writer may sleep before there is something to do; `None`: until somebody writes.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let house = &self.housekeeping;
        let idle = (house.witness || house.old_versions).then_some(IDLE);
        let long = house.space.then_some(LONG_IDLE);
        let expiry = match self.shared.next_expiry.load(Ordering::Acquire) {
            NEVER => None,
            // The wall clock may be changed while we sleep: look again every second.
            due => Some(Duration::from_micros(due.saturating_sub(clock::now())).min(Duration::from_secs(1))),
        };
        [idle, long, expiry].into_iter().flatten().min()
    }

    /// Does what is due. What fails is told of in `issues`, and does not end the writer.
    pub(crate) fn keep_house(&mut self) {
        if self.is_broken() {
            self.housekeeping = Housekeeping::default();
            self.shared.next_expiry.store(NEVER, Ordering::Release);
            return;
        }
        if let Err(error) = self.try_keep_house() {
            self.shared.tell(format!("housekeeping failed: {error}"));
        }
    }

    fn try_keep_house(&mut self) -> Result<()> {
        if self.housekeeping.logged >= CHECKPOINT_BYTES {
            self.housekeeping.logged = 0;
            self.checkpoint(false)?;
        }
        if self.shared.next_expiry.load(Ordering::Acquire) <= clock::now() {
            self.sweep()?;
        }
        if self.housekeeping.is_idle(IDLE) {
            if std::mem::take(&mut self.housekeeping.witness)
                && let Some(witness) = &mut self.witness
            {
                witness.sync()?;
            }
            self.retain_touched()?;
            if self.housekeeping.old_versions {
                self.housekeeping.old_versions = self.engine.compress(COMPRESS)? > 0;
            }
        }
        if self.housekeeping.space && self.housekeeping.is_idle(LONG_IDLE) {
            self.housekeeping.space = false;
            self.housekeeping.logged = 0;
            self.remove_segments()?;
            self.checkpoint(true)?;
            self.housekeeping.space = self.engine.vacuum(PAGES)? > 0;
        }
        Ok(())
    }

    /// Moves the log into the file. What the log refers to in segments has to be on the disk before.
    pub(crate) fn checkpoint(&mut self, truncate: bool) -> Result<()> {
        if self.shared.options.durability != Durability::None {
            self.stamper.appender.settle()?;
        }
        self.engine.checkpoint(truncate)
    }

    /// Deletes what has run out.
    fn sweep(&mut self) -> Result<()> {
        let reader = self.engine.reader();
        let now = clock::now();
        let due = reader.expired(now, SWEEP)?;
        // They come from an index. Were it damaged, what has not run out would be deleted.
        for (namespace, key) in &due {
            let found = reader.get(namespace, key, At::Latest)?;
            let has_run_out = found.is_some_and(|Found { row, .. }| {
                hash::is_whole(namespace, key, &row) && row.expires.is_some_and(|expires| expires <= now)
            });
            if !has_run_out {
                self.shared.next_expiry.store(NEVER, Ordering::Release);
                return Err(corrupt(namespace, key, "it is said to have run out, and has not"));
            }
        }
        if !due.is_empty() {
            self.commit(|stamper, transaction, head| {
                let gone = due.into_iter().map(|(namespace, key)| Change {
                    namespace,
                    key,
                    kind: Kind::Expired,
                    body: None,
                });
                let time = clock::next(head.time, now);
                let stamped = stamper.changes(transaction, head, time, gone.collect())?;
                Ok(((), vec![stamped]))
            })?;
        }
        let next = match reader.expired(NEVER, 1)?.pop() {
            None => NEVER,
            Some((namespace, key)) => {
                let found = reader.get(&namespace, &key, At::Latest)?;
                found.and_then(|found| found.row.expires).unwrap_or(NEVER)
            }
        };
        self.shared.next_expiry.store(next, Ordering::Release);
        Ok(())
    }

    /// Applies retention to what was written since the last time.
    fn retain_touched(&mut self) -> Result<()> {
        let touched = std::mem::take(&mut self.housekeeping.touched);
        let Some(policy) = self.shared.options.retention else { return Ok(()) };
        let reader = self.engine.reader();
        let mut records = Vec::new();
        for (namespace, key) in touched {
            let found = reader.history(&namespace, &key, None, At::Latest, usize::MAX)?;
            if found.len() > 1 {
                records.push((namespace, key, found.into_iter().rev().map(|found| found.row).collect()));
            }
        }
        let fixed = self.fixed_points(&policy)?;
        for records in records.chunks(256) {
            retention::apply(self, &policy, &fixed, records, clock::now())?;
        }
        Ok(())
    }

    /// Applies retention to the records after number `after`; gives the number to go on after, and how many versions
    /// went.
    pub(crate) fn retain(
        &mut self,
        policy: &Retention,
        after: u64,
        limit: usize,
    ) -> Result<(Option<u64>, u64)> {
        let dumped = self.engine.reader().dump(after, limit)?;
        let last = dumped.last().map(|record| match record {
            Ok(record) => record.id,
            Err((id, _)) => *id,
        });
        let records: Vec<_> = dumped
            .into_iter()
            .flatten() // damage is for check() to tell
            .filter(|record| record.rows.len() > 1)
            .map(|record| (record.namespace, record.key, record.rows))
            .collect();
        let fixed = self.fixed_points(policy)?;
        let dropped = retention::apply(self, policy, &fixed, &records, clock::now())?;
        Ok((last, dropped))
    }

    /// Drops the log from before the time that retention keeps.
    pub(crate) fn fold(&mut self, policy: &Retention) -> Result<()> {
        let Some(keep_for) = policy.keep_for else { return Ok(()) };
        let kept = u64::try_from(keep_for.as_micros()).unwrap_or(Micros::MAX);
        let reader = self.engine.reader();
        let Some(seq) = reader.commit_at(clock::now().saturating_sub(kept))? else { return Ok(()) };
        let fixed = self.fixed_points(policy)?;
        let seq = fixed.into_iter().fold(seq, Seq::min);
        if seq > reader.first_commit()?.seq {
            self.commit(|_, transaction, _| transaction.fold(seq).map(|()| ((), Vec::new())))?;
        }
        Ok(())
    }

    /// Removes segments that nothing refers to any more; gives the bytes they had.
    pub(crate) fn remove_segments(&mut self) -> Result<u64> {
        let all = self.engine.reader().segments()?;
        let dead: Vec<SegmentInfo> = all
            .into_iter()
            .filter(|segment| segment.live == 0 && !self.stamper.appender.is_active(segment.id))
            .collect();
        if dead.is_empty() {
            return Ok(0);
        }
        self.commit(|_, transaction, _| {
            for segment in &dead {
                transaction.remove_segment(segment.id)?;
            }
            Ok(((), Vec::new()))
        })?;
        for segment in &dead {
            self.stamper.appender.remove(segment.id)?;
        }
        Ok(dead.iter().map(|segment| segment.length).sum())
    }

    fn fixed_points(&self, policy: &Retention) -> Result<Vec<Seq>> {
        let mut fixed = self.shared.pinned();
        if policy.keep_tagged {
            fixed.extend(self.engine.reader().tags()?.iter().map(|tag| tag.seq));
        }
        Ok(fixed)
    }
}

/// Adds up numbers by their names.
pub(crate) fn sum_up<K: Eq + Hash>(sums: &mut HashMap<K, u64>, parts: impl Iterator<Item = (K, u64)>) {
    for (name, number) in parts {
        *sums.entry(name).or_default() += number;
    }
}
