//! Tensors by name, whatever file they come from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Shape, Tensor};

use crate::error::{Error, Result};

/// How many tensor names an error lists before it stops.
const LISTED: usize = 10;

/// Where tensors are kept until a network takes them. Sources can be laid over each other: one that
/// renames, scales or adds to what another one has is a source again.
pub(crate) trait Source: Send + Sync {
    /// The names of all tensors.
    fn names(&self) -> Vec<String>;

    /// The shape of a tensor, if there is one of that name.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// Makes one tensor, converted to `dtype`, on `device`. `name` is there.
    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor>;

    /// The file that a tensor is in, for error messages.
    fn origin(&self, name: &str) -> &str;

    /// The type that a tensor is stored in, where candle has it.
    fn stored(&self, _name: &str) -> Option<DType> {
        None
    }
}

/// Tensors that an importer has already made, on the CPU.
struct Made {
    tensors: BTreeMap<String, Tensor>,
    origin: String,
}

impl Source for Made {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|tensor| tensor.dims().to_vec())
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        placed(Ok(self.tensors[name].clone()), dtype, device)
    }

    fn origin(&self, _: &str) -> &str {
        &self.origin
    }
}

fn placed(tensor: candle_core::Result<Tensor>, dtype: DType, device: &Device) -> Result<Tensor> {
    tensor
        .and_then(|tensor| tensor.to_dtype(dtype)?.to_device(device))
        .map_err(|e| crate::device::classify(e, "cannot load a tensor"))
}

#[derive(Clone)]
enum Store {
    Source(Arc<dyn Source>),
    /// Whatever is asked for, out of a seed. Nothing is there before.
    #[cfg(any(test, feature = "gpu-check"))]
    Random(u64),
}

/// The tensors of one checkpoint, under the names that the networks ask for. Clones share them, and
/// what was taken.
#[derive(Clone)]
pub(crate) struct Weights {
    store: Store,
    device: Device,
    dtype: DType,
    taken: Arc<Mutex<BTreeSet<String>>>,
    /// Whether values are left in the file.
    is_trial: bool,
}

impl Weights {
    /// The tensors of a source, to be handed out on `device` as `dtype`.
    pub(crate) fn new(source: Arc<dyn Source>, device: &Device, dtype: DType) -> Self {
        Self::with_store(Store::Source(source), device, dtype)
    }

    /// Tensors that an importer made (on the CPU), to be handed out on `device` as `dtype`.
    pub(crate) fn made(
        tensors: BTreeMap<String, Tensor>,
        origin: String,
        device: &Device,
        dtype: DType,
    ) -> Self {
        Self::new(Arc::new(Made { tensors, origin }), device, dtype)
    }

    /// Where the tensors come from.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn source(&self) -> Arc<dyn Source> {
        match &self.store {
            Store::Source(source) => Arc::clone(source),
            #[cfg(any(test, feature = "gpu-check"))]
            Store::Random(_) => unreachable!("random weights have no source"),
        }
    }

    /// Whatever tensors a network asks for, out of a seed.
    #[cfg(any(test, feature = "gpu-check"))]
    pub(crate) fn random(seed: u64, device: &Device, dtype: DType) -> Self {
        Self::with_store(Store::Random(seed), device, dtype)
    }

    fn with_store(store: Store, device: &Device, dtype: DType) -> Self {
        let device = device.clone();
        Self { store, device, dtype, taken: Arc::default(), is_trial: false }
    }

    /// The same tensors without their values, for a network that is made only to find out whether it
    /// can be: every tensor is a view of one zero.
    pub(crate) fn trial(mut self) -> Self {
        self.is_trial = true;
        self
    }

    /// The scope in which names are asked for in full.
    pub(crate) fn root(&self) -> Scope {
        Scope { weights: self.clone(), prefix: String::new() }
    }

    /// The shape of a tensor, if there is one of that name.
    pub(crate) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match &self.store {
            Store::Source(source) => source.shape(name),
            #[cfg(any(test, feature = "gpu-check"))]
            Store::Random(_) => None,
        }
    }

    fn names(&self) -> Vec<String> {
        match &self.store {
            Store::Source(source) => source.names(),
            #[cfg(any(test, feature = "gpu-check"))]
            Store::Random(_) => Vec::new(),
        }
    }

    fn origin(&self, name: &str) -> &str {
        match &self.store {
            Store::Source(source) => source.origin(name),
            #[cfg(any(test, feature = "gpu-check"))]
            Store::Random(_) => "random weights",
        }
    }

    /// Fails unless there is a tensor of this name and shape; it counts as taken.
    fn check(&self, name: &str, expected: &Shape) -> Result<()> {
        #[cfg(any(test, feature = "gpu-check"))]
        if let Store::Random(_) = self.store {
            return Ok(());
        }
        let found = self.shape(name).ok_or_else(|| self.missing(name))?;
        if found != expected.dims() {
            return Err(Error::model_invalid(format!(
                "tensor `{name}` has shape {found:?}, but the configuration asks for {:?}",
                expected.dims()
            ))
            .with("file", self.origin(name)));
        }
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Ok(())
    }

    fn take(&self, name: &str, expected: &Shape, dtype: DType) -> Result<Tensor> {
        self.check(name, expected)?;
        match &self.store {
            Store::Source(_) if self.is_trial => Tensor::zeros((), dtype, &self.device)
                .and_then(|zero| zero.broadcast_as(expected.clone()))
                .map_err(|e| crate::device::classify(e, "cannot make a tensor")),
            Store::Source(source) => source
                .load(name, dtype, &self.device)
                .map_err(|error| error.with("tensor", name).with("file", source.origin(name))),
            #[cfg(any(test, feature = "gpu-check"))]
            Store::Random(seed) => placed(
                super::random::tensor(*seed, name, expected, &self.device),
                dtype,
                &self.device,
            ),
        }
    }

    fn missing(&self, name: &str) -> Error {
        let names = self.names();
        let listed: Vec<_> = names.iter().take(LISTED).map(String::as_str).collect();
        Error::model_invalid(format!(
            "tensor `{name}` is missing; the file has {} tensors, starting with {}",
            names.len(),
            listed.join(", ")
        ))
        .with("file", self.origin(name))
    }

    /// Fails if the checkpoint holds tensors that no layer took: they mean that the configuration
    /// describes another network than the one that was saved. `ignorable` names what may stay.
    pub(crate) fn check_all_taken(&self, ignorable: impl Fn(&str) -> bool) -> Result<()> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
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
        .with("file", self.origin(&left[0])))
    }
}

/// A prefix into [`Weights`]: `scope.at("blocks.3")` is where block 3 finds its tensors.
#[derive(Clone)]
pub(crate) struct Scope {
    weights: Weights,
    prefix: String,
}

impl Scope {
    /// The scope below this one.
    pub(crate) fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { weights: self.weights.clone(), prefix: self.full(&name.to_string()) }
    }

    /// The tensor `name` of exactly this shape.
    pub(crate) fn get(&self, shape: impl Into<Shape>, name: &str) -> Result<Tensor> {
        self.weights.take(&self.full(name), &shape.into(), self.weights.dtype)
    }

    /// Fails as [`get`](Self::get) does, and counts the tensor as taken, without reading it.
    pub(crate) fn expect(&self, shape: impl Into<Shape>, name: &str) -> Result<()> {
        self.weights.check(&self.full(name), &shape.into())
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
        #[cfg(any(test, feature = "gpu-check"))]
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

    /// What was taken out of this scope and the scopes below it: names below it, and shapes.
    pub(crate) fn taken(&self) -> Vec<(String, Vec<usize>)> {
        let prefix = self.full("");
        let taken = self.weights.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let names = taken.iter().filter_map(|name| Some((name, name.strip_prefix(&prefix)?)));
        names
            .filter_map(|(name, below)| Some((below.to_owned(), self.weights.shape(name)?)))
            .collect()
    }

    /// Whether this is about names and shapes only: see [`Weights::trial`].
    pub(crate) fn is_trial(&self) -> bool {
        self.weights.is_trial
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
