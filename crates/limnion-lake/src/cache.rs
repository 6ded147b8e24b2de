//! The indexes in memory: bounded in bytes and in number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use limnion_types::{Error, ErrorKind, Result};
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use crate::entry::Entry;

/// A number that names an entry of the cache.
pub(crate) type Number = u64;

#[derive(Clone)]
struct Kept {
    entry: Arc<Entry>,
    weight: u64,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Number, Kept> for Weight {
    fn weight(&self, _: &Number, kept: &Kept) -> u64 {
        kept.weight
    }
}

#[derive(Clone)]
struct Leaving(Arc<AtomicU64>);

impl Lifecycle<Number, Kept> for Leaving {
    type RequestState = ();

    fn is_pinned(&self, _: &Number, kept: &Kept) -> bool {
        kept.entry.pinned.load(Ordering::Relaxed)
    }

    fn on_evict(&self, (): &mut (), _: Number, _: Kept) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The entries, of which those that are worth least go first (S3-FIFO, by what they weigh and how often they are used).
pub(crate) struct EntryCache {
    entries: Cache<Number, Kept, Weight, DefaultHashBuilder, Leaving>,
    next: AtomicU64,
    evicted: Arc<AtomicU64>,
    max_bytes: u64,
    /// What an entry weighs at least, so that there are never more than so many.
    least: u64,
}

/// The capacity of a cache without bounds.
const UNBOUNDED: u64 = 1 << 60;

impl EntryCache {
    /// A cache of at most so many bytes and so many entries.
    pub(crate) fn new(max_bytes: Option<u64>, max_entries: Option<u64>) -> Result<Self> {
        let zero = |name: &str| {
            Error::new(ErrorKind::InvalidArgument, format!("{name} must be at least 1, got 0"))
                .suggest("leave it out for no bound")
        };
        if max_bytes == Some(0) {
            return Err(zero("max_cache_bytes"));
        }
        if max_entries == Some(0) {
            return Err(zero("max_cache_entries"));
        }
        let max_bytes = max_bytes.unwrap_or(UNBOUNDED).min(UNBOUNDED);
        let entries = max_entries.unwrap_or(1 << 20).min(1 << 20);
        let least = max_bytes.div_ceil(max_entries.unwrap_or(UNBOUNDED)).max(1);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(entries.min(1024) as usize)
            .weight_capacity(max_bytes)
            // One shard: an entry may be as large as the whole.
            .shards(1)
            .hot_allocation(0.9)
            .build()
            .map_err(|error| Error::new(ErrorKind::Internal, format!("no cache can be made: {error}")))?;
        let evicted = Arc::new(AtomicU64::new(0));
        let leaving = Leaving(evicted.clone());
        let entries = Cache::with_options(options, Weight, DefaultHashBuilder::default(), leaving);
        Ok(Self { entries, next: AtomicU64::new(1), evicted, max_bytes, least })
    }

    fn kept(&self, entry: Arc<Entry>) -> Kept {
        let weight = (entry.bytes() as u64).max(self.least);
        Kept { entry, weight }
    }

    /// Puts an entry in, and gives its number.
    pub(crate) fn insert(&self, entry: Arc<Entry>) -> Result<Number> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let kept = self.kept(entry);
        let weight = kept.weight;
        self.entries.insert(number, kept);
        if !self.entries.contains_key(&number) {
            return Err(self.too_large(weight));
        }
        Ok(number)
    }

    /// Weighs an entry anew that has grown or shrunk.
    pub(crate) fn reweigh(&self, number: Number, entry: Arc<Entry>) {
        // One that has been evicted meanwhile stays out.
        let _ = self.entries.replace(number, self.kept(entry), true);
    }

    pub(crate) fn get(&self, number: Number) -> Option<Arc<Entry>> {
        self.entries.get(&number).map(|kept| kept.entry)
    }

    /// [`EntryCache::get`] of somebody who only looks.
    pub(crate) fn peek(&self, number: Number) -> Option<Arc<Entry>> {
        self.entries.peek(&number).map(|kept| kept.entry)
    }

    pub(crate) fn remove(&self, number: Number) {
        self.entries.remove(&number);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.entries.iter().map(|(_, kept)| kept.entry.bytes() as u64).sum()
    }

    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    fn too_large(&self, weight: u64) -> Error {
        let message =
            format!("an index of {weight} bytes does not fit into max_cache_bytes={}", self.max_bytes);
        Error::new(ErrorKind::Lake, message)
            .suggest("raise max_cache_bytes, unpin others, or keep fewer bits or no originals")
    }
}
