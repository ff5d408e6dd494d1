//! Schedulers: which sigmas a run of so many steps goes through.
//!
//! | name | sigmas |
//! |---|---|
//! | `normal` | those of timesteps at equal distances, both ends included |
//! | `sgm_uniform` | the same without the lower end, so that the last step is as long as the others |
//! | `karras` | their 7th roots are at equal distances (Karras et al. 2022, equation 5) |
//! | `exponential` | their logarithms are at equal distances |
//! | `simple` | picked from the 1000 of training at equal distances, from the largest down |
//! | `ddim_uniform` | picked with a whole stride from timestep 1 up (Song et al. 2021) |
//! | `turbo` | the first of the timesteps 999, 899 ... 99 that SDXL Turbo was distilled on |
//! | `align_your_steps` | the optimised ones for SDXL (Sabour et al. 2024), logarithms interpolated |
//! | `lcm`, `tcd` | `sgm_uniform` on the 50 timesteps of distillation |
//! | `edm_playground_v2.5` | `karras` on the continuous range that Playground v2.5 was trained on |
//!
//! All end with 0. A scheduler also says what noise levels the network is taken for: the last three
//! read it in another way than the others, see [`Scheduler::preconditioning`].

use super::discrete::Discrete;
use super::names::named;
use super::preconditioning::{Preconditioning, Prediction};
use super::sampler::SamplerKind;
use crate::error::{Error, Result};

named! {
    /// How sigmas are chosen. The names are those of the Fooocus API.
    Scheduler, "scheduler";
    Normal = "normal",
    Karras = "karras",
    Exponential = "exponential",
    SgmUniform = "sgm_uniform",
    Simple = "simple",
    DdimUniform = "ddim_uniform",
    Lcm = "lcm",
    Turbo = "turbo",
    AlignYourSteps = "align_your_steps",
    Tcd = "tcd",
    EdmPlayground = "edm_playground_v2.5",
}

/// More steps than this are a mistake.
pub(crate) const MAX_STEPS: usize = 1000;
/// How many sigmas a partial denoise may count before it takes the last ones.
const MAX_TOTAL: usize = 100_000;

/// The exponent of Karras et al.
const RHO: f64 = 7.0;
/// Timesteps of SDXL Turbo, and the distance between them.
const TURBO_STEPS: usize = 10;
const TURBO_STRIDE: usize = 100;
/// The range of sigma of Playground v2.5.
const EDM_RANGE: (f64, f64) = (0.002, 120.0);
/// The sigmas of Align Your Steps for SDXL with ten steps.
const ALIGN_YOUR_STEPS: [f64; 11] =
    [14.6146, 6.3185, 3.7682, 2.1812, 1.3405, 0.8621, 0.5551, 0.3799, 0.2332, 0.1114, 0.0292];

impl Scheduler {
    /// The sigmas of a run, descending, the last 0: one more than there are steps.
    ///
    /// `denoise` below 1 starts later: of the sigmas of `steps / denoise` steps the last are kept,
    /// so that there are still `steps` of them. Samplers that leave out the last sigma above 0 get
    /// those of one step more. `ddim_uniform` may have more or less steps than were asked for, as
    /// its stride is whole.
    ///
    /// # Errors
    /// For steps that are none or too many for the scheduler, and a `denoise` that is not above 0
    /// and up to 1.
    pub(crate) fn sigmas(
        self,
        sampler: SamplerKind,
        steps: usize,
        denoise: f64,
    ) -> Result<Vec<f64>> {
        if !(1..=MAX_STEPS).contains(&steps) {
            let why = format!("there are 1 to {MAX_STEPS} steps, not {steps}");
            return Err(Error::invalid_input(why).with("field", "steps"));
        }
        if !(denoise > 0.0 && denoise <= 1.0) {
            let why = format!("{denoise} is not above 0 and up to 1");
            return Err(Error::invalid_input(why).with("field", "denoise"));
        }
        // A number that is too large for its type becomes the largest one.
        let total = (steps as f64 / denoise) as usize;
        if total > MAX_TOTAL {
            let why = format!("{steps} steps at a denoise of {denoise} are too fine");
            return Err(Error::invalid_input(why).with("field", "denoise"));
        }
        let mut sigmas = if sampler.discards_penultimate_sigma() {
            let mut sigmas = self.whole(total + 1)?;
            sigmas.remove(sigmas.len() - 2);
            sigmas
        } else {
            self.whole(total)?
        };
        if denoise < 1.0 {
            sigmas.drain(..sigmas.len().saturating_sub(steps + 1));
        }
        if sigmas.is_sorted_by(|a, b| a > b) {
            return Ok(sigmas);
        }
        let why = format!("the scheduler {self} has no {total} different sigmas");
        Err(Error::invalid_input(why).with("field", "steps"))
    }

    /// What initial noise is multiplied by: the first sigma, or, where nothing of a picture is left
    /// at it, the deviation that noisy pictures had in training.
    pub(crate) fn noise_scale(self, sigmas: &[f64]) -> f64 {
        let first = sigmas.first().copied().unwrap_or_default();
        let is_all_noise = first >= self.sigma_max() * (1.0 - 1e-5);
        if is_all_noise { first.hypot(1.0) } else { first }
    }

    /// How the network is asked at `sigma`, if the run is one of this scheduler.
    pub(crate) fn preconditioning(self, prediction: Prediction, sigma: f64) -> Preconditioning {
        match self {
            Scheduler::EdmPlayground => Preconditioning::edm(sigma),
            Scheduler::Lcm => Preconditioning::lcm(prediction, Discrete::distilled(), sigma),
            Scheduler::Tcd => Preconditioning::new(prediction, Discrete::distilled(), sigma),
            _ => Preconditioning::new(prediction, Discrete::sdxl(), sigma),
        }
    }

    fn sigma_max(self) -> f64 {
        match self {
            Scheduler::EdmPlayground => EDM_RANGE.1,
            _ => Discrete::sdxl().sigma_max(),
        }
    }

    /// The sigmas of a run that starts with nothing but noise.
    fn whole(self, steps: usize) -> Result<Vec<f64>> {
        let table = Discrete::sdxl();
        let range = (table.sigma_min(), table.sigma_max());
        let mut sigmas = match self {
            Scheduler::Normal => linspace(table.last_timestep(), table.first_timestep(), steps)
                .map(|timestep| table.sigma(timestep))
                .collect(),
            Scheduler::SgmUniform => sgm_uniform(table, steps),
            Scheduler::Lcm | Scheduler::Tcd => sgm_uniform(Discrete::distilled(), steps),
            Scheduler::Karras => karras(range, steps),
            Scheduler::EdmPlayground => karras(EDM_RANGE, steps),
            Scheduler::Exponential => {
                linspace(range.1.ln(), range.0.ln(), steps).map(f64::exp).collect()
            }
            Scheduler::Simple => {
                let stride = table.len() as f64 / steps as f64;
                (0..steps)
                    .map(|step| table.entry(table.len() - 1 - (step as f64 * stride) as usize))
                    .collect()
            }
            Scheduler::DdimUniform => {
                let stride = (table.len() / steps).max(1);
                let mut sigmas: Vec<f64> =
                    (1..table.len()).step_by(stride).map(|index| table.entry(index)).collect();
                sigmas.reverse();
                sigmas
            }
            Scheduler::Turbo if steps > TURBO_STEPS => {
                let why = format!("the scheduler {self} has {TURBO_STEPS} steps, not {steps}");
                return Err(Error::invalid_input(why).with("field", "steps"));
            }
            Scheduler::Turbo => (0..steps)
                .map(|step| table.entry((TURBO_STEPS - step) * TURBO_STRIDE - 1))
                .collect(),
            Scheduler::AlignYourSteps => align_your_steps(steps),
        };
        sigmas.push(0.0);
        Ok(sigmas)
    }
}

/// `count` numbers at equal distances; a single one is the first.
fn linspace(from: f64, to: f64, count: usize) -> impl Iterator<Item = f64> {
    let width = (to - from) / (count.max(2) - 1) as f64;
    (0..count).map(move |i| if i > 0 && i + 1 == count { to } else { from + width * i as f64 })
}

fn sgm_uniform(table: &Discrete, steps: usize) -> Vec<f64> {
    linspace(table.last_timestep(), table.first_timestep(), steps + 1)
        .take(steps)
        .map(|timestep| table.sigma(timestep))
        .collect()
}

/// Sigmas from the upper end of a range to the lower, by Karras et al.
pub(super) fn karras((min, max): (f64, f64), count: usize) -> Vec<f64> {
    let root = |sigma: f64| sigma.powf(RHO.recip());
    linspace(root(max), root(min), count).map(|root| root.powf(RHO)).collect()
}

/// The published sigmas but the last, stretched to other numbers of steps.
fn align_your_steps(steps: usize) -> Vec<f64> {
    let last = ALIGN_YOUR_STEPS.len() - 1;
    (0..steps)
        .map(|step| {
            let place = (step * last) as f64 / steps as f64;
            let below = place as usize;
            let [low, high] = [below, below + 1].map(|i| ALIGN_YOUR_STEPS[i].ln());
            (low + (high - low) * (place - below as f64)).exp()
        })
        .collect()
}
