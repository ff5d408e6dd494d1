//! Pictures out of conditions: denoise, decode, put in their places.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use candle_core::{Result as Computed, Tensor};

use super::condition::{Condition, Texts, latents_of};
use super::denoiser::{GenerateDenoiser, PatchedUnet, Prompts, SizedPrompt};
use super::metadata::Recipe;
use super::options::{SizeGuidance, Start};
use super::prompt::encode::Conditioning;
use super::recipe::MULTIPLE;
use super::refiner::{RefinerSwap, Refining};
use super::run::{Output, Run};
use super::sample::{Masked, Sigmas};
use super::{Generated, Model};
use crate::batch::Passes;
use crate::control::Preview;
use crate::device::classify;
use crate::diffusion::{Branch, LatentColours, Sample, Step, denoise, picture};
use crate::error::{Error, ErrorKind, Result};
use crate::models::sdxl::{Added, UNet};
use crate::pixels::Image;
use crate::schedule::{self, Noise, TorchGenerator};

/// The part of the steps that are made with the patch of the inpaint engine, where there is no refiner.
const PATCHED: f64 = 0.8;
/// The size that is asked for is told to the network in multiples of this, as it was in training.
const TOLD_MULTIPLE: usize = 64;

/// The networks that denoise.
pub(super) struct Unets<'a> {
    pub(super) unet: Arc<UNet>,
    /// With the patch of the inpaint engine, where it is needed.
    pub(super) patched: Option<Arc<UNet>>,
    /// If it makes some of the steps.
    pub(super) refiner: Option<Refining<'a>>,
}

impl Run<'_> {
    /// The prompts of outputs as the network takes them. What its layers make of a text is large, so it
    /// is there for a run only, and once for equal texts.
    fn prompts(&self, outputs: &[Output<'_>], unets: &Unets<'_>) -> Result<Vec<Prompts>> {
        let SizeGuidance { positive, negative, .. } = self.options.size_guidance;
        // All outputs of a run are of one size.
        let size = outputs.first().map_or(self.size, |output| output.condition.size);
        let has_features = |output: &Output<'_>| output.condition.features().is_some();
        let is_patched = outputs.iter().any(has_features);
        let mut known: HashMap<(Branch, &str, bool), Arc<SizedPrompt>> = HashMap::new();
        let mut sized = |branch, (prompt, as_is), text: &Conditioning, scale| -> Result<_> {
            Ok(match known.entry((branch, prompt, as_is)) {
                Entry::Occupied(sized) => Arc::clone(sized.get()),
                Entry::Vacant(place) => Arc::clone(place.insert(Arc::new(self.sized(
                    unets,
                    (branch, is_patched),
                    text,
                    scale,
                    size,
                )?))),
            })
        };
        let each = outputs.iter().map(|output| {
            let Condition { request, texts, .. } = output.condition;
            let Some(Texts { positive: with, negative: against }) = texts else {
                return Err(Error::new(ErrorKind::Internal, "a prompt is missing"));
            };
            let against = against.as_ref().map(|text| {
                let prompt = (request.negative_prompt.as_str(), request.as_is);
                sized(Branch::Negative, prompt, text, negative)
            });
            let negative = against.transpose()?;
            let prompt = (request.prompt.as_str(), request.as_is);
            let positive = sized(Branch::Positive, prompt, with, positive)?;
            Ok(Prompts { positive, negative })
        });
        each.collect()
    }

    /// A text for the network, which is told that the picture has `scale` times its size, and its size.
    fn sized(
        &self,
        unets: &Unets<'_>,
        (branch, is_patched): (Branch, bool),
        text: &Conditioning,
        scale: f32,
        (width, height): (usize, usize),
    ) -> Result<SizedPrompt> {
        let told = |side: usize| {
            let times = (side as f32 / TOLD_MULTIPLE as f32).round_ties_even();
            times * TOLD_MULTIPLE as f32
        };
        let sizes = |scale: f32| {
            let [tall, wide] = [height, width].map(|side| (side as f32 * scale).floor());
            [tall, wide, 0.0, 0.0, told(height), told(width)]
        };
        let flat = |x: &Tensor| x.squeeze(0).map_err(|e| classify(e, "cannot prepare a prompt"));
        let (states, pooled) = (flat(&text.states)?, flat(&text.pooled)?);
        let (unet, pooled) = (&unets.unet, &pooled);
        let both = |unet: &UNet| -> Result<[_; 2]> {
            let plain = unet.prompt(&states, Some(Added { pooled, sizes: &sizes(1.0) }))?;
            Ok([unet.prompt_again(&plain, Added { pooled, sizes: &sizes(scale) })?, plain])
        };
        let [emphasised, plain] = both(unet)?;
        let patched = unets.patched.as_ref().filter(|_| is_patched);
        let patched = patched.map(|unet| both(unet)).transpose()?;
        let refined = unets.refiner.as_ref().map(|refining| {
            refining.prompt(&states, pooled, sizes(1.0), branch == Branch::Positive)
        });
        Ok(SizedPrompt { emphasised, plain, refined: refined.transpose()?, patched })
    }

    /// The answer that needs nothing to be made.
    fn finished(&self, output: &Output<'_>) -> Option<Result<Generated>> {
        let image = output.condition.made.clone()?;
        let Output { request, variant, seed, condition } = *output;
        let values = || image.pixels().iter().map(|value| f32::from(*value) / 255.0).collect();
        let (values, notes) = (self.options.keep_values.then(values), condition.notes.clone());
        Some(Ok(Generated { image, values, request, variant, seed, notes, recipe: None }))
    }

    /// Makes outputs in one run, with an answer for each.
    pub(super) fn make(
        &mut self,
        outputs: &[Output<'_>],
        unets: Option<&Unets<'_>>,
    ) -> Vec<Result<Generated>> {
        let finished: Vec<_> = outputs.iter().filter_map(|output| self.finished(output)).collect();
        // They are alike.
        if finished.len() == outputs.len() {
            return finished;
        }
        let missing = || Error::new(ErrorKind::Internal, "a network is missing");
        let made = unets.ok_or_else(missing).and_then(|unets| self.denoised(outputs, unets));
        let made = match made {
            Ok(made) => made,
            Err(error) => return outputs.iter().map(|_| Err(error.again())).collect(),
        };
        let decoded = made.into_iter().zip(outputs).map(|(latents, output)| {
            let decode = |latents: Tensor| {
                self.control.check()?;
                let decoded = || self.model.vae.decode(&latents)?.squeeze(0);
                let values = match output.condition.start() {
                    Start::Larger => self.model.decode_tiled(&latents, MULTIPLE, self.control)?,
                    _ => decoded().map_err(|e| classify(e, "cannot decode a picture"))?,
                };
                picture(&values)
            };
            let pasted = |(image, values): (Image, Vec<f32>)| match output.condition.part() {
                Some(part) => {
                    let image = part.area.paste(&image)?;
                    let values = image.pixels().iter().map(|v| f32::from(*v) / 255.0).collect();
                    Ok((image, values))
                }
                None => Ok((image, values)),
            };
            let (image, values) = latents
                .and_then(decode)
                .and_then(pasted)
                .map_err(|error| error.with("request", output.request))?;
            let Output { request, variant, seed, condition } = *output;
            let values = self.options.keep_values.then(|| values.into());
            let recipe = Some(Arc::new(Recipe::new(condition.request, &self.setting)));
            let notes = condition.notes.clone();
            Ok(Generated { image, values, request, variant, seed, notes, recipe })
        });
        decoded.collect()
    }

    /// The latents of outputs, `(1, h, w, channels)`, as the autoencoder takes them.
    fn denoised(
        &mut self,
        outputs: &[Output<'_>],
        unets: &Unets<'_>,
    ) -> Result<Vec<Result<Tensor>>> {
        let Self { model, options, control, .. } = *self;
        let mut samples = Vec::with_capacity(outputs.len());
        for output in outputs {
            let sampler = self.sampler(output.seed, output.condition)?;
            let guidance = options.is_guided().then_some(options.guidance_scale);
            let number = output.request * options.n + output.variant;
            samples.push(Sample { sampler: Box::new(sampler), guidance, output: number });
        }
        let prompts = self.prompts(outputs, unets)?;
        let prediction = model.prediction;
        let (unet, refiner) = (&*unets.unet, unets.refiner.clone());
        let patched = unets.patched.as_ref().map(|unet| PatchedUnet {
            unet,
            steps: (PATCHED * (self.sigmas[0].len() - 1) as f64).round_ties_even() as usize,
            features: outputs.iter().map(|output| output.condition.features().cloned()).collect(),
        });
        // With a refiner it is that which goes on.
        let patched = match (patched, &refiner) {
            (Some(patched), Some(refining)) => {
                Some(PatchedUnet { steps: refining.first, ..patched })
            }
            (patched, _) => patched,
        };
        let passes = Passes::new(model.placement.device());
        let denoiser =
            GenerateDenoiser { unet, prediction, refiner, patched, options, prompts, passes };
        let colours = control.has_preview().then(|| model.colours()).transpose()?;
        let (n, steps) = (options.n, self.sigmas[0].len() - 1);
        let mut watch = |step: &Step<'_>| {
            self.steps_done += 1;
            self.computed += 1;
            let left = self.steps.saturating_sub(self.steps_done) as u32;
            let left = self.start.elapsed() / self.computed * left;
            control.report_with(self.steps_done, Some(self.steps), Some(left));
            let output = &outputs[step.sample];
            if let Some(colours) = colours
                && let Ok((width, height, pixels)) = preview(colours, step)
            {
                let (output, pixels) = (output.request * n + output.variant, pixels.into());
                control.show(Preview { output, step: step.step, steps, width, height, pixels });
            }
        };
        let answers = denoise(&denoiser, &mut samples, control, &mut watch);
        Ok(samples
            .into_iter()
            .zip(answers)
            .map(|(sample, answer)| {
                answer?;
                let latents = sample.sampler.latents().unsqueeze(0);
                latents.map_err(|e| classify(e, "cannot lay out latents"))
            })
            .collect())
    }

    /// A sample of a seed at the first sigma. Noise is drawn as the reference draws it, channels outside.
    fn sampler(&self, seed: u64, condition: &Condition<'_>) -> Result<Sigmas> {
        let options = self.options;
        let (width, height) = latents_of(condition.size);
        let picture = condition.picture.as_ref().map(|picture| &picture.latents);
        let channels = self.model.vae.latent_channels();
        let mut generator = TorchGenerator::new(seed);
        let numbers = generator.normal(channels * height * width);
        let sigmas = &self.sigmas[condition.start() as usize];
        let scale = options.scheduler.noise_scale(sigmas);
        let device = self.model.placement.candle();
        let start = Tensor::from_vec(numbers, (channels, height, width), device)
            .and_then(|noise| {
                let noise = (noise.permute((1, 2, 0))?.contiguous()? * scale)?;
                picture.map_or(Ok(noise.clone()), |picture| picture + noise)
            })
            .map_err(|e| classify(e, "cannot lay out noise"))?;
        let noise = Noise::new(generator);
        let first = self.refined_from.filter(|first| *first > 0);
        let (now, later) = match (options.refiner_swap, first) {
            (RefinerSwap::Separate, Some(first)) => {
                (&sigmas[..=first], Some((sigmas[first..].to_vec(), first)))
            }
            _ => (&sigmas[..], None),
        };
        let state = schedule::Sampler::new(options.sampler, now, start, noise)?;
        let masked = condition.part().zip(picture).map(|(part, picture)| Masked {
            mask: part.mask.clone(),
            picture: picture.clone(),
            generator: TorchGenerator::new(seed.wrapping_add(1)),
            latents: None,
        });
        let mut sigmas = Sigmas { state, later, before: 0, estimate: None, masked };
        sigmas.lay_around().map_err(|e| classify(e, "cannot lay out noise"))?;
        Ok(sigmas)
    }
}

/// Width, height and RGB pixels of what a sample will be.
fn preview(colours: &LatentColours, step: &Step<'_>) -> Computed<(u32, u32, Vec<u8>)> {
    let latents = step.estimate()?;
    let (height, width, channels) = latents.dims3()?;
    let pixels = colours.pixels(&latents.reshape((height * width, channels))?)?;
    Ok((width as u32, height as u32, pixels))
}

impl Model {
    fn colours(&self) -> Result<&LatentColours> {
        if self.colours.get().is_none() {
            let encode = |pictures: &Tensor| self.vae.encode(pictures);
            let fitted = LatentColours::fit(encode, self.placement.candle());
            let fitted = fitted.map_err(|e| classify(e, "cannot make previews"))?;
            // Runs come one after the other; were there two, both would have fitted the same.
            let _ = self.colours.set(fitted);
        }
        self.colours
            .get()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the colours of previews were lost"))
    }
}
