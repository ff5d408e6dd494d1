//! `POST /v1/images/edits`, in the documents' dialect and in OpenAI's.

mod fields;
pub mod spec;
mod stream;

use std::time::Instant;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tagbrush::{DecodeOptions, Image, ImageFormat, Limits};
use utoipa::ToSchema;

use crate::engine::editing::Edit;
use crate::engine::models::Picture;
use crate::engine::queue::Handle;
use crate::error::{ApiError, ApiResult};
use crate::ids::now_millis;
use crate::jobs::runner;
use crate::{App, base64url};
use fields::Fields;
use spec::EditSpec;

/// What the edit model is always called in requests, whichever it is.
pub(crate) const MODEL: &str = "edit";

/// What was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct Edited {
    /// Seconds since 1970.
    created: i64,
    /// Pictures: all variants of the first input, then all of the second, and so on.
    data: Vec<Made>,
    usage: Usage,
    output_format: String,
}

/// One picture.
#[derive(Serialize, ToSchema)]
pub(crate) struct Made {
    /// The encoded picture in base64.
    b64_json: String,
    /// The seed that gives it again, as the first variant.
    seed: u64,
}

/// What it took.
#[derive(Clone, Serialize, ToSchema)]
pub(crate) struct Usage {
    processing_time_seconds: f64,
    input_images: usize,
    generated_images: usize,
}

/// The fields of a multipart request. Which field the pictures come in decides what they mean.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes a multipart form")]
pub(crate) struct EditForm {
    /// What to change. Several times, in the order of the pictures: a prompt for each.
    prompt: Vec<String>,
    /// Pictures, each an edit of its own.
    #[schema(value_type = Option<Vec<String>>, format = Binary)]
    images: Option<Vec<u8>>,
    /// Pictures that are references of one edit (also as `image[]`).
    #[schema(value_type = Option<Vec<String>>, format = Binary)]
    image: Option<Vec<u8>>,
    negative_prompt: Option<String>,
    /// `WIDTHxHEIGHT` or `auto`. 1024x1024 for `images`, `auto` for `image`.
    size: Option<String>,
    /// Variants of each edit, 1 to 10.
    n: Option<usize>,
    num_inference_steps: Option<usize>,
    true_cfg_scale: Option<f32>,
    /// Of no effect on these models.
    guidance_scale: Option<f32>,
    /// Of no effect on these models.
    max_sequence_length: Option<usize>,
    seed: Option<u64>,
    /// `png`, `jpeg` or `webp`.
    output_format: Option<String>,
    output_compression: Option<u8>,
    /// `low` and `medium` take a quarter and half of the model's steps.
    quality: Option<String>,
    /// `pil`.
    output_type: Option<String>,
    /// Server-sent events.
    stream: Option<bool>,
    partial_images: Option<u8>,
    /// Answer at once with a task; see `/tasks/{id}`.
    async_process: Option<bool>,
    webhook_url: Option<String>,
    /// `batch` or `reference`, against what the name of the field says.
    edit_mode: Option<String>,
    model: Option<String>,
    /// Not read.
    user: Option<String>,
}

/// Edits pictures as they are told.
#[utoipa::path(
    post, path = "/v1/images/edits", tag = "edits",
    request_body(content = EditForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, body = Edited),
        (status = 400, description = "INVALID_INPUT"),
        (status = 401, description = "UNAUTHORIZED"),
        (status = 413, description = "the body is too long"),
        (status = 429, description = "QUEUE_FULL, with Retry-After"),
        (status = 500, description = "GENERATION_ERROR"),
        (status = 503, description = "MODEL_NOT_READY"),
    )
)]
pub(crate) async fn edit(State(app): State<App>, request: Request) -> ApiResult<Response> {
    let start = Instant::now();
    // Not ready: said before an upload is read.
    let model = app.edits.model()?;
    let mode = request.headers().get("x-edit-mode").and_then(|mode| mode.to_str().ok());
    let mode = mode.map(str::to_owned);
    let fields = Fields::read(&app, request).await?;
    let (spec, images, delivery) = EditSpec::read(fields, mode.as_deref(), &*model, &app)?;
    app.edits.check_room()?;
    let images = checked(&app, images).await?;
    let count = images.len();
    let mode = HeaderValue::from_static(if spec.is_reference { "reference" } else { "batch" });
    let mode = [(HeaderName::from_static("x-edit-mode"), mode)];
    if delivery.async_process {
        let webhook = delivery.webhook_url;
        let task = runner::accept(&app, spec, images, webhook.clone(), None).await?;
        return Ok((mode, Json(task.pending(&webhook))).into_response());
    }
    let edit = Edit {
        requests: spec.requests(images),
        options: spec.options()?,
        wants_previews: delivery.partial_images > 0,
    };
    let mut handle = app.edits.push(edit)?;
    if delivery.stream {
        let answer = stream::events(handle, spec, count, delivery.partial_images, start);
        return Ok((mode, answer).into_response());
    }
    let format = spec.format()?;
    let pictures = all(&mut handle, spec.outputs(count)).await?;
    let generated_images = pictures.len();
    let data = encoded(pictures, format).await?;
    let usage = Usage {
        processing_time_seconds: start.elapsed().as_secs_f64(),
        input_images: count,
        generated_images,
    };
    let created = now_millis() / 1000;
    let edited = Edited { created, data, usage, output_format: spec.output_format };
    Ok((mode, Json(edited)).into_response())
}

/// All outputs of a request; the first that fails fails it, and leaves the others undone.
pub(crate) async fn all(handle: &mut Handle, expected: usize) -> ApiResult<Vec<Picture>> {
    let mut pictures = Vec::with_capacity(expected);
    while pictures.len() < expected {
        match handle.outputs.recv().await {
            Some((_, Ok(picture))) => pictures.push(picture),
            Some((_, Err(error))) if error.kind() == tagbrush::ErrorKind::Cancelled => {
                return Err(ApiError::stopping());
            }
            Some((_, Err(error))) => return Err(ApiError::generation(&error)),
            None => return Err(ApiError::stopping()),
        }
    }
    Ok(pictures)
}

/// The same pictures, each known to be one: decoded once before anything waits for it. What waits is
/// the encoded form, which is smaller.
async fn checked(app: &App, images: Vec<Vec<u8>>) -> ApiResult<Vec<Vec<u8>>> {
    let limits = Limits::default()
        .max_pixels(app.config.bounds.image_pixels)
        .max_encoded_bytes(app.config.bounds.image_bytes as u64);
    let check = move || {
        let options = DecodeOptions::default().limits(limits);
        for (i, image) in images.iter().enumerate() {
            Image::decode_with(image, &options).map_err(|error| ApiError {
                message: format!("Invalid image format at index {i}: {error}"),
                param: Some("images".to_owned()),
                ..ApiError::of(&error)
            })?;
        }
        Ok(images)
    };
    let checked = tokio::task::spawn_blocking(check).await;
    checked.map_err(|_| ApiError::internal("the images could not be read"))?
}

async fn encoded(pictures: Vec<Picture>, format: ImageFormat) -> ApiResult<Vec<Made>> {
    let encode = move || pictures.iter().map(|picture| made(picture, format)).collect();
    let data = tokio::task::spawn_blocking(encode).await;
    data.map_err(|_| ApiError::internal("the images could not be written"))?
}

fn made(picture: &Picture, format: ImageFormat) -> ApiResult<Made> {
    let bytes = picture.image.encode(format).map_err(|error| ApiError::generation(&error))?;
    Ok(Made { b64_json: base64url::encode(&bytes), seed: picture.seed })
}
