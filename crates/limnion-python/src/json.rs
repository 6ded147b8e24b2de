//! Python values as JSON text, and back, exactly.
//!
//! `None`, `bool`, `int`, `float`, `str`, `list` and `dict` are JSON themselves; a tuple becomes a list. Whatever else can be
//! stored is lowered by `limnion.serializers` to an object with the key `$limnion`, which says what it stands for:
//!
//! ```text
//! {"$limnion": "date 2026-01-02"}                           what is written as one word: kind, space, word
//! {"$limnion": "set", "value": [1, 2]}                      what has parts
//! {"$limnion": "object", "name": "Point", "value": ...}     what was registered under that name
//! {"$limnion": "dict", "value": {"$limnion": 1}}            a user's own dict that happens to have the key
//! ```
//!
//! Words of one kind are in order where their values are, as far as that can be done: filters compare them as strings.
//! So text without such an object is told apart at once ([`Content::Json`]), and read without looking for them.

use std::fmt::Write as _;
use std::sync::Arc;

use jiter::{PythonParse, StringCacheMode};
use limnion_store::{Content, Payload};
use limnion_types::{Error, ErrorKind};
use pyo3::exceptions::PyUnicodeEncodeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMemoryView, PyString, PyTuple,
};

use crate::errors::exception;

/// The key that marks an object as standing for something else.
const MARK: &str = "$limnion";
/// How deep values may nest: as deep as they can be read again.
const DEPTH: usize = 200;
/// Integers of more digits are written in hexadecimal: decimal ones take time that grows with the square of their length,
/// and the parser refuses them.
const DIGITS: usize = 4_300;

/// A value, ready to be stored.
pub(crate) struct Encoded {
    pub(crate) content: Content,
    pub(crate) bytes: Arc<[u8]>,
}

/// Encodes a value of whatever type can be stored.
pub(crate) fn encode(value: &Bound<'_, PyAny>) -> PyResult<Encoded> {
    if value.is_instance_of::<PyBytes>() {
        return Ok(Encoded { content: Content::Bytes, bytes: value.cast::<PyBytes>()?.as_bytes().into() });
    }
    if value.is_instance_of::<PyByteArray>() || value.is_instance_of::<PyMemoryView>() {
        let copy = value.py().get_type::<PyBytes>().call1((value,))?;
        return Ok(Encoded { content: Content::Bytes, bytes: copy.cast::<PyBytes>()?.as_bytes().into() });
    }
    let encoder = Encoder::run(value, false).map_err(|problem| problem.raise(value.py(), "value"))?;
    let content = if encoder.tagged { Content::TaggedJson } else { Content::Json };
    Ok(Encoded { content, bytes: encoder.out.into() })
}

/// Encodes a dict of nothing but JSON, for those who read it without Python.
pub(crate) fn encode_plain(name: &str, given: &Bound<'_, PyAny>) -> PyResult<String> {
    let wrong = |py, problem: Box<Problem>| problem.raise(py, name);
    let encoder = Encoder::run(given, true).map_err(|problem| wrong(given.py(), problem))?;
    String::from_utf8(encoder.out).map_err(|_| {
        let problem = Problem::new("must be text", None);
        wrong(given.py(), problem)
    })
}

/// The value of a payload.
#[inline]
pub(crate) fn decode<'py>(py: Python<'py>, payload: &Payload) -> PyResult<Bound<'py, PyAny>> {
    decode_bytes(py, payload.content(), payload.value())
}

/// A value from its bytes.
#[inline]
pub(crate) fn decode_bytes<'py>(
    py: Python<'py>,
    content: Content,
    bytes: &[u8],
) -> PyResult<Bound<'py, PyAny>> {
    match content {
        Content::Json => parse(py, bytes),
        Content::TaggedJson => restore(parse(py, bytes)?),
        Content::Bytes => Ok(PyBytes::new(py, bytes).into_any()),
    }
}

/// JSON text as Python values.
#[inline]
pub(crate) fn parse<'py>(py: Python<'py>, text: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let parser = PythonParse { cache_mode: StringCacheMode::All, ..PythonParse::default() };
    parser.python_parse(py, text).map_err(|error| {
        let message = format!("the stored JSON cannot be read: {}", error.description(text));
        exception(py, &Error::new(ErrorKind::Serialization, message))
    })
}

/// Why a value cannot be stored, and where in it.
enum Problem {
    /// There is a value that takes Python code: begin again, guarded.
    Guard,
    /// Python raised.
    Raised(PyErr, Path),
    /// It is against a rule.
    Wrong { path: Path, message: String, suggestion: Option<String> },
}

/// From the inside out.
type Path = Vec<Step>;

enum Step {
    Key(String),
    Position(usize),
    Field(String),
}

type Outcome = Result<(), Box<Problem>>;

impl Problem {
    fn new(message: impl Into<String>, suggestion: Option<String>) -> Box<Self> {
        Box::new(Self::Wrong { path: Vec::new(), message: message.into(), suggestion })
    }

    fn within(mut self: Box<Self>, step: Step) -> Box<Self> {
        if let Self::Raised(_, path) | Self::Wrong { path, .. } = &mut *self {
            path.push(step);
        }
        self
    }

    fn raise(self, py: Python<'_>, root: &str) -> PyErr {
        let told = |path: &Path| {
            let mut place = root.to_owned();
            // A value that contains itself has a long path, of which the beginning says enough.
            for step in path.iter().rev().take(12) {
                let _ = match step {
                    Step::Key(key) => write!(place, "[{key:?}]"),
                    Step::Position(at) => write!(place, "[{at}]"),
                    Step::Field(name) => write!(place, ".{name}"),
                };
            }
            if path.len() > 12 {
                place.push_str("...");
            }
            place
        };
        match self {
            Self::Guard => exception(py, &Error::new(ErrorKind::Internal, format!("{root} was not encoded"))),
            Self::Raised(error, path) => {
                let note = format!("while storing {}", told(&path));
                // A note is a courtesy.
                let _ = error.value(py).call_method1("add_note", (note,));
                error
            }
            Self::Wrong { path, message, suggestion } => {
                let error = Error::new(ErrorKind::Serialization, format!("{} {message}", told(&path)));
                exception(py, &suggestion.map_or(error.clone(), |suggestion| error.suggest(suggestion)))
            }
        }
    }
}

impl From<PyErr> for Box<Problem> {
    fn from(error: PyErr) -> Self {
        Box::new(Problem::Raised(error, Vec::new()))
    }
}

struct Encoder {
    out: Vec<u8>,
    /// Python code may run, and change what is being encoded meanwhile.
    guarded: bool,
    /// Nothing but JSON is wanted.
    plain: bool,
    /// Something has been lowered.
    tagged: bool,
    /// Inside of a set: what comes back must be hashable.
    hashable: bool,
}

impl Encoder {
    /// Encodes a value: as quickly as can be where it is of plain types, as most are.
    fn run(value: &Bound<'_, PyAny>, plain: bool) -> Result<Self, Box<Problem>> {
        let encode = |guarded| {
            let out = Vec::with_capacity(256);
            let mut encoder = Self { out, guarded, plain, tagged: false, hashable: false };
            encoder.value(value, 0).map(|()| encoder)
        };
        match encode(false) {
            Err(problem) if matches!(*problem, Problem::Guard) => encode(true),
            encoded => encoded,
        }
    }

    fn value(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> Outcome {
        if depth > DEPTH {
            let message = format!("nests deeper than {DEPTH} levels, or contains itself");
            return Err(Problem::new(message, Some("store its parts under keys of their own".to_owned())));
        }
        if let Ok(text) = value.cast_exact::<PyString>() {
            self.text(text)
        } else if value.is_none() {
            self.raw("null")
        } else if let Ok(truth) = value.cast_exact::<PyBool>() {
            self.raw(if truth.is_true() { "true" } else { "false" })
        } else if let Ok(number) = value.cast_exact::<PyInt>() {
            self.integer(number, depth)
        } else if let Ok(number) = value.cast_exact::<PyFloat>() {
            self.float(number.value())
        } else if let Ok(dict) = value.cast_exact::<PyDict>() {
            self.dict(dict, depth)
        } else if let Ok(list) = value.cast_exact::<PyList>() {
            self.list(list, depth)
        } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            self.items(tuple.iter(), depth)
        } else {
            self.lowered(value, depth)
        }
    }

    fn raw(&mut self, text: &str) -> Outcome {
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn quoted(&mut self, text: &str) -> Outcome {
        serde_json::to_writer(&mut self.out, text).map_err(|error| Problem::new(error.to_string(), None))
    }

    fn text(&mut self, text: &Bound<'_, PyString>) -> Outcome {
        self.quoted(unicode(text, "")?)
    }

    fn integer(&mut self, number: &Bound<'_, PyInt>, depth: usize) -> Outcome {
        if let Ok(small) = number.extract::<i64>() {
            return serde_json::to_writer(&mut self.out, &small)
                .map_err(|error| Problem::new(error.to_string(), None));
        }
        if !self.guarded {
            return Err(Box::new(Problem::Guard));
        }
        // Python refuses to write very long ones in decimal.
        let text = number.str().ok().filter(|text| text.len().is_ok_and(|digits| digits <= DIGITS));
        match text {
            Some(text) => self.raw(unicode(&text, "")?),
            None => {
                let hex = number.call_method1("__format__", ("x",))?;
                self.tag("int", None, &hex, depth)
            }
        }
    }

    fn float(&mut self, number: f64) -> Outcome {
        if number.is_finite() {
            // The shortest text that is read as the same number.
            return serde_json::to_writer(&mut self.out, &number)
                .map_err(|error| Problem::new(error.to_string(), None));
        }
        let name = if number.is_nan() {
            "nan"
        } else if number > 0.0 {
            "inf"
        } else {
            "-inf"
        };
        if self.plain {
            let message = format!("must be a finite number, got {name}: JSON has no word for it");
            return Err(Problem::new(message, Some("leave it out, or write None".to_owned())));
        }
        self.tagged = true;
        self.raw(&format!(r#"{{"{MARK}":"float {name}"}}"#))
    }

    fn list(&mut self, list: &Bound<'_, PyList>, depth: usize) -> Outcome {
        // Not its iterator: Python code may change the list on the way.
        let mut at = 0;
        let items = std::iter::from_fn(|| {
            at += 1;
            list.get_item(at - 1).ok()
        });
        self.items(items, depth)
    }

    fn items<'py>(&mut self, items: impl Iterator<Item = Bound<'py, PyAny>>, depth: usize) -> Outcome {
        self.out.push(b'[');
        for (at, item) in items.enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            self.value(&item, depth + 1).map_err(|problem| problem.within(Step::Position(at)))?;
        }
        self.out.push(b']');
        Ok(())
    }

    fn dict(&mut self, dict: &Bound<'_, PyDict>, depth: usize) -> Outcome {
        if self.hashable {
            return Err(Problem::new(
                "cannot come back as an element of a set: a dict is not hashable",
                Some("store a list, or register its type with limnion.register_serializer".to_owned()),
            ));
        }
        if !self.plain && !dict.is_empty() && dict.contains(intern!(dict.py(), MARK))? {
            self.tagged = true;
            self.raw(&format!(r#"{{"{MARK}":"dict","value":"#))?;
            self.object(dict, depth + 1)?;
            return self.raw("}");
        }
        self.object(dict, depth)
    }

    fn object(&mut self, dict: &Bound<'_, PyDict>, depth: usize) -> Outcome {
        self.out.push(b'{');
        if self.guarded {
            // A copy, which nobody changes.
            for (at, item) in dict.items().iter().enumerate() {
                let (key, value) = item.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
                self.member(at, &key, &value, depth)?;
            }
        } else {
            for (at, (key, value)) in dict.iter().enumerate() {
                self.member(at, &key, &value, depth)?;
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    fn member(
        &mut self,
        at: usize,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        depth: usize,
    ) -> Outcome {
        if at > 0 {
            self.out.push(b',');
        }
        let Ok(name) = key.cast::<PyString>() else {
            if !self.guarded {
                return Err(Box::new(Problem::Guard)); // to tell of the key takes its repr
            }
            let message = format!("must have strings as keys, got {} {}", type_name(key), shortened(key));
            let hint = "write str(key), or store a list of pairs";
            return Err(Problem::new(message, Some(hint.to_owned())));
        };
        let name = unicode(name, "a key with ")?;
        self.quoted(name)?;
        self.out.push(b':');
        self.value(value, depth + 1).map_err(|problem| problem.within(Step::Key(name.to_owned())))
    }

    fn tag(&mut self, tag: &str, name: Option<&str>, value: &Bound<'_, PyAny>, depth: usize) -> Outcome {
        self.tagged = true;
        if let (None, Ok(word)) = (name, value.cast_exact::<PyString>()) {
            self.raw(&format!(r#"{{"{MARK}":"#))?;
            self.quoted(&format!("{tag} {}", unicode(word, "")?))?;
            return self.raw("}");
        }
        self.raw(&format!(r#"{{"{MARK}":"{tag}","#))?;
        if let Some(name) = name {
            self.raw(r#""name":"#)?;
            self.quoted(name)?;
            self.raw(",")?;
        }
        self.raw(r#""value":"#)?;
        match tag {
            "set" | "frozenset" => self.set(value, depth + 1)?,
            // What is made of it is up to whoever registered it.
            _ => {
                let hashable = std::mem::replace(&mut self.hashable, false);
                self.value(value, depth + 1)?;
                self.hashable = hashable;
            }
        }
        self.raw("}")
    }

    /// The elements in an order of their own, so that equal sets have equal bytes.
    fn set(&mut self, elements: &Bound<'_, PyAny>, depth: usize) -> Outcome {
        let hashable = std::mem::replace(&mut self.hashable, true);
        let start = self.out.len();
        let mut encoded = Vec::new();
        for element in elements.try_iter()? {
            self.value(&element?, depth + 1)?;
            encoded.push(self.out.split_off(start));
        }
        self.hashable = hashable;
        encoded.sort_unstable();
        self.out.push(b'[');
        self.out.extend_from_slice(&encoded.join(&b','));
        self.out.push(b']');
        Ok(())
    }

    /// What is not JSON: Python knows what to make of it.
    fn lowered(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> Outcome {
        if !self.guarded {
            return Err(Box::new(Problem::Guard));
        }
        static LOWER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = value.py();
        let lowered = LOWER.import(py, "limnion.serializers", "lower")?.call1((value,))?;
        if lowered.is_none() {
            let hint = if self.plain {
                "store it in the value, or as a string".to_owned()
            } else {
                format!(
                    "tell limnion how: limnion.register_serializer({0}, encode, decode)",
                    type_name(value)
                )
            };
            return Err(Problem::new(
                format!("has a type that cannot be stored: {}", full_name(value)),
                Some(hint),
            ));
        }
        let (tag, name, inner) = lowered.extract::<(Option<String>, Option<String>, Bound<'_, PyAny>)>()?;
        let Some(tag) = tag else {
            // One level counts: what is lowered to its like must come to an end.
            return self.value(&inner, depth + usize::from(inner.get_type().is(value.get_type())));
        };
        if self.plain {
            let message = format!("must hold nothing but JSON, got {}", full_name(value));
            return Err(Problem::new(message, Some("write it as a string or a number".to_owned())));
        }
        let place = || Step::Field(format!("<{}>", type_name(value)));
        self.tag(&tag, name.as_deref(), &inner, depth).map_err(|problem| problem.within(place()))
    }
}

fn unicode<'a>(text: &'a Bound<'_, PyString>, what: &str) -> Result<&'a str, Box<Problem>> {
    text.to_str().map_err(|error| {
        if !error.is_instance_of::<PyUnicodeEncodeError>(text.py()) {
            return error.into();
        }
        Problem::new(
            format!("has {what}a surrogate without its pair, which is no Unicode text"),
            Some("decode the text with errors='replace', or store bytes".to_owned()),
        )
    })
}

/// Makes of marked objects what they stand for.
fn restore(value: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyAny>> {
    if let Ok(list) = value.cast_exact::<PyList>() {
        for (at, item) in list.iter().enumerate() {
            if is_container(&item) {
                list.set_item(at, restore(item)?)?;
            }
        }
        return Ok(value);
    }
    let Ok(dict) = value.cast_exact::<PyDict>() else { return Ok(value) };
    let Some(tag) = dict.get_item(MARK)? else {
        restore_values(dict)?;
        return Ok(value);
    };
    let py = value.py();
    let inner = dict.get_item("value")?.unwrap_or_else(|| py.None().into_bound(py));
    if tag.eq("dict")? {
        // Its own mark is the user's.
        if let Ok(inner) = inner.cast_exact::<PyDict>() {
            restore_values(inner)?;
        }
        return Ok(inner);
    }
    static RAISE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let raise = RAISE.import(py, "limnion.serializers", "restore")?;
    if let Some((tag, word)) = tag.cast::<PyString>()?.to_str()?.split_once(' ') {
        return raise.call1((tag, py.None(), word));
    }
    raise.call1((tag, dict.get_item("name")?, restore(inner)?))
}

fn restore_values(dict: &Bound<'_, PyDict>) -> PyResult<()> {
    for (key, item) in dict.items().extract::<Vec<(Bound<'_, PyAny>, Bound<'_, PyAny>)>>()? {
        if is_container(&item) {
            dict.set_item(key, restore(item)?)?;
        }
    }
    Ok(())
}

fn is_container(value: &Bound<'_, PyAny>) -> bool {
    value.is_exact_instance_of::<PyDict>() || value.is_exact_instance_of::<PyList>()
}

fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string())
}

fn full_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().fully_qualified_name().map_or_else(|_| "an object".to_owned(), |name| name.to_string())
}

fn shortened(value: &Bound<'_, PyAny>) -> String {
    let told = value.repr().map_or_else(|_| String::new(), |told| told.to_string());
    if told.chars().count() > 60 { told.chars().take(57).chain("...".chars()).collect() } else { told }
}

/// Values of queries, as Python has them.
pub(crate) fn from_json<'py>(py: Python<'py>, value: &serde_json::Value) -> PyResult<Bound<'py, PyAny>> {
    let text = serde_json::to_vec(value)
        .map_err(|error| exception(py, &Error::new(ErrorKind::Internal, error.to_string())))?;
    parse(py, &text)
}
