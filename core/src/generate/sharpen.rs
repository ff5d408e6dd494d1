//! Sharper pictures, as Fooocus makes them: noise that the network finds is blurred where the picture is
//! smooth, so that it takes away less of the picture's own grain.
//!
//! The blur is a joint bilateral one, along the picture that the network sees: `kernels/bilateral_blur`.

use candle_core::{Result, Tensor};

use crate::kernels::bilateral_blur::{self, Blur};

/// Of Fooocus.
const BLUR: Blur = Blur { reach: 6, deviation: 3.0 };
/// What a sharpness of 1 mixes in of the blurred noise, at the end of the way.
const STRENGTH: f64 = 0.001;

/// `seen`, the picture that the network sees in latents `x` `(h, w, c)`, made sharper. `progress` is the
/// part of the way that is gone, from 0 to 1.
pub(super) fn sharpened(
    x: &Tensor,
    seen: &Tensor,
    sharpness: f64,
    progress: f64,
) -> Result<Tensor> {
    let share = STRENGTH * sharpness * progress;
    let noise = (x - seen)?;
    let mixed = ((bilateral_blur::forward(&noise, &standard(seen)?, BLUR)? * share)?
        + (noise * (1.0 - share))?)?;
    x - mixed
}

/// With mean 0 and deviation 1 over all values.
fn standard(x: &Tensor) -> Result<Tensor> {
    let count = x.elem_count() as f64;
    let x = x.broadcast_sub(&x.mean_all()?)?;
    let deviation = (x.sqr()?.sum_all()? / (count - 1.0))?.sqrt()?;
    x.broadcast_div(&(deviation + 1e-5)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::device;

    fn golden(name: &str) -> Tensor {
        let file =
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/generate-sharpness.safetensors");
        candle_core::safetensors::load(file, &device()).unwrap()[name].clone()
    }

    #[test]
    fn sharpness_equals_kornia() {
        for case in ["small", "wide"] {
            let tensor = |name: &str| golden(&format!("{case}.{name}"));
            let found = sharpened(&tensor("x"), &tensor("seen"), 200.0, 0.7).unwrap();
            let off = (found - tensor("sharpened")).unwrap().abs().unwrap();
            let off = off.flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
            println!("{case}: {off:.1e}");
            assert!(off < 2e-6, "{case} is off by {off}");
        }
    }

    #[test]
    fn without_sharpness_or_at_the_start_nothing_changes() {
        let (x, seen) = (golden("small.x"), golden("small.seen"));
        for (sharpness, progress) in [(0.0, 1.0), (30.0, 0.0)] {
            let found = sharpened(&x, &seen, sharpness, progress).unwrap();
            let off = (found - &seen).unwrap().abs().unwrap().max_all().unwrap();
            assert!(off.to_scalar::<f32>().unwrap() < 1e-6);
        }
    }
}
