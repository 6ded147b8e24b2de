//! The vector index: what the four classes of `limnion.indexes` have in common. Parse, detach, call, wrap.

use std::sync::Arc;

use limnion_index::{FlatIndex, Params, Precision, SearchOptions, Source, Verify};
use limnion_types::{Error, ErrorKind, Hit, Job, Result};
use numpy::{IntoPyArray, PyArray1, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::args::{self, Matrix, Progress, Where};
use crate::build::build;
use crate::classes::Class;
use crate::coroutine::{Coroutine, Step, pending};
use crate::door::Door as _;
use crate::errors::{OrRaise, exception, invalid_type};
use crate::files;
use crate::gate::{Gate, Reader};
use crate::pool::{self, Task, Watch};
use crate::results::{Hits, HitsBatch};
use crate::view::{RowIterator, view};

/// To read so many bytes takes 25 to 150 µs: an await of less is answered on the spot, as the way to a thread and back
/// costs as much.
const ON_THE_SPOT: usize = 2 << 20;
/// Rows refined for each hit, as a guess, where a search does not say.
const USUAL_RERANK: u32 = 4;

/// What the four classes of index have in common; `limnion.indexes` has the classes to use.
#[pyclass(frozen, subclass, mapping, module = "limnion._native")]
pub(crate) struct VectorIndex {
    gate: Arc<Gate<FlatIndex>>,
    params: Params,
    dim: usize,
}

/// A finished index on its way into an instance of a class: what the constructor takes.
#[pyclass(frozen)]
struct Made(Arc<Gate<FlatIndex>>, Params, usize);

/// An index as an instance of a class of `limnion.indexes`.
pub(crate) fn wrap<'py>(class: &Bound<'py, PyType>, index: FlatIndex) -> PyResult<Bound<'py, PyAny>> {
    let (params, dim) = (index.params().clone(), index.dim());
    class.call1((Made(Gate::new(index), params, dim),))
}

/// A search without its query; owned, so that it can go to another thread.
struct Request {
    k: usize,
    recall: Option<f32>,
    rerank_factor: Option<u32>,
    allowed: Option<Where>,
}

impl Request {
    #[inline]
    fn take(
        k: Option<&Bound<'_, PyAny>>,
        recall: Option<&Bound<'_, PyAny>>,
        rerank_factor: Option<&Bound<'_, PyAny>>,
        allowed: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        Ok(Self {
            k: k.map_or(Ok(10), |k| args::count("k", k))?,
            recall: recall.map(|recall| args::number("recall", recall)).transpose()?,
            rerank_factor: rerank_factor.map(|factor| args::small("rerank_factor", factor)).transpose()?,
            allowed: allowed.map(Where::take).transpose()?,
        })
    }

    fn one(&self, index: &FlatIndex, query: &[f32]) -> Result<Vec<Hit>> {
        self.with(index, |options| index.search(query, options))
    }

    fn batch(&self, index: &FlatIndex, queries: &[f32], job: &Job) -> Result<HitsBatch> {
        self.with(index, |options| index.search_batch(queries, options, job)).and_then(HitsBatch::new)
    }

    /// About how many bytes a search reads.
    fn bytes(&self, index: &FlatIndex) -> usize {
        let (params, original) = (index.params(), index.dim() * size_of::<f32>());
        if params.bits == 0 || self.recall == Some(1.0) {
            return index.len().saturating_mul(original);
        }
        let code = index.dim() / 8 + 6;
        let factor = self.rerank_factor.or(params.rerank_factor).unwrap_or(USUAL_RERANK);
        let refined = self.k.saturating_mul(factor as usize).min(index.len());
        (index.len() * code).saturating_add(refined * original)
    }

    fn with<R>(&self, index: &FlatIndex, search: impl FnOnce(&SearchOptions<'_>) -> Result<R>) -> Result<R> {
        let selection = match &self.allowed {
            None => None,
            Some(Where::Ids(ids)) => Some(index.select_ids(ids)),
            Some(Where::Mask(mask)) => Some(index.select_mask(mask)?),
        };
        search(&SearchOptions {
            k: self.k,
            recall: self.recall,
            rerank_factor: self.rerank_factor,
            selection: selection.as_ref(),
            radius: None,
        })
    }
}

fn wrap_hits(py: Python<'_>, hits: Vec<Hit>) -> PyResult<Py<PyAny>> {
    Ok(Bound::new(py, Hits::new(hits))?.into_any().unbind())
}

fn wrap_batch(py: Python<'_>, batch: HitsBatch) -> PyResult<Py<PyAny>> {
    Ok(Bound::new(py, batch)?.into_any().unbind())
}

impl VectorIndex {
    /// Calls `look` on this thread, detached.
    pub(crate) fn look<R: Send>(
        &self,
        py: Python<'_>,
        look: impl FnOnce(&FlatIndex) -> R + Send,
    ) -> PyResult<R> {
        self.read(py, |index| Ok(look(index)))
    }

    /// Whether float16 arrays are welcome.
    fn half(&self) -> bool {
        self.params.originals == Some(Precision::F16)
    }

    /// Leave to read, now or when the writers ahead are through; Ctrl-C ends the wait.
    #[inline]
    fn reader(&self, py: Python<'_>) -> PyResult<Reader<FlatIndex>> {
        if let Some(reader) = self.gate.try_read() {
            return reader.or_raise(py);
        }
        let (admit, task) = Task::promised();
        self.gate.read(admit);
        task.wait(py, &mut Watch::silent())
    }

    /// Calls `read` on this thread, detached.
    #[inline]
    fn read<R: Send>(
        &self,
        py: Python<'_>,
        read: impl FnOnce(&FlatIndex) -> Result<R> + Send,
    ) -> PyResult<R> {
        let reader = self.reader(py)?;
        py.outside(move || read(&reader)).or_raise(py)
    }

    /// Runs `change` on the pool once nobody else is inside, and waits for it.
    fn change(
        &self,
        py: Python<'_>,
        progress: &Progress<'_>,
        total: usize,
        change: impl FnOnce(&mut FlatIndex, &Job) -> Result<()> + Send + 'static,
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

    /// A matrix of the right dimension, copied.
    fn rows(&self, name: &'static str, given: &Bound<'_, PyAny>) -> PyResult<(usize, Vec<f32>)> {
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

#[pymethods]
impl VectorIndex {
    #[new]
    #[classmethod]
    #[pyo3(signature = (*made, **_options))]
    fn new(
        class: &Bound<'_, PyType>,
        made: &Bound<'_, PyTuple>,
        _options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let made = made.get_item(0).and_then(|made| Ok(made.cast_into::<Made>()?)).map_err(|_| {
            let name = class.name().map_or_else(|_| "VectorIndex".to_owned(), |name| name.to_string());
            let message =
                format!("{name} must be made from vectors or from a file, not by calling the class");
            invalid_type(
                class.py(),
                message,
                Some(format!("write {name}.build(vectors) or {name}.load(path)")),
            )
        })?;
        let Made(gate, params, dim) = made.get();
        Ok(Self { gate: gate.clone(), params: params.clone(), dim: *dim })
    }

    #[classmethod]
    #[pyo3(signature = (vectors, *, bits, originals, ids, metric, seed, rerank_factor, progress))]
    #[expect(clippy::too_many_arguments, reason = "the options of four classes")]
    fn _build<'py>(
        class: &Bound<'py, PyType>,
        vectors: &Bound<'py, PyAny>,
        bits: &Bound<'py, PyAny>,
        originals: Option<&Bound<'py, PyAny>>,
        ids: Option<&Bound<'py, PyAny>>,
        metric: &Bound<'py, PyAny>,
        seed: &Bound<'py, PyAny>,
        rerank_factor: Option<&Bound<'py, PyAny>>,
        progress: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = class.py();
        let params = Params {
            metric: args::metric(metric)?,
            bits: args::bits(bits)?,
            originals: args::originals(originals)?,
            seed: args::whole("seed", seed)?,
            rerank_factor: rerank_factor.map(|factor| args::small("rerank_factor", factor)).transpose()?,
        };
        Class::of(class)?.check(&params).or_raise(py)?;
        let matrix = Matrix::take("vectors", vectors, params.originals == Some(Precision::F16))?;
        let ids = ids.map(|ids| args::ids("ids", ids)).transpose()?;
        let progress = Progress::take(progress, "build")?;
        wrap(class, build(py, &matrix, ids, &params, &progress)?)
    }

    /// Appends one vector under a new id. The vector is copied.
    ///
    /// Cost: encoding one vector, and a moment for searches that are under way to end.
    ///
    /// Raises `DuplicateIdError`, `DimensionMismatch`, and what `build` raises for a vector it cannot use.
    fn add(&self, py: Python<'_>, id: &Bound<'_, PyAny>, vector: &Bound<'_, PyAny>) -> PyResult<()> {
        let id = args::id("id", id)?;
        let vector = args::vector("vector", vector, self.half())?;
        self.change(py, &Progress::none(), 1, move |index, job| index.add(Some(&[id]), &vector, job))
    }

    /// Appends the rows of `vectors`, parallel: all of them, or none where something is wrong.
    ///
    /// `ids` has one new id for each row; without it, rows are numbered on from the largest id.
    #[pyo3(
        signature = (vectors, *, ids = None, progress = None),
        text_signature = "($self, vectors, *, ids=None, progress=False)"
    )]
    fn add_batch(
        &self,
        py: Python<'_>,
        vectors: &Bound<'_, PyAny>,
        ids: Option<&Bound<'_, PyAny>>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (rows, vectors) = self.rows("vectors", vectors)?;
        let ids = ids.map(|ids| args::ids("ids", ids)).transpose()?;
        let progress = progress.map_or(Ok(Progress::none()), |progress| Progress::take(progress, "add"))?;
        self.change(py, &progress, rows, move |index, job| index.add(ids.as_deref(), &vectors, job))
    }

    /// Removes the row with an id, or the rows with several: all of them, or none where one is missing
    /// (`IdNotFoundError`). The last rows take the free places; memory is given back once half of it is unused.
    fn remove(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<()> {
        let ids = args::id_or_ids("ids", ids)?;
        self.change(py, &Progress::none(), ids.len(), move |index, _| index.remove(&ids))
    }

    /// Replaces the vector of a row that is there. Raises `IdNotFoundError` where it is not.
    fn update(&self, py: Python<'_>, id: &Bound<'_, PyAny>, vector: &Bound<'_, PyAny>) -> PyResult<()> {
        let id = args::id("id", id)?;
        let vector = args::vector("vector", vector, self.half())?;
        self.change(py, &Progress::none(), 1, move |index, _| index.update(&[id], &vector))
    }

    /// Replaces the vectors of rows that are there: all of them, or none where something is wrong.
    fn update_batch(
        &self,
        py: Python<'_>,
        ids: &Bound<'_, PyAny>,
        vectors: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let ids = args::ids("ids", ids)?;
        let (rows, vectors) = self.rows("vectors", vectors)?;
        self.change(py, &Progress::none(), rows, move |index, _| index.update(&ids, &vectors))
    }

    /// The `k` rows nearest to `query`, best first.
    ///
    /// `query` is a float32 array of shape (d,). Fewer than `k` hits come back only where fewer rows match.
    ///
    /// - `recall`: how sure to be of each true neighbour, above 0 and at most 1. Without it 0.99; 1.0 is exact search.
    /// - `rerank_factor`: look closely at exactly `k * rerank_factor` rows instead.
    /// - `where`: the rows that may be found, as an array of ids or as a mask with one bool a row in the order of `ids`.
    ///   It is applied inside the scan: no match is missed, and blocks of rows without one are skipped.
    ///
    /// Cost: one pass over the codes (or the vectors, for `FlatF32Index`) on this thread, with the interpreter released.
    ///
    /// Raises `EmptyIndex`, `DimensionMismatch`, `InvalidArgumentError`, `InvalidTypeError`.
    #[pyo3(
        signature = (query, k = None, *, recall = None, rerank_factor = None, r#where = None),
        text_signature = "($self, query, k=10, *, recall=None, rerank_factor=None, where=None)"
    )]
    fn search(
        &self,
        py: Python<'_>,
        query: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        recall: Option<&Bound<'_, PyAny>>,
        rerank_factor: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Hits> {
        let request = Request::take(k, recall, rerank_factor, r#where)?;
        let query = args::vector("query", query, self.half())?;
        self.read(py, |index| request.one(index, &query)).map(Hits::new)
    }

    /// `search`, to be awaited: on asyncio, uvloop, and whatever has their interface.
    ///
    /// The query is copied at once; the search begins with the first await. A small index answers without a hop to another
    /// thread.
    #[pyo3(
        signature = (query, k = None, *, recall = None, rerank_factor = None, r#where = None),
        text_signature = "($self, query, k=10, *, recall=None, rerank_factor=None, where=None)"
    )]
    fn search_async(
        &self,
        query: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        recall: Option<&Bound<'_, PyAny>>,
        rerank_factor: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Coroutine> {
        let request = Request::take(k, recall, rerank_factor, r#where)?;
        let query = args::vector("query", query, self.half())?;
        let gate = self.gate.clone();
        Ok(Coroutine::new(move |py| {
            let free = gate.try_read().transpose().or_raise(py)?;
            if let Some(reader) = free.filter(|index| request.bytes(index) <= ON_THE_SPOT) {
                let hits = py.outside(|| request.one(&reader, &query)).or_raise(py)?;
                return wrap_hits(py, hits).map(Step::Done);
            }
            pending(py, wrap_hits, |job, delivery| {
                gate.read(move |reader| {
                    let work = move || {
                        job.check()?;
                        request.one(&*reader?, &query)
                    };
                    pool::spawn(work, |answer| delivery.answer(answer));
                });
            })
        }))
    }

    /// `search` for each row of `queries`, a float32 array of shape (m, d): parallel, and several queries a pass over the
    /// codes. Finds what single searches find.
    #[pyo3(
        signature = (queries, k = None, *, recall = None, rerank_factor = None, r#where = None, progress = None),
        text_signature = "($self, queries, k=10, *, recall=None, rerank_factor=None, where=None, progress=False)"
    )]
    #[expect(clippy::too_many_arguments, reason = "keyword options of one call")]
    fn search_batch(
        &self,
        py: Python<'_>,
        queries: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        recall: Option<&Bound<'_, PyAny>>,
        rerank_factor: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<HitsBatch> {
        let request = Request::take(k, recall, rerank_factor, r#where)?;
        let progress =
            progress.map_or(Ok(Progress::none()), |progress| Progress::take(progress, "search"))?;
        let (rows, queries) = self.rows("queries", queries)?;
        let reader = self.reader(py)?;
        pool::run(py, &progress, rows, move |job| request.batch(&reader, &queries, job))
    }

    /// `search_batch`, to be awaited. A cancelled await stops the work.
    #[pyo3(
        signature = (queries, k = None, *, recall = None, rerank_factor = None, r#where = None),
        text_signature = "($self, queries, k=10, *, recall=None, rerank_factor=None, where=None)"
    )]
    fn search_batch_async(
        &self,
        queries: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        recall: Option<&Bound<'_, PyAny>>,
        rerank_factor: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Coroutine> {
        let request = Request::take(k, recall, rerank_factor, r#where)?;
        let (_, queries) = self.rows("queries", queries)?;
        let gate = self.gate.clone();
        Ok(Coroutine::new(move |py| {
            pending(py, wrap_batch, |job, delivery| {
                gate.read(move |reader| {
                    let work = move || {
                        job.check()?;
                        request.batch(&*reader?, &queries, &job)
                    };
                    pool::spawn(work, |answer| delivery.answer(answer));
                });
            })
        }))
    }

    /// How many dimensions a vector has.
    #[getter]
    fn dim(&self) -> usize {
        self.dim
    }

    /// How near two vectors are: `"l2"`, `"ip"` or `"cosine"`.
    #[getter]
    fn metric(&self) -> &'static str {
        self.params.metric.as_str()
    }

    /// Bits a dimension of the codes; 0 where there are none.
    #[getter]
    fn bits(&self) -> u8 {
        self.params.bits
    }

    /// How the original vectors are kept: `"f32"`, `"f16"` or `None`.
    #[getter]
    fn originals(&self) -> Option<&'static str> {
        self.params.originals.map(Precision::as_str)
    }

    /// Bytes on the heap, spare room included. What lies in a mapped file does not count.
    #[getter]
    fn memory_bytes(&self, py: Python<'_>) -> PyResult<usize> {
        self.read(py, |index| Ok(index.memory_bytes()))
    }

    /// The ids in the order of the rows: a new uint64 array of shape (n,).
    #[getter]
    fn ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<u64>>> {
        Ok(self.read(py, |index| Ok(index.ids()))?.into_pyarray(py))
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.reader(py)?.len())
    }

    fn __contains__(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(id) = args::id("id", id) else { return Ok(false) };
        Ok(self.reader(py)?.contains(id))
    }

    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        id: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let id = args::id("id", id)?;
        Ok(self.read(py, |index| index.vector(id))?.into_pyarray(py))
    }

    /// Goes through (id, vector) of the index as it is now; later changes do not reach the iteration.
    fn __iter__(&self, py: Python<'_>) -> PyResult<RowIterator> {
        self.read(py, |index| Ok(RowIterator::new(index.ids(), index.originals()?)))
    }

    #[pyo3(signature = (dtype = None, copy = None))]
    fn __array__<'py>(
        &self,
        py: Python<'py>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let array = view(py, self.read(py, FlatIndex::originals)?)?;
        let kept = array.getattr("dtype")?;
        let wanted = dtype.unwrap_or(&kept);
        if kept.eq(wanted)? && copy != Some(true) {
            return Ok(array);
        }
        if copy == Some(false) {
            return Err(PyValueError::new_err(format!(
                "an index of {kept} originals cannot be {wanted} without a copy"
            )));
        }
        array.call_method1("astype", (wanted,))
    }

    fn __eq__(slf: &Bound<'_, Self>, other: &Bound<'_, Self>) -> PyResult<bool> {
        let (py, one, two) = (slf.py(), slf.get(), other.get());
        if Arc::ptr_eq(&one.gate, &two.gate) {
            return Ok(true);
        }
        // Always in the same order: two threads that compare crosswise must not wait for each other.
        let swap = Arc::as_ptr(&one.gate) > Arc::as_ptr(&two.gate);
        let (first, second) = if swap { (two, one) } else { (one, two) };
        let (first, second) = (first.reader(py)?, second.reader(py)?);
        Ok(py.outside(move || *first == *second))
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let (name, index) = (slf.get_type().name()?, slf.get().reader(slf.py())?);
        let originals = index
            .params()
            .originals
            .map_or_else(String::new, |kept| format!(", originals='{}'", kept.as_str()));
        let bits =
            if index.params().bits == 0 { String::new() } else { format!(", bits={}", index.params().bits) };
        let (rows, dim, metric, bytes) =
            (index.len(), index.dim(), index.metric(), index.memory_bytes() as f64);
        Ok(format!(
            "{name}(n={rows}, dim={dim}, metric='{metric}'{bits}{originals}, memory={:.2} MB)",
            bytes / 1e6
        ))
    }

    /// Writes the index to a file; a file of that name is replaced, all at once.
    ///
    /// The same index gives the same bytes. Cost: the disk's speed.
    ///
    /// Raises `PersistError`.
    fn save(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<()> {
        let path = args::path("path", path)?;
        let reader = self.reader(py)?;
        Task::start(move || reader.save(&path)).wait(py, &mut Watch::silent())
    }

    /// Reads an index from a file that `save` wrote, or from an `.rbpx` file of ruvector.
    ///
    /// The whole file is read and verified. With `mmap=True` it is mapped instead: opening takes milliseconds whatever the
    /// size, parts are verified when first used, and rows that are never looked at never take memory. For files that nobody
    /// shortens meanwhile: that would end the process.
    ///
    /// Raises `IndexFileNotFoundError`, `CorruptFileError`, `NewerFileError`; `PersistError` where the file holds
    /// an index of another class.
    #[classmethod]
    #[pyo3(signature = (path, mmap = false))]
    fn load<'py>(
        class: &Bound<'py, PyType>,
        path: &Bound<'py, PyAny>,
        mmap: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let path = args::path("path", path)?;
        let wanted = Class::of(class)?;
        let mut watch = Watch::silent();
        let job = watch.job();
        let work = move || {
            let index = if mmap { files::map(&path, &job) } else { FlatIndex::load(&path, &job) }?;
            wanted.check_file(index.params(), &path)?;
            Ok(index)
        };
        wrap(class, Task::start(work).wait(class.py(), &mut watch)?)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let bytes = slf.get().read(slf.py(), FlatIndex::to_bytes)?;
        Ok((slf.get_type().getattr("_from_bytes")?, (bytes.into_pyarray(slf.py()),).into_pyobject(slf.py())?))
    }

    #[classmethod]
    fn _from_bytes<'py>(
        class: &Bound<'py, PyType>,
        bytes: &Bound<'py, PyArray1<u8>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = class.py();
        let source: Source = Arc::new(bytes.to_vec()?);
        let index = py.outside(|| FlatIndex::from_bytes(&source, Verify::Now)).or_raise(py)?;
        Class::of(class)?.check(index.params()).or_raise(py)?;
        wrap(class, index)
    }
}
