//! Segments: append-only files for large values and for vectors.
//!
//! A segment has a number, which is its file name (eight digits or more), and holds values, or vectors of one namespace,
//! name and dimension. Little-endian:
//!
//! ```text
//! offset  bytes
//!      0      8  magic "limnseg\n"
//!      8      4  version, 1
//!     12      1  kind: 0 values, 1 vectors
//!     13      1  type of a number: 0 none, 1 f32
//!     14      2  zeros
//!     16      4  dimension of the vectors, 0 for values
//!     20      4  number of the segment
//!     24      4  length of the namespace, n
//!     28      4  length of the name of the vectors, m
//!     32     32  BLAKE3 hash of all 4096 bytes of the header, these 32 taken as zero
//!     64      n  the namespace, UTF-8                 both left out (zeros) where n + m > 4032:
//!   64+n      m  the name                             the database has them too
//! 64+n+m         zeros up to 4096
//!   4096         values: one after the other, without anything between
//!                vectors: row by row, f32; row r begins at 4096 + r * 4 * dimension
//! ```
//!
//! The rows of a segment are a matrix that an index can map as it is. Where something lies and how long it is, its record
//! says; so does its hash, which the reader compares. How much of a file counts, the database says
//! ([`SegmentInfo::length`]): what lies behind is left from a crash, is never referred to, and is overwritten. The file is
//! synced before the commit that refers to it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use limnion_types::{Error, ErrorKind, Result};

use crate::engine::{Place, SegmentInfo};

mod appender;
mod files;

pub use appender::Appender;
use files::Files;

/// Where the content of a segment begins.
pub const HEADER: u64 = 4096;

const MAGIC: &[u8; 8] = b"limnseg\n";
const VERSION: u32 = 1;
const NAMES: usize = 64;
const HASH: std::ops::Range<usize> = 32..64;

/// The side of the segments that reads. Any thread may, while the writer appends.
#[derive(Debug)]
pub struct Segments {
    lie: Lie,
}

/// Where segments lie.
#[derive(Debug)]
enum Lie {
    Folder(Files),
    Memory(RwLock<HashMap<u32, Arc<RwLock<Vec<u8>>>>>),
}

impl Segments {
    /// The segments in a folder, or in memory. Touches nothing yet.
    pub fn new(folder: Option<PathBuf>) -> Self {
        let lie = match folder {
            Some(folder) => Lie::Folder(Files::new(folder)),
            None => Lie::Memory(RwLock::default()),
        };
        Self { lie }
    }

    /// The bytes at a place that a committed record refers to.
    ///
    /// # Errors
    /// `Corruption` where the file is missing, damaged in its header, or ends before them; `StoreIo`.
    pub fn read(&self, place: Place, length: u64) -> Result<Vec<u8>> {
        match &self.lie {
            Lie::Folder(files) => {
                let file = files.reading(place.segment)?;
                files.read(&file, place, length)
            }
            Lie::Memory(segments) => {
                let segments = segments.read().unwrap_or_else(PoisonError::into_inner);
                let bytes = segments.get(&place.segment).cloned();
                drop(segments);
                let bytes = bytes.as_ref().map(|bytes| bytes.read().unwrap_or_else(PoisonError::into_inner));
                let range = range(place.offset, length);
                let part = bytes.as_ref().zip(range).and_then(|(bytes, range)| bytes.get(range));
                part.map(<[u8]>::to_vec).ok_or_else(|| {
                    Error::new(ErrorKind::Internal, format!("segment {} has no such place", place.segment))
                })
            }
        }
    }

    /// Compares a segment with what the database knows of it: its header, and that it is as long as it was committed to
    /// be. The records know the hashes of what lies in it.
    ///
    /// # Errors
    /// `Corruption`, naming the file; `StoreIo`.
    pub fn verify(&self, info: &SegmentInfo) -> Result<()> {
        match &self.lie {
            Lie::Folder(files) => files.verify(info),
            Lie::Memory(_) => Ok(()),
        }
    }

    /// The file of a segment: for mapping the rows of one that holds vectors, from [`HEADER`] up to its committed length.
    pub fn path(&self, id: u32) -> Option<PathBuf> {
        match &self.lie {
            Lie::Folder(files) => Some(files.path(id)),
            Lie::Memory(_) => None,
        }
    }

    /// Closes the files that are open for reading. Who reads on opens them again.
    pub(crate) fn close(&self) {
        if let Lie::Folder(files) = &self.lie {
            files.close();
        }
    }

    /// Removes a segment that no record refers to.
    pub(crate) fn remove(&self, id: u32) -> Result<()> {
        match &self.lie {
            Lie::Folder(files) => files.remove(id),
            Lie::Memory(segments) => {
                segments.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
                Ok(())
            }
        }
    }
}

/// The header of a segment.
fn header(info: &SegmentInfo) -> Vec<u8> {
    let mut header = vec![0u8; HEADER as usize];
    let vectors = info.dim > 0;
    let (namespace, name) = (info.namespace.as_bytes(), info.name.as_bytes());
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        if let Some(place) = header.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
            at += bytes.len();
        }
    };
    put(MAGIC);
    put(&VERSION.to_le_bytes());
    put(&[u8::from(vectors), u8::from(vectors), 0, 0]);
    put(&info.dim.to_le_bytes());
    put(&info.id.to_le_bytes());
    put(&(namespace.len() as u32).to_le_bytes());
    put(&(name.len() as u32).to_le_bytes());
    put(&[0; 32]);
    if NAMES + namespace.len() + name.len() <= HEADER as usize {
        put(namespace);
        put(name);
    }
    let hash = blake3::hash(&header);
    if let Some(place) = header.get_mut(HASH) {
        place.copy_from_slice(hash.as_bytes());
    }
    header
}

/// Refuses what is not the header of segment `id`, or is that of a newer version.
fn check_header(bytes: &[u8], id: u32, path: &Path) -> Result<()> {
    let number = |at: usize| {
        let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
        four.map_or(0, u32::from_le_bytes)
    };
    if bytes.get(..8) != Some(MAGIC) {
        return Err(damaged(path, "does not begin as a segment does"));
    }
    if number(8) > VERSION {
        return Err(Error::new(
            ErrorKind::NewerDatabase,
            format!("{} has version {}, and this limnion knows {VERSION}", path.display(), number(8)),
        )
        .suggest("update limnion"));
    }
    let mut plain = bytes.to_vec();
    plain.get_mut(HASH).unwrap_or_default().fill(0);
    if bytes.get(HASH) != Some(blake3::hash(&plain).as_bytes()) {
        return Err(damaged(path, "is damaged in its header"));
    }
    if number(20) != id {
        return Err(damaged(path, &format!("is segment {} under the name of another", number(20))));
    }
    Ok(())
}

fn damaged(path: &Path, how: &str) -> Error {
    Error::new(ErrorKind::Corruption, format!("{} {how}", path.display()))
        .suggest("restore it from a backup, or copy what is whole into a new database with salvage")
}

fn range(offset: u64, length: u64) -> Option<std::ops::Range<usize>> {
    let end = offset.checked_add(length)?;
    Some(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)
}

#[cfg(test)]
mod tests;
