//! The definition of attention in plain tensor operations.

use candle_core::{D, DType, Result, Tensor};

use super::super::norm;
use super::{MASKED, Options, Rotation};

pub(super) fn forward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    options: &Options,
    scale: &[f32],
    rotation: Option<&Rotation>,
) -> Result<Tensor> {
    let (b, h, n, d) = q.dims4()?;
    let (mut q, mut k, mut v) = (q.contiguous()?, k.contiguous()?, v.contiguous()?);
    if let Some((q_norm, k_norm)) = &options.norms {
        (q, k) = (norm::plain(&q, q_norm)?, norm::plain(&k, k_norm)?);
    }
    if let Some(rotation) = rotation {
        (q, k) = (rotate(&q, rotation)?, rotate(&k, rotation)?);
    }
    let scale = Tensor::from_slice(scale, (1, h, 1, 1), q.device())?.to_dtype(q.dtype())?;
    q = q.broadcast_mul(&scale)?;
    (k, v) = (repeat(&k, h)?, repeat(&v, h)?);
    let Some(windows) = &options.windows else {
        let scores = scores(&q, &k, options)?;
        return weigh(&scores, &v)?.transpose(1, 2)?.reshape((b, n, h * d));
    };
    // Windows beside each other: (b, h, w, l, d) with the heads outside, then back by the inverse.
    let (w, l) = windows.tokens.dims2()?;
    let order = windows.tokens.flatten_all()?;
    let gather = |x: &Tensor| -> Result<Tensor> {
        let x = x.index_select(&order, 2)?.reshape((b, h, w, l, d))?;
        x.transpose(1, 2)?.contiguous()?.reshape((b * w, h, l, d))
    };
    (q, k, v) = (gather(&q)?, gather(&k)?, gather(&v)?);
    let mut scores = scores(&q, &k, options)?;
    if let Some(regions) = &windows.regions {
        let same =
            regions.unsqueeze(2)?.broadcast_eq(&regions.unsqueeze(1)?)?.to_dtype(scores.dtype())?;
        let mask = ((same - 1.0)? * f64::from(-MASKED))?.reshape((1, w, 1, l, l))?;
        scores =
            scores.reshape((b, w, h, l, l))?.broadcast_add(&mask)?.reshape((b * w, h, l, l))?;
    }
    let y = weigh(&scores, &v)?.reshape((b, w, h, l, d))?.permute([0, 1, 3, 2, 4])?;
    let y = y.contiguous()?.reshape((b, n, h * d))?;
    let (_, inverse) = order.to_dtype(DType::F32)?.sort_last_dim(true)?;
    y.index_select(&inverse, 1)
}

/// Every head of `(b, g, m, d)` as often as it takes to make `heads`.
fn repeat(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (b, g, m, d) = x.dims4()?;
    if g == heads {
        return Ok(x.clone());
    }
    x.unsqueeze(2)?.expand((b, g, heads / g, m, d))?.reshape((b, heads, m, d))
}

fn scores(q: &Tensor, k: &Tensor, options: &Options) -> Result<Tensor> {
    let mut scores = q.matmul(&k.transpose(2, 3)?.contiguous()?)?;
    if let Some(bias) = &options.bias {
        scores = scores.broadcast_add(&bias.to_dtype(scores.dtype())?.unsqueeze(0)?)?;
    }
    if options.causal {
        let (n, m) = (q.dim(2)?, k.dim(2)?);
        let hidden = |i, j| if j > i + m - n { f32::NEG_INFINITY } else { 0.0 };
        let mask: Vec<f32> = (0..n).flat_map(|i| (0..m).map(move |j| hidden(i, j))).collect();
        let mask = Tensor::from_vec(mask, (1, 1, n, m), q.device())?.to_dtype(scores.dtype())?;
        scores = scores.broadcast_add(&mask)?;
    }
    Ok(scores)
}

fn weigh(scores: &Tensor, v: &Tensor) -> Result<Tensor> {
    let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    let weights = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
    weights.matmul(v)?.contiguous()
}

/// Turns pairs of neighbouring values of `(b, h, n, d)` by their angles.
fn rotate(x: &Tensor, rotation: &Rotation) -> Result<Tensor> {
    let (b, h, n, d) = x.dims4()?;
    let rotated = x.narrow(2, rotation.prefix, n - rotation.prefix)?.contiguous()?;
    let pairs = rotated.reshape((b, h, n - rotation.prefix, d / 2, 2))?;
    let even = pairs.narrow(D::Minus1, 0, 1)?;
    let odd = pairs.narrow(D::Minus1, 1, 1)?;
    let turned = Tensor::cat(&[odd.neg()?, even], D::Minus1)?.reshape(rotated.dims())?;
    let table = |table: &Tensor| table.to_dtype(x.dtype());
    let rotated = (rotated.broadcast_mul(&table(&rotation.cos)?)?
        + turned.broadcast_mul(&table(&rotation.sin)?)?)?;
    if rotation.prefix == 0 {
        return Ok(rotated);
    }
    Tensor::cat(&[x.narrow(2, 0, rotation.prefix)?.contiguous()?, rotated], 2)
}
