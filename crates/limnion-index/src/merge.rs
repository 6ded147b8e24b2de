//! One index out of several that were built apart.

use std::borrow::Cow;

use limnion_types::{Error, ErrorKind, Job, Result};

use crate::FlatIndex;
use crate::codes::Codes;
use crate::originals::Originals;
use crate::params::invalid;

/// Rows between two looks at the job.
const PIECE_ROWS: usize = 8192;

impl FlatIndex {
    /// Appends the rows of another index under their ids, in their order. All of them, or none on error.
    ///
    /// Where the other index keeps originals, they are encoded anew, as [`FlatIndex::add`] does. Where neither does, codes
    /// are copied, which takes quantizers that are the same: indexes of one seed and one sample, as a [`Builder`] can be
    /// given.
    ///
    /// [`Builder`]: crate::Builder
    ///
    /// # Errors
    /// `InvalidArgument` for another metric or codes that do not fit, `DimensionMismatch`, `DuplicateId`, `NoOriginals`
    /// where this index keeps originals and the other does not, and `Cancelled`.
    pub fn merge(&mut self, other: &Self, job: &Job) -> Result<()> {
        self.check_like(other)?;
        other.verify()?;
        match &other.table.originals {
            Some(originals) => self.add_originals(originals, &other.ids(), job),
            None if self.table.originals.is_some() => Err(Error::new(
                ErrorKind::NoOriginals,
                "other must keep originals, as this index does, got codes alone",
            )
            .suggest("merge this index into the other, whose codes are all it needs")),
            None => self.copy_codes(other, job),
        }
    }

    fn check_like(&self, other: &Self) -> Result<()> {
        if other.dim() != self.dim() {
            let message =
                format!("other must have {} dimensions like this index, got {}", self.dim(), other.dim());
            return Err(Error::new(ErrorKind::DimensionMismatch, message));
        }
        if other.metric() != self.metric() {
            let (mine, theirs) = (self.metric().as_str(), other.metric().as_str());
            return Err(invalid(format!(
                "other must have the metric {mine:?} like this index, got {theirs:?}"
            )));
        }
        Ok(())
    }

    fn add_originals(&mut self, originals: &Originals, ids: &[u64], job: &Job) -> Result<()> {
        self.table.ids.check_new(ids)?;
        let (before, squares) = (self.len(), self.codes.as_ref().map(Codes::squares));
        for (at, ids) in ids.chunks(PIECE_ROWS).enumerate() {
            let rows = at * PIECE_ROWS..at * PIECE_ROWS + ids.len();
            if let Err(error) = self.add(Some(ids), &originals.rows(rows), job) {
                self.withdraw(before, squares);
                return Err(error);
            }
        }
        Ok(())
    }

    fn copy_codes(&mut self, other: &Self, job: &Job) -> Result<()> {
        let (Some(mine), Some(theirs)) = (&self.codes, &other.codes) else {
            return Err(Error::new(ErrorKind::Internal, "an index has neither codes nor originals"));
        };
        if !mine.fits(theirs) {
            return Err(invalid(
                "other must have codes of the same mean, seed, bits and scale, as neither index keeps originals".to_owned(),
            )
            .suggest("build with originals=\"f16\" what is to be merged, or build one index of all vectors"));
        }
        let ids = other.ids();
        self.table.new_ids(Some(&ids), ids.len())?;
        self.verify()?;
        job.check()?;
        if let Some(codes) = &mut self.codes {
            codes.copy_from(theirs);
        }
        self.table.append_ids(&ids);
        self.note_fresh(ids.len());
        job.advance(ids.len() as u64);
        Ok(())
    }
}

impl Originals {
    /// Rows as f32.
    fn rows(&self, rows: std::ops::Range<usize>) -> Cow<'_, [f32]> {
        if let Self::F32(matrix) = self {
            return matrix.get(rows.start * matrix.dim()..rows.end * matrix.dim()).unwrap_or_default().into();
        }
        let mut vectors = Vec::new();
        rows.for_each(|row| self.read(row as u32, &mut vectors));
        vectors.into()
    }
}

impl Codes {
    /// Whether codes of the other mean the same here.
    fn fits(&self, other: &Self) -> bool {
        self.quantizer() == other.quantizer()
    }
}
