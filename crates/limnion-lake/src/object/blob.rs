//! An object as bytes that can be read in any order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use limnion_types::{Job, Result};
use object_store::ObjectMeta;

use crate::formats::Blob;
use crate::object::access::{AT_ONCE, Access, Answer, PART, outside};
use crate::runtime::Pending;

/// Parts that are kept or on their way: enough for two places that are read in turns.
const KEPT: usize = 2 * AT_ONCE;
/// What is read at least, so that what lies beside it need not be asked for.
const LEAST: u64 = 64 << 10;
/// Up to so many bytes, a read that does not go on from another is kept.
const SMALL: u64 = 1 << 20;
/// Reads of that kind that are kept.
const PIECES: usize = 16;
/// A read that begins at most so far behind the end of another goes on from there.
const GAP: u64 = 1 << 20;
/// Ends of reads that are remembered.
const ENDS: usize = 8;

/// An object of one moment: what has changed since then is an error.
///
/// Reads that are big or go on from each other are read ahead in parts, several at once. Others, as at the end of a Parquet file,
/// are asked for by themselves, a bit more than needed. At most [`KEPT`] parts are in memory.
pub(crate) struct ObjectBlob<'a> {
    access: &'a Access,
    object: Arc<ObjectMeta>,
    job: Option<&'a Job>,
    ahead: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Those used last are at the end.
    parts: VecDeque<(u64, Part)>,
    pieces: VecDeque<(u64, Vec<u8>)>,
    ends: VecDeque<u64>,
}

enum Part {
    Coming(Pending<Answer<Vec<u8>>>),
    Here(Vec<u8>),
}

impl<'a> ObjectBlob<'a> {
    /// `ahead` says whether all of it is going to be read.
    pub(crate) fn new(
        access: &'a Access,
        object: Arc<ObjectMeta>,
        ahead: bool,
        job: Option<&'a Job>,
    ) -> Self {
        Self { access, object, job, ahead, state: Mutex::default() }
    }

    fn part_range(&self, part: u64) -> Range<u64> {
        let start = part.saturating_mul(PART);
        start..start.saturating_add(PART).min(self.object.size)
    }

    fn got(&self, answer: Answer<Vec<u8>>) -> Result<Vec<u8>> {
        answer.map_err(|trouble| self.access.error(self.object.location.as_ref(), &trouble))
    }

    /// Sees to it that a part is here or on its way.
    fn want(&self, state: &mut State, part: u64) -> Result<()> {
        let there = match state.parts.iter().position(|(number, _)| *number == part) {
            Some(at) => state.parts.remove(at),
            None => {
                while state.parts.len() >= KEPT {
                    state.parts.pop_front();
                }
                Some((part, Part::Coming(self.access.fetch(&self.object, self.part_range(part))?)))
            }
        };
        state.parts.extend(there);
        Ok(())
    }

    /// Reads part by part, while the next ones are on their way.
    fn read_parts(&self, state: &mut State, range: &Range<u64>) -> Result<Vec<u8>> {
        let last_of_all = self.object.size.saturating_sub(1) / PART;
        let mut bytes = Vec::new();
        for part in range.start / PART..=range.end.saturating_sub(1) / PART {
            for next in part..=last_of_all.min(part + AT_ONCE as u64 - 1) {
                self.want(state, next)?;
            }
            let Some(at) = state.parts.iter().position(|(number, _)| *number == part) else {
                return Err(outside(range, self.object.size));
            };
            // An error leaves the part out, so that it is asked for again.
            let here = match state.parts.remove(at) {
                Some((_, Part::Coming(pending))) => self.got(pending.wait(self.job)?)?,
                Some((_, Part::Here(here))) => here,
                None => return Err(outside(range, self.object.size)),
            };
            let place = self.part_range(part);
            let from = range.start.max(place.start) - place.start;
            let to = range.end.min(place.end) - place.start;
            let slice = here.get(from as usize..to as usize);
            bytes.extend_from_slice(slice.ok_or_else(|| outside(range, self.object.size))?);
            if range.end < place.end {
                state.parts.push_back((part, Part::Here(here)));
            }
        }
        Ok(bytes)
    }

    /// Reads just a range.
    fn read_range(&self, range: &Range<u64>) -> Result<Vec<u8>> {
        self.got(self.access.read(&self.object, range, self.job)?)
    }
}

/// The bytes of a range, out of some that begin at `start`.
fn within(bytes: &[u8], start: u64, range: &Range<u64>) -> Option<Vec<u8>> {
    let from = usize::try_from(range.start.checked_sub(start)?).ok()?;
    let to = usize::try_from(range.end.checked_sub(start)?).ok()?;
    Some(bytes.get(from..to)?.to_vec())
}

impl Blob for ObjectBlob<'_> {
    fn len(&self) -> u64 {
        self.object.size
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let size = self.object.size;
        if range.end > size || range.start > range.end {
            return Err(outside(&range, size));
        }
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let goes_on = |end: &u64| *end <= range.start && range.start - *end <= GAP;
        let before = state.ends.iter().position(goes_on);
        if let Some(at) = before {
            state.ends.remove(at);
        }
        state.ends.push_back(range.end);
        if state.ends.len() > ENDS {
            state.ends.pop_front();
        }
        if let Some(bytes) = state.pieces.iter().find_map(|(start, bytes)| within(bytes, *start, &range)) {
            return Ok(bytes);
        }
        let here = state.parts.iter().any(|(part, _)| *part == range.start / PART);
        let big = range.end - range.start > SMALL;
        if here || self.ahead && (big || before.is_some()) {
            return self.read_parts(&mut state, &range);
        }
        if big {
            return self.read_range(&range);
        }
        let start = range.start.min(size.saturating_sub(LEAST));
        let end = range.end.max(start.saturating_add(LEAST)).min(size);
        let piece = self.read_range(&(start..end))?;
        let bytes = within(&piece, start, &range).ok_or_else(|| outside(&range, size))?;
        state.pieces.push_back((start, piece));
        if state.pieces.len() > PIECES {
            state.pieces.pop_front();
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::access::Patience;
    use crate::object::store::Store;
    use limnion_types::ErrorKind;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use proptest::prelude::*;

    fn access() -> Access {
        let store = Store::given(Arc::new(InMemory::new()), "memory://1");
        Access { name: "test".into(), store: Arc::new(store), patience: Patience::default() }
    }

    fn object(access: &Access, length: usize) -> (Vec<u8>, Arc<ObjectMeta>) {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 31 % 251) as u8).collect();
        let key = Path::from("object");
        access.put(&key, bytes.clone()).unwrap();
        (bytes, Arc::new(access.head(&key, None).unwrap().unwrap()))
    }

    /// Reads as they come: here and there, small and big, and on from where the last one ended.
    fn reads(length: u64) -> impl Strategy<Value = Vec<(bool, u64, u64)>> {
        let size = prop_oneof![0..100_u64, 0..200_000_u64, 0..20_000_000_u64];
        prop::collection::vec((any::<bool>(), 0..=length, size), 1..20)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_reads_in_any_order_give_the_bytes_that_are_there(
            length in prop_oneof![1..1000_usize, 8_300_000..8_500_000_usize, Just(40_000_000)],
            reads in reads(40_000_000), ahead: bool,
        ) {
            let access = access();
            let (bytes, object) = object(&access, length);
            let blob = ObjectBlob::new(&access, object, ahead, None);
            let mut end = 0;
            for (goes_on, start, size) in reads {
                let start = if goes_on { end } else { start.min(length as u64) };
                end = (start + size).min(length as u64);
                let read = blob.read(start..end).unwrap();
                prop_assert!(read == bytes[start as usize..end as usize], "{start}..{end}");
                let state = blob.state.lock().unwrap();
                prop_assert!(state.parts.len() <= KEPT && state.pieces.len() <= PIECES);
            }
            let beyond = blob.read(0..length as u64 + 1).unwrap_err();
            prop_assert_eq!(beyond.kind(), ErrorKind::Backend);
        }
    }

    #[test]
    fn the_end_of_a_file_is_asked_for_once_and_nothing_is_read_ahead_for_it() {
        let access = access();
        let (bytes, object) = object(&access, 40_000_000);
        let blob = ObjectBlob::new(&access, object, true, None);
        let length = bytes.len() as u64;
        assert_eq!(blob.read(length - 8..length).unwrap(), bytes[bytes.len() - 8..]);
        assert_eq!(blob.read(length - 5000..length).unwrap(), bytes[bytes.len() - 5000..]);
        let state = blob.state.lock().unwrap();
        assert_eq!((state.parts.len(), state.pieces.len()), (0, 1));
    }
}
