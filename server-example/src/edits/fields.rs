//! A request's fields, out of multipart or JSON: names, texts and pictures, and nothing more than the
//! bounds allow.

use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::header;
use serde_json::Value;

use crate::config::Bounds;
use crate::error::{ApiError, ApiResult};
use crate::{App, base64url};

/// Fields by which a picture comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// The documents' `images`: every picture is an edit of its own.
    Edits,
    /// OpenAI's `image`, `image[]`, or `images` in JSON: references of one output.
    References,
}

/// What came.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) texts: Vec<(String, String)>,
    pub(super) images: Vec<Vec<u8>>,
    pub(super) means: Option<Means>,
}

const TEXT_FIELDS: usize = 64;

impl Fields {
    pub(super) async fn read(app: &App, request: Request) -> ApiResult<Self> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let kind = kind.unwrap_or_default().to_ascii_lowercase();
        if kind.starts_with("multipart/form-data") {
            let multipart = Multipart::from_request(request, app).await;
            let multipart = multipart.map_err(|e| ApiError::invalid(e.body_text()))?;
            return Self::multipart(multipart, &app.config.bounds).await;
        }
        if kind.is_empty() || kind.starts_with("application/json") {
            let body = axum::body::Bytes::from_request(request, app).await;
            let body = crate::tagger::read_body(app, body)?;
            let bounds = app.config.bounds.clone();
            return tokio::task::spawn_blocking(move || Self::json(&body, &bounds))
                .await
                .map_err(|_| ApiError::internal("the request could not be read"))?;
        }
        let error = ApiError::invalid("expected multipart/form-data or application/json");
        Err(ApiError { status: axum::http::StatusCode::UNSUPPORTED_MEDIA_TYPE, ..error })
    }

    async fn multipart(mut multipart: Multipart, bounds: &Bounds) -> ApiResult<Self> {
        let broken = |e: MultipartError| match e.status().as_u16() {
            413 => ApiError::too_large(bounds.body),
            _ => ApiError::invalid(format!("the multipart body is wrong: {}", e.body_text())),
        };
        let mut fields = Self::default();
        while let Some(field) = multipart.next_field().await.map_err(broken)? {
            let name = field.name().unwrap_or_default().to_owned();
            let means = match name.as_str() {
                "images" | "images[]" => Means::Edits,
                "image" | "image[]" => Means::References,
                "mask" => return Err(mask()),
                _ if field.file_name().is_some() => {
                    return Err(ApiError::unsupported(&name, "no file is expected here"));
                }
                _ => {
                    let most = bounds.field_bytes;
                    let bytes = bounded(field, most, &name).await?.map_err(broken)?;
                    let text = String::from_utf8(bytes)
                        .map_err(|_| ApiError::field(&name, "the text is not UTF-8"))?;
                    fields.add_text(name, text)?;
                    continue;
                }
            };
            fields.mean(means)?;
            fields.check_count(bounds)?;
            let bytes = bounded(field, bounds.image_bytes, &name).await?.map_err(broken)?;
            fields.images.push(bytes);
        }
        Ok(fields)
    }

    /// OpenAI's JSON form: pictures are objects with a data URL.
    fn json(body: &[u8], bounds: &Bounds) -> ApiResult<Self> {
        let body: Value = serde_json::from_slice(body)
            .map_err(|e| ApiError::invalid(format!("the body is no JSON: {e}")))?;
        let Value::Object(body) = body else {
            return Err(ApiError::invalid("the body is no JSON object"));
        };
        let mut fields = Self::default();
        for (name, value) in body {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                ("mask", _) => return Err(mask()),
                ("images", Value::Array(images)) => {
                    fields.mean(Means::References)?;
                    for image in images {
                        fields.check_count(bounds)?;
                        let i = fields.images.len();
                        fields.images.push(json_image(&image, i, bounds)?);
                    }
                }
                ("prompt", Value::Array(prompts)) => {
                    for prompt in prompts {
                        let text = prompt.as_str().map(str::to_owned);
                        let text = text.ok_or_else(|| ApiError::field("prompt", "no text"))?;
                        fields.add_text(name.clone(), text)?;
                    }
                }
                (_, Value::String(text)) => fields.add_text(name, text)?,
                (_, value @ (Value::Number(_) | Value::Bool(_))) => {
                    fields.add_text(name, value.to_string())?;
                }
                _ => return Err(ApiError::unsupported(&name, "a text or a number is expected")),
            }
        }
        Ok(fields)
    }

    fn add_text(&mut self, name: String, text: String) -> ApiResult<()> {
        if self.texts.len() == TEXT_FIELDS {
            return Err(ApiError::invalid(format!("more than {TEXT_FIELDS} fields")));
        }
        self.texts.push((name, text));
        Ok(())
    }

    /// Both kinds of pictures in one request could mean two things.
    fn mean(&mut self, means: Means) -> ApiResult<()> {
        match self.means.replace(means) {
            Some(other) if other != means => Err(ApiError::field(
                "images",
                "`images` (every picture is an edit) and `image` (pictures are references of one \
                 edit) cannot be mixed",
            )
            .finer("ambiguous_image_fields")),
            _ => Ok(()),
        }
    }

    fn check_count(&self, bounds: &Bounds) -> ApiResult<()> {
        let most = bounds.edit_images;
        match self.images.len() < most {
            true => Ok(()),
            false => Err(ApiError::field("images", format!("more than {most} images"))),
        }
    }
}

/// A masked edit that ignores its mask would change what must stay.
fn mask() -> ApiError {
    ApiError::unsupported("mask", "masks are not supported by these models")
}

/// The bytes of a field, read no further than its bound.
async fn bounded(
    mut field: Field<'_>,
    most: usize,
    name: &str,
) -> ApiResult<Result<Vec<u8>, MultipartError>> {
    let mut bytes = Vec::new();
    loop {
        match field.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > most => {
                return Err(ApiError::field(name, format!("longer than {most} bytes")));
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Ok(Ok(bytes)),
            Err(error) => return Ok(Err(error)),
        }
    }
}

fn json_image(image: &Value, index: usize, bounds: &Bounds) -> ApiResult<Vec<u8>> {
    let wrong = |why: &str| ApiError::field("images", format!("index {index}: {why}"));
    let url = match image {
        Value::String(url) => Some(url.as_str()),
        Value::Object(image) if image.contains_key("file_id") => {
            return Err(ApiError::unsupported("images", "files are not stored; send a data URL"));
        }
        Value::Object(image) => image.get("image_url").and_then(Value::as_str),
        _ => None,
    };
    let url =
        url.ok_or_else(|| wrong("expected {\"image_url\": \"data:image/...;base64,...\"}"))?;
    if !url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:")) {
        // Fetching what a stranger names would let them reach what only this machine can.
        let why = "addresses are not fetched; send a data URL";
        return Err(ApiError::unsupported("images", why));
    }
    base64url::decode(url, bounds.image_bytes).map_err(|why| wrong(&why))
}
