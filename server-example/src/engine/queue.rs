//! A thread that makes pictures, and its queue: requests with the same options share a denoising run.
//!
//! A request is taken in its turn, and later ones that ask for the same options go with it. Each has
//! its own handle: progress and previews of which only the latest matters, and outputs of which none
//! is lost. Dropping the handle is how a client leaves: what waits is dropped, and what nobody waits
//! for stops after its step.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tagbrush::{Control, Preview, Result};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use super::leave::{Leave, RunState};
use super::models::{Models, Picture, Sink};
use super::tagging::{again, guarded};
use super::{Health, HealthCell, lock};
use crate::error::{ApiError, ApiResult};

/// What a thread makes pictures with.
pub trait Kind: Sized + 'static {
    /// How logs and metrics call it, also as a verb.
    const NAME: &'static str;
    /// The model.
    type Model: ?Sized + Send + Sync + 'static;
    /// What outputs are made of; each has its own seed.
    type Request: Clone + Send + 'static;
    /// Options without a seed: requests whose options are equal go together.
    type Options: Clone + PartialEq + Send + 'static;

    /// Loads the model and makes a forward pass.
    fn load(models: &dyn Models) -> Result<Arc<Self::Model>>;
    /// Outputs of a request.
    fn variants(options: &Self::Options) -> usize;
    /// What takes its time before anything is made.
    fn prepare(model: &Self::Model, options: &Self::Options) -> Result<()>;
    /// Makes all outputs, in order.
    fn make(
        model: &Self::Model,
        requests: &[Self::Request],
        options: &Self::Options,
        control: &Control,
        sink: Sink<'_>,
    ) -> Result<()>;
}

/// How far a request is.
#[derive(Clone, Debug, Default)]
pub struct Stage {
    /// Whether its run has begun.
    pub is_running: bool,
    /// Whether the model is as the request needs it.
    pub is_prepared: bool,
    /// Share of the run's steps that are done, 0 to 1.
    pub done: f64,
    /// Steps of the request's own outputs that are done; counted where previews are wanted.
    pub steps: usize,
    /// The newest preview of one of its outputs, which carries the output's number in the request.
    pub preview: Option<Preview>,
}

/// A request to the thread.
pub struct Order<K: Kind> {
    /// What is to be made.
    pub requests: Vec<K::Request>,
    /// How.
    pub options: K::Options,
    /// Whether somebody looks at previews.
    pub wants_previews: bool,
}

impl<K: Kind> Order<K> {
    fn outputs(&self) -> usize {
        self.requests.len() * K::variants(&self.options)
    }
}

/// The client's end.
pub struct Handle {
    /// How far it is.
    pub stage: watch::Receiver<Stage>,
    /// Every output with its number, in order. It ends early if the server stops. Outputs that were
    /// skipped are errors of kind [`Cancelled`](tagbrush::ErrorKind::Cancelled).
    pub outputs: mpsc::UnboundedReceiver<(usize, Result<Picture>)>,
    leave: Arc<Leave>,
}

impl Handle {
    /// What leaves in place of this handle.
    pub fn leaver(&self) -> Leaver {
        Leaver(Arc::clone(&self.leave))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.leave.leave();
    }
}

/// Cancels a request whose handle somebody else holds.
#[derive(Clone)]
pub struct Leaver(Arc<Leave>);

impl Leaver {
    /// Cancels it.
    pub fn leave(&self) {
        self.0.leave();
    }

    /// Cancels the outputs that are being made; the next ones are made.
    pub fn skip(&self) {
        self.0.skip();
    }
}

struct Work<K: Kind> {
    order: Order<K>,
    stage: watch::Sender<Stage>,
    outputs: mpsc::UnboundedSender<(usize, Result<Picture>)>,
    leave: Arc<Leave>,
    queued: Instant,
}

struct Waiting<K: Kind> {
    works: VecDeque<Work<K>>,
    running: Option<Control>,
    is_closed: bool,
}

struct Shared<K: Kind> {
    waiting: Mutex<Waiting<K>>,
    changed: Condvar,
    most_waiting: usize,
    most_together: usize,
    models: Arc<dyn Models>,
    model: Mutex<Option<Arc<K::Model>>>,
    health: HealthCell,
}

/// The way to the thread.
pub struct Queue<K: Kind>(Arc<Shared<K>>);

impl<K: Kind> Queue<K> {
    /// Starts the thread, which loads the model first. So many requests wait at most, and so many
    /// outputs share a run.
    pub fn start(
        models: Arc<dyn Models>,
        most_waiting: usize,
        most_together: usize,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let waiting = Waiting { works: VecDeque::new(), running: None, is_closed: false };
        let shared = Arc::new(Shared {
            waiting: Mutex::new(waiting),
            changed: Condvar::new(),
            most_waiting,
            most_together: most_together.max(1),
            models,
            model: Mutex::default(),
            health: HealthCell::default(),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name(K::NAME.into()).spawn(move || run(&own))?;
        Ok((Self(shared), thread))
    }

    /// Whether the model works.
    pub fn health(&self) -> &HealthCell {
        &self.0.health
    }

    /// The model, for checks without work and its defaults.
    pub fn model(&self) -> ApiResult<Arc<K::Model>> {
        self.0.health.check()?;
        lock(&self.0.model).clone().ok_or_else(|| ApiError::not_ready(None))
    }

    /// Refuses what would not be queued, before its pictures are read.
    pub fn check_room(&self) -> ApiResult<()> {
        Self::room(&mut lock(&self.0.waiting), self.0.most_waiting)
    }

    /// Queues a request, unless the queue is full.
    pub fn push(&self, order: Order<K>) -> ApiResult<Handle> {
        self.add(order, self.0.most_waiting)
    }

    /// Queues a request that was accepted before, whatever the queue's length.
    pub fn push_accepted(&self, order: Order<K>) -> ApiResult<Handle> {
        self.add(order, usize::MAX)
    }

    fn add(&self, order: Order<K>, most: usize) -> ApiResult<Handle> {
        let (stage, stage_of) = watch::channel(Stage::default());
        let (outputs, outputs_of) = mpsc::unbounded_channel();
        let leave = Arc::new(Leave::default());
        {
            let mut waiting = lock(&self.0.waiting);
            if waiting.is_closed {
                return Err(ApiError::stopping());
            }
            Self::room(&mut waiting, most)?;
            let (leave, queued) = (Arc::clone(&leave), Instant::now());
            waiting.works.push_back(Work { order, stage, outputs, leave, queued });
            metrics::gauge!("queue_length", "queue" => K::NAME).set(waiting.works.len() as f64);
        }
        self.0.changed.notify_one();
        Ok(Handle { stage: stage_of, outputs: outputs_of, leave })
    }

    fn room(waiting: &mut Waiting<K>, most: usize) -> ApiResult<()> {
        drop_gone(waiting);
        if waiting.works.len() >= most {
            metrics::counter!("queue_refusals_total", "queue" => K::NAME).increment(1);
            return Err(ApiError::queue_full());
        }
        Ok(())
    }

    /// Drops what waits and lets the thread end after its run.
    pub fn close(&self) {
        let mut waiting = lock(&self.0.waiting);
        waiting.is_closed = true;
        waiting.works.clear();
        self.0.changed.notify_one();
    }

    /// Stops the run, too.
    pub fn cancel_running(&self) {
        if let Some(control) = &lock(&self.0.waiting).running {
            warn!("a running {} is stopped", K::NAME);
            control.cancel();
        }
    }
}

fn run<K: Kind>(shared: &Shared<K>) {
    let loaded = guarded(|| K::load(&*shared.models));
    match loaded {
        Ok(model) => {
            info!("the {} model is ready", K::NAME);
            *lock(&shared.model) = Some(Arc::clone(&model));
            shared.health.set(Health::Ready(K::NAME.to_owned()));
            while let Some((works, control)) = next(shared) {
                make(&*model, works, &control);
                lock(&shared.waiting).running = None;
            }
        }
        Err(error) => {
            // No handler queues anything for a model that is not there.
            error!("the {} model is not available: {error:#}", K::NAME);
            shared.health.set(Health::Failed(error.to_string()));
        }
    }
}

fn drop_gone<K: Kind>(waiting: &mut Waiting<K>) {
    let before = waiting.works.len();
    waiting.works.retain(|work| !work.leave.is_gone());
    let dropped = before - waiting.works.len();
    metrics::counter!("dropped_total", "queue" => K::NAME).increment(dropped as u64);
}

/// Waits for the next request, and takes those along that fit to it.
fn next<K: Kind>(shared: &Shared<K>) -> Option<(Vec<Work<K>>, Control)> {
    let mut waiting = lock(&shared.waiting);
    loop {
        drop_gone(&mut waiting);
        if let Some(first) = waiting.works.pop_front() {
            let mut outputs = first.order.outputs();
            let mut together = vec![first];
            let mut rest = VecDeque::new();
            while let Some(work) = waiting.works.pop_front() {
                let more = work.order.outputs();
                let fits = work.order.options == together[0].order.options
                    && outputs + more <= shared.most_together;
                if fits {
                    outputs += more;
                    together.push(work);
                } else {
                    rest.push_back(work);
                }
            }
            waiting.works = rest;
            metrics::gauge!("queue_length", "queue" => K::NAME).set(waiting.works.len() as f64);
            let control = Control::new();
            waiting.running = Some(control.clone());
            return Some((together, control));
        }
        if waiting.is_closed {
            return None;
        }
        waiting = shared.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Makes the outputs of a run and gives every request its own.
fn make<K: Kind>(model: &K::Model, works: Vec<Work<K>>, control: &Control) {
    let options = works[0].order.options.clone();
    let starts: Vec<usize> = works
        .iter()
        .scan(0, |sum, work| {
            let start = *sum;
            *sum += work.order.outputs();
            Some(start)
        })
        .collect();
    let members = works.iter().zip(&starts);
    let members = members
        .map(|(work, start)| (Arc::clone(&work.leave), *start..start + work.order.outputs()));
    let run = RunState::begin(members.collect(), control.clone());
    works.iter().for_each(|work| work.stage.send_modify(|stage| stage.is_running = true));
    // Whose an output is, and its number there.
    let owner = {
        let starts = starts.clone();
        move |output: usize| {
            let work = starts.partition_point(|start| *start <= output).saturating_sub(1);
            (work, output - starts[work])
        }
    };
    let stages: Arc<Vec<_>> = Arc::new(works.iter().map(|work| work.stage.clone()).collect());
    let mut watched = control.clone().on_progress({
        let stages = Arc::clone(&stages);
        move |progress| {
            let total = progress.total.unwrap_or(progress.done).max(1);
            let done = progress.done as f64 / total as f64;
            stages.iter().for_each(|stage| stage.send_modify(|stage| stage.done = done));
        }
    });
    if works.iter().any(|work| work.order.wants_previews) {
        let (stages, owner, run) = (Arc::clone(&stages), owner.clone(), Arc::clone(&run));
        watched = watched.on_preview(move |mut preview| {
            run.made_a_step(preview.output);
            let (work, output) = owner(preview.output);
            preview.output = output;
            if let Some(stage) = stages.get(work) {
                stage.send_modify(|stage| {
                    stage.steps += 1;
                    stage.preview = Some(preview);
                });
            }
        });
    }
    let requests: Vec<_> = works.iter().flat_map(|work| work.order.requests.clone()).collect();
    let (count, total) = (works.len(), requests.len() * K::variants(&options));
    metrics::histogram!("batch_size", "queue" => K::NAME).record(total as f64);
    for work in &works {
        let waited = work.queued.elapsed().as_secs_f64();
        metrics::histogram!("queue_seconds", "queue" => K::NAME).record(waited);
    }
    info!(requests = count, outputs = total, "a run begins: {}", K::NAME);
    let start = Instant::now();
    let mut given = 0;
    let give = |output: usize, made: Result<Picture>| {
        run.gave(output);
        let (work, place) = owner(output);
        works[work].outputs.send((place, made)).ok();
    };
    let answer = guarded(|| {
        K::prepare(model, &options)?;
        stages.iter().for_each(|stage| stage.send_modify(|stage| stage.is_prepared = true));
        K::make(model, &requests, &options, &watched, &mut |output, made| {
            given = output + 1;
            give(output, made);
        })
    });
    if let Err(error) = answer {
        (given..total).for_each(|output| give(output, Err(again(&error))));
    }
    let seconds = start.elapsed().as_secs_f64();
    metrics::histogram!("batch_seconds", "queue" => K::NAME).record(seconds);
    metrics::counter!("made_images_total", "queue" => K::NAME).increment(given as u64);
    info!(requests = count, outputs = given, seconds, "a run ends: {}", K::NAME);
    run.end();
}
