//! Resizing, padding and cropping step by step, for models whose folder lists the steps.
//!
//! Sizes are rounded as `imgutils.preprocess` of dghs-imgutils rounds them, and resampling is
//! Pillow's. A step makes its whole result, so its size is checked before.

use fast_image_resize::{FilterType, Resizer};

use super::resize::{filled, resample_by};
use crate::error::{Error, ErrorKind, Result};

/// Most pixels of a result between two steps: resizing by the shorter side makes huge ones of
/// pictures of extreme shape.
const MAX_PIXELS: usize = 1 << 26;

/// How a picture is resampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    Bilinear,
    Bicubic,
    Hamming,
    Lanczos,
}

impl Filter {
    fn kind(self) -> FilterType {
        match self {
            Filter::Bilinear => FilterType::Bilinear,
            Filter::Bicubic => FilterType::CatmullRom,
            Filter::Hamming => FilterType::Hamming,
            Filter::Lanczos => FilterType::Lanczos3,
        }
    }
}

/// Width and height.
pub(crate) type Size = (usize, usize);

/// One step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// To this size, whatever becomes of the proportions.
    Stretch { size: Size, filter: Filter },
    /// The shorter side to `side`, but the longer one to `longest` at most.
    ShorterSide { side: usize, longest: Option<usize>, filter: Filter },
    /// Into this size with all of the picture, with `background` beside it.
    Pad { size: Size, background: [u8; 3], filter: Filter },
    /// The middle, with black beside it where the picture is smaller.
    Crop { size: Size },
}

impl Step {
    /// The size that the step makes of `from`.
    pub(crate) fn size(&self, from: Size) -> Size {
        match *self {
            Step::Stretch { size, .. } | Step::Pad { size, .. } | Step::Crop { size } => size,
            Step::ShorterSide { side, longest, .. } => {
                let (width, height) = from;
                let size = if width < height {
                    (side, scaled(side, height, width))
                } else {
                    (scaled(side, width, height), side)
                };
                let size = match (longest, size) {
                    (Some(most), (w, h)) if w.max(h) > most && h > w => (scaled(most, w, h), most),
                    (Some(most), (w, h)) if w.max(h) > most => (most, scaled(most, h, w)),
                    _ => size,
                };
                // Pillow fails on a side of nothing.
                (size.0.max(1), size.1.max(1))
            }
        }
    }

    fn apply(&self, resizer: &mut Resizer, pixels: &[u8], from: Size) -> Result<Vec<u8>> {
        match *self {
            Step::Stretch { filter, .. } | Step::ShorterSide { filter, .. } => {
                resized(resizer, pixels, from, self.size(from), filter)
            }
            Step::Pad { size, background, filter } => {
                let ratio = |to: usize, from: usize| to as f64 / from as f64;
                let ratio = ratio(size.0, from.0).min(ratio(size.1, from.1));
                let side = |side: usize| ((side as f64 * ratio).round_ties_even() as usize).max(1);
                let inner = (side(from.0), side(from.1));
                let inner_pixels = resized(resizer, pixels, from, inner, filter)?;
                Ok(centred(&inner_pixels, inner, size, background))
            }
            Step::Crop { size } => {
                let canvas = (from.0.max(size.0), from.1.max(size.1));
                let padded;
                let pixels = if canvas == from {
                    pixels
                } else {
                    check(canvas)?;
                    padded = centred(pixels, from, canvas, [0; 3]);
                    &padded
                };
                let (left, top) = ((canvas.0 - size.0) / 2, (canvas.1 - size.1) / 2);
                let rows = pixels.chunks_exact(canvas.0 * 3).skip(top).take(size.1);
                Ok(rows.flat_map(|row| &row[left * 3..(left + size.0) * 3]).copied().collect())
            }
        }
    }
}

/// Applies `steps` to RGB pixels of a picture of `size`.
pub(crate) fn apply_steps(pixels: &[u8], mut size: Size, steps: &[Step]) -> Result<Vec<u8>> {
    let mut resizer = Resizer::new();
    let mut pixels = std::borrow::Cow::Borrowed(pixels);
    for step in steps {
        check(step.size(size))?;
        pixels = step.apply(&mut resizer, &pixels, size)?.into();
        size = step.size(size);
    }
    Ok(pixels.into_owned())
}

pub(super) fn check((width, height): Size) -> Result<()> {
    if width.checked_mul(height).is_some_and(|pixels| pixels <= MAX_PIXELS) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::ImageTooLarge,
        format!("the model's preprocessing would make a picture of {width} x {height} pixels"),
    ))
}

/// `side * times / by`, cut to a whole number.
fn scaled(side: usize, times: usize, by: usize) -> usize {
    (side as f64 * times as f64 / by as f64) as usize
}

fn resized(
    resizer: &mut Resizer,
    pixels: &[u8],
    from: Size,
    to: Size,
    filter: Filter,
) -> Result<Vec<u8>> {
    // Values are rounded between the passes, so their order is Pillow's: rows first, unless the
    // height shrinks by more than twice what the width does.
    let shrinks = |from: usize, to: usize| from as i64 - to as i64;
    let (across, down) = (shrinks(from.0, to.0), shrinks(from.1, to.1));
    let between = if down > 0 && down > 2 * across { (from.0, to.1) } else { (to.0, from.1) };
    check(between)?;
    let mut once = vec![0; between.0 * between.1 * 3];
    resample_by(resizer, pixels, from, &mut once, between, filter.kind())?;
    let mut out = vec![0; to.0 * to.1 * 3];
    resample_by(resizer, &once, between, &mut out, to, filter.kind())?;
    Ok(out)
}

/// `pixels` in the middle of `canvas`, which is as large at least; the odd pixel is at the right and
/// bottom.
fn centred(pixels: &[u8], size: Size, canvas: Size, background: [u8; 3]) -> Vec<u8> {
    let mut out = filled(canvas.0 * canvas.1, background);
    let (left, top) = ((canvas.0 - size.0) / 2, (canvas.1 - size.1) / 2);
    let rows = out.chunks_exact_mut(canvas.0 * 3).skip(top);
    for (to, from) in rows.zip(pixels.chunks_exact(size.0 * 3)) {
        to[left * 3..(left + size.0) * 3].copy_from_slice(from);
    }
    out
}
