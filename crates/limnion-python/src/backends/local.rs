//! Vectors in memory.

use std::sync::Arc;

use limnion_lake::LocalBackend as Inner;
use pyo3::prelude::*;

use super::calm::{Calm, Inside};
use super::{Given, VectorBackend, numbered};
use crate::args;
use crate::door::Door as _;
use crate::errors::OrRaise;

/// Collections of vectors in memory, to be changed at any time from any thread.
///
/// A lake over it finds each change with the next search, and works it into its index rather than building it anew.
#[pyclass(frozen, subclass, extends = VectorBackend, module = "limnion._native")]
pub(crate) struct LocalBackend(Arc<Inner>);

#[pymethods]
impl LocalBackend {
    #[new]
    #[pyo3(signature = (name))]
    fn new(name: Given<'_, '_>) -> PyResult<PyClassInitializer<Self>> {
        let inner = Arc::new(Inner::new(args::text("name", name)?));
        Ok(PyClassInitializer::from(VectorBackend::new(Arc::new(Calm(inner.clone()))))
            .add_subclass(Self(inner)))
    }

    /// Puts rows into a collection, which is made by that: all of them, or none where something is wrong.
    ///
    /// Rows with new ids are added, those with known ids get another vector. `vectors` is a float32 array of shape (n, d).
    /// One table with columns of both is taken in place of ids and vectors.
    ///
    /// Raises `DimensionMismatch` for vectors of another length than those that are there, `DuplicateIdError`,
    /// `InvalidArgumentError` for NaN and infinity, `InvalidTypeError`.
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
        let (ids, vectors, dim) = numbered(ids, vectors, id_column, vector_column)?;
        let work = || {
            let _inside = Inside::enter();
            self.0.upsert(&collection, &ids, &vectors, dim)
        };
        py.outside(work).or_raise(py)
    }

    /// Removes the row with an id, or the rows with several, as far as they are there; says how many were.
    fn delete(&self, py: Python<'_>, collection: Given<'_, '_>, ids: Given<'_, '_>) -> PyResult<usize> {
        let collection = args::text("collection", collection)?.into_owned();
        let ids = args::id_or_ids("ids", ids)?;
        let work = || {
            let _inside = Inside::enter();
            self.0.delete(&collection, &ids)
        };
        py.outside(work).or_raise(py)
    }

    /// Removes a collection, and says whether it was there.
    fn drop_collection(&self, py: Python<'_>, collection: Given<'_, '_>) -> PyResult<bool> {
        let collection = args::text("collection", collection)?.into_owned();
        let work = || {
            let _inside = Inside::enter();
            self.0.drop_collection(&collection)
        };
        Ok(py.outside(work))
    }
}
