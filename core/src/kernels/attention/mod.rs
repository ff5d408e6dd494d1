//! Softmax attention, `softmax(scale q k^T + bias) v` for every batch entry and head.
//!
//! `q` is `(b, h, n, d)`, `k` and `v` are `(b, h, m, d)`; any strides, so a permuted view costs
//! nothing. The result is `(b, n, h, d)`, contiguous: what the output projection wants. `bias`,
//! when there is one, is `(w, h, n, m)` with `w` dividing `b`; batch entry `i` takes `bias[i % w]`,
//! which is how windows of a picture share their masks.

mod cpu;
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Storage, Tensor};

use super::host;

/// Attention of every batch entry and head; see the module for shapes.
pub(crate) fn forward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f64,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    check(q, k, v, bias)?;
    if host::is_f32_on_cpu(q) {
        let bias = bias.map(Tensor::contiguous).transpose()?;
        q.apply_op3_no_bwd(k, v, &Op { scale: scale as f32, bias })
    } else {
        reference::forward(q, k, v, scale, bias)
    }
}

fn check(q: &Tensor, k: &Tensor, v: &Tensor, bias: Option<&Tensor>) -> Result<()> {
    let (b, h, n, d) = q.dims4()?;
    let (kb, kh, m, kd) = k.dims4()?;
    let fits = (kb, kh, kd) == (b, h, d) && v.dims() == k.dims();
    let bias_fits = match bias.map(Tensor::dims4).transpose()? {
        Some((w, bias_h, bias_n, bias_m)) => {
            w > 0 && b % w == 0 && (bias_h, bias_n, bias_m) == (h, n, m)
        }
        None => true,
    };
    if fits && bias_fits {
        return Ok(());
    }
    candle_core::bail!(
        "attention of q {:?}, k {:?}, v {:?}, bias {:?}",
        q.dims(),
        k.dims(),
        v.dims(),
        bias.map(Tensor::dims)
    )
}

struct Op {
    scale: f32,
    bias: Option<Tensor>,
}

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (b, h, n, d) = q_layout.shape().dims4()?;
        let views = cpu::Views {
            q: cpu::View::new(q, q_layout)?,
            k: cpu::View::new(k, k_layout)?,
            v: cpu::View::new(v, v_layout)?,
        };
        let values = match &self.bias {
            None => cpu::forward(&views, self.scale, None),
            Some(bias) => {
                let (storage, layout) = bias.storage_and_layout();
                let Storage::Cpu(storage) = &*storage else {
                    candle_core::bail!("the bias is not on the CPU")
                };
                cpu::forward(&views, self.scale, Some(host::slice(storage, layout)?))
            }
        };
        Ok((CpuStorage::F32(values), Shape::from((b, n, h, d))))
    }
}
