//! From a model's name to a network that is ready to run.

use super::archs;
use super::config::{InputSpec, ModelConfig};
use super::labels::Labels;
use super::preprocess::FILE as PREPROCESS;
use crate::device::Placement;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::hub::{Embedded, KnownModel, Task, find_known, locate};
use crate::models::Classifier;
use crate::options::LoadOptions;
use crate::weights::{ModelDir, Weights, onnx, saved_model};

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
    options.check()?;
    options.refuse_parts("a tagger is one file, which is loaded as a whole")?;
    let known = find_known(model);
    let dir = locate(model, Task::Tag, DEMO, options.cache_dir.as_deref(), options.offline)?;
    load_dir(&dir, placement, known).context("model", model)
}

#[cfg(feature = "demo")]
const DEMO: Option<Embedded> = Some(&[
    ("config.json", include_bytes!("../../demo/tagger/config.json")),
    ("model.safetensors", include_bytes!("../../demo/tagger/model.safetensors")),
    ("selected_tags.csv", include_bytes!("../../demo/tagger/selected_tags.csv")),
]);
#[cfg(not(feature = "demo"))]
const DEMO: Option<Embedded> = None;

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

/// A network with random weights and labels that are numbers: four ratings, then tags.
#[cfg(any(test, feature = "gpu-check"))]
pub(super) fn random(
    config: &ModelConfig,
    labels: usize,
    placement: &Placement,
) -> Result<(Box<dyn Classifier>, Labels)> {
    let row = |i: usize| format!("{i},label {i},{},0\n", if i < 4 { 9 } else { 0 });
    let table = (0..labels).map(row).collect::<String>();
    let labels = Labels::parse(&format!("tag_id,name,category,count\n{table}"))?;
    let weights = Weights::random(1, placement.candle(), placement.dtype());
    let scale = config.input.scale();
    Ok((archs::load(&config.args, labels.len(), &weights.root(), &scale)?, labels))
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
