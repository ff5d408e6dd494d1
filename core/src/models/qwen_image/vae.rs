//! The autoencoder of pictures, `AutoencoderKLQwenImage`, for one frame: pictures to normalised
//! latents and back. It is the video autoencoder of Wan (arXiv 2503.20314), tuned further.

use candle_core::{DType, Result, Tensor};

use super::config::VaeConfig;
use super::vae_layers::{Middle, PixelNorm, Resample, ResidualBlock, causal, per_channel};
use crate::error;
use crate::kernels::activation::Activation;
use crate::nn::Conv2d;
use crate::weights::Scope;

/// Encoder and decoder.
pub(crate) struct QwenImageVae {
    encoder: Encoder,
    decoder: Decoder,
    mean: Tensor,
    std: Tensor,
    scale: usize,
    dtype: DType,
}

impl QwenImageVae {
    pub(crate) fn load(config: &VaeConfig, scope: &Scope) -> error::Result<Self> {
        Ok(Self {
            encoder: Encoder::load(config, scope)?,
            decoder: Decoder::load(config, scope)?,
            mean: per_channel(&config.latents_mean, scope)?,
            std: per_channel(&config.latents_std, scope)?,
            scale: config.scale(),
            dtype: scope.dtype(),
        })
    }

    /// Whether a checkpoint's tensor is one that pictures do not need.
    pub(crate) fn is_unused(name: &str) -> bool {
        name.contains(".time_conv.")
    }

    /// Pictures `(b, h, w, channels)` of values from -1 to 1 to latents `(b, h / 8, w / 8, z)` in
    /// `f32`: the mode of their distribution, less the mean of all latents, over its deviation.
    ///
    /// Sides are multiples of the scale, 8 in published models.
    pub(crate) fn encode(&self, pictures: &Tensor) -> Result<Tensor> {
        let (_, h, w, _) = pictures.dims4()?;
        if !h.is_multiple_of(self.scale) || !w.is_multiple_of(self.scale) || h * w == 0 {
            candle_core::bail!("a picture of {h} x {w} has no sides of whole {}s", self.scale);
        }
        let latents = self.encoder.forward(&pictures.to_dtype(self.dtype)?)?;
        let mode = latents.narrow(3, 0, self.mean.elem_count())?.to_dtype(DType::F32)?;
        mode.broadcast_sub(&self.mean)?.broadcast_div(&self.std)
    }

    /// The inverse: latents `(b, h, w, z)` to pictures `(b, 8 h, 8 w, channels)` in `f32`. What is meant
    /// lies between -1 and 1; the reference cuts off what does not, which hides values that are no
    /// numbers, so it is left to the caller.
    pub(crate) fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let latents = latents.to_dtype(DType::F32)?;
        let latents = latents.broadcast_mul(&self.std)?.broadcast_add(&self.mean)?;
        let pictures = self.decoder.forward(&latents.to_dtype(self.dtype)?)?;
        pictures.to_dtype(DType::F32)
    }
}

/// Residual blocks of one size, and the convolution that makes the next one.
struct Stage {
    blocks: Vec<ResidualBlock>,
    resample: Option<Resample>,
}

impl Stage {
    fn forward(&self, mut x: Tensor) -> Result<Tensor> {
        for block in &self.blocks {
            x = block.forward(x)?;
        }
        match &self.resample {
            Some(resample) => resample.forward(x),
            None => Ok(x),
        }
    }
}

struct Encoder {
    conv_in: Conv2d,
    down: Vec<Stage>,
    middle: Middle,
    head: Head,
    quant: Conv2d,
}

impl Encoder {
    fn load(config: &VaeConfig, root: &Scope) -> error::Result<Self> {
        let scope = root.at("encoder");
        let mut c = config.base_dim;
        let conv_in = causal(&scope.at("conv_in"), config.input_channels, c, 3)?;
        let mut down = Vec::with_capacity(config.dim_mult.len());
        // The checkpoint counts residual blocks and resampling alike, through all stages.
        let mut count = 0;
        let mut layer = || {
            count += 1;
            scope.at("down_blocks").at(count - 1)
        };
        for (stage, multiple) in config.dim_mult.iter().enumerate() {
            let n = config.base_dim * multiple;
            let mut blocks = Vec::with_capacity(config.num_res_blocks);
            for _ in 0..config.num_res_blocks {
                blocks.push(ResidualBlock::load(&layer(), c, n)?);
                c = n;
            }
            let resample = (stage + 1 < config.dim_mult.len())
                .then(|| Resample::halving(&layer(), c))
                .transpose()?;
            down.push(Stage { blocks, resample });
        }
        let moments = 2 * config.z_dim;
        Ok(Self {
            conv_in,
            down,
            middle: Middle::load(&scope.at("mid_block"), c)?,
            head: Head::load(&scope, c, moments)?,
            quant: causal(&root.at("quant_conv"), moments, moments, 1)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.conv_in.forward(x, None)?;
        for stage in &self.down {
            x = stage.forward(x)?;
        }
        self.quant.forward(&self.head.forward(self.middle.forward(x)?)?, None)
    }
}

struct Decoder {
    post_quant: Conv2d,
    conv_in: Conv2d,
    middle: Middle,
    up: Vec<Stage>,
    head: Head,
}

impl Decoder {
    fn load(config: &VaeConfig, root: &Scope) -> error::Result<Self> {
        let scope = root.at("decoder");
        let z = config.z_dim;
        let stages = config.dim_mult.len();
        let mut c = config.base_dim * config.dim_mult[stages - 1];
        let conv_in = causal(&scope.at("conv_in"), z, c, 3)?;
        let middle = Middle::load(&scope.at("mid_block"), c)?;
        let mut up = Vec::with_capacity(stages);
        for (stage, multiple) in config.dim_mult.iter().rev().enumerate() {
            let scope = scope.at("up_blocks").at(stage);
            let n = config.base_dim * multiple;
            let mut blocks = Vec::with_capacity(config.num_res_blocks + 1);
            for i in 0..=config.num_res_blocks {
                blocks.push(ResidualBlock::load(&scope.at("resnets").at(i), c, n)?);
                c = n;
            }
            let resample = (stage + 1 < stages)
                .then(|| Resample::doubling(&scope.at("upsamplers.0"), n))
                .transpose()?;
            // Doubling halves the channels.
            c = if resample.is_some() { n / 2 } else { n };
            up.push(Stage { blocks, resample });
        }
        Ok(Self {
            post_quant: causal(&root.at("post_quant_conv"), z, z, 1)?,
            conv_in,
            middle,
            up,
            head: Head::load(&scope, c, config.input_channels)?,
        })
    }

    fn forward(&self, latents: &Tensor) -> Result<Tensor> {
        let x = self.post_quant.forward(latents, None)?;
        let mut x = self.middle.forward(self.conv_in.forward(&x, None)?)?;
        for stage in &self.up {
            x = stage.forward(x)?;
        }
        self.head.forward(x)
    }
}

/// The last norm and convolution.
struct Head {
    norm: PixelNorm,
    conv: Conv2d,
}

impl Head {
    fn load(scope: &Scope, c: usize, n: usize) -> error::Result<Self> {
        Ok(Self {
            norm: PixelNorm::load(&scope.at("norm_out"), c, 3)?,
            conv: causal(&scope.at("conv_out"), c, n, 3)?,
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let normed = self.norm.forward(&x, Activation::Silu)?;
        drop(x);
        self.conv.forward(&normed, None)
    }
}
