//! The one door between Python and work that takes time.
//!
//! Work runs on a rayon pool of our own, made when it is first needed, and never sees the interpreter. A thread that waits
//! for it is detached, and looks up every 50 ms to serve signals (Ctrl-C) and the progress callable.
//!
//! - After `fork` the child has no thread of the parent's pool: it makes its own and leaves the parent's alone.
//! - At exit ([`close`]) results stop being delivered before the interpreter goes: a thread of ours that met it half gone
//!   would take the process down.
//! - A panic in the work becomes an `InternalError`; it ends neither the pool nor the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use limnion_types::{Error, ErrorKind, Job, Result};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::args::Progress;
use crate::backends::calm;
use crate::door::{self, Door as _};
use crate::errors::{OrRaise, exception};
use crate::gate::{forked, forks};
use crate::living;

/// How often a waiting thread looks up.
const TICK: Duration = Duration::from_millis(50);
/// How long an interrupted wait stays for the work to stop. Work that is left behind ends by itself and changes nothing
/// half: it holds its pass until it is through.
const GRACE: Duration = Duration::from_millis(120);

struct Pool {
    forks: u32,
    threads: ThreadPool,
    /// Closed at exit; whoever is inside may touch the interpreter.
    open: RwLock<bool>,
}

static POOL: AtomicPtr<Pool> = AtomicPtr::new(std::ptr::null_mut());

/// The pool of this process, where it has been made.
fn made() -> Option<&'static Pool> {
    // SAFETY: a pool that has been shared is never freed.
    unsafe { POOL.load(Ordering::Acquire).as_ref() }.filter(|pool| pool.forks == forks())
}

fn pool() -> Result<&'static Pool> {
    loop {
        let current = POOL.load(Ordering::Acquire);
        if let Some(pool) = made() {
            return Ok(pool);
        }
        let threads = ThreadPoolBuilder::new()
            .num_threads(threads()?)
            .thread_name(|number| format!("limnion-{number}"))
            .build()
            .map_err(|error| {
                Error::new(ErrorKind::Internal, format!("threads cannot be started: {error}"))
            })?;
        let fresh = Box::into_raw(Box::new(Pool { forks: forks(), threads, open: RwLock::new(true) }));
        if POOL.compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: `fresh` was never shared.
            drop(unsafe { Box::from_raw(fresh) });
        }
    }
}

/// `LIMNION_THREADS`, or as many as this process may run at once.
fn threads() -> Result<usize> {
    let Some(wish) = std::env::var_os("LIMNION_THREADS").filter(|wish| !wish.is_empty()) else {
        return Ok(std::thread::available_parallelism().map_or(1, usize::from));
    };
    match wish.to_str().and_then(|wish| wish.parse::<usize>().ok()) {
        Some(count @ 1..=1024) => Ok(count),
        _ => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("LIMNION_THREADS must be 1 to 1024, got {wish:?}"),
        )
        .suggest("unset it to use every core that this process may run on")),
    }
}

/// Runs `work` on the pool; `then` receives what it gives, on the pool's thread.
pub(crate) fn spawn<R>(
    work: impl FnOnce() -> Result<R> + Send + 'static,
    then: impl FnOnce(Result<R>) + Send + 'static,
) {
    match pool() {
        Ok(pool) => pool.threads.spawn(move || then(guarded(work))),
        Err(error) => then(Err(error)),
    }
}

pub(crate) fn guarded<R>(work: impl FnOnce() -> Result<R>) -> Result<R> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Error::new(ErrorKind::Internal, format!("a defect of limnion: {message}"))
            .suggest("please report it with the message above"))
    })
}

/// Calls `work` on the pool, or within it, and waits for it.
pub(crate) fn install(work: &mut (dyn FnMut() + Send)) {
    match pool() {
        Ok(pool) => pool.threads.install(work),
        Err(_) => work(),
    }
}

/// Makes the pool, where that has not happened yet.
pub(crate) fn prepare() -> Result<()> {
    pool().map(drop)
}

/// Attaches to the interpreter from a thread of the pool, unless it is about to go.
pub(crate) fn deliver(f: impl FnOnce(Python<'_>)) {
    let Some(pool) = made() else { return };
    let open = pool.open.read().unwrap_or_else(PoisonError::into_inner);
    if *open {
        Python::attach(f);
    }
}

/// Runs `work`, which will often attach to the interpreter, with a state there that is made once for all.
pub(crate) fn stay(work: impl FnOnce() + Send) {
    let Some(pool) = made() else { return };
    let open = pool.open.read().unwrap_or_else(PoisonError::into_inner);
    if *open {
        Python::attach(|py| {
            drop(open);
            py.outside(work);
        });
    }
}

/// Work that has been handed to the pool, and whose answer has not been asked for yet.
pub(crate) struct Task<R>(Receiver<Result<R>>);

impl<R: Send + 'static> Task<R> {
    /// Runs `work` on the pool.
    pub(crate) fn start(work: impl FnOnce() -> Result<R> + Send + 'static) -> Self {
        let (answer, task) = Self::promised();
        spawn(work, answer);
        task
    }

    /// A task that somebody else answers.
    pub(crate) fn promised() -> (impl FnOnce(Result<R>) + Send + 'static, Self) {
        let (sender, receiver): (SyncSender<Result<R>>, _) = sync_channel(1);
        // Nobody listens any more where the wait was interrupted.
        (move |answer| drop(sender.send(answer)), Self(receiver))
    }

    /// Waits for the answer; serves signals and the progress callable meanwhile, and cancels the job when one raises.
    pub(crate) fn wait(self, py: Python<'_>, watch: &mut Watch<'_, '_>) -> PyResult<R> {
        // Without a limit there is an answer.
        self.wait_until(py, watch, None)?.unwrap_or_else(|| Err(lost())).or_raise(py)
    }

    /// [`Task::wait`], but not beyond a moment: then there is no answer, and the job is cancelled.
    pub(crate) fn wait_until(
        mut self,
        py: Python<'_>,
        watch: &mut Watch<'_, '_>,
        deadline: Option<Instant>,
    ) -> PyResult<Option<Result<R>>> {
        let born = forks();
        loop {
            let left = deadline.map_or(TICK, |deadline| deadline.saturating_duration_since(Instant::now()));
            if let Some(answer) = self.answer(py, left.min(TICK)).or_raise(py)? {
                return Ok(Some(answer));
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                watch.job.cancel();
                return Ok(None);
            }
            if let Err(interruption) = watch.look_up(py) {
                watch.job.cancel();
                if born == forks() {
                    // What came of it no longer matters: the interruption is what is raised.
                    drop(self.answer(py, GRACE));
                }
                return Err(interruption);
            }
            if born != forks() {
                return Err(exception(
                    py,
                    &Error::new(ErrorKind::Internal, "the process forked while limnion was working"),
                ));
            }
        }
    }

    fn answer(&mut self, py: Python<'_>, patience: Duration) -> Result<Option<Result<R>>> {
        let receiver = &mut self.0;
        match py.outside(move || receiver.recv_timeout(patience)) {
            Ok(answer) => Ok(Some(answer)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(lost()),
        }
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Internal, "work was lost")
}

/// What a waiting thread keeps an eye on: the job, signals, and whoever wants to know how far it is.
pub(crate) struct Watch<'a, 'py> {
    job: Arc<Job>,
    progress: Option<&'a Progress<'py>>,
    total: u64,
    told: Option<u64>,
    looked: Instant,
}

impl<'a, 'py> Watch<'a, 'py> {
    /// A watch over a job of `total` steps.
    pub(crate) fn new(progress: &'a Progress<'py>, total: u64) -> Self {
        Self {
            job: Arc::new(Job::new()),
            progress: Some(progress),
            total,
            told: None,
            looked: Instant::now(),
        }
    }

    /// A watch over something too short to tell of.
    pub(crate) fn silent() -> Self {
        Self { job: Arc::new(Job::new()), progress: None, total: 0, told: None, looked: Instant::now() }
    }

    /// The job, to be shared with the worker.
    pub(crate) fn job(&self) -> Arc<Job> {
        self.job.clone()
    }

    /// [`Watch::look_up`], where the last time is a tick ago: for a thread that is busy rather than waiting.
    pub(crate) fn glance(&mut self, py: Python<'_>) -> PyResult<()> {
        if self.looked.elapsed() >= TICK { self.look_up(py) } else { Ok(()) }
    }

    /// The last word to the progress callable: all is done.
    pub(crate) fn finish(&mut self) -> PyResult<()> {
        self.tell(self.total)
    }

    fn look_up(&mut self, py: Python<'_>) -> PyResult<()> {
        self.looked = Instant::now();
        py.check_signals()?;
        self.tell(self.job.done().min(self.total))
    }

    fn tell(&mut self, done: u64) -> PyResult<()> {
        if self.told.replace(done) == Some(done) {
            return Ok(());
        }
        self.progress.map_or(Ok(()), |progress| progress.tell(done, self.total))
    }
}

/// Who stops watching stops the work: nobody would get its answer.
impl Drop for Watch<'_, '_> {
    fn drop(&mut self) {
        self.job.cancel();
    }
}

/// Runs `work` on the pool and waits for it.
pub(crate) fn run<R: Send + 'static>(
    py: Python<'_>,
    progress: &Progress<'_>,
    total: usize,
    work: impl FnOnce(&Job) -> Result<R> + Send + 'static,
) -> PyResult<R> {
    let mut watch = Watch::new(progress, total as u64);
    let job = watch.job();
    let answer = Task::start(move || work(&job)).wait(py, &mut watch)?;
    watch.finish()?;
    Ok(answer)
}

/// Called by `atexit`: finishes the writes that were handed to a store, waits for deliveries under way, lets no more begin, and
/// keeps all other threads out of the interpreter.
#[pyfunction]
fn close(py: Python<'_>) {
    py.outside(|| {
        for store in living::all() {
            // Not `close`, which the threads that still run would hear of. Nobody is left to hear of a failure, and what
            // was acknowledged is safe.
            let _ = store.flush();
        }
    });
    if let Some(pool) = made() {
        py.outside(|| *pool.open.write().unwrap_or_else(PoisonError::into_inner) = false);
    }
    // Last: what is delivered may come and go through the door.
    py.outside(door::close);
}

/// Called in a child right after `fork`: marks, has stores let go of their folders, lets backends in memory be entered,
/// and does nothing more, since most
/// children call `exec` at once.
#[pyfunction]
fn after_fork() {
    forked();
    door::forked();
    living::forked();
    calm::forked();
}

/// Has the interpreter tell us of forks and of its end.
pub(crate) fn register(py: Python<'_>) -> PyResult<()> {
    py.import("atexit")?.call_method1("register", (wrap_pyfunction!(close, py)?,))?;
    if let Ok(register) = py.import("os")?.getattr("register_at_fork") {
        let hooks = PyDict::new(py);
        hooks.set_item("before", wrap_pyfunction!(calm::before_fork, py)?)?;
        hooks.set_item("after_in_parent", wrap_pyfunction!(calm::after_fork_in_parent, py)?)?;
        hooks.set_item("after_in_child", wrap_pyfunction!(after_fork, py)?)?;
        register.call((), Some(&hooks))?;
    }
    Ok(())
}
