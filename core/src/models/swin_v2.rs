//! Swin transformer V2 (Liu et al., arXiv 2111.09883) with the options of timm's
//! `SwinTransformerV2`: windows of any size, also ones that do not divide the picture.

use candle_core::{Result, Tensor};
use serde_json::json;

use super::Classifier;
use super::args::Args;
use super::vit::pooling;
use crate::device::classify;
use crate::error::{self, Error};
use crate::kernels::activation::Activation;
use crate::kernels::{attention, norm};
use crate::nn::{
    Linear, Mlp, MlpOptions, Norm, NormKind, NormOptions, PatchEmbed, PixelScale, Pooling,
    SelfAttention, pool_grid, zeros,
};
use crate::weights::Scope;

mod window;

use window::{Grid, Windows};

/// A SwinV2 with a linear head.
pub(crate) struct SwinV2 {
    patch_embed: PatchEmbed,
    patch_norm: Norm,
    stages: Vec<Stage>,
    norm: Norm,
    pooling: Pooling,
    head: Linear,
    features: usize,
}

impl SwinV2 {
    pub(crate) fn load(
        args: &Args,
        labels: usize,
        scope: &Scope,
        pixels: &PixelScale,
    ) -> error::Result<Self> {
        args.only("in_chans", &[json!(3)])?;
        args.only("norm_layer", &[])?;
        args.only("patch_norm", &[json!(true)])?;
        args.bool("strict_img_size", true)?; // Inputs always have the size of the configuration.
        args.bool("dynamic_img_size", false)?;
        let norm = NormOptions { kind: NormKind::Layer, eps: args.f64("norm_eps", 1e-5)? };
        // No argument of timm's: the first Keras networks of the kind end in a norm of their own.
        let last_norm = NormOptions { eps: args.f64("final_norm_eps", norm.eps)?, ..norm };
        let width = args.usize("embed_dim", 96)?;
        let patch = args.pair("patch_size", 4)?;
        let depths = args.stages("depths", &[2, 2, 6, 2])?;
        let heads = args.stages("num_heads", &[3, 6, 12, 24])?;
        let trained = args.stages_or_zero("pretrained_window_sizes", depths.len())?;
        let windows = args.stage_pairs("window_size", 7, depths.len())?;
        let always_partition = args.bool("always_partition", false)?;
        let options = StageOptions {
            ratio: args.mlp_ratio()?,
            qkv_bias: args.bool("qkv_bias", true)?,
            activation: args.activation("act_layer", "gelu")?,
            norm,
        };
        let pooling = pooling(args, "avg")?;
        args.finish()?;
        if pooling == Pooling::Token {
            return Err(Error::model_invalid("`global_pool` is \"token\" in a SwinV2"));
        }
        if heads.len() != depths.len() {
            return Err(Error::model_invalid("`depths` and `num_heads` differ in length"));
        }
        let (rows, columns) = args.grid(patch)?;
        let grid = Grid { rows, columns };
        let mut stages = Vec::with_capacity(depths.len());
        for (i, depth) in depths.iter().enumerate() {
            let width = width << i;
            if !width.is_multiple_of(heads[i]) {
                return Err(Error::model_invalid(format!(
                    "width {width} of stage {i} is no multiple of its {} heads",
                    heads[i]
                )));
            }
            // Every stage after the first halves the grid, rounding up.
            let grid = (0..i).fold(grid, |grid, _| grid.halved());
            let place = StagePlace {
                first: i == 0,
                width,
                heads: heads[i],
                depth: *depth,
                grid,
                window: windows[i],
                trained: trained[i],
                always_partition,
            };
            check_windows(&place)?;
            stages.push(Stage::load(&scope.at("layers").at(i), &place, &options)?);
        }
        let features = width << (depths.len() - 1);
        Ok(Self {
            patch_embed: PatchEmbed::load_pixels(
                &scope.at("patch_embed.proj"),
                width,
                patch,
                true,
                pixels,
            )?,
            patch_norm: Norm::load(&scope.at("patch_embed.norm"), width, norm)?,
            stages,
            norm: Norm::load(&scope.at("norm"), features, last_norm)?,
            pooling,
            head: Linear::load(&scope.at("head.fc"), features, labels, true)?,
            features,
        })
    }
}

impl Classifier for SwinV2 {
    fn features(&self) -> usize {
        self.features
    }

    fn embed(&self, pixels: &Tensor) -> Result<Tensor> {
        let mut x = self.patch_norm.forward(&self.patch_embed.forward(pixels, None)?)?;
        for stage in &self.stages {
            x = stage.forward(&x)?;
        }
        pool_grid(&self.norm.forward(&x)?, self.pooling)
    }

    fn classify(&self, features: &Tensor) -> Result<Tensor> {
        self.head.forward(features)
    }
}

struct StageOptions {
    ratio: f64,
    qkv_bias: bool,
    activation: Activation,
    norm: NormOptions,
}

struct StagePlace {
    first: bool,
    width: usize,
    heads: usize,
    depth: usize,
    grid: Grid,
    window: (usize, usize),
    trained: usize,
    always_partition: bool,
}

/// Fails if the tables of a stage's windows, which are computed and not read, would be huge.
fn check_windows(place: &StagePlace) -> error::Result<()> {
    const MAX_AREA: usize = 1 << 12;
    let windows = Windows::new(place.grid, place.window, true, place.always_partition);
    if windows.area() <= MAX_AREA {
        return Ok(());
    }
    Err(Error::unsupported(format!("`window_size` {:?} is too large", place.window)))
}

struct Stage {
    merging: Option<PatchMerging>,
    blocks: Vec<Block>,
}

impl Stage {
    fn load(scope: &Scope, place: &StagePlace, options: &StageOptions) -> error::Result<Self> {
        let merging = (!place.first)
            .then(|| PatchMerging::load(&scope.at("downsample"), place.width, options.norm))
            .transpose()?;
        let blocks = (0..place.depth)
            .map(|i| Block::load(&scope.at("blocks").at(i), place, options, i % 2 == 1))
            .collect::<error::Result<_>>()?;
        Ok(Self { merging, blocks })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = match &self.merging {
            Some(merging) => merging.forward(x)?,
            None => x.clone(),
        };
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        Ok(x)
    }
}

/// Joins neighbouring 2 x 2 pixels, rows first, and maps them to twice the width.
struct PatchMerging {
    reduction: Linear,
    norm: Norm,
}

impl PatchMerging {
    fn load(scope: &Scope, width: usize, norm: NormOptions) -> error::Result<Self> {
        // The checkpoint joins them columns first, patches come rows first.
        let reduction = scope
            .get((width, 2 * width), "reduction.weight")?
            .reshape((width, 2, 2, width / 2))
            .and_then(|weight| weight.transpose(1, 2)?.contiguous()?.reshape((width, 2 * width)))
            .map_err(|e| classify(e, "cannot lay out a patch merging"))?;
        let reduction = Linear::new(&reduction, &zeros(scope, width)?)?;
        Ok(Self { reduction, norm: Norm::load(&scope.at("norm"), width, norm)? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = window::pad_to_multiple(x, (2, 2))?;
        let x = self.reduction.forward_patches(&x, None, (2, 2), None, x.dtype())?;
        self.norm.forward(&x)
    }
}

/// A post-norm block: attention within windows, then a feed-forward layer.
struct Block {
    windows: Windows,
    attention: SelfAttention,
    norm1: Norm,
    mlp: Mlp,
    norm2: Norm,
}

impl Block {
    fn load(
        scope: &Scope,
        place: &StagePlace,
        options: &StageOptions,
        shifted: bool,
    ) -> error::Result<Self> {
        let width = place.width;
        let windows = Windows::new(place.grid, place.window, shifted, place.always_partition);
        let hidden = (width as f64 * options.ratio) as usize;
        let mlp = MlpOptions::plain(options.activation);
        Ok(Self {
            attention: load_attention(&scope.at("attn"), place, &windows, options.qkv_bias)?,
            windows,
            norm1: Norm::load(&scope.at("norm1"), width, options.norm)?,
            mlp: Mlp::load(&scope.at("mlp"), width, hidden, mlp, None)?,
            norm2: Norm::load(&scope.at("norm2"), width, options.norm)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, h, w, c) = x.dims4()?;
        let padded = window::pad_to_multiple(x, self.windows.size())?;
        let (height, width) = (padded.dim(1)?, padded.dim(2)?);
        let y = self.attention.forward(&padded.flatten(1, 2)?, None, None, None)?;
        let y = y.reshape((b, height, width, c))?.narrow(1, 0, h)?.narrow(2, 0, w)?;
        let x = self.norm1.forward_onto(&y, x)?;
        self.norm2.forward_onto(&self.mlp.forward(&x, None, None)?, &x)
    }
}

/// Cosine attention with a learned temperature per head and a position bias that a small network
/// computes from relative coordinates; it depends on the weights only, so it is a table.
fn load_attention(
    scope: &Scope,
    place: &StagePlace,
    windows: &Windows,
    has_bias: bool,
) -> error::Result<SelfAttention> {
    let (width, heads) = (place.width, place.heads);
    let weight = scope.get((3 * width, width), "qkv.weight")?;
    let bias = if has_bias {
        let [q, v] = ["q_bias", "v_bias"].map(|name| scope.get_f32(width, name));
        super::eva::join([q, zeros(scope, width), v])?
    } else {
        zeros(scope, 3 * width)?
    };
    let position_bias = match scope.has("position_bias") {
        true => {
            let area = windows.area();
            scope.get_f32((heads, area, area), "position_bias")?
        }
        false => position_bias(scope, heads, windows, place.trained)?,
    };
    let logit_scale = scope.get_f32((heads, 1, 1), "logit_scale")?;
    let options = || -> Result<attention::Options> {
        let scale = logit_scale.clamp(f64::NEG_INFINITY, 100f64.ln())?.exp()?;
        Ok(attention::Options {
            scale: scale.flatten_all()?.to_vec1()?,
            norms: Some((unit_length(scope, width / heads)?, unit_length(scope, width / heads)?)),
            bias: Some(position_bias),
            windows: Some(windows.groups(scope.device())?),
            causal: false,
        })
    };
    Ok(SelfAttention {
        qkv: Linear::new(&weight, &bias)?,
        heads,
        options: options().map_err(|e| classify(e, "cannot prepare window attention"))?,
        norm: None,
        proj: Linear::load(&scope.at("proj"), width, width, true)?,
    })
}

/// Divides vectors by their length; a zero vector stays zero. An RMS norm whose weight turns the
/// root mean square into the length.
fn unit_length(scope: &Scope, width: usize) -> Result<norm::Weights> {
    let weight = Tensor::full((width as f32).powf(-0.5), width, scope.device())?;
    let eps = f64::from(f32::MIN_POSITIVE);
    norm::Weights::new(NormKind::Rms, &weight, &weight.zeros_like()?, eps)
}

/// `16 sigmoid(mlp(coordinates))` for every pair of positions in a window: `(heads, n, n)`.
fn position_bias(
    scope: &Scope,
    heads: usize,
    windows: &Windows,
    trained: usize,
) -> error::Result<Tensor> {
    const HIDDEN: usize = 512;
    let mlp = scope.at("cpb_mlp");
    let hidden = Linear::load(&mlp.at(0), 2, HIDDEN, true)?.then(Activation::Relu);
    let out = Linear::load(&mlp.at(2), HIDDEN, heads, false)?;
    let build = || -> Result<Tensor> {
        let (coordinates, index) = windows.relative_positions(trained)?;
        let coordinates = coordinates.to_device(scope.device())?;
        let table = out.forward(&hidden.forward(&coordinates)?)?;
        let table = ((table.neg()?.exp()? + 1.0)?.recip()? * 16.0)?;
        let area = windows.area();
        table
            .index_select(&index.to_device(scope.device())?, 0)?
            .reshape((area, area, heads))?
            .permute((2, 0, 1))?
            .contiguous()
    };
    build().map_err(|e| classify(e, "cannot compute the position bias"))
}
