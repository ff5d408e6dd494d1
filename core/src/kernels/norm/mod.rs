//! Normalisation over the last dimension: `(.., c)` with a weight and a bias of length `c`.
//!
//! Layer norm subtracts the mean and divides by the standard deviation (biased variance, `eps`
//! inside the root); RMS norm divides by the root mean square only. Sums are taken in `f32`.

mod cpu;
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::host;

/// Which statistics are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Mean and variance.
    Layer,
    /// Root mean square.
    Rms,
}

/// Normalises every row of `x`, then scales by `weight` and adds `bias`.
pub(crate) fn forward(
    kind: Kind,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    if host::is_f32_on_cpu(x) {
        let op = Op { kind, eps: eps as f32 };
        x.contiguous()?.apply_op3_no_bwd(weight, bias, &op)
    } else {
        reference::forward(kind, x, weight, bias, eps)
    }
}

struct Op {
    kind: Kind,
    eps: f32,
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut values = host::slice(x, x_layout)?.to_vec();
        let weight = host::slice(weight, weight_layout)?;
        let bias = host::slice(bias, bias_layout)?;
        if x_layout.dims().last() != Some(&weight.len()) || weight.len() != bias.len() {
            candle_core::bail!("norm of {:?} with weights {}", x_layout.dims(), weight.len());
        }
        cpu::forward(self.kind, &mut values, weight, bias, self.eps);
        Ok((CpuStorage::F32(values), x_layout.shape().clone()))
    }
}
