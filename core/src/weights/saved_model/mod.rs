//! Weights out of Keras SavedModels.
//!
//! The version 2 taggers are also published as SavedModels: `variables/` holds the weights under
//! the numbers of their layers, `keras_metadata.pb` the configuration of each layer. The networks
//! that are read here are plain chains of layers, so the order of the layers, and the shapes of
//! their variables, say which is which. Of the computation (`saved_model.pb`) only the tables that
//! tell the windows of a SwinV2 are read.

mod bundle;
mod constants;
mod convnext;
mod crc32c;
mod objects;
mod swin;
mod table;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde_json::{Map, Value, json};

use self::bundle::Bundle;
use self::objects::{Layer, Metadata};
use super::Imported;
use crate::error::{Error, Result, ResultExt};

/// Longest `keras_metadata.pb` in bytes; published ones have some hundred kilobytes.
const MAX_METADATA: u64 = 64 << 20;

/// Reads the network out of the SavedModel in the folder `dir`.
pub(crate) fn import(dir: &Path) -> Result<Imported> {
    let path = dir.join("keras_metadata.pb");
    let length = std::fs::metadata(&path)
        .map_err(|e| Error::io("open the model's metadata", &path, e))?
        .len();
    if length > MAX_METADATA {
        return Err(Error::model_invalid(format!("metadata of {length} bytes"))
            .with("file", path.display()));
    }
    let bytes =
        std::fs::read(&path).map_err(|e| Error::io("read the model's metadata", &path, e))?;
    let metadata = objects::metadata(&bytes).context("file", path.display())?;
    let bundle = Bundle::open(&dir.join("variables"))?;
    read(dir, &bundle, &metadata).context("file", dir.join("variables").display())
}

fn read(dir: &Path, bundle: &Bundle, metadata: &Metadata) -> Result<Imported> {
    let name = metadata.model.to_ascii_lowercase();
    if name.contains("moat") {
        return Err(Error::unsupported("MOAT networks are not supported"));
    }
    let layers = objects::layers(bundle.objects()?)?;
    let mut reader = Reader { bundle, layers, next: 0, tensors: BTreeMap::new() };
    let has = |variable| reader.layers.iter().any(|l| l.variables.contains_key(variable));
    let has_swin = has(swin::MARK);
    let mut found = if has_swin {
        reader.swin(dir, metadata)?
    } else if has("depthwise_kernel") {
        reader.convnext(metadata)?
    } else {
        reader.vit(metadata)?
    };
    if let Some(layer) = reader.layers.get(reader.next) {
        return Err(Error::unsupported("the SavedModel has layers that are not known")
            .with("layer", &layer.name));
    }
    found.arguments.insert("act_layer".into(), json!("gelu"));
    let (factor, offset) = metadata.scaling;
    if !(1.0 / 1024.0..=1.0 / 16.0).contains(&factor) {
        return Err(Error::unsupported(format!(
            "the model scales its input by {factor} and adds {offset}"
        )));
    }
    let short = |value: f64| (value * 1e5).round() / 1e5;
    let (mean, std) = (short(-offset / factor / 255.0), short(1.0 / factor / 255.0));
    let mut config = json!({
        "architecture": found.architecture,
        "num_classes": found.classes,
        "num_features": found.features,
        "model_args": found.arguments,
        "pretrained_cfg": {
            "input_size": [3, metadata.size, metadata.size],
            "fixed_input_size": false,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": [mean, mean, mean],
            "std": [std, std, std],
            "num_classes": found.classes,
        },
    });
    if let Some(epsilon) = found.default_epsilon {
        config["global_pool"] = json!("avg");
        if metadata.epsilon != epsilon {
            config["tagbrush"] = json!({ "norm_eps": metadata.epsilon });
        }
    }
    if metadata.epsilon != metadata.final_epsilon {
        if !has_swin {
            return Err(Error::unsupported("the last layer norm has another epsilon"));
        }
        config["tagbrush"]["final_norm_eps"] = json!(metadata.final_epsilon);
    }
    Ok(Imported { config, tensors: reader.tensors })
}

struct Found {
    architecture: &'static str,
    arguments: Map<String, Value>,
    classes: usize,
    features: usize,
    /// The epsilon of a network that has no argument for it and need not mention this one.
    default_epsilon: Option<f64>,
}

/// Takes layers in their order.
struct Reader<'b> {
    bundle: &'b Bundle,
    layers: Vec<Layer>,
    next: usize,
    tensors: BTreeMap<String, Tensor>,
}

impl Reader<'_> {
    /// Whether the next layer, or one further on, has a variable of this name.
    fn has(&self, ahead: usize, variable: &str) -> bool {
        self.layers.get(self.next + ahead).is_some_and(|l| l.variables.contains_key(variable))
    }

    /// The dimensions of a variable of the next layer.
    fn dims(&self, variable: &str) -> Result<Vec<usize>> {
        let layer = self.layer(variable)?;
        Ok(self.bundle.dims(&layer.variables[variable])?.to_vec())
    }

    fn layer(&self, variable: &str) -> Result<&Layer> {
        let layer = self.layers.get(self.next).ok_or_else(|| {
            Error::unsupported(format!("the SavedModel ends where a `{variable}` was expected"))
        })?;
        if !layer.variables.contains_key(variable) {
            return Err(Error::unsupported(format!("the layer has no `{variable}`"))
                .with("layer", &layer.name));
        }
        Ok(layer)
    }

    fn values(&self, variable: &str, dims: &[usize]) -> Result<Vec<f32>> {
        let layer = self.layer(variable)?;
        let key = &layer.variables[variable];
        let found = self.bundle.dims(key)?;
        if found != dims {
            return Err(Error::unsupported(format!(
                "`{variable}` has shape {found:?} where {dims:?} was expected"
            ))
            .with("layer", &layer.name));
        }
        self.bundle.floats(key)
    }

    /// Moves on from a layer whose variables were all taken.
    fn done(&mut self, count: usize) -> Result<()> {
        let layer = &self.layers[self.next];
        if layer.variables.len() != count {
            return Err(Error::unsupported("a layer has variables that are not known")
                .with("layer", &layer.name));
        }
        self.next += 1;
        Ok(())
    }

    fn put(&mut self, name: String, dims: &[usize], values: Vec<f32>) -> Result<()> {
        let tensor = Tensor::from_vec(values, dims, &Device::Cpu)
            .map_err(|e| crate::device::classify(e, "cannot make a tensor"))?;
        self.tensors.insert(name, tensor);
        Ok(())
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<()> {
        self.inner_norm("", name, width)?;
        self.done(2)
    }

    /// The norm at `place` of the next layer.
    fn inner_norm(&mut self, place: &str, name: &str, width: usize) -> Result<()> {
        for (variable, to) in [("gamma", "weight"), ("beta", "bias")] {
            let values = self.values(&format!("{place}{variable}"), &[width])?;
            self.put(format!("{name}.{to}"), &[width], values)?;
        }
        Ok(())
    }

    /// A dense layer, or a convolution of 1 by 1.
    fn linear(&mut self, name: &str, inner: usize) -> Result<usize> {
        let outer = self.matrix("kernel", name, inner)?;
        let bias = self.values("bias", &[outer])?;
        self.put(format!("{name}.bias"), &[outer], bias)?;
        self.done(2)?;
        Ok(outer)
    }

    /// The matrix of a dense layer, which is the variable `kernel`; returns its outputs.
    fn matrix(&mut self, kernel: &str, name: &str, inner: usize) -> Result<usize> {
        let dims = self.dims(kernel)?;
        let outer = dims.last().copied().unwrap_or(0);
        let expected = if dims.len() == 4 { vec![1, 1, inner, outer] } else { vec![inner, outer] };
        let weight = self.values(kernel, &expected)?;
        self.put(format!("{name}.weight"), &[outer, inner], turned(&weight, inner, outer))?;
        Ok(outer)
    }

    /// A convolution into patches; returns the side of a patch and the number of features.
    fn patches(&mut self, name: &str, inner: usize) -> Result<(usize, usize)> {
        let dims = self.dims("kernel")?;
        let (side, outer) = match dims[..] {
            [side, _, _, outer] => (side, outer),
            _ => (0, 0),
        };
        let weight = self.values("kernel", &[side, side, inner, outer])?;
        let bias = self.values("bias", &[outer])?;
        let weight = turned(&weight, side * side * inner, outer);
        // Each filter is [side, side, inner] now; channels come first in timm.
        let area = side * side;
        let filters = weight.chunks_exact((area * inner).max(1)).flat_map(|filter| {
            (0..inner).flat_map(move |c| (0..area).map(move |at| filter[at * inner + c]))
        });
        let weight: Vec<f32> = filters.collect();
        self.put(format!("{name}.weight"), &[outer, inner, side, side], weight)?;
        self.put(format!("{name}.bias"), &[outer], bias)?;
        self.done(2)?;
        Ok((side, outer))
    }

    fn scale(&mut self, name: String, width: usize) -> Result<()> {
        let values = self.values("skip", &[width])?;
        self.put(name, &[width], values)?;
        self.done(1)
    }

    fn vit(&mut self, metadata: &Metadata) -> Result<Found> {
        let (patch, dim) = self.patches("patch_embed.proj", 3)?;
        let side = metadata.size / patch.max(1);
        let positions = self.values("pos_embed", &[side * side, dim])?;
        self.put("pos_embed".into(), &[1, side * side, dim], positions)?;
        self.done(1)?;
        let (mut depth, mut heads, mut hidden) = (0, 0, 0);
        let mut scaled = false;
        while self.has(1, "query/kernel") {
            let name = format!("blocks.{depth}");
            self.norm(&format!("{name}.norm1"), dim)?;
            heads = self.attention(&format!("{name}.attn"), dim)?;
            scaled = self.has(0, "skip");
            if scaled {
                self.scale(format!("{name}.ls1.gamma"), dim)?;
            }
            self.norm(&format!("{name}.norm2"), dim)?;
            hidden = self.linear(&format!("{name}.mlp.fc1"), dim)?;
            self.linear(&format!("{name}.mlp.fc2"), hidden)?;
            if scaled {
                self.scale(format!("{name}.ls2.gamma"), dim)?;
            }
            depth += 1;
        }
        self.norm("norm", dim)?;
        let classes = self.linear("head", dim)?;
        if depth == 0 || hidden % dim.max(1) != 0 {
            return Err(Error::unsupported("a ViT without blocks, or with an uneven MLP ratio"));
        }
        let large = dim == 1024;
        let mut arguments = Map::new();
        arguments.insert("class_token".into(), json!(false));
        arguments.insert("fc_norm".into(), json!(false));
        arguments.insert("global_pool".into(), json!("avg"));
        let pairs = [
            ("patch_size", patch, 16),
            ("embed_dim", dim, if large { 1024 } else { 768 }),
            ("depth", depth, if large { 24 } else { 12 }),
            ("num_heads", heads, if large { 16 } else { 12 }),
            ("mlp_ratio", hidden / dim.max(1), 4),
        ];
        for (name, value, default) in pairs {
            if value != default {
                arguments.insert(name.into(), json!(value));
            }
        }
        if scaled {
            arguments.insert("init_values".into(), json!(1e-5));
        }
        arguments.insert("img_size".into(), json!(metadata.size));
        let architecture = if large { "vit_large_patch16_224" } else { "vit_base_patch16_224" };
        let default_epsilon = Some(1e-6);
        Ok(Found { architecture, arguments, classes, features: dim, default_epsilon })
    }

    /// Keras' multi-head attention; returns the number of heads.
    fn attention(&mut self, name: &str, dim: usize) -> Result<usize> {
        let heads = self.dims("query/kernel")?.get(1).copied().unwrap_or(0).max(1);
        let each = dim / heads;
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for part in ["query", "key", "value"] {
            let kernel = self.values(&format!("{part}/kernel"), &[dim, heads, each])?;
            weight.extend(turned(&kernel, dim, dim));
            bias.extend(self.values(&format!("{part}/bias"), &[heads, each])?);
        }
        self.put(format!("{name}.qkv.weight"), &[3 * dim, dim], weight)?;
        self.put(format!("{name}.qkv.bias"), &[3 * dim], bias)?;
        let proj = self.values("attention_output/kernel", &[heads, each, dim])?;
        self.put(format!("{name}.proj.weight"), &[dim, dim], turned(&proj, dim, dim))?;
        let bias = self.values("attention_output/bias", &[dim])?;
        self.put(format!("{name}.proj.bias"), &[dim], bias)?;
        self.done(8)?;
        Ok(heads)
    }
}

/// A matrix of `rows` by `columns`, transposed.
fn turned(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut turned = Vec::with_capacity(values.len());
    for column in 0..columns {
        turned.extend((0..rows).map(|row| values[row * columns + column]));
    }
    turned
}

#[cfg(test)]
mod tests;
