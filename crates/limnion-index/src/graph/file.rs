//! The file of a graph: that of [`crate::file`], version 4, with these sections.
//!
//! ```text
//! name  content
//! MEAN  f32 a dimension: the vector that was subtracted
//! RECS  a vertex: its record, as limnion-simd draws it
//! MORE  a vertex: packed further bits, f_add f32, f_rescale f32         where bits > 1
//! LINK  a vertex: the slots it leads to, u32, 2³² − 1 after the last
//! ROWS  u32 a vertex: its row, 2³² − 1 where it was removed
//! NEAR  a vertex: blocks of its neighbours' records                     where the layout is inline
//! BEGN  u32: the slots where walks begin
//! EFFO  how far to look for which recall, f32; empty where that is not known
//!
//! META   40   4  vertices
//!        44   4  links of a vertex, the most
//!        48   1  layout: 0 compact, 1 inline
//!        49  15  zeros
//! ```

use std::fs;
use std::path::Path;
use std::sync::Arc;

use limnion_simd::Line;
use limnion_types::Result;

use crate::file::{
    Fields, KIND_AT, Kind, META, Meta, Reader, Section, Verify, add_table, bytes_of, corrupt, io_error, save,
    to_bytes,
};
use crate::graph::effort::{EFFORTS, Efforts};
use crate::graph::entries::Entries;
use crate::graph::index::GraphIndex;
use crate::graph::links::Links;
use crate::graph::params::{GraphParams, Layout};
use crate::graph::places::Places;
use crate::graph::records::Records;
use crate::storage::{Source, Storage};

const VERSION: u32 = 4;

impl GraphIndex {
    /// Writes the index to a file, atomically: a file that is already there stays as it is until the new one is
    /// complete and on disk.
    ///
    /// # Errors
    /// `Io`.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.verify()?;
        save(path, VERSION, &self.sections())
    }

    /// The index as the bytes of its file.
    ///
    /// # Errors
    /// `CorruptFile` where the index lies in a mapped file that turns out damaged.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.verify()?;
        to_bytes(VERSION, &self.sections())
    }

    /// Reads and verifies a file of [`GraphIndex::save`].
    ///
    /// # Errors
    /// `FileNotFound`, `Io`, `CorruptFile`, `NewerFile`, and `InvalidArgument` for the file of another index.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(|error| io_error("read", path, &error))?;
        let index = Self::from_bytes(&(Arc::new(bytes) as Source), Verify::Now);
        index.map_err(|error| error.within(path.display()))
    }

    /// Opens the bytes of a file.
    ///
    /// # Errors
    /// `CorruptFile`, `NewerFile`, and `InvalidArgument` for the file of another index.
    pub fn from_bytes(source: &Source, verify: Verify) -> Result<Self> {
        let file = Reader::open(source, verify)?;
        let meta = file.meta(Kind::Graph)?;
        let flat = &meta.params;
        let mut fields = Fields(file.bytes(*b"META")?.get(KIND_AT + 1..).unwrap_or_default());
        let (count, degree) = (fields.u32()? as usize, fields.u32()?);
        let [layout] = fields.take()?;
        let params = GraphParams {
            metric: flat.metric,
            bits: flat.bits,
            originals: flat.originals,
            seed: flat.seed,
            degree,
            layout: match layout {
                0 => Layout::Compact,
                1 => Layout::Inline,
                _ => return Err(corrupt("its layout is unknown")),
            },
        };
        params.check(meta.dim).map_err(|error| corrupt(error.message()))?;
        let (quantizer, shape) = file.quantizer(&meta)?;
        let lines: Storage<Line> = file.array(*b"RECS", count, shape.record_lines())?;
        let extra = match quantizer.extra_bytes() {
            0 => Storage::new(Vec::new()),
            bytes => file.array(*b"MORE", count, bytes)?,
        };
        let records = Records::from_parts(quantizer, shape, lines, extra, meta.squares);
        let links = Links::from_parts(degree as usize, file.array(*b"LINK", count, degree as usize)?);
        let places = Places::new(file.array(*b"ROWS", count, 1)?);
        let table = file.table(&meta)?;
        if verify == Verify::Now && !places.are_whole(meta.rows) {
            return Err(corrupt("its vertices do not hold each row once"));
        }
        let blocks = match params.layout {
            Layout::Compact => None,
            Layout::Inline => {
                let lines = params.blocks() * shape.block_bytes() / size_of::<Line>();
                Some(file.array(*b"NEAR", count, lines)?)
            }
        };
        let begin = file.bytes(*b"BEGN")?.len() / size_of::<u32>();
        let begin: Storage<u32> = file.array(*b"BEGN", begin, 1)?;
        begin.verify("entries")?;
        if begin.len() > count {
            return Err(corrupt("it has more entries than vertices"));
        }
        let entries = Entries::of(begin.to_vec(), &records);
        let pools: Storage<f32> = match file.bytes(*b"EFFO")?.len() {
            0 => Storage::new(Vec::new()),
            _ => file.array(*b"EFFO", EFFORTS, 1)?,
        };
        pools.verify("efforts")?;
        if !pools.iter().all(|pool| pool.is_finite() && *pool >= 0.0) {
            return Err(corrupt("its efforts are out of range"));
        }
        let efforts = Efforts { pools: pools.to_vec() };
        Ok(Self { params, table, records, links, places, entries, blocks, efforts, fresh_rows: 0 })
    }

    /// Whether these are the bytes of a graph, as far as they go.
    pub fn is_file(bytes: &[u8]) -> bool {
        bytes.starts_with(b"limnidx\n\x04\0\0\0")
    }

    fn sections(&self) -> Vec<Section<'_>> {
        let quantizer = self.records.quantizer();
        let meta = Meta {
            params: self.params.flat(),
            dim: self.dim(),
            rows: self.len(),
            scale: quantizer.scale(),
            squares: self.records.squares(),
        };
        let mut meta = meta.write();
        meta.truncate(KIND_AT);
        meta.push(Kind::Graph as u8);
        meta.extend_from_slice(&(self.places.len() as u32).to_le_bytes());
        meta.extend_from_slice(&self.params.degree.to_le_bytes());
        meta.push(self.params.layout as u8);
        meta.resize(META, 0);
        let mut sections = vec![Section { name: *b"META", bytes: meta.into() }];
        let mut add = |name: &[u8; 4], bytes| sections.push(Section { name: *name, bytes });
        add(b"MEAN", bytes_of(quantizer.mean()));
        add(b"RECS", bytes_of(self.records.lines()));
        if quantizer.bits() > 1 {
            add(b"MORE", bytes_of(self.records.extra()));
        }
        add(b"LINK", bytes_of(self.links.all()));
        add(b"ROWS", bytes_of(self.places.rows()));
        if let Some(blocks) = &self.blocks {
            add(b"NEAR", bytes_of(blocks));
        }
        add(b"BEGN", bytes_of(self.entries.slots()));
        add(b"EFFO", bytes_of(&self.efforts.pools));
        add_table(&self.table, &mut sections);
        sections
    }
}

/// Two indexes are equal when they hold the same rows in the same order and would be saved as the same bytes.
impl PartialEq for GraphIndex {
    fn eq(&self, other: &Self) -> bool {
        self.params == other.params && self.len() == other.len() && self.sections() == other.sections()
    }
}
