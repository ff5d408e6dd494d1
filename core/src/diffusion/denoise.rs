//! The loop from noise to latents: many samples at once, each on a schedule of its own.
//!
//! Samples of one run go through the network together, both sides of guidance included. What the
//! memory does not hold, or what fails, is halved and goes on from the step where it was, so that
//! in the end only a sample that fails alone is lost.

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use super::guidance::guide;
use crate::control::Control;
use crate::device::classify;
use crate::error::{self, Error, ErrorKind};
use crate::schedule::{Rounding, Schedule};

/// One thing that is made out of noise.
pub(crate) struct Sample {
    /// Noise at first, at the end what was made: `(tokens, channels)` in `f32`.
    pub(crate) latents: Tensor,
    pub(crate) schedule: Arc<Schedule>,
    /// How far to go away from what the negative prompt says; without it that is not asked.
    pub(crate) guidance: Option<f32>,
}

/// Which prompt the network is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Branch {
    Positive,
    Negative,
}

/// One question to the network.
#[derive(Clone, Copy)]
pub(crate) struct Evaluation<'a> {
    /// The number of the sample.
    pub(crate) sample: usize,
    pub(crate) branch: Branch,
    pub(crate) step: usize,
    pub(crate) latents: &'a Tensor,
}

/// A network that tells where samples move.
pub(crate) trait Denoiser {
    /// The velocity for every evaluation, of the shape of its latents, in any order of batching.
    fn velocities(&self, evaluations: &[Evaluation<'_>]) -> Result<Vec<Tensor>>;
}

/// A step that a sample has made.
pub(crate) struct Step<'a> {
    pub(crate) sample: usize,
    /// Counted from 1.
    pub(crate) step: usize,
    latents: &'a Tensor,
    velocity: &'a Tensor,
    sigma: f32,
}

impl Step<'_> {
    /// What the sample would be if the network were right about all of the noise that is left.
    pub(crate) fn estimate(&self) -> Result<Tensor> {
        self.latents - (self.velocity * f64::from(self.sigma))?
    }
}

/// Samples that go together, from a step on.
struct Run {
    members: Vec<usize>,
    step: usize,
    /// Whether the two sides of guidance go one after the other.
    is_split: bool,
}

/// Denoises samples in place. For each there is an answer of its own. `watch` hears of every step of
/// every sample.
pub(crate) fn denoise(
    denoiser: &impl Denoiser,
    samples: &mut [Sample],
    rounding: Rounding,
    control: &Control,
    watch: &mut dyn FnMut(&Step<'_>),
) -> Vec<error::Result<()>> {
    let mut answers: Vec<_> = samples.iter().map(|_| Ok(())).collect();
    let mut runs = vec![Run { members: (0..samples.len()).collect(), step: 0, is_split: false }];
    while let Some(mut run) = runs.pop() {
        while !run.members.is_empty() {
            let error = match control
                .check()
                .and_then(|()| advance(denoiser, samples, &run, rounding, watch))
            {
                Ok(finished) => {
                    run.step += 1;
                    run.members.retain(|member| {
                        let finished = finished.iter().find(|(sample, _)| sample == member);
                        let is_done = samples[*member].schedule.steps() <= run.step;
                        if let Some((_, Err(error))) = finished {
                            answers[*member] = Err(error.again());
                        }
                        !is_done && answers[*member].is_ok()
                    });
                    continue;
                }
                Err(error) => error,
            };
            // An error from within a cancelled pass only says that it was cancelled.
            let error = control.check().err().unwrap_or(error);
            let is_guided = run.members.iter().any(|member| samples[*member].guidance.is_some());
            match (error.kind(), run.members.len()) {
                (ErrorKind::Cancelled, _) => {}
                (_, 2..) => {
                    let members = run.members.split_off(run.members.len() / 2);
                    runs.push(Run { members, ..run });
                    continue;
                }
                (ErrorKind::OutOfMemory, _) if is_guided && !run.is_split => {
                    run.is_split = true;
                    continue;
                }
                _ => {}
            }
            for member in run.members.drain(..) {
                answers[member] = Err(error.again());
            }
        }
    }
    answers
}

/// One step of a run. Nothing has changed if it fails; else there is an answer for every member.
fn advance(
    denoiser: &impl Denoiser,
    samples: &mut [Sample],
    run: &Run,
    rounding: Rounding,
    watch: &mut dyn FnMut(&Step<'_>),
) -> error::Result<Vec<(usize, error::Result<()>)>> {
    let failed = |e| classify(e, "the network failed");
    let velocities = velocities(denoiser, samples, run).map_err(failed)?;
    let mut answers = Vec::with_capacity(velocities.len());
    for (member, velocity) in run.members.iter().zip(&velocities) {
        let sample = &mut samples[*member];
        let latents = euler(&sample.latents, velocity, &sample.schedule, run.step, rounding)
            .map_err(failed)?;
        let sigma = sample.schedule.sigmas()[run.step];
        let answer = check_finite(&latents, run.step + 1);
        if answer.is_ok() {
            let (step, latents) = (run.step + 1, &sample.latents);
            watch(&Step { sample: *member, step, latents, velocity, sigma });
        }
        sample.latents = latents;
        answers.push((*member, answer));
    }
    Ok(answers)
}

/// The velocity of each member, guided.
fn velocities(denoiser: &impl Denoiser, samples: &[Sample], run: &Run) -> Result<Vec<Tensor>> {
    let evaluations = |branch| {
        let is_asked =
            move |sample: &Sample| branch == Branch::Positive || sample.guidance.is_some();
        let members = run.members.iter().filter(move |member| is_asked(&samples[**member]));
        members.map(move |member| Evaluation {
            sample: *member,
            branch,
            step: run.step,
            latents: &samples[*member].latents,
        })
    };
    let ask = |evaluations: &[Evaluation<'_>]| {
        let answers = denoiser.velocities(evaluations)?;
        if answers.len() != evaluations.len() {
            candle_core::bail!("{} answers to {} questions", answers.len(), evaluations.len());
        }
        answers.iter().map(|answer| answer.to_dtype(DType::F32)).collect::<Result<Vec<_>>>()
    };
    let positive: Vec<_> = evaluations(Branch::Positive).collect();
    let negative: Vec<_> = evaluations(Branch::Negative).collect();
    let (positive, negative) = if run.is_split && !negative.is_empty() {
        (ask(&positive)?, ask(&negative)?)
    } else {
        let count = positive.len();
        let mut all = ask(&[positive, negative].concat())?;
        let negative = all.split_off(count);
        (all, negative)
    };
    let mut negative = negative.into_iter();
    run.members
        .iter()
        .zip(positive)
        .map(|(member, positive)| match samples[*member].guidance {
            None => Ok(positive),
            Some(scale) => match negative.next() {
                Some(negative) => guide(&positive, &negative, scale),
                None => candle_core::bail!("an answer is missing"),
            },
        })
        .collect()
}

/// One step of Euler's method, rounded where the reference rounds.
fn euler(
    latents: &Tensor,
    velocity: &Tensor,
    schedule: &Schedule,
    step: usize,
    rounding: Rounding,
) -> Result<Tensor> {
    let Some(factor) = schedule.factors(rounding).nth(step) else {
        candle_core::bail!("step {step} of {}", schedule.steps())
    };
    let round = |x: Tensor| match rounding {
        Rounding::Exact => Ok(x),
        Rounding::Bf16 => x.to_dtype(DType::BF16)?.to_dtype(DType::F32),
    };
    let moved = round((round(velocity.clone())? * f64::from(factor))?)?;
    round((latents + moved)?)
}

/// Fails if a value is infinite or no number: all that follows would be noise.
fn check_finite(latents: &Tensor, step: usize) -> error::Result<()> {
    let largest = latents
        .abs()
        .and_then(|x| x.sum_all()?.to_scalar::<f32>())
        .map_err(|e| classify(e, "cannot look at the latents"))?;
    if largest.is_finite() {
        return Ok(());
    }
    Err(Error::model_invalid("the network answers with values that are no numbers")
        .with("step", step))
}
