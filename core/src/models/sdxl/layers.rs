//! The layers that autoencoder and denoising network share.

use candle_core::{Result, Tensor};

use crate::device::classify;
use crate::error;
use crate::kernels::activation::Activation;
use crate::kernels::group_norm;
use crate::nn::{Conv2d, Window};
use crate::weights::Scope;

/// A window of three by three pixels that keeps the picture's size.
const AROUND: Window = Window { size: (3, 3), stride: (1, 1), rows: (1, 1), columns: (1, 1) };
/// One pixel.
const PIXEL: Window = Window { size: (1, 1), stride: (1, 1), rows: (0, 0), columns: (0, 0) };
/// Every second window of three by three, with zeros below and to the right.
const HALVING: Window = Window { size: (3, 3), stride: (2, 2), rows: (0, 1), columns: (0, 1) };

/// A convolution of three by three pixels that keeps the size.
pub(super) fn conv(scope: &Scope, c: usize, n: usize) -> error::Result<Conv2d> {
    windowed(scope, c, n, AROUND)
}

/// A linear map of every pixel, stored as a convolution.
pub(super) fn pixelwise(scope: &Scope, c: usize, n: usize) -> error::Result<Conv2d> {
    windowed(scope, c, n, PIXEL)
}

/// Halves the sides: zeros are added below and to the right only, as the autoencoder does.
pub(super) fn halving(scope: &Scope, c: usize) -> error::Result<Conv2d> {
    windowed(scope, c, c, HALVING)
}

fn windowed(scope: &Scope, c: usize, n: usize, window: Window) -> error::Result<Conv2d> {
    let (rows, columns) = window.size;
    let weight = scope.get((n, c, rows, columns), "weight")?;
    Conv2d::new(&weight, &scope.get_f32(n, "bias")?, window)
}

/// Groups and `eps` of the norms of a network.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupNormOptions {
    pub(super) groups: usize,
    pub(super) eps: f64,
}

/// Group normalisation with its weight and bias.
pub(super) struct GroupNorm(group_norm::Weights);

impl GroupNorm {
    pub(super) fn load(
        scope: &Scope,
        channels: usize,
        options: GroupNormOptions,
    ) -> error::Result<Self> {
        let (weight, bias) = (scope.get_f32(channels, "weight")?, scope.get_f32(channels, "bias")?);
        group_norm::Weights::new(&weight, &bias, options.groups, options.eps)
            .map(Self)
            .map_err(|e| classify(e, "cannot prepare a norm"))
    }

    /// `(b, .., c)` to the same, with `activation` behind it.
    pub(super) fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        group_norm::forward(x, &self.0, activation)
    }
}

/// Two convolutions with norms before them, around which the input goes.
pub(super) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    pub(super) fn load(
        scope: &Scope,
        c: usize,
        n: usize,
        norm: GroupNormOptions,
    ) -> error::Result<Self> {
        Ok(Self {
            norm1: GroupNorm::load(&scope.at("norm1"), c, norm)?,
            conv1: conv(&scope.at("conv1"), c, n)?,
            norm2: GroupNorm::load(&scope.at("norm2"), n, norm)?,
            conv2: conv(&scope.at("conv2"), n, n)?,
            shortcut: (c != n).then(|| pixelwise(&scope.at("conv_shortcut"), c, n)).transpose()?,
        })
    }

    /// Takes its input, which is let go of as soon as it was used.
    pub(super) fn forward(&self, x: Tensor) -> Result<Tensor> {
        let y = self.conv1.forward(&self.norm1.forward(&x, Activation::Silu)?, None)?;
        let x = match &self.shortcut {
            Some(shortcut) => shortcut.forward(&x, None)?,
            None => x,
        };
        let normed = self.norm2.forward(&y, Activation::Silu)?;
        drop(y);
        self.conv2.forward(&normed, Some(&x))
    }
}
