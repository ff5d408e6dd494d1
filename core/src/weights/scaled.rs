//! Weights that are stored as something else times a scale, in the spellings of ComfyUI.
//!
//! There are three: numbers of one byte without a scale; `scale_weight` and `scale_input` beside a
//! `weight`, with an empty `scaled_fp8` in the file; and `weight_scale`, `input_scale` and
//! `comfy_quant`, a description in JSON, for single layers. What is handed out is the stored tensor
//! times its scale. All else is a note to programs that multiply in the small format, and hidden;
//! only what is understood is hidden, so that a scale that nobody applied is left over and reported.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::Dtype;
use serde::Deserialize;

use super::checkpoint::Source;
use super::safetensors::SafeTensorsFile;
use crate::device::classify;
use crate::error::{Error, Result};

/// Where a file may describe all its layers at once.
const NOTE: &str = "_quantization_metadata";
/// Longest description of a layer in bytes.
const MAX_DESCRIPTION: usize = 4096;

/// How one layer is stored.
#[derive(Deserialize)]
struct Description {
    format: String,
}

/// How layers are stored, by name.
#[derive(Deserialize)]
struct Descriptions {
    layers: BTreeMap<String, Description>,
}

/// A safetensors file whose weights may have scales.
pub(crate) struct Scaled {
    file: SafeTensorsFile,
    scales: BTreeMap<String, f32>,
    hidden: BTreeSet<String>,
}

impl Scaled {
    /// Reads the scales of a file and checks that it says nothing that is not understood.
    pub(crate) fn new(file: SafeTensorsFile) -> Result<Self> {
        let origin = file.origin("").to_owned();
        let mut scaled = Self { file, scales: BTreeMap::new(), hidden: BTreeSet::new() };
        scaled.read().map_err(|e| e.with("file", origin))?;
        Ok(scaled)
    }

    fn read(&mut self) -> Result<()> {
        let mut described = BTreeMap::new();
        let mut all_scaled = false;
        for name in self.file.names() {
            let (layer, last) = name.rsplit_once('.').unwrap_or(("", &name));
            match last {
                "scaled_fp8" => all_scaled = true,
                "scale_weight" | "weight_scale" => {
                    let weight = self.weight(layer, &name)?;
                    let scale = self.scale(&name).map_err(|e| e.with("tensor", &name))?;
                    if self.scales.insert(weight, scale).is_some() {
                        return Err(
                            Error::model_invalid("a weight with two scales").with("tensor", &name)
                        );
                    }
                }
                "scale_input" | "input_scale" => drop(self.weight(layer, &name)?),
                "comfy_quant" => {
                    let description = self.description(&name)?;
                    described.insert(self.weight(layer, &name)?, description);
                }
                _ => continue,
            }
            self.hidden.insert(name);
        }
        if let Some(note) = self.file.note(NOTE) {
            let all: Descriptions = serde_json::from_str(note)
                .map_err(|e| Error::model_invalid(format!("cannot read `{NOTE}`: {e}")))?;
            for (layer, description) in all.layers {
                described.insert(self.weight(&layer, NOTE)?, description);
            }
        }
        for (weight, description) in described {
            self.check(&weight, &description).map_err(|e| e.with("tensor", weight))?;
        }
        if all_scaled { self.check_all() } else { Ok(()) }
    }

    /// The weight of a layer, which `helper` says something about.
    fn weight(&self, layer: &str, helper: &str) -> Result<String> {
        let weight = format!("{layer}.weight");
        if self.file.has(&weight) {
            return Ok(weight);
        }
        Err(Error::model_invalid(format!("`{helper}` belongs to `{weight}`, which is missing")))
    }

    fn scale(&self, name: &str) -> Result<f32> {
        let shape = self.file.shape(name).unwrap_or_default();
        if shape.iter().any(|size| *size != 1) {
            return Err(Error::unsupported(format!(
                "a scale of shape {shape:?}; only one scale for a whole tensor is read"
            )));
        }
        let scale = self.file.load(name, DType::F32, &Device::Cpu)?;
        let scale = scale
            .flatten_all()
            .and_then(|scale| scale.get(0)?.to_scalar::<f32>())
            .map_err(|e| classify(e, "cannot read a scale"))?;
        if scale.is_finite() {
            return Ok(scale);
        }
        Err(Error::model_invalid(format!("the scale is {scale}")))
    }

    fn description(&self, name: &str) -> Result<Description> {
        let bytes = self.file.raw(name).unwrap_or_default();
        if self.file.format(name) != Some(Dtype::U8) || bytes.len() > MAX_DESCRIPTION {
            return Err(Error::model_invalid("no description of a layer").with("tensor", name));
        }
        serde_json::from_slice(bytes).map_err(|e| {
            Error::model_invalid(format!("cannot read the description of a layer: {e}"))
                .with("tensor", name)
        })
    }

    /// Fails unless a weight is as it is described.
    fn check(&self, weight: &str, description: &Description) -> Result<()> {
        let stored = match description.format.as_str() {
            "float8_e4m3fn" => Dtype::F8_E4M3,
            "float8_e5m2" => Dtype::F8_E5M2,
            other => {
                return Err(Error::unsupported(format!(
                    "the weight is stored as `{other}`; only float8_e4m3fn and float8_e5m2 are read"
                )));
            }
        };
        if self.file.format(weight) != Some(stored) {
            return Err(Error::model_invalid(format!(
                "the weight is described as `{}`, but stored as {:?}",
                description.format,
                self.file.format(weight)
            )));
        }
        if !self.scales.contains_key(weight) {
            return Err(Error::model_invalid("the weight has no scale"));
        }
        Ok(())
    }

    /// Fails if a weight has no scale, in a file that says that all have one.
    fn check_all(&self) -> Result<()> {
        let without = self.file.names().into_iter().find(|name| {
            let stored = self.file.format(name);
            matches!(stored, Some(Dtype::F8_E4M3 | Dtype::F8_E5M2))
                && name.ends_with(".weight")
                && !self.scales.contains_key(name)
        });
        match without {
            Some(weight) => Err(Error::model_invalid(
                "the weight has no scale, although the file says that its weights are scaled",
            )
            .with("tensor", weight)),
            None => Ok(()),
        }
    }
}

impl Source for Scaled {
    fn names(&self) -> Vec<String> {
        let mut names = self.file.names();
        names.retain(|name| !self.hidden.contains(name));
        names
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        if self.hidden.contains(name) { None } else { self.file.shape(name) }
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        self.file.load_scaled(name, self.scales.get(name).copied(), dtype, device)
    }

    fn stored(&self, name: &str) -> Option<DType> {
        Source::stored(&self.file, name)
    }

    fn origin(&self, name: &str) -> &str {
        self.file.origin(name)
    }
}
