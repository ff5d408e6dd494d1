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
    let mut loras: Vec<Changes> = networks.iter().map(|_| Vec::new()).collect();
    for (path, scale) in files {
        adapted::check_scale(scale).map_err(|e| e.with("file", path.display()))?;
        add(&mut loras, Lora::open(path, networks)?, scale);
    }
    adapted_all(networks, loras)
}

/// As [`apply`], for a model that has a second network beside the first one: the tensors of `networks`, and those of
/// `second`, which come last.
///
/// As in Fooocus, each of the two takes the files that fit it. One that fits either of them is right; a network that has
/// not all of the layers that a file changes, in their shapes, takes nothing of it.
pub(crate) fn apply_to_both<'a>(
    files: impl IntoIterator<Item = (&'a Path, f64)>,
    networks: &[Base],
    second: &Base,
) -> Result<Vec<Arc<dyn Source>>> {
    // The second network in the place of the first one, with what is beside it.
    let others: Vec<Base> = [second].into_iter().chain(networks.iter().skip(1)).cloned().collect();
    let mut loras: Vec<Changes> = networks.iter().map(|_| Vec::new()).collect();
    let mut of_second: Vec<Changes> = vec![Vec::new()];
    for (path, scale) in files {
        adapted::check_scale(scale).map_err(|e| e.with("file", path.display()))?;
        let file = Arc::new(SafeTensorsFile::open(path)?);
        // Why a file does not fit the second network is said only where it does not fit the first one either,
        // and then of that one.
        let mut fits_second = Lora::new(Arc::clone(&file), &others).ok().unwrap_or_default();
        let beside = fits_second.split_off(fits_second.len().min(1));
        let changes_second = fits_second.iter().any(|lora| !lora.changes.is_empty());
        match Lora::new(file, networks) {
            Ok(fits) => add(&mut loras, fits, scale),
            Err(_) if changes_second => add(loras.iter_mut().skip(1), beside, scale),
            Err(error) => return Err(error.with("file", path.display())),
        }
        add(&mut of_second, fits_second, scale);
    }
    let mut sources = adapted_all(networks, loras)?;
    sources.extend(adapted_all(std::slice::from_ref(second), of_second)?);
    Ok(sources)
}

/// The changes of one network, in order, and how strongly they are applied.
type Changes = Vec<(Arc<Lora>, f64)>;

/// Adds what a file changes in each network.
fn add<'a>(
    changes: impl IntoIterator<Item = &'a mut Changes>,
    loras: impl IntoIterator<Item = Lora>,
    scale: f64,
) {
    for (of_network, lora) in changes.into_iter().zip(loras) {
        if scale != 0.0 && !lora.changes.is_empty() {
            of_network.push((Arc::new(lora), scale));
        }
    }
}

/// The tensors of each network with its changes.
fn adapted_all(networks: &[Base], loras: Vec<Changes>) -> Result<Vec<Arc<dyn Source>>> {
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
        let file = Arc::new(SafeTensorsFile::open(path)?);
        Self::new(file, networks).map_err(|e| e.with("file", path.display()))
    }

    /// As [`open`](Self::open), of a file that is open.
    pub(crate) fn new(file: Arc<SafeTensorsFile>, networks: &[Base]) -> Result<Vec<Self>> {
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
