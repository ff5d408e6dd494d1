//! Decoding with limits: sizes are read from headers and checked before pixels are allocated.

use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::codecs::{bmp::BmpDecoder, webp::WebPDecoder};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder};

use super::format::{Format, detect};
use super::{Image, bmp, gif, jpeg, png};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Limits;

/// How pictures are decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DecodeOptions {
    /// What a picture may cost at most.
    pub limits: Limits,
    /// Accept JPEG files whose end is missing, as far as they go; off unless set.
    pub tolerate_truncated: bool,
    /// Turn the picture as its EXIF orientation says. Unless set, pictures to edit are turned and
    /// pictures to tag are not, as in the taggers' reference.
    pub apply_orientation: Option<bool>,
}

impl DecodeOptions {
    /// The same options with other limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The same options, accepting truncated JPEG files or not.
    #[must_use]
    pub fn tolerate_truncated(mut self, tolerate: bool) -> Self {
        self.tolerate_truncated = tolerate;
        self
    }

    pub(super) fn is_turning(&self) -> bool {
        self.apply_orientation.unwrap_or(false)
    }

    /// The same options, applying the EXIF orientation or not.
    #[must_use]
    pub fn apply_orientation(mut self, apply: bool) -> Self {
        self.apply_orientation = Some(apply);
        self
    }
}

/// The bytes of a file that is not longer than the limits allow.
pub(super) fn read(path: &Path, options: &DecodeOptions) -> Result<Vec<u8>> {
    let limit = options.limits.max_encoded_bytes;
    let unreadable = |e| Error::io("read the image", path, e);
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too long from one that just fits, and a
    // device or a growing file is never read without end.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    check_encoded(bytes.len() as u64, limit).map_err(|e| e.with("file", path.display()))?;
    Ok(bytes)
}

pub(super) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Image> {
    check_encoded(bytes.len() as u64, options.limits.max_encoded_bytes)?;
    guarded(|| decode_any(bytes, options))
}

/// What `work` gives, with a panic inside of it made an error: decoders are large, and the bytes are
/// anyone's.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // Everything that `work` could leave half done is local to it.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Error::decode(format!("the decoder broke down on the image: {text}")))
    })
}

/// [`decode`] without the guard around our own code, so that fuzzing finds its panics.
pub(crate) fn decode_any(bytes: &[u8], options: &DecodeOptions) -> Result<Image> {
    let data = Cursor::new(bytes);
    let (image, orientation) = match detect(bytes)? {
        Format::Jpeg => jpeg::decode(bytes, options)?,
        Format::Png => png::decode(bytes, options)?,
        Format::WebP => finish(WebPDecoder::new(data).map_err(damaged)?, options)?,
        Format::Bmp => {
            let (image, _) = finish(BmpDecoder::new(data).map_err(damaged)?, options)?;
            (bmp::rescale_16_bit(bytes, image)?, None)
        }
        Format::Gif => (gif::decode(bytes, options)?, None),
    };
    match orientation {
        Some(orientation) if options.is_turning() => Ok(turned(&image, orientation)),
        _ => Ok(image),
    }
}

/// Most bytes for what a file holds besides its pixels.
pub(super) const MAX_AUXILIARY: u64 = 64 << 20;

fn finish(
    mut decoder: impl ImageDecoder,
    options: &DecodeOptions,
) -> Result<(Image, Option<Orientation>)> {
    let (width, height) = decoder.dimensions();
    check_size(width, height, &options.limits)?;
    decoder.set_limits(image::Limits::no_limits()).map_err(damaged)?;
    let orientation = options.is_turning().then(|| decoder.orientation().ok()).flatten();
    let image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    Ok((from_dynamic(image)?, orientation))
}

/// What the decoders of BMP and WebP give: 8-bit RGB or RGBA.
fn from_dynamic(image: DynamicImage) -> Result<Image> {
    let (width, height) = (image.width(), image.height());
    match image {
        DynamicImage::ImageRgba8(image) => Image::from_rgba8(width, height, image.into_raw()),
        other => Image::from_rgb8(width, height, other.into_rgb8().into_raw()),
    }
}

fn turned(image: &Image, orientation: Orientation) -> Image {
    let (width, height) = (image.width, image.height);
    let pixels = image.pixels.to_vec();
    let dynamic = if image.has_alpha {
        image::RgbaImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgba8)
    } else {
        image::RgbImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8)
    };
    dynamic
        .and_then(|mut dynamic| {
            dynamic.apply_orientation(orientation);
            from_dynamic(dynamic).ok()
        })
        .unwrap_or_else(|| image.clone())
}

fn check_encoded(length: u64, limit: u64) -> Result<()> {
    if length <= limit {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::ImageTooLarge,
        format!("the encoded image is longer than the limit of {limit} bytes"),
    ))
}

/// Fails if a picture of this size exceeds the limits. Called before pixels are allocated.
pub(super) fn check_size(width: u32, height: u32, limits: &Limits) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(Error::decode(format!("the image is {width} x {height} pixels")));
    }
    let pixels = u64::from(width) * u64::from(height);
    if width.max(height) <= limits.max_side && pixels <= limits.max_pixels {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::ImageTooLarge,
        format!(
            "the image is {width} x {height} pixels; the limits are {} pixels and {} a side",
            limits.max_pixels, limits.max_side
        ),
    ))
}

fn damaged(error: image::ImageError) -> Error {
    let kind = match &error {
        image::ImageError::Limits(_) => ErrorKind::ImageTooLarge,
        image::ImageError::Unsupported(_) => ErrorKind::Unsupported,
        _ => ErrorKind::ImageDecode,
    };
    Error::new(kind, format!("cannot decode the image: {error}")).caused_by(error)
}
