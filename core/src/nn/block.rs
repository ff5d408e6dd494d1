//! The pre-norm transformer block that ViT and EVA are made of, under timm's tensor names.

use candle_core::{Result, Tensor};

use super::{Linear, Mlp, MlpOptions, Norm, NormOptions, SelfAttention};
use crate::error;
use crate::kernels::attention::{self, Rotation};
use crate::weights::Scope;

/// What a block has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockOptions {
    pub(crate) width: usize,
    pub(crate) heads: usize,
    /// Width between the feed-forward layers.
    pub(crate) hidden: usize,
    /// Of queries and keys.
    pub(crate) qk_norm: Option<NormOptions>,
    /// Between attention and its output layer.
    pub(crate) attn_norm: Option<NormOptions>,
    /// Whether the output layer of attention has a bias.
    pub(crate) proj_bias: bool,
    pub(crate) mlp: MlpOptions,
    pub(crate) norm: NormOptions,
}

/// `x + attention(norm1(x))`, then `x + mlp(norm2(x))`.
pub(crate) struct TransformerBlock {
    norm1: Norm,
    attn: SelfAttention,
    norm2: Norm,
    mlp: Mlp,
}

impl TransformerBlock {
    /// With the layer of queries, keys and values, which families store differently, and the layer
    /// scales of attention and of the feed-forward layers.
    pub(crate) fn load(
        scope: &Scope,
        options: &BlockOptions,
        qkv: Linear,
        scales: [Option<Tensor>; 2],
    ) -> error::Result<Self> {
        let BlockOptions { width, heads, hidden, qk_norm, attn_norm, proj_bias, mlp, norm } =
            *options;
        let attn = scope.at("attn");
        let load = |name: &str, width: usize, norm| Norm::load(&attn.at(name), width, norm);
        let norms = match qk_norm {
            None => None,
            Some(norm) => {
                let head = |name| load(name, width / heads, norm).map(Norm::into_weights);
                Some((head("q_norm")?, head("k_norm")?))
            }
        };
        let [attn_scale, mlp_scale] = scales.each_ref().map(Option::as_ref);
        let scale = SelfAttention::scale(width, heads);
        Ok(Self {
            norm1: Norm::load(&scope.at("norm1"), width, norm)?,
            attn: SelfAttention {
                qkv,
                heads,
                options: attention::Options { scale, norms, ..Default::default() },
                norm: attn_norm.map(|norm| load("norm", width, norm)).transpose()?,
                proj: Linear::load_scaled(&attn.at("proj"), width, width, proj_bias, attn_scale)?,
            },
            norm2: Norm::load(&scope.at("norm2"), width, norm)?,
            mlp: Mlp::load(&scope.at("mlp"), width, hidden, mlp, mlp_scale)?,
        })
    }

    /// `(b, n, c)` to the same shape.
    pub(crate) fn forward(&self, x: &Tensor, rotation: Option<&Rotation>) -> Result<Tensor> {
        let x = self.attn.forward(x, Some(&self.norm1), rotation, Some(x))?;
        self.mlp.forward(&x, Some(&self.norm2), Some(&x))
    }
}
