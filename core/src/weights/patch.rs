//! Patches of a denoising network, as Fooocus publishes them for inpainting (`inpaint_v26.fooocus.patch`): for each
//! weight that is changed a byte for each of its values, and the numbers that 0 and 255 stand for.
//!
//! `weight + bytes / 255 (most - least) + least`. The names are those of latent diffusion. A file is applied in full or
//! refused.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::checkpoint::Source;
use super::pickle::PickleFile;
use super::single_file::UNetNames;
use crate::device::classify;
use crate::error::{Error, Result};

/// What a file puts before the names of the network.
const PREFIXES: [&str; 2] = ["diffusion_model.", "model.diffusion_model."];
/// Places in the three parts of a change.
const PARTS: [&str; 3] = ["0", "1", "2"];

/// How one weight is changed.
struct Change {
    /// The name in the file.
    name: String,
    /// What 0 and 255 stand for.
    least: f32,
    most: f32,
}

/// A patch that was checked against a network.
pub(crate) struct Patch {
    file: PickleFile,
    /// By the names of the network.
    changes: BTreeMap<String, Change>,
}

impl Patch {
    /// Opens the file at `path`, which is for the network whose tensors are in `base`.
    ///
    /// # Errors
    /// [`ModelInvalid`](crate::ErrorKind::ModelInvalid) if it is none, or does not fit the network.
    pub(crate) fn open(path: &Path, base: &dyn Source) -> Result<Self> {
        let file = PickleFile::open(path)?;
        Self::new(file, base).map_err(|error| error.with("file", path.display()))
    }

    fn new(file: PickleFile, base: &dyn Source) -> Result<Self> {
        let names = base.names();
        let ldm = UNetNames::of(names.iter().map(String::as_str));
        let known: BTreeMap<String, &String> = names
            .iter()
            .filter_map(|name| {
                let (layer, tensor) = name.rsplit_once('.')?;
                let layer = ldm.of_ldm(layer).unwrap_or_else(|| layer.to_owned());
                Some((format!("{layer}.{tensor}"), name))
            })
            .collect();
        let mut changes = BTreeMap::new();
        for part in file.names() {
            let (name, place) = part.rsplit_once('.').unwrap_or((&part, ""));
            if !PARTS.contains(&place) {
                let message =
                    "the tensor is no part of a patch, which has bytes and two numbers for each";
                return Err(Error::model_invalid(message).with("tensor", part));
            }
            if place != PARTS[0] {
                continue;
            }
            let plain = PREFIXES.iter().find_map(|prefix| name.strip_prefix(*prefix));
            let weight = known.get(plain.unwrap_or(name)).ok_or_else(|| {
                let message = format!("the network has no `{name}` for the patch to change");
                Error::model_invalid(message)
            })?;
            let change = change(&file, name, base.shape(weight).unwrap_or_default())
                .map_err(|error| error.with("tensor", name))?;
            if changes.insert((*weight).clone(), change).is_some() {
                return Err(Error::model_invalid("a weight is changed twice").with("tensor", name));
            }
        }
        match changes.is_empty() {
            true => Err(Error::model_invalid("the file changes nothing: it is no patch")),
            false => Ok(Self { file, changes }),
        }
    }

    /// What is added to a weight, in `f32`, if it is changed.
    fn change(&self, name: &str, device: &Device) -> Option<Result<Tensor>> {
        let Change { name, least, most } = self.changes.get(name)?;
        let bytes = self.file.load(&format!("{name}.{}", PARTS[0]), DType::F32, device);
        let bytes = bytes.map_err(|error| error.with("file", self.file.origin(name)));
        Some(bytes.and_then(|bytes| {
            // In this order, as it was made to be undone.
            (bytes / 255.0)
                .and_then(|part| (part * f64::from(most - least))? + f64::from(*least))
                .map_err(|e| classify(e, "cannot apply a patch"))
        }))
    }
}

/// The change under a name, for a weight of this shape.
fn change(file: &PickleFile, name: &str, shape: Vec<usize>) -> Result<Change> {
    let part = |place: &str| format!("{name}.{place}");
    if !file.is_bytes(&part(PARTS[0])) {
        return Err(Error::model_invalid("the first part of a change must be bytes"));
    }
    let found = file.shape(&part(PARTS[0])).unwrap_or_default();
    if found != shape {
        let message = format!("the patch has shape {found:?} and the network {shape:?}");
        return Err(Error::model_invalid(message));
    }
    let number = |place: &str| {
        let number = file.number(&part(place))?.map(|number| number as f32);
        number
            .filter(|number| number.is_finite())
            .ok_or_else(|| Error::model_invalid("a bound of a change is missing or no number"))
    };
    Ok(Change { name: name.to_owned(), least: number(PARTS[1])?, most: number(PARTS[2])? })
}

/// A network's tensors with a patch laid over them.
pub(crate) struct Patched {
    base: Arc<dyn Source>,
    patch: Arc<Patch>,
}

impl Patched {
    /// `patch` was opened for a network with the names and shapes of `base`.
    pub(crate) fn new(base: Arc<dyn Source>, patch: Arc<Patch>) -> Self {
        Self { base, patch }
    }
}

impl Source for Patched {
    fn names(&self) -> Vec<String> {
        self.base.names()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.base.shape(name)
    }

    /// The sum is made in `f32` and then converted. A weight that is not changed is loaded as it is.
    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let Some(change) = self.patch.change(name, device) else {
            return self.base.load(name, dtype, device);
        };
        let (weight, change) = (self.base.load(name, DType::F32, device)?, change?);
        (weight + change)
            .and_then(|sum| sum.to_dtype(dtype))
            .map_err(|e| classify(e, "cannot apply a patch"))
    }

    fn stored(&self, name: &str) -> Option<DType> {
        self.base.stored(name)
    }

    fn origin(&self, name: &str) -> &str {
        self.base.origin(name)
    }
}
