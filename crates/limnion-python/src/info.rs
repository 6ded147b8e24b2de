//! What this build and this machine are, and which index suits a task.

use limnion_index::{Wanted, recommend};
use limnion_simd::Level;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::args::{self, Matrix};
use crate::errors::OrRaise;

/// What the CPU has, and the `level` that the kernels use.
///
/// The level is the best one unless the environment variable `LIMNION_SIMD` names a lower one; the entry of that name
/// then says whether its wish could be met.
#[pyfunction]
pub(crate) fn cpu_features(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let features = PyDict::new(py);
    features.set_item("level", Level::current().name())?;
    for (name, present) in limnion_simd::cpu_features() {
        features.set_item(name, present)?;
    }
    Ok(features)
}

/// What [`_recommend`] tells.
type Advice = (&'static str, u8, Option<&'static str>, u64, f32, String);

/// (index, bits, originals, bytes, recall, reason); `limnion.recommend` gives them names.
#[pyfunction]
#[pyo3(signature = (n, dim, recall, memory, changes))]
pub(crate) fn _recommend<'py>(
    n: &Bound<'py, PyAny>,
    dim: &Bound<'py, PyAny>,
    recall: &Bound<'py, PyAny>,
    memory: Option<&Bound<'py, PyAny>>,
    changes: &Bound<'py, PyAny>,
) -> PyResult<Advice> {
    let wanted = Wanted {
        n: args::whole("n", n)?,
        dim: args::count("dim", dim)?,
        recall: args::number("recall", recall)?,
        memory: memory.map(|memory| args::whole("memory", memory)).transpose()?,
        changes: changes.is_truthy()?,
    };
    let advice = recommend(&wanted).or_raise(n.py())?;
    Ok((
        advice.index,
        advice.bits,
        advice.originals.map(|kept| kept.as_str()),
        advice.bytes,
        advice.recall,
        advice.reason,
    ))
}

/// How many vectors there are, and how many dimensions they have; `limnion.build` asks.
#[pyfunction]
pub(crate) fn _shape(vectors: &Bound<'_, PyAny>) -> PyResult<(usize, usize)> {
    let matrix = Matrix::take("vectors", vectors, true)?;
    Ok((matrix.rows(), matrix.dim()))
}
