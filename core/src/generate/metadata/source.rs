//! What metadata say of the file that a network was read from: its name, and the hash by which others find it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::SystemTime;

use crate::error::{Error, Result};
use crate::weights::sha256;

/// Digits of a hash.
const DIGITS: usize = 10;

/// A file as it was written last.
type Version = (PathBuf, u64, Option<SystemTime>);

/// The hashes that were asked for. Files have gigabytes, and pipelines share them.
static HASHES: LazyLock<Mutex<HashMap<Version, String>>> = LazyLock::new(Mutex::default);

/// The file or folder of a model or a LoRA.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::generate) struct ModelSource {
    /// Of a file without its ending.
    pub(super) name: String,
    /// Only of models in one file.
    file: Option<PathBuf>,
}

impl ModelSource {
    /// A file or folder.
    pub(in crate::generate) fn of(path: &Path) -> Self {
        // The working folder may be another one when the hash is asked for.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let is_folder = path.is_dir();
        let name = if is_folder { path.file_name() } else { path.file_stem() };
        let name = name.unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Self { name, file: (!is_folder).then_some(path) }
    }

    /// A model that is in no file of its own.
    pub(in crate::generate) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), file: None }
    }

    /// The first digits of the file's SHA-256; none for folders.
    pub(super) fn hash(&self) -> Result<Option<String>> {
        self.file.as_deref().map(hash).transpose()
    }
}

fn hash(path: &Path) -> Result<String> {
    let failed = |e| Error::io("read the file for its hash", path, e);
    let data = fs::metadata(path).map_err(failed)?;
    let version = (path.to_owned(), data.len(), data.modified().ok());
    // Held while the file is read, so that nobody else reads it too.
    let mut hashes = HASHES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(hash) = hashes.get(&version) {
        return Ok(hash.clone());
    }
    let digits = sha256(path).map_err(failed)?;
    let hash = digits[..DIGITS].to_owned();
    hashes.insert(version, hash.clone());
    Ok(hash)
}
