//! Tables of other libraries, handed over by the Arrow C stream interface: no copy on the way, and none of those libraries
//! is needed here.

use arrow_array::RecordBatchReader;
use arrow_array::ffi_stream::RecordBatchStreamReader;
use arrow_schema::{ArrowError, DataType};
use limnion_lake::{Columns, Ids, Rows, rows_of_batches};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use super::Given;
use crate::args::type_name;
use crate::door::Door as _;
use crate::errors::{OrRaise, invalid_argument, invalid_type};

const METHOD: &str = "__arrow_c_stream__";

pub(super) fn is_table(given: Given<'_, '_>) -> PyResult<bool> {
    given.hasattr(METHOD)
}

/// The rows of a table, all of them, and their dimension. Ctrl-C ends it.
pub(super) fn rows(table: Given<'_, '_>, columns: &Columns) -> PyResult<(Rows, usize)> {
    let py = table.py();
    let reader = reader(table)?;
    let schema = reader.schema();
    if schema.index_of(&columns.id).is_err() {
        let names: Vec<String> =
            schema.fields().iter().take(20).map(|field| format!("{:?}", field.name())).collect();
        let message = format!("there is no column {:?} of ids among {}", columns.id, names.join(", "));
        let hint = "name the column that has them with id_column".to_owned();
        return Err(invalid_argument(py, message, Some(hint)));
    }
    let mut pieces = rows_of_batches(reader, columns).or_raise(py)?;
    let mut all: Option<Rows> = None;
    while let Some(piece) = py.outside(|| pieces.next()) {
        py.check_signals()?;
        let piece = piece.or_raise(py)?;
        match &mut all {
            None => all = Some(piece),
            Some(Rows { ids, vectors }) => {
                vectors.extend_from_slice(&piece.vectors);
                match (ids, piece.ids) {
                    (Ids::Numbers(all), Ids::Numbers(more)) => all.extend(more),
                    (Ids::Names(all), Ids::Names(more)) => all.extend(more),
                    _ => {
                        let message = format!("column {:?} must have ids of one type", columns.id);
                        return Err(invalid_type(py, message, None));
                    }
                }
            }
        }
    }
    match all {
        Some(rows) => {
            let dim = rows.vectors.len() / rows.ids.len().max(1);
            Ok((rows, dim))
        }
        // Only the type can tell.
        None => match schema.field_with_name(&columns.vector).map(|field| field.data_type()) {
            Ok(DataType::FixedSizeList(_, dim)) if *dim > 0 => {
                Ok((Rows { ids: Ids::Numbers(Vec::new()), vectors: Vec::new() }, *dim as usize))
            }
            _ => {
                let message =
                    "a table without rows must have vectors of a fixed size, to say which".to_owned();
                Err(invalid_argument(py, message, None))
            }
        },
    }
}

fn reader(table: Given<'_, '_>) -> PyResult<RecordBatchStreamReader> {
    let py = table.py();
    let given = table.call_method0(METHOD)?;
    let wrong = || {
        let message = format!(
            "{METHOD} of {} must give a capsule \"arrow_array_stream\", got {}",
            type_name(table),
            type_name(&given)
        );
        invalid_type(py, message, None)
    };
    let capsule = given.cast::<PyCapsule>().map_err(|_| wrong())?;
    let stream = capsule.pointer_checked(Some(c"arrow_array_stream")).map_err(|_| wrong())?;
    // SAFETY: a capsule of this name holds an `ArrowArrayStream` as the Arrow C stream interface lays it out, and who made
    // it vouches for what is in it. It lives as long as the capsule, which we hold, and nobody else moves it meanwhile, as we
    // are attached. Its content is moved out and marked as moved, so that the capsule does not release it as well.
    unsafe { RecordBatchStreamReader::from_raw(stream.cast().as_ptr()) }.map_err(|error| {
        let why = match error {
            ArrowError::CDataInterface(why) => why,
            other => other.to_string(),
        };
        let message = format!(
            "a table must have columns of ids and vectors, got a {} that cannot be read as one: {why}",
            type_name(table)
        );
        invalid_argument(py, message, None)
    })
}
