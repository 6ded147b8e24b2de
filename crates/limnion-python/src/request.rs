//! What a store is asked: to be awaited, or waited for. Each verb is written once and serves both faces.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, ThreadId};

use limnion_store::{Batch, Receipt, Store};
use limnion_types::{Error, ErrorKind, Job, Result};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyDict, PyTuple, PyType};

use crate::coroutine::{Coroutine, Step, pending};
use crate::door::Door as _;
use crate::errors::OrRaise;
use crate::lake::later::Later;
use crate::outbox::{self, Outbox, Wrap};
use crate::pool::{self, Task, Watch};
use crate::store::Handle;

/// Work that goes to the pool.
type Work = Box<dyn FnOnce(&Arc<Job>) -> Result<Wrap> + Send>;

/// Takes the answer, from any thread.
pub(crate) type Done = Box<dyn FnOnce(Result<Wrap>) + Send>;

enum Plan {
    /// Work for the pool.
    Work(Work),
    /// A batch for the writer, and what is made of its receipt.
    Write(Batch, fn(Python<'_>, Receipt) -> PyResult<Py<PyAny>>),
    /// Something that calls back, and how to give it up.
    Wait(Box<dyn FnOnce(Done) + Send>, Box<dyn FnOnce() + Send>),
    /// Something that may have its answer at once, and else calls back.
    Prompt(Box<dyn FnOnce(Asker, Done) + Send>),
}

/// Whoever awaits is answered on the spot where no more than so many bytes are read: that takes 25 to 150 µs, and so does
/// the way to a thread and back.
const ON_THE_SPOT: usize = 2 << 20;

/// Who asks: how much may be computed in which thread, and the job to be given up with.
pub(crate) struct Asker {
    thread: ThreadId,
    bytes: usize,
    job: Arc<Job>,
}

impl Asker {
    fn here(bytes: usize, job: &Arc<Job>) -> Self {
        Self { thread: thread::current().id(), bytes, job: job.clone() }
    }

    /// Whether this is the thread that asks, and it may read so many bytes.
    pub(crate) fn may_compute(&self, bytes: usize) -> bool {
        thread::current().id() == self.thread && bytes <= self.bytes
    }

    pub(crate) fn job(&self) -> &Job {
        &self.job
    }
}

/// Where the answer of an await goes. Dropped unanswered, it answers that the work was lost.
struct Address(Option<(Py<Outbox>, Py<PyAny>)>);

impl Address {
    fn answer(mut self, answer: Result<Wrap>) {
        if let Some((outbox, future)) = self.0.take() {
            outbox::post(outbox, future, answer);
        }
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        if let Some((outbox, future)) = self.0.take() {
            outbox::post(outbox, future, Err(Error::new(ErrorKind::Internal, "work was lost")));
        }
    }
}

/// Something that a store is asked: `await` it, or call `wait`. Once.
#[pyclass(frozen, module = "limnion._native")]
pub(crate) struct Request {
    /// Queued writes of this store come first.
    store: Option<Handle>,
    plan: Mutex<Option<Plan>>,
}

impl Request {
    fn new(store: Option<Handle>, plan: Plan) -> Self {
        Self { store, plan: Mutex::new(Some(plan)) }
    }

    /// Work on a store.
    pub(crate) fn work<R: 'static + Send>(
        store: &Handle,
        work: impl FnOnce(&Store, &Arc<Job>) -> Result<R> + Send + 'static,
        wrap: impl FnOnce(Python<'_>, R) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> Self {
        let handle = store.clone();
        let work = move |job: &Arc<Job>| -> Result<Wrap> {
            let answer = work(handle.store()?, job)?;
            Ok(Box::new(move |py| wrap(py, answer)))
        };
        Self::new(Some(store.clone()), Plan::Work(Box::new(work)))
    }

    /// Work without a store.
    pub(crate) fn free<R: 'static + Send>(
        work: impl FnOnce(&Arc<Job>) -> Result<R> + Send + 'static,
        wrap: impl FnOnce(Python<'_>, R) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> Self {
        let work = move |job: &Arc<Job>| -> Result<Wrap> {
            let answer = work(job)?;
            Ok(Box::new(move |py| wrap(py, answer)))
        };
        Self::new(None, Plan::Work(Box::new(work)))
    }

    /// A write.
    pub(crate) fn write(
        store: &Handle,
        batch: Batch,
        wrap: fn(Python<'_>, Receipt) -> PyResult<Py<PyAny>>,
    ) -> Self {
        Self::new(Some(store.clone()), Plan::Write(batch, wrap))
    }

    /// A wait for something that calls back, and how to give it up.
    pub(crate) fn callback(
        begin: impl FnOnce(Done) + Send + 'static,
        give_up: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self::new(None, Plan::Wait(Box::new(begin), Box::new(give_up)))
    }

    /// Something that may have its answer at once, and else calls back; `ask` waits for nothing.
    pub(crate) fn prompt(store: &Handle, ask: impl FnOnce(Asker, Done) + Send + 'static) -> Self {
        Self::new(Some(store.clone()), Plan::Prompt(Box::new(ask)))
    }

    fn take(&self) -> PyResult<(Option<Handle>, Plan)> {
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner).take();
        let plan = plan.ok_or_else(|| PyRuntimeError::new_err("cannot reuse a request"))?;
        Ok((self.store.clone(), plan))
    }
}

fn start(py: Python<'_>, store: Option<Handle>, plan: Plan) -> PyResult<Step> {
    let busy = match &store {
        Some(handle) => handle.get(py).map(|_| handle.queue().busy())?,
        None => false,
    };
    match (plan, store) {
        (Plan::Work(work), Some(handle)) if busy => pending(py, unwrap, move |job, delivery| {
            handle.queue().settled(move |settled| {
                // On the pool, whatever came of it: this may be the writer's thread.
                pool::spawn(move || settled.and_then(|()| work(&job)), |answer| delivery.answer(answer));
            });
        }),
        (Plan::Work(work), _) => pending(py, unwrap, |job, delivery| {
            pool::spawn(move || work(&job), |answer| delivery.answer(answer));
        }),
        (Plan::Write(batch, wrap), Some(handle)) => {
            outbox::prepare().or_raise(py)?; // without it no answer could be delivered
            let event_loop = running_loop(py)?;
            let future = event_loop.call_method0("create_future")?;
            let (outbox, to) = (handle.outbox(&event_loop)?, future.clone().unbind());
            let done = move |receipt: Result<Receipt>| {
                let answer = receipt.map(|receipt| Box::new(move |py: Python<'_>| wrap(py, receipt)) as Wrap);
                outbox::post(outbox, to, answer);
            };
            submit(py, handle, busy, batch, done)?;
            Ok(Step::Pending(future.unbind()))
        }
        (Plan::Write(..), None) => Err(PyRuntimeError::new_err("a write needs a store")),
        (Plan::Prompt(ask), Some(handle)) => prompt(py, &handle, busy, ask),
        (Plan::Prompt(_), None) => Err(PyRuntimeError::new_err("a question needs a store")),
        (Plan::Wait(begin, give_up), _) => {
            outbox::prepare().or_raise(py)?;
            let event_loop = running_loop(py)?;
            let future = event_loop.call_method0("create_future")?;
            let (outbox, to) =
                (Py::new(py, outbox::Outbox::new(event_loop.unbind()))?, future.clone().unbind());
            let give_up = Mutex::new(Some(give_up));
            let on_done = move |_: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
                if let Some(give_up) = give_up.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    give_up();
                }
            };
            let on_done = PyCFunction::new_closure(py, None, None, on_done)?;
            future.call_method1("add_done_callback", (on_done,))?;
            begin(Box::new(move |answer| outbox::post(outbox, to, answer)));
            Ok(Step::Pending(future.unbind()))
        }
    }
}

/// Asks, after the writes that are queued, for an answer that may come at once.
fn prompt(
    py: Python<'_>,
    handle: &Handle,
    busy: bool,
    ask: Box<dyn FnOnce(Asker, Done) + Send>,
) -> PyResult<Step> {
    let job = Arc::new(Job::new());
    let (later, put) = Later::new();
    let put: Done = Box::new(put);
    let asker = Asker::here(ON_THE_SPOT, &job);
    if busy {
        handle.queue().settled(move |settled| match settled {
            // Not in the writer's thread, which this may be.
            Ok(()) => pool::spawn(|| Ok(()), move |_: Result<()>| ask(asker, put)),
            Err(error) => put(Err(error)),
        });
    } else {
        py.outside(|| ask(asker, put));
    }
    if let Some(answer) = later.take() {
        return answer.or_raise(py)?(py).map(Step::Done);
    }
    outbox::prepare().or_raise(py)?;
    let event_loop = running_loop(py)?;
    let future = event_loop.call_method0("create_future")?;
    let address = Address(Some((handle.outbox(&event_loop)?, future.clone().unbind())));
    let on_done = move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
        if args.get_item(0)?.call_method0("cancelled")?.is_truthy()? {
            job.cancel();
        }
        PyResult::Ok(())
    };
    future.call_method1("add_done_callback", (PyCFunction::new_closure(py, None, None, on_done)?,))?;
    later.then(move |answer| address.answer(answer));
    Ok(Step::Pending(future.unbind()))
}

/// Hands a batch to the writer, after the writes that are queued.
fn submit(
    py: Python<'_>,
    handle: Handle,
    busy: bool,
    batch: Batch,
    done: impl FnOnce(Result<Receipt>) + Send + 'static,
) -> PyResult<()> {
    if busy {
        let queue = handle.queue().clone();
        queue.settled(move |settled| {
            let work = move || {
                match settled.and_then(|()| handle.store()) {
                    Ok(store) => store.submit(batch, done),
                    Err(error) => done(Err(error)),
                }
                Ok(())
            };
            // Not from here, which may be the writer's own thread: it would wait for itself where its line is full.
            pool::spawn(work, drop);
        });
        return Ok(());
    }
    let store = handle.get(py)?;
    py.outside(|| store.submit(batch, done));
    Ok(())
}

fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    RUNNING.import(py, "asyncio", "get_running_loop")?.call0()
}

fn unwrap(py: Python<'_>, wrap: Wrap) -> PyResult<Py<PyAny>> {
    wrap(py)
}

#[pymethods]
impl Request {
    fn __await__(&self) -> PyResult<Coroutine> {
        let (store, plan) = self.take()?;
        Ok(Coroutine::new(move |py| start(py, store, plan)))
    }

    /// Waits for the answer; Ctrl-C ends the wait and the work.
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let (store, plan) = self.take()?;
        let mut watch = Watch::silent();
        let busy = match &store {
            Some(handle) => handle.get(py).map(|_| handle.queue().busy())?,
            None => false,
        };
        if let (true, Some(handle)) = (busy, &store) {
            settle(py, handle)?;
        }
        match (plan, store) {
            (Plan::Work(work), _) => {
                let job = watch.job();
                let wrap = Task::start(move || work(&job)).wait(py, &mut watch)?;
                wrap(py)
            }
            (Plan::Write(batch, wrap), Some(handle)) => {
                let (done, task) = Task::promised();
                submit(py, handle, false, batch, done)?;
                let receipt = task.wait(py, &mut watch)?;
                wrap(py, receipt)
            }
            (Plan::Write(..), None) => Err(PyRuntimeError::new_err("a write needs a store")),
            (Plan::Prompt(ask), _) => {
                let (later, put) = Later::new();
                let asker = Asker::here(usize::MAX, &watch.job());
                py.outside(|| ask(asker, Box::new(put)));
                if let Some(answer) = later.take() {
                    return answer.or_raise(py)?(py);
                }
                let (answer, task) = Task::promised();
                later.then(answer);
                drop(later); // or nobody would notice that whoever was to answer is gone
                task.wait(py, &mut watch)?(py)
            }
            (Plan::Wait(begin, give_up), _) => {
                let (done, task) = Task::promised();
                begin(Box::new(done));
                let answer = task.wait(py, &mut watch);
                give_up();
                answer?(py)
            }
        }
    }

    #[classmethod]
    #[pyo3(signature = (item, /))]
    fn __class_getitem__<'py>(class: &Bound<'py, PyType>, item: &Bound<'py, PyAny>) -> Bound<'py, PyType> {
        let _ = item;
        class.clone()
    }
}

/// Waits for the writes that are queued, and raises what went wrong.
pub(crate) fn settle(py: Python<'_>, handle: &Handle) -> PyResult<()> {
    let (done, task) = Task::promised();
    handle.queue().settled(done);
    task.wait(py, &mut Watch::silent())
}

/// Fork-safe words for [`Handle::store`].
pub(crate) fn forked() -> Error {
    Error::new(ErrorKind::ForkedProcess, "the database was opened by the parent process, before the fork")
        .suggest("open a Database in the child; a database on disk needs the parent to close its own first")
}
