//! Pictures out of prompts: SDXL, sampled as Fooocus does.

mod aspect;
mod condition;
mod demo;
mod denoiser;
mod find;
mod inpaint;
mod load;
mod make;
mod metadata;
mod networks;
mod options;
mod parts;
mod performance;
mod prepare;
mod prompt;
mod recipe;
mod refiner;
mod room;
mod run;
mod sample;
mod sharpen;
#[cfg(test)]
mod small_model;
#[cfg(test)]
mod tests;
mod upscale;
mod vary;

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

pub use aspect::{ASPECT_RATIOS, parse_aspect_ratio};
pub use metadata::MetadataScheme;
pub use options::{GenerateOptions, GenerateRequest, Outpaint, SizeGuidance, Unstyled};
pub use performance::Performance;
pub use prepare::{PrepareOptions, Prepared, Prompter};
pub use refiner::RefinerSwap;
pub use upscale::Upscale;
pub use vary::Vary;

use crate::control::Control;
use crate::device::Placement;
use crate::diffusion::LatentColours;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::models::sdxl::AutoencoderKl;
use crate::options::{LoadOptions, Lora};
use crate::pixels::{DecodeOptions, Image};
use crate::schedule::Prediction;

/// A picture that was generated.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Generated {
    /// The picture.
    pub image: Image,
    /// Its values before they were rounded to 8 bits: rows of pixels of red, green and blue, from 0
    /// to 1. Only with [`GenerateOptions::keep_values`].
    pub values: Option<Arc<[f32]>>,
    /// The number of the request that it belongs to.
    pub request: usize,
    /// Which of the request's variants it is.
    pub variant: usize,
    /// The seed that gives this picture again, as the first variant.
    pub seed: u64,
    /// What a user should know about how it was made, where it was made in another way than may be expected: without a
    /// network that would be needed, or without denoising. Mostly empty.
    pub notes: Vec<String>,
    /// What metadata are made of; nothing where nothing was generated.
    recipe: Option<Arc<metadata::Recipe>>,
}

/// A loaded model that generates. Cloning shares it. Calls from several threads are answered one after the
/// other: a batch is how many pictures are made at once.
#[derive(Clone)]
pub struct GeneratePipeline(Arc<Model>);

struct Model {
    source: metadata::ModelSource,
    /// Of an autoencoder that is not the model's own.
    vae_source: Option<metadata::ModelSource>,
    networks: networks::Networks,
    memory: room::Memory,
    refiner: Option<refiner::Refiner>,
    upscaler: Option<upscale::Upscaler>,
    vae: AutoencoderKl,
    prediction: Prediction,
    training: recipe::Training,
    decode: DecodeOptions,
    placement: Placement,
    /// Of previews, once one was asked for.
    colours: OnceLock<LatentColours>,
    batch_size: usize,
    /// Held while a batch is worked on.
    running: Mutex<()>,
}

impl GeneratePipeline {
    /// Loads a model: `"demo"`, a folder as diffusers publishes SDXL, or a checkpoint of SDXL in one
    /// safetensors file.
    ///
    /// Left to us, a network that is stored in 32 bits runs in 32 bits, and everything else in bf16. The
    /// autoencoder, whose errors would be seen, is in `f32` always. [`LoadOptions::vae`] is another one in place of
    /// the model's own.
    ///
    /// With [`LoadOptions::max_memory`], networks that do not fit together are in memory in turn, and layers that do not
    /// fit are read again in every step.
    ///
    /// # Errors
    /// [`ModelNotFound`](ErrorKind::ModelNotFound) if there is no such file or folder, or a file of it is
    /// missing, [`ModelInvalid`](ErrorKind::ModelInvalid) if its files are damaged or do not fit each
    /// other, [`Unsupported`](ErrorKind::Unsupported) if it is a model of another kind or an option has no
    /// meaning for it, [`OutOfMemory`](ErrorKind::OutOfMemory) if it cannot run in the memory that the options allow, and
    /// those of [`Placement::resolve`].
    pub fn load(model: &str, options: &LoadOptions) -> Result<Self> {
        Ok(Self(Arc::new(load::load(model, options)?)))
    }

    /// The variants of one prompt.
    ///
    /// # Errors
    /// As [`generate_batch`](Self::generate_batch); also those of the first picture that failed.
    pub fn generate(
        &self,
        request: &GenerateRequest,
        options: &GenerateOptions,
    ) -> Result<Vec<Generated>> {
        let outputs =
            self.generate_batch(std::slice::from_ref(request), options, &Control::default())?;
        outputs.into_iter().collect()
    }

    /// Many pictures at once: `options.n` for each request, first all variants of the first one. One that
    /// fails costs no other its picture, and each is what it would be alone.
    ///
    /// After a cancel, pictures that were not made are errors of kind
    /// [`Cancelled`](ErrorKind::Cancelled); those for which [`LoadOptions::max_memory`] has no room, of kind
    /// [`OutOfMemory`](ErrorKind::OutOfMemory).
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if an option means nothing, and
    /// [`ModelNotFound`](ErrorKind::ModelNotFound) if a [`Performance`] needs a LoRA file that is not applied.
    pub fn generate_batch(
        &self,
        requests: &[GenerateRequest],
        options: &GenerateOptions,
        control: &Control,
    ) -> Result<Vec<Result<Generated>>> {
        let mut outputs = Vec::with_capacity(requests.len() * options.n.min(16));
        self.generate_each(requests, options, control, |_, output| outputs.push(output))?;
        Ok(outputs)
    }

    /// As [`generate_batch`](Self::generate_batch), with each picture given to `sink` as soon as it and
    /// all before it are there. Its number comes first: `request * n + variant`.
    ///
    /// # Errors
    /// As [`generate_batch`](Self::generate_batch).
    pub fn generate_each(
        &self,
        requests: &[GenerateRequest],
        options: &GenerateOptions,
        control: &Control,
        mut sink: impl FnMut(usize, Result<Generated>),
    ) -> Result<()> {
        run::run(&self.0, requests, options, control, &mut sink)
    }

    /// Applies LoRA files to the model, in place of those that were applied before; an empty list gives the
    /// model back as it was, to the last bit. Clones share them. Files for the denoising network, for either
    /// text encoder and for several of them are read, in the keys of kohya, peft, diffusers, ComfyUI and
    /// latent diffusion, with changes to linear layers and convolutions: LoRA, LoCon, LoHa and LoKr.
    ///
    /// With a [refiner](LoadOptions::refiner), a file is for the network, for the refiner or for both: whichever has all
    /// layers that it changes, in their shapes, takes it. Another SDXL as a refiner takes what the network takes; SDXL's own
    /// refiner has layers of other shapes, and stays as it is.
    ///
    /// Networks that are concerned are read again for the next picture.
    ///
    /// # Errors
    /// [`ModelNotFound`](ErrorKind::ModelNotFound) if there is no such file,
    /// [`ModelInvalid`](ErrorKind::ModelInvalid) or [`Unsupported`](ErrorKind::Unsupported) if a key of
    /// it does not fit the model; what was applied before stays then.
    pub fn set_loras(&self, loras: &[Lora]) -> Result<()> {
        self.0.networks.set_loras(loras, self.0.refiner.as_ref(), &self.0.running)
    }

    /// Takes the files of Fooocus' inpaint engine, its head and its patch ([`LoadOptions::inpaint_head`]), in place of
    /// those before, or none. Clones share it. Parts of pictures are made anew with them; without, the network sees the
    /// picture around the mask only.
    ///
    /// The network is read a second time, with the patch, for the next picture of which a part is made.
    ///
    /// # Errors
    /// [`ModelNotFound`](ErrorKind::ModelNotFound) if there is no such file, [`ModelInvalid`](ErrorKind::ModelInvalid) or
    /// [`Unsupported`](ErrorKind::Unsupported) if it does not fit the model; what was there before stays then.
    pub fn set_inpaint_engine(&self, files: Option<(&Path, &Path)>) -> Result<()> {
        self.0.networks.set_inpaint(files, &self.0.running)
    }

    /// Whether there is an inpaint engine.
    pub fn has_inpaint_engine(&self) -> bool {
        self.0.networks.has_inpaint()
    }

    /// Width and height of pictures whose size is not asked for.
    pub fn default_size(&self) -> (usize, usize) {
        self.0.training.size
    }

    /// The styles that go with the model unless others are named, where it has some of its own: the demo model has
    /// none, as it knows no such words. `None` leaves it to the user, who may want those that Fooocus takes.
    pub fn default_styles(&self) -> Option<&[String]> {
        self.0.training.styles.as_deref()
    }

    /// Whether fast ways of sampling need the LoRA file that [`Performance::lora`] names: not where the model itself
    /// makes pictures in few steps, as the demo model does.
    pub fn needs_performance_loras(&self) -> bool {
        !self.0.training.few_steps
    }

    /// Whether there is a network that makes pictures larger; without one they are resampled.
    pub fn has_upscaler(&self) -> bool {
        self.0.upscaler.is_some()
    }

    /// Where the model runs, and in which number format.
    pub fn placement(&self) -> &Placement {
        &self.0.placement
    }
}

impl std::fmt::Debug for GeneratePipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GeneratePipeline(SDXL on {})", self.0.placement)
    }
}
