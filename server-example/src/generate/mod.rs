//! `POST /v1/engine/generate/` and what belongs to it: the documented API for pictures out of prompts.
//!
//! ```text
//! read, params, pictures, presets    JSON into parameters, all that is wrong named at once
//! refused                            what is known and cannot be done yet
//! library                            files that requests may name
//! plan                               parameters into requests to the library
//! stream                             progress as events
//! control                            stop, skip, names of models and styles
//! ```

pub mod control;
pub mod library;
pub(crate) mod params;
mod pictures;
mod plan;
mod presets;
mod read;
mod refused;
mod stream;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tagbrush::{DecodeOptions, Error, ImageFormat, Limits, MetadataScheme, parse_aspect_ratio};
use utoipa::ToSchema;

use crate::engine::HealthCell;
use crate::engine::generating::ModelFacts;
use crate::engine::queue::Handle;
use crate::error::{ApiError, ApiResult, wrong};
use crate::jobs::files::content_type;
use crate::jobs::routes::base;
use crate::jobs::{Spec, runner};
use crate::{App, ids};
use library::DEFAULT_LORA;
use params::{INPAINT_ENGINE, LoraParam, NONE, Params, SIZE};
use pictures::Pictures;
use plan::Known;
use read::Reader;

/// The most important parameters; `docs/fooocus-parameters.md` has all of them. Unknown ones are ignored.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a body of JSON")]
pub(crate) struct GenerateBody {
    /// What is to be seen.
    prompt: Option<String>,
    negative_prompt: Option<String>,
    style_selections: Option<Vec<String>>,
    /// `Quality`, `Speed`, `Extreme Speed`, `Lightning` or `Hyper-SD`.
    performance_selection: Option<String>,
    /// `WIDTH*HEIGHT`; the model's own size unless set.
    aspect_ratios_selection: Option<String>,
    /// 1 to 32.
    image_number: Option<u8>,
    /// -1 draws one.
    image_seed: Option<i64>,
    /// A file below `checkpoints`.
    base_model_name: Option<String>,
    /// `png`, `jpeg` or `webp`.
    output_format: Option<String>,
    /// Answer at once with a task; see `/tasks/{id}`.
    async_process: Option<bool>,
    /// Server-sent events.
    stream_output: Option<bool>,
    webhook_url: Option<String>,
}

/// Makes pictures out of a prompt. Answered with events, a task, or else one picture.
#[utoipa::path(
    post, path = "/v1/engine/generate/", tag = "generate",
    request_body(content = GenerateBody, content_type = "application/json"),
    responses(
        (status = 200, description = "a picture; with `async_process` a task, with `stream_output` events"),
        (status = 204, description = "the only picture was skipped or stopped"),
        (status = 422, description = "`detail` lists what is wrong with which field"),
        (status = 429, description = "QUEUE_FULL, with Retry-After"),
        (status = 503, description = "MODEL_NOT_READY"),
    )
)]
pub(crate) async fn generate(
    State(app): State<App>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Response> {
    let facts = app.generator.model()?.facts().clone();
    app.generator.check_room()?;
    // Whatever the type is said to be: the document's own examples say none.
    let body = crate::tagger::read_body(&app, body)?;
    let base = base(&app, &headers);
    let asked = tokio::task::spawn_blocking({
        let (app, base) = (app.clone(), base.clone());
        move || Asked::read(&body, &app, &facts, &base)
    });
    let asked = asked.await.map_err(|_| ApiError::internal("the request could not be read"))??;
    let Asked { params, pictures, notes } = asked;
    let (is_async, is_stream) = (params.async_process, params.stream_output);
    let (webhook, note) = (params.webhook_url.clone(), notes.join("; "));
    let note = Some(note).filter(|note| !note.is_empty());
    let outputs = params.image_number as usize;
    let task = runner::accept(&app, params, pictures, webhook.clone(), note.clone()).await?;
    if is_stream {
        return Ok(stream::events(task, outputs, note, base));
    }
    if is_async {
        return Ok(Json(task.pending(&webhook)).into_response());
    }
    picture(&app, &task).await
}

/// The picture of a task when it is there, and nothing if it was skipped.
async fn picture(app: &App, task: &runner::Accepted) -> ApiResult<Response> {
    let ended = task.ended().await;
    if let Some(error) = ended.error {
        return Err(error);
    }
    let id = HeaderValue::from_str(&task.id).unwrap_or(HeaderValue::from_static(""));
    let id = (HeaderName::from_static("x-task-id"), id);
    let Some((day, name)) = ended.paths.first().and_then(|path| path.split_once('/')) else {
        return Ok((StatusCode::NO_CONTENT, [id]).into_response());
    };
    let kind = name.rsplit_once('.').and_then(|(_, end)| content_type(end)).unwrap_or_default();
    let (own, day, name) = (app.clone(), day.to_owned(), name.to_owned());
    let read = tokio::task::spawn_blocking(move || own.jobs.files.output(&day, &name)).await;
    let lost = || ApiError::internal("the picture could not be read");
    let bytes = read.map_err(|_| lost())?.map_err(|_| lost())?;
    Ok(([id, (header::CONTENT_TYPE, HeaderValue::from_static(kind))], bytes).into_response())
}

/// What was asked for.
struct Asked {
    params: Params,
    pictures: Vec<Vec<u8>>,
    /// What is done in another way than the document has it, because nothing was said about it.
    notes: Vec<String>,
}

impl Asked {
    fn read(body: &[u8], app: &App, facts: &ModelFacts, base: &str) -> ApiResult<Self> {
        let library = &app.config.library;
        let invalid = |kind: &str, message: String| {
            ApiError::fields(vec![wrong(kind, &[], &message, &Value::Null)])
        };
        let body: Value = serde_json::from_slice(body)
            .map_err(|e| invalid("json_invalid", format!("JSON decode error: {e}")))?;
        let Value::Object(said) = body else {
            return Err(invalid(
                "model_attributes_type",
                "Input should be a valid object".to_owned(),
            ));
        };
        let all = presets::laid_under(&said, library)?;
        let bounds = &app.config.bounds;
        let limits = Limits::default()
            .max_pixels(bounds.image_pixels)
            .max_encoded_bytes(bounds.image_bytes as u64);
        let mut pictures = Pictures {
            bytes: Vec::new(),
            base,
            files: &app.jobs.files,
            most_bytes: bounds.image_bytes,
            decode: DecodeOptions::default().limits(limits),
        };
        let mut reader = Reader::new(&all);
        let mut params = Params::read(&mut reader, &mut pictures);
        refused::check(&mut reader, &params);
        reader.end()?;
        let known = Known { library, facts };
        let mut notes = filled(&mut params, &said, &all, &known)?;
        if !params.async_process && !params.stream_output {
            params.image_number = 1;
        }
        if params.image_seed < 0 {
            params.image_seed = ids::new_seed() as i64;
        }
        let said_of = known.notes(&params, &pictures.bytes);
        notes.extend(said_of.map_err(|error| plan::refused(&error))?);
        Ok(Self { params, pictures: pictures.bytes, notes })
    }
}

/// Fills in what is not said. The document's own values for it name files and networks that may not be
/// there: those are left out, and the notes say so.
fn filled(
    params: &mut Params,
    said: &Map<String, Value>,
    all: &Map<String, Value>,
    known: &Known<'_>,
) -> ApiResult<Vec<String>> {
    let mut notes = Vec::new();
    let has = |name: &str| all.contains_key(name);
    if !has("base_model_name") {
        params.base_model_name.clone_from(&known.facts.name);
        if known.facts.model == library::DEMO {
            notes.push("base_model_name: the demo model, which draws flat shapes only".to_owned());
        }
    }
    if !has("aspect_ratios_selection") {
        let (width, height) = known.default_size(params);
        params.aspect_ratios_selection = format!("{width}*{height}");
        if params.aspect_ratios_selection != SIZE {
            notes.push(format!("aspect_ratios_selection: {width}*{height}, the model's own size"));
        }
    }
    // The notations of a size are one in records.
    if let Ok((width, height)) = parse_aspect_ratio(&params.aspect_ratios_selection) {
        params.aspect_ratios_selection = format!("{width}*{height}");
    }
    styles(params, said, known, &mut notes)?;
    if !has("loras") {
        match known.library.lora_file(DEFAULT_LORA) {
            Some(_) => params.loras.push(LoraParam {
                enabled: true,
                model_name: DEFAULT_LORA.to_owned(),
                weight: library::DEFAULT_LORA_WEIGHT,
            }),
            None => notes.push(format!("loras: `{DEFAULT_LORA}` is left out, it is not there")),
        }
    }
    if !has("inpaint_engine") && known.library.inpaint_engine(INPAINT_ENGINE).is_none() {
        params.inpaint_engine = NONE.to_owned();
        if !params.inpaint_input_image.is_empty() {
            notes.push(format!("inpaint_engine: {NONE}, as {INPAINT_ENGINE} is not there"));
        }
    }
    Ok(notes)
}

/// The styles, if the request itself names none: a preset's are nobody's choice either.
fn styles(
    params: &mut Params,
    said: &Map<String, Value>,
    known: &Known<'_>,
    notes: &mut Vec<String>,
) -> ApiResult<()> {
    if said.contains_key("style_selections") {
        return Ok(());
    }
    let own = known.facts.styles.as_ref();
    if let Some(own) = own.filter(|_| params.base_model_name == known.facts.name) {
        params.style_selections.clone_from(own);
        notes.push(format!("style_selections: {own:?}, the model's own"));
        return Ok(());
    }
    let prompter = known.library.prompter().map_err(|error| ApiError::generation(&error))?;
    let names = prompter.style_names();
    params.style_selections.retain(|style| {
        let is_there = names.contains(&style.as_str());
        if !is_there {
            notes.push(format!("style_selections: `{style}` is left out, it is not there"));
        }
        is_there
    });
    Ok(())
}

impl Spec for Params {
    const KIND: &'static str = "generate";

    fn health(app: &App) -> &HealthCell {
        app.generator.health()
    }

    fn push(&self, app: &App, pictures: Vec<Vec<u8>>, was_accepted: bool) -> ApiResult<Handle> {
        let model = app.generator.model()?;
        let known = Known { library: &app.config.library, facts: model.facts() };
        let order = known.plan(self, pictures).map_err(|error| plan::refused(&error))?;
        match was_accepted {
            true => app.generator.push_accepted(order),
            false => app.generator.push(order),
        }
    }

    fn outputs(&self, _: usize) -> usize {
        self.image_number as usize
    }

    fn format(&self) -> ApiResult<ImageFormat> {
        Ok(self.format())
    }

    fn metadata(&self) -> ApiResult<Option<MetadataScheme>> {
        let scheme = self.save_metadata_to_images.then(|| self.metadata_scheme.parse());
        scheme.transpose().map_err(|error| plan::refused(&error))
    }

    fn has_grid(&self) -> bool {
        self.generate_image_grid
    }

    fn wrong_webhook(url: &str, why: String) -> ApiError {
        let loc = [json!("webhook_url")];
        ApiError::fields(vec![wrong("value_error", &loc, &why, &json!(url))])
    }

    fn error(error: &Error) -> ApiError {
        plan::refused(error)
    }

    fn kept(&self) -> Vec<&str> {
        let all =
            [&self.uov_input_image, &self.inpaint_input_image, &self.inpaint_mask_image_upload];
        all.into_iter().map(String::as_str).filter(|path| !path.is_empty()).collect()
    }

    fn keep(&mut self, names: Vec<String>) {
        self.pictures().zip(names).for_each(|(field, name)| *field = name);
    }

    fn has_previews(&self) -> bool {
        !self.disable_preview
    }

    fn is_attended(&self) -> bool {
        !self.async_process || self.stream_output
    }
}
