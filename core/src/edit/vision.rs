//! From a reference picture to what the two networks that look at it get.
//!
//! The VAE sees about a million pixels, resampled as Pillow's Lanczos filter does, between -1 and 1.
//! The vision part of the text encoder sees a resampled picture too (the same one, or one of 384 x
//! 384 pixels), which is resampled once more to whole patches, this time as torchvision's bicubic
//! filter does: that is the default backend of `Qwen2VLImageProcessor` in transformers 5. Both
//! stages round to 8 bits, so both are done.

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

use crate::error::{Error, Result, ResultExt};
use crate::pixels::{Filter, Size, Step, apply_steps, resize_antialiased};

/// Greatest ratio of sides that the vision part takes.
const MAX_RATIO: usize = 200;

/// The size of about `area` pixels with the proportions of `from`, in multiples of `multiple`
/// (`calculate_dimensions` of diffusers, which rounds halves to even).
pub(crate) fn area_size(area: usize, multiple: usize, from: Size) -> Result<Size> {
    let ratio = from.0 as f64 / from.1 as f64;
    let width = (area as f64 * ratio).sqrt();
    let multiple = multiple as f64;
    let side = |side: f64| ((side / multiple).round_ties_even() * multiple) as usize;
    let size = (side(width), side(width / ratio));
    if size.0 == 0 || size.1 == 0 {
        return Err(Error::invalid_input(format!(
            "a picture of {} x {} pixels is too narrow to edit",
            from.0, from.1
        ))
        .with("field", "images"));
    }
    Ok(size)
}

/// RGB pixels of a picture of size `from`, resampled to `to` as Pillow's Lanczos filter does.
pub(crate) fn resize_lanczos(pixels: &[u8], from: Size, to: Size) -> Result<Vec<u8>> {
    apply_steps(pixels, from, &[Step::Stretch { size: to, filter: Filter::Lanczos }])
}

/// What the VAE gets for RGB pixels: planes of red, green and blue from -1 to 1.
pub(crate) fn vae_input(pixels: &[u8]) -> Vec<f32> {
    let plane = |channel| pixels.iter().skip(channel).step_by(3);
    (0..3).flat_map(plane).map(|value| f32::from(*value) / 255.0 * 2.0 - 1.0).collect()
}

/// What a `preprocessor_config.json` says about pictures for the vision part. The defaults are those
/// of `Qwen2VLImageProcessor`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VisionInput {
    pub(crate) min_pixels: usize,
    pub(crate) max_pixels: usize,
    pub(crate) patch_size: usize,
    /// Side, in patches, of the squares that become one vector for the text encoder.
    pub(crate) merge_size: usize,
    /// How often a picture is repeated in a patch, in place of the frames of a video.
    pub(crate) temporal_patch_size: usize,
    pub(crate) rescale_factor: f64,
    pub(crate) mean: [f32; 3],
    pub(crate) std: [f32; 3],
}

impl Default for VisionInput {
    fn default() -> Self {
        Self {
            min_pixels: 56 * 56,
            max_pixels: 28 * 28 * 1280,
            patch_size: 14,
            merge_size: 2,
            temporal_patch_size: 2,
            rescale_factor: 1.0 / 255.0,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        }
    }
}

/// Patches of one picture.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Patches {
    /// One row of values for each patch. Patches that are merged stand together.
    pub(crate) values: Vec<f32>,
    /// Frames, rows and columns of patches: `image_grid_thw`.
    pub(crate) grid: [usize; 3],
}

impl VisionInput {
    /// From the text of a `preprocessor_config.json`. The caller adds the file to errors.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let value: Map<String, Value> = serde_json::from_str(text)
            .map_err(|e| Error::model_invalid(format!("not a JSON object: {e}")))?;
        let mut input = Self::default();
        for (key, value) in value.iter().filter(|(_, value)| !value.is_null()) {
            input.set(key, value).context("field", key)?;
        }
        // The spelling with the names of what the numbers are wins, as in the reference.
        for key in ["min_pixels", "max_pixels"] {
            if let Some(value) = value.get(key).filter(|value| !value.is_null()) {
                input.set(key, value).context("field", key)?;
            }
        }
        if input.min_pixels > input.max_pixels {
            return Err(Error::model_invalid(format!(
                "at least {} and at most {} pixels",
                input.min_pixels, input.max_pixels
            ))
            .with("field", "max_pixels"));
        }
        Ok(input)
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<()> {
        const BICUBIC: u64 = 3;
        match key {
            "min_pixels" => self.min_pixels = count(value)?,
            "max_pixels" => self.max_pixels = count(value)?,
            "size" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    match key.as_str() {
                        "shortest_edge" | "min_pixels" => self.min_pixels = count(value)?,
                        "longest_edge" | "max_pixels" => {
                            self.max_pixels = count(value)?;
                        }
                        _ => {}
                    }
                }
            }
            "patch_size" => self.patch_size = side(value)?,
            "merge_size" => self.merge_size = side(value)?,
            "temporal_patch_size" => self.temporal_patch_size = side(value)?,
            "rescale_factor" => {
                self.rescale_factor = value
                    .as_f64()
                    .filter(|f| f.is_normal())
                    .ok_or_else(|| Error::model_invalid(format!("{value} is no factor")))?;
            }
            "image_mean" => self.mean = channels(value)?,
            "image_std" => {
                self.std = channels(value)?;
                if self.std.contains(&0.0) {
                    return Err(Error::model_invalid("a standard deviation is 0"));
                }
            }
            "resample" if value.as_u64() != Some(BICUBIC) => {
                return Err(Error::unsupported(format!(
                    "resampling filter {value}; supported is {BICUBIC}, bicubic"
                )));
            }
            "do_resize" | "do_rescale" | "do_normalize" if value != &Value::Bool(true) => {
                return Err(Error::unsupported(format!("`{key}` is {value}; supported is true")));
            }
            // The rest is about videos, batches, and how the reference is to be used.
            _ => {}
        }
        Ok(())
    }

    /// Width and height in whole squares of merged patches, with about the proportions and the
    /// number of pixels of `from` (`smart_resize` of transformers).
    pub(crate) fn smart_size(&self, from: Size) -> Result<Size> {
        let (width, height) = from;
        if width.max(height) > MAX_RATIO * width.min(height) {
            return Err(Error::invalid_input(format!(
                "a picture of {width} x {height} pixels: one side is more than {MAX_RATIO} times \
                 the other"
            ))
            .with("field", "images"));
        }
        let factor = (self.patch_size * self.merge_size) as f64;
        let nearest = |side: usize| (side as f64 / factor).round_ties_even() * factor;
        let rounded = (nearest(width), nearest(height));
        let area = width as f64 * height as f64;
        let (most, least) = (self.max_pixels as f64, self.min_pixels as f64);
        let size = if rounded.0 * rounded.1 > most {
            let scale = (area / most).sqrt();
            let side = |side: usize| (side as f64 / scale / factor).floor().max(1.0) * factor;
            (side(width), side(height))
        } else if rounded.0 * rounded.1 < least {
            let scale = (least / area).sqrt();
            let side = |side: usize| (side as f64 * scale / factor).ceil() * factor;
            (side(width), side(height))
        } else {
            rounded
        };
        // A narrow picture can round to nothing between the two limits.
        if size.0 < factor || size.1 < factor {
            return Err(Error::invalid_input(format!(
                "a picture of {width} x {height} pixels is too small for patches of {factor}"
            ))
            .with("field", "images"));
        }
        Ok((size.0 as usize, size.1 as usize))
    }

    /// Patches of RGB pixels of a picture of size `from`.
    pub(crate) fn patches(&self, pixels: &[u8], from: Size) -> Result<Patches> {
        let size = self.smart_size(from)?;
        let resized = resize_antialiased(pixels, from, size)?;
        let (columns, rows) = (size.0 / self.patch_size, size.1 / self.patch_size);
        let values = self.patchify(&resized, columns, rows);
        Ok(Patches { values, grid: [1, rows, columns] })
    }

    /// How many vectors the text encoder gets for a picture of `grid`.
    pub(crate) fn vectors(&self, grid: [usize; 3]) -> usize {
        grid.iter().product::<usize>() / (self.merge_size * self.merge_size)
    }

    /// Normalised values in the order (row and column of the merged square, row and column in it,
    /// channel, frame, row and column of the pixel).
    fn patchify(&self, pixels: &[u8], columns: usize, rows: usize) -> Vec<f32> {
        let (patch, merge) = (self.patch_size, self.merge_size);
        let tables: [[f32; 256]; 3] = std::array::from_fn(|channel| self.levels(channel));
        let row_length = columns * patch * 3;
        let mut values = Vec::with_capacity(pixels.len() * self.temporal_patch_size);
        let squares = (0..rows / merge).flat_map(|y| (0..columns / merge).map(move |x| (y, x)));
        let inside = |(y, x)| {
            (0..merge * merge).map(move |i| (y * merge + i / merge, x * merge + i % merge))
        };
        for (row, column) in squares.flat_map(inside) {
            for (channel, table) in tables.iter().enumerate() {
                let first = values.len();
                for line in pixels.chunks_exact(row_length).skip(row * patch).take(patch) {
                    let line = &line[column * patch * 3..(column + 1) * patch * 3];
                    let levels = line.iter().skip(channel).step_by(3);
                    values.extend(levels.map(|level| table[usize::from(*level)]));
                }
                let end = values.len();
                for _ in 1..self.temporal_patch_size {
                    values.extend_from_within(first..end);
                }
            }
        }
        values
    }

    /// The normalised value of every level of a channel. The reference folds the rescaling into mean
    /// and deviation, in f32.
    fn levels(&self, channel: usize) -> [f32; 256] {
        let scale = (1.0 / self.rescale_factor) as f32;
        let (mean, std) = (self.mean[channel] * scale, self.std[channel] * scale);
        std::array::from_fn(|level| (level as f32 - mean) / std)
    }
}

fn count(value: &Value) -> Result<usize> {
    value
        .as_u64()
        .and_then(|count| usize::try_from(count).ok())
        .filter(|count| *count > 0)
        .ok_or_else(|| Error::model_invalid(format!("{value} is no number of pixels")))
}

/// A side in pixels or patches.
fn side(value: &Value) -> Result<usize> {
    const MOST: usize = 256;
    count(value)
        .ok()
        .filter(|side| *side <= MOST)
        .ok_or_else(|| Error::model_invalid(format!("{value} is not between 1 and {MOST}")))
}

/// Three numbers, or one for all channels.
fn channels(value: &Value) -> Result<[f32; 3]> {
    let number = |value: &Value| value.as_f64().map(|n| n as f32).filter(|n| n.is_finite());
    let all = match value {
        Value::Array(values) => values.iter().map(number).collect::<Option<Vec<_>>>(),
        one => number(one).map(|one| vec![one; 3]),
    };
    all.and_then(|all| all.try_into().ok())
        .ok_or_else(|| Error::model_invalid(format!("{value} are not three numbers")))
}
