//! From an accepted job to its pictures: the trip of a job, and of one that an earlier server left.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::{Value, json};
use tagbrush::ErrorKind;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::outputs::{Job, Outputs};
use super::store::{New, Record};
use super::{Ended, Live, Spec, Wish};
use crate::App;
use crate::edits::spec::EditSpec;
use crate::engine::Health;
use crate::engine::queue::Handle;
use crate::error::{ApiError, ApiResult};
use crate::generate::params::Params;
use crate::ids::{new_id, now_millis};

/// A job that ended the server this often is not tried again.
const MOST_ATTEMPTS: i64 = 3;

/// How a job ended.
enum End {
    Finished(Vec<String>),
    Stopped(Vec<String>),
    Failed(ApiError),
    Cancelled,
    /// The server stops: the next one takes it up.
    Left,
}

/// A job that was accepted. If somebody must wait for it, it is cancelled when this is dropped.
pub(crate) struct Accepted {
    pub(crate) id: String,
    pub(crate) live: Arc<Live>,
    is_attended: bool,
}

impl Accepted {
    /// The documented answer.
    pub(crate) fn pending(&self, webhook: &str) -> Value {
        json!({
            "id": -1, "task_id": self.id, "req_params": {}, "in_queue_mills": -1, "start_mills": -1,
            "finish_mills": -1, "task_status": "pending", "progress": -1, "preview": "",
            "webhook_url": webhook, "result": [],
        })
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self) -> Ended {
        let mut ended = self.live.ended.subscribe();
        let found = ended.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone());
        found.unwrap_or_else(|| Ended::failed(ApiError::stopping()))
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        if self.is_attended && self.live.ended.borrow().is_none() {
            self.live.wish.send_replace(Wish::Cancel);
            self.live.leaver.leave();
        }
    }
}

impl Ended {
    fn failed(error: ApiError) -> Self {
        Self { status: "failed", paths: Vec::new(), error: Some(error) }
    }
}

/// Accepts a job. `message` says what is done in another way than the document has it.
pub(crate) async fn accept<S: Spec>(
    app: &App,
    spec: S,
    pictures: Vec<Vec<u8>>,
    webhook: String,
    message: Option<String>,
) -> ApiResult<Accepted> {
    if !webhook.is_empty() {
        let wrong = |why| S::wrong_webhook(&webhook, why);
        crate::webhook::check(&app.config, &webhook).map_err(wrong)?;
    }
    // A task of its own: a client that goes now does not leave a row behind that nobody follows.
    let accepted = tokio::spawn(accept_whole(app.clone(), spec, pictures, webhook, message)).await;
    accepted.map_err(|_| ApiError::internal("the job could not be accepted"))?
}

/// Puts a job into its queue, off the threads that answer everybody: files may be looked for.
async fn queued<S: Spec>(
    app: &App,
    spec: S,
    pictures: Vec<Vec<u8>>,
    was_accepted: bool,
) -> ApiResult<(S, Handle)> {
    let app = app.clone();
    let work = move || spec.push(&app, pictures, was_accepted).map(|handle| (spec, handle));
    let queued = tokio::task::spawn_blocking(work).await;
    queued.map_err(|_| ApiError::internal("the job could not be queued"))?
}

async fn accept_whole<S: Spec>(
    app: App,
    spec: S,
    pictures: Vec<Vec<u8>>,
    webhook: String,
    message: Option<String>,
) -> ApiResult<Accepted> {
    let id = new_id();
    // The place in the queue comes first: a job that has none is refused before anything is written.
    // What is made before the row is there waits in the handle.
    let (mut spec, handle) = queued(&app, spec, pictures.clone(), false).await?;
    let count = pictures.len();
    let written = app.jobs.with_store({
        let (app, id) = (app.clone(), id.clone());
        move |store| {
            let keep = |picture: &Vec<u8>| {
                let kept = app.jobs.files.keep_input(picture);
                let name =
                    kept.map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
                Ok(format!("inputs/{name}"))
            };
            spec.keep(pictures.iter().map(keep).collect::<rusqlite::Result<_>>()?);
            let params = serde_json::to_string(&spec).unwrap_or_default();
            let message = message.as_deref();
            let job = New { id: &id, kind: S::KIND, params: &params, webhook: &webhook, message };
            store.insert(&job, now_millis())?;
            Ok(spec)
        }
    });
    let spec = written.await?;
    info!(task = %id, "a job is accepted");
    let live = follow(&app, &id, &spec, handle, count)?;
    Ok(Accepted { id, live, is_attended: spec.is_attended() })
}

/// Takes up the jobs that an earlier server accepted and did not end.
pub(crate) fn resume(app: &App) {
    let own = app.clone();
    app.jobs.spawn(async move {
        match own.jobs.with_store(|store| Ok((store.open_jobs()?, store.webhooks_due()?))).await {
            Ok((jobs, due)) => {
                for record in due {
                    own.jobs.spawn(crate::webhook::tell(own.clone(), record.task_id));
                }
                if !jobs.is_empty() {
                    info!("{} jobs of an earlier server are taken up", jobs.len());
                }
                for record in jobs {
                    match record.kind.as_str() {
                        EditSpec::KIND => take_up::<EditSpec>(&own, record).await,
                        Params::KIND => take_up::<Params>(&own, record).await,
                        kind => warn!(task = %record.task_id, "a job of an unknown kind: {kind}"),
                    }
                }
            }
            Err(error) => error!("jobs of an earlier server were not read: {}", error.message),
        }
    });
}

async fn take_up<S: Spec>(app: &App, record: Record) {
    let id = record.task_id.clone();
    if record.attempts >= MOST_ATTEMPTS {
        let why = format!("the server ended {} times while it worked on this", record.attempts);
        return over(app, &id, End::Failed(ApiError::internal(why))).await;
    }
    // Without its model a job stays where it is.
    while S::health(app).get() == Health::Loading && !app.jobs.is_stopping() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    if S::health(app).check().is_err() {
        return warn!(task = %id, "a job waits for a server with a model for it");
    }
    let read = app
        .jobs
        .with_store({
            let app = app.clone();
            move |_| Ok(restored::<S>(&app, &record.req_params))
        })
        .await;
    let (spec, pictures) = match read {
        Ok(Ok(read)) => read,
        Ok(Err(why)) => return over(app, &id, End::Failed(ApiError::internal(why))).await,
        Err(error) => return warn!(task = %id, "a job stays where it is: {}", error.message),
    };
    if spec.is_attended() {
        // Who waited for it is gone with the server.
        return over(app, &id, End::Cancelled).await;
    }
    let count = pictures.len();
    let followed = queued(app, spec, pictures, true)
        .await
        .and_then(|(spec, handle)| follow(app, &id, &spec, handle, count).map(drop));
    match followed {
        Ok(()) => {}
        Err(error) if error.status.is_client_error() => over(app, &id, End::Failed(error)).await,
        Err(error) => warn!(task = %id, "a job stays where it is: {}", error.message),
    }
}

/// What a row says, with the pictures that were kept.
fn restored<S: Spec>(app: &App, params: &str) -> std::result::Result<(S, Vec<Vec<u8>>), String> {
    let spec: S =
        serde_json::from_str(params).map_err(|e| format!("its parameters cannot be read: {e}"))?;
    let pictures = spec.kept().into_iter().map(|path| {
        let name = path.strip_prefix("inputs/").unwrap_or(path);
        app.jobs.files.input(name).map_err(|e| format!("its input {path} cannot be read: {e}"))
    });
    let pictures = pictures.collect::<std::result::Result<Vec<_>, _>>()?;
    Ok((spec, pictures))
}

/// Follows a job to its end.
fn follow<S: Spec>(
    app: &App,
    id: &str,
    spec: &S,
    mut handle: Handle,
    pictures: usize,
) -> ApiResult<Arc<Live>> {
    let live = Arc::new(Live {
        stage: handle.stage.clone(),
        leaver: handle.leaver(),
        has_previews: spec.has_previews(),
        start_mills: AtomicI64::new(-1),
        wish: watch::Sender::default(),
        done: watch::Sender::default(),
        ended: watch::Sender::default(),
    });
    let job = Job::new(id, spec, pictures)?;
    app.jobs.add_live(id, Arc::clone(&live));
    let (own, live_of) = (app.clone(), Arc::clone(&live));
    app.jobs.spawn(async move {
        let how = made(&own, &job, &mut handle, &live_of).await;
        let ended = match &how {
            End::Finished(paths) => Ended { status: "finished", paths: paths.clone(), error: None },
            End::Stopped(paths) => Ended { status: "stop", paths: paths.clone(), error: None },
            End::Cancelled => Ended { status: "canceled", paths: Vec::new(), error: None },
            End::Failed(error) => Ended::failed(error.clone()),
            End::Left => Ended::failed(ApiError::stopping()),
        };
        over(&own, &job.id, how).await;
        // In this order: whoever hears of the end finds it in the database.
        own.jobs.remove_live(&job.id);
        live_of.ended.send_replace(Some(ended));
    });
    Ok(live)
}

async fn made(app: &App, job: &Job, handle: &mut Handle, live: &Live) -> End {
    let mut made = Outputs::new(app, job);
    let mut is_begun = false;
    let (stage, results) = (&mut handle.stage, &mut handle.outputs);
    let mut wish = live.wish.subscribe();
    for done in 1..=job.outputs {
        let output = loop {
            tokio::select! {
                biased;
                // At once, whatever else is made in the same run.
                wish = async { wish.wait_for(|wish| *wish != Wish::None).await.map(|wish| *wish) } => {
                    if !matches!(wish, Ok(Wish::Stop)) {
                        return End::Cancelled;
                    }
                    // Those that are there already are kept.
                    while let Ok((index, picture)) = results.try_recv() {
                        // Those that were skipped are not.
                        let Ok(picture) = picture else { continue };
                        if let Err(Some(error)) = made.add(index, Ok(picture)).await {
                            return End::Failed(error);
                        }
                    }
                    return made.all().await.map_or_else(End::Failed, End::Stopped);
                }
                began = async { stage.wait_for(|stage| stage.is_running).await.is_ok() }, if !is_begun => {
                    is_begun = true;
                    if began {
                        let now = now_millis();
                        live.start_mills.store(now, Ordering::SeqCst);
                        let own = job.id.clone();
                        app.jobs.with_store(move |store| store.begin(&own, now)).await.ok();
                    }
                }
                output = results.recv() => break output,
            }
        };
        match output {
            // Cancelled while the server goes on: it was skipped.
            Some((_, Err(error)))
                if error.kind() == ErrorKind::Cancelled && !app.jobs.is_stopping() => {}
            Some((index, picture)) => match made.add(index, picture).await {
                Ok(()) => {}
                Err(None) => return End::Left,
                Err(Some(error)) => return End::Failed(error),
            },
            None if app.jobs.is_stopping() => return End::Left,
            None => {
                return End::Failed(ApiError::internal("the engine gave no answer"));
            }
        }
        live.done.send_replace(done);
    }
    made.all().await.map_or_else(End::Failed, End::Finished)
}

async fn over(app: &App, id: &str, how: End) {
    let (status, result, message) = match how {
        End::Finished(paths) => ("finished", paths, None),
        End::Stopped(paths) => ("stop", paths, None),
        End::Failed(error) => ("failed", Vec::new(), Some(error.message)),
        End::Cancelled => ("canceled", Vec::new(), None),
        End::Left => return info!(task = %id, "a job is left to the next server"),
    };
    info!(task = %id, status, message, "a job ended");
    metrics::counter!("jobs_total", "status" => status).increment(1);
    let (own, files_of) = (id.to_owned(), app.clone());
    let ended = app
        .jobs
        .with_store(move |store| {
            store.finish(&own, status, &result, message.as_deref(), now_millis())?;
            let record = store.get(&own)?;
            if let Some(record) = &record {
                let day = store.day(record.in_queue_mills)?;
                files_of.jobs.files.delete_of(&day, &own, &record.result);
            }
            Ok(record)
        })
        .await;
    if let Ok(Some(record)) = ended
        && record.webhook_due
    {
        app.jobs.spawn(crate::webhook::tell(app.clone(), record.task_id));
    }
}
