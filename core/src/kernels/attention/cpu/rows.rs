//! Panels of rows of one head, from queries to results.

use std::ops::Range;

use super::pack::Head;
use super::{BLOCK, Sizes};
use crate::kernels::cpu::{
    Aligned, Engine, Line, MAX_COLS, MAX_DEPTH, MAX_ROWS, Product, Simd, math,
};

/// What a panel of rows needs beside the packed keys and values.
pub(super) struct Scratch {
    /// The packed queries.
    queries: *mut Line,
    /// The packed weights of a block of keys.
    weights: *mut Line,
    /// `ROWS` rows of `BLOCK` scores.
    scores: *mut f32,
    /// `ROWS` rows of the result, `width` values each.
    sums: *mut f32,
    /// A row of queries.
    row: *mut f32,
    width: usize,
}

impl Scratch {
    /// Lines that it takes.
    pub(super) fn lines<E: Engine>(d: usize) -> usize {
        let chunks = d.div_ceil(E::DEPTH);
        E::left_lines(chunks)
            + E::left_lines(BLOCK / E::DEPTH)
            + E::ROWS * BLOCK / 16
            + (E::ROWS + 1) * (d.next_multiple_of(MAX_COLS) / 16)
    }

    unsafe fn new<E: Engine>(d: usize, lines: *mut Line) -> Self {
        let width = d.next_multiple_of(MAX_COLS);
        // SAFETY: the sizes add up to `lines`.
        unsafe {
            let weights = lines.add(E::left_lines(d.div_ceil(E::DEPTH)));
            let scores = weights.add(E::left_lines(BLOCK / E::DEPTH));
            let sums = scores.add(E::ROWS * BLOCK / 16);
            let row = sums.add(E::ROWS * width / 16);
            let (scores, sums, row) = (scores.cast(), sums.cast(), row.cast());
            Self { queries: lines, weights, scores, sums, row, width }
        }
    }
}

/// Computes panels of rows of a head.
pub(super) struct Rows<'a> {
    pub(super) head: Head<'a>,
    pub(super) packed: &'a [Line],
    pub(super) scratch: &'a mut [Line],
    pub(super) panels: Range<usize>,
}

impl Product for Rows<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<E: Engine>(self) {
        let d = self.head.sizes.d;
        // SAFETY: `Measure` sized the scratch; the packed lines hold all keys and values.
        unsafe {
            let scratch = Scratch::new::<E>(d, self.scratch.as_mut_ptr());
            let (keys, values) = self.packed.split_at(self.head.sizes.keys);
            E::enter();
            for panel in self.panels {
                self.head.panel::<E>(panel * E::ROWS, keys.as_ptr(), values.as_ptr(), &scratch);
            }
            E::leave();
        }
    }
}

impl Head<'_> {
    /// Computes `ROWS` rows from `first` on.
    #[inline(always)]
    unsafe fn panel<E: Engine>(
        &self,
        first: usize,
        keys: *const Line,
        values: *const Line,
        scratch: &Scratch,
    ) {
        let Sizes { n, m, d, .. } = self.sizes;
        let rows = E::ROWS.min(n - first);
        let mut largest = [f32::NEG_INFINITY; MAX_ROWS];
        let mut total = [0f32; MAX_ROWS];
        let mut tile = Aligned([0f32; MAX_ROWS * MAX_COLS]);
        let tile = tile.0.as_mut_ptr();
        let lanes = <E::S as Simd>::LANES;
        // SAFETY: rows below `n`, keys below `m`, and the sizes of the packed lines.
        unsafe {
            self.queries::<E>(first, rows, scratch);
            for i in 0..E::ROWS * scratch.width {
                *scratch.sums.add(i) = 0.0;
            }
            let depth_chunks = d.div_ceil(E::DEPTH);
            let all_chunks = m.div_ceil(E::DEPTH);
            // Keys that the last row of the panel sees.
            let seen = if self.call.causal { m - n + first + rows } else { m };
            for block in (0..seen).step_by(BLOCK) {
                let count = BLOCK.min(seen - block);
                for panel in 0..count.div_ceil(E::COLS) {
                    let key = keys.add((block / E::COLS + panel) * E::right_lines(depth_chunks));
                    E::tile(scratch.queries, key, depth_chunks, tile);
                    for row in 0..rows {
                        for at in (0..E::COLS).step_by(lanes) {
                            let v = E::S::load(tile.add(row * E::COLS + at));
                            E::S::store(scratch.scores.add(row * BLOCK + panel * E::COLS + at), v);
                        }
                    }
                }
                for row in 0..rows {
                    let scores = scratch.scores.add(row * BLOCK);
                    self.add_bias::<E::S>(first + row, block, count, scores);
                    if self.call.causal {
                        let own = (m - n + first + row + 1).saturating_sub(block);
                        for key in own.min(count)..count {
                            *scores.add(key) = f32::NEG_INFINITY;
                        }
                    }
                    let factor = soften::<E::S>(scores, count, &mut largest[row], &mut total[row]);
                    let sums = scratch.sums.add(row * scratch.width);
                    if block > 0 {
                        let factor = E::S::splat(factor);
                        for at in (0..d).step_by(lanes) {
                            let sum = sums.add(at);
                            E::S::store(sum, E::S::mul(E::S::load(sum), factor));
                        }
                    }
                    for chunk in 0..count.div_ceil(E::DEPTH) {
                        let to = scratch.weights.add(chunk * E::PLANES * E::ROWS);
                        E::put_row(scores.add(chunk * E::DEPTH), to, row);
                    }
                }
                for panel in 0..d.div_ceil(E::COLS) {
                    let value = values
                        .add(panel * E::right_lines(all_chunks))
                        .add(block / E::DEPTH * E::PLANES * E::COLS);
                    E::tile(scratch.weights, value, count.div_ceil(E::DEPTH), tile);
                    for row in 0..rows {
                        for at in (0..E::COLS).step_by(lanes) {
                            let sum = scratch.sums.add(row * scratch.width + panel * E::COLS + at);
                            let v = E::S::load(tile.add(row * E::COLS + at));
                            E::S::store(sum, E::S::add(E::S::load(sum), v));
                        }
                    }
                }
            }
            let tokens = self.call.q.dims[2];
            for (row, total) in total.iter().enumerate().take(rows) {
                let scale = E::S::splat(1.0 / total);
                let token = self.entry() * tokens + self.token(first + row);
                let start = (token * self.sizes.heads + self.head()) * d;
                for at in (0..d).step_by(lanes) {
                    let v = E::S::load(scratch.sums.add(row * scratch.width + at));
                    self.call.out.write::<E::S>(start + at, E::S::mul(v, scale), lanes.min(d - at));
                }
            }
        }
    }

    /// Packs `rows` queries from `first` on.
    #[inline(always)]
    unsafe fn queries<E: Engine>(&self, first: usize, rows: usize, scratch: &Scratch) {
        let d = self.sizes.d;
        let chunks = d.div_ceil(E::DEPTH);
        let lanes = <E::S as Simd>::LANES;
        let norm = self.call.norms.map(|norms| norms.0);
        // SAFETY: rows below `n`; the row has room for `width` values.
        unsafe {
            let scale = E::S::splat(self.call.scale[self.head()]);
            for i in 0..scratch.width {
                *scratch.row.add(i) = 0.0;
            }
            for row in 0..E::ROWS {
                if row < rows {
                    self.read::<E::S>(&self.call.q, norm, first + row, scratch.row);
                }
                for at in (0..d).step_by(lanes) {
                    let to = scratch.row.add(at);
                    E::S::store(to, E::S::mul(E::S::load(to), scale));
                }
                for chunk in 0..chunks {
                    let to = scratch.queries.add(chunk * E::PLANES * E::ROWS);
                    E::put_row(scratch.row.add(chunk * E::DEPTH), to, row);
                }
            }
        }
    }

    /// Adds the bias, and separates regions.
    #[inline(always)]
    unsafe fn add_bias<S: Simd>(&self, i: usize, block: usize, count: usize, scores: *mut f32) {
        let Sizes { n, m, .. } = self.sizes;
        // SAFETY: `bias` has n x m values for each head, `regions` n for each window.
        unsafe {
            if let Some(bias) = self.call.bias {
                let bias = bias.as_ptr().add((self.head() * n + i) * m + block);
                for at in (0..count).step_by(S::LANES) {
                    let to = scores.add(at);
                    let v = if count - at >= S::LANES {
                        S::load(bias.add(at))
                    } else {
                        S::load_part(bias.add(at), count - at)
                    };
                    S::store(to, S::add(S::load(to), v));
                }
            }
            if let Some(regions) = self.call.regions {
                let regions = regions.as_ptr().add(self.window() * n);
                let own = S::splat(*regions.add(i));
                let (limit, masked) = (S::splat(0.25), S::splat(super::super::MASKED));
                for at in (0..count).step_by(S::LANES) {
                    let to = scores.add(at);
                    let left = S::LANES.min(count - at);
                    let distance = S::sub(S::load_part(regions.add(block + at), left), own);
                    let score = S::load(to);
                    let same = S::mul(distance, distance);
                    S::store(to, S::if_less(same, limit, score, S::add(score, masked)));
                }
            }
        }
    }
}

/// Turns `count` scores into `e^(score - largest)`, zeros behind them, and keeps the largest score
/// and the sum of all blocks. Gives the factor for what was summed with the former largest score.
#[inline(always)]
unsafe fn soften<S: Simd>(
    scores: *mut f32,
    count: usize,
    largest: &mut f32,
    total: &mut f32,
) -> f32 {
    // SAFETY: the caller has BLOCK scores, and lanes divide BLOCK.
    unsafe {
        for i in count..count.next_multiple_of(MAX_DEPTH) {
            *scores.add(i) = f32::NEG_INFINITY;
        }
        let mut high = S::splat(*largest);
        for at in (0..count).step_by(S::LANES) {
            high = S::max(high, S::load(scores.add(at)));
        }
        let high = S::largest(high);
        // Scores of minus infinity alone would give 0/0.
        let base = S::splat(if high == f32::NEG_INFINITY { 0.0 } else { high });
        let mut sums = S::splat(0.0);
        for at in (0..count.next_multiple_of(MAX_DEPTH)).step_by(S::LANES) {
            let weight = math::exp::<S>(S::sub(S::load(scores.add(at)), base));
            sums = S::add(sums, weight);
            S::store(scores.add(at), weight);
        }
        // The largest lane, of one number in all lanes.
        let factor = match *largest {
            f32::NEG_INFINITY => 0.0,
            _ => S::largest(math::exp::<S>(S::splat(*largest - high))),
        };
        *total = *total * factor + S::sum(sums);
        *largest = high;
        factor
    }
}
