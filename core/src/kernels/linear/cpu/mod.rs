//! The linear map on the CPU: weights packed once, rows normalised while they are packed, bias,
//! activation and residual added while the sums are still in the cache.

mod multiply;
mod pack;
mod winograd;

use std::cell::Cell;

use rayon::prelude::*;

use self::multiply::Right;
use self::pack::Left;
use super::super::activation::Activation;
use super::super::cpu::{
    Line, NormArgs, Patches, Sink, Values, enlarge, part, run_product, with_lines,
};

pub(crate) use self::pack::Packed;
pub(crate) use self::winograd::{Convolution, Winograd};

/// Tasks for each thread, so that a thread that was held up does not keep the others waiting.
const TASKS_PER_THREAD: usize = 2;

thread_local! {
    /// Packed rows that all threads read, kept by the thread that asked for the product.
    static SHARED: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
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

/// Weights, and the activation of their results.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a> {
    pub(crate) weights: &'a Packed,
    pub(crate) activation: Activation,
}

/// One call: `combine(activation(norm(x) W^T + b))`, or of two layers one behind the other.
pub(crate) struct Call<'a> {
    pub(crate) x: Values<'a>,
    /// If the rows are patches of pictures.
    pub(crate) patches: Option<Patches>,
    /// Applied to `x`, in groups of the norm's width.
    pub(crate) norm: Option<NormArgs<'a>>,
    /// The first of two layers, whose results are packed for the second one at once.
    pub(crate) before: Option<Layer<'a>>,
    /// The only layer, or the second.
    pub(crate) layer: Layer<'a>,
    pub(crate) rows: usize,
    pub(crate) combine: Combine<'a>,
    /// `rows` times `n` values.
    pub(crate) out: Sink,
}

impl<'a> Call<'a> {
    /// The weights that the rows of `x` meet.
    fn entry(&self) -> &'a Packed {
        self.before.unwrap_or(self.layer).weights
    }

    /// Computes the result on all threads. Each row is computed in the same way whatever is beside
    /// it, so it does not depend on how the rows were split.
    pub(crate) fn run(&self) {
        let Packed { isa, format, geometry, .. } = *self.entry();
        let (k, n) = (self.entry().k, self.layer.weights.n);
        assert_eq!(self.out.len(), self.rows * n, "room for the result");
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
            assert_eq!(values.len(), self.rows * n, "values to combine with");
        }
        if let Some(norm) = &self.norm {
            assert!(k.is_multiple_of(norm.weight.len()) && norm.weight.len() == norm.bias.len());
        }
        let tiles = self.rows.div_ceil(geometry.rows);
        let panels = n.div_ceil(geometry.cols);
        let threads = rayon::current_num_threads();
        if let Some(before) = self.before {
            self.run_both(before, tiles, threads);
            return;
        }
        let layer = self.layer;
        let wanted = if threads == 1 { 1 } else { threads * TASKS_PER_THREAD };
        let blocks = tiles.div_ceil(geometry.block);
        if blocks >= wanted || threads == 1 {
            // Enough rows for all threads: each packs what it needs.
            let blocks = blocks.next_multiple_of(threads).min(tiles);
            (0..blocks).into_par_iter().with_max_len(1).for_each(|block| {
                let tiles = part(tiles, blocks, block);
                with_lines(tiles.len() * geometry.left_lines, |left| {
                    let left = left.as_mut_ptr();
                    run_product(isa, format, Left { call: self, tiles: tiles.clone(), left });
                    let right =
                        Right { call: self, layer, tiles, panels: 0..panels, left, to: None };
                    run_product(isa, format, right);
                });
            });
            return;
        }
        // Few rows: they are packed first, and the columns are shared as well.
        let mut left = SHARED.take();
        left.resize(left.len().max(tiles * geometry.left_lines), Line::ZERO);
        enlarge(left.as_ptr(), size_of_val(&left[..]));
        let parts = wanted.min(tiles);
        let address = Address(left.as_mut_ptr());
        (0..parts).into_par_iter().with_max_len(1).for_each(|index| {
            let tiles = part(tiles, parts, index);
            // SAFETY: `tiles` lie inside the lines that were just allocated.
            let left = unsafe { address.at(tiles.start * geometry.left_lines) };
            run_product(isa, format, Left { call: self, tiles, left });
        });
        // As many tasks as can be shared evenly.
        let mut parts = wanted.div_ceil(blocks);
        while !(blocks * parts).is_multiple_of(threads) {
            parts += 1;
        }
        let parts = parts.min(panels);
        (0..blocks * parts).into_par_iter().with_max_len(1).for_each(|task| {
            // Tasks that share columns are neighbours: their thread reads the weights once.
            let tiles = part(tiles, blocks, task % blocks);
            let panels = part(panels, parts, task / blocks);
            // SAFETY: as above.
            let left = unsafe { address.at(tiles.start * geometry.left_lines) };
            run_product(isa, format, Right { call: self, layer, tiles, panels, left, to: None });
        });
        SHARED.set(left);
    }

    /// Two layers: a block of rows goes through both, so what is between them stays near, and is
    /// written once, in the order in which it is read.
    fn run_both(&self, before: Layer<'_>, tiles: usize, threads: usize) {
        let (first, second) = (before.weights, self.layer.weights);
        assert!(Packed::follow(first, second, false), "layers that fit together");
        let Packed { isa, format, geometry, .. } = *first;
        let next = second.geometry.left_lines;
        let blocks = tiles.div_ceil(first.geometry.block.min(2 * second.geometry.block));
        let blocks = blocks.next_multiple_of(threads).min(tiles);
        (0..blocks).into_par_iter().with_max_len(1).for_each(|block| {
            let tiles = part(tiles, blocks, block);
            with_lines(tiles.len() * (geometry.left_lines + next), |lines| {
                let left = lines.as_mut_ptr();
                // SAFETY: the lines were counted above.
                let between = unsafe { left.add(tiles.len() * geometry.left_lines) };
                run_product(isa, format, Left { call: self, tiles: tiles.clone(), left });
                let panels = |packed: &Packed| 0..packed.n.div_ceil(packed.geometry.cols);
                let mut right = Right {
                    call: self,
                    layer: before,
                    tiles: tiles.clone(),
                    panels: panels(first),
                    left,
                    to: Some(between),
                };
                run_product(isa, format, right);
                right = Right {
                    call: self,
                    layer: self.layer,
                    tiles,
                    panels: panels(second),
                    left: between,
                    to: None,
                };
                run_product(isa, format, right);
            });
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
