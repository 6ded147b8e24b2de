//! What all classes of index have in common: rows come, change and go, are looked at and saved. How they are searched is
//! said where the kinds are ([`crate::flat`], [`crate::lists`], [`crate::graph`]). Parse, detach, call, wrap.

use limnion_index::{FlatIndex, GraphIndex, IvfIndex, Precision};
use limnion_types::{Hit, Job, Result};
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

use crate::args::{self, Progress};
use crate::coroutine::Coroutine;
use crate::errors::invalid_type;
use crate::held::{Facts, Held, Request};
use crate::pool::{Task, Watch};
use crate::results::HitsBatch;
use crate::selection::{PySelection, Where, exclusion};
use crate::view::{RowIterator, view};

/// What all indexes have in common; `limnion.indexes` has the classes to use.
#[pyclass(frozen, subclass, mapping, module = "limnion._native")]
pub(crate) struct VectorIndex {
    kept: Kept,
    facts: Facts,
}

/// An index of any kind.
#[derive(Clone)]
pub(crate) enum Kept {
    Flat(Held<FlatIndex>),
    Lists(Held<IvfIndex>),
    Graph(Held<GraphIndex>),
}

/// The same call, whatever kind of index it is for.
macro_rules! on {
    ($index:expr, $held:ident => $call:expr) => {
        match &$index.kept {
            Kept::Flat($held) => $call,
            Kept::Lists($held) => $call,
            Kept::Graph($held) => $call,
        }
    };
}

/// A finished index on its way into an instance of a class: what the constructor takes.
#[pyclass(frozen)]
pub(crate) struct Made(Kept, Facts);

/// An index as an instance of a class of `limnion.indexes`.
pub(crate) fn wrap<'py>(class: &Bound<'py, PyType>, kept: Kept, facts: Facts) -> PyResult<Bound<'py, PyAny>> {
    class.call1((Made(kept, facts),))
}

/// What the constructor of `class` was called with; users are told how an index is made.
pub(crate) fn made(class: &Bound<'_, PyType>, given: &Bound<'_, PyTuple>) -> PyResult<(Kept, Facts)> {
    if let Ok(made) = given.get_item(0).and_then(|made| Ok(made.cast_into::<Made>()?)) {
        let Made(kept, facts) = made.get();
        return Ok((kept.clone(), *facts));
    }
    Err(not_made(class))
}

/// The error of whoever calls a class.
pub(crate) fn not_made(class: &Bound<'_, PyType>) -> PyErr {
    let name = class.name().map_or_else(|_| "VectorIndex".to_owned(), |name| name.to_string());
    let message = format!("{name} must be made from vectors or from a file, not by calling the class");
    let hint = format!("write {name}.build(vectors) or {name}.load(path)");
    invalid_type(class.py(), message, Some(hint))
}

impl VectorIndex {
    pub(crate) fn new(kept: Kept, facts: Facts) -> Self {
        Self { kept, facts }
    }

    fn max_similar(
        &self,
        query: &Bound<'_, PyAny>,
        documents: &Bound<'_, PyAny>,
        k: &Bound<'_, PyAny>,
    ) -> PyResult<MaxSimilar> {
        let (_, query) = self.facts.rows("query", query)?;
        Ok(MaxSimilar { query, documents: args::ids("documents", documents)?, k: args::count("k", k)? })
    }
}

/// A search of documents by late interaction, which is a batch of one: it runs on the pool.
struct MaxSimilar {
    query: Vec<f32>,
    documents: Vec<u64>,
    k: usize,
}

macro_rules! max_similar {
    ($($index:ty),*) => {$(
        impl Request<$index> for MaxSimilar {
            fn one(&self, index: &$index) -> Result<Vec<Hit>> {
                index.max_similar(&self.query, &self.documents, self.k, &Job::new())
            }

            fn batch(&self, index: &$index, job: &Job) -> Result<Vec<Vec<Hit>>> {
                Ok(vec![index.max_similar(&self.query, &self.documents, self.k, job)?])
            }

            fn bytes(&self, _: &$index) -> usize {
                usize::MAX
            }
        }
    )*};
}

max_similar!(FlatIndex, IvfIndex, GraphIndex);

#[pymethods]
impl VectorIndex {
    /// Appends one vector under a new id. The vector is copied.
    ///
    /// Cost: encoding one vector, and a moment for searches that are under way to end.
    ///
    /// Raises `DuplicateIdError`, `DimensionMismatch`, and what `build` raises for a vector it cannot use.
    fn add(&self, py: Python<'_>, id: &Bound<'_, PyAny>, vector: &Bound<'_, PyAny>) -> PyResult<()> {
        let id = args::id("id", id)?;
        let vector = self.facts.vector("vector", vector)?;
        on!(self, held => {
            held.change(py, &Progress::none(), 1, move |index, job| index.add(Some(&[id]), &vector, job))
        })
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
        let (rows, vectors) = self.facts.rows("vectors", vectors)?;
        let ids = ids.map(|ids| args::ids("ids", ids)).transpose()?;
        let progress = Progress::given(progress, "add")?;
        on!(self, held => {
            held.change(py, &progress, rows, move |index, job| index.add(ids.as_deref(), &vectors, job))
        })
    }

    /// Removes the row with an id, or the rows with several: all of them, or none where one is missing
    /// (`IdNotFoundError`). The last rows take the free places; memory is given back once half of it is unused.
    fn remove(&self, py: Python<'_>, ids: &Bound<'_, PyAny>) -> PyResult<()> {
        let ids = args::id_or_ids("ids", ids)?;
        on!(self, held => held.change(py, &Progress::none(), ids.len(), move |index, _| index.remove(&ids)))
    }

    /// Replaces the vector of a row that is there. Raises `IdNotFoundError` where it is not.
    fn update(&self, py: Python<'_>, id: &Bound<'_, PyAny>, vector: &Bound<'_, PyAny>) -> PyResult<()> {
        let id = args::id("id", id)?;
        let vector = self.facts.vector("vector", vector)?;
        on!(self, held => {
            held.change(py, &Progress::none(), 1, move |index, _| index.update(&[id], &vector))
        })
    }

    /// Replaces the vectors of rows that are there: all of them, or none where something is wrong.
    fn update_batch(
        &self,
        py: Python<'_>,
        ids: &Bound<'_, PyAny>,
        vectors: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let ids = args::ids("ids", ids)?;
        let (rows, vectors) = self.facts.rows("vectors", vectors)?;
        on!(self, held => {
            held.change(py, &Progress::none(), rows, move |index, _| index.update(&ids, &vectors))
        })
    }

    /// Appends the rows of another index under their ids: all of them, or none where something is wrong.
    ///
    /// Both have one dimension and one metric, and no id in common. `other` stays as it is.
    #[pyo3(signature = (other, *, progress = None), text_signature = "($self, other, *, progress=False)")]
    fn merge(
        &self,
        py: Python<'_>,
        other: &Bound<'_, Self>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let progress = Progress::given(progress, "merge")?;
        match (&self.kept, &other.get().kept) {
            (Kept::Flat(held), Kept::Flat(other)) => {
                let other = other.read(py, |index| Ok(index.clone()))?;
                held.change(py, &progress, other.len(), move |index, job| index.merge(&other, job))
            }
            (Kept::Lists(held), Kept::Lists(other)) => {
                let other = other.read(py, |index| Ok(index.clone()))?;
                held.change(py, &progress, other.len(), move |index, job| index.merge(&other, job))
            }
            (Kept::Graph(held), Kept::Graph(other)) => {
                let other = other.read(py, |index| Ok(index.clone()))?;
                held.change(py, &progress, other.len(), move |index, job| index.merge(&other, job))
            }
            _ => {
                let name = other.get_type().name()?;
                let hint =
                    "write add_batch(other, ids=other.ids), which reads the vectors that it keeps".to_owned();
                Err(invalid_type(
                    py,
                    format!("other must be an index of the same kind, got {name}"),
                    Some(hint),
                ))
            }
        }
    }

    /// Names rows that searches may find, once for any number of them: what `where=` takes.
    ///
    /// Without `where` all rows but those in `exclude`. It names ids, so it stays right when the index changes.
    #[pyo3(signature = (r#where = None, *, exclude = None), text_signature = "($self, where=None, *, exclude=None)")]
    fn select(
        &self,
        py: Python<'_>,
        r#where: Option<&Bound<'_, PyAny>>,
        exclude: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PySelection> {
        let (named, exclusion) = (r#where.map(Where::take).transpose()?, exclusion(exclude)?);
        on!(self, held => held.read(py, |index| PySelection::make(index, named, exclusion)))
    }

    /// The original vectors of rows: a new float32 array of shape (m, d), in the order of `ids`.
    ///
    /// Raises `IdNotFoundError`, and `NoOriginalsError` where only codes are kept.
    fn vectors<'py>(&self, py: Python<'py>, ids: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let ids = args::ids("ids", ids)?;
        let vectors = on!(self, held => held.read(py, |index| index.vectors_of(&ids)))?;
        vectors.into_pyarray(py).reshape([ids.len(), self.facts.dim])
    }

    #[pyo3(signature = (query, documents, k))]
    fn _max_similar(
        &self,
        py: Python<'_>,
        query: &Bound<'_, PyAny>,
        documents: &Bound<'_, PyAny>,
        k: &Bound<'_, PyAny>,
    ) -> PyResult<HitsBatch> {
        let request = self.max_similar(query, documents, k)?;
        on!(self, held => held.search_batch(py, 1, request, &Progress::none()))
    }

    #[pyo3(signature = (query, documents, k))]
    fn _max_similar_async(
        &self,
        query: &Bound<'_, PyAny>,
        documents: &Bound<'_, PyAny>,
        k: &Bound<'_, PyAny>,
    ) -> PyResult<Coroutine> {
        let request = self.max_similar(query, documents, k)?;
        Ok(on!(self, held => held.search_batch_async(request)))
    }

    /// How many dimensions a vector has.
    #[getter]
    fn dim(&self) -> usize {
        self.facts.dim
    }

    /// How near two vectors are: `"l2"`, `"ip"` or `"cosine"`.
    #[getter]
    fn metric(&self) -> &'static str {
        self.facts.metric.as_str()
    }

    /// Bits a dimension of the codes; 0 where there are none.
    #[getter]
    fn bits(&self) -> u8 {
        self.facts.bits
    }

    /// How the original vectors are kept: `"f32"`, `"f16"` or `None`.
    #[getter]
    fn originals(&self) -> Option<&'static str> {
        self.facts.originals.map(Precision::as_str)
    }

    /// Bytes on the heap, spare room included. What lies in a mapped file does not count.
    #[getter]
    fn memory_bytes(&self, py: Python<'_>) -> PyResult<usize> {
        on!(self, held => held.read(py, |index| Ok(index.memory_bytes())))
    }

    /// The ids in the order of the rows: a new uint64 array of shape (n,).
    #[getter]
    fn ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<u64>>> {
        Ok(on!(self, held => held.read(py, |index| Ok(index.ids())))?.into_pyarray(py))
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        on!(self, held => Ok(held.reader(py)?.len()))
    }

    fn __contains__(&self, py: Python<'_>, id: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(id) = args::id("id", id) else { return Ok(false) };
        on!(self, held => Ok(held.reader(py)?.contains(id)))
    }

    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        id: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let id = args::id("id", id)?;
        Ok(on!(self, held => held.read(py, |index| index.vector(id)))?.into_pyarray(py))
    }

    /// Goes through (id, vector) of the index as it is now; later changes do not reach the iteration.
    fn __iter__(&self, py: Python<'_>) -> PyResult<RowIterator> {
        on!(self, held => held.read(py, |index| Ok(RowIterator::new(index.ids(), index.originals()?))))
    }

    #[pyo3(signature = (dtype = None, copy = None))]
    fn __array__<'py>(
        &self,
        py: Python<'py>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let array = view(py, on!(self, held => held.read(py, |index| index.originals()))?)?;
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
        let py = slf.py();
        match (&slf.get().kept, &other.get().kept) {
            (Kept::Flat(one), Kept::Flat(two)) => one.equals(py, two),
            (Kept::Lists(one), Kept::Lists(two)) => one.equals(py, two),
            (Kept::Graph(one), Kept::Graph(two)) => one.equals(py, two),
            _ => Ok(false),
        }
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let (name, py, index) = (slf.get_type().name()?, slf.py(), slf.get());
        let Facts { dim, metric, bits, originals } = index.facts;
        let bits = if bits == 0 { String::new() } else { format!(", bits={bits}") };
        let originals = originals.map_or_else(String::new, |kept| format!(", originals='{}'", kept.as_str()));
        let (rows, bytes) = on!(index, held => {
            let index = held.reader(py)?;
            (index.len(), index.memory_bytes() as f64)
        });
        Ok(format!(
            "{name}(n={rows}, dim={dim}, metric='{}'{bits}{originals}, memory={:.2} MB)",
            metric.as_str(),
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
        on!(self, held => {
            let reader = held.reader(py)?;
            Task::start(move || reader.save(&path)).wait(py, &mut Watch::silent())
        })
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let py = slf.py();
        let bytes = on!(slf.get(), held => held.read(py, |index| index.to_bytes()))?;
        Ok((slf.get_type().getattr("_from_bytes")?, (bytes.into_pyarray(py),).into_pyobject(py)?))
    }
}
