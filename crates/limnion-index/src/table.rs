//! The rows of an index, beside their codes: ids, and where they are kept the vectors themselves.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use limnion_types::{Error, ErrorKind, Metric, Result};

use crate::ids::{Ids, not_found};
use crate::input::{Rows, wrong_dim};
use crate::originals::Originals;
use crate::params::{Params, invalid};
use crate::storage::Storage;

/// Rows are numbered with 32 bits, and the last number stands for none.
const MAX_ROWS: usize = u32::MAX as usize;

/// Ids, originals and lengths of all rows, in the order in which they were added, except that removing one puts the
/// last row in its place.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) metric: Metric,
    pub(crate) dim: usize,
    pub(crate) ids: Ids,
    pub(crate) originals: Option<Originals>,
    /// 1 / length of each original, where the metric is cosine.
    pub(crate) inverse_lengths: Option<Storage<f32>>,
    /// Another number after each change, which no other table has but a clone: for those who remember where rows lie.
    pub(crate) revision: u64,
}

impl Table {
    pub(crate) fn new(params: &Params, dim: usize, capacity: usize) -> Self {
        let originals = params.originals.map(|precision| Originals::with_capacity(precision, dim, capacity));
        let inverse_lengths = (params.metric == Metric::Cosine && originals.is_some())
            .then(|| Storage::new(Vec::with_capacity(capacity)));
        Self {
            metric: params.metric,
            dim,
            ids: Ids::Dense { len: 0 },
            originals,
            inverse_lengths,
            revision: new_revision(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// The ids that `count` new rows get: those given, or the numbers after the largest.
    pub(crate) fn new_ids<'a>(&self, ids: Option<&'a [u64]>, count: usize) -> Result<Cow<'a, [u64]>> {
        if self.len() + count > MAX_ROWS {
            return Err(invalid(format!("an index holds at most {MAX_ROWS} rows"))
                .suggest("split the vectors over several indexes"));
        }
        let Some(ids) = ids else { return Ok(self.ids.next(count)?.into()) };
        check_count(ids, count)?;
        self.ids.check_new(ids)?;
        Ok(ids.into())
    }

    /// The rows whose vectors are to be replaced.
    pub(crate) fn places(&self, ids: &[u64], count: usize) -> Result<Vec<u32>> {
        check_count(ids, count)?;
        self.ids.find_all(ids)
    }

    /// Appends rows with new ids and, under cosine, their inverse lengths.
    pub(crate) fn append(&mut self, rows: Rows<'_>, ids: &[u64], inverse: Option<&[f32]>) {
        self.revision = new_revision();
        if let Some(originals) = &mut self.originals {
            originals.append(rows);
        }
        if let (Some(kept), Some(inverse)) = (&mut self.inverse_lengths, inverse) {
            kept.to_mut().extend_from_slice(inverse);
        }
        self.ids.extend(ids);
    }

    /// Appends rows of which nothing is kept here but new ids.
    pub(crate) fn append_ids(&mut self, ids: &[u64]) {
        self.revision = new_revision();
        self.ids.extend(ids);
    }

    /// Replaces the vector of a row; `inverse` is its inverse length under cosine.
    pub(crate) fn set(&mut self, row: u32, vector: &[f32], inverse: f32) {
        self.revision = new_revision();
        if let Some(originals) = &mut self.originals {
            originals.set(row, vector);
        }
        let kept = self.inverse_lengths.as_mut().and_then(|kept| kept.to_mut().get_mut(row as usize));
        if let Some(place) = kept {
            *place = inverse;
        }
    }

    pub(crate) fn swap_remove(&mut self, row: u32) {
        self.revision = new_revision();
        self.ids.swap_remove(row);
        if let Some(originals) = &mut self.originals {
            originals.swap_remove(row);
        }
        if let Some(kept) = &mut self.inverse_lengths {
            kept.to_mut().swap_remove(row as usize);
        }
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.revision = new_revision();
        self.ids.truncate(len);
        if let Some(originals) = &mut self.originals {
            originals.truncate(len);
        }
        if let Some(kept) = &mut self.inverse_lengths {
            kept.to_mut().truncate(len);
        }
    }

    pub(crate) fn shrink(&mut self) {
        self.ids.shrink();
        if let Some(originals) = &mut self.originals {
            originals.shrink();
        }
        if let Some(kept) = &mut self.inverse_lengths {
            kept.shrink();
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.ids.heap_bytes()
            + self.originals.as_ref().map_or(0, Originals::heap_bytes)
            + self.inverse_lengths.as_ref().map_or(0, Storage::heap_bytes)
    }

    /// The original vector of the row with this id.
    pub(crate) fn vector(&self, id: u64) -> Result<Vec<f32>> {
        self.vectors(&[id])
    }

    /// The original vectors of the rows with these ids, one after another.
    pub(crate) fn vectors(&self, ids: &[u64]) -> Result<Vec<f32>> {
        let originals = self.originals.as_ref().ok_or_else(no_originals)?;
        originals.verify()?;
        let mut vectors = Vec::with_capacity(ids.len() * self.dim);
        for &id in ids {
            originals.read(self.row(id)?, &mut vectors);
        }
        Ok(vectors)
    }

    /// The row with this id.
    pub(crate) fn row(&self, id: u64) -> Result<u32> {
        self.ids.row(id).ok_or_else(|| not_found(id))
    }

    /// One bool a row: whether its id is another than these.
    pub(crate) fn all_but(&self, ids: &[u64]) -> Vec<bool> {
        let mut mask = vec![true; self.len()];
        for row in ids.iter().filter_map(|&id| self.ids.row(id)) {
            if let Some(place) = mask.get_mut(row as usize) {
                *place = false;
            }
        }
        mask
    }

    /// All original vectors, without a copy.
    pub(crate) fn originals(&self) -> Result<Originals> {
        let originals = self.originals.clone().ok_or_else(no_originals)?;
        originals.verify()?;
        Ok(originals)
    }

    /// An error unless `mask` has one bool a row.
    pub(crate) fn check_mask(&self, mask: &[bool]) -> Result<()> {
        if mask.len() == self.len() {
            return Ok(());
        }
        let message =
            format!("where must have one bool for each of the {} rows, got {}", self.len(), mask.len());
        Err(invalid(message).suggest("its order is that of the index's ids"))
    }

    pub(crate) fn check_query(&self, query: &[f32]) -> Result<()> {
        self.check_not_empty()?;
        Rows::check_query(query, self.dim, self.metric)
    }

    pub(crate) fn check_queries<'a>(&self, queries: &'a [f32]) -> Result<Rows<'a>> {
        self.check_not_empty()?;
        if !queries.len().is_multiple_of(self.dim) {
            return Err(wrong_dim("queries", self.dim, queries.len()));
        }
        Rows::check("queries", queries, self.dim, self.metric)
    }

    pub(crate) fn check_not_empty(&self) -> Result<()> {
        if self.len() > 0 {
            return Ok(());
        }
        Err(Error::new(ErrorKind::EmptyIndex, "the index has no rows to search").suggest("add some first"))
    }

    /// Checks what a search reads of a mapped file, the originals only where they are asked for.
    pub(crate) fn verify(&self, originals: bool) -> Result<()> {
        if let (Some(kept), true) = (&self.originals, originals) {
            kept.verify()?;
        }
        self.inverse_lengths.as_ref().map_or(Ok(()), |kept| kept.verify("lengths"))?;
        self.ids.list().map_or(Ok(()), |list| list.verify("ids"))
    }
}

/// A number that no table has had.
pub(crate) fn new_revision() -> u64 {
    static REVISIONS: AtomicU64 = AtomicU64::new(0);
    REVISIONS.fetch_add(1, Ordering::Relaxed)
}

fn check_count(ids: &[u64], vectors: usize) -> Result<()> {
    if ids.len() == vectors {
        return Ok(());
    }
    Err(invalid(format!("ids must be as many as the vectors: {} ids, {vectors} vectors", ids.len())))
}

pub(crate) fn no_originals() -> Error {
    Error::new(ErrorKind::NoOriginals, "this index keeps codes only, not the original vectors")
        .suggest("build a RabitqPlusIndex, or a RabitqAsymIndex with originals=\"f32\"")
}
