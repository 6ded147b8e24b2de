//! `.ruvec`: the vectors of another lake. Little-endian.
//!
//! ```text
//! offset  bytes
//!      0      8  magic "ruvec1\0\0"
//!      8      8  rows
//!     16      4  dimension
//!     20      4  anything
//!     24         for each row its id as u64, then its numbers as f32
//! ```

use limnion_types::{Job, Result};

use super::{Blob, Shape, bad, check_dim, check_finite, f32s, head, piece, pieces, u32_at, u64_at, u64s};
use crate::backend::{Ids, Rows};

const MAGIC: &[u8] = b"ruvec1\0\0";
const HEADER: usize = 24;

pub(super) fn shape(blob: &dyn Blob) -> Result<Shape> {
    let header = head(blob, HEADER as u64)?;
    if header.len() < HEADER || !header.starts_with(MAGIC) {
        return Err(bad("a .ruvec file begins with \"ruvec1\" and has a header of 24 bytes, this does not"));
    }
    let (rows, dim) = (u64_at(&header, 8), u32_at(&header, 16) as usize);
    if rows == 0 && dim == 0 {
        return Ok(Shape { dim, rows: 0 });
    }
    check_dim(dim)?;
    let expected = rows.checked_mul(8 + 4 * dim as u64).and_then(|bytes| bytes.checked_add(HEADER as u64));
    if expected != Some(blob.len()) {
        return Err(bad(format!(
            "its header tells of {rows} rows of dimension {dim}, which does not fit its {} bytes",
            blob.len()
        )));
    }
    Ok(Shape { dim, rows: usize::try_from(rows).map_err(bad)? })
}

pub(super) fn read(blob: &dyn Blob, take: &mut dyn FnMut(Rows) -> Result<()>, job: &Job) -> Result<()> {
    let Shape { dim, rows } = shape(blob)?;
    let row = 8 + 4 * dim;
    for range in pieces(rows, piece(dim)) {
        job.check()?;
        let bytes = blob.read((HEADER + range.start * row) as u64..(HEADER + range.end * row) as u64)?;
        let mut ids = Vec::with_capacity(range.len());
        let mut vectors = Vec::with_capacity(range.len() * dim);
        for bytes in bytes.chunks_exact(row) {
            let (id, numbers) = bytes.split_at(8);
            ids.extend(u64s(id));
            vectors.extend(f32s(numbers));
        }
        check_finite(&vectors, dim, range.start as u64)?;
        take(Rows { ids: Ids::Numbers(ids), vectors })?;
    }
    Ok(())
}
