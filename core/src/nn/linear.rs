//! Linear layers.

use candle_core::{DType, Result, Tensor};

use crate::error;
use crate::kernels::activation::Activation;
use crate::kernels::linear;
use crate::weights::Scope;

/// `activation(x W^T + b)` over the last dimension.
pub(crate) struct Linear {
    weight: Tensor,
    bias: Tensor,
    activation: Activation,
}

impl Linear {
    /// `weight` of shape `(n, k)`, and `bias` of shape `(n)` unless `has_bias` is false.
    pub(crate) fn load(
        scope: &Scope<'_>,
        k: usize,
        n: usize,
        has_bias: bool,
    ) -> error::Result<Self> {
        let weight = scope.get((n, k), "weight")?;
        let bias = if has_bias { scope.get(n, "bias")? } else { zeros(scope, n)? };
        Ok(Self::new(weight, bias))
    }

    /// From tensors of shapes `(n, k)` and `(n)`.
    pub(crate) fn new(weight: Tensor, bias: Tensor) -> Self {
        Self { weight, bias, activation: Activation::Identity }
    }

    /// The same layer with an activation behind it.
    pub(crate) fn then(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        linear::forward(x, &self.weight, &self.bias, self.activation)
    }
}

/// A bias of zeros for layers that have none.
pub(crate) fn zeros(scope: &Scope<'_>, n: usize) -> error::Result<Tensor> {
    Tensor::zeros(n, DType::F32, scope.device())
        .and_then(|zeros| zeros.to_dtype(scope.dtype()))
        .map_err(|e| crate::device::classify(e, "cannot make a bias"))
}
