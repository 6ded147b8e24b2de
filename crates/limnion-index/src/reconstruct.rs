//! The vector of a row that is there: what searches by id start from.

use limnion_types::Result;

use crate::{FlatIndex, IvfIndex};

impl FlatIndex {
    /// The vector of a row: the original where it is kept, else what its code says, which is unbiased, and under cosine of
    /// about unit length.
    ///
    /// # Errors
    /// `IdNotFound`, and `CorruptFile` where a mapped file turns out damaged.
    pub fn reconstruct(&self, id: u64) -> Result<Vec<f32>> {
        let row = self.table.row(id)?;
        match &self.codes {
            Some(codes) if self.table.originals.is_none() => {
                codes.verify()?;
                Ok(codes.decode(row, &[]))
            }
            _ => self.table.vector(id),
        }
    }

    /// The original vectors of rows, one after another.
    ///
    /// # Errors
    /// `NoOriginals` where the index keeps none, `IdNotFound`.
    pub fn vectors_of(&self, ids: &[u64]) -> Result<Vec<f32>> {
        self.table.vectors(ids)
    }
}

impl IvfIndex {
    /// The vector of a row: the original where it is kept, else what its code says, which is unbiased, and under cosine of
    /// about unit length.
    ///
    /// # Errors
    /// `IdNotFound`, and `CorruptFile` where a mapped file turns out damaged.
    pub fn reconstruct(&self, id: u64) -> Result<Vec<f32>> {
        let row = self.table.row(id)?;
        if self.table.originals.is_some() {
            return self.table.vector(id);
        }
        self.verify_for(false)?;
        let place = self.lists.place(row);
        let centre = self.lists.list_of(place).map_or(&[][..], |list| self.directory.centre(list));
        Ok(self.codes.decode(place, centre))
    }

    /// The original vectors of rows, one after another.
    ///
    /// # Errors
    /// `NoOriginals` where the index keeps none, `IdNotFound`.
    pub fn vectors_of(&self, ids: &[u64]) -> Result<Vec<f32>> {
        self.table.vectors(ids)
    }
}
