//! Pictures out of prompts: SDXL, sampled as Fooocus does.

mod denoiser;
mod load;
mod options;
mod parts;
pub(crate) mod prompt;
mod recipe;
mod run;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};

pub(crate) use options::{GenerateOptions, GenerateRequest, SizeGuidance};

use crate::control::Control;
use crate::device::Placement;
use crate::error::Result;
use crate::models::sdxl::{AutoencoderKl, UNet};
use crate::pixels::Image;
use crate::schedule::Prediction;

/// A picture that was generated.
#[derive(Clone, Debug)]
pub(crate) struct Generated {
    /// The picture.
    pub(crate) image: Image,
    /// Its values before they were rounded to 8 bits: rows of pixels of red, green and blue, from 0
    /// to 1. Only with [`GenerateOptions::keep_values`].
    pub(crate) values: Option<Arc<[f32]>>,
    /// The number of the request that it belongs to.
    pub(crate) request: usize,
    /// Which of the request's variants it is.
    pub(crate) variant: usize,
    /// The seed that gives this picture again, as the first variant.
    pub(crate) seed: u64,
}

/// A loaded model that generates. Cloning shares it. Calls from several threads are answered one after the
/// other: a batch is how many pictures are made at once.
#[derive(Clone)]
pub(crate) struct GeneratePipeline(Arc<Model>);

struct Model {
    texts: prompt::encode::TextEncoders,
    unet: UNet,
    vae: AutoencoderKl,
    prediction: Prediction,
    placement: Placement,
    batch_size: usize,
    /// Held while a batch is worked on.
    running: Mutex<()>,
}

impl GeneratePipeline {
    /// Many pictures at once: `options.n` for each request, first all variants of the first one. One that
    /// fails costs no other its picture, and each is what it would be alone.
    ///
    /// After a cancel, pictures that were not made are errors of kind
    /// [`Cancelled`](crate::ErrorKind::Cancelled).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if an option means nothing.
    pub(crate) fn generate_batch(
        &self,
        requests: &[GenerateRequest],
        options: &GenerateOptions,
        control: &Control,
    ) -> Result<Vec<Result<Generated>>> {
        run::run(&self.0, requests, options, control)
    }
}
