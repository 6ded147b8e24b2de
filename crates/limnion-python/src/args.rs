//! What Python passes in: one taker per kind of argument, each checked and copied while attached.
//!
//! Nothing here keeps a pointer into Python's memory: another thread may write to an array, or change its shape, as soon
//! as the interpreter is left. Messages name the argument, the expectation and what came.

use std::ops::Range;
use std::path::PathBuf;

use half::f16;
use half::slice::HalfFloatSliceExt;
use limnion_index::{Layout, Precision};
use limnion_types::{Error, ErrorKind, Metric};
use numpy::npyffi::NPY_TYPES;
use numpy::{PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyInt, PyList, PyRange, PyString, PyTuple};

use crate::door::Door as _;
use crate::errors::{OrRaise, invalid_argument, invalid_type};

/// Rows are copied in blocks of at most so many, and the interpreter is left in between.
const BLOCK_ROWS: usize = 8_192;
/// ... and of about so many numbers at most.
const BLOCK_NUMBERS: usize = 1 << 22;

/// One vector of shape (d,).
#[inline]
pub(crate) fn vector(name: &'static str, given: &Bound<'_, PyAny>, half: bool) -> PyResult<Vec<f32>> {
    let numbers = Numbers::take(name, given, 1, half)?;
    let mut copy = Vec::new();
    numbers.copy(0..numbers.count, &mut copy)?;
    Ok(copy)
}

/// A matrix of shape (n, d), read in blocks.
pub(crate) struct Matrix<'py> {
    numbers: Numbers<'py>,
    rows: usize,
    dim: usize,
}

impl<'py> Matrix<'py> {
    pub(crate) fn take(name: &'static str, given: &Bound<'py, PyAny>, half: bool) -> PyResult<Self> {
        let numbers = Numbers::take(name, given, 2, half)?;
        match *numbers.array.shape() {
            [rows, dim] => Ok(Self { numbers, rows, dim }),
            _ => Err(changed(given.py(), name)),
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// The blocks to copy one after another.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, step) = (self.rows, (BLOCK_NUMBERS / self.dim.max(1)).clamp(1, BLOCK_ROWS));
        (0..rows).step_by(step).map(move |start| start..(start + step).min(rows))
    }

    /// Appends rows to `copy`. Raises where the array is no longer what it was.
    pub(crate) fn copy(&self, rows: Range<usize>, copy: &mut Vec<f32>) -> PyResult<()> {
        self.numbers.copy(rows.start * self.dim..rows.end * self.dim, copy)
    }

    /// All rows. Other threads and signals get their turn between blocks.
    pub(crate) fn copy_all(&self) -> PyResult<Vec<f32>> {
        let py = self.numbers.array.py();
        let mut copy = Vec::new();
        copy.try_reserve_exact(self.numbers.count).map_err(|_| PyMemoryError::new_err(()))?;
        for block in self.blocks() {
            self.copy(block, &mut copy)?;
            py.outside(std::thread::yield_now);
            py.check_signals()?;
        }
        Ok(copy)
    }
}

/// A C-contiguous array of float32 or, where they are welcome, of float16.
struct Numbers<'py> {
    name: &'static str,
    array: Bound<'py, PyUntypedArray>,
    half: bool,
    count: usize,
}

impl<'py> Numbers<'py> {
    #[inline]
    fn take(name: &'static str, given: &Bound<'py, PyAny>, ndim: usize, half: bool) -> PyResult<Self> {
        let array = match given.cast::<PyUntypedArray>() {
            Ok(array) => array.clone(),
            Err(_) => Self::from_others(name, given, ndim)?,
        };
        if array.ndim() != ndim || !readable(&array, half) {
            return Err(Self::unwelcome(name, &array, ndim));
        }
        let (count, half) = (array.len(), is_half(&array));
        Ok(Self { name, array, half, count })
    }

    /// Lists and tuples are converted; whatever else numpy can view as an array is taken as that array.
    fn from_others(
        name: &'static str,
        given: &Bound<'py, PyAny>,
        ndim: usize,
    ) -> PyResult<Bound<'py, PyUntypedArray>> {
        let py = given.py();
        let wrong = || {
            let expected = expected(ndim);
            let came = if given.is_none() { "None".to_owned() } else { type_name(given) };
            let rows = if ndim == 1 { "numbers" } else { "rows of one length" };
            let hint = format!("a list or tuple of {rows} is taken too, more slowly");
            invalid_type(py, format!("{name} must be {expected}, got {came}"), Some(hint))
        };
        let Ok(array) = as_array(given) else { return Err(wrong()) };
        let number = matches!(array.dtype().kind(), b'f' | b'i' | b'u');
        let sequence = given.is_instance_of::<PyList>() || given.is_instance_of::<PyTuple>();
        if !number || array.ndim() == 0 || (sequence && array.ndim() != ndim && !array.is_empty()) {
            return Err(wrong());
        }
        if !sequence {
            return Ok(array);
        }
        let options = PyDict::new(py);
        options.set_item("dtype", "float32")?;
        numpy(py, "ascontiguousarray")?.call((array,), Some(&options))?.cast_into().map_err(PyErr::from)
    }

    #[cold]
    fn unwelcome(name: &str, array: &Bound<'py, PyUntypedArray>, ndim: usize) -> PyErr {
        let py = array.py();
        let message = format!("{name} must be {}, got {}", expected(ndim), came(array));
        let hint = match (array.shape(), ndim) {
            (shape, _) if shape.len() == ndim => {
                format!("write np.ascontiguousarray({name}, dtype=np.float32)")
            }
            ([1, _], 1) => format!("write {name}[0]"),
            ([_, _], 1) => "one call takes one vector; the batch methods take several".to_owned(),
            ([_], 2) => format!("for a single row write {name}.reshape(1, -1)"),
            _ => format!("write np.ascontiguousarray({name}, dtype=np.float32).reshape({})", shape_of(ndim)),
        };
        invalid_type(py, message, Some(hint))
    }

    #[inline]
    fn copy(&self, range: Range<usize>, copy: &mut Vec<f32>) -> PyResult<()> {
        let unchanged = self.array.len() == self.count
            && is_half(&self.array) == self.half
            && readable(&self.array, self.half)
            && range.end <= self.count;
        if !unchanged {
            return Err(changed(self.array.py(), self.name));
        }
        copy.try_reserve(range.len()).map_err(|_| PyMemoryError::new_err(()))?;
        if self.half {
            // SAFETY: the array has the element type, is aligned and C-contiguous, and holds `count` elements; we are
            // attached, so that no Python code moves it meanwhile.
            let halves = unsafe { elements::<f16>(&self.array, range) };
            let start = copy.len();
            copy.resize(start + halves.len(), 0.0);
            halves.convert_to_f32_slice(copy.get_mut(start..).unwrap_or_default());
        } else {
            // SAFETY: as above.
            copy.extend_from_slice(unsafe { elements::<f32>(&self.array, range) });
        }
        Ok(())
    }
}

/// # Safety
/// The array is C-contiguous and aligned, its elements are `T`, `range` lies within them, and the slice is let go of
/// before anything can move the array's memory.
#[inline]
unsafe fn elements<'a, T: numpy::Element>(
    array: &'a Bound<'_, PyUntypedArray>,
    range: Range<usize>,
) -> &'a [T] {
    if range.is_empty() {
        return &[]; // numpy may have no memory for it
    }
    // SAFETY: the caller vouches for type and range.
    unsafe {
        let data = array.cast_unchecked::<PyArrayDyn<T>>().data();
        std::slice::from_raw_parts(data.add(range.start), range.len())
    }
}

/// A mask of shape (n,), where `array` is one.
pub(crate) fn mask(array: &Bound<'_, PyUntypedArray>) -> PyResult<Option<Vec<bool>>> {
    if array.dtype().num() != NPY_TYPES::NPY_BOOL as i32 || array.ndim() != 1 {
        return Ok(None);
    }
    let array = contiguous(array, "uint8")?;
    // A numpy bool may hold any byte, a Rust bool may not.
    // SAFETY: just made C-contiguous and of this type; copied before anything else runs.
    let mask = unsafe { elements::<u8>(&array, 0..array.len()) };
    Ok(Some(mask.iter().map(|&byte| byte != 0).collect()))
}

/// Binary vectors: a C-contiguous uint8 array of one or two dimensions, copied, and its shape.
pub(crate) fn bits_of(name: &str, given: &Bound<'_, PyAny>, ndim: usize) -> PyResult<(Vec<u8>, Vec<usize>)> {
    let py = given.py();
    let wrong = |came: String| {
        let shape = if ndim == 1 { "(bytes,)" } else { "(n, bytes)" };
        let message = format!("{name} must be a C-contiguous uint8 array of shape {shape}, got {came}");
        invalid_type(py, message, Some("np.packbits(bools, axis=-1) makes eight bits a byte".to_owned()))
    };
    let array = given.cast::<PyUntypedArray>().map_err(|_| wrong(type_name(given)))?;
    if array.ndim() != ndim || array.dtype().num() != NPY_TYPES::NPY_UBYTE as i32 || !array.is_c_contiguous()
    {
        return Err(wrong(came(array)));
    }
    let mut copy = Vec::new();
    copy.try_reserve_exact(array.len()).map_err(|_| PyMemoryError::new_err(()))?;
    // SAFETY: the array has the element type and is C-contiguous; we are attached, so that no Python code moves it meanwhile.
    copy.extend_from_slice(unsafe { elements::<u8>(array, 0..array.len()) });
    Ok((copy, array.shape().to_vec()))
}

fn is_half(array: &Bound<'_, PyUntypedArray>) -> bool {
    array.dtype().num() == NPY_TYPES::NPY_HALF as i32
}

#[inline]
fn readable(array: &Bound<'_, PyUntypedArray>, half: bool) -> bool {
    let dtype = array.dtype();
    let number = dtype.num();
    (number == NPY_TYPES::NPY_FLOAT as i32 || (half && number == NPY_TYPES::NPY_HALF as i32))
        && dtype.is_native_byteorder() != Some(false)
        && array.is_c_contiguous()
        && array.is_aligned()
}

fn changed(py: Python<'_>, name: &str) -> PyErr {
    invalid_argument(
        py,
        format!("{name} must stay as it is while it is read, got another shape or dtype"),
        None,
    )
}

fn expected(ndim: usize) -> String {
    format!("a C-contiguous float32 array of shape {}", shape_of(ndim))
}

fn shape_of(ndim: usize) -> &'static str {
    if ndim == 1 { "(d,)" } else { "(n, d)" }
}

/// An array, told in the words of a message.
pub(crate) fn came(array: &Bound<'_, PyUntypedArray>) -> String {
    let mut told = format!("{} of shape {}", array.dtype(), shape(array));
    if !array.is_c_contiguous() {
        told.push_str(", not C-contiguous");
    } else if !array.is_aligned() {
        told.push_str(", not aligned");
    }
    told
}

fn shape(array: &Bound<'_, PyUntypedArray>) -> String {
    PyTuple::new(array.py(), array.shape()).map_or_else(|_| String::new(), |shape| shape.to_string())
}

/// The name of an argument's type.
pub(crate) fn type_name(given: &Bound<'_, PyAny>) -> String {
    given.get_type().name().map_or_else(|_| "an object".to_owned(), |name| name.to_string())
}

fn numpy<'py>(py: Python<'py>, function: &'static str) -> PyResult<Bound<'py, PyAny>> {
    static NUMPY: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    NUMPY.get_or_try_init(py, || py.import("numpy").map(Bound::unbind))?.bind(py).getattr(function)
}

pub(crate) fn as_array<'py>(given: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    numpy(given.py(), "asarray")?.call1((given,))?.cast_into().map_err(PyErr::from)
}

fn contiguous<'py>(array: &Bound<'py, PyUntypedArray>, dtype: &str) -> PyResult<Bound<'py, PyUntypedArray>> {
    numpy(array.py(), "ascontiguousarray")?.call1((array, dtype))?.cast_into().map_err(PyErr::from)
}

/// Ids: integers of any width, at least 0.
pub(crate) fn ids(name: &str, given: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
    let sequence = given.is_instance_of::<PyList>()
        || given.is_instance_of::<PyTuple>()
        || given.is_instance_of::<PyRange>();
    if sequence {
        return given.try_iter()?.enumerate().map(|(at, item)| id_at(name, &item?, Some(at))).collect();
    }
    let array = match given.cast::<PyUntypedArray>() {
        Ok(array) => array.clone(),
        Err(_) => as_array(given).map_err(|_| not_ids(name, given, &type_name(given)))?,
    };
    ids_of(name, given, &array)
}

fn ids_of(name: &str, given: &Bound<'_, PyAny>, array: &Bound<'_, PyUntypedArray>) -> PyResult<Vec<u64>> {
    match (array.ndim(), array.dtype().kind()) {
        (1, b'u') => {
            let array = contiguous(array, "uint64")?;
            // SAFETY: just made C-contiguous and of this type; copied before anything else runs.
            Ok(unsafe { elements::<u64>(&array, 0..array.len()) }.to_vec())
        }
        (1, b'i') => {
            let array = contiguous(array, "int64")?;
            // SAFETY: as above.
            let signed = unsafe { elements::<i64>(&array, 0..array.len()) };
            let natural = |(at, &id): (usize, &i64)| {
                u64::try_from(id).map_err(|_| {
                    invalid_argument(
                        array.py(),
                        format!("{name} must be at least 0, got {id} at position {at}"),
                        None,
                    )
                })
            };
            signed.iter().enumerate().map(natural).collect()
        }
        _ if given.is_instance_of::<PyUntypedArray>() => Err(not_ids(name, given, &came(array))),
        _ => Err(not_ids(name, given, &type_name(given))),
    }
}

fn not_ids(name: &str, given: &Bound<'_, PyAny>, came: &str) -> PyErr {
    let message = format!("{name} must be an array or a list of integers of shape (n,), got {came}");
    invalid_type(given.py(), message, None)
}

/// One id or several.
pub(crate) fn id_or_ids(name: &str, given: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
    match natural(given) {
        Ok(id) => Ok(vec![id]),
        Err(Unnatural::Value) => id_at(name, given, None).map(|id| vec![id]),
        Err(Unnatural::Type) => ids(name, given),
    }
}

/// One id.
pub(crate) fn id(name: &str, given: &Bound<'_, PyAny>) -> PyResult<u64> {
    id_at(name, given, None)
}

fn id_at(name: &str, given: &Bound<'_, PyAny>, at: Option<usize>) -> PyResult<u64> {
    natural(given).map_err(|problem| {
        let place = at.map_or_else(String::new, |at| format!(" at position {at}"));
        match problem {
            Unnatural::Type => invalid_type(
                given.py(),
                format!("{name} must be an integer, got {}{place}", type_name(given)),
                None,
            ),
            Unnatural::Value => {
                let message = format!("{name} must be from 0 to 2**64 - 1, got {given}{place}");
                invalid_argument(given.py(), message, None)
            }
        }
    })
}

enum Unnatural {
    Type,
    Value,
}

/// An integer of at least 0; a bool is none.
#[inline]
fn natural(given: &Bound<'_, PyAny>) -> Result<u64, Unnatural> {
    if given.is_instance_of::<PyBool>() {
        return Err(Unnatural::Type);
    }
    given.extract::<u64>().map_err(|_| {
        // What has no `__index__` is no integer; what has one is negative or too large.
        let integer = given.is_instance_of::<PyInt>() || given.hasattr("__index__").unwrap_or(false);
        if integer && as_index(given).is_ok() { Unnatural::Value } else { Unnatural::Type }
    })
}

fn as_index<'py>(given: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    given.call_method0("__index__")
}

/// A number of things, at least 0. The core says where 0 is too few.
#[inline]
pub(crate) fn count(name: &str, given: &Bound<'_, PyAny>) -> PyResult<usize> {
    // More than memory can hold is as good as any such number.
    whole(name, given).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
}

/// An integer of at least 0.
#[inline]
pub(crate) fn whole(name: &str, given: &Bound<'_, PyAny>) -> PyResult<u64> {
    natural(given).map_err(|problem| match problem {
        Unnatural::Type => {
            invalid_type(given.py(), format!("{name} must be an integer, got {}", type_name(given)), None)
        }
        Unnatural::Value => {
            invalid_argument(given.py(), format!("{name} must be from 0 to 2**64 - 1, got {given}"), None)
        }
    })
}

/// An integer that fits 32 bits.
pub(crate) fn small(name: &str, given: &Bound<'_, PyAny>) -> PyResult<u32> {
    whole(name, given).and_then(|number| {
        u32::try_from(number).map_err(|_| {
            invalid_argument(given.py(), format!("{name} must be below 2**32, got {number}"), None)
        })
    })
}

/// A number such as a recall.
pub(crate) fn number(name: &str, given: &Bound<'_, PyAny>) -> PyResult<f32> {
    if given.is_instance_of::<PyBool>() || given.is_instance_of::<PyString>() {
        return Err(invalid_type(
            given.py(),
            format!("{name} must be a number, got {}", type_name(given)),
            None,
        ));
    }
    given.extract::<f64>().map(|number| number as f32).map_err(|_| {
        invalid_type(given.py(), format!("{name} must be a number, got {}", type_name(given)), None)
    })
}

pub(crate) fn text<'a>(name: &str, given: &'a Bound<'_, PyAny>) -> PyResult<std::borrow::Cow<'a, str>> {
    given
        .cast::<PyString>()
        .map_err(|_| {
            invalid_type(given.py(), format!("{name} must be a string, got {}", type_name(given)), None)
        })?
        .to_cow()
}

/// Bits a dimension.
pub(crate) fn bits(given: &Bound<'_, PyAny>) -> PyResult<u8> {
    whole("bits", given).map(|bits| u8::try_from(bits).unwrap_or(u8::MAX))
}

/// A path: a string or what has `__fspath__`.
pub(crate) fn path(name: &str, given: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    given.extract().map_err(|_| {
        invalid_type(given.py(), format!("{name} must be a string or a path, got {}", type_name(given)), None)
    })
}

/// `"l2"`, `"ip"` or `"cosine"`.
pub(crate) fn metric(given: &Bound<'_, PyAny>) -> PyResult<Metric> {
    text("metric", given)?.parse::<Metric>().or_raise(given.py())
}

/// `None`, `"f32"` or `"f16"`.
pub(crate) fn originals(given: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Precision>> {
    let Some(given) = given else { return Ok(None) };
    let name = text("originals", given)?;
    let all = [Precision::F32, Precision::F16];
    let known = all.into_iter().find(|precision| precision.as_str() == name).ok_or_else(|| {
        Error::new(ErrorKind::InvalidArgument, format!("originals must be 'f32' or 'f16', got {name:?}"))
    });
    known.map(Some).or_raise(given.py())
}

/// `"compact"` or `"inline"`.
pub(crate) fn layout(given: &Bound<'_, PyAny>) -> PyResult<Layout> {
    let name = text("layout", given)?;
    let known = [Layout::Compact, Layout::Inline].into_iter().find(|layout| layout.as_str() == name);
    let wrong = || {
        let message = format!("layout must be 'compact' or 'inline', got {name:?}");
        Error::new(ErrorKind::InvalidArgument, message)
    };
    known.ok_or_else(wrong).or_raise(given.py())
}

/// Who is told how far a job is: nobody, a bar on stderr, or a callable of the user's.
pub(crate) struct Progress<'py>(Option<Bound<'py, PyAny>>);

impl<'py> Progress<'py> {
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// `False`, `True` (a bar labelled `label`), or a callable that takes (done, total).
    pub(crate) fn take(given: &Bound<'py, PyAny>, label: &str) -> PyResult<Self> {
        let py = given.py();
        if let Ok(wanted) = given.cast::<PyBool>() {
            let bar = || py.import("limnion._progress")?.getattr("Bar")?.call1((label,));
            return if wanted.is_true() { bar().map(|bar| Self(Some(bar))) } else { Ok(Self(None)) };
        }
        if !given.is_callable() {
            let message =
                format!("progress must be a bool or a callable of (done, total), got {}", type_name(given));
            return Err(invalid_type(py, message, None));
        }
        Ok(Self(Some(given.clone())))
    }

    /// [`Progress::take`] of what may have been left out.
    pub(crate) fn given(given: Option<&Bound<'py, PyAny>>, label: &str) -> PyResult<Self> {
        given.map_or(Ok(Self::none()), |given| Self::take(given, label))
    }

    pub(crate) fn tell(&self, done: u64, total: u64) -> PyResult<()> {
        self.0.as_ref().map_or(Ok(()), |callable| callable.call1((done, total)).map(drop))
    }
}
