//! Stopping and skipping, and what requests may name.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::params::Params;
use crate::App;
use crate::error::{ApiError, ApiResult};
use crate::jobs::{Live, Spec, Wish};

/// What is wanted.
#[derive(Deserialize, IntoParams)]
pub(crate) struct Action {
    /// `stop` ends the running task with the pictures that it has; `skip` leaves out the one that it
    /// makes.
    action: Option<String>,
}

/// Stops the running task, or skips its picture.
#[utoipa::path(post, path = "/v1/engine/control", tag = "generate", params(Action),
    responses((status = 200, description = "`{message}` says what was done"), (status = 422)))]
pub(crate) async fn control(
    State(app): State<App>,
    query: Result<Query<Action>, QueryRejection>,
) -> ApiResult<Json<Value>> {
    let action = query.ok().and_then(|Query(query)| query.action).ok_or_else(|| {
        let missing = json!({"type": "missing", "loc": ["query", "action"], "msg": "Field required",
            "input": null});
        ApiError::fields(vec![missing])
    })?;
    // The document's own words and spelling.
    let message = match (action.as_str(), current(&app).await?) {
        ("stop" | "skip", None) => "No task running",
        ("stop", Some(live)) => {
            live.wish.send_replace(Wish::Stop);
            live.leaver.leave();
            "task stoped"
        }
        ("skip", Some(live)) => {
            live.leaver.skip();
            "task skiped"
        }
        _ => "Invalid control action",
    };
    Ok(Json(json!({"message": message})))
}

/// The task that runs, the oldest if several share a run.
async fn current(app: &App) -> ApiResult<Option<Arc<Live>>> {
    let open = app.jobs.with_store(|store| store.open_jobs()).await?;
    let own = open.iter().filter(|record| record.kind == Params::KIND);
    let mut live = own.filter_map(|record| app.jobs.live(&record.task_id));
    Ok(live.find(|live| live.stage.borrow().is_running))
}

/// Files that requests may name as models and LoRAs, as they are now.
#[utoipa::path(get, path = "/v1/engines/all-models", tag = "generate",
    responses((status = 200, description = "`{model_filenames, lora_filenames}`")))]
pub(crate) async fn all_models(State(app): State<App>) -> ApiResult<Json<Value>> {
    let default = app.generator.model().ok().map(|model| model.facts().name.clone());
    let listed = tokio::task::spawn_blocking(move || {
        let library = &app.config.library;
        let mut models = library.model_names();
        // The one that is taken unless another one is named need not lie in the folder.
        if let Some(default) = default.filter(|default| !models.contains(default)) {
            models.insert(0, default);
        }
        json!({"model_filenames": models, "lora_filenames": library.lora_names()})
    });
    listed.await.map(Json).map_err(|_| ApiError::internal("the folders could not be read"))
}

/// Styles that requests may name.
#[utoipa::path(get, path = "/v1/engines/styles", tag = "generate",
    responses((status = 200, description = "a list of names")))]
pub(crate) async fn styles(State(app): State<App>) -> ApiResult<Json<Value>> {
    let listed = tokio::task::spawn_blocking(move || {
        app.config.library.prompter().map(|prompter| json!(prompter.style_names()))
    });
    let listed = listed.await.map_err(|_| ApiError::internal("the folders could not be read"))?;
    listed.map(Json).map_err(|error| ApiError::generation(&error))
}
