//! What is to be written: names, bodies, batches and conditions, taken from Python.

use std::sync::Arc;

use limnion_store::{Batch, Body, Condition, Expect, Op, Vector, clock};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyInt, PyMapping, PySequence, PyString, PyTuple};

use crate::args;
use crate::errors::{invalid_argument, invalid_type};
use crate::json::{self, Encoded};
use crate::moment::{invalid, stretch};

/// Bytes of a namespace.
const NAMESPACE_BYTES: usize = 255;
/// Bytes of a key.
const KEY_BYTES: usize = 4_096;

fn text<'a>(name: &str, given: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    let py = given.py();
    let Ok(string) = given.cast::<PyString>() else {
        let message = format!("{name} must be a string, got {}", given.get_type().name()?);
        let hint = given.is_instance_of::<PyInt>().then(|| format!("write str({name})"));
        return Err(invalid_type(py, message, hint));
    };
    string.to_str().map_err(|_| {
        let message = format!("{name} must be valid Unicode, got a surrogate without its pair");
        invalid(py, message, "decode the text with errors='replace'")
    })
}

/// A namespace: a string that is not empty, has no slash, and is not too long.
#[inline]
pub(crate) fn namespace<'a>(given: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    let name = text("namespace", given)?;
    let message = if name.is_empty() {
        "namespace must not be empty".to_owned()
    } else if name.contains('/') {
        format!("namespace must have no '/' in it, got {name:?}")
    } else if name.len() > NAMESPACE_BYTES {
        format!("namespace must have at most {NAMESPACE_BYTES} bytes, got {}", name.len())
    } else {
        return Ok(name);
    };
    let hint = "a '/' divides namespace and key: \"users/alice\" is the key 'alice' in 'users'";
    Err(invalid(given.py(), message, hint))
}

/// A key: a string that is not empty and not too long.
#[inline]
pub(crate) fn key<'a>(given: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    let name = text("key", given)?;
    let message = if name.is_empty() {
        "key must not be empty".to_owned()
    } else if name.len() > KEY_BYTES {
        format!("key must have at most {KEY_BYTES} bytes, got {}", name.len())
    } else {
        return Ok(name);
    };
    Err(invalid(given.py(), message, "long names belong into the value or the metadata"))
}

/// What a put takes beside the value.
pub(crate) struct Extras<'a, 'py> {
    pub(crate) ttl: Option<&'a Bound<'py, PyAny>>,
    pub(crate) metadata: Option<&'a Bound<'py, PyAny>>,
    pub(crate) text: Option<&'a Bound<'py, PyAny>>,
    pub(crate) vector: Option<&'a Bound<'py, PyAny>>,
    pub(crate) vectors: Option<&'a Bound<'py, PyAny>>,
}

pub(crate) fn body(value: &Bound<'_, PyAny>, extras: &Extras<'_, '_>) -> PyResult<Body> {
    let Encoded { content, bytes } = json::encode(value)?;
    let mut body = Body { content, value: bytes, ..Body::json([]) };
    let Extras { ttl, metadata, text: words, vector, vectors } = extras;
    if let Some(ttl) = ttl {
        body.expires = Some(clock::now().saturating_add(stretch("ttl", ttl)?));
    }
    if let Some(metadata) = metadata {
        if !metadata.is_instance_of::<PyDict>() {
            let message = format!("metadata must be a dict, got {}", metadata.get_type().name()?);
            return Err(invalid_type(
                metadata.py(),
                message,
                Some("write metadata={\"name\": ...}".to_owned()),
            ));
        }
        body.metadata = Some(json::encode_plain("metadata", metadata)?.into());
    }
    if let Some(words) = words {
        body.text = Some(text("text", words)?.into());
    }
    if let Some(given) = vector {
        body.vectors.push(named("", "vector", given)?);
    }
    if let Some(given) = vectors {
        let given = given.cast::<PyDict>().map_err(|_| {
            let came = given.get_type().name().map_or_else(|_| String::new(), |name| name.to_string());
            let message = format!("vectors must be a dict of names to vectors, got {came}");
            invalid_type(given.py(), message, Some("one that needs no name is vector=".to_owned()))
        })?;
        for (name, numbers) in given.items().extract::<Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>)>>()? {
            let name = text("the name of a vector", &name)?;
            if name.is_empty() && vector.is_some() {
                let message = "vectors must not have the empty name beside vector=".to_owned();
                return Err(invalid(given.py(), message, "give it a name"));
            }
            body.vectors.push(named(name, "vectors", &numbers)?);
        }
    }
    Ok(body)
}

/// A vector with a name.
pub(crate) fn named(name: &str, argument: &'static str, given: &Bound<'_, PyAny>) -> PyResult<Vector> {
    let numbers = args::vector(argument, given, false)?.into();
    Ok(Vector { name: name.into(), ..vector(argument, given.py(), numbers)? })
}

/// A vector without a name, of numbers that it can have.
pub(crate) fn vector(argument: &'static str, py: Python<'_>, numbers: Arc<[f32]>) -> PyResult<Vector> {
    if let Some(at) = numbers.iter().position(|number| !number.is_finite()) {
        let message = format!("{argument} must have finite numbers, got NaN or infinity at position {at}");
        return Err(invalid_argument(py, message, None));
    }
    if numbers.is_empty() {
        return Err(invalid_argument(py, format!("{argument} must have a number at least"), None));
    }
    Ok(Vector { name: "".into(), numbers })
}

/// `"absent"`, `"present"` or a version.
pub(crate) fn expect(given: &Bound<'_, PyAny>) -> PyResult<Expect> {
    if given.is_instance_of::<PyInt>() && !given.is_instance_of::<PyBool>() {
        if let Ok(version) = given.extract::<u64>() {
            return Ok(if version == 0 { Expect::Absent } else { Expect::Version(version) });
        }
    } else if let Ok(word) = given.cast::<PyString>() {
        match word.to_str()? {
            "absent" => return Ok(Expect::Absent),
            "present" => return Ok(Expect::Present),
            _ => {}
        }
    }
    let message =
        format!("expect must be 'absent', 'present' or the number of a version, got {}", given.repr()?);
    Err(invalid(given.py(), message, "take the number from record.version"))
}

/// A write that is held back: its value is encoded already.
#[pyclass(frozen, module = "limnion._native")]
pub(crate) struct Write(pub(crate) Op);

#[pymethods]
impl Write {
    /// The write of a value.
    #[staticmethod]
    #[expect(clippy::too_many_arguments, reason = "the options of one call")]
    #[pyo3(signature = (namespace, key, value, ttl = None, metadata = None, text = None, vector = None, vectors = None))]
    fn put(
        namespace: &Bound<'_, PyAny>,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        metadata: Option<&Bound<'_, PyAny>>,
        text: Option<&Bound<'_, PyAny>>,
        vector: Option<&Bound<'_, PyAny>>,
        vectors: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let (namespace, key) = (self::namespace(namespace)?.into(), self::key(key)?.into());
        let body = body(value, &Extras { ttl, metadata, text, vector, vectors })?;
        Ok(Self(Op::Put { namespace, key, body }))
    }

    /// The write of a deletion.
    #[staticmethod]
    fn delete(namespace: &Bound<'_, PyAny>, key: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (namespace, key) = (self::namespace(namespace)?.into(), self::key(key)?.into());
        Ok(Self(Op::Delete { namespace, key }))
    }

    /// Whether it is a deletion.
    #[getter]
    fn deletes(&self) -> bool {
        matches!(self.0, Op::Delete { .. })
    }

    /// The value, decoded again; `None` for a deletion.
    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match &self.0 {
            Op::Put { body, .. } => json::decode_bytes(py, body.content, &body.value),
            Op::Delete { .. } => Ok(py.None().into_bound(py)),
        }
    }
}

/// Rows of (namespace, key, value), or of (key, value) where the namespace is given; a mapping is its items.
pub(crate) fn rows(given: &Bound<'_, PyAny>, within: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<Op>> {
    let py = given.py();
    let within: Option<Arc<str>> = within.map(|given| namespace(given).map(Arc::from)).transpose()?;
    let items = match given.cast::<PyMapping>() {
        Ok(mapping) => mapping.items()?.into_any(),
        Err(_) => given.clone(),
    };
    let mut ops = Vec::with_capacity(items.len().unwrap_or(0).min(1 << 16));
    let mut last: Arc<str> = "".into();
    for (at, row) in items.try_iter()?.enumerate() {
        let row = row?;
        let (name, key, value) = take_row(&row, within.as_ref()).ok_or_else(|| {
            let form = if within.is_some() { "(key, value)" } else { "(namespace, key, value)" };
            let came = row.repr().map_or_else(|_| String::new(), |told| told.to_string());
            let came: String = came.chars().take(80).collect();
            let message = format!("rows must be of the form {form}, got {came} at position {at}");
            invalid(py, message, "a mapping may stand for them: {\"ns/key\": value}")
        })?;
        let add = || {
            let name = match &name {
                Some(name) => namespace(name)?,
                None => "",
            };
            let key = self::key(&key)?;
            let Encoded { content, bytes } = json::encode(&value)?;
            PyResult::Ok((name, Arc::<str>::from(key), Body { content, value: bytes, ..Body::json([]) }))
        };
        let (name, key, body) = add().inspect_err(|error| {
            let _ = error.value(py).call_method1("add_note", (format!("in row {at}"),));
        })?;
        let namespace = match &within {
            Some(namespace) => namespace.clone(),
            None => {
                if *last != *name {
                    last = name.into();
                }
                last.clone()
            }
        };
        ops.push(Op::Put { namespace, key, body });
    }
    Ok(ops)
}

type Row<'py> = (Option<Bound<'py, PyAny>>, Bound<'py, PyAny>, Bound<'py, PyAny>);

fn take_row<'py>(row: &Bound<'py, PyAny>, within: Option<&Arc<str>>) -> Option<Row<'py>> {
    if let Ok(row) = row.cast::<PyTuple>() {
        return match (row.len(), within) {
            (3, None) => Some((row.get_item(0).ok(), row.get_item(1).ok()?, row.get_item(2).ok()?)),
            (2, Some(_)) => Some((None, row.get_item(0).ok()?, row.get_item(1).ok()?)),
            // The item of a mapping: "ns/key", or a pair of both.
            (2, None) => {
                let (place, value) = (row.get_item(0).ok()?, row.get_item(1).ok()?);
                if let Ok(place) = place.cast::<PyString>() {
                    let parts = place.call_method1("split", ("/", 1)).ok()?;
                    (parts.len().ok()? == 2)
                        .then(|| Some((parts.get_item(0).ok(), parts.get_item(1).ok()?, value)))
                        .flatten()
                } else {
                    let pair = place.cast::<PyTuple>().ok().filter(|pair| pair.len() == 2)?;
                    Some((pair.get_item(0).ok(), pair.get_item(1).ok()?, value))
                }
            }
            _ => None,
        };
    }
    if row.is_instance_of::<PyString>() || !row.is_instance_of::<PySequence>() {
        return None;
    }
    take_row(row.cast::<PySequence>().ok()?.to_tuple().ok()?.as_any(), within)
}

/// A batch of what Python held back, under conditions of (namespace, key, expect).
pub(crate) fn batch(
    writes: Vec<PyRef<'_, Write>>,
    conditions: Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>)>,
) -> PyResult<Batch> {
    let condition = |(namespace, key, expect): (Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        Ok(Condition {
            namespace: self::namespace(&namespace)?.into(),
            key: self::key(&key)?.into(),
            expect: self::expect(&expect)?,
        })
    };
    Ok(Batch {
        ops: writes.into_iter().map(|write| write.0.clone()).collect(),
        conditions: conditions.into_iter().map(condition).collect::<PyResult<_>>()?,
    })
}

/// One put, with a condition where there is one.
pub(crate) fn one(op: Op, expect: Option<Expect>) -> Batch {
    let condition = expect.map(|expect| {
        let (Op::Put { namespace, key, .. } | Op::Delete { namespace, key }) = &op;
        Condition { namespace: namespace.clone(), key: key.clone(), expect }
    });
    Batch { conditions: condition.into_iter().collect(), ops: vec![op] }
}
