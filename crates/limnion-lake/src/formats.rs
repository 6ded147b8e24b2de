//! Files of vectors, wherever they lie.

mod batches;
mod fvecs;
mod npy;
mod parquet;
mod rows;
mod ruvec;

use std::fmt;
use std::ops::Range;

use limnion_types::{Error, ErrorKind, Job, Result};

use crate::backend::{Ids, Rows};

pub use batches::rows_of_batches;
pub(crate) use rows::{RowsWriter, Seen, instance, kind, mixed};

/// Rows that are handed over at once, where they are not too long.
const PIECE: usize = 8192;
/// Bytes of vectors that are handed over at once.
const PIECE_BYTES: usize = 16 << 20;
/// Numbers a vector.
const MAX_DIM: usize = 65_536;

/// Bytes that can be read in any order: a file, or an object in a bucket. They are those of one moment: what has changed
/// since then is an error.
pub(crate) trait Blob: Send + Sync {
    /// How many bytes.
    fn len(&self) -> u64;

    /// Some of them; an error where they end before that.
    fn read(&self, range: Range<u64>) -> Result<Vec<u8>>;
}

/// What a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Numbers a vector.
    pub(crate) dim: usize,
    /// How many rows.
    pub(crate) rows: usize,
}

/// How vectors lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// A numpy array of shape (n, d), `float32` or `float16`. Ids are row numbers, or those of `NAME.ids.npy` beside it.
    Npy,
    /// For each row its dimension as i32 and its numbers as f32, little-endian. Ids are row numbers.
    Fvecs,
    /// A column of ids and one of vectors.
    Parquet,
    /// Rows as limnion writes them.
    Rows,
    /// The magic `ruvec1`, then for each row its id as u64 and its numbers as f32, little-endian.
    Ruvec,
}

/// Which columns of a file with columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// The column of ids; row numbers where the file has none of this name.
    pub id: String,
    /// The column of vectors.
    pub vector: String,
}

impl Default for Columns {
    fn default() -> Self {
        Self { id: "id".to_owned(), vector: "vector".to_owned() }
    }
}

impl Format {
    /// Every format.
    pub(crate) const ALL: [Self; 5] = [Self::Npy, Self::Fvecs, Self::Parquet, Self::Rows, Self::Ruvec];

    /// The end of the names of such files, without the dot.
    pub(crate) fn ending(self) -> &'static str {
        match self {
            Self::Npy => "npy",
            Self::Fvecs => "fvecs",
            Self::Parquet => "parquet",
            Self::Rows => "rows",
            Self::Ruvec => "ruvec",
        }
    }

    /// The format that the end of a file's name tells of.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let (_, end) = name.rsplit_once('.')?;
        Self::ALL.into_iter().find(|format| format.ending() == end)
    }
}

/// What a file has, from as few of its bytes as can be.
pub(crate) fn shape(format: Format, blob: &dyn Blob, columns: &Columns) -> Result<Shape> {
    match format {
        Format::Npy => npy::shape(blob),
        Format::Fvecs => fvecs::shape(blob),
        Format::Parquet => parquet::shape(blob, columns),
        Format::Rows => rows::shape(blob),
        Format::Ruvec => ruvec::shape(blob),
    }
}

/// Hands over the rows of a file in pieces, in their order. Hostile bytes are an error, and no allocation goes beyond what
/// the file has.
pub(crate) fn read(
    format: Format,
    blob: &dyn Blob,
    columns: &Columns,
    take: &mut dyn FnMut(Rows) -> Result<()>,
    job: &Job,
) -> Result<()> {
    read_from(format, blob, columns, 0, take, job)
}

/// The same; row numbers, where they are the ids, begin with `first`.
pub(crate) fn read_from(
    format: Format,
    blob: &dyn Blob,
    columns: &Columns,
    first: u64,
    take: &mut dyn FnMut(Rows) -> Result<()>,
    job: &Job,
) -> Result<()> {
    match format {
        Format::Npy => npy::read(blob, first, take, job),
        Format::Fvecs => fvecs::read(blob, first, take, job),
        Format::Parquet => parquet::read(blob, columns, first, take, job),
        Format::Rows => rows::read(blob, take, job),
        Format::Ruvec => ruvec::read(blob, take, job),
    }
}

/// The ids that lie beside an array, in a file `NAME.ids.npy`: `uint64` or `int64` of shape (n,).
pub(crate) fn read_ids_npy(blob: &dyn Blob) -> Result<Vec<u64>> {
    npy::read_ids(blob)
}

/// A file that cannot be used.
fn bad(problem: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Backend, problem.to_string())
}

/// The rows that are handed over at once, given how long one is.
fn piece(dim: usize) -> usize {
    (PIECE_BYTES / (4 * dim.max(1))).clamp(1, PIECE)
}

/// Ranges of so many rows, one after the other.
fn pieces(rows: usize, at_once: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(at_once.max(1)).map(move |start| start..rows.min(start.saturating_add(at_once)))
}

/// A dimension that vectors can have.
fn check_dim(dim: usize) -> Result<()> {
    if dim == 0 || dim > MAX_DIM {
        return Err(bad(format!("vectors must have 1 to {MAX_DIM} dimensions, got {dim}")));
    }
    Ok(())
}

/// Numbers that can be searched.
fn check_finite(vectors: &[f32], dim: usize, first_row: u64) -> Result<()> {
    match vectors.iter().position(|number| !number.is_finite()) {
        None => Ok(()),
        Some(at) => Err(bad(format!(
            "vectors must have finite numbers, got {} in row {}, column {}",
            vectors.get(at).copied().unwrap_or(f32::NAN),
            first_row + (at / dim.max(1)) as u64,
            at % dim.max(1)
        ))),
    }
}

/// The ids of rows that have none: their numbers.
fn row_numbers(first: u64, rows: Range<usize>) -> Ids {
    Ids::Numbers(rows.map(|row| first.saturating_add(row as u64)).collect())
}

/// Little-endian `float32`.
fn f32s(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(array(four)))
}

/// Little-endian `uint64`.
fn u64s(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(8).map(|eight| u64::from_le_bytes(array(eight)))
}

/// Little-endian `uint32`.
fn u32s(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(4).map(|four| u32::from_le_bytes(array(four)))
}

/// The first bytes of a slice, and zeros where it is shorter.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut whole = [0; N];
    for (to, from) in whole.iter_mut().zip(bytes) {
        *to = *from;
    }
    whole
}

/// A u32 at an offset of a header.
fn u32_at(header: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(array(header.get(offset..).unwrap_or_default()))
}

/// A u64 at an offset of a header.
fn u64_at(header: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(array(header.get(offset..).unwrap_or_default()))
}

/// The beginning of a file: as many bytes, or all that there are.
fn head(blob: &dyn Blob, bytes: u64) -> Result<Vec<u8>> {
    blob.read(0..bytes.min(blob.len()))
}
