//! From an accepted job to its pictures: the trip of a job, and of one that an earlier server left.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde_json::{Value, json};
use tagbrush::{ErrorKind, Result};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::Live;
use super::store::Record;
use crate::App;
use crate::edits::spec::EditSpec;
use crate::engine::editing::{Edit, Handle};
use crate::engine::models::Picture;
use crate::error::{ApiError, ApiResult};
use crate::ids::{new_id, now_millis};

/// A job that ended the server this often is not tried again.
const MOST_ATTEMPTS: i64 = 3;

/// How a job ended.
enum End {
    Finished(Vec<String>),
    Failed(String),
    Cancelled,
    /// The server stops: the next one takes it up.
    Left,
}

/// Accepts an edit as a job, and gives the documented answer.
pub(crate) async fn accept(
    app: &App,
    spec: EditSpec,
    images: Vec<Vec<u8>>,
    webhook: String,
) -> ApiResult<Value> {
    if !webhook.is_empty() {
        crate::webhook::check(&app.config, &webhook)?;
    }
    // A task of its own: a client that goes now does not leave a row behind that nobody follows.
    let accepted = tokio::spawn(accept_whole(app.clone(), spec, images, webhook)).await;
    accepted.map_err(|_| ApiError::internal("the job could not be accepted"))?
}

async fn accept_whole(
    app: App,
    mut spec: EditSpec,
    images: Vec<Vec<u8>>,
    webhook: String,
) -> ApiResult<Value> {
    let outputs = spec.outputs(images.len());
    let edit = Edit {
        requests: spec.requests(images.clone()),
        options: spec.options()?,
        wants_previews: true,
    };
    let id = new_id();
    // The place in the queue comes first: a job that has none is refused before anything is written.
    // What is made before the row is there waits in the handle.
    let handle = app.edits.push(edit)?;
    let written = app.jobs.with_store({
        let (app, id, webhook) = (app.clone(), id.clone(), webhook.clone());
        move |store| {
            for image in &images {
                let kept = app.jobs.files.keep_input(image);
                let name =
                    kept.map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
                spec.images.push(format!("inputs/{name}"));
            }
            let params = serde_json::to_string(&spec).unwrap_or_default();
            store.insert(&id, &params, now_millis(), &webhook)?;
            Ok(spec)
        }
    });
    let spec = written.await?;
    app.jobs.spawn(follow(app.clone(), id.clone(), spec, handle, outputs));
    info!(task = %id, "a job is accepted");
    Ok(json!({
        "id": -1, "task_id": id, "req_params": {}, "in_queue_mills": -1, "start_mills": -1,
        "finish_mills": -1, "task_status": "pending", "progress": -1, "preview": "",
        "webhook_url": webhook, "result": [],
    }))
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
                    wait_for_model(&own).await;
                }
                for record in jobs {
                    take_up(&own, record).await;
                }
            }
            Err(error) => error!("jobs of an earlier server were not read: {}", error.message),
        }
    });
}

/// Waits while the edit model is being loaded. Without it jobs stay where they are.
async fn wait_for_model(app: &App) {
    use crate::engine::Health;
    while app.edits.health().get() == Health::Loading && !app.jobs.is_stopping() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn take_up(app: &App, record: Record) {
    let id = record.task_id.clone();
    if record.attempts >= MOST_ATTEMPTS {
        let why = format!("the server ended {} times while it worked on this", record.attempts);
        return end(app, &id, End::Failed(why)).await;
    }
    if app.edits.model().is_err() {
        return warn!(task = %id, "a job waits for a server with an edit model");
    }
    let read = app
        .jobs
        .with_store({
            let app = app.clone();
            move |_| Ok(restored(&app, &record.req_params))
        })
        .await;
    match read {
        Ok(Ok((spec, edit))) => match app.edits.push_accepted(edit) {
            Ok(handle) => {
                let outputs = spec.outputs(spec.images.len());
                app.jobs.spawn(follow(app.clone(), id, spec, handle, outputs));
            }
            Err(error) => warn!(task = %id, "a job stays where it is: {}", error.message),
        },
        Ok(Err(why)) => end(app, &id, End::Failed(why)).await,
        Err(error) => warn!(task = %id, "a job stays where it is: {}", error.message),
    }
}

/// The edit of a row.
fn restored(app: &App, params: &str) -> std::result::Result<(EditSpec, Edit), String> {
    let spec: EditSpec =
        serde_json::from_str(params).map_err(|e| format!("its parameters cannot be read: {e}"))?;
    let images = spec.images.iter().map(|path| {
        let name = path.strip_prefix("inputs/").unwrap_or(path);
        app.jobs.files.input(name).map_err(|e| format!("its input {path} cannot be read: {e}"))
    });
    let images = images.collect::<std::result::Result<Vec<_>, _>>()?;
    let options = spec.options().map_err(|e| e.message)?;
    let edit = Edit { requests: spec.requests(images), options, wants_previews: true };
    Ok((spec, edit))
}

/// Follows a job to its end.
async fn follow(app: App, id: String, spec: EditSpec, mut handle: Handle, outputs: usize) {
    let live = Arc::new(Live {
        stage: handle.stage.clone(),
        leaver: handle.leaver(),
        start_mills: AtomicI64::new(-1),
        cancelled: watch::Sender::new(false),
    });
    app.jobs.add_live(&id, Arc::clone(&live));
    let how = made(&app, &id, &spec, &mut handle, outputs, &live).await;
    end(&app, &id, how).await;
    app.jobs.remove_live(&id);
}

async fn made(
    app: &App,
    id: &str,
    spec: &EditSpec,
    handle: &mut Handle,
    outputs: usize,
    live: &Live,
) -> End {
    let mut paths = Vec::with_capacity(outputs);
    let mut is_begun = false;
    let (stage, results) = (&mut handle.stage, &mut handle.outputs);
    let mut cancelled = live.cancelled.subscribe();
    while paths.len() < outputs {
        let output = tokio::select! {
            biased;
            // At once, whatever else is made in the same run.
            () = async { drop(cancelled.wait_for(|is| *is).await) } => return End::Cancelled,
            began = async { stage.wait_for(|stage| stage.is_running).await.is_ok() }, if !is_begun => {
                is_begun = true;
                if began {
                    let now = now_millis();
                    live.start_mills.store(now, Ordering::SeqCst);
                    let own = id.to_owned();
                    app.jobs.with_store(move |store| store.begin(&own, now)).await.ok();
                }
                continue;
            }
            output = results.recv() => output,
        };
        match output {
            Some((index, picture)) => match written(app, id, spec, index, picture).await {
                Ok(path) => paths.push(path),
                Err(None) => return End::Left,
                Err(Some(why)) => return End::Failed(why),
            },
            None if app.jobs.is_stopping() => return End::Left,
            None => return End::Failed("the engine gave no answer".to_owned()),
        }
    }
    End::Finished(paths)
}

/// Writes an output. `None` as the error: it was not made because the server stops.
async fn written(
    app: &App,
    id: &str,
    spec: &EditSpec,
    index: usize,
    picture: Result<Picture>,
) -> std::result::Result<String, Option<String>> {
    let picture = match picture {
        Ok(picture) => picture,
        Err(error) if error.kind() == ErrorKind::Cancelled && app.jobs.is_stopping() => {
            return Err(None);
        }
        Err(error) => return Err(Some(ApiError::generation(&error).message)),
    };
    let format = spec.format().map_err(|error| Some(error.message))?;
    let (app_of, id) = (app.clone(), id.to_owned());
    let work = move || {
        let bytes = picture.image.encode(format).map_err(|error| error.to_string())?;
        let store = &app_of.jobs.store;
        let record = store.get(&id).map_err(|e| e.to_string())?.ok_or("its row is gone")?;
        let day = store.day(record.in_queue_mills).map_err(|e| e.to_string())?;
        let written = app_of.jobs.files.write_output(&day, &id, index, format, &bytes);
        written.map_err(|e| format!("cannot write a picture: {e}"))
    };
    let written = tokio::task::spawn_blocking(work).await;
    written.map_err(|e| Some(e.to_string()))?.map_err(Some)
}

async fn end(app: &App, id: &str, how: End) {
    let (status, result, message) = match how {
        End::Finished(paths) => ("finished", paths, None),
        End::Failed(why) => ("failed", Vec::new(), Some(why)),
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
            if let Some(record) = record.as_ref().filter(|record| record.result.is_empty()) {
                files_of.jobs.files.delete_of(&store.day(record.in_queue_mills)?, &own);
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
