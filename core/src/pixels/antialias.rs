//! Bicubic resampling as torchvision does it for 8-bit tensors with antialiasing.
//!
//! It follows Pillow in everything but the order: rows come first whatever the sizes are. Weights
//! have 16 bits there and here, so the results are equal, not only close.

use fast_image_resize::{FilterType, Resizer};

use super::resize::resample_by;
use super::steps::{Size, check};
use crate::error::Result;

/// RGB pixels of a picture of size `from`, resampled to `to`.
pub(crate) fn resize_antialiased(pixels: &[u8], from: Size, to: Size) -> Result<Vec<u8>> {
    let between = (to.0, from.1);
    check(between)?;
    check(to)?;
    let mut resizer = Resizer::new();
    let mut rows = vec![0; between.0 * between.1 * 3];
    resample_by(&mut resizer, pixels, from, &mut rows, between, FilterType::CatmullRom)?;
    let mut out = vec![0; to.0 * to.1 * 3];
    resample_by(&mut resizer, &rows, between, &mut out, to, FilterType::CatmullRom)?;
    Ok(out)
}
