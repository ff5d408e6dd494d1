//! Normalisation layers over the last dimension.

use candle_core::{Result, Tensor};

use super::linear::zeros;
use crate::device::classify;
use crate::error;
use crate::kernels::activation::Activation;
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
pub(crate) struct Norm(norm::Weights);

impl Norm {
    /// `weight` and, where the checkpoint has one, `bias`, both of length `width`.
    pub(crate) fn load(scope: &Scope, width: usize, options: NormOptions) -> error::Result<Self> {
        let weight = scope.get_f32(width, "weight")?;
        let bias = match options.kind {
            NormKind::Layer => scope.get_f32_if_there(width, "bias")?,
            NormKind::Rms => None,
        };
        let bias = bias.map_or_else(|| zeros(scope, width), Ok)?;
        norm::Weights::new(options.kind, &weight, &bias, options.eps)
            .map(Self)
            .map_err(|e| classify(e, "cannot prepare a norm"))
    }

    /// What the kernels take.
    pub(crate) fn weights(&self) -> &norm::Weights {
        &self.0
    }

    /// What the kernels take, for norms that become part of another operation.
    pub(crate) fn into_weights(self) -> norm::Weights {
        self.0
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        norm::forward(x, &self.0, Activation::Identity, None)
    }

    /// `residual + norm(x)`.
    pub(crate) fn forward_onto(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        norm::forward(x, &self.0, Activation::Identity, Some(residual))
    }
}
