//! ConvNeXt (Liu et al., arXiv 2201.03545) and ConvNeXt V2 (Woo et al., arXiv 2301.00808) with the
//! options of timm's `ConvNeXt`. Everything runs channels last.

use candle_core::{DType, Result, Tensor};
use serde_json::json;

use super::Classifier;
use super::args::Args;
use super::vit::{norm_options, pooling};
use crate::error::{self, Error};
use crate::kernels::activation::Activation;
use crate::nn::{
    DepthwiseConv, Linear, Norm, NormOptions, PatchEmbed, PixelScale, Pooling, pool_grid,
};
use crate::weights::Scope;

/// A ConvNeXt with its head.
pub(crate) struct ConvNext {
    stem: PatchEmbed,
    stem_norm: Norm,
    stages: Vec<Stage>,
    /// Before pooling (`head_norm_first`).
    norm_pre: Option<Norm>,
    pooling: Pooling,
    /// After pooling.
    head_norm: Option<Norm>,
    pre_logits: Option<Linear>,
    head: Linear,
    features: usize,
}

impl ConvNext {
    pub(crate) fn load(
        args: &Args,
        labels: usize,
        scope: &Scope,
        pixels: &PixelScale,
    ) -> error::Result<Self> {
        args.only("in_chans", &[json!(3)])?;
        args.only("output_stride", &[json!(32)])?;
        args.only("stem_type", &[json!("patch")])?;
        let dims = args.stages("dims", &[96, 192, 384, 768])?;
        let depths = args.stages("depths", &[3, 3, 9, 3])?;
        let kernels = args.stages("kernel_sizes", &[7, 7, 7, 7])?;
        if [dims.len(), depths.len(), kernels.len()] != [4, 4, 4] {
            return Err(Error::model_invalid("`dims`, `depths` and `kernel_sizes` need 4 values"));
        }
        if let Some(even) = kernels.iter().find(|side| **side % 2 == 0) {
            return Err(Error::unsupported(format!(
                "`kernel_sizes` has {even}, only odd is known"
            )));
        }
        let patch = args.pair("patch_size", 4)?;
        // The input's size is no argument of timm's class, which takes any; the configuration adds
        // it. Three stages after the first halve it.
        let grid = args.grid(patch)?;
        if grid.0.min(grid.1) < 8 {
            return Err(Error::model_invalid("the input is smaller than 8 patches a side"));
        }
        let norm = norm_options(args, 1e-6)?;
        let conv_bias = args.bool("conv_bias", true)?;
        let options = BlockOptions {
            activation: args.activation("act_layer", "gelu")?,
            conv_mlp: args.bool("conv_mlp", false)?,
            grn: args.bool("use_grn", false)?,
            layer_scale: args.layer_scale("ls_init_value", true)?,
            conv_bias,
            norm,
        };
        let pooling = pooling(args, "avg")?;
        let norm_first = args.bool("head_norm_first", false)?;
        let hidden = args.is_set("head_hidden_size").then(|| args.usize("head_hidden_size", 1));
        let hidden = hidden.transpose()?;
        if pooling == Pooling::Token {
            return Err(Error::model_invalid("`global_pool` is \"token\" in a ConvNeXt"));
        }
        args.finish()?;
        let head = scope.at("head");
        let last = dims[3];
        let features = hidden.unwrap_or(last);
        let mut stages = Vec::with_capacity(4);
        for i in 0..4 {
            let previous = if i == 0 { dims[0] } else { dims[i - 1] };
            let scope = scope.at("stages").at(i);
            // A stage of stride 1 between equal widths has no downsampling layer. A stem of stride
            // 2 makes the first stage halve as well.
            let stride = if i > 0 || patch.0 == 2 { 2 } else { 1 };
            let stage = Stage::load(
                &scope,
                (previous, dims[i]),
                depths[i],
                (kernels[i], stride),
                &options,
            )?;
            stages.push(stage);
        }
        Ok(Self {
            stem: PatchEmbed::load_pixels(&scope.at("stem.0"), dims[0], patch, conv_bias, pixels)?,
            stem_norm: Norm::load(&scope.at("stem.1"), dims[0], norm)?,
            stages,
            norm_pre: norm_first
                .then(|| Norm::load(&scope.at("norm_pre"), last, norm))
                .transpose()?,
            pooling,
            head_norm: (!norm_first)
                .then(|| Norm::load(&head.at("norm"), last, norm))
                .transpose()?,
            pre_logits: hidden
                .map(|hidden| Linear::load(&head.at("pre_logits.fc"), last, hidden, true))
                .transpose()?
                .map(|fc| fc.then(Activation::GeluErf)),
            head: Linear::load(&head.at("fc"), features, labels, true)?,
            features,
        })
    }
}

impl Classifier for ConvNext {
    fn features(&self) -> usize {
        self.features
    }

    fn embed(&self, pixels: &Tensor) -> Result<Tensor> {
        let mut x = self.stem_norm.forward(&self.stem.forward(pixels, None)?)?;
        for stage in &self.stages {
            x = stage.forward(&x)?;
        }
        if let Some(norm) = &self.norm_pre {
            x = norm.forward(&x)?;
        }
        let mut x = pool_grid(&x, self.pooling)?;
        if let Some(norm) = &self.head_norm {
            x = norm.forward(&x)?;
        }
        match &self.pre_logits {
            Some(fc) => fc.forward(&x),
            None => Ok(x),
        }
    }

    fn classify(&self, features: &Tensor) -> Result<Tensor> {
        self.head.forward(features)
    }
}

struct BlockOptions {
    activation: Activation,
    /// Whether the checkpoint stores the linear layers as 1 x 1 convolutions.
    conv_mlp: bool,
    grn: bool,
    layer_scale: bool,
    conv_bias: bool,
    norm: NormOptions,
}

struct Stage {
    downsample: Option<(Norm, PatchEmbed)>,
    blocks: Vec<Block>,
}

impl Stage {
    fn load(
        scope: &Scope,
        (input, width): (usize, usize),
        depth: usize,
        (kernel, stride): (usize, usize),
        options: &BlockOptions,
    ) -> error::Result<Self> {
        let downsample = (input != width || stride > 1)
            .then(|| {
                let scope = scope.at("downsample");
                let norm = Norm::load(&scope.at(0), input, options.norm)?;
                let patch = (stride, stride);
                let conv = scope.at(1);
                let bias = options.conv_bias;
                Ok((norm, PatchEmbed::load(&conv, input, width, patch, bias)?))
            })
            .transpose()?;
        let blocks = (0..depth)
            .map(|i| Block::load(&scope.at("blocks").at(i), width, kernel, options))
            .collect::<error::Result<_>>()?;
        Ok(Self { downsample, blocks })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = match &self.downsample {
            Some((norm, conv)) => conv.forward(x, Some(norm))?,
            None => x.clone(),
        };
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        Ok(x)
    }
}

struct Block {
    conv: DepthwiseConv,
    norm: Norm,
    fc1: Linear,
    grn: Option<ResponseNorm>,
    fc2: Linear,
}

impl Block {
    fn load(
        scope: &Scope,
        width: usize,
        kernel: usize,
        options: &BlockOptions,
    ) -> error::Result<Self> {
        let mlp = scope.at("mlp");
        let hidden = 4 * width;
        let gamma = options.layer_scale.then(|| scope.get_f32(width, "gamma")).transpose()?;
        let linear = |name: &str, k: usize, n: usize, gamma: Option<&Tensor>| {
            let scope = mlp.at(name);
            if !options.conv_mlp {
                return Linear::load_scaled(&scope, k, n, true, gamma);
            }
            let weight = scope
                .get((n, k, 1, 1), "weight")?
                .flatten_from(1)
                .map_err(|e| crate::device::classify(e, "cannot lay out a convolution"))?;
            Linear::scaled(&weight, &scope.get_f32(n, "bias")?, gamma)
        };
        Ok(Self {
            conv: DepthwiseConv::load(&scope.at("conv_dw"), width, kernel, options.conv_bias)?,
            norm: Norm::load(&scope.at("norm"), width, options.norm)?,
            fc1: linear("fc1", width, hidden, None)?.then(options.activation),
            grn: options.grn.then(|| ResponseNorm::load(&mlp.at("grn"), hidden)).transpose()?,
            fc2: linear("fc2", hidden, width, gamma.as_ref())?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (y, norm) = (self.conv.forward(x)?, Some(&self.norm));
        let Some(grn) = &self.grn else {
            return self.fc1.forward_two(&y, norm, &self.fc2, Some(x));
        };
        let y = grn.forward(&self.fc1.forward_normed(&y, norm)?)?;
        self.fc2.forward_onto(&y, None, Some(x))
    }
}

/// Global response normalisation of ConvNeXt V2: every channel is scaled by its norm over the
/// picture, divided by the mean of these norms over the channels.
struct ResponseNorm {
    weight: Tensor,
    bias: Tensor,
}

impl ResponseNorm {
    const EPS: f64 = 1e-6;

    fn load(scope: &Scope, width: usize) -> error::Result<Self> {
        Ok(Self { weight: scope.get_f32(width, "weight")?, bias: scope.get_f32(width, "bias")? })
    }

    /// `(b, h, w, c)` to the same shape.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let dtype = x.dtype();
        let x = x.to_dtype(DType::F32)?;
        let norms = x.sqr()?.sum_keepdim((1, 2))?.sqrt()?;
        let response = norms.broadcast_div(&(norms.mean_keepdim(3)? + Self::EPS)?)?;
        // x + bias + weight * x * response, with the two factors of x joined.
        let scale = (response.broadcast_mul(&self.weight)? + 1.0)?;
        x.broadcast_mul(&scale)?.broadcast_add(&self.bias)?.to_dtype(dtype)
    }
}
