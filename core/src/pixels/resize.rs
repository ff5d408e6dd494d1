//! Padding to a square and bicubic resampling, equal to Pillow's `paste` and `resize`.
//!
//! Pillow's bicubic filter has a = -0.5 (Catmull-Rom), is widened when it shrinks (antialiasing),
//! runs rows first and rounds to 8 bits between the passes. `fast_image_resize` does the same with
//! vector instructions.
//!
//! The padded square is never built: a picture of 20,000 x 1 pixels would need 1.2 GB for it. Rows
//! are resampled in strips that are padded sideways, and only their result is padded vertically.

use std::ops::Range;

use fast_image_resize::images::{Image as Buffer, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::error::{Error, ErrorKind, Result};

/// Pixels per strip: large enough to amortise the set-up, small enough to stay in the cache.
const STRIP: usize = 1 << 18;
/// How many times higher than wide a picture is for [`Narrow`].
const NARROW: usize = 8;

/// Pads RGB pixels with `background` to a centred square (the odd pixel at the right and bottom)
/// and resamples it to `side`.
pub(crate) fn resize_padded(
    pixels: &[u8],
    width: usize,
    height: usize,
    side: usize,
    background: [u8; 3],
) -> Result<Vec<u8>> {
    let square = width.max(height);
    let (left, top) = ((square - width) / 2, (square - height) / 2);
    let mut resizer = Resizer::new();
    let row = side * 3;
    // Rows: (height, square) to (height, side), inside a column that is padded above and below.
    let mut column = filled(square * side, background);
    if square >= NARROW * width {
        let place = Narrow::new(width, square, side);
        let target = &mut column[top * row..(top + height) * row];
        place.resample_rows(&mut resizer, pixels, target, background)?;
        let mut out = vec![0; side * row];
        resample(&mut resizer, &column, (side, square), &mut out, (side, side))?;
        return Ok(out);
    }
    let rows_per_strip = (STRIP / square).clamp(1, height);
    let mut strip;
    for first in (0..height).step_by(rows_per_strip) {
        let rows = rows_per_strip.min(height - first);
        let source = &pixels[first * width * 3..(first + rows) * width * 3];
        let source = if width == square {
            source
        } else {
            strip = filled(rows * square, background);
            for (to, from) in strip.chunks_exact_mut(square * 3).zip(source.chunks_exact(width * 3))
            {
                to[left * 3..(left + width) * 3].copy_from_slice(from);
            }
            &strip
        };
        let target = &mut column[(top + first) * row..(top + first + rows) * row];
        resample(&mut resizer, source, (square, rows), target, (side, rows))?;
    }
    // Columns: (square, side) to (side, side).
    let mut out = vec![0; side * row];
    resample(&mut resizer, &column, (side, square), &mut out, (side, side))?;
    Ok(out)
}

/// A picture that is much higher than wide: only the few columns of the result that its pixels reach
/// are computed, from the padding that these columns see. Whole rows would cost the square of the
/// height, minutes for a file of 100 bytes.
struct Narrow {
    width: usize,
    /// The columns of the result that are not pure padding.
    outputs: Range<usize>,
    /// The columns of the padded square that these are computed from.
    inputs: Range<usize>,
    /// Where the picture starts in `inputs`.
    left: usize,
    side: usize,
    scale: f64,
}

impl Narrow {
    fn new(width: usize, square: usize, side: usize) -> Self {
        let left = (square - width) / 2;
        let scale = square as f64 / side as f64;
        let radius = 2.0 * scale.max(1.0);
        let first = (left as f64 - radius) / scale - 0.5;
        let last = ((left + width) as f64 + radius) / scale - 0.5;
        let outputs = first.max(0.0) as usize..(last.ceil() as usize + 1).min(side);
        let from = (outputs.start as f64 + 0.5) * scale - radius;
        let to = (outputs.end as f64 - 0.5) * scale + radius;
        let inputs = from.max(0.0) as usize..(to.ceil() as usize).min(square);
        Self { width, left: left - inputs.start, outputs, inputs, side, scale }
    }

    /// Resamples every row of `pixels` into the rows of `target`, which is filled with padding.
    fn resample_rows(
        &self,
        resizer: &mut Resizer,
        pixels: &[u8],
        target: &mut [u8],
        background: [u8; 3],
    ) -> Result<()> {
        let (from, to) = (self.inputs.len(), self.outputs.len());
        let rows = (STRIP / from).max(1);
        let start = self.outputs.start as f64 * self.scale - self.inputs.start as f64;
        let sources = pixels.chunks(rows * self.width * 3);
        for (source, target) in sources.zip(target.chunks_mut(rows * self.side * 3)) {
            let rows = source.len() / (self.width * 3);
            let mut strip = filled(rows * from, background);
            for (to, row) in strip.chunks_exact_mut(from * 3).zip(source.chunks(self.width * 3)) {
                to[self.left * 3..(self.left + self.width) * 3].copy_from_slice(row);
            }
            let mut out = vec![0; rows * to * 3];
            let cut = options(FilterType::CatmullRom).crop(
                start,
                0.0,
                to as f64 * self.scale,
                rows as f64,
            );
            resample_with(resizer, &strip, (from, rows), &mut out, (to, rows), &cut)?;
            for (to, row) in target.chunks_exact_mut(self.side * 3).zip(out.chunks_exact(to * 3)) {
                to[self.outputs.start * 3..self.outputs.end * 3].copy_from_slice(row);
            }
        }
        Ok(())
    }
}

pub(super) fn filled(pixels: usize, colour: [u8; 3]) -> Vec<u8> {
    if colour[0] == colour[1] && colour[1] == colour[2] {
        return vec![colour[0]; pixels * 3];
    }
    colour.iter().copied().cycle().take(pixels * 3).collect()
}

fn resample(
    resizer: &mut Resizer,
    source: &[u8],
    size: (usize, usize),
    target: &mut [u8],
    target_size: (usize, usize),
) -> Result<()> {
    resample_by(resizer, source, size, target, target_size, FilterType::CatmullRom)
}

/// Resamples RGB pixels from one width and height to another.
pub(super) fn resample_by(
    resizer: &mut Resizer,
    source: &[u8],
    size: (usize, usize),
    target: &mut [u8],
    target_size: (usize, usize),
    filter: FilterType,
) -> Result<()> {
    if size == target_size {
        target.copy_from_slice(source);
        return Ok(());
    }
    resample_with(resizer, source, size, target, target_size, &options(filter))
}

fn options(filter: FilterType) -> ResizeOptions {
    ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter))
}

fn resample_with(
    resizer: &mut Resizer,
    source: &[u8],
    (width, height): (usize, usize),
    target: &mut [u8],
    (target_width, target_height): (usize, usize),
    options: &ResizeOptions,
) -> Result<()> {
    let failed =
        |e: String| Error::new(ErrorKind::Internal, format!("cannot resize a picture: {e}"));
    let source = ImageRef::new(width as u32, height as u32, source, PixelType::U8x3)
        .map_err(|e| failed(e.to_string()))?;
    let (width, height) = (target_width as u32, target_height as u32);
    let mut target = Buffer::from_slice_u8(width, height, target, PixelType::U8x3)
        .map_err(|e| failed(e.to_string()))?;
    resizer.resize(&source, &mut target, options).map_err(|e| failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plain way: whole rows of the padded square.
    fn by_whole_rows(pixels: &[u8], width: usize, height: usize, side: usize) -> Vec<u8> {
        let mut square = vec![255; height * height * 3];
        let left = (height - width) / 2;
        for (to, from) in square.chunks_exact_mut(height * 3).zip(pixels.chunks_exact(width * 3)) {
            to[left * 3..(left + width) * 3].copy_from_slice(from);
        }
        resize_padded(&square, height, height, side, [255; 3]).unwrap()
    }

    #[test]
    fn a_narrow_picture_is_resampled_as_whole_rows_are() {
        for (width, height) in [(1, 8), (1, 9), (3, 25), (7, 300), (2, 1001), (30, 240)] {
            for side in [1, 8, 31, 64, 224] {
                let byte = |i: usize| (i.wrapping_mul(2_654_435_761) >> 13) as u8;
                let pixels: Vec<u8> = (0..width * height * 3).map(byte).collect();
                let found = resize_padded(&pixels, width, height, side, [255; 3]).unwrap();
                let expected = by_whole_rows(&pixels, width, height, side);
                let off = found.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
                assert!(off <= Some(1), "{width} x {height} to {side}: off by {off:?}");
            }
        }
    }
}
