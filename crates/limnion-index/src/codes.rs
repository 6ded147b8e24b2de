//! The codes of all rows: blocks of sign bits for the scan, and beside them the further bits.

use limnion_rabitq::{Encoded, Quantizer, Workspace};
use limnion_simd::{BlockShape, Level, Line};
use limnion_types::{Job, Result};
use rayon::prelude::*;

use crate::input::Rows;
use crate::storage::Storage;

const ROWS: usize = BlockShape::ROWS;
/// So few blocks are encoded on the calling thread: to wake others takes as long.
const FEW_BLOCKS: usize = 4;

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

    /// Appends rows, each times its factor (1 / length for cosine). Parallel; all or nothing.
    pub(crate) fn append(&mut self, rows: Rows<'_>, factors: Option<&[f32]>, job: &Job) -> Result<()> {
        let before = self.len;
        let (blocks, extra) = (self.blocks.to_mut(), self.extra.to_mut());
        let size = self.shape.block_bytes();
        let old_blocks = before.div_ceil(ROWS);
        let new_blocks = (before + rows.len()).div_ceil(ROWS);
        blocks.resize(new_blocks * size / size_of::<Line>(), Line::default());
        for block in bytemuck::cast_slice_mut(blocks).chunks_exact_mut(size).skip(old_blocks) {
            self.shape.empty(block);
        }
        extra.resize((before + rows.len()) * self.quantizer.extra_bytes(), 0);
        self.len += rows.len();
        loop {
            match self.write_rows(before, rows, factors, job) {
                Ok(Span { fits: true, squares }) => {
                    self.squares = (self.squares.0.min(squares.0), self.squares.1.max(squares.1));
                    return Ok(());
                }
                Ok(_) => self.coarsen(),
                Err(error) => {
                    self.truncate(before);
                    return Err(error);
                }
            }
        }
    }

    fn write_rows(
        &mut self,
        first: usize,
        rows: Rows<'_>,
        factors: Option<&[f32]>,
        job: &Job,
    ) -> Result<Span> {
        let Self { quantizer, shape, blocks, extra, .. } = self;
        let (quantizer, shape): (&Quantizer, &BlockShape) = (quantizer, shape);
        let (size, stride) = (shape.block_bytes(), quantizer.extra_bytes());
        let first_block = first / ROWS;
        let blocks: &mut [u8] = bytemuck::cast_slice_mut(blocks.to_mut());
        let blocks = blocks.get_mut(first_block * size..).unwrap_or_default();
        let extra = extra.to_mut().get_mut(first_block * ROWS * stride..).unwrap_or_default();
        let mut extras = extra.chunks_mut((ROWS * stride).max(1));
        let tasks: Vec<_> =
            blocks.chunks_exact_mut(size).map(|b| (b, extras.next().unwrap_or_default())).collect();
        let level = Level::current();
        let dim = rows.dim();
        let write_block = |work: &mut Workspace, block: usize, codes: &mut [u8], extra: &mut [u8]| {
            job.check()?;
            let mut span = Span::EMPTY;
            let block_start = (first_block + block) * ROWS;
            for lane in 0..ROWS {
                // Rows before `first` stand already; beyond the last there is nothing.
                let Some(row) = (block_start + lane).checked_sub(first) else { continue };
                let Some(vector) = rows.values().get(row * dim..(row + 1) * dim) else { break };
                let factor = factors.and_then(|f| f.get(row)).copied().unwrap_or(1.0);
                let code = quantizer.encode(level, vector, factor, work);
                shape.write_row(codes, lane, code.signs, code.f_add, code.f_rescale, code.f_error);
                if let Some(place) = extra.get_mut(lane * stride..(lane + 1) * stride) {
                    place.copy_from_slice(code.extra);
                }
                span = span.with(&code);
            }
            Result::Ok(span)
        };
        let mut tasks = tasks.into_iter().enumerate();
        if tasks.len() <= FEW_BLOCKS {
            let mut work = quantizer.workspace();
            return tasks.try_fold(Span::EMPTY, |span, (block, (codes, extra))| {
                Ok(span.join(write_block(&mut work, block, codes, extra)?))
            });
        }
        tasks
            .collect::<Vec<_>>()
            .into_par_iter()
            .map_init(
                || quantizer.workspace(),
                |work, (block, (codes, extra))| write_block(work, block, codes, extra),
            )
            .try_reduce(|| Span::EMPTY, |a, b| Ok(a.join(b)))
    }

    /// Encodes one row again.
    pub(crate) fn set(&mut self, row: u32, vector: &[f32], factor: f32, work: &mut Workspace) {
        loop {
            let code = self.quantizer.encode(Level::current(), vector, factor, work);
            if code.fits() {
                self.squares = (self.squares.0.min(code.square), self.squares.1.max(code.square));
                let (block, lane) = (row as usize / ROWS, row as usize % ROWS);
                let size = self.shape.block_bytes();
                let blocks: &mut [u8] = bytemuck::cast_slice_mut(self.blocks.to_mut());
                if let Some(block) = blocks.get_mut(block * size..(block + 1) * size) {
                    self.shape.write_row(block, lane, code.signs, code.f_add, code.f_rescale, code.f_error);
                }
                let start = row as usize * code.extra.len();
                if let Some(place) = self.extra.to_mut().get_mut(start..start + code.extra.len()) {
                    place.copy_from_slice(code.extra);
                }
                return;
            }
            self.coarsen();
        }
    }

    /// Makes room in f16 for longer rows: every factor is written anew in a coarser unit.
    fn coarsen(&mut self) {
        const HALVINGS: i32 = 4;
        const LENGTH: f32 = 1.0 / 16.0;
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
        self.squares = (self.squares.0 * LENGTH * LENGTH, self.squares.1 * LENGTH * LENGTH);
    }

    /// Removes a row; the last one takes its place.
    pub(crate) fn swap_remove(&mut self, row: u32) {
        let Some(last) = self.len.checked_sub(1) else { return };
        let size = self.shape.block_bytes();
        let mut signs = vec![0; self.shape.code_bytes()];
        self.read_signs(last as u32, &mut signs);
        let blocks: &mut [u8] = bytemuck::cast_slice_mut(self.blocks.to_mut());
        let start = last / ROWS * size;
        let Some(factors) = blocks.get(start..start + size).map(|b| self.shape.read_factors(b, last % ROWS))
        else {
            return;
        };
        let start = row as usize / ROWS * size;
        if let Some(block) = blocks.get_mut(start..start + size) {
            let lane = row as usize % ROWS;
            self.shape.write_row(block, lane, &signs, factors[0], factors[1], factors[2]);
        }
        let stride = self.quantizer.extra_bytes();
        self.extra.to_mut().copy_within(last * stride..(last + 1) * stride, row as usize * stride);
        self.truncate(last);
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

/// What a run of rows has been seen to be.
#[derive(Clone, Copy)]
struct Span {
    fits: bool,
    squares: (f32, f32),
}

impl Span {
    const EMPTY: Self = Self { fits: true, squares: (f32::MAX, 0.0) };

    fn with(self, code: &Encoded<'_>) -> Self {
        self.join(Self { fits: code.fits(), squares: (code.square, code.square) })
    }

    fn join(self, other: Self) -> Self {
        Self {
            fits: self.fits && other.fits,
            squares: (self.squares.0.min(other.squares.0), self.squares.1.max(other.squares.1)),
        }
    }
}
