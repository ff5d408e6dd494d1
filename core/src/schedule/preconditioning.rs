//! What is around the network: how samples and sigmas are given to it, and what its answer says
//! about the image (Karras et al. 2022, table 1 and section 5).

use candle_core::{Result, Tensor};

use super::discrete::Discrete;

/// What a network answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prediction {
    /// The noise (Ho et al. 2020).
    Epsilon,
    /// The velocity between image and noise (Salimans and Ho 2022).
    V,
}

/// The deviation of images that LCM and Playground v2.5 count with.
const SIGMA_DATA: f64 = 0.5;
/// By what LCM multiplies timesteps in its boundary condition.
const LCM_TIMESTEP_SCALING: f64 = 10.0;

/// At one sigma: the network gets `c_in * x` and `c_noise`, and the image is
/// `c_skip * x + c_out * answer`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Preconditioning {
    pub(crate) c_in: f64,
    pub(crate) c_noise: f64,
    pub(crate) c_skip: f64,
    pub(crate) c_out: f64,
}

impl Preconditioning {
    /// For networks with the noise levels of a table; `c_noise` is one of its timesteps.
    pub(crate) fn new(prediction: Prediction, table: &Discrete, sigma: f64) -> Self {
        let c_in = sigma.hypot(1.0).recip();
        let (c_skip, c_out) = match prediction {
            Prediction::Epsilon => (1.0, -sigma),
            Prediction::V => (c_in * c_in, -sigma * c_in),
        };
        Self { c_in, c_noise: table.nearest_timestep(sigma), c_skip, c_out }
    }

    /// The same for latent consistency models, which are the identity where there is no noise (Luo
    /// et al. 2023, "Latent consistency models", appendix C).
    pub(crate) fn lcm(prediction: Prediction, table: &Discrete, sigma: f64) -> Self {
        let plain = Self::new(prediction, table, sigma);
        let time = plain.c_noise * LCM_TIMESTEP_SCALING;
        let skip = SIGMA_DATA.powi(2) / (time.powi(2) + SIGMA_DATA.powi(2));
        let out = time / time.hypot(SIGMA_DATA);
        Self { c_skip: skip + out * plain.c_skip, c_out: out * plain.c_out, ..plain }
    }

    /// For networks that were trained with a continuous sigma, as Playground v2.5.
    pub(crate) fn edm(sigma: f64) -> Self {
        let c_in = sigma.hypot(SIGMA_DATA).recip();
        Self {
            c_in,
            c_noise: 0.25 * sigma.ln(),
            c_skip: (SIGMA_DATA * c_in).powi(2),
            c_out: sigma * SIGMA_DATA * c_in,
        }
    }

    /// The image that an answer to `x` tells of.
    pub(crate) fn denoised(&self, x: &Tensor, answer: &Tensor) -> Result<Tensor> {
        x.affine(self.c_skip, 0.0)? + answer.affine(self.c_out, 0.0)?
    }
}
