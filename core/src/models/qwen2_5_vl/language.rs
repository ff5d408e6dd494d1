//! The language model: prompts in which pictures stand, to the states behind its last norm.

use candle_core::{Result, Tensor};

use super::block::{Block, Run, join, text_norm};
use super::config::TextConfig;
use super::prompt::Prompt;
use super::rope::Bands;
use crate::device::classify;
use crate::error;
use crate::kernels::attention::Options;
use crate::nn::{Blocks, Keep, Norm, SelfAttention};
use crate::weights::Scope;

/// The language model without its head.
pub(crate) struct LanguageModel {
    embeddings: Tensor,
    layers: Blocks<Block>,
    norm: Norm,
    config: TextConfig,
}

impl LanguageModel {
    /// Out of `root`, where all tensors of a checkpoint are.
    /// `keep` says which layers stay in memory.
    pub(crate) fn load(config: &TextConfig, root: &Scope, keep: Keep) -> error::Result<Self> {
        let scope = Self::scope(root);
        let for_layers = config.clone();
        let layer = move |_: usize, scope: &Scope| Block::of_text(&for_layers, scope);
        let width = config.hidden_size;
        Ok(Self {
            embeddings: scope.get((config.vocab_size, width), "embed_tokens.weight")?,
            layers: Blocks::load(&scope.at("layers"), config.num_hidden_layers, keep, layer)?,
            norm: Norm::load(&scope.at("norm"), width, text_norm(config))?,
            config: config.clone(),
        })
    }

    /// Where the language model's tensors are: checkpoints of transformers 5 have them one deeper.
    fn scope(root: &Scope) -> Scope {
        match root.has("model.language_model.embed_tokens.weight") {
            true => root.at("model.language_model"),
            false => root.at("model"),
        }
    }

    /// The states of each prompt behind its first `dropped`, `(tokens, hidden_size)`. What a prompt
    /// gives does not depend on the others.
    pub(crate) fn encode(&self, prompts: &[Prompt]) -> error::Result<Vec<Tensor>> {
        for (index, prompt) in prompts.iter().enumerate() {
            prompt.check(&self.config).map_err(|error| error.with("prompt", index))?;
        }
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        self.forward(prompts).map_err(|e| classify(e, "cannot encode prompts"))
    }

    fn forward(&self, prompts: &[Prompt]) -> Result<Vec<Tensor>> {
        let bands = Bands::of_text(&self.config);
        let scale = SelfAttention::scale(self.config.hidden_size, self.config.num_attention_heads);
        let (mut runs, mut kept, mut start) = (Vec::new(), Vec::new(), 0);
        for prompt in prompts {
            let tokens = start..start + prompt.ids.len();
            let positions = prompt.positions(&self.config);
            start = tokens.end;
            kept.push(tokens.start + prompt.dropped..tokens.end);
            let options = Options { scale: scale.clone(), causal: true, ..Options::default() };
            let rotation = bands.rotation(&positions, self.embeddings.device())?;
            runs.push(Run { tokens, options, rotation });
        }
        let mut x = self.embed(prompts)?;
        self.layers.for_each(|index, layer| {
            // What is dropped is needed as keys and values only, so not behind the last attention.
            let is_last = index + 1 == self.config.num_hidden_layers;
            x = layer.forward(&x, &runs, is_last.then_some(&kept))?;
            Ok(())
        })?;
        let x = self.norm.forward(&x)?;
        let mut start = 0;
        let states = kept.iter().map(|rows| {
            start += rows.len();
            x.narrow(0, start - rows.len(), rows.len())
        });
        states.collect()
    }

    /// The embeddings of all tokens, and vectors in the places of pictures.
    fn embed(&self, prompts: &[Prompt]) -> Result<Tensor> {
        let mut parts = Vec::new();
        for prompt in prompts {
            let mut start = 0;
            let end = std::iter::once((prompt.ids.len()..prompt.ids.len(), None));
            let pictures = prompt.pictures.iter();
            let pictures = pictures.map(|picture| (picture.tokens.clone(), Some(&picture.vectors)));
            for (tokens, vectors) in pictures.chain(end) {
                let text = &prompt.ids[start..tokens.start];
                if !text.is_empty() {
                    let ids = Tensor::new(text, self.embeddings.device())?;
                    parts.push(self.embeddings.index_select(&ids, 0)?);
                }
                if let Some(vectors) = vectors {
                    parts.push(vectors.to_dtype(self.embeddings.dtype())?);
                }
                start = tokens.end;
            }
        }
        join(parts)
    }
}
