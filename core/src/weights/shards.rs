//! A checkpoint in several safetensors files, with an index that says which tensor is in which:
//! `*.safetensors.index.json` as the libraries around transformers write it.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use super::checkpoint::Source;
use super::safetensors::SafeTensorsFile;
use crate::error::{Error, ErrorKind, Result};

/// Most files of one checkpoint.
const MAX_FILES: usize = 1024;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// All files of a checkpoint, mapped.
pub(super) struct Shards {
    files: Vec<SafeTensorsFile>,
    /// The number of the file that each tensor is in.
    places: BTreeMap<String, usize>,
}

impl Shards {
    /// Opens the files that `index`, the text of an index, names, with `open`.
    pub(super) fn open(
        index: &str,
        open: impl Fn(&str) -> Result<SafeTensorsFile>,
    ) -> Result<Self> {
        let index: Index = serde_json::from_str(index)
            .map_err(|e| Error::model_invalid(format!("not an index of tensors: {e}")))?;
        let mut files = Vec::new();
        let mut numbers = BTreeMap::new();
        let mut places = BTreeMap::new();
        for (tensor, file) in index.weight_map {
            let number = match numbers.get(&file) {
                Some(number) => *number,
                None => {
                    check_name(&file)?;
                    files.push(open(&file).map_err(|e| absent(e, &file))?);
                    numbers.insert(file.clone(), files.len() - 1);
                    files.len() - 1
                }
            };
            if !files[number].has(&tensor) {
                return Err(Error::model_invalid(format!(
                    "the index says that `{tensor}` is in `{file}`, which has no such tensor"
                )));
            }
            places.insert(tensor, number);
            if files.len() > MAX_FILES {
                return Err(Error::model_invalid(format!("more than {MAX_FILES} files")));
            }
        }
        Ok(Self { files, places })
    }

    fn file(&self, name: &str) -> Option<&SafeTensorsFile> {
        self.places.get(name).map(|number| &self.files[*number])
    }
}

impl Source for Shards {
    fn names(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.file(name)?.shape(name)
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        match self.file(name) {
            Some(file) => file.load(name, dtype, device),
            None => Err(Error::model_invalid(format!("tensor `{name}` is missing"))),
        }
    }

    fn stored(&self, name: &str) -> Option<DType> {
        self.file(name)?.stored(name)
    }

    fn origin(&self, name: &str) -> &str {
        let first = self.files.first();
        self.file(name).or(first).map_or("an empty index", |file| file.origin(name))
    }
}

/// Fails unless a name is that of a file beside the index.
fn check_name(name: &str) -> Result<()> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(_)), None) if !name.contains('\\') => Ok(()),
        _ => Err(Error::model_invalid(format!("the index names `{name}`, which is no file name"))),
    }
}

fn absent(error: Error, file: &str) -> Error {
    if error.kind() != ErrorKind::ModelNotFound {
        return error;
    }
    Error::new(
        ErrorKind::ModelNotFound,
        format!("the index names `{file}`, which is not there; was everything downloaded?"),
    )
    .caused_by(error)
}
