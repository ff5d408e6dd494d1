//! Presets of Fooocus: values for what a request does not say.

use serde_json::{Map, Value, json};

use super::library::Library;
use crate::error::{ApiError, ApiResult, wrong};

/// What a preset calls a parameter.
const NAMES: [(&str, &str); 13] = [
    ("default_model", "base_model_name"),
    ("default_refiner", "refiner_model_name"),
    ("default_refiner_switch", "refiner_switch"),
    ("default_cfg_scale", "guidance_scale"),
    ("default_sample_sharpness", "sharpness"),
    ("default_sampler", "sampler_name"),
    ("default_scheduler", "scheduler_name"),
    ("default_vae", "vae_name"),
    ("default_performance", "performance_selection"),
    ("default_prompt", "prompt"),
    ("default_prompt_negative", "negative_prompt"),
    ("default_styles", "style_selections"),
    ("default_aspect_ratio", "aspect_ratios_selection"),
];

/// The request with what its preset says and itself does not.
pub(super) fn laid_under(
    body: &Map<String, Value>,
    library: &Library,
) -> ApiResult<Map<String, Value>> {
    let mut all = body.clone();
    let name = match body.get("preset").and_then(Value::as_str) {
        None | Some("" | "initial") => return Ok(all),
        Some(name) => name,
    };
    let failed = |why: &str| {
        ApiError::fields(vec![wrong("value_error", &[json!("preset")], why, &json!(name))])
    };
    let text = library.preset(name).ok_or_else(|| failed("there is no such preset"))?;
    let preset: Map<String, Value> = serde_json::from_str(&text)
        .map_err(|e| failed(&format!("the preset cannot be read: {e}")))?;
    for (key, field) in NAMES {
        if let Some(value) = preset.get(key) {
            all.entry(field).or_insert_with(|| value.clone());
        }
    }
    if let Some(loras) = preset.get("default_loras").and_then(Value::as_array) {
        // Lists of a switch, a name and a weight; older ones have no switch.
        let lora = |lora: &Value| match lora.as_array().map(Vec::as_slice) {
            Some([enabled, name, weight]) => {
                json!({"enabled": enabled, "model_name": name, "weight": weight})
            }
            Some([name, weight]) => json!({"enabled": true, "model_name": name, "weight": weight}),
            _ => lora.clone(),
        };
        all.entry("loras").or_insert_with(|| loras.iter().map(lora).collect());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_says_what_the_request_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let preset = json!({"default_styles": [], "default_cfg_scale": 6.0, "default_sampler": "euler",
            "default_loras": [[true, "a.safetensors", 0.5], ["b.safetensors", 1.0]], "other": 1});
        std::fs::write(folder.path().join("anime.json"), preset.to_string()).unwrap();
        let library = Library { presets: Some(folder.path().to_owned()), ..Library::default() };
        let body = json!({"preset": "anime", "sampler_name": "lcm", "prompt": "a cat"});
        let all = laid_under(body.as_object().unwrap(), &library).unwrap();
        assert_eq!(all["sampler_name"], "lcm");
        assert_eq!((&all["guidance_scale"], &all["style_selections"]), (&json!(6.0), &json!([])));
        let second = json!({"enabled": true, "model_name": "b.safetensors", "weight": 1.0});
        assert_eq!(all["loras"][1], second);
        let body = json!({"preset": "realistic"});
        let error = laid_under(body.as_object().unwrap(), &library).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("preset"));
        for plain in [json!({}), json!({"preset": "initial"})] {
            assert_eq!(
                laid_under(plain.as_object().unwrap(), &library).unwrap(),
                *plain.as_object().unwrap()
            );
        }
    }
}
