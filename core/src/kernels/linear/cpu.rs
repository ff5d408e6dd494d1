//! The linear map for `f32`: one matrix product for each batch entry, then bias and activation in one
//! pass over the result.
#![allow(unsafe_code)]

use rayon::prelude::*;

use super::super::activation::{Activation, cpu::apply_here};
use super::super::host;

/// Entries with at least this many rows are worth all threads; smaller ones get one thread each.
/// A matrix product rearranges all its weights first, so few large products beat many small ones.
const MANY: usize = 256;
/// Entries with fewer rows than this share the threads as well: one row times a large matrix.
const FEW: usize = 16;

/// `rows` is the number of rows of one batch entry. Entries are computed apart and always in the
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
    if (FEW..MANY).contains(&rows) {
        y.par_chunks_mut(rows * n).zip(x.par_chunks(rows * k)).for_each(|(y, x)| {
            product(x, weight, y, k, n, gemm::Parallelism::None);
            finish(y, bias, activation);
        });
        return y;
    }
    let parallelism = gemm::Parallelism::Rayon(rayon::current_num_threads());
    for (y, x) in y.chunks_exact_mut(rows * n).zip(x.chunks_exact(rows * k)) {
        product(x, weight, y, k, n, parallelism);
        let rows = host::rows_per_task(rows, n);
        y.par_chunks_mut(rows * n).for_each(|y| finish(y, bias, activation));
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
