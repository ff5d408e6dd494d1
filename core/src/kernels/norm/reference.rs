//! The definition of the normalisations in plain tensor operations.

use candle_core::{D, DType, Result, Tensor};

use super::Kind;

pub(super) fn forward(
    kind: Kind,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Tensor> {
    let dtype = x.dtype();
    let x = x.to_dtype(DType::F32)?;
    let x = match kind {
        Kind::Layer => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
        Kind::Rms => x,
    };
    let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
    let x = x.broadcast_div(&(variance + eps)?.sqrt()?)?.to_dtype(dtype)?;
    x.broadcast_mul(weight)?.broadcast_add(bias)
}
