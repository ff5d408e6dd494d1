//! Convolutions by kernels of our own on Hopper, which lay out no windows.

use candle_core::{DType, Device, Result, Tensor};

use super::super::activation::Activation;
use super::super::cuda::{self, Address, Grid, Units};
use super::super::largest;
use super::cuda::{Layer, WindowArgs, forward_by};
use super::{Combine, Options, Patches, Window};

/// Pixels and channels of the result that a block computes, bytes of a tile in shared memory, tiles on each side, and what
/// they begin at multiples of; as in `warpgroup.cu`.
const PIXELS: usize = 128;
const OUTPUTS: usize = 128;
const TILE: usize = PIXELS * 128;
const STAGES: usize = 3;
const ALIGNED: usize = 1024;
/// Channels of a picture are multiples of this.
const CHANNELS: usize = 64;
/// What results may differ by from those of windows that are laid out, as a part of the largest one: some roundings.
const DIFFERENCE: f32 = 0.02;

#[repr(C)]
struct Args {
    x: Address,
    weight: Address,
    bias: Address,
    other: Address,
    out: Address,
    rows: i32,
    n: i32,
    window: WindowArgs,
    activation: i32,
    multiplies: i32,
}

/// One convolution: `x` is `(b, height, width, channels)` in bfloat16, as are the weights; `other` and `out` have the result's shape.
pub(super) struct Convolution<'a> {
    pub(super) x: &'a Tensor,
    pub(super) patches: Patches,
    pub(super) layer: Layer<'a>,
    pub(super) activation: Activation,
    pub(super) other: Option<&'a Tensor>,
    pub(super) multiplies: bool,
    pub(super) out: &'a Tensor,
}

impl Convolution<'_> {
    /// Whether the kernel takes it.
    pub(super) fn fits(&self) -> Result<bool> {
        let tensors = [Some(self.x), Some(self.layer.weight), self.other, Some(self.out)];
        let are_bf16 = tensors.iter().flatten().all(|x| x.dtype() == DType::BF16);
        let n = self.layer.weight.dims()[0];
        let pixels = self.x.elem_count() / self.patches.channels.max(1);
        let is_small = i32::try_from(pixels.max(self.out.elem_count() / n.max(1))).is_ok();
        let are_vectors = self.patches.channels.is_multiple_of(CHANNELS) && n.is_multiple_of(2);
        Ok(are_bf16
            && is_small
            && are_vectors
            && self.out.elem_count() > 0
            && cuda::address(self.x)?.is_aligned()
            && cuda::address(self.layer.weight)?.is_aligned())
    }

    pub(super) fn run(&self) -> Result<()> {
        let n = self.layer.weight.dims()[0];
        let rows = self.out.elem_count() / n;
        let args = Args {
            x: cuda::address(self.x)?,
            weight: cuda::address(self.layer.weight)?,
            bias: cuda::address(self.layer.bias)?,
            other: cuda::address_of(self.other)?,
            out: cuda::address(self.out)?,
            rows: rows as i32,
            n: n as i32,
            window: WindowArgs::of(&self.patches),
            activation: self.activation.number(),
            multiplies: i32::from(self.multiplies),
        };
        let grid = Grid {
            blocks: [rows.div_ceil(PIXELS) * n.div_ceil(OUTPUTS), 1, 1],
            threads: [256, 1],
            shared: 2 * STAGES * TILE + ALIGNED,
        };
        // SAFETY: `ConvolutionArgs` in `warpgroup.cu`; `out` and `other` have a value for each pixel and channel.
        unsafe { cuda::launch(self.x.device(), "hopper_convolution", grid, &args) }
    }
}

/// What computes convolutions on a device.
pub(crate) fn units(device: &Device) -> Units {
    match cuda::has_warpgroups(device, "convolution", DIFFERENCE, || difference(device)) {
        true => Units::Warpgroups,
        false => Units::Warps,
    }
}

/// The largest difference of what both kinds of units give for a made-up picture, as a part of the largest value.
pub(super) fn difference(device: &Device) -> Result<f32> {
    let made = |shape: &[usize], factor: f32, size: f32| {
        let count = shape.iter().product::<usize>();
        let values = (0..count).map(|i| size * (i as f32 * factor).sin());
        Tensor::from_iter(values, &Device::Cpu)?.reshape(shape)?.to_device(device)
    };
    // More than a block of pixels and of channels.
    let x = made(&[2, 9, 10, 128], 0.37, 1.0)?.to_dtype(DType::BF16)?;
    let weight = made(&[136, 9 * 128], 0.61, 0.05)?.to_dtype(DType::BF16)?;
    let (bias, other) = (made(&[136], 0.89, 1.0)?, made(&[2, 9, 10, 136], 0.23, 1.0)?);
    let layer = Layer { weight: &weight, bias: &bias, rounded: &bias.to_dtype(DType::BF16)? };
    let by = |units| {
        let options = Options {
            norm: None,
            window: Some(Window::AROUND),
            activation: Activation::Silu,
            combine: Combine::Add(&other),
            dtype: DType::BF16,
        };
        forward_by(units, &x, layer, &options)?.to_dtype(DType::F32)
    };
    let expected = by(Units::Warps)?;
    Ok(largest(&(by(Units::Warpgroups)? - &expected)?)? / largest(&expected)?)
}
