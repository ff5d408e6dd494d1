//! The layers that autoencoder and denoising network share.

use candle_core::{Result, Tensor};

use crate::device::classify;
use crate::error;
use crate::kernels::activation::Activation;
use crate::kernels::group_norm;
use crate::nn::{Conv2d, Linear, Window};
use crate::weights::Scope;

/// One pixel.
const PIXEL: Window = Window { size: (1, 1), stride: (1, 1), rows: (0, 0), columns: (0, 0) };
/// Every second window of three by three, with zeros below and to the right.
const HALVING: Window = Window { size: (3, 3), stride: (2, 2), rows: (0, 1), columns: (0, 1) };

/// A convolution of three by three pixels that keeps the size.
pub(super) fn conv(scope: &Scope, c: usize, n: usize) -> error::Result<Conv2d> {
    windowed(scope, c, n, Window::AROUND)
}

/// A linear map of every pixel, stored as a convolution.
pub(super) fn pixelwise(scope: &Scope, c: usize, n: usize) -> error::Result<Conv2d> {
    windowed(scope, c, n, PIXEL)
}

/// Halves the sides: zeros are added below and to the right only, as the autoencoder does.
pub(super) fn halving(scope: &Scope, c: usize) -> error::Result<Conv2d> {
    windowed(scope, c, c, HALVING)
}

/// Halves the sides, rounding up: zeros are added on all sides, as the denoising network does.
pub(super) fn halving_around(scope: &Scope, c: usize) -> error::Result<Conv2d> {
    windowed(scope, c, c, Window { stride: (2, 2), ..Window::AROUND })
}

fn windowed(scope: &Scope, c: usize, n: usize, window: Window) -> error::Result<Conv2d> {
    let (rows, columns) = window.size;
    let weight = scope.get((n, c, rows, columns), "weight")?;
    Conv2d::new(&weight, &scope.get_f32(n, "bias")?, window)
}

/// Groups and `eps` of the norms of a network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct GroupNormOptions {
    pub(crate) groups: usize,
    pub(crate) eps: f64,
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
        group_norm::forward(x, None, &self.0, activation)
    }

    /// As [`forward`](Self::forward), of `x + shift`, `(b, c)` for all positions.
    fn forward_shifted(
        &self,
        x: &Tensor,
        shift: Option<&Tensor>,
        activation: Activation,
    ) -> Result<Tensor> {
        group_norm::forward(x, shift, &self.0, activation)
    }
}

/// Two convolutions with norms before them, around which the input goes. In the denoising network the
/// time of a step is added between them.
pub(super) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    /// From `c` to `n` channels; `time` is the width of the embedding of the time, if there is one.
    pub(super) fn load(
        scope: &Scope,
        c: usize,
        n: usize,
        norm: GroupNormOptions,
        time: Option<usize>,
    ) -> error::Result<Self> {
        let projection = |width| Linear::load(&scope.at("time_emb_proj"), width, n, true);
        Ok(Self {
            norm1: GroupNorm::load(&scope.at("norm1"), c, norm)?,
            conv1: conv(&scope.at("conv1"), c, n)?,
            time: time.map(projection).transpose()?,
            norm2: GroupNorm::load(&scope.at("norm2"), n, norm)?,
            conv2: conv(&scope.at("conv2"), n, n)?,
            shortcut: (c != n).then(|| pixelwise(&scope.at("conv_shortcut"), c, n)).transpose()?,
        })
    }

    /// Takes its input, which is let go of as soon as it was used. `time` is `(b, width)`, activated.
    pub(super) fn forward(&self, x: Tensor, time: Option<&Tensor>) -> Result<Tensor> {
        let shift = match (&self.time, time) {
            (None, None) => None,
            (Some(layer), Some(time)) => Some(layer.forward(time)?),
            _ => candle_core::bail!("a residual block and its input differ about the time"),
        };
        let y = self.conv1.forward(&self.norm1.forward(&x, Activation::Silu)?, None)?;
        let x = match &self.shortcut {
            Some(shortcut) => shortcut.forward(&x, None)?,
            None => x,
        };
        let normed = self.norm2.forward_shifted(&y, shift.as_ref(), Activation::Silu)?;
        drop(y);
        self.conv2.forward(&normed, Some(&x))
    }
}
