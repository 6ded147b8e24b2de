//! What a lake takes: each kind of argument by a function of its own.

use std::time::Duration;

use limnion_index::{Params, Precision};
use limnion_lake::{Consistency, Ids, Options, Search, Settings, Where};
use limnion_types::Filter;
use numpy::{PyArrayDescrMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::args::{self, type_name};
use crate::classes::Class;
use crate::errors::{OrRaise, invalid_argument, invalid_type};
use crate::store;

type Given<'a, 'py> = &'a Bound<'py, PyAny>;

/// Seconds or a timedelta, more than nothing.
pub(crate) fn stretch(name: &str, given: Given<'_, '_>) -> PyResult<Duration> {
    static TIMEDELTA: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = given.py();
    let timedelta = TIMEDELTA.import(py, "datetime", "timedelta")?;
    let seconds = if given.is_instance(timedelta)? {
        given.call_method0("total_seconds")?.extract::<f64>()?
    } else if given.is_instance_of::<PyFloat>()
        || (given.is_instance_of::<PyInt>() && !given.is_instance_of::<PyBool>())
    {
        given.extract::<f64>()?
    } else {
        let message = format!("{name} must be seconds or a timedelta, got {}", type_name(given));
        return Err(invalid_type(py, message, None));
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(stretch) if !stretch.is_zero() => Ok(stretch),
        _ if seconds > 0.0 => Ok(Duration::from_secs(u64::from(u32::MAX))),
        _ => Err(invalid_argument(
            py,
            format!("{name} must be more than 0 seconds, got {given}"),
            Some("leave it out to wait as long as it takes".to_owned()).filter(|_| name == "timeout"),
        )),
    }
}

/// A member of `limnion.Consistency`, with its time.
pub(crate) fn consistency(given: Given<'_, '_>, ttl: Option<Given<'_, '_>>) -> PyResult<Consistency> {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = given.py();
    let class = CLASS.import(py, "limnion.lake", "Consistency")?;
    if !given.is_instance(class)? {
        let meant = match given.cast::<PyString>() {
            Ok(text) => match text.to_str()?.to_ascii_lowercase().as_str() {
                "fresh" => Some("FRESH"),
                "eventual" => Some("EVENTUAL"),
                "frozen" | "stale" => Some("FROZEN"),
                _ => None,
            },
            Err(_) => None,
        };
        let came = if meant.is_some() { given.repr()?.to_string() } else { type_name(given) };
        let hint = match meant {
            Some(member) => format!("write Consistency.{member}"),
            None => "write Consistency.FRESH, EVENTUAL or FROZEN".to_owned(),
        };
        let message = format!("consistency must be a member of limnion.Consistency, got {came}");
        return Err(invalid_type(py, message, Some(hint)));
    }
    let name = given.getattr("name")?;
    match (name.extract::<&str>()?, ttl) {
        ("EVENTUAL", Some(ttl)) => Ok(Consistency::Eventual(stretch("ttl", ttl)?)),
        ("EVENTUAL", None) => Err(invalid_argument(
            py,
            "ttl must be given with Consistency.EVENTUAL, got None".to_owned(),
            Some("write ttl=5.0 for answers that are at most five seconds old".to_owned()),
        )),
        (name, Some(ttl)) => Err(invalid_argument(
            py,
            format!("ttl must go with Consistency.EVENTUAL alone, got {ttl} with {name}"),
            Some("leave ttl out, or write Consistency.EVENTUAL".to_owned()),
        )),
        ("FRESH", None) => Ok(Consistency::Fresh),
        _ => Ok(Consistency::Frozen),
    }
}

/// A name that is a string.
pub(crate) fn name(what: &str, given: Given<'_, '_>) -> PyResult<String> {
    args::text(what, given).map(std::borrow::Cow::into_owned)
}

/// The names of some backends.
pub(crate) fn names(what: &str, given: Given<'_, '_>) -> PyResult<Vec<String>> {
    let wrong = || {
        let message = format!("{what} must be a list of the names of backends, got {}", type_name(given));
        let hint = given.is_instance_of::<PyString>().then(|| format!("write {what}=[{given:?}]"));
        invalid_type(given.py(), message, hint)
    };
    if given.is_instance_of::<PyString>() || given.is_instance_of::<PyDict>() {
        return Err(wrong());
    }
    let names: Vec<String> =
        given.try_iter().map_err(|_| wrong())?.map(|item| name(what, &item?)).collect::<PyResult<_>>()?;
    if names.is_empty() {
        let message = format!("{what} must name at least one backend, got none");
        let hint = format!("leave {what} out for all of them");
        return Err(invalid_argument(given.py(), message, Some(hint)));
    }
    if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        let message = format!("{what} must be different, got {:?} twice", twice.1);
        return Err(invalid_argument(given.py(), message, None));
    }
    Ok(names)
}

/// How indexes are built and kept.
#[expect(clippy::too_many_arguments, reason = "the options of one constructor")]
pub(crate) fn settings(
    consistency: Consistency,
    metric: Given<'_, '_>,
    bits: Given<'_, '_>,
    originals: Option<Given<'_, '_>>,
    rerank_factor: Option<Given<'_, '_>>,
    rotation_seed: Given<'_, '_>,
    max_cache_entries: Option<Given<'_, '_>>,
    max_cache_bytes: Option<Given<'_, '_>>,
) -> PyResult<Settings> {
    let params = Params {
        metric: args::metric(metric)?,
        bits: args::bits(bits)?,
        originals: args::originals(originals)?,
        seed: args::whole("rotation_seed", rotation_seed)?,
        rerank_factor: rerank_factor.map(|factor| args::small("rerank_factor", factor)).transpose()?,
    };
    Class::that_fits(&params).or_raise(metric.py())?;
    if params.rerank_factor == Some(0) {
        let message = "rerank_factor must be at least 1, got 0".to_owned();
        return Err(invalid_argument(metric.py(), message, None));
    }
    let bound =
        |name: &str, given: Option<Given<'_, '_>>| given.map(|given| args::whole(name, given)).transpose();
    Ok(Settings {
        params,
        consistency,
        max_bytes: bound("max_cache_bytes", max_cache_bytes)?,
        max_entries: bound("max_cache_entries", max_cache_entries)?,
    })
}

/// Whether float16 arrays are welcome.
pub(crate) fn half(settings: &Settings) -> bool {
    settings.params.originals == Some(Precision::F16)
}

/// What searches have in common.
pub(crate) fn search(
    k: Option<Given<'_, '_>>,
    recall: Option<Given<'_, '_>>,
    rerank_factor: Option<Given<'_, '_>>,
    among: Option<Given<'_, '_>>,
    cached_only: Option<Given<'_, '_>>,
) -> PyResult<Search> {
    let options = Options {
        recall: recall.map(|recall| args::number("recall", recall)).transpose()?,
        rerank_factor: rerank_factor.map(|factor| args::small("rerank_factor", factor)).transpose()?,
        ..Options::new(k.map_or(Ok(10), |k| args::count("k", k))?)
    };
    let cached_only = match cached_only.map(|given| (given, given.cast::<PyBool>())) {
        None => false,
        Some((_, Ok(wish))) => wish.is_true(),
        Some((given, Err(_))) => {
            let message = format!("cached_only must be True or False, got {}", type_name(given));
            return Err(invalid_type(given.py(), message, None));
        }
    };
    Ok(Search { options, among: among.map(self::among).transpose()?, deadline: None, cached_only })
}

/// Ids of either kind, or a filter.
fn among(given: Given<'_, '_>) -> PyResult<Where> {
    let py = given.py();
    let sequence = given.is_instance_of::<PyList>() || given.is_instance_of::<PyTuple>();
    let array = given.cast::<PyUntypedArray>();
    if let Ok(array) = array
        && array.dtype().kind() == b'b'
    {
        let message = "where must be ids or a filter, got a mask: the rows of a lake are in no order";
        let hint = "give the ids that may be found: where=ids[mask]".to_owned();
        return Err(invalid_type(py, message.to_owned(), Some(hint)));
    }
    if sequence || array.is_ok() {
        return ids("where", given).map(Where::Ids);
    }
    if given.hasattr("__array__")? || given.is_instance_of::<pyo3::types::PyRange>() {
        return args::ids("where", given).map(|ids| Where::Ids(Ids::Numbers(ids)));
    }
    let plain = py.import("limnion.filters")?.getattr("plain")?;
    let plain = plain.call1((given,)).map_err(|_| {
        let message = format!("where must be ids or a filter, got {}", type_name(given));
        let hint = "write where=[1, 2], where={\"year\": {\"$gte\": 2020}} or where=F(\"year\") >= 2020";
        invalid_type(py, message, Some(hint.to_owned()))
    })?;
    filter(&plain).map(Where::Matching)
}

fn filter(plain: Given<'_, '_>) -> PyResult<Filter> {
    store::filter(Some(plain))
}

/// Ids: all integers or all strings.
pub(crate) fn ids(name: &str, given: Given<'_, '_>) -> PyResult<Ids> {
    let given = match given.cast::<PyUntypedArray>() {
        Ok(array) if matches!(array.dtype().kind(), b'U' | b'O') => &given.call_method0("tolist")?,
        _ => given,
    };
    let first = match given.is_instance_of::<PyList>() || given.is_instance_of::<PyTuple>() {
        true => given.try_iter()?.next().transpose()?,
        false => None,
    };
    if !first.is_some_and(|first| first.is_instance_of::<PyString>()) {
        return args::ids(name, given).map(Ids::Numbers);
    }
    let names = given.try_iter()?.enumerate().map(|(at, item)| {
        let item = item?;
        let text = item.cast::<PyString>().map_err(|_| {
            let message = format!(
                "{name} must be all integers or all strings, got {} at position {at}",
                type_name(&item)
            );
            invalid_type(item.py(), message, None)
        })?;
        PyResult::Ok(text.to_str()?.into())
    });
    names.collect::<PyResult<_>>().map(Ids::Names)
}
