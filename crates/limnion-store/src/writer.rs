//! The one thread that writes.
//!
//! Whoever wants to write leaves a request in the queue and is called back. The writer takes all batches that wait, makes
//! each a commit of its own, and syncs them together: sixty-four who wait pay for one sync. Nothing that happens to the
//! one who waits can tear a batch: it belongs to the writer from the moment it was handed in.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use limnion_types::{Error, ErrorKind, Result};
use quick_cache::DefaultHashBuilder;

use crate::clock;
use crate::commit::{Stamped, Stamper};
use crate::engine::{Engine, Head, Transaction};
use crate::hot::Hot;
use crate::maintenance::Housekeeping;
use crate::model::{Batch, Micros, Receipt, Record, Seq};
use crate::options::Options;
use crate::read::Reading;
use crate::witness::Witness;

/// Batches that share a sync, at most.
const GROUP: usize = 1024;
/// Who hands in more than this waits for room.
const ROOM: usize = 1 << 20;
/// How long a group waits for those who were there a moment ago, as a part of the last sync, and at most.
const PATIENCE: u32 = 4;
const MOST_PATIENCE: Duration = Duration::from_micros(500);

/// What the writer shares with everybody else.
pub(crate) struct Shared {
    pub(crate) reading: Reading,
    pub(crate) hot: Hot,
    pub(crate) options: Options,
    head: Mutex<Head>,
    /// The number of the head, for a quick look.
    seq: AtomicU64,
    /// Whether the engine may have a commit that the head does not tell of yet: who reads a record sees it there already.
    committing: AtomicBool,
    pub(crate) closed: AtomicBool,
    waiting: Mutex<Vec<Waiter>>,
    writes: RwLock<Writes>,
    issues: Mutex<Vec<String>>,
    /// Points in history that somebody is reading at: retention leaves them alone.
    pins: Mutex<HashMap<Seq, usize>>,
    /// The earliest moment at which some record runs out, as far as is known.
    pub(crate) next_expiry: AtomicU64,
}

type Wake = Box<dyn FnOnce() + Send>;

/// Who waits for a commit after `after`: any, or one that writes to a namespace.
struct Waiter {
    after: Seq,
    namespace: Option<Arc<str>>,
    wake: Wake,
}

/// The newest commit that wrote to each namespace.
#[derive(Default)]
struct Writes {
    /// The newest commit when the store was opened, which stands for all before it.
    opened: Head,
    done: HashMap<Arc<str>, Head, DefaultHashBuilder>,
    /// Of the transaction that is under way: it may be there for readers already.
    pending: HashMap<Arc<str>, Head, DefaultHashBuilder>,
}

impl Writes {
    fn done(&self, namespace: &str) -> Head {
        self.done.get(namespace).copied().unwrap_or(self.opened)
    }
}

type Done = Box<dyn FnOnce(Result<Receipt>) + Send>;

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(reading: Reading, hot: Hot, options: Options, head: Head, issues: Vec<String>) -> Self {
        Self {
            reading,
            hot,
            options,
            head: Mutex::new(head),
            seq: AtomicU64::new(head.seq),
            committing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            waiting: Mutex::default(),
            writes: RwLock::new(Writes { opened: head, ..Writes::default() }),
            issues: Mutex::new(issues),
            pins: Mutex::default(),
            // Somebody may have run out while the store was closed.
            next_expiry: AtomicU64::new(0),
        }
    }

    /// The newest commit; beside a foreign writer, the newest one that can be seen.
    pub(crate) fn head(&self) -> Result<Head> {
        // Nobody must see less than he has seen before, whichever way he looks.
        if self.options.read_only || self.committing.load(Ordering::SeqCst) {
            return self.reading.engine.head();
        }
        Ok(*held(&self.head))
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::DatabaseClosed, "the database is closed")
                .suggest("open it again; inside `async with` it stays open"));
        }
        Ok(())
    }

    /// Calls `wake` once there is a commit after `seq`, or the store is closed.
    pub(crate) fn when_after(&self, seq: Seq, wake: impl FnOnce() + Send + 'static) {
        self.wait(Waiter { after: seq, namespace: None, wake: Box::new(wake) });
    }

    /// Calls `wake` once there is a commit after `seq` that wrote to a namespace, or the store is closed. Beside a foreign
    /// writer any commit counts.
    pub(crate) fn when_written(&self, namespace: &str, seq: Seq, wake: impl FnOnce() + Send + 'static) {
        let namespace = (!self.options.read_only).then(|| namespace.into());
        self.wait(Waiter { after: seq, namespace, wake: Box::new(wake) });
    }

    fn wait(&self, waiter: Waiter) {
        let mut waiting = held(&self.waiting);
        if self.is_due(&waiter) || self.closed.load(Ordering::Acquire) {
            drop(waiting);
            (waiter.wake)();
        } else {
            waiting.push(waiter);
        }
    }

    fn is_due(&self, waiter: &Waiter) -> bool {
        let newest = match &waiter.namespace {
            None => self.seq.load(Ordering::Acquire),
            Some(namespace) => self.writes.read().unwrap_or_else(PoisonError::into_inner).done(namespace).seq,
        };
        newest > waiter.after
    }

    /// The newest commit that wrote to a namespace: the newest one when the store was opened, where none has since. It
    /// takes no look at the database but while such a commit is under way.
    pub(crate) fn last_write(&self, namespace: &str) -> Result<Head> {
        let (pending, done) = {
            let writes = self.writes.read().unwrap_or_else(PoisonError::into_inner);
            (writes.pending.get(namespace).copied(), writes.done(namespace))
        };
        match pending {
            // Nobody must see less than he has seen before, whichever way he looks.
            Some(pending) if self.reading.engine.head()?.seq >= pending.seq => Ok(pending),
            _ => Ok(done),
        }
    }

    /// A transaction is about to be committed that wrote this.
    fn begin_writes(&self, written: &[Stamped]) {
        let mut writes = self.writes.write().unwrap_or_else(PoisonError::into_inner);
        writes.pending.clear();
        for stamped in written {
            let namespaces = stamped.namespaces.iter().cloned();
            writes.pending.extend(namespaces.map(|namespace| (namespace, stamped.head)));
        }
    }

    /// It has been.
    fn finish_writes(&self) {
        let mut writes = self.writes.write().unwrap_or_else(PoisonError::into_inner);
        let pending = std::mem::take(&mut writes.pending);
        writes.done.extend(pending);
    }

    /// Whether somebody waits for a commit.
    pub(crate) fn is_awaited(&self) -> bool {
        !held(&self.waiting).is_empty()
    }

    /// Tells everybody of a new head.
    pub(crate) fn advance(&self, head: Head) {
        *held(&self.head) = head;
        self.seq.store(head.seq, Ordering::Release);
        self.wake(|waiter| self.is_due(waiter));
    }

    /// Nothing more will come.
    pub(crate) fn end(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake(|_| true);
    }

    fn wake(&self, whom: impl Fn(&Waiter) -> bool) {
        let mut waiting = held(&self.waiting);
        let (awake, asleep) = waiting.drain(..).partition(|waiter| whom(waiter));
        *waiting = asleep;
        drop(waiting);
        for waiter in awake as Vec<Waiter> {
            (waiter.wake)();
        }
    }

    pub(crate) fn tell(&self, issue: String) {
        let mut issues = held(&self.issues);
        if !issues.contains(&issue) && issues.len() < 100 {
            issues.push(issue);
        }
    }

    pub(crate) fn issues(&self) -> Vec<String> {
        held(&self.issues).clone()
    }

    pub(crate) fn pin(self: &Arc<Self>, seq: Seq) -> Pin {
        *held(&self.pins).entry(seq).or_default() += 1;
        Pin { shared: self.clone(), seq }
    }

    pub(crate) fn pinned(&self) -> Vec<Seq> {
        held(&self.pins).keys().copied().collect()
    }
}

/// Keeps a point in history from retention, until it is dropped.
pub(crate) struct Pin {
    shared: Arc<Shared>,
    seq: Seq,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = held(&self.shared.pins);
        if let Some(count) = pins.get_mut(&self.seq) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.seq);
            }
        }
    }
}

/// What the writer's thread owns.
pub(crate) struct Core {
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) stamper: Stamper,
    pub(crate) witness: Option<Witness>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) head: Head,
    pub(crate) housekeeping: Housekeeping,
    /// Why nothing can be written any more.
    broken: Option<Error>,
}

enum Request {
    Batch(Batch, Done),
    Run(Box<dyn FnOnce(&mut Core) + Send>),
}

#[derive(Default)]
struct Queue {
    state: Mutex<Waiting>,
    arrived: Condvar,
    room: Condvar,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    closed: bool,
}

/// The queue, and the thread behind it.
pub(crate) struct Writer {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<Result<()>>>>,
}

impl Writer {
    pub(crate) fn start(core: Core) -> Result<Self> {
        let queue = Arc::new(Queue::default());
        let theirs = queue.clone();
        let thread = std::thread::Builder::new()
            .name("limnion-writer".to_owned())
            .spawn(move || {
                let _ending = Ending(&theirs);
                core.work(&theirs)
            })
            .map_err(|error| Error::new(ErrorKind::Internal, format!("no thread can be started: {error}")))?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    pub(crate) fn submit(&self, batch: Batch, done: impl FnOnce(Result<Receipt>) + Send + 'static) {
        if let Err(Request::Batch(_, done)) = self.push(Request::Batch(batch, Box::new(done))) {
            done(Err(closed()));
        }
    }

    /// Runs `work` in the writer's thread after all that was handed in before, and waits for it.
    pub(crate) fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Core) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let (sender, receiver) = sync_channel(1);
        let request = Request::Run(Box::new(move |core| {
            let answer = match &core.broken {
                Some(error) => Err(error.clone()),
                None => work(core),
            };
            let _ = sender.send(answer); // nobody waits any more
        }));
        if self.push(request).is_err() {
            return Err(closed());
        }
        receiver.recv().unwrap_or_else(|_| Err(closed()))
    }

    fn push(&self, request: Request) -> std::result::Result<(), Request> {
        let mut state = held(&self.queue.state);
        while state.requests.len() >= ROOM && !state.closed {
            state = self.queue.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return Err(request);
        }
        state.requests.push_back(request);
        drop(state);
        self.queue.arrived.notify_one();
        Ok(())
    }

    /// Finishes what was handed in, and ends the thread.
    pub(crate) fn close(&self) -> Result<()> {
        held(&self.queue.state).closed = true;
        self.queue.arrived.notify_one();
        self.queue.room.notify_all();
        let thread = held(&self.thread).take();
        match thread.map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(ended)) => ended,
            Some(Err(_)) => Err(Error::new(ErrorKind::Internal, "the writer has panicked")),
        }
    }
}

/// However the thread ends, nobody waits for it in vain.
struct Ending<'a>(&'a Queue);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut state = held(&self.0.state);
        state.closed = true;
        let left = std::mem::take(&mut state.requests);
        drop(state);
        self.0.room.notify_all();
        for request in left {
            if let Request::Batch(_, done) = request {
                done(Err(Error::new(ErrorKind::Internal, "the writer has ended before its time")
                    .suggest("nothing of this batch was written; close the database and open it again")));
            }
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::DatabaseClosed, "the database is closed")
        .suggest("open it again; inside `async with` it stays open")
}

impl Core {
    pub(crate) fn new(
        engine: Box<dyn Engine>,
        stamper: Stamper,
        witness: Option<Witness>,
        shared: Arc<Shared>,
        head: Head,
    ) -> Self {
        Self { engine, stamper, witness, shared, head, housekeeping: Housekeeping::default(), broken: None }
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    fn work(mut self, queue: &Queue) -> Result<()> {
        let mut company = Company::default();
        loop {
            let (group, last) = company.gather(queue, self.patience());
            let began = Instant::now();
            let mut batches = Vec::new();
            for request in group {
                match request {
                    Request::Batch(batch, done) => batches.push((batch, done)),
                    Request::Run(work) => {
                        self.group(std::mem::take(&mut batches));
                        work(&mut self);
                    }
                }
            }
            company.count = batches.len();
            self.group(batches);
            company.sync = began.elapsed();
            if last {
                return self.finish();
            }
            self.keep_house();
        }
    }

    /// Commits batches together.
    fn group(&mut self, batches: Vec<(Batch, Done)>) {
        if batches.is_empty() {
            return;
        }
        if let Some(error) = &self.broken {
            let error = error.clone();
            batches.into_iter().for_each(|(_, done)| done(Err(error.clone())));
            return;
        }
        let (batches, done): (Vec<Batch>, Vec<Done>) = batches.into_iter().unzip();
        match self.commit_batches(batches) {
            Ok(answers) => done.into_iter().zip(answers).for_each(|(done, answer)| done(answer)),
            Err(error) => done.into_iter().for_each(|done| done(Err(error.clone()))),
        }
    }

    fn commit_batches(&mut self, batches: Vec<Batch>) -> Result<Vec<Result<Receipt>>> {
        let now = clock::now();
        self.commit(|stamper, transaction, head| {
            let mut answers = Vec::with_capacity(batches.len());
            let mut written = Vec::with_capacity(batches.len());
            for batch in batches {
                match stamper.batch(transaction, head, now, batch) {
                    Ok(stamped) => {
                        answers.push(Ok(stamped.receipt));
                        written.push(stamped);
                    }
                    Err(error) if error.kind() == ErrorKind::Conflict => answers.push(Err(error)),
                    Err(error) => return Err(error),
                }
            }
            Ok((answers, written))
        })
    }

    /// One transaction: what `fill` writes into it is committed, seen by readers, remembered by the witness, and told to
    /// those who watch. After an error nothing has happened.
    pub(crate) fn commit<R>(
        &mut self,
        fill: impl FnOnce(&mut Stamper, &mut dyn Transaction, &mut Head) -> Result<(R, Vec<Stamped>)>,
    ) -> Result<R> {
        let done = self.try_commit(fill);
        self.shared.committing.store(false, Ordering::SeqCst);
        match done {
            Ok(answer) => Ok(answer),
            Err(error) => {
                self.shared.hot.finish(std::iter::empty());
                Err(self.recover(error))
            }
        }
    }

    fn try_commit<R>(
        &mut self,
        fill: impl FnOnce(&mut Stamper, &mut dyn Transaction, &mut Head) -> Result<(R, Vec<Stamped>)>,
    ) -> Result<R> {
        let mut head = self.head;
        let mut transaction = self.engine.begin()?;
        let (answer, written) = fill(&mut self.stamper, transaction.as_mut(), &mut head)?;
        for segment in self.stamper.appender.sync()? {
            transaction.set_segment(&segment)?;
        }
        let names = written.iter().flat_map(|stamped| &stamped.overwritten);
        self.shared.hot.begin(names.map(|(namespace, key)| (namespace, key)));
        self.shared.begin_writes(&written);
        self.shared.committing.store(true, Ordering::SeqCst);
        transaction.commit()?;
        self.shared.finish_writes();
        let changed = head != self.head;
        self.head = head;
        for stamped in &written {
            self.housekeeping.wrote(stamped);
            if let Some(expires) = stamped.expires {
                self.shared.next_expiry.fetch_min(expires, Ordering::AcqRel);
            }
        }
        self.shared.hot.finish(newest(written).into_iter());
        if changed {
            self.testify();
            self.shared.advance(head);
        }
        Ok(answer)
    }

    /// The commit has happened whether the witness can be written or not.
    fn testify(&mut self) {
        let durability = self.shared.options.durability;
        if let Some(witness) = &mut self.witness
            && let Err(error) = witness.remember(&self.head, durability)
        {
            self.shared.tell(format!("the witness cannot be written: {error}"));
        }
    }

    /// After a transaction failed: makes the engine fit to go on, or says that it cannot.
    fn recover(&mut self, error: Error) -> Error {
        self.stamper.appender.rollback();
        // A failed sync must not be tried again as if nothing had happened: what it left out is forgotten by the system.
        let fatal = matches!(error.kind(), ErrorKind::StoreIo | ErrorKind::Corruption | ErrorKind::Internal);
        let recovered = self.engine.recover().and_then(|()| self.engine.reader().head());
        match recovered {
            Ok(head) if head == self.head && !fatal => error,
            Ok(_) | Err(_) => {
                self.shared.tell(format!("writing has stopped: {error}"));
                self.broken = Some(
                    Error::new(
                        error.kind(),
                        format!("writing has stopped after an error: {}", error.message()),
                    )
                    .suggest("reads go on; close the database and open it again to write"),
                );
                error
            }
        }
    }

    fn finish(&mut self) -> Result<()> {
        let synced = match &mut self.witness {
            Some(witness) => witness.sync(),
            None => Ok(()),
        };
        // A last tidying: nothing is lost where it fails.
        if self.broken.is_none() {
            let _ = self.checkpoint(true);
        }
        let closed = self.engine.close();
        synced.and(closed)
    }
}

/// What is to be hot after a group of commits: no record that a later commit of the group has written again, or deleted.
fn newest(written: Vec<Stamped>) -> Vec<Arc<Record>> {
    let alone = written.len() == 1;
    let mut overwritten: HashSet<(Arc<str>, Arc<str>)> = HashSet::new();
    let mut records = Vec::new();
    for stamped in written.into_iter().rev() {
        let is_newest = |record: &Arc<Record>| {
            overwritten.is_empty() || !overwritten.contains(&(record.namespace.clone(), record.key.clone()))
        };
        records.extend(stamped.records.into_iter().filter(is_newest));
        if !alone {
            overwritten.extend(stamped.overwritten);
        }
    }
    records
}

/// Who comes together to share a sync.
#[derive(Default)]
struct Company {
    /// How many batches the last group had.
    count: usize,
    /// How long it took.
    sync: Duration,
}

impl Company {
    /// The requests of the next group; none, where nothing comes for `patience`. The second says that no more will come.
    fn gather(&self, queue: &Queue, patience: Option<Duration>) -> (Vec<Request>, bool) {
        let mut state = held(&queue.state);
        while state.requests.is_empty() && !state.closed {
            match patience {
                None => state = queue.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let waited = queue.arrived.wait_timeout(state, patience);
                    let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                    state = woken;
                    if timeout.timed_out() && state.requests.is_empty() && !state.closed {
                        return (Vec::new(), false);
                    }
                }
            }
        }
        // Those whose batches were just acknowledged come back one by one: without a moment's patience the first would
        // get a sync of its own, and all others the next.
        let deadline = Instant::now() + (self.sync / PATIENCE).min(MOST_PATIENCE);
        while state.requests.len() < self.count.min(GROUP) && !state.closed {
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                break;
            };
            let waited = queue.arrived.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let count = state.requests.len().min(GROUP);
        let group = state.requests.drain(..count).collect();
        let last = state.closed && state.requests.is_empty();
        drop(state);
        queue.room.notify_all();
        (group, last)
    }
}

/// When a commit of the future runs out, at the latest: never.
pub(crate) const NEVER: Micros = Micros::MAX;
