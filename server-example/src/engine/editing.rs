//! The edit thread: requests with the same options share a denoising run.
//!
//! A request is taken in its turn, and later ones that ask for the same options go with it. Each has
//! its own handle: progress and previews of which only the latest matters, and outputs of which none
//! is lost. Dropping the handle is how a client leaves: what waits is dropped, and a run that nobody
//! waits for stops after its step.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tagbrush::{Control, EditOptions, EditRequest, Preview, Result};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use super::models::{EditModel, Models, Picture, try_editor};
use super::tagging::{again, guarded};
use super::{Health, HealthCell, lock};
use crate::error::{ApiError, ApiResult};

/// How far a request is.
#[derive(Clone, Debug, Default)]
pub struct Stage {
    /// Whether its run has begun.
    pub is_running: bool,
    /// Share of its steps that are done, 0 to 1.
    pub done: f64,
    /// The newest preview of one of its outputs, which carries the output's number in the request.
    pub preview: Option<Preview>,
}

/// A request to the thread.
pub struct Edit {
    /// The edits; each has its own seed.
    pub requests: Vec<EditRequest>,
    /// Options without a seed: those that are equal go together.
    pub options: EditOptions,
    /// Whether somebody looks at previews.
    pub wants_previews: bool,
}

/// The client's end.
pub struct Handle {
    /// How far it is.
    pub stage: watch::Receiver<Stage>,
    /// Every output with its number, in order. It ends early if the server stops.
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
}

#[derive(Default)]
struct Leave {
    is_gone: AtomicBool,
    /// The run that the request is part of, to be told.
    run: Mutex<Option<Arc<RunState>>>,
}

impl Leave {
    fn leave(&self) {
        self.is_gone.store(true, Ordering::SeqCst);
        if let Some(run) = &*lock(&self.run) {
            run.stop_if_nobody_waits();
        }
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::SeqCst)
    }
}

/// The requests of a run, and what stops it.
struct RunState {
    members: Vec<Arc<Leave>>,
    control: Control,
}

impl RunState {
    fn stop_if_nobody_waits(&self) {
        if self.members.iter().all(|member| member.is_gone()) {
            self.control.cancel();
        }
    }
}

struct Work {
    edit: Edit,
    stage: watch::Sender<Stage>,
    outputs: mpsc::UnboundedSender<(usize, Result<Picture>)>,
    leave: Arc<Leave>,
    queued: Instant,
}

#[derive(Default)]
struct Waiting {
    works: VecDeque<Work>,
    running: Option<Control>,
    is_closed: bool,
}

struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    most_waiting: usize,
    most_together: usize,
    models: Arc<dyn Models>,
    model: Mutex<Option<Arc<dyn EditModel>>>,
    health: HealthCell,
}

/// The way to the thread.
#[derive(Clone)]
pub struct EditQueue(Arc<Shared>);

impl EditQueue {
    /// Starts the thread, which loads the model first.
    pub fn start(
        models: Arc<dyn Models>,
        bounds: &crate::config::Bounds,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            changed: Condvar::new(),
            most_waiting: bounds.edit_queue,
            most_together: bounds.edit_batch.max(1),
            models,
            model: Mutex::default(),
            health: HealthCell::default(),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("editor".into()).spawn(move || run(&own))?;
        Ok((Self(shared), thread))
    }

    /// Whether the model works.
    pub fn health(&self) -> &HealthCell {
        &self.0.health
    }

    /// The model, for checks without work and its defaults.
    pub fn model(&self) -> ApiResult<Arc<dyn EditModel>> {
        self.0.health.check()?;
        lock(&self.0.model).clone().ok_or_else(|| ApiError::not_ready(None))
    }

    /// Refuses what would not be queued, before its pictures are read.
    pub fn check_room(&self) -> ApiResult<()> {
        Self::room(&mut lock(&self.0.waiting), self.0.most_waiting)
    }

    /// Queues a request, unless the queue is full.
    pub fn push(&self, edit: Edit) -> ApiResult<Handle> {
        self.add(edit, self.0.most_waiting)
    }

    /// Queues a request that was accepted before, whatever the queue's length.
    pub fn push_accepted(&self, edit: Edit) -> ApiResult<Handle> {
        self.add(edit, usize::MAX)
    }

    fn add(&self, edit: Edit, most: usize) -> ApiResult<Handle> {
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
            waiting.works.push_back(Work { edit, stage, outputs, leave, queued });
            metrics::gauge!("queue_length", "queue" => "edit").set(waiting.works.len() as f64);
        }
        self.0.changed.notify_one();
        Ok(Handle { stage: stage_of, outputs: outputs_of, leave })
    }

    fn room(waiting: &mut Waiting, most: usize) -> ApiResult<()> {
        drop_gone(waiting);
        if waiting.works.len() >= most {
            metrics::counter!("queue_refusals_total", "queue" => "edit").increment(1);
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
            warn!("a running edit is stopped");
            control.cancel();
        }
    }
}

fn run(shared: &Shared) {
    let loaded = guarded(|| {
        let model = shared.models.editor()?;
        try_editor(&*model)?;
        Ok(model)
    });
    match loaded {
        Ok(model) => {
            info!("the edit model is ready");
            *lock(&shared.model) = Some(Arc::clone(&model));
            shared.health.set(Health::Ready("edit".to_owned()));
            while let Some((works, control)) = next(shared) {
                make(&*model, works, &control);
                lock(&shared.waiting).running = None;
            }
        }
        Err(error) => {
            // No handler queues anything for a model that is not there.
            error!("edits are not available: {error:#}");
            shared.health.set(Health::Failed(error.to_string()));
        }
    }
}

fn drop_gone(waiting: &mut Waiting) {
    let before = waiting.works.len();
    waiting.works.retain(|work| !work.leave.is_gone());
    let dropped = before - waiting.works.len();
    metrics::counter!("dropped_total", "queue" => "edit").increment(dropped as u64);
}

/// Waits for the next request, and takes those along that fit to it.
fn next(shared: &Shared) -> Option<(Vec<Work>, Control)> {
    let mut waiting = lock(&shared.waiting);
    loop {
        drop_gone(&mut waiting);
        if let Some(first) = waiting.works.pop_front() {
            let mut outputs = first.edit.requests.len() * first.edit.options.n;
            let mut together = vec![first];
            let mut rest = VecDeque::new();
            while let Some(work) = waiting.works.pop_front() {
                let more = work.edit.requests.len() * work.edit.options.n;
                let fits = work.edit.options == together[0].edit.options
                    && outputs + more <= shared.most_together;
                if fits {
                    outputs += more;
                    together.push(work);
                } else {
                    rest.push_back(work);
                }
            }
            waiting.works = rest;
            metrics::gauge!("queue_length", "queue" => "edit").set(waiting.works.len() as f64);
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
fn make(model: &dyn EditModel, works: Vec<Work>, control: &Control) {
    let members: Vec<_> = works.iter().map(|work| Arc::clone(&work.leave)).collect();
    let run = Arc::new(RunState { members, control: control.clone() });
    for work in &works {
        *lock(&work.leave.run) = Some(Arc::clone(&run));
        work.stage.send_modify(|stage| stage.is_running = true);
    }
    // Somebody may have left before the run was known to it.
    run.stop_if_nobody_waits();
    let options = works[0].edit.options.clone();
    let starts: Vec<usize> = works
        .iter()
        .scan(0, |sum, work| {
            let start = *sum;
            *sum += work.edit.requests.len() * options.n;
            Some(start)
        })
        .collect();
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
    if works.iter().any(|work| work.edit.wants_previews) {
        let (stages, owner) = (Arc::clone(&stages), owner.clone());
        watched = watched.on_preview(move |mut preview| {
            let (work, output) = owner(preview.output);
            preview.output = output;
            if let Some(stage) = stages.get(work) {
                stage.send_modify(|stage| stage.preview = Some(preview));
            }
        });
    }
    let requests: Vec<_> = works.iter().flat_map(|work| work.edit.requests.clone()).collect();
    let (count, total) = (works.len(), requests.len() * options.n);
    metrics::histogram!("batch_size", "queue" => "edit").record(total as f64);
    for work in &works {
        let waited = work.queued.elapsed().as_secs_f64();
        metrics::histogram!("queue_seconds", "queue" => "edit").record(waited);
    }
    info!(requests = count, outputs = total, "edits begin");
    let start = Instant::now();
    let mut given = 0;
    let give = |output: usize, made: Result<Picture>| {
        let (work, place) = owner(output);
        works[work].outputs.send((place, made)).ok();
    };
    let answer = guarded(|| {
        model.edit(&requests, &options, &watched, &mut |output, made| {
            given = output + 1;
            give(output, made);
        })
    });
    if let Err(error) = answer {
        (given..total).for_each(|output| give(output, Err(again(&error))));
    }
    let seconds = start.elapsed().as_secs_f64();
    metrics::histogram!("batch_seconds", "queue" => "edit").record(seconds);
    metrics::counter!("edited_images_total").increment(given as u64);
    info!(requests = count, outputs = given, seconds, "edits end");
    // The run knows its requests, and they know it.
    works.iter().for_each(|work| *lock(&work.leave.run) = None);
}
