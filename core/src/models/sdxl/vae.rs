//! The autoencoder, `AutoencoderKL` (Rombach et al., arXiv 2112.10752): pictures to latents and back.

use candle_core::{DType, Result, Tensor};
use serde_json::Value;

use super::layers::{GroupNorm, GroupNormOptions, ResnetBlock, conv, halving, pixelwise};
use crate::error;
use crate::kernels::activation::Activation;
use crate::kernels::attention;
use crate::models::fields::{Fields, object};
use crate::nn::{Conv2d, Linear, SelfAttention, doubled};
use crate::weights::Scope;

/// Of all norms.
const EPS: f64 = 1e-6;
/// Largest number of channels.
const MAX_CHANNELS: usize = 8192;
/// Most stages, and blocks of one.
const MAX_DEPTH: usize = 16;

/// The `config.json` of an autoencoder, with the defaults of `AutoencoderKL`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AutoencoderConfig {
    /// Channels of each stage, the first at full size.
    pub(crate) block_out_channels: Vec<usize>,
    pub(crate) layers_per_block: usize,
    pub(crate) latent_channels: usize,
    /// Groups of all norms.
    pub(crate) norm_num_groups: usize,
    /// What latents are multiplied by for the denoising network.
    pub(crate) scaling_factor: f64,
    /// Whether there are linear maps of latents on both sides.
    pub(crate) use_quant_conv: bool,
    pub(crate) use_post_quant_conv: bool,
}

impl AutoencoderConfig {
    /// From the content of `config.json`. The caller adds the file to errors.
    pub(crate) fn parse(bytes: &[u8]) -> error::Result<Self> {
        let all = object(bytes)?;
        let fields = Fields::of(&all);
        fields.one_of("_class_name", &["AutoencoderKL"])?;
        fields.one_of("act_fn", &["silu"])?;
        for key in ["in_channels", "out_channels"] {
            if fields.size(key, 3, MAX_CHANNELS)? != 3 {
                return Err(fields.unsupported(key, "3"));
            }
        }
        for (key, side) in [("down_block_types", "Down"), ("up_block_types", "Up")] {
            let expected =
                format!("{side}{}coderBlock2D", if side == "Down" { "En" } else { "De" });
            let fits = |value: &Value| {
                value.as_array().is_some_and(|kinds| kinds.iter().all(|kind| kind == &expected))
            };
            if fields.get(key).is_some_and(|value| !fits(value)) {
                return Err(fields.unsupported(key, format!("{expected} everywhere")));
            }
        }
        fields.only("mid_block_add_attention", &Value::Bool(true))?;
        let config = Self {
            block_out_channels: fields.indexes("block_out_channels", &[64])?,
            layers_per_block: fields.size("layers_per_block", 1, MAX_DEPTH)?,
            latent_channels: fields.size("latent_channels", 4, MAX_CHANNELS)?,
            norm_num_groups: fields.size("norm_num_groups", 32, MAX_CHANNELS)?,
            scaling_factor: fields.positive("scaling_factor", 0.18215)?,
            use_quant_conv: fields.flag("use_quant_conv", true)?,
            use_post_quant_conv: fields.flag("use_post_quant_conv", true)?,
        };
        let (stages, groups) = (&config.block_out_channels, config.norm_num_groups);
        let fits = |c: &usize| (1..=MAX_CHANNELS).contains(c) && c.is_multiple_of(groups);
        if stages.is_empty() || stages.len() > MAX_DEPTH || !stages.iter().all(fits) {
            let expected = format!("1 to {MAX_DEPTH} multiples of {groups} up to {MAX_CHANNELS}");
            return Err(fields.invalid("block_out_channels", expected));
        }
        Ok(config)
    }

    fn norm(&self) -> GroupNormOptions {
        GroupNormOptions { groups: self.norm_num_groups, eps: EPS }
    }

    /// How many pixels of a side become one latent.
    pub(crate) fn scale(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}

/// Encoder and decoder.
pub(crate) struct AutoencoderKl {
    encoder: Encoder,
    quant: Option<Conv2d>,
    post_quant: Option<Conv2d>,
    decoder: Decoder,
    config: AutoencoderConfig,
    dtype: DType,
}

impl AutoencoderKl {
    pub(crate) fn load(config: &AutoencoderConfig, scope: &Scope) -> error::Result<Self> {
        let z = config.latent_channels;
        let quant = |name: &str, channels: usize| pixelwise(&scope.at(name), channels, channels);
        Ok(Self {
            encoder: Encoder::load(config, &scope.at("encoder"))?,
            quant: config.use_quant_conv.then(|| quant("quant_conv", 2 * z)).transpose()?,
            post_quant: config
                .use_post_quant_conv
                .then(|| quant("post_quant_conv", z))
                .transpose()?,
            decoder: Decoder::load(config, &scope.at("decoder"))?,
            config: config.clone(),
            dtype: scope.dtype(),
        })
    }

    /// Channels of latents.
    pub(crate) fn latent_channels(&self) -> usize {
        self.config.latent_channels
    }

    /// Pictures `(b, h, w, 3)` of values from -1 to 1 to latents `(b, h / 8, w / 8, z)` in `f32`: the
    /// mode of their distribution, times [`scaling_factor`](AutoencoderConfig::scaling_factor).
    ///
    /// Sides are multiples of the scale, 8 in published models.
    pub(crate) fn encode(&self, pictures: &Tensor) -> Result<Tensor> {
        let (_, h, w, _) = pictures.dims4()?;
        let scale = self.config.scale();
        if !h.is_multiple_of(scale) || !w.is_multiple_of(scale) || h * w == 0 {
            candle_core::bail!("a picture of {h} x {w} has no sides of whole {scale}s");
        }
        let moments = self.encoder.forward(&pictures.to_dtype(self.dtype)?)?;
        let moments = match &self.quant {
            Some(quant) => quant.forward(&moments, None)?,
            None => moments,
        };
        let mode = moments.narrow(3, 0, self.config.latent_channels)?.to_dtype(DType::F32)?;
        mode * self.config.scaling_factor
    }

    /// The inverse: latents `(b, h, w, z)` to pictures `(b, 8 h, 8 w, 3)` in `f32`. What is meant lies
    /// between -1 and 1; what does not is left to the caller.
    pub(crate) fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let latents = (latents.to_dtype(DType::F32)? / self.config.scaling_factor)?;
        let latents = latents.to_dtype(self.dtype)?;
        let latents = match &self.post_quant {
            Some(post_quant) => post_quant.forward(&latents, None)?,
            None => latents,
        };
        self.decoder.forward(&latents)?.to_dtype(DType::F32)
    }
}

/// Residual blocks of one size, and the convolution that makes the next one.
struct Stage {
    blocks: Vec<ResnetBlock>,
    resample: Option<Conv2d>,
}

impl Stage {
    /// `blocks` blocks from `c` to `n` channels.
    fn load(
        config: &AutoencoderConfig,
        scope: &Scope,
        (c, n): (usize, usize),
        blocks: usize,
        resample: Option<Conv2d>,
    ) -> error::Result<Self> {
        let block = |i: usize| {
            let c = if i == 0 { c } else { n };
            ResnetBlock::load(&scope.at("resnets").at(i), c, n, config.norm(), None)
        };
        Ok(Self { blocks: (0..blocks).map(block).collect::<error::Result<_>>()?, resample })
    }

    fn blocks(&self, mut x: Tensor) -> Result<Tensor> {
        for block in &self.blocks {
            x = block.forward(x, None)?;
        }
        Ok(x)
    }
}

struct Encoder {
    conv_in: Conv2d,
    down: Vec<Stage>,
    middle: Middle,
    head: Head,
}

impl Encoder {
    fn load(config: &AutoencoderConfig, scope: &Scope) -> error::Result<Self> {
        let channels = &config.block_out_channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let stage = |i: usize| {
            let (c, n) = (channels[i.saturating_sub(1)], channels[i]);
            let scope = scope.at("down_blocks").at(i);
            let resample = (i + 1 < channels.len())
                .then(|| halving(&scope.at("downsamplers.0.conv"), n))
                .transpose()?;
            Stage::load(config, &scope, (c, n), config.layers_per_block, resample)
        };
        Ok(Self {
            conv_in: conv(&scope.at("conv_in"), 3, first)?,
            down: (0..channels.len()).map(stage).collect::<error::Result<_>>()?,
            middle: Middle::load(config, &scope.at("mid_block"), last)?,
            head: Head::load(config, scope, last, 2 * config.latent_channels)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.conv_in.forward(x, None)?;
        for stage in &self.down {
            x = stage.blocks(x)?;
            if let Some(halving) = &stage.resample {
                x = halving.forward(&x, None)?;
            }
        }
        self.head.forward(self.middle.forward(x)?)
    }
}

struct Decoder {
    conv_in: Conv2d,
    middle: Middle,
    up: Vec<Stage>,
    head: Head,
}

impl Decoder {
    fn load(config: &AutoencoderConfig, scope: &Scope) -> error::Result<Self> {
        let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let stage = |i: usize| {
            let (c, n) = (channels[i.saturating_sub(1)], channels[i]);
            let scope = scope.at("up_blocks").at(i);
            let resample = (i + 1 < channels.len())
                .then(|| conv(&scope.at("upsamplers.0.conv"), n, n))
                .transpose()?;
            Stage::load(config, &scope, (c, n), config.layers_per_block + 1, resample)
        };
        Ok(Self {
            conv_in: conv(&scope.at("conv_in"), config.latent_channels, first)?,
            middle: Middle::load(config, &scope.at("mid_block"), first)?,
            up: (0..channels.len()).map(stage).collect::<error::Result<_>>()?,
            head: Head::load(config, scope, last, 3)?,
        })
    }

    fn forward(&self, latents: &Tensor) -> Result<Tensor> {
        let mut x = self.middle.forward(self.conv_in.forward(latents, None)?)?;
        for stage in &self.up {
            x = stage.blocks(x)?;
            if let Some(after) = &stage.resample {
                x = after.forward(&doubled(x)?, None)?;
            }
        }
        self.head.forward(x)
    }
}

/// Two residual blocks with attention of one head between all pixels.
struct Middle {
    before: ResnetBlock,
    norm: GroupNorm,
    qkv: Linear,
    options: attention::Options,
    proj: Linear,
    after: ResnetBlock,
}

impl Middle {
    fn load(config: &AutoencoderConfig, scope: &Scope, c: usize) -> error::Result<Self> {
        let attention = scope.at("attentions.0");
        let layers = ["to_q", "to_k", "to_v"].map(|name| attention.at(name));
        let block =
            |i: usize| ResnetBlock::load(&scope.at("resnets").at(i), c, c, config.norm(), None);
        Ok(Self {
            before: block(0)?,
            norm: GroupNorm::load(&attention.at("group_norm"), c, config.norm())?,
            qkv: Linear::load_joined(&layers, c, c, true)?,
            options: attention::Options { scale: SelfAttention::scale(c, 1), ..Default::default() },
            proj: Linear::load(&attention.at("to_out.0"), c, c, true)?,
            after: block(1)?,
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let x = self.before.forward(x, None)?;
        let (b, h, w, c) = x.dims4()?;
        let qkv = self.qkv.forward(&self.norm.forward(&x, Activation::Identity)?)?;
        let qkv = qkv.reshape((b, 1, h * w, 3 * c))?;
        let part = |i: usize| qkv.narrow(3, i * c, c);
        let y = attention::forward(&part(0)?, &part(1)?, &part(2)?, &self.options, None)?;
        let x = self.proj.forward_onto(&y.reshape((b, h, w, c))?, None, Some(&x))?;
        self.after.forward(x, None)
    }
}

/// The last norm and convolution.
struct Head {
    norm: GroupNorm,
    conv: Conv2d,
}

impl Head {
    fn load(config: &AutoencoderConfig, scope: &Scope, c: usize, n: usize) -> error::Result<Self> {
        Ok(Self {
            norm: GroupNorm::load(&scope.at("conv_norm_out"), c, config.norm())?,
            conv: conv(&scope.at("conv_out"), c, n)?,
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let normed = self.norm.forward(&x, Activation::Silu)?;
        drop(x);
        self.conv.forward(&normed, None)
    }
}
