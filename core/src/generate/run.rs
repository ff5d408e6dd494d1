//! The trip of a batch: windows of requests, whose pictures and prompts are encoded, and runs of their outputs.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::condition::Condition;
use super::make::Unets;
use super::metadata::Setting;
use super::options::{GenerateOptions, GenerateRequest};
use super::{Generated, Model};
use crate::control::Control;
use crate::diffusion::runs;
use crate::error::Result;
use crate::models::sdxl::InpaintHead;
use crate::schedule::TorchGenerator;

/// Latents of one pass of the network, both sides of guidance counted: beyond this a CPU does not gain by
/// more.
pub(super) const BUDGET: usize = 32_768;
/// Requests whose pictures and prompts are encoded together. What they become waits in memory.
const WINDOW: usize = 32;

/// Gives the result of a picture, by its number.
pub(super) type Deliver<'a> = dyn FnMut(usize, Result<Generated>) + 'a;

/// One picture to make.
pub(super) struct Output<'a> {
    pub(super) request: usize,
    pub(super) variant: usize,
    pub(super) seed: u64,
    pub(super) condition: &'a Condition<'a>,
}

/// All of one call.
pub(super) struct Run<'a> {
    pub(super) model: &'a Model,
    /// The head of the inpaint engine, where it is needed.
    pub(super) inpaint_head: Option<Arc<InpaintHead>>,
    /// The first step that a refiner makes, if it makes any.
    pub(super) refined_from: Option<usize>,
    pub(super) options: &'a GenerateOptions,
    /// The same for metadata.
    pub(super) setting: Arc<Setting>,
    /// Width and height of pictures that have no other one.
    pub(super) size: (usize, usize),
    /// Of each kind of [`Start`](super::options::Start); the same number.
    pub(super) sigmas: [Vec<f64>; 4],
    /// Of requests that have none.
    seed: u64,
    pub(super) control: &'a Control,
    /// Steps of all outputs, those that are done or will not be made, and those that were computed.
    pub(super) steps: usize,
    pub(super) steps_done: usize,
    pub(super) computed: u32,
    pub(super) start: Instant,
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
    let steps_of_one = sigmas[0].len() - 1;
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
    let is_inpainted = requests.iter().any(GenerateRequest::is_inpainted);
    let first = (steps_of_one as f64 * options.refiner_switch).round_ties_even() as usize;
    let mut run = Run {
        model,
        inpaint_head: model.networks.inpaint_head().filter(|_| is_inpainted),
        refined_from: model.refiner.is_some().then_some(first).filter(|i| *i < steps_of_one),
        options,
        setting,
        size: options.size.unwrap_or(model.training.size),
        sigmas,
        seed: options.seed.unwrap_or_else(TorchGenerator::drawn_seed),
        control,
        steps: requests.len() * options.n * steps_of_one,
        steps_done: 0,
        computed: 0,
        start,
    };
    for (i, requests) in requests.chunks(WINDOW).enumerate() {
        run.window(requests, i * WINDOW, deliver);
    }
    Ok(())
}

impl Run<'_> {
    /// Makes the pictures of requests, the first of which has this number.
    fn window(&mut self, requests: &[GenerateRequest], first: usize, deliver: &mut Deliver<'_>) {
        let (model, n, refined_from) = (self.model, self.options.n, self.refined_from);
        let mut conditions = self.conditions(requests, first);
        let most =
            match model.room_for(&mut conditions, first, self.options, refined_from.is_some()) {
                Err(_) if requests.len() > 1 => {
                    drop(conditions);
                    let middle = requests.len() / 2;
                    self.window(&requests[..middle], first, deliver);
                    return self.window(&requests[middle..], first + middle, deliver);
                }
                most => most,
            };
        let unets = most.and_then(|most| Ok((unets(model, &conditions, refined_from)?, most)));
        let (unets, most) = match unets {
            Ok(found) => found,
            Err(error) => {
                let to_make = conditions.iter_mut().filter(|made| needs_network(made));
                to_make.for_each(|condition| *condition = Err(error.again()));
                (None, 1)
            }
        };
        let outputs: Vec<Output<'_>> = conditions
            .iter()
            .enumerate()
            .filter_map(|(i, condition)| Some((i, condition.as_ref().ok()?)))
            .flat_map(|(i, condition)| {
                let seed = requests[i].seed.unwrap_or(self.seed);
                (0..n).map(move |variant| {
                    let seed = seed.wrapping_add(variant as u64);
                    Output { request: first + i, variant, seed, condition }
                })
            })
            .collect();
        let made = outputs.iter().filter(|output| output.condition.made.is_some()).count();
        let steps = self.sigmas[0].len() - 1;
        self.steps_done += (requests.len() * n - outputs.len() + made) * steps;
        let mut next = first;
        // The requests from `next` up to one that was made are those that failed.
        let fail_until = |next: &mut usize, request: usize, deliver: &mut Deliver<'_>| {
            for failed in std::mem::replace(next, request)..request {
                if let Err(error) = &conditions[failed - first] {
                    (failed * n..(failed + 1) * n).for_each(|i| deliver(i, Err(error.again())));
                }
            }
        };
        let is_guided = self.options.is_guided();
        let latents: Vec<usize> =
            outputs.iter().map(|output| output.condition.latents(is_guided)).collect();
        for run in runs(&latents, BUDGET, most) {
            // What goes through the network together is of one size.
            let kind =
                |output: &Output<'_>| (output.condition.size, output.condition.made.is_some());
            let alike = |a: &Output<'_>, b: &Output<'_>| kind(a) == kind(b);
            for outputs in outputs[run].chunk_by(alike) {
                for (output, made) in outputs.iter().zip(self.make(outputs, unets.as_ref())) {
                    fail_until(&mut next, output.request, deliver);
                    deliver(output.request * n + output.variant, made);
                }
            }
        }
        fail_until(&mut next, first + requests.len(), deliver);
    }
}

/// The networks that conditions need, read if they are not there; nothing if they need none.
fn unets<'a>(
    model: &'a Model,
    conditions: &[Result<Condition<'_>>],
    refined_from: Option<usize>,
) -> Result<Option<Unets<'a>>> {
    if !conditions.iter().any(needs_network) {
        return Ok(None);
    }
    let has_features =
        |made: &Result<Condition<'_>>| made.as_ref().is_ok_and(|made| made.features().is_some());
    let patched = match conditions.iter().any(has_features) {
        true => model.networks.patched()?,
        false => None,
    };
    let refiner = model.refiner.as_ref().zip(refined_from);
    let refiner = refiner.map(|(refiner, first)| refiner.after(first, &model.placement));
    Ok(Some(Unets { unet: model.networks.unet()?, patched, refiner: refiner.transpose()? }))
}

/// Whether there is something to make.
fn needs_network(condition: &Result<Condition<'_>>) -> bool {
    condition.as_ref().is_ok_and(|condition| condition.made.is_none())
}
