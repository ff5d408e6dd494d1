//! Group normalisation (Wu and He, arXiv 1803.08494), channels last: `(b, .., c)` with a weight and a
//! bias of length `c`.
//!
//! The channels are cut into `groups` of neighbours. Of each batch entry, every group is brought to
//! mean 0 and variance 1 over all its channels and all positions (biased variance, `eps` inside the
//! root). Sums are taken in two passes, the second over what is left without the mean. Before it, a shift
//! `(b, c)` may be added at all positions of an entry; an activation may follow.

mod cpu;
mod cuda;
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{DType, Result, Tensor};

use super::activation::Activation;
use super::host::{self, Held};

/// Weight and bias of a norm, ready for use.
pub(crate) struct Weights {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl Weights {
    /// Prepares tensors of one length, of which `groups` is a divisor.
    pub(crate) fn new(weight: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Result<Self> {
        let channels = weight.dims1()?;
        if channels != bias.dims1()? || groups == 0 || !channels.is_multiple_of(groups) {
            candle_core::bail!(
                "a norm of {groups} groups with weight {:?}, bias {:?}",
                weight.dims(),
                bias.dims()
            );
        }
        let ready = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.contiguous();
        Ok(Self { weight: ready(weight)?, bias: ready(bias)?, groups, eps })
    }
}

/// Normalises every batch entry of `x + shift` and applies `activation`.
pub(crate) fn forward(
    x: &Tensor,
    shift: Option<&Tensor>,
    weights: &Weights,
    activation: Activation,
) -> Result<Tensor> {
    let channels = weights.weight.elem_count();
    if x.rank() < 2 || x.dims().last() != Some(&channels) {
        candle_core::bail!("a norm of {channels} channels of {:?}", x.dims());
    }
    if let Some(shift) = shift
        && shift.dims() != [x.dims()[0], channels]
    {
        candle_core::bail!("a norm of {:?} shifted by {:?}", x.dims(), shift.dims());
    }
    if cuda::takes(x, weights) {
        return cuda::forward(x, shift, weights, activation);
    }
    if !host::takes(x) {
        return activation.forward(&reference::forward(x, shift, weights)?);
    }
    let x = x.contiguous()?;
    let shift = shift.map(|shift| shift.to_dtype(DType::F32)?.contiguous()).transpose()?;
    let (held, shift) = (Held::new(&x), shift.as_ref().map(Held::new));
    let (weight, bias) = (Held::new(&weights.weight), Held::new(&weights.bias));
    // SAFETY: the implementation writes every row.
    unsafe {
        host::filled(x.dtype(), x.shape(), |out| {
            let call = cpu::Call {
                x: held.values()?,
                entries: x.dims()[0],
                shift: shift.as_ref().map(Held::floats).transpose()?,
                weight: weight.floats()?,
                bias: bias.floats()?,
                groups: weights.groups,
                eps: weights.eps,
                activation,
                out,
            };
            call.run(host::isa()?);
            Ok(())
        })
    }
}
