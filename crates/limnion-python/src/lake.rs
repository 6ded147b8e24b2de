//! The lake: what `limnion.Lake` stands on. Parse, ask, wrap.

mod args;
mod hits;
pub(crate) mod home;
pub(crate) mod later;
mod question;
mod shelves;

use std::sync::Arc;
use std::time::Duration;

use limnion_lake::{
    Consistency, Fusion, Hybrid, Notes, OnError, RefreshResult, Search, Stats, Target, Warmed,
};
use limnion_types::{Error, ErrorKind};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

pub(crate) use self::args::{ids, stretch};
pub(crate) use self::hits::{LakeHits, LakeHitsBatch, register};
use self::home::{Home, Registered};
use self::question::{Answer, Ask, Inquiry, Keep, Keeping, Question, Told, Verb, coroutine, wait};
use self::shelves::shelf;
pub(crate) use self::shelves::{_bundle, ObjectShelf};
use crate::args::{Matrix, vector};
use crate::backends::{PythonBackend, VectorBackend};
use crate::classes::Class;
use crate::coroutine::Coroutine;
use crate::door::Door as _;
use crate::errors::{OrRaise, exception, invalid_argument, invalid_type};
use crate::flat::{self, Flat};
use crate::index::VectorIndex;

type Given<'a, 'py> = &'a Bound<'py, PyAny>;

/// The native side of `limnion.Lake`.
#[pyclass(frozen, subclass, module = "limnion._native")]
pub(crate) struct Lake {
    home: Arc<Home>,
}

/// What belongs to a question whatever the verb.
struct Place {
    collection: String,
    backend: Option<String>,
    timeout: Option<Duration>,
}

impl Place {
    fn take(
        collection: Given<'_, '_>,
        backend: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
    ) -> PyResult<Self> {
        Ok(Self {
            collection: args::name("collection", collection)?,
            backend: backend.map(|backend| args::name("backend", backend)).transpose()?,
            timeout: timeout.map(|timeout| args::stretch("timeout", timeout)).transpose()?,
        })
    }
}

/// What an answer becomes in Python.
fn wrap(py: Python<'_>, (home, answer): Told) -> PyResult<Py<PyAny>> {
    let answer = answer.map_err(|error| home.exception(py, &error))?;
    match answer {
        Answer::Hits(hits) => Ok(Bound::new(py, LakeHits::new(hits))?.into_any().unbind()),
        Answer::Batch(batch) => Ok(Bound::new(py, LakeHitsBatch::new(batch))?.into_any().unbind()),
        Answer::Federated(hits, parts) => {
            Ok(Bound::new(py, LakeHits::federated(hits, parts))?.into_any().unbind())
        }
        Answer::Primed(target) => collection_stats(py, &home, &target),
        Answer::Index(index) => {
            let class = Class::that_fits(index.params()).or_raise(py)?.in_python(py)?;
            Ok(flat::wrap(&class, *index)?.unbind())
        }
        Answer::Forgotten(was) => was.into_py_any(py),
        Answer::Target(target) => key(&target).into_py_any(py),
        Answer::Targets(targets) => targets.iter().map(key).collect::<Vec<_>>().into_py_any(py),
        Answer::Witness(witness) => witness.into_py_any(py),
        Answer::Bundle(bundle) => {
            let class = py.import("limnion.lake")?.getattr("LakeBundle")?;
            Ok(class.call((), Some(&shelves::fields(py, &bundle)?))?.unbind())
        }
        Answer::Compared(result) => {
            let name = match result {
                RefreshResult::UpToDate => "UP_TO_DATE",
                RefreshResult::Invalidated => "INVALIDATED",
                RefreshResult::BundleMissing => "BUNDLE_MISSING",
            };
            Ok(py.import("limnion.lake")?.getattr("RefreshResult")?.getattr(name)?.unbind())
        }
        Answer::Warmed(Warmed { loaded, skipped }) => {
            let reasons = PyDict::new(py);
            for (target, error) in &skipped {
                reasons.set_item(key(target), exception(py, error).into_value(py))?;
            }
            let loaded: Vec<_> = loaded.iter().map(key).collect();
            Ok(py.import("limnion.lake")?.getattr("LoadedCache")?.call1((loaded, reasons))?.unbind())
        }
    }
}

fn key(target: &Target) -> (&str, &str) {
    (&target.backend, &target.collection)
}

/// `limnion.lake.CollectionStats` of one collection.
fn collection_stats(py: Python<'_>, home: &Arc<Home>, target: &Target) -> PyResult<Py<PyAny>> {
    let lake = home.lake().or_raise(py)?;
    let stats = py.outside(|| lake.stats());
    let found = stats.collections.iter().find(|stats| stats.target == *target).ok_or_else(|| {
        exception(py, &Error::new(ErrorKind::Lake, format!("{target} was unregistered meanwhile")))
    })?;
    let class = py.import("limnion.lake")?.getattr("CollectionStats")?;
    Ok(class.call((), Some(&collection_fields(py, found)?))?.unbind())
}

fn collection_fields<'py>(
    py: Python<'py>,
    stats: &limnion_lake::CollectionStats,
) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyDict::new(py);
    fields.set_item("backend", &*stats.target.backend)?;
    fields.set_item("collection", &*stats.target.collection)?;
    fields.set_item("rows", stats.rows)?;
    fields.set_item("generation", &stats.generation)?;
    fields.set_item("bytes", stats.bytes)?;
    fields.set_item("age", stats.age.map(|age| age.as_secs_f64()))?;
    fields.set_item("pinned", stats.pinned)?;
    fields.set_item("consistency", stats.consistency.map(|own| member(py, own)).transpose()?)?;
    fields.set_item("hits", stats.hits)?;
    fields.set_item("misses", stats.misses)?;
    fields.set_item("primes", stats.primes)?;
    fields.set_item("updates", stats.updates)?;
    fields.set_item("shared", stats.shared)?;
    fields.set_item("invalidations", stats.invalidations)?;
    fields.set_item("errors", stats.errors)?;
    fields.set_item("prime_seconds", stats.prime_time.as_secs_f64())?;
    fields.set_item("last_prime_seconds", stats.last_prime_time.as_secs_f64())?;
    Ok(fields)
}

/// A member of `limnion.Consistency`.
fn member(py: Python<'_>, consistency: Consistency) -> PyResult<Bound<'_, PyAny>> {
    let name = match consistency {
        Consistency::Fresh => "FRESH",
        Consistency::Eventual(_) => "EVENTUAL",
        Consistency::Frozen => "FROZEN",
    };
    py.import("limnion.lake")?.getattr("Consistency")?.getattr(name)
}

impl Lake {
    fn question(&self, place: Place, search: Search, verb: Verb) -> Question {
        let Place { collection, backend, timeout } = place;
        Question { home: self.home.clone(), backend, collection, search, timeout, verb }
    }

    fn simple(
        &self,
        collection: Given<'_, '_>,
        backend: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
        verb: Verb,
    ) -> PyResult<Question> {
        Ok(self.question(Place::take(collection, backend, timeout)?, Search::new(1), verb))
    }

    fn answer<A: Ask>(&self, py: Python<'_>, question: A) -> PyResult<Py<PyAny>> {
        wrap(py, wait(py, question)?)
    }

    /// The collection that is meant; backends are asked where that is not clear.
    fn target(
        &self,
        py: Python<'_>,
        collection: Given<'_, '_>,
        backend: Option<Given<'_, '_>>,
    ) -> PyResult<Target> {
        let question = self.simple(collection, backend, None, Verb::Find)?;
        let (home, answer) = wait(py, question)?;
        match answer.map_err(|error| home.exception(py, &error))? {
            Answer::Target(target) => Ok(target),
            _ => Err(exception(py, &Error::new(ErrorKind::Internal, "a question for a place gave none"))),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    #[inline]
    fn one(
        &self,
        collection: Given<'_, '_>,
        query: Given<'_, '_>,
        k: Option<Given<'_, '_>>,
        backend: Option<Given<'_, '_>>,
        among: Option<Given<'_, '_>>,
        recall: Option<Given<'_, '_>>,
        rerank_factor: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
        cached_only: Option<Given<'_, '_>>,
    ) -> PyResult<Question> {
        let place = Place::take(collection, backend, timeout)?;
        let search = args::search(k, recall, rerank_factor, among, cached_only)?;
        let query = vector("query", query, args::half(self.home.settings()))?;
        Ok(self.question(place, search, Verb::One(query)))
    }

    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    fn batch(
        &self,
        collection: Given<'_, '_>,
        queries: Given<'_, '_>,
        k: Option<Given<'_, '_>>,
        backend: Option<Given<'_, '_>>,
        among: Option<Given<'_, '_>>,
        recall: Option<Given<'_, '_>>,
        rerank_factor: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
        cached_only: Option<Given<'_, '_>>,
    ) -> PyResult<Question> {
        let place = Place::take(collection, backend, timeout)?;
        let search = args::search(k, recall, rerank_factor, among, cached_only)?;
        let matrix = Matrix::take("queries", queries, args::half(self.home.settings()))?;
        let verb = Verb::Batch(matrix.copy_all()?, matrix.dim());
        Ok(self.question(place, search, verb))
    }

    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    fn federated(
        &self,
        collection: Given<'_, '_>,
        query: Given<'_, '_>,
        k: Option<Given<'_, '_>>,
        backends: Option<Given<'_, '_>>,
        on_error: Option<Given<'_, '_>>,
        among: Option<Given<'_, '_>>,
        recall: Option<Given<'_, '_>>,
        rerank_factor: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
        cached_only: Option<Given<'_, '_>>,
    ) -> PyResult<Inquiry> {
        let Place { collection, timeout, .. } = Place::take(collection, None, timeout)?;
        let on_error = on_error.map_or(Ok(OnError::Raise), |given| {
            let text = crate::args::text("on_error", given)?;
            match &*text {
                "raise" => Ok(OnError::Raise),
                "partial" => Ok(OnError::Partial),
                _ => Err(invalid_argument(
                    given.py(),
                    format!("on_error must be 'raise' or 'partial', got {:?}", &*text),
                    None,
                )),
            }
        })?;
        Ok(Inquiry {
            home: self.home.clone(),
            backends: backends.map(|backends| args::names("backends", backends)).transpose()?,
            collection,
            search: args::search(k, recall, rerank_factor, among, cached_only)?,
            timeout,
            on_error,
            query: Some(vector("query", query, args::half(self.home.settings()))?),
        })
    }

    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    fn hybrid(
        &self,
        collection: Given<'_, '_>,
        query: Given<'_, '_>,
        text: Given<'_, '_>,
        k: Option<Given<'_, '_>>,
        backend: Option<Given<'_, '_>>,
        fusion: Option<Given<'_, '_>>,
        weight: Option<Given<'_, '_>>,
        among: Option<Given<'_, '_>>,
        recall: Option<Given<'_, '_>>,
        rerank_factor: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
        cached_only: Option<Given<'_, '_>>,
    ) -> PyResult<Question> {
        let place = Place::take(collection, backend, timeout)?;
        let search = args::search(k, recall, rerank_factor, among, cached_only)?;
        let query = vector("query", query, args::half(self.home.settings()))?;
        let mut hybrid = Hybrid::new(crate::args::text("text", text)?);
        if let Some(given) = fusion {
            hybrid.fusion = match &*crate::args::text("fusion", given)? {
                "rrf" => Fusion::Reciprocal,
                "weighted" => Fusion::Weighted,
                other => {
                    let message = format!("fusion must be 'rrf' or 'weighted', got {other:?}");
                    return Err(invalid_argument(given.py(), message, None));
                }
            };
        }
        if let Some(given) = weight {
            hybrid.weight = crate::args::number("weight", given)?;
        }
        Ok(self.question(place, search, Verb::Hybrid(query, hybrid)))
    }

    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    fn publication(
        &self,
        collection: Given<'_, '_>,
        out_dir: Given<'_, '_>,
        backend: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
        pii_policy: Option<Given<'_, '_>>,
        lineage_id: Option<Given<'_, '_>>,
        memory_class: Option<Given<'_, '_>>,
    ) -> PyResult<Question> {
        let note =
            |name: &str, given: Option<Given<'_, '_>>| given.map(|given| args::name(name, given)).transpose();
        let notes = Notes {
            pii_policy: note("pii_policy", pii_policy)?,
            lineage_id: note("lineage_id", lineage_id)?,
            memory_class: note("memory_class", memory_class)?,
        };
        self.simple(collection, backend, timeout, Verb::Publish(shelf("out_dir", out_dir)?, notes))
    }

    fn taking(
        &self,
        collection: Given<'_, '_>,
        dir: Given<'_, '_>,
        backend: Option<Given<'_, '_>>,
        verify: bool,
    ) -> PyResult<Question> {
        self.simple(collection, backend, None, Verb::Take(shelf("dir", dir)?, verify))
    }

    fn comparison(&self, key: Given<'_, '_>, dir: Given<'_, '_>) -> PyResult<Question> {
        let (backend, collection) = key.extract::<(String, String)>().map_err(|_| {
            let message =
                format!("key must be a tuple (backend, collection), got {}", crate::args::type_name(key));
            invalid_type(key.py(), message, Some("write key=(\"hot-shard\", \"docs\")".to_owned()))
        })?;
        let place = Place { collection, backend: Some(backend), timeout: None };
        Ok(self.question(place, Search::new(1), Verb::Compare(shelf("dir", dir)?)))
    }

    fn keeping(&self, dir: Given<'_, '_>, verb: Keep) -> PyResult<Keeping> {
        Ok(Keeping { home: self.home.clone(), shelf: shelf("dir", dir)?, verb })
    }

    fn everyone(&self, collection: Given<'_, '_>, backends: Option<Given<'_, '_>>) -> PyResult<Inquiry> {
        Ok(Inquiry {
            home: self.home.clone(),
            backends: backends.map(|backends| args::names("backends", backends)).transpose()?,
            collection: args::name("collection", collection)?,
            search: Search::new(1),
            timeout: None,
            on_error: OnError::Raise,
            query: None,
        })
    }
}

#[pymethods]
impl Lake {
    #[new]
    #[pyo3(signature = (*, consistency, ttl, metric, bits, originals, rerank_factor, rotation_seed, max_cache_entries, max_cache_bytes))]
    #[expect(clippy::too_many_arguments, reason = "the options of one constructor")]
    fn new(
        py: Python<'_>,
        consistency: Given<'_, '_>,
        ttl: Option<Given<'_, '_>>,
        metric: Given<'_, '_>,
        bits: Given<'_, '_>,
        originals: Option<Given<'_, '_>>,
        rerank_factor: Option<Given<'_, '_>>,
        rotation_seed: Given<'_, '_>,
        max_cache_entries: Option<Given<'_, '_>>,
        max_cache_bytes: Option<Given<'_, '_>>,
    ) -> PyResult<Self> {
        let consistency = args::consistency(consistency, ttl)?;
        let settings = args::settings(
            consistency,
            metric,
            bits,
            originals,
            rerank_factor,
            rotation_seed,
            max_cache_entries,
            max_cache_bytes,
        )?;
        Ok(Self { home: Home::new(settings).or_raise(py)? })
    }

    /// Adds a backend: one of limnion's, or whatever fits `limnion.protocols.Backend` or `AsyncBackend`.
    ///
    /// The coroutines of an async backend run in a loop of their own each, or in `loop`, which must be running in another
    /// thread than the one that waits.
    #[pyo3(signature = (backend, *, r#loop = None))]
    fn register_backend(
        &self,
        py: Python<'_>,
        backend: Given<'_, '_>,
        r#loop: Option<Given<'_, '_>>,
    ) -> PyResult<()> {
        let registered = match backend.cast::<VectorBackend>() {
            Ok(ours) => {
                let inside = ours.get().backend();
                Registered { object: backend.clone().unbind(), backend: inside, own: None }
            }
            Err(_) => {
                let own = Arc::new(PythonBackend::take(backend, r#loop)?);
                Registered { object: backend.clone().unbind(), backend: own.clone(), own: Some(own) }
            }
        };
        self.home.register(py, registered)
    }

    /// Removes a backend, and the indexes of its collections.
    fn unregister_backend(&self, py: Python<'_>, name: Given<'_, '_>) -> PyResult<()> {
        let gone = self.home.unregister(py, &args::name("name", name)?)?;
        drop(gone); // outside of every lock: it may run Python
        Ok(())
    }

    /// The backends by name: a new dict.
    #[getter]
    fn backends<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let backends = PyDict::new(py);
        for (name, object) in self.home.each(|registered| registered.object.clone_ref(py)) {
            backends.set_item(name, object)?;
        }
        Ok(backends)
    }

    /// The `k` rows of a collection that are nearest to `query`, best first.
    #[pyo3(
        signature = (collection, query, k = None, *, backend = None, r#where = None, recall = None, rerank_factor = None, timeout = None, cached_only = None),
        text_signature = "($self, collection, query, k=10, *, backend=None, where=None, recall=None, rerank_factor=None, timeout=None, cached_only=False)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    fn search_one(
        &self,
        py: Python<'_>,
        collection: Given<'_, '_>,
        query: Given<'_, '_>,
        k: Option<Given<'_, '_>>,
        backend: Option<Given<'_, '_>>,
        r#where: Option<Given<'_, '_>>,
        recall: Option<Given<'_, '_>>,
        rerank_factor: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
        cached_only: Option<Given<'_, '_>>,
    ) -> PyResult<Py<PyAny>> {
        let question =
            self.one(collection, query, k, backend, r#where, recall, rerank_factor, timeout, cached_only)?;
        self.answer(py, question)
    }

    /// `search_one`, to be awaited: on asyncio, uvloop, and whatever has their interface.
    #[pyo3(
        signature = (collection, query, k = None, *, backend = None, r#where = None, recall = None, rerank_factor = None, timeout = None, cached_only = None),
        text_signature = "($self, collection, query, k=10, *, backend=None, where=None, recall=None, rerank_factor=None, timeout=None, cached_only=False)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    fn search_one_async(
        &self,
        collection: Given<'_, '_>,
        query: Given<'_, '_>,
        k: Option<Given<'_, '_>>,
        backend: Option<Given<'_, '_>>,
        r#where: Option<Given<'_, '_>>,
        recall: Option<Given<'_, '_>>,
        rerank_factor: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
        cached_only: Option<Given<'_, '_>>,
    ) -> PyResult<Coroutine> {
        let question =
            self.one(collection, query, k, backend, r#where, recall, rerank_factor, timeout, cached_only)?;
        Ok(coroutine(question, wrap))
    }

    /// `search_one` for each row of `queries`: parallel, and several queries a pass over the codes.
    #[pyo3(
        signature = (collection, queries, k = None, *, backend = None, r#where = None, recall = None, rerank_factor = None, timeout = None, cached_only = None),
        text_signature = "($self, collection, queries, k=10, *, backend=None, where=None, recall=None, rerank_factor=None, timeout=None, cached_only=False)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    fn search_batch(
        &self,
        py: Python<'_>,
        collection: Given<'_, '_>,
        queries: Given<'_, '_>,
        k: Option<Given<'_, '_>>,
        backend: Option<Given<'_, '_>>,
        r#where: Option<Given<'_, '_>>,
        recall: Option<Given<'_, '_>>,
        rerank_factor: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
        cached_only: Option<Given<'_, '_>>,
    ) -> PyResult<Py<PyAny>> {
        let question = self.batch(
            collection,
            queries,
            k,
            backend,
            r#where,
            recall,
            rerank_factor,
            timeout,
            cached_only,
        )?;
        self.answer(py, question)
    }

    /// `search_batch`, to be awaited.
    #[pyo3(
        signature = (collection, queries, k = None, *, backend = None, r#where = None, recall = None, rerank_factor = None, timeout = None, cached_only = None),
        text_signature = "($self, collection, queries, k=10, *, backend=None, where=None, recall=None, rerank_factor=None, timeout=None, cached_only=False)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    fn search_batch_async(
        &self,
        collection: Given<'_, '_>,
        queries: Given<'_, '_>,
        k: Option<Given<'_, '_>>,
        backend: Option<Given<'_, '_>>,
        r#where: Option<Given<'_, '_>>,
        recall: Option<Given<'_, '_>>,
        rerank_factor: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
        cached_only: Option<Given<'_, '_>>,
    ) -> PyResult<Coroutine> {
        let question = self.batch(
            collection,
            queries,
            k,
            backend,
            r#where,
            recall,
            rerank_factor,
            timeout,
            cached_only,
        )?;
        Ok(coroutine(question, wrap))
    }

    /// The `k` nearest rows of the collections of one name in several backends, best first.
    #[pyo3(
        signature = (collection, query, k = None, *, backends = None, on_error = None, r#where = None, recall = None, rerank_factor = None, timeout = None, cached_only = None),
        text_signature = "($self, collection, query, k=10, *, backends=None, on_error='raise', where=None, recall=None, rerank_factor=None, timeout=None, cached_only=False)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    fn search_federated(
        &self,
        py: Python<'_>,
        collection: Given<'_, '_>,
        query: Given<'_, '_>,
        k: Option<Given<'_, '_>>,
        backends: Option<Given<'_, '_>>,
        on_error: Option<Given<'_, '_>>,
        r#where: Option<Given<'_, '_>>,
        recall: Option<Given<'_, '_>>,
        rerank_factor: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
        cached_only: Option<Given<'_, '_>>,
    ) -> PyResult<Py<PyAny>> {
        let inquiry = self.federated(
            collection,
            query,
            k,
            backends,
            on_error,
            r#where,
            recall,
            rerank_factor,
            timeout,
            cached_only,
        )?;
        self.answer(py, inquiry)
    }

    /// `search_federated`, to be awaited.
    #[pyo3(
        signature = (collection, query, k = None, *, backends = None, on_error = None, r#where = None, recall = None, rerank_factor = None, timeout = None, cached_only = None),
        text_signature = "($self, collection, query, k=10, *, backends=None, on_error='raise', where=None, recall=None, rerank_factor=None, timeout=None, cached_only=False)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    fn search_federated_async(
        &self,
        collection: Given<'_, '_>,
        query: Given<'_, '_>,
        k: Option<Given<'_, '_>>,
        backends: Option<Given<'_, '_>>,
        on_error: Option<Given<'_, '_>>,
        r#where: Option<Given<'_, '_>>,
        recall: Option<Given<'_, '_>>,
        rerank_factor: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
        cached_only: Option<Given<'_, '_>>,
    ) -> PyResult<Coroutine> {
        let inquiry = self.federated(
            collection,
            query,
            k,
            backends,
            on_error,
            r#where,
            recall,
            rerank_factor,
            timeout,
            cached_only,
        )?;
        Ok(coroutine(inquiry, wrap))
    }

    /// The best rows of a collection by a vector and a text together, best first.
    #[pyo3(
        signature = (collection, query, text, k = None, *, backend = None, fusion = None, weight = None, r#where = None, recall = None, rerank_factor = None, timeout = None, cached_only = None),
        text_signature = "($self, collection, query, text, k=10, *, backend=None, fusion='rrf', weight=0.5, where=None, recall=None, rerank_factor=None, timeout=None, cached_only=False)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    fn search_hybrid(
        &self,
        py: Python<'_>,
        collection: Given<'_, '_>,
        query: Given<'_, '_>,
        text: Given<'_, '_>,
        k: Option<Given<'_, '_>>,
        backend: Option<Given<'_, '_>>,
        fusion: Option<Given<'_, '_>>,
        weight: Option<Given<'_, '_>>,
        r#where: Option<Given<'_, '_>>,
        recall: Option<Given<'_, '_>>,
        rerank_factor: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
        cached_only: Option<Given<'_, '_>>,
    ) -> PyResult<Py<PyAny>> {
        let question = self.hybrid(
            collection,
            query,
            text,
            k,
            backend,
            fusion,
            weight,
            r#where,
            recall,
            rerank_factor,
            timeout,
            cached_only,
        )?;
        self.answer(py, question)
    }

    /// `search_hybrid`, to be awaited.
    #[pyo3(
        signature = (collection, query, text, k = None, *, backend = None, fusion = None, weight = None, r#where = None, recall = None, rerank_factor = None, timeout = None, cached_only = None),
        text_signature = "($self, collection, query, text, k=10, *, backend=None, fusion='rrf', weight=0.5, where=None, recall=None, rerank_factor=None, timeout=None, cached_only=False)"
    )]
    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    fn search_hybrid_async(
        &self,
        collection: Given<'_, '_>,
        query: Given<'_, '_>,
        text: Given<'_, '_>,
        k: Option<Given<'_, '_>>,
        backend: Option<Given<'_, '_>>,
        fusion: Option<Given<'_, '_>>,
        weight: Option<Given<'_, '_>>,
        r#where: Option<Given<'_, '_>>,
        recall: Option<Given<'_, '_>>,
        rerank_factor: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
        cached_only: Option<Given<'_, '_>>,
    ) -> PyResult<Coroutine> {
        let question = self.hybrid(
            collection,
            query,
            text,
            k,
            backend,
            fusion,
            weight,
            r#where,
            recall,
            rerank_factor,
            timeout,
            cached_only,
        )?;
        Ok(coroutine(question, wrap))
    }

    /// Publishes the index of a collection for others to take, and gives its witness.
    #[pyo3(signature = (collection, out_dir, *, backend = None, timeout = None, pii_policy = None, lineage_id = None, memory_class = None))]
    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    fn publish_bundle(
        &self,
        py: Python<'_>,
        collection: Given<'_, '_>,
        out_dir: Given<'_, '_>,
        backend: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
        pii_policy: Option<Given<'_, '_>>,
        lineage_id: Option<Given<'_, '_>>,
        memory_class: Option<Given<'_, '_>>,
    ) -> PyResult<Py<PyAny>> {
        let question =
            self.publication(collection, out_dir, backend, timeout, pii_policy, lineage_id, memory_class)?;
        self.answer(py, question)
    }

    /// `publish_bundle`, to be awaited.
    #[pyo3(signature = (collection, out_dir, *, backend = None, timeout = None, pii_policy = None, lineage_id = None, memory_class = None))]
    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    fn publish_bundle_async(
        &self,
        collection: Given<'_, '_>,
        out_dir: Given<'_, '_>,
        backend: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
        pii_policy: Option<Given<'_, '_>>,
        lineage_id: Option<Given<'_, '_>>,
        memory_class: Option<Given<'_, '_>>,
    ) -> PyResult<Coroutine> {
        let question =
            self.publication(collection, out_dir, backend, timeout, pii_policy, lineage_id, memory_class)?;
        Ok(coroutine(question, wrap))
    }

    /// Takes a published index for a collection, instead of building one, and gives its manifest.
    #[pyo3(signature = (collection, dir, *, backend = None, verify = true))]
    fn take_bundle(
        &self,
        py: Python<'_>,
        collection: Given<'_, '_>,
        dir: Given<'_, '_>,
        backend: Option<Given<'_, '_>>,
        verify: bool,
    ) -> PyResult<Py<PyAny>> {
        self.answer(py, self.taking(collection, dir, backend, verify)?)
    }

    /// `take_bundle`, to be awaited.
    #[pyo3(signature = (collection, dir, *, backend = None, verify = true))]
    fn take_bundle_async(
        &self,
        collection: Given<'_, '_>,
        dir: Given<'_, '_>,
        backend: Option<Given<'_, '_>>,
        verify: bool,
    ) -> PyResult<Coroutine> {
        Ok(coroutine(self.taking(collection, dir, backend, verify)?, wrap))
    }

    /// Compares the index in memory with a published one, and forgets it where they differ.
    #[pyo3(signature = (key, dir))]
    fn refresh_from_bundle_dir(
        &self,
        py: Python<'_>,
        key: Given<'_, '_>,
        dir: Given<'_, '_>,
    ) -> PyResult<Py<PyAny>> {
        self.answer(py, self.comparison(key, dir)?)
    }

    /// `refresh_from_bundle_dir`, to be awaited.
    #[pyo3(signature = (key, dir))]
    fn refresh_from_bundle_dir_async(&self, key: Given<'_, '_>, dir: Given<'_, '_>) -> PyResult<Coroutine> {
        Ok(coroutine(self.comparison(key, dir)?, wrap))
    }

    /// Writes all indexes in memory to a folder, for `load_cache`.
    fn save_cache(&self, py: Python<'_>, dir: Given<'_, '_>) -> PyResult<Py<PyAny>> {
        self.answer(py, self.keeping(dir, Keep::Save)?)
    }

    /// `save_cache`, to be awaited.
    fn save_cache_async(&self, dir: Given<'_, '_>) -> PyResult<Coroutine> {
        Ok(coroutine(self.keeping(dir, Keep::Save)?, wrap))
    }

    /// Has at hand what `save_cache` wrote.
    fn load_cache(&self, py: Python<'_>, dir: Given<'_, '_>) -> PyResult<Py<PyAny>> {
        self.answer(py, self.keeping(dir, Keep::Load)?)
    }

    /// `load_cache`, to be awaited.
    fn load_cache_async(&self, dir: Given<'_, '_>) -> PyResult<Coroutine> {
        Ok(coroutine(self.keeping(dir, Keep::Load)?, wrap))
    }

    /// Has the index of a collection at hand, fresh enough, so that searches need not wait.
    #[pyo3(signature = (collection, *, backend = None, timeout = None))]
    fn prime(
        &self,
        py: Python<'_>,
        collection: Given<'_, '_>,
        backend: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
    ) -> PyResult<Py<PyAny>> {
        self.answer(py, self.simple(collection, backend, timeout, Verb::Prime)?)
    }

    /// `prime`, to be awaited.
    #[pyo3(signature = (collection, *, backend = None, timeout = None))]
    fn prime_async(
        &self,
        collection: Given<'_, '_>,
        backend: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
    ) -> PyResult<Coroutine> {
        Ok(coroutine(self.simple(collection, backend, timeout, Verb::Prime)?, wrap))
    }

    /// Asks the backend now, whatever the consistency says, and brings the index up to date.
    #[pyo3(signature = (collection, *, backend = None, timeout = None))]
    fn refresh(
        &self,
        py: Python<'_>,
        collection: Given<'_, '_>,
        backend: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
    ) -> PyResult<Py<PyAny>> {
        self.answer(py, self.simple(collection, backend, timeout, Verb::Refresh)?)
    }

    /// `refresh`, to be awaited.
    #[pyo3(signature = (collection, *, backend = None, timeout = None))]
    fn refresh_async(
        &self,
        collection: Given<'_, '_>,
        backend: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
    ) -> PyResult<Coroutine> {
        Ok(coroutine(self.simple(collection, backend, timeout, Verb::Refresh)?, wrap))
    }

    /// Forgets the index of a collection, and says whether there was one. The next search builds it anew.
    #[pyo3(signature = (collection, *, backend = None))]
    fn invalidate(
        &self,
        py: Python<'_>,
        collection: Given<'_, '_>,
        backend: Option<Given<'_, '_>>,
    ) -> PyResult<Py<PyAny>> {
        self.answer(py, self.simple(collection, backend, None, Verb::Invalidate)?)
    }

    /// `invalidate`, to be awaited.
    #[pyo3(signature = (collection, *, backend = None))]
    fn invalidate_async(
        &self,
        collection: Given<'_, '_>,
        backend: Option<Given<'_, '_>>,
    ) -> PyResult<Coroutine> {
        Ok(coroutine(self.simple(collection, backend, None, Verb::Invalidate)?, wrap))
    }

    /// The index of a collection, made ready where it is not: one of the classes of `limnion.indexes`.
    ///
    /// It shares its memory with the lake until one of the two changes.
    #[pyo3(signature = (collection, *, backend = None, timeout = None))]
    fn index(
        &self,
        py: Python<'_>,
        collection: Given<'_, '_>,
        backend: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
    ) -> PyResult<Py<PyAny>> {
        self.answer(py, self.simple(collection, backend, timeout, Verb::Index)?)
    }

    /// `index`, to be awaited.
    #[pyo3(signature = (collection, *, backend = None, timeout = None))]
    fn index_async(
        &self,
        collection: Given<'_, '_>,
        backend: Option<Given<'_, '_>>,
        timeout: Option<Given<'_, '_>>,
    ) -> PyResult<Coroutine> {
        Ok(coroutine(self.simple(collection, backend, timeout, Verb::Index)?, wrap))
    }

    /// Keeps the index of a collection in memory whatever room others need, now or once it is built.
    #[pyo3(signature = (collection, *, backend = None))]
    fn pin(&self, py: Python<'_>, collection: Given<'_, '_>, backend: Option<Given<'_, '_>>) -> PyResult<()> {
        let target = self.target(py, collection, backend)?;
        self.home.pin(&target, true, false).or_raise(py)
    }

    /// Takes a pin back.
    #[pyo3(signature = (collection, *, backend = None))]
    fn unpin(
        &self,
        py: Python<'_>,
        collection: Given<'_, '_>,
        backend: Option<Given<'_, '_>>,
    ) -> PyResult<()> {
        let target = self.target(py, collection, backend)?;
        self.home.pin(&target, false, false).or_raise(py)
    }

    /// Sets how fresh the answers of one collection have to be; `None` for as fresh as those of the lake.
    #[pyo3(signature = (collection, consistency, *, ttl = None, backend = None))]
    fn set_consistency(
        &self,
        py: Python<'_>,
        collection: Given<'_, '_>,
        consistency: Given<'_, '_>,
        ttl: Option<Given<'_, '_>>,
        backend: Option<Given<'_, '_>>,
    ) -> PyResult<()> {
        let own = match (consistency.is_none(), ttl) {
            (true, None) => None,
            (true, Some(_)) => {
                let message = "ttl must go with Consistency.EVENTUAL alone, got it with None".to_owned();
                return Err(invalid_argument(py, message, None));
            }
            (false, ttl) => Some(args::consistency(consistency, ttl)?),
        };
        let target = self.target(py, collection, backend)?;
        self.home.set_consistency(&target, own).or_raise(py)
    }

    /// Whether an index is in memory: one that equals an index object, that of a (backend, collection), or that of a
    /// collection of this name in any backend.
    fn __contains__(&self, py: Python<'_>, what: Given<'_, '_>) -> PyResult<bool> {
        let lake = self.home.lake().or_raise(py)?;
        if let Ok(index) = what.cast::<Flat>() {
            return index.get().look(py, |index| lake.holds(index));
        }
        if what.is_instance_of::<VectorIndex>() {
            return Ok(false); // a lake makes flat ones only
        }
        if let Ok((backend, collection)) = what.extract::<(String, String)>() {
            return Ok(lake.is_cached(&Target::new(&backend, &collection)));
        }
        if let Ok(collection) = what.cast::<PyString>() {
            let collection = collection.to_str()?;
            let backends = self.home.each(|_| ());
            return Ok(backends
                .iter()
                .any(|(backend, ())| lake.is_cached(&Target::new(backend, collection))));
        }
        let message = format!(
            "`in lake` must be asked of an index, of a (backend, collection) or of a collection, got {}",
            what.get_type().name()?
        );
        Err(invalid_type(py, message, None))
    }

    /// (entries, bytes, evictions, fields of the collections)
    fn _stats<'py>(&self, py: Python<'py>) -> PyResult<(u64, u64, u64, Bound<'py, PyList>)> {
        let lake = self.home.lake().or_raise(py)?;
        let Stats { entries, bytes, evictions, collections, .. } = py.outside(|| lake.stats());
        let fields = collections.iter().map(|stats| collection_fields(py, stats));
        let fields = PyList::new(py, fields.collect::<PyResult<Vec<_>>>()?)?;
        Ok((entries, bytes, evictions, fields))
    }

    /// The consistency of the lake, and its ttl.
    fn _consistency<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Option<f64>)> {
        let consistency = self.home.settings().consistency;
        let ttl = match consistency {
            Consistency::Eventual(ttl) => Some(ttl.as_secs_f64()),
            _ => None,
        };
        Ok((member(py, consistency)?, ttl))
    }

    /// (backend, collection) of the collection that is meant.
    #[pyo3(signature = (collection, backend = None))]
    fn _find(
        &self,
        py: Python<'_>,
        collection: Given<'_, '_>,
        backend: Option<Given<'_, '_>>,
    ) -> PyResult<Py<PyAny>> {
        self.answer(py, self.simple(collection, backend, None, Verb::Find)?)
    }

    /// `_find`, to be awaited.
    #[pyo3(signature = (collection, backend = None))]
    fn _find_async(&self, collection: Given<'_, '_>, backend: Option<Given<'_, '_>>) -> PyResult<Coroutine> {
        Ok(coroutine(self.simple(collection, backend, None, Verb::Find)?, wrap))
    }

    /// All that are meant.
    #[pyo3(signature = (collection, backends = None))]
    fn _find_all(
        &self,
        py: Python<'_>,
        collection: Given<'_, '_>,
        backends: Option<Given<'_, '_>>,
    ) -> PyResult<Py<PyAny>> {
        self.answer(py, self.everyone(collection, backends)?)
    }

    /// `_find_all`, to be awaited.
    #[pyo3(signature = (collection, backends = None))]
    fn _find_all_async(
        &self,
        collection: Given<'_, '_>,
        backends: Option<Given<'_, '_>>,
    ) -> PyResult<Coroutine> {
        Ok(coroutine(self.everyone(collection, backends)?, wrap))
    }

    /// Pins for a session, or lets go for one. A backend that is gone takes its pins along.
    fn _hold(&self, py: Python<'_>, key: Given<'_, '_>, held: bool) -> PyResult<()> {
        let (backend, collection) = key.extract::<(String, String)>()?;
        match self.home.pin(&Target::new(&backend, &collection), held, true) {
            Err(error) if !held && error.kind() == ErrorKind::UnknownCollection => Ok(()),
            outcome => outcome.or_raise(py),
        }
    }
}
