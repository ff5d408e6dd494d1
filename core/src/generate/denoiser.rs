//! The network as the denoising loop asks it: noise levels, prompts and guidance of a batch.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::options::{GenerateOptions, SizeGuidance};
use super::refiner::Refining;
use super::sharpen::sharpened;
use crate::batch::Passes;
use crate::diffusion::{Branch, Denoiser, Evaluation, Question};
use crate::models::sdxl::{Prompt, UNet};
use crate::schedule::{Preconditioning, Prediction};

/// The last of the times of training, when all is noise.
const LAST_TIME: f64 = 999.0;

/// A prompt in both forms: with the sizes of [`SizeGuidance`], and with the real one.
pub(super) struct SizedPrompt {
    pub(super) emphasised: Prompt,
    pub(super) plain: Prompt,
    /// For the refiner, if there is one.
    pub(super) refined: Option<Prompt>,
    /// Both forms for the network with the patch of the inpaint engine, where it is asked.
    pub(super) patched: Option<[Prompt; 2]>,
}

/// The prompts of one picture. Pictures share equal ones.
pub(super) struct Prompts {
    pub(super) positive: Arc<SizedPrompt>,
    /// With guidance.
    pub(super) negative: Option<Arc<SizedPrompt>>,
}

/// The network with the patch of the inpaint engine.
pub(super) struct PatchedUnet<'a> {
    pub(super) unet: &'a UNet,
    /// The steps that are made with it; the network alone goes on.
    pub(super) steps: usize,
    /// What the engine's head gives for each sample of which a part is made.
    pub(super) features: Vec<Option<Tensor>>,
}

/// Which network is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    First,
    Patched,
    Refiner,
}

/// The network with the prompts of all samples of a run.
pub(super) struct GenerateDenoiser<'a> {
    pub(super) unet: &'a UNet,
    pub(super) prediction: Prediction,
    pub(super) refiner: Option<Refining<'a>>,
    pub(super) patched: Option<PatchedUnet<'a>>,
    pub(super) options: &'a GenerateOptions,
    /// Of each sample.
    pub(super) prompts: Vec<Prompts>,
    pub(super) passes: Passes,
}

impl GenerateDenoiser<'_> {
    /// The refiner, where a question is one for it.
    fn refiner(&self, question: &Question<'_>) -> Option<&Refining<'_>> {
        self.refiner.as_ref().filter(|refining| question.step >= refining.first)
    }

    fn asked(&self, evaluation: &Evaluation<'_>) -> Asked {
        let has_features = |patched: &PatchedUnet<'_>| {
            patched.features.get(evaluation.sample).is_some_and(Option::is_some)
        };
        let is_patched = |patched: &PatchedUnet<'_>| {
            evaluation.question.step < patched.steps && has_features(patched)
        };
        match &self.patched {
            _ if self.refiner(&evaluation.question).is_some() => Asked::Refiner,
            Some(patched) if is_patched(patched) => Asked::Patched,
            _ => Asked::First,
        }
    }

    fn preconditioning(&self, question: &Question<'_>) -> Preconditioning {
        let refining = self.refiner(question);
        let prediction = refining.map_or(self.prediction, |refining| refining.refiner.prediction);
        self.options.scheduler.preconditioning(prediction, question.sigma)
    }

    fn prompt(&self, evaluation: &Evaluation<'_>, time: f64) -> Result<&Prompt> {
        let prompts = &self.prompts[evaluation.sample];
        let prompt = match (evaluation.branch, &prompts.negative) {
            (Branch::Negative, Some(negative)) => negative,
            _ => &prompts.positive,
        };
        let SizeGuidance { end, .. } = self.options.size_guidance;
        let is_early = time > LAST_TIME * f64::from(1.0 - end);
        let found = match (self.asked(evaluation), &prompt.patched) {
            (Asked::Refiner, _) => prompt.refined.as_ref(),
            (Asked::Patched, Some([emphasised, plain])) => {
                Some(if is_early { emphasised } else { plain })
            }
            (Asked::Patched, None) => None,
            (Asked::First, _) => Some(if is_early { &prompt.emphasised } else { &prompt.plain }),
        };
        match found {
            Some(prompt) => Ok(prompt),
            None => candle_core::bail!("a prompt was not prepared for the network that is asked"),
        }
    }

    /// As [`answers`](Denoiser::answers), of evaluations that are all for one network.
    fn ask(&self, asked: Asked, evaluations: &[&Evaluation<'_>]) -> Result<Vec<Tensor>> {
        let (unet, features) = match (asked, &self.patched, &self.refiner) {
            (Asked::Patched, Some(patched), _) => {
                let of = |e: &&Evaluation<'_>| patched.features.get(e.sample).cloned().flatten();
                let features: Vec<_> = evaluations.iter().filter_map(of).collect();
                (patched.unet, Some(Tensor::stack(&features, 0)?))
            }
            (Asked::Refiner, _, Some(refining)) => (&*refining.unet, None),
            _ => (self.unet, None),
        };
        let levels: Vec<_> =
            evaluations.iter().map(|e| self.preconditioning(&e.question)).collect();
        let scaled = evaluations.iter().zip(&levels);
        let scaled =
            scaled.map(|(e, level)| e.question.latents * level.c_in).collect::<Result<Vec<_>>>()?;
        let times: Vec<f32> = levels.iter().map(|level| level.c_noise as f32).collect();
        let prompts = evaluations.iter().zip(&levels);
        let prompts: Vec<_> =
            prompts.map(|(e, level)| self.prompt(e, level.c_noise)).collect::<Result<_>>()?;
        let latents = Tensor::stack(&scaled, 0)?;
        let freeu = self.options.freeu.filter(|_| asked != Asked::Refiner);
        let features = features.as_ref();
        let pass = || unet.forward_onto(&latents, &times, &prompts, freeu, features);
        let answers = self.passes.run(pass).map_err(candle_core::Error::wrap)?;
        evaluations
            .iter()
            .zip(levels)
            .enumerate()
            .map(|(i, (e, level))| level.denoised(e.question.latents, &answers.get(i)?))
            .collect()
    }
}

impl Denoiser for GenerateDenoiser<'_> {
    /// The pictures that the network sees in the latents `(h, w, c)`, which are of one size.
    fn answers(&self, evaluations: &[Evaluation<'_>]) -> Result<Vec<Tensor>> {
        // Samplers that choose their own steps need not be at the same network.
        let mut answers: Vec<Option<Tensor>> = vec![None; evaluations.len()];
        for asked in [Asked::First, Asked::Patched, Asked::Refiner] {
            let group = evaluations.iter().enumerate().filter(|(_, e)| self.asked(e) == asked);
            let (places, group): (Vec<usize>, Vec<_>) = group.unzip();
            if group.is_empty() {
                continue;
            }
            for (i, answer) in places.into_iter().zip(self.ask(asked, &group)?) {
                answers[i] = Some(answer);
            }
        }
        answers
            .into_iter()
            .map(|answer| answer.ok_or_else(|| candle_core::Error::msg("nothing was answered")))
            .collect()
    }

    /// Away from the negative answer, from the positive one made sharper. Where the scale is above
    /// [`adaptive_guidance`](GenerateOptions::adaptive_guidance), it starts there and grows as the noise goes.
    fn guide(
        &self,
        evaluation: &Evaluation<'_>,
        positive: &Tensor,
        negative: &Tensor,
        scale: f32,
    ) -> Result<Tensor> {
        let start = scale.min(self.options.adaptive_guidance);
        let time = self.preconditioning(&evaluation.question).c_noise;
        let progress = (1.0 - time / LAST_TIME).clamp(0.0, 1.0);
        let scale = f64::from(start) + progress * f64::from(scale - start);
        let sharpness = f64::from(self.options.sharpness);
        let positive = &match sharpness {
            0.0 => positive.clone(),
            _ => sharpened(evaluation.question.latents, positive, sharpness, progress)?,
        };
        negative + ((positive - negative)? * scale)?
    }
}
