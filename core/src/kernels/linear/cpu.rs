//! The linear map for `f32`: one matrix product per block of rows, whose result gets its bias and
//! activation while it is still in the cache.
#![allow(unsafe_code)]

use rayon::prelude::*;

use super::super::activation::{Activation, cpu::apply_here};

/// Most rows per block: few enough for a block's result to stay in the cache for the epilogue, many
/// enough for the matrix product to reach its rate.
const BLOCK: usize = 128;
/// Entries with fewer rows than this are not worth splitting by rows.
const FEW: usize = 16;

/// `rows` is the number of rows of one batch entry. Entries are computed apart and always cut the
/// same way, so that an entry's result does not depend on what else is in the batch.
pub(super) fn forward(
    x: &[f32],
    rows: usize,
    weight: &[f32],
    bias: &[f32],
    activation: Activation,
) -> Vec<f32> {
    let n = bias.len();
    if n == 0 || x.is_empty() {
        // No columns: nothing to compute. No values: no rows, as layers have no width of zero.
        return Vec::new();
    }
    let k = weight.len() / n;
    let mut y = vec![0f32; x.len() / k * n];
    let entries = y.chunks_exact_mut(rows * n).zip(x.chunks_exact(rows * k));
    if rows < FEW {
        let parallelism = gemm::Parallelism::Rayon(rayon::current_num_threads());
        entries.for_each(|(y, x)| product(x, weight, y, k, n, parallelism));
        y.par_chunks_mut(n).for_each(|y| finish(y, bias, activation));
        return y;
    }
    // An even number of equal blocks, so that two or four threads have the same to do.
    let blocks = rows.div_ceil(BLOCK).next_multiple_of(if rows >= 4 * BLOCK { 4 } else { 1 });
    let block = rows.div_ceil(blocks);
    let tasks: Vec<_> =
        entries.flat_map(|(y, x)| y.chunks_mut(block * n).zip(x.chunks(block * k))).collect();
    tasks.into_par_iter().for_each(|(y, x)| {
        product(x, weight, y, k, n, gemm::Parallelism::None);
        finish(y, bias, activation);
    });
    y
}

fn finish(y: &mut [f32], bias: &[f32], activation: Activation) {
    for row in y.chunks_exact_mut(bias.len()) {
        for (y, bias) in row.iter_mut().zip(bias) {
            *y += bias;
        }
        apply_here(activation, row);
    }
}

/// `y = x W^T` for row-major `x` (rows x k), `W` (n x k) and `y` (rows x n).
fn product(
    x: &[f32],
    weight: &[f32],
    y: &mut [f32],
    k: usize,
    n: usize,
    parallelism: gemm::Parallelism,
) {
    let rows = y.len() / n;
    assert!(x.len() == rows * k && weight.len() == n * k && y.len() == rows * n);
    // SAFETY: the strides below address exactly the lengths that were just asserted, and `y` is
    // borrowed mutably, so it overlaps neither input.
    unsafe {
        gemm::gemm(
            rows,
            n,
            k,
            y.as_mut_ptr(),
            1,
            n as isize,
            false,
            x.as_ptr(),
            1,
            k as isize,
            weight.as_ptr(),
            k as isize,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
