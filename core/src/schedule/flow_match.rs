//! Sigmas of flow matching and the steps of Euler's method along them.
//!
//! A sample at sigma is `(1 - sigma) * image + sigma * noise`, and the network answers the velocity
//! `noise - image`; so a step is `x + (next sigma - sigma) * velocity` (Lipman et al. 2023, "Flow
//! matching for generative modeling"; Esser et al. 2024, "Scaling rectified flow transformers",
//! 5.3.2 for the shift). The arithmetic is that of diffusers: numpy in f32 from the first sigmas on,
//! with constants in f64 that are rounded where they meet an array.

use super::config::{FlowMatchEuler, TimeShift};
use crate::error::{Error, Result};

/// In what precision the reference hands numbers of the schedule to the network.
///
/// It is part of a picture: the reference rounds a timestep of 967.3 to 968 when the network is in
/// bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// As computed, f32.
    Exact,
    /// Rounded to bf16 after every operation, as the reference does for networks in bf16.
    Bf16,
}

impl Rounding {
    fn apply(self, value: f32) -> f32 {
        match self {
            Rounding::Exact => value,
            Rounding::Bf16 => half::bf16::from_f32(value).to_f32(),
        }
    }
}

/// The sigmas of one run. They depend on the size of what is denoised, so every entry of a batch
/// has its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Schedule {
    /// One more than there are steps; the last is 0.
    sigmas: Vec<f32>,
    num_train_timesteps: f32,
}

impl FlowMatchEuler {
    /// mu for `tokens` target tokens (not those of references): the line through the two shifts.
    pub(crate) fn mu(&self, tokens: usize) -> f64 {
        let span = self.max_image_seq_len - self.base_image_seq_len;
        let slope = (self.max_shift - self.base_shift) / span;
        tokens as f64 * slope + (self.base_shift - slope * self.base_image_seq_len)
    }

    /// The schedule of `steps` steps for a target of `tokens` tokens.
    pub(crate) fn schedule(&self, steps: usize, tokens: usize) -> Result<Schedule> {
        if steps == 0 {
            return Err(Error::invalid_input("denoising takes at least one step")
                .with("field", "num_inference_steps"));
        }
        let mut sigmas = linspace_to_first(steps);
        if self.use_dynamic_shifting {
            let mu = self.mu(tokens);
            let weight = match self.time_shift_type {
                TimeShift::Exponential => mu.exp(),
                TimeShift::Linear => mu,
            } as f32;
            for sigma in &mut sigmas {
                *sigma = weight / (weight + (1.0 / *sigma - 1.0));
            }
        } else {
            let (shift, slope) = (self.shift as f32, (self.shift - 1.0) as f32);
            for sigma in &mut sigmas {
                *sigma = shift * *sigma / (1.0 + slope * *sigma);
            }
        }
        // With one step the reference divides zero by zero: the only sigma is the first, 1, and
        // there is nothing to stretch.
        if let Some(terminal) = self.shift_terminal.filter(|_| steps > 1) {
            stretch(&mut sigmas, terminal);
        }
        if sigmas.iter().any(|sigma| !(0.0..=1.0).contains(sigma)) {
            return Err(Error::model_invalid(format!(
                "the scheduler's shifts make no sigmas between 0 and 1 for {tokens} tokens"
            ))
            .with("field", "max_shift"));
        }
        sigmas.push(0.0);
        Ok(Schedule { sigmas, num_train_timesteps: self.num_train_timesteps as f32 })
    }
}

/// `steps` values from 1 down to `1 / steps`, in f64 as `numpy.linspace`, then f32.
fn linspace_to_first(steps: usize) -> Vec<f32> {
    let last = 1.0 / steps as f64;
    let width = (last - 1.0) / (steps.max(2) - 1) as f64;
    let mut sigmas: Vec<f32> = (0..steps).map(|i| (i as f64 * width + 1.0) as f32).collect();
    if let (Some(sigma), true) = (sigmas.last_mut(), steps > 1) {
        *sigma = last as f32;
    }
    sigmas
}

/// Stretches the distances from 1 so that the last sigma is `terminal`.
fn stretch(sigmas: &mut [f32], terminal: f64) {
    let Some(last) = sigmas.last() else { return };
    let scale = (1.0 - last) / (1.0 - terminal) as f32;
    for sigma in sigmas {
        *sigma = 1.0 - (1.0 - *sigma) / scale;
    }
}

impl Schedule {
    /// How many times the network runs.
    pub(crate) fn steps(&self) -> usize {
        self.sigmas.len() - 1
    }

    /// The sigmas, one more than steps: the last is 0.
    pub(crate) fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// The timesteps, as the scheduler counts them: from the number of training steps down.
    pub(crate) fn timesteps(&self) -> impl ExactSizeIterator<Item = f32> {
        self.sigmas[..self.steps()].iter().map(|sigma| sigma * self.num_train_timesteps)
    }

    /// What the network gets as time, between 0 and 1: the timestep divided by 1000, whatever the
    /// number of training steps is, each operation rounded as `rounding` says.
    pub(crate) fn times(&self, rounding: Rounding) -> impl ExactSizeIterator<Item = f32> {
        self.timesteps().map(move |t| rounding.apply(rounding.apply(t) / 1000.0))
    }

    /// What a step multiplies the velocity by: the next sigma minus this one.
    ///
    /// For a velocity in bf16 the reference rounds this factor too, then the product, and adds it
    /// to the sample in f32 before it rounds the sum.
    pub(crate) fn factors(&self, rounding: Rounding) -> impl ExactSizeIterator<Item = f32> {
        self.sigmas.windows(2).map(move |pair| rounding.apply(pair[1] - pair[0]))
    }
}
