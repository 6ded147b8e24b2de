//! The hot tier: the newest versions that are asked for most, decoded, in memory, bounded in bytes.
//!
//! It never answers with what is not the newest version that readers may see. The writer takes a key out before it
//! commits, and puts the new version in afterwards; who reads a record from below in between cannot put it in:
//!
//! - whoever wants to fill a gap marks it first, and only then looks whether a commit of that key is under way;
//! - a commit says that it is under way first, and only then takes the key out, which unmarks the gap.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::sync::{Cache, DefaultLifecycle, GuardResult};
use quick_cache::{DefaultHashBuilder, Equivalent, OptionsBuilder, Weighter};

use limnion_types::Result;

use crate::model::Record;

/// What an entry costs beside its payload.
const OVERHEAD: usize = 320;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    namespace: Arc<str>,
    key: Arc<str>,
}

#[derive(PartialEq, Eq)]
struct Name<'a> {
    namespace: &'a str,
    key: &'a str,
}

impl Hash for Name<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.namespace.hash(state);
        self.key.hash(state);
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Name { namespace: &self.namespace, key: &self.key }.hash(state);
    }
}

impl Equivalent<Key> for Name<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self.namespace == *key.namespace && *self.key == *key.key
    }
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Arc<Record>> for Bytes {
    fn weight(&self, key: &Key, record: &Arc<Record>) -> u64 {
        (OVERHEAD + key.namespace.len() + key.key.len() + record.payload.memory_bytes()) as u64
    }
}

/// The hot tier.
pub(crate) struct Hot {
    cache: Cache<Key, Arc<Record>, Bytes>,
    /// The hashes of the keys of a commit that is under way. Two keys of one hash cost a gap that is not filled.
    committing: Mutex<HashSet<u64, DefaultHashBuilder>>,
    hasher: DefaultHashBuilder,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Hot {
    /// A tier of at most so many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        let items = (bytes / 1024).clamp(64, 4 << 20) as usize;
        let options = OptionsBuilder::new()
            .estimated_items_capacity(items)
            .weight_capacity(bytes)
            // Few shards, so that one large record still fits into its own.
            .shards(16)
            .build();
        let cache = match options {
            Ok(options) => Cache::with_options(
                options,
                Bytes,
                DefaultHashBuilder::default(),
                DefaultLifecycle::default(),
            ),
            Err(_) => Cache::with_weighter(items, bytes, Bytes),
        };
        Self {
            cache,
            committing: Mutex::default(),
            hasher: DefaultHashBuilder::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(crate) fn get(&self, namespace: &str, key: &str) -> Option<Arc<Record>> {
        let found = self.cache.get(&Name { namespace, key });
        if found.is_some() {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    /// The record from memory, or from `read`, which is remembered where it is the newest version.
    pub(crate) fn get_or_read(
        &self,
        namespace: &str,
        key: &str,
        read: impl FnOnce() -> Result<Option<Arc<Record>>>,
    ) -> Result<Option<Arc<Record>>> {
        self.misses.fetch_add(1, Ordering::Relaxed);
        let key = Key { namespace: namespace.into(), key: key.into() };
        match self.cache.get_value_or_guard(&key, Some(Duration::ZERO)) {
            GuardResult::Value(record) => Ok(Some(record)),
            GuardResult::Timeout => read(),
            GuardResult::Guard(gap) => {
                let stable = !self.committing().contains(&self.hasher.hash_one(&key));
                let record = read()?;
                if let (true, Some(record)) = (stable, &record) {
                    // Where the gap is no longer marked, a commit has come in between.
                    let _ = gap.insert(record.clone());
                }
                Ok(record)
            }
        }
    }

    /// A commit is about to happen that writes these records, which had been written before. Those that are new cannot be
    /// here: nobody remembers that there is nothing.
    pub(crate) fn begin<'a>(&self, records: impl Iterator<Item = (&'a Arc<str>, &'a Arc<str>)> + Clone) {
        let hash = |(namespace, key): (&Arc<str>, &Arc<str>)| self.hasher.hash_one(Name { namespace, key });
        self.committing().extend(records.clone().map(hash));
        for (namespace, key) in records {
            self.cache.remove(&Name { namespace, key });
        }
    }

    /// It has happened, and these are the newest versions now; or it has not, and there are none.
    pub(crate) fn finish(&self, records: impl Iterator<Item = Arc<Record>>) {
        for record in records {
            let key = Key { namespace: record.namespace.clone(), key: record.key.clone() };
            self.cache.insert(key, record);
        }
        self.committing().clear();
    }

    fn committing(&self) -> MutexGuard<'_, HashSet<u64, DefaultHashBuilder>> {
        self.committing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clear(&self) {
        self.cache.clear();
    }

    pub(crate) fn len(&self) -> u64 {
        self.cache.len() as u64
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// Gets that were answered, and gets that were not.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }
}
