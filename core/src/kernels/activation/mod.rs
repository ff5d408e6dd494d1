//! Activation functions, by the names that timm uses in `act_layer`.
//!
//! On the CPU they are evaluated with polynomials that the compiler turns into vector
//! instructions; the error against the exact functions is stated at each of them in `cpu.rs`.

pub(super) mod cpu;
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::host;

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x * Phi(x)` with the exact normal distribution function (`gelu`).
    GeluErf,
    /// The tanh approximation of GELU (`gelu_tanh`).
    GeluTanh,
    /// `x * sigmoid(1.702 x)` (`quick_gelu`).
    QuickGelu,
    /// `x * sigmoid(x)` (`silu`, `swish`).
    Silu,
    /// `max(x, 0)` (`relu`).
    Relu,
    /// `x` itself.
    Identity,
}

impl Activation {
    /// The activation that timm calls `name`.
    pub(crate) fn from_timm(name: &str) -> Option<Self> {
        match name {
            "gelu" => Some(Self::GeluErf),
            "gelu_tanh" => Some(Self::GeluTanh),
            "quick_gelu" => Some(Self::QuickGelu),
            "silu" | "swish" => Some(Self::Silu),
            "relu" => Some(Self::Relu),
            "identity" => Some(Self::Identity),
            _ => None,
        }
    }

    /// The function applied to every value.
    pub(crate) fn forward(self, x: &Tensor) -> Result<Tensor> {
        if self == Self::Identity {
            Ok(x.clone())
        } else if host::is_f32_on_cpu(x) {
            x.contiguous()?.apply_op1_no_bwd(&Op(self))
        } else {
            reference::forward(self, x)
        }
    }
}

struct Op(Activation);

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut values = host::slice(storage, layout)?.to_vec();
        cpu::apply(self.0, &mut values);
        Ok((CpuStorage::F32(values), layout.shape().clone()))
    }
}
