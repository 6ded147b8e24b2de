//! What a search in a lake gives back: hits, which become objects or arrays when they are looked at.

use std::fmt::Write;
use std::time::Duration;

use limnion_lake::{Id, LakeHit, Part};
use limnion_types::{Error, ErrorKind, Result};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PySlice, PyTuple, PyType};

use crate::errors::{OrRaise, exception};
use crate::results::position;

/// How a backend has done in a federated search.
struct Report {
    backend: String,
    hits: usize,
    time: Duration,
    error: Option<Error>,
}

/// A report on its way through pickle: backend, hits, seconds, and kind, message and suggestion of the error.
type Pickled = (String, usize, f64, Option<(String, String, Option<String>)>);

/// The hits of one search in a lake, best first: a sequence of `LakeHit(backend, collection, id, score, distance)`.
#[pyclass(frozen, sequence, module = "limnion._native")]
pub(crate) struct LakeHits {
    hits: Box<[LakeHit]>,
    report: Box<[Report]>,
}

/// The hits of several searches in a lake: a sequence of `LakeHits`, one per query.
#[pyclass(frozen, sequence, module = "limnion._native")]
pub(crate) struct LakeHitsBatch(Box<[Box<[LakeHit]>]>);

/// Has `isinstance(hits, Sequence)` say what is so.
pub(crate) fn register(py: Python<'_>) -> PyResult<()> {
    let sequence = py.import("collections.abc")?.getattr("Sequence")?;
    sequence.call_method1("register", (py.get_type::<LakeHits>(),))?;
    sequence.call_method1("register", (py.get_type::<LakeHitsBatch>(),))?;
    Ok(())
}

fn id<'py>(py: Python<'py>, id: &Id) -> PyResult<Bound<'py, PyAny>> {
    match id {
        Id::Number(number) => number.into_bound_py_any(py),
        Id::Name(name) => (**name).into_bound_py_any(py),
    }
}

/// Calls `limnion.lake.LakeHit` without its constructor's Python code.
fn to_object<'py>(py: Python<'py>, hit: &LakeHit) -> PyResult<Bound<'py, PyAny>> {
    static MAKE: PyOnceLock<(Py<PyAny>, Py<PyAny>)> = PyOnceLock::new();
    let (new, class) = MAKE.get_or_try_init(py, || {
        let class = py.import("limnion.lake")?.getattr("LakeHit")?;
        PyResult::Ok((py.get_type::<PyTuple>().getattr("__new__")?.unbind(), class.unbind()))
    })?;
    let fields = (&*hit.backend, &*hit.collection, id(py, &hit.id)?, hit.score, hit.distance);
    new.bind(py).call1((class, fields))
}

fn from_object(object: &Bound<'_, PyAny>) -> PyResult<LakeHit> {
    let (backend, collection, id, score, distance) =
        object.extract::<(String, String, Bound<'_, PyAny>, f32, f32)>()?;
    let id = match id.extract::<u64>() {
        Ok(number) => Id::Number(number),
        Err(_) => Id::Name(id.extract::<String>()?.into()),
    };
    Ok(LakeHit { backend: backend.into(), collection: collection.into(), id, score, distance })
}

fn numbers<'a>(hits: impl Iterator<Item = &'a LakeHit>) -> Option<Vec<u64>> {
    hits.map(|hit| match hit.id {
        Id::Number(number) => Some(number),
        Id::Name(_) => None,
    })
    .collect()
}

fn names<'py>(py: Python<'py>, hits: &[LakeHit]) -> PyResult<Bound<'py, PyList>> {
    PyList::new(py, hits.iter().map(|hit| id(py, &hit.id)).collect::<PyResult<Vec<_>>>()?)
}

impl LakeHits {
    pub(crate) fn new(hits: Vec<LakeHit>) -> Self {
        Self { hits: hits.into_boxed_slice(), report: Box::default() }
    }

    pub(crate) fn federated(hits: Vec<LakeHit>, parts: Vec<Part>) -> Self {
        let report = parts.into_iter().map(|part| Report {
            backend: part.target.backend.to_string(),
            hits: part.hits,
            time: part.time,
            error: part.error,
        });
        Self { hits: hits.into_boxed_slice(), report: report.collect() }
    }

    fn column<'py, T: numpy::Element + Copy>(
        &self,
        py: Python<'py>,
        of: impl Fn(&LakeHit) -> T,
    ) -> Bound<'py, PyArray1<T>> {
        PyArray1::from_iter(py, self.hits.iter().map(of))
    }

    fn position(&self, value: &Bound<'_, PyAny>) -> impl Iterator<Item = usize> {
        let value = from_object(value).ok();
        let found = self.hits.iter().enumerate().filter(move |(_, hit)| Some(*hit) == value.as_ref());
        found.map(|(at, _)| at)
    }
}

#[pymethods]
impl LakeHits {
    /// The ids, best first: a new uint64 array of shape (k,), or a list where they are strings.
    #[getter]
    fn ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match numbers(self.hits.iter()) {
            Some(ids) => Ok(PyArray1::from_vec(py, ids).into_any()),
            None => names(py, &self.hits).map(Bound::into_any),
        }
    }

    /// The scores, highest first: a new float32 array of shape (k,).
    #[getter]
    fn scores<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f32>> {
        self.column(py, |hit| hit.score)
    }

    /// The metric's own numbers, lowest first: a new float32 array of shape (k,).
    #[getter]
    fn distances<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f32>> {
        self.column(py, |hit| hit.distance)
    }

    /// How each backend has done, by name: for hits of a federated search; else empty.
    #[getter]
    fn report<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let class = py.import("limnion.lake")?.getattr("BackendReport")?;
        let report = PyDict::new(py);
        for part in &self.report {
            let error = part.error.as_ref().map(|error| exception(py, error).into_value(py));
            report.set_item(&part.backend, class.call1((part.hits, part.time.as_secs_f64(), error))?)?;
        }
        Ok(report)
    }

    /// The hits as a list.
    fn to_list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let hits = self.hits.iter().map(|hit| to_object(py, hit)).collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, hits)
    }

    fn __len__(&self) -> usize {
        self.hits.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if let Ok(slice) = index.cast::<PySlice>() {
            let at = slice.indices(self.hits.len() as isize)?;
            let picked =
                (0..at.slicelength as isize).filter_map(|i| self.hits.get((at.start + i * at.step) as usize));
            return Ok(Bound::new(py, Self::new(picked.cloned().collect()))?.into_any());
        }
        let at = position(index.extract()?, self.hits.len())?;
        self.hits.get(at).map_or_else(
            || Err(pyo3::exceptions::PyIndexError::new_err("index out of range")),
            |hit| to_object(py, hit),
        )
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.to_list(py)?.try_iter()?.into_any())
    }

    fn __reversed__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.to_list(py)?.call_method0("__reversed__")
    }

    fn __contains__(&self, value: &Bound<'_, PyAny>) -> bool {
        self.position(value).next().is_some()
    }

    /// How often `value` comes.
    fn count(&self, value: &Bound<'_, PyAny>) -> usize {
        self.position(value).count()
    }

    /// Where `value` comes first; `ValueError` where it does not.
    #[pyo3(signature = (value, start = 0, stop = isize::MAX))]
    fn index(&self, value: &Bound<'_, PyAny>, start: isize, stop: isize) -> PyResult<usize> {
        let clamp =
            |at: isize| if at < 0 { (at + self.hits.len() as isize).max(0) as usize } else { at as usize };
        let range = clamp(start)..clamp(stop);
        self.position(value)
            .find(|at| range.contains(at))
            .ok_or_else(|| PyValueError::new_err("that hit is not among the hits"))
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.hits == other.hits
    }

    fn __repr__(&self) -> String {
        let mut told = format!("LakeHits({}", self.hits.len());
        for (at, hit) in self.hits.iter().take(3).enumerate() {
            let LakeHit { backend, collection, id, score, .. } = hit;
            let comma = if at == 0 { ":" } else { "," };
            let _ = match id {
                Id::Number(id) => write!(told, "{comma} {backend}/{collection}/{id}: {score:.4}"),
                Id::Name(id) => write!(told, "{comma} {backend}/{collection}/{id:?}: {score:.4}"),
            };
        }
        told.push_str(if self.hits.len() > 3 { ", ...)" } else { ")" });
        told
    }

    fn _repr_html_(&self) -> String {
        let mut html =
            "<table><thead><tr><th></th><th>backend</th><th>collection</th><th>id</th><th>score</th>\
                        <th>distance</th></tr></thead><tbody>"
                .to_owned();
        for (at, hit) in self.hits.iter().enumerate() {
            let LakeHit { backend, collection, id, score, distance } = hit;
            let [backend, collection, id] =
                [backend.to_string(), collection.to_string(), id.to_string()].map(|text| escaped(&text));
            let _ = write!(
                html,
                "<tr><td>{at}</td><td>{backend}</td><td>{collection}</td><td>{id}</td><td>{score:.4}</td>\
                 <td>{distance:.4}</td></tr>",
            );
        }
        html.push_str("</tbody></table>");
        html
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let (py, this) = (slf.py(), slf.get());
        let hits = this.hits.iter().map(|hit| {
            PyTuple::new(
                py,
                [
                    (*hit.backend).into_bound_py_any(py)?,
                    (*hit.collection).into_bound_py_any(py)?,
                    id(py, &hit.id)?,
                    hit.score.into_bound_py_any(py)?,
                    hit.distance.into_bound_py_any(py)?,
                ],
            )
        });
        let hits = PyList::new(py, hits.collect::<PyResult<Vec<_>>>()?)?;
        let report = this.report.iter().map(|part| {
            let error = part.error.as_ref();
            let error = error.map(|error| (error.kind().as_str(), error.message(), error.suggestion()));
            (&part.backend, part.hits, part.time.as_secs_f64(), error)
        });
        let report = PyList::new(py, report)?;
        Ok((slf.get_type().getattr("_from_parts")?, (hits, report).into_pyobject(py)?))
    }

    #[classmethod]
    fn _from_parts(
        _class: &Bound<'_, PyType>,
        hits: &Bound<'_, PyList>,
        report: Vec<Pickled>,
    ) -> PyResult<Self> {
        let hits = hits.iter().map(|hit| from_object(&hit)).collect::<PyResult<_>>()?;
        let report = report.into_iter().map(|(backend, hits, seconds, error)| {
            let error = error.map(|(kind, message, suggestion)| {
                let kind = ErrorKind::ALL.iter().find(|known| known.as_str() == kind);
                let error = Error::new(kind.copied().unwrap_or(ErrorKind::Lake), message);
                suggestion.map_or(error.clone(), |suggestion| error.suggest(suggestion))
            });
            let time = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            Report { backend, hits, time, error }
        });
        Ok(Self { hits, report: report.collect() })
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl LakeHitsBatch {
    pub(crate) fn new(batch: Vec<Vec<LakeHit>>) -> Self {
        Self(batch.into_iter().map(Vec::into_boxed_slice).collect())
    }

    fn row(&self, at: usize) -> LakeHits {
        LakeHits { hits: self.0.get(at).cloned().unwrap_or_default(), report: Box::default() }
    }

    /// How many hits each query has: one collection has as many for each.
    fn width(&self) -> Result<usize> {
        let width = self.0.first().map_or(0, |hits| hits.len());
        if self.0.iter().all(|hits| hits.len() == width) {
            return Ok(width);
        }
        Err(Error::new(ErrorKind::Internal, "the queries of a batch found different numbers of rows"))
    }

    fn columns<'py, T: numpy::Element + Copy>(
        &self,
        py: Python<'py>,
        of: impl Fn(&LakeHit) -> T,
    ) -> PyResult<Bound<'py, PyArray2<T>>> {
        let width = self.width().or_raise(py)?;
        PyArray1::from_iter(py, self.0.iter().flatten().map(of)).reshape([self.0.len(), width])
    }
}

#[pymethods]
impl LakeHitsBatch {
    /// The ids: a new uint64 array of shape (m, k), one row per query, best first; lists where they are strings.
    #[getter]
    fn ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match numbers(self.0.iter().flatten()) {
            Some(ids) => {
                let width = self.width().or_raise(py)?;
                Ok(PyArray1::from_vec(py, ids).reshape([self.0.len(), width])?.into_any())
            }
            None => {
                let rows = self.0.iter().map(|hits| names(py, hits)).collect::<PyResult<Vec<_>>>()?;
                Ok(PyList::new(py, rows)?.into_any())
            }
        }
    }

    /// The scores: a new float32 array of shape (m, k).
    #[getter]
    fn scores<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        self.columns(py, |hit| hit.score)
    }

    /// The metric's own numbers: a new float32 array of shape (m, k).
    #[getter]
    fn distances<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        self.columns(py, |hit| hit.distance)
    }

    /// The hits of each query as a list of `LakeHits`.
    fn to_list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let rows = (0..self.0.len()).map(|at| Bound::new(py, self.row(at))).collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, rows)
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if let Ok(slice) = index.cast::<PySlice>() {
            let at = slice.indices(self.0.len() as isize)?;
            let rows = (0..at.slicelength as isize)
                .filter_map(|i| self.0.get((at.start + i * at.step) as usize).cloned());
            return Ok(Bound::new(py, Self(rows.collect()))?.into_any());
        }
        let at = position(index.extract()?, self.0.len())?;
        Ok(Bound::new(py, self.row(at))?.into_any())
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.to_list(py)?.try_iter()?.into_any())
    }

    fn __reversed__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.to_list(py)?.call_method0("__reversed__")
    }

    fn __contains__(&self, value: &Bound<'_, PyAny>) -> bool {
        self.count(value) > 0
    }

    /// How often `value` comes.
    fn count(&self, value: &Bound<'_, PyAny>) -> usize {
        let Ok(value) = value.cast::<LakeHits>() else { return 0 };
        self.0.iter().filter(|hits| **hits == value.get().hits).count()
    }

    /// Where `value` comes first; `ValueError` where it does not.
    #[pyo3(signature = (value, start = 0, stop = isize::MAX))]
    fn index(&self, py: Python<'_>, value: &Bound<'_, PyAny>, start: isize, stop: isize) -> PyResult<usize> {
        self.to_list(py)?.call_method1("index", (value, start, stop))?.extract()
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    fn __repr__(&self) -> String {
        let width = self.0.first().map_or(0, |hits| hits.len());
        format!("LakeHitsBatch({} queries, {width} hits each)", self.0.len())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        Ok((slf.get_type().getattr("_from_list")?, (slf.get().to_list(slf.py())?,).into_pyobject(slf.py())?))
    }

    #[classmethod]
    fn _from_list(_class: &Bound<'_, PyType>, batch: &Bound<'_, PyList>) -> PyResult<Self> {
        let batch = batch.iter().map(|hits| Ok(hits.cast::<LakeHits>()?.get().hits.clone()));
        batch.collect::<PyResult<_>>().map(Self)
    }
}
