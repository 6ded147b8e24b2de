//! The original vectors of an index, seen from Python without a copy.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;
use limnion_index::{Matrix, Originals};
use numpy::ndarray::ArrayView2;
use numpy::{Element, IntoPyArray, PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Keeps the vectors alive for as long as an array looks at them.
#[pyclass(frozen)]
struct Keeper(Originals);

/// A read-only array of shape (n, d) over `originals`.
pub(crate) fn view(py: Python<'_>, originals: Originals) -> PyResult<Bound<'_, PyAny>> {
    let keeper = Bound::new(py, Keeper(originals))?;
    match &keeper.get().0 {
        Originals::F32(matrix) => array(matrix, keeper.as_any()),
        Originals::F16(matrix) => array(matrix, keeper.as_any()),
    }
}

fn array<'py, T: Element + Pod>(
    matrix: &Matrix<T>,
    keeper: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let rows = ArrayView2::from_shape((matrix.rows(), matrix.dim()), matrix)
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    // SAFETY: the keeper holds the matrix, which nobody changes while it is shared: the index copies before it writes.
    let array = unsafe { PyArray2::borrow_from_array(&rows, keeper.clone()) };
    array.readwrite().make_nonwriteable();
    Ok(array.into_any())
}

/// Goes through (id, vector).
#[pyclass(frozen)]
pub(crate) struct RowIterator {
    ids: Vec<u64>,
    originals: Originals,
    next: AtomicUsize,
}

impl RowIterator {
    pub(crate) fn new(ids: Vec<u64>, originals: Originals) -> Self {
        Self { ids, originals, next: AtomicUsize::new(0) }
    }
}

fn nth<T: Pod>(matrix: &Matrix<T>, row: usize) -> Option<&[T]> {
    matrix.get(row * matrix.dim()..(row + 1) * matrix.dim())
}

#[pymethods]
impl RowIterator {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __length_hint__(&self) -> usize {
        self.ids.len().saturating_sub(self.next.load(Ordering::Relaxed))
    }

    fn __next__<'py>(&self, py: Python<'py>) -> Option<(u64, Bound<'py, PyArray1<f32>>)> {
        let row = self.next.fetch_add(1, Ordering::Relaxed);
        let id = *self.ids.get(row)?;
        let vector = match &self.originals {
            Originals::F32(matrix) => nth(matrix, row)?.to_vec(),
            Originals::F16(matrix) => nth(matrix, row)?.to_f32_vec(),
        };
        Some((id, vector.into_pyarray(py)))
    }
}
