//! What the `config.json` of a Qwen2.5-VL says, checked before any tensor is looked at.
//!
//! Published files have the values of the language model beside those of the whole, and `rope_scaling`;
//! files written by transformers 5 have them in `text_config`, and `rope_parameters`. Defaults are
//! those of the classes in transformers. Keys that say how a model is trained or used are passed over.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::models::fields::{Fields, object};

/// Largest size of anything but the vocabulary; products of two stay far from overflow.
const MAX_SIZE: usize = 65_536;
const MAX_VOCABULARY: usize = 1 << 22;
/// Most blocks or layers.
const MAX_DEPTH: usize = 1024;
/// Largest side of a patch or of what is merged, in pixels or patches.
const MAX_SIDE: usize = 64;

/// The `config.json` of a `Qwen2_5_VLForConditionalGeneration`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VlConfig {
    pub(crate) text: TextConfig,
    pub(crate) vision: VisionConfig,
}

/// What the language model is built from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TextConfig {
    pub(crate) vocab_size: usize,
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) num_key_value_heads: usize,
    pub(crate) rms_norm_eps: f64,
    pub(crate) rope_theta: f64,
    /// How many pairs of a head turn with the frame, with the row, and with the column.
    pub(crate) mrope_section: [usize; 3],
    /// The token that stands for a vector of a picture.
    pub(crate) image_token_id: u32,
    /// [`VisionConfig::spatial_merge_size`].
    pub(crate) spatial_merge_size: usize,
}

/// What the vision part is built from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VisionConfig {
    pub(crate) depth: usize,
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_heads: usize,
    pub(crate) in_channels: usize,
    pub(crate) patch_size: usize,
    pub(crate) temporal_patch_size: usize,
    /// Patches along a side of the square that becomes one vector.
    pub(crate) spatial_merge_size: usize,
    /// Such squares along a side of a window: `window_size` is in pixels.
    pub(crate) window: usize,
    pub(crate) out_hidden_size: usize,
    /// Blocks that attend to the whole picture.
    pub(crate) fullatt_block_indexes: Vec<usize>,
    pub(crate) rope_theta: f64,
}

impl VlConfig {
    /// From the content of `config.json`. The caller adds the file to errors.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let all = object(bytes)?;
        let root = Fields::of(&all);
        root.one_of("model_type", &["qwen2_5_vl"])?;
        let Some(of_vision) = root.object("vision_config")? else {
            return Err(root.invalid("vision_config", "an object"));
        };
        let vision = VisionConfig::read(&of_vision)?;
        let of_text = root.object("text_config")?;
        let text = TextConfig::read(&root, of_text.as_ref().unwrap_or(&root), &vision)?;
        if vision.out_hidden_size != text.hidden_size {
            let expected = format!("the language model's `hidden_size`, {}", text.hidden_size);
            return Err(of_vision.invalid("out_hidden_size", expected));
        }
        Ok(Self { text, vision })
    }
}

impl TextConfig {
    fn read(root: &Fields<'_>, fields: &Fields<'_>, vision: &VisionConfig) -> Result<Self> {
        fields.one_of("hidden_act", &["silu"])?;
        if fields.get("use_sliding_window").is_some_and(|value| value != &Value::Bool(false)) {
            return Err(fields.unsupported("use_sliding_window", "false"));
        }
        let is_full = |types: &Vec<Value>| types.iter().all(|kind| kind == "full_attention");
        if fields.get("layer_types").is_some_and(|types| !types.as_array().is_some_and(is_full)) {
            return Err(fields.unsupported("layer_types", "full_attention everywhere"));
        }
        let heads = fields.size("num_attention_heads", 64, MAX_SIZE)?;
        // Said to be null, it is that of queries.
        let key_heads = if fields.has("num_key_value_heads") { heads } else { 8 };
        let (rope_theta, mrope_section) = rope(fields)?;
        let config = Self {
            vocab_size: fields.size("vocab_size", 152_064, MAX_VOCABULARY)?,
            hidden_size: fields.size("hidden_size", 8192, MAX_SIZE)?,
            intermediate_size: fields.size("intermediate_size", 29_568, MAX_SIZE)?,
            num_hidden_layers: fields.size("num_hidden_layers", 80, MAX_DEPTH)?,
            num_attention_heads: heads,
            num_key_value_heads: fields.size("num_key_value_heads", key_heads, MAX_SIZE)?,
            rms_norm_eps: fields.positive("rms_norm_eps", 1e-5)?,
            rope_theta,
            mrope_section,
            image_token_id: root.size("image_token_id", 151_655, MAX_VOCABULARY)? as u32,
            spatial_merge_size: vision.spatial_merge_size,
        };
        let width = config.hidden_size;
        if !width.is_multiple_of(2 * heads) {
            let expected = format!("heads of an even part of `hidden_size`, {width}");
            return Err(fields.invalid("num_attention_heads", expected));
        }
        if config.image_token_id as usize >= config.vocab_size {
            let expected = format!("one of `vocab_size`, {}", config.vocab_size);
            return Err(root.invalid("image_token_id", expected));
        }
        if fields.size("head_dim", config.head(), MAX_SIZE)? != config.head() {
            return Err(fields.invalid("head_dim", format!("{} for {heads} heads", config.head())));
        }
        if !heads.is_multiple_of(config.num_key_value_heads) {
            let expected = format!("a divisor of `num_attention_heads`, {heads}");
            return Err(fields.invalid("num_key_value_heads", expected));
        }
        if mrope_section.iter().sum::<usize>() != config.head() / 2 {
            return Err(Error::model_invalid(format!(
                "`mrope_section` is {mrope_section:?}, expected three numbers whose sum is half of \
                 a head, {}",
                config.head() / 2
            )));
        }
        Ok(config)
    }

    /// Values of a head.
    pub(crate) fn head(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

impl VisionConfig {
    fn read(fields: &Fields<'_>) -> Result<Self> {
        fields.one_of("hidden_act", &["silu"])?;
        let rope = fields.object("rope_parameters")?.unwrap_or_default();
        rope.one_of("rope_type", &["axial", "default"])?;
        let (patch, merge) = (
            fields.size("patch_size", 14, MAX_SIDE)?,
            fields.size("spatial_merge_size", 2, MAX_SIDE)?,
        );
        let config = Self {
            depth: fields.size("depth", 32, MAX_DEPTH)?,
            hidden_size: fields.size("hidden_size", 3584, MAX_SIZE)?,
            intermediate_size: fields.size("intermediate_size", 3420, MAX_SIZE)?,
            num_heads: fields.size("num_heads", 16, MAX_SIZE)?,
            in_channels: fields.size("in_channels", 3, MAX_SIDE)?,
            patch_size: patch,
            temporal_patch_size: fields.size("temporal_patch_size", 2, MAX_SIDE)?,
            spatial_merge_size: merge,
            window: fields.size("window_size", 112, MAX_SIZE)? / merge / patch,
            out_hidden_size: fields.size("out_hidden_size", 3584, MAX_SIZE)?,
            fullatt_block_indexes: fields.indexes("fullatt_block_indexes", &[7, 15, 23, 31])?,
            rope_theta: rope.positive("rope_theta", 10_000.0)?,
        };
        if !config.hidden_size.is_multiple_of(4 * config.num_heads) {
            let expected =
                format!("heads of a fourfold part of `hidden_size`, {}", config.hidden_size);
            return Err(fields.invalid("num_heads", expected));
        }
        if config.window == 0 {
            let expected = format!("at least {merge} patches of {patch}");
            return Err(fields.invalid("window_size", expected));
        }
        Ok(config)
    }

    /// Values of a patch.
    pub(crate) fn patch(&self) -> usize {
        self.in_channels * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// Patches that become one vector.
    pub(crate) fn merged(&self) -> usize {
        self.spatial_merge_size * self.spatial_merge_size
    }
}

/// Base and sections of the language model's rotary positions, in either spelling.
fn rope(fields: &Fields<'_>) -> Result<(f64, [usize; 3])> {
    let rope = match fields.object("rope_scaling")? {
        None => fields.object("rope_parameters")?,
        some => some,
    };
    let rope = rope.unwrap_or_default();
    let kind = if rope.get("rope_type").is_some() { "rope_type" } else { "type" };
    rope.one_of(kind, &["default", "mrope"])?;
    let theta = rope.positive("rope_theta", fields.positive("rope_theta", 1e6)?)?;
    let section = rope.indexes("mrope_section", &[16, 24, 24])?;
    match <[usize; 3]>::try_from(section) {
        Ok(section) if section.iter().all(|pairs| *pairs <= MAX_SIZE) => Ok((theta, section)),
        _ => Err(rope.invalid("mrope_section", "three numbers of pairs")),
    }
}
