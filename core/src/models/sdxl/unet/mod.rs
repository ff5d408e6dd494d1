//! The denoising network, `UNet2DConditionModel` (Rombach et al., arXiv 2112.10752; Podell et al.,
//! arXiv 2307.01952): latents with noise, the time of a step and prompts to what the sampler takes
//! off. The base network and the refiner of SDXL, and the network of Stable Diffusion 1.
//!
//! What depends on the prompt only is made once, by [`UNet::prompt`], and used in all steps.

mod attention;
mod blocks;
mod config;
mod embedding;
mod freeu;
mod prompt;

#[cfg(test)]
mod tests;

use candle_core::{DType, Result, Tensor};

use self::attention::Shared;
use self::blocks::{Down, Middle, Step, Up};
pub(crate) use self::config::{AddedConfig, UnetConfig};
use self::embedding::{Embedding, Sinusoids};
pub use self::freeu::FreeU;
pub(crate) use self::prompt::Prompt;
use self::prompt::Prompts;
use super::layers::{GroupNorm, conv};
use crate::device::classify;
use crate::error::{self, Error};
use crate::kernels::activation::Activation;
use crate::nn::{Conv2d, Keep};
use crate::weights::Scope;

/// What SDXL is told beside the text.
#[derive(Clone, Copy)]
pub(crate) struct Added<'a> {
    /// The vector of the whole text, `(d)`.
    pub(crate) pooled: &'a Tensor,
    /// Height and width of the original, top and left of the crop, and height and width that are asked
    /// for; for the refiner the last two are one number, the aesthetic score.
    pub(crate) sizes: &'a [f32],
}

/// A denoising network.
pub(crate) struct UNet {
    conv_in: Conv2d,
    time: Embedding,
    added: Option<Embedding>,
    down: Vec<Down>,
    middle: Middle,
    /// In the order of use: the smallest first.
    up: Vec<Up>,
    norm: GroupNorm,
    conv_out: Conv2d,
    /// How many layers attend to the text.
    layers: usize,
    config: UnetConfig,
    dtype: DType,
}

impl UNet {
    /// `keep` is about the [large layers](UnetConfig::large_layers); all else stays.
    pub(crate) fn load(config: &UnetConfig, scope: &Scope, keep: Keep) -> error::Result<Self> {
        let first = config.stages[0].channels;
        let width = config.time_width();
        let shared = &mut Shared {
            groups: config.norm.groups,
            context: config.cross_attention_dim,
            is_linear: config.use_linear_projection,
            layers: 0,
            keep,
            widest: config.widest(),
        };
        let added = |added: &AddedConfig| {
            Embedding::load(&scope.at("add_embedding"), added.input_dim, width)
        };
        Ok(Self {
            conv_in: conv(&scope.at("conv_in"), config.in_channels, first)?,
            time: Embedding::load(&scope.at("time_embedding"), first, width)?,
            added: config.added.as_ref().map(added).transpose()?,
            down: (0..config.stages.len())
                .map(|i| Down::load(config, scope, i, shared))
                .collect::<error::Result<_>>()?,
            middle: Middle::load(config, scope, shared)?,
            up: (0..config.stages.len())
                .rev()
                .map(|i| Up::load(config, scope, i, shared))
                .collect::<error::Result<_>>()?,
            norm: GroupNorm::load(&scope.at("conv_norm_out"), first, config.norm)?,
            conv_out: conv(&scope.at("conv_out"), first, config.out_channels)?,
            layers: shared.layers,
            config: config.clone(),
            dtype: scope.dtype(),
        })
    }

    /// Prepares a text `(n, d)` of any number of tokens, with vector and sizes if the network asks for
    /// them.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if they are not what the network asks for.
    pub(crate) fn prompt(&self, text: &Tensor, added: Option<Added<'_>>) -> error::Result<Prompt> {
        let width = self.config.cross_attention_dim;
        match text.dims() {
            [n, d] if *n > 0 && *d == width => {}
            other => {
                return Err(Error::invalid_input(format!(
                    "a text of shape {other:?}, expected tokens of length {width}"
                )));
            }
        }
        self.check_added(added)?;
        self.prepare(text, added).map_err(|e| classify(e, "cannot prepare a prompt"))
    }

    /// The same text with another vector and other sizes; what layers make of the text is shared.
    ///
    /// # Errors
    /// As [`prompt`](Self::prompt).
    pub(crate) fn prompt_again(&self, prompt: &Prompt, added: Added<'_>) -> error::Result<Prompt> {
        self.check_added(Some(added))?;
        let added = self.embed(Some(added)).map_err(|e| classify(e, "cannot prepare a prompt"))?;
        Ok(Prompt { layers: prompt.layers.clone(), added, tokens: prompt.tokens })
    }

    /// Fails unless vector and sizes are there if the network asks for them, as many as it asks for.
    fn check_added(&self, added: Option<Added<'_>>) -> error::Result<()> {
        match (&self.config.added, added) {
            (None, None) => {}
            (Some(config), Some(Added { pooled, sizes })) => {
                let values = pooled.elem_count() + sizes.len() * config.time_dim;
                if pooled.rank() != 1 || values != config.input_dim {
                    return Err(Error::invalid_input(format!(
                        "a vector of shape {:?} and {} sizes of {} values, expected {} values",
                        pooled.dims(),
                        sizes.len(),
                        config.time_dim,
                        config.input_dim
                    )));
                }
            }
            (Some(_), None) => {
                return Err(Error::invalid_input("the network asks for a vector and sizes"));
            }
            (None, Some(_)) => {
                return Err(Error::invalid_input("the network takes no vector and no sizes"));
            }
        }
        Ok(())
    }

    fn prepare(&self, text: &Tensor, added: Option<Added<'_>>) -> Result<Prompt> {
        let tokens = text.to_dtype(self.dtype)?.unsqueeze(0)?;
        let down = self.down.iter().flat_map(Down::transformers);
        let up = self.up.iter().flat_map(Up::transformers);
        let mut layers = Vec::with_capacity(self.layers);
        for transformer in down.chain(self.middle.transformers()).chain(up) {
            transformer.keys_values(&tokens, &mut layers)?;
        }
        Ok(Prompt { layers, added: self.embed(added)?, tokens: text.dim(0)? })
    }

    fn embed(&self, added: Option<Added<'_>>) -> Result<Option<Tensor>> {
        let (Some(embedding), Some(config), Some(added)) = (&self.added, &self.config.added, added)
        else {
            return Ok(None);
        };
        let sizes = Sinusoids::new(&self.config, config.time_dim).of(added.sizes)?;
        let pooled = added.pooled.to_dtype(DType::F32)?.to_device(sizes.device())?;
        let all = Tensor::cat(&[pooled, sizes.flatten_all()?], 0)?;
        embedding.forward(&all.unsqueeze(0)?).map(Some)
    }

    /// As [`forward_onto`](Self::forward_onto), with nothing added.
    #[cfg(test)]
    pub(crate) fn forward(
        &self,
        latents: &Tensor,
        timesteps: &[f32],
        prompts: &[&Prompt],
        freeu: Option<FreeU>,
    ) -> error::Result<Tensor> {
        self.forward_onto(latents, timesteps, prompts, freeu, None)
    }

    /// Latents `(b, h, w, in_channels)` of any size, with a time (0 to 1000 in published models, also
    /// fractional) and a prompt for each of them, to `(b, h, w, out_channels)` in `f32`, with [`FreeU`] or
    /// without, and with `onto` `(b, h, w, channels)` added to what the first layer gives, if it is there.
    ///
    /// What comes out for a sample does not depend on the others.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if these do not fit the network or each other.
    pub(crate) fn forward_onto(
        &self,
        latents: &Tensor,
        timesteps: &[f32],
        prompts: &[&Prompt],
        freeu: Option<FreeU>,
        onto: Option<&Tensor>,
    ) -> error::Result<Tensor> {
        let samples = match latents.dims() {
            [b, h, w, c] if b * h * w > 0 && *c == self.config.in_channels => *b,
            other => {
                return Err(Error::invalid_input(format!(
                    "latents of shape {other:?}, expected {} channels",
                    self.config.in_channels
                )));
            }
        };
        if timesteps.len() != samples || prompts.len() != samples {
            return Err(Error::invalid_input(format!(
                "{samples} latents, {} times and {} prompts",
                timesteps.len(),
                prompts.len()
            )));
        }
        for (i, prompt) in prompts.iter().enumerate() {
            let is_ours = prompt.layers.len() == self.layers;
            if !is_ours || prompt.added.is_some() != self.added.is_some() {
                return Err(Error::invalid_input("prepared for another network").with("prompt", i));
            }
        }
        let first = self.config.stages[0].channels;
        let expected = [&latents.dims()[..3], &[first]].concat();
        if let Some(onto) = onto.filter(|onto| onto.dims() != expected) {
            let found = onto.dims();
            let message = format!("something of shape {found:?} to add, expected {expected:?}");
            return Err(Error::invalid_input(message));
        }
        self.run(latents, timesteps, prompts, (freeu, onto))
            .map_err(|e| classify(e, "cannot take a step"))
    }

    fn run(
        &self,
        latents: &Tensor,
        timesteps: &[f32],
        prompts: &[&Prompt],
        (freeu, onto): (Option<FreeU>, Option<&Tensor>),
    ) -> Result<Tensor> {
        let prompts = Prompts::new(prompts);
        let sinusoids = Sinusoids::new(&self.config, self.config.stages[0].channels);
        let mut time = self.time.forward(&sinusoids.of(timesteps)?)?;
        if let Some(added) = prompts.added()? {
            time = (time + added)?;
        }
        let freeu = freeu.map(|freeu| (freeu, self.config.stages[0].channels));
        let step = &Step { time: Activation::Silu.forward(&time)?, prompts, freeu };
        let onto = onto.map(|onto| onto.to_dtype(self.dtype)).transpose()?;
        let mut x = self.conv_in.forward(&latents.to_dtype(self.dtype)?, onto.as_ref())?;
        let mut aside = vec![x.clone()];
        for down in &self.down {
            x = down.forward(x, step, &mut aside)?;
        }
        x = self.middle.forward(x, step)?;
        for up in &self.up {
            x = up.forward(x, step, &mut aside)?;
        }
        let normed = self.norm.forward(&x, Activation::Silu)?;
        drop(x);
        self.conv_out.forward(&normed, None)?.to_dtype(DType::F32)
    }
}
