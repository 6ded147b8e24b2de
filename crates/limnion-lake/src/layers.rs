//! Wrappers of backends: each is a backend itself, adds one habit, and leaves everything else to the one inside.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use limnion_lake::{Backend, Limit, LocalBackend, Metered, Retry, Timed};
//!
//! let metered = Arc::new(Metered::new(Arc::new(LocalBackend::new("hot"))));
//! let timed = Arc::new(Timed::new(metered.clone(), Duration::from_secs(2)));
//! let backend = Retry::new(Arc::new(Limit::new(timed, 8)), 3);
//! assert!(backend.collections()?.is_empty());
//! assert_eq!(metered.metrics().calls, 1);
//! # Ok::<(), limnion_types::Error>(())
//! ```

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use limnion_types::{Error, ErrorKind, Filter, Job, Result};

use crate::backend::{Backend, Changes, Description, Generation, Id, Ids, Rows, Sink};
use crate::names;

/// How often a waiting thread looks whether its job is cancelled.
const TICK: Duration = Duration::from_millis(50);

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sleeps, unless the job is cancelled before that.
fn sleep(time: Duration, job: Option<&Job>) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        job.map_or(Ok(()), Job::check)?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(TICK));
    }
}

/// How long to wait before an attempt is repeated: a random time, the range of which doubles each time. That many who
/// failed together do not come again together.
pub(crate) fn pause(shortest: Duration, longest: Duration, failures: u32) -> Duration {
    let range = shortest.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(longest);
    let nanos = u64::try_from(range.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos((names::unique() % (u128::from(nanos) + 1)) as u64)
}

/// Tries again what has failed, after a pause that grows and is partly random.
///
/// Only errors of kind `Backend` are tried again. A pull that has begun to hand over rows is not: whoever takes them
/// begins anew.
pub struct Retry {
    inner: Arc<dyn Backend>,
    attempts: u32,
    shortest: Duration,
    longest: Duration,
}

impl Retry {
    /// Tries up to so many times, 1 at least, with pauses of up to 100 ms after the first failure and 5 s later.
    pub fn new(inner: Arc<dyn Backend>, attempts: u32) -> Self {
        let (shortest, longest) = (Duration::from_millis(100), Duration::from_secs(5));
        Self { inner, attempts: attempts.max(1), shortest, longest }
    }

    /// The longest pause after the first failure, and after any.
    #[must_use]
    pub fn pauses(mut self, shortest: Duration, longest: Duration) -> Self {
        (self.shortest, self.longest) = (shortest, longest.max(shortest));
        self
    }

    /// `call` says with its answer whether it may be repeated.
    fn tried<T>(&self, job: Option<&Job>, mut call: impl FnMut() -> (Result<T>, bool)) -> Result<T> {
        let mut failures = 0;
        loop {
            let (answer, repeatable) = call();
            let Err(error) = answer else { return answer };
            failures += 1;
            if !repeatable || error.kind() != ErrorKind::Backend {
                return Err(error);
            }
            if failures >= self.attempts {
                return Err(match failures {
                    1 => error,
                    _ => error.within(format_args!("after {failures} attempts")),
                });
            }
            sleep(pause(self.shortest, self.longest, failures), job)?;
        }
    }
}

/// Notes whether anything has been handed over.
struct Noted<'a> {
    sink: &'a mut dyn Sink,
    begun: bool,
}

impl Sink for Noted<'_> {
    fn begin(&mut self, description: &Description) -> Result<()> {
        self.begun = true;
        self.sink.begin(description)
    }

    fn push(&mut self, rows: Rows) -> Result<()> {
        self.begun = true;
        self.sink.push(rows)
    }
}

impl Backend for Retry {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn collections(&self) -> Result<Vec<String>> {
        self.tried(None, || (self.inner.collections(), true))
    }

    fn describe(&self, collection: &str) -> Result<Description> {
        self.tried(None, || (self.inner.describe(collection), true))
    }

    fn generation(&self, collection: &str) -> Result<Generation> {
        self.tried(None, || (self.inner.generation(collection), true))
    }

    fn is_quick(&self) -> bool {
        // Pauses are not quick; but what is quick does no I/O that could fail.
        self.inner.is_quick()
    }

    fn pull(&self, collection: &str, sink: &mut dyn Sink, job: &Job) -> Result<()> {
        self.tried(Some(job), || {
            let mut sink = Noted { sink: &mut *sink, begun: false };
            let answer = self.inner.pull(collection, &mut sink, job);
            (answer, !sink.begun)
        })
    }

    fn changes(&self, collection: &str, since: &Generation) -> Result<Option<Changes>> {
        self.tried(None, || (self.inner.changes(collection, since), true))
    }

    fn when_changed(&self, collection: &str, from: &Generation, wake: Box<dyn FnOnce() + Send>) -> bool {
        self.inner.when_changed(collection, from, wake)
    }

    fn select(&self, collection: &str, filter: &Filter) -> Result<Option<(Ids, Generation)>> {
        self.tried(None, || (self.inner.select(collection, filter), true))
    }

    fn text_search(&self, collection: &str, query: &str, k: usize) -> Result<Option<Vec<(Id, f32)>>> {
        self.tried(None, || (self.inner.text_search(collection, query, k), true))
    }
}

/// Lets so many calls through at once; others wait, and come in the order in which they came.
///
/// Asking for a generation is not a call where that is quick, and neither is [`Backend::when_changed`].
pub struct Limit {
    inner: Arc<dyn Backend>,
    gate: Mutex<Gate>,
}

struct Gate {
    free: usize,
    waiting: VecDeque<Arc<Turn>>,
}

#[derive(Default)]
struct Turn {
    come: Mutex<bool>,
    change: Condvar,
}

/// A place inside, given to the next when it is dropped, also in a panic.
struct Place<'a>(&'a Mutex<Gate>);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut gate = held(self.0);
        match gate.waiting.pop_front() {
            Some(next) => {
                *held(&next.come) = true;
                next.change.notify_one();
            }
            None => gate.free += 1,
        }
    }
}

impl Limit {
    /// At most so many calls at once, 1 at least.
    pub fn new(inner: Arc<dyn Backend>, calls: usize) -> Self {
        Self { inner, gate: Mutex::new(Gate { free: calls.max(1), waiting: VecDeque::new() }) }
    }

    fn enter(&self, job: Option<&Job>) -> Result<Place<'_>> {
        let turn = {
            let mut gate = held(&self.gate);
            // Places are given on, so that none is free while anybody waits.
            if gate.free > 0 {
                gate.free -= 1;
                return Ok(Place(&self.gate));
            }
            let turn = Arc::new(Turn::default());
            gate.waiting.push_back(turn.clone());
            turn
        };
        let mut come = held(&turn.come);
        while !*come {
            come = turn.change.wait_timeout(come, TICK).unwrap_or_else(PoisonError::into_inner).0;
            if let Err(cancelled) = job.map_or(Ok(()), Job::check)
                && !*come
            {
                drop(come);
                let mut gate = held(&self.gate);
                let there = gate.waiting.len();
                gate.waiting.retain(|other| !Arc::ptr_eq(other, &turn));
                let given = gate.waiting.len() == there;
                drop(gate);
                if given {
                    drop(Place(&self.gate));
                }
                return Err(cancelled);
            }
        }
        Ok(Place(&self.gate))
    }
}

impl Backend for Limit {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn collections(&self) -> Result<Vec<String>> {
        let _place = self.enter(None)?;
        self.inner.collections()
    }

    fn describe(&self, collection: &str) -> Result<Description> {
        let _place = self.enter(None)?;
        self.inner.describe(collection)
    }

    fn generation(&self, collection: &str) -> Result<Generation> {
        let _place = if self.inner.is_quick() { None } else { Some(self.enter(None)?) };
        self.inner.generation(collection)
    }

    fn is_quick(&self) -> bool {
        self.inner.is_quick()
    }

    fn pull(&self, collection: &str, sink: &mut dyn Sink, job: &Job) -> Result<()> {
        let _place = self.enter(Some(job))?;
        self.inner.pull(collection, sink, job)
    }

    fn changes(&self, collection: &str, since: &Generation) -> Result<Option<Changes>> {
        let _place = self.enter(None)?;
        self.inner.changes(collection, since)
    }

    fn when_changed(&self, collection: &str, from: &Generation, wake: Box<dyn FnOnce() + Send>) -> bool {
        self.inner.when_changed(collection, from, wake)
    }

    fn select(&self, collection: &str, filter: &Filter) -> Result<Option<(Ids, Generation)>> {
        let _place = self.enter(None)?;
        self.inner.select(collection, filter)
    }

    fn text_search(&self, collection: &str, query: &str, k: usize) -> Result<Option<Vec<(Id, f32)>>> {
        let _place = self.enter(None)?;
        self.inner.text_search(collection, query, k)
    }
}

/// Ends calls that take longer than a limit with `DeadlineExceeded`.
///
/// Each call runs on a thread of its own, which is left behind when the limit has passed: what it answers then, nobody
/// sees. While too many hang so, further calls fail at once. A panic in the backend is an error of kind `Backend`. Asking
/// for a generation goes straight to the backend where that is quick.
pub struct Timed {
    inner: Arc<dyn Backend>,
    limit: Duration,
    pull_limit: Duration,
    most: usize,
    hanging: Arc<AtomicUsize>,
}

/// Threads that may hang at once.
const HANGING: usize = 16;
/// Pieces of rows that wait for the sink.
const PIECES: usize = 2;

/// What a pull sends to the thread that waits for it.
enum Sent {
    Begin(Description),
    Rows(Rows),
    End(Result<()>),
}

struct Sender {
    channel: SyncSender<Sent>,
}

impl Sender {
    fn send(&self, sent: Sent) -> Result<()> {
        let gone = |_| Error::new(ErrorKind::Cancelled, "nobody waits for these rows any more");
        self.channel.send(sent).map_err(gone)
    }
}

impl Sink for Sender {
    fn begin(&mut self, description: &Description) -> Result<()> {
        self.send(Sent::Begin(description.clone()))
    }

    fn push(&mut self, rows: Rows) -> Result<()> {
        self.send(Sent::Rows(rows))
    }
}

/// One of the threads that run a call; while it is not waited for any more, it counts as hanging.
struct Running {
    state: Arc<AtomicUsize>,
    hanging: Arc<AtomicUsize>,
}

const WAITED_FOR: usize = 0;
const LEFT: usize = 1;
const DONE: usize = 2;

impl Drop for Running {
    fn drop(&mut self) {
        if self.state.swap(DONE, Ordering::AcqRel) == LEFT {
            self.hanging.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Timed {
    /// Calls may take so long, pulls too.
    pub fn new(inner: Arc<dyn Backend>, limit: Duration) -> Self {
        Self { inner, limit, pull_limit: limit, most: HANGING, hanging: Arc::default() }
    }

    /// Pulls may take so long, not counting the time that the sink takes.
    #[must_use]
    pub fn pulls(mut self, limit: Duration) -> Self {
        self.pull_limit = limit;
        self
    }

    /// So many calls may hang at once, 1 at least; 16 where this is not called.
    #[must_use]
    pub fn hanging(mut self, most: usize) -> Self {
        self.most = most.max(1);
        self
    }

    /// How many threads hang in the backend now.
    pub fn left_behind(&self) -> usize {
        self.hanging.load(Ordering::Acquire)
    }

    /// Runs on a thread of its own, and gives back what says whether somebody still waits for it.
    fn start(&self, work: impl FnOnce(&dyn Backend) + Send + 'static) -> Result<Arc<AtomicUsize>> {
        let left = self.left_behind();
        if left >= self.most {
            return Err(Error::new(
                ErrorKind::DeadlineExceeded,
                format!(
                    "backend {:?}: {left} calls that took longer than {:?} have not come back yet",
                    self.name(),
                    self.limit
                ),
            ));
        }
        let state = Arc::new(AtomicUsize::new(WAITED_FOR));
        let running = Running { state: state.clone(), hanging: self.hanging.clone() };
        let inner = self.inner.clone();
        thread::Builder::new()
            .name("limnion-timed".to_owned())
            .spawn(move || {
                let _running = running;
                work(&*inner);
            })
            .map_err(|error| names::failed(self.name(), format!("no thread for a call: {error}")))?;
        Ok(state)
    }

    /// Nobody waits for this call any more.
    fn leave(&self, state: &AtomicUsize) {
        self.hanging.fetch_add(1, Ordering::AcqRel);
        if state.compare_exchange(WAITED_FOR, LEFT, Ordering::AcqRel, Ordering::Acquire).is_err() {
            self.hanging.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn late(&self, what: &str, limit: Duration) -> Error {
        let message = format!("backend {:?}: {what} took longer than {limit:?}", self.name());
        Error::new(ErrorKind::DeadlineExceeded, message)
    }

    fn panicked(&self, what: &str) -> Error {
        names::failed(self.name(), format!("{what} panicked"))
    }

    fn call<T: Send + 'static>(
        &self,
        what: &str,
        call: impl FnOnce(&dyn Backend) -> T + Send + 'static,
    ) -> Result<T> {
        let (tell, answer) = sync_channel(1);
        let state = self.start(move |backend| {
            if let Ok(done) = catch_unwind(AssertUnwindSafe(|| call(backend))) {
                // Nobody may wait any more.
                let _ = tell.send(done);
            }
        })?;
        match answer.recv_timeout(self.limit) {
            Ok(done) => Ok(done),
            Err(RecvTimeoutError::Disconnected) => Err(self.panicked(what)),
            Err(RecvTimeoutError::Timeout) => {
                self.leave(&state);
                Err(self.late(what, self.limit))
            }
        }
    }
}

impl Backend for Timed {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn collections(&self) -> Result<Vec<String>> {
        self.call("collections", |backend| backend.collections())?
    }

    fn describe(&self, collection: &str) -> Result<Description> {
        let collection = collection.to_owned();
        self.call("describe", move |backend| backend.describe(&collection))?
    }

    fn generation(&self, collection: &str) -> Result<Generation> {
        if self.inner.is_quick() {
            return self.inner.generation(collection);
        }
        let collection = collection.to_owned();
        self.call("generation", move |backend| backend.generation(&collection))?
    }

    fn is_quick(&self) -> bool {
        self.inner.is_quick()
    }

    fn pull(&self, collection: &str, sink: &mut dyn Sink, job: &Job) -> Result<()> {
        let (channel, pieces) = sync_channel(PIECES);
        let (collection, inside) = (collection.to_owned(), Arc::new(Job::new()));
        let mut sender = Sender { channel };
        let state = self.start({
            let inside = inside.clone();
            move |backend| {
                let pull = || backend.pull(&collection, &mut sender, &inside);
                if let Ok(end) = catch_unwind(AssertUnwindSafe(pull)) {
                    // Nobody may wait any more.
                    let _ = sender.send(Sent::End(end));
                }
            }
        })?;
        let (mut left, mut done) = (self.pull_limit, 0);
        let result = loop {
            if let Err(cancelled) = job.check() {
                break Err(cancelled);
            }
            let since = Instant::now();
            let sent = pieces.recv_timeout(left.min(TICK));
            left = left.saturating_sub(since.elapsed());
            let now = inside.done();
            job.advance(now.saturating_sub(done));
            done = now;
            let taken = match sent {
                Ok(Sent::Begin(description)) => sink.begin(&description),
                Ok(Sent::Rows(rows)) => sink.push(rows),
                Ok(Sent::End(end)) => return end,
                Err(RecvTimeoutError::Disconnected) => return Err(self.panicked("pull")),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => Err(self.late("pull", self.pull_limit)),
                Err(RecvTimeoutError::Timeout) => Ok(()),
            };
            if let Err(error) = taken {
                break Err(error);
            }
        };
        // The pull learns that it is over from its job, or from the channel, which is closed now.
        inside.cancel();
        self.leave(&state);
        result
    }

    fn changes(&self, collection: &str, since: &Generation) -> Result<Option<Changes>> {
        let (collection, since) = (collection.to_owned(), since.clone());
        self.call("changes", move |backend| backend.changes(&collection, &since))?
    }

    fn when_changed(&self, collection: &str, from: &Generation, wake: Box<dyn FnOnce() + Send>) -> bool {
        let (collection, from) = (collection.to_owned(), from.clone());
        self.call("when_changed", move |backend| backend.when_changed(&collection, &from, wake))
            .unwrap_or(false)
    }

    fn select(&self, collection: &str, filter: &Filter) -> Result<Option<(Ids, Generation)>> {
        let (collection, filter) = (collection.to_owned(), filter.clone());
        self.call("select", move |backend| backend.select(&collection, &filter))?
    }

    fn text_search(&self, collection: &str, query: &str, k: usize) -> Result<Option<Vec<(Id, f32)>>> {
        let (collection, query) = (collection.to_owned(), query.to_owned());
        self.call("text_search", move |backend| backend.text_search(&collection, &query, k))?
    }
}

/// Counts what is asked of a backend.
pub struct Metered {
    inner: Arc<dyn Backend>,
    calls: AtomicU64,
    errors: AtomicU64,
    pulls: AtomicU64,
    rows: AtomicU64,
    nanos: AtomicU64,
}

/// What a [`Metered`] backend has been asked so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Calls that have ended, of any kind.
    pub calls: u64,
    /// How many of them gave an error, or panicked.
    pub errors: u64,
    /// How many of them were pulls.
    pub pulls: u64,
    /// Rows that pulls and changes have handed over.
    pub rows: u64,
    /// How long all of them took together, sinks included.
    pub time: Duration,
}

/// A call in progress. One that does not come to an end has panicked.
struct Call<'a> {
    meter: &'a Metered,
    since: Instant,
    failed: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let nanos = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.meter.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.meter.errors.fetch_add(self.failed.into(), Ordering::Relaxed);
        self.meter.calls.fetch_add(1, Ordering::Relaxed);
    }
}

struct Counted<'a> {
    sink: &'a mut dyn Sink,
    rows: &'a AtomicU64,
}

impl Sink for Counted<'_> {
    fn begin(&mut self, description: &Description) -> Result<()> {
        self.sink.begin(description)
    }

    fn push(&mut self, rows: Rows) -> Result<()> {
        self.rows.fetch_add(rows.ids.len() as u64, Ordering::Relaxed);
        self.sink.push(rows)
    }
}

impl Metered {
    /// Counts from zero.
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        let zero = AtomicU64::default;
        Self { inner, calls: zero(), errors: zero(), pulls: zero(), rows: zero(), nanos: zero() }
    }

    /// The counts so far.
    pub fn metrics(&self) -> Metrics {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Metrics {
            calls: read(&self.calls),
            errors: read(&self.errors),
            pulls: read(&self.pulls),
            rows: read(&self.rows),
            time: Duration::from_nanos(read(&self.nanos)),
        }
    }

    fn counted<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut counted = Call { meter: self, since: Instant::now(), failed: true };
        let answer = call();
        counted.failed = answer.is_err();
        answer
    }
}

impl Backend for Metered {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn collections(&self) -> Result<Vec<String>> {
        self.counted(|| self.inner.collections())
    }

    fn describe(&self, collection: &str) -> Result<Description> {
        self.counted(|| self.inner.describe(collection))
    }

    fn generation(&self, collection: &str) -> Result<Generation> {
        self.counted(|| self.inner.generation(collection))
    }

    fn is_quick(&self) -> bool {
        self.inner.is_quick()
    }

    fn pull(&self, collection: &str, sink: &mut dyn Sink, job: &Job) -> Result<()> {
        self.counted(|| {
            self.pulls.fetch_add(1, Ordering::Relaxed);
            self.inner.pull(collection, &mut Counted { sink, rows: &self.rows }, job)
        })
    }

    fn changes(&self, collection: &str, since: &Generation) -> Result<Option<Changes>> {
        self.counted(|| {
            let changes = self.inner.changes(collection, since)?;
            let rows = changes.as_ref().map_or(0, |changes| changes.upserts.ids.len());
            self.rows.fetch_add(rows as u64, Ordering::Relaxed);
            Ok(changes)
        })
    }

    fn when_changed(&self, collection: &str, from: &Generation, wake: Box<dyn FnOnce() + Send>) -> bool {
        self.inner.when_changed(collection, from, wake)
    }

    fn select(&self, collection: &str, filter: &Filter) -> Result<Option<(Ids, Generation)>> {
        self.counted(|| self.inner.select(collection, filter))
    }

    fn text_search(&self, collection: &str, query: &str, k: usize) -> Result<Option<Vec<(Id, f32)>>> {
        self.counted(|| self.inner.text_search(collection, query, k))
    }
}
