//! The denoising transformer, `QwenImageTransformer2DModel`: noisy and reference latents and the
//! states of a text encoder to the velocity of the latents.

use candle_core::{DType, Result, Tensor};

use super::block::Block;
use super::config::TransformerConfig;
use super::layout::Layout;
use super::modulation::{Modulation, Streams};
use crate::control::Control;
use crate::error;
use crate::nn::{Blocks, Keep, Linear, Norm, NormKind, NormOptions};
use crate::weights::Scope;

const TEXT_NORM: NormOptions = NormOptions { kind: NormKind::Rms, eps: 1e-6 };

/// The transformer, without the weights of its modulation: see [`Modulation::schedule`].
pub(crate) struct QwenImageTransformer {
    img_in: Linear,
    txt_norm: Norm,
    txt_in: Linear,
    blocks: Blocks<Block>,
    proj_out: Linear,
    in_channels: usize,
    text_channels: usize,
    dtype: DType,
}

impl QwenImageTransformer {
    /// The network; `keep` says which of its blocks stay in memory.
    pub(crate) fn load(
        config: &TransformerConfig,
        scope: &Scope,
        keep: Keep,
    ) -> error::Result<Self> {
        let (width, text) = (config.width(), config.joint_attention_dim);
        let for_blocks = config.clone();
        let block = move |i: usize, scope: &Scope| Block::load(&for_blocks, i, scope);
        Ok(Self {
            img_in: Linear::load(&scope.at("img_in"), config.in_channels, width, true)?,
            txt_norm: Norm::load(&scope.at("txt_norm"), text, TEXT_NORM)?,
            txt_in: Linear::load(&scope.at("txt_in"), text, width, true)?,
            blocks: Blocks::load(&scope.at("transformer_blocks"), config.num_layers, keep, block)?,
            proj_out: Linear::load(&scope.at("proj_out"), width, config.outputs(), true)?,
            in_channels: config.in_channels,
            text_channels: text,
            dtype: scope.dtype(),
        })
    }

    /// Whether a pass reads nothing from files.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.blocks.are_in_memory()
    }

    /// Whether a checkpoint's tensor is one that neither the network nor its modulation takes.
    pub(crate) fn is_unused(config: &TransformerConfig, name: &str) -> bool {
        Block::is_unused(name, config.num_layers)
    }

    /// The velocities of the targets' tokens, `(targets, outputs)`, sample after sample.
    ///
    /// `image` `(n, in_channels)` has for each sample of the layout the latents of its target and
    /// then those of its references, `text` `(m, joint_attention_dim)` the states of its prompt.
    /// There is one modulation for each sample. `control` can stop it between blocks.
    pub(crate) fn forward(
        &self,
        image: &Tensor,
        text: &Tensor,
        layout: &Layout,
        modulations: &[&Modulation],
        control: &Control,
    ) -> Result<Tensor> {
        let sizes = [image.dims2()?, text.dims2()?];
        let expected = [(layout.image(), self.in_channels), (layout.text(), self.text_channels)];
        if sizes != expected || layout.image() == 0 {
            candle_core::bail!("image and text tokens {sizes:?}, expected {expected:?}");
        }
        let streams = Streams::new(layout, modulations)?;
        let mut image = self.img_in.forward(&image.to_dtype(self.dtype)?)?;
        let text = text.to_dtype(self.dtype)?;
        let mut text = self.txt_in.forward_normed(&text, Some(&self.txt_norm))?;
        self.blocks.for_each(|_, block| {
            control.check().map_err(candle_core::Error::wrap)?;
            let (next, prompt) = block.forward(&image, &text, layout, &streams)?;
            image = next;
            if let Some(prompt) = prompt {
                text = prompt;
            }
            Ok(())
        })?;
        self.proj_out.forward(&streams.normalise_out(&image)?)
    }
}
