//! Layers: they know their weights and the kernels, and nothing of devices or files.

mod attention;
mod block;
mod blocks;
mod conv;
mod linear;
mod mlp;
mod norm;
mod patch_embed;
mod pool;
mod rope;

pub(crate) use attention::{SelfAttention, part};
pub(crate) use block::{BlockOptions, TransformerBlock};
pub(crate) use blocks::{Blocks, Keep};
pub(crate) use conv::{Conv2d, DepthwiseConv, Window, doubled};
pub(crate) use linear::{Linear, zeros};
pub(crate) use mlp::{Mlp, MlpOptions};
pub(crate) use norm::{Norm, NormKind, NormOptions};
pub(crate) use patch_embed::{PatchEmbed, PixelScale};
pub(crate) use pool::{Pooling, pool_grid, pool_tokens};
pub(crate) use rope::{AxialRopeOptions, axial_rope};
