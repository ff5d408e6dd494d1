//! Normalisation layers over the last dimension.

use candle_core::{D, Result, Tensor};

use super::linear::zeros;
use crate::error;
use crate::kernels::norm;
pub(crate) use crate::kernels::norm::Kind as NormKind;
use crate::weights::Scope;

/// Which normalisation a network uses everywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormOptions {
    pub(crate) kind: NormKind,
    pub(crate) eps: f64,
}

/// Layer norm or RMS norm, with its weight and bias.
pub(crate) struct Norm {
    weight: Tensor,
    bias: Tensor,
    options: NormOptions,
}

impl Norm {
    /// `weight` and, where the checkpoint has one, `bias`, both of length `width`.
    pub(crate) fn load(
        scope: &Scope<'_>,
        width: usize,
        options: NormOptions,
    ) -> error::Result<Self> {
        let weight = scope.get(width, "weight")?;
        let bias = match options.kind {
            NormKind::Layer => scope.get_if_there(width, "bias")?,
            NormKind::Rms => None,
        };
        let bias = bias.map_or_else(|| zeros(scope, width), Ok)?;
        Ok(Self { weight, bias, options })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        norm::forward(self.options.kind, x, &self.weight, &self.bias, self.options.eps)
    }
}

/// Divides every vector of the last dimension by its length; a zero vector stays zero.
pub(crate) fn unit_vectors(x: &Tensor) -> Result<Tensor> {
    // An RMS norm whose weight turns the root mean square into the length.
    let width = x.dim(D::Minus1)?;
    let weight = Tensor::full((width as f32).powf(-0.5), width, x.device())?.to_dtype(x.dtype())?;
    norm::forward(NormKind::Rms, x, &weight, &weight.zeros_like()?, f64::from(f32::MIN_POSITIVE))
}
