//! From a model's name to networks that are ready to run, or that can be read when they are needed.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use candle_core::DType;
use serde_json::{Value, json};

use super::Model;
use super::demo;
use super::prompt::PromptEncoder;
use super::recipe::{self, Recipe};
use super::room::Room;
use super::vision::VisionInput;
use crate::device::{Placement, Precision};
use crate::diffusion::memory::{Bytes, Share};
use crate::error::{Error, Result, ResultExt};
use crate::hub::{self, Task};
use crate::kernels::linear::bytes_of;
use crate::models::qwen_image::{
    Modulation, QwenImageTransformer, QwenImageVae, TransformerConfig, VaeConfig,
};
use crate::models::qwen2_5_vl::{self, LanguageModel, VisionTower, VlConfig};
use crate::nn::Keep;
use crate::options::{LoadOptions, Lora};
use crate::schedule::FlowMatchEuler;
use crate::weights::{
    ModelDir, Network, Slot, Source, Weights, apply_loras, open_text_encoder, open_transformer,
    open_vae,
};

const TRANSFORMER: &str = "transformer";
const TEXT_ENCODER: &str = "text_encoder";
const VAE: &str = "vae";
/// A layer whose type is that of the file: small ones may be stored in more bits.
const LARGE_LAYER: &str = "transformer_blocks.0.img_mlp.net.0.proj.weight";

/// The vision part and the language model.
pub(super) struct TextEncoder {
    pub(super) vision: VisionTower,
    pub(super) language: LanguageModel,
}

/// Loads `model`: `demo`, a folder, or the id or alias of a published model.
pub(super) fn load(model: &str, options: &LoadOptions) -> Result<Model> {
    options.check()?;
    let others = [
        ("refiner", options.refiner.is_some()),
        ("upscaler", options.upscaler.is_some()),
        ("inpaint_head", options.inpaint_head.is_some()),
        ("inpaint_patch", options.inpaint_patch.is_some()),
    ];
    if let Some((field, _)) = others.iter().find(|(_, is_set)| *is_set) {
        let message = "the option is for models that generate";
        return Err(Error::unsupported(message).with("field", field));
    }
    let cache_dir = options.cache_dir.as_deref();
    let dir = hub::locate(model, Task::Edit, demo::FILES, cache_dir, options.offline)?;
    load_dir(&dir, options).context("model", model)
}

fn load_dir(dir: &ModelDir, options: &LoadOptions) -> Result<Model> {
    let recipe = read(dir, recipe::FILE, Recipe::parse)?;
    let scheduler = read(dir, "scheduler/scheduler_config.json", FlowMatchEuler::parse)?;
    let vision = read(dir, "processor/preprocessor_config.json", VisionInput::parse)?;
    let prompts = PromptEncoder::read(dir)?;
    let text_config =
        read(dir, "text_encoder/config.json", |text| VlConfig::parse(text.as_bytes()))?;
    let vae_config = read(dir, "vae/config.json", |text| VaeConfig::parse(value(text)?))?;
    let (transformer, transformer_config) = transformer(dir, options.transformer.as_deref())?;
    let text = match &options.text_encoder {
        Some(file) => open_text_encoder(file)?.source,
        None => dir.checkpoint("text_encoder/model")?,
    };
    let vae = match &options.vae {
        Some(file) => open_vae(file)?.source,
        None => dir.checkpoint("vae/diffusion_pytorch_model")?,
    };
    check_sizes(&transformer_config, &text_config, &vae_config, &vision)?;

    let placement = place(options, &*transformer)?;
    let dtype = placement.dtype();
    let count = |shape: &[usize]| shape.iter().product::<usize>() as u64;
    let bytes = |shape: &[usize]| bytes_of(shape, dtype, placement.candle());
    let bytes_f32 = |shape: &[usize]| bytes_of(shape, DType::F32, placement.candle());
    let is_vision = |name: &str| name.starts_with("visual.") || name.starts_with("model.visual.");
    let mut decode = options.decode.clone();
    decode.apply_orientation.get_or_insert(true);
    let mut model = Model {
        grid: 2 * vae_config.scale(),
        bytes_of_transformer: Bytes::of(
            &*transformer,
            transformer_config.num_layers,
            |name, shape| match name {
                _ if Modulation::takes(name) => Share::None,
                _ if name.starts_with("transformer_blocks.") => Share::Block(bytes(shape)),
                _ => Share::Rest(bytes(shape)),
            },
        ),
        bytes_of_language: Bytes::of(&*text, text_config.text.num_hidden_layers, |name, shape| {
            match name {
                _ if is_vision(name) || qwen2_5_vl::is_unused(name) => Share::None,
                _ if name.contains(".layers.") => Share::Block(bytes(shape)),
                // Embeddings are looked up as they are stored.
                _ => Share::Rest(count(shape) * dtype.size_in_bytes() as u64),
            }
        }),
        bytes_of_vision: Bytes::of(&*text, text_config.vision.depth, |name, shape| match name {
            _ if !is_vision(name) => Share::None,
            _ if name.contains(".blocks.") => Share::Block(bytes(shape)),
            _ => Share::Rest(bytes(shape)),
        }),
        bytes_of_vae: Bytes::of(&*vae, 1, |name, shape| match shape {
            _ if QwenImageVae::is_unused(name) => Share::None,
            // Of a kernel in time, one plane is kept.
            [n, c, _, h, w] => Share::Rest(bytes_f32(&[*n, *c, *h, *w])),
            _ => Share::Rest(bytes_f32(shape)),
        })
        .total(),
        recipe,
        scheduler,
        vision,
        prompts,
        decode,
        placement,
        transformer_config,
        text_config,
        vae_config,
        transformer_base: Arc::clone(&transformer),
        transformer_source: RwLock::new(transformer),
        text_source: text,
        vae_source: vae,
        transformer: Slot::default(),
        text: Slot::default(),
        vae: Slot::default(),
        modulations: Mutex::default(),
        colours: Slot::default(),
        max_memory: options.max_memory,
        batch_size: options.batch_size.unwrap_or(usize::MAX),
        running: Mutex::new(None),
    };
    // Everything that is wrong with the files is found now.
    let room = model.room_to_load()?;
    model.try_parts()?;
    model.vae()?;
    if !room.in_turn {
        model.text_encoder(&room)?;
        model.transformer(&room)?;
    }
    model.running = Mutex::new(Some(room));
    Ok(model)
}

/// The transformer's tensors and what they are: the folder's, or those of another file. A file says
/// little of itself, so the folder's configuration holds for it too; where the folder has none, it is
/// a network of the published sizes.
fn transformer(
    dir: &ModelDir,
    file: Option<&Path>,
) -> Result<(Arc<dyn Source>, TransformerConfig)> {
    const CONFIG: &str = "transformer/config.json";
    let parse = |text: &str| TransformerConfig::parse(value(text)?);
    let Some(file) = file else {
        let source = dir.checkpoint("transformer/diffusion_pytorch_model")?;
        return Ok((source, read(dir, CONFIG, parse)?));
    };
    let opened = open_transformer(file)?;
    let mut config = match dir.has(CONFIG) {
        true => read(dir, CONFIG, parse)?,
        false => TransformerConfig::parse(json!({"num_layers": opened.blocks()}))?,
    };
    config.zero_cond_t |= opened.zero_cond_t;
    Ok((opened.source, config))
}

impl Model {
    /// Applies LoRA files to the transformer, in place of those that were applied before.
    pub(super) fn set_loras(&self, loras: &[Lora]) -> Result<()> {
        let files = loras.iter().map(|lora| (&*lora.file, lora.scale));
        let base = (&Network::TRANSFORMER, Arc::clone(&self.transformer_base));
        let Some(source) = apply_loras(files, &[base])?.pop() else { return Ok(()) };
        let _not_while_running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        *self.transformer_source.write().unwrap_or_else(PoisonError::into_inner) = source;
        // They are read again when they are needed; nothing of what was applied stays.
        self.transformer.release();
        self.modulations.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Ok(())
    }

    fn weights(&self, source: &Arc<dyn Source>, dtype: DType) -> Weights {
        Weights::new(Arc::clone(source), self.placement.candle(), dtype)
    }

    /// The transformer's weights, with the LoRAs that are in use.
    pub(super) fn transformer_weights(&self) -> Weights {
        let source = self.transformer_source.read().unwrap_or_else(PoisonError::into_inner);
        self.weights(&source, self.placement.dtype())
    }

    /// Fails unless all tensors of the large networks are there and have the right shapes, which files
    /// tell at once: reading them may take minutes.
    fn try_parts(&self) -> Result<()> {
        let weights = self.transformer_weights().trial();
        let config = &self.transformer_config;
        let transformer = || {
            QwenImageTransformer::load(config, &weights.root(), Keep::All)?;
            Modulation::expect(config, &weights.root())?;
            weights.check_all_taken(|name| QwenImageTransformer::is_unused(config, name))
        };
        transformer().context("part", TRANSFORMER)?;
        let weights = self.text_weights().trial();
        let text = || {
            self.load_text_encoder(&weights, Keep::All, Keep::All)?;
            weights.check_all_taken(qwen2_5_vl::is_unused)
        };
        text().context("part", TEXT_ENCODER)
    }

    /// The transformer, loaded if it is not there.
    pub(super) fn transformer(&self, room: &Room) -> Result<Arc<QwenImageTransformer>> {
        self.transformer.get(|| {
            let weights = self.transformer_weights();
            QwenImageTransformer::load(&self.transformer_config, &weights.root(), room.transformer)
                .context("part", TRANSFORMER)
        })
    }

    /// The text encoder and its vision part, loaded if they are not there.
    pub(super) fn text_encoder(&self, room: &Room) -> Result<Arc<TextEncoder>> {
        self.text.get(|| {
            self.load_text_encoder(&self.text_weights(), room.language, room.vision)
                .context("part", TEXT_ENCODER)
        })
    }

    fn load_text_encoder(
        &self,
        weights: &Weights,
        of_language: Keep,
        of_vision: Keep,
    ) -> Result<TextEncoder> {
        let config = &self.text_config;
        Ok(TextEncoder {
            vision: VisionTower::load(&config.vision, &weights.root(), of_vision)?,
            language: LanguageModel::load(&config.text, &weights.root(), of_language)?,
        })
    }

    fn text_weights(&self) -> Weights {
        self.weights(&self.text_source, self.placement.dtype())
    }

    /// The autoencoder. It is small, and its errors would be seen, so it is in `f32` always.
    pub(super) fn vae(&self) -> Result<Arc<QwenImageVae>> {
        self.vae.get(|| {
            let weights = self.weights(&self.vae_source, DType::F32);
            let network =
                QwenImageVae::load(&self.vae_config, &weights.root()).context("part", VAE)?;
            weights.check_all_taken(QwenImageVae::is_unused).context("part", VAE)?;
            Ok(network)
        })
    }
}

/// Where the model runs. Left to us, a transformer that is stored in 32 bits runs in 32 bits, and
/// everything else in bf16, as the reference does: activations of the published ones overflow f16.
fn place(options: &LoadOptions, transformer: &dyn Source) -> Result<Placement> {
    let precision = match options.precision {
        Precision::F16 => {
            return Err(Error::unsupported(
                "values of this model overflow f16; use bf16, f32 or auto",
            )
            .with("field", "precision"));
        }
        Precision::Auto => match transformer.stored(LARGE_LAYER) {
            Some(DType::F32) => Precision::F32,
            _ => Precision::Bf16,
        },
        named => named,
    };
    Placement::resolve(options.device, precision)
}

/// Reads a text file of the folder.
fn read<T>(dir: &ModelDir, file: &str, parse: impl FnOnce(&str) -> Result<T>) -> Result<T> {
    parse(&dir.text(file)?).map_err(|error| error.with("file", dir.origin(file)))
}

fn value(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|e| Error::model_invalid(format!("not JSON: {e}")))
}

/// Fails unless the parts fit each other.
fn check_sizes(
    transformer: &TransformerConfig,
    text: &VlConfig,
    vae: &VaeConfig,
    vision: &VisionInput,
) -> Result<()> {
    let tower = &text.vision;
    for (what, found, expected) in [
        (
            "`joint_attention_dim` of the transformer and `hidden_size` of the text encoder",
            transformer.joint_attention_dim,
            text.text.hidden_size,
        ),
        (
            "`in_channels` of the transformer and 4 `z_dim` of the vae",
            transformer.in_channels,
            4 * vae.z_dim,
        ),
        (
            "the transformer's outputs and 4 `z_dim` of the vae",
            transformer.outputs(),
            4 * vae.z_dim,
        ),
        ("`input_channels` of the vae, and colours", vae.input_channels, 3),
        ("`in_channels` of the vision part, and colours", tower.in_channels, 3),
        (
            "`patch_size` of the processor and of the text encoder",
            vision.patch_size,
            tower.patch_size,
        ),
        (
            "`merge_size` of the processor and `spatial_merge_size` of the text encoder",
            vision.merge_size,
            tower.spatial_merge_size,
        ),
        (
            "`temporal_patch_size` of the processor and of the text encoder",
            vision.temporal_patch_size,
            tower.temporal_patch_size,
        ),
    ] {
        if found != expected {
            return Err(Error::model_invalid(format!(
                "parts that do not fit: {what} are {found} and {expected}"
            )));
        }
    }
    Ok(())
}
