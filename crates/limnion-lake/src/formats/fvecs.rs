//! `.fvecs`: for each row its dimension as i32 and its numbers as f32, little-endian.

use limnion_types::{Job, Result};

use super::{
    Blob, Shape, bad, check_dim, check_finite, f32s, head, piece, pieces, row_numbers, u32_at, u32s,
};
use crate::backend::Rows;

pub(super) fn shape(blob: &dyn Blob) -> Result<Shape> {
    if blob.len() == 0 {
        return Ok(Shape { dim: 0, rows: 0 });
    }
    let first = head(blob, 4)?;
    if first.len() < 4 {
        return Err(bad(format!(
            "an .fvecs file begins with a dimension of 4 bytes, this has {} bytes",
            first.len()
        )));
    }
    let dim = u32_at(&first, 0) as usize;
    check_dim(dim)?;
    let row = 4 + 4 * dim as u64;
    if !blob.len().is_multiple_of(row) {
        return Err(bad(format!(
            "an .fvecs file of dimension {dim} has {row} bytes a row, this has {} bytes: it is cut short, or its rows \
             have different dimensions",
            blob.len()
        )));
    }
    Ok(Shape { dim, rows: usize::try_from(blob.len() / row).map_err(bad)? })
}

pub(super) fn read(
    blob: &dyn Blob,
    first: u64,
    take: &mut dyn FnMut(Rows) -> Result<()>,
    job: &Job,
) -> Result<()> {
    let Shape { dim, rows } = shape(blob)?;
    let row = 4 + 4 * dim;
    for range in pieces(rows, piece(dim)) {
        job.check()?;
        let bytes = blob.read((range.start * row) as u64..(range.end * row) as u64)?;
        let mut vectors = Vec::with_capacity(range.len() * dim);
        for (number, bytes) in range.clone().zip(bytes.chunks_exact(row)) {
            let (said, numbers) = bytes.split_at(4);
            if let Some(said) = u32s(said).next().filter(|&said| said as usize != dim) {
                return Err(bad(format!(
                    "row {number} says it has {said} dimensions, the first row has {dim}"
                )));
            }
            vectors.extend(f32s(numbers));
        }
        check_finite(&vectors, dim, range.start as u64)?;
        take(Rows { ids: row_numbers(first, range), vectors })?;
    }
    Ok(())
}
