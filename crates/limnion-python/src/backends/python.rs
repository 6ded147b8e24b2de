//! A backend that somebody wrote in Python.
//!
//! Its methods run in threads that Python itself has begun (`limnion._errands`), and hand over what they give. Threads of
//! the lake never run Python: when the interpreter goes, it ends threads in the middle of Python code, which those that
//! came from Rust do not survive. So a lake thread only ever waits for a channel.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use limnion_lake::{Backend, Changes, Description, Generation, Id, Ids, Rows, Sink};
use limnion_store::Content;
use limnion_types::{Error, ErrorKind, Filter, Job, Metric, Result};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString, PyTuple};

use crate::args::{self, Matrix, type_name};
use crate::door::Door as _;
use crate::errors::{invalid_argument, invalid_type};
use crate::json;
use crate::lake;
use crate::pool;

/// Pieces of a pull that may wait for the lake.
const AHEAD: usize = 2;

/// An object of Python that fits `limnion.protocols.Backend` or `AsyncBackend`.
pub(crate) struct PythonBackend {
    name: String,
    object: Py<PyAny>,
    /// Where its coroutines run; in loops of their own without.
    event_loop: Option<Py<PyAny>>,
    /// No two backends have the same: what lies in one is never taken for what lies in another.
    source: String,
    abilities: Abilities,
    /// The last failure with each collection, until it works again: what was told of it, and what was raised.
    failures: Mutex<HashMap<String, (String, Py<PyAny>)>>,
}

/// The optional methods.
struct Abilities {
    generation: bool,
    changes: bool,
    select: bool,
    text_search: bool,
}

type Reader<R> = Box<dyn for<'py> FnOnce(&Bound<'py, PyAny>) -> PyResult<R> + Send>;

impl PythonBackend {
    /// Looks whether an object has the shape of a backend.
    pub(crate) fn take(given: &Bound<'_, PyAny>, event_loop: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let py = given.py();
        let has = |method: &str| -> PyResult<bool> {
            Ok(given.getattr_opt(method)?.is_some_and(|found| found.is_callable()))
        };
        for method in ["list_collections", "describe", "pull"] {
            if given.is_instance_of::<pyo3::types::PyType>() || !has(method)? {
                let came = match given.cast::<pyo3::types::PyType>() {
                    Ok(class) => format!("the class {}", class.name()?),
                    Err(_) => format!("{}, which has no method {method}", type_name(given)),
                };
                let message =
                    format!("backend must be one of limnion's, or fit limnion.protocols.Backend, got {came}");
                return Err(invalid_type(py, message, None));
            }
        }
        let name = match given.getattr_opt("name")? {
            Some(name) => args::text("name of the backend", &name)?.into_owned(),
            None => {
                let message = format!("backend must have a name, got {} without one", type_name(given));
                return Err(invalid_type(py, message, Some("give it an attribute name".to_owned())));
            }
        };
        if let Some(given) = event_loop
            && !given.hasattr("call_soon_threadsafe")?
        {
            let message = format!("loop must be an event loop, got {}", type_name(given));
            let hint = "write loop=asyncio.get_running_loop()".to_owned();
            return Err(invalid_type(py, message, Some(hint)));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            source: format!("python://{:x}-{now:x}-{number:x}", std::process::id()),
            name,
            object: given.clone().unbind(),
            event_loop: event_loop.map(|event_loop| event_loop.clone().unbind()),
            abilities: Abilities {
                generation: has("generation")?,
                changes: has("changes")?,
                select: has("select")?,
                text_search: has("text_search")?,
            },
            failures: Mutex::default(),
        })
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<String, (String, Py<PyAny>)>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was raised, where an error tells of that.
    pub(crate) fn cause<'py>(&self, py: Python<'py>, error: &Error) -> Option<Bound<'py, PyAny>> {
        let failures = self.failures();
        let told = failures.values().find(|(told, _)| error.message().contains(told))?;
        Some(told.1.bind(py).clone())
    }

    /// Calls a method in a thread of Python's.
    fn call<R: Send + 'static>(
        &self,
        method: &'static str,
        collection: Option<&str>,
        more: Vec<Argument>,
        read: impl for<'py> FnOnce(&Bound<'py, PyAny>) -> PyResult<R> + Send + 'static,
    ) -> Result<R> {
        let (sender, receiver) = sync_channel(1);
        let reader: Reader<R> = Box::new(read);
        let post = Mutex::new(Some((reader, sender)));
        let take = move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
            let (found, raised) = (args.get_item(0)?, args.get_item(1)?);
            let taken = post.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some((read, sender)) = taken else { return Ok(()) };
            let outcome = if raised.is_none() {
                read(&found).map_err(|error| Failure::refused(args.py(), error))
            } else {
                Err(Failure::raised(args.py(), raised))
            };
            // Nobody listens any more where the lake is gone.
            drop(sender.send(outcome));
            Ok(())
        };
        self.begin(|py, errands| {
            let arguments = collection
                .map(|collection| PyString::new(py, collection).into_any())
                .into_iter()
                .map(Ok)
                .chain(more.into_iter().map(|argument| argument.in_python(py)))
                .collect::<PyResult<Vec<_>>>()?;
            let take = pyo3::types::PyCFunction::new_closure(py, None, None, take)?;
            let arguments = PyTuple::new(py, arguments)?;
            let all = (&self.object, method, arguments, self.event_loop.as_ref(), take);
            Ok((errands.getattr("answer")?, all.into_pyobject(py)?))
        })?;
        self.outcome(method, collection, &receiver)
    }

    /// Begins an errand.
    fn begin(
        &self,
        errand: impl for<'py> FnOnce(
            Python<'py>,
            &Bound<'py, PyModule>,
        ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)>,
    ) -> Result<()> {
        let mut begun = Err(self.error("it cannot be asked: Python is about to end"));
        pool::deliver(|py| {
            let begin = || {
                let (function, arguments) = errand(py, &py.import("limnion._errands")?)?;
                py.import("_thread")?.call_method1("start_new_thread", (function, arguments))?;
                PyResult::Ok(())
            };
            begun = begin().map_err(|error| self.error(format_args!("it cannot be asked: {error}")));
        });
        begun
    }

    fn outcome<R>(
        &self,
        method: &str,
        collection: Option<&str>,
        receiver: &Receiver<std::result::Result<R, Failure>>,
    ) -> Result<R> {
        match receiver.recv() {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => Err(self.failed(method, collection, failure)),
            Err(_) => Err(self.error(format_args!("{method} gave no answer"))),
        }
    }

    fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Backend, format!("backend {:?}: {what}", self.name))
    }

    /// Notes a failure, so that what was raised becomes the cause of what will be.
    fn failed(&self, method: &str, collection: Option<&str>, failure: Failure) -> Error {
        let call = match collection {
            Some(collection) => format!("{method}({collection:?})"),
            None => format!("{method}()"),
        };
        let Failure { told, suggestion, kind, exception, refused } = failure;
        if kind == Some(ErrorKind::UnknownCollection) {
            let error = Error::new(ErrorKind::UnknownCollection, told);
            return suggestion.map_or(error.clone(), |suggestion| error.suggest(suggestion));
        }
        let error = match refused {
            true => self.error(format_args!("{call} gave what cannot be used: {told}")),
            false => self.error(format_args!("{call} raised {told}")),
        };
        let noted = (error.message().to_owned(), exception);
        let old = self.failures().insert(collection.unwrap_or_default().to_owned(), noted);
        drop(old); // outside the lock
        suggestion.map_or(error.clone(), |suggestion| error.suggest(suggestion))
    }

    /// It works again.
    fn worked(&self, collection: &str) {
        let old = self.failures().remove(collection);
        drop(old); // outside the lock
    }
}

/// What goes wrong in an errand.
struct Failure {
    told: String,
    suggestion: Option<String>,
    kind: Option<ErrorKind>,
    exception: Py<PyAny>,
    /// It was not raised by the backend, but by us, who cannot use what it gave.
    refused: bool,
}

impl Failure {
    fn refused(py: Python<'_>, error: PyErr) -> Self {
        let value = error.into_value(py).into_bound(py).into_any();
        let told = message(&value).unwrap_or_else(|| type_name(&value));
        let suggestion = value.getattr("suggestion").and_then(|found| found.extract()).ok().flatten();
        Self { told, suggestion, kind: None, exception: value.unbind(), refused: true }
    }

    fn raised(py: Python<'_>, exception: Bound<'_, PyAny>) -> Self {
        let unknown = py
            .import("limnion.errors")
            .and_then(|errors| exception.is_instance(&errors.getattr("UnknownCollection")?))
            .unwrap_or(false);
        let message = message(&exception).unwrap_or_default();
        let (told, kind) = match (unknown, message.is_empty()) {
            (true, _) => (message, Some(ErrorKind::UnknownCollection)),
            (false, true) => (type_name(&exception), None),
            (false, false) => (format!("{}: {message}", type_name(&exception)), None),
        };
        let suggestion = exception.getattr("suggestion").and_then(|found| found.extract()).ok().flatten();
        Self { told, suggestion, kind, exception: exception.unbind(), refused: false }
    }
}

/// What an exception says, without the suggestion of ours.
fn message(exception: &Bound<'_, PyAny>) -> Option<String> {
    let own = exception.getattr("message").and_then(|message| message.extract::<String>());
    own.or_else(|_| exception.str().map(|text| text.to_string())).ok()
}

/// What a method is given besides the collection.
enum Argument {
    Generation(Generation),
    Filter(Filter),
    Text(String),
    Count(usize),
}

impl Argument {
    fn in_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        use pyo3::IntoPyObjectExt;
        match self {
            Self::Generation(Generation::Number(number)) => number.into_bound_py_any(py),
            Self::Generation(Generation::Name(name)) => (*name).into_bound_py_any(py),
            Self::Filter(filter) => {
                let dict = filter.to_dict().to_string();
                json::decode_bytes(py, Content::TaggedJson, dict.as_bytes())
            }
            Self::Text(text) => text.into_bound_py_any(py),
            Self::Count(count) => count.into_bound_py_any(py),
        }
    }
}

// What comes back.

fn field<'py>(given: &Bound<'py, PyAny>, name: &str, at: usize) -> PyResult<Option<Bound<'py, PyAny>>> {
    if let Some(found) = given.getattr_opt(name)? {
        // A plain tuple has a method called count.
        if !(given.is_instance_of::<PyTuple>() && found.is_callable()) {
            return Ok(Some(found));
        }
    }
    match given.cast::<PyTuple>() {
        Ok(tuple) if at < tuple.len() => tuple.get_item(at).map(Some),
        _ => Ok(None),
    }
}

fn needed<'py>(given: &Bound<'py, PyAny>, what: &str, name: &str, at: usize) -> PyResult<Bound<'py, PyAny>> {
    field(given, name, at)?.ok_or_else(|| {
        let message = format!("it must be {what}, got {} without {name}", type_name(given));
        invalid_type(given.py(), message, None)
    })
}

fn generation(given: &Bound<'_, PyAny>) -> PyResult<Generation> {
    if let Ok(name) = given.cast::<PyString>() {
        return Ok(Generation::Name(name.to_str()?.into()));
    }
    let number = (!given.is_instance_of::<PyBool>()).then(|| given.extract::<u64>().ok()).flatten();
    number.map(Generation::Number).ok_or_else(|| {
        let message = format!("generation must be an integer from 0 or a string, got {}", type_name(given));
        invalid_type(given.py(), message, None)
    })
}

const DESCRIPTION: &str = "Description(dim, count, generation)";
const PULLED: &str = "Pulled(ids, vectors, generation)";
const CHANGES: &str = "Changes(generation, ids, vectors, removed)";

type Described = (usize, usize, Generation, Option<Metric>, Option<String>);

fn description(given: &Bound<'_, PyAny>) -> PyResult<Described> {
    let dim = args::count("dim", &needed(given, DESCRIPTION, "dim", 0)?)?;
    let rows = args::count("count", &needed(given, DESCRIPTION, "count", 1)?)?;
    let generation = generation(&needed(given, DESCRIPTION, "generation", 2)?)?;
    let metric = field(given, "metric", 3)?.filter(|metric| !metric.is_none());
    let metric = metric.map(|metric| args::metric(&metric)).transpose()?;
    let source = field(given, "source", 4)?.filter(|source| !source.is_none());
    let source = source.map(|source| args::text("source", &source).map(std::borrow::Cow::into_owned));
    Ok((dim, rows, generation, metric, source.transpose()?))
}

/// Rows: as many vectors as ids, and finite.
fn rows(ids: &Bound<'_, PyAny>, vectors: &Bound<'_, PyAny>) -> PyResult<(Rows, usize)> {
    let py = ids.py();
    let ids = lake::ids("ids", ids)?;
    if ids.is_empty() && vectors.len().is_ok_and(|len| len == 0) {
        let dim = vectors.getattr_opt("shape")?.and_then(|shape| shape.get_item(1).ok());
        let dim = dim.and_then(|dim| dim.extract().ok()).unwrap_or(0);
        return Ok((Rows { ids, vectors: Vec::new() }, dim));
    }
    let matrix = Matrix::take("vectors", vectors, true)?;
    let (count, dim) = (matrix.rows(), matrix.dim());
    if ids.len() != count {
        let message = format!("ids must be as many as the vectors: {} ids, {count} vectors", ids.len());
        return Err(invalid_argument(py, message, None));
    }
    let vectors = matrix.copy_all()?;
    if let Some(at) = py.outside(|| vectors.iter().position(|number| !number.is_finite())) {
        let message = format!(
            "vectors must have finite numbers, got NaN or infinity in row {}, column {}",
            at / dim.max(1),
            at % dim.max(1)
        );
        return Err(invalid_argument(py, message, None));
    }
    Ok((Rows { ids, vectors }, dim))
}

/// Some rows on their way to the lake.
struct Piece {
    rows: Rows,
    dim: usize,
    generation: Generation,
}

enum Message {
    Piece(Piece),
    End(std::result::Result<(), Failure>),
}

fn piece(given: &Bound<'_, PyAny>) -> PyResult<Piece> {
    let ids = needed(given, PULLED, "ids", 0)?;
    let vectors = needed(given, PULLED, "vectors", 1)?;
    let generation = generation(&needed(given, PULLED, "generation", 2)?)?;
    let (rows, dim) = rows(&ids, &vectors)?;
    Ok(Piece { rows, dim, generation })
}

/// Takes the pieces of a pull: called with each, and at the end.
#[pyclass(frozen)]
struct Taker {
    sender: Mutex<Option<SyncSender<Message>>>,
}

impl Taker {
    fn send(&self, py: Python<'_>, message: Message) -> bool {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The lake may be slower than the backend, or have given up.
        sender.is_some_and(|sender| py.outside(move || sender.send(message).is_ok()))
    }
}

#[pymethods]
impl Taker {
    /// Takes a piece; `False` where no more are wanted.
    fn __call__(&self, given: &Bound<'_, PyAny>) -> bool {
        let py = given.py();
        match piece(given) {
            Ok(piece) => self.send(py, Message::Piece(piece)),
            Err(error) => {
                self.send(py, Message::End(Err(Failure::refused(py, error))));
                false
            }
        }
    }

    /// That was all; or why there is no more.
    fn end(&self, py: Python<'_>, raised: Option<Bound<'_, PyAny>>) {
        let outcome = raised.map_or(Ok(()), |raised| Err(Failure::raised(py, raised)));
        self.send(py, Message::End(outcome));
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Backend for PythonBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn collections(&self) -> Result<Vec<String>> {
        self.call("list_collections", None, Vec::new(), |found| {
            let wrong = || {
                let message = format!("it must be a list of names, got {}", type_name(found));
                invalid_type(found.py(), message, None)
            };
            if found.is_instance_of::<PyString>() {
                return Err(wrong());
            }
            let names = found.try_iter().map_err(|_| wrong())?.map(|name| {
                let name = name?;
                args::text("the name of a collection", &name).map(std::borrow::Cow::into_owned)
            });
            let mut names = names.collect::<PyResult<Vec<_>>>()?;
            names.sort();
            Ok(names)
        })
    }

    fn describe(&self, collection: &str) -> Result<Description> {
        let (dim, rows, generation, metric, source) =
            self.call("describe", Some(collection), Vec::new(), description)?;
        let source = source.unwrap_or_else(|| format!("{}/{collection}", self.source));
        Ok(Description { dim, rows, generation, metric, source })
    }

    fn generation(&self, collection: &str) -> Result<Generation> {
        if self.abilities.generation {
            return self.call("generation", Some(collection), Vec::new(), generation);
        }
        Ok(self.describe(collection)?.generation)
    }

    fn pull(&self, collection: &str, sink: &mut dyn Sink, job: &Job) -> Result<()> {
        let described = self.describe(collection)?;
        let (sender, receiver) = sync_channel(AHEAD);
        self.begin(|py, errands| {
            let taker = Bound::new(py, Taker { sender: Mutex::new(Some(sender)) })?;
            let all = (&self.object, collection, self.event_loop.as_ref(), taker);
            Ok((errands.getattr("pull")?, all.into_pyobject(py)?))
        })?;
        let mut begun: Option<Description> = None;
        loop {
            job.check()?;
            let Ok(message) = receiver.recv() else { return Err(self.error("pull came to no end")) };
            let piece = match message {
                Message::End(Ok(())) => break,
                Message::End(Err(failure)) => return Err(self.failed("pull", Some(collection), failure)),
                Message::Piece(piece) => piece,
            };
            match &begun {
                None => {
                    let same = piece.generation == described.generation;
                    if same && !piece.rows.ids.is_empty() && piece.dim != described.dim {
                        return Err(self.error(format_args!(
                            "describe({collection:?}) tells of {} dimensions, and pull gave {}",
                            described.dim, piece.dim
                        )));
                    }
                    let description =
                        Description { dim: piece.dim, generation: piece.generation, ..described.clone() };
                    sink.begin(&description)?;
                    begun = Some(description);
                }
                Some(begun) if begun.generation != piece.generation => {
                    let what = format_args!(
                        "{collection:?} changed while it was read: from generation {} to {}",
                        begun.generation, piece.generation
                    );
                    return Err(self.error(what).passing());
                }
                Some(begun) if begun.dim != piece.dim && !piece.rows.ids.is_empty() => {
                    return Err(self.error(format_args!(
                        "pull({collection:?}) gave vectors of {} dimensions, and then of {}",
                        begun.dim, piece.dim
                    )));
                }
                Some(_) => {}
            }
            sink.push(piece.rows)?;
        }
        if begun.is_none() {
            sink.begin(&described)?;
        }
        self.worked(collection);
        Ok(())
    }

    fn changes(&self, collection: &str, since: &Generation) -> Result<Option<Changes>> {
        if !self.abilities.changes {
            return Ok(None);
        }
        let since = vec![Argument::Generation(since.clone())];
        self.call("changes", Some(collection), since, |found| {
            if found.is_none() {
                return Ok(None);
            }
            let generation = generation(&needed(found, CHANGES, "generation", 0)?)?;
            let (ids, vectors) = (needed(found, CHANGES, "ids", 1)?, needed(found, CHANGES, "vectors", 2)?);
            let (upserts, _) = rows(&ids, &vectors)?;
            let removed = lake::ids("removed", &needed(found, CHANGES, "removed", 3)?)?;
            Ok(Some(Changes { generation, upserts, removed }))
        })
    }

    fn select(&self, collection: &str, filter: &Filter) -> Result<Option<(Ids, Generation)>> {
        if !self.abilities.select {
            return Ok(None);
        }
        let filter = vec![Argument::Filter(filter.clone())];
        self.call("select", Some(collection), filter, |found| {
            if found.is_none() {
                return Ok(None);
            }
            let pair = found.cast::<PyTuple>().ok().filter(|pair| pair.len() == 2).ok_or_else(|| {
                let message =
                    format!("it must be a tuple (ids, generation) or None, got {}", type_name(found));
                invalid_type(found.py(), message, None)
            })?;
            Ok(Some((lake::ids("ids", &pair.get_item(0)?)?, generation(&pair.get_item(1)?)?)))
        })
    }

    fn text_search(&self, collection: &str, query: &str, k: usize) -> Result<Option<Vec<(Id, f32)>>> {
        if !self.abilities.text_search {
            return Ok(None);
        }
        let more = vec![Argument::Text(query.to_owned()), Argument::Count(k)];
        self.call("text_search", Some(collection), more, |found| {
            if found.is_none() {
                return Ok(None);
            }
            let hits = found.try_iter()?.map(|hit| {
                let (id, score) = hit?.extract::<(Bound<'_, PyAny>, f32)>()?;
                let id = match id.cast::<PyString>() {
                    Ok(name) => Id::Name(name.to_str()?.into()),
                    Err(_) => Id::Number(args::id("id", &id)?),
                };
                PyResult::Ok((id, score))
            });
            hits.collect::<PyResult<Vec<_>>>().map(Some)
        })
    }
}
