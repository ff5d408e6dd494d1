//! The way of Restart sampling (Xu et al. 2023, "Restart sampling for improving generative
//! processes"): down to a low sigma, then back up by noise and down the same range again.

use super::super::scheduler::karras;
use super::{Interval, intervals};

/// The range that is gone through again.
const RANGE: (f64, f64) = (0.1, 2.0);

/// How many steps the repetition has, and how many repetitions, in a run of so many steps.
fn repetition(steps: usize) -> Option<(usize, usize)> {
    match steps {
        0..20 => None,
        20..36 => Some((9, 1)),
        _ => Some((steps / 4, 2)),
    }
}

/// The steps of a run, as many as the schedule has. Those of the repetitions are taken from the
/// others, which are then by Karras et al. between the ends of the schedule.
pub(super) fn plan(sigmas: &[f64]) -> Vec<Interval> {
    let steps = sigmas.len() - 1;
    let Some((length, times)) = repetition(steps) else { return intervals(sigmas) };
    let mut main = karras((sigmas[steps - 1], sigmas[0]), steps - length * times);
    main.push(sigmas[steps]);
    let nearest = |target: f64| {
        let distance = |i: &usize| (main[*i] - target).abs();
        (0..main.len()).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or_default()
    };
    let (low, high) = (nearest(RANGE.0), nearest(RANGE.1));
    let mut run = intervals(&main);
    if high < low && main[low] > 0.0 {
        let again = intervals(&karras((main[low], main[high]), length + 1));
        run.splice(low..low, std::iter::repeat_n(again, times).flatten());
    }
    run
}
