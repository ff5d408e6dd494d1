//! What a model folder says about its network and its input, before any tensor is read.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::preprocess::Preprocess;
use crate::error::{Error, Result};
use crate::models::args::Args;
use crate::nn::PixelScale;
use crate::pixels::Step;
use crate::weights::ModelDir;

/// Longest side of a network's input: a picture is resized to it whatever the weights are, so a
/// damaged configuration must not ask for a terabyte.
const MAX_SIDE: usize = 4096;

/// A timm `config.json`.
#[derive(Deserialize)]
struct File {
    architecture: String,
    #[serde(default)]
    num_classes: Option<usize>,
    #[serde(default)]
    model_args: Option<Map<String, Value>>,
    #[serde(default)]
    pretrained_cfg: Option<Pretrained>,
    /// What timm has no word for; written by our importers.
    #[serde(default)]
    tagbrush: Option<Extension>,
}

#[derive(Deserialize, Default)]
struct Pretrained {
    input_size: Option<[usize; 3]>,
    #[serde(default)]
    fixed_input_size: bool,
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
    interpolation: Option<String>,
    num_classes: Option<usize>,
    global_pool: Option<Value>,
}

#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Extension {
    norm_eps: Option<f64>,
    final_norm_eps: Option<f64>,
    channel_order: Option<ChannelOrder>,
}

/// The order of the colour channels that a network was trained with.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ChannelOrder {
    Rgb,
    Bgr,
}

/// How pixels are made into the network's input.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InputSpec {
    /// Height and width.
    pub(crate) size: (usize, usize),
    pub(crate) channels: ChannelOrder,
    /// Per channel in the network's order, on values of 0 to 1.
    pub(crate) mean: [f32; 3],
    pub(crate) std: [f32; 3],
    /// What lies under transparent pixels.
    pub(crate) background: [u8; 3],
    /// How a picture gets its size; padded to a square and resampled bicubically unless listed.
    pub(crate) steps: Option<Vec<Step>>,
}

impl InputSpec {
    /// What the network's first layer makes of bytes.
    pub(crate) fn scale(&self) -> PixelScale {
        PixelScale { mean: self.mean, std: self.std, bgr: self.channels == ChannelOrder::Bgr }
    }
}

/// The network and the input of a model.
pub(crate) struct ModelConfig {
    pub(crate) args: Args,
    pub(crate) labels: Option<usize>,
    pub(crate) input: InputSpec,
}

impl ModelConfig {
    /// Reads `config.json`.
    pub(crate) fn load(dir: &ModelDir) -> Result<Self> {
        let text = dir.text("config.json")?;
        let value = serde_json::from_str(&text).map_err(|e| {
            Error::model_invalid(format!("not valid JSON: {e}"))
                .with("file", dir.origin("config.json"))
        })?;
        let preprocess = Preprocess::load(dir)?;
        Self::parse(value, preprocess).map_err(|e| e.with("file", dir.origin("config.json")))
    }

    /// From the content of a `config.json`, and what the folder's `preprocess.json` asks for.
    pub(crate) fn parse(value: Value, preprocess: Option<Preprocess>) -> Result<Self> {
        let invalid = |e| Error::model_invalid(format!("not a timm configuration: {e}"));
        let file: File = serde_json::from_value(value.clone()).map_err(invalid)?;
        let pretrained = match file.pretrained_cfg {
            Some(pretrained) => pretrained,
            // Older files have everything on one level.
            None => serde_json::from_value(value).map_err(invalid)?,
        };
        let mut overrides = file.model_args.unwrap_or_default();
        // timm passes these on to the constructor unless `model_args` has them. The `global_pool`
        // beside the architecture it does not read.
        let declared = overrides.remove("num_classes").filter(|n| !n.is_null());
        let declared = declared
            .map(|n| {
                let wrong = || Error::model_invalid(format!("`num_classes` is {n}"));
                n.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(wrong)
            })
            .transpose()?;
        if let Some(pool) =
            pretrained.global_pool.filter(|_| !overrides.contains_key("global_pool"))
        {
            overrides.insert("global_pool".to_owned(), pool);
        }
        let extension = file.tagbrush.unwrap_or_default();
        let mut args = Args::new(&file.architecture, &overrides)?;
        if let Some(eps) = extension.norm_eps {
            args.set_default("norm_eps", eps.into());
        }
        if let Some(eps) = extension.final_norm_eps {
            args.set_default("final_norm_eps", eps.into());
        }
        if let Some([channels, ..]) = pretrained.input_size
            && channels != 3
        {
            return Err(Error::unsupported(format!("the model takes {channels} channels, not 3")));
        }
        if let Some(filter) = pretrained.interpolation.as_deref()
            && filter != "bicubic"
            && preprocess.is_none()
        {
            return Err(Error::unsupported(format!(
                "the model wants `{filter}` interpolation; only bicubic is supported"
            )));
        }
        let mean = pretrained.mean.unwrap_or([0.5; 3]);
        let std = pretrained.std.unwrap_or([0.5; 3]);
        if std.iter().chain(&mean).any(|x| !x.is_finite()) || std.iter().any(|std| *std <= 0.0) {
            return Err(Error::model_invalid(format!("`std` is {std:?}, `mean` is {mean:?}")));
        }
        // Nothing in the file tells the channel order. The WD models are trained on BGR and scaled
        // to -1..1; models with other statistics follow the usual RGB, and so do collections that
        // list the steps of their preprocessing.
        let usual = if preprocess.is_some() || mean != [0.5; 3] || std != [0.5; 3] {
            ChannelOrder::Rgb
        } else {
            ChannelOrder::Bgr
        };
        // A ConvNeXt takes any size, so the preprocessing decides; so it does for other networks
        // when it says that it is fixed.
        let takes_any = args.family() == "convnext";
        if let Some(preprocess) = preprocess.as_ref().filter(|_| takes_any) {
            let (width, height) = preprocess.size;
            args.set_default("img_size", vec![height, width].into());
        }
        if let Some([_, height, width]) = pretrained.input_size
            && (pretrained.fixed_input_size || takes_any)
        {
            args.set_default("img_size", vec![height, width].into());
        }
        let size = args.pair("img_size", 224)?;
        if size.0 != size.1 {
            return Err(Error::unsupported(format!(
                "the input is {} x {} pixels; only square inputs are supported",
                size.0, size.1
            )));
        }
        if size.0 > MAX_SIDE {
            return Err(Error::unsupported(format!(
                "the input is {} pixels a side; at most {MAX_SIDE} are supported",
                size.0
            )));
        }
        let channels = extension.channel_order.unwrap_or(usual);
        let input = match preprocess {
            None => InputSpec { size, channels, mean, std, background: [255; 3], steps: None },
            Some(Preprocess { background, steps, size: made, mean, std }) => {
                if (made.1, made.0) != size {
                    return Err(Error::model_invalid(format!(
                        "`preprocess.json` makes pictures of {} x {}, but the network takes {} x {}",
                        made.0, made.1, size.1, size.0
                    )));
                }
                InputSpec { size, channels, mean, std, background, steps: Some(steps) }
            }
        };
        let labels = declared.or(file.num_classes).or(pretrained.num_classes);
        Ok(Self { args, labels, input })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<ModelConfig> {
        ModelConfig::parse(value, None)
    }

    #[test]
    fn reads_both_layouts_of_the_file() {
        let args = json!({"img_size": 448});
        let nested = json!({
            "architecture": "vit_base_patch16_224", "num_classes": 7, "model_args": args,
            "pretrained_cfg": {"input_size": [3, 448, 448], "num_classes": 8, "global_pool": "avg"},
        });
        let config = parse(nested).unwrap();
        assert_eq!((config.labels, config.input.size), (Some(7), (448, 448)));
        assert_eq!(config.args.string("global_pool", "token").unwrap(), "avg");
        let flat = json!({
            "architecture": "convnext_base.a_tag", "num_classes": 7, "input_size": [3, 320, 320],
            "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        });
        let config = parse(flat).unwrap();
        assert_eq!((config.labels, config.input.size), (Some(7), (320, 320)));
        assert_eq!(config.input.channels, ChannelOrder::Rgb);
    }

    #[test]
    fn colours_follow_the_statistics_unless_told() {
        let with = |value: Value, stages| ModelConfig::parse(value, stages).unwrap().input.channels;
        let stages = |side: usize| {
            Some(Preprocess {
                background: [255; 3],
                steps: Vec::new(),
                size: (side, side),
                mean: [0.5; 3],
                std: [0.5; 3],
            })
        };
        let plain = json!({"architecture": "vit_base_patch16_224"});
        assert_eq!(with(plain.clone(), None), ChannelOrder::Bgr);
        assert_eq!(with(plain.clone(), stages(224)), ChannelOrder::Rgb);
        let error = ModelConfig::parse(plain, stages(225)).err().unwrap().to_string();
        assert!(error.contains("225 x 225"), "{error}");
        let any = json!({"architecture": "convnext_base"});
        assert_eq!(ModelConfig::parse(any, stages(320)).unwrap().input.size, (320, 320));
        let told = json!({
            "architecture": "vit_base_patch16_224", "tagbrush": {"channel_order": "rgb"},
        });
        assert_eq!(with(told, None), ChannelOrder::Rgb);
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        let with = |pretrained: Value| json!({"architecture": "vit_base_patch16_224", "pretrained_cfg": pretrained});
        for (value, expected) in [
            (json!([]), "not a timm configuration"),
            (json!({}), "architecture"),
            (json!({"architecture": "resnet50"}), "resnet50"),
            (with(json!({"input_size": [1, 64, 64]})), "1 channels"),
            (with(json!({"interpolation": "bilinear"})), "bilinear"),
            (with(json!({"std": [0.5, 0.0, 0.5]})), "std"),
            (json!({"architecture": "vit_base_patch16_224", "tagbrush": {"x": 1}}), "x"),
            (
                json!({"architecture": "vit_base_patch16_224", "model_args": {"img_size": [64, 32]}}),
                "square",
            ),
        ] {
            let error = parse(value).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
