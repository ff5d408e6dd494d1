//! A network's tensors with LoRAs laid over them.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::Lora;
use crate::device::classify;
use crate::error::{Error, Result};
use crate::weights::checkpoint::Source;

/// A source whose weights are changed as they are loaded.
pub(crate) struct Adapted {
    base: Arc<dyn Source>,
    /// LoRAs and how strongly they are applied, in order.
    loras: Vec<(Arc<Lora>, f64)>,
}

impl Adapted {
    /// The tensors of `base` with `loras`, each of which was opened for it, at their scales. They may
    /// be negative.
    pub(crate) fn new(base: Arc<dyn Source>, loras: Vec<(Arc<Lora>, f64)>) -> Result<Self> {
        loras.iter().try_for_each(|(_, scale)| check_scale(*scale))?;
        Ok(Self { base, loras })
    }
}

/// Fails unless a LoRA can be applied so strongly.
pub(super) fn check_scale(scale: f64) -> Result<()> {
    if scale.is_finite() {
        return Ok(());
    }
    let message = format!("the scale of a LoRA is {scale}");
    Err(Error::invalid_input(message).with("field", "scale"))
}

impl Source for Adapted {
    fn names(&self) -> Vec<String> {
        self.base.names()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.base.shape(name)
    }

    /// The sum is made in `f32` and then converted. A weight that nothing changes is loaded as it is.
    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        let failed = |e| classify(e, "cannot apply a LoRA");
        for (lora, scale) in self.loras.iter().filter(|(_, scale)| *scale != 0.0) {
            let Some(change) = lora.change(name, device) else { continue };
            let weight = match sum.take() {
                Some(weight) => weight,
                None => self.base.load(name, DType::F32, device)?,
            };
            let change = change?;
            let added = if *scale == 1.0 { Ok(change) } else { change * *scale };
            sum = Some(added.and_then(|added| weight + added).map_err(failed)?);
        }
        match sum {
            Some(weight) => weight.to_dtype(dtype).map_err(failed),
            None => self.base.load(name, dtype, device),
        }
    }

    fn stored(&self, name: &str) -> Option<DType> {
        self.base.stored(name)
    }

    fn origin(&self, name: &str) -> &str {
        self.base.origin(name)
    }
}
