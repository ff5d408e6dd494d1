//! The definition of the linear map in plain tensor operations.

use candle_core::{Result, Tensor};

use super::super::norm;
use super::{Combine, Options, shape};

pub(super) fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    options: &Options<'_>,
) -> Result<Tensor> {
    let (n, k) = weight.dims2()?;
    let (mut dims, patches, width) = shape(x, options.patch)?;
    if width != k {
        candle_core::bail!("linear of {:?} with weights {n} x {k}", x.dims());
    }
    let rows = dims.iter().product::<usize>();
    dims.push(n);
    let mut x = x.to_dtype(weight.dtype())?.contiguous()?;
    if let Some(patches) = patches {
        let (b, (down, across), (ph, pw)) = (dims[0], patches.grid(), patches.size);
        x = x
            .narrow(1, 0, down * ph)?
            .narrow(2, 0, across * pw)?
            .contiguous()?
            .reshape((b, down, ph, across, pw, patches.channels))?
            .permute([0, 1, 3, 2, 4, 5])?
            .contiguous()?;
    }
    if let Some(norm) = options.norm {
        let groups = k / norm.width();
        x = norm::plain(&x.reshape((rows, groups, norm.width()))?, norm)?;
    }
    let y = x.reshape((rows, k))?.matmul(&weight.t()?)?.broadcast_add(bias)?;
    let y = options.activation.forward(&y.reshape(dims)?)?;
    let y = match options.combine {
        Combine::Keep => y,
        Combine::Add(other) => (y + other.to_dtype(weight.dtype())?)?,
        Combine::Multiply(other) => (y * other.to_dtype(weight.dtype())?)?,
    };
    y.to_dtype(options.dtype)
}
