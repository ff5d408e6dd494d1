//! The linear map for `f32`: one matrix product per block of rows, whose result gets its bias and
//! activation while it is still in the cache.
#![allow(unsafe_code)]

use rayon::prelude::*;

use super::super::activation::{Activation, cpu::apply_here};

/// Rows per block. Small enough that a block's result stays in the cache for the epilogue, large
/// enough for the matrix product to reach its rate.
const BLOCK: usize = 128;

pub(super) fn forward(x: &[f32], weight: &[f32], bias: &[f32], activation: Activation) -> Vec<f32> {
    let n = bias.len();
    if n == 0 || x.is_empty() {
        // No columns: nothing to compute. No values: either no rows, or rows of length zero, whose
        // count a slice cannot tell; the caller's shapes are never of that kind.
        return Vec::new();
    }
    let k = weight.len() / n;
    let rows = x.len() / k;
    let threads = rayon::current_num_threads();
    let block = rows.div_ceil(threads).clamp(1, BLOCK);
    let mut y = vec![0f32; rows * n];
    if rows.div_ceil(block) >= threads {
        // Enough blocks for every thread: each computes its own, start to end.
        y.par_chunks_mut(block * n).zip(x.par_chunks(block * k)).for_each(|(y, x)| {
            product(x, weight, y, k, n, gemm::Parallelism::None);
            finish(y, bias, activation);
        });
    } else {
        // Few rows: the threads share each product by its columns instead.
        product(x, weight, &mut y, k, n, gemm::Parallelism::Rayon(threads));
        y.par_chunks_mut(n).for_each(|y| finish(y, bias, activation));
    }
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
