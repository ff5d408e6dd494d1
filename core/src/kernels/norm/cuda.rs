//! Norms on CUDA: a warp for each row where rows are short, a block where they are long.

use candle_core::{DType, Result, Tensor};

use super::super::activation::Activation;
use super::super::cuda::{self, Address, Grid, THREADS};
use super::{Kind, Weights};

/// The widest rows: a block keeps one in shared memory, which all devices have 48 KiB of.
const WIDEST: usize = 12_000;
/// Rows of a warp.
const SHORT: usize = 1024;
const WARP: usize = 32;

#[repr(C)]
struct Args {
    x: Address,
    weight: Address,
    bias: Address,
    residual: Address,
    out: Address,
    rows: i64,
    width: i32,
    centred: i32,
    activation: i32,
    of_f32: i32,
    one: f32,
    eps: f32,
}

/// Weight and bias as the kernel takes them.
pub(in super::super) struct Parameters<'a> {
    pub(in super::super) kind: Kind,
    /// Contiguous, both `f32` or both of the type of the rows.
    pub(in super::super) weight: &'a Tensor,
    pub(in super::super) bias: &'a Tensor,
    /// Added to every weight.
    pub(in super::super) one: f32,
    pub(in super::super) eps: f64,
}

/// Whether rows of `width` values fit.
pub(in super::super) fn takes(x: &Tensor, width: usize) -> bool {
    cuda::takes(x) && (1..=WIDEST).contains(&width)
}

pub(super) fn forward(
    x: &Tensor,
    weights: &Weights,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let x = x.contiguous()?;
    let residual = residual.map(|residual| residual.to_dtype(x.dtype())?.contiguous());
    let residual = residual.transpose()?;
    let out = cuda::empty(x.dtype(), x.shape(), x.device())?;
    let to = cuda::address(&out)?;
    run(&x, &weights.parameters(), activation, residual.as_ref(), to)?;
    Ok(out)
}

/// Normalises the rows of `x`, contiguous, to the memory from `out` on.
pub(in super::super) fn run(
    x: &Tensor,
    parameters: &Parameters<'_>,
    activation: Activation,
    residual: Option<&Tensor>,
    out: Address,
) -> Result<()> {
    let width = parameters.weight.elem_count();
    let rows = x.elem_count() / width;
    let across = if width <= SHORT { WARP } else { THREADS };
    // As many rows as there are threads for and shared memory.
    let down = (THREADS / across).min(WIDEST / width).max(1);
    let args = Args {
        x: cuda::address(x)?,
        weight: cuda::address(parameters.weight)?,
        bias: cuda::address(parameters.bias)?,
        residual: cuda::address_of(residual)?,
        out,
        rows: rows as i64,
        width: width as i32,
        centred: i32::from(parameters.kind == Kind::Layer),
        activation: activation.number(),
        of_f32: i32::from(parameters.weight.dtype() == DType::F32),
        one: parameters.one,
        eps: parameters.eps as f32,
    };
    let grid = Grid {
        blocks: [rows.div_ceil(down), 1, 1],
        threads: [across, down],
        shared: 4 * (down * width + across / WARP * down),
    };
    let vector = 16 / x.dtype().size_in_bytes();
    let begin = [args.x, args.residual, args.out].into_iter().all(Address::is_aligned);
    let name = match (x.dtype(), width.is_multiple_of(vector) && begin) {
        (DType::BF16, true) => "norm_vectors_bf16",
        (DType::BF16, false) => "norm_bf16",
        (_, true) => "norm_vectors_f32",
        (_, false) => "norm_f32",
    };
    // SAFETY: `NormArgs` in `cuda.cu`; rows of `x` and `out` are `rows` times `width` values.
    unsafe { cuda::launch(x.device(), name, grid, &args) }
}
