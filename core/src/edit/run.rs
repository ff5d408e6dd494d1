//! The trip of a batch: prepare, encode, denoise, decode, deliver.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use candle_core::Tensor;

use super::denoiser::{Condition, EditDenoiser};
use super::encode::Encoded;
use super::prepare::Batch;
use super::request::{EditOptions, EditRequest, Resolved};
use super::room::Room;
use super::{Edited, Model};
use crate::batch::Passes;
use crate::control::{Control, Preview};
use crate::device::{Precision, classify};
use crate::diffusion::{FlowEuler, LatentColours, Sample, Step, denoise, picture, runs};
use crate::error::{Error, ErrorKind, Result};
use crate::models::qwen_image::{Grid, Modulation, pack, unpack};
use crate::schedule::{Rounding, Schedule, TorchGenerator};

/// Gives the result of an output, by its number.
pub(super) type Deliver<'a> = dyn FnMut(usize, Result<Edited>) + 'a;

/// A schedule with what each of its times does to the network.
type Times = (Arc<Schedule>, Arc<Vec<Modulation>>);

/// One picture to make.
struct Output<'a> {
    request: usize,
    variant: usize,
    seed: u64,
    condition: &'a Condition,
}

/// All of one call.
struct Run<'a> {
    model: &'a Model,
    options: &'a EditOptions,
    resolved: Resolved,
    /// Of the first variant of every request.
    seeds: Vec<u64>,
    control: &'a Control,
    /// What the networks were loaded for.
    room: &'a mut Option<Room>,
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
    let mut one_at_a_time = model.running.lock().unwrap_or_else(PoisonError::into_inner);
    let steps = requests.len() * options.n * resolved.recipe.steps;
    let seed = options.seed.unwrap_or_else(TorchGenerator::drawn_seed);
    let mut run = Run {
        model,
        options,
        resolved,
        seeds: requests.iter().map(|request| request.seed.unwrap_or(seed)).collect(),
        control,
        room: &mut one_at_a_time,
        steps,
        steps_done: 0,
        computed: 0,
        start: Instant::now(),
    };
    let window = model.window(&run.resolved);
    for (i, requests) in requests.chunks(window).enumerate() {
        run.window(requests, i * window, deliver);
    }
    Ok(())
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
        if self.room.is_some_and(|room| room.in_turn) {
            // Decoded pictures need room as well.
            self.model.transformer.release();
        }
        let mut batch = Batch::new(self.model, requests, first, &self.resolved);
        let room = match self.model.room_for(&mut batch, first, &self.resolved, n) {
            Err(_) if requests.len() > 1 => {
                drop(batch);
                let middle = requests.len() / 2;
                self.window(&requests[..middle], first, deliver);
                return self.window(&requests[middle..], first + middle, deliver);
            }
            room => room,
        };
        let failed = batch.edits.iter().filter(|edit| edit.is_err()).count();
        self.steps_done += failed * n * self.resolved.recipe.steps;
        let made = room.and_then(|(room, most)| Ok((self.conditions(&batch, &room)?, room, most)));
        let (conditions, room, most) = match made {
            Ok(made) => made,
            Err(error) => return fail(&error, deliver),
        };
        let outputs: Vec<Output<'_>> = conditions
            .iter()
            .enumerate()
            .filter_map(|(i, condition)| Some((first + i, condition.as_ref().ok()?)))
            .flat_map(|(request, condition)| {
                (0..n).map(move |variant| (request, variant, condition))
            })
            .map(|(request, variant, condition)| {
                let seed = self.seeds[request].wrapping_add(variant as u64);
                Output { request, variant, seed, condition }
            })
            .collect();
        let tokens: Vec<_> = outputs.iter().map(|output| output.condition.tokens()).collect();
        let mut next = first;
        // The requests from `next` up to one that was made are those that failed.
        let fail_until = |next: &mut usize, request: usize, deliver: &mut Deliver<'_>| {
            for failed in std::mem::replace(next, request)..request {
                if let Err(error) = &conditions[failed - first] {
                    (failed * n..(failed + 1) * n).for_each(|i| deliver(i, Err(error.again())));
                }
            }
        };
        for run in runs(&tokens, self.model.budget(), most) {
            let outputs = &outputs[run];
            for (output, edited) in outputs.iter().zip(self.make(outputs, &room)) {
                fail_until(&mut next, output.request, deliver);
                deliver(output.request * n + output.variant, edited);
            }
        }
        fail_until(&mut next, first + requests.len(), deliver);
    }

    /// What every request is made from.
    fn conditions(&mut self, batch: &Batch, room: &Room) -> Result<Vec<Result<Condition>>> {
        let model = self.model;
        if batch.edits.iter().all(Result::is_err) {
            let errors = batch.edits.iter().filter_map(|edit| edit.as_ref().err());
            return Ok(errors.map(|error| Err(error.again())).collect());
        }
        if self.room.replace(*room) != Some(*room) {
            model.text.release();
            model.transformer.release();
        }
        let encoded = Encoded::new(model, batch, room, self.control)?;
        if room.in_turn {
            model.text.release();
        }
        let missing = || Error::new(ErrorKind::Internal, "a part of an edit is missing");
        Ok(batch
            .edits
            .iter()
            .map(|edit| {
                let edit = edit.as_ref().map_err(Error::again)?;
                let text = |i: usize| encoded.prompts[i].clone().ok_or_else(missing);
                let references = edit.pictures.iter();
                Ok(Condition {
                    target: model.grid_of(edit.size),
                    references: references
                        .map(|i| encoded.pictures[*i].clone().ok_or_else(missing))
                        .collect::<Result<_>>()?,
                    positive: text(edit.positive)?,
                    negative: edit.negative.map(text).transpose()?,
                })
            })
            .collect())
    }

    /// A schedule for every number of tokens that a target of `outputs` has.
    fn times(&self, outputs: &[Output<'_>]) -> Result<HashMap<usize, Times>> {
        let scheduler = match self.resolved.is_lightning {
            true => self.model.scheduler.lightning(),
            false => self.model.scheduler.clone(),
        };
        let mut all = HashMap::new();
        for tokens in outputs.iter().map(|output| output.condition.target.tokens()) {
            if let Entry::Vacant(entry) = all.entry(tokens) {
                self.control.check()?;
                let schedule = scheduler.schedule(self.resolved.recipe.steps, tokens)?;
                let times: Vec<f32> = schedule.times(self.rounding()).collect();
                entry.insert((Arc::new(schedule), self.model.modulations(&times)?));
            }
        }
        Ok(all)
    }

    fn rounding(&self) -> Rounding {
        match self.model.placement.precision() {
            Precision::Bf16 => Rounding::Bf16,
            _ => Rounding::Exact,
        }
    }

    /// Makes outputs in one run, with an answer for each.
    fn make(&mut self, outputs: &[Output<'_>], room: &Room) -> Vec<Result<Edited>> {
        let made = self.denoised(outputs, room).and_then(|made| Ok((made, self.model.vae()?)));
        let (made, vae) = match made {
            Ok(made) => made,
            Err(error) => return outputs.iter().map(|_| Err(error.again())).collect(),
        };
        let decoded = made.into_iter().zip(outputs).map(|(latents, output)| {
            let latents = latents.map_err(|error| error.with("request", output.request))?;
            self.control.check()?;
            let Grid { rows, columns } = output.condition.target;
            let values = latents
                .reshape((1, rows, columns, ()))
                .and_then(|tokens| vae.decode(&unpack(&tokens)?)?.squeeze(0))
                .map_err(|e| classify(e, "cannot decode a picture"))?;
            Edited::new(&values, output, self.options.keep_values)
        });
        decoded.collect()
    }

    /// The latents of outputs, `(tokens, channels)`.
    fn denoised(&mut self, outputs: &[Output<'_>], room: &Room) -> Result<Vec<Result<Tensor>>> {
        let model = self.model;
        let times = self.times(outputs)?;
        let network = model.transformer(room)?;
        let mut samples = Vec::with_capacity(outputs.len());
        let mut inputs = Vec::with_capacity(outputs.len());
        for Output { request, variant, seed, condition } in outputs {
            let (schedule, modulations) = &times[&condition.target.tokens()];
            let noise = model.noise(*seed, condition.target);
            let noise = noise.map_err(|e| classify(e, "cannot lay out noise"))?;
            let guidance = self.resolved.recipe.true_cfg_scale;
            let sampler = FlowEuler::new(noise, Arc::clone(schedule), self.rounding());
            samples.push(Sample {
                sampler: Box::new(sampler),
                guidance: condition.negative.is_some().then_some(guidance),
                output: request * self.options.n + variant,
            });
            inputs.push((*condition, Arc::clone(modulations)));
        }
        let config = &model.transformer_config;
        let passes = Passes::new(model.placement.device());
        let denoiser = EditDenoiser::new(&network, config, inputs, self.control, passes);
        let (control, n) = (self.control, self.options.n);
        let steps = self.resolved.recipe.steps;
        let colours = control.has_preview().then(|| model.colours()).transpose()?;
        let mut watch = |step: &Step<'_>| {
            self.steps_done += 1;
            self.computed += 1;
            let left = self.steps.saturating_sub(self.steps_done) as u32;
            let left = self.start.elapsed() / self.computed * left;
            control.report_with(self.steps_done, Some(self.steps), Some(left));
            let output = &outputs[step.sample];
            if let Some(colours) = &colours
                && let Ok((width, height, pixels)) = preview(colours, step, output.condition.target)
            {
                control.show(Preview {
                    output: output.request * n + output.variant,
                    step: step.step,
                    steps,
                    width,
                    height,
                    pixels: pixels.into(),
                });
            }
        };
        let answers = denoise(&denoiser, &mut samples, control, &mut watch);
        Ok(samples
            .into_iter()
            .zip(answers)
            .map(|(sample, answer)| answer.map(|()| sample.sampler.latents().clone()))
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
        // Beside a bound on memory there is room for what a run needs only: that of the last one, which
        // is this one as a rule.
        let most = if self.max_memory.is_some() { 1 } else { 4 };
        let mut kept = self.modulations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(i) = kept.iter().position(|(known, _)| known == times) {
            let found = kept.remove(i);
            kept.push(found);
        } else {
            if kept.len() == most {
                kept.remove(0);
            }
            let weights = self.transformer_weights();
            let made = Modulation::schedule(&self.transformer_config, &weights.root(), times)?;
            kept.push((times.to_vec(), Arc::new(made)));
        }
        kept.last()
            .map(|(_, found)| Arc::clone(found))
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a schedule was lost"))
    }

    fn colours(&self) -> Result<Arc<LatentColours>> {
        self.colours.get(|| {
            let vae = self.vae()?;
            LatentColours::fit(|pictures| vae.encode(pictures), self.placement.candle())
                .map_err(|e| classify(e, "cannot make previews"))
        })
    }
}

impl Edited {
    /// From values `(h, w, 3)` between -1 and 1, as diffusers brings them to 8 bits.
    fn new(values: &Tensor, output: &Output<'_>, keep_values: bool) -> Result<Self> {
        let Output { request, variant, seed, .. } = *output;
        let (image, values) = picture(values).map_err(|error| error.with("request", request))?;
        let values = keep_values.then(|| values.into());
        Ok(Self { image, values, request, variant, seed })
    }
}

/// Schedules and what they do, by their times.
pub(super) type Modulations = Mutex<Vec<(Vec<f32>, Arc<Vec<Modulation>>)>>;
