//! The flat index: what the four classes of `limnion.indexes` that scan every row have in common.

use std::sync::Arc;

use limnion_index::{FlatIndex, Params, Precision, SearchOptions, Source, Verify};
use limnion_types::{Hit, Job, Result};
use numpy::{PyArray1, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::args::{self, Matrix, Progress};
use crate::build::build;
use crate::classes::Class;
use crate::coroutine::Coroutine;
use crate::door::Door as _;
use crate::errors::OrRaise;
use crate::files;
use crate::held::{self, Facts, Held};
use crate::index::{self, Kept, VectorIndex};
use crate::pool::{self, Task, Watch};
use crate::results::{Hits, HitsBatch};
use crate::scope::{Near, Scope, Within};

/// Rows refined for each hit, as a guess, where a search does not say.
const USUAL_RERANK: u32 = 4;

/// What the four classes of flat index have in common; `limnion.indexes` has the classes to use.
#[pyclass(frozen, subclass, extends = VectorIndex, name = "FlatIndex", module = "limnion._native")]
pub(crate) struct Flat {
    held: Held<FlatIndex>,
    facts: Facts,
}

/// An index as an instance of one of the four classes.
pub(crate) fn wrap<'py>(class: &Bound<'py, PyType>, index: FlatIndex) -> PyResult<Bound<'py, PyAny>> {
    let Params { metric, bits, originals, .. } = *index.params();
    let facts = Facts { dim: index.dim(), metric, bits, originals };
    index::wrap(class, Kept::Flat(Held::new(index)), facts)
}

/// A search.
struct Request {
    near: Near,
    scope: Scope,
    recall: Option<f32>,
    rerank_factor: Option<u32>,
}

impl Request {
    #[inline]
    fn take(
        near: Near,
        scope: Scope,
        recall: Option<&Bound<'_, PyAny>>,
        rerank_factor: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        Ok(Self {
            near,
            scope,
            recall: recall.map(|recall| args::number("recall", recall)).transpose()?,
            rerank_factor: rerank_factor.map(|factor| args::small("rerank_factor", factor)).transpose()?,
        })
    }

    fn options<'a>(&self, Within { k, selection, radius }: Within<'a>) -> SearchOptions<'a> {
        SearchOptions { k, recall: self.recall, rerank_factor: self.rerank_factor, selection, radius }
    }
}

impl held::Request<FlatIndex> for Request {
    fn one(&self, index: &FlatIndex) -> Result<Vec<Hit>> {
        let query = self.near.vector(index)?;
        self.scope.one(index, |within| index.search(&query, &self.options(within)))
    }

    fn batch(&self, index: &FlatIndex, job: &Job) -> Result<Vec<Vec<Hit>>> {
        let queries = self.near.vector(index)?;
        self.scope.batch(index, |within| index.search_batch(&queries, &self.options(within), job))
    }

    fn bytes(&self, index: &FlatIndex) -> usize {
        let (params, original) = (index.params(), index.dim() * size_of::<f32>());
        if params.bits == 0 || self.recall == Some(1.0) {
            return index.len().saturating_mul(original);
        }
        if self.recall.is_some() && !index.is_calibrated() {
            return usize::MAX;
        }
        let code = index.dim() / 8 + 6;
        let factor = self.rerank_factor.or(params.rerank_factor).unwrap_or(USUAL_RERANK);
        let refined = self.scope.k().saturating_mul(factor as usize).min(index.len());
        (index.len() * code).saturating_add(refined * original)
    }
}

impl Flat {
    #[inline]
    fn near_vector(&self, query: &Bound<'_, PyAny>) -> PyResult<Near> {
        self.facts.vector("query", query).map(Near::Vector)
    }

    /// Has the pool find out what a recall takes, where that is not known.
    #[inline]
    fn prepare(&self, py: Python<'_>, request: &Request) -> PyResult<()> {
        if request.recall.is_none_or(|recall| recall >= 1.0) {
            return Ok(());
        }
        let reader = self.held.reader(py)?;
        if reader.is_calibrated() {
            return Ok(());
        }
        pool::run(py, &Progress::none(), 0, move |job| reader.calibrate(job))
    }

    /// Calls `look` on this thread, detached.
    pub(crate) fn look<R: Send>(
        &self,
        py: Python<'_>,
        look: impl FnOnce(&FlatIndex) -> R + Send,
    ) -> PyResult<R> {
        self.held.read(py, |index| Ok(look(index)))
    }
}

#[pymethods]
impl Flat {
    #[new]
    #[classmethod]
    #[pyo3(signature = (*made, **_options))]
    fn new(
        class: &Bound<'_, PyType>,
        made: &Bound<'_, PyTuple>,
        _options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        match index::made(class, made)? {
            (Kept::Flat(held), facts) => {
                let base = VectorIndex::new(Kept::Flat(held.clone()), facts);
                Ok(PyClassInitializer::from(base).add_subclass(Self { held, facts }))
            }
            (Kept::Lists(_) | Kept::Graph(_), _) => Err(index::not_made(class)),
        }
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

    /// The `k` rows nearest to `query`, best first.
    ///
    /// `query` is a float32 array of shape (d,). Fewer than `k` hits come back only where fewer rows match.
    ///
    /// - `recall`: the share of the true neighbours to find, above 0 and at most 1; 1.0 is exact search. The first search that
    ///   names one finds out what it takes on these data. Without it nearly all are found.
    /// - `rerank_factor`: look closely at exactly `k * rerank_factor` rows instead.
    /// - `where`: the rows that may be found, as an array of ids or as a mask with one bool a row in the order of `ids`.
    ///   It is applied inside the scan: no match is missed, and blocks of rows without one are skipped.
    /// - `exclude`: ids that are not to be found.
    /// - `radius`: how far a hit may be, as its `distance`.
    ///
    /// Cost: one pass over the codes (or the vectors, for `FlatF32Index`) on this thread, with the interpreter released.
    ///
    /// Raises `EmptyIndex`, `DimensionMismatch`, `InvalidArgumentError`, `InvalidTypeError`.
    #[pyo3(
        signature = (query, k = None, *, recall = None, rerank_factor = None, r#where = None, exclude = None, radius = None),
        text_signature = "($self, query, k=10, *, recall=None, rerank_factor=None, where=None, exclude=None, radius=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "keyword options of one call")]
    fn search(
        &self,
        py: Python<'_>,
        query: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        recall: Option<&Bound<'_, PyAny>>,
        rerank_factor: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Hits> {
        let near = self.near_vector(query)?;
        let request = Request::take(near, Scope::take(k, r#where, exclude, radius)?, recall, rerank_factor)?;
        self.prepare(py, &request)?;
        self.held.search(py, &request)
    }

    /// `search`, to be awaited: on asyncio, uvloop, and whatever has their interface.
    ///
    /// The query is copied at once; the search begins with the first await. A small index answers without a hop to another
    /// thread.
    #[pyo3(
        signature = (query, k = None, *, recall = None, rerank_factor = None, r#where = None, exclude = None, radius = None),
        text_signature = "($self, query, k=10, *, recall=None, rerank_factor=None, where=None, exclude=None, radius=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "keyword options of one call")]
    fn search_async(
        &self,
        query: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        recall: Option<&Bound<'_, PyAny>>,
        rerank_factor: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Coroutine> {
        let near = self.near_vector(query)?;
        let request = Request::take(near, Scope::take(k, r#where, exclude, radius)?, recall, rerank_factor)?;
        Ok(self.held.search_async(request))
    }

    /// The `k` rows nearest to the row with an id, which is itself left out: `search` from its vector, or, where only codes
    /// are kept, from what its code says of it.
    ///
    /// Raises `IdNotFoundError`, and what `search` raises.
    #[pyo3(
        signature = (id, k = None, *, recall = None, rerank_factor = None, r#where = None, exclude = None, radius = None),
        text_signature = "($self, id, k=10, *, recall=None, rerank_factor=None, where=None, exclude=None, radius=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "keyword options of one call")]
    fn search_by_id(
        &self,
        py: Python<'_>,
        id: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        recall: Option<&Bound<'_, PyAny>>,
        rerank_factor: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Hits> {
        let (id, scope) = (args::id("id", id)?, Scope::take(k, r#where, exclude, radius)?);
        let request = Request::take(Near::Row(id), scope.without(id), recall, rerank_factor)?;
        self.prepare(py, &request)?;
        self.held.search(py, &request)
    }

    /// `search_by_id`, to be awaited.
    #[pyo3(
        signature = (id, k = None, *, recall = None, rerank_factor = None, r#where = None, exclude = None, radius = None),
        text_signature = "($self, id, k=10, *, recall=None, rerank_factor=None, where=None, exclude=None, radius=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "keyword options of one call")]
    fn search_by_id_async(
        &self,
        id: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        recall: Option<&Bound<'_, PyAny>>,
        rerank_factor: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Coroutine> {
        let (id, scope) = (args::id("id", id)?, Scope::take(k, r#where, exclude, radius)?);
        Ok(self.held.search_async(Request::take(Near::Row(id), scope.without(id), recall, rerank_factor)?))
    }

    /// `search` for each row of `queries`, a float32 array of shape (m, d): parallel, and several queries a pass over the
    /// codes. Finds what single searches find.
    #[pyo3(
        signature = (
            queries, k = None, *, recall = None, rerank_factor = None, r#where = None, exclude = None, radius = None, progress = None
        ),
        text_signature = "($self, queries, k=10, *, recall=None, rerank_factor=None, where=None, exclude=None, radius=None, progress=False)"
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
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<HitsBatch> {
        let (rows, queries) = self.facts.rows("queries", queries)?;
        let scope = Scope::take(k, r#where, exclude, radius)?;
        let request = Request::take(Near::Vector(queries), scope, recall, rerank_factor)?;
        self.held.search_batch(py, rows, request, &Progress::given(progress, "search")?)
    }

    /// `search_batch`, to be awaited. A cancelled await stops the work.
    #[pyo3(
        signature = (queries, k = None, *, recall = None, rerank_factor = None, r#where = None, exclude = None, radius = None),
        text_signature = "($self, queries, k=10, *, recall=None, rerank_factor=None, where=None, exclude=None, radius=None)"
    )]
    #[expect(clippy::too_many_arguments, reason = "keyword options of one call")]
    fn search_batch_async(
        &self,
        queries: &Bound<'_, PyAny>,
        k: Option<&Bound<'_, PyAny>>,
        recall: Option<&Bound<'_, PyAny>>,
        rerank_factor: Option<&Bound<'_, PyAny>>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
        radius: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Coroutine> {
        let (_, queries) = self.facts.rows("queries", queries)?;
        let scope = Scope::take(k, r#where, exclude, radius)?;
        let request = Request::take(Near::Vector(queries), scope, recall, rerank_factor)?;
        Ok(self.held.search_batch_async(request))
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
            let index = files::flat(&path, mmap, wanted.name(), &job)?;
            wanted.check_file(index.params(), &path)?;
            Ok(index)
        };
        wrap(class, Task::start(work).wait(class.py(), &mut watch)?)
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
