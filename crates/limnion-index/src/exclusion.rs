//! Rows that a search is not to find.

use limnion_types::Hit;

/// Beyond so many, a search for that many more takes longer than to select the other rows.
const FEW: usize = 256;

/// Ids that a search is not to find, whether or not there are such rows.
///
/// A few are left out of the answer of a search for as many more; where they are many, all other rows are selected.
///
/// ```
/// use limnion_index::{Exclusion, FlatIndex, Params, SearchOptions};
/// use limnion_types::{Job, Metric};
///
/// let vectors: Vec<f32> = (0..100).map(|x| x as f32).collect();
/// let index = FlatIndex::build(&vectors, 1, None, &Params::new(Metric::L2), &Job::new())?;
/// let seen = Exclusion::new(vec![50, 51, 7]);
/// let hits = index.search(&[50.1], &SearchOptions::new(seen.widened(2)))?;
/// let ids: Vec<u64> = seen.narrowed(hits, 2).iter().map(|hit| hit.id).collect();
/// assert_eq!(ids, [49, 52]);
/// # Ok::<(), limnion_types::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exclusion {
    /// Ascending and different.
    ids: Vec<u64>,
}

impl Exclusion {
    /// Of these ids, in any order.
    pub fn new(mut ids: Vec<u64>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        Self { ids }
    }

    /// Whether nothing is excluded.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The ids, ascending.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// Whether they are so few that [`Exclusion::widened`] is the way to go, rather than a selection of all others.
    pub fn is_short(&self) -> bool {
        self.ids.len() <= FEW
    }

    /// How many hits to ask for so that `k` are left.
    pub fn widened(&self, k: usize) -> usize {
        // To ask for none stays the mistake it is.
        if k == 0 { 0 } else { k.saturating_add(self.ids.len()) }
    }

    /// The best `k` hits of those that are not excluded.
    pub fn narrowed(&self, mut hits: Vec<Hit>, k: usize) -> Vec<Hit> {
        if !self.ids.is_empty() {
            hits.retain(|hit| self.ids.binary_search(&hit.id).is_err());
            hits.truncate(k);
        }
        hits
    }
}
