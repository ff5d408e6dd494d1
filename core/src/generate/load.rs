//! From a model's files to networks that are ready to run.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use candle_core::DType;

use super::metadata::ModelSource;
use super::networks::{Networks, network};
use super::parts::{PUBLISHED, Parts, SIZES};
use super::refiner::Refiner;
use super::room::Memory;
use super::upscale::Upscaler;
use super::{Model, demo};
use crate::device::{Placement, Precision};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::hub;
use crate::models::clip::ClipTextConfig;
use crate::models::sdxl::{AddedConfig, AutoencoderKl};
use crate::nn::Keep;
use crate::options::LoadOptions;
use crate::weights::{ModelDir, SingleFile, Source, Weights};

/// A layer whose type is that of the file: small ones may be stored in more bits.
const LARGE_LAYER: &str = "mid_block.resnets.0.conv1.weight";

/// Loads the demo model, a folder or a file.
pub(super) fn load(model: &str, options: &LoadOptions) -> Result<Model> {
    let parts = match Path::new(model) {
        _ if model == hub::DEMO => {
            hub::embedded(demo::FILES).and_then(|dir| Parts::of_folder(&dir))
        }
        file if file.is_file() => Parts::of_file(file, &PUBLISHED),
        dir if dir.is_dir() => Parts::of_folder(&ModelDir::Disk(dir.to_owned())),
        _ => Err(Error::new(
            ErrorKind::ModelNotFound,
            "there is no such folder or file; models that generate are not downloaded",
        )),
    };
    parts.and_then(|parts| Model::new(parts, options)).context("model", model)
}

impl Model {
    pub(super) fn new(parts: Parts, options: &LoadOptions) -> Result<Self> {
        options.check()?;
        for (field, is_set) in [
            ("transformer", options.transformer.is_some()),
            ("text_encoder", options.text_encoder.is_some()),
        ] {
            if is_set {
                let message = "the option is not there for models that generate";
                return Err(Error::unsupported(message).with("field", field));
            }
        }
        let Parts { source, tokenizer, small, large, unet, mut vae, prediction, training } = parts;
        if let Some(file) = &options.vae {
            vae.source = other_vae(file).context("vae", file.display())?;
        }
        let placement = place(options, &*unet.source)?;
        let unet_config = unet.config.clone();
        let text_configs = [small.config.clone(), large.config.clone()];
        let [(of_small, _), (of_large, vector)] =
            text_configs.each_ref().map(ClipTextConfig::widths);
        let states = of_small + of_large;
        let networks = Networks::new(tokenizer, small, large, unet, placement.clone());
        let told = |added: &AddedConfig| added.input_dim == vector + SIZES * added.time_dim;
        let config = &unet_config;
        let fits = config.cross_attention_dim == states
            && config.added.as_ref().is_some_and(told)
            && config.in_channels == vae.config.latent_channels;
        if !fits {
            let message =
                "the sizes of text encoders, network and autoencoder do not fit each other";
            return Err(Error::model_invalid(message));
        }
        let engine = match (&options.inpaint_head, &options.inpaint_patch) {
            (Some(head), Some(patch)) => Some((&**head, &**patch)),
            (None, None) => None,
            (head, _) => {
                let missing = if head.is_none() { "inpaint_head" } else { "inpaint_patch" };
                let message =
                    "the inpaint engine needs its head and its patch, of which one is not given";
                return Err(Error::invalid_input(message).with("field", missing));
            }
        };
        networks.set_inpaint(engine, &Mutex::default())?;
        let channels = vae.config.latent_channels;
        let widths = (states, of_large, vector);
        let refiner = options.refiner.as_deref();
        let refiner = refiner.map(|path| Refiner::open(path, widths, channels)).transpose()?;
        let upscaler = options.upscaler.as_deref();
        let upscaler = upscaler.map(|file| Upscaler::load(file, &placement)).transpose()?;
        let memory = Memory::new(
            options.max_memory,
            &placement,
            (networks.bytes(), (&text_configs, &unet_config)),
            refiner.as_ref().map(|refiner| refiner.network.part()),
            upscaler.as_ref(),
            (&vae.config, &*vae.source),
        );
        // Everything that is wrong with the files is found now.
        if memory.room_to_load(engine.is_some())?.is_for_all() {
            networks.texts()?;
            networks.unet()?;
            refiner.as_ref().map(|refiner| refiner.unet(&placement)).transpose()?;
        } else {
            networks.check()?;
            refiner.as_ref().map(|refiner| refiner.check(&placement)).transpose()?;
        }
        let weights = Weights::new(Arc::clone(&vae.source), placement.candle(), DType::F32);
        let vae =
            network(&weights, "vae", Keep::All, |scope| AutoencoderKl::load(&vae.config, scope));
        let vae = match &options.vae {
            Some(file) => vae.context("vae", file.display())?,
            None => vae?,
        };
        let batch_size = options.batch_size.unwrap_or(usize::MAX);
        let (colours, running) = (OnceLock::new(), Mutex::default());
        let mut decode = options.decode.clone();
        decode.apply_orientation.get_or_insert(true);
        Ok(Self {
            source,
            vae_source: options.vae.as_deref().map(ModelSource::of),
            networks,
            memory,
            refiner,
            upscaler,
            vae,
            prediction,
            training,
            decode,
            placement,
            colours,
            batch_size,
            running,
        })
    }
}

/// The tensors of another autoencoder. A file says little of itself, so the model's own configuration holds for it, too.
fn other_vae(file: &Path) -> Result<Arc<dyn Source>> {
    match file.is_file() {
        true => SingleFile::open(file)?.autoencoder(),
        false => Err(Error::new(ErrorKind::ModelNotFound, "there is no such file")),
    }
}

fn place(options: &LoadOptions, unet: &dyn Source) -> Result<Placement> {
    let precision = match options.precision {
        Precision::F16 => {
            let message = "values of this model overflow f16; use bf16, f32 or auto";
            return Err(Error::unsupported(message).with("field", "precision"));
        }
        Precision::Auto => match unet.stored(LARGE_LAYER) {
            Some(DType::F32) => Precision::F32,
            _ => Precision::Bf16,
        },
        named => named,
    };
    Placement::resolve(options.device, precision)
}

#[cfg(test)]
mod tests;
