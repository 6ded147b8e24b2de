//! `.rows`: rows as limnion writes them.
//!
//! Little-endian. A header, blocks of rows, and a table of the blocks, without gaps:
//!
//! ```text
//! offset  bytes  header
//!      0      8  magic "limnrow\n"
//!      8      4  version, 1
//!     12      4  dimension, 1 to 65536
//!     16      8  rows
//!     24      8  length of the whole file
//!     32     16  another one each time that the file is written
//!     48      4  kind of the ids: 0 numbers, 1 names
//!     52      4  rows a block, at least 1; the last block has what remains
//!     56      4  CRC-32 of the table
//!     60      4  CRC-32 of bytes 0..60
//!
//!     64         blocks, each:
//!                  numbers: u64 a row
//!                  names:   u32 a row, how many bytes of UTF-8; then the names; zeros up to a multiple of 4
//!                  vectors: f32, row by row
//!                  zeros up to a multiple of 64
//!
//! the end        table, 16 bytes a block:
//!                  0   8  length of the block
//!                  8   4  CRC-32 of the block
//!                 12   4  zeros
//! ```
//!
//! Every byte is under a checksum. A reader checks each length against the file's before it allocates, verifies a block before
//! it hands over its rows, and refuses newer versions by name.

use std::collections::HashSet;
use std::io::{self, Seek, SeekFrom, Write};
use std::sync::Arc;

use limnion_types::{Error, ErrorKind, Job, Result};

use super::{Blob, Shape, array, bad, check_dim, check_finite, f32s, head, u32_at, u32s, u64_at, u64s};
use crate::backend::{Ids, Rows};
use crate::names;

const MAGIC: &[u8] = b"limnrow\n";
const VERSION: u32 = 1;
const HEADER: u64 = 64;
const ENTRY: u64 = 16;
const ALIGNMENT: usize = 64;
/// Rows a block, where they are not too long.
const BLOCK: usize = 8192;
/// Bytes of vectors a block.
const BLOCK_BYTES: usize = 8 << 20;

/// What the header says.
struct Header {
    dim: usize,
    rows: u64,
    named: bool,
    block: u64,
    instance: u128,
    table_crc: u32,
}

impl Header {
    fn blocks(&self) -> u64 {
        self.rows.div_ceil(self.block)
    }

    fn read(blob: &dyn Blob) -> Result<Self> {
        let bytes = head(blob, HEADER)?;
        if !bytes.starts_with(MAGIC) {
            return Err(bad("a .rows file begins with \"limnrow\", this does not"));
        }
        let version = u32_at(&bytes, 8);
        if bytes.len() >= 12 && version > VERSION {
            return Err(bad(format!(
                "it has version {version} of .rows, this limnion reads up to {VERSION}"
            ))
            .suggest("update limnion"));
        }
        let checked = bytes.get(..60).map(crc32fast::hash);
        if (bytes.len() as u64) < HEADER || checked != Some(u32_at(&bytes, 60)) {
            return Err(damaged("its header does not have its checksum"));
        }
        let header = Self {
            dim: u32_at(&bytes, 12) as usize,
            rows: u64_at(&bytes, 16),
            named: u32_at(&bytes, 48) == 1,
            block: u32_at(&bytes, 52).into(),
            instance: u128::from_le_bytes(array(bytes.get(32..).unwrap_or_default())),
            table_crc: u32_at(&bytes, 56),
        };
        check_dim(header.dim)?;
        if version != VERSION || u32_at(&bytes, 48) > 1 || header.block == 0 {
            return Err(damaged("its header tells of what cannot be"));
        }
        if u64_at(&bytes, 24) != blob.len() {
            return Err(damaged(format!(
                "it is to have {} bytes, and has {}",
                u64_at(&bytes, 24),
                blob.len()
            )));
        }
        // What the rows take at least, so that no count is believed that the file has no room for.
        let least = header.blocks().checked_mul(ENTRY).and_then(|table| {
            let row = if header.named { 4 } else { 8 } + 4 * header.dim as u64;
            header.rows.checked_mul(row)?.checked_add(table)?.checked_add(HEADER)
        });
        if least.is_none_or(|least| least > blob.len()) {
            return Err(damaged(format!("it is to have {} rows, for which it is too short", header.rows)));
        }
        Ok(header)
    }
}

fn damaged(problem: impl std::fmt::Display) -> Error {
    bad(format!("the .rows file is damaged: {problem}")).suggest("write it again, or take it from a backup")
}

/// What is another one each time that a file is written.
pub(crate) fn instance(blob: &dyn Blob) -> Result<u128> {
    Ok(Header::read(blob)?.instance)
}

/// The shape, and whether ids are names; `None` where there are no rows to tell.
pub(crate) fn kind(blob: &dyn Blob) -> Result<(Shape, Option<bool>)> {
    let header = Header::read(blob)?;
    let rows = usize::try_from(header.rows).map_err(bad)?;
    Ok((Shape { dim: header.dim, rows }, (rows > 0).then_some(header.named)))
}

pub(super) fn shape(blob: &dyn Blob) -> Result<Shape> {
    Ok(kind(blob)?.0)
}

pub(super) fn read(blob: &dyn Blob, take: &mut dyn FnMut(Rows) -> Result<()>, job: &Job) -> Result<()> {
    let header = Header::read(blob)?;
    let table_at = blob.len() - header.blocks() * ENTRY;
    let table = blob.read(table_at..blob.len())?;
    if crc32fast::hash(&table) != header.table_crc {
        return Err(damaged("its table does not have its checksum"));
    }
    let mut offset = HEADER;
    let mut row = 0;
    for entry in table.chunks_exact(ENTRY as usize) {
        job.check()?;
        let (length, crc) = (u64_at(entry, 0), u32_at(entry, 8));
        let end = offset.checked_add(length).filter(|&end| end <= table_at);
        let end = end.ok_or_else(|| damaged("a block reaches beyond the file"))?;
        let bytes = blob.read(offset..end)?;
        if crc32fast::hash(&bytes) != crc {
            return Err(damaged(format!("the block of row {row} does not have its checksum")));
        }
        let count = header.block.min(header.rows - row) as usize;
        let rows = decode(&bytes, count, &header)
            .ok_or_else(|| damaged(format!("the block of row {row} is not one")))?;
        check_finite(&rows.vectors, header.dim, row)?;
        take(rows)?;
        row += count as u64;
        offset = end;
    }
    if offset != table_at {
        return Err(damaged("its blocks do not reach up to its table"));
    }
    Ok(())
}

/// The rows of a block; `None` where its lengths do not fit.
fn decode(bytes: &[u8], count: usize, header: &Header) -> Option<Rows> {
    let (ids, rest) = if header.named {
        let (lengths, text) = bytes.split_at_checked(count.checked_mul(4)?)?;
        let mut names = Vec::with_capacity(count);
        let mut left = text;
        for length in u32s(lengths) {
            let (name, rest) = left.split_at_checked(length as usize)?;
            names.push(Arc::<str>::from(std::str::from_utf8(name).ok()?));
            left = rest;
        }
        let written = text.len() - left.len();
        let (zeros, rest) = left.split_at_checked(written.next_multiple_of(4) - written)?;
        if !are_zeros(zeros) {
            return None;
        }
        (Ids::Names(names), rest)
    } else {
        let (ids, rest) = bytes.split_at_checked(count.checked_mul(8)?)?;
        (Ids::Numbers(u64s(ids).collect()), rest)
    };
    let (vectors, zeros) = rest.split_at_checked(count.checked_mul(header.dim)?.checked_mul(4)?)?;
    let whole = bytes.len().is_multiple_of(ALIGNMENT) && zeros.len() < ALIGNMENT && are_zeros(zeros);
    whole.then(|| Rows { ids, vectors: f32s(vectors).collect() })
}

fn are_zeros(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// Writes a file row by row, with no more in memory than a block.
///
/// Only what [`RowsWriter::finish`] has returned for is a file: before that its header is zeros.
pub(crate) struct RowsWriter<W: Write + Seek> {
    out: W,
    dim: usize,
    named: Option<bool>,
    rows: u64,
    length: u64,
    table: Vec<u8>,
    block: usize,
    waiting: Rows,
}

impl<W: Write + Seek> RowsWriter<W> {
    pub(crate) fn new(mut out: W, dim: usize) -> Result<Self> {
        check_dim(dim).map_err(|error| Error::new(ErrorKind::InvalidArgument, error.message()))?;
        out.write_all(&[0; HEADER as usize]).map_err(|error| unwritten(&error))?;
        Ok(Self {
            out,
            dim,
            named: None,
            rows: 0,
            length: HEADER,
            table: Vec::new(),
            block: (BLOCK_BYTES / (4 * dim)).clamp(1, BLOCK),
            waiting: Rows { ids: Ids::Numbers(Vec::new()), vectors: Vec::new() },
        })
    }

    /// Adds rows; the kind of the first ids is that of all.
    pub(crate) fn push(&mut self, rows: Rows) -> Result<()> {
        if rows.ids.len().checked_mul(self.dim) != Some(rows.vectors.len()) {
            return Err(Error::new(
                ErrorKind::DimensionMismatch,
                format!(
                    "vectors must have {} dimensions: {} ids came with {} numbers",
                    self.dim,
                    rows.ids.len(),
                    rows.vectors.len()
                ),
            ));
        }
        if rows.ids.is_empty() {
            return Ok(());
        }
        check_finite(&rows.vectors, self.dim, self.rows + self.waiting.ids.len() as u64)
            .map_err(|error| Error::new(ErrorKind::InvalidArgument, error.message()))?;
        let named = matches!(rows.ids, Ids::Names(_));
        if *self.named.get_or_insert(named) != named {
            return Err(mixed());
        }
        let mut waiting = std::mem::replace(&mut self.waiting, rows);
        let added = std::mem::replace(&mut self.waiting.ids, Ids::Numbers(Vec::new()));
        match (&mut waiting.ids, added) {
            (Ids::Numbers(ids), Ids::Numbers(more)) => ids.extend(more),
            (Ids::Names(ids), Ids::Names(more)) => ids.extend(more),
            (ids, more) => *ids = more,
        }
        waiting.vectors.append(&mut self.waiting.vectors);
        self.waiting = waiting;
        while self.waiting.ids.len() >= self.block {
            self.flush(self.block)?;
        }
        Ok(())
    }

    /// Writes the first rows of those that wait as a block.
    fn flush(&mut self, count: usize) -> Result<()> {
        let mut bytes = Vec::with_capacity(count * (8 + 4 * self.dim) + ALIGNMENT);
        match &mut self.waiting.ids {
            Ids::Numbers(ids) => {
                ids.drain(..count).for_each(|id| bytes.extend_from_slice(&id.to_le_bytes()));
            }
            Ids::Names(ids) => {
                for id in ids.iter().take(count) {
                    let length = u32::try_from(id.len()).map_err(|_| {
                        Error::new(ErrorKind::InvalidArgument, "an id must have less than 4 GiB")
                    })?;
                    bytes.extend_from_slice(&length.to_le_bytes());
                }
                ids.drain(..count).for_each(|id| bytes.extend_from_slice(id.as_bytes()));
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
        }
        for number in self.waiting.vectors.drain(..count * self.dim) {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        self.table.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.table.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        self.table.extend_from_slice(&[0; 4]);
        self.rows += count as u64;
        self.length += bytes.len() as u64;
        self.out.write_all(&bytes).map_err(|error| unwritten(&error))
    }

    /// Writes what remains, the table and the header.
    pub(crate) fn finish(mut self) -> Result<W> {
        if !self.waiting.ids.is_empty() {
            self.flush(self.waiting.ids.len())?;
        }
        let length = self.length + self.table.len() as u64;
        let mut header = Vec::with_capacity(HEADER as usize);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&(self.dim as u32).to_le_bytes());
        header.extend_from_slice(&self.rows.to_le_bytes());
        header.extend_from_slice(&length.to_le_bytes());
        header.extend_from_slice(&names::unique().to_le_bytes());
        header.extend_from_slice(&u32::from(self.named == Some(true)).to_le_bytes());
        header.extend_from_slice(&(self.block as u32).to_le_bytes());
        header.extend_from_slice(&crc32fast::hash(&self.table).to_le_bytes());
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        let written = self.out.write_all(&self.table).and_then(|()| {
            self.out.seek(SeekFrom::Start(0))?;
            self.out.write_all(&header)?;
            self.out.flush()
        });
        written.map_err(|error| unwritten(&error))?;
        Ok(self.out)
    }
}

/// Ids of both kinds in one collection.
pub(crate) fn mixed() -> Error {
    Error::new(ErrorKind::InvalidType, "the ids of a collection must be all numbers or all names, got both")
}

fn unwritten(error: &io::Error) -> Error {
    bad(format!("cannot be written: {error}"))
}

/// Finds ids that come twice.
#[derive(Default)]
pub(crate) struct Seen {
    numbers: HashSet<u64>,
    names: HashSet<Arc<str>>,
}

impl Seen {
    /// Notes more ids; an error of kind duplicate id for one that is known.
    pub(crate) fn add(&mut self, ids: &Ids) -> Result<()> {
        let twice = |id: &dyn std::fmt::Debug| {
            Err(Error::new(ErrorKind::DuplicateId, format!("ids must be unique, got {id:?} twice")))
        };
        match ids {
            Ids::Numbers(ids) => match ids.iter().find(|id| !self.numbers.insert(**id)) {
                Some(id) => twice(id),
                None => Ok(()),
            },
            Ids::Names(ids) => match ids.iter().find(|id| !self.names.insert(Arc::clone(id))) {
                Some(id) => twice(id),
                None => Ok(()),
            },
        }
    }
}
