//! A query, prepared once for many codes.

use limnion_simd::{Level, Lut, code, dot_f32, l2sq_f32};

use crate::grid::error_share;
use crate::quantizer::{EXTRA_FACTORS, Form, Quantizer, read_factors};

/// Coordinates of the query as integers of this size keep its own rounding far below that of an 8-bit code.
const LARGEST: f32 = 8191.0;

/// A query, rotated and tabulated: [`Query::lut`] for the block scan, integers for the further bits.
#[derive(Debug)]
pub struct Query {
    bits: u8,
    rotated: Vec<f32>,
    standing: Standing,
    lut: Lut,
    /// What the affine form adds to the table's sum: the table's own bias and −½ Σ q.
    bias: f32,
    whole: Option<WholeCode>,
}

/// How a query stands to the codes around one centre: what is the query's in their estimates, beside the table.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    form: Form,
    /// ‖q − c‖ in scaled units.
    length: f32,
    g_add: f32,
}

impl Standing {
    /// The query's summand of the estimates.
    pub fn g_add(&self) -> f32 {
        self.g_add
    }

    /// ‖q − c‖ in scaled units.
    pub fn length(&self) -> f32 {
        self.length
    }

    /// The longest part that the query can have across a row that is at `threshold` or nearer: what a row's `f_error`
    /// is to be multiplied by, beside the sureness.
    ///
    /// For Euclidean distances that part is no longer than what the triangle of centre, query and a row of length
    /// within `lengths` allows; for inner products it is ‖q − c‖. All in scaled units, `threshold` as the estimates are.
    pub fn reach(&self, threshold: f32, lengths: (f32, f32)) -> f32 {
        match self.form {
            Form::InnerProduct => self.length,
            Form::Euclidean => {
                let (q, limit) = (f64::from(self.length), f64::from(threshold));
                let (shortest, longest) = (f64::from(lengths.0), f64::from(lengths.1));
                if q <= 0.0 || longest <= 0.0 || limit >= q * q + longest * longest {
                    return self.length;
                }
                // The projection of q on a row of length n that lies within the threshold is at least w(n), convex in n.
                let n = (q * q - limit).max(0.0).sqrt().clamp(shortest.min(longest), longest);
                let projection = if n > 0.0 { (n * n + q * q - limit) / (2.0 * n) } else { 0.0 };
                (q * q - projection.max(0.0).powi(2)).max(0.0).sqrt() as f32
            }
        }
    }
}

/// What estimates from all bits need: the query as integers.
#[derive(Debug)]
struct WholeCode {
    step: f32,
    values: Vec<i16>,
    sum: i64,
}

impl Query {
    /// Prepares `vector` · `factor` (the factor is 1 / length for cosine, else 1). The vector is finite.
    ///
    /// Cost: one rotation and a table of 4 · D bytes.
    pub fn new(quantizer: &Quantizer, level: Level, vector: &[f32], factor: f32) -> Self {
        let mut centred = vec![0.0; quantizer.dim()];
        let mut rotated = vec![0.0; quantizer.padded_dim()];
        quantizer.rotate(level, vector, factor, &mut centred, &mut rotated);
        let square = dot_f32(level, &rotated, &rotated);
        let g_add = match quantizer.form() {
            Form::Euclidean => square,
            Form::InnerProduct => {
                -dot_f32(level, vector, quantizer.mean()) * factor * quantizer.scale() * quantizer.scale()
            }
        };
        let lut = Lut::new(level, &rotated);
        let bias = lut.bias() - 0.5 * sum(&rotated);
        let whole = (quantizer.bits() > 1).then(|| WholeCode::new(&rotated));
        let standing = Standing { form: quantizer.form(), length: square.sqrt(), g_add };
        Self { bits: quantizer.bits(), rotated, standing, lut, bias, whole }
    }

    /// How the query stands to codes that were made around nothing but the mean.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// How the query stands to codes that were made around `centre`.
    pub fn standing_to(&self, level: Level, centre: &[f32]) -> Standing {
        let square = l2sq_f32(level, &self.rotated, centre);
        let g_add = match self.standing.form {
            Form::Euclidean => square,
            Form::InnerProduct => self.standing.g_add - dot_f32(level, &self.rotated, centre),
        };
        Standing { form: self.standing.form, length: square.sqrt(), g_add }
    }

    /// The table that the block scan looks sums up in.
    pub fn lut(&self) -> &Lut {
        &self.lut
    }

    /// What the scan adds to a table sum times [`Lut::step`].
    pub fn bias(&self) -> f32 {
        self.bias
    }

    /// The error of [`Query::estimate`], per unit of reach.
    pub fn error(&self, sign_error: f32) -> f32 {
        sign_error * error_share(self.bits)
    }

    /// The estimate from all bits of one row, and its error per unit of reach.
    ///
    /// `signs` are the row's sign bits, `extra` its further bits as [`Encoded`] holds them, and `sign_error` the
    /// `f_error` of the sign bits alone.
    ///
    /// [`Encoded`]: crate::Encoded
    pub fn estimate(
        &self,
        level: Level,
        standing: &Standing,
        signs: &[u8],
        extra: &[u8],
        sign_error: f32,
    ) -> (f32, f32) {
        let Some(whole) = &self.whole else { return (f32::INFINITY, 0.0) };
        let Some((packed, factors)) = extra.split_last_chunk::<EXTRA_FACTORS>() else {
            return (f32::INFINITY, 0.0);
        };
        let (f_add, f_rescale) = read_factors(factors);
        let bits = self.bits - 1;
        let of_signs = code::dot_code(level, signs, 1, &whole.values);
        let unsigned = (of_signs << bits) + code::dot_code(level, packed, bits, &whole.values);
        // Twice ⟨y, q⟩ is a whole number: y = x − (2^B − 1)/2.
        let twice = 2 * unsigned - ((1_i64 << self.bits) - 1) * whole.sum;
        let product = twice as f32 * (0.5 * whole.step);
        ((f_add + standing.g_add) + f_rescale * product, self.error(sign_error))
    }
}

impl WholeCode {
    fn new(rotated: &[f32]) -> Self {
        let largest = rotated.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let step = largest / LARGEST;
        let per_step = if step > 0.0 { 1.0 / step } else { 0.0 };
        // Adding and subtracting 1.5 · 2²³ rounds a small number to the nearest whole one, ties to even, without a call.
        const ROUND: f32 = 12_582_912.0;
        let values: Vec<i16> = rotated.iter().map(|x| ((x * per_step + ROUND) - ROUND) as i16).collect();
        let sum = values.iter().map(|&x| i64::from(x)).sum();
        Self { step, values, sum }
    }
}

/// A sum over sixteen lanes, so that its order is fixed.
fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 16];
    for chunk in values.chunks(lanes.len()) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    lanes.iter().sum()
}
