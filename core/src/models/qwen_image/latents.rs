//! Latents as tokens: every two by two of them become one, channels outside, as
//! `QwenImageEditPipeline._pack_latents` in diffusers orders them.

use candle_core::{Result, Tensor};

/// `(b, h, w, c)` to `(b, h / 2, w / 2, 4 c)`.
pub(crate) fn pack(latents: &Tensor) -> Result<Tensor> {
    let (b, h, w, c) = latents.dims4()?;
    if !h.is_multiple_of(2) || !w.is_multiple_of(2) {
        candle_core::bail!("latents of {h} x {w} have odd sides");
    }
    let pairs = latents.reshape((b, h / 2, 2, w / 2, 2, c))?;
    pairs.permute([0, 1, 3, 5, 2, 4])?.contiguous()?.reshape((b, h / 2, w / 2, 4 * c))
}

/// `(b, h, w, 4 c)` to `(b, 2 h, 2 w, c)`, the inverse of [`pack`].
pub(crate) fn unpack(tokens: &Tensor) -> Result<Tensor> {
    let (b, h, w, values) = tokens.dims4()?;
    if !values.is_multiple_of(4) {
        candle_core::bail!("tokens of {values} values are not two by two latents");
    }
    let c = values / 4;
    let pairs = tokens.reshape((b, h, w, c, 2, 2))?;
    pairs.permute([0, 1, 4, 2, 5, 3])?.contiguous()?.reshape((b, 2 * h, 2 * w, c))
}
