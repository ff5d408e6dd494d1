//! The layers of the autoencoder, for one frame.
//!
//! The published weights are those of a video network. Its convolutions are causal in time: before a
//! first frame there are only zeros, so of every kernel just the last plane sees it, and the rest is
//! left out at load. Temporal resampling does not run for a first frame either
//! (`QwenImageResample.forward` only starts its cache), so what is left is a network of pictures.

use candle_core::{Result, Tensor};

use crate::device::classify;
use crate::error;
use crate::kernels::activation::Activation;
use crate::kernels::{attention, norm};
use crate::nn::{Conv2d, Linear, NormKind, SelfAttention, Window, doubled};
use crate::weights::Scope;

/// A window of three by three pixels that keeps the picture's size.
/// One pixel.
const PIXEL: Window = Window { size: (1, 1), stride: (1, 1), rows: (0, 0), columns: (0, 0) };
/// Every second window of three by three, with zeros below and to the right.
const HALVING: Window = Window { size: (3, 3), stride: (2, 2), rows: (0, 1), columns: (0, 1) };
/// Below this length a pixel's values are not divided by it, in `torch.nn.functional.normalize`.
const SHORTEST: f64 = 1e-12;

/// A causal convolution of one frame: the last plane of a kernel `(n, c, side, side, side)`.
pub(super) fn causal(scope: &Scope, c: usize, n: usize, side: usize) -> error::Result<Conv2d> {
    let weight = scope
        .get((n, c, side, side, side), "weight")?
        .narrow(2, side - 1, 1)
        .and_then(|weight| weight.squeeze(2))
        .map_err(|e| classify(e, "cannot lay out a convolution"))?;
    let window = if side == 1 { PIXEL } else { Window::AROUND };
    Conv2d::new(&weight, &scope.get_f32(n, "bias")?, window)
}

/// Pixels divided by their length over the channels, times `sqrt(channels) gamma`.
pub(super) struct PixelNorm(norm::Weights);

impl PixelNorm {
    /// `gamma` is `(channels, 1, ..)` with as many ones as `ones`.
    pub(super) fn load(scope: &Scope, channels: usize, ones: usize) -> error::Result<Self> {
        let mut shape = vec![channels];
        shape.resize(1 + ones, 1);
        let gamma = scope.get_f32(shape, "gamma")?;
        let prepare = || {
            let gamma = gamma.flatten_all()?;
            // The root mean square is the length over `sqrt(channels)`.
            let eps = SHORTEST * SHORTEST / channels as f64;
            norm::Weights::new(NormKind::Rms, &gamma, &gamma.zeros_like()?, eps)
        };
        prepare().map(Self).map_err(|e| classify(e, "cannot prepare a norm"))
    }

    /// `(b, h, w, c)` to the same, with `activation` behind it.
    pub(super) fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        norm::forward(x, &self.0, activation, None)
    }
}

/// Two convolutions with norms before them, around which the input goes.
pub(super) struct ResidualBlock {
    norm1: PixelNorm,
    conv1: Conv2d,
    norm2: PixelNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl ResidualBlock {
    pub(super) fn load(scope: &Scope, c: usize, n: usize) -> error::Result<Self> {
        Ok(Self {
            norm1: PixelNorm::load(&scope.at("norm1"), c, 3)?,
            conv1: causal(&scope.at("conv1"), c, n, 3)?,
            norm2: PixelNorm::load(&scope.at("norm2"), n, 3)?,
            conv2: causal(&scope.at("conv2"), n, n, 3)?,
            shortcut: (c != n).then(|| causal(&scope.at("conv_shortcut"), c, n, 1)).transpose()?,
        })
    }

    /// Takes its input: at full size a picture's values are hundreds of megabytes, so each is let go
    /// of as soon as it was used.
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

/// Attention of one head between all pixels.
pub(super) struct PixelAttention {
    norm: PixelNorm,
    qkv: Linear,
    proj: Linear,
    options: attention::Options,
}

impl PixelAttention {
    pub(super) fn load(scope: &Scope, c: usize) -> error::Result<Self> {
        let linear = |name: &str, n: usize| -> error::Result<Linear> {
            let scope = scope.at(name);
            let weight = scope
                .get((n, c, 1, 1), "weight")?
                .flatten_from(1)
                .map_err(|e| classify(e, "cannot lay out a convolution"))?;
            Linear::new(&weight, &scope.get_f32(n, "bias")?)
        };
        Ok(Self {
            norm: PixelNorm::load(&scope.at("norm"), c, 2)?,
            qkv: linear("to_qkv", 3 * c)?,
            proj: linear("proj", c)?,
            options: attention::Options { scale: SelfAttention::scale(c, 1), ..Default::default() },
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, h, w, c) = x.dims4()?;
        let qkv = self.qkv.forward(&self.norm.forward(x, Activation::Identity)?)?;
        let qkv = qkv.reshape((b, 1, h * w, 3 * c))?;
        let part = |i: usize| qkv.narrow(3, i * c, c);
        let y = attention::forward(&part(0)?, &part(1)?, &part(2)?, &self.options, None)?;
        self.proj.forward_onto(&y.reshape((b, h, w, c))?, None, Some(x))
    }
}

/// The middle of encoder and decoder, where pictures are smallest.
pub(super) struct Middle {
    before: ResidualBlock,
    attention: PixelAttention,
    after: ResidualBlock,
}

impl Middle {
    pub(super) fn load(scope: &Scope, c: usize) -> error::Result<Self> {
        Ok(Self {
            before: ResidualBlock::load(&scope.at("resnets.0"), c, c)?,
            attention: PixelAttention::load(&scope.at("attentions.0"), c)?,
            after: ResidualBlock::load(&scope.at("resnets.1"), c, c)?,
        })
    }

    pub(super) fn forward(&self, x: Tensor) -> Result<Tensor> {
        self.after.forward(self.attention.forward(&self.before.forward(x)?)?)
    }
}

/// Halves or doubles the sides of a picture.
pub(super) struct Resample {
    conv: Conv2d,
    doubles: bool,
}

impl Resample {
    /// Halves the sides and keeps the channels.
    pub(super) fn halving(scope: &Scope, c: usize) -> error::Result<Self> {
        Self::load(scope, c, c, HALVING)
    }

    /// Doubles the sides and halves the channels.
    pub(super) fn doubling(scope: &Scope, c: usize) -> error::Result<Self> {
        Self::load(scope, c, c / 2, Window::AROUND)
    }

    fn load(scope: &Scope, c: usize, n: usize, window: Window) -> error::Result<Self> {
        let scope = scope.at("resample.1");
        let weight = scope.get((n, c, 3, 3), "weight")?;
        let conv = Conv2d::new(&weight, &scope.get_f32(n, "bias")?, window)?;
        Ok(Self { conv, doubles: window == Window::AROUND })
    }

    pub(super) fn forward(&self, x: Tensor) -> Result<Tensor> {
        if !self.doubles {
            return self.conv.forward(&x, None);
        }
        self.conv.forward(&doubled(x)?, None)
    }
}

/// A tensor of one value for each channel, to be combined with pictures.
pub(super) fn per_channel(values: &[f32], scope: &Scope) -> error::Result<Tensor> {
    Tensor::new(values, scope.device()).map_err(|e| classify(e, "cannot load a tensor"))
}
