//! The arguments of a network, as a timm `config.json` gives them.
//!
//! Such a file names an architecture and lists what differs from it in `model_args`. The defaults
//! behind the names come from `timm_presets.json`, which a script reads from timm itself. A network
//! asks for every argument it knows; [`Args::finish`] refuses what nobody asked for, since an
//! argument that is silently ignored is a silently wrong network.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::kernels::activation::Activation;

/// Most patches of one picture. Tables of positions are computed before any tensor is looked at.
const MAX_PATCHES: usize = 1 << 16;
/// Widest hidden layer, in widths of its block.
const MAX_RATIO: f64 = 64.0;

/// Arguments that matter in training only.
const TRAINING_ONLY: &[&str] = &[
    "attn_drop_rate",
    "drop_path_rate",
    "drop_rate",
    "fix_init",
    "head_init_scale",
    "patch_drop_rate",
    "pos_drop_rate",
    "proj_drop_rate",
    "rope_jitter_coords",
    "rope_rescale_coords",
    "rope_shift_coords",
    "weight_init",
];

/// What timm knows an architecture's name as.
#[derive(Deserialize)]
struct Preset {
    family: String,
    #[serde(default)]
    args: Map<String, Value>,
    unsupported: Option<String>,
}

fn presets() -> &'static BTreeMap<String, Preset> {
    static PRESETS: OnceLock<BTreeMap<String, Preset>> = OnceLock::new();
    PRESETS
        .get_or_init(|| serde_json::from_str(include_str!("timm_presets.json")).unwrap_or_default())
}

/// The arguments of one network, with a record of those that were asked for.
pub(crate) struct Args {
    architecture: String,
    family: String,
    values: Map<String, Value>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl Args {
    /// The arguments of `architecture` (a timm name, a `.tag` behind it is ignored), with
    /// `overrides` in place of its defaults.
    pub(crate) fn new(architecture: &str, overrides: &Map<String, Value>) -> Result<Self> {
        let name = architecture.split('.').next().unwrap_or_default();
        let preset = presets().get(name).ok_or_else(|| unknown_architecture(architecture))?;
        if let Some(what) = &preset.unsupported {
            return Err(Error::unsupported(format!(
                "architecture `{architecture}` needs `{what}`, which is not supported"
            )));
        }
        let mut values = preset.args.clone();
        // timm takes `null` for "not given", so the default stays.
        let given = overrides.iter().filter(|(_, value)| !value.is_null());
        values.extend(given.map(|(name, value)| (name.clone(), value.clone())));
        Ok(Self {
            architecture: name.to_owned(),
            family: preset.family.clone(),
            values,
            asked: RefCell::default(),
        })
    }

    /// Sets an argument that the configuration has outside of `model_args`, unless it is given.
    pub(crate) fn set_default(&mut self, name: &str, value: Value) {
        if !self.values.contains_key(name) {
            self.values.insert(name.to_owned(), value);
        }
    }

    /// The family of the architecture: the key of the table of networks.
    pub(crate) fn family(&self) -> &str {
        &self.family
    }

    /// Fails if an argument was given that the network does not know.
    pub(crate) fn finish(&self) -> Result<()> {
        let asked = self.asked.borrow();
        let unknown: Vec<_> = self
            .values
            .keys()
            .map(String::as_str)
            .filter(|name| !asked.contains(name) && !TRAINING_ONLY.contains(name))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(Error::unsupported(format!(
            "`model_args` has keys that {} does not know: {}",
            self.architecture,
            unknown.join(", ")
        )))
    }

    /// Fails unless the argument, when given, is one of `values`: for arguments of which only some
    /// values are supported.
    pub(crate) fn only(&self, name: &'static str, supported: &[Value]) -> Result<()> {
        match self.get(name) {
            Some(value) if !supported.contains(value) => Err(Error::unsupported(format!(
                "`{name}` is {value} in `model_args` of {}; supported: {}",
                self.architecture,
                supported.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")
            ))),
            _ => Ok(()),
        }
    }

    pub(crate) fn usize(&self, name: &'static str, default: usize) -> Result<usize> {
        let Some(value) = self.get(name) else { return Ok(default) };
        positive(value).ok_or_else(|| self.wrong(name, value, "a whole number from 1 to 65536"))
    }

    /// A count that may be zero.
    pub(crate) fn count(&self, name: &'static str) -> Result<usize> {
        match self.get(name) {
            None => Ok(0),
            Some(value) if value.as_u64() == Some(0) => Ok(0),
            Some(_) => self.usize(name, 0),
        }
    }

    pub(crate) fn f64(&self, name: &'static str, default: f64) -> Result<f64> {
        let Some(value) = self.get(name) else { return Ok(default) };
        value
            .as_f64()
            .filter(|number| number.is_finite())
            .ok_or_else(|| self.wrong(name, value, "a number"))
    }

    pub(crate) fn bool(&self, name: &'static str, default: bool) -> Result<bool> {
        Ok(self.optional_bool(name)?.unwrap_or(default))
    }

    pub(crate) fn optional_bool(&self, name: &'static str) -> Result<Option<bool>> {
        self.get(name)
            .map(|value| value.as_bool().ok_or_else(|| self.wrong(name, value, "true or false")))
            .transpose()
    }

    pub(crate) fn string(&self, name: &'static str, default: &str) -> Result<String> {
        let Some(value) = self.get(name) else { return Ok(default.to_owned()) };
        let text = value.as_str().ok_or_else(|| self.wrong(name, value, "a string"))?;
        Ok(text.to_owned())
    }

    /// Whether an argument is given at all; `null` counts as not given.
    pub(crate) fn is_set(&self, name: &'static str) -> bool {
        self.get(name).is_some()
    }

    /// Whether layer scale is on: `null` and 0 switch it off, `default` says what not giving it does.
    pub(crate) fn layer_scale(&self, name: &'static str, default: bool) -> Result<bool> {
        self.asked.borrow_mut().insert(name);
        match self.values.get(name) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(value) if value.is_number() => Ok(true),
            Some(value) => Err(self.wrong(name, value, "a number or null")),
        }
    }

    /// One number for both, or height and width.
    pub(crate) fn pair(&self, name: &'static str, default: usize) -> Result<(usize, usize)> {
        let Some(value) = self.get(name) else { return Ok((default, default)) };
        pair(value).ok_or_else(|| self.wrong(name, value, "a whole number or a pair of them"))
    }

    /// The rows and columns of patches that the input is cut into.
    pub(crate) fn grid(&self, patch: (usize, usize)) -> Result<(usize, usize)> {
        let size = self.pair("img_size", 224)?;
        let grid = (size.0 / patch.0, size.1 / patch.1);
        if grid.0 == 0 || grid.1 == 0 {
            return Err(Error::model_invalid(format!(
                "an input of {size:?} pixels holds no patch of {patch:?}"
            )));
        }
        if grid.0 * grid.1 > MAX_PATCHES {
            return Err(Error::unsupported(format!(
                "an input of {size:?} pixels has more than {MAX_PATCHES} patches of {patch:?}"
            )));
        }
        Ok(grid)
    }

    /// How much wider than a block its hidden layer is.
    pub(crate) fn mlp_ratio(&self) -> Result<f64> {
        let ratio = self.f64("mlp_ratio", 4.0)?;
        if ratio > 0.0 && ratio <= MAX_RATIO {
            return Ok(ratio);
        }
        Err(self.wrong("mlp_ratio", &ratio.into(), "a number above 0 and at most 64"))
    }

    /// One number for each of `count` stages.
    pub(crate) fn stages(&self, name: &'static str, default: &[usize]) -> Result<Vec<usize>> {
        let Some(value) = self.get(name) else { return Ok(default.to_vec()) };
        let list = match value {
            Value::Array(items) => items.iter().map(positive).collect(),
            value => positive(value).map(|one| vec![one; default.len()]),
        };
        list.filter(|list: &Vec<usize>| !list.is_empty() && list.len() <= 16)
            .ok_or_else(|| self.wrong(name, value, "a list of whole numbers"))
    }

    /// One number for each of `count` stages; 0 where none is given.
    pub(crate) fn stages_or_zero(&self, name: &'static str, count: usize) -> Result<Vec<usize>> {
        let Some(value) = self.get(name) else { return Ok(vec![0; count]) };
        let number = |value: &Value| match value.as_u64() {
            Some(0) => Some(0),
            _ => positive(value),
        };
        let list = match value {
            Value::Array(items) if items.len() == count => items.iter().map(number).collect(),
            Value::Array(_) => None,
            value => number(value).map(|one| vec![one; count]),
        };
        list.ok_or_else(|| self.wrong(name, value, &format!("{count} whole numbers")))
    }

    /// Height and width for each of `count` stages: one number or pair for all, or a list of either.
    /// Two numbers are always a pair.
    pub(crate) fn stage_pairs(
        &self,
        name: &'static str,
        default: usize,
        count: usize,
    ) -> Result<Vec<(usize, usize)>> {
        let Some(value) = self.get(name) else { return Ok(vec![(default, default); count]) };
        let list = match (pair(value), value) {
            (Some(one), _) => Some(vec![one; count]),
            (None, Value::Array(items)) if items.len() == count => items.iter().map(pair).collect(),
            _ => None,
        };
        list.ok_or_else(|| self.wrong(name, value, &format!("a size or {count} sizes")))
    }

    pub(crate) fn activation(&self, name: &'static str, default: &str) -> Result<Activation> {
        let text = self.string(name, default)?;
        Activation::from_timm(&text).ok_or_else(|| {
            Error::unsupported(format!(
                "activation `{text}` (`{name}`) is not supported; known: gelu, gelu_tanh, \
                 quick_gelu, silu, relu, identity"
            ))
        })
    }

    fn get(&self, name: &'static str) -> Option<&Value> {
        self.asked.borrow_mut().insert(name);
        self.values.get(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, value: &Value, expected: &str) -> Error {
        Error::model_invalid(format!(
            "`{name}` is {value} in `model_args` of {}, expected {expected}",
            self.architecture
        ))
    }
}

/// A size that a network can have; the bound keeps products of sizes far from overflow.
fn positive(value: &Value) -> Option<usize> {
    let number = match value.as_u64() {
        Some(number) => number,
        // Python writes some whole numbers as 14.0.
        None => value.as_f64().filter(|x| x.fract() == 0.0 && *x >= 0.0)? as u64,
    };
    (1..=65_536).contains(&number).then_some(number as usize)
}

/// One number for both, or height and width.
fn pair(value: &Value) -> Option<(usize, usize)> {
    match value {
        Value::Array(items) if items.len() == 2 => positive(&items[0]).zip(positive(&items[1])),
        value => positive(value).map(|side| (side, side)),
    }
}

fn unknown_architecture(architecture: &str) -> Error {
    let family = architecture.split('_').next().unwrap_or_default();
    let known: Vec<_> = presets()
        .keys()
        .filter(|name| !family.is_empty() && name.starts_with(family))
        .take(8)
        .map(String::as_str)
        .collect();
    let known = if known.is_empty() {
        "ViT, SwinV2, ConvNeXt and EVA-02 architectures of timm are".to_owned()
    } else {
        format!("{}, ... are", known.join(", "))
    };
    Error::unsupported(format!("architecture `{architecture}` is not supported; {known}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn args(overrides: Value) -> Args {
        Args::new("vit_base_patch16_224", overrides.as_object().unwrap()).unwrap()
    }

    #[test]
    fn overrides_replace_the_defaults_of_the_architecture() {
        let args = args(json!({"depth": 3, "img_size": [448, 224], "num_heads": 12.0}));
        assert_eq!(args.usize("depth", 1).unwrap(), 3);
        assert_eq!(args.usize("embed_dim", 1).unwrap(), 768);
        assert_eq!(args.usize("num_heads", 1).unwrap(), 12);
        assert_eq!(args.pair("img_size", 224).unwrap(), (448, 224));
        assert_eq!(args.pair("patch_size", 1).unwrap(), (16, 16));
        args.finish().unwrap();
    }

    #[test]
    fn what_nobody_asked_for_is_refused_by_name() {
        let args = args(json!({"drop_rate": 0.1, "moe_experts": 8}));
        for name in ["patch_size", "embed_dim", "depth", "num_heads"] {
            args.usize(name, 1).unwrap();
        }
        assert!(args.finish().unwrap_err().to_string().contains("moe_experts"));
    }

    #[test]
    fn wrong_types_and_sizes_name_the_key() {
        let args =
            args(json!({"depth": "many", "embed_dim": 0, "mlp_ratio": [], "act_layer": "x"}));
        for error in [
            args.usize("depth", 1).unwrap_err(),
            args.usize("embed_dim", 1).unwrap_err(),
            args.f64("mlp_ratio", 4.0).unwrap_err(),
            args.activation("act_layer", "gelu").unwrap_err(),
        ] {
            let text = error.to_string();
            let keys = ["depth", "embed_dim", "mlp_ratio", "act_layer"];
            assert!(keys.iter().any(|key| text.contains(key)), "{text}");
        }
    }

    #[test]
    fn unknown_architectures_are_named() {
        for name in ["caformer_s36", "vit_huge_nonsense", "", "."] {
            let error = Args::new(name, &Map::new()).err().unwrap();
            assert!(error.to_string().contains(name), "{error}");
        }
        let error = Args::new("vit_giant_patch14_dinov2", &Map::new()).err().unwrap();
        assert!(error.to_string().contains("mlp_layer"), "{error}");
    }
}
