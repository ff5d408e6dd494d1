//! Panels of rows of one head, from queries to results.

use std::f32::consts::LOG2_E;
use std::marker::PhantomData;
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
    /// The scores of a block, as powers of two: a product for each panel of keys behind the other.
    scores: *mut f32,
    /// The result: a product for each panel of its columns behind the other.
    sums: *mut f32,
    /// A row of queries.
    row: *mut f32,
}

impl Scratch {
    /// Lines that it takes.
    pub(super) fn lines<E: Engine>(d: usize) -> usize {
        let chunks = d.div_ceil(E::DEPTH);
        E::Exact::left_lines(chunks)
            + E::left_lines(BLOCK / E::DEPTH)
            + E::ROWS * BLOCK / 16
            + E::ROWS * Self::width(d) / 16
            + Self::width(d) / 16
    }

    /// Values of a row of the result in whole panels.
    fn width(d: usize) -> usize {
        d.next_multiple_of(MAX_COLS)
    }

    unsafe fn new<E: Engine>(d: usize, lines: *mut Line) -> Self {
        // SAFETY: the sizes add up to `lines`.
        unsafe {
            let weights = lines.add(E::Exact::left_lines(d.div_ceil(E::DEPTH)));
            let scores = weights.add(E::left_lines(BLOCK / E::DEPTH));
            let sums = scores.add(E::ROWS * BLOCK / 16);
            let row = sums.add(E::ROWS * Self::width(d) / 16);
            let (scores, sums, row) = (scores.cast(), sums.cast(), row.cast());
            Self { queries: lines, weights, scores, sums, row }
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
        let (lanes, size) = (<E::S as Simd>::LANES, E::ROWS * E::COLS);
        // SAFETY: rows below `n`, keys below `m`, and the sizes of the packed lines.
        unsafe {
            if self.call.exact {
                self.queries::<E::Exact>(first, rows, scratch);
            } else {
                self.queries::<E>(first, rows, scratch);
            }
            let all_chunks = m.div_ceil(E::DEPTH);
            // Keys that the last row of the panel sees, in blocks of nearly equal size.
            let seen = if self.call.causal { m - n + first + rows } else { m };
            let blocks = seen.div_ceil(BLOCK);
            let step = seen.div_ceil(blocks).next_multiple_of(MAX_DEPTH);
            for block in (0..seen).step_by(step) {
                let count = step.min(seen - block);
                if self.call.exact {
                    self.score::<E::Exact>(keys, block..block + count, scratch);
                } else {
                    self.score::<E>(keys, block..block + count, scratch);
                }
                for row in 0..rows {
                    let scores = Scores::<E>::new(scratch.scores.add(row * E::COLS), count);
                    self.add_bias::<E>(first + row, block, &scores);
                    if self.call.causal {
                        let own = (m - n + first + row + 1).saturating_sub(block);
                        scores.mask(own.min(count)..count);
                    }
                    let (largest, total) = (&mut largest[row], &mut total[row]);
                    let factor = scores.soften(scratch.weights, row, largest, total);
                    if block > 0 && factor != 1.0 {
                        let factor = E::S::splat(factor);
                        for panel in 0..d.div_ceil(E::COLS) {
                            for at in (0..E::COLS).step_by(lanes) {
                                let sum = scratch.sums.add(panel * size + row * E::COLS + at);
                                E::S::store(sum, E::S::mul(E::S::load(sum), factor));
                            }
                        }
                    }
                }
                for panel in 0..d.div_ceil(E::COLS) {
                    let value = values
                        .add(panel * E::right_lines(all_chunks))
                        .add(block / E::DEPTH * E::PLANES * E::COLS);
                    let (chunks, sums) = (count.div_ceil(E::DEPTH), scratch.sums.add(panel * size));
                    E::tile(scratch.weights, value, chunks, sums, block > 0, value);
                }
            }
            let tokens = self.call.q.dims[2];
            for (row, total) in total.iter().enumerate().take(rows) {
                let scale = E::S::splat(1.0 / total);
                let token = self.entry() * tokens + self.token(first + row);
                let start = (token * self.sizes.heads + self.head()) * d;
                for at in (0..d).step_by(2 * lanes) {
                    let sums = scratch.sums.add(at / E::COLS * size + row * E::COLS + at % E::COLS);
                    let pair = [0, lanes].map(|half| E::S::mul(E::S::load(sums.add(half)), scale));
                    self.call.out.write_pair::<E::S>(start + at, pair, (d - at).min(2 * lanes));
                }
            }
        }
    }

    /// Multiplies the packed queries with a block of keys.
    #[inline(always)]
    unsafe fn score<E: Engine>(&self, keys: *const Line, block: Range<usize>, scratch: &Scratch) {
        let chunks = self.sizes.d.div_ceil(E::DEPTH);
        for panel in 0..block.len().div_ceil(E::COLS) {
            // SAFETY: a block starts with a panel of keys and lies in them; there are scores for it.
            unsafe {
                let key = keys.add((block.start / E::COLS + panel) * E::right_lines(chunks));
                let scores = scratch.scores.add(panel * E::ROWS * E::COLS);
                E::tile(scratch.queries, key, chunks, scores, false, key);
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
            let scale = E::S::splat(self.call.scale[self.head()] * LOG2_E);
            std::ptr::write_bytes(scratch.row, 0, Scratch::width(d));
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
    unsafe fn add_bias<E: Engine>(&self, i: usize, block: usize, scores: &Scores<E>) {
        let Sizes { n, m, .. } = self.sizes;
        let (count, lanes) = (scores.count, <E::S as Simd>::LANES);
        // SAFETY: `bias` has n x m values for each head, `regions` n for each window.
        unsafe {
            if let Some(bias) = self.call.bias {
                let bias = bias.as_ptr().add((self.head() * n + i) * m + block);
                for at in (0..count).step_by(lanes) {
                    let to = scores.at(at);
                    let v = if count - at >= lanes {
                        E::S::load(bias.add(at))
                    } else {
                        E::S::load_part(bias.add(at), count - at)
                    };
                    E::S::store(to, E::S::mul_add(v, E::S::splat(LOG2_E), E::S::load(to)));
                }
            }
            if let Some(regions) = self.call.regions {
                let regions = regions.as_ptr().add(self.window() * n);
                let own = E::S::splat(*regions.add(i));
                let (limit, masked) =
                    (E::S::splat(0.25), E::S::splat(super::super::MASKED * LOG2_E));
                for at in (0..count).step_by(lanes) {
                    let to = scores.at(at);
                    let left = lanes.min(count - at);
                    let distance = E::S::sub(E::S::load_part(regions.add(block + at), left), own);
                    let score = E::S::load(to);
                    let same = E::S::mul(distance, distance);
                    let apart = E::S::add(score, masked);
                    E::S::store(to, E::S::if_less(same, limit, score, apart));
                }
            }
        }
    }
}

/// The scores of one row and a block of keys, in the products that they come from.
struct Scores<E> {
    first: *mut f32,
    count: usize,
    engine: PhantomData<E>,
}

impl<E: Engine> Scores<E> {
    #[inline(always)]
    fn new(first: *mut f32, count: usize) -> Self {
        Self { first, count, engine: PhantomData }
    }

    /// Where the score of key `i` of the block is; those of a panel are behind each other.
    #[inline(always)]
    unsafe fn at(&self, i: usize) -> *mut f32 {
        // SAFETY: the caller has a key of the block, or one that fills its last panel.
        unsafe { self.first.add(i / E::COLS * E::ROWS * E::COLS + i % E::COLS) }
    }

    /// Takes keys out.
    #[inline(always)]
    unsafe fn mask(&self, keys: Range<usize>) {
        for key in keys {
            // SAFETY: the caller's promise, as for `at`.
            unsafe { *self.at(key) = f32::NEG_INFINITY };
        }
    }

    /// Packs `2^(score - largest)` as a row of weights, zeros up to a whole chunk, and keeps the largest
    /// score and the sum of all blocks. Gives the factor for what was summed with the former largest score.
    #[inline(always)]
    unsafe fn soften(
        &self,
        weights: *mut Line,
        row: usize,
        largest: &mut f32,
        total: &mut f32,
    ) -> f32 {
        let lanes = <E::S as Simd>::LANES;
        // SAFETY: there are scores and room for whole blocks, which have whole panels and chunks.
        unsafe {
            let panels = self.count.next_multiple_of(E::COLS);
            self.mask(self.count..panels);
            let mut high = E::S::splat(*largest);
            for at in (0..panels).step_by(lanes) {
                high = E::S::max(high, E::S::load(self.at(at)));
            }
            let high = E::S::largest(high);
            // Scores of minus infinity alone would give 0/0.
            let base = E::S::splat(if high == f32::NEG_INFINITY { 0.0 } else { high });
            let mut sums = E::S::splat(0.0);
            for start in (0..panels).step_by(E::DEPTH) {
                let mut chunk = Aligned([0f32; MAX_DEPTH]);
                let chunk = chunk.0.as_mut_ptr();
                for at in (0..E::DEPTH).step_by(lanes) {
                    // Where a chunk is longer than a panel, the last one may be half empty.
                    if E::DEPTH <= E::COLS || start + at < panels {
                        let score = E::S::sub(E::S::load(self.at(start + at)), base);
                        let weight = math::exp2::<E::S>(score, E::ROUGH);
                        sums = E::S::add(sums, weight);
                        E::S::store(chunk.add(at), weight);
                    }
                }
                E::put_row(chunk, weights.add(start / E::DEPTH * E::PLANES * E::ROWS), row);
            }
            // The largest lane, of one number in all lanes.
            let factor = match *largest {
                f32::NEG_INFINITY => 0.0,
                same if same == high => 1.0,
                _ => E::S::largest(math::exp2::<E::S>(E::S::splat(*largest - high), false)),
            };
            *total = *total * factor + E::S::sum(sums);
            *largest = high;
            factor
        }
    }
}
