//! Pooling by attention, timm's `AttentionPoolLatent`: a learned query looks at all tokens of a
//! picture, and a feed-forward layer follows. SigLIP's vision transformers end in it.

use candle_core::{Result, Tensor};

use crate::device::classify;
use crate::error;
use crate::kernels::attention;
use crate::nn::{Linear, Mlp, MlpOptions, Norm, NormOptions, SelfAttention, part};
use crate::weights::Scope;

/// The sizes of a pooling layer; biases are always there, whatever the blocks have.
#[derive(Clone, Copy)]
pub(super) struct AttentionPoolOptions {
    pub(super) width: usize,
    pub(super) heads: usize,
    pub(super) hidden: usize,
    pub(super) mlp: MlpOptions,
    pub(super) norm: NormOptions,
}

/// Tokens to one vector by attention.
pub(super) struct AttentionPool {
    /// `(1, heads, 1, width / heads)`: no picture has a part in it, so it is computed once.
    query: Tensor,
    options: attention::Options,
    kv: Linear,
    proj: Linear,
    norm: Norm,
    mlp: Mlp,
}

impl AttentionPool {
    pub(super) fn load(scope: &Scope, options: AttentionPoolOptions) -> error::Result<Self> {
        let AttentionPoolOptions { width, heads, hidden, mlp, norm } = options;
        let latent = scope.get((1, 1, width), "latent")?;
        let query = Linear::load(&scope.at("q"), width, width, true)?
            .forward(&latent)
            .and_then(|query| query.reshape((1, heads, 1, width / heads)))
            .map_err(|e| classify(e, "cannot compute the query of the pooling"))?;
        Ok(Self {
            query,
            options: attention::Options {
                scale: SelfAttention::scale(width, heads),
                ..Default::default()
            },
            kv: Linear::load(&scope.at("kv"), width, 2 * width, true)?,
            proj: Linear::load(&scope.at("proj"), width, width, true)?,
            norm: Norm::load(&scope.at("norm"), width, norm)?,
            mlp: Mlp::load(&scope.at("mlp"), width, hidden, mlp, None)?,
        })
    }

    /// `(b, n, c)` to `(b, c)`, of the type of the tokens.
    pub(super) fn forward(&self, tokens: &Tensor) -> Result<Tensor> {
        let (b, n, c) = tokens.dims3()?;
        let (_, heads, _, head) = self.query.dims4()?;
        let kv = self.kv.forward(tokens)?.reshape((b, n, 2, heads, head))?;
        let kv = kv.permute((2, 0, 3, 1, 4))?;
        let query = self.query.broadcast_as((b, heads, 1, head))?;
        let x = attention::forward(&query, &part(&kv, 0)?, &part(&kv, 1)?, &self.options, None)?;
        let x = self.proj.forward(&x)?;
        self.mlp.forward(&x, Some(&self.norm), Some(&x))?.reshape((b, c))
    }
}
