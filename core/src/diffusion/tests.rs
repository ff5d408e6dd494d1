//! The loop with a small function in place of a network: what fails, what is halved, what stays.

use std::cell::RefCell;
use std::sync::Arc;

use candle_core::Tensor;

use super::*;
use crate::control::Control;
use crate::device::testing::device;
use crate::error::{Error, ErrorKind};
use crate::schedule::{FlowMatchEuler, Rounding};

/// A network that answers a part of the latents, and takes so many evaluations at once.
struct Small {
    most: usize,
    /// A sample that it cannot compute, and one that it answers nonsense for.
    broken: Option<usize>,
    infinite: Option<usize>,
    /// How many evaluations each pass had.
    passes: RefCell<Vec<usize>>,
}

impl Small {
    fn new(most: usize) -> Self {
        Self { most, broken: None, infinite: None, passes: RefCell::default() }
    }
}

impl Denoiser for Small {
    fn answers(&self, evaluations: &[Evaluation<'_>]) -> candle_core::Result<Vec<Tensor>> {
        self.passes.borrow_mut().push(evaluations.len());
        if evaluations.len() > self.most {
            candle_core::bail!("out of memory");
        }
        let answer = |e: &Evaluation<'_>| {
            if Some(e.sample) == self.broken {
                candle_core::bail!("a broken sample");
            }
            let factor = match e.branch {
                Branch::Positive => 0.5 + e.sample as f64,
                Branch::Negative => -0.25,
            };
            let factor = if Some(e.sample) == self.infinite { f64::INFINITY } else { factor };
            (e.question.latents * factor)? + e.question.step as f64
        };
        evaluations.iter().map(answer).collect()
    }

    fn guide(
        &self,
        _: &Evaluation<'_>,
        positive: &Tensor,
        negative: &Tensor,
        scale: f32,
    ) -> candle_core::Result<Tensor> {
        keeping_length(positive, negative, scale)
    }
}

fn samples(guidance: &[Option<f32>]) -> Vec<Sample> {
    let schedule = FlowMatchEuler::default().schedule(4, 6).unwrap();
    let schedule = Arc::new(schedule);
    guidance
        .iter()
        .enumerate()
        .map(|(i, guidance)| {
            let noise = Tensor::arange(1f32 + i as f32, 7f32 + i as f32, &device())
                .and_then(|values| values.reshape((3, 2)))
                .unwrap();
            let sampler = FlowEuler::new(noise, Arc::clone(&schedule), Rounding::Exact);
            Sample { sampler: Box::new(sampler), guidance: *guidance, output: i }
        })
        .collect()
}

fn run(network: &Small, guidance: &[Option<f32>]) -> Vec<Result<Vec<f32>, ErrorKind>> {
    let mut samples = samples(guidance);
    let control = Control::new();
    let answers = denoise(network, &mut samples, &control, &mut |_| {});
    answers
        .into_iter()
        .zip(samples)
        .map(|(answer, sample)| {
            answer.map_err(|error| error.kind())?;
            Ok(sample.sampler.latents().flatten_all().unwrap().to_vec1().unwrap())
        })
        .collect()
}

const GUIDANCE: [Option<f32>; 4] = [None, Some(3.0), None, Some(1.5)];

#[test]
fn what_does_not_fit_is_halved_and_gives_the_same() {
    let whole = Small::new(6);
    let expected = run(&whole, &GUIDANCE);
    assert!(expected.iter().all(Result::is_ok));
    assert_eq!(*whole.passes.borrow(), [6; 4]);
    for most in [4, 3, 2] {
        assert_eq!(run(&Small::new(most), &GUIDANCE), expected, "{most}");
    }
    // Not even the two sides of one sample: they go one after the other.
    let narrow = Small::new(1);
    assert_eq!(run(&narrow, &GUIDANCE), expected);
    assert!(narrow.passes.borrow().ends_with(&[1, 1]));
    let none = run(&Small::new(0), &GUIDANCE);
    assert!(none.iter().all(|answer| *answer == Err(ErrorKind::OutOfMemory)));
}

#[test]
fn a_sample_that_fails_fails_alone() {
    let expected = run(&Small::new(9), &GUIDANCE);
    let broken = Small { broken: Some(1), ..Small::new(9) };
    let infinite = Small { infinite: Some(1), ..Small::new(9) };
    for (network, kind) in [(broken, ErrorKind::Internal), (infinite, ErrorKind::ModelInvalid)] {
        let found = run(&network, &GUIDANCE);
        assert_eq!(found[1], Err(kind));
        for i in [0, 2, 3] {
            assert_eq!(found[i], expected[i]);
        }
    }
}

#[test]
fn a_cancel_stops_all_that_is_left() {
    let mut samples = samples(&GUIDANCE);
    let control = Control::new();
    let mut steps = 0;
    let inner = control.clone();
    let answers = denoise(&Small::new(9), &mut samples, &control, &mut |step| {
        steps += 1;
        assert_eq!(step.estimate().unwrap().dims(), [3, 2]);
        if step.step == 2 {
            inner.cancel();
        }
    });
    assert_eq!(steps, 8);
    for answer in answers {
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Cancelled);
    }
}

#[test]
fn an_output_is_cancelled_alone() {
    let expected = run(&Small::new(9), &GUIDANCE);
    let mut samples = samples(&GUIDANCE);
    let (network, control) = (Small::new(9), Control::new());
    let inner = control.clone();
    control.cancel_output(3);
    let answers = denoise(&network, &mut samples, &control, &mut |step| {
        if step.step == 2 {
            inner.cancel_output(1);
        }
    });
    let kinds: Vec<_> = answers.iter().map(|a| a.as_ref().err().map(Error::kind)).collect();
    assert_eq!(kinds, [None, Some(ErrorKind::Cancelled), None, Some(ErrorKind::Cancelled)]);
    assert_eq!(*network.passes.borrow(), [4, 4, 2, 2], "they cost nothing any more");
    for i in [0, 2] {
        let found: Vec<f32> =
            samples[i].sampler.latents().flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(Ok(found), expected[i]);
    }
}

#[test]
fn guidance_keeps_the_length_of_every_token() {
    let tensor = |values: [f32; 4]| Tensor::from_slice(&values, (2, 2), &device()).unwrap();
    let (positive, negative) = (tensor([3.0, 4.0, 1.0, 0.0]), tensor([3.0, 0.0, 0.0, 1.0]));
    let found = keeping_length(&positive, &negative, 2.0).unwrap().to_vec2::<f32>().unwrap();
    // Twice the way from the negative one: (3, 8) and (2, -1), scaled to lengths 5 and 1.
    let expected =
        [[3.0, 8.0].map(|x| x * 5.0 / 73f32.sqrt()), [2.0, -1.0].map(|x| x / 5f32.sqrt())];
    for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}

#[test]
fn runs_stay_within_the_budget_and_keep_the_order() {
    assert!(runs(&[], 10, 9).is_empty());
    assert_eq!(runs(&[3, 3, 3, 3, 3], 10, 9), [0..3, 3..5]);
    assert_eq!(runs(&[3, 3, 3, 3, 3], 10, 2), [0..2, 2..4, 4..5]);
    assert_eq!(runs(&[50, 1, 9, 1, 50], 10, 9), [0..1, 1..3, 3..4, 4..5]);
    assert_eq!(runs(&[usize::MAX, usize::MAX], 10, 9), [0..1, 1..2]);
}
