//! Layers: they know their weights and the kernels, and nothing of devices or files.

mod attention;
mod conv;
mod linear;
mod mlp;
mod norm;
mod patch_embed;
mod pool;
mod rope;

pub(crate) use attention::attend;
pub(crate) use conv::DepthwiseConv;
pub(crate) use linear::{Linear, zeros};
pub(crate) use mlp::{Mlp, MlpOptions};
pub(crate) use norm::{Norm, NormKind, NormOptions, unit_vectors};
pub(crate) use patch_embed::PatchEmbed;
pub(crate) use pool::{Pooling, pool_grid, pool_tokens};
pub(crate) use rope::{AxialRope, AxialRopeOptions};

use candle_core::{Result, Tensor};

/// `x + gamma * y`, the residual connection with optional layer scale.
pub(crate) fn residual(x: &Tensor, y: &Tensor, gamma: Option<&Tensor>) -> Result<Tensor> {
    match gamma {
        Some(gamma) => x + y.broadcast_mul(gamma)?,
        None => x + y,
    }
}
