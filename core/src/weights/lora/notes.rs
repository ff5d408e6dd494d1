//! The notes that peft and diffusers leave in a LoRA file: how it was trained, and with that, how its
//! matrices are scaled.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::weights::safetensors::SafeTensorsFile;

const KEY: &str = "lora_adapter_metadata";

/// What the notes say about scales.
pub(super) struct Notes {
    alpha: f64,
    /// Other values of `alpha` for single layers.
    of_layers: BTreeMap<String, f64>,
    /// Whether `alpha` is divided by the square root of the rank (Kalajdzievski, arXiv 2312.03732).
    by_root: bool,
}

impl Notes {
    /// The notes in a file on the network of this name, if it has some.
    pub(super) fn read(file: &SafeTensorsFile, network: &str) -> Result<Option<Self>> {
        let Some(text) = file.note(KEY) else { return Ok(None) };
        Self::parse(text, network).map_err(|e| e.with("note", KEY))
    }

    fn parse(text: &str, network: &str) -> Result<Option<Self>> {
        let notes: Map<String, Value> = serde_json::from_str(text)
            .map_err(|e| Error::model_invalid(format!("not the notes of a LoRA: {e}")))?;
        // Where a file may be for several networks, their names are before every key.
        let is_ours = |key: &String| key.split_once('.').is_none_or(|(of, _)| of == network);
        if !notes.is_empty() && !notes.keys().any(is_ours) {
            return Ok(None);
        }
        let note = |key: &str| {
            let own = notes.get(&format!("{network}.{key}"));
            own.or_else(|| notes.get(key)).filter(|value| !value.is_null())
        };
        let is_set = |key: &str| note(key).is_some_and(|value| value != &Value::Bool(false));
        for (key, what) in [("use_dora", "DoRA"), ("lora_bias", "LoRA with biases")] {
            if is_set(key) {
                return Err(Error::unsupported(format!(
                    "the file is {what}; only LoRA, LoCon, LoHa and LoKr are read"
                )));
            }
        }
        let alpha = note("lora_alpha").map(|value| number("lora_alpha", value)).transpose()?;
        let alpha = alpha.ok_or_else(|| Error::model_invalid("the notes have no `lora_alpha`"))?;
        let mut of_layers = BTreeMap::new();
        if let Some(pattern) = note("alpha_pattern") {
            let pattern = pattern
                .as_object()
                .ok_or_else(|| Error::model_invalid("`alpha_pattern` is no object"))?;
            for (layer, value) in pattern {
                // It is a regular expression; names as such are the only ones that are written.
                let is_name = layer.chars().all(|c| c.is_ascii_alphanumeric() || "_.".contains(c));
                if !is_name {
                    return Err(Error::unsupported(format!("`alpha_pattern` of `{layer}`")));
                }
                of_layers.insert(layer.clone(), number("alpha_pattern", value)?);
            }
        }
        Ok(Some(Self { alpha, of_layers, by_root: is_set("use_rslora") }))
    }

    /// What the product of the matrices that change `weight` is multiplied by.
    pub(super) fn scale(&self, weight: &str, rank: usize) -> Result<f64> {
        let layer = weight.strip_suffix(".weight").unwrap_or(weight);
        let mut of_layer = self.of_layers.iter().filter(|(name, _)| {
            layer
                .strip_suffix(name.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        });
        let alpha = of_layer.next().map_or(self.alpha, |(_, alpha)| *alpha);
        if of_layer.next().is_some() {
            return Err(Error::model_invalid(format!("two alphas are noted for `{layer}`")));
        }
        let rank = rank as f64;
        Ok(alpha / if self.by_root { rank.sqrt() } else { rank })
    }
}

fn number(key: &str, value: &Value) -> Result<f64> {
    let number = value.as_f64().filter(|number| number.is_finite());
    number.ok_or_else(|| Error::model_invalid(format!("`{key}` is {value}, no number")))
}
