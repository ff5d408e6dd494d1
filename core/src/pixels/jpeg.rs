//! JPEG: decoding through `zune-jpeg`, and the check for missing data that it does not make.
//!
//! Decoders commonly fill what a truncated file lacks with grey and report success. The reference
//! (Pillow) refuses such a file, and a tag on half a picture is wrong without anyone noticing.

use image::metadata::Orientation;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::Image;
use super::decode::{DecodeOptions, check_size};
use crate::error::{Error, Result};

pub(super) fn decode(
    bytes: &[u8],
    options: &DecodeOptions,
) -> Result<(Image, Option<Orientation>)> {
    if !options.tolerate_truncated && !is_complete(bytes) {
        return Err(Error::decode("the JPEG is truncated: its end of image is missing"));
    }
    let settings = DecoderOptions::new_fast()
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), settings);
    decoder.decode_headers().map_err(damaged)?;
    let info = decoder.info().ok_or_else(|| Error::decode("the JPEG has no frame"))?;
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    check_size(width, height, &options.limits)?;
    let orientation =
        decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
    let input = decoder.input_colorspace();
    let output = match input {
        Some(ColorSpace::Luma) => ColorSpace::Luma,
        Some(ColorSpace::CMYK) => ColorSpace::CMYK,
        _ => ColorSpace::RGB,
    };
    decoder.set_options(settings.jpeg_set_out_colorspace(output));
    let pixels = decoder.decode().map_err(damaged)?;
    let rgb = match output {
        ColorSpace::Luma => pixels.iter().flat_map(|v| [*v; 3]).collect(),
        ColorSpace::CMYK => pixels.chunks_exact(4).flat_map(inverted_cmyk_to_rgb).collect(),
        _ => pixels,
    };
    let image = Image::from_rgb8(width, height, rgb)
        .map_err(|e| Error::decode("the JPEG holds less than its size says").caused_by(e))?;
    Ok((image, orientation))
}

/// CMYK as Adobe stores it, 255 for no ink, in Pillow's rounding.
fn inverted_cmyk_to_rgb(pixel: &[u8]) -> [u8; 3] {
    let key = u32::from(pixel[3]);
    [0, 1, 2].map(|i| {
        let ink = 255 - u32::from(pixel[i]);
        let product = ink * key + 128;
        (key - (((product >> 8) + product) >> 8).min(key)) as u8
    })
}

/// Whether the stream has its end-of-image marker, found by walking the segments: thumbnails inside
/// of them have end markers of their own.
fn is_complete(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xDA;
    const END_OF_IMAGE: u8 = 0xD9;
    let mut at = 2;
    loop {
        // To the next marker: 0xFF, then neither a stuffed zero, a restart nor another fill byte.
        let marker = loop {
            match bytes.get(at..at + 2) {
                None => return false,
                Some([0xFF, marker]) if !matches!(*marker, 0x00 | 0xFF | 0xD0..=0xD7) => {
                    break *marker;
                }
                Some(_) => at += 1,
            }
        };
        at += 2;
        if marker == END_OF_IMAGE {
            return true;
        }
        if matches!(marker, 0x01 | 0xD8) {
            continue; // Markers without a segment.
        }
        let Some(length) = bytes.get(at..at + 2) else { return false };
        let length = usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
        if marker != START_OF_SCAN && at + length > bytes.len() {
            return false;
        }
        at += length;
    }
}

fn damaged(error: DecodeErrors) -> Error {
    Error::decode(format!("cannot decode the JPEG: {error:?}"))
}
