//! Samplers whose steps know nothing of the steps before.
//!
//! Where k-diffusion has these, coefficients are the same in another form: with `t = -ln sigma`, its
//! `exp(-h)` is a ratio of sigmas, and the middle of two `t` their geometric mean.

use candle_core::{Result, Tensor};

use super::super::discrete::Discrete;
use super::{Interval, Move, Noise, Step, linear, raise, towards};

/// How much of the timestep TCD keeps free for noise.
const TCD_ETA: f64 = 0.3;

pub(super) fn euler(step: &Step<'_>) -> Result<Move> {
    let Interval { from, to } = step.interval();
    towards(step.latents(), step.denoised(), from, to).map(Move::To)
}

/// The sigma to step down to, and the deviation of the noise that leads back to `to`.
fn ancestral(from: f64, to: f64) -> (f64, f64) {
    let up = to * ((from * from - to * to) / (from * from)).sqrt();
    (to * to / from, up)
}

/// Also DDPM, which in these coordinates draws from the same normal distribution.
pub(super) fn euler_ancestral(step: &Step<'_>, noise: &mut Noise) -> Result<Move> {
    let Interval { from, to } = step.interval();
    let (down, up) = ancestral(from, to);
    let latents = towards(step.latents(), step.denoised(), from, down)?;
    add_normal(latents, up, noise).map(Move::To)
}

/// The end of an ancestral step.
fn add_normal(latents: Tensor, deviation: f64, noise: &mut Noise) -> Result<Tensor> {
    if deviation == 0.0 {
        return Ok(latents);
    }
    linear(&[(1.0, &latents), (deviation, &noise.normal(&latents)?)])
}

pub(super) fn heun(step: &Step<'_>) -> Result<Move> {
    let Interval { from, to } = step.interval();
    let [first, others @ ..] = step.answers else { return euler(step) };
    match others {
        _ if to == 0.0 => euler(step),
        [] => Ok(Move::Ask(towards(&first.latents, &first.denoised, from, to)?, to)),
        [second, ..] => {
            let half = (to - from) / 2.0;
            linear(&[(1.0, &first.latents), (half, &first.slope()?), (half, &second.slope()?)])
                .map(Move::To)
        }
    }
}

/// The slope ahead weighs by its sigma against the first one; so late steps are nearly Euler's.
pub(super) fn heunpp2(step: &Step<'_>) -> Result<Move> {
    let Interval { from, to } = step.interval();
    let after = step.intervals.get(step.index + 1).map_or(0.0, |next| next.to);
    let highest = step.intervals[0].from;
    match step.answers {
        [first] if to > 0.0 => {
            Ok(Move::Ask(towards(&first.latents, &first.denoised, from, to)?, to))
        }
        [_, second] if after > 0.0 => {
            Ok(Move::Ask(towards(&second.latents, &second.denoised, to, after)?, after))
        }
        [first, ahead @ .., last] => {
            let share = 1.0 / (step.answers.len() as f64 * highest);
            let mut slopes = vec![first.slope()?];
            let mut weights = vec![1.0];
            for answer in ahead.iter().chain([last]) {
                slopes.push(answer.slope()?);
                weights.push(answer.sigma * share);
                weights[0] -= answer.sigma * share;
            }
            let mut terms = vec![(1.0, &first.latents)];
            terms.extend(weights.iter().zip(&slopes).map(|(w, slope)| (w * (to - from), slope)));
            linear(&terms).map(Move::To)
        }
        _ => euler(step),
    }
}

pub(super) fn dpm_2(step: &Step<'_>) -> Result<Move> {
    let Interval { from, to } = step.interval();
    midpoint(step, from, to)
}

pub(super) fn dpm_2_ancestral(step: &Step<'_>, noise: &mut Noise) -> Result<Move> {
    let Interval { from, to } = step.interval();
    let (down, up) = ancestral(from, to);
    match midpoint(step, from, down)? {
        Move::To(latents) => add_normal(latents, up, noise).map(Move::To),
        ask => Ok(ask),
    }
}

fn midpoint(step: &Step<'_>, from: f64, to: f64) -> Result<Move> {
    let middle = (from * to).sqrt();
    match step.answers {
        _ if to == 0.0 => towards(step.latents(), step.denoised(), from, to).map(Move::To),
        [first, second, ..] => {
            linear(&[(1.0, &first.latents), (to - from, &second.slope()?)]).map(Move::To)
        }
        _ => Ok(Move::Ask(towards(step.latents(), step.denoised(), from, middle)?, middle)),
    }
}

pub(super) fn dpmpp_2s_ancestral(step: &Step<'_>, noise: &mut Noise) -> Result<Move> {
    let Interval { from, to } = step.interval();
    let (down, up) = ancestral(from, to);
    let middle = (from * down).sqrt();
    let denoised = match step.answers {
        [first, ..] if down == 0.0 => &first.denoised,
        [_, second, ..] => &second.denoised,
        _ => return Ok(Move::Ask(towards(step.latents(), step.denoised(), from, middle)?, middle)),
    };
    let latents = towards(step.latents(), denoised, from, down)?;
    add_normal(latents, up, noise).map(Move::To)
}

/// Both halves of a step start at its first sigma, so their noise overlaps.
pub(super) fn dpmpp_sde(step: &Step<'_>, noise: &mut Noise) -> Result<Move> {
    let Interval { from, to } = step.interval();
    if to == 0.0 {
        return euler(step);
    }
    let mut ancestral_to = |to: f64, denoised: &Tensor| {
        let (down, up) = ancestral(from, to);
        let brownian = noise.brownian(from, to, step.latents())?;
        linear(&[(down / from, step.latents()), (1.0 - down / from, denoised), (up, &brownian)])
    };
    match step.answers {
        [_, second, ..] => ancestral_to(to, &second.denoised).map(Move::To),
        _ => {
            let middle = (from * to).sqrt();
            Ok(Move::Ask(ancestral_to(middle, step.denoised())?, middle))
        }
    }
}

pub(super) fn lcm(step: &Step<'_>, noise: &mut Noise) -> Result<Move> {
    let denoised = step.denoised().clone();
    add_normal(denoised, step.interval().to, noise).map(Move::To)
}

pub(super) fn tcd(step: &Step<'_>, noise: &mut Noise) -> Result<Move> {
    let Interval { from, to } = step.interval();
    if to == 0.0 {
        return euler(step);
    }
    let table = Discrete::sdxl();
    let down = table.sigma(((1.0 - TCD_ETA) * table.nearest_timestep(to)).floor()).min(to);
    let latents = towards(step.latents(), step.denoised(), from, down)?;
    raise(latents, down, to, noise).map(Move::To)
}
