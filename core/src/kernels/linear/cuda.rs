//! The linear map on CUDA: the product is the vendor's library's, with what follows it where the library can do that
//! too; else that is a kernel. Windows are cut out of the picture in runs of rows, so that their copies stay small; on Hopper a kernel
//! for convolutions (`convolution.rs`) needs no copies.

use candle_core::{DType, Result, Tensor};

#[cfg(feature = "cuda")]
use super::super::activation::Activation;
use super::super::cuda::{self, Address, Grid, Units};
use super::super::norm;
use super::convolution::{self, Convolution};
use super::{Combine, Options, Patches, Window, shape};

/// Most bytes of the rows of windows at once.
const MOST: usize = 256 << 20;

#[repr(C)]
struct FinishArgs {
    product: Address,
    bias: Address,
    other: Address,
    out: Address,
    count: i64,
    n: i32,
    activation: i32,
    multiplies: i32,
}

#[repr(C)]
struct CutArgs {
    x: Address,
    out: Address,
    first: i32,
    count: i32,
    window: WindowArgs,
}

/// Where a window goes over pictures.
#[repr(C)]
pub(super) struct WindowArgs {
    height: i32,
    width: i32,
    channels: i32,
    down: i32,
    across: i32,
    size_y: i32,
    size_x: i32,
    stride_y: i32,
    stride_x: i32,
    top: i32,
    left: i32,
}

impl WindowArgs {
    pub(super) fn of(patches: &Patches) -> Self {
        let Patches { height, width, channels, window } = *patches;
        let Window { size, stride, rows, columns } = window;
        let (down, across) = patches.grid();
        Self {
            height: height as i32,
            width: width as i32,
            channels: channels as i32,
            down: down as i32,
            across: across as i32,
            size_y: size.0 as i32,
            size_x: size.1 as i32,
            stride_y: stride.0 as i32,
            stride_x: stride.1 as i32,
            top: rows.0 as i32,
            left: columns.0 as i32,
        }
    }
}

/// Weights and their bias, in `f32` and in the type of the weights.
#[derive(Clone, Copy)]
pub(super) struct Layer<'a> {
    pub(super) weight: &'a Tensor,
    pub(super) bias: &'a Tensor,
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "for the vendor's library"))]
    pub(super) rounded: &'a Tensor,
}

pub(super) fn forward(x: &Tensor, layer: Layer<'_>, options: &Options<'_>) -> Result<Tensor> {
    let is_convolution = options.window.is_some_and(|window| !is_every_pixel(window));
    let units = if is_convolution { convolution::units(x.device()) } else { Units::Warps };
    forward_by(units, x, layer, options)
}

/// The same by one kind of units; the caller knows that the device has them.
pub(super) fn forward_by(
    units: Units,
    x: &Tensor,
    layer: Layer<'_>,
    options: &Options<'_>,
) -> Result<Tensor> {
    let weight = layer.weight;
    let (n, k) = weight.dims2()?;
    let (mut dims, patches, width) = shape(x, options.window)?;
    if width != k {
        candle_core::bail!("linear of {:?} with weights {n} x {k}", x.dims());
    }
    let rows = dims.iter().product::<usize>();
    dims.push(n);
    let mut x = x.clone();
    if let Some(norm) = options.norm {
        let shape = x.shape().clone();
        x = norm::forward_rows(&x.to_dtype(weight.dtype())?, norm)?.reshape(shape)?;
    }
    let (other, multiplies) = match options.combine {
        Combine::Keep => (None, false),
        Combine::Add(other) => (Some(other), false),
        Combine::Multiply(other) => (Some(other), true),
    };
    if let Some(other) = other
        && other.dims() != dims
    {
        candle_core::bail!("combining {dims:?} with {:?}", other.dims());
    }
    let other = other.map(|other| other.to_dtype(options.dtype)?.contiguous()).transpose()?;
    let out = cuda::empty(options.dtype, dims, x.device())?;
    let finish = Finish { layer, other: other.as_ref(), multiplies, options, out: &out };
    let Some(patches) = patches.filter(|patches| !is_every_pixel(patches.window)) else {
        let x = x.to_dtype(weight.dtype())?.reshape((rows, k))?;
        finish.product(&x, 0)?;
        return Ok(out);
    };
    let x = x.contiguous()?;
    if i32::try_from(rows).is_err() {
        candle_core::bail!("windows over {:?}", x.dims());
    }
    if units == Units::Warpgroups && x.dtype() != DType::U8 {
        let x = x.to_dtype(weight.dtype())?;
        let (activation, other) = (options.activation, other.as_ref());
        let convolution =
            Convolution { x: &x, patches, layer, activation, other, multiplies, out: &out };
        if convolution.fits()? {
            convolution.run()?;
            return Ok(out);
        }
    }
    let most = (MOST / (k * weight.dtype().size_in_bytes()).max(1)).clamp(1, rows.max(1));
    for first in (0..rows).step_by(most) {
        let pixels = cut(&x, &patches, first, most.min(rows - first), weight.dtype())?;
        finish.product(&pixels, first)?;
    }
    Ok(out)
}

/// Whether what the window shows is each pixel in turn.
fn is_every_pixel(window: Window) -> bool {
    window.size == (1, 1) && window.stride == (1, 1) && !window.is_padded()
}

/// Rows of what a window shows, `(rows, k)` as values of type `dtype`.
fn cut(x: &Tensor, patches: &Patches, first: usize, rows: usize, dtype: DType) -> Result<Tensor> {
    let Patches { channels, window, .. } = *patches;
    let k = window.size.0 * window.size.1 * channels;
    let vector = 16 / dtype.size_in_bytes();
    let (x, of) = match x.dtype() {
        DType::U8 => (x.clone(), "u8"),
        _ => (x.to_dtype(dtype)?, if dtype == DType::BF16 { "bf16" } else { "f32" }),
    };
    let from = cuda::address(&x)?;
    let are_vectors = of != "u8" && channels.is_multiple_of(vector) && from.is_aligned();
    let step = if are_vectors { vector } else { 1 };
    let name = match (are_vectors, of, dtype) {
        (true, ..) => "cut_vectors",
        (_, "u8", DType::BF16) => "cut_u8_bf16",
        (_, "u8", _) => "cut_u8_f32",
        (_, "bf16", _) => "cut_bf16_bf16",
        _ => "cut_f32_f32",
    };
    let out = cuda::empty(dtype, (rows, k), x.device())?;
    let count = rows * k / step;
    let args = CutArgs {
        x: from,
        out: cuda::address(&out)?,
        first: first as i32,
        count: count as i32,
        window: WindowArgs { channels: (channels / step) as i32, ..WindowArgs::of(patches) },
    };
    // SAFETY: `CutArgs` in `cuda.cu`; rows of the windows of `x`, of which there are that many.
    unsafe { cuda::launch(x.device(), name, Grid::of(count), &args)? };
    Ok(out)
}

/// Rows through the weights, and what is done to the product.
struct Finish<'a> {
    layer: Layer<'a>,
    other: Option<&'a Tensor>,
    multiplies: bool,
    options: &'a Options<'a>,
    out: &'a Tensor,
}

impl Finish<'_> {
    /// The result's rows from `first` on, of those of `x`.
    fn product(&self, x: &Tensor, first: usize) -> Result<()> {
        #[cfg(feature = "cuda")]
        if self.product_at_once(x, first)? {
            return Ok(());
        }
        self.run(&x.matmul(&self.layer.weight.t()?)?, first)
    }

    /// The same in one go; false where the library cannot.
    #[cfg(feature = "cuda")]
    fn product_at_once(&self, x: &Tensor, first: usize) -> Result<bool> {
        let Layer { weight, rounded, .. } = self.layer;
        let gelu = match (self.options.activation, self.other) {
            (Activation::Identity, _) if !self.multiplies => false,
            (Activation::GeluTanh, None) => true,
            _ => return Ok(false),
        };
        let are_bf16 = weight.dtype() == DType::BF16 && self.options.dtype == DType::BF16;
        if !are_bf16 || !x.device().is_cuda() || x.elem_count() == 0 {
            return Ok(false);
        }
        let x = x.contiguous()?;
        let other = self.other.map(|other| self.at(other, first)).transpose()?;
        let out = self.at(self.out, first)?;
        let product = cuda::Product { x: &x, weight, bias: rounded, gelu, other, out };
        // SAFETY: `out` and `other` have the result's shape, and `first` and the rows of `x` are of it.
        unsafe { product.run() }
    }

    /// Where the row `first` of a tensor of the result's shape is.
    fn at(&self, tensor: &Tensor, first: usize) -> Result<Address> {
        let n = self.layer.weight.dims()[0];
        Ok(cuda::address(tensor)?.offset(first * n, self.options.dtype))
    }

    /// Of the result's rows from `first` on.
    fn run(&self, product: &Tensor, first: usize) -> Result<()> {
        let (rows, n) = product.dims2()?;
        let (of, dtype) = (product.dtype(), self.options.dtype);
        let vector = 16 / dtype.size_in_bytes();
        let count = rows * n;
        let (name, threads) = match (of, dtype) {
            (DType::BF16, DType::BF16) if n.is_multiple_of(vector) => {
                ("finish_vectors_bf16", count / vector)
            }
            (DType::F32, DType::F32) if n.is_multiple_of(vector) => {
                ("finish_vectors_f32", count / vector)
            }
            (DType::BF16, DType::BF16) => ("finish_bf16_bf16", count.div_ceil(4)),
            (DType::BF16, _) => ("finish_bf16_f32", count.div_ceil(4)),
            (_, DType::BF16) => ("finish_f32_bf16", count.div_ceil(4)),
            _ => ("finish_f32_f32", count.div_ceil(4)),
        };
        let args = FinishArgs {
            product: cuda::address(product)?,
            bias: cuda::address(self.layer.bias)?,
            other: self.other.map_or(Ok(Address::NONE), |other| self.at(other, first))?,
            out: self.at(self.out, first)?,
            count: count as i64,
            n: n as i32,
            activation: self.options.activation.number(),
            multiplies: i32::from(self.multiplies),
        };
        // SAFETY: `FinishArgs` in `cuda.cu`; `out` and `other` have at least `first` rows more.
        unsafe { cuda::launch(product.device(), name, Grid::of(threads), &args) }
    }
}
