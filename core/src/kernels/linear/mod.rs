//! `combine(activation(norm(x) W^T + b))`: `x` is `(b, .., k)`, `W` is `(n, k)` as checkpoints store
//! it, the result is `(b, .., n)`. What one row gives does not depend on the others, to the last bit.
//!
//! - `norm` is applied to the rows of `x`, or to every pixel of a patch.
//! - With `window`, `x` is a picture `(b, h, w, c)` and the rows are what a window of `(wh, ww)`
//!   pixels shows of it, rows of pixels first: `k = wh ww c`, and the result is `(b, down, across,
//!   n)` for as many places as the window has. This is a convolution of any stride and zero padding;
//!   with patches next to each other, one whose stride is its size. A norm cannot go before a
//!   convolution with padding: it would change the zeros.
//! - `combine` adds a tensor of the result's shape (a residual), or multiplies by it (a gate).
//!
//! Weights are prepared once, at load, in the layout that the device wants; the tensors they came
//! from can go. Bytes are taken as the numbers 0 to 255.

mod convolution;
mod cpu;
mod cuda;
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{DType, Device, Result, Tensor};

use super::activation::Activation;
use super::cpu::Patches;
pub(crate) use super::cpu::Window;
use super::host::{self, Held};
use super::norm;
#[cfg(feature = "gpu-check")]
pub(crate) use convolution::units;

/// A weight matrix and its bias, ready for use.
pub(crate) struct Weights(Kind);

enum Kind {
    Packed(cpu::Packed),
    /// Of a convolution of three by three pixels.
    Winograd(cpu::Winograd),
    Tensors {
        weight: Tensor,
        bias: Tensor,
        /// In the type of the weights, for libraries that want it so.
        rounded: Tensor,
    },
}

impl Weights {
    /// Prepares `weight` `(n, k)` and `bias` `(n)`.
    pub(crate) fn new(weight: &Tensor, bias: &Tensor) -> Result<Self> {
        let (n, k) = weight.dims2()?;
        if bias.dims() != [n] {
            candle_core::bail!("weights {:?} with bias {:?}", weight.dims(), bias.dims());
        }
        // All rows of a view of one of them are alike: it is not worth its packing.
        let is_one = n > 1 && weight.stride()[0] == 0;
        let bias = bias.to_dtype(DType::F32)?.contiguous()?;
        if !host::takes(weight) || is_one {
            // Products elsewhere want rows that lie together.
            let weight = if host::takes(weight) { weight.clone() } else { weight.contiguous()? };
            let rounded = bias.to_dtype(weight.dtype())?;
            return Ok(Self(Kind::Tensors { weight, bias, rounded }));
        }
        let weight = weight.contiguous()?;
        let (held, bias) = (Held::new(&weight), Held::new(&bias));
        let format = host::format(weight.dtype());
        let packed = cpu::Packed::new(host::isa()?, format, held.values()?, k, bias.floats()?)?;
        Ok(Self(Kind::Packed(packed)))
    }
}

impl Weights {
    /// Prepares `weight` `(n, c, h, w)` and `bias` `(n)` of a convolution, which [`forward`] is to be called with the same
    /// window for.
    pub(crate) fn of_convolution(weight: &Tensor, bias: &Tensor, window: Window) -> Result<Self> {
        let (n, c, h, w) = weight.dims4()?;
        if weight.stride().iter().all(|stride| *stride == 0) && weight.elem_count() > 0 {
            // A view of one number, as trials have, stays one.
            let one = weight.get(0)?.get(0)?.get(0)?.get(0)?;
            return Self::new(&one.broadcast_as((n, h * w * c))?, bias);
        }
        let isa = host::isa()?;
        let is_plain = host::takes(weight) && weight.dtype() == DType::F32;
        if is_plain
            && window == Window::AROUND
            && bias.dims() == [n]
            && cpu::Winograd::takes(isa, n, c)
        {
            let (weight, bias) = (weight.contiguous()?, bias.to_dtype(DType::F32)?.contiguous()?);
            let (held, bias) = (Held::new(&weight), Held::new(&bias));
            return Ok(Self(Kind::Winograd(cpu::Winograd::new(
                isa,
                held.floats()?,
                c,
                bias.floats()?,
            )?)));
        }
        Self::new(&weight.permute((0, 2, 3, 1))?.contiguous()?.flatten_from(1)?, bias)
    }
}

/// Bytes that a tensor of weights takes once it is ready for use: for a convolution of three by three pixels, as if it kept
/// the size of pictures.
pub(crate) fn bytes_of(shape: &[usize], dtype: DType, device: &Device) -> u64 {
    let count = shape.iter().fold(1u64, |count, side| count.saturating_mul(*side as u64));
    let bytes = count.saturating_mul(bytes_of_weight(dtype, device) as u64);
    match (shape, host::isa()) {
        ([n, c, 3, 3], Ok(isa))
            if device.is_cpu() && dtype == DType::F32 && cpu::Winograd::takes(isa, *n, *c) =>
        {
            bytes / 9 * 16
        }
        _ => bytes,
    }
}

/// Bytes that a value of a matrix of type `dtype` takes once it is ready for use on `device`.
pub(crate) fn bytes_of_weight(dtype: DType, device: &Device) -> usize {
    match host::isa() {
        Ok(isa) if device.is_cpu() => cpu::Packed::bytes_of_value(isa, host::format(dtype)),
        _ => dtype.size_in_bytes(),
    }
}

/// What is done to the result at the end.
#[derive(Clone, Copy, Default)]
pub(crate) enum Combine<'a> {
    /// Nothing.
    #[default]
    Keep,
    /// The tensor is added.
    Add(&'a Tensor),
    /// The result is multiplied by the tensor.
    Multiply(&'a Tensor),
}

/// What goes before and after the product.
#[derive(Clone, Copy)]
pub(crate) struct Options<'a> {
    pub(crate) norm: Option<&'a norm::Weights>,
    pub(crate) window: Option<Window>,
    pub(crate) activation: Activation,
    pub(crate) combine: Combine<'a>,
    /// The type of the result.
    pub(crate) dtype: DType,
}

/// The linear map of the last dimension; see the module.
pub(crate) fn forward(x: &Tensor, weights: &Weights, options: &Options<'_>) -> Result<Tensor> {
    match &weights.0 {
        Kind::Packed(packed) => {
            run(x, None, cpu::Layer { weights: packed, activation: options.activation }, options)
        }
        Kind::Winograd(weights) => convolve(x, weights, options),
        Kind::Tensors { weight, bias, rounded } if super::cuda::takes(weight) => {
            cuda::forward(x, cuda::Layer { weight, bias, rounded }, options)
        }
        Kind::Tensors { weight, bias, .. } => reference::forward(x, weight, bias, options),
    }
}

/// Two layers one behind the other: `combine(activation(between(norm(x) W1^T + b1) W2^T + b2))`, to the
/// last bit what [`forward`] gives for one and then the other. Of many rows, what is between the layers
/// is never stored as a whole.
pub(crate) fn forward_two(
    x: &Tensor,
    [first, second]: [&Weights; 2],
    between: Activation,
    options: &Options<'_>,
) -> Result<Tensor> {
    if let (Kind::Packed(first), Kind::Packed(second)) = (&first.0, &second.0)
        && cpu::Packed::follow(first, second, options.dtype == DType::BF16)
        && first.are_many(x.elem_count() / first.k().max(1))
    {
        let before = cpu::Layer { weights: first, activation: between };
        let layer = cpu::Layer { weights: second, activation: options.activation };
        return run(x, Some(before), layer, options);
    }
    let inner = Options { activation: between, combine: Combine::Keep, ..*options };
    let outer = Options { norm: None, window: None, ..*options };
    forward(&forward(x, first, &inner)?, second, &outer)
}

/// One layer, or two.
fn run(
    x: &Tensor,
    before: Option<cpu::Layer<'_>>,
    layer: cpu::Layer<'_>,
    options: &Options<'_>,
) -> Result<Tensor> {
    let entry = before.unwrap_or(layer).weights;
    let (mut dims, patches, k) = shape(x, options.window)?;
    if k != entry.k() {
        candle_core::bail!("linear of {:?} with weights {} x {}", x.dims(), entry.n(), entry.k());
    }
    let rows = dims.iter().product();
    dims.push(layer.weights.n());
    let x = x.contiguous()?;
    let held = Held::new(&x);
    let other = other(options, &dims)?;
    let other = other.as_ref().map(Held::new);
    let combine = combine(options, other.as_ref())?;
    let norm = options.norm.map(norm::Weights::hold);
    let norm = norm.as_ref().map(norm::HeldWeights::arguments).transpose()?;
    if let Some(norm) = &norm
        && !k.is_multiple_of(norm.weight.len().max(1))
    {
        candle_core::bail!("a norm of width {} before a linear layer of {k}", norm.weight.len());
    }
    if norm.is_some() && options.window.is_some_and(|window| window.is_padded()) {
        candle_core::bail!("a norm before a convolution with padding");
    }
    let x = held.values()?;
    // SAFETY: the implementation writes every row.
    unsafe {
        host::filled(options.dtype, dims, |out| {
            cpu::Call { x, patches, norm, before, layer, rows, combine, out }.run();
            Ok(())
        })
    }
}

/// A convolution of three by three pixels that keeps the size.
fn convolve(x: &Tensor, weights: &cpu::Winograd, options: &Options<'_>) -> Result<Tensor> {
    let (batch, height, width, c) = x.dims4()?;
    if c != weights.c() || options.window != Some(Window::AROUND) || options.norm.is_some() {
        candle_core::bail!(
            "a convolution of {:?} with weights for {} channels",
            x.dims(),
            weights.c()
        );
    }
    let dims = vec![batch, height, width, weights.n()];
    let x = x.to_dtype(DType::F32)?.contiguous()?;
    let held = Held::new(&x);
    let other = other(options, &dims)?;
    let other = other.as_ref().map(Held::new);
    let combine = combine(options, other.as_ref())?;
    let x = held.floats()?;
    let activation = options.activation;
    // SAFETY: the implementation writes every pixel.
    unsafe {
        host::filled(options.dtype, dims, |out| {
            cpu::Convolution { x, weights, batch, height, width, activation, combine, out }.run();
            Ok(())
        })
    }
}

/// What a result of these dimensions is combined with.
fn other(options: &Options<'_>, dims: &[usize]) -> Result<Option<Tensor>> {
    match options.combine {
        Combine::Keep => Ok(None),
        Combine::Add(other) | Combine::Multiply(other) => {
            if other.dims() != dims {
                candle_core::bail!("combining {dims:?} with {:?}", other.dims());
            }
            other.contiguous().map(Some)
        }
    }
}

fn combine<'a>(options: &Options<'_>, other: Option<&'a Held<'_>>) -> Result<cpu::Combine<'a>> {
    let other = other.map(Held::values).transpose()?;
    Ok(match (options.combine, other) {
        (Combine::Add(_), Some(values)) => cpu::Combine::Add(values),
        (Combine::Multiply(_), Some(values)) => cpu::Combine::Multiply(values),
        _ => cpu::Combine::Keep,
    })
}

/// All but the last dimension of the result, how its rows are cut out of `x`, and their length.
fn shape(x: &Tensor, window: Option<Window>) -> Result<(Vec<usize>, Option<Patches>, usize)> {
    let Some(window) = window else {
        let mut dims = x.dims().to_vec();
        let k = dims.pop().unwrap_or(0);
        return Ok((dims, None, k));
    };
    let (b, height, width, channels) = x.dims4()?;
    let patches = Patches { height, width, channels, window };
    let (down, across) = patches.grid();
    Ok((vec![b, down, across], Some(patches), window.size.0 * window.size.1 * channels))
}
