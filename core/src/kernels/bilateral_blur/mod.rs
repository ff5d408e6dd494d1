//! Joint bilateral blur (Petschnigg et al. 2004, "Digital photography with flash and no-flash image pairs"; kornia's
//! `joint_bilateral_blur` with the distance `l1`): a weighted mean over a window, where a pixel weighs the more the
//! nearer it is, and the more alike it is in another picture, the guide. Beyond the border pictures are mirrored.
//!
//! `x` and `guide` are `(h, w, c)` in `f32`, as is the result.

mod cuda;
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{DType, Result, Tensor};

/// How far the window goes to each side, and the deviation of the weights, in pixels and in values of the guide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blur {
    pub(crate) reach: usize,
    pub(crate) deviation: f64,
}

impl Blur {
    /// What squares of distances are multiplied by, to be the logarithms of weights.
    fn scale(self) -> f64 {
        -0.5 / self.deviation.powi(2)
    }
}

/// The blur; see the module for shapes.
pub(crate) fn forward(x: &Tensor, guide: &Tensor, blur: Blur) -> Result<Tensor> {
    if x.rank() != 3
        || x.dims() != guide.dims()
        || [x, guide].iter().any(|x| x.dtype() != DType::F32)
    {
        candle_core::bail!("a blur of {:?} along {:?}", x.dims(), guide.dims());
    }
    if super::cuda::takes(x) && cuda::fits(x) {
        return cuda::forward(x, guide, blur);
    }
    reference::forward(x, guide, blur)
}
