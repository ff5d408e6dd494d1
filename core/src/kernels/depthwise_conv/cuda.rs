//! The depthwise convolution on CUDA.

use candle_core::{DType, Result, Tensor};

use super::super::cuda::{self, Address, Grid};

/// Pixels of a row that a thread computes, as in `cuda.cu`.
const PIXELS: usize = 4;

#[repr(C)]
struct Args {
    x: Address,
    weight: Address,
    bias: Address,
    out: Address,
    count: i64,
    height: i32,
    width: i32,
    channels: i32,
    side: i32,
}

pub(super) fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (b, height, width, channels) = x.dims4()?;
    let x = x.contiguous()?;
    let float = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.contiguous();
    let (weight, bias) = (float(weight)?, float(bias)?);
    let out = cuda::empty(x.dtype(), x.shape(), x.device())?;
    let count = b * height * width.div_ceil(PIXELS) * channels;
    let args = Args {
        x: cuda::address(&x)?,
        weight: cuda::address(&weight)?,
        bias: cuda::address(&bias)?,
        out: cuda::address(&out)?,
        count: count as i64,
        height: height as i32,
        width: width as i32,
        channels: channels as i32,
        side: weight.dims()[0] as i32,
    };
    let name = if x.dtype() == DType::BF16 { "depthwise_bf16" } else { "depthwise_f32" };
    // SAFETY: `DepthwiseArgs` in `cuda.cu`; the shapes were checked.
    unsafe { cuda::launch(x.device(), name, Grid::of(count), &args)? };
    Ok(out)
}
