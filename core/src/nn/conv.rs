//! Depthwise convolution, channels last.

use candle_core::{Result, Tensor};

use super::linear::zeros;
use crate::device::classify;
use crate::error;
use crate::kernels::depthwise_conv;
use crate::weights::Scope;

/// A depthwise convolution of odd kernel size that keeps the picture's size.
pub(crate) struct DepthwiseConv {
    weight: Tensor,
    bias: Tensor,
}

impl DepthwiseConv {
    /// `weight` of shape `(channels, 1, side, side)` and `bias` unless `has_bias` is false.
    pub(crate) fn load(
        scope: &Scope<'_>,
        channels: usize,
        side: usize,
        has_bias: bool,
    ) -> error::Result<Self> {
        let weight = scope
            .get_f32((channels, 1, side, side), "weight")?
            .squeeze(1)
            .and_then(|weight| weight.permute((1, 2, 0))?.contiguous())
            .map_err(|e| classify(e, "cannot lay out a convolution"))?;
        let bias =
            if has_bias { scope.get_f32(channels, "bias")? } else { zeros(scope, channels)? };
        Ok(Self { weight, bias })
    }

    /// `(b, h, w, c)` to the same shape.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        depthwise_conv::forward(x, &self.weight, &self.bias)
    }
}
