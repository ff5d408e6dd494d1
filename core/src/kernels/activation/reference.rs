//! The definition of the activation functions in plain tensor operations.

use candle_core::{Result, Tensor};

use super::Activation;

pub(super) fn forward(activation: Activation, x: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::GeluErf => x.gelu_erf(),
        Activation::GeluTanh => x.gelu(),
        Activation::QuickGelu => x * sigmoid(&(x * 1.702)?)?,
        Activation::Silu => x.silu(),
        Activation::Relu => x.relu(),
        Activation::LeakyRelu => x.maximum(&(x * 0.2)?),
        Activation::Identity => Ok(x.clone()),
    }
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}
