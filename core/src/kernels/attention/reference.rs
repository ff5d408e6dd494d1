//! The definition of attention in plain tensor operations, in `f32`: scores of the 8 bits of bfloat16
//! would be off by percents once they are powers.

use candle_core::{D, DType, Result, Tensor};

use super::super::norm;
use super::{MASKED, Options, Rotation};

/// Bytes of scores at most; more queries are taken in runs.
const MOST: usize = 256 << 20;

pub(super) fn forward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    options: &Options,
    scale: &[f32],
    rotation: Option<&Rotation>,
) -> Result<Tensor> {
    let (mut q, mut k) = (q.contiguous()?, k.contiguous()?);
    if let Some((q_norm, k_norm)) = &options.norms {
        (q, k) = (norm::plain(&q, q_norm)?, norm::plain(&k, k_norm)?);
    }
    if let Some(rotation) = rotation {
        (q, k) = (rotate(&q, rotation)?, rotate(&k, rotation)?);
    }
    attend(&q, &k, v, options, scale)
}

/// Attention of what is normalised and rotated already.
pub(super) fn attend(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    options: &Options,
    scale: &[f32],
) -> Result<Tensor> {
    let ((b, h, n, d), dtype) = (q.dims4()?, q.dtype());
    let exact = |x: &Tensor| x.to_dtype(DType::F32)?.contiguous();
    let (mut q, mut k, mut v) = (exact(q)?, exact(k)?, exact(v)?);
    let scale = Tensor::from_slice(scale, (1, h, 1, 1), q.device())?;
    q = q.broadcast_mul(&scale)?;
    (k, v) = (repeat(&k, h)?, repeat(&v, h)?);
    let Some(windows) = &options.windows else {
        let row = b * h * k.dim(2)? * q.dtype().size_in_bytes();
        let most = (MOST / row.max(1)).clamp(1, n.max(1));
        let mut runs = Vec::new();
        for first in (0..n.max(1)).step_by(most) {
            let rows = most.min(n - first);
            let q = q.narrow(2, first, rows)?;
            let scores = scores(&q.contiguous()?, &k, options, first, n)?;
            runs.push(weigh(&scores, &v)?.transpose(1, 2)?.reshape((b, rows, h * d))?);
        }
        return Tensor::cat(&runs, 1)?.to_dtype(dtype);
    };
    // Windows beside each other: (b, h, w, l, d) with the heads outside, then back by the inverse.
    let (w, l) = windows.tokens.dims2()?;
    let order = windows.tokens.flatten_all()?;
    let gather = |x: &Tensor| -> Result<Tensor> {
        let x = x.index_select(&order, 2)?.reshape((b, h, w, l, d))?;
        x.transpose(1, 2)?.contiguous()?.reshape((b * w, h, l, d))
    };
    (q, k, v) = (gather(&q)?, gather(&k)?, gather(&v)?);
    let mut scores = scores(&q, &k, options, 0, l)?;
    if let Some(regions) = &windows.regions {
        let same =
            regions.unsqueeze(2)?.broadcast_eq(&regions.unsqueeze(1)?)?.to_dtype(scores.dtype())?;
        let mask = ((same - 1.0)? * f64::from(-MASKED))?.reshape((1, w, 1, l, l))?;
        scores =
            scores.reshape((b, w, h, l, l))?.broadcast_add(&mask)?.reshape((b * w, h, l, l))?;
    }
    let y = weigh(&scores, &v)?.reshape((b, w, h, l, d))?.permute([0, 1, 3, 2, 4])?;
    let y = y.contiguous()?.reshape((b, n, h * d))?;
    y.index_select(&windows.places, 1)?.to_dtype(dtype)
}

/// Every head of `(b, g, m, d)` as often as it takes to make `heads`.
fn repeat(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (b, g, m, d) = x.dims4()?;
    if g == heads {
        return Ok(x.clone());
    }
    x.unsqueeze(2)?.expand((b, g, heads / g, m, d))?.reshape((b, heads, m, d))
}

/// Scores of the queries from `first` on, of `n`.
fn scores(q: &Tensor, k: &Tensor, options: &Options, first: usize, n: usize) -> Result<Tensor> {
    let rows = q.dim(2)?;
    let mut scores = q.matmul(&k.transpose(2, 3)?.contiguous()?)?;
    if let Some(bias) = &options.bias {
        let bias = bias.narrow(1, first, rows)?;
        scores = scores.broadcast_add(&bias.to_dtype(scores.dtype())?.unsqueeze(0)?)?;
    }
    if options.causal {
        let m = k.dim(2)?;
        let hidden = |i, j| if j > i + m - n { f32::NEG_INFINITY } else { 0.0 };
        let mask: Vec<f32> =
            (first..first + rows).flat_map(|i| (0..m).map(move |j| hidden(i, j))).collect();
        let mask = Tensor::from_vec(mask, (1, 1, rows, m), q.device())?.to_dtype(scores.dtype())?;
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
