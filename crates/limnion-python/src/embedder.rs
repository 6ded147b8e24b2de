//! The embedder: text in, vectors out. Parse, detach, call, wrap.

use std::path::PathBuf;
use std::sync::Arc;

use limnion_text::StaticModel;
use limnion_types::Result;
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::args::Progress;
use crate::coroutine::{Coroutine, Step, pending};
use crate::door::Door as _;
use crate::errors::{OrRaise, invalid_argument, invalid_type};
use crate::pool::{self, Watch};

/// So many texts are copied before other threads get their turn.
const BLOCK_TEXTS: usize = 8_192;
/// A text of so many bytes is embedded in less time than the way to a thread and back takes.
const ON_THE_SPOT: usize = 4_096;

/// Text to vectors of unit length, with a model that comes along: no download, no network, no waiting.
///
/// `Embedder.builtin()` gives one. Its vectors are means of token vectors that were distilled from
/// all-MiniLM-L6-v2: about nine tenths of that model's quality in retrieval at a thousandth of its cost. English is what
/// it knows best. The first 512 tokens of a text count; a text without a known word has the zero vector.
///
/// The same text has the same vector on every machine, alone or in a batch.
#[pyclass(frozen, module = "limnion._native")]
pub(crate) struct Embedder {
    model: Arc<StaticModel>,
}

/// The vectors of a batch, and how many numbers each has.
type Rows = (Vec<f32>, usize);

impl Embedder {
    fn batch(
        &self,
        texts: Vec<String>,
    ) -> impl FnOnce(&limnion_types::Job) -> Result<Rows> + Send + 'static + use<> {
        let model = self.model.clone();
        move |job| Ok((model.embed_batch(&texts, job)?, model.dim()))
    }
}

#[pymethods]
impl Embedder {
    /// The embedder that is part of limnion: 256 dimensions. Read when first asked for, in some 20 ms; the same object
    /// from then on.
    ///
    /// Raises `EmbedError` where the installation is damaged.
    #[staticmethod]
    fn builtin(py: Python<'_>) -> PyResult<Py<Self>> {
        static BUILTIN: PyOnceLock<Py<Embedder>> = PyOnceLock::new();
        let builtin = BUILTIN.get_or_try_init(py, || {
            let folder: PathBuf = py.import("limnion.embed")?.getattr("BUILTIN")?.extract()?;
            let model = py.outside(|| StaticModel::from_folder(folder)).or_raise(py)?;
            Py::new(py, Self { model: Arc::new(model) })
        })?;
        Ok(builtin.clone_ref(py))
    }

    /// The vector of one text: a new float32 array of shape (dim,). Some microseconds.
    ///
    /// Raises `InvalidTypeError` for anything but a string.
    fn embed<'py>(&self, py: Python<'py>, text: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let text = one_text(text)?;
        Ok(py.outside(|| self.model.embed(&text)).or_raise(py)?.into_pyarray(py))
    }

    /// `embed`, to be awaited. A short text is answered without a hop to another thread.
    fn embed_async(&self, text: &Bound<'_, PyAny>) -> PyResult<Coroutine> {
        let (text, model) = (one_text(text)?, self.model.clone());
        Ok(Coroutine::new(move |py| {
            if text.len() <= ON_THE_SPOT {
                let vector = py.outside(|| model.embed(&text)).or_raise(py)?;
                return wrap_vector(py, vector).map(Step::Done);
            }
            pending(py, wrap_vector, |_, delivery| {
                pool::spawn(move || model.embed(&text), |answer| delivery.answer(answer));
            })
        }))
    }

    /// The vectors of many texts: a new float32 array of shape (n, dim).
    ///
    /// `texts` is a list of strings, or whatever else yields strings; `progress` is `True` for a bar, or a callable of
    /// (done, total). Runs on all cores with the interpreter released; Ctrl-C stops it.
    ///
    /// Cost: a core embeds tens of thousands of passages of 100 words a second.
    ///
    /// Raises `InvalidTypeError`, which names the position of what is no string.
    #[pyo3(
        signature = (texts, *, progress = None),
        text_signature = "($self, texts, *, progress=False)"
    )]
    fn embed_batch<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let progress = progress.map_or(Ok(Progress::none()), |progress| Progress::take(progress, "embed"))?;
        let texts = many_texts(texts)?;
        let rows = pool::run(py, &progress, texts.len(), self.batch(texts))?;
        matrix(py, rows)
    }

    /// `embed_batch`, to be awaited. A cancelled await stops the work.
    fn embed_batch_async(&self, texts: &Bound<'_, PyAny>) -> PyResult<Coroutine> {
        let work = self.batch(many_texts(texts)?);
        Ok(Coroutine::new(move |py| {
            pending(py, wrap_matrix, |job, delivery| {
                pool::spawn(move || work(&job), |answer| delivery.answer(answer));
            })
        }))
    }

    /// How many dimensions a vector has.
    #[getter]
    fn dim(&self) -> usize {
        self.model.dim()
    }

    fn __repr__(&self) -> String {
        format!("Embedder.builtin(dim={})", self.model.dim())
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        Ok((py.get_type::<Self>().getattr("builtin")?, PyTuple::empty(py)))
    }
}

fn wrap_vector(py: Python<'_>, vector: Vec<f32>) -> PyResult<Py<PyAny>> {
    Ok(vector.into_pyarray(py).into_any().unbind())
}

fn matrix(py: Python<'_>, (vectors, dim): Rows) -> PyResult<Bound<'_, PyArray2<f32>>> {
    let rows = vectors.len() / dim.max(1);
    vectors.into_pyarray(py).reshape([rows, dim])
}

fn wrap_matrix(py: Python<'_>, rows: Rows) -> PyResult<Py<PyAny>> {
    Ok(matrix(py, rows)?.into_any().unbind())
}

fn one_text(given: &Bound<'_, PyAny>) -> PyResult<String> {
    text(given, || "text".to_owned())
}

fn text(given: &Bound<'_, PyAny>, name: impl Fn() -> String) -> PyResult<String> {
    let py = given.py();
    let Ok(string) = given.cast::<PyString>() else {
        let suggestion = given.is_instance_of::<PyBytes>().then(|| "decode the bytes first".to_owned());
        return Err(invalid_type(
            py,
            format!("{} must be a string, got {}", name(), type_name(given)),
            suggestion,
        ));
    };
    string.to_cow().map(String::from).map_err(|_| {
        let message = format!("{} must be valid Unicode, got a surrogate without its pair", name());
        invalid_argument(py, message, Some("decode the text with errors='replace'".to_owned()))
    })
}

fn many_texts(given: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    let py = given.py();
    let wrong = |hint: Option<&str>| {
        let message = format!("texts must be a list of strings, got {}", type_name(given));
        invalid_type(py, message, hint.map(str::to_owned))
    };
    if given.is_instance_of::<PyString>() || given.is_instance_of::<PyBytes>() {
        return Err(wrong(Some("embed takes a single text; embed_batch([text]) is a batch of one")));
    }
    let mut watch = Watch::silent();
    let mut texts = Vec::new();
    for (at, item) in given.try_iter().map_err(|_| wrong(None))?.enumerate() {
        texts.push(text(&item?, || format!("texts[{at}]"))?);
        if at % BLOCK_TEXTS == BLOCK_TEXTS - 1 {
            watch.glance(py)?;
            py.outside(std::thread::yield_now);
        }
    }
    Ok(texts)
}

fn type_name(given: &Bound<'_, PyAny>) -> String {
    given.get_type().name().map_or_else(|_| "an object".to_owned(), |name| name.to_string())
}
