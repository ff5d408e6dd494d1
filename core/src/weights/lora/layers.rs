//! The layers of a network under all the names that LoRA files have for them.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::weights::checkpoint::Source;
use crate::weights::single_file::UNetNames;

/// A kind of network: what programs call it, and how they spell its layers.
#[derive(Debug)]
pub(crate) struct Network {
    /// What files put before the names of layers. Where a file is for one network alone, they may have
    /// nothing there.
    prefixes: &'static [&'static str],
    /// The same where points in the layers' names became underscores.
    flat: &'static [&'static str],
    /// What is before its keys in the notes of a file, without the point.
    pub(super) notes: &'static str,
    kind: Kind,
}

#[derive(Debug, PartialEq)]
enum Kind {
    /// In diffusers' converter of such files, `alpha / rank` is a part of the matrices, rounded to their
    /// format.
    Transformer,
    /// Also known by the names of latent diffusion.
    UNet,
    TextEncoder,
}

impl Network {
    /// A transformer that denoises.
    pub(crate) const TRANSFORMER: Self = Self {
        prefixes: &["transformer.", "diffusion_model."],
        flat: &["lora_unet_"],
        notes: "transformer",
        kind: Kind::Transformer,
    };
    /// The denoising network of Stable Diffusion.
    pub(crate) const UNET: Self = Self {
        prefixes: &["unet.", "model.diffusion_model.", "diffusion_model."],
        flat: &["lora_unet_"],
        notes: "unet",
        kind: Kind::UNet,
    };
    /// The first of two text encoders.
    pub(crate) const TEXT_ENCODER: Self = Self {
        prefixes: &["text_encoder."],
        flat: &["lora_te1_", "lora_te_"],
        notes: "text_encoder",
        kind: Kind::TextEncoder,
    };
    /// The second of two text encoders.
    pub(crate) const TEXT_ENCODER_2: Self = Self {
        prefixes: &["text_encoder_2."],
        flat: &["lora_te2_"],
        notes: "text_encoder_2",
        kind: Kind::TextEncoder,
    };

    pub(super) fn rounds_alpha(&self) -> bool {
        self.kind == Kind::Transformer
    }

    /// All names of a layer, of which the first is that of the network's own tensors.
    fn names(&self, layer: &str, unet: &UNetNames) -> Vec<String> {
        let mut names = vec![layer.to_owned()];
        match self.kind {
            Kind::Transformer => {}
            Kind::UNet => {
                names.extend(unet.of_ldm(layer));
                // Old versions of diffusers.
                names
                    .extend(layer.strip_suffix(".to_out.0").map(|front| format!("{front}.to_out")));
            }
            Kind::TextEncoder => {
                // transformers 5 leaves the prefix out.
                let plain = layer.strip_prefix("text_model.").unwrap_or(layer);
                let mut add = |plain: &str| {
                    names.push(plain.to_owned());
                    names.push(format!("text_model.{plain}"));
                };
                add(plain);
                for (now, old) in [("q_proj", "to_q"), ("k_proj", "to_k"), ("v_proj", "to_v")] {
                    plain
                        .strip_suffix(now)
                        .into_iter()
                        .for_each(|front| add(&format!("{front}{old}")));
                }
                plain
                    .strip_suffix("self_attn.out_proj")
                    .into_iter()
                    .for_each(|front| add(&format!("{front}self_attn.to_out")));
            }
        }
        names.dedup();
        names
    }
}

/// The layers of a network that a LoRA can change.
pub(super) struct Layers {
    network: &'static Network,
    /// The names of weights by those of their layers.
    plain: BTreeMap<String, String>,
    /// The same by names without points; nothing where two are alike.
    flat: BTreeMap<String, Option<String>>,
}

impl Layers {
    /// The linear layers and convolutions of `base`.
    pub(super) fn of(base: &dyn Source, network: &'static Network) -> Result<Self> {
        let mut layers = Self { network, plain: BTreeMap::new(), flat: BTreeMap::new() };
        let weights = base.names();
        let unet = UNetNames::of(weights.iter().map(String::as_str));
        for weight in weights {
            let Some(layer) = weight.strip_suffix(".weight") else { continue };
            if base.shape(&weight).is_none_or(|shape| !matches!(shape.len(), 2 | 4)) {
                continue;
            }
            for name in network.names(layer, &unet) {
                layers
                    .flat
                    .entry(name.replace('.', "_"))
                    .and_modify(|other| {
                        if other.as_ref() != Some(&weight) {
                            *other = None;
                        }
                    })
                    .or_insert_with(|| Some(weight.clone()));
                layers.plain.insert(name, weight.clone());
            }
        }
        if layers.plain.is_empty() {
            return Err(Error::model_invalid("the network has no linear layers to change"));
        }
        Ok(layers)
    }

    /// The weight of the layer that a file calls `layer`, if it is one of this network.
    pub(super) fn weight(&self, layer: &str) -> Result<Option<&str>> {
        let layer = layer.strip_prefix("base_model.model.").unwrap_or(layer);
        let flat = self.network.flat.iter().find_map(|prefix| layer.strip_prefix(prefix));
        if let Some(flat) = flat {
            return match self.flat.get(&flat.replace('.', "_")) {
                Some(Some(weight)) => Ok(Some(weight)),
                Some(None) => {
                    Err(Error::model_invalid(format!("`{layer}` may be one of two layers")))
                }
                None => Ok(None),
            };
        }
        let prefix = self.network.prefixes.iter().find_map(|prefix| layer.strip_prefix(prefix));
        let plain = prefix.unwrap_or(layer).replace(".processor.", ".");
        Ok(self.plain.get(&plain).map(String::as_str))
    }
}

/// Nobody knows the layer.
pub(super) fn unknown(layer: &str) -> Error {
    Error::model_invalid(format!("the model has no layer `{layer}` for the LoRA to change"))
}
