//! An awaitable over work on the pool: for asyncio, and whatever loop has its interface (uvloop).
//!
//! There is no runtime below: nothing here waits for anything but arithmetic. The coroutine asks the running loop for a
//! future when it is first awaited; a thread of the pool puts the answer into the loop's outbox. An answer that is at hand at
//! once makes neither a future nor a turn of the loop.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use limnion_types::{Error, ErrorKind, Job, Result};
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use crate::errors::{OrRaise, exception};
use crate::outbox::{self, Outbox, Wrap};

/// What the first await finds.
pub(crate) enum Step {
    /// The answer.
    Done(Py<PyAny>),
    /// A future of the running loop, which will have the answer.
    Pending(Py<PyAny>),
}

type Start = Box<dyn FnOnce(Python<'_>) -> PyResult<Step> + Send>;

enum State {
    New(Start),
    /// The future's own iterator, which does the rest.
    Waiting(Py<PyAny>),
    Over,
}

/// The awaitable that the `_async` methods return; a coroutine to asyncio: it can be awaited, made a task, or run.
#[pyclass(frozen, module = "limnion._native")]
pub(crate) struct Coroutine {
    state: Mutex<State>,
}

impl Coroutine {
    /// A coroutine that calls `start` when it is first awaited.
    pub(crate) fn new(start: impl FnOnce(Python<'_>) -> PyResult<Step> + Send + 'static) -> Self {
        Self { state: Mutex::new(State::New(Box::new(start))) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The iterator of the future to wait for.
    fn iterator<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let mut state = self.state();
        if let State::Waiting(iterator) = &*state {
            return Ok(iterator.bind(py).clone());
        }
        let taken = std::mem::replace(&mut *state, State::Over);
        drop(state); // `start` runs Python
        let State::New(start) = taken else {
            return Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine"));
        };
        match start(py)? {
            Step::Done(answer) => Err(PyStopIteration::new_err((answer,))),
            Step::Pending(future) => {
                let iterator = future.bind(py).call_method0("__await__")?;
                *self.state() = State::Waiting(iterator.clone().unbind());
                Ok(iterator)
            }
        }
    }

    /// Passes a call on to the iterator; an exception (`StopIteration` is the answer) ends the coroutine.
    fn forward<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let outcome = self.iterator(py).and_then(|iterator| iterator.call_method1(method, args));
        if outcome.is_err() {
            self.end();
        }
        outcome
    }

    fn end(&self) {
        let ended = std::mem::replace(&mut *self.state(), State::Over);
        drop(ended); // outside the lock: it may run Python
    }
}

#[pymethods]
impl Coroutine {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.forward(py, "__next__", &PyTuple::empty(py))
    }

    #[pyo3(signature = (value, /))]
    fn send<'py>(&self, py: Python<'py>, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.forward(py, "send", &PyTuple::new(py, [value])?)
    }

    #[pyo3(signature = (*exception))]
    fn throw<'py>(&self, py: Python<'py>, exception: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        if matches!(*self.state(), State::Waiting(_)) {
            return self.forward(py, "throw", exception);
        }
        self.end();
        let raised = exception.get_item(0)?;
        let raised = if raised.is_callable() { raised.call0()? } else { raised };
        Err(PyErr::from_value(raised))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let ended = std::mem::replace(&mut *self.state(), State::Over);
        if let State::Waiting(iterator) = ended {
            iterator.bind(py).call_method0("close")?;
        }
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        match self.state.try_lock().as_deref() {
            Ok(State::Waiting(iterator)) => visit.call(iterator),
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        self.end();
    }
}

/// Where the answer of a pending await goes. Dropped unanswered, it answers that the work was lost.
pub(crate) struct Delivery<R> {
    to: Option<(Py<Outbox>, Py<PyAny>)>,
    wrap: fn(Python<'_>, R) -> PyResult<Py<PyAny>>,
}

impl<R: Send + 'static> Delivery<R> {
    /// Settles the future from any thread, without a wait. A future that was cancelled, or whose loop is closed, needs no
    /// answer.
    pub(crate) fn answer(mut self, answer: Result<R>) {
        if let Some((outbox, future)) = self.to.take() {
            let wrap = self.wrap;
            let answer = answer.map(|value| Box::new(move |py: Python<'_>| wrap(py, value)) as Wrap);
            outbox::post(outbox, future, answer);
        }
    }
}

impl<R> Drop for Delivery<R> {
    fn drop(&mut self) {
        if let Some((outbox, future)) = self.to.take() {
            outbox::post(outbox, future, Err(Error::new(ErrorKind::Internal, "work was lost")));
        }
    }
}

/// A pending step: `submit` hands the work on, with the address for its answer and a job that a cancelled await cancels.
pub(crate) fn pending<R: Send + 'static>(
    py: Python<'_>,
    wrap: fn(Python<'_>, R) -> PyResult<Py<PyAny>>,
    submit: impl FnOnce(Arc<Job>, Delivery<R>),
) -> PyResult<Step> {
    let job = Arc::new(Job::new());
    begun(py, wrap, &job, None, |delivery| submit(job.clone(), delivery))
}

/// How long an answer may take, and what is raised then.
pub(crate) type Limit = (Duration, Error);

/// [`pending`] for a job that has begun already; at the limit the loop gives it up.
pub(crate) fn begun<R: Send + 'static>(
    py: Python<'_>,
    wrap: fn(Python<'_>, R) -> PyResult<Py<PyAny>>,
    job: &Arc<Job>,
    limit: Option<Limit>,
    submit: impl FnOnce(Delivery<R>),
) -> PyResult<Step> {
    static RUNNING: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    outbox::prepare().or_raise(py)?; // without it no answer could be delivered
    let event_loop = RUNNING.import(py, "asyncio", "get_running_loop")?.call0()?;
    let future = event_loop.call_method0("create_future")?;
    let timer = limit.map(|limit| give_up(&event_loop, &future, job, limit)).transpose()?;
    let watched = job.clone();
    let on_done = PyCFunction::new_closure(
        py,
        None,
        None,
        move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
            if let Some(timer) = &timer {
                timer.call_method0(args.py(), "cancel")?;
            }
            if args.get_item(0)?.call_method0("cancelled")?.is_truthy()? {
                watched.cancel();
            }
            PyResult::Ok(())
        },
    )?;
    future.call_method1("add_done_callback", (on_done,))?;
    let outbox = outbox::of(&event_loop)?;
    submit(Delivery { to: Some((outbox, future.clone().unbind())), wrap });
    Ok(Step::Pending(future.unbind()))
}

/// Has the loop end a future at its limit; gives the timer.
fn give_up(
    event_loop: &Bound<'_, PyAny>,
    future: &Bound<'_, PyAny>,
    job: &Arc<Job>,
    (time, late): Limit,
) -> PyResult<Py<PyAny>> {
    let (py, watched, waiting) = (event_loop.py(), job.clone(), future.clone().unbind());
    let over = move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
        let waiting = waiting.bind(args.py());
        if !waiting.call_method0("done")?.is_truthy()? {
            watched.cancel();
            waiting.call_method1("set_exception", (exception(args.py(), &late).into_value(args.py()),))?;
        }
        PyResult::Ok(())
    };
    let over = PyCFunction::new_closure(py, None, None, over)?;
    Ok(event_loop.call_method1("call_later", (time.as_secs_f64(), over))?.unbind())
}
