//! Rotary position embeddings.

use candle_core::{Device, Result, Tensor};

use crate::kernels::attention::Rotation;

/// The parameters of [`axial_rope`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct AxialRopeOptions {
    pub(crate) grid: (usize, usize),
    /// The grid the model was trained on: positions are scaled to its range.
    pub(crate) reference: Option<(usize, usize)>,
    pub(crate) offset: f64,
    pub(crate) temperature: f64,
    pub(crate) head: usize,
    /// Tokens before the patches; they are not rotated.
    pub(crate) prefix: usize,
}

/// Axial rotary embedding of a grid of patches, as EVA-02 uses it (`RotaryEmbeddingCat` in timm).
///
/// A head of width `d` holds `d / 4` frequencies `temperature^(-4 k / d)` for each axis. The first
/// half of the head turns with the row, the second half with the column, by neighbouring pairs.
pub(crate) fn axial_rope(options: AxialRopeOptions, device: &Device) -> Result<Rotation> {
    let AxialRopeOptions { grid: (rows, columns), reference, offset, temperature, head, prefix } =
        options;
    let bands: Vec<f32> = (0..head / 4)
        .map(|k| 1.0 / (temperature as f32).powf((4 * k) as f32 / head as f32))
        .collect();
    let positions = |count: usize, reference: Option<usize>| -> Vec<f32> {
        let reference = reference.unwrap_or(count) as f32;
        (0..count).map(|i| (i as f32 + offset as f32) / count as f32 * reference).collect()
    };
    let ys = positions(rows, reference.map(|reference| reference.0));
    let xs = positions(columns, reference.map(|reference| reference.1));
    let mut angles = Vec::with_capacity(rows * columns * head);
    for y in &ys {
        for x in &xs {
            for position in [y, x] {
                angles.extend(bands.iter().flat_map(|band| [position * band; 2]));
            }
        }
    }
    let angles = Tensor::from_vec(angles, (rows * columns, head), &Device::Cpu)?;
    Ok(Rotation {
        sin: angles.sin()?.to_device(device)?,
        cos: angles.cos()?.to_device(device)?,
        prefix,
    })
}
