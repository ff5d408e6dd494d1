//! A block of the transformer: pictures and text have weights of their own and attend jointly (MMDiT;
//! Esser et al., arXiv 2403.03206).

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::config::TransformerConfig;
use super::layout::Layout;
use super::modulation::{Half, Stream, Streams, join};
use crate::device::classify;
use crate::error;
use crate::kernels::activation::Activation;
use crate::kernels::attention;
use crate::nn::{Linear, Norm, NormKind, NormOptions, SelfAttention};
use crate::weights::Scope;

/// Of the norms of queries and keys.
const QK_NORM: NormOptions = NormOptions { kind: NormKind::Rms, eps: 1e-6 };
/// Hidden values of the feed-forward layers, in widths of the network.
const MLP_RATIO: usize = 4;

/// One block.
pub(super) struct Block {
    index: usize,
    image: Joint,
    image_out: Rest,
    text: Joint,
    /// What goes behind attention in the text stream; the last block's is never looked at.
    text_out: Option<Rest>,
    attention: attention::Options,
}

impl Block {
    /// Block `index` out of `scope`, its own.
    pub(super) fn load(
        config: &TransformerConfig,
        index: usize,
        scope: &Scope,
    ) -> error::Result<Self> {
        let width = config.width();
        let is_last = index + 1 == config.num_layers;
        let attn = scope.at("attn");
        let rest = |out: &str, mlp: &str| Rest::load(&attn.at(out), &scope.at(mlp), width);
        Ok(Self {
            index,
            image: Joint::load(&attn, config, ["to_q", "to_k", "to_v"], ["norm_q", "norm_k"])?,
            image_out: rest("to_out.0", "img_mlp")?,
            text: Joint::load(
                &attn,
                config,
                ["add_q_proj", "add_k_proj", "add_v_proj"],
                ["norm_added_q", "norm_added_k"],
            )?,
            text_out: (!is_last).then(|| rest("to_add_out", "txt_mlp")).transpose()?,
            attention: attention::Options {
                scale: SelfAttention::scale(width, config.num_attention_heads),
                ..Default::default()
            },
        })
    }

    /// Whether the tensor `name` of a network of `layers` blocks is one that no block takes.
    pub(super) fn is_unused(name: &str, layers: usize) -> bool {
        let last = format!("transformer_blocks.{}.", layers - 1);
        name.strip_prefix(&last).is_some_and(|name| {
            name.starts_with("attn.to_add_out.") || name.starts_with("txt_mlp.")
        })
    }

    /// Picture and text tokens `(n, c)` to the same. The last block gives the tokens of targets only,
    /// and no text.
    pub(super) fn forward(
        &self,
        image: &Tensor,
        text: &Tensor,
        layout: &Layout,
        streams: &Streams,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let residual = image;
        let modulated = |stream: &Stream, x| stream.modulate(x, self.index, Half::Attention);
        let of_image = self.image.forward(&modulated(&streams.image, image)?)?;
        let of_text = self.text.forward(&modulated(&streams.text, text)?)?;
        let is_last = self.text_out.is_none();
        let (mut to_image, mut to_text, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for place in &layout.places {
            let of = |all: &[Tensor; 3], tokens: &Range<usize>| -> Result<[Tensor; 3]> {
                let part = |i: usize| all[i].narrow(0, tokens.start, tokens.len());
                Ok([part(0)?, part(1)?, part(2)?])
            };
            let (text, image) = (of(&of_text, &place.text)?, of(&of_image, &place.image)?);
            let runs = [self.text.run(&text), self.image.run(&image)];
            let rotation = Some(&*place.rotation);
            let y = attention::forward_joint(&runs, &self.attention, rotation)?.squeeze(0)?;
            let rows = if is_last { place.target } else { place.image.len() };
            to_image.push(y.narrow(0, place.text.len(), rows)?);
            to_text.push(y.narrow(0, 0, place.text.len())?);
            targets.push(residual.narrow(0, place.image.start, rows)?);
        }
        // The feed-forward layers take as much again.
        drop((of_image, of_text));
        let to_image = join(to_image)?;
        let Some(text_out) = &self.text_out else {
            let image = join(targets)?;
            let image = self.image_out.forward(&image, &to_image, &streams.targets, self.index)?;
            return Ok((image, None));
        };
        let image = self.image_out.forward(image, &to_image, &streams.image, self.index)?;
        let text = text_out.forward(text, &join(to_text)?, &streams.text, self.index)?;
        Ok((image, Some(text)))
    }
}

/// What a stream brings to the joint attention.
struct Joint {
    /// To `(3, heads, d)`: queries, keys, values.
    qkv: Linear,
    norms: [Norm; 2],
    heads: usize,
}

impl Joint {
    fn load(
        attn: &Scope,
        config: &TransformerConfig,
        layers: [&str; 3],
        norms: [&str; 2],
    ) -> error::Result<Self> {
        let width = config.width();
        let mut weights = Vec::with_capacity(layers.len());
        let mut biases = Vec::with_capacity(layers.len());
        for layer in layers {
            let scope = attn.at(layer);
            weights.push(scope.get((width, width), "weight")?);
            biases.push(scope.get_f32(width, "bias")?);
        }
        let failed = |e| classify(e, "cannot join linear layers");
        let weight = Tensor::cat(&weights, 0).map_err(failed)?;
        let bias = Tensor::cat(&biases, 0).map_err(failed)?;
        let norm = |name: &str| Norm::load(&attn.at(name), config.attention_head_dim, QK_NORM);
        Ok(Self {
            qkv: Linear::new(&weight, &bias)?,
            norms: [norm(norms[0])?, norm(norms[1])?],
            heads: config.num_attention_heads,
        })
    }

    /// Queries, keys and values `(n, heads, d)` of tokens `(n, c)`, as views.
    fn forward(&self, x: &Tensor) -> Result<[Tensor; 3]> {
        let qkv = self.qkv.forward(x)?.reshape((x.dim(0)?, 3, self.heads, ()))?;
        let part = |i: usize| qkv.narrow(1, i, 1)?.squeeze(1);
        Ok([part(0)?, part(1)?, part(2)?])
    }

    /// Some of them, for the joint attention.
    fn run<'a>(&'a self, [q, k, v]: &'a [Tensor; 3]) -> attention::Run<'a> {
        let [q_norm, k_norm] = self.norms.each_ref().map(Norm::weights);
        attention::Run { q, k, v, norms: (q_norm, k_norm) }
    }
}

/// What goes behind attention: its output layer, and the feed-forward layers.
struct Rest {
    out: Linear,
    hidden: Linear,
    mlp: Linear,
}

impl Rest {
    fn load(out: &Scope, mlp: &Scope, width: usize) -> error::Result<Self> {
        let inner = MLP_RATIO * width;
        Ok(Self {
            out: Linear::load(out, width, width, true)?,
            hidden: Linear::load(&mlp.at("net.0.proj"), width, inner, true)?
                .then(Activation::GeluTanh),
            mlp: Linear::load(&mlp.at("net.2"), inner, width, true)?,
        })
    }

    /// The residual `x` with what attention found, and then with the feed-forward layers.
    fn forward(
        &self,
        x: &Tensor,
        attended: &Tensor,
        stream: &Stream,
        block: usize,
    ) -> Result<Tensor> {
        let x = stream.add_gated(x, &self.out.forward(attended)?, block, Half::Attention)?;
        let hidden = self.hidden.forward(&stream.modulate(&x, block, Half::FeedForward)?)?;
        let y = self.mlp.forward(&hidden)?;
        drop(hidden);
        stream.add_gated(&x, &y, block, Half::FeedForward)
    }
}
