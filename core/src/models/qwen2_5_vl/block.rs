//! The block that both parts are made of: attention and a gated feed-forward layer, each behind an
//! RMS norm. They differ in what attends to what.

use std::ops::Range;

use candle_core::{Result, Tensor};

use super::config::{TextConfig, VisionConfig};
use super::rope;
use crate::device::classify;
use crate::error;
use crate::kernels::activation::Activation;
use crate::kernels::attention::{self, Rotation};
use crate::nn::{Linear, Norm, NormKind, NormOptions};
use crate::weights::Scope;

/// Of all norms of the vision part.
pub(super) const VISION_NORM: NormOptions = NormOptions { kind: NormKind::Rms, eps: 1e-6 };

/// Of all norms of the language model.
pub(super) fn text_norm(config: &TextConfig) -> NormOptions {
    NormOptions { kind: NormKind::Rms, eps: config.rms_norm_eps }
}

/// Tokens behind each other that attend to each other only, in one way.
pub(super) struct Run {
    pub(super) tokens: Range<usize>,
    pub(super) options: attention::Options,
    pub(super) rotation: Rotation,
}

/// Sizes and names, in which the blocks of the parts differ.
struct Kind {
    width: usize,
    hidden: usize,
    heads: usize,
    key_heads: usize,
    norm: NormOptions,
    /// Whether the layers behind attention have biases.
    has_bias: bool,
    norms: [&'static str; 2],
    out: &'static str,
}

/// One block.
pub(super) struct Block {
    attention_norm: Norm,
    /// To the heads of queries, then of keys, then of values.
    qkv: Linear,
    heads: usize,
    key_heads: usize,
    out: Linear,
    mlp_norm: Norm,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Block {
    /// A block of the vision part out of `scope`, its own.
    pub(super) fn of_vision(config: &VisionConfig, scope: &Scope) -> error::Result<Self> {
        let (width, heads) = (config.hidden_size, config.num_heads);
        let kind = Kind {
            width,
            hidden: config.intermediate_size,
            heads,
            key_heads: heads,
            norm: VISION_NORM,
            has_bias: true,
            norms: ["norm1", "norm2"],
            out: "attn.proj",
        };
        let qkv = scope.at("attn.qkv");
        let thirds = |all: Tensor| {
            let third = |i: usize| all.narrow(0, i * width, width).map_err(failed);
            Ok([third(0)?, third(1)?, third(2)?])
        };
        let weights = thirds(qkv.get((3 * width, width), "weight")?)?;
        let biases = thirds(qkv.get_f32(3 * width, "bias")?)?;
        kind.load(scope, weights, biases)
    }

    /// A layer of the language model out of `scope`, its own.
    pub(super) fn of_text(config: &TextConfig, scope: &Scope) -> error::Result<Self> {
        let kind = Kind {
            width: config.hidden_size,
            hidden: config.intermediate_size,
            heads: config.num_attention_heads,
            key_heads: config.num_key_value_heads,
            norm: text_norm(config),
            has_bias: false,
            norms: ["input_layernorm", "post_attention_layernorm"],
            out: "self_attn.o_proj",
        };
        let keys = kind.key_heads * config.head();
        let layer = |name: &str| scope.at(format!("self_attn.{name}_proj"));
        let weight = |name, n| layer(name).get((n, kind.width), "weight");
        let bias = |name, n| layer(name).get_f32(n, "bias");
        let weights = [weight("q", kind.width)?, weight("k", keys)?, weight("v", keys)?];
        let biases = [bias("q", kind.width)?, bias("k", keys)?, bias("v", keys)?];
        kind.load(scope, weights, biases)
    }

    /// Tokens `(n, c)` to the same; with `kept`, those rows only.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        runs: &[Run],
        kept: Option<&[Range<usize>]>,
    ) -> Result<Tensor> {
        let attended = self.attend(x, runs)?;
        let (attended, x) = match kept {
            None => (attended, x.clone()),
            Some(kept) => (rows(&attended, kept)?, rows(x, kept)?),
        };
        let x = self.out.forward_onto(&attended, None, Some(&x))?;
        let norm = Some(&self.mlp_norm);
        let hidden = self.gate.forward_times(&x, norm, &self.up.forward_normed(&x, norm)?)?;
        self.down.forward_onto(&hidden, None, Some(&x))
    }

    /// What the tokens of each run find in it; runs are in order and leave none out.
    fn attend(&self, x: &Tensor, runs: &[Run]) -> Result<Tensor> {
        let qkv = self.qkv.forward_normed(x, Some(&self.attention_norm))?;
        let (heads, keys) = (self.heads, self.key_heads);
        let qkv = qkv.reshape((x.dim(0)?, heads + 2 * keys, ()))?;
        let mut found = Vec::with_capacity(runs.len());
        for run in runs {
            let tokens = qkv.narrow(0, run.tokens.start, run.tokens.len())?;
            let part = |first, heads| tokens.narrow(1, first, heads)?.transpose(0, 1)?.unsqueeze(0);
            let (q, k, v) = (part(0, heads)?, part(heads, keys)?, part(heads + keys, keys)?);
            let rotation = Some(&run.rotation);
            found.push(attention::forward(&q, &k, &v, &run.options, rotation)?.squeeze(0)?);
        }
        join(found)
    }
}

impl Kind {
    /// With the layers of queries, keys and values.
    fn load(
        &self,
        scope: &Scope,
        weights: [Tensor; 3],
        biases: [Tensor; 3],
    ) -> error::Result<Block> {
        let pack = |[q, k, v]: [Tensor; 3]| {
            let q = rope::neighbours(&q, self.heads)?;
            Tensor::cat(&[q, rope::neighbours(&k, self.key_heads)?, v], 0)
        };
        let (weight, bias) = (pack(weights).map_err(failed)?, pack(biases).map_err(failed)?);
        let norm = |name: &str| Norm::load(&scope.at(name), self.width, self.norm);
        let linear = |name: &str, k, n| Linear::load(&scope.at(name), k, n, self.has_bias);
        Ok(Block {
            attention_norm: norm(self.norms[0])?,
            qkv: Linear::new(&weight, &bias)?,
            heads: self.heads,
            key_heads: self.key_heads,
            out: linear(self.out, self.width, self.width)?,
            mlp_norm: norm(self.norms[1])?,
            gate: linear("mlp.gate_proj", self.width, self.hidden)?.then(Activation::Silu),
            up: linear("mlp.up_proj", self.width, self.hidden)?,
            down: linear("mlp.down_proj", self.hidden, self.width)?,
        })
    }
}

fn failed(e: candle_core::Error) -> error::Error {
    classify(e, "cannot join linear layers")
}

/// Some runs of rows of `x`.
fn rows(x: &Tensor, runs: &[Range<usize>]) -> Result<Tensor> {
    join(runs.iter().map(|run| x.narrow(0, run.start, run.len())).collect::<Result<_>>()?)
}

/// Runs of rows behind each other.
pub(super) fn join(mut parts: Vec<Tensor>) -> Result<Tensor> {
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => Tensor::cat(&parts, 0),
    }
}
