//! A version of a record, as Python sees it.

use std::sync::Arc;

use limnion_store::{Content, Kind, Record as Stored, Vector};
use numpy::{IntoPyArray, PyArray1};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::door::Door as _;
use crate::errors::OrRaise;
use crate::json;
use crate::moment::datetime;
use crate::store::Handle;

/// One version of a record: made by reads, searches and histories.
///
/// What it holds is decoded when it is asked for, and is a new object each time, so that nobody can change it for others.
#[pyclass(frozen, module = "limnion._native")]
pub(crate) struct Record {
    stored: Arc<Stored>,
    /// Where vectors have to be fetched from; a record that is complete does not keep its store alive.
    store: Option<Handle>,
}

impl Record {
    pub(crate) fn new(stored: Arc<Stored>, store: &Handle) -> Self {
        let store = (!stored.payload.elsewhere().is_empty()).then(|| store.clone());
        Self { stored, store }
    }

    fn all_vectors(&self, py: Python<'_>) -> PyResult<Vec<Vector>> {
        let Some(handle) = &self.store else { return Ok(self.stored.payload.vectors()) };
        let store = handle.get(py)?;
        py.outside(|| store.vectors(&self.stored)).or_raise(py)
    }

    fn exists(&self) -> bool {
        self.stored.kind == Kind::Put
    }
}

/// Records as a list.
pub(crate) fn list(
    py: Python<'_>,
    records: impl IntoIterator<Item = Arc<Stored>>,
    store: &Handle,
) -> PyResult<Py<PyAny>> {
    let made = records.into_iter().map(|stored| Bound::new(py, Record::new(stored, store)));
    let made = made.collect::<PyResult<Vec<_>>>()?;
    Ok(pyo3::types::PyList::new(py, made)?.into_any().unbind())
}

#[pymethods]
impl Record {
    /// The namespace.
    #[getter]
    fn namespace(&self) -> &str {
        &self.stored.namespace
    }

    /// The key.
    #[getter]
    fn key(&self) -> &str {
        &self.stored.key
    }

    /// The value; `None` where the version is a deletion.
    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if !self.exists() {
            return Ok(py.None().into_bound(py));
        }
        json::decode(py, &self.stored.payload)
    }

    /// The metadata; an empty dict where none was given.
    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.stored.payload.metadata() {
            Some(text) => json::parse(py, text.as_bytes()),
            None => Ok(PyDict::new(py).into_any()),
        }
    }

    /// The text that full-text search looks at, or `None`.
    #[getter]
    fn text(&self) -> Option<&str> {
        self.stored.payload.text()
    }

    /// The vector that has no name, as a float32 array; `None` without.
    #[getter]
    fn vector<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyArray1<f32>>>> {
        let vectors = self.all_vectors(py)?;
        let unnamed = vectors.iter().find(|vector| vector.name.is_empty());
        Ok(unnamed.map(|vector| vector.numbers.to_vec().into_pyarray(py)))
    }

    /// The vectors by name, as float32 arrays.
    #[getter]
    fn vectors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let vectors = PyDict::new(py);
        for vector in self.all_vectors(py)? {
            vectors.set_item(&*vector.name, vector.numbers.to_vec().into_pyarray(py))?;
        }
        Ok(vectors)
    }

    /// The number of the commit that wrote this version.
    #[getter]
    fn version(&self) -> u64 {
        self.stored.version
    }

    /// When that was: an aware datetime in UTC. No two commits share one.
    #[getter]
    fn timestamp<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        datetime(py, self.stored.time)
    }

    /// The version before this one; `None` for the first.
    #[getter]
    fn previous(&self) -> Option<u64> {
        Some(self.stored.previous).filter(|&version| version != 0)
    }

    /// The BLAKE3 hash of the value in hexadecimal: the same for the same value. `None` for a deletion.
    #[getter]
    fn hash(&self) -> Option<String> {
        self.exists().then(|| {
            let mut hasher = blake3::Hasher::new();
            let content = self.stored.payload.content();
            hasher.update(&[u8::from(content == Content::Bytes)]);
            hasher.update(self.stored.payload.value());
            hasher.finalize().to_hex().to_string()
        })
    }

    /// When the record runs out: an aware datetime in UTC, or `None`.
    #[getter]
    fn expires_at<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.stored.expires.map(|time| datetime(py, time)).transpose()
    }

    /// Whether this version is a deletion, also one by expiry.
    #[getter]
    fn deleted(&self) -> bool {
        !self.exists()
    }

    /// Whether the record was deleted because it ran out.
    #[getter]
    fn expired(&self) -> bool {
        self.stored.kind == Kind::Expired
    }

    fn __eq__(&self, other: &Self) -> bool {
        let (one, other) = (&*self.stored, &*other.stored);
        (&one.namespace, &one.key, one.version, one.time, one.kind)
            == (&other.namespace, &other.key, other.version, other.time, other.kind)
            && one.payload == other.payload
    }

    fn __hash__(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        (&*self.stored.namespace, &*self.stored.key, self.stored.version).hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let place = PyString::new(py, &format!("{}/{}", self.stored.namespace, self.stored.key)).repr()?;
        let what = match self.stored.kind {
            Kind::Put => {
                let value = self.value(py)?.repr()?.to_string();
                if value.chars().count() > 80 {
                    value.chars().take(77).chain("...".chars()).collect()
                } else {
                    value
                }
            }
            Kind::Deleted => "deleted".to_owned(),
            Kind::Expired => "expired".to_owned(),
        };
        Ok(format!("Record({place}, version={}, {what})", self.stored.version))
    }
}
