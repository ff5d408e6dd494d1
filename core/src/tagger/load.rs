//! From a model's name to a network that is ready to run.

use std::path::{Path, PathBuf};

use super::archs;
use super::config::{InputSpec, ModelConfig};
use super::known::{KnownModel, find_known};
use super::labels::Labels;
use super::preprocess::FILE as PREPROCESS;
use crate::control::Control;
use crate::device::{Device, Placement, Precision};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::hub::PullOptions;
use crate::kernels::cpu::cpu_kernels;
use crate::models::Classifier;
use crate::pixels::DecodeOptions;
use crate::weights::{ModelDir, Weights, onnx, saved_model};

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
    /// Pictures in one batch; chosen by the input's size unless set.
    pub batch_size: Option<usize>,
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
}

/// Downloads a model and returns its folder; one that is complete already is not touched.
///
/// `model` is an id on the hub (`owner/name`, `@revision` optional) or an alias of a
/// [known model](crate::KNOWN_MODELS). Progress counts bytes. A download that was cut continues
/// where it stopped, and every file is checked against the size and hash that the hub states.
///
/// # Errors
/// [`ModelNotFound`](ErrorKind::ModelNotFound) if the hub has no such model or it has no files that
/// can be read, [`Download`](ErrorKind::Download) if the network fails or a file is damaged,
/// [`Cancelled`](ErrorKind::Cancelled), and [`Unsupported`](ErrorKind::Unsupported) if the model
/// cannot be loaded anyway or this build has no feature `hub`.
pub fn pull(model: &str, options: &PullOptions, control: &Control) -> Result<PathBuf> {
    let known = find_known(model);
    if let Some(reason) = known.and_then(|known| known.unsupported) {
        return Err(Error::unsupported(reason).with("model", model));
    }
    crate::hub::pull(known.map_or(model, |known| known.id), options, control)
}

/// Everything that loading finds out.
pub(super) struct Loaded {
    pub(super) network: Box<dyn Classifier>,
    pub(super) labels: Labels,
    pub(super) input: InputSpec,
    pub(super) placement: Placement,
    pub(super) known: Option<&'static KnownModel>,
}

/// Loads `model`: `demo`, a folder, or the id or alias of a published model.
pub(super) fn load(model: &str, options: &LoadOptions) -> Result<Loaded> {
    let placement = Placement::resolve(options.device, options.precision)?;
    cpu_kernels()?; // A name in the environment that this machine cannot serve.
    if options.batch_size == Some(0) {
        return Err(Error::invalid_input("the batch size is 0").with("field", "batch_size"));
    }
    let known = find_known(model);
    let dir = locate(model, known, options)?;
    load_dir(&dir, placement, known).context("model", model)
}

fn locate(model: &str, known: Option<&KnownModel>, options: &LoadOptions) -> Result<ModelDir> {
    if model == "demo" {
        return demo();
    }
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(ModelDir::Disk(path.to_owned()));
    }
    // A path to the weights themselves means their folder.
    if path.is_file() {
        let weights = matches!(path.extension(), Some(e) if e == "safetensors" || e == "onnx");
        return match path.parent() {
            Some(parent) if weights => Ok(ModelDir::Disk(parent.to_owned())),
            _ => Err(Error::invalid_input(format!(
                "`{model}` is a file, but a model is a folder with config.json, \
                 model.safetensors and selected_tags.csv"
            ))
            .with("field", "model")),
        };
    }
    if let Some(reason) = known.and_then(|known| known.unsupported) {
        return Err(Error::unsupported(reason).with("model", model));
    }
    let id = known.map_or(model, |known| known.id);
    let looks_like_id = id.split('/').count() == 2 && !id.starts_with(['.', '/', '~']);
    if !looks_like_id {
        return Err(Error::new(
            ErrorKind::ModelNotFound,
            format!("there is no model `{model}`: no such folder, and no known name"),
        ));
    }
    crate::hub::find_or_pull(id, options.cache_dir.as_deref(), options.offline).map(ModelDir::Disk)
}

#[cfg(feature = "demo")]
fn demo() -> Result<ModelDir> {
    static FILES: &[(&str, &[u8])] = &[
        ("config.json", include_bytes!("../../demo/tagger/config.json")),
        ("model.safetensors", include_bytes!("../../demo/tagger/model.safetensors")),
        ("selected_tags.csv", include_bytes!("../../demo/tagger/selected_tags.csv")),
    ];
    Ok(ModelDir::Embedded(FILES))
}

#[cfg(not(feature = "demo"))]
fn demo() -> Result<ModelDir> {
    Err(Error::new(ErrorKind::ModelNotFound, "this build does not contain the demo model"))
}

fn load_dir(
    dir: &ModelDir,
    placement: Placement,
    known: Option<&'static KnownModel>,
) -> Result<Loaded> {
    let labels = Labels::load(dir)?;
    let (config, weights) = open(dir, &placement)?;
    if let Some(declared) = config.labels
        && declared != labels.len()
    {
        return Err(Error::model_invalid(format!(
            "the network has {declared} outputs, but the label file has {} rows",
            labels.len()
        )));
    }
    let network = archs::load(&config.args, labels.len(), &weights.root(), &config.input.scale())?;
    weights.check_all_taken(is_buffer)?;
    Ok(Loaded { network, labels, input: config.input, placement, known })
}

const SAFETENSORS: &str = "model.safetensors";
const ONNX: &str = "model.onnx";
const VARIABLES: &str = "variables/variables.index";

/// The configuration and tensors of a folder, whichever format it has them in.
fn open(dir: &ModelDir, placement: &Placement) -> Result<(ModelConfig, Weights)> {
    let (device, dtype) = (placement.candle(), placement.dtype());
    if dir.has("config.json") && dir.has(SAFETENSORS) {
        let config = ModelConfig::load(dir)?;
        return Ok((config, dir.safetensors(SAFETENSORS, device, dtype)?));
    }
    if let Some(path) = dir.path() {
        let (file, imported) = if dir.has(ONNX) {
            (ONNX, onnx::import(&path.join(ONNX))?)
        } else if dir.has(VARIABLES) {
            (VARIABLES, saved_model::import(path)?)
        } else {
            return Err(no_weights(dir));
        };
        if dir.has(PREPROCESS) {
            return Err(Error::unsupported(format!(
                "`{PREPROCESS}` beside a model that scales its input itself; they say different \
                 things unless the weights are in `{SAFETENSORS}`"
            ))
            .with("file", dir.origin(PREPROCESS)));
        }
        let config = ModelConfig::parse(imported.config, None)?;
        return Ok((config, Weights::made(imported.tensors, dir.origin(file), device, dtype)));
    }
    Err(no_weights(dir))
}

/// The error of a folder without weights that can be read.
fn no_weights(dir: &ModelDir) -> Error {
    let missing = match (dir.has("config.json"), dir.has(SAFETENSORS)) {
        (true, _) => format!("has no `{SAFETENSORS}`"),
        (_, true) => "has no `config.json`".to_owned(),
        _ => {
            format!("has neither `config.json` and `{SAFETENSORS}`, nor `{ONNX}`, nor a SavedModel")
        }
    };
    let other = ["pytorch_model.bin", "model.safetensors.index.json", "model.msgpack"]
        .into_iter()
        .find(|name| dir.has(name))
        .map_or(String::new(), |name| format!("; `{name}` is not read"));
    Error::new(ErrorKind::ModelNotFound, format!("the folder {missing}{other}"))
}

/// Tensors that older checkpoints save although they follow from the configuration.
fn is_buffer(name: &str) -> bool {
    ["relative_position_index", "relative_coords_table", "attn_mask", "k_bias", "rope.pos_embed"]
        .iter()
        .any(|buffer| name.ends_with(buffer))
}
