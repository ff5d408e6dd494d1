//! The definition of group normalisation in plain tensor operations.

use candle_core::{D, DType, Result, Tensor};

use super::Weights;

pub(super) fn forward(x: &Tensor, shift: Option<&Tensor>, weights: &Weights) -> Result<Tensor> {
    let (shape, dtype) = (x.dims().to_vec(), x.dtype());
    let positions: usize = shape[1..shape.len() - 1].iter().product();
    let each = weights.weight.elem_count() / weights.groups;
    let mut x = x.to_dtype(DType::F32)?.reshape((shape[0], positions, weights.groups, each))?;
    if let Some(shift) = shift {
        let shift = shift.to_dtype(DType::F32)?.reshape((shape[0], 1, weights.groups, each))?;
        x = x.broadcast_add(&shift)?;
    }
    let mean = x.mean_keepdim(D::Minus1)?.mean_keepdim(1)?;
    let x = x.broadcast_sub(&mean)?;
    let variance = x.sqr()?.mean_keepdim(D::Minus1)?.mean_keepdim(1)?;
    x.broadcast_div(&(variance + weights.eps)?.sqrt()?)?
        .reshape(shape)?
        .broadcast_mul(&weights.weight.to_device(x.device())?)?
        .broadcast_add(&weights.bias.to_device(x.device())?)?
        .to_dtype(dtype)
}
