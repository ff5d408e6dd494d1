//! The definition of the depthwise convolution with the tensor library's own convolution.

use candle_core::{Result, Tensor};

pub(super) fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (side, _, channels) = weight.dims3()?;
    let weight = weight.permute((2, 0, 1))?.contiguous()?.unsqueeze(1)?.to_dtype(x.dtype())?;
    x.permute((0, 3, 1, 2))?
        .contiguous()?
        .conv2d(&weight, side / 2, 1, 1, channels)?
        .permute((0, 2, 3, 1))?
        .contiguous()?
        .broadcast_add(&bias.to_dtype(x.dtype())?)
}
