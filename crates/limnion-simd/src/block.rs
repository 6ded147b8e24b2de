//! The block: 32 rows of sign codes and their factors, laid out for a scan.
//!
//! A row's sign code has one bit a dimension; bit `j` of byte `i` belongs to dimension `8i + j`. A *unit* is four
//! code bytes, 32 dimensions, of all rows. A block of dimension `dim` is, without gaps:
//!
//! ```text
//! offset             bytes  what
//! 128 u                16   byte 4u   of rows 0..16     for each unit u in 0..dim/32
//! 128 u +  16          16   byte 4u+1 of rows 0..16
//! 128 u +  32          16   byte 4u+2 of rows 0..16
//! 128 u +  48          16   byte 4u+3 of rows 0..16
//! 128 u +  64          64   the same four of rows 16..32
//! 4 dim                64   f_add     of rows 0..32, f16, little-endian
//! 4 dim + 64           64   f_rescale of rows 0..32, f16, little-endian
//! 4 dim + 128          64   f_error   of rows 0..32, f16, little-endian
//! 4 dim + 192               end
//! ```
//!
//! Sixteen equal byte places of sixteen rows are what a 16-byte table look-up wants (AVX2, NEON); 64 bytes hold
//! four bytes each of sixteen rows, which one byte permutation turns into row-major order (AVX-512 VBMI). So one
//! layout serves every CPU.
//!
//! A lane without a row has code 0, `f_add` = +∞ and both other factors 0: its lower bound is +∞, and it never
//! survives a scan.

use half::f16;

/// The unit of storage for blocks: 64 bytes on a 64-byte boundary, so that blocks in a `Vec<Line>` are aligned.
///
/// ```
/// use limnion_simd::{Line, bytes};
/// let lines = vec![Line::default(); 2];
/// assert_eq!(bytes(&lines).len(), 128);
/// assert_eq!(bytes(&lines).as_ptr() as usize % 64, 0);
/// ```
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Line(pub [u8; 64]);

impl Default for Line {
    fn default() -> Self {
        Self([0; 64])
    }
}

/// The bytes of `lines`, without a copy.
#[must_use]
pub fn bytes(lines: &[Line]) -> &[u8] {
    bytemuck::cast_slice(lines)
}

/// The bytes of `lines` for writing, without a copy.
#[must_use]
pub fn bytes_mut(lines: &mut [Line]) -> &mut [u8] {
    bytemuck::cast_slice_mut(lines)
}

/// Bytes of the factors at the end of a block.
pub(crate) const FACTOR_BYTES: usize = 3 * 2 * BlockShape::ROWS;

/// The sizes of a block for one dimension, and access to its rows.
///
/// The methods that take a block expect [`block_bytes`](Self::block_bytes) bytes and a lane under
/// [`ROWS`](Self::ROWS); with anything else they do nothing, or read an empty lane (and debug builds stop).
///
/// ```
/// use half::f16;
/// use limnion_simd::{BlockShape, Line, bytes_mut};
///
/// let shape = BlockShape::new(64).ok_or("no multiple of 64")?;
/// let mut lines = vec![Line::default(); shape.block_bytes() / 64];
/// let block = bytes_mut(&mut lines);
/// shape.empty(block);
/// let one = f16::from_f32(1.0);
/// shape.write_row(block, 3, &[0xa5; 8], one, one, one);
/// let mut signs = [0; 8];
/// shape.read_signs(block, 3, &mut signs);
/// assert_eq!(signs, [0xa5; 8]);
/// assert_eq!(shape.read_factors(block, 4)[0], f16::INFINITY);
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockShape {
    dim: usize,
}

impl BlockShape {
    /// Rows of a block.
    pub const ROWS: usize = 32;

    /// The shape for a padded dimension, which must be a multiple of 64 from 64 to 65,536; `None` otherwise.
    #[must_use]
    pub fn new(dim: usize) -> Option<Self> {
        (dim.is_multiple_of(64) && (64..=65_536).contains(&dim)).then_some(Self { dim })
    }

    /// The padded dimension.
    #[must_use]
    pub fn dim(self) -> usize {
        self.dim
    }

    /// Bytes of one block, a multiple of 64.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        self.codes_bytes() + FACTOR_BYTES
    }

    /// Bytes of one row's sign code.
    #[must_use]
    pub fn code_bytes(self) -> usize {
        self.dim / 8
    }

    /// Bytes of the codes of a block, which the factors follow.
    pub(crate) fn codes_bytes(self) -> usize {
        self.dim * 4
    }

    /// Writes one row: its sign code of [`code_bytes`](Self::code_bytes) bytes and its factors.
    pub fn write_row(
        self,
        block: &mut [u8],
        lane: usize,
        sign: &[u8],
        f_add: f16,
        f_rescale: f16,
        f_error: f16,
    ) {
        debug_assert_eq!(sign.len(), self.code_bytes());
        if self.fits(block, lane) {
            for (index, &byte) in sign.iter().take(self.code_bytes()).enumerate() {
                block[code_offset(index, lane)] = byte;
            }
            self.write_factors(block, lane, [f_add, f_rescale, f_error]);
        }
    }

    /// Makes one lane empty: a scan never yields it.
    pub fn clear_row(self, block: &mut [u8], lane: usize) {
        if self.fits(block, lane) {
            for index in 0..self.code_bytes() {
                block[code_offset(index, lane)] = 0;
            }
            self.write_factors(block, lane, [f16::INFINITY, f16::ZERO, f16::ZERO]);
        }
    }

    /// Makes one lane empty, whatever code is left in it.
    pub(crate) fn empty_lane(self, block: &mut [u8], lane: usize) {
        self.write_factors(block, lane, [f16::INFINITY, f16::ZERO, f16::ZERO]);
    }

    /// Makes all lanes of a block empty.
    pub fn empty(self, block: &mut [u8]) {
        if self.fits(block, 0) {
            block.fill(0);
            for lane in 0..Self::ROWS {
                self.write_factors(block, lane, [f16::INFINITY, f16::ZERO, f16::ZERO]);
            }
        }
    }

    /// Reads the sign code of one row into `sign`, of [`code_bytes`](Self::code_bytes) bytes.
    pub fn read_signs(self, block: &[u8], lane: usize, sign: &mut [u8]) {
        if self.fits(block, lane) {
            let (units, _) = block[..self.codes_bytes()].as_chunks::<128>();
            let first = code_offset(0, lane);
            for (sign, unit) in sign.chunks_mut(4).zip(units) {
                // A row's four bytes of a unit are sixteen apart.
                for (byte, &code) in sign.iter_mut().zip(unit[first..].iter().step_by(16)) {
                    *byte = code;
                }
            }
        }
    }

    /// Reads `[f_add, f_rescale, f_error]` of one row.
    #[must_use]
    pub fn read_factors(self, block: &[u8], lane: usize) -> [f16; 3] {
        if !self.fits(block, lane) {
            return [f16::INFINITY, f16::ZERO, f16::ZERO];
        }
        std::array::from_fn(|index| {
            let offset = self.factor_offset(index, lane);
            f16::from_le_bytes([block[offset], block[offset + 1]])
        })
    }

    fn write_factors(self, block: &mut [u8], lane: usize, factors: [f16; 3]) {
        for (index, factor) in factors.into_iter().enumerate() {
            let offset = self.factor_offset(index, lane);
            block[offset..offset + 2].copy_from_slice(&factor.to_le_bytes());
        }
    }

    fn factor_offset(self, index: usize, lane: usize) -> usize {
        self.codes_bytes() + (index * Self::ROWS + lane) * 2
    }

    fn fits(self, block: &[u8], lane: usize) -> bool {
        let fits = block.len() == self.block_bytes() && lane < Self::ROWS;
        debug_assert!(fits, "lane {lane} of a block of {} bytes", block.len());
        fits
    }
}

/// Where byte `index` of the sign code of row `lane` lies in a block.
fn code_offset(index: usize, lane: usize) -> usize {
    index / 4 * 128 + lane / 16 * 64 + index % 4 * 16 + lane % 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(shape: BlockShape) -> Vec<Line> {
        let mut lines = vec![Line([0xcc; 64]); shape.block_bytes() / 64];
        shape.empty(bytes_mut(&mut lines));
        lines
    }

    fn row(shape: BlockShape, seed: usize) -> (Vec<u8>, [f16; 3]) {
        let sign = (0..shape.code_bytes()).map(|index| (index * 31 + seed * 7) as u8).collect();
        (sign, std::array::from_fn(|index| f16::from_f32((seed * 3 + index) as f32 - 40.5)))
    }

    proptest! {
        #[test]
        fn rows_read_back_whatever_is_written_around_them(units in 1usize..12, cleared in 0usize..32) {
            let shape = BlockShape::new(units * 64).unwrap();
            let mut lines = filled(shape);
            let block = bytes_mut(&mut lines);
            for lane in 0..32 {
                let (sign, [add, rescale, error]) = row(shape, lane);
                shape.write_row(block, lane, &sign, add, rescale, error);
            }
            shape.clear_row(block, cleared);
            let mut sign = vec![0; shape.code_bytes()];
            for lane in 0..32 {
                let expected = if lane == cleared {
                    (vec![0; shape.code_bytes()], [f16::INFINITY, f16::ZERO, f16::ZERO])
                } else {
                    row(shape, lane)
                };
                shape.read_signs(block, lane, &mut sign);
                prop_assert_eq!(&sign, &expected.0);
                prop_assert_eq!(shape.read_factors(block, lane), expected.1);
            }
        }
    }

    #[test]
    fn bytes_lie_where_the_drawing_says() {
        let shape = BlockShape::new(64).unwrap();
        let mut lines = filled(shape);
        let block = bytes_mut(&mut lines);
        let sign: Vec<u8> = (1..=8).collect();
        let factors = [0x1122, 0x3344, 0x5566].map(f16::from_bits);
        shape.write_row(block, 17, &sign, factors[0], factors[1], factors[2]);
        assert_eq!([block[65], block[81], block[97], block[113]], [1, 2, 3, 4]);
        assert_eq!([block[193], block[209], block[225], block[241]], [5, 6, 7, 8]);
        assert_eq!(block[256 + 34..256 + 36], [0x22, 0x11]);
        assert_eq!(block[320 + 34..320 + 36], [0x44, 0x33]);
        assert_eq!(block[384 + 34..384 + 36], [0x66, 0x55]);
    }

    #[test]
    fn an_emptied_block_is_all_empty_lanes() {
        let shape = BlockShape::new(128).unwrap();
        let mut lines = filled(shape);
        let emptied = lines.clone();
        for lane in 0..32 {
            shape.clear_row(bytes_mut(&mut lines), lane);
        }
        assert_eq!(lines, emptied);
    }

    #[test]
    fn only_multiples_of_64_up_to_65536_have_a_shape() {
        assert_eq!(BlockShape::new(0), None);
        assert_eq!(BlockShape::new(63), None);
        assert_eq!(BlockShape::new(96), None);
        assert_eq!(BlockShape::new(65_600), None);
        assert_eq!(BlockShape::new(384).unwrap().block_bytes(), 1_728);
        assert!(BlockShape::new(65_536).is_some());
    }
}
