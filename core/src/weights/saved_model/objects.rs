//! The objects of a Keras SavedModel: which variables belong to which layer, and what the layers
//! are configured to do.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use crate::error::{Error, Result};
use crate::weights::wire::{Fields, damaged};

/// Most objects of one model.
const MAX_OBJECTS: usize = 1_000_000;
/// Longest path from a layer to a variable in it.
const MAX_PLACE: usize = 1024;

/// A layer that has variables, in the order of the model.
#[derive(Debug)]
pub(super) struct Layer {
    /// Variables by the end of their name (`kernel`, `query/kernel`), with their key; in a layer
    /// that is made of layers, by their place in it (`attn/qkv/kernel`).
    pub(super) variables: BTreeMap<String, String>,
    /// The layer's name, as far as its variables carry it.
    pub(super) name: String,
}

#[derive(Default)]
struct Object {
    children: Vec<(usize, String)>,
    /// Full name and key, if the object is a variable.
    variable: Option<(String, String)>,
}

/// The layers with variables, in order.
pub(super) fn layers(bytes: &[u8]) -> Result<Vec<Layer>> {
    let mut objects = Vec::new();
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        if number == 1 {
            if objects.len() >= MAX_OBJECTS {
                return Err(damaged("the model has too many objects"));
            }
            objects.push(object(value.bytes()?)?);
        }
    }
    let root = objects.first().ok_or_else(|| damaged("the model has no objects"))?;
    let mut numbered = BTreeMap::new();
    for (id, name) in &root.children {
        if let Some(number) = name.strip_prefix("layer_with_weights-") {
            let number: usize = number.parse().map_err(|_| damaged("a layer has no number"))?;
            numbered.insert(number, *id);
        }
    }
    if numbered.is_empty() || !numbered.keys().copied().eq(0..numbered.len()) {
        return Err(Error::unsupported("the SavedModel is no Keras model of layers in order"));
    }
    numbered.values().map(|id| layer(&objects, *id)).collect()
}

/// Children that list what a layer has under other names already.
const LISTS: &[&str] =
    &["variables", "trainable_variables", "non_trainable_variables", "layers", "keras_api"];

/// The variables below one object.
fn layer(objects: &[Object], root: usize) -> Result<Layer> {
    let mut name = String::new();
    let (mut by_name, mut by_place) = (BTreeMap::new(), BTreeMap::new());
    let mut is_nested = false;
    let (mut seen, mut open) = (vec![(root, String::new())], 0);
    let mut known = HashSet::from([root]);
    while let Some((id, place)) = seen.get(open).cloned() {
        let object = objects.get(id).ok_or_else(|| damaged("an object is missing"))?;
        if let Some((full, key)) = &object.variable {
            // A layer's variables are `layer/kernel`, those of an attention `layer/query/kernel`.
            let parts: Vec<&str> = full.split('/').collect();
            let short = match parts[..] {
                [.., part @ ("query" | "key" | "value" | "attention_output"), last] => {
                    format!("{part}/{last}")
                }
                [.., last] => last.to_owned(),
                [] => String::new(),
            };
            if parts.len() > 1 {
                name = parts[0].to_owned();
            }
            is_nested |= by_name.insert(short, key.clone()).is_some_and(|other| other != *key);
            by_place.insert(place.clone(), key.clone());
        }
        for (id, child) in &object.children {
            if !LISTS.contains(&child.as_str()) && known.insert(*id) {
                let place =
                    if place.is_empty() { child.clone() } else { format!("{place}/{child}") };
                if place.len() > MAX_PLACE {
                    return Err(damaged("an object lies too deep"));
                }
                seen.push((*id, place));
            }
        }
        // Layers are small; a graph in which one reaches everything is not one of Keras layers.
        if seen.len() > 4096 {
            return Err(Error::unsupported("a layer of too many objects"));
        }
        open += 1;
    }
    Ok(Layer { variables: if is_nested { by_place } else { by_name }, name })
}

fn object(bytes: &[u8]) -> Result<Object> {
    let mut object = Object::default();
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => {
                let (mut id, mut name) = (0, String::new());
                let mut parts = Fields::new(value.bytes()?);
                while let Some((number, value)) = parts.next()? {
                    match number {
                        1 => id = usize::try_from(value.int()?).unwrap_or(usize::MAX),
                        2 => name = value.text()?,
                        _ => {}
                    }
                }
                object.children.push((id, name));
            }
            2 => {
                let (mut full, mut key) = (String::new(), String::new());
                let mut parts = Fields::new(value.bytes()?);
                while let Some((number, value)) = parts.next()? {
                    match number {
                        2 => full = value.text()?,
                        3 => key = value.text()?,
                        _ => {}
                    }
                }
                object.variable = Some((full, key));
            }
            _ => {}
        }
    }
    Ok(object)
}

/// What `keras_metadata.pb` says about the layers.
#[derive(Debug)]
pub(super) struct Metadata {
    pub(super) model: String,
    pub(super) size: usize,
    pub(super) epsilon: f64,
    /// The epsilon of the last norm of the model.
    pub(super) final_epsilon: f64,
    /// Factor and offset that the model applies to its input.
    pub(super) scaling: (f64, f64),
}

/// Reads `keras_metadata.pb`.
pub(super) fn metadata(bytes: &[u8]) -> Result<Metadata> {
    let mut configs: Vec<(String, Value)> = Vec::new();
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        if number != 1 {
            continue;
        }
        let mut place = String::new();
        let mut parts = Fields::new(value.bytes()?);
        while let Some((number, value)) = parts.next()? {
            match number {
                3 => place = value.text()?,
                5 => {
                    let text = value.text()?;
                    let parsed: Value = serde_json::from_str(&text).map_err(|e| {
                        Error::model_invalid("the configuration of a layer is no JSON").caused_by(e)
                    })?;
                    configs.push((place.clone(), parsed));
                }
                _ => {}
            }
        }
    }
    let (_, model) =
        configs.iter().find(|(_, config)| config["config"]["layers"].is_array()).ok_or_else(
            || Error::unsupported("the SavedModel does not record its layers; use the ONNX file"),
        )?;
    let layers: Vec<&Value> = model["config"]["layers"].as_array().into_iter().flatten().collect();
    let mut size = None;
    let mut epsilon: Option<f64> = None;
    let mut final_epsilon = None;
    let mut scaling = (1.0, 0.0);
    for (i, layer) in layers.iter().enumerate() {
        let config = &layer["config"];
        match layer["class_name"].as_str().unwrap_or_default() {
            "InputLayer" => {
                let shape = &config["batch_input_shape"];
                let items = shape.get("items").unwrap_or(shape).as_array();
                let items: Vec<Option<u64>> =
                    items.into_iter().flatten().map(Value::as_u64).collect();
                match items[..] {
                    [_, Some(height), Some(width), Some(3)]
                        if height == width && size.is_none() =>
                    {
                        size = usize::try_from(height).ok();
                    }
                    _ => return Err(unknown("an input of this shape", layer)),
                }
            }
            "LayerNormalization" => {
                // The last one may have another.
                if epsilon.is_some() && epsilon != final_epsilon {
                    return Err(unknown("a layer norm behind one with another epsilon", layer));
                }
                final_epsilon = Some(config["epsilon"].as_f64().unwrap_or(f64::NAN));
                epsilon = epsilon.or(final_epsilon);
            }
            "Activation" => {
                let last = i + 1 == layers.len();
                match config["activation"].as_str() {
                    Some("gelu") if !last => {}
                    Some("sigmoid") if last => {}
                    _ => return Err(unknown("an activation function of this kind", layer)),
                }
            }
            "TFOpLambda" => {
                let y = layer["inbound_nodes"][0][3]["y"].as_f64();
                match (config["function"].as_str().unwrap_or_default(), y) {
                    ("cast", _) => {}
                    ("math.subtract", Some(y)) => scaling.1 -= y,
                    ("math.multiply", Some(y)) => scaling = (scaling.0 * y, scaling.1 * y),
                    _ => return Err(unknown("an operation of this kind", layer)),
                }
            }
            "Dense" | "Conv2D" | "DepthwiseConv2D"
                if config["activation"].as_str() != Some("linear") =>
            {
                return Err(unknown("a layer with an activation function of its own", layer));
            }
            _ => {}
        }
    }
    let known_epsilon = |epsilon: &f64| (1e-12..=0.1).contains(epsilon);
    let missing = || Error::unsupported("the SavedModel does not record its input or its norms");
    // Layers in layers are not in the list of the model; their places are `root.layer.attn.proj`.
    for (place, layer) in configs.iter().filter(|(place, _)| place.matches('.').count() > 1) {
        let config = &layer["config"];
        let activation = config["activation"].as_str();
        let known = match layer["class_name"].as_str().unwrap_or_default() {
            "LayerNormalization" => config["epsilon"].as_f64() == epsilon,
            // The network of the position biases of SwinV2.
            "Activation" if place.contains(".cpb_mlp.") => activation == Some("relu"),
            "Activation" => activation == Some("gelu"),
            "Dense" => activation == Some("linear"),
            _ => true,
        };
        if !known {
            return Err(unknown("a layer of this kind", layer).with("place", place));
        }
    }
    Ok(Metadata {
        model: model["name"].as_str().unwrap_or_default().to_owned(),
        size: size.ok_or_else(missing)?,
        epsilon: epsilon.filter(known_epsilon).ok_or_else(missing)?,
        final_epsilon: final_epsilon.filter(known_epsilon).ok_or_else(missing)?,
        scaling,
    })
}

fn unknown(what: &str, layer: &Value) -> Error {
    let name = layer["config"]["name"].as_str().unwrap_or_default();
    Error::unsupported(format!("{what} is not known")).with("layer", name)
}
