//! The trip of a batch: prepare, encode, denoise, decode, deliver.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use candle_core::Tensor;

use super::denoiser::{Condition, EditDenoiser};
use super::encode::Encoded;
use super::prepare::Batch;
use super::preview::LatentColours;
use super::request::{EditOptions, EditRequest, Resolved};
use super::{Edited, Model};
use crate::control::{Control, Preview};
use crate::device::{Precision, classify};
use crate::diffusion::{Sample, Step, denoise, runs};
use crate::error::{Error, ErrorKind, Result};
use crate::models::qwen_image::{Grid, Modulation, pack, unpack};
use crate::pixels::Image;
use crate::schedule::{Rounding, Schedule, TorchGenerator};

/// Requests whose pictures and prompts are encoded together. Their states wait in memory.
const WINDOW: usize = 32;
/// Tokens of one pass, unless memory is bounded: beyond this a CPU does not gain by more.
const BUDGET: usize = 16_384;

/// Gives the result of an output, by its number.
pub(super) type Deliver<'a> = dyn FnMut(usize, Result<Edited>) + 'a;

/// A schedule with what each of its times does to the network.
type Times = (Arc<Schedule>, Arc<Vec<Modulation>>);

/// All of one call.
struct Run<'a> {
    model: &'a Model,
    options: &'a EditOptions,
    resolved: Resolved,
    /// Of the first variant of every request.
    seeds: Vec<u64>,
    control: &'a Control,
    /// Steps of all outputs, those that are done or will not be made, and those that were computed.
    steps: usize,
    steps_done: usize,
    computed: u32,
    start: Instant,
}

/// Edits pictures; every output is delivered once, in order.
pub(super) fn run(
    model: &Model,
    requests: &[EditRequest],
    options: &EditOptions,
    control: &Control,
    deliver: &mut Deliver<'_>,
) -> Result<()> {
    let resolved = options.resolve(&model.recipe, model.grid)?;
    let _one_at_a_time = model.running.lock().unwrap_or_else(PoisonError::into_inner);
    let steps = requests.len() * options.n * resolved.recipe.steps;
    let seed = options.seed.unwrap_or_else(drawn_seed);
    let mut run = Run {
        model,
        options,
        resolved,
        seeds: requests.iter().map(|request| request.seed.unwrap_or(seed)).collect(),
        control,
        steps,
        steps_done: 0,
        computed: 0,
        start: Instant::now(),
    };
    for (i, requests) in requests.chunks(WINDOW).enumerate() {
        run.window(requests, i * WINDOW, deliver);
    }
    Ok(())
}

/// A seed that nobody knows; of 32 bits, which are all that the generator takes.
fn drawn_seed() -> u64 {
    RandomState::new().build_hasher().finish() >> 32
}

impl Run<'_> {
    /// Edits requests, the first of which has this number.
    fn window(&mut self, requests: &[EditRequest], first: usize, deliver: &mut Deliver<'_>) {
        let n = self.options.n;
        let fail = |error: &Error, deliver: &mut Deliver<'_>| {
            (first * n..(first + requests.len()) * n).for_each(|i| deliver(i, Err(error.again())));
        };
        if let Err(error) = self.control.check() {
            return fail(&error, deliver);
        }
        let batch = Batch::new(self.model, requests, first, &self.resolved);
        let failed = batch.edits.iter().filter(|edit| edit.is_err()).count();
        self.steps_done += failed * n * self.resolved.recipe.steps;
        let conditions = match self.conditions(&batch) {
            Ok(conditions) => conditions,
            Err(error) => return fail(&error, deliver),
        };
        // The outputs that can be made, in order, and how large each is.
        let outputs: Vec<(usize, usize, &Condition, &Arc<Schedule>)> = conditions
            .iter()
            .enumerate()
            .filter_map(|(i, condition)| Some((i, condition.as_ref().ok()?)))
            .flat_map(|(i, (condition, schedule))| {
                (0..n).map(move |variant| (i, variant, condition, schedule))
            })
            .collect();
        let tokens: Vec<_> =
            outputs.iter().map(|(_, _, condition, _)| condition.tokens()).collect();
        let mut next = 0;
        let mut give = |until: usize,
                        made: &mut dyn Iterator<Item = Result<Edited>>,
                        deliver: &mut Deliver<'_>| {
            for output in next..until {
                let result = match &conditions[output / n] {
                    Err(error) => Err(error.again()),
                    Ok(_) => made.next().unwrap_or_else(|| {
                        Err(Error::new(ErrorKind::Internal, "an output was lost"))
                    }),
                };
                deliver(first * n + output, result);
            }
            next = until;
        };
        for run in runs(&tokens, self.budget(), self.model.batch_size) {
            let outputs = &outputs[run];
            let made = self.outputs(outputs, first);
            let until = outputs.last().map_or(0, |(i, variant, ..)| i * n + variant + 1);
            give(until, &mut made.into_iter(), deliver);
        }
        give(requests.len() * n, &mut std::iter::empty(), deliver);
    }

    fn seed(&self, request: usize, variant: usize) -> u64 {
        self.seeds[request].wrapping_add(variant as u64)
    }

    /// Tokens of one pass. Where blocks are read again in every pass, a pass should have many.
    fn budget(&self) -> usize {
        match self.model.max_memory {
            None => BUDGET,
            Some(memory) => {
                let values = memory / 4 / self.model.bytes_of_token();
                (values as usize).clamp(BUDGET / 16, 4 * BUDGET)
            }
        }
    }

    /// What every request is made from, and its schedule.
    #[expect(clippy::type_complexity, reason = "one answer for each request")]
    fn conditions(&self, batch: &Batch) -> Result<Vec<Result<(Condition, Arc<Schedule>)>>> {
        let model = self.model;
        if batch.edits.iter().all(Result::is_err) {
            let errors = batch.edits.iter().filter_map(|edit| edit.as_ref().err());
            return Ok(errors.map(|error| Err(error.again())).collect());
        }
        if model.max_memory.is_some() {
            model.transformer.release();
        }
        let encoded = Encoded::new(model, batch, self.control)?;
        if model.max_memory.is_some() {
            model.text.release();
        }
        let times = self.times(batch)?;
        let missing = || Error::new(ErrorKind::Internal, "a part of an edit is missing");
        Ok(batch
            .edits
            .iter()
            .map(|edit| {
                let edit = edit.as_ref().map_err(Error::again)?;
                let text = |i: usize| encoded.prompts[i].clone().ok_or_else(missing);
                let target = self.grid(edit.size);
                let (schedule, modulations) = times.get(&target.tokens()).ok_or_else(missing)?;
                let references = edit.pictures.iter();
                let condition = Condition {
                    target,
                    references: references
                        .map(|i| encoded.pictures[*i].clone().ok_or_else(missing))
                        .collect::<Result<_>>()?,
                    positive: text(edit.positive)?,
                    negative: edit.negative.map(text).transpose()?,
                    modulations: Arc::clone(modulations),
                };
                Ok((condition, Arc::clone(schedule)))
            })
            .collect())
    }

    fn grid(&self, (width, height): (usize, usize)) -> Grid {
        Grid { rows: height / self.model.grid, columns: width / self.model.grid }
    }

    /// A schedule for every number of tokens that a target of the batch has.
    fn times(&self, batch: &Batch) -> Result<HashMap<usize, Times>> {
        let model = self.model;
        let scheduler = match self.resolved.is_lightning {
            true => model.scheduler.lightning(),
            false => model.scheduler.clone(),
        };
        let mut all = HashMap::new();
        for edit in batch.edits.iter().flatten() {
            let tokens = self.grid(edit.size).tokens();
            if all.contains_key(&tokens) {
                continue;
            }
            self.control.check()?;
            let schedule = scheduler.schedule(self.resolved.recipe.steps, tokens)?;
            let times: Vec<f32> = schedule.times(self.rounding()).collect();
            all.insert(tokens, (Arc::new(schedule), model.modulations(&times)?));
        }
        Ok(all)
    }

    fn rounding(&self) -> Rounding {
        match self.model.placement.precision() {
            Precision::Bf16 => Rounding::Bf16,
            _ => Rounding::Exact,
        }
    }

    /// Makes outputs in one run: `(request of the window, variant, condition, schedule)`.
    fn outputs(
        &mut self,
        outputs: &[(usize, usize, &Condition, &Arc<Schedule>)],
        first: usize,
    ) -> Vec<Result<Edited>> {
        let failed = |error: &Error| outputs.iter().map(|_| Err(error.again())).collect();
        let made = match self.denoised(outputs, first) {
            Ok(made) => made,
            Err(error) => return failed(&error),
        };
        let vae = match self.model.vae() {
            Ok(vae) => vae,
            Err(error) => return failed(&error),
        };
        let decoded = made.into_iter().zip(outputs).map(|(latents, (i, variant, condition, _))| {
            let latents = latents.map_err(|error| error.with("request", first + i))?;
            self.control.check()?;
            let Grid { rows, columns } = condition.target;
            let values = latents
                .reshape((1, rows, columns, ()))
                .and_then(|tokens| vae.decode(&unpack(&tokens)?)?.squeeze(0))
                .map_err(|e| classify(e, "cannot decode a picture"))?;
            let (request, seed) = (first + i, self.seed(first + i, *variant));
            Edited::new(&values, request, *variant, seed, self.options.keep_values)
        });
        decoded.collect()
    }

    /// The latents of outputs, `(tokens, channels)`.
    fn denoised(
        &mut self,
        outputs: &[(usize, usize, &Condition, &Arc<Schedule>)],
        first: usize,
    ) -> Result<Vec<Result<Tensor>>> {
        let model = self.model;
        let tokens: usize = outputs.iter().map(|(_, _, condition, _)| condition.tokens()).sum();
        let steps = self.resolved.recipe.steps as u64;
        let beside = tokens as u64 * model.bytes_of_token() + steps * model.bytes_of_modulation();
        let network = model.transformer(beside)?;
        let mut samples = outputs
            .iter()
            .map(|(i, variant, condition, schedule)| {
                let seed = self.seed(first + i, *variant);
                let guidance = self.resolved.recipe.true_cfg_scale;
                Ok(Sample {
                    latents: model
                        .noise(seed, condition.target)
                        .map_err(|e| classify(e, "cannot lay out noise"))?,
                    schedule: Arc::clone(schedule),
                    guidance: condition.negative.is_some().then_some(guidance),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let conditions = outputs.iter().map(|(_, _, condition, _)| (*condition).clone()).collect();
        let config = &model.transformer_config;
        let denoiser = EditDenoiser::new(&network, config, conditions, self.control);
        let (rounding, control, n) = (self.rounding(), self.control, self.options.n);
        let colours = control.has_preview().then(|| model.colours()).transpose()?;
        let mut watch = |step: &Step<'_>| {
            self.steps_done += 1;
            self.computed += 1;
            let left = self.steps.saturating_sub(self.steps_done) as u32;
            let left = self.start.elapsed() / self.computed * left;
            control.report_with(self.steps_done, Some(self.steps), Some(left));
            let (i, variant, condition, schedule) = outputs[step.sample];
            if let Some(colours) = &colours
                && let Ok((width, height, pixels)) = preview(colours, step, condition.target)
            {
                control.show(Preview {
                    output: (first + i) * n + variant,
                    step: step.step,
                    steps: schedule.steps(),
                    width,
                    height,
                    pixels: pixels.into(),
                });
            }
        };
        let answers = denoise(&denoiser, &mut samples, rounding, control, &mut watch);
        Ok(samples
            .into_iter()
            .zip(answers)
            .map(|(sample, answer)| answer.map(|()| sample.latents))
            .collect())
    }
}

/// Width, height and RGB pixels of what a sample will be.
fn preview(
    colours: &LatentColours,
    step: &Step<'_>,
    Grid { rows, columns }: Grid,
) -> candle_core::Result<(u32, u32, Vec<u8>)> {
    let latents = unpack(&step.estimate()?.reshape((1, rows, columns, ()))?)?;
    let (_, height, width, channels) = latents.dims4()?;
    let pixels = colours.pixels(&latents.reshape((height * width, channels))?)?;
    Ok((width as u32, height as u32, pixels))
}

impl Model {
    /// The noise of a seed, as tokens: drawn as the reference draws it, channels outside.
    fn noise(&self, seed: u64, Grid { rows, columns }: Grid) -> candle_core::Result<Tensor> {
        let (height, width, channels) = (2 * rows, 2 * columns, self.vae_config.z_dim);
        let numbers = TorchGenerator::new(seed).normal(channels * height * width);
        let noise =
            Tensor::from_vec(numbers, (1, channels, height, width), self.placement.candle())?;
        let tokens = pack(&noise.permute((0, 2, 3, 1))?.contiguous()?)?;
        self.round(&tokens.reshape((rows * columns, ()))?)
    }

    /// What times do to the network; those of the last schedules are kept.
    fn modulations(&self, times: &[f32]) -> Result<Arc<Vec<Modulation>>> {
        const KEPT: usize = 4;
        let mut kept = self.modulations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(i) = kept.iter().position(|(known, _)| known == times) {
            let found = kept.remove(i);
            kept.push(found);
        } else {
            let weights = self.transformer_weights();
            let made = Modulation::schedule(&self.transformer_config, &weights.root(), times)?;
            if kept.len() == KEPT {
                kept.remove(0);
            }
            kept.push((times.to_vec(), Arc::new(made)));
        }
        kept.last()
            .map(|(_, found)| Arc::clone(found))
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a schedule was lost"))
    }

    fn colours(&self) -> Result<Arc<LatentColours>> {
        self.colours.get(|| {
            let vae = self.vae()?;
            LatentColours::fit(&vae, self.placement.candle())
                .map_err(|e| classify(e, "cannot make previews"))
        })
    }

    /// Bytes of values for each token of a pass: about 20 rows of the network's width.
    fn bytes_of_token(&self) -> u64 {
        20 * (self.transformer_config.width() * self.placement.dtype().size_in_bytes()) as u64
    }

    /// Bytes of the modulation of one step.
    fn bytes_of_modulation(&self) -> u64 {
        let config = &self.transformer_config;
        let vectors = 12 * config.num_layers * config.width();
        (vectors * self.placement.dtype().size_in_bytes()) as u64
    }
}

impl Edited {
    /// From values `(h, w, 3)` between -1 and 1, as diffusers brings them to 8 bits.
    fn new(
        values: &Tensor,
        request: usize,
        variant: usize,
        seed: u64,
        keep_values: bool,
    ) -> Result<Self> {
        let failed = |e| classify(e, "cannot read a picture");
        let (height, width, _) = values.dims3().map_err(failed)?;
        let values: Vec<f32> = values
            .flatten_all()
            .and_then(|values| values.to_vec1::<f32>())
            .map_err(failed)?
            .into_iter()
            .map(|value| (value / 2.0 + 0.5).clamp(0.0, 1.0))
            .collect();
        if values.iter().any(|value| value.is_nan()) {
            return Err(Error::model_invalid(
                "the autoencoder answers with values that are no numbers",
            )
            .with("request", request));
        }
        let pixels: Vec<u8> =
            values.iter().map(|value| (value * 255.0).round_ties_even() as u8).collect();
        let image = Image::from_rgb8(width as u32, height as u32, pixels)?;
        let values = keep_values.then(|| values.into());
        Ok(Self { image, values, request, variant, seed })
    }
}

/// Schedules and what they do, by their times.
pub(super) type Modulations = Mutex<Vec<(Vec<f32>, Arc<Vec<Modulation>>)>>;
