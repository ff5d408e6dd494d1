//! Tensors of another source under other names.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::checkpoint::Source;
use crate::error::{Error, Result};

/// What becomes of a tensor's name.
pub(super) enum Name {
    Kept,
    Now(String),
    /// Nobody shall see the tensor.
    Hidden,
}

/// A source with other names.
pub(crate) struct Renamed {
    base: Arc<dyn Source>,
    /// The names in `base` by those that are asked for.
    names: BTreeMap<String, String>,
}

impl Renamed {
    /// The tensors of `base` under the names that `rename` gives them; no two may get the same.
    pub(super) fn new(base: Arc<dyn Source>, rename: impl Fn(&str) -> Name) -> Result<Self> {
        let mut names = BTreeMap::new();
        for old in base.names() {
            let new = match rename(&old) {
                Name::Kept => old.clone(),
                Name::Now(new) => new,
                Name::Hidden => continue,
            };
            if let Some(other) = names.insert(new.clone(), old.clone()) {
                return Err(Error::model_invalid(format!(
                    "`{other}` and `{old}` are both names of `{new}`"
                ))
                .with("file", base.origin(&old)));
            }
        }
        Ok(Self { base, names })
    }
}

impl Source for Renamed {
    fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.base.shape(self.names.get(name)?)
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        match self.names.get(name) {
            Some(old) => self.base.load(old, dtype, device),
            None => Err(Error::model_invalid(format!("tensor `{name}` is missing"))),
        }
    }

    fn stored(&self, name: &str) -> Option<DType> {
        self.base.stored(self.names.get(name)?)
    }

    fn origin(&self, name: &str) -> &str {
        self.base.origin(self.names.get(name).map_or(name, String::as_str))
    }
}
