//! The core's errors as plain objects, for `lib/errors.ts`.

use std::any::Any;
use std::error::Error as _;

use napi::Either;
use napi_derive::napi;
use tagbrush::{Error, ErrorKind, Result};

/// An error as JavaScript reads it.
#[napi(object)]
pub struct Failure {
    /// The stable name of its kind.
    pub code: String,
    /// One line, with the context.
    pub message: String,
    /// Where it went wrong: names and values, innermost first.
    pub context: Vec<Vec<String>>,
    /// What caused it, the nearest first.
    pub causes: Vec<String>,
}

/// A value, or why there is none.
pub(crate) type Answer<T> = Either<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let context: Vec<_> = error
            .context()
            .iter()
            .map(|(key, value)| match *key {
                "field" => vec![(*key).to_owned(), camel(value)],
                _ => vec![(*key).to_owned(), value.clone()],
            })
            .collect();
        let mut message = error.message().to_owned();
        if !context.is_empty() {
            let pairs: Vec<_> = context.iter().map(|pair| pair.join("=")).collect();
            message += &format!(" ({})", pairs.join(", "));
        }
        let mut causes = Vec::new();
        let mut cause = error.source();
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        Self { code: error.code().to_owned(), message, context, causes }
    }
}

/// The core's result as an [`Answer`].
pub(crate) fn answer<T>(result: Result<T>) -> Answer<T> {
    match result {
        Ok(value) => Either::A(value),
        Err(error) => Either::B(error.into()),
    }
}

/// `text_encoder` as `textEncoder`: the name that an option has here.
fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        all.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        all.push_str(letters.as_str());
    }
    all
}

/// An [`ErrorKind::InvalidInput`] about one option or argument.
pub(crate) fn invalid(field: &str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message.into()).with("field", field)
}

/// What Node could not do, such as making an object while a worker ends.
pub(crate) fn failed(error: &napi::Error) -> Error {
    Error::new(ErrorKind::Internal, error.reason.clone())
}

/// A panic as an error, so that it costs one call and not the process.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    Error::new(ErrorKind::Internal, format!("the work panicked: {text}"))
}

/// The codes of all kinds of errors, for the test of `ErrorCode`.
#[napi]
pub fn error_codes() -> Vec<&'static str> {
    ErrorKind::ALL.iter().map(|kind| kind.code()).collect()
}
