//! The keys of LoRA files. Every program that trains them has its own spelling.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::weights::checkpoint::Source;

/// What a tensor is to its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Down,
    Up,
    Alpha,
}

const PARTS: [(&str, Part); 9] = [
    (".lora_down.weight", Part::Down),
    (".lora_down.default.weight", Part::Down),
    (".lora_A.weight", Part::Down),
    (".lora_A.default.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".lora_up.default.weight", Part::Up),
    (".lora_B.weight", Part::Up),
    (".lora_B.default.weight", Part::Up),
    (".alpha", Part::Alpha),
];

/// Other changes than a product of two matrices, by a part of their keys.
const OTHERS: [(&str, &str); 9] = [
    ("lokr_", "LoKr"),
    ("hada_", "LoHa"),
    ("oft_", "OFT"),
    ("dora_scale", "DoRA"),
    ("lora_magnitude_vector", "DoRA"),
    ("lora_mid", "LoRA of convolutions"),
    ("lora_A.bias", "LoRA with biases"),
    ("lora_B.bias", "LoRA with biases"),
    (".diff", "a full difference"),
];

/// What programs put before the name of a layer.
const PREFIXES: [&str; 2] = ["transformer.", "diffusion_model."];
/// The same, where points in the layer's name became underscores.
const FLAT_PREFIX: &str = "lora_unet_";

/// The layer and the part of it that a key names.
pub(super) fn split(key: &str) -> Result<(&str, Part)> {
    let part = PARTS.iter().find_map(|(end, part)| Some((key.strip_suffix(end)?, *part)));
    if let Some(part) = part {
        return Ok(part);
    }
    match OTHERS.iter().find(|(sign, _)| key.contains(sign)) {
        Some((_, what)) => Err(Error::unsupported(format!(
            "the file is {what}; only plain LoRA of linear layers is read"
        ))),
        None => Err(Error::model_invalid("the key is none of a LoRA")),
    }
}

/// The layers of a network that a LoRA can change.
pub(super) struct Layers {
    /// The names of weights by those of their layers.
    plain: BTreeMap<String, String>,
    /// The same by names without points; nothing where two are alike.
    flat: BTreeMap<String, Option<String>>,
}

impl Layers {
    /// The linear layers of `base`.
    pub(super) fn of(base: &dyn Source) -> Result<Self> {
        let mut layers = Self { plain: BTreeMap::new(), flat: BTreeMap::new() };
        for weight in base.names() {
            let Some(layer) = weight.strip_suffix(".weight") else { continue };
            if base.shape(&weight).is_none_or(|shape| shape.len() != 2) {
                continue;
            }
            layers
                .flat
                .entry(layer.replace('.', "_"))
                .and_modify(|other| *other = None)
                .or_insert_with(|| Some(weight.clone()));
            layers.plain.insert(layer.to_owned(), weight);
        }
        if layers.plain.is_empty() {
            return Err(Error::model_invalid("the network has no linear layers to change"));
        }
        Ok(layers)
    }

    /// The weight of the layer that a file calls `layer`.
    pub(super) fn weight(&self, layer: &str) -> Result<&str> {
        if let Some(flat) = layer.strip_prefix(FLAT_PREFIX) {
            return match self.flat.get(&flat.replace('.', "_")) {
                Some(Some(weight)) => Ok(weight),
                Some(None) => {
                    Err(Error::model_invalid(format!("`{layer}` may be one of two layers")))
                }
                None => Err(unknown(layer)),
            };
        }
        let plain = PREFIXES.iter().find_map(|prefix| layer.strip_prefix(prefix)).unwrap_or(layer);
        self.plain.get(plain).map(String::as_str).ok_or_else(|| unknown(layer))
    }
}

fn unknown(layer: &str) -> Error {
    Error::model_invalid(format!(
        "the network has no linear layer `{layer}` for the LoRA to change"
    ))
}
