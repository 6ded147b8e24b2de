//! Vectors in files: of a folder, or of an object store.

use std::path::PathBuf;
use std::sync::Arc;

use limnion_lake::{
    Columns, FsBackend as Folder, FsOptions, Ids, ObjectOptions, ObjectStoreBackend as Bucket,
};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString};

use super::{Given, VectorBackend, columns, rows, wait_for};
use crate::args::{self, type_name};
use crate::door::Door as _;
use crate::errors::{OrRaise, invalid_type};
use crate::lake;

/// The collections in the files of a folder: `docs.npy`, `docs.fvecs`, `docs.parquet` and `docs.rows` are `docs`.
#[pyclass(frozen, subclass, extends = VectorBackend, module = "limnion._native")]
pub(crate) struct FsBackend(Arc<Folder>);

#[pymethods]
impl FsBackend {
    #[new]
    #[pyo3(
        signature = (name, path, *, digest = false, id_column = None, vector_column = None),
        text_signature = "(name, path, *, digest=False, id_column='id', vector_column='vector')"
    )]
    fn new(
        name: Given<'_, '_>,
        path: Given<'_, '_>,
        digest: bool,
        id_column: Option<Given<'_, '_>>,
        vector_column: Option<Given<'_, '_>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let py = name.py();
        let columns = columns(id_column, vector_column)?;
        let (name, path) = (args::text("name", name)?.into_owned(), args::path("path", path)?);
        let options = FsOptions { columns, digest };
        let inner = Arc::new(py.outside(|| Folder::new(name, path, options)).or_raise(py)?);
        Ok(PyClassInitializer::from(VectorBackend::new(inner.clone())).add_subclass(Self(inner)))
    }

    /// The folder, without links.
    #[getter]
    fn path(&self) -> PathBuf {
        self.0.folder().to_path_buf()
    }

    /// Puts rows into a collection, which is made by that: all of them, or none. On disk when it returns.
    ///
    /// One table with columns of both is taken in place of ids and vectors.
    #[pyo3(
        signature = (collection, ids, vectors = None, *, id_column = None, vector_column = None),
        text_signature = "($self, collection, ids, vectors=None, *, id_column='id', vector_column='vector')"
    )]
    fn upsert(
        &self,
        py: Python<'_>,
        collection: Given<'_, '_>,
        ids: Given<'_, '_>,
        vectors: Option<Given<'_, '_>>,
        id_column: Option<Given<'_, '_>>,
        vector_column: Option<Given<'_, '_>>,
    ) -> PyResult<()> {
        let collection = args::text("collection", collection)?.into_owned();
        let (rows, dim) = rows(ids, vectors, id_column, vector_column)?;
        let inner = self.0.clone();
        wait_for(py, move || inner.upsert_rows(&collection, &rows, dim))
    }

    /// Removes rows, as far as they are there, and says how many were.
    fn delete(&self, py: Python<'_>, collection: Given<'_, '_>, ids: Given<'_, '_>) -> PyResult<usize> {
        let collection = args::text("collection", collection)?.into_owned();
        let ids = match ids.cast::<PyString>() {
            Ok(name) => Ids::Names(vec![name.to_str()?.into()]),
            Err(_) => match args::id_or_ids("ids", ids) {
                Ok(numbers) => Ids::Numbers(numbers),
                Err(_) => lake::ids("ids", ids)?,
            },
        };
        let inner = self.0.clone();
        wait_for(py, move || inner.delete_rows(&collection, &ids))
    }

    /// Removes a collection, and says whether it was there.
    fn drop_collection(&self, py: Python<'_>, collection: Given<'_, '_>) -> PyResult<bool> {
        let collection = args::text("collection", collection)?.into_owned();
        let inner = self.0.clone();
        wait_for(py, move || inner.drop_collection(&collection))
    }
}

/// The collections in a folder of an object store: S3, Google Cloud Storage, Azure, a web server, a local folder.
#[pyclass(frozen, subclass, extends = VectorBackend, module = "limnion._native")]
pub(crate) struct ObjectStoreBackend(Arc<Bucket>);

/// How an object store is spoken with.
pub(crate) fn object_options(
    settings: Option<&Bound<'_, PyDict>>,
    (from_env, from_machine): (bool, bool),
    attempts: Option<Given<'_, '_>>,
    silence: Option<Given<'_, '_>>,
    columns: Columns,
) -> PyResult<ObjectOptions> {
    let each = settings.into_iter().flatten().map(|(name, value)| {
        let name = name.extract::<String>()?;
        let value = setting(&name, &value)?;
        PyResult::Ok((name, value))
    });
    Ok(ObjectOptions {
        settings: each.collect::<PyResult<Vec<_>>>()?,
        from_env,
        from_machine,
        columns,
        attempts: attempts.map(|attempts| args::small("attempts", attempts)).transpose()?,
        silence: silence.map(|silence| lake::stretch("silence", silence)).transpose()?,
    })
}

/// A setting as text: `True` is `true`.
fn setting(name: &str, given: Given<'_, '_>) -> PyResult<String> {
    if let Ok(wish) = given.cast::<PyBool>() {
        return Ok(wish.is_true().to_string());
    }
    if given.is_instance_of::<PyString>() || given.is_instance_of::<pyo3::types::PyInt>() {
        return Ok(given.str()?.to_string());
    }
    let message = format!("{name} must be a string, a number or a bool, got {}", type_name(given));
    Err(invalid_type(given.py(), message, None))
}

#[pymethods]
impl ObjectStoreBackend {
    #[new]
    #[pyo3(
        signature = (name, url, *, from_env = false, from_machine = false, attempts = None, silence = None, id_column = None, vector_column = None, **settings),
        text_signature = "(name, url, *, from_env=False, from_machine=False, attempts=None, silence=None, id_column='id', vector_column='vector', **settings)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the options of one constructor")]
    fn new(
        name: Given<'_, '_>,
        url: Given<'_, '_>,
        from_env: bool,
        from_machine: bool,
        attempts: Option<Given<'_, '_>>,
        silence: Option<Given<'_, '_>>,
        id_column: Option<Given<'_, '_>>,
        vector_column: Option<Given<'_, '_>>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let py = name.py();
        let columns = columns(id_column, vector_column)?;
        let options = object_options(settings, (from_env, from_machine), attempts, silence, columns)?;
        let (name, url) = (args::text("name", name)?.into_owned(), args::text("url", url)?.into_owned());
        let inner = Arc::new(py.outside(|| Bucket::new(name, &url, &options)).or_raise(py)?);
        Ok(PyClassInitializer::from(VectorBackend::new(inner.clone())).add_subclass(Self(inner)))
    }

    /// Puts a collection there, in place of the one of that name: whoever reads it sees the one or the other.
    ///
    /// One table with columns of both is taken in place of ids and vectors.
    #[pyo3(
        signature = (collection, ids, vectors = None, *, id_column = None, vector_column = None),
        text_signature = "($self, collection, ids, vectors=None, *, id_column='id', vector_column='vector')"
    )]
    fn put_rows(
        &self,
        py: Python<'_>,
        collection: Given<'_, '_>,
        ids: Given<'_, '_>,
        vectors: Option<Given<'_, '_>>,
        id_column: Option<Given<'_, '_>>,
        vector_column: Option<Given<'_, '_>>,
    ) -> PyResult<()> {
        let collection = args::text("collection", collection)?.into_owned();
        let (rows, dim) = rows(ids, vectors, id_column, vector_column)?;
        let inner = self.0.clone();
        wait_for(py, move || inner.put_rows(&collection, rows, dim))
    }

    /// Removes a collection, and says whether it was there.
    fn drop_collection(&self, py: Python<'_>, collection: Given<'_, '_>) -> PyResult<bool> {
        let collection = args::text("collection", collection)?.into_owned();
        let inner = self.0.clone();
        wait_for(py, move || inner.delete(&collection))
    }
}
