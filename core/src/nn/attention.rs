//! Multi-head self-attention.

use candle_core::{Result, Tensor};

use super::{Linear, Norm};
use crate::kernels::attention::{self, Options, Rotation};

/// Self-attention with one linear layer for queries, keys and values, and one for the output.
pub(crate) struct SelfAttention {
    /// To `(3, heads, d)`: queries, keys, values.
    pub(crate) qkv: Linear,
    pub(crate) heads: usize,
    /// Scale, norms of queries and keys, bias, windows.
    pub(crate) options: Options,
    /// A norm between attention and the output layer.
    pub(crate) norm: Option<Norm>,
    pub(crate) proj: Linear,
}

impl SelfAttention {
    /// The usual scale of heads that share `width` values.
    pub(crate) fn scale(width: usize, heads: usize) -> Vec<f32> {
        vec![((width / heads) as f64).powf(-0.5) as f32]
    }

    /// `(b, n, c)` to the same shape. `before` is applied to `x` first, `onto` is added at the end.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        before: Option<&Norm>,
        rotation: Option<&Rotation>,
        onto: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (b, n, _) = x.dims3()?;
        let qkv = self.qkv.forward_normed(x, before)?;
        let qkv = qkv.reshape((b, n, 3, self.heads, ()))?.permute((2, 0, 3, 1, 4))?;
        let (q, k, v) = (part(&qkv, 0)?, part(&qkv, 1)?, part(&qkv, 2)?);
        let y = attention::forward(&q, &k, &v, &self.options, rotation)?;
        self.proj.forward_onto(&y, self.norm.as_ref(), onto)
    }
}

/// Queries, keys or values of a joined tensor `(parts, b, heads, n, d)`, as a view: `Tensor::get` would copy
/// what does not lie together.
pub(crate) fn part(joined: &Tensor, i: usize) -> Result<Tensor> {
    joined.narrow(0, i, 1)?.squeeze(0)
}
