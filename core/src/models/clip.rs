//! The text encoders of SDXL: CLIP (Radford et al., arXiv 2103.00020), under the names of transformers'
//! `CLIPTextModel` and `CLIPTextModelWithProjection`.
//!
//! A prompt gives states for each of its tokens, taken from some layer before the last ("CLIP skip")
//! and not normalised, and one vector for all of it: the last state of the token that ends the prompt,
//! normalised and, in the larger encoder, projected.

#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor};

use super::fields::{Fields, object};
use crate::device::classify;
use crate::error::{self, Error};
use crate::kernels::activation::Activation;
use crate::kernels::attention;
use crate::nn::{
    Blocks, Keep, Linear, Mlp, MlpOptions, Norm, NormKind, NormOptions, SelfAttention,
};
use crate::weights::Scope;

/// Largest width; products of two stay far from overflow.
const MAX_SIZE: usize = 65_536;
const MAX_VOCABULARY: usize = 1 << 22;
const MAX_LAYERS: usize = 1024;
/// The number that old files give for the token that ends a prompt, which is not the one in use:
/// transformers takes the largest number of a prompt then.
const OLD_END: u32 = 2;

/// The `config.json` of a text encoder, with the defaults of `CLIPTextConfig`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClipTextConfig {
    pub(crate) vocab_size: usize,
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    /// Most tokens of a prompt.
    pub(crate) max_position_embeddings: usize,
    pub(crate) layer_norm_eps: f64,
    pub(crate) hidden_act: Activation,
    /// Length of the vector of a prompt, where it is projected.
    pub(crate) projection_dim: Option<usize>,
    /// The token that ends a prompt.
    pub(crate) eos_token_id: u32,
}

impl ClipTextConfig {
    /// From the content of `config.json`. The caller adds the file to errors.
    pub(crate) fn parse(bytes: &[u8]) -> error::Result<Self> {
        let all = object(bytes)?;
        let fields = Fields::of(&all);
        fields.one_of("model_type", &["clip_text_model"])?;
        let activation = fields.get("hidden_act").map_or(Some("quick_gelu"), |name| name.as_str());
        let is_projected = fields
            .get("architectures")
            .is_some_and(|names| names.to_string().contains("WithProjection"));
        let projection = fields.size("projection_dim", 512, MAX_SIZE)?;
        let config = Self {
            vocab_size: fields.size("vocab_size", 49_408, MAX_VOCABULARY)?,
            hidden_size: fields.size("hidden_size", 512, MAX_SIZE)?,
            intermediate_size: fields.size("intermediate_size", 2048, MAX_SIZE)?,
            num_hidden_layers: fields.size("num_hidden_layers", 12, MAX_LAYERS)?,
            num_attention_heads: fields.size("num_attention_heads", 8, MAX_SIZE)?,
            max_position_embeddings: fields.size("max_position_embeddings", 77, MAX_SIZE)?,
            layer_norm_eps: fields.positive("layer_norm_eps", 1e-5)?,
            hidden_act: match activation {
                Some("quick_gelu") => Activation::QuickGelu,
                Some("gelu") => Activation::GeluErf,
                _ => return Err(fields.unsupported("hidden_act", "quick_gelu or gelu")),
            },
            projection_dim: is_projected.then_some(projection),
            eos_token_id: fields.size("eos_token_id", 49_407, MAX_VOCABULARY)? as u32,
        };
        if !config.hidden_size.is_multiple_of(config.num_attention_heads) {
            let expected = format!("a divisor of `hidden_size`, {}", config.hidden_size);
            return Err(fields.invalid("num_attention_heads", expected));
        }
        Ok(config)
    }

    /// Values of a token's states, and of a prompt's vector.
    pub(crate) fn widths(&self) -> (usize, usize) {
        let width = self.hidden_size;
        (width, self.projection_dim.unwrap_or(width))
    }
}

/// What a text encoder makes of prompts of one length.
pub(crate) struct ClipText {
    /// `(b, n, hidden_size)`.
    pub(crate) states: Tensor,
    /// `(b, hidden_size or projection_dim)`.
    pub(crate) pooled: Tensor,
}

/// A text encoder.
pub(crate) struct ClipTextModel {
    tokens: Tensor,
    positions: Tensor,
    layers: Blocks<Layer>,
    norm: Norm,
    projection: Option<Linear>,
    config: ClipTextConfig,
}

impl ClipTextModel {
    /// Out of `root`, where all tensors of a checkpoint are. `keep` is about the layers.
    pub(crate) fn load(config: &ClipTextConfig, root: &Scope, keep: Keep) -> error::Result<Self> {
        let width = config.hidden_size;
        // Files that transformers 5 wrote have no prefix where nothing is projected.
        let scope = match root.has("embeddings.token_embedding.weight") {
            true => root.clone(),
            false => root.at("text_model"),
        };
        let embeddings = scope.at("embeddings");
        let positions = (config.max_position_embeddings, width);
        let (layers, count) = (scope.at("encoder.layers"), config.num_hidden_layers);
        let layer = {
            let config = config.clone();
            move |_: usize, scope: &Scope| Layer::load(&config, scope)
        };
        let projection = config
            .projection_dim
            .map(|length| Linear::load(&root.at("text_projection"), width, length, false));
        Ok(Self {
            tokens: embeddings.get((config.vocab_size, width), "token_embedding.weight")?,
            positions: embeddings.get(positions, "position_embedding.weight")?,
            layers: Blocks::load(&layers, count, keep, layer)?,
            norm: Norm::load(&scope.at("final_layer_norm"), width, norm_options(config))?,
            projection: projection.transpose()?,
            config: config.clone(),
        })
    }

    /// Most tokens of a prompt.
    pub(crate) fn positions(&self) -> usize {
        self.config.max_position_embeddings
    }

    /// The states of prompts behind all layers but the last `skipped`, and the vectors of the prompts.
    /// All prompts have one length.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if prompts differ in length, are longer than
    /// the model's positions, or have tokens that it does not know; or if there are not so many layers.
    pub(crate) fn encode(&self, prompts: &[Vec<u32>], skipped: usize) -> error::Result<ClipText> {
        let config = &self.config;
        if skipped >= config.num_hidden_layers {
            return Err(Error::invalid_input(format!(
                "{skipped} layers cannot be left out of {}",
                config.num_hidden_layers
            )));
        }
        let length = prompts.first().map_or(0, Vec::len);
        if length == 0 || length > config.max_position_embeddings {
            return Err(Error::invalid_input(format!(
                "{length} tokens, expected 1 to {}",
                config.max_position_embeddings
            )));
        }
        for (i, prompt) in prompts.iter().enumerate() {
            let unknown = prompt.iter().find(|id| **id as usize >= config.vocab_size);
            if prompt.len() != length || unknown.is_some() {
                return Err(Error::invalid_input(format!(
                    "expected {length} tokens below {}",
                    config.vocab_size
                ))
                .with("prompt", i));
            }
        }
        self.run(prompts, length, config.num_hidden_layers - skipped)
            .map_err(|e| classify(e, "cannot encode a prompt"))
    }

    fn run(&self, prompts: &[Vec<u32>], length: usize, layers: usize) -> Result<ClipText> {
        let ids = Tensor::new(prompts.concat(), self.tokens.device())?;
        let width = self.config.hidden_size;
        let mut x = self
            .tokens
            .index_select(&ids, 0)?
            .reshape((prompts.len(), length, width))?
            .broadcast_add(&self.positions.narrow(0, 0, length)?)?;
        let mut states = x.clone();
        self.layers.for_each(|i, layer| {
            x = layer.forward(&x)?;
            if i + 1 == layers {
                states = x.clone();
            }
            Ok(())
        })?;
        let ends: Vec<u32> = prompts
            .iter()
            .enumerate()
            .map(|(i, prompt)| (i * length + self.end(prompt)) as u32)
            .collect();
        let ends = Tensor::new(ends, x.device())?;
        let last = x.reshape((prompts.len() * length, width))?.index_select(&ends, 0)?;
        let pooled = match &self.projection {
            Some(projection) => projection.forward_normed(&last, Some(&self.norm))?,
            None => self.norm.forward(&last)?,
        };
        Ok(ClipText { states, pooled })
    }

    /// Where the first token that ends the prompt is; the first token if there is none.
    fn end(&self, prompt: &[u32]) -> usize {
        let end = match self.config.eos_token_id {
            OLD_END => prompt.iter().copied().max().unwrap_or_default(),
            end => end,
        };
        prompt.iter().position(|id| *id == end).unwrap_or_default()
    }
}

fn norm_options(config: &ClipTextConfig) -> NormOptions {
    NormOptions { kind: NormKind::Layer, eps: config.layer_norm_eps }
}

/// `x + attention(norm(x))`, then `x + mlp(norm(x))`; tokens see none behind them.
struct Layer {
    norm1: Norm,
    attention: SelfAttention,
    norm2: Norm,
    mlp: Mlp,
}

impl Layer {
    fn load(config: &ClipTextConfig, scope: &Scope) -> error::Result<Self> {
        let (width, heads) = (config.hidden_size, config.num_attention_heads);
        let attention = scope.at("self_attn");
        let layers = ["q_proj", "k_proj", "v_proj"].map(|name| attention.at(name));
        let norm = norm_options(config);
        let mlp = MlpOptions::plain(config.hidden_act);
        let scale = SelfAttention::scale(width, heads);
        Ok(Self {
            norm1: Norm::load(&scope.at("layer_norm1"), width, norm)?,
            attention: SelfAttention {
                qkv: Linear::load_joined(&layers, width, width, true)?,
                heads,
                options: attention::Options { scale, causal: true, ..Default::default() },
                norm: None,
                proj: Linear::load(&attention.at("out_proj"), width, width, true)?,
            },
            norm2: Norm::load(&scope.at("layer_norm2"), width, norm)?,
            mlp: Mlp::load(&scope.at("mlp"), width, config.intermediate_size, mlp, None)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.attention.forward(x, Some(&self.norm1), None, Some(x))?;
        self.mlp.forward(&x, Some(&self.norm2), Some(&x))
    }
}
