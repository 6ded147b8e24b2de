//! Building an index out of Python's memory: the next block is copied while the last one is being encoded.

use std::sync::Arc;

use limnion_index::{Builder, FlatIndex, GraphIndex, GraphParams, IvfIndex, IvfParams, Params, sample_rows};
use pyo3::prelude::*;

use crate::args::{Matrix, Progress};
use crate::door::Door as _;
use crate::errors::invalid_argument;
use crate::pool::{self, Task, Watch};

/// Builds an index of the rows of `matrix`. The interpreter is held only while a block is copied, and no more than two
/// blocks are ever held besides the index.
pub(crate) fn build(
    py: Python<'_>,
    matrix: &Matrix<'_>,
    ids: Option<Vec<u64>>,
    params: &Params,
    progress: &Progress<'_>,
) -> PyResult<FlatIndex> {
    let (rows, dim) = (matrix.rows(), matrix.dim());
    check_count(py, ids.as_deref(), rows)?;
    let mut sample = Vec::new();
    for row in sample_rows(rows) {
        matrix.copy(row..row + 1, &mut sample)?;
    }
    let (ids, params) = (ids.map(Arc::new), params.clone());
    let mut watch = Watch::new(progress, rows as u64);
    let mut spare = Vec::new();
    let mut last = Task::start(move || Ok((Builder::new(&params, dim, &sample, rows)?, Vec::new())));
    for block in matrix.blocks() {
        let mut copy = std::mem::take(&mut spare);
        copy.clear();
        matrix.copy(block.clone(), &mut copy)?;
        let (mut builder, encoded) = last.wait(py, &mut watch)?;
        spare = encoded;
        let (job, ids) = (watch.job(), ids.clone());
        last = Task::start(move || {
            builder.push(&copy, ids.as_ref().and_then(|ids| ids.get(block)), &job)?;
            Ok((builder, copy))
        });
        watch.glance(py)?;
    }
    let (builder, _) = last.wait(py, &mut watch)?;
    watch.finish()?;
    Ok(py.outside(move || builder.finish()))
}

/// Builds an index of lists of the rows of `matrix`, which are copied first: their lists are found by looking at all.
pub(crate) fn build_lists(
    py: Python<'_>,
    matrix: &Matrix<'_>,
    ids: Option<Vec<u64>>,
    params: IvfParams,
    progress: &Progress<'_>,
) -> PyResult<IvfIndex> {
    let (rows, dim) = (matrix.rows(), matrix.dim());
    check_count(py, ids.as_deref(), rows)?;
    let vectors = matrix.copy_all()?;
    pool::run(py, progress, rows, move |job| IvfIndex::build(&vectors, dim, ids.as_deref(), &params, job))
}

/// Builds a graph of the rows of `matrix`, which are copied first: their neighbours are found by looking at all.
pub(crate) fn build_graph(
    py: Python<'_>,
    matrix: &Matrix<'_>,
    ids: Option<Vec<u64>>,
    params: GraphParams,
    progress: &Progress<'_>,
) -> PyResult<GraphIndex> {
    let (rows, dim) = (matrix.rows(), matrix.dim());
    check_count(py, ids.as_deref(), rows)?;
    let vectors = matrix.copy_all()?;
    pool::run(py, progress, rows, move |job| GraphIndex::build(&vectors, dim, ids.as_deref(), &params, job))
}

fn check_count(py: Python<'_>, ids: Option<&[u64]>, rows: usize) -> PyResult<()> {
    match ids.filter(|ids| ids.len() != rows) {
        Some(ids) => {
            let message = format!("ids must be as many as the vectors: {} ids, {rows} vectors", ids.len());
            Err(invalid_argument(py, message, None))
        }
        None => Ok(()),
    }
}
