//! Answers on their way to an event loop, many at a time.
//!
//! The writer of a store acknowledges all writes of a sync at once, and the pool ends searches as quickly as it begins them. Were
//! each of them to enter the interpreter and wake the loop by itself, that would cost more than the writes. So they go into the outbox of their loop; a thread of ours wakes
//! the loop once, and the loop settles whatever has come by then. The writer itself never waits for the interpreter.

use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use limnion_types::{Error, ErrorKind, Result};
use pyo3::prelude::*;

use crate::errors::exception;
use crate::gate::forks;
use crate::pool;

/// What becomes of an answer in the loop's thread.
pub(crate) type Wrap = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

struct Letter {
    future: Py<PyAny>,
    answer: Result<Wrap>,
}

/// The outbox of an event loop.
#[pyclass(frozen, module = "limnion._native")]
pub(crate) struct Outbox {
    event_loop: Py<PyAny>,
    letters: Mutex<Vec<Letter>>,
    /// The loop has been told, and has not looked yet.
    told: AtomicBool,
}

impl Outbox {
    pub(crate) fn new(event_loop: Py<PyAny>) -> Self {
        Self { event_loop, letters: Mutex::new(Vec::new()), told: AtomicBool::new(false) }
    }

    pub(crate) fn is_for(&self, event_loop: &Bound<'_, PyAny>) -> bool {
        event_loop.is(&self.event_loop)
    }

    fn letters(&self) -> MutexGuard<'_, Vec<Letter>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The outbox of an event loop: the same one while no other loop asks.
pub(crate) fn of(event_loop: &Bound<'_, PyAny>) -> PyResult<Py<Outbox>> {
    static LAST: Mutex<Option<Py<Outbox>>> = Mutex::new(None);
    let py = event_loop.py();
    let last = || LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(outbox) = last().as_ref().filter(|outbox| outbox.get().is_for(event_loop)) {
        return Ok(outbox.clone_ref(py));
    }
    let fresh = Py::new(py, Outbox::new(event_loop.clone().unbind()))?;
    let before = last().replace(fresh.clone_ref(py));
    drop(before); // outside of the lock: it may run Python
    Ok(fresh)
}

/// Puts an answer into the outbox, from any thread; does not wait for the interpreter.
pub(crate) fn post(outbox: Py<Outbox>, future: Py<PyAny>, answer: Result<Wrap>) {
    let inside = outbox.get();
    inside.letters().push(Letter { future, answer });
    if !inside.told.swap(true, Ordering::AcqRel) {
        tell(outbox);
    }
}

#[pymethods]
impl Outbox {
    /// Called by the loop: settles what has come. A future that was cancelled needs no answer.
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        self.told.store(false, Ordering::Release);
        let letters = std::mem::take(&mut *self.letters());
        for Letter { future, answer } in letters {
            let future = future.bind(py);
            if future.call_method0("done")?.is_truthy()? {
                continue;
            }
            match answer.map_err(|error| exception(py, &error)).and_then(|wrap| wrap(py)) {
                Ok(value) => future.call_method1("set_result", (value,))?,
                Err(error) => future.call_method1("set_exception", (error.into_value(py),))?,
            };
        }
        Ok(())
    }
}

struct Postman {
    forks: u32,
    round: Sender<Py<Outbox>>,
}

static POSTMAN: AtomicPtr<Postman> = AtomicPtr::new(std::ptr::null_mut());

/// The thread that wakes loops, made when it is first needed.
fn postman() -> Result<&'static Postman> {
    loop {
        let current = POSTMAN.load(Ordering::Acquire);
        // SAFETY: a postman that has been shared is never freed.
        if let Some(postman) = unsafe { current.as_ref() }.filter(|postman| postman.forks == forks()) {
            return Ok(postman);
        }
        let (round, outboxes) = channel::<Py<Outbox>>();
        let fresh = Box::into_raw(Box::new(Postman { forks: forks(), round }));
        if POSTMAN.compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: `fresh` was never shared.
            drop(unsafe { Box::from_raw(fresh) });
            continue;
        }
        let round = move || {
            while let Ok(first) = outboxes.recv() {
                let all: Vec<_> = std::iter::once(first).chain(outboxes.try_iter()).collect();
                pool::deliver(|py| all.into_iter().for_each(|outbox| wake(py, outbox)));
            }
        };
        let work = || pool::stay(round);
        let begun = std::thread::Builder::new().name("limnion-post".to_owned()).spawn(work);
        if let Err(error) = begun {
            let message = format!("threads cannot be started: {error}");
            return Err(Error::new(ErrorKind::Internal, message));
        }
    }
}

/// Makes the thread that wakes loops, where that has not happened yet.
pub(crate) fn prepare() -> Result<()> {
    pool::prepare()?;
    postman().map(drop)
}

fn tell(outbox: Py<Outbox>) {
    if let Ok(postman) = postman() {
        // Its thread never ends before the process does.
        let _ = postman.round.send(outbox);
    }
}

fn wake(py: Python<'_>, outbox: Py<Outbox>) {
    let event_loop = outbox.get().event_loop.clone_ref(py).into_bound(py);
    if let Err(error) = event_loop.call_method1("call_soon_threadsafe", (outbox,)) {
        // A loop that is closed has nobody who waits.
        let closed = event_loop.call_method0("is_closed").and_then(|closed| closed.is_truthy());
        if !closed.unwrap_or(false) {
            error.write_unraisable(py, Some(&event_loop));
        }
    }
}
