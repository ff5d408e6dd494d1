//! Rotary position embeddings.

use candle_core::{D, DType, Device, Result, Tensor};

/// Axial rotary embedding of a grid of patches, as EVA-02 uses it (`RotaryEmbeddingCat` in timm).
///
/// A head of width `d` holds `d / 4` frequencies `temperature^(-4 k / d)` for each axis. The first
/// half of the head turns with the row, the second half with the column, by neighbouring pairs.
pub(crate) struct AxialRope {
    /// `(rows * columns, d)` each.
    sin: Tensor,
    cos: Tensor,
}

/// The parameters of [`AxialRope`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct AxialRopeOptions {
    pub(crate) grid: (usize, usize),
    /// The grid the model was trained on: positions are scaled to its range.
    pub(crate) reference: Option<(usize, usize)>,
    pub(crate) offset: f64,
    pub(crate) temperature: f64,
    pub(crate) head: usize,
}

impl AxialRope {
    pub(crate) fn new(options: AxialRopeOptions, device: &Device, dtype: DType) -> Result<Self> {
        let AxialRopeOptions { grid: (rows, columns), reference, offset, temperature, head } =
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
        let place = |table: Tensor| table.to_dtype(dtype)?.to_device(device);
        Ok(Self { sin: place(angles.sin()?)?, cos: place(angles.cos()?)? })
    }

    /// Rotates the patches of `(b, h, n, d)`; the first `prefix` tokens are no patches and stay.
    pub(crate) fn forward(&self, x: &Tensor, prefix: usize) -> Result<Tensor> {
        let tokens = x.dim(2)?;
        let patches = x.narrow(2, prefix, tokens - prefix)?.contiguous()?;
        let (b, h, n, d) = patches.dims4()?;
        let pairs = patches.reshape((b, h, n, d / 2, 2))?;
        let even = pairs.narrow(D::Minus1, 0, 1)?;
        let odd = pairs.narrow(D::Minus1, 1, 1)?;
        let turned = Tensor::cat(&[odd.neg()?, even], D::Minus1)?.reshape((b, h, n, d))?;
        let rotated = (patches.broadcast_mul(&self.cos)? + turned.broadcast_mul(&self.sin)?)?;
        if prefix == 0 {
            return Ok(rotated);
        }
        Tensor::cat(&[x.narrow(2, 0, prefix)?.contiguous()?, rotated], 2)
    }
}
