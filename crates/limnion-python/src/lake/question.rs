//! What a lake is asked: to be awaited, or waited for. Each verb is written once and serves both faces.
//!
//! A search whose index is at hand is answered in the calling thread, or on the pool where it is large and somebody awaits
//! it. Who has to wait for an index leaves a closure with the build that is under way, and costs no thread. Only what
//! asks backends in other ways (filters, names) takes a thread for so long.

use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use limnion_lake::{
    Federated, Hybrid, LakeBundle, LakeHit, Notes, OnError, Part, Preparing, Ready, RefreshResult, Search,
    Shards, Shelf, Target, Warmed, Where,
};
use limnion_types::{Error, ErrorKind, Job, Result};
use pyo3::prelude::*;

use crate::coroutine::{Coroutine, Step, begun};
use crate::door::Door as _;
use crate::lake::home::Home;
use crate::lake::later::Later;
use crate::pool::{self, Task, Watch};

/// To read so many bytes takes 25 to 150 µs: an await of less is answered on the spot, as the way to a thread and back
/// costs as much.
const ON_THE_SPOT: usize = 2 << 20;

/// What is to be done with a collection.
pub(crate) enum Verb {
    /// A search for one vector.
    One(Vec<f32>),
    /// A search for several, of so many numbers each.
    Batch(Vec<f32>, usize),
    /// Have its index at hand.
    Prime,
    /// Have its index brought up to date.
    Refresh,
    /// Have its index forgotten.
    Invalidate,
    /// Have its index at hand, to be looked at.
    Index,
    /// Find out which one it is.
    Find,
    /// A search by a vector and a text.
    Hybrid(Vec<f32>, Hybrid),
    /// Have its index put on a shelf.
    Publish(Arc<dyn Shelf>, Notes),
    /// Have a published index taken for it, looked at as a whole or not.
    Take(Arc<dyn Shelf>, bool),
    /// Have its index compared with a published one.
    Compare(Arc<dyn Shelf>),
}

/// A question about one collection.
pub(crate) struct Question {
    pub(crate) home: Arc<Home>,
    pub(crate) backend: Option<String>,
    pub(crate) collection: String,
    pub(crate) search: Search,
    pub(crate) timeout: Option<Duration>,
    pub(crate) verb: Verb,
}

/// A question to several backends.
pub(crate) struct Inquiry {
    pub(crate) home: Arc<Home>,
    pub(crate) backends: Option<Vec<String>>,
    pub(crate) collection: String,
    pub(crate) search: Search,
    pub(crate) timeout: Option<Duration>,
    pub(crate) on_error: OnError,
    /// Without one, who has the collection is all that is asked.
    pub(crate) query: Option<Vec<f32>>,
}

/// What is to be done with all indexes and a shelf.
pub(crate) enum Keep {
    Save,
    Load,
}

/// A question about all indexes.
pub(crate) struct Keeping {
    pub(crate) home: Arc<Home>,
    pub(crate) shelf: Arc<dyn Shelf>,
    pub(crate) verb: Keep,
}

/// What comes of a question.
pub(crate) enum Answer {
    Hits(Vec<LakeHit>),
    Batch(Vec<Vec<LakeHit>>),
    Federated(Vec<LakeHit>, Vec<Part>),
    Primed(Target),
    Index(Box<limnion_index::FlatIndex>),
    Forgotten(bool),
    Target(Target),
    Targets(Vec<Target>),
    Witness(String),
    Bundle(Box<LakeBundle>),
    Compared(RefreshResult),
    Warmed(Warmed),
}

/// An answer, and whom it was asked of.
pub(crate) type Told = (Arc<Home>, Result<Answer>);

type Then = Box<dyn FnOnce(Result<Answer>) + Send>;

/// Who asks: how much may be computed in which thread.
#[derive(Clone, Copy)]
struct Asker {
    thread: ThreadId,
    bytes: usize,
}

impl Asker {
    /// Whether the thread that asks may compute the answer itself.
    fn may_wait_for(&self, ready: &Ready, query: &[f32], search: &Search) -> bool {
        let bytes = || match search.options.recall {
            Some(1.0) => ready.len().saturating_mul(size_of_val(query)),
            _ => ready.scan_bytes(),
        };
        thread::current().id() == self.thread && (self.bytes == usize::MAX || bytes() <= self.bytes)
    }
}

/// Something that can be asked.
pub(crate) trait Ask: Send + Sized + 'static {
    fn home(&self) -> &Arc<Home>;
    fn timeout(&self) -> Option<Duration>;
    /// How much longer than that the lake may take to say who is late.
    const GRACE: Duration = Duration::ZERO;
    /// Calls `then` with the answer, now or from another thread; blocks nobody.
    fn ask(self, asker: Sure, then: Then);
}

/// Who asks, and the job to be given up with.
pub(crate) struct Sure {
    asker: Asker,
    job: Arc<Job>,
    deadline: Option<Instant>,
}

/// Waits for the answer; Ctrl-C ends the wait.
pub(crate) fn wait<A: Ask>(py: Python<'_>, question: A) -> PyResult<Told> {
    let (home, timeout) = (question.home().clone(), question.timeout());
    let mut watch = Watch::silent();
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let asker = Asker { thread: thread::current().id(), bytes: usize::MAX };
    let sure = Sure { asker, job: watch.job(), deadline };
    let (later, put) = Later::new();
    py.outside(|| question.ask(sure, Box::new(put)));
    if let Some(answer) = later.take() {
        return Ok((home, answer));
    }
    let (answer, task) = Task::promised();
    later.then(answer);
    drop(later); // or nobody would notice that whoever was to answer is gone
    let limit = deadline.and_then(|deadline| deadline.checked_add(A::GRACE));
    let answer = task.wait_until(py, &mut watch, limit)?;
    Ok((home, answer.unwrap_or_else(|| Err(late(timeout)))))
}

/// The answer, to be awaited. What is asked is asked with the first await.
pub(crate) fn coroutine<A: Ask>(question: A, wrap: fn(Python<'_>, Told) -> PyResult<Py<PyAny>>) -> Coroutine {
    Coroutine::new(move |py| {
        let (home, timeout) = (question.home().clone(), question.timeout());
        let job = Arc::new(Job::new());
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let asker = Asker { thread: thread::current().id(), bytes: ON_THE_SPOT };
        let (later, put) = Later::new();
        let sure = Sure { asker, job: job.clone(), deadline };
        py.outside(|| question.ask(sure, Box::new(put)));
        if let Some(answer) = later.take() {
            return wrap(py, (home, answer)).map(Step::Done);
        }
        let limit = timeout.map(|timeout| (timeout.saturating_add(A::GRACE), late(Some(timeout))));
        begun(py, wrap, &job, limit, |delivery| {
            later.then(move |answer| delivery.answer(Ok((home, answer))));
        })
    })
}

fn late(timeout: Option<Duration>) -> Error {
    let seconds = timeout.unwrap_or_default().as_secs_f64();
    Error::new(ErrorKind::DeadlineExceeded, format!("the answer did not come within {seconds} s"))
        .suggest("give it more time; what is being built goes on, and later searches find it")
}

/// Runs what may block in a thread of its own.
fn errand(work: impl FnOnce() -> Result<Answer> + Send + 'static, then: Then) {
    let (later, put) = Later::new();
    later.then(then);
    let errand = move || put(pool::guarded(work));
    let begun = thread::Builder::new().name("limnion-errand".to_owned()).spawn(errand);
    if let Err(error) = begun {
        // The closure is gone, and `then` with it: the await hears that the work was lost.
        drop((later, error));
    }
}

impl Ask for Question {
    fn home(&self) -> &Arc<Home> {
        &self.home
    }

    fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    fn ask(self, sure: Sure, then: Then) {
        let home = self.home.clone();
        let lake = match home.lake() {
            Ok(lake) => lake,
            Err(error) => return then(Err(error)),
        };
        match lake.known(self.backend.as_deref(), &self.collection) {
            Err(error) => then(Err(error)),
            Ok(Some(target)) => self.at(target, sure, then),
            // Backends have to be asked, which may take any time.
            Ok(None) => {
                let finding = home.clone();
                let (backend, collection) = (self.backend.clone(), self.collection.clone());
                let work = move || Ok(Answer::Target(finding.lake()?.find(backend.as_deref(), &collection)?));
                let next = move |answer| match answer {
                    Ok(Answer::Target(target)) => self.at(target, sure, then),
                    other => then(other),
                };
                errand(work, Box::new(next));
            }
        }
    }
}

impl Question {
    fn at(mut self, target: Target, sure: Sure, then: Then) {
        let home = self.home.clone();
        let lake = match home.lake() {
            Ok(lake) => lake,
            Err(error) => return then(Err(error)),
        };
        self.search.deadline = sure.deadline;
        match &self.verb {
            Verb::Find => return then(Ok(Answer::Target(target))),
            Verb::Invalidate => return then(Ok(Answer::Forgotten(lake.invalidate(&target)))),
            Verb::Refresh => {
                let work = move || {
                    self.home.lake()?.refresh(&target, sure.deadline, &sure.job)?;
                    Ok(Answer::Primed(target))
                };
                return errand(work, then);
            }
            Verb::One(_) | Verb::Batch(..) if matches!(self.search.among, Some(Where::Matching(_))) => {
                return errand(move || self.do_slowly(&target, &sure.job), then);
            }
            Verb::Hybrid(..) | Verb::Publish(..) | Verb::Take(..) | Verb::Compare(_) => {
                return errand(move || self.do_slowly(&target, &sure.job), then);
            }
            Verb::One(_) | Verb::Batch(..) | Verb::Prime | Verb::Index => {}
        }
        if self.search.cached_only && !lake.is_cached(&target) {
            return then(Err(cache_miss(&target)));
        }
        lake.prepare_then(&target.clone(), move |ready| match ready {
            Err(error) => then(Err(error)),
            Ok(ready) => self.with(ready, target, &sure, then),
        });
    }

    /// Goes on with an index that is at hand: here where that may be, else on the pool.
    fn with(self, ready: Ready, target: Target, sure: &Sure, then: Then) {
        match &self.verb {
            Verb::One(query) if sure.asker.may_wait_for(&ready, query, &self.search) => {
                then(self.compute(&ready, &sure.job));
            }
            Verb::One(_) | Verb::Batch(..) => {
                let job = sure.job.clone();
                let work = move || {
                    job.check()?;
                    self.compute(&ready, &job)
                };
                pool::spawn(work, then);
            }
            Verb::Index => then(ready.index().map(|index| Answer::Index(Box::new(index))).ok_or_else(|| {
                let message = format!("{target} must have rows to be looked at as an index, and has none");
                Error::new(ErrorKind::EmptyIndex, message)
            })),
            _ => then(Ok(Answer::Primed(target))),
        }
    }

    fn compute(&self, ready: &Ready, job: &Job) -> Result<Answer> {
        let among = match &self.search.among {
            Some(Where::Ids(ids)) => Some(ids),
            _ => None,
        };
        let options = &self.search.options;
        match &self.verb {
            Verb::Batch(queries, dim) => {
                ready.search_batch(queries, *dim, options, among, job).map(Answer::Batch)
            }
            Verb::One(query) => ready.search(query, options, among).map(Answer::Hits),
            _ => Err(Error::new(ErrorKind::Internal, "there is nothing to compute")),
        }
    }

    /// What may wait for a backend or for a shelf.
    fn do_slowly(&self, target: &Target, job: &Job) -> Result<Answer> {
        let lake = self.home.lake()?;
        let search = &self.search;
        match &self.verb {
            Verb::Batch(queries, dim) => {
                lake.search_batch(target, queries, *dim, search, job).map(Answer::Batch)
            }
            Verb::One(query) => lake.search(target, query, search, job).map(Answer::Hits),
            Verb::Hybrid(query, hybrid) => {
                lake.search_hybrid(target, query, hybrid, search, job).map(Answer::Hits)
            }
            Verb::Publish(shelf, notes) => {
                let bundle = lake.publish(target, &**shelf, notes.clone(), search.deadline, job)?;
                Ok(Answer::Witness(bundle.witness))
            }
            Verb::Take(shelf, verify) => {
                lake.take(target, &**shelf, *verify).map(|bundle| Answer::Bundle(Box::new(bundle)))
            }
            Verb::Compare(shelf) => lake.refresh_from(target, &**shelf).map(Answer::Compared),
            _ => Err(Error::new(ErrorKind::Internal, "there is nothing to be done slowly")),
        }
    }
}

impl Ask for Keeping {
    fn home(&self) -> &Arc<Home> {
        &self.home
    }

    fn timeout(&self) -> Option<Duration> {
        None
    }

    fn ask(self, sure: Sure, then: Then) {
        let work = move || {
            let lake = self.home.lake()?;
            match self.verb {
                Keep::Save => lake.save_to(&*self.shelf, &sure.job).map(Answer::Targets),
                Keep::Load => lake.warm_from(&*self.shelf, &sure.job).map(Answer::Warmed),
            }
        };
        errand(work, then);
    }
}

impl Ask for Inquiry {
    const GRACE: Duration = Duration::from_millis(200);

    fn home(&self) -> &Arc<Home> {
        &self.home
    }

    fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    fn ask(mut self, sure: Sure, then: Then) {
        self.search.deadline = sure.deadline;
        match self.preparing() {
            Err(error) => then(Err(error)),
            Ok(Some(preparing)) if preparing.is_ready() => {
                let shards = preparing.wait(&sure.job);
                let job = sure.job.clone();
                if shards.is_small() && shards.scan_bytes() <= sure.asker.bytes {
                    return then(self.compute(&shards, &job));
                }
                pool::spawn(move || self.compute(&shards, &job), then);
            }
            Ok(preparing) => errand(move || self.compute_slowly(preparing, &sure.job), then),
        }
    }
}

impl Inquiry {
    /// The collections on their way, where backends need not be asked which they are.
    fn preparing(&self) -> Result<Option<Preparing>> {
        let lake = self.home.lake()?;
        let known =
            self.query.as_ref().and_then(|_| lake.known_all(self.backends.as_deref(), &self.collection));
        Ok(known.map(|targets| lake.prepare_all(&targets, &self.search)))
    }

    fn compute(&self, shards: &Shards, job: &Job) -> Result<Answer> {
        let query = self.query.as_deref().unwrap_or_default();
        let Federated { hits, report } = shards.search(query, &self.search.options, self.on_error, job)?;
        Ok(Answer::Federated(hits, report))
    }

    fn compute_slowly(&self, preparing: Option<Preparing>, job: &Job) -> Result<Answer> {
        let preparing = match preparing {
            Some(preparing) => preparing,
            None => {
                let lake = self.home.lake()?;
                let targets = lake.find_all(self.backends.as_deref(), &self.collection)?;
                if self.query.is_none() {
                    return Ok(Answer::Targets(targets));
                }
                lake.prepare_all(&targets, &self.search)
            }
        };
        let shards = preparing.wait(job);
        let mut answer = Err(late(self.timeout));
        pool::install(&mut || answer = self.compute(&shards, job));
        answer
    }
}

fn cache_miss(target: &Target) -> Error {
    Error::new(ErrorKind::CacheMiss, format!("no index of {target} is in memory"))
        .suggest("build it with prime, or search without cached_only")
}
