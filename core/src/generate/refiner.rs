//! A second network that goes on where the first one stops: the refiner of SDXL, or another network of SDXL.
//!
//! It reads what the model's text encoders say, as in Fooocus: the refiner of SDXL was trained with the larger one
//! only, so it takes that part of the states, and a score for beauty in place of the size that is asked for.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use candle_core::Tensor;

use super::metadata::ModelSource;
use super::networks::Changeable;
use super::parts::{PUBLISHED, PUBLISHED_REFINER, Part, SIZES, read, unet};
use super::recipe::{SCHEDULER, prediction};
use crate::device::{Placement, classify};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::models::sdxl::{Added, Prompt, UNet, UnetConfig};
use crate::schedule::Prediction;
use crate::weights::{Component, ModelDir, Network, SingleFile};

/// Scores for what is asked for and what is not, with which SDXL's refiner was trained.
const SCORES: [f32; 2] = [6.0, 2.5];
/// Sizes that it is told: the original one, the crop, and a score.
const SCORED: usize = 5;

/// How a sample goes from the network to the refiner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefinerSwap {
    /// Within one run: samplers that look at earlier steps look at those of the first network.
    Joint,
    /// As two runs, of which the second one starts from what the first one made.
    Separate,
}

impl FromStr for RefinerSwap {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "joint" => Ok(Self::Joint),
            "separate" => Ok(Self::Separate),
            "vae" => Err(Error::unsupported(
                "`vae` is for refiners of Stable Diffusion 1, which need xl-to-v1_interposer-v4.0.safetensors; \
                 they are not there yet",
            )
            .with("field", "refiner_swap")),
            other => {
                let message = format!("unknown way to the refiner `{other}`; known: joint, separate");
                Err(Error::invalid_input(message).with("field", "refiner_swap"))
            }
        }
    }
}

impl fmt::Display for RefinerSwap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Joint => "joint",
            Self::Separate => "separate",
        })
    }
}

/// The network, and what it was trained to answer and to be told.
pub(super) struct Refiner {
    /// What metadata call it.
    pub(super) source: ModelSource,
    /// Where errors say that it is.
    path: PathBuf,
    pub(super) network: Changeable<UnetConfig, UNet>,
    pub(super) prediction: Prediction,
    /// Values of a token that it reads, from the end.
    width: usize,
    is_scored: bool,
}

/// A refiner that makes steps of a picture.
#[derive(Clone)]
pub(super) struct Refining<'a> {
    pub(super) refiner: &'a Refiner,
    pub(super) unet: Arc<UNet>,
    /// The steps that are made before it.
    pub(super) first: usize,
}

impl Refiner {
    /// Opens a folder of diffusers or a checkpoint in one file, for a model whose tokens and prompts have vectors of
    /// these lengths, of which the last `large` of a token are those of the larger encoder.
    pub(super) fn open(
        path: &Path,
        (states, large, vector): (usize, usize, usize),
        channels: usize,
    ) -> Result<Self> {
        let load = || {
            let (part, prediction) = open(path)?;
            let config = &part.config;
            let sizes = config.added.as_ref().and_then(|added| {
                let values = added.input_dim.checked_sub(vector)?;
                values.is_multiple_of(added.time_dim).then_some(values / added.time_dim)
            });
            let width = config.cross_attention_dim;
            let is_known = matches!(sizes, Some(SIZES | SCORED));
            if !is_known || (width != states && width != large) || config.in_channels != channels {
                let message = "the refiner does not fit the model: only those of SDXL do";
                return Err(Error::unsupported(message));
            }
            let (source, is_scored) = (ModelSource::of(path), sizes == Some(SCORED));
            let network = Changeable::new("unet", &Network::UNET, part);
            Ok(Self { source, path: path.to_owned(), network, prediction, width, is_scored })
        };
        load().context("refiner", path.display())
    }

    /// Fails unless its file has all that is needed.
    pub(super) fn check(&self, placement: &Placement) -> Result<()> {
        self.network.check(placement, UNet::load).context("refiner", self.path.display())
    }

    /// The network, read if it is not there.
    pub(super) fn unet(&self, placement: &Placement) -> Result<Arc<UNet>> {
        self.network.get(placement, UNet::load).context("refiner", self.path.display())
    }

    /// The same, to go on after `first` steps.
    pub(super) fn after(&self, first: usize, placement: &Placement) -> Result<Refining<'_>> {
        Ok(Refining { refiner: self, unet: self.unet(placement)?, first })
    }
}

impl Refining<'_> {
    /// A text for this network. `sizes` are those that the first one is told, and `is_positive` says which score
    /// belongs to it.
    pub(super) fn prompt(
        &self,
        states: &Tensor,
        pooled: &Tensor,
        sizes: [f32; SIZES],
        is_positive: bool,
    ) -> Result<Prompt> {
        let Refiner { width: taken, is_scored, .. } = *self.refiner;
        let scored = [sizes[0], sizes[1], sizes[2], sizes[3], SCORES[usize::from(!is_positive)]];
        let sizes = if is_scored { &scored[..] } else { &sizes[..] };
        let width = states.dim(1).map_err(|e| classify(e, "cannot prepare a prompt"))?;
        let part = states
            .narrow(1, width - taken, taken)
            .and_then(|part| part.contiguous())
            .map_err(|e| classify(e, "cannot prepare a prompt"))?;
        self.unet.prompt(&part, Some(Added { pooled, sizes }))
    }
}

/// The network of a folder or a file, and what it answers.
fn open(path: &Path) -> Result<(Part<UnetConfig>, Prediction)> {
    if path.is_dir() {
        let dir = ModelDir::Disk(path.to_owned());
        let part = Part {
            config: read(&dir, "unet/config.json", unet)?,
            source: dir.checkpoint("unet/diffusion_pytorch_model")?,
        };
        let prediction = match dir.has(SCHEDULER) {
            true => read(&dir, SCHEDULER, prediction)?,
            false => Prediction::Epsilon,
        };
        return Ok((part, prediction));
    }
    if !path.is_file() {
        return Err(Error::new(ErrorKind::ModelNotFound, "there is no such folder or file"));
    }
    let file = SingleFile::open(path)?;
    let source = file.component(Component::UNet)?;
    let mut configs = [PUBLISHED.unet, PUBLISHED_REFINER].into_iter().map(unet);
    let first = source.shape("conv_in.weight").and_then(|shape| shape.first().copied());
    let config = configs.find_map(|config| match config {
        Ok(config) if first == config.stages.first().map(|stage| stage.channels) => Some(config),
        _ => None,
    });
    match config {
        Some(config) => Ok((Part { config, source: Arc::clone(&source) }, Prediction::Epsilon)),
        None => Err(Error::unsupported("the network in the file is none of SDXL")),
    }
}

#[cfg(test)]
mod tests;
