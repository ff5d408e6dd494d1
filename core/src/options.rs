//! How models are loaded, whatever they are for.

mod lora;

use std::path::PathBuf;

pub use self::lora::Lora;
use crate::device::{Device, Precision};
use crate::error::{Error, Result};
use crate::kernels::cpu::cpu_kernels;
use crate::pixels::DecodeOptions;

/// How a model is loaded.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LoadOptions {
    /// Where it runs; the best device of this machine unless set.
    pub device: Device,
    /// In which number format it runs.
    pub precision: Precision,
    /// Never use the network: an id must be in a local cache already.
    pub offline: bool,
    /// Where downloaded models are kept; the user's cache folder unless set.
    pub cache_dir: Option<PathBuf>,
    /// How picture files are decoded.
    pub decode: DecodeOptions,
    /// Pictures in one batch: for a tagger chosen by the input's size unless set, for an edit model
    /// by the number of tokens.
    pub batch_size: Option<usize>,
    /// Most bytes of memory that the process may take for a model that edits or generates, its pictures
    /// included. If the networks do not fit together, each makes room for the next; blocks that do not fit
    /// are read from their files again in every step. Without it all networks stay in memory.
    pub max_memory: Option<u64>,
    /// A file with the denoising transformer of an edit model, in place of the folder's: safetensors
    /// in the names of diffusers or ComfyUI, or GGUF.
    pub transformer: Option<PathBuf>,
    /// As `transformer`, for the text encoder: safetensors.
    pub text_encoder: Option<PathBuf>,
    /// A file with another autoencoder, in place of the model's own: safetensors. Of an edit model, in the names of
    /// diffusers or Wan; of a model that generates, in those of diffusers or of Stability's code, or a whole checkpoint.
    pub vae: Option<PathBuf>,
    /// For a model that generates, a second network that goes on where the first one stops: a folder of
    /// diffusers or a checkpoint in one safetensors file, of SDXL or its refiner.
    pub refiner: Option<PathBuf>,
    /// For a model that generates, a network that makes pictures larger: a file of ESRGAN's kind (RRDBNet), as
    /// safetensors or as a checkpoint of PyTorch, which is laid out without being run.
    pub upscaler: Option<PathBuf>,
    /// For a model that generates, the head of Fooocus' inpaint engine (`fooocus_inpaint_head.pth`), which tells the
    /// network what is around the part of a picture that is made anew. With `inpaint_patch` only.
    pub inpaint_head: Option<PathBuf>,
    /// The patch of Fooocus' inpaint engine (`inpaint_v26.fooocus.patch`, or of another version), which changes the
    /// network for parts of pictures. With `inpaint_head` only.
    pub inpaint_patch: Option<PathBuf>,
}

impl LoadOptions {
    /// The same options with another device.
    #[must_use]
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// The same options with another precision.
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The same options, using the network or not.
    #[must_use]
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// The same options with another folder for downloaded models.
    #[must_use]
    pub fn cache_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cache_dir = Some(dir.into());
        self
    }

    /// The same options with other decoding.
    #[must_use]
    pub fn decode(mut self, decode: DecodeOptions) -> Self {
        self.decode = decode;
        self
    }

    /// The same options with another batch size.
    #[must_use]
    pub fn batch_size(mut self, pictures: usize) -> Self {
        self.batch_size = Some(pictures);
        self
    }

    /// The same options with a bound on memory, in bytes.
    #[must_use]
    pub fn max_memory(mut self, bytes: u64) -> Self {
        self.max_memory = Some(bytes);
        self
    }

    /// The same options with another file for the denoising transformer.
    #[must_use]
    pub fn transformer(mut self, file: impl Into<PathBuf>) -> Self {
        self.transformer = Some(file.into());
        self
    }

    /// The same options with another file for the text encoder.
    #[must_use]
    pub fn text_encoder(mut self, file: impl Into<PathBuf>) -> Self {
        self.text_encoder = Some(file.into());
        self
    }

    /// The same options with another file for the autoencoder.
    #[must_use]
    pub fn vae(mut self, file: impl Into<PathBuf>) -> Self {
        self.vae = Some(file.into());
        self
    }

    /// The same options with a refiner.
    #[must_use]
    pub fn refiner(mut self, model: impl Into<PathBuf>) -> Self {
        self.refiner = Some(model.into());
        self
    }

    /// The same options with a network that makes pictures larger.
    #[must_use]
    pub fn upscaler(mut self, file: impl Into<PathBuf>) -> Self {
        self.upscaler = Some(file.into());
        self
    }

    /// The same options with the files of Fooocus' inpaint engine.
    #[must_use]
    pub fn inpaint_engine(mut self, head: impl Into<PathBuf>, patch: impl Into<PathBuf>) -> Self {
        (self.inpaint_head, self.inpaint_patch) = (Some(head.into()), Some(patch.into()));
        self
    }

    /// Fails if an option means nothing for any model.
    pub(crate) fn check(&self) -> Result<()> {
        cpu_kernels()?; // A name in the environment that this machine cannot serve.
        match self.batch_size {
            Some(0) => Err(Error::invalid_input("the batch size is 0").with("field", "batch_size")),
            _ => Ok(()),
        }
    }

    /// Fails if an option is set that is about a model of several networks, and says why.
    pub(crate) fn refuse_parts(&self, why: &'static str) -> Result<()> {
        let set = [
            ("max_memory", self.max_memory.is_some()),
            ("transformer", self.transformer.is_some()),
            ("text_encoder", self.text_encoder.is_some()),
            ("vae", self.vae.is_some()),
            ("refiner", self.refiner.is_some()),
            ("upscaler", self.upscaler.is_some()),
            ("inpaint_head", self.inpaint_head.is_some()),
            ("inpaint_patch", self.inpaint_patch.is_some()),
        ];
        match set.iter().find(|(_, is_set)| *is_set) {
            Some((field, _)) => Err(Error::unsupported(why).with("field", field)),
            None => Ok(()),
        }
    }
}
