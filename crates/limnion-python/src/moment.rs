//! Points in time and in history: between Python's `datetime` and the microseconds of the store.

use limnion_store::{AsOf, Micros};
use limnion_types::{Error, ErrorKind};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyInt, PyString};

use crate::errors::{exception, invalid_type};

struct Calendar {
    datetime: Py<PyAny>,
    timedelta: Py<PyAny>,
    utc: Py<PyAny>,
    /// 1970-01-01 UTC.
    epoch: Py<PyAny>,
}

fn calendar(py: Python<'_>) -> PyResult<&'static Calendar> {
    static CALENDAR: PyOnceLock<Calendar> = PyOnceLock::new();
    CALENDAR.get_or_try_init(py, || {
        let module = py.import("datetime")?;
        let utc = module.getattr("timezone")?.getattr("utc")?;
        let datetime = module.getattr("datetime")?;
        let epoch = datetime.call1((1970, 1, 1, 0, 0, 0, 0, &utc))?;
        Ok(Calendar {
            datetime: datetime.unbind(),
            timedelta: module.getattr("timedelta")?.unbind(),
            utc: utc.unbind(),
            epoch: epoch.unbind(),
        })
    })
}

/// An aware datetime in UTC, exact to the microsecond.
pub(crate) fn datetime(py: Python<'_>, time: Micros) -> PyResult<Bound<'_, PyAny>> {
    let calendar = calendar(py)?;
    let since = calendar.timedelta.bind(py).call1((0, time / 1_000_000, time % 1_000_000))?;
    calendar.epoch.bind(py).add(since)
}

/// Whether naive datetimes are welcome.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Naive {
    Refused,
    /// They are taken as UTC.
    Utc,
}

/// The microseconds of a datetime; what lies before 1970 is 0.
fn micros(name: &str, given: &Bound<'_, PyAny>, naive: Naive) -> PyResult<Micros> {
    let py = given.py();
    let calendar = calendar(py)?;
    let mut moment = given.clone();
    if given.call_method0("utcoffset")?.is_none() {
        if naive == Naive::Refused {
            let message = format!("{name} must be an aware datetime, got the naive {given}");
            return Err(invalid(py, message, "write datetime.now(timezone.utc), or .astimezone()"));
        }
        let zone = PyDict::new(py);
        zone.set_item("tzinfo", &calendar.utc)?;
        moment = given.call_method("replace", (), Some(&zone))?;
    }
    let since = moment.sub(calendar.epoch.bind(py))?;
    Ok(u64::try_from(whole(&since)?).unwrap_or(0))
}

/// All microseconds of a timedelta.
fn whole(delta: &Bound<'_, PyAny>) -> PyResult<i128> {
    let part = |name: &str| delta.getattr(name)?.extract::<i64>().map(i128::from);
    Ok((part("days")? * 86_400 + part("seconds")?) * 1_000_000 + part("microseconds")?)
}

/// A point in history: a commit, a tag, or a time.
pub(crate) fn as_of(name: &str, given: &Bound<'_, PyAny>, naive: Naive) -> PyResult<AsOf> {
    let py = given.py();
    if given.is_instance_of::<PyInt>() && !given.is_instance_of::<PyBool>() {
        return given.extract::<u64>().map(AsOf::Version).map_err(|_| {
            let message = format!("{name} must be the number of a version, at least 0, got {given}");
            invalid(py, message, "take it from record.version")
        });
    }
    if let Ok(tag) = given.cast::<PyString>() {
        return Ok(AsOf::Tag(tag.to_str()?.to_owned()));
    }
    if given.is_instance(calendar(py)?.datetime.bind(py))? {
        return micros(name, given, naive).map(AsOf::Time);
    }
    let came = given.get_type().name()?;
    let message = format!("{name} must be the number of a version, a tag or an aware datetime, got {came}");
    Err(invalid_type(py, message, None))
}

/// Seconds, or a timedelta, as microseconds; more than nothing.
pub(crate) fn stretch(name: &str, given: &Bound<'_, PyAny>) -> PyResult<Micros> {
    let py = given.py();
    let wrong = || {
        let message = format!("{name} must be seconds or a timedelta, more than 0, got {given}");
        invalid(py, message, "leave it out for ever")
    };
    let micros = if given.is_instance(calendar(py)?.timedelta.bind(py))? {
        whole(given)?
    } else if given.is_instance_of::<PyBool>() || given.is_instance_of::<PyString>() {
        return Err(wrong());
    } else {
        let seconds = given.extract::<f64>().map_err(|_| wrong())?;
        if seconds.is_nan() {
            return Err(wrong());
        }
        (seconds * 1e6).round() as i128
    };
    match u64::try_from(micros) {
        Ok(0) | Err(_) if micros <= 0 => Err(wrong()),
        // A time beyond what a datetime can say is for ever, too.
        Ok(micros) if micros < 200_000_000_000_000_000 => Ok(micros),
        _ => Err(wrong()),
    }
}

/// An exception of kind `validation`.
pub(crate) fn invalid(py: Python<'_>, message: String, suggestion: &str) -> PyErr {
    exception(py, &Error::new(ErrorKind::Validation, message).suggest(suggestion))
}
