//! Which vertices a walk has come across.

const BITS: usize = u64::BITS as usize;

/// A bit for each vertex. What a walk has set it takes back at its end, so that beginning the next costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Visited {
    bits: Vec<u64>,
    touched: Vec<u32>,
}

impl Visited {
    /// Begins a walk among so many vertices.
    pub(crate) fn begin(&mut self, len: usize) {
        if self.bits.len() < len.div_ceil(BITS) {
            self.bits.resize(len.div_ceil(BITS), 0);
        }
    }

    /// Whether the vertex was not there yet.
    pub(crate) fn insert(&mut self, slot: u32) -> bool {
        let bit = 1 << (slot as usize % BITS);
        let Some(bits) = self.bits.get_mut(slot as usize / BITS).filter(|bits| **bits & bit == 0) else {
            return false;
        };
        *bits |= bit;
        self.touched.push(slot);
        true
    }

    /// Adds those of `slots` that are new to `fresh`. No branch depends on which they are: nobody could foresee it.
    pub(crate) fn sift(&mut self, slots: &[u32], fresh: &mut Vec<u32>) {
        let start = fresh.len();
        fresh.resize(start + slots.len(), 0);
        let new = fresh.get_mut(start..).unwrap_or_default();
        let mut count = 0;
        for &slot in slots {
            let Some(bits) = self.bits.get_mut(slot as usize / BITS) else { continue };
            if let Some(place) = new.get_mut(count) {
                *place = slot;
            }
            count += usize::from(*bits >> (slot as usize % BITS) & 1 == 0);
            *bits |= 1 << (slot as usize % BITS);
        }
        self.touched.extend_from_slice(new.get(..count).unwrap_or_default());
        fresh.truncate(start + count);
    }

    /// Forgets them all.
    pub(crate) fn end(&mut self) {
        for slot in self.touched.drain(..) {
            if let Some(bits) = self.bits.get_mut(slot as usize / BITS) {
                *bits = 0;
            }
        }
    }
}
