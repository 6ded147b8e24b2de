//! The best rows so far.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A row with the key it is ordered by: lower is better, ties go to the lower id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ranked {
    pub(crate) key: f32,
    pub(crate) id: u64,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.total_cmp(&other.key).then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

/// Keeps the `k` best of what is offered.
#[derive(Debug)]
pub(crate) struct Top {
    k: usize,
    heap: BinaryHeap<Ranked>,
    limit: f32,
}

impl Top {
    /// The `k` best of those whose key is not above a limit.
    pub(crate) fn new(k: usize, limit: f32) -> Self {
        // A k beyond any number of rows must not reserve memory for it.
        Self { k, heap: BinaryHeap::with_capacity(k.min(1024)), limit }
    }

    /// How many are kept.
    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// Whether as many are kept.
    pub(crate) fn is_full(&self) -> bool {
        self.heap.len() == self.k
    }

    /// The key that the next row must not exceed: the worst kept one, or that of the beginning while there is room.
    pub(crate) fn limit(&self) -> f32 {
        self.limit
    }

    /// Offers a row; `id` is only asked for when the key is good enough.
    pub(crate) fn offer(&mut self, key: f32, id: impl FnOnce() -> u64) {
        if key > self.limit {
            return;
        }
        let ranked = Ranked { key, id: id() };
        if self.heap.len() < self.k {
            self.heap.push(ranked);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && ranked < *worst
        {
            *worst = ranked;
        }
        if self.heap.len() == self.k
            && let Some(worst) = self.heap.peek()
        {
            self.limit = worst.key;
        }
    }

    /// What was kept, best first.
    pub(crate) fn into_sorted(self) -> Vec<Ranked> {
        self.heap.into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_within_the_limit_are_kept_in_order_and_ties_go_to_the_lower_id() {
        let mut top = Top::new(3, 2.5);
        for (key, id) in [(2.0, 9), (1.0, 7), (3.0, 1), (1.0, 5), (2.0, 4), (2.0, 8)] {
            top.offer(key, || id);
        }
        let kept: Vec<_> = top.into_sorted().iter().map(|r| (r.key, r.id)).collect();
        assert_eq!(kept, [(1.0, 5), (1.0, 7), (2.0, 4)]);
    }
}
