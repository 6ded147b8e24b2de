//! A short proof of what an index was built from.

use std::fmt;

use limnion_index::{FlatIndex, Originals, Params, Precision};
use limnion_types::{Error, ErrorKind, Result};
use shake::Shake256;
use shake::digest::{ExtendableOutput, Update, XofReader};

use crate::backend::Generation;
use crate::labels::Labels;

/// SHAKE-256 over what data is meant, in which state, how its index is made, and a digest of the rows: two indexes with
/// one witness hold the same rows and give the same hits.
///
/// It has no key: it shows accidents and mix-ups, not forgery.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Witness([u8; 32]);

impl Witness {
    /// The witness of 64 hexadecimal digits in lower case; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        for (place, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *place = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// The witness that ruLake's bundles of versions 1 and 2 have: it covers what is meant, not the rows.
    ///
    /// SHAKE-256 over `"rulake-bundle-witness-v1|"`, the reference with its length (u64, little-endian) before it, `"|"`,
    /// dimension, seed and rerank factor (u64 each), `"|"`, and the generation with its length: 0 and a u64, or 1 and text.
    pub fn rulake(data_ref: &str, dim: u64, seed: u64, rerank_factor: u64, generation: &Generation) -> Self {
        let mut shake = Shake256::default();
        shake.update(b"rulake-bundle-witness-v1|");
        shake.update(&(data_ref.len() as u64).to_le_bytes());
        shake.update(data_ref.as_bytes());
        shake.update(b"|");
        for number in [dim, seed, rerank_factor] {
            shake.update(&number.to_le_bytes());
        }
        shake.update(b"|");
        let generation = generation_bytes(generation);
        shake.update(&(generation.len() as u64).to_le_bytes());
        shake.update(&generation);
        Self::finish(shake)
    }

    /// The witness of an index. Every part goes in with its length (u64, little-endian) before it.
    pub(crate) fn new(claim: &Claim<'_>) -> Self {
        let Claim { source, generation, dim, rows, params, content } = claim;
        let originals = match params.originals {
            None => "none",
            Some(Precision::F16) => "f16",
            Some(Precision::F32) => "f32",
        };
        let rerank = params.rerank_factor.map_or(0, u64::from);
        let mut shake = Shake256::default();
        let mut part = |bytes: &[u8]| {
            shake.update(&(bytes.len() as u64).to_le_bytes());
            shake.update(bytes);
        };
        part(b"limnion-lake-witness-v3");
        part(source.as_bytes());
        part(&generation_bytes(generation));
        part(&dim.to_le_bytes());
        part(&rows.to_le_bytes());
        part(params.metric.as_str().as_bytes());
        part(&[params.bits]);
        part(originals.as_bytes());
        part(ROTATION.as_bytes());
        part(&params.seed.to_le_bytes());
        part(&rerank.to_le_bytes());
        part(&content[..]);
        Self::finish(shake)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn finish(shake: Shake256) -> Self {
        let mut bytes = [0; 32];
        shake.finalize_xof().read(&mut bytes);
        Self(bytes)
    }
}

/// What a witness is for.
pub(crate) struct Claim<'a> {
    pub(crate) source: &'a str,
    pub(crate) generation: &'a Generation,
    pub(crate) dim: u64,
    pub(crate) rows: u64,
    pub(crate) params: &'a Params,
    pub(crate) content: &'a [u8; 32],
}

/// The rotation of docs/design/002.
pub(crate) const ROTATION: &str = "limnion-rotation-1";

fn generation_bytes(generation: &Generation) -> Vec<u8> {
    match generation {
        Generation::Number(number) => [&[0][..], &number.to_le_bytes()].concat(),
        Generation::Name(name) => [&[1][..], name.as_bytes()].concat(),
    }
}

/// BLAKE3 over the rows in the order of their ids, each id and vector: the same however the index came about. Where an
/// index has no originals, over its file.
pub(crate) fn content(index: Option<&FlatIndex>, labels: &Labels) -> Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let Some(index) = index else { return Ok(*hasher.finalize().as_bytes()) };
    hasher.update(&(index.dim() as u64).to_le_bytes());
    let ids = index.ids();
    let mut order: Vec<usize> = (0..ids.len()).collect();
    let labelled: Vec<_> = match labels {
        Labels::Numbers => {
            order.sort_by_key(|&row| ids.get(row));
            Vec::new()
        }
        Labels::Names { .. } => {
            let labelled: Vec<_> = ids.iter().map(|&id| labels.id(id).to_string()).collect();
            order.sort_by(|&a, &b| labelled.get(a).cmp(&labelled.get(b)));
            labelled
        }
    };
    let originals = match index.params().originals {
        Some(_) => Some(index.originals()?),
        None => None,
    };
    let dim = index.dim();
    for row in order {
        match labelled.get(row) {
            Some(name) => {
                hasher.update(&(name.len() as u64).to_le_bytes());
                hasher.update(name.as_bytes());
            }
            None => {
                hasher.update(&ids.get(row).copied().unwrap_or_default().to_le_bytes());
            }
        }
        let vector: Option<&[u8]> = match &originals {
            Some(Originals::F32(matrix)) => matrix.get(row * dim..(row + 1) * dim).map(bytemuck::cast_slice),
            Some(Originals::F16(matrix)) => matrix.get(row * dim..(row + 1) * dim).map(bytemuck::cast_slice),
            None => None,
        };
        if let Some(vector) = vector {
            hasher.update(vector);
        }
    }
    if originals.is_none() {
        hasher.update(&index.to_bytes()?);
    }
    Ok(*hasher.finalize().as_bytes())
}

/// The error for something that is not what its witness says.
pub(crate) fn mismatch(message: String) -> Error {
    Error::new(ErrorKind::WitnessMismatch, message)
        .suggest("publish the bundle anew, or remove it: the backend has the data")
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Witness({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn witnesses_of_rulake_are_what_they_were() {
        let number = Witness::rulake("gs://bucket/x.parquet", 128, 42, 20, &Generation::Number(7));
        assert_eq!(number.to_string(), "7eac1775d1f76a4db88672655fc64977287ec60eda47c6df3a19bacfd0c038cd");
        let name = Generation::Name("01JCX7NK6G5R9G1YZ7QH".into());
        let opaque = Witness::rulake("iceberg://catalog/db/table", 384, 0xdead_beef, 5, &name);
        assert_eq!(opaque.to_string(), "6b1a75410b684054ec05c6c717a4e75204419722d5ce64e37ac1a2703c8e940b");
        assert_eq!(Witness::parse(&number.to_string()), Some(number));
        for wrong in ["", "7eac", &number.to_string().to_uppercase(), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(Witness::parse(wrong), None);
        }
    }
}
