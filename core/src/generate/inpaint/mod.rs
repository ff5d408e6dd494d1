//! Making a part of a picture anew, or more of it at its sides, as Fooocus does: the network sees the part with some
//! of what is around it, at the size that it is good at, and what it makes is put back.

#[cfg(test)]
mod engine_tests;
mod fill;
mod mask;
#[cfg(test)]
mod tests;

use self::fill::filled;
use self::mask::Mask;
use super::options::{GenerateOptions, Outpaint};
use crate::error::{Error, Result};
use crate::pixels::{Filter, Image, Step, apply_steps};

/// How much more than the mask the area has on each side.
const AROUND: f64 = 1.15;
/// What the sides of an area are multiples of.
const MULTIPLE: f64 = 64.0;
/// From this strength on, the hole is filled before anything is made in it.
const FILLED_FROM: f64 = 0.99;
/// Longest side of a padded picture.
const MAX_SIDE: usize = 1 << 14;

/// Makes RGB pixels of a width and height larger, if it can.
pub(super) type Larger<'a> = dyn Fn(&[u8], (usize, usize)) -> Result<Option<Pixels>> + 'a;
/// RGB pixels with their width and height.
type Pixels = (Vec<u8>, (usize, usize));

/// What the network sees of a picture.
pub(super) struct Seen {
    /// The RGB pixels that it starts from.
    pub(super) pixels: Vec<u8>,
    /// Values of the picture from -1 to 1, and 0 where it is made anew.
    pub(super) masked: Vec<f32>,
    /// For each latent how much of it is made.
    pub(super) mask: Vec<f32>,
}

/// A part of a picture that is made anew.
pub(super) struct Area {
    /// The whole picture, padded: RGB.
    pixels: Vec<u8>,
    mask: Mask,
    /// Rows and columns of the area, the last ones excluded.
    place: [usize; 4],
    /// What the network makes of it.
    size: (usize, usize),
}

impl Area {
    /// Of a picture with a mask of the same size, or none, and what is added at its sides. `class` is the root of the
    /// number of pixels that the model is good at.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if there is nothing to make, or sizes differ.
    pub(super) fn new(
        image: &Image,
        mask: Option<&Image>,
        outpaint: Outpaint,
        options: &GenerateOptions,
        class: usize,
    ) -> Result<Self> {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let mask = match mask {
            Some(mask) if (mask.width(), mask.height()) == (image.width(), image.height()) => {
                Mask::of(mask).grown(options.mask_growth)
            }
            Some(mask) => {
                let message = format!(
                    "the mask has {} x {} pixels and the picture {width} x {height}",
                    mask.width(),
                    mask.height()
                );
                return Err(Error::invalid_input(message).with("field", "mask"));
            }
            None => Mask::none(width, height),
        };
        let (pixels, mask) = padded(&image.to_rgb8_over([255; 3]), mask, outpaint)?;
        let field = if outpaint.is_none() { options.inpaint_field } else { 1.0 };
        let bounds = mask.bounds().ok_or_else(|| {
            let message = "nothing of the mask is white, so there is nothing to make";
            Error::invalid_input(message).with("field", "mask")
        })?;
        let place = around(bounds, (mask.height, mask.width), field);
        let size = size_of(place[1] - place[0], place[3] - place[2], class);
        Ok(Self { pixels, mask, place, size })
    }

    /// Width and height that the network makes.
    pub(super) fn size(&self) -> (usize, usize) {
        self.size
    }

    /// Pixels of the whole picture, padded.
    pub(super) fn pixels(&self) -> usize {
        self.mask.values.len()
    }

    /// Width and height of what the network sees of it, before it is brought to its size.
    pub(super) fn seen(&self) -> (usize, usize) {
        let [top, bottom, left, right] = self.place;
        (right - left, bottom - top)
    }

    /// What the network sees, for latents of `latent` pixels. An area below the `class` that the model is good at is made
    /// larger by `larger`, if that can.
    pub(super) fn start(
        &self,
        strength: f64,
        (latent, class): (usize, usize),
        larger: &Larger<'_>,
    ) -> Result<Seen> {
        let (pixels, mask) = (self.cut(&self.pixels, 3), self.cut(&self.mask.values, 1));
        let [top, bottom, left, right] = self.place;
        let mask = Mask { width: right - left, height: bottom - top, values: mask };
        let from = (mask.width, mask.height);
        let is_small = super::aspect::class(from) < class;
        let made = is_small.then(|| larger(&pixels, from)).transpose()?.flatten();
        let (pixels, from) = made.unwrap_or((pixels, from));
        let step = Step::Stretch { size: self.size, filter: Filter::Lanczos };
        let pixels = apply_steps(&pixels, from, &[step])?;
        let mask = mask.resized(self.size.0, self.size.1)?;
        // What is made anew is grey, which is 0.
        let masked = pixels.iter().enumerate().map(|(i, value)| match mask.values[i / 3] {
            0 => f32::from(*value) / 127.5 - 1.0,
            _ => 0.0,
        });
        let masked = masked.collect();
        let pixels = match strength > FILLED_FROM {
            true => filled(&pixels, &mask),
            false => pixels,
        };
        Ok(Seen { pixels, masked, mask: mask.pooled(latent) })
    }

    /// The whole picture with what was made in its place.
    pub(super) fn paste(&self, made: &Image) -> Result<Image> {
        let [top, bottom, left, right] = self.place;
        let (width, height) = (right - left, bottom - top);
        let from = (made.width() as usize, made.height() as usize);
        let step = Step::Stretch { size: (width, height), filter: Filter::Lanczos };
        let made = apply_steps(&made.to_rgb8_over([255; 3]), from, &[step])?;
        let soft = self.mask.clone().softened();
        let mut pixels = self.pixels.clone();
        for (y, row) in made.chunks_exact(width * 3).enumerate() {
            for (x, new) in row.as_chunks::<3>().0.iter().enumerate() {
                let place = (top + y) * self.mask.width + left + x;
                let share = f32::from(soft.values[place]) / 255.0;
                for (old, new) in pixels[place * 3..place * 3 + 3].iter_mut().zip(new) {
                    let mixed = f32::from(*new) * share + f32::from(*old) * (1.0 - share);
                    *old = mixed.round() as u8;
                }
            }
        }
        Image::from_rgb8(self.mask.width as u32, self.mask.height as u32, pixels)
    }

    /// The area out of values of the whole picture.
    fn cut(&self, values: &[u8], channels: usize) -> Vec<u8> {
        let [top, bottom, left, right] = self.place;
        let rows = values.chunks_exact(self.mask.width * channels).take(bottom).skip(top);
        rows.flat_map(|row| &row[left * channels..right * channels]).copied().collect()
    }
}

/// A picture with its borders repeated outwards, where everything is to be made.
fn padded(pixels: &[u8], mask: Mask, outpaint: Outpaint) -> Result<(Vec<u8>, Mask)> {
    if outpaint.is_none() {
        return Ok((pixels.to_vec(), mask));
    }
    let Outpaint { left, top, right, bottom } = outpaint;
    let sum = |side: usize, parts: [usize; 2]| {
        let sum = parts.iter().fold(side, |sum, part| sum.saturating_add(*part));
        match sum <= MAX_SIDE {
            true => Ok(sum),
            false => {
                Err(Error::invalid_input(format!("a side of {sum} pixels; at most {MAX_SIDE}"))
                    .with("field", "outpaint"))
            }
        }
    };
    let (width, height) = (sum(mask.width, [left, right])?, sum(mask.height, [top, bottom])?);
    let mut all = Mask { width, height, values: vec![255; width * height] };
    let mut out = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        let from_y = y.saturating_sub(top).min(mask.height - 1);
        for x in 0..width {
            let from = from_y * mask.width + x.saturating_sub(left).min(mask.width - 1);
            out.extend_from_slice(&pixels[from * 3..from * 3 + 3]);
            let is_inside =
                (top..top + mask.height).contains(&y) && (left..left + mask.width).contains(&x);
            if is_inside {
                all.values[y * width + x] = mask.values[from];
            }
        }
    }
    Ok((out, all))
}

/// Rows and columns around those of a mask: nearly a square with room on each side, and at least `field` of both
/// sides of the picture.
fn around(bounds: [usize; 4], (height, width): (usize, usize), field: f64) -> [usize; 4] {
    let [top, bottom, left, right] = bounds.map(|bound| bound as f64);
    let half = ((bottom - top).max(right - left) / 2.0 * AROUND).max(1.0);
    let side = |from: f64, to: f64, whole: usize| {
        let middle = (from + to) / 2.0;
        let start = (middle - half).floor().clamp(0.0, whole as f64) as usize;
        let end = (middle + half).ceil().clamp(0.0, whole as f64) as usize;
        let least = (field * whole as f64).ceil().min(whole as f64) as usize;
        // As much on both sides, as far as there is room.
        let missing = least.saturating_sub(end - start);
        let start = start.saturating_sub(missing.div_ceil(2));
        let end = (start + least.max(end - start)).max(end).min(whole);
        (end.saturating_sub(least).min(start), end)
    };
    let ((top, bottom), (left, right)) = (side(top, bottom, height), side(left, right, width));
    [top, bottom, left, right]
}

/// Width and height with the proportions of an area and as many pixels as a square of this side.
fn size_of(height: usize, width: usize, class: usize) -> (usize, usize) {
    let (height, width) = (height as f64, width as f64);
    let scale = class as f64 / (height * width).sqrt();
    let side = |side: f64| ((side * scale / MULTIPLE).round().max(1.0) * MULTIPLE) as usize;
    (side(width), side(height))
}
