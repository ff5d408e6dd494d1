//! Normalisation over the last dimension: `(.., c)` with a weight and a bias of length `c`.
//!
//! Layer norm subtracts the mean and divides by the standard deviation (biased variance, `eps`
//! inside the root); RMS norm divides by the root mean square only. Sums are taken in `f32`. An
//! activation may follow.

mod cpu;
pub(super) mod cuda;
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{DType, Result, Tensor};

use super::activation::Activation;
use super::cpu::NormArgs;
use super::host::{self, Held};
pub(super) use reference::forward as plain;

/// Which statistics are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Mean and variance.
    Layer,
    /// Root mean square.
    Rms,
}

/// Weight and bias of a norm, ready for use.
pub(crate) struct Weights {
    kind: Kind,
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl Weights {
    /// Prepares tensors of the same length.
    pub(crate) fn new(kind: Kind, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Self> {
        if weight.dims1()? != bias.dims1()? {
            candle_core::bail!("a norm with weight {:?}, bias {:?}", weight.dims(), bias.dims());
        }
        // All implementations compute in f32 whatever the type of the input is.
        let ready = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.contiguous();
        Ok(Self { kind, weight: ready(weight)?, bias: ready(bias)?, eps })
    }

    /// The length of what is normalised.
    pub(super) fn width(&self) -> usize {
        self.weight.elem_count()
    }

    /// What the kernels for CUDA take.
    pub(super) fn parameters(&self) -> cuda::Parameters<'_> {
        let Self { kind, weight, bias, eps } = self;
        cuda::Parameters { kind: *kind, weight, bias, one: 0.0, eps: *eps }
    }

    /// The values of weight and bias, for the CPU.
    pub(super) fn hold(&self) -> HeldWeights<'_> {
        HeldWeights { of: self, weight: Held::new(&self.weight), bias: Held::new(&self.bias) }
    }
}

/// Weights whose memory is held while it is read.
pub(super) struct HeldWeights<'a> {
    of: &'a Weights,
    weight: Held<'a>,
    bias: Held<'a>,
}

impl HeldWeights<'_> {
    pub(super) fn arguments(&self) -> Result<NormArgs<'_>> {
        Ok(NormArgs {
            centred: self.of.kind == Kind::Layer,
            weight: self.weight.floats()?,
            bias: self.bias.floats()?,
            eps: self.of.eps as f32,
        })
    }
}

/// Normalises every row of `x` and applies `activation`; `residual`, of the same shape, is added to
/// the result.
pub(crate) fn forward(
    x: &Tensor,
    weights: &Weights,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    if residual.is_some_and(|residual| residual.dims() != x.dims()) {
        candle_core::bail!("a norm of {:?} onto another shape", x.dims());
    }
    if x.dims().last() != Some(&weights.width()) {
        candle_core::bail!("norm of {:?} with weights {}", x.dims(), weights.width());
    }
    if cuda::takes(x, weights.width()) {
        return cuda::forward(x, weights, activation, residual);
    }
    if !host::takes(x) {
        let y = activation.forward(&plain(x, weights)?)?;
        return residual.map_or(Ok(y.clone()), |residual| residual + y);
    }
    let x = x.contiguous()?;
    let residual = residual.map(Tensor::contiguous).transpose()?;
    let (held, residual) = (Held::new(&x), residual.as_ref().map(Held::new));
    let weights = weights.hold();
    let residual = residual.as_ref().map(Held::values).transpose()?;
    // SAFETY: the implementation writes every row.
    unsafe {
        host::filled(x.dtype(), x.shape(), |out| {
            let call = cpu::Call {
                x: held.values()?,
                norm: &weights.arguments()?,
                activation,
                residual,
                out,
            };
            call.run(host::isa()?);
            Ok(())
        })
    }
}

/// The norm of every run of as many values as there are weights, over `x` `(.., n width)`.
pub(super) fn forward_rows(x: &Tensor, weights: &Weights) -> Result<Tensor> {
    let runs = x.reshape(((), weights.width()))?;
    forward(&runs, weights, Activation::Identity, None)?.reshape(x.shape())
}
