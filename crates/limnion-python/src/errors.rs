//! From the errors of the core to the exceptions of `limnion.errors`.

use limnion_types::{Error, ErrorKind, Result};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

/// What the core answers, as what Python raises.
pub(crate) trait OrRaise<T> {
    /// The value, or the exception that belongs to the kind of the error.
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for Result<T> {
    #[inline]
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| exception(py, &error))
    }
}

/// The exception that belongs to the kind of `error`.
pub(crate) fn exception(py: Python<'_>, error: &Error) -> PyErr {
    // The one table of classes is Python's: what people catch can be read in Python, and pickles by its name there.
    static KINDS: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let raised = KINDS.import(py, "limnion.errors", "KINDS").and_then(|kinds| {
        let class = kinds.as_any().get_item(error.kind().as_str())?;
        class.call1((error.message(), error.suggestion()))
    });
    match raised {
        Ok(exception) => PyErr::from_value(exception),
        Err(failure) => failure,
    }
}

/// An exception of kind `invalid-type`.
pub(crate) fn invalid_type(py: Python<'_>, message: String, suggestion: Option<String>) -> PyErr {
    raised(py, ErrorKind::InvalidType, message, suggestion)
}

/// An exception of kind `invalid-argument`.
pub(crate) fn invalid_argument(py: Python<'_>, message: String, suggestion: Option<String>) -> PyErr {
    raised(py, ErrorKind::InvalidArgument, message, suggestion)
}

fn raised(py: Python<'_>, kind: ErrorKind, message: String, suggestion: Option<String>) -> PyErr {
    let error = Error::new(kind, message);
    exception(py, &suggestion.map_or(error.clone(), |suggestion| error.suggest(suggestion)))
}

/// The kinds of error that this module can raise; `limnion.errors.KINDS` has a class for each.
#[pyfunction]
pub(crate) fn error_kinds() -> Vec<&'static str> {
    ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect()
}
