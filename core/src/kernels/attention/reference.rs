//! The definition of attention in plain tensor operations.

use candle_core::{D, Result, Tensor};

pub(super) fn forward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f64,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let (b, h, n, _) = q.dims4()?;
    let m = k.dim(2)?;
    let q = (q.contiguous()? * scale)?;
    let mut scores = q.matmul(&k.transpose(2, 3)?.contiguous()?)?;
    if let Some(bias) = bias {
        let w = bias.dim(0)?;
        scores = scores
            .reshape((b / w, w, h, n, m))?
            .broadcast_add(&bias.unsqueeze(0)?)?
            .reshape((b, h, n, m))?;
    }
    let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    let weights = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
    weights.matmul(&v.contiguous()?)?.transpose(1, 2)?.contiguous()
}
