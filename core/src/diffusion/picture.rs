//! From the values of an autoencoder to a picture.

use candle_core::Tensor;

use crate::device::classify;
use crate::error::{Error, Result};
use crate::pixels::Image;

/// Values `(h, w, 3)` between -1 and 1 as a picture, brought to 8 bits as diffusers does, and as numbers
/// from 0 to 1 before that.
pub(crate) fn picture(values: &Tensor) -> Result<(Image, Vec<f32>)> {
    let failed = |e| classify(e, "cannot read a picture");
    let (height, width, _) = values.dims3().map_err(failed)?;
    let values: Vec<f32> = values
        .flatten_all()
        .and_then(|values| values.to_vec1::<f32>())
        .map_err(failed)?
        .into_iter()
        .map(|value| (value / 2.0 + 0.5).clamp(0.0, 1.0))
        .collect();
    if values.iter().any(|value| value.is_nan()) {
        let message = "the autoencoder answers with values that are no numbers";
        return Err(Error::model_invalid(message));
    }
    let pixels: Vec<u8> =
        values.iter().map(|value| (value * 255.0).round_ties_even() as u8).collect();
    Ok((Image::from_rgb8(width as u32, height as u32, pixels)?, values))
}
