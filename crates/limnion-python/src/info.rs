//! What this build and this machine are, and which index suits a task.

use limnion_index::recommend;
use limnion_simd::Level;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::args;
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
#[pyo3(signature = (n, dim, recall, memory))]
pub(crate) fn _recommend<'py>(
    n: &Bound<'py, PyAny>,
    dim: &Bound<'py, PyAny>,
    recall: &Bound<'py, PyAny>,
    memory: Option<&Bound<'py, PyAny>>,
) -> PyResult<Advice> {
    let memory = memory.map(|memory| args::whole("memory", memory)).transpose()?;
    let advice =
        recommend(args::whole("n", n)?, args::count("dim", dim)?, args::number("recall", recall)?, memory)
            .or_raise(n.py())?;
    Ok((
        advice.index,
        advice.bits,
        advice.originals.map(|kept| kept.as_str()),
        advice.bytes,
        advice.recall,
        advice.reason,
    ))
}
