//! Classifier-free guidance (Ho and Salimans, arXiv 2207.12598).

use candle_core::{D, Result, Tensor};

/// `negative + scale (positive - negative)`, each token `(n, c)` scaled back to the length that it has
/// in `positive`, as the edit pipelines of diffusers do ("norm-preserving" guidance).
pub(crate) fn keeping_length(positive: &Tensor, negative: &Tensor, scale: f32) -> Result<Tensor> {
    let length = |x: &Tensor| x.sqr()?.sum_keepdim(D::Minus1)?.sqrt();
    let combined = (negative + ((positive - negative)? * f64::from(scale))?)?;
    combined.broadcast_mul(&(length(positive)? / length(&combined)?)?)
}
