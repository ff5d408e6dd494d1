//! Packing: weights once, at load; rows for every product, normalised on the way.

use std::cell::Cell;
use std::io;
use std::ops::Range;

use rayon::prelude::*;

use super::Call;
use crate::kernels::cpu::{
    Aligned, Engine, Format, Isa, Line, MAX_COLS, MAX_DEPTH, Pages, Product, Simd, Values,
    run_product,
};

/// Lines of a panel of rows that are multiplied in one go: with longer rows, a part of the depth is
/// finished for a whole block first, so that what it reads again stays near.
pub(super) const PART: usize = 1536;

/// With fewer panels of rows for each thread, columns have to be shared between threads as well.
const ROWS_PER_THREAD: usize = 6;

/// A weight matrix `(n, k)` and its bias as the products want them.
pub(crate) struct Packed {
    pub(super) isa: Isa,
    pub(super) format: Format,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) geometry: Geometry,
    /// Panels of columns, one behind the other.
    pub(super) lines: Pages,
    /// Padded to whole panels.
    pub(super) bias: Vec<f32>,
}

/// The sizes of an engine.
#[derive(Clone, Copy)]
pub(super) struct Geometry {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) depth: usize,
    /// Whether values are rounded to bfloat16 as they are packed.
    rounds: bool,
    pub(super) chunks: usize,
    pub(super) left_lines: usize,
    /// Of a panel of columns as it is kept.
    pub(super) right_lines: usize,
    /// Whether lines are rows of `f32` numbers.
    pub(super) is_plain: bool,
    /// Whether weights are kept as bfloat16 numbers, of which products make `f32` ones.
    pub(super) is_narrow: bool,
    /// Panels of rows of a block.
    pub(super) block: usize,
}

struct Measure(usize, Format);

impl Product for Measure {
    type Output = Geometry;

    #[inline(always)]
    unsafe fn run<E: Engine>(self) -> Geometry {
        let Self(k, format) = self;
        let chunks = k.div_ceil(E::DEPTH);
        let is_narrow = E::IS_PLAIN && format == Format::Bf16;
        let part = E::left_lines(chunks).clamp(1, PART);
        Geometry {
            block: E::CACHED / part,
            rows: E::ROWS,
            cols: E::COLS,
            depth: E::DEPTH,
            rounds: E::ROUGH,
            chunks,
            left_lines: E::left_lines(chunks),
            right_lines: E::right_lines(chunks) / if is_narrow { 2 } else { 1 },
            is_plain: E::IS_PLAIN,
            is_narrow,
        }
    }
}

impl Packed {
    /// Packs row-major weights of `k` inputs, as many rows as `bias` has values.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub(crate) fn new(
        isa: Isa,
        format: Format,
        weight: Values<'_>,
        k: usize,
        bias: &[f32],
    ) -> io::Result<Self> {
        let n = bias.len();
        assert_eq!(weight.len(), n * k, "values of the weights");
        let geometry = Self::geometry(isa, format, k);
        let mut padded = bias.to_vec();
        padded.resize(n.next_multiple_of(geometry.cols), 0.0);
        let mut lines = Pages::zeroed(padded.len() / geometry.cols * geometry.right_lines)?;
        lines.par_chunks_mut(geometry.right_lines.max(1)).enumerate().for_each(|(panel, lines)| {
            let is_narrow = geometry.is_narrow;
            run_product(isa, format, Pack { weight, n, k, panel, is_narrow, lines });
        });
        lines.settle();
        Ok(Self { isa, format, n, k, geometry, lines, bias: padded })
    }

    /// The sizes of the engine for rows of `k` values.
    pub(super) fn geometry(isa: Isa, format: Format, k: usize) -> Geometry {
        run_product(isa, format, Measure(k, format))
    }

    /// Lines of the results of a panel of rows, as `f32` numbers.
    pub(super) fn lines_of_results(&self) -> usize {
        (self.geometry.rows * self.n.next_multiple_of(self.geometry.cols)).div_ceil(VALUES)
    }

    /// Bytes that a value takes: some engines widen or split what is stored.
    pub(crate) fn bytes_of_value(isa: Isa, format: Format) -> usize {
        let geometry = Self::geometry(isa, format, MAX_DEPTH);
        geometry.right_lines * size_of::<Line>() / (geometry.cols * MAX_DEPTH)
    }

    /// Whether the results of `first` can be packed at once as rows for `second`, without a difference to
    /// `bf16` or `f32` values between them.
    pub(crate) fn follow(first: &Self, second: &Self, bf16: bool) -> bool {
        let alike = (first.isa, first.format) == (second.isa, second.format);
        let alike = alike && (!bf16 || first.geometry.rounds);
        alike && first.n == second.k && first.geometry.cols.is_multiple_of(first.geometry.depth)
    }

    /// Whether so many rows fill the threads with blocks of rows alone.
    pub(crate) fn are_many(&self, rows: usize) -> bool {
        rows.div_ceil(self.geometry.rows) >= ROWS_PER_THREAD * rayon::current_num_threads()
    }

    /// Outputs.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// Inputs.
    pub(crate) fn k(&self) -> usize {
        self.k
    }
}

/// Packs one panel of weights.
struct Pack<'a> {
    weight: Values<'a>,
    n: usize,
    k: usize,
    panel: usize,
    is_narrow: bool,
    lines: &'a mut [Line],
}

impl Product for Pack<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<E: Engine>(self) {
        let Self { weight, n, k, panel, is_narrow, lines } = self;
        let mut rows = Aligned([0f32; MAX_DEPTH * MAX_COLS]);
        let mut wide = [Line::ZERO; MAX_COLS];
        let lines_of_chunk = E::right_lines(1) / if is_narrow { 2 } else { 1 };
        for (chunk, lines) in lines.chunks_exact_mut(lines_of_chunk).enumerate() {
            rows.0.fill(0.0);
            let start = chunk * E::DEPTH;
            let depth = E::DEPTH.min(k - start);
            // SAFETY: rows below `n`, values below `k`; `run_product` chose the engine, and a chunk
            // has these many lines.
            unsafe {
                for column in 0..E::COLS.min(n - panel * E::COLS) {
                    let at = (panel * E::COLS + column) * k + start;
                    weight.read::<E::S>(at, depth, rows.0.as_mut_ptr().add(column * E::DEPTH));
                }
                if is_narrow {
                    E::put_transposed(rows.0.as_ptr(), E::DEPTH, wide.as_mut_ptr());
                    narrow::<E::S>(&wide[..E::right_lines(1)], lines);
                } else {
                    E::put_transposed(rows.0.as_ptr(), E::DEPTH, lines.as_mut_ptr());
                }
            }
        }
    }
}

/// Values of a line.
const VALUES: usize = size_of::<Line>() / size_of::<f32>();

/// Writes lines of `f32` numbers as bfloat16 ones, of which two lines are one.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
unsafe fn narrow<S: Simd>(wide: &[Line], lines: &mut [Line]) {
    assert!(wide.len() <= 2 * lines.len());
    let (from, to) = (wide.as_ptr().cast::<f32>(), lines.as_mut_ptr().cast::<u16>());
    let mut i = 0;
    while i < wide.len() * VALUES {
        // SAFETY: the lines have these many values, whole vectors of them.
        unsafe { S::store_bf16(to.add(i), S::load(from.add(i))) };
        i += S::LANES;
    }
}

/// The inverse of [`narrow`]: fills `wide`.
///
/// # Safety
/// As for it; half as many lines can be read from `lines` on.
#[inline(always)]
pub(super) unsafe fn widen<S: Simd>(lines: *const Line, wide: &mut [Line]) {
    let (from, to) = (lines.cast::<u16>(), wide.as_mut_ptr().cast::<f32>());
    let mut i = 0;
    while i < wide.len() * VALUES {
        // SAFETY: the caller's promise; lines are whole vectors.
        unsafe { S::store(to.add(i), S::load_bf16(from.add(i))) };
        i += S::LANES;
    }
}

/// Packs rows.
pub(super) struct Left<'a> {
    pub(super) call: &'a Call<'a>,
    pub(super) tiles: Range<usize>,
    /// A panel for each tile.
    pub(super) left: *mut Line,
}

thread_local! {
    /// A row that is read.
    static ROW: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

impl Product for Left<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<E: Engine>(self) {
        let Self { call, tiles, left } = self;
        let k = call.entry().k;
        let chunks = k.div_ceil(E::DEPTH);
        // Taken out, and not borrowed: what is compiled as a closure loses the engine's instructions.
        let mut kept = ROW.take();
        kept.clear();
        kept.resize(chunks * E::DEPTH, 0.0);
        let row = kept.as_mut_ptr();
        for (panel, tile) in tiles.enumerate() {
            // SAFETY: `left` has a panel for each tile; rows past the end are zeros; the row's
            // memory has whole chunks, zeros behind `k`.
            unsafe {
                let panel = left.add(panel * E::left_lines(chunks));
                for i in 0..E::ROWS {
                    let index = tile * E::ROWS + i;
                    if index < call.rows {
                        call.read::<E::S>(index, row);
                    } else {
                        std::ptr::write_bytes(row, 0, k);
                    }
                    for chunk in 0..chunks {
                        let to = panel.add(chunk * E::PLANES * E::ROWS);
                        E::put_row(row.add(chunk * E::DEPTH), to, i);
                    }
                }
            }
        }
        ROW.set(kept);
    }
}

impl Call<'_> {
    /// Reads and normalises a row.
    #[inline(always)]
    unsafe fn read<S: Simd>(&self, index: usize, row: *mut f32) {
        let k = self.entry().k;
        // SAFETY: `run` compared the sizes.
        unsafe {
            match &self.patches {
                None => self.x.read::<S>(index * k, k, row),
                Some(patches) => patches.read::<S>(&self.x, index, row),
            }
            if let Some(norm) = &self.norm {
                let width = norm.weight.len();
                for group in 0..k / width {
                    norm.apply::<S>(row.add(group * width));
                }
            }
        }
    }
}
