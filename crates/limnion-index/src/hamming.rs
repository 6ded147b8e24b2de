//! Binary vectors, by the number of bits in which they differ.
//!
//! The file is that of [`crate::file`], version 3:
//!
//! ```text
//! name  content
//! META  the 64 bytes below
//! BITS  the rows, one after another
//! IDS_  u64 a row                                                       unless they are 0, 1, 2 …
//!
//! META    0   8  rows
//!         8   4  bytes a row
//!        12  27  zeros
//!        39   1  kind: 2
//!        40  24  zeros
//! ```

use std::fs;
use std::path::Path;
use std::sync::Arc;

use limnion_simd::{Level, hamming_rows};
use limnion_types::{Error, ErrorKind, Hit, Job, Metric, Result};
use rayon::prelude::*;

use crate::file::{
    Fields, KIND_AT, Kind, META, Reader, Section, Verify, add_table, bytes_of, corrupt, io_error, save,
    to_bytes,
};
use crate::params::{MAX_DIM, Params, check_hits, invalid};
use crate::selection::Selection;
use crate::storage::{Source, Storage};
use crate::table::Table;
use crate::top::Top;

const VERSION: u32 = 3;
/// Rows whose distances are counted at a time.
const TILE_ROWS: usize = 256;
/// Queries that look at a tile while it is in cache.
const GROUP: usize = 16;

/// What one search in a [`HammingIndex`] asks for.
#[derive(Debug, Clone, Copy)]
pub struct HammingOptions<'a> {
    /// How many hits: at least 1. Fewer come back only when fewer rows match.
    pub k: usize,
    /// The rows that may be found; all unless told.
    pub selection: Option<&'a Selection>,
    /// In how many bits a hit may differ from the query.
    pub radius: Option<f32>,
}

impl HammingOptions<'_> {
    /// The `k` nearest of all rows.
    pub fn new(k: usize) -> Self {
        Self { k, selection: None, radius: None }
    }
}

/// An index of binary vectors, eight bits a byte, which is searched exactly, by a look at every row.
///
/// Searches take `&self` and run side by side; changes take `&mut self`. Rows keep the order in which they were added,
/// except that removing one puts the last row in its place.
///
/// ```
/// use limnion_index::{HammingIndex, HammingOptions};
/// use limnion_types::Job;
///
/// let index = HammingIndex::build(&[0b0000, 0b0001, 0b0111], 1, None, &Job::new())?;
/// let hits = index.search(&[0b0011], &HammingOptions::new(2))?;
/// assert_eq!((hits[0].id, hits[0].distance), (1, 1.0));
/// # Ok::<(), limnion_types::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct HammingIndex {
    /// The ids; nothing else is kept in it.
    pub(crate) table: Table,
    width: usize,
    rows: Storage<u8>,
}

impl HammingIndex {
    /// An index of `vectors` (rows of `width` bytes) with the given ids, or 0, 1, 2 … without.
    ///
    /// # Errors
    /// `InvalidArgument` for a width that cannot be used, `DimensionMismatch` for a ragged end, `DuplicateId`, and
    /// `Cancelled` when the job says so.
    pub fn build(vectors: &[u8], width: usize, ids: Option<&[u64]>, job: &Job) -> Result<Self> {
        if width == 0 || width > MAX_DIM / 8 {
            return Err(invalid(format!("binary vectors must have 1 to {} bytes, got {width}", MAX_DIM / 8)));
        }
        let mut index = Self { table: table(width), width, rows: Storage::with_capacity(vectors.len()) };
        index.add(ids, vectors, job)?;
        Ok(index)
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Bytes on the heap, spare capacity included; what lies in a mapped file does not count.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.table.heap_bytes() + self.rows.heap_bytes()
    }

    /// The ids, in the order of the rows.
    pub fn ids(&self) -> Vec<u64> {
        self.table.ids.to_vec()
    }

    /// Whether there is a row with this id.
    pub fn contains(&self, id: u64) -> bool {
        self.table.ids.row(id).is_some()
    }

    /// The vector of a row.
    ///
    /// # Errors
    /// `IdNotFound`, and `CorruptFile` where a mapped file turns out damaged.
    pub fn vector(&self, id: u64) -> Result<Vec<u8>> {
        let row = self.table.row(id)?;
        self.rows.verify("binary vectors")?;
        Ok(self.row(row).to_vec())
    }

    fn row(&self, row: u32) -> &[u8] {
        let start = row as usize * self.width;
        self.rows.get(start..start + self.width).unwrap_or_default()
    }

    /// Appends vectors with the given ids, or with the numbers after the largest id. All of them, or none on error.
    ///
    /// # Errors
    /// As [`HammingIndex::build`].
    pub fn add(&mut self, ids: Option<&[u64]>, vectors: &[u8], job: &Job) -> Result<()> {
        let rows = self.count_rows("vectors", vectors)?;
        let ids = self.table.new_ids(ids, rows)?;
        self.verify()?;
        job.check()?;
        self.rows.to_mut().extend_from_slice(vectors);
        self.table.append_ids(&ids);
        job.advance(rows as u64);
        Ok(())
    }

    /// Removes rows. All of them, or none on error. The last rows take the free places, and memory is given back once
    /// half of it is unused.
    ///
    /// # Errors
    /// `IdNotFound`, `DuplicateId`.
    pub fn remove(&mut self, ids: &[u64]) -> Result<()> {
        self.table.ids.find_all(ids)?;
        self.verify()?;
        let width = self.width;
        for &id in ids {
            let Some(row) = self.table.ids.row(id) else { continue };
            self.table.swap_remove(row);
            let rows = self.rows.to_mut();
            let last = rows.len() - width;
            rows.copy_within(last.., row as usize * width);
            rows.truncate(last);
        }
        self.table.shrink();
        self.rows.shrink();
        Ok(())
    }

    /// Replaces the vectors of rows that are there. All of them, or none on error.
    ///
    /// # Errors
    /// As [`HammingIndex::build`], and `IdNotFound`.
    pub fn update(&mut self, ids: &[u64], vectors: &[u8]) -> Result<()> {
        let count = self.count_rows("vectors", vectors)?;
        let places = self.table.places(ids, count)?;
        self.verify()?;
        let width = self.width;
        let rows = self.rows.to_mut();
        for (row, vector) in places.into_iter().zip(vectors.chunks_exact(width)) {
            if let Some(place) = rows.get_mut(row as usize * width..(row as usize + 1) * width) {
                place.copy_from_slice(vector);
            }
        }
        Ok(())
    }

    /// Appends the rows of another index under their ids, in their order. All of them, or none on error.
    ///
    /// # Errors
    /// `DimensionMismatch`, `DuplicateId`, `Cancelled`.
    pub fn merge(&mut self, other: &Self, job: &Job) -> Result<()> {
        other.verify()?;
        if other.width != self.width {
            return Err(self.wrong_width("other", other.width));
        }
        self.add(Some(&other.ids()), &other.rows, job)
    }

    /// A number that is another after each change, and in each index but a clone: a selection that was made at this one is
    /// good as long as it stays.
    pub fn revision(&self) -> u64 {
        self.table.revision
    }

    /// The rows with these ids; ids that are not in the index select nothing.
    pub fn select_ids(&self, ids: &[u64]) -> Selection {
        Selection::from_rows(ids.iter().filter_map(|&id| self.table.ids.row(id)).collect())
    }

    /// The rows whose place in `mask`, which is in the order of [`HammingIndex::ids`], says true.
    ///
    /// # Errors
    /// `InvalidArgument` unless there is one bool a row.
    pub fn select_mask(&self, mask: &[bool]) -> Result<Selection> {
        self.table.check_mask(mask)?;
        Ok(Selection::from_mask(mask))
    }

    /// All rows but those with these ids.
    pub fn select_all_but(&self, ids: &[u64]) -> Selection {
        Selection::from_mask(&self.table.all_but(ids))
    }

    /// The rows that differ from `query` in the fewest bits, which are the hits' distances; ties go to the lower id. On the
    /// calling thread.
    ///
    /// # Errors
    /// `EmptyIndex`, `DimensionMismatch`, and `InvalidArgument` for options that cannot be used.
    pub fn search(&self, query: &[u8], options: &HammingOptions<'_>) -> Result<Vec<Hit>> {
        check_hits(options.k, options.radius)?;
        self.table.check_not_empty()?;
        if query.len() != self.width {
            return Err(self.wrong_width("query", query.len()));
        }
        self.verify()?;
        Ok(self.scan(query, options).pop().unwrap_or_default())
    }

    /// [`HammingIndex::search`] for each row of `queries`, parallel, with several queries a pass over the rows.
    ///
    /// # Errors
    /// As [`HammingIndex::search`], and `Cancelled`.
    pub fn search_batch(
        &self,
        queries: &[u8],
        options: &HammingOptions<'_>,
        job: &Job,
    ) -> Result<Vec<Vec<Hit>>> {
        check_hits(options.k, options.radius)?;
        self.table.check_not_empty()?;
        let count = self.count_rows("queries", queries)?;
        self.verify()?;
        let group = count.div_ceil(rayon::current_num_threads()).clamp(1, GROUP);
        let groups: Vec<Vec<Vec<Hit>>> = queries
            .par_chunks(group * self.width)
            .map(|group| {
                job.check()?;
                let hits = self.scan(group, options);
                job.advance(hits.len() as u64);
                Ok(hits)
            })
            .collect::<Result<_>>()?;
        Ok(groups.into_iter().flatten().collect())
    }

    /// Looks at the rows for queries whose options are in order.
    fn scan(&self, queries: &[u8], options: &HammingOptions<'_>) -> Vec<Vec<Hit>> {
        let (level, width) = (Level::current(), self.width);
        let limit = options.radius.unwrap_or(f32::MAX);
        let mut tops: Vec<Top> = queries.chunks_exact(width).map(|_| Top::new(options.k, limit)).collect();
        let mut counts = [0; TILE_ROWS];
        let mut look = |first: u32, rows: &[u8]| {
            for (top, query) in tops.iter_mut().zip(queries.chunks_exact(width)) {
                let counts = counts.get_mut(..rows.len() / width).unwrap_or_default();
                hamming_rows(level, query, rows, counts);
                for (row, &count) in (first..).zip(&*counts) {
                    top.offer(count as f32, || self.table.ids.id(row));
                }
            }
        };
        match options.selection {
            None => {
                let tiles = self.rows.chunks(TILE_ROWS * width);
                (0..).zip(tiles).for_each(|(tile, rows)| look(tile * TILE_ROWS as u32, rows));
            }
            // A selection may be older than the index, and name rows that are gone.
            Some(selection) => selection.rows().for_each(|row| look(row, self.row(row))),
        }
        let hit = |distance: f32, id| Hit { id, score: 1.0 / (1.0 + distance), distance };
        let hits = |top: Top| top.into_sorted().iter().map(|ranked| hit(ranked.key, ranked.id)).collect();
        tops.into_iter().map(hits).collect()
    }

    /// How many vectors these are.
    fn count_rows(&self, name: &str, vectors: &[u8]) -> Result<usize> {
        if vectors.len().is_multiple_of(self.width) {
            return Ok(vectors.len() / self.width);
        }
        let message =
            format!("{name} must hold whole vectors of {} bytes, got {} bytes", self.width, vectors.len());
        Err(Error::new(ErrorKind::DimensionMismatch, message))
    }

    fn wrong_width(&self, name: &str, got: usize) -> Error {
        let message = format!("{name} must have {} bytes a vector like the index, got {got}", self.width);
        Error::new(ErrorKind::DimensionMismatch, message)
    }

    /// Checks the checksums of whatever lies in a mapped file and has not been looked at yet.
    ///
    /// # Errors
    /// `CorruptFile`.
    pub fn verify(&self) -> Result<()> {
        self.rows.verify("binary vectors")?;
        self.table.verify(false)
    }

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

    /// Reads and verifies a file of [`HammingIndex::save`].
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
        file.check_kind(Kind::Bits)?;
        let mut fields = Fields(file.bytes(*b"META")?);
        let (rows, width) = (fields.u64()?, fields.u32()? as usize);
        let rows = u32::try_from(rows).map_err(|_| corrupt("it has too many rows"))? as usize;
        if width == 0 || width > MAX_DIM / 8 {
            return Err(corrupt("the width of its rows is out of range"));
        }
        let mut table = table(width);
        table.ids = file.ids(rows)?;
        Ok(Self { table, width, rows: file.array(*b"BITS", rows, width)? })
    }

    fn sections(&self) -> Vec<Section<'_>> {
        let mut meta = Vec::with_capacity(META);
        meta.extend_from_slice(&(self.len() as u64).to_le_bytes());
        meta.extend_from_slice(&(self.width as u32).to_le_bytes());
        meta.resize(KIND_AT, 0);
        meta.push(Kind::Bits as u8);
        meta.resize(META, 0);
        let mut sections = vec![Section { name: *b"META", bytes: meta.into() }];
        sections.push(Section { name: *b"BITS", bytes: bytes_of(&self.rows) });
        add_table(&self.table, &mut sections);
        sections
    }
}

/// A table of nothing but ids.
fn table(width: usize) -> Table {
    Table::new(&Params { originals: None, ..Params::new(Metric::L2) }, 8 * width, 0)
}

/// Two indexes are equal when they hold the same rows in the same order.
impl PartialEq for HammingIndex {
    fn eq(&self, other: &Self) -> bool {
        self.width == other.width && *self.rows == *other.rows && self.ids() == other.ids()
    }
}
