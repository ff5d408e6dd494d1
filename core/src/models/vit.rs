//! Vision transformer (Dosovitskiy et al., arXiv 2010.11929) with the options of timm's
//! `VisionTransformer`: class and register tokens, layer scale, q/k norm, norm before or after
//! pooling, pooling by attention.

use candle_core::{DType, Result, Tensor};
use serde_json::json;

use super::Classifier;
use super::args::Args;
use super::attention_pool::{AttentionPool, AttentionPoolOptions};
use crate::error::{self, Error};
use crate::nn::{
    BlockOptions, Linear, MlpOptions, Norm, NormKind, NormOptions, PatchEmbed, PixelScale, Pooling,
    TransformerBlock, pool_tokens,
};
use crate::weights::Scope;

/// A vision transformer with a linear head.
pub(crate) struct Vit {
    patch_embed: PatchEmbed,
    tokens: PrefixTokens,
    norm_pre: Option<Norm>,
    blocks: Vec<TransformerBlock>,
    norm: Option<Norm>,
    fc_norm: Option<Norm>,
    head: Linear,
    pooling: TokenPooling,
    pooled_prefix: usize,
    features: usize,
}

/// How the tokens of a picture become one vector.
enum TokenPooling {
    Plain(Pooling),
    Attention(Box<AttentionPool>),
}

impl Vit {
    pub(crate) fn load(
        args: &Args,
        labels: usize,
        scope: &Scope,
        pixels: &PixelScale,
    ) -> error::Result<Self> {
        args.only("in_chans", &[json!(3)])?;
        args.only("attn_layer", &[json!("attn"), json!("")])?;
        args.only("embed_norm_layer", &[])?;
        args.bool("dynamic_img_size", false)?; // Inputs always have the size of the configuration.
        args.bool("dynamic_img_pad", false)?;
        let width = args.usize("embed_dim", 768)?;
        let patch = args.pair("patch_size", 16)?;
        let grid = args.grid(patch)?;
        let norm = norm_options(args, 1e-6)?;
        // timm calls pooling by attention "map", multi-head attention pooling.
        let plain_pooling = match args.string("global_pool", "token")?.as_str() {
            "map" => None,
            _ => Some(pooling(args, "token")?),
        };
        let pre_norm = args.bool("pre_norm", false)?;
        let final_norm = args.bool("final_norm", true)?;
        let fc_norm = args
            .optional_bool("fc_norm")?
            .unwrap_or(plain_pooling.is_some_and(|pooling| pooling != Pooling::Token));
        let tokens = PrefixTokens::load(
            scope,
            PrefixOptions {
                class: args.bool("class_token", true)?,
                registers: args.count("reg_tokens")?,
                positions: !matches!(args.string("pos_embed", "learn")?.as_str(), "" | "none"),
                patches_only: args.bool("no_embed_class", false)?,
                patches: grid.0 * grid.1,
                width,
            },
        )?;
        if plain_pooling == Some(Pooling::Token) && !args.bool("class_token", true)? {
            return Err(Error::model_invalid("`global_pool` is \"token\" without a class token"));
        }
        let pooled_prefix = if args.bool("pool_include_prefix", false)? { 0 } else { tokens.count };
        let activation = args.activation("act_layer", "gelu")?;
        let proj_bias = args.bool("proj_bias", true)?;
        let options = BlockOptions {
            width,
            heads: args.usize("num_heads", 12)?,
            hidden: (width as f64 * args.mlp_ratio()?) as usize,
            qk_norm: args.bool("qk_norm", false)?.then_some(norm),
            attn_norm: args.bool("scale_attn_norm", false)?.then_some(norm),
            proj_bias,
            mlp: MlpOptions {
                norm: args.bool("scale_mlp_norm", false)?.then_some(norm),
                bias: proj_bias,
                ..MlpOptions::plain(activation)
            },
            norm,
        };
        let qkv_bias = args.bool("qkv_bias", true)?;
        let layer_scale = args.layer_scale("init_values", false)?;
        if !width.is_multiple_of(options.heads) {
            return Err(Error::model_invalid(format!(
                "`embed_dim` {width} is no multiple of `num_heads` {}",
                options.heads
            )));
        }
        let depth = args.usize("depth", 12)?;
        args.finish()?;
        let pooling = match plain_pooling {
            Some(pooling) => TokenPooling::Plain(pooling),
            None => TokenPooling::Attention(Box::new(AttentionPool::load(
                &scope.at("attn_pool"),
                AttentionPoolOptions {
                    width,
                    heads: options.heads,
                    hidden: options.hidden,
                    mlp: MlpOptions::plain(activation),
                    norm,
                },
            )?)),
        };
        let block = |i: usize| {
            let scope = scope.at("blocks").at(i);
            let gamma = |name: &str| {
                layer_scale.then(|| scope.at(name).get_f32(width, "gamma")).transpose()
            };
            let qkv = Linear::load(&scope.at("attn.qkv"), width, 3 * width, qkv_bias)?;
            TransformerBlock::load(&scope, &options, qkv, [gamma("ls1")?, gamma("ls2")?])
        };
        Ok(Self {
            patch_embed: PatchEmbed::load_pixels(
                &scope.at("patch_embed.proj"),
                width,
                patch,
                !pre_norm,
                pixels,
            )?,
            tokens,
            norm_pre: pre_norm
                .then(|| Norm::load(&scope.at("norm_pre"), width, norm))
                .transpose()?,
            blocks: (0..depth).map(block).collect::<error::Result<_>>()?,
            norm: (final_norm && !fc_norm)
                .then(|| Norm::load(&scope.at("norm"), width, norm))
                .transpose()?,
            fc_norm: (final_norm && fc_norm)
                .then(|| Norm::load(&scope.at("fc_norm"), width, norm))
                .transpose()?,
            head: Linear::load(&scope.at("head"), width, labels, true)?,
            pooling,
            pooled_prefix,
            features: width,
        })
    }
}

impl Classifier for Vit {
    fn features(&self) -> usize {
        self.features
    }

    fn embed(&self, pixels: &Tensor) -> Result<Tensor> {
        let mut x = self.tokens.forward(&self.patch_embed, pixels)?;
        if let Some(norm) = &self.norm_pre {
            x = norm.forward(&x)?;
        }
        for block in &self.blocks {
            x = block.forward(&x, None)?;
        }
        if let Some(norm) = &self.norm {
            x = norm.forward(&x)?;
        }
        let pooled = match &self.pooling {
            TokenPooling::Plain(pooling) => pool_tokens(&x, *pooling, self.pooled_prefix)?,
            TokenPooling::Attention(pooling) => {
                let patches = x.dim(1)? - self.pooled_prefix;
                let pooled = pooling.forward(&x.narrow(1, self.pooled_prefix, patches)?)?;
                pooled.to_dtype(DType::F32)?
            }
        };
        match &self.fc_norm {
            Some(norm) => norm.forward(&pooled),
            None => Ok(pooled),
        }
    }

    fn classify(&self, features: &Tensor) -> Result<Tensor> {
        self.head.forward(features)
    }
}

/// The norm that `norm_layer` and `norm_eps` ask for.
pub(super) fn norm_options(args: &Args, default_eps: f64) -> error::Result<NormOptions> {
    let name = args.string("norm_layer", "layernorm")?;
    let kind = match name.replace('_', "").to_lowercase().as_str() {
        "layernorm" | "layernormfp32" | "layernorm2d" => NormKind::Layer,
        "rmsnorm" | "rmsnormfp32" | "rmsnorm2d" => NormKind::Rms,
        _ => return Err(Error::unsupported(format!("`norm_layer` \"{name}\" is not supported"))),
    };
    Ok(NormOptions { kind, eps: args.f64("norm_eps", default_eps)? })
}

/// The pooling that `global_pool` asks for.
pub(super) fn pooling(args: &Args, default: &str) -> error::Result<Pooling> {
    let name = args.string("global_pool", default)?;
    Pooling::from_timm(&name)
        .ok_or_else(|| Error::unsupported(format!("`global_pool` \"{name}\" is not supported")))
}

/// What is put in front of the patches, and the positions that are added.
#[derive(Clone, Copy)]
pub(super) struct PrefixOptions {
    pub(super) class: bool,
    pub(super) registers: usize,
    /// Whether there are learned positions.
    pub(super) positions: bool,
    /// Whether the positions leave the prefix out.
    pub(super) patches_only: bool,
    pub(super) patches: usize,
    pub(super) width: usize,
}

/// Class token, register tokens and learned positions.
pub(super) struct PrefixTokens {
    /// `(1, count, width)`, their positions added.
    tokens: Option<Tensor>,
    /// Of the patches: `(1, patches, width)`.
    positions: Option<Tensor>,
    pub(super) count: usize,
}

impl PrefixTokens {
    pub(super) fn load(scope: &Scope, options: PrefixOptions) -> error::Result<Self> {
        let PrefixOptions { class, registers, positions, patches_only, patches, width } = options;
        let mut tokens = Vec::new();
        if class {
            tokens.push(scope.get((1, 1, width), "cls_token")?);
        }
        if registers > 0 {
            tokens.push(scope.get((1, registers, width), "reg_token")?);
        }
        let count = usize::from(class) + registers;
        let length = if patches_only { patches } else { patches + count };
        let positions =
            positions.then(|| scope.get((1, length, width), "pos_embed")).transpose()?;
        let join = || -> Result<(Option<Tensor>, Option<Tensor>)> {
            let mut joined = if count > 0 { Some(Tensor::cat(&tokens, 1)?) } else { None };
            let mut positions = positions;
            if let (Some(tokens), Some(all), false) = (&mut joined, &mut positions, patches_only) {
                *tokens = (&*tokens + all.narrow(1, 0, count)?)?;
                *all = all.narrow(1, count, patches)?.contiguous()?;
            }
            Ok((joined, positions))
        };
        let (tokens, positions) =
            join().map_err(|e| crate::device::classify(e, "cannot join tokens"))?;
        Ok(Self { tokens, positions, count })
    }

    /// Pictures to `(b, count + patches, width)`.
    pub(super) fn forward(&self, patch_embed: &PatchEmbed, pixels: &Tensor) -> Result<Tensor> {
        let patches = patch_embed.forward_tokens(pixels, self.positions.as_ref())?;
        match &self.tokens {
            None => Ok(patches),
            Some(tokens) => Tensor::cat(&[&tokens.repeat((patches.dim(0)?, 1, 1))?, &patches], 1),
        }
    }
}
