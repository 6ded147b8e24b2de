//! The extension module `limnion._native`: the only crate that knows Python.
//!
//! Each verb is parse, detach, call, wrap; whatever is longer belongs into the crates below.

mod args;
mod backends;
mod bell;
mod build;
mod classes;
mod coroutine;
mod door;
mod embedder;
mod errors;
mod files;
mod flat;
mod gate;
mod graph;
mod hamming;
mod held;
mod index;
mod info;
mod json;
mod lake;
mod lists;
mod living;
mod moment;
mod outbox;
mod pool;
mod queue;
mod record;
mod request;
mod results;
mod scope;
mod selection;
mod similar;
mod store;
mod view;
mod writes;

#[pyo3::pymodule]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::backends::{FsBackend, LocalBackend, ObjectStoreBackend, StoreBackend, VectorBackend};
    #[pymodule_export]
    use super::coroutine::Coroutine;
    #[pymodule_export]
    use super::embedder::Embedder;
    #[pymodule_export]
    use super::errors::error_kinds;
    #[pymodule_export]
    use super::flat::Flat;
    #[pymodule_export]
    use super::graph::Graph;
    #[pymodule_export]
    use super::hamming::Hamming;
    #[pymodule_export]
    use super::index::VectorIndex;
    #[pymodule_export]
    use super::info::{_recommend, _shape, cpu_features};
    #[pymodule_export]
    use super::lake::{_bundle, Lake, LakeHits, LakeHitsBatch, ObjectShelf};
    #[pymodule_export]
    use super::lists::Lists;
    #[pymodule_export]
    use super::record::Record;
    #[pymodule_export]
    use super::request::Request;
    #[pymodule_export]
    use super::results::{Hits, HitsBatch};
    #[pymodule_export]
    use super::selection::PySelection;
    #[pymodule_export]
    use super::store::{Hold, Store};
    #[pymodule_export]
    use super::writes::Write;

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
    /// `release` or `debug`.
    #[pymodule_export]
    const PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::results::register(module.py())?;
        super::lake::register(module.py())?;
        super::pool::register(module.py())
    }
}
