//! One answer of a search.

/// One answer of a search: which row, and how near it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// The id of the row.
    pub id: u64,
    /// Higher is better: cosine in [-1, 1], the inner product, or 1 / (1 + d) for a Euclidean distance d.
    pub score: f32,
    /// The metric's own number, lower is nearer: Euclidean distance, negative inner product, or 1 - cosine.
    pub distance: f32,
}
