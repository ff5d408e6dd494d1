//! What the network knows about a step beside the latents: its time, and in SDXL the pooled text and
//! the sizes that a picture was trained or is asked for with.

use candle_core::{DType, Device, Result, Tensor};

use super::config::UnetConfig;
use crate::error;
use crate::kernels::activation::Activation;
use crate::nn::Linear;
use crate::weights::Scope;

/// The longest wavelength, over 2 pi.
const MAX_PERIOD: f64 = 10_000.0;

/// Sinusoidal embeddings of numbers, each of `width` values.
#[derive(Clone, Copy)]
pub(super) struct Sinusoids {
    pub(super) width: usize,
    flip_sin_to_cos: bool,
    freq_shift: f64,
}

impl Sinusoids {
    pub(super) fn new(config: &UnetConfig, width: usize) -> Self {
        let UnetConfig { flip_sin_to_cos, freq_shift, .. } = *config;
        Self { width, flip_sin_to_cos, freq_shift }
    }

    /// `(numbers, width)` in `f32`: the sines of `number * 10000^(-i / (width / 2 - freq_shift))` and
    /// then their cosines, or the other way round.
    pub(super) fn of(self, numbers: &[f32]) -> Result<Tensor> {
        let half = self.width / 2;
        // Rounded where the reference rounds: times are up to 1000, and multiply what is lost here.
        let frequency = |i: usize| {
            let exponent = -MAX_PERIOD.ln() as f32 * i as f32;
            f64::from(exponent / (half as f64 - self.freq_shift) as f32).exp() as f32
        };
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let angles = numbers.iter().flat_map(|x| frequencies.iter().map(move |f| x * f));
        let angles =
            Tensor::from_vec(angles.collect::<Vec<f32>>(), (numbers.len(), half), &Device::Cpu)?;
        let (sines, cosines) = (angles.sin()?, angles.cos()?);
        match self.flip_sin_to_cos {
            true => Tensor::cat(&[cosines, sines], 1),
            false => Tensor::cat(&[sines, cosines], 1),
        }
    }
}

/// `TimestepEmbedding`: two linear layers with a SiLU between them.
pub(super) struct Embedding {
    first: Linear,
    second: Linear,
    dtype: DType,
    device: Device,
}

impl Embedding {
    /// From `k` values to `n`.
    pub(super) fn load(scope: &Scope, k: usize, n: usize) -> error::Result<Self> {
        Ok(Self {
            first: Linear::load(&scope.at("linear_1"), k, n, true)?.then(Activation::Silu),
            second: Linear::load(&scope.at("linear_2"), n, n, true)?,
            dtype: scope.dtype(),
            device: scope.device().clone(),
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.to_device(&self.device)?.to_dtype(self.dtype)?;
        self.second.forward(&self.first.forward(&x)?)
    }
}
