//! Weights out of ONNX graphs.
//!
//! Some taggers are only published as `model.onnx`. They are not run as graphs: the graph is read
//! into one of the networks of this crate, as a configuration and tensors under the names that
//! checkpoints of that network have. A graph is a program, not a list of weights, and exporters
//! fold, merge and rename freely, so layers are found by what is computed:
//!
//! 1. [`graph`] parses the file, [`eval`] computes whatever does not depend on the image;
//! 2. [`trace`] follows the image through the graph and writes its computation down as
//!    expressions ([`expr`]) that do not know reshapes and transpositions ([`layout`]);
//! 3. [`reader`] and the readers of the networks walk these expressions from the output to the
//!    image, layer by layer; small functions are recognised by evaluating them ([`probe`]).
//!
//! Every operation between image and output must be part of a recognised layer, and every weight
//! must have been used: a graph is imported as a whole or not at all.

mod attention;
mod constant;
mod convnext;
mod eval;
mod eval_shape;
mod expr;
mod graph;
mod layout;
mod math;
mod probe;
mod reader;
mod rotary;
mod swin;
#[cfg(test)]
mod tests;
mod trace;
mod trace_moves;
mod trace_ops;
mod vit;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;
use serde_json::{Map, Value, json};

use self::expr::Op;
use self::graph::Graph;
use self::probe::Activation;
use self::reader::{Linear, Reader, Scaling};
use self::trace::Trace;
use super::mapped::map;
use crate::error::{Error, Result, ResultExt};

/// A network that was read out of another format.
#[derive(Debug)]
pub(crate) struct Imported {
    /// The configuration, as the model hub of timm writes it.
    pub(crate) config: Value,
    /// The weights on the CPU, in single precision, under timm's names.
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

/// The classifier.
struct Head {
    linear: Linear,
}

/// What a reader of a network found out, besides weights.
#[derive(Default)]
struct Network {
    architecture: String,
    arguments: Map<String, Value>,
    classes: usize,
    features: usize,
    global_pool: Option<&'static str>,
    /// The epsilon that the configuration need not mention.
    default_epsilon: f64,
    /// The epsilon of the last norm, in networks where it may be another.
    final_epsilon: Option<f64>,
    scaling: Option<Scaling>,
    /// Whether the architecture has no argument for the size of the image.
    sizes_itself: bool,
    /// Whether the architecture has no argument for its activation function.
    fixed_activation: bool,
}

/// Reads the network out of the ONNX file at `path`.
pub(crate) fn import(path: &Path) -> Result<Imported> {
    import_bytes(&map(path)?).context("file", path.display())
}

/// Reads the network out of the bytes of an ONNX file.
pub(crate) fn import_bytes(bytes: &[u8]) -> Result<Imported> {
    let graph = Graph::parse(bytes)?;
    refuse_moat(&graph)?;
    let (trace, output) = Trace::new(&graph)?;
    let reader = Reader::new(&trace);
    let (height, width) = trace.input;
    let below = match reader.op(output.id) {
        Op::Function { name: "Sigmoid", x } => *x,
        _ => output.id,
    };
    let Some(linear) = reader.plain_linear(below) else {
        reader.miss::<()>(below, "a classifier (with or without a sigmoid)");
        return Err(reader.unknown());
    };
    let head = Head { linear };
    let network = reader
        .convnext(&head)
        .or_else(|| reader.vit(&head))
        .or_else(|| reader.swin(&head))
        .or_else(|| reader.eva(&head))
        .unwrap_or_else(|| Err(reader.unknown()))?;
    if height != width {
        return Err(Error::unsupported(format!("a network for images of {width} x {height}")));
    }
    let config = configuration(&reader, network, height)?;
    Ok(Imported { config, tensors: reader.finish()? })
}

fn configuration(reader: &Reader<'_, '_>, network: Network, size: usize) -> Result<Value> {
    let mut arguments = network.arguments;
    if !network.sizes_itself {
        arguments.insert("img_size".into(), json!(size));
    }
    if !network.fixed_activation {
        let name = match reader.activation()? {
            Activation::Gelu => "gelu",
            Activation::GeluTanh => "gelu_tanh",
            Activation::Silu => "silu",
        };
        arguments.insert("act_layer".into(), json!(name));
    }
    let (mean, std) = mean_and_std(network.scaling)?;
    let mut config = json!({
        "architecture": network.architecture,
        "num_classes": network.classes,
        "num_features": network.features,
        "model_args": arguments,
        "pretrained_cfg": {
            "custom_load": false,
            "input_size": [3, size, size],
            "fixed_input_size": false,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": [mean, mean, mean],
            "std": [std, std, std],
            "num_classes": network.classes,
            "pool_size": null,
            "first_conv": null,
            "classifier": null,
        },
    });
    if let Some(pool) = network.global_pool {
        config["global_pool"] = json!(pool);
    }
    let epsilon = reader.epsilon()?;
    if epsilon != network.default_epsilon {
        config["tagbrush"] = json!({ "norm_eps": epsilon });
    }
    if let Some(last) = network.final_epsilon.filter(|last| (last - epsilon).abs() > 1e-3 * epsilon)
    {
        config["tagbrush"]["final_norm_eps"] = json!(last);
    }
    Ok(config)
}

/// The graph's scaling of 0..255 as mean and deviation of 0..1.
fn mean_and_std(scaling: Option<Scaling>) -> Result<(f64, f64)> {
    let scaling = scaling.ok_or_else(|| Error::unsupported("the graph has no first layer"))?;
    let (factor, offset) = (scaling.factor, scaling.offset);
    // A graph that takes 0..255 brings that to a range of a few units.
    if !(factor.is_finite() && (1.0 / 1024.0..=1.0 / 16.0).contains(&factor)) || offset.abs() > 8.0
    {
        return Err(Error::unsupported(format!(
            "the graph scales its input by {factor} and adds {offset}; expected is a graph that \
             takes values of 0..255 and scales them itself, such as x / 127.5 - 1"
        )));
    }
    let short = |value: f64| (value * 1e5).round() / 1e5;
    Ok((short(-offset / factor / 255.0), short(1.0 / factor / 255.0)))
}

/// MOAT is the one published architecture that is known and not supported: better to say so than
/// to name the first of its layers.
fn refuse_moat(graph: &Graph<'_>) -> Result<()> {
    let named = |node: &graph::Node| node.name.to_ascii_lowercase().contains("moat");
    if graph.nodes.iter().any(named) {
        return Err(Error::unsupported("MOAT networks are not supported"));
    }
    Ok(())
}
