//! Checkpoints of SDXL and of Stable Diffusion 1 as one file, as Stability's code writes them and as
//! most are published: denoising network, autoencoder and text encoders under one roof.
//!
//! Each component is handed out as a source of its own, under the names of diffusers and transformers.

mod ldm;
mod reverse;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

pub(crate) use self::reverse::UNetNames;
use super::checkpoint::Source;
use super::open::{self, FileFormat};
use super::renamed::{Name, Renamed};
use crate::error::{Error, Result};

/// A name that autoencoders have in the files of diffusers, and in no others.
const DIFFUSERS_VAE: &str = "decoder.conv_norm_out.weight";

/// A part of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Component {
    /// The denoising network, `UNet2DConditionModel`.
    UNet,
    /// The autoencoder, `AutoencoderKL`.
    Vae,
    /// The first text encoder, `CLIPTextModel`.
    TextEncoder,
    /// The second text encoder, `CLIPTextModelWithProjection`, which is the refiner's only one.
    TextEncoder2,
}

impl Component {
    /// What files put before its names, and a name that it has behind each.
    fn places(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::UNet => {
                (&["model.diffusion_model.", "diffusion_model.", ""], "input_blocks.0.0.weight")
            }
            Self::Vae => (&["first_stage_model.", "vae.", ""], "decoder.norm_out.weight"),
            Self::TextEncoder => (
                &["conditioner.embedders.0.transformer.", "cond_stage_model.transformer."],
                "embeddings.token_embedding.weight",
            ),
            Self::TextEncoder2 => (
                &["conditioner.embedders.1.model.", "conditioner.embedders.0.model."],
                "token_embedding.weight",
            ),
        }
    }
}

/// An open checkpoint.
pub(crate) struct SingleFile {
    source: Arc<dyn Source>,
    names: Vec<String>,
    origin: String,
}

impl SingleFile {
    /// Opens a safetensors file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let opened = open::open(path)?;
        let origin = path.display().to_string();
        if opened.format != FileFormat::SafeTensors {
            return Err(Error::unsupported("checkpoints are read from safetensors files only")
                .with("file", origin));
        }
        Ok(Self { names: opened.source.names(), source: opened.source, origin })
    }

    /// The autoencoder: among other components or alone, under the names of Stability's code or, alone, under those of
    /// diffusers.
    ///
    /// # Errors
    /// [`ModelInvalid`](crate::ErrorKind::ModelInvalid) if the file has none.
    pub(crate) fn autoencoder(&self) -> Result<Arc<dyn Source>> {
        match self.has_tensor(DIFFUSERS_VAE) {
            true => Ok(Arc::clone(&self.source)),
            false => self.component(Component::Vae),
        }
    }

    /// Whether the file has the component.
    pub(crate) fn has(&self, component: Component) -> bool {
        self.prefix(component).is_some()
    }

    /// Whether the file has a tensor of this name, in whatever component.
    pub(crate) fn has_tensor(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    /// The tensors of a component, and no others.
    ///
    /// # Errors
    /// [`ModelInvalid`](crate::ErrorKind::ModelInvalid) if the file has no such component.
    pub(crate) fn component(&self, component: Component) -> Result<Arc<dyn Source>> {
        let prefix = self.prefix(component).ok_or_else(|| {
            let listed: Vec<_> = self.names.iter().take(5).map(String::as_str).collect();
            Error::model_invalid(format!(
                "the file has no {component:?} under the names of Stability's code; it starts with {}",
                listed.join(", ")
            ))
            .with("file", &self.origin)
        })?;
        let names = || self.names.iter().filter_map(|name| name.strip_prefix(prefix));
        let rename: Box<dyn Fn(&str) -> Name> = match component {
            Component::UNet => {
                let unet = ldm::UNet::new(names());
                Box::new(move |name| unet.rename(name))
            }
            Component::Vae => {
                let vae = ldm::Vae::new(names());
                Box::new(move |name| vae.rename(name))
            }
            Component::TextEncoder => Box::new(ldm::clip),
            Component::TextEncoder2 => Box::new(ldm::open_clip),
        };
        let renamed = Renamed::new(Arc::clone(&self.source), |name| {
            let Some(name) = name.strip_prefix(prefix) else { return Name::Hidden };
            match rename(name) {
                Name::Kept => Name::Now(name.to_owned()),
                other => other,
            }
        })?;
        Ok(Arc::new(renamed))
    }

    fn prefix(&self, component: Component) -> Option<&'static str> {
        let (prefixes, sign) = component.places();
        let is_there = |prefix: &&&str| {
            let below = |name: &String| {
                name.strip_prefix(**prefix).is_some_and(|name| match component {
                    // Older files have no `text_model` in between.
                    Component::TextEncoder => {
                        name.strip_prefix("text_model.").unwrap_or(name) == sign
                    }
                    _ => name == sign,
                })
            };
            self.names.iter().any(below)
        };
        prefixes.iter().find(is_there).copied()
    }
}
