//! The `config.json` of a denoising network, checked before any tensor is looked at.

use serde_json::{Value, json};

use super::super::layers::GroupNormOptions;
use crate::error::Result;
use crate::models::fields::{Fields, object};

/// Largest number of channels or heads, and width of anything.
const MAX_SIZE: usize = 65_536;
/// Most stages, blocks of one, and layers of a transformer.
const MAX_DEPTH: usize = 64;

/// Keys that ask for another network unless they have these values, which are also their defaults.
/// Null is as good as not there.
fn only() -> [(&'static str, Value); 28] {
    [
        ("act_fn", json!("silu")),
        ("attention_type", json!("default")),
        ("center_input_sample", json!(false)),
        ("class_embed_type", Value::Null),
        ("class_embeddings_concat", json!(false)),
        ("conv_in_kernel", json!(3)),
        ("conv_out_kernel", json!(3)),
        ("cross_attention_norm", Value::Null),
        ("downsample_padding", json!(1)),
        ("dual_cross_attention", json!(false)),
        ("encoder_hid_dim", Value::Null),
        ("encoder_hid_dim_type", Value::Null),
        ("mid_block_only_cross_attention", json!(false)),
        ("mid_block_scale_factor", json!(1)),
        ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
        ("num_attention_heads", Value::Null),
        ("num_class_embeds", Value::Null),
        ("only_cross_attention", json!(false)),
        ("resnet_out_scale_factor", json!(1)),
        ("resnet_skip_time_act", json!(false)),
        ("resnet_time_scale_shift", json!("default")),
        ("reverse_transformer_layers_per_block", Value::Null),
        ("time_cond_proj_dim", Value::Null),
        ("time_embedding_act_fn", Value::Null),
        ("time_embedding_dim", Value::Null),
        ("time_embedding_type", json!("positional")),
        ("timestep_post_act", Value::Null),
        ("_class_name", json!("UNet2DConditionModel")),
    ]
}

/// The blocks of one size on the way down, and in mirror image on the way up.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StageConfig {
    pub(crate) channels: usize,
    /// Residual blocks on the way down; on the way up there is one more.
    pub(crate) blocks: usize,
    /// Whether a transformer is behind every block on the way down.
    pub(crate) attends_down: bool,
    /// As `attends_down`, on the way up.
    pub(crate) attends_up: bool,
    /// Layers of a transformer.
    pub(crate) layers: usize,
    pub(crate) heads: usize,
}

/// The embedding of the pooled text and of sizes, which SDXL adds to that of the time (`text_time`).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AddedConfig {
    /// Values that each size becomes.
    pub(crate) time_dim: usize,
    /// Values of the pooled text and of all sizes together.
    pub(crate) input_dim: usize,
}

/// A `UNet2DConditionModel` of the kinds that Stable Diffusion 1 and SDXL use.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UnetConfig {
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    /// The first is at full size.
    pub(crate) stages: Vec<StageConfig>,
    /// Length of a token of the text.
    pub(crate) cross_attention_dim: usize,
    /// Whether the maps around transformers are stored as linear layers; else as convolutions.
    pub(crate) use_linear_projection: bool,
    pub(crate) added: Option<AddedConfig>,
    /// Whether cosines come before sines.
    pub(crate) flip_sin_to_cos: bool,
    pub(crate) freq_shift: f64,
    /// Of all norms but those of transformers, which have an `eps` of their own.
    pub(crate) norm: GroupNormOptions,
}

impl UnetConfig {
    /// From the content of `config.json`. The caller adds the file to errors.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let all = object(bytes)?;
        let fields = Fields::of(&all);
        for (key, value) in only() {
            fields.only(key, &value)?;
        }
        let groups = fields.size("norm_num_groups", 32, MAX_SIZE)?;
        let channels = fields.indexes("block_out_channels", &[320, 640, 1280, 1280])?;
        let fits = |c: &usize| (1..=MAX_SIZE).contains(c) && c.is_multiple_of(groups);
        if !(1..=MAX_DEPTH).contains(&channels.len()) || !channels.iter().all(fits) {
            let expected = format!("1 to {MAX_DEPTH} multiples of {groups} up to {MAX_SIZE}");
            return Err(fields.invalid("block_out_channels", expected));
        }
        // As many sines as cosines, and numbers between 0 and 1 times the time.
        let freq_shift = match fields.get("freq_shift") {
            None => 0.0,
            Some(shift) => shift
                .as_f64()
                .filter(|shift| (0.0..=1.0).contains(shift))
                .ok_or_else(|| fields.invalid("freq_shift", "a number from 0 to 1"))?,
        };
        if !channels[0].is_multiple_of(2) || channels[0] < 4 {
            return Err(fields.invalid("block_out_channels", "an even number above 2 first"));
        }
        Ok(Self {
            in_channels: fields.size("in_channels", 4, MAX_SIZE)?,
            out_channels: fields.size("out_channels", 4, MAX_SIZE)?,
            stages: stages(&fields, &channels)?,
            cross_attention_dim: fields.size("cross_attention_dim", 1280, MAX_SIZE)?,
            use_linear_projection: fields.flag("use_linear_projection", false)?,
            added: added(&fields)?,
            flip_sin_to_cos: fields.flag("flip_sin_to_cos", true)?,
            freq_shift,
            norm: GroupNormOptions { groups, eps: fields.positive("norm_eps", 1e-5)? },
        })
    }

    /// Width of the embedding of the time.
    pub(crate) fn time_width(&self) -> usize {
        4 * self.stages[0].channels
    }

    /// Channels of the largest layers of transformers, which are most of the network.
    pub(crate) fn widest(&self) -> usize {
        self.stages.iter().map(|stage| stage.channels).max().unwrap_or_default()
    }

    /// Layers of transformers in a stage: on the way down, in the middle, on the way up.
    fn layers(&self, i: usize) -> usize {
        let stage = &self.stages[i];
        let down = if stage.attends_down { stage.blocks } else { 0 };
        let middle = usize::from(i + 1 == self.stages.len());
        let up = if stage.attends_up { stage.blocks + 1 } else { 0 };
        (down + middle + up) * stage.layers
    }

    /// How many layers of transformers need not stay in memory: those with the most channels, which have one size.
    pub(crate) fn large_layers(&self) -> usize {
        let is_large = |i: &usize| self.stages[*i].channels == self.widest();
        (0..self.stages.len()).filter(is_large).map(|i| self.layers(i)).sum()
    }

    /// Whether a tensor is of such a layer.
    pub(crate) fn is_of_large_layer(&self, name: &str) -> bool {
        let mut parts = name.split('.');
        let (part, number) = (parts.next(), parts.next());
        let number = number.and_then(|number| number.parse::<usize>().ok());
        let last = self.stages.len() - 1;
        let stage = match (part, number) {
            (Some("down_blocks"), Some(i)) => Some(i),
            (Some("mid_block"), _) => Some(last),
            (Some("up_blocks"), Some(i)) => last.checked_sub(i),
            _ => None,
        };
        let stage = stage.and_then(|i| self.stages.get(i));
        name.contains(".transformer_blocks.")
            && stage.is_some_and(|stage| stage.channels == self.widest())
    }

    /// Values that all layers make of a token of a text.
    pub(crate) fn text_values(&self) -> usize {
        let of_stage = |i: usize| 2 * self.stages[i].channels * self.layers(i);
        (0..self.stages.len()).map(of_stage).sum()
    }
}

fn stages(fields: &Fields<'_>, channels: &[usize]) -> Result<Vec<StageConfig>> {
    let count = channels.len();
    let down = attends(fields, "down_block_types", "Down", count)?;
    let up = attends(fields, "up_block_types", "Up", count)?;
    let blocks = fields.per_stage("layers_per_block", 2, MAX_DEPTH, count)?;
    let layers = fields.per_stage("transformer_layers_per_block", 1, MAX_DEPTH, count)?;
    // These are numbers of heads: the key's name is an old mistake that diffusers keeps.
    let heads = fields.per_stage("attention_head_dim", 8, MAX_SIZE, count)?;
    let stage = |i: usize| {
        let stage = StageConfig {
            channels: channels[i],
            blocks: blocks[i],
            attends_down: down[i],
            attends_up: up[count - 1 - i],
            layers: layers[i],
            heads: heads[i],
        };
        if stage.blocks == 0 {
            return Err(fields.invalid("layers_per_block", "at least 1 everywhere"));
        }
        let attends = stage.attends_down || stage.attends_up || i + 1 == count;
        if attends && (stage.heads == 0 || !stage.channels.is_multiple_of(stage.heads)) {
            let expected = format!("divisors of `block_out_channels`, {channels:?}");
            return Err(fields.invalid("attention_head_dim", expected));
        }
        Ok(stage)
    };
    (0..count).map(stage).collect()
}

/// Which stages have transformers, in the order of the file.
fn attends(fields: &Fields<'_>, key: &str, side: &str, count: usize) -> Result<Vec<bool>> {
    let (with, without) = (format!("CrossAttn{side}Block2D"), format!("{side}Block2D"));
    let Some(value) = fields.get(key) else {
        // The default has four stages, of which the smallest has none.
        let mut kinds = vec![true; count];
        kinds[if side == "Down" { count - 1 } else { 0 }] = false;
        return if count == 4 { Ok(kinds) } else { Err(fields.invalid(key, "a list")) };
    };
    let kinds = value.as_array().filter(|kinds| kinds.len() == count);
    let kinds =
        kinds.ok_or_else(|| fields.invalid(key, format!("{count} names of blocks")))?.iter();
    kinds
        .map(|kind| match kind.as_str() {
            Some(name) if name == with => Ok(true),
            Some(name) if name == without => Ok(false),
            _ => Err(fields.unsupported(key, format!("{with} or {without}"))),
        })
        .collect()
}

fn added(fields: &Fields<'_>) -> Result<Option<AddedConfig>> {
    fields.one_of("addition_embed_type", &["text_time"])?;
    if fields.get("addition_embed_type").is_none() {
        return Ok(None);
    }
    let size = |key: &str| match fields.get(key) {
        Some(_) => fields.size(key, 1, MAX_SIZE),
        None => Err(fields.invalid(key, format!("1 to {MAX_SIZE}"))),
    };
    let added = AddedConfig {
        time_dim: size("addition_time_embed_dim")?,
        input_dim: size("projection_class_embeddings_input_dim")?,
    };
    if !added.time_dim.is_multiple_of(2) || added.time_dim < 4 {
        return Err(fields.invalid("addition_time_embed_dim", "an even number above 2"));
    }
    Ok(Some(added))
}
