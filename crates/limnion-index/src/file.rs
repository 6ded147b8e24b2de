//! The index file.
//!
//! Little-endian. A header, a table of sections, and the sections, each on a 64-byte boundary, zeros between:
//!
//! ```text
//! offset  bytes  header
//!      0      8  magic "limnidx\n"
//!      8      4  version: 1, 2 for an index of lists, 3 for one of binary vectors, 4 for a graph
//!     12      4  number of sections, s
//!     16      8  length of the whole file
//!     24      4  CRC-32 of the section table
//!     28      4  CRC-32 of bytes 0..28
//!
//!     32   24 s  section table, an entry each:
//!                  0   4  name
//!                  4   4  CRC-32 of the section
//!                  8   8  offset
//!                 16   8  length
//!
//! name  content
//! META  the 64 bytes below
//! MEAN  f32 a dimension: the vector that was subtracted                 where bits > 0
//! CODE  blocks of 32 rows, as limnion-simd draws them                   where bits > 0
//! MORE  a row: packed further bits, f_add f32, f_rescale f32            where bits > 1
//! VECS  the originals, row by row, f32 or f16                           where kept
//! INVL  f32 a row: 1 / length                                           where kept, cosine
//! IDS_  u64 a row                                                       unless they are 0, 1, 2 …
//! CALI  six f32: the shares of neighbours that `calibration.rs` found   where a recall has been asked for
//!
//! META    0   8  rows
//!         8   8  seed
//!        16   4  dimension
//!        20   4  rerank_factor, 0 for none
//!        24   4  scale of the codes, f32
//!        28   4  least ‖r‖² in scaled units, f32
//!        32   4  largest ‖r‖² in scaled units, f32
//!        36   1  metric: 0 l2, 1 ip, 2 cosine
//!        37   1  bits
//!        38   1  originals: 0 none, 1 f32, 2 f16
//!        39   1  kind: 0 flat, 1 lists, 2 binary vectors
//!        40  24  zeros, or what `ivf_file.rs` says of lists; `hamming.rs` has META of binary vectors
//! ```
//!
//! A reader checks every length against the file's before it allocates, and refuses newer versions by name.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytemuck::Pod;
use limnion_rabitq::{Quantizer, padded_dim};
use limnion_simd::BlockShape;
use limnion_types::{Error, ErrorKind, Job, Metric, Result};

use crate::calibration::{Calibration, LEVELS};
use crate::codes::Codes;
use crate::flat::{FlatIndex, form};
use crate::ids::Ids;
use crate::originals::{Matrix, Originals};
use crate::params::{Params, Precision};
use crate::rbpx;
use crate::storage::{Source, Storage};
use crate::table::{Table, new_revision};

const MAGIC: &[u8; 8] = b"limnidx\n";
/// The newest version that is read.
const VERSION: u32 = 4;
const FLAT_VERSION: u32 = 1;
const HEADER: usize = 32;
const ENTRY: usize = 24;
pub(crate) const META: usize = 64;
const ALIGNMENT: usize = 64;
/// Where META has the kind.
pub(crate) const KIND_AT: usize = 39;
/// More than any version will have; keeps a hostile count from making a large table.
const MAX_SECTIONS: usize = 64;

/// When the checksums of an opened file are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// At once: what opens is whole. The arrays are copied into memory of their own.
    Now,
    /// Each array when it is first used; the file's bytes are used where they are.
    OnFirstUse,
}

/// A named part of the file.
#[derive(PartialEq)]
pub(crate) struct Section<'a> {
    pub(crate) name: [u8; 4],
    pub(crate) bytes: std::borrow::Cow<'a, [u8]>,
}

impl FlatIndex {
    /// Writes the index to a file, atomically: a file that is already there stays as it is until the new one is
    /// complete and on disk.
    ///
    /// # Errors
    /// `Io`.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.verify()?;
        save(path, FLAT_VERSION, &self.all_sections())
    }

    /// The index as the bytes of its file.
    ///
    /// # Errors
    /// `CorruptFile` where the index lies in a mapped file that turns out damaged.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.verify()?;
        to_bytes(FLAT_VERSION, &self.all_sections())
    }

    /// Reads and verifies a file: one of [`FlatIndex::save`], or a `.rbpx` of version 1, whose index is built anew.
    ///
    /// # Errors
    /// `FileNotFound`, `Io`, `CorruptFile`, `NewerFile`, and `Cancelled` while a `.rbpx` is being built.
    pub fn load(path: &Path, job: &Job) -> Result<Self> {
        let bytes = fs::read(path).map_err(|error| io_error("read", path, &error))?;
        let index = if rbpx::is_rbpx(&bytes) {
            rbpx::read(&bytes, job)
        } else {
            Self::from_bytes(&(Arc::new(bytes) as Source), Verify::Now)
        };
        index.map_err(|error| error.within(path.display()))
    }

    /// Opens the bytes of a file.
    ///
    /// # Errors
    /// `CorruptFile`, `NewerFile`.
    pub fn from_bytes(source: &Source, verify: Verify) -> Result<Self> {
        let file = Reader::open(source, verify)?;
        let meta = file.meta(Kind::Flat)?;
        let codes = if meta.params.bits > 0 { Some(file.codes(&meta, meta.rows)?) } else { None };
        let table = file.table(&meta)?;
        let index = Self::of(meta.params, table, codes);
        if file.find(*b"CALI").is_some() {
            let found: Storage<f32> = file.array(*b"CALI", LEVELS, 1)?;
            found.verify("calibration")?;
            match found.first_chunk() {
                Some(&found) if found.iter().all(|share| (0.0..=1.0).contains(share)) => {
                    index.calibration.get_or_init(|| Calibration { found });
                }
                _ => return Err(corrupt("its calibration is out of range")),
            }
        }
        Ok(index)
    }

    pub(crate) fn sections(&self) -> Vec<Section<'_>> {
        let mut sections = vec![Section { name: *b"META", bytes: Meta::of(self).write().into() }];
        if let Some(codes) = &self.codes {
            add_codes(codes, &mut sections);
        }
        add_table(&self.table, &mut sections);
        sections
    }

    /// [`FlatIndex::sections`], and what is known of the data besides.
    fn all_sections(&self) -> Vec<Section<'_>> {
        let mut sections = self.sections();
        if let Some(known) = self.calibration.get() {
            sections.push(Section { name: *b"CALI", bytes: bytes_of(&known.found) });
        }
        sections
    }
}

/// The sections that hold codes.
pub(crate) fn add_codes<'a>(codes: &'a Codes, sections: &mut Vec<Section<'a>>) {
    let mut add = |name: &[u8; 4], bytes| sections.push(Section { name: *name, bytes });
    add(b"MEAN", bytes_of(codes.quantizer().mean()));
    add(b"CODE", codes.block_bytes().into());
    if codes.quantizer().bits() > 1 {
        add(b"MORE", bytes_of(codes.extra()));
    }
}

/// The sections that hold rows beside their codes.
pub(crate) fn add_table<'a>(table: &'a Table, sections: &mut Vec<Section<'a>>) {
    let mut add = |name: &[u8; 4], bytes| sections.push(Section { name: *name, bytes });
    if let Some(originals) = &table.originals {
        add(b"VECS", originals.bytes().into());
    }
    if let Some(kept) = &table.inverse_lengths {
        add(b"INVL", bytes_of(kept));
    }
    if let Some(list) = table.ids.list() {
        add(b"IDS_", bytes_of(list));
    }
}

/// Writes sections to a file, atomically.
pub(crate) fn save(path: &Path, version: u32, sections: &[Section<'_>]) -> Result<()> {
    let failed = |error: io::Error| io_error("write", path, &error);
    let temporary = temporary_name(path);
    let written = File::create_new(&temporary).and_then(|file| {
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        write(version, sections, &mut writer)?;
        writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    });
    let placed = written.and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = placed {
        // The temporary file is of no use to anyone; that it may be left behind is not the error to report.
        let _ = fs::remove_file(&temporary);
        return Err(failed(error));
    }
    sync_folder(path);
    Ok(())
}

/// The bytes of a file of sections.
pub(crate) fn to_bytes(version: u32, sections: &[Section<'_>]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write(version, sections, &mut bytes).map_err(|error| io_error("write", Path::new("memory"), &error))?;
    Ok(bytes)
}

fn write(version: u32, sections: &[Section<'_>], out: &mut impl Write) -> io::Result<()> {
    let mut table = Vec::new();
    let mut end = HEADER + ENTRY * sections.len();
    let mut offsets = Vec::new();
    for section in sections {
        let offset = end.next_multiple_of(ALIGNMENT);
        end = offset + section.bytes.len();
        offsets.push(offset);
        table.extend_from_slice(&section.name);
        table.extend_from_slice(&crc32fast::hash(&section.bytes).to_le_bytes());
        table.extend_from_slice(&(offset as u64).to_le_bytes());
        table.extend_from_slice(&(section.bytes.len() as u64).to_le_bytes());
    }
    let mut header = Vec::with_capacity(HEADER);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&version.to_le_bytes());
    header.extend_from_slice(&(sections.len() as u32).to_le_bytes());
    header.extend_from_slice(&(end as u64).to_le_bytes());
    header.extend_from_slice(&crc32fast::hash(&table).to_le_bytes());
    header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
    out.write_all(&header)?;
    out.write_all(&table)?;
    let mut written = header.len() + table.len();
    for (section, offset) in sections.iter().zip(offsets) {
        out.write_all(&vec![0; offset - written])?;
        out.write_all(&section.bytes)?;
        written = offset + section.bytes.len();
    }
    out.flush()
}

/// Which index a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Flat = 0,
    Lists = 1,
    Bits = 2,
    Graph = 3,
}

/// What META holds, whichever the kind.
pub(crate) struct Meta {
    pub(crate) params: Params,
    pub(crate) dim: usize,
    pub(crate) rows: usize,
    pub(crate) scale: f32,
    pub(crate) squares: (f32, f32),
}

impl Meta {
    fn of(index: &FlatIndex) -> Self {
        let codes = index.codes.as_ref();
        Self {
            params: index.params.clone(),
            dim: index.dim(),
            rows: index.len(),
            scale: codes.map_or(1.0, |codes| codes.quantizer().scale()),
            squares: codes.map_or((0.0, 0.0), Codes::squares),
        }
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(META);
        bytes.extend_from_slice(&(self.rows as u64).to_le_bytes());
        bytes.extend_from_slice(&self.params.seed.to_le_bytes());
        bytes.extend_from_slice(&(self.dim as u32).to_le_bytes());
        bytes.extend_from_slice(&self.params.rerank_factor.unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&self.scale.to_le_bytes());
        bytes.extend_from_slice(&self.squares.0.to_le_bytes());
        bytes.extend_from_slice(&self.squares.1.to_le_bytes());
        let originals = self.params.originals.map_or(0, |precision| precision as u8);
        bytes.extend_from_slice(&[self.params.metric as u8, self.params.bits, originals]);
        bytes.resize(META, 0);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields(bytes);
        let (rows, seed) = (fields.u64()?, fields.u64()?);
        let (dim, rerank_factor) = (fields.u32()? as usize, fields.u32()?);
        let (scale, least, largest) = (fields.f32()?, fields.f32()?, fields.f32()?);
        let [metric, bits, originals] = fields.take()?;
        let params = Params {
            metric: Metric::ALL
                .into_iter()
                .find(|m| *m as u8 == metric)
                .ok_or_else(|| corrupt("its metric is unknown"))?,
            bits,
            originals: match originals {
                0 => None,
                1 => Some(Precision::F32),
                2 => Some(Precision::F16),
                _ => return Err(corrupt("its precision is unknown")),
            },
            seed,
            rerank_factor: (rerank_factor > 0).then_some(rerank_factor),
        };
        params.check(dim).map_err(|error| corrupt(error.message()))?;
        let rows = u32::try_from(rows).map_err(|_| corrupt("it has too many rows"))? as usize;
        if !(scale.is_normal() && scale > 0.0 && least >= 0.0 && largest >= 0.0) {
            return Err(corrupt("its scale is out of range"));
        }
        Ok(Self { params, dim, rows, scale, squares: (least, largest) })
    }
}

/// A file whose header and table are in order.
pub(crate) struct Reader<'a> {
    source: &'a Source,
    pub(crate) verify: Verify,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
pub(crate) struct Entry {
    name: [u8; 4],
    crc: u32,
    start: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn open(source: &'a Source, verify: Verify) -> Result<Self> {
        let bytes = source.as_ref().as_ref();
        if !bytes.starts_with(MAGIC) {
            return Err(corrupt("it is no limnion index file (wrong magic)"));
        }
        let mut fields = Fields(bytes.get(MAGIC.len()..).unwrap_or_default());
        let version = fields.u32()?;
        let (count, length) = (fields.u32()? as usize, fields.u64()?);
        let (table_crc, header_crc) = (fields.u32()?, fields.u32()?);
        if bytes.get(..HEADER - 4).map(crc32fast::hash) != Some(header_crc) {
            return Err(corrupt("its header is damaged"));
        }
        if version > VERSION {
            let message = format!("the index file has version {version}; this limnion reads up to {VERSION}");
            return Err(Error::new(ErrorKind::NewerFile, message).suggest("upgrade limnion"));
        }
        if length != bytes.len() as u64 {
            return Err(corrupt(&format!("it should have {length} bytes and has {}", bytes.len())));
        }
        if count > MAX_SECTIONS {
            return Err(corrupt("its section table is too long"));
        }
        let table = bytes.get(HEADER..HEADER + ENTRY * count).unwrap_or_default();
        if table.len() != ENTRY * count || crc32fast::hash(table) != table_crc {
            return Err(corrupt("its section table is damaged"));
        }
        let mut fields = Fields(table);
        let entries: Vec<Entry> = (0..count)
            .map(|_| {
                let (name, crc, offset, length) =
                    (fields.take()?, fields.u32()?, fields.u64()?, fields.u64()?);
                let end = offset.checked_add(length).filter(|&end| end <= bytes.len() as u64);
                let end = end.ok_or_else(|| corrupt("a section lies beyond its end"))?;
                Ok(Entry { name, crc, start: offset as usize, end: end as usize })
            })
            .collect::<Result<_>>()?;
        let file = Self { source, verify, entries };
        // META is small and decides everything else; the rest is verified as `verify` says.
        for entry in file.entries.iter().filter(|entry| verify == Verify::Now || entry.name == *b"META") {
            if crc32fast::hash(file.slice(*entry)) != entry.crc {
                return Err(corrupt(&format!("its section {} is damaged", entry.name.escape_ascii())));
            }
        }
        Ok(file)
    }

    fn slice(&self, entry: Entry) -> &[u8] {
        self.source.as_ref().as_ref().get(entry.start..entry.end).unwrap_or_default()
    }

    fn find(&self, name: [u8; 4]) -> Option<Entry> {
        self.entries.iter().find(|entry| entry.name == name).copied()
    }

    pub(crate) fn bytes(&self, name: [u8; 4]) -> Result<&[u8]> {
        let entry = self.find(name).ok_or_else(|| missing(name))?;
        Ok(self.slice(entry))
    }

    /// The array of a section that must have `rows` × `columns` values.
    pub(crate) fn array<T: Pod>(&self, name: [u8; 4], rows: usize, columns: usize) -> Result<Storage<T>> {
        let entry = self.find(name).ok_or_else(|| missing(name))?;
        let expected = rows.checked_mul(columns).and_then(|count| count.checked_mul(size_of::<T>()));
        if expected != Some(entry.end - entry.start) {
            return Err(corrupt(&format!("its section {} has the wrong length", name.escape_ascii())));
        }
        if self.verify == Verify::OnFirstUse {
            return Storage::mapped(self.source, entry.start..entry.end, entry.crc)
                .ok_or_else(|| corrupt(&format!("its section {} is not aligned", name.escape_ascii())));
        }
        let mut values = Storage::with_capacity(rows * columns);
        values.to_mut().resize(rows * columns, T::zeroed());
        bytemuck::cast_slice_mut::<T, u8>(values.to_mut()).copy_from_slice(self.slice(entry));
        Ok(values)
    }

    /// META, of an index of this kind.
    pub(crate) fn meta(&self, kind: Kind) -> Result<Meta> {
        self.check_kind(kind)?;
        Meta::read(self.bytes(*b"META")?)
    }

    /// An error unless the file holds an index of this kind.
    pub(crate) fn check_kind(&self, kind: Kind) -> Result<()> {
        match self.bytes(*b"META")?.get(KIND_AT).copied() {
            Some(found) if found == kind as u8 => Ok(()),
            Some(0) => Err(other_kind("a flat index", "FlatIndex")),
            Some(1) => Err(other_kind("an index of lists", "IvfIndex")),
            Some(2) => Err(other_kind("an index of binary vectors", "HammingIndex")),
            Some(3) => Err(other_kind("a graph", "GraphIndex")),
            _ => Err(corrupt("the kind of its index is unknown")),
        }
    }

    /// The ids of so many rows.
    pub(crate) fn ids(&self, rows: usize) -> Result<Ids> {
        let ids = match self.find(*b"IDS_") {
            None => Ids::Dense { len: rows },
            Some(_) => Ids::listed(self.array(*b"IDS_", rows, 1)?),
        };
        if self.verify == Verify::Now && !ids.are_different() {
            return Err(corrupt("an id comes twice"));
        }
        Ok(ids)
    }

    /// The rows beside their codes.
    pub(crate) fn table(&self, meta: &Meta) -> Result<Table> {
        let Meta { params, dim, rows, .. } = meta;
        let (file, dim, rows) = (self, *dim, *rows);
        let originals = match params.originals {
            None => None,
            Some(Precision::F32) => Some(Originals::F32(Matrix::new(file.array(*b"VECS", rows, dim)?, dim))),
            Some(Precision::F16) => Some(Originals::F16(Matrix::new(file.array(*b"VECS", rows, dim)?, dim))),
        };
        let inverse_lengths = if params.metric == Metric::Cosine && params.originals.is_some() {
            Some(file.array(*b"INVL", rows, 1)?)
        } else {
            None
        };
        let ids = file.ids(rows)?;
        Ok(Table { metric: params.metric, dim, ids, originals, inverse_lengths, revision: new_revision() })
    }

    /// What makes codes, and the shape of their blocks.
    pub(crate) fn quantizer(&self, meta: &Meta) -> Result<(Quantizer, BlockShape)> {
        let Meta { params, dim, scale, .. } = meta;
        let mean: Storage<f32> = self.array(*b"MEAN", *dim, 1)?;
        mean.verify("codes")?;
        let quantizer =
            Quantizer::with_scale(mean.to_vec(), params.bits, form(params.metric), params.seed, *scale);
        let shape =
            BlockShape::new(padded_dim(*dim)).ok_or_else(|| corrupt("its dimension is out of range"))?;
        Ok((quantizer, shape))
    }

    /// Codes with so many places.
    pub(crate) fn codes(&self, meta: &Meta, places: usize) -> Result<Codes> {
        let (quantizer, shape) = self.quantizer(meta)?;
        let lines = shape.block_bytes() / ALIGNMENT;
        let blocks = self.array(*b"CODE", places.div_ceil(BlockShape::ROWS), lines)?;
        let extra = match quantizer.extra_bytes() {
            0 => Storage::new(Vec::new()),
            stride => self.array(*b"MORE", places, stride)?,
        };
        Ok(Codes::from_parts(quantizer, shape, places, blocks, extra, meta.squares))
    }
}

/// Reads numbers one after another.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk().ok_or_else(|| corrupt("it is too short"))?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(crate) fn f32(&mut self) -> Result<f32> {
        self.take().map(f32::from_le_bytes)
    }
}

pub(crate) fn bytes_of<T: Pod>(values: &[T]) -> std::borrow::Cow<'_, [u8]> {
    bytemuck::cast_slice(values).into()
}

pub(crate) fn corrupt(problem: &str) -> Error {
    Error::new(ErrorKind::CorruptFile, format!("the index file cannot be used: {problem}"))
        .suggest("build the index again: it is a cache of your vectors")
}

fn other_kind(what: &str, class: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("the index file holds {what}"))
        .suggest(format!("open it with {class}"))
}

fn missing(name: [u8; 4]) -> Error {
    corrupt(&format!("its section {} is missing", name.escape_ascii()))
}

pub(crate) fn io_error(verb: &str, path: &Path, error: &io::Error) -> Error {
    let kind = if error.kind() == io::ErrorKind::NotFound { ErrorKind::FileNotFound } else { ErrorKind::Io };
    Error::new(kind, format!("cannot {verb} {}: {error}", path.display()))
}

/// A name beside the target that no other save uses at the same time.
fn temporary_name(path: &Path) -> PathBuf {
    static SAVES: AtomicU32 = AtomicU32::new(0);
    let number = SAVES.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{number}.tmp", std::process::id()));
    path.with_file_name(name)
}

/// Makes the rename durable where the platform lets folders be synced; elsewhere the file itself is what can be had.
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}
