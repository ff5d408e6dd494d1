//! Encoding pictures: PNG, JPEG and lossless WebP.

use std::path::Path;
use std::str::FromStr;

use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};
use libjpeg_turbo_rs::{Encoder as JpegEncoder, PixelFormat, Subsampling};

use super::Image;
use super::file_text::FileText;
use crate::error::{Error, ErrorKind, Result};

/// Most bytes of EXIF in JPEG: a segment has 65535 with its length and the head of EXIF.
const MOST_EXIF: usize = 65_535 - 2 - 6;

/// A format that pictures are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageFormat {
    /// PNG, lossless.
    #[default]
    Png,
    /// JPEG, without subsampling of colours. It has no alpha: that is laid over white.
    Jpeg {
        /// From 1 to 100.
        quality: u8,
    },
    /// WebP, lossless.
    WebP,
}

impl ImageFormat {
    /// JPEG of a quality that is hard to tell from the original.
    pub const JPEG: Self = Self::Jpeg { quality: 95 };

    /// The usual end of a file's name, without a dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg { .. } => "jpg",
            Self::WebP => "webp",
        }
    }
}

impl FromStr for ImageFormat {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "png" => Ok(Self::Png),
            "jpg" | "jpeg" => Ok(Self::JPEG),
            "webp" => Ok(Self::WebP),
            _ => Err(Error::invalid_input(format!(
                "pictures are not written as `{name}`; known: png, jpeg, webp"
            ))
            .with("field", "format")),
        }
    }
}

impl Image {
    /// Encodes the picture.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if the format cannot hold a picture of this size or
    /// the quality is out of range.
    pub fn encode(&self, format: ImageFormat) -> Result<Vec<u8>> {
        self.encode_with(format, None)
    }

    /// The same with a text in the file.
    pub(crate) fn encode_with(
        &self,
        format: ImageFormat,
        text: Option<&FileText>,
    ) -> Result<Vec<u8>> {
        match format {
            ImageFormat::Png => self.png(text),
            ImageFormat::Jpeg { quality } => self.jpeg(quality, text),
            ImageFormat::WebP => self.webp(text),
        }
    }

    /// Writes the picture to a file, in the format that the end of its name says: `.png`, `.jpg`,
    /// `.jpeg` or `.webp`. The file appears under its name only when it is whole.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for any other name and as [`encode`](Self::encode),
    /// [`Io`](ErrorKind::Io) if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_with(path.as_ref(), None)
    }

    /// The same with a text in the file.
    pub(crate) fn save_with(&self, path: &Path, text: Option<&FileText>) -> Result<()> {
        let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
        let bytes = self.encode_with(end.parse()?, text);
        let bytes = bytes.map_err(|e| e.with("file", path.display()))?;
        let failed = |e| Error::io("write the image", path, e);
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        std::fs::write(&part, bytes).map_err(failed)?;
        std::fs::rename(&part, path).map_err(failed)
    }

    fn png(&self, text: Option<&FileText>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(if self.has_alpha { png::ColorType::Rgba } else { png::ColorType::Rgb });
        encoder.set_depth(png::BitDepth::Eight);
        for (keyword, text) in text.iter().flat_map(|text| text.chunks()) {
            let (keyword, is_latin) = (keyword.to_owned(), text.chars().all(|c| c <= '\u{ff}'));
            // As Pillow does it: the plain kind of text is for Latin letters only.
            match is_latin {
                true => encoder.add_text_chunk(keyword, text.to_owned()),
                false => encoder.add_itxt_chunk(keyword, text.to_owned()),
            }
            .map_err(|e| cannot("PNG", e))?;
        }
        let mut writer = encoder.write_header().map_err(|e| cannot("PNG", e))?;
        writer.write_image_data(&self.pixels).map_err(|e| cannot("PNG", e))?;
        writer.finish().map_err(|e| cannot("PNG", e))?;
        Ok(bytes)
    }

    fn jpeg(&self, quality: u8, text: Option<&FileText>) -> Result<Vec<u8>> {
        if !(1..=100).contains(&quality) {
            return Err(Error::invalid_input(format!("a JPEG quality of {quality}, not 1 to 100"))
                .with("field", "quality"));
        }
        if self.width.max(self.height) > u32::from(u16::MAX) {
            return Err(cannot("JPEG", "a side has more than 65535 pixels"));
        }
        let exif = text.map(FileText::exif);
        if let Some(exif) = exif.as_ref().filter(|exif| exif.len() > MOST_EXIF) {
            let message = format!("its text has {} bytes; at most {MOST_EXIF}", exif.len());
            return Err(cannot("JPEG", message).with("field", "metadata"));
        }
        let pixels = self.to_rgb8_over([255; 3]);
        let size = (self.width as usize, self.height as usize);
        let encoder = JpegEncoder::new(&pixels, size.0, size.1, PixelFormat::Rgb);
        match &exif {
            Some(exif) => encoder.exif_data(exif),
            None => encoder,
        }
        .quality(quality)
        // Without it low qualities get tables of 16 bits, which not every decoder reads.
        .force_baseline(true)
        .subsampling(Subsampling::S444)
        .encode()
        .map_err(|e| cannot("JPEG", e))
    }

    fn webp(&self, text: Option<&FileText>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let color = if self.has_alpha { ExtendedColorType::Rgba8 } else { ExtendedColorType::Rgb8 };
        let mut encoder = WebPEncoder::new_lossless(&mut bytes);
        if let Some(text) = text {
            encoder.set_exif_metadata(text.exif()).map_err(|e| cannot("WebP", e))?;
        }
        encoder
            .encode(&self.pixels, self.width, self.height, color)
            .map_err(|e| cannot("WebP", e))?;
        Ok(bytes)
    }
}

fn cannot(format: &str, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("cannot write the picture as {format}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(has_alpha: bool) -> Image {
        let channels = if has_alpha { 4 } else { 3 };
        let pixels: Vec<u8> = (0..21 * 13 * channels).map(|i| (i * 7 % 251) as u8).collect();
        match has_alpha {
            true => Image::from_rgba8(21, 13, pixels).unwrap(),
            false => Image::from_rgb8(21, 13, pixels).unwrap(),
        }
    }

    #[test]
    fn lossless_formats_give_the_same_pixels_back() {
        for has_alpha in [false, true] {
            let picture = picture(has_alpha);
            for format in [ImageFormat::Png, ImageFormat::WebP] {
                let found = Image::decode(&picture.encode(format).unwrap()).unwrap();
                assert_eq!(found, picture, "{format:?}");
            }
        }
    }

    #[test]
    fn jpeg_is_close_and_flat_colours_stay() {
        let flat = Image::from_rgb8(40, 30, [200, 90, 30].repeat(1200)).unwrap();
        let found = Image::decode(&flat.encode(ImageFormat::JPEG).unwrap()).unwrap();
        assert_eq!((found.width(), found.height()), (40, 30));
        let off = found.pixels().iter().zip(flat.pixels()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(off.unwrap() <= 2, "{off:?}");
        assert!(flat.encode(ImageFormat::Jpeg { quality: 0 }).is_err());
    }

    #[test]
    fn jpeg_of_every_quality_is_baseline() {
        for quality in [1, 10, 25, 50, 95, 100] {
            let bytes = picture(false).encode(ImageFormat::Jpeg { quality }).unwrap();
            let after = |marker: u8| {
                let at = bytes.windows(2).position(|pair| pair == [0xFF, marker]);
                at.map(|at| bytes[at + 4])
            };
            // The start of a baseline frame; the upper half of a table's first byte is its precision.
            assert!(after(0xC0).is_some(), "{quality}");
            assert_eq!(after(0xDB).unwrap() >> 4, 0, "{quality}");
            assert_eq!(Image::decode(&bytes).unwrap().height(), 13);
        }
    }

    #[test]
    fn files_are_named_by_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let picture = picture(false);
        for name in ["a.png", "b.JPG", "c.webp"] {
            picture.save(folder.path().join(name)).unwrap();
            assert_eq!(Image::open(folder.path().join(name)).unwrap().width(), 21);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
        for name in ["d.gif", "e", "f.png.txt"] {
            let error = picture.save(folder.path().join(name)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
        }
        let error = picture.save(folder.path().join("none/a.png")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
    }
}
