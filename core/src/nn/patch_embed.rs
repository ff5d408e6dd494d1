//! Convolutions whose stride equals their kernel size: a linear map of patches.

use candle_core::{DType, Result, Tensor};

use super::conv::channels_last;
use super::linear::zeros;
use super::{Linear, Norm};
use crate::device::classify;
use crate::error;
use crate::weights::Scope;

/// What a network's first layer makes of the bytes of a picture: `(x / 255 - mean) / std`, in the
/// order of the channels that it was trained with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PixelScale {
    /// For each channel of the network's input.
    pub(crate) mean: [f32; 3],
    /// As `mean`.
    pub(crate) std: [f32; 3],
    /// Whether the network's first channel is blue; pictures always start with red.
    pub(crate) bgr: bool,
}

/// Cuts a picture into patches and maps each of them linearly.
pub(crate) struct PatchEmbed {
    projection: Linear,
    patch: (usize, usize),
    dtype: DType,
}

impl PatchEmbed {
    /// `weight` of shape `(n, channels, ph, pw)`, and `bias` unless `has_bias` is false.
    pub(crate) fn load(
        scope: &Scope,
        channels: usize,
        n: usize,
        patch: (usize, usize),
        has_bias: bool,
    ) -> error::Result<Self> {
        let weight = scope.get((n, channels, patch.0, patch.1), "weight")?;
        let bias = if has_bias { scope.get_f32(n, "bias")? } else { zeros(scope, n)? };
        let weight = channels_last(&weight)
            .and_then(|weight| weight.flatten_from(1))
            .map_err(|e| classify(e, "cannot lay out a convolution"))?;
        Ok(Self { projection: Linear::new(&weight, &bias)?, patch, dtype: scope.dtype() })
    }

    /// As [`load`](Self::load) for the pixels of a picture as bytes: their scale becomes part of the
    /// weights.
    pub(crate) fn load_pixels(
        scope: &Scope,
        n: usize,
        patch: (usize, usize),
        has_bias: bool,
        pixels: &PixelScale,
    ) -> error::Result<Self> {
        // In f32 whatever the precision is: bytes less their mean need more bits than bfloat16 has.
        let weight = scope.get_f32((n, 3, patch.0, patch.1), "weight")?;
        let bias = if has_bias { scope.get_f32(n, "bias")? } else { zeros(scope, n)? };
        let fold = || -> Result<(Tensor, Tensor)> {
            let channel =
                |values: [f32; 3]| Tensor::new(&values, weight.device())?.reshape((1, 3, 1, 1));
            let factor = channel(pixels.std.map(|std| 1.0 / (255.0 * std)))?;
            let offset = channel([0, 1, 2].map(|i| pixels.mean[i] / pixels.std[i]))?;
            let moved = weight.broadcast_mul(&offset)?.flatten_from(1)?.sum(1)?;
            let bias = (&bias - moved)?;
            let mut weight = weight.broadcast_mul(&factor)?;
            if pixels.bgr {
                let order = Tensor::new(&[2u32, 1, 0], weight.device())?;
                weight = weight.index_select(&order, 1)?;
            }
            Ok((channels_last(&weight)?.flatten_from(1)?, bias))
        };
        let (weight, bias) = fold().map_err(|e| classify(e, "cannot lay out a convolution"))?;
        Ok(Self { projection: Linear::new(&weight, &bias)?, patch, dtype: scope.dtype() })
    }

    /// `(b, h, w, c)` to `(b, h / ph, w / pw, n)`; rows and columns that do not fill a patch are
    /// cut. `norm` is applied to every pixel first.
    pub(crate) fn forward(&self, x: &Tensor, norm: Option<&Norm>) -> Result<Tensor> {
        self.projection.forward_patches(x, norm, self.patch, None, self.dtype)
    }

    /// `(b, h, w, c)` to tokens `(b, h / ph w / pw, n)`, with `positions` `(1, h / ph w / pw, n)` added.
    pub(crate) fn forward_tokens(&self, x: &Tensor, positions: Option<&Tensor>) -> Result<Tensor> {
        let (b, height, width, _) = x.dims4()?;
        let grid = (height / self.patch.0, width / self.patch.1);
        let positions = positions
            .map(|positions| positions.reshape((1, grid.0, grid.1, ()))?.repeat((b, 1, 1, 1)))
            .transpose()?;
        self.projection
            .forward_patches(x, None, self.patch, positions.as_ref(), self.dtype)?
            .flatten(1, 2)
    }
}
