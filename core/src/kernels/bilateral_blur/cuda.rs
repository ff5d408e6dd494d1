//! The blur on CUDA: one kernel, a thread for each pixel.

use candle_core::{DType, Result, Tensor};

use super::super::cuda::{self, Address, Grid};
use super::Blur;

/// Channels of latents, which are a vector.
const CHANNELS: usize = 4;

#[repr(C)]
struct Args {
    x: Address,
    guide: Address,
    out: Address,
    height: i32,
    width: i32,
    reach: i32,
    scale: f32,
}

/// Whether the kernel takes a picture.
pub(super) fn fits(x: &Tensor) -> bool {
    let pixels = x.elem_count() / CHANNELS;
    x.dims()[2] == CHANNELS && pixels > 0 && i32::try_from(pixels).is_ok()
}

pub(super) fn forward(x: &Tensor, guide: &Tensor, blur: Blur) -> Result<Tensor> {
    let (height, width, _) = x.dims3()?;
    let (x, guide) = (aligned(x)?, aligned(guide)?);
    let out = cuda::empty(DType::F32, x.shape(), x.device())?;
    let args = Args {
        x: cuda::address(&x)?,
        guide: cuda::address(&guide)?,
        out: cuda::address(&out)?,
        height: height as i32,
        width: width as i32,
        reach: blur.reach as i32,
        scale: blur.scale() as f32,
    };
    // SAFETY: `BlurArgs` in `cuda.cu`; the shapes were checked.
    unsafe { cuda::launch(x.device(), "bilateral_blur", Grid::of(height * width), &args)? };
    Ok(out)
}

/// The same values, where pixels are whole vectors.
fn aligned(x: &Tensor) -> Result<Tensor> {
    let x = x.contiguous()?;
    if cuda::address(&x)?.is_aligned() { Ok(x) } else { x.force_contiguous() }
}
