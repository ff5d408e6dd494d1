//! The files of one model, on disk or embedded in the program.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device};

use super::checkpoint::{Source, Weights};
use super::mapped::not_readable;
use super::safetensors::SafeTensorsFile;
use super::shards::Shards;
use crate::error::{Error, ErrorKind, Result};

/// Longest configuration or label file in bytes.
const MAX_TEXT: u64 = 64 << 20;

/// A model folder: exactly as published, or embedded in the program.
#[derive(Clone, Debug)]
pub(crate) enum ModelDir {
    /// A folder on disk.
    Disk(PathBuf),
    /// Files that were compiled in: pairs of a name and its bytes.
    #[cfg_attr(not(feature = "demo"), allow(dead_code))] // The demo models are all there is.
    Embedded(&'static [(&'static str, &'static [u8])]),
}

impl ModelDir {
    /// Whether the folder has a file of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            ModelDir::Disk(dir) => dir.join(name).is_file(),
            ModelDir::Embedded(files) => files.iter().any(|(file, _)| *file == name),
        }
    }

    /// The whole text of a small file.
    pub(crate) fn text(&self, name: &str) -> Result<String> {
        let bytes: Cow<'_, [u8]> = match self {
            ModelDir::Disk(dir) => {
                let path = dir.join(name);
                let length = std::fs::metadata(&path).map_err(|e| not_readable(&path, e))?.len();
                if length > MAX_TEXT {
                    return Err(Error::model_invalid(format!(
                        "the file has {length} bytes; at most {MAX_TEXT} are read"
                    ))
                    .with("file", path.display()));
                }
                Cow::Owned(std::fs::read(&path).map_err(|e| not_readable(&path, e))?)
            }
            ModelDir::Embedded(_) => Cow::Borrowed(self.embedded(name)?),
        };
        String::from_utf8(bytes.into_owned()).map_err(|_| {
            Error::model_invalid("the file is not UTF-8").with("file", self.origin(name))
        })
    }

    /// The tensors of a safetensors file, to be handed out on `device` as `dtype`.
    pub(crate) fn safetensors(&self, name: &str, device: &Device, dtype: DType) -> Result<Weights> {
        Ok(Weights::new(Arc::new(self.file(name)?), device, dtype))
    }

    /// The tensors of `name.safetensors`, or of the files that `name.safetensors.index.json` lists.
    pub(crate) fn checkpoint(&self, name: &str) -> Result<Arc<dyn Source>> {
        let (single, index) =
            (format!("{name}.safetensors"), format!("{name}.safetensors.index.json"));
        let folder =
            name.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        if self.has(&index) {
            let beside = |file: &str| self.file(&format!("{folder}{file}"));
            let shards = Shards::open(&self.text(&index)?, beside)
                .map_err(|e| e.with("index", self.origin(&index)))?;
            return Ok(Arc::new(shards));
        }
        if self.has(&single) {
            return Ok(Arc::new(self.file(&single)?));
        }
        let others = [format!("{name}.bin"), format!("{name}.pt"), folder + "pytorch_model.bin"];
        let pickle = others.iter().find(|file| self.has(file));
        Err(Error::new(
            ErrorKind::ModelNotFound,
            match pickle {
                Some(file) => format!(
                    "the folder has `{file}`, a Python pickle, which is not read; convert it to \
                     `{single}`"
                ),
                None => format!("the folder has neither `{single}` nor `{index}`"),
            },
        ))
    }

    fn file(&self, name: &str) -> Result<SafeTensorsFile> {
        match self {
            ModelDir::Disk(dir) => SafeTensorsFile::open(&dir.join(name)),
            ModelDir::Embedded(_) => {
                SafeTensorsFile::from_bytes(self.embedded(name)?, self.origin(name))
            }
        }
    }

    /// The folder, if this is one on disk.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            ModelDir::Disk(dir) => Some(dir),
            ModelDir::Embedded(_) => None,
        }
    }

    /// How error messages call a file of this folder.
    pub(crate) fn origin(&self, name: &str) -> String {
        match self {
            ModelDir::Disk(dir) => dir.join(name).display().to_string(),
            ModelDir::Embedded(_) => format!("embedded {name}"),
        }
    }

    fn embedded(&self, name: &str) -> Result<&'static [u8]> {
        let ModelDir::Embedded(files) = self else {
            return Err(Error::new(ErrorKind::Internal, "not an embedded folder"));
        };
        files.iter().find(|(file, _)| *file == name).map(|(_, bytes)| *bytes).ok_or_else(|| {
            Error::new(ErrorKind::ModelNotFound, format!("the embedded model has no file `{name}`"))
        })
    }
}
