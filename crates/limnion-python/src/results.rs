//! What Python gets back from a search: hits, which become objects or arrays when they are looked at.

use std::fmt::Write;

use limnion_types::Hit;
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PySlice, PyTuple, PyType};

use crate::errors::invalid_argument;

/// The hits of one search, best first: a sequence of `Hit(id, score, distance)`.
#[pyclass(frozen, sequence, module = "limnion._native")]
pub(crate) struct Hits(Box<[Hit]>);

/// The hits of several searches: a sequence of `Hits`, one per query.
#[pyclass(frozen, sequence, module = "limnion._native")]
pub(crate) struct HitsBatch {
    hits: Box<[Hit]>,
    /// Where the hits of each query end. A radius, or a number of lists, may find more for one than for another.
    ends: Box<[usize]>,
}

/// Has `isinstance(hits, Sequence)` say what is so.
pub(crate) fn register(py: Python<'_>) -> PyResult<()> {
    let sequence = py.import("collections.abc")?.getattr("Sequence")?;
    sequence.call_method1("register", (py.get_type::<Hits>(),))?;
    sequence.call_method1("register", (py.get_type::<HitsBatch>(),))?;
    Ok(())
}

/// Calls `limnion.indexes.Hit` without its constructor's Python code.
fn to_object<'py>(py: Python<'py>, hit: &Hit) -> PyResult<Bound<'py, PyAny>> {
    static MAKE: PyOnceLock<(Py<PyAny>, Py<PyAny>)> = PyOnceLock::new();
    let (new, class) = MAKE.get_or_try_init(py, || {
        let class = py.import("limnion.indexes")?.getattr("Hit")?;
        PyResult::Ok((py.get_type::<PyTuple>().getattr("__new__")?.unbind(), class.unbind()))
    })?;
    new.bind(py).call1((class, (hit.id, hit.score, hit.distance)))
}

/// A place in a sequence, from its beginning or its end.
pub(crate) fn position(index: isize, len: usize) -> PyResult<usize> {
    let at = if index < 0 { index + len as isize } else { index };
    usize::try_from(at).ok().filter(|&at| at < len).ok_or_else(|| PyIndexError::new_err("index out of range"))
}

fn as_hit(value: &Bound<'_, PyAny>) -> Option<(u64, f64, f64)> {
    value.extract().ok()
}

fn same(hit: &Hit, (id, score, distance): (u64, f64, f64)) -> bool {
    hit.id == id && f64::from(hit.score) == score && f64::from(hit.distance) == distance
}

impl Hits {
    pub(crate) fn new(hits: Vec<Hit>) -> Self {
        Self(hits.into_boxed_slice())
    }

    fn column<'py, T: numpy::Element + Copy>(
        &self,
        py: Python<'py>,
        of: impl Fn(&Hit) -> T,
    ) -> Bound<'py, PyArray1<T>> {
        PyArray1::from_iter(py, self.0.iter().map(of))
    }
}

#[pymethods]
impl Hits {
    /// The ids, best first: a new uint64 array of shape (k,).
    #[getter]
    fn ids<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u64>> {
        self.column(py, |hit| hit.id)
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

    /// The hits as a list.
    fn to_list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let hits = self.0.iter().map(|hit| to_object(py, hit)).collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, hits)
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if let Ok(slice) = index.cast::<PySlice>() {
            let at = slice.indices(self.0.len() as isize)?;
            let picked =
                (0..at.slicelength as isize).filter_map(|i| self.0.get((at.start + i * at.step) as usize));
            return Ok(Bound::new(py, Self(picked.copied().collect()))?.into_any());
        }
        let at = position(index.extract()?, self.0.len())?;
        self.0
            .get(at)
            .map_or_else(|| Err(PyIndexError::new_err("index out of range")), |hit| to_object(py, hit))
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
        as_hit(value).map_or(0, |value| self.0.iter().filter(|hit| same(hit, value)).count())
    }

    /// Where `value` comes first; `ValueError` where it does not.
    #[pyo3(signature = (value, start = 0, stop = isize::MAX))]
    fn index(&self, value: &Bound<'_, PyAny>, start: isize, stop: isize) -> PyResult<usize> {
        let clamp =
            |at: isize| if at < 0 { (at + self.0.len() as isize).max(0) as usize } else { at as usize };
        let range = clamp(start)..clamp(stop).min(self.0.len());
        as_hit(value)
            .and_then(|value| {
                range.into_iter().find(|&at| self.0.get(at).is_some_and(|hit| same(hit, value)))
            })
            .ok_or_else(|| PyValueError::new_err("that hit is not among the hits"))
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    fn __repr__(&self) -> String {
        let mut told = format!("Hits({}", self.0.len());
        for (at, hit) in self.0.iter().take(3).enumerate() {
            let _ = write!(told, "{} {}: {:.4}", if at == 0 { ":" } else { "," }, hit.id, hit.score);
        }
        told.push_str(if self.0.len() > 3 { ", ...)" } else { ")" });
        told
    }

    fn _repr_html_(&self) -> String {
        let mut html =
            "<table><thead><tr><th></th><th>id</th><th>score</th><th>distance</th></tr></thead><tbody>"
                .to_owned();
        for (at, hit) in self.0.iter().enumerate() {
            let _ = write!(
                html,
                "<tr><td>{at}</td><td>{}</td><td>{:.4}</td><td>{:.4}</td></tr>",
                hit.id, hit.score, hit.distance
            );
        }
        html.push_str("</tbody></table>");
        html
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let (py, hits) = (slf.py(), slf.get());
        let columns = (hits.ids(py), hits.scores(py), hits.distances(py)).into_pyobject(py)?;
        Ok((slf.get_type().getattr("_from_columns")?, columns))
    }

    #[classmethod]
    fn _from_columns(_: &Bound<'_, PyType>, ids: Vec<u64>, scores: Vec<f32>, distances: Vec<f32>) -> Self {
        let rows = ids.into_iter().zip(scores).zip(distances);
        Self(rows.map(|((id, score), distance)| Hit { id, score, distance }).collect())
    }
}

impl HitsBatch {
    pub(crate) fn new(batch: Vec<Vec<Hit>>) -> Self {
        let mut end = 0;
        let ends = batch.iter().map(|hits| {
            end += hits.len();
            end
        });
        Self { ends: ends.collect(), hits: batch.into_iter().flatten().collect() }
    }

    fn queries(&self) -> usize {
        self.ends.len()
    }

    fn row(&self, at: usize) -> Hits {
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let end = self.ends.get(at).copied().unwrap_or(start);
        Hits(self.hits.get(start..end).unwrap_or_default().into())
    }

    /// The fewest and the most hits that a query has.
    fn widths(&self) -> (usize, usize) {
        let starts = std::iter::once(&0).chain(&self.ends);
        let widths = self.ends.iter().zip(starts).map(|(end, start)| end - start);
        widths
            .map(|width| (width, width))
            .reduce(|(least, most), (width, _)| (least.min(width), most.max(width)))
            .unwrap_or_default()
    }

    fn columns<'py, T: numpy::Element + Copy>(
        &self,
        py: Python<'py>,
        of: impl Fn(&Hit) -> T,
    ) -> PyResult<Bound<'py, PyArray2<T>>> {
        let (least, most) = self.widths();
        if least < most {
            let message =
                format!("an array must have as many hits for each query, and these have {least} to {most}");
            return Err(invalid_argument(py, message, Some("write [hits.ids for hits in batch]".to_owned())));
        }
        PyArray1::from_iter(py, self.hits.iter().map(of)).reshape([self.queries(), most])
    }
}

#[pymethods]
impl HitsBatch {
    /// The ids: a new uint64 array of shape (m, k), one row per query, best first. Raises `InvalidArgumentError` where the
    /// queries have different numbers of hits, which a radius or a number of lists may bring about; so do the others.
    #[getter]
    fn ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<u64>>> {
        self.columns(py, |hit| hit.id)
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

    /// The hits of each query as a list of `Hits`.
    fn to_list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let rows =
            (0..self.queries()).map(|at| Bound::new(py, self.row(at))).collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, rows)
    }

    fn __len__(&self) -> usize {
        self.queries()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if let Ok(slice) = index.cast::<PySlice>() {
            let at = slice.indices(self.queries() as isize)?;
            let rows = (0..at.slicelength as isize)
                .map(|i| self.row((at.start + i * at.step) as usize).0.into_vec());
            return Ok(Bound::new(py, Self::new(rows.collect()))?.into_any());
        }
        let at = position(index.extract()?, self.queries())?;
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
        let Ok(value) = value.cast::<Hits>() else { return 0 };
        (0..self.queries()).filter(|&at| self.row(at).0 == value.get().0).count()
    }

    /// Where `value` comes first; `ValueError` where it does not.
    #[pyo3(signature = (value, start = 0, stop = isize::MAX))]
    fn index(&self, py: Python<'_>, value: &Bound<'_, PyAny>, start: isize, stop: isize) -> PyResult<usize> {
        self.to_list(py)?.call_method1("index", (value, start, stop))?.extract()
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.ends == other.ends && self.hits == other.hits
    }

    fn __repr__(&self) -> String {
        let hits = match self.widths() {
            (least, most) if least < most => format!("{least} to {most}"),
            (_, most) => most.to_string(),
        };
        format!("HitsBatch({} queries, {hits} hits each)", self.queries())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        Ok((slf.get_type().getattr("_from_list")?, (slf.get().to_list(slf.py())?,).into_pyobject(slf.py())?))
    }

    #[classmethod]
    fn _from_list(_: &Bound<'_, PyType>, batch: &Bound<'_, PyList>) -> PyResult<Self> {
        let batch =
            batch.iter().map(|hits| Ok(hits.cast::<Hits>()?.get().0.to_vec())).collect::<PyResult<_>>()?;
        Ok(Self::new(batch))
    }
}
