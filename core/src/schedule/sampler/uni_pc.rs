//! UniPC (Zhao et al. 2023, "UniPC: a unified predictor-corrector framework"), predicting images.
//!
//! What the network says about a prediction also corrects it, before the next prediction starts from
//! there. The last step, to 0, has order 1 and is the network's image.

use candle_core::{Result, Tensor};

use super::{Answer, Interval, Move, SamplerKind, Step, linear};

/// The highest order.
const ORDER: usize = 3;

pub(super) fn step(step: &Step<'_>) -> Result<Move> {
    let answer = &step.answers[0];
    let corrected = match step.past {
        [.., base] => {
            let order = order(step, step.index - 1);
            let interval = step.intervals[step.index - 1];
            let before = &step.past[..step.past.len() - 1];
            move_on(step.kind, interval, order, base, before, Some(&answer.denoised))?
        }
        [] => answer.latents.clone(),
    };
    let base = Answer { latents: corrected.clone(), ..answer.clone() };
    let order = order(step, step.index);
    let predicted = move_on(step.kind, step.interval(), order, &base, step.past, None)?;
    Ok(Move::Corrected(corrected, predicted))
}

/// Rises from 1 with the number of answers, and falls to 1 at the end.
fn order(step: &Step<'_>, index: usize) -> usize {
    ORDER.min(index + 1).min(step.intervals.len() - index)
}

/// From the start of an interval, where `base` is what the network said, to its end. With the
/// image at its end, this is the correction of what was predicted without.
fn move_on(
    kind: SamplerKind,
    interval: Interval,
    order: usize,
    base: &Answer,
    past: &[Answer],
    end: Option<&Tensor>,
) -> Result<Tensor> {
    let Interval { from, to } = interval;
    if to == 0.0 {
        return Ok(base.denoised.clone());
    }
    let h = (from / to).ln();
    let earlier: Vec<_> = past.iter().rev().take(order - 1).collect();
    // Where the images are, in steps from the base: earlier ones, then the end.
    let mut places: Vec<f64> =
        earlier.iter().map(|answer| (from / answer.sigma).ln() / h).collect();
    let mut images: Vec<_> = earlier.iter().map(|answer| &answer.denoised).collect();
    if let Some(end) = end {
        places.push(1.0);
        images.push(end);
    }
    let b = match kind {
        SamplerKind::UniPc => -h,
        _ => (-h).exp_m1(),
    };
    let weights = weights(&places, h, b, end.is_some());
    let mut own = 1.0 - to / from;
    let mut terms = vec![(to / from, &base.latents)];
    for ((weight, place), image) in weights.iter().zip(&places).zip(images) {
        let weight = -b * weight / place;
        terms.push((weight, image));
        own -= weight;
    }
    terms.push((own, &base.denoised));
    linear(&terms)
}

/// The coefficients of the differences to the images at `places`, from equation 5 of the paper. The
/// paper has one half where there is one difference.
fn weights(places: &[f64], h: f64, b: f64, is_correction: bool) -> Vec<f64> {
    let count = places.len();
    if count <= 1 {
        return vec![0.5; count];
    }
    debug_assert!(count <= ORDER && (is_correction || count < ORDER));
    let mut phi = (-h).exp_m1() / -h - 1.0;
    let mut factorial = 1.0;
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(count);
    for power in 0..count {
        let mut row: Vec<f64> = places.iter().map(|place| place.powi(power as i32)).collect();
        row.push(phi * factorial / b);
        rows.push(row);
        factorial *= (power + 2) as f64;
        phi = phi / -h - 1.0 / factorial;
    }
    solve(rows)
}

/// Solves linear equations, each a row of coefficients and the right side. No two places are the
/// same, so they have a solution.
fn solve(mut rows: Vec<Vec<f64>>) -> Vec<f64> {
    let count = rows.len();
    for pivot in 0..count {
        let largest =
            (pivot..count).max_by(|a, b| rows[*a][pivot].abs().total_cmp(&rows[*b][pivot].abs()));
        rows.swap(pivot, largest.unwrap_or(pivot));
        let row = rows[pivot].clone();
        for (_, other) in rows.iter_mut().enumerate().filter(|(i, _)| *i != pivot) {
            let factor = other[pivot] / row[pivot];
            other.iter_mut().zip(&row).for_each(|(value, own)| *value -= factor * own);
        }
    }
    rows.iter().enumerate().map(|(i, row)| row[count] / row[i]).collect()
}
