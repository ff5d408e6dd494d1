//! The noise levels that a diffusion network was trained on, and where a sigma lies among them.
//!
//! A sample at sigma is `image + sigma * noise`, the variance exploding form of Karras et al. 2022,
//! "Elucidating the design space of diffusion-based generative models". The networks themselves see
//! it divided by `sqrt(1 + sigma^2)`, the variance preserving form of Ho et al. 2020, and a timestep
//! instead of sigma. Between two training timesteps the logarithm of sigma is a line.

use std::sync::LazyLock;

/// Timesteps of training.
const TRAIN_TIMESTEPS: usize = 1000;
/// The first and the last beta of Stable Diffusion; the square roots between them are a line.
const BETAS: [f64; 2] = [0.00085, 0.012];
/// Every how many timesteps a network was distilled on for LCM and TCD: 50 are left of 1000.
const DISTILLED_STRIDE: usize = 20;
/// What a place may be below the middle of two timesteps and still count as the upper one: more than rounding loses.
const MIDDLE: f64 = 1e-6;

/// Sigmas of training, ascending, one every `stride` timesteps from `first` on.
#[derive(Clone, Debug)]
pub(crate) struct Discrete {
    log_sigmas: Vec<f64>,
    first: usize,
    stride: usize,
}

static SDXL: LazyLock<Discrete> = LazyLock::new(|| {
    let [low, high] = BETAS.map(f64::sqrt);
    let mut alphas_cumprod = 1.0;
    let log_sigmas = (0..TRAIN_TIMESTEPS).map(|t| {
        let beta = low + (high - low) * t as f64 / (TRAIN_TIMESTEPS - 1) as f64;
        alphas_cumprod *= 1.0 - beta * beta;
        0.5 * f64::ln((1.0 - alphas_cumprod) / alphas_cumprod)
    });
    Discrete { log_sigmas: log_sigmas.collect(), first: 0, stride: 1 }
});

static DISTILLED: LazyLock<Discrete> = LazyLock::new(|| {
    let first = DISTILLED_STRIDE - 1;
    let log_sigmas = SDXL.log_sigmas.iter().skip(first).step_by(DISTILLED_STRIDE).copied();
    Discrete { log_sigmas: log_sigmas.collect(), first, stride: DISTILLED_STRIDE }
});

impl Discrete {
    /// The 1000 noise levels of Stable Diffusion 1 and XL.
    pub(crate) fn sdxl() -> &'static Self {
        &SDXL
    }

    /// The 50 of them that networks are distilled on for few steps: timesteps 19, 39 ... 999.
    pub(crate) fn distilled() -> &'static Self {
        &DISTILLED
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.log_sigmas.len()
    }

    /// The sigma of an entry, the smallest first.
    pub(crate) fn entry(&self, index: usize) -> f64 {
        self.log_sigmas[index].exp()
    }

    /// The smallest sigma.
    pub(crate) fn sigma_min(&self) -> f64 {
        self.entry(0)
    }

    /// The largest sigma.
    pub(crate) fn sigma_max(&self) -> f64 {
        self.entry(self.len() - 1)
    }

    /// The timestep of the smallest sigma.
    pub(crate) fn first_timestep(&self) -> f64 {
        self.first as f64
    }

    /// The timestep of the largest sigma.
    pub(crate) fn last_timestep(&self) -> f64 {
        self.timestep_at((self.len() - 1) as f64)
    }

    /// The sigma of a timestep, which need not be whole. Beyond the ends it is that of the end.
    pub(crate) fn sigma(&self, timestep: f64) -> f64 {
        let last = (self.len() - 1) as f64;
        let place = ((timestep - self.first as f64) / self.stride as f64).clamp(0.0, last);
        let (below, above) = (place.floor(), place.ceil());
        let [low, high] = [below, above].map(|index| self.log_sigmas[index as usize]);
        (low + (high - low) * (place - below)).exp()
    }

    /// The timestep of a sigma, which need not be whole. Beyond the ends it is that of the end.
    #[cfg(test)]
    pub(crate) fn timestep(&self, sigma: f64) -> f64 {
        self.timestep_at(self.place(sigma))
    }

    /// The training timestep whose sigma is nearest by its logarithm. This is what networks are
    /// told: they have seen no other. Of two that are as near it is the larger one, whatever logarithms
    /// lose on this machine: timesteps at equal distances often lie in the middle.
    pub(crate) fn nearest_timestep(&self, sigma: f64) -> f64 {
        self.timestep_at((self.place(sigma) + MIDDLE).round())
    }

    fn timestep_at(&self, place: f64) -> f64 {
        self.first as f64 + self.stride as f64 * place
    }

    /// Where a sigma lies among the entries.
    fn place(&self, sigma: f64) -> f64 {
        let log_sigma = sigma.ln();
        let above = self.log_sigmas.partition_point(|entry| *entry < log_sigma);
        if above == 0 {
            return 0.0;
        }
        let Some(high) = self.log_sigmas.get(above) else { return (self.len() - 1) as f64 };
        let low = self.log_sigmas[above - 1];
        (above - 1) as f64 + (log_sigma - low) / (high - low)
    }
}
