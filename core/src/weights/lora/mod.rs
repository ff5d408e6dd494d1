//! LoRA files: small changes to the layers of a model's networks (Hu et al., arXiv 2106.09685).
//!
//! A change to a weight `W` is made of thin matrices: in a LoRA `W + scale alpha / rank up down`, for
//! convolutions too (LoCon), and of two such products in a LoHa and a LoKr. It is added when the weight is
//! loaded, so a network with and without it costs the same, and nothing is left of it when the weights
//! are loaded again without it. What a file says is applied in full or refused: one that loads has no
//! key that was not understood.

mod adapted;
mod change;
mod keys;
mod layers;
mod notes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};

use self::change::{Change, Found};
use self::keys::split;
use self::layers::{Layers, unknown};
use self::notes::Notes;
use super::checkpoint::Source;
use super::safetensors::SafeTensorsFile;
use crate::error::{Error, Result};

pub(crate) use self::adapted::Adapted;
pub(crate) use self::layers::Network;

/// A network that LoRA files may change: its tensors, and what it is called.
pub(crate) type Base = (&'static Network, Arc<dyn Source>);

/// The changes of one file to one network, checked against it.
pub(crate) struct Lora {
    file: Arc<SafeTensorsFile>,
    /// By the name of the weight that is changed.
    changes: BTreeMap<String, Change>,
}

/// The tensors of each network with the changes of LoRA files, given by their paths and strengths. A
/// network that no file changes keeps its own source.
pub(crate) fn apply<'a>(
    files: impl IntoIterator<Item = (&'a Path, f64)>,
    networks: &[Base],
) -> Result<Vec<Arc<dyn Source>>> {
    let mut loras: Vec<Vec<(Arc<Lora>, f64)>> = networks.iter().map(|_| Vec::new()).collect();
    for (path, scale) in files {
        adapted::check_scale(scale).map_err(|e| e.with("file", path.display()))?;
        for (of_network, lora) in loras.iter_mut().zip(Lora::open(path, networks)?) {
            if scale != 0.0 && !lora.changes.is_empty() {
                of_network.push((Arc::new(lora), scale));
            }
        }
    }
    let sources = networks.iter().zip(loras).map(|((_, base), loras)| {
        let base = Arc::clone(base);
        Ok(if loras.is_empty() { base } else { Arc::new(Adapted::new(base, loras)?) as Arc<_> })
    });
    sources.collect()
}

impl Lora {
    /// Opens the file at `path`, which is for networks whose tensors are in `networks`: what it changes
    /// in each of them.
    pub(crate) fn open(path: &Path, networks: &[Base]) -> Result<Vec<Self>> {
        let file = SafeTensorsFile::open(path)?;
        Self::new(file, networks).map_err(|e| e.with("file", path.display()))
    }

    /// As [`open`](Self::open), of a file that is open.
    pub(crate) fn new(file: SafeTensorsFile, networks: &[Base]) -> Result<Vec<Self>> {
        let layers = networks.iter().map(|(network, base)| Layers::of(&**base, network));
        let layers = layers.collect::<Result<Vec<_>>>()?;
        let mut found: Vec<BTreeMap<String, Found>> = vec![BTreeMap::new(); networks.len()];
        for key in file.names() {
            let (layer, part) = split(&key).map_err(|e| e.with("tensor", &key))?;
            let weight = layers.iter().enumerate().find_map(|(i, layers)| {
                layers.weight(layer).map(|weight| Some((i, weight?))).transpose()
            });
            let (i, weight) = weight
                .unwrap_or_else(|| Err(unknown(layer)))
                .map_err(|e: Error| e.with("tensor", &key))?;
            let place = found[i].entry(weight.to_owned()).or_default();
            if let Some(other) = place.insert(part, key.clone()) {
                return Err(Error::model_invalid(format!("`{other}` and `{key}` are the same")));
            }
        }
        if found.iter().all(BTreeMap::is_empty) {
            return Err(Error::model_invalid("the LoRA file is empty"));
        }
        let file = Arc::new(file);
        let all = networks.iter().zip(found).map(|((network, base), found)| {
            let notes = Notes::read(&file, network.notes)?;
            let changes = found.into_iter().map(|(weight, found)| {
                let shape = base.shape(&weight).unwrap_or_default();
                let rounds = network.rounds_alpha();
                let change = Change::new(&file, &weight, &shape, found, notes.as_ref(), rounds)?;
                Ok((weight, change))
            });
            Ok(Self { file: Arc::clone(&file), changes: changes.collect::<Result<_>>()? })
        });
        all.collect()
    }

    /// How many layers are changed.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// What is added to the weight `name` at a scale of 1, in `f32`, if it is changed.
    fn change(&self, name: &str, device: &Device) -> Option<Result<Tensor>> {
        let change = self.changes.get(name)?;
        let loaded = change.load(&self.file, device);
        Some(loaded.map_err(|e: Error| e.with("file", self.file.origin(name))))
    }
}
