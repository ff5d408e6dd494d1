//! Linear layers.

use candle_core::{DType, Result, Tensor};

use super::Norm;
use crate::device::classify;
use crate::error;
use crate::kernels::activation::Activation;
use crate::kernels::linear::{self, Combine, Options, Window};
use crate::weights::Scope;

/// `activation(x W^T + b)` over the last dimension.
pub(crate) struct Linear {
    weights: linear::Weights,
    activation: Activation,
}

impl Linear {
    /// `weight` of shape `(n, k)`, and `bias` of shape `(n)` unless `has_bias` is false.
    pub(crate) fn load(scope: &Scope, k: usize, n: usize, has_bias: bool) -> error::Result<Self> {
        Self::load_scaled(scope, k, n, has_bias, None)
    }

    /// As [`load`](Self::load), with every output multiplied by its value of `gamma` `(n)`: layer
    /// scale, which costs nothing when it is part of the weights.
    pub(crate) fn load_scaled(
        scope: &Scope,
        k: usize,
        n: usize,
        has_bias: bool,
        gamma: Option<&Tensor>,
    ) -> error::Result<Self> {
        let weight = scope.get((n, k), "weight")?;
        let bias = if has_bias { scope.get_f32(n, "bias")? } else { zeros(scope, n)? };
        Self::scaled(&weight, &bias, gamma)
    }

    /// Several layers of one input as one, `n` outputs of each behind each other, all with a bias
    /// unless `has_bias` is false.
    pub(crate) fn load_joined(
        layers: &[Scope],
        k: usize,
        n: usize,
        has_bias: bool,
    ) -> error::Result<Self> {
        let joined = |part: &dyn Fn(&Scope) -> error::Result<Tensor>| {
            let parts = layers.iter().map(part).collect::<error::Result<Vec<_>>>()?;
            Tensor::cat(&parts, 0).map_err(|e| classify(e, "cannot join linear layers"))
        };
        let weight = joined(&|scope| scope.get((n, k), "weight"))?;
        let bias = match has_bias {
            true => joined(&|scope| scope.get_f32(n, "bias"))?,
            false => joined(&|scope| zeros(scope, n))?,
        };
        Self::new(&weight, &bias)
    }

    /// From tensors of shapes `(n, k)` and `(n)`.
    pub(crate) fn new(weight: &Tensor, bias: &Tensor) -> error::Result<Self> {
        Self::scaled(weight, bias, None)
    }

    /// From tensors of shapes `(n, k)` and `(n)`, and layer scale.
    pub(crate) fn scaled(
        weight: &Tensor,
        bias: &Tensor,
        gamma: Option<&Tensor>,
    ) -> error::Result<Self> {
        let prepare = || match gamma {
            None => linear::Weights::new(weight, bias),
            Some(gamma) => {
                let rows = gamma.to_dtype(DType::F32)?.unsqueeze(1)?;
                let scaled = weight.to_dtype(DType::F32)?.broadcast_mul(&rows)?;
                let bias = (bias.to_dtype(DType::F32)? * gamma.to_dtype(DType::F32)?)?;
                linear::Weights::new(&scaled.to_dtype(weight.dtype())?, &bias)
            }
        };
        let weights = prepare().map_err(|e| classify(e, "cannot prepare a linear layer"))?;
        Ok(Self { weights, activation: Activation::Identity })
    }

    /// A convolution's weight `(n, c, h, w)` and bias `(n)`, for [`forward_windows`](Self::forward_windows) with this window.
    pub(super) fn of_convolution(
        weight: &Tensor,
        bias: &Tensor,
        window: Window,
    ) -> error::Result<Self> {
        let weights = linear::Weights::of_convolution(weight, bias, window)
            .map_err(|e| classify(e, "cannot lay out a convolution"))?;
        Ok(Self { weights, activation: Activation::Identity })
    }

    /// The same layer with an activation behind it.
    pub(crate) fn then(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, None, Combine::Keep)
    }

    /// Of `norm(x)`.
    pub(crate) fn forward_normed(&self, x: &Tensor, norm: Option<&Norm>) -> Result<Tensor> {
        self.run(x, norm, Combine::Keep)
    }

    /// Of `norm(x)`, added to `residual`.
    pub(crate) fn forward_onto(
        &self,
        x: &Tensor,
        norm: Option<&Norm>,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        self.run(x, norm, residual.map_or(Combine::Keep, Combine::Add))
    }

    /// `next` of this layer of `norm(x)`, added to `residual`.
    pub(crate) fn forward_two(
        &self,
        x: &Tensor,
        norm: Option<&Norm>,
        next: &Self,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (norm, activation) = (norm.map(Norm::weights), next.activation);
        let combine = residual.map_or(Combine::Keep, Combine::Add);
        let options = Options { norm, window: None, activation, combine, dtype: x.dtype() };
        linear::forward_two(x, [&self.weights, &next.weights], self.activation, &options)
    }

    /// Of `norm(x)`, multiplied by `other`.
    pub(crate) fn forward_times(
        &self,
        x: &Tensor,
        norm: Option<&Norm>,
        other: &Tensor,
    ) -> Result<Tensor> {
        self.run(x, norm, Combine::Multiply(other))
    }

    /// Of the patches `(ph, pw)` of `norm(x)` `(b, h, w, c)`, added to `residual`, as values of type
    /// `dtype`.
    pub(crate) fn forward_patches(
        &self,
        x: &Tensor,
        norm: Option<&Norm>,
        patch: (usize, usize),
        residual: Option<&Tensor>,
        dtype: DType,
    ) -> Result<Tensor> {
        let norm = norm.map(Norm::weights);
        let activation = self.activation;
        let window = Some(Window::patches(patch));
        let combine = residual.map_or(Combine::Keep, Combine::Add);
        let options = Options { norm, window, activation, combine, dtype };
        linear::forward(x, &self.weights, &options)
    }

    /// Of what a window shows of `x` `(b, h, w, c)`, added to `residual`: a convolution.
    pub(crate) fn forward_windows(
        &self,
        x: &Tensor,
        window: Window,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let combine = residual.map_or(Combine::Keep, Combine::Add);
        let (window, activation) = (Some(window), self.activation);
        let options = Options { norm: None, window, activation, combine, dtype: x.dtype() };
        linear::forward(x, &self.weights, &options)
    }

    fn run(&self, x: &Tensor, norm: Option<&Norm>, combine: Combine<'_>) -> Result<Tensor> {
        let norm = norm.map(Norm::weights);
        let activation = self.activation;
        let options = Options { norm, window: None, activation, combine, dtype: x.dtype() };
        linear::forward(x, &self.weights, &options)
    }
}

/// A bias of zeros for layers that have none.
pub(crate) fn zeros(scope: &Scope, n: usize) -> error::Result<Tensor> {
    Tensor::zeros(n, DType::F32, scope.device()).map_err(|e| classify(e, "cannot make a bias"))
}
