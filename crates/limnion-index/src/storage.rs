//! Arrays that an index owns, or that lie in a file it has mapped.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytemuck::Pod;
use crc32fast::Hasher;
use limnion_types::{Error, ErrorKind, Result};
use rayon::prelude::*;

/// A copy that is to be changed has room for this part more.
const HEADROOM: usize = 16;
/// To copy so many bytes takes less than 100 µs.
const SMALL: usize = 1 << 20;

/// Bytes that one thread checks at a time.
const PART: usize = 4 << 20;

/// Bytes that stay as they are for as long as anyone holds them, such as a mapped file.
pub type Source = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// An array of plain numbers. Clones share it; whoever changes it while it is shared or mapped gets a copy first.
#[derive(Clone)]
pub(crate) struct Storage<T: Pod> {
    /// Empty while the array is mapped.
    owned: Arc<Vec<T>>,
    mapped: Option<Arc<Mapped>>,
}

/// A part of a source, with the checksum it should have.
struct Mapped {
    source: Source,
    range: Range<usize>,
    crc: u32,
    verified: AtomicBool,
}

impl Mapped {
    fn bytes(&self) -> &[u8] {
        self.source.as_ref().as_ref().get(self.range.clone()).unwrap_or_default()
    }
}

/// The checksum of some bytes: parallel within a pool of threads, where they are many.
fn crc(bytes: &[u8]) -> u32 {
    if rayon::current_thread_index().is_none() {
        return crc32fast::hash(bytes);
    }
    let part = |bytes: &[u8]| {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher
    };
    let join = |mut first: Hasher, second: Hasher| {
        first.combine(&second);
        first
    };
    bytes.par_chunks(PART).map(part).reduce(Hasher::new, join).finalize()
}

impl<T: Pod> Storage<T> {
    pub(crate) fn new(values: Vec<T>) -> Self {
        Self { owned: Arc::new(values), mapped: None }
    }

    /// An empty array with room for `capacity` values, on huge pages where the system has them: searches jump about.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let values = Vec::with_capacity(capacity);
        limnion_simd::huge_pages(&values);
        Self::new(values)
    }

    /// A view of `range` of the source, or `None` where its place or length does not suit `T`.
    pub(crate) fn mapped(source: &Source, range: Range<usize>, crc: u32) -> Option<Self> {
        bytemuck::try_cast_slice::<u8, T>(source.as_ref().as_ref().get(range.clone())?).ok()?;
        let mapped = Mapped { source: source.clone(), range, crc, verified: AtomicBool::new(false) };
        Some(Self { owned: Arc::default(), mapped: Some(Arc::new(mapped)) })
    }

    /// Checks the checksum of a mapped array, once.
    pub(crate) fn verify(&self, name: &str) -> Result<()> {
        let Some(mapped) = &self.mapped else { return Ok(()) };
        if mapped.verified.load(Ordering::Relaxed) {
            return Ok(());
        }
        if crc(mapped.bytes()) != mapped.crc {
            return Err(Error::new(
                ErrorKind::CorruptFile,
                format!("the {name} of the index file are damaged"),
            )
            .suggest("build the index again: it is a cache of your vectors"));
        }
        mapped.verified.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The array to change, copied first where somebody else can see it: with some room, as whoever changes it may add to it.
    pub(crate) fn to_mut(&mut self) -> &mut Vec<T> {
        if self.mapped.is_some() || Arc::get_mut(&mut self.owned).is_none() {
            let mut copy = Self::with_capacity(self.len() + self.len() / HEADROOM);
            Arc::make_mut(&mut copy.owned).extend_from_slice(self);
            *self = copy;
        }
        Arc::make_mut(&mut self.owned)
    }

    /// Whether so many values more can be added in a moment: without a copy of what there is, or with a small one.
    pub(crate) fn has_room(&self, more: usize) -> bool {
        let is_mine = self.mapped.is_none() && Arc::strong_count(&self.owned) == 1;
        let fits = is_mine && self.owned.capacity() - self.owned.len() >= more;
        fits || size_of_val::<[T]>(self) <= SMALL
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.owned.capacity() * size_of::<T>()
    }

    /// Gives memory back once half of it is unused.
    pub(crate) fn shrink(&mut self) {
        let values = self.to_mut();
        if values.len() <= values.capacity() / 2 {
            values.shrink_to_fit();
        }
    }
}

impl<T: Pod> Deref for Storage<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.mapped {
            None => &self.owned,
            // The cast was tried when the view was made.
            Some(mapped) => bytemuck::try_cast_slice(mapped.bytes()).unwrap_or_default(),
        }
    }
}

impl<T: Pod> fmt::Debug for Storage<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} {} values]", self.len(), if self.mapped.is_some() { "mapped" } else { "owned" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_never_reaches_those_who_share_the_array() {
        let mut mine = Storage::new(vec![1.0_f32, 2.0]);
        let theirs = mine.clone();
        mine.to_mut().push(3.0);
        assert_eq!((&*mine, &*theirs), (&[1.0, 2.0, 3.0][..], &[1.0, 2.0][..]));
    }

    #[test]
    fn the_checksum_of_parts_is_that_of_the_whole() {
        let bytes: Vec<u8> = (0..3 * PART + 17).map(|at| (at * 31 + at / 255) as u8).collect();
        for end in [0, 1, PART, PART + 1, bytes.len()] {
            let within = rayon::scope(|_| crc(&bytes[..end]));
            assert_eq!(
                (crc(&bytes[..end]), within),
                (crc32fast::hash(&bytes[..end]), crc32fast::hash(&bytes[..end]))
            );
        }
    }

    #[test]
    fn a_mapped_array_notices_damage_when_it_is_first_used() {
        let bytes: Vec<u8> = vec![1, 2, 3, 4];
        let crc = crc32fast::hash(&bytes);
        let source: Source = Arc::new(bytes);
        assert!(Storage::<u8>::mapped(&source, 0..4, crc).is_some_and(|s| s.verify("codes").is_ok()));
        let damaged = Storage::<u8>::mapped(&source, 0..4, crc ^ 1);
        assert!(
            damaged.is_some_and(|s| s.verify("codes").is_err_and(|e| e.kind() == ErrorKind::CorruptFile))
        );
        assert!(Storage::<u8>::mapped(&source, 2..6, crc).is_none());
    }
}
