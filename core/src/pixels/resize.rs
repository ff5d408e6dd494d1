//! Padding to a square and bicubic resampling, equal to Pillow's `paste` and `resize`.
//!
//! Pillow's bicubic filter has a = -0.5 (Catmull-Rom), is widened when it shrinks (antialiasing),
//! runs rows first and rounds to 8 bits between the passes. `fast_image_resize` does the same with
//! vector instructions.
//!
//! The padded square is never built: a picture of 20,000 x 1 pixels would need 1.2 GB for it. Rows
//! are resampled in strips that are padded sideways, and only their result is padded vertically.

use fast_image_resize::images::{Image as Buffer, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::error::{Error, ErrorKind, Result};

/// Pixels per strip: large enough to amortise the set-up, small enough to stay in the cache.
const STRIP: usize = 1 << 18;

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

fn filled(pixels: usize, colour: [u8; 3]) -> Vec<u8> {
    if colour[0] == colour[1] && colour[1] == colour[2] {
        return vec![colour[0]; pixels * 3];
    }
    colour.iter().copied().cycle().take(pixels * 3).collect()
}

fn resample(
    resizer: &mut Resizer,
    source: &[u8],
    (width, height): (usize, usize),
    target: &mut [u8],
    (target_width, target_height): (usize, usize),
) -> Result<()> {
    if (width, height) == (target_width, target_height) {
        target.copy_from_slice(source);
        return Ok(());
    }
    let failed =
        |e: String| Error::new(ErrorKind::Internal, format!("cannot resize a picture: {e}"));
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
    let source = ImageRef::new(width as u32, height as u32, source, PixelType::U8x3)
        .map_err(|e| failed(e.to_string()))?;
    let (width, height) = (target_width as u32, target_height as u32);
    let mut target = Buffer::from_slice_u8(width, height, target, PixelType::U8x3)
        .map_err(|e| failed(e.to_string()))?;
    resizer.resize(&source, &mut target, &options).map_err(|e| failed(e.to_string()))
}
