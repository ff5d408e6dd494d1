//! Editing pictures by instruction: Qwen-Image-Edit and its successors.

mod demo;
mod denoiser;
mod encode;
mod load;
mod prepare;
mod prompt;
mod recipe;
mod request;
mod room;
mod run;
#[cfg(test)]
mod tests;
mod vision;

use std::sync::{Arc, Mutex, RwLock};

pub use request::{EditOptions, EditRequest, NegativePrompt, OutputSize, Preset};

use crate::control::Control;
use crate::device::Placement;
use crate::diffusion::memory::Bytes;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::models::qwen_image::{QwenImageTransformer, QwenImageVae, TransformerConfig, VaeConfig};
use crate::models::qwen2_5_vl::VlConfig;
use crate::options::{LoadOptions, Lora};
use crate::pixels::{DecodeOptions, Image};
use crate::schedule::FlowMatchEuler;
use crate::weights::{Slot, Source};

/// A picture that an edit made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Edited {
    /// The picture.
    pub image: Image,
    /// Its values before they were rounded to 8 bits: rows of pixels of red, green and blue, from 0
    /// to 1. Only with [`EditOptions::keep_values`].
    pub values: Option<Arc<[f32]>>,
    /// The number of the request that it belongs to.
    pub request: usize,
    /// Which of the request's variants it is.
    pub variant: usize,
    /// The seed that gives this picture again, as the first variant.
    pub seed: u64,
}

/// A loaded edit model. Cloning shares it. Calls from several threads are answered one after the
/// other: a batch is how many edits are made at once.
///
/// A [request](EditRequest) is one edit; its pictures are references of one output. A slice of
/// requests is a batch: they go through denoising together, whatever their sizes, numbers of
/// references and prompts are, and each output is what the request would give alone.
#[derive(Clone)]
pub struct EditPipeline {
    model: Arc<Model>,
}

/// Everything that loading finds out, and the networks.
struct Model {
    recipe: recipe::Recipe,
    scheduler: FlowMatchEuler,
    vision: vision::VisionInput,
    prompts: prompt::PromptEncoder,
    decode: DecodeOptions,
    placement: Placement,
    /// What sides of outputs are multiples of: two latents.
    grid: usize,
    transformer_config: TransformerConfig,
    text_config: VlConfig,
    vae_config: VaeConfig,
    transformer_base: Arc<dyn Source>,
    /// The same with the LoRAs that are in use.
    transformer_source: RwLock<Arc<dyn Source>>,
    text_source: Arc<dyn Source>,
    vae_source: Arc<dyn Source>,
    bytes_of_transformer: Bytes,
    bytes_of_language: Bytes,
    bytes_of_vision: Bytes,
    bytes_of_vae: u64,
    transformer: Slot<QwenImageTransformer>,
    text: Slot<load::TextEncoder>,
    vae: Slot<QwenImageVae>,
    modulations: run::Modulations,
    colours: Slot<crate::diffusion::LatentColours>,
    max_memory: Option<u64>,
    batch_size: usize,
    /// Held while a batch is worked on; what the networks were loaded for.
    running: Mutex<Option<room::Room>>,
}

impl EditPipeline {
    /// Loads a model: `"demo"`, a folder as published, or the id or alias of a published model.
    ///
    /// # Errors
    /// [`ModelNotFound`](ErrorKind::ModelNotFound) if there is no such model or a file of it is
    /// missing, [`ModelInvalid`](ErrorKind::ModelInvalid) if its files are damaged or do not fit each
    /// other, [`Unsupported`](ErrorKind::Unsupported) if it is a model of another kind,
    /// [`OutOfMemory`](ErrorKind::OutOfMemory) if it cannot run in the memory that the options allow,
    /// and those of [`Placement::resolve`].
    pub fn load(model: &str, options: &LoadOptions) -> Result<Self> {
        Ok(Self { model: Arc::new(load::load(model, options)?) })
    }

    /// The variants of one edit.
    ///
    /// # Errors
    /// As [`edit_batch`](Self::edit_batch); also those of the first output that failed.
    pub fn edit(&self, request: &EditRequest, options: &EditOptions) -> Result<Vec<Edited>> {
        let outputs =
            self.edit_batch(std::slice::from_ref(request), options, &Control::default())?;
        outputs.into_iter().collect()
    }

    /// Many edits at once: `options.n` outputs for each request, first all variants of the first
    /// request. One that fails costs no other its output.
    ///
    /// After a cancel, outputs that were not made are errors of kind
    /// [`Cancelled`](ErrorKind::Cancelled).
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if an option means nothing.
    pub fn edit_batch(
        &self,
        requests: &[EditRequest],
        options: &EditOptions,
        control: &Control,
    ) -> Result<Vec<Result<Edited>>> {
        let mut outputs = Vec::with_capacity(requests.len() * options.n.min(16));
        self.edit_each(requests, options, control, |_, output| outputs.push(output))?;
        Ok(outputs)
    }

    /// As [`edit_batch`](Self::edit_batch), with each output given to `sink` as soon as it and all
    /// before it are there. Its number comes first: `request * n + variant`.
    ///
    /// # Errors
    /// As [`edit_batch`](Self::edit_batch).
    pub fn edit_each(
        &self,
        requests: &[EditRequest],
        options: &EditOptions,
        control: &Control,
        mut sink: impl FnMut(usize, Result<Edited>),
    ) -> Result<()> {
        run::run(&self.model, requests, options, control, &mut sink)
    }

    /// Whether these requests and options mean something to this model, without any work: what they
    /// ask for is checked, and pictures are not looked at.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for the first option or request that means nothing.
    pub fn check(&self, requests: &[EditRequest], options: &EditOptions) -> Result<()> {
        options.resolve(&self.model.recipe, self.model.grid)?;
        requests
            .iter()
            .enumerate()
            .try_for_each(|(i, request)| request.check().map_err(|error| error.with("request", i)))
    }

    /// Applies LoRA files to the transformer, in place of those that were applied before; an empty
    /// list gives the model back as it was, to the last bit. Clones share them. Files of the usual
    /// key formats are read: those of peft, kohya and ComfyUI.
    ///
    /// The transformer is read again for the next edit.
    ///
    /// # Errors
    /// [`ModelNotFound`](ErrorKind::ModelNotFound) if there is no such file,
    /// [`ModelInvalid`](ErrorKind::ModelInvalid) or [`Unsupported`](ErrorKind::Unsupported) if a key of
    /// it does not fit the model; what was applied before stays then.
    pub fn set_loras(&self, loras: &[Lora]) -> Result<()> {
        self.model.set_loras(loras)
    }

    /// Where the model runs, and in which number format.
    pub fn placement(&self) -> &Placement {
        &self.model.placement
    }

    /// Steps of denoising unless something else is asked for.
    pub fn default_steps(&self) -> usize {
        self.model.recipe.steps
    }

    /// Pixels of outputs unless a size is asked for.
    pub fn default_area(&self) -> usize {
        self.model.recipe.area
    }

    /// The scale of guidance unless something else is asked for.
    pub fn default_true_cfg_scale(&self) -> f32 {
        self.model.recipe.true_cfg_scale
    }
}

impl std::fmt::Debug for EditPipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EditPipeline({:?} on {})", self.model.recipe.template, self.model.placement)
    }
}
