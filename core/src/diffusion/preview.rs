//! Previews: a linear map from latents to colours, which costs nothing beside a step.
//!
//! The map is fitted to the model's own autoencoder: flat pictures of many colours are encoded, and
//! the least squares solution from their latents to their colours is kept. So it fits every
//! autoencoder, and no table of numbers has to be right.

use candle_core::{DType, Device, Result, Tensor};

/// Levels of each channel among the colours that are fitted.
const LEVELS: [f32; 4] = [-0.9, -0.3, 0.3, 0.9];
/// Side of a flat picture in pixels.
const SIDE: usize = 32;
/// What keeps the fit from following channels that colours hardly move.
const RIDGE: f64 = 1e-3;

/// The map: for red, green and blue a factor for each channel and a constant.
pub(crate) struct LatentColours {
    rows: [Vec<f32>; 3],
}

impl LatentColours {
    /// For the autoencoder of which `encode` is the first half: pictures `(b, h, w, 3)` between -1 and 1 to
    /// latents `(b, .., c)`.
    pub(crate) fn fit(
        encode: impl FnOnce(&Tensor) -> Result<Tensor>,
        device: &Device,
    ) -> Result<Self> {
        let mut colours = Vec::new();
        for r in LEVELS {
            for g in LEVELS {
                colours.extend(LEVELS.map(|b| [r, g, b]));
            }
        }
        let pixels: Vec<f32> =
            colours.iter().flat_map(|colour| colour.repeat(SIDE * SIDE)).collect();
        let pictures = Tensor::from_vec(pixels, (colours.len(), SIDE, SIDE, 3), device)?;
        let latents = encode(&pictures)?.mean((1, 2))?.to_dtype(DType::F32)?;
        Ok(Self::solve(&latents.to_vec2::<f32>()?, &colours))
    }

    /// Least squares by the normal equations.
    fn solve(latents: &[Vec<f32>], colours: &[[f32; 3]]) -> Self {
        let size = latents.first().map_or(0, Vec::len) + 1;
        let value = |row: &[f32], i: usize| row.get(i).map_or(1.0, |value| f64::from(*value));
        // The matrix with three right sides behind it.
        let mut matrix = vec![vec![0.0; size + 3]; size];
        for (row, colour) in latents.iter().zip(colours) {
            for (i, line) in matrix.iter_mut().enumerate() {
                for (j, entry) in line.iter_mut().enumerate() {
                    let right = match j.checked_sub(size) {
                        None => value(row, j),
                        Some(channel) => f64::from(colour[channel]),
                    };
                    *entry += value(row, i) * right / latents.len() as f64;
                }
            }
        }
        for (i, line) in matrix.iter_mut().enumerate() {
            line[i] += RIDGE;
        }
        eliminate(&mut matrix);
        Self {
            rows: [0, 1, 2]
                .map(|channel| matrix.iter().map(|line| line[size + channel] as f32).collect()),
        }
    }

    /// RGB pixels for latents `(pixels, channels)`, one after the other.
    pub(crate) fn pixels(&self, latents: &Tensor) -> Result<Vec<u8>> {
        let latents = latents.to_vec2::<f32>()?;
        Ok(latents
            .iter()
            .flat_map(|latents| {
                self.rows.each_ref().map(|row| {
                    let sum: f32 = row.iter().zip(latents).map(|(a, b)| a * b).sum();
                    let value = sum + row.last().copied().unwrap_or_default();
                    ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
                })
            })
            .collect())
    }
}

/// Gauss-Jordan elimination: the columns behind the square become the solutions. The matrix is
/// positive definite, so no pivot is looked for.
fn eliminate(matrix: &mut [Vec<f64>]) {
    for i in 0..matrix.len() {
        let pivot = matrix[i][i];
        matrix[i].iter_mut().for_each(|entry| *entry /= pivot);
        let line = matrix[i].clone();
        for (j, other) in matrix.iter_mut().enumerate().filter(|(j, _)| *j != i) {
            let factor = other[i];
            debug_assert_ne!(i, j);
            other.iter_mut().zip(&line).for_each(|(entry, by)| *entry -= factor * by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_relation_is_found_again() {
        let colours: Vec<[f32; 3]> =
            (0..64).map(|i| [i % 4, i / 4 % 4, i / 16].map(|x| x as f32 / 2.0 - 0.75)).collect();
        let latents: Vec<Vec<f32>> = colours
            .iter()
            .map(|[r, g, b]| vec![2.0 * r - g + 0.3, g + 0.5 * b, r + g - 3.0 * b, 0.7])
            .collect();
        let map = LatentColours::solve(&latents, &colours);
        let flat: Vec<f32> = latents.concat();
        let found = map.pixels(&Tensor::from_vec(flat, (64, 4), &Device::Cpu).unwrap()).unwrap();
        for (found, colour) in found.chunks(3).zip(&colours) {
            for (found, expected) in found.iter().zip(colour) {
                let expected = (expected / 2.0 + 0.5) * 255.0;
                assert!((f32::from(*found) - expected).abs() < 2.0, "{found} {expected}");
            }
        }
    }
}
