//! The look-up tables of one query, which a scan sums.
//!
//! Four dimensions make a *group*. For each of the 16 patterns of a group's sign bits the table of the group holds
//! the sum of the query's values where a bit is set, less the smallest such sum of the group (so it is not
//! negative), in steps of `step`, rounded half up to a byte. The step is shared by all groups, and is such that
//! the group of the widest range just fits. Bytes of the tables, for each unit of 32 dimensions:
//!
//! ```text
//! offset         bytes
//! 128 u           4 x 16   tables of the low nibbles of code bytes 4u, 4u+1, 4u+2, 4u+3
//! 128 u + 64      4 x 16   tables of the high nibbles of the same
//! ```

use crate::block::{Line, bytes, bytes_mut};
use crate::level::Level;

/// Bytes of the tables of a unit.
pub(crate) const UNIT: usize = 128;

/// The look-up tables of one query: 4 bytes a dimension.
///
/// For a sign code `s` (bits 0 or 1), the inner product of the query and `s` is about `sum * step + bias`, where
/// `sum` adds one table entry a group; the error is at most half a step a group.
///
/// ```
/// use limnion_simd::{Level, Lut};
/// let lut = Lut::new(Level::current(), &[0.5, -1.0, 0.0, 2.0]);
/// assert_eq!(lut.bias(), -1.0);
/// assert_eq!(lut.step(), 3.5 / 255.0);
/// assert_eq!(lut.tables()[..16], [73, 109, 0, 36, 73, 109, 0, 36, 219, 255, 146, 182, 219, 255, 146, 182]);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lut {
    tables: Vec<Line>,
    step: f32,
    bias: f32,
}

impl Lut {
    /// Builds the tables of a query, of finite values whose sums stay finite. A length that is no multiple of 32
    /// counts as filled up with zeros.
    #[must_use]
    pub fn new(level: Level, query: &[f32]) -> Self {
        let mut lut = Self::default();
        lut.rebuild(level, query);
        lut
    }

    /// Builds the tables of another query in the memory of this one.
    pub fn rebuild(&mut self, level: Level, query: &[f32]) {
        self.tables.resize(query.len().div_ceil(32) * (UNIT / 64), Line::default());
        (self.step, self.bias) = dispatch!(level, build(query, bytes_mut(&mut self.tables)));
    }

    /// What one count of a table stands for. Zero when the query is all zeros.
    #[must_use]
    pub fn step(&self) -> f32 {
        self.step
    }

    /// The sum of the smallest values of all groups, which the tables leave out.
    ///
    /// The order of additions: the smallest value of group `g` is added to lane `g % 16` of 16 sums, then the
    /// upper half of the lanes to the lower half until one is left.
    #[must_use]
    pub fn bias(&self) -> f32 {
        self.bias
    }

    /// The bytes of the tables, in the layout that the module's source draws: 128 bytes for every 32 dimensions,
    /// low nibbles first.
    #[must_use]
    pub fn tables(&self) -> &[u8] {
        bytes(&self.tables)
    }
}

/// Where the table of a group begins.
fn table_offset(group: usize) -> usize {
    group / 8 * UNIT + group % 2 * 64 + group % 8 / 2 * 16
}

/// What turns a value into counts, for a widest range.
fn counts_per_unit(range: f32) -> f32 {
    if range > 0.0 { 255.0 / range } else { 0.0 }
}

mod scalar {
    use super::{counts_per_unit, table_offset};

    /// The query's values of one group; what lies beyond the query is zero.
    fn group(query: &[f32], index: usize) -> [f32; 4] {
        std::array::from_fn(|place| query.get(index * 4 + place).copied().unwrap_or(0.0))
    }

    /// The sum that all kernels take in this order.
    fn sum([a, b, c, d]: [f32; 4]) -> f32 {
        (a + b) + (c + d)
    }

    pub(super) fn build(query: &[f32], tables: &mut [u8]) -> (f32, f32) {
        let groups = tables.len() / 16;
        let lowest = |index| sum(group(query, index).map(|value| value.min(0.0)));
        let highest = |index| sum(group(query, index).map(|value| value.max(0.0)));

        let mut range = 0.0_f32;
        let mut lanes = [0.0_f32; 16];
        for index in 0..groups {
            range = range.max(highest(index) - lowest(index));
            lanes[index % 16] += lowest(index);
        }
        let mut half = 8;
        while half > 0 {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
            half /= 2;
        }

        let factor = counts_per_unit(range);
        for index in 0..groups {
            let values = group(query, index);
            for pattern in 0..16 {
                let chosen =
                    std::array::from_fn(|place| if pattern >> place & 1 == 1 { values[place] } else { 0.0 });
                let counts = (sum(chosen) - lowest(index)) * factor + 0.5;
                tables[table_offset(index) + pattern] = counts as u8;
            }
        }
        (range / 255.0, lanes[0])
    }
}
