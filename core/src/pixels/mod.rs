//! Pictures: decoding with limits, and the resampling that models were trained with.

mod antialias;
mod bmp;
mod decode;
mod encode;
mod file_text;
mod format;
mod gif;
mod input;
mod jpeg;
mod png;
mod resize;
mod steps;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

pub(crate) use antialias::resize_antialiased;
pub use decode::DecodeOptions;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use decode::decode_any as decode_unguarded;
pub use encode::ImageFormat;
pub(crate) use file_text::FileText;
pub(crate) use format::EXTENSIONS;
pub use input::Input;
pub(crate) use resize::resize_padded;
pub(crate) use steps::{Filter, Size, Step, apply_steps};

use crate::error::{Error, Result, ResultExt};

/// A decoded picture: 8-bit RGB, with or without alpha. Cloning shares the pixels.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    width: u32,
    height: u32,
    has_alpha: bool,
    /// A `Vec` behind it and not a slice: decoders give one, which a slice would be a copy of.
    pixels: Arc<Vec<u8>>,
}

impl Image {
    /// Reads and decodes the file at `path`; its format is told by its bytes, not its name.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) if the file cannot be read, and those of
    /// [`decode`](Self::decode).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &DecodeOptions::default())
    }

    /// [`open`](Self::open) with options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: impl AsRef<Path>, options: &DecodeOptions) -> Result<Self> {
        let path = path.as_ref();
        let bytes = decode::read(path, options)?;
        Self::decode_with(&bytes, options).context("file", path.display())
    }

    /// Decodes an encoded picture: JPEG, PNG, WebP, BMP or GIF (of animations the first frame).
    ///
    /// # Errors
    /// [`ImageDecode`](crate::ErrorKind::ImageDecode) if the bytes are damaged or truncated,
    /// [`ImageTooLarge`](crate::ErrorKind::ImageTooLarge) if the picture exceeds the limits, and
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if it is of another format.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::decode_with(bytes, &DecodeOptions::default())
    }

    /// [`decode`](Self::decode) with options.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_with(bytes: &[u8], options: &DecodeOptions) -> Result<Self> {
        decode::decode(bytes, options)
    }

    /// From `width * height` RGB pixels of three bytes, row by row.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the number of bytes does not fit or a
    /// side is zero.
    pub fn from_rgb8(width: u32, height: u32, pixels: impl Into<Vec<u8>>) -> Result<Self> {
        Self::from_pixels(width, height, false, pixels.into())
    }

    /// From `width * height` RGBA pixels of four bytes, row by row, alpha not premultiplied.
    ///
    /// # Errors
    /// As [`from_rgb8`](Self::from_rgb8).
    pub fn from_rgba8(width: u32, height: u32, pixels: impl Into<Vec<u8>>) -> Result<Self> {
        Self::from_pixels(width, height, true, pixels.into())
    }

    fn from_pixels(width: u32, height: u32, has_alpha: bool, pixels: Vec<u8>) -> Result<Self> {
        let channels = if has_alpha { 4 } else { 3 };
        let expected = u64::from(width) * u64::from(height) * channels;
        if expected == 0 || pixels.len() as u64 != expected {
            return Err(Error::invalid_input(format!(
                "{} bytes are no {width} x {height} picture of {channels} channels",
                pixels.len()
            ))
            .with("field", "pixels"));
        }
        Ok(Self { width, height, has_alpha, pixels: Arc::new(pixels) })
    }

    /// The same picture as RGB if no pixel is transparent.
    fn without_opaque_alpha(self) -> Self {
        if self.pixels.iter().skip(3).step_by(4).any(|alpha| *alpha != 255) {
            return self;
        }
        Self { has_alpha: false, pixels: self.to_rgb8_over([0; 3]), ..self }
    }

    /// The width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// The height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Whether pixels have a fourth byte, alpha.
    pub fn has_alpha(&self) -> bool {
        self.has_alpha
    }

    /// The pixels, row by row, three or four bytes each.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The pixels as RGB, with transparent ones laid over `background`.
    ///
    /// Equals Pillow's `alpha_composite` on an opaque picture of that colour.
    pub(crate) fn to_rgb8_over(&self, background: [u8; 3]) -> Arc<Vec<u8>> {
        if !self.has_alpha {
            return self.pixels.clone();
        }
        let over = |(below, above): (u8, u8), alpha: u8| match alpha {
            255 => above,
            0 => below,
            alpha => composite(above, below, alpha),
        };
        let rgb = self.pixels.chunks_exact(4).flat_map(|pixel| {
            let alpha = pixel[3];
            [0, 1, 2].map(|i| over((background[i], pixel[i]), alpha))
        });
        Arc::new(rgb.collect())
    }
}

/// One channel of `alpha_composite` over an opaque pixel, in Pillow's fixed-point arithmetic:
/// weights with 7 more bits, a division by 255 as shifts.
fn composite(above: u8, below: u8, alpha: u8) -> u8 {
    const PRECISION: u32 = 7;
    let weight = u32::from(alpha) << PRECISION;
    let scaled = u32::from(above) * weight + u32::from(below) * ((255 << PRECISION) - weight);
    let scaled = scaled + (0x80 << PRECISION);
    ((((scaled >> 8) + scaled) >> 8) >> PRECISION) as u8
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mode = if self.has_alpha { "rgba8" } else { "rgb8" };
        write!(f, "Image({} x {} {mode})", self.width, self.height)
    }
}
