//! What the `config.json` of the transformer and of the autoencoder say, checked before any tensor is
//! looked at. Defaults are those of the classes in diffusers; a key that nobody knows is an error,
//! since ignoring it could mean computing another network.

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Largest size of anything; products of two stay far from overflow.
const MAX_SIZE: usize = 65_536;
/// Most blocks, stages or layers.
const MAX_DEPTH: usize = 1024;

/// The `config.json` of a `QwenImageTransformer2DModel`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TransformerConfig {
    patch_size: usize,
    pub(crate) in_channels: usize,
    out_channels: Option<usize>,
    pub(crate) num_layers: usize,
    pub(crate) attention_head_dim: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) joint_attention_dim: usize,
    guidance_embeds: bool,
    pub(crate) axes_dims_rope: [usize; 3],
    /// Whether tokens of reference pictures are modulated as at time 0 (Edit-2511).
    pub(crate) zero_cond_t: bool,
    use_additional_t_cond: bool,
    use_layer3d_rope: bool,
    /// Written by older versions; no tensor depends on it.
    #[serde(rename = "pooled_projection_dim")]
    _pooled_projection_dim: Option<IgnoredAny>,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self {
            patch_size: 2,
            in_channels: 64,
            out_channels: Some(16),
            num_layers: 60,
            attention_head_dim: 128,
            num_attention_heads: 24,
            joint_attention_dim: 3584,
            guidance_embeds: false,
            axes_dims_rope: [16, 56, 56],
            zero_cond_t: false,
            use_additional_t_cond: false,
            use_layer3d_rope: false,
            _pooled_projection_dim: None,
        }
    }
}

impl TransformerConfig {
    /// From the content of `config.json`.
    pub(crate) fn parse(value: Value) -> Result<Self> {
        let config: Self = fields(value, "transformer")?;
        for (name, is_set) in [
            ("guidance_embeds", config.guidance_embeds),
            ("use_additional_t_cond", config.use_additional_t_cond),
            ("use_layer3d_rope", config.use_layer3d_rope),
        ] {
            if is_set {
                return Err(Error::unsupported(format!(
                    "`{name}` is true, which no edit model is"
                )));
            }
        }
        size("patch_size", config.patch_size, 16)?;
        size("in_channels", config.in_channels, MAX_SIZE)?;
        size("out_channels", config.out_channels.unwrap_or(1), MAX_SIZE)?;
        size("num_layers", config.num_layers, MAX_DEPTH)?;
        size("attention_head_dim", config.attention_head_dim, MAX_SIZE)?;
        size("num_attention_heads", config.num_attention_heads, MAX_SIZE)?;
        size("joint_attention_dim", config.joint_attention_dim, MAX_SIZE)?;
        size("num_attention_heads * attention_head_dim", config.width(), MAX_SIZE)?;
        size("patch_size^2 * out_channels", config.outputs(), MAX_SIZE)?;
        let axes = config.axes_dims_rope;
        let is_whole = axes.iter().all(|axis| axis.is_multiple_of(2) && *axis <= MAX_SIZE);
        if !is_whole || axes.iter().sum::<usize>() != config.attention_head_dim {
            return Err(Error::model_invalid(format!(
                "`axes_dims_rope` is {axes:?}; expected three even numbers whose sum is \
                 `attention_head_dim`, {}",
                config.attention_head_dim
            )));
        }
        Ok(config)
    }

    /// The length of a token inside the network.
    pub(crate) fn width(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// The length of a token of the result.
    pub(crate) fn outputs(&self) -> usize {
        self.patch_size * self.patch_size * self.out_channels.unwrap_or(self.in_channels)
    }
}

/// The `config.json` of an `AutoencoderKLQwenImage`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct VaeConfig {
    pub(crate) base_dim: usize,
    pub(crate) z_dim: usize,
    pub(crate) dim_mult: Vec<usize>,
    pub(crate) num_res_blocks: usize,
    attn_scales: Vec<f64>,
    /// Only its length matters for pictures: temporal layers do not run for a first frame.
    temperal_downsample: Vec<bool>,
    #[serde(rename = "dropout")]
    _dropout: IgnoredAny,
    pub(crate) input_channels: usize,
    pub(crate) latents_mean: Vec<f32>,
    pub(crate) latents_std: Vec<f32>,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self {
            base_dim: 96,
            z_dim: 16,
            dim_mult: vec![1, 2, 4, 4],
            num_res_blocks: 2,
            attn_scales: Vec::new(),
            temperal_downsample: vec![false, true, true],
            _dropout: IgnoredAny,
            input_channels: 3,
            latents_mean: vec![
                -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134,
                -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
            ],
            latents_std: vec![
                2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526,
                2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
            ],
        }
    }
}

impl VaeConfig {
    /// From the content of `config.json`.
    pub(crate) fn parse(value: Value) -> Result<Self> {
        let config: Self = fields(value, "vae")?;
        size("base_dim", config.base_dim, MAX_SIZE)?;
        size("z_dim", config.z_dim, MAX_SIZE)?;
        size("num_res_blocks", config.num_res_blocks, MAX_DEPTH)?;
        size("input_channels", config.input_channels, 4)?;
        size("the length of `dim_mult`", config.dim_mult.len(), 8)?;
        for multiple in &config.dim_mult {
            size("dim_mult", *multiple, 64)?;
            size("base_dim * dim_mult", config.base_dim * multiple, MAX_SIZE)?;
        }
        if !config.attn_scales.is_empty() {
            return Err(Error::unsupported("`attn_scales` is not empty, as in no published model"));
        }
        if config.temperal_downsample.len() + 1 != config.dim_mult.len() {
            return Err(Error::model_invalid(format!(
                "`temperal_downsample` has {} entries for {} stages of `dim_mult`",
                config.temperal_downsample.len(),
                config.dim_mult.len()
            )));
        }
        for (name, values) in
            [("latents_mean", &config.latents_mean), ("latents_std", &config.latents_std)]
        {
            let fits = values.len() == config.z_dim && values.iter().all(|value| value.is_finite());
            if !fits || (name == "latents_std" && values.iter().any(|value| *value <= 0.0)) {
                return Err(Error::model_invalid(format!(
                    "`{name}` is {values:?}, expected {} numbers",
                    config.z_dim
                )));
            }
        }
        Ok(config)
    }

    /// How many pixels of a side become one latent.
    pub(crate) fn scale(&self) -> usize {
        1 << (self.dim_mult.len() - 1)
    }
}

/// The fields of a configuration, less the notes of the library that wrote it.
fn fields<T: DeserializeOwned>(value: Value, what: &str) -> Result<T> {
    let invalid = |e| Error::model_invalid(format!("not the configuration of a {what}: {e}"));
    let mut fields: Map<String, Value> = serde_json::from_value(value).map_err(invalid)?;
    fields.retain(|name, _| !name.starts_with('_'));
    serde_json::from_value(Value::Object(fields)).map_err(invalid)
}

fn size(name: &str, value: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::model_invalid(format!("`{name}` is {value}, expected 1 to {most}")))
}
