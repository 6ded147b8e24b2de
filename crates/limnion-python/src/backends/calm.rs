//! Backends whose locks no fork finds taken.
//!
//! A child has the memory of its parent and one thread: a lock that another held is held for ever there. Who is about to
//! fork waits until nobody is inside of a backend in memory, which takes moments, and nobody enters until it is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use limnion_lake::{Backend, Changes, Description, Generation, LocalBackend, Rows, Sink};
use limnion_types::{Job, Result};
use pyo3::prelude::*;

static INSIDE: AtomicUsize = AtomicUsize::new(0);
static FORKING: AtomicBool = AtomicBool::new(false);

/// How often who waits looks up, and how long a fork waits at most.
const TICK: Duration = Duration::from_micros(100);
const PATIENCE: Duration = Duration::from_secs(5);

/// Leave to take a lock, until it is dropped.
pub(crate) struct Inside(());

impl Inside {
    pub(crate) fn enter() -> Self {
        loop {
            INSIDE.fetch_add(1, Ordering::SeqCst);
            if !FORKING.load(Ordering::SeqCst) {
                return Self(());
            }
            INSIDE.fetch_sub(1, Ordering::SeqCst);
            std::thread::sleep(TICK);
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Called right before `fork`. Nobody inside waits for the interpreter.
#[pyfunction]
pub(crate) fn before_fork() {
    FORKING.store(true, Ordering::SeqCst);
    let began = Instant::now();
    while INSIDE.load(Ordering::SeqCst) > 0 && began.elapsed() < PATIENCE {
        std::thread::sleep(TICK);
    }
}

/// Called right after `fork`, in the parent.
#[pyfunction]
pub(crate) fn after_fork_in_parent() {
    FORKING.store(false, Ordering::SeqCst);
}

/// Called right after `fork`, in the child.
pub(crate) fn forked() {
    INSIDE.store(0, Ordering::SeqCst);
    FORKING.store(false, Ordering::SeqCst);
}

/// A backend in memory, entered so.
pub(crate) struct Calm(pub(crate) Arc<LocalBackend>);

impl Backend for Calm {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn collections(&self) -> Result<Vec<String>> {
        let _inside = Inside::enter();
        self.0.collections()
    }

    fn describe(&self, collection: &str) -> Result<Description> {
        let _inside = Inside::enter();
        self.0.describe(collection)
    }

    fn generation(&self, collection: &str) -> Result<Generation> {
        let _inside = Inside::enter();
        self.0.generation(collection)
    }

    fn is_quick(&self) -> bool {
        self.0.is_quick()
    }

    fn pull(&self, collection: &str, sink: &mut dyn Sink, job: &Job) -> Result<()> {
        let mut sink = Leaving { sink, inside: Some(Inside::enter()) };
        self.0.pull(collection, &mut sink, job)
    }

    fn changes(&self, collection: &str, since: &Generation) -> Result<Option<Changes>> {
        let _inside = Inside::enter();
        self.0.changes(collection, since)
    }

    fn few_changes(&self, collection: &str, since: &Generation, rows: usize) -> Result<Option<Changes>> {
        let _inside = Inside::enter();
        self.0.few_changes(collection, since, rows)
    }
}

/// Takes rows; the lock has been let go of when they begin.
struct Leaving<'a> {
    sink: &'a mut dyn Sink,
    inside: Option<Inside>,
}

impl Sink for Leaving<'_> {
    fn begin(&mut self, description: &Description) -> Result<()> {
        self.inside = None;
        self.sink.begin(description)
    }

    fn push(&mut self, rows: Rows) -> Result<()> {
        self.sink.push(rows)
    }
}
