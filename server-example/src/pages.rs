//! What is not about pictures: health, models, metrics, the web page, and answers to strangers.

use std::any::Any;
use std::sync::{Mutex, OnceLock};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde_json::{Value, json};

use crate::App;
use crate::engine::{Health, lock, panic_text};
use crate::error::{ApiError, ApiResult};

const PAGE: &str = include_str!("../assets/index.html");
const DOCS: &str = include_str!("../assets/docs.html");
const ASSETS: [(&str, &str, &str); 5] = [
    ("page.js", "text/javascript; charset=utf-8", include_str!("../assets/page.js")),
    ("generate.js", "text/javascript; charset=utf-8", include_str!("../assets/generate.js")),
    ("docs.js", "text/javascript; charset=utf-8", include_str!("../assets/docs.js")),
    ("style.css", "text/css; charset=utf-8", include_str!("../assets/style.css")),
    ("icon.svg", "image/svg+xml", include_str!("../assets/icon.svg")),
];
/// Nothing from elsewhere, no inline scripts; pictures also out of memory.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The process runs.
#[utoipa::path(get, path = "/health", tag = "server", responses((status = 200)))]
pub(crate) async fn health() -> Json<Value> {
    Json(json!({"status": "healthy"}))
}

/// The models work: each that was asked for has made a forward pass.
#[utoipa::path(get, path = "/ready", tag = "server", responses((status = 200), (status = 503)))]
pub(crate) async fn ready(State(app): State<App>) -> Response {
    let (tag, edit, generate) = (app.tags.health(), app.edits.health(), app.generator.health());
    let is_fine = |health: Health, is_required: bool| match health {
        Health::Ready(_) => true,
        Health::Failed(_) => !is_required,
        Health::Loading => false,
    };
    let is_ready = is_fine(tag.get(), true)
        && is_fine(edit.get(), app.config.edit_is_required)
        && is_fine(generate.get(), app.config.generate_is_required);
    let (status, word) = match is_ready {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    let body = json!({"status": word, "tagger": tag.json(), "edit": edit.json(),
        "generate": generate.json()});
    let mut response = (status, Json(body)).into_response();
    if !is_ready {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

/// Models, as OpenAI lists them.
#[utoipa::path(get, path = "/v1/models", tag = "server", responses((status = 200)))]
pub(crate) async fn models(State(app): State<App>) -> Json<Value> {
    let model = |id: &str, task: &str| json!({"id": id, "object": "model", "created": 0, "owned_by": "tagbrush", "task": task});
    let mut data: Vec<_> = app.config.taggers.iter().map(|(id, _)| model(id, "tag")).collect();
    if matches!(app.edits.health().get(), Health::Ready(_)) {
        let names = [crate::edits::MODEL].into_iter().map(str::to_owned);
        data.extend(names.chain(app.config.edit_names.clone()).map(|id| model(&id, "edit")));
    }
    if let Ok(generator) = app.generator.model() {
        data.push(model(&generator.facts().name, "generate"));
    }
    Json(json!({"object": "list", "data": data}))
}

/// Counters in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "server",
    responses((status = 200, content_type = "text/plain")))]
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    app.metrics.run_upkeep();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], app.metrics.render()).into_response()
}

/// The recorder of the process, made once.
pub(crate) fn metrics_recorder() -> Result<PrometheusHandle, String> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = lock(&MAKING);
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let seconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];
    let sizes = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &seconds)
        .and_then(|b| b.set_buckets_for_metric(Matcher::Full("batch_size".into()), &sizes))
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|e| format!("no metrics: {e}"))?;
    Ok(HANDLE.get_or_init(|| handle).clone())
}

/// The web page.
pub(crate) async fn page() -> Response {
    html(PAGE)
}

/// The documentation page.
pub(crate) async fn docs() -> Response {
    html(DOCS)
}

fn html(text: &'static str) -> Response {
    let kind = (header::CONTENT_TYPE, "text/html; charset=utf-8");
    ([kind, (header::CONTENT_SECURITY_POLICY, POLICY)], text).into_response()
}

/// What the pages consist of.
pub(crate) async fn asset(Path(file): Path<String>) -> ApiResult<Response> {
    let found = ASSETS.iter().find(|(name, ..)| *name == file);
    let (_, kind, text) = found.ok_or_else(|| ApiError::not_found("There is no such page"))?;
    Ok(([(header::CONTENT_TYPE, *kind)], *text).into_response())
}

pub(crate) async fn no_such_page() -> ApiError {
    ApiError::not_found("There is no such page")
}

pub(crate) async fn no_such_method() -> ApiError {
    let error = ApiError::invalid("This method is not for this page");
    ApiError { status: StatusCode::METHOD_NOT_ALLOWED, ..error }
}

/// The answer when a handler broke down. What it said stays in the log.
pub(crate) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    tracing::error!("a handler broke down: {}", panic_text(&*panic));
    ApiError::internal("the server broke down on this request").into_response()
}
