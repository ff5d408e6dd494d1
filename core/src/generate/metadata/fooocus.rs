//! Metadata as Fooocus writes them: JSON with sorted keys, in ASCII.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Generated, MetadataScheme, Recipe, Unusual, software, tuple};
use crate::error::{Error, ErrorKind, Result};

/// What stands in the place of a refiner that is not there.
const NO_REFINER: &str = "None";

pub(super) fn text(made: &Generated, recipe: &Recipe) -> Result<String> {
    let Recipe { full: [prompt, negative], unstyled, setting } = recipe;
    let options = &setting.options;
    let guidance = options.size_guidance;
    let refiner = setting.refiner.as_ref();
    let mut values = BTreeMap::from([
        ("adm_guidance", json!(tuple(&[guidance.positive, guidance.negative, guidance.end]))),
        ("base_model", json!(setting.model.name)),
        ("full_negative_prompt", json!(negative)),
        ("full_prompt", json!(prompt)),
        ("guidance_scale", number(options.guidance_scale)?),
        ("metadata_scheme", json!(MetadataScheme::Fooocus.name())),
        ("negative_prompt", json!(unstyled.negative_prompt)),
        ("prompt", json!(unstyled.prompt)),
        ("prompt_expansion", json!("")),
        ("refiner_model", json!(refiner.map_or(NO_REFINER, |refiner| &refiner.name))),
        ("refiner_switch", json!(options.refiner_switch)),
        ("resolution", json!(tuple(&[made.image.width(), made.image.height()]))),
        ("sampler", json!(options.sampler.to_string())),
        ("scheduler", json!(options.scheduler.to_string())),
        ("seed", json!(made.seed.to_string())),
        ("sharpness", number(options.sharpness)?),
        ("steps", json!(options.steps)),
        ("styles", json!(list(&unstyled.styles))),
        ("vae", json!(setting.vae())),
        ("version", json!(software())),
    ]);
    let Unusual { adaptive_guidance, clip_skip, freeu, refiner_swap } = Unusual::of(setting);
    let refiner_hash = refiner.map(|refiner| refiner.hash()).transpose()?.flatten();
    for (key, value) in [
        ("base_model_hash", setting.model.hash()?.map(Value::from)),
        ("refiner_model_hash", refiner_hash.map(Value::from)),
        ("performance", options.performance.map(|performance| json!(performance.name()))),
        ("adaptive_cfg", adaptive_guidance.map(number).transpose()?),
        ("clip_skip", clip_skip.map(Value::from)),
        ("freeu", freeu.map(Value::from)),
        ("refiner_swap_method", refiner_swap.map(Value::from)),
    ] {
        values.extend(value.map(|value| (key, value)));
    }
    let mut loras = Vec::new();
    let mut combined = Vec::new();
    for (i, (lora, scale)) in setting.loras.iter().enumerate() {
        loras.push(json!([lora.name, scale, lora.hash()?]));
        combined.push((format!("lora_combined_{}", i + 1), format!("{} : {scale:?}", lora.name)));
    }
    values.insert("loras", Value::Array(loras));
    values.extend(combined.iter().map(|(key, value)| (&**key, json!(value))));
    let text = serde_json::to_string(&values).map_err(|e| {
        Error::new(ErrorKind::Internal, format!("cannot write metadata as JSON: {e}"))
    })?;
    Ok(ascii(&text))
}

/// The number that people wrote: 0.8 in 32 bits is another one in 64.
fn number(value: f32) -> Result<Value> {
    let decimal: f64 = value.to_string().parse().map_err(|e| {
        Error::new(ErrorKind::Internal, format!("{value} is no number for metadata: {e}"))
    })?;
    Ok(json!(decimal))
}

/// Texts as Python writes a list of them.
fn list(texts: &[String]) -> String {
    let texts: Vec<String> = texts
        .iter()
        .map(|text| {
            let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
            let escaped = text.replace('\\', "\\\\").replace('\n', "\\n");
            let escaped = match quote {
                '\'' => escaped.replace('\'', "\\'"),
                _ => escaped,
            };
            format!("{quote}{escaped}{quote}")
        })
        .collect();
    format!("[{}]", texts.join(", "))
}

/// The same JSON in ASCII: other letters are in texts only, where they may be escaped.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        if letter.is_ascii() {
            text.push(letter);
        } else {
            text.extend(
                letter.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")),
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_those_of_python() {
        let list =
            |texts: &[&str]| list(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        assert_eq!(list(&[]), "[]");
        assert_eq!(list(&["Fooocus V2", "a\\b"]), r"['Fooocus V2', 'a\\b']");
        assert_eq!(list(&["it's", r#"it's "a""#]), r#"["it's", 'it\'s "a"']"#);
    }

    #[test]
    fn letters_beyond_ascii_are_escaped() {
        let text = ascii(r#"{"a": "红🦀é\n"}"#);
        assert_eq!(text, r#"{"a": "\u7ea2\ud83e\udd80\u00e9\n"}"#);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["a"], "红🦀é\n");
    }

    #[test]
    fn numbers_are_those_that_were_written() {
        let text = |value| number(value).unwrap().to_string();
        assert_eq!([text(0.8), text(4.0), text(7.1)], ["0.8", "4.0", "7.1"]);
    }
}
