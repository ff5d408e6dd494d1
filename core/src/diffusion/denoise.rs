//! The loop from noise to latents: many samples at once, each with a sampler of its own.
//!
//! Samples of one run go through the network together, both sides of guidance included. What the
//! memory does not hold, or what fails, is halved and goes on from the step where it was, so that
//! in the end only a sample that fails alone is lost.

use candle_core::{DType, Result, Tensor};

use crate::control::Control;
use crate::device::classify;
use crate::error::{self, Error, ErrorKind};

/// The way of one sample from noise to what is made. It waits for the network's answers, which come to many
/// samples at once, and so it is a state that each answer moves on.
pub(crate) trait Sampler {
    /// What to ask the network next; nothing when the sample is made.
    fn question(&self) -> Option<Question<'_>>;

    /// Goes on with the answer. Says how many steps are done, if one is over with it.
    fn accept(&mut self, answer: Tensor) -> Result<Option<usize>>;

    /// Noise at first, at the end what was made, in `f32`.
    fn latents(&self) -> &Tensor;

    /// What the sample would be if the network's last answer were right about all of the noise.
    fn estimate(&self) -> Result<Tensor>;
}

/// What a sampler wants to know of the network.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) latents: &'a Tensor,
    /// How much of them is noise.
    pub(crate) sigma: f64,
    /// Steps that are done.
    pub(crate) step: usize,
}

/// One thing that is made out of noise.
pub(crate) struct Sample {
    pub(crate) sampler: Box<dyn Sampler>,
    /// How far to go away from what the negative prompt says; without it that is not asked.
    pub(crate) guidance: Option<f32>,
    /// The number of the output that it becomes, by which it can be cancelled alone.
    pub(crate) output: usize,
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
    pub(crate) question: Question<'a>,
}

/// A network that samples ask.
pub(crate) trait Denoiser {
    /// The answer to every evaluation, of the shape of its latents, in any order of batching.
    fn answers(&self, evaluations: &[Evaluation<'_>]) -> Result<Vec<Tensor>>;

    /// Both answers to a question in one. `positive` is the evaluation of the first.
    fn guide(
        &self,
        evaluation: &Evaluation<'_>,
        positive: &Tensor,
        negative: &Tensor,
        scale: f32,
    ) -> Result<Tensor>;
}

/// A step that a sample has made.
pub(crate) struct Step<'a> {
    pub(crate) sample: usize,
    /// Counted from 1.
    pub(crate) step: usize,
    sampler: &'a dyn Sampler,
}

impl Step<'_> {
    /// What the sample would be if the network were right about all of the noise that is left.
    pub(crate) fn estimate(&self) -> Result<Tensor> {
        self.sampler.estimate()
    }
}

/// Samples that go together.
struct Run {
    members: Vec<usize>,
    /// Whether the two sides of guidance go one after the other.
    is_split: bool,
}

/// Denoises samples in place. For each there is an answer of its own. `watch` hears of every step of
/// every sample.
pub(crate) fn denoise(
    denoiser: &impl Denoiser,
    samples: &mut [Sample],
    control: &Control,
    watch: &mut dyn FnMut(&Step<'_>),
) -> Vec<error::Result<()>> {
    let mut answers: Vec<_> = samples.iter().map(|_| Ok(())).collect();
    let members = 0..samples.len();
    let members = members.filter(|i| samples[*i].sampler.question().is_some()).collect();
    let mut runs = vec![Run { members, is_split: false }];
    while let Some(mut run) = runs.pop() {
        loop {
            run.members.retain(|member| match control.check_output(samples[*member].output) {
                Ok(()) => true,
                Err(error) => {
                    answers[*member] = Err(error);
                    false
                }
            });
            if run.members.is_empty() {
                break;
            }
            let advanced = advance(denoiser, samples, &run, watch);
            let error = match advanced {
                Ok(advanced) => {
                    for (member, answer) in run.members.iter().zip(advanced) {
                        answers[*member] = answer;
                    }
                    run.members.retain(|member| {
                        answers[*member].is_ok() && samples[*member].sampler.question().is_some()
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

/// One pass of a run through the network. Nothing has changed if it fails; else there is an answer for
/// every member.
fn advance(
    denoiser: &impl Denoiser,
    samples: &mut [Sample],
    run: &Run,
    watch: &mut dyn FnMut(&Step<'_>),
) -> error::Result<Vec<error::Result<()>>> {
    let failed = |e| classify(e, "the network failed");
    let guided = guided(denoiser, samples, run).map_err(failed)?;
    let members = run.members.iter().zip(guided);
    let answers = members.map(|(member, answer)| {
        let sampler = &mut samples[*member].sampler;
        let step = sampler.accept(answer).map_err(failed)?;
        check_finite(&**sampler)?;
        if let Some(step) = step {
            watch(&Step { sample: *member, step, sampler: &**sampler });
        }
        Ok(())
    });
    Ok(answers.collect())
}

/// The answer for each member, guided.
fn guided(denoiser: &impl Denoiser, samples: &[Sample], run: &Run) -> Result<Vec<Tensor>> {
    let evaluations = |branch| {
        let is_asked =
            move |sample: &Sample| branch == Branch::Positive || sample.guidance.is_some();
        let members = run.members.iter().filter(move |member| is_asked(&samples[**member]));
        members.filter_map(move |member| {
            let question = samples[*member].sampler.question()?;
            Some(Evaluation { sample: *member, branch, question })
        })
    };
    let ask = |evaluations: &[Evaluation<'_>]| {
        let answers = denoiser.answers(evaluations)?;
        if answers.len() != evaluations.len() {
            candle_core::bail!("{} answers to {} questions", answers.len(), evaluations.len());
        }
        answers.iter().map(|answer| answer.to_dtype(DType::F32)).collect::<Result<Vec<_>>>()
    };
    let positive: Vec<_> = evaluations(Branch::Positive).collect();
    let negative: Vec<_> = evaluations(Branch::Negative).collect();
    let (answers, negative) = if run.is_split && !negative.is_empty() {
        (ask(&positive)?, ask(&negative)?)
    } else {
        let mut all = ask(&[&positive[..], &negative].concat())?;
        let negative = all.split_off(positive.len());
        (all, negative)
    };
    let mut negative = negative.into_iter();
    positive
        .iter()
        .zip(answers)
        .map(|(evaluation, positive)| match samples[evaluation.sample].guidance {
            None => Ok(positive),
            Some(scale) => match negative.next() {
                Some(negative) => denoiser.guide(evaluation, &positive, &negative, scale),
                None => candle_core::bail!("an answer is missing"),
            },
        })
        .collect()
}

/// Fails if a value is infinite or no number: all that follows would be noise.
fn check_finite(sampler: &dyn Sampler) -> error::Result<()> {
    let largest = sampler
        .latents()
        .abs()
        .and_then(|x| x.sum_all()?.to_scalar::<f32>())
        .map_err(|e| classify(e, "cannot look at the latents"))?;
    if largest.is_finite() {
        return Ok(());
    }
    Err(Error::model_invalid("the network answers with values that are no numbers"))
}
