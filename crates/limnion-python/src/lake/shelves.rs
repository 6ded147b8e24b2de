//! Where bundles and saved indexes are kept: a folder, or a bucket.

use std::sync::Arc;

use limnion_lake::{
    BundleGeneration, Columns, Folder, LakeBundle, ObjectOptions, ObjectShelf as Bucket, Shelf,
};
use limnion_types::{Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::Given;
use crate::args;
use crate::backends::{object_options, wait_for};
use crate::door::Door as _;
use crate::errors::{OrRaise, invalid_argument};
use crate::files;

/// A folder of an object store, in which bundles and saved indexes are kept.
#[pyclass(frozen, module = "limnion._native")]
pub(crate) struct ObjectShelf {
    shelf: Arc<Bucket>,
    url: String,
}

#[pymethods]
impl ObjectShelf {
    #[new]
    #[pyo3(signature = (url, *, from_env = false, from_machine = false, attempts = None, silence = None, **settings))]
    fn new(
        url: Given<'_, '_>,
        from_env: bool,
        from_machine: bool,
        attempts: Option<Given<'_, '_>>,
        silence: Option<Given<'_, '_>>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let who = (from_env, from_machine);
        let options = object_options(settings, who, attempts, silence, Columns::default())?;
        let py = url.py();
        let url = args::text("url", url)?.into_owned();
        let shelf = Arc::new(py.outside(|| Bucket::new(&url, &options)).or_raise(py)?);
        Ok(Self { shelf, url })
    }

    /// The address.
    #[getter]
    fn url(&self) -> &str {
        &self.url
    }

    fn __repr__(&self) -> String {
        format!("ObjectShelf({:?})", self.url)
    }
}

/// A folder by its path, a bucket by its address, or an [`ObjectShelf`].
pub(super) fn shelf(name: &str, given: Given<'_, '_>) -> PyResult<Arc<dyn Shelf>> {
    let py = given.py();
    if let Ok(shelf) = given.cast::<ObjectShelf>() {
        return Ok(shelf.get().shelf.clone());
    }
    if let Ok(text) = given.cast::<PyString>()
        && let Some(url) = Some(text.to_cow()?).filter(|text| text.contains("://"))
    {
        let options = ObjectOptions { from_env: true, ..ObjectOptions::default() };
        return Ok(Arc::new(py.outside(|| Bucket::new(&url, &options)).or_raise(py)?));
    }
    let path = args::path(name, given)?;
    if path.as_os_str().is_empty() {
        return Err(invalid_argument(py, format!("{name} must be a folder, got an empty path"), None));
    }
    Ok(Arc::new(Folder::new(path).with(files::open)))
}

/// The fields of the bundle on a shelf, after a look at all of its rows where that is wanted.
#[pyfunction]
pub(crate) fn _bundle<'py>(
    py: Python<'py>,
    dir: Given<'_, 'py>,
    verify: bool,
) -> PyResult<Bound<'py, PyDict>> {
    let shelf = shelf("dir", dir)?;
    let bundle = wait_for(py, move || {
        let bundle = LakeBundle::read(&*shelf)?.ok_or_else(|| {
            Error::new(ErrorKind::CacheMiss, format!("there is no bundle in {}", shelf.place()))
                .suggest("publish one there with publish_bundle")
        })?;
        if verify {
            bundle.verify_on(&*shelf)?;
        }
        Ok(bundle)
    })?;
    fields(py, &bundle)
}

/// What `limnion.lake.LakeBundle` is made of.
pub(super) fn fields<'py>(py: Python<'py>, bundle: &LakeBundle) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyDict::new(py);
    let has_index = !bundle.metric.is_empty();
    fields.set_item("format_version", bundle.format_version)?;
    fields.set_item("witness", &bundle.witness)?;
    fields.set_item("data_ref", &bundle.data_ref)?;
    match &bundle.generation {
        BundleGeneration::Number(number) => fields.set_item("generation", number)?,
        BundleGeneration::Name(name) => fields.set_item("generation", name)?,
    }
    fields.set_item("dim", bundle.dim)?;
    fields.set_item("rows", has_index.then_some(bundle.rows))?;
    fields.set_item("metric", has_index.then_some(&bundle.metric))?;
    fields.set_item("bits", has_index.then_some(bundle.bits))?;
    fields.set_item("originals", &bundle.originals)?;
    fields.set_item("rotation_seed", bundle.rotation_seed)?;
    fields.set_item("rerank_factor", Some(bundle.rerank_factor).filter(|&factor| factor > 0))?;
    fields.set_item("content", Some(&bundle.content).filter(|content| !content.is_empty()))?;
    fields.set_item("has_names", bundle.has_names)?;
    fields.set_item("pii_policy", &bundle.pii_policy)?;
    fields.set_item("lineage_id", &bundle.lineage_id)?;
    fields.set_item("memory_class", &bundle.memory_class)?;
    Ok(fields)
}
