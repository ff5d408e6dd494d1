//! Activation functions, by the names that timm uses in `act_layer`.
//!
//! On the CPU they are evaluated with polynomials on vectors; the error against the exact functions
//! is stated at each of them in `cpu/math.rs`. Most calls are part of a linear layer.

pub(super) mod cpu;
mod cuda;
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{DType, Result, Tensor};

use super::cpu::Values;
use super::host::{self, Held};

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
    /// `max(x, 0.2 x)`: the leaky ReLU of networks that make pictures larger.
    LeakyRelu,
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
            return Ok(x.clone());
        }
        if super::cuda::takes(x) {
            return cuda::forward(self, x);
        }
        if !(host::takes(x) && x.dtype() == DType::F32) {
            return reference::forward(self, x);
        }
        let x = x.contiguous()?;
        let mut values = match Held::new(&x).values()? {
            Values::F32(values) => values.to_vec(),
            _ => candle_core::bail!("expected f32 values"),
        };
        cpu::apply(host::isa()?, self, &mut values);
        Tensor::from_vec(values, x.shape(), x.device())
    }
}
