//! Multiplying packed rows with packed weights, and what follows while the sums are near.

use std::cell::Cell;
use std::ops::Range;

use super::pack::{Geometry, PART, widen};
use super::{Call, Combine, Layer};
use crate::kernels::activation::cpu::{Function, with_function};
use crate::kernels::cpu::{
    AHEAD, Aligned, Engine, Group, Line, MAX_COLS, MAX_LANES, MAX_ROWS, Product, Simd, Sink,
    Values, part,
};

/// Tiles whose sums are near while a panel's slices go past them: in the second-level cache, and little
/// enough to come back from there in time.
const TILES: usize = 13;
/// Panels of columns whose sums are kept while the depth is gone through in parts.
const GROUP: usize = 12;

thread_local! {
    /// Sums of a block, while the depth is gone through in slices.
    static SUMS: Cell<Vec<Aligned<{ MAX_ROWS * MAX_COLS }>>> = const { Cell::new(Vec::new()) };
    /// A part of a panel that is kept as bfloat16 numbers, as `f32` ones.
    static WIDE: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Multiplies packed rows with panels of weights, and finishes the results.
pub(super) struct Right<'a> {
    pub(super) call: &'a Call<'a>,
    pub(super) layer: Layer<'a>,
    pub(super) tiles: Range<usize>,
    pub(super) panels: Range<usize>,
    /// The packed panels of the tiles.
    pub(super) left: *const Line,
    /// Where the results go as packed panels of the call's second layer, if there is one.
    pub(super) to: Option<*mut Line>,
}

impl Product for Right<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<E: Engine>(self) {
        let Geometry { chunks, is_narrow, .. } = self.layer.weights.geometry;
        let parts = E::left_lines(chunks).div_ceil(PART).max(1);
        // With parts, the sums of a group of panels are kept from one to the next.
        let group = if parts > 1 { GROUP } else { 1 };
        let tiles = self.tiles.len();
        let mut kept = SUMS.take();
        kept.resize(kept.len().max(group * tiles), Aligned([0.0; MAX_ROWS * MAX_COLS]));
        let mut wide = if is_narrow { WIDE.take() } else { Vec::new() };
        // SAFETY: the packed panels have these sizes, and there are sums for each tile and panel of a
        // group; results of the tiles' valid rows and the panels' valid columns lie inside `out`, and
        // no other task has them.
        unsafe {
            E::enter();
            for first in self.panels.clone().step_by(group) {
                for index in 0..parts {
                    for panel in first..self.panels.end.min(first + group) {
                        let sums = kept.as_mut_ptr().add((panel - first) * tiles);
                        let range = part(chunks, parts, index);
                        self.multiply::<E>(panel, range, &mut wide, sums.cast());
                    }
                }
            }
            E::leave();
        }
        if is_narrow {
            WIDE.set(wide);
        }
        SUMS.set(kept);
    }
}

impl Right<'_> {
    /// Adds a range of the depth to the sums of all tiles and a panel: a slice of the panel for one tile
    /// after the other, then the next slice. Finishes the sums that are complete.
    #[inline(always)]
    unsafe fn multiply<E: Engine>(
        &self,
        panel: usize,
        range: Range<usize>,
        wide: &mut Vec<Line>,
        sums: *mut f32,
    ) {
        let weights = self.layer.weights;
        let Geometry { chunks, right_lines, is_narrow, .. } = weights.geometry;
        let slice = E::SLICE.min(chunks).max(1);
        // Sums that are complete at once need one place.
        let apart = if slice < chunks || range.len() < chunks { MAX_ROWS * MAX_COLS } else { 0 };
        let (count, chunk_lines) = (self.tiles.len(), E::left_lines(chunks));
        let runs = count.div_ceil(TILES);
        // SAFETY: see `run`.
        unsafe {
            let mut panel_lines = weights.lines.as_ptr().add(panel * right_lines);
            if is_narrow {
                let lines = E::right_lines(range.len());
                wide.resize(wide.len().max(lines), Line::ZERO);
                let from = panel_lines.add(E::right_lines(range.start) / 2);
                widen::<E::S>(from, &mut wide[..lines]);
                // As if all of the panel were there.
                panel_lines = wide.as_ptr().wrapping_sub(E::right_lines(range.start));
            }
            for tiles in (0..runs).map(|run| part(count, runs, run)) {
                let mut start = range.start;
                loop {
                    let end = range.end.min(start + slice);
                    let right = panel_lines.wrapping_add(E::right_lines(start));
                    for i in tiles.clone() {
                        let left = self.left.add(i * chunk_lines + E::left_lines(start));
                        // The next slice lies behind this one; each tile fetches some of it.
                        let lines = (i - tiles.start) * AHEAD * E::PLANES * slice;
                        let ahead = right.wrapping_add(E::right_lines(slice) + lines);
                        let sums = sums.add(i * apart);
                        E::tile(left, right, end - start, sums, start > 0, ahead);
                        if end == chunks {
                            self.finish::<E>(i, panel, sums);
                        }
                    }
                    start = end;
                    if start >= range.end {
                        break;
                    }
                }
            }
        }
    }

    /// Stores the results of tile `i` and a panel.
    #[inline(always)]
    unsafe fn finish<E: Engine>(&self, i: usize, panel: usize, sums: *mut f32) {
        let call = self.call;
        // SAFETY: see `run`.
        unsafe {
            if let Some(to) = self.to {
                let lines = to.add(i * call.layer.weights.geometry.left_lines);
                with_function!(self.layer.activation, F => self.pack::<E, F>(sums, panel, lines));
                return;
            }
            let (first, column) = ((self.tiles.start + i) * E::ROWS, panel * E::COLS);
            let rows = E::ROWS.min(call.rows - first);
            with_function!(self.layer.activation, F => self.store::<E, F>(sums, first, rows, column));
        }
    }

    /// Adds the bias, applies the activation and packs a tile of results as rows of the next layer.
    #[inline(always)]
    unsafe fn pack<E: Engine, F: Function>(&self, sums: *mut f32, panel: usize, lines: *mut Line) {
        let lanes = <E::S as Simd>::LANES;
        let chunks = self.call.layer.weights.geometry.chunks;
        // SAFETY: the bias is padded to whole panels, and the next layer has a line for each row in each
        // of its chunks. What is there too much, rows or columns, meets weights of zero or is not read.
        unsafe {
            // Pairs of rows of panels, which are pairs of vectors: groups of four.
            for at in (0..E::COLS).step_by(2 * lanes) {
                let bias = self.layer.weights.bias.as_ptr().add(panel * E::COLS + at);
                let bias = [E::S::load(bias), E::S::load(bias.add(lanes))];
                for row in (0..E::ROWS).step_by(2) {
                    let low = sums.add(row * E::COLS + at);
                    let high = low.add(E::COLS);
                    let values = [
                        E::S::add(E::S::load(low), bias[0]),
                        E::S::add(E::S::load(low.add(lanes)), bias[1]),
                        E::S::add(E::S::load(high), bias[0]),
                        E::S::add(E::S::load(high.add(lanes)), bias[1]),
                    ];
                    let values = F::of::<Group<E::S>>(values, E::ROUGH);
                    E::S::store(low, values[0]);
                    E::S::store(low.add(lanes), values[1]);
                    E::S::store(high, values[2]);
                    E::S::store(high.add(lanes), values[3]);
                }
            }
            for at in (0..E::COLS).step_by(E::DEPTH) {
                let chunk = (panel * E::COLS + at) / E::DEPTH;
                if chunk < chunks {
                    let chunk = lines.add(chunk * E::PLANES * E::ROWS);
                    for row in 0..E::ROWS {
                        E::put_row(sums.add(row * E::COLS + at), chunk, row);
                    }
                }
            }
        }
    }

    /// Adds the bias, applies the activation and stores a tile of results.
    #[inline(always)]
    unsafe fn store<E: Engine, F: Function>(
        &self,
        sums: *const f32,
        first: usize,
        rows: usize,
        column: usize,
    ) {
        let weights = self.layer.weights;
        let n = weights.n;
        let lanes = <E::S as Simd>::LANES;
        // SAFETY: see `Right`; the bias is padded to whole panels, which are pairs of vectors.
        unsafe {
            for at in (0..E::COLS.min(n - column)).step_by(2 * lanes) {
                let bias = weights.bias.as_ptr().add(column + at);
                let bias = [E::S::load(bias), E::S::load(bias.add(lanes))];
                let count = (n - column - at).min(2 * lanes);
                for row in 0..rows {
                    let sums = sums.add(row * E::COLS + at);
                    let pair = [
                        F::of::<E::S>(E::S::add(E::S::load(sums), bias[0]), E::ROUGH),
                        F::of::<E::S>(E::S::add(E::S::load(sums.add(lanes)), bias[1]), E::ROUGH),
                    ];
                    let index = (first + row) * n + column + at;
                    put::<E>(self.call.combine, self.call.out, index, pair, count);
                }
            }
        }
    }
}

/// Combines two vectors of results, of which the first `count` values are wanted, and stores them.
///
/// # Safety
/// The values are there, and the place for the results is nobody else's.
#[inline(always)]
pub(super) unsafe fn put<E: Engine>(
    combine: Combine<'_>,
    out: Sink,
    index: usize,
    [first, second]: [<E::S as Simd>::V; 2],
    count: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let pair = match combine {
            Combine::Keep => [first, second],
            Combine::Add(other) => {
                let other = load::<E::S>(other, index, count);
                [E::S::add(first, other[0]), E::S::add(second, other[1])]
            }
            Combine::Multiply(other) => {
                let other = load::<E::S>(other, index, count);
                [E::S::mul(first, other[0]), E::S::mul(second, other[1])]
            }
        };
        out.write_pair::<E::S>(index, pair, count);
    }
}

/// Two vectors of values, of which the first `count` are there.
#[inline(always)]
unsafe fn load<S: Simd>(values: Values<'_>, start: usize, count: usize) -> [S::V; 2] {
    // SAFETY: the caller's promise that `count` values are there.
    unsafe {
        match values {
            Values::F32(values) if count == 2 * S::LANES => {
                let values = values.as_ptr().add(start);
                [S::load(values), S::load(values.add(S::LANES))]
            }
            Values::Bf16(values) if count == 2 * S::LANES => {
                let values = values.as_ptr().add(start);
                [S::load_bf16(values), S::load_bf16(values.add(S::LANES))]
            }
            _ => {
                let mut widened = [0f32; 2 * MAX_LANES];
                values.read::<S>(start, count, widened.as_mut_ptr());
                [S::load(widened.as_ptr()), S::load(widened.as_ptr().add(S::LANES))]
            }
        }
    }
}
