//! Multi-head attention on packed queries, keys and values.

use candle_core::{Result, Tensor};

use crate::kernels::attention;

/// Attention of `(b, h, n, d)` queries, keys and values; the result is `(b, n, h d)`.
pub(crate) fn attend(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f64,
    bias: Option<&Tensor>,
) -> Result<Tensor> {
    let (b, h, n, d) = q.dims4()?;
    attention::forward(q, k, v, scale, bias)?.reshape((b, n, h * d))
}
