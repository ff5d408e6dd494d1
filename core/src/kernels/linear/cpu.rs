//! The linear map on the CPU: weights packed once, rows normalised while they are packed, bias,
//! activation and residual added while the sums are still in the cache.

use std::ops::Range;

use rayon::prelude::*;

use super::super::activation::{
    Activation,
    cpu::{Function, with_function},
};
use super::super::cpu::{
    Engine, Format, Isa, Line, MAX_COLS, MAX_DEPTH, MAX_ROWS, NormArgs, Patches, Product, Simd,
    Sink, Values, part, run_product, with_lines,
};

/// Lines of a packed block of rows that stay in the second-level cache beside a panel of weights.
const BLOCK_LINES: usize = 6 * 1024;
/// Tasks for each thread, so that a thread that was held up does not keep the others waiting.
const TASKS_PER_THREAD: usize = 4;

/// A weight matrix `(n, k)` and its bias as the products want them.
pub(crate) struct Packed {
    isa: Isa,
    format: Format,
    n: usize,
    k: usize,
    geometry: Geometry,
    /// Panels of columns, one behind the other.
    lines: Vec<Line>,
    /// Padded to whole panels.
    bias: Vec<f32>,
}

/// The sizes of an engine.
#[derive(Clone, Copy)]
struct Geometry {
    rows: usize,
    cols: usize,
    chunks: usize,
    left_lines: usize,
    right_lines: usize,
}

struct Measure(usize);

impl Product for Measure {
    type Output = Geometry;

    #[inline(always)]
    unsafe fn run<E: Engine>(self) -> Geometry {
        let chunks = self.0.div_ceil(E::DEPTH);
        Geometry {
            rows: E::ROWS,
            cols: E::COLS,
            chunks,
            left_lines: E::left_lines(chunks),
            right_lines: E::right_lines(chunks),
        }
    }
}

impl Packed {
    /// Packs row-major weights of `k` inputs, as many rows as `bias` has values.
    pub(crate) fn new(
        isa: Isa,
        format: Format,
        weight: Values<'_>,
        k: usize,
        bias: &[f32],
    ) -> Self {
        let n = bias.len();
        assert_eq!(weight.len(), n * k, "values of the weights");
        let geometry = run_product(isa, format, Measure(k));
        let mut padded = bias.to_vec();
        padded.resize(n.next_multiple_of(geometry.cols), 0.0);
        let mut lines = vec![Line::ZERO; padded.len() / geometry.cols * geometry.right_lines];
        lines.par_chunks_mut(geometry.right_lines.max(1)).enumerate().for_each(|(panel, lines)| {
            run_product(isa, format, Pack { weight, n, k, panel, lines });
        });
        Self { isa, format, n, k, geometry, lines, bias: padded }
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
    lines: &'a mut [Line],
}

impl Product for Pack<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<E: Engine>(self) {
        let Self { weight, n, k, panel, lines } = self;
        let mut columns = [0f32; MAX_DEPTH * MAX_COLS];
        let mut row = [0f32; MAX_DEPTH];
        for (chunk, lines) in lines.chunks_exact_mut(E::COLS * E::PLANES).enumerate() {
            columns.fill(0.0);
            let start = chunk * E::DEPTH;
            let depth = E::DEPTH.min(k - start);
            for column in 0..E::COLS.min(n - panel * E::COLS) {
                // SAFETY: rows below `n`, values below `k`; `run_product` chose the engine, and a
                // chunk has these many lines.
                unsafe {
                    let at = (panel * E::COLS + column) * k + start;
                    weight.read::<E::S>(at, depth, row.as_mut_ptr());
                }
                for (i, value) in row[..depth].iter().enumerate() {
                    columns[i * E::COLS + column] = *value;
                }
            }
            // SAFETY: as above.
            unsafe { E::put_columns(columns.as_ptr(), lines.as_mut_ptr()) };
        }
    }
}

/// What happens to the result.
#[derive(Clone, Copy)]
pub(crate) enum Combine<'a> {
    /// Nothing.
    Keep,
    /// These values, as many as results, are added.
    Add(Values<'a>),
    /// The result is multiplied with these.
    Multiply(Values<'a>),
}

/// One call: `combine(activation(norm(x) W^T + b))`.
pub(crate) struct Call<'a> {
    pub(crate) x: Values<'a>,
    /// If the rows are patches of pictures.
    pub(crate) patches: Option<Patches>,
    /// Applied to `x`, in groups of the norm's width.
    pub(crate) norm: Option<NormArgs<'a>>,
    pub(crate) weights: &'a Packed,
    pub(crate) rows: usize,
    pub(crate) activation: Activation,
    pub(crate) combine: Combine<'a>,
    /// `rows` times `n` values.
    pub(crate) out: Sink,
}

impl Call<'_> {
    /// Computes the result on all threads. Each row is computed in the same way whatever is beside
    /// it, so it does not depend on how the rows were split.
    pub(crate) fn run(&self) {
        let Packed { isa, format, geometry, .. } = *self.weights;
        let k = self.weights.k;
        assert_eq!(self.out.len(), self.rows * self.weights.n, "room for the result");
        if self.out.len() == 0 {
            return;
        }
        let expected = match &self.patches {
            None => self.rows * k,
            Some(patches) => {
                let (down, across) = patches.grid();
                let size = patches.window.size;
                assert_eq!(k, size.0 * size.1 * patches.channels);
                assert!(self.rows.is_multiple_of(down * across));
                self.rows / (down * across) * patches.height * patches.width * patches.channels
            }
        };
        assert_eq!(self.x.len(), expected, "values of x");
        if let Combine::Add(values) | Combine::Multiply(values) = self.combine {
            assert_eq!(values.len(), self.rows * self.weights.n, "values to combine with");
        }
        if let Some(norm) = &self.norm {
            assert!(k.is_multiple_of(norm.weight.len()) && norm.weight.len() == norm.bias.len());
        }
        let tiles = self.rows.div_ceil(geometry.rows);
        let panels = self.weights.n.div_ceil(geometry.cols);
        let threads = rayon::current_num_threads();
        let wanted = if threads == 1 { 1 } else { threads * TASKS_PER_THREAD };
        let capacity = (BLOCK_LINES / geometry.left_lines.max(1)).max(1);
        let blocks = tiles.div_ceil(capacity);
        if blocks >= wanted || threads == 1 {
            // Enough rows for all threads: each packs what it needs.
            let blocks = blocks.next_multiple_of(threads).min(tiles);
            (0..blocks).into_par_iter().with_max_len(1).for_each(|block| {
                let tiles = part(tiles, blocks, block);
                with_lines(tiles.len() * geometry.left_lines, |left| {
                    let left = left.as_mut_ptr();
                    run_product(isa, format, Left { call: self, tiles: tiles.clone(), left });
                    let right = Right { call: self, tiles, panels: 0..panels, left };
                    run_product(isa, format, right);
                });
            });
            return;
        }
        // Few rows: they are packed first, and the columns are shared as well.
        let mut left = vec![Line::ZERO; tiles * geometry.left_lines];
        let parts = wanted.min(tiles);
        let address = Address(left.as_mut_ptr());
        (0..parts).into_par_iter().with_max_len(1).for_each(|index| {
            let tiles = part(tiles, parts, index);
            // SAFETY: `tiles` lie inside the lines that were just allocated.
            let left = unsafe { address.at(tiles.start * geometry.left_lines) };
            run_product(isa, format, Left { call: self, tiles, left });
        });
        let parts = wanted.div_ceil(blocks).min(panels);
        (0..blocks * parts).into_par_iter().with_max_len(1).for_each(|task| {
            let tiles = part(tiles, blocks, task / parts);
            let panels = part(panels, parts, task % parts);
            // SAFETY: as above.
            let left = unsafe { address.at(tiles.start * geometry.left_lines) };
            run_product(isa, format, Right { call: self, tiles, panels, left });
        });
    }
}

/// Lines that several threads use, each a part of its own while they are written.
#[derive(Clone, Copy)]
struct Address(*mut Line);

// SAFETY: see `Call::run`: tasks write disjoint lines, and read only after all were written.
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

impl Address {
    unsafe fn at(self, lines: usize) -> *mut Line {
        // SAFETY: the caller's promise that the lines exist.
        unsafe { self.0.add(lines) }
    }
}

/// Packs rows.
struct Left<'a> {
    call: &'a Call<'a>,
    tiles: Range<usize>,
    left: *mut Line,
}

thread_local! {
    static ROW: std::cell::RefCell<Vec<f32>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Product for Left<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<E: Engine>(self) {
        let Self { call, tiles, left } = self;
        let k = call.weights.k;
        let chunks = k.div_ceil(E::DEPTH);
        ROW.with_borrow_mut(|row| {
            row.clear();
            row.resize(chunks * E::DEPTH, 0.0);
            let row = row.as_mut_ptr();
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
        });
    }
}

impl Call<'_> {
    /// Reads and normalises a row.
    #[inline(always)]
    unsafe fn read<S: Simd>(&self, index: usize, row: *mut f32) {
        let k = self.weights.k;
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

/// Multiplies packed rows with panels of weights, and finishes the results.
struct Right<'a> {
    call: &'a Call<'a>,
    tiles: Range<usize>,
    panels: Range<usize>,
    left: *const Line,
}

impl Product for Right<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<E: Engine>(self) {
        let Self { call, tiles, panels, left } = self;
        let weights = call.weights;
        let chunks = weights.geometry.chunks;
        let mut sums = Sums([0f32; MAX_ROWS * MAX_COLS]);
        let sums = sums.0.as_mut_ptr();
        // SAFETY: the packed panels have these sizes; results of the tiles' valid rows and the
        // panels' valid columns lie inside `out`, and no other task has them.
        unsafe {
            E::enter();
            for panel in panels {
                let right = weights.lines.as_ptr().add(panel * E::right_lines(chunks));
                for (i, tile) in tiles.clone().enumerate() {
                    E::tile(left.add(i * E::left_lines(chunks)), right, chunks, sums);
                    let rows = E::ROWS.min(call.rows - tile * E::ROWS);
                    let (first, column) = (tile * E::ROWS, panel * E::COLS);
                    with_function!(call.activation, F => call.finish::<E, F>(sums, first, rows, column));
                }
            }
            E::leave();
        }
    }
}

/// Aligned to lines.
#[repr(align(64))]
struct Sums([f32; MAX_ROWS * MAX_COLS]);

impl Call<'_> {
    /// Adds the bias, applies the activation and stores a tile of results.
    #[inline(always)]
    unsafe fn finish<E: Engine, F: Function>(
        &self,
        sums: *const f32,
        first: usize,
        rows: usize,
        column: usize,
    ) {
        let n = self.weights.n;
        let lanes = <E::S as Simd>::LANES;
        // SAFETY: see `Right`.
        unsafe {
            let bias = self.weights.bias.as_ptr().add(column);
            for at in (0..E::COLS.min(n - column)).step_by(lanes) {
                let count = lanes.min(n - column - at);
                let bias = E::S::load(bias.add(at));
                for row in 0..rows {
                    let index = (first + row) * n + column + at;
                    let sum = E::S::load(sums.add(row * E::COLS + at));
                    let mut value = F::of::<E::S>(E::S::add(sum, bias));
                    match self.combine {
                        Combine::Keep => {}
                        Combine::Add(other) => {
                            value = E::S::add(value, load::<E::S>(other, index, count));
                        }
                        Combine::Multiply(other) => {
                            value = E::S::mul(value, load::<E::S>(other, index, count));
                        }
                    }
                    self.out.write::<E::S>(index, value, count);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn load<S: Simd>(values: Values<'_>, start: usize, count: usize) -> S::V {
    // SAFETY: the caller's promise that `count` values are there.
    unsafe {
        match values {
            Values::F32(values) if count >= S::LANES => S::load(values.as_ptr().add(start)),
            Values::F32(values) => S::load_part(values.as_ptr().add(start), count),
            Values::Bf16(values) if count >= S::LANES => S::load_bf16(values.as_ptr().add(start)),
            _ => {
                let mut widened = [0f32; super::super::cpu::MAX_LANES];
                values.read::<S>(start, count.min(S::LANES), widened.as_mut_ptr());
                S::load(widened.as_ptr())
            }
        }
    }
}
