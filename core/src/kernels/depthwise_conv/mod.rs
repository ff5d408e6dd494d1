//! Depthwise convolution with stride 1 and zero padding that keeps the size: channels last.
//!
//! `x` is `(b, h, w, c)`, the weight `(s, s, c)` with odd `s` (a checkpoint's `(c, 1, s, s)` is
//! permuted once at load), the bias `(c)`. Channels last makes the innermost loop run over
//! neighbouring values, and it is the layout that the linear layers around it want.

mod cpu;
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::host;

/// The convolution; see the module for shapes.
pub(crate) fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if host::is_f32_on_cpu(x) {
        x.contiguous()?.apply_op3_no_bwd(weight, bias, &Op)
    } else {
        reference::forward(x, weight, bias)
    }
}

struct Op;

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        "depthwise-conv"
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
        let dims = x_layout.shape().dims4()?;
        let (side, width, channels) = weight_layout.shape().dims3()?;
        let bias = host::slice(bias, bias_layout)?;
        if side != width || side % 2 == 0 || channels != dims.3 || bias.len() != channels {
            candle_core::bail!(
                "depthwise convolution of {dims:?} with {:?}, bias {}",
                weight_layout.dims(),
                bias.len()
            );
        }
        let weight = host::slice(weight, weight_layout)?;
        let values = cpu::forward(host::slice(x, x_layout)?, dims, weight, side, bias);
        Ok((CpuStorage::F32(values), x_layout.shape().clone()))
    }
}
