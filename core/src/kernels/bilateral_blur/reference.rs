//! The definition of the blur in plain tensor operations: a weight and a shifted picture for each place of the window.

use candle_core::{Device, Result, Tensor};

use super::Blur;

pub(super) fn forward(x: &Tensor, guide: &Tensor, blur: Blur) -> Result<Tensor> {
    let (height, width, _) = x.dims3()?;
    let (device, reach) = (x.device(), blur.reach);
    let (rows, columns) = (mirrored(height, reach, device)?, mirrored(width, reach, device)?);
    let around = |x: &Tensor| x.index_select(&rows, 0)?.index_select(&columns, 1);
    let (x, neighbours) = (around(x)?, around(guide)?);
    let mut sum: Option<(Tensor, Tensor)> = None;
    for down in 0..=2 * reach {
        for right in 0..=2 * reach {
            let shifted = |x: &Tensor| x.narrow(0, down, height)?.narrow(1, right, width);
            let difference = (shifted(&neighbours)? - guide)?.abs()?.sum_keepdim(2)?;
            let far = [down, right].map(|at| (at as f64 - reach as f64).powi(2));
            let scale = blur.scale();
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

/// The numbers of a side's pixels with `reach` more at both ends, mirrored without the end itself.
pub(super) fn mirrored(side: usize, reach: usize, device: &Device) -> Result<Tensor> {
    let period = 2 * (side - 1).max(1);
    let numbers = 0..side + 2 * reach;
    let numbers: Vec<u32> = numbers
        .map(|i| {
            // From the first pixel on, in a direction that does not matter.
            let i = i.abs_diff(reach) % period;
            i.min(period - i).min(side - 1) as u32
        })
        .collect();
    Tensor::new(numbers, device)
}
