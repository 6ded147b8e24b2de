//! An index behind its gate: how Python's threads and awaits come to read it, search it and change it. The same for
//! every kind of index.

use std::sync::Arc;

use limnion_index::Precision;
use limnion_types::{Error, ErrorKind, Hit, Job, Metric, Result};
use pyo3::prelude::*;

use crate::args::{self, Matrix, Progress};
use crate::coroutine::{Coroutine, Step, pending};
use crate::door::Door as _;
use crate::errors::{OrRaise, exception};
use crate::gate::{Gate, Reader};
use crate::pool::{self, Task, Watch};
use crate::results::{Hits, HitsBatch};

/// To read so many bytes takes 25 to 150 µs: an await of less is answered on the spot, as the way to a thread and back
/// costs as much.
const ON_THE_SPOT: usize = 2 << 20;

/// An index that many may hold. Clones hold the same one.
pub(crate) struct Held<I> {
    gate: Arc<Gate<I>>,
}

/// What never changes about an index of vectors.
#[derive(Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) dim: usize,
    pub(crate) metric: Metric,
    pub(crate) bits: u8,
    pub(crate) originals: Option<Precision>,
}

/// A search, owned, so that it can go to another thread.
pub(crate) trait Request<I>: Send + Sync + 'static {
    /// Answers the one query.
    fn one(&self, index: &I) -> Result<Vec<Hit>>;

    /// Answers each of several queries.
    fn batch(&self, index: &I, job: &Job) -> Result<Vec<Vec<Hit>>>;

    /// About how many bytes a search reads.
    fn bytes(&self, index: &I) -> usize;
}

impl<I> Clone for Held<I> {
    fn clone(&self) -> Self {
        Self { gate: self.gate.clone() }
    }
}

impl<I: Send + Sync + 'static> Held<I> {
    pub(crate) fn new(index: I) -> Self {
        Self { gate: Gate::new(index) }
    }

    /// Leave to read, now or when the writers ahead are through; Ctrl-C ends the wait.
    #[inline]
    pub(crate) fn reader(&self, py: Python<'_>) -> PyResult<Reader<I>> {
        if let Some(reader) = self.gate.try_read() {
            return reader.or_raise(py);
        }
        let (admit, task) = Task::promised();
        self.gate.read(admit);
        task.wait(py, &mut Watch::silent())
    }

    /// Calls `read` on this thread, detached.
    #[inline]
    pub(crate) fn read<R: Send>(
        &self,
        py: Python<'_>,
        read: impl FnOnce(&I) -> Result<R> + Send,
    ) -> PyResult<R> {
        let reader = self.reader(py)?;
        py.outside(move || read(&reader)).or_raise(py)
    }

    /// Runs `change` on the pool once nobody else is inside, and waits for it.
    pub(crate) fn change(
        &self,
        py: Python<'_>,
        progress: &Progress<'_>,
        total: usize,
        change: impl FnOnce(&mut I, &Job) -> Result<()> + Send + 'static,
    ) -> PyResult<()> {
        let mut watch = Watch::new(progress, total as u64);
        let job = watch.job();
        let (answer, task) = Task::promised();
        self.gate.write(move |writer| {
            let work = move || {
                let mut writer = writer?;
                job.check()?;
                change(&mut writer, &job)
            };
            pool::spawn(work, answer);
        });
        task.wait(py, &mut watch)?;
        watch.finish()
    }

    /// Whether two indexes are equal.
    pub(crate) fn equals(&self, py: Python<'_>, other: &Self) -> PyResult<bool>
    where
        I: PartialEq,
    {
        if Arc::ptr_eq(&self.gate, &other.gate) {
            return Ok(true);
        }
        // Always in the same order: two threads that compare crosswise must not wait for each other.
        let swap = Arc::as_ptr(&self.gate) > Arc::as_ptr(&other.gate);
        let (first, second) = if swap { (other, self) } else { (self, other) };
        let (first, second) = (first.reader(py)?, second.reader(py)?);
        Ok(py.outside(move || *first == *second))
    }

    #[inline]
    pub(crate) fn search(&self, py: Python<'_>, request: &impl Request<I>) -> PyResult<Hits> {
        self.read(py, |index| request.one(index)).map(Hits::new)
    }

    /// [`Held::search`], to be awaited.
    pub(crate) fn search_async(&self, request: impl Request<I>) -> Coroutine {
        let gate = self.gate.clone();
        Coroutine::new(move |py| {
            let free = gate.try_read().transpose().or_raise(py)?;
            if let Some(reader) = free.filter(|index| request.bytes(index) <= ON_THE_SPOT) {
                let hits = py.outside(|| request.one(&reader)).or_raise(py)?;
                return wrap_hits(py, hits).map(Step::Done);
            }
            pending(py, wrap_hits, |job, delivery| {
                gate.read(move |reader| {
                    let work = move || {
                        job.check()?;
                        request.one(&*reader?)
                    };
                    pool::spawn(work, |answer| delivery.answer(answer));
                });
            })
        })
    }

    /// Answers a request for so many queries, on the pool.
    pub(crate) fn search_batch(
        &self,
        py: Python<'_>,
        queries: usize,
        request: impl Request<I>,
        progress: &Progress<'_>,
    ) -> PyResult<HitsBatch> {
        let reader = self.reader(py)?;
        pool::run(py, progress, queries, move |job| request.batch(&reader, job).map(HitsBatch::new))
    }

    /// [`Held::search_batch`], to be awaited.
    pub(crate) fn search_batch_async(&self, request: impl Request<I>) -> Coroutine {
        let gate = self.gate.clone();
        Coroutine::new(move |py| {
            pending(py, wrap_batch, |job, delivery| {
                gate.read(move |reader| {
                    let work = move || {
                        job.check()?;
                        request.batch(&*reader?, &job).map(HitsBatch::new)
                    };
                    pool::spawn(work, |answer| delivery.answer(answer));
                });
            })
        })
    }
}

impl Facts {
    /// Whether float16 arrays are welcome.
    fn half(&self) -> bool {
        self.originals == Some(Precision::F16)
    }

    /// A vector, copied. The core checks its dimension.
    #[inline]
    pub(crate) fn vector(&self, name: &'static str, given: &Bound<'_, PyAny>) -> PyResult<Vec<f32>> {
        args::vector(name, given, self.half())
    }

    /// A matrix of the right dimension, copied, and its number of rows.
    pub(crate) fn rows(&self, name: &'static str, given: &Bound<'_, PyAny>) -> PyResult<(usize, Vec<f32>)> {
        let matrix = Matrix::take(name, given, self.half())?;
        if matrix.dim() != self.dim {
            let message =
                format!("{name} must have {} dimensions like the index, got {}", self.dim, matrix.dim());
            let error = Error::new(ErrorKind::DimensionMismatch, message)
                .suggest("embed them with the model that made the index's vectors");
            return Err(exception(given.py(), &error));
        }
        Ok((matrix.rows(), matrix.copy_all()?))
    }
}

fn wrap_hits(py: Python<'_>, hits: Vec<Hit>) -> PyResult<Py<PyAny>> {
    Ok(Bound::new(py, Hits::new(hits))?.into_any().unbind())
}

fn wrap_batch(py: Python<'_>, batch: HitsBatch) -> PyResult<Py<PyAny>> {
    Ok(Bound::new(py, batch)?.into_any().unbind())
}
