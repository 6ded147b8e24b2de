//! Building an index from vectors that come piece by piece.

use limnion_types::{Job, Result};

use crate::{FlatIndex, Params};

/// The mean of this many rows stands for that of all.
const SAMPLE_ROWS: usize = 16_384;

/// The rows of `n` whose mean centres the codes: all of few, else 16,384 at even distances.
pub fn sample_rows(n: usize) -> impl Iterator<Item = usize> {
    let count = n.min(SAMPLE_ROWS);
    (0..count).map(move |i| (i as u128 * n as u128 / count.max(1) as u128) as usize)
}

/// Builds an index from pieces, so that nobody has to hold all vectors at once.
///
/// The result is the same for any way of cutting the vectors into pieces.
///
/// ```
/// use limnion_index::{Builder, Params, sample_rows};
/// use limnion_types::{Job, Metric};
///
/// let vectors: Vec<f32> = (0..500 * 8).map(|i| (i % 97) as f32).collect();
/// let sample: Vec<f32> = sample_rows(500).flat_map(|row| &vectors[row * 8..][..8]).copied().collect();
/// let mut builder = Builder::new(&Params::new(Metric::L2), 8, &sample, 500)?;
/// for piece in vectors.chunks(200 * 8) {
///     builder.push(piece, None, &Job::new())?;
/// }
/// assert_eq!(builder.finish().len(), 500);
/// # Ok::<(), limnion_types::Error>(())
/// ```
#[derive(Debug)]
pub struct Builder {
    index: FlatIndex,
}

impl Builder {
    /// Starts an index of vectors with `dim` dimensions. `sample` holds the rows that [`sample_rows`] names, and
    /// memory is reserved for `capacity` rows.
    pub fn new(params: &Params, dim: usize, sample: &[f32], capacity: usize) -> Result<Self> {
        Ok(Self { index: FlatIndex::empty(params, dim, sample, capacity)? })
    }

    /// Appends vectors, as [`FlatIndex::add`] does; errors count rows from the first piece on.
    pub fn push(&mut self, vectors: &[f32], ids: Option<&[u64]>, job: &Job) -> Result<()> {
        self.index.add_part(ids, vectors, self.index.len(), job)
    }

    /// The index.
    pub fn finish(self) -> FlatIndex {
        self.index
    }
}
