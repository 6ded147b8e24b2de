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
    /// The order of additions: the smallest value of group `g` is added to lane `g % 8` of 8 sums, then the upper
    /// half of the lanes to the lower half until one is left.
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
fn counts_per_value(range: f32) -> f32 {
    if range > 0.0 { 255.0 / range } else { 0.0 }
}

/// Adds the upper half of the lanes to the lower half until one is left.
fn total(mut lanes: [f32; 8]) -> f32 {
    for half in [4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

mod scalar {
    use super::{counts_per_value, table_offset, total};

    /// The query's values of one group; what lies beyond the query is zero.
    fn group(query: &[f32], index: usize) -> [f32; 4] {
        std::array::from_fn(|place| query.get(index * 4 + place).copied().unwrap_or(0.0))
    }

    /// The sum of a group, which all kernels take in this order.
    fn sum([a, b, c, d]: [f32; 4]) -> f32 {
        (a + b) + (c + d)
    }

    pub(super) fn build(query: &[f32], tables: &mut [u8]) -> (f32, f32) {
        let groups = tables.len() / 16;
        let lowest = |index| sum(group(query, index).map(|value| value.min(0.0)));
        let highest = |index| sum(group(query, index).map(|value| value.max(0.0)));

        let mut range = 0.0_f32;
        let mut lanes = [0.0_f32; 8];
        for index in 0..groups {
            range = range.max(highest(index) - lowest(index));
            lanes[index % 8] += lowest(index);
        }

        let factor = counts_per_value(range);
        for index in 0..groups {
            let values = group(query, index);
            for pattern in 0..16 {
                let chosen =
                    std::array::from_fn(|place| if pattern >> place & 1 == 1 { values[place] } else { 0.0 });
                let counts = (sum(chosen) - lowest(index)) * factor + 0.5;
                tables[table_offset(index) + pattern] = counts as u8;
            }
        }
        (range / 255.0, total(lanes))
    }
}

/// The kernels at one width of vector: a vector holds LANES / 4 groups.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! kernels {
    ($features:literal, $vector:ident) => {
        use super::{UNIT, counts_per_value, table_offset, total};
        use crate::vector::padded;
        use crate::vector::$vector::*;

        const GROUPS: usize = LANES / 4;

        #[target_feature(enable = $features)]
        pub(super) fn build(query: &[f32], tables: &mut [u8]) -> (f32, f32) {
            let (units, tail) = query.as_chunks::<32>();
            let tail = padded(tail);

            let mut range = splat(0.0);
            let mut lanes = [splat(0.0); 32 / LANES];
            for unit in units.iter().chain([&tail]) {
                for (lane, values) in lanes.iter_mut().zip(unit.as_chunks().0) {
                    let lowest = group_sums(min(load(values), splat(0.0)));
                    let highest = group_sums(max(load(values), splat(0.0)));
                    range = max(range, sub(highest, lowest));
                    *lane = add(*lane, lowest);
                }
            }
            let range = {
                let mut lanes = [0.0; LANES];
                store(&mut lanes, range);
                lanes.into_iter().fold(0.0, f32::max)
            };
            let mut bias = [[0.0; LANES]; 32 / LANES];
            for (bias, lane) in bias.iter_mut().zip(lanes) {
                store(bias, lane);
            }
            let bias = bias.as_flattened();
            let bias = total(std::array::from_fn(|group| bias.get(group * 4).copied().unwrap_or(0.0)));

            let factor = splat(counts_per_value(range));
            for (unit, tables) in units.iter().chain([&tail]).zip(tables.chunks_exact_mut(UNIT)) {
                for (index, values) in unit.as_chunks().0.iter().enumerate() {
                    let values = load(values);
                    let lowest = group_sums(min(values, splat(0.0)));
                    let groups = tables_of_groups(values, lowest, factor);
                    for (group, table) in groups.into_iter().enumerate() {
                        let start = table_offset(index * GROUPS + group);
                        tables[start..start + 16].copy_from_slice(&table);
                    }
                }
            }
            (range / 255.0, bias)
        }

        /// What a pattern's sum becomes.
        #[inline]
        #[target_feature(enable = $features)]
        fn counts(sum: Vector, lowest: Vector, factor: Vector) -> Vector {
            add(mul(sub(sum, lowest), factor), splat(0.5))
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    kernels!("avx2,f16c", avx2);

    /// The sum of each group of four lanes, in all four of its lanes.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn group_sums(x: Vector) -> Vector {
        let pairs = add(x, _mm256_permute_ps::<0b10_11_00_01>(x));
        add(pairs, _mm256_permute_ps::<0b01_00_11_10>(pairs))
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn tables_of_groups(values: Vector, lowest: Vector, factor: Vector) -> [[u8; 16]; GROUPS] {
        [
            table(
                _mm256_permute2f128_ps::<0x00>(values, values),
                _mm256_permute2f128_ps::<0x00>(lowest, lowest),
                factor,
            ),
            table(
                _mm256_permute2f128_ps::<0x11>(values, values),
                _mm256_permute2f128_ps::<0x11>(lowest, lowest),
                factor,
            ),
        ]
    }

    /// The table of one group, whose values and lowest sum fill both halves.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn table(values: Vector, lowest: Vector, factor: Vector) -> [u8; 16] {
        let zero = _mm256_setzero_ps();
        let a = _mm256_blend_ps::<0b1010_1010>(zero, _mm256_permute_ps::<0x00>(values));
        let b = _mm256_blend_ps::<0b1100_1100>(zero, _mm256_permute_ps::<0x55>(values));
        let c = _mm256_blend_ps::<0b1111_0000>(zero, _mm256_permute_ps::<0xaa>(values));
        let d = _mm256_permute_ps::<0xff>(values);
        let without_d = _mm256_cvttps_epi32(counts(add(add(a, b), c), lowest, factor));
        let with_d = _mm256_cvttps_epi32(counts(add(add(a, b), add(c, d)), lowest, factor));
        // Packing works within halves: its result has patterns 0..4, 8..12, 4..8, 12..16.
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(without_d, with_d));
        let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
        let mut table = [0; 16];
        // SAFETY: the array has the 16 bytes that are written; the store needs no alignment.
        unsafe { _mm_storeu_si128(table.as_mut_ptr().cast(), bytes) };
        table
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn min(a: Vector, b: Vector) -> Vector {
        _mm256_min_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    fn max(a: Vector, b: Vector) -> Vector {
        _mm256_max_ps(a, b)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    kernels!("avx512f,avx512bw,avx512dq,avx512vl", avx512);

    /// The sum of each group of four lanes, in all four of its lanes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn group_sums(x: Vector) -> Vector {
        let pairs = add(x, _mm512_permute_ps::<0b10_11_00_01>(x));
        add(pairs, _mm512_permute_ps::<0b01_00_11_10>(pairs))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn tables_of_groups(values: Vector, lowest: Vector, factor: Vector) -> [[u8; 16]; GROUPS] {
        [
            table(
                _mm512_shuffle_f32x4::<0x00>(values, values),
                _mm512_shuffle_f32x4::<0x00>(lowest, lowest),
                factor,
            ),
            table(
                _mm512_shuffle_f32x4::<0x55>(values, values),
                _mm512_shuffle_f32x4::<0x55>(lowest, lowest),
                factor,
            ),
            table(
                _mm512_shuffle_f32x4::<0xaa>(values, values),
                _mm512_shuffle_f32x4::<0xaa>(lowest, lowest),
                factor,
            ),
            table(
                _mm512_shuffle_f32x4::<0xff>(values, values),
                _mm512_shuffle_f32x4::<0xff>(lowest, lowest),
                factor,
            ),
        ]
    }

    /// The table of one group, whose values and lowest sum fill all quarters.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn table(values: Vector, lowest: Vector, factor: Vector) -> [u8; 16] {
        let a = _mm512_maskz_permute_ps::<0x00>(0xaaaa, values);
        let b = _mm512_maskz_permute_ps::<0x55>(0xcccc, values);
        let c = _mm512_maskz_permute_ps::<0xaa>(0xf0f0, values);
        let d = _mm512_maskz_permute_ps::<0xff>(0xff00, values);
        let counts = _mm512_cvttps_epi32(counts(add(add(a, b), add(c, d)), lowest, factor));
        let mut table = [0; 16];
        // SAFETY: the array has the 16 bytes that are written; the store needs no alignment.
        unsafe { _mm_storeu_si128(table.as_mut_ptr().cast(), _mm512_cvtusepi32_epi8(counts)) };
        table
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn min(a: Vector, b: Vector) -> Vector {
        _mm512_min_ps(a, b)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    fn max(a: Vector, b: Vector) -> Vector {
        _mm512_max_ps(a, b)
    }
}

#[cfg(target_arch = "x86_64")]
use avx512 as avx512vnni;

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    kernels!("neon", neon);

    /// The sum of the group, in all four lanes.
    #[inline]
    #[target_feature(enable = "neon")]
    fn group_sums(x: Vector) -> Vector {
        let pairs = vaddq_f32(x, vrev64q_f32(x));
        vaddq_f32(pairs, vextq_f32::<2>(pairs, pairs))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn tables_of_groups(values: Vector, lowest: Vector, factor: Vector) -> [[u8; 16]; GROUPS] {
        let a = flag(vdupq_laneq_f32::<0>(values), 0b1010);
        let b = flag(vdupq_laneq_f32::<1>(values), 0b1100);
        let (c, d) = (vdupq_laneq_f32::<2>(values), vdupq_laneq_f32::<3>(values));
        let ab = vaddq_f32(a, b);
        let words = |upper: Vector| vmovn_u32(vcvtq_u32_f32(counts(vaddq_f32(ab, upper), lowest, factor)));
        let lower = vcombine_u16(words(splat(0.0)), words(c));
        let upper = vcombine_u16(words(d), words(vaddq_f32(c, d)));
        let mut table = [0; 16];
        // SAFETY: the array has the 16 bytes that are written.
        unsafe { vst1q_u8(table.as_mut_ptr(), vcombine_u8(vmovn_u16(lower), vmovn_u16(upper))) };
        [table]
    }

    /// The lanes of `bits`; zero in the others.
    #[inline]
    #[target_feature(enable = "neon")]
    fn flag(x: Vector, bits: u32) -> Vector {
        let lanes = vtstq_u32(vdupq_n_u32(bits), lane_bits());
        vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), lanes))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn min(a: Vector, b: Vector) -> Vector {
        vminq_f32(a, b)
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn max(a: Vector, b: Vector) -> Vector {
        vmaxq_f32(a, b)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{agree, value};

    fn parts(level: Level, query: &[f32]) -> (Vec<u8>, u32, u32) {
        let lut = Lut::new(level, query);
        (lut.tables().to_vec(), lut.step().to_bits(), lut.bias().to_bits())
    }

    proptest! {
        #[test]
        fn levels_agree(all in prop::collection::vec(value(), 1_024), length in 0_usize..=1_024) {
            agree(|level| parts(level, &all[..length]));
        }

        #[test]
        fn entries_are_rounded_subset_sums(query in prop::collection::vec(-1.0_f32..1.0, 64)) {
            let lut = Lut::new(Level::current(), &query);
            for group in 0..16 {
                let values = &query[group * 4..group * 4 + 4];
                let lowest: f32 = values.iter().map(|value| value.min(0.0)).sum();
                for pattern in 0..16 {
                    let truth: f32 = (0..4).filter(|i| pattern >> i & 1 == 1).map(|i| values[i]).sum();
                    let entry = f32::from(lut.tables()[table_offset(group) + pattern]);
                    prop_assert!((entry * lut.step() + lowest - truth).abs() <= lut.step() * 0.5001);
                }
            }
        }
    }

    #[test]
    fn every_length_agrees() {
        let query: Vec<f32> = (0..200).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        for length in 0..=200 {
            agree(|level| parts(level, &query[..length]));
        }
    }

    #[test]
    fn a_query_of_zeros_has_no_step() {
        for zeros in [[0.0; 64], [-0.0; 64]] {
            let (tables, step, bias) = agree(|level| parts(level, &zeros));
            assert!(tables.iter().all(|&count| count == 0));
            assert_eq!((f32::from_bits(step), f32::from_bits(bias)), (0.0, 0.0));
        }
    }

    #[test]
    fn rebuilding_leaves_nothing_behind() {
        let mut lut = Lut::new(Level::current(), &[3.0; 256]);
        lut.rebuild(Level::current(), &[-1.0; 64]);
        assert_eq!(lut, Lut::new(Level::current(), &[-1.0; 64]));
    }
}
