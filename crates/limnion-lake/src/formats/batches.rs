//! Rows of columns, as Arrow has them.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, OffsetSizeTrait, RecordBatch, RecordBatchReader};
use arrow_schema::{DataType, Schema};
use limnion_types::{Error, ErrorKind, Result};

use super::{Columns, MAX_DIM, check_finite, piece, row_numbers};
use crate::backend::{Ids, Rows};

/// The rows of a stream of Arrow record batches, in pieces and in their order.
///
/// Ids are integers of any width or strings; row numbers where there is no such column. Vectors are lists, of fixed size or
/// all of one length, of `float32`, `float64` or `float16`. What comes is a row's dimension times as many numbers as there are
/// ids. That ids are unique is not looked at.
///
/// # Errors
/// `InvalidArgument` for a missing column of vectors, with the columns that there are, for nulls, for numbers that are not
/// finite and negative ids, with their row, and where the reader fails; `InvalidType` for columns of other types;
/// `DimensionMismatch` for vectors of different lengths. After an error the iterator ends.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow_array::{ArrayRef, FixedSizeListArray, Int64Array, RecordBatch, RecordBatchIterator, types::Float32Type};
/// use limnion_lake::{Columns, Ids, rows_of_batches};
///
/// let ids: ArrayRef = Arc::new(Int64Array::from(vec![7, 8]));
/// let vectors = [Some(vec![Some(1.0), Some(0.0)]), Some(vec![Some(0.0), Some(1.0)])];
/// let vectors = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(vectors, 2);
/// let batch = RecordBatch::try_from_iter([("id", ids), ("vector", Arc::new(vectors) as ArrayRef)])?;
/// let schema = batch.schema();
/// let reader = RecordBatchIterator::new([Ok(batch)], schema);
/// for rows in rows_of_batches(reader, &Columns::default())? {
///     assert_eq!(rows?.ids, Ids::Numbers(vec![7, 8]));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn rows_of_batches<R: RecordBatchReader>(
    reader: R,
    columns: &Columns,
) -> Result<impl Iterator<Item = Result<Rows>> + use<R>> {
    let places = Places::of(&reader.schema(), columns)?;
    Ok(Batches {
        reader,
        columns: columns.clone(),
        places,
        batch: None,
        done: 0,
        rows: 0,
        dim: None,
        failed: false,
    })
}

/// Where the columns are among others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    pub(super) id: Option<usize>,
    pub(super) vector: usize,
}

impl Places {
    pub(super) fn of(schema: &Schema, columns: &Columns) -> Result<Self> {
        let find = |name: &str| schema.fields().iter().position(|field| field.name() == name);
        let told = || {
            let names: Vec<String> =
                schema.fields().iter().map(|field| format!("{:?}", field.name())).collect();
            let more = if names.len() > 20 { ", ..." } else { "" };
            format!("{}{more}", names.iter().take(20).cloned().collect::<Vec<_>>().join(", "))
        };
        let Some(vector) = find(&columns.vector) else {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("there is no column {:?} of vectors among {}", columns.vector, told()),
            )
            .suggest("name the column that has them"));
        };
        Ok(Self { id: find(&columns.id), vector })
    }
}

struct Batches<R> {
    reader: R,
    columns: Columns,
    places: Places,
    /// The batch that is being handed over, and how many of its rows are done.
    batch: Option<RecordBatch>,
    done: usize,
    rows: u64,
    dim: Option<usize>,
    failed: bool,
}

impl<R: RecordBatchReader> Batches<R> {
    fn piece(&mut self) -> Result<Option<Rows>> {
        loop {
            if let Some(batch) = self.batch.as_ref().filter(|batch| self.done < batch.num_rows()) {
                let left = batch.num_rows() - self.done;
                let dim = match self.dim {
                    Some(dim) => dim,
                    // The first row tells how long the others are to be.
                    None => {
                        let row = batch.slice(self.done, 1);
                        rows_of(&row, self.places, &self.columns, self.rows, &mut self.dim)?;
                        self.dim.unwrap_or(1)
                    }
                };
                let count = piece(dim).min(left);
                let part = batch.slice(self.done, count);
                let rows = rows_of(&part, self.places, &self.columns, self.rows, &mut self.dim)?;
                self.done += count;
                self.rows += count as u64;
                return Ok(Some(rows));
            }
            let Some(batch) = self.reader.next() else { return Ok(None) };
            let failed =
                |error| Error::new(ErrorKind::InvalidArgument, format!("the stream of batches: {error}"));
            self.batch = Some(batch.map_err(failed)?);
            self.done = 0;
        }
    }
}

impl<R: RecordBatchReader> Iterator for Batches<R> {
    type Item = Result<Rows>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let piece = self.piece();
        self.failed = piece.is_err();
        piece.transpose()
    }
}

/// The rows of a batch. `first` is the number of its first row; `dim` is that of all before it, and is set by the first.
pub(super) fn rows_of(
    batch: &RecordBatch,
    places: Places,
    columns: &Columns,
    first: u64,
    dim: &mut Option<usize>,
) -> Result<Rows> {
    let column = |at: usize| {
        batch.columns().get(at).ok_or_else(|| {
            Error::new(ErrorKind::InvalidArgument, "the batches must all have the columns of their schema")
        })
    };
    let vectors = column(places.vector)?;
    let (numbers, length) = list(vectors, &columns.vector, first)?;
    let rows = batch.num_rows();
    if rows > 0 {
        let known = *dim.get_or_insert(length);
        if known != length {
            return Err(lengths(&columns.vector, first, length, known));
        }
        if length == 0 || length > MAX_DIM {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "column {:?} must have vectors of 1 to {MAX_DIM} dimensions, got {length}",
                    columns.vector
                ),
            ));
        }
    }
    let vectors = floats(&numbers, &columns.vector, first, length)?;
    check_finite(&vectors, length, first).map_err(|error| invalid(&columns.vector, error.message()))?;
    let ids = match places.id {
        Some(at) => ids_of(column(at)?, &columns.id, first)?,
        None => row_numbers(first, 0..rows),
    };
    Ok(Rows { ids, vectors })
}

fn invalid(column: &str, problem: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("column {column:?}: {problem}"))
}

fn lengths(column: &str, row: u64, length: usize, known: usize) -> Error {
    Error::new(
        ErrorKind::DimensionMismatch,
        format!("column {column:?} must have vectors of one length, got {length} in row {row} after {known}"),
    )
}

/// A column without nulls.
fn check_nulls(array: &ArrayRef, column: &str, first: u64) -> Result<()> {
    match array.logical_nulls().and_then(|nulls| (0..array.len()).find(|&row| nulls.is_null(row))) {
        Some(row) => {
            Err(invalid(column, format!("must have no nulls, got one in row {}", first + row as u64)))
        }
        None => Ok(()),
    }
}

/// The numbers of all lists of a column one after the other, and how many each has.
fn list(array: &ArrayRef, column: &str, first: u64) -> Result<(ArrayRef, usize)> {
    fn of_offsets<O: OffsetSizeTrait>(
        array: &ArrayRef,
        column: &str,
        first: u64,
    ) -> Result<(ArrayRef, usize)> {
        let lists = array.as_list::<O>();
        let offsets = lists.value_offsets();
        let [start, second, ..] = offsets else { return Ok((lists.values().slice(0, 0), 0)) };
        let length = second.as_usize().saturating_sub(start.as_usize());
        for (row, pair) in (first..).zip(offsets.windows(2)) {
            if let [from, to] = pair
                && to.as_usize().checked_sub(from.as_usize()) != Some(length)
            {
                return Err(lengths(column, row, to.as_usize().saturating_sub(from.as_usize()), length));
            }
        }
        Ok((lists.values().slice(start.as_usize(), length * lists.len()), length))
    }
    check_nulls(array, column, first)?;
    match array.data_type() {
        DataType::FixedSizeList(_, length) => {
            let lists = array.as_fixed_size_list();
            let length = usize::try_from(*length).unwrap_or_default();
            let start = if lists.is_empty() { 0 } else { lists.value_offset_at(0) };
            Ok((lists.values().slice(start, length * lists.len()), length))
        }
        DataType::List(_) => of_offsets::<i32>(array, column, first),
        DataType::LargeList(_) => of_offsets::<i64>(array, column, first),
        other => Err(not_vectors(column, other)),
    }
}

fn not_vectors(column: &str, kind: &DataType) -> Error {
    Error::new(
        ErrorKind::InvalidType,
        format!("column {column:?} must have lists of float32, float64 or float16, got {kind}"),
    )
}

fn floats(numbers: &ArrayRef, column: &str, first: u64, dim: usize) -> Result<Vec<f32>> {
    if let Some(nulls) = numbers.logical_nulls()
        && let Some(at) = (0..numbers.len()).find(|&at| nulls.is_null(at))
    {
        let (row, place) = (first + (at / dim.max(1)) as u64, at % dim.max(1));
        return Err(invalid(column, format!("must have no nulls, got one in row {row}, column {place}")));
    }
    match numbers.data_type() {
        DataType::Float32 => Ok(numbers.as_primitive::<Float32Type>().values().to_vec()),
        DataType::Float16 => {
            Ok(numbers.as_primitive::<Float16Type>().values().iter().map(|number| number.to_f32()).collect())
        }
        DataType::Float64 => {
            Ok(numbers.as_primitive::<Float64Type>().values().iter().map(|&number| number as f32).collect())
        }
        other => Err(not_vectors(column, other)),
    }
}

fn ids_of(array: &ArrayRef, column: &str, first: u64) -> Result<Ids> {
    fn numbers<T: ArrowPrimitiveType>(array: &ArrayRef, column: &str, first: u64) -> Result<Ids>
    where
        T::Native: TryInto<u64> + std::fmt::Display,
    {
        let mut ids = Vec::with_capacity(array.len());
        for (row, &id) in (first..).zip(array.as_primitive::<T>().values()) {
            ids.push(
                id.try_into()
                    .map_err(|_| invalid(column, format!("ids must be 0 or more, got {id} in row {row}")))?,
            );
        }
        Ok(Ids::Numbers(ids))
    }
    fn names<'a>(names: impl Iterator<Item = Option<&'a str>>) -> Ids {
        Ids::Names(names.flatten().map(Arc::from).collect())
    }
    check_nulls(array, column, first)?;
    match array.data_type() {
        DataType::Int64 => numbers::<Int64Type>(array, column, first),
        DataType::UInt64 => numbers::<UInt64Type>(array, column, first),
        DataType::Int32 => numbers::<Int32Type>(array, column, first),
        DataType::UInt32 => numbers::<UInt32Type>(array, column, first),
        DataType::Int16 => numbers::<Int16Type>(array, column, first),
        DataType::UInt16 => numbers::<UInt16Type>(array, column, first),
        DataType::Int8 => numbers::<Int8Type>(array, column, first),
        DataType::UInt8 => numbers::<UInt8Type>(array, column, first),
        DataType::Utf8 => Ok(names(array.as_string::<i32>().iter())),
        DataType::LargeUtf8 => Ok(names(array.as_string::<i64>().iter())),
        DataType::Utf8View => Ok(names(array.as_string_view().iter())),
        DataType::Dictionary(_, kind) if **kind == DataType::Utf8 => {
            // Keys of a dictionary without values cannot be made plain.
            if array.is_empty() {
                return Ok(Ids::Names(Vec::new()));
            }
            let dictionary = array.as_any_dictionary();
            let values = dictionary.values().as_string::<i32>();
            let keys = dictionary.normalized_keys();
            Ok(names(keys.into_iter().map(|key| (key < values.len()).then(|| values.value(key)))))
        }
        other => Err(Error::new(
            ErrorKind::InvalidType,
            format!("column {column:?} must have ids that are integers or strings, got {other}"),
        )),
    }
}
