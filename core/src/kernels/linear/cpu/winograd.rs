//! Convolutions of three by three pixels with fewer products: F(2 x 2, 3 x 3) of Winograd (Lavin and Gray, arXiv
//! 1509.09308).
//!
//! A tile of 2 x 2 results sees 4 x 4 pixels. Both the pixels and the weights become 16 numbers, each a sum of a few, whose
//! products are summed over the channels: 16 products in place of 36. Each of the 16 is a product of packed matrices, tiles by
//! channels and channels by results. Sums lose a little more than those of plain products: a few units of the last place.

use std::io;
use std::ops::Range;

use rayon::prelude::*;

use super::Combine;
use super::multiply::put;
use super::pack::Packed;
use crate::kernels::activation::Activation;
use crate::kernels::activation::cpu::{Function, with_function};
use crate::kernels::cpu::{
    Engine, Format, Isa, Line, Product, Simd, Sink, Values, part, run_product, with_lines,
};

/// Numbers that pixels and weights of a tile become.
const NUMBERS: usize = 16;
/// Panels of rows, of a tile each, that a task takes.
const PANELS: usize = 8;
/// With fewer channels on either side, what is done around the products costs more than it saves.
const LEAST: usize = 32;
/// Rows of weights become four numbers: these times their three values.
const WEIGHTS: [[f32; 3]; 4] =
    [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

/// Weights `(n, c, 3, 3)` of a convolution that keeps the picture's size, in the form of the products.
pub(crate) struct Winograd {
    /// Results of each of the numbers, one behind the other, by channels.
    packed: Packed,
    bias: Vec<f32>,
    c: usize,
}

impl Winograd {
    /// Whether weights of `f32` numbers are multiplied so.
    pub(crate) fn takes(isa: Isa, n: usize, c: usize) -> bool {
        let geometry = Packed::geometry(isa, Format::F32, c);
        let is_whole = n.is_multiple_of(geometry.cols) && c.is_multiple_of(geometry.depth);
        geometry.is_plain && is_whole && n >= LEAST && c >= LEAST
    }

    /// Of values `(n, c, 3, 3)`, where `n` is the length of `bias`; [`takes`](Self::takes) says whether it can be.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub(crate) fn new(isa: Isa, weight: &[f32], c: usize, bias: &[f32]) -> io::Result<Self> {
        let n = bias.len();
        assert!(Self::takes(isa, n, c) && weight.len() == n * c * 9, "values of the weights");
        let mut values = vec![0f32; NUMBERS * n * c];
        values.par_chunks_mut(n * c).enumerate().for_each(|(number, values)| {
            let (down, across) = (WEIGHTS[number / 4], WEIGHTS[number % 4]);
            for (value, window) in values.iter_mut().zip(weight.as_chunks::<9>().0) {
                *value = (0..9).map(|i| down[i / 3] * across[i % 3] * window[i]).sum();
            }
        });
        let none = vec![0f32; NUMBERS * n];
        let packed = Packed::new(isa, Format::F32, Values::F32(&values), c, &none)?;
        Ok(Self { packed, bias: bias.to_vec(), c })
    }

    /// Channels of results.
    pub(crate) fn n(&self) -> usize {
        self.bias.len()
    }

    /// Channels of pixels.
    pub(crate) fn c(&self) -> usize {
        self.c
    }
}

/// One convolution of pictures `(batch, height, width, c)`.
pub(crate) struct Convolution<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) weights: &'a Winograd,
    pub(crate) batch: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) activation: Activation,
    pub(crate) combine: Combine<'a>,
    /// `(batch, height, width, n)`.
    pub(crate) out: Sink,
}

impl Convolution<'_> {
    /// Computes the result on all threads. Each tile is computed in the same way whatever is beside it.
    pub(crate) fn run(&self) {
        let Winograd { packed, c, .. } = self.weights;
        let pixels = self.batch * self.height * self.width;
        assert_eq!(self.x.len(), pixels * c, "values of x");
        assert_eq!(self.out.len(), pixels * self.weights.n(), "room for the result");
        if let Combine::Add(values) | Combine::Multiply(values) = self.combine {
            assert_eq!(values.len(), self.out.len(), "values to combine with");
        }
        let (down, across) = self.grid();
        let panels = (self.batch * down * across).div_ceil(packed.geometry.rows);
        let tasks = 2 * rayon::current_num_threads();
        let each = panels.div_ceil(tasks).clamp(1, PANELS);
        let blocks = panels.div_ceil(each);
        let zeros = vec![0f32; *c];
        // Numbers of pixels, and sums of the products: a line has 16 of the latter.
        let lines_of_left = NUMBERS * packed.geometry.left_lines;
        let lines = each * (lines_of_left + packed.lines_of_results());
        (0..blocks).into_par_iter().with_max_len(1).for_each(|block| {
            let panels = part(panels, blocks, block);
            with_lines(lines, |lines| {
                let left = lines.as_mut_ptr();
                // SAFETY: the lines were counted above.
                let sums = unsafe { left.add(panels.len() * lines_of_left) }.cast();
                let block = Block { call: self, panels, zeros: &zeros, left, sums };
                run_product(packed.isa, packed.format, block);
            });
        });
    }

    /// Rows and columns of tiles.
    fn grid(&self) -> (usize, usize) {
        (self.height.div_ceil(2), self.width.div_ceil(2))
    }

    /// Picture, and first row and column of the results of a tile; nothing behind the last one.
    #[inline(always)]
    fn place(&self, tile: usize) -> Option<(usize, usize, usize)> {
        let (down, across) = self.grid();
        let (picture, tile) = (tile / (down * across), tile % (down * across));
        (picture < self.batch).then_some((picture, tile / across * 2, tile % across * 2))
    }
}

/// What a task does: panels of rows, each of which is a tile.
struct Block<'a> {
    call: &'a Convolution<'a>,
    panels: Range<usize>,
    /// A pixel outside of pictures.
    zeros: &'a [f32],
    /// For each number, a packed panel for each of the panels.
    left: *mut Line,
    /// For each number and panel of columns, a tile of sums for each of the panels.
    sums: *mut f32,
}

impl Product for Block<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<E: Engine>(self) {
        let call = self.call;
        let weights = call.weights;
        let (count, columns) = (self.panels.len(), weights.n() / E::COLS);
        let chunks = weights.c / E::DEPTH;
        let left_lines = E::left_lines(chunks);
        // SAFETY: `Convolution::run` made room for all panels and sums, and compared the sizes of what is read; a
        // task's tiles are written by no other.
        unsafe {
            E::enter();
            for panel in 0..count {
                for row in 0..E::ROWS {
                    let tile = (self.panels.start + panel) * E::ROWS + row;
                    self.transform::<E>(tile, self.left.add(panel * left_lines + row), chunks);
                }
            }
            for number in 0..NUMBERS {
                for column in 0..columns {
                    let right = (number * columns + column) * E::right_lines(chunks);
                    let right = weights.packed.lines.as_ptr().add(right);
                    for panel in 0..count {
                        let left = self.left.add((number * count + panel) * left_lines);
                        let sums = (number * columns + column) * count + panel;
                        let sums = self.sums.add(sums * E::ROWS * E::COLS);
                        E::tile(left, right, chunks, sums, false, right);
                    }
                }
            }
            for column in 0..columns {
                with_function!(call.activation, F => self.finish::<E, F>(column, columns));
            }
            E::leave();
        }
    }
}

impl Block<'_> {
    /// Writes the numbers of a tile's pixels into its row of the panels, the first of which is at `to`.
    #[inline(always)]
    unsafe fn transform<E: Engine>(&self, tile: usize, to: *mut Line, chunks: usize) {
        let (call, c) = (self.call, self.call.weights.c);
        let mut pixels = [self.zeros.as_ptr(); NUMBERS];
        if let Some((picture, y, x)) = call.place(tile) {
            for (i, pixel) in pixels.iter_mut().enumerate() {
                // One row above and one column left of the results; what is outside stays zero.
                let (y, x) = ((y + i / 4).wrapping_sub(1), (x + i % 4).wrapping_sub(1));
                if y < call.height && x < call.width {
                    let at = ((picture * call.height + y) * call.width + x) * c;
                    // SAFETY: a pixel of the picture.
                    *pixel = unsafe { call.x.as_ptr().add(at) };
                }
            }
        }
        let stride = self.panels.len() * E::left_lines(chunks);
        let lanes = <E::S as Simd>::LANES;
        // SAFETY: pixels have `c` values, whole chunks of them, each of which is a line of a row.
        unsafe {
            for start in (0..c).step_by(lanes) {
                let mut d = [E::S::splat(0.0); NUMBERS];
                for (d, pixel) in d.iter_mut().zip(pixels) {
                    *d = E::S::load(pixel.add(start));
                }
                // Columns, then rows: a - c, b + c, c - b, b - d.
                for i in 0..4 {
                    let [a, b, c, e] = [d[i], d[4 + i], d[8 + i], d[12 + i]];
                    d[i] = E::S::sub(a, c);
                    d[4 + i] = E::S::add(b, c);
                    d[8 + i] = E::S::sub(c, b);
                    d[12 + i] = E::S::sub(b, e);
                }
                let to = to.add(start / E::DEPTH * E::ROWS).cast::<f32>().add(start % E::DEPTH);
                for i in 0..4 {
                    let [a, b, c, e] = [d[4 * i], d[4 * i + 1], d[4 * i + 2], d[4 * i + 3]];
                    let numbers =
                        [E::S::sub(a, c), E::S::add(b, c), E::S::sub(c, b), E::S::sub(b, e)];
                    for (j, number) in numbers.into_iter().enumerate() {
                        E::S::store(to.cast::<Line>().add((4 * i + j) * stride).cast(), number);
                    }
                }
            }
        }
    }

    /// Makes results of the sums of a panel of columns.
    #[inline(always)]
    unsafe fn finish<E: Engine, F: Function>(&self, column: usize, columns: usize) {
        let (call, count) = (self.call, self.panels.len());
        let (n, lanes) = (call.weights.n(), <E::S as Simd>::LANES);
        let stride = columns * count * E::ROWS * E::COLS;
        // SAFETY: see `run`; a panel of columns is a pair of vectors.
        unsafe {
            let sums = self.sums.add(column * count * E::ROWS * E::COLS);
            let bias = call.weights.bias.as_ptr().add(column * E::COLS);
            for i in 0..count * E::ROWS {
                let Some((picture, y, x)) = call.place(self.panels.start * E::ROWS + i) else {
                    return;
                };
                let mut results = [[E::S::splat(0.0); 4]; 2];
                for (half, results) in results.iter_mut().enumerate() {
                    let sums = sums.add(i * E::COLS + half * lanes);
                    let bias = E::S::load(bias.add(half * lanes));
                    let mut columns = [[E::S::splat(0.0); 2]; 4];
                    // Columns, then rows: a + b + c, b - c - d.
                    for (j, column) in columns.iter_mut().enumerate() {
                        let [a, b, c, d] = [
                            E::S::load(sums.add(j * stride)),
                            E::S::load(sums.add((4 + j) * stride)),
                            E::S::load(sums.add((8 + j) * stride)),
                            E::S::load(sums.add((12 + j) * stride)),
                        ];
                        column[0] = E::S::add(E::S::add(a, b), c);
                        column[1] = E::S::sub(E::S::sub(b, c), d);
                    }
                    let [a, b, c, d] = columns;
                    for row in 0..2 {
                        let first = E::S::add(E::S::add(a[row], b[row]), c[row]);
                        let second = E::S::sub(E::S::sub(b[row], c[row]), d[row]);
                        results[2 * row] = F::of::<E::S>(E::S::add(first, bias), E::ROUGH);
                        results[2 * row + 1] = F::of::<E::S>(E::S::add(second, bias), E::ROUGH);
                    }
                }
                let [low, high] = results;
                for (j, pair) in low.into_iter().zip(high).enumerate() {
                    let (y, x) = (y + j / 2, x + j % 2);
                    if y < call.height && x < call.width {
                        let pixel = (picture * call.height + y) * call.width + x;
                        let index = pixel * n + column * E::COLS;
                        put::<E>(call.combine, call.out, index, [pair.0, pair.1], E::COLS);
                    }
                }
            }
        }
    }
}
