//! The definition of the linear map in plain tensor operations.

use candle_core::{Result, Tensor};

use super::super::norm;
use super::{Combine, Options, Patches, Window, shape};

pub(super) fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    options: &Options<'_>,
) -> Result<Tensor> {
    let (n, k) = weight.dims2()?;
    let (mut dims, patches, width) = shape(x, options.window)?;
    if width != k {
        candle_core::bail!("linear of {:?} with weights {n} x {k}", x.dims());
    }
    let rows = dims.iter().product::<usize>();
    dims.push(n);
    let mut x = x.to_dtype(weight.dtype())?.contiguous()?;
    if let Some(patches) = patches {
        x = cut(&x, &patches)?;
    }
    if let Some(norm) = options.norm {
        let groups = k / norm.width();
        x = norm::plain(&x.reshape((rows, groups, norm.width()))?, norm)?;
    }
    let y = x
        .reshape((rows, k))?
        .matmul(&weight.t()?)?
        .broadcast_add(&bias.to_dtype(weight.dtype())?)?;
    let y = options.activation.forward(&y.reshape(dims)?)?;
    let y = match options.combine {
        Combine::Keep => y,
        Combine::Add(other) => (y + other.to_dtype(weight.dtype())?)?,
        Combine::Multiply(other) => (y * other.to_dtype(weight.dtype())?)?,
    };
    y.to_dtype(options.dtype)
}

/// `(b, h, w, c)` to what the window shows at each place, `(b, down, across, wh ww c)`.
fn cut(x: &Tensor, patches: &Patches) -> Result<Tensor> {
    let Window { size, stride, rows, columns } = patches.window;
    let (down, across) = patches.grid();
    if down * across == 0 {
        let (b, _, _, c) = x.dims4()?;
        return Tensor::zeros((b, down, across, size.0 * size.1 * c), x.dtype(), x.device());
    }
    let x = x.pad_with_zeros(1, rows.0, rows.1)?.pad_with_zeros(2, columns.0, columns.1)?;
    // Every pixel of the window in turn: one of `stride`, from its place on.
    let every = |x: &Tensor, dim: usize, start: usize, count: usize, stride: usize| {
        let index: Vec<u32> = (0..count).map(|i| (start + i * stride) as u32).collect();
        x.index_select(&Tensor::new(index, x.device())?, dim)
    };
    let mut pixels = Vec::with_capacity(size.0 * size.1);
    for i in 0..size.0 {
        let rows = every(&x, 1, i, down, stride.0)?;
        for j in 0..size.1 {
            pixels.push(every(&rows, 2, j, across, stride.1)?);
        }
    }
    Tensor::cat(&pixels, 3)
}
