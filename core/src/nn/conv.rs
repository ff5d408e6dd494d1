//! Convolutions, channels last.

use candle_core::{Result, Tensor};

use super::Linear;
use super::linear::zeros;
use crate::device::classify;
use crate::error;
use crate::kernels::activation::Activation;
use crate::kernels::depthwise_conv;
pub(crate) use crate::kernels::linear::Window;
use crate::weights::Scope;

/// A convolution: a linear map of what a window shows of the picture.
pub(crate) struct Conv2d {
    linear: Linear,
    window: Window,
}

impl Conv2d {
    /// From a weight `(n, c, kh, kw)` of the window's size, and a bias `(n)`.
    pub(crate) fn new(weight: &Tensor, bias: &Tensor, window: Window) -> error::Result<Self> {
        Ok(Self { linear: Linear::of_convolution(weight, bias, window)?, window })
    }

    /// The same convolution with an activation behind it.
    pub(crate) fn then(mut self, activation: Activation) -> Self {
        self.linear = self.linear.then(activation);
        self
    }

    /// `(b, h, w, c)` to `(b, down, across, n)`, added to `residual`.
    pub(crate) fn forward(&self, x: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        self.linear.forward_windows(x, self.window, residual)
    }
}

/// `(n, c, h, w)` to `(n, h, w, c)`.
pub(super) fn channels_last(weight: &Tensor) -> Result<Tensor> {
    weight.permute((0, 2, 3, 1))?.contiguous()
}

/// A picture `(b, h, w, c)` of twice the sides, every pixel four times.
pub(crate) fn doubled(x: Tensor) -> Result<Tensor> {
    let (b, h, w, c) = x.dims4()?;
    x.reshape((b, h, 1, w, 1, c))?.broadcast_as((b, h, 2, w, 2, c))?.reshape((b, 2 * h, 2 * w, c))
}

/// A depthwise convolution of odd kernel size that keeps the picture's size.
pub(crate) struct DepthwiseConv {
    weight: Tensor,
    bias: Tensor,
}

impl DepthwiseConv {
    /// `weight` of shape `(channels, 1, side, side)` and `bias` unless `has_bias` is false.
    pub(crate) fn load(
        scope: &Scope,
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
