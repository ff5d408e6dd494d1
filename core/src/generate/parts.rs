//! The networks of a model as its files have them: a folder of diffusers, or one file of Stability's.

use std::path::Path;
use std::sync::Arc;

use super::metadata::ModelSource;
use super::recipe::{FILE, MULTIPLE, SCHEDULER, SIZE, default_size, prediction};
use crate::error::{Error, Result};
use crate::hub;
use crate::models::clip::ClipTextConfig;
use crate::models::sdxl::{AutoencoderConfig, UnetConfig};
use crate::schedule::Prediction;
use crate::tokens::bpe;
use crate::tokens::clip::ClipTokenizer;
use crate::weights::{Component, ModelDir, SingleFile, Source};

/// Sizes of which SDXL is told: the original one, the crop, and the one that is asked for.
pub(super) const SIZES: usize = 6;
/// Tensors without meaning by which files say that their network answers velocities, and that it was
/// trained with steps that are nothing but noise.
const MARKS: [&str; 2] = ["v_pred", "ztsnr"];

/// A network's configuration and its tensors.
pub(super) struct Part<C> {
    pub(super) config: C,
    pub(super) source: Arc<dyn Source>,
}

/// All that a model is made of.
pub(super) struct Parts {
    /// What metadata call it.
    pub(super) source: ModelSource,
    pub(super) tokenizer: ClipTokenizer,
    pub(super) small: Part<ClipTextConfig>,
    pub(super) large: Part<ClipTextConfig>,
    pub(super) unet: Part<UnetConfig>,
    pub(super) vae: Part<AutoencoderConfig>,
    pub(super) prediction: Prediction,
    /// Of pictures whose size is not asked for.
    pub(super) size: (usize, usize),
}

/// The configurations of a model's networks, as texts.
#[derive(Clone, Copy)]
pub(super) struct Configs<'a> {
    pub(super) text_encoder: &'a str,
    pub(super) text_encoder_2: &'a str,
    pub(super) unet: &'a str,
    pub(super) vae: &'a str,
}

/// Those of SDXL 1.0, which its descendants share. Files do not have them.
pub(super) const PUBLISHED: Configs<'static> = Configs {
    text_encoder: r#"{"model_type": "clip_text_model", "architectures": ["CLIPTextModel"],
        "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "max_position_embeddings": 77, "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5, "eos_token_id": 2}"#,
    text_encoder_2: r#"{"model_type": "clip_text_model", "architectures": ["CLIPTextModelWithProjection"],
        "vocab_size": 49408, "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
        "num_attention_heads": 20, "max_position_embeddings": 77, "hidden_act": "gelu",
        "layer_norm_eps": 1e-5, "eos_token_id": 2, "projection_dim": 1280}"#,
    unet: r#"{"_class_name": "UNet2DConditionModel", "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 2, "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20], "cross_attention_dim": 2048, "use_linear_projection": true,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816, "norm_num_groups": 32, "norm_eps": 1e-5}"#,
    vae: r#"{"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D",
        "DownEncoderBlock2D"], "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D",
        "UpDecoderBlock2D", "UpDecoderBlock2D"], "layers_per_block": 2, "latent_channels": 4,
        "norm_num_groups": 32, "scaling_factor": 0.13025}"#,
};

/// The network of SDXL's refiner.
pub(super) const PUBLISHED_REFINER: &str = r#"{"_class_name": "UNet2DConditionModel",
    "block_out_channels": [384, 768, 1536, 1536],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 2, "transformer_layers_per_block": 4, "attention_head_dim": [6, 12, 24, 24],
    "cross_attention_dim": 1280, "use_linear_projection": true, "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2560,
    "norm_num_groups": 32, "norm_eps": 1e-5}"#;

impl Parts {
    /// Of a folder as diffusers publishes it.
    pub(super) fn of_folder(dir: &ModelDir) -> Result<Self> {
        let size = read(dir, FILE, default_size)?;
        let encoder = |folder: &str| {
            Ok(Part {
                config: read(dir, &format!("{folder}/config.json"), text_encoder)?,
                source: dir.checkpoint(&format!("{folder}/model"))?,
            })
        };
        let has = |folder: &str| bpe::FILES.iter().all(|file| dir.has(&format!("{folder}/{file}")));
        Ok(Self {
            source: match dir {
                ModelDir::Disk(folder) => ModelSource::of(folder),
                ModelDir::Embedded(_) => ModelSource::named(hub::DEMO),
            },
            // Both encoders have the same one.
            tokenizer: match ["tokenizer", "tokenizer_2"].into_iter().find(|folder| has(folder)) {
                Some(folder) => ClipTokenizer::read(dir, folder)?,
                None => ClipTokenizer::published()?,
            },
            small: encoder("text_encoder")?,
            large: encoder("text_encoder_2")?,
            unet: Part {
                config: read(dir, "unet/config.json", unet)?,
                source: dir.checkpoint("unet/diffusion_pytorch_model")?,
            },
            vae: Part {
                config: read(dir, "vae/config.json", vae)?,
                source: dir.checkpoint("vae/diffusion_pytorch_model")?,
            },
            prediction: match dir.has(SCHEDULER) {
                true => read(dir, SCHEDULER, prediction)?,
                false => Prediction::Epsilon,
            },
            size,
        })
    }

    /// Of a checkpoint in one file.
    pub(super) fn of_file(path: &Path, configs: &Configs<'_>) -> Result<Self> {
        let file = SingleFile::open(path)?;
        let in_file = |error: Error| error.with("file", path.display());
        if file.has(Component::UNet) && !file.has(Component::TextEncoder) {
            let message = "the file has no first text encoder: it is a refiner or a network alone";
            return Err(in_file(Error::unsupported(message)));
        }
        let [is_velocity, is_rescaled] = MARKS.map(|mark| file.has_tensor(mark));
        if is_rescaled {
            let message = "the network was trained with steps of nothing but noise (`ztsnr`)";
            return Err(in_file(Error::unsupported(message)));
        }
        Ok(Self {
            source: ModelSource::of(path),
            tokenizer: ClipTokenizer::published()?,
            small: Part {
                config: text_encoder(configs.text_encoder)?,
                source: file.component(Component::TextEncoder)?,
            },
            large: Part {
                config: text_encoder(configs.text_encoder_2)?,
                source: file.component(Component::TextEncoder2)?,
            },
            unet: Part { config: unet(configs.unet)?, source: file.component(Component::UNet)? },
            vae: Part { config: vae(configs.vae)?, source: file.component(Component::Vae)? },
            prediction: if is_velocity { Prediction::V } else { Prediction::Epsilon },
            size: SIZE,
        })
    }
}

fn text_encoder(text: &str) -> Result<ClipTextConfig> {
    ClipTextConfig::parse(text.as_bytes())
}

pub(super) fn unet(text: &str) -> Result<UnetConfig> {
    let config = UnetConfig::parse(text.as_bytes())?;
    if config.in_channels != config.out_channels {
        return Err(Error::unsupported(format!(
            "the network takes {} channels and answers {}: it fills in parts of pictures",
            config.in_channels, config.out_channels
        )));
    }
    match config.added {
        Some(_) => Ok(config),
        None => Err(Error::unsupported("the network is not told of sizes: it is none of SDXL")),
    }
}

fn vae(text: &str) -> Result<AutoencoderConfig> {
    let config = AutoencoderConfig::parse(text.as_bytes())?;
    match config.scale() {
        MULTIPLE => Ok(config),
        other => Err(Error::unsupported(format!(
            "a latent is {other} pixels wide; supported are {MULTIPLE}"
        ))),
    }
}

/// Reads a text file of the folder.
pub(super) fn read<T>(
    dir: &ModelDir,
    file: &str,
    parse: impl FnOnce(&str) -> Result<T>,
) -> Result<T> {
    parse(&dir.text(file)?).map_err(|error| error.with("file", dir.origin(file)))
}
