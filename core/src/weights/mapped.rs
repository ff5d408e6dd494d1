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

/// Tells the system that a range was read and is not needed soon, so that a process does not hold
/// its weights twice while it loads them. Reading it again would read the file again.
pub(super) fn release(map: &Mmap, range: std::ops::Range<usize>) {
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
