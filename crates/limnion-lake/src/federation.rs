//! One question to many collections.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use limnion_types::{Error, ErrorKind, Job, Metric, Result};
use rayon::prelude::*;

use crate::backend::{Id, Ids};
use crate::entry::Options;
use crate::flight::{TICK, late};
use crate::lake::{Lake, LakeHit, Ready, Search, Where, cache_miss};
use crate::slot::Target;

/// To read so many bytes takes about as long as to wake a thread a few times.
const SMALL: usize = 16 << 20;

/// An id that is found in two places at distances that differ by no more than this part is one row, kept twice.
const SAME: f32 = 1e-3;

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

/// How many hits each of `shards` collections is asked for where it looks closely at a fixed number of rows, so that the best
/// k of all are among those: k + √(k ln shards), at most 4k.
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
    /// The nearest rows of several collections together, best first; ties go to the lower id. An id that several of them have
    /// at the same distance (to three digits) is a replica, and counts once; at different distances it means different rows.
    ///
    /// Each collection is made ready on a thread of its own, all under the one deadline. The largest is searched first: what
    /// it finds bounds the search of the others. They run in parallel where there is much to read, else one after the other
    /// with the bound of all before.
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
        let shards = self.prepare_all(targets, search).wait(job);
        let work = || shards.search(query, &search.options, on_error, job);
        if shards.is_small() {
            return work();
        }
        crate::executor::install(self.executor(), work).ok_or_else(lost)?
    }

    /// Has several collections made ready for a search, all at once; nobody waits here.
    pub fn prepare_all(&self, targets: &[Target], search: &Search) -> Preparing {
        let began = Instant::now();
        let begun = |target: &Target| {
            let ready = if search.cached_only && !self.is_cached(target) {
                Coming::There(Err(cache_miss(target)), began)
            } else {
                Coming::begin(self, target)
            };
            (target.clone(), ready)
        };
        let coming = targets.iter().map(begun).collect();
        Preparing { lake: self.clone(), search: search.clone(), began, coming }
    }
}

/// Several collections that are being made ready.
pub struct Preparing {
    lake: Lake,
    search: Search,
    began: Instant,
    coming: Vec<(Target, Coming)>,
}

impl Preparing {
    /// Whether [`Preparing::wait`] would not wait.
    pub fn is_ready(&self) -> bool {
        !matches!(self.search.among, Some(Where::Matching(_)))
            && self.coming.iter().all(|(_, coming)| matches!(coming, Coming::There(..)))
    }

    /// Waits until all of them can be searched, or have failed, or are late.
    pub fn wait(self, job: &Job) -> Shards {
        let Self { lake, search, began, coming } = self;
        let shard = |(target, coming): (Target, Coming)| match coming.wait(search.deadline, job) {
            Ok((ready, at)) => {
                let waited = at.saturating_duration_since(began);
                let selecting = Instant::now();
                let ready = lake.among(&target, ready, &search, job);
                Shard { target, ready, time: waited + selecting.elapsed() }
            }
            Err(error) => Shard { target, ready: Err(error), time: began.elapsed() },
        };
        Shards { list: coming.into_iter().map(shard).collect() }
    }
}

/// Several collections that are ready to be searched together.
pub struct Shards {
    list: Vec<Shard>,
}

struct Shard {
    target: Target,
    ready: Prepared,
    /// How long it took to get ready.
    time: Duration,
}

impl Shards {
    /// About how many bytes a search reads.
    pub fn scan_bytes(&self) -> usize {
        self.ready().map(Ready::scan_bytes).sum()
    }

    fn ready(&self) -> impl Iterator<Item = &Ready> {
        self.list.iter().filter_map(|shard| Some(&shard.ready.as_ref().ok()?.0))
    }

    /// Whether a search is done by one thread: to wake others would take as long.
    pub fn is_small(&self) -> bool {
        self.scan_bytes() <= SMALL
    }

    /// [`Lake::search_federated`] of what is ready: on the calling thread, or parallel on the current pool if it is not small.
    ///
    /// # Errors
    /// As there.
    pub fn search(
        &self,
        query: &[f32],
        options: &Options,
        on_error: OnError,
        job: &Job,
    ) -> Result<Federated> {
        self.check_metrics()?;
        // Who comes when depends on the rows alone, and so does what is found.
        let mut order: Vec<usize> = (0..self.list.len()).collect();
        order.sort_by_key(|&at| std::cmp::Reverse(self.list.get(at).map(Shard::rows)));
        let (leader, others) = order.split_at(1.min(order.len()));
        let width = if self.is_small() { 1 } else { others.len().max(1) };
        let mut answers: Vec<Option<Answer>> = vec![None; self.list.len()];
        let mut best: Vec<LakeHit> = Vec::new();
        for round in std::iter::once(leader).chain(others.chunks(width)) {
            job.check()?;
            let bounded = Options { radius: worst(&best, options.k).or(options.radius), ..*options };
            let ask = |at: usize| Some((at, self.list.get(at)?.search(query, &bounded, self.list.len())));
            let found: Vec<(usize, Answer)> = match round {
                [only] => ask(*only).into_iter().collect(),
                several => several.par_iter().filter_map(|&at| ask(at)).collect(),
            };
            for (at, answer) in found {
                best.extend_from_slice(answer.0.as_deref().unwrap_or_default());
                if let Some(place) = answers.get_mut(at) {
                    *place = Some(answer);
                }
            }
            best = merge(best, options.k);
        }
        let mut report = Vec::with_capacity(self.list.len());
        for (shard, answer) in self.list.iter().zip(answers) {
            let (answer, time) = answer.ok_or_else(lost)?;
            let error = match &answer {
                Ok(_) => None,
                Err(error) if is_of_the_question(error) || on_error == OnError::Raise => {
                    return Err(error.clone());
                }
                Err(error) => Some(error.clone()),
            };
            let hits = answer.map_or(0, |hits| hits.len());
            report.push(Part { target: shard.target.clone(), hits, time, error });
        }
        match report.first().and_then(|part| part.error.clone()) {
            Some(error) if report.iter().all(|part| part.error.is_some()) => Err(error),
            _ => Ok(Federated { hits: best, report }),
        }
    }

    fn check_metrics(&self) -> Result<()> {
        let mut metrics = self.ready().map(Ready::metric);
        match metrics.next().and_then(|first| Some((first, metrics.find(|metric| *metric != first)?))) {
            Some((first, other)) => Err(incomparable(first, other)),
            None => Ok(()),
        }
    }
}

impl Shard {
    fn rows(&self) -> usize {
        self.ready.as_ref().map_or(0, |(ready, _)| ready.len())
    }

    fn search(&self, query: &[f32], options: &Options, count: usize) -> Answer {
        let began = Instant::now();
        let hits = match &self.ready {
            Ok((ready, among)) => ready.search(query, &of_shard(options, count), among.as_ref()),
            Err(error) => Err(error.clone()),
        };
        (hits, self.time + began.elapsed())
    }
}

fn of_shard(options: &Options, shards: usize) -> Options {
    match options.rerank_factor {
        None => *options,
        Some(factor) => Options {
            k: over_request(options.k, shards),
            rerank_factor: Some(shard_rerank(factor, shards)),
            ..*options
        },
    }
}

/// How far the answer of all reaches at most, where k rows are known already.
fn worst(best: &[LakeHit], k: usize) -> Option<f32> {
    let last = k.checked_sub(1).and_then(|last| best.get(last));
    last.map(|hit| hit.distance)
}

/// What a collection is searched with.
type Prepared = Result<(Ready, Option<Ids>)>;

/// What it found, and how long that took.
type Answer = (Result<Vec<LakeHit>>, Duration);

/// A collection that is being made ready, and the moment at which it was.
enum Coming {
    There(Result<Ready>, Instant),
    Later(Receiver<(Result<Ready>, Instant)>),
}

impl Coming {
    fn begin(lake: &Lake, target: &Target) -> Self {
        let (sender, receiver) = channel();
        // Nobody listens any more where somebody else has failed.
        lake.prepare_then(target, move |ready| drop(sender.send((ready, Instant::now()))));
        match receiver.try_recv() {
            Ok((ready, at)) => Self::There(ready, at),
            Err(_) => Self::Later(receiver),
        }
    }

    /// The index, and when it was there. What is there already counts, even after the deadline.
    fn wait(self, deadline: Option<Instant>, job: &Job) -> Result<(Ready, Instant)> {
        let receiver = match self {
            Self::There(ready, at) => return ready.map(|ready| (ready, at)),
            Self::Later(receiver) => receiver,
        };
        loop {
            let left = deadline.map_or(TICK, |deadline| deadline.saturating_duration_since(Instant::now()));
            match receiver.recv_timeout(left.min(TICK)) {
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

/// The best `k`, replicas once.
fn merge(mut hits: Vec<LakeHit>, k: usize) -> Vec<LakeHit> {
    hits.sort_by(|a, b| {
        let nearer = a.distance.total_cmp(&b.distance);
        nearer.then_with(|| a.id.cmp(&b.id)).then_with(|| a.backend.cmp(&b.backend))
    });
    let mut kept: HashMap<Id, f32> = HashMap::with_capacity(hits.len());
    hits.retain(|hit| {
        let before = kept.insert(hit.id.clone(), hit.distance);
        before.is_none_or(|before| hit.distance - before > SAME * (1.0 + hit.distance.abs()))
    });
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
    fn replicas_count_once_and_rows_that_happen_to_share_an_id_do_not() {
        let hit = |backend: &str, id, distance| LakeHit {
            backend: backend.into(),
            collection: "c".into(),
            id: Id::Number(id),
            score: 1.0 - distance,
            distance,
        };
        let merged = merge(vec![hit("b", 1, 0.2), hit("a", 1, 0.2), hit("a", 2, 0.3), hit("b", 2, 0.1)], 9);
        let told: Vec<_> = merged.iter().map(|hit| (&*hit.backend, hit.id.to_string())).collect();
        assert_eq!(told, [("b", "2".into()), ("a", "1".into()), ("a", "2".to_owned())]);
    }

    #[test]
    fn shards_are_asked_for_as_many_as_the_rule_says() {
        let asked: Vec<usize> = [1, 2, 3, 4, 8, 16].map(|shards| over_request(10, shards)).to_vec();
        assert_eq!(asked, [10, 13, 14, 14, 15, 16]);
        assert_eq!([2, 16, 1_000_000].map(|shards| over_request(1, shards)), [2, 3, 4]);
        assert_eq!(over_request(0, 8), 0);
        assert_eq!([1, 2, 3, 4, 5, 100].map(|shards| shard_rerank(20, shards)), [20, 10, 6, 5, 5, 5]);
    }
}
