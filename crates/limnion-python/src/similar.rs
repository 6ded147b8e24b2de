//! Vector search in a database: what is embedded, and what is near to it. Parse, ask, wrap.
//!
//! A search whose index is at hand is answered in the calling thread, or on the pool where it is large and somebody awaits
//! it. Who has to wait for an index leaves a closure with the build that is under way. Only filters and the past take a
//! thread of their own.

use std::sync::Arc;
use std::thread;

use limnion_lake::{Model, Near, Nearest, Options, Ready, Sought};
use limnion_store::{Batch, Condition, Expect, Op};
use limnion_types::{ErrorKind, Filter, Result};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::args::{self, type_name};
use crate::errors::{invalid_argument, invalid_type};
use crate::moment::{self, Naive, invalid};
use crate::outbox::Wrap;
use crate::pool;
use crate::record::Record;
use crate::request::{Asker, Done};
use crate::store::{self, Handle};
use crate::writes;

type Given<'a, 'py> = &'a Bound<'py, PyAny>;

/// What a search is told.
pub(crate) struct Told<'a, 'py> {
    pub(crate) namespace: Given<'a, 'py>,
    pub(crate) query: Given<'a, 'py>,
    pub(crate) top_k: Given<'a, 'py>,
    pub(crate) threshold: Option<Given<'a, 'py>>,
    pub(crate) filter: Option<Given<'a, 'py>>,
    pub(crate) as_of: Option<Given<'a, 'py>>,
    pub(crate) vector_name: Option<Given<'a, 'py>>,
    pub(crate) recall: Option<Given<'a, 'py>>,
}

impl Told<'_, '_> {
    pub(crate) fn take(self) -> PyResult<Sought> {
        let Told { namespace, query, top_k, threshold, filter, as_of, vector_name, recall } = self;
        let py = query.py();
        let namespace = writes::namespace(namespace)?.to_owned();
        let k = args::count("top_k", top_k)?;
        if k == 0 {
            return Err(invalid_argument(py, "top_k must be at least 1, got 0".to_owned(), None));
        }
        let query = args::vector("query", query, false)?;
        if let Some(at) = query.iter().position(|number| !number.is_finite()) {
            let message = format!("query must have finite numbers, got NaN or infinity at position {at}");
            return Err(invalid_argument(py, message, None));
        }
        if query.is_empty() {
            return Err(invalid_argument(py, "query must have a number at least".to_owned(), None));
        }
        let threshold = threshold.map(|given| args::number("threshold", given)).transpose()?;
        if let Some(odd) = threshold.filter(|threshold| threshold.is_nan()) {
            let message = format!("threshold must be a number, got {odd}");
            return Err(invalid_argument(py, message, Some("scores are cosines, from -1 to 1".to_owned())));
        }
        let recall = recall.map(|given| args::number("recall", given)).transpose()?;
        if let Some(odd) = recall.filter(|recall| !(*recall > 0.0 && *recall <= 1.0)) {
            let message = format!("recall must be more than 0 and at most 1, got {odd}");
            return Err(invalid_argument(py, message, None));
        }
        let filter = store::filter(filter)?;
        Ok(Sought {
            namespace,
            name: vector_name.map_or(Ok(String::new()), |given| {
                args::text("vector_name", given).map(std::borrow::Cow::into_owned)
            })?,
            query,
            options: Options { recall, ..Options::new(k) },
            threshold,
            filter: Some(filter).filter(|filter| *filter != Filter::All),
            as_of: as_of.map(|given| moment::as_of("as_of", given, Naive::Refused)).transpose()?,
        })
    }
}

/// A search that is under way.
struct Search {
    handle: Handle,
    nearest: Arc<Nearest>,
    sought: Sought,
    asker: Asker,
    done: Done,
}

/// Searches, and calls `done`: now, or from another thread. Waits for nothing.
pub(crate) fn search(handle: Handle, sought: Sought, asker: Asker, done: Done) {
    let nearest = match handle.nearest() {
        Ok(nearest) => nearest,
        Err(error) => return done(Err(error)),
    };
    let target = nearest.target(&sought);
    let search = Search { handle, nearest, sought, asker, done };
    let Ok(Some(target)) = target else { return search.at_length() };
    let lake = search.nearest.lake().clone();
    lake.prepare_then(&target, move |ready| match ready {
        Ok(ready) => search.within(ready),
        Err(error) if error.kind() == ErrorKind::UnknownCollection => search.at_length(),
        Err(error) => (search.done)(Err(error)),
    });
}

impl Search {
    /// Goes on with an index that is at hand: here where that may be, else on the pool.
    fn within(self, ready: Ready) {
        let exact = self.sought.options.recall == Some(1.0);
        let bytes = if exact { ready.len() * size_of_val(&*self.sought.query) } else { ready.scan_bytes() };
        if self.asker.may_compute(bytes) {
            return self.compute(&ready);
        }
        let work = move || Ok((self, ready));
        pool::spawn(work, |begun| {
            if let Ok((search, ready)) = begun {
                search.compute(&ready);
            }
        });
    }

    fn compute(self, ready: &Ready) {
        let found = pool::guarded(|| {
            self.asker.job().check()?;
            self.nearest.search_in(ready, &self.sought)
        });
        match found {
            Ok(Some(found)) => (self.done)(Ok(wrap(found, self.handle))),
            Ok(None) => self.at_length(),
            Err(error) => (self.done)(Err(error)),
        }
    }

    /// The whole search, in a thread of its own, since it may block.
    fn at_length(self) {
        errand(move || {
            let Self { handle, nearest, sought, asker, done } = self;
            let found = pool::guarded(|| nearest.search(&sought, asker.job()));
            done(found.map(|found| wrap(found, handle)));
        });
    }
}

fn errand(work: impl FnOnce() + Send + 'static) {
    // Where no thread can be started, the closure is gone, and who waits hears that the work was lost.
    let _ = thread::Builder::new().name("limnion-errand".to_owned()).spawn(work);
}

/// Hits as tuples (record, score, distance).
fn wrap(found: Vec<Near>, handle: Handle) -> Wrap {
    Box::new(move |py| {
        let rows = found.into_iter().map(|Near { record, score, distance }| {
            let record = Bound::new(py, Record::new(record, &handle))?;
            PyTuple::new(
                py,
                [
                    record.into_any(),
                    score.into_pyobject(py)?.into_any(),
                    distance.into_pyobject(py)?.into_any(),
                ],
            )
        });
        Ok(PyList::new(py, rows.collect::<PyResult<Vec<_>>>()?)?.into_any().unbind())
    })
}

/// Vectors that are to be written, of one namespace and one model.
pub(crate) struct Embedding {
    pub(crate) namespace: String,
    pub(crate) model: Option<Arc<str>>,
    pub(crate) batch: Batch,
}

impl Embedding {
    /// Several rows, the vectors in a matrix.
    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    pub(crate) fn rows(
        namespace: Given<'_, '_>,
        keys: Given<'_, '_>,
        values: Given<'_, '_>,
        embeddings: Given<'_, '_>,
        model: Option<Given<'_, '_>>,
        metadata: Option<Given<'_, '_>>,
        texts: Option<Given<'_, '_>>,
        ttl: Option<Given<'_, '_>>,
    ) -> PyResult<Self> {
        let py = keys.py();
        let matrix = args::Matrix::take("embeddings", embeddings, false)?;
        let (count, dim) = (matrix.rows(), matrix.dim());
        let numbers = matrix.copy_all()?;
        let listed = |name: &str, given: Given<'_, '_>| -> PyResult<Vec<Py<PyAny>>> {
            let wrong = || {
                let message =
                    format!("{name} must be a list, one for each embedding, got {}", type_name(given));
                invalid_type(py, message, None)
            };
            if given.is_instance_of::<pyo3::types::PyString>() {
                return Err(wrong());
            }
            let listed: Vec<Py<PyAny>> = given
                .try_iter()
                .map_err(|_| wrong())?
                .map(|item| Ok(item?.unbind()))
                .collect::<PyResult<_>>()?;
            if listed.len() != count {
                let message =
                    format!("{name} must be as many as the embeddings, {count}, got {}", listed.len());
                return Err(invalid(py, message, "the embeddings are an array of shape (n, d)"));
            }
            Ok(listed)
        };
        let (keys, values) = (listed("keys", keys)?, listed("contents", values)?);
        let metadata = metadata.map(|given| listed("metadata", given)).transpose()?;
        let texts = texts.map(|given| listed("texts", given)).transpose()?;
        let space: Arc<str> = writes::namespace(namespace)?.into();
        let of = |list: &Option<Vec<Py<PyAny>>>, at: usize| {
            let item = list.as_ref()?.get(at)?.bind(py).clone();
            (!item.is_none()).then_some(item)
        };
        let mut ops = Vec::with_capacity(count);
        for (at, (key, value)) in keys.iter().zip(&values).enumerate() {
            let (metadata, text) = (of(&metadata, at), of(&texts, at));
            let row = || {
                let key = writes::key(key.bind(py))?.into();
                let extras = writes::Extras {
                    ttl,
                    metadata: metadata.as_ref(),
                    text: text.as_ref(),
                    vector: None,
                    vectors: None,
                };
                let mut body = writes::body(value.bind(py), &extras)?;
                let numbers = numbers.get(at * dim..(at + 1) * dim).unwrap_or_default();
                body.vectors.push(writes::vector("embeddings", py, numbers.into())?);
                PyResult::Ok(Op::Put { namespace: space.clone(), key, body })
            };
            ops.push(row().inspect_err(|error| {
                let _ = error.value(py).call_method1("add_note", (format!("in row {at}"),));
            })?);
        }
        Ok(Self {
            namespace: space.as_ref().to_owned(),
            model: model.map(self::model).transpose()?,
            batch: Batch { ops, conditions: Vec::new() },
        })
    }

    /// One record.
    pub(crate) fn one(
        namespace: Given<'_, '_>,
        key: Given<'_, '_>,
        value: Given<'_, '_>,
        embedding: Given<'_, '_>,
        extras: &writes::Extras<'_, '_>,
        model: Option<Given<'_, '_>>,
        expect: Option<Given<'_, '_>>,
    ) -> PyResult<Self> {
        let (space, key): (Arc<str>, Arc<str>) =
            (writes::namespace(namespace)?.into(), writes::key(key)?.into());
        let expect: Option<Expect> = expect.map(writes::expect).transpose()?;
        let condition = expect.map(|expect| Condition { namespace: space.clone(), key: key.clone(), expect });
        let mut body = writes::body(value, extras)?;
        body.vectors.push(writes::named("", "embedding", embedding)?);
        Ok(Self {
            namespace: space.as_ref().to_owned(),
            model: model.map(self::model).transpose()?,
            batch: Batch {
                ops: vec![Op::Put { namespace: space, key, body }],
                conditions: condition.into_iter().collect(),
            },
        })
    }

    /// What its vectors are; `None` where there are none.
    fn model(&self) -> Option<Model> {
        let Some(Op::Put { body, .. }) = self.batch.ops.first() else { return None };
        let dim = body.vectors.first()?.numbers.len();
        Some(Model { name: self.model.clone(), dim })
    }
}

fn model(given: Given<'_, '_>) -> PyResult<Arc<str>> {
    let name = args::text("model", given)?;
    if name.is_empty() {
        return Err(invalid(
            given.py(),
            "model must not be empty".to_owned(),
            "leave it out where it has no name",
        ));
    }
    Ok(name.as_ref().into())
}

/// Writes, unless the namespace has vectors of another model, and calls `done` with the version.
pub(crate) fn embed(handle: Handle, embedding: Embedding, asker: Asker, done: Done) {
    let Some(model) = embedding.model() else { return write(&handle, embedding.batch, None, done) };
    if let Some(claim) = handle.claims().claim_now(&embedding.namespace, &model) {
        return write(&handle, embedding.batch, Some(claim), done);
    }
    errand(move || {
        let claim = pool::guarded(|| {
            handle.claims().claim(handle.store()?, &embedding.namespace, &model, asker.job())
        });
        match claim {
            Ok(claim) => write(&handle, embedding.batch, Some(claim), done),
            Err(error) => done(Err(error)),
        }
    });
}

fn write(handle: &Handle, batch: Batch, claim: Option<limnion_lake::Claim>, done: Done) {
    let store = match handle.store() {
        Ok(store) => store,
        Err(error) => return done(Err(error)),
    };
    store.submit(batch, move |receipt: Result<limnion_store::Receipt>| {
        drop(claim);
        done(receipt.map(|receipt| Box::new(move |py: Python<'_>| store::any(py, receipt.version)) as Wrap));
    });
}
