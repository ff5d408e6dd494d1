//! What kind of file some bytes are, told by their beginning.

use crate::error::{Error, Result};

/// Extensions of the files that a folder run picks up, in lower case.
pub(crate) const EXTENSIONS: &[&str] = &["jpg", "jpeg", "jfif", "png", "webp", "bmp", "gif"];

/// The formats that are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Jpeg,
    Png,
    WebP,
    Bmp,
    Gif,
}

/// The format of `bytes`, or an error that says what they are instead.
pub(super) fn detect(bytes: &[u8]) -> Result<Format> {
    match bytes {
        [] => Err(Error::decode("the image is empty")),
        [0xFF, 0xD8, 0xFF, ..] => Ok(Format::Jpeg),
        [0x89, b'P', b'N', b'G', 0x0D, 0x0A, 0x1A, 0x0A, ..] => Ok(Format::Png),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Format::WebP),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Ok(Format::Gif),
        [b'B', b'M', ..] => Ok(Format::Bmp),
        other => Err(match known(other) {
            Some(name) => Error::unsupported(format!(
                "{name} files are not supported; supported are JPEG, PNG, WebP, BMP and GIF"
            )),
            None => Error::decode(
                "the bytes are no image of a known format (JPEG, PNG, WebP, BMP, GIF)",
            ),
        }),
    }
}

/// The name of a format that people have but that is not decoded.
fn known(bytes: &[u8]) -> Option<&'static str> {
    let brand = bytes.get(4..12).filter(|b| b.starts_with(b"ftyp")).map(|b| &b[4..]);
    if let Some(brand) = brand {
        return Some(match brand {
            b"avif" | b"avis" => "AVIF",
            b"heic" | b"heix" | b"hevc" | b"mif1" | b"msf1" => "HEIC",
            b"crx " => "CR3",
            _ => "MP4",
        });
    }
    let text = bytes.trim_ascii_start();
    Some(match bytes {
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "TIFF",
        [0xFF, 0x0A, ..] | [0, 0, 0, 0x0C, b'J', b'X', b'L', b' ', ..] => "JPEG XL",
        [0, 0, 0, 0x0C, b'j', b'P', ..] => "JPEG 2000",
        [b'%', b'P', b'D', b'F', ..] => "PDF",
        [b'8', b'B', b'P', b'S', ..] => "PSD",
        [b'#', b'?', b'R', b'A', ..] => "Radiance HDR",
        [0x76, 0x2F, 0x31, 0x01, ..] => "OpenEXR",
        [b'q', b'o', b'i', b'f', ..] => "QOI",
        [b'D', b'D', b'S', b' ', ..] => "DDS",
        [0, 0, 1, 0, ..] => "ICO",
        [b'P', b'K', 3, 4, ..] => "ZIP",
        _ if text.starts_with(b"<svg") || text.starts_with(b"<?xml") => "SVG",
        _ => return None,
    })
}
