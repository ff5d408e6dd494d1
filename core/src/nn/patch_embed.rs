//! Convolutions whose stride equals their kernel size: a matrix product over patches.

use candle_core::{Result, Tensor};

use super::Linear;
use super::linear::zeros;
use crate::device::classify;
use crate::error;
use crate::weights::Scope;

/// Cuts a picture into patches and maps each of them linearly.
pub(crate) struct PatchEmbed {
    projection: Linear,
    patch: (usize, usize),
}

impl PatchEmbed {
    /// `weight` of shape `(n, channels, ph, pw)`, and `bias` unless `has_bias` is false.
    pub(crate) fn load(
        scope: &Scope<'_>,
        channels: usize,
        n: usize,
        patch: (usize, usize),
        has_bias: bool,
    ) -> error::Result<Self> {
        let weight = scope
            .get((n, channels, patch.0, patch.1), "weight")?
            .permute((0, 2, 3, 1))
            .and_then(|weight| weight.contiguous()?.flatten_from(1))
            .map_err(|e| classify(e, "cannot lay out a convolution"))?;
        let bias = if has_bias { scope.get(n, "bias")? } else { zeros(scope, n)? };
        Ok(Self { projection: Linear::new(weight, bias), patch })
    }

    /// A picture `(b, c, h, w)` to `(b, h / ph, w / pw, n)`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_channels_last(&x.permute((0, 2, 3, 1))?)
    }

    /// `(b, h, w, c)` to `(b, h / ph, w / pw, n)`; rows and columns that do not fill a patch are cut.
    pub(crate) fn forward_channels_last(&self, x: &Tensor) -> Result<Tensor> {
        let (b, h, w, c) = x.dims4()?;
        let (ph, pw) = self.patch;
        let (gh, gw) = (h / ph, w / pw);
        let x = x.narrow(1, 0, gh * ph)?.narrow(2, 0, gw * pw)?.contiguous()?;
        let patches = x.reshape((b, gh, ph, gw, pw, c))?.permute([0, 1, 3, 2, 4, 5])?.reshape((
            b,
            gh,
            gw,
            ph * pw * c,
        ))?;
        self.projection.forward(&patches)
    }
}
