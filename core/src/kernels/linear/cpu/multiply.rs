//! Multiplying packed rows with packed weights, and what follows while the sums are near.

use std::cell::Cell;
use std::ops::Range;

use super::pack::SLICE;
use super::{Call, Combine};
use crate::kernels::activation::cpu::{Function, with_function};
use crate::kernels::cpu::{
    Aligned, Engine, Line, MAX_COLS, MAX_LANES, MAX_ROWS, Product, Simd, Values, part,
};

/// Panels of columns whose sums are kept while the depth is gone through in parts.
const GROUP: usize = 8;

thread_local! {
    /// Sums of a block, while the depth is gone through in parts.
    static SUMS: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Multiplies packed rows with panels of weights, and finishes the results.
pub(super) struct Right<'a> {
    pub(super) call: &'a Call<'a>,
    pub(super) tiles: Range<usize>,
    pub(super) panels: Range<usize>,
    /// The packed panels of the tiles.
    pub(super) left: *const Line,
}

impl Product for Right<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<E: Engine>(self) {
        let chunks = self.call.weights.geometry.chunks;
        let slices = E::left_lines(chunks).div_ceil(SLICE);
        // SAFETY: the packed panels have these sizes; results of the tiles' valid rows and the
        // panels' valid columns lie inside `out`, and no other task has them.
        unsafe {
            E::enter();
            if slices > 1 {
                self.in_slices::<E>(slices);
            } else {
                self.at_once::<E>();
            }
            E::leave();
        }
    }
}

impl Right<'_> {
    /// The whole depth for one tile after the other.
    #[inline(always)]
    unsafe fn at_once<E: Engine>(&self) {
        let mut sums = Aligned([0f32; MAX_ROWS * MAX_COLS]);
        let sums = sums.0.as_mut_ptr();
        let chunks = self.call.weights.geometry.chunks;
        for panel in self.panels.clone() {
            for i in 0..self.tiles.len() {
                // SAFETY: see `run`.
                unsafe {
                    self.multiply::<E>(i, panel, 0..chunks, sums);
                    self.finish::<E>(i, panel, sums);
                }
            }
        }
    }

    /// A part of the depth for all tiles, then the next part.
    #[inline(always)]
    unsafe fn in_slices<E: Engine>(&self, slices: usize) {
        let chunks = self.call.weights.geometry.chunks;
        let size = E::ROWS * E::COLS;
        let mut tile = Aligned([0f32; MAX_ROWS * MAX_COLS]);
        let tile = tile.0.as_mut_ptr();
        let mut kept = SUMS.take();
        kept.resize(kept.len().max(self.tiles.len() * GROUP * size), 0.0);
        for first in self.panels.clone().step_by(GROUP) {
            let panels = first..self.panels.end.min(first + GROUP);
            for slice in 0..slices {
                for panel in panels.clone() {
                    for i in 0..self.tiles.len() {
                        let at = ((panel - first) * self.tiles.len() + i) * size;
                        // SAFETY: see `run`; `kept` has a tile for each panel of the group.
                        unsafe {
                            let sums = kept.as_mut_ptr().add(at);
                            let range = part(chunks, slices, slice);
                            if slice == 0 {
                                self.multiply::<E>(i, panel, range, sums);
                                continue;
                            }
                            self.multiply::<E>(i, panel, range, tile);
                            for at in (0..size).step_by(<E::S as Simd>::LANES) {
                                let sum = E::S::load(sums.add(at));
                                let sum = E::S::add(sum, E::S::load(tile.add(at)));
                                E::S::store(sums.add(at), sum);
                            }
                            if slice + 1 == slices {
                                self.finish::<E>(i, panel, sums);
                            }
                        }
                    }
                }
            }
        }
        SUMS.set(kept);
    }

    /// The product of a range of the depth of tile `i` and a panel.
    #[inline(always)]
    unsafe fn multiply<E: Engine>(
        &self,
        i: usize,
        panel: usize,
        range: Range<usize>,
        sums: *mut f32,
    ) {
        let weights = self.call.weights;
        let chunks = weights.geometry.chunks;
        // SAFETY: see `run`.
        unsafe {
            let left = self.left.add(i * E::left_lines(chunks) + E::left_lines(range.start));
            let right = weights.lines.as_ptr().add(panel * E::right_lines(chunks));
            let right = right.add(E::right_lines(range.start));
            E::tile(left, right, range.len(), sums);
        }
    }

    /// Stores the results of tile `i` and a panel.
    #[inline(always)]
    unsafe fn finish<E: Engine>(&self, i: usize, panel: usize, sums: *const f32) {
        let call = self.call;
        let (first, column) = ((self.tiles.start + i) * E::ROWS, panel * E::COLS);
        let rows = E::ROWS.min(call.rows - first);
        // SAFETY: see `run`.
        unsafe {
            with_function!(call.activation, F => call.finish::<E, F>(sums, first, rows, column));
        }
    }
}

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
                let mut widened = [0f32; MAX_LANES];
                values.read::<S>(start, count.min(S::LANES), widened.as_mut_ptr());
                S::load(widened.as_ptr())
            }
        }
    }
}
