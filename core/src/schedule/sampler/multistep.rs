//! Samplers that look at the answers of the steps before.

use candle_core::Result;

use super::{Interval, Move, Noise, Step, linear};

/// The order of `lms`: how many slopes it puts a polynomial through.
const LMS_ORDER: usize = 4;

/// The distance of two sigmas in `-ln sigma`.
fn log_distance(Interval { from, to }: Interval) -> f64 {
    (from / to).ln()
}

/// Adams-Bashforth with unequal steps: the integral of the polynomial through the last slopes.
pub(super) fn lms(step: &Step<'_>) -> Result<Move> {
    let Interval { from, to } = step.interval();
    let before = step.past.iter().rev().take(LMS_ORDER - 1);
    let answers: Vec<_> = step.answers.iter().take(1).chain(before).collect();
    let nodes: Vec<f64> = answers.iter().map(|answer| answer.sigma).collect();
    // Slopes are differences of latents and images; what is one tensor gets one coefficient, so that
    // the last step does not subtract large numbers.
    let mut terms = vec![(1.0, step.latents())];
    for (i, answer) in answers.iter().enumerate() {
        let weight = integral_of_lagrange(&nodes, i, from, to) / answer.sigma;
        match i {
            0 => terms[0].0 += weight,
            _ => terms.push((weight, &answer.latents)),
        }
        terms.push((-weight, &answer.denoised));
    }
    linear(&terms).map(Move::To)
}

/// The integral of the polynomial of degree 3 or less that is 1 at a node and 0 at the others; two
/// points of Gauss and Legendre make it exact.
fn integral_of_lagrange(nodes: &[f64], node: usize, from: f64, to: f64) -> f64 {
    let (middle, half) = ((from + to) / 2.0, (to - from) / 2.0);
    let value = |x: f64| -> f64 {
        let others = nodes.iter().enumerate().filter(|(i, _)| *i != node);
        others.map(|(_, other)| (x - other) / (nodes[node] - other)).product()
    };
    let offset = half / 3f64.sqrt();
    half * (value(middle - offset) + value(middle + offset))
}

pub(super) fn dpmpp_2m(step: &Step<'_>) -> Result<Move> {
    let interval = step.interval();
    let ratio = interval.to / interval.from;
    // How far the line through the last two images is followed.
    let extrapolation = match step.past {
        [.., _] if interval.to > 0.0 => {
            let before = log_distance(step.intervals[step.index - 1]);
            log_distance(interval) / before / 2.0
        }
        _ => 0.0,
    };
    let image = 1.0 - ratio;
    let mut terms = vec![(ratio, step.latents()), (image * (1.0 + extrapolation), step.denoised())];
    if let Some(last) = step.past.last() {
        terms.push((-image * extrapolation, &last.denoised));
    }
    linear(&terms).map(Move::To)
}

pub(super) fn dpmpp_2m_sde(step: &Step<'_>, noise: &mut Noise) -> Result<Move> {
    let interval = step.interval();
    if interval.to == 0.0 {
        return Ok(Move::To(step.denoised().clone()));
    }
    // With an eta of 1 the deterministic part goes twice as far.
    let ratio = (interval.to / interval.from).powi(2);
    let brownian = noise.brownian(interval.from, interval.to, step.latents())?;
    let mut terms = vec![
        (ratio, step.latents()),
        (1.0 - ratio, step.denoised()),
        (interval.to * (1.0 - ratio).sqrt(), &brownian),
    ];
    if let Some(last) = step.past.last() {
        let before = log_distance(step.intervals[step.index - 1]);
        let extrapolation = 0.5 * (1.0 - ratio) * log_distance(interval) / before;
        terms.extend([(extrapolation, step.denoised()), (-extrapolation, &last.denoised)]);
    }
    linear(&terms).map(Move::To)
}

pub(super) fn dpmpp_3m_sde(step: &Step<'_>, noise: &mut Noise) -> Result<Move> {
    let interval = step.interval();
    if interval.to == 0.0 {
        return Ok(Move::To(step.denoised().clone()));
    }
    let h = log_distance(interval);
    let ratio = (interval.to / interval.from).powi(2);
    let phi_2 = (-2.0 * h).exp_m1() / (2.0 * h) + 1.0;
    let phi_3 = phi_2 / (2.0 * h) - 0.5;
    // The weights of the present image and of those before.
    let mut weights = [1.0 - ratio, 0.0, 0.0];
    let before = |back: usize| log_distance(step.intervals[step.index - back]) / h;
    match step.past.len() {
        0 => {}
        1 => {
            let slope = phi_2 / before(1);
            weights[0] += slope;
            weights[1] -= slope;
        }
        _ => {
            // Divided differences of first and second order, as weights of the three images.
            let (r0, r1) = (before(1), before(2));
            let first = [1.0 / r0, -1.0 / r0, 0.0];
            let second = [0.0, 1.0 / r1, -1.0 / r1];
            for (i, weight) in weights.iter_mut().enumerate() {
                let bend = (first[i] - second[i]) / (r0 + r1);
                *weight += phi_2 * (first[i] + bend * r0) - phi_3 * bend;
            }
        }
    }
    let brownian = noise.brownian(interval.from, interval.to, step.latents())?;
    let mut terms = vec![
        (ratio, step.latents()),
        (weights[0], step.denoised()),
        (interval.to * (1.0 - ratio).sqrt(), &brownian),
    ];
    let images = step.past.iter().rev().map(|answer| &answer.denoised);
    terms.extend(weights[1..].iter().copied().zip(images));
    linear(&terms).map(Move::To)
}
