//! The transformers between residual blocks (`Transformer2DModel`): pixels attend to each other and to
//! the text.
//!
//! Keys and values of the text do not depend on the latents. They are made once for a prompt, for all
//! layers, and taken from it by their number in every step, which needs the weights for them no more.

use candle_core::{Result, Tensor};

use super::super::layers::{GroupNorm, GroupNormOptions};
use super::config::StageConfig;
use super::prompt::{KeysValues, Prompts};
use crate::device::classify;
use crate::error;
use crate::kernels::activation::Activation;
use crate::kernels::attention;
use crate::nn::{Blocks, Keep, Linear, Mlp, Norm, NormKind, NormOptions, SelfAttention, part};
use crate::weights::Scope;

/// Of the norm before a transformer, whatever the configuration says of others.
const OUTER_EPS: f64 = 1e-6;
/// Of the norms in its layers.
const NORM: NormOptions = NormOptions { kind: NormKind::Layer, eps: 1e-5 };
/// The width of a feed-forward layer as a multiple of the width of a pixel.
const EXPANSION: usize = 4;

/// What all transformers of a network share, the number of the next layer with text, and how many of the layers that
/// need not stay in memory still may.
pub(super) struct Shared {
    pub(super) groups: usize,
    pub(super) context: usize,
    pub(super) is_linear: bool,
    pub(super) layers: usize,
    pub(super) keep: Keep,
    /// Channels of stages whose layers need not stay.
    pub(super) widest: usize,
}

impl Shared {
    /// How many layers of the next transformer stay.
    fn keep(&mut self, stage: &StageConfig) -> Keep {
        match &mut self.keep {
            Keep::First(left) if stage.channels == self.widest => {
                let kept = stage.layers.min(*left);
                *left -= kept;
                Keep::First(kept)
            }
            _ => Keep::All,
        }
    }
}

/// A norm, a linear map, layers, and a linear map back to what came in.
pub(super) struct Transformer {
    norm: GroupNorm,
    proj_in: Linear,
    layers: Blocks<Layer>,
    /// Of each layer, to keys and values of a text.
    texts: Blocks<Linear>,
    proj_out: Linear,
}

impl Transformer {
    pub(super) fn load(
        scope: &Scope,
        stage: &StageConfig,
        shared: &mut Shared,
    ) -> error::Result<Self> {
        let c = stage.channels;
        let norm = GroupNormOptions { groups: shared.groups, eps: OUTER_EPS };
        let is_linear = shared.is_linear;
        let projection = |name: &str| match is_linear {
            true => Linear::load(&scope.at(name), c, c, true),
            false => {
                let weight = scope.at(name).get((c, c, 1, 1), "weight")?;
                let rows = weight.reshape((c, c));
                let rows = rows.map_err(|e| classify(e, "cannot lay out a convolution"))?;
                Linear::new(&rows, &scope.at(name).get_f32(c, "bias")?)
            }
        };
        let (first, context, keep) = (shared.layers, shared.context, shared.keep(stage));
        shared.layers += stage.layers;
        let (layers, count, heads) = (scope.at("transformer_blocks"), stage.layers, stage.heads);
        let layer = move |i: usize, scope: &Scope| Layer::load(scope, (c, heads), first + i);
        let text = move |_: usize, scope: &Scope| {
            let kv = ["to_k", "to_v"].map(|name| scope.at("attn2").at(name));
            Linear::load_joined(&kv, context, c, false)
        };
        Ok(Self {
            norm: GroupNorm::load(&scope.at("norm"), c, norm)?,
            proj_in: projection("proj_in")?,
            proj_out: projection("proj_out")?,
            layers: Blocks::load(&layers, count, keep, layer)?,
            texts: Blocks::load(&layers, count, keep, text)?,
        })
    }

    /// `(b, h, w, c)` to the same shape.
    pub(super) fn forward(&self, x: &Tensor, prompts: &Prompts) -> Result<Tensor> {
        let (b, h, w, c) = x.dims4()?;
        let y = self.norm.forward(x, Activation::Identity)?.reshape((b, h * w, c))?;
        let mut y = self.proj_in.forward(&y)?;
        self.layers.for_each(|_, layer| {
            y = layer.forward(&y, prompts)?;
            Ok(())
        })?;
        self.proj_out.forward_onto(&y.reshape((b, h, w, c))?, None, Some(x))
    }

    /// What every layer makes of the tokens `(1, n, context)` of a text, behind those of layers before.
    pub(super) fn keys_values(&self, tokens: &Tensor, layers: &mut Vec<KeysValues>) -> Result<()> {
        self.texts.for_each(|_, kv| {
            layers.push(kv.forward(tokens)?);
            Ok(())
        })
    }
}

/// `x + attention(norm1(x))`, the same with the text, then `x + feed_forward(norm3(x))`
/// (`BasicTransformerBlock`).
struct Layer {
    norm1: Norm,
    pixels: SelfAttention,
    norm2: Norm,
    text: CrossAttention,
    norm3: Norm,
    mlp: Mlp,
}

impl Layer {
    /// Layer `number` of the network, with `c` channels.
    fn load(scope: &Scope, (c, heads): (usize, usize), number: usize) -> error::Result<Self> {
        let norm = |name: &str| Norm::load(&scope.at(name), c, NORM);
        let attn1 = scope.at("attn1");
        let qkv = ["to_q", "to_k", "to_v"].map(|name| attn1.at(name));
        let scale = SelfAttention::scale(c, heads);
        Ok(Self {
            norm1: norm("norm1")?,
            pixels: SelfAttention {
                qkv: Linear::load_joined(&qkv, c, c, false)?,
                heads,
                options: attention::Options { scale, ..Default::default() },
                norm: None,
                proj: Linear::load(&attn1.at("to_out.0"), c, c, true)?,
            },
            norm2: norm("norm2")?,
            text: CrossAttention::load(&scope.at("attn2"), (c, heads), number)?,
            norm3: norm("norm3")?,
            mlp: Mlp::load_geglu(&scope.at("ff"), c, EXPANSION * c)?,
        })
    }

    fn forward(&self, x: &Tensor, prompts: &Prompts) -> Result<Tensor> {
        let x = self.pixels.forward(x, Some(&self.norm1), None, Some(x))?;
        let x = self.text.forward(&x, &self.norm2, prompts)?;
        self.mlp.forward(&x, Some(&self.norm3), Some(&x))
    }
}

/// Queries of pixels for keys and values of a text.
struct CrossAttention {
    q: Linear,
    proj: Linear,
    heads: usize,
    options: attention::Options,
    /// Of the layer in a prompt.
    number: usize,
}

impl CrossAttention {
    fn load(scope: &Scope, (c, heads): (usize, usize), number: usize) -> error::Result<Self> {
        let scale = SelfAttention::scale(c, heads);
        Ok(Self {
            q: Linear::load(&scope.at("to_q"), c, c, false)?,
            proj: Linear::load(&scope.at("to_out.0"), c, c, true)?,
            heads,
            options: attention::Options { scale, ..Default::default() },
            number,
        })
    }

    /// `x + attention(norm(x), text)`.
    fn forward(&self, x: &Tensor, norm: &Norm, prompts: &Prompts) -> Result<Tensor> {
        let (b, n, c) = x.dims3()?;
        let q = self.q.forward_normed(x, Some(norm))?;
        let q = q.reshape((b, n, self.heads, ()))?.transpose(1, 2)?;
        let parts = prompts.of_layer(self.number)?.into_iter().map(|(samples, kv)| {
            let kv = kv.reshape((samples.len(), (), 2, self.heads, c / self.heads))?;
            let kv = kv.permute((2, 0, 3, 1, 4))?;
            let q = q.narrow(0, samples.start, samples.len())?;
            attention::forward(&q, &part(&kv, 0)?, &part(&kv, 1)?, &self.options, None)
        });
        let mut parts = parts.collect::<Result<Vec<_>>>()?;
        let y = match parts.len() {
            1 => parts.remove(0),
            _ => Tensor::cat(&parts, 0)?,
        };
        self.proj.forward_onto(&y, None, Some(x))
    }
}
