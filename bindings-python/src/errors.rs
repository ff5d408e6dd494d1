//! The core's errors as Python exceptions.
//!
//! The classes live in `tagbrush/errors.py`, because each inherits from our base and from the builtin
//! that people expect, which only Python code can say in a readable way.

use std::error::Error as _;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use tagbrush::{Error, ErrorKind};

/// The class of `tagbrush.errors` for each kind.
///
/// The enum may grow, so the compiler wants an arm for the rest; a test over all kinds sees to it that
/// none comes to that arm.
fn class_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidInput => "InvalidInputError",
        ErrorKind::ImageDecode => "ImageDecodeError",
        ErrorKind::ImageTooLarge => "ImageTooLargeError",
        ErrorKind::ModelNotFound => "ModelNotFoundError",
        ErrorKind::ModelInvalid => "ModelInvalidError",
        ErrorKind::Download => "DownloadError",
        ErrorKind::Unsupported => "UnsupportedError",
        ErrorKind::DeviceUnavailable => "DeviceUnavailableError",
        ErrorKind::OutOfMemory => "OutOfMemoryError",
        ErrorKind::Cancelled => "CancelledError",
        ErrorKind::Io => "InputOutputError",
        ErrorKind::Internal => "InternalError",
        _ => "TagbrushError",
    }
}

/// The code and the class name of every kind of error, for the test of `errors.py`.
#[pyfunction]
pub(crate) fn error_classes() -> Vec<(&'static str, &'static str)> {
    ErrorKind::ALL.iter().map(|kind| (kind.code(), class_name(*kind))).collect()
}

/// The exception object for an error, to raise or to put in the place of an answer.
pub(crate) fn exception<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module =
        MODULE.get_or_try_init(py, || Ok::<_, PyErr>(py.import("tagbrush.errors")?.unbind()))?;
    let context = PyDict::new(py);
    for (key, value) in error.context() {
        // Innermost first: the place closest to the fault is the one to keep.
        if !context.contains(key)? {
            context.set_item(key, value)?;
        }
    }
    let line = error.to_string();
    let exception = module.bind(py).getattr(class_name(error.kind()))?.call1((&line, context))?;
    let mut shown = line;
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Messages often end with their cause already.
        if !shown.contains(&text) {
            exception.call_method1("add_note", (format!("caused by: {text}"),))?;
        }
        shown = text;
        cause = error.source();
    }
    Ok(exception)
}

/// The same, as Rust code hands it on.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    match exception(py, error) {
        Ok(exception) => PyErr::from_value(exception),
        Err(failed) => failed,
    }
}

/// For `?` on the core's results.
pub(crate) trait OrRaise<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for tagbrush::Result<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| raised(py, &error))
    }
}

/// An [`ErrorKind::InvalidInput`] about one option or argument.
pub(crate) fn invalid(field: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message.into()).with("field", field)
}
