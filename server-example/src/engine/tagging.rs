//! The tagger thread: pictures of many clients go through the network together.
//!
//! A batch is filled from all waiting requests in turn, one picture of each, so that a large request
//! does not hold up small ones. The thread waits a few milliseconds for more pictures, and not at all
//! when a batch is full. Requests whose client has gone are dropped before each batch.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tagbrush::{Error, ErrorKind, Input, Result, TagOptions, Tags};
use tokio::sync::oneshot;
use tracing::{error, info};

use super::models::{Models, TagModel, try_tagger};
use super::{Health, HealthCell, lock, panic_text};
use crate::error::{ApiError, ApiResult};

/// The answers of one request, one for each picture.
pub type TagAnswer = Result<Vec<Result<Tags>>>;

struct Work {
    key: String,
    options: TagOptions,
    /// Pictures that no batch has taken, with their places.
    images: VecDeque<(usize, Input)>,
    answers: Vec<Option<Result<Tags>>>,
    queued: Instant,
    reply: oneshot::Sender<TagAnswer>,
}

#[derive(Default)]
struct Waiting {
    works: VecDeque<Work>,
    /// Pictures of all works that no batch has taken.
    images: usize,
    unloads: Vec<oneshot::Sender<usize>>,
    is_closed: bool,
}

struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    most_waiting: usize,
    most_together: usize,
    delay: Duration,
    models: Arc<dyn Models>,
    health: HealthCell,
}

/// The way to the thread.
#[derive(Clone)]
pub struct TagQueue(Arc<Shared>);

impl TagQueue {
    /// Starts the thread, which loads the configured taggers first.
    pub fn start(
        models: Arc<dyn Models>,
        bounds: &crate::config::Bounds,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            changed: Condvar::new(),
            most_waiting: bounds.tag_queue,
            most_together: bounds.tag_batch.max(1),
            delay: bounds.tag_delay,
            models,
            health: HealthCell::default(),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("tagger".into()).spawn(move || run(&own))?;
        Ok((Self(shared), thread))
    }

    /// Whether the taggers work.
    pub fn health(&self) -> &HealthCell {
        &self.0.health
    }

    /// The name under which the tagger of this name is kept, if requests may name it.
    pub fn key(&self, model: &str) -> Option<String> {
        self.0.models.tagger_key(model)
    }

    /// Refuses what would not be queued, before its pictures are read: too many requests must cost
    /// those little that wait.
    pub fn check_room(&self) -> ApiResult<()> {
        let images = lock(&self.0.waiting).images;
        match images > 0 && images >= self.0.most_waiting {
            true => Err(refused()),
            false => Ok(()),
        }
    }

    /// Tags pictures; dropping the future drops what is still waiting.
    pub async fn tag(
        &self,
        key: String,
        images: Vec<Input>,
        options: TagOptions,
    ) -> ApiResult<TagAnswer> {
        let (reply, answer) = oneshot::channel();
        {
            let mut waiting = lock(&self.0.waiting);
            if waiting.is_closed {
                return Err(ApiError::stopping());
            }
            // A request larger than the queue is taken when nothing else waits.
            if waiting.images > 0 && waiting.images + images.len() > self.0.most_waiting {
                return Err(refused());
            }
            waiting.images += images.len();
            metrics::gauge!("queue_length", "queue" => "tag").set(waiting.images as f64);
            let answers = images.iter().map(|_| None).collect();
            let images = images.into_iter().enumerate().collect();
            let queued = Instant::now();
            waiting.works.push_back(Work { key, options, images, answers, queued, reply });
        }
        self.0.changed.notify_one();
        answer.await.map_err(|_| ApiError::stopping())
    }

    /// Forgets loaded taggers and says how many there were.
    pub async fn unload(&self) -> ApiResult<usize> {
        let (reply, answer) = oneshot::channel();
        lock(&self.0.waiting).unloads.push(reply);
        self.0.changed.notify_one();
        answer.await.map_err(|_| ApiError::stopping())
    }

    /// Lets the thread finish what waits, and end.
    pub fn close(&self) {
        lock(&self.0.waiting).is_closed = true;
        self.0.changed.notify_one();
    }
}

/// What the thread does next.
enum Next {
    Batch(String, Vec<Taken>),
    Unload(Vec<oneshot::Sender<usize>>),
    Stop,
}

/// A picture of a batch, and whose it is.
struct Taken {
    work: usize,
    place: usize,
    input: Input,
}

fn refused() -> ApiError {
    metrics::counter!("queue_refusals_total", "queue" => "tag").increment(1);
    ApiError::queue_full()
}

fn run(shared: &Shared) {
    let mut loaded: HashMap<String, Arc<dyn TagModel>> = HashMap::new();
    shared.health.set(start(shared, &mut loaded));
    loop {
        match next(shared) {
            Next::Stop => return,
            Next::Unload(replies) => {
                let mut count = loaded.len();
                loaded.clear();
                for reply in replies {
                    reply.send(std::mem::take(&mut count)).ok();
                }
            }
            Next::Batch(key, batch) => {
                let model = match loaded.get(&key) {
                    Some(model) => Ok(Arc::clone(model)),
                    None => load(shared, &key).inspect(|model| {
                        loaded.insert(key.clone(), Arc::clone(model));
                    }),
                };
                match model {
                    Ok(model) => answer(shared, &*model, batch),
                    Err(error) => refuse(shared, &key, &error),
                }
            }
        }
    }
}

/// Loads and tries what is configured.
fn start(shared: &Shared, loaded: &mut HashMap<String, Arc<dyn TagModel>>) -> Health {
    let names = shared.models.configured();
    for name in &names {
        match load(shared, name) {
            Ok(model) => loaded.insert(name.clone(), model),
            Err(error) => {
                error!("the tagger {name} cannot be used: {error:#}");
                return Health::Failed(format!("{name}: {error}"));
            }
        };
        info!("the tagger {name} is ready");
    }
    Health::Ready(names.join(", "))
}

fn load(shared: &Shared, name: &str) -> Result<Arc<dyn TagModel>> {
    guarded(|| {
        let model = shared.models.tagger(name)?;
        try_tagger(&*model)?;
        Ok(model)
    })
}

/// Waits for a batch worth computing.
fn next(shared: &Shared) -> Next {
    let mut waiting = lock(&shared.waiting);
    loop {
        let unloads = std::mem::take(&mut waiting.unloads);
        if !unloads.is_empty() {
            return Next::Unload(unloads);
        }
        drop_gone(&mut waiting);
        let Some(first) = waiting.works.iter().find(|work| !work.images.is_empty()) else {
            if waiting.is_closed {
                return Next::Stop;
            }
            waiting =
                shared.changed.wait(waiting).unwrap_or_else(std::sync::PoisonError::into_inner);
            continue;
        };
        let key = first.key.clone();
        let same = waiting.works.iter().filter(|work| work.key == key);
        let ready: usize = same.map(|work| work.images.len()).sum();
        let left = shared.delay.saturating_sub(first.queued.elapsed());
        if ready < shared.most_together && !left.is_zero() && !waiting.is_closed {
            let waited = shared.changed.wait_timeout(waiting, left);
            waiting = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
            continue;
        }
        let batch = take(&mut waiting, &key, shared.most_together);
        metrics::gauge!("queue_length", "queue" => "tag").set(waiting.images as f64);
        return Next::Batch(key, batch);
    }
}

fn drop_gone(waiting: &mut Waiting) {
    let mut dropped = 0;
    waiting.works.retain(|work| {
        let is_gone = work.reply.is_closed();
        dropped += if is_gone { work.images.len() } else { 0 };
        !is_gone
    });
    if dropped > 0 {
        waiting.images -= dropped;
        metrics::counter!("dropped_total", "queue" => "tag").increment(dropped as u64);
    }
}

/// One picture of each request in turn, until the batch is full.
fn take(waiting: &mut Waiting, key: &str, most: usize) -> Vec<Taken> {
    let mut batch = Vec::new();
    let mut is_more = true;
    while is_more && batch.len() < most {
        is_more = false;
        for (i, work) in waiting.works.iter_mut().enumerate().filter(|(_, w)| w.key == key) {
            if batch.len() < most
                && let Some((place, input)) = work.images.pop_front()
            {
                batch.push(Taken { work: i, place, input });
                is_more = true;
            }
        }
    }
    waiting.images -= batch.len();
    batch
}

/// Computes a batch and answers the requests that it completes.
fn answer(shared: &Shared, model: &dyn TagModel, batch: Vec<Taken>) {
    // Only this thread takes works out of the list, so their places stay while the lock is free.
    let (places, inputs): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|taken| ((taken.work, taken.place), taken.input)).unzip();
    let start = Instant::now();
    let count = inputs.len();
    let scores = guarded(|| Ok(model.scores(inputs)));
    metrics::histogram!("batch_size", "queue" => "tag").record(count as f64);
    metrics::histogram!("batch_seconds", "queue" => "tag").record(start.elapsed().as_secs_f64());
    let mut waiting = lock(&shared.waiting);
    match scores {
        Ok(scores) if scores.len() == count => {
            for ((work, place), scores) in places.into_iter().zip(scores) {
                let work = &mut waiting.works[work];
                work.answers[place] =
                    Some(scores.and_then(|scores| model.select(&scores, &work.options)));
            }
        }
        other => {
            let error = other.err().unwrap_or_else(|| internal("answers are missing".into()));
            for (work, place) in places {
                waiting.works[work].answers[place] = Some(Err(again(&error)));
            }
        }
    }
    let works = std::mem::take(&mut waiting.works);
    for work in works {
        if work.answers.iter().any(Option::is_none) {
            waiting.works.push_back(work);
        } else {
            metrics::counter!("tagged_images_total").increment(work.answers.len() as u64);
            work.reply.send(Ok(work.answers.into_iter().flatten().collect())).ok();
        }
    }
}

/// Answers all requests for a model that cannot be loaded.
fn refuse(shared: &Shared, key: &str, error: &Error) {
    let mut waiting = lock(&shared.waiting);
    let works = std::mem::take(&mut waiting.works);
    for work in works {
        if work.key == key {
            waiting.images -= work.images.len();
            work.reply.send(Err(again(error))).ok();
        } else {
            waiting.works.push_back(work);
        }
    }
}

/// What `work` gives, with a panic inside of it made an error: the thread goes on.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic_text(&*panic);
        error!("a model broke down: {text}");
        Err(internal(format!("the model broke down: {text}")))
    })
}

fn internal(message: String) -> Error {
    Error::new(ErrorKind::Internal, message)
}

/// The same error for another request.
pub(super) fn again(error: &Error) -> Error {
    let again = Error::new(error.kind(), error.message().to_owned());
    error.context().iter().fold(again, |again, (key, value)| again.with(key, value))
}
