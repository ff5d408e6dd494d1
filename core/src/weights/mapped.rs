//! Files mapped into memory: the one place where the readers of weights are not plain safe code.
//!
//! A mapped file must not be changed while it is being loaded: the operating system answers a
//! truncation with a signal that no library can catch. Nothing stays mapped after loading.
#![allow(unsafe_code)]

use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Maps the file at `path`; one that is empty is an error.
pub(super) fn map(path: &Path) -> Result<Mmap> {
    let failed = |e| Error::io("open the model file", path, e);
    let file = std::fs::File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() == 0 {
        return Err(Error::model_invalid("the file is empty").with("file", path.display()));
    }
    // SAFETY: the map is read-only and private to its owner. A concurrent truncation of the file is
    // documented as not supported (module documentation).
    unsafe { Mmap::map(&file) }.map_err(failed)
}
