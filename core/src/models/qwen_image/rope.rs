//! Rotary positions of the joint sequence of text and pictures.
//!
//! A head is cut into three parts, for frame, row and column (`axes_dims_rope`); each turns pairs of
//! neighbouring values by `position / 10000^(2k / part)`. The arithmetic is in `f32` as in
//! `QwenEmbedRope`: rounded frequencies times whole numbers.

use candle_core::{Device, Result, Tensor};

use super::layout::Grid;
use crate::kernels::attention::Rotation;

const THETA: f64 = 10_000.0;

/// The rotation of `text` tokens followed by the tokens of `pictures`.
///
/// Picture `i` is frame `i`. Its rows and columns are counted from the middle, so that pictures of
/// different sizes lie over each other. Text lies on the diagonal behind the largest picture, where
/// no picture is.
pub(super) fn rotation(
    text: usize,
    pictures: &[Grid],
    axes: [usize; 3],
    device: &Device,
) -> Result<Rotation> {
    let bands = axes.map(bands);
    let head = axes.iter().sum::<usize>();
    let tokens = text + pictures.iter().map(Grid::tokens).sum::<usize>();
    let mut angles = Vec::with_capacity(tokens * head);
    let mut push = |position: [f32; 3]| {
        for (position, bands) in position.iter().zip(&bands) {
            angles.extend(bands.iter().flat_map(|band| [position * band; 2]));
        }
    };
    let start = pictures.iter().map(|grid| grid.rows.max(grid.columns) / 2).max().unwrap_or(0);
    for token in start..start + text {
        push([token as f32; 3]);
    }
    for (frame, grid) in pictures.iter().enumerate() {
        for row in centred(grid.rows) {
            for column in centred(grid.columns) {
                push([frame as f32, row, column]);
            }
        }
    }
    let angles = Tensor::from_vec(angles, (tokens, head), &Device::Cpu)?;
    Ok(Rotation {
        sin: angles.sin()?.to_device(device)?,
        cos: angles.cos()?.to_device(device)?,
        prefix: 0,
    })
}

/// The frequencies of one part of a head.
fn bands(size: usize) -> Vec<f32> {
    let exponent = |k: usize| f64::from((2 * k) as f32 / size as f32);
    (0..size / 2).map(|k| 1.0 / THETA.powf(exponent(k)) as f32).collect()
}

/// Positions around zero; an odd one more is before it.
fn centred(count: usize) -> impl Iterator<Item = f32> {
    let before = (count - count / 2) as f32;
    (0..count).map(move |i| i as f32 - before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_centred_and_text_lies_behind_the_largest() {
        let grid = |rows, columns| Grid { rows, columns };
        assert_eq!(centred(5).collect::<Vec<_>>(), [-3.0, -2.0, -1.0, 0.0, 1.0]);
        assert_eq!(centred(2).collect::<Vec<_>>(), [-1.0, 0.0]);
        // One pair for each axis, whose frequency is 1: the angle is the position.
        let turned = rotation(2, &[grid(1, 2), grid(7, 1)], [2, 2, 2], &Device::Cpu).unwrap().sin;
        let sin: Vec<Vec<f32>> = turned.to_vec2().unwrap();
        let expected = [
            [3.0f32, 3.0, 3.0],
            [4.0, 4.0, 4.0],
            [0.0, -1.0, -1.0],
            [0.0, -1.0, 0.0],
            [1.0, -4.0, -1.0],
            [1.0, -3.0, -1.0],
        ];
        assert_eq!(sin.len(), 2 + 2 + 7);
        for (found, expected) in sin.iter().zip(expected) {
            for (axis, position) in expected.iter().enumerate() {
                assert!((found[2 * axis] - position.sin()).abs() < 1e-6);
                assert_eq!(found[2 * axis], found[2 * axis + 1]);
            }
        }
    }
}
