//! Sharper pictures, as Fooocus makes them: noise that the network finds is blurred where the picture is
//! smooth, so that it takes away less of the picture's own grain.
//!
//! The blur is a joint bilateral one (Petschnigg et al. 2004, "Digital photography with flash and no-flash
//! image pairs"; kornia's `joint_bilateral_blur` with the distance `l1`): a weighted mean over a window,
//! where a pixel weighs the more the nearer it is, and the more alike it is in another picture, the guide.

use candle_core::{Device, Result, Tensor};

/// How far the window goes to each side.
const REACH: usize = 6;
/// Deviations of the weights, in pixels and in values of the guide.
const DEVIATION: f64 = 3.0;
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
    let mixed = ((blurred(&noise, &standard(seen)?)? * share)? + (noise * (1.0 - share))?)?;
    x - mixed
}

/// With mean 0 and deviation 1 over all values.
fn standard(x: &Tensor) -> Result<Tensor> {
    let count = x.elem_count() as f64;
    let x = x.broadcast_sub(&x.mean_all()?)?;
    let deviation = (x.sqr()?.sum_all()? / (count - 1.0))?.sqrt()?;
    x.broadcast_div(&(deviation + 1e-5)?)
}

/// The weighted means of `x` over the windows of all pixels; beyond the border pictures are mirrored.
fn blurred(x: &Tensor, guide: &Tensor) -> Result<Tensor> {
    let (height, width, _) = x.dims3()?;
    let device = x.device();
    let (rows, columns) = (mirrored(height, device)?, mirrored(width, device)?);
    let around = |x: &Tensor| x.index_select(&rows, 0)?.index_select(&columns, 1);
    let (x, neighbours) = (around(x)?, around(guide)?);
    let mut sum: Option<(Tensor, Tensor)> = None;
    for down in 0..=2 * REACH {
        for right in 0..=2 * REACH {
            let shifted = |x: &Tensor| x.narrow(0, down, height)?.narrow(1, right, width);
            let difference = (shifted(&neighbours)? - guide)?.abs()?.sum_keepdim(2)?;
            let far = [down, right].map(|at| (at as f64 - REACH as f64).powi(2));
            let scale = -0.5 / DEVIATION.powi(2);
            let weights = difference.sqr()?.affine(scale, scale * (far[0] + far[1]))?.exp()?;
            let weighted = shifted(&x)?.broadcast_mul(&weights)?;
            sum = Some(match sum {
                None => (weighted, weights),
                Some((values, all)) => ((values + weighted)?, (all + weights)?),
            });
        }
    }
    match sum {
        Some((values, weights)) => values.broadcast_div(&weights),
        None => Ok(x),
    }
}

/// The numbers of a side's pixels with [`REACH`] more at both ends, mirrored without the end itself.
fn mirrored(side: usize, device: &Device) -> Result<Tensor> {
    let period = 2 * (side - 1).max(1);
    let numbers = 0..side + 2 * REACH;
    let numbers: Vec<u32> = numbers
        .map(|i| {
            // From the first pixel on, in a direction that does not matter.
            let i = i.abs_diff(REACH) % period;
            i.min(period - i).min(side - 1) as u32
        })
        .collect();
    Tensor::new(numbers, device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(name: &str) -> Tensor {
        let file =
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/generate-sharpness.safetensors");
        candle_core::safetensors::load(file, &Device::Cpu).unwrap()[name].clone()
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

    #[test]
    fn pictures_of_one_pixel_are_mirrored_too() {
        let one = Tensor::ones((1, 2, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
        let found = blurred(&one, &one).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(found.iter().all(|value| (value - 1.0).abs() < 1e-6));
        assert_eq!(mirrored(1, &Device::Cpu).unwrap().to_vec1::<u32>().unwrap(), [0; 13]);
        let three = mirrored(3, &Device::Cpu).unwrap().to_vec1::<u32>().unwrap();
        assert_eq!(three, [2, 1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1, 0]);
    }
}
