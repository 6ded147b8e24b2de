//! How rows of an index of lists come, change and go.
//!
//! A row joins the list of its nearest centre. A list that grows far beyond the others is halved, one that shrinks far
//! below them is dissolved; both need the originals, from which rows are encoded anew.

use std::collections::{BTreeSet, HashMap};

use half::slice::HalfFloatSliceExt;
use limnion_rabitq::Workspace;
use limnion_simd::{BlockShape, Level, l2sq_f32};
use limnion_types::{Error, ErrorKind, Job, Metric, Result};
use rayon::prelude::*;

use crate::input::{Rows, inverse_lengths, wrong_dim};
use crate::ivf::{IvfIndex, LARGE, PIECE_ROWS};
use crate::kmeans::{Halves, Points, costs_of, halve};
use crate::originals::Originals;
use crate::params::invalid;
use crate::recall::Tuning;
use crate::rough::Rough;
use crate::search::NO_ROW;
use crate::selection::Selection;
use crate::stage::Stage;

/// A list with so small a part of the rows of a typical one is dissolved.
const SMALL: usize = 8;
/// Once one row in so many is fresh, the tuning is found anew.
const TUNED_SHARE: usize = 4;
/// Lists whose centres are measured exactly to find the nearest.
const NEAR_LISTS: usize = 4;
/// So few rows are encoded one by one, and look for their lists on the calling thread.
const FEW_ROWS: usize = 64;

impl IvfIndex {
    /// The rows with these ids; ids that are not in the index select nothing. After the index changed, make it again.
    pub fn select_ids(&self, ids: &[u64]) -> Selection {
        let rows = ids.iter().filter_map(|&id| self.table.ids.row(id));
        Selection::from_rows(rows.map(|row| self.lists.place(row)).collect())
    }

    /// The rows whose place in `mask`, which is in the order of [`IvfIndex::ids`], says true. After the index changed,
    /// make it again.
    ///
    /// # Errors
    /// `InvalidArgument` unless there is one bool a row.
    pub fn select_mask(&self, mask: &[bool]) -> Result<Selection> {
        self.table.check_mask(mask)?;
        let rows = (0..).zip(mask).filter(|(_, allowed)| **allowed);
        Ok(Selection::from_rows(rows.map(|(row, _)| self.lists.place(row)).collect()))
    }

    /// Appends vectors with the given ids, or with the numbers after the largest id. All of them, or none on error.
    ///
    /// Cost: about 10 µs a row and core at 1,000 lists of 384 dimensions. Rows that come to an empty index are
    /// clustered, as [`IvfIndex::build`] does.
    ///
    /// # Errors
    /// As [`IvfIndex::build`].
    pub fn add(&mut self, ids: Option<&[u64]>, vectors: &[f32], job: &Job) -> Result<()> {
        let rows = Rows::check("vectors", vectors, self.dim(), self.params.metric)?;
        let ids = self.table.new_ids(ids, rows.len())?;
        self.verify()?;
        job.check()?;
        if rows.len() == 0 {
            return Ok(());
        }
        if self.is_empty() {
            *self = Self::build(vectors, self.dim(), Some(&ids), &self.params, job)?;
            return Ok(());
        }
        let before = self.len();
        let noted = self.lists.noted();
        for (piece, ids) in rows.pieces(PIECE_ROWS).zip(ids.chunks(PIECE_ROWS)) {
            if let Err(error) = job.check() {
                self.withdraw(before);
                self.lists.note_again(noted);
                return Err(error);
            }
            self.append(piece, ids)?;
            job.advance(piece.len() as u64);
        }
        self.halve_large();
        self.tune_again(rows.len())
    }

    /// Appends the rows of another index under their ids, in their order: for indexes that were built apart. All of them,
    /// or none on error.
    ///
    /// The rows join the lists of this index and are encoded anew from the other's originals, as [`IvfIndex::add`] does;
    /// what the other keeps of them beside need not be what this one keeps. An index without rows is built anew.
    ///
    /// ```
    /// use limnion_index::{IvfIndex, IvfOptions, IvfParams};
    /// use limnion_types::{Job, Metric};
    ///
    /// let vectors: Vec<f32> = (0..2000 * 64_u32).map(|i| (i.wrapping_mul(2_654_435_769) >> 16) as f32).collect();
    /// let (ids, half) = ((0..2000).collect::<Vec<u64>>(), vectors.len() / 2);
    /// let params = IvfParams::new(Metric::L2);
    /// let mut all = IvfIndex::build(&vectors[..half], 64, Some(&ids[..1000]), &params, &Job::new())?;
    /// let other = IvfIndex::build(&vectors[half..], 64, Some(&ids[1000..]), &params, &Job::new())?;
    /// all.merge(&other, &Job::new())?;
    /// let hits = all.search(&vectors[1500 * 64..1501 * 64], &IvfOptions::new(3))?;
    /// assert_eq!((all.len(), hits[0].id), (2000, 1500));
    /// # Ok::<(), limnion_types::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` for another metric, `DimensionMismatch`, `DuplicateId` for an id that both have, `NoOriginals` where
    /// the other keeps none, and `Cancelled`.
    pub fn merge(&mut self, other: &Self, job: &Job) -> Result<()> {
        if other.dim() != self.dim() {
            return Err(wrong_dim("other", self.dim(), other.dim()));
        }
        if other.metric() != self.metric() {
            let (mine, theirs) = (self.metric().as_str(), other.metric().as_str());
            let message = format!("other must have the metric {mine:?} like this index, got {theirs:?}");
            return Err(invalid(message));
        }
        self.table.new_ids(Some(&other.ids()), other.len())?;
        other.verify()?;
        match &other.table.originals {
            _ if other.is_empty() => Ok(()),
            Some(Originals::F32(matrix)) => self.add(Some(&other.ids()), matrix, job),
            Some(Originals::F16(matrix)) => self.add(Some(&other.ids()), &matrix.to_f32_vec(), job),
            None => Err(Error::new(
                ErrorKind::NoOriginals,
                "other must keep its vectors, from which rows are encoded for the lists of this index; it keeps codes alone",
            )
            .suggest("build what is to be merged with originals, of f16 perhaps; this index needs none itself")),
        }
    }

    /// Whether so many rows can be added in a moment. Else all that there is may be copied for it, because it lies in a
    /// file, because a clone shares it, or because it has no room: for those who have others wait meanwhile.
    pub fn has_room(&self, rows: usize) -> bool {
        // Each row may begin a block of its list.
        self.codes.has_room(rows * BlockShape::ROWS)
            && self.lists.rows().has_room(rows * BlockShape::ROWS)
            && self.table.originals.as_ref().is_none_or(|originals| originals.has_room(rows))
    }

    fn append(&mut self, rows: Rows<'_>, ids: &[u64]) -> Result<()> {
        let inverse = (self.params.metric == Metric::Cosine).then(|| inverse_lengths(rows));
        let points = Points { values: rows.values(), dim: rows.dim(), factors: inverse.as_deref() };
        let nearest = self.nearest(points);
        let first = self.len() as u32;
        self.table.append(rows, ids, inverse.as_deref());
        if rows.len() <= FEW_ROWS {
            let mut work = self.codes.quantizer().workspace();
            for (at, &list) in (0..).zip(&nearest) {
                self.put(list, first + at, points.row(at), &mut work);
            }
            return Ok(());
        }
        let places: Vec<u32> =
            (first..).zip(&nearest).map(|(row, &list)| self.lists.push(list, row)).collect();
        self.make_room();
        let mut rows = vec![NO_ROW; self.lists.rows().len()];
        for (row, place) in (0..).zip(places) {
            if let Some(entry) = rows.get_mut(place as usize) {
                *entry = row;
            }
        }
        self.write(points, &rows, &Stage::new(&Job::new(), 0, 1))
    }

    /// Removes rows. All of them, or none on error. Memory is given back once a quarter of the blocks is unused.
    ///
    /// # Errors
    /// `IdNotFound`, `DuplicateId`.
    pub fn remove(&mut self, ids: &[u64]) -> Result<()> {
        self.table.ids.find_all(ids)?;
        self.verify()?;
        let mut touched = BTreeSet::new();
        for &id in ids {
            let Some(row) = self.table.ids.row(id) else { continue };
            touched.extend(self.take(row));
            self.forget(row);
        }
        self.dissolve_small(touched);
        self.shrink();
        Ok(())
    }

    /// Replaces the vectors of rows that are there. All of them, or none on error.
    ///
    /// # Errors
    /// As [`IvfIndex::build`], and `IdNotFound`.
    pub fn update(&mut self, ids: &[u64], vectors: &[f32]) -> Result<()> {
        let rows = Rows::check("vectors", vectors, self.dim(), self.params.metric)?;
        let places = self.table.places(ids, rows.len())?;
        self.verify()?;
        let inverse = (self.params.metric == Metric::Cosine).then(|| inverse_lengths(rows));
        let points = Points { values: rows.values(), dim: rows.dim(), factors: inverse.as_deref() };
        let nearest = self.nearest(points);
        let mut work = self.codes.quantizer().workspace();
        let mut touched = BTreeSet::new();
        for (at, (&row, list)) in (0..).zip(places.iter().zip(nearest)) {
            let (vector, factor) = points.row(at);
            touched.extend(self.take(row));
            self.put(list, row, (vector, factor), &mut work);
            self.table.set(row, vector, factor);
        }
        self.dissolve_small(touched);
        self.halve_large();
        self.shrink();
        self.tune_again(rows.len())
    }

    /// Finds the tuning anew once a quarter of the rows is fresh, where their originals are kept.
    fn tune_again(&mut self, rows: usize) -> Result<()> {
        self.fresh_rows += rows;
        if self.fresh_rows < self.len() / TUNED_SHARE {
            return Ok(());
        }
        let sample = self.sample_rows();
        let Some((values, factors)) = self.vectors(&sample) else { return Ok(()) };
        let points = Points { values: &values, dim: self.dim(), factors: factors.as_deref() };
        let at: HashMap<u32, u32> = sample.into_iter().zip(0..).collect();
        let (job, point) = (Job::new(), |row| at.get(&row).map(|&at| points.row(at)));
        self.tuning = Tuning::find(self, &point, &Stage::new(&job, 0, 1))?;
        self.fresh_rows = 0;
        Ok(())
    }

    /// The list of the nearest centre to each point.
    fn nearest(&self, points: Points<'_>) -> Vec<usize> {
        let rows: Vec<u32> = (0..points.len() as u32).collect();
        if rows.len() <= FEW_ROWS {
            return self.nearest_of(points, &rows);
        }
        rows.par_chunks(FEW_ROWS).map(|rows| self.nearest_of(points, rows)).collect::<Vec<_>>().concat()
    }

    fn nearest_of(&self, points: Points<'_>, rows: &[u32]) -> Vec<usize> {
        let (level, quantizer) = (Level::current(), self.codes.quantizer());
        let rotated: Vec<Vec<f32>> = rows
            .iter()
            .map(|&row| {
                let (vector, factor) = points.row(row);
                quantizer.centre(level, &vector.iter().map(|x| x * factor).collect::<Vec<_>>())
            })
            .collect();
        let mut rough = Rough::with_capacity(quantizer.padded_dim(), rows.len());
        rotated.iter().for_each(|row| rough.push(row));
        let (mut dots, mut costs) = (Vec::new(), Vec::new());
        costs_of(&rough, 0..rows.len(), &self.directory.rough, &mut dots, &mut costs);
        let mut order: Vec<(f32, usize)> = Vec::with_capacity(self.lists.len());
        let nearest = rotated.iter().zip(costs.chunks_exact(self.lists.len().max(1))).map(|(row, costs)| {
            order.clear();
            order.extend(costs.iter().copied().zip(0..));
            if order.len() > NEAR_LISTS {
                order.select_nth_unstable_by(NEAR_LISTS - 1, nearer);
                order.truncate(NEAR_LISTS);
            }
            let exact =
                order.iter().map(|&(_, list)| (l2sq_f32(level, row, self.directory.centre(list)), list));
            exact.min_by(nearer).map_or(0, |(_, list)| list)
        });
        nearest.collect()
    }

    /// Adds a row that has no place to a list, and encodes it.
    fn put(&mut self, list: usize, row: u32, point: (&[f32], f32), work: &mut Workspace) {
        let place = self.lists.push(list, row);
        self.make_room();
        loop {
            let Self { codes, directory, .. } = self;
            if let Some(square) = codes.set_around(place, point, directory.centre(list), work) {
                self.lists.note_all(list, (square, square), square, 1);
                return;
            }
            self.coarsen();
        }
    }

    fn make_room(&mut self) {
        let places = self.lists.block_count() * BlockShape::ROWS;
        if places > self.codes.len() {
            self.codes.grow(places);
        }
    }

    /// Takes a row out of its list, which is returned.
    fn take(&mut self, row: u32) -> Option<usize> {
        let place = self.lists.place(row);
        let list = self.lists.list_of(place);
        let last = self.lists.take(place);
        if last != place {
            self.codes.copy_row(last, place);
        }
        self.codes.clear_row(last);
        list
    }

    /// Removes a row that has no place; the last row takes its number.
    fn forget(&mut self, row: u32) {
        let last = self.len() as u32 - 1;
        self.table.swap_remove(row);
        self.lists.rename(last, row);
    }

    /// Takes the rows from `before` on back.
    fn withdraw(&mut self, before: usize) {
        for row in (before as u32..self.len() as u32).rev() {
            self.take(row);
            self.forget(row);
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        self.table.shrink();
        if self.lists.is_sparse() {
            self.compact();
        }
    }

    /// Puts the blocks of each list together, and gives the free ones back.
    pub(crate) fn compact(&mut self) {
        let order = self.lists.compact();
        self.codes.gather(&order);
    }

    /// How many rows a typical list has.
    fn typical(&self) -> usize {
        (self.len() / self.params.list_count(self.len())).max(BlockShape::ROWS)
    }

    fn halve_large(&mut self) {
        let most = self.typical() * LARGE;
        let job = Job::new();
        let unseen = Stage::new(&job, 0, 1);
        let mut large: Vec<usize> = (0..self.lists.len()).filter(|&list| self.rows_of(list) > most).collect();
        while let Some(list) = large.pop() {
            let rows = self.members(list);
            let Some((values, factors)) = self.vectors(&rows) else { return };
            let points = Points { values: &values, dim: self.dim(), factors: factors.as_deref() };
            let all: Vec<u32> = (0..rows.len() as u32).collect();
            let Ok(Some(halves)) = halve(points, &all, self.params.seed, &unseen) else { continue };
            let Halves { centres: [first, second], second: go } = halves;
            for &row in &rows {
                self.take(row);
            }
            let new = self.lists.add();
            self.lists.forget(list);
            self.directory.set(list, &first);
            self.directory.add(&second);
            self.match_scales();
            let mut work = self.codes.quantizer().workspace();
            for ((at, row), go) in (0..).zip(rows).zip(go) {
                self.put(if go { new } else { list }, row, points.row(at), &mut work);
            }
            large.extend([list, new].into_iter().filter(|&list| self.rows_of(list) > most));
        }
    }

    /// Dissolves those of the lists that have become small: their rows join others.
    fn dissolve_small(&mut self, lists: BTreeSet<usize>) {
        let least = self.typical() / SMALL;
        for list in lists.into_iter().rev() {
            let rows = self.members(list);
            if rows.len() > least || self.lists.len() < 2 {
                continue;
            }
            let Some((values, factors)) = self.vectors(&rows).or(rows.is_empty().then(Default::default))
            else {
                continue;
            };
            for &row in &rows {
                self.take(row);
            }
            self.lists.remove(list);
            self.directory.swap_remove(list);
            let points = Points { values: &values, dim: self.dim(), factors: factors.as_deref() };
            let mut work = self.codes.quantizer().workspace();
            let nearest = self.nearest(points);
            for ((at, row), list) in (0..).zip(rows).zip(nearest) {
                self.put(list, row, points.row(at), &mut work);
            }
        }
    }

    fn rows_of(&self, list: usize) -> usize {
        self.lists.lists.get(list).map_or(0, |list| list.len as usize)
    }

    fn members(&self, list: usize) -> Vec<u32> {
        let places = self.lists.lists.get(list).map(|list| list.places().collect::<Vec<_>>());
        places.unwrap_or_default().into_iter().map(|place| self.lists.row(place)).collect()
    }

    /// The original vectors of rows, one after another, and what they are to be multiplied by.
    fn vectors(&self, rows: &[u32]) -> Option<(Vec<f32>, Option<Vec<f32>>)> {
        let values = match self.table.originals.as_ref()? {
            Originals::F32(matrix) => rows.iter().flat_map(|&row| matrix.row(row)).copied().collect(),
            Originals::F16(matrix) => rows.iter().flat_map(|&row| matrix.row(row).to_f32_vec()).collect(),
        };
        let factor = |kept: &[f32], row: u32| kept.get(row as usize).copied().unwrap_or(1.0);
        let factors = self.table.inverse_lengths.as_ref();
        Some((values, factors.map(|kept| rows.iter().map(|&row| factor(kept, row)).collect())))
    }
}

fn nearer(a: &(f32, usize), b: &(f32, usize)) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
}
