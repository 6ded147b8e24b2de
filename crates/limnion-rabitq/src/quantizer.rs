//! From a vector to its code and back to what the code says about it.
//!
//! With r = rotate(o − mean), n = ‖r‖, and y the grid vector of r's code, the estimator of ⟨r, q⟩ for a rotated query q is
//! n² ⟨y, q⟩ / ⟨r, y⟩: unbiased, since under a random rotation the part of y across r is uniform. Distances follow in one
//! affine form, where ip is ⟨x + c, q⟩ for the unsigned code x with its offset c:
//!
//! ```text
//! estimate = f_add + g_add + f_rescale · ip        lower = estimate − f_error · g_error
//!
//!                        Euclidean, squared                 inner product, negative
//! f_add                  n²                                 −⟨r, mean⟩
//! f_rescale              −2 n² / ⟨r, y⟩                     −n² / ⟨r, y⟩
//! f_error                2 n √((n²‖y‖²/⟨r,y⟩² − 1)/(D−1))   half of it
//! g_add (of the query)   ‖q‖²                               −⟨mean, query⟩
//! ```
//!
//! where q = rotate(query − mean), and g_error is the length of q's part across r, times how sure the bound has to be.
//! `f_error` carries no such factor, so the search chooses it.
//!
//! A code may also be made *around* a further centre c, that of a list of near rows: then r = rotate(o − mean) − c, which
//! is shorter, so the estimates are closer. The query stays what it is (one table serves all centres), and what is left
//! of c moves into two summands:
//!
//! ```text
//! f_add    + 2 n² ⟨c, y⟩ / ⟨r, y⟩                       + n² ⟨c, y⟩ / ⟨r, y⟩ − ⟨r, c⟩ − ⟨rotate(mean), c⟩
//! g_add    ‖q − c‖²                                     −⟨mean, query⟩ − ⟨q, c⟩
//! ```
//!
//! and g_error is the length of q − c across r. All three factors are kept as f16 (54 bytes a row at 384
//! dimensions instead of 60), in units chosen such that typical rows lie in f16's range: rows and queries are
//! multiplied by [`Quantizer::scale`], a power of two, before anything else.

use half::f16;
use limnion_simd::{Level, code, dot_f32, pack_signs, sum_abs};

use crate::grid::{MAX_BITS, round_to_grid};
use crate::{Rotation, padded_dim};

/// Which of the two distances the factors are made for. Cosine is `Euclidean` over unit vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Squared Euclidean distance.
    Euclidean,
    /// Negative inner product.
    InnerProduct,
}

/// Squared lengths are brought to about this; f16 ends at 65,504, so rows may be 15 times longer than the sample's.
const TYPICAL_SQUARE: f32 = 256.0;
/// The largest factor that is written; see [`Encoded::fits`].
const LARGEST_FACTOR: f32 = 60_000.0;

/// Turns vectors into codes: a mean, a rotation, a number of bits and a scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantizer {
    bits: u8,
    form: Form,
    mean: Vec<f32>,
    rotation: Rotation,
    seed: u64,
    scale: f32,
}

/// One vector's code, as [`Quantizer::encode`] gives it.
#[derive(Debug, Clone, Copy)]
pub struct Encoded<'a> {
    /// One bit a dimension: bit j of byte i is set where coordinate 8i + j is positive.
    pub signs: &'a [u8],
    /// The summand of the estimate, rounded down so that the bound holds.
    pub f_add: f16,
    /// The factor of the inner product.
    pub f_rescale: f16,
    /// The deviation of the estimate per unit of the query's length, rounded up.
    pub f_error: f16,
    /// The further bits and their two f32 factors; empty for one bit.
    pub extra: &'a [u8],
    /// ‖r‖² in scaled units.
    pub square: f32,
    fits: bool,
}

impl Encoded<'_> {
    /// Whether the factors lie in f16's range; if not, the vector needs a smaller [`Quantizer::scale`].
    pub fn fits(&self) -> bool {
        self.fits
    }
}

/// Memory that [`Quantizer::encode`] works in; one for each thread.
#[derive(Debug, Clone)]
pub struct Workspace {
    centred: Vec<f32>,
    rotated: Vec<f32>,
    grid: Vec<f32>,
    magnitudes: Vec<u8>,
    signs: Vec<u8>,
    extra: Vec<u8>,
}

impl Quantizer {
    /// A quantizer for vectors of `mean.len()` dimensions.
    ///
    /// `bits` is clamped to 1..=8; `typical_square` is the largest usual ‖o − mean‖² and chooses the scale.
    pub fn new(mean: Vec<f32>, bits: u8, form: Form, seed: u64, typical_square: f32) -> Self {
        let typical = if typical_square > 0.0 && typical_square.is_finite() { typical_square } else { 1.0 };
        let exponent = ((TYPICAL_SQUARE / typical).log2() / 2.0).floor().clamp(-120.0, 120.0) as i32;
        Self::with_scale(mean, bits, form, seed, 2.0_f32.powi(exponent))
    }

    /// A quantizer whose scale is known, as when an index is opened.
    pub fn with_scale(mean: Vec<f32>, bits: u8, form: Form, seed: u64, scale: f32) -> Self {
        let rotation = Rotation::new(mean.len(), seed);
        Self { bits: bits.clamp(1, MAX_BITS), form, mean, rotation, seed, scale }
    }

    /// The length of the vectors that are encoded.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// The length of codes, a multiple of 64.
    pub fn padded_dim(&self) -> usize {
        self.rotation.padded_dim()
    }

    /// Bits a dimension.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Which distance the factors are made for.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The vector that is subtracted before the rotation.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// What chose the rotation.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The power of two that rows and queries are multiplied by.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Makes the unit of length coarser by 2^`halvings`; factors written before change as [`rescaled`] says.
    ///
    /// [`rescaled`]: Quantizer::rescaled
    pub fn halve_scale(&mut self, halvings: i32) {
        self.scale *= 0.5_f32.powi(halvings);
    }

    /// Block factors after [`Quantizer::halve_scale`]: lengths shrink by the power of two, squares by its square.
    pub fn rescaled(factors: [f16; 3], halvings: i32) -> [f16; 3] {
        let length = 0.5_f32.powi(halvings);
        let [add, rescale, error] = factors.map(f16::to_f32);
        [round_down(add * length * length), f16::from_f32(rescale * length), round_up(error * length)]
    }

    /// Rewrites the factors of one row's further bits after [`Quantizer::halve_scale`].
    pub fn rescale_extra(extra: &mut [u8], halvings: i32) {
        let length = 0.5_f32.powi(halvings);
        if let Some((_, factors)) = extra.split_last_chunk_mut::<EXTRA_FACTORS>() {
            let (add, rescale) = read_factors(factors);
            *factors = write_factors(add * length * length, rescale * length);
        }
    }

    /// Bytes of the further bits of one row, their factors included; 0 for one bit.
    pub fn extra_bytes(&self) -> usize {
        extra_bytes(self.dim(), self.bits)
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.mean.capacity() * size_of::<f32>() + self.rotation.heap_bytes()
    }

    /// Memory for [`Quantizer::encode`].
    pub fn workspace(&self) -> Workspace {
        let padded = self.padded_dim();
        Workspace {
            centred: vec![0.0; self.dim()],
            rotated: vec![0.0; padded],
            grid: vec![0.0; padded],
            magnitudes: vec![0; if self.bits > 1 { padded } else { 0 }],
            signs: vec![0; padded / 8],
            extra: vec![0; self.extra_bytes()],
        }
    }

    /// Writes rotate(`vector` · `factor` − mean) in scaled units to `out`, which has the padded length.
    pub(crate) fn rotate(
        &self,
        level: Level,
        vector: &[f32],
        factor: f32,
        centred: &mut [f32],
        out: &mut [f32],
    ) {
        for ((out, &x), &mean) in centred.iter_mut().zip(vector).zip(&self.mean) {
            *out = (x * factor - mean) * self.scale;
        }
        self.rotation.rotate(level, centred, out);
    }

    /// The point `vector` as a centre to encode around: rotate(`vector` − mean) in scaled units.
    pub fn centre(&self, level: Level, vector: &[f32]) -> Vec<f32> {
        self.rotated(level, vector, 1.0)
    }

    /// rotate(`vector` · `factor` − mean) in scaled units, of [`Quantizer::padded_dim`] numbers: what is encoded.
    pub fn rotated(&self, level: Level, vector: &[f32], factor: f32) -> Vec<f32> {
        let mut rotated = vec![0.0; self.padded_dim()];
        self.rotate(level, vector, factor, &mut vec![0.0; self.dim()], &mut rotated);
        rotated
    }

    /// Encodes `vector` · `factor` (the factor is 1 / length for cosine, else 1). The vector is finite.
    ///
    /// Cost: about D log D additions, and a few passes over D more for several bits.
    pub fn encode<'a>(
        &self,
        level: Level,
        vector: &[f32],
        factor: f32,
        work: &'a mut Workspace,
    ) -> Encoded<'a> {
        self.encode_around(level, vector, factor, &[], work)
    }

    /// [`Quantizer::encode`] around a centre, as [`Quantizer::centre`] gives it; an empty one stands for zero.
    pub fn encode_around<'a>(
        &self,
        level: Level,
        vector: &[f32],
        factor: f32,
        centre: &[f32],
        work: &'a mut Workspace,
    ) -> Encoded<'a> {
        let Workspace { centred, rotated, grid, magnitudes, signs, extra } = work;
        self.rotate(level, vector, factor, centred, rotated);
        rotated.iter_mut().zip(centre).for_each(|(x, c)| *x -= c);
        let square = dot_f32(level, rotated, rotated);
        pack_signs(level, rotated, signs);
        let whole_add = match self.form {
            Form::Euclidean => square,
            // ⟨r + c, rotate(mean)⟩ is the same before the rotation; `centred` carries one scale, the mean needs the
            // other.
            Form::InnerProduct => {
                -dot_f32(level, centred, &self.mean) * self.scale - dot_f32(level, rotated, centre)
            }
        };
        let dims = rotated.len() as f32;
        let product = 0.5 * sum_abs(level, rotated);
        let rescale = self.rescale(square, product);
        let error = self.error(square, product, 0.25 * dims, dims);
        if self.bits > 1 {
            let (ratio, with_centre) = if square > 0.0 && product > 0.0 {
                let (product, _) = round_to_grid(rotated, square.sqrt(), self.bits, magnitudes);
                let magnitude = |i: usize| magnitudes.get(i).map_or(0.5, |&k| f32::from(k) + 0.5);
                (self.rescale(square, product), dot_grid(level, rotated, magnitude, centre, grid))
            } else {
                magnitudes.fill(0);
                (0.0, 0.0)
            };
            write_extra(self.bits - 1, rotated, magnitudes, whole_add - ratio * with_centre, ratio, extra);
        }
        let add = whole_add - rescale * dot_grid(level, rotated, |_| 0.5, centre, grid);
        Encoded {
            signs,
            f_add: round_down(add),
            f_rescale: f16::from_f32(rescale),
            f_error: round_up(error),
            extra,
            square,
            fits: add.abs().max(rescale.abs()).max(error) <= LARGEST_FACTOR && square.is_finite(),
        }
    }

    /// What a code says of the vector that it was made of, times its factor: the mean, the centre, and n² / ⟨r, y⟩ times
    /// the grid vector y for the residual. Its inner product with any other vector is unbiased.
    ///
    /// `signs`, `f_rescale` and `extra` are what [`Encoded`] holds; the centre is the one that the code was made around.
    ///
    /// Cost: as [`Quantizer::encode`].
    pub fn decode(
        &self,
        level: Level,
        signs: &[u8],
        f_rescale: f16,
        extra: &[u8],
        centre: &[f32],
    ) -> Vec<f32> {
        let mut rotated = self.decode_residual(signs, f_rescale, extra);
        rotated.iter_mut().zip(centre).for_each(|(x, c)| *x += c);
        self.rotation.unrotate_in_place(level, &mut rotated);
        rotated.iter().zip(&self.mean).map(|(x, mean)| x / self.scale + mean).collect()
    }

    /// What a code says of the residual that it was made of: rotated and in scaled units, n² / ⟨r, y⟩ times the grid vector y.
    pub fn decode_residual(&self, signs: &[u8], f_rescale: f16, extra: &[u8]) -> Vec<f32> {
        let padded = self.padded_dim();
        let further = self.bits - 1;
        let (mut low, mut rescale) = (vec![0; padded], f_rescale.to_f32());
        if let Some((packed, factors)) = extra.split_last_chunk::<EXTRA_FACTORS>() {
            code::unpack(packed, further, &mut low);
            rescale = read_factors(factors).1;
        }
        let step = match self.form {
            Form::Euclidean => -0.5 * rescale,
            Form::InnerProduct => -rescale,
        };
        let middle = f32::from((1_u16 << self.bits) - 1) / 2.0;
        (0..)
            .zip(&low)
            .map(|(at, &low): (usize, &u8)| {
                let sign = signs.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
                step * (f32::from(u16::from(sign) << further | u16::from(low)) - middle)
            })
            .collect()
    }

    fn rescale(&self, square: f32, product: f32) -> f32 {
        if product <= 0.0 {
            return 0.0;
        }
        match self.form {
            Form::Euclidean => -2.0 * square / product,
            Form::InnerProduct => -square / product,
        }
    }

    fn error(&self, square: f32, product: f32, grid_square: f32, dims: f32) -> f32 {
        if product <= 0.0 {
            return 0.0;
        }
        let spread = (square * (grid_square / product) / product - 1.0).max(0.0) / (dims - 1.0);
        let error = (square * spread).sqrt();
        match self.form {
            Form::Euclidean => 2.0 * error,
            Form::InnerProduct => error,
        }
    }
}

/// ⟨y, centre⟩ for the grid vector y of a residual's code; `grid` is memory to write y to.
fn dot_grid(
    level: Level,
    residual: &[f32],
    magnitude: impl Fn(usize) -> f32,
    centre: &[f32],
    grid: &mut [f32],
) -> f32 {
    if centre.is_empty() {
        return 0.0;
    }
    for (index, (y, &x)) in grid.iter_mut().zip(residual).enumerate() {
        // 0 counts as negative, as in the sign bits.
        *y = if x > 0.0 { magnitude(index) } else { -magnitude(index) };
    }
    dot_f32(level, grid, centre)
}

/// Bytes of the further bits of a row with `bits` a dimension in all.
pub(crate) fn extra_bytes(dim: usize, bits: u8) -> usize {
    if bits < 2 { 0 } else { padded_dim(dim) / 8 * usize::from(bits - 1) + EXTRA_FACTORS }
}

/// `f_add` and `f_rescale` of all bits together, f32 each, behind the packed bits.
pub(crate) const EXTRA_FACTORS: usize = 8;

/// The further bits of negative coordinates are complemented, so that sign and magnitude make one unsigned number.
fn write_extra(bits: u8, rotated: &[f32], magnitudes: &mut [u8], add: f32, rescale: f32, extra: &mut [u8]) {
    let mask = ((1_u16 << bits) - 1) as u8;
    for (magnitude, &x) in magnitudes.iter_mut().zip(rotated) {
        // 0 counts as negative, as in the sign bits.
        *magnitude ^= if x > 0.0 { 0 } else { mask };
    }
    if let Some((packed, factors)) = extra.split_last_chunk_mut::<EXTRA_FACTORS>() {
        code::pack(magnitudes, bits, packed);
        *factors = write_factors(add, rescale);
    }
}

fn write_factors(add: f32, rescale: f32) -> [u8; EXTRA_FACTORS] {
    let ([a0, a1, a2, a3], [r0, r1, r2, r3]) = (add.to_le_bytes(), rescale.to_le_bytes());
    [a0, a1, a2, a3, r0, r1, r2, r3]
}

/// `f_add` and `f_rescale` of a row's further bits.
pub(crate) fn read_factors(&[a0, a1, a2, a3, r0, r1, r2, r3]: &[u8; EXTRA_FACTORS]) -> (f32, f32) {
    (f32::from_le_bytes([a0, a1, a2, a3]), f32::from_le_bytes([r0, r1, r2, r3]))
}

/// The largest f16 that is not above `x`.
fn round_down(x: f32) -> f16 {
    let near = f16::from_f32(x);
    if near.to_f32() <= x || near.is_nan() {
        return near;
    }
    // The next f16 below: one less in the bits of a positive number, one more in those of a negative one.
    if near.to_f32() > 0.0 {
        f16::from_bits(near.to_bits() - 1)
    } else if near.to_bits() & 0x7FFF == 0 {
        f16::from_bits(0x8001)
    } else {
        f16::from_bits(near.to_bits() + 1)
    }
}

/// The smallest f16 that is not below `x`.
fn round_up(x: f32) -> f16 {
    -round_down(-x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_says_the_nearer_what_it_was_made_of_the_more_bits_it_has() {
        let mut random = crate::SplitMix64::new(5);
        let mut gaussian =
            || (0..12).map(|_| (random.next_u64() >> 40) as f32 / (1 << 24) as f32).sum::<f32>() - 6.0;
        let level = Level::current();
        for form in [Form::Euclidean, Form::InnerProduct] {
            for dim in [64, 100, 384] {
                let (mean, vector, near): (Vec<f32>, Vec<f32>, Vec<f32>) =
                    (0..dim).map(|_| (gaussian(), gaussian(), gaussian())).collect();
                let mut last = f32::MAX;
                for bits in 1..=MAX_BITS {
                    let quantizer = Quantizer::new(mean.clone(), bits, form, 42, dim as f32);
                    for centre in [Vec::new(), quantizer.centre(level, &near)] {
                        let mut work = quantizer.workspace();
                        let code = quantizer.encode_around(level, &vector, 1.0, &centre, &mut work);
                        let told = quantizer.decode(level, code.signs, code.f_rescale, code.extra, &centre);
                        let off: f32 = told.iter().zip(&vector).map(|(a, b)| (a - b) * (a - b)).sum();
                        let off = (off / (code.square / quantizer.scale().powi(2))).sqrt();
                        // One bit is off by √(π/2 − 1) of the residual.
                        assert!(
                            off < 0.95 * 0.55_f32.powi(i32::from(bits) - 1),
                            "{form:?} {dim} {bits}: {off}"
                        );
                        last = if centre.is_empty() { off.min(last) } else { last };
                    }
                }
                assert!(last < 0.02, "{last}");
            }
        }
    }

    #[test]
    fn rounding_to_f16_never_crosses_the_number() {
        for x in [0.0_f32, 1.0, -1.0, 0.1, -0.1, 1e-9, -1e-9, 3.3e-5, 59_999.0, -59_999.0, 2049.0, -2049.0] {
            assert!(round_down(x).to_f32() <= x && round_up(x).to_f32() >= x, "{x}");
            assert!((round_down(x).to_f32() - x).abs() <= x.abs() / 1024.0 + 6e-8, "{x}");
        }
    }
}
