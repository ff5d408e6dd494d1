//! The head of Fooocus' inpaint engine: a convolution that tells the denoising network what is around the part of a picture
//! that is made anew. What it gives is added to what the network's first layer gives.

use candle_core::{DType, Result, Tensor};

use crate::device::classify;
use crate::error::{self, Error};
use crate::nn::{Conv2d, Window};
use crate::weights::Scope;

/// A window of three by three pixels without anything around the picture.
const INSIDE: Window = Window { size: (3, 3), stride: (1, 1), rows: (0, 0), columns: (0, 0) };

/// A convolution of a mask and latents, whose border is repeated.
pub(crate) struct InpaintHead {
    conv: Conv2d,
    dtype: DType,
}

impl InpaintHead {
    /// From the tensor `head` `(width, 1 + channels, 3, 3)`, for a network whose first layer has `width` channels and
    /// takes latents of `channels`.
    pub(crate) fn load(scope: &Scope, width: usize, channels: usize) -> error::Result<Self> {
        let weight = scope.get_f32((width, 1 + channels, 3, 3), "head")?;
        let bias = Tensor::zeros(width, DType::F32, scope.device())
            .map_err(|e| classify(e, "cannot make a bias"))?;
        Ok(Self { conv: Conv2d::new(&weight, &bias, INSIDE)?, dtype: scope.dtype() })
    }

    /// A mask `(h, w, 1)`, 1 where the picture is made anew, and the latents `(h, w, c)` of the picture without that
    /// part, to `(h, w, width)`.
    pub(crate) fn forward(&self, mask: &Tensor, latents: &Tensor) -> error::Result<Tensor> {
        let run = || {
            let seen = Tensor::cat(&[mask, latents], 2)?.to_dtype(DType::F32)?.unsqueeze(0)?;
            let seen = repeated(&repeated(&seen, 1)?, 2)?;
            self.conv.forward(&seen.contiguous()?, None)?.squeeze(0)?.to_dtype(self.dtype)
        };
        match (mask.dims(), latents.dims()) {
            ([h, w, 1], [height, width, _]) if (h, w) == (height, width) && h * w > 0 => {
                run().map_err(|e| classify(e, "cannot prepare the inpaint engine"))
            }
            (mask, latents) => Err(Error::invalid_input(format!(
                "a mask of shape {mask:?} with latents of shape {latents:?}"
            ))),
        }
    }
}

/// With the first and the last of a dimension twice.
fn repeated(x: &Tensor, dim: usize) -> Result<Tensor> {
    let last = x.dim(dim)? - 1;
    Tensor::cat(&[&x.narrow(dim, 0, 1)?, x, &x.narrow(dim, last, 1)?], dim)
}
