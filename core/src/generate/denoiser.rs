//! The network as the denoising loop asks it: noise levels, prompts and guidance of a batch.

use std::sync::Arc;

use candle_core::{Result, Tensor};

use super::options::{GenerateOptions, SizeGuidance};
use super::sharpen::sharpened;
use crate::diffusion::{Branch, Denoiser, Evaluation};
use crate::models::sdxl::{Prompt, UNet};
use crate::schedule::{Preconditioning, Prediction};

/// The last of the times of training, when all is noise.
const LAST_TIME: f64 = 999.0;

/// A prompt in both forms: with the sizes of [`SizeGuidance`], and with the real one.
pub(super) struct SizedPrompt {
    pub(super) emphasised: Prompt,
    pub(super) plain: Prompt,
}

/// The prompts of one picture. Pictures share equal ones.
pub(super) struct Prompts {
    pub(super) positive: Arc<SizedPrompt>,
    /// With guidance.
    pub(super) negative: Option<Arc<SizedPrompt>>,
}

/// The network with the prompts of all samples of a run.
pub(super) struct GenerateDenoiser<'a> {
    pub(super) unet: &'a UNet,
    pub(super) prediction: Prediction,
    pub(super) options: &'a GenerateOptions,
    /// Of each sample.
    pub(super) prompts: Vec<Prompts>,
}

impl GenerateDenoiser<'_> {
    fn preconditioning(&self, sigma: f64) -> Preconditioning {
        self.options.scheduler.preconditioning(self.prediction, sigma)
    }

    fn prompt(&self, evaluation: &Evaluation<'_>, time: f64) -> &Prompt {
        let prompts = &self.prompts[evaluation.sample];
        let prompt = match (evaluation.branch, &prompts.negative) {
            (Branch::Negative, Some(negative)) => negative,
            _ => &prompts.positive,
        };
        let SizeGuidance { end, .. } = self.options.size_guidance;
        match time > LAST_TIME * f64::from(1.0 - end) {
            true => &prompt.emphasised,
            false => &prompt.plain,
        }
    }
}

impl Denoiser for GenerateDenoiser<'_> {
    /// The pictures that the network sees in the latents `(h, w, c)`, which are of one size.
    fn answers(&self, evaluations: &[Evaluation<'_>]) -> Result<Vec<Tensor>> {
        let levels: Vec<_> =
            evaluations.iter().map(|e| self.preconditioning(e.question.sigma)).collect();
        let scaled = evaluations.iter().zip(&levels);
        let scaled =
            scaled.map(|(e, level)| e.question.latents * level.c_in).collect::<Result<Vec<_>>>()?;
        let times: Vec<f32> = levels.iter().map(|level| level.c_noise as f32).collect();
        let prompts = evaluations.iter().zip(&levels);
        let prompts: Vec<_> = prompts.map(|(e, level)| self.prompt(e, level.c_noise)).collect();
        let answers = self
            .unet
            .forward(&Tensor::stack(&scaled, 0)?, &times, &prompts, self.options.freeu)
            .map_err(candle_core::Error::wrap)?;
        evaluations
            .iter()
            .zip(levels)
            .enumerate()
            .map(|(i, (e, level))| level.denoised(e.question.latents, &answers.get(i)?))
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
        let time = self.preconditioning(evaluation.question.sigma).c_noise;
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
