//! What a lake has, and how it has done.

use std::time::Duration;

use crate::consistency::Consistency;
use crate::slot::Target;

/// What a lake has, and how it has done.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Indexes in memory.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Indexes that went because room was needed.
    pub evictions: u64,
    /// Each collection that was ever asked for.
    pub collections: Vec<CollectionStats>,
}

/// What the lake knows of one collection.
#[derive(Debug, Clone)]
pub struct CollectionStats {
    /// Which one.
    pub target: Target,
    /// Rows of the index in memory; `None` where there is none.
    pub rows: Option<u64>,
    /// The generation it is of.
    pub generation: Option<String>,
    /// Its bytes.
    pub bytes: u64,
    /// How long ago it was last known to be current.
    pub age: Option<Duration>,
    /// Whether it stays whatever room others need.
    pub pinned: bool,
    /// Its own setting, where it has one.
    pub consistency: Option<Consistency>,
    /// Searches that found an index that was fresh enough.
    pub hits: u64,
    /// Searches that found none.
    pub misses: u64,
    /// How often it was built from all rows.
    pub primes: u64,
    /// How often changes were worked in.
    pub updates: u64,
    /// How often another collection had the same data already.
    pub shared: u64,
    /// How often somebody had it forgotten.
    pub invalidations: u64,
    /// How often the backend failed.
    pub errors: u64,
    /// How long all builds took.
    pub prime_time: Duration,
    /// How long the last one took.
    pub last_prime_time: Duration,
}

impl CollectionStats {
    /// The part of searches that found an index that was fresh enough.
    pub fn hit_rate(&self) -> Option<f64> {
        let all = self.hits + self.misses;
        (all > 0).then(|| self.hits as f64 / all as f64)
    }
}
