//! Group norm on CUDA, in three launches; see `cuda.cu`.

use candle_core::{DType, Result, Tensor};

use super::super::activation::Activation;
use super::super::cuda::{self, Address, Grid, THREADS};
use super::Weights;

/// Positions that a block sums at least, and runs that an entry is cut into at most.
const RUN: usize = 64;
const RUNS: usize = 512;
/// Most groups: their sums are in shared memory.
const GROUPS: usize = 2048;

#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    x: Address,
    shift: Address,
    weight: Address,
    bias: Address,
    parts: Address,
    moments: Address,
    out: Address,
    positions: i64,
    count: i64,
    run: i32,
    runs: i32,
    channels: i32,
    groups: i32,
    activation: i32,
    eps: f32,
}

pub(super) fn takes(x: &Tensor, weights: &Weights) -> bool {
    cuda::takes(x) && weights.groups <= GROUPS
}

pub(super) fn forward(
    x: &Tensor,
    shift: Option<&Tensor>,
    weights: &Weights,
    activation: Activation,
) -> Result<Tensor> {
    let (x, device) = (x.contiguous()?, x.device());
    let shift = shift.map(|shift| shift.to_dtype(DType::F32)?.contiguous()).transpose()?;
    let (entries, channels) = (x.dims()[0], weights.weight.elem_count());
    let out = cuda::empty(x.dtype(), x.shape(), device)?;
    if x.elem_count() == 0 {
        return Ok(out);
    }
    let count = x.elem_count() / entries;
    let positions = count / channels;
    let run = positions.div_ceil(RUNS).max(RUN);
    let runs = positions.div_ceil(run);
    let parts = cuda::empty(DType::F32, (entries, runs, weights.groups, 2), device)?;
    let moments = cuda::empty(DType::F32, (entries, weights.groups, 2), device)?;
    let args = Args {
        x: cuda::address(&x)?,
        shift: cuda::address_of(shift.as_ref())?,
        weight: cuda::address(&weights.weight)?,
        bias: cuda::address(&weights.bias)?,
        parts: cuda::address(&parts)?,
        moments: cuda::address(&moments)?,
        out: cuda::address(&out)?,
        positions: positions as i64,
        count: count as i64,
        run: run as i32,
        runs: runs as i32,
        channels: channels as i32,
        groups: weights.groups as i32,
        activation: activation.number(),
        eps: weights.eps as f32,
    };
    let vector = 16 / x.dtype().size_in_bytes();
    let are_vectors = channels.is_multiple_of(vector) && args.x.is_aligned();
    let [moments_of, apply] = match (x.dtype(), are_vectors) {
        (DType::BF16, true) => ["group_moments_bf16", "group_apply_vectors_bf16"],
        (DType::BF16, false) => ["group_moments_bf16", "group_apply_bf16"],
        (_, true) => ["group_moments_f32", "group_apply_vectors_f32"],
        (_, false) => ["group_moments_f32", "group_apply_f32"],
    };
    let each = if are_vectors { vector } else { 1 };
    let grid = |blocks: usize, shared: usize| Grid {
        blocks: [blocks, entries, 1],
        threads: [THREADS, 1],
        shared,
    };
    let launches = [
        (moments_of, grid(runs, 4 * (THREADS + 2 * weights.groups))),
        ("group_join", grid(weights.groups.div_ceil(THREADS), 0)),
        (apply, grid((count / each).div_ceil(THREADS), 0)),
    ];
    for (name, grid) in launches {
        // SAFETY: `GroupNormArgs` in `cuda.cu`; the shapes were checked.
        unsafe { cuda::launch(device, name, grid, &args)? };
    }
    Ok(out)
}
