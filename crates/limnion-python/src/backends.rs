//! Backends of a lake: limnion's own, and classes of the user's ([`PythonBackend`]).

mod arrow;
pub(crate) mod calm;
mod database;
mod files;
mod local;
mod python;

use std::sync::Arc;

use limnion_lake::{Backend, Columns, Description, Generation, Ids, Rows, Sink};
use limnion_types::Result;
use numpy::{PyArray1, PyArrayMethods};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyList;

pub(crate) use self::database::StoreBackend;
pub(crate) use self::files::{FsBackend, ObjectStoreBackend, object_options};
pub(crate) use self::local::LocalBackend;
pub(crate) use self::python::PythonBackend;
use crate::args::{Matrix, text, type_name};
use crate::door::Door as _;
use crate::errors::{OrRaise, invalid_argument, invalid_type};
use crate::lake;
use crate::pool::{Task, Watch};

type Given<'a, 'py> = &'a Bound<'py, PyAny>;

/// What limnion's own backends have in common. Fits `limnion.protocols.Backend`.
#[pyclass(frozen, subclass, module = "limnion._native")]
pub(crate) struct VectorBackend(Arc<dyn Backend>);

impl VectorBackend {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self(backend)
    }

    pub(crate) fn backend(&self) -> Arc<dyn Backend> {
        self.0.clone()
    }

    /// Asks the backend: here where that takes a moment only, else from a thread of its own, so that Ctrl-C ends the wait.
    fn ask<R: Send + 'static>(
        &self,
        py: Python<'_>,
        question: impl FnOnce(&dyn Backend) -> Result<R> + Send + 'static,
    ) -> PyResult<R> {
        if self.0.is_quick() {
            let backend = &*self.0;
            return py.outside(|| question(backend)).or_raise(py);
        }
        let backend = self.0.clone();
        wait_for(py, move || question(&*backend))
    }
}

/// The names of columns; the usual ones unless told.
fn columns(id: Option<Given<'_, '_>>, vector: Option<Given<'_, '_>>) -> PyResult<Columns> {
    let usual = Columns::default();
    let name = |what: &str, given: Option<Given<'_, '_>>, usual: String| match given {
        Some(given) => text(what, given).map(std::borrow::Cow::into_owned),
        None => Ok(usual),
    };
    Ok(Columns { id: name("id_column", id, usual.id)?, vector: name("vector_column", vector, usual.vector)? })
}

/// Rows with their dimension: of ids and vectors, or of a table that has both.
fn rows(
    ids: Given<'_, '_>,
    vectors: Option<Given<'_, '_>>,
    id_column: Option<Given<'_, '_>>,
    vector_column: Option<Given<'_, '_>>,
) -> PyResult<(Rows, usize)> {
    let py = ids.py();
    match vectors {
        Some(_) if id_column.is_some() || vector_column.is_some() => {
            let message = "id_column and vector_column must go with a table, got them with ids and vectors";
            Err(invalid_argument(py, message.to_owned(), Some("leave them out".to_owned())))
        }
        Some(vectors) => {
            let ids = lake::ids("ids", ids)?;
            let matrix = Matrix::take("vectors", vectors, true)?;
            Ok((Rows { ids, vectors: matrix.copy_all()? }, matrix.dim()))
        }
        None if arrow::is_table(ids)? => arrow::rows(ids, &columns(id_column, vector_column)?),
        None => {
            let message = format!(
                "rows must be ids and vectors, or one table with columns of both, got {} alone",
                type_name(ids)
            );
            let hint = "a table is what has __arrow_c_stream__: of pyarrow, polars, pandas, duckdb ...";
            Err(invalid_type(py, message, Some(hint.to_owned())))
        }
    }
}

/// [`rows`] whose ids are numbers.
fn numbered(
    ids: Given<'_, '_>,
    vectors: Option<Given<'_, '_>>,
    id_column: Option<Given<'_, '_>>,
    vector_column: Option<Given<'_, '_>>,
) -> PyResult<(Vec<u64>, Vec<f32>, usize)> {
    if let Some(vectors) = vectors.filter(|_| id_column.is_none() && vector_column.is_none()) {
        let ids = crate::args::ids("ids", ids)?;
        let matrix = Matrix::take("vectors", vectors, true)?;
        return Ok((ids, matrix.copy_all()?, matrix.dim()));
    }
    match rows(ids, vectors, id_column, vector_column)? {
        (Rows { ids: Ids::Numbers(ids), vectors }, dim) => Ok((ids, vectors, dim)),
        (Rows { ids: Ids::Names(_), .. }, _) => {
            let message = "ids must be integers here, got strings".to_owned();
            let hint = "FsBackend and a database keep strings for ids".to_owned();
            Err(invalid_type(ids.py(), message, Some(hint)))
        }
    }
}

/// Waits for work that blocks, in a thread of its own; Ctrl-C ends the wait.
pub(crate) fn wait_for<R: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> Result<R> + Send + 'static,
) -> PyResult<R> {
    let (answer, task) = Task::promised();
    let begun = std::thread::Builder::new()
        .name("limnion-errand".to_owned())
        .spawn(move || answer(crate::pool::guarded(work)));
    drop(begun); // where it could not be begun, the wait says that the work was lost
    task.wait(py, &mut Watch::silent())
}

fn in_python(py: Python<'_>, generation: &Generation) -> PyResult<Py<PyAny>> {
    match generation {
        Generation::Number(number) => number.into_py_any(py),
        Generation::Name(name) => (**name).into_py_any(py),
    }
}

#[pymethods]
impl VectorBackend {
    /// What the lake and its hits call it.
    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    /// The names of the collections, in order.
    fn list_collections(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.ask(py, |backend| backend.collections())
    }

    /// What a collection is now: `limnion.protocols.Description`.
    fn describe<'py>(&self, py: Python<'py>, collection: Given<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        let collection = text("collection", collection)?.into_owned();
        let found = self.ask(py, move |backend| backend.describe(&collection))?;
        let class = py.import("limnion.protocols")?.getattr("Description")?;
        let metric = found.metric.map(|metric| metric.as_str());
        class.call1((found.dim, found.rows, in_python(py, &found.generation)?, metric))
    }

    /// All rows of a collection: `limnion.protocols.Pulled`.
    fn pull<'py>(&self, py: Python<'py>, collection: Given<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        let collection = text("collection", collection)?.into_owned();
        let mut watch = Watch::silent();
        let job = watch.job();
        let backend = self.0.clone();
        let (answer, task) = Task::promised();
        let work = move || {
            let mut gathered = Gathered::default();
            backend.pull(&collection, &mut gathered, &job)?;
            Ok(gathered)
        };
        let begun = std::thread::Builder::new()
            .name("limnion-errand".to_owned())
            .spawn(move || answer(crate::pool::guarded(work)));
        drop(begun);
        let Gathered { description, ids, vectors } = task.wait(py, &mut watch)?;
        let description = description.unwrap_or(Description {
            dim: 0,
            rows: 0,
            generation: Generation::Number(0),
            metric: None,
            source: String::new(),
        });
        let ids = match ids {
            Some(Ids::Names(names)) => PyList::new(py, names.iter().map(|name| &**name))?.into_any(),
            Some(Ids::Numbers(numbers)) => PyArray1::from_vec(py, numbers).into_any(),
            None => PyArray1::<u64>::from_vec(py, Vec::new()).into_any(),
        };
        let rows = vectors.len() / description.dim.max(1);
        let vectors = PyArray1::from_vec(py, vectors).reshape([rows, description.dim])?;
        let class = py.import("limnion.protocols")?.getattr("Pulled")?;
        class.call1((ids, vectors, in_python(py, &description.generation)?))
    }

    /// The generation of a collection now.
    fn generation(&self, py: Python<'_>, collection: Given<'_, '_>) -> PyResult<Py<PyAny>> {
        let collection = text("collection", collection)?.into_owned();
        let found = self.ask(py, move |backend| backend.generation(&collection))?;
        in_python(py, &found)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let (class, this) = (slf.get_type().name()?, slf.get());
        let mut told = format!("{class}({:?}", this.0.name());
        // What would take longer is not asked for the sake of a repr.
        if this.0.is_quick() {
            let backend = &*this.0;
            let names = slf.py().outside(|| backend.collections()).unwrap_or_default();
            for name in names.iter().take(5) {
                if let Ok(found) = backend.describe(name) {
                    told.push_str(&format!(", {name}: {} x {}", found.rows, found.dim));
                }
            }
            if names.len() > 5 {
                told.push_str(", ...");
            }
        }
        told.push(')');
        Ok(told)
    }
}

/// All rows of a collection.
#[derive(Default)]
struct Gathered {
    description: Option<Description>,
    ids: Option<Ids>,
    vectors: Vec<f32>,
}

impl Sink for Gathered {
    fn begin(&mut self, description: &Description) -> Result<()> {
        *self = Self { description: Some(description.clone()), ..Self::default() };
        Ok(())
    }

    fn push(&mut self, rows: Rows) -> Result<()> {
        self.vectors.extend_from_slice(&rows.vectors);
        match (&mut self.ids, rows.ids) {
            (Some(Ids::Numbers(all)), Ids::Numbers(more)) => all.extend(more),
            (Some(Ids::Names(all)), Ids::Names(more)) => all.extend(more),
            (all, more) => *all = Some(more),
        }
        Ok(())
    }
}
