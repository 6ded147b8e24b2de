//! The index of binary vectors, `limnion.HammingIndex`.

use std::sync::Arc;

use limnion_index::{HammingIndex, HammingOptions, Source, Verify};
use limnion_types::{Error, ErrorKind, Hit, Job, Result};
use numpy::{IntoPyArray, PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::args::{self, Progress};
use crate::coroutine::Coroutine;
use crate::door::Door as _;
use crate::errors::{OrRaise, exception};
use crate::files;
use crate::held::{self, Held};
use crate::index;
use crate::pool::{self, Task, Watch};
use crate::results::{Hits, HitsBatch};
use crate::scope::{Scope, Within};
use crate::selection::{PySelection, Where, exclusion};

/// Binary vectors, eight bits a byte, searched exactly by the number of bits in which they differ.
#[pyclass(frozen, mapping, name = "HammingIndex", module = "limnion._native")]
pub(crate) struct Hamming {
    held: Held<HammingIndex>,
    width: usize,
}

/// A search.
struct Request {
    near: Near,
    scope: Scope,
}

enum Near {
    Vector(Vec<u8>),
    Row(u64),
}

impl Request {
    fn options<'a>(&self, Within { k, selection, radius }: Within<'a>) -> HammingOptions<'a> {
        HammingOptions { k, selection, radius }
    }

    fn queries(&self, index: &HammingIndex) -> Result<Vec<u8>> {
        match &self.near {
            Near::Vector(vector) => Ok(vector.clone()),
            Near::Row(id) => index.vector(*id),
        }
    }
}

impl held::Request<HammingIndex> for Request {
    fn one(&self, index: &HammingIndex) -> Result<Vec<Hit>> {
        let query = self.queries(index)?;
        self.scope.one(index, |within| index.search(&query, &self.options(within)))
    }

    fn batch(&self, index: &HammingIndex, job: &Job) -> Result<Vec<Vec<Hit>>> {
        let queries = self.queries(index)?;
        self.scope.batch(index, |within| index.search_batch(&queries, &self.options(within), job))
    }

    fn bytes(&self, index: &HammingIndex) -> usize {
        index.len().saturating_mul(index.width())
    }
}

impl Hamming {
    fn of(index: HammingIndex) -> Self {
        Self { width: index.width(), held: Held::new(index) }
    }

    /// A vector, copied.
    fn vector(&self, name: &str, given: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
        let (vector, _) = args::bits_of(name, given, 1)?;
        self.check_width(given.py(), name, vector.len())?;
        Ok(vector)
    }

    /// Vectors, copied, and how many they are.
    fn rows(&self, name: &str, given: &Bound<'_, PyAny>) -> PyResult<(usize, Vec<u8>)> {
        let (vectors, shape) = args::bits_of(name, given, 2)?;
        self.check_width(given.py(), name, shape.last().copied().unwrap_or_default())?;
        Ok((vectors.len() / self.width, vectors))
    }

    fn check_width(&self, py: Python<'_>, name: &str, width: usize) -> PyResult<()> {
        if width == self.width {
            return Ok(());
        }
        let message = format!("{name} must have {} bytes a vector like the index, got {width}", self.width);
        Err(exception(py, &Error::new(ErrorKind::DimensionMismatch, message)))
    }
}

#[pymethods]
impl Hamming {
    #[new]
    #[classmethod]
    #[pyo3(signature = (*_made, **_options))]
    fn new(
        class: &Bound<'_, PyType>,
        _made: &Bound<'_, PyTuple>,
        _options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        Err(index::not_made(class))
    }

    /// Builds an index of the rows of `vectors`, a C-contiguous uint8 array of shape (n, bytes), as `numpy.packbits` makes
    /// it.
    #[staticmethod]
    #[pyo3(signature = (vectors, *, ids = None, progress = None), text_signature = "(vectors, *, ids=None, progress=False)")]
    fn build(
        py: Python<'_>,
        vectors: &Bound<'_, PyAny>,
        ids: Option<&Bound<'_, PyAny>>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let (vectors, shape) = args::bits_of("vectors", vectors, 2)?;
        let ids = ids.map(|ids| args::ids("ids", ids)).transpose()?;
        let progress = Progress::given(progress, "build")?;
        let (rows, width) = (shape.first().copied().unwrap_or(0), shape.last().copied().unwrap_or(0));
        pool::run(py, &progress, rows, move |job| {
            HammingIndex::build(&vectors, width, ids.as_deref(), job).map(Self::of)
        })
    }

    /// Appends one vector under a new id.
    fn add(&self, py: Python<'_>, id: &Bound<'_, PyAny>, vector: &Bound<'_, PyAny>) -> PyResult<()> {
        let (id, vector) = (args::id("id", id)?, self.vector("vector", vector)?);
        self.held.change(py, &Progress::none(), 1, move |index, job| index.add(Some(&[id]), &vector, job))
    }

    /// Appends the rows of `vectors`: all of them, or none where something is wrong.
    #[pyo3(signature = (vectors, *, ids = None), text_signature = "($self, vectors, *, ids=None)")]
    fn add_batch(
        &self,
        py: Python<'_>,
        vectors: &Bound<'_, PyAny>,
        ids: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (rows, vectors) = self.rows("vectors", vectors)?;
        let ids = ids.map(|ids| args::ids("ids", ids)).transpose()?;
        self.held
            .change(py, &Progress::none(), rows, move |index, job| index.add(ids.as_deref(), &vectors, job))
    }

    /// Removes the row with an id, or the rows with several: all of them, or none where one is missing.
    fn remove(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<()> {
        let ids = args::id_or_ids("ids", ids)?;
        self.held.change(py, &Progress::none(), ids.len(), move |index, _| index.remove(&ids))
    }

    /// Replaces the vector of a row that is there.
    fn update(&self, py: Python<'_>, id: &Bound<'_, PyAny>, vector: &Bound<'_, PyAny>) -> PyResult<()> {
        let (id, vector) = (args::id("id", id)?, self.vector("vector", vector)?);
        self.held.change(py, &Progress::none(), 1, move |index, _| index.update(&[id], &vector))
    }

    /// Appends the rows of another index under their ids: all of them, or none where something is wrong.
    fn merge(&self, py: Python<'_>, other: &Bound<'_, Self>) -> PyResult<()> {
        let other = other.get().held.read(py, |index| Ok(index.clone()))?;
        self.held.change(py, &Progress::none(), other.len(), move |index, job| index.merge(&other, job))
    }

    /// Names rows that searches may find, once for any number of them: what `where=` takes.
    #[pyo3(signature = (r#where = None, *, exclude = None), text_signature = "($self, where=None, *, exclude=None)")]
    fn select(
        &self,
        py: Python<'_>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PySelection> {
        let (named, exclusion) = (r#where.map(Where::take).transpose()?, exclusion(exclude)?);
        self.held.read(py, |index| PySelection::make(index, named, exclusion))
    }

    /// The `k` rows that differ from `query` in the fewest bits, which are the hits' distances; best first.
    #[pyo3(
        signature = (query, k = None, *, r#where = None, exclude = None, radius = None),
        text_signature = "($self, query, k=10, *, where=None, exclude=None, radius=None)"
    )]
    fn search(
        &self,
        py: Python<'_>,
        query: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Hits> {
        let near = Near::Vector(self.vector("query", query)?);
        self.held.search(py, &Request { near, scope: Scope::take(k, r#where, exclude, radius)? })
    }

    /// `search`, to be awaited.
    #[pyo3(
        signature = (query, k = None, *, r#where = None, exclude = None, radius = None),
        text_signature = "($self, query, k=10, *, where=None, exclude=None, radius=None)"
    )]
    fn search_async(
        &self,
        query: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Coroutine> {
        let near = Near::Vector(self.vector("query", query)?);
        Ok(self.held.search_async(Request { near, scope: Scope::take(k, r#where, exclude, radius)? }))
    }

    /// The `k` rows nearest to the row with an id, which is itself left out.
    #[pyo3(
        signature = (id, k = None, *, r#where = None, exclude = None, radius = None),
        text_signature = "($self, id, k=10, *, where=None, exclude=None, radius=None)"
    )]
    fn search_by_id(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Hits> {
        let id = args::id("id", id)?;
        let scope = Scope::take(k, r#where, exclude, radius)?.without(id);
        self.held.search(py, &Request { near: Near::Row(id), scope })
    }

    /// `search_by_id`, to be awaited.
    #[pyo3(
        signature = (id, k = None, *, r#where = None, exclude = None, radius = None),
        text_signature = "($self, id, k=10, *, where=None, exclude=None, radius=None)"
    )]
    fn search_by_id_async(
        &self,
        id: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Coroutine> {
        let id = args::id("id", id)?;
        let scope = Scope::take(k, r#where, exclude, radius)?.without(id);
        Ok(self.held.search_async(Request { near: Near::Row(id), scope }))
    }

    /// `search` for each row of `queries`, a uint8 array of shape (m, bytes), on all cores.
    #[pyo3(
        signature = (queries, k = None, *, r#where = None, exclude = None, radius = None, progress = None),
        text_signature = "($self, queries, k=10, *, where=None, exclude=None, radius=None, progress=False)"
    )]
    #[expect(clippy::too_many_arguments, reason = "keyword options of one call")]
    fn search_batch(
        &self,
        py: Python<'_>,
        queries: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<HitsBatch> {
        let (rows, queries) = self.rows("queries", queries)?;
        let request =
            Request { near: Near::Vector(queries), scope: Scope::take(k, r#where, exclude, radius)? };
        self.held.search_batch(py, rows, request, &Progress::given(progress, "search")?)
    }

    /// `search_batch`, to be awaited. A cancelled await stops the work.
    #[pyo3(
        signature = (queries, k = None, *, r#where = None, exclude = None, radius = None),
        text_signature = "($self, queries, k=10, *, where=None, exclude=None, radius=None)"
    )]
    fn search_batch_async(
        &self,
        queries: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Coroutine> {
        let (_, queries) = self.rows("queries", queries)?;
        let request =
            Request { near: Near::Vector(queries), scope: Scope::take(k, r#where, exclude, radius)? };
        Ok(self.held.search_batch_async(request))
    }

    /// How many bits a vector has.
    #[getter]
    fn dim(&self) -> usize {
        8 * self.width
    }

    /// Bytes on the heap, spare room included. What lies in a mapped file does not count.
    #[getter]
    fn memory_bytes(&self, py: Python<'_>) -> PyResult<usize> {
        self.held.read(py, |index| Ok(index.memory_bytes()))
    }

    /// The ids in the order of the rows: a new uint64 array of shape (n,).
    #[getter]
    fn ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<u64>>> {
        Ok(self.held.read(py, |index| Ok(index.ids()))?.into_pyarray(py))
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.held.reader(py)?.len())
    }

    fn __contains__(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(id) = args::id("id", id) else { return Ok(false) };
        Ok(self.held.reader(py)?.contains(id))
    }

    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        id: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray1<u8>>> {
        let id = args::id("id", id)?;
        Ok(self.held.read(py, |index| index.vector(id))?.into_pyarray(py))
    }

    fn __eq__(slf: &Bound<'_, Self>, other: &Bound<'_, Self>) -> PyResult<bool> {
        slf.get().held.equals(slf.py(), &other.get().held)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let index = self.held.reader(py)?;
        let bytes = index.memory_bytes() as f64;
        Ok(format!("HammingIndex(n={}, dim={}, memory={:.2} MB)", index.len(), self.dim(), bytes / 1e6))
    }

    /// Writes the index to a file; a file of that name is replaced, all at once.
    fn save(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<()> {
        let path = args::path("path", path)?;
        let reader = self.held.reader(py)?;
        Task::start(move || reader.save(&path)).wait(py, &mut Watch::silent())
    }

    /// Reads an index from a file that `save` wrote; with `mmap=True` it is mapped instead, and verified when first used.
    #[staticmethod]
    #[pyo3(signature = (path, mmap = false))]
    fn load(py: Python<'_>, path: &Bound<'_, PyAny>, mmap: bool) -> PyResult<Self> {
        let path = args::path("path", path)?;
        Task::start(move || files::hamming(&path, mmap)).wait(py, &mut Watch::silent()).map(Self::of)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let py = slf.py();
        let bytes = slf.get().held.read(py, |index| index.to_bytes())?;
        Ok((slf.get_type().getattr("_from_bytes")?, (bytes.into_pyarray(py),).into_pyobject(py)?))
    }

    #[staticmethod]
    fn _from_bytes(py: Python<'_>, bytes: &Bound<'_, PyArray1<u8>>) -> PyResult<Self> {
        let source: Source = Arc::new(bytes.to_vec()?);
        py.outside(|| HammingIndex::from_bytes(&source, Verify::Now)).map(Self::of).or_raise(py)
    }
}
