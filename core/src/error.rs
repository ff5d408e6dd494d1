//! The one error type of the crate.
//!
//! An [`Error`] says what failed in one line, of which [`ErrorKind`] it is, and where (file, field,
//! tensor, index) as key-value context. Callers match on the kind; bindings and servers translate
//! it with one total match each. Conversions from other crates' errors happen where their meaning
//! is known, so there is no blanket `From`.

use std::borrow::Cow;
use std::fmt;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $callers_fault:literal;)*) => {
        /// What went wrong, as far as a caller can act on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind { $($(#[$doc])* $name,)* }

        impl ErrorKind {
            /// Every kind, for tests of total matches in bindings and servers.
            pub const ALL: &[ErrorKind] = &[$(ErrorKind::$name,)*];

            /// A stable machine-readable name, as printed in JSON and used as `err.code`.
            pub fn code(self) -> &'static str {
                match self { $(ErrorKind::$name => $code,)* }
            }

            /// Whether the caller's input is at fault rather than the model, machine or network.
            pub fn is_callers_fault(self) -> bool {
                match self { $(ErrorKind::$name => $callers_fault,)* }
            }
        }
    };
}

kinds! {
    /// An option, argument or field has a value that cannot be used.
    InvalidInput = "invalid_input", true;
    /// The bytes are not an image that can be decoded.
    ImageDecode = "image_decode", true;
    /// The image is larger than the limits in force.
    ImageTooLarge = "image_too_large", true;
    /// No model of that name, or its files are missing.
    ModelNotFound = "model_not_found", true;
    /// The model's files contradict each other, are damaged, or are not of a known form.
    ModelInvalid = "model_invalid", false;
    /// A download failed.
    Download = "download", false;
    /// The request is valid but not supported by this build, model or device.
    Unsupported = "unsupported", true;
    /// The device that was asked for cannot be used.
    DeviceUnavailable = "device_unavailable", false;
    /// The device or the machine has not enough memory.
    OutOfMemory = "out_of_memory", false;
    /// The work was cancelled through its [`Control`](crate::Control).
    Cancelled = "cancelled", true;
    /// A file could not be read or written.
    Io = "io", false;
    /// A fault of this crate.
    Internal = "internal", false;
}

/// An error with its kind, a one-line message, context and cause.
///
/// `Display` gives one line; `{:#}` adds the causes.
pub struct Error(Box<Repr>);

struct Repr {
    kind: ErrorKind,
    message: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    source: Option<Source>,
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Repr { kind, message: message.into(), context: Vec::new(), source: None }))
    }

    /// The same error with one more piece of context, such as `("file", path)`.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.0.context.push((key, value.to_string()));
        self
    }

    /// The same error with the error that caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What went wrong, to match on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// [`ErrorKind::code`] of this error's kind.
    pub fn code(&self) -> &'static str {
        self.0.kind.code()
    }

    /// The message without context and causes.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Where it went wrong: pairs such as `("file", "a.png")`, innermost first.
    pub fn context(&self) -> &[(&'static str, String)] {
        &self.0.context
    }

    /// The same error, for another item that it strikes. The cause stays with the first.
    pub(crate) fn again(&self) -> Self {
        let Repr { kind, message, context, .. } = &*self.0;
        let source = None;
        let (message, context) = (message.clone(), context.clone());
        Self(Box::new(Repr { kind: *kind, message, context, source }))
    }

    // One short constructor for each kind that is made in many places.

    pub(crate) fn invalid_input(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    pub(crate) fn model_invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::ModelInvalid, message)
    }

    pub(crate) fn unsupported(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    pub(crate) fn decode(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::ImageDecode, message)
    }

    pub(crate) fn io(action: &str, path: &std::path::Path, source: std::io::Error) -> Self {
        Self::new(ErrorKind::Io, format!("cannot {action}: {source}"))
            .with("file", path.display())
            .caused_by(source)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for (i, (key, value)) in self.0.context.iter().enumerate() {
            write!(f, "{}{key}={value}", if i == 0 { " (" } else { ", " })?;
        }
        if !self.0.context.is_empty() {
            f.write_str(")")?;
        }
        if f.alternate() {
            let mut cause = std::error::Error::source(self);
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {self:#}", self.code())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Adds context to results on their way up.
pub(crate) trait ResultExt<T> {
    /// Adds `key=value` to the error, if there is one.
    fn context(self, key: &'static str, value: impl fmt::Display) -> Result<T>;
}

impl<T> ResultExt<T> for Result<T> {
    fn context(self, key: &'static str, value: impl fmt::Display) -> Result<T> {
        self.map_err(|error| error.with(key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_in_one_line_and_adds_causes_when_asked() {
        let cause = std::io::Error::other("disk on fire");
        let error = Error::new(ErrorKind::Io, "cannot read")
            .with("file", "a.png")
            .with("index", 3)
            .caused_by(cause);
        assert_eq!(error.to_string(), "cannot read (file=a.png, index=3)");
        assert_eq!(format!("{error:#}"), "cannot read (file=a.png, index=3): disk on fire");
        assert_eq!(error.code(), "io");
    }

    #[test]
    fn codes_are_distinct_and_an_error_is_one_pointer() {
        let codes: std::collections::BTreeSet<_> =
            ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
