//! LoRA files: small changes to the linear layers of a network (Hu et al., arXiv 2106.09685).
//!
//! A change to a weight `W` is a product of two thin matrices, `W + scale alpha / rank up down`. It is
//! added when the weight is loaded, so a network with and without it costs the same, and nothing is
//! left of it when the weights are loaded again without it. What a file says is applied in full or
//! refused: one that loads has no key that was not understood.

mod adapted;
mod keys;
mod notes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::Dtype;

use self::keys::{Layers, Part, split};
use self::notes::Notes;
use super::checkpoint::Source;
use super::safetensors::SafeTensorsFile;
use crate::device::classify;
use crate::error::{Error, Result};

pub(crate) use self::adapted::Adapted;

/// Highest rank; published files have 4 to 256.
const MAX_RANK: usize = 4096;

/// The changes of one file, checked against the network that they are for.
pub(crate) struct Lora {
    file: SafeTensorsFile,
    /// By the name of the weight that is changed.
    changes: BTreeMap<String, Change>,
}

/// The names of the tensors that change one weight.
struct Change {
    down: String,
    up: String,
    /// `alpha / rank` where the file has an `alpha` for the layer.
    alpha: Option<f64>,
    /// `alpha / rank` that the file's notes give.
    noted: f64,
}

/// What a file has of one layer.
#[derive(Default)]
struct Found {
    down: Option<String>,
    up: Option<String>,
    alpha: Option<String>,
}

impl Lora {
    /// Opens the file at `path`, which is for the network whose tensors `base` has.
    pub(crate) fn open(path: &Path, base: &dyn Source) -> Result<Self> {
        let file = SafeTensorsFile::open(path)?;
        Self::new(file, base).map_err(|e| e.with("file", path.display()))
    }

    /// As [`open`](Self::open), of a file that is open.
    pub(crate) fn new(file: SafeTensorsFile, base: &dyn Source) -> Result<Self> {
        let layers = Layers::of(base)?;
        let notes = Notes::read(&file)?;
        let mut found: BTreeMap<String, Found> = BTreeMap::new();
        for key in file.names() {
            let (layer, part) = split(&key).map_err(|e| e.with("tensor", &key))?;
            let weight = layers.weight(layer).map_err(|e| e.with("tensor", &key))?;
            let found = found.entry(weight.to_owned()).or_default();
            let place = match part {
                Part::Down => &mut found.down,
                Part::Up => &mut found.up,
                Part::Alpha => &mut found.alpha,
            };
            if let Some(other) = place.replace(key.clone()) {
                return Err(Error::model_invalid(format!("`{other}` and `{key}` are the same")));
            }
        }
        if found.is_empty() {
            return Err(Error::model_invalid("the LoRA file is empty"));
        }
        let mut changes = BTreeMap::new();
        for (weight, found) in found {
            let shape = base.shape(&weight).unwrap_or_default();
            let change = Change::new(&file, &weight, &shape, found, notes.as_ref())?;
            changes.insert(weight, change);
        }
        Ok(Self { file, changes })
    }

    /// How many layers are changed.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// What is added to the weight `name` at a scale of 1, in `f32`, if it is changed.
    fn change(&self, name: &str, device: &Device) -> Option<Result<Tensor>> {
        let change = self.changes.get(name)?;
        let product = || {
            let (down, up) = self.factors(change)?;
            let multiply = || {
                let product = up.to_device(device)?.matmul(&down.to_device(device)?)?;
                if change.noted == 1.0 { Ok(product) } else { product * change.noted }
            };
            multiply().map_err(|e| classify(e, "cannot apply a LoRA"))
        };
        Some(product().map_err(|e: Error| e.with("file", self.file.origin(name))))
    }

    /// Both matrices in `f32`. As in diffusers, `alpha / rank` is a part of them, rounded to the
    /// format of the file; a power of two of it goes into the other matrix, so that small values are
    /// not lost.
    fn factors(&self, change: &Change) -> Result<(Tensor, Tensor)> {
        let load = |name| self.file.load(name, DType::F32, &Device::Cpu);
        let (down, up) = (load(&change.down)?, load(&change.up)?);
        let Some(alpha) = change.alpha else { return Ok((down, up)) };
        let (mut of_down, mut of_up) = (alpha, 1.0);
        while of_down > 0.0 && of_down * 2.0 < of_up {
            of_down *= 2.0;
            of_up /= 2.0;
        }
        let scaled = |tensor: Tensor, name: &str, scale: f64| {
            let stored = match self.file.format(name) {
                Some(Dtype::F16) => DType::F16,
                Some(Dtype::BF16) => DType::BF16,
                _ => DType::F32,
            };
            (tensor * scale)?.to_dtype(stored)?.to_dtype(DType::F32)
        };
        let failed = |e| classify(e, "cannot scale a LoRA");
        Ok((
            scaled(down, &change.down, of_down).map_err(failed)?,
            scaled(up, &change.up, of_up).map_err(failed)?,
        ))
    }
}

impl Change {
    /// Checks what `file` has for the weight `weight` of this shape.
    fn new(
        file: &SafeTensorsFile,
        weight: &str,
        shape: &[usize],
        found: Found,
        notes: Option<&Notes>,
    ) -> Result<Self> {
        let (Some(down), Some(up)) = (&found.down, &found.up) else {
            let half = found.down.or(found.up).or(found.alpha).unwrap_or_default();
            return Err(Error::model_invalid(format!(
                "`{half}` changes `{weight}`, but the other matrix is missing"
            )));
        };
        for name in [down, up] {
            if !matches!(file.format(name), Some(Dtype::F32 | Dtype::F16 | Dtype::BF16)) {
                return Err(Error::unsupported(format!(
                    "the LoRA is stored as {:?}; only F32, F16 and BF16 are read",
                    file.format(name)
                ))
                .with("tensor", name));
            }
        }
        let (of_down, of_up) =
            (file.shape(down).unwrap_or_default(), file.shape(up).unwrap_or_default());
        let (&[rank, inputs], &[outputs, columns]) = (&*of_down, &*of_up) else {
            return Err(Error::unsupported(format!(
                "shapes {of_down:?} and {of_up:?}; only changes to linear layers are read"
            ))
            .with("tensor", down));
        };
        if rank != columns || shape != [outputs, inputs] {
            return Err(Error::model_invalid(format!(
                "shapes {of_down:?} and {of_up:?} do not fit `{weight}` of shape {shape:?}"
            ))
            .with("tensor", down));
        }
        if !(1..=MAX_RANK).contains(&rank) {
            return Err(Error::model_invalid(format!("rank {rank}, expected 1 to {MAX_RANK}"))
                .with("tensor", down));
        }
        let alpha = found.alpha.as_deref().map(|name| read_alpha(file, name)).transpose()?;
        let noted = match (notes, &found.alpha) {
            (Some(_), Some(alpha)) => {
                return Err(Error::model_invalid(
                    "the LoRA has both an alpha of its own and one in the file's notes",
                )
                .with("tensor", alpha));
            }
            (Some(notes), None) => notes.scale(weight, rank)?,
            (None, _) => 1.0,
        };
        let alpha = alpha.map(|alpha| alpha / rank as f64);
        Ok(Self { down: down.clone(), up: up.clone(), alpha, noted })
    }
}

fn read_alpha(file: &SafeTensorsFile, name: &str) -> Result<f64> {
    let count: usize = file.shape(name).unwrap_or_default().iter().product();
    let alpha = (count == 1)
        .then(|| file.load(name, DType::F32, &Device::Cpu))
        .transpose()?
        .and_then(|alpha| alpha.flatten_all().ok()?.get(0).ok()?.to_scalar::<f32>().ok());
    alpha.filter(|alpha| alpha.is_finite()).map(f64::from).ok_or_else(|| {
        Error::model_invalid("the alpha of a LoRA is no number").with("tensor", name)
    })
}
