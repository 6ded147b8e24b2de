//! Files of the format `.rbpx`, version 1, of an earlier system: originals and parameters, no codes.
//!
//! ```text
//! offset  bytes
//!      0      8  magic "rbpx0001"
//!      8      4  version, 1
//!     12      4  dimension
//!     16      8  seed
//!     24      4  rerank factor
//!     28      4  rows
//!     32         a row: id u32, then f32 a dimension
//! ```

use limnion_types::{Error, ErrorKind, Job, Metric, Result};

use crate::file::corrupt;
use crate::flat::FlatIndex;
use crate::params::{Params, Precision};

const MAGIC: &[u8; 8] = b"rbpx0001";
const HEADER: usize = 32;

pub(crate) fn is_rbpx(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Builds the index that the file describes: squared Euclidean distance, one bit, f32 originals.
pub(crate) fn read(bytes: &[u8], job: &Job) -> Result<FlatIndex> {
    let number = |at: usize| -> Result<u32> {
        let field = bytes.get(at..at + 4).and_then(|field| field.try_into().ok());
        Ok(u32::from_le_bytes(field.ok_or_else(|| corrupt("it is too short"))?))
    };
    let version = number(8)?;
    if version != 1 {
        let message = format!("the .rbpx file has version {version}; only version 1 is known");
        return Err(Error::new(ErrorKind::NewerFile, message));
    }
    let (dim, rows) = (number(12)? as usize, number(28)? as usize);
    let params = Params {
        bits: 1,
        originals: Some(Precision::F32),
        seed: u64::from(number(16)?) | u64::from(number(20)?) << 32,
        rerank_factor: Some(number(24)?).filter(|&factor| factor > 0),
        ..Params::new(Metric::L2)
    };
    params.check(dim).map_err(|error| corrupt(error.message()))?;
    let row_bytes = 4 + 4 * dim;
    let body = bytes.get(HEADER..).unwrap_or_default();
    if rows.checked_mul(row_bytes) != Some(body.len()) {
        return Err(corrupt(&format!("{rows} rows of {dim} numbers do not fit its {} bytes", bytes.len())));
    }
    let (words, _) = body.as_chunks::<4>();
    let mut ids = Vec::with_capacity(rows);
    let mut vectors = Vec::with_capacity(rows * dim);
    for row in words.chunks_exact(1 + dim) {
        if let Some((id, vector)) = row.split_first() {
            ids.push(u64::from(u32::from_le_bytes(*id)));
            vectors.extend(vector.iter().map(|x| f32::from_le_bytes(*x)));
        }
    }
    FlatIndex::build(&vectors, dim, Some(&ids), &params, job)
}
