//! Files mapped into memory: the one place where the readers of weights are not plain safe code.
//!
//! A mapped file must not be changed while it is in use: the operating system answers a truncation
//! with a signal that no library can catch. A tagger's file is in use while it loads, an edit model's
//! files as long as it is there.
#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, ErrorKind, Result};

/// The bytes of a file: mapped, or in memory already.
pub(super) enum Bytes {
    Mapped(Mmap),
    Static(Cow<'static, [u8]>),
}

impl Bytes {
    /// Maps the file at `path`; one that is empty is an error.
    pub(super) fn open(path: &Path) -> Result<Self> {
        map(path).map(Bytes::Mapped)
    }

    /// Tells the system that a range was read: see [`release`].
    pub(super) fn release(&self, range: Range<usize>) {
        if let Bytes::Mapped(map) = self {
            release(map, range);
        }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
        }
    }
}

/// Maps the file at `path`; one that is empty is an error.
pub(super) fn map(path: &Path) -> Result<Mmap> {
    let failed = |e| not_readable(path, e);
    let file = std::fs::File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() == 0 {
        return Err(Error::model_invalid("the file is empty").with("file", path.display()));
    }
    // SAFETY: the map is read-only and private to its owner. A concurrent truncation of the file is
    // documented as not supported (module documentation).
    unsafe { Mmap::map(&file) }.map_err(failed)
}

/// The error of a model file that cannot be read: one that is not there is a model that is not there.
pub(super) fn not_readable(path: &Path, source: std::io::Error) -> Error {
    let kind = match source.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::ModelNotFound,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("cannot read a model file: {source}"))
        .with("file", path.display())
        .caused_by(source)
}

/// Tells the system that a range was read and is not needed soon, so that a process does not hold
/// its weights twice while it loads them. Reading it again would read the file again.
pub(super) fn release(map: &Mmap, range: Range<usize>) {
    #[cfg(unix)]
    {
        let advice = memmap2::UncheckedAdvice::DontNeed;
        // SAFETY: the map is a read-only view of a file: what is dropped is read from it again. The
        // result does not matter, it is advice.
        let _ = unsafe { map.unchecked_advise_range(advice, range.start, range.len()) };
    }
    #[cfg(not(unix))]
    let _ = (map, range);
}
