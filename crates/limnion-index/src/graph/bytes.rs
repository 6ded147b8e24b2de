//! Vectors as whole numbers of eight bits, by which a graph is built.
//!
//! Each is rotated and centred as codes are, and divided by a step of its own. Dots of whole numbers are exact, so
//! every machine and any number of threads find the same distances. Under inner product a coordinate is added that brings
//! all vectors to one length: then the nearest by distance are the largest by product, and one kind of graph serves all
//! metrics.

use limnion_rabitq::Quantizer;
use limnion_simd::{Level, dot_f32, dot_i8, dot_i8_each, huge_pages, l2sq_f32, prefetch};
use limnion_types::{Job, Result};
use rayon::prelude::*;

use crate::ivf::is_euclidean;
use crate::kmeans::Points;

const LARGEST: f32 = 127.0;
/// Rows between two looks at the job.
const PIECE_ROWS: usize = 1024;

/// Vectors as bytes, by number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bytes {
    dim: usize,
    values: Vec<i8>,
    scales: Vec<Scale>,
}

/// What distances need of a vector beside its bytes.
#[derive(Debug, Clone, Copy)]
struct Scale {
    step: f32,
    /// The squared length of what the bytes stand for.
    square: f32,
    /// The coordinate that inner products add.
    lift: f32,
}

impl Bytes {
    /// All points, in the units of the quantizer.
    pub(crate) fn of(points: Points<'_>, quantizer: &Quantizer, job: &Job) -> Result<Self> {
        let dim = quantizer.padded_dim();
        let mut values = vec![0; points.len() * dim];
        huge_pages(&values);
        let level = Level::current();
        let mut scales: Vec<Scale> = Vec::with_capacity(points.len());
        let lifted = !is_euclidean(quantizer);
        let parts: Vec<Vec<Scale>> = values
            .par_chunks_mut(PIECE_ROWS * dim)
            .enumerate()
            .map(|(piece, values)| {
                job.check()?;
                let rows = (piece * PIECE_ROWS) as u32..;
                let scale = |(row, place): (u32, &mut [i8])| {
                    let (vector, factor) = points.row(row);
                    let scale = Scale::write(&quantizer.rotated(level, vector, factor), place);
                    let length = if lifted { dot_f32(level, vector, vector) } else { 0.0 };
                    Scale { lift: length * quantizer.scale() * quantizer.scale(), ..scale }
                };
                Ok(rows.zip(values.chunks_exact_mut(dim)).map(scale).collect())
            })
            .collect::<Result<_>>()?;
        parts.into_iter().for_each(|part| scales.extend(part));
        let mut bytes = Self { dim, values, scales };
        bytes.lift();
        Ok(bytes)
    }

    /// Residuals as codes have them, in the units of the quantizer.
    pub(crate) fn of_residuals(quantizer: &Quantizer, residuals: impl Iterator<Item = Vec<f32>>) -> Self {
        let (level, dim) = (Level::current(), quantizer.padded_dim());
        let origin =
            (!is_euclidean(quantizer)).then(|| quantizer.rotated(level, &vec![0.0; quantizer.dim()], 1.0));
        let mut bytes = Self { dim, ..Self::default() };
        for residual in residuals {
            let start = bytes.values.len();
            bytes.values.resize(start + dim, 0);
            let scale = Scale::write(&residual, bytes.values.get_mut(start..).unwrap_or_default());
            let lift = origin.as_deref().map_or(0.0, |origin| l2sq_f32(level, &residual, origin));
            bytes.scales.push(Scale { lift, ..scale });
        }
        bytes.lift();
        bytes
    }

    /// Squared lengths become the coordinates that bring all to the longest.
    fn lift(&mut self) {
        let longest = self.scales.iter().fold(0.0_f32, |longest, scale| longest.max(scale.lift));
        self.scales.iter_mut().for_each(|scale| scale.lift = (longest - scale.lift).max(0.0).sqrt());
    }

    pub(crate) fn len(&self) -> usize {
        self.scales.len()
    }

    /// These, in another order.
    pub(crate) fn gathered(&self, order: &[u32]) -> Self {
        let mut values = vec![0; order.len() * self.dim];
        huge_pages(&values);
        values.par_chunks_mut(self.dim.max(1)).zip(order).for_each(|(place, &from)| {
            place.copy_from_slice(self.row(from));
        });
        let scale = |&from: &u32| self.scales.get(from as usize).copied();
        Self { dim: self.dim, values, scales: order.iter().filter_map(scale).collect() }
    }

    fn row(&self, at: u32) -> &[i8] {
        let start = at as usize * self.dim;
        self.values.get(start..start + self.dim).unwrap_or_default()
    }

    /// The squared distances of one to others, handed on with their places among these; `false` ends it.
    pub(crate) fn distances(&self, a: u32, others: &[u32], mut then: impl FnMut(usize, f32) -> bool) {
        let level = Level::current();
        let (Some(first), mine) = (self.scales.get(a as usize), self.row(a)) else { return };
        let distance = |other: u32, product: i32| {
            let Some(second) = self.scales.get(other as usize) else { return f32::INFINITY };
            let lift = first.lift - second.lift;
            (first.square + second.square) - 2.0 * (first.step * second.step * product as f32) + lift * lift
        };
        let (fours, rest) = others.as_chunks::<4>();
        for (four, others) in fours.iter().enumerate() {
            let products = dot_i8_each(level, mine, others.map(|other| self.row(other)));
            for (at, (&other, product)) in others.iter().zip(products).enumerate() {
                if !then(four * 4 + at, distance(other, product)) {
                    return;
                }
            }
        }
        for (at, &other) in (others.len() - rest.len()..).zip(rest) {
            if !then(at, distance(other, dot_i8(level, mine, self.row(other)))) {
                return;
            }
        }
    }

    /// Has one fetched from memory while other work is done.
    pub(crate) fn fetch(&self, at: u32) {
        prefetch(bytemuck::cast_slice(self.row(at)));
    }
}

impl Scale {
    /// Writes a vector as bytes.
    fn write(vector: &[f32], place: &mut [i8]) -> Self {
        let largest = vector.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let step = largest / LARGEST;
        // Where the numbers are so small that this overflows, they are as good as zero.
        let per_step = if step > 0.0 && (1.0 / step).is_finite() { 1.0 / step } else { 0.0 };
        // Adding and subtracting 1.5 · 2²³ rounds a small number to the nearest whole one, ties to even, without a call.
        const ROUND: f32 = 12_582_912.0;
        let mut square = 0;
        for (place, x) in place.iter_mut().zip(vector) {
            let whole = (((x * per_step + ROUND) - ROUND) as i32).clamp(-127, 127);
            *place = whole as i8;
            square += whole * whole;
        }
        Self { step, square: step * step * square as f32, lift: 0.0 }
    }
}
