//! The definition of the linear map in plain tensor operations.

use candle_core::{Result, Tensor};

use super::super::activation::Activation;

pub(super) fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    activation: Activation,
) -> Result<Tensor> {
    let (n, k) = weight.dims2()?;
    let mut dims = x.dims().to_vec();
    let rows = dims.iter().product::<usize>() / k.max(1);
    let y = x.contiguous()?.reshape((rows, k))?.matmul(&weight.t()?)?.broadcast_add(bias)?;
    if let Some(last) = dims.last_mut() {
        *last = n;
    }
    activation.forward(&y.reshape(dims)?)
}
