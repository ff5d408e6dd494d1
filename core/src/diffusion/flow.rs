//! Euler's method along a schedule of flow matching.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use super::{Question, Sampler};
use crate::schedule::{Rounding, Schedule};

/// A sample whose network answers velocities. Sums and products are rounded where the reference rounds.
pub(crate) struct FlowEuler {
    latents: Tensor,
    schedule: Arc<Schedule>,
    rounding: Rounding,
    step: usize,
    /// Latents and velocity of the last step.
    last: Option<(Tensor, Tensor)>,
}

impl FlowEuler {
    /// From noise `(tokens, channels)` in `f32`.
    pub(crate) fn new(noise: Tensor, schedule: Arc<Schedule>, rounding: Rounding) -> Self {
        Self { latents: noise, schedule, rounding, step: 0, last: None }
    }
}

impl Sampler for FlowEuler {
    fn question(&self) -> Option<Question<'_>> {
        (self.step < self.schedule.steps()).then(|| Question {
            latents: &self.latents,
            sigma: f64::from(self.schedule.sigmas()[self.step]),
            step: self.step,
        })
    }

    fn accept(&mut self, velocity: Tensor) -> Result<Option<usize>> {
        let Some(factor) = self.schedule.factors(self.rounding).nth(self.step) else {
            candle_core::bail!("step {} of {}", self.step, self.schedule.steps())
        };
        let round = |x: Tensor| match self.rounding {
            Rounding::Exact => Ok(x),
            Rounding::Bf16 => x.to_dtype(DType::BF16)?.to_dtype(DType::F32),
        };
        let moved = round((round(velocity.clone())? * f64::from(factor))?)?;
        let latents = round((&self.latents + moved)?)?;
        self.last = Some((std::mem::replace(&mut self.latents, latents), velocity));
        self.step += 1;
        Ok(Some(self.step))
    }

    fn latents(&self) -> &Tensor {
        &self.latents
    }

    fn estimate(&self) -> Result<Tensor> {
        let Some((latents, velocity)) = &self.last else { return Ok(self.latents.clone()) };
        latents - (velocity * f64::from(self.schedule.sigmas()[self.step - 1]))?
    }
}
