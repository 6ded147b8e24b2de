//! The store: what `Database` and its sync twin stand on. Parse, detach, call, wrap.
//!
//! A point read is answered in the calling thread: from the hot tier without leaving the interpreter, else detached. What
//! takes longer, and every write, is a [`Request`], to be awaited or waited for.

use std::ops::Bound as End;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use limnion_lake::{Claims, Nearest};
use limnion_store::query::{Aggregate, Function, Sort};
use limnion_store::store::{CheckReport, Event};
use limnion_store::{
    AsOf, At, Batch, Durability, KeyRange, Kind, Op, Options, Receipt, Retention, Store as Inner,
};
use limnion_types::{Filter, Job, Result};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::args;
use crate::bell::Bell;
use crate::door::Door as _;
use crate::errors::{OrRaise, invalid_type};
use crate::files;
use crate::gate::forks;
use crate::json;
use crate::lake::home::OurPool;
use crate::living::Living;
use crate::moment::{self, Naive, datetime, invalid};
use crate::outbox::{Outbox, Wrap};
use crate::queue::Queue;
use crate::record::{self, Record};
use crate::request::{Done, Request, forked, settle};
use crate::similar::{self, Embedding, Told};
use crate::writes::{self, Extras, Write};

/// A store that is open, as the parts of this crate share it.
#[derive(Clone)]
pub(crate) struct Handle(Arc<Shared>);

struct Shared {
    /// `None` only while it is being dropped.
    living: Option<Living>,
    /// The process that opened it.
    forks: u32,
    queue: Arc<Queue>,
    bell: Arc<Bell>,
    /// Of the loop that asked last.
    outbox: Mutex<Option<Py<Outbox>>>,
    /// The vector search, once somebody has searched.
    nearest: OnceLock<Arc<Nearest>>,
    claims: Arc<Claims>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.forks != forks() {
            std::mem::forget(self.nearest.take());
        }
        if let Some(living) = self.living.take() {
            if self.forks == forks() { living.end() } else { living.leak() }
        }
    }
}

impl Handle {
    fn new(store: Inner) -> Self {
        Self(Arc::new(Shared {
            living: Some(Living::new(store)),
            forks: forks(),
            queue: Arc::default(),
            bell: Arc::default(),
            outbox: Mutex::new(None),
            nearest: OnceLock::new(),
            claims: Arc::default(),
        }))
    }

    /// The store, unless this is a child of the process that opened it. Takes no lock.
    #[inline]
    pub(crate) fn store(&self) -> Result<&Inner> {
        match &self.0.living {
            Some(living) if self.0.forks == forks() => Ok(living.store()),
            _ => Err(forked()),
        }
    }

    /// [`Handle::store`], or the exception.
    #[inline]
    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<&Inner> {
        self.store().or_raise(py)
    }

    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.0.queue
    }

    /// The vector search in the store.
    pub(crate) fn nearest(&self) -> Result<Arc<Nearest>> {
        let store = self.store()?;
        if let Some(nearest) = self.0.nearest.get() {
            return Ok(nearest.clone());
        }
        let fresh = Arc::new(Nearest::new(store.clone(), Arc::new(OurPool), files::map_own)?);
        Ok(self.0.nearest.get_or_init(|| fresh).clone())
    }

    /// Which model each namespace is embedded with.
    pub(crate) fn claims(&self) -> &Arc<Claims> {
        &self.0.claims
    }

    fn close(&self, job: &Job) -> Result<()> {
        let store = self.store()?;
        if let Some(nearest) = self.0.nearest.get() {
            // What is not saved is built again.
            let _ = nearest.save(job);
        }
        store.close()
    }

    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.0.bell
    }

    /// The outbox of a loop.
    pub(crate) fn outbox(&self, event_loop: &Bound<'_, PyAny>) -> PyResult<Py<Outbox>> {
        let py = event_loop.py();
        let mut known = self.0.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outbox) = known.as_ref().filter(|outbox| outbox.get().is_for(event_loop)) {
            return Ok(outbox.clone_ref(py));
        }
        let fresh = Py::new(py, Outbox::new(event_loop.clone().unbind()))?;
        let old = known.replace(fresh.clone_ref(py));
        drop(known);
        drop(old); // outside the lock: it may run Python
        Ok(fresh)
    }

    fn forget_loop(&self) {
        let old = self.0.outbox.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(old);
    }
}

/// A point in history that retention leaves alone.
#[pyclass(frozen, module = "limnion._native")]
pub(crate) struct Hold {
    /// `None` only while it is being dropped.
    held: Option<limnion_store::store::Hold>,
    forks: u32,
}

impl Drop for Hold {
    fn drop(&mut self) {
        // In a child it belongs to the parent, and so may the lock that it takes to end.
        if self.forks != forks() {
            std::mem::forget(self.held.take());
        }
    }
}

/// The store below a database.
#[pyclass(frozen, module = "limnion._native")]
pub(crate) struct Store {
    handle: Handle,
}

type Given<'a, 'py> = &'a Bound<'py, PyAny>;

/// A point in history that has been said, or now.
fn as_of(given: Option<Given<'_, '_>>, naive: Naive) -> PyResult<Option<AsOf>> {
    given.map(|given| moment::as_of("as_of", given, naive)).transpose()
}

fn at(store: &Inner, as_of: Option<&AsOf>) -> Result<At> {
    as_of.map_or(Ok(At::Latest), |as_of| store.resolve(as_of))
}

fn none(py: Python<'_>) -> Py<PyAny> {
    py.None()
}

pub(crate) fn any<T: for<'py> IntoPyObject<'py>>(py: Python<'_>, value: T) -> PyResult<Py<PyAny>> {
    value.into_py_any(py)
}

fn version(py: Python<'_>, receipt: Receipt) -> PyResult<Py<PyAny>> {
    any(py, receipt.version)
}

fn written(py: Python<'_>, receipt: Receipt) -> PyResult<Py<PyAny>> {
    any(py, receipt.written)
}

fn both(py: Python<'_>, receipt: Receipt) -> PyResult<Py<PyAny>> {
    any(py, (receipt.version, receipt.written))
}

/// A filter: a dict, a string, or nothing.
pub(crate) fn filter(given: Option<Given<'_, '_>>) -> PyResult<Filter> {
    let Some(given) = given else { return Ok(Filter::All) };
    let py = given.py();
    if let Ok(text) = given.cast::<PyString>() {
        return Filter::from_text(text.to_str()?).or_raise(py);
    }
    if !given.is_instance_of::<PyDict>() {
        let message =
            format!("filter must be a dict, a string or made with F, got {}", given.get_type().name()?);
        let hint = "write filter={\"year\": {\"$gte\": 2020}} or filter=F(\"year\") >= 2020";
        return Err(invalid_type(py, message, Some(hint.to_owned())));
    }
    let text = json::encode(given)?;
    let tree: serde_json::Value = serde_json::from_slice(&text.bytes)
        .map_err(|error| invalid(py, format!("filter cannot be read: {error}"), "make it simpler"))?;
    Filter::from_dict(&tree).or_raise(py)
}

fn count(name: &str, given: Option<Given<'_, '_>>) -> PyResult<usize> {
    given.map_or(Ok(usize::MAX), |given| args::count(name, given))
}

fn range(prefix: Option<&str>, start: Option<String>, end: Option<String>) -> KeyRange {
    match prefix {
        Some(prefix) => KeyRange::prefix(prefix),
        None => KeyRange {
            start: start.map_or(End::Unbounded, End::Included),
            end: end.map_or(End::Unbounded, End::Excluded),
        },
    }
}

fn report(py: Python<'_>, report: CheckReport) -> PyResult<Py<PyAny>> {
    any(py, (report.problems, report.records, report.versions, report.commits))
}

fn tag<'py>(py: Python<'py>, tag: &limnion_store::engine::Tag) -> PyResult<Bound<'py, PyTuple>> {
    (&tag.name, tag.seq, datetime(py, tag.time)?).into_pyobject(py)
}

fn tuples<'py>(
    py: Python<'py>,
    rows: impl Iterator<Item = PyResult<Bound<'py, PyTuple>>>,
) -> PyResult<Py<PyAny>> {
    Ok(PyList::new(py, rows.collect::<PyResult<Vec<_>>>()?)?.into_any().unbind())
}

fn change<'py>(py: Python<'py>, change: Event, handle: &Handle) -> PyResult<Bound<'py, PyTuple>> {
    let kind = change.record.as_ref().map(|record| match record.kind {
        Kind::Put => "put",
        Kind::Deleted => "delete",
        Kind::Expired => "expire",
    });
    let record =
        change.record.map(|stored| Bound::new(py, Record::new(Arc::new(stored), handle))).transpose()?;
    (&*change.namespace, &*change.key, change.version, datetime(py, change.time)?, kind, record)
        .into_pyobject(py)
}

fn encryption_key(given: Option<Given<'_, '_>>) -> PyResult<Option<[u8; 32]>> {
    given.map(|given| Ok(given.cast::<PyBytes>()?.as_bytes().try_into()?)).transpose()
}

impl Store {
    /// The store, for those who keep it open themselves.
    pub(crate) fn open_store(&self, py: Python<'_>) -> PyResult<Inner> {
        self.handle.get(py).cloned()
    }

    fn work<R: Send + 'static>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&Inner, &Arc<Job>) -> Result<R> + Send + 'static,
        wrap: impl FnOnce(Python<'_>, R) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> PyResult<Request> {
        self.handle.get(py)?;
        Ok(Request::work(&self.handle, work, wrap))
    }

    fn write(
        &self,
        py: Python<'_>,
        batch: Batch,
        wrap: fn(Python<'_>, Receipt) -> PyResult<Py<PyAny>>,
    ) -> PyResult<Request> {
        self.handle.get(py)?;
        Ok(Request::write(&self.handle, batch, wrap))
    }

    /// Calls `read` on this thread, detached.
    #[inline]
    fn read<R: Send>(&self, py: Python<'_>, read: impl FnOnce(&Inner) -> Result<R> + Send) -> PyResult<R> {
        let store = self.handle.get(py)?;
        py.outside(|| read(store)).or_raise(py)
    }
}

#[pymethods]
impl Store {
    /// Opens a store.
    #[staticmethod]
    fn open(py: Python<'_>, options: &Bound<'_, PyDict>) -> PyResult<Request> {
        let get = |name: &str| -> PyResult<Bound<'_, PyAny>> {
            options.get_item(name)?.ok_or_else(|| pyo3::exceptions::PyKeyError::new_err(name.to_owned()))
        };
        let some = |name: &str| get(name).map(|given| (!given.is_none()).then_some(given));
        let retention = some("retention")?.map(|given| {
            let (keep_last, keep_for, keep_tagged) =
                given.extract::<(Option<u32>, Option<Bound<'_, PyAny>>, bool)>()?;
            let keep_for = keep_for.map(|given| moment::stretch("keep_for", &given)).transpose()?;
            PyResult::Ok(Retention { keep_last, keep_for: keep_for.map(Duration::from_micros), keep_tagged })
        });
        let options = Options {
            path: get("path")?.extract::<Option<PathBuf>>()?,
            max_memory: get("max_memory")?.extract()?,
            wal: get("wal")?.extract()?,
            durability: match get("durability")?.extract::<String>()?.as_str() {
                "batched" => Durability::Batched,
                "none" => Durability::None,
                _ => Durability::Commit,
            },
            retention: retention.transpose()?,
            key: encryption_key(some("encryption_key")?.as_ref())?,
            read_only: get("read_only")?.extract()?,
            accept_loss: get("accept_loss")?.extract()?,
        };
        crate::pool::prepare().or_raise(py)?;
        Ok(Request::free(
            move |_| Inner::open(options),
            |py, store| Ok(Bound::new(py, Self { handle: Handle::new(store) })?.into_any().unbind()),
        ))
    }

    /// Ends all work.
    fn close(&self, py: Python<'_>) -> PyResult<Request> {
        let handle = self.handle.clone();
        handle.get(py)?;
        handle.forget_loop();
        Ok(Request::free(move |job| handle.close(job), |py, ()| Ok(none(py))))
    }

    /// The folder.
    #[getter]
    fn path(&self, py: Python<'_>) -> PyResult<Option<PathBuf>> {
        Ok(self.handle.get(py)?.path().map(PathBuf::from))
    }

    /// The value of a record that is in memory, and `missing` for all others: also while there are queued writes.
    #[inline]
    fn hot<'py>(
        &self,
        py: Python<'py>,
        namespace: Given<'_, 'py>,
        key: Given<'_, 'py>,
        missing: Given<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let store = self.handle.get(py)?;
        if !self.handle.queue().busy()
            && let (Ok(namespace), Ok(key)) = (namespace.cast::<PyString>(), key.cast::<PyString>())
            && let (Ok(namespace), Ok(key)) = (namespace.to_str(), key.to_str())
            && let Some(found) = store.get_hot(namespace, key)
        {
            return json::decode(py, &found.payload);
        }
        Ok(missing.clone())
    }

    /// The value of a record, or `missing`.
    #[pyo3(signature = (namespace, key, missing, as_of = None, naive = false))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        namespace: Given<'_, 'py>,
        key: Given<'_, 'py>,
        missing: Given<'_, 'py>,
        as_of: Option<Given<'_, 'py>>,
        naive: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let found = self.find(py, namespace, key, as_of, if naive { Naive::Utc } else { Naive::Refused })?;
        found.map_or_else(|| Ok(missing.clone()), |found| json::decode(py, &found.payload))
    }

    /// A record, or `None`.
    #[pyo3(signature = (namespace, key, as_of = None))]
    fn record(
        &self,
        py: Python<'_>,
        namespace: Given<'_, '_>,
        key: Given<'_, '_>,
        as_of: Option<Given<'_, '_>>,
    ) -> PyResult<Option<Record>> {
        let found = self.find(py, namespace, key, as_of, Naive::Refused)?;
        Ok(found.map(|found| Record::new(found, &self.handle)))
    }

    /// The versions of a record, oldest first.
    #[pyo3(signature = (namespace, key, limit = None, since = None, until = None))]
    fn history(
        &self,
        py: Python<'_>,
        namespace: Given<'_, '_>,
        key: Given<'_, '_>,
        limit: Option<Given<'_, '_>>,
        since: Option<Given<'_, '_>>,
        until: Option<Given<'_, '_>>,
    ) -> PyResult<Py<PyAny>> {
        let (namespace, key) = (writes::namespace(namespace)?, writes::key(key)?);
        let limit = count("limit", limit)?;
        let since = since.map(|given| moment::as_of("since", given, Naive::Refused)).transpose()?;
        let until = until.map(|given| moment::as_of("until", given, Naive::Refused)).transpose()?;
        let found = self.read(py, |store| {
            let since = since.as_ref().map(|since| store.resolve(since)).transpose()?;
            store.history(namespace, key, since, at(store, until.as_ref())?, limit)
        })?;
        record::list(py, found.into_iter().map(Arc::new), &self.handle)
    }

    /// A point in history as a version, or, where it lies before or after all of them, as a datetime.
    #[pyo3(signature = (as_of = None))]
    fn resolve(&self, py: Python<'_>, as_of: Option<Given<'_, '_>>) -> PyResult<Py<PyAny>> {
        let as_of = self::as_of(as_of, Naive::Refused)?;
        let (found, head) = self.read(py, |store| Ok((at(store, as_of.as_ref())?, store.head()?)))?;
        match found {
            At::Seq(seq) => any(py, seq),
            At::Time(time) if time < head.1 => Ok(datetime(py, time)?.unbind()),
            At::Time(_) | At::Latest => any(py, head.0),
        }
    }

    /// The newest commit that a point in history includes.
    #[pyo3(signature = (as_of = None))]
    fn version_at(&self, py: Python<'_>, as_of: Option<Given<'_, '_>>) -> PyResult<u64> {
        let as_of = self::as_of(as_of, Naive::Refused)?;
        self.read(py, |store| store.commit_at(at(store, as_of.as_ref())?))
    }

    /// Keeps a point in history from retention, as long as what this gives lives.
    fn hold(&self, py: Python<'_>, as_of: Given<'_, '_>) -> PyResult<Hold> {
        let as_of = self::as_of(Some(as_of), Naive::Refused)?;
        let held = self.read(py, |store| store.hold(at(store, as_of.as_ref())?))?;
        Ok(Hold { held: Some(held), forks: forks() })
    }

    /// The newest commit: number and time.
    fn head<'py>(&self, py: Python<'py>) -> PyResult<(u64, Bound<'py, PyAny>)> {
        let (seq, time) = self.read(py, Inner::head)?;
        Ok((seq, datetime(py, time)?))
    }

    /// The error for a record that is not there; it names keys that are spelled alike.
    fn not_found<'py>(
        &self,
        py: Python<'py>,
        namespace: Given<'_, 'py>,
        key: Given<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let (name, word) = (writes::namespace(namespace)?, writes::key(key)?);
        let similar = self.read(py, |store| Ok(store.similar_keys(name, word)))?;
        let suggestion = match similar.first() {
            Some(nearest) => {
                let all = similar.iter().map(|key| format!("'{key}'")).collect::<Vec<_>>().join(", ");
                format!("did you mean '{nearest}'? Similar keys: [{all}]")
            }
            None => "pass default= to get a value instead of this error".to_owned(),
        };
        let named = PyDict::new(py);
        named.set_item("namespace", namespace)?;
        named.set_item("key", key)?;
        let message = format!("there is no key '{word}' in the namespace '{name}'");
        CLASS.import(py, "limnion.errors", "KeyNotFoundError")?.call((message, suggestion), Some(&named))
    }

    /// Whether there are queued writes, or one of them failed.
    #[getter]
    #[inline]
    fn busy(&self) -> bool {
        self.handle.queue().busy()
    }

    /// Waits for queued writes, and raises what went wrong with one.
    fn settle(&self, py: Python<'_>) -> PyResult<Request> {
        self.handle.get(py)?;
        let queue = self.handle.queue().clone();
        let begin = move |done: Done| {
            queue.settled(move |settled| {
                done(settled.map(|()| Box::new(|py: Python<'_>| Ok(none(py))) as Wrap));
            });
        };
        Ok(Request::callback(begin, || ()))
    }

    /// [`Store::settle`], in the calling thread.
    fn settle_here(&self, py: Python<'_>) -> PyResult<()> {
        self.handle.get(py)?;
        settle(py, &self.handle)
    }

    /// Hands a write to the writer; whoever calls next hears what became of it.
    fn queue(&self, py: Python<'_>, write: &Write) -> PyResult<()> {
        let store = self.handle.get(py)?;
        let queue = self.handle.queue().clone();
        queue.begin();
        let batch = Batch { ops: vec![write.0.clone()], conditions: Vec::new() };
        py.outside(|| store.submit(batch, move |receipt| queue.end(receipt)));
        Ok(())
    }

    /// Writes a value; gives its version.
    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    #[pyo3(signature = (namespace, key, value, ttl = None, metadata = None, text = None, vector = None, vectors = None, expect = None))]
    fn put(
        &self,
        py: Python<'_>,
        namespace: Given<'_, '_>,
        key: Given<'_, '_>,
        value: Given<'_, '_>,
        ttl: Option<Given<'_, '_>>,
        metadata: Option<Given<'_, '_>>,
        text: Option<Given<'_, '_>>,
        vector: Option<Given<'_, '_>>,
        vectors: Option<Given<'_, '_>>,
        expect: Option<Given<'_, '_>>,
    ) -> PyResult<Request> {
        let (namespace, key) = (writes::namespace(namespace)?.into(), writes::key(key)?.into());
        let expect = expect.map(writes::expect).transpose()?;
        let body = writes::body(value, &Extras { ttl, metadata, text, vector, vectors })?;
        self.write(py, writes::one(Op::Put { namespace, key, body }, expect), version)
    }

    /// Deletes a record; gives how many that were.
    #[pyo3(signature = (namespace, key, expect = None))]
    fn delete(
        &self,
        py: Python<'_>,
        namespace: Given<'_, '_>,
        key: Given<'_, '_>,
        expect: Option<Given<'_, '_>>,
    ) -> PyResult<Request> {
        let (namespace, key) = (writes::namespace(namespace)?.into(), writes::key(key)?.into());
        let expect = expect.map(writes::expect).transpose()?;
        self.write(py, writes::one(Op::Delete { namespace, key }, expect), written)
    }

    /// Writes rows; gives the version.
    #[pyo3(signature = (rows, namespace = None))]
    fn put_batch(
        &self,
        py: Python<'_>,
        rows: Given<'_, '_>,
        namespace: Option<Given<'_, '_>>,
    ) -> PyResult<Request> {
        let ops = writes::rows(rows, namespace)?;
        self.write(py, Batch { ops, conditions: Vec::new() }, version)
    }

    /// Writes what was held back, where the conditions hold; gives version and number of records.
    fn commit(
        &self,
        py: Python<'_>,
        writes: Vec<PyRef<'_, Write>>,
        conditions: Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>)>,
    ) -> PyResult<Request> {
        self.write(py, writes::batch(writes, conditions)?, both)
    }

    /// Records or keys in order.
    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    #[pyo3(signature = (namespace, payloads, prefix = None, start = None, end = None, limit = None, reverse = false, as_of = None))]
    fn scan(
        &self,
        py: Python<'_>,
        namespace: Given<'_, '_>,
        payloads: bool,
        prefix: Option<&str>,
        start: Option<String>,
        end: Option<String>,
        limit: Option<Given<'_, '_>>,
        reverse: bool,
        as_of: Option<Given<'_, '_>>,
    ) -> PyResult<Request> {
        let namespace = writes::namespace(namespace)?.to_owned();
        let (range, limit) = (range(prefix, start, end), count("limit", limit)?);
        let (as_of, handle) = (self::as_of(as_of, Naive::Refused)?, self.handle.clone());
        self.work(
            py,
            move |store, _| {
                store.scan(&namespace, &range, at(store, as_of.as_ref())?, limit, reverse, payloads)
            },
            move |py, found| {
                if payloads {
                    return record::list(py, found.into_iter().map(Arc::new), &handle);
                }
                any(py, found.iter().map(|record| &*record.key).collect::<Vec<_>>())
            },
        )
    }

    /// The namespaces that hold a record.
    fn namespaces(&self, py: Python<'_>) -> PyResult<Request> {
        self.work(py, |store, _| store.namespaces(), any)
    }

    /// Names a point in history: (name, version, time).
    #[pyo3(signature = (name, as_of = None, replace = false))]
    fn set_tag(
        &self,
        py: Python<'_>,
        name: String,
        as_of: Option<Given<'_, '_>>,
        replace: bool,
    ) -> PyResult<Request> {
        let as_of = self::as_of(as_of, Naive::Refused)?;
        self.work(
            py,
            move |store, _| store.set_tag(&name, at(store, as_of.as_ref())?, replace),
            |py, made| Ok(tag(py, &made)?.into_any().unbind()),
        )
    }

    /// Removes a tag; whether it was there.
    fn remove_tag(&self, py: Python<'_>, name: String) -> PyResult<Request> {
        self.work(py, move |store, _| store.remove_tag(&name), any)
    }

    /// All tags: (name, version, time).
    fn tags(&self, py: Python<'_>) -> PyResult<Request> {
        self.work(py, |store, _| store.tags(), |py, tags| tuples(py, tags.iter().map(|each| tag(py, each))))
    }

    /// Makes records what they were; gives version and number of records.
    #[pyo3(signature = (as_of, namespace = None, key = None))]
    fn restore(
        &self,
        py: Python<'_>,
        as_of: Given<'_, '_>,
        namespace: Option<Given<'_, '_>>,
        key: Option<Given<'_, '_>>,
    ) -> PyResult<Request> {
        let as_of = moment::as_of("as_of", as_of, Naive::Refused)?;
        let namespace = namespace.map(|given| writes::namespace(given).map(str::to_owned)).transpose()?;
        let key = key.map(|given| writes::key(given).map(str::to_owned)).transpose()?;
        self.work(
            py,
            move |store, job| {
                store.restore(namespace.as_deref(), key.as_deref(), store.resolve(&as_of)?, job)
            },
            both,
        )
    }

    /// The changes after a commit, and the commit to go on after.
    #[pyo3(signature = (namespace, after, limit))]
    fn changes(
        &self,
        py: Python<'_>,
        namespace: Option<Given<'_, '_>>,
        after: u64,
        limit: usize,
    ) -> PyResult<Request> {
        let namespace = namespace.map(|given| writes::namespace(given).map(str::to_owned)).transpose()?;
        let handle = self.handle.clone();
        self.work(
            py,
            move |store, _| store.changes(namespace.as_deref(), after, limit),
            move |py, (changes, next)| {
                let rows = tuples(py, changes.into_iter().map(|each| change(py, each, &handle)))?;
                any(py, (rows, next))
            },
        )
    }

    /// Waits until there may be a commit after `after`, or until the store closes.
    fn when_after(&self, py: Python<'_>, after: u64) -> PyResult<Request> {
        self.handle.get(py)?;
        let (handle, number) = (self.handle.clone(), self.handle.bell().number());
        let bell = handle.bell().clone();
        Ok(Request::callback(
            move |done| match handle.store() {
                Ok(store) => {
                    handle.bell().wait(store, after, number, move || done(Ok(Box::new(|py| Ok(none(py))))));
                }
                Err(error) => done(Err(error)),
            },
            move || bell.give_up(number),
        ))
    }

    /// [`Store::when_after`] in the calling thread, for so many seconds at most; whether it has come.
    #[pyo3(signature = (after, timeout = None))]
    fn wait_after(&self, py: Python<'_>, after: u64, timeout: Option<f64>) -> PyResult<bool> {
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        let number = self.handle.bell().number();
        self.handle.bell().wait(self.handle.get(py)?, after, number, move || {
            let _ = send.send(());
        });
        let heard = self.listen(py, &Mutex::new(receive), timeout);
        self.handle.bell().give_up(number);
        heard
    }

    /// The records that match, and how many there are in all.
    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    #[pyo3(signature = (namespace, filter, sort, offset, limit = None, as_of = None))]
    fn query(
        &self,
        py: Python<'_>,
        namespace: Given<'_, '_>,
        filter: Option<Given<'_, '_>>,
        sort: Vec<(String, bool)>,
        offset: Given<'_, '_>,
        limit: Option<Given<'_, '_>>,
        as_of: Option<Given<'_, '_>>,
    ) -> PyResult<Request> {
        let namespace = writes::namespace(namespace)?.to_owned();
        let filter = self::filter(filter)?;
        let sort: Vec<_> = sort.into_iter().map(|(field, descending)| Sort { field, descending }).collect();
        let (offset, limit) = (args::count("offset", offset)?, count("limit", limit)?);
        let (as_of, handle) = (self::as_of(as_of, Naive::Refused)?, self.handle.clone());
        self.work(
            py,
            move |store, job| {
                store.query(&namespace, &filter, &sort, offset, limit, at(store, as_of.as_ref())?, job)
            },
            move |py, found| {
                let records = record::list(py, found.records.into_iter().map(Arc::new), &handle)?;
                any(py, (records, found.total))
            },
        )
    }

    /// Aggregates: (group, count, values).
    #[pyo3(signature = (namespace, filter, group_by, aggregates, as_of = None))]
    fn aggregate(
        &self,
        py: Python<'_>,
        namespace: Given<'_, '_>,
        filter: Option<Given<'_, '_>>,
        group_by: Option<String>,
        aggregates: Vec<(String, String)>,
        as_of: Option<Given<'_, '_>>,
    ) -> PyResult<Request> {
        let namespace = writes::namespace(namespace)?.to_owned();
        let filter = self::filter(filter)?;
        let as_of = self::as_of(as_of, Naive::Refused)?;
        let function = |(name, field): (String, String)| {
            let function = match name.as_str() {
                "sum" => Function::Sum,
                "avg" => Function::Avg,
                "min" => Function::Min,
                _ => Function::Max,
            };
            Aggregate { function, field }
        };
        let aggregates: Vec<_> = aggregates.into_iter().map(function).collect();
        self.work(
            py,
            move |store, job| {
                let at = at(store, as_of.as_ref())?;
                store.aggregate(&namespace, &filter, group_by.as_deref(), &aggregates, at, job)
            },
            |py, groups| {
                tuples(
                    py,
                    groups.iter().map(|group| {
                        let values = group.values.iter().map(|value| json::from_json(py, value));
                        let values = values.collect::<PyResult<Vec<_>>>()?;
                        (json::from_json(py, &group.key)?, group.count, values).into_pyobject(py)
                    }),
                )
            },
        )
    }

    /// The records whose text matches best: (record, score).
    #[pyo3(signature = (namespace, query, limit, filter = None, as_of = None))]
    fn text_search(
        &self,
        py: Python<'_>,
        namespace: Given<'_, '_>,
        query: String,
        limit: Given<'_, '_>,
        filter: Option<Given<'_, '_>>,
        as_of: Option<Given<'_, '_>>,
    ) -> PyResult<Request> {
        let namespace = writes::namespace(namespace)?.to_owned();
        let limit = args::count("limit", limit)?;
        let filter = filter.map(|given| self::filter(Some(given))).transpose()?;
        let (as_of, handle) = (self::as_of(as_of, Naive::Refused)?, self.handle.clone());
        self.work(
            py,
            move |store, job| {
                let at = at(store, as_of.as_ref())?;
                store.text_search(&namespace, &query, limit, filter.as_ref(), at, job)
            },
            move |py, hits| {
                tuples(
                    py,
                    hits.into_iter().map(|hit| {
                        (Bound::new(py, Record::new(Arc::new(hit.record), &handle))?, hit.score)
                            .into_pyobject(py)
                    }),
                )
            },
        )
    }

    /// Writes a value with its vector, unless the namespace has vectors of another model; gives its version.
    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    #[pyo3(signature = (namespace, key, value, vector, model = None, ttl = None, metadata = None, text = None, expect = None))]
    fn embed(
        &self,
        py: Python<'_>,
        namespace: Given<'_, '_>,
        key: Given<'_, '_>,
        value: Given<'_, '_>,
        vector: Given<'_, '_>,
        model: Option<Given<'_, '_>>,
        ttl: Option<Given<'_, '_>>,
        metadata: Option<Given<'_, '_>>,
        text: Option<Given<'_, '_>>,
        expect: Option<Given<'_, '_>>,
    ) -> PyResult<Request> {
        self.handle.get(py)?;
        let extras = Extras { ttl, metadata, text, vector: None, vectors: None };
        let embedding = Embedding::one(namespace, key, value, vector, &extras, model, expect)?;
        let handle = self.handle.clone();
        Ok(Request::prompt(&self.handle, move |asker, done| similar::embed(handle, embedding, asker, done)))
    }

    /// `embed` of many, the vectors in a matrix, in one commit; gives its version.
    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    #[pyo3(signature = (namespace, keys, values, vectors, model = None, ttl = None, metadata = None, texts = None))]
    fn embed_batch(
        &self,
        py: Python<'_>,
        namespace: Given<'_, '_>,
        keys: Given<'_, '_>,
        values: Given<'_, '_>,
        vectors: Given<'_, '_>,
        model: Option<Given<'_, '_>>,
        ttl: Option<Given<'_, '_>>,
        metadata: Option<Given<'_, '_>>,
        texts: Option<Given<'_, '_>>,
    ) -> PyResult<Request> {
        self.handle.get(py)?;
        let embedding = Embedding::rows(namespace, keys, values, vectors, model, metadata, texts, ttl)?;
        let handle = self.handle.clone();
        Ok(Request::prompt(&self.handle, move |asker, done| similar::embed(handle, embedding, asker, done)))
    }

    /// The records whose vectors are nearest: (record, score, distance).
    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    #[pyo3(signature = (namespace, query, top_k, threshold = None, filter = None, as_of = None, vector_name = None, recall = None))]
    fn similar(
        &self,
        py: Python<'_>,
        namespace: Given<'_, '_>,
        query: Given<'_, '_>,
        top_k: Given<'_, '_>,
        threshold: Option<Given<'_, '_>>,
        filter: Option<Given<'_, '_>>,
        as_of: Option<Given<'_, '_>>,
        vector_name: Option<Given<'_, '_>>,
        recall: Option<Given<'_, '_>>,
    ) -> PyResult<Request> {
        self.handle.get(py)?;
        let told = Told { namespace, query, top_k, threshold, filter, as_of, vector_name, recall };
        let (sought, handle) = (told.take()?, self.handle.clone());
        Ok(Request::prompt(&self.handle, move |asker, done| similar::search(handle, sought, asker, done)))
    }

    /// Declares an index over a field.
    fn create_index(&self, py: Python<'_>, namespace: Given<'_, '_>, field: String) -> PyResult<Request> {
        let namespace = writes::namespace(namespace)?.to_owned();
        self.work(
            py,
            move |store, job| store.create_index(&namespace, &field, job),
            |py, index| any(py, (index.namespace, index.field)),
        )
    }

    /// Forgets an index; whether it was there.
    fn drop_index(&self, py: Python<'_>, namespace: Given<'_, '_>, field: String) -> PyResult<Request> {
        let namespace = writes::namespace(namespace)?.to_owned();
        self.work(py, move |store, _| store.drop_index(&namespace, &field), any)
    }

    /// The declared indexes: (namespace, field).
    fn indexes(&self, py: Python<'_>) -> PyResult<Request> {
        self.work(
            py,
            |store, _| store.indexes(),
            |py, all| {
                any(py, all.into_iter().map(|index| (index.namespace, index.field)).collect::<Vec<_>>())
            },
        )
    }

    /// Sizes and counts, by name.
    fn stats(&self, py: Python<'_>) -> PyResult<Request> {
        self.work(
            py,
            |store, _| store.stats(),
            |py, stats| {
                let told = PyDict::new(py);
                let namespaces = stats.namespaces.iter().map(|each| {
                    (&each.name, each.keys, each.versions, each.bytes, each.history_bytes).into_pyobject(py)
                });
                told.set_item("namespaces", tuples(py, namespaces)?)?;
                told.set_item("time", datetime(py, stats.time)?)?;
                for (name, number) in [
                    ("head", stats.head),
                    ("hot_records", stats.hot_records),
                    ("hot_bytes", stats.hot_bytes),
                    ("hits", stats.hits),
                    ("misses", stats.misses),
                    ("warm_records", stats.warm_records),
                    ("cold_versions", stats.cold_versions),
                    ("disk_bytes", stats.disk_bytes),
                    ("free_bytes", stats.free_bytes),
                    ("memory_bytes", stats.memory_bytes),
                ] {
                    told.set_item(name, number)?;
                }
                Ok(told.into_any().unbind())
            },
        )
    }

    /// What is wrong although the store goes on working.
    fn issues(&self, py: Python<'_>) -> PyResult<Request> {
        self.work(py, |store, _| Ok(store.issues()), any)
    }

    /// Reads and verifies everything: (problems, records, versions, commits).
    fn check(&self, py: Python<'_>) -> PyResult<Request> {
        self.work(py, |store, job| store.check(job), report)
    }

    /// Writes a copy into a folder.
    fn backup(&self, py: Python<'_>, path: PathBuf) -> PyResult<Request> {
        self.work(py, move |store, job| store.backup(&path, job), |py, ()| Ok(none(py)))
    }

    /// Gives space back: (dropped, compressed, freed bytes).
    fn vacuum(&self, py: Python<'_>) -> PyResult<Request> {
        self.work(
            py,
            |store, job| store.vacuum(job),
            |py, done| any(py, (done.dropped, done.compressed, done.freed_bytes)),
        )
    }

    /// Writes JSON lines; gives their number.
    #[pyo3(signature = (path, namespace = None, history = false))]
    fn export(
        &self,
        py: Python<'_>,
        path: PathBuf,
        namespace: Option<Given<'_, '_>>,
        history: bool,
    ) -> PyResult<Request> {
        let namespace = namespace.map(|given| writes::namespace(given).map(str::to_owned)).transpose()?;
        self.work(py, move |store, job| store.export(&path, namespace.as_deref(), history, job), any)
    }

    /// Reads JSON lines; gives the number of versions written.
    fn load(&self, py: Python<'_>, path: PathBuf) -> PyResult<Request> {
        self.work(py, move |store, job| store.import(&path, job), any)
    }

    /// Copies what is whole: (problems, records, versions, commits).
    #[staticmethod]
    #[pyo3(signature = (source, target, encryption_key = None))]
    fn salvage(source: PathBuf, target: PathBuf, encryption_key: Option<Given<'_, '_>>) -> PyResult<Request> {
        let key = self::encryption_key(encryption_key)?;
        Ok(Request::free(move |job| Inner::salvage(&source, key, &target, job), report))
    }
}

impl Store {
    /// Waits for a word, and serves signals meanwhile.
    fn listen(&self, py: Python<'_>, receive: &Mutex<Receiver<()>>, timeout: Option<f64>) -> PyResult<bool> {
        let deadline =
            timeout.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds.clamp(0.0, 1e9)));
        loop {
            let tick = Duration::from_millis(50);
            let patience = deadline.map_or(tick, |at| tick.min(at.saturating_duration_since(Instant::now())));
            let heard =
                py.outside(|| receive.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(patience));
            if !matches!(heard, Err(RecvTimeoutError::Timeout)) {
                return Ok(true);
            }
            py.check_signals()?;
            self.handle.get(py)?;
            if deadline.is_some_and(|at| Instant::now() >= at) {
                return Ok(false);
            }
        }
    }

    fn find(
        &self,
        py: Python<'_>,
        namespace: Given<'_, '_>,
        key: Given<'_, '_>,
        as_of: Option<Given<'_, '_>>,
        naive: Naive,
    ) -> PyResult<Option<Arc<limnion_store::Record>>> {
        let (namespace, key) = (writes::namespace(namespace)?, writes::key(key)?);
        let as_of = self::as_of(as_of, naive)?;
        if as_of.is_none()
            && let Some(found) = self.handle.get(py)?.get_hot(namespace, key)
        {
            return Ok(Some(found));
        }
        self.read(py, |store| store.get(namespace, key, at(store, as_of.as_ref())?))
    }
}
