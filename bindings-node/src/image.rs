//! Decoded pictures. JavaScript sees their pixels as a copy, made when it asks for it: memory that
//! both sides share could be written there while a thread reads it here, and some hosts of Node forbid
//! it altogether.

use std::cell::Cell;

use napi::Env;
use napi::bindgen_prelude::{Buffer, ObjectFinalize, Uint8ArraySlice};
use napi_derive::napi;
use tagbrush::{ImageFormat, Input, Result};

use crate::errors::{Answer, answer, invalid};
use crate::image_in::Given;
use crate::lane::Lane;
use crate::running::{Listener, QUIET, Running, start};

/// A picture.
#[napi(custom_finalize)]
pub struct Image {
    pub(crate) image: tagbrush::Image,
    /// Whether the garbage collector was told how much memory hangs on this.
    is_counted: Cell<bool>,
}

impl ObjectFinalize for Image {
    fn finalize(self, env: Env) -> napi::Result<()> {
        if self.is_counted.get() {
            env.adjust_external_memory(-self.bytes())?;
        }
        Ok(())
    }
}

#[napi]
impl Image {
    pub(crate) fn new(image: tagbrush::Image) -> Self {
        Self { image, is_counted: Cell::new(false) }
    }

    fn bytes(&self) -> i64 {
        self.image.pixels().len() as i64
    }

    /// Tells the garbage collector how much memory it would free.
    #[napi]
    pub fn count(&self, env: Env) -> napi::Result<()> {
        if !self.is_counted.replace(true) {
            env.adjust_external_memory(self.bytes())?;
        }
        Ok(())
    }

    /// From pixels that are here already.
    #[napi]
    pub fn from_pixels(source: Given) -> Answer<Image> {
        answer(source.0.and_then(|input| match input {
            Input::Image(image) => Ok(Image::new(image)),
            _ => Err(invalid("source", "expected pixels")),
        }))
    }

    /// Reads and decodes a picture.
    #[napi]
    pub fn load(source: Given, listener: Listener<'_>) -> Answer<Running> {
        answer(start(Lane::pictures(), listener, QUIET, move |_| {
            let image = match source.0? {
                Input::Path(path) => tagbrush::Image::open(path)?,
                Input::Bytes(bytes) => tagbrush::Image::decode(&bytes)?,
                Input::Image(image) => image,
                _ => return Err(invalid("source", "a picture of an unknown kind")),
            };
            Ok(Image::new(image))
        }))
    }

    /// The width in pixels.
    #[napi(getter)]
    pub fn width(&self) -> u32 {
        self.image.width()
    }

    /// The height in pixels.
    #[napi(getter)]
    pub fn height(&self) -> u32 {
        self.image.height()
    }

    /// Whether pixels have a fourth byte.
    #[napi(getter)]
    pub fn has_alpha(&self) -> bool {
        self.image.has_alpha()
    }

    /// A copy of the pixels.
    #[napi]
    pub fn pixels<'env>(&self, env: &'env Env) -> napi::Result<Uint8ArraySlice<'env>> {
        Uint8ArraySlice::copy_from(env, self.image.pixels())
    }

    /// Whether another picture has the same pixels.
    #[napi]
    pub fn equals(&self, other: &Image) -> bool {
        self.image == other.image
    }

    /// The bytes of a file.
    #[napi]
    pub fn encode(
        &self,
        format: String,
        quality: Option<f64>,
        listener: Listener<'_>,
    ) -> Answer<Running> {
        let image = self.image.clone();
        answer(file_format(&format, quality).and_then(|format| {
            start(Lane::pictures(), listener, QUIET, move |_| {
                image.encode(format).map(Buffer::from)
            })
        }))
    }

    /// Writes a file.
    #[napi]
    pub fn save(&self, path: String, listener: Listener<'_>) -> Answer<Running> {
        let image = self.image.clone();
        answer(start(Lane::pictures(), listener, QUIET, move |_| image.save(path)))
    }
}

/// A format by its name, with the quality that only one of them has.
pub(crate) fn file_format(name: &str, quality: Option<f64>) -> Result<ImageFormat> {
    match (name.parse()?, quality) {
        (format, None) => Ok(format),
        (ImageFormat::Jpeg { .. }, Some(quality)) if quality.fract() == 0.0 => {
            // What is no byte becomes 0 or 255, which the core refuses by name.
            Ok(ImageFormat::Jpeg { quality: quality as u8 })
        }
        (ImageFormat::Jpeg { .. }, Some(quality)) => {
            Err(invalid("quality", format!("expected a whole number, got {quality}")))
        }
        (_, Some(_)) => Err(invalid("quality", "only JPEG has a quality")),
    }
}

/// An image of pixels with 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA) channels.
pub(crate) fn from_channels(
    width: u32,
    height: u32,
    channels: u32,
    values: &[u8],
) -> Result<tagbrush::Image> {
    let expected = u64::from(width) * u64::from(height) * u64::from(channels);
    if values.len() as u64 != expected {
        let message = format!(
            "{} bytes are no {width} x {height} picture of {channels} channels",
            values.len()
        );
        return Err(invalid("data", message));
    }
    match channels {
        1 => {
            let rgb: Vec<u8> = values.iter().flat_map(|grey| [*grey; 3]).collect();
            tagbrush::Image::from_rgb8(width, height, rgb)
        }
        2 => {
            let rgba =
                values.chunks_exact(2).flat_map(|pixel| [pixel[0], pixel[0], pixel[0], pixel[1]]);
            tagbrush::Image::from_rgba8(width, height, rgba.collect::<Vec<u8>>())
        }
        3 => tagbrush::Image::from_rgb8(width, height, values),
        4 => tagbrush::Image::from_rgba8(width, height, values),
        _ => Err(invalid("channels", format!("{channels} channels, expected 1 to 4"))),
    }
}
