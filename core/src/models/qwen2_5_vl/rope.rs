//! Rotary positions on several axes: which angles the pairs of a head turn by, and how layers are
//! loaded for it.
//!
//! The networks are trained with heads whose value `i` and `i + d / 2` are a pair, while the kernel
//! turns neighbours. Queries and keys meet only each other, so the order of their values is free: the
//! rows of the layers that make them are exchanged at load, and the products stay the same.

use candle_core::{Device, Result, Tensor};

use super::config::{TextConfig, VisionConfig};
use crate::kernels::attention::Rotation;

/// For each pair of a head, the axis it turns with and its frequency.
pub(super) struct Bands(Vec<(usize, f32)>);

impl Bands {
    /// Of the language model: frequencies fall over the whole head, axes take turns in sections
    /// (M-RoPE).
    pub(super) fn of_text(config: &TextConfig) -> Self {
        let axes = config.mrope_section.iter().enumerate();
        let axes = axes.flat_map(|(axis, pairs)| std::iter::repeat_n(axis, *pairs));
        Self(axes.zip(frequencies(config.rope_theta, config.head())).collect())
    }

    /// Of the vision part: the same frequencies for rows and for columns.
    pub(super) fn of_vision(config: &VisionConfig) -> Self {
        let half = config.hidden_size / config.num_heads / 2;
        let axis =
            |axis| frequencies(config.rope_theta, half).map(move |frequency| (axis, frequency));
        Self(axis(0).chain(axis(1)).collect())
    }

    /// The rotation of tokens at these positions.
    pub(super) fn rotation<const AXES: usize>(
        &self,
        positions: &[[u32; AXES]],
        device: &Device,
    ) -> Result<Rotation> {
        let head = 2 * self.0.len();
        let mut angles = Vec::with_capacity(positions.len() * head);
        for position in positions {
            let angle = |(axis, frequency): &(usize, f32)| position[*axis] as f32 * frequency;
            angles.extend(self.0.iter().flat_map(|band| [angle(band); 2]));
        }
        let angles = Tensor::from_vec(angles, (positions.len(), head), &Device::Cpu)?;
        Ok(Rotation {
            sin: angles.sin()?.to_device(device)?,
            cos: angles.cos()?.to_device(device)?,
            prefix: 0,
        })
    }
}

/// `1 / theta^(2k / size)` for half as many `k` as `size`; rounded where torch rounds.
fn frequencies(theta: f64, size: usize) -> impl Iterator<Item = f32> {
    let exponent = move |k: usize| f64::from((2 * k) as f32 / size as f32);
    (0..size / 2).map(move |k| 1.0 / theta.powf(exponent(k)) as f32)
}

/// Rows of `heads` heads of queries or keys, with pairs as neighbours.
pub(super) fn neighbours(rows: &Tensor, heads: usize) -> Result<Tensor> {
    let dims = rows.dims().to_vec();
    let half = dims[0] / heads / 2;
    rows.reshape((heads, 2, half, ()))?.transpose(1, 2)?.contiguous()?.reshape(dims)
}

/// The rotation of some of the tokens behind each other.
pub(super) fn part(rotation: &Rotation, start: usize, count: usize) -> Result<Rotation> {
    Ok(Rotation {
        sin: rotation.sin.narrow(0, start, count)?,
        cos: rotation.cos.narrow(0, start, count)?,
        prefix: 0,
    })
}
