//! `activation(x W^T + b)`: `x` is `(b, .., k)`, `W` is `(n, k)` as checkpoints store it, the result
//! is `(b, .., n)`. What one batch entry gives does not depend on the others, to the last bit.

mod cpu;
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::activation::Activation;
use super::host;

/// The linear map of the last dimension, with its activation.
pub(crate) fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    activation: Activation,
) -> Result<Tensor> {
    if host::is_f32_on_cpu(x) {
        x.contiguous()?.apply_op3_no_bwd(weight, bias, &Op(activation))
    } else {
        reference::forward(x, weight, bias, activation)
    }
}

struct Op(Activation);

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        "linear"
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
        let (n, k) = weight_layout.shape().dims2()?;
        let mut dims = x_layout.dims().to_vec();
        let bias = host::slice(bias, bias_layout)?;
        if dims.last() != Some(&k) || bias.len() != n {
            candle_core::bail!("linear of {dims:?} with weights {n} x {k}, bias {}", bias.len());
        }
        if let Some(last) = dims.last_mut() {
            *last = n;
        }
        let x = host::slice(x, x_layout)?;
        let weight = host::slice(weight, weight_layout)?;
        // All but the first and the last dimension are the rows of one batch entry.
        let rows = dims.get(1..dims.len() - 1).map_or(1, |inner| inner.iter().product());
        let values = cpu::forward(x, rows, weight, bias, self.0);
        Ok((CpuStorage::F32(values), Shape::from(dims)))
    }
}
