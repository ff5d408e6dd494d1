//! Errors as clients see them: the documents' `detail` and OpenAI's `error` in one body.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tagbrush::{Error, ErrorKind};

/// An error with its status.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// The status of the answer.
    pub status: StatusCode,
    /// The documents' code, such as `INVALID_INPUT`.
    pub code: &'static str,
    /// A finer code for OpenAI's `code`; the documents' one in lower case unless set.
    pub finer: Option<&'static str>,
    /// The field that is wrong.
    pub param: Option<String>,
    /// What happened.
    pub message: String,
    /// Seconds after which trying again makes sense.
    pub retry_after: Option<u64>,
    /// `detail` is the message alone, as in the tagger's API.
    pub plain: bool,
    /// `detail` is this list of what is wrong with which field, as FastAPI writes it.
    pub fields: Box<[Value]>,
}

/// The result of everything that answers a request.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        let (finer, param, retry_after) = (None, None, None);
        Self {
            status,
            code,
            finer,
            param,
            message,
            retry_after,
            plain: false,
            fields: Box::default(),
        }
    }

    /// A request that means nothing.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_INPUT", message)
    }

    /// A field whose value means nothing.
    pub fn field(name: &str, message: impl Into<String>) -> Self {
        let message = format!("{name}: {}", message.into());
        Self { param: Some(name.to_owned()), ..Self::invalid(message) }
    }

    /// A parameter that is known or not, but has no meaning here.
    pub fn unsupported(name: &str, why: &str) -> Self {
        Self { finer: Some("unsupported_parameter"), ..Self::field(name, why) }
    }

    /// Fields of a JSON body that are wrong, at least one, each as [`wrong`] describes it.
    pub fn fields(fields: Vec<Value>) -> Self {
        let name = |field: &Value| {
            let parts = field["loc"].as_array().into_iter().flatten().skip(1);
            let part = |part: &Value| part.as_str().map_or_else(|| part.to_string(), str::to_owned);
            parts.map(part).collect::<Vec<_>>().join(".")
        };
        let texts: Vec<_> = fields
            .iter()
            .map(|field| format!("{}: {}", name(field), field["msg"].as_str().unwrap_or_default()))
            .collect();
        let param = fields.first().map(name);
        let error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "INVALID_INPUT", texts.join("; "));
        Self { param, fields: fields.into(), ..error }
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }

    /// The key is missing or wrong.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "Invalid username or password")
    }

    /// The request is not allowed, whoever sends it.
    pub fn forbidden(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", message)
    }

    /// The body is longer than allowed.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("the body is longer than the limit of {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "INVALID_INPUT", message)
            .finer("request_too_large")
    }

    /// The body does not come.
    pub fn too_slow() -> Self {
        let message = "the body came too slowly and was given up";
        Self::new(StatusCode::REQUEST_TIMEOUT, "INVALID_INPUT", message).finer("request_timeout")
    }

    /// The queue is full.
    pub fn queue_full() -> Self {
        let message = "The server is busy: its queue is full";
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "QUEUE_FULL", message);
        Self { retry_after: Some(5), ..error }
    }

    /// The model is not there; `why` says why it will not be, if that is known.
    pub fn not_ready(why: Option<&str>) -> Self {
        let message = match why {
            None => "Model is not ready yet".to_owned(),
            Some(why) => format!("Model is not ready yet: {why}"),
        };
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "MODEL_NOT_READY", message);
        Self { retry_after: Some(if why.is_none() { 5 } else { 60 }), ..error }
    }

    /// The server is going down.
    pub fn stopping() -> Self {
        let message = "The server is stopping";
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "STOPPING", message);
        Self { retry_after: Some(5), ..error }
    }

    /// Something broke here.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "GENERATION_ERROR", message)
    }

    /// A model failed on a valid request.
    pub fn generation(error: &Error) -> Self {
        match error.kind() {
            kind if kind.is_callers_fault() && kind != ErrorKind::Cancelled => Self::of(error),
            _ => Self {
                message: format!("Image generation failed: {error}"),
                status: StatusCode::INTERNAL_SERVER_ERROR,
                code: "GENERATION_ERROR",
                ..Self::of(error)
            },
        }
    }

    /// An error of the library.
    pub fn of(error: &Error) -> Self {
        let (status, code) = status(error.kind());
        let param = error.context().iter().find(|(key, _)| *key == "field");
        let finer = (error.kind() != ErrorKind::InvalidInput).then(|| error.code());
        Self {
            finer,
            param: param.map(|(_, field)| field.clone()),
            ..Self::new(status, code, error.to_string())
        }
    }

    /// The same error with a finer code.
    #[must_use]
    pub fn finer(self, code: &'static str) -> Self {
        Self { finer: Some(code), ..self }
    }

    /// The same error as the tagger's API writes it.
    #[must_use]
    pub fn plain(self) -> Self {
        Self { plain: true, ..self }
    }

    /// OpenAI's `error` object.
    pub fn openai(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        let code = self.finer.map_or_else(|| self.code.to_lowercase(), str::to_owned);
        json!({"message": self.message, "type": kind, "param": self.param, "code": code})
    }
}

/// What is wrong with a field, as FastAPI describes it.
pub fn wrong(kind: &str, loc: &[Value], message: &str, input: &Value) -> Value {
    let loc: Vec<_> = [json!("body")].into_iter().chain(loc.iter().cloned()).collect();
    // A picture is not sent back.
    let input = match input.as_str().and_then(|text| text.char_indices().nth(MOST_SENT_BACK)) {
        Some((end, _)) => json!(format!("{}...", &input.as_str().unwrap_or_default()[..end])),
        None => input.clone(),
    };
    json!({"type": kind, "loc": loc, "msg": message, "input": input})
}

/// Characters of a wrong value that an error repeats.
const MOST_SENT_BACK: usize = 100;

/// The status and the documents' code of each kind of error.
fn status(kind: ErrorKind) -> (StatusCode, &'static str) {
    match kind {
        ErrorKind::InvalidInput
        | ErrorKind::ImageDecode
        | ErrorKind::ImageTooLarge
        | ErrorKind::Unsupported => (StatusCode::BAD_REQUEST, "INVALID_INPUT"),
        ErrorKind::ModelNotFound => (StatusCode::NOT_FOUND, "MODEL_NOT_FOUND"),
        ErrorKind::ModelInvalid | ErrorKind::Download | ErrorKind::DeviceUnavailable => {
            (StatusCode::SERVICE_UNAVAILABLE, "MODEL_NOT_READY")
        }
        // Also kinds that a later version of the library adds.
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "GENERATION_ERROR"),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let detail = match self.plain {
            _ if !self.fields.is_empty() => json!(self.fields),
            true => json!(self.message),
            false => json!({"error": self.code, "message": self.message}),
        };
        let body = json!({"error": self.openai(), "detail": detail});
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let basic = HeaderValue::from_static("Basic realm=\"tagbrush\", charset=\"UTF-8\"");
            headers.append(header::WWW_AUTHENTICATE, basic);
            headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::REQUEST_TIMEOUT {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status == StatusCode::INTERNAL_SERVER_ERROR {
            // Official clients would upload everything again, and again.
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_a_status_of_the_right_side() {
        for kind in ErrorKind::ALL {
            let error = ApiError::generation(&Error::new(*kind, "x"));
            let expected = kind.is_callers_fault() && *kind != ErrorKind::Cancelled;
            assert_eq!(error.status.is_client_error(), expected, "{kind:?}");
        }
    }

    #[test]
    fn both_dialects_find_their_error() {
        let error = ApiError::of(&Error::new(ErrorKind::ImageTooLarge, "x").with("field", "image"));
        assert_eq!(error.openai()["code"], "image_too_large");
        assert_eq!(error.openai()["param"], "image");
        assert_eq!(error.code, "INVALID_INPUT");
        assert_eq!(ApiError::invalid("x").openai()["code"], "invalid_input");
        let memory =
            ApiError::generation(&Error::new(ErrorKind::OutOfMemory, "CUDA out of memory"));
        assert_eq!(memory.message, "Image generation failed: CUDA out of memory");
        assert_eq!(
            (memory.code, memory.openai()["code"].as_str()),
            ("GENERATION_ERROR", Some("out_of_memory"))
        );
    }
}
