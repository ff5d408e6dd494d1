//! JPEG: bit for bit what libjpeg-turbo (and so Pillow) decodes, and the check for missing data.
//!
//! Decoders commonly fill what a truncated file lacks with grey and report success. The reference
//! refuses such a file, and a tag on half a picture is wrong without anyone noticing. Damaged data
//! *inside* a complete file is another matter: there the reference goes on, and so do we.

use std::borrow::Cow;

use image::metadata::Orientation;
use libjpeg_turbo_rs::decode::pipeline::Decoder;
use libjpeg_turbo_rs::{ColorSpace, JpegError, PixelFormat};

use super::Image;
use super::decode::{DecodeOptions, check_size, guarded};
use crate::error::{Error, ErrorKind, Result};

/// Most scans of a progressive file; encoders write about ten.
const MAX_SCANS: u32 = 500;

pub(super) fn decode(
    bytes: &[u8],
    options: &DecodeOptions,
) -> Result<(Image, Option<Orientation>)> {
    let bytes = match missing_end(bytes) {
        None => Cow::Borrowed(bytes),
        // With its end in place, what is missing is taken for damage inside, and filled.
        Some(last) if options.tolerate_truncated => {
            Cow::Owned([&bytes[..last], &[0xFF, 0xD9]].concat())
        }
        Some(_) => {
            return Err(Error::decode("the JPEG is truncated: its end of image is missing"));
        }
    };
    let mut decoder = Decoder::new(&bytes).map_err(damaged)?;
    let header = decoder.header();
    let (width, height) = (u32::from(header.width), u32::from(header.height));
    check_size(width, height, &options.limits)?;
    if header.precision != 8 {
        let bits = header.precision;
        return Err(Error::unsupported(format!("JPEG with {bits} bits a sample is not supported")));
    }
    let orientation = decoder.exif_orientation().and_then(Orientation::from_exif);
    let format = match decoder.jpeg_color_space() {
        ColorSpace::Grayscale => PixelFormat::Grayscale,
        ColorSpace::Cmyk | ColorSpace::Ycck => PixelFormat::Cmyk,
        _ => PixelFormat::Rgb,
    };
    decoder.set_output_format(format);
    decoder.set_lenient(true);
    decoder.set_scan_limit(MAX_SCANS);
    // Four components sampled 3 to 1 are known to panic in the decoder.
    let pixels = guarded(|| Ok(decoder.decode_image().map_err(damaged)?.data))?;
    let rgb = match format {
        PixelFormat::Grayscale => pixels.iter().flat_map(|v| [*v; 3]).collect(),
        PixelFormat::Cmyk => pixels.chunks_exact(4).flat_map(inverted_cmyk_to_rgb).collect(),
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

/// Where the end-of-image marker belongs if the stream has none: behind the last segment that is
/// whole. Found by walking the segments, since thumbnails inside of them have end markers of their
/// own.
fn missing_end(bytes: &[u8]) -> Option<usize> {
    const END_OF_IMAGE: u8 = 0xD9;
    let mut at = 2;
    loop {
        // To the next marker: 0xFF, then neither a stuffed zero, a restart nor another fill byte.
        let marker = loop {
            match bytes.get(at..at + 2) {
                None => return Some(bytes.len()),
                Some([0xFF, marker]) if !matches!(*marker, 0x00 | 0xFF | 0xD0..=0xD7) => {
                    break *marker;
                }
                Some(_) => at += 1,
            }
        };
        let start = at;
        at += 2;
        if marker == END_OF_IMAGE {
            return None;
        }
        if matches!(marker, 0x01 | 0xD8) {
            continue; // Markers without a segment.
        }
        let Some(length) = bytes.get(at..at + 2) else { return Some(start) };
        let length = usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
        if at + length > bytes.len() {
            return Some(start);
        }
        at += length;
    }
}

fn damaged(error: JpegError) -> Error {
    let kind = match error {
        JpegError::Unsupported(_) => ErrorKind::Unsupported,
        JpegError::LimitExceeded { .. } => ErrorKind::ImageTooLarge,
        JpegError::AllocationFailed { .. } => ErrorKind::OutOfMemory,
        _ => ErrorKind::ImageDecode,
    };
    Error::new(kind, format!("cannot decode the JPEG: {error}")).caused_by(error)
}
