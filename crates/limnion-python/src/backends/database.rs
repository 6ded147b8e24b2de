//! The vectors of a database.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use limnion_lake::{Backend, Changes, Description, Generation, Id, Ids, Sink, StoreBackend as Inner};
use limnion_types::{Filter, Job, Result};
use pyo3::prelude::*;

use super::{Given, VectorBackend};
use crate::args::{self, type_name};
use crate::errors::invalid_type;
use crate::gate::forks;
use crate::request::forked;
use crate::store::Store;

/// A store as a backend, which a child of this process leaves alone: its threads and locks are the parent's.
struct Kept {
    inner: ManuallyDrop<Inner>,
    forks: u32,
}

impl Kept {
    fn inner(&self) -> Result<&Inner> {
        if self.forks == forks() { Ok(&self.inner) } else { Err(forked()) }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.forks == forks() {
            // SAFETY: nobody uses it after this.
            unsafe { ManuallyDrop::drop(&mut self.inner) }
        }
    }
}

impl Backend for Kept {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn collections(&self) -> Result<Vec<String>> {
        self.inner()?.collections()
    }

    fn describe(&self, collection: &str) -> Result<Description> {
        self.inner()?.describe(collection)
    }

    fn generation(&self, collection: &str) -> Result<Generation> {
        self.inner()?.generation(collection)
    }

    fn is_quick(&self) -> bool {
        self.inner.is_quick()
    }

    fn pull(&self, collection: &str, sink: &mut dyn Sink, job: &Job) -> Result<()> {
        self.inner()?.pull(collection, sink, job)
    }

    fn changes(&self, collection: &str, since: &Generation) -> Result<Option<Changes>> {
        self.inner()?.changes(collection, since)
    }

    fn few_changes(&self, collection: &str, since: &Generation, rows: usize) -> Result<Option<Changes>> {
        self.inner()?.few_changes(collection, since, rows)
    }

    fn when_changed(&self, collection: &str, from: &Generation, wake: Box<dyn FnOnce() + Send>) -> bool {
        self.inner().is_ok_and(|inner| inner.when_changed(collection, from, wake))
    }

    fn select(&self, collection: &str, filter: &Filter) -> Result<Option<(Ids, Generation)>> {
        self.inner()?.select(collection, filter)
    }

    fn text_search(&self, collection: &str, query: &str, k: usize) -> Result<Option<Vec<(Id, f32)>>> {
        self.inner()?.text_search(collection, query, k)
    }
}

/// The vectors of a database, by the keys of their records: a namespace is a collection.
#[pyclass(frozen, subclass, extends = VectorBackend, module = "limnion._native")]
pub(crate) struct StoreBackend;

#[pymethods]
impl StoreBackend {
    #[new]
    #[pyo3(signature = (database, name = None), text_signature = "(database, name='store')")]
    fn new(database: Given<'_, '_>, name: Option<Given<'_, '_>>) -> PyResult<PyClassInitializer<Self>> {
        let py = database.py();
        let name = name.map_or_else(|| Ok("store".to_owned()), |name| lake_name(name))?;
        let wrong = || {
            let message = format!(
                "database must be a limnion.Database or a limnion.SyncDatabase, got {}",
                type_name(database)
            );
            invalid_type(py, message, None)
        };
        let store = database.getattr_opt("_store")?.ok_or_else(wrong)?;
        let store = store.cast::<Store>().map_err(|_| wrong())?;
        let inner = Inner::new(name, store.get().open_store(py)?);
        let kept = Kept { inner: ManuallyDrop::new(inner), forks: forks() };
        Ok(PyClassInitializer::from(VectorBackend::new(Arc::new(kept))).add_subclass(Self))
    }
}

fn lake_name(name: Given<'_, '_>) -> PyResult<String> {
    args::text("name", name).map(std::borrow::Cow::into_owned)
}
