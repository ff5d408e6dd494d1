//! Files mapped into memory: the one place where the readers of weights are not plain safe code.
//!
//! A mapped file must not be changed while it is in use: the operating system answers a truncation
//! with a signal that no library can catch. A tagger's file is in use while it loads, an edit model's
//! files as long as it is there.
#![allow(unsafe_code)]

use std::borrow::Cow;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Error, ErrorKind, Result};

/// The bytes of a file: mapped, or in memory already.
pub(super) enum Bytes {
    Mapped(MappedFile),
    Static(Cow<'static, [u8]>),
}

impl Bytes {
    /// Maps the file at `path`; one that is empty is an error.
    pub(super) fn open(path: &Path) -> Result<Self> {
        MappedFile::open(path).map(Bytes::Mapped)
    }

    /// Copies the numbers that start at byte `start`, as many as there is room for, in the file's
    /// byte order, which is that of every machine that is supported.
    ///
    /// Of a file this goes past the map: the process does not hold what it reads twice, and the
    /// system reads ahead in larger parts than it does for the pages of a map.
    pub(super) fn read<T: Plain>(&self, start: usize, to: &mut [T]) -> Result<()> {
        // SAFETY: the bytes of the numbers; whatever is written, they are numbers again.
        let to = unsafe {
            std::slice::from_raw_parts_mut(to.as_mut_ptr().cast::<u8>(), size_of_val(to))
        };
        #[cfg(unix)]
        if let Bytes::Mapped(MappedFile { file, path, .. }) = self {
            use std::os::unix::fs::FileExt;
            return file.read_exact_at(to, start as u64).map_err(|e| not_readable(path, e));
        }
        let bytes = self.as_ref().get(start..).and_then(|rest| rest.get(..to.len()));
        to.copy_from_slice(bytes.ok_or_else(|| Error::model_invalid("the file ends too early"))?);
        Ok(())
    }

    /// Tells the system that a range was read: see [`release`].
    pub(super) fn release(&self, range: Range<usize>) {
        if let Bytes::Mapped(file) = self {
            release(&file.map, range);
        }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(file) => &file.map,
            Bytes::Static(bytes) => bytes,
        }
    }
}

/// Numbers of which every pattern of bits is one.
///
/// # Safety
/// As said; the type has no padding.
pub(super) unsafe trait Plain {}
// SAFETY: every pattern of bits is a number.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}

/// A file that is mapped, and can be read as well.
pub(super) struct MappedFile {
    map: Mmap,
    #[cfg_attr(not(unix), expect(dead_code, reason = "the map is read"))]
    file: File,
    #[cfg_attr(not(unix), expect(dead_code, reason = "the map is read"))]
    path: PathBuf,
}

impl MappedFile {
    fn open(path: &Path) -> Result<Self> {
        let failed = |e| not_readable(path, e);
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() == 0 {
            return Err(Error::model_invalid("the file is empty").with("file", path.display()));
        }
        // SAFETY: the map is read-only and private to its owner. A concurrent truncation of the file
        // is documented as not supported (module documentation).
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        Ok(Self { map, file, path: path.to_owned() })
    }
}

/// Maps the file at `path`; one that is empty is an error.
pub(super) fn map(path: &Path) -> Result<Mmap> {
    MappedFile::open(path).map(|file| file.map)
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
