//! Tensors by name, whatever file they come from.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Shape, Tensor};

use super::safetensors::SafeTensorsFile;
use crate::error::{Error, Result};

/// How many tensor names an error lists before it stops.
const LISTED: usize = 10;

/// Where tensors are kept until a network takes them.
enum Store {
    /// A mapped file: tensors are copied out one by one.
    Mapped(SafeTensorsFile),
    /// Tensors that an importer has already made, on the CPU.
    Made(BTreeMap<String, Tensor>),
    /// Whatever is asked for, out of a seed. Nothing is there before.
    #[cfg(test)]
    Random(u64),
}

/// The tensors of one checkpoint, under the names that the networks ask for.
pub(crate) struct Weights {
    store: Store,
    origin: String,
    device: Device,
    dtype: DType,
    taken: RefCell<BTreeSet<String>>,
}

impl Weights {
    /// The tensors of a safetensors file, to be handed out on `device` as `dtype`.
    pub(crate) fn mapped(
        file: SafeTensorsFile,
        origin: String,
        device: &Device,
        dtype: DType,
    ) -> Self {
        Self::with_store(Store::Mapped(file), origin, device, dtype)
    }

    /// Tensors that an importer made (on the CPU), to be handed out on `device` as `dtype`.
    pub(crate) fn made(
        tensors: BTreeMap<String, Tensor>,
        origin: String,
        device: &Device,
        dtype: DType,
    ) -> Self {
        Self::with_store(Store::Made(tensors), origin, device, dtype)
    }

    /// Whatever tensors a network asks for, out of a seed.
    #[cfg(test)]
    pub(crate) fn random(seed: u64, device: &Device, dtype: DType) -> Self {
        Self::with_store(Store::Random(seed), "random weights".to_owned(), device, dtype)
    }

    fn with_store(store: Store, origin: String, device: &Device, dtype: DType) -> Self {
        Self { store, origin, device: device.clone(), dtype, taken: RefCell::default() }
    }

    /// The scope in which names are asked for in full.
    pub(crate) fn root(&self) -> Scope<'_> {
        Scope { weights: self, prefix: String::new() }
    }

    /// The shape of a tensor, if there is one of that name.
    pub(crate) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match &self.store {
            Store::Mapped(file) => file.shape(name),
            Store::Made(tensors) => tensors.get(name).map(|t| t.dims().to_vec()),
            #[cfg(test)]
            Store::Random(_) => None,
        }
    }

    fn names(&self) -> Vec<String> {
        match &self.store {
            Store::Mapped(file) => file.names().map(str::to_owned).collect(),
            Store::Made(tensors) => tensors.keys().cloned().collect(),
            #[cfg(test)]
            Store::Random(_) => Vec::new(),
        }
    }

    fn take(&self, name: &str, expected: &Shape, dtype: DType) -> Result<Tensor> {
        let placed = |tensor: candle_core::Result<Tensor>| {
            tensor
                .and_then(|t| t.to_dtype(dtype)?.to_device(&self.device))
                .map_err(|e| crate::device::classify(e, "cannot load a tensor"))
        };
        #[cfg(test)]
        if let Store::Random(seed) = self.store {
            return placed(super::random::tensor(seed, name, expected));
        }
        let found = self.shape(name).ok_or_else(|| self.missing(name))?;
        if found != expected.dims() {
            return Err(Error::model_invalid(format!(
                "tensor `{name}` has shape {found:?}, but the configuration asks for {:?}",
                expected.dims()
            ))
            .with("file", &self.origin));
        }
        let tensor = match &self.store {
            Store::Mapped(file) => file.load(name, dtype, &self.device),
            Store::Made(tensors) => placed(Ok(tensors[name].clone())),
            #[cfg(test)]
            Store::Random(_) => Err(self.missing(name)),
        }
        .map_err(|error| error.with("tensor", name).with("file", &self.origin))?;
        self.taken.borrow_mut().insert(name.to_owned());
        Ok(tensor)
    }

    fn missing(&self, name: &str) -> Error {
        let names = self.names();
        let listed: Vec<_> = names.iter().take(LISTED).map(String::as_str).collect();
        Error::model_invalid(format!(
            "tensor `{name}` is missing; the file has {} tensors, starting with {}",
            names.len(),
            listed.join(", ")
        ))
        .with("file", &self.origin)
    }

    /// Fails if the checkpoint holds tensors that no layer took: they mean that the configuration
    /// describes another network than the one that was saved. `ignorable` names what may stay.
    pub(crate) fn check_all_taken(&self, ignorable: impl Fn(&str) -> bool) -> Result<()> {
        let taken = self.taken.borrow();
        let left: Vec<_> = self
            .names()
            .into_iter()
            .filter(|name| !taken.contains(name) && !ignorable(name))
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        let listed = left.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
        Err(Error::model_invalid(format!(
            "the checkpoint has {} tensors that the configuration does not account for: {listed}{}",
            left.len(),
            if left.len() > LISTED { ", ..." } else { "" }
        ))
        .with("file", &self.origin))
    }
}

/// A prefix into [`Weights`]: `scope.at("blocks.3")` is where block 3 finds its tensors.
#[derive(Clone)]
pub(crate) struct Scope<'a> {
    weights: &'a Weights,
    prefix: String,
}

impl Scope<'_> {
    /// The scope below this one.
    pub(crate) fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { weights: self.weights, prefix: self.full(&name.to_string()) }
    }

    /// The tensor `name` of exactly this shape.
    pub(crate) fn get(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        self.weights.take(&self.full(name), &shape.into(), self.weights.dtype)
    }

    /// As [`get`](Self::get), in `f32` whatever the precision is: for tensors that are small and
    /// decide about accuracy.
    pub(crate) fn get_f32(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        self.weights.take(&self.full(name), &shape.into(), DType::F32)
    }

    /// As [`get_f32`](Self::get_f32), or `None` if the checkpoint has no tensor `name`.
    pub(crate) fn get_f32_if_there(
        &self,
        shape: impl Into<Shape>,
        name: &str,
    ) -> Result<Option<Tensor>> {
        let is_there = self.has(name);
        // Random weights have everything that may be there.
        #[cfg(test)]
        let is_there = is_there || matches!(self.weights.store, Store::Random(_));
        if is_there { self.get_f32(shape, name).map(Some) } else { Ok(None) }
    }

    /// Whether the checkpoint has a tensor `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.shape(name).is_some()
    }

    /// The shape of the tensor `name`, if there is one.
    pub(crate) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.weights.shape(&self.full(name))
    }

    /// Where tensors are handed out.
    pub(crate) fn device(&self) -> &Device {
        &self.weights.device
    }

    /// As what tensors are handed out.
    pub(crate) fn dtype(&self) -> DType {
        self.weights.dtype
    }

    fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}
