//! Modulation on CUDA: a launch for each run of rows, into one result.

use candle_core::{DType, Result, Tensor};

use super::super::activation::Activation;
use super::super::cuda::{self, Address, Grid};
use super::super::norm::{self, Kind};
use super::{Gated, Shifted};

#[repr(C)]
struct GateArgs {
    x: Address,
    y: Address,
    gate: Address,
    out: Address,
    count: i64,
    width: i32,
}

/// Whether rows of `width` values are whole vectors.
pub(super) fn takes(x: &Tensor, width: usize) -> bool {
    cuda::takes(x) && width > 0 && width.is_multiple_of(16 / x.dtype().size_in_bytes())
}

pub(super) fn modulate(x: &Tensor, runs: &[Shifted], eps: f64) -> Result<Tensor> {
    let (x, width) = (x.contiguous()?, x.dims2()?.1);
    let out = cuda::empty(x.dtype(), x.shape(), x.device())?;
    let mut start = 0;
    for Shifted { rows, shift, scale } in runs {
        let (shift, scale) = (shift.contiguous()?, scale.contiguous()?);
        let to = cuda::address(&out)?.offset(start * width, x.dtype());
        let (kind, weight, bias) = (Kind::Layer, &scale, &shift);
        let parameters = norm::cuda::Parameters { kind, weight, bias, one: 1.0, eps };
        let x = x.narrow(0, start, *rows)?;
        norm::cuda::run(&x, &parameters, Activation::Identity, None, to)?;
        start += rows;
    }
    Ok(out)
}

pub(super) fn add_gated(x: &Tensor, y: &Tensor, runs: &[Gated]) -> Result<Tensor> {
    let (x, y, width) = (x.contiguous()?, y.contiguous()?, x.dims2()?.1);
    let out = cuda::empty(x.dtype(), x.shape(), x.device())?;
    let name = if x.dtype() == DType::BF16 { "gate_bf16" } else { "gate_f32" };
    let vector = 16 / x.dtype().size_in_bytes();
    let mut start = 0;
    for Gated { rows, gate } in runs {
        let gate = gate.contiguous()?;
        let at = |tensor: &Tensor| {
            let first = cuda::address(tensor)?;
            Ok::<_, candle_core::Error>(first.offset(start * width, x.dtype()))
        };
        let count = rows * width / vector;
        let args = GateArgs {
            x: at(&x)?,
            y: at(&y)?,
            gate: cuda::address(&gate)?,
            out: at(&out)?,
            count: count as i64,
            width: (width / vector) as i32,
        };
        // SAFETY: `GateArgs` in `cuda.cu`; the rows of all tensors go at least that far.
        unsafe { cuda::launch(x.device(), name, Grid::of(count), &args)? };
        start += rows;
    }
    Ok(out)
}
