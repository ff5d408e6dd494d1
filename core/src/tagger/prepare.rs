//! From pictures to the network's input.
//!
//! The steps of the reference (the WD tagger's space): lay the picture over white, pad it to a
//! centred white square, resample bicubically to the input's side; or those that the model's folder
//! lists. Prepared pictures stay 8-bit RGB, which is also what the network's
//! first layer takes.

use candle_core::{Result, Tensor};

use super::config::InputSpec;
use crate::device::Placement;
use crate::error;
use crate::pixels::{Image, apply_steps, resize_padded};

/// RGB pixels of the input's size.
pub(super) type Prepared = Vec<u8>;

/// One picture as RGB of the input's size.
pub(super) fn prepare(image: &Image, spec: &InputSpec) -> error::Result<Prepared> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let pixels = image.to_rgb8_over(spec.background);
    match &spec.steps {
        None => resize_padded(&pixels, width, height, spec.size.0, spec.background),
        Some(steps) => apply_steps(&pixels, (width, height), steps),
    }
}

/// Prepared pictures as the network's input: bytes `(b, h, w, 3)`. What scale and order of channels
/// it was trained with is part of its first layer.
pub(super) fn to_input(batch: &[Prepared], spec: &InputSpec, at: &Placement) -> Result<Tensor> {
    let (height, width) = spec.size;
    let pixels = batch.concat();
    Tensor::from_vec(pixels, (batch.len(), height, width, 3), &candle_core::Device::Cpu)?
        .to_device(at.candle())
}
