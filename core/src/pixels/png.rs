//! PNG, with Pillow's reading of the rare kinds: 16-bit grey is clipped, not scaled, and a
//! transparent colour is compared with samples after they were brought to 8 bits.

use std::borrow::Cow;
use std::io::Cursor;

use image::metadata::Orientation;
use png::{BitDepth, ColorType, Decoder, DecodingError, Limits, Transformations};

use super::Image;
use super::decode::{DecodeOptions, MAX_AUXILIARY, check_size};
use crate::error::{Error, ErrorKind, Result};

/// The chunk `IEND`.
const END: &[u8] = b"\0\0\0\0IEND\xAE\x42\x60\x82";

pub(super) fn decode(
    bytes: &[u8],
    options: &DecodeOptions,
) -> Result<(Image, Option<Orientation>)> {
    let bytes = match check_chunks(bytes)? {
        Some(last) => Cow::Owned([&bytes[..last], END].concat()),
        None => Cow::Borrowed(bytes),
    };
    // The size of the pixels is checked below; this bounds compressed text and profiles.
    let limits = Limits { bytes: MAX_AUXILIARY as usize };
    let mut decoder = Decoder::new_with_limits(Cursor::new(&bytes[..]), limits);
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.ignore_checksums(true); // Those that the reference checks are checked above.
    let header = decoder.read_header_info().map_err(damaged)?;
    let (width, height) = (header.width, header.height);
    check_size(width, height, &options.limits)?;
    let mut reader = decoder.read_info().map_err(damaged)?;
    let length = reader.output_buffer_size().ok_or_else(too_large)?;
    let mut data = vec![0; length];
    let frame = reader.next_frame(&mut data).map_err(damaged)?;
    // For an orientation behind the pixels. Damage there is nothing that the reference minds.
    let _ = reader.finish();
    let info = reader.info();
    let orientation = info
        .exif_metadata
        .as_deref()
        .filter(|_| options.is_turning())
        .and_then(Orientation::from_exif_chunk);
    let samples = Samples {
        data: &data,
        line: frame.line_size,
        depth: frame.bit_depth,
        per_line: width as usize * frame.color_type.samples(),
    };
    let key = info.trns.as_deref();
    let image = match frame.color_type {
        ColorType::Indexed => {
            let palette = Palette { rgb: info.palette.as_deref().unwrap_or_default(), alpha: key };
            let indices = samples.raw_bytes();
            Image::from_rgba8(width, height, palette.look_up(&indices))?.without_opaque_alpha()
        }
        ColorType::Grayscale => {
            let grey = samples.levels();
            let key = key.and_then(|key| key_samples(key, frame.bit_depth).first().copied());
            let pixels = grey.iter().map(|v| ([v.shown; 3], Some(v.compared) == key));
            with_key(width, height, pixels, key.is_some())?
        }
        ColorType::GrayscaleAlpha => {
            let values = samples.high_bytes();
            let rgba: Vec<u8> =
                values.chunks_exact(2).flat_map(|p| [p[0], p[0], p[0], p[1]]).collect();
            Image::from_rgba8(width, height, rgba)?
        }
        ColorType::Rgb => {
            let values = samples.high_bytes();
            let key = key.map(|key| key_samples(key, frame.bit_depth));
            let pixels = values.chunks_exact(3).map(|p| {
                let rgb = [p[0], p[1], p[2]];
                (rgb, key.as_ref().is_some_and(|key| rgb.map(u16::from)[..] == key[..]))
            });
            with_key(width, height, pixels, key.is_some())?
        }
        ColorType::Rgba => Image::from_rgba8(width, height, samples.high_bytes())?,
    };
    Ok((image, orientation))
}

/// Fails where the reference does: on a wrong checksum before the pixels, and on a chunk that the
/// file's end cuts. Checksums from the pixels on are not looked at. Gives where the chunk `IEND`
/// belongs if it is missing, which the reference does not mind.
fn check_chunks(bytes: &[u8]) -> Result<Option<usize>> {
    const SIGNATURE: usize = 8;
    let truncated = || Error::decode("the PNG is truncated");
    let mut at = SIGNATURE;
    let mut in_pixels = false;
    loop {
        let Some((length, rest)) = bytes.get(at..).and_then(<[u8]>::split_first_chunk::<4>) else {
            return if in_pixels { Ok(Some(at.min(bytes.len()))) } else { Err(truncated()) };
        };
        let length = u32::from_be_bytes(*length) as usize;
        let Some(name) = rest.get(..4) else {
            return if in_pixels { Ok(Some(at)) } else { Err(truncated()) };
        };
        let end = length.checked_add(4).ok_or_else(truncated)?;
        let body = rest.get(..end).ok_or_else(truncated)?;
        in_pixels |= name == b"IDAT";
        if name == b"IEND" {
            return Ok(None);
        }
        if !in_pixels {
            let sum = rest.get(end..end + 4).ok_or_else(truncated)?;
            if sum != crc32fast::hash(body).to_be_bytes() {
                let name = name.escape_ascii();
                return Err(Error::decode(format!("the PNG's chunk {name} has a wrong checksum")));
            }
        }
        at += 4 + end + 4;
    }
}

/// Pixels with the transparent ones marked; RGB when no pixel can be transparent.
fn with_key(
    width: u32,
    height: u32,
    pixels: impl Iterator<Item = ([u8; 3], bool)>,
    has_key: bool,
) -> Result<Image> {
    if !has_key {
        let rgb: Vec<u8> = pixels.flat_map(|(rgb, _)| rgb).collect();
        return Image::from_rgb8(width, height, rgb);
    }
    let rgba: Vec<u8> = pixels
        .flat_map(|([r, g, b], transparent)| [r, g, b, if transparent { 0 } else { 255 }])
        .collect();
    Image::from_rgba8(width, height, rgba)
}

/// The samples of a transparent colour, of which the decoder keeps one byte each unless the picture
/// has 16 bits.
fn key_samples(key: &[u8], depth: BitDepth) -> Vec<u16> {
    match depth {
        BitDepth::Sixteen => samples_of(key).collect(),
        _ => key.iter().copied().map(u16::from).collect(),
    }
}

/// Big-endian 16-bit samples.
fn samples_of(key: &[u8]) -> impl Iterator<Item = u16> {
    key.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

struct Palette<'a> {
    rgb: &'a [u8],
    alpha: Option<&'a [u8]>,
}

impl Palette<'_> {
    /// RGBA of every index; one beyond the palette is black.
    fn look_up(&self, indices: &[u8]) -> Vec<u8> {
        let mut table = [[0, 0, 0, 255]; 256];
        for (entry, rgb) in table.iter_mut().zip(self.rgb.chunks_exact(3)) {
            entry[..3].copy_from_slice(rgb);
        }
        for (entry, alpha) in table.iter_mut().zip(self.alpha.unwrap_or_default()) {
            entry[3] = *alpha;
        }
        indices.iter().flat_map(|index| table[usize::from(*index)]).collect()
    }
}

/// A grey level: what is shown, and what a transparent level is compared with.
struct Level {
    shown: u8,
    compared: u16,
}

/// The samples of a picture as the file packs them.
struct Samples<'a> {
    data: &'a [u8],
    line: usize,
    depth: BitDepth,
    per_line: usize,
}

impl Samples<'_> {
    /// One byte per sample of at most 8 bits, not scaled.
    fn raw_bytes(&self) -> Vec<u8> {
        let bits = self.depth as usize;
        if bits >= 8 {
            return self.data.to_vec();
        }
        let per_byte = 8 / bits;
        let mask = (1u8 << bits) - 1;
        let line = |line: &[u8]| -> Vec<u8> {
            (0..self.per_line)
                .map(|i| line[i / per_byte] >> (8 - bits - i % per_byte * bits) & mask)
                .collect()
        };
        self.data.chunks_exact(self.line.max(1)).flat_map(line).collect()
    }

    /// The high byte of every sample of 8 or 16 bits.
    fn high_bytes(&self) -> Vec<u8> {
        match self.depth {
            BitDepth::Sixteen => self.data.iter().copied().step_by(2).collect(),
            _ => self.data.to_vec(),
        }
    }

    fn levels(&self) -> Vec<Level> {
        match self.depth {
            BitDepth::Sixteen => samples_of(self.data)
                .map(|value| Level { shown: value.min(255) as u8, compared: value })
                .collect(),
            depth => {
                let largest = (1u16 << depth as u16) - 1;
                let shown = |value: u8| (u16::from(value) * 255 / largest) as u8;
                self.raw_bytes()
                    .into_iter()
                    .map(|value| Level { shown: shown(value), compared: shown(value).into() })
                    .collect()
            }
        }
    }
}

fn too_large() -> Error {
    Error::new(ErrorKind::ImageTooLarge, "the image does not fit into memory")
}

fn damaged(error: DecodingError) -> Error {
    let kind = match &error {
        DecodingError::LimitsExceeded => ErrorKind::ImageTooLarge,
        _ => ErrorKind::ImageDecode,
    };
    Error::new(kind, format!("cannot decode the PNG: {error}")).caused_by(error)
}
