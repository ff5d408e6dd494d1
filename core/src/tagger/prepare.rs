//! From pictures to the network's input.
//!
//! The steps of the reference (the WD tagger's space): lay the picture over white, pad it to a
//! centred white square, resample bicubically to the input's side; or those that the model's folder
//! lists. Prepared pictures stay 8-bit RGB, a quarter of the size of the floats that the network takes.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::config::{ChannelOrder, InputSpec};
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

/// Prepared pictures as the network's input `(b, 3, h, w)`.
pub(super) fn to_input(batch: &[Prepared], spec: &InputSpec, at: &Placement) -> Result<Tensor> {
    let (height, width) = spec.size;
    let area = height * width;
    let mut values = vec![0f32; batch.len() * 3 * area];
    values.par_chunks_mut(3 * area).zip(batch).for_each(|(values, pixels)| {
        for (channel, plane) in values.chunks_exact_mut(area).enumerate() {
            let source = match spec.channels {
                ChannelOrder::Rgb => channel,
                ChannelOrder::Bgr => 2 - channel,
            };
            let (mean, std) = (spec.mean[channel], spec.std[channel]);
            for (value, pixel) in plane.iter_mut().zip(pixels.chunks_exact(3)) {
                *value = (f32::from(pixel[source]) / 255.0 - mean) / std;
            }
        }
    });
    Tensor::from_vec(values, (batch.len(), 3, height, width), &candle_core::Device::Cpu)?
        .to_dtype(at.dtype())?
        .to_device(at.candle())
}
