//! What the file of a picture says of how it was made, in the two notations of Fooocus.

mod a1111;
mod fooocus;
mod source;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

pub(super) use self::source::ModelSource;
use super::Generated;
use super::options::{GenerateOptions, GenerateRequest, Unstyled};
use super::prompt::lines::texts;
use crate::error::{Error, Result};
use crate::options::Lora;
use crate::pixels::{FileText, ImageFormat};

/// What metadata call the autoencoder of the model itself.
const OWN_VAE: &str = "Default (model)";

/// How a file says what its picture was made with. Both are read by Fooocus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetadataScheme {
    /// JSON, as Fooocus has it.
    Fooocus,
    /// Lines, as the web UI of AUTOMATIC1111 has them, with what Fooocus adds.
    A1111,
}

impl MetadataScheme {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fooocus => "fooocus",
            Self::A1111 => "a1111",
        }
    }
}

impl fmt::Display for MetadataScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for MetadataScheme {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "fooocus" => Ok(Self::Fooocus),
            "a1111" => Ok(Self::A1111),
            _ => {
                let message = format!("unknown metadata `{name}`; known: fooocus, a1111");
                Err(Error::invalid_input(message).with("field", "metadata"))
            }
        }
    }
}

/// What the pictures of a call have in common.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) model: ModelSource,
    pub(super) refiner: Option<ModelSource>,
    /// An autoencoder that is not the model's own.
    pub(super) vae: Option<ModelSource>,
    pub(super) loras: Vec<(ModelSource, f64)>,
    pub(super) options: GenerateOptions,
}

impl Setting {
    /// What metadata call the autoencoder.
    fn vae(&self) -> &str {
        self.vae.as_ref().map_or(OWN_VAE, |vae| &vae.name)
    }

    /// LoRA files as metadata name them.
    pub(super) fn loras(loras: Vec<Lora>) -> Vec<(ModelSource, f64)> {
        loras.into_iter().map(|lora| (ModelSource::of(&lora.file), lora.scale)).collect()
    }
}

/// How a picture was made.
#[derive(Debug)]
pub(super) struct Recipe {
    /// The texts of the prompt and of what is not to be seen, as they were encoded.
    full: [Vec<String>; 2],
    unstyled: Unstyled,
    setting: Arc<Setting>,
}

impl Recipe {
    pub(super) fn new(request: &GenerateRequest, setting: &Arc<Setting>) -> Self {
        let GenerateRequest { prompt, negative_prompt, as_is, unstyled, .. } = request;
        let as_given = || Unstyled {
            prompt: prompt.clone(),
            negative_prompt: negative_prompt.clone(),
            styles: Vec::new(),
        };
        Self {
            full: [prompt, negative_prompt].map(|prompt| texts(prompt, *as_is)),
            unstyled: unstyled.clone().unwrap_or_else(as_given),
            setting: Arc::clone(setting),
        }
    }
}

impl Generated {
    /// What a file says of how this picture was made: prompts, options, and the names and hashes of the model and of
    /// LoRA files, but not a picture that it was made from. A hash is the first ten digits of the file's SHA-256, for
    /// which the whole file is read when it is asked for the first time: some seconds for a large model. Models in
    /// folders, which are many files, have none. Empty where nothing was generated, as for a picture that was only made
    /// larger; files say nothing then.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) if a file of the model cannot be read any more.
    pub fn metadata(&self, scheme: MetadataScheme) -> Result<String> {
        let Some(recipe) = &self.recipe else { return Ok(String::new()) };
        match scheme {
            MetadataScheme::Fooocus => fooocus::text(self, recipe),
            MetadataScheme::A1111 => a1111::text(self, recipe),
        }
    }

    /// Encodes the picture, with metadata or without: in PNG as texts `parameters` and `fooocus_scheme`, in JPEG and
    /// WebP as EXIF (`UserComment`, `MakerNote` and `Software`).
    ///
    /// # Errors
    /// As [`Image::encode`](crate::Image::encode) and [`metadata`](Self::metadata);
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for metadata beyond the 64 KiB that a JPEG can have.
    pub fn encode(&self, format: ImageFormat, metadata: Option<MetadataScheme>) -> Result<Vec<u8>> {
        self.image.encode_with(format, self.file_text(metadata)?.as_ref())
    }

    /// Writes the picture to a file as [`Image::save`](crate::Image::save) does, with metadata or without.
    ///
    /// # Errors
    /// As [`Image::save`](crate::Image::save) and [`encode`](Self::encode).
    pub fn save(&self, path: impl AsRef<Path>, metadata: Option<MetadataScheme>) -> Result<()> {
        self.image.save_with(path.as_ref(), self.file_text(metadata)?.as_ref())
    }

    fn file_text(&self, scheme: Option<MetadataScheme>) -> Result<Option<FileText>> {
        let text = scheme.filter(|_| self.recipe.is_some()).map(|scheme| {
            let parameters = self.metadata(scheme)?;
            Ok(FileText { parameters, scheme: scheme.name(), software: software() })
        });
        text.transpose()
    }
}

/// The program and its version, as Fooocus writes its own.
fn software() -> String {
    format!("tagbrush v{}", env!("CARGO_PKG_VERSION"))
}

/// Numbers as Python writes a tuple of them.
fn tuple<T: fmt::Debug>(numbers: &[T]) -> String {
    let numbers: Vec<_> = numbers.iter().map(|number| format!("{number:?}")).collect();
    format!("({})", numbers.join(", "))
}

/// The value of an option that stands in metadata only if it is not the usual one.
struct Unusual {
    adaptive_guidance: Option<f32>,
    clip_skip: Option<usize>,
    freeu: Option<String>,
    refiner_swap: Option<String>,
}

impl Unusual {
    fn of(setting: &Setting) -> Self {
        let (found, usual) = (&setting.options, GenerateOptions::default());
        let swap = setting.refiner.as_ref().map(|_| found.refiner_swap);
        Self {
            adaptive_guidance: Some(found.adaptive_guidance)
                .filter(|scale| *scale != usual.adaptive_guidance),
            clip_skip: Some(found.clip_skip).filter(|layer| *layer > 1),
            freeu: found.freeu.map(|freeu| tuple(&[freeu.b1, freeu.b2, freeu.s1, freeu.s2])),
            refiner_swap: swap.filter(|s| *s != usual.refiner_swap).map(|s| s.to_string()),
        }
    }
}
