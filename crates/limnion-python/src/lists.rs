//! The index of lists: what `limnion.IvfIndex` is made of.

use std::sync::Arc;

use limnion_index::{Explanation, IvfIndex, IvfOptions, IvfParams, Precision, Source, Verify};
use limnion_types::{Hit, Job, Result};
use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::args::{self, Matrix, Progress};
use crate::build::build_lists;
use crate::coroutine::Coroutine;
use crate::door::Door as _;
use crate::errors::OrRaise;
use crate::files;
use crate::held::{self, Facts, Held};
use crate::index::{self, Kept, VectorIndex};
use crate::pool::{Task, Watch};
use crate::results::{Hits, HitsBatch};
use crate::scope::{Near, Scope, Within};

/// Rows whose codes a search scans, as a guess, in roots of all rows.
const SCANNED_ROOTS: usize = 32;

/// What `limnion.IvfIndex` is made of.
#[pyclass(frozen, subclass, extends = VectorIndex, name = "ListIndex", module = "limnion._native")]
pub(crate) struct Lists {
    held: Held<IvfIndex>,
    facts: Facts,
}

fn wrap<'py>(class: &Bound<'py, PyType>, index: IvfIndex) -> PyResult<Bound<'py, PyAny>> {
    let IvfParams { metric, bits, originals, .. } = *index.params();
    let facts = Facts { dim: index.dim(), metric, bits, originals };
    index::wrap(class, Kept::Lists(Held::new(index)), facts)
}

/// A search.
struct Request {
    near: Near,
    scope: Scope,
    recall: Option<f32>,
    nprobe: Option<u32>,
}

impl Request {
    #[inline]
    fn take(
        near: Near,
        scope: Scope,
        recall: Option<&Bound<'_, PyAny>>,
        nprobe: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        Ok(Self {
            near,
            scope,
            recall: recall.map(|recall| args::number("recall", recall)).transpose()?,
            nprobe: nprobe.map(|nprobe| args::small("nprobe", nprobe)).transpose()?,
        })
    }

    fn explained(&self, index: &IvfIndex) -> Result<Explanation> {
        let query = self.near.vector(index)?;
        self.scope.within(index, |within| Ok(index.search_explained(&query, &self.options(within))?.1))
    }

    fn options<'a>(&self, Within { k, selection, radius }: Within<'a>) -> IvfOptions<'a> {
        IvfOptions { k, recall: self.recall, nprobe: self.nprobe, selection, radius }
    }
}

impl held::Request<IvfIndex> for Request {
    fn one(&self, index: &IvfIndex) -> Result<Vec<Hit>> {
        let query = self.near.vector(index)?;
        self.scope.one(index, |within| index.search(&query, &self.options(within)))
    }

    fn batch(&self, index: &IvfIndex, job: &Job) -> Result<Vec<Vec<Hit>>> {
        let queries = self.near.vector(index)?;
        self.scope.batch(index, |within| index.search_batch(&queries, &self.options(within), job))
    }

    fn bytes(&self, index: &IvfIndex) -> usize {
        let (rows, original) = (index.len(), index.dim() * size_of::<f32>());
        if self.recall == Some(1.0) {
            return rows.saturating_mul(original);
        }
        let lists = index.list_count();
        let scanned = match self.nprobe {
            Some(nprobe) => rows.saturating_mul(nprobe as usize) / lists.max(1),
            None => rows.isqrt() * SCANNED_ROOTS,
        };
        let code = index.dim() / 8 + 6;
        (scanned.min(rows) + lists) * code + self.scope.k().min(rows) * original
    }
}

impl Lists {
    #[inline]
    fn near_vector(&self, query: &Bound<'_, PyAny>) -> PyResult<Near> {
        self.facts.vector("query", query).map(Near::Vector)
    }
}

#[pymethods]
impl Lists {
    #[new]
    #[classmethod]
    #[pyo3(signature = (*made, **_options))]
    fn new(
        class: &Bound<'_, PyType>,
        made: &Bound<'_, PyTuple>,
        _options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        match index::made(class, made)? {
            (Kept::Lists(held), facts) => {
                let base = VectorIndex::new(Kept::Lists(held.clone()), facts);
                Ok(PyClassInitializer::from(base).add_subclass(Self { held, facts }))
            }
            (Kept::Flat(_) | Kept::Graph(_), _) => Err(index::not_made(class)),
        }
    }

    #[classmethod]
    #[pyo3(signature = (vectors, *, bits, originals, lists, ids, metric, seed, progress))]
    #[expect(clippy::too_many_arguments, reason = "keyword options of one call")]
    fn _build<'py>(
        class: &Bound<'py, PyType>,
        vectors: &Bound<'py, PyAny>,
        bits: &Bound<'py, PyAny>,
        originals: Option<&Bound<'py, PyAny>>,
        lists: Option<&Bound<'py, PyAny>>,
        ids: Option<&Bound<'py, PyAny>>,
        metric: &Bound<'py, PyAny>,
        seed: &Bound<'py, PyAny>,
        progress: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let params = IvfParams {
            metric: args::metric(metric)?,
            bits: args::bits(bits)?,
            originals: args::originals(originals)?,
            seed: args::whole("seed", seed)?,
            lists: lists.map(|lists| args::small("lists", lists)).transpose()?,
        };
        let matrix = Matrix::take("vectors", vectors, params.originals == Some(Precision::F16))?;
        let ids = ids.map(|ids| args::ids("ids", ids)).transpose()?;
        let progress = Progress::take(progress, "build")?;
        wrap(class, build_lists(class.py(), &matrix, ids, params, &progress)?)
    }

    /// The `k` rows nearest to `query`, best first.
    ///
    /// `query` is a float32 array of shape (d,). Fewer than `k` hits come back only where fewer rows match.
    ///
    /// - `recall`: the share of the true neighbours to find, above 0 and at most 1. Without it 0.95; 1.0 looks at every
    ///   original.
    /// - `nprobe`: look into exactly so many lists instead, the nearest.
    /// - `where`: the rows that may be found, as an array of ids or as a mask with one bool a row in the order of `ids`.
    /// - `exclude`: ids that are not to be found.
    /// - `radius`: how far a hit may be, as its `distance`.
    ///
    /// Cost: the lists that the recall asks for, on this thread, with the interpreter released.
    ///
    /// Raises `EmptyIndex`, `DimensionMismatch`, `InvalidArgumentError`, `InvalidTypeError`.
    #[pyo3(
        signature = (query, k = None, *, recall = None, nprobe = None, r#where = None, exclude = None, radius = None),
        text_signature = "($self, query, k=10, *, recall=None, nprobe=None, where=None, exclude=None, radius=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "keyword options of one call")]
    fn search(
        &self,
        py: Python<'_>,
        query: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        recall: Option<&Bound<'_, PyAny>>,
        nprobe: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Hits> {
        let near = self.near_vector(query)?;
        let request = Request::take(near, Scope::take(k, r#where, exclude, radius)?, recall, nprobe)?;
        self.held.search(py, &request)
    }

    /// `search`, to be awaited: on asyncio, uvloop, and whatever has their interface.
    ///
    /// The query is copied at once; the search begins with the first await. A short search is answered without a hop to
    /// another thread.
    #[pyo3(
        signature = (query, k = None, *, recall = None, nprobe = None, r#where = None, exclude = None, radius = None),
        text_signature = "($self, query, k=10, *, recall=None, nprobe=None, where=None, exclude=None, radius=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "keyword options of one call")]
    fn search_async(
        &self,
        query: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        recall: Option<&Bound<'_, PyAny>>,
        nprobe: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Coroutine> {
        let near = self.near_vector(query)?;
        let request = Request::take(near, Scope::take(k, r#where, exclude, radius)?, recall, nprobe)?;
        Ok(self.held.search_async(request))
    }

    /// The `k` rows nearest to the row with an id, which is itself left out: `search` from its vector, or, where only codes
    /// are kept, from what its code says of it.
    ///
    /// Raises `IdNotFoundError`, and what `search` raises.
    #[pyo3(
        signature = (id, k = None, *, recall = None, nprobe = None, r#where = None, exclude = None, radius = None),
        text_signature = "($self, id, k=10, *, recall=None, nprobe=None, where=None, exclude=None, radius=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "keyword options of one call")]
    fn search_by_id(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        recall: Option<&Bound<'_, PyAny>>,
        nprobe: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Hits> {
        let (id, scope) = (args::id("id", id)?, Scope::take(k, r#where, exclude, radius)?);
        self.held.search(py, &Request::take(Near::Row(id), scope.without(id), recall, nprobe)?)
    }

    /// `search_by_id`, to be awaited.
    #[pyo3(
        signature = (id, k = None, *, recall = None, nprobe = None, r#where = None, exclude = None, radius = None),
        text_signature = "($self, id, k=10, *, recall=None, nprobe=None, where=None, exclude=None, radius=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "keyword options of one call")]
    fn search_by_id_async(
        &self,
        id: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        recall: Option<&Bound<'_, PyAny>>,
        nprobe: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Coroutine> {
        let (id, scope) = (args::id("id", id)?, Scope::take(k, r#where, exclude, radius)?);
        Ok(self.held.search_async(Request::take(Near::Row(id), scope.without(id), recall, nprobe)?))
    }

    /// `search` for each row of `queries`, a float32 array of shape (m, d), on all cores. Finds what single searches find.
    #[pyo3(
        signature = (
            queries, k = None, *, recall = None, nprobe = None, r#where = None, exclude = None, radius = None, progress = None
        ),
        text_signature = "($self, queries, k=10, *, recall=None, nprobe=None, where=None, exclude=None, radius=None, progress=False)"
    )]
    #[expect(clippy::too_many_arguments, reason = "keyword options of one call")]
    fn search_batch(
        &self,
        py: Python<'_>,
        queries: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        recall: Option<&Bound<'_, PyAny>>,
        nprobe: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<HitsBatch> {
        let (rows, queries) = self.facts.rows("queries", queries)?;
        let scope = Scope::take(k, r#where, exclude, radius)?;
        let request = Request::take(Near::Vector(queries), scope, recall, nprobe)?;
        self.held.search_batch(py, rows, request, &Progress::given(progress, "search")?)
    }

    /// `search_batch`, to be awaited. A cancelled await stops the work.
    #[pyo3(
        signature = (queries, k = None, *, recall = None, nprobe = None, r#where = None, exclude = None, radius = None),
        text_signature = "($self, queries, k=10, *, recall=None, nprobe=None, where=None, exclude=None, radius=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "keyword options of one call")]
    fn search_batch_async(
        &self,
        queries: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        recall: Option<&Bound<'_, PyAny>>,
        nprobe: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Coroutine> {
        let (_, queries) = self.facts.rows("queries", queries)?;
        let scope = Scope::take(k, r#where, exclude, radius)?;
        let request = Request::take(Near::Vector(queries), scope, recall, nprobe)?;
        Ok(self.held.search_batch_async(request))
    }

    #[pyo3(signature = (query, k, recall, nprobe, r#where, exclude, radius))]
    #[expect(clippy::too_many_arguments, reason = "the options of a search")]
    fn _explain(
        &self,
        py: Python<'_>,
        query: &Bound<'_, PyAny>,
        k: &Bound<'_, PyAny>,
        recall: Option<&Bound<'_, PyAny>>,
        nprobe: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(usize, usize, usize)> {
        let scope = Scope::take(Some(k), r#where, exclude, radius)?;
        let request = Request::take(self.near_vector(query)?, scope, recall, nprobe)?;
        let Explanation { lists, scanned, refined } = self.held.read(py, |index| request.explained(index))?;
        Ok((lists, scanned, refined))
    }

    /// How many lists there are now.
    #[getter]
    fn lists(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.held.reader(py)?.list_count())
    }

    /// Reads an index from a file that `save` wrote.
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
        let task = Task::start(move || files::lists(&path, mmap));
        wrap(class, task.wait(class.py(), &mut Watch::silent())?)
    }

    #[classmethod]
    fn _from_bytes<'py>(
        class: &Bound<'py, PyType>,
        bytes: &Bound<'py, PyArray1<u8>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = class.py();
        let source: Source = Arc::new(bytes.to_vec()?);
        wrap(class, py.outside(|| IvfIndex::from_bytes(&source, Verify::Now)).or_raise(py)?)
    }
}
