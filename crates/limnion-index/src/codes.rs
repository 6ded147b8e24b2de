//! The codes of all rows: blocks of sign bits for the scan, and beside them the further bits.

use half::f16;
use limnion_rabitq::{Encoded, Quantizer, Workspace};
use limnion_simd::{BlockShape, Level, Line};
use limnion_types::{Job, Result};
use rayon::prelude::*;

use crate::input::Rows;
use crate::storage::Storage;

const ROWS: usize = BlockShape::ROWS;
/// So few blocks are encoded on the calling thread: to wake others takes as long.
const FEW_BLOCKS: usize = 4;
/// How much coarser the unit of length becomes when a row is too long for it.
pub(crate) const HALVINGS: i32 = 4;
/// What a length is multiplied by then.
pub(crate) const COARSER: f32 = 1.0 / 16.0;

/// The codes of all rows.
#[derive(Debug, Clone)]
pub(crate) struct Codes {
    quantizer: Quantizer,
    shape: BlockShape,
    len: usize,
    blocks: Storage<Line>,
    extra: Storage<u8>,
    /// The least and the largest ‖r‖² of any row ever held, in scaled units.
    squares: (f32, f32),
}

impl Codes {
    pub(crate) fn new(quantizer: Quantizer, shape: BlockShape, capacity: usize) -> Self {
        let lines = capacity.div_ceil(ROWS) * shape.block_bytes() / size_of::<Line>();
        let extra = capacity * quantizer.extra_bytes();
        Self {
            quantizer,
            shape,
            len: 0,
            blocks: Storage::with_capacity(lines),
            extra: Storage::with_capacity(extra),
            squares: (f32::MAX, 0.0),
        }
    }

    /// Codes read from a file. Lengths have been checked.
    pub(crate) fn from_parts(
        quantizer: Quantizer,
        shape: BlockShape,
        len: usize,
        blocks: Storage<Line>,
        extra: Storage<u8>,
        squares: (f32, f32),
    ) -> Self {
        Self { quantizer, shape, len, blocks, extra, squares }
    }

    pub(crate) fn quantizer(&self) -> &Quantizer {
        &self.quantizer
    }

    pub(crate) fn shape(&self) -> &BlockShape {
        &self.shape
    }

    pub(crate) fn extra(&self) -> &Storage<u8> {
        &self.extra
    }

    pub(crate) fn set_squares(&mut self, squares: (f32, f32)) {
        self.squares = squares;
    }

    pub(crate) fn squares(&self) -> (f32, f32) {
        self.squares
    }

    pub(crate) fn block_bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.blocks)
    }

    /// How many places there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn block_count(&self) -> usize {
        self.len.div_ceil(ROWS)
    }

    /// The further bits of a row.
    pub(crate) fn extra_row(&self, row: u32) -> &[u8] {
        let stride = self.quantizer.extra_bytes();
        let start = row as usize * stride;
        self.extra.get(start..start + stride).unwrap_or_default()
    }

    /// Copies the sign bits of a row.
    pub(crate) fn read_signs(&self, row: u32, signs: &mut [u8]) {
        let (block, lane) = (row as usize / ROWS, row as usize % ROWS);
        let size = self.shape.block_bytes();
        if let Some(block) = self.block_bytes().get(block * size..(block + 1) * size) {
            self.shape.read_signs(block, lane, signs);
        }
    }

    /// What the code of a row, made around a centre, says of its vector.
    pub(crate) fn decode(&self, place: u32, centre: &[f32]) -> Vec<f32> {
        let mut signs = vec![0; self.shape.code_bytes()];
        self.read_signs(place, &mut signs);
        let (size, block) = (self.shape.block_bytes(), place as usize / ROWS);
        let block = self.block_bytes().get(block * size..(block + 1) * size);
        let [_, rescale, _] =
            block.map_or([f16::ZERO; 3], |block| self.shape.read_factors(block, place as usize % ROWS));
        self.quantizer.decode(Level::current(), &signs, rescale, self.extra_row(place), centre)
    }

    /// Codes of so many empty blocks.
    pub(crate) fn with_blocks(quantizer: Quantizer, shape: BlockShape, blocks: usize) -> Self {
        let mut codes = Self::new(quantizer, shape, blocks * ROWS);
        codes.grow(blocks * ROWS);
        codes
    }

    /// Makes room for rows up to `len`; their places are empty.
    pub(crate) fn grow(&mut self, len: usize) {
        let size = self.shape.block_bytes();
        let old_blocks = self.len.div_ceil(ROWS);
        let blocks = self.blocks.to_mut();
        blocks.resize(len.div_ceil(ROWS) * size / size_of::<Line>(), Line::default());
        for block in bytemuck::cast_slice_mut(blocks).chunks_exact_mut(size).skip(old_blocks) {
            self.shape.empty(block);
        }
        self.extra.to_mut().resize(len * self.quantizer.extra_bytes(), 0);
        self.len = len;
    }

    /// Appends rows, each times its factor (1 / length for cosine). Parallel; all or nothing.
    pub(crate) fn append(&mut self, rows: Rows<'_>, factors: Option<&[f32]>, job: &Job) -> Result<()> {
        let before = self.len;
        self.grow(before + rows.len());
        let appended = Appended { first: before, rows, factors };
        loop {
            match self.write(before / ROWS, &appended, job) {
                Ok(spans) => {
                    let span = spans.into_iter().fold(Span::EMPTY, Span::join);
                    if span.fits || self.is_coarsest() {
                        self.squares =
                            (self.squares.0.min(span.squares.0), self.squares.1.max(span.squares.1));
                        return Ok(());
                    }
                    self.coarsen();
                }
                Err(error) => {
                    self.truncate(before);
                    return Err(error);
                }
            }
        }
    }

    /// Encodes what `feed` has for the blocks from `first_block` on, and tells of each block what was seen. Parallel.
    pub(crate) fn write(&mut self, first_block: usize, feed: &impl Feed, job: &Job) -> Result<Vec<Span>> {
        let Self { quantizer, shape, blocks, extra, .. } = self;
        let (quantizer, shape): (&Quantizer, &BlockShape) = (quantizer, shape);
        let (size, stride) = (shape.block_bytes(), quantizer.extra_bytes());
        let blocks: &mut [u8] = bytemuck::cast_slice_mut(blocks.to_mut());
        let blocks = blocks.get_mut(first_block * size..).unwrap_or_default();
        let extra = extra.to_mut().get_mut(first_block * ROWS * stride..).unwrap_or_default();
        let mut extras = extra.chunks_mut((ROWS * stride).max(1));
        let tasks: Vec<_> = (first_block..)
            .zip(blocks.chunks_exact_mut(size))
            .map(|(number, block)| (number, block, extras.next().unwrap_or_default()))
            .collect();
        let level = Level::current();
        let write_block = |work: &mut Workspace, (number, codes, extra): (usize, &mut [u8], &mut [u8])| {
            job.check()?;
            let mut span = Span::EMPTY;
            let centre = feed.centre(number);
            for lane in 0..ROWS {
                let Some((vector, factor)) = feed.row(number * ROWS + lane) else { continue };
                let code = quantizer.encode_around(level, vector, factor, centre, work);
                shape.write_row(codes, lane, code.signs, code.f_add, code.f_rescale, code.f_error);
                if let Some(place) = extra.get_mut(lane * stride..(lane + 1) * stride) {
                    place.copy_from_slice(code.extra);
                }
                span = span.with(&code);
            }
            Result::Ok(span)
        };
        if tasks.len() <= FEW_BLOCKS {
            let mut work = quantizer.workspace();
            return tasks.into_iter().map(|task| write_block(&mut work, task)).collect();
        }
        tasks.into_par_iter().map_init(|| quantizer.workspace(), write_block).collect()
    }

    /// Encodes one row again.
    pub(crate) fn set(&mut self, row: u32, vector: &[f32], factor: f32, work: &mut Workspace) {
        loop {
            if let Some(square) = self.set_around(row, (vector, factor), &[], work) {
                self.squares = (self.squares.0.min(square), self.squares.1.max(square));
                return;
            }
            self.coarsen();
        }
    }

    /// Encodes one row times its factor around a centre and returns its ‖r‖²; `None` where it needs a coarser unit.
    pub(crate) fn set_around(
        &mut self,
        place: u32,
        (vector, factor): (&[f32], f32),
        centre: &[f32],
        work: &mut Workspace,
    ) -> Option<f32> {
        let coarsest = self.is_coarsest();
        let code = self.quantizer.encode_around(Level::current(), vector, factor, centre, work);
        if !code.fits() && !coarsest {
            return None;
        }
        let (block, lane) = (place as usize / ROWS, place as usize % ROWS);
        let size = self.shape.block_bytes();
        let blocks: &mut [u8] = bytemuck::cast_slice_mut(self.blocks.to_mut());
        if let Some(block) = blocks.get_mut(block * size..(block + 1) * size) {
            self.shape.write_row(block, lane, code.signs, code.f_add, code.f_rescale, code.f_error);
        }
        let start = place as usize * code.extra.len();
        if let Some(entry) = self.extra.to_mut().get_mut(start..start + code.extra.len()) {
            entry.copy_from_slice(code.extra);
        }
        Some(code.square)
    }

    /// Whether no coarser unit would help: vectors that keep the rules never get there, a mean of nonsense in a file does.
    pub(crate) fn is_coarsest(&self) -> bool {
        self.quantizer.scale() < 1e-30
    }

    /// Makes room in f16 for longer rows: every factor is written anew in a coarser unit.
    pub(crate) fn coarsen(&mut self) {
        self.quantizer.halve_scale(HALVINGS);
        let (size, stride, len) = (self.shape.block_bytes(), self.quantizer.extra_bytes(), self.len);
        let mut signs = vec![0; self.shape.code_bytes()];
        let blocks: &mut [u8] = bytemuck::cast_slice_mut(self.blocks.to_mut());
        for (number, block) in blocks.chunks_exact_mut(size).enumerate() {
            for lane in 0..ROWS.min(len.saturating_sub(number * ROWS)) {
                self.shape.read_signs(block, lane, &mut signs);
                let factors = Quantizer::rescaled(self.shape.read_factors(block, lane), HALVINGS);
                self.shape.write_row(block, lane, &signs, factors[0], factors[1], factors[2]);
            }
        }
        if stride > 0 {
            for row in self.extra.to_mut().chunks_exact_mut(stride) {
                Quantizer::rescale_extra(row, HALVINGS);
            }
        }
        self.squares = (self.squares.0 * COARSER * COARSER, self.squares.1 * COARSER * COARSER);
    }

    /// Appends the codes of another, whose quantizer is the same.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        let first = self.len;
        self.grow(first + other.len);
        let (size, mut signs) = (self.shape.block_bytes(), vec![0; self.shape.code_bytes()]);
        let blocks: &mut [u8] = bytemuck::cast_slice_mut(self.blocks.to_mut());
        for row in 0..other.len {
            other.read_signs(row as u32, &mut signs);
            let from = other.block_bytes().get(row / ROWS * size..(row / ROWS + 1) * size);
            let to = (first + row) / ROWS * size;
            if let (Some(from), Some(to)) = (from, blocks.get_mut(to..to + size)) {
                let [add, rescale, error] = self.shape.read_factors(from, row % ROWS);
                self.shape.write_row(to, (first + row) % ROWS, &signs, add, rescale, error);
            }
        }
        let start = first * self.quantizer.extra_bytes();
        if let Some(place) = self.extra.to_mut().get_mut(start..) {
            place.copy_from_slice(&other.extra);
        }
        self.squares = (self.squares.0.min(other.squares.0), self.squares.1.max(other.squares.1));
    }

    /// Removes a row; the last one takes its place.
    pub(crate) fn swap_remove(&mut self, row: u32) {
        let Some(last) = self.len.checked_sub(1) else { return };
        self.copy_row(last as u32, row);
        self.truncate(last);
    }

    /// Copies the code of one row to the place of another.
    pub(crate) fn copy_row(&mut self, from: u32, to: u32) {
        let size = self.shape.block_bytes();
        let mut signs = vec![0; self.shape.code_bytes()];
        self.read_signs(from, &mut signs);
        let (from, to) = (from as usize, to as usize);
        let blocks: &mut [u8] = bytemuck::cast_slice_mut(self.blocks.to_mut());
        let start = from / ROWS * size;
        let Some(factors) = blocks.get(start..start + size).map(|b| self.shape.read_factors(b, from % ROWS))
        else {
            return;
        };
        let start = to / ROWS * size;
        if let Some(block) = blocks.get_mut(start..start + size) {
            self.shape.write_row(block, to % ROWS, &signs, factors[0], factors[1], factors[2]);
        }
        let stride = self.quantizer.extra_bytes();
        self.extra.to_mut().copy_within(from * stride..(from + 1) * stride, to * stride);
    }

    /// Makes a place empty.
    pub(crate) fn clear_row(&mut self, place: u32) {
        let (size, stride) = (self.shape.block_bytes(), self.quantizer.extra_bytes());
        let start = place as usize / ROWS * size;
        let blocks: &mut [u8] = bytemuck::cast_slice_mut(self.blocks.to_mut());
        if let Some(block) = blocks.get_mut(start..start + size) {
            self.shape.clear_row(block, place as usize % ROWS);
        }
        let start = place as usize * stride;
        if let Some(extra) = self.extra.to_mut().get_mut(start..start + stride) {
            extra.fill(0);
        }
    }

    /// Keeps only the blocks of `order`, in that order.
    pub(crate) fn gather(&mut self, order: &[u32]) {
        let (lines, extra) =
            (self.shape.block_bytes() / size_of::<Line>(), ROWS * self.quantizer.extra_bytes());
        let mut blocks = Storage::with_capacity(order.len() * lines);
        let mut extras = Storage::with_capacity(order.len() * extra);
        for &block in order {
            let block = block as usize;
            let run = self.blocks.get(block * lines..(block + 1) * lines).unwrap_or_default();
            blocks.to_mut().extend_from_slice(run);
            let run = self.extra.get(block * extra..(block + 1) * extra).unwrap_or_default();
            extras.to_mut().extend_from_slice(run);
        }
        (self.blocks, self.extra, self.len) = (blocks, extras, order.len() * ROWS);
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        let size = self.shape.block_bytes();
        let stride = self.quantizer.extra_bytes();
        let end = self.len;
        self.len = len;
        self.extra.to_mut().truncate(len * stride);
        let lines = self.blocks.to_mut();
        lines.truncate(len.div_ceil(ROWS) * size / size_of::<Line>());
        if !len.is_multiple_of(ROWS)
            && let Some(block) = bytemuck::cast_slice_mut(lines).chunks_exact_mut(size).last()
        {
            for lane in len % ROWS..ROWS.min(end - len / ROWS * ROWS) {
                self.shape.clear_row(block, lane);
            }
        }
    }

    pub(crate) fn shrink(&mut self) {
        self.blocks.shrink();
        self.extra.shrink();
    }

    pub(crate) fn has_room(&self, rows: usize) -> bool {
        let blocks = (self.len + rows).div_ceil(ROWS) - self.len.div_ceil(ROWS);
        self.blocks.has_room(blocks * self.shape.block_bytes() / size_of::<Line>())
            && self.extra.has_room(rows * self.quantizer.extra_bytes())
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.quantizer.heap_bytes() + self.blocks.heap_bytes() + self.extra.heap_bytes()
    }

    pub(crate) fn verify(&self) -> Result<()> {
        self.blocks.verify("codes")?;
        self.extra.verify("codes")
    }
}

/// The vectors to encode, place by place.
pub(crate) trait Feed: Sync {
    /// The vector that belongs in a place, and its factor; `None` leaves the place as it is.
    fn row(&self, place: usize) -> Option<(&[f32], f32)>;

    /// What the rows of a block are encoded around; empty for nothing but the mean.
    fn centre(&self, block: usize) -> &[f32];
}

/// Rows whose places follow each other.
struct Appended<'a> {
    first: usize,
    rows: Rows<'a>,
    factors: Option<&'a [f32]>,
}

impl Feed for Appended<'_> {
    fn row(&self, place: usize) -> Option<(&[f32], f32)> {
        // Rows before `first` stand already; beyond the last there is nothing.
        let (row, dim) = (place.checked_sub(self.first)?, self.rows.dim());
        let vector = self.rows.values().get(row * dim..(row + 1) * dim)?;
        Some((vector, self.factors.and_then(|factors| factors.get(row)).copied().unwrap_or(1.0)))
    }

    fn centre(&self, _: usize) -> &[f32] {
        &[]
    }
}

/// What a run of rows has been seen to be.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) fits: bool,
    /// The least and the largest ‖r‖², in scaled units.
    pub(crate) squares: (f32, f32),
    pub(crate) rows: u32,
    /// The sum of ‖r‖².
    pub(crate) sum: f32,
}

impl Span {
    pub(crate) const EMPTY: Self = Self { fits: true, squares: (f32::MAX, 0.0), rows: 0, sum: 0.0 };

    fn with(self, code: &Encoded<'_>) -> Self {
        let square = code.square;
        self.join(Self { fits: code.fits(), squares: (square, square), rows: 1, sum: square })
    }

    pub(crate) fn join(self, other: Self) -> Self {
        Self {
            fits: self.fits && other.fits,
            squares: (self.squares.0.min(other.squares.0), self.squares.1.max(other.squares.1)),
            rows: self.rows + other.rows,
            sum: self.sum + other.sum,
        }
    }
}
