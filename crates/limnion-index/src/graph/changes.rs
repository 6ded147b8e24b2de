//! How rows of a graph come, change and go.
//!
//! A new row walks to its neighbours and chooses links among them; each of those links back, and chooses anew where it has
//! too many. A removed row takes its vector with it at once; its vertex goes on leading others until one in six has no row:
//! then those are bridged, and their memory is given back.

use std::collections::{BTreeMap, BTreeSet};

use half::slice::HalfFloatSliceExt;
use limnion_rabitq::Query;
use limnion_simd::Level;
use limnion_types::{Error, ErrorKind, Job, Metric, Result};
use rayon::prelude::*;

use crate::exact::Exact;
use crate::graph::build::{Near, choose, tidy};
use crate::graph::bytes::Bytes;
use crate::graph::effort::Efforts;
use crate::graph::entries::Entries;
use crate::graph::index::{GraphIndex, check_rows};
use crate::graph::links::Links;
use crate::graph::places::Places;
use crate::graph::walk::Walk;
use crate::input::{Rows, inverse_lengths};
use crate::kmeans::Points;
use crate::originals::Originals;
use crate::params::invalid;
use crate::search::NO_ROW;
use crate::selection::Selection;
use crate::storage::Storage;

/// New rows that are linked side by side.
const BATCH: usize = 128;
/// Vertices that the walk of a new row holds.
const BEAM: usize = 64;
/// How sure the codes are by which it walks.
const SURENESS: f32 = 1.0;
/// The nearest of the rows of its batch that a new row may link to.
const MATES: usize = 16;
/// Where new rows are this share of all, the graph is built anew.
const REBUILT_SHARE: usize = 2;
/// Once one vertex in so many has no row, those are taken out.
const DEAD_SHARE: usize = 6;
/// Once one row in so many is fresh, the efforts are found anew.
const TUNED_SHARE: usize = 4;
/// Codes of so many bits tell distances well enough to choose links by.
const GOOD_BITS: u8 = 3;

impl GraphIndex {
    /// The rows with these ids; ids that are not in the index select nothing. After the index changed, make it again.
    pub fn select_ids(&self, ids: &[u64]) -> Selection {
        let rows = ids.iter().filter_map(|&id| self.table.ids.row(id));
        Selection::from_rows(rows.map(|row| self.places.slot(row)).collect())
    }

    /// The rows whose place in `mask`, which is in the order of [`GraphIndex::ids`], says true. After the index changed,
    /// make it again.
    ///
    /// # Errors
    /// `InvalidArgument` unless there is one bool a row.
    pub fn select_mask(&self, mask: &[bool]) -> Result<Selection> {
        self.table.check_mask(mask)?;
        let rows = (0..).zip(mask).filter(|(_, allowed)| **allowed);
        Ok(Selection::from_rows(rows.map(|(row, _)| self.places.slot(row)).collect()))
    }

    /// All rows but those with these ids. After the index changed, make it again.
    pub fn select_all_but(&self, ids: &[u64]) -> Selection {
        let mask = self.table.all_but(ids);
        let rows = (0..).zip(mask).filter(|(_, allowed)| *allowed);
        Selection::from_rows(rows.map(|(row, _)| self.places.slot(row)).collect())
    }

    /// Appends vectors with the given ids, or with the numbers after the largest id. All of them, or none on error.
    ///
    /// Cost: a walk, and a choice of links for each row that it joins. Where the new rows are more than half of those that are there, and originals are
    /// kept, the graph is built anew, which costs less.
    ///
    /// # Errors
    /// As [`GraphIndex::build`].
    pub fn add(&mut self, ids: Option<&[u64]>, vectors: &[f32], job: &Job) -> Result<()> {
        let rows = Rows::check("vectors", vectors, self.dim(), self.params.metric)?;
        let ids = self.table.new_ids(ids, rows.len())?;
        check_rows(self.places.len() + rows.len())?;
        self.verify()?;
        job.check()?;
        if rows.len() == 0 {
            return Ok(());
        }
        let is_small = self.is_empty() || rows.len() * REBUILT_SHARE > self.len();
        if is_small && (self.is_empty() || self.table.originals.is_some()) {
            let mut all_ids = self.ids();
            all_ids.extend_from_slice(&ids);
            let (mut all, _) = self.vectors(0..self.len() as u32).unwrap_or_default();
            all.extend_from_slice(vectors);
            *self = Self::build(&all, self.dim(), Some(&all_ids), &self.params, job)?;
            return Ok(());
        }
        let before = self.len();
        for (piece, ids) in rows.pieces(BATCH).zip(ids.chunks(BATCH)) {
            if let Err(error) = job.check() {
                self.withdraw(before);
                return Err(error);
            }
            let inverse = (self.metric() == Metric::Cosine).then(|| inverse_lengths(piece));
            let first = self.len() as u32;
            self.table.append(piece, ids, inverse.as_deref());
            let points = Points { values: piece.values(), dim: piece.dim(), factors: inverse.as_deref() };
            self.join(points, &(first..).take(ids.len()).collect::<Vec<u32>>());
            job.advance(piece.len() as u64);
        }
        self.settle(rows.len())
    }

    /// Removes rows. All of them, or none on error. Vectors are given back at once, codes and links once a sixth is unused.
    ///
    /// # Errors
    /// `IdNotFound`, `DuplicateId`.
    pub fn remove(&mut self, ids: &[u64]) -> Result<()> {
        self.table.ids.find_all(ids)?;
        self.verify()?;
        for &id in ids {
            let Some(row) = self.table.ids.row(id) else { continue };
            self.forget(row);
        }
        self.table.shrink();
        self.settle(0)
    }

    /// Replaces the vectors of rows that are there. All of them, or none on error.
    ///
    /// # Errors
    /// As [`GraphIndex::build`], and `IdNotFound`.
    pub fn update(&mut self, ids: &[u64], vectors: &[f32]) -> Result<()> {
        let rows = Rows::check("vectors", vectors, self.dim(), self.params.metric)?;
        let found = self.table.places(ids, rows.len())?;
        self.verify()?;
        for (piece, rows) in rows.pieces(BATCH).zip(found.chunks(BATCH)) {
            let inverse = (self.metric() == Metric::Cosine).then(|| inverse_lengths(piece));
            let points = Points { values: piece.values(), dim: piece.dim(), factors: inverse.as_deref() };
            for (at, &row) in (0..).zip(rows) {
                let (vector, factor) = points.row(at);
                self.places.take(row);
                self.table.set(row, vector, factor);
            }
            self.join(points, rows);
        }
        self.settle(rows.len())
    }

    /// Appends the rows of another index under their ids, in their order. All of them, or none on error.
    ///
    /// # Errors
    /// `NoOriginals` unless the other index keeps originals, `InvalidArgument` for another metric, and as
    /// [`GraphIndex::add`].
    pub fn merge(&mut self, other: &Self, job: &Job) -> Result<()> {
        if other.metric() != self.metric() {
            let (mine, theirs) = (self.metric().as_str(), other.metric().as_str());
            let message = format!("other must have the metric {mine:?} like this index, got {theirs:?}");
            return Err(invalid(message));
        }
        if other.dim() != self.dim() {
            let message =
                format!("other must have {} dimensions like this index, got {}", self.dim(), other.dim());
            return Err(Error::new(ErrorKind::DimensionMismatch, message));
        }
        other.verify()?;
        let Some((vectors, _)) = other.vectors(0..other.len() as u32) else {
            return Err(Error::new(ErrorKind::NoOriginals, "other must keep originals, got codes alone")
                .suggest("build with originals=\"f16\" what is to be merged"));
        };
        self.add(Some(&other.ids()), &vectors, job)
    }

    /// Takes a row away; the last row gets its number.
    fn forget(&mut self, row: u32) {
        let last = self.len() as u32 - 1;
        self.places.take(row);
        self.places.forget(row, last);
        self.table.swap_remove(row);
    }

    /// Takes the rows from `before` on back.
    fn withdraw(&mut self, before: usize) {
        for row in (before as u32..self.len() as u32).rev() {
            self.forget(row);
        }
        self.consolidate();
    }

    /// Gives rows of the table, of which these are the vectors, vertices that are linked with the others.
    fn join(&mut self, points: Points<'_>, rows: &[u32]) {
        let first = self.places.len() as u32;
        let near = self.neighbours(points);
        for &row in rows {
            self.places.push(row);
        }
        self.records.resize(self.places.len());
        self.links.resize(self.places.len());
        let mut work = self.records.quantizer().workspace();
        let new: Vec<u32> = (first..).take(rows.len()).collect();
        for (at, &slot) in (0..).zip(&new) {
            self.records.set(slot, points.row(at), &mut work);
        }
        let degree = self.params.degree as usize;
        let chosen: Vec<Vec<u32>> = near
            .into_par_iter()
            .zip(&new)
            .map(|(mut candidates, &slot)| {
                candidates.extend(new.iter().filter(|&&mate| mate != slot));
                self.chosen(slot, &candidates, degree)
            })
            .collect();
        let mut back: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (&slot, links) in new.iter().zip(&chosen) {
            self.links.set(slot, links);
        }
        for (&slot, links) in new.iter().zip(&chosen) {
            for &link in links {
                if !self.links.of(link).any(|other| other == slot) {
                    back.entry(link).or_default().push(slot);
                }
            }
        }
        let changed: Vec<(u32, Vec<u32>)> = back
            .into_par_iter()
            .map(|(slot, new)| {
                let mut links: Vec<u32> = self.links.of(slot).chain(new).collect();
                if links.len() > degree {
                    links = self.chosen(slot, &links, degree);
                }
                (slot, links)
            })
            .collect();
        for (slot, links) in &changed {
            self.links.set(*slot, links);
        }
        // A row that nobody links to is an entry's, or it would be lost.
        let linked: BTreeSet<u32> = changed.iter().flat_map(|(_, links)| links).copied().collect();
        for (&slot, links) in new.iter().zip(&chosen) {
            if !linked.contains(&slot)
                && let Some(&nearest) = links.first()
            {
                self.links.add(nearest, slot);
            }
        }
        let touched: Vec<u32> = new.iter().copied().chain(changed.iter().map(|(slot, _)| *slot)).collect();
        self.lay_out_some(&touched);
    }

    /// Brings the codes of some vertices' neighbours up to date.
    fn lay_out_some(&mut self, slots: &[u32]) {
        let lines = self.lines_of_neighbours();
        let (records, links) = (&self.records, &self.links);
        let Some(blocks) = &mut self.blocks else { return };
        let all = blocks.to_mut();
        all.resize(records.len() * lines, Default::default());
        for &slot in slots {
            if let Some(place) = all.get_mut(slot as usize * lines..(slot as usize + 1) * lines) {
                records.gather_into(links.places(slot), place);
            }
        }
    }

    /// The vertices that are nearest to each point, among those that are there.
    fn neighbours(&self, points: Points<'_>) -> Vec<Vec<u32>> {
        let find = |at: u32| {
            let (vector, factor) = points.row(at);
            let query = Query::new(self.records.quantizer(), Level::current(), vector, factor);
            let exact = Exact::new(&self.table, vector);
            let walk = Walk::new(self, &query, exact.as_ref(), SURENESS);
            walk.run(BEAM, None, |found, _| found.iter().map(|found| found.slot()).collect())
        };
        (0..points.len() as u32).into_par_iter().map(find).collect()
    }

    /// The links of a vertex, chosen among candidates.
    fn chosen(&self, slot: u32, candidates: &[u32], degree: usize) -> Vec<u32> {
        let mut slots = vec![slot];
        slots.extend(
            candidates.iter().filter(|&&candidate| candidate != slot && self.places.is_live(candidate)),
        );
        let bytes = self.bytes(&slots);
        let mut near: Vec<Near> = Vec::with_capacity(slots.len());
        let others: Vec<u32> = (1..slots.len() as u32).collect();
        bytes.distances(0, &others, |at, distance| {
            near.extend(others.get(at).map(|&slot| Near { distance, slot }));
            true
        });
        tidy(&mut near, BEAM + MATES);
        let chosen = choose(&bytes, &near, degree);
        chosen.iter().filter_map(|near| slots.get(near.slot as usize).copied()).collect()
    }

    /// Vectors by which links are chosen: those of the codes, or of the originals where codes are too rough.
    fn bytes(&self, slots: &[u32]) -> Bytes {
        let quantizer = self.records.quantizer();
        let rows: Vec<u32> = slots.iter().map(|&slot| self.places.row(slot)).collect();
        if quantizer.bits() < GOOD_BITS
            && rows.iter().all(|&row| row != NO_ROW)
            && let Some((values, factors)) = self.vectors(rows.into_iter())
        {
            let points = Points { values: &values, dim: self.dim(), factors: factors.as_deref() };
            return Bytes::of(points, quantizer, &Job::new()).unwrap_or_default();
        }
        Bytes::of_residuals(quantizer, slots.iter().map(|&slot| self.records.decode_residual(slot)))
    }

    /// The original vectors of rows, one after another, and what they are to be multiplied by.
    fn vectors(&self, rows: impl Iterator<Item = u32> + Clone) -> Option<(Vec<f32>, Option<Vec<f32>>)> {
        let values = match self.table.originals.as_ref()? {
            Originals::F32(matrix) => rows.clone().flat_map(|row| matrix.row(row)).copied().collect(),
            Originals::F16(matrix) => rows.clone().flat_map(|row| matrix.row(row).to_f32_vec()).collect(),
        };
        let factor = |kept: &[f32], row: u32| kept.get(row as usize).copied().unwrap_or(1.0);
        let factors = self.table.inverse_lengths.as_ref();
        Some((values, factors.map(|kept| rows.map(|row| factor(kept, row)).collect())))
    }

    /// After a change: takes vertices without rows out where they are many, and finds the efforts anew once a quarter of the
    /// rows is fresh, where their originals are kept.
    fn settle(&mut self, rows: usize) -> Result<()> {
        if self.places.dead() * DEAD_SHARE > self.places.len() {
            self.consolidate();
        }
        self.fresh_rows += rows;
        if self.fresh_rows < self.len() / TUNED_SHARE {
            return Ok(());
        }
        self.entries = Entries::pick(&self.places, &self.records, self.params.seed);
        // More than are asked for: which rows serve is decided by their number.
        let sample: BTreeMap<u32, usize> = self.sample_rows(400).into_iter().zip(0..).collect();
        let Some((values, factors)) = self.vectors(sample.keys().copied()) else { return Ok(()) };
        let points = Points { values: &values, dim: self.dim(), factors: factors.as_deref() };
        let at: BTreeMap<u32, u32> = sample.keys().copied().zip(0..).collect();
        self.efforts = Efforts::find(self, &|row| at.get(&row).map(|&at| points.row(at)), &Job::new())?;
        self.fresh_rows = 0;
        Ok(())
    }

    /// Takes out the vertices that have no row; those that led to them lead to where these led.
    pub(crate) fn consolidate(&mut self) {
        let order: Vec<u32> =
            (0..self.places.len() as u32).filter(|&slot| self.places.is_live(slot)).collect();
        let mut numbers = vec![NO_ROW; self.places.len()];
        for (number, &slot) in (0..).zip(&order) {
            if let Some(place) = numbers.get_mut(slot as usize) {
                *place = number;
            }
        }
        let degree = self.params.degree as usize;
        let mended: Vec<Vec<u32>> = order
            .par_iter()
            .map(|&slot| {
                let (live, dead): (Vec<u32>, Vec<u32>) =
                    self.links.of(slot).partition(|&link| self.places.is_live(link));
                if dead.is_empty() {
                    return live;
                }
                let beyond = dead.iter().flat_map(|&link| self.links.of(link));
                let candidates: BTreeSet<u32> = live.into_iter().chain(beyond).collect();
                self.chosen(slot, &candidates.into_iter().collect::<Vec<_>>(), degree)
            })
            .collect();
        let mut links = Links::new(degree, order.len());
        for (number, mended) in (0..).zip(mended) {
            let renamed: Vec<u32> =
                mended.iter().filter_map(|&slot| numbers.get(slot as usize).copied()).collect();
            links.set(number, &renamed);
        }
        let rows = order.iter().map(|&slot| self.places.row(slot)).collect();
        self.links = links;
        self.records.gather(&order);
        self.places = Places::new(Storage::new(rows));
        self.entries = Entries::pick(&self.places, &self.records, self.params.seed);
        self.connect();
        self.lay_out();
    }
}
