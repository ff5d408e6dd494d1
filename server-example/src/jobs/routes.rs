//! `/tasks`, `/outputs` and `/inputs`, in the documented format.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tagbrush::{Image, ImageFormat};
use utoipa::IntoParams;

use super::files::content_type;
use super::store::{Range, Record};
use super::{Live, Wish};
use crate::error::{ApiError, ApiResult};
use crate::{App, base64url};

/// Longest page.
const MOST_ON_A_PAGE: i64 = 1000;

/// Which jobs are meant.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// `all`, `history`, `current` or `pending`.
    query: Option<String>,
    /// Counted from 0.
    page: Option<i64>,
    /// 10 unless set, at most 1000.
    page_size: Option<i64>,
    /// ISO 8601; local time without an offset. With a range there are no pages.
    start_at: Option<String>,
    /// ISO 8601; now unless set.
    end_at: Option<String>,
    /// `delete`: forget the history of the range, with the pictures that were made.
    action: Option<String>,
}

/// Jobs: those that ended, the one that runs, those that wait.
#[utoipa::path(get, path = "/tasks", tag = "jobs", params(ListQuery),
    responses((status = 200, description = "`{history: [], current: [], pending: []}`"), (status = 400)))]
pub(crate) async fn list(
    State(app): State<App>,
    headers: HeaderMap,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> ApiResult<Json<Value>> {
    let query = query.map_err(|e| ApiError::invalid(e.body_text()))?.0;
    match query.action.as_deref() {
        None | Some("") => {}
        Some("delete") => return delete_in(&app, &query).await,
        Some(_) => return Err(ApiError::field("action", "expected delete")),
    }
    let wanted = query.query.clone().unwrap_or_else(|| "all".to_owned());
    if !["all", "history", "current", "pending"].contains(&wanted.as_str()) {
        return Err(ApiError::field("query", "expected all, history, current or pending"));
    }
    let page = query.page.unwrap_or(0);
    let size = query.page_size.unwrap_or(10);
    if page < 0 {
        return Err(ApiError::field("page", "expected 0 or more"));
    }
    if !(1..=MOST_ON_A_PAGE).contains(&size) {
        return Err(ApiError::field("page_size", format!("expected 1 to {MOST_ON_A_PAGE}")));
    }
    let range = range(&app, &query).await?;
    let is_wanted = |name: &str| wanted == "all" || wanted == name;
    let history = match is_wanted("history") {
        true => app.jobs.with_store(move |store| store.history(range, page, size)).await?,
        false => Vec::new(),
    };
    let open = match is_wanted("current") || is_wanted("pending") {
        true => app.jobs.with_store(|store| store.open_jobs()).await?,
        false => Vec::new(),
    };
    let base = base(&app, &headers);
    let all: Vec<_> = open.iter().map(|record| (record, app.jobs.live(&record.task_id))).collect();
    let is_running = |live: &Option<std::sync::Arc<Live>>| {
        live.as_ref().is_some_and(|live| live.stage.borrow().is_running)
    };
    // The document promises at most one; others of the same run are listed as pending.
    let current = all.iter().position(|(_, live)| is_running(live));
    let view = |i: &usize| {
        let (record, live) = &all[*i];
        view(record, live.as_deref(), &base)
    };
    let currents: Vec<_> = current.iter().filter(|_| is_wanted("current")).map(&view).collect();
    let pending: Vec<_> = (0..all.len())
        .filter(|i| is_wanted("pending") && Some(*i) != current)
        .skip(page.saturating_mul(size) as usize)
        .take(size as usize)
        .map(|i| view(&i))
        .collect();
    let history: Vec<_> = history.iter().map(|record| self::view(record, None, &base)).collect();
    Ok(Json(json!({"history": history, "current": currents, "pending": pending})))
}

/// Forgets jobs of a range that ended, and deletes their pictures.
#[utoipa::path(delete, path = "/tasks", tag = "jobs", params(ListQuery),
    responses((status = 200), (status = 400)))]
pub(crate) async fn delete_range(
    State(app): State<App>,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> ApiResult<Json<Value>> {
    delete_in(&app, &query.map_err(|e| ApiError::invalid(e.body_text()))?.0).await
}

async fn delete_in(app: &App, query: &ListQuery) -> ApiResult<Json<Value>> {
    if query.query.as_deref().is_some_and(|query| query != "history") {
        return Err(ApiError::field("query", "only the history can be deleted"));
    }
    let range = range(app, query).await?;
    if range.start.is_none() && range.end.is_none() {
        return Err(ApiError::field("start_at", "what is deleted needs a range"));
    }
    let own = app.clone();
    app.jobs
        .with_store(move |store| {
            let gone = store.delete_range(range)?;
            gone.iter().for_each(|record| own.jobs.files.delete_outputs(&record.result));
            Ok(())
        })
        .await?;
    Ok(Json(json!({"history": [], "current": [], "pending": []})))
}

async fn range(app: &App, query: &ListQuery) -> ApiResult<Range> {
    let mut range = Range::default();
    let ends = [("start_at", &query.start_at), ("end_at", &query.end_at)];
    for ((name, text), end) in ends.into_iter().zip([&mut range.start, &mut range.end]) {
        if let Some(text) = text {
            let own = text.clone();
            let millis = app.jobs.with_store(move |store| store.millis(&own)).await?;
            let wrong = || ApiError::field(name, "expected a time such as 2024-07-03T12:22:30");
            *end = Some(millis.ok_or_else(wrong)?);
        }
    }
    Ok(range)
}

/// One job.
#[utoipa::path(get, path = "/tasks/{id}", tag = "jobs", params(("id" = String, Path)),
    responses((status = 200, description = "the job; with `preview` while it runs"), (status = 404)))]
pub(crate) async fn one(
    State(app): State<App>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    let record = find(&app, &id).await?;
    let live = app.jobs.live(&id);
    Ok(Json(view(&record, live.as_deref(), &base(&app, &headers))))
}

/// Forgets a job that ended, with its pictures; cancels one that did not.
#[utoipa::path(delete, path = "/tasks/{id}", tag = "jobs", params(("id" = String, Path)),
    responses((status = 200), (status = 404)))]
pub(crate) async fn delete_one(
    State(app): State<App>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    let own = id.clone();
    match app.jobs.with_store(move |store| store.delete(&own)).await? {
        Some(record) => {
            app.jobs.files.delete_outputs(&record.result);
            Ok(Json(view(&record, None, &base(&app, &headers))))
        }
        None => cancel(State(app), headers, Path(id)).await,
    }
}

/// Cancels a job: one that waits at once, one that runs after its step.
#[utoipa::path(post, path = "/tasks/{id}/cancel", tag = "jobs", params(("id" = String, Path)),
    responses((status = 200, description = "the job as it is now"), (status = 404)))]
pub(crate) async fn cancel(
    State(app): State<App>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> ApiResult<Json<Value>> {
    let record = find(&app, &id).await?;
    if record.finish_mills.is_none() {
        match app.jobs.live(&id) {
            Some(live) => {
                live.wish.send_replace(Wish::Cancel);
                live.leaver.leave();
            }
            // Left by an earlier server, and not taken up for want of a model.
            None => {
                let (own, now) = (id.clone(), crate::ids::now_millis());
                app.jobs
                    .with_store(move |store| store.finish(&own, "canceled", &[], None, now))
                    .await?;
            }
        }
    }
    let live = app.jobs.live(&id);
    Ok(Json(view(&find(&app, &id).await?, live.as_deref(), &base(&app, &headers))))
}

async fn find(app: &App, id: &str) -> ApiResult<Record> {
    let own = id.to_owned();
    let found = app.jobs.with_store(move |store| store.get(&own)).await?;
    found.ok_or_else(|| ApiError::not_found("There is no such task"))
}

/// A job as the document shows it: not begun, running, or ended.
pub(crate) fn view(record: &Record, live: Option<&Live>, base: &str) -> Value {
    let mut params: Value = serde_json::from_str(&record.req_params).unwrap_or_default();
    for picture in kept(&mut params) {
        if let Some(path) = picture.as_str().filter(|path| !path.is_empty()) {
            *picture = json!(format!("{base}/{path}"));
        }
    }
    let mut view = json!({
        "id": -1,
        "task_id": record.task_id,
        "req_params": params,
        "in_queue_mills": record.in_queue_mills,
        "start_mills": null,
        "finish_mills": null,
        "task_status": null,
        "progress": null,
        "webhook_url": record.webhook_url,
        "result": null,
    });
    let stage = live.map(|live| live.stage.borrow().clone()).filter(|stage| stage.is_running);
    if record.finish_mills.is_some() {
        let links = record.result.iter().map(|path| format!("{base}/outputs/{path}"));
        view["id"] = json!(record.id);
        view["start_mills"] = json!(record.start_mills);
        view["finish_mills"] = json!(record.finish_mills);
        view["task_status"] = json!(record.task_status);
        let is_finished = record.task_status.as_deref() == Some("finished");
        view["progress"] = if is_finished { json!(100) } else { Value::Null };
        view["result"] = links.collect();
    } else if let (Some(stage), Some(live)) = (stage, live) {
        let preview = stage.preview.filter(|_| live.has_previews).and_then(|preview| {
            let image = Image::from_rgb8(preview.width, preview.height, &*preview.pixels).ok()?;
            Some(base64url::encode(&image.encode(ImageFormat::Png).ok()?))
        });
        view["start_mills"] = json!(live.start_mills.load(Ordering::SeqCst));
        view["finish_mills"] = json!(-1);
        view["task_status"] = json!("running");
        view["progress"] = json!((stage.done * 100.0).round() as i64);
        view["preview"] = json!(preview.unwrap_or_default());
        view["result"] = json!([]);
    }
    if let Some(message) = &record.message {
        view["message"] = json!(message);
    }
    view
}

/// The parameters that are pictures, of whatever kind of job.
fn kept(params: &mut Value) -> impl Iterator<Item = &mut Value> {
    let fields = params.as_object_mut().into_iter().flatten();
    let fields = fields.filter(|(name, _)| {
        name.as_str() == "images" || crate::generate::params::PICTURES.contains(&name.as_str())
    });
    fields.flat_map(|(_, value)| match value {
        Value::Array(all) => all.iter_mut().collect::<Vec<_>>(),
        one => vec![one],
    })
}

/// Where links lead: as configured, else where the client found this server.
pub(crate) fn base(app: &App, headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let plain =
        |host: &&str| host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    match (&app.config.public_url, host.filter(plain)) {
        (Some(url), _) => url.clone(),
        (None, Some(host)) => format!("http://{host}"),
        (None, None) => format!("http://{}", app.config.address()),
    }
}

/// A picture that was made.
pub(crate) async fn output(
    State(app): State<App>,
    Path((day, file)): Path<(String, String)>,
) -> ApiResult<Response> {
    let (own, name) = (app.clone(), file.clone());
    picture(&file, move || own.jobs.files.output(&day, &name)).await
}

/// A picture that a job was given.
pub(crate) async fn input(State(app): State<App>, Path(file): Path<String>) -> ApiResult<Response> {
    let (own, name) = (app.clone(), file.clone());
    picture(&file, move || own.jobs.files.input(&name)).await
}

async fn picture(
    name: &str,
    read: impl FnOnce() -> std::io::Result<Vec<u8>> + Send + 'static,
) -> ApiResult<Response> {
    let missing = || ApiError::not_found("There is no such picture");
    let kind = name.rsplit_once('.').and_then(|(_, end)| content_type(end)).ok_or_else(missing)?;
    let bytes = tokio::task::spawn_blocking(read).await.map_err(|_| missing())?;
    let bytes = bytes.map_err(|_| missing())?;
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "private, max-age=3600")];
    Ok((headers, bytes).into_response())
}
