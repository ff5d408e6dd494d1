//! The tagger's endpoints, in the form that the web UI's extensions and their batch document gave
//! them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};
use tagbrush::{Error, ErrorKind, Input, Result, Tag, TagOptions, Tags};
use tracing::warn;
use utoipa::ToSchema;

use crate::engine::models::published_taggers;
use crate::error::{ApiError, ApiResult};
use crate::{App, base64url};

/// A request for the tags of many pictures.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchRequest<'a> {
    /// Pictures in base64, with or without `data:image/...;base64,` in front.
    #[serde(borrow)]
    #[schema(value_type = Vec<String>)]
    images: Vec<Cow<'a, str>>,
    /// The tagger, by any of its names.
    #[serde(borrow)]
    #[schema(value_type = String, example = "wd14-vit-v2")]
    model: Cow<'a, str>,
    /// Tags must be more probable than this. It is not applied to ratings.
    #[serde(default)]
    #[schema(value_type = f32, default = 0.0)]
    threshold: Value,
    /// Another threshold for characters.
    #[serde(default)]
    #[schema(value_type = Option<f32>)]
    character_threshold: Value,
    /// Find thresholds in the scores themselves.
    #[serde(default)]
    mcut: bool,
    /// What a picture that cannot be read does: `fail` refuses the request, `skip` leaves its
    /// caption empty and lists it under `errors`.
    #[serde(default)]
    on_error: OnError,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, ToSchema)]
#[serde(rename_all = "lowercase")]
enum OnError {
    #[default]
    Fail,
    Skip,
}

/// The tags of many pictures, in the order of the request.
#[derive(Serialize, ToSchema)]
pub(crate) struct Captions {
    /// One for each picture.
    #[schema(value_type = Vec<Caption>)]
    captions: Vec<Tags>,
    /// Pictures without tags; only with `on_error: skip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Failure>>,
}

/// How the tags of a picture are written.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the library's own serialisation")]
pub(crate) struct Caption {
    /// Ratings, whatever their probability.
    ratings: BTreeMap<String, f32>,
    /// Characters above the threshold.
    characters: BTreeMap<String, f32>,
    /// All other tags above the threshold.
    tags: BTreeMap<String, f32>,
}

/// A picture without tags.
#[derive(Serialize, ToSchema)]
struct Failure {
    /// Its place in the request.
    index: usize,
    code: String,
    detail: String,
}

/// Tags of many pictures.
#[utoipa::path(
    post, path = "/tagger/v1/interrogate-batch", tag = "tagger",
    request_body(content = BatchRequest<'static>),
    responses((status = 200, body = Captions), (status = 400), (status = 404), (status = 429))
)]
pub(crate) async fn interrogate_batch(
    State(app): State<App>,
    body: std::result::Result<Bytes, BytesRejection>,
) -> ApiResult<Json<Captions>> {
    batch(&app, body).await.map(Json).map_err(ApiError::plain)
}

async fn batch(app: &App, body: std::result::Result<Bytes, BytesRejection>) -> ApiResult<Captions> {
    let body = read_body(app, body)?;
    app.tags.check_room()?;
    let bounds = app.config.bounds.clone();
    // Megabytes of text are parsed off the threads that answer everybody.
    let parsed = tokio::task::spawn_blocking(move || {
        let request: BatchRequest<'_> = parse(&body)?;
        if request.images.is_empty() {
            return Err(ApiError::field("images", "No images provided"));
        }
        if request.images.len() > bounds.tag_images {
            let (count, most) = (request.images.len(), bounds.tag_images);
            return Err(ApiError::field("images", format!("{count} images; at most {most}")));
        }
        let options = options(&request.threshold, &request.character_threshold, request.mcut)?;
        let decode = |text: &Cow<'_, str>| base64url::decode(text, bounds.image_bytes);
        let images: Vec<_> = request.images.iter().map(decode).collect();
        Ok((request.model.into_owned(), images, options, request.on_error))
    });
    let (model, images, options, on_error) =
        parsed.await.map_err(|_| ApiError::internal("the request could not be read"))??;
    let mut answers: Vec<Option<Result<Tags>>> = Vec::new();
    let mut inputs = Vec::new();
    for (i, image) in images.into_iter().enumerate() {
        answers.push(match image {
            Ok(bytes) => {
                inputs.push(Input::from(bytes));
                None
            }
            Err(why) if on_error == OnError::Skip => {
                Some(Err(Error::new(ErrorKind::ImageDecode, why)))
            }
            Err(why) => return Err(bad_image(i, &why)),
        });
    }
    let mut tagged = tag(app, &model, inputs, options).await?.into_iter();
    let mut captions = Vec::with_capacity(answers.len());
    let mut errors = Vec::new();
    for (index, answer) in answers.into_iter().enumerate() {
        match answer.or_else(|| tagged.next()) {
            Some(Ok(tags)) => captions.push(tags),
            Some(Err(error)) if !error.kind().is_callers_fault() => {
                return Err(ApiError::of(&error));
            }
            Some(Err(error)) if on_error == OnError::Fail => {
                return Err(bad_image(index, &error.to_string()));
            }
            Some(Err(error)) => {
                captions.push(Tags::default());
                let (code, detail) = (error.code().to_owned(), error.to_string());
                errors.push(Failure { index, code, detail });
            }
            None => return Err(ApiError::internal("an answer is missing")),
        }
    }
    Ok(Captions { captions, errors: (on_error == OnError::Skip).then_some(errors) })
}

/// A request for the tags of one picture.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OneRequest<'a> {
    /// The picture in base64.
    #[serde(borrow)]
    #[schema(value_type = String)]
    image: Cow<'a, str>,
    /// The tagger, by any of its names.
    #[serde(borrow)]
    #[schema(value_type = String)]
    model: Cow<'a, str>,
    /// Tags must be more probable than this.
    #[serde(default)]
    #[schema(value_type = f32, default = 0.0)]
    threshold: Value,
    /// Named queues are not kept here: must be empty.
    #[serde(default)]
    queue: String,
    /// Must be empty.
    #[serde(default)]
    name_in_queue: String,
}

/// Tags of one picture.
#[utoipa::path(
    post, path = "/tagger/v1/interrogate", tag = "tagger",
    request_body(content = OneRequest<'static>),
    responses((status = 200, description = "`{caption: {tag: {...}, rating: {...}}}`"), (status = 400))
)]
pub(crate) async fn interrogate(
    State(app): State<App>,
    body: std::result::Result<Bytes, BytesRejection>,
) -> ApiResult<Json<OneCaption>> {
    one(&app, body).await.map(Json).map_err(ApiError::plain)
}

async fn one(app: &App, body: std::result::Result<Bytes, BytesRejection>) -> ApiResult<OneCaption> {
    let body = read_body(app, body)?;
    app.tags.check_room()?;
    let request: OneRequest<'_> = parse(&body)?;
    for (name, value) in [("queue", &request.queue), ("name_in_queue", &request.name_in_queue)] {
        if !value.is_empty() {
            return Err(ApiError::unsupported(name, "named queues are not kept"));
        }
    }
    let options = options(&request.threshold, &Value::Null, false)?;
    let image = base64url::decode(&request.image, app.config.bounds.image_bytes)
        .map_err(|why| ApiError::field("image", why))?;
    let answer = tag(app, &request.model, vec![image.into()], options).await?.pop();
    let tags = answer
        .ok_or_else(|| ApiError::internal("the answer is missing"))?
        .map_err(|error| ApiError::of(&error))?;
    let tag = tags.tags.into_iter().chain(tags.characters).collect();
    Ok(OneCaption { caption: Flat { tag: Scores(tag), rating: Scores(tags.ratings) } })
}

/// The tags of one picture, as the classic endpoint gives them.
#[derive(Serialize)]
pub(crate) struct OneCaption {
    caption: Flat,
}

#[derive(Serialize)]
struct Flat {
    tag: Scores,
    rating: Scores,
}

/// Tags as a map from names to probabilities, in their order.
struct Scores(Vec<Tag>);

impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|tag| (&*tag.name, tag.score)))
    }
}

/// The names of taggers.
#[utoipa::path(get, path = "/tagger/v1/interrogators", tag = "tagger",
    responses((status = 200, description = "`{models: [...]}`")))]
pub(crate) async fn interrogators(State(app): State<App>) -> Json<Value> {
    let mut models = app.config.taggers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    if app.config.downloads {
        models.extend(published_taggers().map(str::to_owned));
    }
    Json(json!({"models": models}))
}

/// Takes taggers out of memory; the next request loads its own again.
#[utoipa::path(post, path = "/tagger/v1/unload-interrogators", tag = "tagger",
    responses((status = 200, description = "A sentence with their number")))]
pub(crate) async fn unload(State(app): State<App>) -> ApiResult<Json<String>> {
    let count = app.tags.unload().await?;
    Ok(Json(format!("Successfully unload {count} model(s)")))
}

async fn tag(
    app: &App,
    model: &str,
    inputs: Vec<Input>,
    options: TagOptions,
) -> ApiResult<Vec<Result<Tags>>> {
    let missing = || ApiError {
        finer: Some("model_not_found"),
        param: Some("model".to_owned()),
        ..ApiError::not_found("Model not found")
    };
    let key = app.tags.key(model).ok_or_else(missing)?;
    app.tags.health().check()?;
    match app.tags.tag(key, inputs, options).await? {
        Ok(answers) => Ok(answers),
        Err(error) if error.kind() == ErrorKind::ModelNotFound => {
            // Where it was looked for is for the log: paths of this machine are nobody's business.
            warn!("a tagger was not found: {error:#}");
            let reason = format!("Model not found: {}", error.message());
            Err(ApiError { message: reason, ..missing() })
        }
        Err(error) => Err(ApiError::of(&error)),
    }
}

/// The options of a request. Numbers come as any JSON, so that a wrong one is named in the answer.
fn options(threshold: &Value, characters: &Value, mcut: bool) -> ApiResult<TagOptions> {
    let number = |name: &str, value: &Value| match value {
        Value::Null => Ok(None),
        value => match value.as_f64() {
            Some(number) if number >= 0.0 => Ok(Some(number as f32)),
            _ => Err(ApiError::field(name, "expected a number of 0 or more")),
        },
    };
    let threshold = number("threshold", threshold)?.unwrap_or(0.0);
    let options = TagOptions::default().threshold(threshold).mcut(mcut);
    Ok(match number("character_threshold", characters)? {
        Some(threshold) => options.character_threshold(threshold),
        None => options,
    })
}

fn bad_image(index: usize, why: &str) -> ApiError {
    ApiError {
        param: Some("images".to_owned()),
        ..ApiError::invalid(format!("{why} (index={index})"))
    }
}

/// A body of at most the allowed length.
pub(crate) fn read_body(
    app: &App,
    body: std::result::Result<Bytes, BytesRejection>,
) -> ApiResult<Bytes> {
    body.map_err(|e| match e.status().as_u16() {
        413 => ApiError::too_large(app.config.bounds.body),
        _ => ApiError::invalid(format!("the body could not be read: {}", e.body_text())),
    })
}

/// JSON, whatever the content type says: some documented clients send none.
fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> ApiResult<T> {
    serde_json::from_slice(body).map_err(|e| ApiError::invalid(format!("the body is wrong: {e}")))
}
