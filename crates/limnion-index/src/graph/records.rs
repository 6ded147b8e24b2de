//! The codes of a graph's vertices, each in a record of its own.

use bytemuck::cast_slice;
use limnion_rabitq::{Quantizer, Workspace};
use limnion_simd::{BlockShape, Level, Line, prefetch};
use limnion_types::{Job, Result};
use rayon::prelude::*;

use crate::codes::{COARSER, HALVINGS};
use crate::kmeans::Points;
use crate::storage::Storage;

/// Rows that one task encodes.
const TASK_ROWS: usize = 512;

/// One record and the further bits of each vertex.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    quantizer: Quantizer,
    shape: BlockShape,
    lines: Storage<Line>,
    extra: Storage<u8>,
    /// The least and the largest ‖r‖² of any row ever held, in scaled units.
    squares: (f32, f32),
}

impl Records {
    pub(crate) fn new(quantizer: Quantizer, shape: BlockShape) -> Self {
        let (lines, extra) = (Storage::new(Vec::new()), Storage::new(Vec::new()));
        Self { quantizer, shape, lines, extra, squares: (f32::MAX, 0.0) }
    }

    /// As a file has them. Lengths have been checked.
    pub(crate) fn from_parts(
        quantizer: Quantizer,
        shape: BlockShape,
        lines: Storage<Line>,
        extra: Storage<u8>,
        squares: (f32, f32),
    ) -> Self {
        Self { quantizer, shape, lines, extra, squares }
    }

    pub(crate) fn quantizer(&self) -> &Quantizer {
        &self.quantizer
    }

    pub(crate) fn shape(&self) -> &BlockShape {
        &self.shape
    }

    pub(crate) fn lines(&self) -> &Storage<Line> {
        &self.lines
    }

    pub(crate) fn extra(&self) -> &Storage<u8> {
        &self.extra
    }

    /// The least and the largest ‖r‖² of any row ever held.
    pub(crate) fn squares(&self) -> (f32, f32) {
        self.squares
    }

    /// How many vertices there are.
    pub(crate) fn len(&self) -> usize {
        self.lines.len() / self.shape.record_lines()
    }

    pub(crate) fn record(&self, slot: u32) -> &[Line] {
        let lines = self.shape.record_lines();
        self.lines.get(slot as usize * lines..(slot as usize + 1) * lines).unwrap_or_default()
    }

    /// The further bits of a vertex.
    pub(crate) fn extra_row(&self, slot: u32) -> &[u8] {
        let stride = self.quantizer.extra_bytes();
        self.extra.get(slot as usize * stride..(slot as usize + 1) * stride).unwrap_or_default()
    }

    /// Has the record of a vertex fetched from memory while other work is done.
    pub(crate) fn fetch(&self, slot: u32) {
        prefetch(cast_slice(self.record(slot)));
    }

    /// Makes room for vertices up to `len`, whose records are empty; or forgets the last.
    pub(crate) fn resize(&mut self, len: usize) {
        let lines = self.shape.record_lines();
        let before = self.lines.len() / lines;
        if self.lines.is_empty() {
            self.lines = Storage::with_capacity(len * lines);
            self.extra = Storage::with_capacity(len * self.quantizer.extra_bytes());
        }
        let records = self.lines.to_mut();
        records.resize(len * lines, Line::default());
        records.chunks_exact_mut(lines).skip(before).for_each(|record| self.shape.empty_record(record));
        self.extra.to_mut().resize(len * self.quantizer.extra_bytes(), 0);
    }

    /// Encodes for each vertex from `first` on the point that `rows` names. Parallel.
    pub(crate) fn write(&mut self, first: usize, points: Points<'_>, rows: &[u32], job: &Job) -> Result<()> {
        loop {
            let seen = self.try_write(first, points, rows, job)?;
            if seen.iter().all(|seen| seen.fits) || self.is_coarsest() {
                for seen in seen {
                    self.note(seen.squares);
                }
                return Ok(());
            }
            self.coarsen();
        }
    }

    fn try_write(&mut self, first: usize, points: Points<'_>, rows: &[u32], job: &Job) -> Result<Vec<Seen>> {
        let Self { quantizer, shape, lines, extra, .. } = self;
        let (quantizer, shape): (&Quantizer, &BlockShape) = (quantizer, shape);
        let (size, stride, level) = (shape.record_lines(), quantizer.extra_bytes(), Level::current());
        let records = lines.to_mut().get_mut(first * size..).unwrap_or_default();
        let extra = extra.to_mut().get_mut(first * stride..).unwrap_or_default();
        let mut extras = extra.chunks_mut((TASK_ROWS * stride).max(1));
        let tasks: Vec<_> = records
            .chunks_mut(TASK_ROWS * size)
            .zip(rows.chunks(TASK_ROWS))
            .map(|(records, rows)| (records, rows, extras.next().unwrap_or_default()))
            .collect();
        let write_rows = |(records, rows, extra): (&mut [Line], &[u32], &mut [u8])| {
            job.check()?;
            let mut work = quantizer.workspace();
            let mut seen = Seen { fits: true, squares: (f32::MAX, 0.0) };
            for (at, (record, &row)) in records.chunks_exact_mut(size).zip(rows).enumerate() {
                let (vector, factor) = points.row(row);
                let code = quantizer.encode(level, vector, factor, &mut work);
                shape.write_record(record, code.signs, [code.f_add, code.f_rescale, code.f_error]);
                if let Some(place) = extra.get_mut(at * stride..(at + 1) * stride) {
                    place.copy_from_slice(code.extra);
                }
                seen.fits &= code.fits();
                seen.squares = (seen.squares.0.min(code.square), seen.squares.1.max(code.square));
            }
            Result::Ok(seen)
        };
        if tasks.len() < 2 {
            return tasks.into_iter().map(write_rows).collect();
        }
        tasks.into_par_iter().map(write_rows).collect()
    }

    /// Encodes one vertex again.
    pub(crate) fn set(&mut self, slot: u32, (vector, factor): (&[f32], f32), work: &mut Workspace) {
        let (size, stride) = (self.shape.record_lines(), self.quantizer.extra_bytes());
        loop {
            let coarsest = self.is_coarsest();
            let code = self.quantizer.encode(Level::current(), vector, factor, work);
            if !code.fits() && !coarsest {
                self.coarsen();
                continue;
            }
            let record = slot as usize * size..(slot as usize + 1) * size;
            if let Some(record) = self.lines.to_mut().get_mut(record) {
                self.shape.write_record(record, code.signs, [code.f_add, code.f_rescale, code.f_error]);
            }
            let place = slot as usize * stride..(slot as usize + 1) * stride;
            if let Some(place) = self.extra.to_mut().get_mut(place) {
                place.copy_from_slice(code.extra);
            }
            let square = code.square;
            return self.note((square, square));
        }
    }

    fn note(&mut self, squares: (f32, f32)) {
        self.squares = (self.squares.0.min(squares.0), self.squares.1.max(squares.1));
    }

    /// Whether no coarser unit would help.
    fn is_coarsest(&self) -> bool {
        self.quantizer.scale() < 1e-30
    }

    /// Makes room in f16 for longer rows: every factor is written anew in a coarser unit.
    fn coarsen(&mut self) {
        self.quantizer.halve_scale(HALVINGS);
        let (shape, stride) = (self.shape, self.quantizer.extra_bytes());
        for record in self.lines.to_mut().chunks_exact_mut(shape.record_lines()) {
            let signs = shape.record_signs(record).to_vec();
            let factors = Quantizer::rescaled(shape.record_factors(record), HALVINGS);
            shape.write_record(record, &signs, factors);
        }
        if stride > 0 {
            let rows = self.extra.to_mut().chunks_exact_mut(stride);
            rows.for_each(|row| Quantizer::rescale_extra(row, HALVINGS));
        }
        let squares = self.squares;
        self.squares = (squares.0 * COARSER * COARSER, squares.1 * COARSER * COARSER);
    }

    /// Keeps only the vertices of `order`, in that order.
    pub(crate) fn gather(&mut self, order: &[u32]) {
        let (size, stride) = (self.shape.record_lines(), self.quantizer.extra_bytes());
        let mut lines = Storage::with_capacity(order.len() * size);
        let mut extra = Storage::with_capacity(order.len() * stride);
        for &slot in order {
            lines.to_mut().extend_from_slice(self.record(slot));
            extra.to_mut().extend_from_slice(self.extra_row(slot));
        }
        (self.lines, self.extra) = (lines, extra);
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.quantizer.heap_bytes() + self.lines.heap_bytes() + self.extra.heap_bytes()
    }

    pub(crate) fn verify(&self) -> Result<()> {
        self.lines.verify("codes")?;
        self.extra.verify("codes")
    }

    /// Writes the records of `slots` into blocks, whose bytes are returned.
    pub(crate) fn gathered<'a>(&self, slots: &[u32], blocks: &'a mut Vec<Line>) -> &'a [u8] {
        let size = self.shape.block_bytes() / size_of::<Line>();
        let lines = slots.len().div_ceil(BlockShape::ROWS) * size;
        if blocks.len() < lines {
            blocks.resize(lines, Line::default());
        }
        let blocks = blocks.get_mut(..lines).unwrap_or_default();
        self.gather_into(slots, blocks);
        cast_slice(blocks)
    }

    /// Writes the records of `slots` into as many blocks as there are.
    pub(crate) fn gather_into(&self, slots: &[u32], blocks: &mut [Line]) {
        limnion_simd::gather(Level::current(), self.shape, &self.lines, slots, blocks);
    }

    /// What the code of a vertex says of its vector.
    pub(crate) fn decode(&self, slot: u32) -> Vec<f32> {
        let record = self.record(slot);
        let [_, rescale, _] = self.shape.record_factors(record);
        let signs = self.shape.record_signs(record);
        self.quantizer.decode(Level::current(), signs, rescale, self.extra_row(slot), &[])
    }

    /// What the code of a vertex says of its vector, rotated and in scaled units.
    pub(crate) fn decode_residual(&self, slot: u32) -> Vec<f32> {
        let record = self.record(slot);
        let [_, rescale, _] = self.shape.record_factors(record);
        self.quantizer.decode_residual(self.shape.record_signs(record), rescale, self.extra_row(slot))
    }
}

/// What a run of rows has been seen to be.
struct Seen {
    fits: bool,
    squares: (f32, f32),
}
