//! The definition of the normalisations in plain tensor operations.

use candle_core::{D, DType, Result, Tensor};

use super::{Kind, Weights};

pub(in super::super) fn forward(x: &Tensor, weights: &Weights) -> Result<Tensor> {
    let dtype = x.dtype();
    let x = x.to_dtype(DType::F32)?;
    let x = match weights.kind {
        Kind::Layer => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
        Kind::Rms => x,
    };
    let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
    let x = x.broadcast_div(&(variance + weights.eps)?.sqrt()?)?;
    let (weight, bias) = (weights.weight.to_dtype(DType::F32)?, weights.bias.to_dtype(DType::F32)?);
    x.broadcast_mul(&weight)?.broadcast_add(&bias)?.to_dtype(dtype)
}
