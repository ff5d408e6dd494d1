//! EVA and EVA-02 (Fang et al., arXiv 2303.11331) with the options of timm's `Eva`: rotary and
//! learned positions, SwiGLU, inner norms, class and register tokens, fused or separate q, k, v.

use candle_core::{Result, Tensor};
use serde_json::json;

use super::Classifier;
use super::args::Args;
use super::vit::{PrefixOptions, PrefixTokens, norm_options, pooling};
use crate::device::classify;
use crate::error::{self, Error};
use crate::kernels::activation::Activation;
use crate::kernels::attention::Rotation;
use crate::nn::{
    AxialRopeOptions, BlockOptions, Linear, MlpOptions, Norm, PatchEmbed, PixelScale, Pooling,
    TransformerBlock, axial_rope, pool_tokens, zeros,
};
use crate::weights::Scope;

/// An EVA network with a linear head.
pub(crate) struct Eva {
    patch_embed: PatchEmbed,
    tokens: PrefixTokens,
    rope: Option<Rotation>,
    norm_pre: Option<Norm>,
    blocks: Vec<TransformerBlock>,
    norm: Option<Norm>,
    fc_norm: Option<Norm>,
    head: Linear,
    pooling: Pooling,
    features: usize,
}

impl Eva {
    pub(crate) fn load(
        args: &Args,
        labels: usize,
        scope: &Scope,
        pixels: &PixelScale,
    ) -> error::Result<Self> {
        refuse_variants(args)?;
        let width = args.usize("embed_dim", 768)?;
        let patch = args.pair("patch_size", 16)?;
        let grid = args.grid(patch)?;
        let norm = norm_options(args, 1e-6)?;
        let pooling = pooling(args, "avg")?;
        let class = args.bool("class_token", true)?;
        if pooling == Pooling::Token && !class {
            return Err(Error::model_invalid("`global_pool` is \"token\" without a class token"));
        }
        let pre_norm = args.bool("use_pre_transformer_norm", false)?;
        let fc_norm = args.optional_bool("use_fc_norm")?.unwrap_or(pooling == Pooling::Average);
        let post_norm = args.optional_bool("use_post_transformer_norm")?.unwrap_or(!fc_norm);
        let heads = args.usize("num_heads", 12)?;
        if !width.is_multiple_of(4 * heads) {
            return Err(Error::model_invalid(format!(
                "`embed_dim` {width} is no multiple of 4 `num_heads` ({heads})"
            )));
        }
        let tokens = PrefixTokens::load(
            scope,
            PrefixOptions {
                class,
                registers: args.count("num_reg_tokens")?,
                positions: args.bool("use_abs_pos_emb", true)?,
                patches_only: args.bool("no_embed_class", false)?,
                patches: grid.0 * grid.1,
                width,
            },
        )?;
        let rope = rope(args, grid, width / heads, tokens.count, scope)?;
        let options = BlockOptions {
            width,
            heads,
            hidden: (width as f64 * args.mlp_ratio()?) as usize,
            qk_norm: args.bool("qk_norm", false)?.then_some(norm),
            attn_norm: args.bool("scale_attn_inner", false)?.then_some(norm),
            proj_bias: true,
            mlp: MlpOptions {
                activation: Activation::GeluErf,
                gated: args.bool("swiglu_mlp", false)?,
                align: args.count("swiglu_align_to")?,
                norm: args.bool("scale_mlp", false)?.then_some(norm),
                bias: true,
            },
            norm,
        };
        let qkv_bias = args.bool("qkv_bias", true)?;
        let qkv_fused = args.bool("qkv_fused", true)?;
        let layer_scale = args.layer_scale("init_values", false)?;
        let scale_mlp = layer_scale && !args.bool("attn_only_layer_scale", false)?;
        let depth = args.usize("depth", 12)?;
        args.finish()?;
        let optional_norm = |there: bool, name: &str| {
            there.then(|| Norm::load(&scope.at(name), width, norm)).transpose()
        };
        let block = |i: usize| {
            let scope = scope.at("blocks").at(i);
            let gamma =
                |name: &str, there: bool| there.then(|| scope.get_f32(width, name)).transpose();
            let scales = [gamma("gamma_1", layer_scale)?, gamma("gamma_2", scale_mlp)?];
            let qkv = load_qkv(&scope.at("attn"), width, qkv_bias, qkv_fused)?;
            TransformerBlock::load(&scope, &options, qkv, scales)
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
            rope,
            norm_pre: optional_norm(pre_norm, "norm_pre")?,
            blocks: (0..depth).map(block).collect::<error::Result<_>>()?,
            norm: optional_norm(post_norm, "norm")?,
            fc_norm: optional_norm(fc_norm, "fc_norm")?,
            head: Linear::load(&scope.at("head"), width, labels, true)?,
            pooling,
            features: width,
        })
    }
}

/// Fails on the arguments of timm's other networks in the same class (DINOv3, Sapiens, PE).
fn refuse_variants(args: &Args) -> error::Result<()> {
    args.only("in_chans", &[json!(3)])?;
    args.only("num_kv_heads", &[])?;
    args.only("attn_type", &[json!("eva")])?;
    args.only("rope_type", &[json!("cat")])?;
    args.only("rope_grid_indexing", &[json!("ij")])?;
    args.only("rope_rotate_half", &[json!(false)])?;
    args.only("use_post_norm", &[json!(false)])?;
    args.bool("dynamic_img_size", false)?; // Inputs always have the size of the configuration.
    args.bool("dynamic_img_pad", false)?;
    Ok(())
}

fn rope(
    args: &Args,
    grid: (usize, usize),
    head: usize,
    prefix: usize,
    scope: &Scope,
) -> error::Result<Option<Rotation>> {
    let options = AxialRopeOptions {
        grid,
        reference: args
            .is_set("ref_feat_shape")
            .then(|| args.pair("ref_feat_shape", 16))
            .transpose()?,
        offset: args.f64("rope_grid_offset", 0.0)?,
        temperature: args.f64("rope_temperature", 10_000.0)?,
        head,
        prefix,
    };
    args.bool("use_rot_pos_emb", false)?
        .then(|| axial_rope(options, scope.device()))
        .transpose()
        .map_err(|e| classify(e, "cannot make rotary positions"))
}

impl Classifier for Eva {
    fn features(&self) -> usize {
        self.features
    }

    fn embed(&self, pixels: &Tensor) -> Result<Tensor> {
        let mut x = self.tokens.forward(&self.patch_embed, pixels)?;
        if let Some(norm) = &self.norm_pre {
            x = norm.forward(&x)?;
        }
        for block in &self.blocks {
            x = block.forward(&x, self.rope.as_ref())?;
        }
        if let Some(norm) = &self.norm {
            x = norm.forward(&x)?;
        }
        let pooled = pool_tokens(&x, self.pooling, self.tokens.count)?;
        match &self.fc_norm {
            Some(norm) => norm.forward(&pooled),
            None => Ok(pooled),
        }
    }

    fn classify(&self, features: &Tensor) -> Result<Tensor> {
        self.head.forward(features)
    }
}

/// Queries, keys and values as one matrix product, whether the checkpoint holds them fused or
/// apart. Keys have no bias in this family.
fn load_qkv(attn: &Scope, width: usize, has_bias: bool, fused: bool) -> error::Result<Linear> {
    let weight = if fused {
        attn.get((3 * width, width), "qkv.weight")?
    } else {
        let parts = ["q_proj.weight", "k_proj.weight", "v_proj.weight"]
            .map(|name| attn.get((width, width), name));
        join(parts)?
    };
    if !has_bias {
        return Linear::new(&weight, &zeros(attn, 3 * width)?);
    }
    let names = if fused { ["q_bias", "v_bias"] } else { ["q_proj.bias", "v_proj.bias"] };
    let [q, v] = names.map(|name| attn.get_f32(width, name));
    Linear::new(&weight, &join([q, zeros(attn, width), v])?)
}

pub(super) fn join(parts: [error::Result<Tensor>; 3]) -> error::Result<Tensor> {
    let parts = parts.into_iter().collect::<error::Result<Vec<_>>>()?;
    Tensor::cat(&parts, 0).map_err(|e| classify(e, "cannot join tensors"))
}
