//! One question to many collections.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use limnion_types::{Error, ErrorKind, Job, Metric, Result};
use rayon::prelude::*;

use crate::backend::Ids;
use crate::entry::Options;
use crate::flight::{TICK, late};
use crate::lake::{Lake, LakeHit, Ready, Search};
use crate::slot::Target;

/// What becomes of a question that a part of the backends does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// It fails.
    #[default]
    Raise,
    /// It is answered by the others, and the report says who is missing.
    Partial,
}

/// The answer of many.
#[derive(Debug, Clone)]
pub struct Federated {
    /// The nearest rows of all, best first.
    pub hits: Vec<LakeHit>,
    /// How each collection has done, in the order in which they were asked.
    pub report: Vec<Part>,
}

/// How one collection has done.
#[derive(Debug, Clone)]
pub struct Part {
    /// Which one.
    pub target: Target,
    /// How many hits it gave; of these the best of all were taken.
    pub hits: usize,
    /// How long it took until its answer was there.
    pub time: Duration,
    /// Why it gave none.
    pub error: Option<Error>,
}

/// How many hits each of `shards` collections is asked for, so that the best k of all are among them where each one's own
/// answer is an estimate: k + √(k ln shards), at most 4k.
pub(crate) fn over_request(k: usize, shards: usize) -> usize {
    if shards <= 1 || k == 0 {
        return k;
    }
    let more = (k as f64 * (shards as f64).ln()).sqrt().ceil() as usize;
    k.saturating_add(more).min(k.saturating_mul(4))
}

/// The rerank factor of each of `shards` collections, so that all together look at about as many rows as one would.
pub(crate) fn shard_rerank(factor: u32, shards: usize) -> u32 {
    if shards <= 1 { factor } else { (factor / shards as u32).max(5) }
}

impl Lake {
    /// The nearest rows of several collections together, best first; ties go to the lower id. Where an id is found in
    /// several of them, as in replicas, the nearest one counts.
    ///
    /// Each collection is made ready on a thread of its own, all under the one deadline; the searches run in parallel.
    /// Collections whose answers are exact (they keep their originals) are asked for k hits each, which makes the merged
    /// answer exact; the others for k + √(k ln n).
    ///
    /// # Errors
    /// As [`Lake::search`], of the first collection in order that fails, unless [`OnError::Partial`]; then only where all
    /// fail. `InvalidArgument` where the collections have different metrics: their scores cannot be compared.
    pub fn search_federated(
        &self,
        targets: &[Target],
        query: &[f32],
        search: &Search,
        on_error: OnError,
        job: &Job,
    ) -> Result<Federated> {
        let began = Instant::now();
        // Everybody who has to wait for a backend begins to, before anybody is waited for.
        let begun: Vec<Option<Begun>> = targets
            .iter()
            .map(|target| (targets.len() > 1 && !search.cached_only).then(|| Begun::new(self, target)))
            .collect();
        let ready = targets.iter().zip(begun).map(|(target, begun)| match begun {
            None => (self.ready_for(target, search, job), began.elapsed()),
            Some(begun) => match begun.wait(search.deadline, job) {
                Ok((ready, at)) => {
                    let waited = at.saturating_duration_since(began);
                    let selecting = Instant::now();
                    (self.among(target, ready, search, job), waited + selecting.elapsed())
                }
                Err(error) => (Err(error), began.elapsed()),
            },
        });
        let ready: Vec<(Prepared, Duration)> = ready.collect();
        job.check()?;
        let mut metrics = ready.iter().filter_map(|(ready, _)| Some(ready.as_ref().ok()?.0.metric()));
        if let Some(first) = metrics.next()
            && let Some(other) = metrics.find(|metric| *metric != first)
        {
            return Err(incomparable(first, other));
        }
        let shards = ready.len();
        let answer = |(ready, waited): &(Prepared, Duration)| -> Answer {
            let began = Instant::now();
            let hits = match ready {
                Ok((ready, among)) => {
                    ready.search(query, &of_shard(&search.options, ready, shards), among.as_ref())
                }
                Err(error) => Err(error.clone()),
            };
            (hits, *waited + began.elapsed())
        };
        let work = || ready.par_iter().map(answer).collect::<Vec<Answer>>();
        let answers = crate::executor::install(self.executor(), work).ok_or_else(lost)?;
        let mut report = Vec::with_capacity(shards);
        let mut hits = Vec::new();
        for (target, (answer, time)) in targets.iter().zip(answers) {
            let (found, error) = match answer {
                Ok(found) => (found, None),
                Err(error) if is_of_the_question(&error) || on_error == OnError::Raise => return Err(error),
                Err(error) => (Vec::new(), Some(error)),
            };
            report.push(Part { target: target.clone(), hits: found.len(), time, error });
            hits.extend(found);
        }
        if let Some(error) = report.first().and_then(|part| part.error.clone())
            && report.iter().all(|part| part.error.is_some())
        {
            return Err(error);
        }
        Ok(Federated { hits: merge(hits, search.options.k), report })
    }
}

/// What a collection is searched with.
type Prepared = Result<(Ready, Option<Ids>)>;

/// What it found, and how long that took.
type Answer = (Result<Vec<LakeHit>>, Duration);

/// A collection that is being made ready.
struct Begun(Receiver<(Result<Ready>, Instant)>);

impl Begun {
    fn new(lake: &Lake, target: &Target) -> Self {
        let (sender, receiver) = channel();
        // Nobody listens any more where somebody else has failed.
        lake.prepare_then(target, move |ready| drop(sender.send((ready, Instant::now()))));
        Self(receiver)
    }

    /// The index, and when it was there. What is there already counts, even after the deadline.
    fn wait(self, deadline: Option<Instant>, job: &Job) -> Result<(Ready, Instant)> {
        loop {
            let left = deadline.map_or(TICK, |deadline| deadline.saturating_duration_since(Instant::now()));
            match self.0.recv_timeout(left.min(TICK)) {
                Ok((ready, at)) => return ready.map(|ready| (ready, at)),
                Err(RecvTimeoutError::Disconnected) => return Err(lost()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            job.check()?;
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(late());
            }
        }
    }
}

/// Errors that every collection would give: no part of an answer is of use then.
fn is_of_the_question(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::InvalidType | ErrorKind::Cancelled)
}

fn of_shard(options: &Options, ready: &Ready, shards: usize) -> Options {
    let estimates = options.rerank_factor.is_some() || !ready.is_exact();
    Options {
        k: if estimates { over_request(options.k, shards) } else { options.k },
        rerank_factor: options.rerank_factor.map(|factor| shard_rerank(factor, shards)),
        ..*options
    }
}

/// The best `k`, each id once.
fn merge(mut hits: Vec<LakeHit>, k: usize) -> Vec<LakeHit> {
    hits.sort_by(|a, b| {
        let nearer = a.distance.total_cmp(&b.distance);
        nearer.then_with(|| a.id.cmp(&b.id)).then_with(|| a.backend.cmp(&b.backend))
    });
    let mut seen = std::collections::HashSet::with_capacity(hits.len());
    hits.retain(|hit| seen.insert((hit.collection.clone(), hit.id.clone())));
    hits.truncate(k);
    hits
}

fn incomparable(one: Metric, other: Metric) -> Error {
    let message = format!("collections must have one metric to be searched together, got {one} and {other}");
    Error::new(ErrorKind::InvalidArgument, message).suggest("search them one by one")
}

fn lost() -> Error {
    Error::new(ErrorKind::Internal, "work was lost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_asked_for_as_many_as_the_rule_says() {
        let asked: Vec<usize> = [1, 2, 3, 4, 8, 16].map(|shards| over_request(10, shards)).to_vec();
        assert_eq!(asked, [10, 13, 14, 14, 15, 16]);
        assert_eq!([2, 16, 1_000_000].map(|shards| over_request(1, shards)), [2, 3, 4]);
        assert_eq!(over_request(0, 8), 0);
        assert_eq!([2, 3, 4, 5, 100].map(|shards| shard_rerank(20, shards)), [10, 6, 5, 5, 5]);
    }
}
