//! DPM-Solver of orders 1 to 3 (Lu et al. 2022, "DPM-Solver: a fast ODE solver for diffusion
//! probabilistic model sampling"), with steps of equal or of adaptive length in `-ln sigma`.
//!
//! No such step reaches 0: both samplers end at the last sigma above it.

use candle_core::{Result, Tensor, bail};

use super::{Answer, Interval, Move, SamplerKind, Step, linear, towards};
use crate::error;

/// Where the solver asks within a step.
const SECOND_ORDER: f64 = 1.0 / 2.0;
const THIRD_ORDER: [f64; 2] = [1.0 / 3.0, 2.0 / 3.0];

/// The first and the last sigma above 0.
pub(super) fn ends(kind: SamplerKind, sigmas: &[f64]) -> error::Result<(f64, f64)> {
    match sigmas.iter().rfind(|sigma| **sigma > 0.0) {
        Some(last) if *last < sigmas[0] => Ok((sigmas[0], *last)),
        _ => {
            let why =
                format!("the sampler {kind} ends at the last sigma above 0 and needs 2 steps");
            Err(error::Error::invalid_input(why).with("field", "steps"))
        }
    }
}

/// Intervals for as many evaluations as there are steps.
pub(super) fn fast(kind: SamplerKind, sigmas: &[f64]) -> error::Result<Vec<Interval>> {
    let (first, last) = ends(kind, sigmas)?;
    let count = (sigmas.len() - 1) / 3 + 1;
    let sigma = |i: usize| first * (last / first).powf(i as f64 / count as f64);
    Ok((0..count).map(|i| Interval { from: sigma(i), to: sigma(i + 1) }).collect())
}

/// The order of an interval when `steps` evaluations are spent: 3 as long as there are enough.
fn order(steps: usize, index: usize) -> usize {
    match (steps % 3, steps / 3 - index.min(steps / 3)) {
        (0, 0) => 1,
        (0, 1) => 2,
        (rest, 0) => rest,
        _ => 3,
    }
}

/// A step of `dpm_fast`.
pub(super) fn step(step: &Step<'_>) -> Result<Move> {
    let interval = step.interval();
    match order(step.steps, step.index) {
        1 => towards(step.latents(), step.denoised(), interval.from, interval.to).map(Move::To),
        2 => second_order(step.answers, interval, SECOND_ORDER),
        _ => third_order(step.answers, interval),
    }
}

/// The sigma at a share of an interval.
fn within(Interval { from, to }: Interval, share: f64) -> f64 {
    from * (to / from).powf(share)
}

fn second_order(answers: &[Answer], interval: Interval, share: f64) -> Result<Move> {
    let Interval { from, to } = interval;
    match answers {
        [first, second, ..] => {
            let bend = (to - from) / (2.0 * share);
            linear(&[
                (1.0, &first.latents),
                (to - from - bend, &first.slope()?),
                (bend, &second.slope()?),
            ])
            .map(Move::To)
        }
        _ => ask_within(answers, interval, share),
    }
}

fn third_order(answers: &[Answer], interval: Interval) -> Result<Move> {
    let Interval { from, to } = interval;
    let [near, far] = THIRD_ORDER;
    // From the start, with the slopes there and at `share`, to another sigma of the interval.
    let bent = |answer: &Answer, share: f64, target: f64| {
        let first = &answers[0];
        let h = (from / target).ln();
        let reach = h / (from / to).ln();
        let bend = -target * (reach / share) * (h.exp_m1() / h - 1.0);
        linear(&[
            (1.0, &first.latents),
            (target - from - bend, &first.slope()?),
            (bend, &answer.slope()?),
        ])
    };
    match answers {
        [_, _, third, ..] => bent(third, far, to).map(Move::To),
        [_, second] => {
            let target = within(interval, far);
            Ok(Move::Ask(bent(second, near, target)?, target))
        }
        _ => ask_within(answers, interval, near),
    }
}

/// Asks at a share of the interval, after a step of order 1.
fn ask_within(answers: &[Answer], interval: Interval, share: f64) -> Result<Move> {
    let [first, ..] = answers else { bail!("a step starts with an answer") };
    let sigma = within(interval, share);
    Ok(Move::Ask(towards(&first.latents, &first.denoised, interval.from, sigma)?, sigma))
}

/// The first length of adaptive steps in `-ln sigma`.
const FIRST_LENGTH: f64 = 0.05;
/// Steps that have to be shorter are a sign that the network is not smooth.
const SHORTEST: f64 = 1e-4;
/// The errors that are allowed: one absolute, and one for each unit of the latents.
const ABSOLUTE: f64 = 0.0078;
const RELATIVE: f64 = 0.05;
/// A step is taken if the next may be that much of its length.
const SAFETY: f64 = 0.81;

/// `dpm_adaptive`: steps of order 3 which are as long as a comparison with order 2 allows. A step
/// that was too long is done again from its first answer.
#[derive(Clone)]
pub(super) struct Adaptive {
    /// `-ln sigma` where the sample is, and at the end.
    time: f64,
    end: f64,
    length: f64,
    /// What order 2 made of the last step, for the scale of errors.
    before: Tensor,
}

impl Adaptive {
    pub(super) fn new(first: f64, last: f64, latents: &Tensor) -> Self {
        let (time, end) = (-first.ln(), -last.ln());
        Self { time, end, length: FIRST_LENGTH, before: latents.clone() }
    }

    /// Where the sample is, unless it is at the end.
    pub(super) fn sigma(&self) -> Option<f64> {
        (self.time < self.end - 1e-5).then(|| (-self.time).exp())
    }

    /// Goes on with a step. If it was too long, only its first answer stays.
    pub(super) fn step(&mut self, answers: &mut Vec<Answer>) -> Result<Move> {
        loop {
            let next = self.end.min(self.time + self.length);
            let interval = Interval { from: (-self.time).exp(), to: (-next).exp() };
            let high = match third_order(answers, interval)? {
                Move::To(latents) => latents,
                other => return Ok(other),
            };
            let Move::To(low) = second_order(answers, interval, THIRD_ORDER[0])? else {
                bail!("order 2 needs no more answers than order 3");
            };
            let factor = self.factor(&low, &high)?;
            self.length *= factor;
            if self.length.is_nan() || self.length < SHORTEST {
                bail!("dpm_adaptive finds no step that is short enough for what the network says");
            }
            if factor >= SAFETY {
                self.time = next;
                self.before = low;
                return Ok(Move::To(high));
            }
            answers.truncate(1);
        }
    }

    /// By what the length of steps is to be multiplied, for two results of the last one.
    fn factor(&self, low: &Tensor, high: &Tensor) -> Result<f64> {
        let size = low.abs()?.maximum(&self.before.abs()?)?;
        let allowed = size.affine(RELATIVE, 0.0)?.maximum(ABSOLUTE)?;
        let error = ((low - high)? / allowed)?.sqr()?.mean_all()?.to_scalar::<f32>()?;
        let ideal = (f64::from(error).sqrt() + 1e-8).powf(-1.0 / 3.0);
        // Bounded, so that one step says little about the next.
        Ok(1.0 + (ideal - 1.0).atan())
    }
}
