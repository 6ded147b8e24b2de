//! Where walks begin.

use limnion_rabitq::SplitMix64;
use limnion_simd::{BlockShape, Line};

use crate::graph::places::Places;
use crate::graph::records::Records;

/// About √n vertices, evenly spread: a scan of their codes finds one that is near.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entries {
    slots: Vec<u32>,
    blocks: Vec<Line>,
}

impl Entries {
    /// Some of the vertices that have rows.
    pub(crate) fn pick(places: &Places, records: &Records, seed: u64) -> Self {
        let len = places.len();
        let count = ((len as f64).sqrt() as usize).next_multiple_of(BlockShape::ROWS).min(len);
        let mut random = SplitMix64::new(seed);
        let start = |at: usize| (at as u128 * len as u128 / count.max(1) as u128) as u64;
        let slots = (0..count)
            .map(|at| (start(at) + random.next_u64() % (start(at + 1) - start(at)).max(1)) as u32)
            .filter(|&slot| places.is_live(slot));
        Self::of(slots.collect(), records)
    }

    /// These.
    pub(crate) fn of(slots: Vec<u32>, records: &Records) -> Self {
        let mut blocks = Vec::new();
        records.gathered(&slots, &mut blocks);
        Self { slots, blocks }
    }

    pub(crate) fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// Their codes, in blocks.
    pub(crate) fn blocks(&self) -> &[u8] {
        limnion_simd::bytes(&self.blocks)
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        4 * self.slots.capacity() + size_of::<Line>() * self.blocks.capacity()
    }
}
