//! The trip of a batch: encode the prompts, denoise, decode.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use candle_core::{Result as Computed, Tensor};

use super::condition::{Condition, latents_of};
use super::denoiser::{GenerateDenoiser, Patched, Prompts, SizedPrompt};
use super::metadata::{Recipe, Setting};
use super::options::{GenerateOptions, GenerateRequest, SizeGuidance, Start};
use super::prompt::encode::{Conditioning, TextEncoders};
use super::recipe::MULTIPLE;
use super::refiner::{RefinerSwap, Refining};
use super::sample::{Masked, Sigmas};
use super::{Generated, Model};
use crate::batch::Passes;
use crate::control::{Control, Preview};
use crate::device::classify;
use crate::diffusion::{Branch, LatentColours, Sample, Step, denoise, picture, runs};
use crate::error::{Error, ErrorKind, Result};
use crate::models::sdxl::{Added, InpaintHead, UNet};
use crate::pixels::Image;
use crate::schedule::{self, Noise, TorchGenerator};

/// Latents of one pass of the network, both sides of guidance counted: beyond this a CPU does not gain by
/// more.
const BUDGET: usize = 32_768;
/// The part of the steps that are made with the patch of the inpaint engine, where there is no refiner.
const PATCHED: f64 = 0.8;
/// The size that is asked for is told to the network in multiples of this, as it was in training.
const TOLD_MULTIPLE: usize = 64;

/// Gives the result of a picture, by its number.
pub(super) type Deliver<'a> = dyn FnMut(usize, Result<Generated>) + 'a;

/// One picture to make.
struct Output<'a> {
    request: usize,
    variant: usize,
    seed: u64,
    condition: &'a Condition<'a>,
}

/// All of one call.
pub(super) struct Run<'a> {
    pub(super) model: &'a Model,
    pub(super) texts: TextEncoders,
    unet: Arc<UNet>,
    /// The inpaint engine, where it is needed.
    pub(super) inpaint: Option<(Arc<UNet>, Arc<InpaintHead>)>,
    /// If it makes some of the steps.
    refiner: Option<Refining<'a>>,
    pub(super) options: &'a GenerateOptions,
    /// The same for metadata.
    setting: Arc<Setting>,
    /// Width and height of pictures that have no other one.
    pub(super) size: (usize, usize),
    /// Of each kind of [`Start`]; the same number.
    sigmas: [Vec<f64>; 4],
    pub(super) control: &'a Control,
    /// Steps of all outputs, those that are done or will not be made, and those that were computed.
    steps: usize,
    steps_done: usize,
    computed: u32,
    start: Instant,
}

/// Generates pictures; every one is delivered once, in order.
pub(super) fn run(
    model: &Model,
    requests: &[GenerateRequest],
    options: &GenerateOptions,
    control: &Control,
    deliver: &mut Deliver<'_>,
) -> Result<()> {
    options.check()?;
    let sigmas = options.sigmas()?;
    let _one_at_a_time = model.running.lock().unwrap_or_else(PoisonError::into_inner);
    let steps = requests.len() * options.n * (sigmas[0].len() - 1);
    let start = Instant::now();
    let loras = model.networks.loras();
    if let Some(performance) = options.performance.filter(|_| !model.training.few_steps) {
        performance.check_loras(loras.iter().map(|lora| &*lora.file))?;
    }
    let setting = Arc::new(Setting {
        model: model.source.clone(),
        refiner: model.refiner.as_ref().map(|refiner| refiner.source.clone()),
        vae: model.vae_source.clone(),
        loras: Setting::loras(loras),
        options: options.clone(),
    });
    let (texts, unet) = (model.networks.texts()?, model.networks.unet()?);
    let inpaint = match requests.iter().any(GenerateRequest::is_inpainted) {
        true => model.networks.inpaint()?,
        false => None,
    };
    let size = options.size.unwrap_or(model.training.size);
    let steps_of_one = sigmas[0].len() - 1;
    let first = (steps_of_one as f64 * options.refiner_switch).round_ties_even() as usize;
    let refiner = model.refiner.as_ref().filter(|_| first < steps_of_one);
    let refiner = refiner.map(|refiner| refiner.after(first, &model.placement)).transpose()?;
    let (steps_done, computed) = (0, 0);
    let mut run = Run {
        model,
        texts,
        unet,
        inpaint,
        refiner,
        options,
        setting,
        size,
        sigmas,
        control,
        steps,
        steps_done,
        computed,
        start,
    };
    run.all(requests, deliver);
    Ok(())
}

impl Run<'_> {
    fn all(&mut self, requests: &[GenerateRequest], deliver: &mut Deliver<'_>) {
        let n = self.options.n;
        let conditions = self.conditions(requests);
        let seed = self.options.seed.unwrap_or_else(TorchGenerator::drawn_seed);
        let outputs: Vec<Output<'_>> = conditions
            .iter()
            .enumerate()
            .filter_map(|(request, condition)| Some((request, condition.as_ref().ok()?)))
            .flat_map(|(request, condition)| {
                let seed = requests[request].seed.unwrap_or(seed);
                (0..n).map(move |variant| {
                    let seed = seed.wrapping_add(variant as u64);
                    Output { request, variant, seed, condition }
                })
            })
            .collect();
        let made = outputs.iter().filter(|output| output.condition.made.is_some()).count();
        let steps = self.sigmas[0].len() - 1;
        self.steps_done += (requests.len() * n - outputs.len() + made) * steps;
        let mut next = 0;
        // The requests from `next` up to one that was made are those that failed.
        let fail_until = |next: &mut usize, request: usize, deliver: &mut Deliver<'_>| {
            let first = std::mem::replace(next, request);
            for (failed, condition) in conditions.iter().enumerate().take(request).skip(first) {
                if let Err(error) = condition {
                    (failed * n..(failed + 1) * n).for_each(|i| deliver(i, Err(error.again())));
                }
            }
        };
        let sides = if self.options.is_guided() { 2 } else { 1 };
        let count = |output: &Output<'_>| {
            let (width, height) = latents_of(output.condition.size);
            sides * width * height
        };
        let latents: Vec<usize> = outputs.iter().map(count).collect();
        for run in runs(&latents, BUDGET, self.model.batch_size) {
            // What goes through the network together is of one size.
            let kind =
                |output: &Output<'_>| (output.condition.size, output.condition.made.is_some());
            let alike = |a: &Output<'_>, b: &Output<'_>| kind(a) == kind(b);
            for outputs in outputs[run].chunk_by(alike) {
                for (output, made) in outputs.iter().zip(self.make(outputs)) {
                    fail_until(&mut next, output.request, deliver);
                    deliver(output.request * n + output.variant, made);
                }
            }
        }
        fail_until(&mut next, requests.len(), deliver);
    }

    /// The prompts of outputs as the network takes them. What its layers make of a text is large, so it
    /// is there for a run only, and once for equal texts.
    fn prompts(&self, outputs: &[Output<'_>]) -> Result<Vec<Prompts>> {
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
                    (branch, is_patched),
                    text,
                    scale,
                    size,
                )?))),
            })
        };
        let each = outputs.iter().map(|output| {
            let Condition { request, positive: with, negative: against, .. } = output.condition;
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
        let (unet, pooled) = (&self.unet, &pooled);
        let both = |unet: &UNet| -> Result<[_; 2]> {
            let plain = unet.prompt(&states, Some(Added { pooled, sizes: &sizes(1.0) }))?;
            Ok([unet.prompt_again(&plain, Added { pooled, sizes: &sizes(scale) })?, plain])
        };
        let [emphasised, plain] = both(unet)?;
        let inpaint = self.inpaint.as_ref().filter(|_| is_patched);
        let patched = inpaint.map(|(unet, _)| both(unet)).transpose()?;
        let refined = self.refiner.as_ref().map(|refining| {
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
    fn make(&mut self, outputs: &[Output<'_>]) -> Vec<Result<Generated>> {
        let finished: Vec<_> = outputs.iter().filter_map(|output| self.finished(output)).collect();
        // They are alike.
        if finished.len() == outputs.len() {
            return finished;
        }
        let made = match self.denoised(outputs) {
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
    fn denoised(&mut self, outputs: &[Output<'_>]) -> Result<Vec<Result<Tensor>>> {
        let Self { model, options, control, .. } = *self;
        let unet = &*Arc::clone(&self.unet);
        let mut samples = Vec::with_capacity(outputs.len());
        for output in outputs {
            let sampler = self.sampler(output.seed, output.condition)?;
            let guidance = output.condition.negative.is_some().then_some(options.guidance_scale);
            let number = output.request * options.n + output.variant;
            samples.push(Sample { sampler: Box::new(sampler), guidance, output: number });
        }
        let prompts = self.prompts(outputs)?;
        let prediction = model.prediction;
        let refiner = self.refiner.clone();
        let inpaint = self.inpaint.clone();
        let patched = inpaint.as_ref().map(|(unet, _)| Patched {
            unet,
            steps: (PATCHED * (self.sigmas[0].len() - 1) as f64).round_ties_even() as usize,
            features: outputs.iter().map(|output| output.condition.features().cloned()).collect(),
        });
        // With a refiner it is that which goes on.
        let patched = match (patched, &refiner) {
            (Some(patched), Some(refining)) => Some(Patched { steps: refining.first, ..patched }),
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
        let first = self.refiner.as_ref().map(|refining| refining.first).filter(|first| *first > 0);
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
