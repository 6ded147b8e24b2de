//! Packed codes of 1 to 7 bits a dimension, and their dot product with a query.
//!
//! Dimensions come in chunks of 64. A chunk of `bits` bits takes `8 bits` bytes, made of up to three *planes*, one
//! for each power of two in `bits`, widest first, holding the lower bits of the values first:
//!
//! ```text
//! plane   bytes  byte i of the plane, from the lowest bit up
//! 4 bits    32   dimensions i, 32 + i
//! 2 bits    16   dimensions i, 16 + i, 32 + i, 48 + i
//! 1 bit      8   dimensions 8i, 8i + 1, ... 8i + 7
//!
//! bits 7: planes 4, 2, 1 hold value bits 0..4, 4..6, 6      bits 3: planes 2, 1 hold 0..2, 2
//! bits 6: planes 4, 2    hold value bits 0..4, 4..6         bits 2: plane 2
//! bits 5: planes 4, 1    hold value bits 0..4, 4            bits 1: plane 1
//! bits 4: plane 4
//! ```
//!
//! So widening bytes to words, one shift and one mask give dimensions in their natural order.

use crate::level::Level;

/// Dimensions of a chunk.
const CHUNK: usize = 64;

/// Chunks that a lane of 32 bits can add up, for every kernel here: a lane takes at most 8 products a chunk, each
/// under 2^20 (127 times 8191).
const FLUSH: usize = 256;

/// Bytes of a packed code of `dim` dimensions, a multiple of 64.
///
/// ```
/// assert_eq!(limnion_simd::code::row_bytes(384, 4), 192);
/// ```
#[must_use]
pub fn row_bytes(dim: usize, bits: u8) -> usize {
    dim / CHUNK * (CHUNK / 8) * usize::from(bits)
}

/// Packs `values`, each under 2 to the power of `bits`, into `out`, of [`row_bytes`] bytes.
///
/// The number of values should be a multiple of 64, and `bits` in 1..=7: whole chunks that fit are written, and
/// with other `bits` nothing is (and debug builds stop).
///
/// ```
/// use limnion_simd::code::{pack, unpack};
/// let values: Vec<u8> = (0..64).map(|i| i % 8).collect();
/// let mut code = [0; 24];
/// pack(&values, 3, &mut code);
/// let mut back = [0; 64];
/// unpack(&code, 3, &mut back);
/// assert_eq!(back[..], values);
/// ```
pub fn pack(values: &[u8], bits: u8, out: &mut [u8]) {
    if !valid(bits) {
        return;
    }
    let chunks = values.chunks_exact(CHUNK).zip(out.chunks_exact_mut(row_bytes(CHUNK, bits)));
    for (values, out) in chunks {
        out.fill(0);
        for plane in Plane::of(bits) {
            for (dim, value) in values.iter().enumerate() {
                let (byte, shift) = plane.place(dim);
                out[byte] |= (value >> plane.lowest & plane.mask()) << shift;
            }
        }
    }
}

/// Unpacks a code made by [`pack`] into `values`.
pub fn unpack(code: &[u8], bits: u8, values: &mut [u8]) {
    if !valid(bits) {
        return;
    }
    let chunks = values.chunks_exact_mut(CHUNK).zip(code.chunks_exact(row_bytes(CHUNK, bits)));
    for (values, code) in chunks {
        values.fill(0);
        for plane in Plane::of(bits) {
            for (dim, value) in values.iter_mut().enumerate() {
                let (byte, shift) = plane.place(dim);
                *value |= (code[byte] >> shift & plane.mask()) << plane.lowest;
            }
        }
    }
}

/// The dot product of a packed code and a query of whole numbers: exact for |query| ≤ 8,191 and up to 65,536
/// dimensions.
///
/// Whole chunks of 64 dimensions count, as many as both have. With `bits` outside of 1..=7 the result is 0 (and
/// debug builds stop).
///
/// ```
/// use limnion_simd::Level;
/// use limnion_simd::code::{dot_code, pack};
/// let mut code = [0; 32];
/// pack(&[3; 64], 4, &mut code);
/// assert_eq!(dot_code(Level::current(), &code, 4, &[-100; 64]), -19_200);
/// ```
#[must_use]
pub fn dot_code(level: Level, code: &[u8], bits: u8, query: &[i16]) -> i64 {
    if !valid(bits) {
        return 0;
    }
    dispatch!(level, dot_code(code, bits, query))
}

fn valid(bits: u8) -> bool {
    let valid = (1..=7).contains(&bits);
    debug_assert!(valid, "codes have 1 to 7 bits a dimension, not {bits}");
    valid
}

/// A plane of a chunk.
#[derive(Clone, Copy)]
struct Plane {
    /// Bits a dimension.
    width: u8,
    /// The lowest bit of a value that the plane holds.
    lowest: u8,
    /// Where the plane begins in the chunk.
    offset: usize,
}

impl Plane {
    fn of(bits: u8) -> impl Iterator<Item = Self> {
        [4, 2, 1].into_iter().filter(move |width| bits & width != 0).map(move |width| {
            let lowest = bits & !(2 * width - 1);
            Self { width, lowest, offset: row_bytes(CHUNK, lowest) }
        })
    }

    /// The byte of the chunk, and the bit in it, where a dimension begins.
    fn place(self, dim: usize) -> (usize, usize) {
        let (byte, shift) = match self.width {
            4 => (dim % 32, dim / 32 * 4),
            2 => (dim % 16, dim / 16 * 2),
            _ => (dim / 8, dim % 8),
        };
        (self.offset + byte, shift)
    }

    fn mask(self) -> u8 {
        (1 << self.width) - 1
    }
}

mod scalar {
    use super::{CHUNK, row_bytes, unpack};

    pub(super) fn dot_code(code: &[u8], bits: u8, query: &[i16]) -> i64 {
        let mut sum = 0;
        let mut values = [0; CHUNK];
        for (code, query) in code.chunks_exact(row_bytes(CHUNK, bits)).zip(query.chunks_exact(CHUNK)) {
            unpack(code, bits, &mut values);
            sum += values.iter().zip(query).map(|(&v, &q)| i64::from(v) * i64::from(q)).sum::<i64>();
        }
        sum
    }
}
