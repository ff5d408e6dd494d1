//! Depthwise convolution with stride 1 and zero padding that keeps the size: channels last.
//!
//! `x` is `(b, h, w, c)`, the weight `(s, s, c)` with odd `s` (a checkpoint's `(c, 1, s, s)` is
//! permuted once at load), the bias `(c)`. Channels last makes the innermost loop run over
//! neighbouring values, and it is the layout that the linear layers around it want.

mod cpu;
mod cuda;
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{DType, Result, Tensor};

use super::host::{self, Held};

/// The convolution; see the module for shapes.
pub(crate) fn forward(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let dims = x.dims4()?;
    let (side, width, channels) = weight.dims3()?;
    if side != width || side % 2 == 0 || channels != dims.3 || bias.dims() != [channels] {
        candle_core::bail!(
            "depthwise convolution of {dims:?} with {:?}, bias {:?}",
            weight.dims(),
            bias.dims()
        );
    }
    if super::cuda::takes(x) {
        return cuda::forward(x, weight, bias);
    }
    if !host::takes(x) {
        return reference::forward(x, weight, bias);
    }
    let x = x.contiguous()?;
    // The sums are taken in f32 whatever the type of the input is.
    let float = |tensor: &Tensor| tensor.to_dtype(DType::F32)?.contiguous();
    let (weight, bias) = (float(weight)?, float(bias)?);
    let (held, weight, bias) = (Held::new(&x), Held::new(&weight), Held::new(&bias));
    // SAFETY: the implementation writes every pixel.
    unsafe {
        host::filled(x.dtype(), dims, |out| {
            let (weight, bias) = (weight.floats()?, bias.floats()?);
            let (isa, x) = (host::isa()?, held.values()?);
            cpu::Call { isa, x, dims, weight, side, bias, out }.run();
            Ok(())
        })
    }
}
