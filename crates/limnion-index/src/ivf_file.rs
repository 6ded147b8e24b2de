//! The file of an index of lists: that of [`crate::file`], version 2, with these sections more.
//!
//! ```text
//! name  content
//! CODE  blocks of 32 places, those of a list together, in the order of the lists
//! MORE  a place: packed further bits, f_add f32, f_rescale f32          where bits > 1
//! LIST  a list: rows u32, least ‖r‖² f32, largest ‖r‖² f32, mean ‖r‖² f32, in scaled units
//! ROWS  u32 a place: the row that lies there, 2³² − 1 for none
//! CENT  the centre of each list, rotated, in scaled units, f32
//! DIRC  blocks of the centres' own sign bits
//! MARG  the margins that recalls need, f32; empty where they are not known
//!
//! META   40   4  lists
//!        44   4  how many lists were asked for, 0 for none
//!        48  16  zeros
//! ```

use std::fs;
use std::path::Path;
use std::sync::Arc;

use limnion_simd::{BlockShape, Line};
use limnion_types::Result;

use crate::codes::Codes;
use crate::file::{
    Fields, KIND_AT, Kind, META, Meta, Reader, Section, Verify, add_codes, add_table, bytes_of, corrupt,
    io_error, save, to_bytes,
};
use crate::ivf::{Directory, IvfIndex, IvfParams, signs_only};
use crate::lists::{List, Lists};
use crate::recall::{MARGINS, Tuning};
use crate::storage::{Source, Storage};

const VERSION: u32 = 2;
/// Bytes of an entry of LIST.
const LIST: usize = 16;

impl IvfIndex {
    /// Writes the index to a file, atomically: a file that is already there stays as it is until the new one is
    /// complete and on disk.
    ///
    /// # Errors
    /// `Io`.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.verify()?;
        self.with_sections(|sections| save(path, VERSION, sections))
    }

    /// The index as the bytes of its file.
    ///
    /// # Errors
    /// `CorruptFile` where the index lies in a mapped file that turns out damaged.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.verify()?;
        self.with_sections(|sections| to_bytes(VERSION, sections))
    }

    /// Reads and verifies a file of [`IvfIndex::save`].
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
        let meta = file.meta(Kind::Lists)?;
        if meta.params.bits == 0 {
            return Err(corrupt("it has lists without codes"));
        }
        let mut fields = Fields(file.bytes(*b"META")?.get(KIND_AT + 1..).unwrap_or_default());
        let (count, asked) = (fields.u32()? as usize, fields.u32()?);
        let lists = read_lists(&file, count, meta.rows)?;
        let places = lists.block_count() * BlockShape::ROWS;
        let codes = file.codes(&meta, places)?;
        let directory = read_directory(&file, &codes, count)?;
        let table = file.table(&meta)?;
        if verify == Verify::Now && !lists.are_whole(meta.rows) {
            return Err(corrupt("its lists do not hold each row once"));
        }
        let margins: Storage<f32> = match file.bytes(*b"MARG")?.len() {
            0 => Storage::new(Vec::new()),
            _ => file.array(*b"MARG", MARGINS, 1)?,
        };
        margins.verify("margins")?;
        if margins.iter().any(|margin| margin.is_nan()) {
            return Err(corrupt("its margins are no numbers"));
        }
        let tuning = Tuning { margins: margins.to_vec() };
        let (metric, bits) = (meta.params.metric, meta.params.bits);
        let (originals, seed) = (meta.params.originals, meta.params.seed);
        let params = IvfParams { metric, bits, originals, seed, lists: (asked > 0).then_some(asked) };
        Ok(Self { params, table, codes, lists, directory, tuning, fresh_rows: 0 })
    }

    /// Whether these are the bytes of an index of lists, as far as they go.
    pub fn is_file(bytes: &[u8]) -> bool {
        bytes.starts_with(b"limnidx\n\x02\0\0\0")
    }

    /// Hands the sections of the index on, in which the blocks of each list lie together.
    fn with_sections<T>(&self, then: impl FnOnce(&[Section<'_>]) -> T) -> T {
        if self.lists.is_compact() {
            return then(&self.sections());
        }
        let mut compact = self.clone();
        compact.compact();
        then(&compact.sections())
    }

    fn sections(&self) -> Vec<Section<'_>> {
        let meta = Meta {
            params: self.params.flat(),
            dim: self.dim(),
            rows: self.len(),
            scale: self.codes.quantizer().scale(),
            squares: (0.0, 0.0),
        };
        let mut meta = meta.write();
        meta.truncate(KIND_AT);
        meta.push(Kind::Lists as u8);
        meta.extend_from_slice(&(self.lists.len() as u32).to_le_bytes());
        meta.extend_from_slice(&self.params.lists.unwrap_or(0).to_le_bytes());
        meta.resize(META, 0);
        let mut lists = Vec::with_capacity(self.lists.len() * LIST);
        for (list, &mean_square) in self.lists.lists.iter().zip(&self.lists.mean_squares) {
            lists.extend_from_slice(&list.len.to_le_bytes());
            for number in [list.squares.0, list.squares.1, mean_square] {
                lists.extend_from_slice(&number.to_le_bytes());
            }
        }
        let mut sections = vec![Section { name: *b"META", bytes: meta.into() }];
        add_codes(&self.codes, &mut sections);
        sections.push(Section { name: *b"LIST", bytes: lists.into() });
        sections.push(Section { name: *b"ROWS", bytes: bytes_of(self.lists.rows()) });
        sections.push(Section { name: *b"CENT", bytes: bytes_of(&self.directory.centres) });
        sections.push(Section { name: *b"DIRC", bytes: self.directory.codes.block_bytes().into() });
        sections.push(Section { name: *b"MARG", bytes: bytes_of(&self.tuning.margins) });
        add_table(&self.table, &mut sections);
        sections
    }
}

/// Two indexes are equal when they hold the same rows in the same order and would be saved as the same bytes.
impl PartialEq for IvfIndex {
    fn eq(&self, other: &Self) -> bool {
        self.params == other.params
            && self.len() == other.len()
            && self.with_sections(|mine| other.with_sections(|theirs| mine == theirs))
    }
}

fn read_lists(file: &Reader<'_>, count: usize, rows: usize) -> Result<Lists> {
    let entries: Storage<u8> = file.array(*b"LIST", count, LIST)?;
    entries.verify("lists")?;
    // What the file has places for, so that no count makes anyone allocate more.
    let most = file.bytes(*b"ROWS")?.len() / (BlockShape::ROWS * size_of::<u32>());
    let mut fields = Fields(&entries);
    let (mut lists, mut mean_squares, mut next, mut total) = (Vec::new(), Vec::new(), 0_u32, 0_usize);
    for _ in 0..count {
        let (len, least, largest, mean_square) = (fields.u32()?, fields.f32()?, fields.f32()?, fields.f32()?);
        if ![least, largest, mean_square].iter().all(|x| x.is_finite() && *x >= 0.0) {
            return Err(corrupt("the lengths of its lists are out of range"));
        }
        total += len as usize;
        let end = next.saturating_add(len.div_ceil(BlockShape::ROWS as u32));
        if total > rows || end as usize > most {
            break;
        }
        lists.push(List { blocks: (next..end).collect(), len, squares: (least, largest) });
        mean_squares.push(mean_square);
        next = end;
    }
    if total != rows || lists.len() != count {
        return Err(corrupt("its lists do not have as many rows as it"));
    }
    let places = file.array(*b"ROWS", next as usize, BlockShape::ROWS)?;
    Ok(Lists::from_parts(lists, mean_squares, places))
}

fn read_directory(file: &Reader<'_>, codes: &Codes, count: usize) -> Result<Directory> {
    let shape = *codes.shape();
    let lines = shape.block_bytes() / size_of::<Line>();
    let blocks = file.array(*b"DIRC", count.div_ceil(BlockShape::ROWS), lines)?;
    let quantizer = signs_only(codes.quantizer());
    let none = Storage::new(Vec::new());
    let of_centres = Codes::from_parts(quantizer, shape, count, blocks, none, (0.0, 0.0));
    let centres = file.array(*b"CENT", count, shape.dim())?;
    Ok(Directory::from_parts(centres, of_centres))
}
