//! The vectors themselves, as f32 or f16.

use std::ops::Deref;

use bytemuck::Pod;
use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::Precision;
use crate::input::Rows;
use crate::storage::Storage;

/// A matrix of rows. Clones share it; later changes to the index do not reach it.
#[derive(Debug, Clone)]
pub struct Matrix<T: Pod> {
    values: Storage<T>,
    dim: usize,
}

impl<T: Pod> Matrix<T> {
    pub(crate) fn new(values: Storage<T>, dim: usize) -> Self {
        Self { values, dim }
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Numbers a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    pub(crate) fn row(&self, row: u32) -> &[T] {
        let start = row as usize * self.dim;
        self.values.get(start..start + self.dim).unwrap_or_default()
    }

    fn swap_remove(&mut self, row: u32) {
        let (start, dim) = (row as usize * self.dim, self.dim);
        let values = self.values.to_mut();
        let last = values.len() - dim;
        values.copy_within(last.., start);
        values.truncate(last);
    }
}

impl<T: Pod> Deref for Matrix<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values
    }
}

/// The original vectors of an index, in the order of its ids.
#[derive(Debug, Clone)]
pub enum Originals {
    /// Kept as they came.
    F32(Matrix<f32>),
    /// Kept in half precision.
    F16(Matrix<f16>),
}

impl Originals {
    pub(crate) fn with_capacity(precision: Precision, dim: usize, rows: usize) -> Self {
        match precision {
            Precision::F32 => Self::F32(Matrix::new(Storage::with_capacity(rows * dim), dim)),
            Precision::F16 => Self::F16(Matrix::new(Storage::with_capacity(rows * dim), dim)),
        }
    }

    /// These, as they are.
    pub(crate) fn of(vectors: Vec<f32>, dim: usize) -> Self {
        limnion_simd::huge_pages(&vectors);
        Self::F32(Matrix::new(Storage::new(vectors), dim))
    }

    pub(crate) fn append(&mut self, rows: Rows<'_>) {
        match self {
            Self::F32(matrix) => matrix.values.to_mut().extend_from_slice(rows.values()),
            Self::F16(matrix) => {
                let values = matrix.values.to_mut();
                let start = values.len();
                values.resize(start + rows.values().len(), f16::ZERO);
                if let Some(new) = values.get_mut(start..) {
                    new.convert_from_f32_slice(rows.values());
                }
            }
        }
    }

    pub(crate) fn set(&mut self, row: u32, vector: &[f32]) {
        match self {
            Self::F32(matrix) => {
                let start = row as usize * matrix.dim;
                if let Some(place) = matrix.values.to_mut().get_mut(start..start + vector.len()) {
                    place.copy_from_slice(vector);
                }
            }
            Self::F16(matrix) => {
                let start = row as usize * matrix.dim;
                if let Some(place) = matrix.values.to_mut().get_mut(start..start + vector.len()) {
                    place.convert_from_f32_slice(vector);
                }
            }
        }
    }

    pub(crate) fn swap_remove(&mut self, row: u32) {
        match self {
            Self::F32(matrix) => matrix.swap_remove(row),
            Self::F16(matrix) => matrix.swap_remove(row),
        }
    }

    pub(crate) fn truncate(&mut self, rows: usize) {
        match self {
            Self::F32(matrix) => matrix.values.to_mut().truncate(rows * matrix.dim),
            Self::F16(matrix) => matrix.values.to_mut().truncate(rows * matrix.dim),
        }
    }

    pub(crate) fn shrink(&mut self) {
        match self {
            Self::F32(matrix) => matrix.values.shrink(),
            Self::F16(matrix) => matrix.values.shrink(),
        }
    }

    /// Appends one row, as f32, to `vectors`.
    pub(crate) fn read(&self, row: u32, vectors: &mut Vec<f32>) {
        match self {
            Self::F32(matrix) => vectors.extend_from_slice(matrix.row(row)),
            Self::F16(matrix) => {
                let start = vectors.len();
                vectors.resize(start + matrix.dim, 0.0);
                matrix.row(row).convert_to_f32_slice(vectors.get_mut(start..).unwrap_or_default());
            }
        }
    }

    pub(crate) fn verify(&self) -> limnion_types::Result<()> {
        match self {
            Self::F32(matrix) => matrix.values.verify("original vectors"),
            Self::F16(matrix) => matrix.values.verify("original vectors"),
        }
    }

    pub(crate) fn has_room(&self, rows: usize) -> bool {
        match self {
            Self::F32(matrix) => matrix.values.has_room(rows * matrix.dim),
            Self::F16(matrix) => matrix.values.has_room(rows * matrix.dim),
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::F32(matrix) => matrix.values.heap_bytes(),
            Self::F16(matrix) => matrix.values.heap_bytes(),
        }
    }

    /// The values as they lie in memory and in files.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::F32(matrix) => bytemuck::cast_slice(matrix),
            Self::F16(matrix) => bytemuck::cast_slice(matrix),
        }
    }
}
