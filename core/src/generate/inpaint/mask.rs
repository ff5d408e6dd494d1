//! Masks: one value for each pixel, 255 where a picture is made anew.

use crate::error::Result;
use crate::pixels::{Filter, Image, Step, apply_steps};

/// What counts as white.
const THRESHOLD: u8 = 127;
/// Steps of a soft edge, and how much each takes off.
const SOFT: [u8; 2] = [32, 8];

/// A mask of a picture.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mask {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) values: Vec<u8>,
}

impl Mask {
    /// Without anything to make anew.
    pub(super) fn none(width: usize, height: usize) -> Self {
        Self { width, height, values: vec![0; width * height] }
    }

    /// White pixels of a picture, by their red.
    pub(super) fn of(image: &Image) -> Self {
        let pixels = image.to_rgb8_over([0; 3]);
        let values = pixels.as_chunks::<3>().0.iter().map(|pixel| white(pixel[0])).collect();
        Self { width: image.width() as usize, height: image.height() as usize, values }
    }

    /// The same mask of a picture of another size.
    pub(super) fn resized(&self, width: usize, height: usize) -> Result<Self> {
        if (width, height) == (self.width, self.height) {
            return Ok(self.clone());
        }
        let rgb: Vec<u8> = self.values.iter().flat_map(|value| [*value; 3]).collect();
        let step = Step::Stretch { size: (width, height), filter: Filter::Lanczos };
        let rgb = apply_steps(&rgb, (self.width, self.height), &[step])?;
        let values = rgb.as_chunks::<3>().0.iter().map(|pixel| white(pixel[0])).collect();
        Ok(Self { width, height, values })
    }

    /// Wider by so many pixels, or narrower if the number is below 0.
    pub(super) fn grown(mut self, pixels: i32) -> Self {
        for _ in 0..pixels.unsigned_abs() {
            self.values = match pixels > 0 {
                true => self.neighbours(u8::max),
                false => self.neighbours(u8::min),
            };
        }
        self
    }

    /// With an edge that falls off outwards.
    pub(super) fn softened(mut self) -> Self {
        let [steps, less] = SOFT;
        for _ in 0..steps {
            let around = self.neighbours(u8::max);
            let pairs = self.values.iter_mut().zip(around);
            pairs.for_each(|(value, around)| *value = (*value).max(around.saturating_sub(less)));
        }
        self
    }

    /// The largest of each `side` by `side` values.
    pub(super) fn pooled(&self, side: usize) -> Vec<f32> {
        let (width, height) = (self.width / side, self.height / side);
        let mut pooled = vec![0.0; width * height];
        for (y, row) in self.values.chunks_exact(self.width).take(height * side).enumerate() {
            for (x, value) in row.iter().take(width * side).enumerate() {
                let place = &mut pooled[y / side * width + x / side];
                *place = f32::max(*place, f32::from(*value) / 255.0);
            }
        }
        pooled
    }

    /// Rows and columns from the first to behind the last that have something to make anew.
    pub(super) fn bounds(&self) -> Option<[usize; 4]> {
        let rows = || self.values.chunks_exact(self.width);
        let is_row = |row: &[u8]| row.iter().any(|value| *value > 0);
        let top = rows().position(is_row)?;
        let bottom = self.height - rows().rev().position(is_row)?;
        let columns = |row: &[u8]| {
            let left = row.iter().position(|value| *value > 0)?;
            Some((left, self.width - row.iter().rev().position(|value| *value > 0)?))
        };
        let all = rows().filter_map(columns);
        let (left, right) = all.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))?;
        Some([top, bottom, left, right])
    }

    /// Of each value and its eight neighbours, the one that `choose` keeps.
    fn neighbours(&self, choose: fn(u8, u8) -> u8) -> Vec<u8> {
        let (width, height) = (self.width, self.height);
        let mut wide = self.values.clone();
        for (row, out) in self.values.chunks_exact(width).zip(wide.chunks_exact_mut(width)) {
            for x in 0..width {
                let (before, after) = (row[x.saturating_sub(1)], row[(x + 1).min(width - 1)]);
                out[x] = choose(choose(before, after), row[x]);
            }
        }
        let mut all = wide.clone();
        for y in 0..height {
            let (above, below) = (y.saturating_sub(1) * width, (y + 1).min(height - 1) * width);
            for x in 0..width {
                let place = y * width + x;
                all[place] = choose(choose(wide[above + x], wide[below + x]), wide[place]);
            }
        }
        all
    }
}

fn white(value: u8) -> u8 {
    if value > THRESHOLD { 255 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rows: &[&str]) -> Mask {
        let values = rows.iter().flat_map(|row| row.bytes());
        let values = values.map(|b| if b == b'#' { 255 } else { 0 }).collect();
        Mask { width: rows[0].len(), height: rows.len(), values }
    }

    #[test]
    fn masks_grow_and_shrink() {
        let small = mask(&[".....", "..#..", ".....", ".....", "....."]);
        let large = mask(&[".###.", ".###.", ".###.", ".....", "....."]);
        assert_eq!(small.clone().grown(1), large);
        assert_eq!(large.clone().grown(0), large);
        // What is at the border stays there.
        assert_eq!(large.clone().grown(-1), mask(&["..#..", "..#..", ".....", ".....", "....."]));
        assert_eq!(small.grown(-1), Mask::none(5, 5));
    }

    #[test]
    fn bounds_are_around_all_that_is_white() {
        assert_eq!(Mask::none(3, 2).bounds(), None);
        assert_eq!(mask(&["....", ".#..", "..#.", "...."]).bounds(), Some([1, 3, 1, 3]));
        assert_eq!(mask(&["#..", "..#"]).bounds(), Some([0, 2, 0, 3]));
    }

    #[test]
    fn edges_fall_off_by_eight() {
        let mut wide = Mask::none(80, 1);
        wide.values[0] = 255;
        let soft = wide.softened();
        let expected: Vec<u8> =
            (0..80u8).map(|x| 255u8.saturating_sub(x.min(32).saturating_mul(8))).collect();
        assert_eq!(soft.values[..32], expected[..32]);
        assert_eq!(soft.values[32..], [0; 48]);
    }

    #[test]
    fn pools_keep_what_is_white_anywhere() {
        let pooled = mask(&["....#", "....#", "..#.#"]).pooled(2);
        assert_eq!(pooled, [0.0, 0.0]);
        assert_eq!(mask(&["....", "...#"]).pooled(2), [0.0, 1.0]);
    }
}
